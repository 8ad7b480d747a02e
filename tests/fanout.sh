#! /bin/sh
# SPDX-License-Identifier: MIT
#
# fanout.sh - examples/fanout brings every byte to everybody who takes it
#
# The clients are socat, on 127.0.0.1 and on Unix sockets.  FANOUT names the
# program.  BUFPOOL_FANOUT_MB and BUFPOOL_FANOUT_SUBSCRIBERS say how much goes
# to how many in the first two runs; 200 to 64 takes minutes, for sha256sum,
# which therefore leaves the second run to cksum.

# shellcheck disable=SC2086 # options, one word each, in one variable
set -eu
LC_ALL=C
export LC_ALL

command -v socat >/dev/null || {
	echo "fanout.sh: skipped: there is no socat"
	exit 77
}
fanout=${FANOUT:-./examples/fanout}
case $fanout in
/*) ;;
*) fanout=$PWD/$fanout ;;
esac
mb=${BUFPOOL_FANOUT_MB:-4}
many=${BUFPOOL_FANOUT_SUBSCRIBERS:-16}
limit=$((60 + mb * many / 20)) # seconds for a step: what is stuck fails

dir=$(mktemp -d)
server=
clients=
others= # runs beside this one
digest=sha256sum
end_all()
{
	kill -KILL $clients 2>/dev/null || :
	kill $server $others 2>/dev/null || :
}
cleanup()
{
	end_all
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"

tcp='--publish 127.0.0.1:0 --subscribe 127.0.0.1:0'
unix='--publish unix:pub --subscribe unix:sub'

fail()
{
	echo "fanout.sh: $run: $*" >&2
	[ ! -s err ] || tail -n 30 err | sed 's/^/  err: /' >&2
	exit 1
}

# eventually COMMAND...: it succeeds, within the limit
eventually()
{
	tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt $((limit * 50)) ] || fail "never: $*"
		sleep 0.02
	done
}

# lines N FILE
lines()
{
	[ "$(wc -l <"$2")" -eq "$1" ]
}

# ------------------------------------------------------- the server and clients

# address WHAT: where it listens, in socat's words
address()
{
	sed -n "s/^$1 //p" addresses |
		sed -e 's/^unix:/UNIX-CONNECT:/' -e t -e 's/^/TCP:/'
}

# serve OPTION...: the process itself is in the file pid, $server its timeout
serve()
{
	run="fanout $*"
	: >addresses
	# shellcheck disable=SC2016 # another shell's
	timeout -k 5 $limit sh -c 'echo $$ >pid; exec "$@"' - "$fanout" "$@" \
		>addresses 2>"${messages:-err}" &
	server=$!
	eventually lines 2 addresses
	publish=$(address publish)
	subscribe=$(address subscribe)
	clients=
	frozen= # a stopped client, to go on when the server has gone
	logger= # what writes err, if it is not the server
	sums=
}

connected()
{
	grep -qs 'starting data transfer loop' "log.$1"
}

# size_is BYTES FILE
size_is()
{
	[ "$(wc -c <"$2")" -eq "$1" ]
}

# How many the server has open
descriptors()
{
	find "/proc/$(cat pid)/fd" -type l 2>/dev/null | wc -l
}

# descriptors_are N
descriptors_are()
{
	[ "$(descriptors)" -eq "$1" ]
}

# A publisher that sends what is written to descriptor 3, until that is closed
feed()
{
	rm -f feed log.feed
	mkfifo feed
	socat -d -d -u -b 65536 OPEN:feed "$publish" 2>log.feed &
	clients="$clients $!"
	exec 3>feed
	eventually connected feed
}

# subscribers FIRST LAST: the digest of what each gets goes to sum.NUMBER.  The
# kernel is to hide little of who stops reading: a small rcvbuf.
subscribers()
{
	for i in $(seq "$1" "$2"); do
		rm -f "pipe.$i" "log.$i"
		mkfifo "pipe.$i"
		$digest <"pipe.$i" >"sum.$i" &
		sums="$sums $!"
		socat -d -d -u -b 65536 "$subscribe,rcvbuf=131072" STDOUT \
			>"pipe.$i" 2>"log.$i" &
		eval "client_$i=$!"
		clients="$clients $!"
	done
	for i in $(seq "$1" "$2"); do
		eventually connected "$i"
	done
}

# signal NAME FIRST LAST: to these subscribers
signal()
{
	for i in $(seq "$2" "$3"); do
		eval "kill -$1 \$client_$i"
	done
}

# publisher <DATA: returns when the server has read all of it: it closes first
publisher()
{
	timeout $limit socat -t $limit -b 65536 - "$publish" >publisher.out ||
		fail "the publisher fails"
	[ ! -s publisher.out ] || fail "the publisher receives something"
}

# stop SIGNAL: status 0, nothing outstanding, and all clients at their end
stop()
{
	kill "-$1" "$(cat pid)" # not timeout, which would give it 5 s only
	got=0
	wait $server || got=$?
	server=
	[ -z "$frozen" ] || kill -CONT $frozen
	[ -z "$logger" ] || wait "$logger"
	[ $got -eq 0 ] || fail "exit status $got"
	[ "$(number checked_out)$(number heap_bytes)" = ' 0 0' ] ||
		fail "buffers are out at the end"
	[ "$(number total)" = "$(number idle)" ] || fail "not all are idle"
	[ -z "$sums" ] || wait $sums # without a number it waits for all
}

# number NAME: of the last table; totals come before the classes
number()
{
	awk -v name="$1" '
		$1 == "hits" { delete seen }
		$1 == name && !seen[name]++ { $1 = ""; last = $0 }
		END { print last }' err
}

# got FIRST LAST FILE...: these subscribers have these files, one by one
got()
{
	first=$1
	last=$2
	shift 2
	want=$(cat "$@" | $digest)
	for i in $(seq "$first" "$last"); do
		[ "$(cat "sum.$i")" = "$want" ] ||
			fail "subscriber $i has something else"
	done
}

# -------------------------------------------------------------------- the runs

# Everybody takes everything; a second publisher follows; who comes in between
# gets what is published from then on.
healthy()
{
	n=$1
	shift
	serve "$@"
	subscribers 1 "$n"
	publisher <data
	subscribers $((n + 1)) $((n + 1))
	publisher <second
	stop TERM
	got 1 "$n" data second
	got $((n + 1)) $((n + 1)) second
	grep -q ", $((n + 1)) subscribers, 0 cut off$" err ||
		fail "a healthy subscriber is cut off"
}

# In the middle some stop reading, and some are killed.
torture()
{
	n=$1
	bad=$(((n + 15) / 16))
	shift
	digest=cksum
	serve --queue 16 "$@"
	subscribers 1 "$n"
	{
		head -c $((size / 2))
		signal STOP 1 $bad
		signal KILL $((bad + 1)) $((2 * bad))
		cat
	} <data | publisher
	signal KILL 1 $bad
	stop INT
	got $((2 * bad + 1)) "$n" data
	[ "$(grep -c 'cut off: too slow, its queue is full$' err)" -eq $bad ] ||
		fail "not those $bad are cut off that stopped reading"
	case $* in
	*--copy*) ;;
	*) # As many different buffers as one queue holds; a few may move.
		[ "$(number misses)" -le $(($(number hits) / 50)) ] ||
			fail "more buffers than a queue holds are out" ;;
	esac
	digest=sha256sum
}

# Somebody stops reading, with much of the data in the queue, and vanishes.
vanish()
{
	serve --stats-every 1 --queue 1000 "$@"
	subscribers 1 1
	signal STOP 1 1
	head -c 3000000 data | publisher # under 1000 buffers, however it comes
	eventually grep -q '^checked_out' err
	eventually outstanding
	signal KILL 1 1
	eventually not outstanding
	stop TERM
}
outstanding()
{
	[ "$(number checked_out)" -gt 0 ]
}
not()
{
	! "$@"
}

# Nothing is published, and all the same the server sees who leaves.  (On TCP a
# subscriber may close its side and go on reading, so there it cannot.)
hang_up()
{
	serve "$@"
	base=$(descriptors)
	subscribers 1 3
	eventually descriptors_are $((base + 3))
	signal KILL 1 3
	eventually descriptors_are $base
	stop TERM
}

# Who has connected before something is read gets it: the server wakes up, and
# there are new subscribers and a publisher's bytes.
late()
{
	serve "$@"
	base=$(descriptors)
	subscribers 1 1
	feed
	eventually descriptors_are $((base + 2))
	kill -STOP "$(cat pid)"
	head -c 1000 second | tee little >&3
	exec 3>&-
	eventually grep -qs 'is at EOF' log.feed
	subscribers 2 3
	kill -CONT "$(cat pid)"
	eventually descriptors_are $((base + 3)) # without the publisher
	stop TERM
	got 1 3 little
}

# More connections than descriptors: the others go on.
exhausted()
{
	serve "$@"
	base=$(descriptors)
	free=3 # the first number that is: there may be inherited ones above
	while [ -e "/proc/$(cat pid)/fd/$free" ]; do
		free=$((free + 1))
	done
	prlimit --pid "$(cat pid)" --nofile=$((free + 3))
	subscribers 1 2
	feed
	eventually descriptors_are $((base + 3))
	subscribers 3 4
	eventually refusals 2
	head -c 1000 second | tee little >&3
	exec 3>&-
	eventually descriptors_are $((base + 2))
	stop TERM
	got 1 2 little
	got 3 4 /dev/null
	refusals 2 || fail "not two are refused"
}
refusals()
{
	[ "$(grep -c 'too many connections, one is refused' err)" -eq "$1" ]
}

# A subscriber may send something.  Nobody reads it, and all the same it gets
# what is on its way when the server has ended.
talker()
{
	serve "$@"
	rm -f log.1
	mkfifo pipe
	sha256sum <pipe >sum.1 &
	sums=$!
	echo hello | socat -d -d -t $limit - "$subscribe,rcvbuf=65536" \
		>pipe 2>log.1 &
	frozen=$!
	clients=$!
	eventually grep -qs 'is at EOF' log.1
	kill -STOP $frozen
	head -c 150000 second >little
	publisher <little
	stop TERM
	got 1 1 little
}

# Who reads 20 kB a second is too slow, and the others do not wait for it.
slow()
{
	serve --queue 16 --patience 100 "$@"
	subscribers 1 4
	rm -f log.5
	mkfifo slow
	{
		while [ "$(head -c 1000 | wc -c)" -gt 0 ]; do
			sleep 0.05
		done
	} <slow &
	clients="$clients $!"
	socat -d -d -u "$subscribe" STDOUT >slow 2>log.5 &
	clients="$clients $!"
	eventually connected 5
	publisher <data
	stop TERM
	got 1 4 data
	kill -KILL $clients 2>/dev/null || : # there is much in the fifo
	[ "$(grep -c 'cut off: too slow, its queue is full$' err)" -eq 1 ] ||
		fail "not the one is cut off that is slow"
}

# Who is to be cut off still has its queue until it is: no more is read before.
# Its worker cannot do it, as long as nobody reads its message.  A buffer that
# is read nevertheless is one more than the pool has.
doomed()
{
	rm -f log.1
	mkfifo messages
	exec 4<>messages
	dd if=/dev/zero of=messages bs=4096 oflag=nonblock 2>/dev/null || :
	messages=messages
	serve --queue 2 --patience 50 "$@"
	messages=
	: >received
	socat -d -d -u "$subscribe" OPEN:received 2>log.1 &
	clients="$clients $!"
	eventually connected 1
	subscribers 2 2 # it comes first in the worker's list
	signal STOP 2 2
	feed
	sent=0
	while [ $sent -lt 1280000 ] && within_seconds 3 size_is $sent received; do
		head -c 32000 second >&3
		sent=$((sent + 32000))
	done
	echo one more >&3
	sleep 0.1
	tr -d '\0' <messages >err 3>&- 4>&- & # on with it
	logger=$!
	exec 4>&-
	eventually size_is $((sent + 9)) received
	signal KILL 2 2
	exec 3>&-
	stop TERM
	grep -q 'cut off: too slow, its queue is full$' err ||
		fail "who has stopped is not cut off"
	[ "$(number misses)" -eq 0 ] || fail "more was read too early"
}
within_seconds()
{
	tries=$(($1 * 50))
	shift
	until "$@"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.02
	done
}

# memory NAME: of the server, in kB
memory()
{
	awk -v name="$1:" '$1 == name { print $2 }' "/proc/$(cat pid)/status"
}

# With eight buffers and no heap, one subscriber that does not read stops the
# publisher, and nothing else comes of it: the memory stays what it was, nobody is
# cut off, and when it goes on all get everything.
bounded()
{
	serve --exhausted wait --queue 8 --patience 1 --stats-every 1 "$@"
	subscribers 1 4
	before=$(memory VmRSS)
	signal STOP 4 4
	publisher <data &
	publishing=$!
	eventually exhausted_pool
	kill -0 $publishing || fail "the publisher is not held up"
	signal CONT 4 4
	wait $publishing || fail "the publisher fails"
	[ $(($(memory VmHWM) - before)) -lt 1024 ] ||
		fail "memory grows: $before kB, then $(memory VmHWM) kB"
	stop TERM
	got 1 4 data
	[ "$(number misses)$(number peak_checked_out)" = ' 0 8' ] ||
		fail "not the pool's buffers alone"
	grep -q ', 4 subscribers, 0 cut off$' err || fail "somebody is cut off"
}
exhausted_pool()
{
	[ "$(number checked_out)" = ' 8' ]
}

# Subscribers have 5 s at the end.
deadline()
{
	serve --queue 1000 "$@"
	subscribers 1 1
	signal STOP 1 1
	frozen=${client_1:?}
	head -c 3000000 data | publisher
	stop TERM
	grep -q 'cut off: too slow, the server stops$' err ||
		fail "it is not said who is too slow at the end"
}

# beside FOLDER RUN...: it waits most of its time, so while others run
beside()
{
	mkdir "$1"
	(
		others=
		trap end_all EXIT
		trap 'exit 1' HUP INT TERM
		cd "$1"
		ln -s ../data ../second .
		shift
		"$@"
	) &
	others="$others $!"
}

# ---------------------------------------------------------------- command line

# refused STATUS WORDS ARGUMENT...: this status, and one line with these words
refused()
{
	want=$1
	words=$2
	shift 2
	run="fanout $*"
	got=0
	timeout 20 "$fanout" "$@" >out 2>err || got=$?
	[ $got -eq "$want" ] || fail "exit status $got, not $want"
	lines 1 err || fail "not one line of message"
	grep -q "^fanout: .*$words" err || fail "no word of '$words'"
}

# What others have is not to be had.
taken()
{
	serve "$@"
	other=$(sed -n 's/^publish //p' addresses)
	mv err server.err
	for tail in "--publish $other --subscribe 127.0.0.1:0" \
		"--publish 127.0.0.1:0 --subscribe $other"; do
		refused 1 'Address already in use' $tail
	done
	mv server.err err
	stop TERM
}

bad_usage()
{
	refused 2 needed
	refused 2 needed --publish 127.0.0.1:0
	refused 2 needed --subscribe 127.0.0.1:0
	for at in '' : x 127.0.0.1 127.0.0.1: :x :-1 :65536 ::1:0 [::1:0 \
		'[::1]0' ::1]:0 []:0 ': 1' :1K; do
		refused 2 "'.*' is not HOST:PORT" $tcp --publish "$at"
	done
	refused 2 "'.*' is not HOST:PORT" $tcp --subscribe x
	refused 1 '' $tcp --publish '[localhost]:0'
	refused 2 'no path' $tcp --publish unix:
	refused 2 'no path' $tcp --publish "unix:$(printf %0200d 0)"
	refused 1 'No such file' $tcp --publish unix:no/such
	refused 1 'No such file' --publish unix:new --subscribe unix:no/such
	[ ! -e new ] || fail "a socket is left behind"
	for option in queue patience threads stats-every buffer; do
		for n in 0 1x; do
			refused 2 "--$option: '$n' is not a .* from 1 to" \
				$tcp --$option "$n"
		done
	done
	for option in queue buffer; do
		for n in '' -1 +1 ' 1' x 0x10 1.5 99999999999999999999; do
			refused 2 "--$option: '$n' is not a .* from 1 to" \
				$tcp --$option "$n"
		done
		refused 2 "$option" $tcp --$option
	done
	refused 2 'is not a number' $tcp --threads 1K
	refused 2 'is not a size' $tcp --buffer 1025M
	refused 2 nonsense $tcp --nonsense
	refused 2 "'more' is no option" $tcp more
	refused 2 "'fail' is not wait" $tcp --exhausted fail
	refused 2 'heap' $tcp --exhausted wait --copy
	refused 1 'cannot wait' $tcp --exhausted wait --buffer 3M
	"$fanout" --help >out || fail "--help fails"
	for option in publish subscribe buffer queue patience threads copy \
		exhausted stats-every help; do
		grep -q -e "--$option" out || fail "--help: no --$option"
	done
}

run=fanout.sh
{
	size=$((mb * 1000000))
	head -c $size /dev/urandom >data
	head -c 1234567 /dev/urandom >second
	beside 1 deadline $unix
	beside 2 doomed $unix
	beside 3 vanish $unix
	beside 4 bounded $unix --threads 2

	bad_usage
	taken $tcp
	taken $unix
	healthy "$many" $tcp
	torture "$many" $tcp --threads 2

	size=4000000
	head -c $size /dev/urandom >data
	healthy 8 $unix --threads 3 --copy
	[ ! -e pub ] || fail "a socket is left behind"
	[ ! -e sub ] || fail "a socket is left behind"
	torture 16 $unix
	torture 8 $tcp --threads 3 --copy
	hang_up $unix
	late $tcp
	late $unix
	exhausted $tcp
	talker $tcp
	slow $unix --threads 2

	# Odd sizes, and fewer subscribers than threads.
	head -c 200000 second >data
	healthy 2 $unix --buffer 100 --queue 100 --threads 4
	healthy 2 $tcp --buffer 3M --queue 1
	healthy 2 $tcp --buffer 4K --queue 1
	! grep -q ' lo$' /proc/net/if_inet6 ||
		healthy 2 --publish '[::1]:0' --subscribe :0

	for other in $others; do
		wait "$other" || fail "a run beside the others failed"
	done
}
