/* SPDX-License-Identifier: MIT */
/*
 * common.h - what the examples share, so that they can be read for the pool
 *
 * Messages, the command line, listening sockets, time; and what it takes to
 * have buffers of a size that is known only when the program runs.  To be
 * included first.
 */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#define _GNU_SOURCE 1 /* also when an example is compiled by hand */

#include <bufpool.h>

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { FAILED = 1, USAGE = 2 }; /* exit statuses */

/* ---------------------------------------------------------------- programs */

/*
 * To be called first.  Messages, getopt_long()'s too, begin with the program's
 * name.  No file gets the number of a closed standard stream.
 */
void init_program(int argc, char **argv);

/* One line on stderr, in one piece, from any thread. */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);

/*
 * The same, and the end.  By _exit(): other threads may still be at work on
 * what exit() takes apart.  Removes what listen_on() has made.
 */
__attribute__((format(printf, 2, 3), noreturn)) void
die(int status, const char *format, ...);

/* What was printed has been written, or die. */
void flush_output(void);

/*
 * An option, --name, and where its value goes.  Exactly one of the pointers is
 * set.  A table ends with one that has no name.
 */
struct param {
	const char *name;
	bool *on, *off;    /* no argument */
	const char **text; /* any argument */
	unsigned *number;  /* 1 to max */
	size_t *size;      /* the same; K, M and G are 2^10, 2^20 and 2^30 */
	size_t max;
};

/*
 * The options, with --help and --version.  Whatever is wrong is the end.  As
 * with getopt_long(), the other arguments are then argv[optind] and following.
 */
void parse_options(int argc, char **argv, const struct param *params,
                   const char *help);

/* Seconds since some fixed time. */
double now(void);

/* ----------------------------------------------------------------- sockets */

#define ADDRESS_LEN 128 /* of its name */

/*
 * A non-blocking socket that listens at HOST:PORT, [IPV6]:PORT, :PORT or
 * unix:PATH; die if there can be none.  Prints "WHAT ADDRESS", where port 0 is
 * the one that the system has chosen.
 */
int listen_on(const char *what, const char *address);

/*
 * The next connection, or -1.  One that there is no descriptor for is refused,
 * else it would be reported for ever.  name says from where.
 */
int accept_next(int listener, char name[ADDRESS_LEN]);

/* Remove the paths of the Unix sockets that listen_on() has made. */
void remove_sockets(void);

/* ----------------------------------------------------------------- buffers */

/*
 * Have the pool hold count buffers of the class that serves size, and no others.
 * Above the largest class it holds none: these buffers come from the heap, all
 * the same through the pool.
 */
void set_count(bufpool_config_t *config, size_t size, size_t count);

/*
 * Fill buf up to its len from a file, or with as much as there is; len is then
 * what it holds.  What the last read() returned: 0 at the end, -1 with errno.
 */
ssize_t fill(bufpool_buf_t *buf, int fd);

#endif /* EXAMPLES_COMMON_H */
