/* SPDX-License-Identifier: MIT */
/*
 * check_frozen.c - many read one buffer, and the last one sends it home
 *
 * What a holder reads is always a piece of the same pattern, which has no zero
 * in it: a byte that was erased, or that a next owner wrote, is out of place.
 */
#include "common.h"

#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

/* ---------------------------------------------------------------- pattern */

enum { PERIOD = 251 };

#define PATTERN_LEN (BUFPOOL_MAX_CLASS_SIZE + PERIOD + 2 * PAGE)

static unsigned char pattern[PATTERN_LEN];

static void make_pattern(void)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (unsigned char) (i % PERIOD + 1);
}

/* Write n bytes; shift tells one writing from another. */
static void write_pattern(bufpool_buf_t *buf, size_t n, size_t shift)
{
	memcpy(buf->data, pattern + shift % PERIOD, n);
}

static bool has_pattern(const void *data, size_t n, size_t shift)
{
	return n == 0 || memcmp(data, pattern + shift % PERIOD, n) == 0;
}

/* ------------------------------------------------------------- the sources */

static const struct source sources[] = {
	{4096, BUFPOOL_CLASS_4K, false, BUFPOOL_CACHE_AUTO},
	{4096, BUFPOOL_CLASS_4K, false, 0},
	{262144, BUFPOOL_CLASS_256K, false, BUFPOOL_CACHE_AUTO},
	{65536, BUFPOOL_CLASS_64K, true, BUFPOOL_CACHE_AUTO},
	{1048577, -1, true, BUFPOOL_CACHE_AUTO},
};

enum { SOURCES = ARRAY_SIZE(sources) };

static bufpool_buf_t *take(bufpool_t *pool, const struct source *source)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, source->size);

	must(buf);
	must(buf->capacity == source->size);
	return buf;
}

/* A frozen buffer with the pattern all over it. */
static bufpool_frozen_t *take_frozen(bufpool_t *pool,
                                     const struct source *source, size_t shift)
{
	bufpool_buf_t *buf = take(pool, source);
	bufpool_frozen_t *f;

	write_pattern(buf, buf->capacity, shift);
	f = bufpool_freeze(buf);
	must(f);
	return f;
}

/* ------------------------------------------------------- ways of letting go */

static void release_slice(bufpool_frozen_t *f)
{
	bufpool_slice_t slice = bufpool_slice(f, 0, bufpool_frozen_len(f));

	must(slice.owner == f);
	bufpool_frozen_unref(f);
	bufpool_slice_release(&slice);
}

static void *release_thread(void *slice)
{
	bufpool_slice_release(slice);
	return NULL;
}

static void release_slice_elsewhere(bufpool_frozen_t *f)
{
	bufpool_slice_t slice = bufpool_slice(f, bufpool_frozen_len(f), 0);

	must(slice.owner == f);
	bufpool_frozen_unref(f);
	run_thread(release_thread, &slice);
	must(slice.owner == NULL);
}

static void unref_in_destructor(void *f)
{
	bufpool_frozen_unref(f);
}

static pthread_key_t unref_key;

static void *carry_out(void *f)
{
	must(pthread_setspecific(unref_key, f) == 0);
	return NULL;
}

static void unref_by_exit(bufpool_frozen_t *f)
{
	must(pthread_key_create(&unref_key, unref_in_destructor) == 0);
	run_thread(carry_out, f);
	must(pthread_key_delete(unref_key) == 0);
}

static void thaw_and_return(bufpool_frozen_t *f)
{
	bufpool_buf_t *buf = bufpool_thaw(f);

	must(buf);
	bufpool_return(buf);
}

static void *thaw_thread(void *f)
{
	bufpool_buf_t *bufs[] = {NULL, bufpool_thaw(f)};

	must(bufs[1]);
	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
	return NULL;
}

static void thaw_elsewhere(bufpool_frozen_t *f)
{
	run_thread(thaw_thread, f);
}

/* First a reference that does no harm, so that the last is not the only. */
static void unref_both(bufpool_frozen_t *f)
{
	bufpool_frozen_ref(f);
	unref_elsewhere(f);
	bufpool_frozen_unref(f);
}

static void (*const let_go[])(bufpool_frozen_t *f) = {
	bufpool_frozen_unref, unref_both,      unref_elsewhere, release_slice,
	release_slice_elsewhere, unref_by_exit, thaw_and_return, thaw_elsewhere,
};

/* ------------------------------------------------------------------- views */

/* The loop index is the source, as in most tests. */
START_TEST(freeze_shows_what_was_written)
{
	const struct source *source = &sources[_i];
	const size_t lens[] = {0, 1, 63, source->size / 2, source->size - 1,
	                       source->size};
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		bufpool_buf_t *buf = take(pool, source);
		const void *data = buf->data;
		bufpool_frozen_t *f;

		write_pattern(buf, lens[i], i);
		buf->len = lens[i];
		KEEPS_ERRNO(f = bufpool_freeze(buf));
		ck_assert_ptr_nonnull(f);
		KEEPS_ERRNO(ck_assert_ptr_eq(bufpool_frozen_data(f), data));
		KEEPS_ERRNO(ck_assert_uint_eq(bufpool_frozen_len(f), lens[i]));
		ck_assert(has_pattern(data, lens[i], i));
		KEEPS_ERRNO(ck_assert_ptr_eq(bufpool_frozen_ref(f), f));
		KEEPS_ERRNO(bufpool_frozen_unref(f));
		ck_assert_ptr_eq(bufpool_frozen_data(f), data);
		ck_assert_uint_eq(bufpool_frozen_len(f), lens[i]);
		ck_assert(has_pattern(data, lens[i], i));
		KEEPS_ERRNO(bufpool_frozen_unref(f));
	}
	destroy_whole(pool);
}
END_TEST

