/* SPDX-License-Identifier: MIT */
#include "take.h"

#include <sched.h>
#include <time.h>

#include "grow.h"
#include "region.h"
#include "registry.h"

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

/* ------------------------------------------------------------- from afar */

/* One of those without pages, with new ones. */
static struct bp_buf *take_cold(const struct search *s, struct depot *depot)
{
	struct bp_buf *d = bp_depot_take_one(depot, DEPOT_COLD);
	int saved = errno;

	if (d != NULL) {
		TRACK_OUT(d->base, class_size[s->k]); /* it may be written */
		bp_region_refill(d->base, class_size[s->k]);
		errno = saved;
	}
	return d;
}

/* One from the depot of a place, if need be a cold one; hardened pools have these
   first, as they have been idle longest. */
static struct bp_buf *take_at(struct search *s, unsigned place)
{
	struct depot *depot = pool_depot(s->pool, place, s->k);
	bool cold_first = s->pool->hardened;
	struct bp_buf *d;

	if (s->see)
		return bp_depot_see_one(depot);
	d = cold_first ? take_cold(s, depot) : bp_depot_take_one(depot, s->shard);
	if (d == NULL)
		d = cold_first ? bp_depot_take_one(depot, s->shard)
		               : take_cold(s, depot);
	if (d != NULL)
		taken(s->pool, place, s->k, s->shard, 1);
	return d;
}

/* At any place. */
static bool all_caches_are_empty(const bufpool_t *pool, unsigned k)
{
	for (unsigned i = 0; i < pool->places; i++)
		if (!caches_are_empty(pool, i, k))
			return false;
	return true;
}

/* Nothing can be hidden. */
static bool all_trusted(bufpool_t *pool, unsigned k)
{
	for (unsigned i = 0; i < pool->places; i++)
		if (depot_is_moving(pool_depot(pool, i, k)))
			return false;
	return all_caches_are_empty(pool, k) &&
	       ck_pr_load_32(&pool->demand->klass[k].movers) == 0;
}

bool bp_is_unheard(const bufpool_t *pool, unsigned k)
{
	return !all_caches_are_empty(pool, k) && !bp_fence_all(pool->fenced);
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
		bool trusted;

		/* Then movers: who took some before is one of them still, or has
		   changed the stamp since. */
		ck_pr_fence_load();
		trusted = all_trusted(s->pool, s->k);
		ck_pr_fence_load(); /* these before what they guard */
		d = look_around(s);
		if (d != NULL)
			return d;
		ck_pr_fence_load();
		/* Movers again: who began since may hold what was in a depot
		   not yet looked at. */
		trusted = trusted && all_trusted(s->pool, s->k);
		ck_pr_fence_load(); /* who is through has changed the stamp */
		if (trusted && stamp == stamp_of(s))
			break;
		if (!all_trusted(s->pool, s->k) &&
		    (bp_is_unheard(s->pool, s->k) || !look_again(&since)))
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
	return (unsigned) min_size(pool->depth[k] / 2,
	                           ck_pr_load_32(&pool->total[k]) / 8) +
	       1;
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
	if (CK_CC_UNLIKELY(s->pool->hardened))
		return take_at(s, s->here);
	d = bp_depot_take_one(pool_depot(s->pool, s->here, s->k), s->shard);
	if (d != NULL)
		taken(s->pool, s->here, s->k, s->shard, 1);
	return d;
}

/* ---------------------------------------------------------------- one buffer */

void bp_settle_doubt(const char *call, struct bp_buf *d)
{
	if (d->state != BP_UNSURE)
		bp_misuse_of(call, d,
		             "an idle buffer has an owner: returned twice");
	/* Where it came home in a parent process, see fork.c. */
	if (d->pool->wipe != BUFPOOL_WIPE_NONE)
		bp_wipe_memset(d->base, d->pub.capacity);
}

_Noreturn void bp_misuse_written(const char *call, const struct bp_buf *d)
{
	char reason[80];

	snprintf(reason, sizeof(reason), "written after its return, at offset %zu",
	         bp_blank_bytes(d->base, class_size[d->klass]));
	bp_misuse_of(call, d, reason);
}

/* One that is idle, or of those that the class grows by. */
static struct bp_buf *find_or_grow(struct search *s)
{
	bufpool_t *pool = s->pool;
	struct bp_buf *d;
	uint32_t total;

	do {
		total = ck_pr_load_32(&pool->total[s->k]);
		d = find_idle(s);
		if (d != NULL || !bp_may_grow(pool, s->k))
			return d;
		d = bp_grow_exhausted(pool, s->here, s->k, total);
		if (d != NULL) {
			taken(pool, s->here, s->k, s->shard, 1);
			return d;
		}
		/* By another, then. */
	} while (ck_pr_load_32(&pool->total[s->k]) != total);
	return NULL;
}

/* Not from the thread's cache. */
static struct bp_buf *take_shared(struct search *s)
{
	struct bp_buf *d = take_near(s);

