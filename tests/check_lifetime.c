/* SPDX-License-Identifier: MIT */
/*
 * check_lifetime.c - threads and pools come and go in every order
 */
#include "common.h"

#include <limits.h>
#include <stdatomic.h>
#include <sys/stat.h>

/*
 * Addresses are looked at after their pool is gone; nothing else may have been
 * mapped there meanwhile, so nothing is allocated between destroy and look.
 */

/* ------------------------------------------------------------ thread exit */

/* How much of each class one use takes; the large ones cost time only. */
static const size_t use[BUFPOOL_CLASSES] = {3, 2, 1, 0};

enum { MOST_USE = 3 };

/* Leave some of it in this thread's cache. */
static void *use_and_exit(void *arg)
{
	bufpool_t *pool = arg;

	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		bufpool_buf_t *bufs[MOST_USE];
		size_t n = bufpool_checkout_bulk(pool, classes[i].size, bufs,
		                                 use[i]);

		must(n == use[i]);
		bufpool_return_bulk(bufs, n);
	}
	return NULL;
}

static void nothing_is_cached(const bufpool_t *pool)
{
	bufpool_stats_t stats = stats_of(pool);

	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		must(stats.per_class[i].cached == 0);
}

static const size_t depths[] = {BUFPOOL_CACHE_AUTO, SIZE_MAX - 1, 0};

/* Enough for so many users at once, one of whom holds two more. */
static bufpool_t *pool_for(size_t users, size_t depth)
{
	bufpool_config_t config = default_config;

	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		config.count[i] = users * use[i] + 2;
	config.exhausted = BUFPOOL_FAIL;
	set_cache(&config, depth);
	return make_pool(config);
}

START_TEST(exit_sends_home)
{
	bufpool_t *pool = pool_for(1, depths[_i]);

	for (int i = 0; i < 20; i++) {
		run_thread(use_and_exit, pool);
		nothing_is_cached(pool);
		must_be_whole(pool);
		bufpool_thread_flush(NULL);
	}
	bufpool_destroy(pool);
}
END_TEST

/* pthread_exit() from within, and nobody joins. */
static void *use_and_vanish(void *arg)
{
	use_and_exit(arg);
	pthread_exit(NULL);
}

static unsigned long threads_now(void)
{
	struct stat tasks;

	must(stat("/proc/self/task", &tasks) == 0);
	return tasks.st_nlink;
}

START_TEST(detached_exit_sends_home)
{
	unsigned long before = threads_now();
	bufpool_t *pool = pool_for(10, depths[_i]);

	for (int i = 0; i < 10; i++)
		must(pthread_detach(start_thread(use_and_vanish, pool)) == 0);
	while (threads_now() > before)
		usleep(1000);
	nothing_is_cached(pool);
	destroy_whole(pool);
}
END_TEST

