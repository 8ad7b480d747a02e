/* SPDX-License-Identifier: MIT */
/* thread.h - which caches a thread has */
#ifndef THREAD_H
#define THREAD_H

#include "cache.h"

/* This thread's cache of the pool, if it has one already. */
struct cache *bp_thread_cache(const bufpool_t *pool);

/* The same, made if need be, for where the thread is now; NULL if it can have
   none. */
struct cache *bp_thread_enter(bufpool_t *pool);

/*
 * The same, quickly if it is the one used last.  The next calls of the fast paths
 * find it.  The caller has the pool, or a buffer of it: what may be settled here
 * is not the last of it.
 */
static inline struct cache *thread_enter(bufpool_t *pool)
{
	struct bp_fast *fast = bp_thread_fast;

	if (CK_CC_LIKELY(OWNER_SEE(&fast->pool) == pool) ||
	    (OWNER_SEE(&fast->special) == pool && is_here(fast)))
		return (struct cache *) fast;
	return bp_thread_enter(pool);
}

/* The fast paths know no cache of this thread, until it enters one again. */
void bp_thread_hide(void);

/* Send home what the calling thread has cached; NULL: of all pools, and those of
   dead ones go. */
void bp_thread_flush(const bufpool_t *pool);

#endif
