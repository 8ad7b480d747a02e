/* SPDX-License-Identifier: MIT */
/* place.c - ask hwloc where memory shall be, the kernel where it is */
#include "place.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

/* --------------------------------------------------------- which places */

#define FOR_EACH_CPU(cpu, topology)                                            \
	for (int cpu = hwloc_bitmap_first(cpus_of(topology)); cpu >= 0;        \
	     cpu = hwloc_bitmap_next(cpus_of(topology), cpu))

static hwloc_const_cpuset_t cpus_of(hwloc_topology_t topology)
{
	return hwloc_topology_get_topology_cpuset(topology);
}

static hwloc_obj_t next_node(hwloc_topology_t topology, hwloc_obj_t node)
{
	return hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node);
}

static bool has_memory(hwloc_obj_t node)
{
	return node->attr->numanode.local_memory > 0;
}

/*
 * The node that a CPU is of: of those with memory that are local to it, the one
 * that is local to the fewest CPUs, as a node of memory alone may be local to
 * all; of equals the first, as hwloc puts the usual kind of memory before the
 * special.  If there is none, one without memory: it tells what is near.
 */
static hwloc_obj_t node_of_cpu(hwloc_topology_t topology, unsigned cpu)
{
	hwloc_obj_t best = NULL, node = NULL;
	int fewest = INT32_MAX;

	while ((node = next_node(topology, node)) != NULL) {
		int cpus = has_memory(node) ? hwloc_bitmap_weight(node->cpuset)
		                            : INT32_MAX - 1;

		if (hwloc_bitmap_isset(node->cpuset, cpu) && cpus < fewest) {
			best = node;
			fewest = cpus;
		}
	}
	return best;
}

static int places_add(struct places *places, unsigned node)
{
	hwloc_nodeset_t set = hwloc_bitmap_alloc();

	if (set == NULL)
		return ENOMEM;
	hwloc_bitmap_only(set, node);
	places->set[places->n++] = set;
	return 0;
}

/* One place for each node among allowed that has CPUs, in hwloc's order. */
static int local_places(struct places *places, hwloc_const_nodeset_t allowed)
{
	hwloc_topology_t topology = places->topology;
	hwloc_nodeset_t with_cpus = hwloc_bitmap_alloc();
	hwloc_obj_t node = NULL;
	int error = 0;

	if (with_cpus == NULL)
		return ENOMEM;
	FOR_EACH_CPU(cpu, topology)
	{
		hwloc_obj_t home = node_of_cpu(topology, (unsigned) cpu);

		if (home != NULL && has_memory(home))
			hwloc_bitmap_set(with_cpus, home->os_index);
	}
	while (error == 0 && places->n < PLACES_MAX &&
	       (node = next_node(topology, node)) != NULL)
		if (hwloc_bitmap_isset(with_cpus, node->os_index) &&
		    hwloc_bitmap_isset(allowed, node->os_index))
			error = places_add(places, node->os_index);
	hwloc_bitmap_free(with_cpus);
	return error != 0 ? error : places->n == 0 ? EINVAL : 0;
}

static int one_place(struct places *places, int wanted,
                     hwloc_const_nodeset_t allowed)
{
	if (wanted >= 0) {
		if (!hwloc_bitmap_isset(allowed, (unsigned) wanted))
			return EINVAL;
		return places_add(places, (unsigned) wanted);
	}
	if (hwloc_bitmap_iszero(allowed))
		return EINVAL;
	places->set[0] = hwloc_bitmap_dup(allowed);
	if (places->set[0] == NULL)
		return ENOMEM;
	places->n = 1;
	return 0;
}

