/* SPDX-License-Identifier: MIT */
/*
 * wait.h - sleep until a buffer comes back
 *
 * A waiter announces itself, then looks once more for an idle buffer, then
 * sleeps; who gives a buffer back makes it visible, then looks for waiters.  So
 * one of them sees the other.  For a give to the depot, an atomic operation,
 * that is enough.  A put into a thread's own cache has no fence: there the
 * waiter sets an alarm in every cache of the pool and pays for both sides, as a
 * thief does (see cache.h).  A put with no waiter about reads that flag and
 * nothing else.
 *
 * After a buffer is visible its pool may be gone at any time.  What is looked
 * at then must not be part of it: the wait queue, like the cache, is freed by
 * whoever lets go of it last.
 */
#ifndef WAIT_H
#define WAIT_H

#include "pool.h"

struct waitq {
	unsigned refs; /* its pool, and the pool's caches */
	struct {
		uint32_t waiters; /* how many sleep, or are about to */
		uint32_t seq;     /* the futex: changes with every wake-up */
	} class[BUFPOOL_CLASSES];
};

struct waitq *bp_waitq_new(void);
void bp_waitq_ref(struct waitq *q);
void bp_waitq_unref(struct waitq *q);

/* In a child process: it has no waiters, and so many references. */
void bp_waitq_reset(struct waitq *q, unsigned refs);

/* Wake up to n that wait for class k; errno is left alone. */
void bp_waitq_wake(struct waitq *q, unsigned k, unsigned n);

/* Whether anyone waits, for any class. */
bool bp_waitq_any(const struct waitq *q);

/* n buffers of class k have just been given to the depot. */
static inline void waitq_given(struct waitq *q, unsigned k, unsigned n)
{
	ck_pr_fence_atomic_load(); /* they are visible before we look */
	if (CK_CC_UNLIKELY(ck_pr_load_32(&q->class[k].waiters) != 0))
		bp_waitq_wake(q, k, n);
}

#endif
