/* SPDX-License-Identifier: MIT */
/*
 * check_scarce.c - when there are hardly enough buffers, or none
 *
 * Exhaustion is exact: who is owed a buffer gets it.  It is cheap, however many
 * threads there are.  And what comes home then is for everybody.
 */
#include "common.h"

#include <limits.h>
#include <sched.h>
#include <time.h>

/* ---------------------------------------------------------------- the queue */

enum { QUEUE = 256 };

struct queue {
	pthread_mutex_t lock;
	bufpool_buf_t *bufs[QUEUE];
	size_t first, n;
};

static void queue_init(struct queue *q)
{
	must(pthread_mutex_init(&q->lock, NULL) == 0);
	q->first = q->n = 0;
}

static void put_in(struct queue *q, bufpool_buf_t *buf)
{
	pthread_mutex_lock(&q->lock);
	must(q->n < QUEUE);
	q->bufs[(q->first + q->n++) % QUEUE] = buf;
	pthread_mutex_unlock(&q->lock);
}

static bufpool_buf_t *take_out(struct queue *q)
{
	bufpool_buf_t *buf = NULL;

	pthread_mutex_lock(&q->lock);
	if (q->n > 0) {
		buf = q->bufs[q->first++ % QUEUE];
		q->n--;
	}
	pthread_mutex_unlock(&q->lock);
	return buf;
}

/* ---------------------------------------------------------------- exactness */

/*
 * There are as many permits as buffers.  Who takes a buffer has taken a permit
 * before, and gives it back when the buffer's return is over.  So who holds a
 * permit without a buffer is owed one: it is idle, or in the hands of a thread
 * that moves it from one place to another.  If such a thread has no CPU for long
 * a try may fail all the same, once in a while.
 */
enum { LONGEST = 50, TRADERS = 16, MOST_HELD = 64 };

struct trade {
	int takers, givers, both;
	size_t count;
	size_t cache;
};

static const struct trade trades[] = {
	{1, 1, 0, 7, BUFPOOL_CACHE_AUTO},
	{1, 1, 0, 32, BUFPOOL_CACHE_AUTO},
	{1, 1, 0, 256, SIZE_MAX - 1},
	{8, 8, 0, 7, BUFPOOL_CACHE_AUTO},
	{8, 8, 0, 32, SIZE_MAX - 1},
	{8, 8, 0, 256, BUFPOOL_CACHE_AUTO},
	{0, 0, 16, 7, SIZE_MAX - 1},
	{0, 0, 16, 32, BUFPOOL_CACHE_AUTO},
	{0, 0, 16, 256, BUFPOOL_CACHE_AUTO},
};

static struct {
	bufpool_t *pool;
	struct queue queue;
	atomic_long permits, left; /* left: checkouts to be done */
	atomic_long failures, longest;
	atomic_int taking;
} market;

static bool take_permit(void)
{
	long was = market.permits;

	while (was > 0)
		if (atomic_compare_exchange_weak(&market.permits, &was,
		                                 was - 1))
			return true;
	return false;
}

/* The caller has a permit. */
static bufpool_buf_t *take_owed(void)
{
	bufpool_buf_t *buf;
	long run = 0, most;

	errno = 0;
	while (!(buf = bufpool_try_checkout(market.pool, 1))) {
		must(errno == ENOBUFS);
		run++;
		market.failures++;
		most = market.longest;
		while (run > most &&
		       !atomic_compare_exchange_weak(&market.longest, &most,
		                                     run))
			;
		must(run <= LONGEST);
	}
	return buf;
}

static void give(bufpool_buf_t *buf)
{
	bufpool_return(buf);
	market.permits++;
}

static void *taker(void *arg)
{
	while (market.left > 0) {
		if (take_permit()) {
			put_in(&market.queue, take_owed());
			market.left--;
		} else {
			sched_yield();
		}
	}
	market.taking--;
	return arg;
}

static void *giver(void *arg)
{
	for (;;) {
		bool last = market.taking == 0;
		bufpool_buf_t *buf = take_out(&market.queue);

		if (buf)
			give(buf);
		else if (last)
			return arg;
		else
			sched_yield();
	}
}

static void give_any(bufpool_buf_t **bufs, size_t *n, uint64_t *seed)
{
	size_t i = draw(seed) % *n;

	give(bufs[i]);
	bufs[i] = bufs[--*n];
}

