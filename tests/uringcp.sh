#! /bin/sh
# SPDX-License-Identifier: MIT
#
# uringcp.sh - examples/uringcp makes true copies, and says when it cannot
#
# URINGCP names the program, URINGCP_HALF the same one with requests that do
# half of what they should (tests/uringcp_half.c).  BUFPOOL_URINGCP_MB says how
# large the largest file is.

# shellcheck disable=SC2086 # options, one word each, in one variable
set -eu
LC_ALL=C
export LC_ALL

absolute()
{
	case $1 in
	/*) echo "$1" ;;
	*) echo "$PWD/$1" ;;
	esac
}
uringcp=$(absolute "${URINGCP:-./examples/uringcp}")
half=$(absolute "${URINGCP_HALF:-./tests/uringcp_half}")
mb=${BUFPOOL_URINGCP_MB:-20}

disk=$(mktemp -d)
memory=
[ ! -w /dev/shm ] || memory=$(mktemp -d /dev/shm/uringcp.XXXXXX)
trap 'rm -rf "$disk" $memory' EXIT
trap 'exit 1' HUP INT TERM
cd "$disk"

fail()
{
	echo "uringcp.sh: $run: $*" >&2
	[ ! -s err ] || sed 's/^/  err: /' err >&2
	exit 1
}

# start PROGRAM ARGUMENT...: sets got to its exit status
start()
{
	run="${1##*/}"
	got=0
	timeout 60 "$@" >out 2>err || got=$?
	shift
	run="$run $*"
}

# copies PROGRAM OPTIONS SOURCE TARGET: status 0, no message, the same bytes.
# Without privileges, 8 MiB may be registered, and some kernels take a
# moment to let go of what a program had that is gone.
copies()
{
	tries=0
	until
		start "$1" $2 "$3" "$4"
		! grep -q 'ulimit -l' err || [ $tries -eq 20 ]
	do
		tries=$((tries + 1))
		sleep 0.1
	done
	[ $got -eq 0 ] || fail "exit status $got"
	[ ! -s err ] || fail "a message"
	cmp "$3" "$4" || fail "is no true copy"
}

# one_message STATUS WORDS: of the last start
one_message()
{
	[ $got -eq "$1" ] || fail "exit status $got, not $1"
	[ "$(wc -l <err)" -eq 1 ] || fail "not one line of message"
	grep -q "^uringcp\(_half\)\?: .*$2" err || fail "no word of '$2'"
	[ ! -s out ] || fail "a message on stdout"
}

# refused STATUS WORDS ARGUMENT...
refused()
{
	status=$1
	words=$2
	shift 2
	start "$uringcp" "$@"
	one_message "$status" "$words"
}

# ------------------------------------------------------------------- true copies

# bytes N FILE
bytes()
{
	head -c "$1" /dev/urandom >"$2"
}

echo x >one
start "$uringcp" one two
if grep -q 'refuses io_uring' err; then
	echo "uringcp.sh: skipped: $(cat err)"
	exit 77
fi

# Sizes about those of a buffer, of a class, of nothing at all.
sizes='0 1 4095 4096 4097 65535 65536 65537 262143 262144 262145 7654321'
for n in $sizes; do
	bytes $n size.$n
done
copy_sizes()
{
	for n in $sizes; do
		copies "$1" "$2" size.$n copy
	done
}
for plain in '' --plain; do
	for depth in 1 64; do
		for buffer in 4096 64K; do
			copy_sizes "$uringcp" \
				"$plain --depth $depth --buffer $buffer"
			copy_sizes "$half" \
				"$plain --depth $depth --buffer $buffer"
		done
	done
	# A buffer for each byte; buffers that no size is a multiple of.
	copies "$uringcp" "$plain --buffer 1" size.4097 copy
	copies "$half" "$plain --buffer 1 --depth 64" size.4097 copy
	copies "$uringcp" "$plain --buffer 4095 --depth 512" size.7654321 copy
	copies "$half" "$plain --buffer 4097" size.7654321 copy
done

# On disk, in memory, and between them.
bytes $((mb * 1000000 + 1)) large
for plain in '' --plain; do
	copies "$uringcp" "$plain" large copy
	copies "$half" "$plain" large copy
	[ -n "$memory" ] || continue
	copies "$uringcp" "$plain --depth 64 --buffer 60K" large "$memory/large"
	copies "$half" "$plain" "$memory/large" "$memory/copy"
	copies "$uringcp" "$plain --depth 1 --buffer 1M" "$memory/copy" copy
done
# A file of /proc has a size of 0, but contents.
copies "$uringcp" '' /proc/cpuinfo copy

