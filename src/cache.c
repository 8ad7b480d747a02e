/* SPDX-License-Identifier: MIT */
/* cache.c - thread caches: who has which, stealing, flush, thread exit */
#include "cache.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wait.h"

/* Stands where a thread has used no pool yet; no pool has id 0. */
static struct cache nobody = { .pool = NO_POOL };

__thread struct thread bp_thread = { .cache = &nobody };

/* ------------------------------------------------------ asymmetric fence */

static int membarrier(int command)
{
	return (int) syscall(SYS_membarrier, command, 0, 0);
}

bool bp_barrier_init(void)
{
	return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

/* The thief's side of owner_fence(): false if it cannot be had any more. */
static bool thief_fence(bool fenced)
{
	ck_pr_fence_memory();
	return fenced || membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}

/* -------------------------------------------------------------- magazine */

uint64_t bp_magazine_count(const struct magazine *m)
{
	uint64_t t = ck_pr_load_64(&m->top);
	uint64_t b = ck_pr_load_64(&m->bottom);

	return (int64_t) (b - t) > 0 ? b - t : 0;
}

void bp_magazine_make_room(struct magazine *m, unsigned depth)
{
	ck_pr_store_64(&m->room, ck_pr_load_64(&m->top) + depth);
}

/* Take from the contested end, below bottom and limit, as b says. */
static struct buf *take_top(struct magazine *m, uint64_t b)
{
	uint64_t t = ck_pr_load_64(&m->top);
	struct buf *d;

	do {
		if ((int64_t) (b - t) <= 0)
			return NULL;
		/* If the slot was written anew meanwhile, top has moved. */
		d = ck_pr_load_ptr(&m->slot[SLOT(t)]);
		ck_pr_fence_load_atomic();
	} while (!ck_pr_cas_64_value(&m->top, t, t + 1, &t));
	ck_pr_fence_acquire();
	return d;
}

struct buf *bp_magazine_take_contested(struct magazine *m)
{
	struct buf *d = take_top(m, m->bottom);

	if (d != NULL)
		owner_add(&m->offset, -(uint64_t) 1); /* a hit to come */
	return d;
}

/* The owner takes up to n, the ones put last first, though not to use them: they
   are no hits.  0 if there is none. */
static unsigned magazine_take_many(struct magazine *m, struct buf **out,
                                   unsigned n, bool fenced)
{
	for (;;) {
		uint64_t count = bp_magazine_count(m);
		uint64_t b = m->bottom, limit;
		unsigned got = 0;

		if (n > count)
			n = (unsigned) count;
		if (n == 0)
			return 0;
		if (magazine_withdraw(m, n, fenced)) {
			owner_add(&m->offset, n);
			for (; got < n; got++)
				out[got] = m->slot[SLOT(b - 1 - got)];
			return got;
		}
		/* The contested part only: top must not pass limit. */
		limit = ck_pr_load_64(&m->limit);
		if (b > limit)
			b = limit;
		while (got < n && (out[got] = take_top(m, b)) != NULL)
			got++;
		if (got > 0)
			return got;
	}
}

/* Take half of what another thread has cached, up to n. */
static unsigned magazine_steal(struct magazine *m, struct buf **out, unsigned n,
                               bool fenced)
{
	for (;;) {
		uint64_t t = ck_pr_load_64(&m->top);
		uint64_t limit, count;
		unsigned want;

		ck_pr_fence_load(); /* limit is never below a top seen before */
		limit = ck_pr_load_64(&m->limit);
		count = bp_magazine_count(m);
		if (count == 0)
			return 0;
		want = (count + 1) / 2 < n ? (unsigned) (count + 1) / 2 : n;
		if (limit < t + want &&
		    !ck_pr_cas_64(&m->limit, limit, t + want))
			continue;
		if (!thief_fence(fenced))
			return 0;

		/* From here on the owner takes nothing below t + want but as
		   we do; what it took before is not below its bottom now. */
		count = ck_pr_load_64(&m->bottom) - t;
		ck_pr_fence_acquire();
		if ((int64_t) count <= 0)
			continue;
		if (want > count)
			want = (unsigned) count;
		for (unsigned i = 0; i < want; i++)
			out[i] = ck_pr_load_ptr(&m->slot[SLOT(t + i)]);
		ck_pr_fence_load_atomic();
		if (ck_pr_cas_64(&m->top, t, t + want)) {
			ck_pr_fence_acquire();
			return want;
		}
		/* Somebody was faster: look again. */
	}
}

/* ----------------------------------------------------------------- cache */

unsigned bp_cache_steal(bufpool_t *pool, struct cache *thief, unsigned place,
                        unsigned k, struct buf **out, unsigned n)
{
	struct cache *c = ck_pr_load_ptr(&pool->caches);
	unsigned got = 0;

	for (; c != NULL && got == 0; c = c->next) {
		struct magazine *m = &c->magazine[k];

		if (c == thief || ck_pr_load_uint(&c->place) != place ||
		    bp_magazine_count(m) == 0)
			continue;
		move_begin(thief);
		got = magazine_steal(m, out, n, pool->fenced);
	}
	return got;
}

uint64_t bp_cache_stamp(const bufpool_t *pool, unsigned k)
{
	const struct cache *c = ck_pr_load_ptr(&pool->caches);
	uint64_t stamp = 0;

	for (; c != NULL; c = c->next) {
		const struct magazine *m = &c->magazine[k];
		uint64_t bottom = ck_pr_load_64(&m->bottom), top;

		/* A take undoes what a put did to bottom, and is counted next:
		   whoever sees bottom after it shall see the hit as well. */
		ck_pr_fence_load();
		top = ck_pr_load_64(&m->top);
		/* Mixed, so that one cache's change does not cancel another's.
		   In a cache each put adds one, and no hit takes one off. */
		stamp *= 0x9e3779b97f4a7c15u;
		stamp += bottom + ck_pr_load_64(&m->hits) + top;
	}
	return stamp;
}

bool bp_cache_moving(const bufpool_t *pool, const struct cache *self)
{
	const struct cache *c = ck_pr_load_ptr(&pool->caches);

	while (c != NULL && (c == self || !ck_pr_load_uint(&c->moving)))
		c = c->next;
	return c != NULL;
}

/* Let the pool's gauge stand for what is cached, beside what is asked for. */
static void settle_bytes(bufpool_t *pool, struct cache *c)
{
	uint64_t cached = 0, spare = c->spare;

	for (unsigned k = 0; k < BUFPOOL_CLASSES && c->slack > 0; k++)
		cached += bp_magazine_count(&c->magazine[k]) * class_size[k];
	bp_gauge_add(&pool->bytes, cached - spare);
	owner_add(&c->spare, cached - spare);
}

void bp_cache_charge(bufpool_t *pool, struct cache *c)
{
	if (!spare_is_fair(c, c->spare))
		settle_bytes(pool, c);
}

unsigned bp_cache_spill(struct cache *c, unsigned k, unsigned n)
{
	struct magazine *m = &c->magazine[k];
	struct buf *bufs[MAGAZINE_SLOTS];
	/* A put of buffers that are being moved may have led here: their move
	   is not over yet. */
	bool inner = c->moving != 0;
	bufpool_t *pool;
	unsigned got;

	move_begin(c);
	got = magazine_take_many(m, bufs, n, c->fenced);
	if (got > 0) {
		/* The pool is there as long as we have a buffer of it. */
		pool = bufs[0]->pool;
		bp_gauge_add(&pool->bufs, -(uint64_t) got);
		/* The thread may be on its way out, with no use for spare. */
		if (bp_magazine_count(m) == 0)
			settle_bytes(pool, c);
		if (bp_depot_give(pool_depot(pool, c->place, k), c->shard, bufs,
		                  got))
			waitq_given(c->waitq, k, got);
		else
			bp_pool_settle(pool, got);
	}
	if (!inner)
		move_end(c);
	return got;
}

static void cache_flush(struct cache *c)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		while (bp_cache_spill(c, k, MAGAZINE_SLOTS) > 0)
			;
}