/* Takes as long as it may.  It yields now and then, or few threads would meet. */
static void *taker_and_giver(void *arg)
{
	uint64_t seed = (uintptr_t) arg * 2654435761u + 1;
	bufpool_buf_t *bufs[MOST_HELD];
	size_t n = 0;

	while (market.left > 0) {
		size_t keep = draw(&seed) % 64 ? n : 0;

		if (n < MOST_HELD && take_permit()) {
			bufs[n++] = take_owed();
			market.left--;
		} else if (n > 0) {
			keep = keep > 0 ? n - 1 : 0;
			while (n > keep)
				give_any(bufs, &n, &seed);
		} else {
			sched_yield();
		}
		if (draw(&seed) % 16 == 0)
			sched_yield();
	}
	while (n > 0)
		give_any(bufs, &n, &seed);
	return NULL;
}

static size_t start_traders(pthread_t *threads, size_t at, thread_fn *fn, int n)
{
	for (int i = 0; i < n; i++)
		threads[at + (size_t) i] =
			start_thread(fn, (void *) (uintptr_t) (i + 1));
	return at + (size_t) n;
}

/* How many of them fail at most. */
static long tolerated(long checkouts)
{
	const long million = 1000000;

	return (checkouts + million - 1) / million;
}

static void set_up_market(const struct trade *trade, long checkouts)
{
	bufpool_config_t config =
		class_config(BUFPOOL_CLASS_4K, trade->count);

	set_cache(&config, trade->cache);
	config.wipe = BUFPOOL_WIPE_NONE;
	market.pool = make_pool(config);
	queue_init(&market.queue);
	market.permits = (long) trade->count;
	market.left = checkouts;
	market.failures = market.longest = 0;
	market.taking = trade->takers;
}

static void run_market(const struct trade *trade, long checkouts)
{
	pthread_t threads[TRADERS];
	size_t n;

	set_up_market(trade, checkouts);
	n = start_traders(threads, 0, taker, trade->takers);
	n = start_traders(threads, n, giver, trade->givers);
	n = start_traders(threads, n, taker_and_giver, trade->both);
	while (n > 0)
		join_thread(threads[--n]);
	ck_assert_int_eq(market.permits, trade->count);
	destroy_whole(market.pool);
}

START_TEST(exactness)
{
	long checkouts = hunting(3000000);

	run_market(&trades[_i], checkouts);
	ck_assert_int_le(market.failures, tolerated(checkouts));
}
END_TEST

/* ---------------------------------------------------------------- its cost */

/* Threads that each have a cache of the pool, and sleep, or are gone. */
static struct {
	bufpool_t *pool;
	bool use; /* something was in it */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int asleep;
	bool over;
	pthread_t *threads;
	int n;
} crowd;

static void *stand_by(void *arg)
{
	bufpool_buf_t *buf = bufpool_try_checkout(crowd.pool, 1);

	must(!buf == !crowd.use);
	bufpool_return(buf);
	pthread_mutex_lock(&crowd.lock);
	crowd.asleep++;
	pthread_cond_broadcast(&crowd.changed);
	while (!crowd.over)
		pthread_cond_wait(&crowd.changed, &crowd.lock);
	pthread_mutex_unlock(&crowd.lock);
	return arg;
}

/* As many as there can be: machines have limits. */
static void gather_crowd(bufpool_t *pool, int n, bool use)
{
	pthread_attr_t attr;

	must(pthread_attr_init(&attr) == 0);
	must(pthread_attr_setstacksize(&attr, 128 * 1024) == 0);
	must(pthread_mutex_init(&crowd.lock, NULL) == 0);
	must(pthread_cond_init(&crowd.changed, NULL) == 0);
	crowd.pool = pool;
	crowd.use = use;
	crowd.threads = calloc((size_t) n, sizeof(crowd.threads[0]));
	must(crowd.threads);
	while (crowd.n < n && pthread_create(&crowd.threads[crowd.n], &attr,
	                                     stand_by, NULL) == 0)
		crowd.n++;
	must(crowd.n > 100);
	pthread_mutex_lock(&crowd.lock);
	while (crowd.asleep < crowd.n)
		pthread_cond_wait(&crowd.changed, &crowd.lock);
	pthread_mutex_unlock(&crowd.lock);
}

