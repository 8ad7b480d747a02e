/* SPDX-License-Identifier: MIT */
#include "demand.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPAN_LEAST 64
#define SPAN_MOST 16384
#define WORTH_WHILE 8 /* hits a take, or scarcity lasts longer next time */

static size_t demand_len(unsigned places)
{
	return sizeof(struct demand) +
	       places * BUFPOOL_CLASSES * sizeof(struct want);
}

/* Some seats, which stay until the demand goes; while they are free they cost who
   calls a look at a word. */
struct bench {
	struct bench *next; /* never changes */
	uint64_t taken;     /* a bit for each seat */
	struct seat seat[64];
};

_Static_assert(sizeof(struct bench) <= PAGE, "see bench_of()");

void bp_demand_reset(struct demand *q, unsigned refs)
{
	q->refs = refs;
	bp_roster_clear(&q->roster);
	q->life++;
	q->events = 0;
	/* The benches are left alone: events of the parent's are there. */
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		memset(&q->klass[k], 0, sizeof(q->klass[k]));
	for (unsigned i = 0; i < q->places * BUFPOOL_CLASSES; i++)
		q->want[i] = (struct want){ .span = SPAN_LEAST };
}

struct demand *bp_demand_new(unsigned places)
{
	struct demand *q = bp_map(demand_len(places));

	if (q == NULL)
		return NULL;
	q->places = places;
	bp_demand_reset(q, 1);
	return q;
}

void bp_demand_ref(struct demand *q)
{
	ck_pr_inc_uint(&q->refs);
}

void bp_demand_unref(struct demand *q)
{
	ck_pr_fence_release(); /* our use of it before another's free */
	if (ck_pr_faa_uint(&q->refs, -1u) != 1)
		return;
	ck_pr_fence_acquire();
	for (unsigned k = 0; k < BUFPOOL_CLASSES; k++)
		while (q->klass[k].benches != NULL) {
			struct bench *b = q->klass[k].benches;

			q->klass[k].benches = b->next;
			bp_unmap(b, sizeof(*b));
		}
	bp_roster_release(&q->roster);
	bp_unmap(q, demand_len(q->places));
}

/* --------------------------------------------------------------- scarcity */

uint64_t bp_demand_declare(struct want *w, bool *first)
{
	uint64_t was = ck_pr_load_64(&w->scarce);

	*first = false;
	while ((was & SCARCE) == 0) {
		uint64_t now = was + SCARCE_COUNT + SCARCE;

		*first = ck_pr_cas_64_value(&w->scarce, was, now, &was);
		if (*first)
			was = now;
	}
	ck_pr_fence_memory(); /* before anything of the caches is read */
	return was;
}

void bp_demand_adapt(struct want *w, uint64_t hits)
{
	/* Nothing depends on these but how long it lasts.  Less than none:
	   threads have left. */
	int64_t served = (int64_t) (hits - ck_pr_load_64(&w->hits));
	uint32_t span = ck_pr_load_32(&w->span);

	if (served < (int64_t) span * WORTH_WHILE)
		span = span < SPAN_MOST ? 2 * span : span;
	else
		span = span > SPAN_LEAST ? span / 2 : span;
	ck_pr_store_64(&w->hits, hits);
	ck_pr_store_32(&w->span, span);
	ck_pr_store_32(&w->takes, 0);
}

void bp_demand_trust(struct want *w, uint64_t word)
{
	if ((word & TRUSTED) == 0)
		ck_pr_cas_64(&w->scarce, word, word | TRUSTED);
}

