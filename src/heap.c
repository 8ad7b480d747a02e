/* SPDX-License-Identifier: MIT */
#include "heap.h"

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

static struct bp_buf *descriptor(const struct heap *heap, uint32_t number)
{
	unsigned c = 31 - __builtin_clz(number / CHUNK_FIRST + 1);

	return (struct bp_buf *) ck_pr_load_ptr(&heap->chunk[c]) +
	       (number - chunk_start(c));
}

static uint32_t number_of(const struct heap *heap, const struct bp_buf *d)
{
	unsigned c = 0;

	while ((uintptr_t) d - (uintptr_t) ck_pr_load_ptr(&heap->chunk[c]) >=
	       chunk_len(c) * sizeof(*d))
		c++;
	return chunk_start(c) +
	       (uint32_t) (d - (struct bp_buf *) ck_pr_load_ptr(&heap->chunk[c]));
}

static uint32_t *link_of(const void *ctx, uint32_t number)
{
	return &descriptor(ctx, number)->refs;
}

static size_t chunk_bytes(unsigned c)
{
	return chunk_len(c) * sizeof(struct bp_buf);
}

static void chunk_free(struct bp_buf *chunk, unsigned c)
{
	track_unroot(chunk, chunk_bytes(c));
	bp_unmap(chunk, chunk_bytes(c));
}

/* Add the next chunk, if memory allows and nobody else just does it. */
static bool grow(struct heap *heap)
{
	unsigned c = 0;
	uint32_t start;
	struct bp_buf *chunk;

	while (c < HEAP_CHUNKS && ck_pr_load_ptr(&heap->chunk[c]) != NULL)
		c++;
	if (c == HEAP_CHUNKS)
		return false;
	chunk = bp_map(chunk_bytes(c));
	if (chunk == NULL)
		return false;
	start = chunk_start(c);
	for (uint32_t i = 0; i < chunk_len(c); i++) {
		chunk[i].pool = heap->pool;
		chunk[i].state = BP_HOME;
		chunk[i].refs = start + i + 1; /* the last by the push */
	}
	track_root(chunk, chunk_bytes(c));
	ck_pr_fence_release(); /* the descriptors before their chunk */
	if (ck_pr_cas_ptr(&heap->chunk[c], NULL, chunk))
		stack_push(&heap->free, start, &chunk[chunk_len(c) - 1].refs);
	else
		chunk_free(chunk, c);
	return true;
}

static struct bp_buf *descriptor_take(struct heap *heap)
{
	uint32_t number;

	while (stack_pop(&heap->free, link_of, heap, &number, 1) == 0)
		if (!grow(heap))
			return NULL;
	return descriptor(heap, number);
}

static void descriptor_give(struct heap *heap, struct bp_buf *d)
{
	stack_push(&heap->free, number_of(heap, d), &d->refs);
}

/* Reserve capacity bytes of the budget. */
static bool budget_take(struct heap *heap, size_t capacity)
{
	size_t limit = heap->limit;
	uint64_t was = ck_pr_load_64(&heap->bytes);

	do {
		if (limit != 0 && (capacity > limit || was > limit - capacity))
			return false;
	} while (!ck_pr_cas_64_value(&heap->bytes, was, was + capacity, &was));
	return true;
}

void bp_heap_init(struct heap *heap, bufpool_t *pool,
                  const bufpool_config_t *cfg)
{
	heap->free = STACK_NIL;
	heap->pool = pool;
	heap->limit = cfg->heap_limit;
	heap->wipe = cfg->wipe;
}

struct bp_buf *bp_heap_take(struct heap *heap, unsigned k, size_t capacity,
                            size_t alignment, int *error)
{
	struct bp_buf *d;
	void *data;

	*error = ENOBUFS;
	if (!budget_take(heap, capacity))
		return NULL;
	*error = ENOMEM;
	d = descriptor_take(heap);
	if (d != NULL && posix_memalign(&data, alignment, capacity) != 0) {
		descriptor_give(heap, d);
		d = NULL;
	}
	if (d == NULL) {
		ck_pr_sub_64(&heap->bytes, capacity);
		return NULL;
	}
	if (heap->wipe != BUFPOOL_WIPE_NONE)
		memset(data, 0, capacity);
	buf_init_heap(d, data, capacity);
	ck_pr_inc_64(&heap->out);
	ck_pr_inc_64(&heap->served[k]);
	return d;
}

void bp_heap_give(struct heap *heap, struct bp_buf *d)
{
	size_t capacity = buf_capacity(d);

	if (heap->wipe == BUFPOOL_WIPE_USED)
		bp_wipe_memset(d->base, buf_used(d));
	else if (heap->wipe != BUFPOOL_WIPE_NONE)
		bp_wipe_memset(d->base, capacity);
	d->state = BP_HOME;
	free(d->base);
	ck_pr_sub_64(&heap->bytes, capacity);
	ck_pr_dec_64(&heap->out);
	descriptor_give(heap, d);
}

void bp_heap_release(struct heap *heap)
{
	for (unsigned c = 0; c < HEAP_CHUNKS; c++)
		if (heap->chunk[c] != NULL)
			chunk_free(heap->chunk[c], c);
}

void bp_heap_remake(struct heap *heap, void (*is_out)(void *arg, size_t bytes),
                    void *arg)
{
	heap->free = STACK_NIL;
	heap->out = heap->bytes = 0;
	memset(heap->served, 0, sizeof(heap->served));
	for (unsigned c = 0; c < HEAP_CHUNKS && heap->chunk[c] != NULL; c++) {
		for (uint32_t i = 0; i < chunk_len(c); i++) {
			struct bp_buf *d = &heap->chunk[c][i];

			if (d->state != BP_OUT && d->state != BP_FROZEN) {
				d->pool = heap->pool;
				d->state = BP_HOME;
				descriptor_give(heap, d);
				continue;
			}
			heap->out++;
			heap->bytes += buf_capacity(d);
			is_out(arg, buf_capacity(d));
		}
	}
}
