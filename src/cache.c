/* SPDX-License-Identifier: MIT */
#include "cache.h"

#include <string.h>

#include "cpu.h"

/* ----------------------------------------------------------- beginning, end */

/* The fast checkouts do not know it any more. */
static void cache_divert(struct cache *c)
{
	ck_pr_store_ptr(&c->fast.pool, BP_NO_POOL);
	ck_pr_store_ptr(&c->fast.local, BP_NO_POOL);
	ck_pr_store_ptr(&c->fast.special, BP_NO_POOL);
}

static void cache_revoke(struct cache *c)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		bp_magazine_revoke(&c->fast.magazine[k]);
	ck_pr_store_uint(&c->dead, 1);
	/* Another pool may come to lie where this one does. */
	cache_divert(c);
	ck_pr_store_64(&c->fast.key, 0);
	ck_pr_store_64(&c->fast.special_key, 0);
	ck_pr_fence_memory(); /* see the end of bp_cache_answer() */
	ck_pr_store_8(&c->fast.alarm, 1);
}

/* Whose it is, for the fast paths. */
static void cache_show(const bufpool_t *pool, struct cache *c, uint32_t cpu)
{
	struct bp_fast *fast = &c->fast;
	unsigned place = place_of_cpu(pool, cpu);
	/* The usual paths have no fence, and do not ask where they are. */
	bool special = pool->fenced || pool->places > 1;
	bool none = track_threads();
	uint64_t kind = pool->fenced ? BP_FENCED : special ? BP_LOCAL : 0;
	uint64_t key = key_of(pool, place) - (kind << BP_CLASS_SHIFT);

	ck_pr_store_uint(&fast->place, place);
	if (pool->places > 1)
		stay_on(fast, cpu);
	else
		stay_anywhere(fast);
	fast->fenced = pool->fenced;
	ck_pr_store_ptr(&fast->pool, special || none ? BP_NO_POOL : pool);
	ck_pr_store_64(&fast->key, none ? 0 : key);
	ck_pr_store_ptr(&fast->local,
	                kind == BP_LOCAL && !none ? pool : BP_NO_POOL);
	ck_pr_store_ptr(&fast->special, special && !none ? pool : BP_NO_POOL);
	ck_pr_store_64(&fast->special_key,
	               special && !none ? key_of(pool, place) : 0);
	/* Those who look for caches at this place, or for all there are, find
	   this one now; or it finds out here what they have come for. */
	ck_pr_fence_memory();
	ck_pr_store_8(&fast->alarm, 1);
	if (ck_pr_load_uint(&pool->stopped))
		cache_divert(c);
	if (ck_pr_load_uint(&pool->closing))
		cache_revoke(c);
}

static void cache_init(const bufpool_t *pool, struct cache *c)
{
	memset(c, 0, sizeof(*c));
	c->pool_id = pool->id;
	c->demand = pool->demand;
	c->refs = 2;
	c->owned = 1;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		bp_magazine_init(&c->fast.magazine[k], pool->depth[k]);
}

void bp_cache_reset(const bufpool_t *pool, struct cache *c, uint32_t cpu)
{
	cache_init(pool, c);
	cache_show(pool, c, cpu);
}

struct cache *bp_cache_new(bufpool_t *pool, uint32_t cpu)
{
	struct cache *c = bp_map(sizeof(*c)), *first;

	if (c == NULL)
		return NULL;
	cache_init(pool, c);
	bp_demand_ref(c->demand);
	c->shard = ck_pr_faa_uint(&pool->next_shard, 1) % DEPOT_SHARDS;
	first = ck_pr_load_ptr(&pool->caches);
	do {
		c->next = first;
		ck_pr_fence_release();
	} while (!ck_pr_cas_ptr_value(&pool->caches, first, c, &first));
	cache_show(pool, c, cpu);
	return c;
}

struct cache *bp_cache_adopt(bufpool_t *pool, uint32_t cpu)
{
	struct cache *c = ck_pr_load_ptr(&pool->caches);

	for (; c != NULL; c = c->next) {
		if (ck_pr_load_uint(&c->owned) == 0 &&
		    ck_pr_cas_uint(&c->owned, 0, 1)) {
			/* Its last owner's writes before ours. */
			ck_pr_fence_acquire();
			ck_pr_inc_uint(&c->refs);
			cache_show(pool, c, cpu);
			return c;
		}
	}
	return NULL;
}

