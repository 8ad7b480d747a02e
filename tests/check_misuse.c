/* SPDX-License-Identifier: MIT */
/*
 * check_misuse.c - misuse stops the program with one line that names the call
 * and the reason; what is no misuse never does
 *
 * Each misuse runs in a child of its own, see run_child().
 */
#include "common.h"

#define HANDLE_ALIGN 64 /* an address that a handle might have */

static void take_some(bufpool_t *pool, bufpool_buf_t **bufs, size_t n,
                      size_t size)
{
	must(bufpool_checkout_bulk(pool, size, bufs, n) == n);
}

/* A pool with some buffers that have been in use, and one that is out. */
static bufpool_buf_t *a_buffer_of(bufpool_t *pool, size_t size)
{
	bufpool_buf_t *bufs[4];

	take_some(pool, bufs, ARRAY_SIZE(bufs), size);
	bufpool_return_bulk(bufs + 1, ARRAY_SIZE(bufs) - 1);
	return bufs[0];
}

/* What the pools of a misuse erase, if they say nothing of it. */
static enum bufpool_wipe pools_wipe;

static bufpool_t *pool_of(bufpool_config_t config)
{
	config.wipe = pools_wipe;
	return make_pool(config);
}

static bufpool_t *a_pool(void)
{
	return pool_of(default_config);
}

static bufpool_t *heap_pool(void)
{
	return pool_of(empty_config());
}

static bufpool_t *pool_with_cache(size_t depth)
{
	bufpool_config_t config = default_config;

	set_cache(&config, depth);
	return pool_of(config);
}

/* ----------------------------------------------------------- double return */

static void twice_from_cache(void)
{
	bufpool_buf_t *buf = a_buffer_of(pool_with_cache(SIZE_MAX - 1), 1);

	bufpool_return(buf);
	bufpool_return(buf);
}

static void twice_by_default(void)
{
	bufpool_buf_t *buf = a_buffer_of(a_pool(), 65536);

	bufpool_return(buf);
	bufpool_return(buf);
}

static void twice_from_depot(void)
{
	bufpool_buf_t *buf = a_buffer_of(pool_with_cache(0), 1);

	bufpool_return(buf);
	bufpool_return(buf);
}

static void twice_after_flush(void)
{
	bufpool_buf_t *buf = a_buffer_of(a_pool(), 1);

	bufpool_return(buf);
	bufpool_thread_flush(NULL);
	bufpool_return(buf);
}

static void twice_with_others_between(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *bufs[20];

	take_some(pool, bufs, ARRAY_SIZE(bufs), 1);
	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
	bufpool_return(bufs[7]);
}

static void twice_in_bulk(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *bufs[4];

	take_some(pool, bufs, 3, 1);
	bufs[3] = bufs[1];
	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
}

static void twice_second_elsewhere(void)
{
	bufpool_buf_t *buf = a_buffer_of(a_pool(), 1);

	bufpool_return(buf);
	return_elsewhere(buf);
}

static void twice_first_elsewhere(void)
{
	bufpool_buf_t *buf = a_buffer_of(a_pool(), 1);

	return_elsewhere(buf);
	bufpool_return(buf);
}

static void twice_after_destroy(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *bufs[2];

	take_some(pool, bufs, 2, 1);
	bufpool_destroy(pool);
	bufpool_return(bufs[0]);
	bufpool_return(bufs[0]);
}

static void twice_around_destroy(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *bufs[2];

	take_some(pool, bufs, 2, 1);
	bufpool_return(bufs[0]);
	bufpool_destroy(pool);
	bufpool_return(bufs[0]);
}

static void twice_to_the_heap(void)
{
	bufpool_buf_t *buf = bufpool_checkout_1m(a_pool());

	bufpool_return(buf);
	bufpool_return(buf);
}

static void twice_to_the_heap_with_others_out(void)
{
	bufpool_t *pool = heap_pool();
	bufpool_buf_t *bufs[8];

	take_some(pool, bufs, ARRAY_SIZE(bufs), 1);
	bufpool_return_bulk(bufs, 4);
	bufpool_return(bufs[2]);
}

