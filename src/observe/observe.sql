/*
 * observe.sql: what an operator sees.  Counters live in shared memory and
 * start at zero with the server; depths are counted from the job table.
 */

/*
 * queue_counters: what happened since the server started, counted at commit.
 */
CREATE FUNCTION queue_counters(
	OUT queue_id int, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint,
	OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint,
	OUT late bigint, OUT wait_ms float8, OUT run_ms float8)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_queue_counters';
COMMENT ON FUNCTION queue_counters() IS
'Per queue, since the server started: jobs enqueued, claimed, completed, failed, released, stalled, dead, completed past the SLA, and the summed wait and run times in milliseconds.';

CREATE VIEW queue_status WITH (security_invoker = true) AS
	SELECT q.name AS queue, q.paused,
		coalesce(d.ready, 0) AS ready, coalesce(d.scheduled, 0) AS scheduled,
		coalesce(d.leased, 0) AS leased, coalesce(d.stalled, 0) AS stalled,
		(SELECT count(*) FROM event_queue.dead_letter l WHERE l.queue_id = q.queue_id) AS dead,
		d.oldest_ready_age, q.sla,
		coalesce(d.oldest_ready_age > q.sla, false) AS sla_missed,
		coalesce(c.enqueued, 0) AS enqueued_total, coalesce(c.claimed, 0) AS claimed_total,
		coalesce(c.completed, 0) AS completed_total, coalesce(c.failed, 0) AS failed_total,
		coalesce(c.stalled, 0) AS stalled_total, coalesce(c.dead, 0) AS dead_total,
		coalesce(c.late, 0) AS late_total,
		c.wait_ms / nullif(c.claimed, 0) AS avg_wait_ms, c.run_ms / nullif(c.completed, 0) AS avg_run_ms
	FROM event_queue.queue q
	LEFT JOIN (
		SELECT j.queue_id,
			count(*) FILTER (WHERE j.leased_until IS NULL AND j.run_at <= clock_timestamp()) AS ready,
			count(*) FILTER (WHERE j.leased_until IS NULL AND j.run_at > clock_timestamp()) AS scheduled,
			count(*) FILTER (WHERE j.leased_until > clock_timestamp()) AS leased,
			count(*) FILTER (WHERE j.leased_until <= clock_timestamp()) AS stalled,
			clock_timestamp() - min(j.run_at) FILTER (WHERE j.leased_until IS NULL AND j.run_at <= clock_timestamp()) AS oldest_ready_age
		FROM event_queue.job j GROUP BY j.queue_id) d USING (queue_id)
	LEFT JOIN event_queue.queue_counters() c USING (queue_id);
COMMENT ON VIEW queue_status IS
'Per queue: depth by state, age of the oldest ready job, SLA, and totals since the server started.';

/*
 * workers: the extension's background processes in this database.
 */
CREATE FUNCTION workers(OUT pid int, OUT kind text, OUT jobs_done bigint, OUT current_job bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_workers';
COMMENT ON FUNCTION workers() IS
'Background workers of this database: the scheduler and its executors, how many jobs each has run, and which one it runs now.';

/*
 * health: one line a check; all ok means that the flow moves.
 */
CREATE FUNCTION health(OUT "check" text, OUT ok boolean, OUT detail text) RETURNS SETOF record
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT 'scheduler', count(*) = 1, format('%s running', count(*))
	FROM event_queue.workers() WHERE kind = 'scheduler'
	UNION ALL
	SELECT 'executors', count(*) = current_setting('event_queue.executors')::int,
		format('%s of %s running', count(*), current_setting('event_queue.executors'))
	FROM event_queue.workers() WHERE kind = 'executor'
	UNION ALL
	SELECT 'open appends', coalesce(max(clock_timestamp() - a.xact_start) < '1 minute', true),
		CASE WHEN count(*) = 0 THEN 'none' ELSE format('oldest open for %s', max(clock_timestamp() - a.xact_start)) END
	FROM event_queue.open_appends() o JOIN pg_stat_activity a USING (pid)
	UNION ALL
	SELECT 'rules', count(*) < 10000, format('%s events behind', count(*))
	FROM (SELECT FROM event_queue.event_store e
		  WHERE e.position > (SELECT greatest((SELECT c.position FROM event_queue.rule_checkpoint c), min(r.start_position))
							  FROM event_queue.rule r WHERE r.enabled) LIMIT 10000) behind
	UNION ALL
	SELECT 'queue ' || s.queue, NOT s.sla_missed AND s.dead = 0,
		format('%s ready, %s dead, oldest ready %s', s.ready, s.dead, coalesce(s.oldest_ready_age::text, 'none'))
	FROM event_queue.queue_status s
$$;
COMMENT ON FUNCTION health() IS
'One line for each check: workers, open appends, rules, and each queue (SLA missed or dead letters: not ok).';
