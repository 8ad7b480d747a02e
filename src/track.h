/* SPDX-License-Identifier: MIT */
/*
 * track.h - tell memory checkers which payloads are idle.
 *
 * A pool hides use-after-return from AddressSanitizer and Valgrind: to them
 * the memory is allocated all the time.  These macros say otherwise, and are
 * empty in ordinary builds.  Valgrind's requests cost a few instructions even
 * outside Valgrind, so they are in only with ./configure --enable-valgrind.
 */
#ifndef TRACK_H
#define TRACK_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(BUFPOOL_VALGRIND)
#define TRACKED 1
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define TRACK_IDLE(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define TRACK_OUT(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#elif defined(BUFPOOL_VALGRIND)
#include <valgrind/memcheck.h>
#define TRACK_IDLE(p, n) VALGRIND_MAKE_MEM_NOACCESS((p), (n))
#define TRACK_OUT(p, n) VALGRIND_MAKE_MEM_DEFINED((p), (n))
#else
#define TRACK_IDLE(p, n) ((void) (p), (void) (n))
#define TRACK_OUT(p, n) ((void) (p), (void) (n))
#endif

/*
 * LeakSanitizer looks for pointers in what malloc gave, not in mappings.  The
 * pool, from which heap buffers are reached, is one: say so, if the program has
 * a LeakSanitizer, however this library was built.
 */
void __lsan_register_root_region(const void *p, size_t n) __attribute__((weak));
void __lsan_unregister_root_region(const void *p, size_t n)
	__attribute__((weak));

static inline void track_root(const void *p, size_t n)
{
	if (__lsan_register_root_region != NULL)
		__lsan_register_root_region(p, n);
}

static inline void track_unroot(const void *p, size_t n)
{
	if (__lsan_unregister_root_region != NULL)
		__lsan_unregister_root_region(p, n);
}

/*
 * ThreadSanitizer does not see how a buffer that one thread returned comes to
 * another, nor how holders of a frozen one let go before it is erased, unless the
 * library is built with it: say so, if the program has one.  Pools have no fast
 * paths then.  p is the descriptor.
 */
void __tsan_acquire(void *p) __attribute__((weak));
void __tsan_release(void *p) __attribute__((weak));

static inline bool track_threads(void)
{
	return __tsan_acquire != NULL; /* one comes with the other */
}

static inline void track_acquire(void *p)
{
	if (track_threads())
		__tsan_acquire(p);
}

static inline void track_release(void *p)
{
	if (track_threads())
		__tsan_release(p);
}

#endif
