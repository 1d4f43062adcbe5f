/*
 * enqueue.sql: jobs come: one, many of one kind, many with options of their own.
 */

/* Keys of unique_mode throttle: no second job until then. */
CREATE TABLE job_throttle (
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	unique_key		text COLLATE "C" NOT NULL,
	job_id			bigint NOT NULL,
	until			timestamptz NOT NULL,
	PRIMARY KEY (queue_id, tenant_id, unique_key)
);
ALTER TABLE job_throttle ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON job_throttle USING (tenant_visible(tenant_id));
COMMENT ON TABLE job_throttle IS 'Internal. For each key of unique_mode throttle, the job of its present window.';
SELECT pg_catalog.pg_extension_config_dump('job_throttle', '');

/*
 * enqueue: one job, in the caller's transaction.
 *
 * Arguments: delay (from now) or run_at (a time), not both; priority 0 (first)
 * to 9 (last), default 5; max_attempts, backoff, backoff_delay, backoff_max,
 * backoff_jitter and backoff_intervals override the queue's, each by itself;
 * backoff_intervals alone mean backoff list; time_limit: how long an attempt may take: no lease is longer.
 * unique_key: while a job of the same queue, tenant and key lives, no second
 * one is made; unique_mode says what happens instead: reject (nothing; a NOTICE if
 * the job that has the key is running with another payload), replace (the waiting
 * job gets the new payload, priority and time; one that is running gives the key to
 * the new job, which runs when that has ended, however), debounce (replace, and the
 * time begins anew), throttle (reject, for unique_window from the first
 * one on, also when it is finished); unique_until is finished or claimed.
 * group_key: jobs of one key run in the order of their ids, as many at a time as
 * the queue's group_concurrency.  depends_on: ids of jobs that must be finished
 * first.
 * Result: the job's id; with a unique_key that is taken, the id of the job that
 * has it.
 * Errors: EQ003/EQ004 tenant, EQ005 payload too large, EQ006 name, EQ009 unique
 * mode, EQ010 no such queue, EQ012 attempts, backoff or time_limit, EQ014 delay,
 * EQ015 priority, EQ032 depends_on names no job.
 * Isolation: with unique_key, sees the latest committed job at every level and
 * waits for an open transaction that uses the key.
 */
