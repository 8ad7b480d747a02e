/* SPDX-License-Identifier: MIT */
/*
 * check_settle.c - the last buffer comes home, and region_detach does anything;
 * as region_attach may
 *
 * It runs on the thread that brings the buffer, inside of whatever call that is,
 * and may use, create and destroy other pools.  So the thread's caches, and the
 * table of them, may be others when it comes back, and the pool is gone.
 */
#include "common.h"

#include <bufpool/hwloc.h>
#include <sched.h>

/* ---------------------------------------------------------------- the scene */

enum { HELD = 3, MANY = 600 }; /* more than a thread's first table has slots */

static struct {
	bufpool_t *dying; /* whose region_detach is busy */
	bufpool_t *other; /* lives on */
	int many;         /* pools that it makes and uses */
	int detached, nested;
	const void *data; /* where the memory of the dying one is */
} scene;

/* One of the pool that lives on comes and goes, out of the cache as well. */
static void use_other(void)
{
	bufpool_buf_t *bufs[HELD];

	for (int i = 0; i < 2; i++) {
		must(bufpool_checkout_bulk(scene.other, 1, bufs, HELD) == HELD);
		for (int j = 0; j < HELD; j++)
			fill(bufs[j], 0x5a);
		bufpool_return_bulk(bufs, HELD);
	}
}

static void use_once(bufpool_t *pool)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	must(buf && is_zero(buf));
	fill(buf, 0xa5);
	bufpool_return(buf);
}

static void *attach(void *arg, const bufpool_region_t *region)
{
	(void) region;
	return arg;
}

static bufpool_t *attached_pool(size_t count, size_t cache,
                                void (*detach)(void *arg,
                                               const bufpool_region_t *region,
                                               void *cookie))
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, count);

	set_cache(&config, cache);
	config.region_attach = attach;
	config.region_detach = detach;
	config.region_arg = &scene;
	return make_pool(config);
}

static void detach_nested(void *arg, const bufpool_region_t *region,
                          void *cookie)
{
	(void) region;
	must(arg == &scene && cookie == &scene);
	use_other();
	scene.nested++;
}

/* Two of them, one of which dies by its last return. */
static void others_die(void)
{
	for (int i = 0; i < 2; i++) {
		bufpool_t *pool = attached_pool(4, 4, detach_nested);
		bufpool_buf_t *buf = bufpool_checkout(pool, 1);

		use_once(pool);
		if (i)
			bufpool_return(buf);
		bufpool_destroy(pool);
		if (!i)
			bufpool_return(buf);
	}
}

/* So many that the thread's table has to be made anew, larger. */
static void others_live(int n)
{
	static bufpool_t *pools[MANY];

	for (int i = 0; i < n; i++) {
		pools[i] = class_pool(BUFPOOL_CLASS_4K, 4);
		use_once(pools[i]);
	}
	for (int i = 0; i < n; i++) {
		use_once(pools[i]);
		bufpool_destroy(pools[i]);
	}
}

static void detach_busy(void *arg, const bufpool_region_t *region, void *cookie)
{
	(void) region;
	must(arg == &scene && cookie == &scene);
	must(scene.detached++ == 0);
	use_other();
	others_die();
	others_live(scene.many);
	use_other();
	bufpool_thread_flush(scene.other);
	use_other();
	bufpool_thread_flush(NULL);
	use_other();
	errno = EDOM;
}

static bufpool_t *other_pool(void)
{
	return class_pool(BUFPOOL_CLASS_4K, 4 * HELD);
}

static void set_up(size_t cache, int many)
{
	bufpool_buf_t *buf;

	scene.many = (int) scaled_by(many, is_small() ? 2 : 1);
	scene.other = other_pool();
	scene.dying = attached_pool(64, cache, detach_busy);
	buf = bufpool_checkout(scene.dying, 1);
	scene.data = buf->data;
	bufpool_return(buf);
	bufpool_thread_flush(NULL);
}

/* It has happened, once; and the thread goes on as if nothing had been. */
static void must_be_settled(void)
{
	must(scene.detached == 1 && scene.nested == 2);
	must(!is_mapped(scene.data));
	use_other();
}

