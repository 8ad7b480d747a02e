/* SPDX-License-Identifier: MIT */
/* numa_local.c - BUFPOOL_NUMA_LOCAL: a thread is served from its own node */
#include "numa.h"
#include "steps.h"

/* Buffers of each node; small, for all of them are drained time and again. */
#define SHARE ((size_t) 6)
#define MOST (SHARE * MAX_NODES)

static const int size_class = BUFPOOL_CLASS_64K;

static size_t total(void)
{
	return SHARE * (size_t) count_nodes(home_nodes());
}

/* depth: a cache of so many buffers a thread, or none. */
static bufpool_t *local_pool(size_t depth)
{
	bufpool_config_t config = class_config(size_class, total());

	config.numa_node = BUFPOOL_NUMA_LOCAL;
	set_cache(&config, depth);
	return make_pool(config);
}

static const size_t depths[] = { 0, 2, BUFPOOL_CACHE_AUTO };

static uint64_t remote_hits(const bufpool_t *pool)
{
	return stats_of(pool).per_class[size_class].remote_hits;
}

/* All on this node, and where the pool says. */
static void check_on(bufpool_buf_t **bufs, size_t n, int node)
{
	for (size_t i = 0; i < n; i++) {
		int really = where_is(bufs[i]->data, bufs[i]->capacity);

		ck_assert_msg(really == node,
		              "buffer %zu of %zu: node %d, not %d", i, n,
		              really, node);
		ck_assert_int_eq(bufpool_buf_node(bufs[i]), node);
	}
}

/* ------------------------------------------------------ a thread elsewhere */

struct visit {
	bufpool_t *pool;
	int node;
	size_t n;
	bufpool_buf_t *bufs[MOST];
};

static void *take_there(void *arg)
{
	struct visit *visit = arg;

	pin(visit->node);
	visit->n = drain(visit->pool, size_class, visit->bufs, visit->n);
	return NULL;
}

static void *return_there(void *arg)
{
	struct visit *visit = arg;

	pin(visit->node);
	bufpool_return_bulk(visit->bufs, visit->n);
	return NULL;
}

/* ------------------------------------------------------------------- tests */

/* As long as a node's share lasts its threads get nothing else. */
START_TEST(served_from_own_node)
{
	bufpool_t *pool = local_pool(depths[_i]);

	for (int node = 0; node < MAX_NODES; node++) {
		struct visit visit = { .pool = pool, .node = node };

		if (!in(node, home_nodes()))
			continue;
		for (int round = 0; round < 3; round++) {
			visit.n = SHARE;
			run_thread(take_there, &visit);
			ck_assert_uint_eq(visit.n, SHARE);
			check_on(visit.bufs, SHARE, node);
			run_thread(return_there, &visit);
		}
	}
	ck_assert_uint_eq(remote_hits(pool), 0);
	destroy_whole(pool);
}
END_TEST

/* Where all is out, the node grows whose thread has found none. */
START_TEST(grows_where_it_lacks)
{
	const size_t more = 4;
	bufpool_config_t config = class_config(size_class, total());
	bufpool_buf_t *all[MOST], *bufs[4];
	bufpool_t *pool;

	config.numa_node = BUFPOOL_NUMA_LOCAL;
	set_cache(&config, depths[_i]);
	config.max_count[size_class] = 2 * MOST + 4 * MAX_NODES;
	config.exhausted = BUFPOOL_FAIL;
	for (int node = 0; node < MAX_NODES; node++) {
		struct visit visit = { .pool = NULL, .node = node, .n = more };
		size_t n;

		if (!in(node, home_nodes()))
			continue;
		pool = visit.pool = make_pool(config);
		n = drain(pool, size_class, all, total());
		must(n == total());
		run_thread(take_there, &visit);
		memcpy(bufs, visit.bufs, sizeof(bufs));
		must(visit.n == more);
		check_on(bufs, more, node);
		run_thread(return_there, &visit);
		bufpool_return_bulk(all, n);
		bufpool_destroy(pool);
	}
}
END_TEST

/* One at a time, again and again: whatever path a checkout takes. */
START_TEST(served_from_own_node_one_by_one)
{
	bufpool_t *pool = local_pool(depths[_i]);

	for (int node = 0; node < MAX_NODES; node++) {
		if (!in(node, home_nodes()))
			continue;
		pin(node);
		bufpool_thread_flush(pool);
		for (size_t i = 0; i < 4 * MOST; i++) {
			bufpool_buf_t *buf = bufpool_checkout_64k(pool);

			check_on(&buf, 1, node);
			bufpool_return(buf);
		}
	}
	ck_assert_uint_eq(remote_hits(pool), 0);
	destroy_whole(pool);
}
END_TEST

