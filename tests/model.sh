#!/bin/sh
# SPDX-License-Identifier: MIT
# model.sh - magazine.pml: what must pass, then each deliberate fault, which must
# be found.  Needs spin; a minute, most of it compiling.
command -v spin >/dev/null || { echo 'model.sh: skipped, no spin'; exit 77; }
f=$(dirname "$(readlink -f "$0")")/magazine.pml
d=$(mktemp -d) && cd "$d" || exit 1
trap 'rm -rf "$d"' EXIT
rc=0
try() {
	want=$1; shift
	rm -f pan pan.c pan.out ./*.trail
	spin -a "$@" "$f" >/dev/null &&
		gcc -O0 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -DMEMLIM=4000 \
			-o pan pan.c && ./pan -m200000 -w24 >pan.out 2>&1
	got=broken
	if grep -q 'errors: 0' pan.out; then got=ok; fi
	if grep -q 'assertion violated' pan.out; then got=error; fi
	if grep -q 'max search depth too small\|out of memory\|Search not completed' pan.out &&
		[ $got = ok ]; then got=incomplete; fi
	[ $got = "$want" ] || { rc=1; got="$got, NOT $want"; }
	echo "$got: $* $(sed -n 's/ *\([0-9.e+]*\) states, stored.*/(\1 states)/p' pan.out)" \
		"$(sed -n 's/^pan:1: //p' pan.out)"
}
while read -r line; do try $line; done <<'RUNS'
ok -DOPS=4
ok -DDESTROY -DOPS=5
ok -DDESTROY -DOPS=4 -DBUFS=4 -DSLOTS=4 -DDEPTH=3
ok -DFENCED -DOPS=3
ok -DFENCED -DDESTROY -DOPS=3
error -DFAULT=1
error -DFAULT=2
error -DFAULT=3
error -DFAULT=4
error -DFAULT=5
error -DFAULT=6
error -DFAULT=7
error -DDESTROY -DFAULT=8
error -DDESTROY -DFAULT=9
error -DDESTROY -DFAULT=10
error -DDESTROY -DFAULT=11
RUNS
exit $rc
