/*
 * stats.sql: one view for each kind of object, with its counts and state.  (Queues:
 * queue_status; subscriptions: subscription_status.)
 *
 * None counts a table: the code that does the work keeps the counts, and a look into the
 * events ends at 10000.  Totals of all tenants are NULL for a role that is bound to one.
 */

/* rule_lag: events that the rules have not met, to 10000, of those that the caller may see. */
CREATE FUNCTION event_queue_internal.rule_lag(after_position bigint, OUT events bigint, OUT oldest timestamptz)
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
	SELECT count(*), min(e.created_at) FROM (
		SELECT x.created_at FROM event_queue.event_store x
		WHERE x.position > $1 AND x.position <= (SELECT event_queue.watermark())
		ORDER BY x.position LIMIT 10000) e
$$;
COMMENT ON FUNCTION event_queue_internal.rule_lag(bigint) IS 'For views. How many events come after a position, to 10000, and when the first one came.';

CREATE VIEW rule_stats WITH (security_invoker = true) AS
	SELECT r.name AS rule, r.tenant_id,
		CASE WHEN NOT r.enabled THEN 'paused'
			WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.oid = r.owner) THEN 'out of service'
			WHEN r.on_table IS NOT NULL AND NOT event_queue_internal.table_is_watched(r.rule_id, r.on_change) THEN 'out of service'
			WHEN c.position IS NULL THEN 'waiting'
			WHEN EXISTS (SELECT FROM event_queue.faults() f
				WHERE f.what = 'rule' AND f.item = pg_catalog.format('%s (rule %s)', r.name, r.rule_id)) THEN 'resting'
			WHEN u.position IS NOT NULL THEN 'catching up'
			ELSE 'active' END AS state,
		CASE WHEN a.shown THEN coalesce(n.seen, 0) END AS seen,
		CASE WHEN a.shown THEN coalesce(n.matched, 0) + coalesce(x.matched, 0) END AS matched,
		CASE WHEN a.shown THEN coalesce(n.failed, 0) + coalesce(x.failed, 0) END AS failed,
		CASE WHEN a.shown THEN greatest(n.last_fired_at, x.last_fired_at) END AS last_fired_at,
		CASE WHEN NOT a.shown THEN NULL WHEN x.last_error_at > n.last_error_at OR n.last_error_at IS NULL THEN x.last_error
			ELSE n.last_error END AS last_error,
		CASE WHEN a.shown THEN greatest(n.last_error_at, x.last_error_at) END AS last_error_at,
		CASE WHEN u.position IS NOT NULL THEN greatest(u.position, r.start_position)
			WHEN r.enabled THEN greatest(c.position, r.start_position) ELSE r.start_position END AS position,
		CASE WHEN r.enabled AND r.start_position < event_queue.watermark() THEN l.events ELSE 0 END AS lag_events,
		coalesce(CASE WHEN r.enabled AND r.start_position < event_queue.watermark()
			THEN extract(epoch FROM pg_catalog.clock_timestamp() - l.oldest) END, 0)::double precision AS lag_seconds,
		coalesce(n.suppressed, 0) + coalesce(x.suppressed, 0) AS suppressed,
		coalesce(n.too_deep, 0) + coalesce(x.too_deep, 0) AS too_deep,
		greatest(n.last_suppressed_at, x.last_suppressed_at) AS last_suppressed_at,
		greatest(n.last_too_deep_at, x.last_too_deep_at) AS last_too_deep_at,
		CASE WHEN r.actions IS NOT NULL THEN ARRAY(SELECT k.kind FROM pg_catalog.jsonb_array_elements(r.actions) WITH ORDINALITY a (action, n),
				pg_catalog.jsonb_object_keys(a.action) k (kind) ORDER BY a.n)
			ELSE ARRAY[CASE WHEN r.function IS NULL THEN 'enqueue' ELSE 'call' END] END AS actions
	FROM event_queue.rule r
	LEFT JOIN event_queue_internal.rule_checkpoint c ON true
	LEFT JOIN event_queue_internal.rule_catch_up u ON u.rule_id = r.rule_id
	LEFT JOIN event_queue_internal.rule_count n ON n.rule_id = r.rule_id
	LEFT JOIN (SELECT y.rule_id, sum(y.matched)::bigint AS matched, sum(y.failed)::bigint AS failed,
			max(y.at) FILTER (WHERE y.matched > 0) AS last_fired_at, max(y.at) FILTER (WHERE y.failed > 0) AS last_error_at,
			(pg_catalog.array_agg(y.error ORDER BY y.at DESC) FILTER (WHERE y.failed > 0))[1] AS last_error,
			sum(y.suppressed)::bigint AS suppressed, sum(y.too_deep)::bigint AS too_deep,
			max(y.at) FILTER (WHERE y.suppressed > 0) AS last_suppressed_at, max(y.at) FILTER (WHERE y.too_deep > 0) AS last_too_deep_at
		FROM event_queue_internal.rule_count_change y GROUP BY 1) x ON x.rule_id = r.rule_id
	LEFT JOIN (SELECT g.events, g.oldest FROM event_queue_internal.rule_checkpoint k,
		event_queue_internal.rule_lag(k.position) g) l ON true
	CROSS JOIN (SELECT event_queue_internal.is_unbound()) b (unbound)
	CROSS JOIN LATERAL (SELECT b.unbound OR r.tenant_id IS NOT NULL) a (shown);
