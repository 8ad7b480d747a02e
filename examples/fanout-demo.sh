#!/bin/sh
# SPDX-License-Identifier: MIT
# fanout-demo.sh - fanout at work: one publisher and many subscribers, who share
# its buffers, beside the same with a copy for each.  ./bootstrap demo builds it
# and runs this.
#
#     examples/fanout-demo.sh [MEGABYTES [SUBSCRIBERS]]
set -u
LC_ALL=C
export LC_ALL

fanout=${FANOUT:-$(dirname "$0")/fanout}
runs=${DEMO_RUNS:-3}
bytes=${1:-50}000000
subscribers=${2:-32}

# shellcheck source=examples/medians.sh
. "$(dirname "$0")/medians.sh"

command -v socat >/dev/null || {
	echo 'fanout-demo: skipped: the clients are socat, which is missing'
	exit 0
}
[ -x "$fanout" ] || die "no $fanout: build it first, with ./bootstrap demo"
tmp=$(mktemp -d) || exit 1
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM

# eventually COMMAND...: it succeeds, within some seconds
eventually() {
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 400 ] || die "never true: $*"
		sleep 0.05
	done
}

ready() {
	[ "$(wc -l <"$tmp/addresses")" -eq 2 ]
}

# The server has as many more files as there are subscribers.  (A subscriber
# believes to be connected before the server can know of it.)
all_connected() {
	[ "$(find "/proc/$server/fd" -type l | wc -l)" -ge \
		$((alone + subscribers)) ]
}

address() {
	sed -n "s/^$1 /TCP:/p" "$tmp/addresses"
}

# Subscribers leave when they have as many bytes as were published.
subscribe() {
	clients=
	alone=$(find "/proc/$server/fd" -type l | wc -l)
	for n in $(seq "$subscribers"); do
		timeout 60 socat -u -b 65536 \
			"$(address subscribe),readbytes=$bytes" \
			OPEN:/dev/null &
		clients="$clients $!"
	done
	eventually all_connected
}

# run MODE OPTION...: its figures go to $tmp/MODE: seconds, MB/s delivered, peak
# memory in MB, and the server's processor time in seconds.
run() {
	mode=$1
	shift
	: >"$tmp/addresses"
	"$fanout" --publish 127.0.0.1:0 --subscribe 127.0.0.1:0 "$@" \
		>"$tmp/addresses" 2>"$tmp/err" &
	server=$!
	eventually ready
	subscribe
	begin=$(date +%s.%N)
	timeout 60 socat -u -b 65536 "OPEN:/dev/zero,readbytes=$bytes" \
		"$(address publish)" || die 'the publisher fails'
	for client in $clients; do
		wait "$client" ||
			die "$mode: a subscriber fails: $(cat "$tmp/err")"
	done
	end=$(date +%s.%N)
	{
		echo "times $begin $end $bytes $subscribers $(getconf CLK_TCK)"
		cat "/proc/$server/status" "/proc/$server/stat"
	} | awk '
		$1 == "times" { s = $3 - $2; mb = $4 * $5 / 1e6; tick = $6 }
		$1 == "VmHWM:" { peak = $2 * 1024 / 1e6 }
		NF > 40 { cpu = ($14 + $15) / tick }
		END { print s "\t" mb / s "\t" peak "\t" cpu }' >>"$tmp/$mode"
	kill "$server"
	wait "$server" || die "$mode: the server fails: $(cat "$tmp/err")"
	server=
}

both() {
	run share
	run copy --copy
}
echo "fanout: $((bytes / 1000000)) MB from one socat to each of $subscribers" \
	"others, on 127.0.0.1"
take_turns both
heading share copy
row 'time (s)' .3f 1
row 'delivered (MB/s)' .0f 2
row "server's peak (MB)" .1f 3
row "server's CPU time (s)" .2f 4
