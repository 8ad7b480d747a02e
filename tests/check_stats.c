/* SPDX-License-Identifier: MIT */
/*
 * check_stats.c - the figures add up
 */
#include "figures.h"

#include <stdatomic.h>
#include <time.h>

/* ------------------------------------------------------------- they add up */

static uint64_t hits_of(const bufpool_class_stats_t *stats)
{
	return stats->cache_hits + stats->depot_hits + stats->stolen;
}

/* What holds at rest, whatever happened before. */
static void check_sums(const bufpool_t *pool)
{
	uint64_t hits = 0, fallbacks = 0, out = 0;
	bufpool_stats_t stats = stats_of(pool);

	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		const bufpool_class_stats_t *one = &stats.per_class[i];

		must(one->checked_out + one->idle == one->total);
		must(one->cached <= one->idle);
		must(one->remote_hits <= hits_of(one));
		hits += hits_of(one);
		fallbacks += one->heap_fallbacks;
		out += one->checked_out;
	}
	must(stats.hits == hits);
	must(stats.misses == fallbacks + stats.oversize);
	must(stats.checked_out >= out);
	must(stats.peak_checked_out >= stats.checked_out);
	must(stats.peak_bytes_checked_out >= stats.bytes_checked_out);
}

START_TEST(fresh_pool)
{
	bufpool_t *pool = bufpool_create(NULL);
	bufpool_stats_t stats;

	memset(&stats, 0xff, sizeof(stats));
	bufpool_stats(pool, &stats);
	for (size_t i = 0; i < ARRAY_SIZE(totals); i++)
		ck_assert_uint_eq(value_of(&stats, &totals[i]), 0);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		bufpool_class_stats_t fresh = {
			.total = default_config.count[i],
			.idle = default_config.count[i],
		};

		ck_assert_mem_eq(&stats.per_class[i], &fresh, sizeof(fresh));
	}
	bufpool_destroy(pool);
}
END_TEST

START_TEST(null_pool_is_all_zero)
{
	bufpool_stats_t stats;

	memset(&stats, 0xff, sizeof(stats));
	bufpool_stats(NULL, &stats);
	ck_assert(all_bytes(&stats, sizeof(stats), 0));
}
END_TEST

/* One step of a script: what it does, and what it must add. */
struct step {
	size_t size;
	const struct way *way;
	unsigned n;
	int hits, misses, oversize; /* of all n together */
};

enum { SCRIPT_OUT = 64 };

/* clang-format off */
static const struct step script[] = {
	{1, &ways[0], 2, 2, 0, 0},
	{0, &ways[1], 1, 1, 0, 0},
	{4096, &ways[2], 2, 1, 1, 0}, /* four are pooled */
	{4096, &ways[3], 1, 0, 1, 0},
	{65536, &ways[4], 4, 4, 0, 0},
	{4097, &ways[0], 3, 0, 3, 0},
	{200000, &ways[3], 5, 4, 1, 0},
	{1000000, &ways[0], 1, 1, 0, 0},
	{1048577, &ways[0], 2, 0, 2, 2},
	{2000000, &ways[2], 1, 0, 1, 1},
};
/* clang-format on */

struct account {
	uint64_t hits, misses, oversize, out, bytes, heap_bytes;
	uint64_t peak, peak_bytes;
};

static void check_account(const bufpool_t *pool, const struct account *book)
{
	bufpool_stats_t stats = stats_of(pool);

	check_sums(pool);
	ck_assert_uint_eq(stats.hits, book->hits);
	ck_assert_uint_eq(stats.misses, book->misses);
	ck_assert_uint_eq(stats.oversize, book->oversize);
	ck_assert_uint_eq(stats.checked_out, book->out);
	ck_assert_uint_eq(stats.bytes_checked_out, book->bytes);
	ck_assert_uint_eq(stats.heap_bytes, book->heap_bytes);
	ck_assert_uint_ge(stats.peak_checked_out, book->peak);
	ck_assert_uint_ge(stats.peak_bytes_checked_out, book->peak_bytes);
}

