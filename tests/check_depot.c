/* SPDX-License-Identifier: MIT */
/* check_depot.c - the shared level alone: stacks of numbers, and shards */
#include "depot.h"
#include "stack.h"
#undef PAGE /* common.h has it too */

#include "common.h"

#include <signal.h>

#define COUNT 100

static struct depot depot;
static struct bp_buf bufs[COUNT];
static uint32_t next[COUNT];
static struct queue queue[DEPOT_QUEUES];
static ck_ring_buffer_t slot[DEPOT_QUEUES * 2 * 64];

static void setup(uint32_t total, unsigned shards)
{
	bp_depot_init(&depot, bufs, next, total, shards);
	bp_depot_add(&depot, bufs, total, total);
}

static void setup_hardened(uint32_t total)
{
	bp_depot_init(&depot, bufs, next, total, 1);
	must(depot_slots(total) <= ARRAY_SIZE(slot));
	bp_depot_harden(&depot, queue, slot);
	bp_depot_add(&depot, bufs, total, total);
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

static void hammer(uint32_t total)
{
	pthread_t thread[THREADS];

	for (int i = 0; i < THREADS; i++)
		thread[i] = start_thread(mover, (void *) (uintptr_t) (i + 1));
	for (int i = 0; i < THREADS; i++)
		join_thread(thread[i]);
	ck_assert_uint_eq(bp_depot_close(&depot), total + DEPOT_OPEN);
}

START_TEST(one_owner_each)
{
	static const struct {
		unsigned shards;
		uint32_t total;
	} kinds[] = {{1, COUNT}, {1, 3}, {2, COUNT}, {8, 20}};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		setup(kinds[i].total, kinds[i].shards);
		hammer(kinds[i].total);
	}
}
END_TEST

/* ---------------------------------------------------------------- hardened */

static void give_some(unsigned shard, size_t from, size_t n)
{
	struct bp_buf *some[COUNT];

	for (size_t i = 0; i < n; i++)
		some[i] = &bufs[from + i];
	ck_assert_uint_eq(bp_depot_give(&depot, shard, some, (unsigned) n), 0);
}

static void must_take(unsigned shard, size_t from, size_t n)
{
	struct bp_buf *out[BP_SLOTS];

	ck_assert_uint_eq(bp_depot_take(&depot, shard, out, (unsigned) n), n);
	for (size_t i = 0; i < n; i++)
		ck_assert_ptr_eq(out[i], &bufs[from + i]);
}

/* Around the ring, at each of its slots. */
START_TEST(queue_in_order)
{
	for (uint32_t total = 1; total < 40; total++) {
		setup_hardened(total);
		for (uint32_t i = 0; i < 3 * total; i++) {
			must_take(0, i % total, 1);
			give_some(0, i % total, 1);
		}
		must_take(0, 0, total);
		ck_assert_ptr_null(bp_depot_take_one(&depot, 0));
		give_some(0, 0, total);
		must_take(7, 0, total);
		give_some(DEPOT_COLD, 0, total);
		ck_assert_ptr_null(bp_depot_take_one(&depot, 0));
		ck_assert(depot_is_cold(&depot));
		must_take(DEPOT_COLD, 0, total);
		ck_assert(!depot_is_cold(&depot));
	}
}
END_TEST

/* Somebody is stopped with the lock. */
static void seize(void)
{
	must(queue[0].lock == 0);
	queue[0].lock = 1;
}

static void release(void)
{
	must(queue[0].lock == 1);
	queue[0].lock = 0;
}

START_TEST(queue_does_without_the_lock)
{
	struct bp_buf *seen;

	setup_hardened(20);
	must_take(0, 0, 20);
	seize();
	ck_assert_ptr_null(bp_depot_see_one(&depot));
	give_some(0, 3, 2);
	seen = bp_depot_see_one(&depot);
	ck_assert(seen == &bufs[3] || seen == &bufs[4]);
	must_take(0, 3, 2);
	give_some(0, 10, 1);
	give_some(DEPOT_COLD, 11, 1); /* not by that lock */
	must_take(DEPOT_COLD, 11, 1);
	release();
	/* Who has it brings what is there in front of his own. */
	give_some(0, 5, 3);
	must_take(0, 10, 1);
	must_take(0, 5, 3);
	ck_assert(!depot_is_moving(&depot));
}
END_TEST

