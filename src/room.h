/* SPDX-License-Identifier: MIT */
/*
 * room.h - how much memory the system has left for us
 *
 * It would not refuse: it overcommits, and kills some process when it comes to
 * populating.  So who is about to take much asks here first.  What others take
 * meanwhile cannot be known.
 */
#ifndef ROOM_H
#define ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Whether that many bytes can be populated, on this machine and within the
   limits of the cgroups that the process is in. */
bool bp_has_room(size_t len);

/* How many can, by what the files say that are in proc, which is /proc; UINT64_MAX
   if they say nothing. */
uint64_t bp_room(const char *proc);

/* The figure that follows a name in what is left of a file, at the beginning of a
   line; -1 if none does. */
int64_t bp_figure(FILE *file, const char *name);

#endif
