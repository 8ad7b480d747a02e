/* SPDX-License-Identifier: MIT */
/*
 * check_stats.c - the figures add up, and all three formats print them
 */
#include "common.h"

#include <ctype.h>
#include <stdatomic.h>

/* ------------------------------------------------------------ the fields */

/* Every figure by its name, so that tests may go through them all. */
struct field {
	const char *name;
	size_t offset;
	bool counter; /* only ever grows */
};

#define TOTAL(name, counter) {#name, offsetof(bufpool_stats_t, name), counter}
#define EACH(name, counter)                                                  \
	{#name, offsetof(bufpool_class_stats_t, name), counter}

static const struct field totals[] = {
	TOTAL(hits, true),
	TOTAL(misses, true),
	TOTAL(oversize, true),
	TOTAL(checked_out, false),
	TOTAL(peak_checked_out, false),
	TOTAL(bytes_checked_out, false),
	TOTAL(peak_bytes_checked_out, false),
	TOTAL(heap_bytes, false),
};

static const struct field each[] = {
	EACH(total, false),          EACH(idle, false),
	EACH(cached, false),         EACH(cache_hits, true),
	EACH(depot_hits, true),      EACH(stolen, true),
	EACH(heap_fallbacks, true),  EACH(checked_out, false),
	EACH(peak_checked_out, false), EACH(remote_hits, true),
};

_Static_assert(sizeof(bufpool_class_stats_t) ==
                       ARRAY_SIZE(each) * sizeof(uint64_t),
               "each[] has all fields");
_Static_assert(sizeof(bufpool_stats_t) ==
                       ARRAY_SIZE(totals) * sizeof(uint64_t) +
                               BUFPOOL_CLASSES * sizeof(bufpool_class_stats_t),
               "totals[] has all fields");

static uint64_t value_of(const void *stats, const struct field *field)
{
	return *(const uint64_t *) ((const char *) stats + field->offset);
}

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

START_TEST(failures_count_for_nothing)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
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
	ck_assert(!bufpool_checkout_aligned(pool, 1, 3));
	after = stats_of(pool);
	ck_assert_mem_eq(&before, &after, sizeof(before));
	bufpool_return(buf);
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

/* --------------------------------------------------------------- printing */

static char printed[65536];

static void print(const bufpool_t *pool, enum bufpool_format format)
{
	FILE *file = fmemopen(printed, sizeof(printed), "w");
	int rc = -1;

	ck_assert_ptr_nonnull(file);
	KEEPS_ERRNO(rc = bufpool_stats_print(pool, file, format));
	ck_assert_int_eq(rc, 0);
	fclose(file);
	ck_assert_uint_gt(strlen(printed), 0);
	ck_assert_uint_lt(strlen(printed), sizeof(printed) - 1);
	ck_assert_int_eq(printed[strlen(printed) - 1], '\n');
}

/* What stays out of the busy pool. */
static bufpool_buf_t *left_out[BUFPOOL_CLASSES + 1];

/*
 * A pool at rest that has seen all sorts of things, so that few figures are
 * zero and few are the same.
 */
static bufpool_t *busy_pool(void)
{
	const size_t counts[BUFPOOL_CLASSES] = {50, 13, 7, 3};
	bufpool_config_t config = default_config;
	bufpool_t *pool;

	memcpy(config.count, counts, sizeof(counts));
	pool = make_pool(config);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		bufpool_buf_t *bufs[60];
		size_t n = counts[i] + 1 + i;

		for (int round = 0; round <= i; round++) {
			ck_assert_uint_eq(
				bufpool_checkout_bulk(pool, classes[i].size - i,
			                              bufs, n),
				n);
			bufpool_return_bulk(bufs + 1, n - 1);
			if (round < i)
				bufpool_return(bufs[0]);
		}
		left_out[i] = bufs[0];
	}
	bufpool_return(bufpool_checkout(pool, 1234567));
	left_out[BUFPOOL_CLASSES] = bufpool_checkout(pool, 2345678);
	ck_assert_ptr_nonnull(left_out[BUFPOOL_CLASSES]);
	check_sums(pool);
	return pool;
}

static void end_busy_pool(bufpool_t *pool)
{
	bufpool_return_bulk(left_out, ARRAY_SIZE(left_out));
	destroy_whole(pool);
}

