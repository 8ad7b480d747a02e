/* SPDX-License-Identifier: MIT */
/*
 * check_place.c - where a pool's memory is placed, or why not
 *
 * More than one NUMA node takes another machine: see check_numa.c; here the
 * nodes are made up.
 */
#include "memory.h"

#include <bufpool/hwloc.h>
#include <stddef.h>

/* --------------------------------------------------------- made-up nodes */

static bufpool_config_t on_node(int node, unsigned flags)
{
	bufpool_config_t config = with_flags(counts(9, 2, 1, 1), flags);

	config.numa_node = node;
	return config;
}

/* One region a class, and we are told where it really is. */
static void must_tell_the_truth(bufpool_t *pool, size_t most)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);
	bufpool_buf_t *buf = bufpool_checkout_4k(pool);

	must(n >= BUFPOOL_CLASSES && n <= most);
	for (size_t i = 0; i < n; i++) {
		must((uintptr_t) r[i].base % PAGE == 0);
		must(r[i].numa_node == node_of(r[i].base, r[i].len));
	}
	must(bufpool_buf_node(buf) == node_of(buf->data, buf->capacity));
	bufpool_return(buf);
	must_work(pool);
	bufpool_destroy(pool);
}

static const int nodes[] = {
	0, 1, 2, 3, 4, 1000, INT32_MAX, BUFPOOL_NUMA_LOCAL, BUFPOOL_NUMA_ANY
};

/* hwloc has a topology, but not of this machine: nothing can be placed. */
static void elsewhere(void *arg)
{
	(void) arg;
	must(setenv("HWLOC_SYNTHETIC", "node:4 core:2 pu:2", 1) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i += is_small() ? 3 : 1) {
		must_tell_the_truth(make_pool(on_node(nodes[i], 0)),
		                    BUFPOOL_CLASSES);
		/* ANY is no place that could be missed. */
		if (nodes[i] != BUFPOOL_NUMA_ANY)
			must_refuse(on_node(nodes[i], BUFPOOL_NUMA_STRICT),
			            ENOSYS, ENOSYS);
	}
}

