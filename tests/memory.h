/* SPDX-License-Identifier: MIT */
/*
 * memory.h - what the kernel says of memory, for the tests of a pool's
 *
 * What would change the process for good (limits, user, system calls refused) is
 * done in children.
 */
#ifndef TESTS_MEMORY_H
#define TESTS_MEMORY_H

#include "common.h"

#define HUGE_PAGE ((size_t) 2 * 1024 * 1024)
#define REGIONS 64 /* more than any pool here has */
#define SECRET 0xc3

/* AddressSanitizer and Valgrind keep books of memory, in memory: page faults
   and resident pages are then not the program's alone. */
static inline bool keeps_books(void)
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
static inline struct mapping mapping_at(const void *address)
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

static inline bool has_flag(const struct mapping *m, const char *flag)
{
	char word[8];

	snprintf(word, sizeof(word), " %s ", flag);
	return strstr(m->flags, word) != NULL;
}

/* A number from a file, after a name if it is not NULL; -1 if there is none. */
static inline long number_in(const char *path, const char *name)
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

static inline size_t locked_bytes(void)
{
	return (size_t) number_in("/proc/self/status", "VmLck:") * 1024;
}

/* What is mapped, in kB.  (Not how many mappings: they merge as they lie.) */
static inline long footprint(void)
{
	return keeps_books() ? 0 : number_in("/proc/self/status", "VmSize:");
}

static inline long minor_faults(void)
{
	struct rusage usage;

	must(getrusage(RUSAGE_THREAD, &usage) == 0);
	return usage.ru_minflt;
}

/* Use every page, also of idle memory, and change nothing. */
__attribute__((no_sanitize_address)) static inline void touch(void *base, size_t len)
{
	for (volatile char *at = base; at < (char *) base + len; at += PAGE)
		*at = *at;
}

/* The node that a page is on, or -1. */
static inline int node_of_page(const void *at)
{
	void *page = (void *) ((uintptr_t) at & ~(PAGE - 1));
	int status = -1;

	if (syscall(SYS_move_pages, 0, 1ul, &page, NULL, &status, 0) != 0)
		return -1;
	return status < 0 ? -1 : status;
}

/* The node that all pages are on, or -1. */
static inline int node_of(const void *base, size_t len)
{
	int node = node_of_page(base);

	for (size_t at = PAGE; at < len; at += PAGE)
		if (node_of_page((const char *) base + at) != node)
			return -1;
	return node;
}

/* ---------------------------------------------------------------- helpers */

/* Run fn in a child, which fails if it does. */
static inline void in_child(void (*fn)(void *arg), void *arg)
{
	char text[4096];
	int status = run_child(fn, arg, text, sizeof(text));

	if (status != 0)
		fprintf(stderr, "child: wait status %#x: %s", (unsigned) status,
		        text);
	must(status == 0);
}

static inline bufpool_config_t counts(size_t c0, size_t c1, size_t c2, size_t c3)
{
	bufpool_config_t config = empty_config();
	const size_t count[] = { c0, c1, c2, c3 };

	memcpy(config.count, count, sizeof(count));
	return config;
}

static inline bufpool_config_t with_flags(bufpool_config_t config, unsigned flags)
{
	config.flags = flags;
	return config;
}

static inline size_t regions_of(const bufpool_t *pool, bufpool_region_t *regions)
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

static inline void take_all(bufpool_t *pool, struct hoard *hoard)
{
	hoard->n = 0;
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		hoard->n += drain(pool, k, hoard->buf + hoard->n,
		                  ARRAY_SIZE(hoard->buf) - hoard->n);
	must(hoard->n < ARRAY_SIZE(hoard->buf));
}

static inline void give_all(struct hoard *hoard)
{
	bufpool_return_bulk(hoard->buf, hoard->n);
}

/* Works, is erased, and has all of its buffers. */
static inline void must_work(bufpool_t *pool)
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
static inline void use_once(bufpool_config_t config)
{
	bufpool_t *pool = make_pool(config);

	must_work(pool);
	bufpool_destroy(pool);
}

/* A create that is refused, with either errno, and leaves nothing behind. */
static inline void must_refuse(bufpool_config_t config, int error, int or_error)
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

static inline bool overlap(const bufpool_region_t *a, const bufpool_region_t *b)
{
	const char *x = a->base, *y = b->base;

	return x < y + b->len && y < x + a->len;
}

static inline size_t bytes_of(const bufpool_config_t *config)
{
	size_t bytes = 0;

	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		bytes += config->count[k] * classes[k].size;
	return bytes;
}

/* What is said of the pages is what the kernel says. */
static inline void honest_pages(const bufpool_t *pool, bool may_be_huge)
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

static inline void work_and_trim(void *pool)
{
	must_work(pool);
	must(bufpool_trim(pool) > 0);
	must_work(pool);
	bufpool_destroy(pool);
}

#endif
