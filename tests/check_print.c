/* SPDX-License-Identifier: MIT */
/*
 * check_print.c - all three formats print every figure, of one pool and of all
 */
#include "figures.h"

#include <ctype.h>
#include <stdatomic.h>

/* --------------------------------------------------------------- printing */

static char printed[65536];

static void print(const bufpool_t *pool, enum bufpool_format format)
{
	FILE *file = fmemopen(printed, sizeof(printed), "w");
	int rc = -1;

	ck_assert_ptr_nonnull(file);
	KEEPS_ERRNO(rc = bufpool_stats_print(pool, file, format));
	ck_assert_int_eq(rc, 0);
	fclose(file);
	ck_assert_uint_gt(strlen(printed), 0);
	ck_assert_uint_lt(strlen(printed), sizeof(printed) - 1);
	ck_assert_int_eq(printed[strlen(printed) - 1], '\n');
}

/* What stays out of the busy pool. */
static bufpool_buf_t *left_out[BUFPOOL_CLASSES + 1];

/* For a buffer of each class, for some time. */
static void wait_in_vain(bufpool_t *pool)
{
	const struct timespec moment = {0, 1000};
	bufpool_buf_t *bufs[60];

	for (int k = 0; k < BUFPOOL_CLASSES; k++) {
		size_t n = drain(pool, k, bufs, ARRAY_SIZE(bufs));

		for (int i = 0; i <= k; i++)
			ck_assert(!bufpool_checkout_wait(pool, classes[k].size,
			                                 &moment));
		bufpool_return_bulk(bufs, n);
	}
}

/*
 * A pool at rest that has seen all sorts of things, so that few figures are
 * zero and few are the same.
 */
static bufpool_t *busy_pool(void)
{
	const size_t counts[BUFPOOL_CLASSES] = {50, 13, 7, 3};
	bufpool_config_t config = default_config;
	bufpool_t *pool;

	memcpy(config.count, counts, sizeof(counts));
	config.name = "busy";
	pool = make_pool(config);
	for (int i = 0; i < BUFPOOL_CLASSES; i++) {
		bufpool_buf_t *bufs[60];
		size_t n = counts[i] + 1 + i;

		for (int round = 0; round <= i; round++) {
			ck_assert_uint_eq(
				bufpool_checkout_bulk(pool, classes[i].size - i,
			                              bufs, n),
				n);
			bufpool_return_bulk(bufs + 1, n - 1);
			if (round < i)
				bufpool_return(bufs[0]);
		}
		left_out[i] = bufs[0];
	}
	bufpool_return(bufpool_checkout(pool, 1234567));
	left_out[BUFPOOL_CLASSES] = bufpool_checkout(pool, 2345678);
	ck_assert(!bufpool_try_checkout(pool, 2345678));
	wait_in_vain(pool);
	ck_assert_ptr_nonnull(left_out[BUFPOOL_CLASSES]);
	return pool;
}

static void end_busy_pool(bufpool_t *pool)
{
	bufpool_return_bulk(left_out, ARRAY_SIZE(left_out));
	destroy_whole(pool);
}

START_TEST(text_names_every_class)
{
	bufpool_t *pool = busy_pool();

	print(pool, BUFPOOL_TEXT);
	for (int i = 0; i < BUFPOOL_CLASSES; i++)
		ck_assert_ptr_nonnull(strcasestr(printed, classes[i].name));
	for (const char *c = printed; *c; c++)
		ck_assert(isprint((unsigned char) *c) || *c == '\n');
	end_busy_pool(pool);
}
END_TEST

/* ------------------------------------------------------------------- JSON */

/*
 * A reader for the JSON that can occur: it is strict, and knows objects,
 * arrays, keys and whole numbers.  Each returns what follows, or fails.
 */
static const char *json_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

static const char *json_char(const char *at, char c)
{
	at = json_space(at);
	ck_assert_msg(*at == c, "'%c' expected at '%.40s'", c, at);
	return json_space(at + 1);
}

