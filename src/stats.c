/* SPDX-License-Identifier: MIT */
/* stats.c - add the counters up */
#include <string.h>

#include "cache.h"
#include "registry.h"

/* Read while others count, a difference may come out just below zero. */
static uint64_t at_least_zero(uint64_t n)
{
	return (int64_t) n < 0 ? 0 : n;
}

static void clamp(uint64_t *n, uint64_t most)
{
	if (*n > most)
		*n = most;
}

/* What only the caches know, of all classes in one walk: so that what a thread
   takes and gives back meanwhile is seen either twice or not at all. */
static void add_cache(const struct cache *c, bufpool_stats_t *out)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		const struct bp_magazine *m = &c->fast.magazine[k];
		bufpool_class_stats_t *class = &out->per_class[k];

		class->checked_out += cache_out(c, k);
		class->cache_hits += ck_pr_load_64(&m->hits);
		class->depot_hits += ck_pr_load_64(&m->depot_hits);
		class->stolen += ck_pr_load_64(&m->stolen);
		class->remote_hits += ck_pr_load_64(&c->remote_hits[k]);
		class->cached += bp_magazine_count(m);
	}
}

static void add_counts(const struct shared_counts *in,
                       bufpool_class_stats_t *out)
{
	uint64_t depot_hits = ck_pr_load_64(&in->depot_hits);
	uint64_t stolen = ck_pr_load_64(&in->stolen);

	out->cache_hits += ck_pr_load_64(&in->cache_hits);
	out->depot_hits += depot_hits;
	out->stolen += stolen;
	out->remote_hits += ck_pr_load_64(&in->remote_hits);
	out->checked_out += depot_hits + stolen - ck_pr_load_64(&in->returns);
}

/* What is counted in the pool, and that all of it makes sense. */
static void finish_class(const bufpool_t *pool, unsigned k,
                         bufpool_class_stats_t *out)
{
	const struct unmet *unmet = &pool->unmet[k];

	add_counts(&pool->counts[k], out);
	out->total = ck_pr_load_32(&pool->total[k]);
	out->heap_fallbacks = ck_pr_load_64(&pool->heap.served[k]);
	out->checked_out = at_least_zero(out->checked_out);
	clamp(&out->checked_out, out->total);
	out->idle = out->total - out->checked_out;
	clamp(&out->cached, out->idle);
	out->exhausted = ck_pr_load_64(&unmet->exhausted);
	out->waits = ck_pr_load_64(&unmet->waits);
	out->wait_ns = ck_pr_load_64(&unmet->wait_ns);
	out->peak_checked_out = ck_pr_load_64(&pool->account.klass[k].peak);
	/* What was on the move counts twice for a moment. */
	if (out->heap_fallbacks + pool->heap.inherited[k] == 0)
		clamp(&out->peak_checked_out, out->total);
}

static void finish(const bufpool_t *pool, bufpool_stats_t *out)
{
	uint64_t bufs = 0, bytes = 0, heap = 0;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		bufpool_class_stats_t *class = &out->per_class[k];

		finish_class(pool, k, class);
		out->hits +=
			class->cache_hits + class->depot_hits + class->stolen;
		out->misses += class->heap_fallbacks;
		out->checked_out += class->checked_out;
		out->bytes_checked_out += class->checked_out * class_size[k];
		bufs += class->total;
		bytes += class->total * class_size[k];
		heap += pool->heap.inherited[k];
	}
	out->oversize = ck_pr_load_64(&pool->heap.served[BUFPOOL_CLASSES]);
	out->misses += out->oversize;
	out->heap_bytes = ck_pr_load_64(&pool->heap.bytes);
	out->checked_out += heap_out(&pool->heap);
	out->bytes_checked_out += out->heap_bytes;
	out->peak_checked_out = ck_pr_load_64(&pool->account.bufs.peak);
	out->peak_bytes_checked_out = ck_pr_load_64(&pool->account.bytes.peak);
	heap += out->misses + pool->heap.inherited[BUFPOOL_CLASSES];
	if (heap > 0)
		return;
	clamp(&out->peak_checked_out, bufs);
	clamp(&out->peak_bytes_checked_out, bytes);
}

/* What is counted in caches, and in the sums of what was; false if another reader
   has meanwhile moved some from here to there. */
static bool add_caches(bufpool_t *pool, bufpool_stats_t *out)
{
	struct sums *sums = &pool->sums;
	unsigned version = ck_pr_load_uint(&sums->version);
	const struct cache *c, *leaving;
	struct walk walk;

	ck_pr_fence_load();
	memset(out, 0, sizeof(*out));
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		add_counts(&sums_of(sums, version)[k], &out->per_class[k]);
	leaving = version % 2 != 0 ? ck_pr_load_ptr(&sums->leaving) : NULL;
	walk = walk_caches(pool, BERTHS_COUNTED);
	while ((c = bp_walk_next(&walk)) != NULL)
		if (c != leaving)
			add_cache(c, out);
	ck_pr_fence_load();
	return ck_pr_load_uint(&sums->version) == version;
}

void bufpool_stats(const bufpool_t *pool, bufpool_stats_t *out)
{
	unsigned tries = 10; /* not for ever */

	if (out == NULL)
		return;
	memset(out, 0, sizeof(*out));
	if (pool == NULL)
		return;
	registry_check();
	bp_cache_fold((bufpool_t *) pool); /* only the sums change */
	while (!add_caches((bufpool_t *) pool, out) && tries-- > 0)
		;
	finish(pool, out);
}
