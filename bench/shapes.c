/* SPDX-License-Identifier: MIT */
/*
 * shapes.c - a job's threads and their clocks
 *
 * A thread alone works in batches of as many steps as take some 20 microseconds,
 * and looks at the clock after each until the job's time is over.  Several work
 * in short batches until they are told to stop: where they block each other a
 * batch can take long.  What counts is from the moment all are ready until the
 * last one is done.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "histogram.h"
#include "queue.h"

#define BATCH_NS 20000
#define WARM_UP_NS 10000000 /* a CPU that has slept is slow at first */
#define SHORT_BATCH 32

struct load {
	const struct peer *peer;
	const struct job *job;
	struct source *source;
	size_t threads;
	uint64_t batch; /* steps between two looks at whether it is over */
	struct queue *queues;
	struct histogram *times; /* one for each thread */
	pthread_barrier_t ready;
	atomic_bool stop;
};

struct worker_thread {
	pthread_t thread;
	struct load *load;
	void (*work)(struct worker_thread *);
	size_t number;
	uint64_t begin, end, steps;
} __attribute__((aligned(128))); /* each counts on a line of its own */

/* ------------------------------------------------------------------- places */

/* The n-th CPU of those that we may use, from 0; or the last. */
static int nth_cpu(const cpu_set_t *cpus, size_t n)
{
	int last = 0;

	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, cpus)) {
			last = cpu;
			if (n-- == 0)
				break;
		}
	return last;
}

static void go_to(enum place place, size_t number)
{
	static cpu_set_t all;
	cpu_set_t cpus;

	if (CPU_COUNT(&all) == 0) /* by the main thread, the first time */
		sched_getaffinity(0, sizeof(all), &all);
	CPU_ZERO(&cpus);
	switch (place) {
	case ANYWHERE:
		cpus = all;
		break;
	case TWO_CPUS:
		CPU_SET(nth_cpu(&all, 0), &cpus);
		CPU_SET(nth_cpu(&all, 1), &cpus);
		break;
	case OWN_CPU:
		CPU_SET(nth_cpu(&all, number > 0), &cpus);
		break;
	case ONE_CPU:
		CPU_SET(nth_cpu(&all, 0), &cpus);
		break;
	}
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
}

/* ------------------------------------------------------------------ threads */

static void be_ready(struct worker_thread *t)
{
	pthread_barrier_wait(&t->load->ready);
	t->begin = now_ns();
}

static uint64_t job_ns(const struct job *job)
{
	return (uint64_t) (job->seconds * 1e9);
}

static bool is_over(struct worker_thread *t)
{
	const struct load *load = t->load;

	if (load->threads > 1 &&
	    !atomic_load_explicit(&load->stop, memory_order_relaxed))
		return false;
	t->end = now_ns();
	return load->threads > 1 || t->end - t->begin >= job_ns(load->job);
}

static void work_pairs(struct worker_thread *t)
{
	struct load *load = t->load;
	uint64_t warm = now_ns() + WARM_UP_NS;

	do
		load->peer->loops->pairs(load->source, load->job, load->batch);
	while (now_ns() < warm);
	be_ready(t);
	do {
		load->peer->loops->pairs(load->source, load->job, load->batch);
		t->steps += load->batch;
	} while (!is_over(t));
}

static void work_timed(struct worker_thread *t)
{
	struct load *load = t->load;
	struct histogram *times = &load->times[t->number];

	for (int i = 0; i < 100; i++)
		load->peer->loops->timed(load->source, load->job, times);
	be_ready(t);
	memset(times, 0, sizeof(*times));
	do {
		load->peer->loops->timed(load->source, load->job, times);
		t->steps++;
	} while (!is_over(t));
}

/* Thread 0 takes, the others give back. */
static void work_handover(struct worker_thread *t)
{
	struct load *load = t->load;
	const struct loops *ops = load->peer->loops;

	if (t->number > 0) {
		be_ready(t);
		ops->receive(load->source, load->job,
		             &load->queues[t->number - 1]);
		t->end = now_ns();
		return;
	}
	be_ready(t);
	do {
		ops->send(load->source, load->job, load->queues, load->batch);
		t->steps += load->batch;
	} while (!is_over(t));
	for (size_t i = 0; i < job_receivers(load->job); i++)
		queue_push(&load->queues[i], NULL);
}

