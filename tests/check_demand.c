/* SPDX-License-Identifier: MIT */
/*
 * check_demand.c - how long a class is scarce, and who is woken for it
 *
 * Linked with the library's objects, to look at what it goes by, and to set it.
 */
#include "common.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <ucontext.h>

#undef PAGE /* the library has its own */
#include "stack.h"
#include "thread.h"

enum { K = BUFPOOL_CLASS_4K, FEW = 8, LEAST = 64, MOST = 16384, WORTH = 8 };

static bufpool_t *pool;
static struct want *want;

static void make(size_t count)
{
	bufpool_config_t config = class_config(K, count);

	set_cache(&config, 4);
	pool = make_pool(config);
	want = want_of(pool->demand, 0, K);
	ck_assert(!is_scarce(want));
}

static void exhaust(void)
{
	bufpool_buf_t *bufs[FEW + 1];

	ck_assert_uint_eq(drain(pool, K, bufs, FEW + 1), FEW);
	ck_assert(is_scarce(want) && is_trusted(want));
	ck_assert_uint_eq(want->takes, 0);
	bufpool_return_bulk(bufs, FEW);
	ck_assert_uint_eq(cached_in(pool), 0);
}

static void take_and_return(void)
{
	bufpool_buf_t *buf = bufpool_try_checkout(pool, 1);

	must(buf);
	bufpool_return(buf);
}

/* ---------------------------------------------------------------- its length */

/* As many takes as it lasts, and one. */
static void until_plentiful(uint32_t span)
{
	ck_assert_uint_eq(want->span, span);
	for (uint32_t i = 0; i <= span; i++) {
		must(is_scarce(want));
		must(cached_in(pool) == 0);
		take_and_return();
	}
	ck_assert(!is_scarce(want) && !is_trusted(want));
	take_and_return();
	ck_assert_uint_gt(cached_in(pool), 0);
}

START_TEST(span_adapts)
{
	uint32_t span = LEAST;

	make(FEW);
	ck_assert_uint_eq(want->span, span);
	/* Of no use is it to end it. */
	for (int i = 0; i < 10; i++) {
		exhaust();
		span = span < MOST ? 2 * span : MOST;
		until_plentiful(span);
	}
	ck_assert_uint_eq(span, MOST);
	/* It is, and just so. */
	for (int i = 0; i < 10; i++) {
		uint64_t served = bp_thread_cache(pool)->fast.magazine[K].hits;

		served -= want->hits;
		for (; served < (uint64_t) span * WORTH; served++)
			take_and_return();
		exhaust();
		span = span > LEAST ? span / 2 : LEAST;
		until_plentiful(span);
	}
	ck_assert_uint_eq(span, LEAST);
	bufpool_thread_flush(pool);
	destroy_whole(pool);
}
END_TEST

/* Threads that leave take with them what their caches have served: that tells nothing
   of what the others have. */
START_TEST(leavers_do_not_shorten_it)
{
	make(FEW);
	bp_demand_adapt(want, 1000000);
	ck_assert_uint_eq(want->span, LEAST);
	bp_demand_adapt(want, 1000);
	ck_assert_uint_eq(want->span, 2 * LEAST);
	destroy_whole(pool);
}
END_TEST

