#!/bin/sh
# SPDX-License-Identifier: MIT
# object.sh - look at the machine code: wipes are there, at every optimisation
# level, and the fast paths have no atomic read-modify-write and no system call.
# Compiled here, without the CFLAGS of the build: sanitizers add code.
set -eu

case ${OBJDUMP:-} in '' | no | :) OBJDUMP=objdump ;; esac
CC=${CC:-cc}
src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "object.sh: $*"
	exit 1
}

# compile FLAGS FILE: its disassembly, with relocations, goes to $tmp/asm.
compile() {
	# shellcheck disable=SC2086
	$CC -std=gnu11 -D_GNU_SOURCE $1 -fPIC -ftls-model=initial-exec \
		-fvisibility=hidden -I"$src/include" -I"$build/include" \
		-I"$src/src" -I"$build/src" -c "$2" -o "$tmp/o"
	$OBJDUMP -dr --no-show-raw-insn "$tmp/o" >"$tmp/asm"
}

# code_of FUNCTION: its lines, with those of its parts that are laid elsewhere.
code_of() {
	awk -v f="$1" '
		/^[0-9a-f]+ <.*>:$/ {
			name = $2
			gsub(/[<>:]/, "", name)
			sub(/\.(cold|part\.[0-9]+|isra\.[0-9]+).*/, "", name)
			on = name == f
		}
		on' "$tmp/asm"
}

# Calls of memset, or the instruction that does the same.
wipes() {
	grep -Ec 'memset|rep stos' || :
}

classes=$(sed -n 's/.* \(erase_home_[A-Za-z0-9_]*\)(struct buf .*/\1/p' \
	"$build/src/checkout.c")
[ -n "$classes" ] || fail 'no class in checkout.c'

for flags in -O1 -O2 -O3 -Os '-O3 -march=x86-64-v3'; do
	case $flags in
	*march*) [ "$(uname -m)" = x86_64 ] || continue ;;
	esac
	# Memory that is freed next: what compilers like to leave out.
	compile "$flags" "$src/src/heap.c"
	[ "$(code_of bp_heap_return | wipes)" -ge 1 ] ||
		fail "$flags: bp_heap_return() does not wipe"

	compile "$flags" "$build/src/checkout.c"
	# Of each class; one may serve both the whole buffer and the bytes used.
	for erase_home in $classes; do
		[ "$(code_of "$erase_home" | wipes)" -ge 1 ] ||
			fail "$flags: $erase_home() lacks a wipe"
	done
	# In bulk, too.
	[ "$(wipes <"$tmp/asm")" -ge $((2 * $(echo "$classes" | wc -l))) ] ||
		fail "$flags: bufpool_return_bulk() lacks a wipe"
	[ "$(uname -m)" = x86_64 ] || continue
	if grep -E '[[:space:]](lock|xchg[a-z]* .*\(|syscall|sysenter)' "$tmp/asm"
	then
		fail "$flags: the fast paths are not free of the above"
	fi
done

# This test can see a wipe that is missing.
compile -O2 "$src/src/stats.c"
[ "$(code_of bp_gauge_add | wipes)" -eq 0 ] || fail 'sees wipes where none are'
