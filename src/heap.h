/* SPDX-License-Identifier: MIT */
/*
 * heap.h - buffers from the heap, where no pool memory is idle or none is large
 * enough
 *
 * Payloads come and go; their descriptors stay with the pool, so that a second
 * return of the same handle is found out as long as the pool lives.  They come
 * in chunks of 64, 128, 256 ..., numbered through, and the free ones wait in a
 * stack of numbers.
 *
 * Payloads come from malloc, but for those of small classes: to align one to a
 * page malloc may use up a further page, which is twice as much.  So descriptors
 * of small classes have memory of their own, mapped behind each chunk, whose pages
 * come when they are first used.  Some that are free keep their pages, so that
 * taking and giving by turns costs no system call; the others' are given back, and
 * they wait in the cold, as in the depot.  All in all that is at most 1.15 times
 * the capacities of what is out, and a little.
 */
#ifndef HEAP_H
#define HEAP_H

#include "buf.h"

#define HEAP_CHUNKS 18

/* Descriptors whose buffers are made alike. */
struct stock {
	uint64_t free;                     /* a stack of free ones */
	uint64_t cold;                     /* ... without pages */
	struct bp_buf *chunk[HEAP_CHUNKS]; /* all of them */
	uint64_t spare;                    /* free ones with pages, about; means
	                                      nothing for the last stock */
	uint64_t out;                      /* live buffers */
};

struct heap {
	/* For each class that is small; the last one for all else. */
	struct stock stock[BUFPOOL_CLASSES + 1];
	bufpool_t *pool; /* whose they are */
	size_t limit;    /* of bytes; 0: none */
	enum bufpool_wipe wipe;
	uint64_t bytes;                       /* capacities of live buffers */
	uint64_t served[BUFPOOL_CLASSES + 1]; /* checkouts, oversize last */
	uint64_t inherited[BUFPOOL_CLASSES + 1]; /* in a child: were out when it
	                                            was forked */
};

/* Live buffers. */
static inline uint64_t heap_out(const struct heap *heap)
{
	uint64_t out = 0;

	for (unsigned s = 0; s <= BUFPOOL_CLASSES; s++)
		out += ck_pr_load_64(&heap->stock[s].out);
	return out;
}

void bp_heap_init(struct heap *heap, bufpool_t *pool,
                  const bufpool_config_t *cfg);

/*
 * A buffer of capacity bytes, zeroed unless nothing is ever erased, which stands
 * in for class k or is larger than any; NULL and an errno if the budget or the
 * memory is used up.  It has yet to get its state.
 */
struct bp_buf *bp_heap_take(struct heap *heap, unsigned k, size_t capacity,
                            size_t alignment, int *error);
void bp_heap_give(struct heap *heap, struct bp_buf *d); /* erases it */
void bp_heap_release(struct heap *heap);                /* with its pool */

/* In a child: free what is not out, and count what is. */
void bp_heap_remake(struct heap *heap);

#endif
