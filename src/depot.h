/* SPDX-License-Identifier: MIT */
/*
 * depot.h - the shared level: the idle buffers of a class that no thread
 * caches.
 *
 * A few stacks, the shards, each on a cache line of its own.  A thread gives
 * to its own shard and takes from it first, then from the others; so threads
 * on different CPUs rarely meet on a line.  Stacks, not rings: the buffer that
 * came home last is still in some cache.
 *
 * The depots of hardened pools are queues instead, first in, first out, for all
 * threads: so that what came home is not used again soon.
 *
 * All calls are non-blocking, from any thread (stack.h and queue.h have the
 * arguments).
 */
#ifndef DEPOT_H
#define DEPOT_H

#include "buf.h"
#include "queue.h"

#define DEPOT_SHARDS 8 /* at most */

/*
 * As a shard: buffers whose pages bufpool_trim() has given back to the system.
 * They are taken when there is nothing else, and looked for by name.
 */
#define DEPOT_COLD UINT32_MAX

struct depot {
	struct bp_buf *bufs; /* all descriptors of the class; its index is a
	                     buffer's number */
	uint32_t *next;   /* the links, apart: so that a batch passes through
	                     without touching a descriptor */
	uint32_t most;    /* so many there may be; */
	uint32_t total;   /* and are */
	unsigned shards;       /* in use, a power of two; a further one, behind
	                    these, is the cold one */
	struct queue *queue;   /* hardened: two instead of the stacks, the second
	                       one for what is cold; else NULL */
	struct depot_shard {
		uint64_t head;
		uint64_t spare; /* see account.h */
		char pad[CK_MD_CACHELINE - 2 * sizeof(uint64_t)];
	} shard[DEPOT_SHARDS + 1] __attribute__((aligned(CK_MD_CACHELINE)));
};

/* Start with none, and room for most of them. */
void bp_depot_init(struct depot *depot, struct bp_buf *bufs, uint32_t *next,
                   uint32_t most, unsigned shards);

/* Have the tables of n more there, from bufs on; false if memory is short. */
bool bp_depot_populate(const struct depot *depot, const struct bp_buf *bufs,
                       uint32_t n);

/* It has n more, from bufs on, of which the first `idle` are in now.  Nobody else
   adds any. */
void bp_depot_add(struct depot *depot, struct bp_buf *bufs, uint32_t n,
                  uint32_t idle);

/* What a queue of a depot for so many buffers needs besides. */
#define DEPOT_QUEUES 2

static inline size_t depot_slots(size_t total)
{
	return DEPOT_QUEUES * queue_slots(total);
}

/* Of one that was just started, with nothing in: make it first in, first out, by these. */
void bp_depot_harden(struct depot *depot, struct queue *queue,
                     ck_ring_buffer_t *slot);

/* Forget what is in, and whether it is closed; nobody else is there. */
void bp_depot_clear(struct depot *depot);

/* Take up to n buffers, the warmest first, hardened those that came home first;
   returns how many.  From DEPOT_COLD only if that is the shard. */
unsigned bp_depot_take(struct depot *depot, unsigned shard, struct bp_buf **out,
                       unsigned n);

struct bp_buf *bp_depot_take_one(struct depot *depot, unsigned shard);

/* The same, of a hardened one. */
static inline struct bp_buf *depot_take_first(struct depot *depot, unsigned shard)
{
	uint32_t number = queue_take(&depot->queue[shard == DEPOT_COLD]);

	return CK_CC_LIKELY(number != STACK_NIL) ? &depot->bufs[number] : NULL;
}

/* A hardened one has some in DEPOT_COLD: these have been idle longest. */
static inline bool depot_is_cold(const struct depot *depot)
{
	return bp_queue_see(&depot->queue[1]) != STACK_NIL;
}

/* One that is in, DEPOT_COLD too, without taking it; NULL if none is. */
struct bp_buf *bp_depot_see_one(const struct depot *depot);

/*
 * Give n > 0 buffers, the warmest first, in one step (hardened: one by one, the
 * first one first).  Once they can be seen the depot is not touched again, or only
 * as long as its being open keeps the pool: by then another thread may have freed
 * it.  Returns 0; or, if it is closed, how many are to be settled.
 */
uint64_t bp_depot_give(struct depot *depot, unsigned shard,
                       struct bp_buf *const *bufs, unsigned n);

/*
 * What an open depot counts for, besides the buffers: a hardened one is not closed
 * before those are through that were in the middle of giving.
 */
#define DEPOT_OPEN DEPOT_QUEUES

/* Refuse what is given from now on; returns how many are to be settled, of the
   buffers that were in and of what it counted for.  Others see to the rest. */
uint64_t bp_depot_close(struct depot *depot);

/* Somebody may have one in hand, to put it where it is found sooner; see queue.h. */
static inline bool depot_is_moving(const struct depot *depot)
{
	return depot->queue != NULL && (queue_is_moving(&depot->queue[0]) ||
	                                queue_is_moving(&depot->queue[1]));
}

static inline struct depot_shard *depot_shard(struct depot *depot,
                                              unsigned shard)
{
	return &depot->shard[shard & (depot->shards - 1)];
}

/* A number that changes with every take and give. */
uint64_t bp_depot_stamp(const struct depot *depot);

#endif
