/* SPDX-License-Identifier: MIT */
/* misuse.h - stop the program, with one line that says why */
#ifndef MISUSE_H
#define MISUSE_H

/* One line that names the public call, the handle, the reason, and the pool if it
   is not NULL; then abort. */
_Noreturn void bp_misuse(const char *call, const void *handle,
                         const char *reason, const char *pool);

#endif
