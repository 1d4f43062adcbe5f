/*
 * automation.c: the nouns rule, schedule and sub.
 */
#include <string.h>

#include "eventq.h"

static int
cmd_rule_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(
		cli,
		"SELECT name, CASE WHEN enabled THEN 'on' ELSE 'off' END AS state, event_pattern, "
		"condition, coalesce(queue || '/' || job_name, function || '()', "
		"(SELECT string_agg(k, ', ') FROM jsonb_array_elements(actions) a, jsonb_object_keys(a) k)) AS action, "
		"tenant_id, owner FROM event_queue.rules ORDER BY name",
		0, NULL);
}

static int
cmd_rule_show(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};

	return eq_show_card(cli, "SELECT * FROM event_queue.rules WHERE name = $1", 1,
						params, "no such rule");
}

static int
cmd_rule_pause(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.pause_rule($1)", "off",
					  "was off already");
}

static int
cmd_rule_resume(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.resume_rule($1)", "on",
					  "was on already");
}

static const char *limit;
static const EqOption limit_option[] = {
	{"limit", "N", &limit, NULL, "at most so many (default 20)"}, {NULL}};

static int
cmd_rule_why(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argv[0], limit ? limit : "20"};

	return eq_show(
		cli,
		"SELECT at, event_type, aggregate_type, aggregate_id, event_id, kind, id, name, "
		"state, last_error FROM event_queue.rule_activity($1, $2::int)",
		2, params);
}

static int
cmd_schedule_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(
		cli,
		"SELECT name, CASE WHEN enabled THEN 'on' ELSE 'off' END AS state, cron, time_zone, "
		"queue || '/' || job_name AS job, next_run, last_run, tenant_id "
		"FROM event_queue.schedules ORDER BY name",
		0, NULL);
}

static int
cmd_schedule_show(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argv[0]};

	return eq_show_card(cli, "SELECT * FROM event_queue.schedules WHERE name = $1",
						1, params, "no such schedule");
}

/* The next runs of one schedule, or the next of all. */
static int
cmd_schedule_next(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argc > 0 ? argv[0] : NULL, limit ? limit : "20"};
	PGresult *result;
	bool known;

	if (argc == 0)
		return eq_show(
			cli,
			"SELECT name, next_run, next_run AT TIME ZONE time_zone AS local_time, time_zone "
			"FROM event_queue.schedules WHERE enabled AND next_run IS NOT NULL "
			"AND $1::text IS NULL ORDER BY next_run, name LIMIT $2::int",
			2, params);
	result = eq_query(cli, "SELECT FROM event_queue.schedules WHERE name = $1", 1,
					  params);
	if (result == NULL)
		return EQ_EXIT_ERROR;
	known = PQntuples(result) > 0;
	PQclear(result);
	if (!known)
	{
		eq_error(cli, "no schedule \"%s\"", argv[0]);
		return EQ_EXIT_ERROR;
	}
	return eq_show(
		cli,
		"WITH RECURSIVE run AS ("
		"SELECT name, cron, time_zone, coalesce(next_run, event_queue.cron_next(cron, time_zone)) AS next_run, "
		"1 AS n FROM event_queue.schedules WHERE name = $1 "
		"UNION ALL SELECT name, cron, time_zone, event_queue.cron_next(cron, time_zone, next_run), n + 1 "
		"FROM run WHERE n < $2::int AND next_run IS NOT NULL) "
		"SELECT name, next_run, next_run AT TIME ZONE time_zone AS local_time, time_zone "
		"FROM run WHERE next_run IS NOT NULL ORDER BY n",
		2, params);
}

static int
cmd_schedule_pause(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.pause_schedule($1)",
					  "off", "was off already");
}

static int
cmd_schedule_resume(EqCli *cli, int argc, char **argv)
{
	return eq_do_each(cli, argc, argv, "SELECT event_queue.resume_schedule($1)",
					  "on", "was on already");
}

static int
cmd_sub_ls(EqCli *cli, int argc, char **argv)
{
	return eq_show(
		cli,
		"SELECT * FROM event_queue.subscription_status ORDER BY name, tenant_id", 0,
		NULL);
}

static const char *to_position;
static const EqOption reset_options[] = {
	{"to", "POSITION", &to_position, NULL,
	 "after which it begins again (default 0: with the first event)"},
	{NULL}};