static int choose(struct places *places, int wanted,
                  hwloc_const_nodeset_t within)
{
	hwloc_topology_t topology = places->topology;
	hwloc_nodeset_t allowed;
	int error;

	/* One of another machine, or made up: it says nothing about ours. */
	if (!hwloc_topology_is_thissystem(topology))
		return ENOSYS;
	allowed =
		hwloc_bitmap_dup(hwloc_topology_get_allowed_nodeset(topology));
	if (allowed == NULL)
		return ENOMEM;
	if (within != NULL)
		hwloc_bitmap_and(allowed, allowed, within);
	error = wanted == BUFPOOL_NUMA_LOCAL
	                ? local_places(places, allowed)
	                : one_place(places, wanted, allowed);
	hwloc_bitmap_free(allowed);
	return error;
}

/*
 * A topology with what matters here, which is quicker to load than all.  Without
 * groups a node would have no parent but the machine, and all CPUs for its own.
 */
static int load(struct places *places)
{
	hwloc_topology_t topology;

	if (hwloc_topology_init(&topology) != 0)
		return ENOMEM;
	hwloc_topology_set_all_types_filter(topology,
	                                    HWLOC_TYPE_FILTER_KEEP_NONE);
	hwloc_topology_set_type_filter(topology, HWLOC_OBJ_GROUP,
	                               HWLOC_TYPE_FILTER_KEEP_STRUCTURE);
	if (hwloc_topology_load(topology) != 0) {
		hwloc_topology_destroy(topology);
		return ENOSYS;
	}
	places->topology = topology;
	places->loaded = true;
	return 0;
}

void bp_places_drop(struct places *places)
{
	for (unsigned i = 0; i < places->n; i++)
		hwloc_bitmap_free(places->set[i]);
	if (places->loaded)
		hwloc_topology_destroy(places->topology);
	places->loaded = false;
	places->topology = NULL;
	places->n = 0;
}

int bp_places_keep(struct places *places)
{
	hwloc_topology_t copy;

	if (places->topology == NULL || places->loaded)
		return 0;
	if (hwloc_topology_dup(&copy, places->topology) != 0)
		return ENOMEM;
	places->topology = copy;
	places->loaded = true;
	return 0;
}

/* Leave it to the system. */
static void anywhere(struct places *places)
{
	bp_places_drop(places);
	places->set[0] = NULL;
	places->n = 1;
}

int bp_places_find(struct places *places, const bufpool_config_t *cfg,
                   hwloc_topology_t topology, hwloc_const_nodeset_t within)
{
	int error = 0;

	places->topology = topology;
	places->loaded = false;
	places->strict = (cfg->flags & BUFPOOL_NUMA_STRICT) != 0;
	places->n = 0;
	if (topology == NULL && cfg->numa_node == BUFPOOL_NUMA_ANY) {
		anywhere(places);
		return 0;
	}
	if (topology == NULL)
		error = load(places);
	if (error == 0)
		error = choose(places, cfg->numa_node, within);
	if (error != 0 && places->strict) {
		bp_places_drop(places);
		return error;
	}
	/* Where there is but one node, all memory is on it: nothing to do.  (An
	   application's topology may leave out others that there are.) */
	if (error != 0 || (places->loaded &&
	                   hwloc_get_nbobjs_by_type(places->topology,
	                                            HWLOC_OBJ_NUMANODE) == 1))
		anywhere(places);
	return 0;
}

int bp_place_node(const struct places *places, unsigned place)
{
	hwloc_const_nodeset_t set = places->set[place];

	return set != NULL && hwloc_bitmap_weight(set) == 1
	               ? hwloc_bitmap_first(set)
	               : -1;
}

/* ------------------------------------------------------------- the tables */

/* How far the nodes are from each other, if the platform tells. */
static struct hwloc_distances_s *distances(hwloc_topology_t topology)
{
	struct hwloc_distances_s *d = NULL;
	unsigned n = 1;

	if (hwloc_distances_get_by_type(
		    topology, HWLOC_OBJ_NUMANODE, &n, &d,
		    HWLOC_DISTANCES_KIND_FROM_OS |
			    HWLOC_DISTANCES_KIND_MEANS_LATENCY,
		    0) != 0)
		return NULL;
	return n > 0 ? d : NULL;
}

