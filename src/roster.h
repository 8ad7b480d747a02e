/* SPDX-License-Identifier: MIT */
/*
 * roster.h - the caches of a pool (cache.h), by number
 *
 * A thread that comes to a pool takes the lowest berth that is free, with the cache
 * that it finds there, or else makes.  When it leaves the cache stays, for the
 * next.  So those who look for buffers, in what threads cache, pass over bits:
 * however many threads there once were, a cache line tells of 256 berths that they
 * are free.
 *
 * What a thread has counted stays in its cache as well.  The berth is marked as long
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
#define ROSTER_BERTHS (64 * ROSTER_WORDS) /* in one of these */

/* All zero: nobody is here. */
struct roster {
	uint64_t taken[ROSTER_WORDS];   /* bits: it has a thread */
	uint64_t counted[ROSTER_WORDS]; /* it had one, which has counted */
	struct roster *next;
	struct cache *cache[ROSTER_BERTHS]; /* NULL until made, then for good */
};

struct berth {
	struct roster *roster; /* NULL: none */
	unsigned n;            /* of its berths */
};

/* The lowest free berth; none if memory is short. */
struct berth bp_roster_take(struct roster *first);

/* This one; false if somebody has it. */
bool bp_roster_claim(struct berth berth);

/* Give it back; who takes it next sees all that was done to the cache. */
void bp_roster_leave(struct berth berth);

/* Nothing of it is left to be added up; whose it is says so. */
void bp_roster_forget(struct berth berth);

/* In a child process: all berths are free, and without caches. */
void bp_roster_clear(struct roster *first);

/* Give back what it has taken, but for the first. */
void bp_roster_release(struct roster *first);

static inline struct cache **berth_cache(struct berth berth)
{
	return &berth.roster->cache[berth.n];
}

/* A walk over the caches in some of the berths: */
enum berths {
	BERTHS_TAKEN,
	BERTHS_COUNTED,
	BERTHS_GONE, /* counted, and not taken */
	BERTHS_ALL
};

struct walk {
	struct roster *roster; /* where it is */
	enum berths berths;
	unsigned word;
	uint64_t left; /* of its bits */
};

struct walk bp_walk(struct roster *first, enum berths berths);

/* The next cache; NULL: there is none. */
struct cache *bp_walk_next(struct walk *w);

#endif
