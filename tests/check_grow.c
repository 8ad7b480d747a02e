/* SPDX-License-Identifier: MIT */
/* check_grow.c - classes that grow, up to max_count: when, by what, and what if not */
#include "memory.h"

#include <sched.h>
#include <signal.h>
#include <ucontext.h>


enum { K = BUFPOOL_CLASS_4K, COUNT = 4, MOST = 10 };

static bufpool_config_t growing_class(int size_class, size_t count, size_t most)
{
	bufpool_config_t config = class_config(size_class, count);

	config.max_count[size_class] = most;
	config.exhausted = BUFPOOL_FAIL;
	return config;
}

static bufpool_config_t growing(size_t count, size_t most)
{
	return growing_class(K, count, most);
}

/* It has all that it may, and then as many as it says. */
static void end_grown(bufpool_t *pool)
{
	bufpool_buf_t *bufs[200];

	bufpool_return_bulk(bufs, drain(pool, K, bufs, ARRAY_SIZE(bufs)));
	destroy_whole(pool);
}

static uint64_t total_of(const bufpool_t *pool)
{
	return stats_of(pool).per_class[K].total;
}

/* ------------------------------------------------------------------ when, by what */

static bufpool_buf_t *take_waiting(bufpool_t *pool, size_t size)
{
	const struct timespec moment = {0, 1000000};

	return bufpool_checkout_wait(pool, size, &moment);
}

static bufpool_buf_t *(*const takes[])(bufpool_t *, size_t) = {
	take_by_size, bufpool_checkout_zeroed, take_aligned,
	take_bulk,    bufpool_try_checkout,    take_waiting,
};

/* By half, at least one, at most to max_count; then the class is exhausted. */
START_TEST(by_half)
{
	bufpool_config_t config = growing_class(_i % BUFPOOL_CLASSES, COUNT, MOST);
	bufpool_buf_t *(*take)(bufpool_t *, size_t) = takes[_i / BUFPOOL_CLASSES];
	const uint64_t totals[MOST] = {4, 4, 4, 4, 6, 6, 9, 9, 9, 10};
	size_t size = classes[_i % BUFPOOL_CLASSES].size;
	bufpool_buf_t *bufs[MOST];
	bufpool_region_t regions[REGIONS];
	bufpool_t *pool = make_pool(config);

	for (int i = 0; i < MOST; i++) {
		KEEPS_ERRNO(bufs[i] = take(pool, size));
		ck_assert(bufs[i] && is_zero(bufs[i]));
		fill(bufs[i], SECRET);
		ck_assert_uint_eq(stats_of(pool)
		                          .per_class[_i % BUFPOOL_CLASSES]
		                          .total,
		                  totals[i]);
	}
	errno = 0;
	ck_assert(!take(pool, size));
	ck_assert(errno == ENOBUFS || errno == ETIMEDOUT);
	ck_assert(are_disjoint(bufs, MOST));
	ck_assert_uint_eq(regions_of(pool, regions), 4);
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	bufpool_return_bulk(bufs, MOST);
	end_grown(pool);
}
END_TEST

/* From nothing; the heap comes after. */
START_TEST(from_none)
{
	bufpool_config_t config = growing(0, 3);
	bufpool_buf_t *bufs[5];
	bufpool_t *pool;

	config.exhausted = BUFPOOL_HEAP;
	pool = make_pool(config);
	ck_assert_uint_eq(bufpool_regions(pool, NULL, 0), 0);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 5), 5);
	ck_assert_uint_eq(total_of(pool), 3);
	ck_assert_uint_eq(stats_of(pool).misses, 2);
	bufpool_return_bulk(bufs, 5);
	/* What is idle is enough, wherever. */
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 3), 3);
	bufpool_return_bulk(bufs, 3);
	ck_assert_uint_eq(total_of(pool), 3);
	ck_assert_uint_eq(stats_of(pool).misses, 2);
	end_grown(pool);
}
END_TEST

