/* SPDX-License-Identifier: MIT */
/* create.c - create and destroy */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "atlas.h"
#include "cache.h"
#include "cancel.h"
#include "erase.h"
#include "fork.h"
#include "life.h"
#include "misuse.h"
#include "place.h"
#include "region.h"
#include "registry.h"
#include "room.h"
#include "stack.h"
#include "track.h"

/* ---------------------------------------------------------------- create */

/* What a program that knows only the first version of the struct passes. */
#define CONFIG_FIRST_SIZE                                                      \
	(offsetof(bufpool_config_t, region_arg) + sizeof(void *))

#define FLAGS_KNOWN                                                            \
	(BUFPOOL_NUMA_STRICT | BUFPOOL_HUGEPAGES | BUFPOOL_LOCKED |            \
	 BUFPOOL_DONTDUMP | BUFPOOL_DONTFORK | BUFPOOL_HARDENED)

static bool is_zero(const char *p, size_t n)
{
	while (n > 0 && *p == 0)
		p++, n--;
	return n == 0;
}

/*
 * Take over a configuration of any version: what an older one lacks keeps its
 * default, what a newer one has more must be unused, that is zero.
 */
static bool config_read(bufpool_config_t *cfg, const bufpool_config_t *in)
{
	size_t size = in->size;

	if (size < CONFIG_FIRST_SIZE || size > PAGE)
		return false;
	if (size > sizeof(*cfg)) {
		if (!is_zero((const char *) in + sizeof(*cfg),
		             size - sizeof(*cfg)))
			return false;
		size = sizeof(*cfg);
	}
	memcpy(cfg, in, size);
	return true;
}

static bool is_hardened(const bufpool_config_t *cfg)
{
	return (cfg->flags & BUFPOOL_HARDENED) != 0;
}

/* 0, or the errno that create fails with. */
static int config_check(const bufpool_config_t *cfg)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		if (cfg->count[k] > BUFPOOL_MAX_COUNT)
			return EINVAL;
	if ((unsigned) cfg->wipe > BUFPOOL_WIPE_NONE ||
	    (unsigned) cfg->exhausted > BUFPOOL_FAIL ||
	    cfg->numa_node < BUFPOOL_NUMA_LOCAL ||
	    (cfg->flags & ~FLAGS_KNOWN) != 0 ||
	    (cfg->name != NULL && !bp_name_is_good(cfg->name)))
		return EINVAL;
	/* Else there is nothing that could be verified. */
	if (is_hardened(cfg) && cfg->wipe != BUFPOOL_WIPE_ALL)
		return EINVAL;
	return 0;
}

/* As many buffers as fit the class's cache, hardened none; left to the library, at
   most a quarter of those at a place.  Never more than there are: the bytes that a
   thread may be charged too much are reckoned by it. */
static unsigned cache_depth(const bufpool_config_t *cfg, unsigned k,
                            unsigned places)
{
	size_t most = is_hardened(cfg) ? 0 : cfg->cache[k];

	if (most == BUFPOOL_CACHE_AUTO)
		most = (cfg->count[k] / places + 3) / 4;
	most = min_size(most, cfg->count[k]);
	return (unsigned) min_size(most, class_cache[k]);
}

/* A power of two, at most DEPOT_SHARDS and about one per CPU; a queue has none. */
static unsigned shard_count(const bufpool_config_t *cfg)
{
	long cpus = is_hardened(cfg) ? 1 : sysconf(_SC_NPROCESSORS_ONLN);
	unsigned shards = 1;

	while (shards < DEPOT_SHARDS && shards < cpus)
		shards *= 2;
	return shards;
}

static uint64_t new_id(void)
{
	static uint64_t last;

	return ck_pr_faa_64(&last, 1) + 1;
}

_Static_assert(BUFPOOL_MAX_COUNT <= STACK_MAX, "the depot can number them");

/* Whether there are addresses for the payloads, and for what lies between. */
static bool is_addressable(const bufpool_config_t *cfg)
{
	size_t left = PTRDIFF_MAX / 2;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		if (cfg->count[k] > left / class_size[k])
			return false;
		left -= cfg->count[k] * class_size[k];
	}
	return true;
}

/* What the address space of a pool is aligned to: as its regions, any of them. */
static size_t alignment_of(const bufpool_config_t *cfg)
{
	size_t most = bp_page_size();

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t alignment = region_alignment(class_size[k], cfg->flags);

		if (cfg->count[k] > 0 && alignment > most)
			most = alignment;
	}
	return most;
}

/* What of a class lies at a place: its share, the first ones one more. */
static uint32_t share(size_t count, unsigned places, unsigned place)
{
	return (uint32_t) (count / places + (place < count % places));
}

/*
 * Lay out the regions, each behind the one before, the first behind what ends
 * there; returns where the last one ends.  pool may be NULL, to know that.
 */
