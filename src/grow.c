/* SPDX-License-Identifier: MIT */
#include "grow.h"

#include <errno.h>
#include <string.h>

#include "atlas.h"
#include "cancel.h"
#include "erase.h"
#include "region.h"
#include "room.h"
#include "track.h"

/* ------------------------------------------------------------------ a batch */

/* The next one of a class at a place, for n buffers. */
static struct region *next_region(bufpool_t *pool, unsigned place, unsigned k,
                                  size_t n)
{
	struct depot *depot = pool_depot(pool, place, k);
	struct plot *plot = pool_plot(pool, place, k);
	struct region *r = &pool->region[pool->laid];

	memset(r, 0, sizeof(*r));
	r->pub.index = pool->laid++;
	r->pub.size_class = (int) k;
	r->place = place;
	r->bufs = depot->bufs + plot->laid;
	r->count = (uint32_t) n;
	plot->laid += (uint32_t) n;
	return r;
}

uintptr_t bp_lay_out(bufpool_t *pool, unsigned place, unsigned k, size_t n,
                     uintptr_t end, unsigned flags, size_t region_max)
{
	size_t most = region_max > 0 ? region_max / class_size[k] : n;

	while (n > 0) {
		size_t some = min_size(n, most);
		struct region any, *r = &any;

		if (pool != NULL)
			r = next_region(pool, place, k, some);
		end = bp_region_lay(r, end, some, class_size[k], flags);
		n -= some;
	}
	return end;
}

int bp_batch_take(const struct batch *b, size_t more)
{
	bufpool_t *pool = b->pool;
	size_t needs = more;

	for (unsigned i = b->from; i < b->to; i++) {
		struct region *r = &pool->region[i];

		if ((pool->flags & BUFPOOL_HUGEPAGES) != 0 &&
		    !bp_region_take_huge(r))
			return ENOMEM;
		needs += region_needs(r);
	}
	return bp_has_room(needs) ? 0 : ENOMEM;
}

static void describe(bufpool_t *pool, const struct region *r)
{
	unsigned k = (unsigned) r->pub.size_class;

	for (uint32_t i = 0; i < r->count; i++) {
		struct bp_buf *d = &r->bufs[i];

		d->pool = pool;
		buf_init(d, k, r->place, (char *) r->pub.base + i * class_size[k],
		         pool->wipe);
		d->state = BP_HOME;
	}
}

int bp_batch_fill(const struct batch *b)
{
	for (unsigned i = b->from; i < b->to; i++) {
		struct region *r = &b->pool->region[i];
		int error = bp_region_fill(r, b->pool->ground, r->place,
		                           b->pool->flags);

		if (error != 0)
			return error;
		describe(b->pool, r);
		bp_erase_choose((unsigned) r->pub.size_class, r->pub.base);
	}
	return 0;
}

