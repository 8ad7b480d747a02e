#!/bin/sh
# SPDX-License-Identifier: MIT
# classes.sh - ./configure --with-classes=FILE: a library with three classes,
# 8 KiB to 8 MiB, works, and is not mistaken for the one with the usual classes
set -eu

src=${abs_srcdir:-$PWD}
MAKE=${MAKE:-make} CC=${CC:-cc}
tmp=$(mktemp -d)
trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT

fail() {
	echo "classes.sh: $*"
	exit 1
}

# A source folder that is configured itself cannot be built from elsewhere: so
# from a copy of what a tarball has, which generated headers are not part of.
mkdir "$tmp/src" "$tmp/build"
(
	cd "$src"
	tar -cf - configure configure.ac aclocal.m4 config.h.in Makefile.am Makefile.in \
		build-aux m4 bufpool.pc.in gen include src tests examples
) | tar -C "$tmp/src" -xf -
chmod -R u+w "$tmp/src"
(
	cd "$tmp/src"
	rm -f include/bufpool/classes.h include/bufpool/inline.h \
		include/bufpool/version.h \
		src/class-table.h src/checkout.c gen/bufpool-gen
	find . -name '*.o' -o -name '*.lo' -o -name '*.la' -o -name .dirstamp \
		-o -name '*.trs' | xargs rm -f
	# What is generated is up to date, whatever the copy's times say.
	touch aclocal.m4 && touch configure config.h.in Makefile.in
)

cat >"$tmp/three.def" <<'END'
# name size wipe cache count
small   8K memset 32 16   # the smallest
512K  512K auto    4  4
Huge    8M stream  2  2
END

cd "$tmp/build"
"$tmp/src/configure" -q --disable-static --disable-dependency-tracking \
	--with-classes="$tmp/three.def" \
	CC="$CC" CFLAGS="${CFLAGS:-} -O1 -g0" LDFLAGS="${LDFLAGS:-}" >log 2>&1 ||
	fail "$(cat log)"
$MAKE libbufpool.la >log 2>&1 || fail "$(cat log)"

soname=$(objdump -p .libs/libbufpool*.so | sed -n 's/ *SONAME *//p')
case $soname in
libbufpool-*.so.*) ;;
*) fail "its soname is $soname" ;;
esac

cat >user.c <<'END'
#include <bufpool.h>
#include <assert.h>
#include <errno.h>
#include <string.h>

static void check(bufpool_t *pool, size_t size, size_t capacity)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, size);

	assert(buf && buf->len == size && buf->capacity == capacity);
	for (size_t i = 0; i < buf->capacity; i++)
		assert(((char *) buf->data)[i] == 0);
	memset(buf->data, 0xaa, buf->capacity);
	bufpool_return(buf);
}

int main(void)
{
	static const size_t table[][2] = {
		{0, 8192}, {8192, 8192}, {8193, 512 << 10},
		{512 << 10, 512 << 10}, {(512 << 10) + 1, 8 << 20},
		{8 << 20, 8 << 20}, {(8 << 20) + 1, (8 << 20) + 1},
	};
	bufpool_t *pool = bufpool_create(NULL);
	bufpool_buf_t *bufs[3];
	bufpool_stats_t stats;

	_Static_assert(BUFPOOL_CLASSES == 3, "three classes");
	_Static_assert(BUFPOOL_MAX_CLASS_SIZE == 8 << 20, "up to 8 MiB");
	_Static_assert(BUFPOOL_CLASS_HUGE == 2, "names are in upper case");
	for (int round = 0; round < 3; round++)
		for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
			check(pool, table[i][0], table[i][1]);
	bufs[0] = bufpool_checkout_small(pool);
	bufs[1] = bufpool_checkout_512k(pool);
	bufs[2] = bufpool_checkout_huge(pool);
	assert(bufs[0]->len == 8192 && bufs[1]->len == 512 << 10 &&
	       bufs[2]->len == 8 << 20);
	bufpool_stats(pool, &stats);
	assert(stats.oversize == 3 && stats.misses == 3 &&
	       stats.checked_out == 3 && stats.per_class[0].total == 16 &&
	       stats.per_class[1].total == 4 && stats.per_class[2].total == 2);
	bufpool_return_bulk(bufs, 3);
	bufpool_destroy(pool);
	return 0;
}
END
# shellcheck disable=SC2086
$CC ${CFLAGS:-} -UNDEBUG -I"$tmp/src/include" -Iinclude user.c -o user \
	-L.libs -lbufpool -Wl,-rpath,"$PWD/.libs"
./user || fail "its program exits with $?"

# A bad table ends the build with its file and line, and leaves nothing.
rm -f include/bufpool/classes.h
echo 'twice 8K memset 1 1' >>"$tmp/three.def"
if $MAKE libbufpool.la >log 2>&1; then
	fail 'a table that is not sorted is taken'
fi
grep -q "^$tmp/three.def:5: " log || fail "$(cat log)"
[ ! -e include/bufpool/classes.h ] || fail 'a header was left'
