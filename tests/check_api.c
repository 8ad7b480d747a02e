/* SPDX-License-Identifier: MIT */
/*
 * check_api.c - every call, every boundary, every errno of the contract, from
 * one thread
 */
#include "common.h"

#include <limits.h>

/* ------------------------------------------------------------- size table */

enum { OVERSIZE = -1, NO_MEMORY = -2, OVERFLOW = -3 };

static const struct {
	size_t size;
	int expect; /* a class, or one of the above */
} sizes[] = {
	{0, BUFPOOL_CLASS_4K},
	{1, BUFPOOL_CLASS_4K},
	{4095, BUFPOOL_CLASS_4K},
	{4096, BUFPOOL_CLASS_4K},
	{4097, BUFPOOL_CLASS_64K},
	{65535, BUFPOOL_CLASS_64K},
	{65536, BUFPOOL_CLASS_64K},
	{65537, BUFPOOL_CLASS_256K},
	{262143, BUFPOOL_CLASS_256K},
	{262144, BUFPOOL_CLASS_256K},
	{262145, BUFPOOL_CLASS_1M},
	{1048575, BUFPOOL_CLASS_1M},
	{1048576, BUFPOOL_CLASS_1M},
	{1048577, OVERSIZE},
	{3000001, OVERSIZE},
	{PTRDIFF_MAX, NO_MEMORY},
	{(size_t) PTRDIFF_MAX + 1, OVERFLOW},
	{SIZE_MAX, OVERFLOW},
};

static void check_buf(const bufpool_buf_t *buf, size_t len, size_t capacity)
{
	ck_assert_ptr_nonnull(buf);
	ck_assert_uint_eq(buf->len, len);
	ck_assert_uint_eq(buf->capacity, capacity);
	ck_assert_uint_eq((uintptr_t) buf->data % PAGE, 0);
	ck_assert(is_zero(buf));
}

static void check_size(bufpool_t *pool, const struct way *way, size_t size,
                       size_t capacity)
{
	bufpool_buf_t *buf;

	KEEPS_ERRNO(buf = way->take(pool, size));
	check_buf(buf, size, capacity);
	fill(buf, 0x5a);
	KEEPS_ERRNO(bufpool_return(buf));
}

/* The loop index is the way to check out. */
START_TEST(sizes_from_pool_memory)
{
	const struct way *way = &ways[_i];
	bufpool_t *pool = make_pool(even_config(2));
	uint64_t hits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (sizes[i].expect < 0)
			continue;
		check_size(pool, way, sizes[i].size,
		           classes[sizes[i].expect].size);
		ck_assert_uint_eq(stats_of(pool).hits, ++hits);
	}
	ck_assert_uint_eq(stats_of(pool).misses, 0);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(sizes_from_the_heap)
{
	const struct way *way = &ways[_i];
	bufpool_t *pool = make_pool(empty_config());

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int expect = sizes[i].expect;
		size_t size = sizes[i].size;

		if (expect == OVERFLOW)
			continue;
		if (!way->heap)
			REFUSED(!way->take(pool, size), ENOBUFS);
		else if (expect == NO_MEMORY)
			REFUSED(!way->take(pool, size), ENOMEM);
		else
			check_size(pool, way, size,
			           expect < 0 ? size : classes[expect].size);
	}
	ck_assert_uint_eq(stats_of(pool).hits, 0);
	destroy_whole(pool);
}
END_TEST

START_TEST(sizes_without_the_heap)
{
	const struct way *way = &ways[_i];
	bufpool_config_t config = empty_config();
	bufpool_t *pool;

	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		if (sizes[i].expect != OVERFLOW)
			REFUSED(!way->take(pool, sizes[i].size), ENOBUFS);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(sizes_within_heap_limit)
{
	const struct way *way = &ways[_i];
	bufpool_config_t config = empty_config();
	bufpool_t *pool;

	config.heap_limit = BUFPOOL_MAX_CLASS_SIZE;
	pool = make_pool(config);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int expect = sizes[i].expect;
		size_t size = sizes[i].size;

		if (way->heap && expect >= 0)
			check_size(pool, way, size, classes[expect].size);
		else if (expect != OVERFLOW)
			REFUSED(!way->take(pool, size), ENOBUFS);
	}
	bufpool_destroy(pool);
}
END_TEST