/* Its consumer does all again: like a bulk change it wants --yes. */
static int
cmd_sub_reset(EqCli *cli, int argc, char **argv)
{
	const char *params[2] = {argv[0], to_position ? to_position : "0"};
	int status;

	if (cli->dry_run)
		return eq_show(
			cli,
			"SELECT $1 AS name, count(*) AS positions_again FROM event_queue.subscription_status s, "
			"event_queue.event_store e WHERE s.name = $1 AND e.position > $2::bigint "
			"AND e.position <= s.checkpoint",
			2, params);
	if (!cli->yes)
		return eq_usage(
			cli,
			"its consumer gets events again: give --yes, or --dry-run for how many");
	status = eq_do(cli, "SELECT event_queue.reset_subscription($1, $2::bigint)", 2,
				   params);
	if (status == EQ_EXIT_OK)
		eq_say(cli, "%s: begins again after position %s", argv[0], params[1]);
	return status;
}

static int
cmd_sub_parked(EqCli *cli, int argc, char **argv)
{
	const char *params[1] = {argc > 0 ? argv[0] : NULL};

	return eq_show(
		cli,
		"SELECT * FROM event_queue.parked_aggregates "
		"WHERE $1::text IS NULL OR subscription = $1 ORDER BY subscription, parked_at",
		1, params);
}

static int
cmd_sub_retry(EqCli *cli, int argc, char **argv)
{
	const char *params[3] = {argv[0], argc > 1 ? argv[1] : NULL,
							 argc > 2 ? argv[2] : NULL};

	if (!eq_may_do_many(cli, argc > 1, false))
		return EQ_EXIT_USAGE;
	return eq_do_count(cli,
					   "SELECT event_queue.retry_parked($1, $2, $3) AS aggregates",
					   3, params, "aggregates may be tried again");
}

const EqCommand eq_rule_commands[] = {
	{"rule", "ls", cmd_rule_ls, 0, 0, "", "Lists rules", NULL, 0},
	{"rule", "show", cmd_rule_show, 1, 1, "RULE", "Shows a rule", NULL, 0},
	{"rule", "why", cmd_rule_why, 1, 1, "RULE", "Shows what a rule did recently",
	 limit_option, 0},
	{"rule", "pause", cmd_rule_pause, 1, -1, "RULE...", "Switches rules off", NULL,
	 0},
	{"rule", "resume", cmd_rule_resume, 1, -1, "RULE...",
	 "Switches rules on, for events that come from now on", NULL, 0},
	{NULL}};

const EqCommand eq_schedule_commands[] = {
	{"schedule", "ls", cmd_schedule_ls, 0, 0, "", "Lists schedules", NULL, 0},
	{"schedule", "show", cmd_schedule_show, 1, 1, "SCHEDULE", "Shows a schedule",
	 NULL, 0},
	{"schedule", "next", cmd_schedule_next, 0, 1, "[SCHEDULE]",
	 "Lists the next runs of one, or the next of all", limit_option, 0},
	{"schedule", "pause", cmd_schedule_pause, 1, -1, "SCHEDULE...",
	 "Switches schedules off", NULL, 0},
	{"schedule", "resume", cmd_schedule_resume, 1, -1, "SCHEDULE...",
	 "Switches schedules on", NULL, 0},
	{NULL}};

const EqCommand eq_subscription_commands[] = {
	{"sub", "ls", cmd_sub_ls, 0, 0, "", "Lists subscriptions with their lag", NULL,
	 EQ_TAKES_WATCH},
	{"sub", "parked", cmd_sub_parked, 0, 1, "[SUBSCRIPTION]",
	 "Lists aggregates whose events a consumer could not process", NULL, 0},
	{"sub", "retry", cmd_sub_retry, 1, 3, "SUBSCRIPTION [TYPE [ID]]",
	 "Lets parked aggregates be tried again", NULL, EQ_TAKES_ALL},
	{"sub", "reset", cmd_sub_reset, 1, 1, "SUBSCRIPTION",
	 "Moves a subscription back or ahead", reset_options,
	 EQ_TAKES_DRY_RUN | EQ_TAKES_YES},
	{NULL}};
