/* SPDX-License-Identifier: MIT */
#include "take.h"

#include <sched.h>
#include <time.h>

#include "misuse.h"
#include "region.h"
#include "wipe.h"

/* ---------------------------------------------------------- who takes where */

/* A search for a buffer of one class. */
struct search {
	bufpool_t *pool;
	struct cache *c; /* the thread's; it may have none */
	unsigned k, here, shard;
	bool stolen;
	bool see; /* only: it is not to be taken */
};

static inline void count(const struct search *s, const struct bp_buf *d, unsigned n)
{
	struct shared_counts *shared = &s->pool->counts[s->k];
	struct bp_magazine *m;
	bool remote = d->place != s->here;

	if (s->c == NULL) {
		ck_pr_add_64(s->stolen ? &shared->stolen : &shared->depot_hits,
		             n);
		if (remote)
			ck_pr_add_64(&shared->remote_hits, n);
		return;
	}
	m = &s->c->fast.magazine[s->k];
	bp_add(s->stolen ? &m->stolen : &m->depot_hits, n);
	if (remote)
		bp_add(&s->c->remote_hits[s->k], n);
}

/* Some are out of a place's depot. */
static inline void taken(const struct search *s, unsigned place, unsigned n)
{
	struct demand *q = s->pool->demand;
	struct want *w = want_of(q, place, s->k);

	bp_account_out(&s->pool->account, pool_depot(s->pool, place, s->k),
	               s->shard, s->k, n);
	if (CK_CC_UNLIKELY(is_scarce(w)))
		bp_demand_taken(q, w, s->k);
}

/* ------------------------------------------------------------- from afar */

/* One from the depot of a place, if need be one without pages, with new ones. */
static struct bp_buf *take_at(struct search *s, unsigned place)
{
	struct depot *depot = pool_depot(s->pool, place, s->k);
	struct bp_buf *d;

	if (s->see)
		return bp_depot_see_one(depot);
	d = bp_depot_take_one(depot, s->shard);
	if (d == NULL) {
		d = bp_depot_take_one(depot, DEPOT_COLD);
		if (d == NULL)
			return NULL;
		TRACK_OUT(d->base, class_size[s->k]); /* it may be written */
		bp_region_refill(d->base, class_size[s->k]);
	}
	taken(s, place, 1);
	return d;
}

/* Nothing can be hidden at any place. */
static bool all_trusted(const bufpool_t *pool, unsigned k)
{
	struct demand *q = pool->demand;

	for (unsigned i = 0; i < pool->places; i++)
		if (!caches_are_empty(pool, i, k))
			return false;
	return ck_pr_load_32(&q->klass[k].movers) == 0;
}

/* A number that changes with every take and give, and with the trust. */
static uint64_t stamp_of(const struct search *s)
{
	uint64_t heads = 0, words = 0;

	for (unsigned i = 0; i < s->pool->places; i++) {
		heads += bp_depot_stamp(pool_depot(s->pool, i, s->k));
		words += ck_pr_load_64(
			&want_of(s->pool->demand, i, s->k)->scarce);
	}
	/* So far from each other that no change of one makes up for the
	   other's. */
	return heads + words * UINT64_C(0x9e3779b97f4a7c15);
}

/* One from a place: its depot, else from the caches there. */
static struct bp_buf *look_at(struct search *s, unsigned place)
{
	struct bp_buf *d = take_at(s, place);

	if (d != NULL || caches_are_empty(s->pool, place, s->k))
		return d;
	d = s->see ? bp_cache_collect(s->pool, place, s->k)
	           : bp_cache_gather(s->pool, place, s->k);
	s->stolen = d != NULL;
	return d != NULL ? d : take_at(s, place);
}

static struct bp_buf *look_around(struct search *s)
{
	const uint8_t *near = s->pool->near + s->here * s->pool->places;
	struct bp_buf *d = NULL;

	for (unsigned i = 0; i < s->pool->places && d == NULL; i++)
		d = look_at(s, near[i]);
	return d;
}

