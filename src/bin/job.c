/*
 * job.c: the noun job.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "eventq.h"

#define STATES                                                                        \
	"ready, scheduled, retrying, suspended, blocked, leased, stalled, paused, dead, " \
	"completed"

static const char *state, *name, *tenant, *limit;
static const EqOption ls_options[] = {
	{"state", "STATE", &state, NULL, STATES},
	{"name", "NAME", &name, NULL, "only jobs of this name"},
	{"tenant", "TENANT", &tenant, NULL, "only jobs of this tenant"},
	{"limit", "N", &limit, NULL, "at most so many (default 50)"},
	{NULL}};

/* A misspelt one would be no row, which looks like good news. */
static bool
is_state(const char *text)
{
	size_t length = strlen(text);

	for (const char *one = STATES; *one;
		 one += strcspn(one, ","), one += strspn(one, ", "))
	{
		if (strcspn(one, ",") == length && strncmp(one, text, length) == 0)
			return true;
	}
	return false;
}

/* Without a queue: what is running, then what will run next. */
static int
cmd_job_ls(EqCli *cli, int argc, char **argv)
{
	const char *params[6] = {argc > 0 ? argv[0] : NULL, state, name, tenant,
							 limit ? limit : "50"};
	long number;
	char look_at[16];

	if (!eq_parse_number(params[4], 1, 100000, &number))
		return eq_usage(cli, "--limit takes a number from 1 to 100000");
	if (state && !is_state(state))
		return eq_usage(cli, "no state \"%s\": it is one of " STATES, state);
	/* What a filter lets through stands among more. */
	snprintf(look_at, sizeof(look_at), "%ld",
			 state || name || tenant ? 20 * number + 1000 : number);
	params[5] = look_at;
	if (argc > 0)
		return eq_show(
			cli,
			"SELECT job_id, name, tenant_id, state, at, worker, failures, last_error "
			"FROM event_queue.queue_jobs($1, least($6::int, 100000)) "
			"WHERE ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR name = $3) "
			"AND ($4::text IS NULL OR tenant_id = $4) LIMIT $5::int",
			6, params);
	return eq_show(
		cli,
		"SELECT * FROM ("
		"SELECT job_id, queue_name AS queue, name, tenant_id, 'leased' AS state, "
		"claimed_at AS at, worker, attempt "
		"FROM event_queue.running_jobs($1::text) "
		"UNION ALL "
		"SELECT job_id, queue_name, name, tenant_id, state, run_at, NULL, attempt "
		"FROM event_queue.next_jobs($1::text, least($6::int, 10000))) j "
		"WHERE ($2::text IS NULL OR state = $2) AND ($3::text IS NULL OR name = $3) "
		"AND ($4::text IS NULL OR tenant_id = $4) LIMIT $5::int",
		6, params);
}

static bool
check_id(EqCli *cli, const char *text)
{
	if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text) &&
		strlen(text) < 20)
		return true;
	eq_usage(cli, "\"%s\" is not a job id", text);
	return false;
}

static bool
check_ids(EqCli *cli, int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
	{
		if (!check_id(cli, argv[i]))
			return false;
	}
	return true;
}

static const char *const why_sql =
	"SELECT reason, until, detail FROM event_queue.explain_job($1)";

static int
cmd_job_show(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};
	char missing[100];
	int status;

	if (!check_id(cli, argv[0]))
		return EQ_EXIT_USAGE;
	snprintf(missing, sizeof(missing),
			 "no job %s: finished and not kept, cancelled, or never enqueued",
			 argv[0]);
	status = eq_show_card(
		cli,
		"SELECT a.*, coalesce((SELECT errors FROM event_queue.jobs WHERE job_id = $1), "
		"(SELECT errors FROM event_queue.dead_letters WHERE job_id = $1), "
		"(SELECT errors FROM event_queue.history WHERE job_id = $1 LIMIT 1)) AS errors "
		"FROM event_queue.all_jobs a WHERE a.job_id = $1",
		1, params, missing);
	if (status != EQ_EXIT_OK || cli->format != EQ_FORMAT_TABLE || cli->quiet)
		return status;
	putchar('\n');
	return eq_show(cli, why_sql, 1, params);
}

static int
cmd_job_why(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};

	return check_id(cli, argv[0]) ? eq_show(cli, why_sql, 1, params) : EQ_EXIT_USAGE;
}

static const char *payload;
static const EqOption retry_options[] = {
	{"payload", "JSON", &payload, NULL, "a new one in place of the old"}, {NULL}};

