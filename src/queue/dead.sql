/*
 * dead.sql: dead letters: jobs that failed for good; retried or discarded.
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
	errors			jsonb NOT NULL,
	has_steps		boolean NOT NULL DEFAULT false,
	keep			keep_options
);
COMMENT ON TABLE dead_letter IS 'Jobs that failed for good: reason is attempts, stalled, final or dependency.';
CREATE INDEX dead_letter_queue ON dead_letter (queue_id, died_at, job_id);
CREATE INDEX dead_letter_keep ON dead_letter (queue_id) WHERE NOT (keep IS NULL);
CREATE TRIGGER count_row AFTER INSERT OR DELETE ON dead_letter
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.count_row();
CREATE TRIGGER jobs_loaded AFTER TRUNCATE ON dead_letter
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.jobs_loaded();
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON dead_letter USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('dead_letter', '');

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
	conflicts int := 0;
	d record;
	is_free boolean;
	locked bigint[];
BEGIN
	LOOP
		BEGIN
			-- The order in which all take many dead letters; and no other row from here on: a
			-- job that was retried and has died again meanwhile is one that is not locked.
			SELECT array_agg(x.job_id) INTO locked FROM (
				SELECT y.job_id FROM event_queue.dead_letter y
				WHERE y.job_id = ANY ($1) AND event_queue.tenant_visible(y.tenant_id) ORDER BY y.job_id FOR UPDATE) x;
			PERFORM event_queue_internal.lock_dependencies(locked) WHERE EXISTS (
				SELECT FROM event_queue.dead_letter x WHERE x.job_id = ANY (locked) AND x.reason = 'dependency');
			DELETE FROM event_queue.job_dependency y USING event_queue.dead_letter x
			WHERE x.job_id = ANY (locked) AND x.reason = 'dependency' AND y.job_id = x.job_id;
			WITH dead AS (
				DELETE FROM event_queue.dead_letter x
				WHERE x.job_id = ANY (locked) AND x.unique_key IS NULL RETURNING x.*
			)
			INSERT INTO event_queue.job (job_id, queue_id, lane, tenant_id, name, priority, run_at, created_at,
				max_attempts, retry, time_limit, group_key, has_dependents, payload, metadata, errors, keep, has_steps)
			SELECT x.job_id, x.queue_id, event_queue_internal.job_lane(q.fair, x.tenant_id), x.tenant_id, x.name, x.priority,
				clock_timestamp(), x.created_at, x.max_attempts, x.retry, x.time_limit, x.group_key,
				x.has_dependents, coalesce($2, x.payload), x.metadata, x.errors, x.keep, x.has_steps
			FROM dead x JOIN event_queue.queue q USING (queue_id)
			ORDER BY x.job_id;
			GET DIAGNOSTICS n = ROW_COUNT;
			-- Those with a unique key one by one: no enqueue is between the look and the row.
			FOR d IN WITH dead AS (
					DELETE FROM event_queue.dead_letter x
					WHERE x.job_id = ANY (locked) AND x.unique_key IS NOT NULL RETURNING x.*
				)
				SELECT x.*, event_queue_internal.job_lane(q.fair, x.tenant_id) AS lane
				FROM dead x JOIN event_queue.queue q USING (queue_id) ORDER BY x.job_id
			LOOP
				is_free := event_queue_internal.lock_free_key(d.queue_id, d.tenant_id, d.unique_key, conflicts >= 10);
				INSERT INTO event_queue.job (job_id, queue_id, lane, tenant_id, name, priority, run_at, created_at,
					max_attempts, retry, time_limit, group_key, unique_key, has_dependents, payload, metadata, errors, keep, has_steps)
				VALUES (d.job_id, d.queue_id, d.lane, d.tenant_id, d.name, d.priority, clock_timestamp(), d.created_at,
					d.max_attempts, d.retry, d.time_limit, d.group_key, CASE WHEN is_free THEN d.unique_key END,
					d.has_dependents, coalesce($2, d.payload), d.metadata, d.errors, d.keep, d.has_steps);
				IF is_free THEN
					PERFORM event_queue_internal.unlock_key(d.queue_id, d.tenant_id, d.unique_key);
				END IF;
				n := n + 1;
			END LOOP;
			RETURN n;
		EXCEPTION
			WHEN SQLSTATE 'EQ044' THEN
				-- An open transaction has one of the keys; nothing is held while it is waited for.
				-- Where keys are in use all the time that would never end: then an attempt looks
				-- again a few times (bulk.c does the same).
				conflicts := conflicts + 1;
				PERFORM event_queue_internal.await_conflict();
			WHEN unique_violation THEN
				-- Plain SQL has just written a job with one of the keys; now it can be seen.
				tries := tries + 1;
				IF tries >= 20 THEN
					RAISE;
				END IF;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.revive_dead_letters(bigint[], jsonb) IS 'Internal. What retry_dead and retry_all_dead share.';

/*
 * settle_dead_letters: what retry_all_dead and discard_all_dead share: takes dead letters from
 * the oldest on, but none that came after the call began.  Retries a thousand at a time, to
 * bound memory, and after the first thousand skips those that others have locked.
 */
