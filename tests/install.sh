#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh - what make install installs is enough: programs in C and C++,
# shared and static, an example, and a configure script, know of it by pkg-config
# only
set -eu

src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
MAKE=${MAKE:-make} CC=${CC:-cc} CXX=${CXX-c++} PKG_CONFIG=${PKG_CONFIG:-pkg-config}
NM=${NM:-nm}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "install.sh: $*"
	exit 1
}

$MAKE -C "$build" install DESTDIR="$tmp/root" >"$tmp/log" 2>&1 ||
	fail "$(cat "$tmp/log")"
# hwloc is not below DESTDIR, as we are.
hwloc_cflags=$($PKG_CONFIG --cflags hwloc)
hwloc_libs=$($PKG_CONFIG --libs hwloc)
pc=$(find "$tmp/root" -name bufpool.pc)
[ -n "$pc" ] || fail 'no bufpool.pc'
PKG_CONFIG_PATH=$(dirname "$pc")
PKG_CONFIG_SYSROOT_DIR=$tmp/root
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
lib=$(dirname "$PKG_CONFIG_PATH")
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH

cat >"$tmp/user.c" <<'END'
#include <bufpool.h>
#include <string.h>

int main(void)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	bufpool_t *pool;
	bufpool_buf_t *buf;
	int bad;

	cfg.count[0] = 4;
	pool = bufpool_create(&cfg);
	if (pool == NULL)
		return 1;
	buf = bufpool_checkout(pool, 100);
	bad = buf == NULL || buf->capacity < 100 ||
	      strcmp(bufpool_version(), BUFPOOL_VERSION) != 0;
	bufpool_return(buf);
	bufpool_destroy(pool);
	return bad;
}
END
# The same program is C++ as well, and no header is C only; the one for hwloc's
# users wants hwloc's flags.
cp "$tmp/user.c" "$tmp/user.cc"
cat >"$tmp/hwloc.cc" <<'END'
#include <bufpool/hwloc.h>

int main()
{
	hwloc_topology_t topology;
	bufpool_t *pool;
	bool bad;

	if (hwloc_topology_init(&topology) != 0 ||
	    hwloc_topology_load(topology) != 0)
		return 1;
	pool = bufpool_create_hwloc(nullptr, topology, nullptr);
	bad = pool == nullptr ||
	      bufpool_hwloc_best_node(
		      topology, hwloc_topology_get_topology_cpuset(topology),
		      HWLOC_MEMATTR_ID_CAPACITY) < 0;
	bufpool_destroy(pool);
	hwloc_topology_destroy(topology);
	return bad;
}
END

flags="-Wall -Wextra -Werror ${CFLAGS:-}"
cxxflags="-Wall -Wextra -Wpedantic -Werror ${CXXFLAGS:-}"
cflags=$($PKG_CONFIG --cflags bufpool)
# shellcheck disable=SC2086
{
	$CC $flags $cflags "$tmp/user.c" -o "$tmp/shared" \
		$($PKG_CONFIG --libs bufpool)
	$CC $flags $cflags "$tmp/user.c" -o "$tmp/static" \
		$($PKG_CONFIG --libs --static bufpool |
			sed 's/-lbufpool/-l:libbufpool.a/')
	$CC $flags $cflags "$src/examples/fanout.c" "$src/examples/common.c" \
		-pthread -o "$tmp/example" $($PKG_CONFIG --libs bufpool)
}
programs='shared static'
if [ -n "$CXX" ]; then
	# shellcheck disable=SC2086
	{
		$CXX $cxxflags $cflags "$tmp/user.cc" -o "$tmp/cxx" \
			$($PKG_CONFIG --libs bufpool)
		$CXX $cxxflags $cflags $hwloc_cflags "$tmp/hwloc.cc" \
			-o "$tmp/hwloc" $($PKG_CONFIG --libs bufpool) $hwloc_libs
	}
	programs="$programs cxx hwloc"
else
	echo 'install.sh: no C++ compiler: C++ is left out'
fi
for program in $programs; do
	"$tmp/$program" || fail "the $program program exits with $?"
done
"$tmp/example" --version >/dev/null || fail "the example exits with $?"
ldd "$tmp/shared" | grep -q libbufpool || fail 'not linked with the library'
! ldd "$tmp/static" | grep -q libbufpool || fail 'not linked statically'

[ -e "$(dirname "$(find "$tmp/root" -name bufpool.h)")/bufpool.hpp" ] ||
	fail 'no bufpool.hpp beside bufpool.h'

# Nothing of ck reaches users: its Cflags are for x86-64 only.
case $cflags in *-D__*) fail "Cflags: $cflags" ;; esac
! grep -E '^Requires' "$pc" | grep -w ck || fail 'bufpool.pc requires ck'
# Names: only ours, and every one that the header promises.
$NM -D --defined-only "$lib"/libbufpool*.so | sed -n 's/@.*//; s/.* [TDBR] //p' |
	LC_ALL=C sort >"$tmp/all"
grep -Ev '_[0-9a-f]{16}$' "$tmp/all" >"$tmp/exported"
[ $(($(wc -l <"$tmp/all") - $(wc -l <"$tmp/exported"))) -eq 2 ] ||
	fail 'inlined calls use more, or less, than they should'
! grep -v '^bufpool_' "$tmp/exported" || fail 'exports names of others'
# The static library cannot hide names; it has a prefix for them.
! $NM -g --defined-only "$lib"/libbufpool.a 2>/dev/null |
	sed -n 's/^[0-9a-f]* [A-Z] //p' | grep -Ev '^(bufpool|bp|__odr_asan\.bp)_' ||
	fail 'the static library has names of others'
# What inlined calls use has names of its own for each inside.
find "$tmp/root" -name '*.h' ! -name inline.h -exec cat {} + | tr '\n' ' ' | sed 's,/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/,,g' |
	grep -Eo '\bbufpool_[a-z0-9_]+\([a-z ]*(void|bufpool|hwloc|struct|FILE|const|size_t|int)' |
	sed 's/(.*//' | LC_ALL=C sort -u >"$tmp/promised"
[ "$(wc -l <"$tmp/promised")" -ge 25 ] || fail "header: $(cat "$tmp/promised")"
diff "$tmp/promised" "$tmp/exported" || fail 'the header and the library differ'

# A configure script.
if command -v autoconf >/dev/null && command -v aclocal >/dev/null; then
	m4=$(dirname "$(find "$tmp/root" -name bufpool.m4)")
	# configure_user MINIMUM: a script that wants that version.
	configure_user() {
		mkdir "$tmp/user-$1"
		cd "$tmp/user-$1"
		cat >configure.ac <<-END
			AC_INIT([user], [1])
			AC_PROG_CC
			BUFPOOL_CHECK([$1],
			  [AC_MSG_NOTICE([flags: \$BUFPOOL_CFLAGS \$BUFPOOL_LIBS])],
			  [AC_MSG_NOTICE([no such version])])
			AC_OUTPUT
		END
		aclocal -I "$m4"
		autoconf
		./configure CC="$CC" >log 2>&1 || fail "$(cat log)"
	}
	configure_user 0.1
	grep -q 'flags:.*-lbufpool' log || fail "$(cat log)"
	configure_user 99
	grep -q 'no such version' log || fail "$(cat log)"
	cd "$build"
fi

$MAKE -C "$build" uninstall DESTDIR="$tmp/root" >"$tmp/log" 2>&1 ||
	fail "$(cat "$tmp/log")"
left=$(find "$tmp/root" ! -type d)
[ -z "$left" ] || fail "make uninstall leaves $left"