static int
cmd_job_retry(EqCli *cli, int argc, char **argv)
{
	int status = EQ_EXIT_OK;

	if (!check_ids(cli, argc, argv))
		return EQ_EXIT_USAGE;
	for (int i = 0; i < argc; i++)
	{
		const char *params[2] = {argv[i], payload};

		if (eq_do(cli, "SELECT event_queue.retry_dead($1, $2::jsonb)", 2, params) !=
			EQ_EXIT_OK)
			status = EQ_EXIT_ERROR;
		else
			eq_say(cli, "%s: is tried again", argv[i]);
		if (cli->conn == NULL)
			break;
	}
	return status;
}

static int
cmd_job_cancel(EqCli *cli, int argc, char **argv)
{
	if (!check_ids(cli, argc, argv))
		return EQ_EXIT_USAGE;
	return eq_do_each(cli, argc, argv, "SELECT event_queue.cancel_job($1)", "",
					  NULL);
}

static bool follow;
static const EqOption log_options[] = {
	{"follow", NULL, NULL, &follow, "go on until the job has ended"}, {NULL}};

static int
cmd_job_log(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argv[0], "-infinity"};
	char after[64] = "-infinity";

	if (!check_id(cli, argv[0]))
		return EQ_EXIT_USAGE;
	if (cli->format == EQ_FORMAT_JSON && follow)
		cli->format = EQ_FORMAT_JSONL;
	for (;;)
	{
		struct timespec second = {1, 0};
		PGresult *result, *outcome = NULL;
		bool ended = !follow;

		/* First whether it has ended, then what it wrote: so the last line is seen. */
		if (follow)
		{
			outcome = eq_query(cli,
							   "SELECT event_queue.job_outcome($1) ->> 'state' IN "
							   "('dead', 'completed', 'gone')",
							   1, params);
			if (outcome == NULL)
				return EQ_EXIT_ERROR;
			ended = eq_is_true(outcome, 0, 0);
			PQclear(outcome);
		}
		params[1] = after;
		result = eq_query(cli,
						  "SELECT at, level, message FROM event_queue.job_log "
						  "WHERE job_id = $1 AND at > $2::timestamptz ORDER BY at",
						  2, params);
		if (result == NULL)
			return EQ_EXIT_ERROR;
		if (PQntuples(result) > 0)
		{
			eq_print_result(cli, result);
			snprintf(after, sizeof(after), "%s",
					 PQgetvalue(result, PQntuples(result) - 1, 0));
			cli->quiet = cli->quiet || follow; /* one heading */
		}
		else if (!follow)
			eq_print_result(cli, result);
		PQclear(result);
		if (!eq_flush(cli))
			return EQ_EXIT_ERROR;
		if (ended)
			return EQ_EXIT_OK;
		nanosleep(&second, NULL);
	}
}

static const char *delay, *priority, *unique_key, *group_key, *options;
static const EqOption add_options[] = {
	{"delay", "INTERVAL", &delay, NULL, "not before"},
	{"priority", "N", &priority, NULL, "0 (first) to 9"},
	{"unique-key", "KEY", &unique_key, NULL, "no second one while it lives"},
	{"group-key", "KEY", &group_key, NULL, "jobs of one key run in order"},
	{"tenant", "TENANT", &tenant, NULL, "whose it is"},
	{"options", "JSON", &options, NULL, "other options of enqueue"},
	{NULL}};

static int
cmd_job_add(EqCli *cli, int argc, char **argv)
{
	const char *params[9] = {argv[0],	argv[1],  argc > 2 ? argv[2] : "{}",
							 delay,		priority, unique_key,
							 group_key, tenant,	  options};

	return eq_show(
		cli,
		"SELECT event_queue.enqueue($1, $2, $3::jsonb, delay => $4::interval, "
		"priority => $5::int, unique_key => $6, group_key => $7, tenant_id => $8, "
		"options => $9::jsonb) AS job_id",
		9, params);
}

const EqCommand eq_job_commands[] = {
	{"job", "ls", cmd_job_ls, 0, 1, "[QUEUE]",
	 "Lists jobs of a queue; without one, what runs now and next", ls_options,
	 EQ_TAKES_WATCH},
	{"job", "show", cmd_job_show, 1, 1, "ID",
	 "Shows a job, wherever it is, and why it is not running", NULL, 0},
	{"job", "why", cmd_job_why, 1, 1, "ID", "Tells why a job is not running", NULL,
	 0},
	{"job", "add", cmd_job_add, 2, 3, "QUEUE NAME [PAYLOAD]", "Enqueues a job",
	 add_options, 0},
	{"job", "retry", cmd_job_retry, 1, -1, "ID...",
	 "Puts dead jobs back into their queues", retry_options, 0},
	{"job", "cancel", cmd_job_cancel, 1, -1, "ID...",
	 "Removes waiting jobs, stops running ones", NULL, 0},
	{"job", "log", cmd_job_log, 1, 1, "ID", "Prints what workers wrote by log_job",
	 log_options, 0},
	{NULL}};
