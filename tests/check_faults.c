/* SPDX-License-Identifier: MIT */
/*
 * check_faults.c - what the library makes of a system that refuses
 *
 * Linked with the library's objects and the linker's --wrap: each of these
 * calls passes here first.  Refusals are per thread, so that Check and libc
 * go undisturbed.  (hwloc's own allocations are not ours: only what it is asked
 * for fails here.)
 */
#include "common.h"

#include <bufpool/hwloc.h>
#include <linux/futex.h>
#include <stdarg.h>

#undef PAGE /* the library has its own */
#include "grow.h"
#include "region.h"
#include "stack.h"
#include "thread.h"

/* ------------------------------------------------------------- the system */

static __thread long allocations = -1; /* that still work; -1: all do */
static __thread int madvise_error;     /* what madvise() fails with */
static __thread int refused_advice = -1; /* that alone fails */
static __thread bool intrude;          /* another thread is quick to map */
static void *intruder;                 /* a page of its own */
static bool membarrier_refused, futex_refused;
static void (*at_membarrier)(void); /* called before it */
static atomic_long futex_waits, futex_wakes; /* calls */
static long memory_calls; /* of mmap(), munmap(), madvise() */
static long live;     /* allocations not freed, and */
static size_t mapped; /* bytes not unmapped; meaningful with one thread */

static bool refused(void)
{
	return allocations >= 0 && allocations-- == 0;
}

static void *counted(void *p)
{
	live += p != NULL;
	return p;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
	errno = ENOMEM;
	return refused() ? NULL : counted(__real_malloc(n));
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size)
{
	errno = ENOMEM;
	return refused() ? NULL : counted(__real_calloc(n, size));
}

int __real_posix_memalign(void **p, size_t alignment, size_t n);
int __wrap_posix_memalign(void **p, size_t alignment, size_t n);
int __wrap_posix_memalign(void **p, size_t alignment, size_t n)
{
	int error = ENOMEM;

	errno = ENOMEM;
	if (!refused())
		error = __real_posix_memalign(p, alignment, n);
	live += error == 0;
	return error;
}

void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
	live -= p != NULL;
	__real_free(p);
}

void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_munmap(void *at, size_t n);
static void *take_place(void *at, size_t n, int flags);

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	bool no = refused() || (intrude && (flags & MAP_HUGETLB));
	void *p = MAP_FAILED;

	memory_calls++;
	if (!no)
		p = __real_mmap(at, n, prot, flags, fd, off);
	else if (intrude)
		intruder = take_place(at, n, flags);
	if (no)
		errno = EAGAIN; /* ENOMEM is what is passed on, all the same */
	if (p != MAP_FAILED && !(flags & MAP_FIXED)) /* over what was counted */
		mapped += n;
	return p;
}

/* A place that the library wants, and is refused, goes to somebody else, whom
   a memory checker does not know. */
__attribute__((no_sanitize_address)) static void *
take_place(void *at, size_t n, int flags)
{
	volatile char *p;

	if (flags & MAP_FIXED) /* as the kernel does it where that fails */
		must(__real_munmap(at, n) == 0);
	p = __real_mmap(at, PAGE, PROT_READ | PROT_WRITE,
	                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
	                0);
	must(p == at);
	for (size_t i = 0; i < PAGE; i++)
		p[i] = 0x77;
	return at;
}

int __wrap_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n)
{
	memory_calls++;
	mapped -= n;
	return __real_munmap(at, n);
}

/* A thread stops before it gives memory back, and goes on when told. */
static __thread pthread_barrier_t *stop_in_trim;

int __real_madvise(void *at, size_t n, int advice);
int __wrap_madvise(void *at, size_t n, int advice);
int __wrap_madvise(void *at, size_t n, int advice)
{
	memory_calls++;
	if (stop_in_trim && advice == MADV_DONTNEED) {
		meet(stop_in_trim);
		meet(stop_in_trim);
	}
	if (madvise_error == 0 && advice != refused_advice && !refused())
		return __real_madvise(at, n, advice);
	errno = madvise_error ? madvise_error : ENOMEM;
	return -1;
}

int __real_mprotect(void *at, size_t n, int prot);
int __wrap_mprotect(void *at, size_t n, int prot);
int __wrap_mprotect(void *at, size_t n, int prot)
{
	errno = EACCES;
	return refused() ? -1 : __real_mprotect(at, n, prot);
}

int __real_mlock(const void *at, size_t n);
int __wrap_mlock(const void *at, size_t n);
int __wrap_mlock(const void *at, size_t n)
{
	errno = EAGAIN;
	return refused() ? -1 : __real_mlock(at, n);
}

/* What can be had without: /proc/meminfo and /proc/self/smaps. */
FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode)
{
	errno = EMFILE;
	return refused() ? NULL : __real_fopen(path, mode);
}

hwloc_bitmap_t __real_hwloc_bitmap_alloc(void);
hwloc_bitmap_t __wrap_hwloc_bitmap_alloc(void);
hwloc_bitmap_t __wrap_hwloc_bitmap_alloc(void)
{
	errno = EAGAIN;
	return refused() ? NULL : counted(__real_hwloc_bitmap_alloc());
}

hwloc_bitmap_t __real_hwloc_bitmap_dup(hwloc_const_bitmap_t set);
hwloc_bitmap_t __wrap_hwloc_bitmap_dup(hwloc_const_bitmap_t set);
hwloc_bitmap_t __wrap_hwloc_bitmap_dup(hwloc_const_bitmap_t set)
{
	errno = EAGAIN;
	return refused() ? NULL : counted(__real_hwloc_bitmap_dup(set));
}

void __real_hwloc_bitmap_free(hwloc_bitmap_t set);
void __wrap_hwloc_bitmap_free(hwloc_bitmap_t set);
void __wrap_hwloc_bitmap_free(hwloc_bitmap_t set)
{
	live -= set != NULL;
	__real_hwloc_bitmap_free(set);
}

int __real_hwloc_topology_init(hwloc_topology_t *topology);
int __wrap_hwloc_topology_init(hwloc_topology_t *topology);
int __wrap_hwloc_topology_init(hwloc_topology_t *topology)
{
	int error = -1;

	errno = EAGAIN;
	if (!refused())
		error = __real_hwloc_topology_init(topology);
	live += error == 0;
	return error;
}

