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

/* Call in the spares of all shards; those that have none are only looked at. */
static void recall(struct account *a)
{
	for (unsigned i = 0; i < a->depots; i++) {
		struct depot *depot = &a->depot[i];
		unsigned k = i % BUFPOOL_CLASSES;

		for (unsigned s = 0; s < depot->shards; s++) {
			uint64_t *spare = &depot->shard[s].spare, n;

			if (ck_pr_load_64(spare) == 0)
				continue;
			n = ck_pr_fas_64(spare, 0);
			all_sub(a, k, n, n * class_size[k]);
		}
	}
}

static void all_add(struct account *a, unsigned k, uint64_t n, uint64_t bytes)
{
	if ((k < BUFPOOL_CLASSES && would_rise(&a->klass[k], n)) ||
	    would_rise(&a->bufs, n) || would_rise(&a->bytes, bytes))
		recall(a);
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

void bp_account_reset(struct account *a, const uint64_t *out, uint64_t oversize,
                      uint64_t oversize_bytes)
{
	uint64_t bufs = oversize, bytes = oversize_bytes;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		gauge_set(&a->klass[k], out[k]);
		bufs += out[k];
		bytes += out[k] * class_size[k];
	}
	gauge_set(&a->bufs, bufs);
	gauge_set(&a->bytes, bytes);
}
