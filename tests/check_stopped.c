/* SPDX-License-Identifier: MIT */
/*
 * check_stopped.c - a thread stopped at any instruction holds nobody up
 *
 * The walker is a thread that runs with the CPU's trap flag set: it gets a
 * SIGTRAP after each instruction, its own or the library's.  In the handler it
 * stands still, wherever that was, and lets the worker, another thread, do its
 * work, which must come to its end:
 *
 *   progress  take every idle buffer of the pool and return them all; only
 *             what the walker holds or moves may be missing.  Not after each
 *             instruction in one go, for that starves the walker, whose
 *             compare-and-swaps then all fail: after every STRIDE'th, from
 *             each start in turn.
 *   company   come to the pool, and read its statistics, while the walker does;
 *   destroy   destroy the pool while the walker is inside of bufpool_return();
 *             when that is through, the memory must be gone.
 *
 * The same flag shows each instruction before it is executed: what has to do
 * without atomic read-modify-writes, fences and system calls is seen to.
 */
#include "common.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <ucontext.h>

#if defined(__x86_64__)

#define TOTAL 24
#define DEPTH 6
#define HOLD 8 /* more than a cache, so that it refills and spills */
#define STRIDE 251
#define PATIENCE 20 /* seconds */

static struct {
	long steps;       /* the walker has done */
	long next;        /* it stops after that many, */
	long stride;      /* and again after so many more; 0: never */
	atomic_bool ask;  /* it has stopped: work */
	atomic_bool done; /* all is walked */
	void (*walk)(void);
	void (*work)(void);
	int warm; /* so many buffers are in the walker's cache at its start */

	bufpool_t *pool;
	bufpool_buf_t *buf;
	bool mapped; /* its memory is there after the walk */
	atomic_int held; /* the walker has at most so many buffers */
	int least;       /* the worker has found */
	long visits;     /* to the pool, by threads that came and went */
	struct sleeper guest;
} scene;

/* -------------------------------------------------------------- walker */

static void set_trap_flag(void)
{
	__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
}

static void clear_trap_flag(void)
{
	__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
}

static void on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *at = context;
	time_t start;

	(void) sig;
	(void) info;
	if (scene.steps++ != scene.next)
		return;
	scene.next += scene.stride;
	if (scene.stride == 0) /* the rest at full speed */
		at->uc_mcontext.gregs[REG_EFL] &= ~0x100;
	start = time(NULL);
	atomic_store(&scene.ask, true);
	while (atomic_load(&scene.ask)) {
		must(time(NULL) - start < PATIENCE);
		sched_yield();
	}
}

static void *walker(void *arg)
{
	bufpool_buf_t *bufs[DEPTH];
	size_t n = (size_t) scene.warm;

	(void) arg;
	must(bufpool_checkout_bulk(scene.pool, 1, bufs, n) == n);
	bufpool_thread_flush(scene.pool);
	bufpool_return_bulk(bufs, n);
	set_trap_flag();
	scene.walk();
	clear_trap_flag();
	atomic_store(&scene.done, true);
	return NULL;
}

static void walk_in_and_out(void)
{
	bufpool_buf_t *bufs[HOLD];

	for (int i = 0; i < HOLD; i++) {
		scene.held = i + 1;
		bufs[i] = bufpool_try_checkout(scene.pool, 1);
		must(bufs[i] != NULL);
	}
	for (int i = HOLD; i-- > 0; scene.held = i)
		bufpool_return(bufs[i]);
	bufpool_thread_flush(scene.pool);
}

static void come(void)
{
	bufpool_buf_t *buf = bufpool_try_checkout(scene.pool, 1);

	must(buf);
	bufpool_return(buf);
}

static void come_and_look(void)
{
	come();
	stats_of(scene.pool);
}

/* What threads that are gone have counted is seen once. */
static void walk_statistics(void)
{
	uint64_t least = (uint64_t) scene.visits, hits;

	hits = stats_of(scene.pool).hits;
	must(hits >= least && hits <= (uint64_t) scene.visits);
}

static void walk_return(void)
{
	void *data = scene.buf->data;

	bufpool_return(scene.buf);
	clear_trap_flag();
	/* Now, not after the thread's exit, which would put it right. */
	scene.mapped = is_mapped(data);
}