# What was in the target before goes, and its name may be anything.
copies "$uringcp" '' size.1 copy
copies "$uringcp" -- size.4097 './-a b'
# A new target is as open as the source and the umask say; an old one stays.
chmod 750 size.1
umask 027
rm copy
copies "$uringcp" '' size.1 copy
[ "$(stat -c %a copy)" = 750 ] || fail "the mode is not the source's"
umask 022
chmod 600 copy
copies "$uringcp" '' size.1 copy
[ "$(stat -c %a copy)" = 600 ] || fail "the mode of a target changes"

# ------------------------------------------------------------------- what cannot

# The target is what it was.
cp size.4097 kept
ln kept link
ln -s kept symlink
mkfifo fifo
refused 1 "'none': No such file" none kept
refused 1 'not a regular file' . kept
refused 1 'not a regular file' fifo kept
refused 1 'not a regular file' /dev/zero kept
for name in kept link symlink ./kept; do
	refused 1 'the same file' kept $name
done
cmp -s size.4097 kept || fail "the target is not what it was"
refused 1 'Is a directory' one .
refused 1 "'none/x': No such file" one none/x
refused 1 "'fifo'" one fifo
refused 1 'not a regular file' one /dev/null
if [ "$(id -u)" -ne 0 ]; then
	chmod 400 kept
	refused 1 Permission one kept
	chmod 000 one
	refused 1 Permission one new
	[ ! -e new ] || fail "makes a target without a source"
	chmod 600 one
fi
[ ! -e none ] || fail "makes a target without a source"

# A disk that is full: what has been written stays, as with cp, and it says so.
# To mount one takes a namespace, which not every system lends.
mkdir full
cat >on_full <<'END'
mount -t tmpfs -o size=1m none full || exit
"$@"
got=$?
[ -e full/copy ] || echo "nothing is left"
exit $got
END
full="unshare -m -r sh on_full"
if $full touch full/copy 2>/dev/null; then
	for program in "$uringcp" "$half"; do
		for plain in '' --plain; do
			start $full "$program" $plain --depth 2 size.7654321 \
				full/copy
			one_message 1 "writing 'full/copy': No space.*is incomplete"
		done
	done
fi

# No more descriptors, in place of a system without io_uring.  To look for leaks
# takes descriptors too.
start env ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" \
	sh -c 'ulimit -n 4; "$@"' - "$uringcp" one new
one_message 1 'refuses io_uring: Too many'
[ ! -e new ] || fail "makes a target without io_uring"

# Without privileges, what is registered counts as locked memory.
cat >little <<'END'
ulimit -l 1024 && exec "$@"
END
little='sh little'
[ "$(id -u)" -ne 0 ] || little="setpriv --bounding-set=-ipc_lock $little"
if $little true 2>/dev/null; then
	start $little "$uringcp" large new
	one_message 1 'locked: ulimit -l'
	[ ! -e new ] || fail "makes a target without a pool"
	for options in --plain '--depth 1'; do
		start $little "$uringcp" $options large new
		[ $got -eq 0 ] || fail "exit status $got"
	done
fi

# More than a slot can hold.
if [ "$mb" -ge 300 ]; then
	copies "$uringcp" '--depth 2048 --buffer 1M' one new
	copies "$uringcp" '--plain --depth 2048 --buffer 1M' one new
fi

# Some at first, then more; never more than --depth.
for depth in 3 64; do
	copies "$uringcp" "--grow --depth $depth --buffer 4096" size.7654321 copy
	copies "$half" "--grow --depth $depth --buffer 4097" size.7654321 copy
done
start "$uringcp" --grow --stats --depth 64 --buffer 4096 size.7654321 copy
[ $got -eq 0 ] || fail "exit status $got"
awk '$1 == "total" { all = $2 + $3 + $4 + $5 } END { exit !(all >= 4 && all <= 64) }' \
	err || fail "grows to what it may not"

refused 2 'needs SOURCE and TARGET'
refused 2 'needs SOURCE and TARGET' one
refused 2 'needs SOURCE and TARGET' one two three
for option in buffer depth; do
	for n in '' 0 -1 +1 ' 1' x 1x 0x10 1.5 1G 5000M 99999999999999999999; do
		refused 2 "--$option: '.*' is not a .* from 1 to" \
			--$option "$n" one two
	done
done
refused 2 'is not a number' --depth 1K one two
refused 2 'is not a number' --depth 4097 one two
refused 2 'is not a size' --buffer 1025K one two
refused 2 nonsense --nonsense one two
start "$uringcp" --help
[ $got -eq 0 ] || fail "--help fails"
for option in buffer depth grow plain stats help; do
	grep -q -e "--$option" out || fail "--help: no --$option"
done
