/* SPDX-License-Identifier: MIT */
/*
 * peer-malloc.c - malloc and free: the process's, whatever was preloaded
 *
 * To wipe is memset, then free; the compiler must not see that nobody reads
 * what the memset wrote.
 */
#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct source {
	size_t size;
};

static inline void *get(struct source *s, size_t size)
{
	(void) s;
	return malloc(size);
}

static inline void put(struct source *s, void *buf, bool wipe)
{
	if (wipe) {
		memset(buf, 0, s->size);
		__asm__ __volatile__("" : : "r"(buf) : "memory");
	}
	free(buf);
}

#include "loops.h"

static struct source *open_malloc(const struct peer *peer,
                                  const struct job *job)
{
	struct source *s = need(1, sizeof(*s));

	(void) peer;
	s->size = job->size;
	return s;
}

static void close_malloc(struct source *s)
{
	free(s);
}

#define PEER                                                                   \
	.endless = true, .open = open_malloc, .close = close_malloc,           \
	.loops = &loops

static bool start_glibc(const struct peer *peer, char *version)
{
	(void) peer;
	snprintf(version, TEXT_SIZE, "%s", gnu_get_libc_version());
	return true;
}

/* Something that only this library has: is it malloc's owner? */
static void *symbol(const struct peer *peer, const char *name, char *version)
{
	void *sym = dlsym(RTLD_DEFAULT, name);

	if (sym == NULL)
		snprintf(version, TEXT_SIZE, "no %s found", peer->preload);
	return sym;
}

static bool start_jemalloc(const struct peer *peer, char *version)
{
	int (*mallctl)(const char *, void *, size_t *, void *, size_t);
	const char *text = "";
	size_t size = sizeof(text);

	*(void **) &mallctl = symbol(peer, "mallctl", version);
	if (mallctl == NULL)
		return false;
	mallctl("version", (void *) &text, &size, NULL, 0);
	snprintf(version, TEXT_SIZE, "%.20s", text);
	return true;
}

static bool start_mimalloc(const struct peer *peer, char *version)
{
	int (*mi_version)(void);

	*(void **) &mi_version = symbol(peer, "mi_version", version);
	if (mi_version == NULL)
		return false;
	/* 209 is 2.0.9. */
	snprintf(version, TEXT_SIZE, "%d.%d.%d", mi_version() / 100,
	         mi_version() / 10 % 10, mi_version() % 10);
	return true;
}

static bool start_tcmalloc(const struct peer *peer, char *version)
{
	const char *(*tc_version)(int *, int *, const char **);
	int major = 0, minor = 0;
	const char *patch = "";

	*(void **) &tc_version = symbol(peer, "tc_version", version);
	if (tc_version == NULL)
		return false;
	tc_version(&major, &minor, &patch);
	snprintf(version, TEXT_SIZE, "%d.%d%s (gperftools)", major, minor,
	         patch);
	return true;
}

const struct peer peer_glibc = {
	.name = "glibc", .what = "glibc's malloc", .start = start_glibc, PEER
};
const struct peer peer_jemalloc = { .name = "jemalloc",
	                            .what = "jemalloc, preloaded",
	                            .preload = "libjemalloc.so.2",
	                            .start = start_jemalloc,
	                            PEER };
const struct peer peer_mimalloc = { .name = "mimalloc",
	                            .what = "mimalloc, preloaded",
	                            .preload = "libmimalloc.so.2",
	                            .start = start_mimalloc,
	                            PEER };
const struct peer peer_tcmalloc = { .name = "tcmalloc",
	                            .what = "tcmalloc (minimal), preloaded",
	                            .preload = "libtcmalloc_minimal.so.4",
	                            .start = start_tcmalloc,
	                            PEER };
