/* SPDX-License-Identifier: MIT */
/*
 * bufpool.h - recycle I/O buffers instead of allocating them
 *
 * A pool hands out buffers of a few fixed sizes, the size classes, from memory
 * that it takes once, when it is created:
 *
 *     bufpool_t *pool = bufpool_create(NULL);
 *     bufpool_buf_t *buf = bufpool_checkout(pool, 3000);
 *     ssize_t n = read(fd, buf->data, buf->capacity);
 *
 *     buf->len = n > 0 ? (size_t) n : 0;
 *     ...
 *     bufpool_return(buf);
 *     bufpool_destroy(pool);
 *
 * Ownership. A bufpool_buf_t has exactly one owner, who got it from a checkout
 * and gives it up with bufpool_return().  Ownership may pass between threads
 * by any means that orders memory (a queue, a mutex, a pipe).
 *
 * Thread-safety. Every function may be called by any thread at any time, with
 * these exceptions: one buffer has one owner at a time; and when
 * bufpool_destroy() is called, and from then on, no thread may be in or enter
 * another call that names the pool.  Calls that name a buffer
 * (bufpool_return()) remain welcome during and after the destroy.  No call but
 * bufpool_checkout_wait() and bufpool_create() waits for another thread, whatever
 * instruction that thread is stopped at (fallbacks to the heap are as good as the
 * malloc behind them); creates and forks wait for one another.  None is
 * async-signal-safe.  None is a cancellation point, nor is what your region_attach
 * and region_detach call; asynchronous cancellation in one is not safe.
 *
 * Exhaustion. A checkout goes to the heap, or fails, only when no buffer of its
 * class is idle anywhere in the pool: not in the caches of other threads, sleeping
 * or not, nor on another node.  (A return counts when it has come back.)  One
 * exception: where a thread is stopped for good in the middle of moving several
 * buffers, just as the class runs out, these are hidden until it goes on; before a
 * checkout fails for that it looks again, for less than a millisecond.
 *
 * Sandboxes. A seccomp filter that refuses membarrier(2) has to be there when a pool
 * is created, which then does without.  To a thread that is refused it later, what
 * other threads cache is out of reach until they next return a buffer to the pool,
 * flush or exit: its checkouts may fail with EPERM, or go to the heap, while there are
 * idle ones; and a pool that it destroys goes no sooner.
 *
 * Fork. In the child the pools work on, with statistics that start anew.
 * Buffers that other threads of the parent had out count as out in the child,
 * for ever; those in their caches come back.  What region_attach registered is
 * the parent's: the child has no cookies and detaches nothing.  Nothing changes
 * in the parent.  The program's own fork handlers (pthread_atfork()) may use,
 * create and destroy pools, whether they were registered before the library was
 * loaded (then in the child from Linux 4.14 on) or after; but none may wait for a
 * thread that creates a pool, nor, in the child, for one that uses one.
 *
 * Errors. A function that returns a pointer returns NULL and sets errno; one
 * that returns int returns 0, or -1 and sets errno; one that returns a size_t or
 * a struct returns zero, in all members, and sets errno (a bulk checkout returns
 * what it got).  errno is left alone on success, and by every function that
 * returns void.  Unless said otherwise, and of several errors the one that comes
 * first here:
 *
 *     EOVERFLOW  a size above PTRDIFF_MAX
 *     EINVAL     a bad argument; a NULL pool where one is needed
 *     ENOBUFS    no buffer, and the heap is not allowed or its limit reached
 *     ENOMEM     no memory
 *     EPERM      a checkout, or arming an event: see Sandboxes
 *     ECANCELED  a checkout, or arming an event, after bufpool_shutdown()
 *
 * Misuse that has no error to return (returning a buffer twice, a handle that
 * is none of ours, len above capacity) prints one line that begins "bufpool: "
 * on stderr and aborts.
 */
#ifndef BUFPOOL_H
#define BUFPOOL_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

struct timespec; /* of <time.h>, also where that does not show it */

#include <bufpool/classes.h>
#include <bufpool/version.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ types */

/* A pool. */
typedef struct bufpool_pool bufpool_t;

/*
 * A buffer: writable, with a single owner.  data and len are laid out as a
 * struct iovec.  data is aligned to 4096 bytes at least.
 */
