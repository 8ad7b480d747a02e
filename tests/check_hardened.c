/* SPDX-License-Identifier: MIT */
/*
 * check_hardened.c - BUFPOOL_HARDENED: what came home first goes out first, and a
 * write after the return is found
 *
 * That hardened pools keep the rules of all pools is for other tests, which run on
 * them too (hardened.sh).
 */
#include "memory.h"

static bufpool_config_t hardened_config(bufpool_config_t config)
{
	config.name = "safe";
	config.flags |= BUFPOOL_HARDENED;
	return config;
}

static bufpool_t *hardened_pool(int size_class, size_t count)
{
	return make_pool(hardened_config(class_config(size_class, count)));
}

/* -------------------------------------------------------- first in, first out */

#define COUNT 12

/* In an order that is neither first in, first out nor last in, first out. */
static void return_in_disorder(bufpool_buf_t **bufs, bufpool_buf_t **order)
{
	for (size_t i = 0; i < COUNT; i++) {
		order[i] = bufs[i * 5 % COUNT];
		fill(order[i], SECRET);
		if (i % 3 == 0)
			return_elsewhere(order[i]);
		else
			bufpool_return(order[i]);
	}
}

static void must_come(bufpool_t *pool, int size_class, bufpool_buf_t **order)
{
	bufpool_buf_t *bufs[COUNT + 1];
	size_t n = drain(pool, size_class, bufs, COUNT + 1);

	ck_assert_uint_eq(n, COUNT);
	for (size_t i = 0; i < COUNT; i++) {
		ck_assert_msg(bufs[i] == order[i], "checkout %zu", i);
		ck_assert(is_zero(bufs[i]));
	}
}

START_TEST(first_in_first_out)
{
	bufpool_t *pool = hardened_pool(_i, COUNT);
	bufpool_buf_t *bufs[COUNT + 1], *order[COUNT];

	ck_assert_uint_eq(drain(pool, _i, bufs, COUNT + 1), COUNT);
	for (int round = 0; round < 3; round++) {
		return_in_disorder(bufs, order);
		must_come(pool, _i, order);
		memcpy(bufs, order, sizeof(order));
	}
	bufpool_return_bulk(bufs, COUNT);
	must_come(pool, _i, bufs);
	bufpool_return_bulk(bufs, COUNT);
	destroy_whole(pool);
}
END_TEST

/* A pair takes the one that was idle longest, though it would have a cache. */
START_TEST(pairs_go_round)
{
	bufpool_config_t config = hardened_config(class_config(_i, COUNT));
	bufpool_buf_t *first[COUNT], *buf;
	bufpool_t *pool;

	config.cache[_i] = 64; /* not looked at */
	pool = make_pool(config);
	for (int i = 0; i < 3 * COUNT; i++) {
		buf = classes[_i].checkout(pool);
		if (i < COUNT)
			first[i] = buf;
		ck_assert_ptr_eq(buf, first[i % COUNT]);
		bufpool_return(buf);
		ck_assert_uint_eq(cached_in(pool), 0);
	}
	ck_assert(are_disjoint(first, COUNT));
	destroy_whole(pool);
}
END_TEST

START_TEST(bulk_in_order)
{
	bufpool_t *pool = hardened_pool(BUFPOOL_CLASS_4K, 200);
	bufpool_buf_t *bufs[200], *again[200];

	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, bufs, 200), 200);
	bufpool_return_bulk(bufs, 200);
	for (size_t n = 1; n <= 200; n += 33) {
		ck_assert_uint_eq(bufpool_checkout_bulk(pool, 1, again, n), n);
		ck_assert(memcmp(again, bufs, n * sizeof(*bufs)) == 0);
		bufpool_return_bulk(again, n);
		ck_assert_uint_eq(
			bufpool_checkout_bulk(pool, 1, again, 200 - n), 200 - n);
		ck_assert(memcmp(again, bufs + n,
		                 (200 - n) * sizeof(*bufs)) == 0);
		bufpool_return_bulk(again, 200 - n);
	}
	destroy_whole(pool);
}
END_TEST

