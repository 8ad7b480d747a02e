# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154
# medians.sh - to be sourced by demo.sh and fanout-demo.sh: runs that take turns,
# and a table of their medians
#
# A run appends a line to $tmp/MODE, its figures with tabs between them.  The
# script sets $tmp and $runs.

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# take_turns COMMAND...: runs times, so that what else the machine does hits all
take_turns() {
	i=0
	while [ $i -lt "$runs" ]; do
		"$@"
		i=$((i + 1))
		[ -t 2 ] && printf '\rrun %d of %d ' "$i" "$runs" >&2
	done
	[ -t 2 ] && printf '\r\033[K' >&2
	echo "medians of $runs runs each, in turns:"
}

# median MODE COLUMN
median() {
	cut -f "$2" "$tmp/$1" | sort -n | awk '
		{ v[NR] = $1 }
		END { print v[int((NR + 1) / 2)] }'
}

# heading MODE MODE
heading() {
	printf '  %-24s %12s %12s\n' '' "$1" "$2"
	left=$1
	right=$2
}

# row NAME FORMAT COLUMN: a column's medians; what is no number as it is
row() {
	printf '  %-24s %12s %12s\n' "$1" "$(figure "$left" "$2" "$3")" \
		"$(figure "$right" "$2" "$3")"
}

figure() {
	value=$(median "$1" "$3")
	case $value in
	*[0-9]*) printf "%$2" "$value" ;;
	*) echo "$value" ;;
	esac
}
