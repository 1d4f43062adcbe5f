/*
 * output.c: results as a table for people, or as JSON, JSON lines or CSV for programs;
 * errors.  Column names are those of the query in all of them.
 */
#define _GNU_SOURCE /* wcwidth */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "eventq.h"

/* A field wider than this is cut in a table. */
#define MAX_WIDTH 60

/*
 * Copies a value for one line of a terminal: control characters are shown as such, so
 * that a payload can't move the cursor; cut at max columns (0: not).  Result: its width.
 */
int
eq_fit_value(const EqCli *cli, EqBuf *out, const char *value, int max)
{
	mbstate_t state;
	int width = 0;
	size_t left = strlen(value);
	size_t cut_at = 0; /* where the dots go if it is too wide */
	int cut_width = 0;
	const char *dots = cli->utf8 ? "\xe2\x80\xa6" : "..";
	int dots_width = cli->utf8 ? 1 : 2;

	memset(&state, 0, sizeof(state));
	eq_buf_reset(out);
	while (left > 0)
	{
		wchar_t c;
		size_t bytes = mbrtowc(&c, value, left, &state);
		char escape[12];
		const char *piece = value;
		size_t piece_length;
		int piece_width;

		if (bytes == 0 || bytes == (size_t) -1 || bytes == (size_t) -2)
		{
			memset(&state, 0, sizeof(state));
			bytes = 1;
			piece = "?";
			piece_length = 1;
			piece_width = 1;
		}
		else if (c == L'\n' || c == L'\r' || c == L'\t')
		{
			piece = " ";
			piece_length = 1;
			piece_width = 1;
		}
		else if ((piece_width = wcwidth(c)) < 0 ||
				 eq_steers_terminal((unsigned long) c))
		{
			eq_show_steering(escape, sizeof(escape), (unsigned long) c);
			piece = escape;
			piece_length = strlen(escape);
			piece_width = (int) piece_length;
		}
		else
			piece_length = bytes;
		if (max > 0 && width + piece_width > max)
		{
			out->length = cut_at;
			out->data[cut_at] = '\0';
			eq_buf_string(out, dots);
			return cut_width + dots_width;
		}
		eq_buf_bytes(out, piece, piece_length);
		width += piece_width;
		if (width <= max - dots_width)
		{
			cut_at = out->length;
			cut_width = width;
		}
		value += bytes;
		left -= bytes;
	}
	return width;
}

/* Numbers stand at the right. */
static bool
is_number_type(Oid type)
{
	return type == 20 || type == 21 || type == 23 || type == 700 || type == 701 ||
		   type == 1700;
}

static void
print_padding(int width)
{
	for (int i = 0; i < width; i++)
		putchar(' ');
}

/* Columns of the terminal; 0: stdout is none. */
static int
terminal_width(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
		return 0;
	return size.ws_col;
}

/* How wide each column is; result: all of them. */
static int
measure(EqCli *cli, const PGresult *result, EqBuf *text, int *widths, int max)
{
	int total = 0;

	for (int i = 0; i < PQnfields(result); i++)
	{
		widths[i] = eq_fit_value(cli, text, PQfname(result, i), max);
		for (int row = 0; row < PQntuples(result); row++)
		{
			int width = eq_fit_value(cli, text, PQgetvalue(result, row, i), max);

			if (width > widths[i])
				widths[i] = width;
		}
		total += widths[i] + 2;
	}
	return total;
}

