/*
 * serve_http.c: HTTP/1.1 over libevent's buffers.
 *
 * Not evhttp: that of libevent 2.1 limits neither the number of connections nor the time
 * for a whole request, so a client that sends a byte now and then keeps a connection
 * forever.
 *
 * A connection has one request at a time.  The limits are strict: a head of at most
 * MAX_HEAD bytes, a body with Content-Length of at most MAX_BODY, and DEADLINE seconds for
 * both; anything else is answered with an error, after which the connection ends.  Without a
 * session, a body has at most MAX_STRANGE_BODY, and such connections are at most three
 * quarters of all: the oldest whose request is not being answered is closed for a new one.
 */
#define _GNU_SOURCE /* strcasestr */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "serve_http.h"

#define MAX_HEAD		 16384
#define MAX_STRANGE_BODY 4096
#define MAX_BODIES		 (32 * 1024 * 1024) /* of all requests, those larger than that */
#define MAX_LISTENERS	 8
#define DEADLINE		 10 /* s, for a whole request */
#define KEEP_ALIVE		 60 /* s, between requests */
#define SEND_DEADLINE	 60 /* s, for a whole answer */
#define LINGER			 2	/* s, for the rest of what is not wanted */

static Connection *connections = NULL;
static int connections_count = 0;
static size_t bodies = 0;
static unsigned long turns = 0;
static struct evconnlistener *listeners[MAX_LISTENERS];
static int listeners_count = 0;

/* Of every answer: nothing but the page's own files runs or is shown. */
static const char always[] =
	"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
	"img-src 'self' data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
	"base-uri 'none'\r\n"
	"X-Content-Type-Options: nosniff\r\n"
	"X-Frame-Options: DENY\r\n"
	"Referrer-Policy: no-referrer\r\n"
	"Cross-Origin-Opener-Policy: same-origin\r\n"
	"Cross-Origin-Resource-Policy: same-origin\r\n";

static void on_read(struct bufferevent *bev, void *arg);

static const char *
reason_of(int status)
{
	switch (status)
	{
		case 200:
			return "OK";
		case 204:
			return "No Content";
		case 304:
			return "Not Modified";
		case 400:
			return "Bad Request";
		case 401:
			return "Unauthorized";
		case 403:
			return "Forbidden";
		case 404:
			return "Not Found";
		case 405:
			return "Method Not Allowed";
		case 408:
			return "Request Timeout";
		case 409:
			return "Conflict";
		case 411:
			return "Length Required";
		case 413:
			return "Content Too Large";
		case 415:
			return "Unsupported Media Type";
		case 422:
			return "Unprocessable Content";
		case 429:
			return "Too Many Requests";
		case 431:
			return "Request Header Fields Too Large";
		case 501:
			return "Not Implemented";
		case 503:
			return "Service Unavailable";
		case 504:
			return "Gateway Timeout";
		case 505:
			return "HTTP Version Not Supported";
		default:
			return "Internal Server Error";
	}
}

int
http_connections(void)
{
	return connections_count;
}

static void
set_deadline(Connection *c, int seconds)
{
	struct timeval tv = {seconds, 0};

	evtimer_add(c->deadline, &tv);
}

static void
set_state(Connection *c, State state)
{
	c->state = state;
	c->since = ++turns;
}

static void
forget_request(Connection *c)
{
	/* There may be a password in them, or a key. */
	if (c->head)
		explicit_bzero(c->head, c->head_length);
	if (c->http.body)
		explicit_bzero(c->http.body, c->http.body_length);
	free(c->head);
	free(c->http.body);
	bodies -= c->counted;
	c->counted = 0;
	c->head = NULL;
	memset(&c->http, 0, sizeof(c->http));
	c->http.local = c->local;
	c->http.from = c->from;
}

static void
free_connection(Connection *c)
{
	if (c->prev)
		c->prev->next = c->next;
	else
		connections = c->next;
	if (c->next)
		c->next->prev = c->prev;
	connections_count--;
	forget_request(c);
	event_free(c->deadline);
	bufferevent_free(c->bev);
	free(c);
}

/*
 * Ends a connection whose answer has been sent: what the client still sends is read
 * for a moment, since closing at once could take the answer from it.
 */
static void
linger(Connection *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);

	set_state(c, LINGERS);
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	evbuffer_drain(in, evbuffer_get_length(in));
	bufferevent_enable(c->bev, EV_READ);
	set_deadline(c, LINGER);
}

