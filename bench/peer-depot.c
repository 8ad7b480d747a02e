/* SPDX-License-Identifier: MIT */
/*
 * peer-depot.c - the library's shared level alone, without a pool around it:
 * what a ck_ring would have to do in its place
 */
#include <stdlib.h>

#include "bench.h"
#include "pool.h"

struct source {
	struct depot depot;
	struct buf *bufs;
	uint32_t *next;
	unsigned shards;
	size_t size;
};

static __thread unsigned shard;

/* A shard may have fewer than n, others the rest. */
#define get_bulk get_bulk
static inline bool get_bulk(struct source *s, void **bufs, size_t n)
{
	size_t got = 0;

	do
		got += bp_depot_take(&s->depot, shard,
		                     (struct buf **) bufs + got,
		                     (unsigned) (n - got));
	while (got > 0 && got < n);
	return got > 0;
}

#define put_bulk put_bulk
static inline void put_bulk(struct source *s, void **bufs, size_t n, bool wipe)
{
	(void) wipe;
	bp_depot_give(&s->depot, shard, (struct buf **) bufs, (unsigned) n);
}

static inline void *get(struct source *s)
{
	void *buf;

	return get_bulk(s, &buf, 1) ? buf : NULL;
}

static inline void put(struct source *s, void *buf, bool wipe)
{
	put_bulk(s, &buf, 1, wipe);
}

#include "loops.h"

static bool start(const struct peer *peer, char *version)
{
	(void) peer;
	snprintf(version, TEXT_SIZE, "as in libbufpool");
	return true;
}

/* As many shards as there are threads, as it is in a pool with its CPUs. */
static struct source *open_depot(const struct peer *peer, const struct job *job)
{
	struct source *s = aligned_alloc(64, sizeof(*s));
	size_t count = job_count(job);

	(void) peer;
	if (s == NULL)
		die("no memory");
	s->size = job->size;
	s->shards = job_is_shared(job) ? 2 : 1;
	s->bufs = need(count, sizeof(*s->bufs));
	s->next = need(count, sizeof(*s->next));
	bp_depot_init(&s->depot, s->bufs, s->next, (uint32_t) count, s->shards);
	return s;
}

static void close_depot(struct source *s)
{
	free(s->bufs);
	free(s->next);
	free(s);
}

/* Threads come to shards in turn. */
static void thread_begin(void)
{
	static unsigned last;

	shard = ck_pr_faa_uint(&last, 1) % 2;
}

const struct peer peer_depot = { .name = "depot",
	                         .what = "libbufpool's depot, from inside",
	                         .start = start,
	                         .open = open_depot,
	                         .close = close_depot,
	                         .loops = &loops,
	                         .thread_begin = thread_begin };
