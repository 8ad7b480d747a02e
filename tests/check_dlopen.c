/* SPDX-License-Identifier: MIT */
/*
 * check_dlopen.c - the library comes and goes, the threads that used it stay
 *
 * Not linked with the library, but with -ldl; BUFPOOL_SO names the file.  What
 * would go wrong is a thread that exits, or a fork, and calls a handler that
 * lay in what dlclose() unmapped.
 */
#include <bufpool.h>

#include <check.h>
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
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
	for (int i = 0; i < 20; i++)
		live_through((enum fate) _i);
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

static Suite *dlopen_suite(void)
{
	Suite *suite = suite_create("dlopen");
	TCase *tcase = tcase_create("dlopen");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, closed_with_live_threads, 0, FATES);
	tcase_add_test(tcase, closed_and_opened_again);
	tcase_add_test(tcase, closed_very_often);
	tcase_add_test(tcase, closed_unused);
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