static void book_checkout(struct account *book, const bufpool_buf_t *buf,
                          bool heap)
{
	book->out++;
	book->bytes += buf->capacity;
	if (heap)
		book->heap_bytes += buf->capacity;
	if (book->out > book->peak)
		book->peak = book->out;
	if (book->bytes > book->peak_bytes)
		book->peak_bytes = book->bytes;
}

static size_t play_step(bufpool_t *pool, const struct step *step,
                        struct account *book, bufpool_buf_t **bufs)
{
	for (unsigned i = 0; i < step->n; i++) {
		uint64_t misses = stats_of(pool).misses;

		bufs[i] = step->way->take(pool, step->size);
		ck_assert_ptr_nonnull(bufs[i]);
		book_checkout(book, bufs[i], stats_of(pool).misses > misses);
		/* What the owner makes of len is not what was asked for. */
		bufs[i]->len = i % 2 ? 0 : bufs[i]->capacity;
	}
	book->hits += step->hits;
	book->misses += step->misses;
	book->oversize += step->oversize;
	return step->n;
}

/* The loop index is the depth of the caches. */
START_TEST(script_adds_up)
{
	const size_t depths[] = {0, 1, BUFPOOL_CACHE_AUTO, SIZE_MAX - 1};
	bufpool_config_t config = even_config(4);
	struct account book = {0};
	bufpool_t *pool;

	set_cache(&config, depths[_i]);
	pool = make_pool(config);
	for (int round = 0; round < 5; round++) {
		bufpool_buf_t *bufs[SCRIPT_OUT];
		size_t n = 0;

		for (size_t i = 0; i < ARRAY_SIZE(script); i++) {
			n += play_step(pool, &script[i], &book, bufs + n);
			check_account(pool, &book);
		}
		bufpool_return_bulk(bufs, n);
		book.out = book.bytes = book.heap_bytes = 0;
		check_account(pool, &book);
		if (depths[_i] == 0) {
			bufpool_stats_t stats = stats_of(pool);

			/* Nothing is cached, so nothing is uncertain. */
			ck_assert_uint_eq(stats.peak_checked_out, book.peak);
			ck_assert_uint_eq(stats.peak_bytes_checked_out,
			                  book.peak_bytes);
			ck_assert_uint_eq(cached_in(pool), 0);
		}
	}
	bufpool_destroy(pool);
}
END_TEST

/* The per-class calls ask for the whole class. */
START_TEST(classes_count_for_themselves)
{
	bufpool_t *pool = make_pool(even_config(2));

	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		const bufpool_class_stats_t *one;
		bufpool_buf_t *bufs[3];
		bufpool_stats_t stats;

		for (int k = 0; k < 3; k++)
			bufs[k] = classes[i].checkout(pool);
		stats = stats_of(pool);
		one = &stats.per_class[i];
		ck_assert_uint_eq(hits_of(one), 2);
		ck_assert_uint_eq(one->heap_fallbacks, 1);
		ck_assert_uint_eq(one->checked_out, 2);
		ck_assert_uint_eq(one->idle, 0);
		ck_assert_uint_eq(stats.bytes_checked_out, 3 * classes[i].size);
		ck_assert_uint_eq(stats.heap_bytes, classes[i].size);
		bufpool_return_bulk(bufs, 3);
		check_sums(pool);
	}
	ck_assert_uint_eq(stats_of(pool).hits, 2 * BUFPOOL_CLASSES);
	ck_assert_uint_eq(stats_of(pool).misses, BUFPOOL_CLASSES);
	bufpool_destroy(pool);
}
END_TEST

