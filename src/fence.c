/* SPDX-License-Identifier: MIT */
#include "fence.h"

#include <ck_pr.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

static int membarrier(int command)
{
	return (int) syscall(SYS_membarrier, command, 0, 0);
}

bool bp_fence_init(void)
{
	return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

bool bp_fence_all(bool fenced)
{
	ck_pr_fence_memory();
	return fenced || membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}