START_TEST(cancelled_thread_sends_home)
{
	bufpool_t *pool = pool_for(1, depths[_i]);
	pthread_t thread = start_thread(use_and_exit, pool);

	/* Whether it comes too early, late, or never: nothing is lost. */
	pthread_cancel(thread);
	join_thread(thread);
	nothing_is_cached(pool);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------- thread-exit destructors */

/*
 * Two keys, of which one is older than anything that the library has made.
 * Their destructors use the pool in every round that there is.
 */
enum { BEFORE, AFTER, KEYS };

static struct {
	pthread_key_t keys[KEYS];
	bufpool_t *pool;
	atomic_int calls;
} leaving;

struct baggage {
	pthread_key_t key;
	bufpool_buf_t *held;
	int rounds;
};

static void use_in_destructor(void *arg)
{
	struct baggage *baggage = arg;

	leaving.calls++;
	if (baggage->held && baggage->rounds % 2)
		bufpool_frozen_unref(bufpool_freeze(baggage->held));
	else
		bufpool_return(baggage->held);
	baggage->held = NULL;
	use_and_exit(leaving.pool);
	/* No round follows the last one: hold nothing. */
	if (++baggage->rounds == PTHREAD_DESTRUCTOR_ITERATIONS)
		return;
	baggage->held = bufpool_checkout(leaving.pool, 1);
	must(baggage->held);
	must(pthread_setspecific(baggage->key, baggage) == 0);
}

static void make_key(int i)
{
	must(pthread_key_create(&leaving.keys[i], use_in_destructor) == 0);
}

/* use_first: not NULL if the pool is to be used before the destructors too. */
static void *leave_with_baggage(void *use_first)
{
	static _Thread_local struct baggage baggages[KEYS];

	for (int i = 0; i < KEYS; i++) {
		baggages[i].key = leaving.keys[i];
		if (use_first)
			baggages[i].held = bufpool_checkout(leaving.pool, 1);
		must(pthread_setspecific(leaving.keys[i], &baggages[i]) == 0);
	}
	return NULL;
}

START_TEST(destructors_use_the_pool)
{
	const int calls = KEYS * PTHREAD_DESTRUCTOR_ITERATIONS;
	void *const use_first[] = {NULL, &leaving};

	make_key(BEFORE);
	leaving.pool = pool_for(1, depths[_i]);
	use_and_exit(leaving.pool);
	bufpool_thread_flush(leaving.pool);
	make_key(AFTER);
	for (int i = 1; i <= 20; i++) {
		run_thread(leave_with_baggage, use_first[i % 2]);
		ck_assert_int_eq(leaving.calls, i * calls);
		nothing_is_cached(leaving.pool);
		must_be_whole(leaving.pool);
		bufpool_thread_flush(leaving.pool);
	}
	bufpool_destroy(leaving.pool);
}
END_TEST

/* Several at once, which go on stealing from one another as they leave. */
START_TEST(destructors_in_many_threads)
{
	pthread_t threads[8];

	make_key(BEFORE);
	/* Twice as many as can be out: some are on the move. */
	leaving.pool = pool_for(2 * ARRAY_SIZE(threads), depths[_i]);
	use_and_exit(leaving.pool);
	make_key(AFTER);
	for (long round = hunting(100); round > 0; round--) {
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
			threads[i] = start_thread(leave_with_baggage, &leaving);
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
			join_thread(threads[i]);
	}
	bufpool_thread_flush(leaving.pool);
	nothing_is_cached(leaving.pool);
	destroy_whole(leaving.pool);
}
END_TEST

/* ---------------------------------------------------------------- destroy */

/* One buffer of each class, to know where the pool's memory is. */
struct sample {
	bufpool_buf_t *bufs[BUFPOOL_CLASSES];
	const void *data[BUFPOOL_CLASSES];
};

static struct sample take_sample(bufpool_t *pool)
{
	struct sample sample;

	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		sample.bufs[i] = bufpool_try_checkout(pool, classes[i].size);
		must(sample.bufs[i]);
		sample.data[i] = sample.bufs[i]->data;
	}
	return sample;
}

static bool is_gone(const struct sample *sample)
{
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		if (is_mapped(sample->data[i]))
			return false;
	return true;
}

START_TEST(destroy_frees_at_once)
{
	bufpool_t *pool = pool_for(1, depths[_i]);
	struct sample sample = take_sample(pool);

	bufpool_return_bulk(sample.bufs, BUFPOOL_CLASSES);
	bufpool_destroy(pool);
	ck_assert(is_gone(&sample));
}
END_TEST

static void return_in_bulk(bufpool_buf_t *buf)
{
	bufpool_return_bulk(&buf, 1);
}

static void return_in_destructor(void *buf)
{
	bufpool_return(buf);
}

static pthread_key_t return_key;

static void *carry_out(void *buf)
{
	must(pthread_setspecific(return_key, buf) == 0);
	return NULL;
}

static void return_by_exit(bufpool_buf_t *buf)
{
	must(pthread_key_create(&return_key, return_in_destructor) == 0);
	run_thread(carry_out, buf);
	must(pthread_key_delete(return_key) == 0);
}

