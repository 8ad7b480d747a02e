/* SPDX-License-Identifier: MIT */
/*
 * check_wipe.c - no byte of one owner is readable by the next, nor is anything
 * written that the wipe mode spares
 *
 * Two views: what the next owner sees, and what lies at the old address right
 * after the return, if anything still does (peek() asks the kernel, so freed
 * and poisoned memory may be looked at).
 */
#include "common.h"

#include <limits.h>
#include <malloc.h>

/* Eight bytes that chance does not put into a freed block. */
static const unsigned char secret[8] = {0xb5, 0x9e, 0xd3, 0x71,
                                        0xc7, 0xea, 0x8d, 0x5b};

static void write_secrets(bufpool_buf_t *buf)
{
	char *bytes = buf->data;
	size_t done = sizeof(secret);

	memcpy(bytes, secret, done);
	for (; done < buf->capacity - done; done *= 2)
		memcpy(bytes + done, bytes, done);
	memcpy(bytes + done, bytes, buf->capacity - done);
}

/* Whether bytes [from, n) are as write_secrets() left them. */
static bool has_secrets(const void *data, size_t n, size_t from)
{
	const unsigned char *bytes = data;
	size_t i = from;

	for (; i < n && i < from + sizeof(secret); i++)
		if (bytes[i] != secret[i % sizeof(secret)])
			return false;
	return i == n || memcmp(bytes + i, bytes + from, n - i) == 0;
}

/* A buffer as it was before it was returned. */
static struct {
	unsigned char *data;
	size_t len;
	size_t capacity;
	unsigned char *now; /* what is there now; NULL if nothing is */
} old;

static void remember(const bufpool_buf_t *buf)
{
	old.data = buf->data;
	old.len = buf->len;
	old.capacity = buf->capacity;
}

static void look_back(void)
{
	static unsigned char copy[BUFPOOL_MAX_CLASS_SIZE + 3 * PAGE];

	ck_assert_uint_le(old.capacity, sizeof(copy));
	old.now = peek(old.data, copy, old.capacity) ? copy : NULL;
}

/* The allocator may write its own things to what is freed. */
static void no_secret_is_left(size_t len)
{
	ck_assert(!old.now ||
	          !memmem(old.now, len, secret, sizeof(secret)));
}

/* ------------------------------------------------------------- the sources */

static const struct source sources[] = {
	{4096, BUFPOOL_CLASS_4K, false, BUFPOOL_CACHE_AUTO},
	{65536, BUFPOOL_CLASS_64K, false, BUFPOOL_CACHE_AUTO},
	{262144, BUFPOOL_CLASS_256K, false, BUFPOOL_CACHE_AUTO},
	{1048576, BUFPOOL_CLASS_1M, false, BUFPOOL_CACHE_AUTO},
	{4096, BUFPOOL_CLASS_4K, false, 0},
	{65536, BUFPOOL_CLASS_64K, false, 0},
	{262144, BUFPOOL_CLASS_256K, false, 0},
	{1048576, BUFPOOL_CLASS_1M, false, 0},
	{4096, BUFPOOL_CLASS_4K, true, BUFPOOL_CACHE_AUTO},
	{65536, BUFPOOL_CLASS_64K, true, BUFPOOL_CACHE_AUTO},
	{262144, BUFPOOL_CLASS_256K, true, BUFPOOL_CACHE_AUTO},
	{1048576, BUFPOOL_CLASS_1M, true, BUFPOOL_CACHE_AUTO},
	{1048577, -1, true, BUFPOOL_CACHE_AUTO},
	{1050001, -1, true, BUFPOOL_CACHE_AUTO},
};

/* Return it in some way. */
static void return_in_bulk(bufpool_buf_t *buf)
{
	bufpool_buf_t *bufs[3] = {NULL, buf, NULL};

	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
}

static void return_and_flush(bufpool_buf_t *buf)
{
	bufpool_return(buf);
	bufpool_thread_flush(NULL);
}

static void (*const returns[])(bufpool_buf_t *buf) = {
	return_here,
	return_in_bulk,
	return_and_flush,
	return_elsewhere,
};

/* -------------------------------------------------------------------- all */

/* len must not matter under BUFPOOL_WIPE_ALL. */
static size_t some_len(const bufpool_buf_t *buf, size_t i)
{
	const size_t lens[] = {0, 1, buf->capacity / 2, buf->capacity};

	return lens[i % ARRAY_SIZE(lens)];
}

