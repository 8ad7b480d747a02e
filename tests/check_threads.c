/* SPDX-License-Identifier: MIT */
/*
 * check_threads.c - one owner, none lost, none stranded, nobody waits
 *
 * Every owner stamps its buffers at several places and finds its stamps again
 * before it gives them up: a second owner would have left others.  At the end
 * the counts of all threads must agree with the statistics, and all buffers
 * must be there.
 */
#include "common.h"

#include <signal.h>
#include <stdatomic.h>

/* ---------------------------------------------------------------- stamps */

enum { STAMPS = 5 };

static uint64_t *stamp_at(const bufpool_buf_t *buf, size_t i)
{
	size_t last = buf->capacity - sizeof(uint64_t);
	size_t offset = last * i / (STAMPS - 1) & ~(size_t) 7;

	return (uint64_t *) ((char *) buf->data + offset);
}

static void stamp(const bufpool_buf_t *buf, uint64_t value)
{
	for (size_t i = 0; i < STAMPS; i++)
		*stamp_at(buf, i) = value + i;
}

static bool is_stamped(const bufpool_buf_t *buf, uint64_t value)
{
	for (size_t i = 0; i < STAMPS; i++)
		if (*stamp_at(buf, i) != value + i)
			return false;
	return true;
}

static bool is_blank(const bufpool_buf_t *buf)
{
	for (size_t i = 0; i < STAMPS; i++)
		if (*stamp_at(buf, i) != 0)
			return false;
	return true;
}

/* ---------------------------------------------------------------- a brawl */

struct owned {
	bufpool_buf_t *buf;
	uint64_t stamp;
};

enum { THREADS = 8, HELD = 12, SHELVES = 32, BULK = 6 };

struct rules {
	size_t count[BUFPOOL_CLASSES];
	size_t cache;
	enum bufpool_exhausted exhausted;
	enum bufpool_wipe wipe;
	size_t heap_limit;
	long operations; /* of each thread */
	size_t held;     /* most buffers a thread holds, up to HELD */
};

struct brawl {
	const struct rules *rules;
	bufpool_t *pool;
	pthread_mutex_t lock;
	struct owned shelves[SHELVES]; /* where buffers change hands */
	atomic_ulong served;           /* checkouts that gave a buffer */
	atomic_bool over;
};

struct fighter {
	struct brawl *brawl;
	uint64_t seed;
	uint64_t next_stamp;
	unsigned long served;
	struct owned held[HELD];
};

static void take_over(struct fighter *me, struct owned *slot,
                      bufpool_buf_t *buf)
{
	must(buf->len <= buf->capacity);
	must(me->brawl->rules->wipe == BUFPOOL_WIPE_NONE || is_blank(buf));
	buf->len = buf->capacity;
	slot->buf = buf;
	slot->stamp = me->next_stamp;
	stamp(buf, slot->stamp);
	me->next_stamp += STAMPS;
	me->served++;
}

/* Mostly small, lest the test measure how fast memory is. */
static size_t some_size(struct fighter *me)
{
	uint64_t chance = draw(&me->seed) % 4096;

	if (chance == 0)
		return 1000000;
	if (chance < 12)
		return 200000;
	if (chance < 64)
		return 50000;
	return chance % (PAGE + 1);
}

static void take_one(struct fighter *me, struct owned *slot)
{
	bufpool_t *pool = me->brawl->pool;
	bufpool_buf_t *buf;

	errno = 0;
	if (draw(&me->seed) % 4 == 0)
		buf = bufpool_checkout_4k(pool);
	else
		buf = ways[draw(&me->seed) % ARRAY_SIZE(ways)].take(
			pool, some_size(me));
	if (buf)
		take_over(me, slot, buf);
	else
		must(errno == ENOBUFS);
}

static void give_one(struct owned *slot)
{
	must(is_stamped(slot->buf, slot->stamp));
	bufpool_return(slot->buf);
	slot->buf = NULL;
}

