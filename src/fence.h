/* SPDX-License-Identifier: MIT */
/*
 * fence.h - asymmetric fences: the rare side pays for the frequent one
 *
 * Two threads that each write one word and then read the other's must not both
 * miss what the other wrote (Dekker).  Each needs a full fence between its
 * write and its read.  One of ours, the owner of a thread cache, is there on
 * every checkout and return; so the others, who come seldom, pay for both:
 * membarrier() makes every running thread of the process pass a full fence, and
 * the owner (bp_owner_fence()) only keeps the compiler's order.
 *   - the owner wrote before that fence: who called it sees the write after it;
 *   - or the owner reads after it, and sees what was written before the call.
 *
 * Where the system has no membarrier(), pools are `fenced`: owners pass a real
 * fence on each operation.  That is decided once, when a pool is created.  A
 * checkout has one of its own (fenced_checkout, checkout.c); a return is the same
 * for all pools, but in fenced ones it always finds its alarm set, and it is
 * bp_put_alarm() that passes the fence, then reads the alarm again.
 *
 * To a thread that is refused it later, by a seccomp filter, what others cache is out
 * of reach until they have come to see their alarms.  Nothing else will do: to take
 * rights from a page (mprotect()) interrupts the other CPUs on most x86, but arm64,
 * and x86 with INVLPGB, tell them by a broadcast that orders none of their writes;
 * and not every CPU that a thread may be on is one that this thread may go to.
 */
#ifndef FENCE_H
#define FENCE_H

#include <stdbool.h>

/* Make ready; false: there is none, and pools have to be fenced. */
bool bp_fence_init(void);

/* The rare side's; false if it cannot be had any more. */
bool bp_fence_all(bool fenced);

#endif
