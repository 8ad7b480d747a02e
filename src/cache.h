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
	uint64_t offset;     /* see magazine_returns() */
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
	const bufpool_t *pool; /* whose cache this is; NO_POOL if the fast
	                          paths may not use it */
	uint64_t spare;        /* bytes that the pool's gauge stands for and
	                          that are not asked for at present */
	uint64_t slack;        /* as many as may be: what the magazines hold */
	uint8_t alarm;         /* a put is to look around; others set it */
	bool fenced;

	/* Now and then. */
	uint64_t pool_id;    /* no two pools ever share one */
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

/* No pool is here, not even the one that a mistaken caller has none of. */
#define NO_POOL ((const bufpool_t *) -1)

/* What a thread knows. */
struct thread {
	struct cache *cache;  /* the last one used; never NULL */
	struct cache **table; /* all: open addressing by pool_id */
	unsigned slots;       /* of the table: 0 or a power of two */
	bool exited;          /* past its cleanup: caches no more */
};

extern __thread struct thread bp_thread;

/* This thread's cache of the pool, if it has one already. */
struct cache *bp_cache_own(const bufpool_t *pool);

/* The same, made if need be; NULL if it can have none. */
struct cache *bp_cache_find(bufpool_t *pool);

/* Take what magazine_take() leaves, the contested part. */
struct buf *bp_magazine_take_contested(struct magazine *m);

/* After a put of class k while the alarm is set: somebody wants to know. */
void bp_cache_put_alarm(struct cache *c, unsigned k);

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

/* Settle with the pool's gauge of bytes, if spare is no longer fair. */
void bp_cache_charge(bufpool_t *pool, struct cache *c);

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

/*
 * Add to what only the owner writes and others read.  On x86 one instruction:
 * atomic to readers, who see the old or the new, though not to other writers.
 */
static inline void owner_add(uint64_t *counter, uint64_t n)
{
#if defined(__x86_64__) && !CK_USE_CC_BUILTINS
	__asm__ __volatile__("addq %1, %0" : "+m"(*counter) : "er"(n) : "cc");
#else
	ck_pr_store_64(counter, ck_pr_load_64(counter) + n);
#endif
}

/*
 * Read, after owner_fence(), a word that others write.  Plainly: the fence keeps
 * the compiler from moving or repeating it, and it can then be compared where
 * it lies, which ck_pr_load() does not allow.
 */
#if CK_USE_CC_BUILTINS
#define OWNER_SEE(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#else
#define OWNER_SEE(p) (*(p))
#endif

/* Take the n buffers below bottom; n is 1, or no more than there were a moment ago.
   False if there is none, or one of them may be contested. */
static inline bool magazine_withdraw(struct magazine *m, uint64_t n,
                                     bool fenced)
{
	uint64_t b = m->bottom - n;

	ck_pr_store_64(&m->bottom, b);
	owner_fence(fenced);
	if (CK_CC_UNLIKELY(b < OWNER_SEE(&m->limit))) {
		ck_pr_store_64(&m->bottom, b + n);
		return false;
	}
	return true;
}

/* Take the buffer of class k that was put last; false if all that there are
   are contested. */
static inline bool magazine_take(struct cache *c, unsigned k, struct buf **d,
                                 bool fenced)
{
	struct magazine *m = &c->magazine[k];
	uint64_t b = m->bottom - 1;

	if (!magazine_withdraw(m, 1, fenced))
		return false;
	*d = m->slot[SLOT(b)];
	return true;
}

/* The owner has written n slots from bottom on: now they can be seen. */
static inline void magazine_show(struct cache *c, unsigned k, uint64_t n,
                                 bool fenced)
{
	/* The slots, and that the buffers are erased, before a thief can see
	   them; from here on the pool may go at any time. */
	ck_pr_fence_release();
	owner_add(&c->magazine[k].bottom, n);
	owner_fence(fenced);
	if (CK_CC_UNLIKELY(OWNER_SEE(&c->alarm) != 0))
		bp_cache_put_alarm(c, k);
}

/* Put a buffer of class k; false if the magazine may be full. */
static inline bool magazine_put(struct cache *c, unsigned k, struct buf *d,
                                bool fenced)
{
	struct magazine *m = &c->magazine[k];
	uint64_t b = m->bottom;

	if (CK_CC_UNLIKELY(b == m->room))
		return false;
	ck_pr_store_ptr(&m->slot[SLOT(b)], d);
	magazine_show(c, k, 1, fenced);
	return true;
}

/* Around each move of buffers that are idle before and after it; c may be NULL:
   a thread without a cache has but one in its hands. */
static inline void move_begin(struct cache *c)
{
	if (c != NULL)
		ck_pr_store_uint(&c->moving, 1);
	ck_pr_fence_store_atomic(); /* before they are out of sight */
}

static inline void move_end(struct cache *c)
{
	ck_pr_fence_release(); /* after they are in sight again */
	if (c != NULL)
		ck_pr_store_uint(&c->moving, 0);
}

/*
 * How many buffers were returned through this magazine.  Each return moves
 * bottom up and each hit moves it down, so the fast paths count the hits only;
 * whatever else moves bottom (or does not, though it should) has it evened out
 * in offset.
 */
static inline uint64_t magazine_returns(const struct magazine *m)
{
	return ck_pr_load_64(&m->offset) + ck_pr_load_64(&m->hits) +
	       ck_pr_load_64(&m->bottom);
}

/*
 * Whether the pool's gauge of bytes may stay as it is: it stands for all that
 * is asked for (or spare would have wrapped around), and for not much more.
 */
static inline bool spare_is_fair(const struct cache *c, uint64_t spare)
{
	return spare <= c->slack;
}

#endif
