/* SPDX-License-Identifier: MIT */
/*
 * bufpool-bench.c - how libbufpool compares on this machine
 *
 * Each row of the matrix is a case: who takes part (b libbufpool; i the same
 * inlined; l the same with NUMA_LOCAL; h hardened; v its other variants; m glibc's malloc,
 * jemalloc, mimalloc and tcmalloc; r rte_mempool; a apr_allocator; c ck_ring; f
 * the least that a pool like ours can do; 0 no pool at all; w the same, which
 * wipes in other ways), with which buffers, and what varies.
 *
 *     case            peers      buffers  varies
 *     pair            bilmracf0  all                  take one, give it back
 *     pair-wiped      bilmrac0w  all                  the same, erased
 *     used            bv         64k      1 KiB used  WIPE_USED, WIPE_ALL
 *     set             bimrac     4k, 64k  8, 64       hold a set of them
 *     bulk            bilmrcf    4k       8, 32       a set in one call
 *     handover        bimrac0    all                  another gives it back
 *     handover-wiped  bmrac0     all                  the same, erased
 *     tight           bmrc0      4k, 64k  1, 2        give back; 8 in all
 *     tight-wiped     bmrc0      4k, 64k  1, 2        the same, erased
 *     exchange        bmrac      4k, 64k              two threads, all ways
 *     share           bm         4k, 64k  1 to 16     readers of one buffer
 *     depot           vc         4k       1, 32       no caches: one thread,
 *     depot-two       vc         4k       1, 32       two on two CPUs,
 *     depot-shared    vc         4k       1, 32       two on one CPU
 *     threads         bmra       4k       2 to 64     threads on all CPUs
 *     crowd           br         4k       2, 32       threads on two CPUs
 *     latency         bimr0      4k       8, 32       bursts; 32 threads
 *     hardened        bhc        all      8, usual    first in, first out,
 *     hardened-shared hc         4k       1, 32       verified; two on one CPU
 *     count           bv         4k       1 to 10^6   buffers in the pool
 *     sparse          v          4k       64, 10^6    of which 64 are in
 *     pools           b          4k       1 to 1,000  pools, one is used
 *     pools-cycle     b          4k       1 to 1,000  pools, each in turn
 *     create          b0         4k, 1m               against mmap
 *     memory          bmra       4k                   beside the payload
 *     poolsum         bm         64k                  a whole program
 *     fanout          bm         64k                  a whole program
 *
 * Fairness.  Everybody is in one run, in turns: each round does a job of each
 * peer, one after the other, and ratios are medians of the rounds' ratios.  A
 * peer is a process of its own, started anew for each case.  No loop looks into
 * a buffer; peers that do not erase do so with memset where the case wants it.
 * All memory has been used before the clock starts.  A ck_ring is not among many
 * threads on few CPUs: who is preempted within it stops the others, and what
 * came out would be the scheduler's time slice.
 */
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"

/* --------------------------------------------------------------- the matrix */

#define MALLOCS (P(GLIBC) | P(JEMALLOC) | P(MIMALLOC) | P(TCMALLOC))
#define POOLS (P(BUFPOOL) | P(RTE_MEMPOOL) | P(RING))
#define ALL (POOLS | MALLOCS | P(APR))
#define RIVALS (MALLOCS | P(RTE_MEMPOOL))
#define WIPES (P(BARE) | P(STORES_32) | P(STORES_64) | P(STOSB))
#define UNCACHED (P(BUFPOOL_NOCACHE) | P(RING))

/* clang-format off */
const struct size sizes[SIZES] = {
	{"4k", SIZE_4K}, {"64k", SIZE_64K}, {"256k", SIZE_256K}, {"1m", SIZE_1M},
};
/* clang-format on */

#define VARIES(member) offsetof(struct job, member)
#define MILLION 1000000