static void twice_to_the_heap_elsewhere(void)
{
	bufpool_t *pool = heap_pool();
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	bufpool_return(buf);
	return_elsewhere(buf);
}

static void twice_oversize(void)
{
	bufpool_buf_t *buf = bufpool_checkout(a_pool(), 5000000);

	bufpool_return(buf);
	bufpool_return(buf);
}

static void twice_never_wiped(void)
{
	bufpool_config_t config = default_config;
	bufpool_buf_t *buf;

	config.wipe = BUFPOOL_WIPE_NONE;
	buf = bufpool_checkout(make_pool(config), 1);
	bufpool_return(buf);
	bufpool_return(buf);
}

/* -------------------------------------------------------- foreign handles */

/* Four pages, so that there is memory around the handle to be looked at. */
static char *foreign_memory(unsigned char value)
{
	static _Alignas(4096) char memory[4 * PAGE];

	memset(memory, value, sizeof(memory));
	return memory;
}

/* Some pool should exist: none at all would be too easy. */
static void return_foreign(void *handle)
{
	must(bufpool_checkout(a_pool(), 1));
	bufpool_return(handle);
}

static void foreign_zero(void)
{
	return_foreign(foreign_memory(0) + PAGE);
}

static void foreign_ones(void)
{
	return_foreign(foreign_memory(0xff) + PAGE);
}

static void foreign_without_pool(void)
{
	bufpool_return((bufpool_buf_t *) (foreign_memory(0) + PAGE));
}

static void foreign_random(void)
{
	unsigned char *memory = (unsigned char *) foreign_memory(0);
	uint64_t seed = 88172645463325252;

	for (size_t i = 0; i < 4 * PAGE; i++)
		memory[i] = (unsigned char) draw(&seed);
	return_foreign(memory + PAGE);
}

/* What a confused program makes up: it looks right by itself. */
static void foreign_plausible(void)
{
	char *memory = foreign_memory(0);
	bufpool_buf_t *fake = (bufpool_buf_t *) (memory + PAGE);

	fake->data = memory + 2 * PAGE;
	fake->capacity = PAGE;
	return_foreign(fake);
}

static void foreign_on_the_stack(void)
{
	struct {
		_Alignas(HANDLE_ALIGN) char before[PAGE];
		bufpool_buf_t buf;
		char after[PAGE];
	} frame;

	memset(&frame, 0, sizeof(frame));
	return_foreign(&frame.buf);
}

static void foreign_in_the_payload(void)
{
	bufpool_buf_t *buf = bufpool_checkout(a_pool(), 65536);

	bufpool_return((bufpool_buf_t *) ((char *) buf->data + 2 * PAGE));
}

static void foreign_payload_itself(void)
{
	bufpool_buf_t *buf = bufpool_checkout(a_pool(), 1);

	bufpool_return(buf->data);
}

static void foreign_heap_payload(void)
{
	bufpool_buf_t *buf = bufpool_checkout_1m(a_pool());

	bufpool_return((bufpool_buf_t *) ((char *) buf->data + PAGE));
}

static void foreign_misaligned(void)
{
	bufpool_buf_t *buf = bufpool_checkout(a_pool(), 1);

	bufpool_return((bufpool_buf_t *) ((char *) buf + sizeof(void *)));
}

static void foreign_odd(void)
{
	return_foreign(foreign_memory(0) + PAGE + 1);
}

/* Neighbours may be missing: copy what is there. */
static void copy_around(char *to, const bufpool_buf_t *buf, size_t n)
{
	must(peek(buf, to, n));
	peek((const char *) buf - HANDLE_ALIGN, to - HANDLE_ALIGN,
	     HANDLE_ALIGN);
}

static void foreign_copy(void)
{
	char *memory = foreign_memory(0);

	copy_around(memory + PAGE, bufpool_checkout(a_pool(), 1),
	            sizeof(bufpool_buf_t));
	bufpool_return((bufpool_buf_t *) (memory + PAGE));
}

/* Also of what the library keeps behind the public part. */
static void foreign_clone(void)
{
	char *memory = foreign_memory(0);

	copy_around(memory + PAGE, bufpool_checkout(a_pool(), 1),
	            HANDLE_ALIGN);
	bufpool_return((bufpool_buf_t *) (memory + PAGE));
}