/* Not before nothing is idle: not in the cache of a thread that sleeps. */
START_TEST(not_sooner)
{
	bufpool_config_t config = growing(8, 100);
	bufpool_buf_t *bufs[8];
	struct sleeper s;
	bufpool_t *pool;

	set_cache(&config, 8);
	pool = make_pool(config);
	put_to_sleep(&s, pool, 6);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 8), 8);
	ck_assert_uint_eq(total_of(pool), 8);
	bufpool_return_bulk(bufs, 8);
	wake_up(&s);
	end_grown(pool);
}
END_TEST

START_TEST(when_asked)
{
	bufpool_t *pool = make_pool(growing(COUNT, MOST));
	bufpool_buf_t *bufs[MOST + 1];

	KEEPS_ERRNO(must(bufpool_grow(pool, K, 0) == 0));
	ck_assert_uint_eq(total_of(pool), COUNT);
	KEEPS_ERRNO(must(bufpool_grow(pool, K, 5) == 0));
	ck_assert_uint_eq(total_of(pool), COUNT + 5);
	ck_assert_uint_eq(stats_of(pool).per_class[K].idle, COUNT + 5);
	REFUSED(bufpool_grow(pool, K, 2) == -1, EINVAL);
	REFUSED(bufpool_grow(pool, K, SIZE_MAX) == -1, EINVAL);
	REFUSED(bufpool_grow(pool, BUFPOOL_CLASS_64K, 1) == -1, EINVAL);
	REFUSED(bufpool_grow(pool, -1, 1) == -1, EINVAL);
	REFUSED(bufpool_grow(pool, BUFPOOL_CLASSES, 1) == -1, EINVAL);
	REFUSED(bufpool_grow(NULL, K, 1) == -1, EINVAL);
	must(bufpool_grow(pool, K, 1) == 0);
	ck_assert_uint_eq(drain(pool, K, bufs, MOST + 1), MOST);
	bufpool_return_bulk(bufs, MOST);
	end_grown(pool);
}
END_TEST

START_TEST(bad_limits)
{
	bufpool_config_t config = growing(COUNT, COUNT - 1);

	must_refuse(config, EINVAL, 0);
	config = growing(COUNT, BUFPOOL_MAX_COUNT + 1);
	must_refuse(config, EINVAL, 0);
	config = class_config(BUFPOOL_CLASS_64K, COUNT);
	config.region_max = classes[BUFPOOL_CLASS_64K].size - 1;
	must_refuse(config, EINVAL, 0);
	/* What is not pooled does not matter. */
	config = growing(COUNT, COUNT);
	config.region_max = PAGE;
	use_once(config);
}
END_TEST

/* ------------------------------------------------------------------ regions */

static struct {
	int attached, detached, fails, error;
} device;

static void *attach(void *arg, const bufpool_region_t *region)
{
	must(arg == &device);
	must(all_bytes(region->base, region->len, 0));
	if (device.fails > 0 && device.fails-- == 1) {
		errno = device.error;
		return BUFPOOL_ATTACH_FAILED;
	}
	device.attached++;
	return region->base;
}

static void detach(void *arg, const bufpool_region_t *region, void *cookie)
{
	must(arg == &device && cookie == region->base);
	device.detached++;
}

static bufpool_config_t attached(bufpool_config_t config)
{
	memset(&device, 0, sizeof(device));
	config.region_attach = attach;
	config.region_detach = detach;
	config.region_arg = &device;
	return config;
}

static void must_be_told(bufpool_t *pool, bufpool_buf_t *buf)
{
	bufpool_region_t regions[REGIONS];
	size_t n = regions_of(pool, regions), offset;
	unsigned index;

	must(bufpool_buf_region(buf, &index, &offset) == 0);
	must(index < n);
	must((char *) regions[index].base + offset == (char *) buf->data);
	must(offset + buf->capacity <= regions[index].len);
	must(bufpool_buf_at(pool, (char *) buf->data + buf->capacity - 1) == buf);
}

