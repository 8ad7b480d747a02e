/* SPDX-License-Identifier: MIT */
/*
 * region.h - the memory that buffers lie in
 *
 * A region holds the payloads of one class at one place: mapped, placed and
 * populated when its pool is created, so that no use of a buffer faults.
 */
#ifndef REGION_H
#define REGION_H

#include "buf.h"
#include "place.h"

struct region {
	/* As bufpool_regions() shows it until a trim; numa_node where that is
	   known for sure, else NODE_ASK. */
	bufpool_region_t pub;
	struct bp_buf *bufs; /* the descriptors of what lies in it, in order, */
	uint32_t count;      /* so many */
	size_t mapped;    /* bytes, with what rounds len up to pages */
	bool keep;        /* its pages might not be had again */
	bool attached;    /* region_attach has seen it, region_detach has not */
	unsigned trimmed; /* it has had pages taken away; those that come back
	                     may lie elsewhere, and are not huge */
};

/* What every buffer of a class is aligned to in a region aligned to it. */
static inline size_t class_alignment(size_t size)
{
	return min_size(size & -size, HUGE_PAGE);
}

#define NODE_ASK (-2) /* look where the pages are */

/*
 * Map, place and populate len bytes that are aligned to a power of two; the
 * rest of pub but base and page_size is the caller's.  Returns 0, or the errno
 * that create fails with, and then there is no region.
 */
int bp_region_create(struct region *r, size_t len, size_t alignment,
                     const struct places *places, unsigned place,
                     unsigned flags);
void bp_region_destroy(struct region *r);

/*
 * In a child whose parent kept the memory from it (BUFPOOL_DONTFORK): map new
 * memory, zeroed, where the old was.  False if it cannot be had: the region is
 * then empty.
 */
bool bp_region_renew(struct region *r, unsigned flags);

/* Have the pages of an idle buffer taken away, or put back, zeroed. */
bool bp_region_drop(struct region *r, void *base, size_t len);
void bp_region_refill(void *base, size_t len);

/* The node that all of it is on, where that need not be asked; else NODE_ASK. */
int bp_region_node(const struct region *r);

/* What bufpool_regions() shows. */
bufpool_region_t bp_region_describe(const struct region *r);

#endif
