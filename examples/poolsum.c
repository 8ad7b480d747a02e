/* SPDX-License-Identifier: MIT */
/*
 * poolsum.c - SHA-256 checksums of many files at once, printed as sha256sum
 *
 * An example of libbufpool where buffers travel: one thread checks a buffer
 * out and fills it, another digests it and returns it.
 *
 *         checkout           send             receive            return
 *   pool ---------> reader --------> lane's ring -------> digester ------> pool
 *
 * All that concerns the pool is in the section "buffers", and in run().
 *
 * A lane is a reader, a digester and a ring of DEPTH chunks between them.
 * Readers take the files one after the other; all of a file goes down one lane,
 * in order.  A checkout never waits, it goes to the heap when the pool is
 * exhausted.  What bounds the memory is that a buffer needs a place in a ring,
 * and the pool is built with as many buffers as there are places.
 *
 * Nothing can get stuck.  A reader waits for its digester only, a digester for
 * its reader only.  The printer waits for the oldest unfinished file, but
 * nobody waits for the printer: results are small and stay with their files.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 4 /* chunks in a lane: one is filled, one digested, others wait */
#define MAX_THREADS 1024
#define SUM_SIZE 32

struct job {
	char *path;
	bool stream; /* not a regular file: "-", a fifo, a terminal */
	int error;   /* why there is no sum */
	bool done;   /* sum or error is final */
	unsigned char sum[SUM_SIZE];
};

struct chunk {
	struct job *job;     /* NULL: no more will come */
	bool last;           /* of its job */
	bufpool_buf_t *buf;  /* NULL: the job has failed */
	bufpool_buf_t plain; /* what buf points to when there is no pool */
};

struct lane {
	pthread_t reader, digester;
	pthread_mutex_t lock; /* of head and count */
	pthread_cond_t moved; /* only one of the two can be waiting for it */
	unsigned head, count;
	struct chunk ring[DEPTH];
};

static struct {
	unsigned threads;
	size_t chunk;
	bool malloc, hardened, stats, progress;
	const char *summary;
} opt = { .chunk = 64 << 10 };

static bufpool_t *pool; /* NULL with --malloc */

static struct job *jobs; /* in the order they are printed in */
static size_t job_count;
static size_t next_job; /* the first that no reader has taken */
static pthread_mutex_t taking = PTHREAD_MUTEX_INITIALIZER; /* of next_job */
static pthread_mutex_t streaming = PTHREAD_MUTEX_INITIALIZER;

static pthread_mutex_t results = PTHREAD_MUTEX_INITIALIZER; /* of done */
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;      /* a job is done */

static atomic_bool giving_up;     /* no more files are started */
static _Atomic uint64_t digested; /* bytes */
static int status;                /* exit status so far */

/* ----------------------------------------------------------------- buffers */

/* Here a pool and malloc differ; nothing else knows which of them it is. */
static bool chunk_get(struct chunk *c)
{
	if (pool) {
		c->buf = bufpool_checkout(pool, opt.chunk);
		return c->buf;
	}
	c->plain.data = malloc(opt.chunk);
	c->plain.len = c->plain.capacity = opt.chunk;
	c->buf = c->plain.data ? &c->plain : NULL;
	return c->buf;
}

static void chunk_put(struct chunk *c)
{
	if (pool)
		bufpool_return(c->buf);
	else
		free(c->plain.data);
}

/* ------------------------------------------------------------------- lanes */

/*
 * The next chunk to digest, or, if not filled, the next to fill.  Waits for the
 * other side if there is none.
 */
static struct chunk *next_chunk(struct lane *l, bool filled)
{
	struct chunk *c;

	pthread_mutex_lock(&l->lock);
	while (l->count == (filled ? 0 : DEPTH))
		pthread_cond_wait(&l->moved, &l->lock);
	c = &l->ring[(l->head + (filled ? 0 : l->count)) % DEPTH];
	pthread_mutex_unlock(&l->lock);
	return c;
}

