/*
 * serve_session.c: sessions of "eventq serve": those with a cookie, and those of the token
 * file.
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
#define REFUSAL_DELAY 1		/* s, before a refused sign-in is answered */
#define PLACE_DELAY	  50000 /* us, before a sign-in looks for a place again */
#define PLACE_TRIES	  40
#define MIN_TOKEN	  16
#define MAX_TOKEN	  499
#define MAX_NAME	  63 /* of a role */
#define MAX_PASSWORD  1000

/* A line of the token file: who brings this token is this role. */
typedef struct Token
{
	struct Token *next;
	char *token;
	char *user;
} Token;

static Session *sessions = NULL;
static Token *tokens = NULL;
static unsigned long refusals = 0;

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
bool
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

static void
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

void
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
Session *
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
bool
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

const char *
user_of_token(const char *token)
{
	const char *user = NULL;

	for (Token *one = tokens; one; one = one->next)
		if (same_secret(token, one->token))
			user = one->user;
	return user;
}

const char *
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
void
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

bool
same_site(Http *http)
{
	return !http->fetch_site || strcmp(http->fetch_site, "same-origin") == 0 ||
		   strcmp(http->fetch_site, "none") == 0;
}

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

void
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
bool
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

/* Ends sessions that are over. */
void
sessions_tick(time_t now)
{
	Session *next;

	for (Session *one = sessions; one; one = next)
	{
		next = one->next;
		if (over(one, now))
			end_session(one);
	}
}

/* The token file has changed: whose token is gone is out. */
bool
sessions_reload(void)
{
	Session *next;

	if (!read_tokens())
		return false;
	for (Session *one = sessions; one; one = next)
	{
		next = one->next;
		if (!one->password)
			end_session(one);
	}
	return true;
}

/* For /metrics. */
int
sessions_count(void)
{
	int n = 0;

	for (Session *one = sessions; one; one = one->next)
		n++;
	return n;
}

unsigned long
sessions_refused(void)
{
	return refusals;
}

/* Is there a token file? */
bool
tokens_are_given(void)
{
	return tokens != NULL;
}
