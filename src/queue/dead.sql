/*
 * dead.sql: where jobs end: dead letters and history.
 */

CREATE TABLE dead_letter (
	job_id			bigint PRIMARY KEY,
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	name			text NOT NULL,
	priority		smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
	created_at		timestamptz NOT NULL,
	died_at			timestamptz NOT NULL,
	reason			text NOT NULL,
	failures		int NOT NULL,
	stalled			int NOT NULL,
	max_attempts	int,
	retry			retry_options,
	time_limit		interval,
	group_key		text COLLATE "C",
	unique_key		text COLLATE "C",
	has_dependents	boolean NOT NULL,
	payload			jsonb NOT NULL,
	metadata		jsonb NOT NULL,
	errors			jsonb NOT NULL
);
COMMENT ON TABLE dead_letter IS 'Jobs that failed for good: reason is attempts, stalled, final or dependency.';
CREATE INDEX dead_letter_queue ON dead_letter (queue_id, died_at, job_id);
CREATE TRIGGER count_row AFTER INSERT OR DELETE ON dead_letter
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.count_row();
CREATE TRIGGER jobs_loaded AFTER TRUNCATE ON dead_letter
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.jobs_loaded();
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON dead_letter USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('dead_letter', '');

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
	result			jsonb
) PARTITION BY RANGE (span, expires_at);
COMMENT ON TABLE job_history IS
'Finished jobs of queues with keep_completed, also those that have expired but are not removed yet: read the view history.';
COMMENT ON COLUMN job_history.expires_at IS 'completed_at and the queue''s keep_completed of that time; infinity: kept for ever.';
COMMENT ON COLUMN job_history.span IS 'Its partition holds what expires within 0: an hour, 1: a day, 2: a month; 3: never; 4: its partition was not there yet.';
ALTER TABLE job_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history USING (tenant_visible(tenant_id));

CREATE TABLE job_history_early PARTITION OF job_history FOR VALUES FROM (4, MINVALUE) TO (4, MAXVALUE);
COMMENT ON TABLE job_history_early IS
'Internal. Finished jobs that came before their partition; and what new partitions are made like, with its indexes.';
ALTER TABLE job_history_early ADD PRIMARY KEY (job_id, completed_at);
CREATE INDEX job_history_early_queue ON job_history_early (queue_id, completed_at, job_id);
CREATE INDEX job_history_early_caused_by ON job_history_early ((metadata ->> 'event_id')) WHERE metadata ? 'event_id';
ALTER TABLE job_history_early ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_early USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_early', '');

CREATE TABLE job_history_forever (LIKE job_history_early INCLUDING ALL);
ALTER TABLE job_history ATTACH PARTITION job_history_forever FOR VALUES FROM (3, MINVALUE) TO (3, MAXVALUE);
COMMENT ON TABLE job_history_forever IS
'Finished jobs of queues that keep them for ever, or by keep_completed_count alone.';
ALTER TABLE job_history_forever ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_history_forever USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('job_history_forever', '');

CREATE VIEW history WITH (security_invoker = true) AS
	SELECT h.job_id, q.name AS queue, h.tenant_id, h.name, h.completed_at, h.result, h.leased_by, h.failures, h.stalled,
		h.priority, h.created_at, h.run_at, h.expires_at, h.payload, h.metadata, h.errors
	FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id)
	WHERE h.expires_at > now();
COMMENT ON VIEW history IS
'Finished jobs of queues with keep_completed or keep_completed_count, with their results and the errors of failed attempts.';

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
COMMENT ON FUNCTION event_queue_internal.history_span(interval) IS 'Internal. Which length of partition holds what is kept so long.';

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
			EXECUTE format('DROP TABLE IF EXISTS event_queue.%I', part.name);
			PERFORM event_queue_internal.clear_fault('old partition', part.name);
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

/*
 * trim_queue: of one queue, finished jobs and dead letters that it keeps no longer.
 * Passes over dead letters that someone has locked.
 */