static void take_bulk_of_small(struct fighter *me)
{
	bufpool_buf_t *bufs[BULK];
	struct owned slots[BULK];
	size_t n;

	errno = 0;
	n = bufpool_checkout_bulk(me->brawl->pool, 100, bufs, BULK);
	must(n == BULK || errno == ENOBUFS);
	for (size_t i = 0; i < n; i++)
		take_over(me, &slots[i], bufs[i]);
	for (size_t i = 0; i < n; i++)
		must(is_stamped(bufs[i], slots[i].stamp));
	bufpool_return_bulk(bufs, n);
}

/* What lies on a shelf, if anything, was stamped by whoever put it there. */
static void swap_on_shelf(struct fighter *me, struct owned *slot)
{
	struct brawl *brawl = me->brawl;
	struct owned *shelf = &brawl->shelves[draw(&me->seed) % SHELVES], mine;

	pthread_mutex_lock(&brawl->lock);
	mine = *slot;
	*slot = *shelf;
	*shelf = mine;
	pthread_mutex_unlock(&brawl->lock);
	if (slot->buf)
		must(is_stamped(slot->buf, slot->stamp));
}

static void one_operation(struct fighter *me)
{
	struct owned *slot = &me->held[draw(&me->seed) % me->brawl->rules->held];
	uint64_t chance = draw(&me->seed) % 1024;

	if (chance == 0)
		bufpool_thread_flush(draw(&me->seed) % 2 ? me->brawl->pool
		                                         : NULL);
	else if (chance < 32)
		swap_on_shelf(me, slot);
	else if (chance < 36)
		take_bulk_of_small(me);
	else if (slot->buf)
		give_one(slot);
	else
		take_one(me, slot);
}

static void *fight(void *arg)
{
	struct fighter *me = arg;

	for (long i = hunting(me->brawl->rules->operations); i > 0; i--)
		one_operation(me);
	for (size_t i = 0; i < HELD; i++)
		if (me->held[i].buf)
			give_one(&me->held[i]);
	me->brawl->served += me->served;
	return NULL;
}

/* The limit holds at any time, not only in the end. */
static void *watch_heap(void *arg)
{
	struct brawl *brawl = arg;
	size_t limit = brawl->rules->heap_limit;

	while (!brawl->over) {
		uint64_t bytes = stats_of(brawl->pool).heap_bytes;

		must(!limit || bytes <= limit);
		usleep(200);
	}
	return NULL;
}

static void start_brawl(struct brawl *brawl)
{
	const struct rules *rules = brawl->rules;
	bufpool_config_t config = default_config;

	memcpy(config.count, rules->count, sizeof(config.count));
	set_cache(&config, rules->cache);
	config.exhausted = rules->exhausted;
	config.wipe = rules->wipe;
	config.heap_limit = rules->heap_limit;
	brawl->pool = make_pool(config);
	must(pthread_mutex_init(&brawl->lock, NULL) == 0);
}

static void end_brawl(struct brawl *brawl)
{
	bufpool_stats_t stats;

	for (size_t i = 0; i < SHELVES; i++)
		if (brawl->shelves[i].buf)
			give_one(&brawl->shelves[i]);
	stats = stats_of(brawl->pool);
	ck_assert_uint_eq(stats.hits + stats.misses, brawl->served);
	bufpool_thread_flush(brawl->pool);
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		ck_assert_uint_eq(stats_of(brawl->pool).per_class[i].cached, 0);
	destroy_whole(brawl->pool);
}

static void run_brawl(struct brawl *brawl)
{
	static struct fighter fighters[THREADS];
	pthread_t threads[THREADS], watch;

	start_brawl(brawl);
	watch = start_thread(watch_heap, brawl);
	for (size_t i = 0; i < THREADS; i++) {
		fighters[i] = (struct fighter) {
			.brawl = brawl,
			.seed = i + 1,
			.next_stamp = (i + 1) << 56,
		};
		threads[i] = start_thread(fight, &fighters[i]);
	}
	for (size_t i = 0; i < THREADS; i++)
		join_thread(threads[i]);
	brawl->over = true;
	join_thread(watch);
	end_brawl(brawl);
}