/* What a checkout asked for is the view, if nobody sets len. */
START_TEST(the_view_is_the_request)
{
	bufpool_t *pool = bufpool_create(NULL);
	const size_t sizes[] = {0, 1, 4096, 4097, 70000, 1048576, 3000001};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		bufpool_frozen_t *f =
			bufpool_freeze(bufpool_checkout(pool, sizes[i]));

		ck_assert_uint_eq(bufpool_frozen_len(f), sizes[i]);
		ck_assert(all_bytes(bufpool_frozen_data(f), sizes[i], 0));
		bufpool_frozen_unref(f);
	}
	destroy_whole(pool);
}
END_TEST

START_TEST(many_references)
{
	enum { MANY = 100000 };
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	bufpool_frozen_t *f = take_frozen(pool, source, 0);
	long many = scaled(MANY);

	for (long i = 0; i < many; i++)
		must(bufpool_frozen_ref(f) == f);
	for (long i = 0; i < many; i++) {
		if (i % 1000 == 0)
			REFUSED(bufpool_thaw(f) == NULL, EBUSY);
		bufpool_frozen_unref(f);
	}
	ck_assert(has_pattern(bufpool_frozen_data(f), source->size, 0));
	ck_assert_uint_eq(stats_of(pool).checked_out, 1);
	bufpool_frozen_unref(f);
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------------- thaw */

START_TEST(thaw_gives_the_buffer_back)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	bufpool_buf_t *buf = take(pool, source);
	const void *data = buf->data;
	size_t rounds = (size_t) scaled(300);

	for (size_t i = 0; i < rounds; i++) {
		size_t len = i % 7 ? source->size - i : i;
		bufpool_frozen_t *f;

		write_pattern(buf, source->size, i);
		buf->len = len;
		f = bufpool_freeze(buf);
		KEEPS_ERRNO(buf = bufpool_thaw(f));
		ck_assert_ptr_nonnull(buf);
		ck_assert_ptr_eq(buf->data, data);
		ck_assert_uint_eq(buf->len, len);
		ck_assert_uint_eq(buf->capacity, source->size);
		ck_assert(has_pattern(data, source->size, i));
	}
	ck_assert_uint_eq(stats_of(pool).checked_out, 1);
	ck_assert_uint_eq(stats_of(pool).hits + stats_of(pool).misses, 1);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

START_TEST(thaw_needs_the_only_reference)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	bufpool_frozen_t *f = take_frozen(pool, source, 1);
	bufpool_slice_t slice;
	bufpool_buf_t *buf;

	bufpool_frozen_ref(f);
	REFUSED(bufpool_thaw(f) == NULL, EBUSY);
	REFUSED(bufpool_thaw(f) == NULL, EBUSY);
	ck_assert(has_pattern(bufpool_frozen_data(f), source->size, 1));
	unref_elsewhere(f);
	slice = bufpool_slice(f, 1, 1);
	REFUSED(bufpool_thaw(f) == NULL, EBUSY);
	bufpool_slice_release(&slice);
	slice = bufpool_slice(f, source->size, 0);
	REFUSED(bufpool_thaw(f) == NULL, EBUSY);
	bufpool_slice_release(&slice);
	buf = bufpool_thaw(f);
	ck_assert_ptr_nonnull(buf);
	write_pattern(buf, buf->capacity, 2);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------ slices */

static bool is_reset(const bufpool_slice_t *slice)
{
	return slice->data == NULL && slice->len == 0 && slice->owner == NULL;
}

/* It is what it should be, and holds one reference. */
static void check_slice(bufpool_frozen_t *f, size_t offset, size_t len)
{
	const char *data = bufpool_frozen_data(f);
	bufpool_slice_t slice;

	KEEPS_ERRNO(slice = bufpool_slice(f, offset, len));
	ck_assert_ptr_eq(slice.data, data + offset);
	ck_assert_uint_eq(slice.len, len);
	ck_assert_ptr_eq(slice.owner, f);
	REFUSED(bufpool_thaw(f) == NULL, EBUSY);
	KEEPS_ERRNO(bufpool_slice_release(&slice));
	ck_assert(is_reset(&slice));
	KEEPS_ERRNO(bufpool_slice_release(&slice));
	ck_assert(is_reset(&slice));
}

static void check_no_slice(bufpool_frozen_t *f, size_t offset, size_t len)
{
	bufpool_slice_t slice = {"", 1, f};

	REFUSED((slice = bufpool_slice(f, offset, len)).data == NULL, ERANGE);
	ck_assert(is_reset(&slice));
}

/* Every boundary of a view of n bytes. */
static void check_slices_of(bufpool_frozen_t *f, size_t n)
{
	const size_t max = SIZE_MAX;
	const size_t inside[][2] = {{0, 0}, {0, n}, {n, 0}, {n / 3, n / 2}};
	const size_t outside[][2] = {
		{0, n + 1},     {1, n},           {n, 1},
		{n + 1, 0},     {n + 1, max},     {n + 1, max - n},
		{max, 0},       {max, 1},         {max, 2},
		{max, max},     {0, max},         {1, max},
		{2, max},       {2, max - 1},     {n, max - n + 1},
		{n, max},       {max, n + 1},     {max - n + 1, n},
		{max / 2 + 1, max / 2 + 1},       {max - n, n + 1},
		{0, (size_t) PTRDIFF_MAX + n + 1}, {n, PTRDIFF_MAX},
	};

	ck_assert_uint_eq(bufpool_frozen_len(f), n);
	for (size_t i = 0; i < ARRAY_SIZE(inside); i++)
		check_slice(f, inside[i][0], inside[i][1]);
	if (n > 0) {
		check_slice(f, 0, 1);
		check_slice(f, n - 1, 1);
		check_slice(f, 1, n - 1);
		check_slice(f, 0, n - 1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
		/* Where n is 0 a few of them are nothing special. */
		if (n > 0 || outside[i][0] + outside[i][1] != 0 ||
		    outside[i][0] != 0)
			check_no_slice(f, outside[i][0], outside[i][1]);
}

START_TEST(slices_stay_inside)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	const size_t lens[] = {0, 1, 1000, source->size - 1, source->size};
	bufpool_buf_t *buf = take(pool, source);

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		bufpool_frozen_t *f;

		buf->len = lens[i];
		f = bufpool_freeze(buf);
		check_slices_of(f, lens[i]);
		/* Not one reference has been left behind. */
		buf = bufpool_thaw(f);
		ck_assert_ptr_nonnull(buf);
	}
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

START_TEST(slices_outlive_their_owner)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	bufpool_frozen_t *f = take_frozen(pool, source, 5);
	bufpool_slice_t slices[100];

	for (size_t i = 0; i < ARRAY_SIZE(slices); i++)
		slices[i] = bufpool_slice(f, i * 7, source->size - i * 20);
	bufpool_frozen_unref(f);
	for (size_t i = 0; i < ARRAY_SIZE(slices); i++) {
		bufpool_slice_t *slice = &slices[i * 37 % ARRAY_SIZE(slices)];
		bufpool_slice_t copy = *slice;

		ck_assert_uint_eq(stats_of(pool).checked_out, 1);
		ck_assert(has_pattern(slice->data, slice->len,
		                      i * 37 % ARRAY_SIZE(slices) * 7 + 5));
		/* A slice of a slice's owner: any holder may make one. */
		copy = bufpool_slice(copy.owner, 1, 2);
		bufpool_slice_release(slice);
		ck_assert(has_pattern(copy.data, copy.len, 6));
		bufpool_slice_release(&copy);
	}
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------------- NULL */

START_TEST(null_handles)
{
	bufpool_slice_t slice = {"", 1, NULL}, zero = {NULL, 0, NULL};

	REFUSED(bufpool_freeze(NULL) == NULL, EINVAL);
	REFUSED(bufpool_frozen_ref(NULL) == NULL, EINVAL);
	REFUSED(bufpool_frozen_data(NULL) == NULL, EINVAL);
	REFUSED(bufpool_frozen_len(NULL) == 0, EINVAL);
	REFUSED(bufpool_thaw(NULL) == NULL, EINVAL);
	REFUSED((slice = bufpool_slice(NULL, 0, 0)).data == NULL, EINVAL);
	ck_assert(is_reset(&slice));
	slice = (bufpool_slice_t) {"", 1, NULL};
	REFUSED((slice = bufpool_slice(NULL, 1, SIZE_MAX)).data == NULL,
	        EINVAL);
	ck_assert(is_reset(&slice));
	KEEPS_ERRNO(bufpool_frozen_unref(NULL));
	KEEPS_ERRNO(bufpool_slice_release(NULL));
	KEEPS_ERRNO(bufpool_slice_release(&zero));
	ck_assert(is_reset(&zero));
}
END_TEST

/* -------------------------------------------------------------------- home */

/* However it is let go: it is out as long as somebody holds it, then home. */
START_TEST(the_last_sends_it_home)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 2);

	for (size_t i = 0; i < 3 * ARRAY_SIZE(let_go); i++) {
		bufpool_frozen_t *f = take_frozen(pool, source, i);
		bufpool_stats_t stats = stats_of(pool);

		ck_assert_uint_eq(stats.checked_out, 1);
		ck_assert_uint_eq(stats.bytes_checked_out, source->size);
		ck_assert_uint_eq(stats.heap_bytes,
		                  source->heap ? source->size : 0);
		if (!source->heap) {
			int k = source->size_class;

			ck_assert_uint_eq(stats.per_class[k].checked_out, 1);
			ck_assert_uint_eq(stats.per_class[k].idle, 1);
		}
		let_go[i % ARRAY_SIZE(let_go)](f);
		must_be_whole(pool);
	}
	bufpool_destroy(pool);
}
END_TEST