COMMENT ON VIEW rule_stats IS
'Each rule: events that its pattern and tenant let through (seen), how often it acted (matched) and failed, its last firing and error, state, position and lag (events to 10000); firings that did not come about: suppressed, as the rule had led to the event, and too_deep, as event_queue.rule_depth rules had; the kinds of its actions, in order.';

CREATE VIEW schedule_stats WITH (security_invoker = true) AS
	SELECT s.name AS schedule, q.name AS queue, s.tenant_id,
		CASE WHEN NOT s.enabled THEN 'paused'
			WHEN f.since IS NOT NULL THEN 'failing'
			WHEN s.next_run < pg_catalog.clock_timestamp() - interval '1 minute' THEN 'overdue'
			WHEN s.next_run IS NULL THEN 'never due'
			ELSE 'active' END AS state,
		s.last_run, s.next_run, s.runs, s.missed, s.last_error, s.last_error_at, f.since AS failing_since
	FROM event_queue.schedule s LEFT JOIN event_queue.queue q USING (queue_id)
	LEFT JOIN (SELECT y.item, min(y.since) AS since FROM event_queue.faults() y WHERE y.what = 'schedule' GROUP BY 1) f ON f.item = s.name;
COMMENT ON VIEW schedule_stats IS
'Each schedule: state, last and next run, jobs made, runs missed (no job of their own), last error.';

CREATE VIEW worker_stats WITH (security_invoker = true) AS
	SELECT w.kind, w.pid, a.name AS worker, q.name AS queue, j.job_id, j.name AS job_name, j.tenant_id,
		j.claimed_at AS since, w.jobs_done, (j.job_id IS NOT NULL)::int::bigint AS leases
	FROM event_queue.workers() w
	LEFT JOIN event_queue.job j ON j.job_id = w.current_job
	LEFT JOIN event_queue.queue q USING (queue_id)
	CROSS JOIN LATERAL (SELECT coalesce(j.leased_by, w.kind)) a (name)
	UNION ALL
	SELECT 'outside', o.pid, o.worker, o.queue_name, o.job_id, o.name, o.tenant_id, o.since, NULL, o.leases
	FROM (
		SELECT r.worker, r.queue_name, pg_catalog.count(*) AS leases, pg_catalog.min(r.claimed_at) AS since,
			(pg_catalog.array_agg(r.job_id ORDER BY r.claimed_at, r.job_id))[1] AS job_id,
			(pg_catalog.array_agg(r.name ORDER BY r.claimed_at, r.job_id))[1] AS name,
			(pg_catalog.array_agg(r.tenant_id ORDER BY r.claimed_at, r.job_id))[1] AS tenant_id,
			-- claim names a worker that did not name itself by its application and session
			(SELECT y.pid FROM pg_catalog.pg_stat_activity y
			 WHERE y.datname = pg_catalog.current_database() AND y.pid::text = substring(r.worker FROM ' ([0-9]+)$')) AS pid
		FROM event_queue.running_jobs() r
		WHERE NOT pg_catalog.starts_with(r.worker, 'event_queue executor ')
		GROUP BY r.worker, r.queue_name) o;
