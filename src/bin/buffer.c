/*
 * buffer.c: strings that grow, and JSON in them.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "eventq.h"

/* OIDs of pg_type.dat that JSON has its own form for */
#define OID_BOOL	16
#define OID_INT8	20
#define OID_INT2	21
#define OID_INT4	23
#define OID_JSON	114
#define OID_FLOAT4	700
#define OID_FLOAT8	701
#define OID_NUMERIC 1700
#define OID_JSONB	3802

void *
eq_realloc(void *old, size_t size)
{
	void *new = realloc(old, size ? size : 1);

	if (new == NULL)
	{
		fputs("eventq: out of memory\n", stderr);
		exit(EQ_EXIT_ERROR);
	}
	return new;
}

/* Allocates zeroed memory. */
void *
eq_alloc(size_t size)
{
	return memset(eq_realloc(NULL, size), 0, size);
}

char *
eq_strdup(const char *string)
{
	size_t size = strlen(string) + 1;

	return memcpy(eq_realloc(NULL, size), string, size);
}

void
eq_buf_init(EqBuf *buf)
{
	buf->size = 256;
	buf->data = eq_alloc(buf->size);
	buf->length = 0;
}

void
eq_buf_reset(EqBuf *buf)
{
	buf->length = 0;
	buf->data[0] = '\0';
}

void
eq_buf_free(EqBuf *buf)
{
	free(buf->data);
	buf->data = NULL;
	buf->length = buf->size = 0;
}

/* Makes room for so many more bytes and the 0 byte. */
static void
reserve(EqBuf *buf, size_t more)
{
	size_t size = buf->size;

	if (more > SIZE_MAX / 4 || buf->length > SIZE_MAX / 4)
	{
		fputs("eventq: out of memory\n", stderr);
		exit(EQ_EXIT_ERROR);
	}
	while (size < buf->length + more + 1)
		size *= 2;
	if (size != buf->size)
	{
		buf->data = eq_realloc(buf->data, size);
		buf->size = size;
	}
}

void
eq_buf_bytes(EqBuf *buf, const char *bytes, size_t length)
{
	reserve(buf, length);
	memcpy(buf->data + buf->length, bytes, length);
	buf->length += length;
	buf->data[buf->length] = '\0';
}

void
eq_buf_string(EqBuf *buf, const char *string)
{
	eq_buf_bytes(buf, string, strlen(string));
}

void
eq_buf_char(EqBuf *buf, char c)
{
	eq_buf_bytes(buf, &c, 1);
}

void
eq_buf_printf(EqBuf *buf, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (length < 0)
		return;
	reserve(buf, length);
	va_start(args, fmt);
	vsnprintf(buf->data + buf->length, length + 1, fmt, args);
	va_end(args);
	buf->length += length;
}

void
eq_buf_json_string(EqBuf *buf, const char *string)
{
	eq_buf_char(buf, '"');
	for (const unsigned char *p = (const unsigned char *) string; *p; p++)
	{
		if (*p == '"' || *p == '\\')
			eq_buf_printf(buf, "\\%c", *p);
		else if (*p == '\n')
			eq_buf_string(buf, "\\n");
		else if (*p == '\t')
			eq_buf_string(buf, "\\t");
		else if (*p < 0x20 || *p == 0x7f)
			eq_buf_printf(buf, "\\u%04x", *p);
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			eq_buf_printf(buf, "\\u%04x", *++p);
		else
			eq_buf_char(buf, *p);
	}
	eq_buf_char(buf, '"');
}

/*
 * JSON of the server, on one line.  A control character that it allows stands in a string,
 * where its escape is the same.
 */
static void
add_json(EqBuf *buf, const char *json)
{
	for (const unsigned char *p = (const unsigned char *) json; *p; p++)
	{
		if (*p == '\n' || *p == '\r')
			eq_buf_char(buf, ' ');
		else if (*p == 0x7f)
			eq_buf_string(buf, "\\u007f");
		else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			eq_buf_printf(buf, "\\u%04x", *++p);
		else
			eq_buf_char(buf, *p);
	}
}

/* NaN and Infinity are no JSON. */
static bool
is_json_number(const char *text)
{
	return text[0] == '-' ? (text[1] >= '0' && text[1] <= '9')
						  : (text[0] >= '0' && text[0] <= '9');
}

/* A field of a result as JSON: numbers exactly as the server wrote them. */
static void
add_json_value(EqBuf *buf, const PGresult *result, int row, int column)
{
	const char *value = PQgetvalue(result, row, column);

	if (PQgetisnull(result, row, column))
	{
		eq_buf_string(buf, "null");
		return;
	}
	switch (PQftype(result, column))
	{
		case OID_BOOL:
			eq_buf_string(buf, value[0] == 't' ? "true" : "false");
			break;
		case OID_INT2:
		case OID_INT4:
		case OID_INT8:
		case OID_FLOAT4:
		case OID_FLOAT8:
		case OID_NUMERIC:
			if (is_json_number(value))
				eq_buf_string(buf, value);
			else
				eq_buf_json_string(buf, value);
			break;
		case OID_JSON:
		case OID_JSONB:
			add_json(buf, value);
			break;
		default:
			eq_buf_json_string(buf, value);
	}
}

/* A row as an object. */
void
eq_buf_json_row(EqBuf *buf, const PGresult *result, int row)
{
	eq_buf_char(buf, '{');
	for (int i = 0; i < PQnfields(result); i++)
	{
		if (i > 0)
			eq_buf_string(buf, ", ");
		eq_buf_json_string(buf, PQfname(result, i));
		eq_buf_string(buf, ": ");
		add_json_value(buf, result, row, i);
	}
	eq_buf_char(buf, '}');
}
