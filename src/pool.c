/* SPDX-License-Identifier: MIT */
/* pool.c - create, destroy, and what the fast paths leave over */
#include "pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "place.h"
#include "region.h"
#include "stack.h"
#include "track.h"
#include "wait.h"
#include "wipe.h"

/* ---------------------------------------------------------------- create */

/* What a program that knows only the first version of the struct passes. */
#define CONFIG_FIRST_SIZE                                                      \
	(offsetof(bufpool_config_t, region_arg) + sizeof(void *))

#define FLAGS_KNOWN                                                            \
	(BUFPOOL_NUMA_STRICT | BUFPOOL_HUGEPAGES | BUFPOOL_LOCKED |            \
	 BUFPOOL_DONTDUMP | BUFPOOL_DONTFORK)

static bool is_zero(const char *p, size_t n)
{
	while (n > 0 && *p == 0)
		p++, n--;
	return n == 0;
}

/*
 * Take over a configuration of any version: what an older one lacks keeps its
 * default, what a newer one has more must be unused, that is zero.
 */
static bool config_read(bufpool_config_t *cfg, const bufpool_config_t *in)
{
	size_t size = in->size;

	if (size < CONFIG_FIRST_SIZE || size > PAGE)
		return false;
	if (size > sizeof(*cfg)) {
		if (!is_zero((const char *) in + sizeof(*cfg),
		             size - sizeof(*cfg)))
			return false;
		size = sizeof(*cfg);
	}
	memcpy(cfg, in, size);
	return true;
}

/* 0, or the errno that create fails with. */
static int config_check(const bufpool_config_t *cfg)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		if (cfg->count[k] > BUFPOOL_MAX_COUNT)
			return EINVAL;
	if ((unsigned) cfg->wipe > BUFPOOL_WIPE_NONE ||
	    (unsigned) cfg->exhausted > BUFPOOL_FAIL ||
	    cfg->numa_node < BUFPOOL_NUMA_LOCAL ||
	    (cfg->flags & ~FLAGS_KNOWN) != 0)
		return EINVAL;
	return 0;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* As many buffers as fit the class's cache; left to the library, at most a
   quarter of those at a place.  Never more than there are: the bytes that a
   thread may be charged too much are reckoned by it. */
static unsigned cache_depth(const bufpool_config_t *cfg, unsigned k,
                            unsigned places)
{
	size_t most = cfg->cache[k];

	if (most == BUFPOOL_CACHE_AUTO)
		most = (cfg->count[k] / places + 3) / 4;
	most = min_size(most, cfg->count[k]);
	return (unsigned) min_size(most, class_cache[k]);
}

/* What every buffer of a class is aligned to in a region aligned to it. */
static size_t class_alignment(size_t size)
{
	const size_t huge_page = 2 * 1024 * 1024;

	return min_size(size & -size, huge_page);
}

/* A power of two, at most DEPOT_SHARDS and about one per CPU. */
static unsigned shard_count(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned shards = 1;

	while (shards < DEPOT_SHARDS && shards < cpus)
		shards *= 2;
	return shards;
}

static uint64_t new_id(void)
{
	static uint64_t last;

	return ck_pr_faa_64(&last, 1) + 1;
}

/* Tell the application of the regions that it has heard of: they go. */
static void detach_all(bufpool_t *pool)
{
	for (unsigned i = 0; i < pool->regions; i++) {
		struct region *r = &pool->region[i];
		bufpool_region_t shown;

		if (!r->attached)
			continue;
		r->attached = false;
		shown = bp_region_describe(r);
		if (pool->detach != NULL)
			pool->detach(pool->attach_arg, &shown, shown.cookie);
	}
}

