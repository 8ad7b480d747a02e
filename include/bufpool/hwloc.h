/* SPDX-License-Identifier: MIT */
/*
 * bufpool/hwloc.h - pools for programs that use hwloc themselves
 *
 * The only header of libbufpool that needs hwloc's; add its flags too:
 * pkg-config --cflags --libs bufpool hwloc.
 */
#ifndef BUFPOOL_HWLOC_H
#define BUFPOOL_HWLOC_H

#include <bufpool.h>
#include <hwloc.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * bufpool_create() on the nodes of a set, as the application's topology has
 * them.  The topology is used during the call only, and not by several threads
 * at once; it saves loading another, which takes about as long as creating a
 * small pool.  A NULL set means all nodes.  The configuration's numa_node says
 * how:
 *
 *     BUFPOOL_NUMA_ANY    anywhere on the set
 *     BUFPOOL_NUMA_LOCAL  on each node of the set that has CPUs; a thread on
 *                         another is served from the nearest
 *     an OS index         on this node, which must be in the set
 *
 * BUFPOOL_NUMA_STRICT makes create fail if that cannot be; else the memory goes
 * where it can.  A topology that is not this system's places nothing.
 *
 * EINVAL  besides what bufpool_create() says: no topology; an empty set
 */
bufpool_t *bufpool_create_hwloc(const bufpool_config_t *config,
                                hwloc_topology_t topology,
                                hwloc_const_nodeset_t nodeset);

/*
 * The OS index of the node that is best for a set of CPUs by a memory
 * attribute, such as HWLOC_MEMATTR_ID_BANDWIDTH, _LATENCY or _CAPACITY: the
 * best that is reported for any CPU of the set, which may span nodes.  Use it
 * as the numa_node of a configuration.
 *
 * EINVAL  no topology, no CPUs, no such attribute
 * ENOENT  the platform reports none
 */
int bufpool_hwloc_best_node(hwloc_topology_t topology,
                            hwloc_const_cpuset_t initiator,
                            hwloc_memattr_id_t attribute);

#ifdef __cplusplus
}
#endif

#endif /* BUFPOOL_HWLOC_H */