/* No more bytes each; first ones and others. */
START_TEST(pieces)
{
	const size_t size = classes[BUFPOOL_CLASS_64K].size;
	bufpool_config_t config = growing_class(BUFPOOL_CLASS_64K, 10, 40);
	bufpool_region_t regions[REGIONS];
	bufpool_buf_t *bufs[40];
	bufpool_t *pool;
	size_t n;

	config.region_max = 4 * size + 100;
	pool = make_pool(attached(config));
	ck_assert_uint_eq(regions_of(pool, regions), 3);
	ck_assert_uint_eq(regions[2].len, 2 * size);
	must(bufpool_grow(pool, BUFPOOL_CLASS_64K, 13) == 0);
	ck_assert_uint_eq(regions_of(pool, regions), 7);
	ck_assert_uint_eq(drain(pool, BUFPOOL_CLASS_64K, bufs, 40), 40);
	n = regions_of(pool, regions);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_le(regions[i].len, 4 * size);
		ck_assert_ptr_eq(regions[i].cookie, regions[i].base);
		ck_assert_uint_eq(regions[i].index, i);
		for (size_t j = 0; j < i; j++)
			ck_assert(!overlap(&regions[i], &regions[j]));
	}
	for (int i = 0; i < 40; i++)
		must_be_told(pool, bufs[i]);
	bufpool_return_bulk(bufs, 40);
	end_grown(pool);
	ck_assert_int_eq(device.attached, (int) n);
	ck_assert_int_eq(device.detached, (int) n);
}
END_TEST

/* Many times by one: more guards than were reckoned with. */
START_TEST(little_by_little)
{
	bufpool_config_t config = growing(1, 60);
	bufpool_region_t regions[REGIONS];
	bufpool_buf_t *bufs[60];
	bufpool_t *pool;
	long before = footprint();

	for (int round = 0; round < 2; round++) {
		pool = make_pool(with_flags(config, _i ? BUFPOOL_HUGEPAGES : 0));
		for (int i = 1; i < 60; i++)
			must(bufpool_grow(pool, K, 1) == 0);
		ck_assert_uint_eq(regions_of(pool, regions), 60);
		ck_assert_uint_eq(drain(pool, K, bufs, 60), 60);
		for (int i = 0; i < 60; i++) {
			must_be_told(pool, bufs[i]);
			fill(bufs[i], SECRET);
		}
		bufpool_return_bulk(bufs, 60);
		end_grown(pool);
		for (int i = 0; i < 60; i++)
			ck_assert(!is_mapped(regions[i].base));
		if (round == 0)
			before = footprint();
	}
	if (!is_asan())
		ck_assert_int_le(footprint(), before);
}
END_TEST

/* ------------------------------------------------------------- what cannot be had */

/* The class stays as it is, and it is not tried again before something came home. */
START_TEST(attach_fails)
{
	bufpool_buf_t *bufs[MOST];
	bufpool_t *pool;

	pool = make_pool(attached(growing(COUNT, MOST)));
	device.error = _i ? EXFULL : 0;
	ck_assert_int_eq(device.attached, 1);
	device.fails = 1;
	REFUSED(bufpool_grow(pool, K, 3) == -1, _i ? EXFULL : EIO);
	ck_assert_uint_eq(total_of(pool), COUNT);
	ck_assert_uint_eq(bufpool_regions(pool, NULL, 0), 1);

	device.fails = 1;
	ck_assert_uint_eq(drain(pool, K, bufs, MOST), COUNT);
	ck_assert_int_eq(device.fails, 0);
	device.fails = 100;
	for (int i = 0; i < 50; i++) {
		REFUSED(!bufpool_try_checkout(pool, 1), ENOBUFS);
		ck_assert(!take_waiting(pool, 1) && errno == ETIMEDOUT);
	}
	ck_assert_int_eq(device.fails, 100);
	/* Taken again, it is exhausted anew. */
	device.fails = 1;
	bufpool_return(bufs[0]);
	bufs[0] = bufpool_try_checkout(pool, 1);
	ck_assert(bufs[0] && !bufpool_try_checkout(pool, 1));
	ck_assert_int_eq(device.fails, 0);
	bufpool_return(bufs[0]);
	ck_assert_uint_eq(drain(pool, K, bufs, 1) +
	                          drain(pool, K, bufs + COUNT, MOST - COUNT),
	                  1 + MOST - COUNT);
	bufpool_return_bulk(bufs, MOST);
	ck_assert_uint_eq(total_of(pool), MOST);
	end_grown(pool);
	ck_assert_int_eq(device.detached, device.attached);
}
END_TEST

