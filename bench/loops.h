/* SPDX-License-Identifier: MIT */
/*
 * loops.h - what is timed
 *
 * Compiled into each peer, so that none pays for a call through a pointer.
 * Before it includes this, a peer defines struct source and
 *
 *     static inline void *get(struct source *s, size_t size);
 *         a buffer, or NULL if there is none at the moment; size, the job's, is a
 *         constant in pairs, as it is in a program that knows what it needs
 *     static inline void put(struct source *s, void *buf, bool wipe);
 *         give it back, if wipe so that nobody reads what is in it now; wipe is
 *         a constant wherever this is inlined
 *
 * and, where it has such calls, with a macro of the same name,
 *
 *     get_bulk(s, size, bufs, n), put_bulk(s, bufs, n, wipe)
 *         all n of them; get_bulk() returns false if it took none,
 *         as there were too few
 *     freeze(s, buf), share(s, buf), drop(s, buf)
 *         make buf one to be shared; one more handle of it; give a handle up
 *     payload(buf)
 *         where the bytes are, if buf is a handle
 *
 * Nothing here looks into a buffer: whoever does pays the same for it whatever
 * the buffer comes from.
 */
#ifndef LOOPS_H
#define LOOPS_H

#include <string.h>

#include "bench.h"
#include "histogram.h"
#include "queue.h"

#define LOOP static inline __attribute__((always_inline))

