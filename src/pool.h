/* SPDX-License-Identifier: MIT */
/*
 * pool.h - what a pool is made of
 *
 *     thread ── thread cache   cache.h   a LIFO magazine per class, the
 *                  │                     owner's alone: plain loads and stores
 *               depot          depot.h   per class: lock-free, shared
 *                  │
 *               regions        region.c  the payloads, mapped per class
 *                  │ exhausted
 *               heap           heap.c    malloc, within a budget
 *
 * What several files share is called bp_*, so that the static library takes no
 * names from the programs that link it.
 */
#ifndef POOL_H
#define POOL_H

/* The public names are the only ones that the shared library shows. */
#pragma GCC visibility push(default)
#include <bufpool.h>
#pragma GCC visibility pop

#include <ck_cc.h>
#include <ck_md.h>
#include <ck_pr.h>
#include <sched.h>
#include <stdbool.h>

#include "class-table.h"
#include "depot.h"

struct cache;
struct region;

#define PAGE 4096 /* what payloads are aligned to at least */

/*
 * What a descriptor is doing, in a word that also serves as a magic number:
 * out in class k is STATE_OUT + k.  It is stored with the descriptor's address
 * added, so that neither chance nor a copy makes a handle of ours.
 */
#define STATE_HOME 0x6c7a3100u   /* + class: idle */
#define STATE_OUT 0x6c7a3200u    /* + class: has an owner */
#define STATE_FROZEN 0x6c7a3300u /* + class: has holders */
#define STATE_HEAP 0x80u         /* instead of the class: from the heap */
#define STATE_OUT_HEAP (STATE_OUT + STATE_HEAP)
#define STATE_FROZEN_HEAP (STATE_FROZEN + STATE_HEAP)
#define STATE_UNSURE 0x6c7a3400u /* + class: home, but erase it first; fork.c */
#define STATE_HOME_HEAP (STATE_HOME + STATE_HEAP) /* a free descriptor */

/*
 * A descriptor: what a handle points to, one cache line, apart from the
 * payload, which an overrun thus cannot reach from.  Written by the buffer's
 * owner only.
 */
struct buf {
	bufpool_buf_t pub;    /* the owner's part; first, so that a handle is
	                        its descriptor */
	struct bufpool *pool; /* home */
	void *base;           /* what pub.data was, and must be on return */
	size_t asked;         /* the size of the request */
	size_t frozen;        /* the largest len it was frozen with: under
	                         BUFPOOL_WIPE_USED the least to erase */
	uint32_t state;       /* see buf_state() */
	union {
		uint32_t refs; /* frozen: references */
		uint32_t link; /* free heap descriptors; they are popped one at
		                  a time, so a stale link is not followed */
	};
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct buf) == 64, "a descriptor is one cache line");

static inline uint32_t buf_state(const struct buf *d)
{
	return d->state - (uint32_t) (uintptr_t) d;
}

/* From one state to another of the same class: one step in memory. */
static inline void buf_change_state(struct buf *d, uint32_t from, uint32_t to)
{
	d->state += to - from;
}

static inline bool buf_is(const struct buf *d, uint32_t state)
{
	return d->state == state + (uint32_t) (uintptr_t) d;
}

/* The state of a handle that may be none of ours, nor aligned as one: read in a
   way that no sanitizer takes offence at. */
static inline uint32_t handle_state(const void *handle)
{
	const char *state = (const char *) handle + offsetof(struct buf, state);

	return ck_pr_load_32((const uint32_t *) (const void *) state) -
	       (uint32_t) (uintptr_t) handle;
}

static inline void buf_set_state(struct buf *d, uint32_t state)
{
	d->state = state + (uint32_t) (uintptr_t) d;
}

/* Statistics that threads without a cache share; by atomic adds. */
struct shared_counts {
	uint64_t depot_hits;
	uint64_t stolen;
	uint64_t remote_hits;
	uint64_t returns;
};

/* A quantity and the most it has been. */
struct gauge {
	uint64_t now;
	uint64_t peak;
};