/* clang-format off */
static const struct kase matrix[] = {
	{"pair", "take one and give it back, one thread", "ns",
	 ALL | P(BUFPOOL_INLINED) | P(BUFPOOL_LOCAL) | P(FLOOR) | P(BARE),
	 ANY_SIZE, VARIES(set), {1},
	 {.shape = PAIRS, .seconds = .012}},
	{"pair-wiped", "the same, the whole buffer is erased", "ns",
	 ALL | P(BUFPOOL_INLINED) | P(BUFPOOL_LOCAL) | WIPES,
	 ANY_SIZE, VARIES(set), {1},
	 {.shape = PAIRS, .wipe = true, .seconds = .012}},
	{"used", "the same, n bytes were used", "ns",
	 P(BUFPOOL) | P(BUFPOOL_USED), S64K, VARIES(used), {1024},
	 {.shape = PAIRS, .wipe = true, .seconds = .012}},
	{"set", "take n, give them back", "ns",
	 ALL | P(BUFPOOL_INLINED), S4K | S64K, VARIES(set), {8, 64},
	 {.shape = PAIRS, .seconds = .012}},
	{"bulk", "take n at once, give them back at once", "ns",
	 POOLS | MALLOCS | P(BUFPOOL_INLINED) | P(BUFPOOL_LOCAL) | P(FLOOR),
	 S4K, VARIES(set), {8, 32},
	 {.shape = PAIRS, .bulk = true, .seconds = .012}},
	{"handover", "take one, another thread gives it back", "ns",
	 ALL | P(BUFPOOL_INLINED) | P(BARE), ANY_SIZE, VARIES(set), {1},
	 {.shape = HANDOVER, .place = OWN_CPU, .seconds = .03}},
	{"handover-wiped", "the same, the whole buffer is erased", "ns",
	 ALL | P(BARE), ANY_SIZE, VARIES(set), {1},
	 {.shape = HANDOVER, .place = OWN_CPU, .wipe = true, .seconds = .03}},
	{"tight", "the same with 8 buffers; n threads give back in turn", "ns",
	 POOLS | MALLOCS | P(BARE), S4K | S64K, VARIES(returners), {1, 2},
	 {.shape = HANDOVER, .place = OWN_CPU, .count = 8, .seconds = .06}},
	{"tight-wiped", "the same, the whole buffer is erased", "ns",
	 POOLS | MALLOCS | P(BARE), S4K | S64K, VARIES(returners), {1, 2},
	 {.shape = HANDOVER, .place = OWN_CPU, .wipe = true, .count = 8,
	  .seconds = .06}},
	{"exchange", "two threads, every other buffer goes to the other", "ns",
	 ALL, S4K | S64K, VARIES(set), {1},
	 {.shape = EXCHANGE, .place = OWN_CPU, .seconds = .03}},
	{"share", "freeze; n readers' threads let go (malloc: n copies)", "ns",
	 P(BUFPOOL) | MALLOCS, S4K | S64K, VARIES(readers), {1, 4, 16},
	 {.shape = HANDOVER, .seconds = .04}},
	{"depot", "no thread caches: n at once, one thread", "ns",
	 UNCACHED, S4K, VARIES(set), {1, 32},
	 {.shape = PAIRS, .bulk = true, .seconds = .02}},
	{"depot-two", "no thread caches: two threads on two CPUs", "ns",
	 UNCACHED, S4K, VARIES(set), {1, 32},
	 {.shape = PAIRS, .place = OWN_CPU, .bulk = true, .threads = 2,
	  .seconds = .06}},
	{"depot-shared", "no thread caches: two threads on one CPU", "ns",
	 UNCACHED, S4K, VARIES(set), {1, 32},
	 {.shape = PAIRS, .place = ONE_CPU, .bulk = true, .threads = 2,
	  .seconds = .1}},
	{"threads", "pairs of n threads on all CPUs: time over pairs", "ns",
	 ALL & ~P(RING), S4K, VARIES(threads), {2, 4, 8, 16, 32, 64},
	 {.shape = PAIRS, .count = 8192, .seconds = .1}},
	{"crowd", "the same on two CPUs", "ns",
	 P(BUFPOOL) | P(RTE_MEMPOOL), S4K, VARIES(threads), {2, 32},
	 {.shape = PAIRS, .place = TWO_CPUS, .count = 8192, .seconds = .2}},
	{"latency", "of one take; 32 threads on two CPUs, bursts of n", "ns",
	 P(BUFPOOL) | P(BUFPOOL_INLINED) | RIVALS | P(BARE), S4K,
	 VARIES(set), {8, 32},
	 {.shape = LATENCY, .place = TWO_CPUS, .threads = 32, .count = 8192,
	  .seconds = .3}},
	{"hardened", "an erased pair in a pool of n buffers", "ns",
	 P(BUFPOOL) | P(BUFPOOL_SAFE) | P(RING), ANY_SIZE, VARIES(count),
	 {8, 128}, {.shape = PAIRS, .wipe = true, .seconds = .02}},
	{"hardened-shared", "n at once, erased; two threads on one CPU", "ns",
	 P(BUFPOOL_SAFE) | P(RING), S4K, VARIES(set), {1, 32},
	 {.shape = PAIRS, .place = ONE_CPU, .bulk = true, .wipe = true,
	  .threads = 2, .seconds = .1}},
	{"count", "a pair in a pool of n buffers", "ns",
	 P(BUFPOOL) | P(BUFPOOL_NOCACHE), S4K, VARIES(count),
	 {1, 64, 1000, 10000, 100000, MILLION},
	 {.shape = PAIRS, .seconds = .012}},
	{"sparse", "no thread caches: 64 buffers, all that n have in", "ns",
	 P(BUFPOOL_NOCACHE), S4K, VARIES(count), {64, MILLION},
	 {.shape = PAIRS, .set = 64, .idle = 64, .seconds = .02}},
	{"pools", "a pair in one of n pools", "ns",
	 P(BUFPOOL), S4K, VARIES(pools), {1, 10, 100, 1000},
	 {.shape = PAIRS, .count = 16, .seconds = .012}},
	{"pools-cycle", "a pair in each of n pools in turn", "ns",
	 P(BUFPOOL), S4K, VARIES(pools), {1, 10, 100, 1000},
	 {.shape = CYCLE, .count = 16, .seconds = .012}},
	{"create", "a pool, and its end (bare: mmap, populate, munmap)", "ns",
	 P(BUFPOOL) | P(BARE), S4K | S1M, VARIES(pools), {1},
	 {.shape = CREATE, .seconds = .1}},
	{"memory", "beside the payload, per buffer of 16,384", "bytes",
	 P(BUFPOOL) | MALLOCS | P(RTE_MEMPOOL) | P(APR), S4K, VARIES(pools),
	 {1}, {.shape = MEMORY, .count = 16384}},
	{"poolsum", "examples/demo.sh: checksums (glibc: --malloc)", "s",
	 P(BUFPOOL) | P(GLIBC), S64K, VARIES(set), {1}, {.shape = DEMO}},
	{"fanout", "examples/fanout-demo.sh: broadcast (glibc: --copy)", "s",
	 P(BUFPOOL) | P(GLIBC), S64K, VARIES(set), {1}, {.shape = DEMO}},
};
/* clang-format on */