static void work_exchange(struct worker_thread *t)
{
	struct load *load = t->load;
	const struct loops *ops = load->peer->loops;
	struct queue *out = &load->queues[t->number];
	struct queue *in = &load->queues[!t->number];

	be_ready(t);
	do {
		ops->exchange(load->source, load->job, out, in, load->batch);
		t->steps += load->batch;
	} while (!is_over(t));
}

static void *run_thread(void *arg)
{
	struct worker_thread *t = arg;
	const struct peer *peer = t->load->peer;

	go_to(t->load->job->place, t->number);
	if (peer->thread_begin != NULL)
		peer->thread_begin();
	t->work(t);
	if (peer->thread_end != NULL)
		peer->thread_end();
	return NULL;
}

/* Make threads, let them work for a while. */
static void run_several(struct load *load, struct worker_thread *thread)
{
	struct timespec time = { 0, (long) job_ns(load->job) };

	for (size_t i = 0; i < load->threads; i++)
		if (pthread_create(&thread[i].thread, NULL, run_thread,
		                   &thread[i]) != 0)
			die("no thread %zu", i);
	pthread_barrier_wait(&load->ready);
	nanosleep(&time, NULL);
	atomic_store_explicit(&load->stop, true, memory_order_relaxed);
	for (size_t i = 0; i < load->threads; i++)
		pthread_join(thread[i].thread, NULL);
}

/*
 * Nanoseconds per step of all threads together.  One alone is the main thread:
 * a process without others is what some malloc are fastest in.
 */
static double run_threads(struct load *load, size_t n,
                          void (*work)(struct worker_thread *))
{
	struct worker_thread thread[MAX_THREADS + 1] = { 0 };
	uint64_t begin = UINT64_MAX, end = 0, steps = 0;

	load->threads = n;
	load->stop = false;
	for (size_t i = 0; i < n; i++) {
		thread[i].load = load;
		thread[i].number = i;
		thread[i].work = work;
	}
	pthread_barrier_init(&load->ready, NULL,
	                     (unsigned) (n > 1 ? n + 1 : 1));
	if (n > 1)
		run_several(load, thread);
	else
		work(&thread[0]);
	pthread_barrier_destroy(&load->ready);
	for (size_t i = 0; i < n; i++) {
		if (thread[i].begin < begin)
			begin = thread[i].begin;
		if (thread[i].end > end)
			end = thread[i].end;
		steps += thread[i].steps;
	}
	return (double) (end - begin) / (double) steps;
}

/* ------------------------------------------------------------------- shapes */

static uint64_t time_of(const struct load *load, uint64_t batch)
{
	uint64_t begin = now_ns();

	load->peer->loops->pairs(load->source, load->job, batch);
	return now_ns() - begin;
}

/*
 * Steps that take BATCH_NS on the calling thread.  Few do so only because they
 * are the first, or because the thread was preempted: not three times.
 */
static uint64_t calibrate(const struct load *load)
{
	uint64_t batch = 1;

	for (int slow = 0; slow < 3;) {
		if (time_of(load, batch) >= BATCH_NS) {
			slow++;
		} else {
			batch *= 2;
			slow = 0;
		}
	}
	return batch;
}

static size_t at_least_one(size_t n)
{
	return n > 0 ? n : 1;
}

static void run_pairs(struct load *load, struct result *result)
{
	const struct job *job = load->job;

	load->batch = job->threads > 1 ? SHORT_BATCH : calibrate(load);
	result->value[0] =
		run_threads(load, at_least_one(job->threads), work_pairs) /
		(double) at_least_one(job->set);
}

static void run_cycle(struct load *load, struct result *result)
{
	const uint64_t batch = 4 * at_least_one(load->job->pools);
	uint64_t begin, end, steps = 0;

	load->peer->cycle(load->source, batch);
	begin = now_ns();
	do {
		load->peer->cycle(load->source, batch);
		steps += batch;
		end = now_ns();
	} while (end - begin < job_ns(load->job));
	result->value[0] = (double) (end - begin) / (double) steps;
}

static void run_timed(struct load *load, struct result *result)
{
	static const double share[MAX_VALUES] = { .5, .9, .99, .999, .9999, 1 };
	size_t n = at_least_one(load->job->threads);
	struct histogram *all;

	load->times = need(n + 1, sizeof(*load->times));
	run_threads(load, n, work_timed);
	all = &load->times[n];
	for (size_t i = 0; i < n; i++)
		histogram_merge(all, &load->times[i]);
	for (size_t i = 0; i < MAX_VALUES - 1; i++)
		result->value[i] = histogram_quantile(all, share[i]);
	result->value[MAX_VALUES - 1] = (double) all->max;
	free(load->times);
}

