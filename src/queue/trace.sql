/*
 * trace.sql: job_trace: what trace() shows of finished jobs that are not in the history.
 *
 * A row for each job that an event caused, kept for event_queue.keep_trace.  trace.c writes
 * it as the job is completed; maintain_history deletes it.
 */
CREATE TABLE job_trace (
	job_id		bigint NOT NULL,
	queue_id	int NOT NULL,
	tenant_id	text COLLATE "C" NOT NULL,
	name		text NOT NULL,
	event_id	text COLLATE "C" NOT NULL,
	rule		text,
	parent_job	bigint,
	outcome		text NOT NULL,
	created_at	timestamptz NOT NULL,
	finished_at	timestamptz NOT NULL,
	rule_version	bigint,
	handler		jsonb
);
COMMENT ON TABLE event_queue.job_trace IS 'Jobs that an event caused and that are finished, for trace(); kept for event_queue.keep_trace.';
CREATE INDEX job_trace_event ON event_queue.job_trace (event_id);
CREATE INDEX job_trace_finished ON event_queue.job_trace (finished_at);
ALTER TABLE event_queue.job_trace ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue.job_trace USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue.job_trace', '');

/* trim_trace: removes what is older than event_queue.keep_trace, batch rows at most; result: there may be more. */
CREATE FUNCTION event_queue_internal.trim_trace(batch int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	n bigint;
BEGIN
	DELETE FROM event_queue.job_trace x WHERE x.ctid = ANY (ARRAY(
		SELECT y.ctid FROM event_queue.job_trace y
		WHERE y.finished_at < clock_timestamp() - current_setting('event_queue.keep_trace')::interval LIMIT $1));
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n >= $1;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_trace(int) IS 'Internal. Removes lines of finished jobs that are older than event_queue.keep_trace.';
