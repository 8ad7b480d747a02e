/* SPDX-License-Identifier: MIT */
#include "cache.h"

#include <string.h>

#include "cpu.h"
#include "registry.h"

/* ----------------------------------------------------------- beginning, end */

/* The fast checkouts do not know it any more. */
static void cache_divert(struct cache *c)
{
	ck_pr_store_ptr(&c->fast.pool, BP_NO_POOL);
	ck_pr_store_ptr(&c->fast.local, BP_NO_POOL);
	ck_pr_store_ptr(&c->fast.hardened, BP_NO_POOL);
	ck_pr_store_ptr(&c->fast.fenced_any, BP_NO_POOL);
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
	ck_pr_fence_memory(); /* see the end of bp_cache_answer() */
	ck_pr_store_8(&c->fast.alarm, 1);
}

static void show_to(const bufpool_t **path, const bufpool_t *pool, bool may)
{
	ck_pr_store_ptr(path, may ? pool : BP_NO_POOL);
}

/* Whose it is, for the fast paths. */
static void cache_show(const bufpool_t *pool, struct cache *c, uint32_t cpu)
{
	struct bp_fast *fast = &c->fast;
	unsigned place = place_of_cpu(pool, cpu);
	/* The usual checkout has no fence, does not ask where it is, and expects
	   something in the magazine.  A hardened pool's have no room, so that its
	   buffers go home by the usual return, as if all were full. */
	bool fenced = pool->fenced, local = pool->places > 1;
	bool hardened = pool->hardened;
	bool none = track_threads();
	uint64_t kind = local ? (uint64_t) BP_LOCAL << BP_WHAT_SHIFT : 0;

	ck_pr_store_uint(&fast->place, place);
	if (local)
		stay_on(fast, cpu);
	else
		stay_anywhere(fast);
	fast->fenced = fenced;
	show_to(&fast->pool, pool, !none && !local && !fenced && !hardened);
	show_to(&fast->local, pool, !none && local && !fenced && !hardened);
	show_to(&fast->fenced_any, pool, !none && !local && fenced && !hardened);
	show_to(&fast->hardened, pool, !none && hardened);
	show_to(&fast->special, pool, !none && (local || fenced || hardened));
	ck_pr_store_64(&fast->key, none ? 0 : key_of(pool, place) - kind);
	/* Those who look for caches at this place, or for all there are, find
	   this one now; or it finds out here what they have come for. */
	ck_pr_fence_memory();
	ck_pr_store_8(&fast->alarm, 1);
	if (ck_pr_load_uint(&pool->stopped))
		cache_divert(c);
	if (ck_pr_load_uint(&pool->closing))
		cache_revoke(c);
}

static void cache_init(const bufpool_t *pool, struct cache *c,
                       struct berth berth)
{
	memset(c, 0, sizeof(*c));
	c->berth = berth;
	c->shard = berth.n % DEPOT_SHARDS;
	c->pool_id = pool->id;
	c->demand = pool->demand;
	c->refs = 2;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		bp_magazine_init(&c->fast.magazine[k], pool->depth[k]);
}

void bp_cache_reset(const bufpool_t *pool, struct cache *c, uint32_t cpu)
{
	struct berth berth = bp_roster_take(&pool->demand->roster);

	cache_init(pool, c, berth);
	*berth_cache(berth) = c;
	cache_show(pool, c, cpu);
}

/*
 * Staggered by lines: else the same field of each lay in the same set of the CPU's
 * cache, which has a page to a way, and a walk over many would miss each time.
 */
#define CACHE_LEN round_up(sizeof(struct cache), PAGE)
#define CACHE_STAGGERS ((CACHE_LEN - sizeof(struct cache)) / CK_MD_CACHELINE + 1)

static struct cache *cache_map(struct berth berth)
{
	char *page = bp_map(CACHE_LEN);

	if (page == NULL)
		return NULL;
	page += berth.n % CACHE_STAGGERS * CK_MD_CACHELINE;
	return (struct cache *) page;
}

static void cache_unmap(struct cache *c)
{
	bp_unmap((char *) c - (uintptr_t) c % PAGE, CACHE_LEN);
}

static struct cache *cache_new(bufpool_t *pool, struct berth berth)
{
	struct cache *c = cache_map(berth);

	if (c == NULL)
		return NULL;
	cache_init(pool, c, berth);
	bp_demand_ref(c->demand);
	ck_pr_fence_release(); /* that before it is seen */
	ck_pr_store_ptr(berth_cache(berth), c);
	return c;
}

struct cache *bp_cache_enter(bufpool_t *pool, uint32_t cpu)
{
	struct berth berth = bp_roster_take(&pool->demand->roster);
	struct cache *c;

	if (berth.roster == NULL)
		return NULL;
	c = *berth_cache(berth);
	if (c != NULL)
		ck_pr_inc_uint(&c->refs);
	else
		c = cache_new(pool, berth);
	if (c != NULL)
		cache_show(pool, c, cpu);
	else
		bp_roster_leave(berth);
	return c;
}

void bp_cache_unref(struct cache *c)
{
	/* What the others did to it before what we do: free it. */
	ck_pr_fence_release();
	if (ck_pr_faa_uint(&c->refs, -1u) == 1) {
		ck_pr_fence_acquire();
		bp_demand_unref(c->demand);
		cache_unmap(c);
	}
}

uint64_t bp_cache_disown(struct cache *c, bufpool_t **pool)
{
	uint64_t owed = 0;

	bp_cache_flush(c, pool, &owed);
	bp_roster_leave(c->berth);
	bp_cache_unref(c);
	return owed;
}

