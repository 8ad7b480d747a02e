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
	unsigned place;
	size_t mapped;    /* bytes, with what rounds len up to pages */
	size_t before;    /* bytes of address space before base that are its own,
	                     as is the guard behind it */
	bool keep;        /* on reserved huge pages: they might not be had again */
	bool filled;      /* its memory is there */
	bool attached;    /* region_attach has seen it, region_detach has not */
	unsigned trimmed; /* it has had pages taken away; those that come back
	                     may lie elsewhere, and are not huge */
};

/* What every buffer of a class is aligned to in a region aligned to it. */
static inline size_t class_alignment(size_t size)
{
	return min_size(size & -size, HUGE_PAGE);
}

static inline size_t region_alignment(size_t size, unsigned flags)
{
	return (flags & BUFPOOL_HUGEPAGES) != 0 ? HUGE_PAGE
	                                        : class_alignment(size);
}

#define NODE_ASK (-2) /* look where the pages are */

/*
 * A region comes to be in three steps, so that a pool knows of all of its own what
 * they need before it takes any of that.  Whatever the step, destroy ends it.
 *
 * Lay it out, for n buffers, in the pool's address space (map.h), behind what ends
 * there.  Returns where it ends.  Nothing is mapped.
 */
uintptr_t bp_region_lay(struct region *r, uintptr_t end, size_t n, size_t size,
                        unsigned flags);

/* Have it on reserved huge pages, if there are enough; BUFPOOL_HUGEPAGES.  False if
   there is no address space. */
bool bp_region_take_huge(struct region *r);

/* What of other memory it is going to take. */
static inline size_t region_needs(const struct region *r)
{
	return r->keep ? 0 : r->mapped;
}

/* Place and populate it; 0, or the errno that create fails with.  The rest of pub
   is the caller's. */
int bp_region_fill(struct region *r, const struct places *places,
                   unsigned place, unsigned flags);
void bp_region_destroy(struct region *r);

/* The same, but its address space is still the pool's. */
void bp_region_vacate(struct region *r);

/* Of one that was laid out only: in address space of its own.  False if there is
   none. */
bool bp_region_elsewhere(struct region *r, unsigned flags);

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