typedef struct bufpool_buf {
	void *data;      /* the bytes; read only member */
	size_t len;      /* bytes in use; starts as the size that was asked
	                    for, the owner may set it to 0..capacity */
	size_t capacity; /* bytes there are: the class size, or the exact
	                    request above the largest class; read only member */
} bufpool_buf_t;

/* A frozen buffer: immutable, reference-counted, held by any number of threads. */
typedef struct bufpool_frozen bufpool_frozen_t;

/* A view into a frozen buffer, which holds one reference to it. */
typedef struct {
	const void *data;
	size_t len;
	bufpool_frozen_t *owner;
} bufpool_slice_t;

/* Says by a file descriptor that a buffer has come home. */
typedef struct bufpool_event bufpool_event_t;

/* ---------------------------------------------------------- configuration */

/* What is erased when a buffer goes home (bufpool_return()). */
enum bufpool_wipe {
	BUFPOOL_WIPE_ALL,  /* the whole capacity */
	BUFPOOL_WIPE_USED, /* [0, len), as len stands then, or as it stood at
	                      a freeze if that is more: the owner vouches that
	                      nothing behind it was written */
	BUFPOOL_WIPE_NONE  /* nothing: the next owner sees the old bytes */
};

/* What a checkout does when no buffer of its class is idle. */
enum bufpool_exhausted {
	BUFPOOL_HEAP, /* take one from the heap, within heap_limit */
	BUFPOOL_FAIL  /* NULL with ENOBUFS; never the heap, neither for classes
	                 that are not pooled nor above the largest class */
};

#define BUFPOOL_CACHE_AUTO SIZE_MAX /* bounded in bytes, small beside count */

/*
 * Where the memory is: the OS index of a NUMA node, or one of these.  Placing
 * is by best effort, unless BUFPOOL_NUMA_STRICT is set; bufpool_regions() tells
 * what came of it.
 *
 * Under LOCAL each class's count is spread over the nodes that have CPUs, the
 * first 64 of them.  A checkout takes from the node that the thread is running
 * on, then from the others, the nearest first, then from the heap; what is
 * returned on another node goes home.
 */
#define BUFPOOL_NUMA_ANY (-1)   /* wherever the system puts it */
#define BUFPOOL_NUMA_LOCAL (-2) /* on each node, for the threads there */

/*
 * Flags, to be or'ed.  They are about the pool's buffers; those from the heap
 * are as malloc makes them (BUFPOOL_FAIL rules those out).
 *
 * STRICT     create fails rather than place memory elsewhere
 * HUGEPAGES  reserved huge pages (hugetlb) if there are enough, else
 *            transparent ones, else ordinary ones; each region is rounded up
 *            to 2 MiB.  bufpool_regions() tells the page size.  A child of
 *            fork that uses reserved ones needs as many again, or is killed
 *            (SIGBUS); with DONTFORK it does not.
 * LOCKED     never swapped out: mlock(2); create fails if that is refused.
 *            Children of fork have theirs unlocked, as all locked memory.
 * DONTDUMP   left out of core dumps
 * DONTFORK   left out of fork's children, which find new memory, zeroed, at
 *            the same addresses: the pool works there, placed anywhere, but
 *            no byte of the parent's buffers is seen, not even of those that
 *            the forking thread had out
 * HARDENED   for secrets, and for what strangers send.  First in, first out:
 *            a buffer that comes home is handed out after all that were idle
 *            before it (by best effort among returns at the same time), so
 *            that who uses it after its return seldom meets its next owner;
 *            no thread caches any.  And a checkout verifies that each byte is
 *            still zero: one that is not was written after the return, which
 *            is misuse, and its line tells the call, the buffer and the
 *            offset.  What stands in from the heap is freed, and not verified.
 *            Needs BUFPOOL_WIPE_ALL.
 */
#define BUFPOOL_NUMA_STRICT 0x01u
#define BUFPOOL_HUGEPAGES 0x02u
#define BUFPOOL_LOCKED 0x04u
#define BUFPOOL_DONTDUMP 0x08u
#define BUFPOOL_DONTFORK 0x10u
#define BUFPOOL_HARDENED 0x20u

/* A piece of memory that buffers of one class lie in. */
typedef struct bufpool_region {
	void *base;
	size_t len;       /* bytes of the buffers, not rounded up for HUGEPAGES */
	unsigned index;   /* 0.. within the pool */
	int size_class;   /* BUFPOOL_CLASS_* */
	int numa_node;    /* that it lies on, by its OS index; -1 where it
	                     spans nodes or is unknown */
	size_t page_size; /* bytes */
	void *cookie;     /* what region_attach returned */
} bufpool_region_t;

