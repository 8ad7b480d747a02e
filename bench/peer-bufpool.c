/* SPDX-License-Identifier: MIT */
/*
 * peer-bufpool.c - libbufpool: as it comes, on the nodes of its threads, with
 * WIPE_USED, without caches, hardened
 */
#include "peer-bufpool.h"

/* With one node it is as any other pool.  A class has a region on each. */
static bool start_local(const struct peer *peer, char *version)
{
	const struct job job = { .size = SIZE_4K };
	bufpool_t *pool = create(peer, &job);
	size_t nodes = bufpool_regions(pool, NULL, 0);

	bufpool_destroy(pool);
	snprintf(version, TEXT_SIZE, "%s, %zu node%s", bufpool_version(), nodes,
	         nodes == 1 ? "" : "s");
	return true;
}

const struct peer peer_bufpool = {
	.name = "bufpool", .what = "libbufpool", .start = start, PEER
};
const struct peer peer_bufpool_local = {
	.name = "bufpool-local",
	.what = "libbufpool, BUFPOOL_NUMA_LOCAL",
	.start = start_local,
	PEER
};
const struct peer peer_bufpool_used = { .name = "bufpool-used",
	                                .what = "libbufpool, BUFPOOL_WIPE_USED",
	                                .start = start,
	                                PEER };
const struct peer peer_bufpool_nocache = {
	.name = "bufpool-nocache",
	.what = "libbufpool without thread caches",
	.start = start,
	PEER
};
const struct peer peer_bufpool_hardened = { .name = "bufpool-hardened",
	                                    .what = "libbufpool, BUFPOOL_HARDENED",
	                                    .start = start,
	                                    PEER };