CREATE FUNCTION event_queue_internal.settle_dead_letters(
	discard boolean, queue text, job_name text, tenant_id text, sqlstate text, died_after timestamptz, max_jobs int,
	payload jsonb)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($2);
	until timestamptz := clock_timestamp();
	above_time timestamptz := coalesce($6, '-infinity');
	above_id bigint := 9223372036854775807;
	ids bigint[];
	total bigint := 0;
	first boolean := true;
BEGIN
	IF $4 IS NOT NULL THEN
		PERFORM event_queue.resolve_tenant($4);
	END IF;
	IF $7 < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'max_jobs must not be negative';
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
			-- discarded all at once, since that locks jobs, too
			ORDER BY d.died_at, d.job_id LIMIT CASE WHEN $1 THEN $7 ELSE least(1000, $7 - total) END) d;
		EXIT WHEN ids IS NULL;
		above_id := ids[cardinality(ids)];
		IF NOT first THEN
			-- Waits for nobody while it holds some: others have those in hand.
			SELECT array_agg(x.job_id) INTO ids FROM (
				SELECT y.job_id FROM event_queue.dead_letter y WHERE y.job_id = ANY (ids) ORDER BY y.job_id FOR UPDATE SKIP LOCKED) x;
			CONTINUE WHEN ids IS NULL;
		END IF;
		first := false;
		IF $1 THEN
			-- At first all that this deletes, also by the trigger bury_dependents: dead letters,
			-- then jobs, in the order in which all take many.  No other dead letter from then on,
			-- as in revive_dead_letters.
			SELECT array_agg(x.job_id) INTO ids FROM (
				SELECT y.job_id FROM event_queue.dead_letter y WHERE y.job_id = ANY (ids) ORDER BY y.job_id FOR UPDATE) x;
			PERFORM event_queue_internal.lock_dependencies(ids);
			PERFORM FROM event_queue.job j WHERE j.job_id = ANY (ARRAY(
				SELECT x.job_id FROM event_queue.job_dependency x WHERE x.depends_on = ANY (ids) AND x.completed_at IS NULL))
			ORDER BY j.job_id FOR UPDATE;
			DELETE FROM event_queue.dead_letter d WHERE d.job_id = ANY (ids);
			GET DIAGNOSTICS total = ROW_COUNT;
			DELETE FROM event_queue.job_dependency x WHERE x.job_id = ANY (ids)
			  AND NOT EXISTS (SELECT FROM event_queue.job j WHERE j.job_id = x.job_id);
			EXIT;
		END IF;
		total := total + event_queue_internal.revive_dead_letters(ids, $8);
	END LOOP;
	PERFORM event_queue_internal.audit(CASE WHEN $1 THEN 'discard_all_dead' ELSE 'retry_all_dead' END, 'queue', $2, $4,
		"after" => jsonb_strip_nulls(jsonb_build_object('job_name', $3, 'sqlstate', $5, 'died_after', $6, 'max_jobs', $7,
			'payload', $8, 'dead_letters', total))) WHERE total > 0;
	RETURN total;
END
$$;
COMMENT ON FUNCTION event_queue_internal.settle_dead_letters(boolean, text, text, text, text, timestamptz, int, jsonb) IS
'Internal. What retry_all_dead and discard_all_dead share.';

