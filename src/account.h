/* SPDX-License-Identifier: MIT */
/*
 * account.h - how much is out of the depots, and the most that ever was
 *
 * Three kinds of gauges: buffers of each class, buffers of the pool, and bytes
 * (capacities).  What a thread caches counts as out.  A peak is never under the
 * truth; over it by what caches held, and by what was on the move.
 *
 * No two threads shall write one line because each takes and gives back.  So a
 * shard of a depot keeps what came back to it as `spare`: the gauges still
 * stand for it, and the next take from that shard's threads uses it up without
 * touching them.  Before a gauge would rise above its peak, as many spares are
 * called in: peaks know nothing of them.  The invariant of each gauge, at rest:
 *
 *     now  =  what is out  +  all spares  <=  peak
 */
#ifndef ACCOUNT_H
#define ACCOUNT_H

#include "depot.h"

/* A quantity and the most it has been. */
struct gauge {
	uint64_t now;
	uint64_t peak;
};

struct account {
	struct gauge klass[BUFPOOL_CLASSES] __attribute__((
		aligned(CK_MD_CACHELINE)));
	struct gauge bufs, bytes;
	struct depot *depot; /* all, class by class for each place */
	unsigned depots;
};

/* n buffers of class k were taken from this depot by a thread of that shard. */
void bp_account_out(struct account *a, struct depot *depot, unsigned shard,
                    unsigned k, unsigned n);

/* n buffers are about to be given to it. */
static inline void account_in(struct depot *depot, unsigned shard, unsigned n)
{
	ck_pr_add_64(&depot_shard(depot, shard)->spare, n);
}

/* One of the heap, of class k or larger than any. */
void bp_account_heap_out(struct account *a, unsigned k, size_t bytes);
void bp_account_heap_in(struct account *a, unsigned k, size_t bytes);

/* So much is out, of each class, and in all; in a child. */
void bp_account_reset(struct account *a, const uint64_t *out, uint64_t bufs,
                      uint64_t bytes);

#endif