/* The loop index is the source. */
START_TEST(all_is_erased)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);

	for (size_t i = 0; i < 4 * ARRAY_SIZE(returns); i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, source->size);

		ck_assert_ptr_nonnull(buf);
		ck_assert(is_zero(buf));
		write_secrets(buf);
		buf->len = some_len(buf, i / ARRAY_SIZE(returns));
		remember(buf);
		returns[i % ARRAY_SIZE(returns)](buf);
		look_back();
		no_secret_is_left(old.capacity);
		if (!source->heap)
			ck_assert(old.now &&
			          all_bytes(old.now, old.capacity, 0));
	}
	bufpool_destroy(pool);
}
END_TEST

/* Not the next buffer, but all that follow, by whatever call. */
START_TEST(every_next_owner_sees_zero)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 8);
	bufpool_buf_t *bufs[8];

	for (size_t round = 0; round < ARRAY_SIZE(ways); round++) {
		size_t n = 0;

		if (source->heap && !ways[round].heap)
			continue;
		while (n < ARRAY_SIZE(bufs)) {
			bufs[n] = ways[round].take(pool, source->size);
			ck_assert_ptr_nonnull(bufs[n]);
			ck_assert(is_zero(bufs[n]));
			write_secrets(bufs[n++]);
		}
		for (size_t i = 0; i < n; i++)
			returns[i % ARRAY_SIZE(returns)](bufs[i]);
	}
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------------- used */

/* The owner keeps its word: nothing behind len was written. */
START_TEST(used_is_erased)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_USED, 1);
	const size_t lens[] = {0,    1,    7,    63,   64,        65,
	                       4095, 4096, 4097, 4104, SIZE_MAX};

	for (size_t i = 0; i < 2 * ARRAY_SIZE(lens); i++) {
		size_t len = lens[i / 2];
		bufpool_buf_t *buf;

		if (len > source->size)
			len = source->size;
		buf = i % 2 ? bufpool_checkout(pool, source->size)
		            : bufpool_checkout_zeroed(pool, source->size);
		ck_assert_ptr_nonnull(buf);
		ck_assert(is_zero(buf));
		memset(buf->data, 0xee, len);
		buf->len = len;
		returns[i % ARRAY_SIZE(returns)](buf);
	}
	bufpool_destroy(pool);
}
END_TEST

/* len counts as it stands at the return, and nothing behind it is written. */
START_TEST(used_spares_the_rest)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_USED, 1);
	const size_t lens[] = {0, 1, 64, 1000, 4096};

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, source->size);

		write_secrets(buf);
		buf->len = lens[i];
		remember(buf);
		returns[i % ARRAY_SIZE(returns)](buf);
		look_back();
		no_secret_is_left(old.len);
		if (source->heap)
			continue;
		ck_assert(old.now && all_bytes(old.now, old.len, 0));
		ck_assert(has_secrets(old.now, old.capacity, old.len));

		/* The next owner gets just that. */
		buf = bufpool_checkout(pool, source->size);
		ck_assert_ptr_eq(buf->data, old.data);
		ck_assert(all_bytes(buf->data, old.len, 0));
		ck_assert(has_secrets(buf->data, old.capacity, old.len));
		bufpool_return(buf);
	}
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------------- none */

START_TEST(none_keeps_the_contents)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_NONE, 1);
	bufpool_buf_t *buf;

	if (source->heap)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(returns); i++) {
		buf = bufpool_checkout(pool, source->size);
		write_secrets(buf);
		returns[i](buf);
		buf = bufpool_checkout(pool, source->size);
		ck_assert(has_secrets(buf->data, buf->capacity, 0));
		bufpool_return(buf);
	}
	bufpool_destroy(pool);
}
END_TEST

START_TEST(zeroed_is_zero_nonetheless)
{
	const struct source *source = &sources[_i];
	enum bufpool_wipe wipe;

	for (wipe = BUFPOOL_WIPE_ALL; wipe <= BUFPOOL_WIPE_NONE; wipe++) {
		bufpool_t *pool = source_pool(source, wipe, 1);

		for (size_t i = 0; i < 2 * ARRAY_SIZE(returns); i++) {
			bufpool_buf_t *buf;

			/* The whole capacity, also beyond what was asked. */
			buf = bufpool_checkout_zeroed(
				pool, source->size - (source->heap ? 0 : i));
			ck_assert_ptr_nonnull(buf);
			ck_assert(is_zero(buf));
			write_secrets(buf);
			buf->len = buf->capacity;
			returns[i % ARRAY_SIZE(returns)](buf);
		}
		bufpool_destroy(pool);
	}
}
END_TEST