CREATE FUNCTION event_queue_internal.trim_queue(q queue) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_column
BEGIN
	IF q.keep_completed_count IS NOT NULL THEN
		DELETE FROM event_queue.job_history h
		WHERE h.queue_id = q.queue_id AND (h.completed_at, h.job_id) < (
			SELECT k.completed_at, k.job_id FROM event_queue.job_history k WHERE k.queue_id = q.queue_id
			ORDER BY k.completed_at DESC, k.job_id DESC OFFSET q.keep_completed_count - 1 LIMIT 1);
	END IF;
	IF q.keep_failed IS NOT NULL THEN
		DELETE FROM event_queue.dead_letter WHERE job_id IN (
			SELECT d.job_id FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND d.died_at < clock_timestamp() - q.keep_failed
			FOR UPDATE SKIP LOCKED);
	END IF;
	IF q.keep_failed_count IS NOT NULL THEN
		DELETE FROM event_queue.dead_letter WHERE job_id IN (
			SELECT d.job_id FROM event_queue.dead_letter d
			WHERE d.queue_id = q.queue_id AND (d.died_at, d.job_id) < (
				SELECT k.died_at, k.job_id FROM event_queue.dead_letter k WHERE k.queue_id = q.queue_id
				ORDER BY k.died_at DESC, k.job_id DESC OFFSET q.keep_failed_count - 1 LIMIT 1)
			FOR UPDATE SKIP LOCKED);
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_queue(queue) IS 'Internal. Removes finished jobs and dead letters that a queue keeps no longer.';

/* What a queue that was dropped has got since, by transactions that knew it still. */
CREATE FUNCTION event_queue_internal.clear_dropped_queues() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	q record;
BEGIN
	FOR q IN SELECT *, seen_at <= pg_snapshot_xmin(pg_current_snapshot()) AS is_over FROM event_queue_internal.dropped_queue LOOP
		DELETE FROM event_queue.job WHERE queue_id = q.queue_id;
		DELETE FROM event_queue.dead_letter WHERE queue_id = q.queue_id;
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
 * dead letters, and what is left of jobs that are no more.  Called by the
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
		WHERE x.keep_completed_count IS NOT NULL OR x.keep_failed IS NOT NULL OR x.keep_failed_count IS NOT NULL LOOP
		PERFORM event_queue_internal.run_alone('history of queue', q.name, 'SELECT event_queue_internal.trim_queue($1)', q);
	END LOOP;
	PERFORM event_queue_internal.run_alone('old rows of', 'job_log',
		'DELETE FROM event_queue.job_log l WHERE l.at < $1
			AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = l.job_id)
			AND NOT EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.job_id = l.job_id)', clock_timestamp() - longest);
	PERFORM event_queue_internal.run_alone('old rows of', 'job_throttle',
		'DELETE FROM event_queue_internal.job_throttle t WHERE t.until < $1', clock_timestamp());
	PERFORM event_queue_internal.run_alone('jobs of', 'dropped queues', 'SELECT event_queue_internal.clear_dropped_queues()', NULL::int);
	PERFORM event_queue_internal.run_alone('old rows of', 'job_dependency',
		'DELETE FROM event_queue.job_dependency d
			WHERE NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = d.job_id)
			AND NOT EXISTS (SELECT FROM event_queue.dead_letter l WHERE l.job_id = d.job_id)', NULL::int);
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_history() IS
'Internal. Removes what queues keep no longer by count, old dead letters, and what is left of jobs that are no more.';

/*
 * revive_dead_letters: what the functions below share.  The errors stay; a dead
 * letter whose unique_key is taken by a living job comes back without the key;
 * what it depended on is forgotten.
 */
