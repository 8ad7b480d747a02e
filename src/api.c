/* SPDX-License-Identifier: MIT */
/*
 * api.c - the calls without a fast path: each checks its arguments, and is made
 * of what take.h and the others offer
 */
#include <errno.h>
#include <string.h>

#include "atlas.h"
#include "checkout.h"
#include "grow.h"
#include "misuse.h"
#include "registry.h"
#include "take.h"

/* ----------------------------------------------------------- size classes */

int bufpool_class_for(size_t size)
{
	unsigned k = bp_class_of(size);

	return k < BUFPOOL_CLASSES ? (int) k : -1;
}

static bool is_class(int size_class)
{
	return size_class >= 0 && size_class < BUFPOOL_CLASSES;
}

size_t bufpool_class_size(int size_class)
{
	return is_class(size_class) ? class_size[size_class] : 0;
}

const char *bufpool_class_name(int size_class)
{
	return is_class(size_class) ? class_name[size_class] : NULL;
}

/* -------------------------------------------------------------- checkouts */

bufpool_buf_t *bufpool_checkout_zeroed(bufpool_t *pool, size_t size)
{
	bufpool_buf_t *buf = bp_checkout_of("bufpool_checkout_zeroed", pool, size);

	/* Under the other modes it came in erased. */
	if (buf != NULL && pool->wipe == BUFPOOL_WIPE_NONE)
		memset(buf->data, 0, buf->capacity);
	return buf;
}

bufpool_buf_t *bufpool_checkout_aligned(bufpool_t *pool, size_t size,
                                        size_t alignment)
{
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	bufpool_buf_t *buf = NULL;

	if (error == 0 &&
	    (alignment == 0 || (alignment & (alignment - 1)) != 0))
		error = EINVAL;
	if (error != 0)
		return fail(error);
	if (k < BUFPOOL_CLASSES && alignment <= class_alignment(class_size[k]))
		buf = bp_take("bufpool_checkout_aligned", pool, k, size);
	return buf != NULL ? buf : bp_take_heap(pool, size, alignment);
}

bufpool_buf_t *bufpool_try_checkout(bufpool_t *pool, size_t size)
{
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	bufpool_buf_t *buf = NULL;

	if (error != 0)
		return fail(error);
	if (k < BUFPOOL_CLASSES)
		buf = bp_take("bufpool_try_checkout", pool, k, size);
	return buf != NULL ? buf : bp_take_none(pool, k, ENOBUFS);
}

bufpool_buf_t *bufpool_checkout_wait(bufpool_t *pool, size_t size,
                                     const struct timespec *timeout)
{
	const char *call = "bufpool_checkout_wait";
	const time_t for_ever = INT32_MAX; /* 68 years */
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	int saved = errno;
	bufpool_buf_t *buf;

	if (error == 0 && timeout != NULL &&
	    (timeout->tv_sec < 0 || timeout->tv_nsec < 0 ||
	     timeout->tv_nsec >= 1000000000))
		error = EINVAL;
	if (error != 0)
		return fail(error);
	if (k == BUFPOOL_CLASSES || pool->most[k] == 0)
		return bp_take_none(pool, k, ENOBUFS);
	if (timeout != NULL && timeout->tv_sec > for_ever)
		timeout = NULL;
	buf = bp_take(call, pool, k, size);
	if (buf == NULL)
		buf = bp_take_wait(call, pool, k, size, timeout);
	if (buf == NULL)
		return bp_take_none(pool, k, ETIMEDOUT);
	errno = saved;
	return buf;
}

size_t bufpool_checkout_bulk(bufpool_t *pool, size_t size, bufpool_buf_t **bufs,
                             size_t n)
{
	const char *call = "bufpool_checkout_bulk";
	int error = check_request(pool, size);
	unsigned k = bp_class_of(size);
	size_t got = 0;

	if (error == 0 && bufs == NULL && n > 0)
		error = EINVAL;
	if (error != 0) {
		errno = error;
		return 0;
	}
	while (got < n) {
		size_t some = 0;

		if (k < BUFPOOL_CLASSES) {
			some = bp_checkout_cached(pool, k, size, bufs + got,
			                          n - got);
			if (some == 0)
				some = bp_take_many(call, pool, k, size,
				                    bufs + got, n - got);
		}
		/* One by the usual way, which looks everywhere. */
		if (some == 0) {
			bufs[got] = bp_checkout_of(call, pool, size);
			if (bufs[got] == NULL)
				break;
			some = 1;
		}
		got += some;
	}
	return got;
}