void bp_cache_drop_all(bufpool_t *pool)
{
	struct walk walk = walk_caches(pool, BERTHS_ALL);
	struct cache *c;

	while ((c = bp_walk_next(&walk)) != NULL)
		bp_cache_unref(c);
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
	uint64_t left;
	unsigned got;

	move_begin(c->demand, c, k);
	got = bp_magazine_take_many(m, bufs, n, c->fast.fenced);
	if (got > 0) {
		/* The pool is there as long as we have a buffer of it. */
		*pool = bufs[0]->pool;
		depot = pool_depot(*pool, c->fast.place, k);
		account_in(depot, c->shard, got);
		left = bp_depot_give(depot, c->shard, bufs, got);
		if (left == 0)
			demand_given(c->demand, k, got);
		*owed += left;
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
	ck_pr_store_8(&c->fast.alarm, c->fast.fenced ? ALARM_FENCE : 0);
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
	struct walk walk = walk_caches(pool, BERTHS_TAKEN);
	struct cache *c;

	while ((c = bp_walk_next(&walk)) != NULL)
		ck_pr_store_8(&c->fast.alarm, 1);
	return bp_fence_all(pool->fenced);
}

#define VICTIMS 32 /* whose limits are raised for one fence */

struct gather {
	bufpool_t *pool;
	unsigned place, k;
	struct walk walk; /* over those not looked at yet */
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
	struct cache *c;
	unsigned n = 0;

	while (n < VICTIMS && (c = bp_walk_next(&g->walk)) != NULL) {
		struct bp_magazine *m = &c->fast.magazine[g->k];

		g->hits += ck_pr_load_64(&m->hits);
		if (ck_pr_load_uint(&c->fast.place) != g->place)
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
	g.walk = walk_caches(pool, BERTHS_TAKEN);
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

bool bp_cache_any(bufpool_t *pool, unsigned k)
{
	struct walk walk = walk_caches(pool, BERTHS_TAKEN);
	const struct cache *c;

	while ((c = bp_walk_next(&walk)) != NULL)
		if (bp_magazine_count(&c->fast.magazine[k]) > 0)
			return true;
	return false;
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
	struct walk walk = walk_caches(pool, BERTHS_ALL);
	struct cache *c;

	while ((c = bp_walk_next(&walk)) != NULL)
		cache_divert(c);
}

uint64_t bp_cache_revoke_all(bufpool_t *pool)
{
	struct walk first = walk_caches(pool, BERTHS_ALL), second = first;
	struct cache *c;
	bufpool_t *same;
	uint64_t found = 0;
	bool heard;

	while ((c = bp_walk_next(&first)) != NULL)
		cache_revoke(c);
	/* Every put from here on sees that; those before, we see.  Without
	   that (membarrier refused since the pool was created) the owners
	   bring their buffers home themselves: on their next return to the
	   pool, when they exit or first use another pool. */
	heard = bp_fence_all(pool->fenced);
	bp_registry_bury(heard);
	if (!heard)
		return 0;
	while ((c = bp_walk_next(&second)) != NULL)
		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
			found += take_back(&c->fast.magazine[k], &same);
	return found;
}

/* ------------------------------------------------- what gone threads counted */

/* The caller has the berth, and the sums. */
static void add_up(const struct cache *c, const struct shared_counts *old,
                   struct shared_counts *sums)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		const struct bp_magazine *m = &c->fast.magazine[k];

		ck_pr_store_64(&sums[k].cache_hits, old[k].cache_hits + m->hits);
		ck_pr_store_64(&sums[k].depot_hits,
		               old[k].depot_hits + m->depot_hits);
		ck_pr_store_64(&sums[k].stolen, old[k].stolen + m->stolen);
		ck_pr_store_64(&sums[k].remote_hits,
		               old[k].remote_hits + c->remote_hits[k]);
		ck_pr_store_64(&sums[k].returns,
		               old[k].returns + m->offset + m->bottom);
	}
}

static void count_anew(struct cache *c)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		struct bp_magazine *m = &c->fast.magazine[k];

		ck_pr_store_64(&m->hits, 0);
		ck_pr_store_64(&m->depot_hits, 0);
		ck_pr_store_64(&m->stolen, 0);
		ck_pr_store_64(&c->remote_hits[k], 0);
		ck_pr_store_64(&m->offset, -m->bottom);
	}
}

static void fold_one(struct sums *sums, struct cache *c)
{
	unsigned version = sums->version;

	add_up(c, sums_of(sums, version), sums_of(sums, version + 1));
	ck_pr_store_ptr(&sums->leaving, c);
	ck_pr_fence_store(); /* each step before the next */
	ck_pr_store_uint(&sums->version, version + 1);
	ck_pr_fence_store();
	count_anew(c);
	ck_pr_fence_store();
	ck_pr_store_uint(&sums->version, version + 2);
}

void bp_cache_fold(bufpool_t *pool)
{
	struct walk walk = walk_caches(pool, BERTHS_GONE);
	struct cache *c;

	if (!ck_pr_cas_uint(&pool->sums.busy, 0, 1))
		return;
	ck_pr_fence_acquire();
	while ((c = bp_walk_next(&walk)) != NULL) {
		if (!bp_roster_claim(c->berth))
			continue;
		fold_one(&pool->sums, c);
		bp_roster_forget(c->berth);
		bp_roster_leave(c->berth);
	}
	ck_pr_fence_release();
	ck_pr_store_uint(&pool->sums.busy, 0);
}