	if (CK_CC_UNLIKELY(d == NULL)) {
		int saved = errno;

		d = find_or_grow(s);
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
	return pool->most[k] > 0 &&
	       (CK_CC_LIKELY(OWNER_SEE(&bp_thread_fast->pool) == pool) ||
	        !is_stopped(pool));
}

bufpool_buf_t *bp_take(const char *call, bufpool_t *pool, unsigned k, size_t len)
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
	if (d == NULL)
		return NULL;
	return hand_out(call, d, class_size[k], pool->hardened, len);
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

size_t bp_take_many(const char *call, bufpool_t *pool, unsigned k, size_t len,
                    bufpool_buf_t **bufs, size_t n)
{
	struct bp_buf *got[BP_SLOTS];
	struct depot *depot;
	struct search s;
	unsigned m;

	if (!is_served(pool, k))
		return 0;
	s = search_for(pool, k);
	/* Not past what is in the magazine, from which a fast path may just have
	   hidden some from one who looked for idle buffers. */
	if (s.c != NULL && bp_magazine_count(&s.c->fast.magazine[k]) > 0)
		return 0;
	depot = pool_depot(pool, s.here, k);
	if (pool->hardened && depot_is_cold(depot))
		return 0;
	/* All of them are on their way out: nothing is being moved. */
	m = bp_depot_take(depot, s.shard, got,
	                  (unsigned) min_size(n, BP_SLOTS));
	if (m == 0)
		return 0;
	taken(pool, s.here, k, s.shard, m);
	count(&s, got[0], m);
	for (unsigned i = 0; i < m; i++)
		__builtin_prefetch(got[i], 1);
	for (unsigned i = 0; i < m; i++)
		bufs[i] = hand_out(call, got[i], class_size[k], pool->hardened,
		                   len);
	return m;
}

bufpool_buf_t *bp_take_none(bufpool_t *pool, unsigned k, int error)
{
	if (is_stopped(pool))
		return fail(ECANCELED);
	if (k < BUFPOOL_CLASSES)
		ck_pr_inc_64(&pool->unmet[k].exhausted);
	if (k < BUFPOOL_CLASSES && bp_is_unheard(pool, k) &&
	    bp_cache_any(pool, k))
		return fail(EPERM);
	return fail(error);
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

static void sleep_on(struct seat *seat, uint32_t ticket, bool is_called,
                     const struct timespec *deadline)
{
	/* Somebody is moving some; or membarrier() is refused now, and a put can
	   go unseen; or nobody calls. */
	const struct timespec moment = { 0, 1000000 };
	struct timespec end;

	if (!is_called) {
		end = now_plus(&moment);
		deadline = &end;
	}
	bp_seat_sleep(seat, ticket, deadline);
}

bufpool_buf_t *bp_take_wait(const char *call, bufpool_t *pool, unsigned k,
                            size_t len, const struct timespec *timeout)
{
	struct demand *q = pool->demand;
	struct seat unseen = { .fd = -1 }; /* by those who call */
	struct seat *seat = bp_seat_take(q, k, -1);
	uint32_t ticket = bp_seat_ticket(q, k);
	struct unmet *unmet = &pool->unmet[k];
	struct timespec until, *deadline = NULL;
	uint64_t since = now();
	bufpool_buf_t *buf;
	bool over = false, slept = false;

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
		buf = bp_take(call, pool, k, len);
		if (buf != NULL || over || is_stopped(pool))
			break;
		if (!slept)
			ck_pr_inc_64(&unmet->waits);
		slept = true;
		sleep_on(seat, ticket, seat != &unseen && all_trusted(pool, k),
		         deadline);
		over = is_over(deadline); /* look once more, though */
	}
	if (seat != &unseen)
		bp_seat_leave(q, k, seat);
	else
		bp_seat_withdraw(q, k, seat);
	if (slept)
		ck_pr_add_64(&unmet->wait_ns, now() - since);
	return buf;
}

/* ---------------------------------------------------------------- the heap */

bufpool_buf_t *bp_take_heap(bufpool_t *pool, size_t size, size_t alignment)
{
	unsigned k = bp_class_of(size);
	size_t capacity = k < BUFPOOL_CLASSES ? class_size[k] : size;
	int saved = errno, error;
	struct bp_buf *d;

	registry_check();
	if (is_stopped(pool) || pool->exhausted == BUFPOOL_FAIL)
		return bp_take_none(pool, k, ENOBUFS);
	d = bp_heap_take(&pool->heap, k, capacity,
	                 alignment > PAGE ? alignment : PAGE, &error);
	if (d == NULL)
		return bp_take_none(pool, k, error);
	ck_pr_inc_64(&pool->left); /* a reason for the pool to stay */
	bp_account_heap_out(&pool->account, k, capacity);
	d->pub.len = size;
	d->state = BP_OUT;
	errno = saved;
	return &d->pub;
}

/* --------------------------------------------- what the fast paths leave over */

bufpool_buf_t *bp_checkout_slow(bufpool_t *pool, size_t len, unsigned k,
                                const char *call)
{
	bufpool_buf_t *buf;

	if (pool == NULL)
		return fail(EINVAL);
	buf = bp_take(call, pool, k, len);
	return buf != NULL ? buf : bp_take_heap(pool, len, PAGE);
}

bufpool_buf_t *bp_checkout_other(bufpool_t *pool, size_t size)
{
	int error = check_request(pool, size);

	return error != 0 ? fail(error) : bp_take_heap(pool, size, PAGE);
}
