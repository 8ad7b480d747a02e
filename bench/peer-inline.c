/* SPDX-License-Identifier: MIT */
/* peer-inline.c - libbufpool, what it offers to be inlined into its callers */
#define BUFPOOL_INLINE
#include "peer-bufpool.h"

const struct peer peer_bufpool_inline = { .name = "bufpool-inline",
	                                  .what = "libbufpool, BUFPOOL_INLINE",
	                                  .start = start,
	                                  PEER };
