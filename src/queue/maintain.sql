/*
 * maintain.sql: deletes what queues no longer keep, and orphaned rows of jobs and queues;
 * called by the scheduler once a minute.
 */

/*
 * trim_queue: of one queue, finished jobs and dead letters that it keeps no longer.
 * Skips dead letters that someone has locked.
 */
CREATE FUNCTION event_queue_internal.trim_queue(q queue) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' SET enable_nestloop = off AS $$
#variable_conflict use_column
BEGIN
	IF q.keep_completed_count IS NOT NULL THEN
		DELETE FROM event_queue.job_history h
		WHERE h.queue_id = q.queue_id AND h.keep_count IS NULL AND (h.completed_at, h.job_id) < (
			SELECT k.completed_at, k.job_id FROM event_queue.job_history k WHERE k.queue_id = q.queue_id
			ORDER BY k.completed_at DESC, k.job_id DESC OFFSET q.keep_completed_count - 1 LIMIT 1);
	END IF;
	-- Jobs with keep options of their own: one pass over the newest, whatever number each has.
	WITH counts AS MATERIALIZED (
		SELECT DISTINCT h.keep_count AS n FROM event_queue.job_history h WHERE h.queue_id = q.queue_id AND h.keep_count > 0
	), newest AS (
		SELECT k.completed_at, k.job_id, row_number() OVER (ORDER BY k.completed_at DESC, k.job_id DESC) AS place
		FROM event_queue.job_history k WHERE k.queue_id = q.queue_id
		ORDER BY k.completed_at DESC, k.job_id DESC LIMIT (SELECT coalesce(max(c.n), 0) FROM counts c)
	), last AS MATERIALIZED (
		SELECT c.n, w.completed_at, w.job_id FROM newest w JOIN counts c ON c.n = w.place
	)
	DELETE FROM event_queue.job_history h USING last l
	WHERE h.queue_id = q.queue_id AND h.keep_count = l.n AND h.keep_count > 0 AND (h.completed_at, h.job_id) < (l.completed_at, l.job_id);
	IF q.keep_failed IS NOT NULL THEN
		DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
			SELECT d.job_id FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND d.died_at < clock_timestamp() - q.keep_failed
			  AND (d.keep).keep_failed IS NULL AND (d.keep).keep_failed_count IS NULL
			FOR UPDATE SKIP LOCKED));
	END IF;
	IF q.keep_failed_count IS NOT NULL THEN
		DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
			SELECT d.job_id FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND (d.died_at, d.job_id) < (
				SELECT k.died_at, k.job_id FROM event_queue.dead_letter k WHERE k.queue_id = q.queue_id
				ORDER BY k.died_at DESC, k.job_id DESC OFFSET q.keep_failed_count - 1 LIMIT 1)
			  AND (d.keep).keep_failed IS NULL AND (d.keep).keep_failed_count IS NULL
			FOR UPDATE SKIP LOCKED));
	END IF;
	DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
		SELECT d.job_id FROM event_queue.dead_letter d
		WHERE d.queue_id = q.queue_id AND NOT (d.keep IS NULL)
		  AND (d.keep).keep_failed < '1000 years' AND d.died_at <= clock_timestamp() - (d.keep).keep_failed
		FOR UPDATE SKIP LOCKED));
	WITH counts AS MATERIALIZED (
		SELECT DISTINCT (d.keep).keep_failed_count AS n FROM event_queue.dead_letter d
		WHERE d.queue_id = q.queue_id AND NOT (d.keep IS NULL) AND (d.keep).keep_failed_count > 0
	), newest AS (
		SELECT k.died_at, k.job_id, row_number() OVER (ORDER BY k.died_at DESC, k.job_id DESC) AS place
		FROM event_queue.dead_letter k WHERE k.queue_id = q.queue_id
		ORDER BY k.died_at DESC, k.job_id DESC LIMIT (SELECT coalesce(max(c.n), 0) FROM counts c)
	), last AS MATERIALIZED (
		SELECT c.n, w.died_at, w.job_id FROM newest w JOIN counts c ON c.n = w.place
	)
	DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
		SELECT d.job_id FROM event_queue.dead_letter d JOIN last l ON l.n = (d.keep).keep_failed_count
		WHERE d.queue_id = q.queue_id AND NOT (d.keep IS NULL) AND (d.died_at, d.job_id) < (l.died_at, l.job_id)
		FOR UPDATE OF d SKIP LOCKED));
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_queue(queue) IS 'Internal. Removes finished jobs and dead letters that a queue keeps no longer.';