/* Where all are in the overflow. */
START_TEST(queue_has_room)
{
	struct bp_buf *out[63];
	bool seen[63] = {false};

	setup_hardened(63);
	must_take(0, 0, 63);
	seize();
	give_some(0, 0, 62);
	release();
	give_some(0, 62, 1);
	ck_assert_uint_eq(bp_depot_take(&depot, 0, out, 63), 63);
	for (int i = 0; i < 63; i++) {
		ck_assert(!seen[out[i] - bufs]);
		seen[out[i] - bufs] = true;
	}
	ck_assert_ptr_eq(out[62], &bufs[62]);
	ck_assert_ptr_null(bp_depot_take_one(&depot, 0));
}
END_TEST

#if defined(__x86_64__)

/* One idle buffer is always in sight, or said to be on the move; steps count those
   at which it was not in sight. */
static long hidden;

static void look_for_it(int sig)
{
	(void) sig;
	if (bp_depot_see_one(&depot))
		return;
	hidden++;
	must(depot_is_moving(&depot));
}

START_TEST(queue_says_what_it_moves)
{
	const struct sigaction on = {.sa_handler = look_for_it};

	if (is_valgrind())
		return;
	setup_hardened(3);
	must_take(0, 0, 3);
	seize();
	give_some(0, 0, 1);
	release();
	must(sigaction(SIGTRAP, &on, NULL) == 0);
	__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	give_some(0, 1, 1);
	__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	ck_assert_int_gt(hidden, 0); /* it was moved */
	must_take(0, 0, 2);
}
END_TEST

#endif

START_TEST(queue_stamp_changes)
{
	uint64_t stamp;

	setup_hardened(3);
	/* The ring's ends are about to wrap. */
	queue[0].ring.c_head = UINT32_MAX - 100;
	queue[0].ring.p_tail = UINT32_MAX - 100;
	for (int i = 0; i < 1000; i++) {
		unsigned shard = i % 5 == 0 ? DEPOT_COLD : 0;

		if (i % 3 == 0)
			seize();
		stamp = bp_depot_stamp(&depot);
		give_some(shard, 0, 1);
		ck_assert_uint_gt(bp_depot_stamp(&depot) - stamp, 0);
		ck_assert_uint_lt(bp_depot_stamp(&depot) - stamp,
		                  UINT64_C(1) << 40);
		if (i % 3 == 0)
			release();
		stamp = bp_depot_stamp(&depot);
		must_take(shard, 0, 1);
		ck_assert_uint_gt(bp_depot_stamp(&depot) - stamp, 0);
		ck_assert_uint_lt(bp_depot_stamp(&depot) - stamp,
		                  UINT64_C(1) << 40);
	}
}
END_TEST

START_TEST(queue_closed_for_ever)
{
	struct bp_buf *d = &bufs[0];

	setup_hardened(10);
	must_take(0, 0, 1);
	give_some(DEPOT_COLD, 0, 1);
	must_take(0, 1, 2);
	ck_assert_uint_eq(bp_depot_close(&depot), 8 + DEPOT_OPEN);
	ck_assert_uint_eq(bp_depot_give(&depot, 0, &d, 1), 1);
	ck_assert_uint_eq(bp_depot_give(&depot, DEPOT_COLD, &d, 1), 1);
	bp_depot_clear(&depot);
	ck_assert_ptr_null(bp_depot_take_one(&depot, 0));
	give_some(0, 0, 2);
	must_take(0, 0, 2);
}
END_TEST

/* Who has the lock sees to the ring, and all else is settled at once. */
START_TEST(queue_closed_beside_a_give)
{
	struct bp_buf *d = &bufs[0];

	setup_hardened(10);
	must_take(0, 0, 5);
	seize();
	give_some(0, 1, 3);
	ck_assert_uint_eq(bp_depot_close(&depot), 3 + DEPOT_OPEN - 1);
	ck_assert_uint_eq(bp_depot_give(&depot, 0, &d, 1), 1);
}
END_TEST

START_TEST(queue_one_owner_each)
{
	setup_hardened(COUNT);
	hammer(COUNT);
	setup_hardened(3);
	hammer(3);
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
	tc = add_case(suite, "hardened", 30);
	tcase_add_test(tc, queue_in_order);
	tcase_add_test(tc, queue_does_without_the_lock);
	tcase_add_test(tc, queue_has_room);
#if defined(__x86_64__)
	tcase_add_test(tc, queue_says_what_it_moves);
#endif
	tcase_add_test(tc, queue_stamp_changes);
	tcase_add_test(tc, queue_closed_for_ever);
	tcase_add_test(tc, queue_closed_beside_a_give);
	tcase_add_test(tc, queue_one_owner_each);
	return run_suite(suite);
}
