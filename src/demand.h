/* SPDX-License-Identifier: MIT */
/*
 * demand.h - what is wanted and cannot be had: scarcity, and who sleeps for it
 *
 * A class is plentiful at a place (place.h) or scarce.  While it is plentiful,
 * threads cache its buffers and move them in batches.  A checkout that finds
 * the depot empty declares it scarce: what the caches hold is gathered
 * (cache.h), and from then on nothing of the class rests in a cache; buffers go
 * straight to the depot, one by one.
 *
 *      plentiful ──declared──► scarce ──gathered, and──► trusted
 *          ▲                      │   nobody was moving     │
 *          └───── after `span` takes with no failure ───────┘
 *
 * Once it is trusted, an empty depot is exhaustion, exactly: all that cannot be
 * seen is what a thread is about to hand out, or is in the middle of returning.
 * A failing try costs one look at the depot, however many threads there are.
 *
 * The word for it counts its declarations and ends, so that who was slow to
 * trust one does not trust another.  Who declares and who caches meet in Dekker's way:
 *   - declared, then alarms set in all caches, then bp_fence_all(), then the
 *     caches are looked at; an owner puts, or puts back what it could not take
 *     uncontested, then reads its alarm;
 *   - declared, then a full fence, then the roster is read, and the place and
 *     the moving flags of each cache in it; an owner takes a seat, comes to a
 *     place or begins to move, then a full fence, then reads the word.
 *
 * How long scarcity lasts goes by whether it was worth while to end it: the span
 * doubles if the caches have served little since the last time, else it halves.
 *
 * Waiting. A waiter announces itself, then looks for a buffer as any checkout
 * does, which leaves the class scarce, then sleeps; who gives a buffer to the
 * depot looks for waiters after that (an atomic operation); so one of them sees
 * the other.  Who ends a scarcity looks for waiters after that, and wakes them:
 * they declare it anew.
 *
 * After a buffer is visible its pool may be gone at any time.  What is looked at
 * then must not be part of it: this, with the roster, is freed like the cache by
 * whoever lets go of it last.
 */
#ifndef DEMAND_H
#define DEMAND_H

#include "roster.h"

/* In `scarce`; what is above them counts. */
#define SCARCE 1u
#define TRUSTED 2u
#define SCARCE_COUNT 4u

struct want {
	uint64_t scarce; /* see above */
	uint64_t hits;   /* of the caches, when it was declared last */
	uint32_t takes;  /* from the depot since the last failure */
	uint32_t span;   /* as many end it */
} __attribute__((aligned(CK_MD_CACHELINE)));

struct demand {
	unsigned refs; /* its pool, and the pool's caches */
	unsigned places;
	struct roster roster; /* the pool's caches */
	struct {
		uint32_t waiters; /* how many sleep, or are about to */
		uint32_t seq;     /* the futex: changes with every wake-up */
		uint32_t movers;  /* have idle buffers in their hands and no
		                     cache to say so */
	} klass[BUFPOOL_CLASSES];
	struct want want[]; /* class by class for each place */
};

struct demand *bp_demand_new(unsigned places);
void bp_demand_ref(struct demand *q);
void bp_demand_unref(struct demand *q);

/* In a child process: nothing is wanted, there are no caches, and so many
   references. */
void bp_demand_reset(struct demand *q, unsigned refs);

static inline struct want *want_of(struct demand *q, unsigned place, unsigned k)
{
	return &q->want[place * BUFPOOL_CLASSES + k];
}

static inline bool is_scarce(const struct want *w)
{
	return (ck_pr_load_64(&w->scarce) & SCARCE) != 0;
}

/* Nothing of it rests where a checkout does not look first. */
static inline bool is_trusted(const struct want *w)
{
	return (ck_pr_load_64(&w->scarce) & TRUSTED) != 0;
}

/* Make it scarce, if it is not; returns the word.  True in `first` if it was
   not.  A full fence is passed. */
uint64_t bp_demand_declare(struct want *w, bool *first);

/* Who declared it: hits is what the caches have served so far. */
void bp_demand_adapt(struct want *w, uint64_t hits);

/* All is gathered that there was under this word. */
void bp_demand_trust(struct want *w, uint64_t word);

/* A buffer has been taken from a depot whose class is scarce. */
void bp_demand_taken(struct demand *q, struct want *w, unsigned k);

/* Wake up to n that wait for class k; errno is left alone. */
void bp_demand_wake(struct demand *q, unsigned k, unsigned n);

/* n buffers of class k have just been given to the depot. */
static inline void demand_given(struct demand *q, unsigned k, unsigned n)
{
	ck_pr_fence_atomic_load(); /* they are visible before we look */
	if (CK_CC_UNLIKELY(ck_pr_load_32(&q->klass[k].waiters) != 0))
		bp_demand_wake(q, k, n);
}

/* Sleep while the wake-ups of class k are still as many as seen, until deadline
   at the latest; NULL: for ever.  May return at any time. */
void bp_demand_sleep(struct demand *q, unsigned k, uint32_t seen,
                     const struct timespec *deadline);

#endif
