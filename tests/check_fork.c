/* SPDX-License-Identifier: MIT */
/*
 * check_fork.c - in a child the pools work on, and the parent does not notice
 *
 * A child has one thread.  What others of the parent's threads held is out for
 * ever; what they had cached, or were just moving, is there, and erased.  Each
 * child ends by alarm() if it does not by itself.
 */
#include "common.h"

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* ---------------------------------------------------------------- children */

/* Its wait status: 0 if nothing failed. */
static int status_of_child(void (*fn)(void *arg), void *arg)
{
	int status;
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		signal(SIGALRM, SIG_DFL); /* Check's handler would end all */
		alarm(is_small() ? 120 : 15);
		fn(arg);
		_exit(0);
	}
	must(waitpid(child, &status, 0) == child);
	return status;
}

/* From any thread. */
static void must_be_well(void (*fn)(void *arg), void *arg)
{
	int status = status_of_child(fn, arg);

	if (status != 0)
		fprintf(stderr, "child: wait status %#x\n", (unsigned) status);
	must(status == 0);
}

/* In the child, or before. */
static size_t idle_of(const bufpool_t *pool, int size_class)
{
	return stats_of(pool).per_class[size_class].idle;
}

/* All that is idle can be had, is erased, and there is no more. */
static void must_have(bufpool_t *pool, int size_class, size_t n)
{
	bufpool_buf_t **bufs = calloc(n + 1, sizeof(bufs[0]));

	must(bufs);
	must(idle_of(pool, size_class) == n);
	must(drain(pool, size_class, bufs, n + 1) == n);
	must(idle_of(pool, size_class) == 0);
	must(are_disjoint(bufs, n));
	for (size_t i = 0; i < n; i++) {
		must(is_zero(bufs[i]));
		fill(bufs[i], 0x99);
	}
	bufpool_return_bulk(bufs, n);
	must(idle_of(pool, size_class) == n);
	free(bufs);
}

/* Use it in earnest, in some threads too. */
static void *use_and_exit(void *arg)
{
	bufpool_t *pool = arg;
	bufpool_buf_t *bufs[3];

	for (int i = 0; i < 20; i++) {
		size_t n = bufpool_checkout_bulk(pool, PAGE, bufs, 3);

		for (size_t j = 0; j < n; j++) {
			must(is_zero(bufs[j]));
			fill(bufs[j], 0x77);
		}
		bufpool_return_bulk(bufs, n);
	}
	return NULL;
}

static void use_in_threads(bufpool_t *pool)
{
	pthread_t threads[3];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start_thread(use_and_exit, pool);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
}

/* A pool that the child makes is a pool like any other. */
static void use_new_pool(void)
{
	bufpool_t *pool = make_pool(even_config(2));

	use_and_exit(pool);
	use_in_threads(pool);
	destroy_whole(pool);
}

static const size_t depths[] = {BUFPOOL_CACHE_AUTO, SIZE_MAX - 1, 1, 0};

enum { DEPTHS = ARRAY_SIZE(depths) };

static bufpool_t *depth_pool(size_t depth, size_t count)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, count);

	set_cache(&config, depth);
	return make_pool(config);
}

/* --------------------------------------------------- held by who forks */

/* From the pool, from the heap in its stead, and oversize. */
static const size_t sizes[] = {100, 4096, 65536, 1048577};

enum { SIZES = ARRAY_SIZE(sizes) };

struct held {
	bufpool_t *pool;
	bufpool_buf_t *bufs[SIZES];
	bufpool_frozen_t *frozen[SIZES];
	bufpool_slice_t slices[SIZES];
};

static void take_held(struct held *held)
{
	for (int i = 0; i < SIZES; i++) {
		bufpool_buf_t *buf = bufpool_checkout(held->pool, sizes[i]);

		held->bufs[i] = bufpool_checkout(held->pool, sizes[i]);
		must(buf && held->bufs[i]);
		fill(held->bufs[i], 0x10 + i);
		fill(buf, 0x20 + i);
		held->frozen[i] = bufpool_freeze(buf);
		held->slices[i] = bufpool_slice(held->frozen[i], 10, 20);
	}
}

static void is_held(const struct held *held)
{
	for (int i = 0; i < SIZES; i++) {
		const bufpool_buf_t *buf = held->bufs[i];

		must(buf->len == sizes[i]);
		must(all_bytes(buf->data, buf->capacity, 0x10 + i));
		must(bufpool_frozen_len(held->frozen[i]) == sizes[i]);
		must(all_bytes(bufpool_frozen_data(held->frozen[i]), sizes[i],
		               0x20 + i));
		must(all_bytes(held->slices[i].data, 20, 0x20 + i));
	}
}