/* -------------------------------------------------------------- the targets */

/* See value_name(). */
enum { TIME = 0, CPU_TIME = 1, CREATE_TIME = 0, P99_9 = 3 };

#define S64K_UP (S64K | S256K | S1M)

/* clang-format off */
static const struct target targets[] = {
	{"poolsum's time, on malloc", 1.1,
	 "poolsum", S64K, 1, BUFPOOL, TIME, P(GLIBC), 0},
	{"poolsum's CPU time, on malloc", 1.03,
	 "poolsum", S64K, 1, BUFPOOL, CPU_TIME, P(GLIBC), 0},
	{"pair, fastest malloc", 1.15,
	 "pair", S4K | S64K | S256K, 1, BUFPOOL, TIME, MALLOCS, 0},
	{"pair, fastest malloc", 0.5,
	 "pair", S1M, 1, BUFPOOL, TIME, MALLOCS, 0},
	{"pair, rte_mempool's cache", 0.95,
	 "pair", ANY_SIZE, 1, BUFPOOL, TIME, P(RTE_MEMPOOL), 0},
	{"inlined pair, fastest of all", 0.9,
	 "pair", ANY_SIZE, 1, BUFPOOL_INLINED, TIME, RIVALS, 0},
	{"erased pair, fastest malloc; memset; free", 0.9,
	 "pair-wiped", S4K, 1, BUFPOOL, TIME, MALLOCS, 0},
	{"erased pair, rte_mempool and memset", 1.0,
	 "pair-wiped", S4K, 1, BUFPOOL, TIME, P(RTE_MEMPOOL), 0},
	{"erased pair, the best bare wipe", 1.15,
	 "pair-wiped", S4K, 1, BUFPOOL, TIME, WIPES, 0},
	{"erased pair, inlined, fastest of all", 0.9,
	 "pair-wiped", S4K, 1, BUFPOOL_INLINED, TIME, RIVALS, 0},
	{"erased pair, fastest of all", 1.0,
	 "pair-wiped", S64K_UP, 1, BUFPOOL, TIME, RIVALS, 0},
	{"erased pair, the best bare wipe", 1.03,
	 "pair-wiped", S64K_UP, 1, BUFPOOL, TIME, WIPES, 0},
	{"1 KiB used of 64 KiB: WIPE_USED, WIPE_ALL", 0.04,
	 "used", S64K, 1024, BUFPOOL_USED, TIME, P(BUFPOOL), 0},
	{"hand-over, fastest malloc", 0.4,
	 "handover", ANY_SIZE, 1, BUFPOOL, TIME, MALLOCS, 0},
	{"hand-over, rte_mempool", 2.3,
	 "handover", S4K, 1, BUFPOOL, TIME, P(RTE_MEMPOOL), 0},
	{"bulk of 8, rte_mempool's bulk", 2.0,
	 "bulk", S4K, 8, BUFPOOL, TIME, P(RTE_MEMPOOL), 0},
	{"bulk of 32, rte_mempool's bulk", 2.0,
	 "bulk", S4K, 32, BUFPOOL, TIME, P(RTE_MEMPOOL), 0},
	{"no caches, one thread, ck_ring", 1.1,
	 "depot", S4K, 1, BUFPOOL_NOCACHE, TIME, P(RING), 0},
	{"no caches, two threads on two CPUs, ck_ring", 0.6,
	 "depot-two", S4K, 1, BUFPOOL_NOCACHE, TIME, P(RING), 0},
	{"no caches, two threads on one CPU, ck_ring", 0.05,
	 "depot-shared", S4K, 1, BUFPOOL_NOCACHE, TIME, P(RING), 0},
	{"hardened pair, an ordinary erased one", 3.5,
	 "hardened", S4K, 8, BUFPOOL_SAFE, TIME, P(BUFPOOL), 0},
	{"hardened pair, an ordinary erased one", 2.0,
	 "hardened", S64K_UP, 8, BUFPOOL_SAFE, TIME, P(BUFPOOL), 0},
	{"hardened, 32 at once, two threads on one CPU, ck_ring", 0.1,
	 "hardened-shared", S4K, 32, BUFPOOL_SAFE, TIME, P(RING), 0},
	{"pair, 32 threads on two CPUs, against 2", 1.1,
	 "crowd", S4K, 32, BUFPOOL, TIME, P(BUFPOOL), 2},
	{"p99.9 of a checkout, 32 threads, bursts of 8, rte_mempool", 1.5,
	 "latency", S4K, 8, BUFPOOL, P99_9, P(RTE_MEMPOOL), 0},
	{"p99.9 of a checkout, 32 threads, bursts of 32, rte_mempool", 1.5,
	 "latency", S4K, 32, BUFPOOL, P99_9, P(RTE_MEMPOOL), 0},
	{"metadata per buffer, bytes", 96,
	 "memory", S4K, 1, BUFPOOL, 0, 0, 0},
	{"create, mmap and MADV_POPULATE_WRITE", 1.1,
	 "create", S4K | S1M, 1, BUFPOOL, CREATE_TIME, P(BARE), 0},
	{"pair in a pool of 1,000,000, against 64", 1.2,
	 "count", S4K, MILLION, BUFPOOL, TIME, P(BUFPOOL), 64},
	{"pair in one of 1,000 pools, against the only one", 1.2,
	 "pools", S4K, 1000, BUFPOOL, TIME, P(BUFPOOL), 1},
};
/* clang-format on */