static uint64_t distance(hwloc_topology_t topology, struct hwloc_distances_s *d,
                         unsigned from, unsigned to)
{
	hwloc_obj_t a = hwloc_get_numanode_obj_by_os_index(topology, from);
	hwloc_obj_t b = hwloc_get_numanode_obj_by_os_index(topology, to);
	hwloc_uint64_t there, back;

	if (d != NULL && a != NULL && b != NULL &&
	    hwloc_distances_obj_pair_values(d, a, b, &there, &back) == 0)
		return there;
	return from != to; /* all the others alike */
}

/* The places in the order of their distance from a node. */
static void sort_places(const struct places *places,
                        struct hwloc_distances_s *d, unsigned from,
                        uint8_t *order)
{
	uint64_t key[PLACES_MAX];

	for (unsigned i = 0; i < places->n; i++) {
		unsigned node = (unsigned) hwloc_bitmap_first(places->set[i]);
		/* Itself first, whatever the platform says. */
		uint64_t far = node == from ? 0
		                            : 1 + distance(places->topology, d,
		                                           from, node);
		unsigned at = i;

		for (; at > 0 && key[at - 1] > far; at--) {
			key[at] = key[at - 1];
			order[at] = order[at - 1];
		}
		key[at] = far;
		order[at] = (uint8_t) i;
	}
}

unsigned bp_places_cpus(const struct places *places)
{
	if (places->n == 1)
		return 0;
	return (unsigned) hwloc_bitmap_last(cpus_of(places->topology)) + 1;
}

void bp_places_tables(const struct places *places, uint8_t *near,
                      uint8_t *place_of_cpu)
{
	hwloc_topology_t topology = places->topology;
	struct hwloc_distances_s *d;

	if (places->n == 1) {
		near[0] = 0;
		return;
	}
	d = distances(topology);
	for (unsigned i = 0; i < places->n; i++)
		sort_places(places, d,
		            (unsigned) hwloc_bitmap_first(places->set[i]),
		            near + i * places->n);
	FOR_EACH_CPU(cpu, topology)
	{
		hwloc_obj_t home = node_of_cpu(topology, (unsigned) cpu);
		uint8_t order[PLACES_MAX] = { 0 };

		/* Its node need not be one of ours. */
		if (home != NULL)
			sort_places(places, d, home->os_index, order);
		place_of_cpu[cpu] = order[0];
	}
	if (d != NULL)
		hwloc_distances_release(topology, d);
}

/* ---------------------------------------------------------------- binding */

static int bind_area(const struct places *places, unsigned place, void *base,
                     size_t len, int flags)
{
	if (hwloc_set_area_membind(places->topology, base, len,
	                           places->set[place], HWLOC_MEMBIND_BIND,
	                           HWLOC_MEMBIND_BYNODESET | flags) == 0)
		return 0;
	switch (errno) {
	case EIO: /* pages that could not be moved */
		return ENOMEM;
	case EXDEV: /* hwloc: this cannot be enforced here */
		return ENOSYS;
	default:
		return errno;
	}
}

int bp_place_prefer(const struct places *places, unsigned place, void *base,
                    size_t len)
{
	return bind_area(places, place, base, len, 0);
}

int bp_place_bring_home(const struct places *places, unsigned place, void *base,
                        size_t len)
{
	/* To bind them first makes the kernel free what it can on the node,
	   page cache say, which a preference does not. */
	int error = bind_area(places, place, base, len,
	                      HWLOC_MEMBIND_STRICT | HWLOC_MEMBIND_MIGRATE);
	/* Never leave it so, failed or not: a page that has to come back
	   later, to a node that is full by then, would cost some process its
	   life. */
	int undo = bp_place_prefer(places, place, base, len);

	return error != 0 ? error : undo;
}

/* ---------------------------------------------- where memory really lies */

#define PAGES 512 /* asked about at a time */

/* The nodes of up to PAGES pages from base on, negative where unknown: how
   many there are, or -1 with errno. */