static bool load_refused;
int __real_hwloc_topology_load(hwloc_topology_t topology);
int __wrap_hwloc_topology_load(hwloc_topology_t topology);
int __wrap_hwloc_topology_load(hwloc_topology_t topology)
{
	load_refused = refused();
	return load_refused ? -1 : __real_hwloc_topology_load(topology);
}

void __real_hwloc_topology_destroy(hwloc_topology_t topology);
void __wrap_hwloc_topology_destroy(hwloc_topology_t topology);
void __wrap_hwloc_topology_destroy(hwloc_topology_t topology)
{
	live--;
	__real_hwloc_topology_destroy(topology);
}

int __real_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);
int __wrap_pthread_setspecific(pthread_key_t key, const void *value)
{
	return refused() ? ENOMEM : __real_pthread_setspecific(key, value);
}

static __thread void (*at_yield)(void); /* called before it */
int __real_sched_yield(void);
int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
	if (at_yield)
		at_yield();
	return __real_sched_yield();
}

/* Those without a function. */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
	long args[6];
	va_list list;

	/* All that there can be, as the C library does. */
	va_start(list, number);
	for (size_t i = 0; i < ARRAY_SIZE(args); i++)
		args[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_membarrier && at_membarrier)
		at_membarrier();
	if (number == SYS_futex) {
		bool wakes = ((int) args[1] & FUTEX_CMD_MASK) == FUTEX_WAKE;

		atomic_fetch_add(wakes ? &futex_wakes : &futex_waits, 1);
	}
	if ((number == SYS_futex && futex_refused) ||
	    (number == SYS_membarrier && membarrier_refused))
		errno = ENOSYS;
	else if (number == SYS_move_pages && refused())
		errno = ENOMEM;
	else
		return __real_syscall(number, args[0], args[1], args[2],
		                      args[3], args[4], args[5]);
	return -1;
}

/* ----------------------------------------------------------------- helpers */

/* What the library has taken of the system. */
struct usage {
	long live;
	size_t mapped;
};

static struct usage usage(void)
{
	return (struct usage){live, mapped};
}

static bool same(struct usage a, struct usage b)
{
	return a.live == b.live && a.mapped == b.mapped;
}

static bufpool_t *pool_of(size_t count, size_t cache)
{
	bufpool_config_t cfg = class_config(BUFPOOL_CLASS_4K, count);

	set_cache(&cfg, cache);
	return make_pool(cfg);
}

/* ------------------------------------------------------------ allocations */

START_TEST(create_at_each_allocation)
{
	bufpool_config_t cfg = even_config(3);
	bufpool_t *pool;
	long n = 0;

	/* must(), not ck_assert(), which allocates. */
	for (bool met = true; met; n++) {
		struct usage before = usage();

		errno = 0;
		allocations = n;
		pool = bufpool_create(&cfg);
		met = allocations < 0;
		allocations = -1;
		if (pool != NULL) { /* it could do without */
			destroy_whole(pool);
			bufpool_thread_flush(NULL);
			continue;
		}
		must(errno == ENOMEM);
		must(same(before, usage()));
	}
	/* The pool itself, and the memory of each class. */
	ck_assert_int_ge(n, 1 + BUFPOOL_CLASSES);
}
END_TEST

/* All that a create asks for, in whatever way it places its memory. */
static const struct {
	const char *synthetic; /* the application's topology is made up */
	bool own;              /* it is the application's */
	int node;
	unsigned flags;
	long least; /* calls that can fail */
} creates[] = {
	{NULL, false, BUFPOOL_NUMA_ANY, BUFPOOL_HUGEPAGES, 18},
	{NULL, false, BUFPOOL_NUMA_ANY, BUFPOOL_LOCKED, 12},
	{NULL, false, BUFPOOL_NUMA_ANY, BUFPOOL_DONTDUMP | BUFPOOL_DONTFORK, 14},
	{NULL, false, BUFPOOL_NUMA_LOCAL, 0, 14},
	{NULL, false, 0, BUFPOOL_NUMA_STRICT, 14},
	{NULL, true, 0, BUFPOOL_NUMA_STRICT, 12},
	{NULL, true, BUFPOOL_NUMA_LOCAL, BUFPOOL_HUGEPAGES, 20},
	{"node:4 core:2 pu:2", true, BUFPOOL_NUMA_LOCAL, BUFPOOL_LOCKED, 30},
	{"node:4 core:2 pu:2", true, BUFPOOL_NUMA_LOCAL,
         BUFPOOL_HUGEPAGES | BUFPOOL_DONTFORK, 30},
};

static long attached;

static void *attach(void *arg, const bufpool_region_t *region)
{
	(void) region;
	attached++;
	return arg;
}

static void detach(void *arg, const bufpool_region_t *region, void *cookie)
{
	must(cookie == arg && is_mapped(region->base));
	attached--;
}

static hwloc_topology_t load(const char *synthetic)
{
	hwloc_topology_t topology;

	must(hwloc_topology_init(&topology) == 0);
	if (synthetic) {
		must(hwloc_topology_set_synthetic(topology, synthetic) == 0);
		must(hwloc_topology_set_flags(
			     topology,
			     HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM) == 0);
	}
	must(hwloc_topology_load(topology) == 0);
	return topology;
}

/* The n'th call fails; whether there was one. */
static bool create_without(const bufpool_config_t *cfg,
                           hwloc_topology_t topology, long n)
{
	struct usage before = usage();
	bufpool_t *pool;
	bool met;

	load_refused = false;
	errno = ERRNO_SENTINEL;
	allocations = n;
	pool = topology ? bufpool_create_hwloc(cfg, topology, NULL)
	                : bufpool_create(cfg);
	met = allocations < 0;
	allocations = -1;
	if (pool) { /* it could do without */
		must(errno == ERRNO_SENTINEL);
		must(attached > 0);
		destroy_whole(pool);
		bufpool_thread_flush(NULL);
	} else {
		must(errno == (load_refused ? ENOSYS : ENOMEM));
	}
	must(attached == 0);
	if (!pool)
		must(same(before, usage()));
	return met;
}