/* Those without pages have been idle longest, each in its order. */
START_TEST(trim_keeps_the_order)
{
	bufpool_t *pool = hardened_pool(_i, COUNT);
	bufpool_buf_t *bufs[COUNT + 1], *order[COUNT], *late[4];

	ck_assert_uint_eq(drain(pool, _i, bufs, COUNT + 1), COUNT);
	return_in_disorder(bufs, order);
	for (int i = 0; i < 4; i++)
		late[i] = classes[_i].checkout(pool);
	ck_assert_uint_eq(bufpool_trim(pool), (COUNT - 4) * classes[_i].size);
	bufpool_return_bulk(late, 4);
	memmove(order, order + 4, (COUNT - 4) * sizeof(*order));
	memcpy(order + COUNT - 4, late, sizeof(late));
	if (_i % 2)
		must_come(pool, _i, order);
	else
		/* Past the end, in bulk. */
		ck_assert(bufpool_checkout_bulk(pool, classes[_i].size, bufs,
		                                COUNT) == COUNT &&
		          memcmp(bufs, order, sizeof(order)) == 0);
	bufpool_return_bulk(order, COUNT);
	ck_assert_uint_eq(bufpool_trim(pool), COUNT * classes[_i].size);
	ck_assert_uint_eq(bufpool_trim(pool), 0);
	must_come(pool, _i, order);
	bufpool_return_bulk(order, COUNT);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------- written after a return */

static bufpool_buf_t *take_by_class(bufpool_t *pool, size_t size)
{
	return classes[bufpool_class_for(size)].checkout(pool);
}

static bufpool_buf_t *take_waiting(bufpool_t *pool, size_t size)
{
	return bufpool_checkout_wait(pool, size, NULL);
}

/* The second of two, where the first one is well. */
static bufpool_buf_t *take_two(bufpool_t *pool, size_t size)
{
	bufpool_buf_t *bufs[2] = {NULL, NULL};

	bufpool_return(bufpool_checkout(pool, size));
	bufpool_checkout_bulk(pool, size, bufs, 2);
	return bufs[1];
}

static const struct {
	bufpool_buf_t *(*take)(bufpool_t *pool, size_t size);
	const char *call; /* that it is found by */
} takes[] = {
	{take_by_size, "bufpool_checkout("},
	{take_by_class, "bufpool_checkout"}, /* inlined, the one without class */
	{bufpool_checkout_zeroed, "bufpool_checkout_zeroed("},
	{take_aligned, "bufpool_checkout_aligned("},
	{bufpool_try_checkout, "bufpool_try_checkout("},
	{take_waiting, "bufpool_checkout_wait("},
	{take_bulk, "bufpool_checkout_bulk("},
	{take_two, "bufpool_checkout_bulk("},
};

static struct {
	int take, klass;
	size_t offset;
	unsigned char value;
	bool trimmed;
} crime;

/* The handle goes to stdout, as stderr is for the verdict alone. */
static void write_after_return(void *handle)
{
	bool two = takes[crime.take].take == take_two;
	bufpool_t *pool = hardened_pool(crime.klass, two ? 2 : 1);
	bufpool_buf_t *buf = classes[crime.klass].checkout(pool);

	*(bufpool_buf_t **) handle = buf;
	bufpool_return(buf);
	if (crime.trimmed)
		must(bufpool_trim(pool) > 0);
	poke((char *) buf->data + crime.offset, crime.value, 1);
	takes[crime.take].take(pool, classes[crime.klass].size);
	_exit(1); /* not found */
}

static void must_be_found(void)
{
	bufpool_buf_t **handle = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
	                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char text[4096], verdict[200];
	int status;

	must(handle != MAP_FAILED);
	status = run_child(write_after_return, handle, text, sizeof(text));
	snprintf(verdict, sizeof(verdict),
	         "(%p): written after its return, at offset %zu, "
	         "in pool safe\n",
	         (void *) *handle, crime.offset);
	munmap(handle, PAGE);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
	              "take %d, class %d, offset %zu: wait status %#x, "
	              "stderr '%s'",
	              crime.take, crime.klass, crime.offset, (unsigned) status,
	              text);
	ck_assert_msg(strncmp(text, "bufpool: ", 9) == 0 &&
	                      strncmp(text + 9, takes[crime.take].call,
	                              strlen(takes[crime.take].call)) == 0 &&
	                      strstr(text, verdict) &&
	                      strchr(text, '\n') == text + strlen(text) - 1,
	              "take %d, class %d, offset %zu: stderr '%s'", crime.take,
	              crime.klass, crime.offset, text);
}

