/*
 * queue.c: the nouns queue and worker: queues, their settings, who works on them.
 */
#include <stdlib.h>
#include <string.h>

#include "eventq.h"

static const char *const queue_ls_sql =
	"SELECT queue, CASE WHEN paused THEN 'paused' WHEN draining THEN 'draining' "
	"WHEN sla_missed THEN 'late' ELSE 'ok' END AS state, depth, dead, "
	"round(oldest_ready_seconds::numeric, 1) AS oldest_ready_seconds, "
	"round(enqueued_per_s::numeric, 2) AS enqueued_per_s, "
	"round(completed_per_s::numeric, 2) AS completed_per_s, "
	"round(failed_per_s::numeric, 2) AS failed_per_s "
	"FROM event_queue.queue_status ORDER BY queue";

static int
cmd_queue_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, queue_ls_sql, 0, NULL);
}

/* Exit code 3 if one is unhealthy. */
static int
cmd_queue_health(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argc > 0 ? argv[0] : NULL};
	PGresult *result = eq_query(
		cli,
		"SELECT h.key AS queue, x.* FROM jsonb_each(event_queue.queue_health()) h, "
		"jsonb_to_record(h.value) AS x(status text, \"pendingCount\" bigint, "
		"\"activeCount\" bigint, delayed bigint, dead bigint, \"completedCount\" bigint, "
		"\"failedCount\" bigint, \"avgProcessingTime\" numeric, \"slaCompliance\" numeric, "
		"\"oldestWaiting\" numeric, workers bigint, reasons jsonb) "
		"WHERE $1::text IS NULL OR h.key = $1 ORDER BY 1",
		1, params);
	bool well = true;

	if (result == NULL)
		return EQ_EXIT_ERROR;
	if (argc > 0 && PQntuples(result) == 0)
	{
		eq_error(cli, "no queue \"%s\"", argv[0]);
		PQclear(result);
		return EQ_EXIT_ERROR;
	}
	for (int row = 0; row < PQntuples(result); row++)
		well = well && strcmp(PQgetvalue(result, row, 1), "unhealthy") != 0;
	eq_print_result(cli, result);
	PQclear(result);
	return well ? EQ_EXIT_OK : EQ_EXIT_UNHEALTHY;
}

static int
cmd_queue_show(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};
	char missing[200];

	snprintf(missing, sizeof(missing), "no queue \"%s\"", argv[0]);
	return eq_show_card(
		cli,
		"SELECT s.*, q.lease, q.stalled_interval, q.max_stalled, q.max_attempts, "
		"q.backoff, q.backoff_delay, q.backoff_max, q.backoff_jitter, "
		"q.backoff_intervals, q.keep_completed, q.keep_completed_count, "
		"q.keep_failed, q.keep_failed_count, q.rate_limit, q.rate_interval, "
		"q.max_concurrency, q.fair, q.group_concurrency, q.group_rate_limit, "
		"q.group_rate_interval, q.group_retry, q.durable, q.created_at "
		"FROM event_queue.queue_status s JOIN event_queue.queue q ON q.name = s.queue "
		"WHERE s.queue = $1",
		1, params, missing);
}

static int
cmd_queue_pause(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.pause_queue($1)",
					  "paused", "was paused already");
}

static int
cmd_queue_resume(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.resume_queue($1)",
					  "resumed", "was neither paused nor draining");
}

static int
cmd_queue_drain(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.drain_queue($1)",
					  "is being drained; jobs left: ", NULL);
}

/* Names of the settings that create_queue and alter_queue of this server know. */
static PGresult *
known_settings(EqCli *cli, const char *function)
{
	return eq_query(
		cli,
		"SELECT DISTINCT a.name FROM pg_proc p, unnest(p.proargnames) AS a(name) "
		"WHERE p.pronamespace = to_regnamespace('event_queue') AND p.proname = $1 "
		"AND a.name NOT IN ('name', 'reset', 'or_replace', 'if_not_exists') ORDER BY 1",
		1, &function);
}

/*
 * Calls create_queue or alter_queue with SETTING=VALUE pairs: names as the server has
 * them, values as parameters.  The value null resets a setting.
 */
static int
call_with_settings(EqCli *cli, const char *function, int argc, char **argv)
{
	PGresult *known = known_settings(cli, function);
	const char **params = eq_alloc(sizeof(char *) * (argc + 1));
	EqBuf sql, reset;
	int status = EQ_EXIT_OK, n = 0;

	eq_buf_init(&sql);
	eq_buf_init(&reset);
	params[n++] = argv[0];
	eq_buf_printf(&sql, "SELECT event_queue.%s($1", function);
	if (known == NULL)
		status = EQ_EXIT_ERROR;
	for (int i = 1; i < argc && status == EQ_EXIT_OK; i++)
	{
		const char *value = strchr(argv[i], '=');
		const char *name = NULL;

		if (value == NULL || value == argv[i])
		{
			status = eq_usage(cli, "\"%s\" is not SETTING=VALUE", argv[i]);
			break;
		}
		for (int row = 0; row < PQntuples(known) && name == NULL; row++)
		{
			if (strncmp(PQgetvalue(known, row, 0), argv[i], value - argv[i]) == 0 &&
				strlen(PQgetvalue(known, row, 0)) == (size_t) (value - argv[i]))
				name = PQgetvalue(known, row, 0);
		}
		if (name == NULL)
		{
			status = eq_usage(cli, "no setting \"%.*s\"", (int) (value - argv[i]),
							  argv[i]);
			fprintf(stderr, "HINT:  Settings:");
			for (int row = 0; row < PQntuples(known); row++)
				fprintf(stderr, " %s", PQgetvalue(known, row, 0));
			fputc('\n', stderr);
		}
		else if (strcmp(value + 1, "null") == 0)
			eq_buf_printf(&reset, "%s%s", reset.length ? "," : "{", name);
		else
		{
			params[n++] = value + 1;
			eq_buf_printf(&sql, ", \"%s\" => $%d", name, n);
		}
	}
	if (reset.length > 0 && strcmp(function, "alter_queue") == 0)
	{
		eq_buf_char(&reset, '}');
		params[n++] = reset.data;
		eq_buf_printf(&sql, ", reset => $%d", n);
	}
	eq_buf_char(&sql, ')');
	if (status == EQ_EXIT_OK)
		status = eq_do(cli, sql.data, n, params);
	PQclear(known);
	free(params);
	eq_buf_free(&sql);
	eq_buf_free(&reset);
	return status;
}

