/*
 * settle.sql: settles leased jobs: complete, fail, release.
 */

/*
 * complete: finishes a leased job, which leaves the queue, for the view history if the queue
 * keeps completed jobs.
 * Errors: EQ016 the lease is lost: the token is not the job's present one.
 * Isolation: latest committed row at every level; waits for a session that is changing the job.
 * Example:
 *	SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
 *	SELECT event_queue.complete(:job_id, :'lease_token', '{"sent": true}');
 */
CREATE FUNCTION complete(job_id bigint, lease_token uuid, result jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_complete_sql';
COMMENT ON FUNCTION complete(bigint, uuid, jsonb) IS
'Finishes a leased job. EQ016 if the lease was lost, and nothing is changed.';

/*
 * complete_many: completes the jobs of a list whose leases are still the caller's.
 * Arguments: lease_tokens and results (NULL: none), one for each job.
 * Result: a row for each, in their order; state is completed or lost (nothing was changed: roll
 * back to before what was done for that job, if it is to be undone).
 * Errors: EQ009 lengths differ.
 * Example:
 *	SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('mail', 2) \gset
 *	SELECT job_id, state FROM event_queue.complete_many(:'ids', :'tokens');
 */
CREATE FUNCTION complete_many(
	job_ids bigint[], lease_tokens uuid[], results jsonb[] DEFAULT NULL, OUT job_id bigint, OUT state text)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_complete_many';
COMMENT ON FUNCTION complete_many(bigint[], uuid[], jsonb[]) IS
'Finishes many leased jobs; says for each whether it is completed or its lease was lost.';

/*
 * complete_and_claim: complete, then claim, in one call and one commit;
 * complete_many_and_claim: the same with arrays of jobs, all or none: EQ016 if a lease was
 * lost, for complete_many to say which.  With NULL for job_id it only claims,
 * so that a worker's loop needs no other call.
 * Arguments and errors as complete, complete_many and claim.  Result: as claim.
 * Example:
 *	SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
 *	SELECT job_id, lease_token FROM event_queue.complete_and_claim(:job_id, :'lease_token', 'mail') \gset
 */
CREATE FUNCTION complete_and_claim(
	job_id bigint, lease_token uuid, queue text, max_jobs int DEFAULT 1, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, job_names text[] DEFAULT NULL, tenant_id text DEFAULT NULL,
	session_bound boolean DEFAULT false, result jsonb DEFAULT NULL)
RETURNS SETOF claimed_job
LANGUAGE C VOLATILE ROWS 1 AS 'MODULE_PATHNAME', 'eq_complete_and_claim';
COMMENT ON FUNCTION complete_and_claim(bigint, uuid, text, int, text, interval, text[], text, boolean, jsonb) IS
'Finishes a leased job and leases the next one, in one commit.';

/*
 * Example:
 *	SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('mail', 2) \gset
 *	SELECT job_id, lease_token FROM event_queue.complete_many_and_claim(:'ids', :'tokens', 'mail', 2);
 */
CREATE FUNCTION complete_many_and_claim(
	job_ids bigint[], lease_tokens uuid[], queue text, max_jobs int DEFAULT 1, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, job_names text[] DEFAULT NULL, tenant_id text DEFAULT NULL,
	session_bound boolean DEFAULT false, results jsonb[] DEFAULT NULL)
RETURNS SETOF claimed_job
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_complete_many_and_claim';
COMMENT ON FUNCTION complete_many_and_claim(bigint[], uuid[], text, int, text, interval, text[], text, boolean, jsonb[]) IS
'Finishes leased jobs and leases the next ones, in one commit.';

/*
 * fail: records that the attempt at a leased job failed; the job waits for its next attempt by
 * its backoff, or becomes a dead letter if it has none left, was cancelled, or the error is final.
 * Arguments: retry_after replaces the backoff this time; final: never retry.
 * Result: when the job is tried again; NULL if it is a dead letter now.
 * Errors: EQ009 sqlstate is not five digits or capital letters, EQ014 negative retry_after,
 * EQ016 lease lost.
 * Example:
 *	SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
 *	SELECT event_queue.fail(:job_id, :'lease_token', 'no such address', final => true);
 */
CREATE FUNCTION fail(
	job_id bigint, lease_token uuid, message text,
	sqlstate text DEFAULT NULL, context text DEFAULT NULL,
	retry_after interval DEFAULT NULL, final boolean DEFAULT false)
RETURNS timestamptz
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_fail_sql';
COMMENT ON FUNCTION fail(bigint, uuid, text, text, text, interval, boolean) IS
'Records a failed attempt; returns the time of the next one, or NULL if the job is a dead letter now.';

/*
 * fail_many: fails the jobs of a list whose leases are still the caller's.
 * Arguments: lease_tokens, one for each job; the others as fail, for all of them.
 * Result: a row for each, in their order; state is retrying (from run_at on), dead (it is a dead
 * letter now) or lost (nothing was changed).
 * Errors: EQ009 lengths differ, sqlstate is not one, EQ014 negative retry_after.
 * Example:
 *	SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('mail', 2) \gset
 *	SELECT job_id, state, run_at FROM event_queue.fail_many(:'ids', :'tokens', 'server is busy', retry_after => '1 hour');
 */
CREATE FUNCTION fail_many(
	job_ids bigint[], lease_tokens uuid[], message text, sqlstate text DEFAULT NULL, context text DEFAULT NULL,
	retry_after interval DEFAULT NULL, final boolean DEFAULT false,
	OUT job_id bigint, OUT state text, OUT run_at timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_fail_many';
COMMENT ON FUNCTION fail_many(bigint[], uuid[], text, text, text, interval, boolean) IS
'Records failed attempts of many jobs; says for each when it is tried again, or that it is dead or its lease lost.';

/*
 * release: gives a job back unfinished, without counting an attempt.
 * Arguments: delay until it may be claimed again.
 * Errors: EQ014 negative delay, EQ016 lease lost.
 * Example:
 *	SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
 *	SELECT event_queue.release(:job_id, :'lease_token', delay => '1 minute');
 */
CREATE FUNCTION release(job_id bigint, lease_token uuid, delay interval DEFAULT '0') RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_release_sql';
COMMENT ON FUNCTION release(bigint, uuid, interval) IS
'Gives a leased job back to the queue; this does not count as an attempt.';

/*
 * postpone_queue: gives a leased job back, as release does, and holds its queue: no worker
 * claims a job of it for delay, a day at most.
 *
 * For workers outside, when a provider has answered 429.  queue_limits and explain_job show the
 * hold; resume_queue and a restart of the server end it, a rollback does not.  If the provider
 * limits a single contact, release the job instead, with the contact as its group_key: the other
 * jobs of the group wait for it, unless group_retry is pass.
 * Arguments: delay: also of this job, for which it may be longer than a day.
 * Result: true; false in a session that is confined to a tenant: only the job waits, since the
 * queue belongs to all.
 * Errors: EQ014 delay, EQ016 lease lost.
 * Example:
 *	SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
 *	SELECT event_queue.postpone_queue(:job_id, :'lease_token', delay => '30 seconds');
 *	SELECT event_queue.resume_queue('mail');
 */
CREATE FUNCTION postpone_queue(job_id bigint, lease_token uuid, delay interval) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_postpone_leased_queue';
COMMENT ON FUNCTION postpone_queue(bigint, uuid, interval) IS
'Gives a leased job back, and nobody claims any other job of its queue for a time; this does not count as an attempt.';
