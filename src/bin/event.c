/*
 * event.c: the noun event.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "eventq.h"

static const char *pattern, *aggregate_type, *tenant, *after, *count;
static bool follow;
static const EqOption tail_options[] = {
	{"type", "PATTERN", &pattern, NULL, "events of this pattern, as 'lead.*'"},
	{"aggregate", "TYPE", &aggregate_type, NULL, "of this type of aggregate"},
	{"tenant", "TENANT", &tenant, NULL, "of this tenant"},
	{"after", "POSITION", &after, NULL,
	 "those after a position, in place of the last ones"},
	{"count", "N", &count, NULL, "so many (default 10)"},
	{"follow", NULL, NULL, &follow, "go on with what comes"},
	{NULL}};

#define EVENT_COLUMNS                                                               \
	"position, created_at, tenant_id, aggregate_type, aggregate_id, version, "      \
	"event_type, event_data"

/* $1 pattern, $2 aggregate type, as read_all takes them */
#define FILTER                                                                      \
	"nullif(jsonb_strip_nulls(jsonb_build_object('event_type', $1::text, "          \
	"'aggregate_type', $2::text)), '{}')"

/* A line for each event; the heading of a table can't know how wide the next ones are. */
static void
print_events(EqCli *cli, const PGresult *result)
{
	if (cli->format != EQ_FORMAT_TABLE)
	{
		eq_print_result(cli, result);
		return;
	}
	for (int row = 0; row < PQntuples(result); row++)
	{
		EqBuf line;

		eq_buf_init(&line);
		for (int i = 0; i < PQnfields(result); i++)
		{
			if (i == 5) /* aggregate_id v3 */
				eq_buf_string(&line, " v");
			else if (i > 0)
				eq_buf_char(&line, i == 4 ? '/' : ' ');
			eq_buf_string(&line, PQgetvalue(result, row, i));
		}
		eq_print_line(cli, line.data);
		eq_buf_free(&line);
	}
}

/* Sleeps until there is more; false after an error. */
static bool
wait_for_more(EqCli *cli, const char *position)
{
	const char *params[1] = {position};
	PGresult *result = eq_query(
		cli, "CALL event_queue.wait_for_events($1::bigint, '1 minute', NULL)", 1,
		params);

	PQclear(result);
	return result != NULL;
}

/*
 * With --follow from where the first look ended: the watermark is asked for before it, so
 * an event that it showed may come again and is left out by its position.
 */
static int
cmd_event_tail(EqCli *cli, int argc, char **argv)
{
	const char *params[5] = {pattern, aggregate_type, tenant, after,
							 count ? count : "10"};
	char position[32];
	PGresult *result;
	long number;

	if (!eq_parse_number(params[4], 0, 100000, &number))
		return eq_usage(cli, "--count takes a number to 100000");
	if (follow && cli->format == EQ_FORMAT_JSON)
		cli->format = EQ_FORMAT_JSONL;
	result = eq_query(cli, "SELECT coalesce($1::bigint, event_queue.watermark())", 1,
					  &after);
	if (result == NULL)
		return EQ_EXIT_ERROR;
	snprintf(position, sizeof(position), "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	/* The server sleeps until there is more: the role's limits are for other statements. */
	if (follow && eq_do(cli,
						"SELECT set_config(name, '0', false) FROM pg_settings "
						"WHERE name IN ('statement_timeout', 'transaction_timeout')",
						0, NULL) != EQ_EXIT_OK)
		return EQ_EXIT_ERROR;
	params[3] = position;
	if (after == NULL)
	{
		result = eq_query(
			cli,
			"SELECT * FROM (SELECT " EVENT_COLUMNS " FROM event_queue.event_store e "
			"WHERE ($1::text IS NULL OR event_queue.event_matches(event_type, $1)) "
			"AND ($2::text IS NULL OR aggregate_type = $2) "
			"AND ($3::text IS NULL OR tenant_id = $3) AND position <= $4::bigint "
			"ORDER BY position DESC LIMIT $5::int) e ORDER BY position",
			5, params);
		if (result == NULL)
			return EQ_EXIT_ERROR;
		print_events(cli, result);
		PQclear(result);
		if (!follow)
			return EQ_EXIT_OK;
		cli->quiet = true; /* one heading in CSV */
	}
	for (;;)
	{
		if (follow)
			params[4] = "1000";
		result = eq_query(cli,
						  "SELECT " EVENT_COLUMNS
						  " FROM event_queue.read_all($4::bigint, "
						  "greatest($5::int, 1), $3, " FILTER ")",
						  5, params);
		if (result == NULL)
			return EQ_EXIT_ERROR;
		if (PQntuples(result) > 0 || !follow)
			print_events(cli, result);
		if (PQntuples(result) > 0)
			snprintf(position, sizeof(position), "%s",
					 PQgetvalue(result, PQntuples(result) - 1, 0));
		number = PQntuples(result);
		PQclear(result);
		if (!follow)
			return EQ_EXIT_OK;
		if (!eq_flush(cli))
			return EQ_EXIT_ERROR;
		cli->quiet = cli->quiet || number > 0;
		/* Nothing of what the filter wants up to here: wait above it. */
		if (number == 0)
		{
			char watermark[32];

			result = eq_query(cli,
							  "SELECT greatest(event_queue.watermark(), $1::bigint)",
							  1, &params[3]);
			if (result == NULL)
				return EQ_EXIT_ERROR;
			snprintf(watermark, sizeof(watermark), "%s", PQgetvalue(result, 0, 0));
			PQclear(result);
			if (strcmp(watermark, position) != 0)
			{
				/* what came between the two looks is looked at once more */
				result = eq_query(cli,
								  "SELECT 1 FROM event_queue.read_all($4::bigint, "
								  "greatest($5::int, 1), $3, " FILTER ") LIMIT 1",
								  5, params);
				if (result == NULL)
					return EQ_EXIT_ERROR;
				number = PQntuples(result);
				PQclear(result);
				if (number > 0)
					continue;
				snprintf(position, sizeof(position), "%s", watermark);
			}
			if (!wait_for_more(cli, position))
				return EQ_EXIT_ERROR;
		}
	}
}

static const char *from_version, *to_version;
static const EqOption ls_options[] = {
	{"from", "VERSION", &from_version, NULL, "from this version on"},
	{"to", "VERSION", &to_version, NULL, "up to this version"},
	{"tenant", "TENANT", &tenant, NULL, "of this tenant"},
	{NULL}};

static int
cmd_event_ls(EqCli *cli, int argc, char **argv)
{
	const char *params[5] = {argv[0], argv[1], from_version ? from_version : "1",
							 to_version, tenant};

	return eq_show(
		cli,
		"SELECT version, position, created_at, event_type, id, "
		"metadata ->> 'actor' AS actor, event_data "
		"FROM event_queue.read_aggregate($1, $2, $3::int, $4::int, $5) ORDER BY version",
		5, params);
}

static int
cmd_event_show(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};

	/* a position is a number, an id is not */
	if (strspn(argv[0], "0123456789") == strlen(argv[0]))
		return eq_show_card(
			cli, "SELECT * FROM event_queue.event_store WHERE position = $1::bigint",
			1, params, "no such event");
	return eq_show_card(cli,
						"SELECT * FROM event_queue.event_store WHERE id = $1::uuid",
						1, params, "no such event");
}

