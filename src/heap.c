/* SPDX-License-Identifier: MIT */
/*
 * heap.c - buffers from malloc, where no pool memory is idle or none is large
 * enough
 *
 * Payloads come and go; their descriptors stay with the pool, so that a second
 * return of the same handle is found out as long as the pool lives.  They come
 * in chunks of 64, 128, 256 ..., numbered through, and the free ones wait in a
 * stack of numbers.
 */
#include "pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stack.h"
#include "track.h"
#include "wipe.h"

#define CHUNK_FIRST 64u /* descriptors in chunk 0 */

static uint32_t chunk_len(unsigned c)
{
	return CHUNK_FIRST << c;
}

/* The number of the first descriptor in chunk c. */
static uint32_t chunk_start(unsigned c)
{
	return chunk_len(c) - CHUNK_FIRST;
}

static struct buf *descriptor(const struct heap *heap, uint32_t number)
{
	unsigned c = 31 - __builtin_clz(number / CHUNK_FIRST + 1);

	return (struct buf *) ck_pr_load_ptr(&heap->chunk[c]) +
	       (number - chunk_start(c));
}

static uint32_t number_of(const struct heap *heap, const struct buf *d)
{
	unsigned c = 0;

	while ((uintptr_t) d - (uintptr_t) ck_pr_load_ptr(&heap->chunk[c]) >=
	       chunk_len(c) * sizeof(*d))
		c++;
	return chunk_start(c) +
	       (uint32_t) (d - (struct buf *) ck_pr_load_ptr(&heap->chunk[c]));
}

static uint32_t *link_of(const void *ctx, uint32_t number)
{
	return &descriptor(ctx, number)->link;
}

static size_t chunk_bytes(unsigned c)
{
	return chunk_len(c) * sizeof(struct buf);
}

static void chunk_free(struct buf *chunk, unsigned c)
{
	track_unroot(chunk, chunk_bytes(c));
	bp_unmap(chunk, chunk_bytes(c));
}

/* Add the next chunk, if memory allows and nobody else just does it. */
static bool grow(bufpool_t *pool)
{
	struct heap *heap = &pool->heap;
	unsigned c = 0;
	uint32_t start;
	struct buf *chunk;

	while (c < HEAP_CHUNKS && ck_pr_load_ptr(&heap->chunk[c]) != NULL)
		c++;
	if (c == HEAP_CHUNKS)
		return false;
	chunk = bp_map(chunk_bytes(c));
	if (chunk == NULL)
		return false;
	start = chunk_start(c);
	for (uint32_t i = 0; i < chunk_len(c); i++) {
		chunk[i].pool = pool;
		buf_set_state(&chunk[i], STATE_HOME_HEAP);
		chunk[i].link = start + i + 1; /* the last by the push */
	}
	track_root(chunk, chunk_bytes(c));
	ck_pr_fence_release(); /* the descriptors before their chunk */
	if (ck_pr_cas_ptr(&heap->chunk[c], NULL, chunk))
		stack_push(&heap->free, start, &chunk[chunk_len(c) - 1].link);
	else
		chunk_free(chunk, c);
	return true;
}

static struct buf *descriptor_take(bufpool_t *pool)
{
	struct heap *heap = &pool->heap;
	uint32_t number;

	while (stack_pop(&heap->free, link_of, heap, &number, 1) == 0)
		if (!grow(pool))
			return NULL;
	return descriptor(heap, number);
}

static void descriptor_give(bufpool_t *pool, struct buf *d)
{
	stack_push(&pool->heap.free, number_of(&pool->heap, d), &d->link);
}

/* Reserve capacity bytes of the budget. */
static bool budget_take(bufpool_t *pool, size_t capacity)
{
	size_t limit = pool->heap_limit;
	uint64_t was = ck_pr_load_64(&pool->heap.bytes);

	do {
		if (limit != 0 && (capacity > limit || was > limit - capacity))
			return false;
	} while (!ck_pr_cas_64_value(&pool->heap.bytes, was, was + capacity,
	                             &was));
	return true;
}

