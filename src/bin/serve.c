/*
 * serve.c: "eventq serve": metrics, health, a JSON API and the dashboard over HTTP.
 *
 * Who signs in is a role of the database, and all that he sees or does is asked of the
 * database as this role: grants and row security decide, there are no rights beside
 * them.  Besides, nothing is changed without --allow-actions.
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

#define MAX_SESSIONS  256
#define SESSION_LIFE  43200 /* s, at most */
#define REFUSAL_DELAY 1		/* s, before a refused sign-in is answered */
#define PLACE_DELAY	  50000 /* us, before a sign-in looks for a place again */
#define PLACE_TRIES	  40
#define MIN_TOKEN	  16
#define MAX_TOKEN	  499
#define MAX_NAME	  63 /* of a role */
#define MAX_PASSWORD  1000

ServeOptions serve_options = {
	.payloads = PAYLOADS_ADMIN,
	.statement_timeout = 5000,
	.max_db = 32,
	.max_http = 256,
	.session_idle = 3600,
};
struct event_base *serve_base = NULL;

/* A line of the token file: who brings this token is this role. */
typedef struct Token
{
	struct Token *next;
	char *token;
	char *user;
} Token;

static Session *sessions = NULL;
static Session own_session = {.refs = 1, .max_db = 1}; /* for /metrics and health */
static Session ready_session = {.refs = 1,
								.max_db = 1}; /* /readyz does not wait for them */
static Token *tokens = NULL;
static unsigned long requests = 0;
static unsigned long refusals = 0;
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
	fprintf(stderr, "%s eventq serve: %s\n", at, line);
}

/* ------------------------------------------------------------------ sessions */

void
random_bytes(void *into, size_t length)
{
	if (getrandom(into, length, 0) != (ssize_t) length)
	{
		serve_log("no random numbers: %s", strerror(errno));
		exit(1);
	}
}

static void
random_key(char *key)
{
	unsigned char bytes[KEY_HEX / 2];

	random_bytes(bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(bytes); i++)
		sprintf(key + 2 * i, "%02x", bytes[i]);
}

/* Are they equal?  Takes as long wherever they differ. */
static bool
same_secret(const char *given, const char *secret)
{
	size_t length = strlen(secret);
	size_t of_given = strlen(given);
	unsigned char differs = of_given != length;

	for (size_t i = 0; i < length; i++)
		differs |= (unsigned char) ((i < of_given ? given[i] : 0) ^ secret[i]);
	return differs == 0;
}

/* Have they shown the same password of the same role?  By a token it is none. */
bool
same_identity(Session *one, Session *other)
{
	return one->user && other->user && strcmp(one->user, other->user) == 0 &&
		   !one->password == !other->password &&
		   (!one->password || same_secret(one->password, other->password));
}