/* ----------------------------------------------------------------- threads */

/* What a thread leaves in its cache when it exits. */
static void *dirty_and_exit(void *arg)
{
	bufpool_t *pool = arg;
	bufpool_buf_t *bufs[8];
	size_t n = bufpool_checkout_bulk(pool, 4096, bufs, ARRAY_SIZE(bufs));

	must(n == ARRAY_SIZE(bufs));
	for (size_t i = 0; i < n; i++) {
		must(is_zero(bufs[i]));
		write_secrets(bufs[i]);
	}
	bufpool_return_bulk(bufs, n);
	return NULL;
}

START_TEST(thread_exit_leaves_nothing)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 8);
	bufpool_buf_t *bufs[9];
	bufpool_t *pool;

	set_cache(&config, SIZE_MAX - 1);
	pool = make_pool(config);
	for (int round = 0; round < 10; round++) {
		run_thread(dirty_and_exit, pool);
		ck_assert_uint_eq(drain(pool, BUFPOOL_CLASS_4K, bufs, 9), 8);
		for (int i = 0; i < 8; i++)
			ck_assert(is_zero(bufs[i]));
		bufpool_return_bulk(bufs, 8);
	}
	bufpool_destroy(pool);
}
END_TEST

/* Few buffers, many owners: each finds zero, and leaves secrets. */
static void *look_and_dirty(void *arg)
{
	bufpool_t *pool = arg;
	uint64_t seed = (uintptr_t) &seed | 1;

	for (long i = scaled(30000); i > 0; i--) {
		size_t size = draw(&seed) % (i % 64 ? 4097 : 70000);
		bufpool_buf_t *buf = bufpool_checkout(pool, size);

		must(buf && is_zero(buf));
		write_secrets(buf);
		bufpool_return(buf);
	}
	return NULL;
}

START_TEST(owners_in_many_threads)
{
	bufpool_config_t config = even_config(3);
	pthread_t threads[4];
	bufpool_t *pool;

	set_cache(&config, _i);
	pool = make_pool(config);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start_thread(look_and_dirty, pool);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
	destroy_whole(pool);
}
END_TEST

/* ----------------------------------------------------------------- destroy */

START_TEST(erased_after_destroy)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 2);
	bufpool_buf_t *first = bufpool_checkout(pool, source->size);
	bufpool_buf_t *last = bufpool_checkout(pool, source->size);

	write_secrets(first);
	write_secrets(last);
	bufpool_destroy(pool);
	ck_assert(has_secrets(first->data, first->capacity, 0));
	remember(first);
	bufpool_return(first);
	look_back();
	no_secret_is_left(old.capacity);
	ck_assert(has_secrets(last->data, last->capacity, 0));
	remember(last);
	return_elsewhere(last);
	look_back();
	no_secret_is_left(old.capacity);
}
END_TEST

static Suite *wipe_suite(void)
{
	const int n = ARRAY_SIZE(sources);
	Suite *suite = suite_create("wipe");
	TCase *tcase = add_case(suite, "modes", 10);

	tcase_add_loop_test(tcase, all_is_erased, 0, n);
	tcase_add_loop_test(tcase, every_next_owner_sees_zero, 0, n);
	tcase_add_loop_test(tcase, used_is_erased, 0, n);
	tcase_add_loop_test(tcase, used_spares_the_rest, 0, n);
	tcase_add_loop_test(tcase, none_keeps_the_contents, 0, n);
	tcase_add_loop_test(tcase, zeroed_is_zero_nonetheless, 0, n);

	tcase = add_case(suite, "threads", 20);
	tcase_add_test(tcase, thread_exit_leaves_nothing);
	tcase_add_loop_test(tcase, owners_in_many_threads, 0, 3);

	tcase = add_case(suite, "destroy", 10);
	tcase_add_loop_test(tcase, erased_after_destroy, 0, n);
	return suite;
}

int main(void)
{
	/* So that what is freed stays there for look_back(). */
	mallopt(M_MMAP_MAX, 0);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	return run_suite(wipe_suite());
}
