/* SPDX-License-Identifier: MIT */
/*
 * bufpool-gen.c - expand a template over the table of size classes
 *
 *     bufpool-gen CLASSES TEMPLATE OUTPUT
 *
 * It runs on the build machine, also when the library is built for another,
 * and so uses nothing but ISO C and POSIX.
 *
 * classes.def explains the table.  A template is text with @tokens@ in it:
 *
 *     @classes@         how many classes there are
 *     @max_size@        bytes of the largest
 *     @magazine_slots@  the smallest power of two that every cache fits in
 *     @sizes@ @caches@ @counts@   the columns, as lists: 1, 2, 3
 *     @table@ @template@          the base names of the inputs
 *     @digest@          16 hexadecimal digits, which differ where the table
 *                       (but for the counts) or the template does
 *
 * The lines between a line "@each@" and a line "@end@" are repeated for each
 * class, and know these as well:
 *
 *     @name@ @NAME@     in lower and in upper case
 *     @index@           0 for the smallest class
 *     @size@ @wipe@ @cache@ @count@   its columns; the size in bytes
 *     @comma@           a comma, but for the last class
 *
 * Blocks do not nest.  An @ that does not belong to an @word@ means itself.
 *
 * Any error is one line "file:line: what" and exit status 1 (2: usage), and
 * leaves OUTPUT as it was: output is written to a file beside it, which takes
 * its place when all is well and is removed otherwise.
 */
#define _XOPEN_SOURCE 700
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_LINE 256
#define MAX_CLASSES 32
#define MAX_NAME 32
#define MAX_SIZE (UINT64_C(1) << 47) /* all a process can address */
#define MAX_CACHE 256
#define MAX_COUNT 0xfffffe /* BUFPOOL_MAX_COUNT */
#define ALIGNMENT 4096

#define BLANKS " \t"
#define WORD                                                                 \
	"abcdefghijklmnopqrstuvwxyz"                                         \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ"                                         \
	"0123456789_"

struct file {
	const char *path;
	FILE *stream;
	unsigned line; /* where errors are; stays 1 for the output */
};

/* The table, by columns.  Names are in lower case. */
static struct {
	const char *file; /* its base name */
	int classes;
	char name[MAX_CLASSES][MAX_NAME + 1];
	uint64_t size[MAX_CLASSES];
	const char *wipe[MAX_CLASSES];
	uint64_t cache[MAX_CLASSES];
	uint64_t count[MAX_CLASSES];
} table;

static uint64_t digest; /* of the template and the table */

static struct file output;
static char *temporary; /* the file beside the output, while there is one */

/* ----------------------------------------------------------------- errors */

__attribute__((format(printf, 2, 3)))
static _Noreturn void fail(const struct file *at, const char *what, ...)
{
	va_list args;

	fprintf(stderr, "%s:%u: ", at->path, at->line);
	va_start(args, what);
	vfprintf(stderr, what, args);
	va_end(args);
	fputc('\n', stderr);
	if (temporary)
		unlink(temporary);
	exit(1);
}

static _Noreturn void cannot(const struct file *at, const char *what)
{
	fail(at, "cannot %s: %s", what, strerror(errno));
}

/* ------------------------------------------------------------------ input */

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static struct file open_input(const char *path)
{
	struct file in = { path, fopen(path, "r"), 1 };

	if (!in.stream)
		cannot(&in, "open");
	in.line = 0;
	return in;
}

static void check_char(const struct file *in, int c)
{
	if (c == '\r')
		fail(in, "carriage return; lines end in LF, not in CRLF");
	if ((c < ' ' && c != '\t') || c == 127)
		fail(in, "control character 0x%02x", (unsigned) c);
}

/* Read a line, without its end.  0: there is none; in->line stays the last. */
static int read_line(struct file *in, char text[MAX_LINE + 1])
{
	int n = 0;
	int c;

	in->line++;
	while ((c = getc(in->stream)) != '\n' && c != EOF) {
		check_char(in, c);
		if (n == MAX_LINE)
			fail(in, "line longer than %d characters", MAX_LINE);
		text[n++] = (char) c;
	}
	text[n] = '\0';
	if (ferror(in->stream))
		cannot(in, "read");
	if (c == '\n' || n > 0)
		return 1;
	if (in->line > 1)
		in->line--;
	return 0;
}

/* -------------------------------------------------------------- the table */

/* A decimal number up to max.  units, out of "KMG", may follow it. */
static uint64_t number(const struct file *in, const char *column,
                       const char *word, const char *units, uint64_t max)
{
	const char *end = word;
	const char *unit;
	int shift = 0;
	uint64_t n = 0;

	for (; *end >= '0' && *end <= '9'; end++)
		if (n <= max) /* once above it, digits make no difference */
			n = n * 10 + (uint64_t) (*end - '0');
	if (end > word && *end && (unit = strchr(units, *end))) {
		shift = 10 * (int) (unit - units + 1);
		end++;
	}
	if (end == word || *end)
		fail(in, "%s '%s' is not a number", column, word);
	if (n > max >> shift)
		fail(in, "%s '%s' is above %" PRIu64, column, word, max);
	return n << shift;
}

