/*
 * top.c: "eventq top": a live view of queues and their jobs, with the keys of htop.
 *
 * One statement at a time, each as long as statement_timeout lets it; the screen is drawn
 * anew after each look and each key.  A connection that breaks is made again.
 */
#define _GNU_SOURCE /* strcasestr */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <curses.h>

#include "top.h"

static const char *interval;
const EqOption eq_top_options[] = {
	{"interval", "SECONDS", &interval, NULL, "between two looks (default 2)"},
	{NULL}};

const Sort eq_top_sorts[] = {{"oldest", 4, true},
							 {"depth", 2, true},
							 {"dead", 3, true},
							 {"failed", 7, true},
							 {"done", 6, true},
							 {"name", 0, false},
							 {NULL}};

static const char *const queues_sql =
	"SELECT queue, CASE WHEN paused THEN 'paused' WHEN draining THEN 'draining' "
	"WHEN sla_missed THEN 'late' ELSE 'ok' END, depth, dead, "
	"round(oldest_ready_seconds::numeric, 1), round(enqueued_per_s::numeric, 1), "
	"round(completed_per_s::numeric, 1), round(failed_per_s::numeric, 1), "
	"round(avg_wait_ms::numeric), round(avg_run_ms::numeric), paused OR draining "
	"FROM event_queue.queue_status";

static const char *const jobs_sql =
	"SELECT job_id, state, name, tenant_id, to_char(at, 'YYYY-MM-DD HH24:MI:SS'), failures, worker, last_error "
	"FROM event_queue.queue_jobs($1, 200)";

static const char *const job_sql =
	"SELECT e.key, e.value FROM event_queue.all_jobs a, json_each_text(row_to_json(a)) e "
	"WHERE a.job_id = $1 AND e.value IS NOT NULL "
	"UNION ALL SELECT 'why', concat_ws(', ', reason, 'until ' || until, detail) "
	"FROM event_queue.explain_job($1) "
	"UNION ALL SELECT 'attempt ' || (e ->> 'attempt'), concat_ws(' ', e ->> 'at', e ->> 'sqlstate', "
	"e ->> 'message', e ->> 'context') FROM event_queue.dead_letters d, jsonb_array_elements(d.errors) e "
	"WHERE d.job_id = $1 "
	"UNION ALL SELECT 'attempt ' || (e ->> 'attempt'), concat_ws(' ', e ->> 'at', e ->> 'sqlstate', "
	"e ->> 'message', e ->> 'context') FROM event_queue.jobs j, jsonb_array_elements(j.errors) e "
	"WHERE j.job_id = $1";

static const char *const totals_sql =
	"SELECT current_database(), to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS'), "
	"count(*), sum(depth), sum(dead), round(sum(enqueued_per_s)::numeric, 1), "
	"round(sum(completed_per_s)::numeric, 1), round(sum(failed_per_s)::numeric, 1), "
	"(SELECT count(*) FROM event_queue.workers() w WHERE w.kind = 'executor'), "
	"(SELECT count(*) FROM event_queue.workers() w WHERE w.kind = 'executor' AND w.current_job IS NOT NULL) "
	"FROM event_queue.queue_status";

static double
now_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

/* NULL after an error, which stands in the message line then: nothing may be printed. */
static PGresult *
ask(Top *top, const char *sql, int n_params, const char *const *params)
{
	PGconn *conn = top->cli->conn;
	PGresult *result;

	if (PQstatus(conn) != CONNECTION_OK)
	{
		PQreset(conn);
		if (PQstatus(conn) == CONNECTION_OK)
			PQclear(PQexec(
				conn, "SET search_path = pg_catalog; SET statement_timeout = '10s'; "
					  "SET lock_timeout = '2s'"));
	}
	result = PQexecParams(conn, sql, n_params, NULL, params, NULL, NULL, 0);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		return result;
	snprintf(top->message, sizeof(top->message), "%s",
			 PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)
				 ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY)
				 : PQerrorMessage(conn));
	PQclear(result);
	return NULL;
}

