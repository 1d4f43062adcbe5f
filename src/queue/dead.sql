/*
 * dead.sql: where jobs end: dead letters and history.
 */

CREATE TABLE dead_letter (
	job_id			bigint PRIMARY KEY,
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text NOT NULL,
	priority		smallint NOT NULL,
	created_at		timestamptz NOT NULL,
	died_at			timestamptz NOT NULL,
	reason			text NOT NULL,
	failures		int NOT NULL,
	stalled			int NOT NULL,
	max_attempts	int,
	backoff			text,
	backoff_delay	interval,
	time_limit		interval,
	group_key		text COLLATE "C",
	unique_key		text COLLATE "C",
	has_dependents	boolean NOT NULL,
	payload			jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	errors			jsonb NOT NULL
);
COMMENT ON TABLE dead_letter IS 'Jobs that failed for good: reason is attempts, stalled, final or dependency.';
CREATE INDEX dead_letter_queue ON dead_letter (queue_id, died_at);
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON dead_letter USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('dead_letter', '');

/*
 * A partition a day (UTC), made by the scheduler, which drops those that no
 * queue keeps any longer; complete (history.c) writes to the day's one, and to
 * job_history_default if it is not there.
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
	leased_by		text,
	failures		int NOT NULL,
	stalled			int NOT NULL,
	payload			jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	errors			jsonb NOT NULL,
	result			jsonb,
	PRIMARY KEY (job_id, completed_at)
) PARTITION BY RANGE (completed_at);
COMMENT ON TABLE job_history IS 'Finished jobs of queues with keep_completed.';
CREATE INDEX job_history_queue ON job_history (queue_id, completed_at);
CREATE TABLE job_history_default PARTITION OF job_history DEFAULT;
COMMENT ON TABLE job_history_default IS 'Internal. Finished jobs of days without a partition of their own.';
ALTER TABLE job_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history USING (tenant_visible(tenant_id));
ALTER TABLE job_history_default ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_default USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_default', '');

/*
 * maintain_history: makes the partitions of today and tomorrow if a queue keeps
 * history, drops what no queue keeps, and deletes what single queues no longer
 * keep.  Called by the scheduler once a minute.
 */
CREATE FUNCTION maintain_history() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '2s' SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
	day date;
	this_name text;
	longest interval := (SELECT max(q.keep_completed) FROM event_queue.queue q);
	q record;
BEGIN
	IF EXISTS (SELECT FROM event_queue.queue WHERE keep_completed IS NOT NULL OR keep_completed_count IS NOT NULL) THEN
		FOR day IN SELECT current_date + n FROM generate_series(0, 1) n LOOP
			this_name := 'job_history_' || to_char(day, 'YYYYMMDD');
			CONTINUE WHEN EXISTS (SELECT FROM pg_class c WHERE c.relname = this_name AND c.relnamespace = 'event_queue'::regnamespace);
			BEGIN
				EXECUTE format('CREATE TABLE event_queue.%I PARTITION OF event_queue.job_history FOR VALUES FROM (%L) TO (%L)',
					this_name, day::timestamptz, (day + 1)::timestamptz);
				EXECUTE format('ALTER TABLE event_queue.%I ENABLE ROW LEVEL SECURITY', this_name);
				EXECUTE format('CREATE POLICY tenant_isolation ON event_queue.%I USING (event_queue.tenant_visible(tenant_id))', this_name);
			EXCEPTION WHEN check_violation OR lock_not_available THEN
				NULL;	-- the day has rows in the default partition, or someone is busy: next time
			END;
		END LOOP;
	END IF;
	FOR this_name, day IN
		SELECT c.relname, to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'event_queue.job_history'::regclass AND c.relname ~ '^job_history_[0-9]{8}$'
	LOOP
		-- A queue that keeps the last N keeps no day for itself.
		CONTINUE WHEN day + 1 > current_date - 1 OR (longest IS NOT NULL AND (day + 1)::timestamptz > clock_timestamp() - longest)
			OR EXISTS (SELECT FROM event_queue.queue WHERE keep_completed IS NULL AND keep_completed_count IS NOT NULL);
		BEGIN
			EXECUTE format('DROP TABLE event_queue.%I', this_name);
		EXCEPTION WHEN lock_not_available THEN
			NULL;
		END;
	END LOOP;
	DELETE FROM event_queue.job_log l
	WHERE l.at < clock_timestamp() - greatest(coalesce(longest, '7 days'), '7 days')
	  AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = l.job_id);
	DELETE FROM event_queue.job_throttle t WHERE t.until < clock_timestamp();
	DELETE FROM event_queue.job_dependency d
	WHERE NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = d.job_id)
	  AND NOT EXISTS (SELECT FROM event_queue.dead_letter l WHERE l.job_id = d.job_id);
	FOR q IN SELECT * FROM event_queue.queue WHERE keep_completed IS NOT NULL OR keep_completed_count IS NOT NULL
		OR keep_failed IS NOT NULL OR keep_failed_count IS NOT NULL LOOP
		IF q.keep_completed < longest OR q.keep_completed <= '1 day' THEN
			DELETE FROM event_queue.job_history h
			WHERE h.queue_id = q.queue_id AND h.completed_at < clock_timestamp() - q.keep_completed;
		END IF;
		IF q.keep_completed_count IS NOT NULL THEN
			DELETE FROM event_queue.job_history h
			WHERE h.queue_id = q.queue_id AND h.completed_at < (
				SELECT k.completed_at FROM event_queue.job_history k WHERE k.queue_id = q.queue_id
				ORDER BY k.completed_at DESC OFFSET q.keep_completed_count - 1 LIMIT 1);
		END IF;
		DELETE FROM event_queue.dead_letter d
		WHERE d.queue_id = q.queue_id AND d.died_at < clock_timestamp() - q.keep_failed;
		IF q.keep_failed_count IS NOT NULL THEN
			DELETE FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND d.died_at < (
				SELECT k.died_at FROM event_queue.dead_letter k WHERE k.queue_id = q.queue_id
				ORDER BY k.died_at DESC OFFSET q.keep_failed_count - 1 LIMIT 1);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION maintain_history() IS 'Internal. Makes and drops the partitions of job_history, and applies what queues keep.';

