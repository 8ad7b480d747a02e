/* SPDX-License-Identifier: MIT */
/* create.c - create and destroy */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "cancel.h"
#include "fork.h"
#include "grow.h"
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

static void config_complete(bufpool_config_t *cfg)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		if (cfg->max_count[k] == 0)
			cfg->max_count[k] = cfg->count[k];
}

static bool is_hardened(const bufpool_config_t *cfg)
{
	return (cfg->flags & BUFPOOL_HARDENED) != 0;
}

/* How large a class may be, also where it cannot grow. */
static bool sizes_are_good(const bufpool_config_t *cfg)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		if (cfg->max_count[k] > BUFPOOL_MAX_COUNT ||
		    cfg->count[k] > cfg->max_count[k] ||
		    (cfg->region_max > 0 && cfg->max_count[k] > 0 &&
		     cfg->region_max < class_size[k]))
			return false;
	return true;
}

/* 0, or the errno that create fails with. */
static int config_check(const bufpool_config_t *cfg)
{
	if (!sizes_are_good(cfg))
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
   most a quarter of those at a place.  Never more than there can be: the bytes that a
   thread may be charged too much are reckoned by it. */
static unsigned cache_depth(const bufpool_config_t *cfg, unsigned k,
                            unsigned places)
{
	size_t most = is_hardened(cfg) ? 0 : cfg->cache[k];

	if (most == BUFPOOL_CACHE_AUTO)
		most = (cfg->max_count[k] / places + 3) / 4;
	most = min_size(most, cfg->max_count[k]);
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

/* What a class may have at a place: all that it grows by, if need be. */
static size_t room(const bufpool_config_t *cfg, unsigned k, unsigned places,
                   unsigned place)
{
	return share(cfg->count[k], places, place) + cfg->max_count[k] -
	       cfg->count[k];
}

static bool grows(const bufpool_config_t *cfg)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		if (cfg->max_count[k] > cfg->count[k])
			return true;
	return false;
}

/* Whether there are addresses for the payloads, and for what lies between. */
static bool is_addressable(const bufpool_config_t *cfg, unsigned places)
{
	size_t left = PTRDIFF_MAX / 2;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t n = cfg->count[k] +
		           places * (cfg->max_count[k] - cfg->count[k]);

		if (n > left / class_size[k])
			return false;
		left -= n * class_size[k];
	}
	return true;
}

/* What the address space of a pool is aligned to: as its regions, any of them. */
static size_t alignment_of(const bufpool_config_t *cfg)
{
	size_t most = bp_page_size();

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t alignment = region_alignment(class_size[k], cfg->flags);

		if (cfg->max_count[k] > 0 && alignment > most)
			most = alignment;
	}
	return most;
}

/* How many regions a class may come to have at one place, which it grows by so many
   buffers; in pieces, if they are too large. */
static size_t regions_of(const bufpool_config_t *cfg, unsigned k, size_t n)
{
	size_t most = cfg->region_max > 0 ? cfg->region_max / class_size[k] : n;

	return n > 0 ? (n + most - 1) / most : 0;
}

/* Times that a class may grow, at the most: by one buffer each is no good use. */
#define GROWTHS 1000

static size_t regions_most(const bufpool_config_t *cfg, unsigned places)
{
	size_t n = 0;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t more = cfg->max_count[k] - cfg->count[k];

		for (unsigned place = 0; place < places; place++)
			n += regions_of(cfg, k, share(cfg->count[k], places, place));
		n += regions_of(cfg, k, more) + min_size(more, GROWTHS) * places;
	}
	return n;
}

/*
 * Lay out what each class has at each place, one behind the other, the first behind
 * what ends there: its first regions, then its plot.  Returns where the last one ends.
 * pool may be NULL, to know that.
 */
static uintptr_t lay_out(const bufpool_config_t *cfg, unsigned places,
                         uintptr_t end, bufpool_t *pool)
{
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < places; place++) {
			size_t n = share(cfg->count[k], places, place);
			size_t more = cfg->max_count[k] - cfg->count[k];
			uintptr_t begin;

			end = bp_lay_out(pool, place, k, n, end, cfg->flags,
			                 cfg->region_max);
			begin = end;
			if (more > 0)
				end = bp_lay_out(NULL, place, k, more, end,
				                 cfg->flags, cfg->region_max);
			if (pool != NULL) {
				pool_plot(pool, place, k)->next = begin;
				pool_plot(pool, place, k)->end = end;
			}
		}
	return end;
}

