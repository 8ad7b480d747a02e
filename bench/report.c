/* SPDX-License-Identifier: MIT */
/* report.c - medians, ratios, tables */
#include "report.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#if defined(__clang__)
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

/* --------------------------------------------------------------- statistics */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Of n > 0 values: what a share of them is not above, between two if need be. */
static double quantile(const double *values, unsigned n, double share)
{
	double sorted[MAX_ROUNDS], at = share * (n - 1);
	unsigned i = (unsigned) at;

	memcpy(sorted, values, n * sizeof(*values));
	qsort(sorted, n, sizeof(*sorted), by_value);
	if (i + 1 >= n)
		return sorted[n - 1];
	return sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]);
}

static double median(const struct cell *cell, unsigned value)
{
	return quantile(cell->value[value], cell->rounds, .5);
}

/*
 * How a is to b: each round's ratio, and of these the median.  What else the
 * machine did in a round has hit both.
 */
static double ratio(const struct cell *a, const struct cell *b, unsigned value)
{
	unsigned n = a->rounds < b->rounds ? a->rounds : b->rounds;
	double ratios[MAX_ROUNDS];

	for (unsigned i = 0; i < n; i++)
		ratios[i] = a->value[value][i] / b->value[value][i];
	return quantile(ratios, n, .5);
}

/* ------------------------------------------------------------------- values */

const char *value_name(const struct kase *kase, unsigned value)
{
	static const char *const latency[MAX_VALUES] = { "p50",    "p90",
		                                         "p99",    "p99.9",
		                                         "p99.99", "max" };
	static const char *const create[MAX_VALUES] = { "create", "destroy" };
	static const char *const memory[MAX_VALUES] = { "memory" };
	static const char *const demo[MAX_VALUES] = { "time", "CPU" };
	static const char *const time[MAX_VALUES] = { "time" };

	if (value >= MAX_VALUES)
		return NULL;
	switch (kase->job.shape) {
	case LATENCY:
		return latency[value];
	case CREATE:
		return create[value];
	case MEMORY:
		return memory[value];
	case DEMO:
		return demo[value];
	default:
		return time[value];
	}
}

/* The cell that differs from this one in its peer only, and has figures. */
static const struct cell *beside(const struct results *all,
                                 const struct cell *cell, unsigned peer)
{
	for (size_t i = 0; i < all->count; i++) {
		const struct cell *c = &all->cells[i];

		if (c->kase == cell->kase && c->size == cell->size &&
		    c->n == cell->n && c->peer == peer && c->rounds > 0)
			return c;
	}
	return NULL;
}

/* The first of a case's peers, which the others are compared with. */
static const struct cell *ours(const struct results *all,
                               const struct cell *cell)
{
	for (unsigned peer = 0; peer < PEERS; peer++)
		if (cell->kase->peers & P(peer))
			return beside(all, cell, peer);
	return NULL;
}

static void print_row(const struct results *all, const struct cell *cell,
                      unsigned value)
{
	const struct cell *base = ours(all, cell);
	const double *values = cell->value[value];

	printf("  %-5s %8zu  %-16s %-7s %11.4g %11.4g %11.4g",
	       sizes[cell->size].name, cell->n, peers[cell->peer]->name,
	       value_name(cell->kase, value), median(cell, value),
	       quantile(values, cell->rounds, .25),
	       quantile(values, cell->rounds, .75));
	if (base != NULL)
		printf(" %8.3f", ratio(base, cell, value));
	putchar('\n');
}

void print_case(const struct results *all, const struct kase *kase)
{
	printf("\n%s: %s, %s\n  %-5s %8s  %-16s %-7s %11s %11s %11s %8s\n",
	       kase->name, kase->what, kase->unit, "size", "n", "peer", "",
	       "median", "quartile", "quartile", "ours/it");
	for (size_t i = 0; i < all->count; i++) {
		const struct cell *cell = &all->cells[i];

		if (cell->kase != kase)
			continue;
		if (cell->why[0] != '\0')
			printf("  %-5s %8zu  %-16s %s\n",
			       sizes[cell->size].name, cell->n,
			       peers[cell->peer]->name, cell->why);
		for (unsigned v = 0; cell->rounds > 0 && value_name(kase, v);
		     v++)
			print_row(all, cell, v);
	}
	fflush(stdout);
}

void write_results(FILE *to, const struct results *all)
{
	fprintf(to, "case\tsize\tn\tpeer\tvalue\tunit\tmedian\tq1\tq3\tmin\t"
	            "max\trounds\tours/it\n");
	for (size_t i = 0; i < all->count; i++) {
		const struct cell *cell = &all->cells[i];
		const struct cell *base = ours(all, cell);

		for (unsigned v = 0;
		     cell->rounds > 0 && value_name(cell->kase, v); v++) {
			fprintf(to, "%s\t%zu\t%zu\t%s\t%s\t%s",
			        cell->kase->name, sizes[cell->size].bytes,
			        cell->n, peers[cell->peer]->name,
			        value_name(cell->kase, v), cell->kase->unit);
			for (int q = 0; q < 5; q++) {
				static const double share[] = { .5, .25, .75, 0,
					                        1 };

				fprintf(to, "\t%.6g",
				        quantile(cell->value[v], cell->rounds,
				                 share[q]));
			}
			fprintf(to, "\t%u\t%.4g\n", cell->rounds,
			        base != NULL ? ratio(base, cell, v) : NAN);
		}
	}
}