static const PGresult *sorted_rows;
static const Sort *sorted_by;

static int
compare_rows(const void *a, const void *b)
{
	int x = *(const int *) a, y = *(const int *) b;
	int result;

	if (sorted_by->number)
	{
		double u = PQgetisnull(sorted_rows, x, sorted_by->column)
					   ? -1
					   : strtod(PQgetvalue(sorted_rows, x, sorted_by->column), NULL);
		double v = PQgetisnull(sorted_rows, y, sorted_by->column)
					   ? -1
					   : strtod(PQgetvalue(sorted_rows, y, sorted_by->column), NULL);

		if (u != v)
			return u < v ? 1 : -1;
	}
	result = strcmp(PQgetvalue(sorted_rows, x, 0), PQgetvalue(sorted_rows, y, 0));
	return result;
}

/* Does a field of the row have the filter in it? */
static bool
passes_filter(const Top *top, int row)
{
	if (top->filter[0] == '\0' || top->view == VIEW_JOB)
		return true;
	for (int i = 0; i < PQnfields(top->rows); i++)
	{
		if (strcasestr(PQgetvalue(top->rows, row, i), top->filter))
			return true;
	}
	return false;
}

static void
select_row(Top *top, int selected)
{
	if (selected >= top->n_order)
		selected = top->n_order - 1;
	top->selected = selected < 0 ? 0 : selected;
	if (top->n_order > 0)
		snprintf(top->selected_key, sizeof(top->selected_key), "%s",
				 PQgetvalue(top->rows, top->order[top->selected], 0));
}

/* What the filter lets through, in the order of the sort; the same row stays selected. */
static void
arrange(Top *top)
{
	int rows = top->rows ? PQntuples(top->rows) : 0;
	int selected = -1;

	top->order = eq_realloc(top->order, sizeof(int) * (rows + 1));
	top->n_order = 0;
	for (int row = 0; row < rows; row++)
	{
		if (passes_filter(top, row))
			top->order[top->n_order++] = row;
	}
	if (top->view == VIEW_QUEUES && top->n_order > 1)
	{
		sorted_rows = top->rows;
		sorted_by = &eq_top_sorts[top->sort];
		qsort(top->order, top->n_order, sizeof(int), compare_rows);
	}
	for (int i = 0; i < top->n_order && top->view != VIEW_JOB; i++)
	{
		if (strcmp(PQgetvalue(top->rows, top->order[i], 0), top->selected_key) == 0)
			selected = i;
	}
	select_row(top, selected >= 0 ? selected : top->selected);
}

static void
replace(PGresult **old, PGresult *new)
{
	if (new == NULL)
		return;
	PQclear(*old);
	*old = new;
}

static void
look(Top *top)
{
	const char *params[1] = {NULL};
	double now = now_seconds();

	top->message[0] = '\0';
	replace(&top->totals, ask(top, totals_sql, 0, NULL));
	if (now >= top->next_health)
	{
		replace(
			&top->health,
			ask(top,
				"SELECT check_name, detail FROM event_queue.health() WHERE NOT ok",
				0, NULL));
		top->next_health = now + 10;
	}
	if (top->view == VIEW_QUEUES)
		replace(&top->rows, ask(top, queues_sql, 0, NULL));
	else if (top->view == VIEW_JOBS)
	{
		params[0] = top->queue;
		replace(&top->rows, ask(top, jobs_sql, 1, params));
	}
	else if (top->view == VIEW_JOB)
	{
		params[0] = top->job;
		replace(&top->rows, ask(top, job_sql, 1, params));
	}
	arrange(top);
	top->next_look = now_seconds() + top->interval;
}