static void tear_down(void)
{
	ck_assert_int_eq(scene.detached, 1);
	ck_assert_int_eq(scene.nested, 2);
	bufpool_thread_flush(NULL);
	ck_assert_uint_eq(cached_in(scene.other), 0);
	destroy_whole(scene.other);
}

static void *destroy_thread(void *pool)
{
	bufpool_destroy(pool);
	return NULL;
}

/*
 * The caches' owners cannot be made to see it, and will bring home what they have
 * themselves.  Where there is no seccomp the buffers are found at once.
 */
static void *destroy_unseen_thread(void *pool)
{
	refuse_membarrier();
	bufpool_destroy(pool);
	return NULL;
}

static void destroy_unseen(void)
{
	run_thread(destroy_unseen_thread, scene.dying);
}

static void take_some(bufpool_buf_t **bufs, size_t n)
{
	must(bufpool_checkout_bulk(scene.dying, 1, bufs, n) == n);
}

/* Leave n in this thread's cache. */
static void cache_some(size_t n)
{
	bufpool_buf_t *bufs[64];

	take_some(bufs, n);
	bufpool_return_bulk(bufs, n);
	must(stats_of(scene.dying).per_class[BUFPOOL_CLASS_4K].cached >= n);
}

/* ---------------------------------------------------------------- the ways */

static void by_return(void)
{
	bufpool_buf_t *buf;

	use_other();
	take_some(&buf, 1);
	bufpool_destroy(scene.dying);
	KEEPS_ERRNO(bufpool_return(buf));
	must_be_settled();
}

/* Its cache is not the one used last. */
static void by_return_behind_another(void)
{
	bufpool_buf_t *buf;

	take_some(&buf, 1);
	bufpool_destroy(scene.dying);
	use_other();
	KEEPS_ERRNO(bufpool_return(buf));
	must_be_settled();
}

/* A thread that knows neither pool. */
static void by_return_elsewhere(void)
{
	bufpool_buf_t *buf;

	take_some(&buf, 1);
	bufpool_destroy(scene.dying);
	return_elsewhere(buf);
	must_be_settled();
}

static void by_bulk(void)
{
	bufpool_buf_t *bufs[4];

	take_some(bufs, 2);
	must(bufpool_checkout_bulk(scene.other, 1, bufs + 2, 2) == 2);
	bufpool_destroy(scene.dying);
	KEEPS_ERRNO(bufpool_return_bulk(bufs, 4));
	must_be_settled();
}

static void by_unref(void)
{
	bufpool_frozen_t *f;
	bufpool_buf_t *buf;

	take_some(&buf, 1);
	f = bufpool_freeze(buf);
	bufpool_frozen_ref(f);
	bufpool_destroy(scene.dying);
	bufpool_frozen_unref(f);
	must(scene.detached == 0);
	KEEPS_ERRNO(bufpool_frozen_unref(f));
	must_be_settled();
}

static void by_slice(void)
{
	bufpool_frozen_t *f;
	bufpool_slice_t slice;
	bufpool_buf_t *buf;

	take_some(&buf, 1);
	f = bufpool_freeze(buf);
	slice = bufpool_slice(f, 0, 1);
	bufpool_destroy(scene.dying);
	bufpool_frozen_unref(f);
	must(scene.detached == 0);
	KEEPS_ERRNO(bufpool_slice_release(&slice));
	must(slice.owner == NULL && slice.data == NULL && slice.len == 0);
	must_be_settled();
}

/* The flush goes on to the other pools, all of them. */
static void by_flush(void)
{
	use_other();
	cache_some(4);
	destroy_unseen();
	KEEPS_ERRNO(bufpool_thread_flush(NULL));
	must(cached_in(scene.other) == 0);
	must_be_settled();
}

/* It spills; the buffer in hand is the last. */
static void by_return_to_a_full_cache(void)
{
	bufpool_buf_t *bufs[20];

	take_some(bufs, 20);
	bufpool_return_bulk(bufs, 16);
	destroy_unseen();
	for (int i = 16; i < 20; i++) {
		must(scene.detached == 0);
		KEEPS_ERRNO(bufpool_return(bufs[i]));
	}
	must_be_settled();
}

static void *exit_with_a_cache(void *arg)
{
	(void) arg;
	use_other();
	cache_some(4);
	destroy_unseen();
	return NULL;
}