void bp_demand_taken(struct demand *q, struct want *w, unsigned k)
{
	uint64_t was = ck_pr_load_64(&w->scarce);

	if ((was & SCARCE) == 0 || ck_pr_load_32(&q->klass[k].waiters) != 0 ||
	    ck_pr_faa_32(&w->takes, 1) < ck_pr_load_32(&w->span))
		return;
	/* Counted too, so that the word only grows: stamps are sums of it. */
	if (!ck_pr_cas_64(&w->scarce, was,
	                  (was & ~(uint64_t) (SCARCE | TRUSTED)) +
	                          SCARCE_COUNT))
		return;
	ck_pr_store_32(&w->takes, 0); /* the next one is to last, too */
	ck_pr_fence_memory(); /* see the header */
	if (ck_pr_load_32(&q->klass[k].waiters) != 0)
		bp_demand_wake(q, k, INT32_MAX);
}

/* ------------------------------------------------------------------ seats */

static struct bench *bench_of(struct seat *s)
{
	return (struct bench *) ((uintptr_t) s & ~(uintptr_t) (PAGE - 1));
}

static struct seat *take_on(struct bench *b)
{
	uint64_t was = ck_pr_load_64(&b->taken);

	while (was != UINT64_MAX)
		if (ck_pr_cas_64_value(&b->taken, was, was | (was + 1), &was)) {
			ck_pr_fence_acquire(); /* after its last user's */
			return &b->seat[__builtin_ctzll(~was)];
		}
	return NULL;
}

/* One more, of which the caller has a seat already. */
static struct seat *take_on_new(struct bench **benches)
{
	struct bench *b = bp_map(sizeof(*b)), *first = ck_pr_load_ptr(benches);

	if (b == NULL)
		return NULL;
	b->taken = 1;
	do {
		b->next = first;
		ck_pr_fence_release(); /* all of it before it can be seen */
	} while (!ck_pr_cas_ptr_value(benches, first, b, &first));
	return &b->seat[0];
}

struct seat *bp_seat_take(struct demand *q, unsigned k, int fd)
{
	struct bench **benches = &q->klass[k].benches;
	struct bench *b = ck_pr_load_ptr(benches);
	struct seat *s = NULL;
	int saved = errno;

	for (; b != NULL && s == NULL; b = b->next)
		s = take_on(b);
	if (s == NULL)
		s = take_on_new(benches);
	errno = saved;
	if (s == NULL)
		return NULL;
	s->klass = k;
	s->life = q->life;
	s->fd = fd;
	ck_pr_store_64(&s->word, SEAT_TAKEN);
	return s;
}

/* Nobody has it in hand any more.  No cancellation point, as close() is. */
static void free_seat(struct seat *s)
{
	struct bench *b = bench_of(s);

	if (s->fd >= 0)
		syscall(SYS_close, s->fd);
	ck_pr_store_64(&s->word, 0);
	ck_pr_fence_release(); /* before it is another's */
	ck_pr_and_64(&b->taken, ~(UINT64_C(1) << (s - b->seat)));
}

void bp_seat_leave(struct demand *q, unsigned k, struct seat *s)
{
	uint64_t was = ck_pr_load_64(&s->word);

	while (!ck_pr_cas_64_value(
		&s->word, was, (was & SEAT_HANDS) | SEAT_TAKEN | SEAT_LEFT,
		&was))
		;
	if ((was & SEAT_HANDS) == 0)
		free_seat(s);
	if ((was & SEAT_TICKET) != 0)
		ck_pr_dec_32(&q->klass[k].waiters);
	if ((was & SEAT_CALLED) != 0)
		bp_demand_wake(q, k, 1);
}

uint32_t bp_seat_ticket(struct demand *q, unsigned k)
{
	uint32_t ticket;

	do
		ticket = ck_pr_faa_32(&q->klass[k].tickets, 1) + 1;
	while (ticket == 0);
	return ticket;
}

void bp_seat_announce(struct demand *q, unsigned k, struct seat *s,
                      uint32_t ticket)
{
	uint64_t was = ck_pr_load_64(&s->word);
	bool done = false;

	ck_pr_inc_32(&q->klass[k].waiters); /* before there is one */
	while (!done && (was & SEAT_TICKET) == 0)
		done = ck_pr_cas_64_value(&s->word, was,
		                          (was & ~SEAT_CALLED) | ticket, &was);
	if (!done)
		ck_pr_dec_32(&q->klass[k].waiters);
	ck_pr_fence_memory(); /* before anything is looked at */
}

