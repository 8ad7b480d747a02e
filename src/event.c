/* SPDX-License-Identifier: MIT */
/*
 * event.c - wait for buffers by a file descriptor; have nobody wait any more
 *
 * An event is a seat (demand.h) whose descriptor, an eventfd, is written to when it
 * is called.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "grow.h"
#include "misuse.h"
#include "registry.h"
#include "take.h"

/* The seat of a handle, which must be that of an event. */
static struct seat *seat_of(const char *call, const bufpool_event_t *event)
{
	struct seat *s = CK_CC_DECONST_PTR(event);
	uint64_t word = ck_pr_load_64(&s->word);

	if (CK_CC_UNLIKELY((word & (SEAT_TAKEN | SEAT_LEFT)) != SEAT_TAKEN ||
	                   s->fd < 0))
		bp_misuse(call, s, "the event is closed", NULL);
	return s;
}

/* Whether the process that opened it was another, of which this is a child. */
static bool is_foreign(const struct seat *s)
{
	registry_check();
	return s->life != s->pool->demand->life;
}

static bufpool_event_t *open_event(bufpool_t *pool, unsigned k)
{
	struct demand *q = pool->demand;
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct seat *s;

	if (fd < 0)
		return NULL;
	s = bp_seat_take(q, k, fd);
	if (s == NULL) {
		syscall(SYS_close, fd);
		errno = ENOMEM;
		return NULL;
	}
	s->pool = pool;
	ck_pr_inc_32(&q->events);
	return (bufpool_event_t *) s;
}

bufpool_event_t *bufpool_event_open(bufpool_t *pool, size_t size)
{
	int error = check_request(pool, size), saved = errno;
	unsigned k = bp_class_of(size);
	bufpool_event_t *event;

	registry_check();
	if (error == 0 && (k == BUFPOOL_CLASSES || pool->most[k] == 0))
		error = ENOBUFS;
	if (error != 0) {
		errno = error;
		return NULL;
	}
	event = open_event(pool, k);
	if (event != NULL)
		errno = saved;
	return event;
}

int bufpool_event_fd(const bufpool_event_t *event)
{
	if (event == NULL) {
		errno = EINVAL;
		return -1;
	}
	return seat_of("bufpool_event_fd", event)->fd;
}

/* No cancellation point, as read() is. */
static void make_unreadable(struct seat *s)
{
	uint64_t count;

	syscall(SYS_read, s->fd, &count, sizeof(count));
}

int bufpool_event_arm(bufpool_event_t *event)
{
	struct demand *q;
	struct seat *s;
	int saved = errno, error = 0;
	bool idle;

	if (event == NULL) {
		errno = EINVAL;
		return -1;
	}
	s = seat_of("bufpool_event_arm", event);
	if (is_foreign(s)) {
		errno = EPERM;
		return -1;
	}
	q = s->pool->demand;
	make_unreadable(s);
	bp_seat_announce(q, s->klass, s, bp_seat_ticket(q, s->klass));
	idle = !is_stopped(s->pool) && (bp_sees_idle(s->pool, s->klass) ||
	                                bp_may_grow(s->pool, s->klass));
	if (is_stopped(s->pool))
		error = ECANCELED;
	else if (!idle && bp_is_unheard(s->pool, s->klass))
		error = EPERM;
	if (idle || error != 0) {
		bp_seat_withdraw(q, s->klass, s);
		make_unreadable(s); /* what the look gathered may have called it */
	}
	errno = error != 0 ? error : saved;
	return error != 0 ? -1 : idle;
}

void bufpool_event_close(bufpool_event_t *event)
{
	int saved = errno;
	struct demand *q;
	struct seat *s;

	if (event == NULL)
		return;
	s = seat_of("bufpool_event_close", event);
	q = s->pool->demand;
	if (is_foreign(s)) {
		/* Its bench is not among the child's. */
		syscall(SYS_close, s->fd);
		s->fd = -1;
	} else {
		ck_pr_dec_32(&q->events);
		bp_seat_leave(q, s->klass, s);
	}
	errno = saved;
}

void bufpool_shutdown(bufpool_t *pool)
{
	if (pool == NULL)
		return;
	registry_check();
	ck_pr_store_uint(&pool->stopped, 1);
	/* Before the lists of caches and of who waits are read: who enters them
	   sees it otherwise. */
	ck_pr_fence_memory();
	bp_cache_divert_all(pool);
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		bp_demand_wake(pool->demand, k, UINT32_MAX);
}
