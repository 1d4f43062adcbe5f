/*
 * queue.sql: queues and their settings; pausing, draining, dropping.
 */

CREATE TABLE queue (
	queue_id			int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name				text NOT NULL CONSTRAINT queue_name_key UNIQUE,
	lease				interval NOT NULL DEFAULT '30 seconds',
	stalled_interval	interval NOT NULL DEFAULT '5 seconds',
	max_stalled			int NOT NULL DEFAULT 2,
	max_attempts		int NOT NULL DEFAULT 3,
	backoff				text NOT NULL DEFAULT 'exponential',
	backoff_delay		interval NOT NULL DEFAULT '2 seconds',
	backoff_max			interval NOT NULL DEFAULT '1 hour',
	backoff_jitter		float8 NOT NULL DEFAULT 0,
	keep_completed		interval,
	keep_failed			interval,
	rate_limit			int,
	rate_interval		interval NOT NULL DEFAULT '1 second',
	max_concurrency		int,
	sla					interval,
	backoff_intervals	interval[],
	keep_completed_count int,
	keep_failed_count	int,
	fair				boolean NOT NULL DEFAULT false,
	group_concurrency	int NOT NULL DEFAULT 1,
	group_rate_limit	int,
	group_rate_interval	interval NOT NULL DEFAULT '1 second',
	group_retry			text NOT NULL DEFAULT 'block',
	durable				boolean NOT NULL DEFAULT true,
	paused				boolean NOT NULL DEFAULT false,
	draining			boolean NOT NULL DEFAULT false,
	created_at			timestamptz NOT NULL DEFAULT now(),
	sla_target			float8 NOT NULL DEFAULT 0.99,
	owner				text,
	docs_url			text,
	job_events			boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE queue IS 'Queues and their settings; written by create_queue and its kin.';
COMMENT ON COLUMN queue.lease IS 'How long a claimed job belongs to its worker (Bull: lockDuration).';
COMMENT ON COLUMN queue.stalled_interval IS 'How often the scheduler looks for leases that ran out (Bull: stalledInterval).';
COMMENT ON COLUMN queue.max_stalled IS 'How often a job may be claimed again after its lease ran out (Bull: maxStalledCount).';
COMMENT ON COLUMN queue.max_attempts IS 'How often a job is tried before it is a dead letter (Bull: attempts).';
COMMENT ON COLUMN queue.backoff IS 'After the n-th failure: exponential (BullMQ''s): backoff_delay x 2^(n-1); bull (Bull''s): backoff_delay x (2^n - 1); linear: backoff_delay x n; fixed: backoff_delay; list: the n-th of backoff_intervals, or its last.';
COMMENT ON COLUMN queue.backoff_max IS 'No wait between attempts is longer than this.';
COMMENT ON COLUMN queue.backoff_jitter IS 'Share of each wait, 0 to 1, that is drawn at random.';
COMMENT ON COLUMN queue.keep_completed IS 'How long jobs that finish from now on stay in the view history; 1000 years: forever; NULL: not at all, or by keep_completed_count alone.';
COMMENT ON COLUMN queue.keep_failed IS 'How long dead letters stay; NULL: forever, until someone retries or discards them.';
COMMENT ON COLUMN queue.keep_completed_count IS 'Number of finished jobs that the view history keeps, the newest; older ones are deleted once a minute.';
COMMENT ON COLUMN queue.keep_failed_count IS 'Number of dead letters that are kept, the newest; older ones are deleted once a minute.';
COMMENT ON COLUMN queue.fair IS 'Tenants take turns, however many jobs each has; priorities count within a tenant.';
COMMENT ON COLUMN queue.group_concurrency IS 'Maximum number of jobs of one group_key that are ready or leased at a time.';
COMMENT ON COLUMN queue.group_rate_limit IS 'Claims of one group_key in a group_rate_interval on average, and at once after a quiet time; NULL: no limit.';
COMMENT ON COLUMN queue.group_retry IS 'While a job of a group waits for its next attempt: block: the others wait; pass: they go on.';
COMMENT ON COLUMN queue.durable IS 'False: settling a job does not wait for the disk; a crash may have it done again.';
COMMENT ON COLUMN queue.rate_limit IS 'Claims in a rate_interval on average, and at once after a quiet time (a token bucket); NULL: no limit.';
COMMENT ON COLUMN queue.max_concurrency IS 'At most this many jobs leased at a time; NULL: no limit.';
COMMENT ON COLUMN queue.sla_target IS 'The share of jobs that should be finished within sla; see slo_status.';
COMMENT ON COLUMN queue.owner IS 'Who looks after the queue: a person or team, for alerts and dashboards.';
COMMENT ON COLUMN queue.job_events IS 'The end of each of its jobs is an event: job.completed or job.dead.';
COMMENT ON COLUMN queue.docs_url IS 'Address of the document that says what to do when something is wrong with the queue.';
COMMENT ON COLUMN queue.sla IS 'A job should be finished this long after it became due; seen in queue_status.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON queue
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
SELECT pg_catalog.pg_extension_config_dump('queue', 'WHERE queue_id > 2');
SELECT pg_catalog.pg_extension_config_dump('queue_queue_id_seq', '');

/*
 * job_settings_complaint: what is wrong with those settings that a job may have of
 * its own; NULL: nothing.  Their limits are those of jobs, in option_list.c.
 */
CREATE FUNCTION event_queue_internal.job_settings_complaint(
	max_attempts int, backoff text, backoff_delay interval, backoff_max interval, backoff_jitter float8,
	backoff_intervals interval[]) RETURNS text
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'eq_job_settings_complaint';
COMMENT ON FUNCTION event_queue_internal.job_settings_complaint(int, text, interval, interval, float8, interval[]) IS
'Internal. What is wrong with settings of a queue that a job may override; NULL: nothing.';

/*
 * check_job_options: an error unless a schedule may have these options and this
 * priority.  Result: the priority; the default if none is given, NULL if options have it.
 */
CREATE FUNCTION event_queue_internal.check_job_options(queue text, options jsonb, priority int) RETURNS int
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_check_job_options_sql';
COMMENT ON FUNCTION event_queue_internal.check_job_options(text, jsonb, int) IS
'Internal. An error unless these are options that enqueue takes; the priority to be stored beside them.';

/*
 * check_queue_settings: row trigger that turns a bad setting into EQ012 with
 * the setting's name, whatever wrote it.
 */
CREATE FUNCTION event_queue_internal.check_queue_settings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	bad text;
BEGIN
	IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND OLD.queue_id <= 2 AND
		(NEW.queue_id, NEW.name, NEW.draining) IS DISTINCT FROM (OLD.queue_id, OLD.name, false)) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ035', MESSAGE = format('queue "%s" is internal', OLD.name),
			HINT = 'Its settings can be changed with event_queue.alter_queue.';
	END IF;
	PERFORM event_queue_internal.check_name('queue name', NEW.name, 50);	-- so that its NOTIFY channel fits in 63 bytes
	bad := CASE
		WHEN NEW.lease IS NULL OR NEW.lease < '1 second' OR NEW.lease > '1 day' THEN 'lease must be between 1 second and 1 day'
		WHEN NEW.stalled_interval IS NULL OR NEW.stalled_interval < '100 milliseconds' OR NEW.stalled_interval > '1 hour' THEN 'stalled_interval must be between 100 milliseconds and 1 hour'
		WHEN NEW.max_stalled IS NULL OR NEW.max_stalled NOT BETWEEN 0 AND 1000 THEN 'max_stalled must be between 0 and 1000'
		WHEN NEW.keep_completed < '0' OR NEW.keep_completed > '1000 years' THEN 'keep_completed must be between 0 and 1000 years, which means forever'
		WHEN NEW.keep_failed < '0' OR NEW.keep_failed > '1000 years' THEN 'keep_failed must be between 0 and 1000 years; NULL means forever'
		WHEN NEW.rate_limit NOT BETWEEN 1 AND 1000000 THEN 'rate_limit must be between 1 and 1000000'
		WHEN NEW.rate_interval IS NULL OR NEW.rate_interval < '1 millisecond' OR NEW.rate_interval > '1 day' THEN 'rate_interval must be between 1 millisecond and 1 day'
		WHEN NEW.max_concurrency NOT BETWEEN 1 AND 100000 THEN 'max_concurrency must be between 1 and 100000'
		WHEN NEW.sla <= '0' OR NEW.sla > '1000 years' THEN 'sla must be above 0 and at most 1000 years'
		WHEN NEW.sla_target IS NULL OR NOT (NEW.sla_target > 0 AND NEW.sla_target < 1) THEN 'sla_target must be between 0 and 1, without these'
		WHEN length(NEW.owner) > 255 THEN 'owner must be at most 255 characters long'
		WHEN length(NEW.docs_url) > 2000 THEN 'docs_url must be at most 2000 characters long'
		WHEN NEW.keep_completed_count < 1 THEN 'keep_completed_count must be at least 1'
		WHEN NEW.keep_failed_count < 1 THEN 'keep_failed_count must be at least 1'
		WHEN NEW.fair IS NULL THEN 'fair must be true or false'
		WHEN NEW.durable IS NULL THEN 'durable must be true or false'
		WHEN NEW.job_events IS NULL THEN 'job_events must be true or false'
		WHEN NEW.job_events AND NEW.queue_id <= 2 THEN 'job_events is not for internal queues'
		WHEN NEW.group_concurrency IS NULL OR NEW.group_concurrency NOT BETWEEN 1 AND 1000 THEN 'group_concurrency must be between 1 and 1000'
		WHEN NEW.group_rate_limit NOT BETWEEN 1 AND 1000000 THEN 'group_rate_limit must be between 1 and 1000000'
		WHEN NEW.group_rate_interval IS NULL OR NEW.group_rate_interval < '1 millisecond' OR NEW.group_rate_interval > '1 day' THEN 'group_rate_interval must be between 1 millisecond and 1 day'
		WHEN NEW.group_retry IS NULL OR NEW.group_retry NOT IN ('block', 'pass') THEN 'group_retry must be block or pass'
		ELSE event_queue_internal.job_settings_complaint(NEW.max_attempts, NEW.backoff, NEW.backoff_delay,
			NEW.backoff_max, NEW.backoff_jitter, nullif(NEW.backoff_intervals, '{}'))
	END;
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012',
			MESSAGE = format('invalid setting for queue "%s"', NEW.name), DETAIL = bad || '.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION event_queue_internal.check_queue_settings() IS 'Internal. Trigger: checks a queue''s settings (EQ012).';