/* audited_job: what audit_log keeps of a job: the queue by its name, and without most of its errors. */
CREATE FUNCTION event_queue_internal.audited_job(job jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT jsonb_strip_nulls(jsonb_build_object('queue', (SELECT q.name FROM event_queue.queue q WHERE q.queue_id = ($1 ->> 'queue_id')::int),
		'name', $1 -> 'name', 'priority', $1 -> 'priority', 'payload', $1 -> 'payload', 'died_at', $1 -> 'died_at', 'reason', $1 -> 'reason',
		'error', $1 -> 'errors' -> -1 -> 'message'))
$$;
COMMENT ON FUNCTION event_queue_internal.audited_job(jsonb) IS 'Internal. What audit_log keeps of a job or dead letter.';

/*
 * retry_dead: puts a dead letter back into its queue, due at once, with its
 * attempts counted anew and its errors kept.
 * Arguments: payload: a new one in place of the old; NULL: the old one.
 * Errors: EQ005 payload too large, EQ017 no such dead letter (or another
 * tenant's).
 * Example:
 *	SELECT event_queue.retry_dead(job_id, payload => '{"to": "ana@example.com"}') FROM event_queue.dead_letters WHERE queue = 'mail';
 */
CREATE FUNCTION retry_dead(job_id bigint, payload jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' SET intervalstyle = 'postgres' AS $$
DECLARE
	was jsonb;
BEGIN
	IF $2 IS NOT NULL THEN
		PERFORM event_queue_internal.check_payload($2);
	END IF;
	IF $2 IS NOT NULL AND EXISTS (SELECT FROM event_queue.dead_letter d
		WHERE d.job_id = $1 AND d.queue_id <= 2 AND event_queue.tenant_visible(d.tenant_id)) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ035', MESSAGE = format('dead letter %s is of an internal queue', $1),
			HINT = 'Retry it without a new payload.';
	END IF;
	SELECT to_jsonb(d) INTO was FROM event_queue.dead_letter d WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id);
	IF event_queue_internal.revive_dead_letters(ARRAY[$1], $2) = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'It may have been retried or discarded before: the view event_queue.all_jobs shows where a job is.';
	END IF;
	PERFORM event_queue_internal.audit('retry_dead', 'job', $1::text, was ->> 'tenant_id', event_queue_internal.audited_job(was),
		CASE WHEN $2 IS NOT NULL THEN jsonb_build_object('payload', $2) END);
	RETURN true;
END
$$;
COMMENT ON FUNCTION retry_dead(bigint, jsonb) IS
'Puts a dead letter back into its queue, with a new payload if one is given; its attempts start anew, its errors stay.';

/*
 * retry_all_dead: puts dead letters of a queue back, as retry_dead does, however many.
 * Arguments: job_name, tenant_id, sqlstate (of the last error) and died_after narrow them down;
 * max_jobs: at most so many, the oldest first; payload: a new one for all of them.  A session
 * that is confined to a tenant reaches only that tenant's.
 * Result: how many.
 * Errors: EQ003 another tenant, EQ005 payload too large, EQ009 negative max_jobs, EQ010 no such
 * queue.
 * Example:
 *	SELECT event_queue.retry_all_dead('mail', sqlstate => '08006');
 */
CREATE FUNCTION retry_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, max_jobs int DEFAULT NULL, payload jsonb DEFAULT NULL)
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
 * Example:
 *	SELECT event_queue.discard_dead(job_id) FROM event_queue.dead_letters WHERE last_error = 'no such address';
 */
CREATE FUNCTION discard_dead(job_id bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' SET intervalstyle = 'postgres' AS $$
#variable_conflict use_column
DECLARE
	was jsonb;
BEGIN
	PERFORM FROM event_queue.dead_letter d WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id) FOR UPDATE;
	PERFORM event_queue_internal.lock_dependencies(ARRAY[$1]) WHERE FOUND;
	DELETE FROM event_queue.dead_letter d WHERE d.job_id = $1 AND event_queue.tenant_visible(d.tenant_id) RETURNING to_jsonb(d) INTO was;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ017',
			MESSAGE = format('dead letter %s does not exist', $1),
			HINT = 'It may have been retried or discarded before: the view event_queue.all_jobs shows where a job is.';
	END IF;
	DELETE FROM event_queue.job_dependency WHERE job_id = $1;
	PERFORM event_queue_internal.audit('discard_dead', 'job', $1::text, was ->> 'tenant_id', event_queue_internal.audited_job(was));
	RETURN true;
END
$$;
COMMENT ON FUNCTION discard_dead(bigint) IS 'Deletes a dead letter for good.';

/*
 * discard_all_dead: deletes dead letters of a queue, as discard_dead does, however many.
 * Arguments: as retry_all_dead, without payload.
 * Result: how many.  Errors: EQ003 another tenant, EQ009 negative max_jobs, EQ010 no such queue.
 * Example:
 *	SELECT event_queue.discard_all_dead('mail', died_after => now() - interval '1 day');
 */
CREATE FUNCTION discard_all_dead(
	queue text, job_name text DEFAULT NULL, tenant_id text DEFAULT NULL, sqlstate text DEFAULT NULL,
	died_after timestamptz DEFAULT NULL, max_jobs int DEFAULT NULL)
RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.settle_dead_letters(true, $1, $2, $3, $4, $5, $6, NULL)
$$;
COMMENT ON FUNCTION discard_all_dead(text, text, text, text, timestamptz, int) IS
'Deletes dead letters of a queue for good, all or those that the arguments name; returns how many.';

