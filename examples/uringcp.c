/* SPDX-License-Identifier: MIT */
/*
 * uringcp.c - copy a file with io_uring, on buffers that are registered with it
 *
 * An example of libbufpool with registered memory.  The kernel looks up and
 * pins the pages of plain memory for each request, those of registered memory
 * once.  A pool registers whole regions, in one call for each.
 *
 *     io_uring_queue_init()   the ring, with a table of slots, still empty
 *     bufpool_create()        attach(): region i goes to slot i
 *     bufpool_checkout()      prepare(): a request names its buffer's slot
 *     bufpool_destroy()       detach(): slot i is empty again
 *     io_uring_queue_exit()
 *
 * All that concerns registration is in the section "registered memory"; the
 * pool is built in start().
 *
 * --depth pieces of the file are on their way at once, each in a buffer of its
 * own: read it, write it, return the buffer, begin with the next piece.  With --grow
 * they are few at first, and more as long as that makes it faster; so the pool has few
 * buffers at first, and grows.  Each growth is a region, registered like the first.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_SLOT ((size_t) 1 << 30) /* bytes; a limit of io_uring's */
#define SLOTS 64                    /* regions: 4 GiB, or growth from 4 by half */
#define FEW 4                       /* pieces to begin with, where they may grow */

struct piece {
	bufpool_buf_t *buf; /* its len is that of the piece */
	uint64_t at;        /* where in the file */
	size_t done;        /* bytes that are read, or then written */
	bool writing;
};

static struct {
	const char *source, *target;
	size_t buffer;
	unsigned depth;
	bool plain, grow, stats;
} opt = { .buffer = 256 << 10, .depth = 16 };

static bufpool_t *pool;
static struct io_uring ring;
static int source, target;       /* descriptors */
static uint64_t next;            /* where the next piece begins */
static uint64_t end = INT64_MAX; /* of the source, once a read has met it */
static unsigned used;            /* pieces that were begun at some time */

/* ------------------------------------------------------- registered memory */

/* It comes before the pool, whose regions go into its table. */
static void open_ring(void)
{
	int rc = io_uring_queue_init(opt.depth, &ring, 0);

	if (rc < 0)
		die(FAILED, "the system refuses io_uring: %s", strerror(-rc));
	if (opt.plain)
		return;
	rc = io_uring_register_buffers_sparse(&ring, SLOTS);
	if (rc < 0)
		die(FAILED, "io_uring registers no memory here: %s",
		    strerror(-rc));
}

static int set_slot(struct io_uring *in, unsigned slot, void *base, size_t len)
{
	const struct iovec memory = { base, len };

	return io_uring_register_buffers_update_tag(in, slot, &memory, NULL, 1);
}

/* No cookie for detach(): the region's index says which slot it is. */
static void *attach(void *arg, const bufpool_region_t *region)
{
	int n = set_slot(arg, region->index, region->base, region->len);

	if (n == 1)
		return NULL;
	errno = -n;
	return BUFPOOL_ATTACH_FAILED;
}

static void detach(void *arg, const bufpool_region_t *region, void *cookie)
{
	(void) cookie;
	set_slot(arg, region->index, NULL, 0);
}

/* A request to read, or write, what is left of a piece. */
static void prepare(struct io_uring_sqe *sqe, const struct piece *p)
{
	char *data = (char *) p->buf->data + p->done;
	unsigned n = (unsigned) (p->buf->len - p->done);
	uint64_t at = p->at + p->done;
	unsigned slot;

	bufpool_buf_region(p->buf, &slot, NULL); /* it is not from the heap */
	if (opt.plain && p->writing)
		io_uring_prep_write(sqe, target, data, n, at);
	else if (opt.plain)
		io_uring_prep_read(sqe, source, data, n, at);
	else if (p->writing)
		io_uring_prep_write_fixed(sqe, target, data, n, at, (int) slot);
	else
		io_uring_prep_read_fixed(sqe, source, data, n, at, (int) slot);
}

/* ----------------------------------------------------------------- copying */

/* As cp does, leave what has been written; but say so. */
static _Noreturn void give_up(const char *doing, const char *path, int error)
{
	die(FAILED, "error %s '%s': %s; '%s' is incomplete", doing, path,
	    strerror(error), opt.target);
}

/* There is room: the ring has an entry for each piece. */
static void submit(struct piece *p)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

	prepare(sqe, p);
	io_uring_sqe_set_data(sqe, p);
}

