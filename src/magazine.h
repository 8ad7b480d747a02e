/* SPDX-License-Identifier: MIT */
/*
 * magazine.h - a deque of idle buffers, of which one thread owns an end
 *
 * The owner works at one end with plain loads and stores (bp_fast_take() and
 * the like, bufpool/inline.h), others take from the other end, so that no
 * buffer is stranded in the cache of a thread that sleeps.
 *
 * Indexes only grow (64 bits do not wrap); index i lives in slot i modulo
 * BP_SLOTS.  What is cached has the indexes [top, bottom).
 *
 *                top          limit                bottom
 *     ─ ─ ─ ─ ─ ─ ┬─────────────┬────────────────────┬ ─ ─ ─ ─
 *                 │  contested  │   the owner's      │
 *     ─ ─ ─ ─ ─ ─ ┴─────────────┴────────────────────┴ ─ ─ ─ ─
 *                 → thieves                  owner ⇄
 *
 * Below limit, everybody (the owner too) takes with a compare-and-swap that
 * moves top, which never passes limit.  At and above limit the owner takes by
 * moving bottom, without; so the one comparison also tells an empty magazine.
 * The question is how a thief raises limit against an owner who does not look.
 * The owner writes bottom, then reads limit; the thief writes limit, passes
 * bp_fence_all(), then reads bottom; one of them sees the other (fence.h).
 *   - the owner moved bottom before: the thief takes nothing at or above it;
 *   - or it sees limit raised, and goes the slow way.
 * A raised limit may stay raised: the owner's takes in the contested part move
 * top up to it.  Nobody waits for anybody, and a thread stopped anywhere hides
 * at most the buffers that it is moving.
 *
 * Raised to LIMIT_REVOKED the limit stays above bottom for ever: destroy takes
 * all that there is, and the owner, whose puts see the cache's alarm, takes out
 * again what it has put since.
 *
 * offset evens out whatever moves bottom and is neither a hit nor a return (or
 * is one and does not), so that the returns less the hits are offset + bottom.
 */
#ifndef MAGAZINE_H
#define MAGAZINE_H

#include "buf.h"

#define SLOT(i) ((i) & (BP_SLOTS - 1))
#define LIMIT_REVOKED UINT64_MAX
#define INDEX_START 1 /* so that bottom - 1 does not wrap */

/* Read, after bp_owner_fence(), what others write; see bufpool/inline.h. */
#define OWNER_SEE(p) BP_SEE(p)

/* Empty, with room for depth buffers; nobody else is there. */
void bp_magazine_init(struct bp_magazine *m, unsigned depth);

/* How many buffers are in; exact for the owner if nobody steals. */
uint64_t bp_magazine_count(const struct bp_magazine *m);

/* The owner: make room for up to depth buffers, as far as thieves have left it;
   0: for none. */
void bp_magazine_make_room(struct bp_magazine *m, unsigned depth);

/* The owner: take one for a checkout, contested or not; NULL if none is in. */
struct bp_buf *bp_magazine_take(struct bp_magazine *m, bool fenced);

/* The owner: take up to n, the ones put last first, though not to use them: they
   are no hits.  0 only if there is none. */
unsigned bp_magazine_take_many(struct bp_magazine *m, struct bp_buf **out,
                               unsigned n, bool fenced);

/*
 * A thief: raise the limit above all that is in, then pass bp_fence_all(), then
 * take, with what contest() said: nothing above that, as others may have raised
 * the limit since, and may not have passed their fence.
 */
uint64_t bp_magazine_contest(struct bp_magazine *m);
void bp_magazine_revoke(struct bp_magazine *m); /* the same, for ever */
struct bp_buf *bp_magazine_steal(struct bp_magazine *m, uint64_t end);

static inline bool magazine_is_revoked(const struct bp_magazine *m)
{
	return ck_pr_load_64(&m->limit) == LIMIT_REVOKED;
}

#endif
