/* SPDX-License-Identifier: MIT */
/* print.c - print the statistics, of one pool or of all */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cancel.h"
#include "life.h"
#include "registry.h"

/* ---------------------------------------------------- what is to be printed */

/* A pool as it was found. */
struct shown {
	bufpool_stats_t stats;
	uint64_t id;
	char name[NAME_ROOM];
	bool twin; /* another has the same name */
};

struct list {
	struct shown *pool; /* by name, then by id */
	size_t n, room;
	bool all; /* of the process, or just one */
};

static bool make_room(struct list *list)
{
	size_t room = list->room > 0 ? 2 * list->room : 1;
	struct shown *more;

	if (list->n < list->room)
		return true;
	more = realloc(list->pool, room * sizeof(*more));
	if (more == NULL)
		return false;
	list->pool = more;
	list->room = room;
	return true;
}

/* There is room. */
static void add(struct list *list, const bufpool_t *pool)
{
	struct shown *shown = &list->pool[list->n++];

	bufpool_stats(pool, &shown->stats);
	shown->id = pool->id;
	memcpy(shown->name, pool->name, sizeof(shown->name));
	shown->twin = false;
}

static int by_name(const void *a, const void *b)
{
	const struct shown *x = a, *y = b;
	int order = strverscmp(x->name, y->name);

	return order != 0 ? order : (x->id > y->id) - (x->id < y->id);
}

static void sort(struct list *list)
{
	struct shown *pool = list->pool;

	qsort(pool, list->n, sizeof(*pool), by_name);
	for (size_t i = 1; i < list->n; i++)
		if (strcmp(pool[i - 1].name, pool[i].name) == 0)
			pool[i - 1].twin = pool[i].twin = true;
}

/* Each pool is kept for as long as it takes to read it, and nothing else is done
   meanwhile. */
static bool gather_all(struct list *list)
{
	struct reading at = { 0 };
	bufpool_t *pool;

	list->all = true;
	for (;;) {
		if (!make_room(list))
			return false;
		pool = bp_registry_next(&at);
		if (pool == NULL)
			break;
		add(list, pool);
		if (ck_pr_load_uint(&pool->closing))
			list->n--;
		bp_pool_let_go(pool);
	}
	sort(list);
	return true;
}

static bool gather(struct list *list, const bufpool_t *pool)
{
	if (pool == NULL)
		return gather_all(list);
	if (!make_room(list))
		return false;
	add(list, pool);
	return true;
}

/* -------------------------------------------------------------- the figures */

enum kind {
	GAUGE,
	COUNTER, /* only ever grows */
	TIME     /* likewise, in ns; Prometheus has seconds */
};

/* One table for all formats; the order is that of the structures. */
struct field {
	const char *name;
	const char *metric; /* what Prometheus is told */
	size_t offset;
	enum kind kind;
	const char *help;
};

#define FIELD(type, name, metric, kind, help)                                  \
	{                                                                      \
#name, #metric, offsetof(type, name), kind, help               \
	}