/* The buffers that the heap stands in for; see heap.c. */
#define HEAP_CHUNKS 18
struct heap {
	uint64_t free;                        /* a stack of free descriptors */
	struct buf *chunk[HEAP_CHUNKS];       /* all descriptors */
	uint64_t out;                         /* live buffers */
	uint64_t bytes;                       /* their capacities */
	uint64_t served[BUFPOOL_CLASSES + 1]; /* checkouts, oversize last */
};

struct bufpool {
	/* Read by every call, written by none. */
	uint64_t id; /* no two pools of a process ever share one */
	enum bufpool_wipe wipe;
	enum bufpool_exhausted exhausted;
	size_t heap_limit;
	unsigned shards;                 /* of each depot */
	bool fenced;                     /* no membarrier: see cache.h */
	uint32_t total[BUFPOOL_CLASSES]; /* buffers */
	unsigned depth[BUFPOOL_CLASSES]; /* of a thread's magazine */
	unsigned flags;
	unsigned places; /* see place.h; more than one under LOCAL only */
	unsigned cpus;   /* entries of place_of_cpu */
	uint8_t *place_of_cpu;
	uint8_t *near;          /* places times places */
	struct buf *descriptor; /* all; by class, then by place */
	uint32_t *link;         /* the depots' */
	unsigned regions;
	struct region *region; /* where the payloads lie */
	void *(*attach)(void *arg, const bufpool_region_t *region);
	void (*detach)(void *arg, const bufpool_region_t *region, void *cookie);
	void *attach_arg;
	size_t meta_len;             /* of the mapping this lies in */
	struct waitq *waitq;         /* see wait.h */
	struct bufpool **registered; /* see fork.c */

	/* Written when a thread first comes. */
	struct cache *caches __attribute__((aligned(CK_MD_CACHELINE)));
	unsigned next_shard;
	unsigned closing;

	/* Written at the depot's pace, not at the cache's. */
	struct gauge bufs __attribute__((aligned(CK_MD_CACHELINE)));
	struct gauge bytes;
	/* What keeps the memory.  It starts as the number of buffers, and one
	   more for the pool not being destroyed; live heap buffers come on
	   top.  Destroy takes off that one and what it finds at home, and each
	   return that follows takes off its buffer. */
	uint64_t left;
	struct shared_counts counts[BUFPOOL_CLASSES];
	struct heap heap;

	struct depot depot[]; /* places times BUFPOOL_CLASSES */
};

static inline struct depot *pool_depot(bufpool_t *pool, unsigned place,
                                       unsigned k)
{
	return &pool->depot[place * BUFPOOL_CLASSES + k];
}

/* The place that the calling thread is at, for the moment. */
static inline unsigned place_here(const bufpool_t *pool)
{
	unsigned cpu;

	if (CK_CC_LIKELY(pool->places == 1))
		return 0;
	/* No system call: glibc asks its rseq area, or the vdso.  (-1 if it
	   does not know, and CPUs that came later, count as at the first.) */
	cpu = (unsigned) sched_getcpu();
	return cpu < pool->cpus ? pool->place_of_cpu[cpu] : 0;
}

/* The place that a buffer of class k belongs to. */
static inline unsigned place_of(bufpool_t *pool, const struct buf *d,
                                unsigned k)
{
	unsigned place = 0;

	while (place + 1 < pool->places) {
		const struct depot *depot = pool_depot(pool, place, k);

		if ((uintptr_t) d - (uintptr_t) depot->bufs <
		    depot->total * sizeof(*d))
			break;
		place++;
	}
	return place;
}

