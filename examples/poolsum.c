/* SPDX-License-Identifier: MIT */
/*
 * poolsum.c - SHA-256 checksums of many files at once, printed as sha256sum
 *
 * An example of libbufpool where buffers travel: one thread checks a buffer
 * out and fills it, another digests it and returns it.
 *
 *       checkout          offer               pop             return
 * pool ---------> reader -------> ready jobs -----> worker ---------> pool
 *                   ^                                 |
 *                   '------------- chunk -------------'
 *
 * A job is a file: a list of filled chunks, in order.  One reader appends to
 * it.  A job that has something to digest stands in the ready queue; a worker
 * takes it off, digests what is on its list and puts it back at the end if
 * more has come meanwhile.  So a file is digested in order, by one worker at a
 * time, and a large one takes turns with the others.
 *
 * A checkout never waits, it goes to the heap when the pool is exhausted.
 * What bounds the memory is that each reader owns DEPTH chunks and a buffer
 * needs a chunk to travel in.  The pool is built with that many buffers.
 *
 * Nothing can get stuck, with any number of threads.  A worker waits for a
 * ready job only.  A reader waits for one of its own chunks; each of them is
 * on the list of a job that is ready or with a worker, hence comes back.  The
 * printer waits for the oldest unfinished job, but nobody waits for the
 * printer: results are small and stay with their jobs.
 */
#include <bufpool.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <getopt.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 4 /* chunks each reader owns: one it fills, others it has read */
#define MAX_THREADS 1024
#define MAX_CHUNK ((size_t) 1 << 30)
#define SUM_SIZE 32

enum { FAILED = 1, USAGE = 2 }; /* exit statuses */

struct chunk {
	struct chunk *next;    /* in a job's list or its reader's free list */
	struct reader *reader; /* whose it is */
	bufpool_buf_t *buf;
	bufpool_buf_t plain; /* what buf points to when there is no pool */
};

struct reader {
	pthread_t thread;
	pthread_cond_t room; /* one of its chunks came home */
	struct chunk *free;
	struct chunk chunks[DEPTH];
};

struct job {
	char *path;
	bool stream;         /* not a regular file: "-", a fifo, a terminal */
	int error;           /* why there is no sum */
	struct chunk *head;  /* read and not yet digested */
	struct chunk **tail; /* where the next one goes */
	bool read;           /* nothing more will be appended */
	bool busy;           /* in the ready queue or with a worker */
	bool done;           /* sum or error is final */
	struct job *next;    /* in the ready queue */
	EVP_MD_CTX *md;
	unsigned char sum[SUM_SIZE];
};

static struct {
	unsigned threads;
	size_t chunk;
	bool malloc;
	bool stats;
	bool progress;
	const char *summary;
} opt = { .chunk = 64 << 10 };

static bufpool_t *pool; /* NULL with --malloc */

static struct job *jobs; /* in the order they are printed in */
static size_t job_count;

/* All that the threads share is under this lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER; /* a job is ready */
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER; /* a stream ended */
static pthread_cond_t news = PTHREAD_COND_INITIALIZER; /* a job is done */
static struct job *ready;                              /* the ready queue */
static struct job **ready_tail = &ready;
static size_t next_job;   /* the first that no reader has taken */
static unsigned readers;  /* still at work */
static bool streaming;    /* somebody reads a stream */
static uint64_t digested; /* bytes */

static int status; /* exit status so far */

/* ---------------------------------------------------------------- messages */

