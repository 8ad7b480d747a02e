/* SPDX-License-Identifier: MIT */
#include "map.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAP_HUGE_PAGE (MAP_HUGETLB | 21 << 26) /* 2^21, see mmap(2) */

size_t bp_page_size(void)
{
	return (size_t) sysconf(_SC_PAGESIZE);
}

bool bp_populate(char *base, size_t len)
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
	/* Linux before 5.14. */
	for (size_t at = 0; at < len; at += PAGE)
		((volatile char *) base)[at] = 0;
	return true;
}

char *bp_reserve(size_t len, size_t alignment)
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

/*
 * They do not go over what is ours there: if there are too few, MAP_FIXED fails
 * after it has unmapped the place, another thread may map something into the
 * hole, and we would unmap that.
 */
char *bp_reserve_huge(size_t len)
{
	size_t guard = bp_page_size();
	char *base = bp_reserve(len, HUGE_PAGE), *got;

	if (base == NULL)
		return NULL;
	munmap(base, len);
	got = mmap(base, len, PROT_READ | PROT_WRITE,
	           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE |
	                   MAP_HUGE_PAGE,
	           -1, 0);
	if (got == base)
		return base;
	if (got != MAP_FAILED) /* Linux before 4.17 */
		munmap(got, len);
	munmap(base - guard, guard);
	munmap(base + len, guard);
	return NULL;
}

void bp_release(void *base, size_t len)
{
	size_t guard = bp_page_size();

	munmap((char *) base - guard, guard + len + guard);
}

void *bp_guarded_map(size_t len)
{
	size_t body = round_up(len, bp_page_size());
	char *base = bp_reserve(body, bp_page_size());

	if (base == NULL)
		return NULL;
	if (mprotect(base, body, PROT_READ | PROT_WRITE) != 0 ||
	    !bp_populate(base, body)) {
		bp_release(base, body);
		return NULL;
	}
	return base;
}

void bp_guarded_unmap(void *base, size_t len)
{
	bp_release(base, round_up(len, bp_page_size()));
}

void *bp_map(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
	               MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p != MAP_FAILED ? p : NULL;
}

void bp_unmap(void *p, size_t len)
{
	munmap(p, len);
}
