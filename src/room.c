/* SPDX-License-Identifier: MIT */
/* room.c - ask /proc and the cgroups, of either version */
#include "room.h"

#include <ck_pr.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int64_t bp_figure(FILE *file, const char *name)
{
	char line[256];
	int64_t figure;

	while (fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, name, strlen(name)) == 0 &&
		    sscanf(line + strlen(name), " %" SCNd64, &figure) == 1)
			return figure;
	return -1;
}

/* What is read into.  Too large for a thread's stack. */
struct room {
	const char *proc;
	char cgroup[8192]; /* a line of /proc/self/cgroup */
	char mount[8192];  /* ... of /proc/self/mountinfo */
	char dir[8192];    /* where the cgroup is */
	char file[8192 + 64];
};

static FILE *open_in(struct room *room, const char *dir, const char *name)
{
	snprintf(room->file, sizeof(room->file), "%s/%s", dir, name);
	return fopen(room->file, "re");
}

static int64_t figure_in(struct room *room, const char *dir, const char *path,
                         const char *name)
{
	FILE *file = open_in(room, dir, path);
	int64_t figure = -1;

	if (file != NULL) {
		figure = bp_figure(file, name);
		fclose(file);
	}
	return figure;
}

/* -------------------------------------------------------------- one cgroup */

/* A limit of a cgroup, and what counts for it. */
struct limit {
	const char *most, *use;
	const char *cache[2]; /* names in memory.stat, with all below it */
};

#define V1_CACHE                                                               \
	{                                                                      \
		"total_inactive_file ", "total_active_file "                   \
	}
#define V2_CACHE                                                               \
	{                                                                      \
		"inactive_file ", "active_file "                               \
	}
static const struct limit limits[] = {
	{ "memory.limit_in_bytes", "memory.usage_in_bytes", V1_CACHE },
	{ "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes",
          V1_CACHE },
	{ "memory.max", "memory.current", V2_CACHE },
	{ "memory.high", "memory.current", V2_CACHE }, /* puts to sleep */
};

/* No machine has that much: so it is said that there is no limit. */
#define NO_LIMIT ((int64_t) 1 << 60)

/*
 * What is left below a limit.  The cgroup's use has its page cache in it, which
 * the kernel gives up before it kills; a process that has read many files would be
 * refused for nothing.  MemAvailable reckons alike.
 */
