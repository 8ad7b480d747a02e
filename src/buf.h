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
_Static_assert(BUFPOOL_CLASSES < BP_FROM_HEAP, "a class is no heap");

/* The class that serves size, or BUFPOOL_CLASSES. */
static inline unsigned bp_class_of(size_t size)
{
	unsigned k = 0;

	while (k < BUFPOOL_CLASSES && class_size[k] < size)
		k++;
	return k;
}

/* In bp_sum(), how its pool erases. */
static inline uint64_t mode_of(enum bufpool_wipe wipe)
{
	return wipe == BUFPOOL_WIPE_NONE   ? 0
	       : wipe == BUFPOOL_WIPE_USED ? BP_ERASE_USED
	                                   : BP_ERASE;
}

/* What bp_sum() is of a buffer that is out, in class 0, with nothing to erase. */
static inline uint64_t key_of(const bufpool_t *pool, unsigned place)
{
	return BP_OUT + (uint64_t) (uintptr_t) pool + ((uint64_t) place << 56);
}

/* The seal of a buffer without its capacity, which bp_sum() adds, and its mode. */
static inline uint64_t bare_seal(const struct bp_buf *d)
{
	return key_of(d->pool, d->place) - BP_OUT + d->klass +
	       (uint64_t) (uintptr_t) d + (uint64_t) (uintptr_t) d->base;
}

/* Describe capacity bytes at base; pool is set.  From the heap, mode is 0. */
static inline void buf_init(struct bp_buf *d, unsigned klass, unsigned place,
                            void *base, size_t capacity, uint64_t mode)
{
	d->pub.data = d->base = base;
	d->pub.capacity = capacity;
	d->klass = klass & 0xff;
	d->place = place & 0xff;
	d->frozen = 0;
	d->seal = bare_seal(d) + mode - capacity;
}

/* What a buffer has to have, whatever its owner says. */
static inline size_t buf_capacity(const struct bp_buf *d)
{
	return d->klass < BUFPOOL_CLASSES ? class_size[d->klass]
	                                  : bare_seal(d) - d->seal;
}

/* How much to erase of a buffer that comes in, if only what was used. */
static inline size_t buf_used(struct bp_buf *d)
{
	size_t used = d->pub.len > d->frozen ? d->pub.len : d->frozen;

	d->frozen = 0;
	return used;
}

/* The state of a handle that may be none of ours; 0 if it cannot be. */
uint32_t bp_handle_state(const void *handle);

/* The handle is of that state, and data, len and capacity are as they must be;
   or else that is misuse of the call. */
void bp_check_handle(const char *call, const struct bp_buf *d, uint32_t state);

/* Stop: the handle is not of the state that the call wants. */
_Noreturn void bp_misuse_handle(const char *call, const void *handle);

#endif
