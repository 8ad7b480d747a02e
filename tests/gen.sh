#!/bin/sh
# SPDX-License-Identifier: MIT
#
# gen.sh - the generator: what it makes of good input, that it refuses bad
# input with the right file and line, and that it then leaves nothing behind

set -eu
LC_ALL=C
GCOV_ERROR_FILE=/dev/null # else a coverage build has a say on stderr
export LC_ALL GCOV_ERROR_FILE

fail() {
	printf 'gen.sh: %s\n' "$*" >&2
	exit 1
}

absolute() {
	case $1 in
	/*) printf '%s\n' "$1" ;;
	*) printf '%s\n' "$PWD/$1" ;;
	esac
}

gen=$(absolute "${GEN:-./gen/bufpool-gen}")
srcdir=$(absolute "${srcdir:-.}")
builddir=$(absolute "${abs_builddir:-.}")
CC=${CC:-cc}
[ -x "$gen" ] || fail "no generator at $gen"

# Everything happens in here.  "old" holds an output from before and "new" none,
# except for what a successful run has just put there.
dir=$(mktemp -d)
trap 'cd / && rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"
mkdir old new
echo precious >old/out
out=new/out
limit=

row='4k 4K memset 64 64\n'

# run TABLE TEMPLATE: sets status, and err to what came out on stderr.
# $limit, if any, is on the size of files; the test itself must not be under
# it, since its log is a file.
run() {
	status=0
	err=$(
		[ -z "$limit" ] || ulimit -f "$limit"
		"$gen" "$1" "$2" "$out" 2>&1 >/dev/null
	) || status=$?
}

# holds CASE DIR [NAME]: the directory holds that file alone, or nothing.
holds() {
	set -- "$1" "$2" "${3-*}" "$2"/* "$2"/.[!.]*
	[ "$4 $5" = "$2/$3 $2/.[!.]*" ] || fail "$1: $2 holds $4 $5"
}

# accepted CASE TABLE TEMPLATE: the output is what stdin says.
accepted() {
	cat >expected
	run "$2" "$3"
	[ "$status" = 0 ] || fail "$1: exit $status: $err"
	[ -z "$err" ] || fail "$1: on stderr: $err"
	holds "$1" new out
	cmp -s expected new/out ||
		fail "$1: unexpected output: $(diff expected new/out)"
	rm new/out
}

# refused_once CASE FILE:LINE WHAT TABLE TEMPLATE
refused_once() {
	run "$4" "$5"
	[ "$status" = 1 ] || fail "$1: exit $status, not 1: $err"
	case $err in
	*"
"*) fail "$1: more than one line: $err" ;;
	"$2: "*"$3"*) ;;
	*) fail "$1: expected '$2: ...$3...', got '$err'" ;;
	esac
}

# leaves_old CASE: the output from before is as it was.
leaves_old() {
	holds "$1" old out
	read -r precious <old/out || precious=
	[ "$precious" = precious ] || fail "$1: the old output is gone"
}

# refused, like refused_once: without an output there is none afterwards
# either, and one that was there is as it was.
refused() {
	refused_once "$@"
	holds "$1" new
	out=old/out
	refused_once "$@"
	leaves_old "$1"
	out=new/out
}

# bad_table LINE WHAT TABLE: the table is a printf format.
bad_table() {
	printf "$3" >table
	refused "table '$3'" "table:$1" "$2" table columns
}

# good_table TABLE COLUMNS: the second as the template "columns" has them.
good_table() {
	printf "$1" >table
	echo "$2" | accepted "table '$1'" table columns
}

# bad_template LINE WHAT TEMPLATE
bad_template() {
	printf "$3" >template
	refused "template '$3'" "template:$1" "$2" one template
}

# good_template TEMPLATE OUTPUT: both are printf formats.
good_template() {
	printf "$1" >template
	printf "$2" | accepted "template '$1'" one template
}

# repeat N TEXT
repeat() {
	awk -v n="$1" -v s="$2" 'BEGIN { while (n-- > 0) printf "%s", s }'
}

# rows N: a table of that many classes.
rows() {
	awk -v n="$1" 'BEGIN {
		for (i = 1; i <= n; i++)
			printf "c%d %d memset 1 1\n", i, i * 4096
	}'
}

printf "$row" >one
echo '@sizes@; @caches@; @counts@; @max_size@; @magazine_slots@' >columns

# --------------------------------------------------------------- the real table

cat >small.in <<'END'
/* @table@ @template@ */
classes @classes@, largest @max_size@, slots @magazine_slots@
sizes @sizes@ caches @caches@ counts @counts@
	@each@
class @index@ of @classes@: @name@ @NAME@ @size@ @wipe@ @cache@ @count@

@end@
@each@
@end@
@each@
@NAME@
  @end@
someone@example.org
END
accepted 'the real table' "$srcdir/gen/classes.def" small.in <<'END'
/* classes.def small.in */
classes 4, largest 1048576, slots 64
sizes 4096, 65536, 262144, 1048576 caches 64, 16, 8, 4 counts 64, 8, 2, 0
class 0 of 4: 4k 4K 4096 auto 64 64

class 1 of 4: 64k 64K 65536 auto 16 8

class 2 of 4: 256k 256K 262144 auto 8 2

class 3 of 4: 1m 1M 1048576 auto 4 0

4K
64K
256K
1M
someone@example.org
END

for t in "$srcdir"/gen/*.in; do
	run "$srcdir/gen/classes.def" "$t"
	[ "$status" = 0 ] || fail "$t: exit $status: $err"
	rm new/out
done

# An output that was there is replaced.
echo old >new/out
good_template 'new\n' 'new\n'

# ------------------------------------------------------------------ good tables

good_table "$row" '4096; 64; 64; 4096; 64'
good_table 'a 4096 stream 0 0' '4096; 0; 0; 4096; 1'
good_table '# x\n\n \t\n\ta\t4K stream 1 1 # y\n# z' '4096; 1; 1; 4096; 1'
good_table 'a 4K memset 2 3# \303\251\n' '4096; 2; 3; 4096; 2'
good_table 'a 4K memset 5 0\nb 8192 memset 3 0\n' \
	'4096, 8192; 5, 3; 0, 0; 8192; 8'
good_table 'a 1M memset 3 1\nb 1G stream 9 2\n' \
	'1048576, 1073741824; 3, 9; 1, 2; 1073741824; 16'
good_table 'a 140737488355328 memset 256 16777214\n' \
	'140737488355328; 256; 16777214; 140737488355328; 256'
good_table 'a 131072G memset 129 1\n' \
	'140737488355328; 129; 1; 140737488355328; 256'
name=$(repeat 32 n)
good_table "$name 4K memset 1 1\n" '4096; 1; 1; 4096; 1'
good_table "$(repeat 256 '#')\n$row" '4096; 64; 64; 4096; 64'

rows 32 >table
echo @classes@ @max_size@ >template
echo 32 131072 | accepted '32 classes' table template

{ repeat 10000 "#
"; cat one; } >table
echo 1 4096 | accepted 'a row after 10000 comments' table template

printf 'Mixed_Case9 4K stream 1 1\n' >table
printf '@each@\n@name@ @NAME@ @wipe@\n@end@\n' >template
echo 'mixed_case9 MIXED_CASE9 stream' | accepted 'case' table template

for w in auto memset stream; do
	printf 'a 4K %s 1 1\n' $w >table
	echo "a A $w" | accepted "wipe $w" table template
done

rows 3 >table
printf '@each@\n@name@@comma@\n@end@\n' >template
printf 'c1,\nc2,\nc3\n' | accepted 'commas' table template

# ------------------------------------------------------------------- bad tables

bad_table 2 sorted '64k 64K memset 1 1\n4k 4K memset 1 1\n'
bad_table 3 sorted 'a 4K memset 1 1\nb 64K memset 1 1\nc 8K memset 1 1\n'
bad_table 2 'size' "${row}again 4096 memset 1 1\n"
bad_table 3 'size' "${row}b 8K memset 1 1\nc 4K memset 1 1\n"
bad_table 2 'name' "${row}4k 8K memset 1 1\n"
bad_table 4 'name' "# c\n\n${row}4K 8K memset 1 1\n"
bad_table 3 'name' 'a_B 4K memset 1 1\nx 8K memset 1 1\nA_b 12K memset 1 1\n'

bad_table 1 zero 'a 0 memset 1 1\n'
bad_table 1 zero 'a 0K memset 1 1\n'
bad_table 1 multiple 'a 1 memset 1 1\n'
bad_table 1 multiple 'a 4097 memset 1 1\n'
bad_table 2 multiple "${row}b 6K memset 1 1\n"

for c in - . / @ + ' \303\251' '\303\251' '\377' "'" '"' '*'; do
	case $c in
	' '*) bad_table 1 columns "a$c 4K memset 1 1\n" ;;
	*) bad_table 1 name "a${c}b 4K memset 1 1\n" ;;
	esac
done
bad_table 1 name "${name}n 4K memset 1 1\n"

# Calls that a class's would be mistaken for: every one that the header has.
calls=$(sed -n 's/^[a-z].*[ *]bufpool_\(checkout\|return\)_\([a-z0-9_]*\)(.*/\2/p' \
	"$srcdir/include/bufpool.h")
[ "$(echo "$calls" | wc -l)" -ge 5 ] || fail "the header has few calls: $calls"
for c in $calls; do
	bad_table 2 reserved "# c\n$c 4K memset 1 1\n"
	bad_table 2 reserved "${row}$(echo "$c" | tr a-z A-Z) 8K memset 1 1\n"
done

bad_table 1 columns 'a\n'
bad_table 1 columns 'a 4K memset 1\n'
bad_table 1 columns 'a 4K memset 1 # 1\n'
bad_table 1 columns 'a 4K memset 1 1 1\n'
bad_table 2 columns "${row}a 8K memset 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"

for n in -4096 +4096 0x1000 4096x 4096. 4,096 4e3 4k 4g 4T 4KB 4KK K K4 x; do
	bad_table 2 "size '$n'" "# comment\na $n memset 1 1\n"
done
# Just above 2^47, and what wraps around 2^64 with and without its unit.
for n in 140737488355329 131073G 134217729M 137438953473K 17179869188G \
	18446744073709551616 18446744073709555712 $(repeat 99 8); do
	bad_table 1 above "a $n memset 1 1\n"
done
for n in -1 -0 +1 0x1 1x 1.0 x 0K 1K 1k 1G; do
	bad_table 1 "cache '$n'" "a 4K memset $n 1\n"
	bad_table 1 "count '$n'" "a 4K memset 1 $n\n"
done
for n in 257 512 16777214 4294967296 18446744073709551616 $(repeat 99 9); do
	bad_table 1 "cache '$n' is above" "a 4K memset $n 1\n"
done
for n in 16777215 4294967296 18446744073709551616 $(repeat 99 9); do
	bad_table 1 "count '$n' is above" "a 4K memset 1 $n\n"
done

for w in Memset MEMSET memse memsets streams Auto aut autos avx2 none 0 m; do
	bad_table 1 "wipe '$w' is none of auto, memset, stream" "a 4K $w 1 1\n"
done

bad_table 1 CRLF 'a 4K memset 1 1\r\n'
bad_table 2 CRLF "${row}# c\r\n"
bad_table 3 CRLF "${row}\n\r"
for c in '\000' '\001' '\010' '\013' '\014' '\033' '\037' '\177'; do
	bad_table 1 control "a 4K mem${c}set 1 1\n"
	bad_table 2 control "${row}# $c"
done

bad_table 2 longer "${row}$(repeat 257 '#')\n"
bad_table 1 longer "$(repeat 257 ' ')\n$row"
bad_table 1 longer "$(repeat 5000 a)"

bad_table 1 'no size class' ''
bad_table 1 'no size class' '\n'
bad_table 1 'no size class' '# c'
bad_table 3 'no size class' '# c\n\n  # c\n'

rows 33 >table
refused '33 classes' table:33 'more than 32' table columns
rows 10000 >table
refused '10000 classes' table:33 'more than 32' table columns
{ repeat 10000 "#
"; rows 1; echo x; } >table
refused 'a bad row after 10000 comments' table:10002 columns table columns

mkdir directory
refused 'a missing table' missing:1 open missing columns
refused 'a directory as table' directory:1 directory directory columns

# ---------------------------------------------------------------- bad templates

bad_template 1 @nonsense@ '@nonsense@\n'
bad_template 1 @_@ '@_@\n'
bad_template 1 @Name@ '@Name@\n'
bad_template 2 @sizes_@ '\nx @sizes@ @sizes_@'
bad_template 1 @b@ 'a@b@c\n'
for t in name NAME index size wipe cache count comma; do
	bad_template 2 "@$t@ outside" "x\nx @$t@ x\n"
	bad_template 4 "@$t@ outside" "@each@\n@$t@\n@end@\n@$t@\n"
done
bad_template 3 '@nonsense@ in' '\n@each@\n@name@ @nonsense@\n@end@\n'
bad_template 2 'without @end@' 'x\n@each@\nx\nx\n'
bad_template 3 'without @end@' '@each@\n@end@\n@each@'
bad_template 3 '@each@ in' '@each@\nx\n@each@\n@end@\n@end@\n'
bad_template 2 'without @each@' 'x\n@end@\n'
bad_template 4 'without @each@' '@each@\n@name@\n@end@\n@end@\n'
bad_template 1 '@each@ is not alone' 'x @each@\nx\n@end@\n'
bad_template 1 '@each@ is not alone' '@each@ x\nx\n@end@\n'
bad_template 1 '@each@ is not alone' '@each@@end@\n'
bad_template 3 '@end@ is not alone' '@each@\nx\n@end@ x\n'
bad_template 2 CRLF 'x\nx\r\n'
bad_template 2 control 'x\nx\000\n'
bad_template 2 longer "x\n$(repeat 257 x)\n"
refused 'a missing template' missing:1 open one missing
refused 'a directory as template' directory:1 directory one directory

# The line is right in a block that is read a second time, too.
rows 2 >table
printf '@each@\nx\n@end@\n\n@name@\n' >template
refused 'after a block' template:5 @name@ table template

# --------------------------------------------------------------- good templates

good_template '' ''
good_template 'x' 'x\n'
for t in @ @@ @@@ 'a@b.c @ x@y' @na-me@ '@na me@' '@classes\nclasses@'; do
	good_template "$t\n" "$t\n"
done
good_template '@@classes@@\n@x-@classes@@classes@ @' '@1@\n@x-11 @\n'
good_template '@each@\n@end@\n' ''
good_template '@each@\n@name@\n@end@' '4k\n'
good_template ' \t@each@\n@name@ @classes@\n\t @end@\n%%s %%d %%n\n' \
	'4k 1\n%%s %%d %%n\n'
good_template "$(repeat 256 x)" "$(repeat 256 x)\n"

# ------------------------------------------- names that are awkward in what is made

# In a copy, as what is generated may lie among the sources.
mkdir made made/bufpool
cp "$srcdir"/src/*.[ch] "$srcdir/include/bufpool.h" made
cp "$srcdir/include/bufpool/hwloc.h" "$builddir/include/bufpool/version.h" \
	made/bufpool

# make_of NAME...: the code for classes of these names, in made.
make_of() {
	size=0
	for name; do
		size=$((size + 4096))
		echo "$name $size auto 1 1"
	done >table
	for t in bufpool/classes.h bufpool/inline.h class-table.h checkout.c; do
		"$gen" table "$srcdir/gen/${t##*/}.in" "made/$t"
	done
}

