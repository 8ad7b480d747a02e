/* SPDX-License-Identifier: MIT */
/*
 * check_room.c - how much memory may be taken: what files in the form of the
 * kernel's say, and what becomes of pools in a cgroup of our own
 */
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "memory.h"
#include "room.h"

/* --------------------------------------------------------------- the files */

static char top[] = "/tmp/check_room.XXXXXX"; /* what is made lies here */
static char proc[sizeof(top) + 8];

static void make_files(void)
{
	must(mkdtemp(top));
	snprintf(proc, sizeof(proc), "%s/proc", top);
}

static int remove_one(const char *path, const struct stat *is, int type,
                      struct FTW *where)
{
	(void) is, (void) type, (void) where;
	return remove(path);
}

static void remove_files(void)
{
	must(nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

/* Write a file below top, with the folders on the way; "@" in it is top. */
static void file(const char *name, const char *text)
{
	char path[512];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", top, name);
	for (char *at = path + sizeof(top); (at = strchr(at, '/')); at++) {
		*at = '\0';
		must(mkdir(path, 0700) == 0 || errno == EEXIST);
		*at = '/';
	}
	out = fopen(path, "w");
	must(out);
	for (; *text; text++)
		must(*text == '@' ? fputs(top, out) >= 0
		                  : fputc(*text, out) != EOF);
	must(fclose(out) == 0);
}

#define V1 "35 31 0:32 / @/mem rw,relatime shared:7 - cgroup cgroup rw,memory\n"
#define V2 "41 31 0:38 / @/all rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
#define OTHERS                                                                 \
	"27 1 254:0 / / rw - ext4 /dev/vda rw,discard\n"                       \
	"\n"                                                                   \
	"36 31 0:33 / @/decoy rw - cgroup cgroup rw,name=memory\n"             \
	"36 31 0:33 / @/decoy rw - cgroup cgroup rw,cpu\n"                     \
	"36 31 0:33 / @/decoy rw - tmpfs memory rw,memory\n"                   \
	"37 31\n"                                                              \
	"38 31 0:34 / @/decoy rw - cgroup2\n"

/* What the process is in, and what is mounted. */
static void in(const char *cgroup, const char *mounts)
{
	file("proc/self/cgroup", cgroup);
	file("proc/self/mountinfo", mounts);
}

/* A cgroup of either version. */
static void v1(const char *name, const char *most, const char *use,
               const char *cache)
{
	char path[256], text[256];

	snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", name);
	file(path, most);
	snprintf(path, sizeof(path), "%s/memory.usage_in_bytes", name);
	file(path, use);
	snprintf(path, sizeof(path), "%s/memory.stat", name);
	snprintf(text, sizeof(text),
	         "cache 1\ninactive_file 7\nactive_file 7\n"
	         "total_inactive_file 0\ntotal_active_file %s\n",
	         cache);
	file(path, text);
}

static void v2(const char *name, const char *max, const char *high,
               const char *use)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/memory.max", name);
	file(path, max);
	snprintf(path, sizeof(path), "%s/memory.high", name);
	file(path, high);
	snprintf(path, sizeof(path), "%s/memory.current", name);
	file(path, use);
	snprintf(path, sizeof(path), "%s/memory.stat", name);
	file(path, "anon 1\ninactive_anon 5\nactive_anon 5\n"
	           "inactive_file 20\nactive_file 10\n");
}

#define ROOM(n) ck_assert_uint_eq(bp_room(proc), (n))

/* --------------------------------------------------------------- what they say */

START_TEST(nothing_is_known)
{
	ROOM(UINT64_MAX);
	file("proc/version", "of a /proc with nothing in it");
	ROOM(UINT64_MAX);
	in("", "");
	ROOM(UINT64_MAX);
	in("4:memory\n4\n\n::\n", OTHERS);
	ROOM(UINT64_MAX);
	in("4:memory:/gone (deleted)\n0::/gone\n", OTHERS V1 V2);
	ROOM(UINT64_MAX);
	file("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    3 kB\n");
	ROOM(3 * 1024);
}
END_TEST

START_TEST(version_one)
{
	in("5:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b\n0::/\n", OTHERS V1);
	v1("decoy/a/b", "1", "1", "0");
	v1("mem", "9223372036854771712", "100", "0");
	ROOM(UINT64_MAX);
	v1("mem/a/b", "1000\n", "700", "100");
	ROOM(400);
	/* Whatever is above it; not what is beside. */
	v1("mem/a", "2000", "1900", "200");
	ROOM(300);
	v1("mem", "100000", "99800", "1");
	ROOM(201);
	v1("mem/x", "1", "1", "0");
	ROOM(201);
	/* With what is swapped out. */
	file("mem/a/memory.memsw.limit_in_bytes", "2000");
	file("mem/a/memory.memsw.usage_in_bytes", "2050");
	ROOM(150);
	v1("mem/a/b", "1000", "1100", "0");
	ROOM(0);
	v1("mem/a/b", "10", "900", "1000");
	ROOM(10);
	file("proc/meminfo", "MemAvailable: 0 kB\n");
	ROOM(0);
}
END_TEST

START_TEST(version_two)
{
	in("0::/a/b\n", OTHERS V2);
	v2("all/a/b", "max", "max", "700");
	ROOM(UINT64_MAX);
	v2("all/a/b", "1000", "max", "700");
	ROOM(330);
	v2("all/a/b", "1000", "900", "700");
	ROOM(230);
	v2("all/a", "5000", "max", "4900");
	ROOM(130);
	/* Both at once: the memory controller is in one of the trees. */
	in("0::/a/b\n4:memory:/\n", V2 V1);
	v1("mem", "500", "450", "0");
	ROOM(50);
	v1("mem", "500", "100", "0");
	ROOM(130);
}
END_TEST

/* What a container shows of the tree. */
static const struct {
	const char *cgroup, *root, *point, *where;
	bool found;
} views[] = {
	{ "/", "/", "m", "m", true },
	{ "/a", "/", "m", "m/a", true },
	{ "/a", "/", "m", "m", true }, /* whose own folder is not shown */
	{ "/docker/x", "/docker/x", "m", "m", true },
	{ "/docker/x/y", "/docker/x", "m", "m/y", true },
	{ "/docker/xy", "/docker/x", "m", "m", false },
	{ "/docker", "/docker/x", "m", "m", false },
	{ "/other", "/docker/x", "m", "m", false },
	{ "/a b\\c", "/a\\040b\\134c", "m\\040n", "m n", true },
	/* Of namespaces: outside, beside, and where the tree begins above. */
	{ "/..", "/", "m", "m", false },
	{ "/../x", "/", "m", "m", false },
	{ "/..x", "/", "m", "m/..x", true },
	{ "/", "/..", "m", "m", false },
	{ "/../x", "/..", "m", "m/x", true },
};

START_TEST(views_of_the_tree)
{
	char cgroup[256], mounts[512];

	snprintf(cgroup, sizeof(cgroup), "0::%s\n", views[_i].cgroup);
	snprintf(mounts, sizeof(mounts), OTHERS "41 31 0:38 %s @/%s rw - %s",
	         views[_i].root, views[_i].point, "cgroup2 cgroup2 rw\n");
	in(cgroup, mounts);
	v2(views[_i].where, "100", "max", "40");
	ROOM(views[_i].found ? 90 : UINT64_MAX);
}
END_TEST

/* ------------------------------------------------------- a cgroup of our own */

static void skip(const char *why)
{
	printf("check_room: skipped: %s\n", why);
	fflush(stdout); /* also from a child */
}

#define LIMIT ((size_t) 96 * 1024 * 1024)

static char ours[64], inner[80]; /* the latter within, without a limit */

static bool write_in(const char *dir, const char *name, const char *text)
{
	char path[256];
	FILE *out;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	out = fopen(path, "w");
	if (!out)
		return false;
	ok = fputs(text, out) >= 0;
	return fclose(out) == 0 && ok;
}

static bool try_cgroup(const char *tree, const char *limit)
{
	char bytes[32];

	snprintf(bytes, sizeof(bytes), "%zu", LIMIT);
	snprintf(ours, sizeof(ours), "%s/check_room-%d", tree, (int) getpid());
	snprintf(inner, sizeof(inner), "%s/inner", ours);
	if (mkdir(ours, 0700) != 0)
		return false;
	if (write_in(ours, limit, bytes) && mkdir(inner, 0700) == 0)
		return true;
	rmdir(ours);
	return false;
}

static bool make_cgroup(void)
{
	if (keeps_books())
		return false; /* these would count for more than the pools */
	/* As root of version 2, which gives its children no controllers unasked. */
	write_in("/sys/fs/cgroup", "cgroup.subtree_control", "+memory");
	return try_cgroup("/sys/fs/cgroup/memory", "memory.limit_in_bytes") ||
	       try_cgroup("/sys/fs/cgroup", "memory.max");
}

static bool refuses(bufpool_config_t config)
{
	bufpool_t *pool = bufpool_create(&config);

	must(pool || errno == ENOMEM);
	bufpool_destroy(pool);
	return !pool;
}

static void too_much(void *arg)
{
	static const unsigned flags[] = { 0, BUFPOOL_HUGEPAGES };
	struct rusage usage;
	long before;

	(void) arg;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		must(getrusage(RUSAGE_SELF, &usage) == 0);
		before = usage.ru_maxrss;
		must(refuses(with_flags(counts(0, 0, 0, 100), flags[i])));
		/* None of the classes alone, but all of them. */
		must(refuses(with_flags(counts(7168, 448, 112, 28), flags[i])));
		/* Its descriptors would be too many. */
		must(refuses(with_flags(counts(BUFPOOL_MAX_COUNT, 0, 0, 0),
		                        flags[i])));
		/* Nothing of all that was touched. */
		must(getrusage(RUSAGE_SELF, &usage) == 0);
		must(usage.ru_maxrss < before + 4000);
		must(!refuses(with_flags(counts(0, 0, 0, 60), flags[i])));
	}
}