/* A thread that caches something of another pool. */
static void *use_other_and_return(void *buf)
{
	bufpool_t *other = pool_for(1, BUFPOOL_CACHE_AUTO);

	use_and_exit(other);
	bufpool_return(buf);
	use_and_exit(other);
	bufpool_destroy(other);
	return NULL;
}

static void return_beside_another(bufpool_buf_t *buf)
{
	run_thread(use_other_and_return, buf);
}

static void (*const returns[])(bufpool_buf_t *buf) = {
	return_here, return_in_bulk,        return_elsewhere,
	return_by_exit, return_beside_another,
};

/* The loop index is the way to return. */
START_TEST(destroy_waits_for_the_last)
{
	for (size_t depth = 0; depth < ARRAY_SIZE(depths); depth++) {
		bufpool_t *pool = pool_for(1, depths[depth]);
		struct sample sample = take_sample(pool);

		/* Something in this thread's cache as well. */
		use_and_exit(pool);
		for (int i = 0; i < BUFPOOL_CLASSES; i++)
			fill(sample.bufs[i], 0x40 + i);
		bufpool_destroy(pool);
		for (int i = 0; i < BUFPOOL_CLASSES; i++) {
			bufpool_buf_t *buf = sample.bufs[i];

			must(all_bytes(buf->data, buf->capacity, 0x40 + i));
			fill(buf, 0x80);
			must(buf->len == classes[i].size);
			returns[_i](buf);
		}
		ck_assert(is_gone(&sample));
	}
}
END_TEST

/* Not one buffer of each class, but all there are, in any order. */
START_TEST(destroy_with_all_out)
{
	enum { COUNT = 64 };
	bufpool_buf_t *bufs[COUNT];
	uint64_t seed = _i + 1;
	const void *data;

	for (int cached = 0; cached < COUNT; cached += 9) {
		bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, COUNT);
		size_t left = drain(pool, BUFPOOL_CLASS_4K, bufs, COUNT);

		data = bufs[0]->data;
		for (int i = 0; i < cached; i++)
			bufpool_return(bufs[--left]);
		bufpool_destroy(pool);
		while (left > 0) {
			size_t i = draw(&seed) % left;

			must(is_mapped(data));
			bufpool_return(bufs[i]);
			bufs[i] = bufs[--left];
		}
		ck_assert(!is_mapped(data));
	}
}
END_TEST

/* ----------------------------------------------------- heap and destroy */

START_TEST(heap_buffers_outlive_the_pool)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 1);
	const size_t sizes[] = {1, 1, 1, 70000, 300000, 1048576, 2000000};
	bufpool_buf_t *bufs[ARRAY_SIZE(sizes)];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		bufs[i] = bufpool_checkout(pool, sizes[i]);
		must(bufs[i]);
		fill(bufs[i], 1 + i);
	}
	ck_assert_uint_eq(stats_of(pool).misses, ARRAY_SIZE(sizes) - 1);
	bufpool_destroy(pool);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		must(all_bytes(bufs[i]->data, bufs[i]->capacity, 1 + i));
		must(bufs[i]->len == sizes[i]);
		fill(bufs[i], 0xaa);
		returns[(_i + i) % ARRAY_SIZE(returns)](bufs[i]);
	}
}
END_TEST

/* -------------------------------------------------- caches of live threads */

enum { SLEEPERS = 6, MANY = 32 };

static struct {
	pthread_barrier_t cached, wake;
	bufpool_t *pool, *other;
	void (*finish)(void);
} asleep;

static void *cache_and_sleep(void *arg)
{
	(void) arg;
	bufpool_return(bufpool_checkout(asleep.pool, 1));
	use_and_exit(asleep.pool);
	meet(&asleep.cached);
	meet(&asleep.wake);
	asleep.finish();
	return NULL;
}

static void just_exit(void)
{
}

static void flush_all(void)
{
	bufpool_thread_flush(NULL);
}

static void use_other(void)
{
	use_and_exit(asleep.other);
}

