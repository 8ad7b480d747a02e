/* SPDX-License-Identifier: MIT */
/*
 * queue.h - a lock-free queue of numbers, first in, first out
 *
 * A ck_ring, of which only the half that takes is used as it comes.  Its producers
 * among each other wait: each spins until all that began before it are through, and
 * one that is preempted holds up the others for its time slice, or for good.  So
 * here there is one producer at a time, who has the lock, for which nobody waits:
 * who does not get it pushes on a stack (stack.h) instead, the overflow, and whoever
 * gets it next brings that into the ring first.  Who takes looks into the ring, then
 * on that stack.
 *
 * First in, first out, exactly, but among those who give at the same time as
 * another, or while one is stopped with the lock in its hands.
 *
 * Non-blocking: a thread stopped anywhere hides at most what it is giving, and one
 * more, which it brings from the overflow into the ring; it says that it does.
 *
 * Closing. What is given can be seen before the lock is given back, and who sees it
 * may be the last whom the memory of the queue has waited for.  So an open queue is
 * one more thing to wait for: bp_queue_close() says when it is not open any more, or
 * else bp_queue_give(), if that had the lock meanwhile: it then finds the queue
 * closed, and counts what is in the ring.
 *
 * The numbers of the ring's ends have 32 bits: a thread that sleeps in the middle of
 * a take while others take a multiple of 2^32, and is woken just then, takes a wrong
 * one.  They need minutes for that, and meet it with a chance of 2^-32; a checkout
 * then finds a buffer that is not idle, and says so.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include <ck_md.h>
#include <ck_pr.h>

/*
 * In CK 0.7.1 what takes from a ring has a fence for stores between its load of the
 * slot and the compare-and-swap that gives the slot up.  It is the load that has to
 * come first: on arm64 a producer could have filled the slot anew by then.  (Later
 * versions have it right.)
 */
#define ck_pr_fence_store_atomic() ck_pr_fence_load_atomic()
#include <ck_ring.h>
#undef ck_pr_fence_store_atomic

#include <stddef.h>

#include "stack.h"

struct queue {
	ck_ring_t ring;
	ck_ring_buffer_t *slot;
	uint32_t *next; /* of each number, in the overflow */

	/* Written by who gives. */
	uint64_t overflow __attribute__((aligned(CK_MD_CACHELINE)));
	uint32_t lock;
	uint32_t moving; /* one may be on its way from there to the ring */
} __attribute__((aligned(CK_MD_CACHELINE)));

/* How many slots it needs for so many numbers. */
static inline size_t queue_slots(size_t numbers)
{
	size_t slots = 2;

	while (slots <= numbers) /* a power of two; one is never used */
		slots *= 2;
	return slots;
}

/* Empty, of the numbers 0..n-1; slot has as many as that needs. */
void bp_queue_init(struct queue *q, ck_ring_buffer_t *slot, uint32_t *next,
                   size_t n);

/* Forget what is in, and whether it is closed; nobody else is there. */
void bp_queue_clear(struct queue *q);

/*
 * Give a chain of n, linked by next[], the first one first.  Returns 0; or how many
 * there are to settle with whoever waits for the queue: these, if it is closed; all
 * that are in the ring and one, if it was closed meanwhile.  If it is not 0, or
 * others can have seen them all, the queue may be gone.
 */
uint64_t bp_queue_give(struct queue *q, uint32_t first, uint32_t last,
                       unsigned n);

/* Take no more; nobody takes any.  Returns how many there are to settle: what was
   in, and one; or less, and who gives sees to the rest. */
uint64_t bp_queue_close(struct queue *q);

/* One that is in, without taking it; or STACK_NIL. */
uint32_t bp_queue_see(const struct queue *q);

/* Take the first one; STACK_NIL: there is none. */
static inline uint32_t queue_take(struct queue *q)
{
	void *number;

	if (CK_CC_UNLIKELY(!ck_ring_dequeue_mpmc(&q->ring, q->slot, &number)))
		return stack_pop_one(&q->overflow, q->next);
	/* The number before what the giver did ahead of showing it. */
	ck_pr_fence_acquire();
	return (uint32_t) (uintptr_t) number;
}

/* One may be hidden.  To be read before and after a look; the look between two
   fences for loads. */
static inline bool queue_is_moving(const struct queue *q)
{
	return ck_pr_load_32(&q->moving) != 0;
}

/* A number that grows with every take and give: by 2^32 (what wraps is above that,
   too), or as a stack's head. */
static inline uint64_t queue_stamp(const struct queue *q)
{
	return ck_pr_load_64(&q->overflow) +
	       ((uint64_t) (ck_pr_load_uint(&q->ring.c_head) +
	                    ck_pr_load_uint(&q->ring.p_tail))
	        << 32);
}

#endif