/* What the class does not give by itself is a fallback of its class. */
START_TEST(alignment_is_a_fallback)
{
	bufpool_t *pool = make_pool(even_config(2));
	bufpool_buf_t *buf = bufpool_checkout_aligned(pool, 100, 1 << 20);
	bufpool_stats_t stats = stats_of(pool);

	ck_assert_ptr_nonnull(buf);
	ck_assert_uint_eq(stats.per_class[BUFPOOL_CLASS_4K].heap_fallbacks, 1);
	ck_assert_uint_eq(stats.oversize, 0);
	ck_assert_uint_eq(stats.bytes_checked_out, PAGE);
	ck_assert_uint_eq(stats.heap_bytes, PAGE);
	check_sums(pool);
	bufpool_return(buf);
	check_sums(pool);
	bufpool_destroy(pool);
}
END_TEST

/* But as exhaustion of their class, once each; a wrong argument for nothing. */
START_TEST(failures_count_for_nothing_else)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	const struct timespec none = {0, 0};
	bufpool_stats_t before, after;
	bufpool_buf_t *buf;
	bufpool_t *pool;

	config.exhausted = BUFPOOL_FAIL;
	set_cache(&config, 0);
	pool = make_pool(config);
	buf = bufpool_checkout(pool, 1);
	before = stats_of(pool);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		ck_assert(!ways[i].take(pool, 1));
		ck_assert(!ways[i].take(pool, 70000));
		ck_assert(!ways[i].take(pool, 7000000));
		ck_assert(!ways[i].take(pool, SIZE_MAX));
		ck_assert(!ways[i].take(NULL, 1));
	}
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		ck_assert(!classes[i].checkout(pool));
	ck_assert(!bufpool_checkout_wait(pool, 1, &none));
	ck_assert(!bufpool_checkout_wait(pool, 70000, &none));
	ck_assert(!bufpool_checkout_wait(pool, 7000000, &none));
	ck_assert(!bufpool_checkout_aligned(pool, 1, 3));
	after = stats_of(pool);
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		before.per_class[i].exhausted = 1;
	before.per_class[BUFPOOL_CLASS_4K].exhausted += ARRAY_SIZE(ways) + 1;
	before.per_class[BUFPOOL_CLASS_256K].exhausted += ARRAY_SIZE(ways) + 1;
	/* Who waits sleeps, for no time if need be. */
	ck_assert_uint_gt(after.per_class[BUFPOOL_CLASS_4K].wait_ns, 0);
	before.per_class[BUFPOOL_CLASS_4K].waits = 1;
	before.per_class[BUFPOOL_CLASS_4K].wait_ns =
		after.per_class[BUFPOOL_CLASS_4K].wait_ns;
	ck_assert_mem_eq(&before, &after, sizeof(before));
	bufpool_return(buf);
	bufpool_destroy(pool);
}
END_TEST

/* Who is stopped lacks no buffer. */
START_TEST(stopped_is_not_exhausted)
{
	const struct timespec second = {1, 0};
	bufpool_stats_t before, after;
	bufpool_t *pool = make_pool(even_config(1));

	bufpool_return(bufpool_checkout(pool, 1));
	bufpool_shutdown(pool);
	before = stats_of(pool);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		REFUSED(!ways[i].take(pool, 1), ECANCELED);
	REFUSED(!bufpool_checkout_wait(pool, 1, &second), ECANCELED);
	after = stats_of(pool);
	ck_assert_mem_eq(&before, &after, sizeof(before));
	bufpool_destroy(pool);
}
END_TEST

