/* SPDX-License-Identifier: MIT */
/*
 * check_region.c - the memory of a pool: regions, placement, flags, trim
 *
 * What the library says of its memory is held against what the kernel says in
 * /proc/self/smaps.  What would change the process for good (limits, user,
 * system calls refused) is done in children.  More than one NUMA node takes
 * another machine: see check_numa.c; here the nodes are made up.
 */
#include "common.h"

#include <bufpool/hwloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>

#define HUGE_PAGE ((size_t) 2 * 1024 * 1024)
#define REGIONS 64 /* more than any pool here has */

/* AddressSanitizer and Valgrind keep books of memory, in memory: page faults
   and resident pages are then not the program's alone. */
static bool keeps_books(void)
{
	return is_asan() || is_small();
}

/* ------------------------------------------------------ what the kernel says */

struct mapping {
	uintptr_t start, end;
	size_t rss, huge, hugetlb, locked; /* bytes */
	char flags[128];                   /* as " rd wr mr " */
};

/* The mapping that an address is in; all zero if it is in none. */
static struct mapping mapping_at(const void *address)
{
	FILE *file = fopen("/proc/self/smaps", "r");
	uintptr_t at = (uintptr_t) address, start, end;
	struct mapping m = { 0 };
	bool here = false;
	char line[256];
	size_t kb;

	must(file);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) ==
		    2) {
			here = start <= at && at < end;
			if (here)
				m.start = start, m.end = end;
		}
		if (!here)
			continue;
		if (sscanf(line, "Rss: %zu", &kb) == 1)
			m.rss = kb * 1024;
		if (sscanf(line, "AnonHugePages: %zu", &kb) == 1)
			m.huge = kb * 1024;
		if (sscanf(line, "Private_Hugetlb: %zu", &kb) == 1)
			m.hugetlb = kb * 1024;
		if (sscanf(line, "Locked: %zu", &kb) == 1)
			m.locked = kb * 1024;
		if (sscanf(line, "VmFlags:%127[^\n]", m.flags) == 1)
			break;
	}
	fclose(file);
	return m;
}

static bool has_flag(const struct mapping *m, const char *flag)
{
	char word[8];

	snprintf(word, sizeof(word), " %s ", flag);
	return strstr(m->flags, word) != NULL;
}

/* A number from a file, after a name if it is not NULL; -1 if there is none. */
static long number_in(const char *path, const char *name)
{
	FILE *file = fopen(path, "r");
	long n = -1;
	char line[256];

	if (!file)
		return -1;
	while (n < 0 && fgets(line, sizeof(line), file))
		if (!name || strncmp(line, name, strlen(name)) == 0)
			n = strtol(line + (name ? strlen(name) : 0), NULL, 10);
	fclose(file);
	return n;
}

static size_t locked_bytes(void)
{
	return (size_t) number_in("/proc/self/status", "VmLck:") * 1024;
}

/* What is mapped, in kB.  (Not how many mappings: they merge as they lie.) */
static long footprint(void)
{
	return keeps_books() ? 0 : number_in("/proc/self/status", "VmSize:");
}

static long minor_faults(void)
{
	struct rusage usage;

	must(getrusage(RUSAGE_THREAD, &usage) == 0);
	return usage.ru_minflt;
}

/* Use every page, also of idle memory, and change nothing. */
__attribute__((no_sanitize_address)) static void touch(void *base, size_t len)
{
	for (volatile char *at = base; at < (char *) base + len; at += PAGE)
		*at = *at;
}

/* The node that a page is on, or -1. */
static int node_of_page(const void *at)
{
	void *page = (void *) ((uintptr_t) at & ~(PAGE - 1));
	int status = -1;

	if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) != 0)
		return -1;
	return status < 0 ? -1 : status;
}

/* The node that all pages are on, or -1. */
static int node_of(const void *base, size_t len)
{
	int node = node_of_page(base);

	for (size_t at = PAGE; at < len; at += PAGE)
		if (node_of_page((const char *) base + at) != node)
			return -1;
	return node;
}

/* ---------------------------------------------------------------- helpers */

