/* SPDX-License-Identifier: MIT */
#include "queue.h"

enum { LOCK_FREE, LOCK_HELD, LOCK_CLOSED };

void bp_queue_clear(struct queue *q)
{
	ck_ring_init(&q->ring, q->ring.size);
	q->overflow = STACK_NIL;
	q->lock = LOCK_FREE;
	q->moving = 0;
}

void bp_queue_init(struct queue *q, ck_ring_buffer_t *slot, uint32_t *next,
                   size_t n)
{
	q->slot = slot;
	q->next = next;
	q->ring.size = (unsigned) queue_slots(n);
	bp_queue_clear(q);
}

static bool is_empty(const uint64_t *overflow)
{
	return stack_top(ck_pr_load_64(overflow)) >= STACK_CLOSED;
}

static bool try_lock(struct queue *q)
{
	if (ck_pr_load_32(&q->lock) != LOCK_FREE ||
	    !ck_pr_cas_32(&q->lock, LOCK_FREE, LOCK_HELD))
		return false;
	/* What the last one did to the ring before what we do. */
	ck_pr_fence_acquire();
	return true;
}

/* What is in the ring, when nobody is at it. */
static uint64_t count_ring(const struct queue *q)
{
	return ck_ring_size(&q->ring);
}

/* As bp_queue_give(). */
static uint64_t unlock(struct queue *q)
{
	/* What we did to the ring, before the next one's. */
	ck_pr_fence_release();
	if (CK_CC_LIKELY(ck_pr_cas_32(&q->lock, LOCK_HELD, LOCK_FREE)))
		return 0;
	/* Who closed it saw what the last takes have left. */
	ck_pr_fence_acquire();
	return count_ring(q) + 1;
}

/* There are as many slots as numbers, and one. */
static void enqueue(struct queue *q, uint32_t number)
{
	ck_ring_enqueue_spmc(&q->ring, q->slot, (void *) (uintptr_t) number);
}

/* Bring what others had to leave into the ring. */
static void drain(struct queue *q)
{
	ck_pr_store_32(&q->moving, 1);
	/* Who sees one gone from the overflow sees that. */
	ck_pr_fence_store_atomic();
	/* Not for ever, should others be as quick to leave more. */
	for (unsigned i = 0; i < q->ring.size; i++) {
		uint32_t number = stack_pop_one(&q->overflow, q->next);

		if (number == STACK_NIL)
			break;
		/* What its giver did can be seen by who takes it from us. */
		ck_pr_fence_release();
		enqueue(q, number);
	}
	ck_pr_fence_release(); /* all are in sight again */
	ck_pr_store_32(&q->moving, 0);
}

uint64_t bp_queue_give(struct queue *q, uint32_t first, uint32_t last,
                       unsigned n)
{
	uint32_t number = first;

	if (CK_CC_UNLIKELY(!try_lock(q)))
		return stack_push(&q->overflow, first, &q->next[last]) ? 0 : n;
	if (CK_CC_UNLIKELY(!is_empty(&q->overflow)))
		drain(q);
	/* What was done to the things that the numbers stand for, before these
	   can be seen.  The ring's own fence is for its slots. */
	ck_pr_fence_release();
	while (number != last) {
		/* Not after it can be seen: it may be in the overflow then. */
		uint32_t following = ck_pr_load_32(&q->next[number]);

		enqueue(q, number);
		number = following;
	}
	enqueue(q, number);
	return unlock(q);
}

uint64_t bp_queue_close(struct queue *q)
{
	uint64_t in = 0;
	uint32_t was, at;

	/* The takes that the caller knows of, before who has the lock finds it
	   closed and counts. */
	ck_pr_fence_release();
	was = ck_pr_fas_32(&q->lock, LOCK_CLOSED);
	/* What who had it last did to the ring, before we count. */
	ck_pr_fence_acquire();
	if (was == LOCK_FREE)
		in = count_ring(q) + 1;
	for (at = stack_close(&q->overflow); at < STACK_CLOSED; at = q->next[at])
		in++;
	return in;
}

uint32_t bp_queue_see(const struct queue *q)
{
	unsigned c = ck_pr_load_uint(&q->ring.c_head);

	/* Of the two the tail later, as where they are equal there is none. */
	ck_pr_fence_load();
	if (c == ck_pr_load_uint(&q->ring.p_tail)) {
		uint32_t top = stack_top(ck_pr_load_64(&q->overflow));

		return top < STACK_CLOSED ? top : STACK_NIL;
	}
	ck_pr_fence_load(); /* it before the slot */
	/* A slot that is filled anew by now has one that is in, too, or was. */
	return (uint32_t) (uintptr_t) ck_pr_load_ptr(
		&q->slot[c & q->ring.mask].value);
}
