/* SPDX-License-Identifier: MIT */
/*
 * uringcp_half.c - requests that do half of what they should, or nothing
 *
 * Linked with examples/uringcp, before whose requests it gets.  A file on a
 * healthy disk is read and written in one go; here three requests of four are
 * cut short, so that another has to go on from there, and one of three is
 * reported as interrupted, so that it has to be repeated.
 */
#include <errno.h>
#include <liburing.h>

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr);

static void cut_short(struct io_uring *ring)
{
	struct io_uring_sq *sq = &ring->sq;
	static unsigned count;

	for (unsigned i = sq->sqe_head; i != sq->sqe_tail; i++) {
		struct io_uring_sqe *sqe = &sq->sqes[i & sq->ring_mask];

		if (++count % 4 != 0 && sqe->len > 1)
			sqe->len /= 2;
	}
}

/* What was done is done again: that does no harm. */
static void interrupt(struct io_uring *ring)
{
	static unsigned count;
	struct io_uring_cqe *cqe;
	unsigned head;

	io_uring_for_each_cqe(ring, head, cqe)
	{
		if (++count % 3 == 0)
			cqe->res = count % 2 == 0 ? -EINTR : -EAGAIN;
	}
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait_nr)
{
	static unsigned calls;
	int rc;

	if (++calls % 5 == 0)
		return -EINTR;
	cut_short(ring);
	rc = __real_io_uring_submit_and_wait(ring, wait_nr);
	interrupt(ring);
	return rc;
}
