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
 * Memory.  All see the same stream, so a queue holds the last buffers of it,
 * some queues more and some fewer.  All queues together hold no more different
 * buffers than the longest, whether there is one subscriber or a thousand.
 *
 * The brake.  A publisher may be faster than its subscribers.  Each queue that
 * is more than half full is a brake, unless its subscriber is stuck; see
 * judge().  The hub reads one buffer at a time, and only while there are no
 * brakes: so only who is stuck can overflow, and is cut off.
 *
 * Nobody waits for a socket.  A subscriber belongs to one worker.  The hub adds
 * subscribers and fills queues, the worker takes away, both under the worker's
 * lock, which it gives up while it writes.
 */
#include <bufpool.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_EVENTS 64 /* fetched from epoll at once */
#define GATHER 64     /* slices in one writev() */
#define TICK 50       /* ms from one look at slow subscribers to the next */
#define DRAIN 5000    /* ms that subscribers have to take the rest at the end */
#define NAME_LEN 80

enum { FAILED = 1, USAGE = 2 }; /* exit statuses */

struct subscriber {
	struct subscriber *next, **self; /* self: what points to it */
	struct worker *worker;
	int fd;
	bool blocked;         /* its socket takes no more; epoll will tell */
	bool stuck;           /* not waited for until it takes something */
	bool braking;         /* its brake is on */
	const char *doomed;   /* why it is to be cut off */
	unsigned head, count; /* of the queue */
	size_t sent;          /* bytes of the first slice that are gone */
	char name[NAME_LEN];
	bufpool_slice_t queue[]; /* a ring of opt.queue */
};

struct worker {
	pthread_t thread;
	int epoll;
	int wake;             /* eventfd: the hub has been here */
	pthread_mutex_t lock; /* of its subscribers and all that follows */
	struct subscriber *subscribers;
	int braking;      /* how many of them are */
	unsigned idle;    /* ms that nobody has taken anything */
	uint64_t out;     /* total.out as it was last seen */
	int64_t deadline; /* for the rest, at the end; before that 0 */
};

static struct {
	const char *publish, *subscribe;
	unsigned buffer, queue, patience, threads, stats_every;
	bool copy;
} opt = { .buffer = 64 << 10, .queue = 64, .patience = 500, .threads = 1 };

static bufpool_t *pool;
static struct worker *workers;
static atomic_uint brakes;

/* The hub's descriptors. */
static int publishers, subscribers; /* listening */
static int signals, timer;
static int released;   /* eventfd: the last brake has gone */
static int unbraked;   /* epoll: all of the above */
static int everything; /* epoll: these and the publishers */
static int spare;      /* to give up when no other is left */
static bool stopping;

static struct {
	_Atomic uint64_t in, out; /* bytes */
	atomic_uint joined, cut;  /* subscribers */
} total;

/* ---------------------------------------------------------------- messages */

/* In one piece, from any thread. */
__attribute__((format(printf, 1, 2)))
static void complain(const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "fanout: %s\n", line);
}

/* _exit(): other threads may still be at work on what exit() takes apart. */
#define die(code, ...) (complain(__VA_ARGS__), _exit(code))

static void report(void)
{
	bufpool_stats_print(pool, stderr, BUFPOOL_TEXT);
	complain("%s: %" PRIu64 " bytes in, %" PRIu64 " bytes out, "
	         "%u subscribers, %u cut off", opt.copy ? "copy" : "share",
	         total.in, total.out, total.joined, total.cut);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------ queues */

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
	*slice = (bufpool_slice_t) { .data = copy, .len = len };
	return copy != NULL;
}

static void slice_put(bufpool_slice_t *slice)
{
	if (opt.copy)
		free((void *) slice->data);
	else
		bufpool_slice_release(slice);
}

static bufpool_slice_t *queued(struct subscriber *s, unsigned i)
{
	return &s->queue[(s->head + i) % opt.queue];
}

static void set_braking(struct subscriber *s, bool braking)
{
	if (s->braking == braking)
		return;
	s->braking = braking;
	s->worker->braking += braking ? 1 : -1;
	if (braking)
		brakes++;
	else if (--brakes == 0)
		eventfd_write(released, 1);
}

/*
 * A slow subscriber is waited for, a stuck one is not.  The brake holds nobody
 * up who still has something to take.  But once nobody takes anything any more,
 * who is above half then is stuck: the others go on, and its queue overflows
 * unless it comes back.  Then it holds buffers older than all others, so the
 * brake is on until the worker has cut it off, which takes but a moment.
 */
