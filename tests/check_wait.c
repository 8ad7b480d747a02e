/* SPDX-License-Identifier: MIT */
/*
 * check_wait.c - who waits for a buffer is woken, by whatever brings one home
 *
 * No test waits for ever: a wake-up that is lost shows as a wait of PATIENCE
 * seconds, or half of them, where milliseconds were enough.
 */
#include "common.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#define PATIENCE 10.0

static const struct timespec patience = {(time_t) PATIENCE, 0};

/* -------------------------------------------------------------------- time */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static struct timespec milliseconds(long ms)
{
	return (struct timespec) {ms / 1000, ms % 1000 * 1000000};
}

/* How late a plain sleep is here and now. */
static double plain_lateness(long ms)
{
	struct timespec left = milliseconds(ms);
	double start = now();

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
	return now() - start - (double) ms / 1e3;
}

static void dawdle(uint64_t loops)
{
	for (; loops > 0; loops--)
		__asm__ volatile("");
}

/* ---------------------------------------------------------------- settings */

/* membarrier(): there, missing from the start, or only as long as creating. */
enum membarrier { WORKS, MISSING, ENDS };

static const struct setting {
	const char *name;
	size_t cache;
	enum membarrier membarrier;
} settings[] = {
	{"cached", BUFPOOL_CACHE_AUTO, WORKS},
	{"depot", 0, WORKS},
	{"one cached", 1, WORKS},
	{"cached, fenced", BUFPOOL_CACHE_AUTO, MISSING},
	{"depot, fenced", 0, MISSING},
	{"one cached, fenced", 1, MISSING},
};

enum { SETTINGS = ARRAY_SIZE(settings) };

/* What is blind cannot steal. */
static const struct setting blind = {"blind", BUFPOOL_CACHE_AUTO, ENDS};

static bufpool_t *setting_pool(const struct setting *setting,
                               bufpool_config_t config)
{
	bufpool_t *pool;

	if (setting->membarrier == MISSING)
		refuse_membarrier();
	set_cache(&config, setting->cache);
	pool = make_pool(config);
	if (setting->membarrier == ENDS)
		refuse_membarrier();
	return pool;
}

/* ----------------------------------------------------------------- waiters */

struct waiter {
	bufpool_t *pool;
	size_t size;
	const struct timespec *timeout;
	pthread_t thread;
	atomic_int tid;
	atomic_bool back;
	bufpool_buf_t *buf;
	double waited;
};

static void *wait_thread(void *arg)
{
	struct waiter *waiter = arg;
	double start = now();

	waiter->tid = (int) syscall(SYS_gettid);
	errno = ERRNO_SENTINEL;
	waiter->buf = bufpool_checkout_wait(waiter->pool, waiter->size,
	                                    waiter->timeout);
	must(errno == (waiter->buf ? ERRNO_SENTINEL : ETIMEDOUT));
	waiter->waited = now() - start;
	waiter->back = true;
	return NULL;
}

/* Asleep twice in a row: not just somewhere on the way.  Or back already. */
static void until_asleep(const atomic_int *tid, const atomic_bool *back)
{
	int seen = 0;

	while (seen < 2 && !*back) {
		usleep(100);
		seen = *tid && is_asleep(*tid) ? seen + 1 : 0;
	}
}

static void start_waiter(struct waiter *waiter, bufpool_t *pool, size_t size,
                         const struct timespec *timeout)
{
	*waiter = (struct waiter) {
		.pool = pool,
		.size = size,
		.timeout = timeout,
	};
	waiter->thread = start_thread(wait_thread, waiter);
}

static void start_sleeper(struct waiter *waiter, bufpool_t *pool, size_t size)
{
	start_waiter(waiter, pool, size, &patience);
	until_asleep(&waiter->tid, &waiter->back);
}

/* Woken, and not because the time was up. */
static bufpool_buf_t *wait_in_time(bufpool_t *pool, size_t size)
{
	double start = now();
	bufpool_buf_t *buf = bufpool_checkout_wait(pool, size, &patience);

	must(buf && "woken");
	must(now() - start < PATIENCE / 2);
	return buf;
}

/* What it got, in time. */
static bufpool_buf_t *end_waiter(struct waiter *waiter)
{
	join_thread(waiter->thread);
	must(waiter->buf && "woken");
	must(waiter->waited < PATIENCE / 2);
	must(waiter->buf->len == waiter->size);
	must(is_zero(waiter->buf));
	fill(waiter->buf, 0xda);
	return waiter->buf;
}

/* ----------------------------------------------------------- without sleep */

START_TEST(takes_what_is_there)
{
	bufpool_t *pool = setting_pool(&settings[_i], even_config(2));
	const struct timespec timeouts[] = {{0, 0}, {0, 1}, {1000, 0},
	                                    {0, 999999999}};

	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		for (size_t i = 0; i <= ARRAY_SIZE(timeouts); i++) {
			size_t size = classes[k].size - i;
			bufpool_buf_t *buf;

			KEEPS_ERRNO(buf = bufpool_checkout_wait(
				pool, size,
				i == ARRAY_SIZE(timeouts) ? NULL
			                                  : &timeouts[i]));
			ck_assert_ptr_nonnull(buf);
			ck_assert_uint_eq(buf->len, size);
			ck_assert_uint_eq(buf->capacity, classes[k].size);
			ck_assert(is_zero(buf));
			fill(buf, 0x55);
			KEEPS_ERRNO(bufpool_return(buf));
		}
	bufpool_return(bufpool_checkout_wait(pool, 0, NULL));
	ck_assert_uint_eq(stats_of(pool).hits, 5 * BUFPOOL_CLASSES + 1);
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	destroy_whole(pool);
}
END_TEST

