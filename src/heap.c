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

static struct bp_buf *descriptor(const struct stock *stock, uint32_t number)
{
	unsigned c = 31 - __builtin_clz(number / CHUNK_FIRST + 1);

	return (struct bp_buf *) ck_pr_load_ptr(&stock->chunk[c]) +
	       (number - chunk_start(c));
}

/* The chunk that a descriptor is in. */
static unsigned chunk_of(const struct stock *stock, const struct bp_buf *d)
{
	unsigned c = 0;

	while ((uintptr_t) d -
	               (uintptr_t) ck_pr_load_ptr(&stock->chunk[c]) >=
	       chunk_len(c) * sizeof(*d))
		c++;
	return c;
}

static uint32_t number_of(const struct stock *stock, const struct bp_buf *d)
{
	unsigned c = chunk_of(stock, d);

	return chunk_start(c) +
	       (uint32_t) (d -
	                   (struct bp_buf *) ck_pr_load_ptr(&stock->chunk[c]));
}

static uint32_t *link_of(const void *ctx, uint32_t number)
{
	return &descriptor(ctx, number)->refs;
}

/* ------------------------------------------------------- memory of their own */

/* Below this, a page more is more than an eighth. */
#define SMALL ((size_t) 8 * PAGE)

/* What may always be kept of free ones; beyond that one for so many live. */
#define SPARE_BYTES ((size_t) 64 * 1024)
#define SPARE_SHARE 16

/* The bytes that each descriptor of a stock has; 0: none. */
static size_t own_size(unsigned s)
{
	return s < BUFPOOL_CLASSES && class_size[s] < SMALL ? class_size[s] : 0;
}

/* Of all descriptors in a chunk. */
static size_t chunk_bytes(unsigned c)
{
	return round_up(chunk_len(c) * sizeof(struct bp_buf), bp_page_size());
}

static size_t chunk_mapped(unsigned s, unsigned c)
{
	return chunk_bytes(c) + chunk_len(c) * own_size(s);
}

/* By nothing but its address: to a child, what is in it may be of any moment. */
static char *own_memory(const struct stock *stock, unsigned s,
                        const struct bp_buf *d)
{
	unsigned c = chunk_of(stock, d);
	struct bp_buf *chunk = ck_pr_load_ptr(&stock->chunk[c]);

	return (char *) chunk + chunk_bytes(c) +
	       (size_t) (d - chunk) * own_size(s);
}

static bool has_too_many_spare(const struct stock *stock, size_t size)
{
	return ck_pr_load_64(&stock->spare) >
	       SPARE_BYTES / size + ck_pr_load_64(&stock->out) / SPARE_SHARE;
}

/* After one was given.  Two at the most, as the more go home the fewer may stay. */
static void shrink(struct stock *stock, unsigned s)
{
	size_t size = own_size(s);

	for (int i = 0; i < 2 && has_too_many_spare(stock, size); i++) {
		uint32_t number = stack_pop_one(&stock->free, link_of, stock);
		uint64_t *to = &stock->cold;
		struct bp_buf *d;

		if (number == STACK_NIL)
			return;
		d = descriptor(stock, number);
		if (bp_drop(own_memory(stock, s, d), size))
			ck_pr_dec_64(&stock->spare);
		else
			to = &stock->free; /* it is locked, say */
		stack_push(to, number, &d->refs);
	}
}

/* ------------------------------------------------------------- descriptors */

static void chunk_free(struct bp_buf *chunk, unsigned s, unsigned c)
{
	size_t len = chunk_mapped(s, c);

	TRACK_OUT(chunk, len);
	track_unroot(chunk, len);
	bp_unmap(chunk, len);
}

/* Add the next chunk, if memory allows and nobody else just does it. */
static bool grow(struct heap *heap, unsigned s)
{
	struct stock *stock = &heap->stock[s];
	unsigned c = 0;
	uint32_t start;
	struct bp_buf *chunk;

	while (c < HEAP_CHUNKS && ck_pr_load_ptr(&stock->chunk[c]) != NULL)
		c++;
	if (c == HEAP_CHUNKS)
		return false;
	chunk = bp_map_cold(chunk_mapped(s, c), chunk_bytes(c));
	if (chunk == NULL)
		return false;
	start = chunk_start(c);
	for (uint32_t i = 0; i < chunk_len(c); i++) {
		chunk[i].pool = heap->pool;
		chunk[i].place = s & 0xff;
		chunk[i].state = BP_HOME;
		chunk[i].refs = start + i + 1; /* the last by the push */
		track_release(&chunk[i]);
	}
	track_root(chunk, chunk_mapped(s, c));
	TRACK_IDLE((char *) chunk + chunk_bytes(c), chunk_len(c) * own_size(s));
	ck_pr_fence_release(); /* the descriptors before their chunk */
	if (ck_pr_cas_ptr(&stock->chunk[c], NULL, chunk))
		stack_push(own_size(s) > 0 ? &stock->cold : &stock->free, start,
		           &chunk[chunk_len(c) - 1].refs);
	else
		chunk_free(chunk, s, c);
	return true;
}

static struct bp_buf *descriptor_take(struct heap *heap, unsigned s)
{
	struct stock *stock = &heap->stock[s];
	uint32_t number;

