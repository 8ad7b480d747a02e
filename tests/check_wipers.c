/* SPDX-License-Identifier: MIT */
/*
 * check_wipers.c - the routines that erase: each erases all it should and
 * nothing else, and one of them is chosen; and those that see whether it was
 */
#include "blank.h"
#include "wipe.h"

#include "common.h"

/* Of 4 KiB to 1 MiB; with a page before and after, and one to move in. */
#define ROOM (BUFPOOL_MAX_CLASS_SIZE + 3 * PAGE)

static unsigned char *room;

static void map_room(void)
{
	room = mmap(NULL, ROOM, PROT_READ | PROT_WRITE,
	            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(room, MAP_FAILED);
}

static void unmap_room(void)
{
	munmap(room, ROOM);
}

/* Never 0, and different at the same place of two lines, pages or registers. */
static unsigned char pattern(size_t i)
{
	return (unsigned char) (1 + i % 251);
}

static void fill_room(void)
{
	for (size_t i = 0; i < ROOM; i++)
		room[i] = pattern(i);
}

/* Bytes [from, from + n) of the room are 0, all others as they were. */
static void must_be_erased(const char *name, size_t from, size_t n)
{
	for (size_t i = 0; i < ROOM; i++) {
		bool inside = i >= from && i - from < n;

		if (room[i] != (inside ? 0 : pattern(i)))
			ck_abort_msg("%s, %zu bytes: byte %zd is %#x", name, n,
			             (ssize_t) (i - from), room[i]);
	}
}

START_TEST(erases_these_bytes_alone)
{
	for (enum bp_wipe w = 0; w < BP_WIPES; w++) {
		if (!bp_wipe_usable(w))
			continue;
		for (int k = 0; k < BUFPOOL_CLASSES; k++)
			for (size_t from = PAGE; from <= 2 * PAGE; from += PAGE) {
				fill_room();
				bp_wipe_by(w, room + from, classes[k].size);
				must_be_erased(bp_wipe_name(w), from,
				               classes[k].size);
			}
	}
}
END_TEST

/* Sizes that are no class here, but may be one in another table. */
START_TEST(erases_other_sizes)
{
	for (enum bp_wipe w = 0; w < BP_WIPES; w++) {
		if (!bp_wipe_usable(w))
			continue;
		for (size_t n = PAGE; n <= 20 * PAGE; n += PAGE) {
			fill_room();
			bp_wipe_by(w, room + PAGE, n);
			must_be_erased(bp_wipe_name(w), PAGE, n);
		}
	}
}
END_TEST

/* As who has the default target calls them, with a size known. */
START_TEST(erases_inline)
{
	fill_room();
	bp_wipe_auto(room + PAGE, PAGE);
	must_be_erased("auto", PAGE, PAGE);
	fill_room();
	bp_wipe_memset(room + PAGE, PAGE);
	must_be_erased("memset", PAGE, PAGE);
	fill_room();
	bp_wipe_call(room + PAGE, PAGE);
	must_be_erased("call", PAGE, PAGE);
#ifdef __x86_64__
	fill_room();
	bp_wipe_stos(room + PAGE, PAGE);
	must_be_erased("stos", PAGE, PAGE);
#endif
}
END_TEST

START_TEST(everyone_can_memset)
{
	ck_assert(bp_wipe_usable(BP_WIPE_MEMSET));
	ck_assert(bp_wipe_usable(BP_WIPE_CALL));
	ck_assert(!bp_wipe_usable(BP_WIPES));
#ifdef __x86_64__
	ck_assert(bp_wipe_usable(BP_WIPE_STOS));
#else
	ck_assert(!bp_wipe_usable(BP_WIPE_STOS));
	ck_assert(!bp_wipe_usable(BP_WIPE_AVX2));
	ck_assert(!bp_wipe_usable(BP_WIPE_AVX512));
#endif
}
END_TEST

START_TEST(names_are_distinct)
{
	for (enum bp_wipe a = 0; a < BP_WIPES; a++) {
		ck_assert(*bp_wipe_name(a));
		for (enum bp_wipe b = 0; b < a; b++)
			ck_assert_str_ne(bp_wipe_name(a), bp_wipe_name(b));
	}
}
END_TEST

START_TEST(chooses_a_usable_one)
{
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		for (unsigned times = 1; times <= 16; times *= 4) {
			enum bp_wipe w;

			fill_room();
			w = bp_wipe_choose(room + PAGE, classes[k].size, times);
			ck_assert(bp_wipe_usable(w));
			must_be_erased("choose", PAGE, classes[k].size);
#ifndef __x86_64__
			ck_assert_int_eq(w, BP_WIPE_MEMSET);
#endif
		}
}
END_TEST

/* All bytes around it are set. */
static void must_see(enum bp_blank by, size_t from, size_t n)
{
	const unsigned char *p = room + from;

	fill_room();
	memset(room + from, 0, n);
	ck_assert(bp_blank_by(by, p, n));
	ck_assert(bp_is_blank(p, n));
	ck_assert_uint_eq(bp_blank_bytes(p, n), n);
	/* Each place in a turn of its loop, and in each of a byte. */
	for (size_t i = 0; i < n; i += i < 520 || n - i < 520 ? 1 : n / 13) {
		room[from + i] = (unsigned char) (1u << i % 8);
		if (bp_blank_by(by, p, n) || bp_blank_bytes(p, n) != i)
			ck_abort_msg("%d, %zu bytes: not seen at %zu", by, n, i);
		room[from + i] = 0;
	}
}

START_TEST(sees_any_byte)
{
	for (enum bp_blank by = 0; by < BP_BLANKS; by++) {
		if (!bp_blank_usable(by))
			continue;
		for (int k = 0; k < BUFPOOL_CLASSES; k++)
			must_see(by, PAGE, classes[k].size);
		for (size_t n = PAGE; n <= 8 * PAGE; n += PAGE)
			must_see(by, 2 * PAGE, n);
	}
	ck_assert(bp_blank_usable(BP_BLANK_128));
	ck_assert(!bp_blank_usable(BP_BLANKS));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("wipers");
	TCase *tc = add_case(suite, "wipers", 30);

	tcase_add_checked_fixture(tc, map_room, unmap_room);
	tcase_add_test(tc, erases_these_bytes_alone);
	tcase_add_test(tc, erases_other_sizes);
	tcase_add_test(tc, erases_inline);
	tcase_add_test(tc, everyone_can_memset);
	tcase_add_test(tc, names_are_distinct);
	tcase_add_test(tc, chooses_a_usable_one);
	tcase_add_test(tc, sees_any_byte);
	return run_suite(suite);
}