static void let_go(struct held *held)
{
	for (int i = 0; i < SIZES; i++) {
		bufpool_buf_t *buf;

		errno = 0;
		must(bufpool_thaw(held->frozen[i]) == NULL && errno == EBUSY);
		if (i % 2) {
			bufpool_slice_release(&held->slices[i]);
			buf = bufpool_thaw(held->frozen[i]);
			must(buf);
			fill(buf, 0xee);
			bufpool_return(buf);
		} else {
			bufpool_frozen_unref(held->frozen[i]);
			bufpool_slice_release(&held->slices[i]);
		}
		fill(held->bufs[i], 0xdd);
		bufpool_return(held->bufs[i]);
	}
}

/* The child's statistics are new: as if it had just taken what it holds. */
static void must_start_anew(const struct held *held)
{
	bufpool_stats_t stats = stats_of(held->pool);

	must(stats.checked_out == 2 * SIZES);
	must(stats.peak_checked_out == stats.checked_out);
	must(stats.peak_bytes_checked_out == stats.bytes_checked_out);
	must(stats.per_class[BUFPOOL_CLASS_4K].peak_checked_out == 4);
	must(stats.per_class[BUFPOOL_CLASS_64K].peak_checked_out == 2);
	must(stats.hits + stats.misses == 0);
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		must(stats.per_class[k].exhausted == 0);
}

static void go_on_with_held(void *arg)
{
	struct held *held = arg;

	is_held(held);
	must_start_anew(held);
	let_go(held);
	must_be_whole(held->pool);
	for (int i = 0; i < 2; i++) {
		take_held(held);
		is_held(held);
		let_go(held);
		use_in_threads(held->pool);
	}
	destroy_whole(held->pool);
	use_new_pool();
}

START_TEST(who_forks_keeps_what_it_holds)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 6);
	bufpool_stats_t before, after;
	struct held held;

	set_cache(&config, depths[_i]);
	held.pool = make_pool(config);
	take_held(&held);
	ck_assert(!bufpool_try_checkout(held.pool, 65536));
	before = stats_of(held.pool);
	for (int i = 0; i < 3; i++)
		must_be_well(go_on_with_held, &held);
	after = stats_of(held.pool);
	ck_assert_mem_eq(&before, &after, sizeof(before));
	is_held(&held);
	let_go(&held);
	destroy_whole(held.pool);
}
END_TEST

/* The same after the pool's destroy: the memory goes in each of the two. */
static void let_go_of_the_rest(void *arg)
{
	struct held *held = arg;
	const void *data = held->bufs[0]->data;

	is_held(held);
	must(is_mapped(data));
	let_go(held);
	must(!is_mapped(data));
	use_new_pool();
}

START_TEST(destroyed_with_buffers_out)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 6);
	struct held held;

	set_cache(&config, depths[_i]);
	held.pool = make_pool(config);
	take_held(&held);
	bufpool_destroy(held.pool);
	for (int i = 0; i < 3; i++)
		must_be_well(let_go_of_the_rest, &held);
	let_go_of_the_rest(&held);
}
END_TEST

/* The child destroys what the parent goes on to use. */
static void destroy_then_let_go(void *arg)
{
	struct held *held = arg;

	bufpool_destroy(held->pool);
	let_go_of_the_rest(arg);
}

START_TEST(destroyed_by_the_child)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 6);
	struct held held;

	set_cache(&config, depths[_i]);
	held.pool = make_pool(config);
	use_and_exit(held.pool);
	take_held(&held);
	for (int i = 0; i < 3; i++)
		must_be_well(destroy_then_let_go, &held);
	let_go(&held);
	destroy_whole(held.pool);
}
END_TEST

/* --------------------------------------------------- held by other threads */

/* Some threads that cache some, hold some, and sleep. */
enum {
	OTHERS = 5,
	CACHED = 3, /* by each */
	HELD = 2,
	OURS = 4,
	SPARE = 3,
	TOTAL = OTHERS * (CACHED + HELD) + OURS + SPARE
};

static struct {
	bufpool_t *pool;
	pthread_barrier_t taken, asleep, wake;
	pthread_t threads[OTHERS];
	bufpool_buf_t *ours[OURS];
	bufpool_frozen_t *shared; /* also by the others */
} peers;

static void *cache_hold_and_sleep(void *arg)
{
	bufpool_buf_t *bufs[CACHED + HELD];
	const size_t n = ARRAY_SIZE(bufs);

	must(bufpool_checkout_bulk(peers.pool, 1, bufs, n) == n);
	meet(&peers.taken);
	bufpool_return_bulk(bufs, CACHED);
	for (size_t i = CACHED; i < n; i++)
		fill(bufs[i], 0x66);
	bufpool_frozen_ref(peers.shared);
	meet(&peers.asleep);
	meet(&peers.wake);
	for (size_t i = CACHED; i < n; i++)
		must(all_bytes(bufs[i]->data, PAGE, 0x66));
	bufpool_return_bulk(bufs + CACHED, HELD);
	bufpool_frozen_unref(peers.shared);
	return arg;
}

