/*
 * dead.c: the noun dead: dead letters, one by one and by filter.
 */
#include <string.h>

#include "eventq.h"

static const char *queue, *name, *tenant, *sqlstate, *since, *max, *payload;

#define NAME_HELP	  "of this job name"
#define TENANT_HELP	  "of this tenant"
#define SQLSTATE_HELP "whose last error has this code"
#define SINCE_HELP	  "that died after this time, or ago ('1 hour')"
#define MAX_HELP	  "at most so many, the oldest first"

static const EqOption ls_options[] = {
	{"name", "NAME", &name, NULL, NAME_HELP},
	{"tenant", "TENANT", &tenant, NULL, TENANT_HELP},
	{"sqlstate", "CODE", &sqlstate, NULL, SQLSTATE_HELP},
	{"since", "TIME", &since, NULL,
	 "that died after this time, or ago (default '1 day')"},
	{"max", "N", &max, NULL, "at most so many (default 100)"},
	{NULL}};
static const EqOption retry_options[] = {
	{"queue", "QUEUE", &queue, NULL, "of this queue"},
	{"name", "NAME", &name, NULL, NAME_HELP},
	{"tenant", "TENANT", &tenant, NULL, TENANT_HELP},
	{"sqlstate", "CODE", &sqlstate, NULL, SQLSTATE_HELP},
	{"since", "TIME", &since, NULL, SINCE_HELP},
	{"max", "N", &max, NULL, MAX_HELP},
	{"payload", "JSON", &payload, NULL, "a new one in place of the old"},
	{NULL}};
static const EqOption discard_options[] = {
	{"queue", "QUEUE", &queue, NULL, "of this queue"},
	{"name", "NAME", &name, NULL, NAME_HELP},
	{"tenant", "TENANT", &tenant, NULL, TENANT_HELP},
	{"sqlstate", "CODE", &sqlstate, NULL, SQLSTATE_HELP},
	{"since", "TIME", &since, NULL, SINCE_HELP},
	{"max", "N", &max, NULL, MAX_HELP},
	{NULL}};

/*
 * --since as a time: what is no time is an interval before now.  The server reads both,
 * so all its forms are understood.  False after an error.
 */
static bool
read_since(EqCli *cli, char *time, size_t size, const char *default_since)
{
	const char *text = since ? since : default_since;
	const char *params[1] = {text};
	PGresult *result;
	bool interval;

	if (text == NULL)
		return true;
	if (!eq_connect(cli))
		return false;
	result = PQexecParams(cli->conn, "SELECT now() - $1::interval", 1, NULL, params,
						  NULL, NULL, 0);
	interval = PQresultStatus(result) == PGRES_TUPLES_OK;
	if (!interval)
	{
		PQclear(result);
		result = eq_query(cli, "SELECT $1::timestamptz", 1, params);
		if (result == NULL)
			return false;
	}
	snprintf(time, size, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	return true;
}

static int
cmd_dead_ls(EqCli *cli, int argc, char **argv)
{
	char time[64];
	const char *params[6] = {
		time, argc > 0 ? argv[0] : NULL, max ? max : "100", name, tenant, sqlstate};
	long number;

	if (!eq_parse_number(params[2], 1, 100000, &number))
		return eq_usage(cli, "--max takes a number from 1 to 100000");
	if (!read_since(cli, time, sizeof(time), "1 day"))
		return EQ_EXIT_ERROR;
	return eq_show(
		cli,
		"SELECT job_id, queue_name AS queue, name, tenant_id, died_at, reason, failures, "
		"last_sqlstate, last_error FROM event_queue.failed_jobs($2, $1::timestamptz, "
		"CASE WHEN coalesce($4, $5, $6) IS NULL THEN $3::int ELSE 100000 END) "
		"WHERE ($4::text IS NULL OR name = $4) AND ($5::text IS NULL OR tenant_id = $5) "
		"AND ($6::text IS NULL OR last_sqlstate = $6) LIMIT $3::int",
		6, params);
}

static bool
is_job_id(EqCli *cli, const char *text)
{
	if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text) &&
		strlen(text) < 20)
		return true;
	eq_usage(cli, "\"%s\" is not a job id", text);
	return false;
}

static int
cmd_dead_show(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};

	if (!is_job_id(cli, argv[0]))
		return EQ_EXIT_USAGE;
	return eq_show_card(cli,
						"SELECT * FROM event_queue.dead_letters WHERE job_id = $1",
						1, params, "no such dead letter");
}