/* False if there is no next piece. */
static bool begin(struct piece *p)
{
	if (next >= end)
		return false;
	*p = (struct piece){ .buf = bufpool_checkout(pool, opt.buffer),
		             .at = next };
	/* One more than there were: as many as we have will do. */
	if (!p->buf && opt.grow && used >= FEW)
		return false;
	if (!p->buf)
		die(FAILED, "no buffer: %s", strerror(errno));
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

/* How many pieces are to be on their way, after another one has ended: half as many
   again, if twice as many as now have shown that they are faster than fewer were. */
static unsigned wanted(unsigned pieces)
{
	static unsigned ended;
	static double since, best;
	double at, rate;

	if (since == 0)
		since = now();
	if (!opt.grow || best < 0 || ++ended < 2 * pieces)
		return pieces;
	at = now();
	rate = ended / (at - since);
	ended = 0;
	since = at;
	if (rate < 1.1 * best) {
		best = -1; /* that is it */
		return pieces;
	}
	best = rate;
	pieces += pieces / 2;
	return pieces < opt.depth ? pieces : opt.depth;
}

static void copy(void)
{
	unsigned busy = 0, want = opt.grow && opt.depth > FEW ? FEW : opt.depth;
	struct piece *p, *pieces = calloc(opt.depth, sizeof(*pieces));
	struct io_uring_cqe *cqe;
	int rc;

	if (!pieces)
		die(FAILED, "%s", strerror(errno));
	do {
		while (used < want && begin(&pieces[used])) {
			used++;
			busy++;
		}
		rc = busy ? io_uring_submit_and_wait(&ring, 1) : 0;
		if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
			give_up("copying", opt.source, -rc);
		while (io_uring_peek_cqe(&ring, &cqe) == 0) {
			p = io_uring_cqe_get_data(cqe);
			rc = cqe->res;
			io_uring_cqe_seen(&ring, cqe);
			if (!go_on(p, rc))
				busy--;
			want = wanted(want);
		}
	} while (busy);
	free(pieces);
}

/* ------------------------------------------------------------------- files */

/* Requests bear offsets, so both must be files that have them.  O_NONBLOCK: do
   not wait here for a fifo.  Later it would make requests fail. */
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

/* clang-format off */
static const char help[] =
"Usage: uringcp [OPTION]... SOURCE TARGET\n"
"Copy a regular file with io_uring, on registered memory.  TARGET is overwritten\n"
"if it exists; if the copy fails, what has been written stays.\n"
"\n"
"  --buffer SIZE  bytes in one request, 1 to the largest class of the library,\n"
"                 suffix K, M, G (default: 256K)\n"
"  --depth N      requests in flight, 1 to 4096 (default: 16)\n"
"  --grow         begin with 4, and have more, up to --depth, as long as that\n"
"                 makes it faster\n"
"  --plain        the same on memory that is not registered\n"
"  --stats        statistics on stderr at the end\n"
"  --help, --version\n"
"\n"
"Registered memory counts as locked: without privileges, the pool, --depth\n"
"buffers of the class that serves --buffer, has to stay below ulimit -l.  Exit\n"
"status: 0; 1 if something failed; 2 if the command line is wrong.";
/* clang-format on */

static const struct param params[] = {
	{ "buffer", .size = &opt.buffer, .max = BUFPOOL_MAX_CLASS_SIZE },
	{ "depth", .number = &opt.depth, .max = 4096 },
	{ "grow", .on = &opt.grow },
	{ "plain", .on = &opt.plain },
	{ "stats", .on = &opt.stats },
	{ 0 },
};

/* ------------------------------------------------------- beginning and end */

static const char *why_no_pool(int error)
{
	if (error == ENOMEM && !opt.plain)
		return "no memory, or no more of it may be locked: ulimit -l";
	return strerror(error);
}

static void start(void)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;

	open_ring();
	/*
	 * A buffer for each piece, and none from the heap, which is not
	 * registered.  WIPE_USED: io_uring writes what it says and no more.
	 */
	set_count(&config, opt.buffer, opt.depth);
	if (opt.grow && opt.depth > FEW) {
		memcpy(config.max_count, config.count, sizeof(config.count));
		set_count(&config, opt.buffer, FEW);
	}
	config.region_max = MAX_SLOT;
	config.exhausted = BUFPOOL_FAIL;
	config.wipe = BUFPOOL_WIPE_USED;
	config.name = "uringcp";
	if (!opt.plain) {
		config.region_attach = attach;
		config.region_detach = detach;
		config.region_arg = &ring;
	}
	pool = bufpool_create(&config);
	if (!pool)
		die(FAILED, "cannot create the pool: %s", why_no_pool(errno));
}

int main(int argc, char **argv)
{
	bufpool_stats_t stats;
	struct stat st;

	init_program(argc, argv);
	parse_options(argc, argv, params, help);
	if (argc - optind != 2)
		die(USAGE, "needs SOURCE and TARGET; uringcp --help says more");
	opt.source = argv[optind];
	opt.target = argv[optind + 1];

	source = open_regular(opt.source, O_RDONLY, 0, &st);
	start();
	open_target(&st);
	copy();
	/* If the source grew when one piece had met its end, later ones may
	   have been written. */
	if (ftruncate(target, (off_t) end) || close(target))
		give_up("writing", opt.target, errno);
	bufpool_stats(pool, &stats);
	if (opt.stats)
		bufpool_stats_print(pool, stderr, BUFPOOL_TEXT);
	bufpool_destroy(pool);
	io_uring_queue_exit(&ring);
	if (stats.checked_out)
		die(FAILED, "%" PRIu64 " buffers are missing",
		    stats.checked_out);
	return 0;
}
