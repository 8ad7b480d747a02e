/* SPDX-License-Identifier: MIT */
/* slow.c - checkouts and returns: what the fast paths leave over */
#include <errno.h>
#include <string.h>

#include "cache.h"
#include "pool.h"
#include "region.h"
#include "track.h"
#include "wait.h"
#include "wipe.h"

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
		for (unsigned i = n - 1; i > 0; i--) {
			/* Whoever returned it has it in another CPU's cache;
			   its checkout writes it. */
			__builtin_prefetch(got[i], 1);
			magazine_put(c, k, got[i], c->fenced);
		}
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
	struct cache *c = bp_thread.cache;
	unsigned here;

	if (CK_CC_LIKELY(OWNER_SEE(&c->pool) == pool)) /* never under LOCAL */
		return c;
	c = bp_cache_find(pool);
	here = place_here(pool);
	if (c != NULL && CK_CC_UNLIKELY(here != c->place))
		bp_cache_move(c, here);
	return c;
}

/* len bytes more are asked for. */
static void charge(bufpool_t *pool, struct cache *c, size_t len)
{
	if (c == NULL) {
		bp_gauge_add(&pool->bytes, len);
		return;
	}
	owner_add(&c->spare, -(uint64_t) len);
	bp_cache_charge(pool, c);
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
	int saved = errno;

	if (pool->total[k] == 0)
		return NULL;
	c = cache_here(pool);
	if (c != NULL && pool->depth[k] > 0)
		d = take_cached(c, k);
	if (d == NULL)
		d = take_shared(pool, c, k);
	errno = saved;
	if (d == NULL)
		return NULL;
	charge(pool, c, len);
	return hand_out_for(d, k, len);
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
	size_t got = 0;

	if (error == 0 && bufs == NULL && n > 0)
		error = EINVAL;
	if (error != 0) {
		errno = error;
		return 0;
	}
	while (got < n) {
		got += bp_checkout_bulk(pool, size, bufs + got, n - got);
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
		bp_cache_charge(pool, c);
		bp_gauge_add(&pool->bufs, -1);
		give_one(pool, c->waitq, c->shard, k, d);
		return;
	}
	bp_cache_charge(pool, c);
	/* Always into the magazine in the end: if the pool is being destroyed,
	   it is the put that finds out and empties the magazine. */
	for (;;) {
		bp_magazine_make_room(m, depth);
		if (magazine_put(c, k, d, c->fenced))
			return;
		bp_cache_spill(c, k, depth / 2 + 1); /* d is one, too */
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
