/* SPDX-License-Identifier: MIT */
/*
 * place.h - NUMA: on which nodes a pool lies, and at which of them a thread is
 *
 * A place is where one part of a pool's memory belongs: a set of NUMA nodes,
 * mostly of one.  A pool has one place, under BUFPOOL_NUMA_LOCAL one for each
 * node with CPUs.  hwloc is asked while a pool is created and not afterwards:
 * two small tables in the pool say at which place a CPU is, and in what order
 * the others follow.
 *
 * Nodes go by their OS index throughout, as in the public interface and in
 * hwloc's node sets; a node's logical index may be another.
 */
#ifndef PLACE_H
#define PLACE_H

#include "buf.h"

#pragma GCC visibility push(default)
#include <bufpool/hwloc.h>
#pragma GCC visibility pop

#define PLACES_MAX 64 /* what a seal can tell apart, see bufpool/inline.h */

/* Where the memory of a pool that is being created goes. */
struct places {
	hwloc_topology_t topology; /* NULL: wherever the system puts it */
	bool loaded;               /* the topology is ours */
	bool strict;
	unsigned n;
	hwloc_nodeset_t set[PLACES_MAX];
};

/*
 * Find the places that a configuration means, in an application's topology or,
 * if that is NULL, one loaded here; within a set of nodes, if that is not NULL.
 * Returns 0, or the errno that create fails with.
 */
int bp_places_find(struct places *places, const bufpool_config_t *cfg,
                   hwloc_topology_t topology, hwloc_const_nodeset_t within);
void bp_places_drop(struct places *places);

/* Have them outlive the application's topology: 0, or an errno. */
int bp_places_keep(struct places *places);

/*
 * The two tables: row i of near, n entries, has the places in the order of
 * their distance from place i, itself first; place_of_cpu goes by the OS index
 * of the CPU.  A pool with one place needs neither: there are no cpus then.
 */
unsigned bp_places_cpus(const struct places *places);
void bp_places_tables(const struct places *places, uint8_t *near,
                      uint8_t *place_of_cpu);

/* What of a class lies at a place: its share, the first ones one more. */
static inline uint32_t share(size_t count, unsigned places, unsigned place)
{
	return (uint32_t) (count / places + (place < count % places));
}

/* Have pages that come to be here come from the place, if it has any. */
int bp_place_prefer(const struct places *places, unsigned place, void *base,
                    size_t len);

/*
 * Move the pages here to the place.  ENOMEM if it cannot hold them: some are
 * then elsewhere, with their contents.
 */
int bp_place_bring_home(const struct places *places, unsigned place, void *base,
                        size_t len);

/* Look where the pages here are: 0, EXDEV if one is not at the place, or the
   errno that keeps us from looking. */
int bp_place_check(const struct places *places, unsigned place, void *base,
                   size_t len);

/* The place's only node, or -1 if it has several. */
int bp_place_node(const struct places *places, unsigned place);

/* The node that all pages here are on; -1: several, none, or unknown. */
int bp_node_of(const void *base, size_t len);

/*
 * The pages that will be here are to stay where they come to be: without a
 * policy of their own the kernel's automatic NUMA balancing would move them, by
 * way of page faults.  To be called before they are there: those that balancing
 * has an eye on already have that fault ahead.
 */
void bp_node_keep(void *base, size_t len);

#endif