/* It lies in the cache of a thread that sleeps: that is there. */
START_TEST(takes_from_other_caches)
{
	bufpool_t *pool = setting_pool(&settings[_i],
	                               class_config(BUFPOOL_CLASS_4K, 4));
	bufpool_buf_t *bufs[4];
	struct sleeper sleeper;

	put_to_sleep(&sleeper, pool, 4);
	for (int i = 0; i < 4; i++) {
		bufs[i] = bufpool_checkout_wait(pool, 1, NULL);
		ck_assert_ptr_nonnull(bufs[i]);
	}
	REFUSED(bufpool_try_checkout(pool, 1) == NULL, ENOBUFS);
	bufpool_return_bulk(bufs, 4);
	wake_up(&sleeper);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------ errors */

START_TEST(refusals)
{
	const struct timespec bad[] = {{0, -1},       {0, 1000000000},
	                               {-1, 0},       {-1, 999999999},
	                               {1, LONG_MAX}, {1, LONG_MIN}},
	                      good = {1000, 0};
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	const size_t over = (size_t) PTRDIFF_MAX + 1;
	bufpool_t *pool = make_pool(config);
	bufpool_buf_t *buf = NULL;
	double start = now();

	/* Idle first, then out. */
	for (int i = 0; i < 2; i++) {
		for (size_t j = 0; j < ARRAY_SIZE(bad); j++)
			REFUSED(!bufpool_checkout_wait(pool, 1, &bad[j]),
			        EINVAL);
		REFUSED(!bufpool_checkout_wait(NULL, 1, NULL), EINVAL);
		REFUSED(!bufpool_checkout_wait(NULL, 1, &good), EINVAL);
		REFUSED(!bufpool_checkout_wait(NULL, 1, &bad[0]), EINVAL);
		REFUSED(!bufpool_checkout_wait(pool, over, NULL), EOVERFLOW);
		REFUSED(!bufpool_checkout_wait(pool, SIZE_MAX, &good),
		        EOVERFLOW);
		REFUSED(!bufpool_checkout_wait(pool, over, &bad[0]),
		        EOVERFLOW);
		REFUSED(!bufpool_checkout_wait(NULL, SIZE_MAX, &bad[0]),
		        EOVERFLOW);
		/* Not pooled, although the heap is allowed elsewhere. */
		REFUSED(!bufpool_checkout_wait(pool, 4097, NULL), ENOBUFS);
		REFUSED(!bufpool_checkout_wait(pool, 1048576, &good), ENOBUFS);
		REFUSED(!bufpool_checkout_wait(pool, 1048577, NULL), ENOBUFS);
		REFUSED(!bufpool_checkout_wait(pool, PTRDIFF_MAX, NULL),
		        ENOBUFS);
		if (i == 0)
			buf = bufpool_checkout_wait(pool, 1, &good);
	}
	ck_assert(now() - start < PATIENCE);
	ck_assert_uint_eq(stats_of(pool).hits, 1);
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* ---------------------------------------------------------------- timeouts */

/* A pool with nothing left. */
static bufpool_t *spent_pool(const struct setting *setting, size_t count,
                             bufpool_buf_t **bufs)
{
	bufpool_t *pool = setting_pool(setting,
	                               class_config(BUFPOOL_CLASS_4K, count));

	must(bufpool_checkout_bulk(pool, 1, bufs, count) == count);
	return pool;
}

/* How late it is; it is never early. */
static double lateness(bufpool_t *pool, long ms)
{
	const struct timespec timeout = milliseconds(ms);
	double start = now(), late;

	REFUSED(!bufpool_checkout_wait(pool, 1, &timeout), ETIMEDOUT);
	late = now() - start - (double) ms / 1e3;
	ck_assert_msg(late >= 0, "%ld ms: %g s early", ms, -late);
	return late;
}

/* Exact to 10 ms, as far as this machine is. */
static void check_timeout(bufpool_t *pool, long ms)
{
	double slack = is_small() ? 1 : 0.010, late = 1e9;

	for (int i = 0; i < 5 && late > slack; i++) {
		double plain = plain_lateness(ms);
		double this = lateness(pool, ms) - plain;

		if (this < late)
			late = this;
	}
	ck_assert_msg(late <= slack, "%ld ms: %g s late", ms, late);
}

START_TEST(timeouts_are_exact)
{
	const long times[] = {0, 1, 2, 50, 200};
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(&settings[_i], 1, &buf);

	for (size_t i = 0; i < ARRAY_SIZE(times); i++)
		check_timeout(pool, times[i]);
	ck_assert_uint_eq(stats_of(pool).hits, 1);
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* Times that no clock will ever show. */
START_TEST(very_long_timeouts)
{
	const time_t end = (time_t) (((uint64_t) 1 << (sizeof(time_t) * 8 - 1)) -
	                             1);
	const struct timespec timeouts[] = {
		{end, 999999999},     {end, 0},         {end - 1000, 999999999},
		{end / 1000, 0},      {end / 1000000000, 0},
		{UINT32_MAX, 0},      {INT32_MAX, 999999999},
		{86400 * 365, 0},
	};
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(&settings[_i], 1, &buf);

	for (size_t i = 0; i <= ARRAY_SIZE(timeouts); i++) {
		struct waiter waiter;

		start_waiter(&waiter, pool, 1,
		             i == ARRAY_SIZE(timeouts) ? NULL : &timeouts[i]);
		until_asleep(&waiter.tid, &waiter.back);
		usleep(3000);
		KEEPS_ERRNO(bufpool_return(buf));
		buf = end_waiter(&waiter);
	}
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------- spurious wake-ups */

static struct {
	pthread_t target;
	bufpool_t *pool;
	atomic_bool over;
	atomic_long signals;
} noise;

static void count_signal(int signo)
{
	(void) signo;
	noise.signals++;
}

static void *send_signals(void *arg)
{
	while (!noise.over) {
		must(pthread_kill(noise.target, SIGUSR1) == 0);
		usleep(2000);
	}
	return arg;
}

/* The loop index says whether system calls are to be restarted. */
START_TEST(signals_do_not_end_it)
{
	struct sigaction action = {
		.sa_handler = count_signal,
		.sa_flags = _i ? SA_RESTART : 0,
	};
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(&settings[0], 1, &buf);
	struct waiter waiter;
	pthread_t thread;

	must(sigaction(SIGUSR1, &action, NULL) == 0);
	noise.target = pthread_self();
	thread = start_thread(send_signals, NULL);
	check_timeout(pool, 1);
	check_timeout(pool, 50);
	check_timeout(pool, 200);
	ck_assert_int_gt(noise.signals, 5);
	noise.over = true;
	join_thread(thread);

	/* Neither the endless wait. */
	noise.over = false;
	start_waiter(&waiter, pool, 1, NULL);
	noise.target = waiter.thread;
	thread = start_thread(send_signals, NULL);
	usleep(50000);
	noise.over = true;
	join_thread(thread);
	bufpool_return(buf);
	ck_assert(end_waiter(&waiter));
	bufpool_return(waiter.buf);
	destroy_whole(pool);
}
END_TEST

/* Others use another class meanwhile. */
static void *use_another_class(void *arg)
{
	while (!noise.over) {
		bufpool_return(bufpool_try_checkout(noise.pool, 65536));
		usleep(500);
	}
	return arg;
}

START_TEST(other_classes_do_not_end_it)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	bufpool_buf_t *buf;
	pthread_t thread;

	config.count[BUFPOOL_CLASS_64K] = 1;
	noise.pool = setting_pool(&settings[_i], config);
	buf = bufpool_checkout_4k(noise.pool);
	thread = start_thread(use_another_class, NULL);
	check_timeout(noise.pool, 1);
	check_timeout(noise.pool, 100);
	noise.over = true;
	join_thread(thread);
	bufpool_return(buf);
	destroy_whole(noise.pool);
}
END_TEST

/* ------------------------------------------------------------------ giving */

/*
 * A giver holds buffers that waiters sleep for, gives them back in some way,
 * and lives on until the waiters have them: else its exit would do the work.
 */
enum { GIFTS = 4 };

static void give_each(bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		KEEPS_ERRNO(bufpool_return(bufs[i]));
}

static void give_in_bulk(bufpool_buf_t **bufs, size_t n)
{
	KEEPS_ERRNO(bufpool_return_bulk(bufs, n));
}

static void give_frozen(bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bufpool_frozen_t *f = bufpool_freeze(bufs[i]);

		KEEPS_ERRNO(bufpool_frozen_unref(f));
	}
}

static void give_slices(bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bufpool_frozen_t *f = bufpool_freeze(bufs[i]);
		bufpool_slice_t slice = bufpool_slice(f, 0, 1);

		bufpool_frozen_unref(f);
		KEEPS_ERRNO(bufpool_slice_release(&slice));
	}
}

/* The first reference goes elsewhere, the last here. */
static void give_shared(bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bufpool_frozen_t *f = bufpool_freeze(bufs[i]);

		unref_elsewhere(bufpool_frozen_ref(f));
		bufpool_frozen_unref(f);
	}
}

