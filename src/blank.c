/* SPDX-License-Identifier: MIT */
#include "blank.h"

typedef long long blank_128 __attribute__((vector_size(16), may_alias));
typedef long long blank_256 __attribute__((vector_size(32), may_alias));
typedef long long blank_512 __attribute__((vector_size(64), may_alias));

/*
 * All is read, and looked at in the end: what is not zero is found once in the life
 * of a program.  Four sums, so that no load waits for the one before.  finish: see
 * bp_wipe_avx2().
 */
#define DEFINE_BLANK(name, vector, attributes, finish)                         \
	attributes static __attribute__((noinline)) bool name(const void *p,   \
	                                                      size_t n)        \
	{                                                                      \
		const vector *at = p, *end = at + n / sizeof(vector);          \
		vector a = { 0 }, b = a, c = a, d = a;                         \
		long long any = 0;                                             \
                                                                               \
		for (; at < end; at += 8) {                                    \
			a |= at[0] | at[4];                                    \
			b |= at[1] | at[5];                                    \
			c |= at[2] | at[6];                                    \
			d |= at[3] | at[7];                                    \
		}                                                              \
		a |= b | c | d;                                                \
		for (size_t i = 0; i < sizeof(vector) / sizeof(any); i++)      \
			any |= a[i];                                           \
		finish;                                                        \
		return any == 0;                                               \
	}

DEFINE_BLANK(by_128, blank_128, , )

#if defined(__x86_64__)

DEFINE_BLANK(by_256, blank_256, __attribute__((target("avx2"))),
             __builtin_ia32_vzeroupper())
DEFINE_BLANK(by_512, blank_512, __attribute__((target("avx512f"))),
             __builtin_ia32_vzeroupper())

bool bp_blank_usable(enum bp_blank by)
{
	__builtin_cpu_init(); /* constructors may come before libgcc's */
	switch (by) {
	case BP_BLANK_256:
		return __builtin_cpu_supports("avx2");
	case BP_BLANK_512:
		return __builtin_cpu_supports("avx512f");
	default:
		return by < BP_BLANKS;
	}
}

bool bp_blank_by(enum bp_blank by, const void *p, size_t n)
{
	switch (by) {
	case BP_BLANK_256:
		return by_256(p, n);
	case BP_BLANK_512:
		return by_512(p, n);
	default:
		return by_128(p, n);
	}
}

#else

bool bp_blank_usable(enum bp_blank by)
{
	return by == BP_BLANK_128;
}

bool bp_blank_by(enum bp_blank by, const void *p, size_t n)
{
	(void) by;
	return by_128(p, n);
}

#endif

static enum bp_blank widest;

__attribute__((constructor)) static void blank_init(void)
{
	while (widest + 1 < BP_BLANKS && bp_blank_usable(widest + 1))
		widest++;
}

bool bp_is_blank(const void *p, size_t n)
{
	return bp_blank_by(widest, p, n);
}

size_t bp_blank_bytes(const void *p, size_t n)
{
	const char *at = p;
	size_t i = 0;

	while (i < n && at[i] == 0)
		i++;
	return i;
}
