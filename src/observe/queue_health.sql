/*
 * queue_health.sql: queue_health(): whether each queue is healthy, degraded or unhealthy,
 * and why.
 */

/*
 * queue_health: the health of each queue, as one document.
 *
 * Result: a JSON object with a member for each queue; none for a role that is bound to a tenant,
 * since the figures are those of all tenants.
 * - status: the worst level of the reasons, or healthy.
 * - pendingCount (due, or blocked by other jobs), activeCount (leased), delayed (not yet due,
 *   counted to 10000), dead (dead letters): jobs now.
 * - completedCount, failedCount (attempts): since the queue was created.
 * - avgProcessingTime: seconds, of the last hour, or of all.
 * - slaCompliance: per cent, of the last day; null without sla or jobs.
 * - wait, run: p50, p95 and p99 of the last hour, in seconds.
 * - oldestWaiting: seconds.
 * - workers: leased jobs and sessions that wait for jobs, or the executors if there is a
 *   handler.
 * - reasons: an array of {reason, level, detail}.
 *
 * Reasons of unhealthy:
 * - no_place: in shared memory.
 * - no_worker: a job has been due for a minute, and no job is leased or was claimed meanwhile.
 * - failing: half of at least 10 attempts of 5 minutes failed.
 * - sla_burn: the error budget burns 14.4 times too fast, over an hour and over 5 minutes.
 *
 * Reasons of degraded:
 * - failures: 5 % of at least 10 attempts of 5 minutes failed.
 * - late: the oldest job has waited longer than sla, or without one than 5 minutes.
 * - sla: less than sla_target of at least 10 jobs of an hour were in time.
 * - dead_letters: some came within the hour.
 * - stalled: leases ran out within 5 minutes.
 * - paused, or held by postpone_queue, while jobs wait.
 * - draining.
 *
 * Isolation: counters tell what is committed now.
 * Example:
 *	SELECT key AS queue, value ->> 'status' AS status, value -> 'reasons' AS reasons FROM jsonb_each(event_queue.queue_health());
 */
