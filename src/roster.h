/* SPDX-License-Identifier: MIT */
/*
 * roster.h - the caches of a pool (cache.h), by number
 *
 * A thread that comes to a pool takes the lowest seat that is free, with the cache
 * that it finds there, or else makes.  When it leaves the cache stays, for the
 * next.  So those who look for buffers, in what threads cache, pass over bits:
 * however many threads there once were, a cache line tells of 256 seats that they
 * are free.
 *
 * What a thread has counted stays in its cache as well.  The seat is marked as long
 * as anything may be there to add up.
 *
 * A thread that leaves has no buffer of the pool any more, which may be gone then:
 * so this lies in what outlives it (demand.h).
 */
#ifndef ROSTER_H
#define ROSTER_H

#include "buf.h"

struct cache;

#define ROSTER_WORDS 4
#define ROSTER_SEATS (64 * ROSTER_WORDS) /* in one of these */

/* All zero: nobody is here. */
struct roster {
	uint64_t taken[ROSTER_WORDS];   /* bits: it has a thread */
	uint64_t counted[ROSTER_WORDS]; /* it had one, which has counted */
	struct roster *next;
	struct cache *cache[ROSTER_SEATS]; /* NULL until made, then for good */
};

struct seat {
	struct roster *roster; /* NULL: none */
	unsigned n;            /* of its seats */
};

/* The lowest free seat; none if memory is short. */
struct seat bp_roster_take(struct roster *first);

/* This one; false if somebody has it. */
bool bp_roster_claim(struct seat seat);

/* Give it back; who takes it next sees all that was done to the cache. */
void bp_roster_leave(struct seat seat);

/* Nothing of it is left to be added up; whose it is says so. */
void bp_roster_forget(struct seat seat);

/* In a child process: all seats are free, and without caches. */
void bp_roster_clear(struct roster *first);

/* Give back what it has taken, but for the first. */
void bp_roster_release(struct roster *first);

static inline struct cache **seat_cache(struct seat seat)
{
	return &seat.roster->cache[seat.n];
}

/* A walk over the caches in some of the seats: */
enum seats {
	SEATS_TAKEN,
	SEATS_COUNTED,
	SEATS_GONE, /* counted, and not taken */
	SEATS_ALL
};

struct walk {
	struct roster *roster; /* where it is */
	enum seats seats;
	unsigned word;
	uint64_t left; /* of its bits */
};

struct walk bp_walk(struct roster *first, enum seats seats);

/* The next cache; NULL: there is none. */
struct cache *bp_walk_next(struct walk *w);

#endif