/* A failure has it last as long as if it began then. */
START_TEST(failures_prolong_it)
{
	bufpool_buf_t *bufs[FEW + 1];

	make(FEW);
	exhaust();
	for (int i = 0; i < 3; i++) {
		for (uint32_t n = 0; n < want->span; n++)
			take_and_return();
		ck_assert(is_scarce(want));
		bufpool_thread_flush(pool);
		want->takes = 0;
		ck_assert_uint_eq(drain(pool, K, bufs, FEW + 1), FEW);
		ck_assert_uint_eq(want->takes, 0);
		bufpool_return_bulk(bufs, FEW);
	}
	/* It is not declared anew by that. */
	until_plentiful(2 * LEAST);
	bufpool_thread_flush(pool);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------ trust */

START_TEST(trust_is_for_one_declaration)
{
	struct demand *q = bp_demand_new(1);
	struct want *w = want_of(q, 0, K);
	uint64_t word, again;
	bool first;

	word = bp_demand_declare(w, &first);
	ck_assert(first && is_scarce(w));
	ck_assert_uint_eq(bp_demand_declare(w, &first), word);
	ck_assert(!first);
	w->takes = w->span;
	bp_demand_taken(q, w, K);
	ck_assert(!is_scarce(w));
	bp_demand_trust(w, word);
	ck_assert_uint_eq(w->scarce & (SCARCE | TRUSTED), 0);
	again = bp_demand_declare(w, &first);
	ck_assert(first && again != word);
	bp_demand_trust(w, word);
	ck_assert_uint_eq(w->scarce & TRUSTED, 0);
	bp_demand_trust(w, again);
	ck_assert_uint_eq(w->scarce & TRUSTED, TRUSTED);
	/* With a waiter it does not end. */
	q->klass[K].waiters = 1;
	w->takes = w->span;
	bp_demand_taken(q, w, K);
	ck_assert(is_scarce(w));
	bp_demand_unref(q);
}
END_TEST

/* Nobody trusts while a thread may have some in its hands; tries fail all the
   same, in time. */
START_TEST(movers_are_not_trusted)
{
	bufpool_buf_t *bufs[FEW + 1];
	struct sleeper s;
	struct walk walk;
	struct cache *c;

	make(FEW);
	put_to_sleep(&s, pool, 1);
	walk = walk_caches(pool, BERTHS_TAKEN);
	c = bp_walk_next(&walk);
	c->moving = 1u << K;
	ck_assert_uint_eq(drain(pool, K, bufs, FEW + 1), FEW);
	ck_assert(is_scarce(want) && !is_trusted(want));
	ck_assert(!bufpool_try_checkout(pool, 1));
	ck_assert(!is_trusted(want));
	c->moving = 1u << BUFPOOL_CLASS_64K; /* what is that to us */
	ck_assert(!bufpool_try_checkout(pool, 1));
	ck_assert(is_trusted(want));
	c->moving = 0;
	bufpool_return_bulk(bufs, FEW);
	wake_up(&s);
	destroy_whole(pool);
}
END_TEST

/* ---------------------------------------------------------------- waiters */

struct waiter {
	pthread_t thread;
	atomic_int tid;
};

static void *wait_for_one(void *arg)
{
	struct waiter *waiter = arg;
	bufpool_buf_t *buf;

	waiter->tid = (int) syscall(SYS_gettid);
	buf = bufpool_checkout_wait(pool, 1, NULL);
	must(buf);
	return buf;
}

static void until_asleep(struct waiter *waiter)
{
	while (ck_pr_load_32(&pool->demand->klass[K].waiters) == 0 ||
	       !is_asleep(waiter->tid))
		usleep(100);
}

static void start_waiter(struct waiter *waiter)
{
	waiter->tid = 0;
	waiter->thread = start_thread(wait_for_one, waiter);
}

static bufpool_buf_t *end_waiter(const struct waiter *waiter)
{
	void *buf;

	must(pthread_join(waiter->thread, &buf) == 0);
	return buf;
}

enum state { PLENTIFUL, IS_SCARCE, IS_TRUSTED, STATES };

static void set_state(enum state state)
{
	static const uint64_t bits[] = {0, SCARCE, SCARCE | TRUSTED};
	uint64_t word = want->scarce & ~(uint64_t) (SCARCE | TRUSTED);
	struct walk walk = walk_caches(pool, BERTHS_TAKEN);
	struct cache *c;

	ck_pr_store_64(&want->scarce, word + SCARCE_COUNT + bits[state]);
	/* Who declares it has every cache hear of it. */
	while (bits[state] && (c = bp_walk_next(&walk)) != NULL)
		ck_pr_store_8(&c->fast.alarm, 1);
	ck_pr_fence_memory();
}

/* Into this thread's cache, which must have been plentiful for that. */
static void hide(bufpool_buf_t *buf, enum state state)
{
	set_state(PLENTIFUL);
	bufpool_return(buf);
	must(cached_in(pool) == 1);
	set_state(state);
}

static void by_return(bufpool_buf_t *buf, enum state state)
{
	set_state(state);
	bufpool_return(buf);
}

static void by_unref(bufpool_buf_t *buf, enum state state)
{
	set_state(state);
	bufpool_frozen_unref(bufpool_freeze(buf));
}

static void by_flush(bufpool_buf_t *buf, enum state state)
{
	hide(buf, state);
	bufpool_thread_flush(NULL);
}

static void by_trim(bufpool_buf_t *buf, enum state state)
{
	hide(buf, state);
	/* As many bytes, or none where the waiter is the quicker one. */
	must(bufpool_trim(pool) <= PAGE);
}

static enum state state_at_exit;

static void *hide_and_exit(void *buf)
{
	hide(buf, state_at_exit);
	return NULL;
}

static void by_exit(bufpool_buf_t *buf, enum state state)
{
	state_at_exit = state;
	run_thread(hide_and_exit, buf);
}

static const struct {
	void (*wake)(bufpool_buf_t *buf, enum state state);
	bool caches; /* what is not scarce */
} wakers[] = {
	{by_return, true}, {by_unref, true}, {by_flush, false},
	{by_trim, false},  {by_exit, false},
};

/* Scarcity has not ended unheard, see below; what is trusted trim finds in no
   cache. */
static bool can_be(int by, enum state at)
{
	return at == PLENTIFUL ? !wakers[by].caches
	                       : at != IS_TRUSTED || wakers[by].wake != by_trim;
}

/* What it is when the waiter comes, and when it is woken. */
static void check_waking(int by, enum state before, enum state at)
{
	bufpool_buf_t *bufs[2];
	struct waiter waiter;

	make(2);
	bufs[0] = bufpool_checkout(pool, 1);
	bufs[1] = bufpool_checkout(pool, 1);
	set_state(before);
	start_waiter(&waiter);
	until_asleep(&waiter);
	ck_assert(is_scarce(want) && is_trusted(want));
	wakers[by].wake(bufs[0], at);
	bufs[0] = end_waiter(&waiter);
	ck_assert_uint_eq(pool->demand->klass[K].waiters, 0);
	bufpool_return_bulk(bufs, 2);
	destroy_whole(pool);
}

/* The loop index is the way. */
START_TEST(waiters_are_woken)
{
	for (int before = PLENTIFUL; before < STATES; before++)
		for (int at = PLENTIFUL; at < STATES; at++)
			if (can_be(_i, at))
				check_waking(_i, before, at);
}
END_TEST

/* Of what was given and taken, each in one step. */
static uint64_t changes_of(const struct depot *depot)
{
	uint64_t n = 0;

	for (unsigned i = 0; i <= depot->shards; i++)
		n += ck_pr_load_64(&depot->shard[i].head) >> STACK_BITS;
	return n;
}

/* As long as others wait, who is woken takes one and puts none back, which would wake
   each of them for each. */
START_TEST(woken_takes_one)
{
	struct bp_buf *all[FEW];
	struct waiter waiter;
	struct depot *depot;
	bufpool_buf_t *buf;
	uint64_t changes;

	make(FEW);
	depot = pool_depot(pool, 0, K);
	must(bp_depot_take(depot, 0, all, FEW) == FEW);
	start_waiter(&waiter);
	until_asleep(&waiter);
	ck_pr_inc_32(&pool->demand->klass[K].waiters); /* another */
	must(bp_depot_give(depot, 0, all, FEW) == 0);
	changes = changes_of(depot);
	bp_demand_wake(pool->demand, K, 1);
	buf = end_waiter(&waiter);
	ck_assert_uint_eq(changes_of(depot), changes + 1);
	ck_assert_uint_eq(cached_in(pool), 0);
	ck_pr_dec_32(&pool->demand->klass[K].waiters);
	bufpool_return(buf);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------------- seats */

static bufpool_event_t *open_event(void)
{
	bufpool_event_t *event = bufpool_event_open(pool, 1);

	must(event);
	return event;
}

static bool is_told(const bufpool_event_t *event)
{
	struct pollfd at = {.fd = bufpool_event_fd(event), .events = POLLIN};

	return poll(&at, 1, 0) == 1;
}

/* Nobody waits: a return has nothing to look for. */
static bool nobody_waits(void)
{
	return pool->demand->klass[K].waiters == 0;
}

/* More than a bench has; and tickets that begin anew. */
enum { GUESTS = 300 };

START_TEST(seats_and_tickets)
{
	bufpool_event_t *events[GUESTS];
	bufpool_buf_t *bufs[FEW + 1];
	struct seat *seat;

	make(FEW);
	ck_assert_uint_eq(drain(pool, K, bufs, FEW + 1), FEW);
	pool->demand->klass[K].tickets = UINT32_MAX - GUESTS / 2;
	for (int i = 0; i < GUESTS; i++) {
		events[i] = open_event();
		ck_assert(nobody_waits());
	}
	for (int i = 0; i < GUESTS; i++)
		must(bufpool_event_arm(events[i * 7 % GUESTS]) == 0);
	ck_assert_uint_eq(pool->demand->klass[K].waiters, GUESTS);
	for (int i = 0; i < GUESTS; i++) {
		bufpool_event_t *next = events[i * 7 % GUESTS];

		must(!is_told(next));
		bufpool_return(bufs[0]);
		must(is_told(next));
		bufs[0] = bufpool_try_checkout(pool, 1);
	}
	ck_assert(nobody_waits());
	for (int i = 0; i < GUESTS; i++) {
		must(bufpool_event_arm(events[i]) == 0);
		bufpool_event_close(events[i]);
	}
	ck_assert(nobody_waits());
	ck_assert_uint_eq(pool->demand->events, 0);
	bufpool_return_bulk(bufs, FEW);
	/* Seats are free again. */
	seat = bp_seat_take(pool->demand, K, -1);
	for (int i = 0; i < GUESTS; i++) {
		bp_seat_leave(pool->demand, K, seat);
		must(bp_seat_take(pool->demand, K, -1) == seat);
	}
	bp_seat_leave(pool->demand, K, seat);
	/* Not armed where one is idle. */
	events[0] = open_event();
	must(bufpool_event_arm(events[0]) == 1);
	ck_assert(nobody_waits());
	bufpool_event_close(events[0]);
	destroy_whole(pool);
}
END_TEST

/* ------------------------------------------------------------ at any moment */

#if defined(__x86_64__)

/*
 * What must hold whenever others come: they come after each instruction of a call
 * in turn, by the CPU's trap flag.
 */
static struct {
	long steps, at;
	void (*act)(void);
} walk;

static void on_step(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	int saved = errno;

	(void) sig;
	(void) info;
	if (walk.steps++ < walk.at)
		return;
	walk.act();
	uc->uc_mcontext.gregs[REG_EFL] &= ~0x100; /* the rest in one go */
	errno = saved;
}

/* False if the call has not so many instructions. */
static bool act_within(void (*call)(void), void (*act)(void), long at)
{
	const struct sigaction on = {.sa_sigaction = on_step,
	                             .sa_flags = SA_SIGINFO};

	must(sigaction(SIGTRAP, &on, NULL) == 0);
	walk.steps = 0;
	walk.at = at;
	walk.act = act;
	__asm__ __volatile__("pushfq\n\torq $0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	call();
	__asm__ __volatile__("pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq" ::
		                     : "memory", "cc");
	return walk.steps > at;
}

static long stride(void)
{
	return is_scale("full") ? 1 : is_small() ? 37 : 19;
}

/*
 * A thread ends a scarcity, by a take, and a waiter comes.  Then a buffer is
 * returned, which goes to the returner's cache if the class is not scarce: the
 * waiter must have been woken, and have looked there, or do so now.
 */
static struct waiter late;

static void take_ends_it(void)
{
	bp_demand_taken(pool->demand, want, K);
}

static void waiter_comes(void)
{
	start_waiter(&late);
	until_asleep(&late);
}

START_TEST(end_wakes_waiters)
{
	bufpool_buf_t *bufs[2];
	long at = 0;

	if (is_valgrind())
		return;
	make(2);
	bufs[0] = bufpool_checkout(pool, 1);
	bufs[1] = bufpool_checkout(pool, 1);
	for (;; at++) {
		must(!bufpool_try_checkout(pool, 1));
		must(is_trusted(want));
		want->takes = want->span;
		if (!act_within(take_ends_it, waiter_comes, at))
			break;
		bufpool_return(bufs[0]);
		bufs[0] = end_waiter(&late);
	}
	ck_assert_int_gt(at, 10);
	bufpool_return_bulk(bufs, 2);
	bufpool_thread_flush(pool);
	destroy_whole(pool);
}
END_TEST

/*
 * An event that is armed while a buffer comes home, the one amid the other: it is
 * told, or told that there is one.  The loop index: which is amid which.
 */
static bufpool_event_t *event;
static bufpool_buf_t *returned;
static int armed;

static void arm_it(void)
{
	armed = bufpool_event_arm(event);
}

static void return_it(void)
{
	bufpool_return(returned);
}

static void *arm_thread(void *arg)
{
	arm_it();
	return arg;
}

static void another_arms(void)
{
	run_thread(arm_thread, NULL);
}

static void another_returns(void)
{
	return_elsewhere(returned);
}

START_TEST(armed_amid_a_return)
{
	bufpool_buf_t *bufs[2];
	long at = 0;

	if (is_valgrind())
		return;
	make(2);
	event = open_event();
	for (bool acted = true; acted; at += stride()) {
		for (int i = 0; i < 2; i++)
			bufs[i] = bufpool_try_checkout(pool, 1);
		must(bufs[0] && bufs[1]);
		must(!bufpool_try_checkout(pool, 1));
		/* Not only where it is scarce at first. */
		if (at % 2)
			set_state(PLENTIFUL);
		returned = bufs[0];
		acted = _i ? act_within(arm_it, another_returns, at)
		           : act_within(return_it, another_arms, at);
		if (!acted && !_i)
			another_arms();
		if (!acted && _i)
			another_returns();
		must(armed == 1 || (armed == 0 && is_told(event)));
		bufpool_return(bufs[1]);
		bufpool_thread_flush(pool);
	}
	ck_assert_int_gt(at, 100);
	bufpool_event_close(event);
	ck_assert(nobody_waits());
	destroy_whole(pool);
}
END_TEST

/*
 * Two are called at once, and the first announces itself anew, at any moment: it is
 * not called for the second.
 */
static struct seat *first_seat, *second_seat;
static uint32_t first_ticket;

static void call_both(void)
{
	bp_demand_wake(pool->demand, K, 2);
}

static void first_comes_again(void)
{
	bp_seat_announce(pool->demand, K, first_seat, first_ticket);
}

START_TEST(called_once_each)
{
	struct demand *q;
	long at = 0;

	if (is_valgrind())
		return;
	make(1);
	q = pool->demand;
	for (bool acted = true; acted; at++) {
		first_seat = bp_seat_take(q, K, -1);
		second_seat = bp_seat_take(q, K, -1);
		first_ticket = bp_seat_ticket(q, K);
		bp_seat_announce(q, K, second_seat, bp_seat_ticket(q, K));
		bp_seat_announce(q, K, first_seat, first_ticket);
		acted = act_within(call_both, first_comes_again, at);
		must(second_seat->word == (SEAT_TAKEN | SEAT_CALLED));
		bp_seat_leave(q, K, first_seat);
		bp_seat_leave(q, K, second_seat);
		ck_assert(nobody_waits());
	}
	ck_assert_int_gt(at, 50);
	destroy_whole(pool);
}
END_TEST

/*
 * An event that is closed while a return has it in its hands: what comes to be
 * at its descriptor's number is not written to, and it is closed in the end.
 */
static int number, stranger;

static void *close_thread(void *arg)
{
	bufpool_event_close(event);
	stranger = eventfd(0, EFD_NONBLOCK);
	must(stranger >= 0);
	return arg;
}

static void another_closes(void)
{
	run_thread(close_thread, NULL);
}

START_TEST(closed_amid_a_return)
{
	long at = 0, reused = 0;

	if (is_valgrind())
		return;
	make(1);
	for (bool acted = true; acted; at += stride()) {
		bufpool_event_t *next;
		uint64_t count;

		event = open_event();
		next = open_event();
		number = bufpool_event_fd(event);
		returned = bufpool_try_checkout(pool, 1);
		must(returned);
		must(bufpool_event_arm(event) == 0);
		must(bufpool_event_arm(next) == 0);
		acted = act_within(return_it, another_closes, at);
		if (!acted)
			another_closes();
		reused += stranger == number;
		must(read(stranger, &count, sizeof(count)) < 0);
		must(stranger == number || fcntl(number, F_GETFD) == -1);
		close(stranger);
		/* Whoever of the two it was for. */
		must(is_told(next));
		bufpool_event_close(next);
		ck_assert(nobody_waits());
		ck_assert_uint_eq(pool->demand->events, 0);
	}
	ck_assert_int_gt(at, 100);
	ck_assert_int_gt(reused, 3);
	ck_assert_int_lt(reused, at); /* it was in hand, too */
	destroy_whole(pool);
}
END_TEST

/* A thread that stands still, wherever it is, with an event, holds nobody up. */
static void arm_and_close(void)
{
	bufpool_event_t *mine = open_event();

	armed = bufpool_event_arm(mine);
	bufpool_event_close(mine);
}

static void return_to_event(void)
{
	bufpool_return(returned);
}

static void (*const walks[])(void) = {arm_and_close, return_to_event};

static void *get_on(void *arg)
{
	const struct timespec no_time = {0, 0};
	bufpool_event_t *mine = open_event();
	bufpool_buf_t *bufs[FEW + 1];
	size_t n = drain(pool, K, bufs, FEW + 1);

	/* But for the one that is being returned; one of those that come home may
	   be for the one that stands still. */
	must(n >= FEW - 1 && n <= FEW);
	must(!bufpool_checkout_wait(pool, 1, &no_time));
	must(bufpool_event_arm(mine) == 0);
	bufpool_return(bufs[0]);
	bufpool_return(bufs[1]);
	bufpool_return(bufs[2]);
	must(is_told(mine));
	bufs[0] = bufpool_checkout_wait(pool, 1, NULL);
	must(bufs[0]);
	bufpool_return(bufs[0]);
	bufpool_event_close(mine);
	bufpool_return_bulk(bufs + 3, n - 3);
	return arg;
}

static void others_get_on(void)
{
	run_thread(get_on, NULL);
}

START_TEST(stopped_with_an_event)
{
	long at = 0;

	if (is_valgrind())
		return;
	make(FEW);
	event = open_event();
	for (bool acted = true; acted; at += stride()) {
		bufpool_buf_t *bufs[FEW + 1];

		must(drain(pool, K, bufs, FEW + 1) == FEW);
		must(bufpool_event_arm(event) == 0);
		returned = bufs[0];
		if (walks[_i] == arm_and_close)
			bufpool_return_bulk(bufs, FEW);
		else
			bufpool_return_bulk(bufs + 1, FEW - 1);
		must(is_told(event));
		acted = act_within(walks[_i], others_get_on, at);
	}
	ck_assert_int_gt(at, 50);
	bufpool_event_close(event);
	ck_assert(nobody_waits());
	destroy_whole(pool);
}
END_TEST

/* A try that meets an idle buffer; no matter in whose hands, and where. */
static bufpool_buf_t *got;
static struct bp_buf *in_hands, *in_cold;

static struct depot *depot_of(void)
{
	return pool_depot(pool, 0, K);
}

static void put(struct bp_buf *d, unsigned shard)
{
	must(bp_depot_give(depot_of(), shard, &d, 1) == 0);
}

static void try_it(void)
{
	got = bufpool_try_checkout(pool, 1);
}

static void hand_back(void)
{
	put(in_hands, 0);
	pool->demand->klass[K].movers = 0;
}

/* It looks again while somebody says that he moves some: not for ever, so only
   the first looks are walked. */
START_TEST(moved_while_it_looks)
{
	uint32_t *movers;
	long at;

	if (is_valgrind())
		return;
	make(1);
	movers = &pool->demand->klass[K].movers;
	in_hands = bp_depot_take_one(depot_of(), 0);
	must(!bufpool_try_checkout(pool, 1));
	for (at = 0; at < 700; at += stride()) {
		*movers = 1;
		must(act_within(try_it, hand_back, at));
		must(got);
		bufpool_return(got);
		want->takes = 0;
		in_hands = bp_depot_take_one(depot_of(), 0);
		must(in_hands);
	}
	put(in_hands, 0);
	destroy_whole(pool);
}
END_TEST

/* One comes where it has looked, then one goes where it has not. */
static void come_and_go(void)
{
	struct bp_buf *gone;

	put(in_hands, 0);
	in_hands = NULL;
	gone = bp_depot_take_one(depot_of(), DEPOT_COLD);
	if (gone)
		in_hands = gone;
}

START_TEST(moved_behind_its_back)
{
	long at = 0;

	if (is_valgrind())
		return;
	make(2);
	in_hands = bp_depot_take_one(depot_of(), 0);
	in_cold = bp_depot_take_one(depot_of(), 0);
	must(!bufpool_try_checkout(pool, 1));
	for (;; at += stride()) {
		bool acted;

		put(in_cold, DEPOT_COLD);
		acted = act_within(try_it, come_and_go, at);
		must(got);
		if (!acted)
			break;
		bufpool_return(got);
		want->takes = 0;
		in_cold = bp_depot_take_one(depot_of(), 0);
		if (!in_hands)
			in_hands = bp_depot_take_one(depot_of(), 0);
		must(in_cold && in_hands);
	}
	ck_assert_int_gt(at, 50);
	put(in_hands, 0);
	bufpool_return(got);
	destroy_whole(pool);
}
END_TEST

/*
 * A thread takes and returns more than its cache holds, so that it moves several
 * at once both ways.  Who comes meanwhile and cannot find them has no trust.
 */
enum { LOAD = 6 };

static int held; /* at most, by the one that is walked */

static void take_and_return_some(void)
{
	bufpool_buf_t *bufs[LOAD];

	for (int i = 0; i < LOAD; i++) {
		held = i + 1;
		bufs[i] = bufpool_try_checkout(pool, 1);
		must(bufs[i]);
	}
	for (int i = LOAD; i-- > 0; held = i)
		bufpool_return(bufs[i]);
}

static void *take_what_is_there(void *arg)
{
	bufpool_buf_t *bufs[FEW + 1];
	int n = (int) drain(pool, K, bufs, FEW + 1);

	must(n >= FEW - held || !is_trusted(want));
	bufpool_return_bulk(bufs, (size_t) n);
	return arg;
}

static void others_come(void)
{
	run_thread(take_what_is_there, NULL);
}

static bool others_come_after(long at)
{
	bool came;

	set_state(PLENTIFUL);
	came = act_within(take_and_return_some, others_come, at);
	bufpool_thread_flush(pool);
	return came;
}

/* They look for long, each time, and longer where the machine has other things to
   do: here and there, and as often as there is time for. */
START_TEST(trust_is_not_misplaced)
{
	const double seconds = is_scale("full") ? 20 : is_small() ? 1 : 2;
	struct timespec start, now;
	long all;

	if (is_valgrind())
		return;
	make(FEW);
	others_come_after(0); /* all that is done once */
	must(!others_come_after(LONG_MAX));
	all = walk.steps;
	ck_assert_int_gt(all, 300);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (uint64_t i = 0; i < (uint64_t) all; i++) {
		others_come_after((long) (i * 2654435761u % (uint64_t) all));
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (i > 4 && (double) (now.tv_sec - start.tv_sec) > seconds)
			break;
	}
	destroy_whole(pool);
}
END_TEST

#endif

int main(void)
{
	Suite *suite = suite_create("demand");
	TCase *tc = add_case(suite, "span", 20);

	tcase_add_test(tc, span_adapts);
	tcase_add_test(tc, failures_prolong_it);
	tcase_add_test(tc, leavers_do_not_shorten_it);
	tc = add_case(suite, "trust", 10);
	tcase_add_test(tc, trust_is_for_one_declaration);
	tcase_add_test(tc, movers_are_not_trusted);
	tc = add_case(suite, "waiting", 20);
	tcase_add_loop_test(tc, waiters_are_woken, 0, ARRAY_SIZE(wakers));
	tcase_add_test(tc, woken_takes_one);
	tcase_add_test(tc, seats_and_tickets);
#if defined(__x86_64__)
	tc = add_case(suite, "at any moment", 30);
	tcase_add_test(tc, end_wakes_waiters);
	tcase_add_loop_test(tc, armed_amid_a_return, 0, 2);
	tcase_add_test(tc, called_once_each);
	tcase_add_test(tc, closed_amid_a_return);
	tcase_add_loop_test(tc, stopped_with_an_event, 0, ARRAY_SIZE(walks));
	tcase_add_test(tc, moved_while_it_looks);
	tcase_add_test(tc, moved_behind_its_back);
	tcase_add_test(tc, trust_is_not_misplaced);
#endif
	return run_suite(suite);
}