/* A growth asks as well: it fails, and the class stays as it is. */
static void growth(void *arg)
{
	bufpool_config_t config = counts(0, 0, 0, 10);
	bufpool_t *pool;

	(void) arg;
	config.max_count[BUFPOOL_CLASS_1M] = 1000;
	config.exhausted = BUFPOOL_FAIL;
	pool = make_pool(config);
	must(bufpool_grow(pool, BUFPOOL_CLASS_1M, 100) == -1);
	must(errno == ENOMEM);
	must(bufpool_grow(pool, BUFPOOL_CLASS_1M, 40) == 0);
	while (bufpool_checkout_1m(pool))
		; /* till there is no more to be had */
	must(errno == ENOBUFS);
	must(stats_of(pool).per_class[BUFPOOL_CLASS_1M].total < 100);
	bufpool_destroy(pool);
}

/* However small: at some time no more can be had. */
static void many_small(void *arg)
{
	int n = 0;

	(void) arg;
	while (bufpool_create(NULL))
		n++;
	must(errno == ENOMEM);
	must(n > 40);
}

/* Files that were read make room. */
static void beside_files(void *arg)
{
	static char block[1024 * 1024];
	char path[128];
	int fd;

	(void) arg;
	snprintf(path, sizeof(path), "%s/file", top);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	must(fd >= 0);
	memset(block, 1, sizeof(block));
	for (int i = 0; i < 64; i++)
		must(write(fd, block, sizeof(block)) == sizeof(block));
	must(fsync(fd) == 0);
	for (int round = 0; round < 2; round++) /* they are active then */
		for (int i = 0; i < 64; i++)
			must(pread(fd, block, sizeof(block),
			           i * (off_t) sizeof(block)) > 0);
	close(fd);
	snprintf(path, sizeof(path), "%s/memory.stat", ours);
	if (number_in(path, "active_file ") < (long) LIMIT / 2)
		skip("files are in memory only");
	else
		must(!refuses(counts(0, 0, 0, 60)));
}

