/* SPDX-License-Identifier: MIT */
#include "roster.h"

static uint64_t bit_of(struct berth berth)
{
	return (uint64_t) 1 << berth.n % 64;
}

static bool set_if_clear(uint64_t *word, uint64_t bit)
{
	uint64_t was = ck_pr_load_64(word);

	do {
		if ((was & bit) != 0)
			return false;
	} while (!ck_pr_cas_64_value(word, was, was | bit, &was));
	return true;
}

bool bp_roster_claim(struct berth berth)
{
	if (!set_if_clear(&berth.roster->taken[berth.n / 64], bit_of(berth)))
		return false;
	ck_pr_fence_acquire(); /* its last owner's writes before ours */
	ck_pr_or_64(&berth.roster->counted[berth.n / 64], bit_of(berth));
	return true;
}

void bp_roster_leave(struct berth berth)
{
	ck_pr_fence_release();
	ck_pr_and_64(&berth.roster->taken[berth.n / 64], ~bit_of(berth));
}

void bp_roster_forget(struct berth berth)
{
	ck_pr_and_64(&berth.roster->counted[berth.n / 64], ~bit_of(berth));
}

/* The next one, made if there is none; NULL if memory is short. */
static struct roster *next_of(struct roster *r)
{
	struct roster *next = ck_pr_load_ptr(&r->next), *made;

	if (next != NULL)
		return next;
	made = bp_map(sizeof(*made));
	if (made == NULL)
		return NULL;
	ck_pr_fence_release(); /* its zeros before it is seen */
	if (ck_pr_cas_ptr_value(&r->next, NULL, made, &next))
		return made;
	bp_unmap(made, sizeof(*made));
	return next;
}

struct berth bp_roster_take(struct roster *first)
{
	for (struct roster *r = first; r != NULL; r = next_of(r)) {
		for (unsigned i = 0; i < ROSTER_WORDS; i++) {
			uint64_t free;

			while ((free = ~ck_pr_load_64(&r->taken[i])) != 0) {
				unsigned bit = (unsigned) __builtin_ctzll(free);
				struct berth berth = { r, i * 64 + bit };

				if (bp_roster_claim(berth))
					return berth;
			}
		}
	}
	return (struct berth){ NULL, 0 };
}

void bp_roster_clear(struct roster *first)
{
	for (struct roster *r = first; r != NULL; r = r->next)
		*r = (struct roster){ .next = r->next };
}

void bp_roster_release(struct roster *first)
{
	struct roster *r = first->next, *next;

	for (; r != NULL; r = next) {
		next = r->next;
		bp_unmap(r, sizeof(*r));
	}
}

/* ------------------------------------------------------------------- walks */

static uint64_t bits_of(const struct walk *w)
{
	uint64_t taken = ck_pr_load_64(&w->roster->taken[w->word]);
	uint64_t counted = ck_pr_load_64(&w->roster->counted[w->word]);

	switch (w->berths) {
	case BERTHS_TAKEN:
		return taken;
	case BERTHS_COUNTED:
		return counted;
	case BERTHS_GONE:
		return counted & ~taken;
	default:
		return UINT64_MAX;
	}
}

struct walk bp_walk(struct roster *first, enum berths berths)
{
	struct walk w = { .roster = first, .berths = berths };

	w.left = bits_of(&w);
	return w;
}

struct cache *bp_walk_next(struct walk *w)
{
	while (w->roster != NULL) {
		while (w->left != 0) {
			unsigned bit = (unsigned) __builtin_ctzll(w->left);
			struct cache *c = ck_pr_load_ptr(
				&w->roster->cache[w->word * 64 + bit]);

			w->left &= w->left - 1;
			if (c != NULL) /* else it is being made */
				return c;
		}
		if (++w->word == ROSTER_WORDS) {
			w->word = 0;
			w->roster = ck_pr_load_ptr(&w->roster->next);
		}
		if (w->roster != NULL)
			w->left = bits_of(w);
	}
	return NULL;
}
