/* SPDX-License-Identifier: MIT */
/*
 * check_crowd.c - what others cost that are gone, or do nothing: threads, pools
 *
 * Counted in instructions, by single-stepping, so that a busy machine does not
 * matter.
 */
#include "steps.h"

#include "memory.h"

enum { CROWD = 1000, COUNT = 8 };

/* Instructions more that any call may take for one of them: a bit to pass over is
   less, a look at what belongs to it is more. */
#define MORE_EACH 1.0

static void count_by_steps(void)
{
	const struct sigaction on = count_action();

	must(sigaction(SIGTRAP, &on, NULL) == 0);
}

static void not_more_than(const char *what, long steps, long alone, int n)
{
	ck_assert_int_gt(alone, 10); /* they are counted */
	ck_assert_msg((double) steps <= (double) alone + n * MORE_EACH,
	              "%s: %ld instructions, %ld without these %d", what, steps,
	              alone, n);
}

/* ------------------------------------------------------------------ threads */

static struct {
	bufpool_t *pool;
	pthread_barrier_t met, over;
	pthread_t threads[CROWD];
	int n;
	long steps;
} crowd;

static void *meet_pool(void *arg)
{
	step_pair(crowd.pool);
	bufpool_thread_flush(crowd.pool);
	meet(&crowd.met);
	meet(&crowd.over);
	return arg;
}

/* All at once, and then they sleep, with nothing in their caches. */
static void gather_crowd(bufpool_t *pool, int n)
{
	pthread_attr_t attr;

	must(pthread_attr_init(&attr) == 0);
	must(pthread_attr_setstacksize(&attr, 128 * 1024) == 0);
	must(!pthread_barrier_init(&crowd.met, NULL, (unsigned) n + 1));
	must(!pthread_barrier_init(&crowd.over, NULL, (unsigned) n + 1));
	crowd.pool = pool;
	crowd.n = n;
	for (int i = 0; i < n; i++)
		must(pthread_create(&crowd.threads[i], &attr, meet_pool,
		                    NULL) == 0);
	meet(&crowd.met);
}

static void dissolve_crowd(void)
{
	meet(&crowd.over);
	while (crowd.n > 0)
		join_thread(crowd.threads[--crowd.n]);
}

static void *first_call(void *pool)
{
	crowd.steps = steps_of(step_pair, pool);
	return NULL;
}

static long steps_of_first_call(bufpool_t *pool)
{
	run_thread(first_call, pool);
	return crowd.steps;
}

static void fail_to_take(bufpool_t *pool)
{
	must(!bufpool_try_checkout(pool, 1));
}

static void trim(bufpool_t *pool)
{
	bufpool_trim(pool);
}

static void read_stats(bufpool_t *pool)
{
	must(stats_of(pool).per_class[BUFPOOL_CLASS_4K].total == COUNT);
}

/* Of each call: while the class is plentiful, when it becomes exhausted, and then. */
struct costs {
	long first, stats, trim, exhaust, fail, trim_none;
};

/* The calls that look at the caches of all who are there. */
static void look_at_all(bufpool_t *pool, struct costs *costs)
{
	stats_of(pool); /* once for each that has left since the last time */
	costs->stats = steps_of(read_stats, pool);
	costs->trim = steps_of(trim, pool);
	make_plentiful(pool);
}

static struct costs costs_of(bufpool_t *pool, bool look)
{
	bufpool_buf_t *bufs[COUNT];
	struct costs costs = {0};

	costs.first = steps_of_first_call(pool);
	if (look)
		look_at_all(pool, &costs);
	must(drain(pool, BUFPOOL_CLASS_4K, bufs, COUNT) == COUNT);
	if (look)
		costs.exhaust = steps_of(fail_to_take, pool);
	else
		fail_to_take(pool);
	costs.fail = steps_of(fail_to_take, pool);
	bufpool_return_bulk(bufs, COUNT);
	costs.trim_none = steps_of(trim, pool);
	return costs;
}

static struct costs costs_alone(void)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, COUNT);
	struct costs costs;

	step_pair(pool);
	costs = costs_of(pool, true);
	destroy_whole(pool);
	return costs;
}