/* Run fn in a child, which fails if it does. */
static void in_child(void (*fn)(void *arg), void *arg)
{
	char text[4096];
	int status = run_child(fn, arg, text, sizeof(text));

	if (status != 0)
		fprintf(stderr, "child: wait status %#x: %s", (unsigned) status,
		        text);
	must(status == 0);
}

static bufpool_config_t counts(size_t c0, size_t c1, size_t c2, size_t c3)
{
	bufpool_config_t config = empty_config();
	const size_t count[] = { c0, c1, c2, c3 };

	memcpy(config.count, count, sizeof(count));
	return config;
}

static bufpool_config_t with_flags(bufpool_config_t config, unsigned flags)
{
	config.flags = flags;
	return config;
}

static size_t regions_of(const bufpool_t *pool, bufpool_region_t *regions)
{
	size_t n = bufpool_regions(pool, regions, REGIONS);

	must(n <= REGIONS);
	return n;
}

/* Everything that is idle, of all classes. */
struct hoard {
	size_t n;
	bufpool_buf_t *buf[1024];
};

static void take_all(bufpool_t *pool, struct hoard *hoard)
{
	hoard->n = 0;
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		hoard->n += drain(pool, k, hoard->buf + hoard->n,
		                  ARRAY_SIZE(hoard->buf) - hoard->n);
	must(hoard->n < ARRAY_SIZE(hoard->buf));
}

static void give_all(struct hoard *hoard)
{
	bufpool_return_bulk(hoard->buf, hoard->n);
}

/* Works, is erased, and has all of its buffers. */
static void must_work(bufpool_t *pool)
{
	struct hoard hoard;

	must_be_whole(pool);
	take_all(pool, &hoard);
	for (size_t i = 0; i < hoard.n; i++) {
		must(is_zero(hoard.buf[i]));
		must((uintptr_t) hoard.buf[i]->data % PAGE == 0);
		fill(hoard.buf[i], 0x55);
	}
	give_all(&hoard);
	must_be_whole(pool);
}

/* After this, another such pool leaves nothing that this one has not. */
static void use_once(bufpool_config_t config)
{
	bufpool_t *pool = make_pool(config);

	must_work(pool);
	bufpool_destroy(pool);
}

/* A create that is refused, with either errno, and leaves nothing behind. */
static void must_refuse(bufpool_config_t config, int error, int or_error)
{
	size_t locked = locked_bytes();
	bufpool_t *pool;
	long before;

	for (int i = 0; i < 2; i++) {
		before = footprint();
		errno = ERRNO_SENTINEL;
		pool = bufpool_create(&config);
		must(!pool);
		must(errno == error || errno == or_error);
	}
	/* The second time: libraries keep what they need once. */
	must(footprint() == before);
	must(locked_bytes() == locked);
}

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

static bool overlap(const bufpool_region_t *a, const bufpool_region_t *b)
{
	const char *x = a->base, *y = b->base;

	return x < y + b->len && y < x + a->len;
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
		int node;

		ck_assert_ptr_nonnull(buf);
		fill(buf, 1);
		REFUSED(bufpool_buf_region(buf, &index, &offset) == -1, ENOENT);
		REFUSED(bufpool_buf_region(buf, NULL, NULL) == -1, ENOENT);
		ck_assert_uint_eq(index, 77);
		ck_assert_uint_eq(offset, 78);
		KEEPS_ERRNO(node = bufpool_buf_node(buf));
		ck_assert_int_eq(node, node_of(buf->data, buf->capacity));
		bufpool_return(buf);
	}
	REFUSED(bufpool_buf_region(NULL, NULL, NULL) == -1, EINVAL);
	REFUSED(bufpool_buf_node(NULL) == -1, EINVAL);
	bufpool_destroy(pool);
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