static void give_thawed(bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bufpool_return(bufpool_thaw(bufpool_freeze(bufs[i])));
}

static void give_and_flush(bufpool_buf_t **bufs, size_t n)
{
	bufpool_return_bulk(bufs, n);
	bufpool_thread_flush(NULL);
}

/* Its cache is made while they sleep; not its exit is to wake them. */
static void *return_and_stay(void *buf)
{
	bufpool_return(buf);
	pause();
	return NULL;
}

static void give_by_strangers(bufpool_buf_t **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		start_thread(return_and_stay, bufs[i]);
}

static struct {
	pthread_key_t key;
	bufpool_buf_t *bufs[GIFTS];
	size_t n;
	bool frozen;
} luggage;

static void give_in_destructor(void *arg)
{
	(void) arg;
	if (luggage.frozen)
		give_frozen(luggage.bufs, luggage.n);
	else
		give_each(luggage.bufs, luggage.n);
}

static void pack(bufpool_buf_t **bufs, size_t n)
{
	memcpy(luggage.bufs, bufs, n * sizeof(bufs[0]));
	luggage.n = n;
	must(pthread_setspecific(luggage.key, &luggage) == 0);
}

static void give_at_exit(bufpool_buf_t **bufs, size_t n)
{
	luggage.frozen = false;
	pack(bufs, n);
}

static void give_frozen_at_exit(bufpool_buf_t **bufs, size_t n)
{
	luggage.frozen = true;
	pack(bufs, n);
}

static const struct give {
	void (*give)(bufpool_buf_t **bufs, size_t n);
	bool exits;   /* the giver goes for it */
	bool flushes; /* nothing is left in the giver's cache */
} gives[] = {
	{give_each, false, false},
	{give_in_bulk, false, false},
	{give_frozen, false, false},
	{give_slices, false, false},
	{give_shared, false, false},
	{give_thawed, false, false},
	{give_by_strangers, false, false},
	{give_and_flush, false, true},
	{give_at_exit, true, true},
	{give_frozen_at_exit, true, true},
};

static struct {
	const struct give *give;
	bufpool_t *pool;
	size_t n;
	pthread_barrier_t taken, go, done;
} giver;

/* It uses the pool before, so that it has a cache to give to. */
static void *give_thread(void *arg)
{
	bufpool_buf_t *bufs[GIFTS];

	(void) arg;
	bufpool_return(bufpool_try_checkout(giver.pool, 1));
	must(bufpool_checkout_bulk(giver.pool, 1, bufs, giver.n) == giver.n);
	for (size_t i = 0; i < giver.n; i++)
		fill(bufs[i], 0xaa);
	meet(&giver.taken);
	meet(&giver.go);
	giver.give->give(bufs, giver.n);
	if (!giver.give->exits)
		meet(&giver.done);
	return NULL;
}

static void start_giving(void)
{
	pthread_barrier_init(&giver.taken, NULL, 2);
	pthread_barrier_init(&giver.go, NULL, 2);
	pthread_barrier_init(&giver.done, NULL, 2);
	must(pthread_key_create(&luggage.key, give_in_destructor) == 0);
}

