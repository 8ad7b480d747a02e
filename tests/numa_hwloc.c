/* SPDX-License-Identifier: MIT */
/* numa_hwloc.c - <bufpool/hwloc.h>: node sets, and the best node for some CPUs */
#include "numa.h"

#include <bufpool/hwloc.h>

static hwloc_topology_t topology;

static void load(void)
{
	must(hwloc_topology_init(&topology) == 0);
	must(hwloc_topology_load(topology) == 0);
}

static void unload(void)
{
	hwloc_topology_destroy(topology);
}

static hwloc_nodeset_t nodeset(unsigned mask)
{
	hwloc_nodeset_t set = hwloc_bitmap_alloc();

	must(set);
	hwloc_bitmap_from_ulong(set, mask);
	return set;
}

/* The CPUs of these nodes. */
static hwloc_cpuset_t cpus_of(unsigned mask)
{
	hwloc_cpuset_t set = hwloc_bitmap_alloc();
	char path[64];

	must(set);
	for (int node = 0; node < MAX_NODES; node++)
		if (in(node, mask)) {
			unsigned cpus;

			snprintf(path, sizeof(path),
			         "/sys/devices/system/node/node%d/cpulist",
			         node);
			cpus = read_list(path);
			for (unsigned cpu = 0; cpu < 32; cpu++)
				if (cpus >> cpu & 1)
					hwloc_bitmap_set(set, cpu);
		}
	return set;
}

/* ---------------------------------------------------------------- node sets */

static const unsigned flags[] = { 0, BUFPOOL_NUMA_STRICT | BUFPOOL_HUGEPAGES };

/* A pool on any set of this machine's nodes lies there. */
START_TEST(lands_on_the_set)
{
	unsigned mask = (unsigned) _i;

	if ((mask & ~nodes_that("has_memory")) != 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		bufpool_config_t config =
			node_config(BUFPOOL_NUMA_ANY, flags[i]);
		hwloc_nodeset_t set = nodeset(mask);
		unsigned creators = nodes_that("has_cpu");
		bufpool_t *pool;

		/* From outside of the set, where there is such a CPU. */
		pin(__builtin_ctz(creators & ~mask ? creators & ~mask
		                                   : creators));
		pool = bufpool_create_hwloc(&config, topology, set);
		ck_assert_msg(pool, "nodes %#x, flags %#x: errno %d", mask,
		              config.flags, errno);
		hwloc_bitmap_free(set);
		check_truth(pool);
		for (int k = 0; k < BUFPOOL_CLASSES; k++) {
			struct census found = census(pool, k);

			for (int node = 0; node < MAX_NODES; node++)
				ck_assert(in(node, mask) ||
				          found.on[node] == 0);
		}
		if (count_nodes(mask) == 1)
			check_within(pool, mask);
		destroy_whole(pool);
	}
}
END_TEST

/* The topology is used during the call only. */
START_TEST(topology_may_go)
{
	unsigned memory = nodes_that("has_memory");
	int last = 31 - __builtin_clz(memory);
	bufpool_config_t config = node_config(BUFPOOL_NUMA_ANY, 0);
	hwloc_nodeset_t set = nodeset(1u << last);
	hwloc_topology_t brief;
	bufpool_t *pool;

	must(hwloc_topology_init(&brief) == 0);
	must(hwloc_topology_load(brief) == 0);
	pool = bufpool_create_hwloc(&config, brief, set);
	must(pool);
	hwloc_topology_destroy(brief);
	hwloc_bitmap_free(set);
	check_truth(pool);
	check_within(pool, 1u << last);
	bufpool_trim(pool);
	destroy_whole(pool);
}
END_TEST

START_TEST(absent_set)
{
	bufpool_config_t config =
		node_config(BUFPOOL_NUMA_ANY, BUFPOOL_NUMA_STRICT);
	hwloc_nodeset_t set = nodeset(1u << 7), none = nodeset(0);

	REFUSED(!bufpool_create_hwloc(&config, topology, set), EINVAL);
	REFUSED(!bufpool_create_hwloc(&config, topology, none), EINVAL);
	hwloc_bitmap_free(set);
	set = nodeset(1);
	REFUSED(!bufpool_create_hwloc(&config, NULL, set), EINVAL);
	hwloc_bitmap_free(set);
	hwloc_bitmap_free(none);
}
END_TEST

/* A firmware that tells nothing of bandwidth. */
START_TEST(no_best_node)
{
	hwloc_cpuset_t cpus = cpus_of(1);

	REFUSED(bufpool_hwloc_best_node(topology, cpus,
	                                HWLOC_MEMATTR_ID_BANDWIDTH) == -1,
	        ENOENT);
	hwloc_bitmap_free(cpus);
}
END_TEST

void add_hwloc_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "hwloc", 60);

	tcase_add_unchecked_fixture(tcase, load, unload);
	tcase_add_loop_test(tcase, lands_on_the_set, 1, 32);
	tcase_add_test(tcase, topology_may_go);
	tcase_add_test(tcase, absent_set);
	if (access("/sys/devices/system/node/node0/access0", F_OK) != 0)
		tcase_add_test(tcase, no_best_node);
}

/* hwloc counts otherwise than the system: else to mix them up would go unseen. */
START_TEST(logical_is_not_os_index)
{
	hwloc_obj_t node = NULL;
	bool differs = false;

	while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE,
	                                          node)))
		differs = differs || node->logical_index != node->os_index;
	ck_assert(differs);
}
END_TEST

void add_index_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "index", 60);

	tcase_add_unchecked_fixture(tcase, load, unload);
	tcase_add_test(tcase, logical_is_not_os_index);
}

/* -------------------------------------------------------------------- HMAT */

/*
 * Nodes 0 and 1 have CPUs; 2 is fast memory of node 0, 3 faster one of node 1,
 * each of a higher latency than plain memory.
 */
static const struct best {
	unsigned cpus; /* of these nodes */
	hwloc_memattr_id_t attribute;
	unsigned answers;
} best[] = {
	{ 1u << 0, HWLOC_MEMATTR_ID_BANDWIDTH, 1u << 2 },
	{ 1u << 1, HWLOC_MEMATTR_ID_BANDWIDTH, 1u << 3 },
	{ 3, HWLOC_MEMATTR_ID_BANDWIDTH, 1u << 3 },
	{ 1u << 0, HWLOC_MEMATTR_ID_LATENCY, 1u << 0 },
	{ 1u << 1, HWLOC_MEMATTR_ID_LATENCY, 1u << 1 },
	{ 3, HWLOC_MEMATTR_ID_LATENCY, 3 },
};

START_TEST(best_node)
{
	hwloc_cpuset_t cpus = cpus_of(best[_i].cpus);
	bufpool_config_t config = default_config;
	bufpool_t *pool;
	int node;

	KEEPS_ERRNO(node = bufpool_hwloc_best_node(topology, cpus,
	                                           best[_i].attribute));
	ck_assert_msg(in(node, best[_i].answers), "node %d, not in %#x", node,
	              best[_i].answers);
	hwloc_bitmap_free(cpus);

	/* And it is what create takes. */
	config.numa_node = node;
	config.flags = BUFPOOL_NUMA_STRICT;
	pool = make_pool(config);
	check_truth(pool);
	check_within(pool, 1u << node);
	bufpool_destroy(pool);
}
END_TEST

void add_hmat_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "hmat", 60);

	tcase_add_unchecked_fixture(tcase, load, unload);
	tcase_add_loop_test(tcase, best_node, 0, ARRAY_SIZE(best));
}