CREATE FUNCTION queue_health() RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	WITH figure AS MATERIALIZED (
		SELECT q.name, q.queue_id, q.paused, q.draining, q.sla_target, extract(epoch FROM q.sla)::float8 AS sla,
			d.depth, d.dead, greatest(extract(epoch FROM clock_timestamp() - d.oldest_ready)::float8, 0) AS oldest,
			n.leased, n.waiters, event_queue_internal.held_until(q.queue_id) AS held_until, extract(epoch FROM clock_timestamp() - n.claimed_at)::float8 AS claimed_ago,
			CASE WHEN d.depth > n.leased THEN event_queue_internal.count_scheduled(q.queue_id, 10000) ELSE 0 END AS delayed,
			m.total, m.last_5m, m.last_1h, m.last_24h, m.wait_1h, m.run_1h,
			coalesce(m.last_5m[3] + m.last_5m[4], 0) AS attempts, coalesce(m.last_5m[4], 0) AS failed,
			coalesce(m.last_1h[3] + m.last_1h[7], 0) AS finished,
			coalesce((1 - event_queue_internal.compliance(m.last_1h)) / (1 - q.sla_target), 0) AS burn_1h,
			coalesce((1 - event_queue_internal.compliance(m.last_5m)) / (1 - q.sla_target), 0) AS burn_5m
		FROM event_queue.queue q CROSS JOIN LATERAL event_queue_internal.queue_depth(q.queue_id) d
		CROSS JOIN LATERAL event_queue_internal.queue_now(q.queue_id) n
		LEFT JOIN event_queue_internal.metrics('q', NULL) m USING (queue_id)
		WHERE event_queue_internal.is_unbound()
	), judged AS (
		SELECT f.*, r.reasons, r.level, CASE WHEN EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = f.queue_id)
			THEN (SELECT count(*) FROM event_queue.workers() w WHERE w.kind = 'executor') ELSE 0 END AS executors
		FROM figure f CROSS JOIN LATERAL (
			SELECT coalesce(jsonb_agg(jsonb_build_object('reason', x.reason, 'level', CASE x.level WHEN 2 THEN 'unhealthy' ELSE 'degraded' END,
				'detail', x.detail) ORDER BY x.level DESC, x.reason), '[]') AS reasons, coalesce(max(x.level), 0) AS level
			FROM (VALUES
				('no_place', 2, f.depth IS NULL, 'no place in shared memory: raise event_queue.max_queues and restart the server'),
				('no_worker', 2, NOT f.paused AND f.held_until IS NULL AND f.oldest > 60 AND f.leased = 0 AND coalesce(f.claimed_ago > 60, true),
					format('a job has been due for %s s, and nobody claims', round(f.oldest::numeric))),
				('failing', 2, f.attempts >= 10 AND f.failed * 2 >= f.attempts,
					format('%s of %s attempts of the last 5 minutes failed', f.failed, f.attempts)),
				('failures', 1, f.attempts >= 10 AND f.failed * 2 < f.attempts AND f.failed * 20 >= f.attempts,
					format('%s of %s attempts of the last 5 minutes failed', f.failed, f.attempts)),
				('sla_burn', 2, f.sla IS NOT NULL AND f.finished >= 10 AND f.burn_1h >= 14.4 AND f.burn_5m >= 14.4,
					format('the budget of errors burns %s times too fast', round(f.burn_1h::numeric, 1))),
				('sla', 1, f.sla IS NOT NULL AND f.finished >= 10 AND f.burn_1h > 1 AND NOT (f.burn_1h >= 14.4 AND f.burn_5m >= 14.4),
					format('%s %% of the last hour''s jobs were in time', round(100 * event_queue_internal.compliance(f.last_1h)::numeric, 2))),
				('late', 1, f.oldest > coalesce(f.sla, 300), format('the oldest job has been due for %s s', round(f.oldest::numeric))),
				('dead_letters', 1, f.last_1h[7] > 0, format('%s came within the hour', f.last_1h[7])),
				('stalled', 1, f.last_5m[6] > 0, format('%s leases ran out within 5 minutes', f.last_5m[6])),
				('paused', 1, f.paused AND f.depth > 0, format('%s jobs are there', f.depth)),
				('held', 1, f.held_until IS NOT NULL AND f.depth > 0, format('until %s, by postpone_queue', f.held_until)),
				('draining', 1, f.draining, 'is being drained')
			) x (reason, level, holds, detail) WHERE x.holds) r
	)
	SELECT coalesce(jsonb_object_agg(j.name, jsonb_build_object(
		'status', (ARRAY['healthy', 'degraded', 'unhealthy'])[j.level + 1],
		'pendingCount', greatest(j.depth - j.leased - j.delayed, 0), 'activeCount', j.leased,
		'completedCount', coalesce(j.total[3], 0), 'failedCount', coalesce(j.total[4], 0),
		'avgProcessingTime', round(coalesce(j.last_1h[11]::numeric / nullif(j.last_1h[3], 0), j.total[11]::numeric / nullif(j.total[3], 0)) / 1000000, 6),
		'slaCompliance', CASE WHEN j.sla IS NOT NULL THEN round(100 * event_queue_internal.compliance(j.last_24h)::numeric, 2) END,
		'delayed', j.delayed, 'dead', j.dead, 'oldestWaiting', round(j.oldest::numeric, 3), 'workers', greatest(j.waiters + j.leased, j.executors),
		'wait', jsonb_build_object('p50', event_queue_internal.histogram_quantile(j.wait_1h, 0.5),
			'p95', event_queue_internal.histogram_quantile(j.wait_1h, 0.95), 'p99', event_queue_internal.histogram_quantile(j.wait_1h, 0.99)),
		'run', jsonb_build_object('p50', event_queue_internal.histogram_quantile(j.run_1h, 0.5),
			'p95', event_queue_internal.histogram_quantile(j.run_1h, 0.95), 'p99', event_queue_internal.histogram_quantile(j.run_1h, 0.99)),
		'reasons', j.reasons)), '{}')
	FROM judged j
$$;
COMMENT ON FUNCTION queue_health() IS
'How each queue is, as a JSON object with a member for each: status (healthy, degraded, unhealthy), counts, average and percentiles of times, SLA, and the reasons.';