/* The heap's limit is reached, or the heap has none: that is no buffer either. */
START_TEST(heap_that_has_none)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 2);
	const bufpool_class_stats_t *one;
	bufpool_buf_t *bufs[10];
	bufpool_stats_t stats;
	bufpool_t *pool;

	config.heap_limit = 3 * PAGE;
	pool = make_pool(config);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 10), 5);
	REFUSED(!bufpool_checkout(pool, 1), ENOBUFS);
	REFUSED(!bufpool_checkout(pool, 65536), ENOBUFS);
	stats = stats_of(pool);
	one = &stats.per_class[BUFPOOL_CLASS_4K];
	ck_assert_uint_eq(one->heap_fallbacks, 3);
	ck_assert_uint_eq(one->peak_checked_out, 5);
	ck_assert_uint_eq(one->exhausted, 2);
	ck_assert_uint_eq(stats.per_class[BUFPOOL_CLASS_64K].exhausted, 1);
	bufpool_return_bulk(bufs, 5);
	destroy_whole(pool);

	if (is_valgrind())
		return; /* it gives up itself, of such an alignment */
	pool = class_pool(BUFPOOL_CLASS_4K, 2);
	REFUSED(!bufpool_checkout_aligned(pool, 1, (size_t) 1 << 62), ENOMEM);
	ck_assert_uint_eq(
		stats_of(pool).per_class[BUFPOOL_CLASS_4K].exhausted, 1);
	bufpool_destroy(pool);
}
END_TEST

/*
 * Over the truth by at most what was ever cached at once; never under it.
 * The loop index is the depth of the caches.
 */
START_TEST(peaks_are_close)
{
	const size_t depths[] = {0, 1, 8, BUFPOOL_CACHE_AUTO, SIZE_MAX - 1};
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 200);
	uint64_t out = 0, peak = 0, cached = 0, seed = 5;
	bufpool_buf_t *bufs[50];
	bufpool_stats_t stats;
	bufpool_t *pool;

	set_cache(&config, depths[_i]);
	pool = make_pool(config);
	for (int i = 0; i < 5000; i++) {
		uint64_t wave = 50 - (uint64_t) i / 250 % 20 * 2;

		if (out < wave && draw(&seed) % 3)
			bufs[out++] = bufpool_checkout(pool, PAGE);
		else if (out > 0)
			bufpool_return(bufs[--out]);
		peak = out > peak ? out : peak;
		stats = stats_of(pool);
		must(stats.checked_out == out);
		if (cached_in(pool) > cached)
			cached = cached_in(pool);
		must(stats.peak_checked_out >= peak);
		must(stats.peak_checked_out <= peak + cached);
		must(stats.peak_bytes_checked_out >= peak * PAGE);
		must(stats.peak_bytes_checked_out <= (peak + cached) * PAGE);
		must(stats.per_class[BUFPOOL_CLASS_4K].peak_checked_out ==
		     stats.peak_checked_out);
	}
	bufpool_return_bulk(bufs, out);
	check_sums(pool);
	bufpool_destroy(pool);
}
END_TEST

/*
 * What caches held when it was reached: nothing that they let go of later makes it
 * less, nothing that they come to hold later makes it more.
 */
START_TEST(peak_is_of_its_moment)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 64);
	uint64_t then;
	bufpool_buf_t *bufs[16];
	bufpool_t *pool;

	set_cache(&config, 16);
	pool = make_pool(config);
	bufs[0] = bufpool_checkout(pool, PAGE);
	then = cached_in(pool);
	ck_assert_uint_gt(then, 0);
	ck_assert_uint_eq(stats_of(pool).peak_checked_out, 1 + then);
	bufpool_return(bufs[0]);
	bufpool_thread_flush(pool);
	ck_assert_uint_eq(cached_in(pool), 0);
	ck_assert_uint_eq(stats_of(pool).peak_checked_out, 1 + then);
	bufpool_destroy(pool);

	pool = make_pool(config);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 16), 16);
	ck_assert_uint_eq(cached_in(pool), 0); /* from the depot as they are */
	bufpool_return_bulk(bufs, 16);
	ck_assert_uint_gt(cached_in(pool), 0);
	ck_assert_uint_eq(stats_of(pool).peak_checked_out, 16);
	bufpool_destroy(pool);
}
END_TEST

/* ---------------------------------------------------------------- threads */

static void *take_and_leave(void *arg)
{
	bufpool_t *pool = arg;

	for (int i = 0; i < 100; i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, 1000);

		bufpool_return(buf);
	}
	return NULL;
}