/* Removes jobs that transactions which began before drop_queue have enqueued since. */
CREATE FUNCTION event_queue_internal.clear_dropped_queues() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	q record;
BEGIN
	FOR q IN SELECT *, seen_at <= pg_snapshot_xmin(pg_current_snapshot()) AS is_over FROM event_queue_internal.dropped_queue LOOP
		DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
			SELECT d.job_id FROM event_queue.dead_letter d WHERE d.queue_id = q.queue_id ORDER BY d.job_id FOR UPDATE));
		DELETE FROM event_queue.job WHERE job_id = ANY (ARRAY(
			SELECT j.job_id FROM event_queue.job j WHERE j.queue_id = q.queue_id ORDER BY j.job_id FOR UPDATE));
		IF q.seen_at IS NULL THEN
			UPDATE event_queue_internal.dropped_queue SET seen_at = pg_snapshot_xmax(pg_current_snapshot()) WHERE queue_id = q.queue_id;
		ELSIF q.is_over THEN
			DELETE FROM event_queue_internal.dropped_queue WHERE queue_id = q.queue_id;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.clear_dropped_queues() IS 'Internal. Removes what transactions that knew a dropped queue still have enqueued.';

/*
 * run_alone: a statement of the extension's own whose error is noted as a fault
 * (what, item) and hurts nothing else; the value of $1 in it is argument.
 */
CREATE FUNCTION event_queue_internal.run_alone(what text, item text, statement text, argument anyelement) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	EXECUTE $3 USING $4;
	PERFORM event_queue_internal.clear_fault($1, $2);
EXCEPTION WHEN OTHERS THEN
	PERFORM event_queue_internal.note_fault($1, $2, NULL, SQLSTATE, SQLERRM);
END
$$;
COMMENT ON FUNCTION event_queue_internal.run_alone(text, text, text, anyelement) IS
'Internal. Runs a statement whose error is noted and hurts nothing else.';

/*
 * maintain_history: what is not a matter of partitions: what queues keep by count,
 * dead letters, and orphaned rows of deleted jobs.  Called by the
 * scheduler once a minute; what fails, or meets a lock, is left for the next time.
 */
CREATE FUNCTION event_queue_internal.maintain_history() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' SET timezone = 'UTC' AS $$
DECLARE
	longest interval := (SELECT greatest(max(q.keep_completed), '7 days') FROM event_queue.queue q);
	q event_queue.queue;
BEGIN
	PERFORM event_queue_internal.run_alone('old rows of', 'job_history_early',
		'DELETE FROM event_queue.job_history_early h WHERE h.expires_at <= $1', clock_timestamp());
	FOR q IN SELECT * FROM event_queue.queue x
		WHERE x.keep_completed_count IS NOT NULL OR x.keep_failed IS NOT NULL OR x.keep_failed_count IS NOT NULL
			-- their jobs with options of their own
			OR x.queue_id IN (SELECT h.queue_id FROM event_queue.job_history h WHERE h.keep_count > 0
				UNION SELECT d.queue_id FROM event_queue.dead_letter d WHERE NOT (d.keep IS NULL)) LOOP
		PERFORM event_queue_internal.run_alone('history of queue', q.name, 'SELECT event_queue_internal.trim_queue($1)', q);
	END LOOP;
	PERFORM event_queue_internal.run_alone('old rows of', 'job_log',
		'DELETE FROM event_queue.job_log l WHERE l.at < $1
			AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = l.job_id)
			AND NOT EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.job_id = l.job_id)', clock_timestamp() - longest);
	PERFORM event_queue_internal.run_alone('old rows of', 'job_throttle',
		'DELETE FROM event_queue_internal.job_throttle t WHERE t.until < $1', clock_timestamp());
	PERFORM event_queue_internal.run_alone('old rows of', 'job_trace', 'SELECT event_queue_internal.trim_trace()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'signal', 'SELECT event_queue_internal.trim_signals()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'rule_run', 'SELECT event_queue_internal.trim_rule_runs()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'rule_root', 'SELECT event_queue_internal.trim_rule_roots()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'rule_backfill', 'SELECT event_queue_internal.trim_backfills()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'rule_version', 'SELECT event_queue_internal.trim_rule_versions()', NULL::int);
	PERFORM event_queue_internal.run_alone('partitions of', 'audit_log', 'SELECT event_queue_internal.maintain_audit()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'alerts', 'SELECT event_queue_internal.maintain_alerts()', NULL::int);
	PERFORM event_queue_internal.run_alone('jobs of', 'dropped queues', 'SELECT event_queue_internal.clear_dropped_queues()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'job_dependency',
		'DELETE FROM event_queue.job_dependency d
			WHERE NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = d.job_id)
			AND NOT EXISTS (SELECT FROM event_queue.dead_letter l WHERE l.job_id = d.job_id)', NULL::int);
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_history() IS
'Internal. Removes what queues keep no longer by count, old dead letters, and orphaned rows of deleted jobs.';