#define AUTO BUFPOOL_CACHE_AUTO
#define HUGE (SIZE_MAX - 1)
#define HEAP BUFPOOL_HEAP
#define FAIL BUFPOOL_FAIL
#define ALL BUFPOOL_WIPE_ALL
#define USED BUFPOOL_WIPE_USED
#define NONE BUFPOOL_WIPE_NONE

/* clang-format off */
static const struct rules rules[] = {
	/* Everything by default, and 8 million operations. */
	{{64, 16, 8, 4}, AUTO, HEAP, ALL, 0, 1000000, HELD},
	{{64, 16, 8, 4}, 0, HEAP, ALL, 0, 200000, HELD},
	{{64, 16, 8, 4}, HUGE, FAIL, ALL, 0, 200000, HELD},
	/* Plenty, and just as many as can be held at once. */
	{{1000, 100, 30, 10}, HUGE, FAIL, NONE, 0, 200000, HELD},
	{{120, 80, 80, 80}, 2, FAIL, NONE, 0, 200000, 5},
	/* One buffer, then the heap or nothing. */
	{{1, 1, 1, 1}, AUTO, HEAP, ALL, 0, 30000, 2},
	{{1, 1, 1, 1}, AUTO, FAIL, ALL, 0, 100000, 2},
	{{1, 1, 1, 1}, HUGE, FAIL, NONE, 0, 100000, 1},
	{{1, 1, 1, 1}, 0, FAIL, ALL, 0, 100000, 2},
	/* Little heap, with a small pool and without. */
	{{4, 1, 1, 0}, AUTO, HEAP, USED, 10 * 4096 + 65536, 100000, HELD},
	{{0, 0, 0, 0}, AUTO, HEAP, ALL, 10 * 4096, 30000, 4},
};
/* clang-format on */

START_TEST(brawls)
{
	struct brawl brawl = {.rules = &rules[_i]};

	run_brawl(&brawl);
}
END_TEST

/* --------------------------------------------------------------- stranded */

enum { HOARDERS = 15, HOARD = 64 };

struct hoard {
	bufpool_t *pool;
	pthread_barrier_t taken, given, end;
	int size_class;
	size_t each;
};

/* Give back all at once, so that it stays in the cache, and go to sleep. */
static void *hoard(void *arg)
{
	struct hoard *hoard = arg;
	bufpool_buf_t *bufs[HOARD];
	size_t n;

	n = bufpool_checkout_bulk(hoard->pool, classes[hoard->size_class].size,
	                          bufs, hoard->each);
	meet(&hoard->taken);
	bufpool_return_bulk(bufs, n);
	meet(&hoard->given);
	meet(&hoard->end);
	return NULL;
}

static void take_all(struct hoard *hoard, size_t count, int how)
{
	size_t size = classes[hoard->size_class].size, n = 0;
	bufpool_buf_t *bufs[HOARD + 1];

	if (how == 0)
		n = drain(hoard->pool, hoard->size_class, bufs, count + 1);
	else if (how == 1)
		n = bufpool_checkout_bulk(hoard->pool, size, bufs, count);
	else
		while (n < count)
			bufs[n++] = bufpool_checkout(hoard->pool, size);
	ck_assert_uint_eq(n, count);
	ck_assert(are_disjoint(bufs, n));
	ck_assert_uint_eq(stats_of(hoard->pool).hits -
	                          hoard->each * HOARDERS,
	                  count);
	ck_assert_uint_eq(stats_of(hoard->pool).misses, 0);
	bufpool_return_bulk(bufs, n);
}

static void check_hoard(int size_class, size_t each, size_t cache, int how)
{
	size_t count = each * HOARDERS + (size_class == 0 ? HOARD % HOARDERS : 0);
	bufpool_config_t config = class_config(size_class, count);
	struct hoard hoarded = {.size_class = size_class, .each = each};
	pthread_t threads[HOARDERS];

	set_cache(&config, cache);
	hoarded.pool = make_pool(config);
	pthread_barrier_init(&hoarded.taken, NULL, HOARDERS);
	pthread_barrier_init(&hoarded.given, NULL, HOARDERS + 1);
	pthread_barrier_init(&hoarded.end, NULL, HOARDERS + 1);
	for (size_t i = 0; i < HOARDERS; i++)
		threads[i] = start_thread(hoard, &hoarded);
	meet(&hoarded.given);
	take_all(&hoarded, count, how);
	meet(&hoarded.end);
	for (size_t i = 0; i < HOARDERS; i++)
		join_thread(threads[i]);
	destroy_whole(hoarded.pool);
}