__attribute__((format(printf, 1, 2)))
static void complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("poolsum: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

/* _exit(): other threads may still be at work on what exit() takes apart. */
#define die(code, ...) (complain(__VA_ARGS__), _exit(code))

/* ----------------------------------------------------------------- buffers */

/* Here a pool and malloc differ; nothing else knows which of them it is. */
static bool buf_get(struct chunk *c)
{
	if (pool) {
		c->buf = bufpool_checkout(pool, opt.chunk);
		return c->buf != NULL;
	}
	c->plain.data = malloc(opt.chunk);
	c->plain.len = c->plain.capacity = opt.chunk;
	c->buf = &c->plain;
	return c->plain.data != NULL;
}

static void buf_put(struct chunk *c)
{
	if (pool)
		bufpool_return(c->buf);
	else
		free(c->plain.data);
}

/*
 * The class that serves a size; -1 if none does.  A program that knows its
 * sizes writes BUFPOOL_CLASS_64K, but the library can be built with other
 * classes, so we ask: a pool without buffers counts where one was missing.
 */
static int find_class(size_t size)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	bufpool_stats_t stats;
	bufpool_t *empty;
	int class;

	if (size > BUFPOOL_MAX_CLASS_SIZE)
		return -1;
	memset(cfg.count, 0, sizeof(cfg.count));
	empty = bufpool_create(&cfg);
	bufpool_return(bufpool_checkout(empty, size));
	bufpool_stats(empty, &stats);
	bufpool_destroy(empty);

	for (class = BUFPOOL_CLASSES - 1; class >= 0; class--)
		if (stats.per_class[class].heap_fallbacks)
			break;
	return class;
}

/* As many buffers as can travel at once, of the only class that is used. */
static bufpool_t *make_pool(void)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	int class = find_class(opt.chunk);

	memset(cfg.count, 0, sizeof(cfg.count));
	if (class >= 0)
		cfg.count[class] = (size_t) opt.threads * DEPTH;
	return bufpool_create(&cfg);
}

/* ------------------------------------------------------------------ chunks */

static void chunk_free(struct chunk *c, size_t bytes)
{
	struct reader *r = c->reader;

	pthread_mutex_lock(&lock);
	digested += bytes;
	c->next = r->free;
	r->free = c;
	pthread_cond_signal(&r->room);
	pthread_mutex_unlock(&lock);
}

/* A chunk with a buffer; waits for one of the reader's to come home. */
static struct chunk *chunk_get(struct reader *r)
{
	struct chunk *c;

	pthread_mutex_lock(&lock);
	while (!r->free)
		pthread_cond_wait(&r->room, &lock);
	c = r->free;
	r->free = c->next;
	pthread_mutex_unlock(&lock);

	if (buf_get(c))
		return c;
	chunk_free(c, 0);
	return NULL;
}

static void chunk_put(struct chunk *c)
{
	size_t bytes = c->buf->len;

	buf_put(c);
	chunk_free(c, bytes);
}

/* --------------------------------------------------------- the ready queue */

static void ready_push(struct job *job)
{
	job->busy = true;
	job->next = NULL;
	*ready_tail = job;
	ready_tail = &job->next;
	pthread_cond_signal(&work);
}

/*
 * NULL when no more will come: readers are gone, and a job that another worker
 * has in hand will be pushed and popped by that worker.
 */
static struct job *ready_pop(void)
{
	struct job *job;

	while (!ready && readers)
		pthread_cond_wait(&work, &lock);
	job = ready;
	if (job && !(ready = job->next))
		ready_tail = &ready;
	return job;
}

/* ----------------------------------------------------------------- readers */

/* Fill a buffer; true if there may be more to read. */
static bool fill(struct job *job, int fd, bufpool_buf_t *buf)
{
	size_t want = buf->len;
	ssize_t n = 1;

	for (buf->len = 0; buf->len < want && n > 0;) {
		n = read(fd, (char *) buf->data + buf->len, want - buf->len);
		if (n > 0)
			buf->len += (size_t) n;
		else if (n < 0)
			job->error = errno;
	}
	return n > 0;
}

/* Hand a chunk (or none) to the workers. */
static void offer(struct job *job, struct chunk *c, bool last)
{
	pthread_mutex_lock(&lock);
	if (c) {
		c->next = NULL;
		*job->tail = c;
		job->tail = &c->next;
	}
	job->read = last;
	if (!job->busy)
		ready_push(job);
	pthread_mutex_unlock(&lock);
}

static void read_chunks(struct reader *r, struct job *job, int fd)
{
	bool more;

	do {
		struct chunk *c = chunk_get(r);

		more = c && fill(job, fd, c->buf);
		if (!c)
			job->error = ENOMEM;
		offer(job, c, !more);
	} while (more);
}

