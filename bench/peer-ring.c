/* SPDX-License-Identifier: MIT */
/* peer-ring.c - the simplest shared pool: a ck_ring with MPMC both ways */
#include <ck_ring.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct source {
	ck_ring_t ring;
	ck_ring_buffer_t *slot;
	char *payload;
	struct job job;
	size_t size;
};

static inline void *get(struct source *s, size_t size)
{
	void *buf;

	(void) size;
	return ck_ring_dequeue_mpmc(&s->ring, s->slot, &buf) ? buf : NULL;
}

static inline void put(struct source *s, void *buf, bool wipe)
{
	if (wipe)
		memset(buf, 0, s->size);
	ck_ring_enqueue_mpmc(&s->ring, s->slot, buf);
}

#include "loops.h"

static bool start(const struct peer *peer, char *version)
{
	(void) peer;
	snprintf(version, TEXT_SIZE, "libck");
	return true;
}

static struct source *open_ring(const struct peer *peer, const struct job *job)
{
	struct source *s = need(1, sizeof(*s));
	size_t count = job_count(job), slots = 2;

	(void) peer;
	while (slots <= count)
		slots *= 2;
	s->job = *job;
	s->size = job->size;
	s->slot = need(slots, sizeof(*s->slot));
	s->payload = map_payload(job);
	ck_ring_init(&s->ring, (unsigned) slots);
	for (size_t i = 0; i < count; i++)
		put(s, s->payload + i * job->size, false);
	return s;
}

static void close_ring(struct source *s)
{
	unmap_payload(s->payload, &s->job);
	free(s->slot);
	free(s);
}

const struct peer peer_ring = { .name = "ck_ring",
	                        .what = "all buffers in a ck_ring, MPMC",
	                        .start = start,
	                        .open = open_ring,
	                        .close = close_ring,
	                        .loops = &loops };
