/*
 * health.c: the nouns health, fault, slo, stats, alert and audit.
 */
#include "eventq.h"

static bool problems;
static const EqOption health_options[] = {
	{"problems", NULL, NULL, &problems, "only what is not well"}, {NULL}};

/* Exit code 3 if a line is not well. */
static int
cmd_health(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {problems ? "true" : "false"};
	PGresult *result = eq_query(
		cli,
		"SELECT check_name, ok, detail, CASE WHEN NOT ok THEN hint END AS hint "
		"FROM event_queue.health() WHERE NOT (ok AND $1::boolean) ORDER BY ok",
		1, params);
	bool well = true;

	if (result == NULL)
		return EQ_EXIT_ERROR;
	for (int row = 0; row < PQntuples(result); row++)
		well = well && eq_is_true(result, row, 1);
	eq_print_result(cli, result);
	PQclear(result);
	return well ? EQ_EXIT_OK : EQ_EXIT_UNHEALTHY;
}

static int
cmd_fault_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.faults() ORDER BY since", 0,
				   NULL);
}

/* One view each; the columns are the view's. */
static int
cmd_stats_queue(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.queue_stats ORDER BY queue", 0,
				   NULL);
}

static int
cmd_stats_job(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli,
				   "SELECT * FROM event_queue.job_stats ORDER BY queue, job_name", 0,
				   NULL);
}

static int
cmd_stats_tenant(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.tenant_stats ORDER BY tenant", 0,
				   NULL);
}

static int
cmd_stats_rule(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.rule_stats", 0, NULL);
}

static int
cmd_stats_schedule(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.schedule_stats", 0, NULL);
}

static int
cmd_stats_worker(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.worker_stats", 0, NULL);
}

static int
cmd_stats_event(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.event_stats", 0, NULL);
}

static int
cmd_slo(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.slo_status", 0, NULL);
}

static int
cmd_alert_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(cli, "SELECT * FROM event_queue.alerts", 0, NULL);
}

static int
cmd_alert_history(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argc > 0 ? argv[0] : NULL};

	return eq_show(
		cli,
		"SELECT * FROM event_queue.alert_history WHERE $1::text IS NULL OR $1 IN (name, key) "
		"ORDER BY raised_at DESC LIMIT 100",
		1, params);
}

static int
cmd_alert_ack(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.ack_alert($1)",
					  "acknowledged: ", NULL);
}

static int
cmd_alert_snooze(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argv[0], argv[1]};
	int status = eq_do(cli, "SELECT event_queue.snooze_alert($1, $2::interval)", 2,
					   params);

	if (status == EQ_EXIT_OK)
		eq_say(cli, "%s: snoozed for %s", argv[0], argv[1]);
	return status;
}

static const char *object, *limit;
static const EqOption audit_options[] = {
	{"object", "NAME", &object, NULL, "what was done to this"},
	{"limit", "N", &limit, NULL, "at most so many (default 50)"},
	{NULL}};

static int
cmd_audit_ls(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {object, limit ? limit : "50"};

	return eq_show(
		cli,
		"SELECT * FROM event_queue.audit_log WHERE $1::text IS NULL OR object = $1 "
		"ORDER BY audit_id DESC LIMIT $2::int",
		2, params);
}

const EqCommand eq_health_commands[] = {
	{"health", NULL, cmd_health, 0, 0, "",
	 "Checks the whole system; exit status 3 if something is wrong", health_options,
	 0},
	{"fault", "ls", cmd_fault_ls, 0, 0, "",
	 "Lists what fails now and is tried again", NULL, EQ_TAKES_WATCH},
	{"slo", NULL, cmd_slo, 0, 0, "",
	 "Shows service levels and what is left of their budgets", NULL, EQ_TAKES_WATCH},
	{"alert", "ls", cmd_alert_ls, 0, 0, "", "Lists alerts", NULL, EQ_TAKES_WATCH},
	{"alert", "history", cmd_alert_history, 0, 1, "[ALERT]",
	 "Lists alerts that were raised, the last first", NULL, 0},
	{"alert", "ack", cmd_alert_ack, 1, -1, "ALERT...", "Acknowledges alerts", NULL,
	 0},
	{"alert", "snooze", cmd_alert_snooze, 2, 2, "ALERT INTERVAL",
	 "Keeps an alert quiet for a time", NULL, 0},
	{"audit", "ls", cmd_audit_ls, 0, 0, "", "Lists who changed what, the last first",
	 audit_options, 0},
	{"stats", "queue", cmd_stats_queue, 0, 0, "",
	 "Totals, rates and percentiles of queues", NULL, EQ_TAKES_WATCH},
	{"stats", "job", cmd_stats_job, 0, 0, "", "Of job names", NULL, EQ_TAKES_WATCH},
	{"stats", "tenant", cmd_stats_tenant, 0, 0, "", "Of tenants", NULL,
	 EQ_TAKES_WATCH},
	{"stats", "rule", cmd_stats_rule, 0, 0, "", "Of rules", NULL, EQ_TAKES_WATCH},
	{"stats", "schedule", cmd_stats_schedule, 0, 0, "", "Of schedules", NULL,
	 EQ_TAKES_WATCH},
	{"stats", "worker", cmd_stats_worker, 0, 0, "", "Of workers", NULL,
	 EQ_TAKES_WATCH},
	{"stats", "event", cmd_stats_event, 0, 0, "", "Of the event store", NULL,
	 EQ_TAKES_WATCH},
	{NULL}};