static void judge(struct subscriber *s)
{
	bool above = s->count > opt.queue / 2;

	if (above && s->worker->idle >= opt.patience)
		s->stuck = true;
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

	for (i = 0; i < s->count && i < GATHER; i++) {
		iov[i].iov_base = (void *) queued(s, i)->data;
		iov[i].iov_len = queued(s, i)->len;
	}
	iov[0].iov_base = (char *) iov[0].iov_base + s->sent;
	iov[0].iov_len -= s->sent;
	return (int) i;
}

/* n bytes are gone: let go of every slice that is done with. */
static void advance(struct subscriber *s, size_t n)
{
	total.out += n;
	s->stuck = false;
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
	*s->self = s->next;
	if (s->next)
		s->next->self = s->self;
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

static void serve_subscriber(struct subscriber *s)
{
	int64_t deadline = s->worker->deadline;

	if (s->doomed)
		cut_off(s, s->doomed);
	else if (!flush(s) || (deadline && !s->count))
		drop(s);
	else if (deadline && now_ms() >= deadline)
		cut_off(s, "too slow, the server stops");
	else
		judge(s);
}

/* ----------------------------------------------------------------- workers */

static void serve_event(struct worker *w, const struct epoll_event *event)
{
	struct subscriber *s = event->data.ptr;
	eventfd_t count;

	if (!s)
		eventfd_read(w->wake, &count);
	else if (event->events & (EPOLLERR | EPOLLHUP))
		drop(s);
	else
		s->blocked = false;
}

/* All that is ready, so that nobody is judged before its turn. */
static void serve_events(struct worker *w)
{
	struct epoll_event events[MAX_EVENTS];
	int timeout = w->braking || w->deadline ? TICK : -1;
	int i, n;

	for (;; timeout = 0) {
		pthread_mutex_unlock(&w->lock);
		n = epoll_wait(w->epoll, events, MAX_EVENTS, timeout);
		pthread_mutex_lock(&w->lock);
		for (i = 0; i < n; i++)
			serve_event(w, &events[i]);
		if (n < MAX_EVENTS)
			break;
	}
	/* A tick without events: has anybody, of any worker, taken anything? */
	if (n == 0 && timeout == TICK) {
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
		for (s = w->subscribers; s; s = next) {
			next = s->next; /* the hub adds in front */
			serve_subscriber(s);
		}
	} while (w->subscribers || !w->deadline);
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* ----------------------------------------------------------------- the hub */

static bool watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool watch_both(int fd)
{
	return watch(unbraked, fd) && watch(everything, fd);
}

static void print_address(char *name, const struct sockaddr_storage *sa)
{
	bool v6 = sa->ss_family == AF_INET6;
	char host[NAME_LEN / 2], port[8];

	if (sa->ss_family == AF_UNIX ||
	    getnameinfo((const struct sockaddr *) sa, sizeof(*sa), host,
	                sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV))
		strcpy(name, "unix");
	else
		snprintf(name, NAME_LEN, v6 ? "[%s]:%s" : "%s:%s", host, port);
}

/*
 * The next connection, or -1.  One that there is no descriptor for is taken
 * with the spare one and refused: else it would be reported for ever.
 */
static int accept_next(int listener, struct sockaddr_storage *peer)
{
	socklen_t len = sizeof(*peer);
	int fd = accept4(listener, (struct sockaddr *) peer, &len,
	                 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0 || (errno != EMFILE && errno != ENFILE))
		return fd;
	close(spare);
	close(accept(listener, NULL, NULL));
	spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	complain("too many connections, one is refused");
	return -1;
}

/*
 * Edge-triggered: told once when the socket has room again, not all the time
 * when there is nothing to send.  What a subscriber sends is never read.
 */
static void join(struct worker *w, struct subscriber *s)
{
	struct epoll_event event = { .events = EPOLLOUT | EPOLLET,
		                     .data.ptr = s };

	pthread_mutex_lock(&w->lock);
	s->worker = w;
	s->self = &w->subscribers;
	s->next = w->subscribers;
	if (s->next)
		s->next->self = &s->next;
	w->subscribers = s;
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, s->fd, &event))
		cut_off(s, strerror(errno));
	pthread_mutex_unlock(&w->lock);
}