/* Freezing, sharing and thawing are no checkouts, whatever len is by then. */
START_TEST(statistics_do_not_see_it)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	bufpool_buf_t *buf = take(pool, source);
	bufpool_stats_t before = stats_of(pool), after;
	bufpool_slice_t slice;
	bufpool_frozen_t *f;

	buf->len = 10;
	f = bufpool_freeze(buf);
	after = stats_of(pool);
	ck_assert_mem_eq(&before, &after, sizeof(before));
	slice = bufpool_slice(bufpool_frozen_ref(f), 3, 4);
	unref_elsewhere(f);
	bufpool_slice_release(&slice);
	buf = bufpool_thaw(f);
	after = stats_of(pool);
	ck_assert_mem_eq(&before, &after, sizeof(before));
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------------- wipe */

static unsigned char *look_at(const void *data, size_t n)
{
	static unsigned char copy[BUFPOOL_MAX_CLASS_SIZE + PAGE];

	must(n <= sizeof(copy));
	return peek(data, copy, n) ? copy : NULL;
}

/*
 * The heap may write its own things to what it gets back; what cannot be there
 * is a run of the pattern.
 */
static void is_erased(const struct source *source, const void *data, size_t n)
{
	const unsigned char *now = look_at(data, n);

	if (!source->heap)
		ck_assert(now && all_bytes(now, n, 0));
	else
		for (size_t i = 0; now && i + 16 <= n; i++)
			must(now[i] == 0 || memcmp(now + i, pattern +
			     (now[i] - 1) % PERIOD, 16) != 0);
}