void bp_cache_move(struct cache *c, unsigned place)
{
	cache_flush(c);
	/* Thieves that look for what was here find it in the depot, or see a
	   stamp that has changed. */
	ck_pr_store_uint(&c->place, place);
}

void bp_cache_unref(struct cache *c)
{
	/* What the others did to it before what we do: free it. */
	ck_pr_fence_release();
	if (ck_pr_faa_uint(&c->refs, -1u) == 1) {
		ck_pr_fence_acquire();
		bp_waitq_unref(c->waitq);
		bp_unmap(c, sizeof(*c));
	}
}

/*
 * The pool is being destroyed, and its caches are taken or have been: nobody
 * will look here again.  What is still here is ours to count as home.
 */
static void settle_all(struct magazine *m)
{
	struct buf *d;

	while ((d = take_top(m, m->bottom)) != NULL)
		bp_pool_settle(d->pool, 1);
}

void bp_cache_put_alarm(struct cache *c, unsigned k)
{
	struct magazine *m = &c->magazine[k];

	if (ck_pr_load_64(&m->limit) == LIMIT_REVOKED) {
		settle_all(m);
		return;
	}
	/* Who waits finds it in the depot, without having to steal.  All that
	   is here goes: of what a spill had in its hands some may have come
	   back, and who looked meanwhile sleeps. */
	while (ck_pr_load_32(&c->waitq->class[k].waiters) != 0 &&
	       bp_cache_spill(c, k, MAGAZINE_SLOTS) > 0)
		;
	if (bp_waitq_any(c->waitq))
		return;
	/* Nobody waits any more.  Who comes now counts itself first, then sets
	   the alarm: one of the two is seen after this. */
	ck_pr_store_8(&c->alarm, 0);
	ck_pr_fence_memory();
	if (bp_waitq_any(c->waitq) || ck_pr_load_64(&m->limit) == LIMIT_REVOKED)
		ck_pr_store_8(&c->alarm, 1);
}

