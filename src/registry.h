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

/*
 * How many have been destroyed since the process began, for threads to know whether
 * it is worth while to look for their caches.  One whose buffers destroy could not
 * take out of the caches counts as more than any thread has: they look at once.
 */
uint64_t bp_registry_dead(void);
void bp_registry_bury(bool empty);

/* No pool enters meanwhile. */
void bp_registry_lock(void);
void bp_registry_unlock(void);

/* Call visit for each; it may free its pool. */
void bp_registry_each(void (*visit)(bufpool_t *pool));

#endif