/* The answer is sent: on to the next request, or the end. */
static void
on_written(struct bufferevent *bev, void *arg)
{
	Connection *c = arg;

	if (c->state != SENDING)
		return;
	forget_request(c);
	if (!c->keep)
	{
		linger(c);
		return;
	}
	set_state(c, IDLE);
	set_deadline(c, KEEP_ALIVE);
	bufferevent_setwatermark(bev, EV_READ, 0, MAX_HEAD);
	bufferevent_enable(bev, EV_READ);
	if (evbuffer_get_length(bufferevent_get_input(bev)) > 0)
		on_read(bev, c);
}

/*
 * http_reply: answers a request; it is over for the caller then.  headers are further
 * lines, each with its end.  An answer to HEAD goes without its body.
 */
void
http_reply(Http *http, int status, const char *type, const char *headers,
		   const void *body, size_t length)
{
	Connection *c = (Connection *) http;
	struct evbuffer *out;

	if (c->gone)
	{
		free_connection(c);
		return;
	}
	out = bufferevent_get_output(c->bev);
	set_state(c, SENDING);
	set_deadline(c, SEND_DEADLINE);
	evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n%s", status, reason_of(status),
						always);
	if (type)
		evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
	if (headers)
		evbuffer_add_printf(out, "%s", headers);
	else
		evbuffer_add_printf(out, "Cache-Control: no-store\r\n");
	if (status != 304 && status != 204)
		evbuffer_add_printf(out, "Content-Length: %zu\r\n", length);
	evbuffer_add_printf(out, "Connection: %s\r\n\r\n",
						c->keep ? "keep-alive" : "close");
	if (http->method != METHOD_HEAD && length > 0)
		evbuffer_add(out, body, length);
}