/*
 * What is returned on another node does not stay there: neither does the thread
 * that returned it get it again, nor does its owner's node lack it.
 */
START_TEST(goes_home)
{
	for (int a = 0; a < MAX_NODES; a++)
		for (int b = 0; b < MAX_NODES; b++) {
			bufpool_t *pool;
			struct visit there = { .node = a, .n = SHARE };
			bufpool_buf_t *own[MOST];

			if (a == b || !in(a, home_nodes()) ||
			    !in(b, home_nodes()))
				continue;
			pool = there.pool = local_pool(depths[_i]);
			run_thread(take_there, &there);
			check_on(there.bufs, SHARE, a);
			pin(b);
			for (size_t i = 0; i < SHARE; i++)
				bufpool_return(there.bufs[i]);
			must(drain(pool, size_class, own, SHARE) == SHARE);
			check_on(own, SHARE, b);
			run_thread(take_there, &there);
			ck_assert_uint_eq(there.n, SHARE);
			check_on(there.bufs, SHARE, a);
			ck_assert_uint_eq(remote_hits(pool), 0);
			bufpool_return_bulk(own, SHARE);
			bufpool_return_bulk(there.bufs, SHARE);
			destroy_whole(pool);
		}
}
END_TEST

/* The last reference to a frozen buffer sends it home, too. */
START_TEST(goes_home_frozen)
{
	int a = __builtin_ctz(home_nodes()), b = other_node(a);
	bufpool_t *pool = local_pool(depths[_i]);
	struct visit there = { .pool = pool, .node = a, .n = SHARE };

	run_thread(take_there, &there);
	pin(b);
	for (size_t i = 0; i < SHARE; i++)
		bufpool_frozen_unref(bufpool_freeze(there.bufs[i]));
	run_thread(take_there, &there);
	ck_assert_uint_eq(there.n, SHARE);
	check_on(there.bufs, SHARE, a);
	ck_assert_uint_eq(remote_hits(pool), 0);
	bufpool_return_bulk(there.bufs, SHARE);
	bufpool_destroy(pool);
}
END_TEST

/* A thread that moves, and has sent home what it cached, is at home there. */
START_TEST(moved_thread)
{
	bufpool_t *pool = local_pool(depths[_i]);

	for (int round = 0; round < 3; round++)
		for (int node = 0; node < MAX_NODES; node++) {
			bufpool_buf_t *bufs[MOST];

			if (!in(node, home_nodes()))
				continue;
			bufpool_thread_flush(pool);
			pin(node);
			must(drain(pool, size_class, bufs, SHARE) == SHARE);
			check_on(bufs, SHARE, node);
			bufpool_return_bulk(bufs, SHARE);
		}
	ck_assert_uint_eq(remote_hits(pool), 0);
	bufpool_destroy(pool);
}
END_TEST

/* For a thread that stays, by real places. */
START_TEST(local_costs_little)
{
	struct steps plain;

	if (!CAN_COUNT_STEPS)
		return;
	pin(__builtin_ctz(home_nodes()));
	if (_i)
		refuse_membarrier();
	plain = count_steps(BUFPOOL_NUMA_ANY);
	check_steps(_i ? "LOCAL, fenced" : "LOCAL",
	            count_steps(BUFPOOL_NUMA_LOCAL), plain);
}
END_TEST

/* -------------------------------------------------------------- exhaustion */

static size_t take_one_by_one(bufpool_t *pool, bufpool_buf_t **bufs, size_t n)
{
	return drain(pool, size_class, bufs, n);
}

static size_t take_in_bulk(bufpool_t *pool, bufpool_buf_t **bufs, size_t n)
{
	return bufpool_checkout_bulk(pool, classes[size_class].size, bufs, n);
}

static size_t take_waiting(bufpool_t *pool, bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bufs[i] = bufpool_checkout_wait(pool, classes[size_class].size,
		                                NULL);
	return n;
}

static size_t (*const takes[])(bufpool_t *, bufpool_buf_t **,
                               size_t) = { take_one_by_one, take_in_bulk,
	                                   take_waiting };

/* From near to far; the number of those that are not as near as the first. */
static size_t check_order(bufpool_buf_t **bufs, size_t n, int node)
{
	long nearest = distance(node, bufpool_buf_node(bufs[0]));
	long before = nearest;
	size_t remote = 0;

	for (size_t i = 0; i < n; i++) {
		int lies = bufpool_buf_node(bufs[i]);
		long far = distance(node, lies);

		check_on(&bufs[i], 1, lies);
		ck_assert_msg(before <= far,
		              "thread on %d: buffer %zu is from %d, %ld far, "
		              "the one before %ld",
		              node, i, lies, far, before);
		remote += far > nearest;
		before = far;
	}
	return remote;
}