static void pool_free(bufpool_t *pool)
{
	struct cache *next;

	bp_fork_leave(pool);
	detach_all(pool);
	for (struct cache *c = pool->caches; c != NULL; c = next) {
		next = c->next;
		bp_cache_unref(c);
	}
	if (pool->waitq != NULL)
		bp_waitq_unref(pool->waitq);
	bp_heap_release(pool);
	for (unsigned i = 0; i < pool->regions; i++) {
		struct region *r = &pool->region[i];

		TRACK_OUT(r->pub.base, r->pub.len);
		bp_region_destroy(r);
	}
	track_unroot(pool, pool->meta_len);
	bp_guarded_unmap(pool, pool->meta_len);
}

_Static_assert(sizeof(size_t) == 8, "sizes are reckoned in 64 bits");
_Static_assert(BUFPOOL_MAX_COUNT <= STACK_MAX, "the depot can number them");

/*
 * One mapping holds the pool, all descriptors, and the tables that go with
 * them: less than 2^24 of each in each of at most 32 classes.
 */
static bufpool_t *pool_map(const bufpool_config_t *cfg,
                           const struct places *places)
{
	size_t total = 0, depots = places->n * BUFPOOL_CLASSES;
	unsigned cpus = bp_places_cpus(places);
	bufpool_t *pool;
	size_t len;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		total += cfg->count[k];
	len = sizeof(*pool) + depots * sizeof(struct depot) +
	      total * sizeof(struct buf) + depots * sizeof(struct region) +
	      total * sizeof(uint32_t) + places->n * places->n + cpus;
	pool = bp_guarded_map(len);
	if (pool == NULL)
		return NULL;
	track_root(pool, len);
	pool->meta_len = len;
	pool->places = places->n;
	pool->descriptor = (struct buf *) (pool->depot + depots);
	pool->region = (struct region *) (pool->descriptor + total);
	pool->link = (uint32_t *) (pool->region + depots);
	pool->near = (uint8_t *) (pool->link + total);
	pool->cpus = cpus;
	pool->place_of_cpu = pool->near + places->n * places->n;
	pool->left = total + 1;
	return pool;
}

/* What of a class lies at a place: its share, the first ones one more. */
static uint32_t share(size_t count, unsigned places, unsigned place)
{
	return (uint32_t) (count / places + (place < count % places));
}

/* Map the payloads of class k at a place, and describe them from bufs[at] on;
   0 or the errno that create fails with. */
static int class_init(bufpool_t *pool, const struct places *places,
                      unsigned place, unsigned k, size_t at)
{
	size_t size = class_size[k], len;
	uint32_t total = share(pool->total[k], pool->places, place);
	struct depot *depot = pool_depot(pool, place, k);
	struct buf *bufs = pool->descriptor + at;
	struct region *r;
	int error;

	bp_depot_init(depot, bufs, pool->link + at, total, pool->shards);
	if (total == 0)
		return 0;
	if (__builtin_mul_overflow(total, size, &len))
		return ENOMEM;
	r = &pool->region[pool->regions];
	r->pub.index = pool->regions;
	r->pub.size_class = (int) k;
	error = bp_region_create(r, len, class_alignment(size), places, place,
	                         pool->flags);
	if (error != 0)
		return error;
	pool->regions++;
	depot->region = r;
	for (uint32_t i = 0; i < total; i++) {
		struct buf *d = &bufs[i];

		d->pub.data = d->base = (char *) r->pub.base + i * size;
		d->pub.capacity = size;
		d->pool = pool;
		buf_set_state(d, STATE_HOME + k);
	}
	TRACK_IDLE(r->pub.base, len);
	return 0;
}

static int attach_all(bufpool_t *pool)
{
	if (pool->attach == NULL)
		return 0;
	for (unsigned i = 0; i < pool->regions; i++) {
		struct region *r = &pool->region[i];
		bufpool_region_t shown = bp_region_describe(r);

		errno = 0;
		r->pub.cookie = pool->attach(pool->attach_arg, &shown);
		if (r->pub.cookie == BUFPOOL_ATTACH_FAILED) {
			r->pub.cookie = NULL;
			return errno != 0 ? errno : EIO;
		}
		r->attached = true;
	}
	return 0;
}