static int page_nodes(const char *base, size_t len, int *node)
{
	static const size_t page = PAGE;
	const void *at[PAGES];
	unsigned n = 0;

	for (; n < PAGES && n * page < len; n++)
		at[n] = base + n * page;
	if (syscall(SYS_move_pages, 0, (unsigned long) n, at, NULL, node, 0) !=
	    0)
		return -1;
	return (int) n;
}

int bp_place_check(const struct places *places, unsigned place, void *base,
                   size_t len)
{
	int node[PAGES];

	for (size_t at = 0; at < len; at += PAGES * PAGE) {
		int n = page_nodes((char *) base + at, len - at, node);

		if (n < 0)
			return errno;
		/* A page that the kernel just looks at itself has no known
		   node for the moment. */
		while (n-- > 0)
			if (node[n] >= 0 &&
			    !hwloc_bitmap_isset(places->set[place],
			                        (unsigned) node[n]))
				return EXDEV;
	}
	return 0;
}

int bp_node_of(const void *base, size_t len)
{
	int node[PAGES], all = -1;

	for (size_t at = 0; at < len; at += PAGES * PAGE) {
		int n = page_nodes((const char *) base + at, len - at, node);

		if (n < 0)
			return -1;
		while (n-- > 0) {
			if (node[n] < 0 || node[n] == all)
				continue;
			if (all >= 0)
				return -1;
			all = node[n];
		}
	}
	return all;
}

void bp_node_keep(void *base, size_t len)
{
	int policy;

	/* A thread that has chosen a policy is not balanced anyway.  Where
	   this is refused, there is no balancing or it cannot be helped. */
	if (syscall(SYS_get_mempolicy, &policy, NULL, 0, NULL, 0) == 0 &&
	    policy == MPOL_DEFAULT)
		syscall(SYS_mbind, base, len, MPOL_LOCAL, NULL, 0, 0);
}

/* ----------------------------------------------------------- best node */

/* The best node for one CPU; NULL if none is reported. */
static hwloc_obj_t best_for(hwloc_topology_t topology, hwloc_cpuset_t cpu,
                            hwloc_memattr_id_t attribute, hwloc_uint64_t *value)
{
	struct hwloc_location from = {
		.type = HWLOC_LOCATION_TYPE_CPUSET,
		.location.cpuset = cpu,
	};
	hwloc_obj_t node;

	return hwloc_memattr_get_best_target(topology, attribute, &from, 0,
	                                     &node, value) == 0
	               ? node
	               : NULL;
}

int bufpool_hwloc_best_node(hwloc_topology_t topology,
                            hwloc_const_cpuset_t initiator,
                            hwloc_memattr_id_t attribute)
{
	int saved = errno, best = -1;
	hwloc_uint64_t value, best_value = 0;
	unsigned long flags;
	hwloc_cpuset_t one;

	if (topology == NULL || initiator == NULL ||
	    hwloc_bitmap_iszero(initiator) ||
	    hwloc_memattr_get_flags(topology, attribute, &flags) != 0) {
		errno = EINVAL;
		return -1;
	}
	one = hwloc_bitmap_alloc();
	if (one == NULL) {
		errno = ENOMEM;
		return -1;
	}
	/* CPU by CPU: platforms report for the CPUs of one node at a time, and
	   a set that spans several is none that they know of. */
	FOR_EACH_CPU(cpu, topology)
	{
		hwloc_obj_t node;

		if (!hwloc_bitmap_isset(initiator, (unsigned) cpu))
			continue;
		hwloc_bitmap_only(one, (unsigned) cpu);
		node = best_for(topology, one, attribute, &value);
		if (node == NULL)
			continue;
		if (best < 0 || ((flags & HWLOC_MEMATTR_FLAG_HIGHER_FIRST) != 0
		                         ? value > best_value
		                         : value < best_value)) {
			best = (int) node->os_index;
			best_value = value;
		}
	}
	hwloc_bitmap_free(one);
	errno = best >= 0 ? saved : ENOENT;
	return best;
}
