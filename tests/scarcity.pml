/* SPDX-License-Identifier: MIT */
/*
 * scarcity.pml - a class of buffers that becomes scarce, and plentiful again
 * (src/demand.[ch], find_idle() and bp_take_wait() in take.c, gather and answer
 * in cache.c)
 *
 *     spin -a [-DENTER] [-DOWNER_LOOKS] [-DFENCED] [-DEVENT] [-DFAULT=n] scarcity.pml
 *     cc -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m200000
 *
 * The owner of a cache against threads that have none and wait for a buffer.
 * -DENTER: the cache is new; -DOWNER_LOOKS: the owner looks everywhere too,
 * before it fails; -DFENCED: without membarrier(); -DEVENT: one waits for an event,
 * so that it does not look again before it is called; -DIMPATIENT: one may give up,
 * at any time; -DTRIM: a trim moves one that is idle; -DFAULT=n: with a fault, which must be found.  model.sh runs them all.
 *
 * The magazine is that of magazine.pml, which see for the store buffer, with
 * every access to its indexes but without slots: which buffer it is does not
 * matter here.  A depot has several shards, as they are not looked at in one
 * step.  Scarcity may end at any take: so no span and no count of takes.  Nor
 * is there a count of looks: a checkout gives up at any time while the class is
 * not trusted.
 *
 * What only ever grows and is compared for change is a flag per thread that
 * compares: changed since it looked (the stamp in `look`, the word's count in
 * `word`).  The stamp is read in one step, though it is a sum over
 * several words: as each of them only grows, two equal sums mean that each is
 * unchanged between its two readings, which is from the later first reading to
 * the earlier last.
 *
 * Asserted, exactness: a checkout that fails while the class is trusted had an
 * instant during its last look at which no buffer was idle, but for those that
 * the owner was about to hand out, or in the middle of returning or of putting
 * back (until it has seen its alarm unset, or answered it).  Buffers in the
 * hands of those who move them are idle.
 * And waiting: all waiters get a buffer in the end (or the end state is not
 * valid), since all buffers come home.  Which of those who are announced comes
 * first does not matter for that: any may be called.
 */
#ifndef FAULT
#define FAULT 0
#endif
#define MOVING_BEFORE   (FAULT == 1) /* moving is read, then the magazine */
#define NO_SECOND_LOOK  (FAULT == 2) /* refill: not at the word, once it moves */
#define CLEARED_LATE    (FAULT == 3) /* answer looks, then clears the alarm */
#define TRUST_STALE     (FAULT == 4) /* trust without the count */
#define TRUST_MOVER     (FAULT == 5) /* trust although an owner was moving */
#define NO_WAKE_AT_END  (FAULT == 6) /* scarcity ends, and nobody is woken */
#define ALARM_LATE      (FAULT == 7) /* alarm set after membarrier() */
#define NO_ALARM_IN_PUT (FAULT == 8) /* a put does not look at it */
#define NO_MOVERS       (FAULT == 9) /* who fails does not look at movers */
#define NO_STAMP        (FAULT == 10) /* ... nor whether the depot changed */
#define NO_FLAG_FENCE   (FAULT == 11) /* the moving flag is a plain store */
#define NO_ANSWER_FENCE (FAULT == 12) /* alarm cleared without a fence */
#define GIVEN_UNSEEN    (FAULT == 13) /* a give looks for waiters before it */
#define NO_ALARM_IN_TAKE (FAULT == 14) /* a contested take does not look at it */
#define WAKE_BEFORE_END (FAULT == 15) /* waiters looked for, then it ends */
#define NO_PASS_ON      (FAULT == 16) /* who was called goes, and calls nobody */
#define ROOM_LEFT       (FAULT == 17) /* the answer leaves room */
#define UNANNOUNCED     (FAULT == 18) /* a waiter looks, then announces itself */
#define NO_FENCE_IN_ROB (FAULT == 19) /* contest, and no second membarrier() */
#define NO_ENTER_ALARM (FAULT == 20) /* a new cache's alarm is not set */
#define NO_DECLARED_FENCE (FAULT == 21) /* no membarrier() before the look */
#define STAMP_LATE      (FAULT == 22) /* read when the look has begun */
#define MOVERS_APART    (FAULT == 23) /* read before the first stamp, after the last */

