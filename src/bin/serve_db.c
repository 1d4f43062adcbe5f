/*
 * serve_db.c: asynchronous libpq.
 *
 * A connection is opened as the session's role when a query needs one, and closed when
 * idle.  Sessions that have given the same password for the same role share connections.
 * Reads use connections whose transactions are read-only by default; actions use others.
 * So no GET can write, whatever its SQL calls.
 *
 * No role takes more than a quarter of all connections, and the last quarter is reserved
 * for roles that have none in use and for sign-ins; idle ones are closed to make room.
 * Queries that find no connection wait in a queue, the oldest first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "serve.h"

#define IDLE_READER		30 /* s, until a connection that nobody uses is closed */
#define IDLE_WRITER		5
#define MAX_WAITING		64 /* queries of a session that wait for a connection */
#define MAX_OWN_WAITING 16 /* for /readyz, /metrics and health */
#define CONNECT_TIME	10 /* s */
#define TEXT_OID		25

typedef struct Db
{
	struct Db *next;
	Session *session;
	PGconn *pg;
	struct event *event;	/* on its socket */
	struct event *deadline; /* while it connects or works */
	Query *query;			/* that it is for or at; NULL: idle */
	PGresult *result;		/* of that, until all of its answer is here */
	bool connected;
	bool writes;
	bool reached; /* the server has answered at all */
	bool failed;
	time_t used;
} Db;

static Db *all_db = NULL;
static int db_count = 0;

static void on_socket(evutil_socket_t fd, short what, void *arg);
static void serve_waiting(void);

/* Queries that no connection has taken yet, in the order in which they came */
static Query *waiting = NULL;
static struct event *again = NULL;

static void
on_again(evutil_socket_t fd, short what, void *arg)
{
	serve_waiting();
}

/* Has serve_waiting called soon, when nobody is in the middle of anything. */
static void
look_again(void)
{
	if (!again)
		again = must(event_new(serve_base, -1, 0, on_again, NULL));
	if (waiting)
		event_active(again, 0, 0);
}

int
db_connections(void)
{
	return db_count;
}

/* query_make: params are added by the caller; http is answered by done. */
Query *
query_make(Session *session, Http *http, const char *sql, QueryDone done)
{
	Query *query = must(calloc(1, sizeof(Query)));

	query->session = session;
	query->http = http;
	query->sql = sql;
	query->done = done;
	session->refs++;
	return query;
}

/* Ends a query: tells who asked, and frees it. */
static void
finish(Query *query, PGresult *result, const char *error, bool refused)
{
	Session *session = query->session;

	query->done(query, result, error, refused);
	for (int i = 0; i < query->nparams; i++)
		free(query->params[i]);
	free(query);
	session_unref(session);
}

static void
close_db(Db *db)
{
	Session *session = db->session;

	for (Db **link = &all_db; *link; link = &(*link)->next)
		if (*link == db)
		{
			*link = db->next;
			break;
		}
	db_count--;
	if (db->event)
		event_free(db->event);
	event_free(db->deadline);
	PQclear(db->result);
	PQfinish(db->pg);
	free(db);
	session_unref(session);
	look_again();
}

/* Waits for the socket; a connection's socket may be another one at each step. */
static void
wait_for(Db *db, short what)
{
	int fd = PQsocket(db->pg);

	if (db->event)
		event_free(db->event);
	db->event = NULL;
	if (fd < 0)
		return;
	db->event = must(event_new(serve_base, fd, what, on_socket, db));
	event_add(db->event, NULL);
}

/*
 * Is it for want of room, or since the server starts or stops, that a connection failed
 * (SQLSTATE 53..., 57...)?  libpq tells the state in the text only: "FATAL:  53300: ".
 */