COMMENT ON VIEW worker_stats IS
'Who works: background workers with their present job and how many they did, and for each worker outside and queue its leases; since: when the (longest) job was claimed.';

CREATE VIEW event_stats WITH (security_invoker = true) AS
	SELECT w.watermark, p.last_position, p.last_position - w.watermark AS lag_positions,
		b.pid AS blocked_by, b.application_name, b.since AS blocked_since,
		extract(epoch FROM pg_catalog.clock_timestamp() - b.since)::double precision AS blocked_seconds,
		CASE WHEN u.unbound THEN t.tables END AS tables, CASE WHEN u.unbound THEN t.total_bytes END AS total_bytes,
		event_queue.generation() AS generation
	FROM (SELECT event_queue.watermark()) w (watermark)
	CROSS JOIN (SELECT event_queue_internal.is_unbound()) u (unbound)
	CROSS JOIN LATERAL (SELECT CASE WHEN u.unbound AND NOT pg_catalog.pg_is_in_recovery()
		THEN event_queue_internal.last_position() END) p (last_position)
	LEFT JOIN (SELECT o.pid, a.application_name, event_queue_internal.session_began(o.pid) AS since
		FROM event_queue_internal.open_appends() o LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
		ORDER BY o.lowest_position LIMIT 1) b ON u.unbound
	CROSS JOIN (SELECT pg_catalog.count(*), pg_catalog.sum(pg_catalog.pg_total_relation_size(x.oid))::bigint FROM (
		SELECT 'event_queue.event_store'::pg_catalog.regclass::oid
		UNION ALL
		SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = 'event_queue.event_store'::pg_catalog.regclass) x (oid)) t (tables, total_bytes);
COMMENT ON VIEW event_stats IS
'The event store: watermark, last position taken, who holds the watermark back and since when, tables and bytes.  On a standby: without the last position and who holds.';

CREATE VIEW event_partitions WITH (security_invoker = true) AS
	SELECT c.relname::text AS name, p.tenant_id, p.first_position, p.last_position, p.split_off, p.created_at, p.archived_at,
		CASE WHEN a.shown THEN nullif(c.reltuples, -1)::bigint END AS estimated_events,
		CASE WHEN a.shown THEN pg_catalog.pg_total_relation_size(c.oid) END AS total_bytes
	FROM pg_catalog.pg_class c
	LEFT JOIN event_queue_internal.event_partition p ON p.name = c.relname AND p.archived_at IS NULL
	CROSS JOIN (SELECT event_queue_internal.is_unbound()) u (unbound)
	CROSS JOIN LATERAL (SELECT u.unbound OR p.tenant_id IS NOT NULL) a (shown)
	WHERE c.oid = 'event_queue.event_store'::pg_catalog.regclass OR (p.name IS NOT NULL AND c.oid IN (
		SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = 'event_queue.event_store'::pg_catalog.regclass));
COMMENT ON VIEW event_partitions IS
'The tables of events with their sizes and estimated rows, from the catalogs: event_store itself, and its partitions.';

CREATE VIEW event_indexes WITH (security_invoker = true) AS
	SELECT i."by" AS indexed_by, pg_catalog.count(c.oid) AS tables,
		CASE WHEN event_queue_internal.is_unbound() THEN coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(c.oid)), 0)::bigint END AS total_bytes
	FROM event_queue_internal.event_index i
	CROSS JOIN event_queue.event_partitions p
	LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(pg_catalog.format('event_queue.%I', p.name || '_by_' || i."by"))
	GROUP BY i."by";
COMMENT ON VIEW event_indexes IS
'What create_event_index was called for, how many tables of events have the index, and its size in all of them.';
