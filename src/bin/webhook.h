/*
 * webhook.h: "eventq webhook": the loop of work.c, whose children send a request each.
 */
#ifndef EVENTQ_WEBHOOK_H
#define EVENTQ_WEBHOOK_H

#include <sys/socket.h>

#include "eventq.h"

#ifdef HAVE_LIBCURL
extern const char *eq_webhook_secrets, *eq_webhook_timeout;
extern bool eq_webhook_allow_private;

/* clang-format's versions do not agree on such a macro. */
/* clang-format off */
#define EQ_WEBHOOK_OPTIONS                                                          \
	{"secrets", "FILE", &eq_webhook_secrets, NULL,                                  \
	 "signs requests; lines \"TENANT HOST SECRET...\", * for any"},                 \
		{"timeout", "SECONDS", &eq_webhook_timeout, NULL,                           \
		 "for a request and its answer (default 30)"},                              \
	{                                                                               \
		"allow-private", NULL, NULL, &eq_webhook_allow_private,                     \
			"send to loopback and private addresses, too"                           \
	}

/* clang-format on */

extern const char eq_webhook_payload_sql[];

extern bool eq_webhook_check(EqCli *cli);
extern int eq_webhook_deliver(void);

/* webhook_net.c */
extern bool eq_webhook_is_public(const struct sockaddr *address);
#endif

#endif /* EVENTQ_WEBHOOK_H */
