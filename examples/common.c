/* SPDX-License-Identifier: MIT */
/* common.c - see common.h */
#include "common.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---------------------------------------------------------------- programs */

/*
 * A stream that was closed is opened the wrong way round: to use it fails with
 * EBADF, as before.  And stderr is written line by line, not word by word.
 */
void init_program(int argc, char **argv)
{
	int fd;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null",
			     fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
	setvbuf(stderr, NULL, _IOLBF, 0);
	if (argc > 0)
		argv[0] = program_invocation_short_name;
}

static void print_message(const char *format, va_list args)
{
	flockfile(stderr);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, format, args);
	putc('\n', stderr);
	funlockfile(stderr);
}

void complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(format, args);
	va_end(args);
}

void die(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(format, args);
	va_end(args);
	remove_sockets();
	_exit(status);
}

void flush_output(void)
{
	if (fflush(stdout) || ferror(stdout))
		die(FAILED, "write error: %s", strerror(errno));
}

#define MAX_PARAMS 16

/* Digits, no sign, no space, then maybe one of the suffixes; at most max. */
static bool read_number(const char *s, const char *suffixes,
                        unsigned long long max, unsigned long long *n)
{
	const char *suffix;
	unsigned shift = 0;
	char *end;

	if (!isdigit((unsigned char) *s))
		return false;
	errno = 0;
	*n = strtoull(s, &end, 10);
	suffix = *end ? strchr(suffixes, *end) : NULL;
	if (suffix) {
		shift = 10 * (unsigned) (suffix - suffixes + 1);
		end++;
	}
	if (errno || *end || *n > max >> shift)
		return false;
	*n <<= shift;
	return true;
}

static void set_param(const struct param *p, const char *arg)
{
	unsigned long long n = 0;

	if (p->on)
		*p->on = true;
	if (p->off)
		*p->off = false;
	if (p->text)
		*p->text = arg;
	if (!p->number && !p->size)
		return;
	if (!read_number(arg, p->size ? "KMG" : "", p->max, &n) || n < 1)
		die(USAGE, "--%s: '%s' is not a %s from 1 to %zu", p->name, arg,
		    p->size ? "size" : "number", p->max);
	if (p->number)
		*p->number = (unsigned) n;
	else
		*p->size = (size_t) n;
}

void parse_options(int argc, char **argv, const struct param *params,
                   const char *help)
{
	struct option options[MAX_PARAMS + 3] = { { "help", 0, NULL, 'h' },
		                                  { "version", 0, NULL, 'v' } };
	const struct param *p;
	int option, i = 2;

	for (p = params; p->name && i < MAX_PARAMS + 2; p++, i++) {
		options[i].name = p->name;
		options[i].has_arg = !p->on && !p->off;
	}
	while ((option = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (option == '?')
			exit(USAGE); /* getopt_long() has said why */
		if (option == 0) {
			set_param(&params[i - 2], optarg);
			continue;
		}
		if (option == 'h')
			puts(help);
		else
			printf("%s (libbufpool) %s\n",
			       program_invocation_short_name,
			       bufpool_version());
		flush_output();
		exit(0);
	}
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* ----------------------------------------------------------------- sockets */

#define MAX_UNIX 8 /* that are removed at the end; nobody has as many */

static const char *unix_sockets[MAX_UNIX]; /* made by listen_on() */
static size_t unix_socket_count;
static int spare = -1; /* to give up when no other descriptor is left */

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

static int listen_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd;

	if (!*path || strlen(path) >= sizeof(sa.sun_path))
		die(USAGE, "'%s' is no path for a socket", path);
	strcpy(sa.sun_path, path);
	fd = open_listener(&sa, sizeof(sa));
	if (fd >= 0 && unix_socket_count < MAX_UNIX)
		unix_sockets[unix_socket_count++] = path;
	return fd;
}

/* On the first address of the host that can be had. */
static int listen_inet(const char *address)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		                  .ai_flags = AI_PASSIVE };
	const char *colon = strrchr(address, ':');
	int len = colon ? (int) (colon - address) : 0;
	bool v6 = len > 2 && *address == '[' && colon[-1] == ']';
	struct addrinfo *list, *ai;
	unsigned long long port;
	char host[NI_MAXHOST];
	int error, fd = -1;

	len = snprintf(host, sizeof(host), "%.*s", v6 ? len - 2 : len,
	               address + v6);
	if (!colon || !read_number(colon + 1, "", 65535, &port) ||
	    strpbrk(host, v6 ? "[]" : ":[]") || len >= NI_MAXHOST)
		die(USAGE,
		    "'%s' is not HOST:PORT, [IPV6]:PORT, :PORT or "
		    "unix:PATH",
		    address);
	if (v6)
		hints.ai_family = AF_INET6;
	error = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list);
	if (error)
		die(FAILED, "%s: %s", address, gai_strerror(error));
	for (ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = open_listener(ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(list);
	return fd;
}

static void name_address(char name[ADDRESS_LEN],
                         const struct sockaddr_storage *sa)
{
	bool v6 = sa->ss_family == AF_INET6;
	char host[ADDRESS_LEN - 16], port[8];

	if (sa->ss_family == AF_UNIX ||
	    getnameinfo((const struct sockaddr *) sa, sizeof(*sa), host,
	                sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV))
		strcpy(name, "unix");
	else
		snprintf(name, ADDRESS_LEN, v6 ? "[%s]:%s" : "%s:%s", host,
		         port);
}

int listen_on(const char *what, const char *address)
{
	const char *path = strncmp(address, "unix:", 5) ? NULL : address + 5;
	int fd = path ? listen_unix(path) : listen_inet(address);
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	char name[ADDRESS_LEN];

	if (spare < 0)
		spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || spare < 0)
		die(FAILED, "%s: %s", address, strerror(errno));
	if (!path && getsockname(fd, (struct sockaddr *) &sa, &len) == 0) {
		name_address(name, &sa);
		address = name;
	}
	printf("%s %s\n", what, address);
	return fd;
}

/*
 * With the spare descriptor.  Maybe there is no connection: accept4() looks for
 * a descriptor first.
 */
static void refuse_next(int listener)
{
	int fd;

	close(spare);
	fd = accept(listener, NULL, NULL);
	if (fd >= 0) {
		close(fd);
		complain("too many connections, one is refused");
	}
	spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int accept_next(int listener, char name[ADDRESS_LEN])
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int fd = accept4(listener, (struct sockaddr *) &sa, &len,
	                 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0)
		name_address(name, &sa);
	else if (errno == EMFILE || errno == ENFILE)
		refuse_next(listener);
	return fd;
}

void remove_sockets(void)
{
	while (unix_socket_count)
		unlink(unix_sockets[--unix_socket_count]);
}

/* ----------------------------------------------------------------- buffers */

/* A program that knows its sizes writes BUFPOOL_CLASS_64K.  Ours come from the
   command line, and the library can be built with other classes, so we ask. */
void set_count(bufpool_config_t *config, size_t size, size_t count)
{
	int class = bufpool_class_for(size);

	memset(config->count, 0, sizeof(config->count));
	if (class >= 0)
		config->count[class] = count;
}

ssize_t fill(bufpool_buf_t *buf, int fd)
{
	size_t want = buf->len;
	ssize_t n = 1;

	for (buf->len = 0; buf->len < want && n > 0;) {
		n = read(fd, (char *) buf->data + buf->len, want - buf->len);
		if (n > 0)
			buf->len += (size_t) n;
	}
	return n;
}
