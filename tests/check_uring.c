/* SPDX-License-Identifier: MIT */
/*
 * check_uring.c - a region's index is what a request on its buffers has to name
 *
 * io_uring looks the addresses of a request up in the piece of registered memory
 * that it names, and refuses those that are not in it.  examples/uringcp has
 * buffers of one class only, hence one region; here are all.
 */
#include "common.h"

#include <liburing.h>
#include <sched.h>

#define EACH 2 /* buffers of each class: one not at offset 0 */
#define BUFS (EACH * BUFPOOL_CLASSES)

static const char text[] = "what is to be read";

static void *attach(void *arg, const bufpool_region_t *region)
{
	struct iovec memory = { region->base, region->len };
	int n = io_uring_register_buffers_update_tag(arg, region->index,
	                                             &memory, NULL, 1);

	errno = n < 0 ? -n : 0;
	return n == 1 ? NULL : BUFPOOL_ATTACH_FAILED;
}

/* Without privileges, what is registered is limited for all that a user runs:
   if other tests have it at the moment, wait. */
static bufpool_t *registered_pool(struct io_uring *ring)
{
	bufpool_config_t config = even_config(EACH);
	bufpool_t *pool;

	config.region_attach = attach;
	config.region_arg = ring;
	while (!(pool = bufpool_create(&config)) && errno == ENOMEM)
		sched_yield();
	must(pool);
	return pool;
}

/* Read the text as one from the memory of that index; what io_uring says. */
static int read_fixed(struct io_uring *ring, int fd, bufpool_buf_t *buf,
                      unsigned index)
{
	struct io_uring_cqe *cqe;
	int result;

	io_uring_prep_read_fixed(io_uring_get_sqe(ring), fd, buf->data,
	                         (unsigned) buf->len, 0, (int) index);
	must(io_uring_submit(ring) == 1);
	must(io_uring_wait_cqe(ring, &cqe) == 0);
	result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

START_TEST(reads_into_the_region_that_is_named)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	bufpool_buf_t *bufs[BUFS];
	struct io_uring ring;
	bufpool_t *pool;
	unsigned index;

	must(fd >= 0 && write(fd, text, sizeof(text)) == sizeof(text));
	must(io_uring_queue_init(1, &ring, 0) == 0);
	must(io_uring_register_buffers_sparse(&ring, BUFPOOL_CLASSES) == 0);
	pool = registered_pool(&ring);
	for (unsigned i = 0; i < BUFS; i++) {
		bufs[i] = bufpool_try_checkout(pool, classes[i / EACH].size);
		must(bufs[i]);
		must(bufpool_buf_region(bufs[i], &index, NULL) == 0);
		for (unsigned j = 0; j < BUFPOOL_CLASSES; j++)
			if (j != index)
				ck_assert_int_eq(
					read_fixed(&ring, fd, bufs[i], j),
					-EFAULT);
		must(is_zero(bufs[i]));
		ck_assert_int_eq(read_fixed(&ring, fd, bufs[i], index),
		                 (int) sizeof(text));
		ck_assert_str_eq(bufs[i]->data, text);
	}
	bufpool_return_bulk(bufs, BUFS);
	bufpool_destroy(pool);
	io_uring_queue_exit(&ring);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("uring");
	TCase *tcase = add_case(suite, "fixed", 20);
	struct io_uring ring;
	int rc = io_uring_queue_init(1, &ring, 0);

	if (rc == 0) {
		rc = io_uring_register_buffers_sparse(&ring, 1);
		io_uring_queue_exit(&ring);
	}
	if (rc < 0) {
		printf("skipped: io_uring: %s\n", strerror(-rc));
		return 77;
	}
	tcase_add_test(tcase, reads_into_the_region_that_is_named);
	return run_suite(suite);
}
