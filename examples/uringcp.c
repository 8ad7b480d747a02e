/* SPDX-License-Identifier: MIT */
/*
 * uringcp.c - copy a file with io_uring, on buffers that are registered with it
 *
 * An example of libbufpool with registered memory.  The kernel looks up and
 * pins the pages of plain memory for each request, those of registered memory
 * once.  A pool registers whole regions, in one call for each.
 *
 *     io_uring_queue_init()   a table of registered memory, still empty
 *     bufpool_create()        attach(): region i goes to slot i of it
 *     bufpool_checkout()      bufpool_buf_region(): the slot of this buffer
 *     bufpool_destroy()       detach(): slot i is empty again
 *     io_uring_queue_exit()
 *
 * --depth pieces of the file are on their way at once, each in a buffer of its
 * own: read it, write it, return the buffer, begin with the next piece.
 */
#include <bufpool.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_IN_A_SLOT ((size_t) 1 << 30) /* a limit of io_uring's */

enum { FAILED = 1, USAGE = 2 }; /* exit statuses */

struct piece {
	bufpool_buf_t *buf; /* its len is that of the piece */
	uint64_t at;        /* where in the file */
	size_t done;        /* bytes that are read, or then written */
	bool writing;
};

static struct {
	const char *source, *target;
	unsigned buffer, depth;
	bool plain;
} opt = { .buffer = 256 << 10, .depth = 16 };

static struct io_uring ring;
static bufpool_t *pool;
static int source, target;       /* descriptors */
static uint64_t next;            /* where the next piece begins */
static uint64_t end = INT64_MAX; /* of the source, once a read has met it */

/* ---------------------------------------------------------------- messages */

__attribute__((format(printf, 2, 3)))
static _Noreturn void die(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("uringcp: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	exit(code);
}

/* As cp does, leave what has been written; but say so. */
static _Noreturn void give_up(const char *doing, const char *path, int error)
{
	die(FAILED, "error %s '%s': %s; '%s' is incomplete", doing, path,
	    strerror(error), opt.target);
}

/* ------------------------------------------------------- registered memory */

/* Nothing to remember for detach(): the region's index says which slot it is. */
static void *attach(void *arg, const bufpool_region_t *region)
{
	const struct iovec memory = { region->base, region->len };
	int n;

	if (region->len > MOST_IN_A_SLOT) {
		errno = EFBIG;
		return BUFPOOL_ATTACH_FAILED;
	}
	n = io_uring_register_buffers_update_tag(arg, region->index, &memory,
	                                         NULL, 1);
	if (n == 1)
		return NULL;
	errno = -n;
	return BUFPOOL_ATTACH_FAILED;
}

static void detach(void *arg, const bufpool_region_t *region, void *cookie)
{
	const struct iovec nothing = { NULL, 0 };

	(void) cookie;
	io_uring_register_buffers_update_tag(arg, region->index, &nothing, NULL,
	                                     1);
}

/*
 * A buffer for each piece, and none from the heap, which is not registered.
 * WIPE_USED: io_uring writes what it says and no more.  A program that knows
 * its sizes writes BUFPOOL_CLASS_256K; we have to ask which class serves ours:
 * a pool without buffers counts where one was missing.
 */
static bufpool_t *make_pool(void)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	bufpool_stats_t stats;
	bufpool_t *empty;
	int class;

	cfg.wipe = BUFPOOL_WIPE_USED;
	memset(cfg.count, 0, sizeof(cfg.count));
	empty = bufpool_create(&cfg);
	bufpool_return(bufpool_checkout(empty, opt.buffer));
	bufpool_stats(empty, &stats);
	bufpool_destroy(empty);

	for (class = 0; class < BUFPOOL_CLASSES; class++)
		if (stats.per_class[class].heap_fallbacks)
			cfg.count[class] = opt.depth;
	cfg.exhausted = BUFPOOL_FAIL;
	if (!opt.plain) {
		cfg.region_attach = attach;
		cfg.region_detach = detach;
		cfg.region_arg = &ring;
	}
	return bufpool_create(&cfg);
}

