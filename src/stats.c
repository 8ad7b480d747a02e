/* SPDX-License-Identifier: MIT */
/* stats.c - add the counters up, and print them */
#include "cache.h"
#include "cancel.h"
#include "registry.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Read while others count, a difference may come out just below zero. */
static uint64_t at_least_zero(uint64_t n)
{
	return (int64_t) n < 0 ? 0 : n;
}

/* What only the caches know, of all classes in one walk: so that what a thread
   takes and gives back meanwhile is seen either twice or not at all. */
static void add_cache(const struct cache *c, bufpool_stats_t *out)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		const struct bp_magazine *m = &c->fast.magazine[k];
		bufpool_class_stats_t *class = &out->per_class[k];

		class->checked_out += cache_out(c, k);
		class->cache_hits += ck_pr_load_64(&m->hits);
		class->depot_hits += ck_pr_load_64(&m->depot_hits);
		class->stolen += ck_pr_load_64(&m->stolen);
		class->remote_hits += ck_pr_load_64(&c->remote_hits[k]);
		class->cached += bp_magazine_count(m);
	}
}

static void add_counts(const struct shared_counts *in,
                       bufpool_class_stats_t *out)
{
	uint64_t depot_hits = ck_pr_load_64(&in->depot_hits);
	uint64_t stolen = ck_pr_load_64(&in->stolen);

	out->cache_hits += ck_pr_load_64(&in->cache_hits);
	out->depot_hits += depot_hits;
	out->stolen += stolen;
	out->remote_hits += ck_pr_load_64(&in->remote_hits);
	out->checked_out += depot_hits + stolen - ck_pr_load_64(&in->returns);
}

/* What is counted in the pool, and that all of it makes sense. */
static void finish_class(const bufpool_t *pool, unsigned k,
                         bufpool_class_stats_t *out)
{
	add_counts(&pool->counts[k], out);
	out->total = pool->total[k];
	out->heap_fallbacks = ck_pr_load_64(&pool->heap.served[k]);
	out->checked_out = at_least_zero(out->checked_out);
	if (out->checked_out > out->total)
		out->checked_out = out->total;
	out->idle = out->total - out->checked_out;
	if (out->cached > out->idle)
		out->cached = out->idle;
	out->peak_checked_out = ck_pr_load_64(&pool->account.klass[k].peak);
	/* What was on the move counts twice for a moment. */
	if (out->heap_fallbacks == 0 && out->peak_checked_out > out->total)
		out->peak_checked_out = out->total;
}

static void finish(const bufpool_t *pool, bufpool_stats_t *out)
{
	uint64_t bufs = 0, bytes = 0;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		bufpool_class_stats_t *class = &out->per_class[k];

		finish_class(pool, k, class);
		out->hits +=
			class->cache_hits + class->depot_hits + class->stolen;
		out->misses += class->heap_fallbacks;
		out->checked_out += class->checked_out;
		out->bytes_checked_out += class->checked_out * class_size[k];
		bufs += class->total;
		bytes += class->total * class_size[k];
	}
	out->oversize = ck_pr_load_64(&pool->heap.served[BUFPOOL_CLASSES]);
	out->misses += out->oversize;
	out->heap_bytes = ck_pr_load_64(&pool->heap.bytes);
	out->checked_out += heap_out(&pool->heap);
	out->bytes_checked_out += out->heap_bytes;
	out->peak_checked_out = ck_pr_load_64(&pool->account.bufs.peak);
	out->peak_bytes_checked_out = ck_pr_load_64(&pool->account.bytes.peak);
	if (out->misses > 0)
		return;
	if (out->peak_checked_out > bufs)
		out->peak_checked_out = bufs;
	if (out->peak_bytes_checked_out > bytes)
		out->peak_bytes_checked_out = bytes;
}

/* What is counted in caches, and in the sums of what was; false if another reader
   has meanwhile moved some from here to there. */
static bool add_caches(bufpool_t *pool, bufpool_stats_t *out)
{
	struct sums *sums = &pool->sums;
	unsigned version = ck_pr_load_uint(&sums->version);
	const struct cache *c, *leaving;
	struct walk walk;

	ck_pr_fence_load();
	memset(out, 0, sizeof(*out));
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		add_counts(&sums_of(sums, version)[k], &out->per_class[k]);
	leaving = version % 2 != 0 ? ck_pr_load_ptr(&sums->leaving) : NULL;
	walk = walk_caches(pool, BERTHS_COUNTED);
	while ((c = bp_walk_next(&walk)) != NULL)
		if (c != leaving)
			add_cache(c, out);
	ck_pr_fence_load();
	return ck_pr_load_uint(&sums->version) == version;
}

void bufpool_stats(const bufpool_t *pool, bufpool_stats_t *out)
{
	unsigned tries = 10; /* not for ever */

	if (out == NULL)
		return;
	memset(out, 0, sizeof(*out));
	if (pool == NULL)
		return;
	registry_check();
	bp_cache_fold((bufpool_t *) pool); /* only the sums change */
	while (!add_caches((bufpool_t *) pool, out) && tries-- > 0)
		;
	finish(pool, out);
}

/* -------------------------------------------------------------- printing */

/* One table for all formats; the order is that of the structures. */
struct field {
	const char *name;
	size_t offset;
	bool counts; /* only ever grows: a counter to Prometheus */
	const char *help;
};

#define TOTAL(name, counts, help)                                              \
	{                                                                      \
#name, offsetof(bufpool_stats_t, name), counts, help           \
	}