static void dissolve_crowd(void)
{
	pthread_mutex_lock(&crowd.lock);
	crowd.over = true;
	pthread_cond_broadcast(&crowd.changed);
	pthread_mutex_unlock(&crowd.lock);
	while (crowd.n > 0)
		join_thread(crowd.threads[--crowd.n]);
	free(crowd.threads);
}

static int crowd_size(int full, int usual)
{
	return is_scale("full") ? full : is_small() ? 150 : usual;
}

static double thread_seconds(void)
{
	struct timespec t;

	must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static void failing_try(bufpool_t *pool)
{
	must(!bufpool_try_checkout(pool, 1));
}

static void heap_checkout(bufpool_t *pool)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	must(buf);
	bufpool_return(buf);
}

/* Microseconds of CPU that a call takes: in the best of many batches, as what
   disturbs the others is not its own. */
static double cost_of(void (*call)(bufpool_t *pool), bufpool_t *pool)
{
	double best = 1;

	for (int batch = 0; batch < 200; batch++) {
		double start = thread_seconds();

		for (int i = 0; i < 20; i++)
			call(pool);
		start = (thread_seconds() - start) / 20;
		best = start < best ? start : best;
	}
	return best * 1e6;
}

#define MORE 2.0 /* microseconds */

static void check_cost(void (*call)(bufpool_t *pool), int threads, bool use)
{
	size_t count = use ? 64 * (size_t) threads : 8;
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, count);
	bufpool_buf_t **bufs = calloc(count + 1, sizeof(bufs[0]));
	double alone, beside_sleepers, beside_none;
	size_t n = 0;
	bufpool_t *pool;

	must(bufs);
	set_cache(&config, 2);
	config.wipe = BUFPOOL_WIPE_NONE;
	pool = class_pool(BUFPOOL_CLASS_4K, 1);
	bufs[0] = bufpool_checkout(pool, 1);
	alone = cost_of(call, pool);
	bufpool_return(bufs[0]);
	destroy_whole(pool);

	pool = make_pool(config);
	if (!use)
		n = drain(pool, BUFPOOL_CLASS_4K, bufs, count + 1);
	gather_crowd(pool, threads, use);
	if (use)
		n = drain(pool, BUFPOOL_CLASS_4K, bufs, count + 1);
	ck_assert_uint_eq(n, count);
	beside_sleepers = cost_of(call, pool);
	dissolve_crowd();
	beside_none = cost_of(call, pool);
	ck_assert_msg(beside_sleepers <= alone + MORE,
	              "%.2f us beside sleepers, %.2f alone", beside_sleepers,
	              alone);
	ck_assert_msg(beside_none <= alone + MORE,
	              "%.2f us beside those that are gone, %.2f alone",
	              beside_none, alone);
	bufpool_return_bulk(bufs, n);
	free(bufs);
	destroy_whole(pool);
}

/* The loop index says whether the caches held something. */
START_TEST(failing_tries_are_cheap)
{
	check_cost(failing_try, crowd_size(4000, 500), _i);
}
END_TEST

START_TEST(the_heap_is_as_near)
{
	check_cost(heap_checkout, crowd_size(3000, 500), _i);
}
END_TEST

/* ------------------------------------------------------ what comes home then */

enum { HUNDRED = 100 };

static void *try_thread(void *pool)
{
	return bufpool_try_checkout(pool, 1);
}

static bufpool_buf_t *try_elsewhere(bufpool_t *pool)
{
	pthread_t thread = start_thread(try_thread, pool);
	void *buf;

	must(pthread_join(thread, &buf) == 0);
	return buf;
}

/* Takes and returns until the class is cached again: how many. */
static long takes_until_cached(bufpool_t *pool)
{
	long n = 0;

	while (cached_in(pool) == 0) {
		bufpool_buf_t *buf = bufpool_try_checkout(pool, 1);

		must(buf);
		bufpool_return(buf);
		must(++n < 100000);
	}
	return n;
}