#define MISUSED(what)                                                          \
	{ "region of " #what, region_of_##what, "bufpool_buf_region" },        \
	{                                                                      \
		"node of " #what, node_of_##what, "bufpool_buf_node"           \
	}
static const struct misuse misuses[] = {
	MISUSED(returned), MISUSED(returned_to_heap),
	MISUSED(frozen),   MISUSED(bogus),
	MISUSED(askew),
};

START_TEST(dead_handles_are_loud)
{
	must_be_loud(&misuses[_i]);
}
END_TEST

/* ------------------------------------------------------------------ attach */

/* What a device would know. */
static struct {
	size_t n;       /* regions that it has seen */
	size_t fail_at; /* and will not have */
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
		errno = EDOM;
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

static size_t bytes_of(const bufpool_config_t *config)
{
	size_t bytes = 0;

	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		bytes += config->count[k] * classes[k].size;
	return bytes;
}

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

/* What is said of the pages is what the kernel says. */
static void honest_pages(const bufpool_t *pool, bool may_be_huge)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);

	for (size_t i = 0; i < n; i++) {
		struct mapping m = mapping_at(r[i].base);
		bool huge = has_flag(&m, "ht") || m.huge >= r[i].len;

		must(m.start == (uintptr_t) r[i].base);
		must((uintptr_t) r[i].base % HUGE_PAGE == 0);
		must(m.end - m.start ==
		     (r[i].len + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
		must(r[i].page_size ==
		     (huge ? HUGE_PAGE : (size_t) sysconf(_SC_PAGESIZE)));
		must(may_be_huge || !huge);
	}
}

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

START_TEST(transparent_huge_pages)
{
	bufpool_config_t config =
		with_flags(counts(700, 10, 3, 3), BUFPOOL_HUGEPAGES);
	bufpool_t *pool;
	long before;

	use_once(config);
	before = footprint();
	pool = make_pool(config);
	honest_pages(pool, true);
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

#define SECRET 0xc3

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
	must_be_whole(pool);
	bufpool_destroy(pool);
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
	must_be_whole(parent.pool);
	bufpool_destroy(parent.pool);
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

/* -------------------------------------------------------------------- trim */

static size_t resident(const bufpool_t *pool)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r), bytes = 0;

	for (size_t i = 0; i < n; i++)
		bytes += mapping_at(r[i].base).rss;
	return bytes;
}

/* A thread that has some of each class in its cache, and sleeps. */
static struct {
	bufpool_t *pool;
	pthread_barrier_t asleep, wake;
	pthread_t thread;
} sleeper;

static void *cache_and_sleep(void *arg)
{
	bufpool_buf_t *bufs[BUFPOOL_CLASSES];

	(void) arg;
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		bufs[k] = classes[k].checkout(sleeper.pool);
	bufpool_return_bulk(bufs, BUFPOOL_CLASSES);
	meet(&sleeper.asleep);
	meet(&sleeper.wake);
	return NULL;
}

static void put_to_sleep(bufpool_t *pool)
{
	sleeper.pool = pool;
	must(!pthread_barrier_init(&sleeper.asleep, NULL, 2));
	must(!pthread_barrier_init(&sleeper.wake, NULL, 2));
	sleeper.thread = start_thread(cache_and_sleep, NULL);
	meet(&sleeper.asleep);
}

static void wake_up(void)
{
	meet(&sleeper.wake);
	join_thread(sleeper.thread);
}

static size_t cached_in(const bufpool_t *pool)
{
	bufpool_stats_t stats = stats_of(pool);
	size_t n = 0;

	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		n += stats.per_class[k].cached;
	return n;
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
	bufpool_thread_flush(pool);
	put_to_sleep(pool);
	ck_assert_uint_ge(cached_in(pool), BUFPOOL_CLASSES);
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, mine, 3), 3);
	bufpool_return_bulk(mine, 3);
	ck_assert_uint_ge(cached_in(pool), BUFPOOL_CLASSES + 3);
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
	wake_up();
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

START_TEST(trim_gives_nothing)
{
	bufpool_config_t config = device_config(0);
	bufpool_region_t r[REGIONS], again[REGIONS];
	bufpool_t *pool;
	size_t got;

	REFUSED(bufpool_trim(NULL) == 0, EINVAL);

	/* To a device, memory stays where it is. */
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

static void work_and_trim(void *pool)
{
	must_work(pool);
	must(bufpool_trim(pool) > 0);
	must_work(pool);
	bufpool_destroy(pool);
}

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

/* --------------------------------------------------------- made-up nodes */

static bufpool_config_t on_node(int node, unsigned flags)
{
	bufpool_config_t config = with_flags(counts(9, 2, 1, 1), flags);

	config.numa_node = node;
	return config;
}

/* One region a class, and we are told where it really is. */
static void must_tell_the_truth(bufpool_t *pool, size_t most)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);
	bufpool_buf_t *buf = bufpool_checkout_4k(pool);

	must(n >= BUFPOOL_CLASSES && n <= most);
	for (size_t i = 0; i < n; i++) {
		must((uintptr_t) r[i].base % PAGE == 0);
		must(r[i].numa_node == node_of(r[i].base, r[i].len));
	}
	must(bufpool_buf_node(buf) == node_of(buf->data, buf->capacity));
	bufpool_return(buf);
	must_work(pool);
	bufpool_destroy(pool);
}

