/* SPDX-License-Identifier: MIT */
#include "give.h"

#include <errno.h>

#include "erase.h"
#include "life.h"
#include "registry.h"
#include "thread.h"

static __attribute__((noinline)) void answer(struct bp_fast *fast)
{
	bufpool_t *pool = NULL;
	uint64_t owed = 0;

	bp_cache_answer((struct cache *) fast, &pool, &owed);
	settle_owed(pool, owed);
}

/* Symbols of the library's inside that inlined calls use; bufpool/inline.h. */
void bp_put_alarm(struct bp_fast *fast)
{
	/* Bottom, which was moved, before the alarm; others set that, pass
	   bp_fence_all(), then look at bottom: magazine.h.  Each put to a
	   fenced cache comes through here; to others it makes no difference. */
	bp_owner_fence(1);
	if (CK_CC_UNLIKELY(OWNER_SEE(&fast->alarm) != ALARM_FENCE))
		answer(fast);
}

/* To the depot, past all caches: n of one class and place.  The pool may be gone
   after that. */
static void give(bufpool_t *pool, struct demand *q, unsigned shard,
                 struct bp_buf *const *bufs, unsigned n)
{
	unsigned k = bufs[0]->klass;
	struct depot *depot = pool_depot(pool, bufs[0]->place, k);
	uint64_t owed;

	account_in(depot, shard, n);
	owed = bp_depot_give(depot, shard, bufs, n);
	if (owed == 0)
		demand_given(q, k, n);
	else
		bp_pool_settle(pool, owed);
}

/* The thread has no cache: its own reference keeps what is looked at last. */
static void give_without(bufpool_t *pool, struct bp_buf *d)
{
	struct demand *q = pool->demand;

	ck_pr_inc_64(&pool->counts[d->klass].returns);
	bp_demand_ref(q);
	give(pool, q, 0, &d, 1);
	bp_demand_unref(q);
}

/* The magazine may be full: see what thieves have left, else send half of it to
   the depot.  The pool stays as long as we have d. */
static void give_cached(bufpool_t *pool, struct cache *c, struct bp_buf *d)
{
	unsigned k = d->klass, depth = pool->depth[k];
	struct bp_magazine *m = &c->fast.magazine[k];
	uint64_t owed = 0;

	/* Always into the magazine in the end: if the pool is being destroyed,
	   it is the put that finds out and empties the magazine. */
	for (;;) {
		bp_magazine_make_room(m, depth);
		if (m->bottom != m->room)
			break;
		bp_cache_spill(c, k, depth / 2 + 1, &pool, &owed);
	}
	/* Not the last ones: we have d. */
	settle_owed(pool, owed);
	bp_slot_set(m, SLOT(m->bottom), d);
	bp_magazine_show(&c->fast, k, 1);
}

void bp_return_erased(struct bp_buf *d)
{
	bufpool_t *pool = d->pool;
	struct cache *c = thread_enter(pool);

	track_release(d);
	BP_TRACK_IDLE(d);
	d->state = BP_HOME;
	if (c == NULL) {
		give_without(pool, d);
	} else if (d->place == c->fast.place &&
	           cache_may_hold(pool, c, d->klass)) {
		give_cached(pool, c, d);
	} else {
		bp_add(&c->fast.magazine[d->klass].offset, 1);
		give(pool, c->demand, c->shard, &d, 1);
	}
}

/* What this class and pool erase. */
static void erase(struct bp_buf *d)
{
	if (d->pool->wipe == BUFPOOL_WIPE_ALL)
		bp_erase(d, d->klass);
	else if (d->pool->wipe == BUFPOOL_WIPE_USED)
		bp_wipe_memset(d->base, buf_used(d));
}

/* Whether these may be given in one step: the same pool, place and class, and
   not cached where this thread is. */
static struct cache *past_cache(const struct bp_buf *d)
{
	struct cache *c;

	if (handle_state(d) != BP_OUT || !buf_is_sealed(d) ||
	    d->klass >= BUFPOOL_CLASSES)
		return NULL;
	c = thread_enter(d->pool);
	return c != NULL && (d->place != c->fast.place ||
	                     !cache_may_hold(d->pool, c, d->klass))
	               ? c
	               : NULL;
}

size_t bp_return_many(bufpool_buf_t **bufs, size_t n)
{
	struct bp_buf *first = (struct bp_buf *) bufs[0];
	struct cache *c = past_cache(first);
	struct bp_buf *home[BP_SLOTS];
	uint64_t sum = bp_sum(first);
	unsigned got = 0;

	if (c == NULL)
		return 0;
	for (; got < n && got < BP_SLOTS; got++) {
		struct bp_buf *d = (struct bp_buf *) bufs[got];

		if (d == NULL || bp_sum(d) != sum)
			break;
		check_handle("bufpool_return_bulk", d, BP_OUT);
		erase(d);
		track_release(d);
		BP_TRACK_IDLE(d);
		d->state = BP_HOME;
		home[got] = d;
	}
	bp_add(&c->fast.magazine[first->klass].offset, got);
	give(first->pool, c->demand, c->shard, home, got);
	return got;
}

static void return_to_heap(struct bp_buf *d)
{
	bufpool_t *pool = d->pool;
	size_t capacity = buf_capacity(d);
	int saved = errno;

	registry_check();
	bp_account_heap_in(&pool->account, bp_class_of(capacity), capacity);
	bp_heap_give(&pool->heap, d);
	errno = saved;
	bp_pool_settle(pool, 1);
}

void bp_return_other(const char *call, struct bp_buf *d)
{
	check_handle(call, d, BP_OUT);
	if (d->klass == BP_FROM_HEAP) {
		return_to_heap(d);
		return;
	}
	track_acquire(d); /* from other holders, if it was frozen */
	erase(d);
	bp_return_erased(d);
}
