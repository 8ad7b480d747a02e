/* SPDX-License-Identifier: MIT */
/*
 * fanout.c - what a publisher sends goes to every subscriber, without a copy
 *
 * An example of libbufpool where buffers are shared: one thread fills a buffer
 * and freezes it, many send from it, the last one to let go sends it home.
 *
 *     publisher
 *         |  read() into a buffer of the pool; freeze
 *        hub                                         the main thread
 *         |  a slice, which holds a reference, for each subscriber's queue
 *      worker                                        --threads of them
 *         |  writev() from the frozen buffer; release the slice
 *     subscriber
 *
 * All that concerns the pool is in the section "buffers", and in start().
 *
 * Memory.  All see the same stream, so a queue holds the last buffers of it,
 * some queues more and some fewer.  All queues together hold no more different
 * buffers than the longest, whether there is one subscriber or a thousand.
 *
 * The brake.  A publisher may be faster than its subscribers.  The hub reads
 * one buffer at a time, and only while no queue is more than half full, other
 * than those of subscribers that are stuck, see judge().  So only who is stuck
 * can overflow, and is cut off.
 *
 * Or nobody is, with --exhausted wait: then the pool is the brake.  A queue has
 * room for all buffers that there are.  When none is left, the hub leaves the
 * publishers alone until a buffer comes home, from whichever worker, which an
 * event of the pool tells.  So the slowest sets the pace, however slow it is.
 *
 * Nobody waits for a socket.  A subscriber belongs to one worker.  The hub adds
 * subscribers and fills queues, the worker takes away, both under the worker's
 * lock, which it gives up while it writes.
 */
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_EVENTS 64 /* fetched from epoll at once */
#define GATHER 64     /* slices in one writev() */
#define TICK 50       /* ms from one look at slow subscribers to the next */
#define DRAIN 5       /* seconds for subscribers to take the rest at the end */

struct subscriber {
	LIST_ENTRY(subscriber) link;
	struct worker *worker;
	int fd;
	bool blocked;         /* its socket takes no more; epoll will tell */
	bool stuck;           /* not waited for */
	bool braking;         /* its brake is on */
	const char *doomed;   /* why it is to be cut off */
	unsigned head, count; /* of the queue */
	size_t sent;          /* bytes of the first slice that are gone */
	char name[ADDRESS_LEN];
	bufpool_slice_t queue[]; /* a ring of opt.queue */
};

struct worker {
	pthread_t thread;
	int epoll;
	int wake;             /* eventfd: the hub has written */
	pthread_mutex_t lock; /* of its subscribers and all that follows */
	LIST_HEAD(, subscriber) subscribers;
	unsigned idle; /* ms that nobody has taken anything */
	uint64_t out;  /* total.out as it was last seen */
};

static struct {
	const char *publish, *subscribe;
	size_t buffer;
	unsigned queue, patience, threads, stats_every;
	const char *exhausted;
	bool copy, wait;
} opt = { .buffer = 64 << 10, .queue = 64, .patience = 500, .threads = 1 };

static bufpool_t *pool;
static bufpool_event_t *home; /* opt.wait: a buffer has come home */
static struct worker *workers;

/* What the hub waits for; RELEASED is an eventfd: the last brake has gone.  With
   a brake on, publishers have to wait, and so they are last; and while BUFFER is
   waited for, that is the event's, and not -1. */
enum { SIGNALS, TIMER, RELEASED, JOINERS, NEWCOMERS, BUFFER, PUBLISHERS, HUB_FDS };
static struct pollfd hub[HUB_FDS];
static atomic_uint brakes; /* put on by the hub, released by workers too */
static atomic_bool stopping;
static double deadline; /* to take the rest, when it is stopping */

static struct {
	_Atomic uint64_t in, out; /* bytes */
	atomic_uint joined, cut;  /* subscribers */
} total;

static void accept_subscribers(void);
static void enqueue(struct subscriber *s, bufpool_frozen_t *f);

/* ----------------------------------------------------------------- buffers */

/*
 * From here on nobody writes to the buffer.  Each slice holds a reference; with
 * ours given up, the last subscriber's release sends it home, from its worker.
 */
