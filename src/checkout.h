/* SPDX-License-Identifier: MIT */
/* checkout.h - what other calls use of the fast paths' functions */
#ifndef CHECKOUT_H
#define CHECKOUT_H

#include "buf.h"

/* Up to n of class k that this thread has cached, in one step. */
size_t bp_checkout_cached(bufpool_t *pool, unsigned k, size_t len,
                          bufpool_buf_t **bufs, size_t n);

/* As bufpool_checkout() and bufpool_return(), in the name of another call. */
bufpool_buf_t *bp_checkout_of(const char *call, bufpool_t *pool, size_t size);
void bp_return_of(const char *call, struct bp_buf *d);

#endif
