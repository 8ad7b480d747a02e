/* SPDX-License-Identifier: MIT */
/*
 * check_trim.c - idle memory that goes back to the system
 */
#include "memory.h"


/* -------------------------------------------------------------------- trim */

static size_t resident(const bufpool_t *pool)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r), bytes = 0;

	for (size_t i = 0; i < n; i++)
		bytes += mapping_at(r[i].base).rss;
	return bytes;
}

/* The same buffers are idle and out, wherever the idle ones are. */
static bool same_census(const bufpool_stats_t *a, const bufpool_stats_t *b)
{
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		if (a->per_class[k].idle != b->per_class[k].idle ||
		    a->per_class[k].checked_out !=
		            b->per_class[k].checked_out ||
		    a->per_class[k].total != b->per_class[k].total)
			return false;
	return a->checked_out == b->checked_out && a->hits == b->hits &&
	       a->misses == b->misses &&
	       a->bytes_checked_out == b->bytes_checked_out;
}

START_TEST(trim_takes_what_is_idle)
{
	bufpool_config_t config = counts(100, 10, 5, 4);
	size_t all = bytes_of(&config), got, kept = 0;
	bufpool_stats_t before, after;
	struct sleeper sleeper;
	bufpool_buf_t *out[BUFPOOL_CLASSES], *mine[3];
	struct hoard hoard;
	bufpool_t *pool;

	config.wipe = (enum bufpool_wipe) _i;
	pool = make_pool(config);
	take_all(pool, &hoard);
	for (size_t i = 0; i < hoard.n; i++)
		fill(hoard.buf[i], SECRET);
	give_all(&hoard);
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		out[k] = classes[k].checkout(pool);
		fill(out[k], 0x10 + k);
		kept += classes[k].size;
	}
	make_plentiful(pool);
	put_to_sleep(&sleeper, pool, 1);
	ck_assert(is_hardened() || cached_in(pool) >= BUFPOOL_CLASSES);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, mine, 3), 3);
	bufpool_return_bulk(mine, 3);
	ck_assert(is_hardened() || cached_in(pool) >= BUFPOOL_CLASSES + 3);
	ck_assert_uint_eq(resident(pool), all);

	before = stats_of(pool);
	KEEPS_ERRNO(got = bufpool_trim(pool));
	after = stats_of(pool);
	ck_assert_uint_eq(got, all - kept);
	ck_assert_uint_eq(resident(pool), kept);
	ck_assert(same_census(&before, &after));
	ck_assert_uint_eq(cached_in(pool), 0);
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		ck_assert(all_bytes(out[k]->data, out[k]->capacity, 0x10 + k));

	/* Nothing is given twice. */
	KEEPS_ERRNO(got = bufpool_trim(pool));
	ck_assert_uint_eq(got, 0);
	bufpool_return(out[BUFPOOL_CLASS_64K]);
	ck_assert_uint_eq(bufpool_trim(pool), 65536);
	ck_assert_uint_eq(bufpool_trim(pool), 0);
	kept -= 65536;

	/* They come back as they were made, without the heap. */
	take_all(pool, &hoard);
	ck_assert_uint_eq(resident(pool), all);
	for (size_t i = 0; i < hoard.n; i++) {
		ck_assert(is_zero(hoard.buf[i]));
		fill(hoard.buf[i], SECRET);
	}
	give_all(&hoard);
	wake_up(&sleeper);
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	ck_assert_uint_eq(stats_of(pool).peak_checked_out, 119);
	ck_assert_uint_eq(bufpool_trim(pool), all - kept);
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		if (k != BUFPOOL_CLASS_64K)
			bufpool_return(out[k]);
	bufpool_destroy(pool);
}
END_TEST

/* Buffers that have their pages go out before those that have none. */
START_TEST(trimmed_ones_go_out_last)
{
	bufpool_t *pool = class_pool(_i, 8);
	size_t size = classes[_i].size;
	bufpool_buf_t *bufs[9];

	for (size_t i = 0; i < 3; i++)
		bufs[i] = classes[_i].checkout(pool);
	ck_assert_uint_eq(bufpool_trim(pool), 5 * size);
	for (int round = 0; round < 4; round++) {
		bufpool_return_bulk(bufs, 3);
		if (round % 2)
			bufpool_thread_flush(pool);
		for (size_t i = 0; i < 3; i++)
			bufs[i] = classes[_i].checkout(pool);
		ck_assert_uint_eq(resident(pool), 3 * size);
	}
	/* Each of the others takes as much as it needs, and no more. */
	for (size_t i = 3; i < 8; i++) {
		bufs[i] = classes[_i].checkout(pool);
		ck_assert_uint_eq(resident(pool), (i + 1) * size);
	}
	bufpool_return_bulk(bufs, 8);
	must_work(pool);
	bufpool_destroy(pool);
}
END_TEST