/* n buffers for n waiters, and perhaps some waiters who get nothing yet. */
static void check_give(bufpool_t *pool, const struct give *give, size_t n)
{
	struct waiter waiters[GIFTS];
	bufpool_buf_t *bufs[GIFTS];
	pthread_t thread;

	giver.give = give;
	giver.pool = pool;
	giver.n = n;
	thread = start_thread(give_thread, NULL);
	meet(&giver.taken);
	for (size_t i = 0; i < n; i++)
		start_sleeper(&waiters[i], pool, i);
	meet(&giver.go);
	for (size_t i = 0; i < n; i++)
		bufs[i] = end_waiter(&waiters[i]);
	if (!give->exits)
		meet(&giver.done);
	join_thread(thread);
	must(are_disjoint(bufs, n));
	bufpool_return_bulk(bufs, n);
	/* For the next giver, who must find them all. */
	bufpool_thread_flush(pool);
	must_be_whole(pool);
	bufpool_thread_flush(pool);
}

/* The loop index is the setting. */
START_TEST(woken_by_all_that_comes_home)
{
	start_giving();
	for (size_t n = 1; n <= GIFTS; n += GIFTS - 1) {
		bufpool_t *pool = setting_pool(
			&settings[_i], class_config(BUFPOOL_CLASS_4K, n));

		for (size_t i = 0; i < ARRAY_SIZE(gives); i++)
			check_give(pool, &gives[i], n);
		bufpool_destroy(pool);
	}
}
END_TEST

/*
 * membarrier has ended, so nobody can steal any more: what is sent home must
 * reach the sleepers all the same, and so must what is returned while they
 * sleep.  The loop index is the way to give.
 */
START_TEST(woken_when_blind)
{
	bufpool_t *pools[4];

	start_giving();
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++) {
		bufpool_config_t config =
			class_config(BUFPOOL_CLASS_4K, i % 2 ? GIFTS : 1);

		set_cache(&config, i / 2 ? 0 : BUFPOOL_CACHE_AUTO);
		pools[i] = make_pool(config);
	}
	refuse_membarrier();
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++) {
		check_give(pools[i], &gives[_i], i % 2 ? GIFTS : 1);
		bufpool_destroy(pools[i]);
	}
}
END_TEST

/* When they fall asleep, it is in a cache already, where nobody can get it. */
static void *cache_then_leave(void *flush)
{
	bufpool_buf_t *bufs[GIFTS];

	must(bufpool_checkout_bulk(giver.pool, 1, bufs, GIFTS) == GIFTS);
	bufpool_return_bulk(bufs, GIFTS);
	meet(&giver.taken);
	meet(&giver.go);
	if (flush) {
		bufpool_thread_flush(giver.pool);
		meet(&giver.done);
	}
	return NULL;
}

/* The loop index says whether to flush or to exit. */
START_TEST(flush_and_exit_wake)
{
	struct waiter waiters[GIFTS];
	pthread_t thread;

	start_giving();
	giver.pool = setting_pool(&blind,
	                          class_config(BUFPOOL_CLASS_4K, GIFTS));
	thread = start_thread(cache_then_leave, _i ? &giver : NULL);
	meet(&giver.taken);
	for (size_t i = 0; i < GIFTS; i++)
		start_sleeper(&waiters[i], giver.pool, i);
	meet(&giver.go);
	for (size_t i = 0; i < GIFTS; i++)
		end_waiter(&waiters[i]);
	if (_i)
		meet(&giver.done);
	join_thread(thread);
	for (size_t i = 0; i < GIFTS; i++)
		bufpool_return(waiters[i].buf);
	destroy_whole(giver.pool);
}
END_TEST

/* ----------------------------------------------------------------- a chain */

enum { LINKS = 12 };

static struct {
	bufpool_t *pool;
	atomic_int tids[LINKS], served;
	atomic_bool back;
	pthread_barrier_t end;
} chain;

/* Whoever was served is the one who serves the next, and lives on. */
static void *wait_and_pass_on(void *arg)
{
	atomic_int *tid = arg;
	bufpool_buf_t *buf;

	*tid = (int) syscall(SYS_gettid);
	buf = wait_in_time(chain.pool, 1);
	must(is_zero(buf));
	chain.back = true;
	chain.served++;
	bufpool_return(buf);
	meet(&chain.end);
	return NULL;
}

START_TEST(one_buffer_serves_all)
{
	pthread_t threads[LINKS];
	bufpool_buf_t *buf;
	double start;

	chain.pool = spent_pool(&settings[_i], 1, &buf);
	pthread_barrier_init(&chain.end, NULL, LINKS + 1);
	for (int i = 0; i < LINKS; i++)
		threads[i] = start_thread(wait_and_pass_on, &chain.tids[i]);
	for (int i = 0; i < LINKS; i++)
		until_asleep(&chain.tids[i], &chain.back);
	start = now();
	bufpool_return(buf);
	meet(&chain.end);
	ck_assert(now() - start < PATIENCE / 2);
	ck_assert_int_eq(chain.served, LINKS);
	for (int i = 0; i < LINKS; i++)
		join_thread(threads[i]);
	destroy_whole(chain.pool);
}
END_TEST

/* ------------------------------------------------------------- two classes */