/* How many of each queue the filter lets through. */
static const char *const preview_sql =
	"SELECT queue, count(*) AS jobs FROM (SELECT queue FROM event_queue.dead_letters "
	"WHERE ($1::text IS NULL OR queue = $1) AND ($2::text IS NULL OR name = $2) "
	"AND ($3::text IS NULL OR tenant_id = $3) AND ($4::text IS NULL OR last_sqlstate = $4) "
	"AND ($5::timestamptz IS NULL OR died_at > $5::timestamptz) LIMIT $6::bigint) d "
	"GROUP BY queue ORDER BY queue";

/* The one that is named, also if it is not there (EQ010), or all. */
#define EACH_QUEUE                                                                  \
	"(SELECT $1 AS name WHERE $1::text IS NOT NULL UNION ALL "                      \
	"SELECT name FROM event_queue.queue WHERE $1::text IS NULL) q"

/* All that the filter lets through, queue by queue if none is named. */
static int
do_many(EqCli *cli, const char *sql, bool with_payload, bool deletes,
		const char *what)
{
	char time[64];
	const char *params[7];
	bool has_filter = queue || name || tenant || sqlstate || since || max;

	if (!eq_may_do_many(cli, has_filter, deletes))
		return EQ_EXIT_USAGE;
	if (!read_since(cli, time, sizeof(time), NULL))
		return EQ_EXIT_ERROR;
	params[0] = queue;
	params[1] = name;
	params[2] = tenant;
	params[3] = sqlstate;
	params[4] = since ? time : NULL;
	params[5] = max;
	params[6] = payload;
	if (cli->dry_run)
		return eq_show(cli, preview_sql, 6, params);
	if (max && queue == NULL)
		return eq_usage(cli, "--max needs --queue");
	return eq_do_count(cli, sql, with_payload ? 7 : 6, params, what);
}

/* Those that are named by number. */
static int
do_these(EqCli *cli, int argc, char **argv, const char *sql, int n_params,
		 const char *what)
{
	int status = EQ_EXIT_OK;

	for (int i = 0; i < argc; i++)
	{
		if (!is_job_id(cli, argv[i]))
			return EQ_EXIT_USAGE;
	}
	if (cli->dry_run)
	{
		eq_say(cli, "%d dead letters", argc);
		return EQ_EXIT_OK;
	}
	for (int i = 0; i < argc; i++)
	{
		const char *params[2] = {argv[i], payload};

		if (eq_do(cli, sql, n_params, params) == EQ_EXIT_OK)
			eq_say(cli, "%s: %s", argv[i], what);
		else
			status = EQ_EXIT_ERROR;
		if (cli->conn == NULL)
			break;
	}
	return status;
}

static int
cmd_dead_retry(EqCli *cli, int argc, char **argv)
{
	if (argc > 0)
		return do_these(cli, argc, argv,
						"SELECT event_queue.retry_dead($1, $2::jsonb)", 2,
						"is tried again");
	return do_many(
		cli,
		"SELECT coalesce(sum(event_queue.retry_all_dead(q.name, $2, $3, $4, $5::timestamptz, "
		"$6::int, $7::jsonb)), 0) AS jobs FROM " EACH_QUEUE,
		true, false, "jobs are tried again");
}

static int
cmd_dead_discard(EqCli *cli, int argc, char **argv)
{
	if (argc > 0)
	{
		if (!eq_may_do_many(cli, true, true))
			return EQ_EXIT_USAGE;
		return do_these(cli, argc, argv, "SELECT event_queue.discard_dead($1)", 1,
						"discarded");
	}
	return do_many(
		cli,
		"SELECT coalesce(sum(event_queue.discard_all_dead(q.name, $2, $3, $4, "
		"$5::timestamptz, $6::int)), 0) AS jobs FROM " EACH_QUEUE,
		false, true, "dead letters are gone");
}

const EqCommand eq_dead_commands[] = {
	{"dead", "ls", cmd_dead_ls, 0, 1, "[QUEUE]", "Lists recent dead letters",
	 ls_options, EQ_TAKES_WATCH},
	{"dead", "show", cmd_dead_show, 1, 1, "ID",
	 "Shows a dead letter with all its errors", NULL, 0},
	{"dead", "retry", cmd_dead_retry, 0, -1, "[ID]...",
	 "Puts dead letters back, by number or by filter", retry_options,
	 EQ_TAKES_DRY_RUN | EQ_TAKES_ALL | EQ_TAKES_YES},
	{"dead", "discard", cmd_dead_discard, 0, -1, "[ID]...",
	 "Deletes dead letters, by number or by filter", discard_options, EQ_TAKES_BULK},
	{NULL}};
