/* SPDX-License-Identifier: MIT */
/*
 * fanout.c - what a publisher sends goes to every subscriber, without a copy
 *
 * An example of libbufpool where buffers are shared: one thread fills a buffer
 * and freezes it, many send from it, the last one to let go sends it home.
 *
 *   publisher
 *       |  read() into a buffer of the pool; freeze
 *      hub                                        the main thread
 *       |  a reference to each worker's inbox
 *     worker                                      --threads of them
 *       |  a slice to each of its subscribers' queues
 *   subscriber
 *       |  writev() from the frozen buffer; release the slice
 *       v
 *
 * A subscriber belongs to one worker, which alone touches it: only inboxes need
 * a lock.  Nobody ever waits for a socket: hub and workers each have an epoll.
 *
 * Memory.  All see the same stream, so a queue holds the last buffers of it,
 * some queues more and some fewer.  All queues together hold no more different
 * buffers than the longest, whether there is one subscriber or a thousand.
 *
 * The brake.  A publisher may be faster than its subscribers.  Each reason not
 * to read more counts as one brake: an inbox that is full, and a queue that is
 * more than half full - unless its owner takes nothing at all; see judge().
 * While there are brakes, the hub neither reads nor accepts.  An inbox has room
 * for the other half of a queue, and its brake goes only after those of the
 * queues it went to are on.  So no queue overflows that has its brake on.
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
#include <sys/stat.h>
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
	bool braking;         /* its brake is on */
	unsigned head, count; /* of the queue */
	size_t sent;          /* bytes of the first slice that are gone */
	int64_t since;        /* when it took a buffer, or was first above half */
	char name[NAME_LEN];
	bufpool_slice_t queue[]; /* a ring of opt.queue */
};

/* What the hub tells a worker: a buffer to send, or a subscriber that joins. */
struct message {
	bufpool_frozen_t *frozen;
	struct subscriber *joins;
};

struct worker {
	pthread_t thread;
	int epoll;
	int wake; /* eventfd: look into the inbox */
	int64_t now;
	struct subscriber *subscribers;
	unsigned braking; /* how many of them are */
	int64_t deadline; /* to drain; 0 before the end */

	pthread_mutex_t lock;  /* of what follows */
	struct message *inbox; /* a ring of inbox_size */
	unsigned head, count;
	bool stopping; /* nothing more will come */
};

static struct {
	const char *publish, *subscribe;
	size_t buffer;
	unsigned queue, threads, patience, stats_every;
	bool copy;
} opt = { .buffer = 64 << 10, .queue = 64, .threads = 1, .patience = 500 };

static bufpool_t *pool;
static struct worker *workers;
static unsigned inbox_size;

static atomic_uint brakes;
static int released; /* eventfd: the last brake has gone */

static int control;                /* the hub's epoll: signals, timer, brake */
static int everything;             /* the same, and publishers and listeners */
static int publishers, subscribers; /* listening */
static int signals, timer;
static bool stopping;
static int spare; /* a descriptor to give up when there are no others */

static struct {
	atomic_ullong in, out; /* bytes */
	atomic_uint joined, cut;
} total;

/* ---------------------------------------------------------------- messages */

__attribute__((format(printf, 1, 2)))
static void complain(const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "fanout: %s\n", line); /* whole, from any thread */
}

/* _exit(): other threads may still be at work on what exit() takes apart. */
#define die(code, ...) (complain(__VA_ARGS__), _exit(code))

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --------------------------------------------------------------- the brake */

static void brake_on(void)
{
	atomic_fetch_add(&brakes, 1);
}

static void brake_off(void)
{
	if (atomic_fetch_sub(&brakes, 1) == 1)
		eventfd_write(released, 1);
}

/* ----------------------------------------------------------------- sharing */

/*
 * Here sharing and copying differ; nothing else knows which of them it is.  A
 * slice holds a reference of its own, or has no owner and is malloc's.
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

/* ------------------------------------------------------------- subscribers */

