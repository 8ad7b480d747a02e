/* SPDX-License-Identifier: MIT */
#include "wipe.h"

#include <stdint.h>
#include <time.h>

#if defined(__SSE2__)
#include <emmintrin.h>

void bp_wipe_stream(void *p, size_t n)
{
	const __m128i zero = _mm_setzero_si128();
	char *at = p;
	char *end = at + n;

	for (; at < end; at += 64) {
		_mm_stream_si128((__m128i *) (void *) at, zero);
		_mm_stream_si128((__m128i *) (void *) (at + 16), zero);
		_mm_stream_si128((__m128i *) (void *) (at + 32), zero);
		_mm_stream_si128((__m128i *) (void *) (at + 48), zero);
	}
	/* Streaming stores are not ordered with the store that publishes the
	   buffer to other threads, unless by this fence. */
	_mm_sfence();
	__asm__ __volatile__("" : : "r"(p) : "memory");
}

#else

void bp_wipe_stream(void *p, size_t n)
{
	bp_wipe_memset(p, n);
}

#endif

/* ------------------------------------------- candidates, out of line */

/*
 * Never inlined into each other or the dispatch, so that all are called alike
 * when they are timed, and tests/object.sh finds them.
 */
#define APART static __attribute__((noinline))

/* Small constant sizes are what compilers do not call memset for, and sizes of
   classes are constants where it counts. */
APART void by_memset(void *p, size_t n)
{
	if (n == 4096)
		bp_wipe_memset(p, 4096);
	else if (n == 8192)
		bp_wipe_memset(p, 8192);
	else
		bp_wipe_memset(p, n);
}

APART void by_call(void *p, size_t n)
{
	bp_wipe_call(p, n);
}

const char *bp_wipe_name(enum bp_wipe wipe)
{
	static const char *const name[BP_WIPES] = {
		[BP_WIPE_MEMSET] = "memset", [BP_WIPE_CALL] = "call",
		[BP_WIPE_STOS] = "stos",     [BP_WIPE_AVX2] = "avx2",
		[BP_WIPE_AVX512] = "avx512",
	};

	return name[wipe];
}

#if defined(__x86_64__)

APART void by_stos(void *p, size_t n)
{
	bp_wipe_stos(p, n);
}

APART __attribute__((target("avx2"))) void by_avx2(void *p, size_t n)
{
	bp_wipe_avx2(p, n);
}

APART __attribute__((target("avx512f"))) void by_avx512(void *p, size_t n)
{
	bp_wipe_avx512(p, n);
}

bool bp_wipe_usable(enum bp_wipe wipe)
{
	__builtin_cpu_init(); /* constructors may come before libgcc's */
	switch (wipe) {
	case BP_WIPE_AVX2:
		return __builtin_cpu_supports("avx2");
	case BP_WIPE_AVX512:
		return __builtin_cpu_supports("avx512f");
	default:
		return wipe < BP_WIPES;
	}
}

void bp_wipe_by(enum bp_wipe wipe, void *p, size_t n)
{
	switch (wipe) {
	case BP_WIPE_CALL:
		by_call(p, n);
		break;
	case BP_WIPE_STOS:
		by_stos(p, n);
		break;
	case BP_WIPE_AVX2:
		by_avx2(p, n);
		break;
	case BP_WIPE_AVX512:
		by_avx512(p, n);
		break;
	default:
		by_memset(p, n);
		break;
	}
}

/* -------------------------------------------------------- the choice */

#define TURNS 5

/*
 * A stack of one buffer, as a thread's cache is: what is done to it before and
 * after the wipe reads what was just written.  So what counts is also how long
 * a routine keeps the loads and stores around it waiting.
 */
struct scene {
	uint64_t top;
	struct prop {
		uint64_t state;
		void *base;
	} *slot[2], prop;
} __attribute__((aligned(64)));

#define LOOK_AGAIN() __asm__ __volatile__("" : : : "memory")

static void take_and_return(struct scene *s, enum bp_wipe wipe, size_t n)
{
	uint64_t top = s->top - 1;
	struct prop *d = s->slot[top];

	s->top = top;
	d->state++;
	LOOK_AGAIN();
	bp_wipe_by(wipe, d->base, n);
	d->state--;
	top = s->top;
	s->slot[top] = d;
	s->top = top + 1;
	LOOK_AGAIN();
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

static uint64_t time_batch(struct scene *s, enum bp_wipe wipe, size_t n,
                           unsigned times)
{
	uint64_t start = now();

	while (times-- > 0)
		take_and_return(s, wipe, n);
	return now() - start;
}

/* The default, unless another is faster by 3 %: noise is to decide nothing. */
static enum bp_wipe fastest(const uint64_t took[BP_WIPES])
{
	enum bp_wipe best = BP_WIPE_MEMSET;

	for (enum bp_wipe w = BP_WIPE_MEMSET + 1; w < BP_WIPES; w++)
		if (took[w] < took[best])
			best = w;
	return took[best] < took[BP_WIPE_MEMSET] / 100 * 97 ? best
	                                                    : BP_WIPE_MEMSET;
}

/*
 * The least of some batches counts, as all that disturbs makes them longer.
 * They go in turns: what lasts, like a clock that still rises or registers that
 * the CPU still powers up, then disturbs all alike.
 */
enum bp_wipe bp_wipe_choose(void *p, size_t n, unsigned times)
{
	struct scene s = {.top = 1, .slot = {&s.prop}, .prop.base = p};
	uint64_t took[BP_WIPES];

	bp_wipe_by(BP_WIPE_MEMSET, p, n);
	memset(took, 0xff, sizeof(took));
	for (int turn = 0; turn < TURNS; turn++)
		for (enum bp_wipe w = BP_WIPE_MEMSET; w < BP_WIPES; w++) {
			uint64_t t;

			if (!bp_wipe_usable(w))
				continue;
			t = time_batch(&s, w, n, times);
			if (t < took[w])
				took[w] = t;
		}
	return fastest(took);
}

#else

bool bp_wipe_usable(enum bp_wipe wipe)
{
	return wipe == BP_WIPE_MEMSET || wipe == BP_WIPE_CALL;
}

void bp_wipe_by(enum bp_wipe wipe, void *p, size_t n)
{
	if (wipe == BP_WIPE_CALL)
		by_call(p, n);
	else
		by_memset(p, n);
}

enum bp_wipe bp_wipe_choose(void *p, size_t n, unsigned times)
{
	(void) times;
	bp_wipe_by(BP_WIPE_MEMSET, p, n);
	return BP_WIPE_MEMSET;
}

#endif
