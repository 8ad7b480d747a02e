/* SPDX-License-Identifier: MIT */
/*
 * estate.h - what a thread has, and who is given it when the thread ends
 *
 * The thread itself, by the destructor of a key (pthread_key_create()), where that
 * needs no memory: glibc has room in each thread for the values of the first 32
 * keys of a process.  For the value of a later one it calls calloc(), which a
 * thread that is stopped in there may hold up, and which may be made of pools.
 *
 * There a thread locks a robust mutex, and leaves it so.  The system marks it when
 * the thread ends, and a thread that comes later finds the mark and takes over the
 * mutex, with the estate.  Each looks at two before it makes one of its own: so
 * there are hardly more than there are threads at once.
 */
#ifndef ESTATE_H
#define ESTATE_H

#include "cache.h"

struct estate {
	void (*settle)(struct estate *e); /* leave all of it */
	struct cache **table; /* the thread's caches, by their pools' slots */
	unsigned slots;       /* of the table */
	unsigned caches;      /* in it */
	uint64_t dead;        /* pools, when their caches were last left */
};

/* The calling thread's; NULL: it has none. */
extern __thread struct estate *bp_estate;

/* That, made if need be; still NULL when the thread is past its end, or in here
   already. */
struct estate *bp_estate_make(void (*settle)(struct estate *e));

/* In a child process: the calling thread's is the only one. */
void bp_estate_remake(void);

#endif
