/* SPDX-License-Identifier: MIT */
/*
 * buf.h - the descriptor of a buffer: what is in it, and how it is checked
 *
 * Its layout is in bufpool/inline.h, as programs may have it compiled in.
 * What several files share is called bp_*, so that the static library takes no
 * names from the programs that link it.
 */
#ifndef BUF_H
#define BUF_H

#include "track.h"

#define BP_TRACK_IDLE(d) TRACK_IDLE((d)->base, (d)->pub.capacity)
#define BP_TRACK_OUT(d) TRACK_OUT((d)->base, (d)->pub.capacity)

/* The public names are the only ones that the shared library shows. */
#undef BUFPOOL_INLINE
#pragma GCC visibility push(default)
#include <bufpool.h>
#include <bufpool/inline.h>
#pragma GCC visibility pop

#ifdef TRACKED
/* Programs do not tell memory checkers what they do, so their fast paths are not
   to get through: the library does not show them what it goes by. */
#pragma push_macro("bp_thread_fast")
#undef bp_thread_fast
#define bp_thread_fast bp_thread_tracked
extern __thread struct bp_fast *bp_thread_fast;
#endif

#include <ck_cc.h>
#include <ck_md.h>
#include <ck_pr.h>
#include <stdbool.h>

#include "class-table.h"
#include "map.h"

_Static_assert(sizeof(struct bp_buf) == BP_LINE,
               "a descriptor is one cache line");
_Static_assert(BP_LINE == CK_MD_CACHELINE, "and CK's lines are as long");
_Static_assert(sizeof(size_t) == 8, "sizes are reckoned in 64 bits");
_Static_assert(BUFPOOL_CLASSES <= BP_FROM_HEAP, "a class is no heap");

/* The class that serves size, or BUFPOOL_CLASSES. */
static inline unsigned bp_class_of(size_t size)
{
	unsigned k = 0;

	while (k < BUFPOOL_CLASSES && class_size[k] < size)
		k++;
	return k;
}

/* In a seal, how the pool erases; from the heap it is 0. */
static inline uint64_t mode_of(enum bufpool_wipe wipe)
{
	uint64_t what = wipe == BUFPOOL_WIPE_NONE   ? 0
	                : wipe == BUFPOOL_WIPE_USED ? BP_ERASE_USED
	                                            : BP_ERASE;

	return what << BP_WHAT_SHIFT;
}

#define MODE_MASK ((uint64_t) (BP_ERASE | BP_ERASE_USED) << BP_WHAT_SHIFT)

/* What bp_sum() is of a buffer that is out, in class 0, with nothing to erase. */
static inline uint64_t key_of(const bufpool_t *pool, unsigned place)
{
	return (uint64_t) (uintptr_t) pool +
	       ((uint64_t) place << BP_PLACE_SHIFT);
}

/* The seal of a buffer without its mode. */
static inline uint64_t bare_seal(const struct bp_buf *d)
{
	return key_of(d->pool, d->place) +
	       ((uint64_t) BP_CLASS(d->klass) << BP_WHAT_SHIFT) +
	       (uint64_t) (uintptr_t) d + (uint64_t) (uintptr_t) d->base;
}

/* Describe a buffer at base; pool is set. */
static inline void buf_init(struct bp_buf *d, unsigned k, unsigned place,
                            void *base, enum bufpool_wipe wipe)
{
	d->pub.data = d->base = base;
	d->pub.capacity = class_size[k];
	d->klass = k & 0xff;
	d->place = place & 0xff;
	d->frozen = 0;
	d->seal = bare_seal(d) + mode_of(wipe);
}

/* The same of one from the heap, whose capacity is in the seal: no fast path takes
   it for one of a class. */
static inline void buf_init_heap(struct bp_buf *d, unsigned stock, void *base,
                                 size_t capacity)
{
	d->pub.data = d->base = base;
	d->pub.capacity = capacity;
	d->klass = BP_FROM_HEAP;
	d->place = stock & 0xff;
	d->frozen = 0;
	d->seal = bare_seal(d) + capacity;
}

/* What a buffer has to have, whatever its owner says. */
static inline size_t buf_capacity(const struct bp_buf *d)
{
	return d->klass < BUFPOOL_CLASSES ? class_size[d->klass]
	                                  : d->seal - bare_seal(d);
}

/* Whether a descriptor of ours lies here, and not a copy of one.  (That of one
   from the heap has another capacity.) */
static inline bool buf_is_sealed(const struct bp_buf *d)
{
	return d->klass == BP_FROM_HEAP ||
	       (d->klass < BUFPOOL_CLASSES &&
	        ((d->seal - bare_seal(d)) & ~MODE_MASK) == 0);
}

/* How much to erase of a buffer that comes in, if only what was used. */
static inline size_t buf_used(struct bp_buf *d)
{
	size_t used = d->pub.len > d->frozen ? d->pub.len : d->frozen;

	d->frozen = 0;
	return used;
}

/* The state of a handle that may be none of ours; BP_NEVER if it cannot be. */
#define BP_NEVER 1u
static inline uint32_t handle_state(const void *handle)
{
	const struct bp_buf *d = handle;

	/* Only what is aligned like a descriptor is looked at; in a way that no
	   sanitizer takes offence at. */
	return (uintptr_t) d % sizeof(*d) == 0 ? ck_pr_load_32(&d->state)
	                                       : BP_NEVER;
}

#endif
