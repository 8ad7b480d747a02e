/* SPDX-License-Identifier: MIT */
#include "thread.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "life.h"
#include "registry.h"

/* Stands where a thread has used no pool yet; no pool has id 0. */
static struct cache nobody = {
	.fast = { .pool = BP_NO_POOL,
	          .special = BP_NO_POOL,
	          .local = BP_NO_POOL,
	          .cpu_at = &no_cpu }
};

/* The cache that was used last is shown to programs, see bufpool/inline.h. */
__thread struct bp_fast *bp_thread_fast = &nobody.fast;

#ifdef TRACKED
/* And what they see then; see buf.h. */
#pragma pop_macro("bp_thread_fast")
__thread struct bp_fast *bp_thread_fast = &nobody.fast;
#undef bp_thread_fast
#define bp_thread_fast bp_thread_tracked
#endif

/* What else a thread knows. */
static __thread struct {
	struct cache **table; /* its caches, by their pools' slots */
	unsigned slots;       /* of the table */
	unsigned caches;      /* in it */
	uint64_t dead;        /* pools, when their caches were last left */
	bool exited;          /* past its cleanup: caches no more */
} self;

/* The thread has no more use for a cache; its statistics stay. */
static void leave(struct cache *c)
{
	bufpool_t *pool = NULL;
	uint64_t owed;

	if (bp_thread_fast == &c->fast)
		bp_thread_fast = &nobody.fast;
	owed = bp_cache_disown(c, &pool);
	settle_owed(pool, owed);
}

/* --------------------------------------------------------------- the table */

/*
 * Leave the caches of dead pools, or all.  The application may be called by it, and
 * have the thread use other pools, so that the table changes: each is taken out
 * first, and nothing is kept from one to the next.
 */
static void leave_caches(bool all)
{
	for (unsigned i = 0; i < self.slots; i++) {
		struct cache *c = self.table[i];

		if (c == NULL || (!all && !ck_pr_load_uint(&c->dead)))
			continue;
		self.table[i] = NULL;
		self.caches--;
		leave(c);
	}
}

#define SLOTS_LEAST (PAGE / sizeof(struct cache *))

/* Look for dead ones, but not more often than that each costs two looks at a cache,
   and one at a page of the table. */
static void tidy(void)
{
	uint64_t dead = bp_registry_dead();

	if (dead - self.dead < self.caches / 2 + self.slots / SLOTS_LEAST)
		return;
	self.dead = dead;
	leave_caches(false);
}

static bool table_grow(unsigned slot)
{
	unsigned slots = SLOTS_LEAST;
	struct cache **table;

	while (slots <= slot)
		slots *= 2;
	table = bp_map(slots * sizeof(*table));
	if (table == NULL)
		return false;
	if (self.slots > 0) {
		memcpy(table, self.table, self.slots * sizeof(*table));
		bp_unmap(self.table, self.slots * sizeof(*table));
	}
	self.table = table;
	self.slots = slots;
	return true;
}

/* In place of one of a pool that had the slot before. */
static bool table_put(unsigned slot, struct cache *c)
{
	struct cache *old;

	if (slot >= self.slots && !table_grow(slot))
		return false;
	old = self.table[slot];
	self.table[slot] = c;
	if (old != NULL)
		leave(old);
	else
		self.caches++;
	return true;
}

/* ---------------------------------------------------------------- the exit */

static pthread_key_t key;
static bool have_key;

/*
 * The thread exits.  Destructors of others may run after this one and return
 * buffers; as no destructor of ours is sure to follow them, the thread goes
 * without caches from here on.
 */
static void thread_exit(void *arg)
{
	int saved = errno;

	(void) arg;
	self.exited = true;
	leave_caches(true);
	if (self.slots > 0)
		bp_unmap(self.table, self.slots * sizeof(struct cache *));
	self.slots = 0;
	errno = saved;
}

/* When the library is loaded: a pthread_once() could be stopped inside. */
__attribute__((constructor)) static void key_init(void)
{
	have_key = pthread_key_create(&key, thread_exit) == 0;
}

/* ------------------------------------------------------------------- caches */

struct cache *bp_thread_cache(const bufpool_t *pool)
{
	struct cache *c = (struct cache *) bp_thread_fast;

	if (c->pool_id == pool->id)
		return c;
	c = pool->slot < self.slots ? self.table[pool->slot] : NULL;
	return c != NULL && c->pool_id == pool->id ? c : NULL;
}

static struct cache *enrol(bufpool_t *pool, uint32_t cpu)
{
	struct cache *c;
	int saved = errno;

	if (!have_key || self.exited || ck_pr_load_uint(&pool->closing) ||
	    pthread_setspecific(key, &self) != 0)
		return NULL;
	tidy();
	c = bp_cache_enter(pool, cpu);
	if (c != NULL && !table_put(pool->slot, c))
		leave(c);
	errno = saved;
	/* What was called by that may have had this thread use the pool, or
	   destroyed it, of which we have a buffer then, and had the thread leave
	   its cache again. */
	return bp_thread_cache(pool);
}

struct cache *bp_thread_enter(bufpool_t *pool)
{
	uint32_t cpu = pool->places > 1 ? current_cpu() : 0;
	struct cache *c = bp_thread_cache(pool);
	uint64_t owed = 0;

	if (c == NULL)
		c = enrol(pool, cpu);
	if (c == NULL)
		return NULL;
	if (CK_CC_UNLIKELY(place_of_cpu(pool, cpu) != c->fast.place))
		bp_cache_move(pool, c, cpu, &owed);
	else if (pool->places > 1)
		stay_on(&c->fast, cpu);
	bp_thread_fast = &c->fast;
	/* The caller has the pool, or a buffer of it: it is not the last. */
	settle_owed(pool, owed);
	return c;
}

/* True if it may have called the application. */
static bool flush_one(struct cache *c)
{
	bufpool_t *pool = NULL;
	uint64_t owed = 0;

	bp_cache_flush(c, &pool, &owed);
	settle_owed(pool, owed);
	return owed > 0;
}

void bp_thread_flush(const bufpool_t *pool)
{
	struct cache *c;

	if (pool != NULL) {
		c = bp_thread_cache(pool);
		if (c != NULL)
			flush_one(c);
		return;
	}
	leave_caches(false);
	for (unsigned i = 0; i < self.slots; i++)
		/* That may have used some that were flushed: from the start. */
		if (self.table[i] != NULL && flush_one(self.table[i]))
			i = -1u;
}
