/* SPDX-License-Identifier: MIT */
/*
 * map.h - memory from the system: plain mappings for what the library keeps for
 * itself, and address space with guards for what overruns shall not reach
 *
 * Not from malloc: a thread that is stopped inside of that can hold up others,
 * and a thread's first return to a pool makes its cache.
 */
#ifndef MAP_H
#define MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096 /* what payloads are aligned to at least */
#define HUGE_PAGE ((size_t) 2 * 1024 * 1024)

size_t bp_page_size(void);

static inline size_t round_up(size_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Zeroed and present; NULL if it cannot be had. */
void *bp_map(size_t len);
void bp_unmap(void *p, size_t len);

/* The same, but present only up to somewhere; each page of the rest when it is
   first used. */
void *bp_map_cold(size_t len, size_t present);

/* Have the pages taken away, until they are used again, zeroed; false if they
   cannot be. */
bool bp_drop(void *base, size_t len);

/*
 * Address space alone, aligned to a power of two, between two pages that nobody
 * can access, the guards: an overrun of the last buffer stops the program there,
 * instead of reaching what the kernel put next, which may well be the descriptors
 * of a pool.  What lies in it one behind the other has one guard between, and the
 * kernel one mapping less to keep for each.
 */
void *bp_reserve(size_t len, size_t alignment);

/* Where in it something can begin that follows what ends at a page's end. */
uintptr_t bp_past_guard(uintptr_t end, size_t alignment);

/* Give it back: all, or one piece with the guard behind it and what lies before
   that belongs to no other. */
void bp_release(void *base, size_t before, size_t len);

/* Have pages of it be address space alone again. */
void bp_vacate(void *base, size_t len);

/* Have pages of it readable and writable; not there yet, unless the program locks
   all that it maps. */
bool bp_make_usable(void *base, size_t len);

/* Map what is free there: address space again, or reserved huge pages, usable at
   once.  False if those are too few, or another thread was quicker. */
bool bp_claim(void *base, size_t len, bool huge);

/* Make every page present now, so that no use faults later. */
bool bp_populate(void *base, size_t len);

#endif
