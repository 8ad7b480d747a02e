/* SPDX-License-Identifier: MIT */
#include "misuse.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cancel.h"
#include "name.h"

/* Not through stdio: its lock may be held, its buffer may never be seen. */
_Noreturn void bp_misuse(const char *call, const void *handle,
                         const char *reason, const char *pool)
{
	char line[200 + QUOTED_ROOM], name[QUOTED_ROOM] = "";
	int n;

	cancel_never(); /* in a thread that is to be cancelled, too */
	if (pool != NULL)
		bp_name_quote(name, pool);
	n = snprintf(line, sizeof(line), "bufpool: %s(%p): %s%s%s\n", call,
	             handle, reason, pool != NULL ? ", in pool " : "", name);
	if (n > 0 && write(STDERR_FILENO, line, (size_t) n) != n) {
		/* Nowhere to say it; the abort says enough. */
	}
	abort();
}