static void start_peers(size_t depth)
{
	peers.pool = depth_pool(depth, TOTAL);
	pthread_barrier_init(&peers.taken, NULL, OTHERS);
	pthread_barrier_init(&peers.asleep, NULL, OTHERS + 1);
	pthread_barrier_init(&peers.wake, NULL, OTHERS + 1);
	must(bufpool_checkout_bulk(peers.pool, 1, peers.ours, OURS) == OURS);
	peers.shared = bufpool_freeze(peers.ours[OURS - 1]);
	for (int i = 0; i < OTHERS; i++)
		peers.threads[i] = start_thread(cache_hold_and_sleep, NULL);
	meet(&peers.asleep);
	for (int i = 0; i < OURS - 1; i++)
		fill(peers.ours[i], 0x33);
}

static void end_peers(void)
{
	meet(&peers.wake);
	for (int i = 0; i < OTHERS; i++)
		join_thread(peers.threads[i]);
	for (int i = 0; i < OURS - 1; i++)
		must(all_bytes(peers.ours[i]->data, PAGE, 0x33));
	bufpool_return_bulk(peers.ours, OURS - 1);
	bufpool_frozen_unref(peers.shared);
	destroy_whole(peers.pool);
}

/* What they had cached is ours now, what they hold is gone. */
static void without_the_others(void *arg)
{
	const size_t theirs = OTHERS * HELD;
	bufpool_stats_t stats = stats_of(peers.pool);

	must(stats.per_class[BUFPOOL_CLASS_4K].total == TOTAL);
	must(stats.checked_out == theirs + OURS);
	must(stats.per_class[BUFPOOL_CLASS_4K].checked_out == theirs + OURS);
	must(stats.hits == 0 && stats.misses == 0);
	must_have(peers.pool, BUFPOOL_CLASS_4K, TOTAL - theirs - OURS);
	must(stats_of(peers.pool).hits == TOTAL - theirs - OURS);
	must(stats_of(peers.pool).misses == 0);
	use_in_threads(peers.pool);
	for (int i = 0; i < OURS - 1; i++)
		must(all_bytes(peers.ours[i]->data, PAGE, 0x33));
	bufpool_return_bulk(peers.ours, OURS - 1);
	/* References of others will never be dropped. */
	errno = 0;
	must(!bufpool_thaw(peers.shared) && errno == EBUSY);
	bufpool_frozen_unref(peers.shared);
	must(stats_of(peers.pool).checked_out == theirs + 1);
	must_have(peers.pool, BUFPOOL_CLASS_4K, TOTAL - theirs - 1);
	bufpool_thread_flush(NULL);
	must_have(peers.pool, BUFPOOL_CLASS_4K, TOTAL - theirs - 1);
	bufpool_destroy(peers.pool);
	/* There are some out, so it is there. */
	must(bufpool_frozen_len(peers.shared) == 1);
	use_new_pool();
	(void) arg;
}

START_TEST(what_others_cached_comes_back)
{
	bufpool_stats_t before, after;

	start_peers(depths[_i]);
	before = stats_of(peers.pool);
	for (int i = 0; i < 3; i++)
		must_be_well(without_the_others, NULL);
	after = stats_of(peers.pool);
	ck_assert_mem_eq(&before, &after, sizeof(before));
	end_peers();
}
END_TEST

/* ------------------------------------------------------------- early copies */

/*
 * While the kernel copies the memory the others run on, so that the child may
 * have a descriptor that says home with a payload from before its erasure.  By
 * chance that is rare: here every idle buffer looks like one.
 */
static const enum bufpool_wipe wipes[] = {BUFPOOL_WIPE_ALL, BUFPOOL_WIPE_USED,
                                          BUFPOOL_WIPE_NONE};

struct early {
	bufpool_t *pool;
	enum bufpool_wipe wipe;
	int size_class;
};

/* A few in the cache of who forks, the rest in the depot. */
static void look_idle_but_early(const struct early *early)
{
	bufpool_buf_t *bufs[8];
	void *data[8];
	size_t n = drain(early->pool, early->size_class, bufs, 8);

	for (size_t i = 0; i < n; i++)
		data[i] = bufs[i]->data;
	bufpool_return_bulk(bufs, n);
	for (size_t i = 0; i < n; i++)
		poke(data[i], 0x5c, classes[early->size_class].size);
}

/* Erased, if anything ever is. */
static void take_early_copies(void *arg)
{
	const struct early *early = arg;
	size_t size = classes[early->size_class].size;
	bufpool_buf_t *bufs[8];

	must(drain(early->pool, early->size_class, bufs, 8) == 8);
	for (int i = 0; i < 8; i++)
		must(all_bytes(bufs[i]->data, size,
		               early->wipe == BUFPOOL_WIPE_NONE ? 0x5c : 0));
	bufpool_return_bulk(bufs, 8);
}

/* The loop index is the wipe mode, then the class. */
START_TEST(early_copies_are_erased)
{
	int size_class = _i / (int) ARRAY_SIZE(wipes);
	bufpool_config_t config = class_config(size_class, 8);
	struct early early = {.wipe = wipes[_i % ARRAY_SIZE(wipes)],
	                      .size_class = size_class};

	config.wipe = early.wipe;
	early.pool = make_pool(config);
	look_idle_but_early(&early);
	must_be_well(take_early_copies, &early);
	bufpool_destroy(early.pool);
}
END_TEST