static void read_job(struct reader *r, struct job *job)
{
	int fd = STDIN_FILENO;

	if (!job->error && strcmp(job->path, "-") != 0) {
		fd = open(job->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			job->error = errno;
	}
	if (job->error)
		offer(job, NULL, true);
	else
		read_chunks(r, job, fd);
	if (fd > STDERR_FILENO)
		close(fd);
}

/*
 * The next job to read.  Streams are read one after the other: "- -" is all of
 * standard input and then nothing, not two halves mixed.
 */
static struct job *next_to_read(void)
{
	struct job *job = NULL;

	pthread_mutex_lock(&lock);
	while (next_job < job_count && jobs[next_job].stream && streaming)
		pthread_cond_wait(&turn, &lock);
	if (next_job < job_count) {
		job = &jobs[next_job++];
		streaming |= job->stream;
	}
	pthread_mutex_unlock(&lock);
	return job;
}

static void end_of_stream(void)
{
	pthread_mutex_lock(&lock);
	streaming = false;
	pthread_cond_broadcast(&turn);
	pthread_mutex_unlock(&lock);
}

static void *reader(void *arg)
{
	struct reader *r = arg;
	struct job *job;

	while ((job = next_to_read())) {
		read_job(r, job);
		if (job->stream)
			end_of_stream();
	}

	pthread_mutex_lock(&lock);
	if (--readers == 0)
		pthread_cond_broadcast(&work);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* ----------------------------------------------------------------- workers */

/* Better no sum than a wrong one. */
static void check_crypto(bool ok)
{
	if (!ok)
		die(FAILED, "libcrypto cannot compute SHA-256");
}

static void digest(struct job *job, struct chunk *list)
{
	struct chunk *c;

	if (!job->md) {
		job->md = EVP_MD_CTX_new();
		check_crypto(job->md &&
		             EVP_DigestInit_ex(job->md, EVP_sha256(), NULL));
	}
	while ((c = list)) {
		list = c->next; /* chunk_put() gives c away */
		check_crypto(EVP_DigestUpdate(job->md, c->buf->data,
		                              c->buf->len));
		chunk_put(c);
	}
}

static void finish(struct job *job)
{
	check_crypto(EVP_DigestFinal_ex(job->md, job->sum, NULL));
	EVP_MD_CTX_free(job->md);
}

static void *worker(void *arg)
{
	struct job *job;

	pthread_mutex_lock(&lock);
	while ((job = ready_pop())) {
		struct chunk *list = job->head;
		bool last = job->read;

		job->head = NULL;
		job->tail = &job->head;
		pthread_mutex_unlock(&lock);

		digest(job, list);
		if (last)
			finish(job);

		pthread_mutex_lock(&lock);
		job->busy = false;
		job->done = last;
		if (last)
			pthread_cond_signal(&news);
		else if (job->head || job->read)
			ready_push(job);
	}
	pthread_mutex_unlock(&lock);
	return arg;
}

/* ----------------------------------------------------------------- printer */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static bool progress_drawn;

static void progress_clear(void)
{
	if (progress_drawn)
		fputs("\r\033[K", stderr);
	progress_drawn = false;
}

static void progress_draw(size_t files)
{
	uint64_t bytes;

	pthread_mutex_lock(&lock);
	bytes = digested;
	pthread_mutex_unlock(&lock);

	progress_clear();
	fprintf(stderr, "%zu of %zu files, %.1f MiB", files, job_count,
	        (double) bytes / (1 << 20));
	progress_drawn = true;
}

/* Draw once a second, not at every file. */
static void progress(size_t files)
{
	static time_t drawn;

	if (!opt.progress || time(NULL) == drawn)
		return;
	progress_draw(files);
	drawn = time(NULL);
}

/* Wait for a job, for some seconds at the most. */
static bool job_done(struct job *job, int seconds)
{
	struct timespec until;
	bool done;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&lock);
	while (!job->done &&
	       pthread_cond_timedwait(&news, &lock, &until) == 0)
		;
	done = job->done;
	pthread_mutex_unlock(&lock);
	return done;
}

/*
 * Whoever reads our output gets all there is before we sleep.  False if it
 * cannot be written.
 */
static bool await(struct job *job)
{
	if (job_done(job, 0))
		return true;
	if (fflush(stdout))
		return false;
	do
		progress((size_t) (job - jobs));
	while (!job_done(job, 1));
	return true;
}

/* A name that would break the line is escaped, as sha256sum does. */
static bool needs_escape(const char *name)
{
	return strpbrk(name, "\\\n\r") != NULL;
}

static void print_name(FILE *out, const char *name)
{
	for (; *name; name++) {
		switch (*name) {
		case '\\':
			fputs("\\\\", out);
			break;
		case '\n':
			fputs("\\n", out);
			break;
		case '\r':
			fputs("\\r", out);
			break;
		default:
			putc(*name, out);
		}
	}
}

static void print_error(const struct job *job)
{
	fputs("poolsum: ", stderr);
	print_name(stderr, job->path);
	fprintf(stderr, ": %s\n", strerror(job->error));
}

static void print_sum(const struct job *job)
{
	int i;

	if (needs_escape(job->path))
		putchar('\\');
	for (i = 0; i < SUM_SIZE; i++)
		printf("%02x", job->sum[i]);
	fputs("  ", stdout);
	print_name(stdout, job->path);
	putchar('\n');
}

/* False if the output cannot be written. */
static bool print_job(const struct job *job)
{
	progress_clear();
	if (job->error) {
		print_error(job);
		status = FAILED;
	} else {
		print_sum(job);
	}
	return !ferror(stdout);
}

/* Our sums reach nobody: start no more files. */
static void write_error(void)
{
	progress_clear();
	complain("write error: %s", strerror(errno));
	status = FAILED;
	pthread_mutex_lock(&lock);
	next_job = job_count;
	pthread_cond_broadcast(&turn);
	pthread_mutex_unlock(&lock);
}

/* Returns how many files have a sum. */
static size_t print_all(void)
{
	size_t i, sums = 0;

	for (i = 0; i < job_count; i++) {
		if (!await(&jobs[i]) || !print_job(&jobs[i]))
			break;
		sums += !jobs[i].error;
	}
	if (i < job_count || fflush(stdout))
		write_error();
	if (opt.progress) {
		progress_draw(i);
		fputc('\n', stderr);
	}
	return sums;
}

/* -------------------------------------------------------- the list of files */

static struct job *add_job(const char *path, int error)
{
	static size_t room;
	struct job *job;

	if (job_count == room) {
		room = room ? 2 * room : 64;
		jobs = reallocarray(jobs, room, sizeof(*jobs));
	}
	if (!jobs)
		die(FAILED, "%s", strerror(ENOMEM));
	job = &jobs[job_count++];
	*job = (struct job) { .path = strdup(path), .error = error };
	if (!job->path)
		die(FAILED, "%s", strerror(ENOMEM));
	return job;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct job *) a)->path,
	              ((const struct job *) b)->path);
}

