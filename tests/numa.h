/* SPDX-License-Identifier: MIT */
/*
 * numa.h - what the parts of check_numa share
 *
 * What the machine is like is read from /sys, where hwloc has it from: so that
 * the tests do not share a mistake with the library.  Nodes are OS indexes.
 */
#ifndef TESTS_NUMA_H
#define TESTS_NUMA_H

#include "common.h"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>

#define MAX_NODES 8 /* more than any of our machines has */
#define MB ((size_t) 1 << 20)

/* The parts: each adds its test cases. */
void add_place_cases(Suite *suite);
void add_local_cases(Suite *suite);
void add_stay_cases(Suite *suite);
void add_hwloc_cases(Suite *suite);
void add_index_cases(Suite *suite);
void add_hmat_cases(Suite *suite);
void add_full_cases(Suite *suite);

/* ------------------------------------------------------------- the machine */

/* What a file says, in one piece. */
static inline char *read_file(const char *path, char *text, size_t size)
{
	FILE *file = fopen(path, "r");
	size_t n;

	must(file);
	n = fread(text, 1, size - 1, file);
	text[n] = '\0';
	fclose(file);
	return text;
}

static inline void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	must(file);
	must(fputs(text, file) >= 0);
	must(fclose(file) == 0);
}

/* A list like "0,2-3" as a mask; what it counts is below 32 here. */
static inline unsigned read_list(const char *path)
{
	char text[256], *at = read_file(path, text, sizeof(text));
	unsigned mask = 0;

	while (*at >= '0' && *at <= '9') {
		unsigned long first = strtoul(at, &at, 10), last = first;

		if (*at == '-')
			last = strtoul(at + 1, &at, 10);
		must(last < 32);
		for (; first <= last; first++)
			mask |= 1u << first;
		if (*at == ',')
			at++;
	}
	return mask;
}

/* Nodes that are "online", "has_cpu" or "has_memory", as a mask. */
static inline unsigned nodes_that(const char *what)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/%s", what);
	return read_list(path);
}

/* Where a pool that serves every thread from its own node has memory. */
static inline unsigned home_nodes(void)
{
	return nodes_that("has_cpu") & nodes_that("has_memory");
}

static inline bool in(int node, unsigned mask)
{
	return node >= 0 && node < 32 && (mask >> node & 1) != 0;
}

static inline int count_nodes(unsigned mask)
{
	return __builtin_popcount(mask);
}

/* From a thread on the first node to memory on the second. */
static inline long distance(int from, int to)
{
	unsigned online = nodes_that("online");
	char path[64], text[256], *at = text;
	long value = 0;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/distance",
	         from);
	read_file(path, text, sizeof(text));
	for (int node = 0; node <= to; node++)
		if (in(node, online))
			value = strtol(at, &at, 10);
	return value;
}

/* A value in a node's meminfo, in bytes. */
static inline size_t node_meminfo(int node, const char *name)
{
	char path[64], text[8192], *at;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo",
	         node);
	at = strstr(read_file(path, text, sizeof(text)), name);
	must(at);
	return strtoul(at + strlen(name), NULL, 10) * 1024;
}

/* From now on this thread runs on a CPU of that node. */
static inline void pin(int node)
{
	char path[64];
	unsigned mask;
	cpu_set_t cpus;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist",
	         node);
	mask = read_list(path);
	CPU_ZERO(&cpus);
	for (int cpu = 0; cpu < 32; cpu++)
		if (mask >> cpu & 1)
			CPU_SET(cpu, &cpus);
	must(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
}

/* Some node that has CPUs, another one than this. */
static inline int other_node(int node)
{
	unsigned mask = nodes_that("has_cpu");

	if (node >= 0)
		mask &= ~(1u << node);
	must(mask != 0);
	return __builtin_ctz(mask);
}

/* ------------------------------------------------------------ page by page */

#define SPREAD (-1) /* over several nodes */
#define ABSENT (-2) /* a page is not there */

/*
 * The node that all pages of this memory lie on, or SPREAD, or ABSENT.  Asks the
 * kernel for every page, touches none.
 */
static inline int where_is(const void *base, size_t len)
{
	enum { BATCH = 256 };
	void *pages[BATCH];
	int status[BATCH], node = ABSENT;
	size_t total = len / PAGE;

	must(len > 0 && len % PAGE == 0);
	for (size_t done = 0, n; done < total; done += n) {
		n = total - done < BATCH ? total - done : BATCH;
		for (size_t i = 0; i < n; i++)
			pages[i] = (char *) base + (done + i) * PAGE;
		must(syscall(SYS_move_pages, 0, n, pages, NULL, status, 0) ==
		     0);
		for (size_t i = 0; i < n; i++) {
			if (status[i] < 0)
				return ABSENT;
			if (done + i == 0)
				node = status[i];
			else if (status[i] != node)
				node = SPREAD;
		}
	}
	return node;
}

