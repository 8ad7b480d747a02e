/* SPDX-License-Identifier: MIT */
/* trim.c - give the memory of idle buffers back to the system */
#include <errno.h>

#include "cache.h"
#include "region.h"
#include "wait.h"

#define BATCH 8 /* few, since nobody else can see them meanwhile */

/* Up to BATCH idle buffers that have their pages: from the depot, else from
   threads' caches. */
static unsigned take_some(bufpool_t *pool, struct cache *c, unsigned place,
                          unsigned k, struct buf **bufs)
{
	unsigned n = bp_depot_take(pool_depot(pool, place, k), 0, bufs, BATCH);

	if (n > 0)
		return n;
	n = bp_cache_steal(pool, c, place, k, bufs, BATCH);
	/* They count as out of the depot. */
	if (n > 0)
		bp_gauge_add(&pool->bufs, -(uint64_t) n);
	return n;
}

/* Bytes given back of one class at one place. */
static size_t trim_class(bufpool_t *pool, struct cache *c, unsigned place,
                         unsigned k)
{
	struct depot *depot = pool_depot(pool, place, k);
	struct buf *bufs[BATCH];
	size_t bytes = 0;
	bool dropped = true;

	/* Not for ever, should others be as quick to return more. */
	for (uint32_t seen = 0; dropped && seen < depot->total;) {
		unsigned n;

		move_begin(c);
		n = take_some(pool, c, place, k, bufs);
		if (n == 0)
			break;
		seen += n;
		for (unsigned i = 0; i < n && dropped; i++) {
			dropped = bp_region_drop(bufs[i]->base, class_size[k]);
			bytes += dropped ? class_size[k] : 0;
		}
		bp_depot_give(depot, dropped ? DEPOT_COLD : 0, bufs, n);
		waitq_given(pool->waitq, k, n);
	}
	if (c != NULL)
		move_end(c);
	/* What comes back need not come to where it was. */
	if (bytes > 0)
		ck_pr_store_int(&depot->region->pub.numa_node, NODE_ASK);
	return bytes;
}

size_t bufpool_trim(bufpool_t *pool)
{
	size_t bytes = 0;
	int saved = errno;
	struct cache *c;

	if (pool == NULL) {
		errno = EINVAL;
		return 0;
	}
	/* A device would go on using the pages that an attached region had;
	   locked ones are not given. */
	if (pool->attach != NULL || (pool->flags & BUFPOOL_LOCKED) != 0)
		return 0;
	bufpool_thread_flush(pool);
	c = bp_cache_find(pool);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < pool->places; place++) {
			const struct depot *depot = pool_depot(pool, place, k);

			if (depot->total > 0 && !depot->region->keep)
				bytes += trim_class(pool, c, place, k);
		}
	errno = saved;
	return bytes;
}