START_TEST(create_at_each_call)
{
	bufpool_config_t cfg = class_config(BUFPOOL_CLASS_4K, 4);
	hwloc_topology_t topology = NULL;
	long n = 0;

	if (creates[_i].own)
		topology = load(creates[_i].synthetic);
	cfg.count[BUFPOOL_CLASS_64K] = 1;
	cfg.numa_node = creates[_i].node;
	cfg.flags = creates[_i].flags;
	cfg.region_attach = attach;
	cfg.region_detach = detach;
	while (create_without(&cfg, topology, n))
		n++;
	ck_assert_int_ge(n, creates[_i].least);
	if (topology)
		hwloc_topology_destroy(topology);
}
END_TEST

/* A promise that cannot be kept is not made; huge pages are none. */
START_TEST(create_with_advice_refused)
{
	static const struct {
		unsigned flag;
		int advice;
		bool needed;
	} advices[] = {
		{BUFPOOL_DONTDUMP, MADV_DONTDUMP, true},
		{BUFPOOL_DONTFORK, MADV_DONTFORK, true},
		{BUFPOOL_HUGEPAGES, MADV_HUGEPAGE, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(advices); i++) {
		bufpool_config_t cfg = even_config(2);
		struct usage before = usage();
		bufpool_t *pool;

		cfg.flags = advices[i].flag;
		refused_advice = advices[i].advice;
		pool = bufpool_create(&cfg);
		refused_advice = -1;
		must(!pool == advices[i].needed);
		must(pool || errno == ENOMEM);
		bufpool_destroy(pool);
		must(same(before, usage()));
	}
}
END_TEST

static bool intruder_is_well(void)
{
	return is_mapped(intruder) && all_bytes(intruder, PAGE, 0x77);
}

/* What others map while reserved huge pages are found to be too few. */
START_TEST(no_huge_pages_beside_others)
{
	bufpool_config_t cfg = class_config(BUFPOOL_CLASS_64K, 4);
	bufpool_t *pool;

	cfg.flags = BUFPOOL_HUGEPAGES;
	intrude = true;
	pool = bufpool_create(&cfg);
	intrude = false;
	ck_assert_ptr_nonnull(pool);
	ck_assert_ptr_nonnull(intruder);
	must(intruder_is_well());
	destroy_whole(pool);
	must(intruder_is_well());
}
END_TEST

/* The same in a growth that fails after that; the next one is not there. */
static int device_refuses;

static void *attach_or_not(void *arg, const bufpool_region_t *region)
{
	errno = EXFULL;
	return device_refuses-- == 1 ? BUFPOOL_ATTACH_FAILED
	                             : (region->base ? arg : NULL);
}

START_TEST(growth_beside_others)
{
	bufpool_config_t cfg = class_config(BUFPOOL_CLASS_64K, 4);
	bufpool_t *pool;

	cfg.max_count[BUFPOOL_CLASS_64K] = 200;
	cfg.flags = BUFPOOL_HUGEPAGES;
	cfg.region_attach = attach_or_not;
	pool = make_pool(cfg);
	device_refuses = _i;
	intrude = true;
	must(bufpool_grow(pool, BUFPOOL_CLASS_64K, 4) == (_i ? -1 : 0));
	intrude = false;
	must(intruder && intruder_is_well());
	must(bufpool_grow(pool, BUFPOOL_CLASS_64K, 4) == 0);
	must(bufpool_grow(pool, BUFPOOL_CLASS_64K, 40) == 0);
	must(intruder_is_well());
	bufpool_destroy(pool);
	must(intruder_is_well());
}
END_TEST

/* In a child that has no memory for one of the regions. */
struct bereft {
	bufpool_t *pool;
	bufpool_buf_t *heap; /* out, from the heap */
	const void *base;    /* of another region */
};

static void live_without_a_region(void *arg)
{
	struct bereft *b = arg;
	bufpool_region_t r[BUFPOOL_CLASSES];
	bufpool_buf_t *buf;

	must(intruder && intruder_is_well());
	must(bufpool_regions(b->pool, r, BUFPOOL_CLASSES) == BUFPOOL_CLASSES);
	must(r[0].base == NULL && r[0].len == 0);
	must(bufpool_try_checkout(b->pool, 1) == NULL && errno == ENOBUFS);
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		buf = classes[k].checkout(b->pool);
		must(buf && is_zero(buf));
		bufpool_return(buf);
	}
	must(stats_of(b->pool).misses == 1);
	bufpool_trim(b->pool);
	bufpool_destroy(b->pool);
	bufpool_return(b->heap);
	must(intruder_is_well());
}

static void end_without_a_region(void *arg)
{
	struct bereft *b = arg;

	must(intruder && intruder_is_well());
	must(is_mapped(b->base));
	bufpool_return(b->heap);
	must(!is_mapped(b->base));
	must(intruder_is_well());
}

START_TEST(child_without_a_region)
{
	bufpool_config_t cfg = even_config(2);
	bufpool_region_t r[BUFPOOL_CLASSES];
	char text[1000];
	struct bereft b;
	int status;

	if (is_valgrind())
		return;
	cfg.flags = BUFPOOL_DONTFORK;
	b.pool = make_pool(cfg);
	b.heap = bufpool_checkout(b.pool, 2 * BUFPOOL_MAX_CLASS_SIZE);
	bufpool_regions(b.pool, r, BUFPOOL_CLASSES);
	b.base = r[1].base;
	if (_i) /* destroyed, but for what is out */
		bufpool_destroy(b.pool);
	intrude = true;
	allocations = 0; /* the child's first */
	status = run_child(_i ? end_without_a_region : live_without_a_region,
	                   &b, text, sizeof(text));
	allocations = -1;
	intrude = false;
	ck_assert_msg(status == 0, "wait status %#x: %s", (unsigned) status,
	              text);
	bufpool_return(b.heap);
	if (!_i) {
		destroy_whole(b.pool);
	}
}
END_TEST

/* ------------------------------------------------------------------- trim */

START_TEST(trim_is_refused)
{
	bufpool_t *pool = pool_of(8, 4);

	must_be_whole(pool);
	madvise_error = EINVAL; /* as after mlockall() */
	ck_assert_uint_eq(bufpool_trim(pool), 0);
	madvise_error = 0;
	ck_assert_uint_eq(bufpool_trim(pool), 8 * PAGE);
	must_be_whole(pool);
	ck_assert_uint_eq(bufpool_trim(pool), 8 * PAGE);

	/* Linux before 5.14 cannot populate by itself. */
	madvise_error = EINVAL;
	must_be_whole(pool);
	madvise_error = 0;
	ck_assert_uint_eq(bufpool_trim(pool), 8 * PAGE);
	bufpool_destroy(pool);
}
END_TEST