static void *attach(void *arg, const bufpool_region_t *region)
{
	(void) arg;
	(void) region;
	return NULL;
}

START_TEST(trim_gives_nothing)
{
	bufpool_config_t config = counts(40, 5, 3, 2);
	bufpool_region_t r[REGIONS], again[REGIONS];
	bufpool_t *pool;
	size_t got;

	REFUSED(bufpool_trim(NULL) == 0, EINVAL);

	/* To a device, memory stays where it is. */
	config.region_attach = attach;
	pool = make_pool(config);
	KEEPS_ERRNO(got = bufpool_trim(pool));
	ck_assert_uint_eq(got, 0);
	ck_assert_uint_eq(resident(pool), bytes_of(&config));
	bufpool_destroy(pool);

	config = with_flags(counts(4, 2, 1, 1), BUFPOOL_LOCKED);
	pool = make_pool(config);
	KEEPS_ERRNO(got = bufpool_trim(pool));
	ck_assert_uint_eq(got, 0);
	ck_assert_uint_eq(resident(pool), bytes_of(&config));
	bufpool_destroy(pool);

	pool = make_pool(empty_config());
	KEEPS_ERRNO(got = bufpool_trim(pool));
	ck_assert_uint_eq(got, 0);
	bufpool_destroy(pool);

	/* Where a region is does not change. */
	pool = make_pool(counts(4, 2, 1, 1));
	ck_assert_uint_eq(regions_of(pool, r), 4);
	bufpool_trim(pool);
	ck_assert_uint_eq(regions_of(pool, again), 4);
	for (int i = 0; i < 4; i++) {
		ck_assert_ptr_eq(r[i].base, again[i].base);
		/* No pages, no node. */
		ck_assert_int_eq(again[i].numa_node, -1);
	}
	must_work(pool);
	bufpool_destroy(pool);
}
END_TEST

/* What is said of the pages stays true. */
START_TEST(trimmed_huge_pages)
{
	bufpool_t *pool =
		make_pool(with_flags(counts(512, 0, 0, 2), BUFPOOL_HUGEPAGES));
	struct hoard hoard;

	take_all(pool, &hoard);
	bufpool_return_bulk(hoard.buf, hoard.n / 2);
	bufpool_trim(pool);
	honest_pages(pool, true);
	bufpool_return_bulk(hoard.buf + hoard.n / 2, hoard.n - hoard.n / 2);
	must_work(pool);
	bufpool_trim(pool);
	honest_pages(pool, true);
	must_work(pool);
	honest_pages(pool, true);
	bufpool_destroy(pool);
}
END_TEST

/* Beside a trim: what is out is not touched, what comes out is zero. */
static struct {
	bufpool_t *pool;
	atomic_bool stop;
	atomic_size_t trimmed;
} trimmer;

static void *keep_trimming(void *arg)
{
	(void) arg;
	while (!trimmer.stop)
		trimmer.trimmed += bufpool_trim(trimmer.pool);
	return NULL;
}

static pthread_t start_trimming(bufpool_t *pool)
{
	trimmer.pool = pool;
	trimmer.stop = false;
	trimmer.trimmed = 0;
	return start_thread(keep_trimming, NULL);
}

static void stop_trimming(pthread_t thread)
{
	trimmer.stop = true;
	join_thread(thread);
}

static void *work_beside_trim(void *arg)
{
	uint64_t seed = 0x9e3779b97f4a7c15 + (uintptr_t) arg;

	for (long i = scaled(3000); i > 0; i--) {
		bufpool_buf_t *bufs[4];
		unsigned char mark = (unsigned char) (draw(&seed) | 1);
		size_t n = bufpool_checkout_bulk(trimmer.pool,
		                                 draw(&seed) % 2 ? 100 : 65536,
		                                 bufs, 1 + draw(&seed) % 4);

		for (size_t j = 0; j < n; j++) {
			must(is_zero(bufs[j]));
			fill(bufs[j], mark);
		}
		for (size_t j = 0; j < n; j++) {
			bufpool_buf_t *buf = bufs[j];

			must(all_bytes(buf->data, buf->capacity, mark));
			if (draw(&seed) % 2)
				bufpool_return(buf);
			else
				bufpool_frozen_unref(bufpool_freeze(buf));
		}
	}
	return NULL;
}