START_TEST(all_is_erased)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 1);
	const size_t lens[] = {0, 1, source->size / 2, source->size};

	for (size_t i = 0; i < 4 * ARRAY_SIZE(let_go); i++) {
		bufpool_buf_t *buf = take(pool, source);
		const void *data = buf->data;

		ck_assert(is_zero(buf));
		write_pattern(buf, source->size, i);
		buf->len = lens[i / ARRAY_SIZE(let_go)];
		let_go[i % ARRAY_SIZE(let_go)](bufpool_freeze(buf));
		is_erased(source, data, source->size);
	}
	bufpool_destroy(pool);
}
END_TEST

/* Write all, say that only len was: the rest must be spared. */
START_TEST(used_is_erased)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_USED, 1);
	const size_t lens[] = {0, 1, 64, 1000, source->size};

	for (size_t i = 0; i < ARRAY_SIZE(lens) * ARRAY_SIZE(let_go); i++) {
		size_t len = lens[i / ARRAY_SIZE(let_go)];
		bufpool_buf_t *buf = take(pool, source);
		const unsigned char *data = buf->data, *now;

		write_pattern(buf, source->size, i);
		buf->len = len;
		let_go[i % ARRAY_SIZE(let_go)](bufpool_freeze(buf));
		is_erased(source, data, len);
		if (source->heap)
			continue;
		now = look_at(data, source->size);
		ck_assert(now && has_pattern(now + len, source->size - len,
		                             i + len));
	}
	bufpool_destroy(pool);
}
END_TEST

/* Freeze with each of the lens in turn, thawed in between; 0 ends them. */
static const size_t histories[][4] = {
	{4000, 10},         {10, 4000},         {4000, 4000},
	{4000, 10, 20},     {10, 4000, 20},     {10, 20, 4000},
	{4000, 1, 1, 1},    {1, 4000, 1, 2},    {1, 2, 3, 4},
};

/* A thawed buffer whose len shrank: the larger counts, for good. */
START_TEST(used_remembers_the_largest)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_USED, 1);

	for (size_t i = 0; i < 2 * ARRAY_SIZE(histories); i++) {
		const size_t *lens = histories[i / 2];
		bufpool_buf_t *buf = take(pool, source);
		const unsigned char *data = buf->data, *now;
		size_t most = 0;

		write_pattern(buf, source->size, i);
		for (size_t j = 0; j < 4 && lens[j] > 0; j++) {
			if (lens[j] > most)
				most = lens[j];
			buf->len = lens[j];
			/* The last is a return, or an unref. */
			if (i % 2 == 0 && (j == 3 || lens[j + 1] == 0))
				break;
			buf = bufpool_thaw(bufpool_freeze(buf));
		}
		if (i % 2 == 0)
			bufpool_return(buf);
		else
			bufpool_frozen_unref(bufpool_freeze(buf));
		is_erased(source, data, most);
		if (source->heap)
			continue;
		now = look_at(data, source->size);
		ck_assert(now && has_pattern(now + most, source->size - most,
		                             i + most));
		/* It is the buffer's past, not its next owner's. */
		buf = take(pool, source);
		ck_assert_ptr_eq(buf->data, data);
		write_pattern(buf, source->size, i);
		buf->len = 5;
		bufpool_return(buf);
		now = look_at(data, source->size);
		ck_assert(now && all_bytes(now, 5, 0));
		ck_assert(has_pattern(now + 5, source->size - 5, i + 5));
	}
	bufpool_destroy(pool);
}
END_TEST

START_TEST(none_writes_nothing)
{
	const struct source *source = &sources[_i];
	bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_NONE, 1);

	for (size_t i = 0; i < ARRAY_SIZE(let_go) && !source->heap; i++) {
		bufpool_frozen_t *f = take_frozen(pool, source, i);
		const void *data = bufpool_frozen_data(f), *now;

		let_go[i](f);
		now = look_at(data, source->size);
		ck_assert(now && has_pattern(now, source->size, i));
	}
	bufpool_destroy(pool);
}
END_TEST

