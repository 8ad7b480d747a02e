/* SPDX-License-Identifier: MIT */
#include "registry.h"

#include <pthread.h>

#define CHUNK 1000
static struct registry {
	bufpool_t *pool[CHUNK];
	struct registry *next;
} registry;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void bp_registry_lock(void)
{
	pthread_mutex_lock(&lock);
}

void bp_registry_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

static bufpool_t **find_slot(void)
{
	for (struct registry *r = &registry;; r = r->next) {
		for (unsigned i = 0; i < CHUNK; i++)
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
	bp_registry_lock();
	pool->registered = find_slot();
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

void bp_registry_each(void (*visit)(bufpool_t *pool))
{
	for (struct registry *r = &registry; r != NULL; r = r->next)
		for (unsigned i = 0; i < CHUNK; i++)
			if (r->pool[i] != NULL)
				visit(r->pool[i]);
}