#ifdef __cplusplus
#define BUFPOOL_ATTACH_FAILED (reinterpret_cast<void *>(-1l))
#else
#define BUFPOOL_ATTACH_FAILED ((void *) -1l)
#endif

/*
 * How to build a pool.  Always start from BUFPOOL_CONFIG_INIT, which holds the
 * defaults and the size of the structure the program was compiled with, or, for
 * the sake of one class or two, from BUFPOOL_CONFIG_EMPTY, where every count is 0.
 * Designated initialisers alone leave size and caches 0, which create refuses, and
 * name node 0, which is not the default.
 *
 * What the structure of an older header lacks keeps its default; what that of a
 * newer one has more, create takes if it is zero.
 */
typedef struct bufpool_config {
	size_t size; /* sizeof this structure, set by BUFPOOL_CONFIG_INIT */

	/* Buffers to preallocate per class, at most BUFPOOL_MAX_COUNT; 0: the
	   class is not pooled, and served as when it is exhausted. */
	size_t count[BUFPOOL_CLASSES];

	/* Most buffers of that class one thread may cache; 0: no cache.  The
	   library may cache fewer: what a class can cache at the most is
	   fixed when it is built (gen/classes.def). */
	size_t cache[BUFPOOL_CLASSES];

	int numa_node;                    /* BUFPOOL_NUMA_* or an OS index */
	enum bufpool_wipe wipe;           /* default BUFPOOL_WIPE_ALL */
	enum bufpool_exhausted exhausted; /* default BUFPOOL_HEAP */
	size_t heap_limit;                /* most bytes (capacities) of live heap
	                                     buffers, oversize ones included;
	                                     0: no limit.  They take at most
	                                     1.15 times that, and a little */
	unsigned flags;                   /* default 0 */

	/* Called once for each region, after it is placed and populated (by
	   create, or whoever has the class grow), and before it goes: register it with a NIC, a GPU, an io_uring.
	   region_attach reports failure by returning BUFPOOL_ATTACH_FAILED
	   with errno set; create then detaches what it had attached and fails
	   with that errno.  region_detach runs on the thread that destroys
	   the pool or returns its last buffer after that.  Both may touch the
	   region; what region_attach writes to it, it has to make zero again.
	   Neither may call the library for this pool, but for other pools in
	   every way; nor may they throw, or leave by longjmp(). */
	void *(*region_attach)(void *arg, const bufpool_region_t *region);
	void (*region_detach)(void *arg, const bufpool_region_t *region,
	                      void *cookie);
	void *region_arg;

	/* What the pool is called where it is shown: in statistics, in the line
	   of a misuse.  Copied; up to 31 bytes of UTF-8, any characters.  NULL
	   or empty: "pool-N", of which N counts the pools of the process. */
	const char *name;

	/* How large a class may become, at most BUFPOOL_MAX_COUNT; 0: it stays as
	   it is.  When it is exhausted, before `exhausted` decides, it grows by
	   half of what it has, at least one buffer, at most to this: by a
	   region that is placed, populated, locked and attached as the first
	   ones, under LOCAL where the thread is.  One thread grows a pool at a
	   time, in the checkout that found none, and holds up nobody: others
	   find what is idle, or do as `exhausted` says.  What cannot be had
	   (ENOMEM; attach failed; what create would fail for) is as if this
	   were reached, until some buffer of the class has come home.
	   Addresses for all of it and the tables are set apart by create (of
	   these the memory too, where the program locks all that it maps); what
	   it has grown by stays until destroy, and bufpool_trim() gives its
	   pages back.  In a child of fork a pool with region_attach does not
	   grow. */
	size_t max_count[BUFPOOL_CLASSES];

	/* Most bytes a region may have, at least a buffer of each class that is
	   pooled; 0: no limit.  For devices that register no more at once: io_uring
	   takes 1 GiB.  A class then has several regions. */
	size_t region_max;
} bufpool_config_t;

#define BUFPOOL_CONFIG_OF(count)                                             \
	{                                                                    \
		sizeof(bufpool_config_t), count, BUFPOOL_CACHE_INIT,         \
			BUFPOOL_NUMA_ANY, BUFPOOL_WIPE_ALL, BUFPOOL_HEAP, 0, \
			0, NULL, NULL, NULL, NULL, { 0 }, 0                  \
	}