static void publish(bufpool_buf_t *buf)
{
	bufpool_frozen_t *f = bufpool_freeze(buf);
	struct subscriber *s;
	struct worker *w;

	total.in += bufpool_frozen_len(f);
	for (w = workers; w < workers + opt.threads; w++) {
		pthread_mutex_lock(&w->lock);
		for (s = LIST_FIRST(&w->subscribers); s; s = LIST_NEXT(s, link))
			enqueue(s, f);
		pthread_mutex_unlock(&w->lock);
		eventfd_write(w->wake, 1);
	}
	bufpool_frozen_unref(f);
}

/* NULL, and the event is armed, if all are out; or with an error. */
static bufpool_buf_t *get_buffer(void)
{
	bufpool_buf_t *buf;

	if (!opt.wait)
		return bufpool_checkout(pool, opt.buffer);
	while (!(buf = bufpool_try_checkout(pool, opt.buffer)))
		if (bufpool_event_arm(home) == 0) {
			hub[BUFFER].fd = bufpool_event_fd(home);
			errno = EAGAIN;
			break;
		}
	return buf;
}

static void read_publisher(int fd)
{
	bufpool_buf_t *buf = get_buffer();
	ssize_t n = buf ? fill(buf, fd) : -1;
	int error = n < 0 ? errno : 0;

	if (error && error != EAGAIN)
		complain("a publisher: %s", strerror(error));
	if (n <= 0 && error != EAGAIN)
		close(fd);
	if (buf && buf->len) {
		accept_subscribers(); /* who is there by now is to get it */
		publish(buf);
	} else {
		bufpool_return(buf);
	}
}

/*
 * Here sharing and copying differ; nothing else knows which of them it is.  A
 * slice has a reference of its own, or no owner and is malloc's.
 */
static bool slice_get(bufpool_slice_t *slice, bufpool_frozen_t *f)
{
	size_t len = bufpool_frozen_len(f);
	void *copy;

	if (!opt.copy) {
		*slice = bufpool_slice(f, 0, len);
		return true;
	}
	copy = malloc(len);
	if (copy)
		memcpy(copy, bufpool_frozen_data(f), len);
	*slice = (bufpool_slice_t){ .data = copy, .len = len };
	return copy != NULL;
}

static void slice_put(bufpool_slice_t *slice)
{
	if (opt.copy)
		free((void *) slice->data);
	else
		bufpool_slice_release(slice);
}

/* ------------------------------------------------------------------ queues */

static bufpool_slice_t *queued(struct subscriber *s, unsigned i)
{
	return &s->queue[(s->head + i) % opt.queue];
}

static void set_braking(struct subscriber *s, bool braking)
{
	if (s->braking == braking)
		return;
	s->braking = braking;
	if (braking)
		brakes++;
	else if (--brakes == 0)
		eventfd_write(hub[RELEASED].fd, 1);
}

/*
 * A slow subscriber is waited for, a stuck one is not.  The brake holds nobody
 * up who still has something to take.  But once nobody takes anything any more,
 * who is above half then is stuck: the others go on, and its queue overflows
 * unless it gets back to half by itself.  When it overflows, it holds older
 * buffers than all others: the brake is on for the moment that its worker needs
 * to cut it off.
 */
static void judge(struct subscriber *s)
{
	bool above = s->count > opt.queue / 2 && !opt.wait;

	s->stuck = above && (s->stuck || s->worker->idle >= opt.patience);
	set_braking(s, s->doomed || (above && !s->stuck));
}

static void enqueue(struct subscriber *s, bufpool_frozen_t *f)
{
	if (s->doomed)
		return;
	if (s->count == opt.queue)
		s->doomed = "too slow, its queue is full";
	else if (!slice_get(queued(s, s->count), f))
		s->doomed = strerror(ENOMEM);
	else if (s->count++ == opt.queue / 2)
		s->worker->idle = 0;
	judge(s);
}

/* The first slice has been sent, or never will be. */
static void dequeue(struct subscriber *s)
{
	slice_put(queued(s, 0));
	s->head = (s->head + 1) % opt.queue;
	s->count--;
	s->sent = 0;
}

/* ------------------------------------------------------------- subscribers */

static int gather(struct subscriber *s, struct iovec *iov)
{
	unsigned i;

	for (i = 0; i < s->count && i < GATHER; i++)
		iov[i] = (struct iovec){ (void *) queued(s, i)->data,
			                 queued(s, i)->len };
	iov->iov_base = (char *) iov->iov_base + s->sent;
	iov->iov_len -= s->sent;
	return (int) i;
}

