/*
 * maintain.sql: deletes what queues no longer keep, and orphaned rows of jobs and queues;
 * called by the scheduler once a minute.
 *
 * All at once it may be millions of rows, so no call deletes more than a batch of each kind:
 * who calls commits, lets others have their turn, and calls again.
 */

/*
 * trim_finished: finished jobs of a queue with n newer ones that finished, but for those with
 * a keep_count of their own.  The oldest first, batch or a fiftieth of n at most;
 * result: there may be more.
 */
CREATE FUNCTION event_queue_internal.trim_finished(queue_id int, n int, batch int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	most CONSTANT int := greatest($3, $2 / 50);	-- finding newest takes a walk over $2 rows
	newest record;	-- of those that go
	up_to record;
	deleted bigint;
BEGIN
	SELECT k.completed_at, k.job_id INTO newest FROM event_queue.job_history k WHERE k.queue_id = $1
	ORDER BY k.completed_at DESC, k.job_id DESC OFFSET $2 LIMIT 1;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	SELECT h.completed_at, h.job_id INTO up_to FROM event_queue.job_history h
	WHERE h.queue_id = $1 AND h.keep_count IS NULL
	ORDER BY h.completed_at, h.job_id OFFSET most - 1 LIMIT 1;
	IF NOT FOUND OR (up_to.completed_at, up_to.job_id) > (newest.completed_at, newest.job_id) THEN
		up_to := newest;
	END IF;
	DELETE FROM event_queue.job_history h WHERE h.queue_id = $1 AND h.keep_count IS NULL
		AND (h.completed_at, h.job_id) <= (up_to.completed_at, up_to.job_id);
	GET DIAGNOSTICS deleted = ROW_COUNT;
	RETURN deleted >= most;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_finished(int, int, int) IS 'Internal. Removes finished jobs with too many newer ones; true if there may be more.';

/*
 * trim_queue: of one queue, finished jobs and dead letters that it keeps no longer, batch or a
 * fiftieth of those that stay at most of each kind; result: there may be more.  Skips dead
 * letters that someone has locked.
 */
CREATE FUNCTION event_queue_internal.trim_queue(q queue, batch int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' SET enable_nestloop = off AS $$
#variable_conflict use_column
DECLARE
	deleted bigint;
	-- of dead letters: finding them takes a walk over those that stay by a count, or by options of their own
	most int := greatest($2, q.keep_failed_count / 50);
	more boolean := q.keep_completed_count IS NOT NULL
		AND event_queue_internal.trim_finished(q.queue_id, q.keep_completed_count, $2);
BEGIN
	most := greatest(most, (SELECT count(*) / 50 FROM event_queue.dead_letter d WHERE d.queue_id = q.queue_id AND NOT (d.keep IS NULL)));
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
	DELETE FROM event_queue.job_history WHERE queue_id = q.queue_id AND keep_count > 0 AND job_id = ANY (ARRAY(
		SELECT h.job_id FROM event_queue.job_history h JOIN last l ON l.n = h.keep_count
		WHERE h.queue_id = q.queue_id AND h.keep_count > 0 AND (h.completed_at, h.job_id) < (l.completed_at, l.job_id)
		LIMIT (SELECT greatest($2, max(c.n) / 50) FROM counts c)));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	more := more OR deleted >= $2;
	IF q.keep_failed IS NOT NULL THEN
		DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
			SELECT d.job_id FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND d.died_at < clock_timestamp() - q.keep_failed
			  AND (d.keep).keep_failed IS NULL AND (d.keep).keep_failed_count IS NULL
			ORDER BY d.died_at, d.job_id LIMIT most FOR UPDATE SKIP LOCKED));
		GET DIAGNOSTICS deleted = ROW_COUNT;
		more := more OR deleted >= most;
	END IF;
	IF q.keep_failed_count IS NOT NULL THEN
		DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
			SELECT d.job_id FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND (d.died_at, d.job_id) < (
				SELECT k.died_at, k.job_id FROM event_queue.dead_letter k WHERE k.queue_id = q.queue_id
				ORDER BY k.died_at DESC, k.job_id DESC OFFSET q.keep_failed_count - 1 LIMIT 1)
			  AND (d.keep).keep_failed IS NULL AND (d.keep).keep_failed_count IS NULL
			ORDER BY d.died_at, d.job_id LIMIT most FOR UPDATE SKIP LOCKED));
		GET DIAGNOSTICS deleted = ROW_COUNT;
		more := more OR deleted >= most;
	END IF;
	DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
		SELECT d.job_id FROM event_queue.dead_letter d
		WHERE d.queue_id = q.queue_id AND NOT (d.keep IS NULL)
		  AND (d.keep).keep_failed < '1000 years' AND d.died_at <= clock_timestamp() - (d.keep).keep_failed
		LIMIT most FOR UPDATE SKIP LOCKED));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	more := more OR deleted >= most;
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
		LIMIT most FOR UPDATE OF d SKIP LOCKED));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	RETURN more OR deleted >= most;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_queue(queue, int) IS 'Internal. Removes finished jobs and dead letters that a queue keeps no longer; true if there may be more.';