# compiled FLAGS: the library's part of it.
compiled() {
	# shellcheck disable=SC2086
	$CC -std=gnu11 -D_GNU_SOURCE ${HWLOC_CFLAGS:-} -Imade $1 made/checkout.c
}

# Words of C, and macros; and whatever an identifier ends in that has a name in it,
# so that two classes would share one, were it only once behind more words.
make_of q7q
compiled -E >expanded
tails=$(grep -Eo '[A-Za-z_][A-Za-z0-9_]*' expanded | tr A-Z a-z | grep q7q |
	awk '{ while (sub(/^[^_]*_/, "") && /q7q/) print }' | sort -u)
[ "$(echo "$tails" | wc -l)" -ge 4 ] || fail "few identifiers: $tails"
make_of $tails 1 class errno int linux template true
compiled '-Wall -Wextra -Werror -fsyntax-only' 2>log ||
	fail "names that should do: $(cat log)"

# ------------------------------------------------ output that cannot be written

# A limit on the size of files is as good as a full disk.  The first template is
# so short that only closing the file writes it, the second is many buffers.
echo x >short
repeat 4000 "a line of the long template
" >long
out=old/out
limit=0
for t in short long; do
	refused_once "a full disk, $t" $out:1 write one $t
	leaves_old "a full disk, $t"
