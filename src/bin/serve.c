/*
 * serve.c: "eventq serve": metrics, health, a JSON API and the dashboard over HTTP.
 *
 * A user signs in as a role of the database, and all that he sees or does is a query as
 * that role: grants and row security decide, there are no other rights.  Besides, nothing
 * can be changed without --allow-actions.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"

ServeOptions serve_options = {
	.payloads = PAYLOADS_ADMIN,
	.statement_timeout = 5000,
	.max_db = 32,
	.max_http = 256,
	.session_idle = 3600,
};
struct event_base *serve_base = NULL;

static Session own_session = {.refs = 1, .max_db = 1}; /* for /metrics and health */
static Session ready_session = {.refs = 1,
								.max_db = 1}; /* /readyz does not wait for them */
static unsigned long requests = 0;
static unsigned long actions = 0;
static bool stopping = false;

void *
must(void *allocated)
{
	if (!allocated)
	{
		fprintf(stderr, "eventq serve: out of memory\n");
		exit(1);
	}
	return allocated;
}

/* serve_log: a line; what came from outside can't end it. */
void
serve_log(const char *format, ...)
{
	char line[1000];
	char at[40];
	time_t now = time(NULL);
	struct tm utc;
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (unsigned char *p = (unsigned char *) line; *p; p++)
		if (*p < 0x20 || *p == 0x7f)
			*p = ' ';
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	fprintf(stderr, "%s eventq serve: ", at);
	eq_put_text(stderr, line);
	fputc('\n', stderr);
}

/* ------------------------------------------------------------------ metrics, health */

/* Requests for /metrics that wait for the one query that is under way. */
#define MAX_SCRAPERS 32

static Http *scrapers[MAX_SCRAPERS];
static int scrapers_count = 0;

static void
metrics_done(Query *query, PGresult *result, const char *error, bool refused)
{
	bool fine = result && PQresultStatus(result) == PGRES_TUPLES_OK &&
				PQntuples(result) == 1;
	struct evbuffer *out = must(evbuffer_new());
	Http *waiting[MAX_SCRAPERS];
	int n = scrapers_count;

	if (fine)
		evbuffer_add(out, PQgetvalue(result, 0, 0), PQgetlength(result, 0, 0));
	evbuffer_add_printf(
		out,
		"# HELP eventq_serve_up Whether the database answered this scrape.\n"
		"# TYPE eventq_serve_up gauge\neventq_serve_up %d\n"
		"# HELP eventq_serve_requests_total HTTP requests.\n"
		"# TYPE eventq_serve_requests_total counter\neventq_serve_requests_total %lu\n"
		"# HELP eventq_serve_actions_total Actions asked for by users.\n"
		"# TYPE eventq_serve_actions_total counter\neventq_serve_actions_total %lu\n"
		"# HELP eventq_serve_refused_total Sign-ins and tokens refused.\n"
		"# TYPE eventq_serve_refused_total counter\neventq_serve_refused_total %lu\n"
		"# HELP eventq_serve_sessions Users signed in.\n"
		"# TYPE eventq_serve_sessions gauge\neventq_serve_sessions %d\n"
		"# HELP eventq_serve_connections Open connections.\n"
		"# TYPE eventq_serve_connections gauge\n"
		"eventq_serve_connections{to=\"clients\"} %d\n"
		"eventq_serve_connections{to=\"database\"} %d\n",
		fine, requests, actions, sessions_refused(), sessions_count(),
		http_connections(), db_connections());
	if (!fine)
		serve_log("/metrics: %s", result ? PQresultErrorMessage(result) : error);
	/* An answer may bring the next request at once. */
	memcpy(waiting, scrapers, sizeof(waiting));
	scrapers_count = 0;
	for (int i = 0; i < n; i++)
		http_reply(waiting[i], 200, "text/plain; version=0.0.4; charset=utf-8", NULL,
				   evbuffer_pullup(out, -1), evbuffer_get_length(out));
	evbuffer_free(out);
}