CREATE TRIGGER check_queue_settings BEFORE INSERT OR UPDATE ON queue
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.check_queue_settings();
CREATE TRIGGER keep_internal_queue BEFORE DELETE ON queue
	FOR EACH ROW WHEN (OLD.queue_id <= 2) EXECUTE FUNCTION event_queue_internal.check_queue_settings();

/* limits_changed: row trigger that has rate_limit and max_concurrency hold from the commit on. */
CREATE FUNCTION event_queue_internal.limits_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_limits_changed';
COMMENT ON FUNCTION event_queue_internal.limits_changed() IS 'Internal. Trigger: has changed limits of a queue hold from the commit on.';
CREATE TRIGGER limits_changed AFTER INSERT OR UPDATE OR DELETE ON queue
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.limits_changed();

/* slot_changed: row trigger that gives a queue or channel its slot in shared memory, or refuses it (53400). */
CREATE FUNCTION event_queue_internal.slot_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_slot_changed';
COMMENT ON FUNCTION event_queue_internal.slot_changed() IS 'Internal. Trigger: gives a queue or channel its slot in shared memory, and frees it; 53400 if none is free.';
CREATE TRIGGER slot_changed AFTER INSERT OR DELETE ON queue
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.slot_changed(1);

/*
 * apply_queue_settings: what a change of settings does to the jobs that are there.
 *
 * fair: they move to the lanes of their tenants, or into the one lane.  Rows that
 * others hold are skipped: move_lanes, called by the scheduler, finds them, and
 * those that come from transactions that began before.
 * group_concurrency, group_retry: the scheduler looks at each group that waits.
 * group_rate_limit: keys keep what they have used; jobs that were postponed keep
 * their time.
 */