START_TEST(text_names_every_class)
{
	bufpool_t *pool = busy_pool();

	print(pool, BUFPOOL_TEXT);
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		ck_assert_ptr_nonnull(strcasestr(printed, classes[i].name));
	for (const char *c = printed; *c; c++)
		ck_assert(isprint((unsigned char) *c) || *c == '\n');
	end_busy_pool(pool);
}
END_TEST

/* ------------------------------------------------------------------- JSON */

/*
 * A reader for the JSON that can occur: it is strict, and knows objects,
 * arrays, keys and whole numbers.  Each returns what follows, or fails.
 */
static const char *json_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

static const char *json_char(const char *at, char c)
{
	at = json_space(at);
	ck_assert_msg(*at == c, "'%c' expected at '%.40s'", c, at);
	return json_space(at + 1);
}

static bool json_more(const char **at)
{
	bool more = **at == ',';

	if (more)
		*at = json_char(*at, ',');
	return more;
}

static const char *json_key(const char *at, char *key, size_t size)
{
	size_t n;

	at = json_char(at, '"');
	n = strspn(at, "abcdefghijklmnopqrstuvwxyz_0123456789");
	ck_assert_uint_lt(n, size);
	memcpy(key, at, n);
	key[n] = '\0';
	ck_assert_int_eq(at[n], '"');
	return json_char(at + n + 1, ':');
}

static const char *json_number(const char *at, uint64_t *value)
{
	char *end;

	ck_assert_msg(isdigit((unsigned char) *at), "no number: '%.40s'", at);
	ck_assert(at[0] != '0' || !isdigit((unsigned char) at[1]));
	*value = strtoull(at, &end, 10);
	return json_space(end);
}

static unsigned field_bit(const struct field *fields, size_t n,
                          const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(fields[i].name, name) == 0)
			return i;
	ck_abort_msg("'%s' is no field", name);
}

static const char *json_classes(const char *at, const bufpool_stats_t *stats);

/* An object that has exactly these fields with the values of stats. */
static const char *json_fields(const char *at, const void *stats,
                               const struct field *fields, size_t n,
                               const bufpool_stats_t *top)
{
	unsigned seen = 0, all = (1u << n) - 1;
	char key[64];

	at = json_char(at, '{');
	do {
		uint64_t value;
		unsigned i;

		at = json_key(at, key, sizeof(key));
		if (top && strcmp(key, "per_class") == 0) {
			at = json_classes(at, top);
			top = NULL;
			continue;
		}
		i = field_bit(fields, n, key);
		ck_assert_msg(!(seen & 1u << i), "'%s' twice", key);
		seen |= 1u << i;
		at = json_number(at, &value);
		ck_assert_uint_eq(value, value_of(stats, &fields[i]));
	} while (json_more(&at));
	ck_assert_uint_eq(seen, all);
	ck_assert_msg(!top, "no per_class");
	return json_char(at, '}');
}

static const char *json_classes(const char *at, const bufpool_stats_t *stats)
{
	int n = 0;

	at = json_char(at, '[');
	do {
		ck_assert_int_lt(n, BUFPOOL_CLASSES);
		at = json_fields(at, &stats->per_class[n++], each,
		                 ARRAY_SIZE(each), NULL);
	} while (json_more(&at));
	ck_assert_int_eq(n, BUFPOOL_CLASSES);
	return json_char(at, ']');
}

static void check_json(const bufpool_t *pool)
{
	bufpool_stats_t stats = stats_of(pool);
	const char *end;

	print(pool, BUFPOOL_JSON);
	end = json_fields(json_space(printed), &stats, totals,
	                  ARRAY_SIZE(totals), &stats);
	ck_assert_int_eq(*end, '\0');
}

START_TEST(json_holds_every_field)
{
	bufpool_t *pool = make_pool(empty_config());

	check_json(pool);
	bufpool_destroy(pool);
	pool = busy_pool();
	check_json(pool);
	end_busy_pool(pool);
}
END_TEST

/* -------------------------------------------------------------- Prometheus */

/* A line of the text exposition format, taken apart. */
struct sample {
	char name[128];
	char labels[256]; /* without the braces */
	uint64_t value;
};

static struct {
	struct sample samples[256];
	size_t n;
	char typed[128]; /* the name of the last TYPE */
	bool counter;
} exposition;

static size_t name_length(const char *at)
{
	return strspn(at, "abcdefghijklmnopqrstuvwxyz"
	                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789");
}

static const char *take_name(const char *at, char *name, size_t size)
{
	size_t n = name_length(at);

	ck_assert_msg(n > 0 && n < size, "no name: '%s'", at);
	ck_assert_msg(strncmp(at, "bufpool_", 8) == 0, "name in '%s'", at);
	memcpy(name, at, n);
	name[n] = '\0';
	return at + n;
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);

	return n >= m && strcmp(name + n - m, suffix) == 0;
}

