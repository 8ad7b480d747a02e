#!/bin/sh
# SPDX-License-Identifier: MIT
# readme.sh - the README's code compiles, its programs run, its table is the truth;
# and so does the example that bufpool.h begins with
set -eu

src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
CC=${CC:-cc} CXX=${CXX-c++}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "readme.sh: $*"
	exit 1
}

# Each ```c and ```cpp block compiles by itself.  Those with a main() are programs.
awk -v dir="$tmp" '
	/^```(c|cpp)$/ { on = 1; n++; file = dir "/" n "." substr($0, 4); next }
	/^```$/ { on = 0 }
	on { print > file }' "$src/README.md"
[ -e "$tmp/1.c" ] || fail 'no example'
[ "$(wc -l <"$tmp/1.c")" -le 15 ] || fail 'the first example is too long'
ran=0
for c in "$tmp"/*.c "$tmp"/*.cpp; do
	if grep -q liburing.h "$c" && [ -z "${URING_LIBS:-}" ]; then
		echo 'readme.sh: without liburing, one block is left out'
		continue
	fi
	compiler="$CC ${CFLAGS:-}"
	case $c in *.cpp)
		if ! echo | $CXX -std=c++17 -x c++ -fsyntax-only - 2>/dev/null; then
			echo 'readme.sh: without C++17, one block is left out'
			continue
		fi
		compiler="$CXX -std=c++17 ${CXXFLAGS:-}"
		;;
	esac
	# shellcheck disable=SC2086
	$compiler -Wall -Wextra -Werror ${URING_CFLAGS:-} \
		-I"$src/include" -I"$build/include" -c "$c" -o "${c%.*}.o" ||
		fail "$(cat "$c"): does not compile"
	grep -q '^int main(' "$c" || continue
	# shellcheck disable=SC2086
	$compiler "${c%.*}.o" -o "${c%.*}" -L"$build/.libs" -lbufpool \
		-Wl,-rpath,"$build/.libs" || fail "$(cat "$c"): does not link"
	echo 'some input' | "${c%.*}" >"$tmp/out" ||
		fail "$(cat "$c"): exits with $?"
	# Those that read copy.
	! grep -q 'read(0' "$c" || [ "$(cat "$tmp/out")" = 'some input' ] ||
		fail "prints $(cat "$tmp/out")"
	ran=$((ran + 1))
done
[ $ran -ge 2 ] || fail 'few programs'

# The header's, which has to be fine also where read() fails.
{
	echo '#include <bufpool.h>'
	echo '#include <unistd.h>'
	echo 'int main(void) { int fd = -1;'
	sed -n '/^ \*     bufpool_t \*pool/,/^ \*     bufpool_destroy/s/^ \*//p' \
		"$src/include/bufpool.h" | grep -vF ...
	echo 'return 0; }'
} >"$tmp/header.c"
grep -q 'read(fd' "$tmp/header.c" || fail 'bufpool.h has no example'
# shellcheck disable=SC2086
$CC -Wall -Wextra -Werror ${CFLAGS:-} -I"$src/include" -I"$build/include" \
	"$tmp/header.c" -o "$tmp/header" -L"$build/.libs" -lbufpool \
	-Wl,-rpath,"$build/.libs" || fail "bufpool.h: does not compile"
"$tmp/header" || fail "bufpool.h: exits with $?"

# The size table: "| `4k` | 4,096 | 64 | 64 |" is name, size, cache, count.
sed -n 's/^| `\([A-Za-z0-9_]*\)` | \([0-9,]*\) | \([0-9]*\) | \([0-9]*\) .*/\1 \2 \3 \4/p' \
	"$src/README.md" | tr -d , >"$tmp/readme"
[ -s "$tmp/readme" ] || fail 'no size table'
cat >"$tmp/table.in" <<'END'
@each@
@name@ @size@ @cache@ @count@
@end@
END
"${GEN:-$build/gen/bufpool-gen}" "$src/gen/classes.def" "$tmp/table.in" \
	"$tmp/table"
diff "$tmp/readme" "$tmp/table" || fail 'its size table is not classes.def'
