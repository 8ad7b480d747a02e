/* SPDX-License-Identifier: MIT */
#include "atlas.h"

static struct region **table_of(const bufpool_t *pool, unsigned n)
{
	return pool->by_address + (n % 2) * (size_t) pool->regions_most;
}

/* By what its buffers say: in a child the memory may be missing. */
static uintptr_t start_of(const struct region *r)
{
	return (uintptr_t) r->bufs->base;
}

void bp_atlas_enter(bufpool_t *pool, struct region *r)
{
	unsigned n = pool->charted;
	struct region **old = table_of(pool, n), **now = table_of(pool, n + 1);
	unsigned i = 0;

	for (; i < n && start_of(old[i]) < start_of(r); i++)
		ck_pr_store_ptr(&now[i], old[i]);
	ck_pr_store_ptr(&now[i], r);
	for (; i < n; i++)
		ck_pr_store_ptr(&now[i + 1], old[i]);
	ck_pr_fence_release(); /* all of this before it can be seen */
	ck_pr_store_uint(&pool->charted, n + 1);
}

/* The last of n regions that starts at p or below; NULL: none does. */
static struct region *last_below(struct region **table, unsigned n, uintptr_t p)
{
	struct region *found = NULL;

	while (n > 0) {
		unsigned half = n / 2;
		struct region *r = ck_pr_load_ptr(&table[half]);

		if (start_of(r) <= p) {
			found = r;
			table += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return found;
}

struct region *bp_atlas_region(const bufpool_t *pool, const void *p)
{
	unsigned n = ck_pr_load_uint(&pool->charted), again;
	struct region *r;

	for (;; n = again) {
		ck_pr_fence_acquire(); /* n before the table; */
		r = last_below(table_of(pool, n), n, (uintptr_t) p);
		ck_pr_fence_load(); /* and that before n, once more */
		again = ck_pr_load_uint(&pool->charted);
		if (again == n)
			return r;
	}
}

struct bp_buf *bp_atlas_find(const bufpool_t *pool, const void *p)
{
	struct region *r = bp_atlas_region(pool, p);
	size_t i;

	if (r == NULL)
		return NULL;
	i = ((uintptr_t) p - start_of(r)) / class_size[r->pub.size_class];
	return i < r->count ? &r->bufs[i] : NULL;
}