static void pool_configure(bufpool_t *pool, const bufpool_config_t *cfg)
{
	pool->id = new_id();
	pool->wipe = cfg->wipe;
	pool->exhausted = cfg->exhausted;
	pool->heap_limit = cfg->heap_limit;
	pool->flags = cfg->flags;
	pool->attach = cfg->region_attach;
	pool->detach = cfg->region_detach;
	pool->attach_arg = cfg->region_arg;
	pool->shards = shard_count();
	pool->fenced = !bp_barrier_init();
	pool->heap.free = STACK_NIL;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		pool->total[k] = (uint32_t) cfg->count[k];
		pool->depth[k] = cache_depth(cfg, k, pool->places);
	}
}

static int pool_fill(bufpool_t *pool, const struct places *places)
{
	size_t at = 0;
	int error = 0;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < pool->places; place++) {
			error = class_init(pool, places, place, k, at);
			if (error != 0)
				return error;
			at += pool_depot(pool, place, k)->total;
		}
	pool->waitq = bp_waitq_new();
	if (pool->waitq == NULL || !bp_fork_enter(pool))
		return ENOMEM;
	return attach_all(pool);
}

static bufpool_t *pool_build(const bufpool_config_t *cfg,
                             const struct places *places, int *error)
{
	bufpool_t *pool = pool_map(cfg, places);

	*error = ENOMEM;
	if (pool == NULL)
		return NULL;
	pool_configure(pool, cfg);
	bp_places_tables(places, pool->near, pool->place_of_cpu);
	*error = pool_fill(pool, places);
	if (*error == 0)
		return pool;
	pool_free(pool);
	return NULL;
}

static bufpool_t *create(const bufpool_config_t *config,
                         hwloc_topology_t topology,
                         hwloc_const_nodeset_t nodeset)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	struct places places;
	bufpool_t *pool = NULL;
	int saved = errno, error = 0;

	if (config != NULL && !config_read(&cfg, config))
		error = EINVAL;
	if (error == 0)
		error = config_check(&cfg);
	if (error == 0)
		error = bp_places_find(&places, &cfg, topology, nodeset);
	if (error == 0) {
		pool = pool_build(&cfg, &places, &error);
		bp_places_drop(&places);
	}
	errno = pool != NULL ? saved : error;
	return pool;
}

bufpool_t *bufpool_create(const bufpool_config_t *config)
{
	return create(config, NULL, NULL);
}

bufpool_t *bufpool_create_hwloc(const bufpool_config_t *config,
                                hwloc_topology_t topology,
                                hwloc_const_nodeset_t nodeset)
{
	if (topology == NULL ||
	    (nodeset != NULL && hwloc_bitmap_iszero(nodeset))) {
		errno = EINVAL;
		return NULL;
	}
	return create(config, topology, nodeset);
}

/* --------------------------------------------------------------- destroy */

void bp_pool_settle(bufpool_t *pool, uint64_t n)
{
	int saved = errno;

	/* What was done to the buffers, before the last one frees them. */
	ck_pr_fence_release();
	if (ck_pr_faa_64(&pool->left, -n) != n)
		return;
	ck_pr_fence_acquire();
	pool_free(pool);
	errno = saved;
}

void bufpool_destroy(bufpool_t *pool)
{
	uint64_t found;
	int saved = errno;

	if (pool == NULL)
		return;
	ck_pr_store_uint(&pool->closing, 1);
	/* Before the list of caches is read: see cache_new(). */
	ck_pr_fence_memory();
	found = bp_cache_revoke_all(pool);
	for (unsigned i = 0; i < pool->places * BUFPOOL_CLASSES; i++)
		found += bp_depot_close(&pool->depot[i]);
	bp_pool_settle(pool, found + 1);
	errno = saved;
}

/* -------------------------------------------------------------- checkout */