static void add_entry(const FTSENT *entry)
{
	switch (entry->fts_info) {
	case FTS_F:
		add_job(entry->fts_path, 0);
		break;
	case FTS_DNR:
	case FTS_NS:
	case FTS_ERR:
		add_job(entry->fts_path, entry->fts_errno);
		break;
	}
}

/* What find -H DIR -type f finds, sorted by whole path, byte by byte. */
static void add_tree(char *path)
{
	char *paths[] = { path, NULL };
	size_t first = job_count;
	FTSENT *entry;
	FTS *tree;

	tree = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR,
	                NULL);
	if (!tree)
		die(FAILED, "%s: %s", path, strerror(errno));
	while ((errno = 0, entry = fts_read(tree)))
		add_entry(entry);
	if (errno)
		die(FAILED, "%s: %s", path, strerror(errno));
	fts_close(tree);
	if (job_count > first)
		qsort(jobs + first, job_count - first, sizeof(*jobs), by_path);
}

static void add_argument(char *path)
{
	struct stat st;

	if (strcmp(path, "-") == 0)
		add_job(path, 0)->stream = true;
	else if (stat(path, &st))
		add_job(path, errno);
	else if (S_ISDIR(st.st_mode))
		add_tree(path);
	else
		add_job(path, 0)->stream = !S_ISREG(st.st_mode);
}

static void free_jobs(void)
{
	while (job_count)
		free(jobs[--job_count].path);
	free(jobs);
}