static bool json_more(const char **at)
{
	bool more = **at == ',';

	if (more)
		*at = json_char(*at, ',');
	return more;
}

static const char *json_key(const char *at, char *key, size_t size)
{
	size_t n;

	at = json_char(at, '"');
	n = strspn(at, "abcdefghijklmnopqrstuvwxyz_0123456789");
	ck_assert_uint_lt(n, size);
	memcpy(key, at, n);
	key[n] = '\0';
	ck_assert_int_eq(at[n], '"');
	return json_char(at + n + 1, ':');
}

/* A string as it was before it was quoted. */
static const char *json_string(const char *at, char *out, size_t size)
{
	const char *end = out + size - 1;

	ck_assert_msg(*at == '"', "no string: '%.40s'", at);
	for (at++; *at != '"'; at++) {
		unsigned char c = (unsigned char) *at;

		ck_assert_msg(c >= ' ' && c != 0x7f, "control character");
		ck_assert(out < end);
		if (*at != '\\') {
			*out++ = *at;
			continue;
		}
		at++;
		ck_assert_msg(*at && strchr("\"\\nu", *at), "escape '%c'", *at);
		*out++ = *at == 'n' ? '\n' : *at;
		if (*at == 'u') {
			char digits[5] = {at[1], at[2], at[3], at[4], 0};

			ck_assert_uint_eq(strspn(digits, "0123456789abcdef"), 4);
			out[-1] = (char) strtoul(digits, NULL, 16);
			at += 4;
		}
	}
	*out = '\0';
	return json_space(at + 1);
}

static const char *json_number(const char *at, uint64_t *value)
{
	char *end;

	ck_assert_msg(isdigit((unsigned char) *at), "no number: '%.40s'", at);
	ck_assert(at[0] != '0' || !isdigit((unsigned char) at[1]));
	*value = strtoull(at, &end, 10);
	return json_space(end);
}

static unsigned field_bit(const struct field *fields, size_t n,
                          const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(fields[i].name, name) == 0)
			return i;
	ck_abort_msg("'%s' is no field", name);
}

static const char *json_classes(const char *at, const bufpool_stats_t *stats);

/* What tells it from others: "name" and a number. */
static const char *json_head(const char *at, const char *name,
                             const char *number, uint64_t *value)
{
	char text[64];

	at = json_key(json_char(at, '{'), text, sizeof(text));
	ck_assert_str_eq(text, "name");
	at = json_string(at, text, sizeof(text));
	ck_assert_str_eq(text, name);
	at = json_key(json_char(at, ','), text, sizeof(text));
	ck_assert_str_eq(text, number);
	return json_char(json_number(at, value), ',');
}

/* The rest of an object that has exactly these fields with the values of stats. */
static const char *json_fields(const char *at, const void *stats,
                               const struct field *fields, size_t n,
                               const bufpool_stats_t *top)
{
	unsigned seen = 0, all = (1u << n) - 1;
	char key[64];

	do {
		uint64_t value;
		unsigned i;

		at = json_key(at, key, sizeof(key));
		if (top && strcmp(key, "per_class") == 0) {
			at = json_classes(at, top);
			top = NULL;
			continue;
		}
		i = field_bit(fields, n, key);
		ck_assert_msg(!(seen & 1u << i), "'%s' twice", key);
		seen |= 1u << i;
		at = json_number(at, &value);
		ck_assert_uint_eq(value, value_of(stats, &fields[i]));
	} while (json_more(&at));
	ck_assert_uint_eq(seen, all);
	ck_assert_msg(!top, "no per_class");
	return json_char(at, '}');
}

static const char *json_classes(const char *at, const bufpool_stats_t *stats)
{
	uint64_t size;
	int n = 0;

	at = json_char(at, '[');
	do {
		ck_assert_int_lt(n, BUFPOOL_CLASSES);
		at = json_head(at, classes[n].name, "size", &size);
		ck_assert_uint_eq(size, classes[n].size);
		at = json_fields(at, &stats->per_class[n++], each,
		                 ARRAY_SIZE(each), NULL);
	} while (json_more(&at));
	ck_assert_int_eq(n, BUFPOOL_CLASSES);
	return json_char(at, ']');
}