/* ------------------------------------------------------------- generations */

/* Three generations, each with threads of its own that are lost to the next. */
struct family {
	bufpool_t *pool;
	pthread_barrier_t asleep;
	size_t generation, lost;
};

static void *cache_and_hold_for_ever(void *arg)
{
	struct family *family = arg;
	bufpool_buf_t *bufs[3];

	must(bufpool_checkout_bulk(family->pool, 1, bufs, 3) == 3);
	fill(bufs[0], 0x11);
	bufpool_return_bulk(bufs + 1, 2);
	meet(&family->asleep);
	pause();
	return NULL;
}

static void live_and_fork(void *arg)
{
	struct family *family = arg;
	bufpool_buf_t *own;

	must_have(family->pool, BUFPOOL_CLASS_4K, 20 - family->lost);
	if (family->generation++ == 3)
		return;
	own = bufpool_checkout(family->pool, 1);
	pthread_barrier_init(&family->asleep, NULL, 3);
	for (int i = 0; i < 2; i++)
		start_thread(cache_and_hold_for_ever, family);
	meet(&family->asleep);
	family->lost += 3;
	must_have(family->pool, BUFPOOL_CLASS_4K, 20 - family->lost);
	must_be_well(live_and_fork, family);
	fill(own, 0x22);
	bufpool_return(own);
	must_have(family->pool, BUFPOOL_CLASS_4K, 20 - family->lost + 1);
}

START_TEST(children_fork_too)
{
	struct family family = {.pool = depth_pool(depths[_i], 20)};

	must_be_well(live_and_fork, &family);
	destroy_whole(family.pool);
}
END_TEST

/* ------------------------------------------------------------- many pools */

static void use_every_other(void *arg)
{
	bufpool_t **pools = arg;

	for (int i = 0; i < 20; i++) {
		must_have(pools[i], BUFPOOL_CLASS_4K, 4);
		if (i % 3 == 0)
			bufpool_destroy(pools[i]);
	}
	use_new_pool();
	for (int i = 0; i < 20; i++)
		if (i % 3)
			use_in_threads(pools[i]);
}

START_TEST(many_pools)
{
	bufpool_t *pools[20];

	for (int i = 0; i < 20; i++) {
		pools[i] = depth_pool(depths[i % DEPTHS], 4);
		use_and_exit(pools[i]);
	}
	/* Some that came and went, and left caches to be used again. */
	for (int i = 0; i < 3; i++) {
		bufpool_t *pool = make_pool(even_config(2));

		use_and_exit(pool);
		use_in_threads(pool);
		bufpool_destroy(pool);
		must_be_well(use_every_other, pools);
	}
	for (int i = 0; i < 20; i++) {
		destroy_whole(pools[i]);
	}
}
END_TEST

/* ----------------------------------------------------- who forks and exits */

static pthread_t forker;

/* The only thread that the child had is gone: what it cached is home. */
static void *await_the_forker(void *arg)
{
	bufpool_t *pool = arg;

	join_thread(forker);
	must(stats_of(pool).per_class[BUFPOOL_CLASS_4K].cached == 0);
	must_have(pool, BUFPOOL_CLASS_4K, 8 - 1);
	_exit(0);
}

static void exit_in_the_child(void *arg)
{
	use_and_exit(arg);
	start_thread(await_the_forker, arg);
	pthread_exit(NULL);
}

static void *fork_and_exit(void *arg)
{
	forker = pthread_self();
	use_and_exit(arg);
	must_be_well(exit_in_the_child, arg);
	return NULL;
}