/* The only buffer is in the hands of a trim, which then wakes who waits. */
static struct {
	bufpool_t *pool;
	pthread_barrier_t barrier;
} stopped;

static void *trim_and_stop(void *arg)
{
	(void) arg;
	stop_in_trim = &stopped.barrier;
	must(bufpool_trim(stopped.pool) == PAGE);
	stop_in_trim = NULL;
	return NULL;
}

static void *wait_for_trimmed(void *arg)
{
	bufpool_buf_t *buf;

	(void) arg;
	/* With a timeout it would look once more in the end. */
	buf = bufpool_checkout_wait(stopped.pool, 1, NULL);
	must(buf && is_zero(buf));
	bufpool_return(buf);
	return NULL;
}

START_TEST(trim_wakes_waiters)
{
	bufpool_t *pool = pool_of(1, 0);
	pthread_t trimmer, waiter;

	stopped.pool = pool;
	must(!pthread_barrier_init(&stopped.barrier, NULL, 2));
	trimmer = start_thread(trim_and_stop, NULL);
	meet(&stopped.barrier);
	must(bufpool_try_checkout(pool, 1) == NULL && errno == ENOBUFS);
	waiter = start_thread(wait_for_trimmed, NULL);
	usleep(is_small() ? 500000 : 50000); /* asleep by then, for sure */
	meet(&stopped.barrier);
	join_thread(trimmer);
	join_thread(waiter);
	destroy_whole(pool);
}
END_TEST

/* A checkout that finds nothing for that has the trim go on, and finds it then. */
static void go_on_and_end(void)
{
	at_yield = NULL;
	meet(&stopped.barrier);
	while (ck_pr_load_32(&stopped.pool->demand
	                              ->klass[BUFPOOL_CLASS_4K].movers) != 0)
		usleep(100);
}

/* The loop index is the way, then the depth of the caches. */
START_TEST(trim_fails_no_checkout)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	const struct way *way = &ways[_i / 2];
	bufpool_buf_t *buf;
	pthread_t trimmer;

	config.exhausted = BUFPOOL_FAIL;
	set_cache(&config, _i % 2);
	stopped.pool = make_pool(config);
	must(!pthread_barrier_init(&stopped.barrier, NULL, 2));
	bufpool_return(way->take(stopped.pool, 1));
	trimmer = start_thread(trim_and_stop, NULL);
	meet(&stopped.barrier);
	at_yield = go_on_and_end;
	buf = way->take(stopped.pool, 1);
	must(buf && is_zero(buf));
	must(at_yield == NULL);
	join_thread(trimmer);
	bufpool_return(buf);
	destroy_whole(stopped.pool);
}
END_TEST

/* A hardened pool's only buffer is in the hands of who brings it from the overflow
   into the ring. */
static struct {
	struct depot *depot;
	struct bp_buf *d;
} in_hand;

static void bring_it(void)
{
	at_yield = NULL;
	must(bp_depot_give(in_hand.depot, 0, &in_hand.d, 1) == 0);
	ck_pr_store_32(&in_hand.depot->queue[0].moving, 0);
}

START_TEST(drain_fails_no_checkout)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	const struct way *way = &ways[_i];
	bufpool_t *pool;

	config.exhausted = BUFPOOL_FAIL;
	config.flags = BUFPOOL_HARDENED;
	pool = make_pool(config);
	in_hand.depot = pool_depot(pool, 0, BUFPOOL_CLASS_4K);
	in_hand.d = bp_depot_take_one(in_hand.depot, 0);
	must(in_hand.d);
	in_hand.depot->queue[0].moving = 1;
	at_yield = bring_it;
	bufpool_return(way->take(pool, 1));
	must(at_yield == NULL);
	destroy_whole(pool);
}
END_TEST

/* A thread that has no cache, and gets none for this. */
static void *trim_without_cache(void *arg)
{
	struct usage before = usage();
	size_t got;

	errno = ERRNO_SENTINEL;
	got = bufpool_trim(arg);
	must(errno == ERRNO_SENTINEL);
	must(got == 24 * PAGE);
	must(same(before, usage()));
	return NULL;
}

START_TEST(trim_without_memory)
{
	bufpool_t *pool = pool_of(24, 8);
	struct sleeper s;

	put_to_sleep(&s, pool, 6);
	run_thread(trim_without_cache, pool);
	wake_up(&s);
	destroy_whole(pool);
}
END_TEST

START_TEST(create_cannot_populate)
{
	struct usage before = usage();
	bufpool_t *pool;

	madvise_error = ENOMEM;
	must(bufpool_create(NULL) == NULL && errno == ENOMEM);
	must(same(before, usage()));

	/* Linux before 5.14 has no MADV_POPULATE_WRITE. */
	madvise_error = EINVAL;
	KEEPS_ERRNO(pool = bufpool_create(NULL));
	madvise_error = 0;
	ck_assert_ptr_nonnull(pool);
	destroy_whole(pool);
}
END_TEST

/* A growth of which one call of the system fails leaves everything as it was, or does
   without; the loop index says whether it is asked for, then which flags. */
static bool grow_with_failure(bufpool_t *pool, long n, bool asked)
{
	bufpool_buf_t *buf = NULL;
	bool done, reached;
	size_t before = mapped;

	errno = 0;
	allocations = n;
	if (asked)
		done = bufpool_grow(pool, BUFPOOL_CLASS_4K, 6) == 0;
	else
		done = (buf = bufpool_try_checkout(pool, 1)) != NULL;
	reached = allocations < 0;
	allocations = -1;
	bufpool_return(buf);
	if (!done) {
		must(errno == (asked ? ENOMEM : ENOBUFS) || errno == EPERM);
		must(stats_of(pool).per_class[0].total == 2);
		must(bufpool_regions(pool, NULL, 0) == 1);
		must(mapped == before);
	}
	return reached;
}

