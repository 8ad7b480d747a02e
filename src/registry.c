/* SPDX-License-Identifier: MIT */
#include "registry.h"

#include <pthread.h>
#include <sys/mman.h>

#define CHUNK 1000
static struct registry {
	bufpool_t *pool[CHUNK];
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
static bufpool_t **find_slot(unsigned *slot)
{
	*slot = 0;
	for (struct registry *r = &registry;; r = r->next) {
		for (unsigned i = 0; i < CHUNK; i++, ++*slot)
			if (ck_pr_load_ptr(&r->pool[i]) == NULL)
				return &r->pool[i];
		if (r->next == NULL)
			r->next = bp_map(sizeof(*r));
		if (r->next == NULL)
			return NULL;
	}
}

bool bp_registry_enter(bufpool_t *pool)
{
	registry_check();
	bp_registry_lock();
	pool->registered = find_slot(&pool->slot);
	if (pool->registered != NULL)
		ck_pr_store_ptr(pool->registered, pool);
	bp_registry_unlock();
	return pool->registered != NULL;
}

void bp_registry_leave(bufpool_t *pool)
{
	if (pool->registered != NULL)
		ck_pr_store_ptr(pool->registered, NULL);
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

void bp_registry_each(void (*visit)(bufpool_t *pool))
{
	for (struct registry *r = &registry; r != NULL; r = r->next)
		for (unsigned i = 0; i < CHUNK; i++)
			if (r->pool[i] != NULL)
				visit(r->pool[i]);
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
