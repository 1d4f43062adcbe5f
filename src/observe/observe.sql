/*
 * observe.sql: views for operators.  Nothing here counts rows: counters are in shared
 * memory, follow commits, and except depth and dead start at zero with the server; ages are
 * read at the front of the index that claims walk.
 */

/*
 * queue_counters: what happened since the server started, counted at commit.
 */
CREATE FUNCTION event_queue_internal.queue_counters(
	OUT queue_id int, OUT enqueued bigint, OUT claimed bigint, OUT completed bigint,
	OUT failed bigint, OUT released bigint, OUT stalled bigint, OUT dead bigint,
	OUT cancelled bigint, OUT late bigint, OUT wait_ms float8, OUT run_ms float8)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_queue_counters';
COMMENT ON FUNCTION event_queue_internal.queue_counters() IS
'For views. Per queue, since the server started: jobs enqueued, claimed, completed, failed, released, stalled, dead, cancelled, completed past the SLA, and the summed wait and run times in milliseconds.';

/*
 * queue_depth: how many jobs and dead letters a queue has, when the first job of
 * those that can be claimed came due, and the jobs enqueued, completed and failed
 * per second over the last minute (or since the queue was first used after the
 * server's start, but over one second at least).  Nothing is counted for it.
 */
CREATE FUNCTION event_queue_internal.queue_depth(
	queue_id int, OUT depth bigint, OUT oldest_ready timestamptz, OUT dead bigint,
	OUT enqueued_per_s float8, OUT completed_per_s float8, OUT failed_per_s float8)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_queue_depth';
COMMENT ON FUNCTION event_queue_internal.queue_depth(int) IS
'For views. How many jobs and dead letters a queue has, when the first job that can be claimed came due, and its rates; from counters.';

/*
 * count_due, count_scheduled: how many jobs of a queue are due and not leased, and how
 * many are for later (delayed, or waiting for their next attempt); at most look_at, so
 * that a queue of any length takes a few milliseconds.  STABLE so that views don't call
 * them for who does not ask.
 */
CREATE FUNCTION event_queue_internal.count_due(queue_id int, look_at int) RETURNS bigint
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_count_due_sql';
COMMENT ON FUNCTION event_queue_internal.count_due(int, int) IS
'For views. How many jobs of a queue are due and not leased, at most so many.';

CREATE FUNCTION event_queue_internal.count_scheduled(queue_id int, look_at int) RETURNS bigint
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'eq_count_scheduled_sql';
COMMENT ON FUNCTION event_queue_internal.count_scheduled(int, int) IS
'For views. How many jobs of a queue are not due yet, at most so many.';

CREATE FUNCTION event_queue_internal.all_queue_limits(queue_id int, OUT tokens float8, OUT active bigint, OUT jobs bigint[], OUT held_until timestamptz)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_queue_limits';
COMMENT ON FUNCTION event_queue_internal.all_queue_limits(int) IS 'Internal. queue_limits with the jobs of all tenants.';

CREATE FUNCTION event_queue_internal.held_until(queue_id int) RETURNS timestamptz
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_held_until';
COMMENT ON FUNCTION event_queue_internal.held_until(int) IS 'Internal. Until when nobody claims from a queue (postpone_queue).';

/*
 * queue_limits: what a queue's limits leave now.
 * Result:
 * - tokens: that rate_limit leaves; NULL without rate_limit.
 * - active, jobs: how many leased jobs count for max_concurrency, and up to 100 of them; NULL
 *   without it.
 * - held_until: no job is claimed before, since postpone_queue was called; NULL otherwise.
 *
 * A session that is confined to a tenant sees only the jobs of its tenant; if its role binds it,
 * neither tokens nor the number.
 * Errors: EQ006 no name, EQ010 no such queue.
 * Example:
 *	SELECT tokens, active FROM event_queue.queue_limits('mail');
 */
