/*
 * connect.c: the connection, as psql makes it: options, then the environment, service
 * files and .pgpass of libpq; and queries, whose values always go as parameters.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "eventq.h"

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

/* Has handler called, once, for each of these signals that would end us. */
static void
catch_ending_signals(void (*handler)(int), struct sigaction *old)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = handler;
	action.sa_flags = SA_RESTART | SA_RESETHAND | SA_NODEFER;
	for (int i = 0; i < lengthof(ending_signals); i++)
	{
		sigaction(ending_signals[i], NULL, &old[i]);
		if (old[i].sa_handler == SIG_DFL)
			sigaction(ending_signals[i], &action, NULL);
	}
}

static void
let_signals_be(const struct sigaction *old)
{
	for (int i = 0; i < lengthof(ending_signals); i++)
		sigaction(ending_signals[i], &old[i], NULL);
}

/* The terminal that shows nothing while a password is typed, and what it was before */
static int silent_terminal;
static struct termios was_before;

static void
restore_and_end(int number)
{
	tcsetattr(silent_terminal, TCSAFLUSH, &was_before);
	raise(number);
}

/*
 * Asks for a password on the terminal; NULL if there is none.  The caller frees it.
 */
static char *
ask_password(void)
{
	FILE *tty = fopen("/dev/tty", "r+");
	struct termios silent;
	struct sigaction old[lengthof(ending_signals)];
	char *line = NULL;
	size_t size = 0;

	if (tty == NULL)
		return NULL;
	silent_terminal = fileno(tty);
	if (tcgetattr(silent_terminal, &was_before) == 0)
	{
		silent = was_before;
		silent.c_lflag &= ~(tcflag_t) ECHO;
		catch_ending_signals(restore_and_end, old);
		tcsetattr(silent_terminal, TCSAFLUSH, &silent);
		fputs("Password: ", tty);
		fflush(tty);
		if (getline(&line, &size, tty) >= 0)
			line[strcspn(line, "\n")] = '\0';
		else
		{
			free(line);
			line = NULL;
		}
		tcsetattr(silent_terminal, TCSAFLUSH, &was_before);
		let_signals_be(old);
		fputs("\n", tty);
	}
	fclose(tty);
	return line;
}

/* Warnings and notices */
static void
print_notice(void *argument, const char *message)
{
	eq_put_text(stderr, message);
}

static PGconn *
try_connect(EqCli *cli, const char *password)
{
	/* A network that is gone is noticed within a minute or so; a URI may say otherwise. */
	static const char *const defaults[][2] = {{"keepalives_idle", "30"},
											  {"keepalives_interval", "10"},
											  {"keepalives_count", "3"},
											  {"tcp_user_timeout", "60000"}};
	const char *names[16], *values[16];
	int n = 0;
	PGconn *conn;
	PGresult *result;

	for (int i = 0; i < lengthof(defaults); i++)
	{
		names[n] = defaults[i][0];
		values[n++] = defaults[i][1];
	}
	/* What stands later overrides what dbname says, if that is a URI. */
	names[n] = "dbname";
	values[n++] = cli->dbname;
	names[n] = "host";
	values[n++] = cli->host;
	names[n] = "port";
	values[n++] = cli->port;
	names[n] = "user";
	values[n++] = cli->user;
	names[n] = "password";
	values[n++] = password;
	names[n] = "fallback_application_name";
	values[n++] = cli->program;
	names[n] = "client_encoding";
	values[n++] = "UTF8";
	names[n] = values[n] = NULL;
	conn = PQconnectdbParams(names, values, 1);
	if (conn == NULL)
	{
		fputs("eventq: out of memory\n", stderr);
		exit(EQ_EXIT_ERROR);
	}
	if (PQstatus(conn) != CONNECTION_OK)
		return conn;
	(void) PQsetNoticeProcessor(conn, print_notice, NULL);
	/*
	 * What is printed must not depend on the role's settings, and the pause of --watch must
	 * not end the session.
	 */
	result = PQexec(
		conn, "SET search_path = pg_catalog; SET datestyle = 'ISO, YMD'; "
			  "SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; "
			  "SET standard_conforming_strings = on; SET idle_session_timeout = 0");
	PQclear(result);
	return conn;
}

