# SPDX-License-Identifier: MIT
# shellcheck shell=sh disable=SC2154
# medians.sh - to be sourced by demo.sh and fanout-demo.sh: runs that take turns,
# and a table of their medians
#
# A run appends a line to $tmp/MODE, its figures with tabs between them.  The
# script sets $tmp and $runs.  With DEMO_EACH the table has the figures of each run
# instead, in the order of the runs, for programs.

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
	[ -n "${DEMO_EACH:-}" ] || printf 'medians of '
	echo "$runs runs each, in turns:"
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

# figure FORMAT VALUE
figure() {
	case $2 in
	*[0-9]*) printf "%$1" "$2" ;;
	*) echo "$2" ;;
	esac
}

# each NAME COLUMN: that column of both, from lines that have one's beside the
# other's
each() {
	awk -F '\t' -v name="$1" -v column="$2" '{
		printf "  %-24s %12s %12s\n", name, $column, $(NF / 2 + column)
	}'
}

# row NAME FORMAT COLUMN: a column's medians; what is no number as it is
row() {
	if [ -n "${DEMO_EACH:-}" ]; then
		paste "$tmp/$left" "$tmp/$right" | each "$1" "$3"
		return
	fi
	printf '  %-24s %12s %12s\n' "$1" \
		"$(figure "$2" "$(median "$left" "$3")")" \
		"$(figure "$2" "$(median "$right" "$3")")"
}
