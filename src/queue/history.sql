/*
 * history.sql: the table of finished jobs, its partitions and its view.
 */

/*
 * Finished jobs, each with the time until which its queue wanted to keep it when
 * it finished.  Partitions hold what expires within the same hour, day or month
 * (UTC), and are dropped when that is over: nothing is deleted for its age,
 * however differently queues keep.  What stays an hour longer than it should is
 * little beside a day, a day little beside a month: so span, the length of the
 * partition, goes by how long the row is kept (history_span; the same in history.c).
 *
 * The scheduler makes partitions ahead of the rows (maintain_history_partitions);
 * complete (history.c) writes straight into the right one.  What comes before its
 * partition goes into job_history_early, and is deleted from there: rows are not
 * moved and there is no default partition, so that making and dropping partitions
 * waits for no writer, and no reader misses a row.
 *
 * job_history itself has no index, each partition has its own: so a dump, in which
 * the partitions are tables like a user's, can be restored.  A partition whose
 * primary key is missing is being restored, and is left alone.
 */
CREATE TABLE job_history (
	job_id			bigint NOT NULL,
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text NOT NULL,
	priority		smallint NOT NULL,
	created_at		timestamptz NOT NULL,
	run_at			timestamptz NOT NULL,
	completed_at	timestamptz NOT NULL,
	expires_at		timestamptz NOT NULL,
	span			smallint NOT NULL,
	leased_by		text,
	failures		int NOT NULL,
	stalled			int NOT NULL,
	payload			jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	errors			jsonb NOT NULL,
	result			jsonb,
	claimed_at		timestamptz,
	keep_count		int,
	handler			jsonb,
	steps			jsonb
) PARTITION BY RANGE (span, expires_at);
COMMENT ON TABLE job_history IS
'Finished jobs of queues with keep_completed, also those that have expired but are not removed yet: read the view history.';
COMMENT ON COLUMN job_history.expires_at IS 'completed_at and the queue''s keep_completed of that time; infinity: kept forever.';
COMMENT ON COLUMN job_history.span IS 'Its partition holds what expires within 0: an hour, 1: a day, 2: a month; 3: never; 4: its partition was not there yet.';
COMMENT ON COLUMN job_history.run_at IS 'When its last attempt was due.';
COMMENT ON COLUMN job_history.claimed_at IS 'When its last attempt began; NULL: finished before version 0.2.0.';
COMMENT ON COLUMN job_history.keep_count IS 'The row is deleted once so many jobs of its queue have finished after it; 0: by expires_at alone; NULL: by the queue''s keep_completed_count.';
COMMENT ON COLUMN job_history.handler IS 'The code that ran the job: function, version by create_handler, hash of its source; NULL: a worker outside.';
COMMENT ON COLUMN job_history.steps IS 'Its steps, for the view job_steps.';
ALTER TABLE job_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history USING (tenant_visible(tenant_id));

CREATE TABLE job_history_early PARTITION OF job_history FOR VALUES FROM (4, MINVALUE) TO (4, MAXVALUE);
COMMENT ON TABLE job_history_early IS
'Internal. Finished jobs that came before their partition; and what new partitions are made like, with its indexes.';
ALTER TABLE job_history_early ADD PRIMARY KEY (job_id, completed_at);
CREATE INDEX job_history_early_queue ON job_history_early (queue_id, completed_at, job_id);
CREATE INDEX job_history_early_caused_by ON job_history_early ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';
CREATE INDEX job_history_early_steps ON job_history_early (job_id) WHERE steps IS NOT NULL;
CREATE INDEX job_history_early_keep_count ON job_history_early (queue_id, keep_count, completed_at, job_id) WHERE keep_count > 0;
ALTER TABLE job_history_early ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_early USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_early', '');

CREATE TABLE job_history_forever (LIKE job_history_early INCLUDING ALL);
ALTER TABLE job_history ATTACH PARTITION job_history_forever FOR VALUES FROM (3, MINVALUE) TO (3, MAXVALUE);
COMMENT ON TABLE job_history_forever IS
'Finished jobs of queues that keep them forever, or by keep_completed_count alone.';
ALTER TABLE job_history_forever ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_forever USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_forever', '');

CREATE VIEW history WITH (security_invoker = true) AS
	SELECT h.job_id, q.name AS queue, h.tenant_id, h.name, h.completed_at, h.result, h.leased_by, h.failures, h.stalled,
		h.priority, h.created_at, h.run_at, h.expires_at, h.payload, h.metadata, h.errors,
		h.claimed_at, (extract(epoch FROM h.claimed_at - h.run_at) * 1000)::bigint AS wait_ms,
		(extract(epoch FROM h.completed_at - h.claimed_at) * 1000)::bigint AS run_ms, h.handler
	FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id)
	WHERE h.expires_at > now();
COMMENT ON VIEW history IS
'Finished jobs of queues with keep_completed or keep_completed_count, with their results, the errors of failed attempts, and the milliseconds that the last attempt waited and ran, and which code of which handler did them.';

/*
 * discard_completed: deletes finished jobs from the history before their time; what was not
 * kept, is gone already, or is of another tenant than the session's is left out.  (A job that
 * is not to be kept at all is better given keep_completed 0: that costs no call.)
 * Arguments: job_ids: NULL and NULL in it are nothing.
 * Result: how many.
 * Example:
 *	SELECT event_queue.discard_completed(array_agg(job_id)) FROM event_queue.history WHERE queue = 'mail' AND name = 'welcome';
 */
