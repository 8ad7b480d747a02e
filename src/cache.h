/* SPDX-License-Identifier: MIT */
/*
 * cache.h - the level in front: what one thread caches of one pool
 *
 * A magazine per class: a deque of idle buffers, of which the owner (the
 * thread) works at one end with plain loads and stores, and others may take
 * from the other end.  Two kinds of others: a checkout that found no idle
 * buffer elsewhere steals, so that none is stranded in the cache of a thread
 * that sleeps; and bufpool_destroy() empties all caches of its pool.
 *
 * Indexes only grow (64 bits do not wrap); index i lives in slot i modulo
 * MAGAZINE_SLOTS.  What is cached has the indexes [top, bottom).
 *
 *                top          limit                bottom
 *     ─ ─ ─ ─ ─ ─ ┬─────────────┬────────────────────┬ ─ ─ ─ ─
 *                 │  contested  │   the owner's      │
 *     ─ ─ ─ ─ ─ ─ ┴─────────────┴────────────────────┴ ─ ─ ─ ─
 *                 → thieves                  owner ⇄
 *
 * Below limit, everybody (the owner too) takes with a compare-and-swap that
 * moves top, which never passes limit.  At and above limit the owner takes by
 * moving bottom, without; so the one comparison also tells an empty magazine.
 * The question is how a thief raises limit against an owner who does not
 * look.  Dekker's way: the owner writes bottom, then reads limit; the thief
 * writes limit, then reads bottom; one of them sees the other, provided that
 * neither's write lingers in a store buffer while it reads.  The owner would
 * need a fence between for that, on each operation.  Instead the thief pays
 * for both, with membarrier(), which makes every running thread of the process
 * pass a full fence (the owner only keeps the compiler from reordering).
 *   - the owner wrote bottom before that fence: the thief sees it, and takes
 *     nothing at or above it;
 *   - or it reads limit after: it sees it raised, and goes the slow way.
 * A raised limit may stay raised: owner's takes in the contested part move top
 * up to it.  Nobody waits for anybody, and a thread stopped anywhere hides at
 * most the buffers that it is moving.
 *
 * Destroy raises limit to LIMIT_REVOKED and sets the cache's alarm.  An owner
 * that puts sees that (or destroy sees the put, for the same reason as above),
 * and takes its buffers out again to count them as home itself.  Who waits for
 * a buffer (wait.h) sets the alarm as well, to be told of puts.
 *
 * Where the system has no membarrier(), pools are `fenced`: owners pass a real
 * fence on each operation.  That is decided once, when a pool is created.
 *
 * A cache outlives its pool if its thread still knows it, and its thread if
 * the pool still does (another thread adopts it): it is freed when both have
 * let go.  That is why an owner that has put a buffer, which others may have
 * taken home and freed the pool, can still look at its magazine.
 */
#ifndef CACHE_H
#define CACHE_H

#include "pool.h"

#define SLOT(i) ((i) & (MAGAZINE_SLOTS - 1))
#define LIMIT_REVOKED UINT64_MAX
#define INDEX_START 1 /* so that bottom - 1 does not wrap */

struct magazine {
	/* Written by the owner. */
	uint64_t bottom;
	uint64_t room;       /* bottom may grow to here: a top seen earlier
	                        plus the depth */
	uint64_t hits;       /* checkouts from this magazine */
	uint64_t returns;    /* buffers returned through this cache */
	uint64_t depot_hits; /* checkouts from further away */
	uint64_t stolen;
	uint64_t remote_hits; /* those of all from another place */

	/* Written by thieves. */
	uint64_t top __attribute__((aligned(CK_MD_CACHELINE)));
	uint64_t limit;

	struct buf *slot[MAGAZINE_SLOTS]
		__attribute__((aligned(CK_MD_CACHELINE)));
};

struct cache {
	/* The owner's, on each operation. */
	uint64_t pool_id; /* whose cache this is */
	uint64_t asked;   /* bytes asked for, of buffers out by this cache: a
	                     sum modulo 2^64, as buffers checked out by one
	                     thread are returned by another */
	uint64_t charged; /* the part of the pool's gauge that stands for
	                     asked and for what is cached */
	uint64_t slack;   /* bytes that its magazines can hold */
	bool fenced;
	unsigned alarm; /* a put is to look around; others set it */

	/* Now and then. */
	struct waitq *waitq; /* the pool's */
	unsigned shard;
	unsigned place;     /* all that is cached belongs there; see place.h */
	unsigned refs;      /* its pool, and its thread */
	unsigned owned;     /* has a thread */
	unsigned dead;      /* its pool is destroyed */
	unsigned moving;    /* the owner may have idle buffers in its hands that
	                       nobody can see */
	struct cache *next; /* of the same pool; never changes */
	struct magazine magazine[BUFPOOL_CLASSES]
		__attribute__((aligned(CK_MD_CACHELINE)));
};

