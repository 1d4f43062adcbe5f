/*
 * handler.sql: run_jobs, and functions by which handlers decide on their job.
 */

/*
 * run_jobs: runs the due jobs of a queue by their handlers, in the caller's own session and
 * transaction: for a test, which looks at what they did and rolls it back, or for a script that
 * works off a queue.
 *
 * As an executor does it:
 * - A handler runs as its owner, with the search_path of its own schema.
 * - Its effects and the job's completion are one subtransaction.  An error undoes them and is
 *   recorded, and the job waits for its backoff or is a dead letter.
 * - A job that is due again at once is run again.
 * - Jobs are claimed one by one, after the first hundred by the hundred.
 *
 * Not as an executor does it:
 * - There is no time limit but the session's statement_timeout, which ends the whole call.
 * - Settings, advisory locks, temporary tables and open cursors of the session are there: a
 *   handler can read on in a cursor of the caller, and close it.
 * - Deferred triggers and constraints fire when the call begins and when each job ends; SET
 *   CONSTRAINTS ALL IMMEDIATE holds from then on.
 * - A handler whose owner is not the present role is a security-restricted operation: no
 *   temporary tables, no held cursors (SET ROLE to the owner for these).
 * - Rules, and jobs that a group or a dependency blocks, go on only after the commit.
 *
 * Arguments: max_jobs: at most so many runs.
 * Result: a row for each run.  A session that is confined to a tenant runs that tenant's jobs
 * only.
 * - outcome: completed; failed (tried again at next_run_at); dead; suspended (the handler
 *   sleeps or waits: what it did so far stays); postponed (the handler can't be called now, or
 *   raised EQ061 or EQ064; no attempt is counted); lost (another job's handler has deleted the
 *   job: its run is undone, and nothing is recorded).
 * - result: what the handler returned, if jsonb.
 * - error and sqlstate: of a failure.
 *
 * Errors: EQ008 called by a handler, EQ009 max_jobs not in 1 to 100000, EQ010 no such queue,
 * EQ025 the queue has no handler, EQ035 internal queue, EQ036 not activated, 42501 the caller
 * may not SET ROLE to the owner of each handler of the queue.
 * Isolation: as claim, complete and fail.
 * Example:
 *	SELECT event_queue.create_handler('letters', '*', 'send_letter', if_not_exists => true);
 *	BEGIN;
 *	SELECT event_queue.enqueue('letters', 'letter', '{"to": "Ana"}');
 *	SELECT name, outcome, result, error FROM event_queue.run_jobs('letters');
 *	ROLLBACK;
 */
CREATE FUNCTION run_jobs(
	queue text, max_jobs int DEFAULT 100,
	OUT job_id bigint, OUT name text, OUT attempt int, OUT outcome text, OUT result jsonb, OUT error text, OUT sqlstate text,
	OUT next_run_at timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_run_jobs';
COMMENT ON FUNCTION run_jobs(text, int) IS
'Runs jobs of a queue by their handlers in the caller''s own transaction, which may be rolled back; a row for each run.';

/*
 * give_up_job: for handlers: makes the running job a dead letter at once, with no further
 * attempt.
 *
 * It raises an error (EQ060), which must not be caught: what the handler did is undone.
 * Arguments: reason: the error that the dead letter shows.
 * Result: none; it raises.  Everybody may call it; outside a handler it is only an error.
 * Example:
 *	CREATE FUNCTION call_number(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
 *		$$ SELECT event_queue.give_up_job('no number') WHERE NOT job.payload ? 'number' $$;
 */
CREATE FUNCTION give_up_job(reason text DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_give_up_job';
COMMENT ON FUNCTION give_up_job(text) IS 'For handlers: the job is a dead letter at once. Raises EQ060.';

/*
 * retry_job_after: for handlers: fails the attempt; the next one, if there is one left, comes
 * after delay, whatever the backoff.  Otherwise as give_up_job.
 * Errors: EQ014 delay: none, negative, or more than 100 years; EQ060.
 * Example:
 *	CREATE FUNCTION call_later(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
 *		$$ SELECT event_queue.retry_job_after('10 minutes', 'busy') $$;
 */
CREATE FUNCTION retry_job_after(delay interval, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_retry_job_after';
COMMENT ON FUNCTION retry_job_after(interval, text) IS 'For handlers: the attempt has failed, and the next one comes after a time. Raises EQ060.';

/*
 * postpone_job: for handlers: the job is due again after delay, at least a second, and no
 * attempt is counted.  The others of its group wait for it, as group_concurrency says.
 * Otherwise as give_up_job.
 * Errors: EQ014 delay, EQ061.
 * Example:
 *	CREATE FUNCTION call_by_day(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
 *		$$ SELECT event_queue.postpone_job('1 hour', 'it is night') WHERE extract(hour FROM now()) < 8 $$;
 */
CREATE FUNCTION postpone_job(delay interval DEFAULT '1 second', reason text DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_postpone_job';
COMMENT ON FUNCTION postpone_job(interval, text) IS 'For handlers: not now, and no attempt is counted. Raises EQ061.';

/*
 * postpone_queue: for handlers: the job is due again after delay, as by postpone_job, and no
 * worker claims a job of its queue for that time, a day at most.
 *
 * For a provider that has answered 429.  Running jobs go on; those that executors have claimed
 * and not begun go back.  queue_limits and explain_job show the hold; resume_queue and a restart
 * of the server end it, a rollback (of the transaction that called run_jobs) does not.  The hold
 * is for all tenants and contacts: where each has a limit of its own, call postpone_job, and
 * make the tenant or contact the group_key: the other jobs of the group wait, unless group_retry
 * is pass.  In functions of rules it does what postpone_job does.  Workers outside call the form
 * with job_id and lease_token.
 * Errors: EQ014 delay, EQ064.
 * Example:
 *	CREATE FUNCTION call_provider(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
 *		$$ SELECT event_queue.postpone_queue('30 seconds', 'too many requests') WHERE job.payload ->> 'status' = '429' $$;
 */
CREATE FUNCTION postpone_queue(delay interval, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_postpone_queue';
COMMENT ON FUNCTION postpone_queue(interval, text) IS
'For handlers: not now, nor any other job of the queue for a time; no attempt is counted. Raises EQ064.';
