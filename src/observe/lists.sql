/*
 * lists.sql: lists of jobs for people, each in one call.
 *
 * None of them counts or sorts a table: each walks an index from where the answer begins,
 * and ends after a given number of rows.  What a tenant's session sees is chosen from the
 * rows that were walked, by functions with the owner's rights (grants.sql), so that a walk
 * over another tenant's jobs ends, too.
 */

/*
 * walk_queue: the ids of jobs at the front of a queue.
 *
 * Over the index job_order, segment by segment (a lane and a priority), the first
 * lane being 0.  running: those that are leased.  A claim takes jobs from the front, so
 * they stand there; the walk of a segment ends after look_at jobs in a row that are
 * not leased.  Otherwise: those that wait, at most max_jobs of a segment that are due
 * and as many that are not yet.
 * Result: turn is the place of a job that is due among those of its lane.
 */
CREATE FUNCTION event_queue_internal.walk_queue(
	this_queue queue, running boolean, max_jobs int, look_at int, OUT job_id bigint, OUT turn int, OUT lane int)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
	at timestamptz := clock_timestamp();
	tenant text := event_queue.current_tenant();
	own_lane int := event_queue_internal.job_lane(this_queue.fair, tenant);	-- NULL: any
	segment record;
	j record;
	missed int;
	found_jobs int;
	lanes int := 0;
BEGIN
	lane := -1;
	FOR segment IN
		WITH RECURSIVE s AS (
			(SELECT x.lane, x.priority FROM event_queue.job x
			 WHERE x.queue_id = this_queue.queue_id AND x.blocked = 0 ORDER BY x.lane, x.priority LIMIT 1)
			UNION ALL
			SELECT n.lane, n.priority FROM s, LATERAL (
				SELECT x.lane, x.priority FROM event_queue.job x
				WHERE x.queue_id = this_queue.queue_id AND x.blocked = 0 AND (x.lane, x.priority) > (s.lane, s.priority)
				ORDER BY x.lane, x.priority LIMIT 1) n
		)
		SELECT s.lane, s.priority FROM s
	LOOP
		CONTINUE WHEN segment.lane > 0 AND segment.lane <> own_lane;
		IF segment.lane <> lane THEN
			-- each lane has a turn before the first has its second
			EXIT WHEN NOT running AND lanes > max_jobs;
			lanes := lanes + 1;
			turn := 0;
			lane := segment.lane;
		END IF;
		missed := 0;
		found_jobs := 0;
		FOR j IN
			SELECT x.job_id, x.tenant_id, coalesce(x.leased_until > at, false) AS leased FROM event_queue.job x
			WHERE x.queue_id = this_queue.queue_id AND x.lane = segment.lane AND x.priority = segment.priority
			  AND x.blocked = 0 AND x.run_at <= at
			ORDER BY x.run_at, x.job_id
		LOOP
			IF j.leased <> running OR NOT event_queue.tenant_visible(j.tenant_id) THEN
				missed := CASE WHEN NOT j.leased THEN missed + 1 WHEN running THEN 0 ELSE missed END;
				EXIT WHEN missed >= look_at;
				CONTINUE;
			END IF;
			missed := 0;
			found_jobs := found_jobs + 1;
			turn := turn + 1;
			job_id := j.job_id;
			RETURN NEXT;
			EXIT WHEN NOT running AND found_jobs >= max_jobs;
		END LOOP;
		CONTINUE WHEN running;
		missed := 0;
		found_jobs := 0;
		FOR j IN
			SELECT x.job_id, x.tenant_id FROM event_queue.job x
			WHERE x.queue_id = this_queue.queue_id AND x.lane = segment.lane AND x.priority = segment.priority
			  AND x.blocked = 0 AND x.run_at > at
			ORDER BY x.run_at, x.job_id
		LOOP
			IF NOT event_queue.tenant_visible(j.tenant_id) THEN
				missed := missed + 1;
				EXIT WHEN missed >= look_at;
				CONTINUE;
			END IF;
			found_jobs := found_jobs + 1;
			job_id := j.job_id;
			RETURN NEXT;
			EXIT WHEN found_jobs >= max_jobs;
		END LOOP;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.walk_queue(queue, boolean, int, int) IS
'Internal. Ids of the jobs at the front of a queue: those that are leased, or those that wait.';

