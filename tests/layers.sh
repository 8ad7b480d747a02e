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

# judge ARROWS: lines of FILE OTHER HOW; none may go up.
judge() {
	wrong=$(awk 'NR == FNR { rank[$1] = NR; next }
		!($1 in rank) || !($2 in rank) {
			print $1 " or " $2 " is not in the list"; exit
		}
		rank[$2] > rank[$1] {
			print $1, $3, $4, "of", $2 ", which is above it"; exit
		}' "$tmp/order" "$1")
	[ -z "$wrong" ] || fail "$wrong"
}

for path in "$src"/src/*.[ch] "$src/gen/checkout.c.in"; do
	file=$(basename "$path")
	file=${file%%.*}
	[ "$file" != class-table ] || continue
	sed -n "s/^#include \"\([a-z]*\)\.h\".*/$file \1 includes something/p" "$path"
done >"$tmp/includes"
[ "$(wc -l <"$tmp/includes")" -gt 50 ] || fail 'hardly any include was found'
judge "$tmp/includes"

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
				print part[2], where[part[1]], "wants", part[1]
		}
	}' "$tmp/symbols" >"$tmp/arrows"
[ "$(wc -l <"$tmp/arrows")" -gt 80 ] || fail 'hardly any symbol was found'
judge "$tmp/arrows"

# Even where nothing is ordered by it, and no CPU of today would show it.
for shared in cache.c:closing create.c:closing thread.c:closing frozen.c:refs; do
	file=${shared%:*}
	word=${shared#*:}
	grep -n "[>.]$word\>" "$src/src/$file" >"$tmp/words" ||
		fail "$file does not know of $word"
	! grep -v 'ck_pr_' "$tmp/words" || fail "$file: $word without ck_pr"
done
