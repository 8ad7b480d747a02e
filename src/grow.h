/* SPDX-License-Identifier: MIT */
/*
 * grow.h - how a pool comes to its regions: the first ones, and more
 *
 * Some regions come at once, a batch: all that create is asked for, or a growth of
 * one class.  They are laid out; then taken, all or none; then filled, described and
 * attached; then shown, after which their buffers can be taken.  What fails is undone.
 *
 * The tables have room for max_count from the start, and address space is set apart
 * for as many payloads; memory comes with the growth.  What a class has in a place lies
 * in a plot: its first regions, then what is free for more.
 *
 * One thread grows a pool at a time, and nobody waits for it: who finds that somebody
 * does goes on without.  Once a class could not grow it is not tried again before
 * something has come home.
 */
#ifndef GROW_H
#define GROW_H

#include "pool.h"

/* Of the regions that were laid out, those of from..to-1. */
struct batch {
	bufpool_t *pool;
	unsigned from, to;
};

/* Lay out regions for n buffers of class k at a place, behind what ends there: where
   they end.  pool may be NULL, to know that. */
uintptr_t bp_lay_out(bufpool_t *pool, unsigned place, unsigned k, size_t n,
                     uintptr_t end, unsigned flags, size_t region_max);

/* Have all that they need, besides `more` bytes, or nothing; 0 or an errno, as
   in what follows. */
int bp_batch_take(const struct batch *b, size_t more);

/* Place and populate them, and describe their buffers. */
int bp_batch_fill(const struct batch *b);

/* Tell the program's region_attach. */
int bp_batch_attach(const struct batch *b);

/* They belong to the pool from now on.  One buffer is left out, and returned, if so
   it is asked for; the others can be taken. */
struct bp_buf *bp_batch_show(const struct batch *b, bool keep_one);

/* Whether class k may be larger than it is, and it was not found just now that it
   cannot be. */
bool bp_may_grow(bufpool_t *pool, unsigned k);

/* Add n buffers of class k, spread over all places: 0 or an errno; EAGAIN: another
   thread grows the pool. */
int bp_grow(bufpool_t *pool, unsigned k, size_t n);

/* A class of `total` was found exhausted: add half of what it has to a place, and
   return one of that; NULL: it could not be, or it has grown already. */
struct bp_buf *bp_grow_exhausted(bufpool_t *pool, unsigned place, unsigned k,
                                 uint32_t total);

#endif
