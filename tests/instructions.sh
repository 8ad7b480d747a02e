#!/bin/sh
# SPDX-License-Identifier: MIT
# instructions.sh - hold the paths that matter to a number of instructions, which
# is the same on a busy machine, where time is not.  Wiping is left out.
#
# Compiled here, without the CFLAGS of the build: those decide on the figures.
# Callgrind counts a program that does an operation n times, and 2 n times; the
# difference, over n, is that of one, with the program's loop, of which as much
# again is taken off, and with the calls into the library.
set -eu

# Operation, the most instructions it may take, and what it is.  Per buffer in
# bulk operations.  Lower one when the code has become better.
ceilings='
checkout       48   a pair from the thread cache, bufpool_checkout(pool, 4096)
inline         42   the same, inlined (-DBUFPOOL_INLINE)
checked        50   the same, and looks whether it has got one
c++            50   the same, by <bufpool.hpp>
inline-checked 42   the two, inlined: in C,
inline-c++     42   ... by <bufpool.hpp>
checkout_4k    48   as the first, bufpool_checkout_4k(pool)
frozen         126  checkout_4k, freeze, unref
bulk           39   a pair from the thread cache, 32 at once
inline-bulk    36   the same, inlined
depot          370  a pair without a thread cache
depot-bulk     140  the same, 32 at once
'
n=1000

command -v valgrind >/dev/null || {
	echo 'instructions.sh: skipped: needs valgrind'
	exit 77
}
# The ceilings are for one instruction set and the usual classes.
if [ "$(uname -m)" != x86_64 ] || [ -n "${RELEASE:-}" ]; then
	echo 'instructions.sh: skipped: no ceilings are known for this build'
	exit 77
fi

CC=${CC:-cc}
src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

flags="-std=gnu11 -O2 -D_GNU_SOURCE -I$src/include -I$build/include
	-I$src/src -I$build/src ${HWLOC_CFLAGS:-}"
# What is generated lies in the build's folder, which may be the same.
sources=$(find "$src/src" -name '*.c' ! -name checkout.c)
# shellcheck disable=SC2086
$CC $flags -shared -fPIC -ftls-model=initial-exec -fvisibility=hidden -pthread \
	-o "$tmp/libbufpool.so" $sources "$build/src/checkout.c" \
	${CK_LIBS:--lck} ${HWLOC_LIBS:--lhwloc}
CXX=${CXX-c++}
for inlined in '' -DBUFPOOL_INLINE; do
	cxx=
	if [ -n "$CXX" ]; then
		# shellcheck disable=SC2086
		$CXX -std=c++17 ${flags#-std=gnu11} $inlined \
			-c "$src/tests/instructions.cc" -o "$tmp/cxx.o"
		cxx="-DWITH_CXX $tmp/cxx.o -lstdc++"
	fi
	# shellcheck disable=SC2086
	$CC $flags $inlined -o "$tmp/instructions$inlined" \
		"$src/tests/instructions.c" $cxx "$tmp/libbufpool.so" \
		-Wl,-rpath,"$tmp"
done

# count OPERATION TIMES: instructions of the whole program
count() {
	case $1 in
	inline) set -- checkout "$2" -DBUFPOOL_INLINE ;;
	inline-*) set -- "${1#inline-}" "$2" -DBUFPOOL_INLINE ;;
	*) set -- "$1" "$2" '' ;;
	esac
	valgrind --tool=callgrind --callgrind-out-file=/dev/null \
		"$tmp/instructions$3" "$1" "$2" 2>"$tmp/log" || {
		cat "$tmp/log" >&2
		return 1
	}
	sed -n 's/^==[0-9]*== Collected : //p' "$tmp/log"
}

# each OPERATION: instructions of n times
each() {
	once=$(count "$1" $n)
	twice=$(count "$1" $((2 * n)))
	echo $((twice - once))
}

loop=$(each nothing)
printf '%-14s %12s %8s\n' operation instructions ceiling
failed=0
while read -r operation ceiling what; do
	[ -n "$operation" ] || continue
	case $operation:$CXX in *c++:)
		echo "$operation: left out: no C++ compiler"
		continue
		;;
	esac
	case $operation in *bulk*) per=32 ;; *) per=1 ;; esac
	all=$(each "$operation")
	awk -v all=$((all - loop)) -v n=$((n * per)) -v most="$ceiling" \
		-v operation="$operation" -v what="$what" 'BEGIN {
			each = all / n
			many = each > most + 0.1
			printf "%-14s %12.1f %8d  %s%s\n", operation, each,
				most, what, many ? ": TOO MANY" : ""
			exit many
		}' || failed=1
done <<END
$ceilings
END
exit $failed