START_TEST(threads_that_are_gone)
{
	const struct costs alone = costs_alone();
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, COUNT);
	struct costs costs;

	gather_crowd(pool, CROWD);
	dissolve_crowd();
	costs = costs_of(pool, true);
	not_more_than("first call", costs.first, alone.first, CROWD);
	not_more_than("statistics", costs.stats, alone.stats, CROWD);
	not_more_than("trim", costs.trim, alone.trim, CROWD);
	not_more_than("exhausted", costs.exhaust, alone.exhaust, CROWD);
	not_more_than("failing", costs.fail, alone.fail, 0);
	not_more_than("trim again", costs.trim_none, alone.trim_none, 0);
	destroy_whole(pool);
}
END_TEST

START_TEST(threads_that_sleep)
{
	const struct costs alone = costs_alone();
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, COUNT);
	struct costs costs;

	gather_crowd(pool, CROWD);
	costs = costs_of(pool, false);
	not_more_than("first call", costs.first, alone.first, CROWD);
	not_more_than("failing", costs.fail, alone.fail, 0);
	not_more_than("trim again", costs.trim_none, alone.trim_none, 0);
	dissolve_crowd();
	destroy_whole(pool);
}
END_TEST

/* What those that are gone have counted is counted still, whoever comes after them,
   and whenever it is looked at. */
START_TEST(the_gone_count)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);
	bufpool_class_stats_t now;
	uint64_t n = 0;

	for (int i = 1; i < 40; i++) {
		gather_crowd(pool, i % 4 + 1);
		n += (uint64_t) crowd.n;
		if (i % 2)
			now = stats_of(pool).per_class[BUFPOOL_CLASS_4K];
		dissolve_crowd();
		if (i % 3)
			continue;
		now = stats_of(pool).per_class[BUFPOOL_CLASS_4K];
		ck_assert_uint_eq(now.cache_hits + now.depot_hits + now.stolen,
		                  n);
		ck_assert_uint_eq(now.checked_out, 0);
	}
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------------- pools */

enum { POOLS = 1500, SOME = 100, FEW = 4 };

static bufpool_t *pools[POOLS];

static bufpool_t *small_pool(void)
{
	return class_pool(BUFPOOL_CLASS_4K, 1);
}

/* Meets n of them: the instructions of one, on the average. */
static long meet_pools(bufpool_t **some, int n)
{
	long steps = 0;

	for (int i = 0; i < n; i++) {
		some[i] = small_pool();
		steps += steps_of(step_pair, some[i]);
	}
	return steps / n;
}

static void make_and_meet(bufpool_t **some, int n)
{
	for (int i = 0; i < n; i++) {
		some[i] = small_pool();
		step_pair(some[i]);
	}
}

/* A thread that knows many meets another, also where pools come and go. */
START_TEST(pools_that_live)
{
	long first, last, passing = 0;

	first = meet_pools(pools, FEW);
	make_and_meet(pools + FEW, POOLS - 2 * FEW);
	last = meet_pools(pools + POOLS - FEW, FEW);
	not_more_than("another pool", last, first, FEW);
	for (int i = 0; i < FEW; i++) {
		bufpool_t *pool = small_pool();

		passing += steps_of(step_pair, pool);
		bufpool_destroy(pool);
	}
	not_more_than("one that passes", passing / FEW, first, POOLS);
	for (int i = 0; i < POOLS; i++)
		bufpool_destroy(pools[i]);
}
END_TEST

/* A page for the cache of each pool is given back by a flush of all, or when the
   thread meets another pool.  The loop index says by which. */
START_TEST(pools_that_are_gone)
{
	bufpool_t *pool = small_pool();
	long before;

	if (keeps_books())
		return;
	make_and_meet(pools, SOME);
	for (int i = 0; i < SOME; i++)
		bufpool_destroy(pools[i]);
	before = footprint();
	if (_i)
		step_pair(pool);
	else
		bufpool_thread_flush(NULL);
	ck_assert_int_le(footprint(), before - (SOME - 4) * (long) PAGE / 1024);
	bufpool_destroy(pool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("crowd");
	TCase *tcase = add_case(suite, "crowd", 20);

	tcase_add_test(tcase, the_gone_count);
	tcase_add_loop_test(tcase, pools_that_are_gone, 0, 2);
	if (CAN_COUNT_STEPS) {
		count_by_steps();
		tcase_add_test(tcase, threads_that_are_gone);
		tcase_add_test(tcase, threads_that_sleep);
		tcase_add_test(tcase, pools_that_live);
	}
	return run_suite(suite);
}