/* How often a checkout looks again while others are moving buffers. */
#define LOOK_AGAIN 20

/* A buffer of which the pages are gone, with new ones. */
static unsigned take_cold(struct depot *depot, unsigned k, struct buf **out)
{
	unsigned got = bp_depot_take(depot, DEPOT_COLD, out, 1);

	if (got > 0) {
		TRACK_OUT(out[0]->base, class_size[k]); /* it may be written */
		bp_region_refill(out[0]->base, class_size[k]);
	}
	return got;
}

/* Take up to n idle buffers of a place: from its depot, else from the caches
   of others that are there. */
static unsigned take_at(bufpool_t *pool, struct cache *c, unsigned place,
                        unsigned k, struct buf **out, unsigned n, bool *stolen)
{
	struct depot *depot = pool_depot(pool, place, k);
	unsigned got = 0;

	if (!bp_depot_is_empty(depot)) {
		move_begin(c);
		got = bp_depot_take(depot, c != NULL ? c->shard : 0, out, n);
		if (got == 0)
			got = take_cold(depot, k, out);
	}
	*stolen = got == 0;
	if (got == 0)
		/* One, in case the cache has just come from elsewhere. */
		got = bp_cache_steal(pool, c, place, k, out,
		                     pool->places == 1 ? n : 1);
	return got;
}

static uint64_t stamp_of(bufpool_t *pool, unsigned k)
{
	uint64_t stamp = bp_cache_stamp(pool, k);

	for (unsigned place = 0; place < pool->places; place++)
		stamp += bp_depot_stamp(pool_depot(pool, place, k));
	return stamp;
}

/*
 * Take up to n idle buffers from the place that the thread is at, else one from
 * the nearest that has any.  Says no only if none was idle anywhere while it
 * looked: what may have gone from somewhere not yet looked at to somewhere
 * already seen has changed the stamp.  Buffers that another thread is moving
 * are nowhere.  That thread is given time to finish, but not for ever, as it may
 * have been stopped.
 */
static unsigned find_idle(bufpool_t *pool, struct cache *c, unsigned here,
                          unsigned k, struct buf **out, unsigned n,
                          bool *stolen)
{
	const uint8_t *near = pool->near + here * pool->places;
	unsigned looks = 0;
	uint64_t stamp;
	bool moving;

	do {
		unsigned got = 0;

		stamp = stamp_of(pool, k);
		moving = bp_cache_moving(pool, c);
		ck_pr_fence_load(); /* these before what they guard */
		for (unsigned i = 0; i < pool->places && got == 0; i++)
			got = take_at(pool, c, near[i], k, out, i == 0 ? n : 1,
			              stolen);
		if (got > 0)
			return got;
		ck_pr_fence_load();
		moving = moving || bp_cache_moving(pool, c);
	} while (stamp != stamp_of(pool, k) ||
	         (moving && looks++ < LOOK_AGAIN));
	return 0;
}

/* How many to fetch at once: half a magazine, but few of a small class. */
static unsigned refill_batch(const bufpool_t *pool, unsigned k)
{
	return (unsigned) min_size(pool->depth[k] / 2, pool->total[k] / 8) + 1;
}

/* Take an idle buffer from elsewhere, and some more for the cache. */
static struct buf *take_shared(bufpool_t *pool, struct cache *c, unsigned k)
{
	unsigned batch = c != NULL ? refill_batch(pool, k) : 1;
	struct buf *got[MAGAZINE_SLOTS + 1];
	struct magazine *m;
	bool stolen = false, remote;
	unsigned here = c != NULL ? c->place : place_here(pool);
	unsigned shard = c != NULL ? c->shard : 0;
	unsigned n;

