/* SPDX-License-Identifier: MIT */
/* misuse.c - stop the program, with one line that says why */
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Not through stdio: its lock may be held, its buffer may never be seen. */
_Noreturn void bp_misuse(const char *call, const void *handle,
                         const char *reason)
{
	char line[200];
	int n = snprintf(line, sizeof(line), "bufpool: %s(%p): %s\n", call,
	                 handle, reason);

	if (n > 0 && write(STDERR_FILENO, line, (size_t) n) != n) {
		/* Nowhere to say it; the abort says enough. */
	}
	abort();
}

_Noreturn void bp_misuse_handle(const char *call, const struct buf *d)
{
	bool ours = (uintptr_t) d % sizeof(*d) == 0;

	if (ours && (buf_state(d) == STATE_HOME_HEAP ||
	             buf_state(d) - STATE_HOME < BUFPOOL_CLASSES))
		bp_misuse(call, d,
		          "the buffer is home already: returned twice");
	bp_misuse(call, d, "not a buffer of any pool");
}

_Noreturn void bp_misuse_owner(const char *call, const struct buf *d,
                               size_t capacity)
{
	if (d->pub.data != d->base)
		bp_misuse(call, d, "data was changed");
	if (d->pub.capacity != capacity)
		bp_misuse(call, d, "capacity was changed");
	bp_misuse(call, d, "len is above the capacity");
}
