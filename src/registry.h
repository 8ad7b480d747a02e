/* SPDX-License-Identifier: MIT */
/*
 * registry.h - all pools of the process
 *
 * They enter under a lock that a fork takes as well, so that what the child finds
 * here was complete.  They leave without: who frees a pool may be in
 * bufpool_return(), which waits for nobody.  A pool that is freed during a fork
 * may be here still in the child, and its memory too: the kernel unmaps nothing
 * while it copies.
 *
 * Who reads them keeps them: a pool leaves, for all but those that read it already;
 * and of who frees it and they, the last to be through frees what they read.  So
 * neither waits.
 */
#ifndef REGISTRY_H
#define REGISTRY_H

#include "pool.h"

/* False if memory is short. */
bool bp_registry_enter(bufpool_t *pool);

/* It goes: nobody begins to read it, no child hears of it. */
void bp_registry_leave(bufpool_t *pool);

/* All of it is gone but what readers want: true if none does, so that it is the
   caller's to free.  The pool's place is free. */
bool bp_registry_forget(bufpool_t *pool);

/* How far a reader is; starts as all zero. */
struct reading {
	struct registry *chunk;
	unsigned next;
};

/* The next pool, which the caller keeps; NULL after the last one.  Then he lets it
   go: true if it is his to free, what else there was of it is gone. */
bufpool_t *bp_registry_next(struct reading *at);
bool bp_registry_let_go(bufpool_t *pool);

/*
 * How many have been destroyed since the process began, for threads to know whether
 * it is worth while to look for their caches.  One whose buffers destroy could not
 * take out of the caches counts as more than any thread has: they look at once.
 */
uint64_t bp_registry_dead(void);
void bp_registry_bury(bool empty);

/* No pool enters meanwhile, but by the thread that has it; which may have it more
   than once. */
void bp_registry_lock(void);
void bp_registry_unlock(void);
bool bp_registry_is_ours(void); /* the calling thread has it */

/* In a child, where nobody reads: call visit for each; it may free its pool. */
void bp_registry_each(void (*visit)(bufpool_t *pool));

/*
 * In a child process the pools have to be set right first.  The library's own fork
 * handler does it; but those of the program that were registered before are called
 * before.  So whoever uses more of a pool than the buffer at hand and the cache that
 * the fast paths know has it done, if it is not.  A thread that such a handler has
 * started waits until the fork is over.
 */
extern const uint32_t *bp_registry_is_right; /* 0: it is not */
void bp_registry_set_right(void);

static inline void registry_check(void)
{
	if (CK_CC_UNLIKELY(ck_pr_load_32(bp_registry_is_right) == 0))
		bp_registry_set_right();
	ck_pr_fence_acquire(); /* that before what it is about */
}

/* What does it; and that this is a child, where the system does not tell. */
void bp_registry_init(void (*set_right)(void));
void bp_registry_in_child(void);

#endif
