#!/bin/bash
# SPDX-License-Identifier: MIT
# demo.sh - poolsum at work: a tree of real files, digested on pool buffers and
# on malloc, compared with sha256sum.  ./bootstrap demo builds it and runs this.
#
#     examples/demo.sh [DIRECTORY]
#
# Without one, the smallest directory below /usr that holds 200 MB.  By bash, whose
# time has milliseconds.
set -u
LC_ALL=C
export LC_ALL

poolsum=${POOLSUM:-$(dirname "$0")/poolsum}
runs=${DEMO_RUNS:-5}

# shellcheck source=examples/medians.sh
. "$(dirname "$0")/medians.sh"

[ -x "$poolsum" ] || die "no $poolsum: build it first, with ./bootstrap demo"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

# Every file counts for all directories above it.  Where something cannot be
# read (we may not be root) is no place for a comparison.
pick() {
	{
		find /usr ! -readable ! -type l -printf 'bad\t%h\n' -prune \
			-o -type f -printf '%s\t%h\n' 2>/dev/null
	} | awk -F '\t' '
		{
			for (dir = $2; dir != ""; sub("/[^/]*$", "", dir))
				if ($1 == "bad")
					bad[dir] = 1
				else
					bytes[dir] += $1
		}
		END {
			best = "/usr"
			for (dir in bytes) {
				if (bytes[dir] < 200e6 || bad[dir])
					continue
				if (best == "/usr" || bytes[dir] < bytes[best] ||
				    bytes[dir] == bytes[best] && dir < best)
					best = dir
			}
			print best
		}'
}

tree=${1:-$(pick)}
find "$tree" -type f -printf '%s\n' >"$tmp/sizes" 2>/dev/null
[ -s "$tmp/sizes" ] || die "no files in $tree"
awk -v tree="$tree" '{ n += $1 }
	END { printf "%s: %d files, %.0f MB\n", tree, NR, n / 1e6 }' "$tmp/sizes"

# Files that cannot be read make both say so and fail, and the lists must agree
# all the same.
find "$tree" -type f -print0 | sort -z | xargs -0 -r sha256sum -- \
	>"$tmp/expected" 2>"$tmp/expected.err"
[ $? -eq 0 ] && want=0 || want=1

# run MODE OPTIONS...: once, checked; its summary line goes to $tmp/MODE, with the
# seconds of processor time behind it.
TIMEFORMAT='%3U %3S'
run() {
	mode=$1
	shift
	{
		time "$poolsum" "$@" --summary "$tmp/summary" "$tree" \
			>"$tmp/got" 2>"$tmp/err"
	} 2>"$tmp/cpu"
	got=$?
	if [ $got -ne $want ]; then
		cat "$tmp/err" >&2
		die "poolsum $* exits with $got, sha256sum's like is $want"
	fi
	if ! cmp "$tmp/got" "$tmp/expected" >&2; then
		diff "$tmp/expected" "$tmp/got" | head -n 10 >&2
		die "poolsum $* and sha256sum differ"
	fi
	awk '{ print $1 + $2 }' "$tmp/cpu" | paste "$tmp/summary" - >>"$tmp/$mode"
}

# The first run of each reads the files into the page cache, if sha256sum has
# not, and is not counted.
if [ -t 2 ]; then
	"$poolsum" --progress "$tree" >/dev/null
fi
run warm --no-progress
run warm --no-progress --malloc
both() {
	run pool --no-progress
	run malloc --no-progress --malloc
}
take_turns both
heading pool malloc
row 'time (s)' .3f 2
row 'CPU time (s)' .3f 8
row 'page faults' .0f 3
row hits .0f 6
row misses .0f 7
echo "digests: the same as sha256sum's, $((2 * runs + 2)) times out of" \
	"$((2 * runs + 2))"