static void read_help(const char *at)
{
	char name[128];

	at = take_name(at, name, sizeof(name));
	ck_assert_msg(at[0] == ' ' && at[1], "no help for %s", name);
}

static void read_type(const char *at)
{
	at = take_name(at, exposition.typed, sizeof(exposition.typed));
	exposition.counter = strcmp(at, " counter") == 0;
	ck_assert_msg(exposition.counter || strcmp(at, " gauge") == 0,
	              "type of %s is '%s'", exposition.typed, at);
	ck_assert_msg(exposition.counter ==
	                      has_suffix(exposition.typed, "_total"),
	              "%s is %s counter", exposition.typed,
	              exposition.counter ? "a" : "no");
	for (size_t i = 0; i < exposition.n; i++)
		ck_assert_msg(strcmp(exposition.samples[i].name,
		                     exposition.typed) != 0,
		              "%s is in two groups", exposition.typed);
}

/* name="value", again and again; the values need no escapes. */
static const char *take_labels(const char *at, char *labels, size_t size)
{
	const char *start = ++at;

	while (*at != '}') {
		size_t n = name_length(at);

		ck_assert_msg(n > 0 && at[n] == '=' && at[n + 1] == '"',
		              "label at '%s'", at);
		at += n + 2;
		at += strcspn(at, "\"\\");
		ck_assert_msg(*at == '"', "label ends '%s'", at);
		if (*++at == ',')
			at++;
	}
	ck_assert_uint_lt((size_t) (at - start), size);
	memcpy(labels, start, (size_t) (at - start));
	return at + 1;
}

static void read_sample(const char *at)
{
	struct sample *sample = &exposition.samples[exposition.n];
	char *end;

	ck_assert_uint_lt(exposition.n, ARRAY_SIZE(exposition.samples));
	memset(sample, 0, sizeof(*sample));
	at = take_name(at, sample->name, sizeof(sample->name));
	ck_assert_str_eq(sample->name, exposition.typed);
	if (*at == '{')
		at = take_labels(at, sample->labels, sizeof(sample->labels));
	ck_assert_msg(at[0] == ' ' && isdigit((unsigned char) at[1]),
	              "value of %s: '%s'", sample->name, at);
	sample->value = strtoull(at + 1, &end, 10);
	ck_assert_int_eq(*end, '\0');
	for (size_t i = 0; i < exposition.n; i++)
		ck_assert_msg(strcmp(exposition.samples[i].name,
		                     sample->name) ||
		                      strcmp(exposition.samples[i].labels,
		                             sample->labels),
		              "%s twice", sample->name);
	exposition.n++;
}

static void read_exposition(char *text)
{
	char *line, *rest = text;

	memset(&exposition, 0, sizeof(exposition));
	while ((line = strsep(&rest, "\n")) && rest) {
		if (strncmp(line, "# HELP ", 7) == 0)
			read_help(line + 7);
		else if (strncmp(line, "# TYPE ", 7) == 0)
			read_type(line + 7);
		else
			read_sample(line);
	}
}

/*
 * The sample for a field is named after it, and labelled with its class; but
 * "total", which is no counter, is called "buffers".
 */
static bool is_sample_of(const struct sample *sample, const struct field *field,
                         const char *klass)
{
	const char *name = strcmp(field->name, "total") ? field->name : "buffers";
	char quoted[32], ending[128];

	snprintf(quoted, sizeof(quoted), "\"%s\"", klass ? klass : "");
	snprintf(ending, sizeof(ending), "_%s%s", name,
	         field->counter ? "_total" : "");
	return has_suffix(sample->name, ending) &&
	       (klass ? strcasestr(sample->labels, quoted) != NULL
	              : !sample->labels[0]);
}

static void check_sample(const struct field *field, const char *klass,
                         uint64_t value)
{
	bool found = false;

	for (size_t i = 0; i < exposition.n && !found; i++)
		found = is_sample_of(&exposition.samples[i], field, klass) &&
		        exposition.samples[i].value == value;
	ck_assert_msg(found, "no sample of %s%s%s that is %" PRIu64,
	              field->name, klass ? " of " : "", klass ? klass : "",
	              value);
}