/* The object of a pool; returns what follows. */
static const char *json_pool(const char *at, const bufpool_t *pool,
                             const char *name, uint64_t *id)
{
	bufpool_stats_t stats = stats_of(pool);

	at = json_head(at, name, "id", id);
	return json_fields(at, &stats, totals, ARRAY_SIZE(totals), &stats);
}

static void check_json(const bufpool_t *pool, const char *name)
{
	const char *end;
	uint64_t id;

	print(pool, BUFPOOL_JSON);
	end = json_pool(json_space(printed), pool, name, &id);
	ck_assert_int_eq(*end, '\0');
}

START_TEST(json_holds_every_field)
{
	bufpool_t *pool = make_pool(empty_config());

	check_json(pool, "pool-1");
	bufpool_destroy(pool);
	pool = busy_pool();
	check_json(pool, "busy");
	end_busy_pool(pool);
}
END_TEST

/* -------------------------------------------------------------- Prometheus */

/* A line of the text exposition format, taken apart. */
struct sample {
	char name[128];
	char labels[512]; /* without the braces */
	uint64_t value;   /* with nine digits behind its point: in billionths */
};

static struct {
	struct sample samples[1024];
	size_t n;
	char helped[128]; /* the name of the last HELP */
	char typed[128];  /* and TYPE */
	bool counter;
} exposition;

static size_t name_length(const char *at)
{
	return strspn(at, "abcdefghijklmnopqrstuvwxyz"
	                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789");
}

static const char *take_name(const char *at, char *name, size_t size)
{
	size_t n = name_length(at);

	ck_assert_msg(n > 0 && n < size, "no name: '%s'", at);
	ck_assert_msg(strncmp(at, "bufpool_", 8) == 0, "name in '%s'", at);
	memcpy(name, at, n);
	name[n] = '\0';
	return at + n;
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), m = strlen(suffix);

	return n >= m && strcmp(name + n - m, suffix) == 0;
}

static void read_help(const char *at)
{
	char *name = exposition.helped;

	at = take_name(at, name, sizeof(exposition.helped));
	ck_assert_msg(at[0] == ' ' && at[1], "no help for %s", name);
}

static void read_type(const char *at)
{
	at = take_name(at, exposition.typed, sizeof(exposition.typed));
	ck_assert_str_eq(exposition.typed, exposition.helped);
	exposition.counter = strcmp(at, " counter") == 0;
	ck_assert_msg(exposition.counter || strcmp(at, " gauge") == 0,
	              "type of %s is '%s'", exposition.typed, at);
	ck_assert_msg(exposition.counter ==
	                      has_suffix(exposition.typed, "_total"),
	              "%s is %s counter", exposition.typed,
	              exposition.counter ? "a" : "no");
	for (size_t i = 0; i < exposition.n; i++)
		ck_assert_msg(strcmp(exposition.samples[i].name,
		                     exposition.typed) != 0,
		              "%s is in two groups", exposition.typed);
}

/* name="value", again and again. */
static const char *take_labels(const char *at, char *labels, size_t size)
{
	const char *start = ++at;

	while (*at != '}') {
		size_t n = name_length(at);

		ck_assert_msg(n > 0 && at[n] == '=' && at[n + 1] == '"',
		              "label at '%s'", at);
		at += n + 2;
		while (*(at += strcspn(at, "\"\\")) == '\\') {
			ck_assert_msg(at[1] && strchr("\"\\n", at[1]),
			              "escape in label '%s'", at);
			at += 2;
		}
		ck_assert_msg(*at == '"', "label ends '%s'", at);
		if (*++at == ',')
			at++;
	}
	ck_assert_uint_lt((size_t) (at - start), size);
	memcpy(labels, start, (size_t) (at - start));
	return at + 1;
}

