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
		bp_misuse(call, handle, "the buffer is not frozen");
	case BP_FROZEN:
		bp_misuse(call, handle, "the buffer is frozen");
	default:
		bp_misuse(call, handle, "not a buffer of any pool");
	}
}

/* Whether a descriptor of ours lies here, and not a copy of one. */
static bool is_sealed(const struct bp_buf *d)
{
	uint64_t mode = d->seal + buf_capacity(d) - bare_seal(d);

	return mode == 0 || (d->klass < BUFPOOL_CLASSES &&
	                     (mode == BP_ERASE || mode == BP_ERASE_USED));
}

void bp_check_handle(const char *call, const struct bp_buf *d, uint32_t state)
{
	if (CK_CC_UNLIKELY(handle_state(d) != state))
		bp_misuse_handle(call, d);
	if (CK_CC_UNLIKELY(!is_sealed(d)))
		bp_misuse(call, d, "not a buffer of any pool");
	if (CK_CC_UNLIKELY(d->pub.data != d->base))
		bp_misuse(call, d, "data was changed");
	if (CK_CC_UNLIKELY(d->pub.capacity != buf_capacity(d)))
		bp_misuse(call, d, "capacity was changed");
	if (CK_CC_UNLIKELY(d->pub.len > buf_capacity(d)))
		bp_misuse(call, d, "len is above the capacity");
}
