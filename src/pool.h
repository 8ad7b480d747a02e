/* SPDX-License-Identifier: MIT */
/*
 * pool.h - what a pool is made of
 *
 * The files of src/ in layers, from the bottom up.  Each uses only what stands
 * above it here (tests/layers.sh sees to it), but for bp_put_alarm(), which the
 * fast paths call when others want something of a cache.
 *
 *     cancel map fence stack queue track wipe blank   memory, words, bytes
 *     name misuse        what pools are called; the line that stops a program
 *     buf erase          a buffer's descriptor and its states; erasing it
 *     magazine           a deque that one thread owns an end of
 *     depot              the shared level: lock-free, per class and place
 *     account            what is out, and the most that was
 *     place cpu          NUMA: which nodes, by hwloc; where a thread is
 *     room               how much memory there is left for us
 *     region             where the payloads lie
 *     heap               what stands in for them
 *     roster             the caches of a pool, by number
 *     demand             scarcity, and who sleeps for it
 *     pool               all of these together
 *     atlas              where in a pool an address lies
 *     registry           all pools
 *     cache              what one thread caches of one pool: spill, gather
 *     life               how a pool ends
 *     grow               how it comes to its regions
 *     estate             what a thread has, and its end
 *     thread             which caches that are
 *     give take          a buffer back, and out of all that
 *     checkout           the calls that have fast paths; generated
 *     fork               pools in a child process
 *     create api event frozen stats print trim        the other calls
 */
#ifndef POOL_H
#define POOL_H

#include "account.h"
#include "buf.h"
#include "cpu.h"
#include "demand.h"
#include "depot.h"
#include "heap.h"
#include "name.h"

struct places;
struct region;
struct slot;

/* What a class has of the pool's address space at a place, behind its first
   regions. */
struct plot {
	uintptr_t next, end; /* what is free for more; */
	uintptr_t taken;     /* up to here by a growth that goes on, or 0 */
	uint32_t laid;       /* of its descriptors: a region has them */
};

/* Statistics of threads without a cache, by atomic adds; and of those that are
   gone. */
struct shared_counts {
	uint64_t cache_hits;
	uint64_t depot_hits;
	uint64_t stolen;
	uint64_t remote_hits;
	uint64_t returns; /* less cache_hits */
};

/* Checkouts that found none; by atomic adds. */
struct unmet {
	uint64_t exhausted; /* and got none */
	uint64_t waits;
	uint64_t wait_ns;
};

/* Of those that are gone; see bp_cache_fold(). */
struct sums {
	unsigned busy;    /* somebody is at it */
	unsigned version; /* odd: leaving is in, though it is counted still */
	struct cache *leaving;
	struct shared_counts counts[2][BUFPOOL_CLASSES];
};

struct bufpool_pool {
	/* Read by every call, written by none. */
	uint64_t id; /* no two pools of a process ever share one */
	enum bufpool_wipe wipe;
	enum bufpool_exhausted exhausted;
	unsigned shards;                 /* of each depot */
	bool fenced;                     /* no membarrier: see fence.h */
	bool hardened;                   /* BUFPOOL_HARDENED */
	uint32_t total[BUFPOOL_CLASSES]; /* buffers; it may grow, */
	uint32_t most[BUFPOOL_CLASSES];  /* up to this */
	unsigned depth[BUFPOOL_CLASSES]; /* of a thread's magazine */
	unsigned flags;
	unsigned stopped; /* no more checkouts; written once, */
	unsigned closing; /* as this: destroyed */
	unsigned places; /* see place.h; more than one under LOCAL only */
	unsigned cpus;   /* entries of place_of_cpu */
	uint8_t *place_of_cpu;
	uint8_t *near;             /* places times places */
	struct bp_buf *descriptor; /* all; by class, then by place */
	uint32_t *link;            /* the depots' */
	struct queue *queue;       /* the depots' too, if it is hardened, and */
	ck_ring_buffer_t *queue_slot; /* these': those not given to one yet */
	struct plot *plot;         /* one for each depot */
	struct places *ground;     /* where regions come from */
	size_t region_max;
	unsigned regions_most, laid; /* how many there may be; are begun with; */
	unsigned regions;            /* are the pool's */
	struct region *region; /* where the payloads lie */
	struct region **by_address; /* see atlas.h */
	unsigned charted;            /* regions, there */
	void *(*attach)(void *arg, const bufpool_region_t *region);
	void (*detach)(void *arg, const bufpool_region_t *region, void *cookie);
	void *attach_arg;
	size_t meta_len; /* of what is mapped for this and its tables */
	char name[NAME_ROOM];
	struct demand *demand;
	struct slot *registered; /* see registry.h */
	unsigned slot;           /* its number */

	/* Written past the caches, and seldom there. */
	struct account account __attribute__((aligned(CK_MD_CACHELINE)));
	/* What keeps the memory.  It starts as the number of buffers, what
	   each depot counts for while it is open, and one more for the pool
	   not being destroyed; live heap buffers come on top.  Destroy takes
	   off that one and what it finds at home, and each return that follows
	   takes off its buffer. */
	uint64_t left __attribute__((aligned(CK_MD_CACHELINE)));
	struct shared_counts counts[BUFPOOL_CLASSES];
	struct unmet unmet[BUFPOOL_CLASSES];
	uint64_t refused[BUFPOOL_CLASSES]; /* see grow.c; 0: not */
	unsigned growing;                  /* by somebody */
	struct sums sums;
	struct heap heap;

	struct depot depot[]; /* places times BUFPOOL_CLASSES */
};

static inline struct depot *pool_depot(bufpool_t *pool, unsigned place,
                                       unsigned k)
{
	return &pool->depot[place * BUFPOOL_CLASSES + k];
}

static inline struct plot *pool_plot(bufpool_t *pool, unsigned place, unsigned k)
{
	return &pool->plot[place * BUFPOOL_CLASSES + k];
}

/* The place that a CPU is at; CPUs that came later count as at the first. */
static inline unsigned place_of_cpu(const bufpool_t *pool, uint32_t cpu)
{
	return cpu < pool->cpus ? pool->place_of_cpu[cpu] : 0;
}

/* The place that the calling thread is at, for the moment. */
static inline unsigned place_here(const bufpool_t *pool)
{
	return CK_CC_LIKELY(pool->places == 1)
	               ? 0
	               : place_of_cpu(pool, current_cpu());
}

/* ------------------------------------------------------------------ misuse */

/* Stop: something is wrong with a buffer of ours. */
_Noreturn void bp_misuse_of(const char *call, const struct bp_buf *d,
                            const char *reason);

/* Stop: it is not as check_handle() wants it. */
_Noreturn void bp_misuse_spoilt(const char *call, const struct bp_buf *d,
                                uint32_t state);

/* The handle is of that state, and data, len and capacity are as they must be;
   or else that is misuse of the call. */
static inline void check_handle(const char *call, const struct bp_buf *d,
                                uint32_t state)
{
	if (CK_CC_UNLIKELY(handle_state(d) != state || !buf_is_sealed(d) ||
	                   d->pub.data != d->base ||
	                   d->pub.capacity != buf_capacity(d) ||
	                   d->pub.len > d->pub.capacity))
		bp_misuse_spoilt(call, d, state);
}

/* Stop: the handle is not of the state that the call wants. */
_Noreturn void bp_misuse_handle(const char *call, const void *handle);

#endif