static void read_sample(const char *at)
{
	struct sample *sample = &exposition.samples[exposition.n];
	char *end;

	ck_assert_uint_lt(exposition.n, ARRAY_SIZE(exposition.samples));
	memset(sample, 0, sizeof(*sample));
	at = take_name(at, sample->name, sizeof(sample->name));
	ck_assert_str_eq(sample->name, exposition.typed);
	if (*at == '{')
		at = take_labels(at, sample->labels, sizeof(sample->labels));
	ck_assert_msg(at[0] == ' ' && isdigit((unsigned char) at[1]),
	              "value of %s: '%s'", sample->name, at);
	sample->value = strtoull(at + 1, &end, 10);
	if (*end == '.') {
		ck_assert_uint_eq(strlen(end + 1), 9);
		sample->value = sample->value * 1000000000 +
		                strtoull(end + 1, &end, 10);
	}
	ck_assert_int_eq(*end, '\0');
	for (size_t i = 0; i < exposition.n; i++)
		ck_assert_msg(strcmp(exposition.samples[i].name,
		                     sample->name) ||
		                      strcmp(exposition.samples[i].labels,
		                             sample->labels),
		              "%s twice", sample->name);
	exposition.n++;
}

static void read_exposition(char *text)
{
	char *line, *rest = text;

	memset(&exposition, 0, sizeof(exposition));
	while ((line = strsep(&rest, "\n")) && rest) {
		if (strncmp(line, "# HELP ", 7) == 0)
			read_help(line + 7);
		else if (strncmp(line, "# TYPE ", 7) == 0)
			read_type(line + 7);
		else
			read_sample(line);
	}
}

/* A field's sample is named after it, but these. */
static const char *metric_of(const struct field *field)
{
	if (strcmp(field->name, "total") == 0)
		return "buffers"; /* it is no counter */
	if (strcmp(field->name, "wait_ns") == 0)
		return "wait_seconds";
	return field->name;
}

static void check_sample(const struct field *field, const char *prefix,
                         const char *labels, uint64_t value)
{
	char name[128];
	bool found = false;

	snprintf(name, sizeof(name), "bufpool_%s%s%s", prefix, metric_of(field),
	         field->counter ? "_total" : "");
	for (size_t i = 0; i < exposition.n && !found; i++)
		found = strcmp(exposition.samples[i].name, name) == 0 &&
		        strcmp(exposition.samples[i].labels, labels) == 0 &&
		        exposition.samples[i].value == value;
	ck_assert_msg(found, "no sample %s{%s} %" PRIu64, name, labels, value);
}

/* All samples of a pool with this label, or these. */
static void check_samples(const bufpool_t *pool, const char *pools_label)
{
	bufpool_stats_t stats = stats_of(pool);
	char labels[512];

	for (size_t i = 0; i < ARRAY_SIZE(totals); i++)
		check_sample(&totals[i], "", pools_label,
		             value_of(&stats, &totals[i]));
	for (int c = 0; c < BUFPOOL_CLASSES; c++) {
		snprintf(labels, sizeof(labels), "%s,class=\"%s\",size=\"%zu\"",
		         pools_label, classes[c].name, classes[c].size);
		for (size_t i = 0; i < ARRAY_SIZE(each); i++)
			check_sample(&each[i], "class_", labels,
			             value_of(&stats.per_class[c], &each[i]));
	}
}

enum {
	SAMPLES = ARRAY_SIZE(totals) + BUFPOOL_CLASSES * ARRAY_SIZE(each)
};

START_TEST(prometheus_holds_every_field)
{
	bufpool_t *pool = busy_pool();

	print(pool, BUFPOOL_PROMETHEUS);
	read_exposition(printed);
	check_samples(pool, "pool=\"busy\"");
	ck_assert_uint_eq(exposition.n, SAMPLES);
	end_busy_pool(pool);
}
END_TEST

/* ------------------------------------------------------------------- names */