/* The same, but it claims to be this machine, which has the first node only. */
static void made_up(void *arg)
{
	unsigned flags = *(unsigned *) arg;

	must(setenv("HWLOC_SYNTHETIC", "node:4 core:2 pu:2", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i += is_small() ? 3 : 1) {
		bufpool_config_t config = on_node(nodes[i], flags);
		/* It has CPUs for each of four. */
		bool local = nodes[i] == BUFPOOL_NUMA_LOCAL;

		must_tell_the_truth(make_pool(config),
		                    (local ? 4 : 1) * BUFPOOL_CLASSES);
		config.flags |= BUFPOOL_NUMA_STRICT;
		if (nodes[i] <= 0 && !local)
			must_tell_the_truth(make_pool(config), BUFPOOL_CLASSES);
		else
			must_refuse(config, EINVAL, EINVAL);
	}
}

START_TEST(synthetic_topology)
{
	unsigned flags[] = { 0, BUFPOOL_HUGEPAGES };

	in_child(elsewhere, NULL);
	if (node_of_page(&flags) != 0) /* refused, or there are others */
		return;
	in_child(made_up, &flags[0]);
	in_child(made_up, &flags[1]);
}
END_TEST

/* ------------------------------------------------------------------ refused */

static const struct refusal {
	int error;
	bool placing, looking, fencing;
} refusals[] = {
	{ EPERM, true, true, false },  { ENOSYS, true, true, false },
	{ EPERM, true, false, false }, { EPERM, false, true, false },
	{ EPERM, true, true, true },   { ENOSYS, false, false, true },
};

/* Have system calls fail as in a container. */
static void refuse(const struct refusal *refusal)
{
	const struct {
		bool refused;
		unsigned number;
	} calls[] = {
		{ refusal->placing, SYS_mbind },
		{ refusal->placing, SYS_set_mempolicy },
		{ refusal->placing, SYS_get_mempolicy },
		{ refusal->looking, SYS_move_pages },
		{ refusal->fencing, SYS_membarrier },
	};
	struct sock_filter code[3 + 2 * ARRAY_SIZE(calls)];
	struct sock_fprog program = { 0, code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter) BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		if (!calls[i].refused)
			continue;
		code[n++] = (struct sock_filter) BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
		code[n++] = (struct sock_filter) BPF_STMT(
			BPF_RET | BPF_K,
			SECCOMP_RET_ERRNO | (unsigned) refusal->error);
	}
	code[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K,
	                                          SECCOMP_RET_ALLOW);
	program.len = n;
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* The nodes are unknown if one may not look; that is no error. */
static void must_be_placed(bufpool_t *pool, bool known)
{
	bufpool_buf_t *buf = bufpool_checkout_4k(pool);
	bufpool_region_t r[REGIONS];
	size_t n;

	errno = ERRNO_SENTINEL;
	n = regions_of(pool, r);
	for (size_t i = 0; i < n; i++)
		must((r[i].numa_node >= 0) == known);
	must((bufpool_buf_node(buf) >= 0) == known);
	must(errno == ERRNO_SENTINEL);
	bufpool_return(buf);
	must_work(pool);
	bufpool_destroy(pool);
}

static void live_with_refusal(void *arg)
{
	const struct refusal *refusal = arg;
	bool see = !refusal->looking;

	must(setenv("HWLOC_SYNTHETIC", "node:4 core:2 pu:2", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	refuse(refusal);
	must_be_placed(make_pool(on_node(BUFPOOL_NUMA_ANY, 0)), see);
	must_be_placed(make_pool(on_node(0, 0)), see);
	must_be_placed(make_pool(on_node(1, 0)), see);
	must_be_placed(make_pool(on_node(BUFPOOL_NUMA_LOCAL, 0)), see);
	if (refusal->placing || refusal->looking)
		must_refuse(on_node(0, BUFPOOL_NUMA_STRICT), refusal->error,
		            refusal->error);
	else
		must_be_placed(make_pool(on_node(0, BUFPOOL_NUMA_STRICT)),
		               true);
}

/* What a sleeping thread has cached is found without membarrier(). */
static void steal_with_refusal(void *arg)
{
	struct sleeper sleeper;
	bufpool_t *pool;

	refuse(arg);
	pool = make_pool(even_config(4));
	put_to_sleep(&sleeper, pool, 1);
	must_work(pool);
	wake_up(&sleeper);
	must_work(pool);
	bufpool_destroy(pool);
}

START_TEST(system_calls_refused)
{
	void *refusal = (void *) &refusals[_i];

	if (node_of_page(&refusal) == 0)
		in_child(live_with_refusal, refusal);
	in_child(steal_with_refusal, refusal);
}
END_TEST

/* -------------------------------------------------- the application's hwloc */

static hwloc_topology_t load(const char *synthetic, bool claims)
{
	hwloc_topology_t topology;

	must(hwloc_topology_init(&topology) == 0);
	if (synthetic)
		must(hwloc_topology_set_synthetic(topology, synthetic) == 0);
	if (claims)
		must(hwloc_topology_set_flags(
			     topology, HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM) == 0);
	must(hwloc_topology_load(topology) == 0);
	return topology;
}

static bufpool_t *make_on(bufpool_config_t config, hwloc_topology_t topology,
                          hwloc_const_nodeset_t nodeset)
{
	bufpool_t *pool;

	KEEPS_ERRNO(pool = bufpool_create_hwloc(&config, topology, nodeset));
	must(pool);
	return pool;
}

#define REFUSED_ON(config, topology, nodeset, error)                           \
	do {                                                                   \
		bufpool_config_t refused_on = (config);                        \
		REFUSED(bufpool_create_hwloc(&refused_on, (topology),          \
		                             (nodeset)) == NULL,               \
		        error);                                                \
	} while (0)

START_TEST(own_topology)
{
	hwloc_topology_t topology = load(NULL, false);
	hwloc_const_nodeset_t all =
		hwloc_topology_get_topology_nodeset(topology);
	hwloc_nodeset_t set = hwloc_bitmap_alloc();
	int real = hwloc_bitmap_first(all);
	bufpool_config_t bad = on_node(BUFPOOL_NUMA_ANY, 0x4000);
	bufpool_t *pool;

	REFUSED(bufpool_create_hwloc(NULL, NULL, NULL) == NULL, EINVAL);
	REFUSED(bufpool_create_hwloc(NULL, NULL, all) == NULL, EINVAL);
	REFUSED(bufpool_create_hwloc(NULL, topology, set) == NULL, EINVAL);
	REFUSED_ON(bad, topology, NULL, EINVAL);
	pool = bufpool_create_hwloc(NULL, topology, NULL);
	ck_assert_ptr_nonnull(pool);
	must_work(pool);
	bufpool_destroy(pool);

	hwloc_bitmap_only(set, (unsigned) real);
	for (unsigned strict = 0; strict <= BUFPOOL_NUMA_STRICT; strict++) {
		const int wanted[] = { real, BUFPOOL_NUMA_ANY,
			               BUFPOOL_NUMA_LOCAL };

		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
			bufpool_config_t cfg = on_node(wanted[i], strict);

			must_be_placed(make_on(cfg, topology, set), true);
			must_tell_the_truth(make_on(cfg, topology, NULL),
			                    REGIONS);
		}
	}
	/* A node that is not in the set, a set that is not on the machine. */
	REFUSED_ON(on_node(real + 1, BUFPOOL_NUMA_STRICT), topology, set,
	           EINVAL);
	must_work(pool = make_on(on_node(real + 1, 0), topology, set));
	bufpool_destroy(pool);
	hwloc_bitmap_only(set, 900);
	REFUSED_ON(on_node(real, BUFPOOL_NUMA_STRICT), topology, set, EINVAL);
	REFUSED_ON(on_node(BUFPOOL_NUMA_ANY, BUFPOOL_NUMA_STRICT), topology,
	           set, EINVAL);
	must_work(pool = make_on(on_node(real, 0), topology, set));
	bufpool_destroy(pool);

	/* The caller's still. */
	ck_assert(hwloc_bitmap_isset(all, (unsigned) real));
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(topology);
}
END_TEST

START_TEST(topology_of_another_machine)
{
	hwloc_topology_t topology = load("node:4 core:2 pu:2", false);
	bufpool_t *pool;

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i += is_small() ? 3 : 1) {
		REFUSED_ON(on_node(nodes[i], BUFPOOL_NUMA_STRICT), topology,
		           NULL, ENOSYS);
		pool = make_on(on_node(nodes[i], 0), topology, NULL);
		must_tell_the_truth(pool, BUFPOOL_CLASSES);
	}
	hwloc_topology_destroy(topology);
}
END_TEST

/* Four places, all on the one node that there is: each class is spread over
   them, the remainders too, and served from every one. */
START_TEST(places_share_a_class)
{
	hwloc_topology_t topology = load("node:4 core:2 pu:2", true);
	bufpool_config_t config = on_node(BUFPOOL_NUMA_LOCAL, 0);
	size_t count[BUFPOOL_CLASSES] = { 0 };
	bufpool_region_t r[REGIONS];
	bufpool_t *pool = make_on(config, topology, NULL);
	size_t n = regions_of(pool, r);

	ck_assert_uint_eq(n, 4 + 2 + 1 + 1);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(r[i].index, i);
		for (size_t j = 0; j < i; j++)
			ck_assert(!overlap(&r[i], &r[j]));
		count[r[i].size_class] +=
			r[i].len / classes[r[i].size_class].size;
	}
	ck_assert_mem_eq(count, config.count, sizeof(count));
	must_work(pool);
	ck_assert_uint_eq(bufpool_trim(pool), bytes_of(&config));
	ck_assert_uint_eq(bufpool_trim(pool), 0);
	must_work(pool);
	in_child(work_and_trim, pool);
	must_work(pool);
	bufpool_destroy(pool);

	REFUSED_ON(on_node(BUFPOOL_NUMA_LOCAL, BUFPOOL_NUMA_STRICT), topology,
	           NULL, EINVAL);
	hwloc_topology_destroy(topology);
}
END_TEST

