/* SPDX-License-Identifier: MIT */
/*
 * peer-dpdk.c - DPDK's rte_mempool, with its cache per lcore
 *
 * A file of its own also because DPDK's headers want -march.  No huge pages and
 * no devices: the memory is as ours.  The cache is as deep as ours is for the
 * class, as both keep that much memory from other threads.
 */
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <rte_version.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

struct source {
	struct rte_mempool *pool;
	size_t size;
};

static inline void *get(struct source *s, size_t size)
{
	void *buf;

	(void) size;
	return rte_mempool_get(s->pool, &buf) == 0 ? buf : NULL;
}

static inline void put(struct source *s, void *buf, bool wipe)
{
	if (wipe)
		memset(buf, 0, s->size);
	rte_mempool_put(s->pool, buf);
}

#define get_bulk get_bulk
static inline bool get_bulk(struct source *s, size_t size, void **bufs,
                            size_t n)
{
	(void) size;
	return rte_mempool_get_bulk(s->pool, bufs, (unsigned) n) == 0;
}

#define put_bulk put_bulk
static inline void put_bulk(struct source *s, void **bufs, size_t n, bool wipe)
{
	(void) wipe;
	rte_mempool_put_bulk(s->pool, bufs, (unsigned) n);
}

#include "loops.h"

/* The EAL pins its thread; ours go where the job says. */
static bool start(const struct peer *peer, char *version)
{
	char line[200], *argv[20];
	cpu_set_t cpus;
	int cpu = 0, argc = 0;

	(void) peer;
	sched_getaffinity(0, sizeof(cpus), &cpus);
	while (!CPU_ISSET(cpu, &cpus))
		cpu++;
	snprintf(line, sizeof(line),
	         "bufpool-bench --no-huge --no-pci --no-shconf --no-telemetry "
	         "--iova-mode=va --log-level=critical -m 2048 -l %d",
	         cpu);
	for (char *arg = strtok(line, " "); arg; arg = strtok(NULL, " "))
		argv[argc++] = arg;
	argv[argc] = NULL;
	if (rte_eal_init(argc, argv) < 0) {
		snprintf(version, TEXT_SIZE, "rte_eal_init: %s",
		         rte_strerror(rte_errno));
		return false;
	}
	sched_setaffinity(0, sizeof(cpus), &cpus);
	snprintf(version, TEXT_SIZE, "%s", rte_version());
	return true;
}

static struct source *open_mempool(const struct peer *peer,
                                   const struct job *job)
{
	struct source *s = need(1, sizeof(*s));
	static unsigned number;
	char name[32];

	(void) peer;
	snprintf(name, sizeof(name), "bench%u", number++);
	s->size = job->size;
	s->pool = rte_mempool_create(
		name, (unsigned) job_count(job), (unsigned) job->size,
		(unsigned) job_cache(job), 0, NULL, NULL, NULL, NULL,
		SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	if (s->pool == NULL)
		die("rte_mempool_create: %s", rte_strerror(rte_errno));
	return s;
}

static void close_mempool(struct source *s)
{
	rte_mempool_free(s->pool);
	free(s);
}

/* Only threads that the EAL knows have a cache. */
static void thread_begin(void)
{
	if (rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() != 0)
		die("rte_thread_register: %s", rte_strerror(rte_errno));
}

static void thread_end(void)
{
	rte_thread_unregister();
}

/* Its memory is mapped at the start, so it is no use to ask the system. */
static size_t footprint(void)
{
	struct rte_malloc_socket_stats stats;
	size_t bytes = 0;

	for (int socket = 0; socket < RTE_MAX_NUMA_NODES; socket++)
		if (rte_malloc_get_socket_stats(socket, &stats) == 0)
			bytes += stats.heap_allocsz_bytes;
	return bytes;
}

const struct peer peer_rte_mempool = {
	.name = "rte_mempool",
	.what = "DPDK's rte_mempool with a cache per lcore",
	.start = start,
	.open = open_mempool,
	.close = close_mempool,
	.loops = &loops,
	.thread_begin = thread_begin,
	.thread_end = thread_end,
	.footprint = footprint
};
