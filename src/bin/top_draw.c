/*
 * top_draw.c: draws the screen of "eventq top".
 *
 * Four lines of head, the rows, one line of keys or messages.  Colour is never the only
 * sign.  Values of the database go through eq_fit_value, so that they can't move the cursor.
 */
#include <stdlib.h>
#include <string.h>

#include <curses.h>

#include "top.h"

#define HEAD_LINES 4

static const Column queue_columns[] = {{"QUEUE", 0, 28, false},
									   {"STATE", 1, 9, false},
									   {"DEPTH", 2, 9, true},
									   {"DEAD", 3, 7, true},
									   {"OLDEST s", 4, 9, true},
									   {"IN/s", 5, 8, true},
									   {"DONE/s", 6, 8, true},
									   {"FAIL/s", 7, 7, true},
									   {"WAIT ms", 8, 9, true},
									   {"RUN ms", 9, 9, true},
									   {NULL}};

static const Column job_columns[] = {
	{"JOB", 0, 10, true},	  {"STATE", 1, 10, false},	   {"NAME", 2, 20, false},
	{"TENANT", 3, 12, false}, {"AT", 4, 19, false},		   {"FAILED", 5, 6, true},
	{"WORKER", 6, 18, false}, {"LAST ERROR", 7, 0, false}, {NULL}};

static const Column card_columns[] = {{"", 0, 12, false}, {"", 1, 0, false}, {NULL}};

static const char *const help[] = {
	"j k, arrows, PgUp PgDn, g G   move",
	"Enter, Right                  jobs of a queue; one job",
	"q, Esc, Left                  back; q here: quit",
	"/                             filter; Esc: none",
	"s                             sort queues: oldest, depth, dead, failed, done, name",
	"space                         stop and go on looking",
	"p                             pause or resume the queue",
	"r                             retry a dead job, or all of a queue",
	"F10                           quit",
	NULL};

int
eq_top_lines(void)
{
	return LINES > HEAD_LINES + 2 ? LINES - HEAD_LINES - 1 : 1;
}

static const char *
field(const PGresult *result, int column)
{
	return result && PQntuples(result) > 0 ? PQgetvalue(result, 0, column) : "?";
}

/* One line of text from the left, cut at the edge. */
static void
put_line(const Top *top, int y, const char *text)
{
	EqBuf line;

	if (y >= LINES)
		return;
	eq_buf_init(&line);
	(void) eq_fit_value(top->cli, &line, text, COLS > 1 ? COLS - 1 : 1);
	mvaddstr(y, 0, line.data);
	eq_buf_free(&line);
}

static void
draw_head(const Top *top)
{
	int problems = top->health ? PQntuples(top->health) : 0;
	EqBuf line;

	eq_buf_init(&line);
	eq_buf_printf(&line, "eventq  %s  %s  every %g s%s%s", field(top->totals, 0),
				  field(top->totals, 1), top->interval,
				  top->frozen ? "  STOPPED" : "",
				  top->view == VIEW_QUEUES ? "" : "  queue ");
	if (top->view != VIEW_QUEUES)
		eq_buf_string(&line, top->queue);
	attron(A_BOLD);
	put_line(top, 0, line.data);
	attroff(A_BOLD);
	eq_buf_reset(&line);
	eq_buf_printf(
		&line,
		"%s queues  %s jobs  %s dead  in %s/s  done %s/s  failed %s/s  executors %s, "
		"%s busy",
		field(top->totals, 2), field(top->totals, 3), field(top->totals, 4),
		field(top->totals, 5), field(top->totals, 6), field(top->totals, 7),
		field(top->totals, 8), field(top->totals, 9));
	put_line(top, 1, line.data);
	eq_buf_reset(&line);
	if (problems == 0)
		eq_buf_string(&line, top->health ? "all is well" : "health is unknown");
	else
		eq_buf_printf(&line, "! %s: %s", PQgetvalue(top->health, 0, 0),
					  PQgetvalue(top->health, 0, 1));
	if (problems > 1)
		eq_buf_printf(&line, " (and %d more)", problems - 1);
	if (top->cli->color)
		attron(COLOR_PAIR(problems ? 1 : 3));
	put_line(top, 2, line.data);
	if (top->cli->color)
		attroff(COLOR_PAIR(problems ? 1 : 3));
	eq_buf_free(&line);
}

