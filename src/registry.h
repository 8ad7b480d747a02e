/* SPDX-License-Identifier: MIT */
/*
 * registry.h - all pools of the process
 *
 * They enter under a lock that a fork takes as well, so that what the child finds
 * here was complete.  They leave without: who frees a pool may be in
 * bufpool_return(), which waits for nobody.  A pool that is freed during a fork
 * may be here still in the child, and its memory too: the kernel unmaps nothing
 * while it copies.
 */
#ifndef REGISTRY_H
#define REGISTRY_H

#include "pool.h"

/* False if memory is short. */
bool bp_registry_enter(bufpool_t *pool);
void bp_registry_leave(bufpool_t *pool);

/* No pool enters meanwhile. */
void bp_registry_lock(void);
void bp_registry_unlock(void);

/* Call visit for each; it may free its pool. */
void bp_registry_each(void (*visit)(bufpool_t *pool));

#endif
