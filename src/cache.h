/* SPDX-License-Identifier: MIT */
/*
 * cache.h - the level in front: what one thread caches of one pool
 *
 * A magazine per class (magazine.h), of which the thread is the owner.  Others
 * come for what is in it when a class is scarce (demand.h), and when the pool is
 * destroyed; they set the cache's alarm, which the owner sees at its next put.
 *
 * Where a class is scarce, and where the thread shall cache none of it, its
 * magazine is empty and has no room, so that its buffers go straight to the
 * depot.
 *
 * A cache outlives its pool if its thread still knows it, and its thread if
 * the pool still does (another thread takes it over, see roster.h): it is freed
 * when both have let go.  That is why an owner that has put a buffer, which others
 * may have taken home and freed the pool, can still look at its magazine.
 *
 * What comes home to a pool that is being destroyed is counted by those calls
 * that say so, and is the caller's to settle (life.h), as its last act.
 */
#ifndef CACHE_H
#define CACHE_H

#include "fence.h"
#include "magazine.h"
#include "pool.h"

struct cache {
	struct bp_fast fast; /* first: the fast paths know this */

	uint64_t remote_hits[BUFPOOL_CLASSES]; /* from another place */
	uint64_t pool_id;      /* no two pools ever share one */
	struct demand *demand; /* the pool's */
	unsigned shard;
	struct berth berth;   /* in the roster */
	unsigned refs;      /* its pool, and its thread */
	unsigned dead;      /* its pool is destroyed */
	unsigned moving;    /* a bit per class: the owner may have idle buffers
	                       of it in its hands that nobody can see */
};

/* Instead of 0 in the alarm of a fenced cache: nobody wants anything, but that is to
   be read again behind a fence.  What others set is 1. */
#define ALARM_FENCE 2

_Static_assert(BUFPOOL_CLASSES <= 32, "a bit for each in an unsigned");

/* One for the calling thread, which is on that CPU: another's that has left it, or a
   new one; NULL if memory is short. */
struct cache *bp_cache_enter(bufpool_t *pool, uint32_t cpu);

/* Its thread has no more use for it: empty it and let go.  How many have to be
   settled with *pool. */
uint64_t bp_cache_disown(struct cache *c, bufpool_t **pool);

/* Let go of a cache; the last reference frees it. */
void bp_cache_unref(struct cache *c);

/* In a child process: the pool's only one, empty, and all counters zero. */
void bp_cache_reset(const bufpool_t *pool, struct cache *c, uint32_t cpu);

/*
 * Move up to n of the owner's buffers of class k to the depot: how many.  Those
 * for which the depot is closed are added to owed, the pool is in *pool.
 */
unsigned bp_cache_spill(struct cache *c, unsigned k, unsigned n,
                        bufpool_t **pool, uint64_t *owed);
void bp_cache_flush(struct cache *c, bufpool_t **pool, uint64_t *owed);

/* The owner has come to a CPU at another place: what is cached goes home. */
void bp_cache_move(bufpool_t *pool, struct cache *c, uint32_t cpu,
                   uint64_t *owed);

/* The owner: may it cache buffers of class k where it is? */
static inline bool cache_may_hold(const bufpool_t *pool, struct cache *c,
                                  unsigned k)
{
	return pool->depth[k] > 0 &&
	       !is_scarce(want_of(c->demand, c->fast.place, k));
}

/*
 * After a put while the alarm is set: see who wants what, empty the magazines
 * of what is scarce, and leave them no room.
 */
void bp_cache_answer(struct cache *c, bufpool_t **pool, uint64_t *owed);

/*
 * Declare class k scarce at a place (demand.h), and move what caches hold of it
 * there to the depot, but one, which is returned if there is any.
 */
struct bp_buf *bp_cache_gather(bufpool_t *pool, unsigned place, unsigned k);

/* The same, with that one too: one of those that were there a moment ago. */
struct bp_buf *bp_cache_collect(bufpool_t *pool, unsigned place, unsigned k);

/* Checkouts go past all caches from now on; the pool's `stopped` is set.  Returns
   do not. */
void bp_cache_divert_all(bufpool_t *pool);

/* Whether one seems to hold any of class k, to who cannot take it. */
bool bp_cache_any(bufpool_t *pool, unsigned k);

/* Take all that is in any cache of a pool, for good: how many. */
uint64_t bp_cache_revoke_all(bufpool_t *pool);

/* The pool lets go of its caches. */
void bp_cache_drop_all(bufpool_t *pool);

/*
 * Add to the pool's sums what threads that are gone have counted: statistics need
 * not look at their caches again.  Others may read meanwhile, and whoever adds may
 * be stopped.  So the sums are made anew, then shown by their version, which says
 * too that the one cache is in; when that counts nothing any more, another version
 * says so.  A reader for whom it has changed reads again.
 */
void bp_cache_fold(bufpool_t *pool);

static inline struct shared_counts *sums_of(struct sums *sums, unsigned version)
{
	return sums->counts[(version + 1) / 2 % 2];
}

static inline struct walk walk_caches(const bufpool_t *pool, enum berths berths)
{
	return bp_walk(&pool->demand->roster, berths);
}

/* What a thread may cache of class k, at a place, is empty and stays so.  (What is
   not cached is moved one by one.) */
static inline bool caches_are_empty(const bufpool_t *pool, unsigned place,
                                    unsigned k)
{
	return pool->depth[k] == 0 ||
	       pool->depot[place * BUFPOOL_CLASSES + k].total == 0 ||
	       is_trusted(want_of(pool->demand, place, k));
}

/*
 * Around each move of more than one idle buffer, or of one that is not on its way
 * out or home: nobody else can see them.  c may be NULL.  A full fence: an owner
 * moves more than one only if it then finds the class plentiful (demand.h).
 */
static inline void move_begin(struct demand *q, struct cache *c, unsigned k)
{
	if (c != NULL)
		ck_pr_fas_uint(&c->moving, c->moving | 1u << k);
	else
		ck_pr_inc_32(&q->klass[k].movers);
	ck_pr_fence_atomic_load();
	ck_pr_fence_atomic();
}

static inline void move_end(struct demand *q, struct cache *c, unsigned k)
{
	ck_pr_fence_release(); /* after they are in sight again */
	if (c != NULL)
		ck_pr_store_uint(&c->moving, c->moving & ~(1u << k));
	else
		ck_pr_dec_32(&q->klass[k].movers);
}

/* How many of class k this cache has handed out more than it got back. */
static inline uint64_t cache_out(const struct cache *c, unsigned k)
{
	const struct bp_magazine *m = &c->fast.magazine[k];

	return ck_pr_load_64(&m->depot_hits) + ck_pr_load_64(&m->stolen) -
	       ck_pr_load_64(&m->offset) - ck_pr_load_64(&m->bottom);
}

#endif
