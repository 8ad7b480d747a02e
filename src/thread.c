/* SPDX-License-Identifier: MIT */
#include "thread.h"

#include <errno.h>
#include <string.h>

#include "estate.h"
#include "life.h"
#include "registry.h"

/* Stands where a thread has used no pool yet; no pool has id 0. */
static struct cache nobody = {
	.fast = { .pool = BP_NO_POOL,
	          .special = BP_NO_POOL,
	          .local = BP_NO_POOL,
	          .fenced_any = BP_NO_POOL,
	          .hardened = BP_NO_POOL,
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
static void leave_caches(struct estate *e, bool all)
{
	for (unsigned i = 0; i < e->slots; i++) {
		struct cache *c = e->table[i];

		if (c == NULL || (!all && !ck_pr_load_uint(&c->dead)))
			continue;
		e->table[i] = NULL;
		e->caches--;
		leave(c);
	}
}

#define SLOTS_LEAST (PAGE / sizeof(struct cache *))

/* Look for dead ones, but not more often than that each costs two looks at a cache,
   and one at a page of the table. */
static void tidy(struct estate *e)
{
	uint64_t dead = bp_registry_dead();

	if (dead - e->dead < e->caches / 2 + e->slots / SLOTS_LEAST)
		return;
	e->dead = dead;
	leave_caches(e, false);
}

static void table_unmap(struct estate *e)
{
	if (e->slots > 0)
		bp_unmap(e->table, e->slots * sizeof(e->table[0]));
	e->slots = 0;
}

static bool table_grow(struct estate *e, unsigned slot)
{
	unsigned slots = SLOTS_LEAST;
	struct cache **table;

	while (slots <= slot)
		slots *= 2;
	table = bp_map(slots * sizeof(*table));
	if (table == NULL)
		return false;
	if (e->slots > 0)
		memcpy(table, e->table, e->slots * sizeof(*table));
	table_unmap(e);
	e->table = table;
	e->slots = slots;
	return true;
}

/* In place of one of a pool that had the slot before. */
static bool table_put(struct estate *e, unsigned slot, struct cache *c)
{
	struct cache *old;

	if (slot >= e->slots && !table_grow(e, slot))
		return false;
	old = e->table[slot];
	e->table[slot] = c;
	if (old != NULL)
		leave(old);
	else
		e->caches++;
	return true;
}

/* The thread has ended. */
static void settle_estate(struct estate *e)
{
	leave_caches(e, true);
	table_unmap(e);
}

/* ------------------------------------------------------------------- caches */

struct cache *bp_thread_cache(const bufpool_t *pool)
{
	struct cache *c = (struct cache *) bp_thread_fast;
	const struct estate *e = bp_estate;

	if (c->pool_id == pool->id)
		return c;
	c = e != NULL && pool->slot < e->slots ? e->table[pool->slot] : NULL;
	return c != NULL && c->pool_id == pool->id ? c : NULL;
}

static struct cache *enrol(bufpool_t *pool, uint32_t cpu)
{
	int saved = errno;
	struct estate *e;
	struct cache *c;

	if (ck_pr_load_uint(&pool->closing))
		return NULL;
	e = bp_estate_make(settle_estate);
	if (e == NULL)
		return NULL;
	tidy(e);
	c = bp_cache_enter(pool, cpu);
	if (c != NULL && !table_put(e, pool->slot, c))
		leave(c);
	errno = saved;
	/* What was called by that may have had this thread use the pool, or
	   destroyed it, of which we have a buffer then, and had the thread leave
	   its cache again. */
	return bp_thread_cache(pool);
}

void bp_thread_hide(void)
{
	bp_thread_fast = &nobody.fast;
}

struct cache *bp_thread_enter(bufpool_t *pool)
{
	uint32_t cpu = pool->places > 1 ? current_cpu() : 0;
	struct cache *c;
	uint64_t owed = 0;

	registry_check();
	if (CK_CC_UNLIKELY(bp_registry_is_ours()))
		return NULL; /* it forks */
	c = bp_thread_cache(pool);
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
	struct estate *e = bp_estate;
	struct cache *c;

	if (pool != NULL) {
		c = bp_thread_cache(pool);
		if (c != NULL)
			flush_one(c);
		return;
	}
	if (e == NULL)
		return;
	leave_caches(e, false);
	for (unsigned i = 0; i < e->slots; i++)
		/* That may have used some that were flushed: from the start. */
		if (e->table[i] != NULL && flush_one(e->table[i]))
			i = -1u;
}