/* How long to look again while others have buffers in their hands: they may need
   a CPU to go on, and may as well be stopped for good. */
#define LOOK_AGAIN 1000000 /* ns */

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

/* Let others go on; false if they were given enough time. */
static bool look_again(uint64_t *since)
{
	if (*since == 0)
		*since = now();
	else if (now() - *since > LOOK_AGAIN)
		return false;
	sched_yield();
	return true;
}

/*
 * Says no only if none was idle anywhere while it looked: what may have gone from
 * somewhere not yet looked at to somewhere already seen has changed the stamp.
 */
static struct bp_buf *find_idle(struct search *s)
{
	struct demand *q = s->pool->demand;
	uint64_t since = 0;
	struct bp_buf *d;

	for (;;) {
		uint64_t stamp = stamp_of(s);
		bool trusted = all_trusted(s->pool, s->k);

		ck_pr_fence_load(); /* these before what they guard */
		d = look_around(s);
		if (d != NULL)
			return d;
		ck_pr_fence_load();
		/* Movers again: who began since may hold what was in a depot
		   not yet looked at. */
		if (trusted && all_trusted(s->pool, s->k) && stamp == stamp_of(s))
			break;
		if (!all_trusted(s->pool, s->k) && !look_again(&since))
			break;
	}
	for (unsigned i = 0; i < s->pool->places; i++)
		ck_pr_store_32(&want_of(q, i, s->k)->takes, 0);
	return NULL;
}

/* -------------------------------------------------------------- the depot */

/* How many to fetch at once: half a magazine, but few of a small class. */
static unsigned refill_batch(const bufpool_t *pool, unsigned k)
{
	return (unsigned) min_size(pool->depth[k] / 2, pool->total[k] / 8) + 1;
}

/* n have come from the depot, the warmest first: that is for the caller, the
   others for the cache, the warmest on top. */
static void keep(struct search *s, struct bp_buf **got, unsigned n)
{
	struct bp_fast *fast = &s->c->fast;
	struct bp_magazine *m = &fast->magazine[s->k];
	uint64_t b = m->bottom;

	bp_magazine_make_room(m, s->pool->depth[s->k]);
	for (unsigned i = n - 1; i > 0; i--) {
		/* Whoever returned it has it in another CPU's cache; its
		   checkout writes it. */
		__builtin_prefetch(got[i], 1);
		bp_slot_set(m, SLOT(b++), got[i]);
	}
	bp_add(&m->offset, -(uint64_t) (n - 1)); /* these are no returns */
	bp_magazine_show(fast, s->k, n - 1);
}

/*
 * Some at once from the depot of the thread's place: one to hand out, the others
 * for its cache, whose magazine is empty.  NULL if there is none, or it may not
 * hold any.
 */
static struct bp_buf *refill(struct search *s)
{
	struct depot *depot = pool_depot(s->pool, s->here, s->k);
	struct demand *q = s->pool->demand;
	struct bp_buf *got[BP_SLOTS];
	unsigned n = 0;

	move_begin(q, s->c, s->k);
	if (cache_may_hold(s->pool, s->c, s->k))
		n = bp_depot_take(depot, s->shard, got,
		                  refill_batch(s->pool, s->k));
	if (n > 0)
		bp_account_out(&s->pool->account, depot, s->shard, s->k, n);
	if (n > 1)
		keep(s, got, n);
	move_end(q, s->c, s->k);
	return n > 0 ? got[0] : NULL;
}

/* From the depot of the thread's place. */
static struct bp_buf *take_near(struct search *s)
{
	struct bp_buf *d;

	if (s->c != NULL && cache_may_hold(s->pool, s->c, s->k))
		return refill(s);
	d = bp_depot_take_one(pool_depot(s->pool, s->here, s->k), s->shard);
	if (d != NULL)
		taken(s, s->here, 1);
	return d;
}

/* ---------------------------------------------------------------- one buffer */

