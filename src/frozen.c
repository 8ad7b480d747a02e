/* SPDX-License-Identifier: MIT */
/*
 * frozen.c - immutable buffers that many hold
 *
 * A frozen handle is the buffer's descriptor in another state, so freezing
 * allocates nothing and cannot fail.  References are counted in it.  Who adds
 * one holds one, so a count of one means that nobody else can come or go: the
 * sole holder needs no read-modify-write to let go, or to thaw.
 */
#include "pool.h"

#include <errno.h>

#define REFS_MAX (UINT32_MAX / 2)

/* The descriptor of a frozen handle, which must be one. */
static struct buf *frozen(const char *call, const bufpool_frozen_t *f)
{
	struct buf *d = CK_CC_DECONST_PTR(f);

	if (CK_CC_UNLIKELY((uintptr_t) d % sizeof(*d) != 0 ||
	                   (buf_state(d) & ~0xffu) != STATE_FROZEN))
		bp_misuse_handle(call, d);
	return d;
}

/* Whether the caller's reference is the only one. */
static bool is_sole(const struct buf *d)
{
	bool sole = ck_pr_load_32(&d->refs) == 1;

	/* What the other holders did, before they let go, comes first. */
	ck_pr_fence_acquire();
	return sole;
}

bufpool_frozen_t *bufpool_freeze(bufpool_buf_t *buf)
{
	struct buf *d = (struct buf *) buf;
	uint32_t state;

	if (d == NULL) {
		errno = EINVAL;
		return NULL;
	}
	if (CK_CC_UNLIKELY((uintptr_t) d % sizeof(*d) != 0))
		bp_misuse_handle("bufpool_freeze", d);
	state = buf_state(d);
	if (CK_CC_UNLIKELY((state & ~0xffu) != STATE_OUT))
		bp_misuse_handle("bufpool_freeze", d);
	check_owner("bufpool_freeze", d, buf_capacity(d));
	d->frozen = d->pub.len > d->frozen ? d->pub.len : d->frozen;
	d->refs = 1;
	buf_set_state(d, state - STATE_OUT + STATE_FROZEN);
	return (bufpool_frozen_t *) d;
}

static void add_ref(const char *call, struct buf *d)
{
	/* Needs no order: the caller's own reference keeps the buffer. */
	uint32_t refs = ck_pr_faa_32(&d->refs, 1);

	if (CK_CC_UNLIKELY(refs == 0 || refs > REFS_MAX))
		bp_misuse(call, d,
		          refs == 0 ? "nobody holds the buffer any more"
		                    : "too many references");
}

bufpool_frozen_t *bufpool_frozen_ref(bufpool_frozen_t *f)
{
	if (f == NULL) {
		errno = EINVAL;
		return NULL;
	}
	add_ref("bufpool_frozen_ref", frozen("bufpool_frozen_ref", f));
	return f;
}

static void release(const char *call, bufpool_frozen_t *f)
{
	struct buf *d = frozen(call, f);
	uint32_t refs;

	if (!is_sole(d)) {
		/* All that this holder read, before the buffer is erased. */
		ck_pr_fence_release();
		refs = ck_pr_faa_32(&d->refs, -1u);
		if (CK_CC_UNLIKELY(refs == 0 || refs > REFS_MAX))
			bp_misuse(call, d, "more references dropped than held");
		if (refs > 1)
			return;
		ck_pr_fence_acquire();
	}
	d->refs = 0;
	bp_frozen_return(d);
}

void bufpool_frozen_unref(bufpool_frozen_t *f)
{
	if (f != NULL)
		release("bufpool_frozen_unref", f);
}

const void *bufpool_frozen_data(const bufpool_frozen_t *f)
{
	if (f == NULL) {
		errno = EINVAL;
		return NULL;
	}
	return frozen("bufpool_frozen_data", f)->pub.data;
}

size_t bufpool_frozen_len(const bufpool_frozen_t *f)
{
	if (f == NULL) {
		errno = EINVAL;
		return 0;
	}
	return frozen("bufpool_frozen_len", f)->pub.len;
}

bufpool_buf_t *bufpool_thaw(bufpool_frozen_t *f)
{
	struct buf *d;

	if (f == NULL) {
		errno = EINVAL;
		return NULL;
	}
	d = frozen("bufpool_thaw", f);
	if (!is_sole(d)) {
		errno = EBUSY;
		return NULL;
	}
	buf_set_state(d, buf_state(d) - STATE_FROZEN + STATE_OUT);
	return &d->pub;
}

bufpool_slice_t bufpool_slice(bufpool_frozen_t *f, size_t offset, size_t len)
{
	bufpool_slice_t slice = { NULL, 0, NULL };
	struct buf *d;

	if (f == NULL) {
		errno = EINVAL;
		return slice;
	}
	d = frozen("bufpool_slice", f);
	if (offset > d->pub.len || len > d->pub.len - offset) {
		errno = ERANGE;
		return slice;
	}
	add_ref("bufpool_slice", d);
	slice.data = (const char *) d->pub.data + offset;
	slice.len = len;
	slice.owner = f;
	return slice;
}

void bufpool_slice_release(bufpool_slice_t *slice)
{
	if (slice == NULL || slice->owner == NULL)
		return;
	release("bufpool_slice_release", slice->owner);
	*slice = (bufpool_slice_t){ NULL, 0, NULL };
}
