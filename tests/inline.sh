#!/bin/sh
# SPDX-License-Identifier: MIT
# inline.sh - programs with the calls inlined (-DBUFPOOL_INLINE)
#
#   - compile in C and C++, of all standards, and work; the headers without a
#     word from the compiler, also where nothing is inlined
#   - have none inlined with AddressSanitizer or ThreadSanitizer
#   - do not start with a library of another class table, nor link with one
#   - with a library built for Valgrind never take the fast paths, so that it
#     sees what it always sees
#
# Compiled here, without the CFLAGS of the build: sanitizers leave nothing inlined.
set -eu

src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
CC=${CC:-cc}
GEN=${GEN:-$build/gen/bufpool-gen}
case ${NM:-} in '' | no | :) NM=nm ;; esac
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
LC_ALL=C
export LC_ALL

fail() {
	echo "inline.sh: $*"
	exit 1
}

# --------------------------------------------------------------- libraries

# library NAME TABLE FLAGS: in $tmp/NAME, its headers too; the soname is always
# the same.  From a copy, as what is generated may lie among the sources.
library() {
	dir=$tmp/$1
	mkdir -p "$dir/src" "$dir/include/bufpool"
	cp "$src"/src/*.[ch] "$dir/src"
	cp "$src/include/bufpool.h" "$dir/include"
	cp "$src/include/bufpool/hwloc.h" "$build/include/bufpool/version.h" \
		"$dir/include/bufpool"
	for file in include/bufpool/classes.h include/bufpool/inline.h \
		src/class-table.h src/checkout.c; do
		"$GEN" "$2" "$src/gen/${file##*/}.in" "$dir/$file"
	done
	# shellcheck disable=SC2086
	(
		cd "$dir"
		$CC -std=gnu11 -O1 -D_GNU_SOURCE $3 -fPIC -pthread \
			-ftls-model=initial-exec -fvisibility=hidden \
			-Iinclude -Isrc ${HWLOC_CFLAGS:-} -c src/*.c
		ar cr libbufpool.a ./*.o
		$CC -shared -pthread -o libbufpool.so.0 ./*.o \
			-Wl,-soname,libbufpool.so.0 \
			-Wl,--version-script="$src/src/bufpool.map" $libs
		ln -s libbufpool.so.0 libbufpool.so
	)
}

# compile COMPILER-AND-FLAGS FILE OUTPUT: against the usual library
compile() {
	# shellcheck disable=SC2086
	$1 -Wall -Wextra -Werror -DBUFPOOL_INLINE \
		-I"$tmp/usual/include" "$2" -o "$3" -L"$tmp/usual" -lbufpool \
		>"$tmp/log" 2>&1 || fail "$1: $(cat "$tmp/log")"
	$NM -u "$3" | grep -q ' bufpool_fast_' || fail "$1: nothing is inlined"
}

# run NAME PROGRAM: with that library
run() {
	LD_LIBRARY_PATH=$tmp/$1 "$2"
}

libs="${CK_LIBS:--lck} ${HWLOC_LIBS:--lhwloc}"
table=$src/gen/classes.def
# The same sizes, of which fewer are cached: another layout.
sed 's/^\( *4k .*auto *\)64 /\132 /' "$table" >"$tmp/other.def"
! cmp -s "$table" "$tmp/other.def" || fail 'the other table is the same'
library usual "$table" ''
library other "$tmp/other.def" ''

# ----------------------------------------------------------------- it works

# Every call that is inlined, by all ways through it; C of 1990, and C++.
cat >"$tmp/user.c" <<'END'
#include <bufpool.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define N 40
#define MUST(expr) ((expr) ? (void) 0 : failed(#expr, __LINE__))

static void failed(const char *expr, int line)
{
	fprintf(stderr, "line %d: '%s' failed\n", line, expr);
	abort();
}

static bufpool_buf_t *one(bufpool_t *pool, size_t size, size_t capacity)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, size);

	MUST(buf && buf->len == size && buf->capacity == capacity);
	memset(buf->data, 1, buf->capacity);
	return buf;
}

static void many(bufpool_t *pool, size_t size)
{
	bufpool_buf_t *bufs[N];
	size_t n = bufpool_checkout_bulk(pool, size, bufs, N), i;

	MUST(n == N);
	for (i = 0; i < n; i++)
		MUST(bufs[i]->len == size && (i == 0 || bufs[i] != bufs[i - 1]));
	bufpool_return_bulk(bufs, n);
	MUST(bufpool_checkout_bulk(pool, size, bufs, 0) == 0);
	bufpool_return_bulk(bufs, 0);
}

static void use(enum bufpool_wipe wipe)
{
	static const size_t sizes[][2] = {
		{0, 4096}, {4096, 4096}, {4097, 65536}, {65536, 65536},
		{65537, 262144}, {262145, 1048576}, {1048577, 1048577},
	};
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	bufpool_t *(*create)(const bufpool_config_t *) = bufpool_create;
	bufpool_buf_t *(*checkout)(bufpool_t *, size_t) = bufpool_checkout;
	bufpool_stats_t stats;
	bufpool_t *pool;
	size_t i, round;

	config.wipe = wipe;
	config.count[BUFPOOL_CLASS_4K] = 256;
	pool = create(&config);
	MUST(pool != NULL);
	for (round = 0; round < 5; round++) {
		for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			bufpool_return(one(pool, sizes[i][0], sizes[i][1]));
		bufpool_return(bufpool_checkout_4k(pool));
		bufpool_return(bufpool_checkout_64k(pool));
		bufpool_return(bufpool_checkout_256k(pool));
		bufpool_return(bufpool_checkout_1m(pool));
		bufpool_return(checkout(pool, 1));
		many(pool, 100);
	}
	bufpool_return(NULL);
	errno = 0;
	MUST(bufpool_checkout(NULL, 1) == NULL && errno == EINVAL);
	errno = 0;
	MUST(bufpool_checkout(pool, SIZE_MAX) == NULL && errno == EOVERFLOW);
	bufpool_stats(pool, &stats);
	MUST(stats.checked_out == 0 && stats.oversize == 5);
	MUST(stats.per_class[BUFPOOL_CLASS_4K].cache_hits > 10);
	bufpool_destroy(pool);
}

int main(void)
{
	puts("main");
	fflush(stdout);
	use(BUFPOOL_WIPE_ALL);
	use(BUFPOOL_WIPE_USED);
	use(BUFPOOL_WIPE_NONE);
	return 0;
}
END
cp "$tmp/user.c" "$tmp/user.c++"

# What users may name of the headers, by macros and all.
cat >"$tmp/headers.c" <<'END'
#include <bufpool.h>
#include <bufpool/hwloc.h>
#include <bufpool/inline.h>

#ifdef __cplusplus
namespace bufpool /* the user's own */
{
typedef bufpool_t pool;
}
#endif
bufpool_config_t init = BUFPOOL_CONFIG_INIT, empty = BUFPOOL_CONFIG_EMPTY;
void *attach(void *arg, const bufpool_region_t *region);
void *attach(void *arg, const bufpool_region_t *region)
{
	bufpool_config_t *config = region->index == 0 ? &init : &empty;

	config->numa_node = BUFPOOL_NUMA_ANY;
	config->numa_node = BUFPOOL_NUMA_LOCAL;
	config->cache[BUFPOOL_CLASS_4K] = BUFPOOL_CACHE_AUTO;
	config->count[BUFPOOL_CLASSES - 1] = BUFPOOL_MAX_COUNT;
	config->heap_limit = BUFPOOL_MAX_CLASS_SIZE;
	config->flags = BUFPOOL_NUMA_STRICT | BUFPOOL_DONTFORK;
	return region->index < BUFPOOL_VERSION_NUM ? arg : BUFPOOL_ATTACH_FAILED;
}
END
cp "$tmp/headers.c" "$tmp/headers.c++"

# with LANGUAGE COMPILER STANDARDS WARNINGS: at two levels of optimisation
with() {
	command -v "${2%% *}" >/dev/null || return 0
	for std in $3; do
		# What it does not know is no fault of ours.
		echo | $2 -std="$std" -x "$1" -fsyntax-only - 2>/dev/null ||
			continue
		for how in '' -DBUFPOOL_INLINE; do
			# shellcheck disable=SC2086
			$2 -std="$std" -Wall -Wextra -Wpedantic -Wshadow $4 \
				-Wundef -Wwrite-strings $how \
				-I"$tmp/usual/include" ${HWLOC_CFLAGS:-} \
				-fsyntax-only "$tmp/headers.$1" >"$tmp/log" 2>&1
			[ ! -s "$tmp/log" ] || fail "$2 $std: $(cat "$tmp/log")"
		done
		for level in -O0 -O2; do
			compile "$2 -std=$std -Wpedantic $4 $level" \
				"$tmp/user.$1" "$tmp/user"
			run usual "$tmp/user" >/dev/null ||
				fail "$2 -std=$std $level: exits with $?"
		done
	done
}
for cc in gcc clang; do
	with c "$cc" 'c90 gnu90 c99 c11 gnu11 c17' '-Wstrict-prototypes'
done
for cxx in g++ clang++; do
	with c++ "$cxx" 'c++98 c++11 c++14 c++17 c++20' '-Wold-style-cast'
done

# Where a sanitizer is to see what the library does, nothing is inlined.
for cc in gcc clang; do
	command -v $cc >/dev/null || continue
	for sanitizer in address thread; do
		$cc -fsanitize=$sanitizer -O2 -DBUFPOOL_INLINE \
			-I"$tmp/usual/include" -c "$tmp/user.c" -o "$tmp/user.o" ||
			fail "$cc -fsanitize=$sanitizer"
		! $NM -u "$tmp/user.o" | grep ' bufpool_fast_' ||
			fail "$cc -fsanitize=$sanitizer: something is inlined"
	done
done

# ---------------------------------------------------- with another library

compile "$CC -O2" "$tmp/user.c" "$tmp/user"
run usual "$tmp/user" >"$tmp/out" 2>&1 || fail "exits with $?: $(cat "$tmp/out")"
grep -q '^main$' "$tmp/out" || fail 'does not say that main has begun'
if run other "$tmp/user" >"$tmp/out" 2>&1; then
	fail 'starts with a library of another class table'
fi
! grep -q '^main$' "$tmp/out" || fail 'main has begun with the other library'
grep -Eq 'undefined symbol: bufpool_fast_|bufpool_fast_[0-9a-f]*: symbol not found' \
	"$tmp/out" || fail "the dynamic linker says: $(cat "$tmp/out")"
# What is called is in either.
$CC -I"$tmp/usual/include" "$tmp/user.c" -o "$tmp/called" -L"$tmp/usual" -lbufpool
run other "$tmp/called" >/dev/null || fail "the called one exits with $?"

# static NAME: links with that archive
static() {
	# shellcheck disable=SC2086
	$CC -O2 -DBUFPOOL_INLINE -I"$tmp/usual/include" "$tmp/user.c" \
		-o "$tmp/static" "$tmp/$1/libbufpool.a" -pthread $libs \
		>"$tmp/log" 2>&1
}
static usual || fail "the right archive: $(cat "$tmp/log")"
"$tmp/static" >/dev/null || fail "the static one exits with $?"
! static other || fail 'links with an archive of another class table'
grep -q 'undefined reference to .bufpool_fast_' "$tmp/log" ||
	fail "the linker says: $(cat "$tmp/log")"

# ------------------------------------------------------------ under Valgrind

command -v valgrind >/dev/null || {
	echo 'inline.sh: no valgrind: not tested with it'
	exit 0
}
echo '#include <valgrind/memcheck.h>' | $CC -fsyntax-only -x c - 2>/dev/null || exit 0
library tracked "$table" -DBUFPOOL_VALGRIND
cat >"$tmp/late.c" <<'END'
#include <bufpool.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	struct bp_fast *shown = bp_thread_fast;
	bufpool_t *pool = bufpool_create(NULL);
	bufpool_buf_t *buf;
	char *data;

	(void) argv;
	for (int i = 0; i < 3; i++) {
		buf = bufpool_checkout(pool, 100);
		data = (char *) buf->data;
		data[50] = 1;
		bufpool_return(buf);
		if (bp_thread_fast != shown)
			abort();
	}
	if (argc > 1)
		data[50] = 1;
	bufpool_destroy(pool);
	return 0;
}
END
compile "$CC -g" "$tmp/late.c" "$tmp/late"
run tracked "$tmp/user" >/dev/null || fail "tracked: exits with $?"
LD_LIBRARY_PATH=$tmp/tracked
export LD_LIBRARY_PATH
valgrind -q --error-exitcode=99 "$tmp/late" >"$tmp/log" 2>&1 ||
	fail "Valgrind: $(cat "$tmp/log")"
if valgrind -q --error-exitcode=99 "$tmp/late" late >"$tmp/log" 2>&1; then
	fail 'Valgrind does not see a use after return'
fi
grep -q 'Invalid write of size 1' "$tmp/log" || fail "Valgrind: $(cat "$tmp/log")"