START_TEST(growth_at_each_failure)
{
	const unsigned flags[] = {0, BUFPOOL_HUGEPAGES, BUFPOOL_LOCKED,
	                          BUFPOOL_DONTDUMP | BUFPOOL_DONTFORK};
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 2);
	size_t mapped_before = mapped;
	bufpool_buf_t *bufs[15];
	bufpool_t *pool;
	bool reached;
	long n = 0;

	config.max_count[BUFPOOL_CLASS_4K] = 14;
	config.region_max = 3 * PAGE;
	config.exhausted = BUFPOOL_FAIL;
	config.flags = flags[_i / 2];
	do {
		pool = make_pool(config);
		must(drain(pool, BUFPOOL_CLASS_4K, bufs, 2) == 2);
		reached = grow_with_failure(pool, n++, _i % 2);
		bufpool_return(bufs[1]); /* it may be tried again */
		must(drain(pool, BUFPOOL_CLASS_4K, bufs + 1, 14) == 13);
		bufpool_return_bulk(bufs, 14);
		destroy_whole(pool);
	} while (reached);
	ck_assert_int_gt(n, 4);
	bufpool_thread_flush(NULL);
	ck_assert_uint_le(mapped, mapped_before + (size_t) 64 * PAGE);
}
END_TEST

/* Who found none when the class was smaller does not have it grow once more. */
START_TEST(grown_already)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 2);
	bufpool_t *pool;

	config.max_count[BUFPOOL_CLASS_4K] = 8;
	pool = make_pool(config);
	must(bufpool_grow(pool, BUFPOOL_CLASS_4K, 1) == 0);
	ck_assert(!bp_grow_exhausted(pool, 0, BUFPOOL_CLASS_4K, 2));
	ck_assert_uint_eq(stats_of(pool).per_class[0].total, 3);
	ck_assert(bp_may_grow(pool, BUFPOOL_CLASS_4K));
	bufpool_destroy(pool);
}
END_TEST

/* A child finds the tables as they were while another thread's growth was told of, but
   not all of it was there yet: of the region itself, or of what it holds. */
static void use_without_it(void *pool)
{
	bufpool_buf_t *bufs[9];

	must(stats_of(pool).per_class[0].total == 2);
	must(bufpool_regions(pool, NULL, 0) == 1);
	must(drain(pool, BUFPOOL_CLASS_4K, bufs, 9) == 8);
	bufpool_return_bulk(bufs, 8);
	destroy_whole(pool);
}

START_TEST(half_a_growth)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 2);
	bufpool_t *pool;
	struct region *r;
	char text[4096];
	int status;

	config.max_count[BUFPOOL_CLASS_4K] = 8;
	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	r = &pool->region[1];
	r->bufs = pool->depot[0].bufs + 2;
	r->count = _i ? 3 : 0;
	pool->regions = pool->laid = 2;
	pool->growing = 1;
	status = run_child(use_without_it, pool, text, sizeof(text));
	ck_assert_msg(status == 0, "wait status %#x: %s", (unsigned) status,
	              text);
	pool->growing = 0;
	pool->regions = pool->laid = 1;
	r->count = 0;
	bufpool_destroy(pool);
}
END_TEST

/* A thread's first operations, with the n'th allocation failing. */
static void *first_steps(void *arg)
{
	bufpool_t *pool = arg;

	for (long n = 0; n < 6; n++) {
		bufpool_buf_t *buf;

		errno = ERRNO_SENTINEL;
		allocations = n;
		buf = bufpool_checkout(pool, 100);
		must(buf && is_zero(buf));
		fill(buf, 0xaa);
		allocations = n;
		bufpool_return(buf);
		allocations = -1;
		must(errno == ERRNO_SENTINEL);
		must(stats_of(pool).checked_out == 0);
		must(stats_of(pool).bytes_checked_out == 0);
		/* No cache yet that could have taken more. */
		must(n > 1 || stats_of(pool).peak_checked_out == 1);
	}
	return NULL;
}

START_TEST(no_memory_for_a_cache)
{
	bufpool_t *pool = pool_of(4, 4);

	run_thread(first_steps, pool);
	ck_assert_uint_eq(stats_of(pool).hits, 6);
	ck_assert_uint_ge(stats_of(pool).peak_checked_out, 1);
	ck_assert_uint_le(stats_of(pool).peak_checked_out, 4);
	destroy_whole(pool);
}
END_TEST

/* Nothing pooled: 200 buffers need descriptors as well, in chunks. */
START_TEST(heap_at_each_allocation)
{
	static bufpool_buf_t *bufs[200];
	size_t size = classes[_i].size;
	bufpool_t *pool = make_pool(empty_config());
	size_t got;

	for (long n = 0; n < 210; n++) {
		allocations = n;
		errno = 0;
		got = bufpool_checkout_bulk(pool, size - 1, bufs, 200);
		allocations = -1;
		ck_assert_int_eq(errno, got < 200 ? ENOMEM : 0);
		ck_assert_uint_eq(stats_of(pool).heap_bytes, got * size);
		ck_assert_uint_eq(stats_of(pool).checked_out, got);
		bufpool_return_bulk(bufs, got);
		must_be_whole(pool);
	}
	ck_assert_uint_eq(got, 200);
	bufpool_destroy(pool);
}
END_TEST

/* Taken and given by turns, alone or beside others; and memory that cannot be given
   to the system stays in use. */