START_TEST(returns_are_for_everybody)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, HUNDRED);
	bufpool_buf_t *bufs[HUNDRED + 1], *buf;
	bufpool_class_stats_t before, after;
	long takes;

	for (int round = 0; round < 3; round++) {
		ck_assert_uint_eq(drain(pool, BUFPOOL_CLASS_4K, bufs,
		                        HUNDRED + 1),
		                  HUNDRED);
		for (int i = 0; i < HUNDRED; i++) {
			before = stats_of(pool).per_class[BUFPOOL_CLASS_4K];
			bufpool_return(bufs[i]);
			ck_assert_uint_eq(cached_in(pool), 0);
			ck_assert(!!(buf = try_elsewhere(pool)));
			ck_assert(!try_elsewhere(pool));
			after = stats_of(pool).per_class[BUFPOOL_CLASS_4K];
			ck_assert_uint_eq(after.depot_hits,
			                  before.depot_hits + 1);
			ck_assert_uint_eq(after.stolen, before.stolen);
			bufs[i] = buf;
		}
		bufpool_return_bulk(bufs, HUNDRED);
		ck_assert_uint_eq(cached_in(pool), 0);
		takes = takes_until_cached(pool);
		ck_assert_int_ge(takes, 64);
		ck_assert_int_le(takes, 16384 + 1);
		bufpool_thread_flush(pool);
	}
	destroy_whole(pool);
}
END_TEST

/* ---------------------------------------------------------------- hand-over */

/*
 * One thread takes and passes on, others return, and there are few.  When that has
 * gone on for a while hardly any is taken from a cache.
 */
static struct {
	bufpool_t *pool;
	struct queue queue;
	bool waits; /* who takes sleeps for it */
	atomic_bool over;
} hand;

static void *return_what_comes(void *arg)
{
	for (;;) {
		bool over = hand.over;
		bufpool_buf_t *buf = take_out(&hand.queue);

		bufpool_return(buf);
		if (!buf && over)
			return arg;
		if (!buf)
			sched_yield();
	}
}

static void pass_on(long n)
{
	while (n-- > 0) {
		bufpool_buf_t *buf = NULL;

		if (hand.waits)
			buf = bufpool_checkout_wait(hand.pool, 50000, NULL);
		else
			while (!(buf = bufpool_try_checkout(hand.pool, 50000)))
				sched_yield();
		must(buf);
		put_in(&hand.queue, buf);
	}
}

START_TEST(hand_over)
{
	const int returners = 1 << _i % 3;
	long n = hunting(120000), hits;
	bufpool_class_stats_t before, after;
	pthread_t threads[4];

	hand.waits = _i >= 3;
	queue_init(&hand.queue);
	hand.pool = class_pool(BUFPOOL_CLASS_64K, 8);
	for (int i = 0; i < returners; i++)
		threads[i] = start_thread(return_what_comes, NULL);
	pass_on(1000);
	before = stats_of(hand.pool).per_class[BUFPOOL_CLASS_64K];
	pass_on(n);
	after = stats_of(hand.pool).per_class[BUFPOOL_CLASS_64K];
	hand.over = true;
	for (int i = 0; i < returners; i++)
		join_thread(threads[i]);
	hits = (long) (after.cache_hits + after.depot_hits + after.stolen -
	               before.cache_hits - before.depot_hits - before.stolen);
	ck_assert_int_eq(hits, n);
	ck_assert_int_le((long) (after.stolen - before.stolen), n * 2 / 100);
	destroy_whole(hand.pool);
}
END_TEST

/* ------------------------------------------------------------ out of reach */

/*
 * All are in the cache of a thread that sleeps, and a worker has itself refused
 * membarrier().  Without it, it cannot have them; it is told so, and nobody else.
 */
static struct {
	bufpool_t *pool;
	pthread_barrier_t asleep, again, cached;
} reach;

enum { OUT_OF_REACH = 8 };

static void *cache_all_and_sleep(void *arg)
{
	bufpool_buf_t *bufs[OUT_OF_REACH];
	const size_t n = ARRAY_SIZE(bufs);

	must(bufpool_checkout_bulk(reach.pool, 1, bufs, n) == n);
	bufpool_return_bulk(bufs, n);
	meet(&reach.asleep);
	meet(&reach.again);
	/* One is enough to see what is wanted. */
	bufpool_return(bufpool_checkout(reach.pool, 1));
	meet(&reach.cached);
	return arg;
}

