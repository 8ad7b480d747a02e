/* SPDX-License-Identifier: MIT */
#include "registry.h"

#include <pthread.h>
#include <sys/mman.h>

/* In a slot's state; readers are counted above that. */
#define ENTERED 1u /* a pool has it */
#define LEFT 2u    /* and goes */
#define FORGOT 4u  /* is gone, but for what readers want */
#define READER 8u

struct slot {
	uint64_t state; /* 0: free */
	bufpool_t *pool;
};

#define CHUNK 1000
static struct registry {
	struct slot slot[CHUNK];
	struct registry *next;
} registry;

static uint64_t dead;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread unsigned ours; /* so many times; a thread is another in a child */

void bp_registry_lock(void)
{
	if (ours++ == 0)
		pthread_mutex_lock(&lock);
}

void bp_registry_unlock(void)
{
	if (--ours == 0)
		pthread_mutex_unlock(&lock);
}

bool bp_registry_is_ours(void)
{
	return ours > 0;
}

/* The first that is free, and its number. */
static struct slot *find_slot(unsigned *number)
{
	*number = 0;
	for (struct registry *r = &registry;; r = r->next) {
		for (unsigned i = 0; i < CHUNK; i++, ++*number)
			if (ck_pr_load_64(&r->slot[i].state) == 0)
				return &r->slot[i];
		if (r->next == NULL)
			ck_pr_store_ptr(&r->next, bp_map(sizeof(*r)));
		if (r->next == NULL)
			return NULL;
	}
}

bool bp_registry_enter(bufpool_t *pool)
{
	struct slot *slot;

	registry_check();
	bp_registry_lock();
	slot = pool->registered = find_slot(&pool->slot);
	if (slot != NULL) {
		slot->pool = pool;
		ck_pr_fence_store(); /* it, and all of it, before it is seen */
		ck_pr_store_64(&slot->state, ENTERED);
	}
	bp_registry_unlock();
	return slot != NULL;
}

void bp_registry_leave(bufpool_t *pool)
{
	if (pool->registered != NULL)
		ck_pr_or_64(&pool->registered->state, LEFT);
	ck_pr_fence_memory(); /* before its memory goes */
}

uint64_t bp_registry_dead(void)
{
	uint64_t n = ck_pr_load_64(&dead);

	ck_pr_fence_load(); /* before the caches that it is about */
	return n;
}

void bp_registry_bury(bool empty)
{
	ck_pr_fence_store();
	ck_pr_add_64(&dead, empty ? 1 : UINT32_MAX);
}

/* Add to the state: true if nobody has it any more, and then it is free. */
static bool is_last(struct slot *slot, uint64_t change)
{
	ck_pr_fence_release(); /* what we did to the pool before its end, */
	if (ck_pr_faa_64(&slot->state, change) + change !=
	    (ENTERED | LEFT | FORGOT))
		return false;
	ck_pr_fence_acquire(); /* and what others did */
	ck_pr_store_64(&slot->state, 0);
	return true;
}

bool bp_registry_forget(bufpool_t *pool)
{
	return pool->registered == NULL || is_last(pool->registered, FORGOT);
}

bool bp_registry_let_go(bufpool_t *pool)
{
	return is_last(pool->registered, -(uint64_t) READER);
}

/* One more reader; NULL if none may come. */
static bufpool_t *keep(struct slot *slot)
{
	uint64_t was = ck_pr_load_64(&slot->state);

	do {
		if ((was & (ENTERED | LEFT)) != ENTERED)
			return NULL;
	} while (!ck_pr_cas_64_value(&slot->state, was, was + READER, &was));
	ck_pr_fence_acquire(); /* it is there before it is read */
	return slot->pool;
}

bufpool_t *bp_registry_next(struct reading *at)
{
	struct registry *r = at->chunk != NULL ? at->chunk : &registry;
	bufpool_t *pool = NULL;

	while (r != NULL) {
		at->chunk = r;
		while (at->next < CHUNK && pool == NULL)
			pool = keep(&r->slot[at->next++]);
		if (pool != NULL)
			break;
		r = ck_pr_load_ptr(&r->next);
		at->next = 0;
	}
	return pool;
}

void bp_registry_each(void (*visit)(bufpool_t *pool))
{
	for (struct registry *r = &registry; r != NULL; r = r->next)
		for (unsigned i = 0; i < CHUNK; i++) {
			struct slot *slot = &r->slot[i];

			/* What readers were to free is lost: who knows how
			   far they were. */
			slot->state = (slot->state & FORGOT) != 0
			                      ? 0
			                      : slot->state & (READER - 1);
			if (slot->state == ENTERED)
				visit(slot->pool);
		}
}

/* ------------------------------------------------------------ in a child process */

static uint32_t untold = 1;
static uint32_t *is_right = &untold;
const uint32_t *bp_registry_is_right = &untold;
static void (*how)(void);

/* The word lies where the system gives a child zeroes, from Linux 4.14. */
void bp_registry_init(void (*set_right)(void))
{
	uint32_t *word = bp_map(PAGE);

	how = set_right;
	if (word == NULL || madvise(word, PAGE, MADV_WIPEONFORK) != 0)
		return;
	*word = 1;
	bp_registry_is_right = is_right = word;
}

void bp_registry_set_right(void)
{
	bp_registry_lock();
	if (ck_pr_load_32(is_right) == 0) {
		how();
		ck_pr_fence_release(); /* all of that, before it is said */
		ck_pr_store_32(is_right, 1);
	}
	bp_registry_unlock();
}

void bp_registry_in_child(void)
{
	untold = 0;
	registry_check();
}