START_TEST(heap_by_turns)
{
	static bufpool_buf_t *bufs[1000];
	bufpool_t *pool = make_pool(empty_config());

	for (size_t held = 0; held <= 1000; held += 500) {
		must(bufpool_checkout_bulk(pool, 1, bufs, held) == held);
		for (int i = 0; i < 3; i++) { /* so many at a time */
			bufpool_buf_t *some[16];

			if (i == 1)
				memory_calls = 0;
			must(bufpool_checkout_bulk(pool, 1, some, 16) == 16);
			for (size_t j = 0; j < 16; j++)
				must(is_zero(some[j]));
			fill(some[15], 1);
			bufpool_return_bulk(some, 16);
		}
		ck_assert_int_eq(memory_calls, 0);
		madvise_error = held == 500 ? EINVAL : 0;
		bufpool_return_bulk(bufs, held);
		madvise_error = 0;
	}
	must_be_whole(pool);
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------- membarrier */

/* Without it, fences do the same. */
START_TEST(no_membarrier)
{
	struct sleeper s[3];
	bufpool_buf_t *bufs[24];
	const struct cache *c;
	struct walk walk;
	bufpool_t *pool;
	void *data;

	membarrier_refused = true;
	KEEPS_ERRNO(pool = pool_of(24, 8));
	for (int i = 0; i < 3; i++)
		put_to_sleep(&s[i], pool, 6);
	/* The fast paths, which have none, are not for these caches. */
	walk = walk_caches(pool, BERTHS_TAKEN);
	while ((c = bp_walk_next(&walk)) != NULL)
		must(c->fast.pool == BP_NO_POOL && c->fast.fenced);
	ck_assert_uint_eq(drain(pool, BUFPOOL_CLASS_4K, bufs, 24), 24);
	ck_assert_uint_gt(stats_of(pool).per_class[BUFPOOL_CLASS_4K].stolen, 0);
	data = bufs[0]->data;
	bufpool_return_bulk(bufs, 24);
	for (int i = 0; i < 3; i++)
		wake_up(&s[i]);

	/* Destroy empties the cache of a thread that sleeps. */
	put_to_sleep(&s[0], pool, 6);
	bufpool_destroy(pool);
	ck_assert(!is_mapped(data));
	wake_up(&s[0]);
}
END_TEST

/*
 * An owner that takes while a thief has claimed half of what it has, and not
 * yet taken that: the last of its buffers it takes as a thief does.  Or it sends
 * all to the depot.
 */
static struct {
	bufpool_t *pool;
	bufpool_buf_t *bufs[4];
	enum taking { ONE_BY_ONE, IN_BULK, FLUSHED, TAKINGS } way;
	pthread_barrier_t go, done;
	int fences;
} rival;

/* How many it has then. */
static size_t rival_takes(void)
{
	size_t n = 4, got = 0;

	if (rival.way == FLUSHED) {
		bufpool_thread_flush(rival.pool);
		n = 2; /* of which the thief may have the others */
	}
	while (got < n)
		if (rival.way == IN_BULK)
			got += bufpool_checkout_bulk(rival.pool, 1, rival.bufs,
			                             n);
		else
			rival.bufs[got++] = bufpool_checkout(rival.pool, 1);
	/* The first one as a thief does; seeing that, it has sent the others to
	   the depot. */
	must(rival.way == FLUSHED ||
	     stats_of(rival.pool).per_class[BUFPOOL_CLASS_4K].cache_hits >= 1);
	must(stats_of(rival.pool).hits >= 4 + n);
	return n;
}

static void *rival_thread(void *arg)
{
	size_t n;

	(void) arg;
	must(bufpool_checkout_bulk(rival.pool, 1, rival.bufs, 4) == 4);
	bufpool_return_bulk(rival.bufs, 4);
	meet(&rival.done);
	meet(&rival.go);
	n = rival_takes();
	must(stats_of(rival.pool).checked_out == n);
	must(cached_in(rival.pool) == 0);
	meet(&rival.done);
	meet(&rival.go);
	bufpool_return_bulk(rival.bufs, n);
	return NULL;
}

/* The thief's first fence is for what was put before, the second for what it has
   claimed. */
static void at_claim(void)
{
	if (rival.fences++ == 0)
		return;
	at_membarrier = NULL;
	meet(&rival.go);
	meet(&rival.done);
}

/* The loop index is the way that they go. */
START_TEST(contested_takes_count)
{
	bufpool_buf_t *buf;
	pthread_t thread;

	rival.pool = pool_of(4, 4);
	rival.way = (enum taking) _i;
	must(!pthread_barrier_init(&rival.go, NULL, 2));
	must(!pthread_barrier_init(&rival.done, NULL, 2));
	thread = start_thread(rival_thread, NULL);
	meet(&rival.done);
	at_membarrier = at_claim;
	buf = bufpool_try_checkout(rival.pool, 1);
	must(at_membarrier == NULL);
	/* What was flushed is found where it is now. */
	must(rival.way == FLUSHED ? buf != NULL : !buf && errno == ENOBUFS);
	bufpool_return(buf);
	meet(&rival.go);
	join_thread(thread);
	must(stats_of(rival.pool).checked_out == 0);
	destroy_whole(rival.pool);
}
END_TEST

/* A thief that was late has raised limit above bottom: the owner took what was
   there while it looked.  A bulk of more than there ever were goes around. */
START_TEST(late_limit)
{
	bufpool_t *pool = pool_of(8, 4);
	struct bp_magazine *m;
	bufpool_buf_t *bufs[8];

	bufpool_return(bufpool_checkout(pool, 1));
	m = &bp_thread_fast->magazine[BUFPOOL_CLASS_4K];
	m->limit = m->bottom + 1;
	must(bufpool_checkout_bulk(pool, 1, bufs, 8) == 8);
	must(are_disjoint(bufs, 8));
	must(stats_of(pool).checked_out == 8);
	must(stats_of(pool).misses == 0);
	bufpool_return_bulk(bufs, 8);
	destroy_whole(pool);
}
END_TEST

/* A gauge stands for what is out, and for what is spare: at rest for no more. */
START_TEST(gauges_stand_for_spares)
{
	bufpool_t *pool = pool_of(8, 4);
	struct depot *depot = pool_depot(pool, 0, BUFPOOL_CLASS_4K);
	uint64_t spare = 0;
	struct sleeper s;

	put_to_sleep(&s, pool, 4);
	wake_up(&s);
	for (unsigned i = 0; i < depot->shards; i++)
		spare += depot->shard[i].spare;
	ck_assert_uint_gt(spare, 0);
	ck_assert_uint_eq(pool->account.klass[BUFPOOL_CLASS_4K].now, spare);
	ck_assert_uint_eq(pool->account.bufs.now, spare);
	ck_assert_uint_eq(pool->account.bytes.now, spare * PAGE);
	destroy_whole(pool);
}
END_TEST

/* Another pool may come to lie where this one did. */
START_TEST(destroyed_pool_is_forgotten)
{
	bufpool_t *pool = pool_of(4, 4);

	bufpool_return(bufpool_checkout(pool, 1));
	must(bp_thread_fast->pool == pool && bp_thread_fast->key != 0);
	bufpool_destroy(pool);
	must(bp_thread_fast->pool == BP_NO_POOL && bp_thread_fast->key == 0);
}
END_TEST

static long fences;

static void count_fence(void)
{
	fences++;
}

/* The pool relies on it, then the system begins to refuse (seccomp). */
START_TEST(membarrier_ends)
{
	struct sleeper s;
	bufpool_buf_t *bufs[24];
	bufpool_t *pool = pool_of(24, 8);
	void *data;
	size_t n = 0, theirs;

	put_to_sleep(&s, pool, 6);
	theirs = cached_in(pool);
	membarrier_refused = true;
	errno = 0;
	while ((bufs[n] = bufpool_try_checkout(pool, 1)) != NULL)
		n++;
	ck_assert_int_eq(errno, EPERM);
	ck_assert_uint_eq(n, 24 - theirs); /* the sleeper's stay out of reach */
	/* Not again and again. */
	at_membarrier = count_fence;
	must(!bufpool_try_checkout(pool, 1));
	at_membarrier = NULL;
	ck_assert_int_ge(fences, 1);
	ck_assert_int_le(fences, 5);
	data = bufs[0]->data;
	bufpool_return_bulk(bufs, n);
	bufpool_thread_flush(pool);
	bufpool_destroy(pool);
	ck_assert(is_mapped(data));
	wake_up(&s); /* and it brings home what it had */
	ck_assert(!is_mapped(data));
}
END_TEST

/* ------------------------------------------------------------- what a fork leaves */

/*
 * In the child a page of the depot may be from when a buffer was idle that is out
 * now.  A fork handler that was registered before the library's finds it so, and must
 * not believe it.
 */
static struct {
	bufpool_t *pool;
	bufpool_buf_t *buf;
	void (*call)(void); /* of the handler in the child */
} torn;

static void early_child(void)
{
	struct depot *depot;

	if (!torn.call)
		return;
	depot = pool_depot(torn.pool, 0, BUFPOOL_CLASS_4K);
	for (uint32_t i = 0; i < depot->total; i++)
		depot->next[i] = i + 1 < depot->total ? i + 1 : STACK_NIL;
	depot->shard[0].head = 0;
	torn.call();
}

/* Before anything of the library. */
static void register_early(void)
{
	pthread_atfork(NULL, NULL, early_child);
}
__attribute__((section(".preinit_array"), used)) static void (
	*const before_all)(void) = register_early;

static void trim_torn(void)
{
	must(bufpool_trim(torn.pool) == 7 * PAGE);
}

static void destroy_torn(void)
{
	bufpool_destroy(torn.pool);
}

static void return_the_torn(void *arg)
{
	const void *data = torn.buf->data;

	(void) arg;
	must(is_mapped(data));
	must(all_bytes(data, PAGE, 0x5a));
	bufpool_return(torn.buf);
	must(is_mapped(data) == (torn.call != destroy_torn));
}

static void (*const torn_calls[])(void) = {trim_torn, destroy_torn};

START_TEST(torn_depot)
{
	char text[4096];
	int status;

	torn.pool = pool_of(8, 0);
	torn.buf = bufpool_checkout(torn.pool, 1);
	fill(torn.buf, 0x5a);
	torn.call = torn_calls[_i];
	status = run_child(return_the_torn, NULL, text, sizeof(text));
	torn.call = NULL;
	ck_assert_msg(status == 0, "wait status %#x: %s", (unsigned) status,
	              text);
	bufpool_return(torn.buf);
	destroy_whole(torn.pool);
}
END_TEST

/* ------------------------------------------------------------------ places */

/* Which CPU a thread is made to believe it is on; -1: it is not told. */
static __thread int cpu_now;

/* glibc has no rseq area, to which one would look instead. */
extern const unsigned __wrap___rseq_size;
const unsigned __wrap___rseq_size = 0;

int __wrap_sched_getcpu(void);
int __wrap_sched_getcpu(void)
{
	if (cpu_now < 0)
		errno = ENOSYS;
	return cpu_now;
}

enum { CPU_HERE = 0, CPU_THERE = 1 }; /* at the first, the second place */

/* Half of the buffers at each of two places, which are made up. */
static bufpool_t *two_places(size_t count)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, count);
	bufpool_t *pool;

	must(setenv("HWLOC_SYNTHETIC", "node:2 pu:1", 1) == 0);
	must(setenv("HWLOC_THISSYSTEM", "1", 1) == 0);
	config.numa_node = BUFPOOL_NUMA_LOCAL;
	set_cache(&config, 8);
	pool = make_pool(config);
	must(pool->places == 2);
	return pool;
}