/* A size that cannot be wins over every other complaint. */
START_TEST(overflow_comes_first)
{
	const struct timespec bad_time = {-1, -1};
	bufpool_config_t config = empty_config();
	bufpool_t *pool, *pools[3] = {NULL};
	bufpool_buf_t *buf = NULL;

	pools[1] = make_pool(config);
	config.exhausted = BUFPOOL_FAIL;
	pools[2] = make_pool(config);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t size = sizes[i].size;

		if (sizes[i].expect != OVERFLOW)
			continue;
		for (size_t p = 0; p < ARRAY_SIZE(pools); p++) {
			pool = pools[p];
			for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
				REFUSED(!ways[w].take(pool, size), EOVERFLOW);
			REFUSED(!bufpool_checkout_aligned(pool, size, 3),
			        EOVERFLOW);
			REFUSED(!bufpool_checkout_wait(pool, size, &bad_time),
			        EOVERFLOW);
			REFUSED(!bufpool_checkout_bulk(pool, size, &buf, 0),
			        EOVERFLOW);
			ck_assert_ptr_null(buf);
		}
	}
	bufpool_destroy(pools[1]);
	bufpool_destroy(pools[2]);
}
END_TEST

START_TEST(classes_are_told)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		int size_class;

		KEEPS_ERRNO(size_class = bufpool_class_for(sizes[i].size));
		ck_assert_int_eq(size_class,
		                 sizes[i].expect < 0 ? -1 : sizes[i].expect);
	}
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		KEEPS_ERRNO(ck_assert_uint_eq(bufpool_class_size(k),
		                              classes[k].size));
		KEEPS_ERRNO(ck_assert_str_eq(bufpool_class_name(k),
		                             classes[k].name));
	}
}
END_TEST

START_TEST(what_is_no_class)
{
	const int none[] = {-1, BUFPOOL_CLASSES, INT_MIN, INT_MAX};

	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		KEEPS_ERRNO(ck_assert(bufpool_class_size(none[i]) == 0));
		KEEPS_ERRNO(ck_assert(bufpool_class_name(none[i]) == NULL));
	}
}
END_TEST

static bufpool_t *exhausted_pool(bufpool_buf_t **last)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	bufpool_t *pool;

	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	*last = bufpool_checkout(pool, 1);
	return pool;
}

/* Then a wrong argument, whether or not there is a buffer. */
START_TEST(arguments_come_before_buffers)
{
	const struct timespec bad_times[] = {{-1, 0}, {0, -1}, {0, 1000000000}};
	bufpool_t *full = make_pool(even_config(1)), *pools[2];
	bufpool_buf_t *last;

	pools[0] = full;
	pools[1] = exhausted_pool(&last);
	for (size_t p = 0; p < ARRAY_SIZE(pools); p++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			size_t size = sizes[i].size;

			if (sizes[i].expect == OVERFLOW)
				continue;
			REFUSED(!bufpool_checkout_aligned(pools[p], size, 3),
			        EINVAL);
			REFUSED(!bufpool_checkout_bulk(pools[p], size, NULL, 1),
			        EINVAL);
			for (size_t t = 0; t < ARRAY_SIZE(bad_times); t++)
				REFUSED(!bufpool_checkout_wait(pools[p], size,
				                               &bad_times[t]),
				        EINVAL);
		}
	}
	ck_assert_uint_eq(stats_of(full).hits, 0);
	bufpool_return(last);
	bufpool_destroy(pools[1]);
	destroy_whole(full);
}
END_TEST

/* What is not pooled will never come back: nobody waits for it. */
START_TEST(no_wait_for_what_is_not_pooled)
{
	const struct timespec none = {0, 0};
	bufpool_buf_t *last;
	bufpool_t *pool = exhausted_pool(&last);

	REFUSED(!bufpool_checkout_wait(pool, PAGE, &none), ETIMEDOUT);
	REFUSED(!bufpool_checkout_wait(pool, PAGE + 1, NULL), ENOBUFS);
	REFUSED(!bufpool_checkout_wait(pool, BUFPOOL_MAX_CLASS_SIZE + 1, NULL),
	        ENOBUFS);
	bufpool_return(last);
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------- null pools */

START_TEST(null_pool_is_einval)
{
	bufpool_buf_t *bufs[2];

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		if (sizes[i].expect != OVERFLOW)
			REFUSED(!ways[_i].take(NULL, sizes[i].size), EINVAL);
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		REFUSED(!classes[i].checkout(NULL), EINVAL);
	REFUSED(bufpool_checkout_bulk(NULL, 1, bufs, 2) == 0, EINVAL);
}
END_TEST

START_TEST(null_is_fine)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);
	bufpool_buf_t *bufs[5] = {NULL};
	bufpool_stats_t stats;

	KEEPS_ERRNO(bufpool_destroy(NULL));
	KEEPS_ERRNO(bufpool_return(NULL));
	KEEPS_ERRNO(bufpool_return_bulk(NULL, 0));
	KEEPS_ERRNO(bufpool_return_bulk(bufs, ARRAY_SIZE(bufs)));
	KEEPS_ERRNO(bufpool_thread_flush(NULL));
	KEEPS_ERRNO(bufpool_thread_flush(pool));
	memset(&stats, 0xff, sizeof(stats));
	KEEPS_ERRNO(bufpool_stats(NULL, &stats));
	ck_assert(all_bytes(&stats, sizeof(stats), 0));
	KEEPS_ERRNO(bufpool_destroy(pool));
}
END_TEST