/*
 * Each worker gets its share, in turns.  What the kernel queues is a copy for
 * each subscriber: let most of it wait in our queue, where it is shared.
 */
static void accept_subscribers(void)
{
	const int on = 1, unsent = 128 << 10;
	struct sockaddr_storage peer;
	struct subscriber *s;
	int fd;

	while ((fd = accept_next(subscribers, &peer)) >= 0) {
		s = calloc(1, sizeof(*s) + opt.queue * sizeof(*s->queue));
		if (!s) {
			complain("a subscriber is refused: no memory");
			close(fd);
			continue;
		}
		s->fd = fd;
		print_address(s->name, &peer);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent,
		           sizeof(unsent));
		join(&workers[total.joined++ % opt.threads], s);
	}
}

static void accept_publisher(void)
{
	struct sockaddr_storage peer;
	int fd = accept_next(publishers, &peer);

	if (fd >= 0 && !watch(everything, fd)) {
		complain("a publisher is refused: %s", strerror(errno));
		close(fd);
	}
}

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
		for (s = w->subscribers; s; s = s->next)
			enqueue(s, f);
		pthread_mutex_unlock(&w->lock);
		eventfd_write(w->wake, 1);
	}
	bufpool_frozen_unref(f);
}

/* Take what there is, up to a buffer full; true if more may come. */
static bool fill(bufpool_buf_t *buf, int fd)
{
	size_t want = buf->len;
	ssize_t n = 1;

	for (buf->len = 0; buf->len < want && n > 0;) {
		n = read(fd, (char *) buf->data + buf->len, want - buf->len);
		if (n > 0)
			buf->len += (size_t) n;
	}
	if (n < 0 && errno != EAGAIN)
		complain("a publisher: %s", strerror(errno));
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void read_publisher(int fd)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, opt.buffer);
	bool more = false;

	if (buf)
		more = fill(buf, fd);
	else
		complain("a publisher is cut off: %s", strerror(errno));
	if (buf && buf->len) {
		accept_subscribers(); /* who is there by now is to get it */
		publish(buf);
	} else {
		bufpool_return(buf);
	}
	if (!more)
		close(fd);
}

static void serve_hub(int fd)
{
	eventfd_t count; /* of a timer's expirations as well */

	if (fd == signals)
		stopping = true;
	else if (fd == released)
		eventfd_read(fd, &count);
	else if (fd == timer && eventfd_read(fd, &count) == 0)
		report();
	else if (fd == subscribers)
		accept_subscribers();
	else if (fd == publishers)
		accept_publisher();
	else if (!brakes) /* else it will be reported again */
		read_publisher(fd);
}

static void run_hub(void)
{
	struct epoll_event events[MAX_EVENTS];
	int i, n;

	while (!stopping) {
		n = epoll_wait(brakes ? unbraked : everything, events,
		               MAX_EVENTS, -1);
		for (i = 0; i < n; i++)
			serve_hub(events[i].data.fd);
	}
}

/* --------------------------------------------------------------- addresses */

/* A number from min to max, with a suffix if suffixes says so; else -1. */
static long long parse_number(const char *s, long long min, long long max,
                              const char *suffixes)
{
	unsigned shift = 0;
	long long n;
	char *end;

	if (!isdigit((unsigned char) *s)) /* no sign, no space */
		return -1;
	errno = 0;
	n = strtoll(s, &end, 10);
	if (*end && strchr(suffixes, *end))
		shift = *end++ == 'K' ? 10 : 20;
	if (errno || *end || n > max >> shift || n << shift < min)
		return -1;
	return n << shift;
}

/* A socket that listens, or -1. */
static int open_listener(const void *address, socklen_t len)
{
	const struct sockaddr *sa = address;
	const int on = 1;
	int fd = socket(sa->sa_family,
	                SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || (bind(fd, sa, len) == 0 && listen(fd, SOMAXCONN) == 0))
		return fd;
	close(fd);
	return -1;
}

/* The path of an address unix:PATH, else NULL. */
static const char *unix_path(const char *addr)
{
	return strncmp(addr, "unix:", 5) == 0 ? addr + 5 : NULL;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		die(USAGE, "'%s' is no path for a socket", path);
	strcpy(sa.sun_path, path);
	return open_listener(&sa, sizeof(sa));
}

