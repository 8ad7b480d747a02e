/* SPDX-License-Identifier: MIT */
/*
 * common.h - what the check_*.c programs share
 *
 * BUFPOOL_TEST_SCALE=small shortens every loop, for Valgrind and sanitizers;
 * =full makes those that hunt for races as long as CI has time for.
 *
 * must() is for threads and for hot loops, where Check's own assertions may
 * not be used or cost a write each: it names the line and aborts, which Check
 * reports as a failure.
 */
#ifndef TESTS_COMMON_H
#define TESTS_COMMON_H

#include <bufpool.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ((size_t) 4096)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define must(expr)                                                         \
	((expr) ? (void) 0 : must_failed(__FILE__, __LINE__, #expr))

static inline _Noreturn void must_failed(const char *file, int line,
                                         const char *expr)
{
	fprintf(stderr, "%s:%d: '%s' failed (errno %d)\n", file, line, expr,
	        errno);
	abort();
}

/* ----------------------------------------------------------------- errno */

#define ERRNO_SENTINEL 4242

/* The call failed, and says so with this errno. */
#define REFUSED(failure, err)                                              \
	do {                                                               \
		errno = ERRNO_SENTINEL;                                    \
		ck_assert_msg(failure, "'%s' does not hold", #failure);    \
		ck_assert_msg(errno == (err), "'%s': errno is %d, not %s", \
		              #failure, errno, #err);                      \
	} while (0)

/* The statement works, and leaves errno alone. */
#define KEEPS_ERRNO(statement)                                             \
	do {                                                               \
		errno = ERRNO_SENTINEL;                                    \
		statement;                                                 \
		ck_assert_msg(errno == ERRNO_SENTINEL, "'%s' set errno %d", \
		              #statement, errno);                          \
	} while (0)

/* -------------------------------------------------------------- the suite */

static inline bool is_scale(const char *name)
{
	const char *scale = getenv("BUFPOOL_TEST_SCALE");

	return scale && strcmp(scale, name) == 0;
}

static inline bool is_small(void)
{
	return is_scale("small");
}

static inline long scaled_by(long n, long less)
{
	return n < less ? 1 : n / less;
}

/* How often to do what is done over and over; */
static inline long scaled(long n)
{
	return scaled_by(n, is_small() ? 50 : 1);
}

/* or in the hope to meet a race. */
static inline long hunting(long n)
{
	return scaled_by(n, is_small() ? 50 : is_scale("full") ? 1 : 6);
}

/*
 * Valgrind keeps a map of its own: to it, what BUFPOOL_DONTFORK keeps from a
 * child is still there, and nothing else may be mapped in its place.
 */
static inline bool is_valgrind(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return preload && strstr(preload, "vgpreload");
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

static inline bool is_asan(void)
{
#ifdef __SANITIZE_ADDRESS__
	return true;
#else
	return false;
#endif
}

/* The test case that the following tests go to; seconds are at full scale. */
static inline TCase *add_case(Suite *suite, const char *name, double seconds)
{
	TCase *tcase = tcase_create(name);

	/* The small scale is for tools that are slower than it is small. */
	tcase_set_timeout(tcase, is_small() ? seconds * 10 : seconds);
	suite_add_tcase(suite, tcase);
	return tcase;
}

static inline int run_suite(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/*
 * Reserved huge pages are the machine's: a program that counts them (LOCK_EX) does
 * not run while others may take some (LOCK_SH), those of another build neither.
 * Held to the program's end.
 */
static inline void lock_huge_pages(int how)
{
	int fd = open("/proc/sys/vm/nr_hugepages", O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		must(flock(fd, how) == 0);
}

/*
 * The contract wants ENOMEM for PTRDIFF_MAX; AddressSanitizer's malloc would
 * stop the program instead.
 */
const char *__asan_default_options(void);
__attribute__((used, weak, visibility("default"))) const char *
__asan_default_options(void)
{
	return "allocator_may_return_null=1";
}

/* ------------------------------------------------------------ size classes */

/* Not by the addresses of the library's, which cannot be inlined. */
#define CALL(klass)                                                        \
	static inline bufpool_buf_t *call_checkout_##klass(bufpool_t *pool) \
	{                                                                  \
		return bufpool_checkout_##klass(pool);                     \
	}
CALL(4k)
CALL(64k)
CALL(256k)
CALL(1m)
#undef CALL

static const struct klass {
	const char *name;
	size_t size;
	bufpool_buf_t *(*checkout)(bufpool_t *pool);
} classes[] = {
	[BUFPOOL_CLASS_4K] = {"4k", 4096, call_checkout_4k},
	[BUFPOOL_CLASS_64K] = {"64k", 65536, call_checkout_64k},
	[BUFPOOL_CLASS_256K] = {"256k", 262144, call_checkout_256k},
	[BUFPOOL_CLASS_1M] = {"1m", 1048576, call_checkout_1m},
};

_Static_assert(ARRAY_SIZE(classes) == BUFPOOL_CLASSES,
               "the tests are about the classes of gen/classes.def");

/* --------------------------------------------------------- ways to check out */

static inline bufpool_buf_t *take_by_size(bufpool_t *pool, size_t size)
{
	return bufpool_checkout(pool, size);
}

static inline bufpool_buf_t *take_aligned(bufpool_t *pool, size_t size)
{
	return bufpool_checkout_aligned(pool, size, 64);
}

static inline bufpool_buf_t *take_bulk(bufpool_t *pool, size_t size)
{
	bufpool_buf_t *buf = NULL;

	return bufpool_checkout_bulk(pool, size, &buf, 1) == 1 ? buf : NULL;
}

/* Every call that takes one buffer by its size; all obey the same rules. */
static const struct way {
	const char *name;
	bufpool_buf_t *(*take)(bufpool_t *pool, size_t size);
	bool heap; /* may come from the heap */
} ways[] = {
	{"checkout", take_by_size, true},
	{"zeroed", bufpool_checkout_zeroed, true},
	{"aligned", take_aligned, true},
	{"bulk", take_bulk, true},
	{"try", bufpool_try_checkout, false},
};

/* ----------------------------------------------------------------- pools */

static const bufpool_config_t default_config = BUFPOOL_CONFIG_INIT;

/* The defaults, with nothing pooled. */
static inline bufpool_config_t empty_config(void)
{
	bufpool_config_t config = BUFPOOL_CONFIG_EMPTY;

	return config;
}

/* As many buffers of every class. */
static inline bufpool_config_t even_config(size_t count)
{
	bufpool_config_t config = default_config;

	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		config.count[i] = count;
	return config;
}

static inline bufpool_config_t class_config(int size_class, size_t count)
{
	bufpool_config_t config = empty_config();

	config.count[size_class] = count;
	return config;
}

static inline void set_cache(bufpool_config_t *config, size_t depth)
{
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		config->cache[i] = depth;
}

/* With BUFPOOL_TEST_HARDENED set, pools that can be hardened are. */
static inline bool is_hardened(void)
{
	return getenv("BUFPOOL_TEST_HARDENED") != NULL;
}

static inline bufpool_t *make_pool(bufpool_config_t config)
{
	bufpool_t *pool;

	if (is_hardened() && config.wipe == BUFPOOL_WIPE_ALL)
		config.flags |= BUFPOOL_HARDENED;
	pool = bufpool_create(&config);

	must(pool);
	return pool;
}

static inline bufpool_t *class_pool(int size_class, size_t count)
{
	return make_pool(class_config(size_class, count));
}

/* Where a buffer comes from: a class of the pool, of the heap, or oversize. */
struct source {
	size_t size;
	int size_class; /* -1: oversize */
	bool heap;
	size_t cache;
};

static inline bufpool_t *source_pool(const struct source *source,
                                     enum bufpool_wipe wipe, size_t count)
{
	bufpool_config_t config = empty_config();

	config.wipe = wipe;
	set_cache(&config, source->cache);
	if (!source->heap) {
		config.count[source->size_class] = count;
		config.exhausted = BUFPOOL_FAIL;
	}
	return make_pool(config);
}

static inline bufpool_stats_t stats_of(const bufpool_t *pool)
{
	bufpool_stats_t stats;

	bufpool_stats(pool, &stats);
	return stats;
}

static inline uint64_t cached_in(const bufpool_t *pool)
{
	bufpool_stats_t stats = stats_of(pool);
	uint64_t cached = 0;

	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		cached += stats.per_class[k].cached;
	return cached;
}

/* Take all that the pool has of a class; returns how many. */
static inline size_t drain(bufpool_t *pool, int size_class,
                           bufpool_buf_t **bufs, size_t max)
{
	size_t n = 0;

	errno = 0;
	while (n < max) {
		bufs[n] = bufpool_try_checkout(pool, classes[size_class].size);
		if (!bufs[n])
			break;
		n++;
	}
	must(n == max || errno == ENOBUFS);
	return n;
}

/*
 * What has been exhausted is not cached for some time.  Take and return until it
 * is again; of each class that has a buffer idle.
 */
static inline void make_plentiful(bufpool_t *pool)
{
	for (int k = 0; k < BUFPOOL_CLASSES; k++)
		for (int i = 0; i < 20000; i++) {
			bufpool_buf_t *buf =
				bufpool_try_checkout(pool, classes[k].size);

			bufpool_return(buf);
			if (buf == NULL || stats_of(pool).per_class[k].cached)
				break;
		}
	bufpool_thread_flush(pool);
}

static inline int by_data(const void *a, const void *b)
{
	const bufpool_buf_t *const *x = a, *const *y = b;

	return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

/* No two of them share a byte, nor a handle. Sorts bufs. */
static inline bool are_disjoint(bufpool_buf_t **bufs, size_t n)
{
	qsort(bufs, n, sizeof(bufs[0]), by_data);
	for (size_t i = 1; i < n; i++) {
		const char *end = bufs[i - 1]->data;

		end += bufs[i - 1]->capacity;
		if (end > (const char *) bufs[i]->data)
			return false;
	}
	return true;
}

/*
 * Nothing is out, and what the statistics say is true: all buffers that the
 * pool was built with can be had at once, and not one more.
 */
static inline void must_be_whole(bufpool_t *pool)
{
	bufpool_stats_t stats = stats_of(pool);

	must(stats.checked_out == 0);
	must(stats.bytes_checked_out == 0);
	must(stats.heap_bytes == 0);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		size_t total = stats.per_class[i].total;
		bufpool_buf_t **bufs = calloc(total + 1, sizeof(bufs[0]));

		must(bufs);
		must(stats.per_class[i].checked_out == 0);
		must(stats.per_class[i].idle == total);
		must(drain(pool, i, bufs, total + 1) == total);
		must(are_disjoint(bufs, total));
		bufpool_return_bulk(bufs, total);
		free(bufs);
	}
}

static inline void destroy_whole(bufpool_t *pool)
{
	must_be_whole(pool);
	bufpool_destroy(pool);
}

/* ----------------------------------------------------------------- memory */

static inline bool all_bytes(const void *data, size_t n, unsigned char value)
{
	const unsigned char *bytes = data;

	return n == 0 ||
	       (bytes[0] == value && memcmp(bytes, bytes + 1, n - 1) == 0);
}

static inline bool is_zero(const bufpool_buf_t *buf)
{
	return all_bytes(buf->data, buf->capacity, 0);
}

static inline void fill(bufpool_buf_t *buf, unsigned char value)
{
	memset(buf->data, value, buf->capacity);
}

/*
 * Read memory that may be gone, and that the tools may have marked; false if
 * it is not there.
 */
static inline bool peek(const void *from, void *to, size_t n)
{
	struct iovec local = {to, n}, remote = {(void *) from, n};

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) ==
	       (ssize_t) n;
}

/* Write n bytes of value, likewise. */
static inline void poke(void *to, unsigned char value, size_t n)
{
	unsigned char *bytes = malloc(n);
	struct iovec local = {bytes, n}, remote = {to, n};

	must(bytes);
	memset(bytes, value, n);
	must(process_vm_writev(getpid(), &local, 1, &remote, 1, 0) ==
	     (ssize_t) n);
	free(bytes);
}

static inline bool is_mapped(const void *address)
{
	uintptr_t page = (uintptr_t) address & ~(PAGE - 1);
	unsigned char resident;

	return mincore((void *) page, 1, &resident) == 0;
}

/* ---------------------------------------------------------------- threads */

typedef void *thread_fn(void *arg);

static inline pthread_t start_thread(thread_fn *fn, void *arg)
{
	pthread_t thread;

	must(pthread_create(&thread, NULL, fn, arg) == 0);
	return thread;
}

static inline void join_thread(pthread_t thread)
{
	must(pthread_join(thread, NULL) == 0);
}

/* One thread from its start to its end. */
static inline void run_thread(thread_fn *fn, void *arg)
{
	join_thread(start_thread(fn, arg));
}

static inline void return_here(bufpool_buf_t *buf)
{
	bufpool_return(buf);
}

static inline void *return_thread(void *buf)
{
	bufpool_return(buf);
	return NULL;
}

static inline void return_elsewhere(bufpool_buf_t *buf)
{
	run_thread(return_thread, buf);
}

static inline void *unref_thread(void *f)
{
	bufpool_frozen_unref(f);
	return NULL;
}

static inline void unref_elsewhere(bufpool_frozen_t *f)
{
	run_thread(unref_thread, f);
}

static inline bool is_asleep(int tid)
{
	char path[64], stat[512], *after;
	size_t n;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return false; /* it has gone */
	n = fread(stat, 1, sizeof(stat) - 1, file);
	fclose(file);
	stat[n] = '\0';
	after = strrchr(stat, ')');
	return after && after[2] == 'S';
}

static inline void meet(pthread_barrier_t *barrier)
{
	int rc = pthread_barrier_wait(barrier);

	must(rc == 0 || rc == PTHREAD_BARRIER_SERIAL_THREAD);
}

/* ---------------------------------------------------------------- chance */

static inline uint64_t draw(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* --------------------------------------------------------------- processes */

/*
 * Run fn in a child whose stderr is read into text; returns its wait status.
 */
static inline int run_child(void (*fn)(void *arg), void *arg, char *text,
                            size_t size)
{
	const struct rlimit no_core = {0, 0};
	size_t used = 0;
	int ends[2], status;
	ssize_t got;
	pid_t child;

	must(pipe(ends) == 0);
	fflush(NULL);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		setrlimit(RLIMIT_CORE, &no_core);
		prctl(PR_SET_DUMPABLE, 0);
		dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		fn(arg);
		_exit(0);
	}
	close(ends[1]);
	while (used < size - 1 &&
	       (got = read(ends[0], text + used, size - 1 - used)) > 0)
		used += (size_t) got;
	text[used] = '\0';
	close(ends[0]);
	must(waitpid(child, &status, 0) == child);
	return status;
}

/* ----------------------------------------------------------------- seccomp */

/* From now on, for this thread and its offspring. */
static inline bool install(struct sock_filter *filter, size_t n)
{
	struct sock_fprog program = {(unsigned short) n, filter};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#define LOAD_NUMBER                                                            \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define IF_CALL(number, verdict)                                               \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1),                   \
		BPF_STMT(BPF_RET | BPF_K, (verdict))
#define ELSE(verdict) BPF_STMT(BPF_RET | BPF_K, (verdict))

static inline void refuse_membarrier(void)
{
	struct sock_filter filter[] = {
		LOAD_NUMBER,
		IF_CALL(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM),
		ELSE(SECCOMP_RET_ALLOW),
	};

	/* Where there is no seccomp, this is one more test of what there is. */
	install(filter, ARRAY_SIZE(filter));
}

/* ------------------------------------------------------------------ misuse */

struct misuse {
	const char *name;
	void (*commit)(void);
	const char *call; /* how the name of the call begins that finds it */
};

static inline void commit_misuse(void *arg)
{
	const struct misuse *misuse = arg;

	misuse->commit();
}

/* "bufpool: bufpool_return: why" or the like: one line, with a reason. */
static inline bool is_verdict(const char *text, const char *named)
{
	const char *call = strstr(text, named);

	return strncmp(text, "bufpool: ", 9) == 0 && call &&
	       strchr(text, '\n') == text + strlen(text) - 1 &&
	       strlen(call) > strlen(named) + strlen("_bulk: \n");
}

/* In a child: it says why on stderr, and aborts. */
static inline void must_be_loud(const struct misuse *misuse)
{
	char text[4096];
	int status = run_child(commit_misuse, (void *) misuse, text,
	                       sizeof(text));

	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
	              "%s: wait status %#x, stderr '%s'", misuse->name,
	              (unsigned) status, text);
	ck_assert_msg(is_verdict(text, misuse->call), "%s: stderr '%s'",
	              misuse->name, text);
}

/* ---------------------------------------------------------------- sleepers */

/* A thread that has some buffers of each class in its cache, and sleeps. */
struct sleeper {
	bufpool_t *pool;
	size_t n; /* of each class */
	pthread_barrier_t asleep, wake;
	pthread_t thread;
};

static inline void *sleeper_thread(void *arg)
{
	struct sleeper *s = arg;
	bufpool_buf_t *bufs[64];

	must(s->n <= ARRAY_SIZE(bufs));
	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		if (stats_of(s->pool).per_class[k].total == 0)
			continue;
		for (size_t i = 0; i < s->n; i++) {
			bufs[i] = classes[k].checkout(s->pool);
			must(bufs[i]);
		}
		bufpool_return_bulk(bufs, s->n);
	}
	meet(&s->asleep);
	meet(&s->wake);
	return NULL;
}

static inline void put_to_sleep(struct sleeper *s, bufpool_t *pool, size_t n)
{
	s->pool = pool;
	s->n = n;
	must(!pthread_barrier_init(&s->asleep, NULL, 2));
	must(!pthread_barrier_init(&s->wake, NULL, 2));
	s->thread = start_thread(sleeper_thread, s);
	meet(&s->asleep);
}

static inline void wake_up(struct sleeper *s)
{
	meet(&s->wake);
	join_thread(s->thread);
}

#endif /* TESTS_COMMON_H */
