/* SPDX-License-Identifier: MIT */
/*
 * cancel.h - calls that are no cancellation points, though what they are made of
 * is: a thread that were cancelled in the middle would leave half a pool behind
 */
#ifndef CANCEL_H
#define CANCEL_H

#include <pthread.h>

/* How it was, for cancel_again(). */
static inline int cancel_never(void)
{
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

static inline void cancel_again(int state)
{
	pthread_setcancelstate(state, &state);
}

#endif