bool bp_cache_alarm_all(bufpool_t *pool)
{
	struct cache *c = ck_pr_load_ptr(&pool->caches);

	for (; c != NULL; c = c->next)
		ck_pr_store_8(&c->alarm, 1);
	return thief_fence(pool->fenced);
}

static void cache_revoke(struct cache *c)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		ck_pr_store_64(&c->magazine[k].limit, LIMIT_REVOKED);
	ck_pr_store_uint(&c->dead, 1);
	/* Another pool may come to lie where this one does. */
	ck_pr_store_ptr(&c->pool, NO_POOL);
	ck_pr_fence_memory(); /* see the end of bp_cache_put_alarm() */
	ck_pr_store_8(&c->alarm, 1);
}

uint64_t bp_cache_revoke_all(bufpool_t *pool)
{
	struct cache *caches = ck_pr_load_ptr(&pool->caches);
	uint64_t found = 0;

	for (struct cache *c = caches; c != NULL; c = c->next)
		cache_revoke(c);
	/* Every put from here on sees that; those before, we see.  Without
	   that (membarrier refused since the pool was created) the owners
	   bring their buffers home themselves: on their next return to the
	   pool, when they exit or first use another pool. */
	if (!thief_fence(pool->fenced))
		return 0;
	for (struct cache *c = caches; c != NULL; c = c->next)
		for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
			struct magazine *m = &c->magazine[k];

			/* Which ones does not matter, so the slots may be read
			   without order. */
			while (take_top(m, ck_pr_load_64(&m->bottom)) != NULL)
				found++;
		}
	return found;
}

/* ------------------------------------------------- a thread's caches */

static pthread_key_t key;
static bool have_key;

/* The thread has no more use for a cache; its statistics stay. */
static void cache_disown(struct cache *c)
{
	if (bp_thread.cache == c)
		bp_thread.cache = &nobody;
	cache_flush(c);
	/* All of our writes, before another thread can adopt it. */
	ck_pr_fence_release();
	ck_pr_store_uint(&c->owned, 0);
	bp_cache_unref(c);
}

static void table_free(struct cache **table, unsigned slots)
{
	if (table != NULL)
		bp_unmap(table, slots * sizeof(struct cache *));
}

/*
 * The thread exits.  Destructors of others may run after this one and return
 * buffers; as no destructor of ours is sure to follow them, the thread goes
 * without caches from here on.
 */
static void thread_exit(void *arg)
{
	struct thread *self = arg;
	int saved = errno;

	self->exited = true;
	for (unsigned i = 0; i < self->slots; i++)
		if (self->table[i] != NULL)
			cache_disown(self->table[i]);
	table_free(self->table, self->slots);
	self->table = NULL;
	self->slots = 0;
	errno = saved;
}