/* ---------------------------------------------------------- configuration */

static void all_zero(bufpool_config_t *config)
{
	memset(config, 0, sizeof(*config));
}

static void no_size(bufpool_config_t *config)
{
	config->size = 0;
}

static void short_size(bufpool_config_t *config)
{
	config->size = offsetof(bufpool_config_t, region_arg);
}

static void unknown_flag(bufpool_config_t *config)
{
	config->flags = 0x40;
}

static void top_flag(bufpool_config_t *config)
{
	config->flags = 1u << (sizeof(config->flags) * CHAR_BIT - 1);
}

static void wipe_above(bufpool_config_t *config)
{
	config->wipe = (enum bufpool_wipe)(BUFPOOL_WIPE_NONE + 1);
}

static void wipe_below(bufpool_config_t *config)
{
	config->wipe = (enum bufpool_wipe) -1;
}

static void exhausted_above(bufpool_config_t *config)
{
	config->exhausted = (enum bufpool_exhausted)(BUFPOOL_FAIL + 1);
}

static void exhausted_below(bufpool_config_t *config)
{
	config->exhausted = (enum bufpool_exhausted) -1;
}

static void first_count(bufpool_config_t *config)
{
	config->count[0] = BUFPOOL_MAX_COUNT + 1;
}

static void last_count(bufpool_config_t *config)
{
	config->count[BUFPOOL_CLASSES - 1] = SIZE_MAX;
}

static void node_below(bufpool_config_t *config)
{
	config->numa_node = BUFPOOL_NUMA_LOCAL - 1;
}

static const struct {
	void (*spoil)(bufpool_config_t *config);
	int err;
} bad_configs[] = {
	{all_zero, EINVAL},        {no_size, EINVAL},
	{short_size, EINVAL},      {unknown_flag, EINVAL},
	{top_flag, EINVAL},        {wipe_above, EINVAL},
	{wipe_below, EINVAL},      {exhausted_above, EINVAL},
	{exhausted_below, EINVAL}, {first_count, EINVAL},
	{last_count, EINVAL},      {node_below, EINVAL},
};

START_TEST(bad_config_is_refused)
{
	bufpool_config_t config = default_config;

	bad_configs[_i].spoil(&config);
	REFUSED(!bufpool_create(&config), bad_configs[_i].err);
}
END_TEST

START_TEST(null_config_is_the_defaults)
{
	const size_t counts[BUFPOOL_CLASSES] = {64, 8, 2, 0};
	bufpool_stats_t stats;
	bufpool_t *pool;

	KEEPS_ERRNO(pool = bufpool_create(NULL));
	ck_assert_ptr_nonnull(pool);
	stats = stats_of(pool);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		ck_assert_uint_eq(default_config.count[i], counts[i]);
		ck_assert_uint_eq(stats.per_class[i].total, counts[i]);
	}
	must_be_whole(pool);
	KEEPS_ERRNO(bufpool_destroy(pool));
}
END_TEST

/* The structures of other versions: what a newer one has more, an older less. */
START_TEST(configs_of_other_versions)
{
	const size_t first =
		offsetof(bufpool_config_t, region_arg) + sizeof(void *);
	union {
		bufpool_config_t config;
		char bytes[2 * PAGE];
	} other = {{0}};
	bufpool_t *pool;

	other.config = default_config;
	for (size_t n = sizeof(other.config); n <= PAGE; n += sizeof(void *)) {
		other.config.size = n;
		KEEPS_ERRNO(pool = bufpool_create(&other.config));
		ck_assert_ptr_nonnull(pool);
		bufpool_destroy(pool);
		if (n == sizeof(other.config))
			continue;
		other.bytes[n - 1] = 1;
		REFUSED(!bufpool_create(&other.config), EINVAL);
		other.bytes[n - 1] = 0;
		n += n / 4 / sizeof(void *) * sizeof(void *);
	}
	other.config.size = PAGE + sizeof(void *);
	REFUSED(!bufpool_create(&other.config), EINVAL);

	memset(other.bytes + first, 0xff, PAGE);
	other.config.size = first;
	KEEPS_ERRNO(pool = bufpool_create(&other.config));
	ck_assert_ptr_nonnull(pool);
	destroy_whole(pool);
}
END_TEST

