#!/bin/sh
# SPDX-License-Identifier: MIT
# model.sh - magazine.pml and scarcity.pml: what must pass, then each deliberate
# fault, which must be found.  Needs spin, two or three minutes on two CPUs, half
# of it compiling, and up to 3 GB.
#
#     model.sh                          all
#     model.sh ok|error MODEL [-D...]   one, such as: ok scarcity -DOPS=2
command -v spin >/dev/null || { echo 'model.sh: skipped, no spin'; exit 77; }
self=$(readlink -f "$0")
tests=$(dirname "$self")

try() {
	want=$1 model=$2; shift 2
	d=$(mktemp -d) && cd "$d" || exit 1
	trap 'rm -rf "$d"' EXIT
	# A fault is found soon, if at all; what passes has many states.
	if [ "$want" = ok ]; then opt=-O1; else opt=-O0; fi
	spin -a "$@" "$tests/$model.pml" >/dev/null &&
		gcc $opt -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -DMEMLIM=2500 \
			-o pan pan.c && ./pan -m200000 -w22 >pan.out 2>&1
	got=broken
	if grep -q 'errors: 0' pan.out; then got=ok; fi
	if grep -q '^pan:1: \(assertion violated\|invalid end state\)' pan.out; then
		got=error
	fi
	if grep -q 'max search depth too small\|out of memory\|Search not completed\|reached -DMEMLIM' pan.out &&
		[ $got = ok ]; then got=incomplete; fi
	rc=0
	[ $got = "$want" ] || { rc=1; got="$got, NOT $want"; }
	echo "$got: $model $* $(sed -n 's/ *\([0-9.e+]*\) states, stored.*/(\1 states)/p' pan.out)" \
		"$(sed -n 's/^pan:1: //p' pan.out | cut -c1-60)"
	exit $rc
}
[ $# -eq 0 ] || try "$@"

# The longest first.
xargs -P "$(nproc)" -L 1 sh "$self" <<'RUNS'
ok magazine -DOPS=2
ok scarcity -DROBS=1 -DCACHED=1 -DMINE=1 -DOPS=0 -DLAG=3
ok magazine -DTHIEVES=1 -DOPS=4
ok magazine -DDESTROY -DOPS=4
ok magazine -DDESTROY -DOPS=3 -DBUFS=4 -DSLOTS=4 -DDEPTH=3
ok magazine -DFENCED -DTHIEVES=1 -DOPS=3
ok magazine -DFENCED -DDESTROY -DOPS=3
ok scarcity -DOPS=2 -DSHARDS=2
ok scarcity -DOPS=1 -DOWNER_LOOKS
ok scarcity -DOPS=1 -DENTER
ok scarcity -DOPS=1 -DFENCED
ok scarcity -DOPS=1 -DGIVEN=2 -DMINE=0 -DSHARDS=2
ok scarcity -DOPS=1 -DTRUSTED -DGIVEN=1 -DSTORED=1 -DMINE=0 -DSHARDS=2
ok scarcity -DOPS=2 -DTRUSTED -DSTORED=2 -DMINE=1
ok scarcity -DOPS=1 -DSCARCE -DSLOW
ok scarcity -DOPS=0 -DROBS=1 -DCACHED=2 -DMINE=0
ok scarcity -DOPS=0 -DWAITERS=2 -DCACHED=2 -DMINE=0
ok scarcity -DOPS=0 -DWAITERS=2 -DTRUSTED -DMINE=1 -DSTORED=1
ok scarcity -DOPS=1 -DTRUSTED -DTRIM -DSTORED=1 -DMINE=1 -DSHARDS=2
ok scarcity -DOPS=1 -DEVENT
ok scarcity -DOPS=1 -DEVENT -DENTER
ok scarcity -DOPS=0 -DROBS=1 -DCACHED=2 -DMINE=0 -DEVENT
ok scarcity -DOPS=0 -DWAITERS=2 -DTRUSTED -DMINE=1 -DSTORED=1 -DEVENT
ok scarcity -DOPS=0 -DWAITERS=2 -DIMPATIENT -DMINE=0 -DGIVEN=1
error magazine -DFAULT=11 -DOPS=2
error magazine -DFAULT=1 -DOPS=2
error magazine -DFAULT=2 -DOPS=2
error magazine -DFAULT=3 -DOPS=2
error magazine -DFAULT=4 -DOPS=2
error magazine -DFAULT=5 -DOPS=2
error magazine -DFAULT=6 -DOPS=2
error magazine -DFAULT=7 -DOPS=2
error magazine -DFAULT=8 -DDESTROY -DOPS=4
error magazine -DFAULT=9 -DDESTROY -DOPS=4
error magazine -DFAULT=10 -DDESTROY -DOPS=4
error magazine -DFAULT=12 -DDESTROY -DOPS=4
error magazine -DFAULT=13 -DDESTROY -DOPS=4
error magazine -DFAULT=14 -DOPS=2
error magazine -DFAULT=14 -DDESTROY -DOPS=4
error magazine -DFAULT=15 -DDESTROY -DOPS=4 -DFENCED
error magazine -DFAULT=16 -DOPS=2 -DFENCED
error scarcity -DFAULT=1
error scarcity -DFAULT=2 -DOPS=1 -DGIVEN=2 -DMINE=0
error scarcity -DFAULT=3 -DENTER
error scarcity -DFAULT=4 -DSCARCE -DSLOW -DMINE=3
error scarcity -DFAULT=5
error scarcity -DFAULT=6 -DOPS=1 -DTRUSTED -DSTORED=1 -DMINE=1
error scarcity -DFAULT=7
error scarcity -DFAULT=8
error scarcity -DFAULT=9 -DOPS=0 -DROBS=1 -DCACHED=2 -DMINE=0
error scarcity -DFAULT=10 -DOPS=1 -DTRUSTED -DGIVEN=1 -DSTORED=1 -DMINE=0 -DSHARDS=2
error scarcity -DFAULT=11
error scarcity -DFAULT=12 -DENTER
error scarcity -DFAULT=13 -DOPS=0 -DTRUSTED -DGIVEN=1 -DMINE=0
error scarcity -DFAULT=14
error scarcity -DFAULT=15
error scarcity -DFAULT=16 -DIMPATIENT -DWAITERS=2 -DOPS=0 -DMINE=0 -DGIVEN=1
error scarcity -DFAULT=17
error scarcity -DFAULT=18
error scarcity -DFAULT=19
error scarcity -DFAULT=20 -DENTER
error scarcity -DFAULT=21
error scarcity -DFAULT=22 -DOPS=1 -DTRUSTED -DGIVEN=1 -DSTORED=1 -DMINE=0 -DSHARDS=2
error scarcity -DFAULT=23 -DOPS=0 -DTRUSTED -DTRIM -DSTORED=1 -DMINE=0
RUNS
[ $? -eq 0 ]
