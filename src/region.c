/* SPDX-License-Identifier: MIT */
/* region.c - map memory, place it, populate it */
#include "region.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "room.h"
#include "track.h"

/* What is placed before it is looked at. */
#define CHUNK HUGE_PAGE

/*
 * Populate at a place, a little at a time: prefer the place, which never fails
 * for want of memory there, see where the pages have come from, bring strays
 * home.  (To bind memory strictly and then touch it is no way to ask whether a
 * node can hold it: the kernel answers by killing the largest process.)
 * Returns 0 if all is at home, EXDEV if it need not be and is not.
 */
static int populate_at(char *base, size_t len, const struct places *places,
                       unsigned place)
{
	int error = bp_place_prefer(places, place, base, len);

	for (size_t at = 0; at < len; at += CHUNK) {
		size_t n = len - at < CHUNK ? len - at : CHUNK;

		if (error != 0 && places->strict)
			return error;
		if (!bp_populate(base + at, n))
			return ENOMEM;
		if (error == 0)
			error = bp_place_check(places, place, base + at, n);
		if (error == EXDEV)
			error = bp_place_bring_home(places, place, base + at,
			                            n);
	}
	if (error != 0 && !places->strict)
		error = EXDEV;
	return error;
}

/* ---------------------------------------------------------------- regions */

/* Whether all of a mapping came to be on huge pages; looks up what the kernel
   says of it. */
static bool is_huge(const void *base, size_t len)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	uintptr_t from = (uintptr_t) base, start, end;
	char line[256];
	int64_t kb = 0;

	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) ==
		            2 &&
		    start <= from && from < end) {
			kb = bp_figure(file, "AnonHugePages:");
			break;
		}
	fclose(file);
	return kb >= 0 && (uint64_t) kb * 1024 >= len;
}

/* False if what the flags promise cannot be kept. */
static bool advise(const struct region *r, unsigned flags)
{
	return ((flags & BUFPOOL_DONTDUMP) == 0 ||
	        madvise(r->pub.base, r->mapped, MADV_DONTDUMP) == 0) &&
	       ((flags & BUFPOOL_DONTFORK) == 0 ||
	        madvise(r->pub.base, r->mapped, MADV_DONTFORK) == 0);
}

static bool make_usable(const struct region *r, unsigned flags)
{
	/* First: after mlockall(MCL_FUTURE), mprotect() populates. */
	if ((flags & BUFPOOL_HUGEPAGES) != 0)
		madvise(r->pub.base, r->mapped, MADV_HUGEPAGE);
	return bp_make_usable(r->pub.base, r->mapped);
}

/* Put memory where the place wants it. */
static int fill(struct region *r, const struct places *places, unsigned place)
{
	int error = 0;

	if (places->topology != NULL) {
		error = populate_at(r->pub.base, r->mapped, places, place);
	} else {
		bp_node_keep(r->pub.base, r->mapped);
		if (!bp_populate(r->pub.base, r->mapped))
			error = ENOMEM;
	}
	if (places->topology != NULL && error == 0)
		r->pub.numa_node = bp_place_node(places, place);
	if (r->pub.numa_node < 0)
		r->pub.numa_node = NODE_ASK;
	return error == EXDEV ? 0 : error;
}

uintptr_t bp_region_lay(struct region *r, uintptr_t end, size_t n, size_t size,
                        unsigned flags)
{
	bool huge = (flags & BUFPOOL_HUGEPAGES) != 0;
	uintptr_t begin = bp_past_guard(end, region_alignment(size, flags));

	r->pub.base = (void *) begin;
	r->pub.len = n * size;
	r->before = begin - bp_past_guard(end, 1);
	r->mapped = round_up(r->pub.len, huge ? HUGE_PAGE : bp_page_size());
	return begin + r->mapped;
}

bool bp_region_elsewhere(struct region *r, unsigned flags)
{
	size_t size = r->pub.len / r->count;

	r->pub.base = bp_reserve(r->mapped, region_alignment(size, flags));
	r->before = bp_page_size();
	if (r->pub.base == NULL)
		r->mapped = 0;
	return r->pub.base != NULL;
}