/* On the first address of the host that can be had. */
static int listen_inet(const char *addr)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_PASSIVE };
	struct addrinfo *list, *ai;
	const char *colon = strrchr(addr, ':');
	int len = colon ? (int) (colon - addr) : 0;
	bool v6 = len > 2 && *addr == '[' && colon[-1] == ']';
	char host[256];
	int error, fd = -1;

	snprintf(host, sizeof(host), "%.*s", v6 ? len - 2 : len, addr + v6);
	if (!colon || parse_number(colon + 1, 0, 65535, "") < 0 ||
	    strpbrk(host, v6 ? "[]" : ":[]"))
		die(USAGE, "'%s' is not HOST:PORT, [IPV6]:PORT, :PORT or "
		    "unix:PATH", addr);
	error = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list);
	if (error)
		die(FAILED, "%s: %s", addr, gai_strerror(error));
	for (ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = open_listener(ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	return fd;
}

/* Listen, and say where: port 0 is for the system to choose. */
static int listen_on(const char *what, const char *addr)
{
	const char *path = unix_path(addr);
	int fd = path ? listen_unix(path) : listen_inet(addr);
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char name[NAME_LEN];

	if (fd < 0)
		die(FAILED, "%s: %s", addr, strerror(errno));
	if (!path && getsockname(fd, (struct sockaddr *) &sa, &len) == 0) {
		print_address(name, &sa);
		addr = name;
	}
	printf("%s %s\n", what, addr);
	return fd;
}

/* ------------------------------------------------------------- command line */

static const char help[] =
"Usage: fanout --publish ADDR --subscribe ADDR [OPTION]...\n"
"Send whatever publishers send to all subscribers, from shared buffers.\n"
"ADDR is HOST:PORT, [IPV6]:PORT, :PORT (any address) or unix:PATH (which must\n"
"not exist); for PORT 0 the system chooses one.  Both addresses are printed\n"
"when all is ready.\n"
"\n"
"  --publish ADDR         who connects here is read from; what several send\n"
"                         is mixed, buffer by buffer\n"
"  --subscribe ADDR       who connects here gets what is read from then on\n"
"  --buffer SIZE          bytes read at once, 1 to 1024M, K and M are 2^10\n"
"                         and 2^20 (default: 64K)\n"
"  --queue N              buffers a subscriber may be behind, 1 to 65536\n"
"                         (default: 64)\n"
"  --patience MS          see below, 1 to 60000 (default: 500)\n"
"  --threads N            threads that send, 1 to 256 (default: 1)\n"
"  --copy                 the same with a malloc'd copy for each subscriber;\n"
"                         nobody erases the copies\n"
"  --stats-every SECONDS  statistics on stderr, 1 to 86400 (default: only at\n"
"                         the end)\n"
"  --help\n"
"\n"
"Nothing is read while a subscriber's queue is more than half full, so the\n"
"slowest sets the pace.  But when nobody at all has taken anything for\n"
"--patience, who is above half then is not waited for until it takes some\n"
"again.  The others go on, and who falls a whole queue behind is cut off.\n"
"\n"
"SIGINT and SIGTERM: no more is read, subscribers have 5 s to take what is\n"
"queued, then all are closed.  Exit status: 0; 1 if something failed or a\n"
"buffer is missing at the end; 2 if the command line is wrong.";

static void flush_output(void)
{
	if (fflush(stdout) || ferror(stdout))
		die(FAILED, "write error: %s", strerror(errno));
}

/* The options with a number, in the order of options[]. */
static const struct {
	unsigned *value;
	long long max;
	const char *suffixes;
} numbers[] = {
	{ &opt.buffer, 1 << 30, "KM" }, { &opt.queue, 65536, "" },
	{ &opt.patience, 60000, "" },   { &opt.threads, 256, "" },
	{ &opt.stats_every, 86400, "" }
};

static void set_number(const char *name, int i)
{
	long long n = parse_number(optarg, 1, numbers[i].max,
	                           numbers[i].suffixes);

	if (n < 0)
		die(USAGE, "--%s: '%s' is not a number from 1 to %lld", name,
		    optarg, numbers[i].max);
	*numbers[i].value = (unsigned) n;
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "buffer", required_argument, NULL, 'n' },
		{ "queue", required_argument, NULL, 'n' },
		{ "patience", required_argument, NULL, 'n' },
		{ "threads", required_argument, NULL, 'n' },
		{ "stats-every", required_argument, NULL, 'n' },
		{ "publish", required_argument, NULL, 'p' },
		{ "subscribe", required_argument, NULL, 's' },
		{ "copy", no_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option, i = 0;

	while ((option = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (option == 'n')
			set_number(options[i].name, i);
		else if (option == 'p')
			opt.publish = optarg;
		else if (option == 's')
			opt.subscribe = optarg;
		else if (option == 'c')
			opt.copy = true;
		else if (option == 'h')
			break;
		else
			exit(USAGE); /* getopt_long() has said why */
	}
	if (option == 'h') {
		puts(help);
		flush_output();
		exit(0);
	}
	if (optind < argc)
		die(USAGE, "'%s' is no option", argv[optind]);
	if (!opt.publish || !opt.subscribe)
		die(USAGE, "--publish and --subscribe are needed; "
		    "fanout --help says more");
}

/* ------------------------------------------------------- beginning and end */

/*
 * As many buffers as can be out at once: the one that is being filled and those
 * in the longest queue.  A program that knows its sizes writes
 * BUFPOOL_CLASS_64K; we have to ask which class serves ours: a pool without
 * buffers counts where one was missing.
 *
 * WIPE_USED: read() writes what it says and no more, so a buffer that holds
 * little is erased quickly.
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
			cfg.count[class] = 1 + (opt.copy ? 0 : opt.queue);
	return bufpool_create(&cfg);
}

static void start_worker(struct worker *w)
{
	struct epoll_event event = { .events = EPOLLIN };
	int error;

	pthread_mutex_init(&w->lock, NULL);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &event))
		die(FAILED, "cannot start a thread: %s", strerror(errno));
	error = pthread_create(&w->thread, NULL, work, w);
	if (error)
		die(FAILED, "cannot start a thread: %s", strerror(error));
}

/* Signals come as events: blocked, in the workers too. */
static void open_hub(void)
{
	struct itimerspec every = { { opt.stats_every, 0 },
		                    { opt.stats_every, 0 } };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN); /* writev() says EPIPE */

	signals = signalfd(-1, &set, SFD_CLOEXEC);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	released = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	unbraked = epoll_create1(EPOLL_CLOEXEC);
	everything = epoll_create1(EPOLL_CLOEXEC);
	if (timerfd_settime(timer, 0, &every, NULL) || !watch_both(signals) ||
	    !watch_both(timer) || !watch_both(released) ||
	    !watch_both(publishers) || !watch_both(subscribers))
		die(FAILED, "%s", strerror(errno));
}

static void start(void)
{
	unsigned i;

	publishers = listen_on("publish", opt.publish);
	subscribers = listen_on("subscribe", opt.subscribe);
	open_hub();
	pool = make_pool();
	workers = calloc(opt.threads, sizeof(*workers));
	if (!pool || !workers)
		die(FAILED, "cannot create the pool: %s", strerror(errno));
	for (i = 0; i < opt.threads; i++)
		start_worker(&workers[i]);
	flush_output();
}

/* Nobody new; whoever is there gets what is queued. */
static void drain(void)
{
	struct worker *w;

	close(publishers);
	close(subscribers);
	for (w = workers; w < workers + opt.threads; w++) {
		pthread_mutex_lock(&w->lock);
		w->deadline = now_ms() + DRAIN;
		pthread_mutex_unlock(&w->lock);
		eventfd_write(w->wake, 1);
	}
	for (w = workers; w < workers + opt.threads; w++)
		pthread_join(w->thread, NULL);
	free(workers);
	if (unix_path(opt.publish))
		unlink(unix_path(opt.publish));
	if (unix_path(opt.subscribe))
		unlink(unix_path(opt.subscribe));
}

int main(int argc, char **argv)
{
	static char name[] = "fanout";
	bufpool_stats_t stats;

	if (argc > 0)
		argv[0] = name; /* getopt_long() begins messages with it */
	do /* sockets must not get the number of a closed standard stream */
		spare = open("/dev/null", O_RDWR);
	while (spare >= 0 && spare <= STDERR_FILENO);
	parse_options(argc, argv);

	start();
	run_hub();
	drain();

	report();
	bufpool_stats(pool, &stats);
	bufpool_destroy(pool);
	if (stats.checked_out)
		die(FAILED, "%" PRIu64 " buffers are missing",
		    stats.checked_out);
	return 0;
}