static void by_exit(void)
{
	run_thread(exit_with_a_cache, NULL);
	must_be_settled();
}

static pthread_key_t key;

static void return_at_exit(void *buf)
{
	must(scene.detached == 0);
	KEEPS_ERRNO(bufpool_return(buf));
	must_be_settled();
}

static void *exit_with_a_buffer(void *arg)
{
	bufpool_buf_t *buf;

	use_other();
	take_some(&buf, 1);
	must(pthread_setspecific(key, buf) == 0);
	run_thread(destroy_thread, scene.dying);
	return arg;
}

/* Its caches have gone before, as the library's key is the older one. */
static void by_return_after_exit(void)
{
	must(pthread_key_create(&key, return_at_exit) == 0);
	run_thread(exit_with_a_buffer, NULL);
	must(pthread_key_delete(key) == 0);
}

/* The thread meets a pool, and leaves out of its table those that are gone. */
static void by_checkout_elsewhere(void)
{
	bufpool_t *new = other_pool();
	bufpool_buf_t *buf;

	use_other();
	cache_some(4);
	destroy_unseen();
	KEEPS_ERRNO(buf = bufpool_checkout(new, 1));
	must(buf && is_zero(buf));
	must_be_settled();
	fill(buf, 1);
	bufpool_return(buf);
	bufpool_thread_flush(NULL);
	destroy_whole(new);
}

/* A failing one, that waits, and one that goes to the heap. */
static void by_checkouts_that_fail(void)
{
	const struct timespec moment = {0, 1000};
	bufpool_t *new = class_pool(BUFPOOL_CLASS_4K, 1);
	bufpool_buf_t *buf, *more;

	cache_some(4);
	destroy_unseen();
	buf = bufpool_checkout_wait(new, 1, &moment);
	must(buf);
	must_be_settled();
	must(!bufpool_checkout_wait(new, 1, &moment) && errno == ETIMEDOUT);
	more = bufpool_checkout(new, 1);
	must(more);
	bufpool_return(more);
	bufpool_return(buf);
	bufpool_thread_flush(NULL);
	destroy_whole(new);
}

static void *take_one_of(void *pool)
{
	return bufpool_checkout(pool, 1);
}

/* What it meets by a return. */
static void by_return_to_another(void)
{
	bufpool_t *new = other_pool();
	pthread_t thread = start_thread(take_one_of, new);
	void *buf;

	must(pthread_join(thread, &buf) == 0 && buf);
	use_other();
	cache_some(4);
	destroy_unseen();
	KEEPS_ERRNO(bufpool_return(buf));
	must_be_settled();
	bufpool_thread_flush(NULL);
	destroy_whole(new);
}

static void by_heap(void)
{
	bufpool_buf_t *bufs[65];

	for (int i = 0; i < 65; i++)
		take_some(&bufs[i], 1);
	must(stats_of(scene.dying).heap_bytes > 0);
	bufpool_destroy(scene.dying);
	bufpool_return_bulk(bufs, 64);
	must(scene.detached == 0);
	KEEPS_ERRNO(bufpool_return(bufs[64]));
	must_be_settled();
}

static void by_destroy(void)
{
	use_other();
	use_once(scene.dying);
	KEEPS_ERRNO(bufpool_destroy(scene.dying));
	must_be_settled();
}

static void by_destroy_elsewhere(void)
{
	use_once(scene.dying);
	use_other();
	run_thread(destroy_thread, scene.dying);
	must_be_settled();
}

static const struct {
	void (*settle)(void);
	size_t cache;
} settlings[] = {
	{by_return, 8},
	{by_return, 0},
	{by_return_behind_another, 8},
	{by_return_behind_another, 0},
	{by_return_elsewhere, 8},
	{by_return_elsewhere, 0},
	{by_bulk, 8},
	{by_bulk, 0},
	{by_unref, 8},
	{by_unref, 0},
	{by_slice, 8},
	{by_slice, 0},
	{by_flush, 8},
	{by_return_to_a_full_cache, 16},
	{by_exit, 8},
	{by_return_after_exit, 8},
	{by_return_after_exit, 0},
	{by_checkout_elsewhere, 8},
	{by_checkouts_that_fail, 8},
	{by_return_to_another, 8},
	{by_heap, 8},
	{by_heap, 0},
	{by_destroy, 8},
	{by_destroy, 0},
	{by_destroy_elsewhere, 8},
};

