/*
 * enqueue.sql: adds jobs to queues: one, or many.
 */

/* Keys of unique_mode throttle: no second job until then. */
CREATE TABLE event_queue_internal.job_throttle (
	queue_id		int NOT NULL,
	tenant_id		text COLLATE "C" NOT NULL,
	unique_key		text COLLATE "C" NOT NULL,
	job_id			bigint NOT NULL,
	until			timestamptz NOT NULL,
	began_at		timestamptz,
	PRIMARY KEY (queue_id, tenant_id, unique_key)
);
ALTER TABLE event_queue_internal.job_throttle ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.job_throttle USING (tenant_visible(tenant_id));
COMMENT ON TABLE event_queue_internal.job_throttle IS 'Internal. For each key of unique_mode throttle, the job of its present window.';
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.job_throttle', '');

/*
 * enqueue: adds one job to a queue, in the caller's transaction.
 *
 * Arguments:
 * - delay (from now) or run_at (a time), not both: the job is not claimed before.
 * - priority: 0 (first) to 9 (last), default 5.
 * - unique_key: while a job of the same queue, tenant and key lives, no second one is added
 *   (see unique_mode).
 * - group_key: jobs of one key run in the order of their ids, as many at a time as the queue's
 *   group_concurrency.
 * - depends_on: ids of jobs that must be finished first.
 * - options: a JSON object with any of the arguments from delay to depends_on that are not
 *   given as such (an interval is a string, as "30 seconds"), and any of:
 *   - max_attempts, backoff, backoff_delay, backoff_max, backoff_jitter, backoff_intervals:
 *     each overrides the queue's; backoff_intervals alone mean backoff list.
 *   - time_limit: how long an attempt may take; no lease is longer.
 *   - unique_mode: what happens while the key is taken.  reject: nothing, with a NOTICE if the
 *     job that has the key is running with another payload.  replace: the waiting job gets the
 *     new payload and priority, and the metadata and time that are given; a running one gives
 *     the key to the new job, which runs when the running one has ended, however it ends.
 *     debounce: replace, and the time begins anew, also if none is given.  throttle: reject,
 *     for unique_window from the first job on, also when that is finished.
 *   - unique_until: finished (default) or claimed: until when the job has the key.
 *   - keep_completed and keep_completed_count, keep_failed and keep_failed_count: how long, or
 *     among how many of its queue, the job is kept when it is finished or dead.  One of a pair
 *     overrides both of the queue's.  keep_completed 0: it is not kept; keep_failed 0: it is
 *     removed within a minute.
 *   - calendar: the delay is working time of this calendar (create_calendar): its days are
 *     working days, its hours, minutes and seconds working hours, as in add_business_time.
 *   - metadata: a JSON object that workers see beside the payload.
 *
 * Result: the job's id; with a unique_key that is taken, the id of the job that has it.
 * Errors: EQ003/EQ004 tenant, EQ005 payload too large, EQ006 name, EQ009 unknown option, option
 * of another type, unique mode, EQ010 no such queue, EQ012 attempts, backoff, time_limit or
 * keep, EQ014 delay, or calendar without one, EQ015 priority, EQ025 no such calendar, EQ032
 * depends_on names no job, EQ058 delay that is no working time.
 * Isolation: with unique_key, sees the latest committed job at every level and waits for an open
 * transaction that uses the key.
 * Example:
 *	SELECT event_queue.enqueue('mail', 'welcome', '{"to": "ana@example.org"}', unique_key => 'welcome L1', options => '{"time_limit": "1 minute"}');
 */
CREATE FUNCTION enqueue(
	queue text, name text, payload jsonb DEFAULT '{}',
	delay interval DEFAULT NULL, run_at timestamptz DEFAULT NULL, priority int DEFAULT NULL,
	unique_key text DEFAULT NULL, group_key text DEFAULT NULL, depends_on bigint[] DEFAULT NULL,
	tenant_id text DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_sql';
COMMENT ON FUNCTION enqueue(text, text, jsonb, interval, timestamptz, int, text, text, bigint[], text, jsonb) IS
'Adds a job to a queue in the caller''s transaction; returns its id.';

/*
 * enqueue_many: adds many jobs in the caller's transaction, all or none; as fast as COPY unless
 * they have unique keys or dependencies.
 * Arguments:
 * - jobs: a JSON array of at most 100000 objects with name, payload and the options of enqueue,
 *   also queue and tenant_id.
 * - queue: of the jobs that name none; NULL if each job names its own.
 * - options: an object with what holds for jobs that don't say otherwise, also name or payload.
 *
 * Result: their ids, in the order of the array; {} if it is empty.
 * Errors: as enqueue; EQ009 malformed jobs.
 * Isolation: waits for nobody while it has some of the keys, so two calls never deadlock,
 * whatever their order.
 * Example:
 *	SELECT event_queue.enqueue_many('mail', jobs => (
 *		SELECT jsonb_agg(jsonb_build_object('payload', jsonb_build_object('lead', n))) FROM generate_series(1, 30) n), options => '{"name": "news"}');
 */
CREATE FUNCTION enqueue_many(queue text, jobs jsonb, tenant_id text DEFAULT NULL, options jsonb DEFAULT NULL)
RETURNS bigint[]
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_enqueue_many';
COMMENT ON FUNCTION enqueue_many(text, jsonb, text, jsonb) IS
'Adds jobs that are given as a JSON array of objects; returns their ids, in its order.';

/*
 * Unique keys of jobs that are written by plain SQL.  lock_free_key: true if no job has
 * the key, and none gets it until unlock_key; EQ044 if an open transaction has it, for
 * which await_conflict waits; is_patient: it looks a few times before that.
 */
CREATE FUNCTION event_queue_internal.lock_free_key(queue_id int, tenant_id text, unique_key text, is_patient boolean) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_lock_free_key';
COMMENT ON FUNCTION event_queue_internal.lock_free_key(int, text, text, boolean) IS
'Internal. Is a unique key free?  If so, it stays that until unlock_key.';
CREATE FUNCTION event_queue_internal.unlock_key(queue_id int, tenant_id text, unique_key text) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_unlock_key_sql';
COMMENT ON FUNCTION event_queue_internal.unlock_key(int, text, text) IS 'Internal. Ends lock_free_key.';
CREATE FUNCTION event_queue_internal.await_conflict() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_await_conflict_sql';
COMMENT ON FUNCTION event_queue_internal.await_conflict() IS
'Internal. Waits for what the last EQ044 was about; called when the locks of the attempt are given back.';