/* Plain memory under a policy for one node, as MPOL_PREFERRED or MPOL_BIND. */
static inline char *map_on(int node, size_t len, int mode)
{
	unsigned long mask = 1ul << node;
	char *base = mmap(NULL, len, PROT_READ | PROT_WRITE,
	                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(base != MAP_FAILED);
	must(syscall(SYS_mbind, base, len, mode, &mask, 8 * sizeof(mask), 0) ==
	     0);
	return base;
}

/* ------------------------------------------------------------------- pools */

/* Enough to lie on several pages, and uneven among three or four nodes. */
static const size_t counts[BUFPOOL_CLASSES] = {
	[BUFPOOL_CLASS_4K] = 131,
	[BUFPOOL_CLASS_64K] = 13,
	[BUFPOOL_CLASS_256K] = 7,
	[BUFPOOL_CLASS_1M] = 5,
};

static inline bufpool_config_t node_config(int node, unsigned flags)
{
	bufpool_config_t config = default_config;

	memcpy(config.count, counts, sizeof(counts));
	config.numa_node = node;
	config.flags = flags;
	return config;
}

/* All of a pool's regions; the caller frees them. */
static inline bufpool_region_t *regions_of(const bufpool_t *pool, size_t *n)
{
	bufpool_region_t *regions;

	*n = bufpool_regions(pool, NULL, 0);
	must(*n > 0);
	regions = calloc(*n, sizeof(*regions));
	must(regions && bufpool_regions(pool, regions, *n) == *n);
	return regions;
}

/*
 * What a pool says of its memory is so, page by page: the pages of every region
 * are there and on the node it names, or on several if it names none.
 */
static inline void check_region(const bufpool_region_t *r)
{
	int node = where_is(r->base, r->len);

	ck_assert_msg(node == r->numa_node,
	              "region %u, class %s, %zu bytes, flatters: node %d, "
	              "really %d (-1: several, -2: pages are missing)",
	              r->index, classes[r->size_class].name, r->len,
	              r->numa_node, node);
}

/* And a buffer lies where it says, in the region it names, of its class. */
static inline void check_buffer(const bufpool_buf_t *buf, int size_class,
                                const bufpool_region_t *regions, size_t n)
{
	int node = bufpool_buf_node(buf);
	const bufpool_region_t *r;
	size_t offset;
	unsigned index;

	must(bufpool_buf_region(buf, &index, &offset) == 0);
	must(index < n);
	r = &regions[index];
	must(r->index == index && r->size_class == size_class);
	must((char *) r->base + offset == buf->data);
	must(offset + buf->capacity <= r->len);
	if (r->numa_node >= 0)
		must(node == r->numa_node);
	else
		must(node == -1 || node == where_is(buf->data, buf->capacity));
}

static inline void check_truth(bufpool_t *pool)
{
	bufpool_stats_t stats = stats_of(pool);
	size_t n;
	bufpool_region_t *regions = regions_of(pool, &n);

	for (size_t i = 0; i < n; i++) {
		must(regions[i].index == i);
		check_region(&regions[i]);
	}
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t total = stats.per_class[k].total;
		bufpool_buf_t **bufs = calloc(total + 1, sizeof(bufs[0]));

		must(bufs && drain(pool, k, bufs, total + 1) == total);
		for (size_t i = 0; i < total; i++)
			check_buffer(bufs[i], k, regions, n);
		bufpool_return_bulk(bufs, total);
		free(bufs);
	}
	free(regions);
}

/*
 * How many buffers of a class lie on each node; those that are spread count
 * nowhere.  All have to be idle.
 */
struct census {
	size_t on[MAX_NODES];
};

static inline struct census census(bufpool_t *pool, int size_class)
{
	size_t total = stats_of(pool).per_class[size_class].total;
	bufpool_buf_t **bufs = calloc(total + 1, sizeof(bufs[0]));
	struct census census = { 0 };

	must(bufs && drain(pool, size_class, bufs, total + 1) == total);
	for (size_t i = 0; i < total; i++) {
		int node = where_is(bufs[i]->data, bufs[i]->capacity);

		if (node >= 0)
			census.on[node]++;
	}
	bufpool_return_bulk(bufs, total);
	free(bufs);
	return census;
}

/* All that a pool has lies on nodes of this mask. */
static inline void check_within(const bufpool_t *pool, unsigned mask)
{
	size_t n;
	bufpool_region_t *regions = regions_of(pool, &n);

	for (size_t i = 0; i < n; i++)
		ck_assert_msg(in(regions[i].numa_node, mask),
		              "region %zu, class %s, is on node %d, not on one "
		              "of mask %#x",
		              i, classes[regions[i].size_class].name,
		              regions[i].numa_node, mask);
	free(regions);
}

/* ---------------------------------------------------------- what is left */

/* What a process has of the system, to be compared. */
struct belongings {
	unsigned long size, maps, locked;
};

static inline unsigned long status_value(const char *name)
{
	char text[8192], *at;

	at = strstr(read_file("/proc/self/status", text, sizeof(text)), name);
	must(at);
	return strtoul(at + strlen(name), NULL, 10);
}

static inline struct belongings belongings(void)
{
	struct belongings b = {
		.size = status_value("VmSize:"),
		.locked = status_value("VmLck:"),
	};
	FILE *file = fopen("/proc/self/maps", "r");
	int c;

	must(file);
	while ((c = getc(file)) != EOF)
		b.maps += c == '\n';
	fclose(file);
	return b;
}

/* Create refuses, for this reason, and leaves nothing behind. */
static inline void check_refused(const bufpool_config_t *config, int error)
{
	struct belongings before, after;

	/* The first time may load a library or grow the heap for good. */
	for (int i = 0; i < 2; i++) {
		before = belongings();
		REFUSED(bufpool_create(config) == NULL, error);
		after = belongings();
	}
	ck_assert_uint_eq(after.size, before.size);
	ck_assert_uint_eq(after.maps, before.maps);
	ck_assert_uint_eq(after.locked, before.locked);
}

#endif /* TESTS_NUMA_H */
