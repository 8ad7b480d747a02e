/* SPDX-License-Identifier: MIT */
#include "map.h"

#include <ck_pr.h>
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAP_HUGE_PAGE (MAP_HUGETLB | 21 << 26) /* 2^21, see mmap(2) */

size_t bp_page_size(void)
{
	return (size_t) sysconf(_SC_PAGESIZE);
}

bool bp_populate(void *base, size_t len)
{
#ifdef MADV_POPULATE_WRITE
	int rc;

	do
		rc = madvise(base, len, MADV_POPULATE_WRITE);
	while (rc != 0 && (errno == EINTR || errno == EAGAIN));
	if (rc == 0)
		return true;
	if (errno != EINVAL && errno != ENOSYS)
		return false;
#endif
	/* Linux before 5.14: write, but change nothing.  (To read first would map
	   the page of zeroes, and not a huge one after that.) */
	for (size_t at = 0; at < len; at += PAGE)
		ck_pr_or_8((uint8_t *) base + at, 0);
	return true;
}

void *bp_reserve(size_t len, size_t alignment)
{
	size_t guard = bp_page_size();
	size_t room = round_up(guard + alignment + len + guard, guard);
	char *base, *aligned, *end;

	if (room < len)
		return NULL;
	base = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	aligned = base + guard;
	aligned += -(uintptr_t) aligned & (alignment - 1);
	end = aligned + len + guard;
	if (aligned - guard > base)
		munmap(base, (size_t) (aligned - guard - base));
	if (base + room > end)
		munmap(end, (size_t) (base + room - end));
	return aligned;
}

uintptr_t bp_past_guard(uintptr_t end, size_t alignment)
{
	return round_up(end + bp_page_size(), alignment);
}

void bp_release(void *base, size_t before, size_t len)
{
	munmap((char *) base - before, before + len + bp_page_size());
}

void bp_vacate(void *base, size_t len)
{
	mmap(base, len, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

bool bp_make_usable(void *base, size_t len)
{
	return mprotect(base, len, PROT_READ | PROT_WRITE) == 0;
}

/*
 * Not over what is ours there: if there are too few huge pages, MAP_FIXED fails
 * after it has unmapped the place, another thread may map something into the
 * hole, and we would unmap that.
 */
bool bp_claim(void *base, size_t len, bool huge)
{
	void *got = mmap(base, len, huge ? PROT_READ | PROT_WRITE : PROT_NONE,
	                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
	                         (huge ? MAP_HUGE_PAGE : 0),
	                 -1, 0);

	if (got == base)
		return true;
	if (got != MAP_FAILED) /* Linux before 4.17 */
		munmap(got, len);
	return false;
}

void *bp_map(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p != MAP_FAILED ? p : NULL;
}

void *bp_map_cold(size_t len, size_t present)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, len, MADV_NOHUGEPAGE); /* one by one */
	if (bp_populate(p, present))
		return p;
	bp_unmap(p, len);
	return NULL;
}

bool bp_drop(void *base, size_t len)
{
	return madvise(base, len, MADV_DONTNEED) == 0;
}

void bp_unmap(void *p, size_t len)
{
	munmap(p, len);
}