static bool
is_for_now(const char *error)
{
	const char *state = error ? strstr(error, ":  ") : NULL;

	return state &&
		   (strncmp(state + 3, "53", 2) == 0 || strncmp(state + 3, "57", 2) == 0) &&
		   strspn(state + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
		   state[8] == ':';
}

static bool
is_error(const PGresult *result)
{
	return result && PQresultStatus(result) != PGRES_TUPLES_OK &&
		   PQresultStatus(result) != PGRES_COMMAND_OK;
}

static void
fail_db(Db *db, const char *error)
{
	Query *query = db->query;
	PGresult *result = is_error(db->result) ? db->result : NULL;
	bool refused = !db->connected && db->reached && !is_for_now(error);
	char *copy = must(strdup(error && error[0] ? error : "no connection"));

	db->query = NULL;
	if (result)
		db->result = NULL;
	close_db(db);
	/* Ended while it worked: the result says why. */
	if (query)
		finish(query, result, result ? NULL : copy, refused);
	PQclear(result);
	free(copy);
}

static void
start_query(Db *db)
{
	Query *query = db->query;
	Oid types[MAX_PARAMS];
	struct timeval tv = {serve_options.statement_timeout / 1000 + 5, 0};

	db->used = time(NULL);
	/* All are text: which type they are read as, the SQL says. */
	for (int i = 0; i < MAX_PARAMS; i++)
		types[i] = TEXT_OID;
	if (!PQsendQueryParams(db->pg, query->sql, query->nparams, types,
						   (const char *const *) query->params, NULL, NULL, 0))
	{
		fail_db(db, PQerrorMessage(db->pg));
		return;
	}
	evtimer_add(db->deadline, &tv);
	wait_for(db, EV_READ | (PQflush(db->pg) == 1 ? EV_WRITE : 0));
}

/* How many connections a role may have. */
static int
share_of_role(void)
{
	int quarter = serve_options.max_db / 4;

	return quarter > 1 ? quarter : 1;
}

static bool
same_role(Session *one, Session *other)
{
	return one->user && other->user && strcmp(one->user, other->user) == 0;
}

/* Has the role of this connection its share without it?  Signing in takes one more. */
static bool
beyond_share(Db *db)
{
	int others = 0;

	for (Db *other = all_db; other; other = other->next)
		others += other != db && !other->session->signing_in &&
				  same_role(other->session, db->session);
	return others >= share_of_role();
}

/* Idle: it is for who waits, and becomes readable when the server ends it. */
static void
rest(Db *db)
{
	evtimer_del(db->deadline);
	db->used = time(NULL);
	if (db->session->ended || beyond_share(db))
		close_db(db);
	else
	{
		wait_for(db, EV_READ);
		look_again();
	}
}

static void
go_on_connecting(Db *db)
{
	switch (PQconnectPoll(db->pg))
	{
		case PGRES_POLLING_READING:
			if (PQstatus(db->pg) >= CONNECTION_AWAITING_RESPONSE)
				db->reached = true;
			wait_for(db, EV_READ);
			break;
		case PGRES_POLLING_WRITING:
			wait_for(db, EV_WRITE);
			break;
		case PGRES_POLLING_OK:
			/*
			 * A password is the proof of who asks.  Where the server wants none (trust,
			 * peer), it would be this process that is let in, not the user.
			 */
			if (db->session->password && !PQconnectionUsedPassword(db->pg))
			{
				db->reached = true;
				fail_db(db, "the database did not ask for the password");
				return;
			}
			db->connected = true;
			PQsetErrorVerbosity(db->pg, PQERRORS_DEFAULT);
			PQsetnonblocking(db->pg, 1);
			if (db->query)
				start_query(db);
			else
				rest(db);
			break;
		default:
			fail_db(db, PQerrorMessage(db->pg));
			break;
	}
}

/* All of the answer is here. */
static void
answered(Db *db)
{
	Query *query = db->query;
	PGresult *result = db->result;

	db->query = NULL;
	db->result = NULL;
	/* First the connection, since finish may free the session. */
	if (PQstatus(db->pg) != CONNECTION_OK)
		close_db(db);
	else
		rest(db);
	finish(query, result, NULL, false);
	PQclear(result);
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
	Db *db = arg;
	PGresult *result;

	if (!db->connected)
	{
		go_on_connecting(db);
		return;
	}
	if ((what & EV_READ) && !PQconsumeInput(db->pg))
	{
		fail_db(db, PQerrorMessage(db->pg));
		return;
	}
	if (!db->query)
	{
		/* Parameters or a notice; or its end, which PQconsumeInput tells. */
		if (PQstatus(db->pg) != CONNECTION_OK)
			close_db(db);
		else
			wait_for(db, EV_READ);
		return;
	}
	/* After the result of the statement comes the end of its transaction, or its error. */
	while (!PQisBusy(db->pg))
	{
		result = PQgetResult(db->pg);
		if (result == NULL)
		{
			answered(db);
			return;
		}
		if (db->result == NULL || (is_error(result) && !is_error(db->result)))
		{
			PQclear(db->result);
			db->result = result;
		}
		else
			PQclear(result);
	}
	wait_for(db, EV_READ | (PQflush(db->pg) == 1 ? EV_WRITE : 0));
}

/* Too long: the server ends statements by itself; one that doesn't is not waited for. */
static void
on_db_deadline(evutil_socket_t fd, short what, void *arg)
{
	Db *db = arg;

	fail_db(db, db->connected ? "the database gives no answer"
							  : "no connection to the database in time");
}

/* Opens a connection for a query. */
static void
open_db(Session *session, Query *query)
{
	Db *db = must(calloc(1, sizeof(Db)));
	struct timeval tv = {CONNECT_TIME, 0};
	char options[400];
	char application[200];
	const char *keywords[10];
	const char *values[10];
	int n = 0;

	snprintf(
		options, sizeof(options),
		"-c statement_timeout=%d -c lock_timeout=%d -c idle_in_transaction_session_timeout=10s "
		"-c default_transaction_read_only=%s -c timezone=UTC -c datestyle=ISO "
		"-c intervalstyle=postgres -c search_path=pg_catalog -c jit=off "
		"-c client_min_messages=error",
		serve_options.statement_timeout, serve_options.statement_timeout / 2,
		query->writes ? "off" : "on");
	snprintf(application, sizeof(application), "eventq serve%s%s",
			 session->user ? " " : "", session->user ? session->user : "");
	keywords[n] = "dbname";
	values[n++] = serve_options.cli->dbname;
	keywords[n] = "host";
	values[n++] = serve_options.cli->host;
	keywords[n] = "port";
	values[n++] = serve_options.cli->port;
	keywords[n] = "user";
	values[n++] = session->user ? session->user : serve_options.cli->user;
	if (session->password)
	{
		keywords[n] = "password";
		values[n++] = session->password;
	}
	keywords[n] = "options";
	values[n++] = options;
	keywords[n] = "application_name";
	values[n++] = application;
	keywords[n] = "client_encoding";
	values[n++] = "UTF8";
	keywords[n] = values[n] = NULL;

	db->session = session;
	session->refs++;
	db->writes = query->writes;
	db->query = query;
	db->used = time(NULL);
	db->next = all_db;
	all_db = db;
	db_count++;
	db->deadline = must(evtimer_new(serve_base, on_db_deadline, db));
	evtimer_add(db->deadline, &tv);
	db->pg = must(PQconnectStartParams(keywords, values, 1));
	PQsetErrorVerbosity(db->pg, PQERRORS_VERBOSE); /* with its SQLSTATE */
	if (PQstatus(db->pg) == CONNECTION_BAD)
		fail_db(db, PQerrorMessage(db->pg));
	else
		wait_for(db, EV_WRITE);
}

static bool
is_idle(Db *db)
{
	return db->connected && !db->query;
}

/*
 * Closes the connection that has been idle longest: of anybody, or of one session, or
 * of the sessions of one role.  The server's own stay.
 */
static bool
close_an_idle(Session *of, bool whole_role)
{
	Db *oldest = NULL;

	for (Db *db = all_db; db; db = db->next)
		if (is_idle(db) && (of || db->session->key[0] != '\0') &&
			(!of || db->session == of ||
			 (whole_role && same_role(db->session, of))) &&
			(!oldest || db->used < oldest->used))
			oldest = db;
	if (oldest)
		close_db(oldest);
	return oldest != NULL;
}

/* May this query use that idle connection?  Who signs in proves himself by a new one. */
static bool
may_use(Query *query, Db *db)
{
	Session *session = query->session;

	return is_idle(db) && db->writes == query->writes && !session->signing_in &&
		   (db->session == session || same_identity(db->session, session));
}

/* Has an idle connection take a query, for whose session it is from now on. */
static void
use_db(Db *db, Query *query)
{
	Session *before = db->session;

	query->session->refs++;
	db->session = query->session;
	session_unref(before);
	db->query = query;
	start_query(db);
}

/* Is there a connection for a query, idle or to be opened?  *found: an idle one. */
static bool
find_db(Query *query, Db **found)
{
	Session *session = query->session;
	int of_session = 0;
	int of_role = 0;
	int at_work = 0; /* of the role */
	int of_all = 0;
	int idle = 0;
	int limit = serve_options.max_db;

	*found = NULL;
	for (Db *db = all_db; db; db = db->next)
	{
		if (may_use(query, db))
		{
			*found = db;
			return true;
		}
		of_session += db->session == session;
		of_all += db->session->key[0] != '\0';
		idle += db->session->key[0] != '\0' && is_idle(db);
		if (!db->session->signing_in && same_role(db->session, session))
		{
			of_role++;
			at_work += !is_idle(db);
		}
	}
	/* Of the other kind, and idle: it makes room for this one. */
	if (of_session >= session->max_db)
	{
		if (!close_an_idle(session, false))
			return false;
		of_all--;
		idle--;
		of_role--;
	}
	if (session->key[0] == '\0')
		return true;
	if (!session->signing_in)
	{
		if (of_role >= share_of_role())
		{
			if (!close_an_idle(session, true))
				return false;
			of_all--;
			idle--;
			of_role--;
		}
		if (at_work > 0)
			limit -= serve_options.max_db / 4;
	}
	if (of_all - idle >= limit)
		return false;
	while (of_all-- >= limit)
		close_an_idle(NULL, false);
	return true;
}

/* Has the queries that wait begin, as far as there are connections. */
static void
serve_waiting(void)
{
	Query **link = &waiting;

	/* What begins may add queries at the end, and takes none away. */
	while (*link)
	{
		Query *query = *link;
		Db *db;

		if (!find_db(query, &db))
		{
			link = &query->next;
			continue;
		}
		*link = query->next;
		query->next = NULL;
		query->session->waiting--;
		if (db)
			use_db(db, query);
		else
			open_db(query->session, query);
	}
}

void
query_send(Query *query)
{
	Session *session = query->session;
	Query **link = &waiting;

	if (session->waiting >= (session->key[0] ? MAX_WAITING : MAX_OWN_WAITING))
	{
		finish(query, NULL, "too many requests at once", false);
		return;
	}
	while (*link)
		link = &(*link)->next;
	*link = query;
	query->since = time(NULL);
	session->waiting++;
	look_again();
}

/* db_tick: called each second; closes what is idle, gives up what has waited too long. */
void
db_tick(void)
{
	time_t now = time(NULL);
	Query *late = NULL;
	Query **link = &waiting;
	Db *next;

	for (Db *db = all_db; db; db = next)
	{
		next = db->next;
		if (is_idle(db) && db->session->key[0] != '\0' &&
			now - db->used >= (db->writes ? IDLE_WRITER : IDLE_READER))
			close_db(db);
	}
	/* finish may bring new ones: first all that are late, then what follows. */
	while (*link)
	{
		Query *query = *link;

		if (now - query->since <= serve_options.statement_timeout / 1000 + 5)
		{
			link = &query->next;
			continue;
		}
		*link = query->next;
		query->session->waiting--;
		query->next = late;
		late = query;
	}
	while (late)
	{
		Query *query = late;

		late = query->next;
		finish(query, NULL, "all database connections of this server are in use",
			   false);
	}
}

/* db_close_session: those at work end by themselves. */
void
db_close_session(Session *session)
{
	Db *next;

	session->refs++;
	for (Db *db = all_db; db; db = next)
	{
		next = db->next;
		if (db->session == session && is_idle(db))
			close_db(db);
	}
	session_unref(session);
}

/* What HTTP calls an error of the database. */
static int
status_of(const char *state)
{
	static const struct
	{
		const char *state;
		int status;
	} of[] = {
		{"42501", 403}, {"EQ003", 403}, {"EQ010", 404}, {"EQ017", 404},
		{"EQ025", 404}, {"EQ032", 404}, {"EQ005", 413}, {"EQ001", 409},
		{"EQ002", 409}, {"EQ007", 403}, {"57014", 504}, {"55P03", 503},
		{"25006", 503}, {"42883", 501}, {"42P01", 501}, {"42703", 501},
		{"3F000", 501}, {"0A000", 501}, {"EQ008", 501}, {"EQ036", 503},
		{"P0002", 404},
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
		if (strcmp(of[i].state, state) == 0)
			return of[i].status;
	if (strncmp(state, "EQ", 2) == 0)
		return 422;
	if (strncmp(state, "22", 2) == 0 || strncmp(state, "23", 2) == 0 ||
		strncmp(state, "54", 2) == 0)
		return 400;
	if (strncmp(state, "08", 2) == 0 || strncmp(state, "57", 2) == 0 ||
		strncmp(state, "53", 2) == 0)
		return 503;
	return 500;
}

/* reply_error: answers with what the database complained of. */
void
reply_error(Http *http, PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);

	if (!state)
		http_problem(http, 503, NULL, "the connection to the database has ended",
					 NULL);
	else
		http_problem(http, status_of(state), state, message, hint);
}
