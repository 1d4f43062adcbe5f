/*
 * eventq.h: what all verbs of the program eventq share.
 *
 * A client like psql: it has libpq and no header of the server.  A verb is one function
 *     int eq_cmd_NOUN_VERB(EqCli *cli, int argc, char **argv)
 * that gets the arguments behind the verb, options already taken out, and returns an
 * exit code; its options are static variables that the table of its noun names.  To add
 * a noun: write its file, end its table with {NULL}, and enter the table in eventq.c.
 */
#ifndef EVENTQ_H
#define EVENTQ_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <libpq-fe.h>

#if defined(__GNUC__)
#define EQ_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define EQ_PRINTF(f, a)
#endif

#define lengthof(array) ((int) (sizeof(array) / sizeof((array)[0])))

/* Exit statuses; UNHEALTHY: health or doctor found something wrong. */
#define EQ_EXIT_OK		  0
#define EQ_EXIT_ERROR	  1
#define EQ_EXIT_USAGE	  2
#define EQ_EXIT_UNHEALTHY 3

typedef enum EqFormat
{
	EQ_FORMAT_TABLE,
	EQ_FORMAT_JSON,
	EQ_FORMAT_JSONL,
	EQ_FORMAT_CSV
} EqFormat;

/* What the options before and behind the verb said, and the connection. */
typedef struct EqCli
{
	const char *program;
	const char
		*dbname; /* -d: a name, a URI or key=value pairs; NULL: libpq decides */
	const char *host;
	const char *port;
	const char *user;
	bool no_password; /* -w */
	EqFormat format;  /* -o */
	bool quiet;		  /* -q: no heading, no "N rows" */
	bool color;		  /* false when piped, with NO_COLOR or --no-color */
	bool utf8;		  /* false with --ascii, or if the locale is not UTF-8 */
	double watch;	  /* seconds between two looks; 0: one look */
	bool dry_run;
	bool yes;
	bool all;
	PGconn *conn;
} EqCli;

/* A string that grows (buffer.c). */
typedef struct EqBuf
{
	char *data; /* ends with a 0 byte */
	size_t length;
	size_t size;
} EqBuf;

/* connect.c */
extern bool eq_connect(EqCli *cli);
extern void eq_disconnect(EqCli *cli);
extern PGresult *eq_query(EqCli *cli, const char *sql, int n_params,
						  const char *const *params);
extern void eq_report_result(EqCli *cli, PGconn *conn, const PGresult *result);
extern bool eq_is_true(const PGresult *result, int row, int column);

/* output.c */
extern void eq_print_result(EqCli *cli, const PGresult *result);
extern int eq_fit_value(const EqCli *cli, EqBuf *out, const char *value, int max);
extern void eq_print_text(const char *text);
extern void eq_print_csv_value(const char *value, bool null);
extern void eq_print_line(EqCli *cli, const char *text);
extern int eq_show(EqCli *cli, const char *sql, int n_params,
				   const char *const *params);
extern int eq_show_card(EqCli *cli, const char *sql, int n_params,
						const char *const *params, const char *missing);
extern void eq_say(EqCli *cli, const char *fmt, ...) EQ_PRINTF(2, 3);
extern void eq_error(EqCli *cli, const char *fmt, ...) EQ_PRINTF(2, 3);
extern bool eq_flush(EqCli *cli);
extern int eq_usage(EqCli *cli, const char *fmt, ...) EQ_PRINTF(2, 3);

/* text.c */
extern void eq_use_utf8(void);
extern bool eq_steers_terminal(unsigned long c);
extern void eq_show_steering(char *into, size_t size, unsigned long c);
extern void eq_put_text(FILE *out, const char *text);

/* do.c */
extern int eq_do(EqCli *cli, const char *sql, int n_params,
				 const char *const *params);
extern int eq_do_count(EqCli *cli, const char *sql, int n_params,
					   const char *const *params, const char *what);
extern int eq_do_each(EqCli *cli, int argc, char **argv, const char *sql,
					  const char *done, const char *not_done);
extern bool eq_may_do_many(EqCli *cli, bool has_filter, bool deletes);