/* As the defaults, but that nothing is pooled. */
START_TEST(empty_config_is_empty)
{
	static const bufpool_config_t empty = BUFPOOL_CONFIG_EMPTY;
	const size_t rest = offsetof(bufpool_config_t, cache);
	bufpool_config_t config = empty;
	bufpool_t *pool;

	ck_assert_uint_eq(empty.size, sizeof(empty));
	ck_assert(all_bytes(empty.count, sizeof(empty.count), 0));
	ck_assert_mem_eq((const char *) &empty + rest,
	                 (const char *) &default_config + rest,
	                 sizeof(empty) - rest);
	config.count[BUFPOOL_CLASS_64K] = 2;
	KEEPS_ERRNO(pool = bufpool_create(&config));
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		ck_assert_uint_eq(stats_of(pool).per_class[i].total,
		                  i == BUFPOOL_CLASS_64K ? 2 : 0);
	destroy_whole(pool);
}
END_TEST

/* None, the library's choice, little, much, more than there can be. */
static const size_t cache_depths[] = {
	0, BUFPOOL_CACHE_AUTO, 1, 3, 1 << 20, SIZE_MAX - 1,
};

START_TEST(any_cache_depth_works)
{
	bufpool_config_t config = even_config(5);
	bufpool_t *pool;

	set_cache(&config, cache_depths[_i]);
	KEEPS_ERRNO(pool = bufpool_create(&config));
	ck_assert_ptr_nonnull(pool);
	for (int round = 0; round < 3; round++)
		must_be_whole(pool);
	if (cache_depths[_i] == 0)
		for (int i = 0; i < BUFPOOL_CLASSES; i++)
			ck_assert_uint_eq(stats_of(pool).per_class[i].cached,
			                  0);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(no_buffers_at_all)
{
	bufpool_t *pool;
	bufpool_buf_t *buf;
	bufpool_config_t config = empty_config();

	KEEPS_ERRNO(pool = bufpool_create(&config));
	ck_assert_ptr_nonnull(pool);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		KEEPS_ERRNO(buf = classes[i].checkout(pool));
		check_buf(buf, classes[i].size, classes[i].size);
		KEEPS_ERRNO(bufpool_return(buf));
		REFUSED(!bufpool_try_checkout(pool, classes[i].size), ENOBUFS);
	}
	bufpool_destroy(pool);
}
END_TEST

/* In a child: the limit cannot be raised again. */
static void create_beyond_the_limit(void *arg)
{
	struct rlimit limit = {(rlim_t) 1 << 28, (rlim_t) 1 << 28};
	bufpool_config_t config = class_config(BUFPOOL_CLASS_1M, 512);
	bufpool_t *pool;

	(void) arg;
	must(setrlimit(RLIMIT_AS, &limit) == 0);
	errno = 0;
	must(!bufpool_create(&config) && errno == ENOMEM);
	/* The small ones came first and had to be given back. */
	config.count[BUFPOOL_CLASS_4K] = 30000;
	errno = 0;
	must(!bufpool_create(&config) && errno == ENOMEM);
	for (int i = 0; i < 3; i++) {
		pool = class_pool(BUFPOOL_CLASS_1M, 100);
		destroy_whole(pool);
	}
}

START_TEST(create_without_memory)
{
	char text[1024];

	if (is_small()) /* the tools themselves need more than the limit */
		return;
	ck_assert_msg(run_child(create_beyond_the_limit, NULL, text,
	                        sizeof(text)) == 0,
	              "%s", text);
}
END_TEST

/* -------------------------------------------------------------- exhaustion */

/* The loop index is the class. */
START_TEST(exhausted_goes_to_the_heap)
{
	bufpool_t *pool = class_pool(_i, 2);
	bufpool_buf_t *bufs[5];

	for (size_t i = 0; i < ARRAY_SIZE(bufs); i++) {
		KEEPS_ERRNO(bufs[i] = classes[_i].checkout(pool));
		check_buf(bufs[i], classes[_i].size, classes[_i].size);
	}
	ck_assert_uint_eq(stats_of(pool).hits, 2);
	ck_assert_uint_eq(stats_of(pool).misses, 3);
	REFUSED(!bufpool_try_checkout(pool, classes[_i].size), ENOBUFS);
	ck_assert(are_disjoint(bufs, ARRAY_SIZE(bufs)));
	KEEPS_ERRNO(bufpool_return_bulk(bufs, ARRAY_SIZE(bufs)));
	destroy_whole(pool);
}
END_TEST

START_TEST(exhausted_fails)
{
	bufpool_config_t config = class_config(_i, 2);
	size_t size = classes[_i].size;
	bufpool_buf_t *bufs[2];
	bufpool_t *pool;

	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	for (int round = 0; round < 3; round++) {
		KEEPS_ERRNO(bufs[0] = classes[_i].checkout(pool));
		KEEPS_ERRNO(bufs[1] = bufpool_checkout(pool, size));
		for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
			REFUSED(!ways[w].take(pool, size), ENOBUFS);
		REFUSED(!classes[_i].checkout(pool), ENOBUFS);
		bufpool_return(bufs[round % 2]);
		KEEPS_ERRNO(bufs[round % 2] = bufpool_checkout(pool, size));
		bufpool_return_bulk(bufs, 2);
	}
	destroy_whole(pool);
}
END_TEST