static uintptr_t lay_out(const bufpool_config_t *cfg, unsigned places,
                         uintptr_t end, bufpool_t *pool)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < places; place++) {
			size_t n = share(cfg->count[k], places, place);
			struct region any, *r = &any;

			if (n == 0)
				continue;
			if (pool != NULL) {
				r = &pool->region[pool->regions];
				r->pub.index = pool->regions++;
				r->pub.size_class = (int) k;
				pool_depot(pool, place, k)->region =
					r->pub.index;
			}
			end = bp_region_lay(r, end, n, class_size[k],
			                    cfg->flags);
		}
	return end;
}

/* What the depots' queues need, if the pool is hardened. */
static size_t slot_count(const bufpool_config_t *cfg, unsigned places)
{
	size_t n = 0;

	if (!is_hardened(cfg))
		return 0;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < places; place++)
			n += depot_slots(share(cfg->count[k], places, place));
	return n;
}

/*
 * The pool, all descriptors, and the tables that go with them: less than 2^24 of
 * each in each of at most 32 classes.  They lie in front of the payloads, in the
 * same address space.
 */
static bufpool_t *pool_map(const bufpool_config_t *cfg,
                           const struct places *places)
{
	size_t total = 0, depots = places->n * BUFPOOL_CLASSES, len, space;
	size_t queues = is_hardened(cfg) ? DEPOT_QUEUES * depots : 0;
	size_t slots = slot_count(cfg, places->n);
	unsigned cpus = bp_places_cpus(places);
	bufpool_t *pool;

	if (!is_addressable(cfg))
		return NULL;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		total += cfg->count[k];
	len = sizeof(*pool) + depots * sizeof(struct depot) +
	      queues * sizeof(struct queue) + total * sizeof(struct bp_buf) +
	      depots * sizeof(struct region) +
	      2 * depots * sizeof(struct region *) +
	      slots * sizeof(ck_ring_buffer_t) + total * sizeof(uint32_t) +
	      places->n * places->n + cpus;
	len = round_up(len, bp_page_size());
	space = lay_out(cfg, places->n, len, NULL);
	pool = bp_reserve(space, alignment_of(cfg));
	if (pool == NULL)
		return NULL;
	/* This much is asked for already: where the program has had all locked
	   that it maps, it comes now. */
	if (!bp_has_room(len) || !bp_make_usable(pool, len)) {
		bp_release(pool, bp_page_size(), space);
		return NULL;
	}
	track_root(pool, len);
	pool->meta_len = len;
	pool->places = places->n;
	pool->account.depot = pool->depot;
	pool->account.depots = (unsigned) depots;
	pool->queue = (struct queue *) (pool->depot + depots);
	pool->descriptor = (struct bp_buf *) (pool->queue + queues);
	pool->region = (struct region *) (pool->descriptor + total);
	pool->by_address = (struct region **) (pool->region + depots);
	pool->queue_slot = (ck_ring_buffer_t *) (pool->by_address + 2 * depots);
	pool->link = (uint32_t *) (pool->queue_slot + slots);
	pool->near = (uint8_t *) (pool->link + total);
	pool->cpus = cpus;
	pool->place_of_cpu = pool->near + places->n * places->n;
	pool->left = total + depots * DEPOT_OPEN + 1;
	lay_out(cfg, places->n, (uintptr_t) pool + len, pool);
	return pool;
}

/*
 * Have all memory that is needed, or none: what cannot be had in full is not begun
 * with.  The regions' is not there yet after this.
 */
static bool pool_take(bufpool_t *pool)
{
	size_t needs = pool->meta_len;

	for (unsigned i = 0; i < pool->regions; i++) {
		struct region *r = &pool->region[i];

		if ((pool->flags & BUFPOOL_HUGEPAGES) != 0 &&
		    !bp_region_take_huge(r))
			return false;
		needs += region_needs(r);
	}
	return bp_has_room(needs) && bp_populate(pool, pool->meta_len);
}

/* Give a depot its queues, of those that follow the last one's. */
static void harden(bufpool_t *pool, struct depot *depot)
{
	bp_depot_harden(depot, pool->queue, pool->queue_slot);
	pool->queue += DEPOT_QUEUES;
	pool->queue_slot += depot_slots(depot->total);
}

/* Fill the region of class k at a place, and describe its buffers from bufs[at]
   on; 0 or the errno that create fails with. */
static int class_init(bufpool_t *pool, const struct places *places,
                      unsigned place, unsigned k, size_t at)
{
	uint32_t total = share(pool->total[k], pool->places, place);
	struct depot *depot = pool_depot(pool, place, k);
	struct region *r = &pool->region[depot->region];
	struct bp_buf *bufs = pool->descriptor + at;
	int error;

	bp_depot_init(depot, bufs, pool->link + at, total, pool->shards);
	if (pool->hardened)
		harden(pool, depot);
	if (total == 0)
		return 0;
	r->bufs = bufs;
	r->count = total;
	error = bp_region_fill(r, places, place, pool->flags);
	if (error != 0)
		return error;
	for (uint32_t i = 0; i < total; i++) {
		struct bp_buf *d = &bufs[i];

		d->pool = pool;
		buf_init(d, k, place, (char *) r->pub.base + i * class_size[k],
		         pool->wipe);
		d->state = BP_HOME;
	}
	bp_atlas_enter(pool, r);
	bp_erase_choose(k, r->pub.base);
	return 0;
}