static void use_other_and_flush(void)
{
	use_and_exit(asleep.other);
	bufpool_thread_flush(NULL);
	use_and_exit(asleep.other);
}

static void (*const finishes[])(void) = {
	just_exit,
	flush_all,
	use_other,
	use_other_and_flush,
};

/* The loop index is what the sleepers do after the destroy. */
START_TEST(destroy_takes_caches_of_live_threads)
{
	pthread_t threads[SLEEPERS];
	struct sample sample;

	pthread_barrier_init(&asleep.cached, NULL, SLEEPERS + 1);
	pthread_barrier_init(&asleep.wake, NULL, SLEEPERS + 1);
	asleep.finish = finishes[_i];
	for (long round = scaled(20); round > 0; round--) {
		asleep.pool = pool_for(SLEEPERS + 2, BUFPOOL_CACHE_AUTO);
		for (int i = 0; i < SLEEPERS; i++)
			threads[i] = start_thread(cache_and_sleep, NULL);
		meet(&asleep.cached);
		sample = take_sample(asleep.pool);
		bufpool_return_bulk(sample.bufs, BUFPOOL_CLASSES);
		bufpool_destroy(asleep.pool);
		ck_assert(is_gone(&sample));
		/* Likely where the old one was. */
		asleep.other = pool_for(SLEEPERS + 2, BUFPOOL_CACHE_AUTO);
		meet(&asleep.wake);
		for (int i = 0; i < SLEEPERS; i++)
			join_thread(threads[i]);
		must_be_whole(asleep.other);
		bufpool_thread_flush(NULL);
		nothing_is_cached(asleep.other);
		bufpool_destroy(asleep.other);
	}
}
END_TEST

/* A thread with caches of many pools, of which every other one is gone. */
static void *cache_of_many(void *arg)
{
	bufpool_t **pools = arg;

	for (int i = 0; i < MANY; i++)
		use_and_exit(pools[i]);
	meet(&asleep.cached);
	meet(&asleep.wake);
	for (int i = 0; i < MANY; i += 4)
		use_and_exit(pools[i]);
	return NULL;
}

START_TEST(exit_with_many_pools)
{
	bufpool_t *pools[MANY];
	pthread_t threads[2];

	pthread_barrier_init(&asleep.cached, NULL, 3);
	pthread_barrier_init(&asleep.wake, NULL, 3);
	for (int i = 0; i < MANY; i++)
		pools[i] = pool_for(2, depths[_i]);
	for (int i = 0; i < 2; i++)
		threads[i] = start_thread(cache_of_many, pools);
	meet(&asleep.cached);
	for (int i = 1; i < MANY; i += 2)
		bufpool_destroy(pools[i]);
	meet(&asleep.wake);
	for (int i = 0; i < 2; i++)
		join_thread(threads[i]);
	for (int i = 0; i < MANY; i += 2) {
		nothing_is_cached(pools[i]);
		destroy_whole(pools[i]);
	}
}
END_TEST

/* ------------------------------------------------------------------ races */

enum { RACERS = 4, RACE_HELD = 6 };

static struct {
	pthread_barrier_t start, end;
	bufpool_t *pool;
	bufpool_buf_t *held[RACERS][RACE_HELD];
	long rounds;
} race;

/* Return what main has taken, while it destroys. */
static void *race_returns(void *arg)
{
	bufpool_buf_t **mine = arg;

	for (long i = 0; i < race.rounds; i++) {
		meet(&race.start);
		bufpool_return(mine[0]);
		bufpool_return_bulk(mine + 1, RACE_HELD - 1);
		meet(&race.end);
	}
	return NULL;
}

/* The same, but with buffers and a cache of its own. */
static void *race_own_returns(void *arg)
{
	bufpool_buf_t *mine[RACE_HELD];
	size_t n;

	(void) arg;
	for (long i = 0; i < race.rounds; i++) {
		meet(&race.start);
		bufpool_return(bufpool_checkout(race.pool, 1));
		n = bufpool_checkout_bulk(race.pool, 1, mine, RACE_HELD);
		must(n == RACE_HELD);
		meet(&race.end);
		bufpool_return_bulk(mine, n / 2);
		bufpool_return_bulk(mine + n / 2, n - n / 2);
		meet(&race.end);
	}
	return NULL;
}