/* A thread that moves to another place while a thief is about to steal. */
static struct mover {
	bufpool_t *pool;
	int from, to;
	pthread_barrier_t go, done;
} mover;

static void *moving_thread(void *arg)
{
	bufpool_buf_t *buf;

	(void) arg;
	cpu_now = mover.from;
	bufpool_return(bufpool_checkout(mover.pool, 1));
	meet(&mover.done);
	meet(&mover.go);
	cpu_now = mover.to;
	buf = bufpool_checkout(mover.pool, 1);
	bufpool_return(buf);
	meet(&mover.done);
	meet(&mover.go);
	return NULL;
}

static void at_theft(void)
{
	at_membarrier = NULL;
	meet(&mover.go);
	meet(&mover.done);
}

/* Each buffer is in the depot of its place. */
static void must_be_at_home(bufpool_t *pool)
{
	for (unsigned place = 0; place < pool->places; place++) {
		struct depot *depot = pool_depot(pool, place, BUFPOOL_CLASS_4K);
		struct bp_buf *bufs[64];
		unsigned n = 0;

		n += bp_depot_take(depot, 0, bufs, 64);
		while (bp_depot_take(depot, DEPOT_COLD, bufs + n, 1) == 1)
			n++;
		must(n == depot->total);
		for (unsigned i = 0; i < n; i++)
			must(bufs[i]->place == place);
		must(bp_depot_give(depot, 0, bufs, n) == 0);
	}
}

static void trim_beside_mover(void *arg)
{
	pthread_t thread;

	mover.from = *(int *) arg;
	mover.to = !mover.from;
	mover.pool = two_places(8);
	must(!pthread_barrier_init(&mover.go, NULL, 2));
	must(!pthread_barrier_init(&mover.done, NULL, 2));
	thread = start_thread(moving_thread, NULL);
	meet(&mover.done);
	at_membarrier = at_theft;
	/* All, or all but one that came back behind its back. */
	must(bufpool_trim(mover.pool) >= 7 * PAGE);
	must(at_membarrier == NULL);
	meet(&mover.go);
	join_thread(thread);
	bufpool_thread_flush(NULL);
	must_be_at_home(mover.pool);
	destroy_whole(mover.pool);
}

/* What a trim takes from a cache that has just come from elsewhere goes to
   where it belongs. */
START_TEST(trim_beside_a_move)
{
	char text[4096];
	int status = run_child(trim_beside_mover, &_i, text, sizeof(text));

	ck_assert_msg(status == 0, "wait status %#x: %s", (unsigned) status,
	              text);
}
END_TEST