/* --------------------------------------------------------- the pool's tables */

/* Pieces of memory one behind the other; to know how much it is, of none. */
struct carver {
	char *base;
	size_t at;
};

static void *carve(struct carver *c, size_t len, size_t alignment)
{
	size_t at = round_up(c->at, alignment);

	c->at = at + len;
	return c->base != NULL ? c->base + at : NULL;
}

/* What each depot has, or is going to have: less than 2^24 in each of at most 32
   classes.  queue and slot: what hardened ones share. */
static void carve_depots(struct carver *c, const bufpool_config_t *cfg,
                         unsigned places, struct queue *queue,
                         ck_ring_buffer_t *slot)
{
	bufpool_t *pool = (bufpool_t *) c->base;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < places; place++) {
			size_t n = room(cfg, k, places, place);
			struct bp_buf *bufs = carve(c, n * sizeof(*bufs),
			                            CK_MD_CACHELINE);
			uint32_t *next = carve(c, n * sizeof(*next),
			                       sizeof(*next));

			if (pool == NULL)
				continue;
			bp_depot_init(pool_depot(pool, place, k), bufs, next,
			              (uint32_t) n, shard_count(cfg));
			if (!is_hardened(cfg))
				continue;
			bp_depot_harden(pool_depot(pool, place, k), queue, slot);
			queue += DEPOT_QUEUES;
			slot += depot_slots(n);
		}
}

static size_t slot_count(const bufpool_config_t *cfg, unsigned places)
{
	size_t n = 0;

	for (unsigned k = 0; is_hardened(cfg) && k < BUFPOOL_CLASSES; k++)
		for (unsigned place = 0; place < places; place++)
			n += depot_slots(room(cfg, k, places, place));
	return n;
}

/*
 * The pool and its tables, which lie in front of the payloads, in the same address
 * space: first the head, which is needed as it is; then what may have room for more.
 * Returns where they end.  pool may be NULL, to know that.
 */
static size_t tables(const bufpool_config_t *cfg, const struct places *places,
                     bufpool_t *pool, size_t *head)
{
	size_t depots = places->n * BUFPOOL_CLASSES, cpus = bp_places_cpus(places);
	size_t queues = is_hardened(cfg) ? DEPOT_QUEUES * depots : 0;
	size_t regions = regions_most(cfg, places->n);
	struct carver c = { (char *) pool, 0 };
	bufpool_t at = { 0 };
	struct queue *queue;
	ck_ring_buffer_t *slot;

	carve(&c, sizeof(*pool) + depots * sizeof(struct depot), CK_MD_CACHELINE);
	queue = carve(&c, queues * sizeof(*queue), CK_MD_CACHELINE);
	slot = carve(&c, slot_count(cfg, places->n) * sizeof(*slot), sizeof(*slot));
	at.plot = carve(&c, depots * sizeof(*at.plot), sizeof(void *));
	at.ground = carve(&c, sizeof(*at.ground), sizeof(void *));
	at.near = carve(&c, places->n * places->n, 1);
	at.place_of_cpu = carve(&c, cpus, 1);
	*head = c.at;
	at.region = carve(&c, regions * sizeof(*at.region), CK_MD_CACHELINE);
	at.by_address = carve(&c, 2 * regions * sizeof(*at.by_address),
	                      sizeof(void *));
	carve_depots(&c, cfg, places->n, queue, slot);
	if (pool != NULL) {
		pool->plot = at.plot;
		pool->ground = at.ground;
		pool->near = at.near;
		pool->cpus = (unsigned) cpus;
		pool->place_of_cpu = at.place_of_cpu;
		pool->region = at.region;
		pool->regions_most = (unsigned) regions;
		pool->by_address = at.by_address;
	}
	return round_up(c.at, bp_page_size());
}

/* What of them is there when the pool is created. */
static size_t tables_needed(const bufpool_config_t *cfg, size_t head)
{
	size_t n = 0;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		n += cfg->count[k];
	return head + n * (sizeof(struct bp_buf) + sizeof(uint32_t));
}