static void set_up_race(long rounds)
{
	pthread_barrier_init(&race.start, NULL, RACERS + 1);
	pthread_barrier_init(&race.end, NULL, RACERS + 1);
	race.rounds = rounds;
}

static bufpool_t *race_pool(void)
{
	return class_pool(BUFPOOL_CLASS_4K, RACERS * RACE_HELD + RACERS);
}

START_TEST(destroy_races_with_returns)
{
	pthread_t threads[RACERS];

	set_up_race(hunting(2000));
	for (int i = 0; i < RACERS; i++)
		threads[i] = start_thread(race_returns, race.held[i]);
	for (long i = 0; i < race.rounds; i++) {
		const void *data;
		size_t n;

		race.pool = race_pool();
		n = bufpool_checkout_bulk(race.pool, 1, race.held[0],
		                          RACERS * RACE_HELD);
		must(n == RACERS * RACE_HELD);
		data = race.held[0][0]->data;
		meet(&race.start);
		bufpool_destroy(race.pool);
		meet(&race.end);
		must(!is_mapped(data));
	}
	for (int i = 0; i < RACERS; i++)
		join_thread(threads[i]);
}
END_TEST

START_TEST(destroy_races_with_cached_returns)
{
	pthread_t threads[RACERS];

	set_up_race(hunting(2000));
	for (int i = 0; i < RACERS; i++)
		threads[i] = start_thread(race_own_returns, NULL);
	for (long i = 0; i < race.rounds; i++) {
		const void *data;
		bufpool_buf_t *buf;

		race.pool = race_pool();
		buf = bufpool_checkout(race.pool, 1);
		data = buf->data;
		bufpool_return(buf);
		meet(&race.start);
		meet(&race.end);
		bufpool_destroy(race.pool);
		meet(&race.end);
		must(!is_mapped(data));
	}
	for (int i = 0; i < RACERS; i++)
		join_thread(threads[i]);
}
END_TEST

/* Threads that have used the pool exit while it is destroyed. */
static void *use_and_race_to_exit(void *arg)
{
	(void) arg;
	bufpool_return(bufpool_checkout(race.pool, 1));
	meet(&race.start);
	return NULL;
}

START_TEST(destroy_races_with_exits)
{
	pthread_t threads[RACERS];

	set_up_race(hunting(1000));
	for (long i = 0; i < race.rounds; i++) {
		bufpool_buf_t *buf;
		const void *data;

		race.pool = race_pool();
		buf = bufpool_checkout(race.pool, 1);
		data = buf->data;
		bufpool_return(buf);
		for (int t = 0; t < RACERS; t++)
			threads[t] = start_thread(use_and_race_to_exit, NULL);
		meet(&race.start);
		bufpool_destroy(race.pool);
		/* One that is exiting may have some in its hands. */
		for (int t = 0; t < RACERS; t++)
			join_thread(threads[t]);
		must(!is_mapped(data));
	}
}
END_TEST

/* -------------------------------------------------------------- no growth */

struct footprint {
	long mappings;
	long resident; /* pages */
};

static struct footprint footprint_now(void)
{
	struct footprint now = {0, 0};
	FILE *file = fopen("/proc/self/maps", "r");
	int c;

	must(file);
	while ((c = getc(file)) != EOF)
		now.mappings += c == '\n';
	fclose(file);
	file = fopen("/proc/self/statm", "r");
	must(file);
	must(fscanf(file, "%*d %ld", &now.resident) == 1);
	fclose(file);
	return now;
}

