/*
 * work_jobs.c: the statements of "eventq work": settles jobs, renews leases, claims.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "work_server.h"
#include "work_job.h"

static void
log_end(Work *work, Slot *slot, const char *what)
{
	eq_work_log(
		work, "job %s (%s) %s after %.3f s%s%s", slot->job_id, slot->name, what,
		eq_now() - slot->started,
		slot->settle == SETTLE_FAIL || slot->settle == SETTLE_FAIL_FINAL ? ": " : "",
		slot->settle == SETTLE_FAIL || slot->settle == SETTLE_FAIL_FINAL
			? slot->message.data
			: "");
}

/* Text that the server takes: valid UTF-8 without 0 bytes. */
static void
clean_text(EqBuf *text)
{
	unsigned char *p = (unsigned char *) text->data, *end = p + text->length;

	while (p < end)
	{
		int more = *p == 0	   ? -1
				   : *p < 0x80 ? 0
				   : *p < 0xc2 ? -1
				   : *p < 0xe0 ? 1
				   : *p < 0xf0 ? 2
				   : *p < 0xf5 ? 3
							   : -1;
		bool valid = more >= 0 && p + more < end;

		for (int i = 1; valid && i <= more; i++)
			valid = (p[i] & 0xc0) == 0x80;
		/* overlong, surrogates, beyond Unicode */
		if (valid && ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
					  (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f)))
			valid = false;
		if (valid)
			p += more + 1;
		else
			*p++ = '?';
	}
}

/* In whatever encoding the database is, this can be stored. */
static void
make_ascii(EqBuf *text)
{
	for (size_t i = 0; i < text->length; i++)
	{
		if (text->data[i] & 0x80)
			text->data[i] = '?';
	}
}

/* Tells the server how a job has ended. */
bool
eq_send_settle(Work *work, Slot *slot)
{
	const char *params[6] = {slot->job_id, slot->token};
	char seconds[40];
	EqBuf *output = &slot->output;
	bool sent;

	clean_text(&slot->message);
	clean_text(&slot->error);
	switch (slot->settle)
	{
		case SETTLE_COMPLETE:
			clean_text(output);
			while (output->length > 0 &&
				   strchr(" \t\r\n", output->data[output->length - 1]))
				output->data[--output->length] = '\0';
			params[2] = output->length > 0 ? output->data : NULL;
			sent = eq_send_statement(
				work, SENT_SETTLE,
				slot->as_text
					? "SELECT event_queue.complete($1, $2, to_jsonb($3::text))"
					: "SELECT event_queue.complete($1, $2, $3::jsonb)",
				3, params);
			break;
		case SETTLE_RELEASE:
		case SETTLE_GIVE_BACK:
			params[2] = slot->settle == SETTLE_RELEASE ? work->later_delay : "0";
			sent = eq_send_statement(
				work, SENT_SETTLE,
				"SELECT event_queue.release($1, $2, $3::interval)", 3, params);
			break;
		default:
			params[2] = slot->message.data;
			params[3] = slot->error.data;
			params[4] = slot->settle == SETTLE_FAIL_FINAL ? "true" : "false";
			snprintf(seconds, sizeof(seconds), "%.3f seconds", slot->retry_after);
			params[5] = slot->settle == SETTLE_FAIL && slot->retry_after > 0
							? seconds
							: NULL;
			sent = eq_send_statement(
				work, SENT_SETTLE,
				"SELECT event_queue.fail($1, $2, $3, context => $4, "
				"final => $5, retry_after => $6::interval)",
				6, params);
	}
	eq_server.settled = slot;
	return sent;
}

