/* SPDX-License-Identifier: MIT */
/*
 * check_event.c - who polls for a buffer is told, by whatever brings one home; and
 * bufpool_shutdown(), after which nobody waits any more
 *
 * No test waits for ever: what is lost shows as a wait of PATIENCE seconds.
 */
#include "common.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

enum { PATIENCE = 20, K = BUFPOOL_CLASS_4K };

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void dawdle(uint64_t loops)
{
	for (; loops > 0; loops--)
		__asm__ volatile("");
}

/* ---------------------------------------------------------------- settings */

static const struct setting {
	const char *name;
	size_t cache;
	bool fenced;
} settings[] = {
	{"cached", BUFPOOL_CACHE_AUTO, false},
	{"depot", 0, false},
	{"one cached", 1, false},
	{"cached, fenced", BUFPOOL_CACHE_AUTO, true},
	{"depot, fenced", 0, true},
	{"one cached, fenced", 1, true},
};

enum { SETTINGS = ARRAY_SIZE(settings), FEW = 8 };

static bufpool_t *setting_pool(int setting, size_t count)
{
	bufpool_config_t config = class_config(K, count);

	if (settings[setting].fenced)
		refuse_membarrier();
	config.wipe = BUFPOOL_WIPE_USED;
	set_cache(&config, settings[setting].cache);
	return make_pool(config);
}

/* With nothing left. */
static bufpool_t *spent_pool(int setting, size_t count, bufpool_buf_t **bufs)
{
	bufpool_t *pool = setting_pool(setting, count);

	must(bufpool_checkout_bulk(pool, 1, bufs, count) == count);
	return pool;
}

/* ------------------------------------------------------------------ events */

static bufpool_event_t *open_event(bufpool_t *pool)
{
	bufpool_event_t *event = bufpool_event_open(pool, 1);

	must(event);
	return event;
}

static bool polls(const bufpool_event_t *event, int timeout)
{
	struct pollfd at = {.fd = bufpool_event_fd(event), .events = POLLIN};
	int n;

	do
		n = poll(&at, 1, timeout);
	while (n < 0 && errno == EINTR);
	must(n >= 0 && (n == 0 || at.revents == POLLIN));
	return n == 1;
}

static bool is_told(const bufpool_event_t *event)
{
	return polls(event, 0);
}

/* Where another thread is to do it. */
static bool comes_to_know(const bufpool_event_t *event)
{
	return polls(event, PATIENCE * 1000);
}

static void arm(bufpool_event_t *event)
{
	must(bufpool_event_arm(event) == 0);
	must(!is_told(event));
}

static size_t told_of(bufpool_event_t **events, size_t n)
{
	size_t told = 0;

	for (size_t i = 0; i < n; i++)
		told += is_told(events[i]);
	return told;
}

