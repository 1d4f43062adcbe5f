/*
 * pattern.c: event patterns as EventEmitter2 has them.
 *
 * Segments split at dots; * is any one segment, ** any number of them, also
 * none.  Matching goes back to the last ** only, so it takes at most
 * (segments of the type) x (segments of the pattern) steps.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "common/pattern.h"
#include "event_queue.h"
#include "tenant/tenant.h"

PG_FUNCTION_INFO_V1(eq_event_matches);

/* The rest after the first segment; NULL if there is none. */
static const char *
next_segment(const char *s)
{
	const char *dot = strchr(s, '.');

	return dot ? dot + 1 : NULL;
}

static size_t
segment_length(const char *s)
{
	return strcspn(s, ".");
}

static bool
segment_is(const char *s, const char *wanted)
{
	return segment_length(s) == strlen(wanted) &&
		   strncmp(s, wanted, strlen(wanted)) == 0;
}

/* EQ006 or EQ023 if it is no pattern. */
void
eq_check_pattern(const char *pattern)
{
	eq_check_name("event pattern", pattern, EQ_MAX_NAME);
	for (const char *s = pattern; s; s = next_segment(s))
	{
		if (segment_length(s) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_EQ_INVALID_PATTERN),
					 errmsg("event pattern \"%s\" has an empty segment", pattern)));
		if (memchr(s, '*', segment_length(s)) && !segment_is(s, "*") &&
			!segment_is(s, "**"))
			ereport(
				ERROR,
				(errcode(ERRCODE_EQ_INVALID_PATTERN),
				 errmsg("event pattern \"%s\" has a wildcard inside a segment",
						pattern),
				 errhint(
					 "* stands for one whole segment, ** for any number of them.")));
	}
}

bool
eq_pattern_matches(const char *event_type, const char *pattern)
{
	const char *after_star = NULL; /* pattern behind the last ** */
	const char *retry_from = NULL; /* what that ** takes up next */
	bool have_star = false;

	for (;;)
	{
		if (pattern && segment_is(pattern, "**"))
		{
			have_star = true;
			pattern = after_star = next_segment(pattern);
			retry_from = event_type;
			if (pattern == NULL)
				return true; /* takes all that is left */
		}
		else if (event_type == NULL && pattern == NULL)
			return true;
		else if (event_type && pattern &&
				 (segment_is(pattern, "*") ||
				  (segment_length(pattern) == segment_length(event_type) &&
				   strncmp(pattern, event_type, segment_length(pattern)) == 0)))
		{
			event_type = next_segment(event_type);
			pattern = next_segment(pattern);
		}
		else if (have_star && retry_from)
		{
			event_type = retry_from = next_segment(retry_from);
			pattern = after_star;
		}
		else
			return false;
	}
}

Datum
eq_event_matches(PG_FUNCTION_ARGS)
{
	char *event_type = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *pattern = text_to_cstring(PG_GETARG_TEXT_PP(1));

	eq_check_pattern(pattern);
	PG_RETURN_BOOL(eq_pattern_matches(event_type, pattern));
}