/* ------------------------------------------------------------- the arguments */

#define MAX_PATTERNS 32

struct patterns {
	const char *pattern[MAX_PATTERNS];
	unsigned n;
};

static struct {
	struct patterns cases, peers;
	const char *output, *demos;
	unsigned rounds;
	bool quick, list;
} opt;

static void add(struct patterns *patterns, const char *pattern)
{
	if (patterns->n == MAX_PATTERNS)
		die("more than %d patterns", MAX_PATTERNS);
	patterns->pattern[patterns->n++] = pattern;
}

/* Without patterns, everything matches. */
static bool matches(const struct patterns *patterns, const char *name)
{
	for (unsigned i = 0; i < patterns->n; i++)
		if (fnmatch(patterns->pattern[i], name, 0) == 0)
			return true;
	return patterns->n == 0;
}

static _Noreturn void usage(FILE *to)
{
	fprintf(to,
	        "usage: bufpool-bench [OPTION]...\n"
	        "Compares libbufpool with other pools and allocators.\n\n"
	        "  --quick         what the targets need; about two minutes\n"
	        "  --rounds N      rounds to take the median of [9]\n"
	        "  --case PATTERN  these cases only; may be repeated\n"
	        "  --peer PATTERN  these peers only; may be repeated\n"
	        "  --list          list cases and peers\n"
	        "  --output FILE   write a table of all figures there\n"
	        "  --demos DIR     where demo.sh and fanout-demo.sh are\n");
	exit(to == stdout ? 0 : 2);
}

