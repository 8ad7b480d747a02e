/* SPDX-License-Identifier: MIT */
/*
 * frozen.c - immutable buffers that many hold
 *
 * A frozen handle is the buffer's descriptor in another state, so freezing
 * allocates nothing and cannot fail.  References are counted in it.  Who adds
 * one holds one, so a count of one means that nobody else can come or go: the
 * sole holder needs no read-modify-write to let go, or to thaw.
 */
#include <errno.h>

#include "checkout.h"
#include "give.h"
#include "pool.h"

#define REFS_MAX (UINT32_MAX / 2)

/* The descriptor of a frozen handle, which must be one. */
static struct bp_buf *frozen(const char *call, const bufpool_frozen_t *f)
{
	if (CK_CC_UNLIKELY(handle_state(f) != BP_FROZEN))
		bp_misuse_handle(call, f);
	return CK_CC_DECONST_PTR(f);
}

/* Whether the caller's reference is the only one. */
static bool is_sole(const struct bp_buf *d)
{
	bool sole = ck_pr_load_32(&d->refs) == 1;

	/* What the other holders did, before they let go, comes first. */
	ck_pr_fence_acquire();
	return sole;
}

bufpool_frozen_t *bufpool_freeze(bufpool_buf_t *buf)
{
	struct bp_buf *d = (struct bp_buf *) buf;

	if (d == NULL) {
		errno = EINVAL;
		return NULL;
	}
	check_handle("bufpool_freeze", d, BP_OUT);
	if (d->pub.len > d->frozen)
		d->frozen = d->pub.len & BP_FROZEN_MOST;
	/* Where it was a free descriptor, somebody may still read its link. */
	ck_pr_store_32(&d->refs, 1);
	d->state = BP_FROZEN;
	return (bufpool_frozen_t *) d;
}

static void add_ref(const char *call, struct bp_buf *d)
{
	/* Needs no order: the caller's own reference keeps the buffer. */
	uint32_t refs = ck_pr_faa_32(&d->refs, 1);

	if (CK_CC_UNLIKELY(refs == 0 || refs > REFS_MAX))
		bp_misuse_of(call, d,
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
	struct bp_buf *d = frozen(call, f);
	uint32_t refs;

	if (!is_sole(d)) {
		/* All that this holder read, before the buffer is erased. */
		track_release(d);
		ck_pr_fence_release();
		refs = ck_pr_faa_32(&d->refs, -1u);
		if (CK_CC_UNLIKELY(refs == 0 || refs > REFS_MAX))
			bp_misuse_of(call, d,
			             "more references dropped than held");
		if (refs > 1)
			return;
		ck_pr_fence_acquire();
	}
	ck_pr_store_32(&d->refs, 0);
	/* Two may have let go of one reference. */
	if (CK_CC_UNLIKELY(d->state != BP_FROZEN))
		bp_misuse_handle(call, d);
	d->state = BP_OUT;
	bp_return_of(call, d);
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
	struct bp_buf *d;

	if (f == NULL) {
		errno = EINVAL;
		return NULL;
	}
	d = frozen("bufpool_thaw", f);
	if (!is_sole(d)) {
		errno = EBUSY;
		return NULL;
	}
	track_acquire(d);
	d->state = BP_OUT;
	return &d->pub;
}

bufpool_slice_t bufpool_slice(bufpool_frozen_t *f, size_t offset, size_t len)
{
	bufpool_slice_t slice = { NULL, 0, NULL };
	struct bp_buf *d;

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
	bufpool_frozen_t *owner;

	if (slice == NULL || slice->owner == NULL)
		return;
	owner = slice->owner;
	/* Before: the last release runs region_detach, and who knows what goes
	   with the pool. */
	*slice = (bufpool_slice_t){ NULL, 0, NULL };
	release("bufpool_slice_release", owner);
}
