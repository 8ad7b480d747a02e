/* SPDX-License-Identifier: MIT */
#include "magazine.h"

uint64_t bp_magazine_count(const struct bp_magazine *m)
{
	uint64_t t = ck_pr_load_64(&m->top);
	uint64_t b = ck_pr_load_64(&m->bottom);

	return (int64_t) (b - t) > 0 ? b - t : 0;
}

void bp_magazine_make_room(struct bp_magazine *m, unsigned depth)
{
	/* Without any, not even where a thief has taken what was in. */
	uint64_t from = depth > 0 ? ck_pr_load_64(&m->top) : m->bottom;

	ck_pr_store_64(&m->room, from + depth);
}

void bp_magazine_init(struct bp_magazine *m, unsigned depth)
{
	m->bottom = m->top = m->limit = INDEX_START;
	m->offset = -(uint64_t) INDEX_START;
	bp_magazine_make_room(m, depth);
}

/*
 * Take from the contested end, below b; false if nothing is there.  Bottom (in
 * b) was read before the slots: what lies below it was written before it was
 * published, and the acquire fence keeps the reads in that order.
 */
static bool take_top(struct bp_magazine *m, uint64_t b, struct bp_buf **out)
{
	uint64_t t = ck_pr_load_64(&m->top);

	ck_pr_fence_acquire();
	do {
		if ((int64_t) (b - t) <= 0)
			return false;
		/* If the slot was written anew meanwhile, top has moved. */
		*out = ck_pr_load_ptr(&m->slot[SLOT(t)]);
		ck_pr_fence_load_atomic();
	} while (!ck_pr_cas_64_value(&m->top, t, t + 1, &t));
	ck_pr_fence_acquire();
	return true;
}

static uint64_t min_index(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct bp_buf *bp_magazine_steal(struct bp_magazine *m, uint64_t end)
{
	struct bp_buf *d;

	return take_top(m, min_index(ck_pr_load_64(&m->bottom), end), &d) ? d
	                                                                  : NULL;
}

/* Where the contested part ends, to the owner, who knows bottom. */
static uint64_t contested_end(const struct bp_magazine *m)
{
	return min_index(m->bottom, ck_pr_load_64(&m->limit));
}

/* The owner takes the n below bottom; n is 1, or no more than there were a
   moment ago.  False if there is none, or one of them may be contested. */
static bool withdraw(struct bp_magazine *m, uint64_t n, bool fenced)
{
	uint64_t b = m->bottom - n;

	ck_pr_store_64(&m->bottom, b);
	bp_owner_fence(fenced);
	if (CK_CC_UNLIKELY(b < OWNER_SEE(&m->limit))) {
		ck_pr_store_64(&m->bottom, b + n);
		return false;
	}
	return true;
}

struct bp_buf *bp_magazine_take(struct bp_magazine *m, bool fenced)
{
	struct bp_buf *d;

	if (bp_magazine_count(m) == 0)
		return NULL;
	if (withdraw(m, 1, fenced))
		return m->slot[SLOT(m->bottom)];
	if (!take_top(m, contested_end(m), &d))
		return NULL;
	bp_add(&m->offset, -(uint64_t) 1); /* bottom has not moved */
	return d;
}

unsigned bp_magazine_take_many(struct bp_magazine *m, struct bp_buf **out,
                               unsigned n, bool fenced)
{
	for (;;) {
		uint64_t count = bp_magazine_count(m);
		uint64_t b = m->bottom;
		unsigned got = 0;

		if (n > count)
			n = (unsigned) count;
		if (n == 0)
			return 0;
		if (withdraw(m, n, fenced)) {
			bp_add(&m->offset, n);
			for (; got < n; got++)
				out[got] = m->slot[SLOT(b - 1 - got)];
			return got;
		}
		/* The contested part only: top must not pass limit. */
		b = contested_end(m);
		while (got < n && take_top(m, b, &out[got]))
			got++;
		if (got > 0)
			return got;
	}
}

uint64_t bp_magazine_contest(struct bp_magazine *m)
{
	uint64_t limit = ck_pr_load_64(&m->limit), b;

	do {
		b = ck_pr_load_64(&m->bottom);
		if (b <= limit)
			return limit; /* all of it is contested already */
	} while (!ck_pr_cas_64_value(&m->limit, limit, b, &limit));
	return b;
}

void bp_magazine_revoke(struct bp_magazine *m)
{
	ck_pr_store_64(&m->limit, LIMIT_REVOKED);
}
