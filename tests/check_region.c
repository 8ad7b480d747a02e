/* SPDX-License-Identifier: MIT */
/*
 * check_region.c - the memory of a pool: regions, hooks, flags
 *
 * What the library says of its memory is held against what the kernel says in
 * /proc/self/smaps.
 */
#include "memory.h"

/* ----------------------------------------------------------------- regions */

static const size_t layouts[][BUFPOOL_CLASSES] = {
	{ 64, 8, 2, 0 }, { 1, 1, 1, 1 },     { 5, 0, 3, 0 },
	{ 0, 0, 0, 3 },  { 600, 40, 17, 9 }, { 0, 0, 0, 0 },
};

static bool same_region(const bufpool_region_t *a, const bufpool_region_t *b)
{
	return a->base == b->base && a->len == b->len && a->index == b->index &&
	       a->size_class == b->size_class && a->numa_node == b->numa_node &&
	       a->page_size == b->page_size;
}

START_TEST(regions_are_told)
{
	const size_t *count = layouts[_i];
	bufpool_region_t r[REGIONS], again[REGIONS];
	bufpool_t *pool =
		make_pool(counts(count[0], count[1], count[2], count[3]));
	size_t n = 0, total;

	KEEPS_ERRNO(total = bufpool_regions(pool, r, REGIONS));
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		if (count[k] == 0)
			continue;
		ck_assert_uint_eq(r[n].index, n);
		ck_assert_int_eq(r[n].size_class, k);
		ck_assert_uint_eq(r[n].len, count[k] * classes[k].size);
		ck_assert_uint_eq((uintptr_t) r[n].base % classes[k].size, 0);
		ck_assert_uint_eq(r[n].page_size, sysconf(_SC_PAGESIZE));
		ck_assert_int_eq(r[n].numa_node, node_of(r[n].base, r[n].len));
		ck_assert_ptr_null(r[n].cookie);
		for (size_t i = 0; i < n; i++)
			ck_assert(!overlap(&r[i], &r[n]));
		n++;
	}
	ck_assert_uint_eq(total, n);
	must_work(pool);
	ck_assert_uint_eq(regions_of(pool, again), n);
	for (size_t i = 0; i < n; i++)
		ck_assert(same_region(&r[i], &again[i]));
	bufpool_destroy(pool);
}
END_TEST

START_TEST(regions_arguments)
{
	bufpool_t *pool = make_pool(even_config(1));
	bufpool_region_t r[BUFPOOL_CLASSES], none;
	size_t n;

	memset(&none, 0xee, sizeof(none));
	for (size_t max = 0; max <= BUFPOOL_CLASSES; max++) {
		memset(r, 0xee, sizeof(r));
		KEEPS_ERRNO(n = bufpool_regions(pool, r, max));
		ck_assert_uint_eq(n, BUFPOOL_CLASSES);
		for (size_t i = 0; i < BUFPOOL_CLASSES; i++)
			ck_assert((memcmp(&r[i], &none, sizeof(none)) == 0) ==
			          (i >= max));
	}
	KEEPS_ERRNO(n = bufpool_regions(pool, NULL, 0));
	ck_assert_uint_eq(n, BUFPOOL_CLASSES);
	REFUSED(bufpool_regions(pool, NULL, 1) == 0, EINVAL);
	REFUSED(bufpool_regions(NULL, r, 1) == 0, EINVAL);
	REFUSED(bufpool_regions(NULL, NULL, 0) == 0, EINVAL);
	bufpool_destroy(pool);
}
END_TEST

/* The pool itself serves alignments up to the size of the class. */
START_TEST(classes_are_aligned)
{
	size_t size = classes[_i].size;
	bufpool_t *pool = class_pool(_i, 5);
	const bufpool_class_stats_t *of;
	bufpool_stats_t stats;
	bufpool_buf_t *bufs[5];
	uint64_t hits = 0;

	for (size_t alignment = 1; alignment <= size; alignment *= 2) {
		for (int i = 0; i < 5; i++) {
			bufs[i] =
				bufpool_checkout_aligned(pool, size, alignment);
			ck_assert((uintptr_t) bufs[i]->data % alignment == 0);
		}
		bufpool_return_bulk(bufs, 5);
		hits += 5;
	}
	bufs[0] = bufpool_checkout_aligned(pool, size, 2 * size);
	ck_assert((uintptr_t) bufs[0]->data % (2 * size) == 0);
	stats = stats_of(pool);
	of = &stats.per_class[_i];
	ck_assert_uint_eq(stats.hits, hits);
	ck_assert_uint_eq(of->heap_fallbacks, 1);
	bufpool_return(bufs[0]);
	bufpool_destroy(pool);
}
END_TEST

static void lies_in(const bufpool_buf_t *buf, const bufpool_region_t *r,
                    size_t n)
{
	unsigned index, only_index;
	size_t offset, only_offset;
	int node, rc;

	KEEPS_ERRNO(rc = bufpool_buf_region(buf, &index, &offset));
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_lt(index, n);
	ck_assert_ptr_eq((char *) r[index].base + offset, buf->data);
	ck_assert_uint_le(offset + buf->capacity, r[index].len);
	ck_assert_uint_eq(classes[r[index].size_class].size, buf->capacity);
	ck_assert_int_eq(bufpool_buf_region(buf, &only_index, NULL), 0);
	ck_assert_int_eq(bufpool_buf_region(buf, NULL, &only_offset), 0);
	ck_assert_int_eq(bufpool_buf_region(buf, NULL, NULL), 0);
	ck_assert_uint_eq(only_index, index);
	ck_assert_uint_eq(only_offset, offset);
	KEEPS_ERRNO(node = bufpool_buf_node(buf));
	ck_assert_int_eq(node, node_of(buf->data, buf->capacity));
}