/* ------------------------------------------------------------------ targets */

static bool is_of(const struct target *t, const struct cell *cell)
{
	return strcmp(cell->kase->name, t->kase) == 0 &&
	       (t->sizes & 1u << cell->size) != 0;
}

static bool is_ours(const struct target *t, const struct cell *cell)
{
	return is_of(t, cell) && cell->peer == t->peer && cell->n == t->n;
}

static bool is_theirs(const struct target *t, const struct cell *cell)
{
	return is_of(t, cell) && (t->against & P(cell->peer)) != 0 &&
	       cell->n == (t->against_n != 0 ? t->against_n : t->n);
}

bool is_wanted(const struct target *t, const struct cell *cell)
{
	return is_ours(t, cell) || is_theirs(t, cell);
}

/* The best of those that a target compares with, for ours; or NULL. */
static const struct cell *rival(const struct results *all,
                                const struct target *t, const struct cell *cell)
{
	const struct cell *best = NULL;

	for (size_t i = 0; i < all->count; i++) {
		const struct cell *c = &all->cells[i];

		if (c->size != cell->size || !is_theirs(t, c) || c->rounds == 0)
			continue;
		if (best == NULL ||
		    median(c, t->value) < median(best, t->value))
			best = c;
	}
	return best;
}

static void print_verdict(const struct target *t, const char *size,
                          const char *against, double measured)
{
	printf("  %-64s %-5s %-12s %7.2f", t->what, size, against, t->bar);
	if (isnan(measured))
		printf(" %9s  -\n", "-");
	else
		printf(" %9.3f  %s\n", measured,
		       measured <= t->bar ? "yes" : "NO");
}

static void print_target(const struct results *all, const struct target *t,
                         bool also_missing)
{
	bool any = false;

	for (size_t i = 0; i < all->count; i++) {
		const struct cell *cell = &all->cells[i], *other = NULL;
		double measured = NAN;

		if (!is_ours(t, cell) || cell->rounds == 0)
			continue;
		if (t->against == 0)
			measured = median(cell, t->value);
		else if ((other = rival(all, t, cell)) != NULL)
			measured = ratio(cell, other, t->value);
		print_verdict(t, sizes[cell->size].name,
		              other != NULL ? peers[other->peer]->name : "",
		              measured);
		any = true;
	}
	if (!any && also_missing)
		print_verdict(t, "", "", NAN);
}

void print_targets(const struct results *all, const struct target *targets,
                   size_t n, bool also_missing)
{
	printf("\nWhat is asked of us, as ratios unless a unit is named (-: not"
	       " measured)\n  %-64s %-5s %-12s %7s %9s  %s\n",
	       "what", "size", "against", "bar", "measured", "met?");
	for (size_t i = 0; i < n; i++)
		print_target(all, &targets[i], also_missing);
}

/* -------------------------------------------------------------- the machine */

/* What follows the first "KEY...: " in a file of /proc. */
static void print_line_of(FILE *to, const char *prefix, const char *path,
                          const char *key)
{
	FILE *file = fopen(path, "r");
	char line[256];

	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file) != NULL) {
		const char *value = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) != 0 || value == NULL)
			continue;
		fprintf(to, "%s%s\t%s", prefix, key,
		        value + 1 + strspn(value + 1, " \t"));
		break;
	}
	fclose(file);
}

void print_machine(FILE *to, const char *prefix)
{
	time_t now = time(NULL);
	struct utsname system;
	double load[1] = { 0 };
	cpu_set_t cpus;
	char date[40];

	uname(&system);
	sched_getaffinity(0, sizeof(cpus), &cpus);
	getloadavg(load, 1);
	strftime(date, sizeof(date), "%Y-%m-%d %H:%M %z", localtime(&now));
	fprintf(to, "%sdate\t%s\n", prefix, date);
	print_line_of(to, prefix, "/proc/cpuinfo", "model name");
	fprintf(to, "%sCPUs\t%d\n", prefix, CPU_COUNT(&cpus));
	print_line_of(to, prefix, "/proc/meminfo", "MemTotal");
	fprintf(to, "%skernel\t%s %s %s\n", prefix, system.sysname,
	        system.release, system.machine);
	fprintf(to, "%scompiler\t%s\n", prefix, COMPILER);
	fprintf(to, "%sload before\t%.2f\n", prefix, load[0]);
}