/* The class that serves size, or BUFPOOL_CLASSES. */
static inline unsigned bp_class_of(size_t size)
{
	unsigned k = 0;

	while (k < BUFPOOL_CLASSES && class_size[k] < size)
		k++;
	return k;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* What every buffer of a class is aligned to in a region aligned to it. */
static inline size_t class_alignment(size_t size)
{
	const size_t huge_page = 2 * 1024 * 1024;

	return min_size(size & -size, huge_page);
}

/* Change a gauge by delta, modulo 2^64, and keep its peak. */
void bp_gauge_add(struct gauge *gauge, uint64_t delta);

/*
 * slow.c: what the fast paths of checkout.c leave over.
 *
 * bp_checkout_slow: a checkout of class k, in full.
 * bp_checkout_unsure: take out a buffer whose state is not STATE_HOME.
 * bp_checkout_other: above the largest class, or an error.
 * bp_return_slow: send home a buffer that is erased and marked STATE_HOME.
 * bp_return_full: the same, into a cache whose magazine may be full.
 * bp_return_other: a heap buffer, or a handle that is misused.
 * bp_return_spoilt: an owner has changed what it must not.
 */
bufpool_buf_t *bp_checkout_slow(bufpool_t *pool, unsigned k, size_t len);
bufpool_buf_t *bp_checkout_unsure(struct buf *d, unsigned k);
bufpool_buf_t *bp_checkout_other(bufpool_t *pool, size_t size);
void bp_return_slow(struct buf *d, unsigned k);
void bp_return_full(struct cache *c, struct buf *d, unsigned k);
void bp_return_other(struct buf *d);
void bp_return_spoilt(struct buf *d, size_t capacity);

/* checkout.c: up to n of what this thread has cached, in one step: how many.  None
   where the fast paths may not be used. */
size_t bp_checkout_bulk(bufpool_t *pool, size_t size, bufpool_buf_t **bufs,
                        size_t n);

/* checkout.c: erase a buffer that nobody holds any more, and send it home. */
void bp_frozen_return(struct buf *d);

/* Pool memory of class k for len bytes, or NULL; errno is left alone. */
bufpool_buf_t *bp_take(bufpool_t *pool, unsigned k, size_t len);

/* wait.c: the same, but sleeps for want of a buffer; may set errno. */
bufpool_buf_t *bp_wait(bufpool_t *pool, unsigned k, size_t len,
                       const struct timespec *timeout);

/* n buffers, or destroy itself, are done with a pool; the last one frees it. */
void bp_pool_settle(bufpool_t *pool, uint64_t n);

/*
 * region.c: memory for what the library keeps for itself, zeroed and populated;
 * or NULL.  Not from malloc: a thread that is stopped inside of that can hold
 * up others, and a thread's first return to a pool makes its cache.  Guarded is
 * what overruns shall not reach.
 */
void *bp_guarded_map(size_t len);
void bp_guarded_unmap(void *base, size_t len);
void *bp_map(size_t len);
void bp_unmap(void *p, size_t len);

/*
 * heap.c: a buffer of the class that serves size, or of exactly size bytes if
 * none does; NULL and errno if the budget or the memory is used up.
 */
bufpool_buf_t *bp_heap_checkout(bufpool_t *pool, size_t size, size_t alignment);
void bp_heap_return(struct buf *d);
void bp_heap_release(bufpool_t *pool); /* with its pool */

/* In a child: free what is not out, and say what is. */
void bp_heap_remake(bufpool_t *pool, uint64_t *bufs, uint64_t *asked);

/* fork.c: a pool is to be known to children; false if memory is short. */
bool bp_fork_enter(bufpool_t *pool);
void bp_fork_leave(bufpool_t *pool);

/*
 * misuse.c: one line that names the public call and the reason, then abort.
 * The second finds the reason in the state, the third in the owner's part.
 */
_Noreturn void bp_misuse(const char *call, const void *handle,
                         const char *reason);
_Noreturn void bp_misuse_handle(const char *call, const struct buf *d);
_Noreturn void bp_misuse_owner(const char *call, const struct buf *d,
                               size_t capacity);

/* What a buffer has to have, whatever its owner says. */
static inline size_t buf_capacity(const struct buf *d)
{
	unsigned k = bp_class_of(d->asked);

	return k < BUFPOOL_CLASSES ? class_size[k] : d->asked;
}

/* How much to erase of a buffer that comes in, if only what was used. */
static inline size_t buf_used(struct buf *d)
{
	size_t used = d->pub.len > d->frozen ? d->pub.len : d->frozen;

	d->frozen = 0;
	return used;
}

/* What an owner must not have changed when its buffer comes in. */
static inline void check_owner(const char *call, const struct buf *d,
                               size_t capacity)
{
	if (CK_CC_UNLIKELY((d->pub.len > capacity) | (d->pub.data != d->base) |
	                   (d->pub.capacity != capacity)))
		bp_misuse_owner(call, d, capacity);
}

#endif