START_TEST(few_others)
{
	set_up(settlings[_i].cache, 1);
	settlings[_i].settle();
	tear_down();
}
END_TEST

START_TEST(many_others)
{
	set_up(settlings[_i].cache, MANY);
	settlings[_i].settle();
	tear_down();
}
END_TEST

/* ------------------------------------------- the pool that is just being met */

/*
 * A thread returns a buffer of a pool that it has not met; that has it clean up
 * its table, which brings the last buffer of another pool home, whose
 * region_detach destroys the pool that is being met, and meets others.
 */
static bufpool_t *met;

static void detach_met(void *arg, const bufpool_region_t *region, void *cookie)
{
	(void) arg;
	(void) region;
	(void) cookie;
	scene.detached++;
	bufpool_destroy(met);
	others_live(2);
	use_other();
}

START_TEST(met_and_destroyed)
{
	pthread_t thread;
	void *buf;

	scene.other = other_pool();
	scene.dying = attached_pool(64, 8, detach_met);
	met = other_pool();
	thread = start_thread(take_one_of, met);
	must(pthread_join(thread, &buf) == 0 && buf);
	scene.data = ((bufpool_buf_t *) buf)->data;
	cache_some(4);
	destroy_unseen();
	if (scene.detached) /* no seccomp */
		return;
	bufpool_return(buf);
	ck_assert_int_eq(scene.detached, 1);
	ck_assert(!is_mapped(scene.data));
	use_other();
	others_live(2);
	bufpool_thread_flush(NULL);
	destroy_whole(scene.other);
}
END_TEST

/* ------------------------------------------------------- a flush goes on */

/*
 * Pools whose caches lie around that of the dying one in the thread's table; its
 * region_detach has the table made anew, more than once.
 */
enum { AROUND = 40 };

static bufpool_t *around[2 * AROUND];

static void detach_and_use(void *arg, const bufpool_region_t *region,
                           void *cookie)
{
	(void) arg;
	(void) region;
	(void) cookie;
	scene.detached++;
	others_live(scene.many);
	for (int i = 0; i < 2 * AROUND; i++)
		use_once(around[i]);
}

START_TEST(flush_goes_on)
{
	scene.other = other_pool();
	for (int i = 0; i < AROUND; i++)
		around[i] = class_pool(BUFPOOL_CLASS_4K, 4);
	scene.dying = attached_pool(64, 8, detach_and_use);
	for (int i = AROUND; i < 2 * AROUND; i++)
		around[i] = class_pool(BUFPOOL_CLASS_4K, 4);
	scene.many = _i;
	for (int i = 0; i < 2 * AROUND; i++)
		use_once(around[i]);
	cache_some(4);
	destroy_unseen();
	bufpool_thread_flush(NULL);
	ck_assert_int_eq(scene.detached, 1);
	for (int i = 0; i < 2 * AROUND; i++) {
		ck_assert_uint_eq(cached_in(around[i]), 0);
		destroy_whole(around[i]);
	}
	destroy_whole(scene.other);
}
END_TEST

/* ------------------------------------------------------- a slice that goes */

/* The slice lies in what the application frees with the pool. */
static bufpool_slice_t *owned_slice;

static void detach_and_free(void *arg, const bufpool_region_t *region,
                            void *cookie)
{
	(void) arg;
	(void) region;
	(void) cookie;
	scene.detached++;
	must(munmap(owned_slice, PAGE) == 0);
}

START_TEST(slice_goes_with_the_pool)
{
	bufpool_frozen_t *f;
	bufpool_buf_t *buf;

	owned_slice = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
	                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(owned_slice != MAP_FAILED);
	scene.dying = attached_pool(4, 4, detach_and_free);
	take_some(&buf, 1);
	f = bufpool_freeze(buf);
	*owned_slice = bufpool_slice(f, 0, 1);
	bufpool_frozen_unref(f);
	bufpool_destroy(scene.dying);
	bufpool_slice_release(owned_slice);
	ck_assert_int_eq(scene.detached, 1);
}
END_TEST