static void parse(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "case", required_argument, NULL, 'c' },
		{ "peer", required_argument, NULL, 'p' },
		{ "list", no_argument, NULL, 'l' },
		{ "output", required_argument, NULL, 'o' },
		{ "demos", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'q':
			opt.quick = true;
			break;
		case 'r':
			opt.rounds = (unsigned) strtoul(optarg, NULL, 10);
			if (opt.rounds < 1 || opt.rounds > MAX_ROUNDS)
				die("--rounds: 1 to %d", MAX_ROUNDS);
			break;
		case 'c':
			add(&opt.cases, optarg);
			break;
		case 'p':
			add(&opt.peers, optarg);
			break;
		case 'l':
			opt.list = true;
			break;
		case 'o':
			opt.output = optarg;
			break;
		case 'd':
			opt.demos = optarg;
			break;
		case 'h':
			usage(stdout);
		default:
			usage(stderr);
		}
	}
	if (optind < argc)
		usage(stderr);
	if (opt.rounds == 0)
		opt.rounds = 9;
}

static void list(void)
{
	printf("cases\n");
	for (size_t i = 0; i < ARRAY_SIZE(matrix); i++)
		printf("  %-16s %s\n", matrix[i].name, matrix[i].what);
	printf("peers\n");
	for (unsigned i = 0; i < PEERS; i++)
		printf("  %-16s %s\n", peers[i]->name, peers[i]->what);
}