static void foreign_clone_in_payload(void)
{
	bufpool_buf_t *buf = bufpool_checkout(a_pool(), 65536);
	char *memory = buf->data;

	copy_around(memory + PAGE, buf, HANDLE_ALIGN);
	bufpool_return((bufpool_buf_t *) (memory + PAGE));
}

static void foreign_in_bulk(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *bufs[5] = {NULL};

	take_some(pool, bufs, 3, 1);
	bufs[4] = (bufpool_buf_t *) (foreign_memory(0) + PAGE);
	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
}

/* ------------------------------------------------------ len above capacity */

static void return_with_len(enum bufpool_wipe wipe, size_t size, size_t more)
{
	bufpool_config_t config = default_config;
	bufpool_buf_t *buf;

	config.wipe = wipe;
	buf = bufpool_checkout(make_pool(config), size);
	must(buf);
	buf->len = more > SIZE_MAX - buf->capacity ? SIZE_MAX
	                                           : buf->capacity + more;
	bufpool_return(buf);
}

static void long_by_one(void)
{
	return_with_len(BUFPOOL_WIPE_ALL, 1, 1);
}

static void long_as_others(void)
{
	return_with_len(pools_wipe, 4096, 1);
}

static void long_under_used(void)
{
	return_with_len(BUFPOOL_WIPE_USED, 65536, 1);
}

static void long_under_none(void)
{
	return_with_len(BUFPOOL_WIPE_NONE, 262144, 1);
}

static void long_by_far(void)
{
	return_with_len(BUFPOOL_WIPE_USED, 1, SIZE_MAX);
}

static void long_from_the_heap(void)
{
	return_with_len(BUFPOOL_WIPE_ALL, 1048576, 1);
}

static void long_oversize(void)
{
	return_with_len(BUFPOOL_WIPE_USED, 1048577, 1);
}

static void long_in_bulk(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *bufs[3];

	take_some(pool, bufs, ARRAY_SIZE(bufs), 1);
	bufs[2]->len = PAGE + 1;
	bufpool_return_bulk(bufs, ARRAY_SIZE(bufs));
}

static void long_after_destroy(void)
{
	bufpool_t *pool = a_pool();
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	bufpool_destroy(pool);
	buf->len = PAGE + 1;
	bufpool_return(buf);
}

/* ------------------------------------- data and capacity are not the owner's */

/* Where the buffer comes from, which mode erases it, and what is done to it. */
struct spoil {
	const char *name;
	size_t size;
	enum bufpool_wipe wipe;
	size_t count, cache; /* 0 of them: from the heap */
	long data, capacity;
};

/* clang-format off */
static const struct spoil spoils[] = {
	{"data by a header", 1, BUFPOOL_WIPE_ALL, 4, 4, 16, 0},
	{"data by a mode", 1, BUFPOOL_WIPE_ALL, 4, 4, 0x40, 0},
	{"data by two modes", 1, BUFPOOL_WIPE_USED, 4, 4, 0x80, 0},
	{"data by 256", 1, BUFPOOL_WIPE_ALL, 4, 4, 256, 0},
	{"data by 512", 1, BUFPOOL_WIPE_USED, 4, 4, 512, 0},
	{"data by one, down", 1, BUFPOOL_WIPE_ALL, 4, 4, -1, 0},
	{"data by a page", 1, BUFPOOL_WIPE_NONE, 4, 4, 4096, 0},
	{"data by 2^48", 1, BUFPOOL_WIPE_NONE, 4, 4, 1l << 48, 0},
	{"headroom", 1, BUFPOOL_WIPE_ALL, 4, 4, 128, -128},
	{"both alike", 1, BUFPOOL_WIPE_ALL, 4, 4, 128, 128},
	{"both, not erased", 1, BUFPOOL_WIPE_NONE, 4, 4, 4096, 4096},
	{"capacity down", 65536, BUFPOOL_WIPE_ALL, 4, 4, 0, -1},
	{"capacity of another class", 65536, BUFPOOL_WIPE_NONE, 4, 4, 0, -61440},
	{"capacity up, no cache", 1, BUFPOOL_WIPE_ALL, 4, 0, 0, 256},
	{"data, no cache", 1, BUFPOOL_WIPE_NONE, 4, 0, 64, 0},
	{"data from the heap", 1, BUFPOOL_WIPE_ALL, 0, 4, 64, 0},
	{"data from the heap, to class 0", 1, BUFPOOL_WIPE_NONE, 0, 4, 63, 0},
	{"capacity from the heap", 1, BUFPOOL_WIPE_ALL, 0, 4, 0, 256},
	{"capacity, oversize", 3000000, BUFPOOL_WIPE_NONE, 0, 4, 0, -1},
	{"both, oversize", 3000000, BUFPOOL_WIPE_NONE, 0, 4, 256, 256},
};
/* clang-format on */