/* The loop index is the way to take them all. */
START_TEST(nothing_is_stranded)
{
	const size_t depths[] = {BUFPOOL_CACHE_AUTO, SIZE_MAX - 1, 1, 0};

	for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
		check_hoard(BUFPOOL_CLASS_4K, 4, depths[i], _i);
		check_hoard(BUFPOOL_CLASS_64K, 1, depths[i], _i);
		check_hoard(BUFPOOL_CLASS_1M, 2, depths[i], _i);
	}
}
END_TEST

/* ---------------------------------------------------------- deep in sleep */

/*
 * The victims of the above sleep in pause(), each with a buffer in its hands.
 * Nobody wakes them, and what they hold is theirs.
 */
enum { CACHED = 4, SPARE = HOARD - HOARDERS * CACHED };

static struct {
	bufpool_t *pool;
	pthread_barrier_t taken;
	atomic_bool over;
} dormitory;

struct hoarder {
	pthread_t thread;
	atomic_int tid;
	unsigned long switches; /* of its context */
};

static void *cache_and_pause(void *arg)
{
	struct hoarder *me = arg;
	bufpool_buf_t *bufs[CACHED + 1], *held;

	must(bufpool_checkout_bulk(dormitory.pool, 1, bufs, CACHED + 1) ==
	     CACHED + 1);
	held = bufs[CACHED];
	stamp(held, (uintptr_t) me);
	meet(&dormitory.taken);
	meet(&dormitory.taken);
	bufpool_return_bulk(bufs, CACHED);
	me->tid = (int) syscall(SYS_gettid);
	while (!dormitory.over)
		pause();
	must(is_stamped(held, (uintptr_t) me));
	bufpool_return(held);
	return NULL;
}

/* How often it has come to, or been put off. */
static unsigned long switches_of(const struct hoarder *hoarder)
{
	unsigned long sum = 0, n;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", hoarder->tid);
	file = fopen(path, "r");
	must(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1 ||
		    sscanf(line, "nonvoluntary_ctxt_switches: %lu", &n) == 1)
			sum += n;
	fclose(file);
	return sum;
}

static void see_asleep(struct hoarder *hoarder)
{
	do
		usleep(1000);
	while (hoarder->tid == 0 || !is_asleep(hoarder->tid));
	usleep(1000); /* it is counted a moment later */
	hoarder->switches = switches_of(hoarder);
}

static void on_signal(int signo)
{
	(void) signo;
}

static void call_back(struct hoarder *hoarder)
{
	while (pthread_tryjoin_np(hoarder->thread, NULL) == EBUSY) {
		pthread_kill(hoarder->thread, SIGUSR1);
		usleep(1000);
	}
}