/* By whichever of its bytes. */
static void is_found_as(bufpool_t *pool, const char *data, size_t capacity,
                        bufpool_buf_t *buf, bufpool_frozen_t *f)
{
	const size_t at[] = { 0, 1, capacity / 2, capacity - 1 };

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		bufpool_buf_t *found;
		bufpool_frozen_t *frozen;

		if (buf)
			KEEPS_ERRNO(found = bufpool_buf_at(pool, data + at[i]));
		else
			REFUSED(!(found = bufpool_buf_at(pool, data + at[i])),
			        ENOENT);
		if (f)
			KEEPS_ERRNO(frozen = bufpool_frozen_at(pool,
			                                       data + at[i]));
		else
			REFUSED(!(frozen = bufpool_frozen_at(pool, data + at[i])),
			        ENOENT);
		ck_assert_ptr_eq(found, buf);
		ck_assert_ptr_eq(frozen, f);
	}
}

static void is_found(bufpool_t *pool, bufpool_buf_t *buf)
{
	const char *data = buf->data;
	size_t capacity = buf->capacity, offset, of_frozen;
	unsigned index, index_of_frozen;
	bufpool_frozen_t *f;
	int rc;

	is_found_as(pool, data, capacity, buf, NULL);
	ck_assert_int_eq(bufpool_buf_region(buf, &index, &offset), 0);
	f = bufpool_freeze(buf);
	is_found_as(pool, data, capacity, NULL, f);
	KEEPS_ERRNO(rc = bufpool_frozen_region(f, &index_of_frozen,
	                                       &of_frozen));
	ck_assert_int_eq(rc, 0);
	ck_assert_uint_eq(index_of_frozen, index);
	ck_assert_uint_eq(of_frozen, offset);
	ck_assert_int_eq(bufpool_frozen_region(f, NULL, NULL), 0);
	ck_assert_ptr_eq(bufpool_thaw(f), buf); /* no reference was added */
	is_found_as(pool, data, capacity, buf, NULL);
}

START_TEST(buffers_are_found)
{
	bufpool_config_t config = counts(70, 9, 3, 2);
	bufpool_t *pool = make_pool(config), *other = make_pool(config);
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r), on_stack;
	const char *data[100];
	struct hoard hoard;

	for (int round = 0; round < 2; round++) {
		take_all(pool, &hoard);
		for (size_t i = 0; i < hoard.n; i++) {
			is_found(pool, hoard.buf[i]);
			data[i] = hoard.buf[i]->data;
			is_found_as(other, data[i], PAGE, NULL, NULL);
		}
		for (size_t i = 0; i < n; i++) {
			const char *base = r[i].base;

			is_found_as(pool, base - PAGE, PAGE, NULL, NULL);
			is_found_as(pool, base + r[i].len, PAGE, NULL, NULL);
		}
		give_all(&hoard);
		/* In a cache, in the depot. */
		for (size_t i = 0; i < 84; i++)
			is_found_as(pool, data[i], PAGE, NULL, NULL);
	}
	REFUSED(!bufpool_buf_at(pool, &on_stack), ENOENT);
	REFUSED(!bufpool_buf_at(pool, NULL), ENOENT);
	REFUSED(!bufpool_frozen_at(pool, (void *) UINTPTR_MAX), ENOENT);
	REFUSED(!bufpool_buf_at(NULL, data[0]), EINVAL);
	REFUSED(!bufpool_frozen_at(NULL, data[0]), EINVAL);
	REFUSED(bufpool_frozen_region(NULL, NULL, NULL) == -1, EINVAL);
	bufpool_destroy(other);
	bufpool_destroy(pool);
}
END_TEST

START_TEST(buffers_lie_in_regions)
{
	bufpool_t *pool = make_pool(counts(70, 9, 3, 2));
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);
	struct hoard hoard;

	for (int round = 0; round < 2; round++) {
		take_all(pool, &hoard);
		ck_assert_uint_eq(hoard.n, 84);
		ck_assert(are_disjoint(hoard.buf, hoard.n));
		for (size_t i = 0; i < hoard.n; i++)
			lies_in(hoard.buf[i], r, n);
		give_all(&hoard);
	}
	bufpool_destroy(pool);
}
END_TEST

/* Buffers from the heap, one above the largest class among them. */
START_TEST(heap_buffers_lie_in_none)
{
	const size_t sizes[] = { 100, 65536, BUFPOOL_MAX_CLASS_SIZE + 1 };
	bufpool_t *pool = make_pool(empty_config());

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, sizes[i]);
		unsigned index = 77;
		size_t offset = 78;
		bufpool_frozen_t *f;
		int node;

		ck_assert_ptr_nonnull(buf);
		fill(buf, 1);
		REFUSED(bufpool_buf_region(buf, &index, &offset) == -1, ENOENT);
		REFUSED(bufpool_buf_region(buf, NULL, NULL) == -1, ENOENT);
		ck_assert_uint_eq(index, 77);
		ck_assert_uint_eq(offset, 78);
		KEEPS_ERRNO(node = bufpool_buf_node(buf));
		ck_assert_int_eq(node, node_of(buf->data, buf->capacity));
		is_found_as(pool, buf->data, buf->capacity, NULL, NULL);
		f = bufpool_freeze(buf);
		is_found_as(pool, bufpool_frozen_data(f), sizes[i], NULL, NULL);
		REFUSED(bufpool_frozen_region(f, &index, &offset) == -1, ENOENT);
		bufpool_frozen_unref(f);
	}
	REFUSED(bufpool_buf_region(NULL, NULL, NULL) == -1, EINVAL);
	REFUSED(bufpool_buf_node(NULL) == -1, EINVAL);
	bufpool_destroy(pool);
}
END_TEST