	move_begin(c);
	n = bp_depot_take(pool_depot(pool, here, k), shard, got, batch);
	if (n == 0) {
		move_end(c); /* nobody has to look again for our sake */
		n = find_idle(pool, c, here, k, got, batch, &stolen);
	}
	remote = n > 0 && place_of(pool, got[0], k) != here;
	if (c == NULL) {
		if (n == 0)
			return NULL;
		if (remote)
			ck_pr_inc_64(&pool->counts[k].remote_hits);
		ck_pr_inc_64(stolen ? &pool->counts[k].stolen
		                    : &pool->counts[k].depot_hits);
		if (!stolen)
			bp_gauge_add(&pool->bufs, 1);
		return got[0];
	}
	if (n > 0) {
		/* Before others can take what we put; stolen ones were out of
		   the depot before. */
		if (!stolen)
			bp_gauge_add(&pool->bufs, n);
		m = &c->magazine[k];
		owner_add(stolen ? &m->stolen : &m->depot_hits, 1);
		if (remote)
			owner_add(&m->remote_hits, 1);
		bp_magazine_make_room(m, pool->depth[k]);
		owner_add(&m->offset, 1 - (uint64_t) n); /* no returns */
		for (unsigned i = n - 1; i > 0; i--)
			magazine_put(c, k, got[i], c->fenced);
	}
	move_end(c);
	return n > 0 ? got[0] : NULL;
}

/* A buffer is about to be handed out. */
static bufpool_buf_t *hand_out(struct buf *d, unsigned k)
{
	TRACK_OUT(d->base, class_size[k]);
	buf_set_state(d, STATE_OUT + k);
	return &d->pub;
}

bufpool_buf_t *bp_checkout_unsure(struct buf *d, unsigned k)
{
	if (!buf_is(d, STATE_UNSURE + k))
		bp_misuse("bufpool_checkout", d,
		          "an idle buffer has an owner: returned twice");
	/* Where it came home in a parent process, see fork.c. */
	TRACK_OUT(d->base, class_size[k]);
	if (d->pool->wipe != BUFPOOL_WIPE_NONE)
		bp_wipe_memset(d->base, class_size[k]);
	return hand_out(d, k);
}

/* Take an idle buffer from the thread's own cache. */
static struct buf *take_cached(struct cache *c, unsigned k)
{
	struct magazine *m = &c->magazine[k];
	struct buf *d;

	if (!magazine_take(c, k, &d, c->fenced))
		d = bp_magazine_take_contested(m);
	if (d != NULL)
		owner_add(&m->hits, 1);
	return d;
}

/* This thread's cache of the pool, for where it is now; or NULL. */
static struct cache *cache_here(bufpool_t *pool)
{
	struct cache *c = bp_cache_find(pool);
	unsigned here = place_here(pool);

	if (c != NULL && CK_CC_UNLIKELY(here != c->place))
		bp_cache_move(c, here);
	return c;
}

/* len bytes more are asked for; what is cached may have changed by more. */
static void charge(bufpool_t *pool, struct cache *c, size_t len, bool refilled)
{
	if (c == NULL) {
		bp_gauge_add(&pool->bytes, len);
		return;
	}
	owner_add(&c->spare, -(uint64_t) len);
	if (refilled || !spare_is_fair(c, c->spare))
		bp_cache_charge(pool, c, 0);
}

/* An idle buffer becomes one with an owner. */
static bufpool_buf_t *hand_out_for(struct buf *d, unsigned k, size_t len)
{
	d->pub.len = len;
	d->asked = len;
	if (CK_CC_UNLIKELY(!buf_is(d, STATE_HOME + k)))
		return bp_checkout_unsure(d, k);
	return hand_out(d, k);
}

bufpool_buf_t *bp_take(bufpool_t *pool, unsigned k, size_t len)
{
	struct cache *c;
	struct buf *d = NULL;
	bool refilled;
	int saved = errno;

	if (pool->total[k] == 0)
		return NULL;
	c = cache_here(pool);
	if (c != NULL && pool->depth[k] > 0)
		d = take_cached(c, k);
	refilled = d == NULL;
	if (d == NULL)
		d = take_shared(pool, c, k);
	errno = saved;
	if (d == NULL)
		return NULL;
	charge(pool, c, len, refilled);
	return hand_out_for(d, k, len);
}

