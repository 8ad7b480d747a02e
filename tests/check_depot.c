/* SPDX-License-Identifier: MIT */
/* check_depot.c - the shared level alone: stacks of numbers, and shards */
#include "depot.h"
#include "stack.h"
#undef PAGE /* common.h has it too */

#include "common.h"

#define COUNT 100

static struct depot depot;
static struct bp_buf bufs[COUNT];
static uint32_t next[COUNT];

static void setup(uint32_t total, unsigned shards)
{
	bp_depot_init(&depot, bufs, next, total, shards);
}

START_TEST(takes_what_is_there)
{
	struct bp_buf *out[BP_SLOTS];

	setup(10, 1);
	/* In the order of addresses at first. */
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 4), 4);
	for (int i = 0; i < 4; i++)
		ck_assert_ptr_eq(out[i], &bufs[i]);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 60), 6);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 1), 0);
	setup(0, 1);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 1), 0);
}
END_TEST

START_TEST(warm_buffers_come_first)
{
	struct bp_buf *given[3] = {&bufs[7], &bufs[2], &bufs[5]};
	struct bp_buf *out[4];

	setup(0, 1);
	ck_assert_uint_eq(bp_depot_give(&depot, 0, &given[2], 1), 0);
	ck_assert_uint_eq(bp_depot_give(&depot, 0, given, 2), 0);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 4), 3);
	ck_assert(memcmp(out, given, sizeof(given)) == 0);
}
END_TEST

START_TEST(every_shard_is_found)
{
	struct bp_buf *out[1];

	for (unsigned shards = 1; shards <= DEPOT_SHARDS; shards *= 2) {
		setup(0, shards);
		for (unsigned to = 0; to < 2 * shards; to++)
			for (unsigned from = 0; from < 2 * shards; from++) {
				struct bp_buf *d = &bufs[to];

				ck_assert_uint_eq(bp_depot_give(&depot, to, &d, 1), 0);
				ck_assert_uint_eq(
					bp_depot_take(&depot, from, out, 1), 1);
				ck_assert_ptr_eq(out[0], d);
			}
	}
}
END_TEST

/* One's own shard first: that is what they are for. */
START_TEST(own_shard_first)
{
	struct bp_buf *a = &bufs[1], *b = &bufs[2], *out[1];

	setup(0, 2);
	ck_assert_uint_eq(bp_depot_give(&depot, 0, &a, 1), 0);
	ck_assert_uint_eq(bp_depot_give(&depot, 1, &b, 1), 0);
	ck_assert_uint_eq(bp_depot_take(&depot, 1, out, 1), 1);
	ck_assert_ptr_eq(out[0], b);
}
END_TEST

START_TEST(closed_for_ever)
{
	struct bp_buf *d = &bufs[0], *out[2];

	setup(10, 4);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 2), 2);
	ck_assert_uint_eq(bp_depot_give(&depot, 3, &out[1], 1), 0);
	ck_assert_uint_eq(bp_depot_close(&depot), 9 + DEPOT_OPEN);
	for (unsigned shard = 0; shard < 4; shard++)
		ck_assert_uint_eq(bp_depot_give(&depot, shard, &d, 1), 1);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 2), 0);
	ck_assert_uint_eq(bp_depot_close(&depot), DEPOT_OPEN);
}
END_TEST

START_TEST(stamp_changes)
{
	struct bp_buf *out[1];
	uint64_t stamp;

	setup(3, 2);
	for (int i = 0; i < 1000; i++) {
		stamp = bp_depot_stamp(&depot);
		ck_assert_uint_eq(bp_depot_take(&depot, 1, out, 1), 1);
		ck_assert_uint_ne(stamp, bp_depot_stamp(&depot));
		stamp = bp_depot_stamp(&depot);
		ck_assert_uint_eq(bp_depot_give(&depot, 0, out, 1), 0);
		ck_assert_uint_ne(stamp, bp_depot_stamp(&depot));
	}
}
END_TEST

/*
 * ABA: a thread has read the top, 1, and its link, 2.  Others take both and
 * give 1 back.  A swap that only compared numbers would make 2 the top.
 */
START_TEST(a_stale_top_is_noticed)
{
	struct bp_buf *out[2];
	uint64_t *head = &depot.shard[0].head;
	uint64_t was, now;

	setup(3, 1);
	was = *head;
	ck_assert_uint_eq(stack_top(was), 0);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 2), 2);
	ck_assert_uint_eq(bp_depot_give(&depot, 0, out, 1), 0);
	now = *head;
	ck_assert_uint_eq(stack_top(now), 0);
	ck_assert_uint_ne(was, now);
}
END_TEST

/* ---------------------------------------------------------------- threads */

#define THREADS 4
static unsigned char owner[COUNT]; /* who has it; 0: the depot */

static void *mover(void *arg)
{
	unsigned char me = (unsigned char) (uintptr_t) arg;
	uint64_t seed = me * 0x9e3779b97f4a7c15u;
	long rounds = scaled(300000);
	struct bp_buf *out[16];

	while (rounds-- > 0) {
		unsigned n = bp_depot_take(&depot, me, out,
		                        1 + (unsigned) draw(&seed) % 16);

		for (unsigned i = 0; i < n; i++) {
			must(owner[out[i] - bufs] == 0);
			owner[out[i] - bufs] = me;
		}
		for (unsigned i = 0; i < n; i++) {
			must(owner[out[i] - bufs] == me);
			owner[out[i] - bufs] = 0;
		}
		if (n > 0)
			must(bp_depot_give(&depot, (unsigned) draw(&seed), out, n) == 0);
	}
	return NULL;
}

static void hammer(unsigned shards, uint32_t total)
{
	pthread_t thread[THREADS];

	setup(total, shards);
	for (int i = 0; i < THREADS; i++)
		thread[i] = start_thread(mover, (void *) (uintptr_t) (i + 1));
	for (int i = 0; i < THREADS; i++)
		join_thread(thread[i]);
	ck_assert_uint_eq(bp_depot_close(&depot), total + DEPOT_OPEN);
}

START_TEST(one_owner_each)
{
	hammer(1, COUNT);
	hammer(1, 3);
	hammer(2, COUNT);
	hammer(8, 20);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("depot");
	TCase *tc = add_case(suite, "depot", 30);

	tcase_add_test(tc, takes_what_is_there);
	tcase_add_test(tc, warm_buffers_come_first);
	tcase_add_test(tc, every_shard_is_found);
	tcase_add_test(tc, own_shard_first);
	tcase_add_test(tc, closed_for_ever);
	tcase_add_test(tc, stamp_changes);
	tcase_add_test(tc, a_stale_top_is_noticed);
	tcase_add_test(tc, one_owner_each);
	return run_suite(suite);
}