	for (;;) {
		number = stack_pop_one(&stock->free, link_of, stock);
		if (number != STACK_NIL) {
			ck_pr_dec_64(&stock->spare);
			break;
		}
		number = stack_pop_one(&stock->cold, link_of, stock);
		if (number != STACK_NIL)
			break;
		if (!grow(heap, s))
			return NULL;
	}
	return descriptor(stock, number);
}

static void descriptor_give(struct stock *stock, struct bp_buf *d)
{
	ck_pr_inc_64(&stock->spare);
	stack_push(&stock->free, number_of(stock, d), &d->refs);
}

/* -------------------------------------------------------------------- both */

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
	for (unsigned s = 0; s <= BUFPOOL_CLASSES; s++)
		heap->stock[s].free = heap->stock[s].cold = STACK_NIL;
	heap->pool = pool;
	heap->limit = cfg->heap_limit;
	heap->wipe = cfg->wipe;
}

/* The payload of a descriptor that is just taken; NULL if malloc has none. */
static void *payload(struct heap *heap, unsigned s, struct bp_buf *d,
                     size_t capacity, size_t alignment)
{
	bool zero = heap->wipe != BUFPOOL_WIPE_NONE;
	void *data;

	if (own_size(s) > 0) {
		data = own_memory(&heap->stock[s], s, d);
		track_acquire(d);
		TRACK_OUT(data, capacity);
		zero = zero && d->state == BP_UNSURE; /* it came in erased */
	} else if (posix_memalign(&data, alignment, capacity) != 0) {
		return NULL;
	}
	if (zero)
		memset(data, 0, capacity);
	return data;
}

struct bp_buf *bp_heap_take(struct heap *heap, unsigned k, size_t capacity,
                            size_t alignment, int *error)
{
	unsigned s = own_size(k) > 0 && alignment <= PAGE ? k : BUFPOOL_CLASSES;
	struct bp_buf *d;
	void *data = NULL;

	*error = ENOBUFS;
	if (!budget_take(heap, capacity))
		return NULL;
	*error = ENOMEM;
	d = descriptor_take(heap, s);
	if (d != NULL)
		data = payload(heap, s, d, capacity, alignment);
	if (data == NULL) {
		if (d != NULL)
			descriptor_give(&heap->stock[s], d);
		ck_pr_sub_64(&heap->bytes, capacity);
		return NULL;
	}
	buf_init_heap(d, s, data, capacity);
	ck_pr_inc_64(&heap->stock[s].out);
	ck_pr_inc_64(&heap->served[k]);
	return d;
}

void bp_heap_give(struct heap *heap, struct bp_buf *d)
{
	size_t capacity = buf_capacity(d);
	unsigned s = d->place;
	struct stock *stock = &heap->stock[s];

	if (heap->wipe == BUFPOOL_WIPE_USED)
		bp_wipe_memset(d->base, buf_used(d));
	else if (heap->wipe != BUFPOOL_WIPE_NONE)
		bp_wipe_memset(d->base, capacity);
	d->state = BP_HOME;
	if (own_size(s) > 0) {
		track_release(d);
		TRACK_IDLE(d->base, capacity);
	} else {
		free(d->base);
	}
	ck_pr_sub_64(&heap->bytes, capacity);
	ck_pr_dec_64(&stock->out);
	descriptor_give(stock, d);
	if (own_size(s) > 0)
		shrink(stock, s);
}

void bp_heap_release(struct heap *heap)
{
	for (unsigned s = 0; s <= BUFPOOL_CLASSES; s++)
		for (unsigned c = 0; c < HEAP_CHUNKS; c++)
			if (heap->stock[s].chunk[c] != NULL)
				chunk_free(heap->stock[s].chunk[c], s, c);
}

/* In a child. */
static void descriptor_remake(struct heap *heap, unsigned s, struct bp_buf *d,
                              void (*is_out)(void *arg, size_t bytes),
                              void *arg)
{
	/* Of a chunk that was new there may be a copy from before it was filled. */
	if (d->pool != heap->pool ||
	    (d->state != BP_OUT && d->state != BP_FROZEN)) {
		d->pool = heap->pool;
		d->place = s & 0xff;
		d->state = BP_UNSURE;
		descriptor_give(&heap->stock[s], d);
		return;
	}
	heap->stock[s].out++;
	heap->bytes += buf_capacity(d);
	is_out(arg, buf_capacity(d));
}

void bp_heap_remake(struct heap *heap, void (*is_out)(void *arg, size_t bytes),
                    void *arg)
{
	heap->bytes = 0;
	memset(heap->served, 0, sizeof(heap->served));
	for (unsigned s = 0; s <= BUFPOOL_CLASSES; s++) {
		struct stock *stock = &heap->stock[s];

		stock->free = stock->cold = STACK_NIL;
		stock->spare = stock->out = 0;
		for (unsigned c = 0;
		     c < HEAP_CHUNKS && stock->chunk[c] != NULL; c++)
			for (uint32_t i = 0; i < chunk_len(c); i++)
				descriptor_remake(heap, s, &stock->chunk[c][i],
				                  is_out, arg);
	}
}
