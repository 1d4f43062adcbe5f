/*
 * text.c: text of the database on a terminal: names, payloads and errors are written by
 * others, and must not be able to move the cursor, or to show a line in another order.
 *
 * Text is UTF-8, since each connection asks for that, whatever the locale says.
 */
#include <langinfo.h>
#include <locale.h>
#include <string.h>

#include "eventq.h"

/*
 * Has the locale functions take text as UTF-8, if there is a locale for that.  A service or
 * a container often has none set, which is "C".
 */
void
eq_use_utf8(void)
{
	static const char *const locales[] = {"C.UTF-8", "C.utf8", "en_US.UTF-8"};

	if (strcmp(nl_langinfo(CODESET), "UTF-8") == 0)
		return;
	for (int i = 0; i < lengthof(locales); i++)
	{
		if (setlocale(LC_CTYPE, locales[i]))
			return;
	}
}

/* Control characters, those of ISO 6429 that UTF-8 has, and what changes the direction of text. */
bool
eq_steers_terminal(unsigned long c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x200e || c == 0x200f ||
		   (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

/* What stands for such a character. */
void
eq_show_steering(char *into, size_t size, unsigned long c)
{
	snprintf(into, size, c < 0x100 ? "\\x%02lx" : "\\u%04lx", c);
}

/* The character at p; *length: its bytes, 0 if they are no UTF-8. */
static unsigned long
character_at(const unsigned char *p, int *length)
{
	int more = *p < 0x80 ? 0 : *p < 0xc2 ? -1 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
	unsigned long c = more <= 0 ? *p : *p & (0x3f >> more);

	*length = more < 0 || *p > 0xf4 ? 0 : more + 1;
	for (int i = 1; i < *length; i++)
	{
		if ((p[i] & 0xc0) != 0x80)
			*length = 0;
		else
			c = c << 6 | (p[i] & 0x3f);
	}
	return c;
}

/* Writes text whose lines end where it says; nothing else in it steers a terminal. */
void
eq_put_text(FILE *out, const char *text)
{
	for (const unsigned char *p = (const unsigned char *) text; *p;)
	{
		int length;
		unsigned long c = character_at(p, &length);

		if (length == 0)
			fputc('?', out);
		else if (c != '\n' && c != '\t' && eq_steers_terminal(c))
		{
			char shown[12];

			eq_show_steering(shown, sizeof(shown), c);
			fputs(shown, out);
		}
		else
			fwrite(p, 1, length, out);
		p += length ? length : 1;
	}
}