/* As given; as in text and JSON; as a label. */
/* clang-format off */
static const char *const names[][3] = {
	{"plain", "plain", "plain"},
	{"two words", "two words", "two words"},
	{"\"quoted\"", "\\\"quoted\\\"", "\\\"quoted\\\""},
	{"back\\slash\\", "back\\\\slash\\\\", "back\\\\slash\\\\"},
	{"new\nline", "new\\nline", "new\\nline"},
	{"\t\x01\x7f", "\\u0009\\u0001\\u007f", "\t\x01\x7f"},
	{"%s{}=,'", "%s{}=,'", "%s{}=,'"},
	{"na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x99", "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x99",
	 "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x99"},
	{"thirty-one bytes are the most.\n", "thirty-one bytes are the most.\\n",
	 "thirty-one bytes are the most.\\n"},
	{"", "pool-1", "pool-1"},
	{NULL, "pool-1", "pool-1"},
};
/* clang-format on */

static bufpool_t *named_pool(const char *name)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_4K, 1);
	char *copy = name ? strdup(name) : NULL;
	bufpool_t *pool;

	config.name = copy;
	pool = make_pool(config);
	if (copy)
		memset(copy, 'x', strlen(copy)); /* the pool has its own */
	free(copy);
	return pool;
}

START_TEST(names_are_quoted)
{
	const char *name = names[_i][0];
	bufpool_t *pool = named_pool(name);
	char line[256], label[256];

	print(pool, BUFPOOL_TEXT);
	snprintf(line, sizeof(line), " %s\n", names[_i][1]);
	ck_assert_int_eq(strncmp(printed, "name ", 5), 0);
	ck_assert_ptr_eq(strstr(printed, line) + strlen(line),
	                 strchr(printed, '\n') + 1);
	check_json(pool, name && *name ? name : "pool-1");
	snprintf(label, sizeof(label), "pool=\"%s\"", names[_i][2]);
	print(pool, BUFPOOL_PROMETHEUS);
	read_exposition(printed);
	check_samples(pool, label);
	bufpool_destroy(pool);
}
END_TEST

static const char *const bad_names[] = {
	"thirty-two bytes are one too many",
	"thirty-two bytes are too many...",
	"\x80",                 /* a byte from within */
	"\xc3",                 /* cut off */
	"\xe2\x82",
	"\xf0\x9f\x90 ",
	"\xc0\xaf",             /* longer than need be */
	"\xe0\x80\xaf",
	"\xf0\x80\x80\xaf",
	"\xed\xa0\x80",         /* half of a UTF-16 pair */
	"\xf4\x90\x80\x80",     /* beyond the last one */
	"\xff",
};

START_TEST(bad_names_are_refused)
{
	bufpool_config_t config = default_config;

	config.name = bad_names[_i];
	REFUSED(!bufpool_create(&config), EINVAL);
}
END_TEST

/* N counts pools. */
START_TEST(pools_are_numbered)
{
	for (unsigned n = 1; n <= 12; n++) {
		bufpool_t *pool = named_pool(n % 3 == 0 ? "other" : NULL);
		char name[32] = "other";
		uint64_t id;

		if (n % 3 != 0)
			snprintf(name, sizeof(name), "pool-%u", n);
		print(pool, BUFPOOL_JSON);
		json_pool(printed, pool, name, &id);
		ck_assert_uint_eq(id, n);
		bufpool_destroy(pool);
	}
}
END_TEST

/* -------------------------------------------------------------- which count */

static bool advises(const char *what)
{
	return strstr(printed, what) != NULL;
}

START_TEST(text_says_which_count)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_64K, 3);
	bufpool_buf_t *bufs[5];
	bufpool_t *pool;

	config.name = "few";
	config.heap_limit = 2 * 65536;
	pool = make_pool(config);
	/* What the class could not give is nothing that a count helps. */
	bufpool_return(bufpool_checkout_aligned(pool, 5000, 1 << 20));
	print(pool, BUFPOOL_TEXT);
	ck_assert(!advises("set"));
	ck_assert_uint_eq(bufpool_checkout_bulk(pool, 5000, bufs, 5), 5);
	print(pool, BUFPOOL_TEXT);
	ck_assert(advises("\nfew: class 64k went to the heap 3 times: "
	                  "set count[BUFPOOL_CLASS_64K] to 5, its peak\n"));
	ck_assert(!bufpool_checkout(pool, 5000));
	print(pool, BUFPOOL_TEXT);
	ck_assert(advises("set count[BUFPOOL_CLASS_64K] to at least 5,"));
	print(NULL, BUFPOOL_TEXT);
	ck_assert(advises("few: class 64k went to the heap 3 times"));
	bufpool_return_bulk(bufs, 5);
	bufpool_destroy(pool);
}
END_TEST