CREATE FUNCTION event_queue_internal.apply_queue_settings() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	at timestamptz := clock_timestamp();
BEGIN
	IF NEW.fair <> OLD.fair THEN
		UPDATE event_queue.job j SET lane = CASE WHEN j.run_at <= at THEN event_queue_internal.job_lane(NEW.fair, j.tenant_id) ELSE 0 END
		WHERE j.job_id = ANY (ARRAY(SELECT x.job_id FROM event_queue.job x WHERE x.queue_id = NEW.queue_id FOR UPDATE SKIP LOCKED));
	END IF;
	IF NEW.group_retry = 'pass' AND OLD.group_retry = 'block' THEN
		-- As fail would have left them.
		UPDATE event_queue.job j SET blocked = 1
		WHERE j.job_id = ANY (ARRAY(SELECT x.job_id FROM event_queue.job x
			WHERE x.queue_id = NEW.queue_id AND x.group_key IS NOT NULL AND x.blocked = 0 AND x.failures > 0
			  AND x.run_at > at AND x.leased_until IS NULL FOR UPDATE SKIP LOCKED));
	END IF;
	IF NEW.group_concurrency > OLD.group_concurrency OR NEW.group_retry <> OLD.group_retry THEN
		INSERT INTO event_queue_internal.job_review (queue_id, tenant_id, group_key)
		SELECT DISTINCT j.queue_id, j.tenant_id, j.group_key FROM event_queue.job j
		WHERE j.queue_id = NEW.queue_id AND j.group_key IS NOT NULL AND j.blocked = 1;
	END IF;
	IF NEW.group_rate_limit IS NULL AND OLD.group_rate_limit IS NOT NULL THEN
		DELETE FROM event_queue_internal.group_rate g WHERE g.queue_id = NEW.queue_id;
	ELSIF (NEW.group_rate_limit, NEW.group_rate_interval) <> (OLD.group_rate_limit, OLD.group_rate_interval) THEN
		UPDATE event_queue_internal.group_rate g SET next_at = at + NEW.group_rate_interval / NEW.group_rate_limit * least(NEW.group_rate_limit,
			extract(epoch FROM g.next_at - at) / extract(epoch FROM OLD.group_rate_interval / OLD.group_rate_limit))
		WHERE g.queue_id = NEW.queue_id AND g.next_at > at;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.apply_queue_settings() IS 'Internal. Trigger: has changed settings of a queue hold for the jobs that are there.';
