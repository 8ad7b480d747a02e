#! /bin/sh
# SPDX-License-Identifier: MIT
#
# poolsum.sh - examples/poolsum prints what sha256sum prints
#
# Every run is under a timeout: a pipeline that is stuck is a failure here, not
# a hang.  POOLSUM names the program.

set -eu
LC_ALL=C
export LC_ALL

poolsum=${POOLSUM:-./examples/poolsum}
case $poolsum in
/*) ;;
*) poolsum=$PWD/$poolsum ;;
esac

dir=$(mktemp -d)
background=
cleanup()
{
	[ -z "$background" ] || kill "$background" 2>/dev/null || :
	chmod -R u+rwx "$dir"
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"

fail()
{
	echo "poolsum.sh: $*" >&2
	for f in out err; do
		[ ! -s $f ] || head -c 600 $f | sed "s/^/  $f: /" >&2
	done
	exit 1
}

# run STATUS ARGUMENT...: poolsum to out and err, with this exit status
run()
{
	want=$1
	shift
	got=0
	timeout 20 "$poolsum" "$@" >out 2>err || got=$?
	[ "$got" -ne 124 ] || fail "stuck: $*"
	[ "$got" -eq "$want" ] || fail "exit status $got, not $want: $*"
}

# same WHAT: out and err are the expected ones
same()
{
	cmp -s out want.out || fail "$1: sums differ from sha256sum's"
	[ ! -s err ] && [ ! -s want.err ] || cmp -s err want.err ||
		fail "$1: messages differ from sha256sum's"
}

# as_sha256sum ARGUMENT...: status, sums and messages are sha256sum's
as_sha256sum()
{
	want=0
	sha256sum -- "$@" >want.out 2>sha.err || want=$?
	# It quotes odd names for a shell, we do not: plain names only, where
	# there are messages.  The second message about a bad stdin is its own.
	sed -e '/standard input/d' -e 's/^sha256sum:/poolsum:/' sha.err >want.err
	for threads in 1 2 8; do
		run "$want" --threads $threads -- "$@"
		same "--threads $threads -- $*"
	done
}

# sums DIR: what find, sort and sha256sum say about a tree
sums()
{
	find -H "$1" -type f -print0 | sort -z | xargs -0 sha256sum --
}

# bytes N FILE
bytes()
{
	head -c "$1" /dev/urandom >"$2"
}

# --------------------------------------------------------------------- a tree

nl=$(printf '\nx')
nl=${nl%x}
cr=$(printf '\r')

mkdir -p tree/small/sub tree/empty-dir "tree/dir with space"
: >tree/small/empty
for n in 1 4095 4096 4097; do
	bytes $n tree/small/$n
done
for n in 65535 65536 65537; do
	bytes $n tree/$n
done
bytes 5000000 tree/5M
i=0
while [ $i -lt 30 ]; do
	echo $i >tree/small/sub/$i
	i=$((i + 1))
done
for name in 'a b' '-dash' 'back\slash' '\\' "new${nl}line" "${nl}" \
	"end${nl}" "a\\n${nl}b" 'quo"te' "it's" '$x' '*' \
	"$(printf 'utf8-\303\244\342\202\254')" "$(printf 'latin1-\344\377')"; do
	printf '%s' "$name" >"tree/small/$name"
	printf '%s' "$name" >"tree/dir with space/$name"
done
# In byte order the path small-er comes between small and small/1.
echo x >tree/small-er
# Older versions of sha256sum did not escape a carriage return.
echo x >"carriage${cr}return"
case $(sha256sum "carriage${cr}return") in
\\*) cp "carriage${cr}return" "tree/small/car${cr}riage" ;;
esac

sums tree >tree.sums
[ "$(wc -l <tree.sums)" -gt 60 ] || fail "the test's own list is short"
sums tree/small >small.sums

# Not regular files: a walk leaves them out, and must not open the fifo.
mkfifo tree/fifo
ln -s 5M tree/link
ln -s small tree/link-to-dir
ln -s nowhere tree/dangling

# --------------------------------------------------------- sums and their order

: >want.err
run 0 --hardened --threads 2 tree
cp tree.sums want.out
same --hardened
for malloc in '' --malloc; do
	for threads in 1 2 8; do
		for class in 4K 64K 1M 3M; do
			set -- --threads $threads --class $class $malloc tree
			run 0 "$@"
			cp tree.sums want.out
			same "$*"
		done
		# A buffer for each byte is slow: without the large files.
		set -- --threads $threads --class 1 $malloc tree/small
		run 0 "$@"
		cp small.sums want.out
		same "$*"
	done
done

# More threads than files, odd sizes, a class that is not a power of two.
for class in 3 1000 100K 65537; do
	run 0 --threads 64 --class $class tree/65536 tree/small/4097
	sha256sum tree/65536 tree/small/4097 >want.out
	same "--class $class"
done
run 0 --malloc --class 1G tree/small/1
sha256sum tree/small/1 >want.out
same "--class 1G"

# Arguments in their order, trees where they stand, the same file twice.
run 0 tree/5M tree/small tree/5M tree/65536
{ sha256sum tree/5M; cat small.sums; sha256sum tree/5M tree/65536; } >want.out
same "files and trees"

# The path is printed as given; an empty tree gives nothing.
for d in tree/ tree// ./tree tree/link-to-dir tree/link-to-dir/ \
	tree/../tree/small; do
	run 0 "$d"
	sums "$d" >want.out
	same "$d"
done
: >want.out
run 0 tree/empty-dir
same "an empty directory"

as_sha256sum tree/5M tree/link tree/small/empty "tree/small/new${nl}line" \
	'tree/small/\\' 'tree/small/back\slash' "tree/small/${nl}"
(
	cd tree/small
	as_sha256sum -dash 1
	rm -f out err want.out want.err sha.err
)

# ------------------------------------------------------------------------ stdin

bytes 300000 300K

# Both of "- -" read the same stdin: the first gets all of it.
stdin_as_sha256sum()
{
	sha256sum "$@" <300K >want.out
	for threads in 1 2 8; do
		run 0 --threads $threads "$@" <300K
		same "--threads $threads $* <file"
	done
	cat 300K | sha256sum "$@" >want.out
	for threads in 1 2 8; do
		got=0
		cat 300K |
			timeout 20 "$poolsum" --threads $threads "$@" >out 2>err ||
			got=$?
		[ $got -eq 0 ] || fail "exit status $got: cat file | $*"
		same "cat file | --threads $threads $*"
	done
}
: >want.err
stdin_as_sha256sum -
stdin_as_sha256sum - - tree/65535 -
stdin_as_sha256sum /dev/stdin tree/small/1
: | sha256sum /dev/stdin - >want.out
: | run 0 /dev/stdin -
same "an empty stdin"
as_sha256sum - <&-
as_sha256sum tree/65536 - tree/65537 - <&-

# ----------------------------------------------------------------------- errors

as_sha256sum missing
as_sha256sum tree/5M missing tree/65536 missing/too tree/small/1/x tree/dangling
run 1 ''
: >want.out
echo 'poolsum: : No such file or directory' >want.err
same "an empty path"
if [ "$(id -u)" -ne 0 ]; then
	echo x >locked
	mkdir locked-dir
	chmod 0 locked locked-dir
	as_sha256sum tree/65536 locked tree/65537
	run 1 tree/small locked-dir tree/small/1
	{ cat small.sums; sha256sum tree/small/1; } >want.out
	echo 'poolsum: locked-dir: Permission denied' >want.err
	same "an unreadable directory"
fi
# A file that opens and then cannot be read.
if sha256sum /proc/self/mem 2>&1 | grep -q 'Input/output error'; then
	as_sha256sum tree/65536 /proc/self/mem tree/small/1
fi

# usage WORDS ARGUMENT...: status 2 and one line on stderr, with these words
usage()
{
	words=$1
	shift
	run 2 "$@"
	[ ! -s out ] || fail "output with a wrong command line: $*"
	{
		read -r line || fail "no message: $*"
		! read -r more || fail "more than one line: $*"
	} <err
	case $line in
	"poolsum: "*"$words"*) ;;
	*) fail "no word of '$words': $*" ;;
	esac
}
usage 'no files'
usage 'no files' --threads 2
for n in 0 -1 +1 1025 1K x 1x '' ' 1' 0x10 99999999999999999999; do
	usage "--threads: '$n' is not a number" --threads "$n" tree
done
for n in 0 0K -1 +1 K x 1k 2G 1T 1KK 1.5K '' ' 1' 1025M 1073741825 1048577K \
	99999999999999999999 18446744073709551615K 18014398509481985K; do
	usage "--class: '$n' is not a size" --class "$n" tree
done
for option in threads class summary; do
	usage "$option" tree "--$option"
done
for option in stats malloc hardened progress no-progress help version; do
	usage "$option" "--$option=1" tree
done
usage nonsense --nonsense tree
usage "'t'" -t 1 tree
usage 'No such file' --summary missing/summary tree

# Limits themselves are fine, and options may follow the paths.
run 0 tree/small/1 --threads 1024 --class 1
run 0 --class 1K tree/small/1 --threads 1

# ---------------------------------------------------------------- write errors

if [ -c /dev/full ]; then
	for args in tree/small/1 'tree/small tree/5M' --help --version; do
		got=0
		# shellcheck disable=SC2086 # several arguments
		timeout 20 "$poolsum" $args >/dev/full 2>err || got=$?
		[ $got -eq 1 ] || fail "exit status $got: $args >/dev/full"
		echo 'poolsum: write error: No space left on device' |
			cmp -s - err || fail "wrong message: $args >/dev/full"
	done
	run 1 --summary /dev/full tree/small/1
	grep -q '^poolsum: /dev/full: No space left' err ||
		fail "a summary that cannot be written goes unnoticed"
fi
got=0
timeout 20 "$poolsum" tree/65535 tree/65536 >&- 2>err || got=$?
[ $got -eq 1 ] || fail "exit status $got with stdout closed"
grep -q '^poolsum: write error: Bad file' err || fail "stdout closed: no message"

timeout 20 "$poolsum" tree 2>err | head -n 1 >out
head -n 1 tree.sums | cmp -s - out || fail "wrong first line into a pipe"

# -------------------------------------------------------------------- streaming

# All sums before a fifo that nobody feeds yet are out; and files behind it do
# not come early.
for threads in 1 2; do
	rm -f pipe out # or the loop below could see the last run's
	mkfifo pipe
	timeout 20 "$poolsum" --threads $threads tree/65536 pipe tree/small/1 \
		>out 2>err &
	background=$!
	i=0
	until [ -s out ]; do
		i=$((i + 1))
		[ $i -lt 100 ] || fail "nothing comes out before all is read"
		sleep 0.1
	done
	sha256sum tree/65536 | cmp -s - out || fail "wrong sums before the fifo"
	cat tree/65537 >pipe
	wait $background || fail "exit status $? with a fifo"
	background=
	{
		sha256sum tree/65536
		sha256sum <tree/65537 | sed 's/-$/pipe/'
		sha256sum tree/small/1
	} >want.out
	: >want.err
	same "a fifo"
done

# ------------------------------------------------- files that change meanwhile

# A buffer for each byte makes reading slow enough.
bytes 40000 changing
for size in 20000 10 0; do
	timeout 20 "$poolsum" --class 1 changing >out 2>err &
	background=$!
	sleep 0.02
	truncate -s $size changing
	wait $background || fail "exit status $? with a file that shrinks"
	grep -Eq '^[0-9a-f]{64}  changing$' out || fail "no sum: shrinking file"
	bytes 40000 changing
done
timeout 20 "$poolsum" --class 1 changing >out 2>err &
background=$!
for i in 1 2 3 4 5 6 7 8 9 10; do
	bytes 1000 more
	cat more >>changing
done
wait $background || fail "exit status $? with a file that grows"
background=
grep -Eq '^[0-9a-f]{64}  changing$' out || fail "no sum: growing file"
as_sha256sum changing

# ------------------------------------------------------------------- statistics

# field N: of the summary
field()
{
	cut -f "$1" summary
}
# number NAME: of the table on stderr; for each class where there are several
number()
{
	awk -v name="$1" '$1 == name { $1 = ""; print }' err
}
# Whatever was checked out came home.
reconciles()
{
	for name in checked_out bytes_checked_out heap_bytes; do
		case $(number $name) in
		'' | *[1-9]*) fail "--stats: at the end $name is not 0" ;;
		esac
	done
	[ "$(number total)" = "$(number idle)" ] ||
		fail "--stats: at the end not all buffers are idle"
	[ "$(number hits)" -eq "$(field 6)" ] &&
		[ "$(number misses)" -eq "$(field 7)" ] ||
		fail "--stats and --summary differ"
	grep -q ', 0 buffers not returned$' err || fail "--stats: buffers are out"

	# The pool holds as many buffers as can be out at once.  A checkout may
	# all the same miss one that another thread is moving just then.
	if [ "$(field 6)" -eq 0 ]; then
		[ "$(number oversize)" -eq "$(field 7)" ] ||
			fail "--stats: the pool has no buffers of the class"
	else
		[ "$(field 7)" -lt "$(field 6)" ] ||
			fail "--stats: the pool has too few buffers"
	fi
}
# Any table of classes has one for 4K.
files=$(wc -l <tree.sums)
total=$(find tree -type f -print0 | xargs -0 cat | wc -c)
for mode in pool malloc; do
	flag=
	[ $mode = pool ] || flag=--malloc
	run 0 $flag --stats --summary summary --class 4K tree
	cmp -s out tree.sums || fail "--stats disturbs the sums"
	[ "$(wc -l <summary)" -eq 1 ] || fail "--summary: not one line"
	[ "$(field 1)" = $mode ] || fail "--summary: mode is not $mode"
	field 2 | grep -Eq '^[0-9]+\.[0-9]+$' || fail "--summary: bad wall_s"
	field 3 | grep -Eq '^[0-9]+$' || fail "--summary: bad minor_faults"
	[ "$(field 4)" -eq "$total" ] || fail "--summary: bytes are not $total"
	[ "$(field 5)" -eq "$files" ] || fail "--summary: files are not $files"
	[ -z "$(field 8)" ] || fail "--summary: more than 7 fields"
	tail -n 1 err | grep -q "^poolsum: $mode: $files files, $total bytes" ||
		fail "--stats: no last line, or other figures"
	if [ $mode = malloc ]; then
		[ "$(field 6)$(field 7)" = -- ] || fail "--malloc has hits"
		[ "$(wc -l <err)" -eq 1 ] || fail "--malloc --stats: more lines"
	else
		[ "$(field 6)" -gt 0 ] || fail "no hits"
		[ $(($(field 6) + $(field 7))) -ge "$files" ] ||
			fail "fewer checkouts than files"
		reconciles
	fi
done
# Other classes, and above the largest.
for class in 1 4097 64K 256K 1M 3M; do
	run 0 --stats --summary summary --class $class tree/small/4096 \
		tree/small/4097
	checkouts=$(($(field 6) + $(field 7)))
	[ $checkouts -ge 2 ] || fail "--class $class: $checkouts checkouts"
	[ $class != 1 ] || [ $checkouts -ge 8193 ] ||
		fail "--class 1: $checkouts checkouts"
	reconciles
done
# Buffers are filled by one thread and emptied by another, and there are hardly
# enough of them: they come from the depot, or else the threads rob one another.
i=0
set --
while [ $i -lt 16 ]; do
	set -- "$@" tree/5M
	i=$((i + 1))
done
for threads in 1 2 4 8; do
	run 0 --stats --class 4K --threads $threads "$@"
	hits=$(number hits)
	stolen=$(number stolen | awk '{ for (i = 1; i <= NF; i++) n += $i } END { print n }')
	[ "$hits" -ge 16000 ] || fail "--stats: only $hits hits"
	[ $((stolen * 100)) -le $((hits * 2)) ] ||
		fail "--threads $threads: $stolen of $hits buffers stolen"
done
# What has no sum does not count.
run 1 --summary summary tree/small/1 missing
[ "$(field 5)" -eq 1 ] || fail "--summary counts files without a sum"

run 0 --progress tree
cmp -s out tree.sums || fail "--progress disturbs the sums"
grep -q "$files of $files files" err || fail "--progress shows no progress"
run 0 --progress --no-progress tree
[ ! -s err ] || fail "--no-progress shows progress"
run 0 tree
[ ! -s err ] || fail "progress where stderr is no terminal"

run 0 --help
[ ! -s err ] || fail "--help writes on stderr"
for option in threads class malloc stats summary progress no-progress help \
	version; do
	grep -q -e "--$option" out || fail "--help says nothing of --$option"
done
grep -q erase out || fail "--help says nothing of the wipe"
run 0 --version
grep -Eq '^poolsum .*[0-9]+\.[0-9]+' out || fail "--version has no version"