/*
 * Then come the others, the nearest first, counted as remote; and only when all
 * nodes are empty the heap.  (A node without memory has the nearest as its own.)
 */
START_TEST(nearest_first)
{
	size_t depth = depths[_i % (int) ARRAY_SIZE(depths)];
	size_t n = total(), remote, offset;
	bufpool_buf_t *bufs[MOST], *extra;
	unsigned index;

	for (int node = 0; node < MAX_NODES; node++) {
		bufpool_t *pool;

		if (!in(node, nodes_that("has_cpu")))
			continue;
		pin(node);
		pool = local_pool(depth);
		must(takes[_i / (int) ARRAY_SIZE(depths)](pool, bufs, n) == n);
		if (in(node, home_nodes()))
			check_on(bufs, SHARE, node);
		remote = check_order(bufs, n, node);
		ck_assert_uint_eq(remote, n - SHARE);
		ck_assert_uint_eq(remote_hits(pool), remote);
		ck_assert_uint_eq(stats_of(pool).misses, 0);

		extra = bufpool_checkout_64k(pool);
		must(extra);
		REFUSED(bufpool_buf_region(extra, &index, &offset) == -1,
		        ENOENT);
		ck_assert_uint_eq(stats_of(pool).misses, 1);
		ck_assert_uint_eq(remote_hits(pool), remote);

		bufpool_return(extra);
		bufpool_return_bulk(bufs, n);
		destroy_whole(pool);
	}
}
END_TEST

/* What sleeps in the cache of a thread on another node is not out of reach. */
START_TEST(none_is_stranded)
{
	int a = __builtin_ctz(home_nodes());
	bufpool_t *pool = local_pool(depths[_i]);
	struct sleeper sleeper;
	bufpool_buf_t *bufs[MOST];

	pin(a); /* and what it starts */
	put_to_sleep(&sleeper, pool, SHARE);
	pin(other_node(a));
	ck_assert_uint_eq(drain(pool, size_class, bufs, MOST), total());
	must(are_disjoint(bufs, total()));
	bufpool_return_bulk(bufs, total());
	wake_up(&sleeper);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------- waiting */

static void *wait_there(void *arg)
{
	struct visit *visit = arg;

	pin(visit->node);
	visit->bufs[0] = bufpool_checkout_wait(visit->pool,
	                                       classes[size_class].size, NULL);
	return NULL;
}

/* Who waits on one node is woken by a return on any other, of any other. */
START_TEST(woken_from_afar)
{
	bufpool_t *pool = local_pool(depths[_i]);
	size_t n = total();

	for (int a = 0; a < MAX_NODES; a++)
		for (int b = 0; b < MAX_NODES; b++) {
			struct visit waiter = { .pool = pool, .node = a };
			bufpool_buf_t *bufs[MOST];
			pthread_t thread;

			if (!in(a, home_nodes()) || !in(b, home_nodes()))
				continue;
			pin(b);
			must(drain(pool, size_class, bufs, n) == n);
			thread = start_thread(wait_there, &waiter);
			usleep(20000);
			bufpool_return(bufs[0]);
			join_thread(thread);
			must(waiter.bufs[0]);
			bufpool_return(waiter.bufs[0]);
			bufpool_return_bulk(bufs + 1, n - 1);
		}
	destroy_whole(pool);
}
END_TEST

void add_local_cases(Suite *suite)
{
	TCase *tcase = add_case(suite, "local", 60);
	const int n = ARRAY_SIZE(depths);

	tcase_add_loop_test(tcase, served_from_own_node, 0, n);
	tcase_add_loop_test(tcase, served_from_own_node_one_by_one, 0, n);
	tcase_add_loop_test(tcase, grows_where_it_lacks, 0, n);
	tcase_add_loop_test(tcase, goes_home, 0, n);
	tcase_add_loop_test(tcase, goes_home_frozen, 0, n);
	tcase_add_loop_test(tcase, moved_thread, 0, n);
	tcase_add_loop_test(tcase, local_costs_little, 0, 2);
	tcase_add_loop_test(tcase, nearest_first, 0,
	                    n * (int) ARRAY_SIZE(takes));
	tcase_add_loop_test(tcase, none_is_stranded, 0, n);
	tcase_add_loop_test(tcase, woken_from_afar, 0, n);
}