/* The program's hooks may touch what is registered: it is marked after that. */
static void mark_idle(bufpool_t *pool)
{
	for (unsigned i = 0; i < pool->regions; i++)
		TRACK_IDLE(pool->region[i].pub.base, pool->region[i].pub.len);
}

static int attach_all(bufpool_t *pool)
{
	if (pool->attach == NULL)
		return 0;
	for (unsigned i = 0; i < pool->regions; i++) {
		struct region *r = &pool->region[i];
		bufpool_region_t shown = bp_region_describe(r);

		errno = 0;
		r->pub.cookie = pool->attach(pool->attach_arg, &shown);
		if (r->pub.cookie == BUFPOOL_ATTACH_FAILED) {
			r->pub.cookie = NULL;
			return errno != 0 ? errno : EIO;
		}
		r->attached = true;
	}
	return 0;
}

static void pool_name(bufpool_t *pool, const char *name)
{
	if (name != NULL && *name != '\0')
		strcpy(pool->name, name);
	else
		snprintf(pool->name, NAME_ROOM, "pool-%" PRIu64, pool->id);
}

static void pool_configure(bufpool_t *pool, const bufpool_config_t *cfg)
{
	pool->id = new_id();
	pool_name(pool, cfg->name);
	pool->wipe = cfg->wipe;
	pool->exhausted = cfg->exhausted;
	pool->flags = cfg->flags;
	pool->attach = cfg->region_attach;
	pool->detach = cfg->region_detach;
	pool->attach_arg = cfg->region_arg;
	pool->shards = shard_count(cfg);
	pool->hardened = is_hardened(cfg);
	pool->fenced = !bp_fence_init();
	bp_heap_init(&pool->heap, pool, cfg);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		pool->total[k] = (uint32_t) cfg->count[k];
		pool->depth[k] = cache_depth(cfg, k, pool->places);
	}
}

static int pool_fill(bufpool_t *pool, const struct places *places)
{
	size_t at = 0;
	int error = 0;

	if (!pool_take(pool))
		return ENOMEM;
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < pool->places; place++) {
			error = class_init(pool, places, place, k, at);
			if (error != 0)
				return error;
			at += pool_depot(pool, place, k)->total;
		}
	pool->demand = bp_demand_new(pool->places);
	if (pool->demand == NULL || !bp_fork_enter(pool))
		return ENOMEM;
	error = attach_all(pool);
	if (error == 0)
		mark_idle(pool);
	return error;
}

static bufpool_t *pool_build(const bufpool_config_t *cfg,
                             const struct places *places, int *error)
{
	bufpool_t *pool = pool_map(cfg, places);

	*error = ENOMEM;
	if (pool == NULL)
		return NULL;
	pool_configure(pool, cfg);
	bp_places_tables(places, pool->near, pool->place_of_cpu);
	*error = pool_fill(pool, places);
	if (*error == 0)
		return pool;
	bp_pool_free(pool);
	return NULL;
}

static bufpool_t *create(const bufpool_config_t *config,
                         hwloc_topology_t topology,
                         hwloc_const_nodeset_t nodeset)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	struct places places;
	bufpool_t *pool = NULL;
	int saved = errno, error = 0, cancel = cancel_never();

	if (config != NULL && !config_read(&cfg, config))
		error = EINVAL;
	if (error == 0)
		error = config_check(&cfg);
	if (error == 0)
		error = bp_places_find(&places, &cfg, topology, nodeset);
	if (error == 0) {
		pool = pool_build(&cfg, &places, &error);
		bp_places_drop(&places);
	}
	cancel_again(cancel);
	errno = pool != NULL ? saved : error;
	return pool;
}

bufpool_t *bufpool_create(const bufpool_config_t *config)
{
	return create(config, NULL, NULL);
}

bufpool_t *bufpool_create_hwloc(const bufpool_config_t *config,
                                hwloc_topology_t topology,
                                hwloc_const_nodeset_t nodeset)
{
	if (topology == NULL ||
	    (nodeset != NULL && hwloc_bitmap_iszero(nodeset))) {
		errno = EINVAL;
		return NULL;
	}
	return create(config, topology, nodeset);
}

/* --------------------------------------------------------------- destroy */

void bufpool_destroy(bufpool_t *pool)
{
	uint64_t found;
	int saved = errno;

	if (pool == NULL)
		return;
	registry_check();
	if (CK_CC_UNLIKELY(ck_pr_load_32(&pool->demand->events) != 0))
		bp_misuse("bufpool_destroy", pool, "an event of it is open",
		          pool->name);
	ck_pr_store_uint(&pool->closing, 1);
	/* Before the caches are looked for: see cache_show(). */
	ck_pr_fence_memory();
	found = bp_cache_revoke_all(pool);
	for (unsigned i = 0; i < pool->places * BUFPOOL_CLASSES; i++)
		found += bp_depot_close(&pool->depot[i]);
	bp_pool_settle(pool, found + 1);
	errno = saved;
}
