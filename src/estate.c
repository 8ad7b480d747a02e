/* SPDX-License-Identifier: MIT */
#include "estate.h"

#include <errno.h>
#include <pthread.h>

__thread struct estate *bp_estate;

static __thread bool busy, ended;

/* ---------------------------------------------------------------- by a key */

#define KEYS_AT_HAND 32

static pthread_key_t key;
static bool key_is_at_hand;
static __thread struct estate of_key;

/*
 * Destructors of others may run after this one and return buffers; as no
 * destructor of ours is sure to follow them, the thread goes without from here on.
 */
static void at_end(void *arg)
{
	struct estate *e = arg;
	int saved = errno;

	ended = true;
	bp_estate = NULL;
	e->settle(e);
	errno = saved;
}

/* When the library is loaded: a pthread_once() could be stopped inside. */
__attribute__((constructor)) static void key_init(void)
{
	key_is_at_hand = pthread_key_create(&key, at_end) == 0 &&
	                 key < KEYS_AT_HAND;
}

/* -------------------------------------------------------- by a robust mutex */

struct life {
	struct estate estate;
	pthread_mutex_t held; /* as long as its thread lives */
	struct life *next;    /* never changes */
};

static struct life *lives;
static struct life *next_life; /* to look at; it does not matter which */

static void life_begin(struct life *life)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&life->held, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_mutex_trylock(&life->held);
	life->next = ck_pr_load_ptr(&lives);
	do
		ck_pr_fence_release(); /* that before it is seen */
	while (!ck_pr_cas_ptr_value(&lives, life->next, life, &life->next));
}

/* One whose thread has ended becomes ours. */
static struct life *take_over(void)
{
	struct life *life = ck_pr_load_ptr(&next_life);

	if (life == NULL)
		life = ck_pr_load_ptr(&lives);
	if (life == NULL)
		return NULL;
	ck_pr_store_ptr(&next_life, life->next);
	if (pthread_mutex_trylock(&life->held) != EOWNERDEAD)
		return NULL;
	pthread_mutex_consistent(&life->held);
	life->estate.settle(&life->estate);
	return life;
}

static struct estate *of_life(void)
{
	struct life *life = take_over();

	if (life == NULL)
		life = take_over();
	if (life != NULL)
		return &life->estate;
	life = bp_map(sizeof(*life));
	if (life == NULL)
		return NULL;
	life_begin(life);
	return &life->estate;
}

void bp_estate_remake(void)
{
	lives = next_life = NULL;
	/* A new thread, to the system. */
	if (bp_estate != NULL && bp_estate != &of_key)
		life_begin((struct life *) bp_estate);
}

/* ------------------------------------------------------------------- either */

struct estate *bp_estate_make(void (*settle)(struct estate *e))
{
	struct estate *e = NULL;

	if (bp_estate != NULL || busy || ended)
		return bp_estate;
	busy = true; /* the application may be called by that */
	if (!key_is_at_hand)
		e = of_life();
	else if (pthread_setspecific(key, &of_key) == 0)
		e = &of_key;
	if (e != NULL)
		e->settle = settle;
	bp_estate = e;
	busy = false;
	return e;
}