/* Between the two threads of an exchange, or to each that gives back. */
static struct queue *make_queues(size_t n, unsigned slots)
{
	struct queue *queues = aligned_alloc(128, n * sizeof(*queues));

	if (queues == NULL)
		die("no memory");
	for (size_t i = 0; i < n; i++)
		ck_ring_init(&queues[i].ring, slots);
	return queues;
}

/*
 * Of each queue.  Where a pool has few buffers, who has no pool must not have more
 * of them on the way: a queue holds one less than it has slots, and who gives back
 * has another.  A ck_ring wants a power of two.
 */
static unsigned queue_slots(const struct load *load)
{
	size_t few = load->job->count / job_receivers(load->job);

	return load->peer->endless && few > 0 && few < QUEUE_SLOTS
	               ? (unsigned) few
	               : QUEUE_SLOTS;
}

static void run_handover(struct load *load, struct result *result)
{
	size_t receivers = job_receivers(load->job);

	load->batch = SHORT_BATCH;
	load->queues = make_queues(receivers, queue_slots(load));
	result->value[0] = run_threads(load, 1 + receivers, work_handover);
	free(load->queues);
}

static void run_exchange(struct load *load, struct result *result)
{
	load->batch = SHORT_BATCH;
	load->queues = make_queues(2, QUEUE_SLOTS);
	result->value[0] = run_threads(load, 2, work_exchange);
	for (int i = 0; i < 2; i++)
		load->peer->loops->drain(load->source, &load->queues[i]);
	free(load->queues);
}

static void run_create(const struct peer *peer, const struct job *job,
                       struct result *result)
{
	uint64_t begin, middle, end, first = now_ns();
	double create = 0, destroy = 0;
	int n = 0;

	do {
		struct source *source;

		begin = now_ns();
		source = peer->open(peer, job);
		middle = now_ns();
		peer->close(source);
		end = now_ns();
		create += (double) (middle - begin);
		destroy += (double) (end - middle);
		n++;
	} while (end - first < job_ns(job));
	result->value[0] = create / n;
	result->value[1] = destroy / n;
}

static size_t resident(void)
{
	FILE *rollup = fopen("/proc/self/smaps_rollup", "r");
	char line[200];
	size_t kib = 0;

	if (rollup == NULL)
		return 0;
	while (fgets(line, sizeof(line), rollup) != NULL)
		if (sscanf(line, "Rss: %zu kB", &kib) == 1)
			break;
	fclose(rollup);
	return kib * 1024;
}

/*
 * In a process that has done nothing before: an allocator that has free memory
 * would seem to need none.  Whoever gives memory for more buffers than are
 * taken is charged for what is taken only.
 */
static void run_memory(const struct peer *peer, const struct job *job,
                       struct result *result)
{
	size_t (*footprint)(void) =
		peer->footprint != NULL ? peer->footprint : resident;
	void **held = need(job->count, sizeof(*held));
	double before, after;
	struct source *source;

	memset(held, 1, job->count * sizeof(*held));
	before = (double) footprint();
	source = peer->open(peer, job);
	peer->loops->touch_all(source, job, held);
	after = (double) footprint();
	result->value[0] =
		(after - before) / (double) job->count - (double) job->size;
}

/* A pool stays until the process ends: a case's rounds go on with it. */
static struct source *source_of(const struct peer *peer, const struct job *job)
{
	static struct source *sources[MAX_CELLS];

	if (sources[job->cell] == NULL)
		sources[job->cell] = peer->open(peer, job);
	return sources[job->cell];
}

void run_job(const struct peer *peer, const struct job *job,
             struct result *result)
{
	struct load load = { .peer = peer, .job = job };

	go_to(ANYWHERE, 0);
	if (peer->thread_begin != NULL)
		peer->thread_begin();
	if (job->shape != CREATE && job->shape != MEMORY)
		load.source = source_of(peer, job);
	switch (job->shape) {
	case PAIRS:
		run_pairs(&load, result);
		break;
	case CYCLE:
		run_cycle(&load, result);
		break;
	case HANDOVER:
		run_handover(&load, result);
		break;
	case EXCHANGE:
		run_exchange(&load, result);
		break;
	case LATENCY:
		run_timed(&load, result);
		break;
	case CREATE:
		run_create(peer, job, result);
		break;
	case MEMORY:
		run_memory(peer, job, result);
		break;
	case DEMO:
		die("a demo is none of a worker's jobs");
	}
}