/* -------------------------------------------------------------- worker */

static void take_all(void)
{
	bufpool_buf_t *bufs[TOTAL + 1];
	int n = 0;

	while (n <= TOTAL && (bufs[n] = bufpool_try_checkout(scene.pool, 1)))
		n++;
	must(n <= TOTAL);
	must(n >= TOTAL - scene.held - (is_hardened() ? 1 : DEPTH));
	if (n < scene.least)
		scene.least = n;
	bufpool_return_bulk(bufs, (size_t) n);
}

static void *come_and_go(void *arg)
{
	come();
	return arg;
}

static void company(void)
{
	run_thread(come_and_go, NULL);
	scene.visits++;
	stats_of(scene.pool);
}

static void guest_leaves(void)
{
	wake_up(&scene.guest);
	must(stats_of(scene.pool).hits == (uint64_t) scene.visits);
}

static void destroy(void)
{
	bufpool_destroy(scene.pool);
}

/* Walk, and work when the walker stops: first after so many steps. */
static void play(long first, long stride)
{
	struct sigaction on = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	pthread_t thread;

	sigaction(SIGTRAP, &on, NULL);
	scene.steps = 0;
	scene.next = first;
	scene.stride = stride;
	scene.done = false;
	scene.held = scene.walk == walk_return ? 2 : 0;
	thread = start_thread(walker, NULL);
	while (!atomic_load(&scene.done)) {
		if (atomic_load(&scene.ask)) {
			scene.work();
			atomic_store(&scene.ask, false);
		}
		usleep(10); /* leave the CPU to other tests */
	}
	join_thread(thread);
}

/* --------------------------------------------------------------- tests */

static bufpool_t *small_pool(void)
{
	bufpool_config_t cfg = class_config(BUFPOOL_CLASS_4K, TOTAL);

	cfg.cache[BUFPOOL_CLASS_4K] = DEPTH;
	/* rep stos traps after each of its iterations */
	if (!is_hardened())
		cfg.wipe = BUFPOOL_WIPE_NONE;
	return make_pool(cfg);
}

/* A return when the pool has erased the buffer: its last steps, from this one on. */
#define LAST_STEPS 80

static void no_work(void)
{
}

static long when_erased(void)
{
	if (!is_hardened())
		return 0;
	scene.work = no_work;
	scene.pool = small_pool();
	scene.buf = bufpool_try_checkout(scene.pool, 1);
	play(LONG_MAX, 1);
	bufpool_destroy(scene.pool);
	return scene.steps > LAST_STEPS ? scene.steps - LAST_STEPS : 0;
}

START_TEST(progress)
{
	/* CI's full scale starts at every ninth. */
	const long apart = is_small() ? (is_hardened() ? 80 : 40)
	                   : is_scale("full") ? 9
	                                      : 27;

	scene.walk = walk_in_and_out;
	scene.work = take_all;
	scene.pool = small_pool();
	for (long first = 0; first < STRIDE; first += apart) {
		scene.least = TOTAL;
		play(first, STRIDE);
		/* It was stopped, also when it held as many as it ever does. */
		ck_assert_int_gt(scene.steps, 500);
		ck_assert_int_le(scene.least, TOTAL - HOLD + 1);
		must_be_whole(scene.pool);
	}
	bufpool_destroy(scene.pool);
}
END_TEST

/* Nobody is held up by a return, wherever it is stopped, nor by the returns of others
   after that. */
START_TEST(progress_beside_return)
{
	const long apart = is_scale("full") ? 1 : is_hardened() ? 2 : 7;
	bufpool_buf_t *rest[2];
	long at;

	scene.walk = walk_return;
	scene.warm = 1;
	at = when_erased();
	scene.work = take_all;
	scene.pool = small_pool();
	for (;; at += apart) {
		must(bufpool_checkout_bulk(scene.pool, 1, rest, 2) == 2);
		scene.buf = rest[0];
		play(at, 0);
		bufpool_return(rest[1]);
		must_be_whole(scene.pool);
		if (scene.steps <= at)
			break;
	}
	ck_assert_int_gt(at, 20); /* it is a return */
	bufpool_destroy(scene.pool);
}
END_TEST