done
limit=8
refused_once 'a disk that fills up' $out:1 write one long
leaves_old 'a disk that fills up'
limit=
out=new/out

if [ "$(id -u)" != 0 ]; then
	chmod a-w new
	refused_once 'a directory without write permission' $out:1 write one short
	chmod u+w new
	holds 'a directory without write permission' new
	chmod a-r table
	refused 'a table without read permission' table:1 open table short
	chmod u+r table
fi

mkdir new/out
refused_once 'a directory as output' $out:1 regular one short
holds 'a directory as output' new out
rmdir new/out

mkfifo new/out
refused_once 'a fifo as output' $out:1 regular one short
holds 'a fifo as output' new out
[ -p new/out ] || fail 'a fifo as output: it is gone'
rm new/out

out=nowhere/out
refused_once 'no directory for the output' $out:1 write one short
out=new/out

# ------------------------------------------------------------------------ usage

for args in '' 'one' 'one short' 'one short new/out more'; do
	status=0
	"$gen" $args 2>err || status=$?
	[ "$status" = 2 ] || fail "arguments '$args': exit $status, not 2"
	grep -q ^usage: err || fail "arguments '$args': no usage line"
	holds "arguments '$args'" new
done

# ------------------------------------------------------------------ random junk

# mutate FILE N PREFIX: N damaged copies of a file.  The random numbers are our
# own, so that they are the same with every awk.
mutate() {
	awk -v count="$2" -v prefix="$3" '
	function random(n) {
		seed = seed * 16807 % 2147483647
		return seed % n
	}
	function junk(  s, n) {
		s = ""
		for (n = 1 + random(8); n > 0; n--)
			s = s (random(4) ? substr(chars, 1 + random(length(chars)), 1) \
				: sprintf("%c", 1 + random(255)))
		return s
	}
	function cut(s,  at, n, how) {
		at = 1 + random(length(s) + 1)
		n = random(2) ? random(6) : random(200)
		how = random(4)
		return substr(s, 1, at - 1) \
			(how == 0 ? "" : how == 1 ? junk() : \
			how == 2 ? substr(s, at, n) substr(s, at, n) : \
			substr(s, 1 + random(length(s) + 1), n)) \
			substr(s, at + n)
	}
	BEGIN {
		seed = 20240229
		chars = "0123456789KMGkxX+-#@@@_ \t\n\nabceinsz"
	}
	{ text = text $0 "\n" }
	END {
		for (i = 0; i < count; i++) {
			s = text
			if (i % 10 == 0)
				s = ""
			for (n = 1 + random(i % 10 ? 4 : 40); n > 0; n--)
				s = i % 10 ? cut(s) : s junk()
			printf "%s", s >(prefix i)
			close(prefix i)
		}
	}' "$1"
}

# survives TABLE TEMPLATE BAD: well or one line on stderr, about file BAD.
survives() {
	run "$1" "$2"
	case $status:$err in
	0:)
		good=$((good + 1))
		holds "$1 $2" new out
		rm new/out
		;;
	1:"$3":[1-9]*': '*)
		bad=$((bad + 1))
		holds "$1 $2" new
		;;
	*)
		fail "junk: exit $status: $err: $(od -c "$3")"
		;;
	esac
}

good=0
bad=0
grep -v '^#' "$srcdir/gen/classes.def" >plain
mutate plain 200 table.
mutate small.in 200 template.
i=0
while [ $i -lt 200 ]; do
	survives table.$i small.in table.$i
	survives plain template.$i template.$i
	i=$((i + 1))
done

# Both ways out must have been taken, or the junk is no test.
[ $good -ge 20 ] && [ $bad -ge 100 ] ||
	fail "junk: $good accepted and $bad refused: not random enough"
