/* SPDX-License-Identifier: MIT */
/* trim.c - give the memory of idle buffers back to the system */
#include <errno.h>

#include "atlas.h"
#include "region.h"
#include "registry.h"
#include "take.h"

/* Whether there is anything to give of a class at a place.  Reserved huge pages might
   not be had again. */
static bool has_pages_to_give(const bufpool_t *pool, unsigned place, unsigned k)
{
	unsigned n = ck_pr_load_uint(&pool->regions);

	ck_pr_fence_acquire(); /* that before they are read */
	for (unsigned i = 0; i < n; i++) {
		const struct region *r = &pool->region[i];

		if (r->place == place && r->pub.size_class == (int) k && !r->keep)
			return true;
	}
	return false;
}

/* Send an idle buffer home without its pages, if they can be given; false if the
   system does not take them. */
static bool drop(bufpool_t *pool, struct depot *depot, struct bp_buf *d,
                 size_t *bytes)
{
	struct region *r = bp_atlas_region(pool, d->base);
	size_t size = class_size[d->klass];
	bool goes = r->keep || bp_region_drop(r, d->base, size);

	/* One that keeps them goes there too, so as not to be met again. */
	bp_depot_give(depot, goes ? DEPOT_COLD : 0, &d, 1);
	demand_given(pool->demand, d->klass, 1);
	if (goes && !r->keep)
		*bytes += size;
	return goes;
}

/* Bytes given back of one class at one place.  One buffer at a time, since
   nobody else can see those that we hold, and the system takes its time. */
static size_t trim_class(bufpool_t *pool, unsigned place, unsigned k)
{
	struct depot *depot = pool_depot(pool, place, k);
	uint32_t most = ck_pr_load_32(&depot->total);
	size_t bytes = 0;

	if (!has_pages_to_give(pool, place, k))
		return 0;
	move_begin(pool->demand, NULL, k);
	if (!caches_are_empty(pool, place, k))
		bp_cache_collect(pool, place, k);
	/* Not for ever, should others be as quick to return more. */
	for (uint32_t i = 0; i < most; i++) {
		struct bp_buf *d = bp_depot_take_one(depot, 0);

		if (d == NULL || !drop(pool, depot, d, &bytes))
			break;
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
