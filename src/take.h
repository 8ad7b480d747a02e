/* SPDX-License-Identifier: MIT */
/*
 * take.h - find an idle buffer
 *
 * In the thread's cache, else in the depot of the place where the thread is,
 * else in what the caches there hold, else at the other places, the nearest
 * first; else there is none.
 */
#ifndef TAKE_H
#define TAKE_H

#include <errno.h>

#include "blank.h"
#include "misuse.h"
#include "thread.h"
#include "wipe.h"

/* Pool memory of class k for len bytes, or NULL; errno is left alone.  Here as in
   what follows, misuse that is found is said to be the call's. */
bufpool_buf_t *bp_take(const char *call, bufpool_t *pool, unsigned k,
                       size_t len);

/* Whether there would be one, idle; the class is as after a take. */
bool bp_sees_idle(bufpool_t *pool, unsigned k);

/* Up to n, as far as the depot of the thread's place has them, in one step. */
size_t bp_take_many(const char *call, bufpool_t *pool, unsigned k,
                    size_t len, bufpool_buf_t **bufs, size_t n);

/* As bp_take(), but sleeps for want of a buffer, unless the pool is stopped; may set
   errno. */
bufpool_buf_t *bp_take_wait(const char *call, bufpool_t *pool, unsigned k,
                            size_t len, const struct timespec *timeout);

/* What the fast paths leave over (with len where they have it): of class k, or the
   heap; and what is above the largest class, or an error. */
bufpool_buf_t *bp_checkout_slow(bufpool_t *pool, size_t len, unsigned k,
                                const char *call);
bufpool_buf_t *bp_checkout_other(bufpool_t *pool, size_t size);

/* A checkout of class k, or of more than any has, gets none: NULL, and errno, which
   is ECANCELED if the pool is stopped, EPERM if there are some out of reach. */
bufpool_buf_t *bp_take_none(bufpool_t *pool, unsigned k, int error);

/* This thread cannot have the caches hear of it that it wants one (fence.h). */
bool bp_is_unheard(const bufpool_t *pool, unsigned k);

/* A buffer from the heap, if `exhausted` allows; NULL and errno if not. */
bufpool_buf_t *bp_take_heap(bufpool_t *pool, size_t size, size_t alignment);

/* An idle buffer says it is none: erase it, where that is all there is to it, or
   stop. */
void bp_settle_doubt(const char *call, struct bp_buf *d);

/* Stop: an idle buffer is not as it was erased. */
_Noreturn void bp_misuse_written(const char *call, const struct bp_buf *d);

/* An idle buffer, of so many bytes, becomes one with an owner. */
static inline bufpool_buf_t *hand_out(const char *call, struct bp_buf *d,
                                      size_t size, bool hardened, size_t len)
{
	track_acquire(d);
	TRACK_OUT(d->base, size);
	if (CK_CC_UNLIKELY(d->state != BP_HOME))
		bp_settle_doubt(call, d);
	else if (hardened && CK_CC_UNLIKELY(!bp_is_blank(d->base, size)))
		bp_misuse_written(call, d);
	d->pub.len = len;
	d->state = BP_OUT;
	return &d->pub;
}

/* n are out of a place's depot, by a thread of that shard. */
static inline void taken(bufpool_t *pool, unsigned place, unsigned k,
                         unsigned shard, unsigned n)
{
	struct want *w = want_of(pool->demand, place, k);

	bp_account_out(&pool->account, pool_depot(pool, place, k), shard, k, n);
	if (CK_CC_UNLIKELY(is_scarce(w)))
		bp_demand_taken(pool->demand, w, k);
}

/* Of a hardened pool the one that was idle longest where its cache is; NULL: look
   further. */
static inline struct bp_buf *take_first(bufpool_t *pool, struct cache *c, unsigned k)
{
	struct depot *depot = pool_depot(pool, c->fast.place, k);
	struct bp_buf *d;

	if (CK_CC_UNLIKELY(depot_is_cold(depot)))
		return NULL;
	d = depot_take_first(depot, 0);
	if (CK_CC_LIKELY(d != NULL)) {
		taken(pool, c->fast.place, k, c->shard, 1);
		bp_add(&c->fast.magazine[k].depot_hits, 1);
	}
	return d;
}

/* What is wrong with these arguments; 0 if nothing is. */
static inline int check_request(const bufpool_t *pool, size_t size)
{
	return size > PTRDIFF_MAX ? EOVERFLOW : pool == NULL ? EINVAL : 0;
}

/* Since bufpool_shutdown(). */
static inline bool is_stopped(const bufpool_t *pool)
{
	return ck_pr_load_uint(&pool->stopped) != 0;
}

static inline bufpool_buf_t *fail(int error)
{
	errno = error;
	return NULL;
}

#endif