/* Not the main thread forks: so it is one of the others, with one held. */
START_TEST(another_thread_forks)
{
	bufpool_t *pool = depth_pool(depths[_i], 8);
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	use_and_exit(pool);
	for (int i = 0; i < 3; i++)
		run_thread(fork_and_exit, pool);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* ----------------------------------------------------------------- waiters */

static void *return_soon(void *buf)
{
	usleep(5000);
	bufpool_return(buf);
	/* Not the exit is to wake them. */
	pause();
	return NULL;
}

static void *wait_long(void *arg)
{
	const struct timespec timeout = {20, 0};
	bufpool_buf_t *buf = bufpool_checkout_wait(arg, 1, &timeout);

	must(buf);
	bufpool_return(buf);
	return NULL;
}

/* All is ours, as no thread waits here: we do. */
static void wait_in_the_child(void *arg)
{
	const struct timespec moment = {0, 1000000}, timeout = {10, 0};
	bufpool_t *pool = arg;
	bufpool_buf_t *bufs[3];

	must(drain(pool, BUFPOOL_CLASS_4K, bufs, 2) == 1);
	errno = 0;
	must(!bufpool_checkout_wait(pool, 1, &moment) && errno == ETIMEDOUT);
	start_thread(return_soon, bufs[0]);
	bufs[0] = bufpool_checkout_wait(pool, 1, &timeout);
	must(bufs[0] && is_zero(bufs[0]));
	bufpool_return(bufs[0]);
	must_have(pool, BUFPOOL_CLASS_4K, 1);
}

START_TEST(waiters_of_the_parent)
{
	bufpool_t *pool = depth_pool(depths[_i], 1);
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		threads[i] = start_thread(wait_long, pool);
	usleep(20000);
	/* The last one is taken before, and given back in the child. */
	for (int i = 0; i < 3; i++) {
		int status;
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			alarm(15);
			bufpool_return(buf);
			wait_in_the_child(pool);
			_exit(0);
		}
		must(waitpid(child, &status, 0) == child);
		ck_assert_int_eq(status, 0);
	}
	bufpool_return(buf);
	for (int i = 0; i < 3; i++)
		join_thread(threads[i]);
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------- handlers of the program's own */

/*
 * Pools are used, made and destroyed in fork handlers, of which some were registered
 * before the library's own: those are called while it has begun, and not ended.
 */
enum when { PREPARE, PARENT, CHILD, WHENS };

static void (*on_fork)(bool early, enum when when);

#define HANDLER(name, early, when)                                         \
	static void name(void)                                             \
	{                                                                  \
		if (on_fork)                                               \
			on_fork(early, when);                              \
	}
HANDLER(early_prepare, true, PREPARE)
HANDLER(early_parent, true, PARENT)
HANDLER(early_child, true, CHILD)
HANDLER(late_prepare, false, PREPARE)
HANDLER(late_parent, false, PARENT)
HANDLER(late_child, false, CHILD)
#undef HANDLER

/* Before anything of a library is called. */
static void register_early(void)
{
	pthread_atfork(early_prepare, early_parent, early_child);
}
__attribute__((section(".preinit_array"), used)) static void (
	*const before_all)(void) = register_early;

static void register_late(void)
{
	must(pthread_atfork(late_prepare, late_parent, late_child) == 0);
}

/* The one handler that does something, and what it leaves and finds. */
static struct {
	bool early;
	enum when when;
	bufpool_t *made, *doomed;
	bufpool_buf_t *buf; /* of made */
} handling;

enum { IDLE = TOTAL - OTHERS * HELD - OURS };

/* Others work meanwhile, too. */
static void handle(bool early, enum when when)
{
	if (early != handling.early || when != handling.when)
		return;
	must_have(peers.pool, BUFPOOL_CLASS_4K, IDLE);
	use_in_threads(peers.pool);
	use_new_pool();
	handling.made = make_pool(even_config(2));
	handling.buf = bufpool_checkout(handling.made, 1);
	fill(handling.buf, 0x44);
	destroy_whole(handling.doomed);
	handling.doomed = NULL;
}

static void go_on_after_handlers(void *arg)
{
	(void) arg;
	must_have(peers.pool, BUFPOOL_CLASS_4K, IDLE);
	use_in_threads(peers.pool);
	if (handling.made) {
		must(all_bytes(handling.buf->data, PAGE, 0x44));
		bufpool_return(handling.buf);
		use_in_threads(handling.made);
		destroy_whole(handling.made);
	}
	if (handling.doomed)
		destroy_whole(handling.doomed);
}

/* The loop index is when, then whether early, then the depth. */
START_TEST(handlers_use_pools)
{
	handling.when = (enum when) (_i % WHENS);
	handling.early = _i / WHENS % 2;
	handling.doomed = make_pool(even_config(2));
	start_peers(depths[_i / WHENS / 2]);
	use_in_threads(handling.doomed);
	on_fork = handle;
	must_be_well(go_on_after_handlers, NULL);
	on_fork = NULL;
	/* What a child has done is nothing to us. */
	ck_assert((handling.made != NULL) == (handling.when != CHILD));
	go_on_after_handlers(NULL);
	end_peers();
}
END_TEST

/*
 * The first call in a child, before the library's handler: it finds the pools as a
 * child does, and what it does lasts.
 */
static struct {
	bufpool_t *pool, *made;
	bufpool_buf_t *buf, *large, *got[2]; /* buf and large are out */
	bufpool_event_t *event;
	int attached, detached;
} first;

static void *count_attach(void *arg, const bufpool_region_t *region)
{
	(void) arg;
	(void) region;
	first.attached++;
	return &first;
}

static void count_detach(void *arg, const bufpool_region_t *region,
                         void *cookie)
{
	(void) arg;
	(void) region;
	must(cookie == &first);
	first.detached++;
}

static bufpool_t *attached_pool(void)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 8);

	config.region_attach = count_attach;
	config.region_detach = count_detach;
	return make_pool(config);
}

static void by_checkout(void)
{
	first.got[0] = bufpool_checkout(first.pool, 1);
	must(first.got[0]);
}