/* buffer.c: memory that is not to be had ends the program. */
extern void *eq_alloc(size_t size);
extern void *eq_realloc(void *old, size_t size);
extern char *eq_strdup(const char *string);
extern void eq_buf_init(EqBuf *buf);
extern void eq_buf_reset(EqBuf *buf);
extern void eq_buf_free(EqBuf *buf);
extern void eq_buf_bytes(EqBuf *buf, const char *bytes, size_t length);
extern void eq_buf_string(EqBuf *buf, const char *string);
extern void eq_buf_char(EqBuf *buf, char c);
extern void eq_buf_printf(EqBuf *buf, const char *fmt, ...) EQ_PRINTF(2, 3);
extern void eq_buf_json_string(EqBuf *buf, const char *string);
extern void eq_buf_json_row(EqBuf *buf, const PGresult *result, int row);

/* options.c */

/* An option of one verb: a flag, or one that takes a value. */
typedef struct EqOption
{
	const char *name;	 /* without -- */
	const char *value;	 /* what the help calls its value; NULL: a flag */
	const char **string; /* where the value goes */
	bool *flag;
	const char *help;
} EqOption;

/* What else a verb takes. */
#define EQ_TAKES_WATCH	 0x01 /* --watch */
#define EQ_TAKES_DRY_RUN 0x02 /* --dry-run */
#define EQ_TAKES_YES	 0x04 /* --yes: without it nothing is removed */
#define EQ_TAKES_ALL	 0x08 /* --all: needed where no filter is given */
#define EQ_TAKES_COMMAND                                                            \
	0x10 /* "-- COMMAND ...": what is behind -- is not an option */
#define EQ_TAKES_BULK (EQ_TAKES_DRY_RUN | EQ_TAKES_YES | EQ_TAKES_ALL)

typedef int (*EqCommandFn)(EqCli *cli, int argc, char **argv);

typedef struct EqCommand
{
	const char *noun;
	const char *verb; /* NULL: the noun is the verb (top, serve) */
	EqCommandFn run;
	int min_args;
	int max_args;		   /* -1: any number */
	const char *arguments; /* for the help */
	const char *help;
	const EqOption *options; /* ends with {NULL}; NULL: none */
	int takes;
} EqCommand;

extern bool eq_parse_common(EqCli *cli, int argc, char **argv, int *rest);
extern bool eq_parse_command(EqCli *cli, const EqCommand *command, int argc,
							 char **argv, int *rest);
extern void eq_help_common(FILE *out);
extern void eq_help_command(FILE *out, const char *program,
							const EqCommand *command);
extern void eq_list_options(FILE *out, const EqCommand *command);
extern bool eq_parse_seconds(const char *text, double *seconds);
extern bool eq_parse_number(const char *text, long min, long max, long *number);

/* completion.c */
extern int eq_cmd_completion(EqCli *cli, int argc, char **argv);

/* eventq.c: the tables of all nouns; the last one is NULL */
extern const EqCommand *const eq_nouns[];

extern int eq_cmd_doctor(EqCli *cli, int argc, char **argv);
extern const EqOption eq_doctor_options[];
extern int eq_cmd_work(EqCli *cli, int argc, char **argv);
extern const EqOption eq_work_options[];
#ifdef HAVE_LIBCURL
extern int eq_cmd_webhook(EqCli *cli, int argc, char **argv);
extern const EqOption eq_webhook_options[];
#endif

extern const EqCommand eq_queue_commands[];
extern const EqCommand eq_job_commands[];
extern const EqCommand eq_dead_commands[];
extern const EqCommand eq_event_commands[];
extern const EqCommand eq_rule_commands[];
extern const EqCommand eq_schedule_commands[];
extern const EqCommand eq_subscription_commands[];
extern const EqCommand eq_health_commands[];
extern const EqCommand eq_other_commands[];

/*
 * Parts that need another library.  src/bin/eventq.mk defines HAVE_LIBEVENT and adds
 * SERVE_SOURCES (src/bin/serve*.c), HAVE_NCURSES and TOP_SOURCES (src/bin/top*.c), or
 * HAVE_LIBCURL and WEBHOOK_SOURCES (src/bin/webhook*.c), if pkg-config finds it; without it eventq.c has a verb in their place that says so.
 */
extern int eq_cmd_serve(EqCli *cli, int argc, char **argv);
extern const EqOption eq_serve_options[];
extern int eq_cmd_top(EqCli *cli, int argc, char **argv);
extern const EqOption eq_top_options[];

#endif /* EVENTQ_H */
