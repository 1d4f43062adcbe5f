/*
 * serve_parse.c: parses the head of a request: its line, its headers, URLs and forms.
 */
#define _GNU_SOURCE /* strcasestr */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve_http.h"

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* url_decode: a part of a path or a form; NULL if it is broken, or has a NUL. */
char *
url_decode(const char *from, size_t length, bool plus)
{
	char *result = must(malloc(length + 1));
	size_t n = 0;

	for (size_t i = 0; i < length; i++)
	{
		if (from[i] == '%')
		{
			int high = i + 2 < length ? hex_digit(from[i + 1]) : -1;
			int low = i + 2 < length ? hex_digit(from[i + 2]) : -1;

			if (high < 0 || low < 0 || (high == 0 && low == 0))
			{
				free(result);
				return NULL;
			}
			result[n++] = (char) (high * 16 + low);
			i += 2;
		}
		else
			result[n++] = plus && from[i] == '+' ? ' ' : from[i];
	}
	result[n] = '\0';
	return result;
}

/* form_value: the first value of a name in "a=b&c=d"; NULL if it isn't there, or broken. */
char *
form_value(const char *form, const char *name)
{
	size_t length = strlen(name);

	while (form && *form)
	{
		size_t pair = strcspn(form, "&");

		if (pair > length && form[length] == '=' && strncmp(form, name, length) == 0)
			return url_decode(form + length + 1, pair - length - 1, true);
		form += pair;
		if (*form == '&')
			form++;
	}
	return NULL;
}

/* Reads the request line.  Result: 0, or the status of the error. */
static int
parse_request_line(Connection *c, char *line)
{
	char *target = strchr(line, ' ');
	char *version;

	if (!target)
		return 400;
	*target++ = '\0';
	version = strchr(target, ' ');
	if (!version)
		return 400;
	*version++ = '\0';
	if (strcmp(line, "GET") == 0)
		c->http.method = METHOD_GET;
	else if (strcmp(line, "HEAD") == 0)
		c->http.method = METHOD_HEAD;
	else if (strcmp(line, "POST") == 0)
		c->http.method = METHOD_POST;
	else
		c->http.method = METHOD_OTHER;
	if (strcmp(version, "HTTP/1.1") == 0)
		c->keep = c->modern = true;
	else if (strcmp(version, "HTTP/1.0") == 0)
		c->keep = c->modern = false;
	else
		return strncmp(version, "HTTP/", 5) == 0 ? 505 : 400;
	if (target[0] != '/')
		return 400;
	for (const unsigned char *p = (const unsigned char *) target; *p; p++)
		if (*p <= 0x20 || *p >= 0x7f)
			return 400;
	c->http.path = target;
	c->http.query = strchr(target, '?');
	if (c->http.query)
		*c->http.query++ = '\0';
	return 0;
}

/*
 * Is it a name of this machine itself?  A page whose own name its owner lets lead to
 * 127.0.0.1 would else have a browser here ask as if it were someone of this machine.
 */
static bool
names_loopback(const char *host)
{
	size_t length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");

	return (length == 9 && strncasecmp(host, "localhost", 9) == 0) ||
		   (length == 5 && strncmp(host, "[::1]", 5) == 0) ||
		   (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == length);
}

/* The key of an address: of IPv6 the network, which is one client's. */
uint64_t
address_key(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return limit_key("ipv4", &((const struct sockaddr_in *) address)->sin_addr,
						 4);
	if (address->sa_family == AF_INET6)
	{
		const struct in6_addr *in6 =
			&((const struct sockaddr_in6 *) address)->sin6_addr;

		return IN6_IS_ADDR_V4MAPPED(in6) ? limit_key("ipv4", in6->s6_addr + 12, 4)
										 : limit_key("ipv6", in6->s6_addr, 8);
	}
	return limit_key("other", "", 0);
}

/*
 * For whom a proxy of this machine asks: the last address, which is the one that it has
 * added itself.  What is none is nobody's: it counts as the proxy's own.
 */
