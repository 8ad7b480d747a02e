/* SPDX-License-Identifier: MIT */
#include "pool.h"

#include "misuse.h"

/* Its pointer to the pool is what we wrote. */
static bool knows_pool(const struct bp_buf *d)
{
	return buf_is_sealed(d) && (d->klass != BP_FROM_HEAP ||
	                            d->pub.capacity == buf_capacity(d));
}

_Noreturn void bp_misuse_of(const char *call, const struct bp_buf *d,
                            const char *reason)
{
	bp_misuse(call, d, reason, knows_pool(d) ? d->pool->name : NULL);
}

static _Noreturn void misuse_of_stranger(const char *call, const void *handle)
{
	bp_misuse(call, handle, "not a buffer of any pool", NULL);
}

_Noreturn void bp_misuse_handle(const char *call, const void *handle)
{
	switch (handle_state(handle)) {
	case BP_HOME:
	case BP_UNSURE:
		bp_misuse_of(call, handle, "the buffer is home already");
	case BP_OUT:
		if (buf_is_sealed(handle))
			bp_misuse_of(call, handle, "the buffer is not frozen");
		misuse_of_stranger(call, handle);
	case BP_FROZEN:
		bp_misuse_of(call, handle, "the buffer is frozen");
	default:
		misuse_of_stranger(call, handle);
	}
}

_Noreturn void bp_misuse_spoilt(const char *call, const struct bp_buf *d,
                                uint32_t state)
{
	if (handle_state(d) != state)
		bp_misuse_handle(call, d);
	if (!buf_is_sealed(d))
		misuse_of_stranger(call, d);
	if (d->pub.data != d->base)
		bp_misuse_of(call, d, "data was changed");
	if (d->pub.capacity != buf_capacity(d))
		bp_misuse_of(call, d, "capacity was changed");
	bp_misuse_of(call, d, "len is above the capacity");
}