/* Up to n of what this thread has cached, in one step: how many. */
static size_t take_cached_bulk(bufpool_t *pool, unsigned k, size_t len,
                               bufpool_buf_t **bufs, size_t n)
{
	struct cache *c = cache_here(pool);
	struct buf *d[MAGAZINE_SLOTS];
	unsigned got;

	if (c == NULL || pool->depth[k] == 0)
		return 0;
	got = bp_magazine_take_many(&c->magazine[k], d,
	                            (unsigned) min_size(n, MAGAZINE_SLOTS),
	                            c->fenced);
	owner_add(&c->magazine[k].hits, got);
	if (got > 0)
		charge(pool, c, got * len, false);
	for (unsigned i = 0; i < got; i++)
		bufs[i] = hand_out_for(d[i], k, len);
	return got;
}

static bufpool_buf_t *fail(int error)
{
	errno = error;
	return NULL;
}

/* The heap, if `exhausted` allows. */
static bufpool_buf_t *from_heap(bufpool_t *pool, size_t size, size_t alignment)
{
	if (pool->exhausted == BUFPOOL_FAIL)
		return fail(ENOBUFS);
	return bp_heap_checkout(pool, size,
	                        alignment > PAGE ? alignment : PAGE);
}

bufpool_buf_t *bp_checkout_slow(bufpool_t *pool, unsigned k, size_t len)
{
	bufpool_buf_t *buf;

	if (pool == NULL)
		return fail(EINVAL);
	buf = bp_take(pool, k, len);
	return buf != NULL ? buf : from_heap(pool, len, PAGE);
}

/* What is wrong with these arguments; 0 if nothing is. */
static int check_request(const bufpool_t *pool, size_t size)
{
	return size > PTRDIFF_MAX ? EOVERFLOW : pool == NULL ? EINVAL : 0;
}

bufpool_buf_t *bp_checkout_other(bufpool_t *pool, size_t size)
{
	int error = check_request(pool, size);

	if (error != 0)
		return fail(error);
	return from_heap(pool, size, PAGE);
}

bufpool_buf_t *bufpool_checkout_zeroed(bufpool_t *pool, size_t size)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, size);

	/* Under the other modes it came in erased. */
	if (buf != NULL && pool->wipe == BUFPOOL_WIPE_NONE)
		memset(buf->data, 0, buf->capacity);
	return buf;
}

bufpool_buf_t *bufpool_checkout_aligned(bufpool_t *pool, size_t size,
                                        size_t alignment)
{
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	bufpool_buf_t *buf = NULL;

	if (error == 0 &&
	    (alignment == 0 || (alignment & (alignment - 1)) != 0))
		error = EINVAL;
	if (error != 0)
		return fail(error);
	if (k < BUFPOOL_CLASSES && alignment <= class_alignment(class_size[k]))
		buf = bp_take(pool, k, size);
	return buf != NULL ? buf : from_heap(pool, size, alignment);
}

bufpool_buf_t *bufpool_try_checkout(bufpool_t *pool, size_t size)
{
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	bufpool_buf_t *buf = NULL;

	if (error != 0)
		return fail(error);
	if (k < BUFPOOL_CLASSES)
		buf = bp_take(pool, k, size);
	return buf != NULL ? buf : fail(ENOBUFS);
}

