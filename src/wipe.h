/* SPDX-License-Identifier: MIT */
/*
 * wipe.h - erase bytes so that the compiler cannot leave it out.
 *
 * A memset of memory that the program does not read again is dead code to a
 * compiler, also across files with link-time optimisation.  The empty asm
 * takes the pointer and claims to read all memory: the bytes must be there by
 * then.  (explicit_bzero() of glibc is the same, behind a call.)
 * tests/object.sh looks at the machine code.
 */
#ifndef WIPE_H
#define WIPE_H

#include <stddef.h>
#include <string.h>

static inline void bp_wipe_memset(void *p, size_t n)
{
	memset(p, 0, n);
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/*
 * With stores that go around the caches: for buffers that no cache holds,
 * where a memset would first read what it overwrites and evict what is in
 * use.  p and n are multiples of 64.
 */
void bp_wipe_stream(void *p, size_t n);

#endif