START_TEST(counts_survive_their_threads)
{
	bufpool_t *pool = make_pool(even_config(4));

	for (uint64_t i = 1; i <= 10; i++) {
		run_thread(take_and_leave, pool);
		ck_assert_uint_eq(stats_of(pool).hits, 100 * i);
		check_sums(pool);
	}
	ck_assert_uint_eq(stats_of(pool).checked_out, 0);
	ck_assert_uint_ge(stats_of(pool).peak_checked_out, 1);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(returns_elsewhere_count)
{
	bufpool_t *pool = make_pool(even_config(4));

	for (int i = 0; i < 50; i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, 1000 * i);
		bufpool_buf_t *big = bufpool_checkout(pool, 2000000);

		ck_assert_uint_eq(stats_of(pool).bytes_checked_out,
		                  2000000 + buf->capacity);
		return_elsewhere(buf);
		ck_assert_uint_eq(stats_of(pool).checked_out, 1);
		return_elsewhere(big);
		ck_assert_uint_eq(stats_of(pool).bytes_checked_out, 0);
		ck_assert_uint_eq(stats_of(pool).heap_bytes, 0);
		check_sums(pool);
	}
	bufpool_destroy(pool);
}
END_TEST

START_TEST(stolen_buffers_count)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 8);
	bufpool_buf_t *bufs[8];
	bufpool_stats_t stats;
	bufpool_t *pool;

	pool = make_pool(config);
	/* Served by this thread, returned by others, all of whom are gone. */
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 8), 8);
	for (int i = 0; i < 8; i++)
		return_elsewhere(bufs[i]);
	stats = stats_of(pool);
	ck_assert_uint_eq(stats.per_class[BUFPOOL_CLASS_4K].idle, 8);
	ck_assert_uint_eq(stats.per_class[BUFPOOL_CLASS_4K].stolen, 0);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 8), 8);
	ck_assert_uint_eq(stats_of(pool).hits, 16);
	check_sums(pool);
	bufpool_return_bulk(bufs, 8);
	bufpool_destroy(pool);
}
END_TEST

/* What one thread takes, another returns, over and over. */
struct hand_over {
	bufpool_t *pool;
	bufpool_buf_t *bufs[64];
	size_t n;
	pthread_barrier_t barrier;
};

enum { HAND_OVERS = 20 };

static void *return_what_comes(void *arg)
{
	struct hand_over *hand = arg;

	for (int i = 0; i < HAND_OVERS; i++) {
		meet(&hand->barrier);
		bufpool_return_bulk(hand->bufs, hand->n);
		meet(&hand->barrier);
	}
	return NULL;
}

/*
 * One thread only takes, another only returns, so that what the one's shard owes
 * is the other's to spare; the peak is what there is, all the same.  The loop
 * index is whether the cache could hold all buffers.
 */
START_TEST(peak_of_one_way_traffic)
{
	const size_t depth = _i ? 64 : 8;
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 64);
	struct hand_over hand = { .n = 64 };
	bufpool_stats_t stats;
	pthread_t thread;

	set_cache(&config, depth);
	hand.pool = make_pool(config);
	must(pthread_barrier_init(&hand.barrier, NULL, 2) == 0);
	thread = start_thread(return_what_comes, &hand);
	for (int i = 0; i < HAND_OVERS; i++) {
		for (size_t n = 0; n < hand.n; n++)
			hand.bufs[n] = bufpool_checkout(hand.pool, PAGE);
		must(stats_of(hand.pool)
		             .per_class[BUFPOOL_CLASS_4K]
		             .checked_out == hand.n);
		meet(&hand.barrier);
		meet(&hand.barrier);
		stats = stats_of(hand.pool);
		must(stats.bytes_checked_out == 0);
		must(stats.peak_bytes_checked_out == hand.n * PAGE);
	}
	join_thread(thread);
	pthread_barrier_destroy(&hand.barrier);
	bufpool_destroy(hand.pool);
}
END_TEST

/* --------------------------------------------------------- too few buffers */

enum { TOO_MANY = 4 }; /* threads for so few buffers */