/* ------------------------------------------------------------------ workers */

/* A process with a peer in it. */
struct process {
	pid_t pid; /* 0: none */
	int fd;
	struct hello hello;
};

/* In the child.  The loader's complaints are not for the user: see worker(). */
static _Noreturn void become_worker(const struct peer *peer, int fd)
{
	int null = open("/dev/null", O_WRONLY);
	int err = dup(STDERR_FILENO);

	unsetenv("LD_PRELOAD");
	if (peer->preload != NULL)
		setenv("LD_PRELOAD", peer->preload, 1);
	dup2(null, STDERR_FILENO);
	/* Out of the way of the numbers that they are to have. */
	fd = fcntl(fd, F_DUPFD, 10);
	err = fcntl(err, F_DUPFD, 10);
	dup2(fd, WORKER_FD);
	dup2(err, WORKER_STDERR);
	close(fd);
	close(err);
	execl("/proc/self/exe", "bufpool-bench", "--worker", peer->name,
	      (char *) NULL);
	_exit(127);
}

static void stop_process(struct process *p)
{
	if (p->pid == 0)
		return;
	close(p->fd);
	waitpid(p->pid, NULL, 0);
	p->pid = 0;
}

/* False, and the reason in its hello, if there is no such peer here. */
static bool start_process(struct process *p, const struct peer *peer)
{
	int fd[2];

	memset(p, 0, sizeof(*p));
	if (peer->start == NULL) {
		snprintf(p->hello.text, TEXT_SIZE, "not built in");
		return false;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0)
		die("socketpair: %m");
	p->pid = fork();
	if (p->pid < 0)
		die("fork: %m");
	if (p->pid == 0)
		become_worker(peer, fd[1]);
	close(fd[1]);
	p->fd = fd[0];
	if (read(p->fd, &p->hello, sizeof(p->hello)) != sizeof(p->hello)) {
		p->hello.ready = false;
		snprintf(p->hello.text, TEXT_SIZE, "it does not start");
	}
	if (!p->hello.ready)
		stop_process(p);
	return p->hello.ready;
}

/* ------------------------------------------------------------------- rounds */

static struct results all;
static struct hello versions[PEERS]; /* of those that are here */

/* Bytes that the system could give us. */
static double mem_available(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[100];
	double kib = INFINITY;

	if (file == NULL)
		return kib;
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "MemAvailable: %lf", &kib) == 1)
			break;
	fclose(file);
	return kib * 1024;
}

static struct job job_of(const struct cell *cell)
{
	struct job job = cell->kase->job;

	job.size = sizes[cell->size].bytes;
	memcpy((char *) &job + cell->kase->varies, &cell->n, sizeof(cell->n));
	return job;
}

static void fail(struct cell *cell, const char *why)
{
	snprintf(cell->why, sizeof(cell->why), "%s", why);
	cell->rounds = 0;
}

/* What a grep for "skipped" finds should have been here. */
static void skip(struct cell *cell, const char *why)
{
	char text[TEXT_SIZE];

	snprintf(text, sizeof(text), "skipped: %.80s", why);
	fail(cell, text);
}

/* False if the worker fails, or hangs; it is gone then. */
static bool ask(struct process *p, const struct job *job, struct result *result)
{
	struct pollfd answer = { .fd = p->fd, .events = POLLIN };

	if (write(p->fd, job, sizeof(*job)) == sizeof(*job) &&
	    poll(&answer, 1, 60000) == 1 &&
	    read(p->fd, result, sizeof(*result)) == sizeof(*result))
		return true;
	kill(p->pid, SIGKILL);
	stop_process(p);
	return false;
}