static void spoil(bufpool_buf_t *buf, const struct spoil *how)
{
	buf->data = (char *) ((uintptr_t) buf->data + (uintptr_t) how->data);
	buf->capacity += (size_t) how->capacity;
}

static void by_return(bufpool_buf_t **bufs, const struct spoil *how)
{
	spoil(bufs[1], how);
	bufpool_return(bufs[1]);
}

static void by_bulk(bufpool_buf_t **bufs, const struct spoil *how)
{
	spoil(bufs[1], how);
	bufpool_return_bulk(bufs, 2);
}

static void by_freeze(bufpool_buf_t **bufs, const struct spoil *how)
{
	spoil(bufs[1], how);
	bufpool_freeze(bufs[1]);
}

/* A frozen one by the old handle, which is none any more. */
static void by_unref(bufpool_buf_t **bufs, const struct spoil *how)
{
	bufpool_frozen_t *f = bufpool_freeze(bufs[1]);

	spoil(bufs[1], how);
	bufpool_frozen_unref(f);
}

static void by_release(bufpool_buf_t **bufs, const struct spoil *how)
{
	bufpool_slice_t slice =
		bufpool_slice(bufpool_freeze(bufs[1]), 0, 1);

	bufpool_frozen_unref(slice.owner);
	spoil(bufs[1], how);
	bufpool_slice_release(&slice);
}

/* How it is let go, and the call that is to say so. */
static const struct letting_go {
	void (*let_go)(bufpool_buf_t **bufs, const struct spoil *how);
	const char *call;
} lettings_go[] = {
	{by_return, "bufpool_return"},
	{by_bulk, "bufpool_return"},
	{by_freeze, "bufpool_freeze"},
	{by_unref, "bufpool_frozen_unref"},
	{by_release, "bufpool_slice_release"},
};
enum { WAYS = ARRAY_SIZE(lettings_go) };

static struct {
	const struct spoil *spoil;
	const struct letting_go *way;
} spoiling;

static void let_go_spoilt(void)
{
	const struct spoil *how = spoiling.spoil;
	bufpool_config_t config = even_config(how->count);
	bufpool_t *pool;
	bufpool_buf_t *bufs[2];

	config.wipe = how->wipe;
	set_cache(&config, how->cache);
	pool = make_pool(config);
	for (int i = 0; i < 2; i++)
		bufs[i] = bufpool_checkout(pool, how->size);
	bufs[1]->len = 1;
	spoiling.way->let_go(bufs, how);
}

/* The loop index is what is done to it, then how it is let go. */
START_TEST(spoilt_is_loud)
{
	struct misuse misuse = {spoils[_i / WAYS].name, let_go_spoilt,
	                        lettings_go[_i % WAYS].call};

	spoiling.spoil = &spoils[_i / WAYS];
	spoiling.way = &lettings_go[_i % WAYS];
	must_be_loud(&misuse);
}
END_TEST

/* ------------------------------------------------------------- the verdict */

#define MISUSE(fn) {#fn, fn, "bufpool_return"}