static size_t resident(void)
{
	return (size_t) number_in("/proc/self/status", "VmRSS:") * 1024;
}

/* What so many bytes of the heap's buffers may take; how many there are is known to
   the page, what is in use beside to some. */
static void must_take(size_t before, size_t bytes)
{
	ck_assert_uint_le(resident(), before + bytes + bytes * 15 / 100 + 500000);
}

/* 20 MB of each class, and of what is larger. */
START_TEST(heap_takes_what_it_gives)
{
	size_t size = _i < BUFPOOL_CLASSES ? classes[_i].size
	                                   : BUFPOOL_MAX_CLASS_SIZE + 12345;
	size_t n = 20000000 / size, before;
	uint64_t seed = 88172645463325252;
	bufpool_buf_t **bufs;
	bufpool_t *pool;

	if (keeps_books())
		return;
	bufs = malloc(n * sizeof(bufs[0]));
	must(bufs);
	memset(bufs, 1, n * sizeof(bufs[0])); /* so that it is there */
	pool = make_pool(empty_config());
	bufpool_return(bufpool_checkout(pool, size));
	before = resident();
	must(bufpool_checkout_bulk(pool, size, bufs, n) == n);
	for (size_t i = 0; i < n; i++)
		fill(bufs[i], 0x55);
	must_take(before, n * size);
	/* Where malloc is not asked, whatever comes home first makes room. */
	while (_i == BUFPOOL_CLASS_4K && n > 0) {
		for (size_t to = n > 100 ? n / 4 : 0; n > to; n--) {
			size_t which = draw(&seed) % n;

			bufpool_return(bufs[which]);
			bufs[which] = bufs[n - 1];
		}
		/* Descriptors stay. */
		must_take(before, n * size + 20000000 / size * 64);
	}
	bufpool_return_bulk(bufs, n);
	destroy_whole(pool);
	free(bufs);
}
END_TEST

static bufpool_buf_t *returned(void)
{
	bufpool_buf_t *buf = bufpool_checkout(bufpool_create(NULL), 100);

	bufpool_return(buf);
	return buf;
}

static bufpool_buf_t *returned_to_heap(void)
{
	bufpool_buf_t *buf = bufpool_checkout(make_pool(empty_config()), 100);

	bufpool_return(buf);
	return buf;
}

static bufpool_buf_t *frozen(void)
{
	bufpool_buf_t *buf = bufpool_checkout(bufpool_create(NULL), 100);

	bufpool_freeze(buf);
	return buf;
}

static bufpool_buf_t *bogus(void)
{
	static char zeroes[64] __attribute__((aligned(64)));

	return (bufpool_buf_t *) zeroes;
}

static bufpool_buf_t *askew(void)
{
	bufpool_buf_t *buf = bufpool_checkout(bufpool_create(NULL), 100);

	return (bufpool_buf_t *) ((char *) buf + 8);
}

#define MISUSE(what)                                                           \
	static void region_of_##what(void)                                     \
	{                                                                      \
		bufpool_buf_region(what(), NULL, NULL);                        \
	}                                                                      \
	static void node_of_##what(void)                                       \
	{                                                                      \
		bufpool_buf_node(what());                                      \
	}
MISUSE(returned)
MISUSE(returned_to_heap)
MISUSE(frozen)
MISUSE(bogus)
MISUSE(askew)

static void region_of_thawed(void)
{
	bufpool_frozen_t *f = bufpool_freeze(bufpool_checkout(
		bufpool_create(NULL), 100));

	bufpool_thaw(f);
	bufpool_frozen_region(f, NULL, NULL);
}

#define MISUSED(what)                                                          \
	{ "region of " #what, region_of_##what, "bufpool_buf_region" },        \
	{                                                                      \
		"node of " #what, node_of_##what, "bufpool_buf_node"           \
	}
static const struct misuse misuses[] = {
	MISUSED(returned), MISUSED(returned_to_heap),
	MISUSED(frozen),   MISUSED(bogus),
	MISUSED(askew),
	{ "region of thawed", region_of_thawed, "bufpool_frozen_region" },
};

START_TEST(dead_handles_are_loud)
{
	must_be_loud(&misuses[_i]);
}
END_TEST

static size_t mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	size_t n = 0;
	int c;

	must(file);
	while ((c = getc(file)) != EOF)
		n += c == '\n';
	fclose(file);
	return n;
}

static bool is_guard(const void *at)
{
	struct mapping m = mapping_at(at);

	return m.start != 0 && !has_flag(&m, "rd") && !has_flag(&m, "wr");
}

/* As many as the header says; pools that are made one after the other have one or
   two more in all, for what they keep on the side. */
