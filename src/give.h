/* SPDX-License-Identifier: MIT */
/*
 * give.h - send a buffer home
 *
 * To the thread's cache; if that is full, half of it goes to the depot first.
 * Straight to the depot where it may not be cached, as its class is scarce or it
 * belongs to another place.
 */
#ifndef GIVE_H
#define GIVE_H

#include "buf.h"

/* What the fast paths leave over: a buffer that is erased; */
void bp_return_erased(struct bp_buf *d);

/* and any handle, in full: checked, of which the call is told, and erased. */
void bp_return_other(const char *call, struct bp_buf *d);

/* Of bufs, as many as are like the first and go straight to the depot, in one
   step: how many.  0: none, or that is to be found out one by one. */
size_t bp_return_many(bufpool_buf_t **bufs, size_t n);

#endif