#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef CACHED
#define CACHED 0  /* at first */
#endif
#ifndef MINE
#define MINE 2    /* the owner's at first */
#endif
#ifndef STORED
#define STORED 0  /* in the depot at first */
#endif
#ifndef GIVEN
#define GIVEN 0   /* another thread's, which returns them */
#endif
#ifndef ROBS
#define ROBS 0    /* checkouts of another thread, which does not wait */
#endif
#ifndef OPS
#define OPS 2     /* the owner's checkouts */
#endif
#ifndef SHARDS
#define SHARDS 1
#endif
#ifndef LAG
#define LAG 4     /* the most stores in the store buffer */
#endif
#ifndef WAITERS
#define WAITERS 1
#endif
#define BUFS (CACHED + MINE + STORED + GIVEN)

#define START 1
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define OWNER 2 /* after the waiters, in the arrays */
#if SHARDS > 1
#define OWN_SHARD (me == OWNER)
#else
#define OWN_SHARD 0
#endif

mtype = { BOTTOM, MOVING, ALARM };

/* The magazine. */
byte top = START, limit = START;
byte bottom = START + CACHED;     /* as others see it */
byte own_bottom = START + CACHED; /* as the owner does */
chan stores = [LAG] of { mtype, byte };

/* The cache. */
bool moving, alarm;
#ifdef ENTER
bool listed;
#else
#define listed true
#endif

/* The class. */
byte depot[2];
#ifdef TRUSTED
bool scarce = true, trusted = true;
#elif defined(SCARCE)
bool scarce = true, trusted;
#else
bool scarce, trusted;
#endif
byte movers, waiters;

/* Changed, for those who look: 0 they do not, 1 no, 2 yes. */
byte look[3];
byte word[3];

/* The seats; two, or nobody sits on the second. */
bool ticket[2], called[2];

/* What no thread sees. */
byte cached = CACHED;     /* in the magazine */
byte hands;      /* of those who move idle buffers */
byte putting;    /* the index that is being put */
bool taking;     /* one in the magazine is about to be handed out */
bool was_none[3]; /* none was idle at an instant of the look */
byte done, begun;
bool ready;

#define OTHERS (cached + hands)
#define APART ((putting != 0) + taking)
#define IDLE (depot[0] + depot[1] + (OTHERS > APART -> OTHERS - APART : 0))

/* Within an atomic step that may have made one less idle. */
inline note()
{
	if
	:: IDLE == 0 ->
		was_none[0] = (look[0] -> true : false);
		was_none[1] = (look[1] -> true : false);
		was_none[2] = (look[2] -> true : false)
	:: else
	fi
}

inline change_of(f) { f = (f == 1 -> 2 : f) }
inline changed_look() { change_of(look[0]); change_of(look[1]); change_of(look[2]) }
inline changed_word()
{
	change_of(word[0]); change_of(word[1]); change_of(word[2]);
	changed_look();
}

inline store(what_, v_) { atomic { nfull(stores); stores!what_,v_ } }
inline store_bottom(b) { atomic { nfull(stores); own_bottom = b; stores!BOTTOM,own_bottom } }