CREATE FUNCTION event_queue_internal.revive_dead_letters(job_ids bigint[], payload jsonb DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	n bigint;
	tries int := 0;
BEGIN
	LOOP
		BEGIN
			WITH dead AS (
				DELETE FROM event_queue.dead_letter d WHERE d.job_id IN (
					-- the order in which all take many dead letters
					SELECT x.job_id FROM event_queue.dead_letter x
					WHERE x.job_id = ANY ($1) AND event_queue.tenant_visible(x.tenant_id)
					ORDER BY x.died_at, x.job_id FOR UPDATE)
				RETURNING d.*
			), forgotten AS (
				DELETE FROM event_queue.job_dependency x USING dead d WHERE x.job_id = d.job_id AND d.reason = 'dependency'
			), ranked AS (
				SELECT d.*, row_number() OVER (PARTITION BY d.queue_id, d.tenant_id, d.unique_key ORDER BY d.job_id) AS nth
				FROM dead d
			)
			INSERT INTO event_queue.job (job_id, queue_id, lane, tenant_id, name, priority, run_at, created_at,
				max_attempts, retry, time_limit, group_key, unique_key, has_dependents, payload, metadata, errors)
			SELECT d.job_id, d.queue_id, event_queue_internal.job_lane(q.fair, d.tenant_id), d.tenant_id, d.name, d.priority,
				clock_timestamp(), d.created_at, d.max_attempts, d.retry, d.time_limit, d.group_key,
				CASE WHEN d.nth = 1 AND NOT EXISTS (SELECT FROM event_queue.job j
					WHERE j.queue_id = d.queue_id AND j.tenant_id = d.tenant_id AND j.unique_key = d.unique_key)
					THEN d.unique_key END,
				d.has_dependents, coalesce($2, d.payload), d.metadata, d.errors
			FROM ranked d JOIN event_queue.queue q USING (queue_id)
			ORDER BY d.job_id;
			GET DIAGNOSTICS n = ROW_COUNT;
			RETURN n;
		EXCEPTION WHEN unique_violation OR deadlock_detected THEN
			-- Someone has just enqueued a job with one of the keys; now it can be seen.
			-- Or he waits for one of ours as we do for his: he is to get them first.
			tries := tries + 1;
			IF tries >= 20 THEN
				RAISE;
			END IF;
			IF SQLSTATE = '40P01' THEN
				PERFORM pg_sleep(0.01 * tries * (0.5 + random()));
			END IF;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.revive_dead_letters(bigint[], jsonb) IS 'Internal. What retry_dead and retry_all_dead share.';

/*
 * settle_dead_letters: what retry_all_dead and discard_all_dead share.  A thousand
 * at a time, from the oldest on: however many there are, memory holds a thousand.
 * Those that die meanwhile are left.
 */
CREATE FUNCTION event_queue_internal.settle_dead_letters(
	discard boolean, queue text, job_name text, tenant_id text, sqlstate text, died_after timestamptz, "limit" int,
	payload jsonb)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue.queue_id_of($2);
	until timestamptz := clock_timestamp();
	above_time timestamptz := coalesce($6, '-infinity');
	above_id bigint := 9223372036854775807;
	ids bigint[];
	n bigint;
	total bigint := 0;
BEGIN
	IF $4 IS NOT NULL THEN
		PERFORM event_queue.resolve_tenant($4);
	END IF;
	IF $7 < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'limit must not be negative';
	END IF;
	IF $8 IS NOT NULL AND this_queue <= 2 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ035', MESSAGE = format('queue "%s" is internal', $2),
			HINT = 'Retry its dead letters without a new payload.';
	END IF;
	IF $8 IS NOT NULL THEN
		PERFORM event_queue_internal.check_payload($8);
	END IF;
	LOOP
		SELECT array_agg(d.job_id ORDER BY d.died_at, d.job_id), max(d.died_at) INTO ids, above_time FROM (
			SELECT d.job_id, d.died_at FROM event_queue.dead_letter d
			WHERE d.queue_id = this_queue AND (d.died_at, d.job_id) > (above_time, above_id) AND d.died_at <= until
			  AND ($3 IS NULL OR d.name = $3) AND ($4 IS NULL OR d.tenant_id = $4)
			  AND ($5 IS NULL OR d.errors -> -1 ->> 'sqlstate' = $5) AND event_queue.tenant_visible(d.tenant_id)
			ORDER BY d.died_at, d.job_id LIMIT least(1000, $7 - total)) d;
		EXIT WHEN ids IS NULL;
		above_id := ids[cardinality(ids)];
		IF $1 THEN
			DELETE FROM event_queue.dead_letter d WHERE d.job_id IN (
				SELECT x.job_id FROM event_queue.dead_letter x WHERE x.job_id = ANY (ids)
				ORDER BY x.died_at, x.job_id FOR UPDATE);
			GET DIAGNOSTICS n = ROW_COUNT;
			DELETE FROM event_queue.job_dependency x WHERE x.job_id = ANY (ids)
			  AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = x.job_id);
		ELSE
			n := event_queue_internal.revive_dead_letters(ids, $8);
		END IF;
		total := total + n;
	END LOOP;
	RETURN total;