static struct {
	bufpool_t *pool;
	bufpool_buf_t *(*take)(void);
	int rounds;
	atomic_ulong took, failed;
} scant;

static bufpool_buf_t *take_scant(void)
{
	return bufpool_checkout(scant.pool, PAGE);
}

static bufpool_buf_t *await_scant(void)
{
	const struct timespec moment = {0, 100000};

	return bufpool_checkout_wait(scant.pool, PAGE, &moment);
}

static void *want_two(void *arg)
{
	bufpool_buf_t *bufs[2];

	for (int i = 0; i < scant.rounds; i++) {
		for (int n = 0; n < 2; n++) {
			bufs[n] = scant.take();
			atomic_fetch_add(bufs[n] ? &scant.took : &scant.failed,
			                 1);
		}
		bufpool_return_bulk(bufs, 2);
	}
	return arg;
}

/* With so many buffers; what it has counted. */
static bufpool_class_stats_t fight_for(size_t n, enum bufpool_exhausted how)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, n);
	pthread_t threads[TOO_MANY];
	bufpool_stats_t stats;

	config.exhausted = how;
	scant.pool = make_pool(config);
	for (int i = 0; i < TOO_MANY; i++)
		threads[i] = start_thread(want_two, NULL);
	for (int i = 0; i < TOO_MANY; i++)
		join_thread(threads[i]);
	stats = stats_of(scant.pool);
	check_sums(scant.pool);
	must(stats.hits == scant.took);
	must(stats.peak_checked_out <= n);
	must(stats.peak_bytes_checked_out <= n * PAGE);
	destroy_whole(scant.pool);
	return stats.per_class[BUFPOOL_CLASS_4K];
}

/* As a user would find out that there are too few: each failure is counted, for the
   threads together. */
START_TEST(each_failure_counts)
{
	bufpool_class_stats_t stats;

	scant.take = take_scant;
	scant.rounds = (int) scaled(20000);
	stats = fight_for(1, BUFPOOL_FAIL);
	ck_assert_uint_ge(scant.failed, TOO_MANY * (uint64_t) scant.rounds);
	ck_assert_uint_eq(stats.exhausted, scant.failed);
	ck_assert_uint_eq(stats.waits, 0);
	ck_assert_uint_eq(stats.wait_ns, 0);
}
END_TEST

START_TEST(each_timeout_counts)
{
	bufpool_class_stats_t stats;

	scant.take = await_scant;
	scant.rounds = 50;
	stats = fight_for(1, BUFPOOL_HEAP);
	/* Who has the only one waits for a second in vain. */
	ck_assert_uint_ge(scant.failed, TOO_MANY * (uint64_t) scant.rounds);
	ck_assert_uint_eq(stats.exhausted, scant.failed);
	ck_assert_uint_ge(stats.waits, scant.failed);
	ck_assert_uint_le(stats.waits, scant.failed + scant.took);
	ck_assert_uint_ge(stats.wait_ns, stats.exhausted * 100000);
	ck_assert_uint_eq(stats.heap_fallbacks, 0);
}
END_TEST

static void *give_back(void *buf)
{
	const struct timespec moment = {0, 1000000};

	while (stats_of(scant.pool).per_class[BUFPOOL_CLASS_4K].waits == 0)
		nanosleep(&moment, NULL);
	bufpool_return(buf);
	return NULL;
}

/* A wait can be seen while it lasts; it is no failure if it ends well. */
START_TEST(wait_that_ends_well)
{
	const bufpool_class_stats_t *one;
	bufpool_stats_t stats;
	bufpool_buf_t *buf;
	pthread_t thread;

	scant.pool = class_pool(BUFPOOL_CLASS_4K, 1);
	buf = bufpool_checkout_wait(scant.pool, 1, NULL);
	ck_assert_uint_eq(
		stats_of(scant.pool).per_class[BUFPOOL_CLASS_4K].waits, 0);
	thread = start_thread(give_back, buf);
	buf = bufpool_checkout_wait(scant.pool, 1, NULL);
	ck_assert_ptr_nonnull(buf);
	join_thread(thread);
	stats = stats_of(scant.pool);
	one = &stats.per_class[BUFPOOL_CLASS_4K];
	ck_assert_uint_eq(one->waits, 1);
	ck_assert_uint_gt(one->wait_ns, 0);
	ck_assert_uint_eq(one->exhausted, 0);
	bufpool_return(buf);
	destroy_whole(scant.pool);
}
END_TEST