/* ----------------------------------------------------------------- destroy */

/* All calls work on, and the memory goes with the last reference. */
START_TEST(frozen_outlives_the_pool)
{
	const struct source *source = &sources[_i];

	for (size_t i = 0; i < ARRAY_SIZE(let_go); i++) {
		bufpool_t *pool = source_pool(source, BUFPOOL_WIPE_ALL, 2);
		bufpool_frozen_t *first = take_frozen(pool, source, 3);
		bufpool_frozen_t *last = take_frozen(pool, source, 4);
		const void *data = bufpool_frozen_data(last);
		bufpool_slice_t slice;
		bufpool_buf_t *buf;

		bufpool_destroy(pool);
		slice = bufpool_slice(first, 8, 8);
		bufpool_frozen_ref(last);
		ck_assert(has_pattern(bufpool_frozen_data(first),
		                      source->size, 3));
		bufpool_frozen_unref(first);
		ck_assert(has_pattern(slice.data, 8, 3 + 8));
		bufpool_slice_release(&slice);
		REFUSED(bufpool_thaw(last) == NULL, EBUSY);
		unref_elsewhere(last);
		buf = bufpool_thaw(last);
		ck_assert_ptr_nonnull(buf);
		ck_assert(has_pattern(buf->data, source->size, 4));
		write_pattern(buf, source->size, 5);
		last = bufpool_freeze(buf);
		ck_assert(has_pattern(bufpool_frozen_data(last),
		                      source->size, 5));
		let_go[i](last);
		ck_assert(source->heap || !is_mapped(data));
		if (source->heap)
			is_erased(source, data, source->size);
	}
}
END_TEST

/* Many threads let go of all there is while the pool is being destroyed. */
enum { RACERS = 4, RACE_HELD = 5 };

static struct {
	pthread_barrier_t start, end;
	bufpool_frozen_t *held[RACERS][RACE_HELD];
	long rounds;
} race;

static void *race_unrefs(void *arg)
{
	bufpool_frozen_t **mine = arg;

	for (long i = 0; i < race.rounds; i++) {
		meet(&race.start);
		for (int j = 0; j < RACE_HELD; j++)
			bufpool_frozen_unref(mine[j]);
		meet(&race.end);
	}
	return NULL;
}

/* Every racer has a reference to each; the one who is last is last. */
static const void *set_up_race(bufpool_t *pool)
{
	const void *data = NULL;

	for (int j = 0; j < RACE_HELD; j++) {
		bufpool_frozen_t *f = take_frozen(pool, &sources[0], 0);

		data = bufpool_frozen_data(f);
		for (int i = 0; i < RACERS; i++)
			race.held[i][(i + j) % RACE_HELD] =
				i ? bufpool_frozen_ref(f) : f;
	}
	return data;
}

/* The loop index says whether the pool is destroyed or stays. */
START_TEST(race_of_the_last)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, RACE_HELD);
	pthread_t threads[RACERS];
	bufpool_t *pool = make_pool(config);

	race.rounds = scaled(3000);
	pthread_barrier_init(&race.start, NULL, RACERS + 1);
	pthread_barrier_init(&race.end, NULL, RACERS + 1);
	for (int i = 0; i < RACERS; i++)
		threads[i] = start_thread(race_unrefs, race.held[i]);
	for (long i = 0; i < race.rounds; i++) {
		const void *data = set_up_race(pool);

		meet(&race.start);
		if (_i)
			bufpool_destroy(pool);
		meet(&race.end);
		if (_i) {
			must(!is_mapped(data));
			pool = make_pool(config);
		} else {
			must_be_whole(pool);
		}
	}
	for (int i = 0; i < RACERS; i++)
		join_thread(threads[i]);
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------- allocation */

