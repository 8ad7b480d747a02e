/* SPDX-License-Identifier: MIT */
/*
 * numa_full.c - a node with too little left: strict fails with an errno, best
 * effort goes elsewhere and says so, and nobody is killed
 *
 * The kernel's answer to memory that is bound to a full node is to kill the
 * largest process, whatever node that uses: here a bystander.
 */
#include "numa.h"

#define FULL 1        /* the node, of 128 MB */
#define LOT (24 * MB) /* for a node that is nearly full */

/* ------------------------------------------------------------- bystander */

static pid_t bystander;

static void start_bystander(void)
{
	const size_t len = 320 * MB;
	int ready[2];
	char byte = 0;

	must(pipe(ready) == 0);
	fflush(NULL);
	bystander = fork();
	must(bystander >= 0);
	if (bystander == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memset(map_on(0, len, MPOL_PREFERRED), 1, len);
		must(write(ready[1], &byte, 1) == 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	must(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
}

static void stop_bystander(void)
{
	int status;

	kill(bystander, SIGKILL);
	must(waitpid(bystander, &status, 0) == bystander);
}

/* After each test: nobody was killed, neither it nor anybody else. */
static void check_survivors(void)
{
	char text[32768], *at;

	at = strstr(read_file("/proc/vmstat", text, sizeof(text)), "oom_kill ");
	must(at && strtol(at + strlen("oom_kill "), NULL, 10) == 0);
	must(kill(bystander, 0) == 0);
	snprintf(text, sizeof(text), "/proc/%d/stat", (int) bystander);
	read_file(text, text, sizeof(text));
	must(strstr(text, ") S ") != NULL); /* asleep; no zombie */
}

/* ------------------------------------------------------------ the full node */

/*
 * Take all the node has, but for so many bytes, until this process ends.  Under
 * a preference, which kills nobody: the node is full when pages go elsewhere.
 * First in huge pages, for speed, then in small ones.
 */
static void fill_node(size_t leave)
{
	static const int advice[] = { MADV_HUGEPAGE, MADV_NOHUGEPAGE };
	const size_t step = 2 * MB;
	char *base = map_on(FULL, 512 * MB, MPOL_PREFERRED), *at;

	base += -(uintptr_t) base & (step - 1);
	at = base;
	for (size_t i = 0; i < ARRAY_SIZE(advice); i++)
		do {
			must(madvise(at, step, advice[i]) == 0);
			must(madvise(at, step, MADV_POPULATE_WRITE) == 0);
			at += step;
		} while (where_is(at - step, step) == FULL);
	must(leave < (size_t) (at - base) / 2);
	must(leave == 0 || munmap(base, leave) == 0);
}

static bufpool_config_t big_config(int size_class, size_t bytes, int node,
                                   unsigned flags)
{
	bufpool_config_t config =
		class_config(size_class, bytes / classes[size_class].size);

	config.numa_node = node;
	config.flags = flags;
	return config;
}

/* ------------------------------------------------------------------- tests */

/* Every class; the flags need not be tried with each. */
static const struct {
	int size_class;
	unsigned flags;
} variants[] = {
	{ BUFPOOL_CLASS_4K, 0 },
	{ BUFPOOL_CLASS_64K, 0 },
	{ BUFPOOL_CLASS_256K, 0 },
	{ BUFPOOL_CLASS_1M, 0 },
	{ BUFPOOL_CLASS_4K, BUFPOOL_LOCKED },
	{ BUFPOOL_CLASS_1M, BUFPOOL_HUGEPAGES },
};

/* More than is left, in every class, on that node or as its share. */
START_TEST(strict_is_refused)
{
	int size_class = variants[_i].size_class;
	unsigned flags = variants[_i].flags | BUFPOOL_NUMA_STRICT;
	bufpool_config_t config;
	size_t left;

	fill_node(8 * MB);
	left = node_meminfo(FULL, "MemFree:");
	config = big_config(size_class, LOT, FULL, flags);
	check_refused(&config, ENOMEM);
	config = big_config(size_class, 2 * LOT, BUFPOOL_NUMA_LOCAL, flags);
	check_refused(&config, ENOMEM);
	/* The kernel keeps some in lists of its own. */
	ck_assert_uint_ge(node_meminfo(FULL, "MemFree:") + 4 * MB, left);
}
END_TEST

/* What other classes got before the last one failed goes back, too. */
static void *count_attached(void *arg, const bufpool_region_t *region)
{
	(void) region;
	*(int *) arg += 1;
	return arg;
}

static void count_detached(void *arg, const bufpool_region_t *region,
                           void *cookie)
{
	(void) region;
	must(cookie == arg);
	*(int *) arg -= 1;
}

START_TEST(strict_fails_half_way)
{
	bufpool_config_t config =
		big_config(BUFPOOL_CLASS_1M, LOT, FULL, BUFPOOL_NUMA_STRICT);
	int attached = 0;

	config.count[BUFPOOL_CLASS_4K] = 256;
	config.count[BUFPOOL_CLASS_64K] = 16;
	config.region_attach = count_attached;
	config.region_detach = count_detached;
	config.region_arg = &attached;
	fill_node(8 * MB);
	check_refused(&config, ENOMEM);
	ck_assert_int_eq(attached, 0);
}
END_TEST

/* What fits is not refused, time and again. */
START_TEST(strict_takes_what_fits)
{
	bufpool_config_t config =
		big_config(variants[_i].size_class, 4 * MB, FULL,
	                   variants[_i].flags | BUFPOOL_NUMA_STRICT);

	fill_node(16 * MB);
	for (int round = 0; round < 5; round++) {
		bufpool_t *pool = make_pool(config);

		check_truth(pool);
		check_within(pool, 1u << FULL);
		bufpool_destroy(pool);
	}
}
END_TEST

START_TEST(best_effort_is_honest)
{
	int size_class = variants[_i].size_class;
	unsigned flags = variants[_i].flags;
	bufpool_t *pool;

	fill_node(8 * MB);
	pool = make_pool(big_config(size_class, LOT, FULL, flags));
	check_truth(pool);
	ck_assert_uint_gt(census(pool, size_class).on[0], 0);
	destroy_whole(pool);
	pool = make_pool(
		big_config(size_class, 2 * LOT, BUFPOOL_NUMA_LOCAL, flags));
	check_truth(pool);
	ck_assert_uint_gt(census(pool, size_class).on[0],
	                  LOT / classes[size_class].size);
	destroy_whole(pool);
}
END_TEST

/* A growth of more than is left fails where it is strict, and leaves the class as it
   was, for one that fits. */
START_TEST(growth_is_refused)
{
	int size_class = variants[_i].size_class;
	bufpool_config_t config =
		big_config(size_class, 2 * MB, FULL,
	                   variants[_i].flags | BUFPOOL_NUMA_STRICT);
	size_t n = LOT / classes[size_class].size;
	bufpool_t *pool;

	config.max_count[size_class] = 2 * n;
	pool = make_pool(config);
	fill_node(8 * MB);
	errno = 0;
	must(bufpool_grow(pool, size_class, n) == -1 && errno == ENOMEM);
	must(bufpool_regions(pool, NULL, 0) == 1);
	must(stats_of(pool).per_class[size_class].total ==
	     config.count[size_class]);
	must(bufpool_grow(pool, size_class, MB / classes[size_class].size) == 0);
	must(bufpool_regions(pool, NULL, 0) == 2);
	check_within(pool, 1u << FULL);
	bufpool_destroy(pool);
}
END_TEST

/* By best effort it goes elsewhere, and says so. */
START_TEST(growth_goes_elsewhere)
{
	int size_class = variants[_i].size_class;
	bufpool_config_t config =
		big_config(size_class, 2 * MB, FULL, variants[_i].flags);
	size_t n = LOT / classes[size_class].size;
	bufpool_t *pool;

	config.max_count[size_class] = config.count[size_class] + n;
	pool = make_pool(config);
	fill_node(8 * MB);
	must(bufpool_grow(pool, size_class, n) == 0);
	check_truth(pool);
	ck_assert_uint_gt(census(pool, size_class).on[0], 0);
	destroy_whole(pool);
}
END_TEST

/* More than the whole machine has. */
START_TEST(beyond_the_machine)
{
	static const int nodes[] = { BUFPOOL_NUMA_ANY, BUFPOOL_NUMA_LOCAL, 0,
		                     FULL };
	bufpool_config_t config = big_config(
		BUFPOOL_CLASS_1M, 2048 * MB,
		nodes[_i % (int) ARRAY_SIZE(nodes)],
		_i < (int) ARRAY_SIZE(nodes) ? 0 : BUFPOOL_NUMA_STRICT);

	check_refused(&config, ENOMEM);
	/* Less than there was, but more than is left. */
	config.count[BUFPOOL_CLASS_1M] = 512;
	check_refused(&config, ENOMEM);
}
END_TEST

/*
 * A node that fills after a trim: the buffers come back from elsewhere.  Were
 * the memory still bound, touching it would kill.
 */
static void check_trimmed_then_full(bufpool_config_t config, int size_class)
{
	size_t n = config.count[size_class];
	bufpool_buf_t **bufs = calloc(n + 1, sizeof(bufs[0]));
	bufpool_t *pool = make_pool(config);

	must(bufs);
	/* LOCKED memory is not trimmed, and comes through that as well. */
	bufpool_trim(pool);
	fill_node(0);
	must(drain(pool, size_class, bufs, n + 1) == n);
	for (size_t i = 0; i < n; i++) {
		must(is_zero(bufs[i]));
		fill(bufs[i], 1);
	}
	bufpool_return_bulk(bufs, n);
	free(bufs);
	destroy_whole(pool);
}

START_TEST(trimmed_then_full)
{
	int size_class = variants[_i].size_class;
	unsigned flags = variants[_i].flags | BUFPOOL_NUMA_STRICT;

	check_trimmed_then_full(big_config(size_class, 16 * MB, FULL, flags),
	                        size_class);
}
END_TEST

/* The same for memory of which some could not be brought home. */
START_TEST(strays_trimmed_then_full)
{
	int size_class = variants[_i].size_class;
	unsigned flags = variants[_i].flags;

	fill_node(8 * MB);
	check_trimmed_then_full(big_config(size_class, LOT, FULL, flags),
	                        size_class);
}
END_TEST

void add_full_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "full", 60);
	const int n = ARRAY_SIZE(variants);

	tcase_add_unchecked_fixture(tcase, start_bystander, stop_bystander);
	tcase_add_checked_fixture(tcase, NULL, check_survivors);
	tcase_add_loop_test(tcase, strict_is_refused, 0, n);
	tcase_add_test(tcase, strict_fails_half_way);
	tcase_add_loop_test(tcase, strict_takes_what_fits, 0, n);
	tcase_add_loop_test(tcase, best_effort_is_honest, 0, n);
	tcase_add_loop_test(tcase, growth_is_refused, 0, n);
	tcase_add_loop_test(tcase, growth_goes_elsewhere, 0, n);
	tcase_add_loop_test(tcase, beyond_the_machine, 0, 8);
	tcase_add_loop_test(tcase, trimmed_then_full, 0, n);
	tcase_add_loop_test(tcase, strays_trimmed_then_full, 0, n);
}