/* A class never helps out another one. */
START_TEST(exact_classes)
{
	bufpool_config_t config = even_config(1);
	bufpool_t *pool;

	config.count[_i] = 0;
	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
		REFUSED(!ways[w].take(pool, classes[_i].size), ENOBUFS);
	destroy_whole(pool);
}
END_TEST

START_TEST(heap_limit_is_exact)
{
	bufpool_config_t config = class_config(_i, 1);
	size_t size = classes[_i].size;
	bufpool_buf_t *bufs[4];
	bufpool_t *pool;

	config.heap_limit = 3 * size;
	pool = make_pool(config);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(bufs); i++)
			KEEPS_ERRNO(bufs[i] = classes[_i].checkout(pool));
		ck_assert_uint_eq(stats_of(pool).heap_bytes, 3 * size);
		for (size_t w = 0; w < ARRAY_SIZE(ways); w++)
			REFUSED(!ways[w].take(pool, size), ENOBUFS);
		REFUSED(!classes[_i].checkout(pool), ENOBUFS);
		bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
		ck_assert_uint_eq(stats_of(pool).heap_bytes, 0);
	}
	bufpool_destroy(pool);
}
END_TEST

START_TEST(heap_limit_counts_oversize)
{
	bufpool_config_t config = empty_config();
	size_t size = BUFPOOL_MAX_CLASS_SIZE + 1;
	bufpool_buf_t *big, *small;
	bufpool_t *pool;

	config.heap_limit = size + PAGE;
	pool = make_pool(config);
	REFUSED(!bufpool_checkout(pool, size + PAGE + 1), ENOBUFS);
	KEEPS_ERRNO(big = bufpool_checkout(pool, size));
	check_buf(big, size, size);
	KEEPS_ERRNO(small = bufpool_checkout(pool, 1));
	REFUSED(!bufpool_checkout(pool, 0), ENOBUFS);
	bufpool_return(small);
	bufpool_return(big);
	KEEPS_ERRNO(big = bufpool_checkout(pool, size + PAGE));
	check_buf(big, size + PAGE, size + PAGE);
	bufpool_return(big);
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------------- bulk */

START_TEST(bulk_of_none)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 1);
	bufpool_buf_t *buf = NULL;

	KEEPS_ERRNO(ck_assert(!bufpool_checkout_bulk(pool, 1, &buf, 0)));
	KEEPS_ERRNO(ck_assert(!bufpool_checkout_bulk(pool, 1, NULL, 0)));
	REFUSED(!bufpool_checkout_bulk(NULL, 1, &buf, 0), EINVAL);
	ck_assert_ptr_null(buf);
	ck_assert_uint_eq(stats_of(pool).checked_out, 0);
	bufpool_destroy(pool);
}
END_TEST

/* 40 of a bulk of 100 are pooled; the loop index is the class. */
START_TEST(bulk_beyond_the_count)
{
	bufpool_config_t config = class_config(_i, 40);
	size_t size = classes[_i].size;
	bufpool_buf_t *bufs[100];
	bufpool_t *pool;
	size_t got = 0;

	pool = make_pool(config);
	KEEPS_ERRNO(got = bufpool_checkout_bulk(pool, size - 1, bufs, 100));
	ck_assert_uint_eq(got, 100);
	for (size_t i = 0; i < got; i++)
		check_buf(bufs[i], size - 1, size);
	ck_assert_uint_eq(stats_of(pool).hits, 40);
	ck_assert(are_disjoint(bufs, got));
	bufpool_return_bulk(bufs, got);
	destroy_whole(pool);

	config.heap_limit = 10 * size;
	pool = make_pool(config);
	REFUSED((got = bufpool_checkout_bulk(pool, size, bufs, 100)) == 50,
	        ENOBUFS);
	bufpool_return_bulk(bufs, got);
	destroy_whole(pool);

	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	REFUSED((got = bufpool_checkout_bulk(pool, size, bufs, 100)) == 40,
	        ENOBUFS);
	REFUSED(bufpool_checkout_bulk(pool, size, bufs + 40, 1) == 0, ENOBUFS);
	bufpool_return_bulk(bufs, got);
	destroy_whole(pool);
}
END_TEST