static void by_class(void)
{
	first.got[0] = bufpool_checkout_4k(first.pool);
	must(first.got[0]);
}

static void by_bulk(void)
{
	must(bufpool_checkout_bulk(first.pool, 1, first.got, 2) == 2);
}

static void by_return(void)
{
	bufpool_return(first.buf);
	first.buf = NULL;
}

static void by_unref(void)
{
	bufpool_frozen_unref(bufpool_freeze(first.buf));
	first.buf = NULL;
}

static void by_flush(void)
{
	bufpool_thread_flush(NULL);
}

static void by_heap(void)
{
	first.got[0] = bufpool_checkout(first.pool, classes[3].size + 1);
	must(first.got[0]);
}

static void by_heap_return(void)
{
	bufpool_return(first.large);
	first.large = NULL;
}

static void by_stats(void)
{
	must(stats_of(first.pool).hits == 0);
}

static void by_regions(void)
{
	bufpool_region_t region;

	must(bufpool_regions(first.pool, &region, 1) == 1);
	must(!region.cookie);
}

static void by_trim(void)
{
	must(bufpool_trim(first.made) == 8 * PAGE);
}

static void by_create(void)
{
	bufpool_region_t region;

	bufpool_destroy(first.made);
	first.attached = first.detached = 0;
	first.made = attached_pool();
	must(first.attached == 1);
	must(bufpool_regions(first.made, &region, 1) == 1);
	must(region.cookie == &first);
}

static void by_destroy(void)
{
	bufpool_destroy(first.made);
	first.made = NULL;
}

static void by_event(void)
{
	first.event = bufpool_event_open(first.made, 1);
	must(first.event);
}

static void by_arming(void)
{
	errno = 0;
	must(bufpool_event_arm(first.event) == -1 && errno == EPERM);
}

static void by_closing(void)
{
	bufpool_event_close(first.event);
	first.event = NULL;
}

static void by_shutdown(void)
{
	bufpool_shutdown(first.made);
}

static const struct {
	void (*call)(void);
	unsigned hits, misses;
} calls[] = {
	{by_checkout, 1, 0}, {by_class, 1, 0},       {by_bulk, 2, 0},
	{by_return, 0, 0},   {by_unref, 0, 0},       {by_flush, 0, 0},
	{by_heap, 0, 1},     {by_heap_return, 0, 0}, {by_stats, 0, 0},
	{by_regions, 0, 0},  {by_trim, 0, 0},        {by_create, 0, 0},
	{by_destroy, 0, 0},  {by_event, 0, 0},       {by_arming, 0, 0},
	{by_closing, 0, 0},  {by_shutdown, 0, 0},
};

static void (*first_call)(void);

static void call_first(bool early, enum when when)
{
	/* Used last, for the fast paths to find. */
	if (early && when == PREPARE)
		use_and_exit(first.pool);
	if (early && when == CHILD)
		first_call();
}

/* arg: of the calls. */
static void after_the_first(void *arg)
{
	const int i = *(const int *) arg;
	bufpool_stats_t stats = stats_of(first.pool);

	must(stats.hits == calls[i].hits);
	must(stats.misses == calls[i].misses);
	must(stats.checked_out ==
	     (size_t) (first.buf != NULL) + (first.large != NULL) +
		     (first.got[0] != NULL) + (first.got[1] != NULL));
	bufpool_return(first.buf);
	bufpool_return(first.large);
	bufpool_return_bulk(first.got, 2);
	destroy_whole(first.pool);
	must(first.detached == 0);
	if (first_call == by_shutdown) {
		must(!bufpool_checkout(first.made, 1) && errno == ECANCELED);
		return;
	}
	if (first_call == by_event)
		must(bufpool_event_arm(first.event) == 1);
	bufpool_event_close(first.event);
	if (first.made)
		destroy_whole(first.made);
	must(first.detached == (first_call == by_create));
}

START_TEST(first_call_in_a_child)
{
	first.pool = attached_pool();
	first.made = depth_pool(BUFPOOL_CACHE_AUTO, 8);
	use_in_threads(first.made);
	use_and_exit(first.made);
	use_in_threads(first.pool);
	first.large = bufpool_checkout(first.pool, classes[3].size + 1);
	first.buf = bufpool_checkout(first.pool, 1);
	make_plentiful(first.pool); /* the threads may have exhausted it */
	use_and_exit(first.pool);
	must(cached_in(first.pool) > 0 || is_hardened());
	if (calls[_i].call == by_arming || calls[_i].call == by_closing)
		first.event = bufpool_event_open(first.made, 1);
	first_call = calls[_i].call;
	on_fork = call_first;
	must_be_well(after_the_first, &_i);
	on_fork = NULL;
	bufpool_return(first.buf);
	bufpool_return(first.large);
	bufpool_event_close(first.event);
	destroy_whole(first.pool);
	destroy_whole(first.made);
}
END_TEST

/* A handler starts a thread again, as many do. */
static pthread_t started;