CREATE FUNCTION queue_limits(queue text, OUT tokens float8, OUT active bigint, OUT jobs bigint[], OUT held_until timestamptz)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT CASE WHEN event_queue_internal.is_unbound() THEN l.tokens END, CASE WHEN event_queue_internal.is_unbound() THEN l.active END, CASE
		WHEN l.jobs IS NULL OR event_queue.current_tenant() IS NULL THEN l.jobs
		ELSE ARRAY(SELECT j.job_id FROM event_queue.job j
			WHERE j.job_id = ANY (l.jobs) AND event_queue.tenant_visible(j.tenant_id) ORDER BY j.job_id) END,
		l.held_until
	FROM event_queue_internal.all_queue_limits(event_queue_internal.queue_id_of($1)) l
$$;
COMMENT ON FUNCTION queue_limits(text) IS
'Tokens that a queue''s rate_limit leaves now, how many leased jobs count for its max_concurrency, up to 100 of them, and until when postpone_queue holds it.';

CREATE VIEW queue_status WITH (security_invoker = true) AS
	SELECT q.name AS queue, q.paused, q.draining, d.depth, d.dead,
		extract(epoch FROM clock_timestamp() - d.oldest_ready)::double precision AS oldest_ready_seconds,
		extract(epoch FROM q.sla)::double precision AS sla_seconds,
		CASE WHEN a.shown THEN coalesce(clock_timestamp() - d.oldest_ready > q.sla, false) END AS sla_missed,
		CASE WHEN a.shown THEN coalesce(c.enqueued, 0) END AS enqueued_total, CASE WHEN a.shown THEN coalesce(c.claimed, 0) END AS claimed_total,
		CASE WHEN a.shown THEN coalesce(c.completed, 0) END AS completed_total, CASE WHEN a.shown THEN coalesce(c.failed, 0) END AS failed_total,
		CASE WHEN a.shown THEN coalesce(c.stalled, 0) END AS stalled_total, CASE WHEN a.shown THEN coalesce(c.dead, 0) END AS dead_total,
		CASE WHEN a.shown THEN coalesce(c.cancelled, 0) END AS cancelled_total, CASE WHEN a.shown THEN coalesce(c.late, 0) END AS late_total,
		c.wait_ms / nullif(c.claimed, 0) AS avg_wait_ms, c.run_ms / nullif(c.completed, 0) AS avg_run_ms,
		d.enqueued_per_s, d.completed_per_s, d.failed_per_s,
		-- counted to 10000: more are "10000 or more"
		event_queue_internal.count_due(q.queue_id, 10000) AS due,
		event_queue_internal.count_scheduled(q.queue_id, 10000) AS scheduled
	FROM event_queue.queue q
	CROSS JOIN (SELECT event_queue_internal.is_unbound()) AS a (shown)
	CROSS JOIN LATERAL event_queue_internal.queue_depth(q.queue_id) d
	LEFT JOIN event_queue_internal.queue_counters() c USING (queue_id);
COMMENT ON VIEW queue_status IS
'Per queue: depth, what of it is due and what is scheduled (each counted to 10000), dead letters, age of the oldest ready job, SLA, totals since the server started, and rates of the last minute; of all tenants, so that who is bound to one is told NULL.';

CREATE VIEW queue_depths WITH (security_invoker = true) AS
	SELECT j.queue, j.state, count(*) AS jobs FROM event_queue.jobs j GROUP BY 1, 2;
COMMENT ON VIEW queue_depths IS 'Jobs of each queue by state, counted one by one: for people, not for dashboards.';

/*
 * explain_job: why a job is not running.
 * Result: a row for each reason, until when it holds if that is known, and what to look at; if
 * there is no reason, one row with the job's state.
 * Example:
 *	SELECT reason, until, detail FROM event_queue.explain_job(:job);
 */
CREATE FUNCTION explain_job(job_id bigint, OUT reason text, OUT until timestamptz, OUT detail text)
RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	j event_queue.job;
	q event_queue.queue;
	other record;
	key_until timestamptz;	-- when its group_key has a token
	n bigint := 0;