/* ----------------------------------------------------------- others at work */

enum { WORKERS = 4, WORKER_HELD = 4, WORK_COUNT = 20 };

static struct {
	bufpool_t *pool;
	atomic_bool over;
	_Atomic(bufpool_buf_t *) shelf; /* where buffers change hands */
} work;

static void *work_on(void *arg)
{
	bufpool_buf_t *held[WORKER_HELD] = {NULL};
	uint64_t seed = (uintptr_t) &held | 1;

	(void) arg;
	while (!work.over) {
		bufpool_buf_t **slot = &held[draw(&seed) % WORKER_HELD];

		if (!*slot)
			*slot = bufpool_checkout(work.pool,
			                         draw(&seed) % 65537);
		else if (draw(&seed) % 16 == 0)
			*slot = atomic_exchange(&work.shelf, *slot);
		else {
			bufpool_return(*slot);
			*slot = NULL;
		}
	}
	bufpool_return_bulk(held, WORKER_HELD);
	return NULL;
}

/* Each figure is one that could be, though not all of the same moment. */
static void check_sanity(const bufpool_stats_t *last,
                         const bufpool_stats_t *stats)
{
	const uint64_t most = BUFPOOL_CLASSES * WORK_COUNT +
	                      WORKERS * WORKER_HELD + 1;

	for (size_t i = 0; i < ARRAY_SIZE(totals); i++)
		if (totals[i].counter)
			must(value_of(stats, &totals[i]) >=
			     value_of(last, &totals[i]));
	must(stats->checked_out <= most);
	must(stats->peak_checked_out <= most);
	must(stats->peak_checked_out >= last->peak_checked_out);
	must(stats->peak_bytes_checked_out >= last->peak_bytes_checked_out);
	must(stats->bytes_checked_out <= most * 65536);
	must(stats->heap_bytes <= WORKERS * (WORKER_HELD + 1) * 65536);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		const bufpool_class_stats_t *one = &stats->per_class[i];

		must(one->total == WORK_COUNT);
		must(one->idle <= one->total);
		must(one->cached <= one->total);
		must(one->checked_out <= one->total);
		for (size_t k = 0; k < ARRAY_SIZE(each); k++)
			if (each[k].counter)
				must(value_of(one, &each[k]) >=
				     value_of(&last->per_class[i], &each[k]));
	}
}

START_TEST(stats_while_others_work)
{
	bufpool_stats_t last = {0}, stats;
	pthread_t threads[WORKERS];

	work.pool = make_pool(even_config(WORK_COUNT));
	for (int i = 0; i < WORKERS; i++)
		threads[i] = start_thread(work_on, NULL);
	for (long i = scaled(200000); i > 0; i--) {
		stats = stats_of(work.pool);
		check_sanity(&last, &stats);
		last = stats;
	}
	work.over = true;
	for (int i = 0; i < WORKERS; i++)
		join_thread(threads[i]);
	bufpool_return(work.shelf);
	check_sums(work.pool);
	destroy_whole(work.pool);
}
END_TEST

#if defined(__x86_64__)

/*
 * A thread as busy as can be, beside many that sleep: after each instruction of who
 * reads, it has taken a buffer of some class and returned it, or as many as its cache
 * has to move several for at once.  What is out meanwhile is what it holds, then, and
 * at most what is on the move.
 */
enum { SLEEPERS = 64, BUSY_HELD = 3, BUSY_DEPTH = 8 };