/* json_string: text as a JSON string, with its quotes. */
static void
json_string(struct evbuffer *out, const char *text)
{
	evbuffer_add(out, "\"", 1);
	for (const unsigned char *p = (const unsigned char *) text; *p; p++)
	{
		if (*p == '"' || *p == '\\')
			evbuffer_add_printf(out, "\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			evbuffer_add_printf(out, "\\u%04x", *p);
		else
			evbuffer_add(out, p, 1);
	}
	evbuffer_add(out, "\"", 1);
}

/* http_problem: answers with an error, as RFC 9457 has it. */
void
http_problem(Http *http, int status, const char *sqlstate, const char *detail,
			 const char *hint)
{
	struct evbuffer *out = must(evbuffer_new());
	const char *headers = NULL;

	evbuffer_add_printf(out, "{\"type\":\"%s%s\",\"title\":\"%s\",\"status\":%d",
						sqlstate ? "urn:event_queue:sqlstate:" : "about:blank",
						sqlstate ? sqlstate : "", reason_of(status), status);
	if (sqlstate)
		evbuffer_add_printf(out, ",\"sqlstate\":\"%s\"", sqlstate);
	if (detail)
	{
		evbuffer_add_printf(out, ",\"detail\":");
		json_string(out, detail);
	}
	if (hint)
	{
		evbuffer_add_printf(out, ",\"hint\":");
		json_string(out, hint);
	}
	evbuffer_add_printf(out, "}");
	if (status == 405)
		headers = "Cache-Control: no-store\r\nAllow: GET, HEAD, POST\r\n";
	if (status == 503 || status == 429)
		headers = "Cache-Control: no-store\r\nRetry-After: 2\r\n";
	http_reply(http, status, "application/problem+json", headers,
			   evbuffer_pullup(out, -1), evbuffer_get_length(out));
	evbuffer_free(out);
}

/* An error in the request itself: where the next one begins is not known any more. */
static void
refuse(Connection *c, int status, const char *detail)
{
	c->keep = false;
	set_state(c, BUSY);
	bufferevent_disable(c->bev, EV_READ);
	http_problem(&c->http, status, NULL, detail, NULL);
}

/* May this body come?  Result: 0, or the status of the error. */
static int
admit_body(Connection *c)
{
	c->known = serve_knows(&c->http);
	if (c->body_wanted > (c->known ? MAX_BODY : MAX_STRANGE_BODY))
		return 413;
	if (c->body_wanted <= MAX_STRANGE_BODY)
		return 0;
	if (bodies + c->body_wanted > MAX_BODIES)
		return 503;
	c->counted = c->body_wanted;
	bodies += c->counted;
	bufferevent_setwatermark(c->bev, EV_READ, 0, c->body_wanted + 1);
	return 0;
}

static const char *
why_refused(int status)
{
	switch (status)
	{
		case 413:
			return "the body of the request is too large; before a sign-in it may have 4096 bytes";
		case 503:
			return "the bodies of all requests together are too large now";
		default:
			return "the request is not one that this server takes";
	}
}

static void
on_read(struct bufferevent *bev, void *arg)
{
	Connection *c = arg;
	struct evbuffer *in = bufferevent_get_input(bev);

	if (c->state == LINGERS)
	{
		evbuffer_drain(in, evbuffer_get_length(in));
		return;
	}
	if (c->state == IDLE)
	{
		char first[2];

		/* Empty lines between requests are passed over, as RFC 9112 says. */
		while (evbuffer_copyout(in, first, 2) == 2 && memcmp(first, "\r\n", 2) == 0)
			evbuffer_drain(in, 2);
		if (evbuffer_get_length(in) == 0)
			return;
		set_state(c, HEAD);
		set_deadline(c, DEADLINE);
	}
	if (c->state == HEAD)
	{
		struct evbuffer_ptr found = evbuffer_search(in, "\r\n\r\n", 4, NULL);
		size_t length;
		int status;

		if (found.pos < 0 || found.pos + 4 > MAX_HEAD)
		{
			if (found.pos >= 0 || evbuffer_get_length(in) >= MAX_HEAD)
				refuse(c, 431, "the head of the request is too large");
			return;
		}
		length = (size_t) found.pos + 4;
		c->head = must(malloc(length + 1));
		c->head_length = length;
		evbuffer_remove(in, c->head, length);
		c->head[length] = '\0';
		c->body_wanted = 0;
		status = parse_head(c, length);
		if (status == 0)
			status = admit_body(c);
		if (status != 0)
		{
			refuse(c, status, why_refused(status));
			return;
		}
		set_state(c, BODY);
	}
	if (c->state == BODY)
	{
		if (evbuffer_get_length(in) < c->body_wanted)
			return;
		c->http.body = must(malloc(c->body_wanted + 1));
		evbuffer_remove(in, c->http.body, c->body_wanted);
		c->http.body[c->body_wanted] = '\0';
		c->http.body_length = c->body_wanted;
		set_state(c, BUSY);
		evtimer_del(c->deadline);
		bufferevent_disable(bev, EV_READ);
		serve_request(&c->http);
	}
}

static void
on_event(struct bufferevent *bev, short what, void *arg)
{
	Connection *c = arg;

	if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)))
		return;
	/* Whoever works on it answers yet. */
	if (c->state == BUSY)
		c->gone = true;
	else if (c->state != SENDING || (what & BEV_EVENT_ERROR))
		free_connection(c);
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
	Connection *c = arg;

	if (c->state == HEAD || c->state == BODY)
		refuse(c, 408, "the request did not come to its end in time");
	else if (c->state != BUSY)
		free_connection(c);
}

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >>
				24) == 127;
	if (address->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(
			&((const struct sockaddr_in6 *) address)->sin6_addr);
	return address->sa_family == AF_UNIX;
}

/*
 * Makes room for a new connection; false: all are at work.  A stranger's goes first,
 * the one for which nothing has happened for longest; then one of who is signed in that
 * waits for a request: its client can come again.
 */
static bool
make_room(void)
{
	int strangers_max = serve_options.max_http - serve_options.max_http / 4;
	int strangers = 0;
	bool full = connections_count >= serve_options.max_http;
	Connection *oldest = NULL;

	for (Connection *c = connections; c; c = c->next)
		strangers += !c->known;
	if (!full && strangers < strangers_max)
		return true;
	for (Connection *c = connections; c; c = c->next)
		if (!c->known && c->state != BUSY && (!oldest || c->since < oldest->since))
			oldest = c;
	if (!oldest && full)
		for (Connection *c = connections; c; c = c->next)
			if (c->state == IDLE && (!oldest || c->since < oldest->since))
				oldest = c;
	if (oldest)
		free_connection(oldest);
	return oldest != NULL;
}

static void
on_accept(struct evconnlistener *listener, evutil_socket_t fd,
		  struct sockaddr *address, int length, void *arg)
{
	Connection *c;
	struct bufferevent *bev;
	int on = 1;