static size_t allocated(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

/* Also by a thread that has never heard of the pool. */
static void *share_for_nothing(void *arg)
{
	bufpool_buf_t **bufs = arg;
	bufpool_frozen_t *frozen[SOURCES];
	bufpool_slice_t slices[SOURCES];
	size_t before = allocated();

	for (int i = 0; i < SOURCES; i++) {
		frozen[i] = bufpool_frozen_ref(bufpool_freeze(bufs[i]));
		slices[i] = bufpool_slice(frozen[i], 1, 1);
	}
	must(allocated() == before);
	for (int i = 0; i < SOURCES; i++) {
		bufpool_slice_release(&slices[i]);
		bufpool_frozen_unref(frozen[i]);
		bufs[i] = bufpool_thaw(frozen[i]);
	}
	must(allocated() == before);
	return NULL;
}

START_TEST(nothing_is_allocated)
{
	bufpool_buf_t *bufs[SOURCES];
	bufpool_t *pools[SOURCES];

	for (int i = 0; i < SOURCES; i++) {
		pools[i] = source_pool(&sources[i], BUFPOOL_WIPE_ALL, 1);
		bufs[i] = take(pools[i], &sources[i]);
	}
	for (int i = 0; i < 10; i++) {
		share_for_nothing(bufs);
		run_thread(share_for_nothing, bufs);
	}
	for (int i = 0; i < SOURCES; i++) {
		ck_assert_uint_eq(stats_of(pools[i]).heap_bytes,
		                  sources[i].heap ? sources[i].size : 0);
		bufpool_return(bufs[i]);
		destroy_whole(pools[i]);
	}
}
END_TEST

/* ------------------------------------------------------------------ misuse */

/* Every call, with every handle that it is not for, of each source. */
static struct {
	const struct source *source;
	const struct handle *handle;
	const struct use *use;
	bufpool_t *pool;
} scene;

/* Some others are out and home as well: none would be too easy. */
static bufpool_buf_t *a_buffer(void)
{
	bufpool_buf_t *bufs[4];

	scene.pool = source_pool(scene.source, BUFPOOL_WIPE_ALL, 8);
	for (int i = 0; i < 4; i++)
		bufs[i] = take(scene.pool, scene.source);
	bufpool_return(bufs[1]);
	bufpool_frozen_unref(bufpool_freeze(bufs[2]));
	return bufs[0];
}

static void *a_writable(void)
{
	return a_buffer();
}

static void *a_frozen(void)
{
	return bufpool_freeze(a_buffer());
}

static void *a_shared(void)
{
	return bufpool_frozen_ref(a_frozen());
}

static void *an_orphan(void)
{
	void *f = a_frozen();

	bufpool_destroy(scene.pool);
	return f;
}

static void *a_thawed(void)
{
	return bufpool_thaw(a_frozen());
}

static void *a_dead(void)
{
	void *f = a_frozen();

	bufpool_frozen_unref(f);
	return f;
}

static void *a_dead_elsewhere(void)
{
	void *f = a_shared();

	bufpool_frozen_unref(f);
	unref_elsewhere(f);
	return f;
}

static void *a_dead_orphan(void)
{
	void *f = an_orphan();

	bufpool_frozen_unref(f);
	return f;
}

static void *a_flushed(void)
{
	void *f = a_dead();

	bufpool_thread_flush(NULL);
	return f;
}

static void *a_released(void)
{
	void *f = a_frozen();
	bufpool_slice_t slice = bufpool_slice(f, 0, 0);

	bufpool_frozen_unref(f);
	bufpool_slice_release(&slice);
	return f;
}

static void *a_returned(void)
{
	void *buf = a_thawed();

	bufpool_return(buf);
	return buf;
}

static void *a_foreign(void)
{
	static _Alignas(4096) char memory[4 * PAGE];

	a_buffer();
	return memory + PAGE;
}

static void *a_misaligned(void)
{
	return (char *) a_frozen() + 8;
}

enum kind { NEITHER, WRITABLE, FROZEN };

static const struct handle {
	const char *name;
	void *(*make)(void);
	enum kind kind;
} handles[] = {
	{"writable", a_writable, WRITABLE},
	{"thawed", a_thawed, WRITABLE},
	{"frozen", a_frozen, FROZEN},
	{"shared", a_shared, FROZEN},
	{"orphan", an_orphan, FROZEN},
	{"dead", a_dead, NEITHER},
	{"dead elsewhere", a_dead_elsewhere, NEITHER},
	{"dead orphan", a_dead_orphan, NEITHER},
	{"flushed", a_flushed, NEITHER},
	{"released", a_released, NEITHER},
	{"returned", a_returned, NEITHER},
	{"foreign", a_foreign, NEITHER},
	{"misaligned", a_misaligned, NEITHER},
};

static void use_return(void *handle)
{
	bufpool_return(handle);
}

static void use_return_bulk(void *handle)
{
	bufpool_buf_t *bufs[3] = {NULL, handle, NULL};

	bufpool_return_bulk(bufs, 3);
}

static void use_freeze(void *handle)
{
	bufpool_freeze(handle);
}

static void use_ref(void *handle)
{
	bufpool_frozen_ref(handle);
}

static void use_unref(void *handle)
{
	bufpool_frozen_unref(handle);
}

static void use_data(void *handle)
{
	bufpool_frozen_data(handle);
}

static void use_len(void *handle)
{
	bufpool_frozen_len(handle);
}

static void use_thaw(void *handle)
{
	bufpool_thaw(handle);
}

/* The handle comes first, then the range. */
static void use_slice(void *handle)
{
	bufpool_slice(handle, SIZE_MAX, SIZE_MAX);
}

static void use_release(void *handle)
{
	bufpool_slice_t slice = {"", 1, handle};

	bufpool_slice_release(&slice);
}

static const struct use {
	const char *call;
	void (*use)(void *handle);
	enum kind kind; /* what it is for */
} uses[] = {
	{"bufpool_return", use_return, WRITABLE},
	{"bufpool_return", use_return_bulk, WRITABLE},
	{"bufpool_freeze", use_freeze, WRITABLE},
	{"bufpool_frozen_ref", use_ref, FROZEN},
	{"bufpool_frozen_unref", use_unref, FROZEN},
	{"bufpool_frozen_data", use_data, FROZEN},
	{"bufpool_frozen_len", use_len, FROZEN},
	{"bufpool_thaw", use_thaw, FROZEN},
	{"bufpool_slice", use_slice, FROZEN},
	{"bufpool_slice_release", use_release, FROZEN},
};

static void misuse_it(void)
{
	scene.use->use(scene.handle->make());
}

/* The loop index is the call, and the source. */
START_TEST(misuse_is_loud)
{
	scene.use = &uses[_i / SOURCES];
	scene.source = &sources[_i % SOURCES];
	/* Each is a process: slow under tools.  Pool and heap will do there. */
	if (is_small() && _i % SOURCES % 3 != 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(handles); i++) {
		struct misuse misuse = {handles[i].name, misuse_it,
		                        scene.use->call};

		scene.handle = &handles[i];
		if (scene.handle->kind != scene.use->kind)
			must_be_loud(&misuse);
	}
}
END_TEST

static void freeze_too_long(void)
{
	bufpool_buf_t *buf = a_buffer();

	buf->len = buf->capacity + 1;
	bufpool_freeze(buf);
}

static void freeze_far_too_long(void)
{
	bufpool_buf_t *buf = a_thawed();

	buf->len = SIZE_MAX;
	bufpool_freeze(buf);
}

static void return_thawed_too_long(void)
{
	bufpool_buf_t *buf = a_thawed();

	buf->len = buf->capacity + 1;
	bufpool_return(buf);
}

static const struct misuse lengths[] = {
	{"too long", freeze_too_long, "bufpool_freeze"},
	{"far too long", freeze_far_too_long, "bufpool_freeze"},
	{"thawed, too long", return_thawed_too_long, "bufpool_return"},
};

START_TEST(len_is_checked)
{
	scene.source = &sources[_i];
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		must_be_loud(&lengths[i]);
}
END_TEST

/* ---------------------------------------------------------------- the shelf */

/*
 * Threads take references from a shelf, make slices, put others there, thaw
 * what they find themselves alone with, and write it anew.
 */
enum { SHARERS = 8, SHELF = 6, HELD = 10 };

struct share {
	bufpool_frozen_t *frozen;
	bufpool_slice_t slice; /* if there is one */
	size_t shift;
	size_t len; /* of the whole, that was written with this shift */
};

static struct {
	bufpool_t *pool;
	pthread_mutex_t lock;
	struct share shelf[SHELF];
	long operations;
	atomic_long thawed, refused;
} shelf;

static void verify(const struct share *share)
{
	if (share->frozen) {
		must(bufpool_frozen_len(share->frozen) == share->len);
		must(has_pattern(bufpool_frozen_data(share->frozen),
		                 share->len, share->shift));
	}
	if (share->slice.owner)
		must(has_pattern(share->slice.data, share->slice.len,
		                 share->shift));
}

static void drop(struct share *share)
{
	verify(share);
	bufpool_frozen_unref(share->frozen);
	share->frozen = NULL;
	verify(share);
	bufpool_slice_release(&share->slice);
	*share = (struct share) {.len = 0};
}

static void freeze_new(struct share *share, bufpool_buf_t *buf, uint64_t *seed)
{
	share->len = draw(seed) % (buf->capacity + 1);
	share->shift = draw(seed) % PERIOD;
	write_pattern(buf, share->len, share->shift);
	buf->len = share->len;
	share->frozen = bufpool_freeze(buf);
}

static void put_new(struct share *share, uint64_t *seed)
{
	size_t size = draw(seed) % 256 ? PAGE : 20000;
	bufpool_buf_t *buf = bufpool_checkout(shelf.pool, size);

	must(buf && is_zero(buf));
	freeze_new(share, buf, seed);
}

static void swap_on_shelf(struct share *share, uint64_t *seed)
{
	struct share *place = &shelf.shelf[draw(seed) % SHELF], mine;

	pthread_mutex_lock(&shelf.lock);
	mine = *share;
	*share = *place;
	*place = mine;
	pthread_mutex_unlock(&shelf.lock);
	verify(share);
}

static void ref_from_shelf(struct share *share, uint64_t *seed)
{
	const struct share *place = &shelf.shelf[draw(seed) % SHELF];

	pthread_mutex_lock(&shelf.lock);
	if (place->frozen) {
		*share = *place;
		share->slice = (bufpool_slice_t) {NULL, 0, NULL};
		bufpool_frozen_ref(share->frozen);
	}
	pthread_mutex_unlock(&shelf.lock);
	verify(share);
}

/* One slice instead of the reference: it is then all that holds the buffer. */
static void slice_it(struct share *share, uint64_t *seed)
{
	size_t len = draw(seed) % (share->len + 1);

	if (share->slice.owner)
		return;
	share->slice = bufpool_slice(share->frozen, 0, len);
	must(share->slice.owner == share->frozen);
	if (draw(seed) % 2) {
		bufpool_frozen_unref(share->frozen);
		share->frozen = NULL;
	}
}

static void thaw_it(struct share *share, uint64_t *seed)
{
	bufpool_buf_t *buf;

	errno = 0;
	buf = bufpool_thaw(share->frozen);
	if (!buf) {
		must(errno == EBUSY);
		shelf.refused++;
		return;
	}
	must(!share->slice.owner);
	must(has_pattern(buf->data, share->len, share->shift));
	shelf.thawed++;
	if (draw(seed) % 2)
		freeze_new(share, buf, seed);
	else {
		bufpool_return(buf);
		*share = (struct share) {.len = 0};
	}
}

static void share_once(struct share *share, uint64_t *seed)
{
	uint64_t chance = draw(seed) % 16;

	if (chance < 5)
		swap_on_shelf(share, seed);
	else if (!share->frozen && !share->slice.owner)
		chance < 7 ? put_new(share, seed) : ref_from_shelf(share, seed);
	else if (chance < 8 || !share->frozen)
		drop(share);
	else if (chance < 11)
		slice_it(share, seed);
	else if (chance < 13)
		thaw_it(share, seed);
	else
		verify(share);
}

static void *share_all(void *arg)
{
	struct share held[HELD] = {{.len = 0}};
	uint64_t seed = (uintptr_t) arg;

	for (long i = shelf.operations; i > 0; i--)
		share_once(&held[draw(&seed) % HELD], &seed);
	for (int i = 0; i < HELD; i++)
		drop(&held[i]);
	return NULL;
}

/* The loop index is the wipe mode: here nobody writes past len. */
START_TEST(sharing)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 40);
	pthread_t threads[SHARERS];

	config.count[BUFPOOL_CLASS_64K] = 2;
	config.wipe = _i ? BUFPOOL_WIPE_USED : BUFPOOL_WIPE_ALL;
	shelf.pool = make_pool(config);
	shelf.operations = scaled(100000);
	must(pthread_mutex_init(&shelf.lock, NULL) == 0);
	for (uintptr_t i = 0; i < SHARERS; i++)
		threads[i] = start_thread(share_all, (void *) (i + 1));
	for (int i = 0; i < SHARERS; i++)
		join_thread(threads[i]);
	for (int i = 0; i < SHELF; i++)
		drop(&shelf.shelf[i]);
	ck_assert_int_gt(shelf.thawed, 0);
	ck_assert_int_gt(shelf.refused, 0);
	destroy_whole(shelf.pool);
}
END_TEST