static const char *why_no_pool(int error)
{
	if (error == EFBIG)
		return "io_uring registers at most 1 GiB in one piece";
	if (error == ENOMEM && !opt.plain)
		return "no memory, or no more of it may be locked: ulimit -l";
	return strerror(error);
}

/* The ring comes first: attach() needs it. */
static void start(void)
{
	int rc = io_uring_queue_init(opt.depth, &ring, 0);

	if (rc < 0)
		die(FAILED, "the system refuses io_uring: %s", strerror(-rc));
	/* A pool has a region for each class, on each node if it is spread over
	   nodes, which ours is not. */
	if (!opt.plain) {
		rc = io_uring_register_buffers_sparse(&ring, BUFPOOL_CLASSES);
		if (rc < 0)
			die(FAILED, "io_uring registers no memory here: %s",
			    strerror(-rc));
	}
	pool = make_pool();
	if (!pool)
		die(FAILED, "cannot create the pool: %s", why_no_pool(errno));
}

static void stop(void)
{
	bufpool_stats_t stats;

	bufpool_stats(pool, &stats);
	bufpool_destroy(pool);
	io_uring_queue_exit(&ring);
	if (stats.checked_out)
		die(FAILED, "%" PRIu64 " buffers are missing",
		    stats.checked_out);
}

/* ----------------------------------------------------------------- copying */

/* Read, or write, what is left of a piece. */
static void submit(struct piece *p)
{
	/* There is room: the ring has an entry for each piece. */
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	char *data = (char *) p->buf->data + p->done;
	unsigned n = (unsigned) (p->buf->len - p->done);
	uint64_t at = p->at + p->done;
	unsigned slot = 0;

	bufpool_buf_region(p->buf, &slot, NULL);
	if (opt.plain && p->writing)
		io_uring_prep_write(sqe, target, data, n, at);
	else if (opt.plain)
		io_uring_prep_read(sqe, source, data, n, at);
	else if (p->writing)
		io_uring_prep_write_fixed(sqe, target, data, n, at, (int) slot);
	else
		io_uring_prep_read_fixed(sqe, source, data, n, at, (int) slot);
	io_uring_sqe_set_data(sqe, p);
}

/* False if there is no next piece. */
static bool begin(struct piece *p)
{
	if (next >= end)
		return false;
	p->buf = bufpool_checkout(pool, opt.buffer);
	if (!p->buf)
		die(FAILED, "no buffer: %s", strerror(errno));
	p->at = next;
	p->done = 0;
	p->writing = false;
	next += opt.buffer;
	submit(p);
	return true;
}

/* A request has ended.  False if there is nothing more to do for its piece. */
static bool go_on(struct piece *p, int result)
{
	if (result == -EINTR || result == -EAGAIN)
		result = 0; /* once more */
	else if (p->writing && result <= 0)
		give_up("writing", opt.target, result ? -result : EIO);
	else if (result < 0)
		give_up("reading", opt.source, -result);
	else if (result == 0) {
		p->buf->len = p->done;
		if (p->at + p->done < end)
			end = p->at + p->done;
	}

	p->done += (size_t) result;
	if (p->done == p->buf->len && !p->writing) {
		p->writing = true;
		p->done = 0;
	}
	if (p->done < p->buf->len) {
		submit(p);
		return true;
	}
	bufpool_return(p->buf);
	return begin(p);
}

static void copy(void)
{
	struct piece *pieces = calloc(opt.depth, sizeof(*pieces));
	struct io_uring_cqe *cqe;
	unsigned busy = 0;
	int rc;

	if (!pieces)
		die(FAILED, "%s", strerror(errno));
	while (busy < opt.depth && begin(&pieces[busy]))
		busy++;
	while (busy) {
		rc = io_uring_submit_and_wait(&ring, 1);
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
			give_up("copying", opt.source, -rc);
		while (io_uring_peek_cqe(&ring, &cqe) == 0) {
			struct piece *p = io_uring_cqe_get_data(cqe);
			int result = cqe->res;

			io_uring_cqe_seen(&ring, cqe);
			if (!go_on(p, result))
				busy--;
		}
	}
	free(pieces);
}