/*
 * revive_dead_letters: what the functions below share.  The errors stay; a dead
 * letter whose unique_key is taken by a living job comes back without the key;
 * what it depended on is forgotten.
 */
CREATE FUNCTION revive_dead_letters(job_ids bigint[], payload jsonb DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	n bigint;
BEGIN
	WITH dead AS (
		DELETE FROM event_queue.dead_letter d
		WHERE d.job_id = ANY ($1) AND event_queue.tenant_visible(d.tenant_id)
		RETURNING d.*
	), forgotten AS (
		DELETE FROM event_queue.job_dependency x USING dead d WHERE x.job_id = d.job_id AND d.reason = 'dependency'
	), ranked AS (
		SELECT d.*, row_number() OVER (PARTITION BY d.queue_id, d.tenant_id, d.unique_key ORDER BY d.job_id) AS nth
		FROM dead d
	)
	INSERT INTO event_queue.job (job_id, queue_id, lane, tenant_id, name, priority, run_at, created_at,
		max_attempts, backoff, backoff_delay, time_limit, group_key, unique_key, has_dependents, payload, metadata, errors)
	SELECT d.job_id, d.queue_id, event_queue.job_lane(q.fair, d.tenant_id), d.tenant_id, d.name, d.priority,
		clock_timestamp(), d.created_at, d.max_attempts, d.backoff, d.backoff_delay, d.time_limit, d.group_key,
		CASE WHEN d.nth = 1 AND NOT EXISTS (SELECT FROM event_queue.job j
			WHERE j.queue_id = d.queue_id AND j.tenant_id = d.tenant_id AND j.unique_key = d.unique_key)
			THEN d.unique_key END,
		d.has_dependents, coalesce($2, d.payload), d.metadata, d.errors
	FROM ranked d JOIN event_queue.queue q USING (queue_id)
	ORDER BY d.job_id;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
COMMENT ON FUNCTION revive_dead_letters(bigint[], jsonb) IS 'Internal. What retry_dead and retry_all_dead share.';

/*
 * retry_dead: puts a dead letter back into its queue, due at once, with its
 * attempts counted anew and its errors kept.
 * Arguments: payload: a new one in place of the old; NULL: the old one.
 * Errors: EQ005 payload too large, EQ017 no such dead letter (or another
 * tenant's).
 */
CREATE FUNCTION retry_dead(job_id bigint, payload jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF $2 IS NOT NULL THEN
		PERFORM event_queue.check_payload($2);
	END IF;
	IF event_queue.revive_dead_letters(ARRAY[$1], $2) = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'See the view event_queue.dead_letters.';
	END IF;
END
$$;
COMMENT ON FUNCTION retry_dead(bigint, jsonb) IS
'Puts a dead letter back into its queue, with a new payload if one is given; its attempts start anew, its errors stay.';

/*
 * retry_all_dead: retry_dead for dead letters of a queue.
 * Arguments: job_name, tenant_id, sqlstate (of the last error) and died_after narrow
 * them down; limit: at most so many, the oldest first.
 * Result: how many.  Errors: EQ010 no such queue.
 */
CREATE FUNCTION retry_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, "limit" int DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue.revive_dead_letters(ARRAY(
		SELECT d.job_id FROM event_queue.dead_letter d
		WHERE d.queue_id = event_queue.queue_id_of($1) AND ($2 IS NULL OR d.name = $2) AND ($3 IS NULL OR d.tenant_id = $3)
		  AND ($4 IS NULL OR d.errors -> -1 ->> 'sqlstate' = $4) AND ($5 IS NULL OR d.died_at > $5)
		ORDER BY d.died_at, d.job_id LIMIT $6))
$$;
COMMENT ON FUNCTION retry_all_dead(text, text, text, text, timestamptz, int) IS
'Puts dead letters of a queue back into it, all or those that the arguments name; returns how many.';

/*
 * discard_dead: deletes a dead letter for good; jobs that depend on it become
 * dead letters.
 * Errors: EQ017 no such dead letter (or another tenant's).
 */
CREATE FUNCTION discard_dead(job_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	dependents boolean;
BEGIN
	DELETE FROM event_queue.dead_letter WHERE job_id = $1 AND event_queue.tenant_visible(tenant_id)
	RETURNING has_dependents INTO dependents;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'See the view event_queue.dead_letters.';
	END IF;
	DELETE FROM event_queue.job_dependency WHERE job_id = $1;
	IF dependents THEN
		PERFORM event_queue.settle_dependents($1, NULL, true);
	END IF;
END
$$;
COMMENT ON FUNCTION discard_dead(bigint) IS 'Deletes a dead letter for good.';

CREATE VIEW dead_letters WITH (security_invoker = true) AS
	SELECT d.job_id, q.name AS queue, d.tenant_id, d.name, d.reason, d.died_at, d.created_at,
		d.failures, d.stalled, d.errors -> -1 ->> 'message' AS last_error,
		d.errors -> -1 ->> 'sqlstate' AS last_sqlstate, d.priority, d.group_key, d.payload, d.metadata, d.errors
	FROM event_queue.dead_letter d JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW dead_letters IS 'Jobs that failed for good, with their last error and their whole history.';
