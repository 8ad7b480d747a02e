/* SPDX-License-Identifier: MIT */
/*
 * peer-floor.c - the least that a pool with our interface can do: one stack of
 * descriptors, behind two calls that find it through the thread, and check and
 * mark what they pass on
 *
 * No statistics, nothing for other threads to take, none of the checks of what
 * an owner must not change, and not in a shared library.  What this costs above an
 * inlined pop and push of a bare pointer is the interface's.
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct descriptor {
	void *data;
	size_t len, capacity;
	struct source *home;
	uint32_t state;
} __attribute__((aligned(64)));

enum { IN = 0x1234, OUT };

struct source {
	struct descriptor *all, **stack;
	size_t n, size;
	char *payload;
	struct job job;
};

/* The last one used. */
static __thread struct source *mine;

static inline struct source *find(struct source *s)
{
	if (__builtin_expect(s != mine, 0))
		mine = s;
	return mine;
}

static inline struct descriptor *pop(struct source *s, size_t len)
{
	struct descriptor *d = s->stack[--s->n];

	if (d->state != IN)
		abort();
	d->state = OUT;
	d->len = len;
	return d;
}

static inline void push(struct source *s, struct descriptor *d)
{
	if (d->state != OUT)
		abort();
	d->state = IN;
	s->stack[s->n++] = d;
}

static __attribute__((noinline)) void *take(struct source *s, size_t len)
{
	s = find(s);
	return len > s->size || s->n == 0 ? NULL : pop(s, len);
}

static __attribute__((noinline)) void give(struct descriptor *d)
{
	push(find(d->home), d);
}

static __attribute__((noinline)) bool take_bulk(struct source *s, size_t len,
                                                void **bufs, size_t n)
{
	s = find(s);
	if (len > s->size || s->n < n)
		return false;
	for (size_t i = 0; i < n; i++)
		bufs[i] = pop(s, len);
	return true;
}

static __attribute__((noinline)) void give_bulk(void **bufs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct descriptor *d = bufs[i];

		push(find(d->home), d);
	}
}

static inline void *get(struct source *s, size_t size)
{
	return take(s, size);
}

static inline void put(struct source *s, void *buf, bool wipe)
{
	if (wipe)
		memset(((struct descriptor *) buf)->data, 0, s->size);
	give(buf);
}

#define get_bulk get_bulk
static inline bool get_bulk(struct source *s, size_t size, void **bufs,
                            size_t n)
{
	return take_bulk(s, size, bufs, n);
}

#define put_bulk put_bulk
static inline void put_bulk(struct source *s, void **bufs, size_t n, bool wipe)
{
	(void) s;
	(void) wipe; /* no case wipes in bulk */
	give_bulk(bufs, n);
}

#include "loops.h"

static struct source *open_floor(const struct peer *peer, const struct job *job)
{
	size_t count = job_count(job);
	struct source *s = need(1, sizeof(*s));

	(void) peer;
	s->job = *job;
	s->size = job->size;
	s->payload = map_payload(job);
	s->stack = need(count, sizeof(s->stack[0]));
	s->all = aligned_alloc(64, count * sizeof(s->all[0]));
	if (s->all == NULL)
		die("out of memory");
	while (s->n < count) {
		struct descriptor *d = &s->all[s->n];

		*d = (struct descriptor){ .data = s->payload + s->n * job->size,
			                  .capacity = job->size,
			                  .home = s,
			                  .state = IN };
		s->stack[s->n++] = d;
	}
	return s;
}

static void close_floor(struct source *s)
{
	unmap_payload(s->payload, &s->job);
	free(s->all);
	free(s->stack);
	free(s);
}

static bool start(const struct peer *peer, char *version)
{
	(void) peer;
	snprintf(version, TEXT_SIZE, "two calls");
	return true;
}

const struct peer peer_floor = {
	.name = "floor",
	.what = "a stack of descriptors of one thread, checked and marked",
	.start = start,
	.open = open_floor,
	.close = close_floor,
	.loops = &loops
};
