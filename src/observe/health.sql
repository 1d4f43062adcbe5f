/*
 * health.sql: health(): checks whether everything works, and says what to do if not.
 *
 * It is called when something is wrong, so it never waits: it locks all that it reads
 * beforehand without waiting, or reports that it cannot look; and an error in one check
 * leaves the others.
 */

/*
 * lock_for_look: locks tables, their partitions and indexes for reading until the
 * transaction ends, without waiting.
 * Result: NULL, or the name of one that can't be had.
 */
CREATE FUNCTION event_queue_internal.lock_for_look(tables text[]) RETURNS text
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_lock_for_look';
COMMENT ON FUNCTION event_queue_internal.lock_for_look(text[]) IS
'For health(): Locks tables for reading without waiting; the name of one that can not be locked now, or NULL.';

/* scheduler_overdue: for how long the next cycle of the scheduler is overdue; NULL: it is not. */
CREATE FUNCTION event_queue_internal.scheduler_overdue() RETURNS interval
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_scheduler_overdue';
COMMENT ON FUNCTION event_queue_internal.scheduler_overdue() IS
'For health(): For how long the scheduler has not shown that it is alive; NULL if it has, or there is none.';

/* executor_overdue: for how long an executor has not run since it was woken; NULL: none hangs. */
CREATE FUNCTION event_queue_internal.executor_overdue(pid int) RETURNS interval
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_executor_overdue';
COMMENT ON FUNCTION event_queue_internal.executor_overdue(int) IS
'For health(): For how long an executor has not shown that it is alive though it was woken; NULL if it has.';

/* session_began: since when a session of this database has its transaction open; for all callers. */
CREATE FUNCTION event_queue_internal.session_began(pid int) RETURNS timestamptz
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_session_began';
COMMENT ON FUNCTION event_queue_internal.session_began(int) IS 'For views. Since when a session of this database has its transaction open.';

/* sees_all: may the caller see sessions of all tenants?  False if that can't be known without waiting. */
CREATE FUNCTION event_queue_internal.sees_all() RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF event_queue_internal.lock_for_look('{tenant_role}') IS NOT NULL THEN
		RETURN false;
	END IF;
	RETURN event_queue.current_tenant() IS NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.sees_all() IS 'For health(): Whether the caller may see sessions of all tenants.';

/* session_label: application and role of a session; empty if the caller is confined to a tenant. */
CREATE FUNCTION event_queue_internal.session_label(pid int) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT ' (' || nullif(concat_ws(', ', 'application ' || quote_ident(nullif(a.application_name, '')), 'role ' || quote_ident(a.usename)), '') || ')'
	FROM pg_stat_activity a WHERE a.pid = $1 AND event_queue_internal.sees_all()
$$;
COMMENT ON FUNCTION event_queue_internal.session_label(int) IS 'For health(): Application and role of a session.';

/*
 * holder_of: who has a row in hand, by its xmax.
 * Result: one row if that transaction is open: who, with its application if the caller may see it,
 * and what ends it.
 */