static bufpool_slice_t *queued(struct subscriber *s, unsigned i)
{
	return &s->queue[(s->head + i) % opt.queue];
}

static void set_braking(struct subscriber *s, bool braking)
{
	if (s->braking == braking)
		return;
	s->braking = braking;
	if (braking) {
		s->worker->braking++;
		brake_on();
	} else {
		s->worker->braking--;
		brake_off();
	}
}

/*
 * A slow subscriber is waited for, a stuck one is not: above half, it has to
 * take a buffer every now and then.  Otherwise the others go on, and its queue
 * overflows.
 */
static void judge(struct subscriber *s)
{
	set_braking(s, s->count > opt.queue / 2 &&
	            s->worker->now - s->since < opt.patience);
}

/* The first slice has been sent, or never will be. */
static void pop(struct subscriber *s)
{
	slice_put(queued(s, 0));
	s->head = (s->head + 1) % opt.queue;
	s->count--;
	s->sent = 0;
}

/* A subscriber leaves, and lets go of all that it had not taken. */
static void drop(struct subscriber *s)
{
	while (s->count)
		pop(s);
	set_braking(s, false);
	*s->self = s->next;
	if (s->next)
		s->next->self = s->self;
	close(s->fd);
	free(s);
}

/* With a reset, where there is such a thing: no end that looks like a good one. */
static void cut_off(struct subscriber *s, const char *why)
{
	struct linger reset = { .l_onoff = 1 };

	complain("%s is cut off: %s", s->name, why);
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	total.cut++;
	drop(s);
}

static void enqueue(struct subscriber *s, bufpool_frozen_t *f)
{
	if (s->count == opt.queue)
		cut_off(s, "too slow, its queue is full");
	else if (!slice_get(queued(s, s->count), f))
		cut_off(s, strerror(ENOMEM));
	else if (s->count++ == opt.queue / 2)
		s->since = s->worker->now;
}

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

/* n bytes are sent: let go of every slice that is done with. */
static void advance(struct subscriber *s, size_t n)
{
	total.out += n;
	s->sent += n;
	while (s->count && s->sent >= queued(s, 0)->len) {
		size_t rest = s->sent - queued(s, 0)->len;

		pop(s);
		s->sent = rest;
		s->since = s->worker->now;
	}
}

/* Send until the queue is empty or the socket full; false if it has gone. */
static bool flush(struct subscriber *s)
{
	struct iovec iov[GATHER];
	ssize_t n;

	while (s->count && !s->blocked) {
		n = writev(s->fd, iov, gather(s, iov));
		if (n >= 0) {
			advance(s, (size_t) n);
		} else if (errno == EAGAIN) {
			s->blocked = true;
		} else { /* EPIPE, ECONNRESET and such: it left */
			drop(s);
			return false;
		}
	}
	return true;
}

/* ----------------------------------------------------------------- workers */

/*
 * Edge-triggered: told once when the socket has room again, not all the time
 * when there is nothing to send.  What a subscriber sends is never read.
 */
static void join(struct worker *w, struct subscriber *s)
{
	struct epoll_event event = { .events = EPOLLOUT | EPOLLET };

	s->worker = w;
	s->next = w->subscribers;
	if (s->next)
		s->next->self = &s->next;
	s->self = &w->subscribers;
	w->subscribers = s;

	event.data.ptr = s;
	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, s->fd, &event))
		cut_off(s, strerror(errno));
}

/* The worker's own reference becomes one for each subscriber. */
static void share(struct worker *w, bufpool_frozen_t *f)
{
	struct subscriber *s, *next;

	for (s = w->subscribers; s; s = next) {
		next = s->next;
		enqueue(s, f);
	}
	bufpool_frozen_unref(f);
}

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

	do {
		n = epoll_wait(w->epoll, events, MAX_EVENTS, timeout);
		w->now = now_ms();
		for (i = 0; i < n; i++)
			serve_event(w, &events[i]);
		timeout = 0;
	} while (n == MAX_EVENTS);
}

