/* SPDX-License-Identifier: MIT */
/*
 * queue.h - what hands buffers to another thread, for all peers: one producer,
 * one consumer
 *
 * Who has to wait looks again at once for a while, then lets other threads run,
 * as there may be fewer CPUs than threads.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include <ck_pr.h>
#include <ck_ring.h>
#include <sched.h>

#define QUEUE_SLOTS 64

struct queue {
	ck_ring_t ring;
	ck_ring_buffer_t slot[QUEUE_SLOTS];
} __attribute__((aligned(128)));

#define WAIT_UNTIL(condition)                                                  \
	for (unsigned looks_ = 1; !(condition); looks_++) {                    \
		if (looks_ % 64 == 0)                                          \
			sched_yield();                                         \
		else                                                           \
			ck_pr_stall();                                         \
	}

static inline void queue_push(struct queue *q, void *p)
{
	WAIT_UNTIL(ck_ring_enqueue_spsc(&q->ring, q->slot, p));
}

static inline void *queue_pop(struct queue *q)
{
	void *p;

	WAIT_UNTIL(ck_ring_dequeue_spsc(&q->ring, q->slot, &p));
	return p;
}

#endif