CREATE TRIGGER apply_queue_settings AFTER UPDATE ON queue
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.apply_queue_settings();

/*
 * move_lanes: moves jobs to lane 0 that were enqueued into other lanes although their queue is
 * no longer fair.  Called by the scheduler at each sweep.  (Jobs in lane 0 of a queue that has
 * become fair need nothing: the scheduler moves due jobs from there to their lanes.)
 */
CREATE FUNCTION event_queue_internal.move_lanes() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
DECLARE
	q record;
BEGIN
	FOR q IN SELECT x.queue_id, x.name FROM event_queue.queue x WHERE NOT x.fair LOOP
		-- One look-up in job_order; an UPDATE of no row would have the scheduler look everywhere.
		CONTINUE WHEN (SELECT min(j.lane) FROM event_queue.job j
			WHERE j.queue_id = q.queue_id AND j.blocked = 0 AND j.lane > 0) IS NULL;
		BEGIN
			-- By the setting of this statement's own snapshot: it may have changed since.
			UPDATE event_queue.job j SET lane = 0
			WHERE j.job_id = ANY (ARRAY(SELECT x.job_id FROM event_queue.queue s JOIN event_queue.job x USING (queue_id)
				WHERE s.queue_id = q.queue_id AND NOT s.fair AND x.blocked = 0 AND x.lane > 0
				FOR UPDATE OF x SKIP LOCKED));
			PERFORM event_queue_internal.clear_fault('lanes of queue', q.name);
		EXCEPTION
			WHEN lock_not_available THEN
				RAISE;
			WHEN OTHERS THEN
				PERFORM event_queue_internal.note_fault('lanes of queue', q.name, NULL, SQLSTATE, SQLERRM);
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.move_lanes() IS 'Internal. Moves jobs that are in a lane of before their queue ceased to be fair.';

/* job_lane: the lane of a tenant's jobs: 0, or in a fair queue one of the tenant's own. */
CREATE FUNCTION event_queue_internal.job_lane(fair boolean, tenant_id text) RETURNS int
LANGUAGE C IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'eq_job_lane_sql';
COMMENT ON FUNCTION event_queue_internal.job_lane(boolean, text) IS 'Internal. Which lane of its queue a tenant''s job is in.';

/* check_payload: EQ005 if a payload is larger than event_queue.max_payload. */
CREATE FUNCTION event_queue_internal.check_payload(payload jsonb) RETURNS void
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'eq_check_payload_sql';
COMMENT ON FUNCTION event_queue_internal.check_payload(jsonb) IS 'Internal. EQ005 if a payload is larger than event_queue.max_payload.';

/* queue_id_of: a queue's id. Errors: EQ006 without a name, EQ010 if there is no such queue. */
CREATE FUNCTION event_queue_internal.queue_id_of(queue text) RETURNS int
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	found_id int := (SELECT q.queue_id FROM event_queue.queue q WHERE q.name = $1);
BEGIN
	IF coalesce($1, '') = '' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ006', MESSAGE = 'queue name must not be empty',
			HINT = 'Name a queue of event_queue.queue.';
	END IF;
	IF found_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ010',
			MESSAGE = format('queue "%s" does not exist', $1),
			HINT = format('Create it with event_queue.create_queue(%L).', $1);
	END IF;
	RETURN found_id;