/*
 * clear_dropped_queues: removes jobs that transactions which began before drop_queue have
 * enqueued since, batch at most of each queue; result: there may be more.
 */
CREATE FUNCTION event_queue_internal.clear_dropped_queues(batch int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	q record;
	n_dead bigint;
	n bigint;
	more boolean := false;
BEGIN
	FOR q IN SELECT *, seen_at <= pg_snapshot_xmin(pg_current_snapshot()) AS is_over FROM event_queue_internal.dropped_queue LOOP
		DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
			SELECT d.job_id FROM event_queue.dead_letter d WHERE d.queue_id = q.queue_id ORDER BY d.job_id LIMIT $1 FOR UPDATE SKIP LOCKED));
		GET DIAGNOSTICS n_dead = ROW_COUNT;
		DELETE FROM event_queue.job WHERE job_id = ANY (ARRAY(
			SELECT j.job_id FROM event_queue.job j WHERE j.queue_id = q.queue_id ORDER BY j.job_id LIMIT $1 FOR UPDATE SKIP LOCKED));
		GET DIAGNOSTICS n = ROW_COUNT;
		IF greatest(n, n_dead) >= $1 THEN
			more := true;
		ELSIF EXISTS (SELECT FROM event_queue.job j WHERE j.queue_id = q.queue_id)
			OR EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.queue_id = q.queue_id) THEN
			CONTINUE;	-- someone has the rest locked
		ELSIF q.seen_at IS NULL THEN
			UPDATE event_queue_internal.dropped_queue SET seen_at = pg_snapshot_xmax(pg_current_snapshot()) WHERE queue_id = q.queue_id;
		ELSIF q.is_over THEN
			DELETE FROM event_queue_internal.dropped_queue WHERE queue_id = q.queue_id;
		END IF;
	END LOOP;
	RETURN more;
END
$$;
COMMENT ON FUNCTION event_queue_internal.clear_dropped_queues(int) IS 'Internal. Removes what transactions that knew a dropped queue still have enqueued; true if there may be more.';

/*
 * run_alone: a query of the extension's own that deletes $2 rows at most and tells whether there
 * may be more; $1 in it is argument.  Its error is noted as a fault (what, item) and hurts nothing else.
 */