/* ------------------------------------------------------------------ threads */

static void start(pthread_t *thread, void *(*body)(void *), void *arg)
{
	int error = pthread_create(thread, NULL, body, arg);

	if (error)
		die(FAILED, "cannot start a thread: %s", strerror(error));
}

static void init_reader(struct reader *r)
{
	int i;

	pthread_cond_init(&r->room, NULL);
	for (i = 0; i < DEPTH; i++) {
		r->chunks[i].reader = r;
		r->chunks[i].next = r->free;
		r->free = &r->chunks[i];
	}
}

/* Returns how many files have a sum. */
static size_t run_threads(void)
{
	struct reader *r = calloc(opt.threads, sizeof(*r));
	pthread_t *w = calloc(opt.threads, sizeof(*w));
	size_t i, sums;

	if (!r || !w)
		die(FAILED, "%s", strerror(ENOMEM));
	for (i = 0; i < job_count; i++)
		jobs[i].tail = &jobs[i].head; /* now that they no longer move */
	readers = opt.threads;
	for (i = 0; i < opt.threads; i++) {
		init_reader(&r[i]);
		start(&r[i].thread, reader, &r[i]);
		start(&w[i], worker, NULL);
	}

	sums = print_all();

	for (i = 0; i < opt.threads; i++) {
		pthread_join(r[i].thread, NULL);
		pthread_join(w[i], NULL);
	}
	for (i = 0; i < opt.threads; i++) /* any worker may have signalled it */
		pthread_cond_destroy(&r[i].room);
	free(r);
	free(w);
	return sums;
}

/* --------------------------------------------------------------- statistics */

struct result {
	double seconds;
	long faults; /* minor */
	size_t files;
	bufpool_stats_t pool;
};

static void print_stats(const struct result *res)
{
	if (pool)
		bufpool_stats_print(pool, stderr, BUFPOOL_TEXT);
	fprintf(stderr, "poolsum: %s: %zu files, %" PRIu64 " bytes, %.3f s, "
	        "%ld minor faults", pool ? "pool" : "malloc", res->files,
	        digested, res->seconds, res->faults);
	if (pool)
		fprintf(stderr, ", %" PRIu64 " hits, %" PRIu64 " misses, %"
		        PRIu64 " buffers not returned", res->pool.hits,
		        res->pool.misses, res->pool.checked_out);
	fputc('\n', stderr);
}

/* One line for scripts: mode wall_s minor_faults bytes files hits misses */
static void write_summary(FILE *out, const struct result *res)
{
	fprintf(out, "%s\t%.6f\t%ld\t%" PRIu64 "\t%zu\t",
	        pool ? "pool" : "malloc", res->seconds, res->faults, digested,
	        res->files);
	if (pool)
		fprintf(out, "%" PRIu64 "\t%" PRIu64 "\n", res->pool.hits,
		        res->pool.misses);
	else
		fputs("-\t-\n", out);

	if (fclose(out)) {
		complain("%s: %s", opt.summary, strerror(errno));
		status = FAILED;
	}
}

static long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* ------------------------------------------------------------- command line */

static const char help[] =
"Usage: poolsum [OPTION]... PATH...\n"
"Print SHA-256 checksums as sha256sum does, in the order of the PATHs.\n"
"A directory stands for the regular files below it, sorted by path, byte\n"
"by byte; symbolic links in it are not followed.  - is standard input.\n"
"\n"
"  --threads N     N threads read and N more digest, 1 to 1024 but no\n"
"                  more than there are files (default: as many as CPUs)\n"
"  --class SIZE    bytes per read buffer, 1 to 1024M, K and M are 2^10\n"
"                  and 2^20 (default: 64K); above the pool's largest class\n"
"                  every buffer comes from the heap\n"
"  --malloc        the same with malloc and free instead of a pool.\n"
"                  Mind when you compare: the pool erases the whole of\n"
"                  every buffer that comes back, --malloc erases nothing\n"
"  --stats         statistics on stderr at the end\n"
"  --summary FILE  write a line to FILE: mode, wall_s, minor_faults,\n"
"                  bytes, files, hits, misses, separated by tabs\n"
"  --progress, --no-progress\n"
"                  show on stderr how far it is (default: if stderr is\n"
"                  a terminal)\n"
"  --help, --version\n"
"\n"
"Exit status: 0; 1 if something could not be read or written; 2 if the\n"
"command line is wrong.";