/* Another view, at its first row. */
static void
go_to(Top *top, View view)
{
	PQclear(top->rows);
	top->rows = NULL;
	top->view = view;
	top->selected = top->first = 0;
	top->filter[0] = '\0';
	top->selected_key[0] = '\0';
	if (view == VIEW_QUEUES)
		snprintf(top->selected_key, sizeof(top->selected_key), "%s", top->queue);
	else if (view == VIEW_JOBS)
		snprintf(top->selected_key, sizeof(top->selected_key), "%s", top->job);
	look(top);
}

static void
enter(Top *top)
{
	if (top->n_order == 0)
		return;
	if (top->view == VIEW_QUEUES)
	{
		snprintf(top->queue, sizeof(top->queue), "%s", top->selected_key);
		top->job[0] = '\0';
		go_to(top, VIEW_JOBS);
	}
	else if (top->view == VIEW_JOBS)
	{
		snprintf(top->job, sizeof(top->job), "%s", top->selected_key);
		go_to(top, VIEW_JOB);
	}
}

/* False: there is nothing above. */
static bool
leave(Top *top)
{
	if (top->view == VIEW_HELP)
		top->view = top->below_help;
	else if (top->filter[0])
	{
		top->filter[0] = '\0';
		arrange(top);
	}
	else if (top->view == VIEW_JOB)
		go_to(top, VIEW_JOBS);
	else if (top->view == VIEW_JOBS)
		go_to(top, VIEW_QUEUES);
	else
		return false;
	return true;
}

static const char *
queue_at_hand(const Top *top)
{
	if (top->view != VIEW_QUEUES)
		return top->queue;
	return top->n_order > 0 ? top->selected_key : NULL;
}

/* Runs a statement that changes something, looks again and says what came of it. */
static void
act(Top *top, const char *sql, const char *param, const char *done)
{
	PGresult *result = ask(top, sql, 1, &param);
	char message[300];

	if (result)
		snprintf(message, sizeof(message), "%s: %s%s", param, done,
				 strstr(done, ":") ? PQgetvalue(result, 0, 0) : "");
	else
		snprintf(message, sizeof(message), "%s", top->message);
	PQclear(result);
	look(top);
	snprintf(top->message, sizeof(top->message), "%s", message);
}

static void
pause_or_resume(Top *top)
{
	const char *queue = queue_at_hand(top);

	if (queue == NULL)
		return;
	act(top,
		"SELECT CASE WHEN q.paused OR q.draining THEN event_queue.resume_queue(q.name) "
		"ELSE event_queue.pause_queue(q.name) END FROM event_queue.queue q WHERE q.name = $1",
		queue, "paused or resumed");
}

/* A dead job at once; all of a queue after a question. */
static void
retry(Top *top)
{
	const char *queue = queue_at_hand(top);

	if (top->view == VIEW_JOBS && top->n_order > 0)
	{
		if (strcmp(PQgetvalue(top->rows, top->order[top->selected], 1), "dead") == 0)
			act(top, "SELECT event_queue.retry_dead($1)", top->selected_key,
				"is tried again");
		else
			snprintf(top->message, sizeof(top->message),
					 "only dead jobs are tried again");
	}
	else if (top->view == VIEW_JOB)
		act(top, "SELECT event_queue.retry_dead($1)", top->job, "is tried again");
	else if (top->view == VIEW_QUEUES && queue)
	{
		/* Kept, since another queue may be at hand when the answer comes. */
		snprintf(top->asked, sizeof(top->asked), "%s", queue);
		snprintf(top->question, sizeof(top->question),
				 "Retry all dead letters of %s? (y/n)", queue);
	}
}

static void
answer(Top *top, int key)
{
	top->question[0] = '\0';
	if (key == 'y' || key == 'Y')
		act(top, "SELECT event_queue.retry_all_dead($1)", top->asked,
			"dead letters tried again: ");
}

/* A key while a filter is typed. */
static void
type_filter(Top *top, int key)
{
	size_t length = strlen(top->filter);

	if (key == '\n' || key == KEY_ENTER || key == 27)
	{
		top->typing = false;
		if (key == 27)
			top->filter[0] = '\0';
	}
	else if ((key == KEY_BACKSPACE || key == 127 || key == 8) && length > 0)
		top->filter[length - 1] = '\0';
	else if (key >= 32 && key < 256 && length < sizeof(top->filter) - 1)
	{
		top->filter[length] = (char) key;
		top->filter[length + 1] = '\0';
	}
	arrange(top);
}