/* Who waits for one class takes no wake-up from who waits for another. */
START_TEST(classes_do_not_mix)
{
	const int kinds[] = {BUFPOOL_CLASS_4K, BUFPOOL_CLASS_64K};
	bufpool_config_t config = empty_config();
	struct waiter waiters[2];
	bufpool_buf_t *bufs[2];
	bufpool_t *pool;

	for (int i = 0; i < 2; i++)
		config.count[kinds[i]] = 1;
	pool = setting_pool(&settings[_i], config);
	for (int i = 0; i < 2; i++)
		bufs[i] = bufpool_try_checkout(pool, classes[kinds[i]].size);
	for (long round = 0; round < 20; round++) {
		/* Who sleeps first, and who is served first. */
		int first = round & 1, served = round >> 1 & 1;

		for (int i = 0; i < 2; i++)
			start_sleeper(&waiters[i ^ first], pool,
			              classes[kinds[i ^ first]].size);
		for (int i = 0; i < 2; i++) {
			bufpool_return(bufs[i ^ served]);
			bufs[i ^ served] = end_waiter(&waiters[i ^ served]);
		}
	}
	bufpool_return_bulk(bufs, 2);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------- no lost one */

static struct {
	bufpool_t *pool;
	long rounds;
} stress;

/*
 * Once in each round some wait with little patience: who gives up just when it
 * is woken must not leave the one who is patient asleep.
 */
enum { IMPATIENT = 4 };

static pthread_barrier_t before, after;

static void *wait_impatiently(void *arg)
{
	uint64_t seed = (uintptr_t) arg;

	for (long i = stress.rounds; i > 0; i--) {
		const struct timespec timeout = {
			0, (long) (draw(&seed) % 100000)};

		meet(&before);
		bufpool_return(bufpool_checkout_wait(stress.pool, 1,
		                                     &timeout));
		meet(&after);
	}
	return NULL;
}

static void *wait_patiently(void *arg)
{
	uint64_t seed = (uintptr_t) &seed | 1;

	for (long i = stress.rounds; i > 0; i--) {
		meet(&before);
		dawdle(draw(&seed) % 100000);
		*(bufpool_buf_t **) arg = wait_in_time(stress.pool, 1);
		meet(&after);
	}
	return NULL;
}

START_TEST(the_impatient_lose_no_wake_up)
{
	pthread_t threads[IMPATIENT], patient;
	uint64_t seed = (uintptr_t) &seed | 1;
	bufpool_buf_t *buf;

	stress.rounds = scaled(1000);
	stress.pool = spent_pool(&settings[_i], 1, &buf);
	pthread_barrier_init(&before, NULL, IMPATIENT + 2);
	pthread_barrier_init(&after, NULL, IMPATIENT + 2);
	for (uintptr_t i = 0; i < IMPATIENT; i++)
		threads[i] = start_thread(wait_impatiently, (void *) (i + 1));
	patient = start_thread(wait_patiently, &buf);
	for (long i = stress.rounds; i > 0; i--) {
		bufpool_buf_t *mine = buf;

		meet(&before);
		usleep(draw(&seed) % 100);
		bufpool_return(mine);
		meet(&after);
	}
	join_thread(patient);
	for (uintptr_t i = 0; i < IMPATIENT; i++)
		join_thread(threads[i]);
	bufpool_return(buf);
	destroy_whole(stress.pool);
}
END_TEST

/* ----------------------------------------------------------------- a crowd */

enum { CROWD = 12, HAMMERS = 2 };

static struct {
	bufpool_t *pool;
	atomic_bool over;
	_Atomic(bufpool_buf_t *) basket; /* to be returned by who comes next */
	long served[CROWD];
	double longest[CROWD]; /* without a buffer, in seconds */
} crowd;

static void hold_a_moment(bufpool_buf_t *buf, uint64_t *seed)
{
	uint64_t stamp = draw(seed), *at = buf->data;

	must(*at == 0);
	*at = stamp;
	if (stamp % 8 == 0)
		sched_yield();
	if (stamp % 512 == 0)
		usleep(100);
	must(*at == stamp);
}

static void let_go(bufpool_buf_t *buf, uint64_t seed)
{
	if (seed % 4 == 0)
		bufpool_frozen_unref(bufpool_freeze(buf));
	else if (seed % 4 == 1)
		bufpool_return(atomic_exchange(&crowd.basket, buf));
	else
		bufpool_return(buf);
}

static void *wait_in_crowd(void *arg)
{
	size_t me = (size_t) (uintptr_t) arg;
	uint64_t seed = me + 1;
	double since = now();

	while (!crowd.over) {
		bufpool_buf_t *buf = wait_in_time(crowd.pool, 1);
		double waited = now() - since;

		if (waited > crowd.longest[me])
			crowd.longest[me] = waited;
		crowd.served[me]++;
		hold_a_moment(buf, &seed);
		let_go(buf, seed);
		since = now();
	}
	return NULL;
}

/* Never waits, and takes what it can; it does let go of the CPU. */
static void *hammer(void *arg)
{
	uint64_t seed = (uintptr_t) arg;
	bufpool_buf_t *bufs[2];

	while (!crowd.over) {
		size_t n = bufpool_checkout_bulk(crowd.pool, 1, bufs,
		                                 1 + draw(&seed) % 2);

		for (size_t i = 0; i < n; i++)
			hold_a_moment(bufs[i], &seed);
		bufpool_return_bulk(bufs, n);
		bufpool_return(atomic_exchange(&crowd.basket, NULL));
		if (seed % 64 == 0)
			sched_yield();
		if (seed % 256 == 0)
			bufpool_thread_flush(NULL);
		if (seed % 1024 == 0)
			usleep(50);
	}
	return NULL;
}

static void run_crowd(const struct setting *setting, int hammers,
                      double seconds)
{
	pthread_t threads[CROWD + HAMMERS];
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 3);
	double end = now() + seconds;

	config.exhausted = BUFPOOL_FAIL;
	crowd.pool = setting_pool(setting, config);
	crowd.over = false;
	for (uintptr_t i = 0; i < CROWD; i++)
		threads[i] = start_thread(wait_in_crowd, (void *) i);
	for (uintptr_t i = 0; i < (uintptr_t) hammers; i++)
		threads[CROWD + i] = start_thread(hammer, (void *) (i + 99));
	while (now() < end)
		usleep(10000);
	crowd.over = true;
	for (int i = 0; i < CROWD + hammers; i++)
		join_thread(threads[i]);
	bufpool_return(atomic_exchange(&crowd.basket, NULL));
	destroy_whole(crowd.pool);
}

/* The loop index is the setting, then whether there are hammers. */
START_TEST(everybody_gets_on)
{
	run_crowd(&settings[_i % SETTINGS], _i / SETTINGS ? HAMMERS : 0,
	          is_small() ? 0.1 : 0.3);
	for (int i = 0; i < CROWD; i++)
		ck_assert_msg(crowd.served[i] > 0, "%d was never served", i);
}
END_TEST

static long served_in_all(void)
{
	long sum = 0;

	for (int i = 0; i < CROWD; i++)
		sum += crowd.served[i];
	return sum;
}

