/* SPDX-License-Identifier: MIT */
#include "account.h"

#include <string.h>

static void gauge_sub(struct gauge *gauge, uint64_t n)
{
	ck_pr_sub_64(&gauge->now, n);
}

static void gauge_add(struct gauge *gauge, uint64_t n)
{
	uint64_t now = ck_pr_faa_64(&gauge->now, n) + n;
	uint64_t peak = ck_pr_load_64(&gauge->peak);

	while (peak < now &&
	       !ck_pr_cas_64_value(&gauge->peak, peak, now, &peak))
		;
}

static bool would_rise(const struct gauge *gauge, uint64_t n)
{
	return ck_pr_load_64(&gauge->now) + n > ck_pr_load_64(&gauge->peak);
}

static void all_sub(struct account *a, unsigned k, uint64_t n, uint64_t bytes)
{
	if (k < BUFPOOL_CLASSES)
		gauge_sub(&a->klass[k], n);
	gauge_sub(&a->bufs, n);
	gauge_sub(&a->bytes, bytes);
}

/* n more of class k, and bytes of the pool, are on their way out. */
struct rise {
	struct account *a;
	unsigned k; /* BUFPOOL_CLASSES: none */
	uint64_t n, bytes;
};

/* How many spares of class k have to be called in, so that no gauge would rise
   above its peak. */
static uint64_t missing(const struct rise *r, unsigned k)
{
	if (k == r->k && would_rise(&r->a->klass[k], r->n))
		return r->n;
	if (would_rise(&r->a->bufs, r->n))
		return r->n;
	if (would_rise(&r->a->bytes, r->bytes))
		return (r->bytes + class_size[k] - 1) / class_size[k];
	return 0;
}

/* Those of one shard: no more than are missing, as they count for what is out
   until the gauges are set. */
static void recall_from(const struct rise *r, unsigned k, uint64_t *spare)
{
	uint64_t was = ck_pr_load_64(spare), n;

	for (;;) {
		n = missing(r, k);
		if (n > was)
			n = was;
		if (n == 0)
			return;
		if (!ck_pr_cas_64_value(spare, was, was - n, &was))
			continue;
		all_sub(r->a, k, n, n * class_size[k]);
		was -= n;
	}
}

static void recall(const struct rise *r)
{
	struct account *a = r->a;

	for (unsigned i = 0; i < a->depots; i++)
		for (unsigned s = 0;
		     a->depot[i].total > 0 && s < a->depot[i].shards; s++)
			recall_from(r, i % BUFPOOL_CLASSES,
			            &a->depot[i].shard[s].spare);
}

static void all_add(struct account *a, unsigned k, uint64_t n, uint64_t bytes)
{
	const struct rise r = { a, k, n, bytes };

	if (missing(&r, k < BUFPOOL_CLASSES ? k : 0) > 0)
		recall(&r);
	if (k < BUFPOOL_CLASSES)
		gauge_add(&a->klass[k], n);
	gauge_add(&a->bufs, n);
	gauge_add(&a->bytes, bytes);
}

void bp_account_out(struct account *a, struct depot *depot, unsigned shard,
                    unsigned k, unsigned n)
{
	uint64_t *spare = &depot_shard(depot, shard)->spare;
	uint64_t was = ck_pr_load_64(spare);

	while (was >= n)
		if (ck_pr_cas_64_value(spare, was, was - n, &was))
			return;
	all_add(a, k, n, n * class_size[k]);
}

void bp_account_heap_out(struct account *a, unsigned k, size_t bytes)
{
	all_add(a, k, 1, bytes);
}

void bp_account_heap_in(struct account *a, unsigned k, size_t bytes)
{
	all_sub(a, k, 1, bytes);
}

static void gauge_set(struct gauge *gauge, uint64_t n)
{
	gauge->now = gauge->peak = n;
}

void bp_account_reset(struct account *a, const uint64_t *out, uint64_t bufs,
                      uint64_t bytes)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		gauge_set(&a->klass[k], out[k]);
	gauge_set(&a->bufs, bufs);
	gauge_set(&a->bytes, bytes);
}