	if (!make_room())
	{
		static const char full[] = "HTTP/1.1 503 Service Unavailable\r\n"
								   "Content-Length: 0\r\nRetry-After: 2\r\n"
								   "Connection: close\r\n\r\n";

		/* One try: who doesn't get it sees a closed connection. */
		if (send(fd, full, sizeof(full) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			errno = 0;
		evutil_closesocket(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	bev = bufferevent_socket_new(serve_base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (!bev)
	{
		evutil_closesocket(fd);
		return;
	}
	c = must(calloc(1, sizeof(Connection)));
	c->bev = bev;
	/* The address of the listener, too, decides what is "local": a proxy is one. */
	c->local = is_loopback(address) && arg != NULL;
	c->http.local = c->local;
	c->proxy = is_loopback(address);
	c->from = address_key(address);
	c->http.from = c->from;
	c->deadline = must(evtimer_new(serve_base, on_deadline, c));
	c->next = connections;
	if (connections)
		connections->prev = c;
	connections = c;
	connections_count++;
	set_state(c, IDLE);
	set_deadline(c, DEADLINE);
	bufferevent_setcb(bev, on_read, on_written, on_event, c);
	bufferevent_setwatermark(bev, EV_READ, 0, MAX_HEAD);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
}

/* No descriptors left, most likely: the listener would turn in circles. */
static void
listen_again(evutil_socket_t fd, short what, void *arg)
{
	/* http_stop may have freed it meanwhile. */
	for (int i = 0; i < listeners_count; i++)
		if (listeners[i] == arg)
			evconnlistener_enable(listeners[i]);
}

static void
on_accept_error(struct evconnlistener *listener, void *arg)
{
	struct timeval tv = {1, 0};

	serve_log("cannot accept a connection: %s",
			  evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
	evconnlistener_disable(listener);
	event_base_once(serve_base, -1, EV_TIMEOUT, listen_again, listener, &tv);
}

/* http_listen: false if it can't; says why.  Loopback if all its addresses are. */
bool
http_listen(const char *address, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
							 .ai_flags = AI_PASSIVE | AI_ADDRCONFIG};
	struct addrinfo *all = NULL;
	int status = getaddrinfo(address, port, &hints, &all);
	bool done = false;

	if (listeners_count == MAX_LISTENERS)
		serve_log("cannot listen on more than %d addresses", MAX_LISTENERS);
	if (status != 0)
	{
		serve_log("cannot listen on %s port %s: %s", address ? address : "*", port,
				  gai_strerror(status));
		return false;
	}
	for (struct addrinfo *one = all; one && listeners_count < MAX_LISTENERS;
		 one = one->ai_next)
	{
		bool local = is_loopback(one->ai_addr);
		struct evconnlistener *listener = evconnlistener_new_bind(
			serve_base, on_accept, local ? &listeners_count : NULL,
			LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE |
				(one->ai_family == AF_INET6 ? LEV_OPT_BIND_IPV6ONLY : 0),
			128, one->ai_addr, (int) one->ai_addrlen);
		struct sockaddr_storage bound;
		socklen_t length = sizeof(bound);
		char host[NI_MAXHOST] = "?";
		char service[NI_MAXSERV] = "?";

		if (!listener)
		{
			serve_log("cannot listen on %s port %s: %s", address ? address : "*",
					  port, strerror(errno));
			continue;
		}
		evconnlistener_set_error_cb(listener, on_accept_error);
		listeners[listeners_count++] = listener;
		done = true;
		/* Port 0 lets the system choose: say which it has chosen. */
		if (getsockname(evconnlistener_get_fd(listener), (struct sockaddr *) &bound,
						&length) == 0)
			getnameinfo((struct sockaddr *) &bound, length, host, sizeof(host),
						service, sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
		serve_log(bound.ss_family == AF_INET6 ? "listening on http://[%s]:%s/%s"
											  : "listening on http://%s:%s/%s",
				  host, service, "");
		if (!local)
			serve_log(
				"whoever reaches this address gets the sign-in page; put a proxy with TLS before it");
	}
	freeaddrinfo(all);
	return done;
}

/* http_stop: takes no more connections, and ends those that wait for a request. */
void
http_stop(void)
{
	Connection *next;

	while (listeners_count > 0)
		evconnlistener_free(listeners[--listeners_count]);
	for (Connection *c = connections; c; c = next)
	{
		next = c->next;
		c->keep = false;
		if (c->state == IDLE)
			free_connection(c);
	}
}