START_TEST(written_after_return)
{
	crime.take = _i;
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		const size_t last = classes[k].size - 1;
		const size_t offsets[] = {0, last / 2 + 7, last};

		crime.klass = k;
		for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
			crime.offset = offsets[i];
			crime.value = i == 0 ? 1 : 0x80;
			must_be_found();
		}
	}
}
END_TEST

/* A page that is not there comes to be by the write. */
START_TEST(written_after_trim)
{
	crime.trimmed = true;
	crime.value = 0xff;
	for (crime.klass = 0; crime.klass < BUFPOOL_CLASSES; crime.klass++) {
		crime.offset = classes[crime.klass].size / 2;
		must_be_found();
	}
}
END_TEST

/* ----------------------------------------------------------------- and if not */

/* In a child its page may be a copy from before it was erased: that is no write
   after the return. */
START_TEST(no_alarm_in_a_child)
{
	bufpool_t *pool = hardened_pool(_i, 2);
	bufpool_buf_t *buf = classes[_i].checkout(pool), *got;
	pid_t child;
	int status;

	bufpool_return(buf);
	poke(buf->data, SECRET, 100);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		for (int i = 0; i < 2; i++) {
			got = classes[_i].checkout(pool);
			must(got && is_zero(got));
			fill(got, SECRET);
			bufpool_return(got);
		}
		destroy_whole(pool);
		_exit(0);
	}
	must(waitpid(child, &status, 0) == child);
	ck_assert_int_eq(status, 0);
	poke(buf->data, 0, 100);
	destroy_whole(pool);
}
END_TEST

/* What stands in for a class comes and goes as ever. */
START_TEST(heap_stands_in)
{
	bufpool_t *pool = hardened_pool(_i, 1);
	bufpool_buf_t *bufs[3];

	for (int i = 0; i < 3; i++) {
		bufs[i] = classes[_i].checkout(pool);
		ck_assert(bufs[i] && is_zero(bufs[i]));
		fill(bufs[i], SECRET);
	}
	ck_assert_uint_eq(stats_of(pool).misses, 2);
	bufpool_return_bulk(bufs, 3);
	destroy_whole(pool);
}
END_TEST

START_TEST(needs_all_erased)
{
	const enum bufpool_wipe modes[] = {BUFPOOL_WIPE_USED, BUFPOOL_WIPE_NONE};
	bufpool_config_t config = hardened_config(default_config);

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		config.wipe = modes[i];
		REFUSED(!bufpool_create(&config), EINVAL);
	}
	config.wipe = BUFPOOL_WIPE_ALL;
	destroy_whole(make_pool(config));
}
END_TEST

/* Each class at each place has its own, with room for its buffers. */
START_TEST(any_count)
{
	for (size_t count = 0; count < 70; count += count < 10 ? 1 : 7) {
		bufpool_config_t config = hardened_config(even_config(0));

		for (int k = 0; k < BUFPOOL_CLASSES; k++)
			config.count[k] = k == BUFPOOL_CLASS_1M ? 1 : count + k;
		destroy_whole(make_pool(config));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("hardened");
	TCase *tc = add_case(suite, "order", 20);

	tcase_add_loop_test(tc, first_in_first_out, 0, BUFPOOL_CLASSES);
	tcase_add_loop_test(tc, pairs_go_round, 0, BUFPOOL_CLASSES);
	tcase_add_test(tc, bulk_in_order);
	tcase_add_loop_test(tc, trim_keeps_the_order, 0, BUFPOOL_CLASSES);
	tc = add_case(suite, "verify", 20);
	tcase_add_loop_test(tc, written_after_return, 0, ARRAY_SIZE(takes));
	tcase_add_test(tc, written_after_trim);
	tc = add_case(suite, "well", 20);
	tcase_add_loop_test(tc, no_alarm_in_a_child, 0, BUFPOOL_CLASSES);
	tcase_add_loop_test(tc, heap_stands_in, 0, BUFPOOL_CLASSES);
	tcase_add_test(tc, needs_all_erased);
	tcase_add_test(tc, any_count);
	return run_suite(suite);
}
