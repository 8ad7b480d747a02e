/* SPDX-License-Identifier: MIT */
/* region.c - the memory that buffers lie in */
#include "pool.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Make every page present now, so that no use of a buffer faults later. */
static bool populate(char *base, size_t len)
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

static size_t page_size(void)
{
	return (size_t) sysconf(_SC_PAGESIZE);
}

static size_t round_up(size_t n, size_t unit)
{
	return (n + unit - 1) / unit * unit;
}

/*
 * A page without access lies on either side, so that an overrun of the last
 * buffer stops the program instead of reaching what the kernel put next, which
 * may well be the descriptors of a pool.
 */
void *bp_region_map(size_t len, size_t alignment)
{
	size_t guard = page_size();
	size_t body = round_up(len, guard);
	size_t room = guard + alignment + body + guard;
	char *base, *aligned, *end;

	if (room < len) {
		errno = ENOMEM;
		return NULL;
	}
	base = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	aligned = base + guard;
	aligned += -(uintptr_t) aligned & (alignment - 1);
	end = aligned + body + guard;
	if (aligned - guard > base)
		munmap(base, (size_t) (aligned - guard - base));
	if (base + round_up(room, guard) > end)
		munmap(end, (size_t) (base + round_up(room, guard) - end));
	if (mprotect(aligned, body, PROT_READ | PROT_WRITE) != 0 ||
	    !populate(aligned, body)) {
		bp_region_unmap(aligned, len);
		return NULL;
	}
	return aligned;
}

void bp_region_unmap(void *base, size_t len)
{
	size_t guard = page_size();

	munmap((char *) base - guard, guard + round_up(len, guard) + guard);
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

/* ------------------------------------------------- not in this version */

size_t bufpool_trim(bufpool_t *pool)
{
	(void) pool;
	errno = ENOSYS;
	return 0;
}

size_t bufpool_regions(const bufpool_t *pool, bufpool_region_t *out, size_t max)
{
	(void) pool, (void) out, (void) max;
	errno = ENOSYS;
	return 0;
}

int bufpool_buf_region(const bufpool_buf_t *buf, unsigned *index,
                       size_t *offset)
{
	(void) buf, (void) index, (void) offset;
	errno = ENOSYS;
	return -1;
}

int bufpool_buf_node(const bufpool_buf_t *buf)
{
	(void) buf;
	errno = ENOSYS;
	return -1;
}