/* An idle buffer becomes one with an owner. */
static bufpool_buf_t *hand_out(struct bp_buf *d, size_t len)
{
	track_acquire(d);
	TRACK_OUT(d->base, d->pub.capacity);
	if (CK_CC_UNLIKELY(d->state != BP_HOME)) {
		if (d->state != BP_UNSURE)
			bp_misuse("bufpool_checkout", d,
			          "an idle buffer has an owner: returned twice");
		/* Where it came home in a parent process, see fork.c. */
		if (d->pool->wipe != BUFPOOL_WIPE_NONE)
			bp_wipe_memset(d->base, d->pub.capacity);
	}
	d->pub.len = len;
	d->state = BP_OUT;
	return &d->pub;
}

/* Not from the thread's cache. */
static struct bp_buf *take_shared(struct search *s)
{
	struct bp_buf *d = take_near(s);

	if (CK_CC_UNLIKELY(d == NULL)) {
		int saved = errno;

		d = find_idle(s);
		errno = saved;
		if (d == NULL)
			return NULL;
	}
	count(s, d, 1);
	return d;
}

/* By a thread that is where it is, with the cache that it has. */
static inline struct search search_for(bufpool_t *pool, unsigned k)
{
	struct search s = { .pool = pool, .k = k, .c = thread_enter(pool) };

	if (s.c != NULL) {
		s.here = s.c->fast.place;
		s.shard = s.c->shard;
	} else {
		s.here = place_here(pool);
	}
	return s;
}

/* There may be some.  The fast paths know no cache of a pool that is stopped: so where
   they know this thread's, that need not be looked at. */
static inline bool is_served(const bufpool_t *pool, unsigned k)
{
	return pool->total[k] > 0 &&
	       (CK_CC_LIKELY(OWNER_SEE(&bp_thread_fast->pool) == pool) ||
	        !is_stopped(pool));
}

bufpool_buf_t *bp_take(bufpool_t *pool, unsigned k, size_t len)
{
	struct bp_buf *d = NULL;
	struct search s;

	if (!is_served(pool, k))
		return NULL;
	s = search_for(pool, k);
	if (s.c != NULL) {
		struct bp_magazine *m = &s.c->fast.magazine[k];

		d = bp_magazine_take(m, pool->fenced);
		if (d != NULL)
			bp_add(&m->hits, 1);
		/* A take that finds out that it is contested has moved bottom
		   down and up again: who gathers may have seen one less, and
		   it is another that was taken.  So it is as if one had been
		   put. */
		bp_owner_fence(0);
		if (CK_CC_UNLIKELY(OWNER_SEE(&s.c->fast.alarm) != 0))
			bp_put_alarm(&s.c->fast);
	}
	if (d == NULL)
		d = take_shared(&s);
	return d != NULL ? hand_out(d, len) : NULL;
}

bool bp_sees_idle(bufpool_t *pool, unsigned k)
{
	struct search s = search_for(pool, k);
	int saved = errno;
	bool seen;

	s.see = true;
	seen = (s.c != NULL && bp_magazine_count(&s.c->fast.magazine[k]) > 0) ||
	       find_idle(&s) != NULL;
	errno = saved;
	return seen;
}

size_t bp_take_many(bufpool_t *pool, unsigned k, size_t len,
                    bufpool_buf_t **bufs, size_t n)
{
	struct bp_buf *got[BP_SLOTS];
	struct search s;
	unsigned m;

	if (!is_served(pool, k))
		return 0;
	s = search_for(pool, k);
	/* Not past what is in the magazine, from which a fast path may just have
	   hidden some from one who looked for idle buffers. */
	if (s.c != NULL && bp_magazine_count(&s.c->fast.magazine[k]) > 0)
		return 0;
	/* All of them are on their way out: nothing is being moved. */
	m = bp_depot_take(pool_depot(pool, s.here, k), s.shard, got,
	                  (unsigned) min_size(n, BP_SLOTS));
	if (m == 0)
		return 0;
	taken(&s, s.here, m);
	count(&s, got[0], m);
	for (unsigned i = 0; i < m; i++)
		__builtin_prefetch(got[i], 1);
	for (unsigned i = 0; i < m; i++)
		bufs[i] = hand_out(got[i], len);
	return m;
}

