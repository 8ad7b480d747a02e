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

#define CPU_ANY UINT32_MAX
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

/* Whether what the thread has cached is still for where it is. */
static inline bool is_here(const struct bp_fast *c)
{
	return CK_CC_LIKELY(c->cpu == CPU_ANY) || c->cpu == current_cpu();
}

#endif
