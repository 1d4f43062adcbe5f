/*
 * work_server.h: shared by work_server.c (the connection) and work_jobs.c (the statements).
 */
#ifndef EVENTQ_WORK_SERVER_H
#define EVENTQ_WORK_SERVER_H

#include "work.h"

/* Between tries, in seconds */
#define FIRST_PAUSE	  0.2
#define LONGEST_PAUSE 10.0

typedef enum ServerState
{
	SERVER_AWAY,	   /* tried again at retry_at */
	SERVER_CONNECTING, /* PQresetPoll */
	SERVER_SETUP,	   /* settings and LISTEN are sent */
	SERVER_IDLE,
	SERVER_BUSY /* a statement is sent: sent */
} ServerState;

typedef enum Sent
{
	SENT_SETTLE,
	SENT_RENEWAL,
	SENT_CLAIM
} Sent;

typedef struct Server
{
	ServerState state;
	PostgresPollingStatusType polling;
	Sent sent;
	PGresult *answer; /* to it, until all of it is here */
	Slot *settled;	  /* of SENT_SETTLE */
	int asked;		  /* of SENT_CLAIM: so many jobs */
	double sent_at;
	double retry_at; /* of SERVER_AWAY */
	double pause;	 /* before the next try */
	double claim_at; /* not before; 0: at once */
	double renew_at;
	double claim_pause; /* after an error */
} Server;

extern Server eq_server;

/* work_server.c */
extern bool eq_send_statement(Work *work, Sent sent, const char *sql, int n,
							  const char *const *params);

/* work_jobs.c: false from a function that sends: the connection is broken. */
extern bool eq_send_settle(Work *work, Slot *slot);
extern void eq_settle_done(Work *work, Slot *slot, const PGresult *result);
extern bool eq_send_renewal(Work *work);
extern void eq_renewal_done(Work *work, const PGresult *result);
extern void eq_plan_renewal(Work *work);
extern int eq_jobs_wanted(const Work *work);
extern bool eq_send_claim(Work *work, int n);
extern void eq_claim_done(Work *work, const PGresult *result);

#endif /* EVENTQ_WORK_SERVER_H */