static void
metrics(Http *http)
{
	if (scrapers_count >= MAX_SCRAPERS)
	{
		http_problem(http, 503, NULL, "too many scrapes at once", NULL);
		return;
	}
	scrapers[scrapers_count++] = http;
	if (scrapers_count == 1)
		query_send(query_make(&own_session, NULL, "SELECT event_queue.prometheus()",
							  metrics_done));
}

static void
health_done(Query *query, PGresult *result, const char *error, bool refused)
{
	if (!result)
		http_problem(query->http, 503, NULL, "no connection to the database", NULL);
	else if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		reply_error(query->http, result);
	else
		http_reply(query->http,
				   strcmp(PQgetvalue(result, 0, 1), "t") == 0 ? 503 : 200,
				   "application/json", NULL, PQgetvalue(result, 0, 0),
				   PQgetlength(result, 0, 0));
}

static void
ready_done(Query *query, PGresult *result, const char *error, bool refused)
{
	if (result && PQresultStatus(result) == PGRES_TUPLES_OK)
		http_reply(query->http, 200, "text/plain", NULL, "ready\n", 6);
	else
		http_problem(query->http, 503, NULL, "could not query the database", NULL);
}

/* Metrics and health name queues: beyond this machine they are for who has a token. */
static bool
may_scrape(Http *http)
{
	const char *token = bearer_of(http);

	if (http->local || serve_options.open_metrics || (token && user_of_token(token)))
		return true;
	http_problem(http, 401, NULL,
				 "a token is needed but from this machine, by the name localhost",
				 "See --token-file and --open-metrics.");
	return false;
}

/* ------------------------------------------------------------------ files */

static void
reply_asset(Http *http, const Asset *asset)
{
	char headers[200];
	bool gzip = asset->gzip && http->gzip;

	snprintf(headers, sizeof(headers), "Cache-Control: no-cache\r\nETag: %s\r\n%s%s",
			 asset->etag, asset->gzip ? "Vary: Accept-Encoding\r\n" : "",
			 gzip ? "Content-Encoding: gzip\r\n" : "");
	if (http->etag && strcmp(http->etag, asset->etag) == 0)
		http_reply(http, 304, NULL, headers, NULL, 0);
	else if (gzip)
		http_reply(http, 200, asset->type, headers, asset->gzip, asset->gzip_length);
	else
		http_reply(http, 200, asset->type, headers, asset->plain,
				   asset->plain_length);
}

/* ------------------------------------------------------------------ requests */

static void
about_self(Http *http)
{
	struct evbuffer *out = must(evbuffer_new());

	evbuffer_add_printf(out, "{\"tokens\":%s,\"allowActions\":%s}",
						tokens_are_given() ? "true" : "false",
						serve_options.allow_actions ? "true" : "false");
	http_reply(http, 200, "application/json", NULL, evbuffer_pullup(out, -1),
			   evbuffer_get_length(out));
	evbuffer_free(out);
}

/* serve_knows: does a request, whose head has come, name who is signed in or a token? */
bool
serve_knows(Http *http)
{
	const char *token = bearer_of(http);

	return token ? user_of_token(token) != NULL : session_of_cookie(http) != NULL;
}

/*
 * serve_request: where each request begins.  Every POST but that which signs in needs
 * the session's CSRF token, or comes with a bearer token, which no page can send by
 * itself; and, but to sign out, --allow-actions.
 */