START_TEST(prometheus_holds_every_field)
{
	bufpool_t *pool = busy_pool();
	bufpool_stats_t stats = stats_of(pool);

	print(pool, BUFPOOL_PROMETHEUS);
	read_exposition(printed);
	for (size_t i = 0; i < ARRAY_SIZE(totals); i++)
		check_sample(&totals[i], NULL, value_of(&stats, &totals[i]));
	for (int c = 0; c < BUFPOOL_CLASSES; c++)
		for (size_t i = 0; i < ARRAY_SIZE(each); i++)
			check_sample(&each[i], classes[c].name,
			             value_of(&stats.per_class[c], &each[i]));
	ck_assert_uint_eq(exposition.n,
	                  ARRAY_SIZE(totals) +
	                          BUFPOOL_CLASSES * ARRAY_SIZE(each));
	end_busy_pool(pool);
}
END_TEST

/* ---------------------------------------------------------- failed prints */

static const enum bufpool_format formats[] = {
	BUFPOOL_TEXT,
	BUFPOOL_JSON,
	BUFPOOL_PROMETHEUS,
};

static void print_to_full(const bufpool_t *pool, int buffering, size_t size,
                          enum bufpool_format format)
{
	FILE *full = fopen("/dev/full", "w");

	ck_assert_ptr_nonnull(full);
	ck_assert_int_eq(setvbuf(full, NULL, buffering, size), 0);
	REFUSED(bufpool_stats_print(pool, full, format) == -1, ENOSPC);
	fclose(full);
}

/* The loop index is the format. */
START_TEST(full_device)
{
	bufpool_t *pool = busy_pool();

	print_to_full(pool, _IONBF, 0, formats[_i]);
	print_to_full(pool, _IOLBF, 1 << 16, formats[_i]);
	print_to_full(pool, _IOFBF, 64, formats[_i]);
	print_to_full(pool, _IOFBF, 1 << 20, formats[_i]);
	end_busy_pool(pool);
}
END_TEST

START_TEST(bad_print_arguments)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 1);
	enum bufpool_format above = BUFPOOL_PROMETHEUS + 1, below = -1;
	FILE *null = fopen("/dev/null", "r");

	ck_assert_ptr_nonnull(null);
	REFUSED(bufpool_stats_print(pool, NULL, formats[_i]) == -1, EINVAL);
	REFUSED(bufpool_stats_print(NULL, null, formats[_i]) == -1, EINVAL);
	REFUSED(bufpool_stats_print(pool, null, above) == -1, EINVAL);
	REFUSED(bufpool_stats_print(pool, null, below) == -1, EINVAL);
	/* A stream to read from. */
	REFUSED(bufpool_stats_print(pool, null, formats[_i]) == -1, EBADF);
	fclose(null);
	bufpool_destroy(pool);
}
END_TEST

static Suite *stats_suite(void)
{
	const int n = ARRAY_SIZE(formats);
	Suite *suite = suite_create("stats");
	TCase *tcase = add_case(suite, "sums", 10);

	tcase_add_test(tcase, fresh_pool);
	tcase_add_test(tcase, null_pool_is_all_zero);
	tcase_add_loop_test(tcase, script_adds_up, 0, 4);
	tcase_add_test(tcase, classes_count_for_themselves);
	tcase_add_test(tcase, alignment_is_a_fallback);
	tcase_add_test(tcase, failures_count_for_nothing);
	tcase_add_loop_test(tcase, peaks_are_close, 0, 5);
	tcase_add_test(tcase, peak_is_of_its_moment);

	tcase = add_case(suite, "threads", 20);
	tcase_add_test(tcase, counts_survive_their_threads);
	tcase_add_test(tcase, returns_elsewhere_count);
	tcase_add_test(tcase, stolen_buffers_count);
	tcase_add_loop_test(tcase, peak_of_one_way_traffic, 0, 2);
	tcase_add_test(tcase, stats_while_others_work);
#if defined(__x86_64__)
	tcase_add_loop_test(tcase, stats_amid_pairs, 0, 2);
#endif

	tcase = add_case(suite, "print", 10);
	tcase_add_test(tcase, text_names_every_class);
	tcase_add_test(tcase, json_holds_every_field);
	tcase_add_test(tcase, prometheus_holds_every_field);
	tcase_add_loop_test(tcase, full_device, 0, n);
	tcase_add_loop_test(tcase, bad_print_arguments, 0, n);
	return suite;
}

int main(void)
{
	return run_suite(stats_suite());
}
