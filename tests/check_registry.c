/* SPDX-License-Identifier: MIT */
/*
 * check_registry.c - who reads a pool keeps it, and keeps nobody waiting
 */
#include "life.h"
#include "registry.h"
#undef PAGE /* common.h has it too */

#include "common.h"

static bool is_whole(const bufpool_t *pool, uint64_t id)
{
	return pool->id == id && stats_of(pool).per_class[0].total == 4;
}

static bufpool_t *next_of(struct reading *at, const bufpool_t *pool)
{
	bufpool_t *next;

	while ((next = bp_registry_next(at)) != NULL && next != pool)
		bp_pool_let_go(next);
	return next;
}

static void use(bufpool_t *pool)
{
	bufpool_return(bufpool_checkout(pool, 1));
}

START_TEST(pools_are_found)
{
	struct reading at = {0};
	bufpool_t *pools[3], *found;
	int n = 0;

	for (int i = 0; i < 3; i++)
		pools[i] = class_pool(BUFPOOL_CLASS_4K, 4);
	bufpool_destroy(pools[1]);
	while ((found = bp_registry_next(&at)) != NULL) {
		ck_assert(found == pools[0] || found == pools[2]);
		bp_pool_let_go(found);
		n++;
	}
	ck_assert_int_eq(n, 2);
	bufpool_destroy(pools[0]);
	bufpool_destroy(pools[2]);
	memset(&at, 0, sizeof(at));
	ck_assert_ptr_null(bp_registry_next(&at));
}
END_TEST

enum { MANY = 2500 }; /* more than fit in two chunks */

START_TEST(many_pools_are_found)
{
	struct reading at = {0};
	static bufpool_t *pools[MANY];
	bufpool_t *found;
	int n = 0;

	for (int i = 0; i < MANY; i++)
		pools[i] = class_pool(BUFPOOL_CLASS_4K, 1);
	while ((found = bp_registry_next(&at)) != NULL) {
		bp_pool_let_go(found);
		n++;
	}
	ck_assert_int_eq(n, MANY);
	for (int i = 0; i < MANY; i++)
		bufpool_destroy(pools[i]);
}
END_TEST

/* The loop index is how many readers there are. */
START_TEST(readers_keep_it)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4), *new;
	struct reading at[3] = {{0}};
	uint64_t id = pool->id;
	struct slot *slot = pool->registered;
	struct reading late = {0};

	use(pool);
	for (int i = 0; i < _i; i++)
		ck_assert_ptr_eq(bp_registry_next(&at[i]), pool);
	bufpool_destroy(pool); /* waits for none of them */
	ck_assert_ptr_null(bp_registry_next(&late));
	new = class_pool(BUFPOOL_CLASS_4K, 4);
	ck_assert(new->registered != slot); /* which is taken still */
	for (int i = 0; i < _i; i++) {
		ck_assert(is_whole(pool, id));
		bp_pool_let_go(pool);
	}
	ck_assert(!is_mapped(pool));
	bufpool_destroy(new);
	new = class_pool(BUFPOOL_CLASS_4K, 4);
	ck_assert_ptr_eq(new->registered, slot);
	bufpool_destroy(new);
}
END_TEST

/* The last buffer, on another thread, frees what no reader wants. */
START_TEST(last_return_beside_a_reader)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);
	struct reading at = {0};
	uint64_t id = pool->id;
	void *data = buf->data;

	bufpool_destroy(pool);
	ck_assert_ptr_eq(bp_registry_next(&at), pool);
	return_elsewhere(buf);
	ck_assert(!is_mapped(data));
	ck_assert(is_whole(pool, id));
	bp_pool_let_go(pool);
	ck_assert(!is_mapped(pool));
}
END_TEST

/* ------------------------------------------------------------------- forks */

static bufpool_t *shared;

/* In a child, a reader of the parent's is none. */
static void end_it(void *arg)
{
	struct reading at = {0};
	bufpool_t *pool = shared;

	(void) arg;
	must(bp_registry_next(&at) == pool);
	bp_pool_let_go(pool);
	must(stats_of(pool).per_class[0].idle == 4);
	destroy_whole(pool);
	must(!is_mapped(pool));
	memset(&at, 0, sizeof(at));
	must(bp_registry_next(&at) == NULL);
}

/* Nor is there what a reader of the parent's was to free. */
static void find_none(void *arg)
{
	struct reading at = {0};
	bufpool_t *pool;

	must(bp_registry_next(&at) == NULL);
	pool = class_pool(BUFPOOL_CLASS_4K, 4);
	must((void *) pool->registered == arg);
	destroy_whole(pool);
}

static void must_be_well(void (*fn)(void *arg), void *arg)
{
	char text[4096];
	int status = run_child(fn, arg, text, sizeof(text));

	ck_assert_msg(status == 0, "wait status %#x, stderr '%s'",
	              (unsigned) status, text);
}

START_TEST(forks_beside_a_reader)
{
	struct reading at = {0};
	struct slot *slot;

	shared = class_pool(BUFPOOL_CLASS_4K, 4);
	slot = shared->registered;
	use(shared);
	ck_assert_ptr_eq(bp_registry_next(&at), shared);
	must_be_well(end_it, NULL);
	bufpool_destroy(shared);
	must_be_well(find_none, slot);
	bp_pool_let_go(shared);
	ck_assert(!is_mapped(shared));
}
END_TEST

/* ----------------------------------------------------------------- all at once */

enum { READERS = 2, MAKERS = 2 };

static atomic_bool over;

static void *read_all(void *arg)
{
	while (!atomic_load(&over)) {
		struct reading at = {0};
		bufpool_t *pool;

		while ((pool = bp_registry_next(&at)) != NULL) {
			must(is_whole(pool, pool->id));
			bp_pool_let_go(pool);
		}
	}
	return arg;
}

static void *make_and_destroy(void *arg)
{
	for (long i = scaled(1000); i > 0; i--) {
		bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);
		bufpool_buf_t *buf = bufpool_checkout(pool, 1);

		if (i % 2)
			bufpool_return(buf);
		bufpool_destroy(pool);
		if (i % 2 == 0)
			bufpool_return(buf);
	}
	return arg;
}

START_TEST(pools_come_and_go)
{
	pthread_t readers[READERS], makers[MAKERS];
	struct reading at = {0};
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 4);

	for (int i = 0; i < READERS; i++)
		readers[i] = start_thread(read_all, NULL);
	for (int i = 0; i < MAKERS; i++)
		makers[i] = start_thread(make_and_destroy, NULL);
	for (int i = 0; i < MAKERS; i++)
		join_thread(makers[i]);
	atomic_store(&over, true);
	for (int i = 0; i < READERS; i++)
		join_thread(readers[i]);
	ck_assert_ptr_eq(next_of(&at, pool), pool);
	ck_assert_ptr_null(bp_registry_next(&at));
	bp_pool_let_go(pool);
	destroy_whole(pool);
}
END_TEST

static Suite *registry_suite(void)
{
	Suite *suite = suite_create("registry");
	TCase *tcase = add_case(suite, "readers", 20);

	tcase_add_test(tcase, pools_are_found);
	tcase_add_test(tcase, many_pools_are_found);
	tcase_add_loop_test(tcase, readers_keep_it, 1, 4);
	tcase_add_test(tcase, last_return_beside_a_reader);
	tcase_add_test(tcase, forks_beside_a_reader);
	tcase_add_test(tcase, pools_come_and_go);
	return suite;
}

int main(void)
{
	return run_suite(registry_suite());
}