/* Of the class, and of the heap, which may be too small for one. */
static void must_be_told(void)
{
	const struct timespec moment = {0, 1000000};
	bufpool_event_t *event = bufpool_event_open(reach.pool, 1);
	bufpool_buf_t *buf;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		errno = 0;
		must(!ways[i].take(reach.pool, 1) && errno == EPERM);
	}
	errno = 0;
	must(!bufpool_checkout_4k(reach.pool) && errno == EPERM);
	errno = 0;
	must(!bufpool_checkout_wait(reach.pool, 1, &moment) && errno == EPERM);
	errno = 0;
	must(event && bufpool_event_arm(event) == -1 && errno == EPERM);
	bufpool_event_close(event);
	/* The other classes have nothing to hide. */
	buf = bufpool_try_checkout(reach.pool, 65536);
	must(buf);
	errno = 0;
	must(!bufpool_try_checkout(reach.pool, 65536) && errno == ENOBUFS);
	bufpool_return(buf);
}

static void *work_in_a_sandbox(void *arg)
{
	bufpool_buf_t *bufs[OUT_OF_REACH + 1];

	refuse_membarrier();
	if (syscall(SYS_membarrier, 0, 0, 0) >= 0)
		return arg; /* no seccomp */
	must(stats_of(reach.pool).per_class[BUFPOOL_CLASS_4K].idle ==
	     OUT_OF_REACH);
	must_be_told();
	/* Until their owner comes by. */
	meet(&reach.again);
	meet(&reach.cached);
	must(drain(reach.pool, BUFPOOL_CLASS_4K, bufs, OUT_OF_REACH + 1) ==
	     OUT_OF_REACH);
	bufpool_return_bulk(bufs, OUT_OF_REACH);
	return NULL;
}

/* The loop index says whether there is a heap, which is too small. */
START_TEST(refused_later)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, OUT_OF_REACH);
	pthread_t owner, worker;
	void *skipped;

	config.count[BUFPOOL_CLASS_64K] = 1;
	set_cache(&config, OUT_OF_REACH);
	config.exhausted = _i ? BUFPOOL_HEAP : BUFPOOL_FAIL;
	config.heap_limit = 1;
	reach.pool = make_pool(config);
	must(!pthread_barrier_init(&reach.asleep, NULL, 2));
	must(!pthread_barrier_init(&reach.again, NULL, 2));
	must(!pthread_barrier_init(&reach.cached, NULL, 2));
	owner = start_thread(cache_all_and_sleep, NULL);
	meet(&reach.asleep);
	worker = start_thread(work_in_a_sandbox, &reach);
	must(pthread_join(worker, &skipped) == 0);
	if (skipped) {
		meet(&reach.again);
		meet(&reach.cached);
	}
	join_thread(owner);
	destroy_whole(reach.pool);
}
END_TEST

/* What one thread may not do, others may. */
static void *fail_in_a_sandbox(void *arg)
{
	refuse_membarrier();
	if (syscall(SYS_membarrier, 0, 0, 0) >= 0)
		return NULL;
	errno = 0;
	must(!bufpool_try_checkout(arg, 1) && errno == EPERM);
	return NULL;
}

START_TEST(refused_to_one)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);
	bufpool_buf_t *bufs[5];
	struct sleeper s;

	put_to_sleep(&s, pool, 1);
	must(bufpool_checkout_bulk(pool, 1, bufs, 3) == 3);
	run_thread(fail_in_a_sandbox, pool);
	ck_assert_uint_eq(drain(pool, BUFPOOL_CLASS_4K, bufs + 3, 2), 1);
	bufpool_return_bulk(bufs, 4);
	wake_up(&s);
	destroy_whole(pool);
}
END_TEST

static Suite *scarce_suite(void)
{
	Suite *suite = suite_create("scarce");
	TCase *tcase = add_case(suite, "exactness", 120);

	tcase_add_loop_test(tcase, exactness, 0, ARRAY_SIZE(trades));
	tcase = add_case(suite, "cost", 60);
	tcase_add_loop_test(tcase, failing_tries_are_cheap, 0, 2);
	tcase_add_loop_test(tcase, the_heap_is_as_near, 0, 2);
	tcase = add_case(suite, "returns", 20);
	if (!is_hardened()) {
		tcase_add_test(tcase, returns_are_for_everybody);
		tcase_add_loop_test(tcase, refused_later, 0, 2);
		tcase_add_test(tcase, refused_to_one);
	}
	tcase = add_case(suite, "hand-over", 60);
	tcase_add_loop_test(tcase, hand_over, 0, 6);
	return suite;
}

int main(void)
{
	return run_suite(scarce_suite());
}