int bp_batch_attach(const struct batch *b)
{
	bufpool_t *pool = b->pool;

	for (unsigned i = b->from; pool->attach != NULL && i < b->to; i++) {
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

/* All is known of it before the first of its buffers can be taken. */
static void enter(bufpool_t *pool, struct region *r)
{
	unsigned k = (unsigned) r->pub.size_class;

	/* The program's hooks may touch what is registered: marked after that. */
	TRACK_IDLE(r->pub.base, r->pub.len);
	bp_atlas_enter(pool, r);
	ck_pr_add_64(&pool->left, r->count);
	ck_pr_store_32(&pool->total[k], pool->total[k] + r->count);
}

struct bp_buf *bp_batch_show(const struct batch *b, bool keep_one)
{
	bufpool_t *pool = b->pool;
	struct bp_buf *kept = NULL;

	for (unsigned i = b->from; i < b->to; i++)
		enter(pool, &pool->region[i]);
	ck_pr_fence_release(); /* all of this before it can be seen */
	ck_pr_store_uint(&pool->regions, b->to);
	for (unsigned i = b->from; i < b->to; i++) {
		struct region *r = &pool->region[i];
		unsigned k = (unsigned) r->pub.size_class;
		uint32_t n = r->count;

		if (keep_one && i + 1 == b->to)
			kept = &r->bufs[--n];
		bp_depot_add(pool_depot(pool, r->place, k), r->bufs, r->count, n);
		if (n > 0)
			demand_given(pool->demand, k, n);
	}
	return kept;
}

/* ------------------------------------------------------------------- growing */

static bool is_in(const struct region *r, const struct plot *plot)
{
	uintptr_t base = (uintptr_t) r->pub.base;

	return base >= plot->next && base + r->mapped <= plot->end;
}

/* As if it had never been laid out; what lies in a plot is address space again. */
static void undo(const struct batch *b)
{
	bufpool_t *pool = b->pool;
	bufpool_region_t shown;

	for (unsigned i = b->to; i-- > b->from;) {
		struct region *r = &pool->region[i];
		struct plot *plot = pool_plot(pool, r->place,
		                              (unsigned) r->pub.size_class);

		if (r->attached && pool->detach != NULL) {
			shown = bp_region_describe(r);
			pool->detach(pool->attach_arg, &shown, shown.cookie);
		}
		plot->laid -= r->count;
		if (is_in(r, plot))
			bp_region_vacate(r);
		else
			bp_region_destroy(r);
	}
	pool->laid = b->from;
}

/* Lay out n more behind what is there; false if there is no address space for it, or
   the table is full. */
static bool lay_out(struct batch *b, unsigned place, unsigned k, size_t n)
{
	bufpool_t *pool = b->pool;
	struct plot *plot = pool_plot(pool, place, k);
	unsigned first = pool->laid;
	size_t most = pool->region_max > 0 ? pool->region_max / class_size[k] : n;
	bool ok = true;
	uintptr_t end;

	if (n > 0 && (n + most - 1) / most > pool->regions_most - pool->laid)
		return false;
	end = bp_lay_out(pool, place, k, n, plot->next, pool->flags,
	                 pool->region_max);
	b->to = pool->laid;
	plot->taken = n > 0 && end <= plot->end ? end : 0;
	/* Many small ones, with guards between them, do not fit. */
	for (unsigned i = first; end > plot->end && i < b->to; i++)
		ok &= bp_region_elsewhere(&pool->region[i], pool->flags);
	return ok;
}

/* Tables that are going to be written. */
static size_t describe_needs(const struct batch *b)
{
	size_t n = 0;

	for (unsigned i = b->from; i < b->to; i++)
		n += b->pool->region[i].count;
	return n * (sizeof(struct bp_buf) + sizeof(uint32_t)) + 4 * PAGE;
}

static bool describe_take(const struct batch *b)
{
	for (unsigned i = b->from; i < b->to; i++) {
		const struct region *r = &b->pool->region[i];
		const struct depot *depot = pool_depot(
			b->pool, r->place, (unsigned) r->pub.size_class);

		if (!bp_depot_populate(depot, r->bufs, r->count))
			return false;
	}
	return true;
}

static int bring(struct batch *b)
{
	int error = bp_batch_take(b, describe_needs(b));

	if (error == 0 && !describe_take(b))
		error = ENOMEM;
	if (error == 0)
		error = bp_batch_fill(b);
	if (error == 0)
		error = bp_batch_attach(b);
	return error;
}

/* What has moved out of a plot has left a hole, where others may map: no more is laid
   out there, and what is in it goes by itself. */
static void leave_plots(const struct batch *b)
{
	for (unsigned i = b->from; i < b->to; i++) {
		const struct region *r = &b->pool->region[i];
		struct plot *plot = pool_plot(b->pool, r->place,
		                              (unsigned) r->pub.size_class);

		if (plot->taken == 0 || is_in(r, plot))
			continue;
		if (plot->taken < plot->end)
			bp_unmap((char *) plot->taken + bp_page_size(),
			         plot->end - plot->taken);
		plot->next = plot->end = plot->taken = 0;
	}
}

static void use_plots(const struct batch *b)
{
	for (unsigned i = b->from; i < b->to; i++) {
		const struct region *r = &b->pool->region[i];
		struct plot *plot = pool_plot(b->pool, r->place,
		                              (unsigned) r->pub.size_class);

		if (plot->taken != 0)
			plot->next = plot->taken;
	}
}

#define EVERYWHERE (-1)

/* By who has the flag.  One buffer is for who wants it in kept. */
static int grow(bufpool_t *pool, int place, unsigned k, size_t n,
                struct bp_buf **kept)
{
	struct batch b = { pool, pool->laid, pool->laid };
	struct bp_buf *one;
	int error = 0;

	if (n > pool->most[k] - pool->total[k])
		return EINVAL;
	for (unsigned i = 0; i < pool->places && error == 0; i++) {
		size_t some = place == EVERYWHERE ? share(n, pool->places, i)
		              : place == (int) i  ? n
		                                  : 0;

		if (!lay_out(&b, i, k, some))
			error = ENOMEM;
	}
	b.to = pool->laid;
	if (error == 0)
		error = bring(&b);
	leave_plots(&b);
	if (error != 0) {
		undo(&b);
		return error;
	}
	use_plots(&b);
	one = bp_batch_show(&b, kept != NULL);
	if (kept != NULL)
		*kept = one;
	return 0;
}

static bool begin(bufpool_t *pool)
{
	if (!ck_pr_cas_uint(&pool->growing, 0, 1))
		return false;
	ck_pr_fence_acquire(); /* what the last one did before what we do */
	return true;
}

static void end(bufpool_t *pool)
{
	ck_pr_fence_release(); /* what we did before the next one's */
	ck_pr_store_uint(&pool->growing, 0);
}

/* Something comes home: another number. */
static uint64_t stamp_of(bufpool_t *pool, unsigned k)
{
	uint64_t stamp = 1;

	for (unsigned i = 0; i < pool->places; i++)
		stamp += bp_depot_stamp(pool_depot(pool, i, k));
	return stamp;
}

bool bp_may_grow(bufpool_t *pool, unsigned k)
{
	return ck_pr_load_32(&pool->total[k]) < pool->most[k] &&
	       ck_pr_load_64(&pool->refused[k]) != stamp_of(pool, k);
}

int bp_grow(bufpool_t *pool, unsigned k, size_t n)
{
	int error, cancel = cancel_never();

	if (begin(pool)) {
		error = grow(pool, EVERYWHERE, k, n, NULL);
		end(pool);
	} else {
		error = EAGAIN;
	}
	cancel_again(cancel);
	return error;
}

struct bp_buf *bp_grow_exhausted(bufpool_t *pool, unsigned place, unsigned k,
                                 uint32_t total)
{
	size_t n = min_size(total > 1 ? total / 2 : 1, pool->most[k] - total);
	struct bp_buf *kept = NULL;
	int saved = errno, cancel;

	if (!begin(pool))
		return NULL;
	cancel = cancel_never();
	if (pool->total[k] == total &&
	    grow(pool, (int) place, k, n, &kept) != 0)
		ck_pr_store_64(&pool->refused[k], stamp_of(pool, k));
	end(pool);
	cancel_again(cancel);
	errno = saved;
	return kept;
}
