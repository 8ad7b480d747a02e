/* SPDX-License-Identifier: MIT */
#include "misuse.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cancel.h"

/* Not through stdio: its lock may be held, its buffer may never be seen. */
_Noreturn void bp_misuse(const char *call, const void *handle,
                         const char *reason)
{
	char line[200];
	int n = snprintf(line, sizeof(line), "bufpool: %s(%p): %s\n", call,
	                 handle, reason);

	cancel_never(); /* in a thread that is to be cancelled, too */
	if (n > 0 && write(STDERR_FILENO, line, (size_t) n) != n) {
		/* Nowhere to say it; the abort says enough. */
	}
	abort();
}
