/* SPDX-License-Identifier: MIT */
/*
 * magazine.pml - every interleaving of a small magazine (src/magazine.[ch], and
 * those parts of cache.c, take.c and give.c that move buffers into and out of it)
 *
 *     spin -a [-DDESTROY] [-DFENCED] [-DFAULT=n] magazine.pml
 *     cc -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c && ./pan -m200000
 *
 * The owner against thieves that gather; -DDESTROY: against bufpool_destroy();
 * -DFENCED: without membarrier(); -DFAULT=n: with a fault, which must be found.
 * model.sh runs them all.  What is found exactly when is scarcity.pml's matter:
 * here a class becomes scarce and plentiful as it may.
 *
 * What others see of the owner's plain stores lags behind in a store buffer,
 * first in first out, which is emptied by chance, by membarrier(), by a full
 * fence of the owner, and (FENCED) by bp_owner_fence(); not even the owner's own
 * compare-and-swap empties it, as on arm64.  The owner sees its stores at once.
 * Others fence their plain stores themselves before they read on: they have no
 * store buffer.
 *
 * Each access to what is shared is a step of its own, but for:
 *   - the depot: a push or a pop of a batch is one compare-and-swap there;
 *   - a load and the compare-and-swap that depends on nothing else: one that
 *     fails is as good as a later load;
 *   - the owner's reads of what only it writes.
 *
 * Asserted: no buffer has two owners, none is lost, top never passes limit,
 * each is settled once, and nobody touches a pool that is gone.
 */
#ifndef FAULT
#define FAULT 0
#endif
#define NO_FENCE_IN_ROB  (FAULT == 1) /* contest, and no second membarrier() */
#define BOTTOM_BEFORE    (FAULT == 2) /* ... bottom not read again after it */
#define NO_TOP_CAS       (FAULT == 3) /* a thief moves top by a store */
#define NO_LIMIT_IN_TAKE (FAULT == 4) /* owner takes without a look */
#define MANY_PAST_LIMIT  (FAULT == 5) /* take_many moves top past limit */
#define BOTTOM_FIRST     (FAULT == 6) /* put publishes, then fills the slot */
#define ROOM_UNCHECKED   (FAULT == 7) /* put overwrites what is still in */
#define NO_ALARM_IN_PUT  (FAULT == 8) /* a put does not see the revocation */
#define NO_DESTROY_FENCE (FAULT == 9)
#define TOUCH_AFTER_GIVE (FAULT == 10) /* spill looks at the pool once more */
#define LIMIT_LATER      (FAULT == 11) /* a thief takes up to another's limit */
#define CLEARED_LATE     (FAULT == 12) /* answer looks, then clears the alarm */
#define ALARM_FIRST      (FAULT == 13) /* destroy: alarm, then limit */
#define SLOT_EARLY       (FAULT == 14) /* the slot is read before bottom */
#define NO_FENCE_IN_PUT  (FAULT == 15) /* FENCED: the alarm is read at once */
#define NO_FENCE_IN_TAKE (FAULT == 16) /* FENCED: limit is */

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
#define OPS 3     /* of the owner */
#endif
#ifndef GATHERS
#define GATHERS 1 /* of each thief */
#endif
#ifndef THIEVES
#define THIEVES 2
#endif

#define START 1
#define REVOKED 255
#define NONE 255
#define MIN(a, b) ((a) < (b) -> (a) : (b))

mtype = { SLOT, BOTTOM, ALARM };

byte top = START, limit = START;
byte bottom = START;       /* as others see it */
byte slot[SLOTS] = NONE;   /* likewise */
byte own_bottom = START;   /* as the owner does */
byte own_slot[SLOTS] = NONE;
chan stores = [6] of { mtype, byte, byte };
bool scarce, alarm;

bool out[BUFS];            /* in somebody's hands, or destroy has counted it */
bool depot[BUFS];
bool closed;
byte left = BUFS + 1;      /* see pool.h; the pool is gone at 0 */
bool in_checkout, destroying;
byte done, begun;

