/* SPDX-License-Identifier: MIT */
/*
 * magazine.pml - every interleaving of a small magazine (src/cache.[ch])
 *
 *     spin -a [-DDESTROY] [-DFENCED] [-DFAULT=n] magazine.pml
 *     cc -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c && ./pan -m200000
 *
 * The owner against a thief; -DDESTROY: against bufpool_destroy(); -DFENCED:
 * without membarrier(); -DFAULT=n: with a fault, which must be found.
 * model.sh runs them all.  What others see of the owner's plain stores lags
 * behind in a store buffer, first in first out, which is emptied by chance, by
 * membarrier(), and (FENCED) by the owner's fence; not even the owner's own
 * compare-and-swap empties it, as on arm64.  The owner sees its stores at once.
 *
 * A put learns of the revocation from limit here, in the code from the cache's
 * alarm, which is set right after it.
 *
 * Asserted: no buffer has two owners, none is lost, top never passes limit,
 * each is settled once, and nobody touches a pool that is gone.
 */
#ifndef FAULT
#define FAULT 0
#endif
#define NO_THIEF_BARRIER (FAULT == 1) /* steal without membarrier() */
#define NO_BOTTOM_AGAIN  (FAULT == 2) /* ... trusting the first bottom */
#define NO_TOP_CAS       (FAULT == 3) /* ... moving top by a store */
#define NO_LIMIT_IN_TAKE (FAULT == 4) /* owner takes without a look */
#define MANY_PAST_LIMIT  (FAULT == 5) /* take_many moves top past limit */
#define BOTTOM_FIRST     (FAULT == 6) /* put publishes, then fills the slot */
#define ROOM_UNCHECKED   (FAULT == 7) /* put overwrites what is still in */
#define NO_LIMIT_IN_PUT  (FAULT == 8) /* put does not see the revocation */
#define NO_DESTROY_BARRIER (FAULT == 9)
#define TOUCH_AFTER_GIVE (FAULT == 10) /* spill looks at the pool once more */
#define STALE_ROOM (FAULT == 11) /* room as it was before the spill */

#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef DEPTH
#define DEPTH SLOTS
#endif
#ifndef BUFS
#define BUFS 3
#endif
#ifndef OPS
#define OPS 4    /* of the owner */
#endif
#ifndef STEALS
#define STEALS 2 /* of each thief */
#endif
#ifndef THIEVES
#define THIEVES 1
#endif

#define START 1
#define REVOKED 255
#define NONE 255
#define MIN(a, b) ((a) < (b) -> (a) : (b))

mtype = { SLOT, BOTTOM };

byte top = START, limit = START;
byte bottom = START;       /* as others see it */
byte slot[SLOTS];          /* likewise */
byte own_bottom = START;   /* as the owner does */
byte own_slot[SLOTS];
chan stores = [6] of { mtype, byte, byte };

bool out[BUFS];            /* has an owner: a thread, or destroy */
bool depot[BUFS];          /* in the depot, which is one atomic step */
bool closed;
byte left = BUFS + 1;      /* see pool.h; the pool is gone at 0 */
bool in_checkout, destroying;
byte done;

inline grab(d) { assert(d < BUFS && !out[d]); out[d] = true }
inline touch_pool() { assert(left > 0) }
inline settle(d)
{
	assert(out[d] && !depot[d] && left > 0);
	out[d] = false;
	left--
}

inline store_slot(index, d)
{
	atomic {
		nfull(stores);
		own_slot[index] = d;
		stores!SLOT,index,d
	}
}

inline store_bottom(b)
{
	atomic {
		nfull(stores);
		own_bottom = b;
		stores!BOTTOM,0,own_bottom
	}
}

inline apply_one()
{
	stores?what,i,v;
	if
	:: what == SLOT -> slot[i] = v
	:: else -> bottom = v
	fi
}

inline owner_fence()
{
#ifdef FENCED
	empty(stores)
#else
	skip
#endif
}

inline membarrier()
{
#ifndef FENCED
	atomic {
		do
		:: nempty(stores) -> apply_one()
		:: empty(stores) -> break
		od;
		what = 0; i = 0; v = 0
	}
#else
	skip
#endif
}

/* Stores become visible when they like. */
active proctype store_buffer()
{
	mtype what; byte i, v;
end:	do
	:: atomic { apply_one(); what = 0; i = 0; v = 0 }
	od
}