static bool is_fair_to(int i)
{
	return crowd.served[i] >= served_in_all() / CROWD / 2;
}

static bool is_fair(void)
{
	int i = 0;

	while (i < CROWD && is_fair_to(i))
		i++;
	return i == CROWD;
}

/*
 * Not first come, first served; but everybody has a fair part of it, and soon.
 * In milliseconds, on 2 CPUs with nothing else to do; a part differs by a tenth.
 */
START_TEST(nobody_starves)
{
	int runs = is_small() ? 5 : 1;

	/* A second is short beside other tests: then another is added. */
	do
		run_crowd(&settings[0], HAMMERS, is_small() ? 1 : 60);
	while (!is_fair() && --runs > 0);
	for (int i = 0; i < CROWD; i++) {
		ck_assert_msg(is_fair_to(i),
		              "%d was served %ld times, all together %ld", i,
		              crowd.served[i], served_in_all());
		ck_assert_msg(crowd.longest[i] < 1, "%d waited for %g s", i,
		              crowd.longest[i]);
	}
}
END_TEST

/* -------------------------------------------------------------- a ping-pong */

/* Some in a hurry, one buffer: the race of a return with a falling asleep. */
static void *pass_to_and_fro(void *arg)
{
	uint64_t seed = (uintptr_t) arg;

	for (long i = stress.rounds; i > 0; i--) {
		bufpool_buf_t *buf = wait_in_time(stress.pool, 1);

		dawdle(draw(&seed) % 500);
		if (seed % 16 == 0)
			sched_yield();
		bufpool_return(buf);
		dawdle(draw(&seed) % 500);
	}
	return NULL;
}

START_TEST(to_and_fro)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	pthread_t threads[3];

	config.wipe = BUFPOOL_WIPE_NONE;
	stress.rounds = scaled(10000);
	stress.pool = setting_pool(&settings[_i], config);
	for (uintptr_t i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start_thread(pass_to_and_fro, (void *) (i + 1));
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
	destroy_whole(stress.pool);
}
END_TEST

/* ------------------------------------------------------- at the same moment */

/*
 * One returns and the other falls asleep just then, so that neither has seen
 * what the other has written: each must have its fence.
 */
static struct {
	bufpool_t *pool;
	bufpool_buf_t *buf; /* of who returns */
	atomic_long ready[2];
} meeting;

/* Both leave at once, as far as there are two CPUs. */
static void start_together(int me, long round)
{
	meeting.ready[me] = round;
	for (long i = 1; meeting.ready[!me] < round; i++)
		if (i % 1000 == 0)
			sched_yield();
}

static void *return_at_once(void *arg)
{
	uint64_t seed = (uintptr_t) &seed | 1;
	long rounds = *(long *) arg;

	for (long i = 1; i < rounds; i += 2) {
		/* Nobody waits: that is what it has heard last. */
		for (int j = 0; j < 2; j++) {
			bufpool_return(meeting.buf);
			meeting.buf = bufpool_try_checkout(meeting.pool, 1);
			must(meeting.buf);
		}
		start_together(0, i);
		dawdle(draw(&seed) % 400);
		bufpool_return(meeting.buf);
		start_together(0, i + 1);
	}
	return NULL;
}

START_TEST(at_the_same_moment)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	long rounds = scaled(40000);
	uint64_t seed = (uintptr_t) &seed | 1;
	pthread_t thread;

	config.wipe = BUFPOOL_WIPE_NONE;
	meeting.pool = setting_pool(&settings[_i], config);
	meeting.buf = bufpool_try_checkout(meeting.pool, 1);
	thread = start_thread(return_at_once, &rounds);
	for (long i = 1; i < rounds; i += 2) {
		bufpool_buf_t *buf;

		start_together(1, i);
		dawdle(draw(&seed) % 400);
		buf = wait_in_time(meeting.pool, 1);
		meeting.buf = buf;
		start_together(1, i + 1);
	}
	join_thread(thread);
	bufpool_return(meeting.buf);
	destroy_whole(meeting.pool);
}
END_TEST

/* ----------------------------------------------------------- step by step */

/*
 * The race of a return with a falling asleep, instruction by instruction: the
 * walker runs with the CPU's trap flag set and stands still after so many
 * steps, as in check_stopped.c; then the other one does its part in whole.
 */
#if defined(__x86_64__)

static struct {
	long steps, stop; /* the walker has done, and will */
	atomic_int tid;
	atomic_bool stopped, go; /* on */
	atomic_bool done, leave;
	bufpool_t *pool;
	bufpool_buf_t *buf, *two[2];
} walk;

static void on_step(int signo, siginfo_t *info, void *context)
{
	ucontext_t *at = context;

	(void) signo;
	(void) info;
	if (walk.steps++ != walk.stop)
		return;
	at->uc_mcontext.gregs[REG_EFL] &= ~0x100; /* the rest at full speed */
	walk.stopped = true;
	while (!walk.go)
		usleep(30);
}

static void return_it(void)
{
	bufpool_return(walk.buf);
}

static void return_it_in_bulk(void)
{
	bufpool_return_bulk(&walk.buf, 1);
}

static void freeze_and_unref_it(void)
{
	bufpool_frozen_unref(bufpool_freeze(walk.buf));
}

static void take_it(void)
{
	walk.buf = bufpool_try_checkout(walk.pool, 1);
}

static void flush_it(void)
{
	bufpool_thread_flush(walk.pool);
}

static void return_two(void)
{
	bufpool_return_bulk(walk.two, 2);
}

static void wait_for_it(void)
{
	walk.buf = wait_in_time(walk.pool, 1);
}

/* What comes before the steps. */
static void take_from_cache(void)
{
	bufpool_return(bufpool_try_checkout(walk.pool, 1));
	take_it();
	must(walk.buf);
}

static void cache_all(void)
{
	bufpool_buf_t *bufs[2];

	bufpool_return_bulk(bufs, bufpool_checkout_bulk(walk.pool, 1, bufs, 2));
}