void
serve_request(Http *http)
{
	const char *path = http->path;
	Session *session = NULL;

	requests++;
	if (serve_options.verbose)
		serve_log("request %s", path);
	if (http->method == METHOD_OTHER)
	{
		http_problem(http, 405, NULL, "only GET, HEAD and POST are served", NULL);
		return;
	}
	if (http->method != METHOD_POST)
	{
		if (strcmp(path, "/healthz") == 0)
		{
			http_reply(http, 200, "text/plain", NULL, "ok\n", 3);
			return;
		}
		if (strcmp(path, "/readyz") == 0)
		{
			query_send(query_make(&ready_session, http,
								  "SELECT event_queue.version()", ready_done));
			return;
		}
		if (strcmp(path, "/metrics") == 0)
		{
			if (may_scrape(http))
				metrics(http);
			return;
		}
		if (strcmp(path, "/health/queues") == 0)
		{
			if (may_scrape(http))
				query_send(
					query_make(&own_session, http,
							   "SELECT h::text, EXISTS (SELECT FROM jsonb_each(h) q "
							   "WHERE q.value ->> 'status' = 'unhealthy') "
							   "FROM event_queue.queue_health() h",
							   health_done));
			return;
		}
		for (int i = 0; i < assets_count; i++)
			if (strcmp(path, assets[i].path) == 0)
			{
				reply_asset(http, &assets[i]);
				return;
			}
		if (strcmp(path, "/api/server") == 0)
		{
			about_self(http);
			return;
		}
	}
	if (strncmp(path, "/api/", 5) != 0)
	{
		http_problem(http, 404, NULL, "not found", NULL);
		return;
	}
	if (http->method == METHOD_POST && strcmp(path, "/api/session") == 0)
	{
		sign_in(http);
		return;
	}
	if (bearer_of(http))
	{
		if (!session_of_bearer(http, &session))
			return;
	}
	else if ((session = session_of_cookie(http)) == NULL)
	{
		http_problem(http, 401, NULL, "sign in first", NULL);
		return;
	}
	if (http->method == METHOD_POST && !session->bearer &&
		(!http->csrf || !same_secret(http->csrf, session->csrf) || !same_site(http)))
	{
		http_problem(
			http, 403, NULL,
			"the CSRF token is missing or wrong, or the request comes from another site",
			NULL);
		return;
	}
	if (strcmp(path, "/api/session") == 0)
	{
		reply_session(http, session, NULL);
		return;
	}
	if (strcmp(path, "/api/session/end") == 0 && http->method == METHOD_POST)
	{
		char cookie[200];

		snprintf(
			cookie, sizeof(cookie),
			"Cache-Control: no-store\r\n"
			"Set-Cookie: eventq=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0\r\n");
		end_session(session);
		http_reply(http, 200, "application/json", cookie, "{}", 2);
		return;
	}
	if (http->method == METHOD_POST)
	{
		if (!serve_options.allow_actions)
		{
			http_problem(http, 403, NULL, "this server is read-only",
						 "It allows actions if it is started with --allow-actions.");
			return;
		}
		actions++;
	}
	if (!api_request(http, session))
		http_problem(http, 404, NULL, "not found", NULL);
}

/* ------------------------------------------------------------------ main */

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	db_tick();
	sessions_tick(time(NULL));
	if (stopping && http_connections() == 0)
		event_base_loopbreak(serve_base);
}

static void
on_stop(evutil_socket_t fd, short what, void *arg)
{
	/* What is under way comes to its end, an action above all. */
	struct timeval tv = {serve_options.statement_timeout / 1000 + 5, 0};

	if (stopping)
	{
		event_base_loopbreak(serve_base);
		return;
	}
	stopping = true;
	http_stop();
	if (http_connections() == 0)
		event_base_loopbreak(serve_base);
	else
		event_base_loopexit(serve_base, &tv);
}

static void
on_hup(evutil_socket_t fd, short what, void *arg)
{
	if (sessions_reload())
		serve_log("token file read again");
}

/* Reads the value of an option, if it is given; false: it is wrong, which has been said. */
static bool
number(const char *text, const char *name, long min, long max, int *into)
{
	long n;

	if (!text)
		return true;
	if (!eq_parse_number(text, min, max, &n))
	{
		eq_usage(serve_options.cli, "--%s must be between %ld and %ld", name, min,
				 max);
		return false;
	}
	*into = (int) n;
	return true;
}

static bool
listen_on(const char *where)
{
	char address[200];
	const char *colon = strrchr(where, ':');
	size_t length = colon ? (size_t) (colon - where) : 0;

	if (!colon)
		return http_listen("127.0.0.1", where);
	if (length >= 2 && where[0] == '[' && colon[-1] == ']')
	{
		where++;
		length -= 2;
	}
	if (length >= sizeof(address))
	{
		serve_log("cannot listen on %s: the address is too long", where);
		return false;
	}
	memcpy(address, where, length);
	address[length] = '\0';
	return http_listen(length == 0 || strcmp(address, "*") == 0 ? NULL : address,
					   colon + 1);
}

