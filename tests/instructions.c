/* SPDX-License-Identifier: MIT */
/*
 * instructions.c - one kind of operation, over and over: instructions.sh counts
 *
 *     instructions OPERATION TIMES
 */
#include <bufpool.h>
#include <stdlib.h>
#include <string.h>

#define BULK 32

/* instructions.cc */
void cxx_checked(bufpool_t *pool);

static void nothing(bufpool_t *pool)
{
	(void) pool;
}

static void by_size(bufpool_t *pool)
{
	bufpool_return(bufpool_checkout(pool, 4096));
}

static void checked(bufpool_t *pool)
{
	bufpool_buf_t *buf = bufpool_checkout(pool, 4096);

	if (buf == NULL)
		abort();
	bufpool_return(buf);
}

static void by_class(bufpool_t *pool)
{
	bufpool_return(bufpool_checkout_4k(pool));
}

static void frozen(bufpool_t *pool)
{
	bufpool_frozen_unref(bufpool_freeze(bufpool_checkout_4k(pool)));
}

static void bulk(bufpool_t *pool)
{
	bufpool_buf_t *bufs[BULK];

	bufpool_return_bulk(bufs,
	                    bufpool_checkout_bulk(pool, 4096, bufs, BULK));
}

/* clang-format off */
static const struct {
	const char *name;
	void (*run)(bufpool_t *pool);
	size_t cache;
} operations[] = {
	{"nothing", nothing, 0},
	{"checkout", by_size, BUFPOOL_CACHE_AUTO},
	{"checked", checked, BUFPOOL_CACHE_AUTO},
	{"checkout_4k", by_class, BUFPOOL_CACHE_AUTO},
	{"frozen", frozen, BUFPOOL_CACHE_AUTO},
	{"bulk", bulk, BUFPOOL_CACHE_AUTO},
	{"depot", by_size, 0},
	{"depot-bulk", bulk, 0},
#ifdef WITH_CXX
	{"c++", cxx_checked, BUFPOOL_CACHE_AUTO},
#endif
};
/* clang-format on */

int main(int argc, char **argv)
{
	bufpool_config_t config = BUFPOOL_CONFIG_INIT;
	unsigned long times = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	bufpool_t *pool;

	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
		if (times == 0 || strcmp(argv[1], operations[i].name) != 0)
			continue;
		config.count[BUFPOOL_CLASS_4K] = 1024;
		config.cache[BUFPOOL_CLASS_4K] = operations[i].cache;
		config.wipe = BUFPOOL_WIPE_NONE;
		config.exhausted = BUFPOOL_FAIL;
		pool = bufpool_create(&config);
		if (pool == NULL)
			return 1;
		while (times-- > 0)
			operations[i].run(pool);
		bufpool_destroy(pool);
		return 0;
	}
	return 2;
}