static void start_early(bool early, enum when when)
{
	if (early && when == CHILD)
		started = start_thread(use_and_exit, peers.pool);
}

static void join_the_started(void *arg)
{
	join_thread(started);
	must_have(peers.pool, BUFPOOL_CLASS_4K, IDLE);
	(void) arg;
}

START_TEST(handlers_start_threads)
{
	start_peers(depths[_i]);
	on_fork = start_early;
	for (int i = 0; i < 5; i++)
		must_be_well(join_the_started, NULL);
	on_fork = NULL;
	end_peers();
}
END_TEST

/* ---------------------------------------------------------------- hammering */

/*
 * Threads at work in all parts of the library, while the main thread forks.
 * Owners stamp their buffers, so that two owners of one would notice; in a
 * child, what the parent's threads had written must be gone.
 */
enum { HAMMERS = 3, GRIP = 4, POOL_4K = 40, POOL_64K = 6 };

static struct {
	bufpool_t *pool;
	atomic_bool over;
} anvil;

struct grip {
	bufpool_buf_t *buf;
	bufpool_frozen_t *frozen;
	uint64_t stamp;
};

static uint64_t *stamp_at(const void *data, size_t capacity, int i)
{
	return (uint64_t *) ((char *) data + (capacity / 8 - 1) * i / 2 * 8);
}

static void stamp(struct grip *grip, uint64_t value)
{
	grip->stamp = value | 1;
	for (int i = 0; i < 3; i++) {
		uint64_t *at = stamp_at(grip->buf->data, grip->buf->capacity,
		                        i);

		must(*at == 0);
		*at = grip->stamp;
	}
	grip->buf->len = grip->buf->capacity;
}

static void drop(struct grip *grip)
{
	const void *data = grip->frozen ? bufpool_frozen_data(grip->frozen)
	                                : grip->buf->data;
	size_t capacity = grip->frozen ? bufpool_frozen_len(grip->frozen)
	                               : grip->buf->capacity;

	for (int i = 0; i < 3; i++)
		must(*stamp_at(data, capacity, i) == grip->stamp);
	if (grip->frozen)
		bufpool_frozen_unref(grip->frozen);
	else
		bufpool_return(grip->buf);
	*grip = (struct grip) {NULL, NULL, 0};
}

static bufpool_buf_t *take_any(uint64_t *seed)
{
	const struct timespec moment = {0, 20000};
	uint64_t chance = draw(seed) % 4096;
	size_t size = draw(seed) % (PAGE + 1);

	if (chance == 0)
		return bufpool_checkout(anvil.pool, 1100000);
	if (chance < 32)
		size = 65536;
	if (chance < 400)
		return bufpool_checkout_wait(anvil.pool, size, &moment);
	return ways[draw(seed) % ARRAY_SIZE(ways)].take(anvil.pool, size);
}

static void strike(struct grip *grips, uint64_t *seed)
{
	struct grip *grip = &grips[draw(seed) % GRIP];

	if (draw(seed) % 256 == 0)
		bufpool_thread_flush(anvil.pool);
	if (grip->frozen && draw(seed) % 4 == 0) {
		bufpool_frozen_unref(bufpool_frozen_ref(grip->frozen));
	} else if (grip->frozen || (grip->buf && draw(seed) % 4)) {
		drop(grip);
	} else if (grip->buf) {
		grip->frozen = bufpool_freeze(grip->buf);
	} else {
		grip->buf = take_any(seed);
		if (grip->buf)
			stamp(grip, draw(seed));
	}
}

static void drop_all(struct grip *grips)
{
	for (int i = 0; i < GRIP; i++)
		if (grips[i].buf)
			drop(&grips[i]);
}

static void *visit(void *arg)
{
	struct grip grips[GRIP] = {{NULL, NULL, 0}};
	uint64_t seed = (uintptr_t) arg;

	for (int i = 0; i < 50; i++)
		strike(grips, &seed);
	drop_all(grips);
	return NULL;
}

/* One of them starts threads that come and go; another makes pools. */
static void *keep_striking(void *arg)
{
	struct grip grips[GRIP] = {{NULL, NULL, 0}};
	uint64_t seed = (uintptr_t) arg;

	while (!anvil.over) {
		for (int i = 0; i < 200; i++)
			strike(grips, &seed);
		/* Most of the time they only use it. */
		if (draw(&seed) % 8)
			continue;
		if ((uintptr_t) arg == 1)
			run_thread(visit, (void *) (uintptr_t) (draw(&seed) | 1));
		if ((uintptr_t) arg == 2) {
			bufpool_t *pool = depth_pool(BUFPOOL_CACHE_AUTO, 3);

			use_and_exit(pool);
			bufpool_destroy(pool);
		}
	}
	drop_all(grips);
	return NULL;
}

struct scene {
	struct grip grips[GRIP]; /* of who forks */
	size_t held;             /* of them, from the pool's 4K */
	bool kept;               /* from the child: BUFPOOL_DONTFORK */
	long operations;
};

