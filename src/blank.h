/* SPDX-License-Identifier: MIT */
/*
 * blank.h - whether memory is as it was erased, every byte of it
 *
 * p and n are multiples of 4096, as buffers of a class are, and n is not 0.
 */
#ifndef BLANK_H
#define BLANK_H

#include <stdbool.h>
#include <stddef.h>

/* By registers of so many bits. */
enum bp_blank {
	BP_BLANK_128, /* which every machine has, or else its compiler */
	BP_BLANK_256,
	BP_BLANK_512,
	BP_BLANKS
};

/* Whether this CPU and its system have what it takes. */
bool bp_blank_usable(enum bp_blank by);

/* By one that is usable. */
bool bp_blank_by(enum bp_blank by, const void *p, size_t n);

/* By the widest one: there are half as many loads each time, and beyond what the
   caches hold it is the memory that decides. */
bool bp_is_blank(const void *p, size_t n);

/* How many bytes are zero before the first that is not; n if all are. */
size_t bp_blank_bytes(const void *p, size_t n);

#endif
