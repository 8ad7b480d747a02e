/* SPDX-License-Identifier: MIT */
/*
 * map.h - memory from the system: plain mappings for what the library keeps for
 * itself, guarded ones for what overruns shall not reach
 *
 * Not from malloc: a thread that is stopped inside of that can hold up others,
 * and a thread's first return to a pool makes its cache.
 */
#ifndef MAP_H
#define MAP_H

#include <stdbool.h>
#include <stddef.h>

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

/* The same, with a page that nobody can access on either side. */
void *bp_guarded_map(size_t len);
void bp_guarded_unmap(void *base, size_t len);

/*
 * Address space alone, aligned to a power of two, between two such pages: an
 * overrun of the last buffer stops the program there, instead of reaching what
 * the kernel put next, which may well be the descriptors of a pool.
 */
char *bp_reserve(size_t len, size_t alignment);
char *bp_reserve_huge(size_t len); /* of reserved huge pages, usable at once */
void bp_release(void *base, size_t len);

/* Make every page present now, so that no use faults later. */
bool bp_populate(char *base, size_t len);

#endif
