/* SPDX-License-Identifier: MIT */
/* report.h - what was measured, and what is made of it */
#ifndef REPORT_H
#define REPORT_H

#include "bench.h"

#define MAX_ROUNDS 101

#define P(peer) (1u << (peer)) /* a set of peers */

enum { S4K = 1, S64K = 2, S256K = 4, S1M = 8, SIZES = 4, ANY_SIZE = 15 };

struct size {
	const char *name;
	size_t bytes;
};

extern const struct size sizes[SIZES];

/* A row of the matrix. */
struct kase {
	const char *name, *what, *unit;
	unsigned peers, sizes;
	size_t varies; /* the member of struct job that n is */
	size_t n[6];   /* its values */
	struct job job;
};

/* A case with a size, an n and a peer: one figure, or some that go together. */
struct cell {
	const struct kase *kase;
	unsigned size, peer;
	size_t n;
	char why[TEXT_SIZE]; /* it has no figures; or "" */
	unsigned rounds;
	double value[MAX_VALUES][MAX_ROUNDS];
};

/* What is asked of us: a figure of ours over another is to be below a bar. */
struct target {
	const char *what;
	double bar;
	const char *kase;
	unsigned sizes;
	size_t n;
	unsigned peer, value;
	unsigned
		against; /* the best of these; none: the figure itself counts */
	size_t against_n; /* 0: n */
};

struct results {
	struct cell *cells;
	size_t count;
};

/* The names of what a case yields; NULL after the last. */
const char *value_name(const struct kase *kase, unsigned value);

/* A target is about it. */
bool is_wanted(const struct target *t, const struct cell *cell);

/* Text for people on stdout: a case, and in the end the targets, those too that
   were not measured if also_missing. */
void print_case(const struct results *all, const struct kase *kase);
void print_targets(const struct results *all, const struct target *targets,
                   size_t n, bool also_missing);

/* All of a run, as a table for programs. */
void write_results(FILE *to, const struct results *all);

/* What machine this is: prints lines that begin with prefix. */
void print_machine(FILE *to, const char *prefix);

#endif