/* The pool in address space of its own, with its tables laid out, and its regions. */
static bufpool_t *pool_map(const bufpool_config_t *cfg,
                           const struct places *places)
{
	size_t head, len = tables(cfg, places, NULL, &head), space;
	bufpool_t *pool;

	if (!is_addressable(cfg, places->n))
		return NULL;
	space = lay_out(cfg, places->n, len, NULL);
	pool = bp_reserve(space, alignment_of(cfg));
	if (pool == NULL)
		return NULL;
	/* This much is asked for already: where the program has had all locked
	   that it maps, it comes now. */
	if (!bp_has_room(tables_needed(cfg, head)) || !bp_make_usable(pool, len)) {
		bp_release(pool, bp_page_size(), space);
		return NULL;
	}
	track_root(pool, len);
	pool->meta_len = len;
	pool->places = places->n;
	tables(cfg, places, pool, &head);
	pool->account.depot = pool->depot;
	pool->account.depots = places->n * BUFPOOL_CLASSES;
	pool->left = (uint64_t) pool->account.depots * DEPOT_OPEN + 1;
	lay_out(cfg, places->n, (uintptr_t) pool + len, pool);
	return pool;
}

/* ------------------------------------------------------------- what is in it */

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
	pool->region_max = cfg->region_max;
	pool->hardened = is_hardened(cfg);
	pool->fenced = !bp_fence_init();
	bp_heap_init(&pool->heap, pool, cfg);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++) {
		pool->most[k] = (uint32_t) cfg->max_count[k];
		pool->depth[k] = cache_depth(cfg, k, pool->places);
	}
}

/*
 * Have all memory that is needed, or none: what cannot be had in full is not begun
 * with.  The regions' is not there yet after this.
 */
static int pool_take(const struct batch *first, const bufpool_config_t *cfg)
{
	bufpool_t *pool = first->pool;
	size_t head = (size_t) ((char *) pool->region - (char *) pool);
	int error = bp_batch_take(first, tables_needed(cfg, head));

	if (error == 0 && !bp_populate(pool, round_up(head, bp_page_size())))
		error = ENOMEM;
	for (unsigned k = 0; k < BUFPOOL_CLASSES && error == 0; k++)
		for (unsigned i = 0; i < pool->places; i++) {
			const struct depot *depot = pool_depot(pool, i, k);
			uint32_t n = share(cfg->count[k], pool->places, i);

			if (n > 0 && !bp_depot_populate(depot, depot->bufs, n))
				error = ENOMEM;
		}
	return error;
}

static int pool_fill(bufpool_t *pool, const bufpool_config_t *cfg)
{
	const struct batch first = { pool, 0, pool->laid };
	int error = pool_take(&first, cfg);

	if (error == 0)
		error = bp_batch_fill(&first);
	if (error != 0)
		return error;
	pool->demand = bp_demand_new(pool->places);
	if (pool->demand == NULL)
		return ENOMEM;
	error = bp_batch_attach(&first);
	if (error != 0)
		return error;
	bp_batch_show(&first, false);
	return bp_fork_enter(pool) ? 0 : ENOMEM;
}

/* The places are the pool's then, as long as it needs them. */
static bufpool_t *pool_build(const bufpool_config_t *cfg, struct places *places,
                             int *error)
{
	bufpool_t *pool = pool_map(cfg, places);

	*error = ENOMEM;
	if (pool == NULL) {
		bp_places_drop(places);
		return NULL;
	}
	*pool->ground = *places;
	pool_configure(pool, cfg);
	bp_places_tables(places, pool->near, pool->place_of_cpu);
	*error = grows(cfg) ? bp_places_keep(pool->ground) : 0;
	if (*error == 0)
		*error = pool_fill(pool, cfg);
	if (*error != 0) {
		bp_pool_free(pool);
		return NULL;
	}
	if (!grows(cfg))
		bp_places_drop(pool->ground);
	return pool;
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
	config_complete(&cfg);
	if (error == 0)
		error = config_check(&cfg);
	if (error == 0)
		error = bp_places_find(&places, &cfg, topology, nodeset);
	if (error == 0)
		pool = pool_build(&cfg, &places, &error);
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
