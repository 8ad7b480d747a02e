#!/bin/sh
# SPDX-License-Identifier: MIT
# object.sh - look at the machine code: wipes are there, at every optimisation
# level, by whatever routine, and the fast paths have no atomic read-modify-write
# and no system call.
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

# Calls of memset, or the instruction that does the same, or, at -Os, calls of
# bp_wipe_memset().  Names of functions here have the word in them, too.
memset='R_[A-Z0-9_]+[[:space:]]+memset'
wipes() {
	grep -Ec "$memset|rep stos|call.*<bp_wipe_memset>" || :
}

# Calls alone; the instruction alone; stores of whole registers.
by_call() {
	grep -Ec "$memset" || :
}
by_stos() {
	grep -Ec 'rep stos' || :
}
by_vector() {
	grep -Ec "vmov[a-z0-9]+ +%$1mm[0-9]+,.*\(" || :
}

costly='[[:space:]](lock|xchg[a-z]* .*\(|syscall|sysenter)'

# holds_wipers PREFIX: $tmp/asm has each routine's stores in PREFIX_routine().
holds_wipers() {
	[ "$(code_of "$1_memset" | wipes)" -ge 1 ] ||
		fail "$flags: $1_memset() does not wipe"
	[ "$(code_of "$1_call" | by_call)" -ge 1 ] ||
		fail "$flags: $1_call() does not call memset"
	[ "$(uname -m)" = x86_64 ] || return 0
	[ "$(code_of "$1_stos" | by_stos)" -ge 1 ] ||
		fail "$flags: $1_stos() lacks its rep stos"
	# Of 256 bytes, as many as a turn has.
	[ "$(code_of "$1_avx2" | by_vector y)" -ge 8 ] ||
		fail "$flags: $1_avx2() lacks stores"
	[ "$(code_of "$1_avx512" | by_vector z)" -ge 4 ] ||
		fail "$flags: $1_avx512() lacks stores"
	# Else all SSE code of the program is slower after it.
	for f in avx2 avx512; do
		code_of "$1_$f" | grep -q vzeroupper ||
			fail "$flags: $1_$f() lacks vzeroupper"
	done
}

# Memory that nobody can read afterwards.
cat >"$tmp/dead.c" <<'END'
#include "wipe.h"

void fill(char *p);

#define DEAD(how, attribute)                                              \
	attribute void dead_##how(void);                                  \
	attribute void dead_##how(void)                                   \
	{                                                                 \
		char secret[4096] __attribute__((aligned(4096)));         \
		fill(secret);                                             \
		bp_wipe_##how(secret, sizeof(secret));                    \
	}

DEAD(memset, )
DEAD(call, )
#ifdef __x86_64__
DEAD(stos, )
DEAD(avx2, __attribute__((target("avx2"))))
DEAD(avx512, __attribute__((target("avx512f"))))
#endif
END

classes=$(sed -n 's/^bufpool_buf_t .bufpool_checkout_\([A-Za-z0-9_]*\)(.*/\1/p' \
	"$build/src/checkout.c")
[ -n "$classes" ] || fail 'no class in checkout.c'

# CI has it in full.
levels=-O2
[ "${BUFPOOL_TEST_SCALE:-}" != full ] || levels='-O1 -O2 -O3 -Os'
for flags in $levels '-O3 -march=x86-64-v3'; do
	case $flags in
	*march*) [ "$(uname -m)" = x86_64 ] || continue ;;
	esac
	# Memory that is freed next: what compilers like to leave out.
	compile "$flags" "$src/src/heap.c"
	[ "$(code_of bp_heap_give | wipes)" -ge 1 ] ||
		fail "$flags: bp_heap_give() does not wipe"

	compile "$flags" "$src/src/wipe.c"
	holds_wipers by
	compile "$flags" "$tmp/dead.c"
	holds_wipers dead

	compile "$flags" "$src/src/erase.c"
	[ "$(code_of bp_erase | grep -Ec 'R_.*bp_wipe_(by|stream)')" -ge 1 ] ||
		fail "$flags: bp_erase() does not erase"

	compile "$flags" "$build/src/checkout.c"
	! grep -q '^[0-9a-f]* <bp_wipe_memset>:$' "$tmp/asm" ||
		[ "$(code_of bp_wipe_memset | wipes)" -ge 1 ] ||
		fail "$flags: bp_wipe_memset() does not wipe"
	for class in $classes; do
		holds_wipers "erase_home_$class"
	done
	# What was used of a buffer; in bulk it is by bp_erase().
	[ "$(code_of erase_used_home | wipes)" -ge 1 ] ||
		fail "$flags: erase_used_home() lacks a wipe"
	grep -q 'R_.*bp_erase\b' "$tmp/asm" ||
		fail "$flags: bufpool_return_bulk() does not erase"
	[ "$(uname -m)" = x86_64 ] || continue
	# But for the fence of pools without membarrier(), in other functions.
	for f in bufpool_checkout bufpool_return \
		$(echo "$classes" | sed 's/^/bufpool_checkout_/'); do
		[ -n "$(code_of "$f")" ] || fail "$flags: no $f()"
		! code_of "$f" | grep -E "$costly|mfence" ||
			fail "$flags: $f() is not free of the above"
	done
	# Hardened pools take from a ring, or a stack: functions of their own, too.
	! sed -E '/^[0-9a-f]+ <(hardened_checkout|queue|stack|_?ck_ring|.*take_first)/,/^$/d' \
		"$tmp/asm" |
		grep -Ev 'lock or[a-z]* +\$0x0,.*\(%rsp\)' | grep -E "$costly" ||
		fail "$flags: the fast paths are not free of the above"
done

# This test can see a wipe that is missing.
grep -v '__asm__ __volatile__("" : : "r"(p)' "$src/src/wipe.h" >"$tmp/wipe.h"
compile -O2 "$tmp/dead.c"
[ "$(code_of dead_memset | wipes)" -eq 0 ] || fail 'sees wipes of dead memory'
compile -O2 "$src/src/depot.c"
[ "$(code_of bp_depot_give | wipes)" -eq 0 ] || fail 'sees wipes where none are'