/* Each pool gives its own, whichever the thread has used last. */
START_TEST(bulk_from_two_pools)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 4);
	bufpool_t *pools[2];
	bufpool_buf_t *bufs[2][4];

	set_cache(&config, 4);
	for (int i = 0; i < 2; i++) {
		pools[i] = make_pool(config);
		must(bufpool_checkout_bulk(pools[i], 1, bufs[i], 4) == 4);
		bufpool_return_bulk(bufs[i], 4);
	}
	for (int i = 0; i < 2; i++) {
		must(bufpool_checkout_bulk(pools[i], 1, bufs[i], 4) == 4);
		ck_assert_uint_eq(stats_of(pools[i]).checked_out, 4);
		ck_assert_uint_eq(stats_of(pools[!i]).checked_out, 4 * i);
	}
	for (int i = 0; i < 2; i++) {
		bufpool_return_bulk(bufs[i], 4);
		destroy_whole(pools[i]);
	}
}
END_TEST

START_TEST(bulk_return_skips_nulls)
{
	bufpool_t *pool = make_pool(even_config(3));
	bufpool_buf_t *bufs[16] = {NULL};

	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		bufs[4 * i] = bufpool_checkout(pool, classes[i].size);
		bufs[4 * i + 2] = bufpool_checkout(pool, classes[i].size);
	}
	bufs[1] = bufpool_checkout(pool, BUFPOOL_MAX_CLASS_SIZE + 1);
	ck_assert_uint_eq(stats_of(pool).checked_out, 9);
	KEEPS_ERRNO(bufpool_return_bulk(bufs, ARRAY_SIZE(bufs)));
	destroy_whole(pool);
}
END_TEST

START_TEST(bulk_return_mixes_pools)
{
	bufpool_t *pools[2] = {make_pool(even_config(4)),
	                       make_pool(even_config(4))};
	bufpool_buf_t *bufs[32];

	for (size_t i = 0; i < ARRAY_SIZE(bufs); i++)
		bufs[i] = classes[i / 8].checkout(pools[i % 2]);
	ck_assert_uint_eq(stats_of(pools[0]).misses, 0);
	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
	for (size_t i = 0; i < 2; i++) {
		destroy_whole(pools[i]);
	}
}
END_TEST

/* --------------------------------------------------------------- alignment */

static void check_alignment(bufpool_t *pool, size_t size, size_t alignment)
{
	uint64_t hits = stats_of(pool).hits;
	size_t capacity = size;
	bufpool_buf_t *buf;

	for (int i = BUFPOOL_CLASSES - 1; i >= 0; i--)
		if (size <= classes[i].size)
			capacity = classes[i].size;
	KEEPS_ERRNO(buf = bufpool_checkout_aligned(pool, size, alignment));
	check_buf(buf, size, capacity);
	ck_assert_uint_eq((uintptr_t) buf->data % alignment, 0);
	/* Every class gives the page by itself. */
	if (size <= BUFPOOL_MAX_CLASS_SIZE && alignment <= PAGE)
		ck_assert_uint_eq(stats_of(pool).hits, hits + 1);
	fill(buf, 0x77);
	KEEPS_ERRNO(bufpool_return(buf));
}

START_TEST(alignments)
{
	const size_t some[] = {0,     1,       4096,    5000,   65536,
	                       70000, 1048576, 1048577, 5000000};
	bufpool_t *pool = make_pool(even_config(2));

	for (size_t alignment = 1; alignment <= 2 << 20; alignment *= 2)
		for (size_t i = 0; i < ARRAY_SIZE(some); i++)
			check_alignment(pool, some[i], alignment);
	if (!is_small())
		check_alignment(pool, 100, (size_t) 1 << 30);
	destroy_whole(pool);
}
END_TEST

START_TEST(wrong_alignments)
{
	const size_t wrong[] = {0,           3,        5,
	                        4095,        4097,     12288,
	                        PTRDIFF_MAX, SIZE_MAX, ~(PAGE - 1)};
	bufpool_t *pool = make_pool(even_config(1));

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		REFUSED(!bufpool_checkout_aligned(pool, 100, wrong[i]), EINVAL);
		REFUSED(!bufpool_checkout_aligned(pool, BUFPOOL_MAX_CLASS_SIZE
		                                                + 1,
		                                  wrong[i]),
		        EINVAL);
		REFUSED(!bufpool_checkout_aligned(NULL, 100, wrong[i]), EINVAL);
	}
	bufpool_destroy(pool);
}
END_TEST

/* A power of two, but no address has it; sums of it must not wrap around. */
START_TEST(alignment_beyond_memory)
{
	const size_t some[] = {0, 1, 4096, 1048577, PTRDIFF_MAX};
	bufpool_config_t config = even_config(1);
	bufpool_t *heap, *fail;

	if (is_small()) /* the tools' own allocators fail at it */
		return;
	heap = make_pool(config);
	config.exhausted = BUFPOOL_FAIL;
	fail = make_pool(config);
	for (size_t i = 0; i < ARRAY_SIZE(some); i++) {
		for (size_t bit = 62; bit <= 63; bit++) {
			size_t alignment = (size_t) 1 << bit;

			REFUSED(!bufpool_checkout_aligned(heap, some[i],
			                                  alignment),
			        ENOMEM);
			REFUSED(!bufpool_checkout_aligned(fail, some[i],
			                                  alignment),
			        ENOBUFS);
		}
	}
	destroy_whole(heap);
	bufpool_destroy(fail);
}
END_TEST