/* ----------------------------------------------------------------- waiting */

static void *wait_for_one(void *arg)
{
	const struct timespec patience = {10, 0};
	bufpool_buf_t *buf = bufpool_checkout_wait(arg, 1, &patience);

	must(buf);
	bufpool_return(buf);
	return NULL;
}

struct family {
	bufpool_t *pool;
	bufpool_buf_t *buf; /* the only one */
};

/* They sleep in the parent: nobody here is to be woken. */
static void return_in_the_child(void *arg)
{
	struct family *family = arg;

	futex_wakes = 0;
	for (int i = 0; i < 3; i++) {
		bufpool_return(family->buf);
		bufpool_thread_flush(NULL);
		must(futex_wakes == 0);
		family->buf = bufpool_try_checkout(family->pool, 1);
		must(family->buf);
	}
}

/* The loop index is the depth of the caches. */
START_TEST(waiters_stay_in_the_parent)
{
	struct family family = {.pool = pool_of(1, (size_t) _i)};
	pthread_t threads[3];
	char text[4096];
	int status;

	family.buf = bufpool_checkout(family.pool, 1);
	futex_waits = futex_wakes = 0;
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start_thread(wait_for_one, family.pool);
	while (futex_waits < (long) ARRAY_SIZE(threads))
		usleep(1000);
	status = run_child(return_in_the_child, &family, text, sizeof(text));
	ck_assert_msg(status == 0, "wait status %#x: %s", (unsigned) status,
	              text);
	bufpool_return(family.buf);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
	ck_assert_int_gt(futex_wakes, 0);
	destroy_whole(family.pool);
}
END_TEST

/*
 * The fence of who declares a class scarce stands for those that owners do
 * without: it comes when that is done and all alarms are set, and before who
 * waits looks and sleeps.
 */
static struct {
	bufpool_t *pool;
	long fences;
} fencing;

static void at_fence(void)
{
	struct walk walk = walk_caches(fencing.pool, BERTHS_TAKEN);
	const struct cache *c;

	must(is_scarce(want_of(fencing.pool->demand, 0, BUFPOOL_CLASS_4K)));
	while ((c = bp_walk_next(&walk)) != NULL)
		must(c->fast.alarm == 1);
	must(futex_waits == 0);
	fencing.fences++;
}

START_TEST(waiter_passes_a_fence)
{
	const struct timespec no_time = {0, 0};
	struct sleeper s[2];
	bufpool_buf_t *bufs[4];

	/* Some caches, with nothing to steal in them. */
	fencing.pool = pool_of(4, 4);
	for (int i = 0; i < 2; i++)
		put_to_sleep(&s[i], fencing.pool, 1);
	at_membarrier = at_fence;
	futex_waits = 0;
	ck_assert_uint_eq(drain(fencing.pool, BUFPOOL_CLASS_4K, bufs, 4), 4);
	must(!bufpool_checkout_wait(fencing.pool, 1, &no_time));
	at_membarrier = NULL;
	ck_assert_int_ge(fencing.fences, 1);
	ck_assert_int_gt(futex_waits, 0);
	bufpool_return_bulk(bufs, 4);
	for (int i = 0; i < 2; i++)
		wake_up(&s[i]);
	destroy_whole(fencing.pool);
}
END_TEST

/* Who cannot sleep looks again and again: it works, and ends in time. */
START_TEST(futex_refused_all_the_same)
{
	const struct timespec moment = {0, 20000000};
	bufpool_t *pool = pool_of(1, (size_t) _i);
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);
	pthread_t thread;

	futex_refused = true;
	must(!bufpool_checkout_wait(pool, 1, &moment) && errno == ETIMEDOUT);
	thread = start_thread(wait_for_one, pool);
	usleep(20000);
	KEEPS_ERRNO(bufpool_return(buf));
	join_thread(thread);
	destroy_whole(pool);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("faults");
	TCase *tc = add_case(suite, "allocations", 10);

	tcase_add_test(tc, create_at_each_allocation);
	tcase_add_loop_test(tc, create_at_each_call, 0, ARRAY_SIZE(creates));
	tcase_add_test(tc, create_with_advice_refused);
	tcase_add_test(tc, no_huge_pages_beside_others);
	tcase_add_loop_test(tc, growth_beside_others, 0, 2);
	tcase_add_loop_test(tc, child_without_a_region, 0, 2);
	tcase_add_test(tc, create_cannot_populate);
	tcase_add_loop_test(tc, growth_at_each_failure, 0, 8);
	tcase_add_test(tc, grown_already);
	tcase_add_loop_test(tc, half_a_growth, 0, 2);
	tcase_add_test(tc, no_memory_for_a_cache);
	tcase_add_loop_test(tc, heap_at_each_allocation, 0, 2);
	tcase_add_test(tc, heap_by_turns);
	tc = add_case(suite, "trim", 10);
	tcase_add_test(tc, trim_is_refused);
	tcase_add_test(tc, trim_wakes_waiters);
	tcase_add_loop_test(tc, trim_fails_no_checkout, 0,
	                    2 * ARRAY_SIZE(ways));
	tcase_add_loop_test(tc, drain_fails_no_checkout, 0, ARRAY_SIZE(ways));
	tcase_add_test(tc, trim_without_memory);
	tcase_add_loop_test(tc, trim_beside_a_move, 0, 2);
	tc = add_case(suite, "membarrier", 10);
	tcase_add_test(tc, no_membarrier);
	tcase_add_test(tc, late_limit);
	tcase_add_test(tc, gauges_stand_for_spares);
	tcase_add_loop_test(tc, contested_takes_count, 0, TAKINGS);
	tcase_add_test(tc, destroyed_pool_is_forgotten);
	tcase_add_test(tc, membarrier_ends);
	tc = add_case(suite, "fork", 10);
	tcase_add_loop_test(tc, torn_depot, 0, ARRAY_SIZE(torn_calls));
	tc = add_case(suite, "waiting", 20);
	tcase_add_test(tc, waiter_passes_a_fence);
	tcase_add_loop_test(tc, waiters_stay_in_the_parent, 0, 2);
	tcase_add_loop_test(tc, futex_refused_all_the_same, 0, 2);
	lock_huge_pages(LOCK_SH);
	return run_suite(suite);
}