/* A number from 1 to max, with a suffix if suffixes says so; else 0. */
static size_t parse_number(const char *s, size_t max, const char *suffixes)
{
	unsigned long long n;
	unsigned shift = 0;
	char *end;

	if (!isdigit((unsigned char) *s)) /* no sign, no space */
		return 0;
	errno = 0;
	n = strtoull(s, &end, 10);
	if (*end && strchr(suffixes, *end))
		shift = *end++ == 'K' ? 10 : 20;
	if (errno || *end || n > max >> shift)
		return 0;
	return (size_t) n << shift;
}

static void say_and_exit(const char *text)
{
	if (puts(text) < 0 || fflush(stdout))
		die(FAILED, "write error: %s", strerror(errno));
	exit(0);
}

static void set_option(int option)
{
	switch (option) {
	case 't':
		opt.threads = (unsigned) parse_number(optarg, MAX_THREADS, "");
		if (!opt.threads)
			die(USAGE, "--threads: '%s' is not a number from 1"
			    " to 1024", optarg);
		break;
	case 'c':
		opt.chunk = parse_number(optarg, MAX_CHUNK, "KM");
		if (!opt.chunk)
			die(USAGE, "--class: '%s' is not a size from 1 to"
			    " 1024M", optarg);
		break;
	case 'm':
		opt.malloc = true;
		break;
	case 's':
		opt.stats = true;
		break;
	case 'S':
		opt.summary = optarg;
		break;
	case 'p':
	case 'P':
		opt.progress = option == 'p';
		break;
	case 'h':
		say_and_exit(help);
		break;
	case 'v':
		printf("poolsum (libbufpool) ");
		say_and_exit(bufpool_version());
		break;
	default:
		exit(USAGE); /* getopt_long() has said why */
	}
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "class", required_argument, NULL, 'c' },
		{ "malloc", no_argument, NULL, 'm' },
		{ "stats", no_argument, NULL, 's' },
		{ "summary", required_argument, NULL, 'S' },
		{ "progress", no_argument, NULL, 'p' },
		{ "no-progress", no_argument, NULL, 'P' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	int option;

	opt.progress = isatty(STDERR_FILENO);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		set_option(option);
	if (optind == argc)
		die(USAGE, "no files given; poolsum --help says more");
}

/* N readers and N workers: as told, or one for each CPU; no idle ones. */
static void choose_threads(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (!opt.threads)
		opt.threads = cpus < 1 ? 1 : (unsigned) cpus;
	if (opt.threads > MAX_THREADS)
		opt.threads = MAX_THREADS;
	if (opt.threads > job_count)
		opt.threads = job_count ? (unsigned) job_count : 1;
}

/*
 * Keep the numbers of closed standard streams from going to files that we
 * open.  Opened the wrong way round, they fail with EBADF as before.
 */
static void reserve_standard_streams(void)
{
	int fd;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null",
			     fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static void run(struct result *res)
{
	double started = now();

	if (!opt.malloc && !(pool = make_pool()))
		die(FAILED, "cannot create the pool: %s", strerror(errno));
	res->files = run_threads();
	if (pool)
		bufpool_stats(pool, &res->pool);
	res->seconds = now() - started;
	res->faults = minor_faults();
}

int main(int argc, char **argv)
{
	static char name[] = "poolsum";
	struct result res = { 0 };
	FILE *summary = NULL;
	int i;

	reserve_standard_streams();
	if (argc > 0)
		argv[0] = name; /* getopt_long() begins messages with it */
	parse_options(argc, argv);
	if (opt.summary && !(summary = fopen(opt.summary, "we")))
		die(USAGE, "--summary: %s: %s", opt.summary, strerror(errno));

	for (i = optind; i < argc; i++)
		add_argument(argv[i]);
	choose_threads();
	run(&res);
	if (opt.stats)
		print_stats(&res);
	if (summary)
		write_summary(summary, &res);

	bufpool_destroy(pool);
	free_jobs();
	return status;
}