/* n bytes are gone: let go of every slice that is done with. */
static void advance(struct subscriber *s, size_t n)
{
	total.out += n;
	for (n += s->sent; s->count && n >= queued(s, 0)->len;) {
		n -= queued(s, 0)->len;
		dequeue(s);
	}
	s->sent = n;
}

/* Send until the queue is empty or the socket full; false if it has left. */
static bool flush(struct subscriber *s)
{
	struct iovec iov[GATHER];
	ssize_t n = 0;
	int slices;

	while (s->count && !s->blocked && n >= 0) {
		slices = gather(s, iov);
		pthread_mutex_unlock(&s->worker->lock);
		n = writev(s->fd, iov, slices);
		s->blocked = n < 0 && errno == EAGAIN;
		pthread_mutex_lock(&s->worker->lock);
		if (n > 0)
			advance(s, (size_t) n);
	}
	return n >= 0 || s->blocked; /* else EPIPE, ECONNRESET and such */
}

static void drop(struct subscriber *s)
{
	while (s->count)
		dequeue(s);
	set_braking(s, false);
	LIST_REMOVE(s, link);
	close(s->fd);
	free(s);
}

/* By a reset, where there is such a thing: nobody takes it for a good end. */
static void cut_off(struct subscriber *s, const char *why)
{
	struct linger reset = { .l_onoff = 1 };

	complain("%s is cut off: %s", s->name, why);
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	total.cut++;
	drop(s);
}

/*
 * A good end.  If there were something unread, close() would reset the
 * connection, and what is still on its way would be lost.
 */
static void dismiss(struct subscriber *s)
{
	char scrap[4096];
	int i;

	for (i = 0; i < 1000 && read(s->fd, scrap, sizeof(scrap)) > 0; i++)
		;
	drop(s);
}

static void serve_subscriber(struct subscriber *s)
{
	if (s->doomed)
		cut_off(s, s->doomed);
	else if (!flush(s))
		drop(s);
	else if (stopping && !s->count)
		dismiss(s);
	else if (stopping && now() >= deadline)
		cut_off(s, "too slow, the server stops");
	else
		judge(s);
}

/* ----------------------------------------------------------------- workers */

static void serve_events(struct worker *w)
{
	struct epoll_event events[MAX_EVENTS];
	struct subscriber *s;
	int i, n;

	pthread_mutex_unlock(&w->lock);
	n = epoll_wait(w->epoll, events, MAX_EVENTS,
	               brakes || stopping ? TICK : -1);
	pthread_mutex_lock(&w->lock);
	for (i = 0; i < n; i++) {
		s = events[i].data.ptr;
		if (s && events[i].events & (EPOLLERR | EPOLLHUP))
			drop(s);
		else if (s)
			s->blocked = false;
	}
	/* A tick without events: has anybody, of any worker, taken anything? */
	if (n == 0) {
		w->idle = w->out == total.out ? w->idle + TICK : 0;
		w->out = total.out;
	}
}

static void *work(void *arg)
{
	struct subscriber *s, *next;
	struct worker *w = arg;

	pthread_mutex_lock(&w->lock);
	do {
		serve_events(w);
		for (s = LIST_FIRST(&w->subscribers); s; s = next) {
			next = LIST_NEXT(s, link); /* the hub adds in front */
			serve_subscriber(s);
		}
	} while (!LIST_EMPTY(&w->subscribers) || !stopping);
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* The hub's writes wake it, each of them once: nobody has to read them. */
static void start_worker(struct worker *w)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	pthread_mutex_init(&w->lock, NULL);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_CLOEXEC);
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &event) ||
	    (errno = pthread_create(&w->thread, NULL, work, w)))
		die(FAILED, "cannot start a thread: %s", strerror(errno));
}

/* ----------------------------------------------------------------- the hub */

/*
 * Edge-triggered: told once when the socket has room again, not all the time
 * when there is nothing to send.  What the kernel queues is a copy for each
 * subscriber: let most of it wait in our queue, where it is shared.
 */
static void add_subscriber(struct worker *w, int fd, const char *name)
{
	struct subscriber *s =
		calloc(1, sizeof(*s) + opt.queue * sizeof(*s->queue));
	struct epoll_event event = { EPOLLOUT | EPOLLET, { .ptr = s } };
	const int on = 1, unsent = 128 << 10;

	if (!s) {
		complain("%s is refused: no memory", name);
		close(fd);
		return;
	}
	s->fd = fd;
	s->worker = w;
	strcpy(s->name, name);
	setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	pthread_mutex_lock(&w->lock);
	LIST_INSERT_HEAD(&w->subscribers, s, link);
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event))
		cut_off(s, strerror(errno));
	pthread_mutex_unlock(&w->lock);
}

