/* SPDX-License-Identifier: MIT */
/*
 * histogram.h - how often a time was seen: 64 buckets for each power of two,
 * so within 2 %
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 6
#define HISTOGRAM_PART (1u << HISTOGRAM_BITS)
#define HISTOGRAM_BUCKETS ((40 - HISTOGRAM_BITS) * HISTOGRAM_PART)

struct histogram {
	uint64_t total, max;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

/* The first two times HISTOGRAM_PART values have a bucket each. */
static inline unsigned histogram_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns < 2 * HISTOGRAM_PART)
		return (unsigned) ns;
	shift = 63 - HISTOGRAM_BITS - (unsigned) __builtin_clzll(ns);
	shift = shift * HISTOGRAM_PART + (unsigned) (ns >> shift);
	return shift < HISTOGRAM_BUCKETS ? shift : HISTOGRAM_BUCKETS - 1;
}

/* The smallest value that is in a bucket. */
static inline uint64_t histogram_value(unsigned bucket)
{
	unsigned shift;

	if (bucket < 2 * HISTOGRAM_PART)
		return bucket;
	shift = bucket / HISTOGRAM_PART - 1;
	return (uint64_t) (bucket - shift * HISTOGRAM_PART) << shift;
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	h->bucket[histogram_bucket(ns)]++;
	h->total++;
	if (ns > h->max)
		h->max = ns;
}

static inline void histogram_merge(struct histogram *h,
                                   const struct histogram *other)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		h->bucket[i] += other->bucket[i];
	h->total += other->total;
	if (other->max > h->max)
		h->max = other->max;
}

/* What a share of all values, 0 to 1, is not above. */
static inline double histogram_quantile(const struct histogram *h, double share)
{
	double want = share * (double) h->total, seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += (double) h->bucket[i];
		if (seen >= want)
			return (double) histogram_value(i);
	}
	return (double) h->max;
}

#endif