/* It is filled, for the digester; or, if not filled, digested and free again. */
static void pass_chunk(struct lane *l, bool filled)
{
	pthread_mutex_lock(&l->lock);
	if (filled) {
		l->count++;
	} else {
		l->head = (l->head + 1) % DEPTH;
		l->count--;
	}
	pthread_cond_signal(&l->moved);
	pthread_mutex_unlock(&l->lock);
}

/* ----------------------------------------------------------------- readers */

/*
 * The next file to read.  Streams are read one after the other: "- -" is all of
 * standard input and then nothing, not two halves mixed.  So who takes one has
 * `streaming` until it is read, and who is to take the next waits for that.
 */
static struct job *take_job(void)
{
	struct job *job = NULL;

	pthread_mutex_lock(&taking);
	if (next_job < job_count && !giving_up) {
		job = &jobs[next_job++];
		if (job->stream)
			pthread_mutex_lock(&streaming);
	}
	pthread_mutex_unlock(&taking);
	return job;
}

/* Read a chunk's worth; true if there may be more. */
static bool read_chunk(struct chunk *c, int fd)
{
	ssize_t n = -1;

	if (!chunk_get(c))
		c->job->error = ENOMEM;
	else if ((n = fill(c->buf, fd)) < 0)
		c->job->error = errno;
	return n > 0;
}

static void read_job(struct lane *l, struct job *job)
{
	int fd = STDIN_FILENO;
	struct chunk *c;
	bool more;

	if (!job->error && strcmp(job->path, "-") != 0) {
		fd = open(job->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			job->error = errno;
	}
	do {
		c = next_chunk(l, false);
		c->job = job;
		c->buf = NULL;
		more = !job->error && read_chunk(c, fd);
		c->last = !more;
		pass_chunk(l, true);
	} while (more);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void *read_jobs(void *arg)
{
	struct lane *l = arg;
	struct job *job;

	while ((job = take_job())) {
		read_job(l, job);
		if (job->stream)
			pthread_mutex_unlock(&streaming);
	}
	next_chunk(l, false)->job = NULL;
	pass_chunk(l, true);
	return NULL;
}

/* --------------------------------------------------------------- digesters */

static void check_crypto(bool ok)
{
	if (!ok) /* better no sum than a wrong one */
		die(FAILED, "libcrypto cannot compute SHA-256");
}

/* The sum, or error, is final; and md is ready for the next file. */
static void finish(struct job *job, EVP_MD_CTX *md)
{
	check_crypto(EVP_DigestFinal_ex(md, job->sum, NULL));
	check_crypto(EVP_DigestInit_ex(md, EVP_sha256(), NULL));
	pthread_mutex_lock(&results);
	job->done = true;
	pthread_cond_signal(&news);
	pthread_mutex_unlock(&results);
}

static void *digest_jobs(void *arg)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	struct lane *l = arg;
	struct chunk *c;

	check_crypto(md && EVP_DigestInit_ex(md, EVP_sha256(), NULL));
	for (c = next_chunk(l, true); c->job; c = next_chunk(l, true)) {
		if (c->buf) {
			digested += c->buf->len;
			check_crypto(EVP_DigestUpdate(md, c->buf->data,
			                              c->buf->len));
			chunk_put(c);
		}
		if (c->last)
			finish(c->job, md);
		pass_chunk(l, false);
	}
	EVP_MD_CTX_free(md);
	return NULL;
}

/* ----------------------------------------------------------------- printer */

static bool progress_drawn;

static void progress_clear(void)
{
	if (progress_drawn) {
		fputs("\r\033[K", stderr);
		fflush(stderr);
	}
	progress_drawn = false;
}

/* Once a second, not at every file, and at the end. */
static void progress(size_t files, bool end)
{
	static time_t drawn;

	if (!opt.progress || (time(NULL) == drawn && !end))
		return;
	progress_clear();
	fprintf(stderr, "%zu of %zu files, %.1f MiB%s", files, job_count,
	        (double) digested / (1 << 20), end ? "\n" : "");
	fflush(stderr);
	progress_drawn = !end;
	drawn = time(NULL);
}

/*
 * Wait for a job.  Whoever reads our output gets all there is before we sleep;
 * false if it cannot be written.
 */
static bool await(struct job *job)
{
	struct timespec until;

	pthread_mutex_lock(&results);
	while (!job->done) {
		pthread_mutex_unlock(&results);
		if (fflush(stdout))
			return false;
		progress((size_t) (job - jobs), false);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		pthread_mutex_lock(&results);
		if (!job->done)
			pthread_cond_timedwait(&news, &results, &until);
	}
	pthread_mutex_unlock(&results);
	return true;
}

/* What would break the line is escaped, as sha256sum does. */
static void print_name(FILE *out, const char *name)
{
	for (; *name; name++) {
		if (*name == '\n')
			fputs("\\n", out);
		else if (*name == '\r')
			fputs("\\r", out);
		else
			fprintf(out, *name == '\\' ? "\\%c" : "%c", *name);
	}
}

/* False if the output cannot be written. */
static bool print_job(const struct job *job)
{
	int i;

	progress_clear();
	if (job->error) {
		fputs("poolsum: ", stderr);
		print_name(stderr, job->path);
		fprintf(stderr, ": %s\n", strerror(job->error));
		status = FAILED;
		return true;
	}
	if (strpbrk(job->path, "\\\n\r"))
		putchar('\\');
	for (i = 0; i < SUM_SIZE; i++)
		printf("%02x", job->sum[i]);
	fputs("  ", stdout);
	print_name(stdout, job->path);
	putchar('\n');
	return !ferror(stdout);
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
	if (i < job_count || fflush(stdout)) {
		progress_clear();
		complain("write error: %s", strerror(errno));
		status = FAILED;
		giving_up = true; /* our sums reach nobody */
	}
	progress(i, true);
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
	*job = (struct job){ .path = strdup(path), .error = error };
	if (!job->path)
		die(FAILED, "%s", strerror(ENOMEM));
	return job;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct job *) a)->path,
	              ((const struct job *) b)->path);
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
	while ((errno = 0, entry = fts_read(tree))) {
		if (entry->fts_info == FTS_F)
			add_job(entry->fts_path, 0);
		else if (entry->fts_info == FTS_DNR ||
		         entry->fts_info == FTS_NS ||
		         entry->fts_info == FTS_ERR)
			add_job(entry->fts_path, entry->fts_errno);
	}
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