/*
 * list_queues: the queue that a list is of, or all.  Errors: EQ009 max_jobs or look_at
 * not in 1 to 100000, EQ010 no such queue.
 */
CREATE FUNCTION event_queue_internal.list_queues(queue text, max_jobs int, look_at int) RETURNS SETOF queue
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	IF ($2 BETWEEN 1 AND 100000) IS NOT TRUE OR ($3 BETWEEN 1 AND 100000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_rows must be between 1 and 100000';
	END IF;
	IF $1 IS NULL THEN
		RETURN QUERY SELECT q.* FROM event_queue.queue q;
	ELSE
		RETURN QUERY SELECT q.* FROM event_queue.queue q WHERE q.queue_id = event_queue_internal.queue_id_of($1);
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.list_queues(text, int, int) IS 'Internal. The queues that a list is of.';

/*
 * running_jobs: what is running now, by whom and since when; the longest first.
 * Arguments:
 * - queue: NULL: all.
 * - look_at: leased jobs stand at the front of their priority (and tenant, in a fair queue),
 *   where the search ends after so many jobs in a row that are not leased.  More are needed
 *   only where workers outside claim by job_names or tenant_id and leave others waiting in
 *   front.
 *
 * Result: running_ms: milliseconds since claimed_at.  A job whose lease has run out is left out:
 * it waits for its next claim.
 * Errors: EQ009 look_at, EQ010 no such queue.
 * Example:
 *	SELECT job_id, name, worker, running_ms FROM event_queue.running_jobs('mail');
 */
CREATE FUNCTION running_jobs(
	queue text DEFAULT NULL, look_at int DEFAULT 1000,
	OUT job_id bigint, OUT queue_name text, OUT name text, OUT tenant_id text, OUT worker text, OUT claimed_at timestamptz,
	OUT running_ms bigint, OUT leased_until timestamptz, OUT attempt int, OUT group_key text, OUT progress jsonb, OUT payload jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
	SELECT count(*) FROM event_queue_internal.list_queues($1, 1, $2);		-- its errors
	SELECT j.job_id, q.name, j.name, j.tenant_id, j.leased_by, j.claimed_at,
		(extract(epoch FROM clock_timestamp() - j.claimed_at) * 1000)::bigint, j.leased_until, j.failures + 1,
		j.group_key, j.progress, j.payload
	FROM (
		SELECT w.job_id FROM event_queue_internal.list_queues($1, 1, $2) q, event_queue_internal.walk_queue(q, true, 1, $2) w
		UNION
		-- executors know theirs, wherever it stands
		SELECT e.current_job FROM event_queue.workers() e WHERE e.current_job IS NOT NULL) r,
		LATERAL (SELECT x.* FROM event_queue.job x WHERE x.job_id = r.job_id LIMIT 1) j
		JOIN event_queue.queue q USING (queue_id)
	WHERE event_queue.tenant_visible(j.tenant_id) AND j.leased_until > clock_timestamp() AND ($1 IS NULL OR q.name = $1)
	ORDER BY j.claimed_at, j.job_id
$$;
COMMENT ON FUNCTION running_jobs(text, int) IS
'What is running now: the leased jobs of a queue or of all, with who has them and since when, the longest first.';

/*
 * next_jobs: what will run next, in this order if no other jobs come: jobs that are due, as
 * claims take them, then jobs and runs of schedules that come due.
 * Arguments: queue: NULL: all; max_jobs: at most so many.
 * Result: state is that of the view jobs, or schedule (then there is no job yet); run_at: when
 * it is, or was, due.  Blocked jobs (groups, dependencies) are left out: the scheduler unblocks
 * them when others have ended.  Of a queue whose tenants are not in lanes, a session that is
 * confined to a tenant sees its jobs among the next thousand of each priority.
 * Errors: EQ009 max_jobs, EQ010 no such queue.
 * Example:
 *	SELECT job_id, name, state, run_at FROM event_queue.next_jobs('mail', 5);
 */
CREATE FUNCTION next_jobs(
	queue text DEFAULT NULL, max_jobs int DEFAULT 20,
	OUT nth int, OUT job_id bigint, OUT queue_name text, OUT name text, OUT tenant_id text, OUT state text, OUT run_at timestamptz,
	OUT priority int, OUT attempt int, OUT group_key text, OUT payload jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
	SELECT row_number() OVER (ORDER BY x.due, CASE x.due WHEN 1 THEN x.turn END, CASE x.due WHEN 1 THEN x.lane END,
			x.run_at, x.job_id)::int, x.job_id, x.queue_name, x.name, x.tenant_id,
		x.state, x.run_at, x.priority, x.attempt, x.group_key, x.payload
	FROM (
		SELECT j.job_id, q.name AS queue_name, j.name, j.tenant_id,
			j.state, j.run_at, j.priority::int, j.failures + 1 AS attempt, j.group_key, j.payload,
			CASE WHEN j.run_at > clock_timestamp() THEN 2 ELSE 1 END AS due, w.turn, w.lane
		FROM event_queue_internal.list_queues($1, $2, 1000) q,
			event_queue_internal.walk_queue(q, false, $2, 1000) w,
			LATERAL (SELECT x.* FROM event_queue.jobs x WHERE x.job_id = w.job_id LIMIT 1) j
		WHERE event_queue.tenant_visible(j.tenant_id)
		UNION ALL
		SELECT NULL, q.name, s.job_name, s.tenant_id, 'schedule', s.next_run,
			coalesce(s.priority, (s.options ->> 'priority')::int, 5), NULL, NULL, s.payload, 2, 0, 0
		FROM event_queue.schedule s JOIN event_queue.queue q USING (queue_id)
		WHERE s.enabled AND s.next_run IS NOT NULL AND ($1 IS NULL OR q.name = $1) AND event_queue.tenant_visible(s.tenant_id)) x
	ORDER BY 1 LIMIT greatest($2, 1)
$$;
COMMENT ON FUNCTION next_jobs(text, int) IS
'What will run next: jobs of a queue or of all in the order in which they will be claimed, and the next runs of schedules.';

/*
 * all_jobs: a job wherever it is: living, dead or finished and kept.
 */
CREATE VIEW all_jobs WITH (security_invoker = true) AS
	-- Not from the view jobs: metadata must stand as it is in the table for the index on
	-- its event_id.
	SELECT j.job_id, q.name AS queue, j.tenant_id, j.name,
		CASE WHEN j.suspended AND j.leased_until IS NULL AND j.run_at > clock_timestamp() THEN 'suspended'
			ELSE event_queue_internal.job_state(j.leased_until, j.blocked, j.run_at, j.failures, q.paused) END AS state,
		CASE WHEN j.leased_until > clock_timestamp() THEN j.claimed_at ELSE coalesce(j.leased_until, j.run_at) END AS at,
		j.created_at, j.leased_by AS worker, j.failures, j.stalled, j.errors -> -1 ->> 'message' AS last_error,
		NULL::jsonb AS result, j.progress, j.payload, j.metadata
	FROM event_queue.job j JOIN event_queue.queue q USING (queue_id)
	UNION ALL
	SELECT d.job_id, q.name, d.tenant_id, d.name, 'dead', d.died_at, d.created_at, d.errors -> -1 ->> 'worker', d.failures, d.stalled,
		d.errors -> -1 ->> 'message', NULL, NULL, d.payload, d.metadata
	FROM event_queue.dead_letter d JOIN event_queue.queue q USING (queue_id)
	UNION ALL
	SELECT h.job_id, q.name, h.tenant_id, h.name, 'completed', h.completed_at, h.created_at, h.leased_by, h.failures, h.stalled,
		h.errors -> -1 ->> 'message', h.result, NULL, h.payload, h.metadata
	FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id)
	WHERE h.expires_at > now();
COMMENT ON VIEW all_jobs IS
'Jobs wherever they are: living with their state, dead, or completed and kept; at: since when, or when it is due. Quick by job_id, and by the event that caused it.';

/*
 * queue_jobs: the jobs of a queue and their states, up to max_jobs of each state: the
 * running ones (the longest first), the next ones, those that wait for others, the last
 * that died, and the last that were completed and are kept.
 * Arguments: max_jobs of each state.
 * Result: at: since when it runs, when it is due, or when it ended.
 * A tenant's session sees its jobs among the first or last thousand of each state.
 * Errors: EQ009 max_jobs, EQ010 no such queue.
 * Example:
 *	SELECT job_id, name, state, last_error FROM event_queue.queue_jobs('mail');
 */
CREATE FUNCTION queue_jobs(
	queue text, max_jobs int DEFAULT 20,
	OUT job_id bigint, OUT name text, OUT tenant_id text, OUT state text, OUT at timestamptz, OUT worker text, OUT failures int,
	OUT last_error text, OUT payload jsonb)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($1);
	look_at int := greatest($2, 1000);
BEGIN
	PERFORM FROM event_queue_internal.list_queues($1, $2, 1);		-- its errors
	RETURN QUERY
	SELECT r.job_id, r.name, r.tenant_id, 'leased', r.claimed_at, r.worker, r.attempt - 1,
		(SELECT j.errors -> -1 ->> 'message' FROM event_queue.job j WHERE j.job_id = r.job_id), r.payload
	FROM event_queue.running_jobs($1, look_at) r LIMIT $2;
	RETURN QUERY
	SELECT x.job_id, x.name, x.tenant_id, x.state, x.run_at, NULL, x.failures, x.errors -> -1 ->> 'message', x.payload
	FROM (
		SELECT j.*, row_number() OVER (PARTITION BY j.state
			ORDER BY CASE WHEN j.state IN ('scheduled', 'retrying', 'suspended') THEN 0 ELSE w.turn END, w.lane, j.run_at, j.job_id) AS nth
		FROM event_queue_internal.list_queues($1, $2, 1) q,
			event_queue_internal.walk_queue(q, false, $2, look_at) w,
			LATERAL (SELECT x.* FROM event_queue.jobs x WHERE x.job_id = w.job_id LIMIT 1) j
		WHERE event_queue.tenant_visible(j.tenant_id)) x
	WHERE x.nth <= $2 ORDER BY x.state, x.nth;
	RETURN QUERY
	SELECT j.job_id, j.name, j.tenant_id, 'blocked', j.run_at, NULL, j.failures, j.errors -> -1 ->> 'message', j.payload
	FROM (
		(SELECT g.job_id FROM (
			SELECT x.job_id, x.blocked FROM event_queue.job x WHERE x.queue_id = this_queue AND x.group_key IS NOT NULL
			LIMIT 10 * look_at) g
		 WHERE g.blocked > 0)
		UNION
		(SELECT d.job_id FROM event_queue.job_dependency d WHERE d.completed_at IS NULL ORDER BY d.job_id DESC LIMIT look_at)) b,
		LATERAL (SELECT x.* FROM event_queue.job x WHERE x.job_id = b.job_id LIMIT 1) j
	WHERE j.queue_id = this_queue AND j.blocked > 0 AND event_queue.tenant_visible(j.tenant_id)
	ORDER BY j.job_id LIMIT $2;
	RETURN QUERY
	SELECT d.job_id, d.name, d.tenant_id, 'dead', d.died_at, d.errors -> -1 ->> 'worker', d.failures, d.errors -> -1 ->> 'message', d.payload
	FROM (SELECT x.* FROM event_queue.dead_letter x WHERE x.queue_id = this_queue
		ORDER BY x.died_at DESC, x.job_id DESC LIMIT look_at) d
	WHERE event_queue.tenant_visible(d.tenant_id) ORDER BY d.died_at DESC, d.job_id DESC LIMIT $2;
	RETURN QUERY
	SELECT h.job_id, h.name, h.tenant_id, 'completed', h.completed_at, h.leased_by, h.failures, h.errors -> -1 ->> 'message', h.payload
	FROM (SELECT x.* FROM event_queue.job_history x WHERE x.queue_id = this_queue AND x.expires_at > now()
		ORDER BY x.completed_at DESC, x.job_id DESC LIMIT look_at) h
	WHERE event_queue.tenant_visible(h.tenant_id) ORDER BY h.completed_at DESC, h.job_id DESC LIMIT $2;
END
$$;
COMMENT ON FUNCTION queue_jobs(text, int) IS
'The jobs of a queue and their states: running, next, waiting for others, the last that died and the last that were completed.';

/*
 * failed_jobs: the dead letters of a queue or of all since a time, the last first.
 * Arguments: queue, NULL: all; since: default a day ago; max_jobs.
 * A tenant's session sees its own among the last 10000 of each queue.
 * Errors: EQ009 max_jobs, EQ010 no such queue.
 * Example:
 *	SELECT job_id, name, reason, last_error FROM event_queue.failed_jobs('mail', since => now() - interval '1 hour');
 */
CREATE FUNCTION failed_jobs(
	queue text DEFAULT NULL, since timestamptz DEFAULT now() - interval '1 day', max_jobs int DEFAULT 100,
	OUT job_id bigint, OUT queue_name text, OUT name text, OUT tenant_id text, OUT died_at timestamptz, OUT reason text,
	OUT failures int, OUT last_error text, OUT last_sqlstate text, OUT payload jsonb)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
	SELECT d.job_id, q.name, d.name, d.tenant_id, d.died_at, d.reason, d.failures, d.errors -> -1 ->> 'message',
		d.errors -> -1 ->> 'sqlstate', d.payload
	FROM event_queue_internal.list_queues($1, $3, 1) q, LATERAL (
		SELECT y.* FROM (
			SELECT x.* FROM event_queue.dead_letter x WHERE x.queue_id = q.queue_id AND x.died_at >= $2
			ORDER BY x.died_at DESC, x.job_id DESC LIMIT greatest($3, 10000)) y
		WHERE event_queue.tenant_visible(y.tenant_id)
		ORDER BY y.died_at DESC, y.job_id DESC LIMIT greatest($3, 1)) d
	ORDER BY d.died_at DESC, d.job_id DESC LIMIT greatest($3, 1)
$$;
COMMENT ON FUNCTION failed_jobs(text, timestamptz, int) IS 'Dead letters of a queue or of all since a time (a day ago), the last first.';

/*
 * retry_failed: puts back into the queues what failed_jobs lists, however many.
 * Arguments: queue: NULL: all; since: default a day ago; job_name and sqlstate (of the last
 * error) narrow them down.
 * Result: how many.  Errors: EQ010 no such queue.
 * Example:
 *	SELECT event_queue.retry_failed('mail', since => now() - interval '1 hour');
 */
CREATE FUNCTION retry_failed(
	queue text DEFAULT NULL, since timestamptz DEFAULT now() - interval '1 day', job_name text DEFAULT NULL,
	sqlstate text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	q record;
	n bigint := 0;
BEGIN
	FOR q IN SELECT x.name FROM event_queue_internal.list_queues($1, 1, 1) x ORDER BY x.queue_id LOOP
		n := n + event_queue_internal.settle_dead_letters(false, q.name, $3, NULL, $4,
			-- as failed_jobs: from that time on, and none if it is NULL
			coalesce($2, 'infinity') - interval '1 microsecond', NULL, NULL);
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION retry_failed(text, timestamptz, text, text) IS
'Puts the dead letters of a queue or of all since a time (a day ago) back into their queues; returns how many.';

/*
 * rule_activity: what a rule did recently: the jobs that came of the last events that
 * match its pattern, and the events that these jobs appended; the last first.
 * Arguments: rule; max_rows; max_events: how many events are looked at, from the last
 * one back, whether they match or not (of those that match, at most 1000).
 * Result: event_id and event_type: what the rule saw; kind is job or event, id, name
 * and state (of a job) what came of it, as in trace.  Jobs that are finished and not
 * kept are known by the events that they appended.
 * Errors: EQ009 max_rows or max_events, EQ025 no such rule (or another tenant's).
 * Example:
 *	SELECT at, event_type, kind, name, state FROM event_queue.rule_activity('welcome', max_rows => 10);
 */
CREATE FUNCTION rule_activity(
	rule text, max_rows int DEFAULT 100, max_events int DEFAULT 10000,
	OUT at timestamptz, OUT event_type text, OUT aggregate_type text, OUT aggregate_id text, OUT event_id uuid, OUT tenant_id text,
	OUT kind text, OUT id text, OUT name text, OUT state text, OUT last_error text)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
	e record;
	found_rows int := 0;
	matched int := 0;
	found_now int;
BEGIN
	r := event_queue_internal.get_rule($1);
	IF ($2 BETWEEN 1 AND 100000) IS NOT TRUE OR ($3 BETWEEN 1 AND 10000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_rows must be between 1 and 100000, max_events between 1 and 10000000';
	END IF;
	FOR e IN
		SELECT x.* FROM (
			SELECT s.id, s.tenant_id, s.event_type, s.aggregate_type, s.aggregate_id, s.created_at FROM event_queue.event_store s
			WHERE s.position > 0 ORDER BY s.position DESC LIMIT $3) x
		WHERE (r.tenant_id IS NULL OR x.tenant_id = r.tenant_id) AND event_queue.tenant_visible(x.tenant_id)
		  AND event_queue.event_matches(x.event_type, r.event_pattern)
	LOOP
		matched := matched + 1;
		RETURN QUERY
		SELECT e.created_at, e.event_type, e.aggregate_type, e.aggregate_id, e.id, e.tenant_id, o.kind, o.id, o.name, o.state, o.last_error
		FROM (
			SELECT 'job'::text AS kind, j.job_id::text AS id, j.name, j.state, j.last_error
			FROM event_queue.all_jobs j
			WHERE j.metadata ? 'event_id' AND j.metadata ->> 'event_id' = e.id::text AND j.metadata ->> 'rule' = r.name
			  AND j.tenant_id = e.tenant_id
			UNION ALL
			SELECT 'event', s.id::text, s.event_type, NULL, NULL FROM event_queue.event_store s
			WHERE s.metadata ? 'causation_id' AND s.metadata ->> 'causation_id' = e.id::text AND s.metadata ->> 'rule' = r.name
			  AND s.tenant_id = e.tenant_id) o
		ORDER BY o.kind DESC, o.id;
		GET DIAGNOSTICS found_now = ROW_COUNT;
		found_rows := found_rows + found_now;
		EXIT WHEN found_rows >= $2 OR matched >= 1000;
	END LOOP;
END
$$;
COMMENT ON FUNCTION rule_activity(text, int, int) IS
'What a rule did recently: for the last events that match it, the jobs that it made, with their states, and what these appended.';

/*
 * aggregate_activity: who did what to an aggregate, and what came of it: its events,
 * and the jobs that they caused; the last first.
 * Arguments: aggregate_type, aggregate_id, tenant_id; max_events: so many, the last ones.
 * Result: who: of an event its actor, of a job the rule or job that made it; kind is event or job;
 * what: the event's type, or queue and name of the job; state and last_error of a job;
 * data: the event's, or the job's payload.
 * Errors: EQ003 tenant, EQ009 max_events.
 * Example:
 *	SELECT at, who, kind, what, state FROM event_queue.aggregate_activity('lead', 'L1');
 */
CREATE FUNCTION aggregate_activity(
	aggregate_type text, aggregate_id text, max_events int DEFAULT 100, tenant_id text DEFAULT NULL,
	OUT at timestamptz, OUT who text, OUT kind text, OUT what text, OUT id text, OUT version int, OUT state text,
	OUT last_error text, OUT data jsonb)
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, event_queue, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
	tenant text := event_queue.resolve_tenant($4);
BEGIN
	IF ($3 BETWEEN 1 AND 100000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_events must be between 1 and 100000';
	END IF;
	RETURN QUERY
	WITH event AS (
		SELECT e.* FROM event_queue.event_store e
		WHERE e.aggregate_id = $2 AND e.aggregate_type = $1 AND e.tenant_id = tenant
		ORDER BY e.version DESC LIMIT $3
	)
	SELECT l.at, l.who, l.kind, l.what, l.id, l.version, l.state, l.last_error, l.data FROM (
		SELECT e.created_at AS at, e.metadata ->> 'actor' AS who, 'event' AS kind, e.event_type AS what, e.id::text AS id,
			e.version, NULL AS state, NULL AS last_error, e.event_data AS data, 1 AS place
		FROM event e
		UNION ALL
		SELECT j.created_at, CASE
				WHEN j.metadata ? 'rule' THEN 'rule ' || (j.metadata ->> 'rule')
				WHEN j.metadata ? 'parent_job' THEN 'job ' || (j.metadata ->> 'parent_job') END,
			'job', j.queue || '/' || j.name, j.job_id::text, e.version, j.state, j.last_error, j.payload, 2
		FROM event e, LATERAL (
			SELECT x.* FROM event_queue.all_jobs x
			WHERE x.metadata ? 'event_id' AND x.metadata ->> 'event_id' = e.id::text AND x.tenant_id = tenant
			OFFSET 0) j) l		-- for each event by the index, however many are expected
	ORDER BY l.version DESC, l.place DESC, l.at DESC, l.id DESC;
END
$$;
COMMENT ON FUNCTION aggregate_activity(text, text, int, text) IS
'Who did what to an aggregate: its events with their actors, and the jobs that they caused with their states, the last first.';