/* What is too wide for the terminal is cut; a file or pipe gets all of it. */
static void
print_table(EqCli *cli, const PGresult *result)
{
	int columns = PQnfields(result), rows = PQntuples(result);
	int *widths = eq_alloc(sizeof(int) * (columns + 1));
	int terminal = terminal_width(), max = 0;
	EqBuf text;

	eq_buf_init(&text);
	if (measure(cli, result, &text, widths, 0) > terminal + 2 && terminal > 0)
	{
		max = MAX_WIDTH;
		(void) measure(cli, result, &text, widths, max);
	}
	for (int row = cli->quiet ? 0 : -1; row < rows; row++)
	{
		if (row == -1 && cli->color)
			fputs("\033[1m", stdout);
		for (int i = 0; i < columns; i++)
		{
			const char *value = row == -1 ? PQfname(result, i)
										  : PQgetvalue(result, row, i);
			bool right = is_number_type(PQftype(result, i));
			int width = eq_fit_value(cli, &text, value, max);

			if (right)
				print_padding(widths[i] - width);
			fputs(text.data, stdout);
			if (i < columns - 1)
				print_padding(2 + (right ? 0 : widths[i] - width));
		}
		if (row == -1 && cli->color)
			fputs("\033[0m", stdout);
		putchar('\n');
	}
	if (!cli->quiet && rows == 0)
		puts("(no rows)");
	eq_buf_free(&text);
	free(widths);
}

/* To a program text goes as it is, to a terminal so that it does nothing there. */
void
eq_print_text(const char *text)
{
	if (isatty(STDOUT_FILENO))
		eq_put_text(stdout, text);
	else
		fputs(text, stdout);
}

void
eq_print_csv_value(const char *value, bool null)
{
	EqBuf field;

	if (null)
		return;
	eq_buf_init(&field);
	/* COPY would take \. for the end of its data */
	if (value[0] != '\0' && strpbrk(value, ",\"\r\n") == NULL &&
		strcmp(value, "\\.") != 0)
		eq_buf_string(&field, value);
	else
	{
		eq_buf_char(&field, '"');
		for (; *value; value++)
		{
			if (*value == '"')
				eq_buf_char(&field, '"');
			eq_buf_char(&field, *value);
		}
		eq_buf_char(&field, '"');
	}
	eq_print_text(field.data);
	eq_buf_free(&field);
}

static void
print_csv(EqCli *cli, const PGresult *result)
{
	for (int row = cli->quiet ? 0 : -1; row < PQntuples(result); row++)
	{
		for (int i = 0; i < PQnfields(result); i++)
		{
			if (i > 0)
				putchar(',');
			if (row == -1)
				eq_print_csv_value(PQfname(result, i), false);
			else
				eq_print_csv_value(PQgetvalue(result, row, i),
								   PQgetisnull(result, row, i));
		}
		putchar('\n');
	}
}

void
eq_print_result(EqCli *cli, const PGresult *result)
{
	EqBuf line;

	if (cli->format == EQ_FORMAT_TABLE)
	{
		print_table(cli, result);
		return;
	}
	if (cli->format == EQ_FORMAT_CSV)
	{
		print_csv(cli, result);
		return;
	}
	eq_buf_init(&line);
	if (cli->format == EQ_FORMAT_JSON)
		fputs(PQntuples(result) > 0 ? "[\n" : "[", stdout);
	for (int row = 0; row < PQntuples(result); row++)
	{
		eq_buf_reset(&line);
		eq_buf_json_row(&line, result, row);
		fputs(line.data, stdout);
		fputs(cli->format == EQ_FORMAT_JSON && row < PQntuples(result) - 1 ? ",\n"
																		   : "\n",
			  stdout);
	}
	if (cli->format == EQ_FORMAT_JSON)
		puts("]");
	eq_buf_free(&line);
}

/* One line, whose control characters can do nothing to a terminal. */
void
eq_print_line(EqCli *cli, const char *text)
{
	EqBuf line;

	eq_buf_init(&line);
	eq_fit_value(cli, &line, text, 0);
	puts(line.data);
	eq_buf_free(&line);
}

