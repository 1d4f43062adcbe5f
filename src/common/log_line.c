/*
 * log_line.c: writes log lines for programs: a tag and key=value.
 *
 * Each is one line, whatever users put into names and messages: a value with blanks,
 * quotes or control characters is quoted and escaped as a JSON string.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "common/json.h"
#include "common/log_line.h"

#define MAX_VALUE 1000 /* bytes of a value, unescaped */

int eq_log_attempts = EQ_LOG_FAILURES;

void
eq_log_begin(StringInfo line, const char *tag)
{
	initStringInfo(line);
	appendStringInfo(line, "[%s]", tag);
}

static bool
needs_quotes(const char *value)
{
	if (*value == '\0')
		return true;
	for (; *value; value++)
	{
		if ((unsigned char) *value <= ' ' || *value == '"' || *value == '\\' ||
			*value == '=' || *value == 0x7f)
			return true;
	}
	return false;
}

/* Adds key=value; nothing if the value is NULL. */
void
eq_log_text(StringInfo line, const char *key, const char *value)
{
	int length;

	if (value == NULL)
		return;
	appendStringInfo(line, " %s=", key);
	length = pg_mbcliplen(value, strlen(value), MAX_VALUE);
	if (!needs_quotes(value))
	{
		appendBinaryStringInfo(line, value, length);
		return;
	}
	appendStringInfoChar(line, '"');
	for (int i = 0; i < length; i++)
	{
		unsigned char c = (unsigned char) value[i];

		if (c == '"' || c == '\\')
			appendStringInfo(line, "\\%c", c);
		else if (c == '\n')
			appendStringInfoString(line, "\\n");
		else if (c == '\t')
			appendStringInfoString(line, "\\t");
		else if (c < ' ' || c == 0x7f)
			appendStringInfo(line, "\\u%04x", c);
		else
			appendStringInfoChar(line, c);
	}
	appendStringInfoChar(line, '"');
}

void
eq_log_int64(StringInfo line, const char *key, int64 value)
{
	appendStringInfo(line, " %s=" INT64_FORMAT, key, value);
}

void
eq_log_ms(StringInfo line, const char *key, int64 us)
{
	appendStringInfo(line, " %s=" INT64_FORMAT ".%03d", key, us / 1000,
					 (int) (us % 1000));
}

/* Writes the line of an attempt to the server log, never to a client. */
void
eq_log_attempt(const EqAttempt *attempt)
{
	StringInfoData line;
	JsonbValue buffer;

	eq_log_begin(&line, "processor");
	eq_log_text(&line, "queue", attempt->queue);
	eq_log_text(&line, "job", attempt->name);
	eq_log_int64(&line, "id", attempt->job_id);
	eq_log_text(&line, "tenant", attempt->tenant);
	eq_log_int64(&line, "attempt", attempt->attempt);
	eq_log_text(&line, "outcome", attempt->outcome);
	eq_log_ms(&line, "ms", Max(attempt->us, 0));
	eq_log_text(&line, "sqlstate", attempt->sqlstate);
	eq_log_text(&line, "worker", attempt->worker);
	if (attempt->metadata)
	{
		eq_log_text(&line, "correlation_id",
					eq_json_string(eq_json_member(attempt->metadata,
												  "correlation_id", &buffer)));
		eq_log_text(
			&line, "rule",
			eq_json_string(eq_json_member(attempt->metadata, "rule", &buffer)));
	}
	eq_log_text(&line, "error", attempt->message);
	ereport(LOG_SERVER_ONLY, (errmsg_internal("%s", line.data), errhidestmt(true),
							  errhidecontext(true)));
	pfree(line.data);
}