/* ------------------------------------------------------------ two who meet */

/*
 * Two holders of one buffer: while the other reads and lets go, this one tries
 * to thaw it, and writes as soon as it may.
 */
static _Atomic(bufpool_frozen_t *) handed;

static void *read_and_unref(void *arg)
{
	for (long n = *(long *) arg; n > 0; n--) {
		bufpool_frozen_t *f;

		while (!(f = atomic_exchange(&handed, NULL)))
			sched_yield();
		must(has_pattern(bufpool_frozen_data(f), PAGE, (size_t) n));
		bufpool_frozen_unref(f);
	}
	return NULL;
}

/* The loop index says whether to thaw, or to let go just the same. */
START_TEST(two_who_meet)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);
	long rounds = scaled(50000);
	pthread_t thread = start_thread(read_and_unref, &rounds);

	for (long n = rounds; n > 0; n--) {
		bufpool_frozen_t *f = take_frozen(pool, &sources[0], (size_t) n);
		bufpool_buf_t *buf;

		atomic_store(&handed, bufpool_frozen_ref(f));
		if (_i == 0) {
			while (!(buf = bufpool_thaw(f)))
				sched_yield();
			memset(buf->data, 0, PAGE);
			bufpool_return(buf);
		} else {
			while (atomic_load(&handed))
				sched_yield();
			must(has_pattern(bufpool_frozen_data(f), PAGE,
			                 (size_t) n));
			bufpool_frozen_unref(f);
		}
	}
	join_thread(thread);
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	destroy_whole(pool);
}
END_TEST