/* ------------------------------------------------------------------ all pools */

static const char *line_after(const char *at)
{
	return strchr(at, '\n') + 1;
}

START_TEST(no_pool_at_all)
{
	print(NULL, BUFPOOL_JSON);
	ck_assert_str_eq(printed, "[]\n");
	print(NULL, BUFPOOL_PROMETHEUS);
	read_exposition(printed);
	ck_assert_uint_eq(exposition.n, 0);
	print(NULL, BUFPOOL_TEXT);
	ck_assert_str_eq(line_after(printed), "");
}
END_TEST

/* Three of them have one name; by name they are printed, then by age. */
static struct {
	bufpool_t *pool;
	const char *name, *text, *labels;
} family[] = {
	{NULL, "twin", "twin #1 ", "pool=\"twin\",id=\"1\""},
	{NULL, "twin", "twin #2 ", "pool=\"twin\",id=\"2\""},
	{NULL, "zoe", "zoe ", "pool=\"zoe\""},
	{NULL, NULL, "pool-4 ", "pool=\"pool-4\""},
	{NULL, "abe", "abe ", "pool=\"abe\""},
	{NULL, "twin", "twin #6 ", "pool=\"twin\",id=\"6\""},
};
static const int by_age_and_name[] = {4, 3, 0, 1, 5, 2};

/* Each has something to tell from the others'. */
static void make_family(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(family); i++) {
		bufpool_config_t config = even_config(2 + i);
		bufpool_t *pool;

		config.name = family[i].name;
		pool = family[i].pool = make_pool(config);
		for (size_t n = 0; n <= i; n++)
			bufpool_return(bufpool_checkout(pool, PAGE << n));
	}
}

static void end_family(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(family); i++)
		bufpool_destroy(family[i].pool);
}

START_TEST(one_array)
{
	const char *at;

	make_family();
	print(NULL, BUFPOOL_JSON);
	at = json_char(printed, '[');
	for (size_t i = 0; i < ARRAY_SIZE(family); i++) {
		int n = by_age_and_name[i];
		uint64_t id;

		at = json_pool(at, family[n].pool,
		               family[n].name ? family[n].name : "pool-4", &id);
		ck_assert_uint_eq(id, n + 1);
		ck_assert_int_eq(json_more(&at), i + 1 < ARRAY_SIZE(family));
	}
	ck_assert_int_eq(*json_char(at, ']'), '\0');
	end_family();
}
END_TEST

START_TEST(one_exposition)
{
	make_family();
	print(NULL, BUFPOOL_PROMETHEUS);
	read_exposition(printed);
	for (size_t i = 0; i < ARRAY_SIZE(family); i++)
		check_samples(family[i].pool, family[i].labels);
	ck_assert_uint_eq(exposition.n, ARRAY_SIZE(family) * SAMPLES);
	end_family();
}
END_TEST

/* A line for each class of each pool, with all its figures. */
static const char *check_row(const char *at, int member, int k)
{
	bufpool_stats_t stats = stats_of(family[member].pool);
	const char *text = family[member].text;
	char *end;

	ck_assert_int_eq(strncmp(at, text, strlen(text)), 0);
	at += strlen(text);
	at += strspn(at, " ");
	ck_assert_int_eq(strncmp(at, classes[k].name, strlen(classes[k].name)),
	                 0);
	at += strlen(classes[k].name);
	for (size_t i = 0; i < ARRAY_SIZE(each); i++) {
		ck_assert_uint_eq(strtoull(at, &end, 10),
		                  value_of(&stats.per_class[k], &each[i]));
		at = end;
	}
	ck_assert_int_eq(*at, '\n');
	return at + 1;
}