static void flush_all(struct worker *w)
{
	struct subscriber *s, *next;

	for (s = w->subscribers; s; s = next) {
		next = s->next;
		if (flush(s))
			judge(s);
	}
}

/* Messages stay in the inbox, and its brake on, until all brakes are set. */
static void empty_inbox(struct worker *w)
{
	unsigned i, n;

	pthread_mutex_lock(&w->lock);
	n = w->count;
	if (w->stopping && !w->deadline)
		w->deadline = w->now + DRAIN;
	pthread_mutex_unlock(&w->lock);

	for (i = 0; i < n; i++) { /* the hub writes behind these only */
		struct message *m = &w->inbox[(w->head + i) % inbox_size];

		if (m->joins)
			join(w, m->joins);
		else
			share(w, m->frozen);
	}
	flush_all(w);

	pthread_mutex_lock(&w->lock);
	if (w->count == inbox_size)
		brake_off();
	w->head = (w->head + n) % inbox_size;
	w->count -= n;
	pthread_mutex_unlock(&w->lock);
}

/* At the end: who has everything may go, who does not take it must. */
static void drain(struct worker *w)
{
	struct subscriber *s, *next;

	for (s = w->subscribers; s; s = next) {
		next = s->next;
		if (!s->count)
			drop(s);
		else if (w->now >= w->deadline)
			cut_off(s, "too slow, the server stops");
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	do {
		serve_events(w);
		empty_inbox(w);
		if (w->deadline)
			drain(w);
	} while (!w->deadline || w->subscribers);
	return NULL;
}

/* There is room, or the brake would be on. */
static void tell(struct worker *w, struct message m)
{
	pthread_mutex_lock(&w->lock);
	w->inbox[(w->head + w->count) % inbox_size] = m;
	if (++w->count == inbox_size)
		brake_on();
	pthread_mutex_unlock(&w->lock);
	eventfd_write(w->wake, 1);
}

/* ------------------------------------------------------------ the hub: in */

static bool watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void print_address(char *name, const struct sockaddr_storage *sa)
{
	char host[NAME_LEN / 2], port[8];
	bool v6 = sa->ss_family == AF_INET6;

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

/* Each worker gets its share, in turns. */
static void accept_subscribers(void)
{
	struct sockaddr_storage peer;
	struct subscriber *s;
	const int on = 1;
	int fd;

	while (!brakes && (fd = accept_next(subscribers, &peer)) >= 0) {
		s = calloc(1, sizeof(*s) + opt.queue * sizeof(*s->queue));
		if (!s) {
			complain("a subscriber is refused: %s",
			         strerror(ENOMEM));
			close(fd);
			continue;
		}
		s->fd = fd;
		s->since = now_ms();
		s->name[0] = 0;
		print_address(s->name, &peer);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		tell(&workers[total.joined++ % opt.threads],
		     (struct message) { .joins = s });
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

/* From here on nobody writes to the buffer, and the last one returns it. */
static void publish(bufpool_buf_t *buf)
{
	bufpool_frozen_t *f = bufpool_freeze(buf);
	unsigned i;

	total.in += bufpool_frozen_len(f);
	for (i = 0; i < opt.threads; i++)
		tell(&workers[i],
		     (struct message) { .frozen = bufpool_frozen_ref(f) });
	bufpool_frozen_unref(f);
}

static void read_publisher(int fd)
{
	bufpool_buf_t *buf;
	bool more;

	accept_subscribers(); /* who has connected by now is to see this */
	if (brakes)
		return;
	buf = bufpool_checkout(pool, opt.buffer);
	if (!buf) {
		complain("a publisher is cut off: %s", strerror(errno));
		close(fd);
		return;
	}
	more = fill(buf, fd);
	if (buf->len)
		publish(buf);
	else
		bufpool_return(buf);
	if (!more)
		close(fd);
}

static void report(void)
{
	bufpool_stats_print(pool, stderr, BUFPOOL_TEXT);
	complain("%s: %llu bytes in, %llu bytes out, %u subscribers, "
	         "%u cut off", opt.copy ? "copy" : "share", total.in,
	         total.out, total.joined, total.cut);
}

static void serve_hub(int epoll);

static void serve_fd(int fd)
{
	uint64_t count;

	if (fd == control)
		serve_hub(control);
	else if (fd == signals)
		stopping = true;
	else if (fd == released)
		eventfd_read(released, &count);
	else if (fd == timer && read(timer, &count, sizeof(count)) > 0)
		report();
	else if (brakes || fd == timer)
		return; /* not now; it will be reported again */
	else if (fd == subscribers)
		accept_subscribers();
	else if (fd == publishers)
		accept_publisher();
	else
		read_publisher(fd);
}

static void serve_hub(int epoll)
{
	struct epoll_event events[MAX_EVENTS];
	int n = epoll_wait(epoll, events, MAX_EVENTS, -1);
	int i;

	for (i = 0; i < n; i++)
		serve_fd(events[i].data.fd);
}

/* With a brake on, look at nothing that would bring in more. */
static void run_hub(void)
{
	while (!stopping)
		serve_hub(brakes ? control : everything);
	close(publishers);
	close(subscribers);
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

/* A socket that was left behind by a server that is no more. */
static bool is_stale(const struct sockaddr_un *sa)
{
	struct stat st;
	bool stale;
	int fd;

	if (lstat(sa->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	stale = connect(fd, (const struct sockaddr *) sa, sizeof(*sa)) &&
	        errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int listen_unix(const char *addr, const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		die(USAGE, "'%s': the path is empty or too long", addr);
	strcpy(sa.sun_path, path);
	if (is_stale(&sa))
		unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) ||
	    listen(fd, SOMAXCONN))
		die(FAILED, "%s: %s", addr, strerror(errno));
	return fd;
}

/* Split HOST:PORT or [HOST]:PORT into host and what is returned, the port. */
static const char *split(const char *addr, char *host, size_t size)
{
	const char *colon = strrchr(addr, ':');
	bool v6 = *addr == '[';
	size_t len;

	if (!colon || parse_number(colon + 1, 0, 65535, "") < 0)
		return NULL;
	if (v6 && colon[-1] != ']')
		return NULL;
	len = (size_t) (colon - addr) - (v6 ? 2 : 0);
	if (len >= size || (v6 && colon - addr < 2))
		return NULL;
	memcpy(host, addr + v6, len);
	host[len] = 0;
	return !v6 && strchr(host, ':') ? NULL : colon + 1;
}

static int bind_inet(const struct addrinfo *ai)
{
	const int on = 1;
	int fd = socket(ai->ai_family,
	                ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, SOMAXCONN)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The first address of a name that can be had. */
static int listen_inet(const char *addr)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_PASSIVE };
	struct addrinfo *list, *ai;
	char host[256];
	const char *port = split(addr, host, sizeof(host));
	int error, fd = -1;

	if (!port)
		die(USAGE, "'%s' is not HOST:PORT, [IPV6]:PORT, :PORT or "
		    "unix:PATH", addr);
	error = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (error)
		die(FAILED, "%s: %s", addr, gai_strerror(error));
	for (ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = bind_inet(ai);
	if (fd < 0)
		die(FAILED, "%s: %s", addr, strerror(errno));
	freeaddrinfo(list);
	return fd;
}

/* The path of an address unix:PATH, else NULL. */
static const char *unix_path(const char *addr)
{
	return strncmp(addr, "unix:", 5) == 0 ? addr + 5 : NULL;
}

/* Listen, and say where: port 0 is for the system to choose. */
static int listen_on(const char *what, const char *addr)
{
	const char *path = unix_path(addr);
	int fd = path ? listen_unix(addr, path) : listen_inet(addr);
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char name[NAME_LEN];

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
"ADDR is HOST:PORT, [IPV6]:PORT, :PORT (any address) or unix:PATH; with PORT 0\n"
"the system chooses one.  Both addresses are printed when all is ready.\n"
"\n"
"  --publish ADDR         who connects here is read from; what several send\n"
"                         is mixed, buffer by buffer\n"
"  --subscribe ADDR       who connects here gets all that is read from then on\n"
"  --buffer SIZE          bytes read at once, 1 to 1024M, K and M are 2^10 and\n"
"                         2^20 (default: 64K)\n"
"  --queue N              buffers a subscriber may be behind, 1 to 65536\n"
"                         (default: 64)\n"
"  --patience MS          see below, 1 to 60000 (default: 500)\n"
"  --threads N            threads that send, 1 to 256 (default: 1)\n"
"  --copy                 the same with a malloc'd copy for each subscriber\n"
"  --stats-every SECONDS  statistics on stderr, 1 to 86400 (default: only at\n"
"                         the end)\n"
"  --help\n"
"\n"
"Nothing is read as long as a subscriber's queue is more than half full, if it\n"
"takes a buffer at least every --patience.  One that takes none for so long is\n"
"not waited for: the others go on, and it is cut off when its queue is full.\n"
"So nobody holds the others up for longer than --patience at once, and nobody\n"
"slows them down below a buffer in that time.\n"
"\n"
"SIGINT and SIGTERM: no more is read, subscribers have 5 s to take what is\n"
"queued, then all are closed.  Exit status: 0; 1 if something failed or a\n"
"buffer is missing at the end; 2 if the command line is wrong.";

static void say_and_exit(const char *text)
{
	if (puts(text) < 0 || fflush(stdout))
		die(FAILED, "write error: %s", strerror(errno));
	exit(0);
}

static unsigned number(const char *name, long long max, const char *suffixes)
{
	long long n = parse_number(optarg, 1, max, suffixes);

	if (n < 0)
		die(USAGE, "--%s: '%s' is not a number from 1 to %lld", name,
		    optarg, max);
	return (unsigned) n;
}

static void parse_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "publish", required_argument, NULL, 'p' },
		{ "subscribe", required_argument, NULL, 's' },
		{ "buffer", required_argument, NULL, 'b' },
		{ "queue", required_argument, NULL, 'q' },
		{ "patience", required_argument, NULL, 'w' },
		{ "threads", required_argument, NULL, 't' },
		{ "stats-every", required_argument, NULL, 'e' },
		{ "copy", no_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option, i;

	while ((option = getopt_long(argc, argv, "", options, &i)) != -1) {
		switch (option) {
		case 'p':
			opt.publish = optarg;
			break;
		case 's':
			opt.subscribe = optarg;
			break;
		case 'b':
			opt.buffer = number(options[i].name, 1 << 30, "KM");
			break;
		case 'q':
			opt.queue = number(options[i].name, 65536, "");
			break;
		case 'w':
			opt.patience = number(options[i].name, 60000, "");
			break;
		case 't':
			opt.threads = number(options[i].name, 256, "");
			break;
		case 'e':
			opt.stats_every = number(options[i].name, 86400, "");
			break;
		case 'c':
			opt.copy = true;
			break;
		case 'h':
			say_and_exit(help);
			break;
		default:
			exit(USAGE); /* getopt_long() has said why */
		}
	}
	if (optind < argc)
		die(USAGE, "'%s' is no option", argv[optind]);
	if (!opt.publish || !opt.subscribe)
		die(USAGE, "--publish and --subscribe are needed; fanout "
		    "--help says more");
}

/* ------------------------------------------------------------------- set-up */

/*
 * The class that serves a size; -1 if none does.  As in poolsum.c: a program
 * that knows its sizes writes BUFPOOL_CLASS_64K.
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

/*
 * As many buffers as can be out at once: one that is being filled, those in the
 * inboxes, and those in the longest queue.  WIPE_USED: read() writes what it
 * says and no more, so a buffer that holds little is erased quickly.
 */
static bufpool_t *make_pool(void)
{
	bufpool_config_t cfg = BUFPOOL_CONFIG_INIT;
	int class = find_class(opt.buffer);

	cfg.wipe = BUFPOOL_WIPE_USED;
	memset(cfg.count, 0, sizeof(cfg.count));
	if (class >= 0)
		cfg.count[class] = 1 + inbox_size + (opt.copy ? 0 : opt.queue);
	return bufpool_create(&cfg);
}

static void start_worker(struct worker *w)
{
	struct epoll_event event = { .events = EPOLLIN };
	int error;

	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->inbox = calloc(inbox_size, sizeof(*w->inbox));
	pthread_mutex_init(&w->lock, NULL);
	if (!w->inbox ||
	    epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &event))
		die(FAILED, "cannot start a thread: %s", strerror(errno));
	error = pthread_create(&w->thread, NULL, work, w);
	if (error)
		die(FAILED, "cannot start a thread: %s", strerror(error));
}

static void stop_worker(struct worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_mutex_unlock(&w->lock);
	eventfd_write(w->wake, 1);
	pthread_join(w->thread, NULL);
	pthread_mutex_destroy(&w->lock);
	free(w->inbox);
	close(w->wake);
	close(w->epoll);
}

static void set_up_hub(void)
{
	struct itimerspec every = { { opt.stats_every, 0 },
		                    { opt.stats_every, 0 } };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* for the workers as well */
	signal(SIGPIPE, SIG_IGN);               /* writev() says EPIPE */

	signals = signalfd(-1, &set, SFD_CLOEXEC);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	released = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	control = epoll_create1(EPOLL_CLOEXEC);
	everything = epoll_create1(EPOLL_CLOEXEC);
	if (spare < 0 || timerfd_settime(timer, 0, &every, NULL) ||
	    !watch(control, signals) || !watch(control, timer) ||
	    !watch(control, released) || !watch(everything, control) ||
	    !watch(everything, publishers) || !watch(everything, subscribers))
		die(FAILED, "%s", strerror(errno));
}

/* Keep the numbers of closed standard streams from going to sockets. */
static void reserve_standard_streams(void)
{
	int fd;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null",
			     fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static void remove_socket(const char *addr)
{
	if (unix_path(addr))
		unlink(unix_path(addr));
}

/* The exit status: whether every buffer came home. */
static int settle(void)
{
	bufpool_stats_t stats;

	report();
	bufpool_stats(pool, &stats);
	bufpool_destroy(pool);
	if (!stats.checked_out)
		return 0;
	complain("%" PRIu64 " buffers are missing", stats.checked_out);
	return FAILED;
}

int main(int argc, char **argv)
{
	static char name[] = "fanout";
	unsigned i;

	reserve_standard_streams();
	if (argc > 0)
		argv[0] = name; /* getopt_long() begins messages with it */
	parse_options(argc, argv);
	inbox_size = opt.queue - opt.queue / 2;

	publishers = listen_on("publish", opt.publish);
	subscribers = listen_on("subscribe", opt.subscribe);
	set_up_hub();
	pool = make_pool();
	workers = calloc(opt.threads, sizeof(*workers));
	if (!pool || !workers)
		die(FAILED, "cannot create the pool: %s", strerror(errno));
	for (i = 0; i < opt.threads; i++)
		start_worker(&workers[i]);
	if (fflush(stdout))
		die(FAILED, "write error: %s", strerror(errno));

	run_hub();
	for (i = 0; i < opt.threads; i++)
		stop_worker(&workers[i]);
	free(workers);
	remove_socket(opt.publish);
	remove_socket(opt.subscribe);
	return settle();
}