BEGIN
	SELECT x.* INTO j FROM event_queue.job x WHERE x.job_id = $1 AND event_queue.tenant_visible(x.tenant_id);
	IF NOT FOUND THEN
		RETURN QUERY
		SELECT 'dead letter', NULL::timestamptz, format('%s, died at %s: %s', d.reason, d.died_at, d.errors -> -1 ->> 'message')
		FROM event_queue.dead_letter d WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id)
		UNION ALL
		SELECT 'completed', NULL, format('at %s by %s', h.completed_at, h.leased_by)
		FROM event_queue.job_history h WHERE h.job_id = $1 AND event_queue.tenant_visible(h.tenant_id) AND h.expires_at > now();
		IF NOT FOUND THEN
			RETURN QUERY SELECT 'not there', NULL::timestamptz, 'finished and not kept, cancelled, purged, or never enqueued';
		END IF;
		RETURN;
	END IF;
	SELECT x.* INTO q FROM event_queue.queue x WHERE x.queue_id = j.queue_id;
	IF j.leased_until > clock_timestamp() THEN
		RETURN QUERY SELECT CASE WHEN j.cancel THEN 'running, cancel requested' ELSE 'running' END, j.leased_until,
			format('leased by %s since %s, attempt %s', j.leased_by, j.claimed_at, j.failures + 1);
		RETURN;
	END IF;
	IF j.leased_until IS NOT NULL THEN
		RETURN QUERY SELECT 'stalled', NULL::timestamptz, format('lease of %s ran out at %s; it is claimed again', j.leased_by, j.leased_until);
		n := n + 1;
	END IF;
	IF q.paused THEN
		RETURN QUERY SELECT 'queue paused', NULL::timestamptz, format('event_queue.resume_queue(%L)', q.name);
		n := n + 1;
	END IF;
	IF q.group_rate_limit IS NOT NULL AND j.group_key IS NOT NULL THEN
		key_until := (SELECT g.next_at - (q.group_rate_interval - q.group_rate_interval / q.group_rate_limit)
			FROM event_queue_internal.group_rate g
			WHERE g.queue_id = j.queue_id AND g.tenant_id = j.tenant_id AND g.group_key = j.group_key);
	END IF;
	IF key_until > clock_timestamp() THEN
		RETURN QUERY SELECT 'rate limited', key_until,
			format('key %s: %s in %s', j.group_key, q.group_rate_limit, q.group_rate_interval);
		n := n + 1;
	END IF;
	-- A claim that found no token for the key has set run_at: then it is not delayed besides.
	IF j.run_at > clock_timestamp() AND (j.failures > 0 OR key_until IS NULL OR j.run_at > key_until + '1 millisecond') THEN
		RETURN QUERY SELECT CASE WHEN j.failures > 0 THEN 'waits for its next attempt' ELSE 'delayed' END, j.run_at,
			CASE WHEN j.failures > 0 THEN format('after failure %s: %s', j.failures, j.errors -> -1 ->> 'message') END;
		n := n + 1;
	END IF;
	IF j.blocked = 2 THEN
		RETURN QUERY
		SELECT 'waits for a job that it depends on', NULL::timestamptz,
			format('job %s (%s): %s', d.depends_on, d.name, coalesce(
				(SELECT s.state FROM event_queue.jobs s WHERE s.job_id = d.depends_on),
				(SELECT 'dead letter' FROM event_queue.dead_letter l WHERE l.job_id = d.depends_on), 'finished'))
		FROM event_queue.job_dependency d WHERE d.job_id = $1 AND d.completed_at IS NULL ORDER BY d.depends_on LIMIT 10;
		n := n + 1;
	ELSIF j.blocked = 1 THEN
		RETURN QUERY
		SELECT 'group busy', o.leased_until, format('job %s of group %s%s', o.job_id, o.group_key,
			CASE WHEN o.leased_until > clock_timestamp() THEN ', leased by ' || o.leased_by
				 WHEN o.run_at > clock_timestamp() THEN format(', due at %s', o.run_at) ELSE ', ready' END)
		FROM event_queue.job o
		WHERE o.queue_id = j.queue_id AND o.tenant_id = j.tenant_id AND o.group_key = j.group_key AND o.blocked = 0
		ORDER BY o.job_id LIMIT 10;
		IF NOT FOUND THEN
			RETURN QUERY SELECT 'group about to go on', NULL::timestamptz, 'the scheduler has not yet looked at it';
		END IF;
		n := n + 1;
	END IF;
	SELECT l.* INTO other FROM event_queue.queue_limits(q.name) l;
	IF other.held_until IS NOT NULL THEN
		RETURN QUERY SELECT 'queue held', other.held_until, format('a handler or worker has called postpone_queue; event_queue.resume_queue(%L) ends it', q.name);
		n := n + 1;
	END IF;
	IF other.tokens < 1 THEN
		RETURN QUERY SELECT 'rate limited', clock_timestamp() + (1 - other.tokens) * q.rate_interval / q.rate_limit,
			format('%s in %s', q.rate_limit, q.rate_interval);
		n := n + 1;
	END IF;
	IF other.active >= q.max_concurrency THEN
		RETURN QUERY SELECT 'max_concurrency reached', NULL::timestamptz, concat(other.active, CASE other.active WHEN 1 THEN ' job of the queue is leased' ELSE ' jobs of the queue are leased' END,
			(SELECT ': ' || string_agg(format('job %s (%s) by %s', r.job_id, r.name, r.leased_by), ', ' ORDER BY r.claimed_at, r.job_id)
			 FROM (SELECT x.* FROM event_queue.job x
				WHERE x.job_id = ANY (other.jobs) AND x.leased_by IS NOT NULL AND event_queue.tenant_visible(x.tenant_id)
				ORDER BY x.claimed_at, x.job_id LIMIT 3) r),
			CASE WHEN other.active > 3 THEN ', ...' END);
		n := n + 1;
	END IF;
	IF q.queue_id > 2 AND NOT EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id AND h.job_name IN (j.name, '*'))
		AND EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id) THEN
		RETURN QUERY SELECT 'no handler', NULL::timestamptz,
			format('the queue has handlers for %s, none for %s; an outside worker may claim it',
				string_agg(h.job_name, ', ' ORDER BY h.job_name), j.name)
		FROM event_queue.handler h WHERE h.queue_id = q.queue_id;
		n := n + 1;
	END IF;
	IF n = 0 THEN
		RETURN QUERY SELECT 'ready', NULL::timestamptz, concat_ws('; ',
			format('the first of its queue has been due for %s', clock_timestamp() -
				(SELECT d.oldest_ready FROM event_queue_internal.queue_depth(q.queue_id) d)),
			CASE WHEN q.queue_id > 2 AND NOT EXISTS (SELECT FROM event_queue.handler h WHERE h.queue_id = q.queue_id)
				THEN 'no handler inside the database: it waits for an outside worker' END);
	END IF;
END
$$;
COMMENT ON FUNCTION explain_job(bigint) IS
'Why a job is not running: paused, delayed until, group busy with, waits for, rate limited until, ready, ...';

/*
 * workers: the extension's background processes in this database.
 * Example:
 *	SELECT pid, kind, current_job FROM event_queue.workers();
 */
CREATE FUNCTION workers(OUT pid int, OUT kind text, OUT jobs_done bigint, OUT current_job bigint)
RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_workers';
COMMENT ON FUNCTION workers() IS
'Background workers of this database: the scheduler, the rule runner, executors and those that stand in for them, the keeper; how many jobs each has run, and which one it runs now (both NULL for a role that is bound to a tenant).';

/*
 * shared_memory_use: how much of the shared memory of all databases is in use, and how
 * many queues and channels of this one have no slot.
 */
CREATE FUNCTION event_queue_internal.shared_memory_use(OUT slots int, OUT max_slots int, OUT without int, OUT leases int, OUT max_leases int)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_shared_memory_use';
COMMENT ON FUNCTION event_queue_internal.shared_memory_use() IS 'Internal. How much of the shared memory of all databases is in use.';