void bp_cache_unref(struct cache *c)
{
	/* What the others did to it before what we do: free it. */
	ck_pr_fence_release();
	if (ck_pr_faa_uint(&c->refs, -1u) == 1) {
		ck_pr_fence_acquire();
		bp_demand_unref(c->demand);
		bp_unmap(c, sizeof(*c));
	}
}

uint64_t bp_cache_disown(struct cache *c, bufpool_t **pool)
{
	uint64_t owed = 0;

	bp_cache_flush(c, pool, &owed);
	/* All of our writes, before another thread can adopt it. */
	ck_pr_fence_release();
	ck_pr_store_uint(&c->owned, 0);
	bp_cache_unref(c);
	return owed;
}

/* ------------------------------------------------------- the owner's moves */

unsigned bp_cache_spill(struct cache *c, unsigned k, unsigned n,
                        bufpool_t **pool, uint64_t *owed)
{
	struct bp_magazine *m = &c->fast.magazine[k];
	struct bp_buf *bufs[BP_SLOTS];
	/* A put of buffers that are being moved may have led here: their move
	   is not over yet. */
	bool inner = (c->moving & 1u << k) != 0;
	struct depot *depot;
	unsigned got;

	move_begin(c->demand, c, k);
	got = bp_magazine_take_many(m, bufs, n, c->fast.fenced);
	if (got > 0) {
		/* The pool is there as long as we have a buffer of it. */
		*pool = bufs[0]->pool;
		depot = pool_depot(*pool, c->fast.place, k);
		account_in(depot, c->shard, got);
		if (bp_depot_give(depot, c->shard, bufs, got))
			demand_given(c->demand, k, got);
		else
			*owed += got;
	}
	if (!inner)
		move_end(c->demand, c, k);
	return got;
}

static void spill_all(struct cache *c, unsigned k, bufpool_t **pool,
                      uint64_t *owed)
{
	while (bp_magazine_count(&c->fast.magazine[k]) > 0 &&
	       bp_cache_spill(c, k, BP_SLOTS, pool, owed) > 0)
		;
}

void bp_cache_flush(struct cache *c, bufpool_t **pool, uint64_t *owed)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		spill_all(c, k, pool, owed);
}

void bp_cache_move(bufpool_t *pool, struct cache *c, uint32_t cpu,
                   uint64_t *owed)
{
	bp_cache_flush(c, &pool, owed);
	cache_show(pool, c, cpu);
}

/* Take out again, for good, what was put into a revoked magazine. */
static uint64_t take_back(struct bp_magazine *m, bufpool_t **pool)
{
	struct bp_buf *d;
	uint64_t n = 0;

	while ((d = bp_magazine_steal(m, LIMIT_REVOKED)) != NULL) {
		*pool = d->pool;
		n++;
	}
	return n;
}

void bp_cache_answer(struct cache *c, bufpool_t **pool, uint64_t *owed)
{
	ck_pr_store_8(&c->fast.alarm, 0);
	/* Who comes now says what he wants, then sets the alarm: one of the two
	   is seen after this. */
	ck_pr_fence_memory();
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		struct bp_magazine *m = &c->fast.magazine[k];

		if (magazine_is_revoked(m)) {
			/* The pool is gone, or will be with these. */
			*owed += take_back(m, pool);
			ck_pr_store_8(&c->fast.alarm, 1);
			continue;
		}
		if (!is_scarce(want_of(c->demand, c->fast.place, k)))
			continue;
		/* All: of what a spill had in its hands some may have come
		   back. */
		spill_all(c, k, pool, owed);
		bp_magazine_make_room(m, 0);
	}
}

/* ------------------------------------------------------------ from outside */

/* Every cache hears of it; then what was put before can be seen. */
static bool alarm_all(bufpool_t *pool)
{
	struct cache *c = ck_pr_load_ptr(&pool->caches);

	for (; c != NULL; c = c->next)
		if (ck_pr_load_uint(&c->owned))
			ck_pr_store_8(&c->fast.alarm, 1);
	return bp_fence_all(pool->fenced);
}

#define VICTIMS 32 /* whose limits are raised for one fence */

struct gather {
	bufpool_t *pool;
	unsigned place, k;
	struct cache *next; /* not looked at yet */
	struct bp_buf *found;
	uint64_t hits; /* of the caches, in all */
	bool moving;   /* an owner may have had some in its hands */
};