/* A thread that is stopped in a growth holds up nobody. */
static void walk_growth(void)
{
	must(bufpool_grow(scene.pool, BUFPOOL_CLASS_4K, 2) == 0);
}

static void take_what_is_there(void)
{
	bufpool_buf_t *bufs[TOTAL + 1];
	size_t n = TOTAL;

	must(drain(scene.pool, BUFPOOL_CLASS_4K, bufs, n) == n);
	/* For one more it would have to grow. */
	bufs[n] = bufpool_try_checkout(scene.pool, 1);
	bufpool_return_bulk(bufs, n + (bufs[n] != NULL));
}

START_TEST(progress_beside_growth)
{
	const long apart = is_small() ? 1997 : is_scale("full") ? 29 : 499;
	long at = 0;

	scene.walk = walk_growth;
	scene.work = take_what_is_there;
	scene.warm = 1;
	for (;; at += apart) {
		bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, TOTAL);

		config.max_count[BUFPOOL_CLASS_4K] = 4 * TOTAL;
		config.cache[BUFPOOL_CLASS_4K] = DEPTH;
		config.wipe = is_hardened() ? BUFPOOL_WIPE_ALL
		                            : BUFPOOL_WIPE_NONE;
		scene.pool = make_pool(config);
		play(at, 0);
		must(stats_of(scene.pool).per_class[BUFPOOL_CLASS_4K].total >=
		     TOTAL + 2);
		bufpool_destroy(scene.pool);
		if (scene.steps <= at)
			break;
	}
	ck_assert_int_gt(at, 1000); /* it is a growth */
}
END_TEST

/* The walker's berth is a new one, or one that had an owner, whose counts are still
   to be added to the pool's. */
START_TEST(comers_beside_comers)
{
	const long apart = is_small() ? 160 : is_scale("full") ? 9 : 126;
	bufpool_class_stats_t now;

	scene.walk = come_and_look;
	scene.work = company;
	for (long first = 0; first < STRIDE; first += apart) {
		scene.pool = small_pool();
		scene.visits = 0;
		for (int i = 0; i < 2; i++) {
			play(first, STRIDE);
			ck_assert_int_gt(scene.steps, 500);
			if (i == 0)
				run_thread(come_and_go, NULL);
		}
		now = stats_of(scene.pool).per_class[BUFPOOL_CLASS_4K];
		ck_assert_uint_eq(now.checked_out, 0);
		ck_assert_uint_eq(now.cache_hits + now.depot_hits + now.stolen,
		                  3 + (uint64_t) scene.visits);
		must_be_whole(scene.pool);
		bufpool_destroy(scene.pool);
	}
}
END_TEST

/* One reads the statistics when another is in the middle of it; what that sees in a
   cache is then counted elsewhere, for the guest has gone. */
START_TEST(readers_beside_readers)
{
	const long apart = is_small() ? 160 : is_scale("full") ? 3 : 37;
	long at = 0;

	scene.walk = walk_statistics;
	scene.work = guest_leaves;
	scene.visits = 0;
	scene.pool = small_pool();
	for (;; at += apart) {
		put_to_sleep(&scene.guest, scene.pool, 1);
		run_thread(come_and_go, NULL);
		scene.visits += 2;
		play(at, 0);
		if (scene.steps <= at)
			break;
	}
	guest_leaves();
	ck_assert_int_gt(at, 300);
	must_be_whole(scene.pool);
	bufpool_destroy(scene.pool);
}
END_TEST

/* Destroy after so many steps of the walker; false if that is too many. */
static bool destroy_after(long steps)
{
	scene.pool = small_pool();
	scene.buf = bufpool_try_checkout(scene.pool, 1);
	play(steps, 0);
	if (scene.steps <= steps) {
		bufpool_destroy(scene.pool);
		return false;
	}
	ck_assert_msg(!scene.mapped, "destroyed after step %ld: not freed",
	              steps);
	return true;
}

static void destroy_beside_return(int warm, int stride)
{
	long steps;

	scene.walk = walk_return;
	scene.warm = warm;
	steps = when_erased();
	scene.work = destroy;
	while (destroy_after(steps))
		steps += is_small() && !is_hardened() ? stride * 20 : stride;
	ck_assert_int_gt(steps, 20); /* it is a return */
}

