/* SPDX-License-Identifier: MIT */
/*
 * demand.h - what is wanted and cannot be had: scarcity, and who waits for it
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
 *     the moving flags of each cache in it; an owner takes a berth, comes to a
 *     place or begins to move, then a full fence, then reads the word.
 *
 * How long scarcity lasts goes by whether it was worth while to end it: the span
 * doubles if the caches have served little since the last time, else it halves.
 *
 * Waiting. A waiter announces itself, then looks for a buffer as any checkout
 * does, which leaves the class scarce, then waits; who gives a buffer to the
 * depot looks for waiters after that (an atomic operation); so one of them sees
 * the other.  Who ends a scarcity looks for waiters after that, and calls them
 * all: they declare it anew.
 *
 * A waiter is a thread that sleeps, or an event, which others poll.  It has a
 * seat, and announces itself by the ticket that it puts there: a number from a
 * dispenser, so that those who came first are called first.  To be called is to
 * have one's ticket taken away.  While somebody sleeps, there are never more idle
 * buffers than waiters who have been called and have not looked since, or are
 * about to be: each buffer that comes home calls one.  So who has been called and
 * goes without having looked calls the next.
 *
 * Nobody holds up anybody here: who calls takes the ticket by a compare-and-swap
 * and has the seat in hand then until it is woken; who leaves a seat that is in
 * hands leaves it to these, with the descriptor to be closed: nobody writes to one
 * that is another's by then.
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

/* Where one waits. */
struct seat {
	uint64_t word;   /* the ticket, 0: none; how many have it in hand, and
	                    what follows */
	int fd;          /* of an event; -1: a thread sleeps on the ticket */
	uint32_t life;        /* of the demand, when it was taken */
	bufpool_t *pool; /* of an event, */
	unsigned klass;  /* and what it is for */
};

#define SEAT_TICKET UINT32_MAX
#define SEAT_HAND (UINT64_C(1) << 32)
#define SEAT_HANDS (UINT64_C(0xfffffff) << 32)
#define SEAT_TAKEN (UINT64_C(1) << 61)
#define SEAT_CALLED (UINT64_C(1) << 62) /* and not announced again since */
#define SEAT_LEFT (UINT64_C(1) << 63)   /* to those who have it in hand */

struct demand {
	unsigned refs; /* its pool, and the pool's caches */
	unsigned places;
	struct roster roster; /* the pool's caches */
	uint32_t life;        /* another one in a child process */
	uint32_t events;      /* that are open */
	struct {
		uint32_t waiters; /* how many are announced, or about to be */
		uint32_t tickets; /* the last one that was given out */
		uint32_t movers;  /* have idle buffers in their hands and no
		                     cache to say so */
		struct bench *benches;
	} klass[BUFPOOL_CLASSES];
	struct want want[]; /* class by class for each place */
};

struct demand *bp_demand_new(unsigned places);
void bp_demand_ref(struct demand *q);
void bp_demand_unref(struct demand *q);

/* In a child process: nothing is wanted, nobody waits, there are no caches, and
   so many references. */
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

/* Call up to n that wait for class k; errno is left alone. */
void bp_demand_wake(struct demand *q, unsigned k, unsigned n);

/* n buffers of class k have just been given to the depot. */
static inline void demand_given(struct demand *q, unsigned k, unsigned n)
{
	ck_pr_fence_atomic_load(); /* they are visible before we look */
	if (CK_CC_UNLIKELY(ck_pr_load_32(&q->klass[k].waiters) != 0))
		bp_demand_wake(q, k, n);
}

/* A seat for who waits for class k, by an event or (-1) asleep; NULL if memory is
   short. */
struct seat *bp_seat_take(struct demand *q, unsigned k, int fd);

/* Give it up, announced or not, and call the next if need be. */
void bp_seat_leave(struct demand *q, unsigned k, struct seat *s);

/* Never 0. */
uint32_t bp_seat_ticket(struct demand *q, unsigned k);

/* Announce who sits here, if that is not so still; a full fence is passed. */
void bp_seat_announce(struct demand *q, unsigned k, struct seat *s,
                      uint32_t ticket);

/* An event is not to be called any more: it is as if it had been. */
void bp_seat_withdraw(struct demand *q, unsigned k, struct seat *s);

/* Sleep until called, until deadline at the latest; NULL: for ever.  May return at
   any time. */
void bp_seat_sleep(struct seat *s, uint32_t ticket,
                   const struct timespec *deadline);

#endif