static const struct misuse misuses[] = {
	MISUSE(twice_from_cache),
	MISUSE(twice_by_default),
	MISUSE(twice_from_depot),
	MISUSE(twice_after_flush),
	MISUSE(twice_with_others_between),
	MISUSE(twice_in_bulk),
	MISUSE(twice_second_elsewhere),
	MISUSE(twice_first_elsewhere),
	MISUSE(twice_after_destroy),
	MISUSE(twice_around_destroy),
	MISUSE(twice_to_the_heap),
	MISUSE(twice_to_the_heap_with_others_out),
	MISUSE(twice_to_the_heap_elsewhere),
	MISUSE(twice_oversize),
	MISUSE(twice_never_wiped),
	MISUSE(foreign_zero),
	MISUSE(foreign_ones),
	MISUSE(foreign_without_pool),
	MISUSE(foreign_random),
	MISUSE(foreign_plausible),
	MISUSE(foreign_on_the_stack),
	MISUSE(foreign_in_the_payload),
	MISUSE(foreign_payload_itself),
	MISUSE(foreign_heap_payload),
	MISUSE(foreign_misaligned),
	MISUSE(foreign_odd),
	MISUSE(foreign_copy),
	MISUSE(foreign_clone),
	MISUSE(foreign_clone_in_payload),
	MISUSE(foreign_in_bulk),
	MISUSE(long_by_one),
	MISUSE(long_as_others),
	MISUSE(long_under_used),
	MISUSE(long_under_none),
	MISUSE(long_by_far),
	MISUSE(long_from_the_heap),
	MISUSE(long_oversize),
	MISUSE(long_in_bulk),
	MISUSE(long_after_destroy),
};

/* The loop index is the misuse, then the wipe mode. */
START_TEST(misuse_is_loud)
{
	pools_wipe = (enum bufpool_wipe) (_i / (int) ARRAY_SIZE(misuses));
	must_be_loud(&misuses[_i % (int) ARRAY_SIZE(misuses)]);
}
END_TEST

/* Also in a thread that is to be cancelled where it comes to a cancellation point. */
static const struct misuse *cancelled_misuse;

static void *commit_cancelled(void *arg)
{
	must(pthread_cancel(pthread_self()) == 0);
	cancelled_misuse->commit();
	return arg;
}

static void commit_in_a_thread(void)
{
	run_thread(commit_cancelled, NULL);
}

START_TEST(cancelled_misuse_is_loud)
{
	struct misuse misuse = misuses[0];

	cancelled_misuse = &misuses[0];
	misuse.commit = commit_in_a_thread;
	must_be_loud(&misuse);
}
END_TEST

/* ---------------------------------------------------------- whose buffer it is */

/* Of a pool with that name; from its heap, if there is none of the size. */
static bufpool_buf_t *buffer_of_named(size_t size)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);

	config.name = "a \"pool\"\n";
	return bufpool_checkout(make_pool(config), size);
}

static void twice_of_named(void)
{
	bufpool_buf_t *buf = buffer_of_named(1);

	bufpool_return(buf);
	bufpool_return(buf);
}

static void twice_of_named_heap(void)
{
	bufpool_buf_t *buf = buffer_of_named(5000);

	bufpool_return(buf);
	bufpool_return(buf);
}

static void long_of_named(void)
{
	bufpool_buf_t *buf = buffer_of_named(1);

	buf->len = PAGE + 1;
	bufpool_return(buf);
}

static void dropped_twice_of_named(void)
{
	bufpool_frozen_t *f = bufpool_freeze(buffer_of_named(5000));

	bufpool_frozen_unref(f);
	bufpool_frozen_unref(f);
}

/* One pointer of a copy leads nowhere. */
static void copy_of_named(size_t size)
{
	static uint64_t copy[8] __attribute__((aligned(HANDLE_ALIGN)));
	bufpool_buf_t *buf = buffer_of_named(size);

	memcpy(copy, buf, sizeof(copy));
	for (size_t i = 3; i < ARRAY_SIZE(copy); i++)
		if (copy[i] != 0 && copy[i] % PAGE == 0 &&
		    copy[i] != (uintptr_t) buf->data)
			copy[i] += 0x123456789000;
	bufpool_return((bufpool_buf_t *) copy);
}

static void copy_of_named_pool(void)
{
	copy_of_named(1);
}

static void copy_of_named_heap(void)
{
	copy_of_named(5000);
}