CREATE FUNCTION enqueue(
	queue text, name text, payload jsonb DEFAULT '{}',
	delay interval DEFAULT NULL, run_at timestamptz DEFAULT NULL,
	priority int DEFAULT 5, max_attempts int DEFAULT NULL,
	backoff text DEFAULT NULL, backoff_delay interval DEFAULT NULL,
	unique_key text DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL,
	group_key text DEFAULT NULL, time_limit interval DEFAULT NULL,
	unique_mode text DEFAULT 'reject', unique_until text DEFAULT 'finished', unique_window interval DEFAULT NULL,
	depends_on bigint[] DEFAULT NULL, backoff_max interval DEFAULT NULL,
	backoff_jitter float8 DEFAULT NULL, backoff_intervals interval[] DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_sql';
COMMENT ON FUNCTION enqueue(text, text, jsonb, interval, timestamptz, int, int, text, interval, text, jsonb, text, text, interval, text, text, interval, bigint[], interval, float8, interval[]) IS
'Adds a job to a queue in the caller''s transaction; returns its id.';

/*
 * enqueue_many: many jobs of one name, in the caller's transaction, as fast as
 * COPY.
 * Arguments: payloads, one for each job, at most 100000; group_keys: NULL, or one for
 * each payload; the rest as enqueue.  Unique keys, backoff and other options, and
 * names of their own, are enqueue_jobs'.
 * Result: their ids, in their order.
 * Errors: as enqueue.
 */
CREATE FUNCTION enqueue_many(
	queue text, name text, payloads jsonb[],
	delay interval DEFAULT NULL, run_at timestamptz DEFAULT NULL, priority int DEFAULT 5,
	group_keys text[] DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant_id text DEFAULT NULL)
RETURNS bigint[]
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_many';
COMMENT ON FUNCTION enqueue_many(text, text, jsonb[], interval, timestamptz, int, text[], jsonb, text) IS
'Adds many jobs of one name, a payload each; returns their ids.';

/*
 * Unique keys of jobs that are written by plain SQL.  lock_free_key: true if no job has
 * the key, and none gets it until unlock_key; EQ044 if an open transaction has it, for
 * which await_conflict waits.
 */
CREATE FUNCTION event_queue_internal.lock_free_key(queue_id int, tenant_id text, unique_key text) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_lock_free_key';
COMMENT ON FUNCTION event_queue_internal.lock_free_key(int, text, text) IS
'Internal. Is a unique key free?  If so, it stays that until unlock_key.';
CREATE FUNCTION event_queue_internal.unlock_key(queue_id int, tenant_id text, unique_key text) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_unlock_key_sql';
COMMENT ON FUNCTION event_queue_internal.unlock_key(int, text, text) IS 'Internal. Ends lock_free_key.';
CREATE FUNCTION event_queue_internal.await_conflict() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_await_conflict_sql';
COMMENT ON FUNCTION event_queue_internal.await_conflict() IS
'Internal. Waits for what the last EQ044 was about; called when the locks of the attempt are given back.';

/*
 * enqueue_jobs: many jobs with options of their own, all or none.
 * Arguments: jobs is a JSON array of objects with the arguments of enqueue
 * (queue may be left out if the first argument names one).
 * Result: their ids, in their order.  Errors: as enqueue; EQ009 malformed jobs.
 * Isolation: waits for nobody while it has some of the keys, so two calls never
 * deadlock, whatever their order.
 */
CREATE FUNCTION enqueue_jobs(jobs jsonb, queue text DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS SETOF bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	unknown text;
	ids bigint[];
	tries int := 0;
	attempt int := 0;
	attempt_outside text := current_setting('event_queue.enqueue_attempt');
BEGIN
	IF jobs IS NULL OR jsonb_typeof(jobs) <> 'array' OR EXISTS (
		SELECT FROM jsonb_array_elements(jobs) j WHERE jsonb_typeof(j) <> 'object') THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'jobs must be a JSON array of objects';
	END IF;
	SELECT k INTO unknown FROM jsonb_array_elements(jobs) j, jsonb_object_keys(j) k
	WHERE k NOT IN ('queue', 'name', 'payload', 'delay', 'run_at', 'priority', 'max_attempts', 'backoff', 'backoff_delay',
		'unique_key', 'metadata', 'tenant_id', 'group_key', 'time_limit', 'unique_mode', 'unique_until', 'unique_window',
		'depends_on', 'backoff_max', 'backoff_jitter', 'backoff_intervals') LIMIT 1;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = format('unknown option "%s" of a job', unknown),
			HINT = 'Options are the arguments of event_queue.enqueue.';
	END IF;
	SELECT o.key INTO unknown FROM jsonb_array_elements(jobs) j, jsonb_each(j) o
	WHERE jsonb_typeof(o.value) NOT IN ('null', 'array') AND o.key IN ('depends_on', 'backoff_intervals')
	   OR jsonb_typeof(o.value) IN ('object', 'array')
		AND o.key NOT IN ('payload', 'metadata', 'depends_on', 'backoff_intervals') LIMIT 1;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'malformed option of a job',
			DETAIL = format('%s has the wrong JSON type.', unknown);
	END IF;
	LOOP
		BEGIN
			-- Waits for nobody while it holds some of the keys (bulk.c).
			PERFORM set_config('event_queue.enqueue_attempt', (attempt + 1)::text, true) WHERE attempt_outside = '0';
			ids := ARRAY(SELECT event_queue.enqueue(coalesce(j ->> 'queue', $2), j ->> 'name', coalesce(j -> 'payload', '{}'),
				(j ->> 'delay')::interval, (j ->> 'run_at')::timestamptz, coalesce((j ->> 'priority')::int, 5),
				(j ->> 'max_attempts')::int, j ->> 'backoff', (j ->> 'backoff_delay')::interval,
				j ->> 'unique_key', coalesce(j -> 'metadata', '{}'), coalesce(j ->> 'tenant_id', $3),
				j ->> 'group_key', (j ->> 'time_limit')::interval, coalesce(j ->> 'unique_mode', 'reject'),
				coalesce(j ->> 'unique_until', 'finished'), (j ->> 'unique_window')::interval,
				CASE WHEN j ->> 'depends_on' IS NOT NULL THEN ARRAY(SELECT d::bigint FROM jsonb_array_elements_text(j -> 'depends_on') d) END,
				(j ->> 'backoff_max')::interval, (j ->> 'backoff_jitter')::float8,
				CASE WHEN j ->> 'backoff_intervals' IS NOT NULL THEN ARRAY(SELECT i::interval FROM jsonb_array_elements_text(j -> 'backoff_intervals')
					WITH ORDINALITY AS b (i, nth) ORDER BY nth) END)
			FROM jsonb_array_elements(jobs) WITH ORDINALITY AS x (j, n) ORDER BY n);
			PERFORM set_config('event_queue.enqueue_attempt', attempt_outside, true);
			EXIT;
		EXCEPTION
			WHEN SQLSTATE 'EQ044' THEN
				-- Who called us holds something too, and begins again.
				IF attempt_outside <> '0' THEN
					RAISE;
				END IF;
				attempt := attempt + 1;
			WHEN deadlock_detected OR unique_violation THEN
				-- Windows of throttle in another order; a job that plain SQL has written.
				tries := tries + 1;
				IF tries >= 20 THEN
					RAISE;
				END IF;
				PERFORM pg_sleep(0.01 * tries * (0.5 + random()));
		END;
	END LOOP;
	RETURN QUERY SELECT unnest(ids);
EXCEPTION WHEN data_exception THEN
	RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'malformed option of a job', DETAIL = SQLERRM || '.';
END
$$;
COMMENT ON FUNCTION enqueue_jobs(jsonb, text, text) IS
'Adds jobs that are given as a JSON array of objects with enqueue''s arguments; returns their ids.';
