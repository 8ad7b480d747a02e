/* SPDX-License-Identifier: MIT */
/*
 * atlas.h - where in a pool an address lies
 *
 * The regions in the order of their addresses, in two tables: that of n regions
 * is the one of n's parity.  A region that comes is entered in the other, and
 * then n, the pool's `charted`, says so.  So who searches a table is held up by
 * nobody; if n has changed meanwhile, the table may have been written to by the
 * next one to come, and is searched anew.
 */
#ifndef ATLAS_H
#define ATLAS_H

#include "pool.h"
#include "region.h"

/* The pool's next region is complete, its buffers are described.  One at a time. */
void bp_atlas_enter(bufpool_t *pool, struct region *r);

/* The last region that starts at p or below: that of a buffer's memory. */
struct region *bp_atlas_region(const bufpool_t *pool, const void *p);

/* The buffer whose memory holds p, in whatever state it is; NULL: none.  p may
   have come from anywhere. */
struct bp_buf *bp_atlas_find(const bufpool_t *pool, const void *p);

#endif
