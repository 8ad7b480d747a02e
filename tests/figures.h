/* SPDX-License-Identifier: MIT */
/* figures.h - every figure of the statistics by its name, to go through them all */
#ifndef TESTS_FIGURES_H
#define TESTS_FIGURES_H

#include "common.h"

struct field {
	const char *name;
	size_t offset;
	bool counter; /* only ever grows */
};

#define TOTAL(name, counter) {#name, offsetof(bufpool_stats_t, name), counter}
#define EACH(name, counter)                                                  \
	{#name, offsetof(bufpool_class_stats_t, name), counter}

static const struct field totals[] = {
	TOTAL(hits, true),
	TOTAL(misses, true),
	TOTAL(oversize, true),
	TOTAL(checked_out, false),
	TOTAL(peak_checked_out, false),
	TOTAL(bytes_checked_out, false),
	TOTAL(peak_bytes_checked_out, false),
	TOTAL(heap_bytes, false),
};

static const struct field each[] = {
	EACH(total, false),          EACH(idle, false),
	EACH(cached, false),         EACH(cache_hits, true),
	EACH(depot_hits, true),      EACH(stolen, true),
	EACH(heap_fallbacks, true),  EACH(checked_out, false),
	EACH(peak_checked_out, false), EACH(remote_hits, true),
	EACH(exhausted, true),       EACH(waits, true),
	EACH(wait_ns, true),
};

_Static_assert(sizeof(bufpool_class_stats_t) ==
                       ARRAY_SIZE(each) * sizeof(uint64_t),
               "each[] has all fields");
_Static_assert(sizeof(bufpool_stats_t) ==
                       ARRAY_SIZE(totals) * sizeof(uint64_t) +
                               BUFPOOL_CLASSES * sizeof(bufpool_class_stats_t),
               "totals[] has all fields");

static inline uint64_t value_of(const void *stats, const struct field *field)
{
	return *(const uint64_t *) ((const char *) stats + field->offset);
}

#endif
