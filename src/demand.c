/* SPDX-License-Identifier: MIT */
#include "demand.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPAN_LEAST 64
#define SPAN_MOST 16384
#define WORTH_WHILE 8 /* hits a take, or scarcity lasts longer next time */

static size_t demand_len(unsigned places)
{
	return sizeof(struct demand) +
	       places * BUFPOOL_CLASSES * sizeof(struct want);
}

void bp_demand_reset(struct demand *q, unsigned refs)
{
	q->refs = refs;
	bp_roster_clear(&q->roster);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		q->klass[k].waiters = q->klass[k].seq = q->klass[k].movers = 0;
	for (unsigned i = 0; i < q->places * BUFPOOL_CLASSES; i++)
		q->want[i] = (struct want){ .span = SPAN_LEAST };
}

struct demand *bp_demand_new(unsigned places)
{
	struct demand *q = bp_map(demand_len(places));

	if (q == NULL)
		return NULL;
	q->places = places;
	bp_demand_reset(q, 1);
	return q;
}

void bp_demand_ref(struct demand *q)
{
	ck_pr_inc_uint(&q->refs);
}

void bp_demand_unref(struct demand *q)
{
	ck_pr_fence_release(); /* our use of it before another's free */
	if (ck_pr_faa_uint(&q->refs, -1u) == 1) {
		ck_pr_fence_acquire();
		bp_roster_release(&q->roster);
		bp_unmap(q, demand_len(q->places));
	}
}

/* --------------------------------------------------------------- scarcity */

uint64_t bp_demand_declare(struct want *w, bool *first)
{
	uint64_t was = ck_pr_load_64(&w->scarce);

	*first = false;
	while ((was & SCARCE) == 0) {
		uint64_t now = was + SCARCE_COUNT + SCARCE;

		*first = ck_pr_cas_64_value(&w->scarce, was, now, &was);
		if (*first)
			was = now;
	}
	ck_pr_fence_memory(); /* before anything of the caches is read */
	return was;
}

void bp_demand_adapt(struct want *w, uint64_t hits)
{
	/* Nothing depends on these but how long it lasts.  Less than none:
	   threads have left. */
	int64_t served = (int64_t) (hits - ck_pr_load_64(&w->hits));
	uint32_t span = ck_pr_load_32(&w->span);

	if (served < (int64_t) span * WORTH_WHILE)
		span = span < SPAN_MOST ? 2 * span : span;
	else
		span = span > SPAN_LEAST ? span / 2 : span;
	ck_pr_store_64(&w->hits, hits);
	ck_pr_store_32(&w->span, span);
	ck_pr_store_32(&w->takes, 0);
}

void bp_demand_trust(struct want *w, uint64_t word)
{
	if ((word & TRUSTED) == 0)
		ck_pr_cas_64(&w->scarce, word, word | TRUSTED);
}

void bp_demand_taken(struct demand *q, struct want *w, unsigned k)
{
	uint64_t was = ck_pr_load_64(&w->scarce);

	if ((was & SCARCE) == 0 || ck_pr_load_32(&q->klass[k].waiters) != 0 ||
	    ck_pr_faa_32(&w->takes, 1) < ck_pr_load_32(&w->span))
		return;
	/* Counted too, so that the word only grows: stamps are sums of it. */
	if (!ck_pr_cas_64(&w->scarce, was,
	                  (was & ~(uint64_t) (SCARCE | TRUSTED)) +
	                          SCARCE_COUNT))
		return;
	ck_pr_store_32(&w->takes, 0); /* the next one is to last, too */
	ck_pr_fence_memory(); /* see the header */
	if (ck_pr_load_32(&q->klass[k].waiters) != 0)
		bp_demand_wake(q, k, INT32_MAX);
}

/* ---------------------------------------------------------------- waiting */

void bp_demand_wake(struct demand *q, unsigned k, unsigned n)
{
	int saved = errno;

	ck_pr_inc_32(&q->klass[k].seq); /* who is about to sleep does not */
	syscall(SYS_futex, &q->klass[k].seq, FUTEX_WAKE_PRIVATE, n);
	errno = saved;
}

void bp_demand_sleep(struct demand *q, unsigned k, uint32_t seen,
                     const struct timespec *deadline)
{
	/* Where futex() is refused the waiter looks again and again. */
	syscall(SYS_futex, &q->klass[k].seq, FUTEX_WAIT_BITSET_PRIVATE, seen,
	        deadline, NULL, FUTEX_BITSET_MATCH_ANY);
}