static uint64_t left_below(struct room *room, const struct limit *l)
{
	int64_t most = figure_in(room, room->dir, l->most, ""), use, cache;

	if (most < 0 || most > NO_LIMIT)
		return UINT64_MAX;
	use = figure_in(room, room->dir, l->use, "");
	for (int i = 0; i < 2; i++) {
		cache = figure_in(room, room->dir, "memory.stat", l->cache[i]);
		if (cache > 0)
			use -= cache;
	}
	if (use < 0)
		use = 0; /* or the figures are of different moments */
	return use < most ? (uint64_t) (most - use) : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Of the cgroup in room->dir. */
static uint64_t left_in_cgroup(struct room *room)
{
	uint64_t left = UINT64_MAX;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		left = least(left, left_below(room, &limits[i]));
	return left;
}

/* ----------------------------------------------------------- which cgroups */

/* What a process is in: of version 1 the tree of one controller, of version 2
   the only one. */
struct tree {
	const char *type;       /* of file system */
	const char *controller; /* "": all */
};

static const struct tree trees[] = { { "cgroup", "memory" }, { "cgroup2", "" } };

/* Whether a word is in a list with commas.  Takes the list apart. */
static bool has_word(char *list, const char *word)
{
	for (char *one; (one = strsep(&list, ",")) != NULL;)
		if (strcmp(one, word) == 0)
			return true;
	return false;
}

/* In place: the kernel writes blanks and the like as \ and three octal digits. */
static void unescape(char *s)
{
	char *to = s;
	unsigned c;

	for (; *s != '\0'; to++)
		if (sscanf(s, "\\%3o", &c) == 1) {
			*to = (char) c;
			s += 4;
		} else {
			*to = *s++;
		}
	*to = '\0';
}

/* What path has below root, "" or "/..."; NULL if it is not there.  Both are as
   the reader's namespace shows them, where "/.." is outside of it. */
static const char *below(const char *path, const char *root)
{
	size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
	const char *rest = path + n;

	if (strncmp(path, root, n) != 0 || (*rest != '\0' && *rest != '/') ||
	    strcmp(rest, "/..") == 0 || strncmp(rest, "/../", 4) == 0)
		return NULL;
	return strcmp(rest, "/") == 0 ? "" : rest;
}

/* The process's own cgroup, by a line of /proc/self/cgroup, "4:memory:/a/b"; NULL
   if that is about another tree. */
static const char *own_cgroup(char *line, const struct tree *tree)
{
	char *list;

	line[strcspn(line, "\n")] = '\0';
	strsep(&line, ":");
	list = strsep(&line, ":");
	return line != NULL && has_word(list, tree->controller) ? line : NULL;
}

/*
 * Have in room->dir where in the file system a cgroup is; by a line of
 * /proc/self/mountinfo, "35 31 0:32 ROOT POINT OPTIONS [MORE ...] - TYPE SOURCE
 * OPTIONS".  Returns the length of the mount point in it, or 0 if that mounts
 * something else, or another part of the tree.
 */
static size_t locate(struct room *room, const struct tree *tree,
                     const char *cgroup)
{
	char *line = room->mount, *field[5], *type;
	const char *rest;

	line[strcspn(line, "\n")] = '\0';
	for (int i = 0; i < 5; i++)
		field[i] = strsep(&line, " ");
	while (line != NULL && strcmp(strsep(&line, " "), "-") != 0)
		;
	type = strsep(&line, " ");
	strsep(&line, " ");
	if (line == NULL || strcmp(type, tree->type) != 0 ||
	    (tree->controller[0] != '\0' && !has_word(line, tree->controller)))
		return 0;
	unescape(field[3]);
	unescape(field[4]);
	rest = below(cgroup, field[3]);
	if (rest == NULL)
		return 0;
	snprintf(room->dir, sizeof(room->dir), "%s%s", field[4], rest);
	return strlen(field[4]);
}

/* Of the cgroup in room->dir and all above it, up to where the tree is mounted. */
static uint64_t left_up_from(struct room *room, size_t mount_point)
{
	uint64_t left = left_in_cgroup(room);
	char *slash;

	while ((slash = strrchr(room->dir, '/')) != NULL &&
	       (size_t) (slash - room->dir) >= mount_point) {
		*slash = '\0';
		left = least(left, left_in_cgroup(room));
	}
	return left;
}

/* NULL if the process is in none of that tree. */
static const char *find_cgroup(struct room *room, const struct tree *tree)
{
	FILE *file = open_in(room, room->proc, "self/cgroup");
	const char *cgroup = NULL;

	if (file == NULL)
		return NULL;
	while (cgroup == NULL &&
	       fgets(room->cgroup, sizeof(room->cgroup), file) != NULL)
		cgroup = own_cgroup(room->cgroup, tree);
	fclose(file);
	return cgroup;
}

static uint64_t left_in_tree(struct room *room, const struct tree *tree)
{
	const char *cgroup = find_cgroup(room, tree);
	FILE *file = open_in(room, room->proc, "self/mountinfo");
	uint64_t left = UINT64_MAX;

	if (file == NULL)
		return left;
	while (cgroup != NULL &&
	       fgets(room->mount, sizeof(room->mount), file) != NULL) {
		size_t mount_point = locate(room, tree, cgroup);

		if (mount_point > 0)
			left = least(left, left_up_from(room, mount_point));
	}
	fclose(file);
	return left;
}

/* --------------------------------------------------------------- all of it */

uint64_t bp_room(const char *proc)
{
	struct room *room = malloc(sizeof(*room));
	uint64_t left = UINT64_MAX;
	int64_t kb;

	if (room == NULL)
		return left;
	room->proc = proc;
	kb = figure_in(room, proc, "meminfo", "MemAvailable:");
	if (kb >= 0)
		left = (uint64_t) kb * 1024;
	for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++)
		left = least(left, left_in_tree(room, &trees[i]));
	free(room);
	return left;
}

/*
 * To ask costs as much as to take some hundred pages.  So it is asked for somewhat
 * more than is wanted, and what is granted beyond that is given out unasked.
 */
#define AHEAD ((size_t) 4 * 1024 * 1024)

static uint64_t unasked = AHEAD; /* given out so since we asked last */

/* What the kernel takes to map so much: a word for each page. */
#define PAGE_TABLES(len) ((len) / 4096 * sizeof(void *))

bool bp_has_room(size_t len)
{
	bool has;

	if (ck_pr_faa_64(&unasked, len) + len < AHEAD)
		return true;
	has = len + PAGE_TABLES(len) + AHEAD < bp_room("/proc");
	ck_pr_store_64(&unasked, has ? 0 : AHEAD);
	return has;
}
