/*
 * serve.h: shared by the files of "eventq serve".
 *
 * serve.c       options, and which path goes where
 * serve_session.c  who is signed in
 * serve_http.c  HTTP/1.1 over libevent's buffers, with all its limits
 * serve_parse.c  the head of a request
 * serve_db.c    asynchronous libpq: connections of sessions, queries, time limits
 * serve_limits.c  how often one may try to sign in
 * serve_api.c   the table of the JSON API: method, path, SQL
 *
 * One thread, one event loop: nothing here may block.
 */
#ifndef EVENTQ_SERVE_H
#define EVENTQ_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <libpq-fe.h>

#include "eventq.h"

#define KEY_HEX	   64 /* 32 random bytes in hexadecimal digits */
#define MAX_PARAMS 20

#define SESSION_LIFE 43200 /* s, at most */

typedef struct Http Http;
typedef struct Query Query;
typedef struct Session Session;

/* Settings, from the command line */
typedef enum PayloadsFor
{
	PAYLOADS_NONE,
	PAYLOADS_ADMIN,
	PAYLOADS_ALL
} PayloadsFor;

typedef struct ServeOptions
{
	EqCli *cli; /* the connection's options */
	const char *token_file;
	bool allow_actions;
	bool secure_cookie;
	bool open_metrics;
	bool verbose;
	PayloadsFor payloads;
	int statement_timeout; /* ms */
	int max_db;			   /* database connections of all sessions */
	int max_http;		   /* HTTP connections */
	int session_idle;	   /* s */
} ServeOptions;

extern ServeOptions serve_options;
extern struct event_base *serve_base;

/* Who tries to sign in, for serve_limits.c: keyed hashes, not the names themselves */
typedef struct SignIn
{
	uint64_t address;
	uint64_t role;
	uint64_t pair;
	bool known; /* has signed in from there before */
} SignIn;

/*
 * Who is signed in.  The server's own session, for /metrics and the health paths,
 * is of the same kind, with no key.
 */
struct Session
{
	Session *next;
	char key[KEY_HEX + 1];
	char csrf[KEY_HEX + 1];
	char *user; /* NULL: whom the connection string or libpq's environment names */
	char *password; /* NULL: libpq finds out (token, server's own) */
	bool bearer;	/* comes with a token in each request, has no cookie */
	bool payloads;	/* sees payloads and what is like them */
	bool ended;		/* signed out: freed when nothing refers to it */
	char *about; /* JSON: user, database, rights; as the database said at sign-in */
	time_t made;
	time_t used;
	bool signing_in; /* the database has not said yet that the password is right */
	SignIn sign_in;	 /* while it is */
	int refs;		 /* connections and queries */
	int max_db;
	int waiting; /* queries that no connection has taken yet */
};

/* A request whose head and body are there; see serve_http.c. */
typedef enum Method
{
	METHOD_GET,
	METHOD_HEAD,
	METHOD_POST,
	METHOD_OTHER
} Method;

struct Http
{
	Method method;
	char *path;	 /* as it came: still with %XX */
	char *query; /* after "?", or NULL */
	char *cookie;
	char *authorization;
	char *csrf;
	char *fetch_site;
	char *content_type;
	char *etag;	   /* If-None-Match */
	bool gzip;	   /* accepts it */
	bool local;	   /* from this machine, and for one of its own names */
	uint64_t from; /* limit_key of the client's address */
	int tries;	   /* to find a place for this sign-in */
	char *body;	   /* NUL-terminated */
	size_t body_length;
};

/* serve_http.c */
extern bool http_listen(const char *address, const char *port);
extern void http_stop(void);
extern int http_connections(void);
extern void http_reply(Http *http, int status, const char *type, const char *headers,
					   const void *body, size_t length);
extern void http_problem(Http *http, int status, const char *sqlstate,
						 const char *detail, const char *hint);

/* serve_parse.c */
extern char *url_decode(const char *from, size_t length, bool plus);
extern char *form_value(const char *form, const char *name);

/* serve_db.c */
/* done is called exactly once; result NULL: no connection, error says why. */
typedef void (*QueryDone)(Query *query, PGresult *result, const char *error,
						  bool refused);

struct Query
{
	Query *next;
	Session *session;
	Http *http;
	const char *sql;
	time_t since; /* when it began to wait */
	int nparams;
	char *params[MAX_PARAMS]; /* owned; NULL: null */
	bool writes;
	bool audited;
	QueryDone done;
	void *arg;
};

extern Query *query_make(Session *session, Http *http, const char *sql,
						 QueryDone done);
extern void query_send(Query *query);
extern void db_tick(void);
extern void db_close_session(Session *session);
extern int db_connections(void);
extern void reply_error(Http *http, PGresult *result);

/* serve_limits.c */
typedef enum MayTry
{
	MAY_TRY,
	TRY_SOON,  /* no place in this moment */
	TRY_LATER, /* too many were refused */
} MayTry;

typedef enum SignInEnd
{
	SIGN_IN_DONE,
	SIGN_IN_REFUSED,
	SIGN_IN_FAILED /* for another reason, which says nothing about the password */
} SignInEnd;

extern uint64_t limit_key(const char *what, const void *bytes, size_t length);
extern MayTry sign_in_begin(SignIn *one, uint64_t address, const char *role);
extern void sign_in_end(const SignIn *one, SignInEnd how);
extern bool hold_begin(uint64_t address);
extern void hold_end(uint64_t address);

/* serve_api.c */
extern void api_init(void);
extern bool api_request(Http *http, Session *session);

/* serve_session.c */
extern bool same_secret(const char *given, const char *secret);
extern void end_session(Session *session);
extern Session *session_of_cookie(Http *http);
extern bool read_tokens(void);
extern const char *user_of_token(const char *token);
extern const char *bearer_of(Http *http);
extern void reply_session(Http *http, Session *session, const char *cookie);
extern bool same_site(Http *http);
extern void sign_in(Http *http);
extern bool session_of_bearer(Http *http, Session **session);
extern void random_bytes(void *into, size_t length);
extern bool same_identity(Session *one, Session *other);
extern void session_unref(Session *session);
extern void sessions_tick(time_t now);
extern bool sessions_reload(void);
extern int sessions_count(void);
extern unsigned long sessions_refused(void);
extern bool tokens_are_given(void);

/* serve.c */
extern void serve_request(Http *http);
extern bool serve_knows(Http *http);
extern void serve_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void *must(void *allocated);

/* web/assets.inc, which embed.pl makes of the other files there */
typedef struct Asset
{
	const char *path;
	const char *type;
	const char *etag;
	const unsigned char *plain;
	size_t plain_length;
	const unsigned char *gzip; /* NULL: not worth it */
	size_t gzip_length;
} Asset;

extern const Asset assets[];
extern const int assets_count;

#endif /* EVENTQ_SERVE_H */