/* What a thread knows. */
struct thread {
	struct cache *cache;  /* the last one used; never NULL */
	struct cache **table; /* all: open addressing by pool_id */
	unsigned slots;       /* of the table: 0 or a power of two */
	bool exited;          /* past its cleanup: caches no more */
};

extern __thread struct thread bp_thread;

/* This thread's cache of the pool; NULL if it has none and can have none. */
struct cache *bp_cache_find(bufpool_t *pool);

/* Take what magazine_take() leaves, the contested part. */
struct buf *bp_magazine_take_contested(struct magazine *m);

/* After a put while the alarm is set: somebody wants to know of it. */
void bp_cache_put_alarm(struct cache *c, struct magazine *m);

/* Set the alarm in all caches of a pool; false if a put may not see it. */
bool bp_cache_alarm_all(bufpool_t *pool);

/* How many buffers are in; exact for the owner if nobody steals. */
uint64_t bp_magazine_count(const struct magazine *m);

/* Make room for up to depth buffers, as far as thieves have left it. */
void bp_magazine_make_room(struct magazine *m, unsigned depth);

/* Move up to n of the owner's buffers of class k to the depot: how many. */
unsigned bp_cache_spill(struct cache *c, unsigned k, unsigned n);

/* Take up to n idle buffers of class k from the caches of others at a place. */
unsigned bp_cache_steal(bufpool_t *pool, struct cache *thief, unsigned place,
                        unsigned k, struct buf **out, unsigned n);

/* The owner has come to another place: what is cached goes home. */
void bp_cache_move(struct cache *c, unsigned place);

/* A number that changes when buffers of class k come into or leave caches. */
uint64_t bp_cache_stamp(const bufpool_t *pool, unsigned k);

/* Whether another thread is moving idle buffers, which none can see now. */
bool bp_cache_moving(const bufpool_t *pool, const struct cache *self);

/* Settle with the pool's gauges: bufs buffers more are out of the depot, and
   whatever the cache's bytes have become. */
void bp_cache_charge(bufpool_t *pool, struct cache *c, uint64_t bufs);

/* Take all that is in any cache of a pool, for good: how many. */
uint64_t bp_cache_revoke_all(bufpool_t *pool);

/* In a child process: empty, and all counters zero. */
void bp_cache_reset(const bufpool_t *pool, struct cache *c);

/* Let go of a cache; the last reference frees it. */
void bp_cache_unref(struct cache *c);

/* Make ready for asymmetric fences; false: pools have to be fenced. */
bool bp_barrier_init(void);

/* Between a write and a read of an owner that a thief must see in order. */
static inline void owner_fence(bool fenced)
{
	if (CK_CC_UNLIKELY(fenced))
		ck_pr_fence_memory();
	else
		ck_pr_barrier(); /* membarrier() does the rest */
}

/* Take the buffer that was put last; false if all there are are contested. */
static inline bool magazine_take(struct magazine *m, struct buf **d,
                                 bool fenced)
{
	uint64_t b = m->bottom - 1;

	ck_pr_store_64(&m->bottom, b);
	owner_fence(fenced);
	if (CK_CC_UNLIKELY(b < ck_pr_load_64(&m->limit))) {
		ck_pr_store_64(&m->bottom, b + 1);
		return false;
	}
	*d = m->slot[SLOT(b)];
	return true;
}

/* Put a buffer; false if the magazine may be full. */
static inline bool magazine_put(struct cache *c, struct magazine *m,
                                struct buf *d)
{
	uint64_t b = m->bottom;

	if (CK_CC_UNLIKELY(b == m->room))
		return false;
	ck_pr_store_ptr(&m->slot[SLOT(b)], d);
	/* The slot, and that the buffer is erased, before a thief can see it;
	   from here on the pool may go at any time. */
	ck_pr_fence_release();
	ck_pr_store_64(&m->bottom, b + 1);
	owner_fence(c->fenced);
	if (CK_CC_UNLIKELY(ck_pr_load_uint(&c->alarm) != 0))
		bp_cache_put_alarm(c, m);
	return true;
}

/* Around each move of buffers that are idle before and after it. */
static inline void move_begin(struct cache *c)
{
	if (c != NULL)
		ck_pr_store_uint(&c->moving, 1);
	ck_pr_fence_store_atomic(); /* before they are out of sight */
}

static inline void move_end(struct cache *c)
{
	ck_pr_fence_release(); /* after they are in sight again */
	ck_pr_store_uint(&c->moving, 0);
}

/* Write what only the owner writes and others read. */
static inline void owner_set(uint64_t *counter, uint64_t n)
{
	ck_pr_store_64(counter, n);
}

static inline void owner_count(uint64_t *counter)
{
	owner_set(counter, *counter + 1);
}

/*
 * Whether the pool's gauge of bytes may stay as it is while the cache has that
 * much asked for: it stands for all of it, and for no more on top than a full
 * cache would hold.
 */
static inline bool cache_is_charged(const struct cache *c, uint64_t asked)
{
	return c->charged - asked <= c->slack; /* modulo 2^64: both at once */
}

#endif