#define BUFPOOL_CONFIG_INIT BUFPOOL_CONFIG_OF(BUFPOOL_COUNT_INIT)
#define BUFPOOL_CONFIG_EMPTY BUFPOOL_CONFIG_OF({ 0 })

#define BUFPOOL_MAX_COUNT 0xfffffeul /* buffers of a class in a pool */

/* ----------------------------------------------------------- size classes */

/* The class that serves size bytes; -1 above the largest, with errno left alone. */
int bufpool_class_for(size_t size);

/* Bytes of a class, and its name, "4k"; 0 and NULL for none, likewise. */
size_t bufpool_class_size(int size_class);
const char *bufpool_class_name(int size_class);

/* ----------------------------------------------------------------- pools */

/*
 * Build a pool; NULL means the defaults.  All memory is taken, placed and
 * touched here and none later: no use of a buffer faults (but after a trim).
 * There may be thousands of pools: each takes three of the process's mappings, two
 * more for each class that it has (under LOCAL at each node), which is 11 for four
 * classes, and up to one for each thread that uses it.  The system allows 65530
 * (vm.max_map_count), so some 5900 pools.  Other than ANY, numa_node has hwloc load
 * the machine's topology, about a millisecond; <bufpool/hwloc.h> takes yours.
 *
 * Beside the buffers a pool takes some KiB, and about 70 bytes for each buffer.  A
 * thread takes 4 KiB with its first use of any pool, and 4 KiB (with the default
 * classes) with that of each.  These the thread keeps until its end, also when the
 * pool is gone, see bufpool_thread_flush(); then the pool has them for the next
 * thread that comes.
 *
 * EINVAL  size is not what BUFPOOL_CONFIG_INIT set (so an all-zero config is
 *         refused), a field unknown here that is not zero, unknown flags, an
 *         enum value out of range, a count above BUFPOOL_MAX_COUNT, a name
 *         that is too long or no UTF-8; HARDENED without BUFPOOL_WIPE_ALL;
 *         under STRICT, a node that this process has not
 * ENOMEM  the memory cannot be had; under STRICT, not on that node; locked memory
 *         is limited (RLIMIT_MEMLOCK).  Nothing is killed for it: what the machine
 *         and the process's cgroups have left is looked at before any is touched;
 *         page cache counts as left, and some 4 MiB are kept
 * EPERM   under STRICT or LOCKED: the system refuses
 * ENOSYS  under STRICT: the system cannot place memory
 *
 * or the errno of a region_attach that failed, EIO if it set none.
 */
bufpool_t *bufpool_create(const bufpool_config_t *config);

/*
 * Let go of a pool.  Buffers that are out stay valid and are returned as ever;
 * the memory goes when the last one comes home, and at once if none is out,
 * also while other threads live that hold some in their caches.  Its events have
 * to be closed before.  Never waits.  NULL is fine.
 */
void bufpool_destroy(bufpool_t *pool);

/*
 * No more checkouts: from now on every one fails with ECANCELED, those asleep in
 * bufpool_checkout_wait() too, and armed events become readable.  (One that runs
 * at the same time may still succeed.)  Returns go on, and so does all else.  It is
 * how a program ends its waiters before it destroys the pool.  For good; again,
 * and NULL, are fine.
 */
void bufpool_shutdown(bufpool_t *pool);

/* --------------------------------------------------------------- checkout */

/*
 * Take a buffer of at least size bytes: the size is rounded up to its class,
 * above the largest class it is taken as it is, from the heap.  size 0 gives
 * the smallest class with len 0.  Every byte of the capacity is zero, unless
 * the pool was built with BUFPOOL_WIPE_NONE.  Never blocks.
 *
 * ENOBUFS  exhausted, under BUFPOOL_FAIL or with heap_limit reached
 * ENOMEM   exhausted, and the heap as well
 */
bufpool_buf_t *bufpool_checkout(bufpool_t *pool, size_t size);

/* The same, zero over the whole capacity under every wipe mode. */
bufpool_buf_t *bufpool_checkout_zeroed(bufpool_t *pool, size_t size);

/*
 * The same, with data aligned to alignment, a power of two (else EINVAL).  The
 * pool serves what the class gives by itself, the heap the rest.
 */
bufpool_buf_t *bufpool_checkout_aligned(bufpool_t *pool, size_t size,
                                        size_t alignment);