/*
 * take_top(): the buffer, or NONE, in d.  Destroy uses it too, but only counts,
 * so that it may look at the owner's view of the slots.
 */
inline take_top(b)
{
	t = top;
	do
	:: b <= t -> d = NONE; break
	:: else ->
		d = own_slot[t % SLOTS];
		atomic {
			if
			:: top == t ->
				assert(limit > top);
				top++; grab(d); t = 0; break
			:: else -> t = top
			fi
		}
	od
}

/* -------------------------------------------------------------- the owner */

/* It holds d: to the depot. */
inline give(d)
{
	atomic {
		touch_pool();
		if
		:: closed -> settle(d)
		:: else -> out[d] = false; depot[d] = true
		fi;
		mine[d] = false
	}
}

inline take()
{
	store_bottom(own_bottom - 1);
	owner_fence();
	if
	:: own_bottom < limit && !NO_LIMIT_IN_TAKE ->
		store_bottom(own_bottom + 1);
		take_top(own_bottom)
	:: else ->
		/* Empty looks like contested: limit is not below top. */
		if
		:: NO_LIMIT_IN_TAKE && own_bottom < top ->
			store_bottom(own_bottom + 1); d = NONE
		:: else -> d = own_slot[own_bottom % SLOTS]; grab(d)
		fi
	fi;
	if
	:: d != NONE -> mine[d] = true
	:: else
	fi;
	d = 0
}

/* take_many(), and what it took goes to the depot: bp_cache_spill(). */
inline spill(most)
{
	n = most; got = 0;
	do
	:: t = top;
	   n = (own_bottom > t -> MIN(n, own_bottom - t) : 0);
	   t = 0;
	   if
	   :: n == 0 -> break
	   :: else
	   fi;
	   store_bottom(own_bottom - n);
	   owner_fence();
	   l = limit;
	   if
	   :: own_bottom >= l ->
		do
		:: got < n ->
			d = own_slot[(own_bottom + n - 1 - got) % SLOTS];
			grab(d);
			mine[d] = true; bag[got] = d; got++
		:: else -> break
		od;
		break
	   :: else ->
		store_bottom(own_bottom + n);
		if
		:: MANY_PAST_LIMIT -> l = own_bottom
		:: else -> l = MIN(own_bottom, l)
		fi;
		do
		:: got < n ->
			take_top(l);
			if
			:: d == NONE -> break
			:: else -> mine[d] = true; bag[got] = d; got++
			fi
		:: else -> break
		od;
		if
		:: got > 0 -> break
		:: else
		fi
	   fi
	od;
	n = 0; l = 0;
	if
	:: got > 0 -> touch_pool()
	:: else
	fi;
	/* One by one, so that the pool may go after each but the last. */
	do
	:: got > 0 ->
		got--; d = bag[got]; bag[got] = 0; give(d);
		if
		:: got == 0 && TOUCH_AFTER_GIVE -> touch_pool()
		:: else
		fi
	:: else -> break
	od;
	d = 0
}

inline put_raw(x)
{
	atomic { assert(out[x]); out[x] = false; mine[x] = false }
	if
	:: BOTTOM_FIRST ->
		store_bottom(own_bottom + 1);
		store_slot((own_bottom - 1) % SLOTS, x)
	:: else ->
		store_slot(own_bottom % SLOTS, x);
		store_bottom(own_bottom + 1)
	fi;
	owner_fence();
	if
	:: own_bottom - 1 < limit && limit == REVOKED && !NO_LIMIT_IN_PUT ->
		do
		:: take_top(own_bottom);
		   if
		   :: d == NONE -> break
		   :: else -> settle(d)
		   fi
		od;
		d = 0
	:: else
	fi
}

inline may_be_full()
{
	(own_bottom == room && !ROOM_UNCHECKED)
}

/* return_@name@() and bp_return_full(). */
inline put(x)
{
	if
	:: may_be_full() -> room = top + DEPTH
	:: else
	fi;
	if
	:: may_be_full() ->
		touch_pool(); spill((DEPTH + 1) / 2);
		if
		:: !STALE_ROOM -> room = top + DEPTH
		:: else
		fi
	:: else
	fi;
	if
	:: may_be_full() -> give(x)
	:: else -> put_raw(x)
	fi
}

/* One of a set, in x: which is all the same. */
#define PICKED(set) x = 0; do :: set[x] -> break :: else -> x++ od

