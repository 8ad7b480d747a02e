/* SPDX-License-Identifier: MIT */
#include "depot.h"

static uint32_t *next_of(const void *ctx, uint32_t number)
{
	const struct depot *depot = ctx;

	return &depot->next[number];
}

static uint32_t number_of(const struct depot *depot, const struct bp_buf *d)
{
	return (uint32_t) (d - depot->bufs);
}

/* The stack of a shard, of which there may be fewer than threads have chosen. */
static uint64_t *stack_of(struct depot *depot, unsigned shard)
{
	return shard == DEPOT_COLD ? &depot->shard[depot->shards].head
	                           : &depot_shard(depot, shard)->head;
}

static struct queue *queue_of(struct depot *depot, unsigned shard)
{
	return &depot->queue[shard == DEPOT_COLD];
}

void bp_depot_clear(struct depot *depot)
{
	for (unsigned i = 0; depot->queue != NULL && i < DEPOT_QUEUES; i++)
		bp_queue_clear(&depot->queue[i]);
	for (unsigned i = 0; i <= depot->shards; i++) {
		depot->shard[i].head = STACK_NIL;
		depot->shard[i].spare = 0;
	}
}

void bp_depot_init(struct depot *depot, struct bp_buf *bufs, uint32_t *next,
                   uint32_t most, unsigned shards)
{
	depot->bufs = bufs;
	depot->next = next;
	depot->most = most;
	depot->total = 0;
	depot->shards = shards;
	depot->queue = NULL;
	bp_depot_clear(depot);
}

void bp_depot_harden(struct depot *depot, struct queue *queue,
                     ck_ring_buffer_t *slot)
{
	depot->queue = queue;
	for (unsigned i = 0; i < DEPOT_QUEUES; i++)
		bp_queue_init(&queue[i], slot + i * queue_slots(depot->most),
		              depot->next, depot->most);
}

static bool populate(const void *from, size_t len)
{
	uintptr_t begin = (uintptr_t) from & -bp_page_size();

	return bp_populate((void *) begin,
	                   round_up((uintptr_t) from + len - begin,
	                            bp_page_size()));
}

bool bp_depot_populate(const struct depot *depot, const struct bp_buf *bufs,
                       uint32_t n)
{
	return populate(bufs, n * sizeof(*bufs)) &&
	       populate(&depot->next[number_of(depot, bufs)],
	                n * sizeof(*depot->next));
}

/* A chain of those from first to last, linked. */
static uint64_t give_chain(struct depot *depot, unsigned shard, uint32_t first,
                           uint32_t last, unsigned n)
{
	if (depot->queue != NULL)
		return bp_queue_give(queue_of(depot, shard), first, last, n);
	return stack_push(stack_of(depot, shard), first, &depot->next[last]) ? 0
	                                                                     : n;
}

void bp_depot_add(struct depot *depot, struct bp_buf *bufs, uint32_t n,
                  uint32_t idle)
{
	uint32_t first = number_of(depot, bufs), last = first + idle - 1;

	ck_pr_store_32(&depot->total, depot->total + n);
	if (idle == 0)
		return;
	for (uint32_t i = first; i < last; i++)
		ck_pr_store_32(&depot->next[i], i + 1);
	give_chain(depot, 0, first, last, idle); /* it is open */
}

unsigned bp_depot_take(struct depot *depot, unsigned shard, struct bp_buf **out,
                       unsigned n)
{
	uint32_t number[BP_SLOTS];
	unsigned shards = shard == DEPOT_COLD ? 1 : depot->shards;
	unsigned got = 0;

	if (n > BP_SLOTS)
		n = BP_SLOTS;
	if (depot->queue != NULL) {
		while (got < n && (out[got] = depot_take_first(depot, shard)) != NULL)
			got++;
		return got;
	}
	for (unsigned i = 0; i < shards && got == 0; i++)
		got = stack_pop(stack_of(depot, shard + i), next_of, depot,
		                number, n);
	for (unsigned i = 0; i < got; i++)
		out[i] = &depot->bufs[number[i]];
	return got;
}

struct bp_buf *bp_depot_take_one(struct depot *depot, unsigned shard)
{
	unsigned shards = shard == DEPOT_COLD ? 1 : depot->shards;

	if (depot->queue != NULL)
		return depot_take_first(depot, shard);
	for (unsigned i = 0; i < shards; i++) {
		uint32_t number = stack_pop_one(stack_of(depot, shard + i),
		                                depot->next);

		if (CK_CC_LIKELY(number != STACK_NIL))
			return &depot->bufs[number];
	}
	return NULL;
}

struct bp_buf *bp_depot_see_one(const struct depot *depot)
{
	for (unsigned i = 0; depot->queue != NULL && i < DEPOT_QUEUES; i++) {
		uint32_t number = bp_queue_see(&depot->queue[i]);

		if (number != STACK_NIL)
			return &depot->bufs[number];
	}
	for (unsigned i = 0; i <= depot->shards; i++) {
		uint32_t top = stack_top(ck_pr_load_64(&depot->shard[i].head));

		if (top < STACK_CLOSED)
			return &depot->bufs[top];
	}
	return NULL;
}

uint64_t bp_depot_give(struct depot *depot, unsigned shard,
                       struct bp_buf *const *bufs, unsigned n)
{
	uint32_t first = number_of(depot, bufs[0]);
	uint32_t last = number_of(depot, bufs[n - 1]);

	for (unsigned i = 0; i + 1 < n; i++)
		ck_pr_store_32(&depot->next[number_of(depot, bufs[i])],
		               number_of(depot, bufs[i + 1]));
	return give_chain(depot, shard, first, last, n);
}

static uint64_t close_queues(struct depot *depot)
{
	uint64_t in = 0;

	for (unsigned i = 0; i < DEPOT_QUEUES; i++)
		in += bp_queue_close(&depot->queue[i]);
	return in;
}

static uint64_t close_stacks(struct depot *depot)
{
	uint64_t in = DEPOT_OPEN;

	for (unsigned i = 0; i <= depot->shards; i++) {
		uint32_t at = stack_close(&depot->shard[i].head);

		for (; at < STACK_CLOSED; at = depot->next[at])
			in++;
	}
	return in;
}

uint64_t bp_depot_close(struct depot *depot)
{
	return depot->queue != NULL ? close_queues(depot) : close_stacks(depot);
}

uint64_t bp_depot_stamp(const struct depot *depot)
{
	uint64_t stamp = 0;

	for (unsigned i = 0; depot->queue != NULL && i < DEPOT_QUEUES; i++)
		stamp += queue_stamp(&depot->queue[i]);
	for (unsigned i = 0; i <= depot->shards; i++)
		stamp += ck_pr_load_64(&depot->shard[i].head);
	return stamp;
}
