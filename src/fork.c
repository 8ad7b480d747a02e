/* SPDX-License-Identifier: MIT */
/*
 * In the child only the thread that forked goes on.  The others were stopped
 * anywhere, and worse: while the kernel copies the memory page by page they
 * run on, so that the child may have a late copy of one page and an early one
 * of another.  Nothing that they write in order is in order here: a cache may
 * hold a buffer that its descriptor calls out, a link may lead anywhere.
 *
 * So the child believes no list.  A descriptor is one word that says out or
 * home, and by it everything is built anew: what is out or frozen stays out,
 * all else goes to the depot.  Its erasure may be late as well, the payload's
 * page being an early copy: such buffers are marked, and erased once more when
 * they are first checked out.  What the forking thread did itself, and what
 * others did before it heard of it, is in the copy for sure.
 *
 * Caches of other threads are left alone and their memory is not freed, as what
 * tells where they are may be broken too.
 *
 * The program's own handlers may use pools, too.  Those that were registered before
 * ours come while we hold the lock, which is no matter to their thread; in the child
 * before all that is done, which is why they have it done (registry.h).  Lest they go
 * past that by a fast path, a thread that forks goes without its caches from our first
 * handler to our last.
 */
#include "fork.h"

#include <pthread.h>
#include <string.h>

#include "atlas.h"
#include "estate.h"
#include "life.h"
#include "region.h"
#include "registry.h"
#include "thread.h"

static bool is_out(const struct bp_buf *d)
{
	return d->state == BP_OUT || d->state == BP_FROZEN;
}

/* What there is to count anew. */
struct census {
	uint64_t bufs, bytes;          /* out, in all */
	uint64_t out[BUFPOOL_CLASSES]; /* with the heap's stand-ins */
};

/* One that another thread was about to grow the pool by may be there in part.  Then
   nobody who is here has seen it, nor any that follows. */
static bool is_there(const bufpool_t *pool, const struct region *r)
{
	for (uint32_t i = 0; i < r->count; i++)
		if (r->bufs[i].pool != pool ||
		    r->bufs[i].base != r->bufs[0].base +
		                               i * class_size[r->pub.size_class])
			return false;
	return r->count > 0;
}

static void remake_region(bufpool_t *pool, struct region *r, struct census *all)
{
	unsigned k = (unsigned) r->pub.size_class;
	struct depot *depot = pool_depot(pool, r->place, k);
	bool there = (pool->flags & BUFPOOL_DONTFORK) == 0 ||
	             bp_region_renew(r, pool->flags);

	/* To a device, it is the parent's. */
	r->attached = false;
	r->pub.cookie = NULL;
	bp_atlas_enter(pool, r);
	depot->total += r->count;
	pool->total[k] += r->count;
	for (uint32_t i = r->count; i-- > 0;) {
		struct bp_buf *d = &r->bufs[i];

		if (is_out(d)) {
			all->out[k]++;
			continue;
		}
		d->state = BP_UNSURE;
		if (there && !pool->closing)
			bp_depot_give(depot, 0, &d, 1);
	}
}

static void remake_regions(bufpool_t *pool, struct census *all)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pool->account.depots; i++) {
		bp_depot_clear(&pool->depot[i]);
		pool->depot[i].total = 0;
	}
	memset(pool->total, 0, sizeof(pool->total));
	pool->charted = 0;
	while (n < pool->regions && is_there(pool, &pool->region[n]))
		remake_region(pool, &pool->region[n++], all);
	pool->regions = pool->laid = n;
	for (unsigned i = 0; i < pool->account.depots; i++) {
		pool->plot[i].laid = pool->depot[i].total;
		if (pool->closing)
			bp_depot_close(&pool->depot[i]);
	}
}

static void remake_class(bufpool_t *pool, unsigned k, struct census *all)
{
	uint64_t out = all->out[k];

	pool->counts[k] = (struct shared_counts){ .returns = -out };
	pool->unmet[k] = (struct unmet){ 0 };
	pool->refused[k] = 0;
	/* No region of it is known to the device from here. */
	if (pool->attach != NULL)
		pool->most[k] = pool->total[k];
	all->bufs += out;
	all->bytes += out * class_size[k];
}

static void remake_heap(struct heap *heap, struct census *all)
{
	bp_heap_remake(heap);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		all->out[k] += heap->inherited[k];
	all->bufs += heap_out(heap);
	all->bytes += heap->bytes;
}

static void remake(bufpool_t *pool)
{
	struct census all = { 0 };
	struct cache *c = bp_thread_cache(pool);

	remake_regions(pool, &all);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		remake_class(pool, k, &all);
	pool->growing = 0;
	remake_heap(&pool->heap, &all);
	bp_account_reset(&pool->account, all.out, all.bufs, all.bytes);
	pool->sums = (struct sums){ 0 };
	bp_demand_reset(pool->demand, c != NULL ? 2 : 1);
	if (c != NULL)
		bp_cache_reset(pool, c, current_cpu());
	if (!pool->closing) {
		uint64_t total = 0;

		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
			total += pool->total[k];
		pool->left = total + heap_out(&pool->heap) +
		             pool->account.depots * DEPOT_OPEN + 1;
		return;
	}
	/* Freed here if all that was missing is home now; the depots are closed,
	   with nothing in. */
	pool->left = all.bufs + 1;
	bp_pool_settle(pool, 1);
}

bool bp_fork_enter(bufpool_t *pool)
{
	return bp_registry_enter(pool);
}

static void remake_all(void)
{
	bp_estate_remake();
	bp_registry_each(remake);
}

static void before(void)
{
	bp_registry_lock();
	bp_thread_hide();
}

static void in_child(void)
{
	bp_registry_in_child();
	bp_registry_unlock();
}

__attribute__((constructor)) static void fork_init(void)
{
	bp_registry_init(remake_all);
	pthread_atfork(before, bp_registry_unlock, in_child);
}