static int
cmd_queue_set(EqCli *cli, int argc, char **argv)
{
	int status = call_with_settings(cli, "alter_queue", argc, argv);

	if (status == EQ_EXIT_OK)
		eq_say(cli, "%s: %d changed", argv[0], argc - 1);
	return status;
}

static int
cmd_queue_create(EqCli *cli, int argc, char **argv)
{
	int status = call_with_settings(cli, "create_queue", argc, argv);

	if (status == EQ_EXIT_OK)
		eq_say(cli, "%s: created", argv[0]);
	return status;
}

static int
cmd_queue_purge(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};

	if (cli->dry_run)
		return eq_show(cli,
					   "SELECT $1 AS queue, count(*) AS jobs FROM event_queue.jobs "
					   "WHERE queue = $1 AND state <> 'leased'",
					   1, params);
	if (!cli->yes)
		return eq_usage(
			cli, "this deletes jobs: give --yes, or --dry-run for their number");
	return eq_do_count(cli, "SELECT event_queue.purge_queue($1)", 1, params,
					   "jobs deleted");
}

static bool drop_force;
static const EqOption drop_options[] = {
	{"force", NULL, NULL, &drop_force, "with its jobs and dead letters"}, {NULL}};

static int
cmd_queue_drop(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argv[0], drop_force ? "true" : "false"};
	int status;

	if (cli->dry_run)
		return eq_show(
			cli,
			"SELECT queue, depth AS jobs, dead FROM event_queue.queue_status "
			"WHERE queue = $1",
			1, params);
	if (!cli->yes)
		return eq_usage(
			cli, "this drops the queue: give --yes, or --dry-run for what it has");
	status = eq_do(cli, "SELECT event_queue.drop_queue($1, $2::boolean)", 2, params);
	if (status == EQ_EXIT_OK)
		eq_say(cli, "%s: dropped", argv[0]);
	return status;
}

static int
cmd_worker_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(
		cli,
		"SELECT 'inside' AS place, w.kind || ' ' || w.pid AS worker, w.jobs_done, "
		"w.current_job::text AS jobs FROM event_queue.workers() w "
		"UNION ALL SELECT 'outside', r.worker, NULL, "
		"string_agg(r.job_id::text, ',' ORDER BY r.job_id) "
		"FROM event_queue.running_jobs() r WHERE r.worker IS NOT NULL "
		"AND NOT EXISTS (SELECT FROM event_queue.workers() w "
		"WHERE w.current_job = r.job_id) GROUP BY r.worker ORDER BY 1, 2",
		0, NULL);
}

const EqCommand eq_queue_commands[] = {
	{"queue", "ls", cmd_queue_ls, 0, 0, "",
	 "Lists queues with what waits, age and rates", NULL, EQ_TAKES_WATCH},
	{"queue", "show", cmd_queue_show, 1, 1, "QUEUE",
	 "Shows a queue's figures and settings", NULL, 0},
	{"queue", "health", cmd_queue_health, 0, 1, "[QUEUE]",
	 "Tells whether queues are healthy; exit status 3 if one is unhealthy", NULL, 0},
	{"queue", "create", cmd_queue_create, 1, -1, "QUEUE [SETTING=VALUE]...",
	 "Creates a queue", NULL, 0},
	{"queue", "set", cmd_queue_set, 2, -1, "QUEUE SETTING=VALUE...",
	 "Changes settings of a queue", NULL, 0},
	{"queue", "pause", cmd_queue_pause, 1, -1, "QUEUE...", "Stops claims", NULL, 0},
	{"queue", "resume", cmd_queue_resume, 1, -1, "QUEUE...",
	 "Undoes pause and drain", NULL, 0},
	{"queue", "drain", cmd_queue_drain, 1, -1, "QUEUE...",
	 "Accepts no more jobs, runs the remaining ones", NULL, 0},
	{"queue", "purge", cmd_queue_purge, 1, 1, "QUEUE",
	 "Deletes the jobs that are not leased", NULL, EQ_TAKES_DRY_RUN | EQ_TAKES_YES},
	{"queue", "drop", cmd_queue_drop, 1, 1, "QUEUE", "Removes a queue", drop_options,
	 EQ_TAKES_DRY_RUN | EQ_TAKES_YES},
	{"worker", "ls", cmd_worker_ls, 0, 0, "",
	 "Lists the workers inside, and those outside that have jobs", NULL,
	 EQ_TAKES_WATCH},
	{NULL}};