static void check_growth(void (*step)(void), long rounds)
{
	struct footprint before, after;

	for (long i = hunting(rounds) / 10; i >= 0; i--)
		step();
	before = footprint_now();
	for (long i = hunting(rounds); i > 0; i--)
		step();
	after = footprint_now();
	if (is_small()) /* the tools keep books of their own, and grow */
		return;
	ck_assert_int_le(after.mappings, before.mappings + 4);
	ck_assert_int_le(after.resident, before.resident + 200);
}

static void live_and_die(void)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 8);
	bufpool_buf_t *bufs[4];

	must(bufpool_checkout_bulk(pool, 1, bufs, 4) == 4);
	bufpool_return_bulk(bufs, 2);
	bufpool_destroy(pool);
	bufpool_return_bulk(bufs + 2, 2);
}

START_TEST(pools_leave_nothing_behind)
{
	check_growth(live_and_die, 10000);
}
END_TEST

static void spill_and_die(void)
{
	bufpool_t *pool = make_pool(empty_config());
	bufpool_buf_t *bufs[3];

	for (int i = 0; i < 3; i++)
		bufs[i] = bufpool_checkout(pool, i * 70000);
	bufpool_return(bufs[1]);
	bufpool_destroy(pool);
	return_elsewhere(bufs[2]);
	bufpool_return(bufs[0]);
}

START_TEST(heap_buffers_leave_nothing_behind)
{
	check_growth(spill_and_die, 1000);
}
END_TEST

static bufpool_t *lasting_pool;

static void visit(void)
{
	run_thread(use_and_exit, lasting_pool);
}

START_TEST(threads_leave_nothing_behind)
{
	lasting_pool = pool_for(1, BUFPOOL_CACHE_AUTO);
	check_growth(visit, 3000);
	destroy_whole(lasting_pool);
}
END_TEST

/* A thread that lives on has used every pool that was. */
static void *attend_all(void *arg)
{
	(void) arg;
	for (;;) {
		meet(&asleep.wake);
		if (!asleep.pool)
			return NULL;
		bufpool_return(bufpool_checkout(asleep.pool, 1));
		meet(&asleep.cached);
	}
}

static void live_attended(void)
{
	asleep.pool = class_pool(BUFPOOL_CLASS_4K, 8);
	meet(&asleep.wake);
	meet(&asleep.cached);
	bufpool_return(bufpool_checkout(asleep.pool, 1));
	bufpool_destroy(asleep.pool);
}

START_TEST(caches_leave_nothing_behind)
{
	pthread_t thread;

	pthread_barrier_init(&asleep.cached, NULL, 2);
	pthread_barrier_init(&asleep.wake, NULL, 2);
	thread = start_thread(attend_all, NULL);
	check_growth(live_attended, 5000);
	asleep.pool = NULL;
	meet(&asleep.wake);
	join_thread(thread);
}
END_TEST

/* --------------------------------------------------- pools across threads */

static void *create_and_use(void *arg)
{
	bufpool_t **pool = arg;

	*pool = pool_for(1, BUFPOOL_CACHE_AUTO);
	use_and_exit(*pool);
	return NULL;
}

static void *destroy_it(void *pool)
{
	bufpool_destroy(pool);
	return NULL;
}

/*
 * A thread with a cancel that waits for it to come to a cancellation point.  Each of
 * these is a call, or some, in which it comes to none; their callbacks do, if they
 * are to be.
 */
static FILE *null;

static void *attach_by_file(void *arg, const bufpool_region_t *region)
{
	fprintf(null, "%p %p", arg, region->base);
	fflush(null);
	pthread_testcancel();
	return NULL;
}

static void detach_by_file(void *arg, const bufpool_region_t *region,
                           void *cookie)
{
	(void) cookie;
	attach_by_file(arg, region);
}

static bufpool_config_t attached_config(void)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 2);

	config.region_attach = attach_by_file;
	config.region_detach = detach_by_file;
	return config;
}

/* hwloc reads many files, and so does who has much to ask for, or on which pages. */
static void create_and_destroy(void)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_1M, 20);

	config.numa_node = 0;
	config.flags = BUFPOOL_HUGEPAGES;
	bufpool_destroy(make_pool(config));
}

