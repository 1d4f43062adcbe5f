/*
 * work_server.c: the connection of "eventq work".
 *
 * One connection, one statement at a time, never blocking.  A broken connection is made
 * again after growing pauses; unconfirmed statements are then sent again: a lease that was
 * settled already answers EQ016, so nothing is done twice.  Statements are sent in this
 * order: ends of jobs, renewals of leases, claims.
 *
 * LISTEN on the queue's channel wakes it: the scheduler notifies when jobs come or come due.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"
#include "work_server.h"

/* Without an answer for so long an attempt to connect begins anew. */
#define CONNECT_TIMEOUT 15.0

Server eq_server;

static void
send_failed(Work *work)
{
	eq_error(work->cli, "%s", PQerrorMessage(work->cli->conn));
}

bool
eq_send_statement(Work *work, Sent sent, const char *sql, int n,
				  const char *const *params)
{
	if (!PQsendQueryParams(work->cli->conn, sql, n, NULL, params, NULL, NULL, 0))
	{
		send_failed(work);
		return false;
	}
	eq_server.sent = sent;
	eq_server.sent_at = eq_now();
	eq_server.state = SERVER_BUSY;
	(void) PQflush(work->cli->conn);
	return true;
}

/* The connection is gone: with session-bound leases all jobs at hand are lost. */
static void
lose_server(Work *work)
{
	if (eq_server.state != SERVER_AWAY && eq_server.state != SERVER_CONNECTING)
		eq_work_log(work, "lost the connection: %s",
					PQerrorMessage(work->cli->conn));
	eq_server.state = SERVER_AWAY;
	eq_server.settled = NULL;
	PQclear(eq_server.answer);
	eq_server.answer = NULL;
	eq_server.retry_at = eq_now() + eq_server.pause;
	/* Not all workers at the same moment */
	eq_server.pause = fmin(eq_server.pause * (1.5 + (double) rand() / RAND_MAX),
						   LONGEST_PAUSE);
	for (int i = 0; work->session_bound && i < work->n_slots; i++)
		eq_child_stop(work, &work->slots[i], STOP_LOST);
}

static void
set_up(Work *work)
{
	PGconn *conn = work->cli->conn;
	char channel[64];
	char *quoted;
	EqBuf sql;

	/* NAMEDATALEN, as the server cuts it */
	snprintf(channel, sizeof(channel), "event_queue.%s", work->queue);
	quoted = PQescapeIdentifier(conn, channel, strlen(channel));
	if (quoted == NULL)
	{
		lose_server(work);
		return;
	}
	eq_buf_init(&sql);
	eq_buf_printf(&sql,
				  "SET search_path = pg_catalog; SET datestyle = 'ISO, YMD'; "
				  "SET idle_session_timeout = 0; LISTEN %s",
				  quoted);
	PQfreemem(quoted);
	PQsetnonblocking(conn, 1);
	eq_server.state = SERVER_SETUP;
	eq_server.sent_at = eq_now();
	if (!PQsendQuery(conn, sql.data))
		lose_server(work);
	else
		(void) PQflush(conn);
	eq_buf_free(&sql);
}

/* Begins with the first connection, which is made already. */
void
eq_server_open(Work *work)
{
	srand((unsigned) (eq_now() * 1000));
	eq_server.pause = FIRST_PAUSE;
	eq_server.claim_pause = FIRST_PAUSE;
	set_up(work);
}

/* A session that its client ends gives its jobs back uncounted. */
void
eq_server_close(Work *work)
{
	eq_disconnect(work->cli);
}

/* Is nothing in flight that may bring jobs? */
bool
eq_server_idle(void)
{
	return eq_server.state != SERVER_BUSY || eq_server.sent != SENT_CLAIM;
}

/* Sends what is most urgent, if the connection is idle; begins to connect if it is away. */
void
eq_server_turn(Work *work)
{
	double now = eq_now();
	int n;

	for (int i = 0; i < work->n_slots; i++)
	{
		if (work->slots[i].state == SLOT_ENDED &&
			work->slots[i].settle == SETTLE_NOTHING)
		{
			eq_slot_clear(&work->slots[i]);
			eq_server.claim_at = 0;
		}
	}
	if (eq_server.state == SERVER_AWAY && now >= eq_server.retry_at)
	{
		eq_server.sent_at = now;
		eq_server.state = SERVER_CONNECTING;
		eq_server.polling = PGRES_POLLING_WRITING;
		if (!PQresetStart(work->cli->conn))
			lose_server(work);
	}
	if (eq_server.state == SERVER_CONNECTING &&
		now >= eq_server.sent_at + CONNECT_TIMEOUT)
		lose_server(work);
	if (eq_server.state != SERVER_IDLE)
		return;
	for (int i = 0; i < work->n_slots; i++)
	{
		Slot *slot = &work->slots[i];

		if (slot->state != SLOT_ENDED || slot->settle_at > now)
			continue;
		if (!eq_send_settle(work, slot))
			lose_server(work);
		return;
	}
	if (now >= eq_server.renew_at)
	{
		if (eq_work_free_slots(work) == work->n_slots)
			eq_plan_renewal(work);
		else
		{
			if (!eq_send_renewal(work))
				lose_server(work);
			return;
		}
	}
	n = eq_jobs_wanted(work);
	if (n > 0 && now >= eq_server.claim_at && !eq_send_claim(work, n))
		lose_server(work);
}

