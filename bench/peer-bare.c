/* SPDX-License-Identifier: MIT */
/*
 * peer-bare.c - no pool at all, always the same buffer: what is left is the
 * cost of the loop, of the queue, of the clock, of the wipe alone, or of
 * mapping as much memory
 *
 * Wiped by memset ("bare"), by a plain loop of stores of 32 or of 64 bytes each
 * ("stores-32", "stores-64"; narrower ones where the CPU has none such), or by
 * rep stosb ("stosb"; where that is unknown, by stores).
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

static inline void *get(struct source *s, size_t size)
{
	(void) size;
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

/* clang-format off */
typedef uint64_t v16 __attribute__((vector_size(16)));
STORES(wipe_16, v16)
#if defined(__x86_64__)
typedef uint64_t v32 __attribute__((vector_size(32)));
typedef uint64_t v64 __attribute__((vector_size(64)));
__attribute__((target("avx"))) STORES(wipe_32, v32)
__attribute__((target("avx512f"))) STORES(wipe_64, v64)
#endif
/* clang-format on */

#if defined(__x86_64__)
		static void wipe_stosb(void *buf, size_t size)
{
	__asm__ __volatile__("rep stosb"
	                     : "+D"(buf), "+c"(size)
	                     : "a"(0)
	                     : "memory");
}
#endif

struct way {
	const char *text;
	void (*wipe)(void *buf, size_t size);
};

/* What a peer is for, or what this CPU has that is nearest. */
static struct way way_of(const struct peer *peer)
{
	if (peer == &peer_bare)
		return (struct way){ "memset", wipe_memset };
#if defined(__x86_64__)
	if (peer == &peer_stosb)
		return (struct way){ "rep stosb", wipe_stosb };
	if (peer == &peer_stores_64 && __builtin_cpu_supports("avx512f"))
		return (struct way){ "64 bytes each", wipe_64 };
	if (__builtin_cpu_supports("avx"))
		return (struct way){ "32 bytes each", wipe_32 };
#endif
	return (struct way){ "16 bytes each", wipe_16 };
}

static bool start(const struct peer *peer, char *version)
{
	snprintf(version, TEXT_SIZE, "%s", way_of(peer).text);
	return true;
}

static struct source *open_bare(const struct peer *peer, const struct job *job)
{
	struct source *s = need(1, sizeof(*s));

	s->job = *job;
	s->size = job->size;
	s->payload = map_payload(job);
	s->wipe = way_of(peer).wipe;
	return s;
}

static void close_bare(struct source *s)
{
	unmap_payload(s->payload, &s->job);
	free(s);
}

#define PEER                                                                   \
	.endless = true, .start = start, .open = open_bare,                    \
	.close = close_bare, .loops = &loops

const struct peer peer_bare = {
	.name = "bare",
	.what = "one buffer, no pool: the loop, the queue, the clock, memset, "
		"mmap alone",
	PEER
};
const struct peer peer_stores_32 = {
	.name = "stores-32",
	.what = "the same, wiped by a loop of 32-byte stores",
	PEER
};
const struct peer peer_stores_64 = {
	.name = "stores-64",
	.what = "the same, wiped by a loop of 64-byte stores",
	PEER
};
const struct peer peer_stosb = { .name = "stosb",
	                         .what = "the same, wiped by rep stosb",
	                         PEER };
