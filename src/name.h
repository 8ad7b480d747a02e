/* SPDX-License-Identifier: MIT */
/* name.h - what pools are called, and how that is printed */
#ifndef NAME_H
#define NAME_H

#include <stdbool.h>

#define NAME_ROOM 32               /* bytes, and the last is 0 */
#define QUOTED_ROOM (6 * NAME_ROOM) /* of which each may become \u0001 */

/* Not too long, and UTF-8: else it has no place in JSON or in a label. */
bool bp_name_is_good(const char *name);

/* As it stands in a JSON string, or in a line of text. */
void bp_name_quote(char out[QUOTED_ROOM], const char *name);

/* As the value of a Prometheus label. */
void bp_name_quote_label(char out[QUOTED_ROOM], const char *name);

#endif