/* The second of three regions: the first one is detached. */
START_TEST(attach_fails_midway)
{
	bufpool_config_t config = growing(COUNT, MOST);
	bufpool_t *pool;

	config.region_max = 2 * PAGE;
	pool = make_pool(attached(config));
	device.error = EXFULL;
	device.fails = 2;
	REFUSED(bufpool_grow(pool, K, MOST - COUNT) == -1, EXFULL);
	ck_assert_int_eq(device.attached, 3);
	ck_assert_int_eq(device.detached, 1);
	must(bufpool_grow(pool, K, MOST - COUNT) == 0);
	ck_assert_uint_eq(bufpool_regions(pool, NULL, 0), 5);
	end_grown(pool);
	ck_assert_int_eq(device.detached, device.attached);
}
END_TEST

/* More than the machine has: refused before any of it is touched. */
START_TEST(too_much)
{
	bufpool_config_t config = growing_class(BUFPOOL_CLASS_1M, 1, 1 << 22);
	bufpool_buf_t *buf;
	bufpool_t *pool;

	if (is_valgrind())
		return;
	pool = make_pool(config);
	REFUSED(bufpool_grow(pool, BUFPOOL_CLASS_1M, (1 << 22) - 1) == -1, ENOMEM);
	buf = bufpool_checkout_1m(pool);
	must(bufpool_grow(pool, BUFPOOL_CLASS_1M, 1) == 0);
	bufpool_return(bufpool_checkout_1m(pool));
	bufpool_return(buf);
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------------- who waits */

static void *wait_for_one(void *pool)
{
	return bufpool_checkout_wait(pool, 1, NULL);
}

/* Those who sleep since it could not grow, and an event, hear of a growth. */
START_TEST(growth_is_heard_of)
{
	bufpool_event_t *event;
	bufpool_buf_t *buf;
	bufpool_t *pool;
	pthread_t waiter;
	void *got;

	pool = make_pool(attached(growing(1, MOST)));
	buf = bufpool_try_checkout(pool, 1);
	event = bufpool_event_open(pool, 1);
	/* It could grow. */
	ck_assert_int_eq(bufpool_event_arm(event), 1);
	device.fails = 1;
	device.error = EXFULL;
	ck_assert(!bufpool_try_checkout(pool, 1));
	ck_assert_int_eq(bufpool_event_arm(event), 0);
	waiter = start_thread(wait_for_one, pool);
	while (stats_of(pool).per_class[K].waits == 0)
		usleep(100);
	must(bufpool_grow(pool, K, 2) == 0);
	must(pthread_join(waiter, &got) == 0);
	ck_assert_ptr_nonnull(got);
	ck_assert_int_eq(bufpool_event_arm(event), 1);
	bufpool_return(got);
	bufpool_return(buf);
	bufpool_event_close(event);
	end_grown(pool);
}
END_TEST

/* ------------------------------------------------------------------ the other calls */

START_TEST(trimmed)
{
	bufpool_t *pool = make_pool(growing(COUNT, MOST));
	bufpool_buf_t *bufs[MOST];

	ck_assert_uint_eq(drain(pool, K, bufs, MOST), MOST);
	bufpool_return_bulk(bufs, MOST);
	ck_assert_uint_eq(bufpool_trim(pool), MOST * PAGE);
	ck_assert_uint_eq(drain(pool, K, bufs, MOST), MOST);
	for (int i = 0; i < MOST; i++)
		ck_assert(is_zero(bufs[i]));
	bufpool_return_bulk(bufs, MOST);
	end_grown(pool);
}
END_TEST

/* The parent has grown it by one region, of which a buffer is out. */
static struct {
	bufpool_t *pool;
	bufpool_buf_t *out;
	size_t most; /* that the child may have */
} family;

static void use_in_child(void *arg)
{
	bufpool_buf_t *bufs[MOST];

	(void) arg;
	must(total_of(family.pool) == 6);
	must(stats_of(family.pool).checked_out == 1);
	must_be_told(family.pool, family.out);
	must(drain(family.pool, K, bufs, MOST) == family.most - 1);
	must(total_of(family.pool) == family.most);
	for (size_t i = 0; i < family.most - 1; i++) {
		must(is_zero(bufs[i]));
		must_be_told(family.pool, bufs[i]);
		fill(bufs[i], SECRET);
	}
	bufpool_return_bulk(bufs, family.most - 1);
	bufpool_return(family.out);
	end_grown(family.pool);
	must(device.detached == 0);
}

/* The loop index: as it is; left out of children; attached. */
START_TEST(forked)
{
	bufpool_config_t config = growing(COUNT, MOST);
	bufpool_buf_t *bufs[6];

	/* Its mmap() does not find the place free, which is. */
	if (_i == 1 && is_valgrind())
		return;
	family.most = _i == 2 ? 6 : MOST;
	config = with_flags(config, _i == 1 ? BUFPOOL_DONTFORK : 0);
	family.pool = make_pool(_i == 2 ? attached(config) : config);
	must(bufpool_grow(family.pool, K, 2) == 0);
	ck_assert_uint_eq(bufpool_checkout_bulk(family.pool, 1, bufs, 6), 6);
	family.out = bufs[0];
	bufpool_return_bulk(bufs + 1, 5);
	in_child(use_in_child, NULL);
	in_child(use_in_child, NULL);
	bufpool_return(family.out);
	end_grown(family.pool);
}
END_TEST

START_TEST(outlives_its_pool)
{
	bufpool_t *pool = make_pool(growing(COUNT, MOST));
	bufpool_buf_t *bufs[MOST];
	void *first, *last;

	ck_assert_uint_eq(drain(pool, K, bufs, MOST), MOST);
	first = bufs[0]->data;
	last = bufs[MOST - 1]->data;
	bufpool_destroy(pool);
	for (int i = 0; i < MOST; i++) {
		fill(bufs[i], SECRET);
		ck_assert(is_mapped(first) && is_mapped(last));
		bufpool_return(bufs[i]);
	}
	ck_assert(!is_mapped(first) && !is_mapped(last));
}
END_TEST

/* The address space goes, too, that was set apart and not used. */
START_TEST(leaves_nothing)
{
	bufpool_config_t config = growing_class(BUFPOOL_CLASS_1M, _i, 20000);
	long before = 0;

	if (is_asan() || is_valgrind())
		return;
	for (int round = 0; round < 3; round++) {
		bufpool_t *pool = make_pool(config);

		must(bufpool_grow(pool, BUFPOOL_CLASS_1M, 2) == 0);
		bufpool_destroy(pool);
		if (round == 0)
			before = number_in("/proc/self/status", "VmSize:");
	}
	ck_assert_int_gt(before, 0);
	ck_assert_int_le(number_in("/proc/self/status", "VmSize:"),
	                 before + 1024);
}
END_TEST

#if defined(__x86_64__)

/* The pool is grown by others after each instruction of a checkout in turn, the loop
   index says with which of them one begins: it finds what came, or grows it further. */
static struct {
	bufpool_t *pool;
	long steps, at;
} amid;

static void grow_amid(int sig, siginfo_t *info, void *context)
{
	ucontext_t *at = context;
	int saved = errno;

	(void) sig;
	(void) info;
	if (amid.steps++ != amid.at)
		return;
	at->uc_mcontext.gregs[REG_EFL] &= ~0x100; /* the rest at full speed */
	bufpool_grow(amid.pool, K, 1);
	errno = saved;
}

START_TEST(amid_a_checkout)
{
	const struct sigaction on = {.sa_sigaction = grow_amid,
	                             .sa_flags = SA_SIGINFO};
	const long apart = is_scale("full") ? 5 : 20;
	const long first_step = is_scale("full") ? 0 : 1300;
	bufpool_buf_t *first, *second;

	if (is_valgrind() || is_asan())
		return;
	must(sigaction(SIGTRAP, &on, NULL) == 0);
	/* It is after some 1,700 that it matters. */
	for (amid.at = first_step + apart * _i; amid.at < 2400;
	     amid.at += 4 * apart) {
		amid.pool = make_pool(growing(1, 20));
		first = bufpool_try_checkout(amid.pool, 1);
		amid.steps = 0;
		__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
			                     : "memory", "cc");
		second = bufpool_try_checkout(amid.pool, 1);
		__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
			                     : "memory", "cc");
		ck_assert_msg(second && second != first, "at %ld of %ld, %zu",
		              amid.at, amid.steps, (size_t) total_of(amid.pool));
		bufpool_return(second);
		bufpool_return(first);
		bufpool_destroy(amid.pool);
	}
}
END_TEST