/* Pool memory or ENOBUFS; never the heap, whatever `exhausted` says. */
bufpool_buf_t *bufpool_try_checkout(bufpool_t *pool, size_t size);

/*
 * Like try, but where that has no buffer, sleeps until some thread gives one
 * back, by a return, a last unref, a flush or its exit, or until the (relative)
 * timeout is over; NULL waits for ever.  A signal does not end the wait.  What
 * is not pooled is ENOBUFS at once.
 *
 * Of several waiters, and events, on one class as many are woken as buffers come
 * back, those that came first before others.
 *
 * EINVAL     timeout is negative, or its nanoseconds are not below 10^9
 * ETIMEDOUT  nothing came back in time
 * ECANCELED  bufpool_shutdown() was called
 */
bufpool_buf_t *bufpool_checkout_wait(bufpool_t *pool, size_t size,
                                     const struct timespec *timeout);

/*
 * Take n buffers.  Returns how many it got, in bufs[0..]; fewer than n only
 * where a single checkout would fail, and errno then says why.  None of none is no
 * error, bufs may then be NULL.
 */
size_t bufpool_checkout_bulk(bufpool_t *pool, size_t size,
                             bufpool_buf_t **bufs, size_t n);

/*
 * <bufpool/classes.h> declares a checkout for each class, for when it is known
 * at compile time: bufpool_checkout_4k(pool) and so on; len is the capacity.
 */

/*
 * Inlined calls.  In a program that is compiled with -DBUFPOOL_INLINE, or defines
 * it before it includes this header, bufpool_checkout(), bufpool_return(), the
 * checkouts per class and the bulk calls are inlined, by <bufpool/inline.h>.  They
 * do the same.  The program is then bound to the library it was compiled for: one
 * with other size classes, or another inside, is refused by the linker or when the
 * program is loaded.  The macro changes nothing under AddressSanitizer and
 * ThreadSanitizer, nor beside a library that was built for memory checkers.
 */

/* ----------------------------------------------------------------- events */

/*
 * Wait for a buffer in an event loop, which must not sleep elsewhere: by a file
 * descriptor for poll, epoll or io_uring.
 *
 *     while ((buf = bufpool_try_checkout(pool, size)) == NULL) {
 *             if (errno != ENOBUFS || bufpool_event_arm(event) < 0)
 *                     return stop();
 *             ...if it was 0: back to the loop, and on from here when
 *             bufpool_event_fd(event) is readable
 *     }
 *
 * Once armed, it becomes readable when a buffer of its class comes back, by any
 * thread's return, last unref, flush or exit.  That is a hint: somebody else may
 * be quicker, so try, and arm again.  It is for one buffer and for one event or
 * waiter: who has been told, and does not want the buffer any more, closes the
 * event, or takes the buffer and returns it, and others are told.
 *
 * An event belongs to the process that opened it: in a child of fork it is only
 * to be closed.  Calls that name the same event are for one thread at a time.
 */

/*
 * For the class that serves size.  What is not pooled is ENOBUFS.  Takes a file
 * descriptor (EMFILE, ENFILE as eventfd(2)).
 */
bufpool_event_t *bufpool_event_open(bufpool_t *pool, size_t size);

/* The descriptor: to be polled for reading, and for nothing else.  It is closed on
   exec, and by bufpool_event_close(). */
int bufpool_event_fd(const bufpool_event_t *event);

/*
 * Have it tell of the next buffer.  It is first made unreadable.  0: it is armed;
 * 1: it is not, as a buffer is idle: try now.  None that comes back after a try
 * that failed is missed.  Again while it is armed is fine.
 *
 * EPERM      in a child of fork; see Sandboxes
 * ECANCELED  bufpool_shutdown() was called
 */
int bufpool_event_arm(bufpool_event_t *event);

/* Armed or not; before the pool's destroy.  NULL is fine. */
void bufpool_event_close(bufpool_event_t *event);

/* ----------------------------------------------------------------- return */

/*
 * Give a buffer up.  It is erased as the pool's wipe mode says and sent home: no
 * byte that was written before the return is there for the next owner.  So whatever
 * else uses it must be done by then, a device, or the kernel, which may keep a page
 * for longer than the call that gave it (vmsplice(2), MSG_ZEROCOPY).
 * From any thread, in any thread-exit destructor too, and also after the
 * pool's destroy.  NULL is fine, in a bulk as well.
 */