static const EqOption tenant_option[] = {
	{"tenant", "TENANT", &tenant, NULL, "of this tenant"}, {NULL}};

static int
cmd_event_trace(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argv[0], tenant};

	return eq_show(cli,
				   "SELECT depth, kind, id, name, caused_by, at, detail "
				   "FROM event_queue.trace($1::uuid, $2)",
				   2, params);
}

static const char *expect, *id, *metadata;
static const EqOption append_options[] = {
	{"expect", "VERSION", &expect, NULL,
	 "fail unless this is the aggregate's version: a number, no_stream, exists"},
	{"id", "UUID", &id, NULL, "makes it safe to repeat"},
	{"metadata", "JSON", &metadata, NULL, "an object"},
	{"tenant", "TENANT", &tenant, NULL, "whose it is"},
	{NULL}};

static int
cmd_event_append(EqCli *cli, int argc, char **argv)
{
	const char *params[8] = {argv[0],
							 argv[1],
							 argv[2],
							 argc > 3 ? argv[3] : "{}",
							 expect ? expect : "any",
							 id,
							 metadata ? metadata : "{}",
							 tenant};

	return eq_show(
		cli,
		"SELECT * FROM event_queue.append($1, $2, $3, $4::jsonb, "
		"expected_version => $5::text, id => $6::uuid, metadata => $7::jsonb, "
		"tenant_id => $8)",
		8, params);
}

static const char *at_version, *at_time;
static const EqOption state_options[] = {
	{"at-version", "VERSION", &at_version, NULL, "after this version"},
	{"at-time", "TIME", &at_time, NULL, "at this time"},
	{"tenant", "TENANT", &tenant, NULL, "of this tenant"},
	{NULL}};

static int
cmd_event_state(EqCli *cli, int argc, char **argv)
{
	const char *params[5] = {argv[0], argv[1], at_version, at_time, tenant};

	return eq_show_card(
		cli,
		"SELECT $1 AS aggregate_type, $2 AS aggregate_id, s AS state "
		"FROM event_queue.aggregate_state($1, $2, $3::int, $4::timestamptz, $5) s "
		"WHERE s IS NOT NULL",
		5, params, "it had no event");
}

const EqCommand eq_event_commands[] = {
	{"event", "tail", cmd_event_tail, 0, 0, "",
	 "Prints the last events, and with --follow those that come", tail_options, 0},
	{"event", "ls", cmd_event_ls, 2, 2, "TYPE ID",
	 "Lists the events of an aggregate", ls_options, 0},
	{"event", "show", cmd_event_show, 1, 1, "POSITION|UUID", "Shows an event", NULL,
	 0},
	{"event", "state", cmd_event_state, 2, 2, "TYPE ID",
	 "Shows the state of an aggregate", state_options, 0},
	{"event", "trace", cmd_event_trace, 1, 1, "UUID",
	 "Shows what led to an event and what came of it", tenant_option, 0},
	{"event", "append", cmd_event_append, 3, 4, "TYPE ID EVENT_TYPE [DATA]",
	 "Appends an event", append_options, 0},
	{NULL}};