/* ----------------------------------------------------------------- threads */

/* Returns how many files have a sum. */
static size_t run_lanes(void)
{
	struct lane *lanes = calloc(opt.threads, sizeof(*lanes));
	struct lane *l, *end = lanes + opt.threads;
	size_t sums;

	if (!lanes)
		die(FAILED, "%s", strerror(ENOMEM));
	for (l = lanes; l < end; l++) {
		pthread_mutex_init(&l->lock, NULL);
		pthread_cond_init(&l->moved, NULL);
		errno = pthread_create(&l->reader, NULL, read_jobs, l);
		if (!errno)
			errno = pthread_create(&l->digester, NULL, digest_jobs,
			                       l);
		if (errno)
			die(FAILED, "cannot start a thread: %s",
			    strerror(errno));
	}
	sums = print_all();
	for (l = lanes; l < end; l++) {
		pthread_join(l->reader, NULL);
		pthread_join(l->digester, NULL);
		pthread_cond_destroy(&l->moved);
		pthread_mutex_destroy(&l->lock);
	}
	free(lanes);
	return sums;
}

/* --------------------------------------------------------------- statistics */

struct result {
	double seconds;
	struct rusage usage;
	size_t files;
	bufpool_stats_t pool;
};

static void print_stats(const struct result *res)
{
	if (pool)
		bufpool_stats_print(pool, stderr, BUFPOOL_TEXT);
	fprintf(stderr,
	        "poolsum: %s: %zu files, %" PRIu64 " bytes, %.3f s, "
	        "%ld minor faults",
	        pool ? "pool" : "malloc", res->files, digested, res->seconds,
	        res->usage.ru_minflt);
	if (pool)
		fprintf(stderr,
		        ", %" PRIu64 " hits, %" PRIu64 " misses, %" PRIu64
		        " buffers not returned",
		        res->pool.hits, res->pool.misses,
		        res->pool.checked_out);
	fputc('\n', stderr);
}