#define TOTAL(name, kind, help) FIELD(bufpool_stats_t, name, name, kind, help)
#define CLASS(name, metric, kind, help)                                        \
	FIELD(bufpool_class_stats_t, name, class_##metric, kind, help)

static const struct field totals[] = {
	TOTAL(hits, COUNTER, "Checkouts served from pool memory."),
	TOTAL(misses, COUNTER, "Checkouts served by the heap."),
	TOTAL(oversize, COUNTER, "Misses above the largest class."),
	TOTAL(checked_out, GAUGE, "Buffers out, from the heap too."),
	TOTAL(peak_checked_out, GAUGE, "Most buffers out at a time."),
	TOTAL(bytes_checked_out, GAUGE, "Capacities of buffers out."),
	TOTAL(peak_bytes_checked_out, GAUGE, "Most bytes out at a time."),
	TOTAL(heap_bytes, GAUGE, "Capacities of live heap buffers."),
};

static const struct field class_fields[] = {
	/* "total" is no counter, whose names end so. */
	CLASS(total, buffers, GAUGE, "Buffers preallocated."),
	CLASS(idle, idle, GAUGE, "Buffers not checked out."),
	CLASS(cached, cached, GAUGE, "Idle buffers in thread caches."),
	CLASS(cache_hits, cache_hits, COUNTER,
	      "Checkouts served by the thread's cache."),
	CLASS(depot_hits, depot_hits, COUNTER, "Checkouts served by the depot."),
	CLASS(stolen, stolen, COUNTER,
	      "Checkouts served from another thread's cache."),
	CLASS(heap_fallbacks, heap_fallbacks, COUNTER,
	      "Checkouts served by the heap."),
	CLASS(checked_out, checked_out, GAUGE, "Pool buffers that are out."),
	CLASS(peak_checked_out, peak_checked_out, GAUGE,
	      "Most buffers out at a time, from the heap too."),
	CLASS(remote_hits, remote_hits, COUNTER,
	      "Checkouts served from another NUMA node."),
	CLASS(exhausted, exhausted, COUNTER, "Checkouts that got no buffer."),
	CLASS(waits, waits, COUNTER, "Checkouts that slept for a buffer."),
	CLASS(wait_ns, wait_seconds, TIME, "How long they slept."),
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t value(const void *stats, const struct field *f)
{
	uint64_t v;

	memcpy(&v, (const char *) stats + f->offset, sizeof(v));
	return v;
}

/* --------------------------------------------------------------------- text */

#define NAME_TEXT (QUOTED_ROOM + 24)

static int text_name(char out[NAME_TEXT], const struct shown *p)
{
	char name[QUOTED_ROOM], id[24] = "";

	bp_name_quote(name, p->name);
	if (p->twin)
		snprintf(id, sizeof(id), " #%" PRIu64, p->id);
	return snprintf(out, NAME_TEXT, "%s%s", name, id);
}

static void print_advice(const struct shown *p, FILE *stream)
{
	char name[NAME_TEXT];

	text_name(name, p);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		const bufpool_class_stats_t *class = &p->stats.per_class[k];

		/* Else it was for an alignment that the class has not. */
		if (class->heap_fallbacks == 0 ||
		    class->peak_checked_out <= class->total)
			continue;
		fprintf(stream,
		        "%s: class %s went to the heap %" PRIu64
		        " times: set count[%s] to %s%" PRIu64 ", its peak\n",
		        name, class_name[k], class->heap_fallbacks,
		        class_symbol[k], class->exhausted > 0 ? "at least " : "",
		        class->peak_checked_out);
	}
}

static void print_one(const struct shown *p, FILE *stream)
{
	char name[NAME_TEXT];

	text_name(name, p);
	fprintf(stream, "%-23s %20s\n", "name", name);
	for (size_t i = 0; i < COUNT(totals); i++)
		fprintf(stream, "%-23s %20" PRIu64 "\n", totals[i].name,
		        value(&p->stats, &totals[i]));
	fprintf(stream, "\n%-16s", "class");
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		fprintf(stream, " %12s", class_name[k]);
	for (size_t i = 0; i < COUNT(class_fields); i++) {
		fprintf(stream, "\n%-16s", class_fields[i].name);
		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
			fprintf(stream, " %12" PRIu64,
			        value(&p->stats.per_class[k], &class_fields[i]));
	}
	fputc('\n', stream);
}

/* As wide as what stands above it, or a number of usual size. */
static int column_width(const struct field *f)
{
	int len = (int) strlen(f->name);

	return len > 10 ? len : 10;
}

/* If there is anything to say of the class. */
static bool print_row(const char *pool, int width, const char *class,
                      const bufpool_class_stats_t *stats, FILE *stream)
{
	static const bufpool_class_stats_t nothing;

	if (memcmp(stats, &nothing, sizeof(nothing)) == 0)
		return false;
	fprintf(stream, "%-*s %-8s", width, pool, class);
	for (size_t i = 0; i < COUNT(class_fields); i++)
		fprintf(stream, " %*" PRIu64, column_width(&class_fields[i]),
		        value(stats, &class_fields[i]));
	fputc('\n', stream);
	return true;
}

static void print_rows(const struct shown *p, int width, FILE *stream)
{
	const bufpool_class_stats_t larger = {
		.heap_fallbacks = p->stats.oversize,
	};
	char name[NAME_TEXT];
	bool any = false;

	text_name(name, p);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		any |= print_row(name, width, class_name[k],
		                 &p->stats.per_class[k], stream);
	any |= print_row(name, width, "larger", &larger, stream);
	if (!any)
		fprintf(stream, "%-*s -\n", width, name);
}

static void print_all(const struct list *list, FILE *stream)
{
	int width = (int) strlen("pool");
	char name[NAME_TEXT];

	for (size_t i = 0; i < list->n; i++) {
		int len = text_name(name, &list->pool[i]);

		width = len > width ? len : width;
	}
	fprintf(stream, "%-*s %-8s", width, "pool", "class");
	for (size_t i = 0; i < COUNT(class_fields); i++)
		fprintf(stream, " %*s", column_width(&class_fields[i]),
		        class_fields[i].name);
	fputc('\n', stream);
	for (size_t i = 0; i < list->n; i++)
		print_rows(&list->pool[i], width, stream);
}

static void print_text(const struct list *list, FILE *stream)
{
	if (list->all)
		print_all(list, stream);
	else
		print_one(list->pool, stream);
	for (size_t i = 0; i < list->n; i++)
		print_advice(&list->pool[i], stream);
}

/* --------------------------------------------------------------------- JSON */

static void print_json_fields(const void *stats, const struct field *f,
                              size_t n, FILE *stream)
{
	for (size_t i = 0; i < n; i++)
		fprintf(stream, ", \"%s\": %" PRIu64, f[i].name,
		        value(stats, &f[i]));
}

static void print_json_pool(const struct shown *p, FILE *stream)
{
	char name[QUOTED_ROOM];

	bp_name_quote(name, p->name);
	fprintf(stream, "{\"name\": \"%s\", \"id\": %" PRIu64, name, p->id);
	print_json_fields(&p->stats, totals, COUNT(totals), stream);
	fputs(", \"per_class\": [", stream);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		fprintf(stream, "%s\n  {\"name\": \"%s\", \"size\": %zu",
		        k > 0 ? "," : "", class_name[k], class_size[k]);
		print_json_fields(&p->stats.per_class[k], class_fields,
		                  COUNT(class_fields), stream);
		fputc('}', stream);
	}
	fputs("\n]}", stream);
}

