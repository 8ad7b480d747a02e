/* SPDX-License-Identifier: MIT */
#include "wipe.h"

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
