#!/bin/sh
# SPDX-License-Identifier: MIT
# layers.sh - each file of src/ uses only what stands above it in src/pool.h's
# list: by what it includes, and by what its object asks the linker for.  And words
# that somebody may read while another writes them are never accessed plainly.
set -eu

case ${NM:-} in '' | no | :) NM=nm ;; esac
src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "layers.sh: $*"
	exit 1
}

# The list, one a line, the lowest first: words up to where two blanks begin what
# is said of them.
sed -n 's/^ \*     \([a-z][a-z ]*[a-z]\)  .*/\1/p' "$src/src/pool.h" |
	tr ' ' '\n' | sed '/^$/d' >"$tmp/order"

# rank FILE: its place in the list.
rank() {
	grep -nx "$1" "$tmp/order" | cut -d: -f1
}

# uses FILE OTHER HOW: it stands below.
uses() {
	mine=$(rank "$1")
	its=$(rank "$2")
	[ -n "$mine" ] && [ -n "$its" ] || fail "$1 or $2 is not in the list"
	[ "$its" -le "$mine" ] || fail "$1 $3 $2, which is above it"
}

files=0
for path in "$src"/src/*.[ch] "$src/gen/checkout.c.in"; do
	file=$(basename "$path")
	file=${file%%.*}
	[ "$file" != class-table ] || continue
	for other in $(sed -n 's/^#include "\([a-z]*\)\.h".*/\1/p' "$path"); do
		uses "$file" "$other" includes
		files=$((files + 1))
	done
done
[ $files -gt 50 ] || fail "only $files includes were found"

# Symbols: who has which, then who wants which.
for object in "$build"/src/*.o; do
	file=$(basename "$object" .o)
	# Not what an older build has left.
	[ -e "$src/src/$file.c" ] || [ -e "$build/src/$file.c" ] || continue
	$NM -g "$object" | awk -v file="$file" '
		$(NF - 1) == "U" { print "U", $NF, file; next }
		{ print "D", $NF, file }'
done >"$tmp/symbols"
awk '$1 == "D" { where[$2] = $3 }
	$1 == "U" { wanted[$2 " " $3] }
	END {
		for (w in wanted) {
			split(w, part, " ")
			if (part[1] in where && part[1] !~ /^bufpool_put_alarm_/)
				print part[2], where[part[1]], part[1]
		}
	}' "$tmp/symbols" >"$tmp/arrows"
[ "$(wc -l <"$tmp/arrows")" -gt 80 ] || fail 'hardly any symbol was found'
while read -r file other symbol; do
	uses "$file" "$other" "calls $symbol() of"
done <"$tmp/arrows"

# Even where nothing is ordered by it, and no CPU of today would show it.
for shared in cache.c:closing create.c:closing thread.c:closing frozen.c:refs; do
	file=${shared%:*}
	word=${shared#*:}
	grep -n "[>.]$word\>" "$src/src/$file" >"$tmp/words" ||
		fail "$file does not know of $word"
	! grep -v 'ck_pr_' "$tmp/words" || fail "$file: $word without ck_pr"
done