/* ------------------------------------------------------------- many of them */

START_TEST(two_pools_never_mix)
{
	enum { COUNT = 20 };
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, COUNT);
	bufpool_buf_t *bufs[2 * COUNT];
	bufpool_t *a, *b;

	config.exhausted = BUFPOOL_FAIL;
	a = make_pool(config);
	b = make_pool(config);
	for (int round = 0; round < 10; round++) {
		bufpool_buf_t *mine[COUNT];

		ck_assert_uint_eq(drain(a, 0, bufs, COUNT + 1), COUNT);
		memcpy(mine, bufs, sizeof(mine));
		ck_assert_uint_eq(drain(b, 0, bufs + COUNT, COUNT), COUNT);
		ck_assert(are_disjoint(bufs, 2 * COUNT));
		bufpool_return_bulk(mine, COUNT);
		ck_assert_uint_eq(stats_of(a).checked_out, 0);
		ck_assert_uint_eq(stats_of(b).checked_out, COUNT);
		ck_assert_uint_eq(drain(a, 0, mine, COUNT), COUNT);
		for (size_t i = 0; i < 2 * COUNT; i++)
			bufpool_return(bufs[round % 2 ? 2 * COUNT - 1 - i : i]);
	}
	must_be_whole(a);
	must_be_whole(b);
	bufpool_destroy(a);
	bufpool_destroy(b);
}
END_TEST

START_TEST(a_thousand_pools)
{
	enum { POOLS = 1000 };
	static bufpool_t *pools[POOLS];
	static bufpool_buf_t *bufs[POOLS];

	for (uintptr_t i = 0; i < POOLS; i++) {
		bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 2);

		config.exhausted = BUFPOOL_FAIL;
		pools[i] = make_pool(config);
	}
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < POOLS; i++) {
			bufs[i] = bufpool_checkout(pools[i], i);
			must(bufs[i] && bufs[i]->len == i && is_zero(bufs[i]));
			fill(bufs[i], 1 + i % 255);
		}
		for (size_t i = POOLS; i-- > 0;) {
			must(all_bytes(bufs[i]->data, PAGE, 1 + i % 255));
			bufpool_return(bufs[i]);
		}
	}
	for (size_t i = 0; i < POOLS; i++) {
		destroy_whole(pools[i]);
	}
}
END_TEST

START_TEST(a_big_pool)
{
	static bufpool_buf_t *bufs[20001];
	size_t count = scaled(20000);
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, count);

	for (int round = 0; round < 2; round++) {
		must(drain(pool, BUFPOOL_CLASS_4K, bufs, count + 1) == count);
		for (size_t i = 0; i < count; i++) {
			must(is_zero(bufs[i]));
			fill(bufs[i], 0xff);
		}
		bufpool_return_bulk(bufs, count);
	}
	destroy_whole(pool);
}
END_TEST

/* -------------------------------------------------------------- the buffer */

START_TEST(data_and_len_are_an_iovec)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 2);
	bufpool_buf_t *from = bufpool_checkout(pool, 100);
	bufpool_buf_t *to = bufpool_checkout(pool, 100);
	int ends[2];

	_Static_assert(sizeof(((bufpool_buf_t *) 0)->data) == sizeof(void *) &&
	                       offsetof(bufpool_buf_t, data) ==
	                               offsetof(struct iovec, iov_base) &&
	                       offsetof(bufpool_buf_t, len) ==
	                               offsetof(struct iovec, iov_len),
	               "a buffer starts as an iovec");
	ck_assert_int_eq(pipe(ends), 0);
	memset(from->data, 'x', 100);
	ck_assert_int_eq(writev(ends[1], (struct iovec *) from, 1), 100);
	ck_assert_int_eq(readv(ends[0], (struct iovec *) to, 1), 100);
	ck_assert_mem_eq(from->data, to->data, PAGE);
	close(ends[0]);
	close(ends[1]);
	bufpool_return(from);
	bufpool_return(to);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(len_is_the_owners)
{
	bufpool_t *pool = class_pool(_i, 1);
	size_t size = classes[_i].size;
	const size_t lens[] = {0, 1, size / 2, size};

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, size - 7);

		check_buf(buf, size - 7, size);
		buf->len = lens[i];
		bufpool_return(buf);
	}
	destroy_whole(pool);
}
END_TEST