static struct {
	void (*live)(void *arg);
	char *where;
} lives[] = {
	{ too_much, ours },
	{ too_much, inner },
	{ growth, ours },
	{ many_small, ours },
	{ beside_files, ours },
};

static void enter(void *arg)
{
	int i = *(int *) arg;

	must(write_in(lives[i].where, "cgroup.procs", "0"));
	lives[i].live(NULL);
}

START_TEST(within_a_cgroup)
{
	if (!make_cgroup()) {
		skip("no cgroup of our own to be had");
		return;
	}
	in_child(enter, &_i);
	rmdir(inner);
	rmdir(ours);
}
END_TEST

/* ---------------------------------------------------------------- the suite */

static Suite *room_suite(void)
{
	Suite *suite = suite_create("room");
	TCase *tc = add_case(suite, "files", 10);

	tcase_add_checked_fixture(tc, make_files, remove_files);
	tcase_add_test(tc, nothing_is_known);
	tcase_add_test(tc, version_one);
	tcase_add_test(tc, version_two);
	tcase_add_loop_test(tc, views_of_the_tree, 0, ARRAY_SIZE(views));

	tc = add_case(suite, "cgroup", 10);
	tcase_add_checked_fixture(tc, make_files, remove_files);
	tcase_add_loop_test(tc, within_a_cgroup, 0, ARRAY_SIZE(lives));
	return suite;
}

int main(void)
{
	lock_huge_pages(LOCK_SH);
	return run_suite(room_suite());
}