START_TEST(few_mappings)
{
	static const unsigned flags[] = { 0, BUFPOOL_DONTDUMP,
		                          BUFPOOL_DONTFORK, BUFPOOL_HUGEPAGES };
	bufpool_config_t config = with_flags(even_config(2), flags[_i]);
	bufpool_t *pools[20];
	bufpool_region_t r[REGIONS];
	size_t before, most = ARRAY_SIZE(pools) * (2 * BUFPOOL_CLASSES + 3) + 5;

	if (keeps_books())
		return;
	bufpool_destroy(make_pool(config));
	before = mappings();
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++)
		pools[i] = make_pool(config);
	ck_assert_uint_le(mappings() - before, most);
	for (size_t i = 0; i < ARRAY_SIZE(pools); i++) {
		size_t n = regions_of(pools[i], r);

		while (n-- > 0) {
			ck_assert(is_guard((char *) r[n].base - 1));
			ck_assert(is_guard((char *) r[n].base +
			                   mapping_at(r[n].base).end -
			                   mapping_at(r[n].base).start));
		}
		bufpool_destroy(pools[i]);
	}
	ck_assert_uint_eq(mappings(), before);
}
END_TEST

/* ------------------------------------------------------------------ attach */

/* Both hooks may use the region as any memory: before it is idle, and after. */
static void scribble(const bufpool_region_t *r)
{
	unsigned char *bytes = r->base;

	must(all_bytes(bytes, r->len, 0));
	memset(bytes, 0x77, r->len);
	must(all_bytes(bytes, r->len, 0x77));
	memset(bytes, 0, r->len);
}

static void *scribble_first(void *arg, const bufpool_region_t *r)
{
	scribble(r);
	return arg;
}

static void scribble_last(void *arg, const bufpool_region_t *r, void *cookie)
{
	must(cookie == arg);
	scribble(r);
}

START_TEST(hooks_may_touch)
{
	bufpool_config_t config = even_config(3);
	bufpool_t *pool;

	config.region_attach = scribble_first;
	config.region_detach = scribble_last;
	config.region_arg = &config;
	pool = make_pool(config);
	must_work(pool);
	bufpool_destroy(pool);
}
END_TEST

/* What a device would know. */
static struct {
	size_t n;       /* regions that it has seen */
	size_t fail_at; /* and will not have */
	int fail_with;  /* an errno, or 0 */
	bufpool_region_t region[REGIONS];
	bool attached[REGIONS];
	size_t detached;
	pthread_t detacher;
} device;

static void *attach(void *arg, const bufpool_region_t *r)
{
	struct mapping m = mapping_at(r->base);
	long before;

	must(arg == &device);
	must(r->index == device.n && !device.attached[r->index]);
	must(r->cookie == NULL);
	if (r->index == device.fail_at) {
		errno = device.fail_with;
		return BUFPOOL_ATTACH_FAILED;
	}
	must(m.start == (uintptr_t) r->base);
	must(m.rss + m.hugetlb >= r->len);
	if (!keeps_books()) {
		touch(r->base, PAGE);
		before = minor_faults();
		touch(r->base, r->len);
		/* One or two are the system's, which moves pages about. */
		must(minor_faults() <= before + 2);
	}
	device.region[device.n++] = *r;
	device.attached[r->index] = true;
	errno = ERRNO_SENTINEL + 1; /* as a call that works may */
	return &device.region[r->index];
}

static void detach(void *arg, const bufpool_region_t *r, void *cookie)
{
	must(arg == &device);
	must(r->index < device.n && device.attached[r->index]);
	must(cookie == &device.region[r->index] && r->cookie == cookie);
	must(r->base == device.region[r->index].base);
	must(r->len == device.region[r->index].len);
	must(is_mapped(r->base));
	must(is_mapped((char *) r->base + r->len - 1));
	device.attached[r->index] = false;
	device.detached++;
	device.detacher = pthread_self();
	errno = ERRNO_SENTINEL + 1;
}

static bufpool_config_t device_config(unsigned flags)
{
	bufpool_config_t config = with_flags(counts(40, 5, 3, 2), flags);

	memset(&device, 0, sizeof(device));
	device.fail_at = SIZE_MAX;
	device.fail_with = EDOM;
	config.region_attach = attach;
	config.region_detach = detach;
	config.region_arg = &device;
	return config;
}

START_TEST(attached_once)
{
	static const unsigned flags[] = { 0, BUFPOOL_HUGEPAGES,
		                          BUFPOOL_DONTFORK };
	bufpool_config_t config = device_config(flags[_i]);
	bufpool_region_t r[REGIONS];
	bufpool_t *pool;

	KEEPS_ERRNO(pool = bufpool_create(&config));
	ck_assert_ptr_nonnull(pool);
	ck_assert_uint_eq(device.n, BUFPOOL_CLASSES);
	ck_assert_uint_eq(regions_of(pool, r), BUFPOOL_CLASSES);
	for (size_t i = 0; i < device.n; i++) {
		ck_assert_ptr_eq(r[i].cookie, &device.region[i]);
		ck_assert(same_region(&r[i], &device.region[i]));
	}
	must_work(pool);
	ck_assert_uint_eq(device.n, BUFPOOL_CLASSES);
	ck_assert_uint_eq(device.detached, 0);
	KEEPS_ERRNO(bufpool_destroy(pool));
	ck_assert_uint_eq(device.detached, BUFPOOL_CLASSES);
	for (size_t i = 0; i < device.n; i++)
		ck_assert(!is_mapped(r[i].base));
}
END_TEST

