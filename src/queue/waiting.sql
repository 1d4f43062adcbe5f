/*
 * waiting.sql: procedures that sleep until a job comes or ends.
 */

/*
 * claim_wait: claims jobs; if there is none, sleeps until one comes or the time is over, without
 * polling, snapshot or transaction id.
 *
 * A procedure, since a function can't give back the snapshot of the statement that calls it:
 * CALL it by itself, outside a transaction block.  It keeps nothing in the session, so it works
 * through a transaction pooler, and occupies one of the pooler's server connections while it
 * sleeps.  If the client disconnects meanwhile, no job is claimed for it.
 * Arguments: timeout is how long at most; worker, lease and tenant_id as in claim; jobs: pass
 * nothing, or NULL where all are given.
 * Result: a JSON array of the jobs, with the columns of claimed_job; committed.
 * Errors: EQ008 inside a transaction, EQ009 timeout below 0 or above 24 hours; as claim.
 * Example:
 *	CALL event_queue.claim_wait('mail', 1, '10 seconds');
 */
CREATE PROCEDURE claim_wait(
	queue text, max_jobs int, timeout interval, worker text DEFAULT NULL,
	lease interval DEFAULT NULL, tenant_id text DEFAULT NULL, INOUT jobs jsonb DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_claim_wait';
COMMENT ON PROCEDURE claim_wait(text, int, interval, text, interval, text, jsonb) IS
'Claims jobs; if there are none, sleeps until one comes or the time is over.';

/*
 * await_job: sleeps until a job is finished, dead or gone, or the time is over;
 * without a snapshot meanwhile.  CALL it by itself, outside a transaction block.
 * Arguments: timeout is how long at most; outcome: pass NULL.
 * Result: {"state": completed, dead, gone (finished and not kept, or cancelled)
 * or what the view jobs says, "result", "error"}.
 * Errors: EQ008 inside a transaction, EQ009 timeout.
 * Example:
 *	SELECT event_queue.enqueue('mail', 'late', delay => '1 day') AS job \gset
 *	CALL event_queue.await_job(:job, '10 milliseconds');
 */
CREATE PROCEDURE await_job(job_id bigint, timeout interval, INOUT outcome jsonb DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_await_job';
COMMENT ON PROCEDURE await_job(bigint, interval, jsonb) IS
'Sleeps until a job is finished, dead or gone, or the time is over; says which, with result or error.';

/*
 * job_outcome: what await_job returns, at once.
 * Example:
 *	SELECT event_queue.job_outcome(:job);
 */
CREATE FUNCTION job_outcome(job_id bigint) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(
		(SELECT jsonb_build_object('state', j.state, 'progress', j.progress) FROM event_queue.jobs j
		 WHERE j.job_id = $1 AND event_queue.tenant_visible(j.tenant_id)),
		(SELECT jsonb_build_object('state', 'dead', 'error', d.errors -> -1) FROM event_queue.dead_letter d
		 WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id)),
		(SELECT jsonb_build_object('state', 'completed', 'result', h.result) FROM event_queue.job_history h
		 WHERE h.job_id = $1 AND event_queue.tenant_visible(h.tenant_id) AND h.expires_at > now()
		 ORDER BY h.completed_at DESC LIMIT 1),
		'{"state": "gone"}')
$$;
COMMENT ON FUNCTION job_outcome(bigint) IS 'Outcome of a job: its state, with result or last error.';