/* What an application does not want to see of a machine is there all the
   same: one node left in a topology is not all there is. */
START_TEST(restricted_topology)
{
	hwloc_topology_t topology = load("node:4 core:2 pu:2", true);
	hwloc_nodeset_t set = hwloc_bitmap_alloc();

	hwloc_bitmap_only(set, 1);
	must(hwloc_topology_restrict(topology, set,
	                             HWLOC_RESTRICT_FLAG_BYNODESET) == 0);
	must(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) == 1);
	if (node_of_page(&set) == 0) {
		REFUSED_ON(on_node(1, BUFPOOL_NUMA_STRICT), topology, NULL,
		           EINVAL);
		must_tell_the_truth(make_on(on_node(1, 0), topology, NULL),
		                    BUFPOOL_CLASSES);
	}
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(topology);
}
END_TEST

START_TEST(best_node)
{
	hwloc_topology_t topology =
		load("node:2(memory=1GB) core:2 pu:2", true);
	hwloc_const_cpuset_t all = hwloc_topology_get_topology_cpuset(topology);
	hwloc_cpuset_t set = hwloc_bitmap_alloc();
	const hwloc_memattr_id_t capacity = HWLOC_MEMATTR_ID_CAPACITY;
	const hwloc_memattr_id_t bandwidth = HWLOC_MEMATTR_ID_BANDWIDTH;
	struct hwloc_location from = { HWLOC_LOCATION_TYPE_CPUSET, { 0 } };
	int node;

	REFUSED(bufpool_hwloc_best_node(NULL, all, capacity) == -1, EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, NULL, capacity) == -1,
	        EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, set, capacity) == -1, EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, all, 9999) == -1, EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, all, bandwidth) == -1,
	        ENOENT);
	KEEPS_ERRNO(node = bufpool_hwloc_best_node(topology, all, capacity));
	ck_assert_int_eq(node, 0); /* the first of equals */

	/* Each node is the best for its own CPUs, the second is better. */
	for (unsigned i = 0; i < 2; i++) {
		hwloc_obj_t obj =
			hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, i);

		from.location.cpuset = obj->cpuset;
		must(hwloc_memattr_set_value(topology, bandwidth, obj, &from, 0,
		                             100 + i) == 0);
		must(hwloc_memattr_set_value(topology, HWLOC_MEMATTR_ID_LATENCY,
		                             obj, &from, 0, 100 + i) == 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		hwloc_bitmap_only(set, 4 * i);
		ck_assert_int_eq(
			bufpool_hwloc_best_node(topology, set, bandwidth),
			(int) i);
	}
	ck_assert_int_eq(bufpool_hwloc_best_node(topology, all, bandwidth), 1);
	ck_assert_int_eq(bufpool_hwloc_best_node(topology, all,
	                                         HWLOC_MEMATTR_ID_LATENCY),
	                 0);
	/* CPUs that there are not. */
	hwloc_bitmap_only(set, 100);
	REFUSED(bufpool_hwloc_best_node(topology, set, bandwidth) == -1,
	        ENOENT);
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(topology);
}
END_TEST

/* ---------------------------------------------------------------- the suite */

static Suite *place_suite(void)
{
	Suite *suite = suite_create("place");
	TCase *tc = add_case(suite, "placing", 20);

	tcase_add_test(tc, synthetic_topology);
	tcase_add_loop_test(tc, system_calls_refused, 0, ARRAY_SIZE(refusals));
	tcase_add_test(tc, own_topology);
	tcase_add_test(tc, topology_of_another_machine);
	tcase_add_test(tc, places_share_a_class);
	tcase_add_test(tc, restricted_topology);
	tcase_add_test(tc, best_node);
	return suite;
}

int main(void)
{
	lock_huge_pages(LOCK_SH);
	return run_suite(place_suite());
}