inline apply_one()
{
	stores?what,v;
	if
	:: what == BOTTOM -> bottom = v
	:: what == MOVING -> moving = v
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

/* bp_fence_all(), the owner's too. */
inline fence_all()
{
	atomic {
#ifdef FENCED
		if
		:: me != OWNER -> skip
		:: else ->
#endif
		do
		:: nempty(stores) -> apply_one()
		:: empty(stores) -> break
		od;
		what = 0; v = 0
#ifdef FENCED
		fi
#endif
	}
}

active proctype store_buffer()
{
	mtype what; byte v;
end:	do
	:: atomic { apply_one(); what = 0; v = 0 }
	od
}

/* ------------------------------------------------------- whoever it may be */

/* call_next(): whoever sits there, if it is announced. */
inline call(i)
{
	atomic { ticket[i] -> ticket[i] = false; called[i] = true };
	waiters--
}

/* bp_demand_wake() */
inline wake(n)
{
	if
	:: call(0);
	   if
	   :: n > 1 ->
		if
		:: call(1)
		:: !ticket[1]
		fi
	   :: else
	   fi
	:: call(1)
	:: !ticket[0] ->
		if
		:: call(1)
		:: !ticket[1]
		fi
	fi
}

/* n to a shard of the depot: from hands, or from an owner. */
inline give(s, n, idle)
{
#if GIVEN_UNSEEN
	saw = (waiters != 0);
#endif
	atomic {
		depot[s] = depot[s] + n;
		hands = hands - (idle -> n : 0);
		putting = (own_bottom <= putting || top > putting -> 0 : putting);
		changed_look()
	};
	if
#if GIVEN_UNSEEN
	:: saw -> saw = false; wake(n)
#else
	:: waiters != 0 -> wake(n)
#endif
	:: else
	fi
}

/* bp_depot_take_one(), from shard first on, and taken(): whether, in got. */
inline take_one(first)
{
	do
	:: atomic {
		depot[s != first] > 0 ->
		depot[s != first]--; got = true; changed_look(); note(); s = 0
	   };
	   /* The word that is replaced is as good as the one that was read. */
	   if
	   :: scarce ->
		if
#if WAKE_BEFORE_END
		:: waiters != 0 -> wake(2)
		:: else
		fi;
		atomic {
			if
			:: scarce ->
				scarce = false; trusted = false; changed_word()
			:: skip
			fi
		}
#else
		:: waiters != 0
		:: else ->
			if
			:: atomic { scarce ->
				scarce = false; trusted = false; changed_word() };
#if !NO_WAKE_AT_END
			   if
			   :: me == OWNER -> full_fence()
			   :: else
			   fi;
			   if
			   :: waiters != 0 -> wake(2)
			   :: else
			   fi
#else
			   skip
#endif
			:: skip
			fi
		fi
#endif
	   :: else
	   fi;
	   break
	:: depot[s != first] == 0 ->
#if SHARDS > 1
		if
		:: s == 0 -> s = 1
		:: else -> s = 0; break
		fi
#else
		break
#endif
	od
}

/*
 * all_trusted(), in so.  In one step: should the word have changed between the
 * reading of it and that of movers, the stamp has; or, before a sleep, the ticket
 * is gone.
 */
inline all_trusted()
{
	so = (trusted && (movers == 0 || NO_MOVERS))
}

inline see_whether_moving() { mov = moving }

/* bp_demand_trust() */
inline trust()
{
	atomic {
		if
		:: (!mov || TRUST_MOVER) && !wt && scarce && !trusted &&
		   (word[me] == 1 || TRUST_STALE) ->
			trusted = true;
			changed_look();
		:: else
		fi;
		word[me] = 0; wt = false; mov = false
	}
}

/* bp_cache_gather(): whether there was one, in got. */
inline gather()
{
	movers++;
	/* bp_demand_declare(); wt: it was trusted already. */
	atomic {
		if
		:: !scarce -> scarce = true; changed_word()
		:: else
		fi;
		wt = trusted; word[me] = 1
	};
	if
	:: me == OWNER -> full_fence()
	:: else
	fi;
	if
	:: listed && !ALARM_LATE -> alarm = true
	:: else
	fi;
#if !NO_DECLARED_FENCE
	fence_all();
#endif
	if
	:: listed && ALARM_LATE -> alarm = true
	:: else
	fi;
	if
	:: !listed
	:: else ->
		/* find_victims() */
#if MOVING_BEFORE
		see_whether_moving();
#endif
		t = top;
		b = bottom;
		if
		:: b <= t
		:: else ->
			t = limit;
			do
			:: b = bottom;
			   if
			   :: b <= t -> break
			   :: else ->
				atomic {
					if
					:: limit == t -> limit = b; t = b; break
					:: else -> t = limit
					fi
				}
			   fi
			od;
			e = t;
#if !NO_FENCE_IN_ROB
			fence_all();
#endif
			do
			:: b = bottom;
			   b = MIN(b, e);
			   t = top;
			   do
			   :: b <= t -> t = 0; break
			   :: else ->
				atomic {
					if
					:: top == t ->
						putting = (putting == t -> 0 : putting);
						top++; cached--;
						if
						:: got -> hands++
						:: else
						fi;
						note();
						t = 255; break
					:: else -> t = top
					fi
				}
			   od;
			   if
			   :: t == 0 -> break
			   :: t != 0 && !got -> got = true
			   :: t != 0 && got -> give(0, 1, true)
			   fi
			od
		fi;
#if !MOVING_BEFORE
		see_whether_moving();
#endif
	fi;
	t = 0; b = 0; e = 0;
	movers--;
	trust()
}

#if MOVERS_APART
#define UNCHANGED same
#else
#define UNCHANGED (look[me] == 1)
#endif

/* find_idle(): whether there was one, in got. */
inline find_idle()
{
	do
	::
#if MOVERS_APART
	   all_trusted();
	   first = so;
#endif
	   atomic {
		look[me] = 1; was_none[me] = false;
		if
		:: IDLE == 0 -> was_none[me] = true
		:: else
		fi
	   };
#if !MOVERS_APART
	   all_trusted();
	   first = so;
#endif
	   take_one(OWN_SHARD);
#if STAMP_LATE
	   look[me] = 1;
#endif
	   if
	   :: got -> break
	   :: trusted && !got
	   :: else ->
		gather();
		if
		:: got -> break
		:: else -> take_one(OWN_SHARD)
		fi;
		if
		:: got -> break
		:: else
		fi
	   fi;
#if MOVERS_APART
	   same = look[me] == 1;
#endif
	   all_trusted();
	   if
	   :: atomic { first && so && (UNCHANGED || NO_STAMP) ->
		assert(was_none[me]); break }
	   :: else
	   fi;
	   all_trusted();
	   /* It was the last look, perhaps. */
	   if
	   :: !so -> break
	   :: skip
	   fi
	od;
	atomic { look[me] = 0; was_none[me] = false; first = false; so = false }
}

/* ------------------------------------------------------------- the waiters */

/* bp_seat_announce() */
inline announce()
{
	if
	:: !ticket[me] ->
		waiters++;
		atomic { ticket[me] = true; called[me] = false }
	:: else
	fi
}

/*
 * bp_take_wait() without a cache, and the buffer comes home.  The look at the
 * depot before find_idle(), which does the same again, is left out.
 */
active [WAITERS] proctype waiter()
{
	mtype what; byte v;
	byte me = _pid - 1, t, b, e, s;
	bool got, first, so, saw, wt, mov;
#if MOVERS_APART
	bool same;
#endif

	/* Which of them comes first is all the same. */
	atomic { ready && begun == me -> begun++ };
	do
	::
#if !UNANNOUNCED
	   announce();
#endif
	   find_idle();
	   if
	   :: got -> break
#ifdef IMPATIENT
	   :: !got && me == 0 -> break
#endif
	   :: else
	   fi;
	   all_trusted();
#if UNANNOUNCED
	   announce();
#endif
#ifdef EVENT
	   so = (me == 0 -> true : so);
#endif
	   if
	   :: so -> !ticket[me]
	   :: else
	   fi;
	   so = false
	od;
	/* bp_seat_leave() */
	atomic {
		if
		:: ticket[me] -> ticket[me] = false; saw = true
		:: else
		fi
	};
	if
	:: saw -> saw = false; waiters--
	:: else
	fi;
	if
	:: called[me] && !NO_PASS_ON -> called[me] = false; wake(1)
	:: else -> called[me] = false
	fi;
	if
	:: got -> got = false; give(0, 1, false)
	:: else
	fi;
	done++
}

/*
 * A checkout that looks once, and gives up if it finds nothing: what it does to
 * others, at less cost than that of another waiter.
 */
#if ROBS
active proctype robber()
{
	mtype what; byte v;
	byte me = WAITERS, t, b, e, s, robs;
	bool got, wt, mov;

	ready;
	do
	:: robs == ROBS -> break
	:: else ->
		robs++;
		take_one(0);
		if
		:: got || trusted
		:: else ->
			gather();
			if
			:: got
			:: else -> take_one(0)
			fi
		fi;
		if
		:: got -> got = false; give(0, 1, false)
		:: else
		fi
	od;
	done++
}
#endif

/* Returns what it has, without a cache. */
#if GIVEN
active proctype giver()
{
	byte given = GIVEN;
#if GIVEN_UNSEEN
	bool saw;
#endif

	ready;
	do
	:: given > 0 -> given--; give(0, 1, false)
	:: else -> break
	od;
	done++
}
#endif

/* Has gathered all that there was, which is nothing, under the word that the
   class begins with, and is about to say so. */
#ifdef SLOW
active proctype slow()
{
	byte me = 1;
	bool wt, mov;

	ready;
	trust();
	done++
}
#define SLOWS 1
#else
#define SLOWS 0
#endif

/* trim_class(): has one in its hands for a while. */
#ifdef TRIM
active proctype trimmer()
{
	bool got;
#if GIVEN_UNSEEN
	bool saw;
#endif

	ready;
	movers++;
	atomic {
		if
		:: depot[0] > 0 -> depot[0]--; hands++; got = true; changed_look()
		:: else
		fi
	};
	if
	:: got -> got = false; give(SHARDS - 1, 1, true)
	:: else
	fi;
	movers--;
	done++
}
#define TRIMMERS 1
#else
#define TRIMMERS 0
#endif

#define THREADS (WAITERS + 1 + (ROBS > 0) + (GIVEN > 0) + SLOWS + TRIMMERS)

/* -------------------------------------------------------------- the owner */

/* bp_cache_spill(): how many, in k. */
inline spill(most)
{
	store(MOVING, 1);
#if !NO_FLAG_FENCE
	full_fence();
#endif
	n = most; k = 0;
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
		atomic { k = n; cached = cached - n; hands = hands + n };
		break
	   :: else ->
		store_bottom(own_bottom + n);
		t = limit; b = MIN(own_bottom, t); t = top;
		do
		:: k < n && t < b ->
			atomic {
				if
				:: top == t -> top++; t++; cached--; hands++; k++
				:: else -> t = top
				fi
			}
		:: else -> break
		od;
		t = 0; b = 0;
		if
		:: k > 0 -> break
		:: else
		fi
	   fi
	od;
	n = 0;
	if
	:: k > 0 -> give(SHARDS - 1, k, true)
	:: else
	fi;
	if
	:: !inner -> store(MOVING, 0)
	:: else
	fi
}

/* bp_magazine_show(): one put is in. */
inline show_put()
{
	owner_fence();
	if
	:: alarm && (!NO_ALARM_IN_PUT || contested) ->
		/* bp_cache_answer() */
#if !CLEARED_LATE
		store(ALARM, 0);
#endif
#if !NO_ANSWER_FENCE
		full_fence();
#endif
		if
		:: scarce ->
			do
			:: spill(DEPTH);
			   if
			   :: k == 0 -> break
			   :: else
			   fi
			od;
#if !ROOM_LEFT
			room = own_bottom;
#endif
		:: else
		fi;
#if CLEARED_LATE
		alarm = false;
#endif
		atomic { putting = 0; taking = false }
	:: atomic { !alarm || (NO_ALARM_IN_PUT && !contested) ->
		putting = 0; taking = false }
	fi
}

active proctype owner()
{
	mtype what; byte v;
	byte me = OWNER, t, b, e, s, n, k, ops, mine = MINE;
	byte room;
	bool got, first, so, saw, wt, mov, inner, contested;
#if MOVERS_APART
	bool same;
#endif

	atomic {
		depot[SHARDS - 1] = STORED;
		room = (scarce -> own_bottom : START + DEPTH);
#ifdef SLOW
		word[1] = 1;
#endif
		ready = true
	};
#ifdef ENTER
	listed = true;
	full_fence();
	alarm = !NO_ENTER_ALARM;
#endif
	do
	:: mine > 0 ->
		mine--;
		if
		:: own_bottom == room ->
			if
			:: scarce -> give(SHARDS - 1, 1, false)
			:: else ->
				do
				:: room = top + DEPTH;
				   if
				   :: own_bottom != room -> break
				   :: else -> spill(DEPTH / 2 + 1); k = 0
				   fi
				od;
				goto put
			fi
		:: else ->
put:			atomic {
				nfull(stores);
				putting = own_bottom; own_bottom++; cached++;
				stores!BOTTOM,own_bottom
			};
shown:			show_put();
			k = 0;
			if
			:: inner -> inner = false; store(MOVING, 0)
			:: contested -> contested = false; goto near
			:: else
			fi
		fi
	:: ops < OPS ->
		ops++;
		/* bp_fast_take(), and bp_magazine_take(), which does the same
		   once more. */
		atomic {
			nfull(stores);
			own_bottom--; taking = true; note();
			stores!BOTTOM,own_bottom
		};
		owner_fence();
		if
		:: atomic { own_bottom >= limit ->
			cached--; taking = false; got = true }
		:: else ->
			store_bottom(own_bottom + 1);
			t = limit; b = MIN(own_bottom, t); t = top;
			do
			:: t < b ->
				atomic {
					if
					:: top == t ->
						top++; cached--;
						got = true; break
					:: else -> t = top
					fi
				}
			:: else -> break
			od;
			t = 0; b = 0;
			/* Others may have seen one less meanwhile. */
			if
			:: NO_ALARM_IN_TAKE -> taking = false
			:: else -> contested = true; goto shown
			fi
		fi;
near:		if
		:: got -> goto have
		:: else
		fi;
		/* take_near() */
		if
		:: !scarce ->
			/* refill() */
			store(MOVING, 1);
#if !NO_FLAG_FENCE
			full_fence();
#endif
			if
			:: NO_SECOND_LOOK || !scarce ->
				do
				:: atomic {
					depot[s != OWN_SHARD] > 0 ->
					n = MIN(depot[s != OWN_SHARD], 2);
					depot[s != OWN_SHARD] = depot[s != OWN_SHARD] - n;
					hands = hands + n - 1;
					changed_look(); note(); break
				   }
				:: depot[s != OWN_SHARD] == 0 ->
					if
					:: s + 1 < SHARDS -> s++
					:: else -> break
					fi
				od;
				s = 0
			:: else
			fi;
			if
			:: n > 0 -> n--; mine++
			:: else -> got = true /* not */
			fi;
			if
			:: n > 0 ->
				n = 0;
				room = top + DEPTH;
				atomic {
					nfull(stores);
					own_bottom++; cached++; hands--;
					stores!BOTTOM,own_bottom
				};
				inner = true;
				goto shown
			:: else -> store(MOVING, 0)
			fi;
			if
			:: got -> got = false
			:: else -> goto next
			fi
		:: else ->
			take_one(OWN_SHARD);
			if
			:: got -> goto have
			:: else
			fi
		fi;
#ifdef OWNER_LOOKS
		find_idle();
#endif
have:		if
		:: got -> got = false; mine++
		:: else
		fi;
next:		skip
	:: mine == 0 -> break
	od;
	done++
}

active proctype rest()
{
	done == THREADS && empty(stores);
	assert(depot[0] + depot[1] + cached == BUFS && hands == 0 &&
	       movers == 0 && waiters == 0 && !moving &&
	       bottom == own_bottom && own_bottom - top == cached)
}