#endif

START_TEST(hardened)
{
	bufpool_t *pool = make_pool(with_flags(growing(COUNT, MOST),
	                                       BUFPOOL_HARDENED));
	bufpool_buf_t *bufs[MOST], *again[MOST];

	for (int round = 0; round < 3; round++) {
		ck_assert_uint_eq(drain(pool, K, bufs, MOST), MOST);
		bufpool_return_bulk(bufs, MOST);
		ck_assert_uint_eq(drain(pool, K, again, MOST), MOST);
		ck_assert(memcmp(bufs, again, sizeof(bufs)) == 0);
		bufpool_return_bulk(again, MOST);
	}
	end_grown(pool);
}
END_TEST

/* --------------------------------------------------------------------- places */

static void stay_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	must(sched_setaffinity(0, sizeof(cpus), &cpus) == 0);
}

/* Where the thread is that finds none, and not at the other node, of which nothing is
   idle, either.  hwloc is told of two nodes. */
static void grow_at_places(void *arg)
{
	bufpool_config_t config = growing(2, MOST);
	bufpool_stats_t stats;
	bufpool_buf_t *bufs[MOST];
	bufpool_t *pool;

	(void) arg;
	must(setenv("HWLOC_SYNTHETIC", "node:2 pu:1", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	config.numa_node = BUFPOOL_NUMA_LOCAL;
	set_cache(&config, 0);
	stay_on(0);
	pool = make_pool(config);
	must(bufpool_regions(pool, NULL, 0) == 2);
	must(drain(pool, K, bufs, 5) == 5);
	stats = stats_of(pool);
	/* One of its own, the other's, and then those that it grew by here. */
	must(stats.per_class[K].remote_hits == 1);
	bufpool_return_bulk(bufs, 5);
	must(drain(pool, K, bufs, 4) == 4);
	must(stats_of(pool).per_class[K].remote_hits == 1);
	bufpool_return_bulk(bufs, 4);
	/* Spread over all. */
	must(bufpool_grow(pool, K, 4) == 0);
	stay_on(1);
	must(drain(pool, K, bufs, 3) == 3);
	must(stats_of(pool).per_class[K].remote_hits == 1);
	bufpool_return_bulk(bufs, 3);
	end_grown(pool);
	/* At the other one. */
	pool = make_pool(config);
	must(drain(pool, K, bufs, 5) == 5);
	bufpool_return_bulk(bufs, 5);
	must(drain(pool, K, bufs, 4) == 4);
	must(stats_of(pool).per_class[K].remote_hits == 1);
	bufpool_return_bulk(bufs, 4);
	end_grown(pool);
}

START_TEST(at_the_place_that_lacks)
{
	cpu_set_t cpus;

	must(sched_getaffinity(0, sizeof(cpus), &cpus) == 0);
	if (!CPU_ISSET(0, &cpus) || !CPU_ISSET(1, &cpus))
		return;
	in_child(grow_at_places, NULL);
}
END_TEST

/* ---------------------------------------------------------------- all at once */

enum { THREADS = 4, HELD = 40, MANY = 120 };

static struct {
	bufpool_t *pool;
} crowd;

static void *brawl(void *arg)
{
	unsigned char me = (unsigned char) (uintptr_t) arg;
	bufpool_buf_t *bufs[HELD];
	uint64_t seed = me * 0x9e3779b97f4a7c15u;

	for (long i = scaled(400); i > 0; i--) {
		size_t n = draw(&seed) % HELD;

		n = bufpool_checkout_bulk(crowd.pool, 1, bufs, n);
		for (size_t j = 0; j < n; j++) {
			must(all_bytes(bufs[j]->data, 64, 0));
			memset(bufs[j]->data, me, 64);
			must(bufpool_buf_at(crowd.pool, bufs[j]->data) == bufs[j]);
		}
		for (size_t j = 0; j < n; j++)
			must(all_bytes(bufs[j]->data, 64, me));
		bufpool_return_bulk(bufs, n);
	}
	return NULL;
}

/* Fewer than they want in all, so that it comes to max_count. */
START_TEST(beside_others)
{
	bufpool_config_t config = growing(1, MANY);
	pthread_t threads[THREADS];

	config.region_max = _i ? 3 * PAGE : 0;
	config = with_flags(config, _i == 2 ? BUFPOOL_HARDENED : 0);
	crowd.pool = make_pool(config);
	for (int i = 0; i < THREADS; i++)
		threads[i] = start_thread(brawl, (void *) (uintptr_t) (i + 1));
	for (int i = 0; i < THREADS; i++)
		join_thread(threads[i]);
	ck_assert_uint_le(total_of(crowd.pool), MANY);
	ck_assert_uint_ge(total_of(crowd.pool), HELD / 2);
	end_grown(crowd.pool);
}
END_TEST

/* A child that is born while the pool grows has all that it knows of, and no half of
   what it does not. */
static void *grow_all_the_time(void *arg)
{
	bool *over = arg;

	while (!__atomic_load_n(over, __ATOMIC_RELAXED)) {
		if (bufpool_grow(crowd.pool, K, 3) == -1)
			break;
		usleep(300);
	}
	return NULL;
}

static void use_while_born(void *arg)
{
	bufpool_buf_t *bufs[MANY];
	uint64_t total = total_of(crowd.pool);
	size_t n = bufpool_checkout_bulk(crowd.pool, 1, bufs, total);

	(void) arg;
	must(n == total);
	must(bufpool_regions(crowd.pool, NULL, 0) == 1 + (total - 1) / 3);
	for (size_t i = 0; i < n; i++) {
		must(is_zero(bufs[i]));
		must_be_told(crowd.pool, bufs[i]);
	}
	must(total + 3 > MANY || bufpool_grow(crowd.pool, K, 3) == 0);
	bufpool_return_bulk(bufs, n);
	end_grown(crowd.pool);
}

START_TEST(forks_beside_growth)
{
	pthread_t grower;
	bool over = false;

	if (is_asan())
		return; /* see check_fork */
	crowd.pool = make_pool(growing(1, MANY));
	grower = start_thread(grow_all_the_time, &over);
	for (int i = 0; i < 15; i++)
		in_child(use_while_born, NULL);
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	join_thread(grower);
	end_grown(crowd.pool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("grow");
	TCase *tc = add_case(suite, "growth", 20);

	lock_huge_pages(LOCK_SH);
	tcase_add_loop_test(tc, by_half, 0, BUFPOOL_CLASSES * ARRAY_SIZE(takes));
	tcase_add_test(tc, from_none);
	tcase_add_test(tc, not_sooner);
	tcase_add_test(tc, when_asked);
	tcase_add_test(tc, bad_limits);
	tc = add_case(suite, "regions", 20);
	tcase_add_test(tc, pieces);
	tcase_add_loop_test(tc, little_by_little, 0, 2);
	tc = add_case(suite, "limits", 20);
	tcase_add_loop_test(tc, attach_fails, 0, 2);
	tcase_add_test(tc, attach_fails_midway);
	tcase_add_test(tc, too_much);
	tc = add_case(suite, "others", 20);
	tcase_add_test(tc, growth_is_heard_of);
	tcase_add_test(tc, trimmed);
	tcase_add_loop_test(tc, forked, 0, 3);
	tcase_add_test(tc, outlives_its_pool);
	tcase_add_loop_test(tc, leaves_nothing, 0, 2);
#if defined(__x86_64__)
	tcase_add_loop_test(tc, amid_a_checkout, 0, 4);
#endif
	tcase_add_test(tc, hardened);
	tcase_add_test(tc, at_the_place_that_lacks);
	tcase_add_loop_test(tc, beside_others, 0, 3);
	tcase_add_test(tc, forks_beside_growth);
	return run_suite(suite);
}
