/* SPDX-License-Identifier: MIT */
/* frozen.c - immutable, reference-counted buffers: not in this version */
#include "pool.h"

#include <errno.h>

bufpool_frozen_t *bufpool_freeze(bufpool_buf_t *buf)
{
	(void) buf;
	errno = ENOSYS;
	return NULL;
}

bufpool_frozen_t *bufpool_frozen_ref(bufpool_frozen_t *f)
{
	(void) f;
	errno = ENOSYS;
	return NULL;
}

void bufpool_frozen_unref(bufpool_frozen_t *f)
{
	(void) f;
}

const void *bufpool_frozen_data(const bufpool_frozen_t *f)
{
	(void) f;
	errno = ENOSYS;
	return NULL;
}

size_t bufpool_frozen_len(const bufpool_frozen_t *f)
{
	(void) f;
	errno = ENOSYS;
	return 0;
}

bufpool_buf_t *bufpool_thaw(bufpool_frozen_t *f)
{
	(void) f;
	errno = ENOSYS;
	return NULL;
}

bufpool_slice_t bufpool_slice(bufpool_frozen_t *f, size_t offset, size_t len)
{
	bufpool_slice_t none = { NULL, 0, NULL };

	(void) f, (void) offset, (void) len;
	errno = ENOSYS;
	return none;
}

void bufpool_slice_release(bufpool_slice_t *slice)
{
	(void) slice;
}