/* False: it is the end. */
static bool
press(Top *top, int key)
{
	if (top->question[0])
	{
		answer(top, key);
		return true;
	}
	if (top->typing)
	{
		type_filter(top, key);
		return true;
	}
	switch (key)
	{
		case 'q':
		case 27:
		case KEY_BACKSPACE:
		case KEY_LEFT:
			if (leave(top))
				return true;
			return key == KEY_BACKSPACE || key == KEY_LEFT || key == 27;
		case KEY_F(10):
			return false;
		case '?':
		case KEY_F(1):
			if (top->view != VIEW_HELP)
				top->below_help = top->view;
			top->view = VIEW_HELP;
			return true;
	}
	if (top->view == VIEW_HELP)
		return true;
	switch (key)
	{
		case 'j':
		case KEY_DOWN:
			select_row(top, top->selected + 1);
			break;
		case 'k':
		case KEY_UP:
			select_row(top, top->selected - 1);
			break;
		case KEY_NPAGE:
			select_row(top, top->selected + eq_top_lines());
			break;
		case KEY_PPAGE:
			select_row(top, top->selected - eq_top_lines());
			break;
		case 'g':
		case KEY_HOME:
			select_row(top, 0);
			break;
		case 'G':
		case KEY_END:
			select_row(top, top->n_order - 1);
			break;
		case '\n':
		case KEY_ENTER:
		case KEY_RIGHT:
			enter(top);
			break;
		case '/':
			top->typing = top->view != VIEW_JOB;
			break;
		case 's':
			if (eq_top_sorts[++top->sort].name == NULL)
				top->sort = 0;
			arrange(top);
			break;
		case ' ':
			top->frozen = !top->frozen;
			break;
		case 'p':
			pause_or_resume(top);
			break;
		case 'r':
			retry(top);
			break;
	}
	return true;
}

static void
open_screen(EqCli *cli)
{
	initscr();
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	curs_set(0);
	set_escdelay(50);
	if (cli->color && has_colors())
	{
		start_color();
		use_default_colors();
		init_pair(1, COLOR_RED, -1);
		init_pair(2, COLOR_YELLOW, -1);
		init_pair(3, COLOR_GREEN, -1);
	}
}

int
eq_cmd_top(EqCli *cli, int argc, char **argv)
{
	Top top;

	memset(&top, 0, sizeof(top));
	top.cli = cli;
	top.interval = 2;
	if (interval &&
		(!eq_parse_seconds(interval, &top.interval) || top.interval < 0.1))
		return eq_usage(cli, "--interval takes seconds, at least 0.1");
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return eq_usage(
			cli, "top needs a terminal; \"queue ls --watch 2s\" does without");
	/* What is wrong with the connection, or the extension, is told before the screen opens. */
	if (eq_do(
			cli,
			"SELECT set_config('statement_timeout', '10s', false), set_config('lock_timeout', '2s', false) FROM event_queue.queue_status LIMIT 1",
			0, NULL) != EQ_EXIT_OK)
		return EQ_EXIT_ERROR;
	open_screen(cli);
	look(&top);
	for (;;)
	{
		double left = top.next_look - now_seconds();
		int key;

		eq_top_draw(&top);
		if (top.frozen)
			left = 3600;
		timeout(left > 0 ? (int) (left * 1000) + 1 : 0);
		key = getch();
		if (key == ERR)
		{
			if (!top.frozen)
				look(&top);
		}
		else if (!press(&top, key == '\r' ? '\n' : key))
			break;
	}
	endwin();
	PQclear(top.rows);
	PQclear(top.totals);
	PQclear(top.health);
	free(top.order);
	return EQ_EXIT_OK;
}