void
wipe(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

/* session_unref: frees a session that has ended when nothing refers to it any more. */
void
session_unref(Session *session)
{
	if (--session->refs > 0)
		return;
	wipe(session->password);
	free(session->user);
	free(session->about);
	explicit_bzero(session, sizeof(Session));
	free(session);
}

static Session *
make_session(const char *user, const char *password)
{
	Session *session = must(calloc(1, sizeof(Session)));

	random_key(session->key);
	random_key(session->csrf);
	session->user = must(strdup(user));
	session->password = password ? must(strdup(password)) : NULL;
	session->made = session->used = time(NULL);
	session->max_db = 3;
	session->refs = 1;
	return session;
}

static void
end_session(Session *session)
{
	for (Session **link = &sessions; *link; link = &(*link)->next)
		if (*link == session)
		{
			*link = session->next;
			break;
		}
	session->ended = true;
	db_close_session(session);
	session_unref(session);
}

/* The session used longest ago of the role that has most. */
static Session *
session_to_end(void)
{
	Session *found = NULL;
	int most = 0;

	for (Session *one = sessions; one; one = one->next)
	{
		Session *oldest = one;
		int n = 0;

		for (Session *other = one; other; other = other->next)
			if (strcmp(other->user, one->user) == 0)
			{
				n++;
				if (other->used <= oldest->used)
					oldest = other;
			}
		if (n > most)
		{
			most = n;
			found = oldest;
		}
	}
	return found;
}

/* Makes a session one that requests find.  If there are too many, one goes: no other role's. */
static void
add_session(Session *session)
{
	int n = 0;

	for (Session *one = sessions; one; one = one->next)
		n++;
	if (n >= MAX_SESSIONS)
		end_session(session_to_end());
	session->next = sessions;
	sessions = session;
	session->refs++;
}

static bool
over(Session *session, time_t now)
{
	return now - session->used > serve_options.session_idle ||
		   now - session->made > SESSION_LIFE;
}

/* The session that the request's cookie names, if it is alive. */
static Session *
session_of_cookie(Http *http)
{
	static const char name[] = "eventq=";
	char *from = http->cookie;
	char key[KEY_HEX + 1];
	Session *found = NULL;

	while (from && strncmp(from, name, sizeof(name) - 1) != 0)
		if ((from = strchr(from, ';')) != NULL)
			from += 1 + strspn(from + 1, " ");
	if (!from)
		return NULL;
	from += sizeof(name) - 1;
	if (strspn(from, "0123456789abcdef") != KEY_HEX)
		return NULL;
	memcpy(key, from, KEY_HEX);
	key[KEY_HEX] = '\0';
	for (Session *one = sessions; one; one = one->next)
		if (!one->bearer && same_secret(key, one->key))
			found = one;
	if (found && over(found, time(NULL)))
		found = NULL;
	if (found)
		found->used = time(NULL);
	return found;
}

/* ------------------------------------------------------------------ token file */

static void
free_tokens(Token *all)
{
	Token *next;

	for (Token *one = all; one; one = next)
	{
		next = one->next;
		wipe(one->token);
		free(one->user);
		free(one);
	}
}

/*
 * Adds what a line of the token file says.  Result: what is wrong with it, or NULL.
 * Nothing is cut: a token that lost its end would be another one, as would a role.
 */
static const char *
take_token(char *line, size_t length, Token **into)
{
	static const char blank[] = " \t\r\n";
	char *rest = line;
	char *words[3] = {NULL, NULL, NULL};
	Token *one;

	if (strlen(line) != length)
		return "has a byte of value 0";
	for (int i = 0; i < 3; i++)
	{
		rest += strspn(rest, blank);
		if (*rest == '\0' || *rest == '#')
			break;
		words[i] = rest;
		rest += strcspn(rest, blank);
		if (*rest != '\0')
			*rest++ = '\0';
	}
	if (!words[0])
		return NULL;
	if (!words[1])
		return "has a token and no role";
	if (words[2])
		return "has more than a token and a role";
	if (strlen(words[0]) < MIN_TOKEN || strlen(words[0]) > MAX_TOKEN)
		return "has a token that is not of 16 to 499 characters";
	if (strlen(words[1]) > MAX_NAME)
		return "has a role whose name is longer than 63 bytes";
	one = must(calloc(1, sizeof(Token)));
	one->token = must(strdup(words[0]));
	one->user = must(strdup(words[1]));
	one->next = *into;
	*into = one;
	return NULL;
}

/* Lines "TOKEN ROLE"; false, and why, if it can't be used: then the old ones stay. */
static bool
read_tokens(void)
{
	FILE *file;
	struct stat about;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	Token *read = NULL;
	const char *wrong = NULL;

	if (!serve_options.token_file)
		return true;
	file = fopen(serve_options.token_file, "r");
	if (!file || fstat(fileno(file), &about) != 0)
	{
		serve_log("cannot read the token file \"%s\": %s", serve_options.token_file,
				  strerror(errno));
		if (file)
			fclose(file);
		return false;
	}
	if (!S_ISREG(about.st_mode) || (about.st_mode & (S_IRWXG | S_IRWXO)))
	{
		serve_log(
			"the token file \"%s\" must be a file that only its owner can read: chmod 600",
			serve_options.token_file);
		fclose(file);
		return false;
	}
	for (int n = 1; !wrong && (length = getline(&line, &room, file)) >= 0; n++)
	{
		wrong = take_token(line, (size_t) length, &read);
		if (wrong)
			serve_log("the token file \"%s\", line %d, %s: must be TOKEN ROLE",
					  serve_options.token_file, n, wrong);
	}
	if (!wrong && ferror(file))
	{
		wrong = strerror(errno);
		serve_log("cannot read the token file \"%s\": %s", serve_options.token_file,
				  wrong);
	}
	fclose(file);
	if (line)
		explicit_bzero(line, room);
	free(line);
	if (wrong)
	{
		free_tokens(read);
		return false;
	}
	free_tokens(tokens);
	tokens = read;
	return true;
}

static const char *
user_of_token(const char *token)
{
	const char *user = NULL;

	for (Token *one = tokens; one; one = one->next)
		if (same_secret(token, one->token))
			user = one->user;
	return user;
}

static const char *
bearer_of(Http *http)
{
	if (http->authorization && strncasecmp(http->authorization, "Bearer ", 7) == 0)
		return http->authorization + 7;
	return NULL;
}

/* ------------------------------------------------------------------ signing in */

/*
 * What the dashboard must know of who signs in.  $1: payloads are for all, for
 * those who may retry dead letters, or for nobody.
 */
static const char about_sql[] =
	"SELECT json_build_object('user', current_user, 'database', current_database(), "
	"  'tenant', event_queue.current_tenant(), 'version', event_queue.version(), "
	"  'server', current_setting('server_version'), "
	"  'standby', pg_is_in_recovery(), "
	"  'actions', $2::boolean AND has_function_privilege('event_queue.retry_dead(bigint,jsonb)', 'EXECUTE'), "
	"  'observer', has_table_privilege('event_queue.queue_status', 'SELECT')), "
	"  CASE $1 WHEN 'all' THEN true WHEN 'none' THEN false "
	"    ELSE has_function_privilege('event_queue.retry_dead(bigint,jsonb)', 'EXECUTE') END";

static void
add_about_params(Query *query)
{
	static const char *const names[] = {"none", "admin", "all"};

	query->params[0] = must(strdup(names[serve_options.payloads]));
	query->params[1] = must(strdup(serve_options.allow_actions ? "true" : "false"));
	query->nparams = 2;
}

/* Answers with who is signed in, and the token that each POST must bring. */
static void
reply_session(Http *http, Session *session, const char *cookie)
{
	struct evbuffer *out = must(evbuffer_new());
	char headers[300];

	evbuffer_add_printf(
		out, "{\"csrf\":\"%s\",\"payloads\":%s,\"allowActions\":%s,\"about\":%s}",
		session->csrf, session->payloads ? "true" : "false",
		serve_options.allow_actions ? "true" : "false", session->about);
	snprintf(headers, sizeof(headers), "Cache-Control: no-store\r\n%s",
			 cookie ? cookie : "");
	http_reply(http, 200, "application/json", headers, evbuffer_pullup(out, -1),
			   evbuffer_get_length(out));
	evbuffer_free(out);
}

static void
refuse_now(Http *http)
{
	http_problem(http, 401, NULL, "the database refuses this name or password",
				 NULL);
}

static void
on_refuse(evutil_socket_t fd, short what, void *arg)
{
	Http *http = arg;

	hold_end(http->from);
	refuse_now(http);
}

/* A refusal comes late; not if many wait for theirs, since what limits is the count. */
static void
refuse_later(Http *http)
{
	struct timeval tv = {REFUSAL_DELAY, 0};

	refusals++;
	if (hold_begin(http->from))
		event_base_once(serve_base, -1, EV_TIMEOUT, on_refuse, http, &tv);
	else
		refuse_now(http);
}

static void
about_done(Query *query, PGresult *result, const char *error, bool refused)
{
	Session *session = query->session;
	Http *http = query->http;
	bool fine = result && PQresultStatus(result) == PGRES_TUPLES_OK &&
				PQntuples(result) == 1;

	if (fine)
	{
		free(session->about);
		session->about = must(strdup(PQgetvalue(result, 0, 0)));
		session->payloads = strcmp(PQgetvalue(result, 0, 1), "t") == 0;
	}
	if (query->arg) /* a request with a token, which can go on now */
	{
		if (fine)
		{
			add_session(session);
			serve_request(http);
		}
		else if (result)
			reply_error(http, result);
		else
		{
			serve_log("token of role=%s: %s", session->user, error);
			http_problem(
				http, 503, NULL,
				"no connection to the database as the role of this token",
				"For a token, libpq's own means (.pgpass, peer, certificate) must let this server in as the role.");
		}
		session_unref(session);
		return;
	}
	if (fine)
	{
		char cookie[200];

		session->signing_in = false;
		sign_in_end(&session->sign_in, SIGN_IN_DONE);
		add_session(session);
		serve_log("sign-in role=%s", session->user);
		snprintf(cookie, sizeof(cookie),
				 "Set-Cookie: eventq=%s; Path=/; HttpOnly; SameSite=Strict%s\r\n",
				 session->key, serve_options.secure_cookie ? "; Secure" : "");
		reply_session(http, session, cookie);
	}
	else
	{
		const char *why = result ? PQresultErrorMessage(result) : error;

		sign_in_end(&session->sign_in, refused ? SIGN_IN_REFUSED : SIGN_IN_FAILED);
		serve_log("sign-in refused role=%s: %s", session->user, why ? why : "");
		if (refused)
			refuse_later(http);
		else
		{
			refusals++;
			if (result)
				http_problem(
					http, 403, PQresultErrorField(result, PG_DIAG_SQLSTATE),
					"this role has no access to event_queue in this database",
					"SELECT event_queue.grant_observer('role') gives it.");
			else
				http_problem(http, 503, NULL, "no connection to the database", NULL);
		}
	}
	session_unref(session);
}

static bool
same_site(Http *http)
{
	return !http->fetch_site || strcmp(http->fetch_site, "same-origin") == 0 ||
		   strcmp(http->fetch_site, "none") == 0;
}

static void sign_in(Http *http);

static void
on_place(evutil_socket_t fd, short what, void *arg)
{
	Http *http = arg;

	hold_end(http->from);
	sign_in(http);
}

/* Has a sign-in, whose name and password are well formed, ask the database. */
static void
try_sign_in(Http *http, const char *user, const char *password)
{
	struct timeval tv = {0, PLACE_DELAY};
	SignIn one;
	MayTry may = sign_in_begin(&one, http->from, user);

	if (may == MAY_TRY)
	{
		Session *session = make_session(user, password);
		Query *query = query_make(session, http, about_sql, about_done);

		session->signing_in = true;
		session->sign_in = one;
		add_about_params(query);
		query_send(query);
	}
	else if (may == TRY_SOON && http->tries++ < PLACE_TRIES &&
			 hold_begin(http->from))
		event_base_once(serve_base, -1, EV_TIMEOUT, on_place, http, &tv);
	else
		http_problem(http, 429, NULL,
					 may == TRY_SOON ? "too many sign-ins at once"
									 : "too many sign-ins have been refused",
					 "Try again in some seconds.");
}

static void
sign_in(Http *http)
{
	char *user = form_value(http->body, "user");
	char *password = form_value(http->body, "password");
	char *token = form_value(http->body, "token");
	const char *of_token = token && token[0] ? user_of_token(token) : NULL;

	/* A page of another site can't send this header without being asked whether it may. */
	if (!http->csrf || strcmp(http->csrf, "sign-in") != 0 || !same_site(http))
		http_problem(http, 403, NULL, "signing in is for this server's own page",
					 "Send the header X-CSRF-Token: sign-in.");
	else if (of_token)
		try_sign_in(http, of_token, NULL);
	else if (token && token[0])
	{
		serve_log("sign-in refused: unknown token");
		refuse_later(http);
	}
	else if (!user || !user[0] || strlen(user) > MAX_NAME || !password ||
			 !password[0] || strlen(password) > MAX_PASSWORD)
		http_problem(http, 400, NULL, "a role and its password are needed", NULL);
	else
		try_sign_in(http, user, password);
	free(user);
	wipe(password);
	wipe(token);
}

/*
 * The session of a request's bearer token: one per token, and the next requests use it
 * again.  Result: false if the request has been answered, or goes on later.
 */
static bool
session_of_bearer(Http *http, Session **session)
{
	const char *token = bearer_of(http);
	const char *user = user_of_token(token);
	Query *query;

	*session = NULL;
	if (!user)
	{
		refusals++;
		http_problem(http, 401, NULL, "unknown token", NULL);
		return false;
	}
	for (Session *one = sessions; one; one = one->next)
		if (one->bearer && strcmp(one->user, user) == 0 && !over(one, time(NULL)))
		{
			one->used = time(NULL);
			*session = one;
			return true;
		}
	*session = make_session(user, NULL);
	(*session)->bearer = true;
	query = query_make(*session, http, about_sql, about_done);
	add_about_params(query);
	query->arg = http;
	query_send(query);
	return false;
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
	int of = 0;

	for (Session *one = sessions; one; one = one->next)
		of++;
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
		fine, requests, actions, refusals, of, http_connections(), db_connections());
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
		http_problem(query->http, 503, NULL, "the database can not be asked", NULL);
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
						tokens ? "true" : "false",
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
 * itself; and --allow-actions.
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
		http_problem(http, 404, NULL, "there is nothing here", NULL);
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
		http_problem(http, 403, NULL, "the CSRF token is missing or wrong", NULL);
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
		http_problem(http, 404, NULL, "there is nothing here", NULL);
}

/* ------------------------------------------------------------------ main */

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	time_t now = time(NULL);
	Session *next;

	db_tick();
	for (Session *one = sessions; one; one = next)
	{
		next = one->next;
		if (over(one, now))
			end_session(one);
	}
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
	if (read_tokens())
	{
		Session *next;

		/* Whose token is gone is out. */
		for (Session *one = sessions; one; one = next)
		{
			next = one->next;
			if (!one->password)
				end_session(one);
		}
		serve_log("token file read again");
	}
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
		return false;
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