/* Each worker gets its share, in turns. */
static void accept_subscribers(void)
{
	char name[ADDRESS_LEN];
	int fd;

	while ((fd = accept_next(hub[JOINERS].fd, name)) >= 0)
		add_subscriber(&workers[total.joined++ % opt.threads], fd,
		               name);
}

static void accept_publisher(void)
{
	char name[ADDRESS_LEN];
	int fd = accept_next(hub[NEWCOMERS].fd, name);
	struct epoll_event event = { EPOLLIN, { .fd = fd } };

	if (fd >= 0 &&
	    epoll_ctl(hub[PUBLISHERS].fd, EPOLL_CTL_ADD, fd, &event)) {
		complain("%s is refused: %s", name, strerror(errno));
		close(fd);
	}
}

static void report(void)
{
	bufpool_stats_print(pool, stderr, BUFPOOL_TEXT);
	complain("%s: %" PRIu64 " bytes in, %" PRIu64 " bytes out, "
	         "%u subscribers, %u cut off",
	         opt.copy ? "copy" : "share", total.in, total.out, total.joined,
	         total.cut);
}

static void run_hub(void)
{
	struct epoll_event event;
	eventfd_t count; /* of the timer's expirations as well */

	for (;;) {
		hub[PUBLISHERS].revents = 0;
		if (poll(hub, brakes || hub[BUFFER].fd >= 0 ? PUBLISHERS : HUB_FDS,
		         -1) < 0)
			continue; /* EINTR, after SIGCONT */
		if (hub[SIGNALS].revents)
			return;
		/* One at a time, so epoll has them take turns. */
		if (hub[PUBLISHERS].revents &&
		    epoll_wait(hub[PUBLISHERS].fd, &event, 1, 0) == 1)
			read_publisher(event.data.fd);
		if (hub[JOINERS].revents)
			accept_subscribers();
		if (hub[NEWCOMERS].revents)
			accept_publisher();
		if (hub[BUFFER].revents)
			hub[BUFFER].fd = -1;
		if (hub[RELEASED].revents)
			eventfd_read(hub[RELEASED].fd, &count);
		if (hub[TIMER].revents) {
			eventfd_read(hub[TIMER].fd, &count);
			report();
		}
	}
}

/* ------------------------------------------------------------- command line */

/* clang-format off */
static const char help[] =
"Usage: fanout --publish ADDR --subscribe ADDR [OPTION]...\n"
"Send whatever publishers send to all subscribers, from shared buffers.\n"
"ADDR is HOST:PORT, [IPV6]:PORT, :PORT (any address) or unix:PATH (which must\n"
"not exist); for PORT 0 the system chooses one.  Both addresses are printed\n"
"when all is ready.\n"
"\n"
"  --publish ADDR    who connects here is read from; several get mixed\n"
"  --subscribe ADDR  who connects here gets what is read from then on\n"
"  --buffer SIZE     bytes read at once, up to 1G, suffix K, M, G (default: 64K)\n"
"  --queue N         buffers a subscriber may be behind, 1 to 65536 (default: 64)\n"
"  --patience MS     see below, 1 to 60000 (default: 500)\n"
"  --threads N       threads that send, 1 to 256 (default: 1)\n"
"  --exhausted wait  --queue buffers for all and no heap; nobody is cut off\n"
"  --copy            a malloc'd copy for each subscriber, which nobody erases\n"
"  --stats-every S   statistics on stderr, 1 to 86400 (default: at the end)\n"
"  --help, --version\n"
"\n"
"Nothing is read while a subscriber's queue is more than half full, so the\n"
"slowest sets the pace.  But when nobody at all has taken anything for\n"
"--patience, who is above half then is not waited for until it is back at\n"
"half.  The others go on, and who falls a whole queue behind is cut off.\n"
"With --exhausted wait, publishers wait while all buffers are in queues.\n"
"\n"
"SIGINT and SIGTERM: no more is read, subscribers have 5 s to take what is\n"
"queued, then all are closed.  Exit status: 0; 1 if something failed or a\n"
"buffer is missing at the end; 2 if the command line is wrong.";
/* clang-format on */