/* When the library is loaded: a pthread_once() could be stopped inside. */
__attribute__((constructor)) static void key_init(void)
{
	have_key = pthread_key_create(&key, thread_exit) == 0;
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
	struct thread *self = &bp_thread;
	struct cache **old = self->table, **table;
	unsigned old_slots = self->slots;
	unsigned live = 1, slots = 512; /* a page */

	for (unsigned i = 0; i < old_slots; i++)
		live += old[i] != NULL && !ck_pr_load_uint(&old[i]->dead);
	while (slots < 2 * live)
		slots *= 2;
	table = bp_map(slots * sizeof(struct cache *));
	if (table == NULL)
		return false;
	table_put(table, slots, added);
	self->table = table;
	self->slots = slots;
	for (unsigned i = 0; i < old_slots; i++) {
		if (old[i] == NULL)
			continue;
		/* May have died since we counted: there is room for it. */
		if (ck_pr_load_uint(&old[i]->dead))
			cache_disown(old[i]);
		else
			table_put(table, slots, old[i]);
	}
	table_free(old, old_slots);
	return true;
}

static struct cache *cache_adopt(bufpool_t *pool)
{
	struct cache *c = ck_pr_load_ptr(&pool->caches);

	for (; c != NULL; c = c->next) {
		if (ck_pr_load_uint(&c->owned) == 0 &&
		    ck_pr_cas_uint(&c->owned, 0, 1)) {
			/* Its last owner's writes before ours. */
			ck_pr_fence_acquire();
			ck_pr_inc_uint(&c->refs);
			return c;
		}
	}
	return NULL;
}

void bp_cache_reset(const bufpool_t *pool, struct cache *c)
{
	memset(c, 0, sizeof(*c));
	/* A fast path has no fence, and does not ask at which place it is. */
	c->pool = pool->fenced || pool->places > 1 ? NO_POOL : pool;
	c->pool_id = pool->id;
	c->fenced = pool->fenced;
	c->waitq = pool->waitq;
	c->refs = 2;
	c->owned = 1;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		struct magazine *m = &c->magazine[k];

		c->slack += pool->depth[k] * class_size[k];
		m->bottom = m->top = m->limit = INDEX_START;
		m->offset = -(uint64_t) INDEX_START;
		bp_magazine_make_room(m, pool->depth[k]);
	}
	if (pool->closing)
		cache_revoke(c);
}

static struct cache *cache_new(bufpool_t *pool)
{
	struct cache *c = bp_map(sizeof(*c)), *first;

	if (c == NULL)
		return NULL;
	bp_cache_reset(pool, c);
	bp_waitq_ref(c->waitq);
	c->shard = ck_pr_faa_uint(&pool->next_shard, 1) % DEPOT_SHARDS;
	first = ck_pr_load_ptr(&pool->caches);
	do {
		c->next = first;
		ck_pr_fence_release();
	} while (!ck_pr_cas_ptr_value(&pool->caches, first, c, &first));
	/* Either destroy finds it in the list, or we find out here: destroy
	   writes closing, then reads the list.  And so do waiters. */
	ck_pr_fence_memory();
	if (ck_pr_load_uint(&pool->closing))
		cache_revoke(c);
	if (bp_waitq_any(c->waitq))
		ck_pr_store_8(&c->alarm, 1);
	return c;
}

static struct cache *cache_enrol(bufpool_t *pool)
{
	struct cache *c;
	int saved = errno;

	if (!have_key || bp_thread.exited || ck_pr_load_uint(&pool->closing))
		return NULL;
	c = cache_adopt(pool);
	if (c == NULL)
		c = cache_new(pool);
	if (c != NULL &&
	    (pthread_setspecific(key, &bp_thread) != 0 || !table_add(c))) {
		cache_disown(c);
		c = NULL;
	}
	errno = saved;
	return c;
}

struct cache *bp_cache_own(const bufpool_t *pool)
{
	unsigned i = (unsigned) pool->id;

	if (bp_thread.cache->pool_id == pool->id)
		return bp_thread.cache;
	if (bp_thread.slots == 0)
		return NULL;
	while (bp_thread.table[i &= bp_thread.slots - 1] != NULL) {
		if (bp_thread.table[i]->pool_id == pool->id)
			return bp_thread.table[i];
		i++;
	}
	return NULL;
}

struct cache *bp_cache_find(bufpool_t *pool)
{
	struct cache *c = bp_cache_own(pool);

	if (c == NULL)
		c = cache_enrol(pool);
	if (c != NULL)
		bp_thread.cache = c;
	return c;
}

void bufpool_thread_flush(bufpool_t *pool)
{
	const struct thread *self = &bp_thread;
	int saved = errno;

	for (unsigned i = 0; i < self->slots; i++) {
		struct cache *c = self->table[i];

		if (c != NULL && (pool == NULL || c->pool_id == pool->id))
			cache_flush(c);
	}
	errno = saved;
}
