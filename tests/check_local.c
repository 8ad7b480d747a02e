/* SPDX-License-Identifier: MIT */
/*
 * check_local.c - what BUFPOOL_NUMA_LOCAL costs a thread that stays where it is
 *
 * By single-stepping, on two places that hwloc is told of.  The same for pools
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

START_TEST(local_costs_little)
{
	struct steps plain = count_steps(BUFPOOL_NUMA_ANY);

	check_steps("LOCAL", count_steps(BUFPOOL_NUMA_LOCAL), plain);
}
END_TEST

/* Compared with pools that have the fence as well. */
START_TEST(local_costs_little_fenced)
{
	struct steps plain;

	refuse_membarrier();
	plain = count_steps(BUFPOOL_NUMA_ANY);
	check_steps("LOCAL, fenced", count_steps(BUFPOOL_NUMA_LOCAL), plain);
}
END_TEST

int main(void)
{
	Suite *suite;
	TCase *tcase;

	if (!CAN_COUNT_STEPS) {
		puts("skipped: for gcc's optimised x86-64 code, without "
		     "sanitizers");
		return 77;
	}
	suite = suite_create("local");
	tcase = add_case(suite, "steps", 20);
	must(setenv("HWLOC_SYNTHETIC", "node:2 pu:1", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	stay_here();
	tcase_add_test(tcase, local_costs_little);
	tcase_add_test(tcase, local_costs_little_fenced);
	return run_suite(suite);
}
