/*
 * lease.sql: calls of a worker while it holds a lease: heartbeat, progress, log.
 */

/* Lines that workers write about a job (log_job). */
CREATE TABLE job_log (
	job_id			bigint NOT NULL,
	at				timestamptz NOT NULL DEFAULT clock_timestamp(),
	tenant_id		text COLLATE "C" NOT NULL,
	level			text NOT NULL,
	message			text NOT NULL
);
COMMENT ON TABLE job_log IS 'What workers said about their jobs by log_job; kept with the job, and after it for the longest keep_completed, at least 7 days.';
CREATE INDEX job_log_job ON job_log (job_id, at);
CREATE INDEX job_log_at ON job_log (at);
ALTER TABLE job_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_log USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_log', '');

/*
 * extend_lease: extends the lease of a job (a heartbeat).
 * Arguments: lease: from now; default the queue's.
 * Result: the new end of the lease, never past the job's time_limit.
 * Errors: EQ012 lease not positive, EQ016 lease lost (also if it ran out, and its place among
 * max_concurrency is taken), EQ033 the job was cancelled: stop, and call complete or fail.
 * Example:
 *	SELECT job_id, lease_token FROM event_queue.claim('mail') \gset
 *	SELECT event_queue.extend_lease(:job_id, :'lease_token', '5 minutes');
 */
CREATE FUNCTION extend_lease(job_id bigint, lease_token uuid, lease interval DEFAULT NULL)
RETURNS timestamptz
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_extend_lease_sql';
COMMENT ON FUNCTION extend_lease(bigint, uuid, interval) IS
'Renews the lease of a job, counted from now; returns its new end. EQ033 if the job was cancelled.';

/*
 * extend_leases: extends the leases of a list that are still the caller's.
 * Arguments: lease_tokens, one for each job; lease: from now; default the queue's.
 * Result: a row for each, in their order; state is leased (until leased_until), cancelled (stop,
 * and call complete or fail) or lost; of these two nothing was changed.
 * Errors: EQ009 lengths differ, EQ012 lease not positive.
 * Example:
 *	SELECT job_id, state, leased_until FROM event_queue.extend_leases(ARRAY[:job_id], ARRAY[:'lease_token']::uuid[], '5 minutes');
 */
CREATE FUNCTION extend_leases(
	job_ids bigint[], lease_tokens uuid[], lease interval DEFAULT NULL,
	OUT job_id bigint, OUT state text, OUT leased_until timestamptz)
RETURNS SETOF record
LANGUAGE C VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'eq_extend_leases';
COMMENT ON FUNCTION extend_leases(bigint[], uuid[], interval) IS
'Renews many leases; says for each its new end, or that the job was cancelled or the lease lost.';

/*
 * report_progress: sets what the view jobs shows as the progress of a leased job.
 * Arguments: progress is any JSON value.
 * Errors: EQ005 too large, EQ016 lease lost, EQ033 the job was cancelled.
 * Example:
 *	SELECT event_queue.report_progress(:job_id, :'lease_token', '{"percent": 40}');
 */
CREATE FUNCTION report_progress(job_id bigint, lease_token uuid, progress jsonb) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_report_progress';
COMMENT ON FUNCTION report_progress(bigint, uuid, jsonb) IS
'Sets the progress of a leased job, for the view jobs. EQ033 if the job was cancelled.';

/*
 * log_job: writes a line about a leased job to job_log.
 * Errors: EQ009 no message or longer than 8 kB, EQ016 no lease of this job has the token.
 * Example:
 *	SELECT event_queue.log_job(:job_id, :'lease_token', 'the template is rendered');
 */
CREATE FUNCTION log_job(job_id bigint, lease_token uuid, message text, level text DEFAULT 'info') RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF message IS NULL OR octet_length(message) > 8192 OR level IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'a log line needs a level and a message of at most 8 kB';
	END IF;
	PERFORM event_queue_internal.check_name('log level', level, 50);
	INSERT INTO event_queue.job_log (job_id, tenant_id, level, message)
	SELECT j.job_id, j.tenant_id, $4, $3 FROM event_queue.job j WHERE j.job_id = $1 AND j.lease_token = $2
	  AND event_queue.tenant_visible(j.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ016', MESSAGE = format('lease of job %s is lost', $1);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION log_job(bigint, uuid, text, text) IS 'Writes a line about a leased job to job_log.';
