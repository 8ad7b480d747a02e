/* SPDX-License-Identifier: MIT */
/*
 * numa_stay.c - memory stays where it was put: no page fault after create,
 * also where the kernel moves pages after their users, and after a trim
 */
#include "numa.h"

#include <time.h>

static const int modes[] = { BUFPOOL_NUMA_ANY, BUFPOOL_NUMA_LOCAL, 0, 3 };

static const unsigned flags[] = { 0, BUFPOOL_NUMA_STRICT, BUFPOOL_HUGEPAGES };

#define VARIANTS ((int) (ARRAY_SIZE(modes) * ARRAY_SIZE(flags)))

static bufpool_config_t variant(int i)
{
	return node_config(modes[i % (int) ARRAY_SIZE(modes)],
	                   flags[i / (int) ARRAY_SIZE(modes)]);
}

/* ------------------------------------------------------------ page faults */

/* The kernel unmaps pages to see who uses them: every 10 ms of run time. */
static void start_balancing(void)
{
	static const char dir[] = "/sys/kernel/debug/sched/numa_balancing";
	static const char *const files[] = { "scan_delay_ms",
		                             "scan_period_min_ms",
		                             "scan_period_max_ms" };
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		write_file(path, "10\n");
	}
	write_file("/proc/sys/kernel/numa_balancing", "1\n");
}

static void stop_balancing(void)
{
	write_file("/proc/sys/kernel/numa_balancing", "0\n");
}

/*
 * What there is so far gets a policy of its own, under which balancing leaves
 * it alone: so that every fault from now on is one of what comes later.
 */
static void settle(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[512];

	must(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &from, &to) == 2)
			syscall(SYS_mbind, from, to - from, MPOL_LOCAL, NULL, 0,
			        0);
	fclose(maps);
}

static double run_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static long faults(void)
{
	struct rusage usage;

	must(getrusage(RUSAGE_SELF, &usage) == 0);
	return usage.ru_minflt + usage.ru_majflt;
}

struct piece {
	volatile char *base;
	size_t len;
};

/* Write to all pages; returns how many faults that takes. */
static long touch(const struct piece *pieces, size_t n)
{
	long before = faults();

	for (size_t i = 0; i < n; i++)
		for (size_t at = 0; at < pieces[i].len; at += PAGE)
			pieces[i].base[at]++;
	return faults() - before;
}

/* Memory that balancing is after. */
static struct piece map_bait(void)
{
	struct piece bait = { .len = 64 * PAGE };

	bait.base = mmap(NULL, bait.len, PROT_READ | PROT_WRITE,
	                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	must(bait.base != MAP_FAILED);
	return bait;
}

/* Write to all until balancing has been seen to unmap the bait, twice. */
static long faults_beside(const struct piece *bait, const struct piece *pieces,
                          size_t n)
{
	const long twice = 2 * (long) (bait->len / PAGE);
	double end = run_time() + 30;
	long found = 0, baited = 0;

	do {
		found += touch(pieces, n);
		baited += touch(bait, 1);
		must(run_time() < end);
	} while (baited < twice);
	return found;
}

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return arg;
}

START_TEST(no_faults)
{
	static struct piece pieces[1024];
	static bufpool_buf_t *bufs[1024];
	bufpool_config_t config = variant(_i);
	struct piece bait;
	size_t n = 0;
	bufpool_t *pool;

	pin(0);
	/* Of a process with one thread the kernel spares what is local. */
	start_thread(sleep_on, NULL);
	touch(NULL, 0); /* so that getrusage() is there */
	settle();
	bait = map_bait();
	pool = make_pool(config);
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		n += drain(pool, k, bufs + n, counts[k]);
	for (size_t i = 0; i < n; i++)
		pieces[i] = (struct piece){ bufs[i]->data, bufs[i]->capacity };
	pin(other_node(0));
	ck_assert_int_eq(faults_beside(&bait, pieces, n), 0);
	stop_balancing(); /* what it has unmapped counts as absent */
	bufpool_return_bulk(bufs, n);
	check_truth(pool);
	bufpool_destroy(pool);
	start_balancing();
}
END_TEST

/* ------------------------------------------------------------------- trim */

static size_t absent_bytes(const bufpool_region_t *regions, size_t n)
{
	size_t bytes = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t at = 0; at < regions[i].len; at += PAGE)
			if (where_is((char *) regions[i].base + at, PAGE) ==
			    ABSENT)
				bytes += PAGE;
	return bytes;
}

/* On the node that its region was on. */
static void check_back(const bufpool_buf_t *buf, const bufpool_region_t *before)
{
	size_t offset;
	unsigned index;

	must(bufpool_buf_region(buf, &index, &offset) == 0);
	ck_assert_int_eq(where_is(buf->data, buf->capacity),
	                 before[index].numa_node);
	ck_assert_int_eq(bufpool_buf_node(buf), before[index].numa_node);
}

/*
 * Half of each class is trimmed, and comes back erased and on the nodes it was
 * on, whoever touches it; the other half is out, and keeps its bytes.
 */
START_TEST(trimmed_and_back)
{
	static bufpool_buf_t *bufs[BUFPOOL_CLASSES][512];
	bufpool_config_t config = variant(_i);
	size_t idle = 0, trimmed, n;
	bufpool_region_t *regions;
	bufpool_t *pool;

	pin(0);
	pool = make_pool(config);
	regions = regions_of(pool, &n);
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t held = counts[k] / 2;

		must(drain(pool, k, bufs[k], counts[k]) == counts[k]);
		for (size_t i = 0; i < counts[k]; i++)
			fill(bufs[k][i], 0x5a);
		bufpool_return_bulk(bufs[k] + held, counts[k] - held);
		idle += (counts[k] - held) * classes[k].size;
	}
	bufpool_thread_flush(pool);
	trimmed = bufpool_trim(pool);
	ck_assert_uint_eq(absent_bytes(regions, n), trimmed);
	if (!(config.flags & BUFPOOL_HUGEPAGES))
		ck_assert_uint_eq(trimmed, idle);

	pin(other_node(0));
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t held = counts[k] / 2;

		for (size_t i = 0; i < held; i++)
			must(all_bytes(bufs[k][i]->data, classes[k].size,
			               0x5a));
		must(drain(pool, k, bufs[k] + held, counts[k]) ==
		     counts[k] - held);
		for (size_t i = 0; i < counts[k]; i++) {
			if (i >= held)
				must(is_zero(bufs[k][i]));
			fill(bufs[k][i], 0xa5);
			if (config.numa_node != BUFPOOL_NUMA_ANY)
				check_back(bufs[k][i], regions);
		}
	}
	ck_assert_uint_eq(absent_bytes(regions, n), 0);
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		bufpool_return_bulk(bufs[k], counts[k]);
	if (config.numa_node != BUFPOOL_NUMA_ANY)
		check_truth(pool);
	free(regions);
	destroy_whole(pool);
}
END_TEST

void add_stay_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "trim", 60);

	tcase_add_loop_test(tcase, trimmed_and_back, 0, VARIANTS);

	tcase = add_case(suite, "balancing", 60);
	tcase_add_unchecked_fixture(tcase, start_balancing, stop_balancing);
	tcase_add_loop_test(tcase, no_faults, 0, VARIANTS);
}