static int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	must(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---------------------------------------------------------------- contract */

START_TEST(arguments)
{
	bufpool_t *pool = class_pool(K, 1);
	bufpool_event_t *event;
	int fd;

	REFUSED(!bufpool_event_open(NULL, 1), EINVAL);
	REFUSED(!bufpool_event_open(pool, (size_t) PTRDIFF_MAX + 1), EOVERFLOW);
	REFUSED(!bufpool_event_open(pool, 4097), ENOBUFS);
	REFUSED(!bufpool_event_open(pool, BUFPOOL_MAX_CLASS_SIZE + 1), ENOBUFS);
	REFUSED(bufpool_event_fd(NULL) == -1, EINVAL);
	REFUSED(bufpool_event_arm(NULL) == -1, EINVAL);
	KEEPS_ERRNO(bufpool_event_close(NULL));
	KEEPS_ERRNO(event = bufpool_event_open(pool, 0));
	ck_assert_ptr_nonnull(event);
	KEEPS_ERRNO(fd = bufpool_event_fd(event));
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	ck_assert(!is_told(event));
	KEEPS_ERRNO(bufpool_event_close(event));
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	destroy_whole(pool);
}
END_TEST

START_TEST(no_more_files)
{
	bufpool_t *pool = class_pool(K, 1);
	struct rlimit usual, none;

	must(getrlimit(RLIMIT_NOFILE, &usual) == 0);
	none = (struct rlimit) {0, usual.rlim_max};
	must(setrlimit(RLIMIT_NOFILE, &none) == 0);
	REFUSED(!bufpool_event_open(pool, 1), EMFILE);
	must(setrlimit(RLIMIT_NOFILE, &usual) == 0);
	bufpool_destroy(pool);
}
END_TEST

/* One is idle, wherever it is: there is nothing to wait for. */
static void is_not_armed(bufpool_event_t *event)
{
	int rc;

	KEEPS_ERRNO(rc = bufpool_event_arm(event));
	ck_assert_int_eq(rc, 1);
	ck_assert(!is_told(event));
}

START_TEST(one_is_idle)
{
	bufpool_t *pool = setting_pool(_i, FEW);
	bufpool_event_t *event = open_event(pool);
	bufpool_buf_t *bufs[FEW];
	struct sleeper sleeper;
	bufpool_stats_t before, after;
	size_t n;

	is_not_armed(event); /* in the depot */
	bufpool_return(bufpool_try_checkout(pool, 1));
	is_not_armed(event); /* this thread has cached it */
	bufpool_thread_flush(pool);
	make_plentiful(pool);
	put_to_sleep(&sleeper, pool, FEW);
	/* All that there are in another one's cache; or the last one. */
	n = FEW - (settings[_i].cache ? cached_in(pool) : 1);
	ck_assert_uint_lt(n, FEW);
	for (size_t i = 0; i < n; i++)
		bufs[i] = bufpool_try_checkout(pool, 1);
	before = stats_of(pool);
	is_not_armed(event);
	is_not_armed(event);
	after = stats_of(pool);
	/* It takes none for that. */
	ck_assert_uint_eq(after.hits, before.hits);
	ck_assert_uint_eq(after.checked_out, n);
	must(drain(pool, K, bufs + n, FEW - n) == FEW - n);
	arm(event);
	bufpool_return_bulk(bufs, FEW);
	ck_assert(is_told(event));
	wake_up(&sleeper);
	must(bufpool_trim(pool) == FEW * PAGE);
	is_not_armed(event); /* without its pages */
	bufpool_event_close(event);
	destroy_whole(pool);
}
END_TEST

/* It is told once; and anew once it is armed. */
START_TEST(told_once)
{
	bufpool_buf_t *bufs[2];
	bufpool_t *pool = spent_pool(_i, 2, bufs);
	bufpool_event_t *event = open_event(pool);
	uint64_t count;
	int rc;

	KEEPS_ERRNO(rc = bufpool_event_arm(event));
	ck_assert_int_eq(rc, 0);
	arm(event); /* again is fine */
	KEEPS_ERRNO(bufpool_return(bufs[0]));
	KEEPS_ERRNO(bufpool_return(bufs[1]));
	ck_assert(is_told(event));
	ck_assert_int_eq(read(bufpool_event_fd(event), &count, 8), 8);
	ck_assert_uint_eq(count, 1);
	must(drain(pool, K, bufs, 2) == 2);
	/* It is made unreadable, also where nobody has read it. */
	arm(event);
	bufpool_return(bufs[0]);
	ck_assert(is_told(event));
	bufs[0] = bufpool_try_checkout(pool, 1);
	arm(event);
	bufpool_event_close(event);
	bufpool_return_bulk(bufs, 2);
	destroy_whole(pool);
}
END_TEST

/* Edge-triggered, in an epoll of another thread's. */
static void *return_thread_stays(void *buf)
{
	bufpool_return(buf);
	pause();
	return NULL;
}

START_TEST(told_by_epoll)
{
	struct epoll_event on = {.events = EPOLLIN | EPOLLET}, got;
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(_i, 1, &buf);
	bufpool_event_t *event = open_event(pool);
	int epoll = epoll_create1(0);

	must(epoll_ctl(epoll, EPOLL_CTL_ADD, bufpool_event_fd(event), &on) == 0);
	for (int i = 0; i < 3; i++) {
		arm(event);
		must(epoll_wait(epoll, &got, 1, 0) == 0);
		start_thread(return_thread_stays, buf);
		must(epoll_wait(epoll, &got, 1, PATIENCE * 1000) == 1);
		buf = bufpool_try_checkout(pool, 1);
		must(buf);
	}
	close(epoll);
	bufpool_event_close(event);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------ giving */

static void by_return(bufpool_buf_t *buf)
{
	bufpool_return(buf);
}

static void by_bulk(bufpool_buf_t *buf)
{
	bufpool_return_bulk(&buf, 1);
}

static void by_unref(bufpool_buf_t *buf)
{
	bufpool_frozen_unref(bufpool_freeze(buf));
}

static void by_slice(bufpool_buf_t *buf)
{
	bufpool_frozen_t *f = bufpool_freeze(buf);
	bufpool_slice_t slice = bufpool_slice(f, 0, 1);

	unref_elsewhere(f);
	bufpool_slice_release(&slice);
}

static void by_stranger(bufpool_buf_t *buf)
{
	return_elsewhere(buf);
}

static void (*const ways_home[])(bufpool_buf_t *buf) = {
	by_return, by_bulk, by_unref, by_slice, by_stranger,
};

/* By any thread, that has a cache already, or not. */
struct giver {
	bufpool_t *pool;
	void (*give)(bufpool_buf_t *buf);
	bufpool_buf_t *buf;
	pthread_barrier_t go;
};

static void *give_thread(void *arg)
{
	struct giver *giver = arg;

	bufpool_return(bufpool_try_checkout(giver->pool, 1));
	giver->buf = bufpool_try_checkout(giver->pool, 1);
	meet(&giver->go);
	meet(&giver->go);
	giver->give(giver->buf);
	meet(&giver->go);
	return NULL;
}

START_TEST(told_by_all_that_comes_home)
{
	bufpool_t *pool = setting_pool(_i, 1);
	bufpool_event_t *event = open_event(pool);

	for (size_t i = 0; i < ARRAY_SIZE(ways_home); i++) {
		struct giver giver = {.pool = pool, .give = ways_home[i]};
		pthread_t thread;

		must(pthread_barrier_init(&giver.go, NULL, 2) == 0);
		thread = start_thread(give_thread, &giver);
		meet(&giver.go);
		must(giver.buf);
		arm(event);
		meet(&giver.go);
		/* Before the call is over, and not by the thread's exit. */
		ck_assert_msg(comes_to_know(event), "by way %zu", i);
		is_not_armed(event);
		meet(&giver.go);
		join_thread(thread);
	}
	bufpool_event_close(event);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------- in order */

/* Those that came first, as many as there are buffers. */
START_TEST(first_come_first_told)
{
	bufpool_buf_t *bufs[FEW];
	bufpool_t *pool = spent_pool(_i, FEW, bufs);
	bufpool_event_t *events[FEW];

	for (int i = 0; i < FEW; i++)
		events[i] = open_event(pool);
	for (int first = 0; first < FEW; first++) {
		/* Not in the order in which they were opened. */
		for (int i = 0; i < FEW; i++)
			arm(events[(first + 3 * i) % FEW]);
		arm(events[first]); /* it keeps its place */
		for (int i = 0; i < FEW; i++) {
			ck_assert_uint_eq(told_of(events, FEW), (size_t) i);
			bufpool_return(bufs[i]);
			ck_assert(is_told(events[(first + 3 * i) % FEW]));
		}
		must(drain(pool, K, bufs, FEW) == FEW);
	}
	/* In bulk. */
	for (int n = 0; n <= FEW; n++) {
		for (int i = FEW; i-- > 0;)
			arm(events[i]);
		bufpool_return_bulk(bufs, (size_t) n);
		for (int i = 0; i < FEW; i++)
			ck_assert_int_eq(is_told(events[i]), i >= FEW - n);
		must(drain(pool, K, bufs, (size_t) n) == (size_t) n);
		/* Who was told comes last. */
		for (int i = FEW; i-- > 0;)
			arm(events[i]);
		if (n < FEW) {
			bufpool_return(bufs[0]);
			ck_assert_uint_eq(told_of(events, FEW), 1);
			ck_assert(is_told(events[FEW - n - 1]));
			bufs[0] = bufpool_try_checkout(pool, 1);
		}
		for (int i = 0; i < FEW; i++) {
			bufpool_event_close(events[i]);
			events[i] = open_event(pool);
		}
	}
	for (int i = 0; i < FEW; i++)
		bufpool_event_close(events[i]);
	bufpool_return_bulk(bufs, FEW);
	destroy_whole(pool);
}
END_TEST

struct waiter {
	bufpool_t *pool;
	pthread_t thread;
	atomic_int tid;
	atomic_bool back;
	int error;
	bufpool_buf_t *buf;
};

static void *wait_thread(void *arg)
{
	struct waiter *w = arg;

	w->tid = (int) syscall(SYS_gettid);
	errno = ERRNO_SENTINEL;
	w->buf = bufpool_checkout_wait(w->pool, 1, NULL);
	w->error = errno;
	w->back = true;
	return NULL;
}

/* Asleep twice in a row: not just somewhere on the way. */
static void start_waiter(struct waiter *w, bufpool_t *pool)
{
	int seen = 0;

	*w = (struct waiter) {.pool = pool};
	w->thread = start_thread(wait_thread, w);
	while (seen < 2) {
		usleep(100);
		seen = w->tid && is_asleep(w->tid) ? seen + 1 : 0;
	}
}

static bufpool_buf_t *end_waiter(struct waiter *w)
{
	double start = now();

	while (!w->back && now() - start < PATIENCE)
		usleep(100);
	must(w->back);
	join_thread(w->thread);
	must(w->buf && w->error == ERRNO_SENTINEL);
	return w->buf;
}

/* Events and sleepers are one queue. */
START_TEST(in_turn_with_sleepers)
{
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(_i, 1, &buf);
	bufpool_event_t *before = open_event(pool), *after = open_event(pool);
	struct waiter first, second;

	start_waiter(&first, pool);
	arm(before);
	start_waiter(&second, pool);
	arm(after);
	bufpool_return(buf);
	buf = end_waiter(&first);
	ck_assert(!is_told(before) && !second.back && !is_told(after));
	bufpool_return(buf);
	ck_assert(is_told(before) && !second.back && !is_told(after));
	buf = bufpool_try_checkout(pool, 1);
	bufpool_return(buf);
	buf = end_waiter(&second);
	ck_assert(!is_told(after));
	bufpool_return(buf);
	ck_assert(is_told(after));
	bufpool_event_close(before);
	bufpool_event_close(after);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------- passing it on */

/* Who was told and goes: the buffer is for the next. */
START_TEST(closed_when_told)
{
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(_i, 1, &buf);
	bufpool_event_t *events[3];
	struct waiter waiter;

	for (int i = 0; i < 3; i++) {
		events[i] = open_event(pool);
		arm(events[i]);
	}
	start_waiter(&waiter, pool);
	bufpool_return(buf);
	ck_assert(is_told(events[0]) && !is_told(events[1]));
	bufpool_event_close(events[0]);
	ck_assert(is_told(events[1]) && !is_told(events[2]));
	/* Who hears it from arming, too. */
	is_not_armed(events[1]);
	ck_assert(!is_told(events[2]));
	bufpool_event_close(events[1]);
	ck_assert(is_told(events[2]) && !waiter.back);
	bufpool_event_close(events[2]);
	bufpool_return(end_waiter(&waiter));
	destroy_whole(pool);
}
END_TEST

/* Who was not told, and goes, tells nobody. */
START_TEST(closed_when_armed)
{
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(_i, 1, &buf);
	bufpool_event_t *event = open_event(pool), *gone = open_event(pool);

	arm(gone);
	arm(event);
	bufpool_event_close(gone);
	ck_assert(!is_told(event));
	bufpool_return(buf);
	ck_assert(is_told(event));
	bufpool_event_close(event);
	/* Nor is anything written to what comes to be there. */
	gone = open_event(pool);
	ck_assert(!is_told(gone));
	bufpool_event_close(gone);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------- files */

START_TEST(no_file_is_left)
{
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(0, 1, &buf);
	bufpool_event_t *events[300];
	int before = open_files();

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 300; i++) {
			events[i] = open_event(pool);
			if (i % 3)
				arm(events[i]);
		}
		ck_assert_int_eq(open_files(), before + 300);
		bufpool_return(buf);
		ck_assert_uint_eq(told_of(events, 300), 1);
		buf = bufpool_try_checkout(pool, 1);
		for (int i = 0; i < 300; i++)
			bufpool_event_close(events[i * 7 % 300]);
		ck_assert_int_eq(open_files(), before);
	}
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* ---------------------------------------------------------------- shutdown */

/* What each call says; the pool has something idle, or not. */
static void all_are_refused(bufpool_t *pool)
{
	const struct timespec moment = {0, 1000};
	bufpool_buf_t *buf;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		REFUSED(!ways[i].take(pool, 1), ECANCELED);
		REFUSED(!ways[i].take(pool, 65536), ECANCELED);
		REFUSED(!ways[i].take(pool, BUFPOOL_MAX_CLASS_SIZE + 1),
		        ECANCELED);
	}
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		REFUSED(!classes[k].checkout(pool), ECANCELED);
	REFUSED(bufpool_checkout_bulk(pool, 1, &buf, 1) == 0, ECANCELED);
	REFUSED(!bufpool_checkout_wait(pool, 1, NULL), ECANCELED);
	REFUSED(!bufpool_checkout_wait(pool, 1, &moment), ECANCELED);
	REFUSED(!bufpool_checkout_wait(pool, 65536, &moment), ECANCELED);
	/* As ever. */
	REFUSED(!bufpool_checkout(pool, SIZE_MAX), EOVERFLOW);
	REFUSED(!bufpool_checkout_aligned(pool, 1, 3), EINVAL);
	KEEPS_ERRNO(bufpool_checkout_bulk(pool, 1, NULL, 0));
}

static void *refused_thread(void *pool)
{
	all_are_refused(pool);
	return NULL;
}

START_TEST(no_more_checkouts)
{
	bufpool_t *pool = setting_pool(_i, FEW);
	bufpool_buf_t *bufs[FEW];
	bufpool_frozen_t *f;
	const void *data;
	char text[64];
	bufpool_event_t *event = open_event(pool);
	struct sleeper sleeper;

	put_to_sleep(&sleeper, pool, 3);
	for (int i = 0; i < 5; i++)
		bufs[i] = bufpool_checkout(pool, 1);
	bufpool_return(bufs[4]); /* in the cache, if there is one */
	data = bufs[0]->data;
	KEEPS_ERRNO(bufpool_shutdown(NULL));
	KEEPS_ERRNO(bufpool_shutdown(pool));
	KEEPS_ERRNO(bufpool_shutdown(pool));
	all_are_refused(pool);
	run_thread(refused_thread, pool);
	REFUSED(bufpool_event_arm(event) == -1, ECANCELED);
	/* Returns go on, from here and elsewhere, also for what they wake. */
	for (int i = 0; i < 2; i++) {
		KEEPS_ERRNO(bufpool_return(bufs[i]));
		all_are_refused(pool);
	}
	f = bufpool_freeze(bufs[2]);
	unref_elsewhere(bufpool_frozen_ref(f));
	bufpool_frozen_unref(f);
	return_elsewhere(bufs[3]);
	all_are_refused(pool);
	wake_up(&sleeper);
	bufpool_thread_flush(pool);
	all_are_refused(pool);
	ck_assert_uint_eq(stats_of(pool).per_class[K].idle, FEW);
	ck_assert_uint_eq(stats_of(pool).checked_out, 0);
	ck_assert_int_eq(run_child((void (*)(void *)) all_are_refused, pool,
	                           text, sizeof(text)), 0);
	bufpool_event_close(event);
	bufpool_destroy(pool);
	ck_assert(!is_mapped(data));
}
END_TEST

START_TEST(shutdown_ends_waiting)
{
	bufpool_buf_t *buf;
	bufpool_t *pool = spent_pool(_i, 1, &buf);
	bufpool_event_t *armed = open_event(pool), *idle = open_event(pool);
	struct waiter waiters[3];

	arm(armed);
	for (int i = 0; i < 3; i++)
		start_waiter(&waiters[i], pool);
	bufpool_shutdown(pool);
	ck_assert(is_told(armed) && !is_told(idle));
	for (int i = 0; i < 3; i++) {
		join_thread(waiters[i].thread);
		ck_assert(!waiters[i].buf);
		ck_assert_int_eq(waiters[i].error, ECANCELED);
	}
	REFUSED(bufpool_event_arm(armed) == -1, ECANCELED);
	ck_assert(!is_told(armed));
	bufpool_event_close(armed);
	bufpool_event_close(idle);
	bufpool_return(buf);
	ck_assert_uint_eq(stats_of(pool).checked_out, 0);
	bufpool_destroy(pool);
}
END_TEST

/* In the middle of it all: everybody ends, and nothing is lost. */
static struct {
	bufpool_t *pool;
	atomic_bool down;
} doom;

static void *use_until_refused(void *arg)
{
	bufpool_event_t *event = open_event(doom.pool);
	uint64_t seed = (uintptr_t) arg;
	bufpool_buf_t *buf;

	for (;;) {
		bool down = doom.down;

		switch (draw(&seed) % 4) {
		case 0:
			buf = bufpool_checkout_wait(doom.pool, 1, NULL);
			break;
		case 1:
			buf = bufpool_checkout(doom.pool, 1);
			break;
		default:
			buf = bufpool_try_checkout(doom.pool, 1);
		}
		must(!down || (!buf && errno == ECANCELED));
		if (!buf && errno == ECANCELED)
			break;
		if (!buf && bufpool_event_arm(event) == 0)
			must(comes_to_know(event));
		bufpool_return(buf);
	}
	bufpool_event_close(event);
	return NULL;
}

START_TEST(shutdown_amid_use)
{
	for (long rounds = scaled(500); rounds > 0; rounds--) {
		bufpool_config_t config = class_config(K, 3);
		pthread_t threads[6];

		config.exhausted = BUFPOOL_FAIL;
		set_cache(&config, settings[_i].cache);
		if (settings[_i].fenced)
			refuse_membarrier();
		doom.pool = make_pool(config);
		doom.down = false;
		for (uintptr_t i = 0; i < ARRAY_SIZE(threads); i++)
			threads[i] = start_thread(use_until_refused,
			                          (void *) (i + 1));
		usleep((useconds_t) (rounds % 16 * 50));
		bufpool_shutdown(doom.pool);
		doom.down = true;
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
			join_thread(threads[i]);
		ck_assert_uint_eq(stats_of(doom.pool).per_class[K].idle, 3);
		bufpool_destroy(doom.pool);
	}
}
END_TEST

/* -------------------------------------------------------------------- fork */

struct family {
	bufpool_t *pool;
	bufpool_event_t *armed, *other;
	bufpool_buf_t *buf;
};

static void in_the_child(void *arg)
{
	struct family *family = arg;
	bufpool_event_t *mine;
	int fd = bufpool_event_fd(family->other);

	errno = 0;
	must(bufpool_event_arm(family->other) == -1 && errno == EPERM);
	must(bufpool_event_arm(family->armed) == -1 && errno == EPERM);
	bufpool_event_close(family->other);
	must(fcntl(fd, F_GETFD) == -1);
	/* One's own are as ever; the parent's hear nothing of it. */
	mine = open_event(family->pool);
	arm(mine);
	bufpool_return(family->buf);
	must(is_told(mine) && !is_told(family->armed));
	bufpool_event_close(mine);
	/* With one of the parent's open. */
	bufpool_destroy(family->pool);
}

START_TEST(events_stay_in_the_parent)
{
	struct family family;
	char text[4096];
	int status;

	family.pool = spent_pool(_i, 1, &family.buf);
	family.armed = open_event(family.pool);
	family.other = open_event(family.pool);
	arm(family.armed);
	arm(family.other);
	status = run_child(in_the_child, &family, text, sizeof(text));
	ck_assert_msg(status == 0, "wait status %#x: %s", (unsigned) status,
	              text);
	ck_assert(!is_told(family.armed) && !is_told(family.other));
	bufpool_return(family.buf);
	ck_assert(is_told(family.armed) && !is_told(family.other));
	bufpool_event_close(family.armed);
	bufpool_event_close(family.other);
	destroy_whole(family.pool);
}
END_TEST

/* ------------------------------------------------------------------ misuse */

static bufpool_event_t *closed_event(void)
{
	bufpool_event_t *event = open_event(class_pool(K, 1));

	bufpool_event_close(event);
	return event;
}

static void arm_closed(void)
{
	bufpool_event_arm(closed_event());
}

static void fd_of_closed(void)
{
	bufpool_event_fd(closed_event());
}

static void close_closed(void)
{
	bufpool_event_close(closed_event());
}

static void destroy_with_event(void)
{
	bufpool_t *pool = class_pool(K, 1);

	open_event(pool);
	bufpool_destroy(pool);
}

static const struct misuse misuses[] = {
	{"arm what is closed", arm_closed, "bufpool_event_arm"},
	{"descriptor of what is closed", fd_of_closed, "bufpool_event_fd"},
	{"close what is closed", close_closed, "bufpool_event_close"},
	{"destroy with an open event", destroy_with_event, "bufpool_destroy"},
};

START_TEST(misuse_is_loud)
{
	must_be_loud(&misuses[_i]);
}
END_TEST

/* ------------------------------------------------------------- no lost one */

/*
 * Try, arm, poll; while others return just then.  The buffer goes to and fro by
 * a mailbox for each who returns.
 */
enum { RETURNERS = 2 };

static struct {
	bufpool_t *pool;
	_Atomic(bufpool_buf_t *) mail[RETURNERS];
	atomic_bool over;
} post;

static void *return_mail(void *arg)
{
	_Atomic(bufpool_buf_t *) *mail = arg;
	uint64_t seed = (uintptr_t) arg;

	while (!post.over) {
		bufpool_buf_t *buf = atomic_exchange(mail, NULL);

		if (buf == NULL) {
			sched_yield();
			continue;
		}
		dawdle(draw(&seed) % 400);
		if (seed % 8 == 0)
			bufpool_frozen_unref(bufpool_freeze(buf));
		else
			bufpool_return(buf);
		if (seed % 64 == 0)
			bufpool_thread_flush(post.pool);
	}
	return NULL;
}

static bufpool_buf_t *try_arm_poll(bufpool_event_t *event)
{
	bufpool_buf_t *buf;

	while (!(buf = bufpool_try_checkout(post.pool, 1))) {
		int rc = bufpool_event_arm(event);

		must(rc == 0 || rc == 1);
		must(rc == 1 || comes_to_know(event));
	}
	return buf;
}

/* BUFPOOL_TEST_ROUNDS=10000000 by hand. */
static long rounds_of(long usual)
{
	const char *rounds = getenv("BUFPOOL_TEST_ROUNDS");

	return rounds ? atol(rounds) / SETTINGS : usual;
}

START_TEST(no_wake_up_is_lost)
{
	pthread_t threads[RETURNERS];
	uint64_t seed = (uintptr_t) &seed | 1;
	bufpool_event_t *event;

	post.pool = setting_pool(_i, RETURNERS);
	event = open_event(post.pool);
	for (int i = 0; i < RETURNERS; i++)
		threads[i] = start_thread(return_mail, (void *) &post.mail[i]);
	for (long i = rounds_of(is_small() ? 2000 : 17000); i > 0; i--) {
		bufpool_buf_t *buf = try_arm_poll(event);

		dawdle(draw(&seed) % 400);
		bufpool_return(atomic_exchange(&post.mail[i % RETURNERS], buf));
	}
	post.over = true;
	for (int i = 0; i < RETURNERS; i++) {
		join_thread(threads[i]);
		bufpool_return(post.mail[i]);
	}
	bufpool_event_close(event);
	bufpool_thread_flush(post.pool);
	destroy_whole(post.pool);
}
END_TEST

/* ----------------------------------------------------------------- a crowd */

/* Few buffers, and many who want one, in two ways: until each has been served, or
   for so long. */
enum { CROWD = 8 };

static struct {
	bufpool_t *pool;
	atomic_bool over;
	atomic_long served[2 * CROWD];
} crowd;

static bool all_are_served(void)
{
	for (int i = 0; i < 2 * CROWD; i++)
		if (crowd.served[i] == 0)
			return false;
	return true;
}

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
	buf->len = 8;
}

static void *want_some(void *arg)
{
	const struct timespec patience = {PATIENCE, 0};
	uintptr_t me = (uintptr_t) arg;
	uint64_t seed = me + 1;
	bufpool_event_t *event = open_event(crowd.pool);

	while (!crowd.over) {
		bufpool_buf_t *buf;

		if (me < CROWD)
			buf = bufpool_checkout_wait(crowd.pool, 1, &patience);
		else
			buf = try_arm_poll(event);
		must(buf);
		crowd.served[me]++;
		hold_a_moment(buf, &seed);
		bufpool_return(buf);
	}
	bufpool_event_close(event);
	return NULL;
}

START_TEST(nobody_starves)
{
	double start = now(), least = !is_scale("full") ? 0 : _i ? 5 : 60;
	pthread_t threads[2 * CROWD];
	long all = 0;

	post.pool = crowd.pool = setting_pool(_i, 3);
	for (uintptr_t i = 0; i < 2 * CROWD; i++)
		threads[i] = start_thread(want_some, (void *) i);
	while (!all_are_served() || now() - start < least) {
		ck_assert(now() - start < least + PATIENCE);
		usleep(1000);
	}
	crowd.over = true;
	for (int i = 0; i < 2 * CROWD; i++)
		join_thread(threads[i]);
	for (int i = 0; i < 2 * CROWD; i++)
		all += crowd.served[i];
	for (int i = 0; least > 0 && i < 2 * CROWD; i++)
		ck_assert_msg(crowd.served[i] >= all / (2 * CROWD) / 10,
		              "%d was served %ld times of %ld", i,
		              crowd.served[i], all);
	bufpool_thread_flush(crowd.pool);
	destroy_whole(crowd.pool);
}
END_TEST

static Suite *event_suite(void)
{
	Suite *suite = suite_create("event");
	TCase *tc = add_case(suite, "contract", 10);

	tcase_add_test(tc, arguments);
	tcase_add_test(tc, no_more_files);
	tcase_add_loop_test(tc, one_is_idle, 0, SETTINGS);
	tcase_add_loop_test(tc, told_once, 0, SETTINGS);
	tcase_add_loop_test(tc, told_by_epoll, 0, SETTINGS);
	tcase_add_loop_test(tc, told_by_all_that_comes_home, 0, SETTINGS);
	tcase_add_loop_test(tc, first_come_first_told, 0, SETTINGS);
	tcase_add_loop_test(tc, in_turn_with_sleepers, 0, SETTINGS);
	tcase_add_loop_test(tc, closed_when_told, 0, SETTINGS);
	tcase_add_loop_test(tc, closed_when_armed, 0, SETTINGS);
	tcase_add_test(tc, no_file_is_left);
	tcase_add_loop_test(tc, events_stay_in_the_parent, 0, SETTINGS);
	tcase_add_loop_test(tc, misuse_is_loud, 0, ARRAY_SIZE(misuses));
	tc = add_case(suite, "shutdown", 20);
	tcase_add_loop_test(tc, no_more_checkouts, 0, SETTINGS);
	tcase_add_loop_test(tc, shutdown_ends_waiting, 0, SETTINGS);
	tcase_add_loop_test(tc, shutdown_amid_use, 0, SETTINGS);
	tc = add_case(suite, "races", getenv("BUFPOOL_TEST_ROUNDS") ? 3600 : 100);
	tcase_add_loop_test(tc, no_wake_up_is_lost, 0, SETTINGS);
	tcase_add_loop_test(tc, nobody_starves, 0, SETTINGS);
	return suite;
}

int main(void)
{
	/* The long form is for CI: BUFPOOL_TEST_SCALE=full. */
	setenv("BUFPOOL_TEST_SCALE", "small", 0);
	return run_suite(event_suite());
}