void bufpool_return(bufpool_buf_t *buf);
void bufpool_return_bulk(bufpool_buf_t **bufs, size_t n);

/*
 * Send home what the calling thread has cached of a pool; NULL: of all pools, and
 * free what it keeps of those that are destroyed.  (When it first uses another pool
 * it does the latter, too, if they are many.)  A thread that exits does all of it
 * by itself; but where the process had made 32 keys (pthread_key_create(3)) before
 * the library was loaded, the next thread that first uses a pool does it instead,
 * and other threads take what they need from the cache until then, as from those
 * that sleep.
 */
void bufpool_thread_flush(bufpool_t *pool);

/* ----------------------------------------------------------------- frozen */

/*
 * Share a buffer without copying it: freeze it, hand out references, and the
 * holder who lets go last, on whichever thread, sends it home, erased.  Holders
 * only read; a reference is passed between threads by any means that orders
 * memory.  Frozen buffers count as checked out.  Only using a handle after its
 * last reference is gone is misuse; a NULL handle is EINVAL.
 */

/*
 * The caller's buffer becomes a frozen one with one reference, the caller's;
 * buf itself is no handle any more.  What can be seen is [0, len), as len
 * stands now.  Allocates nothing, never fails.
 */
bufpool_frozen_t *bufpool_freeze(bufpool_buf_t *buf);

/* Add a reference, for somebody else; returns f. */
bufpool_frozen_t *bufpool_frozen_ref(bufpool_frozen_t *f);

/* Drop a reference; the last one returns the buffer.  NULL is fine. */
void bufpool_frozen_unref(bufpool_frozen_t *f);

const void *bufpool_frozen_data(const bufpool_frozen_t *f);
size_t bufpool_frozen_len(const bufpool_frozen_t *f);

/*
 * The only reference becomes a writable buffer again, with its contents and the
 * len that it was frozen with.
 *
 * EBUSY  there are other references (slices hold some too); f stays as it is
 */
bufpool_buf_t *bufpool_thaw(bufpool_frozen_t *f);

/*
 * A view of len bytes at offset, holding a reference of its own.
 *
 * ERANGE  not inside of the frozen bytes; all members are then zero
 */
bufpool_slice_t bufpool_slice(bufpool_frozen_t *f, size_t offset, size_t len);

/*
 * Drop the slice's reference and set all its members to zero.  NULL, and a
 * slice that is zero, are fine.
 */
void bufpool_slice_release(bufpool_slice_t *slice);

/* ----------------------------------------------------------------- memory */

/*
 * Give the memory of idle buffers, also of those in thread caches, back to the
 * system; returns how many bytes.  The buffers stay usable: they are handed out
 * when there are no others at their node but in other threads' caches, with new
 * pages, zero, from the same node if it has any left.  0 for a pool with a
 * region_attach (a device would go on writing to the old pages) or
 * BUFPOOL_LOCKED; regions on reserved huge pages keep them.  Whoever has registered
 * by other means what bufpool_regions() shows must not trim.
 */
size_t bufpool_trim(bufpool_t *pool);

/*
 * Have a class grow by n buffers now (under LOCAL spread over the nodes, as its count),
 * as it does by itself when it is exhausted: see max_count, and bufpool_create() for
 * what that means.  All of it or nothing.  May be called beside all other calls.
 *
 * EINVAL  no such class; more than max_count then
 * EAGAIN  another thread has the pool grow just now
 * or an errno as create's; ENOMEM also after a class has grown, by itself and by this,
 * 1,000 times
 */
int bufpool_grow(bufpool_t *pool, int size_class, size_t n);

/*
 * Write up to max regions to out, by index; returns how many there are.  They
 * are the same for as long as the pool lives, but for the node and page size of
 * what a trim has given back.  Where memory was not placed on
 * a node, the system is asked for the node of each page: for large pools that
 * is no call for a hot path.
 */
size_t bufpool_regions(const bufpool_t *pool, bufpool_region_t *out,
                       size_t max);

/*
 * The region that a buffer lies in, and at which offset its data begins: what
 * I/O on registered memory asks for.  index and offset may be NULL.
 *
 * ENOENT  the buffer is from the heap
 */
int bufpool_buf_region(const bufpool_buf_t *buf, unsigned *index,
                       size_t *offset);

/* The same for a frozen buffer. */
int bufpool_frozen_region(const bufpool_frozen_t *f, unsigned *index,
                          size_t *offset);