#define CLASS(name, counts, help)                                              \
	{                                                                      \
#name, offsetof(bufpool_class_stats_t, name), counts, help     \
	}

static const struct field totals[] = {
	TOTAL(hits, true, "Checkouts served from pool memory."),
	TOTAL(misses, true, "Checkouts served by the heap."),
	TOTAL(oversize, true, "Misses above the largest class."),
	TOTAL(checked_out, false, "Buffers out, from the heap too."),
	TOTAL(peak_checked_out, false, "Most buffers out at a time."),
	TOTAL(bytes_checked_out, false, "Capacities of buffers out."),
	TOTAL(peak_bytes_checked_out, false, "Most bytes out at a time."),
	TOTAL(heap_bytes, false, "Capacities of live heap buffers."),
};

static const struct field class_fields[] = {
	CLASS(total, false, "Buffers preallocated."),
	CLASS(idle, false, "Buffers not checked out."),
	CLASS(cached, false, "Idle buffers in thread caches."),
	CLASS(cache_hits, true, "Checkouts served by the thread's cache."),
	CLASS(depot_hits, true, "Checkouts served by the depot."),
	CLASS(stolen, true, "Checkouts served from another thread's cache."),
	CLASS(heap_fallbacks, true, "Checkouts served by the heap."),
	CLASS(checked_out, false, "Pool buffers that are out."),
	CLASS(peak_checked_out, false,
	      "Most buffers out at a time, from the heap too."),
	CLASS(remote_hits, true, "Checkouts served from another NUMA node."),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t value(const void *stats, const struct field *f)
{
	uint64_t v;

	memcpy(&v, (const char *) stats + f->offset, sizeof(v));
	return v;
}

static void print_text(const bufpool_stats_t *s, FILE *stream)
{
	for (size_t i = 0; i < COUNT(totals); i++)
		fprintf(stream, "%-23s %20" PRIu64 "\n", totals[i].name,
		        value(s, &totals[i]));
	fprintf(stream, "\n%-16s", "class");
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		fprintf(stream, " %12s", class_name[k]);
	for (size_t i = 0; i < COUNT(class_fields); i++) {
		fprintf(stream, "\n%-16s", class_fields[i].name);
		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
			fprintf(stream, " %12" PRIu64,
			        value(&s->per_class[k], &class_fields[i]));
	}
	fputc('\n', stream);
}

static void print_json_fields(const void *stats, const struct field *f,
                              size_t n, FILE *stream)
{
	for (size_t i = 0; i < n; i++)
		fprintf(stream, "%s\"%s\": %" PRIu64, i > 0 ? ", " : "",
		        f[i].name, value(stats, &f[i]));
}

static void print_json(const bufpool_stats_t *s, FILE *stream)
{
	fputc('{', stream);
	print_json_fields(s, totals, COUNT(totals), stream);
	fputs(", \"per_class\": [", stream);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		fputs(k > 0 ? ",\n  {" : "\n  {", stream);
		print_json_fields(&s->per_class[k], class_fields,
		                  COUNT(class_fields), stream);
		fputc('}', stream);
	}
	fputs("\n]}\n", stream);
}

/* HELP and TYPE of a metric, and its full name in name. */
static void print_metric(const char *prefix, const struct field *f, char *name,
                         size_t size, FILE *stream)
{
	/* "total" is no counter, whose names end so. */
	snprintf(name, size, "bufpool_%s%s%s", prefix,
	         strcmp(f->name, "total") == 0 ? "buffers" : f->name,
	         f->counts ? "_total" : "");
	fprintf(stream, "# HELP %s %s\n# TYPE %s %s\n", name, f->help, name,
	        f->counts ? "counter" : "gauge");
}

static void print_prometheus(const bufpool_stats_t *s, FILE *stream)
{
	char name[80];

	for (size_t i = 0; i < COUNT(totals); i++) {
		print_metric("", &totals[i], name, sizeof(name), stream);
		fprintf(stream, "%s %" PRIu64 "\n", name, value(s, &totals[i]));
	}
	for (size_t i = 0; i < COUNT(class_fields); i++) {
		print_metric("class_", &class_fields[i], name, sizeof(name),
		             stream);
		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
			fprintf(stream, "%s{class=\"%s\"} %" PRIu64 "\n", name,
			        class_name[k],
			        value(&s->per_class[k], &class_fields[i]));
	}
}

int bufpool_stats_print(const bufpool_t *pool, FILE *stream,
                        enum bufpool_format format)
{
	static void (*const print[])(const bufpool_stats_t *, FILE *) = {
		[BUFPOOL_TEXT] = print_text,
		[BUFPOOL_JSON] = print_json,
		[BUFPOOL_PROMETHEUS] = print_prometheus,
	};
	bufpool_stats_t stats;
	char *text = NULL;
	size_t len = 0;
	int saved = errno, cancel;
	FILE *memory;
	bool ok;

	if (pool == NULL || stream == NULL ||
	    (unsigned) format >= COUNT(print)) {
		errno = EINVAL;
		return -1;
	}
	/* Through memory: one write, of which errno can be told for sure. */
	cancel = cancel_never();
	memory = open_memstream(&text, &len);
	if (memory == NULL) {
		cancel_again(cancel);
		return -1;
	}
	bufpool_stats(pool, &stats);
	print[format](&stats, memory);
	ok = fclose(memory) == 0 && fwrite(text, 1, len, stream) == len &&
	     fflush(stream) == 0;
	if (ok)
		errno = saved;
	saved = errno;
	free(text);
	cancel_again(cancel);
	errno = saved;
	return ok ? 0 : -1;
}