static void create_in_vain(void)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_1M,
	                                       BUFPOOL_MAX_COUNT);

	must(!bufpool_create(&config));
}

static void attach_and_detach(void)
{
	bufpool_destroy(make_pool(attached_config()));
}

static void detach_by_return(void)
{
	bufpool_t *pool = make_pool(attached_config());
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	bufpool_destroy(pool);
	bufpool_return(buf);
}

static void print_and_trim(void)
{
	bufpool_t *pool = pool_for(1, BUFPOOL_CACHE_AUTO);
	bufpool_region_t region;

	use_and_exit(pool);
	for (int format = 0; format <= BUFPOOL_PROMETHEUS; format++)
		must(bufpool_stats_print(pool, null,
		                         (enum bufpool_format) format) == 0);
	must(bufpool_trim(pool) > 0);
	must(bufpool_regions(pool, &region, 1) > 0);
	use_and_exit(pool);
	bufpool_destroy(pool);
}

static void wait_in_vain(void)
{
	const struct timespec moment = {0, 1000000};
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 1);
	bufpool_buf_t *buf = bufpool_checkout_wait(pool, 1, &moment);
	bufpool_event_t *event = bufpool_event_open(pool, 1);

	must(!bufpool_checkout_wait(pool, 1, &moment) && errno == ETIMEDOUT);
	must(bufpool_event_arm(event) == 0);
	bufpool_return(buf);
	must(bufpool_event_arm(event) == 1);
	bufpool_event_close(event);
	destroy_whole(pool);
}

static void (*const cancelled[])(void) = {
	create_and_destroy, create_in_vain, attach_and_detach,
	detach_by_return,   print_and_trim, wait_in_vain,
};

enum { CANCELLED = ARRAY_SIZE(cancelled) };

static bool is_through;

/* arg: of those. */
static void *call_cancelled(void *arg)
{
	must(pthread_cancel(pthread_self()) == 0);
	cancelled[*(const int *) arg]();
	is_through = true;
	pthread_testcancel();
	return NULL;
}

static long mapped_pages(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long pages;

	must(file && fscanf(file, "%ld", &pages) == 1);
	fclose(file);
	return pages;
}

/* It gets to the end, and the cancel to its point; nothing is left behind. */
START_TEST(no_cancellation_points)
{
	long pages = 0;

	null = fopen("/dev/null", "w");
	ck_assert_ptr_nonnull(null);
	for (int i = 0; i < 4; i++) {
		pthread_t thread = start_thread(call_cancelled, &_i);
		void *result;

		must(pthread_join(thread, &result) == 0);
		ck_assert(is_through && result == PTHREAD_CANCELED);
		is_through = false;
		if (i == 1)
			pages = mapped_pages();
	}
	/* Tools take memory for themselves. */
	if (!is_asan() && !is_small())
		ck_assert_int_eq(mapped_pages(), pages);
	fclose(null);
}
END_TEST

START_TEST(created_here_destroyed_there)
{
	for (int i = 0; i < 100; i++) {
		struct sample sample;
		bufpool_t *pool;

		run_thread(create_and_use, &pool);
		nothing_is_cached(pool);
		sample = take_sample(pool);
		use_and_exit(pool);
		bufpool_return_bulk(sample.bufs, BUFPOOL_CLASSES);
		run_thread(destroy_it, pool);
		ck_assert(is_gone(&sample));
	}
}
END_TEST

/* Caches of the old pool must not serve the new one at the same address. */
static void *meet_every_pool(void *arg)
{
	bufpool_buf_t *bufs[17];

	(void) arg;
	for (long i = 1; i <= race.rounds; i++) {
		size_t n, count = 1 + i % 16;

		meet(&race.start);
		n = drain(race.pool, BUFPOOL_CLASS_4K, bufs, count + 1);
		must(n == count);
		for (size_t k = 0; k < n; k++) {
			must(is_zero(bufs[k]));
			fill(bufs[k], 0xdd);
		}
		must(stats_of(race.pool).checked_out == n);
		bufpool_return_bulk(bufs, n);
		meet(&race.end);
	}
	return NULL;
}