CREATE FUNCTION discard_completed(job_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	locked CONSTANT bigint[] := (SELECT array_agg(x.job_id) FROM (
		SELECT h.job_id FROM event_queue.job_history h
		WHERE h.job_id = ANY ($1) AND h.expires_at > now() AND event_queue.tenant_visible(h.tenant_id)
		ORDER BY h.job_id FOR UPDATE) x);
	total bigint;
BEGIN
	WITH gone AS (
		DELETE FROM event_queue.job_history h WHERE h.job_id = ANY (locked) RETURNING h.queue_id
	), counts AS MATERIALIZED (
		SELECT q.name, count(*) AS n FROM gone g JOIN event_queue.queue q USING (queue_id) GROUP BY q.name
	), noted AS MATERIALIZED (
		SELECT c.n, event_queue_internal.audit('discard_completed', 'queue', c.name, "after" => jsonb_build_object('jobs', c.n))
		FROM counts c ORDER BY c.name
	)
	SELECT coalesce(sum(n), 0) INTO total FROM noted;
	RETURN total;
END
$$;
COMMENT ON FUNCTION discard_completed(bigint[]) IS 'Deletes finished jobs from the history before their time; returns how many.';

/* history_span: job_history.span of what is kept so long; NULL if it is not kept by time. */
CREATE FUNCTION event_queue_internal.history_span(keep interval) RETURNS smallint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT CASE
		WHEN keep <= '0' THEN NULL
		WHEN keep >= '1000 years' THEN 3
		WHEN extract(epoch FROM keep) <= 86400 THEN 0
		WHEN extract(epoch FROM keep) <= 60 * 86400 THEN 1
		WHEN keep IS NOT NULL THEN 2 END::smallint
$$;
COMMENT ON FUNCTION event_queue_internal.history_span(interval) IS 'Internal. The span of the partitions for rows that are kept so long.';

/*
 * maintain_history_partitions: drops the partitions of job_history whose time is
 * over, and makes those that queues will write to next: of what finishes now,
 * and the one after.  Called by the scheduler once a minute, and when queues
 * change; as it waits for a lock a moment only, what it can't do (a long report
 * reads the table) comes with a later call.
 */
CREATE FUNCTION event_queue_internal.maintain_history_partitions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' SET timezone = 'UTC' AS $$
#variable_conflict use_variable
DECLARE
	formats CONSTANT text[] := '{YYYYMMDDHH24,YYYYMMDD,YYYYMM}';
	part record;
	this_name text;
BEGIN
	FOR part IN
		SELECT c.relname AS name,
			CASE substr(c.relname, 13, 1)
				WHEN 'h' THEN to_timestamp(substr(c.relname, 15), formats[1]) + '1 hour'
				WHEN 'd' THEN to_timestamp(substr(c.relname, 15), formats[2]) + '1 day'
				ELSE to_timestamp(substr(c.relname, 15), formats[3]) + '1 month' END AS ends_at
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'event_queue.job_history'::regclass AND c.relname ~ '^job_history_[hdm]_[0-9]+$'
		  AND EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary)
		ORDER BY ends_at
	LOOP
		EXIT WHEN part.ends_at > clock_timestamp();
		BEGIN
			PERFORM event_queue_internal.drop_old_partition(part.name);
		EXCEPTION WHEN OTHERS THEN
			PERFORM event_queue_internal.note_fault('old partition', part.name, NULL, SQLSTATE, SQLERRM);
			-- Someone reads for long: the next one would wait, too.
			EXIT WHEN SQLSTATE = '55P03';
		END;
	END LOOP;

	FOR part IN
		SELECT DISTINCT k.span, k.unit, begins_at, begins_at + ('1 ' || k.unit)::interval AS ends_at
		FROM (
			SELECT s.span, (ARRAY['hour', 'day', 'month'])[s.span + 1] AS unit,
				clock_timestamp() + make_interval(secs => extract(epoch FROM q.keep_completed)::float8) AS expires_at
			FROM event_queue.queue q, event_queue_internal.history_span(q.keep_completed) AS s (span)
			WHERE s.span < 3) k,
			generate_series(0, 1) n,
			LATERAL (SELECT date_trunc(k.unit, k.expires_at) + n * ('1 ' || k.unit)::interval AS begins_at) AS b
		ORDER BY k.span, begins_at
	LOOP
		this_name := format('job_history_%s_%s', left(part.unit, 1), to_char(part.begins_at, formats[part.span + 1]));
		CONTINUE WHEN EXISTS (SELECT FROM pg_class c WHERE c.relname = this_name AND c.relnamespace = 'event_queue'::regnamespace);
		BEGIN
			EXECUTE format('CREATE TABLE event_queue.%I (LIKE event_queue.job_history_early INCLUDING ALL)', this_name);
			EXECUTE format('COMMENT ON TABLE event_queue.%I IS %L', this_name,
				format('Finished jobs that expire in the %s from %s.', part.unit, part.begins_at));
			EXECUTE format('ALTER TABLE event_queue.%I ENABLE ROW LEVEL SECURITY', this_name);
			EXECUTE format('CREATE POLICY tenant_isolation ON event_queue.%I USING (event_queue.tenant_visible(tenant_id))', this_name);
			EXECUTE format('ALTER TABLE event_queue.job_history ATTACH PARTITION event_queue.%I FOR VALUES FROM (%s, %L) TO (%s, %L)',
				this_name, part.span, part.begins_at, part.span, part.ends_at);
			PERFORM event_queue_internal.clear_fault('new partition', this_name);
		EXCEPTION
			WHEN duplicate_table OR unique_violation THEN
				EXIT;		-- someone makes the same partition
			WHEN OTHERS THEN
				PERFORM event_queue_internal.note_fault('new partition', this_name, NULL, SQLSTATE, SQLERRM);
				EXIT WHEN SQLSTATE = '55P03';	-- someone reads for long
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_history_partitions() IS
'Internal. Drops the partitions of job_history whose time is over, and makes those that come next.';