/* The node that a buffer lies on, by its OS index; -1: several, or unknown. */
int bufpool_buf_node(const bufpool_buf_t *buf);

/*
 * From a pointer to its handle, for callbacks that hand back nothing else: the
 * buffer that is out, or the frozen one (no reference is added), and holds p,
 * anywhere in its capacity.  The caller owns it, or holds a reference, or is told
 * of one that comes and goes.  Takes no lock.
 *
 * ENOENT  not in the pool's memory (the heap's is not), or idle; or the buffer is
 *         frozen, or is not
 */
bufpool_buf_t *bufpool_buf_at(bufpool_t *pool, const void *p);
bufpool_frozen_t *bufpool_frozen_at(bufpool_t *pool, const void *p);

/* ------------------------------------------------------------- statistics */

/*
 * All figures are counts of buffers or calls, or what the name says.  Read
 * while others work, they are each right but not all of the same instant.  At
 * rest, in each class, checked_out + idle == total.
 */
typedef struct {
	uint64_t total;          /* buffers preallocated */
	uint64_t idle;           /* not checked out */
	uint64_t cached;         /* the part of idle that is in thread caches */
	uint64_t cache_hits;     /* checkouts served by the thread's cache */
	uint64_t depot_hits;     /* ... by the shared depot */
	uint64_t stolen;         /* ... from another thread's cache */
	uint64_t heap_fallbacks; /* ... by the heap */
	uint64_t checked_out;    /* pool buffers that are out */
	uint64_t peak_checked_out; /* most that were out at once, those from
	                              the heap too: never under the truth,
	                              over it by at most what caches held
	                              when it was reached, and what was on
	                              the move.  With as many preallocated
	                              the class needs no heap */
	uint64_t remote_hits;    /* those of the hits that a pool with
	                            BUFPOOL_NUMA_LOCAL served from a node that
	                            is not the thread's */
	uint64_t exhausted; /* checkouts that got no buffer: ENOBUFS, ENOMEM,
	                       ETIMEDOUT; a bulk that got fewer counts once */
	uint64_t waits;     /* bufpool_checkout_wait() that slept, */
	uint64_t wait_ns;   /* and how long, in all, those that are over:
	                       nanoseconds */
} bufpool_class_stats_t;

typedef struct {
	uint64_t hits;             /* checkouts served from pool memory */
	uint64_t misses;           /* checkouts served by the heap */
	uint64_t oversize;         /* those of them above the largest class */
	uint64_t checked_out;      /* buffers out, from the heap too */
	uint64_t peak_checked_out; /* as near the truth as a class's; in a pool
	                              that never went to the heap, at most as
	                              many as it has */
	uint64_t bytes_checked_out;      /* capacities of buffers out */
	uint64_t peak_bytes_checked_out; /* as near the truth */
	uint64_t heap_bytes;             /* capacities of live heap buffers */
	bufpool_class_stats_t per_class[BUFPOOL_CLASSES];
} bufpool_stats_t;

/* Read the statistics; stops nobody. All zero for a NULL pool. */
void bufpool_stats(const bufpool_t *pool, bufpool_stats_t *out);

enum bufpool_format {
	BUFPOOL_TEXT,      /* a table for people, and for a class that went to
	                      the heap which count would spare it that */
	BUFPOOL_JSON,      /* one object; keys are the field names, and "id"
	                      for when the pool was created: the 1st, 2nd, ...
	                      and each class's "name" and "size" */
	BUFPOOL_PROMETHEUS /* the text exposition format, with wait_ns in seconds;
	                      labels are "pool", "class", "size", and "id"
	                      where several pools that are printed have one
	                      name */
};

/*
 * Print the statistics of a pool; NULL: of all pools of the process but those that
 * have been destroyed, as one table, one JSON array, one exposition.  Pools may be
 * created and destroyed meanwhile, which wait for none of it, however slow the
 * stream is.  A failed write is -1 with its errno.
 */
int bufpool_stats_print(const bufpool_t *pool, FILE *stream,
                        enum bufpool_format format);

/* "0.1.0": the library at run time, where BUFPOOL_VERSION is the header's. */
const char *bufpool_version(void);

#ifdef __cplusplus
}
#endif

#ifdef BUFPOOL_INLINE
#include <bufpool/inline.h>
#endif

#endif /* BUFPOOL_H */