/* When eq_server_turn has something to do by the clock. */
double
eq_server_next(const Work *work)
{
	double next = eq_now() + 3600;

	if (eq_server.state == SERVER_AWAY)
		return eq_server.retry_at;
	if (eq_server.state == SERVER_CONNECTING)
		return eq_server.sent_at + CONNECT_TIMEOUT;
	if (eq_server.state != SERVER_IDLE)
		return next;
	for (int i = 0; i < work->n_slots; i++)
	{
		if (work->slots[i].state == SLOT_ENDED)
			next = fmin(next, work->slots[i].settle_at);
	}
	next = fmin(next, eq_server.renew_at);
	if (eq_jobs_wanted(work) > 0)
		next = fmin(next, eq_server.claim_at);
	return next;
}

/* False: there is no socket at present. */
bool
eq_server_poll(Work *work, struct pollfd *fd)
{
	PGconn *conn = work->cli->conn;

	if (eq_server.state == SERVER_AWAY || PQsocket(conn) < 0)
		return false;
	fd->fd = PQsocket(conn);
	if (eq_server.state == SERVER_CONNECTING)
		fd->events = eq_server.polling == PGRES_POLLING_READING ? POLLIN : POLLOUT;
	else
		fd->events = POLLIN | (PQflush(conn) == 1 ? POLLOUT : 0);
	return true;
}

/* One result of what was sent; an error, also of the commit, is worth more than another. */
static void
take_result(Work *work, PGresult *result)
{
	bool failed = PQresultStatus(result) == PGRES_FATAL_ERROR;

	if (eq_server.state == SERVER_SETUP && failed)
		eq_work_log(work, "%s", PQresultErrorMessage(result));
	/* libpq's own, that there is no answer, is none. */
	if (eq_server.state != SERVER_BUSY ||
		(failed && !PQresultErrorField(result, PG_DIAG_SQLSTATE)) ||
		(!failed && eq_server.answer))
	{
		PQclear(result);
		return;
	}
	PQclear(eq_server.answer);
	eq_server.answer = result;
}

/* All of the answer is here. */
static void
end_statement(Work *work)
{
	PGresult *answer = eq_server.answer;
	Slot *settled = eq_server.settled;

	eq_server.state = SERVER_IDLE;
	eq_server.answer = NULL;
	eq_server.settled = NULL;
	if (answer == NULL)
		return;
	if (eq_server.sent == SENT_SETTLE)
		eq_settle_done(work, settled, answer);
	else if (eq_server.sent == SENT_RENEWAL)
		eq_renewal_done(work, answer);
	else
		eq_claim_done(work, answer);
	PQclear(answer);
}

static void
read_answers(Work *work)
{
	PGconn *conn = work->cli->conn;
	PGnotify *notify;
	PGresult *result;

	if (!PQconsumeInput(conn))
	{
		lose_server(work);
		return;
	}
	while (!PQisBusy(conn))
	{
		result = PQgetResult(conn);
		if (result == NULL)
		{
			if (eq_server.state == SERVER_SETUP)
			{
				eq_server.pause = FIRST_PAUSE;
				eq_server.claim_at = 0;
				eq_server.renew_at = 0;
				eq_server.state = SERVER_IDLE;
			}
			else if (eq_server.state == SERVER_BUSY)
				end_statement(work);
			break;
		}
		take_result(work, result);
	}
	while ((notify = PQnotifies(conn)) != NULL)
	{
		eq_server.claim_at = 0;
		PQfreemem(notify);
	}
	if (PQstatus(conn) == CONNECTION_BAD)
		lose_server(work);
}

void
eq_server_io(Work *work)
{
	PGconn *conn = work->cli->conn;

	if (eq_server.state != SERVER_CONNECTING)
	{
		(void) PQflush(conn);
		read_answers(work);
		return;
	}
	eq_server.polling = PQresetPoll(conn);
	if (eq_server.polling == PGRES_POLLING_FAILED)
		lose_server(work);
	else if (eq_server.polling == PGRES_POLLING_OK)
	{
		eq_work_log(work, "connected again");
		set_up(work);
	}
}