/* One line for scripts: mode wall_s minor_faults bytes files hits misses */
static void write_summary(FILE *out, const struct result *res)
{
	fprintf(out, "%s\t%.6f\t%ld\t%" PRIu64 "\t%zu\t",
	        pool ? "pool" : "malloc", res->seconds, res->usage.ru_minflt,
	        digested, res->files);
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

/* ------------------------------------------------------------- command line */

/* clang-format off */
static const char help[] =
"Usage: poolsum [OPTION]... PATH...\n"
"Print SHA-256 checksums as sha256sum does, in the order of the PATHs.\n"
"A directory stands for the regular files below it, sorted by path, byte\n"
"by byte; symbolic links in it are not followed.  - is standard input.\n"
"\n"
"  --threads N     N threads read and N more digest, 1 to 1024 but no\n"
"                  more than there are files (default: as many as CPUs)\n"
"  --class SIZE    bytes per read buffer, 1 to 1G, suffix K, M, G (default:\n"
"                  64K); above the pool's largest class every buffer comes\n"
"                  from the heap\n"
"  --malloc        malloc and free instead of a pool.  Mind that the pool\n"
"                  erases the whole of every buffer that comes back\n"
"  --hardened      a pool that hands out what has been idle longest, and stops\n"
"                  if that was written after its return\n"
"  --stats         statistics on stderr at the end\n"
"  --summary FILE  write a line to FILE: mode, wall_s, minor_faults,\n"
"                  bytes, files, hits, misses, separated by tabs\n"
"  --progress, --no-progress\n"
"                  show how far it is (default: if stderr is a terminal)\n"
"  --help, --version\n"
"\n"
"Exit status: 0; 1 if something could not be read or written; 2 if the\n"
"command line is wrong.";
/* clang-format on */

static const struct param params[] = {
	{ "threads", .number = &opt.threads, .max = MAX_THREADS },
	{ "class", .size = &opt.chunk, .max = 1 << 30 },
	{ "malloc", .on = &opt.malloc },
	{ "hardened", .on = &opt.hardened },
	{ "stats", .on = &opt.stats },
	{ "summary", .text = &opt.summary },
	{ "progress", .on = &opt.progress },
	{ "no-progress", .off = &opt.progress },
	{ 0 },
};

/* As many as told, or one for each CPU; no idle ones. */
static void choose_threads(void)
{
	long n = opt.threads ? opt.threads : sysconf(_SC_NPROCESSORS_ONLN);

	if (n > MAX_THREADS)
		n = MAX_THREADS;
	if (n > (long) job_count)
		n = (long) job_count;
	opt.threads = n < 1 ? 1 : (unsigned) n;
}

static void run(struct result *res)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	double started = now();

	if (!opt.malloc) {
		/* As many buffers as there are places in rings. */
		set_count(&config, opt.chunk, (size_t) opt.threads * DEPTH);
		config.name = "poolsum";
		if (opt.hardened)
			config.flags |= BUFPOOL_HARDENED;
		pool = bufpool_create(&config);
		if (!pool)
			die(FAILED, "cannot create the pool: %s",
			    strerror(errno));
	}
	res->files = run_lanes();
	if (pool)
		bufpool_stats(pool, &res->pool);
	res->seconds = now() - started;
	getrusage(RUSAGE_SELF, &res->usage);
}

int main(int argc, char **argv)
{
	struct result res = { 0 };
	FILE *summary = NULL;
	int i;

	init_program(argc, argv);
	opt.progress = isatty(STDERR_FILENO);
	parse_options(argc, argv, params, help);
	if (optind == argc)
		die(USAGE, "no files given; poolsum --help says more");
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
	while (job_count)
		free(jobs[--job_count].path);
	free(jobs);
	return status;
}
