/*
 * claim.sql: claims: leases on jobs that are due.
 */

CREATE TYPE claimed_job AS (
	job_id			bigint,
	lease_token		uuid,
	queue			text,
	name			text,
	tenant_id		text,
	payload			jsonb,
	metadata		jsonb,
	attempt			int,
	max_attempts	int,
	stalled			int,
	priority		int,
	created_at		timestamptz,
	run_at			timestamptz,
	leased_until	timestamptz,
	group_key		text,
	time_limit_ms	int
);
COMMENT ON TYPE claimed_job IS
'A leased job, as claim returns it and as handlers receive it.';
COMMENT ON COLUMN claimed_job.time_limit_ms IS 'Its time_limit in milliseconds: there are clients (Prisma) that fail at an interval, when the job is leased.';

/*
 * claim: leases up to max_jobs jobs that are due, first by priority, then by run_at; in a fair
 * queue tenants take turns.
 *
 * Commit before the work starts, so that others see the lease.  A transaction that did nothing
 * else commits without waiting for the disk: a claim that is lost in a crash is claimed again.
 *
 * Arguments:
 * - worker: names who holds the lease; default: application_name and pid.
 * - lease: overrides the queue's.
 * - job_names: only jobs of these names.
 * - session_bound: the jobs go back into the queue when this session ends, counted as stalled
 *   unless the client closed it.  Needs a connection of one's own, not a transaction pooler's.
 *
 * Result: the jobs with their lease tokens; none if the queue is empty, paused, held, or at its
 * rate_limit or max_concurrency.
 * Errors: EQ003 tenant, EQ009 max_jobs not in 1 to 10000, EQ010 no such queue, EQ012 lease not
 * positive, 53400 event_queue.max_queues is too small for a queue with limits.
 * Isolation: works on the latest committed rows at every level; rows that another session has
 * locked are skipped, never waited for.  A claim uses tokens and seats of its queue's limits at
 * once, and its rollback gives them back (less the tokens that came meanwhile).  At SERIALIZABLE
 * two claims of one queue may fail with 40001.
 * Example:
 *	SELECT job_id, lease_token, name, payload FROM event_queue.claim('mail', 2, worker => 'mailer 1');
 */
CREATE FUNCTION claim(
	queue text, max_jobs int DEFAULT 1, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, job_names text[] DEFAULT NULL, tenant_id text DEFAULT NULL,
	session_bound boolean DEFAULT false)
RETURNS SETOF claimed_job
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_claim_sql';
COMMENT ON FUNCTION claim(text, int, text, interval, text[], text, boolean) IS
'Leases jobs that are due; commit, work, then call complete, fail or release with the token.';