/* Do a cell's job once. */
static void measure(struct cell *cell, size_t number, struct process *p)
{
	struct job job = job_of(cell);
	struct result result;

	job.cell = number;
	if (p->pid == 0) {
		skip(cell, p->hello.text);
		return;
	}
	if (cell->rounds == 0 &&
	    (double) job.count * (double) job.size * 1.1 + 1e9 >
	            mem_available()) {
		fail(cell, "too little memory is available");
		return;
	}
	if (!ask(p, &job, &result)) {
		snprintf(p->hello.text, TEXT_SIZE, "its process failed");
		skip(cell, p->hello.text);
		return;
	}
	for (unsigned v = 0; v < MAX_VALUES; v++)
		cell->value[v][cell->rounds] = result.value[v];
	cell->rounds++;
}

/* A script's figures of both ways, in the order of value_name(). */
static bool read_figures(const char *line, unsigned *value, double figure[2])
{
	static const char *const name[] = { " time (s) ", " CPU time (s) " };

	for (*value = ARRAY_SIZE(name); (*value)-- > 0;) {
		const char *at = strstr(line, name[*value]);

		if (at != NULL && sscanf(at + strlen(name[*value]), "%lf %lf",
		                         &figure[0], &figure[1]) == 2)
			return true;
	}
	return false;
}

static void read_demo(FILE *script, struct cell *cells, size_t n)
{
	unsigned seen[MAX_VALUES] = { 0 }, value;
	char line[200];
	double figure[2];

	while (fgets(line, sizeof(line), script) != NULL) {
		if (!read_figures(line, &value, figure) ||
		    seen[value] == MAX_ROUNDS)
			continue;
		for (size_t i = 0; i < n; i++)
			cells[i].value[value][seen[value]] =
				figure[cells[i].peer != BUFPOOL];
		seen[value]++;
	}
	for (size_t i = 0; i < n && seen[TIME] == seen[CPU_TIME]; i++)
		cells[i].rounds = seen[TIME];
}

/* The script does its own rounds, and prints the figures of each. */
static void run_demo(struct cell *cells, size_t n)
{
	bool fanout = strcmp(cells[0].kase->name, "fanout") == 0;
	FILE *script = NULL;
	char command[4096];

	snprintf(command, sizeof(command),
	         "DEMO_RUNS=%u DEMO_EACH=yes '%s/%s' 2>/dev/null", opt.rounds,
	         opt.demos != NULL ? opt.demos : "",
	         fanout ? "fanout-demo.sh" : "demo.sh");
	if (opt.demos != NULL)
		script = popen(command, "r");
	if (script != NULL) {
		read_demo(script, cells, n);
		pclose(script);
	}
	for (size_t i = 0; i < n; i++)
		if (cells[i].rounds == 0)
			skip(&cells[i], opt.demos != NULL
			                        ? "the script gives no times"
			                        : "no --demos");
}

static void progress(const char *kase, unsigned round, unsigned rounds)
{
	static uint64_t begin;
	uint64_t seconds;
	bool tty = isatty(STDERR_FILENO);

	if (begin == 0)
		begin = now_ns();
	seconds = (now_ns() - begin) / 1000000000;
	if (tty || round == 1)
		fprintf(stderr, "%s[%2d:%02d] %s, round %u of %u%s",
		        tty ? "\r\033[K" : "", (int) seconds / 60,
		        (int) seconds % 60, kase, round, rounds,
		        tty ? "" : "\n");
}

static void end_progress(void)
{
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
}

/* All rounds of one case, whose cells lie together. */
static void run_case(struct cell *cells, size_t n)
{
	const struct kase *kase = cells[0].kase;
	/* Memory has to be asked of a process that has done nothing before,
	   and is the same each time. */
	unsigned rounds = kase->job.shape == MEMORY ? 1 : opt.rounds;
	struct process process[PEERS] = { 0 };

	if (kase->job.shape == DEMO) {
		progress(kase->name, 1, 1);
		run_demo(cells, n);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		unsigned peer = cells[i].peer;

		if (process[peer].pid != 0 || !versions[peer].ready)
			continue;
		start_process(&process[peer], peers[peer]);
	}
	for (unsigned round = 1; round <= rounds; round++) {
		progress(kase->name, round, rounds);
		for (size_t i = 0; i < n; i++)
			if (cells[i].why[0] == '\0')
				measure(&cells[i], i, &process[cells[i].peer]);
	}
	for (unsigned peer = 0; peer < PEERS; peer++)
		stop_process(&process[peer]);
}

