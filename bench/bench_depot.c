/* SPDX-License-Identifier: MIT */
/*
 * bench_depot.c - the depot against a plain ck_ring with MPMC enqueue
 *
 * What the shared level costs without thread caches in front: pairs of take
 * and give, or bursts, of pointers to descriptors, for
 *
 *     one     one thread
 *     two     two threads, each on a CPU of its own
 *     shared  two threads on one CPU, where one is preempted in the middle
 *
 * each with 1 and 32 buffers at a time.  Rounds of both take turns; prints the
 * medians in nanoseconds per buffer, and their ratio.
 */
#include <ck_ring.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"

#define COUNT 1024
#define ROUNDS 15
#define ROUND_NS 60000000

static struct depot depot;
static struct buf bufs[COUNT];
static uint32_t next[COUNT];
static ck_ring_t ring;
static ck_ring_buffer_t slots[2 * COUNT];

static unsigned depot_in_out(unsigned shard, struct buf **out, unsigned n)
{
	n = bp_depot_take(&depot, shard, out, n);
	if (n > 0)
		bp_depot_give(&depot, shard, out, n);
	return n;
}

static unsigned ring_in_out(unsigned shard, struct buf **out, unsigned n)
{
	unsigned got = 0;

	(void) shard;
	while (got < n && ck_ring_dequeue_mpmc(&ring, slots, &out[got]))
		got++;
	for (unsigned i = 0; i < got; i++)
		ck_ring_enqueue_mpmc(&ring, slots, out[i]);
	return got;
}

struct load {
	unsigned (*in_out)(unsigned shard, struct buf **out, unsigned n);
	unsigned shard, burst;
	int cpu;
	uint64_t done;
};

static atomic_bool stop;

static void *work(void *arg)
{
	struct load *load = arg;
	struct buf *out[32];
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(load->cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		load->done += load->in_out(load->shard, out, load->burst);
	return NULL;
}

/* Nanoseconds per buffer, of one round. */
static double run(struct load *load, int threads)
{
	const struct timespec round = {0, ROUND_NS};
	pthread_t thread[2];
	uint64_t done = 0;

	stop = false;
	for (int i = 0; i < threads; i++) {
		load[i].done = 0;
		pthread_create(&thread[i], NULL, work, &load[i]);
	}
	nanosleep(&round, NULL);
	stop = true;
	for (int i = 0; i < threads; i++) {
		pthread_join(thread[i], NULL);
		done += load[i].done;
	}
	return (double) ROUND_NS / (double) done;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_value);
	return v[ROUNDS / 2];
}

static void compare(const char *name, int threads, int cpus, unsigned burst)
{
	double ours[ROUNDS], rings[ROUNDS], a, b;

	for (int i = 0; i < ROUNDS; i++) {
		struct load load[2] = {
			{depot_in_out, 0, burst, 0, 0},
			{depot_in_out, 1, burst, cpus - 1, 0},
		};

		ours[i] = run(load, threads);
		load[0].in_out = load[1].in_out = ring_in_out;
		rings[i] = run(load, threads);
	}
	a = median(ours);
	b = median(rings);
	printf("%-8s %6u %10.1f %10.1f %10.2f\n", name, burst, a, b, a / b);
}

int main(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	bp_depot_init(&depot, bufs, next, COUNT, cpus > 1 ? 2 : 1);
	ck_ring_init(&ring, 2 * COUNT);
	for (int i = 0; i < COUNT; i++)
		ck_ring_enqueue_mpmc(&ring, slots, &bufs[i]);
	printf("%-8s %6s %10s %10s %10s\n", "threads", "burst", "depot ns",
	       "ring ns", "ratio");
	for (unsigned burst = 1; burst <= 32; burst += 31) {
		compare("one", 1, 1, burst);
		if (cpus > 1)
			compare("two", 2, 2, burst);
		compare("shared", 2, 1, burst);
	}
	return 0;
}
