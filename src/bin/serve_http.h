/*
 * serve_http.h: a connection, for serve_http.c and serve_parse.c.
 */
#ifndef EVENTQ_SERVE_HTTP_H
#define EVENTQ_SERVE_HTTP_H

#include <sys/socket.h>

#include "serve.h"

#define MAX_BODY (2 * 1024 * 1024)

typedef enum State
{
	IDLE,	 /* nothing of the next request has come */
	HEAD,	 /* some of its head */
	BODY,	 /* some of its body */
	BUSY,	 /* being worked on */
	SENDING, /* the answer goes out */
	LINGERS	 /* the answer has gone; what still comes is thrown away */
} State;

typedef struct Connection
{
	Http http; /* first: handlers know this only */
	struct Connection *prev;
	struct Connection *next;
	struct bufferevent *bev;
	struct event *deadline;
	State state;
	char *head; /* what http points into */
	size_t head_length;
	size_t body_wanted;
	size_t counted; /* in bodies */
	bool modern;	/* HTTP/1.1 */
	bool keep;
	bool gone; /* the client has hung up while it was BUSY */
	bool local;
	bool proxy;			 /* from this machine: may say for whom it asks */
	bool known;			 /* its last request was of one who is signed in */
	uint64_t from;		 /* limit_key of its address */
	unsigned long since; /* in this state: which turn of all */
} Connection;

/* serve_parse.c */
extern int parse_head(Connection *c, size_t length);
extern uint64_t address_key(const struct sockaddr *address);

#endif /* EVENTQ_SERVE_HTTP_H */