void bufpool_thread_flush(bufpool_t *pool)
{
	int saved = errno;

	registry_check();
	bp_thread_flush(pool);
	errno = saved;
}

/* ----------------------------------------------------------------- memory */

size_t bufpool_regions(const bufpool_t *pool, bufpool_region_t *out, size_t max)
{
	int saved = errno;
	unsigned n;

	if (pool == NULL || (out == NULL && max > 0)) {
		errno = EINVAL;
		return 0;
	}
	registry_check();
	n = ck_pr_load_uint(&pool->regions);
	ck_pr_fence_acquire(); /* that before they are read */
	for (size_t i = 0; i < max && i < n; i++)
		out[i] = bp_region_describe(&pool->region[i]);
	errno = saved;
	return n;
}

int bufpool_grow(bufpool_t *pool, int size_class, size_t n)
{
	int saved = errno, error = EINVAL;

	if (pool != NULL && (unsigned) size_class < BUFPOOL_CLASSES) {
		registry_check();
		error = bp_grow(pool, (unsigned) size_class, n);
	}
	errno = error != 0 ? error : saved;
	return error != 0 ? -1 : 0;
}

/* The region that a buffer lies in; NULL if it is from the heap. */
static struct region *region_of(const struct bp_buf *d)
{
	if (d->klass == BP_FROM_HEAP)
		return NULL;
	registry_check();
	return bp_atlas_region(d->pool, d->base);
}

static int tell_region(const struct bp_buf *d, unsigned *index, size_t *offset)
{
	struct region *r = region_of(d);

	if (r == NULL) {
		errno = ENOENT;
		return -1;
	}
	if (index != NULL)
		*index = r->pub.index;
	if (offset != NULL)
		*offset = (size_t) (d->base - (char *) r->pub.base);
	return 0;
}

int bufpool_buf_region(const bufpool_buf_t *buf, unsigned *index,
                       size_t *offset)
{
	const struct bp_buf *d = (const struct bp_buf *) buf;

	if (d == NULL) {
		errno = EINVAL;
		return -1;
	}
	check_handle("bufpool_buf_region", d, BP_OUT);
	return tell_region(d, index, offset);
}

int bufpool_frozen_region(const bufpool_frozen_t *f, unsigned *index,
                          size_t *offset)
{
	const struct bp_buf *d = (const struct bp_buf *) f;

	if (d == NULL) {
		errno = EINVAL;
		return -1;
	}
	if (handle_state(d) != BP_FROZEN)
		bp_misuse_handle("bufpool_frozen_region", d);
	return tell_region(d, index, offset);
}

/* The buffer that holds p, if it is of that state. */
static struct bp_buf *buf_at(const bufpool_t *pool, const void *p,
                             uint32_t state)
{
	struct bp_buf *d;

	if (pool == NULL) {
		errno = EINVAL;
		return NULL;
	}
	registry_check();
	d = bp_atlas_find(pool, p);
	if (d != NULL && ck_pr_load_32(&d->state) == state)
		return d;
	errno = ENOENT;
	return NULL;
}

bufpool_buf_t *bufpool_buf_at(bufpool_t *pool, const void *p)
{
	return (bufpool_buf_t *) buf_at(pool, p, BP_OUT);
}

bufpool_frozen_t *bufpool_frozen_at(bufpool_t *pool, const void *p)
{
	return (bufpool_frozen_t *) buf_at(pool, p, BP_FROZEN);
}

int bufpool_buf_node(const bufpool_buf_t *buf)
{
	const struct bp_buf *d = (const struct bp_buf *) buf;
	int saved = errno, node;
	struct region *r;

	if (d == NULL) {
		errno = EINVAL;
		return -1;
	}
	check_handle("bufpool_buf_node", d, BP_OUT);
	r = region_of(d);
	node = r != NULL ? bp_region_node(r) : NODE_ASK;
	if (node == NODE_ASK)
		node = bp_node_of(buf->data, buf->capacity);
	errno = saved;
	return node;
}

const char *bufpool_version(void)
{
	return BUFPOOL_VERSION;
}
