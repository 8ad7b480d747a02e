/* SPDX-License-Identifier: MIT */
/* erase.h - by which routine the buffers of each class are erased here */
#ifndef ERASE_H
#define ERASE_H

#include "buf.h"
#include "wipe.h"

/* An enum bp_wipe for each class, of its routines (WIPES_*).  Hidden, so that it is
   found without the linker's table. */
extern __attribute__((visibility("hidden")))
uint8_t bp_erase_by[BUFPOOL_CLASSES];

/*
 * Have the best one for class k, if the table leaves it to us and it is not
 * known yet: timed on an idle buffer of the class, which is zero after that.
 */
void bp_erase_choose(unsigned k, void *base);

/* Erase all of a buffer of class k. */
void bp_erase(struct bp_buf *d, unsigned k);

#endif