/* The options, as they are given */
static const char *opt_listen = "127.0.0.1:8077";
static const char *opt_payloads = "admin";
static const char *opt_token_file = NULL;
static const char *opt_statement_timeout = NULL;
static const char *opt_session_idle = NULL;
static const char *opt_max_connections = NULL;
static const char *opt_max_clients = NULL;

const EqOption eq_serve_options[] = {
	{"listen", "ADDRESS:PORT,...", &opt_listen, NULL,
	 "where to listen (default 127.0.0.1:8077)"},
	{"allow-actions", NULL, NULL, &serve_options.allow_actions,
	 "who is signed in may change what his grants let him"},
	{"payloads", "WHO", &opt_payloads, NULL,
	 "who sees payloads, data of events, results: none, admin (default), all"},
	{"token-file", "FILE", &opt_token_file, NULL,
	 "lines \"TOKEN ROLE\": signing in, and calls of the API, by token"},
	{"open-metrics", NULL, NULL, &serve_options.open_metrics,
	 "metrics and health need no token from other machines"},
	{"secure-cookie", NULL, NULL, &serve_options.secure_cookie,
	 "the cookie goes over TLS only: behind a proxy that has it"},
	{"statement-timeout", "MS", &opt_statement_timeout, NULL,
	 "for each question to the database (default 5000)"},
	{"session-idle", "SECONDS", &opt_session_idle, NULL,
	 "until who does nothing must sign in again (default 3600)"},
	{"max-connections", "N", &opt_max_connections, NULL,
	 "to the database, for all who are signed in (default 32)"},
	{"max-clients", "N", &opt_max_clients, NULL, "HTTP connections (default 256)"},
	{"log-requests", NULL, NULL, &serve_options.verbose, "log each request"},
	{NULL}};

int
eq_cmd_serve(EqCli *cli, int argc, char **argv)
{
	char *where;
	char *rest;
	struct event *tick;
	struct timeval second = {1, 0};

	serve_options.cli = cli;
	serve_options.token_file = opt_token_file;
	if (!number(opt_statement_timeout, "statement-timeout", 100, 600000,
				&serve_options.statement_timeout) ||
		!number(opt_session_idle, "session-idle", 1, SESSION_LIFE,
				&serve_options.session_idle) ||
		!number(opt_max_connections, "max-connections", 1, 1000,
				&serve_options.max_db) ||
		!number(opt_max_clients, "max-clients", 1, 10000, &serve_options.max_http))
		return EQ_EXIT_USAGE;
	if (strcmp(opt_payloads, "none") == 0)
		serve_options.payloads = PAYLOADS_NONE;
	else if (strcmp(opt_payloads, "admin") == 0)
		serve_options.payloads = PAYLOADS_ADMIN;
	else if (strcmp(opt_payloads, "all") == 0)
		serve_options.payloads = PAYLOADS_ALL;
	else
		return eq_usage(cli, "--payloads must be none, admin or all");

	serve_base = must(event_base_new());
	if (!read_tokens())
		return EQ_EXIT_ERROR;
	api_init();
	rest = where = must(strdup(opt_listen));
	for (char *one; (one = strsep(&rest, ",")) != NULL;)
		if (!listen_on(one))
			return EQ_EXIT_ERROR;
	free(where);
	event_add(must(evsignal_new(serve_base, SIGTERM, on_stop, NULL)), NULL);
	event_add(must(evsignal_new(serve_base, SIGINT, on_stop, NULL)), NULL);
	event_add(must(evsignal_new(serve_base, SIGHUP, on_hup, NULL)), NULL);
	tick = must(event_new(serve_base, -1, EV_PERSIST, on_tick, NULL));
	event_add(tick, &second);
	event_base_dispatch(serve_base);
	return EQ_EXIT_OK;
}