static int
width_of(const Column *column, int x)
{
	int width = column->width ? column->width : COLS - x - 1;

	return x + width > COLS - 1 ? COLS - 1 - x : width;
}

static void
draw_cells(const Top *top, const Column *columns, int y, int row)
{
	EqBuf text;
	int x = 0;

	eq_buf_init(&text);
	for (const Column *column = columns; column->heading && x < COLS - 1; column++)
	{
		int width = width_of(column, x);
		int used = eq_fit_value(top->cli, &text,
								row < 0 ? column->heading
										: PQgetvalue(top->rows, row, column->column),
								width);

		mvaddstr(y, column->right && used < width ? x + width - used : x, text.data);
		x += width + 1;
	}
	eq_buf_free(&text);
}

/* Late, dead or failing: bold, and in colour. */
static int
attributes_of(const Top *top, int row)
{
	const char *state;

	if (top->view == VIEW_JOB)
		return 0;
	state = PQgetvalue(top->rows, row, 1);
	if (strcmp(state, "late") == 0 || strcmp(state, "dead") == 0 ||
		strcmp(state, "stalled") == 0)
		return A_BOLD | (top->cli->color ? COLOR_PAIR(1) : 0);
	if (strcmp(state, "paused") == 0 || strcmp(state, "draining") == 0 ||
		strcmp(state, "retrying") == 0)
		return top->cli->color ? COLOR_PAIR(2) : 0;
	return 0;
}

static void
draw_rows(Top *top)
{
	const Column *columns = top->view == VIEW_QUEUES ? queue_columns
							: top->view == VIEW_JOBS ? job_columns
													 : card_columns;
	int lines = eq_top_lines();

	attron(A_REVERSE);
	mvhline(HEAD_LINES - 1, 0, ' ', COLS);
	draw_cells(top, columns, HEAD_LINES - 1, -1);
	attroff(A_REVERSE);
	if (top->selected < top->first)
		top->first = top->selected;
	if (top->selected >= top->first + lines)
		top->first = top->selected - lines + 1;
	for (int i = 0; i < lines && top->first + i < top->n_order; i++)
	{
		int row = top->order[top->first + i];
		int attributes = attributes_of(top, row);

		if (top->first + i == top->selected)
			attributes |= A_REVERSE;
		attron(attributes);
		if (attributes & A_REVERSE)
			mvhline(HEAD_LINES + i, 0, ' ', COLS);
		draw_cells(top, columns, HEAD_LINES + i, row);
		attroff(attributes);
	}
}

static void
draw_foot(const Top *top)
{
	EqBuf line;

	eq_buf_init(&line);
	if (top->question[0])
		eq_buf_string(&line, top->question);
	else if (top->typing)
		eq_buf_printf(&line, "/%s_", top->filter);
	else if (top->message[0])
		eq_buf_string(&line, top->message);
	else
	{
		if (top->view == VIEW_QUEUES)
			eq_buf_printf(&line, "sorted by %s  ", eq_top_sorts[top->sort].name);
		if (top->filter[0])
			eq_buf_printf(&line, "filter %s  ", top->filter);
		eq_buf_string(
			&line, "? help  q quit  / filter  s sort  p pause  r retry  Enter open");
	}
	put_line(top, LINES - 1, line.data);
	eq_buf_free(&line);
}

void
eq_top_draw(Top *top)
{
	erase();
	draw_head(top);
	if (top->view == VIEW_HELP)
	{
		for (int i = 0; help[i]; i++)
			put_line(top, HEAD_LINES + i, help[i]);
	}
	else
		draw_rows(top);
	draw_foot(top);
	refresh();
}