END
$$;
COMMENT ON FUNCTION event_queue_internal.settle_dead_letters(boolean, text, text, text, text, timestamptz, int, jsonb) IS
'Internal. What retry_all_dead and discard_all_dead share.';

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
		PERFORM event_queue_internal.check_payload($2);
	END IF;
	IF $2 IS NOT NULL AND EXISTS (SELECT FROM event_queue.dead_letter d
		WHERE d.job_id = $1 AND d.queue_id <= 2 AND event_queue.tenant_visible(d.tenant_id)) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ035', MESSAGE = format('dead letter %s is of an internal queue', $1),
			HINT = 'Retry it without a new payload.';
	END IF;
	IF event_queue_internal.revive_dead_letters(ARRAY[$1], $2) = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'See the view event_queue.dead_letters.';
	END IF;
END
$$;
COMMENT ON FUNCTION retry_dead(bigint, jsonb) IS
'Puts a dead letter back into its queue, with a new payload if one is given; its attempts start anew, its errors stay.';

/*
 * retry_all_dead: retry_dead for dead letters of a queue, however many.
 * Arguments: job_name, tenant_id, sqlstate (of the last error) and died_after
 * narrow them down; limit: at most so many, the oldest first; payload: a new one
 * for all of them.  A session that is confined to a tenant reaches only that
 * tenant's.
 * Result: how many.
 * Errors: EQ003 another tenant, EQ005 payload too large, EQ009 negative limit,
 * EQ010 no such queue.
 */
CREATE FUNCTION retry_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, "limit" int DEFAULT NULL, payload jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.settle_dead_letters(false, $1, $2, $3, $4, $5, $6, $7)
$$;
COMMENT ON FUNCTION retry_all_dead(text, text, text, text, timestamptz, int, jsonb) IS
'Puts dead letters of a queue back into it, all or those that the arguments name; returns how many.';

/*
 * discard_dead: deletes a dead letter for good; jobs that depend on it become
 * dead letters.
 * Errors: EQ017 no such dead letter (or another tenant's).
 */
CREATE FUNCTION discard_dead(job_id bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.dead_letter WHERE job_id = $1 AND event_queue.tenant_visible(tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'See the view event_queue.dead_letters.';
	END IF;
	DELETE FROM event_queue.job_dependency WHERE job_id = $1;
END
$$;
COMMENT ON FUNCTION discard_dead(bigint) IS 'Deletes a dead letter for good.';

/*
 * discard_all_dead: discard_dead for dead letters of a queue, however many.
 * Arguments: as retry_all_dead, without payload.
 * Result: how many.  Errors: EQ003 another tenant, EQ009 negative limit, EQ010
 * no such queue.
 */
CREATE FUNCTION discard_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, "limit" int DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.settle_dead_letters(true, $1, $2, $3, $4, $5, $6, NULL)
$$;
COMMENT ON FUNCTION discard_all_dead(text, text, text, text, timestamptz, int) IS
'Deletes dead letters of a queue for good, all or those that the arguments name; returns how many.';

CREATE VIEW dead_letters WITH (security_invoker = true) AS
	SELECT d.job_id, q.name AS queue, d.tenant_id, d.name, d.reason, d.died_at, d.created_at,
		d.failures, d.stalled, d.errors -> -1 ->> 'message' AS last_error,
		d.errors -> -1 ->> 'sqlstate' AS last_sqlstate, d.priority, d.group_key, d.payload, d.metadata, d.errors
	FROM event_queue.dead_letter d JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW dead_letters IS 'Jobs that failed for good, with their last error and their whole history.';
