/* SPDX-License-Identifier: MIT */
#include "life.h"

#include <errno.h>

#include "cache.h"
#include "cancel.h"
#include "region.h"
#include "registry.h"
#include "track.h"

/* Tell the application of the regions that it has heard of: they go. */
static void detach_all(bufpool_t *pool)
{
	int cancel = cancel_never();

	for (unsigned i = 0; i < pool->laid; i++) {
		struct region *r = &pool->region[i];
		bufpool_region_t shown;

		if (!r->attached)
			continue;
		r->attached = false;
		shown = bp_region_describe(r);
		if (pool->detach != NULL)
			pool->detach(pool->attach_arg, &shown, shown.cookie);
	}
	cancel_again(cancel);
}

/* What readers of statistics want. */
static void free_readable(bufpool_t *pool)
{
	if (pool->demand != NULL) {
		bp_cache_drop_all(pool);
		bp_demand_unref(pool->demand);
	}
	track_unroot(pool, pool->meta_len);
	bp_release(pool, bp_page_size(), pool->meta_len);
}

/* What no region has used; the guard before it went with what lies there. */
static void release_plots(bufpool_t *pool)
{
	for (unsigned i = 0; i < pool->places * BUFPOOL_CLASSES; i++) {
		const struct plot *plot = &pool->plot[i];

		if (plot->next < plot->end)
			bp_unmap((char *) plot->next + bp_page_size(),
			         plot->end - plot->next);
	}
}

void bp_pool_free(bufpool_t *pool)
{
	bp_registry_leave(pool);
	for (unsigned i = 0; i < pool->laid; i++)
		if (pool->region[i].filled) /* or it may be larger than memory */
			TRACK_OUT(pool->region[i].pub.base,
			          pool->region[i].pub.len);
	detach_all(pool);
	bp_heap_release(&pool->heap);
	for (unsigned i = 0; i < pool->laid; i++)
		bp_region_destroy(&pool->region[i]);
	release_plots(pool);
	bp_places_drop(pool->ground);
	if (bp_registry_forget(pool))
		free_readable(pool);
}

void bp_pool_let_go(bufpool_t *pool)
{
	if (bp_registry_let_go(pool))
		free_readable(pool);
}

void bp_pool_settle(bufpool_t *pool, uint64_t n)
{
	int saved = errno;

	/* What was done to the buffers, before the last one frees them. */
	ck_pr_fence_release();
	if (ck_pr_faa_64(&pool->left, -n) != n)
		return;
	ck_pr_fence_acquire();
	bp_pool_free(pool);
	errno = saved;
}