/* The answer to eq_send_settle. */
void
eq_settle_done(Work *work, Slot *slot, const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
	{
		static const char *const what[] = {"completed",		  "failed",
										   "failed for good", "is tried later",
										   "is given back",	  ""};
		bool dead = slot->settle == SETTLE_FAIL && PQgetisnull(result, 0, 0);

		log_end(work, slot, dead ? "failed for the last time" : what[slot->settle]);
		eq_slot_clear(slot);
		eq_server.claim_at = 0;
		return;
	}
	if (sqlstate && strcmp(sqlstate, "EQ016") == 0)
	{
		/* Also if an earlier connection broke after it was done. */
		eq_work_log(
			work,
			"job %s (%s): the lease was lost or settled before; nothing was changed",
			slot->job_id, slot->name);
		eq_slot_clear(slot);
		eq_server.claim_at = 0;
		return;
	}
	if (slot->settle == SETTLE_COMPLETE && !slot->as_text && sqlstate &&
		strncmp(sqlstate, "22", 2) == 0)
	{
		slot->as_text = true;
		return;
	}
	eq_work_log(work, "job %s (%s): %s", slot->job_id, slot->name,
				PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
	if ((slot->settle == SETTLE_FAIL || slot->settle == SETTLE_FAIL_FINAL) &&
		!slot->as_ascii && sqlstate && strncmp(sqlstate, "22", 2) == 0)
	{
		slot->as_ascii = true;
		make_ascii(&slot->message);
		make_ascii(&slot->error);
		return;
	}
	if (slot->settle == SETTLE_COMPLETE && sqlstate &&
		(strncmp(sqlstate, "22", 2) == 0 || strcmp(sqlstate, "EQ005") == 0 ||
		 strncmp(sqlstate, "54", 2) == 0))
	{
		slot->settle = SETTLE_FAIL;
		eq_buf_reset(&slot->message);
		eq_buf_printf(&slot->message, "result refused: %s",
					  PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
		return;
	}
	/* Once its lease has run out someone else does it. */
	if (eq_now() > slot->lease_end + 60)
		eq_slot_clear(slot);
	else
		slot->settle_at = eq_now() + 1;
}

/* All leases at hand, in one statement. */
bool
eq_send_renewal(Work *work)
{
	EqBuf ids, tokens;
	const char *params[3];
	bool sent;

	eq_buf_init(&ids);
	eq_buf_init(&tokens);
	for (int i = 0; i < work->n_slots; i++)
	{
		const Slot *slot = &work->slots[i];

		if (slot->state == SLOT_FREE || slot->stop == STOP_LOST)
			continue;
		eq_buf_printf(&ids, "%c%s", ids.length ? ',' : '{', slot->job_id);
		eq_buf_printf(&tokens, "%c%s", tokens.length ? ',' : '{', slot->token);
	}
	eq_buf_char(&ids, '}');
	eq_buf_char(&tokens, '}');
	params[0] = ids.data;
	params[1] = tokens.data;
	params[2] = work->lease;
	sent = eq_send_statement(
		work, SENT_RENEWAL,
		"SELECT job_id, state, extract(epoch FROM leased_until - clock_timestamp()) "
		"FROM event_queue.extend_leases($1::bigint[], $2::uuid[], $3::interval)",
		3, params);
	eq_buf_free(&ids);
	eq_buf_free(&tokens);
	return sent;
}

static Slot *
find_slot(Work *work, const char *job_id)
{
	for (int i = 0; i < work->n_slots; i++)
	{
		if (work->slots[i].state != SLOT_FREE &&
			strcmp(work->slots[i].job_id, job_id) == 0)
			return &work->slots[i];
	}
	return NULL;
}

/* When a third of the shortest lease is over. */
void
eq_plan_renewal(Work *work)
{
	double now = eq_now(), next = now + 3600;

	for (int i = 0; i < work->n_slots; i++)
	{
		const Slot *slot = &work->slots[i];

		if (slot->state != SLOT_FREE && slot->stop != STOP_LOST)
			next = fmin(next, now + fmax((slot->lease_end - now) / 3, 0.1));
	}
	eq_server.renew_at = next;
}

void
eq_renewal_done(Work *work, const PGresult *result)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		eq_work_log(work, "could not renew leases: %s",
					PQresultErrorMessage(result));
		eq_server.renew_at = eq_now() + 1;
		return;
	}
	for (int row = 0; row < PQntuples(result); row++)
	{
		Slot *slot = find_slot(work, PQgetvalue(result, row, 0));
		const char *state = PQgetvalue(result, row, 1);

		if (slot == NULL)
			continue;
		if (strcmp(state, "leased") == 0)
			slot->lease_end = eq_server.sent_at +
							  strtod(PQgetvalue(result, row, 2), NULL);
		else if (strcmp(state, "cancelled") == 0)
			eq_child_stop(work, slot, STOP_CANCELLED);
		else
			eq_child_stop(work, slot, STOP_LOST);
	}
	eq_plan_renewal(work);
}

