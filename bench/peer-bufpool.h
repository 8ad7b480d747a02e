/* SPDX-License-Identifier: MIT */
/*
 * peer-bufpool.h - libbufpool as a source of buffers, compiled into
 * peer-bufpool.c, and once more into peer-inline.c
 */
#ifndef PEER_BUFPOOL_H
#define PEER_BUFPOOL_H

#include <bufpool.h>
#include <stdlib.h>

#include "bench.h"

struct source {
	bufpool_t *pool; /* the one that is used */
	size_t size, used;
	size_t pools; /* how many, and all of them */
	bufpool_t **all;
	bufpool_buf_t **out; /* what is kept out */
	size_t kept;
};

static inline void *get(struct source *s, size_t size)
{
	return bufpool_checkout(s->pool, size);
}

static inline void put(struct source *s, void *handle, bool wipe)
{
	bufpool_buf_t *buf = handle;

	if (wipe)
		buf->len = s->used;
	bufpool_return(buf);
}

#define get_bulk get_bulk
static inline bool get_bulk(struct source *s, size_t size, void **bufs,
                            size_t n)
{
	bufpool_buf_t **to = (bufpool_buf_t **) bufs;
	size_t got = bufpool_checkout_bulk(s->pool, size, to, n);

	if (got < n)
		bufpool_return_bulk(to, got);
	return got == n;
}

#define put_bulk put_bulk
static inline void put_bulk(struct source *s, void **bufs, size_t n, bool wipe)
{
	(void) s, (void) wipe;
	bufpool_return_bulk((bufpool_buf_t **) bufs, n);
}

#define freeze freeze
static inline void *freeze(struct source *s, void *buf)
{
	(void) s;
	return bufpool_freeze(buf);
}

static inline void *share(struct source *s, void *frozen)
{
	(void) s;
	return bufpool_frozen_ref(frozen);
}

static inline void drop(struct source *s, void *frozen)
{
	(void) s;
	bufpool_frozen_unref(frozen);
}

#define payload(handle) (((bufpool_buf_t *) (handle))->data)

#include "loops.h"

static bool start(const struct peer *peer, char *version)
{
	(void) peer;
	snprintf(version, TEXT_SIZE, "%s", bufpool_version());
	return true;
}

static const struct {
	size_t size;
	int index;
} classes[] = {
	{ SIZE_4K, BUFPOOL_CLASS_4K },
	{ SIZE_64K, BUFPOOL_CLASS_64K },
	{ SIZE_256K, BUFPOOL_CLASS_256K },
	{ SIZE_1M, BUFPOOL_CLASS_1M },
};

/* Never the heap: that would be another measurement. */
static bufpool_t *create(const struct peer *peer, const struct job *job)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	bufpool_t *pool;

	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		bool used = classes[i].size == job->size;

		config.count[classes[i].index] = used ? job_count(job) : 0;
		if (peer == &peer_bufpool_nocache)
			config.cache[classes[i].index] = 0;
	}
	if (peer == &peer_bufpool_local)
		config.numa_node = BUFPOOL_NUMA_LOCAL;
	if (peer == &peer_bufpool_hardened)
		config.flags = BUFPOOL_HARDENED;
	config.exhausted = BUFPOOL_FAIL;
	config.wipe = !job->wipe                   ? BUFPOOL_WIPE_NONE
	              : peer == &peer_bufpool_used ? BUFPOOL_WIPE_USED
	                                           : BUFPOOL_WIPE_ALL;
	pool = bufpool_create(&config);
	if (pool == NULL)
		die("bufpool_create: %m");
	return pool;
}

/* Take all, and give `idle` of them back, which lie anywhere. */
static void keep_out(struct source *s, const struct job *job)
{
	uint64_t seed = 88172645463325252;
	size_t n = job_count(job);

	s->out = need(n, sizeof(*s->out));
	if (bufpool_checkout_bulk(s->pool, s->size, s->out, n) != n)
		die("bufpool_checkout_bulk: %m");
	for (s->kept = n; s->kept > n - job->idle; s->kept--) {
		size_t i;
		bufpool_buf_t *buf;

		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		i = seed % s->kept;
		buf = s->out[i];
		s->out[i] = s->out[s->kept - 1];
		bufpool_return(buf);
	}
}

static struct source *open_pools(const struct peer *peer, const struct job *job)
{
	struct source *s = need(1, sizeof(*s));

	s->size = job->size;
	s->used = job->used != 0 ? job->used : job->size;
	s->pools = job->pools != 0 ? job->pools : 1;
	s->all = need(s->pools, sizeof(*s->all));
	for (size_t i = 0; i < s->pools; i++) {
		s->pool = s->all[i] = create(peer, job);
		if (s->pools > 1) /* this thread is to know all */
			put(s, get_one(s, s->size), false);
	}
	s->pool = s->all[s->pools / 2];
	if (job->idle != 0 && job->idle < job_count(job))
		keep_out(s, job);
	return s;
}

static void close_pools(struct source *s)
{
	bufpool_return_bulk(s->out, s->kept);
	for (size_t i = 0; i < s->pools; i++)
		bufpool_destroy(s->all[i]);
	free(s->out);
	free(s->all);
	free(s);
}

static void cycle(struct source *s, uint64_t steps)
{
	for (size_t i = 0; steps-- > 0; i = i + 1 < s->pools ? i + 1 : 0) {
		s->pool = s->all[i];
		put(s, get_one(s, s->size), false);
	}
}

#define PEER                                                                   \
	.open = open_pools, .close = close_pools, .loops = &loops,             \
	.cycle = cycle

#endif