static const int nodes[] = {
	0, 1, 2, 3, 4, 1000, INT32_MAX, BUFPOOL_NUMA_LOCAL, BUFPOOL_NUMA_ANY
};

/* hwloc has a topology, but not of this machine: nothing can be placed. */
static void elsewhere(void *arg)
{
	(void) arg;
	must(setenv("HWLOC_SYNTHETIC", "node:4 core:2 pu:2", 1) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i += is_small() ? 3 : 1) {
		must_tell_the_truth(make_pool(on_node(nodes[i], 0)),
		                    BUFPOOL_CLASSES);
		/* ANY is no place that could be missed. */
		if (nodes[i] != BUFPOOL_NUMA_ANY)
			must_refuse(on_node(nodes[i], BUFPOOL_NUMA_STRICT),
			            ENOSYS, ENOSYS);
	}
}

/* The same, but it claims to be this machine, which has the first node only. */
static void made_up(void *arg)
{
	unsigned flags = *(unsigned *) arg;

	must(setenv("HWLOC_SYNTHETIC", "node:4 core:2 pu:2", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i += is_small() ? 3 : 1) {
		bufpool_config_t config = on_node(nodes[i], flags);
		/* It has CPUs for each of four. */
		bool local = nodes[i] == BUFPOOL_NUMA_LOCAL;

		must_tell_the_truth(make_pool(config),
		                    (local ? 4 : 1) * BUFPOOL_CLASSES);
		config.flags |= BUFPOOL_NUMA_STRICT;
		if (nodes[i] <= 0 && !local)
			must_tell_the_truth(make_pool(config), BUFPOOL_CLASSES);
		else
			must_refuse(config, EINVAL, EINVAL);
	}
}

START_TEST(synthetic_topology)
{
	unsigned flags[] = { 0, BUFPOOL_HUGEPAGES };

	in_child(elsewhere, NULL);
	if (node_of_page(&flags) != 0) /* refused, or there are others */
		return;
	in_child(made_up, &flags[0]);
	in_child(made_up, &flags[1]);
}
END_TEST

/* ------------------------------------------------------------------ refused */

static const struct refusal {
	int error;
	bool placing, looking, fencing;
} refusals[] = {
	{ EPERM, true, true, false },  { ENOSYS, true, true, false },
	{ EPERM, true, false, false }, { EPERM, false, true, false },
	{ EPERM, true, true, true },   { ENOSYS, false, false, true },
};

/* Have system calls fail as in a container. */
static void refuse(const struct refusal *refusal)
{
	const struct {
		bool refused;
		unsigned number;
	} calls[] = {
		{ refusal->placing, SYS_mbind },
		{ refusal->placing, SYS_set_mempolicy },
		{ refusal->placing, SYS_get_mempolicy },
		{ refusal->looking, SYS_move_pages },
		{ refusal->fencing, SYS_membarrier },
	};
	struct sock_filter code[3 + 2 * ARRAY_SIZE(calls)];
	struct sock_fprog program = { 0, code };
	unsigned short n = 0;

	code[n++] = (struct sock_filter) BPF_STMT(
		BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		if (!calls[i].refused)
			continue;
		code[n++] = (struct sock_filter) BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
		code[n++] = (struct sock_filter) BPF_STMT(
			BPF_RET | BPF_K,
			SECCOMP_RET_ERRNO | (unsigned) refusal->error);
	}
	code[n++] = (struct sock_filter) BPF_STMT(BPF_RET | BPF_K,
	                                          SECCOMP_RET_ALLOW);
	program.len = n;
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* The nodes are unknown if one may not look. */
static void must_be_placed(bufpool_t *pool, bool known)
{
	bufpool_region_t r[REGIONS];
	size_t n = regions_of(pool, r);
	bufpool_buf_t *buf = bufpool_checkout_4k(pool);

	for (size_t i = 0; i < n; i++)
		must((r[i].numa_node >= 0) == known);
	must((bufpool_buf_node(buf) >= 0) == known);
	bufpool_return(buf);
	must_work(pool);
	bufpool_destroy(pool);
}

static void live_with_refusal(void *arg)
{
	const struct refusal *refusal = arg;
	bool see = !refusal->looking;

	must(setenv("HWLOC_SYNTHETIC", "node:4 core:2 pu:2", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	refuse(refusal);
	must_be_placed(make_pool(on_node(BUFPOOL_NUMA_ANY, 0)), see);
	must_be_placed(make_pool(on_node(0, 0)), see);
	must_be_placed(make_pool(on_node(1, 0)), see);
	must_be_placed(make_pool(on_node(BUFPOOL_NUMA_LOCAL, 0)), see);
	if (refusal->placing || refusal->looking)
		must_refuse(on_node(0, BUFPOOL_NUMA_STRICT), refusal->error,
		            refusal->error);
	else
		must_be_placed(make_pool(on_node(0, BUFPOOL_NUMA_STRICT)),
		               true);
}

/* What a sleeping thread has cached is found without membarrier(). */
static void steal_with_refusal(void *arg)
{
	bufpool_t *pool;

	refuse(arg);
	pool = make_pool(even_config(4));
	put_to_sleep(pool);
	must_work(pool);
	wake_up();
	must_work(pool);
	bufpool_destroy(pool);
}

START_TEST(system_calls_refused)
{
	void *refusal = (void *) &refusals[_i];

	if (node_of_page(&refusal) == 0)
		in_child(live_with_refusal, refusal);
	in_child(steal_with_refusal, refusal);
}
END_TEST

/* -------------------------------------------------- the application's hwloc */

static hwloc_topology_t load(const char *synthetic, bool claims)
{
	hwloc_topology_t topology;

	must(hwloc_topology_init(&topology) == 0);
	if (synthetic)
		must(hwloc_topology_set_synthetic(topology, synthetic) == 0);
	if (claims)
		must(hwloc_topology_set_flags(
			     topology, HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM) == 0);
	must(hwloc_topology_load(topology) == 0);
	return topology;
}

static bufpool_t *make_on(bufpool_config_t config, hwloc_topology_t topology,
                          hwloc_const_nodeset_t nodeset)
{
	bufpool_t *pool;

	KEEPS_ERRNO(pool = bufpool_create_hwloc(&config, topology, nodeset));
	must(pool);
	return pool;
}

#define REFUSED_ON(config, topology, nodeset, error)                           \
	do {                                                                   \
		bufpool_config_t refused_on = (config);                        \
		REFUSED(bufpool_create_hwloc(&refused_on, (topology),          \
		                             (nodeset)) == NULL,               \
		        error);                                                \
	} while (0)

START_TEST(own_topology)
{
	hwloc_topology_t topology = load(NULL, false);
	hwloc_const_nodeset_t all =
		hwloc_topology_get_topology_nodeset(topology);
	hwloc_nodeset_t set = hwloc_bitmap_alloc();
	int real = hwloc_bitmap_first(all);
	bufpool_config_t bad = on_node(BUFPOOL_NUMA_ANY, 0x4000);
	bufpool_t *pool;

	REFUSED(bufpool_create_hwloc(NULL, NULL, NULL) == NULL, EINVAL);
	REFUSED(bufpool_create_hwloc(NULL, NULL, all) == NULL, EINVAL);
	REFUSED(bufpool_create_hwloc(NULL, topology, set) == NULL, EINVAL);
	REFUSED_ON(bad, topology, NULL, EINVAL);
	pool = bufpool_create_hwloc(NULL, topology, NULL);
	ck_assert_ptr_nonnull(pool);
	must_work(pool);
	bufpool_destroy(pool);

	hwloc_bitmap_only(set, (unsigned) real);
	for (unsigned strict = 0; strict <= BUFPOOL_NUMA_STRICT; strict++) {
		const int wanted[] = { real, BUFPOOL_NUMA_ANY,
			               BUFPOOL_NUMA_LOCAL };

		for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
			bufpool_config_t cfg = on_node(wanted[i], strict);

			must_be_placed(make_on(cfg, topology, set), true);
			must_tell_the_truth(make_on(cfg, topology, NULL),
			                    REGIONS);
		}
	}
	/* A node that is not in the set, a set that is not on the machine. */
	REFUSED_ON(on_node(real + 1, BUFPOOL_NUMA_STRICT), topology, set,
	           EINVAL);
	must_work(pool = make_on(on_node(real + 1, 0), topology, set));
	bufpool_destroy(pool);
	hwloc_bitmap_only(set, 900);
	REFUSED_ON(on_node(real, BUFPOOL_NUMA_STRICT), topology, set, EINVAL);
	REFUSED_ON(on_node(BUFPOOL_NUMA_ANY, BUFPOOL_NUMA_STRICT), topology,
	           set, EINVAL);
	must_work(pool = make_on(on_node(real, 0), topology, set));
	bufpool_destroy(pool);

	/* The caller's still. */
	ck_assert(hwloc_bitmap_isset(all, (unsigned) real));
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(topology);
}
END_TEST

START_TEST(topology_of_another_machine)
{
	hwloc_topology_t topology = load("node:4 core:2 pu:2", false);
	bufpool_t *pool;

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i += is_small() ? 3 : 1) {
		REFUSED_ON(on_node(nodes[i], BUFPOOL_NUMA_STRICT), topology,
		           NULL, ENOSYS);
		pool = make_on(on_node(nodes[i], 0), topology, NULL);
		must_tell_the_truth(pool, BUFPOOL_CLASSES);
	}
	hwloc_topology_destroy(topology);
}
END_TEST

/* Four places, all on the one node that there is: each class is spread over
   them, the remainders too, and served from every one. */
START_TEST(places_share_a_class)
{
	hwloc_topology_t topology = load("node:4 core:2 pu:2", true);
	bufpool_config_t config = on_node(BUFPOOL_NUMA_LOCAL, 0);
	size_t count[BUFPOOL_CLASSES] = { 0 };
	bufpool_region_t r[REGIONS];
	bufpool_t *pool = make_on(config, topology, NULL);
	size_t n = regions_of(pool, r);

	ck_assert_uint_eq(n, 4 + 2 + 1 + 1);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(r[i].index, i);
		for (size_t j = 0; j < i; j++)
			ck_assert(!overlap(&r[i], &r[j]));
		count[r[i].size_class] +=
			r[i].len / classes[r[i].size_class].size;
	}
	ck_assert_mem_eq(count, config.count, sizeof(count));
	must_work(pool);
	ck_assert_uint_eq(bufpool_trim(pool), bytes_of(&config));
	ck_assert_uint_eq(bufpool_trim(pool), 0);
	must_work(pool);
	in_child(work_and_trim, pool);
	must_work(pool);
	bufpool_destroy(pool);

	REFUSED_ON(on_node(BUFPOOL_NUMA_LOCAL, BUFPOOL_NUMA_STRICT), topology,
	           NULL, EINVAL);
	hwloc_topology_destroy(topology);
}
END_TEST

/* What an application does not want to see of a machine is there all the
   same: one node left in a topology is not all there is. */
START_TEST(restricted_topology)
{
	hwloc_topology_t topology = load("node:4 core:2 pu:2", true);
	hwloc_nodeset_t set = hwloc_bitmap_alloc();

	hwloc_bitmap_only(set, 1);
	must(hwloc_topology_restrict(topology, set,
	                             HWLOC_RESTRICT_FLAG_BYNODESET) == 0);
	must(hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) == 1);
	if (node_of_page(&set) == 0) {
		REFUSED_ON(on_node(1, BUFPOOL_NUMA_STRICT), topology, NULL,
		           EINVAL);
		must_tell_the_truth(make_on(on_node(1, 0), topology, NULL),
		                    BUFPOOL_CLASSES);
	}
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(topology);
}
END_TEST

