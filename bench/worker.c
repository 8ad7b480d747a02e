/* SPDX-License-Identifier: MIT */
/*
 * worker.c - the process that has a peer in it
 *
 * Jobs come in and results go out through one socket, until the driver closes
 * it.  A process of its own for each peer: some replace malloc, DPDK's start
 * changes a lot, and no pool or heap is another's neighbour.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "bench.h"

const struct peer *const peers[PEERS] = {
	[BUFPOOL] = &peer_bufpool,
	[BUFPOOL_INLINED] = &peer_bufpool_inline,
	[BUFPOOL_LOCAL] = &peer_bufpool_local,
	[BUFPOOL_USED] = &peer_bufpool_used,
	[BUFPOOL_NOCACHE] = &peer_bufpool_nocache,
	[BUFPOOL_SAFE] = &peer_bufpool_hardened,
	[GLIBC] = &peer_glibc,
	[JEMALLOC] = &peer_jemalloc,
	[MIMALLOC] = &peer_mimalloc,
	[TCMALLOC] = &peer_tcmalloc,
	[RTE_MEMPOOL] = &peer_rte_mempool,
	[APR] = &peer_apr,
	[RING] = &peer_ring,
	[FLOOR] = &peer_floor,
	[BARE] = &peer_bare,
	[STORES_32] = &peer_stores_32,
	[STORES_64] = &peer_stores_64,
	[STOSB] = &peer_stosb,
};

#ifndef HAVE_DPDK
const struct peer peer_rte_mempool = {
	.name = "rte_mempool",
	.what = "DPDK's rte_mempool: configure found no libdpdk"
};
#endif
#ifndef HAVE_APR
const struct peer peer_apr = {
	.name = "apr", .what = "apr_allocator: configure found no apr-1"
};
#endif

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("bufpool-bench: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	_exit(1);
}

void *need(size_t n, size_t size)
{
	void *p = calloc(n > 0 ? n : 1, size);

	if (p == NULL)
		die("no memory for %zu times %zu bytes", n, size);
	return p;
}

/* --------------------------------------------------------- what a pool has */

static const struct {
	size_t size, count, cache;
} usual[] = {
	/* Enough for two threads' caches and a full queue; caches as in
	   gen/classes.def. */
	{ SIZE_4K, 1024, 64 },
	{ SIZE_64K, 256, 16 },
	{ SIZE_256K, 128, 8 },
	{ SIZE_1M, 128, 4 },
};

size_t job_count(const struct job *job)
{
	size_t i = 0;

	if (job->count != 0)
		return job->count;
	while (usual[i].size < job->size)
		i++;
	return usual[i].count;
}

size_t job_cache(const struct job *job)
{
	size_t i = 0, most = job_count(job) / 4;

	while (usual[i].size < job->size)
		i++;
	return usual[i].cache < most ? usual[i].cache : most;
}

static size_t payload_bytes(const struct job *job)
{
	return job_count(job) * job->size;
}

char *map_payload(const struct job *job)
{
	char *p = mmap(NULL, payload_bytes(job), PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED ||
	    madvise(p, payload_bytes(job), MADV_POPULATE_WRITE) != 0)
		die("cannot map %zu bytes: %m", payload_bytes(job));
	return p;
}

void unmap_payload(char *payload, const struct job *job)
{
	munmap(payload, payload_bytes(job));
}

/* --------------------------------------------------------------- the process */

static bool send_all(const void *p, size_t n)
{
	return write(WORKER_FD, p, n) == (ssize_t) n;
}

int worker(const struct peer *peer)
{
	struct hello hello = { 0 };
	struct job job;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Until here stderr went nowhere: the loader is loud about libraries
	   that it cannot preload, where we only say so. */
	dup2(WORKER_STDERR, STDERR_FILENO);
	close(WORKER_STDERR);
	hello.ready = peer->start(peer, hello.text);
	if (!send_all(&hello, sizeof(hello)) || !hello.ready)
		return 0;
	while (read(WORKER_FD, &job, sizeof(job)) == (ssize_t) sizeof(job)) {
		struct result result = { 0 };

		run_job(peer, &job, &result);
		if (!send_all(&result, sizeof(result)))
			break;
	}
	_exit(0);
}