static void strike_in_the_child(void *arg)
{
	struct scene *scene = arg;
	uint64_t seed = (uint64_t) getpid() << 8 | 1;
	const size_t most = POOL_4K - scene->held;
	size_t idle = idle_of(anvil.pool, BUFPOOL_CLASS_4K);

	/* What it held is here, but not what was in it. */
	for (size_t i = 0; i < scene->held && scene->kept; i++)
		stamp(&scene->grips[i], draw(&seed));
	/* Each of the others, with its visitor, holds so many at the most. */
	must(idle <= most && idle + (HAMMERS + 1) * GRIP >= most);
	must_have(anvil.pool, BUFPOOL_CLASS_4K, idle);
	must_have(anvil.pool, BUFPOOL_CLASS_64K,
	          idle_of(anvil.pool, BUFPOOL_CLASS_64K));
	for (long i = scene->operations; i > 0; i--)
		strike(scene->grips, &seed);
	drop_all(scene->grips);
	visit((void *) (uintptr_t) (seed | 1));
	run_thread(visit, (void *) (uintptr_t) (seed | 2));
	must_have(anvil.pool, BUFPOOL_CLASS_4K, idle + scene->held);
	if (seed % 4096 < 1024)
		use_new_pool();
	bufpool_destroy(anvil.pool);
}

START_TEST(fork_while_others_hammer)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, POOL_4K);
	struct scene scene = {.operations = scaled(10000)};
	pthread_t threads[HAMMERS];
	uint64_t seed = 77;

	scene.kept = _i >= (int) DEPTHS;
	if (scene.kept && is_valgrind())
		return; /* it believes that the memory is there */
	config.flags = scene.kept ? BUFPOOL_DONTFORK : 0;
	config.count[BUFPOOL_CLASS_64K] = POOL_64K;
	set_cache(&config, depths[_i % DEPTHS]);
	/* All who write here say so with len. */
	config.wipe = _i % 2 ? BUFPOOL_WIPE_USED : BUFPOOL_WIPE_ALL;
	anvil.pool = make_pool(config);
	for (uintptr_t i = 0; i < HAMMERS; i++)
		threads[i] = start_thread(keep_striking, (void *) (i + 1));
	for (long forks = scaled((scene.kept ? 60 : 200) / DEPTHS); forks > 0;
	     forks--) {
		for (uint64_t i = draw(&seed) % 64; i > 0; i--)
			strike(scene.grips, &seed);
		drop_all(scene.grips);
		/* Some of the pool's, then, and nothing else. */
		scene.held = draw(&seed) % GRIP;
		for (size_t i = 0; i < scene.held; i++) {
			scene.grips[i].buf =
				bufpool_try_checkout(anvil.pool, PAGE);
			must(scene.grips[i].buf);
			stamp(&scene.grips[i], draw(&seed));
		}
		must_be_well(strike_in_the_child, &scene);
	}
	drop_all(scene.grips);
	anvil.over = true;
	for (uintptr_t i = 0; i < HAMMERS; i++)
		join_thread(threads[i]);
	destroy_whole(anvil.pool);
}
END_TEST

static Suite *fork_suite(void)
{
	Suite *suite = suite_create("fork");
	TCase *tcase = add_case(suite, "one thread", 30);

	tcase_add_loop_test(tcase, who_forks_keeps_what_it_holds, 0, DEPTHS);
	tcase_add_loop_test(tcase, destroyed_with_buffers_out, 0, DEPTHS);
	tcase_add_loop_test(tcase, destroyed_by_the_child, 0, DEPTHS);
	tcase_add_loop_test(tcase, early_copies_are_erased, 0,
	                    ARRAY_SIZE(wipes) * BUFPOOL_CLASSES);
	tcase_add_test(tcase, many_pools);
	tcase = add_case(suite, "threads", 30);
	tcase_add_loop_test(tcase, what_others_cached_comes_back, 0, DEPTHS);
	tcase_add_loop_test(tcase, children_fork_too, 0, DEPTHS);
	tcase_add_loop_test(tcase, another_thread_forks, 0, DEPTHS);
	tcase_add_loop_test(tcase, waiters_of_the_parent, 0, DEPTHS);
	tcase = add_case(suite, "handlers", 30);
	tcase_add_loop_test(tcase, handlers_use_pools, 0, 2 * WHENS * DEPTHS);
	tcase_add_loop_test(tcase, first_call_in_a_child, 0, ARRAY_SIZE(calls));
	tcase_add_loop_test(tcase, handlers_start_threads, 0, DEPTHS);
	/* gcc 12's AddressSanitizer does not take its allocator's locks at fork:
	   a child allocates for ever if another thread did just then. */
	if (!is_asan()) {
		tcase = add_case(suite, "hammering", 60);
		tcase_add_loop_test(tcase, fork_while_others_hammer, 0,
		                    2 * DEPTHS);
	}
	return suite;
}

int main(void)
{
	register_late();
	return run_suite(fork_suite());
}