/* How many jobs can be begun. */
int
eq_jobs_wanted(const Work *work)
{
	int n = eq_work_free_slots(work);

	if (work->stopping != 0)
		return 0;
	if (work->max_jobs > 0 && n > work->max_jobs - work->n_claimed)
		n = (int) (work->max_jobs - work->n_claimed);
	return n;
}

bool
eq_send_claim(Work *work, int n)
{
	char number[16];
	char sql[2048];
	const char *params[7] = {work->queue,
							 number,
							 work->worker,
							 work->lease,
							 work->job_names,
							 work->tenant,
							 work->session_bound ? "true" : "false"};

	snprintf(number, sizeof(number), "%d", n);
	eq_server.asked = n;
	snprintf(sql, sizeof(sql),
			 "SELECT " JOB_COLUMNS
			 " FROM event_queue.claim($1, $2::int, worker => $3, "
			 "lease => $4::interval, job_names => string_to_array($5, ','), "
			 "tenant_id => $6, session_bound => $7::boolean)",
			 work->payload_sql);
	return eq_send_statement(work, SENT_CLAIM, sql, 7, params);
}

static void
take_job(Work *work, const PGresult *result, int row)
{
	Slot *slot = work->slots;

	while (slot->state != SLOT_FREE)
		slot++;
	snprintf(slot->job_id, sizeof(slot->job_id), "%s",
			 PQgetvalue(result, row, JOB_ID));
	snprintf(slot->token, sizeof(slot->token), "%s",
			 PQgetvalue(result, row, JOB_TOKEN));
	slot->name = eq_strdup(PQgetvalue(result, row, JOB_NAME));
	slot->lease_end = eq_server.sent_at +
					  strtod(PQgetvalue(result, row, JOB_LEASE_SECONDS), NULL);
	if (!PQgetisnull(result, row, JOB_TIME_LIMIT_MS))
	{
		double limit = strtod(PQgetvalue(result, row, JOB_TIME_LIMIT_MS), NULL) /
					   1000;

		/* So that it has ended, and the server knows, when the lease does */
		slot->time_limit = eq_server.sent_at + limit - fmin(limit / 10, 2);
	}
	work->n_claimed++;
	if (work->stopping != 0)
	{
		slot->state = SLOT_ENDED;
		slot->settle = SETTLE_GIVE_BACK;
		slot->started = eq_now();
		return;
	}
	eq_child_start(work, slot, result, row);
}

/* Errors of a claim that no second try mends. */
static bool
is_fatal(const char *sqlstate)
{
	static const char *const fatal[] = {
		"EQ003", "EQ004", "EQ006", "EQ009", "EQ010", "EQ012", "EQ035", "EQ045",
		"EQ047", "EQ048", "42501", "42883", "3F000", "22007", "22P02", "53400"};

	for (int i = 0; sqlstate && i < lengthof(fatal); i++)
	{
		if (strcmp(sqlstate, fatal[i]) == 0)
			return true;
	}
	return false;
}

void
eq_claim_done(Work *work, const PGresult *result)
{
	int n = PQntuples(result);

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		if (is_fatal(PQresultErrorField(result, PG_DIAG_SQLSTATE)))
		{
			eq_report_result(work->cli, work->cli->conn, result);
			eq_work_stop(work, EQ_EXIT_ERROR);
			return;
		}
		eq_work_log(work, "could not claim: %s", PQresultErrorMessage(result));
		eq_server.claim_at = eq_now() + eq_server.claim_pause;
		eq_server.claim_pause = fmin(eq_server.claim_pause * 2, LONGEST_PAUSE);
		return;
	}
	eq_server.claim_pause = FIRST_PAUSE;
	for (int row = 0; row < n; row++)
		take_job(work, result, row);
	if (n > 0)
		eq_plan_renewal(work);
	/* A full answer: there may be more when a slot is free. */
	eq_server.claim_at = n == eq_server.asked ? 0 : eq_now() + work->look;
	if (work->max_jobs > 0 && work->n_claimed >= work->max_jobs)
		eq_work_stop(work, EQ_EXIT_OK);
	if (n == 0 && work->until_empty && eq_work_free_slots(work) == work->n_slots)
		eq_work_stop(work, EQ_EXIT_OK);
}