START_TEST(attach_fails)
{
	bufpool_config_t config = device_config(0);

	bufpool_destroy(bufpool_create(&config));
	for (size_t i = 0; i < BUFPOOL_CLASSES; i++) {
		long before = footprint();

		config = device_config(0);
		device.fail_at = i;
		REFUSED(bufpool_create(&config) == NULL, EDOM);
		ck_assert_uint_eq(device.n, i);
		ck_assert_uint_eq(device.detached, i);
		ck_assert_int_eq(footprint(), before);
	}
	config = device_config(0);
	device.fail_at = 1;
	device.fail_with = 0;
	REFUSED(bufpool_create(&config) == NULL, EIO);
	/* Who does not care to be told. */
	config = device_config(0);
	device.fail_at = 2;
	config.region_detach = NULL;
	REFUSED(bufpool_create(&config) == NULL, EDOM);
}
END_TEST

START_TEST(either_hook_alone)
{
	bufpool_config_t config = device_config(0);
	bufpool_t *pool;

	config.region_detach = NULL;
	pool = make_pool(config);
	ck_assert_uint_eq(device.n, BUFPOOL_CLASSES);
	bufpool_destroy(pool);
	config = device_config(0);
	config.region_attach = NULL;
	pool = make_pool(config);
	bufpool_destroy(pool);
	ck_assert_uint_eq(device.n + device.detached, 0);
}
END_TEST

/* The last buffer comes home on some thread, which then detaches. */
START_TEST(detached_with_the_last_buffer)
{
	bufpool_config_t config = device_config(0);
	bufpool_t *pool = make_pool(config);
	bufpool_buf_t *heap =
		bufpool_checkout(pool, 2 * BUFPOOL_MAX_CLASS_SIZE);
	bufpool_buf_t *a = bufpool_checkout_4k(pool);
	bufpool_frozen_t *f = bufpool_freeze(bufpool_checkout_64k(pool));
	pthread_t thread;

	bufpool_destroy(pool);
	return_elsewhere(a);
	bufpool_return(heap);
	ck_assert_uint_eq(device.detached, 0);
	ck_assert(is_mapped(device.region[0].base));
	thread = start_thread(unref_thread, f);
	join_thread(thread);
	ck_assert_uint_eq(device.detached, BUFPOOL_CLASSES);
	ck_assert(pthread_equal(device.detacher, thread));
	ck_assert(!is_mapped(device.region[0].base));
}
END_TEST

static void no_cookies(void *pool)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);

	must(n == device.n);
	for (size_t i = 0; i < n; i++) {
		must(r[i].cookie == NULL);
		must(r[i].base == device.region[i].base);
	}
	must_work(pool);
	bufpool_destroy(pool);
	must(device.detached == 0);
}

START_TEST(a_child_has_no_device)
{
	bufpool_config_t config = device_config(0);
	bufpool_region_t r[REGIONS];
	bufpool_t *pool = make_pool(config);

	in_child(no_cookies, pool);
	ck_assert_uint_eq(regions_of(pool, r), device.n);
	for (size_t i = 0; i < device.n; i++)
		ck_assert_ptr_eq(r[i].cookie, &device.region[i]);
	bufpool_destroy(pool);
	ck_assert_uint_eq(device.detached, BUFPOOL_CLASSES);
}
END_TEST

