#!/bin/sh
# SPDX-License-Identifier: MIT
# readme.sh - the README's code compiles and runs, and its table is the truth
set -eu

src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
CC=${CC:-cc}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "readme.sh: $*"
	exit 1
}

# Each ```c block is a program.
awk -v dir="$tmp" '
	/^```c$/ { on = 1; n++; next }
	/^```$/ { on = 0 }
	on { print > (dir "/" n ".c") }' "$src/README.md"
[ -e "$tmp/1.c" ] || fail 'no example'
[ "$(wc -l <"$tmp/1.c")" -le 15 ] || fail 'the first example is too long'
for c in "$tmp"/*.c; do
	# shellcheck disable=SC2086
	$CC -Wall -Wextra -Werror ${CFLAGS:-} -I"$src/include" \
		-I"$build/include" "$c" -o "${c%.c}" -L"$build/.libs" -lbufpool \
		-Wl,-rpath,"$build/.libs" || fail "$(cat "$c"): does not compile"
	echo 'some input' | "${c%.c}" >"$tmp/out" ||
		fail "$(cat "$c"): exits with $?"
	# Those that read copy.
	! grep -q 'read(0' "$c" || [ "$(cat "$tmp/out")" = 'some input' ] ||
		fail "prints $(cat "$tmp/out")"
done

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