/* The loop index says whether real fences take membarrier's place. */
START_TEST(sleepers_sleep_on)
{
	const size_t count = HOARD + HOARDERS;
	struct hoarder hoarders[HOARDERS] = {{.tid = 0}};
	const struct sigaction action = {.sa_handler = on_signal};
	bufpool_buf_t *bufs[HOARD];
	bufpool_stats_t stats;

	if (_i)
		refuse_membarrier();
	must(sigaction(SIGUSR1, &action, NULL) == 0);
	dormitory.pool = class_pool(BUFPOOL_CLASS_4K, count);
	pthread_barrier_init(&dormitory.taken, NULL, HOARDERS + 1);
	for (int i = 0; i < HOARDERS; i++)
		hoarders[i].thread = start_thread(cache_and_pause,
		                                  &hoarders[i]);
	meet(&dormitory.taken);
	make_plentiful(dormitory.pool);
	meet(&dormitory.taken);
	for (int i = 0; i < HOARDERS; i++)
		see_asleep(&hoarders[i]);
	stats = stats_of(dormitory.pool);
	ck_assert_uint_ge(stats.per_class[BUFPOOL_CLASS_4K].cached,
	                  HOARD - SPARE);
	for (int i = 0; i < HOARD; i++) {
		bufs[i] = bufpool_checkout(dormitory.pool, 1);
		ck_assert(bufs[i] && is_zero(bufs[i]));
		fill(bufs[i], 0xff);
	}
	stats = stats_of(dormitory.pool);
	ck_assert_uint_eq(stats.misses, 0);
	ck_assert_uint_eq(stats.checked_out, count);
	ck_assert(are_disjoint(bufs, HOARD));
	for (int i = 0; i < HOARDERS; i++) {
		ck_assert(is_asleep(hoarders[i].tid));
		ck_assert_uint_eq(switches_of(&hoarders[i]),
		                  hoarders[i].switches);
	}
	dormitory.over = true;
	for (int i = 0; i < HOARDERS; i++)
		call_back(&hoarders[i]);
	bufpool_return_bulk(bufs, HOARD);
	destroy_whole(dormitory.pool);
}
END_TEST

/* ------------------------------------------------------- one for each owner */

/*
 * As many buffers as threads, each of which holds one at most: whoever wants
 * one finds one.  Without batches, that is: a thread that moves several may
 * hide more than its own.
 */
static void *always_get_one(void *pool)
{
	for (long i = hunting(100000); i > 0; i--) {
		bufpool_buf_t *buf = bufpool_try_checkout(pool, 1);

		must(buf);
		stamp(buf, (uintptr_t) &buf);
		must(is_stamped(buf, (uintptr_t) &buf));
		bufpool_return(buf);
	}
	return NULL;
}

/* The loop index is the depth of the caches. */
START_TEST(one_for_each_owner)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, THREADS);
	pthread_t threads[THREADS];
	bufpool_t *pool;

	set_cache(&config, _i);
	config.wipe = BUFPOOL_WIPE_NONE;
	pool = make_pool(config);
	for (size_t i = 0; i < THREADS; i++)
		threads[i] = start_thread(always_get_one, pool);
	for (size_t i = 0; i < THREADS; i++)
		join_thread(threads[i]);
	destroy_whole(pool);
}
END_TEST

/* --------------------------------------------------- threads come and go */

/*
 * Each takes one buffer and is gone, so that the pool takes over what it has counted.
 * Whoever reads the statistics meanwhile sees it once: no less than was over before,
 * no more than had begun after.
 */
static struct {
	bufpool_t *pool;
	atomic_ulong begun, over;
	atomic_bool end;
} fleet;

static void *take_one_and_go(void *arg)
{
	fleet.begun++;
	bufpool_return(bufpool_try_checkout(fleet.pool, 1));
	fleet.over++;
	return arg;
}

static void *send_them(void *arg)
{
	while (!fleet.end)
		run_thread(take_one_and_go, NULL);
	return arg;
}

static void read_beside_them(void)
{
	uint64_t least = fleet.over, taken = stats_of(fleet.pool).hits;

	must(taken >= least && taken <= fleet.begun);
}

static void *read_thread(void *arg)
{
	while (!fleet.end)
		read_beside_them();
	return arg;
}

START_TEST(the_gone_count_once)
{
	unsigned long enough = (unsigned long) hunting(12000);
	pthread_t threads[3];

	fleet.pool = class_pool(BUFPOOL_CLASS_4K, HOARD);
	threads[0] = start_thread(send_them, NULL);
	threads[1] = start_thread(send_them, NULL);
	threads[2] = start_thread(read_thread, NULL);
	while (fleet.over < enough)
		read_beside_them();
	fleet.end = true;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
	ck_assert_uint_eq(stats_of(fleet.pool).hits, fleet.begun);
	destroy_whole(fleet.pool);
}
END_TEST

