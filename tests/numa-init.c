/* SPDX-License-Identifier: MIT */
/*
 * numa-init.c - process 1 of the virtual machines that numa.sh boots
 *
 * Runs the command that stands behind "--" on the kernel's command line, and
 * prints a verdict as the last line before the machine goes off: that line is
 * all that numa.sh believes.  The command must have come to its end, with
 * status 0, and the kernel must have killed nobody for want of memory.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static _Noreturn void finish(const char *verdict)
{
	printf("numa-init: %s\n", verdict);
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	_exit(1); /* the kernel panics */
}

static void mount_at(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL) != 0)
		finish("FAILED: a file system cannot be mounted");
}

static void set(const char *file, const char *value)
{
	int fd = open(file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 ||
	    write(fd, value, strlen(value)) != (ssize_t) strlen(value))
		finish("FAILED: a parameter of the kernel cannot be set");
	close(fd);
}

/* How many processes the kernel has killed for want of memory; -1 unknown. */
static long oom_kills(void)
{
	FILE *file = fopen("/proc/vmstat", "re");
	char line[128];
	long n = -1;

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "oom_kill ", 9) == 0)
			n = strtol(line + 9, NULL, 10);
	if (file)
		fclose(file);
	return n;
}

/* The command's wait status, when it has come to its end. */
static int run(char **argv)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0) {
		execv(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	/* Orphans end here, too. */
	for (pid_t pid = 0; pid != child;) {
		pid = wait(&status);
		if (pid < 0)
			finish("FAILED: no command");
	}
	return status;
}

int main(int argc, char **argv)
{
	int status;

	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	mount_at("devtmpfs", "/dev");
	mount_at("debugfs", "/sys/kernel/debug");
	mkdir("/tmp", 0777);
	/* What a node has free is to be had, not in the lists of some CPU. */
	set("/proc/sys/vm/percpu_pagelist_high_fraction", "2147483647");
	/* Huge pages for those who ask. */
	set("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	puts("numa-init: up");

	if (argc < 2)
		finish("FAILED: no command");
	/* For nobody else: where there are cpusets, hwloc leaves out the nodes
	   that have no memory. */
	if (strcmp(argv[1], "/check_room") == 0)
		mount_at("cgroup2", "/sys/fs/cgroup");
	status = run(argv + 1);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		finish("FAILED: the tests");
	if (oom_kills() != 0)
		finish("FAILED: a process was killed for want of memory");
	finish("passed");
}