/* The compiler has to believe that p is looked at, and all that it leads to. */
LOOP void escape(void *p)
{
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/* ---------------------------------------------------------------- fallbacks */

LOOP void *get_one(struct source *s, size_t size)
{
	void *buf;

	WAIT_UNTIL((buf = get(s, size)) != NULL);
	escape(buf);
	return buf;
}

#ifndef get_bulk
LOOP bool get_bulk(struct source *s, size_t size, void **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bufs[i] = get_one(s, size);
	return true;
}
#endif

#ifndef put_bulk
LOOP void put_bulk(struct source *s, void **bufs, size_t n, bool wipe)
{
	for (size_t i = 0; i < n; i++)
		put(s, bufs[i], wipe);
}
#endif

/* Who cannot share makes copies. */
#ifndef freeze
LOOP void *freeze(struct source *s, void *buf)
{
	(void) s;
	return buf;
}

LOOP void *share(struct source *s, void *buf)
{
	void *copy = get_one(s, s->size);

	memcpy(copy, buf, s->size);
	return copy;
}

LOOP void drop(struct source *s, void *buf)
{
	put(s, buf, false);
}
#endif

#ifndef payload
#define payload(buf) (buf)
#endif

/* ------------------------------------------------------------------- pairs */

LOOP void pairs_of(struct source *s, size_t size, size_t set, uint64_t steps,
                   bool wipe)
{
	void *held[MAX_SET];

	while (steps-- > 0) {
		for (size_t i = 0; i < set; i++)
			held[i] = get_one(s, size);
		for (size_t i = 0; i < set; i++)
			put(s, held[i], wipe);
	}
}

LOOP void bulk_pairs(struct source *s, size_t size, size_t set, uint64_t steps,
                     bool wipe)
{
	void *held[MAX_SET];

	while (steps-- > 0) {
		WAIT_UNTIL(get_bulk(s, size, held, set));
		escape(held);
		put_bulk(s, held, set, wipe);
	}
}

/* set is a constant where it is one, size and wipe always. */
LOOP void pairs_wiped(struct source *s, const struct job *job, uint64_t steps,
                      size_t size, bool wipe)
{
	if (job->bulk && job->set > 1)
		bulk_pairs(s, size, job->set, steps, wipe);
	else if (job->set > 1)
		pairs_of(s, size, job->set, steps, wipe);
	else
		pairs_of(s, size, 1, steps, wipe);
}

LOOP void pairs_sized(struct source *s, const struct job *job, uint64_t steps,
                      size_t size)
{
	if (job->wipe)
		pairs_wiped(s, job, steps, size, true);
	else
		pairs_wiped(s, job, steps, size, false);
}

static void loop_pairs(struct source *s, const struct job *job, uint64_t steps)
{
	switch (job->size) {
	case SIZE_4K:
		pairs_sized(s, job, steps, SIZE_4K);
		break;
	case SIZE_64K:
		pairs_sized(s, job, steps, SIZE_64K);
		break;
	case SIZE_256K:
		pairs_sized(s, job, steps, SIZE_256K);
		break;
	case SIZE_1M:
		pairs_sized(s, job, steps, SIZE_1M);
		break;
	default:
		die("no loop for buffers of %zu bytes", job->size);
	}
}

/* One set; where one take ends, the next begins. */
static void loop_timed(struct source *s, const struct job *job,
                       struct histogram *times)
{
	void *held[MAX_SET];
	uint64_t begin, end;

	begin = now_ns();
	for (size_t i = 0; i < job->set; i++) {
		held[i] = get_one(s, job->size);
		end = now_ns();
		histogram_add(times, end - begin);
		begin = end;
	}
	for (size_t i = 0; i < job->set; i++)
		put(s, held[i], false);
}

/* ---------------------------------------------------------------- handover */

/* To each in turn. */
LOOP void send_owned(struct source *s, const struct job *job,
                     struct queue *queues, uint64_t steps)
{
	size_t to = 0, n = job_receivers(job);

	while (steps-- > 0) {
		queue_push(&queues[to], get_one(s, job->size));
		if (++to == n)
			to = 0;
	}
}

/* To all of them. */
LOOP void send_shared(struct source *s, const struct job *job,
                      struct queue *queues, uint64_t steps)
{
	while (steps-- > 0) {
		void *buf = freeze(s, get_one(s, job->size));

		for (size_t i = 0; i < job->readers; i++)
			queue_push(&queues[i], share(s, buf));
		drop(s, buf);
	}
}

static void loop_send(struct source *s, const struct job *job,
                      struct queue *queues, uint64_t steps)
{
	if (job->readers > 0)
		send_shared(s, job, queues, steps);
	else
		send_owned(s, job, queues, steps);
}

LOOP void receive(struct source *s, struct queue *queue, bool shared, bool wipe)
{
	void *buf;

	while ((buf = queue_pop(queue)) != NULL) {
		if (shared)
			drop(s, buf);
		else
			put(s, buf, wipe);
	}
}

/* Until there comes a NULL. */
static void loop_receive(struct source *s, const struct job *job,
                         struct queue *queue)
{
	if (job->readers > 0)
		receive(s, queue, true, false);
	else if (job->wipe)
		receive(s, queue, false, true);
	else
		receive(s, queue, false, false);
}

static void loop_drain(struct source *s, struct queue *queue)
{
	void *buf;

	while (ck_ring_dequeue_spsc(&queue->ring, queue->slot, &buf))
		put(s, buf, false);
}

/* Every other buffer goes to the other thread, unless its queue is full. */
static void loop_exchange(struct source *s, const struct job *job,
                          struct queue *out, struct queue *in, uint64_t steps)
{
	while (steps-- > 0) {
		void *buf = get_one(s, job->size);

		if (steps % 2 == 0 ||
		    !ck_ring_enqueue_spsc(&out->ring, out->slot, buf))
			put(s, buf, false);
		loop_drain(s, in);
	}
}

/* ------------------------------------------------------------------ memory */

/* Take all that there are, and write to every page. */
static void loop_touch_all(struct source *s, const struct job *job, void **held)
{
	for (size_t i = 0; i < job->count; i++) {
		held[i] = get_one(s, job->size);
		memset(payload(held[i]), 1, job->size);
	}
}

static const struct loops loops = {
	.pairs = loop_pairs,
	.timed = loop_timed,
	.send = loop_send,
	.receive = loop_receive,
	.exchange = loop_exchange,
	.drain = loop_drain,
	.touch_all = loop_touch_all,
};

#endif