static const struct param params[] = {
	{ "publish", .text = &opt.publish },
	{ "subscribe", .text = &opt.subscribe },
	{ "buffer", .size = &opt.buffer, .max = 1 << 30 },
	{ "queue", .number = &opt.queue, .max = 65536 },
	{ "patience", .number = &opt.patience, .max = 60000 },
	{ "threads", .number = &opt.threads, .max = 256 },
	{ "exhausted", .text = &opt.exhausted },
	{ "copy", .on = &opt.copy },
	{ "stats-every", .number = &opt.stats_every, .max = 86400 },
	{ 0 },
};

/* ------------------------------------------------------- beginning and end */

/* Signals come as events: blocked, in the workers too. */
static void open_hub(void)
{
	const struct timespec t = { .tv_sec = opt.stats_every };
	const struct itimerspec every = { t, t };
	sigset_t set;
	int i;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN); /* writev() says EPIPE */

	hub[SIGNALS].fd = signalfd(-1, &set, SFD_CLOEXEC);
	hub[TIMER].fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	hub[RELEASED].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	hub[PUBLISHERS].fd = epoll_create1(EPOLL_CLOEXEC);
	if (hub[RELEASED].fd < 0 || hub[SIGNALS].fd < 0 ||
	    hub[PUBLISHERS].fd < 0 ||
	    timerfd_settime(hub[TIMER].fd, 0, &every, NULL))
		die(FAILED, "%s", strerror(errno));
	hub[BUFFER].fd = -1;
	for (i = 0; i < HUB_FDS; i++)
		hub[i].events = POLLIN;
}

static void start(void)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	unsigned i;

	open_hub();
	hub[NEWCOMERS].fd = listen_on("publish", opt.publish);
	hub[JOINERS].fd = listen_on("subscribe", opt.subscribe);
	/*
	 * As many buffers as can be out at once: the one that is being filled
	 * and those in the longest queue; or as may be.  WIPE_USED: read()
	 * writes what it says and no more, so a buffer that holds little is
	 * erased quickly.
	 */
	set_count(&config, opt.buffer,
	          (opt.wait ? 0 : 1) + (opt.copy ? 0 : opt.queue));
	config.wipe = BUFPOOL_WIPE_USED;
	config.name = "fanout";
	pool = bufpool_create(&config);
	if (!pool)
		die(FAILED, "cannot create the pool: %s", strerror(errno));
	if (opt.wait)
		home = bufpool_event_open(pool, opt.buffer);
	if (opt.wait && !home)
		die(FAILED, "cannot wait for buffers of that size: %s",
		    strerror(errno));
	workers = calloc(opt.threads, sizeof(*workers));
	if (!workers)
		die(FAILED, "%s", strerror(errno));
	for (i = 0; i < opt.threads; i++)
		start_worker(&workers[i]);
	flush_output();
}

/* Nobody new; whoever is there gets what is queued. */
static void drain(void)
{
	struct worker *w;

	close(hub[NEWCOMERS].fd);
	close(hub[JOINERS].fd);
	deadline = now() + DRAIN;
	stopping = true;
	for (w = workers; w < workers + opt.threads; w++)
		eventfd_write(w->wake, 1);
	for (w = workers; w < workers + opt.threads; w++)
		pthread_join(w->thread, NULL);
	free(workers);
	remove_sockets();
}

int main(int argc, char **argv)
{
	bufpool_stats_t stats;

	init_program(argc, argv);
	parse_options(argc, argv, params, help);
	if (optind < argc)
		die(USAGE, "'%s' is no option", argv[optind]);
	if (!opt.publish || !opt.subscribe)
		die(USAGE, "--publish and --subscribe are needed; "
		           "fanout --help says more");
	opt.wait = opt.exhausted && strcmp(opt.exhausted, "wait") == 0;
	if (opt.exhausted && !opt.wait)
		die(USAGE, "--exhausted: '%s' is not wait", opt.exhausted);
	if (opt.wait && opt.copy)
		die(USAGE, "--copy takes from the heap, --exhausted wait does not");
	start();
	run_hub();
	drain();
	report();
	bufpool_stats(pool, &stats);
	bufpool_event_close(home);
	bufpool_destroy(pool);
	if (stats.checked_out)
		die(FAILED, "%" PRIu64 " buffers are missing",
		    stats.checked_out);
	return 0;
}