CREATE FUNCTION event_queue_internal.run_alone(what text, item text, query text, argument anyelement, batch int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	more boolean;
BEGIN
	EXECUTE $3 INTO more USING $4, $5;
	PERFORM event_queue_internal.clear_fault($1, $2);
	RETURN coalesce(more, false);
EXCEPTION WHEN OTHERS OR query_canceled THEN	-- the chore's time is over: the other tasks have theirs
	PERFORM event_queue_internal.note_fault($1, $2, NULL, SQLSTATE, SQLERRM);
	RETURN false;
END
$$;
COMMENT ON FUNCTION event_queue_internal.run_alone(text, text, text, anyelement, int) IS
'Internal. Runs a query whose error is noted and hurts nothing else; true if there may be more.';

/*
 * trim_log, trim_dependencies: delete old rows of these tables whose jobs are gone.  Most rows have theirs, so a call looks
 * at no more than batch rows, from a place on.  Result: the place where the next call goes on; NULL: that was all.
 */
CREATE FUNCTION event_queue_internal.trim_log(place bigint, batch int) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
DECLARE
	epoch CONSTANT timestamptz := '1970-01-01 00:00:00+00';	-- the place is a time, in microseconds since then
	begin_after CONSTANT timestamptz := CASE WHEN $1 = 0 THEN '-infinity' ELSE epoch + $1 * interval '1 microsecond' END;
	old CONSTANT timestamptz := clock_timestamp() - (SELECT greatest(max(q.keep_completed), '7 days') FROM event_queue.queue q);
	last timestamptz;
	deleted bigint;
BEGIN
	SELECT greatest(l.at, epoch + interval '1 microsecond') INTO last FROM event_queue.job_log l
	WHERE l.at > begin_after AND l.at < old ORDER BY l.at OFFSET $2 - 1 LIMIT 1;
	DELETE FROM event_queue.job_log WHERE ctid = ANY (ARRAY(
		SELECT l.ctid FROM event_queue.job_log l WHERE l.at > begin_after AND l.at < old AND l.at <= coalesce(last, old)
			-- not NOT EXISTS: that is planned as a walk over all jobs
			AND (SELECT j.job_id FROM event_queue.job j WHERE j.job_id = l.job_id) IS NULL
			AND (SELECT d.job_id FROM event_queue.dead_letter d WHERE d.job_id = l.job_id) IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	-- many may be of one time
	RETURN CASE WHEN deleted >= $2 THEN $1 ELSE (extract(epoch FROM last) * 1000000)::bigint END;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_log(bigint, int) IS
'Internal. Deletes old rows of job_log whose jobs are gone, from a place on; returns where to go on, NULL at the end.';

CREATE FUNCTION event_queue_internal.trim_dependencies(place bigint, batch int) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
DECLARE
	last bigint;
	deleted bigint;
BEGIN
	SELECT d.job_id INTO last FROM event_queue.job_dependency d WHERE d.job_id > $1 ORDER BY d.job_id OFFSET $2 - 1 LIMIT 1;
	DELETE FROM event_queue.job_dependency WHERE ctid = ANY (ARRAY(
		SELECT d.ctid FROM event_queue.job_dependency d WHERE d.job_id > $1 AND d.job_id <= coalesce(last, 9223372036854775807)
			AND (SELECT j.job_id FROM event_queue.job j WHERE j.job_id = d.job_id) IS NULL
			AND (SELECT l.job_id FROM event_queue.dead_letter l WHERE l.job_id = d.job_id) IS NULL LIMIT $2 FOR UPDATE SKIP LOCKED));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	RETURN CASE WHEN deleted >= $2 THEN $1 ELSE last END;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_dependencies(bigint, int) IS
'Internal. Deletes rows of job_dependency whose jobs are gone, from a place on; returns where to go on, NULL at the end.';

/*
 * maintain_task: one task of maintain_history, batch rows at most of each kind.  Result: whether there may be more;
 * NULL: there is no such task.
 */
CREATE FUNCTION event_queue_internal.maintain_task(task int, batch int) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	CASE $1
		WHEN 1 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'job_history_early',
				'WITH gone AS (DELETE FROM event_queue.job_history_early WHERE ctid = ANY (ARRAY(
					SELECT h.ctid FROM event_queue.job_history_early h WHERE h.expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING 1)
				SELECT count(*) >= $2 FROM gone', clock_timestamp(), $2);
		WHEN 2 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'job_throttle',
				'WITH gone AS (DELETE FROM event_queue_internal.job_throttle WHERE ctid = ANY (ARRAY(
					SELECT t.ctid FROM event_queue_internal.job_throttle t WHERE t.until < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)) RETURNING 1)
				SELECT count(*) >= $2 FROM gone', clock_timestamp(), $2);
		WHEN 3 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'job_trace', 'SELECT event_queue_internal.trim_trace($2)', NULL::int, $2);
		WHEN 4 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'signal', 'SELECT event_queue_internal.trim_signals($2)', NULL::int, $2);
		WHEN 5 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'rule_run', 'SELECT event_queue_internal.trim_rule_runs($2)', NULL::int, $2);
		WHEN 6 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'rule_root', 'SELECT event_queue_internal.trim_rule_roots($2)', NULL::int, $2);
		WHEN 7 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'rule_backfill', 'SELECT false FROM event_queue_internal.trim_backfills()', NULL::int, $2);
		WHEN 8 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'rule_version', 'SELECT false FROM event_queue_internal.trim_rule_versions()', NULL::int, $2);
		WHEN 9 THEN
			RETURN event_queue_internal.run_alone('partitions of', 'audit_log', 'SELECT event_queue_internal.maintain_audit($2)', NULL::int, $2);
		WHEN 10 THEN
			RETURN event_queue_internal.run_alone('old rows of', 'alerts', 'SELECT event_queue_internal.maintain_alerts($2)', NULL::int, $2);
		WHEN 11 THEN
			RETURN event_queue_internal.run_alone('jobs of', 'dropped queues', 'SELECT event_queue_internal.clear_dropped_queues($2)', NULL::int, $2);
		ELSE
			RETURN NULL;
	END CASE;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_task(int, int) IS 'Internal. One task of maintain_history; true if there may be more, NULL if there is no such task.';