inline grab(d) { assert(d < BUFS && !out[d] && !depot[d]); out[d] = true }
inline grab_depot(d) { assert(!out[d]); depot[d] = false; out[d] = true }
inline touch_pool() { assert(left > 0) }

inline store(what_, i_, v_) { nfull(stores); stores!what_,i_,v_ }

inline store_bottom(b) { atomic { nfull(stores); own_bottom = b; stores!BOTTOM,0,own_bottom } }

inline apply_one()
{
	stores?what,i,v;
	if
	:: what == SLOT -> slot[i] = v
	:: what == BOTTOM -> bottom = v
	:: else -> alarm = false
	fi
}

inline full_fence() { empty(stores) }

inline owner_fence()
{
#ifdef FENCED
	full_fence()
#else
	skip
#endif
}

/* Of others: bp_fence_all(). */
inline fence_all()
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

#if SLOT_EARLY
#define SLOT_AT(t) (t == at -> early : slot[t % SLOTS])
#define READ_BOTTOM at = top; early = slot[at % SLOTS]; b = bottom
#else
#define SLOT_AT(t) slot[t % SLOTS]
#define READ_BOTTOM b = bottom
#endif

/*
 * take_top(): the buffer, or NONE, in d; of the slots the owner sees its own
 * stores.
 */