#if BUFS > 3
#define ANY(set) (set[0] || set[1] || set[2] || set[3])
#elif BUFS > 2
#define ANY(set) (set[0] || set[1] || set[2])
#else
#define ANY(set) (set[0] || set[1])
#endif

active proctype owner()
{
	bool mine[BUFS];
	byte bag[SLOTS];
	byte ops, x, d, t, l, n, got, room = START + DEPTH;

	d_step {
		do
		:: x < BUFS -> mine[x] = true; out[x] = true; x++
		:: else -> x = 0; break
		od
	}
	do
	:: ops < OPS ->
		ops++;
		if
		:: ANY(mine) -> atomic { PICKED(mine) }; put(x); x = 0
		:: spill(SLOTS)
		:: atomic { !destroying -> in_checkout = true };
		   take();
		   /* Whoever destroys comes after a checkout in time. */
		   empty(stores); in_checkout = false
		:: atomic { !destroying && ANY(depot) -> PICKED(depot);
			depot[x] = false; out[x] = true; mine[x] = true; x = 0 }
		fi
	:: else -> break
	od;
	/* What it still has it returns, and half the time the thread exits. */
	do
	:: ANY(mine) -> atomic { PICKED(mine) }; put(x); x = 0
	:: else -> break
	od;
	if
	:: spill(SLOTS); spill(SLOTS)
	:: skip
	fi;
	done++
}

/* ------------------------------------------------------------- the others */

#ifndef DESTROY
active [THIEVES] proctype thief()
{
	mtype what; byte i, v;
	byte loot[SLOTS];
	byte steals, t, t2, l, b, want;

	do
	:: steals == STEALS -> break
	:: else ->
		steals++;
again:		t = top;
		l = limit;
		t2 = top;
		b = bottom;
		if
		:: b <= t2 -> goto next
		:: else
		fi;
		want = (b - t2 + 1) / 2;
		if
		:: l < t + want ->
			atomic {
				if
				:: limit == l -> limit = t + want
				:: else -> goto again
				fi
			}
		:: else
		fi;
		if
		:: !NO_THIEF_BARRIER -> membarrier()
		:: else
		fi;
		if
		:: !NO_BOTTOM_AGAIN -> b = bottom
		:: else
		fi;
		if
		:: b <= t -> goto again
		:: else
		fi;
		want = MIN(want, b - t);
		i = 0;
		do
		:: i < want -> loot[i] = slot[(t + i) % SLOTS]; i++
		:: else -> i = 0; break
		od;
		atomic {
			if
			:: top == t || NO_TOP_CAS ->
				top = t + want;
				assert(top <= limit);
				do
				:: i < want -> grab(loot[i]); i++
				:: else -> i = 0; break
				od
			:: else -> goto again
			fi
		}
		/* What it has stolen it uses, and returns to the depot. */
		d_step {
			do
			:: i < want ->
				out[loot[i]] = false; depot[loot[i]] = true;
				loot[i] = 0; i++
			:: else -> i = 0; break
			od
		}
next:		skip; d_step { t = 0; t2 = 0; l = 0; b = 0; want = 0 }
	od;
	done++
}

/* At rest all buffers are somewhere. */
active proctype rest()
{
	byte n, x;

	atomic {
		done == THIEVES + 1 && empty(stores);
		assert(bottom == own_bottom && top <= limit);
		n = (bottom > top -> bottom - top : 0);
		do
		:: x < BUFS -> n = n + out[x] + depot[x]; x++
		:: else -> break
		od;
		assert(n == BUFS)
	}
}
#else
active proctype destroy()
{
	mtype what; byte i, v, d, t, b, found;

	atomic { !in_checkout; destroying = true };
	limit = REVOKED;
	if
	:: !NO_DESTROY_BARRIER -> membarrier()
	:: else
	fi;
	do
	:: b = bottom;
	   take_top(b);
	   if
	   :: d == NONE -> break
	   :: else -> found++
	   fi
	od;
	/* Whatever slot[] said, so many are ours now. */
	skip;
	d_step {
		touch_pool();
		closed = true;
		do
		:: i < BUFS ->
			found = found + depot[i]; i++
		:: else -> break
		od;
		assert(left >= found + 1);
		left = left - found - 1
	}
	done++
}

active proctype rest()
{
	done == 2 && empty(stores);
	assert(left == 0)
}
#endif
