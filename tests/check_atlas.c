/* SPDX-License-Identifier: MIT */
/*
 * check_atlas.c - from an address to its buffer, while regions come
 *
 * Linked with the library's objects: regions without memory, which are entered in
 * an order of the test's.
 */
#include "common.h"

#undef PAGE /* the library has its own */
#include "atlas.h"

enum { K = BUFPOOL_CLASS_4K, BUFS = 3, REGIONS = 2 * BUFPOOL_CLASSES };

static struct {
	struct region region[REGIONS], *tables[2][REGIONS];
	struct bp_buf bufs[REGIONS][BUFS];
	bufpool_t pool; /* without depots */
} world __attribute__((aligned(64)));

/* Apart from one another; the higher i, the higher it lies. */
static uintptr_t address(unsigned i)
{
	return 0x10000000 + (uintptr_t) i * 0x100000;
}

static void make_world(void)
{
	memset(&world, 0, sizeof(world));
	world.pool.regions_most = REGIONS;
	world.pool.by_address = &world.tables[0][0];
	for (unsigned i = 0; i < REGIONS; i++) {
		world.region[i].pub.size_class = K;
		world.region[i].bufs = world.bufs[i];
		world.region[i].count = BUFS;
		for (unsigned j = 0; j < BUFS; j++)
			world.bufs[i][j].base =
				(char *) (address(i) + j * 4096);
	}
}

static struct bp_buf *find(uintptr_t p)
{
	return bp_atlas_find(&world.pool, (void *) p);
}

/* Of region i, all that is there is found, and nothing beside. */
static bool is_told(unsigned i)
{
	bool told = !find(address(i) - 1) && !find(address(i) + BUFS * 4096);

	for (unsigned j = 0; j < BUFS; j++)
		told = told && find(address(i) + j * 4096) == &world.bufs[i][j] &&
		       find(address(i) + j * 4096 + 4095) == &world.bufs[i][j];
	return told;
}

static bool is_unknown(unsigned i)
{
	return !find(address(i)) && !find(address(i) + BUFS * 4096 - 1);
}

/* The loop index decides on the order. */
START_TEST(in_any_order)
{
	const unsigned step = (unsigned) _i * 2 + 1; /* odd: all in turn */

	make_world();
	ck_assert(is_unknown(0));
	for (unsigned n = 0; n < REGIONS; n++) {
		bp_atlas_enter(&world.pool,
		               &world.region[n * step % REGIONS]);
		ck_assert_uint_eq(world.pool.charted, n + 1);
		for (unsigned m = 0; m < REGIONS; m++)
			ck_assert(m <= n ? is_told(m * step % REGIONS)
			                 : is_unknown(m * step % REGIONS));
	}
	ck_assert(!find(0) && !find(UINTPTR_MAX));
}
END_TEST

static atomic_uint entered; /* of them, in this order: */
static unsigned nth(unsigned n)
{
	return n * 3 % REGIONS;
}

static atomic_bool over;

/* What was there before is found all the time. */
static void *find_all_the_time(void *arg)
{
	while (!over) {
		unsigned n = entered;

		while (n-- > 0)
			must(is_told(nth(n)));
	}
	return arg;
}

START_TEST(beside_growth)
{
	for (long rounds = scaled(3000); rounds > 0; rounds--) {
		pthread_t thread;

		make_world();
		entered = 0;
		over = false;
		thread = start_thread(find_all_the_time, NULL);
		for (unsigned n = 0; n < REGIONS; n++) {
			bp_atlas_enter(&world.pool, &world.region[nth(n)]);
			entered = n + 1;
		}
		over = true;
		join_thread(thread);
	}
}
END_TEST

/*
 * Step by step: two regions come after each instruction of a search in turn, by
 * the CPU's trap flag, and so the table that is searched is another.
 */
#if defined(__x86_64__)
static struct {
	long steps, at;
} walk;

static void on_step(int sig)
{
	(void) sig;
	if (walk.steps++ != walk.at)
		return;
	for (unsigned n = 3; n < REGIONS - 1; n++)
		bp_atlas_enter(&world.pool, &world.region[nth(n)]);
}

START_TEST(amid_a_search)
{
	const struct sigaction on = {.sa_handler = on_step};
	struct bp_buf *found;

	if (is_valgrind())
		return;
	must(sigaction(SIGTRAP, &on, NULL) == 0);
	for (walk.at = 0;; walk.at++) {
		make_world();
		for (unsigned n = 0; n < 3; n++)
			bp_atlas_enter(&world.pool, &world.region[nth(n)]);
		walk.steps = 0;
		__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq"
		                     ::: "memory", "cc");
		found = find(address(nth(1)));
		__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq"
		                     ::: "memory", "cc");
		ck_assert_msg(found == world.bufs[nth(1)], "after step %ld",
		              walk.at);
		if (walk.steps <= walk.at)
			break;
	}
	ck_assert_int_gt(walk.at, 20);
}
END_TEST
#endif

int main(void)
{
	Suite *suite = suite_create("atlas");
	TCase *tc = add_case(suite, "atlas", 20);

	tcase_add_loop_test(tc, in_any_order, 0, REGIONS / 2);
	tcase_add_test(tc, beside_growth);
#if defined(__x86_64__)
	tcase_add_test(tc, amid_a_search);
#endif
	return run_suite(suite);
}
