#!/bin/sh
# SPDX-License-Identifier: MIT
# sanitizers.sh - programs built with a sanitizer, beside a library that is not:
# no report of what is right, and a report of what is wrong.
set -eu

CC=${CC:-cc}
src=${abs_srcdir:-$PWD}
build=${abs_builddir:-$PWD}
so=${BUFPOOL_SO:-$build/.libs/libbufpool.so}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
	echo "sanitizers.sh: $*"
	cat "$tmp/log"
	exit 1
}

skip() {
	echo "sanitizers.sh: skipped: $*"
	exit 77
}

case ${CFLAGS:-} in *-fsanitize*) skip 'the library has one itself' ;; esac
[ -e "$so" ] || skip 'no shared library'

cat >"$tmp/race.c" <<'END'
/* Two threads take, write and return; none is pooled if HEAP is set.  With the word
   "late", one writes into the only buffer after it has returned it, and the other
   then takes it. */
#include <bufpool.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static bufpool_t *pool;
static int is_late;

static void *work(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, 4096);
		char *p = buf->data;

		p[0] = (char) i;
		p[100] = *(char *) arg;
		bufpool_return(buf);
	}
	return NULL;
}

static void *write_late(void *arg)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, 4096);
	char *p = buf->data;

	(void) arg;
	bufpool_return(buf);
	p[0] = 1;
	/* In this order, of which ThreadSanitizer is not told. */
	__atomic_store_n(&is_late, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void *take_after(void *arg)
{
	bufpool_buf_t *buf;

	(void) arg;
	while (!__atomic_load_n(&is_late, __ATOMIC_RELAXED))
		;
	buf = bufpool_checkout(pool, 4096);
	*(char *) buf->data = 2;
	bufpool_return(buf);
	return NULL;
}

/* Readers of one frozen buffer, and whoever lets go last has it erased. */
static void *hold(void *arg)
{
	const char *p = bufpool_frozen_data(arg);
	char seen = p[0];

	bufpool_frozen_unref(arg);
	return (void *) (long) seen;
}

int main(int argc, char **argv)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	pthread_t t[2];
	char id[2] = { 1, 2 };

	config.count[BUFPOOL_CLASS_4K] = getenv("HEAP") ? 0 : argc > 3 ? 1 : 2;
	config.cache[BUFPOOL_CLASS_4K] = (size_t) atoi(argv[1]);
	config.wipe = (enum bufpool_wipe) atoi(argv[2]);
	pool = bufpool_create(&config);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL,
		               argc == 3 ? work : i ? take_after : write_late,
		               &id[i]);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (int n = 0; n < 200; n++) {
		bufpool_buf_t *buf = bufpool_checkout(pool, 4096);
		bufpool_frozen_t *f;

		memset(buf->data, 7, 4096);
		f = bufpool_freeze(buf);
		bufpool_frozen_ref(f);
		for (int i = 0; i < 2; i++)
			pthread_create(&t[i], NULL, hold, f);
		for (int i = 0; i < 2; i++)
			pthread_join(t[i], NULL);
	}
	bufpool_destroy(pool);
	return 0;
}
END
cat >"$tmp/leak.c" <<'END'
/* An object in a buffer owns a string; both are in use at the end.  With two
   words, nobody owns it. */
#include <bufpool.h>
#include <stdlib.h>
#include <string.h>

bufpool_t *pool;
bufpool_buf_t *held;

static __attribute__((noinline)) void start(size_t size, int lose)
{
	char **object;

	held = bufpool_checkout(pool, size);
	object = held->data;
	*object = malloc(100);
	memset(*object, 'x', 100);
	if (lose)
		*object = NULL;
}

static __attribute__((noinline)) void smash(void)
{
	volatile char a[16384];

	memset((char *) a, 0, sizeof(a));
}

int main(int argc, char **argv)
{
	pool = bufpool_create(NULL);
	start((size_t) atol(argv[1]), argc > 2);
	smash();
	return 0;
}
END

# compile SANITIZER PROGRAM: false if there is no such sanitizer here.
compile() {
	# shellcheck disable=SC2086
	$CC -O1 -g -fsanitize="$1" -I"$src/include" -I"$build/include" \
		"$tmp/$2.c" -o "$tmp/$2" "$so" -Wl,-rpath,"$(dirname "$so")" \
		-pthread >"$tmp/log" 2>&1
}

# quiet PROGRAM WORDS...: nothing is found.
quiet() {
	"$@" >"$tmp/log" 2>&1 || fail "$*: status $?"
	! grep -E 'WARNING|ERROR|SUMMARY' "$tmp/log" || fail "$*"
}

# loud WHAT PROGRAM WORDS...: that is found.
loud() {
	what=$1
	shift
	! "$@" >"$tmp/log" 2>&1 || fail "$*: found nothing"
	grep -q "$what" "$tmp/log" || fail "$*: did not find: $what"
}

done=0
if compile thread race && "$tmp/race" 4 0 >"$tmp/log" 2>&1 ||
	grep -q 'data race' "$tmp/log"; then
	for cache in 4 0; do
		for wipe in 0 1 2; do
			quiet "$tmp/race" $cache $wipe
		done
	done
	quiet env HEAP=1 "$tmp/race" 0 2
	loud 'data race' "$tmp/race" 1 2 late
	done=1
fi
if compile address leak; then
	export ASAN_OPTIONS=detect_leaks=1
	if "$tmp/leak" 100 >"$tmp/log" 2>&1 ||
		! grep -q 'LeakSanitizer has encountered' "$tmp/log"; then
		for size in 100 65536 2000000; do
			quiet "$tmp/leak" $size
		done
		loud 'detected memory leaks' "$tmp/leak" 100 lose
		done=1
	fi
fi
[ $done -eq 1 ] || skip 'no sanitizer that works'
