/* SPDX-License-Identifier: MIT */
/* trim.c - give the memory of idle buffers back to the system */
#include <errno.h>

#include "region.h"
#include "registry.h"
#include "take.h"

/* Send an idle buffer home without its pages; false if those stay. */
static bool drop(bufpool_t *pool, struct depot *depot, struct bp_buf *d)
{
	bool dropped = bp_region_drop(&pool->region[depot->region], d->base,
	                              class_size[d->klass]);

	bp_depot_give(depot, dropped ? DEPOT_COLD : 0, &d, 1);
	demand_given(pool->demand, d->klass, 1);
	return dropped;
}

/* Bytes given back of one class at one place.  One buffer at a time, since
   nobody else can see those that we hold, and the system takes its time. */
static size_t trim_class(bufpool_t *pool, unsigned place, unsigned k)
{
	struct depot *depot = pool_depot(pool, place, k);
	size_t bytes = 0;

	if (depot->total == 0 || pool->region[depot->region].keep)
		return 0;
	move_begin(pool->demand, NULL, k);
	if (!caches_are_empty(pool, place, k))
		bp_cache_collect(pool, place, k);
	/* Not for ever, should others be as quick to return more. */
	for (uint32_t i = 0; i < depot->total; i++) {
		struct bp_buf *d = bp_depot_take_one(depot, 0);

		if (d == NULL || !drop(pool, depot, d))
			break;
		bytes += class_size[k];
	}
	move_end(pool->demand, NULL, k);
	return bytes;
}

size_t bufpool_trim(bufpool_t *pool)
{
	size_t bytes = 0;
	int saved = errno;

	if (pool == NULL) {
		errno = EINVAL;
		return 0;
	}
	/* A device would go on using the pages that an attached region had;
	   locked ones are not given. */
	if (pool->attach != NULL || (pool->flags & BUFPOOL_LOCKED) != 0)
		return 0;
	registry_check();
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < pool->places; place++)
			bytes += trim_class(pool, place, k);
	errno = saved;
	return bytes;
}
