/* SPDX-License-Identifier: MIT */
/* trim.c - give the memory of idle buffers back to the system */
#include <errno.h>

#include "cache.h"
#include "region.h"
#include "wait.h"

/* An idle buffer that has its pages: from the depot, else from the cache of
   some thread. */
static struct buf *take_one(bufpool_t *pool, struct cache *c, unsigned place,
                            unsigned k)
{
	struct buf *d;

	if (bp_depot_take(pool_depot(pool, place, k), 0, &d, 1) > 0)
		return d;
	if (bp_cache_steal(pool, c, place, k, &d, 1) == 0)
		return NULL;
	bp_gauge_add(&pool->bufs, -1); /* it counted as out of the depot */
	return d;
}

/* Send an idle buffer home without its pages; false if those stay. */
static bool drop(bufpool_t *pool, struct buf *d, unsigned k)
{
	/* Which need not be where it was found: a cache may have moved. */
	struct depot *depot = pool_depot(pool, place_of(pool, d, k), k);
	bool dropped = !depot->region->keep &&
	               bp_region_drop(depot->region, d->base, class_size[k]);

	bp_depot_give(depot, dropped ? DEPOT_COLD : 0, &d, 1);
	waitq_given(pool->waitq, k, 1);
	return dropped;
}

/* Bytes given back of one class at one place.  One buffer at a time, since
   nobody else can see those that we hold, and the system takes its time. */
static size_t trim_class(bufpool_t *pool, struct cache *c, unsigned place,
                         unsigned k)
{
	/* Not for ever, should others be as quick to return more. */
	uint32_t most = pool_depot(pool, place, k)->total;
	size_t bytes = 0;

	for (uint32_t i = 0; i < most; i++) {
		struct buf *d;

		move_begin(c);
		d = take_one(pool, c, place, k);
		if (d == NULL || !drop(pool, d, k))
			break;
		bytes += class_size[k];
	}
	move_end(c);
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
		for (unsigned place = 0; place < pool->places; place++)
			bytes += trim_class(pool, c, place, k);
	errno = saved;
	return bytes;
}