/* Again and again with --watch, until a signal or an error ends it. */
int
eq_show(EqCli *cli, const char *sql, int n_params, const char *const *params)
{
	for (;;)
	{
		PGresult *result = eq_query(cli, sql, n_params, params);
		struct timespec pause;

		if (result == NULL)
			return EQ_EXIT_ERROR;
		if (cli->watch > 0 && cli->format == EQ_FORMAT_TABLE &&
			isatty(STDOUT_FILENO))
			fputs("\033[H\033[2J", stdout);
		eq_print_result(cli, result);
		PQclear(result);
		if (!eq_flush(cli))
			return EQ_EXIT_ERROR;
		if (cli->watch <= 0)
			return EQ_EXIT_OK;
		pause.tv_sec = (time_t) cli->watch;
		pause.tv_nsec = (long) ((cli->watch - (double) pause.tv_sec) * 1e9);
		nanosleep(&pause, NULL);
	}
}

/*
 * One thing: a line for each column in a table, else as eq_show.  No row: says what is
 * missing, and that is an error.
 */
int
eq_show_card(EqCli *cli, const char *sql, int n_params, const char *const *params,
			 const char *missing)
{
	PGresult *result = eq_query(cli, sql, n_params, params);
	EqBuf text;
	int name_width = 0;

	if (result == NULL)
		return EQ_EXIT_ERROR;
	if (PQntuples(result) == 0)
	{
		eq_error(cli, "%s", missing);
		PQclear(result);
		return EQ_EXIT_ERROR;
	}
	if (cli->format != EQ_FORMAT_TABLE)
	{
		eq_print_result(cli, result);
		PQclear(result);
		return EQ_EXIT_OK;
	}
	eq_buf_init(&text);
	for (int i = 0; i < PQnfields(result); i++)
	{
		int width = (int) strlen(PQfname(result, i));

		if (width > name_width)
			name_width = width;
	}
	for (int row = 0; row < PQntuples(result); row++)
	{
		if (row > 0)
			putchar('\n');
		for (int i = 0; i < PQnfields(result); i++)
		{
			if (PQgetisnull(result, row, i))
				continue;
			eq_fit_value(cli, &text, PQgetvalue(result, row, i), 0);
			printf("%s%-*s%s  %s\n", cli->color ? "\033[1m" : "", name_width,
				   PQfname(result, i), cli->color ? "\033[0m" : "", text.data);
		}
	}
	eq_buf_free(&text);
	PQclear(result);
	return EQ_EXIT_OK;
}

/* What was done, for people: not with -q, and to stderr where stdout is for programs. */
void
eq_say(EqCli *cli, const char *fmt, ...)
{
	va_list args;
	FILE *out = cli->format == EQ_FORMAT_TABLE ? stdout : stderr;

	if (cli->quiet)
		return;
	va_start(args, fmt);
	vfprintf(out, fmt, args);
	va_end(args);
	fputc('\n', out);
}

static void EQ_PRINTF(2, 0) print_error(EqCli *cli, const char *fmt, va_list args)
{
	char message[4096];
	size_t length;

	vsnprintf(message, sizeof(message), fmt, args);
	length = strlen(message);
	while (length > 0 && message[length - 1] == '\n')
		message[--length] = '\0';
	fflush(stdout);
	fprintf(stderr, "%s: ", cli->program);
	eq_put_text(stderr, message);
	fputc('\n', stderr);
}

void
eq_error(EqCli *cli, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	print_error(cli, fmt, args);
	va_end(args);
}

/* Is stdout a pipe that nobody reads any more?  What a write has failed with may be past. */
static bool
is_closed_pipe(void)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

/*
 * Has all that was printed go out.  Result: false if some of it is lost, which is
 * reported once; a pipe that is closed is no error of ours, and ends us quietly.
 */
bool
eq_flush(EqCli *cli)
{
	static bool reported = false;
	int error = fflush(stdout) != 0 ? errno : 0;

	if (error == 0 && !ferror(stdout))
		return true;
	if (!reported && !is_closed_pipe())
		eq_error(cli, "could not write all of the output%s%s", error ? ": " : "",
				 error ? strerror(error) : "");
	reported = true;
	return false;
}

/* Reports a usage error.  Result: the exit code for it. */
int
eq_usage(EqCli *cli, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	print_error(cli, fmt, args);
	va_end(args);
	return EQ_EXIT_USAGE;
}
