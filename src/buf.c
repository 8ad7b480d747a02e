/* SPDX-License-Identifier: MIT */
#include "buf.h"

#include "misuse.h"

_Noreturn void bp_misuse_handle(const char *call, const void *handle)
{
	switch (handle_state(handle)) {
	case BP_HOME:
	case BP_UNSURE:
		bp_misuse(call, handle, "the buffer is home already");
	case BP_OUT:
		if (buf_is_sealed(handle))
			bp_misuse(call, handle, "the buffer is not frozen");
		bp_misuse(call, handle, "not a buffer of any pool");
	case BP_FROZEN:
		bp_misuse(call, handle, "the buffer is frozen");
	default:
		bp_misuse(call, handle, "not a buffer of any pool");
	}
}

_Noreturn void bp_misuse_spoilt(const char *call, const struct bp_buf *d,
                                uint32_t state)
{
	if (handle_state(d) != state)
		bp_misuse_handle(call, d);
	if (!buf_is_sealed(d))
		bp_misuse(call, d, "not a buffer of any pool");
	if (d->pub.data != d->base)
		bp_misuse(call, d, "data was changed");
	if (d->pub.capacity != buf_capacity(d))
		bp_misuse(call, d, "capacity was changed");
	bp_misuse(call, d, "len is above the capacity");
}