START_TEST(one_table)
{
	const char *at = printed;

	make_family();
	print(NULL, BUFPOOL_TEXT);
	ck_assert_int_eq(strncmp(at, "pool ", 5), 0);
	for (size_t i = 0; i < ARRAY_SIZE(each); i++)
		ck_assert_ptr_nonnull(strstr(at, each[i].name));
	at = line_after(at);
	for (size_t i = 0; i < ARRAY_SIZE(family); i++)
		for (int k = 0; k < BUFPOOL_CLASSES; k++)
			at = check_row(at, by_age_and_name[i], k);
	ck_assert_str_eq(at, "");
	end_family();
}
END_TEST

/* What is not pooled and was not asked for has no line; but the pool has one. */
START_TEST(rows_of_what_there_is)
{
	bufpool_config_t config = class_config(BUFPOOL_CLASS_64K, 1);
	bufpool_t *pools[2];
	const char *at = printed;

	config.name = "one";
	pools[0] = make_pool(config);
	config = empty_config();
	config.name = "none";
	pools[1] = make_pool(config);
	print(NULL, BUFPOOL_TEXT);
	at = line_after(at);
	ck_assert_str_eq(line_after(line_after(at)), "");
	ck_assert_int_eq(strncmp(at, "none -\n", 7), 0);
	ck_assert_int_eq(strncmp(line_after(at), "one  64k ", 9), 0);
	bufpool_return(bufpool_checkout(pools[1], 2000000));
	print(NULL, BUFPOOL_TEXT);
	ck_assert_int_eq(strncmp(at, "none larger ", 12), 0);
	bufpool_destroy(pools[0]);
	bufpool_destroy(pools[1]);
}
END_TEST

START_TEST(destroyed_pools_are_not_shown)
{
	bufpool_t *pool = named_pool("gone"), *other = named_pool("there");
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	print(NULL, BUFPOOL_TEXT);
	ck_assert_ptr_nonnull(strstr(printed, "gone"));
	bufpool_destroy(pool);
	for (int i = 0; i < 2; i++) {
		for (int format = 0; format < 3; format++) {
			print(NULL, (enum bufpool_format) format);
			ck_assert_ptr_null(strstr(printed, "gone"));
			ck_assert_ptr_nonnull(strstr(printed, "there"));
		}
		bufpool_return(buf);
		buf = NULL;
	}
	bufpool_destroy(other);
}
END_TEST

/* ------------------------------------------------------- and others at work */

static void *live_a_life(void *arg)
{
	bufpool_t *pool = named_pool("short"), *old = arg;
	bufpool_buf_t *buf = bufpool_checkout(pool, 1);

	bufpool_destroy(pool);
	bufpool_return(buf);
	if (old)
		bufpool_destroy(old);
	return NULL;
}

/* A stream as slow as can be: it takes nothing before others have created pools and
   destroyed some, also one that is just being printed. */
static ssize_t write_slowly(void *cookie, const char *text, size_t n)
{
	bufpool_t **old = cookie;

	(void) text;
	run_thread(live_a_life, *old);
	live_a_life(NULL);
	*old = NULL;
	return (ssize_t) n;
}

START_TEST(slow_stream)
{
	bufpool_t *old = named_pool("old"), *pool = named_pool("pool");
	FILE *slow = fopencookie(&old, "w",
	                         (cookie_io_functions_t){.write = write_slowly});

	ck_assert_ptr_nonnull(slow);
	ck_assert_int_eq(bufpool_stats_print(NULL, slow, _i), 0);
	ck_assert_ptr_null(old);
	fclose(slow);
	destroy_whole(pool);
}
END_TEST

static atomic_bool over;

static void *live_many_lives(void *arg)
{
	while (!atomic_load(&over))
		live_a_life(NULL);
	return arg;
}

