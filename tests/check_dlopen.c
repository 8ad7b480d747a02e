/* SPDX-License-Identifier: MIT */
/*
 * check_dlopen.c - the library comes and goes, the threads that used it stay
 *
 * Not linked with the library, but with -ldl; BUFPOOL_SO names the file.  What
 * would go wrong is a thread that exits, or a fork, and calls a handler that
 * lay in what dlclose() unmapped.
 *
 * When it comes the process may have so many keys of thread-specific data that the
 * library's own has no room in threads but what malloc would give.
 */
#include <bufpool.h>

#include <check.h>
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define must(expr)                                                         \
	((expr) ? (void) 0 : must_failed(__LINE__, #expr))

static _Noreturn void must_failed(int line, const char *expr)
{
	fprintf(stderr, "%s:%d: '%s' failed\n", __FILE__, line, expr);
	abort();
}

/* ------------------------------------------------------------- the library */

/* What this program uses of it; types are those of the header. */
static struct {
	void *handle;
	__typeof__(bufpool_create) *create;
	__typeof__(bufpool_destroy) *destroy;
	__typeof__(bufpool_checkout_bulk) *checkout_bulk;
	__typeof__(bufpool_return_bulk) *return_bulk;
	__typeof__(bufpool_freeze) *freeze;
	__typeof__(bufpool_frozen_unref) *unref;
	__typeof__(bufpool_checkout) *checkout;
	__typeof__(bufpool_stats) *stats;
	__typeof__(bufpool_thread_flush) *flush;
	__typeof__(bufpool_try_checkout) *try;
	__typeof__(bufpool_return) *give;
	__typeof__(bufpool_regions) *regions;
} lib;

static const char *file_name(void)
{
	return getenv("BUFPOOL_SO");
}

/* ISO C has no conversion between pointers to data and to functions. */
static void find(const char *name, void *function)
{
	void *symbol = dlsym(lib.handle, name);

	must(symbol);
	memcpy(function, &symbol, sizeof(symbol));
}

static void open_library(void)
{
	lib.handle = dlopen(file_name(), RTLD_NOW | RTLD_LOCAL);
	if (!lib.handle)
		fprintf(stderr, "%s\n", dlerror());
	must(lib.handle);
	find("bufpool_create", &lib.create);
	find("bufpool_destroy", &lib.destroy);
	find("bufpool_checkout_bulk", &lib.checkout_bulk);
	find("bufpool_return_bulk", &lib.return_bulk);
	find("bufpool_freeze", &lib.freeze);
	find("bufpool_frozen_unref", &lib.unref);
	find("bufpool_checkout", &lib.checkout);
	find("bufpool_stats", &lib.stats);
	find("bufpool_thread_flush", &lib.flush);
	find("bufpool_try_checkout", &lib.try);
	find("bufpool_return", &lib.give);
	find("bufpool_regions", &lib.regions);
}

static void close_library(void)
{
	must(dlclose(lib.handle) == 0);
	memset(&lib, 0, sizeof(lib));
}

/* Leaves some in the thread's cache. */
static void use(bufpool_t *pool)
{
	bufpool_buf_t *bufs[4];

	for (int i = 0; i < 10; i++) {
		must(lib.checkout_bulk(pool, 4096, bufs, 4) == 4);
		for (int j = 0; j < 4; j++)
			memset(bufs[j]->data, 0x5a, 4096);
		lib.unref(lib.freeze(bufs[3]));
		lib.return_bulk(bufs, 3);
	}
}

static void is_whole(bufpool_t *pool)
{
	bufpool_stats_t stats;

	lib.stats(pool, &stats);
	must(stats.checked_out == 0);
	must(stats.heap_bytes == 0);
	must(stats.per_class[0].idle == stats.per_class[0].total);
}

/* More than glibc has room for in a thread. */
static void make_keys(void)
{
	pthread_key_t key;

	for (int i = 0; i < 40; i++)
		must(pthread_key_create(&key, NULL) == 0);
	must(key >= 32);
}

/* ------------------------------------------------------------- live threads */

enum { THREADS = 6 };

static struct {
	pthread_barrier_t used, closed;
	bufpool_t *pool;
	pthread_t threads[THREADS];
} scene;

static void meet(pthread_barrier_t *barrier)
{
	int rc = pthread_barrier_wait(barrier);

	must(rc == 0 || rc == PTHREAD_BARRIER_SERIAL_THREAD);
}

static void *use_and_outlive(void *arg)
{
	use(scene.pool);
	meet(&scene.used);
	meet(&scene.closed);
	return arg;
}

static void start_threads(void)
{
	pthread_barrier_init(&scene.used, NULL, THREADS + 1);
	pthread_barrier_init(&scene.closed, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		must(pthread_create(&scene.threads[i], NULL, use_and_outlive,
		                    NULL) == 0);
	meet(&scene.used);
}

static void end_threads(void)
{
	meet(&scene.closed);
	for (int i = 0; i < THREADS; i++)
		must(pthread_join(scene.threads[i], NULL) == 0);
}

static void must_fork(void)
{
	int status;
	pid_t child = fork();

	must(child >= 0);
	if (child == 0)
		_exit(0);
	must(waitpid(child, &status, 0) == child && status == 0);
}

/* What to do with the pool before the library is closed. */
enum fate { DESTROYED, LEFT, BUFFERS_OUT, FATES };

static void live_through(enum fate fate)
{
	open_library();
	scene.pool = lib.create(NULL);
	must(scene.pool);
	start_threads();
	use(scene.pool);
	is_whole(scene.pool);
	if (fate == BUFFERS_OUT)
		must(lib.checkout(scene.pool, 1));
	if (fate != LEFT)
		lib.destroy(scene.pool);
	close_library();
	must_fork();
	end_threads();
	must_fork();
}

START_TEST(closed_with_live_threads)
{
	if (_i >= FATES)
		make_keys();
	for (int i = 0; i < 20; i++)
		live_through((enum fate) (_i % FATES));
}
END_TEST

/* The threads find it open again, when they exit. */
START_TEST(closed_and_opened_again)
{
	for (int i = 0; i < 20; i++) {
		bufpool_t *pool;

		open_library();
		scene.pool = lib.create(NULL);
		must(scene.pool);
		start_threads();
		lib.destroy(scene.pool);
		close_library();
		open_library();
		pool = lib.create(NULL);
		must(pool);
		use(pool);
		is_whole(pool);
		end_threads();
		use(pool);
		is_whole(pool);
		lib.destroy(pool);
		close_library();
	}
}
END_TEST

/* Opened, used and closed by threads that come and go. */
static void *open_use_and_close(void *arg)
{
	bufpool_t *pool;

	open_library();
	pool = lib.create(NULL);
	must(pool);
	use(pool);
	is_whole(pool);
	lib.destroy(pool);
	close_library();
	return arg;
}

/* More often than there are keys for thread-specific data. */
START_TEST(closed_very_often)
{
	const char *scale = getenv("BUFPOOL_TEST_SCALE");
	int n = scale && strcmp(scale, "small") == 0 ? 20
	                                             : PTHREAD_KEYS_MAX + 100;

	for (int i = 0; i < n; i++) {
		pthread_t thread;

		if (i % 8) {
			open_use_and_close(NULL);
			continue;
		}
		must(pthread_create(&thread, NULL, open_use_and_close, NULL) ==
		     0);
		must(pthread_join(thread, NULL) == 0);
	}
}
END_TEST

/* Nothing of it was used: then nothing of it may be in the way. */
START_TEST(closed_unused)
{
	for (int i = 0; i < 20; i++) {
		open_library();
		close_library();
		must_fork();
	}
}
END_TEST

/* ------------------------------------------------------------ malloc of pools */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

/* While there is a pool, small blocks are its buffers; each begins with its handle. */
static struct {
	bufpool_t *pool;
	bufpool_region_t region;
	atomic_long blocks;
} heap;

static __thread int depth;

enum { HEADER = 64, HEAP = 256 };

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

#define SEEN __attribute__((visibility("default"))) /* by glibc */

static bool is_ours(const void *p)
{
	return heap.pool && (size_t) ((const char *) p -
	                              (const char *) heap.region.base) <
	                            heap.region.len;
}

static void *take_block(size_t size)
{
	bufpool_buf_t *buf;

	if (!heap.pool || size > 4096 - HEADER)
		return NULL;
	must(++depth < 10);
	buf = lib.try(heap.pool, 4096);
	depth--;
	if (!buf)
		return NULL;
	heap.blocks++;
	*(bufpool_buf_t **) buf->data = buf;
	return (char *) buf->data + HEADER;
}

SEEN void *malloc(size_t size)
{
	void *p = take_block(size);

	return p ? p : __libc_malloc(size);
}

SEEN void *calloc(size_t n, size_t size)
{
	void *p = n < 4096 && size < 4096 ? take_block(n * size) : NULL;

	return p ? p : __libc_calloc(n, size);
}

SEEN void free(void *p)
{
	if (is_ours(p))
		lib.give(*(bufpool_buf_t **) ((char *) p - HEADER));
	else
		__libc_free(p);
}

SEEN void *realloc(void *p, size_t size)
{
	void *larger;

	if (!is_ours(p))
		return __libc_realloc(p, size);
	larger = malloc(size);
	if (larger) {
		memcpy(larger, p, size < 4096 - HEADER ? size : 4096 - HEADER);
		free(p);
	}
	return larger;
}

static void *use_heap(void *arg)
{
	char *blocks[16];

	for (int i = 0; i < 16; i++) {
		blocks[i] = calloc(1, 100);
		must(blocks[i] && blocks[i][99] == 0);
		memset(blocks[i], 0x5a, 100);
	}
	for (int i = 0; i < 16; i++)
		free(blocks[i]);
	return arg;
}

/* A pool for which nothing is ever allocated. */
static bufpool_t *plain_pool(size_t count)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	bufpool_t *pool;

	memset(config.count, 0, sizeof(config.count));
	config.count[0] = count;
	config.exhausted = BUFPOOL_FAIL;
	pool = lib.create(&config);
	must(pool);
	return pool;
}

/* The loop index says whether there are many keys. */
START_TEST(malloc_is_made_of_a_pool)
{
	bufpool_stats_t stats;
	bufpool_t *pool;
	pthread_t thread;

	if (_i)
		make_keys();
	open_library();
	pool = plain_pool(HEAP);
	must(lib.regions(pool, &heap.region, 1) == 1);
	heap.pool = pool;
	for (int i = 0; i < 20; i++) {
		must(pthread_create(&thread, NULL, use_heap, NULL) == 0);
		must(pthread_join(thread, NULL) == 0);
	}
	must(heap.blocks >= 20L * 16);
	lib.stats(pool, &stats);
	must(stats.per_class[0].cache_hits > 20L * 8);
	heap.pool = NULL; /* what is left is nobody's any more */
}
END_TEST

/* ------------------------------------------------------- nothing is allocated */

static void *first_calls(void *arg)
{
	bufpool_t **pools = arg;
	long before = heap.blocks;
	bufpool_buf_t *bufs[4];

	for (int i = 0; i < 2; i++) {
		lib.give(lib.checkout(pools[i], 1));
		lib.unref(lib.freeze(lib.try(pools[i], 1)));
		must(lib.checkout_bulk(pools[i], 1, bufs, 4) == 4);
		lib.return_bulk(bufs, 4);
		lib.flush(NULL);
	}
	must(heap.blocks == before);
	return NULL;
}

START_TEST(first_calls_allocate_nothing)
{
	bufpool_t *pool, *pools[2];
	pthread_t thread;

	if (_i)
		make_keys();
	open_library();
	pools[0] = plain_pool(8);
	pools[1] = plain_pool(8);
	pool = plain_pool(HEAP);
	must(lib.regions(pool, &heap.region, 1) == 1);
	heap.pool = pool;
	for (int i = 0; i < 20; i++) {
		must(pthread_create(&thread, NULL, first_calls, pools) == 0);
		must(pthread_join(thread, NULL) == 0);
	}
	heap.pool = NULL;
	is_whole(pools[0]);
	is_whole(pools[1]);
}
END_TEST

#endif

/* ------------------------------------------------- threads that nobody sees end */

static long mapped_kb(void)
{
	FILE *file = fopen("/proc/self/status", "r");
	char line[256];
	long kb = -1;

	must(file);
	while (kb < 0 && fgets(line, sizeof(line), file))
		sscanf(line, "VmSize: %ld", &kb);
	fclose(file);
	return kb;
}

/* Some stay in its cache. */
static void *use_and_end(void *pool)
{
	use(pool);
	return NULL;
}

static void run_one(bufpool_t *pool)
{
	pthread_t thread;

	must(pthread_create(&thread, NULL, use_and_end, pool) == 0);
	must(pthread_join(thread, NULL) == 0);
}

static void take_all(bufpool_t *pool)
{
	bufpool_buf_t *bufs[64];

	must(lib.checkout_bulk(pool, 4096, bufs, 64) == 64);
	lib.return_bulk(bufs, 64);
}

/* All that they had can be had; what was theirs is used again, or given back when
   the pool has gone. */
START_TEST(ended_unseen)
{
	bufpool_t *pool;
	long kb = 0;

	make_keys();
	open_library();
	pool = lib.create(NULL);
	must(pool);
	for (int i = 0; i < 200; i++) {
		bufpool_t *passing = lib.create(NULL);

		must(passing);
		run_one(passing);
		run_one(pool);
		lib.destroy(passing);
		if (i == 20)
			kb = mapped_kb();
	}
	must(mapped_kb() < kb + 180 * 4 / 2);
	is_whole(pool);
	take_all(pool);
	must_fork();
	lib.destroy(pool);
}
END_TEST

/* The forking thread, which had a cache, and a further one. */
START_TEST(ended_unseen_in_the_child)
{
	bufpool_t *pool;
	int status;
	pid_t child;

	make_keys();
	open_library();
	pool = lib.create(NULL);
	must(pool);
	use(pool);
	run_one(pool);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		use(pool);
		for (int i = 0; i < 20; i++)
			run_one(pool);
		use(pool);
		is_whole(pool);
		take_all(pool);
		_exit(0);
	}
	must(waitpid(child, &status, 0) == child && status == 0);
	run_one(pool);
	is_whole(pool);
	take_all(pool);
	lib.destroy(pool);
}
END_TEST

static Suite *dlopen_suite(void)
{
	Suite *suite = suite_create("dlopen");
	TCase *tcase = tcase_create("dlopen");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, closed_with_live_threads, 0, 2 * FATES);
	tcase_add_test(tcase, closed_and_opened_again);
	tcase_add_test(tcase, closed_very_often);
	tcase_add_test(tcase, closed_unused);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	tcase_add_loop_test(tcase, malloc_is_made_of_a_pool, 0, 2);
	tcase_add_loop_test(tcase, first_calls_allocate_nothing, 0, 2);
#endif
	tcase_add_test(tcase, ended_unseen);
	tcase_add_test(tcase, ended_unseen_in_the_child);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	SRunner *runner;
	int failed;

	if (!file_name() || access(file_name(), R_OK) != 0) {
		fprintf(stderr, "check_dlopen: no shared library: BUFPOOL_SO "
		                "must name it\n");
		return 77; /* skipped */
	}
	runner = srunner_create(dlopen_suite());
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
