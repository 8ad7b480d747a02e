/* SPDX-License-Identifier: MIT */
/*
 * bench.h - what the driver, the shapes and the peers share
 *
 *     bufpool-bench.c   the matrix, the targets, rounds, statistics, output
 *     worker.c          the other process: runs one job after another
 *     shapes.c          a job's threads, and their clocks
 *     loops.h           what is timed, compiled into each peer-*.c
 *
 * The driver has a worker process for each peer, tells it which job to do and
 * gets the figures back.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define MAX_SET 64     /* buffers that a thread holds */
#define MAX_THREADS 64 /* that take, and that only give back */
#define MAX_CELLS 128  /* of one case and peer */
#define MAX_VALUES 6   /* that a job yields */
#define TEXT_SIZE 100

/* A buffer's. */
enum {
	SIZE_4K = 4096,
	SIZE_64K = 65536,
	SIZE_256K = 262144,
	SIZE_1M = 1048576
};

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum shape {
	PAIRS,    /* take some, give them back; any number of threads */
	CYCLE,    /* a pair in each of many pools in turn */
	HANDOVER, /* one thread takes, others give back */
	EXCHANGE, /* two threads give back what either of them took */
	LATENCY,  /* PAIRS, where each take is timed */
	CREATE,   /* build a pool, and destroy it */
	MEMORY,   /* bytes beside the payload, per buffer */
	DEMO      /* a script of examples/, which does the timing */
};

enum place {
	ANYWHERE, /* on all CPUs */
	TWO_CPUS, /* on two, as the system likes */
	OWN_CPU,  /* on two: the first has one, the others the other */
	ONE_CPU   /* all on one */
};

struct job {
	size_t cell; /* its number: a pool is kept for each */
	enum shape shape;
	enum place place;
	bool wipe; /* buffers are to be erased before they are taken again */
	bool bulk; /* take and give back all of a set in one call */
	double seconds;   /* to measure for */
	size_t size;      /* of a buffer */
	size_t count;     /* buffers in a pool; 0: as many as usual */
	size_t idle;      /* so many of them; the others are out; 0: all */
	size_t pools;     /* how many there are, 0: one */
	size_t threads;   /* 0: one */
	size_t set;       /* buffers that a thread holds at once, 0: one */
	size_t readers;   /* that share each buffer, 0: it is handed over */
	size_t returners; /* that it is handed to in turn, 0: one */
	size_t used;      /* bytes of a buffer, 0: all */
};

struct result {
	char error[TEXT_SIZE]; /* why there is none, or "" */
	double value[MAX_VALUES];
};

/* What a worker says before its first job: its peer's version, or why not. */
struct hello {
	bool ready;
	char text[TEXT_SIZE];
};

/* --------------------------------------------------------------- for peers */

struct source; /* where a peer's buffers come from; each has its own */
struct queue;
struct histogram;

/* The loops of loops.h. */
struct loops {
	void (*pairs)(struct source *s, const struct job *job, uint64_t steps);
	void (*timed)(struct source *s, const struct job *job,
	              struct histogram *times);
	void (*send)(struct source *s, const struct job *job,
	             struct queue *queues, uint64_t steps);
	void (*receive)(struct source *s, const struct job *job,
	                struct queue *queue);
	void (*exchange)(struct source *s, const struct job *job,
	                 struct queue *out, struct queue *in, uint64_t steps);
	void (*drain)(struct source *s, struct queue *queue);
	void (*touch_all)(struct source *s, const struct job *job, void **held);
};

struct peer {
	const char *name, *what;
	const char *preload; /* the library to run it with */
	bool endless;        /* it has no pool, and never runs out of buffers */

	/* In the worker: its version, or false and why there is none; NULL if
	   it was not there to build with. */
	bool (*start)(const struct peer *peer, char *version);
	struct source *(*open)(const struct peer *peer, const struct job *job);
	void (*close)(struct source *s);
	const struct loops *loops;

	/* Only where needed. */
	void (*thread_begin)(void), (*thread_end)(void);
	size_t (*footprint)(void); /* bytes in use; default: resident memory */
	void (*cycle)(struct source *s, uint64_t steps);
};

/* In the order of the output. */
enum {
	BUFPOOL,
	BUFPOOL_INLINED,
	BUFPOOL_LOCAL,
	BUFPOOL_USED,
	BUFPOOL_NOCACHE,
	BUFPOOL_SAFE,
	GLIBC,
	JEMALLOC,
	MIMALLOC,
	TCMALLOC,
	RTE_MEMPOOL,
	APR,
	RING,
	FLOOR,
	BARE,
	STORES_32,
	STORES_64,
	STOSB,
	PEERS
};

extern const struct peer *const peers[PEERS];

extern const struct peer peer_bufpool, peer_bufpool_inline, peer_bufpool_local,
	peer_bufpool_used, peer_bufpool_nocache, peer_bufpool_hardened;
extern const struct peer peer_ring, peer_floor;
extern const struct peer peer_bare, peer_stores_32, peer_stores_64, peer_stosb;
extern const struct peer peer_glibc, peer_jemalloc, peer_mimalloc,
	peer_tcmalloc;
extern const struct peer peer_rte_mempool, peer_apr;

/* More than one thread uses a pool. */
static inline bool job_is_shared(const struct job *job)
{
	return job->threads > 1 || job->shape == HANDOVER ||
	       job->shape == EXCHANGE;
}

/* Threads that only give back. */
static inline size_t job_receivers(const struct job *job)
{
	if (job->readers > 0)
		return job->readers;
	return job->returners > 0 ? job->returners : 1;
}

/*
 * Buffers in a pool; and the most that a thread caches, as our class has it, but
 * never so many that two who only give back could keep all that there are.
 */
size_t job_count(const struct job *job);
size_t job_cache(const struct job *job);

/* Present memory, as much as there is in a job's pool. */
char *map_payload(const struct job *job);
void unmap_payload(char *payload, const struct job *job);

/* Say why and end the process. */
_Noreturn void die(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

/* Memory that has to be there; zero. */
void *need(size_t n, size_t size);

/* ------------------------------------------------------------------ worker */

#define WORKER_FD 3     /* its socket */
#define WORKER_STDERR 4 /* what is to be its stderr when it has started */

int worker(const struct peer *peer); /* its main() */

/* In a worker: do a job. */
void run_job(const struct peer *peer, const struct job *job,
             struct result *result);

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t) t.tv_sec * 1000000000 + (uint64_t) t.tv_nsec;
}

#endif