/* -------------------------------------------------------------------- cells */

/* --quick leaves out what no target needs. */
static bool is_chosen(const struct cell *cell)
{
	if (!matches(&opt.cases, cell->kase->name) ||
	    !matches(&opt.peers, peers[cell->peer]->name) ||
	    !versions[cell->peer].ready)
		return false;
	if (!opt.quick)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++)
		if (is_wanted(&targets[i], cell))
			return true;
	return opt.cases.n > 0;
}

static void add_cell(const struct cell *cell)
{
	if (!is_chosen(cell))
		return;
	all.cells = realloc(all.cells, (all.count + 1) * sizeof(*cell));
	if (all.cells == NULL)
		die("no memory");
	all.cells[all.count++] = *cell;
}

/* A case's cells lie together, and those of all peers beside each other. */
static void make_cells(void)
{
	struct cell cell = { 0 };

	for (size_t k = 0; k < ARRAY_SIZE(matrix); k++) {
		cell.kase = &matrix[k];
		for (cell.size = 0; cell.size < SIZES; cell.size++) {
			if ((cell.kase->sizes & 1u << cell.size) == 0)
				continue;
			for (size_t i = 0; i < ARRAY_SIZE(cell.kase->n); i++) {
				cell.n = cell.kase->n[i];
				for (cell.peer = 0;
				     cell.peer < PEERS && cell.n != 0;
				     cell.peer++)
					if (cell.kase->peers & P(cell.peer))
						add_cell(&cell);
			}
		}
	}
}

static void look_for_peers(void)
{
	for (unsigned i = 0; i < PEERS; i++) {
		struct process process;

		if (matches(&opt.peers, peers[i]->name)) {
			start_process(&process, peers[i]);
			versions[i] = process.hello;
			stop_process(&process);
		} else {
			snprintf(versions[i].text, TEXT_SIZE, "not asked for");
		}
	}
}

static void print_head(FILE *to, const char *prefix)
{
	print_machine(to, prefix);
	for (unsigned i = 0; i < PEERS; i++)
		fprintf(to, "%s%s\t%s%s\n", prefix, peers[i]->name,
		        versions[i].ready ? "" : "skipped: ", versions[i].text);
}

static void run_all(void)
{
	for (size_t from = 0, to; from < all.count; from = to) {
		const struct kase *kase = all.cells[from].kase;

		for (to = from; to < all.count && all.cells[to].kase == kase;)
			to++;
		run_case(&all.cells[from], to - from);
		end_progress();
		print_case(&all, kase);
	}
}

static void write_output(void)
{
	FILE *file = fopen(opt.output, "w");

	if (file == NULL)
		die("%s: %m", opt.output);
	print_head(file, "# ");
	write_results(file, &all);
	if (fclose(file) != 0)
		die("%s: %m", opt.output);
}

static int work(const char *name)
{
	for (unsigned i = 0; i < PEERS; i++)
		if (strcmp(peers[i]->name, name) == 0)
			return worker(peers[i]);
	die("no peer %s", name);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--worker") == 0)
		return work(argv[2]);
	parse(argc, argv);
	if (opt.list) {
		list();
		return 0;
	}
	/* A worker that died is an error of write(). */
	signal(SIGPIPE, SIG_IGN);
	look_for_peers();
	print_head(stdout, "");
	make_cells();
	run_all();
	print_targets(&all, targets, ARRAY_SIZE(targets),
	              opt.cases.n == 0 && opt.peers.n == 0);
	if (opt.output != NULL)
		write_output();
	free(all.cells);
	return 0;
}