static void give_back(bufpool_t *pool, struct bp_buf *d)
{
	struct depot *depot = pool_depot(pool, d->place, d->klass);

	account_in(depot, 0, 1);
	bp_depot_give(depot, 0, &d, 1);
	demand_given(pool->demand, d->klass, 1);
}

/* To be read after its magazine: what it took from there, or is to put there, is
   in its hands then, or where it was to go. */
static void see_whether_moving(struct gather *g, const struct cache *c)
{
	ck_pr_fence_load();
	g->moving |= (ck_pr_load_uint(&c->moving) & 1u << g->k) != 0;
	ck_pr_fence_acquire();
}

/* Of the next caches some that hold any; how many. */
static unsigned find_victims(struct gather *g, struct cache **victim,
                             uint64_t *end)
{
	unsigned n = 0;

	for (; g->next != NULL && n < VICTIMS; g->next = g->next->next) {
		struct cache *c = g->next;
		struct bp_magazine *m = &c->fast.magazine[g->k];

		g->hits += ck_pr_load_64(&m->hits);
		if (!ck_pr_load_uint(&c->owned) ||
		    ck_pr_load_uint(&c->fast.place) != g->place)
			continue;
		if (bp_magazine_count(m) > 0) {
			victim[n] = c;
			end[n++] = bp_magazine_contest(m);
		} else {
			see_whether_moving(g, c);
		}
	}
	return n;
}

static void rob_one(struct gather *g, struct cache *c, uint64_t end)
{
	struct bp_buf *d;

	while ((d = bp_magazine_steal(&c->fast.magazine[g->k], end)) != NULL) {
		if (g->found != NULL)
			give_back(g->pool, d);
		else
			g->found = d;
	}
	see_whether_moving(g, c);
}

/* False if the owners cannot be made to see it. */
static bool rob(struct gather *g)
{
	struct cache *victim[VICTIMS];
	uint64_t end[VICTIMS];
	unsigned n;

	while ((n = find_victims(g, victim, end)) > 0) {
		if (!bp_fence_all(g->pool->fenced))
			return false;
		while (n-- > 0)
			rob_one(g, victim[n], end[n]);
	}
	return true;
}

struct bp_buf *bp_cache_gather(bufpool_t *pool, unsigned place, unsigned k)
{
	struct demand *q = pool->demand;
	struct want *w = want_of(q, place, k);
	struct gather g = { .pool = pool, .place = place, .k = k };
	bool first, heard;
	uint64_t word;

	move_begin(q, NULL, k);
	word = bp_demand_declare(w, &first);
	heard = alarm_all(pool);
	g.next = ck_pr_load_ptr(&pool->caches);
	heard = heard && rob(&g);
	move_end(q, NULL, k);
	if (first)
		bp_demand_adapt(w, g.hits);
	/* Others that gather may have some in their hands still, and say so
	   in movers, which who fails looks at. */
	if (heard && !g.moving)
		bp_demand_trust(w, word);
	return g.found;
}

struct bp_buf *bp_cache_collect(bufpool_t *pool, unsigned place, unsigned k)
{
	struct bp_buf *d;

	/* Nobody can see it while it is in our hands. */
	move_begin(pool->demand, NULL, k);
	d = bp_cache_gather(pool, place, k);
	if (d != NULL)
		give_back(pool, d);
	move_end(pool->demand, NULL, k);
	return d;
}

void bp_cache_divert_all(bufpool_t *pool)
{
	struct cache *c = ck_pr_load_ptr(&pool->caches);

	for (; c != NULL; c = c->next)
		cache_divert(c);
}

uint64_t bp_cache_revoke_all(bufpool_t *pool)
{
	struct cache *caches = ck_pr_load_ptr(&pool->caches);
	bufpool_t *same;
	uint64_t found = 0;

	for (struct cache *c = caches; c != NULL; c = c->next)
		cache_revoke(c);
	/* Every put from here on sees that; those before, we see.  Without
	   that (membarrier refused since the pool was created) the owners
	   bring their buffers home themselves: on their next return to the
	   pool, when they exit or first use another pool. */
	if (!bp_fence_all(pool->fenced))
		return 0;
	for (struct cache *c = caches; c != NULL; c = c->next)
		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
			found += take_back(&c->fast.magazine[k], &same);
	return found;
}
