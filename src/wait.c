/* SPDX-License-Identifier: MIT */
/* wait.c - bufpool_checkout_wait(), and waking those who sleep in it */
#include "wait.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cache.h"

#define NSEC 1000000000L

struct waitq *bp_waitq_new(void)
{
	struct waitq *q = bp_map(sizeof(*q));

	if (q != NULL)
		q->refs = 1;
	return q;
}

void bp_waitq_ref(struct waitq *q)
{
	ck_pr_inc_uint(&q->refs);
}

void bp_waitq_unref(struct waitq *q)
{
	ck_pr_fence_release(); /* our use of it before another's free */
	if (ck_pr_faa_uint(&q->refs, -1u) == 1) {
		ck_pr_fence_acquire();
		bp_unmap(q, sizeof(*q));
	}
}

void bp_waitq_reset(struct waitq *q, unsigned refs)
{
	memset(q, 0, sizeof(*q));
	q->refs = refs;
}

bool bp_waitq_any(const struct waitq *q)
{
	uint32_t waiters = 0;

	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		waiters |= ck_pr_load_32(&q->class[k].waiters);
	return waiters != 0;
}

void bp_waitq_wake(struct waitq *q, unsigned k, unsigned n)
{
	int saved = errno;

	ck_pr_inc_32(&q->class[k].seq); /* who is about to sleep does not */
	syscall(SYS_futex, &q->class[k].seq, FUTEX_WAKE_PRIVATE, n);
	errno = saved;
}

/*
 * Sleep while *seq is was, until deadline at the latest; NULL: for ever.  May
 * return at any time: where futex() is refused the waiter looks again and again.
 */
static void sleep_until(uint32_t *seq, uint32_t was,
                        const struct timespec *deadline)
{
	syscall(SYS_futex, seq, FUTEX_WAIT_BITSET_PRIVATE, was, deadline, NULL,
	        FUTEX_BITSET_MATCH_ANY);
}

static struct timespec now_plus(const struct timespec *t)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += t->tv_sec;
	at.tv_nsec += t->tv_nsec;
	if (at.tv_nsec >= NSEC) {
		at.tv_sec++;
		at.tv_nsec -= NSEC;
	}
	return at;
}

static bool is_over(const struct timespec *deadline)
{
	struct timespec at;

	if (deadline == NULL)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec > deadline->tv_sec ||
	       (at.tv_sec == deadline->tv_sec &&
	        at.tv_nsec >= deadline->tv_nsec);
}

/*
 * If the fences of the owners cannot be had any more (see thief_fence()), a put
 * can go unseen: then sleep no longer than this.
 */
static void sleep_a_moment(uint32_t *seq, uint32_t was)
{
	const struct timespec moment = { 0, 1000000 };
	struct timespec end = now_plus(&moment);

	sleep_until(seq, was, &end);
}

bufpool_buf_t *bp_wait(bufpool_t *pool, unsigned k, size_t len,
                       const struct timespec *timeout)
{
	struct waitq *q = pool->waitq;
	uint32_t *seq = &q->class[k].seq;
	struct timespec until, *deadline = NULL;
	bufpool_buf_t *buf;
	bool heard, over = false;

	if (timeout != NULL) {
		until = now_plus(timeout);
		deadline = &until;
	}
	ck_pr_inc_32(&q->class[k].waiters);
	/* Announced before the caches are listed: see cache_new(). */
	ck_pr_fence_memory();
	heard = bp_cache_alarm_all(pool);
	for (;;) {
		uint32_t was = ck_pr_load_32(seq);

		ck_pr_fence_load(); /* what comes after was changes it */
		buf = bp_take(pool, k, len);
		if (buf != NULL || over)
			break;
		if (heard)
			sleep_until(seq, was, deadline);
		else
			sleep_a_moment(seq, was);
		over = is_over(deadline); /* look once more, though */
	}
	ck_pr_dec_32(&q->class[k].waiters);
	return buf;
}