bufpool_buf_t *bufpool_checkout_wait(bufpool_t *pool, size_t size,
                                     const struct timespec *timeout)
{
	const time_t for_ever = INT32_MAX; /* 68 years */
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	int saved = errno;
	bufpool_buf_t *buf;

	if (error == 0 && timeout != NULL &&
	    (timeout->tv_sec < 0 || timeout->tv_nsec < 0 ||
	     timeout->tv_nsec >= 1000000000))
		error = EINVAL;
	if (error == 0 && (k == BUFPOOL_CLASSES || pool->total[k] == 0))
		error = ENOBUFS;
	if (error != 0)
		return fail(error);
	if (timeout != NULL && timeout->tv_sec > for_ever)
		timeout = NULL;
	buf = bp_take(pool, k, size);
	if (buf == NULL)
		buf = bp_wait(pool, k, size, timeout);
	if (buf == NULL)
		return fail(ETIMEDOUT);
	errno = saved;
	return buf;
}

size_t bufpool_checkout_bulk(bufpool_t *pool, size_t size, bufpool_buf_t **bufs,
                             size_t n)
{
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	size_t got = 0;

	if (error == 0 && bufs == NULL && n > 0)
		error = EINVAL;
	if (error != 0) {
		errno = error;
		return 0;
	}
	while (got < n) {
		if (k < BUFPOOL_CLASSES)
			got += take_cached_bulk(pool, k, size, bufs + got,
			                        n - got);
		/* One by the usual way, which fetches more. */
		if (got < n) {
			bufs[got] = bufpool_checkout(pool, size);
			if (bufs[got++] == NULL)
				return got - 1;
		}
	}
	return got;
}

/* ---------------------------------------------------------------- return */

/* Give d to the depot, past all caches; the pool may be gone after that. */
static void give_one(bufpool_t *pool, struct waitq *q, unsigned shard,
                     unsigned k, struct buf *d)
{
	struct depot *depot = pool_depot(pool, place_of(pool, d, k), k);

	if (bp_depot_give(depot, shard, &d, 1))
		waitq_given(q, k, 1);
	else
		bp_pool_settle(pool, 1);
}

/*
 * The magazine may be full: see what thieves have left, else send half of it
 * to the depot.  What belongs to another place goes there at once.  The pool
 * stays as long as we have d.
 */
void bp_return_full(struct cache *c, struct buf *d, unsigned k)
{
	bufpool_t *pool = d->pool;
	struct magazine *m = &c->magazine[k];
	unsigned depth = pool->depth[k];

	if (depth == 0 || place_of(pool, d, k) != c->place) {
		owner_add(&m->offset, 1);
		bp_cache_charge(pool, c, -1);
		give_one(pool, c->waitq, c->shard, k, d);
		return;
	}
	/* What thieves take from a magazine leaves the bytes that were asked
	   for in spare; it need never be full. */
	if (!spare_is_fair(c, c->spare))
		bp_cache_charge(pool, c, 0);
	/* Always into the magazine in the end: if the pool is being destroyed,
	   it is the put that finds out and empties the magazine. */
	for (;;) {
		bp_magazine_make_room(m, depth);
		if (magazine_put(c, k, d, c->fenced))
			return;
		bp_cache_spill(c, k, (depth + 1) / 2);
	}
}

void bp_return_slow(struct buf *d, unsigned k)
{
	bufpool_t *pool = d->pool;
	struct cache *c = bp_cache_find(pool);
	struct waitq *q;

	if (c != NULL) {
		owner_add(&c->spare, d->asked);
		if (place_of(pool, d, k) != c->place ||
		    !magazine_put(c, k, d, c->fenced))
			bp_return_full(c, d, k);
		return;
	}
	ck_pr_inc_64(&pool->counts[k].returns);
	bp_gauge_add(&pool->bytes, -d->asked);
	bp_gauge_add(&pool->bufs, -1);
	q = pool->waitq;
	bp_waitq_ref(q);
	give_one(pool, q, 0, k, d);
	bp_waitq_unref(q);
}

void bp_return_other(struct buf *d)
{
	if (handle_state(d) == STATE_OUT_HEAP)
		bp_heap_return(d);
	else
		bp_misuse_handle("bufpool_return", d);
}

void bp_return_spoilt(struct buf *d, size_t capacity)
{
	bp_misuse_owner("bufpool_return", d, capacity);
}