/* ------------------------------------------------------- a stopped thread */

/*
 * A thread that a signal stops at any instruction of its checkouts and returns
 * keeps nobody waiting, and hides no more than it holds or moves.
 */
static struct {
	bufpool_t *pool;
	int stopped[2], go[2]; /* pipes: sem_post() has no use for a handler */
	atomic_bool over;
} stop;

static void stop_here(int signo)
{
	int saved = errno;
	char byte = 0;

	(void) signo;
	must(write(stop.stopped[1], &byte, 1) == 1);
	must(read(stop.go[0], &byte, 1) == 1);
	errno = saved;
}

static void *work_until_stopped(void *arg)
{
	uint64_t seed = 1;

	(void) arg;
	while (!stop.over) {
		bufpool_buf_t *bufs[4];
		size_t n = 1 + draw(&seed) % ARRAY_SIZE(bufs);

		n = bufpool_checkout_bulk(stop.pool, 1, bufs, n);
		bufpool_return_bulk(bufs, n);
		if (draw(&seed) % 8 == 0)
			bufpool_thread_flush(stop.pool);
	}
	return NULL;
}

static void work_beside_the_stopped(size_t count, size_t hidden)
{
	bufpool_buf_t *bufs[HOARD];

	for (int i = 0; i < 5; i++) {
		size_t n = drain(stop.pool, BUFPOOL_CLASS_4K, bufs, HOARD);

		must(n <= count && n >= count - hidden);
		bufpool_return_bulk(bufs, n);
	}
	for (int i = 0; i < 100; i++)
		bufpool_return(bufpool_try_checkout(stop.pool, 1));
	bufpool_thread_flush(stop.pool);
}

static void start_the_stopped(size_t cache)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, HOARD);
	struct sigaction action = {.sa_handler = stop_here};

	set_cache(&config, cache);
	/* Without the heap: malloc may wait for the stopped thread. */
	config.exhausted = BUFPOOL_FAIL;
	stop.pool = make_pool(config);
	must(pipe(stop.stopped) == 0 && pipe(stop.go) == 0);
	must(sigaction(SIGUSR1, &action, NULL) == 0);
	bufpool_return(bufpool_checkout(stop.pool, 1));
}

/* The loop index says how deep the caches are. */
START_TEST(a_stopped_thread)
{
	const size_t depths[] = {BUFPOOL_CACHE_AUTO, 0, 4, 64};
	uint64_t seed = 7;
	pthread_t thread;
	char byte = 0;

	start_the_stopped(depths[_i]);
	thread = start_thread(work_until_stopped, NULL);
	for (long i = hunting(4000); i > 0; i--) {
		for (uint64_t wait = draw(&seed) % 20000; wait > 0; wait--)
			__asm__ volatile("");
		must(pthread_kill(thread, SIGUSR1) == 0);
		must(read(stop.stopped[0], &byte, 1) == 1);
		/* It holds up to 4, and moves up to the half of its cache. */
		work_beside_the_stopped(HOARD, 4 + 32);
		must(write(stop.go[1], &byte, 1) == 1);
	}
	stop.over = true;
	join_thread(thread);
	destroy_whole(stop.pool);
}
END_TEST

static Suite *threads_suite(void)
{
	Suite *suite = suite_create("threads");
	TCase *tcase = add_case(suite, "brawl", 60);

	tcase_add_loop_test(tcase, brawls, 0, ARRAY_SIZE(rules));
	tcase = add_case(suite, "stranded", 20);
	tcase_add_loop_test(tcase, nothing_is_stranded, 0, 3);
	if (!is_hardened())
		tcase_add_loop_test(tcase, sleepers_sleep_on, 0, 2);
	tcase_add_loop_test(tcase, one_for_each_owner, 0, 2);
	tcase = add_case(suite, "fleet", 20);
	tcase_add_test(tcase, the_gone_count_once);
	tcase = add_case(suite, "stopped", 30);
	tcase_add_loop_test(tcase, a_stopped_thread, 0, 4);
	return suite;
}

int main(void)
{
	return run_suite(threads_suite());
}
