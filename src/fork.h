/* SPDX-License-Identifier: MIT */
/* fork.h - set the pools right in a child process */
#ifndef FORK_H
#define FORK_H

#include "pool.h"

/* The pool is to be known to children; false if memory is short.  It is forgotten
   when it is freed. */
bool bp_fork_enter(bufpool_t *pool);

#endif