/* Calls that bufpool_checkout_<name>() must not be; tests/gen.sh looks for all. */
static const char *const reserved[] = { "aligned", "bulk", "wait", "zeroed" };
#define RESERVED ((int) (sizeof(reserved) / sizeof(reserved[0])))

static void parse_name(const struct file *in, const char *word)
{
	char *name = table.name[table.classes];
	int i;

	if (word[strspn(word, WORD)])
		fail(in, "name '%s' has characters outside [A-Za-z0-9_]", word);
	if (strlen(word) > MAX_NAME)
		fail(in, "name '%s' is longer than %d", word, MAX_NAME);
	for (i = 0; word[i]; i++)
		name[i] = (char) tolower((unsigned char) word[i]);
	for (i = 0; i < RESERVED; i++)
		if (!strcmp(name, reserved[i]))
			fail(in, "name '%s' is reserved", word);
	for (i = 0; i < table.classes; i++)
		if (!strcmp(name, table.name[i]))
			fail(in, "name '%s' is taken", word);
}

static void parse_size(const struct file *in, const char *word)
{
	uint64_t size = number(in, "size", word, "KMG", MAX_SIZE);
	int i;

	if (!size)
		fail(in, "size is zero");
	if (size % ALIGNMENT)
		fail(in, "size '%s' is not a multiple of %d", word, ALIGNMENT);
	for (i = 0; i < table.classes; i++)
		if (size == table.size[i])
			fail(in, "size '%s' is taken", word);
	if (i > 0 && size < table.size[i - 1])
		fail(in, "size '%s' is not sorted: smallest first", word);
	table.size[i] = size;
}

static void parse_wipe(const struct file *in, const char *word)
{
	if (!strcmp(word, "auto"))
		table.wipe[table.classes] = "auto";
	else if (!strcmp(word, "memset"))
		table.wipe[table.classes] = "memset";
	else if (!strcmp(word, "stream"))
		table.wipe[table.classes] = "stream";
	else
		fail(in, "wipe '%s' is none of auto, memset, stream", word);
}

static void parse_line(const struct file *in, char *text)
{
	enum { NAME, SIZE, WIPE, CACHE, COUNT, COLUMNS };
	char *word[COLUMNS];
	char *next;
	int columns = 0;

	text[strcspn(text, "#")] = '\0';
	for (next = strtok(text, BLANKS); next; next = strtok(NULL, BLANKS)) {
		if (columns < COLUMNS)
			word[columns] = next;
		columns++;
	}
	if (columns == 0)
		return;
	if (columns != COLUMNS)
		fail(in, "%d columns; name size wipe cache count are %d",
		     columns, COLUMNS);
	if (table.classes == MAX_CLASSES)
		fail(in, "more than %d classes", MAX_CLASSES);
	parse_name(in, word[NAME]);
	parse_size(in, word[SIZE]);
	parse_wipe(in, word[WIPE]);
	table.cache[table.classes] =
		number(in, "cache", word[CACHE], "", MAX_CACHE);
	table.count[table.classes] =
		number(in, "count", word[COUNT], "", MAX_COUNT);
	table.classes++;
}

static void parse_table(const char *path)
{
	struct file in = open_input(path);
	char text[MAX_LINE + 1];

	table.file = base_name(path);
	while (read_line(&in, text))
		parse_line(&in, text);
	if (table.classes == 0)
		fail(&in, "no size class");
	fclose(in.stream);
}

/* ----------------------------------------------------------------- output */

/* Never over what is no plain file: root would rename onto /dev/null. */
static void open_output(const char *path)
{
	size_t room = strlen(path) + sizeof(".18446744073709551615.tmp");
	char *beside = malloc(room);
	struct stat st;

	output.path = path;
	output.line = 1;
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		fail(&output, "not a regular file");
	if (!beside)
		cannot(&output, "write");
	snprintf(beside, room, "%s.%ld.tmp", path, (long) getpid());
	output.stream = fopen(beside, "wx");
	if (!output.stream)
		cannot(&output, "write");
	temporary = beside;
}

static void close_output(void)
{
	if (fclose(output.stream))
		cannot(&output, "write");
	if (rename(temporary, output.path))
		cannot(&output, "replace");
	free(temporary);
	temporary = NULL;
}

static void put(const char *s, size_t n)
{
	if (fwrite(s, 1, n, output.stream) != n)
		cannot(&output, "write");
}

static void put_string(const char *s)
{
	put(s, strlen(s));
}

static void put_number(uint64_t n)
{
	char s[24];

	snprintf(s, sizeof(s), "%" PRIu64, n);
	put_string(s);
}

static void put_list(const uint64_t *column)
{
	int i;

	for (i = 0; i < table.classes; i++) {
		if (i > 0)
			put_string(", ");
		put_number(column[i]);
	}
}

static void put_upper(const char *s)
{
	for (; *s; s++) {
		char c = (char) toupper((unsigned char) *s);

		put(&c, 1);
	}
}

/* ----------------------------------------------------------- the template */