inline take_top(b, owners)
{
	t = top;
	do
	:: b <= t -> d = NONE; t = 0; break
	:: else ->
		d = (owners -> own_slot[t % SLOTS] : SLOT_AT(t));
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

/* bp_fast_take(), then bp_magazine_take(). */
inline take()
{
	d = NONE; again = false;
	do
	:: store_bottom(own_bottom - 1);
	   if
	   :: !NO_FENCE_IN_TAKE -> owner_fence()
	   :: else
	   fi;
	   if
	   :: own_bottom < limit && !NO_LIMIT_IN_TAKE ->
		store_bottom(own_bottom + 1);
		if
		:: !again ->
			if
			:: own_bottom <= top -> break
			:: else -> again = true
			fi
		:: else ->
			l = limit; l = MIN(own_bottom, l);
			take_top(l, true); l = 0; break
		fi
	   :: else ->
		/* Empty looks like contested: limit is not below top. */
		if
		:: NO_LIMIT_IN_TAKE && own_bottom < top ->
			store_bottom(own_bottom + 1)
		:: else -> atomic { d = own_slot[own_bottom % SLOTS]; grab(d) }
		fi;
		break
	   fi
	od;
	again = false
}

/* bp_magazine_take_many(), and what it took goes to the depot in one step:
   bp_cache_spill(); how many, in got. */
inline spill(most)
{
	full_fence(); /* with the moving flag */
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
	   if
	   :: own_bottom >= limit ->
		d_step {
			do
			:: got < n ->
				d = own_slot[(own_bottom + n - 1 - got) % SLOTS];
				grab(d); bag[got] = d; got++
			:: else -> break
			od
		};
		break
	   :: else ->
		store_bottom(own_bottom + n);
		l = limit;
		l = (MANY_PAST_LIMIT -> own_bottom : MIN(own_bottom, l));
		do
		:: got < n ->
			take_top(l, true);
			if
			:: d == NONE -> break
			:: else -> bag[got] = d; got++
			fi
		:: else -> break
		od;
		l = 0;
		if
		:: got > 0 -> break
		:: else
		fi
	   fi
	od;
	n = 0; d = 0;
	if
	:: got > 0 ->
		touch_pool();
		d_step {
			do
			:: n < got ->
				depot[bag[n]] = !closed; out[bag[n]] = false;
				owed = owed + closed; bag[n] = 0; n++
			:: else -> n = 0; break
			od
		};
		if
		:: TOUCH_AFTER_GIVE && owed == 0 -> touch_pool()
		:: else
		fi
	:: else
	fi
}

inline settle_owed()
{
	atomic { assert(left >= owed); left = left - owed; owed = 0 }
}

/* bp_cache_answer() */
inline answer()
{
	if
	:: !CLEARED_LATE -> store(ALARM, 0, 0)
	:: else
	fi;
	full_fence();
	if
	:: limit == REVOKED ->
		do
		:: take_top(own_bottom, true);
		   if
		   :: d == NONE -> d = 0; break
		   :: else -> out[d] = false; owed++
		   fi
		od;
		if
		:: CLEARED_LATE -> alarm = false
		:: else -> alarm = true /* to the owner at once; for nobody else */
		fi
	:: else ->
		if
		:: scarce ->
			do
			:: spill(SLOTS);
			   if
			   :: got == 0 -> break
			   :: else
			   fi
			od;
			got = 0;
			room = own_bottom
		:: else
		fi;
		if
		:: CLEARED_LATE -> alarm = false
		:: else
		fi
	fi
}

/* bp_slot_set(), bp_magazine_show(), bp_put_alarm(): where that is always come by,
   as FENCED, it reads the alarm behind its fence. */
inline put_raw()
{
	atomic { assert(out[x]); out[x] = false }
	if
	:: BOTTOM_FIRST ->
		store_bottom(own_bottom + 1);
		atomic { nfull(stores); own_slot[(own_bottom - 1) % SLOTS] = x;
			stores!SLOT,((own_bottom - 1) % SLOTS),x }
	:: else ->
		atomic { nfull(stores); own_slot[own_bottom % SLOTS] = x;
			stores!SLOT,(own_bottom % SLOTS),x };
		store_bottom(own_bottom + 1)
	fi;
	x = 0;
	if
	:: !NO_FENCE_IN_PUT -> owner_fence()
	:: else
	fi;
	if
	:: alarm && !NO_ALARM_IN_PUT -> answer(); settle_owed()
	:: else
	fi
}

/* give_one(), give_without() */
inline give()
{
	touch_pool();
	atomic {
		out[x] = false;
		if
		:: closed -> assert(left > 0); left--
		:: else -> depot[x] = true
		fi;
		x = 0
	}
}

/* One of a set, in x: which is all the same. */
#define PICKED(set) x = 0; do :: set[x] -> break :: else -> x++ od

#if BUFS > 3
#define ANY(set) (set[0] || set[1] || set[2] || set[3])
#else
#define ANY(set) (set[0] || set[1] || set[2])
#endif

active proctype owner()
{
	bool mine[BUFS];
	byte bag[SLOTS];
	byte ops, x, d, t, l, n, got, owed, room = START + DEPTH;
	bool again, have;
#if SLOT_EARLY
	byte early, at;
#endif

	d_step {
		do
		:: x < BUFS -> mine[x] = true; out[x] = true; x++
		:: else -> x = 0; break
		od
	}
#ifdef DESTROY
	if
	:: scarce = true
	:: skip
	fi;
#endif
	do
	:: ANY(mine) ->
		/* A return: bp_fast_put(), else bp_return_erased(). */
		atomic { PICKED(mine); mine[x] = false;
			ops = (ops < OPS -> ops + 1 : ops) }
		if
		:: own_bottom == room && !ROOM_UNCHECKED ->
			touch_pool();
			if
			:: scarce -> give()
			:: else ->
				do
				:: room = top + DEPTH;
				   if
				   :: own_bottom != room -> break
				   :: else
				   fi;
				   spill(DEPTH / 2 + 1); got = 0
				od;
				settle_owed();
				put_raw()
			fi
		:: else -> put_raw()
		fi
	:: ops < OPS ->
		ops++;
		do
		:: spill(SLOTS);
		   if
		   :: got == 0 -> break
		   :: else
		   fi
		od;
		got = 0;
		settle_owed()
	:: atomic { ops < OPS && !destroying -> in_checkout = true; ops++ };
		take();
		if
		:: d != NONE -> mine[d] = true; have = true
		:: else
		fi;
		d = 0;
		owner_fence();
		if
		:: alarm -> answer(); settle_owed()
		:: else
		fi;
		if
		:: have -> have = false
		:: else ->
			/* take_near(): d, and x for the magazine. */
			x = NONE;
			if
			:: !scarce ->
				full_fence(); /* with the moving flag */
				if
				:: scarce
				:: else ->
					atomic {
						if
						:: ANY(depot) ->
							PICKED(depot); grab_depot(x);
							mine[x] = true; d = x; x = NONE;
							if
							:: ANY(depot) ->
								PICKED(depot); grab_depot(x)
							:: else
							fi
						:: else
						fi
					}
				fi
			:: else ->
				atomic {
					if
					:: ANY(depot) ->
						PICKED(depot); grab_depot(x);
						mine[x] = true; x = NONE
					:: else
					fi
				}
			fi;
			if
			:: x != NONE -> room = top + DEPTH; put_raw()
			:: else -> x = 0
			fi
		fi;
		d = 0;
#ifdef DESTROY
		/* Whoever destroys comes after a checkout in time. */
		full_fence();
#endif
		in_checkout = false
	:: !ANY(mine) && ops == OPS -> break
	od;
	/* Half the time the thread exits. */
	if
	:: do
	   :: spill(SLOTS);
	      if
	      :: got == 0 -> break
	      :: else
	      fi
	   od;
	   settle_owed()
	:: skip
	fi;
	done++
}

/* ------------------------------------------------------------- the others */

#ifndef DESTROY
#define FIRST_THIEF 2 /* behind the store buffer and the owner */

/* bp_cache_gather() */
active [THIEVES] proctype thief()
{
	mtype what; byte i, v;
	byte gathers, t, b, d, end_, found = NONE;
#if SLOT_EARLY
	byte early, at;
#endif

	/* Which of them comes first is all the same. */
	atomic { begun == _pid - FIRST_THIEF -> begun++ }
	do
	:: gathers == GATHERS -> break
	:: else ->
		gathers++;
		scarce = true;
		alarm = true;
		fence_all();
		t = top;
		b = bottom;
		if
		:: b <= t -> t = 0; b = 0
		:: else ->
			/* bp_magazine_contest() */
			t = 0;
			end_ = limit;
			do
			:: b = bottom;
			   if
			   :: b <= end_ -> break
			   :: else ->
				atomic {
					if
					:: limit == end_ -> limit = b; end_ = b; break
					:: else -> end_ = limit
					fi
				}
			   fi
			od;
			if
			:: !NO_FENCE_IN_ROB -> fence_all()
			:: else
			fi;
			do
			:: if
			   :: LIMIT_LATER -> end_ = limit
			   :: else
			   fi;
			   if
			   :: !BOTTOM_BEFORE -> READ_BOTTOM
			   :: else
			   fi;
			   b = MIN(b, end_);
			   if
			   :: NO_TOP_CAS ->
				t = top;
				if
				:: t < b ->
					d = slot[t % SLOTS];
					atomic { top = t + 1; grab(d); t = 0 }
				:: else -> d = NONE
				fi
			   :: else -> take_top(b, false)
			   fi;
			   if
			   :: d == NONE -> break
			   :: found == NONE -> found = d
			   :: else -> d_step { out[d] = false; depot[d] = true }
			   fi
			od;
			skip;
			d_step { b = 0; d = 0; end_ = 0 };
			if
			/* It is used, and comes home. */
			:: found != NONE ->
				d_step { out[found] = false; depot[found] = true;
					found = NONE }
			:: else
			fi
		fi;
		if
		:: scarce = false
		:: skip
		fi
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
/* bufpool_destroy() */
active proctype destroy()
{
	mtype what; byte i, v, d, t, b, found;
#if SLOT_EARLY
	byte early, at;
#endif

	atomic { !in_checkout; destroying = true };
	if
	:: ALARM_FIRST -> alarm = true; limit = REVOKED
	:: else -> limit = REVOKED; alarm = true
	fi;
	if
	:: !NO_DESTROY_FENCE -> fence_all()
	:: else
	fi;
	do
	:: READ_BOTTOM;
	   take_top(b, false);
	   if
	   :: d == NONE -> break
	   :: else -> found++
	   fi
	od;
	skip;
	d_step {
		closed = true;
		do
		:: i < BUFS ->
			found = found + depot[i]; depot[i] = false; i++
		:: else -> break
		od
	};
	atomic {
		touch_pool();
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
