/* SPDX-License-Identifier: MIT */
/* numa_place.c - every page of every class lies where its pool was told to */
#include "numa.h"

#include <limits.h>

static const unsigned flags[] = {
	0,
	BUFPOOL_NUMA_STRICT,
	BUFPOOL_HUGEPAGES,
	BUFPOOL_NUMA_STRICT | BUFPOOL_HUGEPAGES,
	BUFPOOL_NUMA_STRICT | BUFPOOL_LOCKED,
};

/* Anywhere, local, and each node that has memory. */
static int modes[2 + MAX_NODES] = { BUFPOOL_NUMA_ANY, BUFPOOL_NUMA_LOCAL };
static int n_modes = 2;

/* Attaching is the moment at which a region must lie where it stays. */
static void *check_when_attached(void *arg, const bufpool_region_t *region)
{
	*(int *) arg += 1;
	check_region(region);
	return arg;
}

static void count_detached(void *arg, const bufpool_region_t *region,
                           void *cookie)
{
	(void) region;
	must(cookie == arg);
	*(int *) arg -= 1;
}

/* Among the nodes that threads run on, as evenly as it goes. */
static void check_shares(bufpool_t *pool)
{
	unsigned homes = home_nodes();
	size_t n = (size_t) count_nodes(homes);

	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		struct census found = census(pool, k);

		for (int node = 0; node < MAX_NODES; node++)
			if (!in(node, homes))
				ck_assert_uint_eq(found.on[node], 0);
			else
				ck_assert(found.on[node] == counts[k] / n ||
				          found.on[node] == counts[k] / n + 1);
	}
}

START_TEST(placed)
{
	int mode = modes[_i % n_modes], attached = 0;
	bufpool_config_t config = node_config(mode, flags[_i / n_modes]);
	bufpool_t *pool;

	config.region_attach = check_when_attached;
	config.region_detach = count_detached;
	config.region_arg = &attached;
	/* Not by chance because the creator runs there. */
	pin(other_node(mode));
	pool = bufpool_create(&config);
	ck_assert_msg(pool, "node %d, flags %#x: errno %d", mode, config.flags,
	              errno);
	check_truth(pool);
	ck_assert_int_eq(attached, (int) bufpool_regions(pool, NULL, 0));
	if (mode >= 0)
		check_within(pool, 1u << mode);
	else if (mode == BUFPOOL_NUMA_LOCAL)
		check_shares(pool);
	destroy_whole(pool);
	ck_assert_int_eq(attached, 0);
}
END_TEST

/* A class alone; and as few buffers as there may be. */
START_TEST(placed_alone)
{
	int mode = modes[_i % n_modes], size_class = _i / n_modes;

	for (size_t count = 1; count <= 5; count += 4) {
		bufpool_config_t config = class_config(size_class, count);
		bufpool_t *pool;

		config.numa_node = mode;
		config.flags = BUFPOOL_NUMA_STRICT;
		pin(other_node(mode));
		pool = bufpool_create(&config);
		ck_assert_msg(pool, "node %d, class %s: errno %d", mode,
		              classes[size_class].name, errno);
		check_truth(pool);
		if (mode >= 0)
			check_within(pool, 1u << mode);
		else if (mode == BUFPOOL_NUMA_LOCAL)
			check_within(pool, home_nodes());
		bufpool_destroy(pool);
	}
}
END_TEST

/* Nodes that are not there: strict refuses, best effort is honest. */
static const int absent[] = { 7, 31, 32, 63, 64, 1024, INT_MAX };

START_TEST(absent_node)
{
	bufpool_config_t config = node_config(absent[_i], 0);
	bufpool_t *pool = make_pool(config);

	check_truth(pool);
	bufpool_destroy(pool);
	config.flags = BUFPOOL_NUMA_STRICT;
	check_refused(&config, EINVAL);
	config.flags |= BUFPOOL_HUGEPAGES | BUFPOOL_LOCKED;
	check_refused(&config, EINVAL);
}
END_TEST

/* The same for nodes of this machine's range without memory. */
START_TEST(node_without_memory)
{
	if (in(_i, nodes_that("has_memory")))
		return;
	bufpool_config_t config = node_config(_i, 0);
	bufpool_t *pool = make_pool(config);

	check_truth(pool);
	bufpool_destroy(pool);
	config.flags = BUFPOOL_NUMA_STRICT;
	check_refused(&config, EINVAL);
}
END_TEST

/* Huge pages that one node has, and the others have not. */
START_TEST(huge_pages_of_one_node)
{
	static const char *const file =
		"/sys/devices/system/node/node0/"
		"hugepages/hugepages-2048kB/nr_hugepages";

	write_file(file, "12\n");
	for (int i = 0; i < n_modes; i++)
		for (unsigned strict = 0; strict <= BUFPOOL_NUMA_STRICT;
		     strict += BUFPOOL_NUMA_STRICT) {
			bufpool_t *pool = make_pool(node_config(
				modes[i], BUFPOOL_HUGEPAGES | strict));

			check_truth(pool);
			if (modes[i] >= 0)
				check_within(pool, 1u << modes[i]);
			else if (modes[i] == BUFPOOL_NUMA_LOCAL)
				check_shares(pool);
			destroy_whole(pool);
		}
}
END_TEST

static void free_huge_pages(void)
{
	write_file("/proc/sys/vm/nr_hugepages", "0\n");
}

void add_place_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "place", 60);

	for (int node = 0; node < MAX_NODES; node++)
		if (in(node, nodes_that("has_memory")))
			modes[n_modes++] = node;
	tcase_add_loop_test(tcase, placed, 0,
	                    n_modes * (int) ARRAY_SIZE(flags));
	tcase_add_loop_test(tcase, placed_alone, 0, n_modes * BUFPOOL_CLASSES);
	tcase_add_loop_test(tcase, absent_node, 0, ARRAY_SIZE(absent));
	tcase_add_loop_test(tcase, node_without_memory, 0, 5);

	tcase = add_case(suite, "huge", 60);
	tcase_add_unchecked_fixture(tcase, NULL, free_huge_pages);
	tcase_add_test(tcase, huge_pages_of_one_node);
}
