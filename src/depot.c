/* SPDX-License-Identifier: MIT */
#include "depot.h"
#include "stack.h"

/* A batch on its way; of the depot, what is read for each of it, once. */
struct batch {
	struct bp_buf *bufs;
	uint32_t *next;
	struct bp_buf **out;
};

static uint32_t *next_of(const void *ctx, uint32_t number)
{
	const struct batch *batch = ctx;

	return &batch->next[number];
}

static void take_out(const void *ctx, unsigned i, uint32_t number)
{
	const struct batch *batch = ctx;

	batch->out[i] = &batch->bufs[number];
}

/* The stack of a shard, of which there may be fewer than threads have chosen. */
static uint64_t *stack_of(struct depot *depot, unsigned shard)
{
	return shard == DEPOT_COLD ? &depot->shard[depot->shards].head
	                           : &depot_shard(depot, shard)->head;
}

void bp_depot_clear(struct depot *depot)
{
	for (unsigned i = 0; i <= depot->shards; i++) {
		depot->shard[i].head = STACK_NIL;
		depot->shard[i].spare = 0;
	}
}

void bp_depot_init(struct depot *depot, struct bp_buf *bufs, uint32_t *next,
                   uint32_t total, unsigned shards)
{
	depot->bufs = bufs;
	depot->next = next;
	depot->total = total;
	depot->shards = shards;
	bp_depot_clear(depot);
	for (uint32_t i = 0; i < total; i++)
		next[i] = i + 1 < total ? i + 1 : STACK_NIL;
	if (total > 0)
		depot->shard[0].head = 0;
}

unsigned bp_depot_take(struct depot *depot, unsigned shard, struct bp_buf **out,
                       unsigned n)
{
	const struct batch batch = { depot->bufs, depot->next, out };
	unsigned shards = shard == DEPOT_COLD ? 1 : depot->shards;
	unsigned got = 0;

	if (n > BP_SLOTS)
		n = BP_SLOTS;
	for (unsigned i = 0; i < shards && got == 0; i++)
		got = stack_pop(stack_of(depot, shard + i), next_of, take_out,
		                &batch, n);
	return got;
}

struct bp_buf *bp_depot_take_one(struct depot *depot, unsigned shard)
{
	const struct batch one = { depot->bufs, depot->next, NULL };
	unsigned shards = shard == DEPOT_COLD ? 1 : depot->shards;

	for (unsigned i = 0; i < shards; i++) {
		uint32_t number = stack_pop_one(stack_of(depot, shard + i),
		                                next_of, &one);

		if (CK_CC_LIKELY(number != STACK_NIL))
			return &depot->bufs[number];
	}
	return NULL;
}

struct bp_buf *bp_depot_see_one(const struct depot *depot)
{
	for (unsigned i = 0; i <= depot->shards; i++) {
		uint32_t top = stack_top(ck_pr_load_64(&depot->shard[i].head));

		if (top < STACK_CLOSED)
			return &depot->bufs[top];
	}
	return NULL;
}

bool bp_depot_give(struct depot *depot, unsigned shard, struct bp_buf *const *bufs,
                   unsigned n)
{
	const struct bp_buf *from = depot->bufs;
	uint32_t *next = depot->next;
	uint32_t first = (uint32_t) (bufs[0] - from), last = first;

	for (unsigned i = 1; i < n; i++) {
		uint32_t number = (uint32_t) (bufs[i] - from);

		ck_pr_store_32(&next[last], number);
		last = number;
	}
	return stack_push(stack_of(depot, shard), first, &next[last]);
}

uint64_t bp_depot_close(struct depot *depot)
{
	uint64_t in = 0;

	for (unsigned i = 0; i <= depot->shards; i++) {
		uint32_t at = stack_close(&depot->shard[i].head);

		for (; at < STACK_CLOSED; at = depot->next[at])
			in++;
	}
	return in;
}

uint64_t bp_depot_stamp(const struct depot *depot)
{
	uint64_t stamp = 0;

	for (unsigned i = 0; i <= depot->shards; i++)
		stamp += ck_pr_load_64(&depot->shard[i].head);
	return stamp;
}
