/* SPDX-License-Identifier: MIT */
#include "name.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* How many bytes the character at s has in UTF-8; 0: it is none. */
static unsigned utf8_len(const char *s)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char) *s;
	unsigned n = first < 0x80   ? 1
	             : first < 0xc0 ? 0
	             : first < 0xe0 ? 2
	             : first < 0xf0 ? 3
	             : first < 0xf8 ? 4
	                            : 0;
	uint32_t c = n < 2 ? first : first & (0x7fu >> n);

	for (unsigned i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	/* Not longer than need be, no half of a UTF-16 pair. */
	if (n == 0 || c < least[n] || c >> 11 == 0xd800 >> 11 || c > 0x10ffff)
		return 0;
	return n;
}

bool bp_name_is_good(const char *name)
{
	if (strnlen(name, NAME_ROOM) == NAME_ROOM)
		return false;
	while (*name != '\0') {
		unsigned n = utf8_len(name);

		if (n == 0)
			return false;
		name += n;
	}
	return true;
}

/* Both know \", \\ and \n; a label may have all other bytes as they are. */
static void quote(char *out, const char *name, bool is_label)
{
	for (; *name != '\0'; name++) {
		bool is_control = (unsigned char) *name < ' ' || *name == 0x7f;

		if (*name == '"' || *name == '\\')
			out += sprintf(out, "\\%c", *name);
		else if (*name == '\n')
			out += sprintf(out, "\\n");
		else if (is_control && !is_label)
			out += sprintf(out, "\\u%04x", (unsigned) *name);
		else
			*out++ = *name;
	}
	*out = '\0';
}

void bp_name_quote(char out[QUOTED_ROOM], const char *name)
{
	quote(out, name, false);
}

void bp_name_quote_label(char out[QUOTED_ROOM], const char *name)
{
	quote(out, name, true);
}
