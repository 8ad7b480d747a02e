/* SPDX-License-Identifier: MIT */
/*
 * check_numa.c - memory lies where it should: tests for machines of many nodes
 *
 * numa.sh boots such machines and runs us in each, with its name:
 *
 *     four   4 nodes, each with a CPU; distances that differ by direction
 *     gap    hwloc's logical indexes are not the system's: node 1 is absent,
 *            node 2 has no memory, node 4 has no CPU
 *     hmat   2 nodes with CPUs and 2 of fast memory without, which hwloc puts
 *            between them; the firmware tells bandwidth and latency
 *     full   2 nodes; the tests fill the second
 */
#include "numa.h"

static const struct machine {
	const char *name;
	unsigned cpu, memory; /* nodes that have them */
	void (*parts[5])(Suite *suite);
} machines[] = {
	{ "four",
	  0xf,
	  0xf,
	  { add_place_cases, add_local_cases, add_stay_cases,
	    add_hwloc_cases } },
	{ "gap",
	  0xd,
	  0x19,
	  { add_place_cases, add_local_cases, add_stay_cases, add_hwloc_cases,
	    add_index_cases } },
	{ "hmat",
	  0x3,
	  0xf,
	  { add_place_cases, add_hwloc_cases, add_index_cases,
	    add_hmat_cases } },
	{ "full", 0x3, 0x3, { add_full_cases } },
};

static const struct machine *machine;

START_TEST(machine_is_as_named)
{
	ck_assert_uint_eq(nodes_that("has_cpu"), machine->cpu);
	ck_assert_uint_eq(nodes_that("has_memory"), machine->memory);
	ck_assert_uint_eq(nodes_that("online"), machine->cpu | machine->memory);
}
END_TEST

/* The page-by-page check sees a single page that lies elsewhere. */
START_TEST(strays_are_found)
{
	const size_t pages = 600;
	int here = __builtin_ctz(machine->memory);
	int there = 31 - __builtin_clz(machine->memory);

	for (size_t stray = 0; stray < pages; stray += pages - 1) {
		char *base = map_on(here, pages * PAGE, MPOL_PREFERRED);
		char *odd = base + stray * PAGE;
		unsigned long mask = 1ul << there;

		ck_assert_int_eq(where_is(base, pages * PAGE), ABSENT);
		memset(base, 1, pages * PAGE);
		ck_assert_int_eq(where_is(base, pages * PAGE), here);
		must(madvise(odd, PAGE, MADV_DONTNEED) == 0);
		ck_assert_int_eq(where_is(base, pages * PAGE), ABSENT);
		must(syscall(SYS_mbind, odd, PAGE, MPOL_PREFERRED, &mask,
		             8 * sizeof(mask), 0) == 0);
		*odd = 1;
		ck_assert_int_eq(where_is(odd, PAGE), there);
		ck_assert_int_eq(where_is(base, pages * PAGE), SPREAD);
	}
}
END_TEST

static Suite *numa_suite(void)
{
	Suite *suite = suite_create(machine->name);
	TCase *tcase = add_case(suite, "machine", 30);

	tcase_add_test(tcase, machine_is_as_named);
	tcase_add_test(tcase, strays_are_found);
	for (size_t i = 0; i < ARRAY_SIZE(machine->parts); i++)
		if (machine->parts[i])
			machine->parts[i](suite);
	return suite;
}

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < ARRAY_SIZE(machines); i++)
		if (strcmp(argv[1], machines[i].name) == 0)
			machine = &machines[i];
	if (!machine) {
		fprintf(stderr,
		        "check_numa is run by numa.sh: make check-numa\n");
		return 2;
	}
	return run_suite(numa_suite());
}