static struct {
	bufpool_t *pool;
	unsigned turn;
	size_t at_once;
} busy;

static void take_turns(int sig)
{
	int k = (int) (busy.turn++ % 2);
	bufpool_buf_t *bufs[2 * BUSY_DEPTH];
	size_t n = bufpool_checkout_bulk(busy.pool, classes[k].size, bufs,
	                                 busy.at_once);

	(void) sig;
	must(n == busy.at_once);
	bufpool_return_bulk(bufs, n);
}

static bufpool_stats_t read_beside(void)
{
	const struct sigaction on = {.sa_handler = take_turns};
	bufpool_stats_t stats;

	must(sigaction(SIGTRAP, &on, NULL) == 0);
	busy.turn = 0;
	__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	bufpool_stats(busy.pool, &stats);
	__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	must(busy.turn > 1000);
	return stats;
}

/* The loop index says whether several move at once. */
START_TEST(stats_amid_pairs)
{
	const uint64_t most = _i ? BUSY_DEPTH : 0;
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 4 * SLEEPERS);
	struct sleeper sleepers[SLEEPERS];
	bufpool_buf_t *held[BUSY_HELD];
	bufpool_stats_t stats;

	if (is_valgrind())
		return;
	config.count[BUFPOOL_CLASS_64K] = 4 * SLEEPERS;
	set_cache(&config, BUSY_DEPTH);
	busy.pool = make_pool(config);
	busy.at_once = _i ? 2 * BUSY_DEPTH : 1;
	for (int i = 0; i < BUSY_HELD; i++)
		held[i] = bufpool_checkout(busy.pool, 1);
	for (int i = 0; i < SLEEPERS; i++)
		put_to_sleep(&sleepers[i], busy.pool, 2);
	stats = read_beside();
	for (int k = 0; k < 2; k++) {
		const bufpool_class_stats_t *one = &stats.per_class[k];
		uint64_t out = k == 0 ? BUSY_HELD : 0;

		ck_assert_uint_le(one->checked_out, out + most);
		ck_assert_uint_ge(one->checked_out + most, out);
		ck_assert_uint_eq(one->checked_out + one->idle, one->total);
	}
	for (int i = 0; i < SLEEPERS; i++)
		wake_up(&sleepers[i]);
	bufpool_return_bulk(held, BUSY_HELD);
	destroy_whole(busy.pool);
}
END_TEST

#endif

static Suite *stats_suite(void)
{
	Suite *suite = suite_create("stats");
	TCase *tcase = add_case(suite, "sums", 10);

	tcase_add_test(tcase, fresh_pool);
	tcase_add_test(tcase, null_pool_is_all_zero);
	tcase_add_loop_test(tcase, script_adds_up, 0, 4);
	tcase_add_test(tcase, classes_count_for_themselves);
	tcase_add_test(tcase, alignment_is_a_fallback);
	tcase_add_test(tcase, failures_count_for_nothing_else);
	tcase_add_test(tcase, stopped_is_not_exhausted);
	tcase_add_test(tcase, heap_that_has_none);
	tcase_add_loop_test(tcase, peaks_are_close, 0, 5);
	tcase_add_test(tcase, peak_is_of_its_moment);

	tcase = add_case(suite, "threads", 20);
	tcase_add_test(tcase, counts_survive_their_threads);
	tcase_add_test(tcase, returns_elsewhere_count);
	tcase_add_test(tcase, stolen_buffers_count);
	tcase_add_loop_test(tcase, peak_of_one_way_traffic, 0, 2);
	tcase_add_test(tcase, each_failure_counts);
	tcase_add_test(tcase, each_timeout_counts);
	tcase_add_test(tcase, wait_that_ends_well);
	tcase_add_test(tcase, stats_while_others_work);
#if defined(__x86_64__)
	tcase_add_loop_test(tcase, stats_amid_pairs, 0, 2);
#endif
	return suite;
}

int main(void)
{
	return run_suite(stats_suite());
}