static Suite *frozen_suite(void)
{
	Suite *suite = suite_create("frozen");
	TCase *tcase = add_case(suite, "views", 20);

	tcase_add_loop_test(tcase, freeze_shows_what_was_written, 0, SOURCES);
	tcase_add_test(tcase, the_view_is_the_request);
	tcase_add_loop_test(tcase, many_references, 0, SOURCES);
	tcase_add_loop_test(tcase, thaw_gives_the_buffer_back, 0, SOURCES);
	tcase_add_loop_test(tcase, thaw_needs_the_only_reference, 0, SOURCES);
	tcase_add_loop_test(tcase, slices_stay_inside, 0, SOURCES);
	tcase_add_loop_test(tcase, slices_outlive_their_owner, 0, SOURCES);
	tcase_add_test(tcase, null_handles);
	tcase = add_case(suite, "home", 20);
	tcase_add_loop_test(tcase, the_last_sends_it_home, 0, SOURCES);
	tcase_add_loop_test(tcase, statistics_do_not_see_it, 0, SOURCES);
	tcase_add_test(tcase, nothing_is_allocated);
	tcase = add_case(suite, "wipe", 20);
	tcase_add_loop_test(tcase, all_is_erased, 0, SOURCES);
	tcase_add_loop_test(tcase, used_is_erased, 0, SOURCES);
	tcase_add_loop_test(tcase, used_remembers_the_largest, 0, SOURCES);
	tcase_add_loop_test(tcase, none_writes_nothing, 0, SOURCES);
	tcase = add_case(suite, "destroy", 20);
	tcase_add_loop_test(tcase, frozen_outlives_the_pool, 0, SOURCES);
	tcase_add_loop_test(tcase, race_of_the_last, 0, 2);
	tcase = add_case(suite, "misuse", 20);
	tcase_add_loop_test(tcase, misuse_is_loud, 0,
	                    ARRAY_SIZE(uses) * SOURCES);
	tcase_add_loop_test(tcase, len_is_checked, 0, SOURCES);
	tcase = add_case(suite, "stress", 30);
	tcase_add_loop_test(tcase, sharing, 0, 2);
	tcase_add_loop_test(tcase, two_who_meet, 0, 2);
	return suite;
}

int main(void)
{
	make_pattern();
	return run_suite(frozen_suite());
}