START_TEST(stale_caches_serve_nobody)
{
	pthread_t thread;

	pthread_barrier_init(&race.start, NULL, 2);
	pthread_barrier_init(&race.end, NULL, 2);
	race.rounds = hunting(5000);
	thread = start_thread(meet_every_pool, NULL);
	for (long i = 1; i <= race.rounds; i++) {
		race.pool = class_pool(BUFPOOL_CLASS_4K, 1 + i % 16);
		meet(&race.start);
		meet(&race.end);
		destroy_whole(race.pool);
	}
	join_thread(thread);
}
END_TEST

/* An overrun of the first or last buffer meets no other memory. */
START_TEST(regions_have_guards)
{
	bufpool_t *pool = class_pool(_i, 4);
	bufpool_buf_t *bufs[5];
	char byte, *end;

	ck_assert_uint_eq(drain(pool, _i, bufs, 5), 4);
	ck_assert(are_disjoint(bufs, 4)); /* sorts them */
	end = (char *) bufs[3]->data + bufs[3]->capacity;
	ck_assert(peek(end - 1, &byte, 1));
	ck_assert(!peek(end, &byte, 1));
	ck_assert(!peek((char *) bufs[0]->data - 1, &byte, 1));
	bufpool_return_bulk(bufs, 4);
	bufpool_destroy(pool);
}
END_TEST

static Suite *lifetime_suite(void)
{
	const int n = ARRAY_SIZE(depths);
	Suite *suite = suite_create("lifetime");
	TCase *tcase = add_case(suite, "thread exit", 10);

	tcase_add_loop_test(tcase, exit_sends_home, 0, n);
	tcase_add_loop_test(tcase, detached_exit_sends_home, 0, n);
	tcase_add_loop_test(tcase, cancelled_thread_sends_home, 0, n);
	tcase_add_loop_test(tcase, destructors_use_the_pool, 0, n);
	tcase_add_loop_test(tcase, destructors_in_many_threads, 0, n);
	tcase_add_loop_test(tcase, exit_with_many_pools, 0, n);

	tcase = add_case(suite, "destroy", 10);
	tcase_add_loop_test(tcase, destroy_frees_at_once, 0, n);
	tcase_add_loop_test(tcase, destroy_waits_for_the_last, 0,
	                    ARRAY_SIZE(returns));
	tcase_add_loop_test(tcase, destroy_with_all_out, 0, 8);
	tcase_add_loop_test(tcase, heap_buffers_outlive_the_pool, 0,
	                    ARRAY_SIZE(returns));
	tcase_add_loop_test(tcase, destroy_takes_caches_of_live_threads, 0,
	                    ARRAY_SIZE(finishes));

	tcase = add_case(suite, "races", 30);
	tcase_add_test(tcase, destroy_races_with_returns);
	tcase_add_test(tcase, destroy_races_with_cached_returns);
	tcase_add_test(tcase, destroy_races_with_exits);

	tcase = add_case(suite, "growth", 30);
	tcase_add_test(tcase, pools_leave_nothing_behind);
	tcase_add_test(tcase, heap_buffers_leave_nothing_behind);
	tcase_add_test(tcase, threads_leave_nothing_behind);
	tcase_add_test(tcase, caches_leave_nothing_behind);

	tcase = add_case(suite, "across", 20);
	tcase_add_test(tcase, created_here_destroyed_there);
	tcase_add_loop_test(tcase, no_cancellation_points, 0, CANCELLED);
	tcase_add_test(tcase, stale_caches_serve_nobody);
	tcase = add_case(suite, "regions", 5);
	tcase_add_loop_test(tcase, regions_have_guards, 0, BUFPOOL_CLASSES);
	return suite;
}

int main(void)
{
	return run_suite(lifetime_suite());
}