void bp_seat_withdraw(struct demand *q, unsigned k, struct seat *s)
{
	uint64_t was = ck_pr_load_64(&s->word);

	while ((was & SEAT_TICKET) != 0)
		if (ck_pr_cas_64_value(&s->word, was,
		                       (was & ~(uint64_t) SEAT_TICKET) |
		                               SEAT_CALLED,
		                       &was)) {
			ck_pr_dec_32(&q->klass[k].waiters);
			return;
		}
}

/* Where the futex is: in the half of the word that has the ticket. */
static uint32_t *ticket_of(struct seat *s)
{
	return (uint32_t *) &s->word +
	       (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 1 : 0);
}

void bp_seat_sleep(struct seat *s, uint32_t ticket,
                   const struct timespec *deadline)
{
	/* Where futex() is refused the waiter looks again and again. */
	syscall(SYS_futex, ticket_of(s), FUTEX_WAIT_BITSET_PRIVATE, ticket,
	        deadline, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* ---------------------------------------------------------------- calling */

/* Who is announced with a ticket of less than this age, the oldest of them. */
struct call {
	uint32_t now, age;
	struct seat *seat;
	uint64_t word; /* as it was seen */
};

static void look_along(struct bench *b, struct call *c, uint32_t below)
{
	uint64_t taken = ck_pr_load_64(&b->taken);

	for (; taken != 0; taken &= taken - 1) {
		struct seat *s = &b->seat[__builtin_ctzll(taken)];
		uint64_t word = ck_pr_load_64(&s->word);
		uint32_t ticket = word & SEAT_TICKET, age = c->now - ticket;

		if (ticket != 0 && age < below &&
		    (c->seat == NULL || age > c->age))
			*c = (struct call){ c->now, age, s, word };
	}
}

/* Call the one who came first of those who came after the one who was called last;
   it is in hand then.  False if there is none. */
static bool call_next(struct demand *q, unsigned k, struct call *c)
{
	uint32_t below = c->age;

	for (;;) {
		struct bench *b = ck_pr_load_ptr(&q->klass[k].benches);

		c->seat = NULL;
		for (; b != NULL; b = b->next)
			look_along(b, c, below);
		if (c->seat == NULL)
			return false;
		if (ck_pr_cas_64(&c->seat->word, c->word,
		                 ((c->word & ~(uint64_t) SEAT_TICKET) |
		                  SEAT_CALLED) + SEAT_HAND))
			break;
	}
	ck_pr_dec_32(&q->klass[k].waiters);
	return true;
}

/* No cancellation point either. */
static void ring(struct seat *s)
{
	const uint64_t one = 1;

	if (s->fd >= 0)
		syscall(SYS_write, s->fd, &one, sizeof(one));
	else
		syscall(SYS_futex, ticket_of(s), FUTEX_WAKE_PRIVATE, 1);
}

static void out_of_hand(struct seat *s)
{
	uint64_t word;

	ck_pr_fence_release(); /* what was done with it, before it is free */
	word = ck_pr_faa_64(&s->word, -SEAT_HAND) - SEAT_HAND;
	if ((word & SEAT_LEFT) == 0 || (word & SEAT_HANDS) != 0)
		return;
	ck_pr_fence_acquire();
	free_seat(s);
}

void bp_demand_wake(struct demand *q, unsigned k, unsigned n)
{
	/* Who comes from now on has looked after this. */
	struct call c = { .now = ck_pr_load_32(&q->klass[k].tickets),
		          .age = INT32_MAX };
	int saved = errno;

	for (; n > 0 && call_next(q, k, &c); n--) {
		ring(c.seat);
		out_of_hand(c.seat);
	}
	errno = saved;
}