START_TEST(best_node)
{
	hwloc_topology_t topology =
		load("node:2(memory=1GB) core:2 pu:2", true);
	hwloc_const_cpuset_t all = hwloc_topology_get_topology_cpuset(topology);
	hwloc_cpuset_t set = hwloc_bitmap_alloc();
	const hwloc_memattr_id_t capacity = HWLOC_MEMATTR_ID_CAPACITY;
	const hwloc_memattr_id_t bandwidth = HWLOC_MEMATTR_ID_BANDWIDTH;
	struct hwloc_location from = { HWLOC_LOCATION_TYPE_CPUSET, { 0 } };
	int node;

	REFUSED(bufpool_hwloc_best_node(NULL, all, capacity) == -1, EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, NULL, capacity) == -1,
	        EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, set, capacity) == -1, EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, all, 9999) == -1, EINVAL);
	REFUSED(bufpool_hwloc_best_node(topology, all, bandwidth) == -1,
	        ENOENT);
	KEEPS_ERRNO(node = bufpool_hwloc_best_node(topology, all, capacity));
	ck_assert_int_eq(node, 0); /* the first of equals */

	/* Each node is the best for its own CPUs, the second is better. */
	for (unsigned i = 0; i < 2; i++) {
		hwloc_obj_t obj =
			hwloc_get_obj_by_type(topology, HWLOC_OBJ_NUMANODE, i);

		from.location.cpuset = obj->cpuset;
		must(hwloc_memattr_set_value(topology, bandwidth, obj, &from, 0,
		                             100 + i) == 0);
		must(hwloc_memattr_set_value(topology, HWLOC_MEMATTR_ID_LATENCY,
		                             obj, &from, 0, 100 + i) == 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		hwloc_bitmap_only(set, 4 * i);
		ck_assert_int_eq(
			bufpool_hwloc_best_node(topology, set, bandwidth),
			(int) i);
	}
	ck_assert_int_eq(bufpool_hwloc_best_node(topology, all, bandwidth), 1);
	ck_assert_int_eq(bufpool_hwloc_best_node(topology, all,
	                                         HWLOC_MEMATTR_ID_LATENCY),
	                 0);
	/* CPUs that there are not. */
	hwloc_bitmap_only(set, 100);
	REFUSED(bufpool_hwloc_best_node(topology, set, bandwidth) == -1,
	        ENOENT);
	hwloc_bitmap_free(set);
	hwloc_topology_destroy(topology);
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
	tcase_add_test(tc, heap_buffers_lie_in_none);
	tcase_add_loop_test(tc, dead_handles_are_loud, 0, ARRAY_SIZE(misuses));
	tcase_add_loop_test(tc, use_causes_no_fault, 0,
	                    ARRAY_SIZE(fault_flags));

	tc = add_case(suite, "attach", 10);
	tcase_add_loop_test(tc, attached_once, 0, 3);
	tcase_add_test(tc, attach_fails);
	tcase_add_test(tc, either_hook_alone);
	tcase_add_test(tc, detached_with_the_last_buffer);
	tcase_add_test(tc, a_child_has_no_device);

	tc = add_case(suite, "flags", 10);
	tcase_add_test(tc, transparent_huge_pages);
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

	tc = add_case(suite, "trim", 20);
	tcase_add_loop_test(tc, trim_takes_what_is_idle, 0,
	                    BUFPOOL_WIPE_NONE + 1);
	tcase_add_loop_test(tc, trimmed_ones_go_out_last, 0, BUFPOOL_CLASSES);
	tcase_add_test(tc, trim_gives_nothing);
	tcase_add_test(tc, trimmed_huge_pages);
	tcase_add_test(tc, trim_beside_others);
	tcase_add_loop_test(tc, trim_beside_waiters, 0, ARRAY_SIZE(waits));
	tcase_add_test(tc, trim_then_destroy);
	tcase_add_loop_test(tc, trim_then_fork, 0, 2);

	tc = add_case(suite, "placing", 20);
	tcase_add_test(tc, synthetic_topology);
	tcase_add_loop_test(tc, system_calls_refused, 0, ARRAY_SIZE(refusals));
	tcase_add_test(tc, own_topology);
	tcase_add_test(tc, topology_of_another_machine);
	tcase_add_test(tc, places_share_a_class);
	tcase_add_test(tc, restricted_topology);
	tcase_add_test(tc, best_node);
	return suite;
}

int main(void)
{
	return run_suite(region_suite());
}