/* Has cli->conn connected; says why if that fails. */
bool
eq_connect(EqCli *cli)
{
	if (cli->conn && PQstatus(cli->conn) == CONNECTION_OK)
		return true;
	eq_disconnect(cli);
	cli->conn = try_connect(cli, NULL);
	if (PQstatus(cli->conn) == CONNECTION_BAD &&
		PQconnectionNeedsPassword(cli->conn) && !cli->no_password)
	{
		char *password = ask_password();

		if (password)
		{
			PQfinish(cli->conn);
			cli->conn = try_connect(cli, password);
			free(password);
		}
	}
	if (PQstatus(cli->conn) == CONNECTION_OK)
		return true;
	eq_error(cli, "%s", PQerrorMessage(cli->conn));
	eq_disconnect(cli);
	return false;
}

void
eq_disconnect(EqCli *cli)
{
	if (cli->conn)
		PQfinish(cli->conn);
	cli->conn = NULL;
}

static void
print_part(const char *name, const char *text)
{
	if (text == NULL)
		return;
	fprintf(stderr, "%s:  ", name);
	eq_put_text(stderr, text);
	fputc('\n', stderr);
}

/* Prints the server's error, with what helps if the extension is not there or is old. */
void
eq_report_result(EqCli *cli, PGconn *conn, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	if (message == NULL)
	{
		eq_error(cli, "%s", PQerrorMessage(conn));
		return;
	}
	if (sqlstate && strcmp(sqlstate, "3F000") == 0)
		hint =
			"The database has no extension event_queue: CREATE EXTENSION event_queue.";
	else if (sqlstate &&
			 (strcmp(sqlstate, "42P01") == 0 || strcmp(sqlstate, "42883") == 0 ||
			  strcmp(sqlstate, "42703") == 0))
		hint =
			"The extension in the database may be missing or older than this program: "
			"CREATE EXTENSION event_queue, or ALTER EXTENSION event_queue UPDATE.";
	else if (sqlstate && strcmp(sqlstate, "42501") == 0 && hint == NULL)
		hint =
			"The role needs one of grant_observer, grant_worker, grant_producer or "
			"grant_admin for this.";
	eq_error(cli, "%s%s%s%s", message, sqlstate ? " (" : "",
			 sqlstate ? sqlstate : "", sqlstate ? ")" : "");
	print_part("DETAIL", detail);
	print_part("HINT", hint);
}

/* The statement at hand, for cancel_and_end; NULL: none */
static PGcancel *volatile at_hand = NULL;

/*
 * As in psql, an interrupt ends the statement, too: else the server would finish what its
 * user believes to have stopped.  A second signal does not wait for the server.
 */
static void
cancel_and_end(int number)
{
	char error[256];

	if (at_hand)
		(void) PQcancel(at_hand, error, sizeof(error));
	raise(number);
}

static PGresult *
run_cancelable(PGconn *conn, const char *sql, int n_params,
			   const char *const *params)
{
	PGcancel *cancel = PQgetCancel(conn);
	struct sigaction old[lengthof(ending_signals)];
	PGresult *result;

	at_hand = cancel;
	catch_ending_signals(cancel_and_end, old);
	result = PQexecParams(conn, sql, n_params, NULL, params, NULL, NULL, 0);
	let_signals_be(old);
	at_hand = NULL;
	PQfreeCancel(cancel);
	return result;
}

/* Runs one statement.  NULL after an error, which has been printed. */
PGresult *
eq_query(EqCli *cli, const char *sql, int n_params, const char *const *params)
{
	PGresult *result;

	if (!eq_connect(cli))
		return NULL;
	result = run_cancelable(cli->conn, sql, n_params, params);
	if (PQresultStatus(result) == PGRES_TUPLES_OK ||
		PQresultStatus(result) == PGRES_COMMAND_OK)
		return result;
	eq_report_result(cli, cli->conn, result);
	PQclear(result);
	return NULL;
}

bool
eq_is_true(const PGresult *result, int row, int column)
{
	return PQgetvalue(result, row, column)[0] == 't';
}