CREATE FUNCTION event_queue_internal.holder_of(xmax xid, OUT who text, OUT hint text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce('session ' || l.pid || coalesce(event_queue_internal.session_label(l.pid), ''), 'a prepared transaction'),
		coalesce(format('SELECT pg_terminate_backend(%s)', l.pid) , 'SELECT * FROM pg_prepared_xacts')
	FROM pg_locks l
	WHERE l.locktype = 'transactionid' AND l.transactionid = $1 AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
$$;
COMMENT ON FUNCTION event_queue_internal.holder_of(xid) IS 'For health(): Whose open transaction has a row in hand, and what ends it.';

/* stuck_after: event_queue.stuck_after: after this, what waits or is held open is a fault. */
CREATE FUNCTION event_queue_internal.stuck_after() RETURNS interval
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT current_setting('event_queue.stuck_after')::interval
$$;
COMMENT ON FUNCTION event_queue_internal.stuck_after() IS 'For health(): After this, what waits or is held open is a fault.';

/* any_leased: is any of the first jobs of each priority of a queue leased, of any tenant? */
CREATE FUNCTION event_queue_internal.any_leased(queue_id int, look_at int) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_any_leased_sql';
COMMENT ON FUNCTION event_queue_internal.any_leased(int, int) IS 'For health(): Whether any job of a queue is leased.';

/* cron_fault: why a cron expression or its time zone can't be read; NULL if it can. */
CREATE FUNCTION event_queue_internal.cron_fault(expression text, time_zone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.cron_next($1, $2);
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLERRM;
END
$$;
COMMENT ON FUNCTION event_queue_internal.cron_fault(text, text) IS 'For health(): Why a cron expression or its time zone can not be read.';

/* Is there a function of this qualified name and these types of arguments? */
CREATE FUNCTION event_queue_internal.function_is_here(name text, VARIADIC arguments regtype[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, parse_ident($1) i
		WHERE n.nspname = i[1] AND p.proname = i[2] AND p.proargtypes::text = array_to_string($2::oid[], ' '))
$$;
COMMENT ON FUNCTION event_queue_internal.function_is_here(text, regtype[]) IS 'For health(): Whether a function of this name and these types exists.';

/*
 * health: checks the whole system: one line per check, ok if nothing is wrong.
 * Result: what was looked at, whether it is well, how it stands, and what to do if
 * it is not.  Never waits for a lock; a table that is locked has a line that says so.
 * Example:
 *	SELECT check_name, detail, hint FROM event_queue.health() WHERE NOT ok;
 */
CREATE FUNCTION health(OUT check_name text, OUT ok boolean, OUT detail text, OUT hint text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	part record;
	locked text;
BEGIN
	FOR part IN SELECT * FROM (VALUES
		-- Name, tables that are read (row security reads tenant_role), and the lines.
		('store', '{activation}'::text[], $q$
			SELECT 'store', s.state = 'active', CASE WHEN s.state = 'active' THEN 'in service'
				ELSE 'a copy that is not in service: nothing runs' END,
				'When it is complete: SELECT event_queue.activate()'
			FROM (SELECT event_queue.activation_state()) AS s (state) $q$),
		('scheduler', '{}', $q$
			SELECT 'scheduler', pg_is_in_recovery() OR (count(*) = 1 AND event_queue_internal.scheduler_overdue() IS NULL),
				CASE WHEN pg_is_in_recovery() THEN 'none on a standby'
					ELSE concat(count(*), ' running', ', no sign of life for ' || event_queue_internal.scheduler_overdue()) END,
				CASE WHEN event_queue_internal.scheduler_overdue() IS NOT NULL
					THEN format('SELECT pg_terminate_backend(%s); it comes back by itself', max(w.pid))
					WHEN count(*) = 0 THEN 'SELECT name, setting FROM pg_settings WHERE name IN (''event_queue.databases'', ''max_worker_processes''); see the server''s log' END
			FROM event_queue.workers() w WHERE w.kind = 'scheduler' $q$),
		('executors', '{}', $q$
			SELECT 'executors', pg_is_in_recovery() OR (count(*) >= current_setting('event_queue.executors')::int AND count(o.late) = 0),
				CASE WHEN pg_is_in_recovery() THEN 'none on a standby'
					ELSE concat(format('%s of %s running, %s busy', count(*), current_setting('event_queue.executors'), count(w.current_job)),
						', no sign of life of ' || string_agg(format('%s for %s', w.pid, o.late), ', ' ORDER BY w.pid) FILTER (WHERE o.late IS NOT NULL)) END,
				CASE WHEN count(o.late) > 0 THEN format('SELECT pg_terminate_backend(%s); another one comes by itself', min(w.pid) FILTER (WHERE o.late IS NOT NULL))
					ELSE 'They start a second after CREATE EXTENSION or activate(): see line "store"; if they don''t, see the server''s log' END
			FROM event_queue.workers() w, event_queue_internal.executor_overdue(w.pid) AS o (late) WHERE w.kind = 'executor' $q$),
		('faults', '{tenant_role}', $q$
			SELECT concat_ws(' ', f.what, f.item), false,
				concat(coalesce(f.message, 'fails'), format(' (%s), %s times since %s', f.sqlstate, f.failures, f.since::timestamptz(0)),
					', tried again at ' || f.retry_at::timestamptz(0)),
				f.hint
			FROM event_queue.faults() f WHERE f.sqlstate <> '55P03' OR f.failures >= 3
			UNION ALL
			SELECT 'faults', true, 'none', NULL
			WHERE NOT EXISTS (SELECT FROM event_queue.faults() f WHERE f.sqlstate <> '55P03' OR f.failures >= 3) $q$),
		('locks', '{}', $q$
			WITH mine AS MATERIALIZED (
				SELECT w.pid, w.kind FROM event_queue.workers() w
			), ours AS MATERIALIZED (
				SELECT l.pid, l.relation, c.relname, l.mode, l.granted,
					l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AS strong
				FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
				  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
				  AND n.nspname IN ('event_queue', 'event_queue_internal') AND c.relkind IN ('r', 'p')
				  AND NOT EXISTS (SELECT FROM mine m WHERE m.pid = l.pid)
			), held AS MATERIALIZED (
				SELECT o.pid, string_agg(DISTINCT o.mode, ', ') AS modes, array_agg(DISTINCT o.relation) AS relations,
					string_agg(DISTINCT o.relname, ', ') AS tables
				FROM ours o WHERE o.strong AND o.granted
				GROUP BY o.pid
			), wanted AS MATERIALIZED (
				-- a session that waits for such a lock blocks all later ones
				SELECT o.pid, o.mode, o.relname, o.relation, b.pids
				FROM ours o CROSS JOIN LATERAL (SELECT pg_blocking_pids(o.pid)) b (pids)
				WHERE o.strong AND NOT o.granted AND NOT EXISTS (SELECT FROM held h WHERE coalesce(h.pid, 0) = ANY (b.pids))
			), rows AS MATERIALIZED (
				-- locks on rows are not in pg_locks: their holders are those for whom workers wait, ...
				SELECT b.pid, NULL AS tables, string_agg(DISTINCT format('%s %s', m.kind, m.pid), ', ') AS workers
				FROM mine m JOIN pg_locks l ON l.pid = m.pid CROSS JOIN LATERAL unnest(pg_blocking_pids(m.pid)) AS b (pid)
				WHERE NOT l.granted AND l.waitstart < clock_timestamp()
					- CASE WHEN m.kind IN ('executor', 'stand-in') THEN interval '5 seconds' ELSE interval '1 second' END
				  AND NOT EXISTS (SELECT FROM mine x WHERE x.pid = b.pid) AND NOT EXISTS (SELECT FROM wanted x WHERE x.pid = b.pid)
				  AND NOT EXISTS (SELECT FROM held x WHERE coalesce(x.pid, 0) = b.pid)
				GROUP BY b.pid
				UNION ALL
				-- ... or, as chores give up soon, probably sessions that have written or locked rows
				SELECT coalesce(o.pid, 0), string_agg(DISTINCT o.relname, ', '), NULL
				FROM ours o
				WHERE o.granted AND o.mode IN ('RowShareLock', 'RowExclusiveLock')
				  AND NOT EXISTS (SELECT FROM held) AND NOT EXISTS (SELECT FROM wanted)
				  AND coalesce(event_queue_internal.session_began(o.pid) < clock_timestamp() - interval '1 second', o.pid IS NULL)
				  AND EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'transactionid' AND l.pid IS NOT DISTINCT FROM o.pid AND l.mode = 'ExclusiveLock' AND l.granted)
				  AND CASE WHEN event_queue_internal.sees_all() THEN EXISTS (SELECT FROM event_queue.faults() f WHERE f.sqlstate = '55P03' AND f.failures >= 3) END
				GROUP BY o.pid
			)
			SELECT 'locks', false,
				concat(coalesce('session ' || h.pid, 'a prepared transaction'), ' holds ', h.modes, ' on ', h.tables,
					' since ' || event_queue_internal.session_began(h.pid)::timestamptz(0), ', ',
					(SELECT count(*) FROM pg_locks w WHERE NOT w.granted AND w.relation = ANY (h.relations)), ' waiting',
					event_queue_internal.session_label(h.pid)),
				CASE WHEN h.pid IS NULL THEN 'SELECT * FROM pg_prepared_xacts'
					WHEN NOT pg_is_in_recovery() THEN format('SELECT pg_terminate_backend(%s)', h.pid) END
			FROM held h
			UNION ALL
			SELECT 'locks', false,
				format('session %s waits for %s on %s%s, behind %s%s, and %s behind it', w.pid, w.mode, w.relname, event_queue_internal.session_label(w.pid),
					CASE w.pids[1] WHEN 0 THEN 'a prepared transaction' ELSE 'session ' || w.pids[1] END, event_queue_internal.session_label(w.pids[1]),
					(SELECT count(*) FROM pg_locks x WHERE NOT x.granted AND x.relation = w.relation AND x.pid <> w.pid)),
				format('SELECT pg_cancel_backend(%s), and the others go on; %s, and it does', w.pid,
					CASE w.pids[1] WHEN 0 THEN 'end that of pg_prepared_xacts' ELSE format('SELECT pg_terminate_backend(%s)', w.pids[1]) END)
			FROM wanted w WHERE w.pids <> '{}'
			UNION ALL
			SELECT 'locks', false,
				concat(CASE r.pid WHEN 0 THEN 'a prepared transaction' ELSE 'session ' || r.pid END,
					' holds up ' || string_agg(r.workers, ', '), ', has written or locked rows of ' || string_agg(r.tables, ', '),
					', its transaction is open since ' || event_queue_internal.session_began(r.pid)::timestamptz(0), event_queue_internal.session_label(r.pid)),
				CASE r.pid WHEN 0 THEN 'SELECT * FROM pg_prepared_xacts' ELSE format('SELECT pg_terminate_backend(%s)', r.pid) END
			FROM rows r GROUP BY r.pid
			UNION ALL
			SELECT 'locks', true, 'none', NULL
			WHERE NOT EXISTS (SELECT FROM held) AND NOT EXISTS (SELECT FROM wanted w WHERE w.pids <> '{}') AND NOT EXISTS (SELECT FROM rows) $q$),
		('shared memory', '{}', $q$
			SELECT 'shared memory', p.without = 0 AND p.leases < p.max_leases * 3 / 4 AND m.used < m.max_members * 3 / 4,
				CASE WHEN event_queue_internal.is_unbound() THEN format('%s of %s slots for queues and channels, %s of %s for leases of queues with max_concurrency, %s of %s for members of subscriptions, %s without a slot',
					p.slots, p.max_slots, p.leases, p.max_leases, m.used, m.max_members, p.without) ELSE 'counted for all tenants' END,
				CASE WHEN p.without > 0 THEN 'Raise event_queue.max_queues and restart the server'
					WHEN m.used >= m.max_members * 3 / 4 THEN 'Raise event_queue.max_subscription_members and restart the server'
					ELSE 'Raise event_queue.max_limited_leases and restart the server' END
			FROM event_queue_internal.shared_memory_use() p, event_queue_internal.member_use() m $q$),
		('metrics', '{metric_state}', $q$
			SELECT 'metrics', pg_is_in_recovery() OR (coalesce(s.at > clock_timestamp() - '3 minutes'::interval, false)
					AND coalesce(p.last_at < clock_timestamp() - '1 hour'::interval, true)),
				concat_ws(', ', coalesce('sampled ' || s.at::timestamptz(0), 'not sampled yet'), 'complete since ' || m.complete_since::timestamptz(0),
					CASE WHEN event_queue_internal.is_unbound() THEN format('%s of %s series for job names, %s of %s for tenants', p.jobs, p.max_jobs, p.tenants, p.max_tenants) END),
				CASE WHEN p.last_at > clock_timestamp() - '1 hour'::interval AND p.no_room > 0 AND p.jobs > p.max_jobs * 3 / 4
						THEN 'Figures of some job names are added up as "other": raise event_queue.max_job_stats and restart the server'
					WHEN p.last_at > clock_timestamp() - '1 hour'::interval AND p.no_tenants > 0
						THEN 'Figures of some tenants are added up as "other": raise event_queue.max_tenant_stats and restart the server'
					WHEN s.at IS NULL THEN 'The first sample comes within a minute; if it doesn''t, see lines "store", "scheduler" and "faults"'
					ELSE 'See lines "scheduler" and "faults"' END
			FROM event_queue_internal.series_use() p CROSS JOIN (SELECT event_queue_internal.sampled_at()) AS s (at)
			LEFT JOIN event_queue_internal.metric_state m ON true $q$),
		('open appends', '{}', $q$
			SELECT 'open appends', coalesce(clock_timestamp() - min(b.began) < '1 minute', true),
				coalesce('oldest open for ' || (clock_timestamp() - min(b.began)) || ', the watermark is held by session '
					|| (array_agg(o.pid ORDER BY o.lowest_position))[1]
					|| coalesce(event_queue_internal.session_label((array_agg(o.pid ORDER BY o.lowest_position))[1]), ''), 'none'),
				format('Readers of events wait for it: SELECT pg_terminate_backend(%s)', (array_agg(o.pid ORDER BY o.lowest_position))[1])
			FROM event_queue_internal.open_appends() o, event_queue_internal.session_began(o.pid) AS b (began) $q$),
		-- What a snapshot may still see is not removed: finished jobs stay in the indexes.
		('xmin horizon', '{}', $q$
			WITH held AS (
				SELECT concat('session ', a.pid, event_queue_internal.session_label(a.pid)) AS who,
					'has its transaction open since ' || a.xact_start::timestamptz(0) AS since,
					format('SELECT pg_terminate_backend(%s)', a.pid) AS hint
				FROM pg_stat_activity a
				WHERE coalesce(a.backend_xmin, a.backend_xid) IS NOT NULL AND a.datname = current_database()
				  AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
				  AND a.pid NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum v)
				  -- a session that waits for a lock is blocked by another one, which is to be ended
				  AND a.wait_event_type IS DISTINCT FROM 'Lock'
				  AND a.xact_start < clock_timestamp() - event_queue_internal.stuck_after()
				UNION ALL
				SELECT 'prepared transaction' || CASE WHEN event_queue_internal.sees_all() THEN format(' "%s"', p.gid) ELSE '' END,
					'is open since ' || p.prepared::timestamptz(0),
					CASE WHEN event_queue_internal.sees_all() THEN format('COMMIT PREPARED %L, or ROLLBACK PREPARED %L', p.gid, p.gid)
						ELSE 'SELECT * FROM pg_prepared_xacts' END
				FROM pg_prepared_xacts p
				WHERE p.database = current_database() AND p.prepared < clock_timestamp() - event_queue_internal.stuck_after()
				UNION ALL
				SELECT format('replication slot "%s"', s.slot_name),
					concat('stands ', greatest(age(s.xmin), age(s.catalog_xmin)), ' transactions behind', CASE WHEN NOT s.active THEN ', and no one reads it' END),
					CASE WHEN s.active THEN 'End long queries on the standby, or set hot_standby_feedback off there'
						ELSE format('Start its reader, or SELECT pg_drop_replication_slot(%L)', s.slot_name) END
				FROM pg_replication_slots s
				WHERE coalesce(s.database, current_database()) = current_database()
				  AND CASE WHEN s.active THEN age(s.xmin) > 1000000 ELSE greatest(age(s.xmin), age(s.catalog_xmin)) > 10000 END
				UNION ALL
				SELECT format('standby "%s"', r.application_name), format('stands %s transactions behind', age(r.backend_xmin)),
					'End long queries there, or set hot_standby_feedback off there'
				FROM pg_stat_replication r WHERE age(r.backend_xmin) > 1000000)
			SELECT 'xmin horizon', false, format('%s %s: rows that were deleted since are not removed', h.who, h.since), h.hint FROM held h
			UNION ALL
			SELECT 'xmin horizon', true, 'not held', NULL WHERE NOT EXISTS (SELECT FROM held) $q$),
		('rules', '{tenant_role,rule,rule_checkpoint,event_partition,event_store}', $q$
			SELECT 'rules', (c.position IS NOT NULL OR r.first IS NULL) AND b.n < 10000
					AND coalesce(clock_timestamp() - b.oldest < '1 minute', true),
				CASE WHEN c.position IS NULL AND r.first IS NOT NULL THEN 'wait, as their checkpoint is missing'
					ELSE concat(b.n, ' events behind', ', the first came ' || (clock_timestamp() - b.oldest) || ' ago') END,
				CASE WHEN c.position IS NULL THEN
					'If no restore is under way, insert the position of the last event that they have seen into event_queue_internal.rule_checkpoint'
					ELSE 'SELECT * FROM event_queue.rule_stats; and see lines "locks" and "rule runner"' END
			FROM (SELECT min(x.start_position) FROM event_queue.rule x WHERE x.enabled
				AND event_queue.tenant_visible(x.tenant_id)) AS r (first)
			LEFT JOIN event_queue_internal.rule_checkpoint c ON true
			CROSS JOIN LATERAL (SELECT count(*), min(e.created_at) FROM (
				SELECT x.created_at FROM event_queue.event_store x
				WHERE x.position > greatest(c.position, r.first) AND x.position <= (SELECT event_queue.watermark())
				  AND r.first IS NOT NULL AND event_queue.tenant_visible(x.tenant_id) LIMIT 10000) e) AS b (n, oldest) $q$),
		('loops of rules', '{tenant_role,rule,rule_count,rule_count_change}', $q$
			WITH x AS (
				SELECT r.name, coalesce(n.suppressed, 0) + coalesce(c.suppressed, 0) AS suppressed,
					coalesce(n.too_deep, 0) + coalesce(c.too_deep, 0) AS too_deep,
					greatest(n.last_too_deep_at, c.last_too_deep_at) AS last_too_deep_at
				FROM event_queue.rule r LEFT JOIN event_queue_internal.rule_count n USING (rule_id)
				LEFT JOIN (SELECT y.rule_id, sum(y.suppressed) AS suppressed, sum(y.too_deep) AS too_deep,
						max(y.at) FILTER (WHERE y.too_deep > 0) AS last_too_deep_at
					FROM event_queue_internal.rule_count_change y GROUP BY 1) c USING (rule_id)
				WHERE event_queue.tenant_visible(r.tenant_id))
			SELECT format('rule %s', x.name), false,
				format('did not fire %s times, the last at %s: %s rules had led to the event', x.too_deep, x.last_too_deep_at::timestamptz(0),
					current_setting('event_queue.rule_depth')),
				'See event_queue.trace of such an event; if the chain is meant to be so long, raise event_queue.rule_depth'
			FROM x WHERE x.last_too_deep_at > clock_timestamp() - '1 hour'::interval
			UNION ALL
			SELECT 'loops of rules', true, CASE WHEN sum(x.suppressed) > 0
				THEN format('%s firings were suppressed, as the rule had led to the event: %s', sum(x.suppressed),
					string_agg(format('%s (%s)', x.name, x.suppressed), ', ' ORDER BY x.suppressed DESC, x.name) FILTER (WHERE x.place <= 5 AND x.suppressed > 0))
				ELSE 'none' END, NULL
			FROM (SELECT y.*, row_number() OVER (ORDER BY y.suppressed DESC, y.name) AS place FROM x y) x $q$),
		('targets of rules', '{tenant_role,rule,queue}', $q$
			SELECT format('rule %s', r.name), false,
				CASE WHEN q.queue_id IS NULL AND r.queue_id IS NOT NULL THEN 'its queue does not exist'
					WHEN q.draining THEN format('its queue "%s" is being drained', q.name)
					WHEN t.is_lost THEN format('table %s has not all of its triggers, or they are off', r.on_table)
					ELSE format('its function %s does not exist', r.function) END,
				CASE WHEN q.draining THEN format('SELECT event_queue.resume_queue(%L)', q.name)
					WHEN t.is_lost THEN format('Create it again by create_rule(%L, ..., or_replace => true), or SELECT event_queue.drop_rule(%L)', r.name, r.name)
					ELSE format('SELECT event_queue.drop_rule(%L), or create what it needs', r.name) END
			FROM event_queue.rule r LEFT JOIN event_queue.queue q USING (queue_id),
				LATERAL (SELECT r.on_table IS NOT NULL AND NOT event_queue_internal.table_is_watched(r.rule_id, r.on_change)) t (is_lost)
			WHERE r.enabled AND event_queue.tenant_visible(r.tenant_id) AND (q.draining OR (q.queue_id IS NULL AND r.queue_id IS NOT NULL) OR t.is_lost
				OR (r.function IS NOT NULL AND NOT event_queue_internal.function_is_here(r.function, 'event_queue.event_store'))) $q$),
		('schedules', '{tenant_role,schedule,queue}', $q$
			SELECT format('schedule %s', s.name), false,
				coalesce(c.fault, CASE WHEN q.queue_id IS NULL THEN 'its queue does not exist'
					WHEN q.draining THEN format('its queue "%s" is being drained', q.name)
					ELSE concat(format('has been due for %s', clock_timestamp() - s.next_run), ', its row is held by ' || o.who) END),
				CASE WHEN c.fault IS NULL AND q.draining THEN format('SELECT event_queue.resume_queue(%L)', q.name)
					WHEN c.fault IS NULL AND q.queue_id IS NOT NULL THEN coalesce(o.hint, 'See lines "scheduler" and "locks"')
					ELSE format('SELECT event_queue.drop_schedule(%L), and create_schedule it anew', s.name) END
			FROM (SELECT x.*, x.xmax AS holder FROM event_queue.schedule x) s LEFT JOIN event_queue.queue q USING (queue_id)
				CROSS JOIN event_queue_internal.cron_fault(s.cron, s.time_zone) AS c (fault)
				LEFT JOIN LATERAL event_queue_internal.holder_of(s.holder) o ON true
			WHERE s.enabled AND event_queue.tenant_visible(s.tenant_id) AND (c.fault IS NOT NULL OR q.queue_id IS NULL OR q.draining OR s.next_run < clock_timestamp() - '1 minute'::interval)
			  AND NOT EXISTS (SELECT FROM event_queue.faults() f WHERE f.what = 'schedule' AND f.item = s.name) $q$),
		('retention', '{partition_policy}', $q$
			SELECT 'retention', false, format('schema "%s" of archived events does not exist', p.archive_schema),
				format('CREATE SCHEMA %I', p.archive_schema)
			FROM event_queue_internal.partition_policy p
			WHERE p.keep IS NOT NULL AND NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = p.archive_schema)
			  AND p.archive_schema IS NOT NULL $q$),
		('reducers', '{reducer}', $q$
			SELECT format('reducer of %s', r.aggregate_type), false, format('its function %s does not exist', r.function),
				format('Create it, or SELECT event_queue.drop_reducer(%L)', r.aggregate_type)
			FROM event_queue.reducer r
			WHERE r.function IS NOT NULL AND NOT event_queue_internal.function_is_here(r.function, 'jsonb', 'event_queue.event_store') $q$),
		('handlers', '{handler,queue}', $q$
			SELECT format('handler of %s, %s', q.name, h.job_name), false, format('its function %s does not exist', h.function),
				format('Create it, or SELECT event_queue.drop_handler(%L, %L)', q.name, h.job_name)
			FROM event_queue.handler h JOIN event_queue.queue q USING (queue_id)
			WHERE NOT event_queue_internal.function_is_here(h.function, CASE WHEN h.batch_size IS NULL THEN 'event_queue.claimed_job'::regtype ELSE 'event_queue.claimed_job[]' END)
			  AND NOT EXISTS (SELECT FROM event_queue.faults() f
				WHERE f.what = 'handler' AND f.item = concat(q.name, '/', h.job_name)) $q$),
		('subscriptions', '{tenant_role,subscription,subscription_bucket,subscription_parked,event_partition,event_store}', $q$
			SELECT format('subscription %s', s.name), false,
				concat_ws(', ', nullif(k.n, 0) || ' events parked', 'nothing fetched since ' || b.moved_at::timestamptz(0)
					|| ', an event has waited for ' || (clock_timestamp() - e.created_at)),
				CASE WHEN k.n > 0 THEN format('SELECT * FROM event_queue.fetch_parked(%L); then ack_parked, retry_parked or discard_parked', s.name)
					ELSE format('Start its consumer, or SELECT event_queue.drop_subscription(%L)', s.name) END
			FROM event_queue.subscription s
			CROSS JOIN LATERAL (SELECT count(*) FROM event_queue_internal.subscription_parked p
				WHERE p.subscription_id = s.subscription_id) AS k (n)
			CROSS JOIN LATERAL (SELECT min(x.position), max(x.moved_at) FROM event_queue_internal.subscription_bucket x
				WHERE x.subscription_id = s.subscription_id) AS b (position, moved_at)
			LEFT JOIN LATERAL (SELECT x.created_at FROM event_queue.event_store x
				WHERE x.position > b.position AND x.position <= (SELECT event_queue.watermark())
				  AND x.tenant_id = coalesce(s.tenant_id, x.tenant_id)
				ORDER BY x.position LIMIT 1) e ON e.created_at < clock_timestamp() - interval '1 hour'
				AND b.moved_at < clock_timestamp() - interval '1 hour'
			WHERE event_queue.tenant_visible(s.tenant_id) AND (k.n > 0 OR e.created_at IS NOT NULL) $q$),
		('queues', '{tenant_role,queue,job,handler,metric_series}', $q$
			SELECT format('queue %s', s.queue),
				NOT (s.sla_missed OR s.dead > 0 OR s.depth IS NULL OR x.fails OR f.names IS NOT NULL OR x.starves OR x.waits),
				concat(CASE WHEN s.depth IS NULL THEN 'no place in shared memory'
						ELSE format('%s jobs, %s dead, oldest ready %s', s.depth, s.dead, coalesce((s.oldest_ready_seconds * interval '1 second')::text, 'none')) END,
					CASE WHEN s.paused THEN ', paused' END, CASE WHEN s.draining THEN ', draining' END,
					CASE WHEN x.fails THEN ', all attempts fail' ELSE ', all attempts of ' || f.names || ' fail' END, CASE WHEN x.starves THEN ', no executor is free' END,
					CASE WHEN x.waits AND NOT s.paused THEN ', nobody works on it' END),
				CASE WHEN s.depth IS NULL THEN 'Raise event_queue.max_queues and restart the server'
					WHEN s.paused AND (s.sla_missed OR x.waits) THEN format('SELECT event_queue.resume_queue(%L)', s.queue)
					WHEN x.fails THEN format('SELECT j.job_id, e.* FROM event_queue.jobs j, event_queue.explain_job(j.job_id) e WHERE j.queue = %L LIMIT 10', s.queue)
					WHEN f.names IS NOT NULL THEN format(
						'SELECT j.job_id, e.* FROM event_queue.jobs j, event_queue.explain_job(j.job_id) e WHERE j.queue = %L AND j.name = %L AND j.failures > 0 LIMIT 10', s.queue, f.name)
					WHEN x.starves AND b.executors = 0 THEN 'No executor runs: see lines "store", "scheduler" and "executors"'
					WHEN x.starves THEN format('SELECT * FROM event_queue.worker_stats shows what they do; ALTER SYSTEM SET event_queue.executors = %s, and SELECT pg_reload_conf()',
						least(b.executors * 2, 64))
					WHEN x.waits AND NOT x.handled THEN format(
						'Start its worker (one that calls event_queue.claim), or SELECT event_queue.create_handler(%L, ''*'', ''FUNCTION'')', s.queue)
					WHEN x.waits THEN format(
						'SELECT j.job_id, j.name, e.* FROM event_queue.next_jobs(%L, 5) j, event_queue.explain_job(j.job_id) e', s.queue)
					WHEN s.sla_missed THEN format('More workers are needed: SELECT * FROM event_queue.worker_stats WHERE queue = %L', s.queue)
					ELSE format('SELECT * FROM event_queue.dead_letters WHERE queue = %L; then retry_all_dead or discard_all_dead', s.queue) END
			FROM event_queue.queue_status s JOIN event_queue.queue q ON q.name = s.queue
			CROSS JOIN (SELECT count(*) <= count(w.current_job), count(*) FROM event_queue.workers() w WHERE w.kind = 'executor') AS b (busy, executors)
			CROSS JOIN LATERAL (SELECT q.queue_id <= 2 OR EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id)) AS k (handled)
			LEFT JOIN event_queue_internal.failing() f USING (queue_id)
			CROSS JOIN LATERAL (SELECT coalesce((s.failed_per_s > 0 OR f.whole) AND s.completed_per_s = 0 AND s.depth > 0, false),
				coalesce(b.busy AND s.oldest_ready_seconds > 5 AND NOT s.paused AND NOT pg_is_in_recovery()
					AND EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id), false),
				CASE WHEN s.oldest_ready_seconds > extract(epoch FROM event_queue_internal.stuck_after()) AND NOT pg_is_in_recovery()
					THEN s.paused OR (coalesce(s.completed_per_s + s.failed_per_s, 0) = 0 AND NOT event_queue_internal.any_leased(q.queue_id, 1000))
					ELSE false END, k.handled) AS x (fails, starves, waits, handled)
			WHERE event_queue_internal.is_unbound() -- these are figures of all tenants
			ORDER BY s.queue $q$)
		) AS parts (name, tables, query)
	LOOP
		BEGIN
			locked := event_queue_internal.lock_for_look(part.tables);
			IF locked IS NULL THEN
				RETURN QUERY EXECUTE format('SELECT check_name, coalesce(ok, false), detail, CASE WHEN NOT coalesce(ok, false) THEN hint END
					FROM (%s) AS lines (check_name, ok, detail, hint)', part.query);
				CONTINUE;
			END IF;
			RETURN QUERY SELECT part.name, false, format('can''t look: %s is locked', locked),
				'See line "locks"; pg_blocking_pids() names who waits for whom';
		EXCEPTION WHEN OTHERS THEN
			RETURN QUERY SELECT part.name, false, format('can''t look: %s (%s)', SQLERRM, SQLSTATE), NULL::text;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION health() IS
'One line for each check, with what to do where it is not ok: workers, what fails, locks, open appends, rules, schedules, subscriptions, and each queue. Never waits for a lock.';
