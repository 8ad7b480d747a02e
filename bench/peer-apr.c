/* SPDX-License-Identifier: MIT */
/*
 * peer-apr.c - the Apache Portable Runtime's apr_allocator, with a mutex where
 * several threads use it
 */
#include <apr_allocator.h>
#include <apr_general.h>
#include <apr_pools.h>
#include <apr_thread_mutex.h>
#include <apr_version.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct source {
	apr_allocator_t *allocator;
	apr_pool_t *pool; /* of the mutex */
	size_t size;
};

/* What it gives begins with a header, which leads to the bytes. */
static inline void *get(struct source *s, size_t size)
{
	return apr_allocator_alloc(s->allocator, size);
}

#define payload(node) ((void *) ((apr_memnode_t *) (node))->first_avail)

static inline void put(struct source *s, void *node, bool wipe)
{
	if (wipe)
		memset(payload(node), 0, s->size);
	apr_allocator_free(s->allocator, node);
}

#include "loops.h"

static bool start(const struct peer *peer, char *version)
{
	(void) peer;
	if (apr_initialize() != APR_SUCCESS) {
		snprintf(version, TEXT_SIZE, "apr_initialize() fails");
		return false;
	}
	snprintf(version, TEXT_SIZE, "%s", apr_version_string());
	return true;
}

static struct source *open_apr(const struct peer *peer, const struct job *job)
{
	struct source *s = need(1, sizeof(*s));
	apr_thread_mutex_t *mutex = NULL;

	(void) peer;
	s->size = job->size;
	if (apr_allocator_create(&s->allocator) != APR_SUCCESS ||
	    apr_pool_create(&s->pool, NULL) != APR_SUCCESS ||
	    apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT,
	                            s->pool) != APR_SUCCESS)
		die("apr: no allocator");
	if (job_is_shared(job))
		apr_allocator_mutex_set(s->allocator, mutex);
	return s;
}

static void close_apr(struct source *s)
{
	apr_allocator_destroy(s->allocator);
	apr_pool_destroy(s->pool);
	free(s);
}

const struct peer peer_apr = { .name = "apr",
	                       .what = "apr_allocator",
	                       .start = start,
	                       .open = open_apr,
	                       .close = close_apr,
	                       .loops = &loops };
