/* SPDX-License-Identifier: MIT */
/* life.h - how a pool ends */
#ifndef LIFE_H
#define LIFE_H

#include "pool.h"

/* Give back all that a pool, also one that was not built to the end, has taken. */
void bp_pool_free(bufpool_t *pool);

/* Read no more of a pool that bp_registry_next() gave. */
void bp_pool_let_go(bufpool_t *pool);

/*
 * n buffers, or destroy itself, are done with a pool; the last one frees it.
 * That runs the application's region_detach, which may do anything with other
 * pools: so it is the last thing that a call does, and nothing is touched after
 * it that belongs to the pool or to the thread's caches.
 */
void bp_pool_settle(bufpool_t *pool, uint64_t n);

/* The same for what a call owes, which mostly is nothing. */
static inline void settle_owed(bufpool_t *pool, uint64_t owed)
{
	if (CK_CC_UNLIKELY(owed > 0))
		bp_pool_settle(pool, owed);
}

#endif