static struct buf *allocate(bufpool_t *pool, size_t capacity, size_t alignment)
{
	struct buf *d = descriptor_take(pool);
	void *data;

	if (d == NULL)
		return NULL;
	if (posix_memalign(&data, alignment, capacity) != 0) {
		descriptor_give(pool, d);
		return NULL;
	}
	if (pool->wipe != BUFPOOL_WIPE_NONE)
		memset(data, 0, capacity);
	d->pub.data = d->base = data;
	d->pub.capacity = capacity;
	return d;
}

bufpool_buf_t *bp_heap_checkout(bufpool_t *pool, size_t size, size_t alignment)
{
	unsigned k = bp_class_of(size);
	size_t capacity = k < BUFPOOL_CLASSES ? class_size[k] : size;
	struct heap *heap = &pool->heap;
	struct buf *d;
	int saved = errno;

	if (!budget_take(pool, capacity)) {
		errno = ENOBUFS;
		return NULL;
	}
	d = allocate(pool, capacity, alignment);
	if (d == NULL) {
		ck_pr_sub_64(&heap->bytes, capacity);
		errno = ENOMEM;
		return NULL;
	}
	ck_pr_inc_64(&pool->left); /* a reason for the pool to stay */
	ck_pr_inc_64(&heap->out);
	ck_pr_inc_64(&heap->served[k]);
	bp_gauge_add(&pool->bufs, 1);
	bp_gauge_add(&pool->bytes, size);
	d->pub.len = size;
	d->asked = size;
	buf_set_state(d, STATE_OUT_HEAP);
	errno = saved;
	return &d->pub;
}

void bp_heap_return(struct buf *d)
{
	bufpool_t *pool = d->pool;
	struct heap *heap = &pool->heap;
	size_t capacity = buf_capacity(d);
	int saved = errno;

	check_owner("bufpool_return", d, capacity);
	if (pool->wipe == BUFPOOL_WIPE_USED)
		bp_wipe_memset(d->base, buf_used(d));
	else if (pool->wipe != BUFPOOL_WIPE_NONE)
		bp_wipe_memset(d->base, capacity);
	buf_set_state(d, STATE_HOME_HEAP);
	free(d->base);
	ck_pr_sub_64(&heap->bytes, capacity);
	ck_pr_dec_64(&heap->out);
	bp_gauge_add(&pool->bytes, -d->asked);
	bp_gauge_add(&pool->bufs, -1);
	descriptor_give(pool, d);
	bp_pool_settle(pool, 1);
	errno = saved;
}

void bp_heap_release(bufpool_t *pool)
{
	for (unsigned c = 0; c < HEAP_CHUNKS; c++)
		if (pool->heap.chunk[c] != NULL)
			chunk_free(pool->heap.chunk[c], c);
}

void bp_heap_remake(bufpool_t *pool, uint64_t *bufs, uint64_t *asked)
{
	struct heap *heap = &pool->heap;
	struct heap old = *heap;

	*asked = 0;
	*heap = (struct heap){ .free = STACK_NIL };
	for (unsigned c = 0; c < HEAP_CHUNKS && old.chunk[c] != NULL; c++) {
		heap->chunk[c] = old.chunk[c];
		for (uint32_t i = 0; i < chunk_len(c); i++) {
			struct buf *d = &heap->chunk[c][i];

			if (buf_state(d) != STATE_OUT_HEAP &&
			    buf_state(d) != STATE_FROZEN_HEAP) {
				d->pool = pool;
				buf_set_state(d, STATE_HOME_HEAP);
				descriptor_give(pool, d);
				continue;
			}
			heap->out++;
			heap->bytes += buf_capacity(d);
			*asked += d->asked;
		}
	}
	*bufs = heap->out;
}