END
$$;
COMMENT ON FUNCTION event_queue_internal.queue_id_of(text) IS 'Internal. A queue''s number; EQ006 without a name, EQ010 if there is no such queue.';

/*
 * create_queue: creates a queue.
 * Arguments:
 * - the settings: see Settings of a queue in the reference.
 * - or_replace: a queue of this name keeps its jobs and gets all settings as they are given
 *   here, the others their defaults, live as by alter_queue.
 * - if_not_exists: a queue of this name stays as it is, with a NOTICE if its settings differ.
 *
 * Result: the queue's number.
 * Errors: EQ006 bad name, EQ009 both or_replace and if_not_exists, EQ011 the queue exists, EQ012
 * bad setting, 53400 no room in shared memory (event_queue.max_queues).
 * Example:
 *	SELECT event_queue.create_queue('mail', max_attempts => 5, keep_completed => '7 days', or_replace => true);
 */
CREATE FUNCTION create_queue(
	name text,
	lease interval DEFAULT '30 seconds',
	stalled_interval interval DEFAULT '5 seconds',
	max_stalled int DEFAULT 2,
	max_attempts int DEFAULT 3,
	backoff text DEFAULT 'exponential',
	backoff_delay interval DEFAULT '2 seconds',
	backoff_max interval DEFAULT '1 hour',
	backoff_jitter float8 DEFAULT 0,
	keep_completed interval DEFAULT NULL,
	keep_failed interval DEFAULT NULL,
	rate_limit int DEFAULT NULL,
	rate_interval interval DEFAULT '1 second',
	max_concurrency int DEFAULT NULL,
	sla interval DEFAULT NULL,
	backoff_intervals interval[] DEFAULT NULL,
	keep_completed_count int DEFAULT NULL,
	keep_failed_count int DEFAULT NULL,
	fair boolean DEFAULT false,
	group_concurrency int DEFAULT 1,
	group_rate_limit int DEFAULT NULL,
	group_rate_interval interval DEFAULT '1 second',
	group_retry text DEFAULT 'block',
	durable boolean DEFAULT true,
	sla_target float8 DEFAULT 0.99,
	owner text DEFAULT NULL,
	docs_url text DEFAULT NULL,
	job_events boolean DEFAULT false,
	or_replace boolean DEFAULT false,
	if_not_exists boolean DEFAULT false)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_variable
DECLARE
	new_id int;
	same boolean;
BEGIN
	PERFORM event_queue_internal.check_create_mode(or_replace, if_not_exists);
	PERFORM event_queue_internal.check_name('queue name', name, 50);
	INSERT INTO event_queue.queue AS q (name, lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, sla_target, owner, docs_url, job_events)
	VALUES (name, lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, sla_target, owner, docs_url, job_events)
	ON CONFLICT ON CONSTRAINT queue_name_key DO NOTHING
	RETURNING q.queue_id INTO new_id;
	IF new_id IS NOT NULL THEN
		RETURN new_id;
	END IF;
	IF (or_replace OR if_not_exists) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ011',
			MESSAGE = format('queue "%s" already exists', name),
			HINT = 'Change its settings with event_queue.alter_queue, or by or_replace => true.';
	END IF;
	SELECT q.queue_id,
		(q.lease, q.stalled_interval, q.max_stalled, q.max_attempts, q.backoff, q.backoff_delay, q.backoff_max,
			q.backoff_jitter, q.keep_completed, q.keep_failed, q.rate_limit, q.rate_interval, q.max_concurrency, q.sla,
			q.backoff_intervals, q.keep_completed_count, q.keep_failed_count, q.fair, q.group_concurrency,
			q.group_rate_limit, q.group_rate_interval, q.group_retry, q.durable, q.sla_target, q.owner, q.docs_url, q.job_events)
		IS NOT DISTINCT FROM
		(lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, sla_target, owner, docs_url, job_events)
	INTO new_id, same FROM event_queue.queue q WHERE q.name = create_queue.name;
	IF NOT same AND or_replace THEN
		UPDATE event_queue.queue q
		SET (lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, sla_target, owner, docs_url, job_events) =
			(lease, stalled_interval, max_stalled, max_attempts,
		backoff, backoff_delay, backoff_max, backoff_jitter, keep_completed, keep_failed,
		rate_limit, rate_interval, max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count,
		fair, group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, sla_target, owner, docs_url, job_events)
		WHERE q.queue_id = new_id;
	ELSIF NOT same THEN
		PERFORM event_queue_internal.notice_other_definition('queue', name);
	END IF;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_queue(text, interval, interval, int, int, text, interval, interval, float8, interval, interval, int, interval, int, interval, interval[], int, int, boolean, int, int, interval, text, boolean, float8, text, text, boolean, boolean, boolean) IS