/*
 * trim_orphans: trim_log (table 0) or trim_dependencies (1) from a place on; an error is noted as run_alone does.
 * Result: the place to go on from; NULL: that was all.
 */
CREATE FUNCTION event_queue_internal.trim_orphans(which int, place bigint, batch int) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	item CONSTANT text := CASE $1 WHEN 0 THEN 'job_log' ELSE 'job_dependency' END;
	go_on bigint;
BEGIN
	go_on := CASE $1 WHEN 0 THEN event_queue_internal.trim_log($2, $3) ELSE event_queue_internal.trim_dependencies($2, $3) END;
	PERFORM event_queue_internal.clear_fault('old rows of', item);
	RETURN go_on;
EXCEPTION WHEN OTHERS OR query_canceled THEN
	PERFORM event_queue_internal.note_fault('old rows of', item, NULL, SQLSTATE, SQLERRM);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_orphans(int, bigint, int) IS
'Internal. Deletes rows of job_log or job_dependency whose jobs are gone; an error is noted and hurts nothing else.';

/*
 * maintain_history: what is not a matter of partitions: what queues keep by count, dead
 * letters, and orphaned rows of deleted jobs.  For the scheduler, which begins once a minute
 * with 0 and then calls it with the result, until that is 0 again; what fails, or meets a lock,
 * is left for the next minute.  Does one piece of a task, or some hundredths of a second of
 * queues; 1000 + queue_id: the queues from there on; below 0: trim_orphans, as -1 - 2 * place - table.
 */
CREATE FUNCTION event_queue_internal.maintain_history(task bigint, batch int DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' SET timezone = 'UTC' AS $$
DECLARE
	until CONSTANT timestamptz := clock_timestamp() + interval '20 milliseconds';
	more boolean;
	place bigint;
	any_done boolean := false;	-- however slow the machine is
	q event_queue.queue;
BEGIN
	IF $1 < 0 THEN
		place := event_queue_internal.trim_orphans(((-1 - $1) % 2)::int, (-1 - $1) / 2, 10 * $2);
		RETURN CASE WHEN place IS NOT NULL THEN -1 - 2 * place - (-1 - $1) % 2 WHEN (-1 - $1) % 2 = 0 THEN -2 ELSE 1000 END;
	ELSIF $1 < 1000 THEN
		more := event_queue_internal.maintain_task(greatest($1, 1)::int, $2);
		RETURN CASE WHEN more IS NULL THEN -1 WHEN more THEN greatest($1, 1) ELSE greatest($1, 1) + 1 END;
	END IF;
	FOR q IN SELECT * FROM event_queue.queue x
		WHERE x.queue_id >= $1 - 1000 AND (x.keep_completed_count IS NOT NULL OR x.keep_failed IS NOT NULL OR x.keep_failed_count IS NOT NULL
			-- their jobs with options of their own
			OR EXISTS (SELECT FROM event_queue.job_history h WHERE h.queue_id = x.queue_id AND h.keep_count > 0)
			OR EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.queue_id = x.queue_id AND NOT (d.keep IS NULL)))
		ORDER BY x.queue_id LOOP
		IF any_done AND clock_timestamp() > until THEN
			RETURN 1000 + q.queue_id;
		END IF;
		any_done := true;
		IF event_queue_internal.run_alone('history of queue', q.name, 'SELECT event_queue_internal.trim_queue($1, $2)', q, $2) THEN
			RETURN 1000 + q.queue_id;
		END IF;
	END LOOP;
	RETURN 0;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_history(bigint, int) IS
'Internal. Removes a part of what queues keep no longer by count, old dead letters, and orphaned rows of deleted jobs; the result is what to call it with next, 0 at the end.';

/* maintain_history: all of it. */
CREATE FUNCTION event_queue_internal.maintain_history() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	task bigint := 0;
BEGIN
	LOOP
		task := event_queue_internal.maintain_history(task);
		EXIT WHEN task = 0;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_history() IS 'Internal. All tasks of maintain_history(bigint, int), to their end, in one transaction.';