START_TEST(destroy_beside_put)
{
	destroy_beside_return(1, 1);
}
END_TEST

/* The magazine is full: half of it goes to the depot first. */
START_TEST(destroy_beside_spill)
{
	destroy_beside_return(DEPTH, 2);
}
END_TEST

/* The return makes the thread's cache first: a long way. */
START_TEST(destroy_beside_first_return)
{
	destroy_beside_return(0, 17);
}
END_TEST

/* ------------------------------------------------- without atomic operations */

static long costly; /* instructions */

/* A lock prefix; xchg with memory, which needs none; mfence; syscall. */
static bool is_costly(const unsigned char *code)
{
	while (memchr("\x26\x2e\x36\x3e\x64\x65\x66\xf2\xf3", *code, 9))
		code++;
	if (*code == 0xf0)
		return true;
	if ((*code & 0xf0) == 0x40)
		code++;
	return ((*code & 0xfe) == 0x86 && code[1] < 0xc0) ||
	       memcmp(code, "\x0f\xae\xf0", 3) == 0 ||
	       memcmp(code, "\x0f\x05", 2) == 0;
}

static void on_instruction(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *at = context;

	(void) sig;
	(void) info;
	costly += is_costly((void *) at->uc_mcontext.gregs[REG_RIP]);
}

/* How many of them the statement executes. */
#define COSTLY(statement)                                                  \
	({                                                                 \
		costly = 0;                                                \
		set_trap_flag();                                           \
		statement;                                                 \
		clear_trap_flag();                                         \
		costly;                                                    \
	})

/* One has been here, got nothing and gone; the next return learns of it, and for
   some time nothing is cached. */
static void wait_in_vain(bufpool_t *pool)
{
	const struct timespec no_time = {0, 0};
	bufpool_buf_t *bufs[TOTAL];

	must(bufpool_checkout_bulk(pool, 1, bufs, TOTAL) == TOTAL);
	must(!bufpool_checkout_wait(pool, 1, &no_time));
	bufpool_return_bulk(bufs, TOTAL);
	make_plentiful(pool);
	bufpool_return(bufpool_checkout(pool, 1));
}

/* The only holder pays nothing for others, nor a return without a waiter. */
START_TEST(no_atomic_operation)
{
	struct sigaction on = {.sa_sigaction = on_instruction,
	                       .sa_flags = SA_SIGINFO};
	bufpool_t *pool = small_pool();
	bufpool_frozen_t *f;
	bufpool_buf_t *buf;

	sigaction(SIGTRAP, &on, NULL);
	wait_in_vain(pool);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(COSTLY(buf = bufpool_checkout(pool, 1)), 0);
		ck_assert_int_eq(COSTLY(f = bufpool_freeze(buf)), 0);
		ck_assert_int_eq(COSTLY(buf = bufpool_thaw(f)), 0);
		ck_assert_int_eq(COSTLY(bufpool_return(buf)), 0);
		f = bufpool_freeze(bufpool_checkout(pool, 1));
		/* It can see them. */
		ck_assert_int_eq(COSTLY(bufpool_frozen_ref(f)), 1);
		ck_assert_int_eq(COSTLY(bufpool_frozen_unref(f)), 1);
		ck_assert_int_eq(COSTLY(bufpool_frozen_unref(f)), 0);
	}
	destroy_whole(pool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stopped");
	TCase *tc = add_case(suite, "stopped", 60);

	tcase_add_test(tc, progress);
	tcase_add_test(tc, progress_beside_return);
	tcase_add_test(tc, destroy_beside_put);
	tcase_add_test(tc, destroy_beside_first_return);
	if (is_hardened()) /* the others are about caches */
		return run_suite(suite);
	tcase_add_test(tc, progress_beside_growth);
	tcase_add_test(tc, comers_beside_comers);
	tcase_add_test(tc, readers_beside_readers);
	tcase_add_test(tc, destroy_beside_spill);
	tc = add_case(suite, "atomic", 20);
	tcase_add_test(tc, no_atomic_operation);
	return run_suite(suite);
}

#else

int main(void)
{
	puts("skipped: single-stepping from inside is written for x86-64");
	return 77;
}

#endif
