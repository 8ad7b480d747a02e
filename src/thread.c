/* SPDX-License-Identifier: MIT */
#include "thread.h"

#include <errno.h>
#include <pthread.h>

#include "life.h"

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
	struct cache **table; /* all: open addressing by pool_id */
	unsigned slots;       /* of the table: 0 or a power of two */
	bool exited;          /* past its cleanup: caches no more */
} self;

static pthread_key_t key;
static bool have_key;

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

/* The thread's, of `slots`; each of its entries is taken out before use, as the
   application may be called by it, and then have the thread make a new one. */
static void leave_all(struct cache **table, unsigned slots)
{
	for (unsigned i = 0; i < slots; i++) {
		struct cache *c = table[i];

		table[i] = NULL;
		if (c != NULL)
			leave(c);
	}
	if (table != NULL)
		bp_unmap(table, slots * sizeof(struct cache *));
}

static void table_put(struct cache **table, unsigned slots, struct cache *c)
{
	unsigned i = (unsigned) c->pool_id & (slots - 1);

	while (table[i] != NULL)
		i = (i + 1) & (slots - 1);
	table[i] = c;
}

/*
 * Enter a cache in this thread's table, and leave out those of pools that are
 * gone.  A new table each time: a thread meets a pool for the first time once.
 */
static bool table_add(struct cache *added)
{
	struct cache **old = self.table, **table;
	unsigned old_slots = self.slots;
	unsigned live = 1, slots = 512; /* a page */

	for (unsigned i = 0; i < old_slots; i++)
		live += old[i] != NULL && !ck_pr_load_uint(&old[i]->dead);
	while (slots < 2 * live)
		slots *= 2;
	table = bp_map(slots * sizeof(struct cache *));
	if (table == NULL)
		return false;
	table_put(table, slots, added);
	for (unsigned i = 0; i < old_slots; i++) {
		/* May have died since we counted: there is room for it. */
		if (old[i] == NULL || ck_pr_load_uint(&old[i]->dead))
			continue;
		table_put(table, slots, old[i]);
		old[i] = NULL;
	}
	self.table = table;
	self.slots = slots;
	leave_all(old, old_slots);
	return true;
}

/*
 * The thread exits.  Destructors of others may run after this one and return
 * buffers; as no destructor of ours is sure to follow them, the thread goes
 * without caches from here on.
 */
static void thread_exit(void *arg)
{
	struct cache **table = self.table;
	unsigned slots = self.slots;
	int saved = errno;

	(void) arg;
	self.exited = true;
	self.table = NULL;
	self.slots = 0;
	leave_all(table, slots);
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
	struct cache *last = (struct cache *) bp_thread_fast;
	unsigned i = (unsigned) pool->id;

	if (last->pool_id == pool->id)
		return last;
	if (self.slots == 0)
		return NULL;
	while (self.table[i &= self.slots - 1] != NULL) {
		if (self.table[i]->pool_id == pool->id)
			return self.table[i];
		i++;
	}
	return NULL;
}

static struct cache *enrol(bufpool_t *pool, uint32_t cpu)
{
	struct cache *c;
	int saved = errno;

	if (!have_key || self.exited || ck_pr_load_uint(&pool->closing))
		return NULL;
	c = bp_cache_adopt(pool, cpu);
	if (c == NULL)
		c = bp_cache_new(pool, cpu);
	if (c != NULL &&
	    (pthread_setspecific(key, &self) != 0 || !table_add(c))) {
		leave(c);
		c = NULL;
	}
	/* What was called by that may have destroyed the pool, of which we have
	   a buffer then, and had this thread leave its cache again. */
	if (c != NULL && bp_thread_cache(pool) != c)
		c = NULL;
	errno = saved;
	return c;
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

void bp_thread_flush(const bufpool_t *pool)
{
	for (unsigned i = 0; i < self.slots; i++) {
		struct cache *c = self.table[i];
		bufpool_t *home = NULL;
		uint64_t owed = 0;

		if (c == NULL || (pool != NULL && c->pool_id != pool->id))
			continue;
		bp_cache_flush(c, &home, &owed);
		if (CK_CC_LIKELY(owed == 0))
			continue;
		bp_pool_settle(home, owed);
		/* What is called by that may have made a new table, at the same
		   address too, and cached some more: from the start. */
		i = -1u;
	}
}
