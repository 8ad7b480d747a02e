/* SPDX-License-Identifier: MIT */
/*
 * cpu.h - which CPU the calling thread is on, for the moment
 *
 * glibc (from 2.35) registers an rseq area for each thread, in which the kernel
 * keeps the number up to date: one load (glibc's manual, "Restartable
 * Sequences"; Linux's include/uapi/linux/rseq.h has the layout).  Where there is
 * none, sched_getcpu() asks the vdso.
 */
#ifndef CPU_H
#define CPU_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

#define RSEQ_CPU_ID 4 /* where in the area; negative until it is registered */

/* Of glibc; not there with an older one. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

static inline uint32_t current_cpu(void)
{
	int cpu = -1;

	if (CK_CC_LIKELY(&__rseq_size != NULL && __rseq_size > 0))
		cpu = *(volatile const int *) ((const char *)
		                                       __builtin_thread_pointer() +
		                               __rseq_offset + RSEQ_CPU_ID);
	return CK_CC_LIKELY(cpu >= 0) ? (uint32_t) cpu
	                              : (uint32_t) sched_getcpu();
}

/* What no CPU is. */
static const uint32_t no_cpu = UINT32_MAX;

/* What this thread has cached is for this CPU, where it is. */
static inline void stay_on(struct bp_fast *c, uint32_t cpu)
{
	c->cpu = cpu;
	c->cpu_at = &no_cpu;
	if (&__rseq_size != NULL && __rseq_size > 0)
		c->cpu_at = (const uint32_t *) ((const char *)
		                                        __builtin_thread_pointer() +
		                                __rseq_offset + RSEQ_CPU_ID);
}

/* For any. */
static inline void stay_anywhere(struct bp_fast *c)
{
	c->cpu = 0;
	c->cpu_at = &c->cpu;
}

/* Whether it is there still, by the fewest instructions: false may be wrong. */
static inline bool stays(const struct bp_fast *c)
{
	return CK_CC_LIKELY(*(volatile const uint32_t *) c->cpu_at == c->cpu);
}

static inline bool is_here(const struct bp_fast *c)
{
	return stays(c) || c->cpu == current_cpu();
}

#endif