/* Whether that much may be locked; AddressSanitizer makes mlock() do nothing. */
static bool can_lock(size_t bytes)
{
	static char page[4096] __attribute__((aligned(4096)));
	size_t before = locked_bytes();
	struct rlimit limit;
	bool can = mlock(page, sizeof(page)) == 0 && locked_bytes() > before;

	munlock(page, sizeof(page));
	must(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	return can && (geteuid() == 0 || bytes <= limit.rlim_cur);
}

/* ------------------------------------------------------------- no faults */

static void use_all(bufpool_t *pool, struct hoard *hoard)
{
	take_all(pool, hoard);
	for (size_t i = 0; i < hoard->n; i++)
		touch(hoard->buf[i]->data, hoard->buf[i]->capacity);
	give_all(hoard);
}

static const unsigned fault_flags[] = { 0, BUFPOOL_HUGEPAGES, BUFPOOL_DONTDUMP,
	                                BUFPOOL_LOCKED };

/* Of a new pool's first use. */
static long faults_of_use(bufpool_config_t config)
{
	static struct hoard hoard;
	bufpool_t *pool = make_pool(config);
	long before, faults;

	bufpool_return(bufpool_checkout_4k(pool)); /* this thread's cache */
	before = minor_faults();
	use_all(pool, &hoard);
	faults = minor_faults() - before;
	bufpool_destroy(pool);
	return faults;
}

START_TEST(use_causes_no_fault)
{
	bufpool_config_t config =
		with_flags(counts(200, 20, 5, 2), fault_flags[_i]);
	long faults;

	if ((config.flags & BUFPOOL_LOCKED) && !can_lock(bytes_of(&config)))
		return;
	faults_of_use(config); /* of the code, too */
	/* The system moves pages about, now and then: not each time. */
	for (int i = 0; i < 5; i++) {
		faults = faults_of_use(config);
		if (faults == 0)
			return;
	}
	ck_assert_msg(keeps_books(), "%ld page faults", faults);
}
END_TEST

/* -------------------------------------------------------------- huge pages */

static void without_huge_pages(void *config)
{
	bufpool_t *pool;

	/* Also refuses transparent ones where they are always given. */
	must(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	pool = bufpool_create(config);
	must(pool);
	honest_pages(pool, number_in("/proc/sys/vm/nr_hugepages", NULL) > 0);
	must_work(pool);
	bufpool_destroy(pool);
}

/* The system populates then as soon as it may, and does not ask twice for what. */
static void huge_pages_when_all_is_locked(void *arg)
{
	bufpool_config_t *config = arg;
	bufpool_region_t r[REGIONS];
	bufpool_t *pool = make_pool(*config);
	size_t n = regions_of(pool, r);
	bool huge[REGIONS];

	for (size_t i = 0; i < n; i++)
		huge[i] = r[i].page_size == HUGE_PAGE;
	bufpool_destroy(pool);
	if (mlockall(MCL_FUTURE) != 0)
		return; /* not root */
	pool = make_pool(*config);
	honest_pages(pool, true);
	must(regions_of(pool, r) == n);
	for (size_t i = 0; i < n; i++)
		must(!huge[i] || r[i].page_size == HUGE_PAGE);
	bufpool_destroy(pool);
}

START_TEST(huge_pages_and_mlockall)
{
	bufpool_config_t config =
		with_flags(counts(700, 10, 3, 3), BUFPOOL_HUGEPAGES);

	in_child(huge_pages_when_all_is_locked, &config);
}
END_TEST

START_TEST(transparent_huge_pages)
{
	bufpool_config_t config =
		with_flags(counts(700, 10, 3, 3), BUFPOOL_HUGEPAGES);
	bufpool_region_t r[REGIONS];
	bufpool_t *pool;
	long before;

	use_once(config);
	before = footprint();
	pool = make_pool(config);
	honest_pages(pool, true);
	ck_assert_uint_eq(regions_of(pool, r), BUFPOOL_CLASSES);
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		ck_assert_uint_eq(r[k].len, config.count[k] * classes[k].size);
	must_work(pool);
	bufpool_destroy(pool);
	ck_assert_int_eq(footprint(), before);
	in_child(without_huge_pages, &config);
}
END_TEST

/* Reserved ones, if we may; they are the system's, so given back in any case
   by a fixture that runs in Check's parent. */
static const char nr_hugepages[] = "/proc/sys/vm/nr_hugepages";
static long reserved_before = -1;
static bool have_reserved;

static void set_reserved(long n)
{
	FILE *file = fopen(nr_hugepages, "w");

	if (!file)
		return;
	fprintf(file, "%ld\n", n);
	fclose(file);
}

static long free_reserved(void)
{
	return number_in("/proc/meminfo", "HugePages_Free:");
}

#define RESERVED 6

static void reserve_pages(void)
{
	reserved_before = number_in(nr_hugepages, NULL);
	if (reserved_before < 0)
		return;
	set_reserved(reserved_before + RESERVED);
	have_reserved = free_reserved() >= RESERVED;
}

static void unreserve_pages(void)
{
	if (reserved_before >= 0)
		set_reserved(reserved_before);
}

START_TEST(reserved_huge_pages)
{
	bufpool_config_t config =
		with_flags(counts(100, 0, 3, 3), BUFPOOL_HUGEPAGES);
	long before, idle = free_reserved();
	bufpool_region_t r[REGIONS];
	struct mapping m;
	bufpool_t *pool;

	if (!have_reserved) /* not root, a container, or no room */
		return;
	use_once(config);
	before = footprint();
	pool = make_pool(config);
	ck_assert_uint_eq(regions_of(pool, r), 3);
	for (int i = 0; i < 3; i++) {
		m = mapping_at(r[i].base);
		ck_assert(has_flag(&m, "ht"));
		ck_assert_uint_eq(r[i].page_size, HUGE_PAGE);
	}
	honest_pages(pool, true);
	ck_assert_int_eq(free_reserved(), idle - 4);
	must_work(pool);
	/* They might not be had again. */
	ck_assert_uint_eq(bufpool_trim(pool), 0);
	ck_assert_int_eq(free_reserved(), idle - 4);
	bufpool_destroy(pool);
	ck_assert_int_eq(free_reserved(), idle);
	ck_assert_int_eq(footprint(), before);
}
END_TEST

/* Of a region that does not fit, none is taken. */
START_TEST(too_few_reserved)
{
	bufpool_config_t config =
		with_flags(counts(10, 0, 0, 0), BUFPOOL_HUGEPAGES);
	long idle = free_reserved();
	bufpool_region_t r[REGIONS];
	struct mapping m;
	bufpool_t *pool;

	if (!have_reserved)
		return;
	config.count[BUFPOOL_CLASS_1M] = 2 * (size_t) idle + 2;
	pool = make_pool(config);
	ck_assert_uint_eq(regions_of(pool, r), 2);
	m = mapping_at(r[0].base);
	ck_assert(has_flag(&m, "ht"));
	m = mapping_at(r[1].base);
	ck_assert(!has_flag(&m, "ht"));
	ck_assert_int_eq(free_reserved(), idle - 1);
	honest_pages(pool, true);
	must_work(pool);
	/* Only what can be had again is given. */
	ck_assert_uint_eq(bufpool_trim(pool), r[1].len);
	bufpool_destroy(pool);
	ck_assert_int_eq(free_reserved(), idle);
}
END_TEST

static void must_work_in_child(void *pool)
{
	must_work(pool);
}

/* Whether a child can have them depends on how many are left; DONTFORK is the
   way to be sure. */
START_TEST(reserved_pages_and_fork)
{
	bufpool_config_t config = with_flags(
		counts(100, 0, 3, 0), BUFPOOL_HUGEPAGES | BUFPOOL_DONTFORK);
	bufpool_t *pool;

	if (!have_reserved || is_valgrind())
		return;
	config.count[BUFPOOL_CLASS_1M] = 2 * (size_t) free_reserved() - 4;
	pool = make_pool(config);
	ck_assert_int_eq(free_reserved(), 0);
	in_child(must_work_in_child, pool);
	must_work(pool);
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------------ locked */

START_TEST(locked_memory)
{
	bufpool_config_t config =
		with_flags(counts(50, 3, 2, 1), BUFPOOL_LOCKED);
	size_t before = locked_bytes(), n;
	bufpool_region_t r[REGIONS];
	bufpool_t *pool;

	if (!can_lock(bytes_of(&config)))
		return;
	pool = make_pool(config);
	n = regions_of(pool, r);
	ck_assert_uint_eq(locked_bytes(), before + bytes_of(&config));
	for (size_t i = 0; i < n; i++) {
		struct mapping m = mapping_at(r[i].base);

		ck_assert(has_flag(&m, "lo"));
		ck_assert_uint_eq(m.locked, r[i].len);
	}
	must_work(pool);
	bufpool_destroy(pool);
	ck_assert_uint_eq(locked_bytes(), before);
}
END_TEST

/* As a user who may lock that much; the superuser may always. */
static void may_lock(rlim_t bytes)
{
	const struct rlimit limit = { bytes, bytes };

	must(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (geteuid() == 0)
		must(setresuid(65534, 65534, 65534) == 0);
}

static void lock_within_the_limit(void *arg)
{
	bufpool_config_t config =
		with_flags(counts(16, 0, 0, 0), BUFPOOL_LOCKED);
	size_t before = locked_bytes();
	bufpool_t *pool;

	(void) arg;
	may_lock(65536);
	/* Too much, in the first region or the second, or with huge pages. */
	config.count[BUFPOOL_CLASS_4K] = 17;
	must_refuse(config, ENOMEM, EPERM);
	config.count[BUFPOOL_CLASS_4K] = 16;
	config.count[BUFPOOL_CLASS_64K] = 1;
	must_refuse(config, ENOMEM, EPERM);
	config.count[BUFPOOL_CLASS_64K] = 0;
	config.flags |= BUFPOOL_HUGEPAGES;
	must_refuse(config, ENOMEM, EPERM);
	config.flags = BUFPOOL_LOCKED;
	/* It just fits, and fits again. */
	for (int i = 0; i < 2; i++) {
		pool = make_pool(config);
		must(locked_bytes() == before + 65536);
		must_work(pool);
		bufpool_destroy(pool);
		must(locked_bytes() == before);
	}
}

static void lock_nothing(void *arg)
{
	(void) arg;
	may_lock(0);
	must_refuse(with_flags(counts(1, 0, 0, 0), BUFPOOL_LOCKED), EPERM,
	            EPERM);
	bufpool_destroy(make_pool(with_flags(empty_config(), BUFPOOL_LOCKED)));
}

START_TEST(lock_limit)
{
	if (!can_lock(65536))
		return;
	in_child(lock_within_the_limit, NULL);
	in_child(lock_nothing, NULL);
}
END_TEST

/* --------------------------------------------------- dumps and children */

static void must_have_flags(const bufpool_t *pool, bool dd, bool dc)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);

	must(n == BUFPOOL_CLASSES);
	for (size_t i = 0; i < n; i++) {
		struct mapping m = mapping_at(r[i].base);

		must(m.start == (uintptr_t) r[i].base);
		must(has_flag(&m, "dd") == dd);
		must(has_flag(&m, "dc") == dc);
	}
}

START_TEST(flags_of_mappings)
{
	for (int i = 0; i < 8; i++) {
		unsigned flags = (i & 1 ? BUFPOOL_DONTDUMP : 0) |
		                 (i & 2 ? BUFPOOL_DONTFORK : 0) |
		                 (i & 4 ? BUFPOOL_HUGEPAGES : 0);
		bufpool_t *pool = make_pool(with_flags(even_config(2), flags));

		must_have_flags(pool, i & 1, i & 2);
		bufpool_destroy(pool);
	}
}
END_TEST

static struct {
	bufpool_t *pool;
	bufpool_buf_t *out[2 * BUFPOOL_CLASSES];
	bufpool_frozen_t *frozen;
	int generations;
	bool dirty; /* BUFPOOL_WIPE_NONE */
} parent;

/* Nothing of the pool's memory can be read but zeroes, past all tools. */
static void sees_nothing(const bufpool_t *pool)
{
	static char page[PAGE];
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);

	for (size_t i = 0; i < n; i++)
		for (size_t at = 0; at < r[i].len; at += PAGE) {
			must(peek((char *) r[i].base + at, page, PAGE));
			must(all_bytes(page, PAGE, 0));
		}
}

static void *use_for_long(void *pool)
{
	uint64_t seed = 88172645463325252;

	for (long i = scaled(5000); i > 0; i--) {
		size_t size = draw(&seed) % BUFPOOL_MAX_CLASS_SIZE >>
		              draw(&seed) % 20;
		bufpool_buf_t *buf = bufpool_checkout(pool, size);

		must(buf);
		must(parent.dirty || all_bytes(buf->data, buf->len, 0));
		memset(buf->data, SECRET, buf->len < 64 ? buf->len : 64);
		bufpool_return(buf);
	}
	return NULL;
}

static void live_on_nothing(void *arg)
{
	bufpool_t *pool = parent.pool;

	(void) arg;
	sees_nothing(pool);
	must_have_flags(pool, true, true);
	must(stats_of(pool).checked_out == ARRAY_SIZE(parent.out) + 1);
	for (size_t i = 0; i < ARRAY_SIZE(parent.out); i++)
		must(is_zero(parent.out[i]));
	use_for_long(pool);
	run_thread(use_for_long, pool);
	if (parent.generations-- > 0) {
		for (size_t i = 0; i < ARRAY_SIZE(parent.out); i++)
			fill(parent.out[i], SECRET);
		in_child(live_on_nothing, NULL);
		for (size_t i = 0; i < ARRAY_SIZE(parent.out); i++)
			must(all_bytes(parent.out[i]->data,
			               parent.out[i]->capacity, SECRET));
	}
	bufpool_return_bulk(parent.out, ARRAY_SIZE(parent.out));
	must(all_bytes(bufpool_frozen_data(parent.frozen), PAGE, 0));
	bufpool_frozen_unref(parent.frozen);
	destroy_whole(pool);
}

/* Under every wipe mode: WIPE_NONE leaves the secret in idle buffers too. */
START_TEST(children_see_zeroes_only)
{
	bufpool_config_t config =
		with_flags(even_config(6), BUFPOOL_DONTFORK | BUFPOOL_DONTDUMP);
	struct hoard hoard;

	if (is_valgrind())
		return;
	config.wipe = (enum bufpool_wipe) _i;
	parent.pool = make_pool(config);
	parent.generations = 1;
	parent.dirty = config.wipe == BUFPOOL_WIPE_NONE;
	take_all(parent.pool, &hoard);
	for (size_t i = 0; i < hoard.n; i++)
		fill(hoard.buf[i], SECRET);
	give_all(&hoard);
	for (size_t i = 0; i < ARRAY_SIZE(parent.out); i++) {
		parent.out[i] = classes[i / 2].checkout(parent.pool);
		fill(parent.out[i], SECRET);
	}
	parent.frozen = bufpool_freeze(bufpool_checkout_4k(parent.pool));
	in_child(live_on_nothing, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(parent.out); i++)
		ck_assert(all_bytes(parent.out[i]->data,
		                    parent.out[i]->capacity, SECRET));
	must_have_flags(parent.pool, true, true);
	bufpool_return_bulk(parent.out, ARRAY_SIZE(parent.out));
	bufpool_frozen_unref(parent.frozen);
	destroy_whole(parent.pool);
}
END_TEST

/* Destroyed with buffers out, it ends in parent and child. */
static void return_the_rest(void *arg)
{
	const void *data = parent.out[0]->data;

	(void) arg;
	must(is_zero(parent.out[0]));
	bufpool_return(parent.out[0]);
	must(!is_mapped(data));
}

START_TEST(destroyed_then_forked)
{
	const void *data;

	if (is_valgrind())
		return;
	parent.pool = make_pool(with_flags(even_config(2), BUFPOOL_DONTFORK));
	parent.out[0] = bufpool_checkout_4k(parent.pool);
	data = parent.out[0]->data;
	fill(parent.out[0], SECRET);
	bufpool_destroy(parent.pool);
	in_child(return_the_rest, NULL);
	ck_assert(all_bytes(data, PAGE, SECRET));
	bufpool_return(parent.out[0]);
	ck_assert(!is_mapped(data));
}
END_TEST

/* ---------------------------------------------------------------- the suite */

static Suite *region_suite(void)
{
	Suite *suite = suite_create("region");
	TCase *tc = add_case(suite, "regions", 10);


	tcase_add_loop_test(tc, regions_are_told, 0, ARRAY_SIZE(layouts));
	tcase_add_test(tc, regions_arguments);
	tcase_add_loop_test(tc, classes_are_aligned, 0, BUFPOOL_CLASSES);
	tcase_add_test(tc, buffers_lie_in_regions);
	tcase_add_test(tc, buffers_are_found);
	tcase_add_test(tc, heap_buffers_lie_in_none);
	tcase_add_loop_test(tc, few_mappings, 0, 4);
	tcase_add_loop_test(tc, heap_takes_what_it_gives, 0,
	                    BUFPOOL_CLASSES + 1);
	tcase_add_loop_test(tc, dead_handles_are_loud, 0, ARRAY_SIZE(misuses));
	tcase_add_loop_test(tc, use_causes_no_fault, 0,
	                    ARRAY_SIZE(fault_flags));

	tc = add_case(suite, "attach", 10);
	tcase_add_loop_test(tc, attached_once, 0, 3);
	tcase_add_test(tc, attach_fails);
	tcase_add_test(tc, either_hook_alone);
	tcase_add_test(tc, hooks_may_touch);
	tcase_add_test(tc, detached_with_the_last_buffer);
	tcase_add_test(tc, a_child_has_no_device);

	tc = add_case(suite, "flags", 10);
	tcase_add_test(tc, transparent_huge_pages);
	tcase_add_test(tc, huge_pages_and_mlockall);
	tcase_add_test(tc, locked_memory);
	tcase_add_test(tc, lock_limit);
	tcase_add_test(tc, flags_of_mappings);
	tcase_add_loop_test(tc, children_see_zeroes_only, 0,
	                    BUFPOOL_WIPE_NONE + 1);
	tcase_add_test(tc, destroyed_then_forked);

	tc = add_case(suite, "reserved", 10);
	tcase_add_unchecked_fixture(tc, reserve_pages, unreserve_pages);
	tcase_add_test(tc, reserved_huge_pages);
	tcase_add_test(tc, too_few_reserved);
	tcase_add_test(tc, reserved_pages_and_fork);
	return suite;
}

int main(void)
{
	lock_huge_pages(LOCK_EX);
	return run_suite(region_suite());
}
