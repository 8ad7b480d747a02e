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
	/* Only what is aligned like a descriptor is looked at. */
	uint32_t state = (uintptr_t) d % sizeof(*d) == 0 ? buf_state(d) : 0;

	switch (state & ~0xffu) {
	case STATE_HOME:
	case STATE_UNSURE:
		bp_misuse(call, d, "the buffer is home already");
	case STATE_OUT:
		bp_misuse(call, d, "the buffer is not frozen");
	case STATE_FROZEN:
		bp_misuse(call, d, "the buffer is frozen");
	default:
		bp_misuse(call, d, "not a buffer of any pool");
	}
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