'Creates a queue. Lease, stalled_interval, max_stalled, max_attempts and backoff mean what they mean in Bull.';

/*
 * alter_queue: changes settings of a queue, live: they hold from the next claim, complete or
 * fail after the commit on, also of jobs that were enqueued before.
 *
 * A limit counts the jobs that are leased already; a rate keeps its tokens, up to the new limit.
 * A change of fair moves all waiting jobs in this transaction: it takes time in proportion, and
 * claims find no job meanwhile.
 * Arguments:
 * - the settings of create_queue; NULL: it stays as it is.
 * - reset: names of settings that get their defaults again, which for limits is none.
 *
 * Result: true.
 * Errors: EQ010 no such queue, EQ012 bad setting, or reset names none or one that is given, too.
 * Example:
 *	SELECT event_queue.alter_queue('mail', lease => '1 minute', reset => '{rate_limit, sla}');
 */
CREATE FUNCTION alter_queue(
	name text,
	lease interval DEFAULT NULL,
	stalled_interval interval DEFAULT NULL,
	max_stalled int DEFAULT NULL,
	max_attempts int DEFAULT NULL,
	backoff text DEFAULT NULL,
	backoff_delay interval DEFAULT NULL,
	backoff_max interval DEFAULT NULL,
	backoff_jitter float8 DEFAULT NULL,
	keep_completed interval DEFAULT NULL,
	keep_failed interval DEFAULT NULL,
	rate_limit int DEFAULT NULL,
	rate_interval interval DEFAULT NULL,
	max_concurrency int DEFAULT NULL,
	sla interval DEFAULT NULL,
	backoff_intervals interval[] DEFAULT NULL,
	keep_completed_count int DEFAULT NULL,
	keep_failed_count int DEFAULT NULL,
	fair boolean DEFAULT NULL,
	group_concurrency int DEFAULT NULL,
	group_rate_limit int DEFAULT NULL,
	group_rate_interval interval DEFAULT NULL,
	group_retry text DEFAULT NULL,
	durable boolean DEFAULT NULL,
	sla_target float8 DEFAULT NULL,
	owner text DEFAULT NULL,
	docs_url text DEFAULT NULL,
	job_events boolean DEFAULT NULL,
	reset text[] DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this_id int := event_queue_internal.queue_id_of(name);
	-- In the order of the arguments, and of USING below.
	settings constant text[] := ARRAY['lease', 'stalled_interval', 'max_stalled', 'max_attempts', 'backoff', 'backoff_delay',
		'backoff_max', 'backoff_jitter', 'keep_completed', 'keep_failed', 'rate_limit', 'rate_interval',
		'max_concurrency', 'sla', 'backoff_intervals', 'keep_completed_count', 'keep_failed_count', 'fair',
		'group_concurrency', 'group_rate_limit', 'group_rate_interval', 'group_retry', 'durable', 'sla_target', 'owner', 'docs_url', 'job_events'];
	given constant boolean[] := ARRAY[lease IS NOT NULL, stalled_interval IS NOT NULL, max_stalled IS NOT NULL,
		max_attempts IS NOT NULL, backoff IS NOT NULL, backoff_delay IS NOT NULL, backoff_max IS NOT NULL,
		backoff_jitter IS NOT NULL, keep_completed IS NOT NULL, keep_failed IS NOT NULL, rate_limit IS NOT NULL,
		rate_interval IS NOT NULL, max_concurrency IS NOT NULL, sla IS NOT NULL, backoff_intervals IS NOT NULL,
		keep_completed_count IS NOT NULL, keep_failed_count IS NOT NULL, fair IS NOT NULL,
		group_concurrency IS NOT NULL, group_rate_limit IS NOT NULL, group_rate_interval IS NOT NULL,
		group_retry IS NOT NULL, durable IS NOT NULL, sla_target IS NOT NULL, owner IS NOT NULL, docs_url IS NOT NULL, job_events IS NOT NULL];
	bad text;
	changes text;
BEGIN
	SELECT coalesce(r, 'NULL') INTO bad FROM unnest(reset) r WHERE (r = ANY (settings)) IS NOT TRUE LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012',
			MESSAGE = format('unknown queue setting "%s"', bad),
			HINT = 'Settings are the arguments of event_queue.create_queue.';
	END IF;
	SELECT s INTO bad FROM unnest(settings, given) AS x (s, is_given) WHERE is_given AND s = ANY (reset) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ012',
			MESSAGE = format('invalid setting for queue "%s"', name), DETAIL = format('%s is both given and reset.', bad);
	END IF;
	SELECT string_agg(CASE WHEN is_given THEN format('%I = $%s', s, n + 1) ELSE format('%I = DEFAULT', s) END, ', ')
	INTO changes FROM unnest(settings, given) WITH ORDINALITY AS x (s, is_given, n) WHERE is_given OR s = ANY (reset);
	IF changes IS NOT NULL THEN
		EXECUTE 'UPDATE event_queue.queue SET ' || changes || ' WHERE queue_id = $1'
		USING this_id, lease, stalled_interval, max_stalled, max_attempts, backoff, backoff_delay,
			backoff_max, backoff_jitter, keep_completed, keep_failed, rate_limit, rate_interval,
			max_concurrency, sla, backoff_intervals, keep_completed_count, keep_failed_count, fair,
			group_concurrency, group_rate_limit, group_rate_interval, group_retry, durable, sla_target, owner, docs_url, job_events;
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION alter_queue(text, interval, interval, int, int, text, interval, interval, float8, interval, interval, int, interval, int, interval, interval[], int, int, boolean, int, int, interval, text, boolean, float8, text, text, boolean, text[]) IS
'Changes settings of a queue, for example alter_queue(''mail'', lease => ''1 minute'', reset => ''{rate_limit}'').';

/* set_queue_paused: what pause_queue and resume_queue share. */
CREATE FUNCTION event_queue_internal.set_queue_paused(name text, paused boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($1);	-- as in purge_queue
BEGIN
	UPDATE event_queue.queue SET paused = $2, draining = draining AND $2
	WHERE queue_id = this_queue AND (paused <> $2 OR draining AND NOT $2);
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION event_queue_internal.set_queue_paused(text, boolean) IS 'Internal. What pause_queue and resume_queue share.';

/*
 * pause_queue: stops claims from a queue; enqueue goes on.
 * Result: false if it was paused already.  Errors: EQ010.
 * Example:
 *	SELECT event_queue.pause_queue('mail');
 */
CREATE FUNCTION pause_queue(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.set_queue_paused($1, true)
$$;
COMMENT ON FUNCTION pause_queue(text) IS 'Stops claims from the queue; enqueue goes on, leased jobs are finished.';

CREATE FUNCTION event_queue_internal.end_hold(queue_id int) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_end_hold';
COMMENT ON FUNCTION event_queue_internal.end_hold(int) IS 'Internal. Ends what postpone_queue has begun; was there such a thing?';

/*
 * resume_queue: undoes pause_queue and drain_queue, and what postpone_queue has begun.
 * Result: false if it was neither paused nor draining nor held.  Errors: EQ010.
 * Example:
 *	SELECT event_queue.resume_queue('mail');
 */
CREATE FUNCTION resume_queue(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.set_queue_paused($1, false)::int + event_queue_internal.end_hold(event_queue_internal.queue_id_of($1))::int > 0
$$;
COMMENT ON FUNCTION resume_queue(text) IS 'Lets jobs of a paused queue be claimed again, and a draining queue accept jobs again.';

/*
 * drain_queue: has a queue refuse new jobs (EQ034), while claims go on; for a queue that is to
 * be emptied.  resume_queue undoes it.
 * Result: how many jobs are still there, by the counter that queue_status shows as
 * depth.  Errors: EQ010.
 * Example:
 *	SELECT event_queue.create_queue('old mail');
 *	SELECT event_queue.drain_queue('old mail');
 */
CREATE FUNCTION drain_queue(name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	UPDATE event_queue.queue SET draining = true WHERE queue_id = event_queue_internal.queue_id_of($1);
	RETURN (SELECT d.depth FROM event_queue_internal.queue_depth(event_queue_internal.queue_id_of($1)) d);
END
$$;
COMMENT ON FUNCTION drain_queue(text) IS
'Lets a queue accept no more jobs, while its jobs are still run; returns how many there are.';

/*
 * Queues that were dropped, until no transaction can be left that knew them: what
 * such a one still enqueues is removed by the scheduler (maintain_history).
 */
CREATE TABLE event_queue_internal.dropped_queue (
	queue_id	int PRIMARY KEY,
	seen_at		xid8
);
COMMENT ON TABLE event_queue_internal.dropped_queue IS
'Internal. Queues whose jobs may still be committed by transactions that began before the queue was dropped; seen_at: all of those are older.';

/*
 * drop_queue: removes a queue with its jobs, dead letters and history; jobs of other queues that
 * depend on them become dead letters.
 * Arguments: force: also drops a queue that still has jobs or dead letters.
 * Errors: EQ010 no such queue, EQ013 it has jobs, dead letters, rules, handlers or schedules.
 * Isolation: jobs of transactions that are enqueuing at the time are removed within a minute
 * after their commit.
 * Example:
 *	SELECT event_queue.drop_queue('old mail', force => true);
 */
CREATE FUNCTION drop_queue(name text, force boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.queue_id_of($1);
	used_by text;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	SELECT what INTO used_by FROM (
		SELECT 1, format('rule "%s" enqueues into it', r.name) FROM event_queue.rule r WHERE r.queue_id = this_id
			OR r.actions @> jsonb_build_array(jsonb_build_object('enqueue', jsonb_build_object('queue', $1)))
			OR r.actions @> jsonb_build_array(jsonb_build_object('cancel', jsonb_build_object('queue', $1)))
		UNION ALL
		SELECT 2, format('handler for job "%s" reads it', h.job_name) FROM event_queue.handler h WHERE h.queue_id = this_id
		UNION ALL
		SELECT 3, format('schedule "%s" enqueues into it', s.name) FROM event_queue.schedule s WHERE s.queue_id = this_id
		UNION ALL
		SELECT 4, 'the extension needs it' WHERE this_id <= 2
		UNION ALL
		SELECT 5, 'it has jobs' WHERE NOT force AND EXISTS (SELECT FROM event_queue.job j WHERE j.queue_id = this_id)
		UNION ALL
		SELECT 6, 'it has dead letters' WHERE NOT force AND EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.queue_id = this_id)
	) AS uses(kind, what) ORDER BY kind, what COLLATE "C" LIMIT 1;
	IF used_by IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ013',
			MESSAGE = format('queue "%s" is in use', $1), DETAIL = format('Cause: %s.', used_by),
			HINT = 'Drop rules, handlers and schedules first; force => true drops jobs and dead letters with the queue.';
	END IF;
	-- In the order in which all take many: dead letters, then jobs.
	PERFORM FROM event_queue.dead_letter d WHERE d.queue_id = this_id ORDER BY d.job_id FOR UPDATE;
	PERFORM FROM event_queue.job j WHERE j.job_id = ANY (ARRAY(
		SELECT x.job_id FROM event_queue.job x WHERE x.queue_id = this_id
		UNION ALL
		SELECT y.job_id FROM event_queue.job_dependency y WHERE y.completed_at IS NULL AND (
			y.depends_on IN (SELECT x.job_id FROM event_queue.job x WHERE x.queue_id = this_id)
			OR y.depends_on IN (SELECT x.job_id FROM event_queue.dead_letter x WHERE x.queue_id = this_id))))
	ORDER BY j.job_id FOR UPDATE;
	DELETE FROM event_queue.job WHERE job_id = ANY (ARRAY(
		SELECT j.job_id FROM event_queue.job j WHERE j.queue_id = this_id ORDER BY j.job_id FOR UPDATE));
	DELETE FROM event_queue.dead_letter WHERE job_id = ANY (ARRAY(
		SELECT d.job_id FROM event_queue.dead_letter d WHERE d.queue_id = this_id ORDER BY d.job_id FOR UPDATE));
	DELETE FROM event_queue.job_history WHERE queue_id = this_id;
	DELETE FROM event_queue_internal.group_rate WHERE queue_id = this_id;
	DELETE FROM event_queue_internal.group_review_at WHERE queue_id = this_id;
	DELETE FROM event_queue_internal.job_review WHERE queue_id = this_id;
	DELETE FROM event_queue_internal.timer_end WHERE queue_id = this_id;
	DELETE FROM event_queue_internal.timer_start WHERE queue_id = this_id;
	DELETE FROM event_queue.queue WHERE queue_id = this_id;
	IF NOT FOUND THEN -- another session has dropped it meanwhile
		RAISE EXCEPTION USING ERRCODE = 'EQ010', MESSAGE = format('queue "%s" does not exist', $1);
	END IF;
	INSERT INTO event_queue_internal.dropped_queue (queue_id) VALUES (this_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_queue(text, boolean) IS
'Drops a queue; force => true drops its jobs and dead letters too.';
