/* SPDX-License-Identifier: MIT */
/* region.c - the memory that buffers lie in */
#include "pool.h"

#include <errno.h>
#include <sys/mman.h>

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

void *bp_region_map(size_t len, size_t alignment)
{
	size_t slack = alignment - PAGE;
	char *base, *aligned;

	base = mmap(NULL, len + slack, PROT_READ | PROT_WRITE,
	            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return NULL;
	aligned = base + (-(uintptr_t) base & (alignment - 1));
	if (aligned > base)
		munmap(base, (size_t) (aligned - base));
	if (base + slack > aligned)
		munmap(aligned + len, (size_t) (base + slack - aligned));
	if (!populate(aligned, len)) {
		munmap(aligned, len);
		return NULL;
	}
	return aligned;
}

void bp_region_unmap(void *base, size_t len)
{
	munmap(base, len);
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