static uint64_t magazine_slots(void)
{
	uint64_t slots = 1;
	int i;

	for (i = 0; i < table.classes; i++)
		while (slots < table.cache[i])
			slots *= 2;
	return slots;
}

/* FNV-1a, of 64 bits. */
static void digest_add(const char *s)
{
	for (; *s; s++) {
		digest ^= (unsigned char) *s;
		digest *= UINT64_C(0x100000001b3);
	}
}

static void digest_all(const char *path)
{
	struct file in = open_input(path);
	char text[MAX_LINE + 1];
	int i;

	digest = UINT64_C(0xcbf29ce484222325);
	while (read_line(&in, text)) {
		digest_add(text);
		digest_add("\n");
	}
	fclose(in.stream);
	for (i = 0; i < table.classes; i++) {
		snprintf(text, sizeof(text), "%s %" PRIu64 " %" PRIu64 "\n",
		         table.name[i], table.size[i], table.cache[i]);
		digest_add(text);
	}
}

static void put_digest(void)
{
	char s[17];

	snprintf(s, sizeof(s), "%016" PRIx64, digest);
	put_string(s);
}

/* Tokens for everywhere; 0: this is none. */
static int put_global(const struct file *in, const char *word)
{
	if (!strcmp(word, "classes"))
		put_number((uint64_t) table.classes);
	else if (!strcmp(word, "max_size"))
		put_number(table.size[table.classes - 1]);
	else if (!strcmp(word, "magazine_slots"))
		put_number(magazine_slots());
	else if (!strcmp(word, "sizes"))
		put_list(table.size);
	else if (!strcmp(word, "caches"))
		put_list(table.cache);
	else if (!strcmp(word, "counts"))
		put_list(table.count);
	else if (!strcmp(word, "digest"))
		put_digest();
	else if (!strcmp(word, "table"))
		put_string(table.file);
	else if (!strcmp(word, "template"))
		put_string(base_name(in->path));
	else
		return 0;
	return 1;
}

/* Tokens of class i, for blocks; 0: this is none. */
static int put_class(int i, const char *word)
{
	if (!strcmp(word, "name"))
		put_string(table.name[i]);
	else if (!strcmp(word, "NAME"))
		put_upper(table.name[i]);
	else if (!strcmp(word, "index"))
		put_number((uint64_t) i);
	else if (!strcmp(word, "size"))
		put_number(table.size[i]);
	else if (!strcmp(word, "wipe"))
		put_string(table.wipe[i]);
	else if (!strcmp(word, "cache"))
		put_number(table.cache[i]);
	else if (!strcmp(word, "count"))
		put_number(table.count[i]);
	else if (!strcmp(word, "comma"))
		put_string(i + 1 < table.classes ? "," : "");
	else
		return 0;
	return 1;
}

/* i: the class of the block; -1 outside of one. */
static void put_token(const struct file *in, const char *word, int i)
{
	if (put_global(in, word) || (i >= 0 && put_class(i, word)))
		return;
	if (!strcmp(word, "each") || !strcmp(word, "end"))
		fail(in, "@%s@ is not alone on its line", word);
	fail(in, "no token @%s@ %s a block", word, i >= 0 ? "in" : "outside");
}

static void expand_line(const struct file *in, char *s, int i)
{
	while (*s) {
		size_t plain = strcspn(s, "@");
		char *word = s + plain + 1;
		size_t n;

		put(s, plain);
		s += plain;
		if (!*s)
			break;
		n = strspn(word, WORD);
		if (n > 0 && word[n] == '@') {
			word[n] = '\0';
			put_token(in, word, i);
			s = word + n + 1;
		} else {
			put("@", 1);
			s = word;
		}
	}
	put("\n", 1);
}

/* A block is read again for each class. */
static void expand_template(const char *path)
{
	struct file in = open_input(path);
	struct file each = in;
	char text[MAX_LINE + 1];
	long body = 0;
	int i = -1;

	while (read_line(&in, text)) {
		const char *word = text + strspn(text, BLANKS);

		if (!strcmp(word, "@each@")) {
			if (i >= 0)
				fail(&in, "@each@ in a block");
			i = 0;
			each = in;
			body = ftell(in.stream);
		} else if (!strcmp(word, "@end@")) {
			if (i < 0)
				fail(&in, "@end@ without @each@");
			if (++i == table.classes) {
				i = -1;
				continue;
			}
			if (fseek(in.stream, body, SEEK_SET))
				cannot(&in, "read the block again");
			in.line = each.line;
		} else {
			expand_line(&in, text, i);
		}
	}
	if (i >= 0)
		fail(&each, "@each@ without @end@");
	fclose(in.stream);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fputs("usage: bufpool-gen CLASSES TEMPLATE OUTPUT\n", stderr);
		return 2;
	}
	/* A limit on file sizes is a write error, not a reason to die with the
	   temporary left behind. */
	signal(SIGXFSZ, SIG_IGN);
	parse_table(argv[1]);
	digest_all(argv[2]);
	open_output(argv[3]);
	expand_template(argv[2]);
	close_output();
	return 0;
}