/* Each print is whole, and tells no pool twice. */
START_TEST(pools_come_and_go)
{
	bufpool_t *pool = named_pool("stays");
	pthread_t threads[3];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		threads[i] = start_thread(live_many_lives, NULL);
	for (long i = hunting(300); i > 0; i--) {
		print(NULL, BUFPOOL_PROMETHEUS);
		read_exposition(printed);
		ck_assert_uint_eq(exposition.n % SAMPLES, 0);
		check_samples(pool, "pool=\"stays\"");
	}
	atomic_store(&over, true);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		join_thread(threads[i]);
	destroy_whole(pool);
	print(NULL, BUFPOOL_JSON);
	ck_assert_str_eq(printed, "[]\n");
}
END_TEST

/* ---------------------------------------------------------- failed prints */

static const enum bufpool_format formats[] = {
	BUFPOOL_TEXT,
	BUFPOOL_JSON,
	BUFPOOL_PROMETHEUS,
};

static void print_to_full(const bufpool_t *pool, int buffering, size_t size,
                          enum bufpool_format format)
{
	FILE *full = fopen("/dev/full", "w");

	ck_assert_ptr_nonnull(full);
	ck_assert_int_eq(setvbuf(full, NULL, buffering, size), 0);
	REFUSED(bufpool_stats_print(pool, full, format) == -1, ENOSPC);
	fclose(full);
}

/* The loop index is the format. */
START_TEST(full_device)
{
	bufpool_t *pool = busy_pool();

	print_to_full(pool, _IONBF, 0, formats[_i]);
	print_to_full(pool, _IOLBF, 1 << 16, formats[_i]);
	print_to_full(pool, _IOFBF, 64, formats[_i]);
	print_to_full(pool, _IOFBF, 1 << 20, formats[_i]);
	print_to_full(NULL, _IONBF, 0, formats[_i]);
	end_busy_pool(pool);
}
END_TEST

START_TEST(bad_print_arguments)
{
	bufpool_t *pool = class_pool(BUFPOOL_CLASS_4K, 1);
	enum bufpool_format above = BUFPOOL_PROMETHEUS + 1, below = -1;
	FILE *null = fopen("/dev/null", "r");

	ck_assert_ptr_nonnull(null);
	REFUSED(bufpool_stats_print(pool, NULL, formats[_i]) == -1, EINVAL);
	REFUSED(bufpool_stats_print(NULL, NULL, formats[_i]) == -1, EINVAL);
	REFUSED(bufpool_stats_print(pool, null, above) == -1, EINVAL);
	REFUSED(bufpool_stats_print(pool, null, below) == -1, EINVAL);
	/* A stream to read from. */
	REFUSED(bufpool_stats_print(pool, null, formats[_i]) == -1, EBADF);
	fclose(null);
	bufpool_destroy(pool);
}
END_TEST

static Suite *print_suite(void)
{
	const int n = ARRAY_SIZE(formats);
	Suite *suite = suite_create("print");
	TCase *tcase = add_case(suite, "one", 10);

	tcase_add_test(tcase, text_names_every_class);
	tcase_add_test(tcase, json_holds_every_field);
	tcase_add_test(tcase, prometheus_holds_every_field);
	tcase_add_test(tcase, text_says_which_count);
	tcase_add_loop_test(tcase, names_are_quoted, 0, ARRAY_SIZE(names));
	tcase_add_loop_test(tcase, bad_names_are_refused, 0,
	                    ARRAY_SIZE(bad_names));
	tcase_add_test(tcase, pools_are_numbered);
	tcase_add_loop_test(tcase, full_device, 0, n);
	tcase_add_loop_test(tcase, bad_print_arguments, 0, n);

	tcase = add_case(suite, "all", 20);
	tcase_add_test(tcase, no_pool_at_all);
	tcase_add_test(tcase, one_array);
	tcase_add_test(tcase, one_exposition);
	tcase_add_test(tcase, one_table);
	tcase_add_test(tcase, rows_of_what_there_is);
	tcase_add_test(tcase, destroyed_pools_are_not_shown);
	tcase_add_loop_test(tcase, slow_stream, 0, n);
	tcase_add_test(tcase, pools_come_and_go);
	return suite;
}

int main(void)
{
	return run_suite(print_suite());
}
