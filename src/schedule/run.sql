/*
 * run.sql: enqueues the jobs of schedules, when they are due or on demand.
 */

CREATE TABLE event_queue_internal.schedule_run (
	run_id			bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	schedule_id		int NOT NULL REFERENCES schedule ON DELETE CASCADE,
	tenant_id		text COLLATE "C" NOT NULL,
	scheduled_for	timestamptz NOT NULL,
	made_at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	job_id			bigint
);
COMMENT ON TABLE event_queue_internal.schedule_run IS
'Internal. The last 100 runs of each schedule, older ones whose jobs are there, and some that are not removed yet; job_id NULL: skipped.';
CREATE INDEX schedule_run_order ON event_queue_internal.schedule_run (schedule_id, run_id);
ALTER TABLE event_queue_internal.schedule_run ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.schedule_run USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.schedule_run', '');
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.schedule_run_run_id_seq', '');

CREATE VIEW schedule_runs WITH (security_invoker = true) AS
	SELECT s.name AS schedule, s.tenant_id, r.scheduled_for, r.made_at, r.job_id,
		CASE WHEN r.job_id IS NULL THEN 'skipped'
			WHEN j.leased_until IS NOT NULL THEN 'running'
			WHEN j.job_id IS NOT NULL THEN 'waiting'
			WHEN EXISTS (SELECT FROM event_queue.dead_letter d WHERE d.job_id = r.job_id) THEN 'dead'
			ELSE 'ended' END AS state
	FROM event_queue_internal.schedule_run r JOIN event_queue.schedule s USING (schedule_id)
	LEFT JOIN event_queue.job j ON j.job_id = r.job_id;
COMMENT ON VIEW schedule_runs IS
'The last runs of each schedule, at least 100: the time it was due, when the job was made, and whether that was skipped (overlap), waits, runs, is dead or has ended.';

/*
 * run_schedule: one run of a schedule, whose row the caller has locked, and updates once: the second
 * update in a transaction would check the foreign key, and wait for whoever has the queue's row locked.
 * Result: the job, or NULL if overlap has it skipped.
 */