/* ----------------------------------------------------------------- waiting */

#define NSEC 1000000000L

static struct timespec now_plus(const struct timespec *t)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += t->tv_sec;
	at.tv_nsec += t->tv_nsec;
	if (at.tv_nsec >= NSEC) {
		at.tv_sec++;
		at.tv_nsec -= NSEC;
	}
	return at;
}

static bool is_over(const struct timespec *deadline)
{
	struct timespec at;

	if (deadline == NULL)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec > deadline->tv_sec ||
	       (at.tv_sec == deadline->tv_sec &&
	        at.tv_nsec >= deadline->tv_nsec);
}

bufpool_buf_t *bp_take_wait(bufpool_t *pool, unsigned k, size_t len,
                            const struct timespec *timeout)
{
	struct demand *q = pool->demand;
	struct seat unseen = { .fd = -1 }; /* by those who call */
	struct seat *seat = bp_seat_take(q, k, -1);
	uint32_t ticket = bp_seat_ticket(q, k);
	struct timespec until, *deadline = NULL;
	bufpool_buf_t *buf;
	bool over = false;

	if (timeout != NULL) {
		until = now_plus(timeout);
		deadline = &until;
	}
	if (seat == NULL)
		seat = &unseen;
	for (;;) {
		/* Announced, with the ticket that it came with, before it
		   looks; see demand.h. */
		bp_seat_announce(q, k, seat, ticket);
		buf = bp_take(pool, k, len);
		if (buf != NULL || over || is_stopped(pool))
			break;
		if (seat != &unseen && all_trusted(pool, k)) {
			bp_seat_sleep(seat, ticket, deadline);
		} else {
			/* Somebody is moving some; or membarrier() is refused
			   now, and a put can go unseen; or nobody calls. */
			const struct timespec moment = { 0, 1000000 };
			struct timespec end = now_plus(&moment);

			bp_seat_sleep(seat, ticket, &end);
		}
		over = is_over(deadline); /* look once more, though */
	}
	if (seat != &unseen)
		bp_seat_leave(q, k, seat);
	else
		bp_seat_withdraw(q, k, seat);
	return buf;
}

/* ---------------------------------------------------------------- the heap */

bufpool_buf_t *bp_take_heap(bufpool_t *pool, size_t size, size_t alignment)
{
	unsigned k = bp_class_of(size);
	size_t capacity = k < BUFPOOL_CLASSES ? class_size[k] : size;
	int saved = errno, error;
	struct bp_buf *d;

	if (is_stopped(pool) || pool->exhausted == BUFPOOL_FAIL)
		return fail(refusal(pool, ENOBUFS));
	d = bp_heap_take(&pool->heap, k, capacity,
	                 alignment > PAGE ? alignment : PAGE, &error);
	if (d == NULL)
		return fail(error);
	ck_pr_inc_64(&pool->left); /* a reason for the pool to stay */
	bp_account_heap_out(&pool->account, k, capacity);
	d->pub.len = size;
	d->state = BP_OUT;
	errno = saved;
	return &d->pub;
}

/* --------------------------------------------- what the fast paths leave over */

bufpool_buf_t *bp_checkout_slow(bufpool_t *pool, size_t len, unsigned k)
{
	bufpool_buf_t *buf;

	if (pool == NULL)
		return fail(EINVAL);
	buf = bp_take(pool, k, len);
	return buf != NULL ? buf : bp_take_heap(pool, len, PAGE);
}

bufpool_buf_t *bp_checkout_other(bufpool_t *pool, size_t size)
{
	int error = check_request(pool, size);

	return error != 0 ? fail(error) : bp_take_heap(pool, size, PAGE);
}