/* A put has not yet heard that nobody waits any more. */
static void take_two_and_wait_in_vain(void)
{
	const struct timespec no_time = {0, 0};

	must(bufpool_checkout_bulk(walk.pool, 1, walk.two, 2) == 2);
	must(!bufpool_checkout_wait(walk.pool, 1, &no_time));
}

static void nothing(void)
{
}

static const struct play {
	size_t count;          /* buffers of the pool */
	size_t left;           /* that are idle in the end */
	void (*before)(void);  /* by the main thread */
	void (*prepare)(void); /* by the walker */
	void (*act)(void);
	void (*end)(void); /* by the walker */
} plays[] = {
	/* Returns. */
	{1, 1, nothing, take_from_cache, return_it, nothing},
	{1, 1, nothing, take_from_cache, return_it_in_bulk, nothing},
	{1, 1, nothing, take_from_cache, freeze_and_unref_it, nothing},
	{2, 2, nothing, take_two_and_wait_in_vain, return_two, nothing},
	/* Moves of idle buffers: who looks meanwhile may find none. */
	{2, 1, nothing, nothing, take_it, return_it},
	{2, 1, cache_all, nothing, take_it, return_it},
	{2, 2, nothing, cache_all, flush_it, nothing},
	/* The other one. */
	{1, 1, nothing, nothing, wait_for_it, nothing},
};

enum { PLAYS = ARRAY_SIZE(plays) - 1 };

static void *walker(void *arg)
{
	const struct play *play = arg;

	play->prepare();
	walk.tid = (int) syscall(SYS_gettid);
	__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	play->act();
	__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	walk.done = true;
	/* Not its exit is to wake anybody. */
	while (!walk.leave)
		usleep(30);
	play->end();
	return NULL;
}

static pthread_t start_walker(const struct play *play, long stop)
{
	play->before();
	walk.steps = 0;
	walk.stop = stop;
	walk.tid = 0;
	walk.stopped = walk.go = walk.done = walk.leave = false;
	return start_thread(walker, (void *) play);
}

static void end_walker(pthread_t thread)
{
	while (!walk.done)
		usleep(30);
	walk.leave = true;
	join_thread(thread);
}

/* What it calls is called here first, so that the linker has no part in it. */
static void set_the_stage(const struct setting *setting,
                          const struct play *play)
{
	struct sigaction on = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, play->count);

	must(sigaction(SIGTRAP, &on, NULL) == 0);
	config.wipe = BUFPOOL_WIPE_NONE;
	walk.pool = setting_pool(setting, config);
	play->before();
	play->prepare();
	play->act();
	play->end();
	if (play->act != wait_for_it)
		bufpool_thread_flush(NULL);
}

/* Not each of all the steps, that takes too long; more where it matters. */
static long next_stop(long stop, long all, bool matters, uint64_t *seed)
{
	long stride = matters ? all / (is_scale("full") ? 100 : 30)
	                      : all / (is_scale("full") ? 20 : 8);

	return stop + 1 + (long) (draw(seed) % (uint64_t) (stride + 1));
}

/*
 * Wait while the walker stands still; sleeps: whether all had to sleep.  False
 * if it did not stand still.
 */
static bool sleep_beside(const struct play *play, long stop, bool *sleeps)
{
	pthread_t thread = start_walker(play, stop);
	struct waiter waiters[2];

	*sleeps = true;
	while (!walk.stopped && !walk.done)
		usleep(30);
	for (size_t i = 0; i < play->left; i++) {
		start_sleeper(&waiters[i], walk.pool, 0);
		*sleeps &= !waiters[i].back;
	}
	walk.go = true;
	for (size_t i = 0; i < play->left; i++) {
		join_thread(waiters[i].thread);
		must(waiters[i].buf && "woken");
		must(waiters[i].waited < PATIENCE / 2);
	}
	end_walker(thread);
	for (size_t i = 0; i < play->left; i++)
		bufpool_return(waiters[i].buf);
	bufpool_thread_flush(NULL);
	return walk.stopped;
}

/* The loop index is the play, then whether there is no membarrier. */
START_TEST(sleep_amid_a_move)
{
	const struct play *play = &plays[_i % PLAYS];
	uint64_t seed = (uintptr_t) &seed | 1;
	long stop = 0, all;
	bool sleeps;

	set_the_stage(&settings[_i / PLAYS * 3], play);
	ck_assert(!sleep_beside(play, LONG_MAX, &sleeps));
	all = walk.steps;
	while (sleep_beside(play, stop, &sleeps))
		stop = next_stop(stop, all, sleeps, &seed);
	ck_assert_int_gt(stop, 20);
	destroy_whole(walk.pool);
}
END_TEST

/* Return while the falling asleep stands still.  False once it sleeps. */
static bool return_beside(long stop, long *steps)
{
	pthread_t thread = start_walker(&plays[PLAYS], stop);
	int seen = 0;

	/* It sleeps when it stands, too: that does not count. */
	while (!walk.stopped && seen < 3) {
		usleep(20);
		seen = walk.tid && is_asleep(walk.tid) ? seen + 1 : 0;
	}
	*steps = walk.steps;
	bufpool_return(walk.buf);
	walk.go = true;
	end_walker(thread);
	return seen < 3;
}

enum { LAST_LOOK = 64 }; /* steps */

/* Here and there on the way, and everywhere in the last look before it. */
START_TEST(return_amid_a_sleep)
{
	uint64_t seed = (uintptr_t) &seed | 1;
	long stop, all, steps;

	set_the_stage(&settings[_i * 3], &plays[PLAYS]);
	/* The first one makes the cache that the others adopt, the next may find
	   the class plentiful, or scarce already: the shortest way counts. */
	all = LONG_MAX;
	for (int i = 0; i < 5; i++) {
		ck_assert(!return_beside(LONG_MAX, &steps));
		all = steps < all ? steps : all;
	}
	ck_assert_int_gt(all, LAST_LOOK);
	for (stop = 0; !is_small() && stop < all - LAST_LOOK;
	     stop = next_stop(stop, all, false, &seed))
		ck_assert(return_beside(stop, &steps));
	/* Nor is it of the same length each time: until all of the last look of
	   the one that was not stopped has been seen. */
	for (int i = 0; i < 10; i++) {
		for (stop = all - LAST_LOOK; return_beside(stop, &steps); stop++)
			;
		if (all - LAST_LOOK < steps - LAST_LOOK / 2)
			break;
		all = steps;
	}
	ck_assert_int_lt(all - LAST_LOOK, steps - LAST_LOOK / 2);
	bufpool_return(walk.buf);
	destroy_whole(walk.pool);
}
END_TEST