static void print_json(const struct list *list, FILE *stream)
{
	if (list->all)
		fputc('[', stream);
	for (size_t i = 0; i < list->n; i++) {
		if (i > 0)
			fputs(",\n", stream);
		print_json_pool(&list->pool[i], stream);
	}
	fputs(list->all ? "]\n" : "\n", stream);
}

/* --------------------------------------------------------------- Prometheus */

static void print_help(const struct field *f, FILE *stream)
{
	const char *total = f->kind != GAUGE ? "_total" : "";

	fprintf(stream, "# HELP bufpool_%s%s %s\n# TYPE bufpool_%s%s %s\n",
	        f->metric, total, f->help, f->metric, total,
	        f->kind != GAUGE ? "counter" : "gauge");
}

/* k: which class; none where there are no more. */
static void print_sample(const struct shown *p, unsigned k,
                         const struct field *f, FILE *stream)
{
	bool is_class = k < BUFPOOL_CLASSES;
	uint64_t v = value(is_class ? (const void *) &p->stats.per_class[k]
	                            : &p->stats,
	                   f);
	char name[QUOTED_ROOM];

	bp_name_quote_label(name, p->name);
	fprintf(stream, "bufpool_%s%s{pool=\"%s\"", f->metric,
	        f->kind != GAUGE ? "_total" : "", name);
	if (p->twin)
		fprintf(stream, ",id=\"%" PRIu64 "\"", p->id);
	if (is_class)
		fprintf(stream, ",class=\"%s\",size=\"%zu\"", class_name[k],
		        class_size[k]);
	if (f->kind == TIME)
		fprintf(stream, "} %" PRIu64 ".%09" PRIu64 "\n",
		        v / 1000000000, v % 1000000000);
	else
		fprintf(stream, "} %" PRIu64 "\n", v);
}

static void print_prometheus(const struct list *list, FILE *stream)
{
	for (size_t i = 0; i < COUNT(totals); i++) {
		print_help(&totals[i], stream);
		for (size_t p = 0; p < list->n; p++)
			print_sample(&list->pool[p], BUFPOOL_CLASSES,
			             &totals[i], stream);
	}
	for (size_t i = 0; i < COUNT(class_fields); i++) {
		print_help(&class_fields[i], stream);
		for (size_t p = 0; p < list->n; p++)
			for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
				print_sample(&list->pool[p], k,
				             &class_fields[i], stream);
	}
}

/* ----------------------------------------------------------------- the call */

/* Through memory: one write, of which errno can be told for sure. */
static bool print_list(const struct list *list, FILE *stream,
                       enum bufpool_format format)
{
	static void (*const print[])(const struct list *, FILE *) = {
		[BUFPOOL_TEXT] = print_text,
		[BUFPOOL_JSON] = print_json,
		[BUFPOOL_PROMETHEUS] = print_prometheus,
	};
	char *text = NULL;
	size_t len = 0;
	FILE *memory = open_memstream(&text, &len);
	int error;
	bool ok;

	if (memory == NULL)
		return false;
	print[format](list, memory);
	ok = fclose(memory) == 0 && fwrite(text, 1, len, stream) == len &&
	     fflush(stream) == 0;
	error = errno;
	free(text);
	errno = error;
	return ok;
}

int bufpool_stats_print(const bufpool_t *pool, FILE *stream,
                        enum bufpool_format format)
{
	struct list list = { 0 };
	int saved = errno, error, cancel;
	bool ok;

	if (stream == NULL || (unsigned) format > BUFPOOL_PROMETHEUS) {
		errno = EINVAL;
		return -1;
	}
	cancel = cancel_never();
	ok = gather(&list, pool) && print_list(&list, stream, format);
	error = errno;
	free(list.pool);
	cancel_again(cancel);
	errno = ok ? saved : error;
	return ok ? 0 : -1;
}