START_TEST(trim_beside_others)
{
	bufpool_t *pool = make_pool(counts(12, 8, 0, 0));
	pthread_t threads[3], trimming = start_trimming(pool);

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start_thread(work_beside_trim, &threads[i]);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
	stop_trimming(trimming);
	ck_assert_uint_gt(trimmer.trimmed, 0);
	must_work(pool);
	bufpool_destroy(pool);
}
END_TEST

/* The only buffer there is: a waiter gets it also if a trim had it in its hands
   when the waiter looked. */
static void *wait_beside_trim(void *arg)
{
	const struct klass *class = arg;

	for (long i = scaled(1000); i > 0; i--) {
		bufpool_buf_t *buf =
			bufpool_checkout_wait(trimmer.pool, class->size, NULL);

		must(buf && is_zero(buf));
		fill(buf, SECRET);
		bufpool_return(buf);
	}
	return NULL;
}

static const struct {
	int size_class;
	size_t cache;
	int threads; /* alone, it is woken by the trim or by nobody */
} waits[] = {
	{ BUFPOOL_CLASS_4K, 4, 2 },
	{ BUFPOOL_CLASS_4K, 0, 1 },
	{ BUFPOOL_CLASS_256K, 0, 1 },
};

START_TEST(trim_beside_waiters)
{
	void *class = (void *) &classes[waits[_i].size_class];
	bufpool_config_t config = class_config(waits[_i].size_class, 1);
	pthread_t threads[2], trimming;
	bufpool_t *pool;

	set_cache(&config, waits[_i].cache);
	pool = make_pool(config);
	trimming = start_trimming(pool);
	for (int i = 0; i < waits[_i].threads; i++)
		threads[i] = start_thread(wait_beside_trim, class);
	for (int i = 0; i < waits[_i].threads; i++)
		join_thread(threads[i]);
	stop_trimming(trimming);
	must_work(pool);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(trim_then_destroy)
{
	bufpool_t *pool = make_pool(even_config(3));
	bufpool_buf_t *buf = bufpool_checkout_64k(pool);
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);

	bufpool_trim(pool);
	bufpool_destroy(pool);
	fill(buf, SECRET);
	for (size_t i = 0; i < n; i++)
		ck_assert(is_mapped(r[i].base));
	bufpool_return(buf);
	for (size_t i = 0; i < n; i++)
		ck_assert(!is_mapped(r[i].base));

	/* And with nothing out. */
	pool = make_pool(even_config(3));
	regions_of(pool, r);
	bufpool_trim(pool);
	bufpool_destroy(pool);
	ck_assert(!is_mapped(r[0].base));
}
END_TEST

START_TEST(trim_then_fork)
{
	bufpool_config_t config = counts(20, 5, 3, 2);
	bufpool_buf_t *buf;
	bufpool_t *pool;

	config.flags = _i && !is_valgrind() ? BUFPOOL_DONTFORK : 0;
	pool = make_pool(config);
	buf = bufpool_checkout_4k(pool);
	bufpool_trim(pool);
	bufpool_return(buf);
	in_child(work_and_trim, pool);
	must_work(pool);
	ck_assert_uint_eq(bufpool_trim(pool), bytes_of(&config));
	bufpool_destroy(pool);
}
END_TEST

/* ---------------------------------------------------------------- the suite */

static Suite *trim_suite(void)
{
	Suite *suite = suite_create("trim");
	TCase *tc = add_case(suite, "trim", 20);

	tcase_add_loop_test(tc, trim_takes_what_is_idle, 0,
	                    BUFPOOL_WIPE_NONE + 1);
	if (!is_hardened()) /* there they go first */
		tcase_add_loop_test(tc, trimmed_ones_go_out_last, 0,
		                    BUFPOOL_CLASSES);
	tcase_add_test(tc, trim_gives_nothing);
	tcase_add_test(tc, trimmed_huge_pages);
	tcase_add_test(tc, trim_beside_others);
	tcase_add_loop_test(tc, trim_beside_waiters, 0, ARRAY_SIZE(waits));
	tcase_add_test(tc, trim_then_destroy);
	tcase_add_loop_test(tc, trim_then_fork, 0, 2);
	return suite;
}

int main(void)
{
	lock_huge_pages(LOCK_SH);
	return run_suite(trim_suite());
}