/* ------------------------------------------------------ a move to a new node */

static bool move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) == 0 &&
	       sched_getcpu() == cpu;
}

/* One for each node. */
static void detach_twice(void *arg, const bufpool_region_t *region, void *cookie)
{
	(void) arg;
	(void) region;
	(void) cookie;
	scene.detached++;
	use_other();
	others_die();
	others_live(2);
	bufpool_thread_flush(NULL);
}

/*
 * Two nodes are made up, for the two CPUs.  The cache moves with its thread: what
 * it held goes home, then what the thread brings.
 */
START_TEST(move_of_a_thread)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 64);
	hwloc_topology_t topology;
	bufpool_buf_t *bufs[8];

	if (!move_to(1) || !move_to(0))
		return;
	must(hwloc_topology_init(&topology) == 0);
	must(hwloc_topology_set_synthetic(topology, "node:2 core:1 pu:1") == 0);
	must(hwloc_topology_set_flags(topology,
	                              HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM) == 0);
	must(hwloc_topology_load(topology) == 0);
	set_cache(&config, 8);
	config.numa_node = BUFPOOL_NUMA_LOCAL;
	scene.other = bufpool_create_hwloc(&config, topology, NULL);
	must(scene.other);
	config.region_attach = attach;
	config.region_detach = detach_twice;
	config.region_arg = &scene;
	scene.dying = bufpool_create_hwloc(&config, topology, NULL);
	must(scene.dying);
	hwloc_topology_destroy(topology);
	use_other();
	take_some(bufs, 8);
	scene.data = bufs[0]->data;
	bufpool_return_bulk(bufs + 1, 7);
	must(stats_of(scene.dying).per_class[BUFPOOL_CLASS_4K].cached >= 4);
	destroy_unseen();
	must(move_to(1));
	bufpool_return(bufs[0]);
	ck_assert_int_eq(scene.detached, 2);
	ck_assert(!is_mapped(scene.data));
	use_other();
	bufpool_thread_flush(NULL);
	destroy_whole(scene.other);
}
END_TEST

/* ------------------------------------------------------------ region_attach */

/* May do as much, while the pool is being made; and then refuse. */
static void *attach_busy(void *arg, const bufpool_region_t *region)
{
	bufpool_region_t r;
	bufpool_frozen_t *f;

	use_other();
	others_die();
	others_live(2);
	f = bufpool_freeze(bufpool_checkout(scene.other, 1));
	bufpool_frozen_unref(f);
	must(bufpool_regions(scene.other, &r, 1) == 1);
	must(bufpool_trim(scene.other) > 0);
	bufpool_thread_flush(NULL);
	use_other();
	errno = EDOM;
	return region->size_class == BUFPOOL_CLASS_4K ? arg
	                                              : BUFPOOL_ATTACH_FAILED;
}

/* The loop index is whether the second region is refused. */
START_TEST(attach_uses_others)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 4);

	scene.other = other_pool();
	config.region_attach = attach_busy;
	config.region_detach = detach_busy;
	config.region_arg = &scene;
	if (_i) {
		config.count[BUFPOOL_CLASS_64K] = 1;
		REFUSED(bufpool_create(&config) == NULL, EDOM);
	} else {
		KEEPS_ERRNO(scene.dying = bufpool_create(&config));
		use_once(scene.dying);
		KEEPS_ERRNO(bufpool_destroy(scene.dying));
	}
	ck_assert_int_eq(scene.detached, 1);
	destroy_whole(scene.other);
}
END_TEST

static Suite *settle_suite(void)
{
	Suite *suite = suite_create("settle");
	TCase *tcase = add_case(suite, "settle", 10);

	tcase_add_loop_test(tcase, few_others, 0, ARRAY_SIZE(settlings));
	tcase_add_loop_test(tcase, many_others, 0, ARRAY_SIZE(settlings));
	tcase_add_test(tcase, met_and_destroyed);
	tcase_add_loop_test(tcase, flush_goes_on, 0, 8);
	tcase_add_test(tcase, slice_goes_with_the_pool);
	tcase_add_test(tcase, move_of_a_thread);
	tcase_add_loop_test(tcase, attach_uses_others, 0, 2);
	return suite;
}

int main(void)
{
	return run_suite(settle_suite());
}