static void
take_forwarded(Connection *c, const char *value)
{
	const char *last = strrchr(value, ',');
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

	last = last ? last + 1 : value;
	last += strspn(last, " \t");
	if (inet_pton(AF_INET, last, &in.sin_addr) == 1)
		c->http.from = address_key((struct sockaddr *) &in);
	else if (inet_pton(AF_INET6, last, &in6.sin6_addr) == 1)
		c->http.from = address_key((struct sockaddr *) &in6);
	else
		c->http.from = c->from;
}

/* Takes a header; one that must be there once only and isn't, is an error. */
static int
take_header(Connection *c, const char *name, char *value, bool *has_host,
			bool *has_length)
{
	char **once = NULL;

	if (strcasecmp(name, "Host") == 0)
	{
		if (*has_host)
			return 400;
		*has_host = true;
		c->http.local = c->http.local && names_loopback(value);
	}
	else if (strcasecmp(name, "Content-Length") == 0)
	{
		size_t digits = strspn(value, "0123456789");

		if (*has_length || digits == 0 || value[digits] != '\0')
			return 400;
		*has_length = true;
		c->body_wanted = digits > 9 ? MAX_BODY + 1 : (size_t) atol(value);
	}
	else if (strcasecmp(name, "Transfer-Encoding") == 0)
		return 411;
	else if (strcasecmp(name, "Expect") == 0)
		return strcasecmp(value, "100-continue") == 0 ? 0 : 400;
	else if (strcasecmp(name, "Connection") == 0)
	{
		if (strcasestr(value, "close"))
			c->keep = false;
	}
	else if (strcasecmp(name, "Forwarded") == 0 ||
			 strcasecmp(name, "X-Forwarded-For") == 0 ||
			 strcasecmp(name, "X-Real-IP") == 0 || strcasecmp(name, "Via") == 0)
	{
		c->http.local = false; /* a proxy on this machine asks for someone else */
		if (c->proxy && strcasecmp(name, "X-Forwarded-For") == 0)
			take_forwarded(c, value);
	}
	else if (strcasecmp(name, "Accept-Encoding") == 0)
		c->http.gzip = strstr(value, "gzip") != NULL && !strstr(value, "gzip;q=0");
	else if (strcasecmp(name, "Cookie") == 0)
		once = &c->http.cookie;
	else if (strcasecmp(name, "Authorization") == 0)
		once = &c->http.authorization;
	else if (strcasecmp(name, "X-CSRF-Token") == 0)
		once = &c->http.csrf;
	else if (strcasecmp(name, "Sec-Fetch-Site") == 0)
		once = &c->http.fetch_site;
	else if (strcasecmp(name, "Content-Type") == 0)
		once = &c->http.content_type;
	else if (strcasecmp(name, "If-None-Match") == 0)
		once = &c->http.etag;
	if (once)
	{
		if (*once)
			return 400;
		*once = value;
	}
	return 0;
}

/* Reads the head, which ends with an empty line.  Result: 0, or the status of the error. */
int
parse_head(Connection *c, size_t length)
{
	char *line = c->head;
	char *end = c->head + length;
	bool has_host = false;
	bool has_length = false;
	int status;

	if (memchr(c->head, '\0', length))
		return 400;
	for (int n = 0; line < end; n++)
	{
		char *stop = strstr(line, "\r\n");
		char *colon;
		char *value;

		if (!stop)
			return 400;
		*stop = '\0';
		if (strpbrk(line, "\r\n"))
			return 400;
		if (n == 0)
		{
			if ((status = parse_request_line(c, line)) != 0)
				return status;
		}
		else if (line[0] == '\0')
			break;
		else
		{
			if (n > 100)
				return 431;
			colon = strchr(line, ':');
			/* A name with a blank, or a line that goes on with the one before. */
			if (!colon || colon == line ||
				strcspn(line, " \t") < (size_t) (colon - line))
				return 400;
			*colon = '\0';
			value = colon + 1;
			value += strspn(value, " \t");
			for (char *tail = value + strlen(value);
				 tail > value && (tail[-1] == ' ' || tail[-1] == '\t'); tail--)
				tail[-1] = '\0';
			if ((status = take_header(c, line, value, &has_host, &has_length)) != 0)
				return status;
		}
		line = stop + 2;
	}
	if (!has_host && c->modern)
		return 400;
	/* nginx asks so, with our own address as Host, if nothing but proxy_pass is configured */
	if (!c->modern)
		c->http.local = false;
	return 0;
}
