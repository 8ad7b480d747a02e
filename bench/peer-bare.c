/* SPDX-License-Identifier: MIT */
/*
 * peer-bare.c - no pool at all, always the same buffer: what is left is the
 * cost of the loop, of the queue, of the clock, of the wipe alone, or of
 * mapping as much memory
 *
 * Wiped by memset ("bare"), or by a plain loop of the widest stores that the
 * CPU has ("stores").
 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct source {
	void (*wipe)(void *buf, size_t size);
	char *payload;
	struct job job;
	size_t size;
};

static inline void *get(struct source *s)
{
	return s->payload;
}

static inline void put(struct source *s, void *buf, bool wipe)
{
	if (wipe)
		s->wipe(buf, s->size);
}

#include "loops.h"

static void wipe_memset(void *buf, size_t size)
{
	memset(buf, 0, size);
	escape(buf);
}

/* The barrier keeps the compiler from making a memset of it. */
#define STORES(name, type)                                                     \
	static void name(void *buf, size_t size)                               \
	{                                                                      \
		char *end = (char *) buf + size;                               \
                                                                               \
		for (char *at = buf; at < end; at += 4 * sizeof(type)) {       \
			type *to = (void *) at;                                \
                                                                               \
			to[0] = to[1] = to[2] = to[3] = (type){ 0 };           \
			__asm__ __volatile__("" : : : "memory");               \
		}                                                              \
	}

typedef uint64_t v16 __attribute__((vector_size(16)));
STORES(wipe_stores, v16)

#if defined(__x86_64__)
typedef uint64_t v32 __attribute__((vector_size(32)));
__attribute__((target("avx"))) STORES(wipe_avx, v32)
#endif

	static bool start(const struct peer *peer, char *version)
{
	const char *wipe = "memset";

	if (peer == &peer_stores)
		wipe = "16 bytes each";
#if defined(__x86_64__)
	if (peer == &peer_stores && __builtin_cpu_supports("avx"))
		wipe = "32 bytes each";
#endif
	snprintf(version, TEXT_SIZE, "%s", wipe);
	return true;
}

static struct source *open_bare(const struct peer *peer, const struct job *job)
{
	struct source *s = need(1, sizeof(*s));

	s->job = *job;
	s->size = job->size;
	s->payload = map_payload(job);
	s->wipe = wipe_memset;
	if (peer == &peer_stores)
		s->wipe = wipe_stores;
#if defined(__x86_64__)
	if (peer == &peer_stores && __builtin_cpu_supports("avx"))
		s->wipe = wipe_avx;
#endif
	return s;
}

static void close_bare(struct source *s)
{
	unmap_payload(s->payload, &s->job);
	free(s);
}

#define PEER                                                                   \
	.start = start, .open = open_bare, .close = close_bare, .loops = &loops

const struct peer peer_bare = {
	.name = "bare",
	.what = "one buffer, no pool: the loop, the queue, the clock, memset, "
		"mmap alone",
	PEER
};
const struct peer peer_stores = {
	.name = "stores",
	.what = "the same, wiped by a loop of wide stores",
	PEER
};