/*
 * import_dead: adds a dead letter of a job that failed in another queue system; it is retried
 * and discarded as any other.
 * Arguments:
 * - error: its last error; NULL: none is known.
 * - context: where that was (a stack).  Of error and context, 2,000 characters each are kept.
 * - failures: how often it failed there.
 * - options: as of enqueue, without those of time and depends_on (a unique_key counts when it
 *   is retried).
 * - died_at, created_at: NULL: now.
 *
 * Result: its id.
 * Errors: as enqueue; EQ009 failures below 1, times that are in the future or not in order, an
 * option of time or depends_on.
 * Example:
 *	SELECT event_queue.import_dead('mail', 'welcome', '{"to": "ana@example.org"}', 'no such address', failures => 3);
 */
CREATE FUNCTION import_dead(
	queue text, name text, payload jsonb DEFAULT '{}', error text DEFAULT NULL, failures int DEFAULT 1,
	options jsonb DEFAULT NULL, died_at timestamptz DEFAULT NULL, created_at timestamptz DEFAULT NULL,
	context text DEFAULT NULL, tenant_id text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
#variable_conflict use_variable
DECLARE
	died CONSTANT timestamptz := coalesce(died_at, clock_timestamp());
	made CONSTANT timestamptz := coalesce(created_at, died);
	is_object CONSTANT boolean := coalesce(jsonb_typeof(options) = 'object', false);
	-- not enqueued below, since a living job may have the key; NULL: none, or an invalid one
	key CONSTANT text := CASE WHEN is_object AND jsonb_typeof(options -> 'unique_key') IN ('string', 'number') THEN options ->> 'unique_key' END;
	id bigint;
BEGIN
	IF failures IS NULL OR failures < 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'failures must be at least 1';
	END IF;
	IF NOT isfinite(died) OR NOT isfinite(made) OR made > died OR died > clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'died_at must not be in the future, nor before created_at';
	END IF;
	IF is_object AND options ?| ARRAY['delay', 'run_at', 'depends_on', 'unique_mode', 'unique_until', 'unique_window'] THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'options of a dead letter are those that its job is retried with',
			HINT = 'Leave out delay, run_at, depends_on, unique_mode, unique_until and unique_window.';
	END IF;
	IF key IS NOT NULL THEN
		PERFORM event_queue_internal.check_name('unique key', key);
	END IF;
	-- As a job first, so that all is checked as for one.
	id := event_queue.enqueue(queue, name, payload, tenant_id => tenant_id,
		options => CASE WHEN key IS NULL THEN options ELSE options - 'unique_key' END);
	WITH gone AS (
		DELETE FROM event_queue.job j WHERE j.job_id = id RETURNING j.*
	)
	INSERT INTO event_queue.dead_letter (job_id, queue_id, tenant_id, name, priority, created_at, died_at, reason, failures, stalled,
		max_attempts, retry, time_limit, group_key, unique_key, has_dependents, payload, metadata, errors, keep)
	SELECT g.job_id, g.queue_id, g.tenant_id, g.name, g.priority, made, died, 'attempts', failures, 0,
		g.max_attempts, g.retry, g.time_limit, g.group_key, key, false, g.payload, coalesce(g.metadata, '{}'),
		CASE WHEN error IS NULL THEN '[]' ELSE jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('attempt', failures, 'at', died,
			'worker', 'import', 'message', left(error, 2000), 'context', left(context, 2000)))) END, g.keep
	FROM gone g;
	PERFORM event_queue_internal.audit('import_dead', 'job', id::text, event_queue.resolve_tenant(tenant_id),
		"after" => jsonb_build_object('queue', queue, 'name', name));
	RETURN id;
END
$$;
COMMENT ON FUNCTION import_dead(text, text, jsonb, text, int, jsonb, timestamptz, timestamptz, text, text) IS
'Adds a dead letter that failed elsewhere, to be retried or discarded here; returns its id.';

CREATE VIEW dead_letters WITH (security_invoker = true) AS
	SELECT d.job_id, q.name AS queue, d.tenant_id, d.name, d.reason, d.died_at, d.created_at,
		d.failures, d.stalled, d.errors -> -1 ->> 'message' AS last_error,
		d.errors -> -1 ->> 'sqlstate' AS last_sqlstate, d.priority, d.group_key, d.payload, d.metadata, d.errors,
		d.errors -> -1 -> 'handler' AS handler
	FROM event_queue.dead_letter d JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW dead_letters IS 'Jobs that failed for good, with their last error, which code of which handler had it, and their whole history.';
