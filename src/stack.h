/* SPDX-License-Identifier: MIT */
/*
 * stack.h - a lock-free stack of numbers
 *
 * Treiber's stack on one 64-bit word: the number on top in the low 24 bits, a
 * tag in the other 40.  Every change of the word counts the tag up, so that a
 * compare-and-swap by a thread that slept meanwhile fails although the same
 * number may be on top again (ABA): to fool it, others would have to do a
 * multiple of 2^40 operations, hours at full speed, and leave the same number.
 *
 * Numbers are linked through one 32-bit word each, which lies wherever the
 * user of the stack says.  Link words are never freed while the stack is in
 * use, and always hold a number, STACK_NIL or STACK_CLOSED: reading one that
 * belongs to somebody else by now is harmless, the compare-and-swap that
 * follows fails.
 *
 * Non-blocking: a thread stopped anywhere has either done its operation or
 * not.  A push is a single visible step, after which it touches nothing; and
 * a closed stack says so to whoever pushes.  Both matter to bufpool_destroy().
 *
 * ck_stack's pop needs a double-width compare-and-swap against ABA, which not
 * all CPUs have; its links are pointers in the object, here a chain of numbers
 * lies dense in an array and passes no descriptor through the caches.
 */
#ifndef STACK_H
#define STACK_H

#include <ck_pr.h>
#include <stdbool.h>
#include <stdint.h>

#define STACK_NIL 0xffffffu    /* nothing below */
#define STACK_CLOSED 0xfffffeu /* instead of a number: no more pushes */
#define STACK_MAX 0xfffffeu    /* how many numbers there can be */
#define STACK_BITS 24

typedef uint32_t *stack_link_fn(const void *ctx, uint32_t number);
typedef void stack_got_fn(const void *ctx, unsigned i, uint32_t number);

static inline uint32_t stack_top(uint64_t head)
{
	return (uint32_t) head & STACK_NIL;
}

/* The word that makes top the top, following head. */
static inline uint64_t stack_next(uint64_t head, uint32_t top)
{
	return (((head >> STACK_BITS) + 1) << STACK_BITS) | top;
}

/*
 * Put the chain that begins with first on top; last_link is the link of its
 * last number.  False if the stack is closed.
 */
static inline bool stack_push(uint64_t *head, uint32_t first,
                              uint32_t *last_link)
{
	uint64_t was = ck_pr_load_64(head);

	do {
		if (stack_top(was) == STACK_CLOSED)
			return false;
		ck_pr_store_32(last_link, stack_top(was));
		/* The links, and what the thread did to the things that the
		   numbers stand for, before the numbers can be seen. */
		ck_pr_fence_release();
	} while (!ck_pr_cas_64_value(head, was, stack_next(was, first), &was));
	return true;
}

/*
 * Take up to n numbers, the top first; returns how many.  got() is told each, the
 * i-th, on the way, as there is time for that between two links: anew if others
 * were faster, so that only those count that were told last.
 */
static inline unsigned stack_pop(uint64_t *head, stack_link_fn *link,
                                 stack_got_fn *got, const void *ctx, unsigned n)
{
	uint64_t was = ck_pr_load_64(head);
	uint32_t top;
	unsigned i;

	do {
		/* A link is read through the number before it: the address
		   dependency orders it behind the load of that number. */
		top = stack_top(was);
		for (i = 0; i < n && top < STACK_CLOSED; i++) {
			got(ctx, i, top);
			top = ck_pr_load_32(link(ctx, top));
		}
		if (i == 0)
			return 0;
	} while (!ck_pr_cas_64_value(head, was, stack_next(was, top), &was));
	/* The numbers before what the giver did ahead of its push. */
	ck_pr_fence_acquire();
	return i;
}

/* Take the top one; STACK_NIL: there is none. */
static inline uint32_t stack_pop_one(uint64_t *head, stack_link_fn *link,
                                     const void *ctx)
{
	uint64_t was = ck_pr_load_64(head);
	uint32_t top;

	do {
		top = stack_top(was);
		if (top >= STACK_CLOSED)
			return STACK_NIL;
	} while (!ck_pr_cas_64_value(
		head, was, stack_next(was, ck_pr_load_32(link(ctx, top))),
		&was));
	ck_pr_fence_acquire();
	return top;
}

/* Refuse all further pushes; returns what was on top, linked as it was. */
static inline uint32_t stack_close(uint64_t *head)
{
	uint64_t was = ck_pr_fas_64(head, STACK_CLOSED);

	ck_pr_fence_acquire();
	return stack_top(was);
}

#endif
