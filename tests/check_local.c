/* SPDX-License-Identifier: MIT */
/*
 * check_local.c - what BUFPOOL_NUMA_LOCAL costs a thread that stays where it is
 *
 * By single-stepping, on two places that hwloc is told of.  And what pools cost
 * where the system refuses membarrier(): their fast paths have a fence instead.
 */
#include "steps.h"

#include <sched.h>

static void stay_here(void)
{
	int cpu = sched_getcpu();
	cpu_set_t cpus;

	must(cpu >= 0);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	must(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
}

static double count_erased(int node)
{
	return count_steps_of(node, BUFPOOL_WIPE_ALL).pair;
}

/* Of the usual pools, which others are compared with. */
static struct steps plain;
static double erased;

static void count_plain(void)
{
	plain = count_steps(BUFPOOL_NUMA_ANY);
	erased = count_erased(BUFPOOL_NUMA_ANY);
}

/* To erase takes as long here as there. */
static void check_erased(double steps)
{
	ck_assert_double_le(steps, erased + (STEPS_MOST - 1) * plain.pair);
}

START_TEST(local_costs_little)
{
	check_steps("LOCAL", count_steps(BUFPOOL_NUMA_LOCAL), plain);
	check_erased(count_erased(BUFPOOL_NUMA_LOCAL));
}
END_TEST

/* And LOCAL compared with pools that have the fence as well. */
START_TEST(fences_cost_little)
{
	struct steps fenced;

	refuse_membarrier();
	fenced = count_steps(BUFPOOL_NUMA_ANY);
	check_steps("fenced", fenced, plain);
	check_steps("LOCAL, fenced", count_steps(BUFPOOL_NUMA_LOCAL), fenced);
	check_erased(count_erased(BUFPOOL_NUMA_ANY));
}
END_TEST

int main(void)
{
	Suite *suite;
	TCase *tcase;

	if (!CAN_COUNT_STEPS) {
		puts("skipped: for optimised x86-64 code, without "
		     "sanitizers");
		return 77;
	}
	suite = suite_create("local");
	tcase = add_case(suite, "steps", 20);
	must(setenv("HWLOC_SYNTHETIC", "node:2 pu:1", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	stay_here();
	tcase_add_unchecked_fixture(tcase, count_plain, NULL);
	tcase_add_test(tcase, local_costs_little);
	tcase_add_test(tcase, fences_cost_little);
	return run_suite(suite);
}
