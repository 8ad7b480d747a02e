/* SPDX-License-Identifier: MIT */
#include "erase.h"

uint8_t bp_erase_by[BUFPOOL_CLASSES];

/* Two are timed: what is the best for a page may not be for more; and beyond
   64 KiB it is the same, or the memory decides. */
#define SMALL ((size_t) 4096)
#define LARGE ((size_t) 65536)
#define SMALL_MOST ((size_t) 16384)

/* Of each 1 + the routine; 0: not known yet.  Threads that find out at the same
   time may disagree, and the last one counts. */
static uint8_t small_best, large_best;

static uint8_t best(void *base, size_t n, unsigned times, uint8_t *known)
{
	uint8_t by = ck_pr_load_8(known);

	if (by == 0) {
		by = (uint8_t) (1 + bp_wipe_choose(base, n, times));
		ck_pr_store_8(known, by);
	}
	return by - 1;
}

void bp_erase_choose(unsigned k, void *base)
{
	size_t size = class_size[k];
	uint8_t by;

#ifdef TRACKED
	return; /* memory checkers know memset, and time means nothing */
#endif
	if (class_wipe[k] != CLASS_WIPE_auto)
		return;
	if (size <= SMALL_MOST)
		by = best(base, SMALL, 16, &small_best);
	else
		by = best(base, size < LARGE ? size : LARGE, 1, &large_best);
	ck_pr_store_8(&bp_erase_by[k], by);
}

void bp_erase(struct bp_buf *d, unsigned k)
{
	if (class_wipe[k] == CLASS_WIPE_stream)
		bp_wipe_stream(d->base, class_size[k]);
	else
		bp_wipe_by(ck_pr_load_8(&bp_erase_by[k]), d->base,
		           class_size[k]);
}