/* ------------------------------------------------------------------- files */

/* Requests bear offsets, so both must be files that have them.  Not to wait
   here for what is none, O_NONBLOCK; later it would make requests fail. */
static int open_regular(const char *path, int flags, mode_t mode,
                        struct stat *st)
{
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC, mode);

	if (fd < 0 || fstat(fd, st) || fcntl(fd, F_SETFL, 0))
		die(FAILED, "cannot open '%s': %s", path, strerror(errno));
	if (!S_ISREG(st->st_mode))
		die(FAILED, "'%s' is not a regular file", path);
	return fd;
}

static void open_target(const struct stat *from)
{
	struct stat to;

	target = open_regular(opt.target, O_WRONLY | O_CREAT,
	                      from->st_mode & 0777, &to);
	if (from->st_dev == to.st_dev && from->st_ino == to.st_ino)
		die(FAILED, "'%s' and '%s' are the same file", opt.source,
		    opt.target);
	if (ftruncate(target, 0))
		die(FAILED, "cannot open '%s': %s", opt.target,
		    strerror(errno));
}

/* ------------------------------------------------------------- command line */

static const char help[] =
"Usage: uringcp [OPTION]... SOURCE TARGET\n"
"Copy a regular file with io_uring, on registered memory.  TARGET is overwritten\n"
"if it exists; if the copy fails, what has been written stays.\n"
"\n"
"  --buffer SIZE  bytes in one request, 1 to the largest class of the library;\n"
"                 K and M are 2^10 and 2^20 (default: 256K)\n"
"  --depth N      requests in flight, 1 to 4096 (default: 16)\n"
"  --plain        the same on memory that is not registered\n"
"  --help\n"
"\n"
"Registered memory counts as locked: without privileges, --buffer times --depth\n"
"has to stay below ulimit -l.  Exit status: 0; 1 if something failed; 2 if the\n"
"command line is wrong.";

/* A number from 1 to max, with a suffix if suffixes says so. */
static unsigned number(const char *option, long long max, const char *suffixes)
{
	unsigned shift = 0;
	long long n;
	char *rest;

	errno = 0;
	n = strtoll(optarg, &rest, 10);
	if (*rest && strchr(suffixes, *rest))
		shift = *rest++ == 'K' ? 10 : 20;
	if (!isdigit((unsigned char) *optarg) || errno || *rest || n < 1 ||
	    n > max >> shift)
		die(USAGE, "--%s: '%s' is not a number from 1 to %lld", option,
		    optarg, max);
	return (unsigned) (n << shift);
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "buffer", required_argument, NULL, 'b' },
		{ "depth", required_argument, NULL, 'd' },
		{ "plain", no_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'b')
			opt.buffer = number("buffer", BUFPOOL_MAX_CLASS_SIZE,
			                    "KM");
		else if (option == 'd')
			opt.depth = number("depth", 4096, "");
		else if (option == 'p')
			opt.plain = true;
		else if (option != 'h')
			exit(USAGE); /* getopt_long() has said why */
		else if (puts(help) < 0 || fflush(stdout))
			die(FAILED, "write error: %s", strerror(errno));
		else
			exit(0);
	}
	if (argc - optind != 2)
		die(USAGE, "needs SOURCE and TARGET; uringcp --help says more");
	opt.source = argv[optind];
	opt.target = argv[optind + 1];
}

int main(int argc, char **argv)
{
	static char name[] = "uringcp";
	struct stat st;

	if (argc > 0)
		argv[0] = name; /* getopt_long() begins messages with it */
	parse_options(argc, argv);

	source = open_regular(opt.source, O_RDONLY, 0, &st);
	start();
	open_target(&st);
	copy();
	/* If the source grew when one piece had met its end, later ones may
	   have been written. */
	if (ftruncate(target, (off_t) end) || close(target))
		give_up("writing", opt.target, errno);
	stop();
	return 0;
}
