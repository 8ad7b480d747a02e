/* SPDX-License-Identifier: MIT */
/*
 * steps.h - count instructions by single-stepping: under the CPU's trap flag each
 * is followed by a SIGTRAP
 *
 * For what Valgrind, which has no rseq, would run another way.
 */
#ifndef TESTS_STEPS_H
#define TESTS_STEPS_H

#include "common.h"

#include <ucontext.h>

#define STEPS_BULK 32

/* Of what the build makes differ, nothing is to be said, nor of the smallest code. */
#if defined(__x86_64__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define CAN_COUNT_STEPS (!is_asan())
#else
#define CAN_COUNT_STEPS false
#endif

static volatile long steps_taken;

/* What the assembler puts in so that branches come to lie well: whether there is any
   in the way is chance. */
static inline bool is_padding(const unsigned char *at)
{
	while (*at == 0x66 || *at == 0x2e)
		at++;
	return *at == 0x90 || (at[0] == 0x0f && at[1] == 0x1f);
}

static inline void on_counted_step(int sig, siginfo_t *info, void *context)
{
	(void) sig;
	(void) info;
#if defined(__x86_64__)
	const ucontext_t *at = context;

	if (is_padding((const unsigned char *) at->uc_mcontext.gregs[REG_RIP]))
		return;
#endif
	steps_taken++;
}

static inline struct sigaction count_action(void)
{
	return (struct sigaction){.sa_sigaction = on_counted_step,
	                          .sa_flags = SA_SIGINFO};
}

typedef void stepped_fn(bufpool_t *pool);

static inline long steps_of(stepped_fn *fn, bufpool_t *pool)
{
	steps_taken = 0;
#if defined(__x86_64__)
	__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	fn(pool);
	__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
#endif
	return steps_taken;
}

static inline void step_nothing(bufpool_t *pool)
{
	(void) pool;
}

static inline void step_pair(bufpool_t *pool)
{
	bufpool_return(bufpool_checkout(pool, 4096));
}

static inline void step_bulk(bufpool_t *pool)
{
	bufpool_buf_t *bufs[STEPS_BULK];

	bufpool_return_bulk(bufs,
	                    bufpool_checkout_bulk(pool, 4096, bufs, STEPS_BULK));
}

/* Instructions of a pair of checkout and return from the thread's cache, and of
   one of STEPS_BULK pairs at once. */
struct steps {
	double pair, bulk;
};

static inline double steps_at_rest(stepped_fn *fn, bufpool_t *pool)
{
	long n = steps_of(fn, pool), before;

	/* The first have something to set up. */
	for (int i = 0; i < 100; i++) {
		before = n;
		n = steps_of(fn, pool);
		if (i > 2 && n == before)
			return (double) (n - steps_of(step_nothing, pool));
	}
	must(!"always the same");
	return 0;
}

/* Where it erases, only of a pair: that takes long. */
static inline struct steps count_steps_of(int node, enum bufpool_wipe wipe)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1024);
	struct sigaction on = count_action(), saved;
	struct steps steps = {0};
	bufpool_t *pool;

	config.numa_node = node;
	config.wipe = wipe;
	pool = make_pool(config);
	/* More places than one, if so it is to be. */
	must((bufpool_regions(pool, NULL, 0) > 1) ==
	     (node == BUFPOOL_NUMA_LOCAL));
	must(sigaction(SIGTRAP, &on, &saved) == 0);
	steps.pair = steps_at_rest(step_pair, pool);
	if (wipe == BUFPOOL_WIPE_NONE)
		steps.bulk = steps_at_rest(step_bulk, pool) / STEPS_BULK;
	must(sigaction(SIGTRAP, &saved, NULL) == 0);
	must(stats_of(pool).per_class[BUFPOOL_CLASS_4K].cache_hits > 2);
	destroy_whole(pool);
	return steps;
}

static inline struct steps count_steps(int node)
{
	return count_steps_of(node, BUFPOOL_WIPE_NONE);
}

/* The bar: so many times of what a plain pool takes. */
#define STEPS_MOST 1.3

static inline void check_steps(const char *what, struct steps steps,
                               struct steps plain)
{
	printf("%s: %.1f a pair, %.2f times %.1f; in bulk %.1f, %.2f times %.1f\n",
	       what, steps.pair, steps.pair / plain.pair, plain.pair,
	       steps.bulk, steps.bulk / plain.bulk, plain.bulk);
	fflush(stdout);
	ck_assert(plain.pair > 10 && plain.bulk > 5); /* they are counted */
	ck_assert_double_le(steps.pair, STEPS_MOST * plain.pair);
	ck_assert_double_le(steps.bulk, STEPS_MOST * plain.bulk);
}

#endif /* TESTS_STEPS_H */