START_TEST(checkout_by_class)
{
	const struct klass *klass = &classes[_i];
	bufpool_t *pool = class_pool(_i, 2);
	bufpool_buf_t *buf;

	for (int round = 0; round < 5; round++) {
		KEEPS_ERRNO(buf = klass->checkout(pool));
		check_buf(buf, klass->size, klass->size);
		fill(buf, 0x3c);
		KEEPS_ERRNO(bufpool_return(buf));
	}
	ck_assert_uint_eq(stats_of(pool).hits, 5);
	ck_assert_uint_eq(stats_of(pool).bytes_checked_out, 0);
	KEEPS_ERRNO(bufpool_thread_flush(pool));
	KEEPS_ERRNO(bufpool_thread_flush(NULL));
	ck_assert_uint_eq(stats_of(pool).per_class[_i].cached, 0);
	bufpool_destroy(pool);
}
END_TEST

/* ---------------------------------------------------------------- the rest */

START_TEST(versions_agree)
{
	unsigned major, minor, patch;

	KEEPS_ERRNO(ck_assert_str_eq(bufpool_version(), BUFPOOL_VERSION));
	ck_assert_int_eq(sscanf(BUFPOOL_VERSION, "%u.%u.%u", &major, &minor,
	                        &patch),
	                 3);
	ck_assert_uint_eq(BUFPOOL_VERSION_NUM,
	                  major << 16 | minor << 8 | patch);
}
END_TEST

static Suite *api_suite(void)
{
	Suite *suite = suite_create("api");
	TCase *tcase = add_case(suite, "sizes", 10);

	tcase_add_loop_test(tcase, sizes_from_pool_memory, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(tcase, sizes_from_the_heap, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(tcase, sizes_without_the_heap, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(tcase, sizes_within_heap_limit, 0,
	                    ARRAY_SIZE(ways));
	tcase_add_test(tcase, overflow_comes_first);
	tcase_add_test(tcase, arguments_come_before_buffers);
	tcase_add_test(tcase, no_wait_for_what_is_not_pooled);
	tcase_add_test(tcase, classes_are_told);
	tcase_add_test(tcase, what_is_no_class);
	tcase_add_loop_test(tcase, null_pool_is_einval, 0, ARRAY_SIZE(ways));
	tcase_add_test(tcase, null_is_fine);

	tcase = add_case(suite, "config", 10);
	tcase_add_loop_test(tcase, bad_config_is_refused, 0,
	                    ARRAY_SIZE(bad_configs));
	tcase_add_test(tcase, null_config_is_the_defaults);
	tcase_add_test(tcase, configs_of_other_versions);
	tcase_add_test(tcase, empty_config_is_empty);
	tcase_add_loop_test(tcase, any_cache_depth_works, 0,
	                    ARRAY_SIZE(cache_depths));
	tcase_add_test(tcase, no_buffers_at_all);
	tcase_add_test(tcase, create_without_memory);

	tcase = add_case(suite, "exhaustion", 10);
	tcase_add_loop_test(tcase, exhausted_goes_to_the_heap, 0,
	                    BUFPOOL_CLASSES);
	tcase_add_loop_test(tcase, exhausted_fails, 0, BUFPOOL_CLASSES);
	tcase_add_loop_test(tcase, exact_classes, 0, BUFPOOL_CLASSES);
	tcase_add_loop_test(tcase, heap_limit_is_exact, 0, BUFPOOL_CLASSES);
	tcase_add_test(tcase, heap_limit_counts_oversize);

	tcase = add_case(suite, "bulk", 20);
	tcase_add_test(tcase, bulk_of_none);
	tcase_add_loop_test(tcase, bulk_beyond_the_count, 0, BUFPOOL_CLASSES);
	tcase_add_test(tcase, bulk_from_two_pools);
	tcase_add_test(tcase, bulk_return_skips_nulls);
	tcase_add_test(tcase, bulk_return_mixes_pools);

	tcase = add_case(suite, "alignment", 20);
	tcase_add_test(tcase, alignments);
	tcase_add_test(tcase, wrong_alignments);
	tcase_add_test(tcase, alignment_beyond_memory);

	tcase = add_case(suite, "many", 20);
	tcase_add_test(tcase, two_pools_never_mix);
	tcase_add_test(tcase, a_thousand_pools);
	tcase_add_test(tcase, a_big_pool);

	tcase = add_case(suite, "buffer", 10);
	tcase_add_test(tcase, data_and_len_are_an_iovec);
	tcase_add_loop_test(tcase, len_is_the_owners, 0, BUFPOOL_CLASSES);
	tcase_add_loop_test(tcase, checkout_by_class, 0, BUFPOOL_CLASSES);

	tcase = add_case(suite, "rest", 10);
	tcase_add_test(tcase, versions_agree);
	return suite;
}

int main(void)
{
	return run_suite(api_suite());
}
