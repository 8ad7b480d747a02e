#!/bin/sh
# SPDX-License-Identifier: MIT
# cxx.sh - <bufpool.hpp> compiles without a warning, and check_cxx.cc passes: by the
# C++ compiler that was configured, for one standard.  With BUFPOOL_TEST_SCALE=full
# by those that are there, for all that they know, with calls inlined, too.
set -eu

src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
CXX=${CXX-c++}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "cxx.sh: $*"
	exit 1
}

skip() {
	echo "cxx.sh: skipped: $*"
	exit 77
}

warnings='-Wall -Wextra -Wpedantic -Werror -Wcast-qual -Wconversion -Wextra-semi
	-Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual -Wredundant-decls
	-Wshadow -Wsign-conversion -Wundef -Wzero-as-null-pointer-constant'

# knows COMPILER STANDARD
knows() {
	echo | $1 -std="$2" -x c++ -fsyntax-only - 2>/dev/null
}

# check COMPILER STANDARD FLAGS
check() {
	# shellcheck disable=SC2086
	$1 -std="$2" $warnings $3 ${CXXFLAGS:-} -I"$src/include" \
		-I"$build/include" "$src/tests/check_cxx.cc" -o "$tmp/check" \
		-pthread -L"$build/.libs" -lbufpool -Wl,-rpath,"$build/.libs" \
		>"$tmp/log" 2>&1 || fail "$1 -std=$2 $3: $(cat "$tmp/log")"
	"$tmp/check" >"$tmp/log" 2>&1 ||
		fail "$1 -std=$2 $3: exits with $?: $(cat "$tmp/log")"
}

[ -n "$CXX" ] || skip 'no C++ compiler'
knows "$CXX" c++17 || skip "$CXX does not know C++17"
# bufpool.h serves those that do not, and bufpool.hpp says so to them.
! echo '#include <bufpool.hpp>' | $CXX -std=c++14 -I"$src/include" \
	-I"$build/include" -x c++ -E - >/dev/null 2>"$tmp/log" ||
	fail 'is taken as C++14'
grep -q 'needs C++17' "$tmp/log" || fail "as C++14: $(cat "$tmp/log")"

if [ "${BUFPOOL_TEST_SCALE:-}" != full ]; then
	std=c++20
	knows "$CXX" $std || std=c++17
	check "$CXX" $std ''
	exit
fi
case $CXX in g++ | clang++) others= ;; *) others=$CXX ;; esac
for cxx in g++ clang++ ${others:+"$others"}; do
	command -v "${cxx%% *}" >/dev/null || continue
	for std in c++17 c++20 c++23 c++2b; do
		knows "$cxx" $std || continue
		check "$cxx" $std ''
		check "$cxx" $std '-O2 -DBUFPOOL_INLINE'
		# Which was called c++2b.
		[ $std != c++23 ] || break
	done
done