static void add_walks(Suite *suite)
{
	TCase *tcase = add_case(suite, "steps", 60);

	tcase_add_loop_test(tcase, return_amid_a_sleep, 0, is_small() ? 1 : 2);
	if (!is_small())
		tcase_add_loop_test(tcase, sleep_amid_a_move, 0, 2 * PLAYS);
}
#else
static void add_walks(Suite *suite)
{
	(void) suite;
}
#endif

/* --------------------------------------------------------- no system calls */

/* Every system call but the end and what assertions need is the end. */
static bool allow_no_system_calls(void)
{
	struct sock_filter filter[] = {
		LOAD_NUMBER,
		IF_CALL(SYS_write, SECCOMP_RET_ALLOW),
		IF_CALL(SYS_exit_group, SECCOMP_RET_ALLOW),
		/* Where there is no vDSO. */
		IF_CALL(SYS_clock_gettime, SECCOMP_RET_ALLOW),
		ELSE(SECCOMP_RET_KILL_PROCESS),
	};

	return install(filter, ARRAY_SIZE(filter));
}

static void use_much(bufpool_t *pool)
{
	const struct timespec timeout = {1, 0};

	for (int i = 0; i < 100000; i++) {
		bufpool_buf_t *bufs[4];

		bufpool_return(bufpool_checkout(pool, 1));
		if (i % 8)
			continue;
		bufs[0] = bufpool_checkout_wait(pool, 1, &timeout);
		bufs[1] = bufpool_checkout_wait(pool, 1, NULL);
		must(bufs[0] && bufs[1]);
		bufpool_frozen_unref(bufpool_freeze(bufs[0]));
		bufpool_return_bulk(bufs + 1, 1);
		must(bufpool_checkout_bulk(pool, 1, bufs, 4) == 4);
		bufpool_return_bulk(bufs, 4);
	}
}

/* Waiters come and go first, served and not: they leave no trace. */
static void *use_without_system_calls(void *arg)
{
	bufpool_t *pool = arg;
	const struct timespec moment = {0, 1000000};
	bufpool_buf_t *bufs[4];
	struct waiter waiter;

	must(bufpool_checkout_bulk(pool, 1, bufs, 4) == 4);
	for (int i = 0; i < 3; i++) {
		must(!bufpool_checkout_wait(pool, 1, &moment));
		start_sleeper(&waiter, pool, 1);
		bufpool_return(bufs[3]);
		bufs[3] = end_waiter(&waiter);
	}
	bufpool_return_bulk(bufs, 4);
	bufpool_return(bufpool_try_checkout(pool, 1));
	must(bufpool_checkout_bulk(pool, 1, bufs, 4) == 4);
	bufpool_return_bulk(bufs, 4);
	if (allow_no_system_calls())
		use_much(pool);
	_exit(0);
}

static void without_system_calls(void *arg)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 4);

	use_without_system_calls(setting_pool(arg, config));
}

START_TEST(no_waiter_no_system_call)
{
	char text[4096];
	int status = run_child(without_system_calls, (void *) &settings[_i],
	                       text, sizeof(text));

	ck_assert_msg(status == 0, "wait status %#x (%s): %s",
	              (unsigned) status,
	              WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit",
	              text);
}
END_TEST

static Suite *wait_suite(void)
{
	Suite *suite = suite_create("wait");
	TCase *tcase = add_case(suite, "contract", 20);

	tcase_add_loop_test(tcase, takes_what_is_there, 0, SETTINGS);
	tcase_add_loop_test(tcase, takes_from_other_caches, 0, SETTINGS);
	tcase_add_test(tcase, refusals);
	tcase = add_case(suite, "time", 20);
	tcase_add_loop_test(tcase, timeouts_are_exact, 0, 2);
	tcase_add_loop_test(tcase, very_long_timeouts, 0, 2);
	tcase_add_loop_test(tcase, signals_do_not_end_it, 0, 2);
	tcase_add_loop_test(tcase, other_classes_do_not_end_it, 0, 2);
	tcase = add_case(suite, "wake", 30);
	tcase_add_loop_test(tcase, woken_by_all_that_comes_home, 0, SETTINGS);
	tcase_add_loop_test(tcase, woken_when_blind, 0, ARRAY_SIZE(gives));
	tcase_add_loop_test(tcase, flush_and_exit_wake, 0, 2);
	tcase_add_loop_test(tcase, one_buffer_serves_all, 0, SETTINGS);
	tcase_add_loop_test(tcase, classes_do_not_mix, 0, SETTINGS);
	tcase = add_case(suite, "stress", 40);
	tcase_add_loop_test(tcase, the_impatient_lose_no_wake_up, 0, SETTINGS);
	tcase_add_loop_test(tcase, everybody_gets_on, 0, 2 * SETTINGS);
	tcase_add_loop_test(tcase, to_and_fro, 0, SETTINGS);
	tcase_add_loop_test(tcase, at_the_same_moment, 0, SETTINGS);
	tcase = add_case(suite, "starvation", 100);
	tcase_add_test(tcase, nobody_starves);
	add_walks(suite);
	/* Tools make system calls of their own. */
	if (!is_small()) {
		tcase = add_case(suite, "no system calls", 20);
		tcase_add_loop_test(tcase, no_waiter_no_system_call, 0,
		                    SETTINGS);
	}
	return suite;
}

int main(void)
{
	/* The long form is for CI: BUFPOOL_TEST_SCALE=full. */
	setenv("BUFPOOL_TEST_SCALE", "small", 0);
	return run_suite(wait_suite());
}