static const struct {
	struct misuse misuse;
	bool named;
} known[] = {
	{{"twice", twice_of_named, "bufpool_return"}, true},
	{{"twice, heap", twice_of_named_heap, "bufpool_return"}, true},
	{{"too long", long_of_named, "bufpool_return"}, true},
	{{"unref", dropped_twice_of_named, "bufpool_frozen_unref"}, true},
	{{"copy", copy_of_named_pool, "bufpool_return"}, false},
	{{"copy, heap", copy_of_named_heap, "bufpool_return"}, false},
};

/* The line ends with the pool's name where it is known for sure. */
START_TEST(pool_is_named)
{
	const char *end = ", in pool a \\\"pool\\\"\\n\n";
	char text[4096];

	must_be_loud(&known[_i].misuse);
	run_child(commit_misuse, (void *) &known[_i].misuse, text,
	          sizeof(text));
	if (known[_i].named)
		ck_assert_str_eq(text + strlen(text) - strlen(end), end);
	else
		ck_assert_msg(!strstr(text, "in pool"), "stderr '%s'", text);
}
END_TEST

/* --------------------------------------------------------- no false alarms */

enum { HELD = 40 };

static bufpool_buf_t *take_any(bufpool_t *pool, uint64_t *seed)
{
	const struct way *way = &ways[draw(seed) % ARRAY_SIZE(ways)];
	uint64_t chance = draw(seed) % 1000;
	size_t size = draw(seed) % PAGE;

	if (chance < 50)
		size = draw(seed) % 65537;
	if (chance < 2)
		size = draw(seed) % 1200000;
	if (chance > 800)
		return bufpool_checkout_4k(pool);
	return way->take(pool, size);
}

/* All sorts of legal things, in two pools, one of them with few buffers. */
static void *behave(void *arg)
{
	bufpool_t **pools = arg;
	bufpool_buf_t *held[HELD] = {NULL};
	uint64_t seed = (uintptr_t) held;

	for (long i = scaled(500000); i > 0; i--) {
		bufpool_buf_t **slot = &held[draw(&seed) % HELD];

		if (*slot) {
			(*slot)->len = draw(&seed) % ((*slot)->capacity + 1);
			bufpool_return(*slot);
			*slot = NULL;
		} else {
			*slot = take_any(pools[draw(&seed) % 2], &seed);
		}
		if (i % 1024 == 0)
			bufpool_thread_flush(pools[i / 1024 % 2]);
		if (i % 4096 == 0) {
			bufpool_return_bulk(held, HELD);
			memset(held, 0, sizeof(held));
		}
	}
	bufpool_return_bulk(held, HELD);
	return NULL;
}

/* The loop index is the wipe mode. */
START_TEST(no_false_alarm)
{
	bufpool_config_t config = even_config(4);
	bufpool_t *pools[2];
	pthread_t other;

	config.wipe = (enum bufpool_wipe) _i;
	pools[0] = make_pool(config);
	set_cache(&config, 0);
	config.count[BUFPOOL_CLASS_4K] = 30;
	pools[1] = make_pool(config);
	other = start_thread(behave, pools);
	behave(pools);
	join_thread(other);
	for (int i = 0; i < 2; i++) {
		destroy_whole(pools[i]);
	}
}
END_TEST

static Suite *misuse_suite(void)
{
	Suite *suite = suite_create("misuse");
	TCase *tcase = add_case(suite, "misuse", 10);

	tcase_add_test(tcase, cancelled_misuse_is_loud);
	tcase_add_loop_test(tcase, misuse_is_loud, 0,
	                    (BUFPOOL_WIPE_NONE + 1) *
				    (int) ARRAY_SIZE(misuses));
	tcase_add_loop_test(tcase, spoilt_is_loud, 0,
	                    (int) ARRAY_SIZE(spoils) * WAYS);
	tcase_add_loop_test(tcase, pool_is_named, 0, ARRAY_SIZE(known));
	tcase = add_case(suite, "good use", 20);
	tcase_add_loop_test(tcase, no_false_alarm, 0, BUFPOOL_WIPE_NONE + 1);
	return suite;
}

int main(void)
{
	return run_suite(misuse_suite());
}