CREATE FUNCTION event_queue_internal.run_schedule(s schedule, scheduled_for timestamptz, overlap text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
DECLARE
	options jsonb := coalesce(s.options, '{}');
	earlier record;
	new_id bigint;
	skips boolean := false;
BEGIN
	IF $3 NOT IN ('allow', 'queue_all') THEN
		FOR earlier IN
			SELECT j.job_id, j.leased_until IS NOT NULL AS runs
			FROM event_queue_internal.schedule_run r JOIN event_queue.job j USING (job_id)
			WHERE r.schedule_id = s.schedule_id ORDER BY j.job_id	-- also in a queue that it had before
		LOOP
			CASE $3
				WHEN 'skip' THEN
					skips := true;
				WHEN 'queue_one' THEN
					skips := skips OR NOT earlier.runs;
				WHEN 'cancel' THEN
					BEGIN
						PERFORM event_queue.cancel_job(earlier.job_id);
					EXCEPTION WHEN SQLSTATE 'EQ032' THEN
						NULL;	-- it has ended meanwhile
					END;
				ELSE
					NULL;
			END CASE;
		END LOOP;
	END IF;
	IF NOT skips THEN
		IF $3 IN ('queue_one', 'queue_all') AND options ->> 'group_key' IS NULL THEN
			options := options || jsonb_build_object('group_key', 'schedule ' || s.schedule_id);
		END IF;
		IF s.jitter > interval '0' AND options ->> 'calendar' IS NOT NULL THEN	-- the delay is working time, the jitter is not
			options := options - '{calendar,delay}'::text[] || jsonb_build_object('run_at',
				event_queue.add_business_time(options ->> 'calendar', clock_timestamp(), (options ->> 'delay')::interval) + s.jitter * random());
		ELSIF s.jitter > interval '0' THEN
			options := options || jsonb_build_object('delay',
				(coalesce((options ->> 'delay')::interval, '0') + s.jitter * random())::text);
		END IF;
		new_id := event_queue.enqueue(
			(SELECT q.name FROM event_queue.queue q WHERE q.queue_id = s.queue_id), s.job_name, s.payload,
			priority => s.priority, tenant_id => s.tenant_id,
			options => options || jsonb_build_object('metadata', coalesce(nullif(options -> 'metadata', 'null'), '{}')
				|| jsonb_build_object('schedule', s.name, 'scheduled_for', $2)));
	END IF;
	INSERT INTO event_queue_internal.schedule_run (schedule_id, tenant_id, scheduled_for, job_id)
	VALUES (s.schedule_id, s.tenant_id, $2, new_id);
	/*
	 * Old runs whose jobs are gone.  Of tens of thousands whose jobs wait only some are
	 * looked at: the oldest, since these mostly end first, and some from anywhere, so
	 * that none stays for long behind an old one that does not end.  Those that someone
	 * has locked stay: a schedule does not wait for its past.
	 */
	DELETE FROM event_queue_internal.schedule_run WHERE run_id = ANY (ARRAY(
		SELECT l.run_id FROM event_queue_internal.schedule_run l WHERE l.run_id = ANY (ARRAY(
		WITH kept AS MATERIALIZED (
			SELECT x.run_id FROM event_queue_internal.schedule_run x
			WHERE x.schedule_id = s.schedule_id ORDER BY x.run_id DESC OFFSET 99 LIMIT 1),
		oldest AS MATERIALIZED (
			SELECT x.run_id FROM event_queue_internal.schedule_run x
			WHERE x.schedule_id = s.schedule_id ORDER BY x.run_id LIMIT 1),
		anywhere AS MATERIALIZED (
			SELECT o.run_id + ((k.run_id - o.run_id) * random())::bigint AS run_id FROM kept k, oldest o)
		SELECT r.run_id FROM (
			(SELECT x.run_id, x.job_id FROM event_queue_internal.schedule_run x
			 WHERE x.schedule_id = s.schedule_id AND x.run_id < (SELECT k.run_id FROM kept k)
			 ORDER BY x.run_id LIMIT 50)
			UNION
			(SELECT x.run_id, x.job_id FROM event_queue_internal.schedule_run x
			 WHERE x.schedule_id = s.schedule_id AND x.run_id < (SELECT k.run_id FROM kept k)
			   AND x.run_id >= (SELECT a.run_id FROM anywhere a)
			 ORDER BY x.run_id LIMIT 50)) r
		-- not NOT EXISTS: that is planned as a walk over all jobs
		WHERE (SELECT j.job_id FROM event_queue.job j WHERE j.job_id = r.job_id) IS NULL)) FOR UPDATE SKIP LOCKED));
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION event_queue_internal.run_schedule(schedule, timestamptz, text) IS
'Internal. Makes the job of one run of a schedule, as overlap says; NULL if it is skipped.';

/* lock_schedule: for trigger_schedule and backfill_schedule. */
CREATE FUNCTION event_queue_internal.lock_schedule(name text, overlap text) RETURNS schedule
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	found_row event_queue.schedule;
BEGIN
	PERFORM event_queue_internal.check_schedule_policy($2, NULL, NULL, NULL, NULL, NULL);
	SELECT * INTO found_row FROM event_queue.schedule s
	WHERE s.name = $1 AND event_queue.tenant_visible(s.tenant_id) FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('schedule "%s" does not exist', $1);
	END IF;
	RETURN found_row;
END
$$;
COMMENT ON FUNCTION event_queue_internal.lock_schedule(text, text) IS 'Internal. Locks a schedule that is to run now; EQ025 if there is none.';

/* count_runs: writes how many runs a schedule had, for trigger_schedule and backfill_schedule. */
CREATE FUNCTION event_queue_internal.count_runs(schedule_id int, made bigint, skipped bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	UPDATE event_queue.schedule s SET last_run = clock_timestamp(), runs = s.runs + $2, skipped = s.skipped + $3
	WHERE s.schedule_id = $1 AND $2 + $3 > 0
$$;
COMMENT ON FUNCTION event_queue_internal.count_runs(int, bigint, bigint) IS 'Internal. Writes how many runs of a schedule made a job, and how many were skipped.';

/*
 * trigger_schedule: runs a schedule now, also one that is paused; its next run stays.
 * Arguments: overlap as create_schedule, for this run; default: one more job.
 * Result: the job's id, NULL if overlap has it skipped.
 * Errors: EQ009 overlap, EQ025 no such schedule, and those of enqueue.
 * Example:
 *	SELECT event_queue.create_schedule('report', '@daily', 'mail', 'report', or_replace => true);
 *	SELECT event_queue.trigger_schedule('report');
 *	SELECT scheduled_for, job_id, state FROM event_queue.schedule_runs WHERE schedule = 'report';
 */
CREATE FUNCTION trigger_schedule(name text, overlap text DEFAULT 'allow') RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	s event_queue.schedule := event_queue_internal.lock_schedule($1, $2);
	new_id bigint := event_queue_internal.run_schedule(s, clock_timestamp(), $2);
BEGIN
	PERFORM event_queue_internal.count_runs(s.schedule_id, (new_id IS NOT NULL)::int, (new_id IS NULL)::int);
	PERFORM event_queue_internal.audit('trigger_schedule', 'schedule', $1, s.tenant_id, NULL, jsonb_build_object('job_id', new_id));
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION trigger_schedule(text, text) IS 'Runs a schedule now, whatever its expression says; returns the job.';

/*
 * backfill_schedule: makes a job for each time that a schedule names in a range, as for
 * days on which it was not there yet.  Made jobs have the time in metadata.scheduled_for.  It
 * does not ask which times had a job already.
 * Arguments: from_time (included) to to_time (not included), which may be in the past only;
 * overlap as create_schedule; default queue_all: one behind the other.
 * Result: how many jobs.
 * Errors: EQ009 overlap, a range that is none, or more than 1000 times in it, EQ025 no such
 * schedule, and those of enqueue.
 * Example:
 *	SELECT event_queue.create_schedule('report', '@daily', 'mail', 'report', or_replace => true);
 *	SELECT event_queue.backfill_schedule('report', now() - interval '3 days', now());
 */
CREATE FUNCTION backfill_schedule(name text, from_time timestamptz, to_time timestamptz, overlap text DEFAULT 'queue_all') RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' AS $$
DECLARE
	s event_queue.schedule := event_queue_internal.lock_schedule($1, $4);
	t timestamptz;
	made bigint := 0;
	times timestamptz[] := '{}';
BEGIN
	IF ($2 < $3 AND $2 >= '0001-01-01 00:00:00+00' AND $3 <= clock_timestamp()) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'invalid range of times',
			DETAIL = 'from_time must be before to_time and not BC, and to_time must not be in the future.';
	END IF;
	t := $2 - interval '1 microsecond';
	LOOP
		t := event_queue_internal.next_time(s, t);
		EXIT WHEN t IS NULL OR t >= $3;
		times := times || t;
		IF cardinality(times) > 1000 THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'the range has more than 1000 times',
				HINT = 'Use smaller ranges, each in a transaction of its own.';
		END IF;
	END LOOP;
	FOREACH t IN ARRAY times LOOP
		made := made + (event_queue_internal.run_schedule(s, t, $4) IS NOT NULL)::int;
	END LOOP;
	PERFORM event_queue_internal.count_runs(s.schedule_id, made, cardinality(times) - made);
	PERFORM event_queue_internal.audit('backfill_schedule', 'schedule', $1, s.tenant_id, NULL,
		jsonb_build_object('from', $2, 'to', $3, 'jobs', made));
	RETURN made;
END
$$;
COMMENT ON FUNCTION backfill_schedule(text, timestamptz, timestamptz, text) IS
'Makes a job for each time that a schedule names in a range of the past; returns how many.';

/*
 * missed_runs: how many times of a schedule lie after one that was due and before another:
 * these get no job of their own.  At most 1000.
 */
CREATE FUNCTION event_queue_internal.missed_runs(s schedule, due timestamptz, until timestamptz) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	n int := 0;
BEGIN
	LOOP
		due := event_queue_internal.next_time(s, due);
		EXIT WHEN due IS NULL OR due > until OR n >= 1000;
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION event_queue_internal.missed_runs(schedule, timestamptz, timestamptz) IS 'Internal. How many runs passed after one, up to a time; at most 1000.';

/*
 * run_due_schedules: for the scheduler.  Enqueues a job for each schedule that is due or, with
 * a catch_up, for each time that is due, up to a hundred in a call; for a tenth of a second, so
 * that its jobs are not committed late for the sake of the next.  A schedule that fails does
 * not affect the others; it keeps its time and is tried again after a while, behind those that are
 * well.  Result: when to call it again.
 */
CREATE FUNCTION event_queue_internal.run_due_schedules() RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	due event_queue.schedule;
	at timestamptz;
	next timestamptz;
	passed int;
	made int;
	tried int;
	until CONSTANT timestamptz := clock_timestamp() + interval '100 milliseconds';
BEGIN
	FOR due IN
		SELECT * FROM event_queue.schedule s
		WHERE s.enabled AND s.next_run <= clock_timestamp()
		  AND (event_queue_internal.fault_retry_at('schedule', s.name) <= clock_timestamp()) IS NOT FALSE
		ORDER BY event_queue_internal.fault_retry_at('schedule', s.name) NULLS FIRST, s.next_run FOR UPDATE SKIP LOCKED
	LOOP
		IF clock_timestamp() > until THEN
			RETURN clock_timestamp();
		END IF;
		BEGIN
			at := clock_timestamp();
			next := due.next_run;
			passed := 0;
			made := 0;
			tried := 0;
			IF due.catch_up IS NULL THEN
				tried := 1;
				made := (event_queue_internal.run_schedule(due, next, due.overlap) IS NOT NULL)::int;
				passed := event_queue_internal.missed_runs(due, next, at);
				next := event_queue_internal.next_time(due, at);
			ELSE
				IF next < at - due.catch_up THEN
					passed := 1 + event_queue_internal.missed_runs(due, next, at - due.catch_up);
					next := event_queue_internal.next_time(due, at - due.catch_up);
				END IF;
				FOR i IN 1 .. 100 LOOP
					EXIT WHEN next IS NULL OR next > at;
					tried := tried + 1;
					made := made + (event_queue_internal.run_schedule(due, next, due.overlap) IS NOT NULL)::int;
					next := event_queue_internal.next_time(due, next);
				END LOOP;
			END IF;
			UPDATE event_queue.schedule s SET next_run = next, missed = s.missed + passed, runs = s.runs + made,
				skipped = s.skipped + tried - made, last_run = CASE WHEN tried > 0 THEN clock_timestamp() ELSE s.last_run END
			WHERE s.schedule_id = due.schedule_id;
			PERFORM event_queue_internal.clear_fault('schedule', due.name);
		EXCEPTION
			WHEN query_canceled THEN
				-- The chore's time is over, for this one: the others have theirs.  A trigger of the table may not end.
				PERFORM event_queue_internal.note_fault('schedule', due.name, due.tenant_id, SQLSTATE, SQLERRM,
					'Is there a trigger of yours on table event_queue.schedule? DROP TRIGGER, or mend its function.');
				RETURN clock_timestamp();
			WHEN OTHERS THEN
				IF SQLSTATE = '55P03' AND due.overlap <> 'cancel' AND (due.options ?| '{unique_key,depends_on}') IS NOT TRUE THEN
					RAISE;	-- of a table: the others need it, too
				END IF;
				PERFORM event_queue_internal.note_fault('schedule', due.name, due.tenant_id, SQLSTATE, SQLERRM,
					CASE WHEN SQLSTATE = 'EQ034' THEN format('SELECT event_queue.resume_queue(%L)',
							(SELECT q.name FROM event_queue.queue q WHERE q.queue_id = due.queue_id))
						WHEN SQLSTATE IN ('EQ030', 'EQ031') THEN
							format('SELECT event_queue.drop_schedule(%L), and create_schedule it anew', due.name) END);
				UPDATE event_queue.schedule s SET last_error = SQLERRM, last_error_at = clock_timestamp()
				WHERE s.schedule_id = due.schedule_id;
		END;
	END LOOP;
	PERFORM event_queue_internal.clear_fault('schedule', f.item, gone => true) FROM event_queue.faults() f
	WHERE f.what = 'schedule' AND NOT EXISTS (SELECT FROM event_queue.schedule s WHERE s.name = f.item AND s.enabled);
	-- Still due are schedules that fail, are locked, or have more to catch up: not at once again.
	RETURN (SELECT min(CASE WHEN s.next_run > clock_timestamp() THEN s.next_run
			ELSE greatest(clock_timestamp() + '1 second', event_queue_internal.fault_retry_at('schedule', s.name)) END)
		FROM event_queue.schedule s WHERE s.enabled AND s.next_run IS NOT NULL);
END
$$;
COMMENT ON FUNCTION event_queue_internal.run_due_schedules() IS 'Internal. Enqueues the jobs of all schedules that are due; returns when the next one is.';
