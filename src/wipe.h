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

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define BP_WIPE_INLINE static inline __attribute__((always_inline))

static inline void bp_wipe_memset(void *p, size_t n)
{
	memset(p, 0, n);
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/* What a class of the table gets that says "auto". */
BP_WIPE_INLINE void bp_wipe_auto(void *p, size_t n)
{
	bp_wipe_memset(p, n);
}

/*
 * With stores that go around the caches: for buffers that no cache holds,
 * where a memset would first read what it overwrites and evict what is in
 * use.  p and n are multiples of 64.
 */
void bp_wipe_stream(void *p, size_t n);

/* -------------------------------------------- candidates, to be timed */

/*
 * Which one is the fastest depends on the CPU and on what is done around the
 * wipe.  Here p and n are multiples of 4096, as buffers of a class are, and n
 * is not 0.
 */
enum bp_wipe {
	BP_WIPE_MEMSET, /* the default, which every machine has */
	BP_WIPE_CALL,
	BP_WIPE_STOS,
	BP_WIPE_AVX2,
	BP_WIPE_AVX512,
	BP_WIPES
};

/*
 * The memset of the C library, which may have one for this CPU.  Compilers make
 * "rep stos" of a memset they know, at -Os even of unknown length: so they must
 * not know what is called.
 */
BP_WIPE_INLINE void bp_wipe_call(void *p, size_t n)
{
	void *(*set)(void *, int, size_t) = memset;

	__asm__("" : "+r"(set));
	set(p, 0, n);
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

#if defined(__x86_64__)

BP_WIPE_INLINE void bp_wipe_stos(void *p, size_t n)
{
	void *at = p;

	__asm__ __volatile__("rep stosb"
	                     : "+D"(at), "+c"(n)
	                     : "a"(0)
	                     : "memory");
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

/*
 * The next two are for callers with the same target attribute, or they cannot
 * be inlined.  The stores are volatile, as compilers make a memset of others.
 * Less than 256 bytes a turn are slower or the same, more are no faster.
 *
 * vzeroupper: gcc does not add it at -O1 and -Os, and without it all code that
 * uses SSE is slower from here on, the program's, too.
 */
typedef long long bp_wipe_256 __attribute__((vector_size(32), may_alias));
typedef long long bp_wipe_512 __attribute__((vector_size(64), may_alias));

BP_WIPE_INLINE __attribute__((target("avx2"))) void bp_wipe_avx2(void *p,
                                                                 size_t n)
{
	const bp_wipe_256 zero = {0};
	volatile bp_wipe_256 *at = p;
	volatile bp_wipe_256 *end = at + n / sizeof(zero);

	for (; at < end; at += 8) {
		at[0] = zero;
		at[1] = zero;
		at[2] = zero;
		at[3] = zero;
		at[4] = zero;
		at[5] = zero;
		at[6] = zero;
		at[7] = zero;
	}
	__builtin_ia32_vzeroupper();
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

BP_WIPE_INLINE __attribute__((target("avx512f"))) void bp_wipe_avx512(void *p,
                                                                      size_t n)
{
	const bp_wipe_512 zero = {0};
	volatile bp_wipe_512 *at = p;
	volatile bp_wipe_512 *end = at + n / sizeof(zero);

	for (; at < end; at += 4) {
		at[0] = zero;
		at[1] = zero;
		at[2] = zero;
		at[3] = zero;
	}
	__builtin_ia32_vzeroupper();
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

#endif /* __x86_64__ */

/*
 * The routines that a class may be erased by, as its column in the table says:
 * X(..., routine, attributes of functions it is inlined into), in the order of
 * enum bp_wipe.
 */
#define WIPES_memset(X, ...) X(__VA_ARGS__, memset, )
#define WIPES_stream(X, ...) X(__VA_ARGS__, stream, )
#if defined(__x86_64__)
#define WIPES_auto(X, ...)                                                     \
	X(__VA_ARGS__, memset, )                                               \
	X(__VA_ARGS__, call, )                                                 \
	X(__VA_ARGS__, stos, )                                                 \
	X(__VA_ARGS__, avx2, __attribute__((target("avx2"))))                  \
	X(__VA_ARGS__, avx512, __attribute__((target("avx512f"))))
#else
#define WIPES_auto(X, ...)                                                     \
	X(__VA_ARGS__, memset, )                                               \
	X(__VA_ARGS__, call, )
#endif

const char *bp_wipe_name(enum bp_wipe wipe);
/* Whether this CPU and its system have what it takes. */
bool bp_wipe_usable(enum bp_wipe wipe);
/* By one that is usable, out of line. */
void bp_wipe_by(enum bp_wipe wipe, void *p, size_t n);

/*
 * The best of the usable ones for n bytes, timed at p; these bytes are erased.
 * times, at least 1, is how often each is called in a row, which has to be long
 * beside what it takes to read a clock.
 *
 * Budget: 30 microseconds for (p, 4096, 16), 50 for (p, 65536, 1), on a server
 * of 2023 that nothing disturbs (18 and 38 were measured).  To map p comes on
 * top, if it has not been touched before.  Whatever disturbs, there are no more
 * than 1 + 25 * times wipes.  Without a choice (not x86-64) nothing is timed.
 */
enum bp_wipe bp_wipe_choose(void *p, size_t n, unsigned times);

#endif