/* After what was mapped at its place has gone; false if there is no address space. */
static bool reserve_anew(struct region *r)
{
	char *base = r->pub.base;

	if (bp_claim(base, r->mapped, false))
		return true;
	/* What another thread has mapped there stays; not what was around it. */
	bp_unmap(base - r->before, r->before);
	bp_unmap(base + r->mapped, bp_page_size());
	return bp_region_elsewhere(r, BUFPOOL_HUGEPAGES);
}

bool bp_region_take_huge(struct region *r)
{
	bp_unmap(r->pub.base, r->mapped);
	r->keep = bp_claim(r->pub.base, r->mapped, true);
	return r->keep || reserve_anew(r);
}

static int try_fill(struct region *r, const struct places *places,
                    unsigned place, unsigned flags)
{
	int error = ENOMEM;

	r->pub.numa_node = NODE_ASK;
	if ((r->keep || make_usable(r, flags)) && advise(r, flags))
		error = fill(r, places, place);
	if (error == 0 && (flags & BUFPOOL_LOCKED) != 0 &&
	    mlock(r->pub.base, r->mapped) != 0)
		error = errno == EPERM ? EPERM : ENOMEM;
	return error;
}

int bp_region_fill(struct region *r, const struct places *places,
                   unsigned place, unsigned flags)
{
	int error = try_fill(r, places, place, flags);

	/* Reserved ones may not be had at that node, say. */
	if (error != 0 && r->keep) {
		bp_unmap(r->pub.base, r->mapped);
		r->keep = false;
		if (!reserve_anew(r) || !bp_has_room(r->mapped))
			return ENOMEM;
		error = try_fill(r, places, place, flags);
	}
	if (error != 0)
		return error;
	/* Objects of the program's that lie in buffers may own others. */
	track_root(r->pub.base, r->mapped);
	r->filled = true;
	if (r->keep || ((flags & BUFPOOL_HUGEPAGES) != 0 &&
	                is_huge(r->pub.base, r->mapped)))
		r->pub.page_size = HUGE_PAGE;
	else
		r->pub.page_size = bp_page_size();
	return 0;
}

void bp_region_destroy(struct region *r)
{
	if (r->mapped == 0)
		return;
	if (r->filled)
		track_unroot(r->pub.base, r->mapped);
	bp_release(r->pub.base, r->before, r->mapped);
}

void bp_region_vacate(struct region *r)
{
	if (r->filled)
		track_unroot(r->pub.base, r->mapped);
	bp_vacate(r->pub.base, r->mapped);
}

bool bp_region_renew(struct region *r, unsigned flags)
{
	void *base =
		mmap(r->pub.base, r->mapped, PROT_READ | PROT_WRITE,
	             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	r->keep = false;
	r->pub.page_size = bp_page_size();
	r->pub.numa_node = NODE_ASK;
	if (base == r->pub.base && advise(r, flags))
		return true;
	track_unroot(r->pub.base, r->mapped);
	/* What is there now is not ours, to mark or to unmap. */
	TRACK_OUT(r->pub.base, r->pub.len);
	r->pub.base = NULL;
	r->pub.len = r->mapped = 0;
	return false;
}

/* ---------------------------------------------- while the pool is in use */

bool bp_region_drop(struct region *r, void *base, size_t len)
{
	ck_pr_store_uint(&r->trimmed, 1); /* nobody orders anything by it */
	return bp_drop(base, len);
}

void bp_region_refill(void *base, size_t len)
{
	/* If it fails, the owner's first touch will tell. */
	bp_populate(base, len);
}

int bp_region_node(const struct region *r)
{
	return ck_pr_load_uint(&r->trimmed) ? NODE_ASK : r->pub.numa_node;
}

bufpool_region_t bp_region_describe(const struct region *r)
{
	bufpool_region_t out = r->pub;

	out.numa_node = bp_region_node(r);
	if (out.numa_node == NODE_ASK)
		out.numa_node = bp_node_of(out.base, out.len);
	if (ck_pr_load_uint(&r->trimmed))
		out.page_size = bp_page_size();
	return out;
}
