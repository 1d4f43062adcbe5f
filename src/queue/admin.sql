/*
 * admin.sql: what others do to jobs: cancel, change their priority and payload, purge, run now.
 */

/*
 * cancel_job: removes a waiting job, or asks for a leased one to be stopped.  Its worker is told
 * at the next extend_lease or report_progress, by EQ033; a handler in the database is stopped,
 * and the job is a dead letter then.  So is one whose worker fails or releases it, or lets its
 * lease run out: it is not run again.  Jobs that depend on a cancelled one become dead letters.
 * Result: cancelled (it is gone), requested (it is leased).
 * Errors: EQ032 no such job (finished, dead, or another tenant's).
 * Example:
 *	SELECT event_queue.enqueue('mail', 'digest', delay => '1 day') AS job \gset
 *	SELECT event_queue.cancel_job(:job);
 */
CREATE FUNCTION cancel_job(job_id bigint) RETURNS text
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_cancel_job';
COMMENT ON FUNCTION cancel_job(bigint) IS
'Removes a waiting job, or asks the worker of a leased one to stop; returns cancelled or requested.';

/* cancel_jobs; with up_to, leaves jobs that a rule made for an event after this position (rules/timer.c). */
CREATE FUNCTION event_queue_internal.cancel_jobs(queue text, unique_key text DEFAULT NULL, job_name text DEFAULT NULL,
	group_key text DEFAULT NULL, tenant_id text DEFAULT NULL, up_to bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp
SET plan_cache_mode = force_custom_plan AS $$	-- as in purge_queue
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($1);
	this_tenant text COLLATE "C" := CASE WHEN $2 IS NOT NULL OR $5 IS NOT NULL THEN event_queue.resolve_tenant($5) END;
	this_job bigint;
	locked bigint[];
	n bigint := 0;
BEGIN
	IF num_nonnulls($2, $3, $4, $5) = 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'cancel_jobs needs at least one condition',
			HINT = 'purge_queue deletes all jobs of a queue that are not leased.';
	END IF;
	IF this_queue <= 2 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ035', MESSAGE = format('queue "%s" is internal', $1);
	END IF;
	-- Wait for a transaction that is enqueuing a job with this key.
	WHILE $2 IS NOT NULL LOOP
		BEGIN
			PERFORM event_queue_internal.unlock_key(this_queue, this_tenant, $2)
			WHERE event_queue_internal.lock_free_key(this_queue, this_tenant, $2, false);
			EXIT;
		EXCEPTION WHEN SQLSTATE 'EQ044' THEN
			PERFORM event_queue_internal.await_conflict();
		END;
	END LOOP;
	IF $2 IS NULL THEN
		-- As in purge_queue: without waiting, and with the jobs that depend on them.
		locked := ARRAY(SELECT j.job_id FROM event_queue.job j WHERE j.job_id = ANY (ARRAY(
			SELECT unnest(ARRAY[x.job_id, d.job_id]) FROM event_queue.job x
				LEFT JOIN event_queue.job_dependency d ON x.has_dependents AND d.depends_on = x.job_id AND d.completed_at IS NULL
			WHERE x.queue_id = this_queue AND ($3 IS NULL OR x.name = $3) AND ($4 IS NULL OR x.group_key = $4 COLLATE "C")
			  AND (this_tenant IS NULL OR x.tenant_id = this_tenant) AND event_queue.tenant_visible(x.tenant_id)))
			FOR UPDATE SKIP LOCKED);
	END IF;
	IF $6 IS NOT NULL THEN
		-- Rows as they are when this has locked them: what a later event has started, or replaced, stays.
		locked := ARRAY(SELECT j.job_id FROM event_queue.job j
			WHERE j.queue_id = this_queue AND j.unique_key = $2 COLLATE "C" AND j.tenant_id = this_tenant
			  AND (j.metadata ? 'rule' AND jsonb_typeof(j.metadata -> 'event_position') = 'number' AND j.metadata -> 'event_position' > to_jsonb($6)) IS NOT TRUE
			FOR UPDATE);
	END IF;
	FOR this_job IN
		SELECT j.job_id FROM event_queue.job j
		WHERE j.queue_id = this_queue AND ($2 IS NULL OR j.unique_key = $2 COLLATE "C") AND ($3 IS NULL OR j.name = $3) AND ($4 IS NULL OR j.group_key = $4 COLLATE "C")
		  AND (this_tenant IS NULL OR j.tenant_id = this_tenant) AND event_queue.tenant_visible(j.tenant_id)
		  AND ($6 IS NULL OR j.job_id = ANY (locked))
		  AND ($2 IS NOT NULL OR j.job_id = ANY (locked) AND NOT EXISTS (
			SELECT FROM event_queue.job_dependency d JOIN event_queue.job x ON x.job_id = d.job_id
			WHERE j.has_dependents AND d.depends_on = j.job_id AND d.completed_at IS NULL AND x.job_id <> ALL (locked)))
		ORDER BY j.job_id
	LOOP
		BEGIN
			PERFORM event_queue.cancel_job(this_job);
			n := n + 1;
		EXCEPTION WHEN SQLSTATE 'EQ032' THEN
			NULL; -- it has ended meanwhile, or went with one that it depended on
		END;
	END LOOP;
	-- Delete the starts that were refused because of these timers, too (rules/timer.c).
	DELETE FROM event_queue_internal.timer_start s
	WHERE s.queue_id = this_queue AND s.tenant_id = this_tenant AND s.unique_key = $2 COLLATE "C" AND $6 IS NULL;
	PERFORM event_queue_internal.audit('cancel_jobs', 'queue', $1, this_tenant,
		"after" => jsonb_strip_nulls(jsonb_build_object('unique_key', $2, 'job_name', $3, 'group_key', $4, 'jobs', n))) WHERE n > 0;
	RETURN n;
END
$$;
COMMENT ON FUNCTION event_queue_internal.cancel_jobs(text, text, text, text, text, bigint) IS 'Internal. cancel_jobs, also for rules.';

/*
 * cancel_jobs: cancels, as cancel_job does, all jobs of a queue to which all that is given
 * applies.
 * Arguments: unique_key is that of one job, of tenant_id as enqueue has it (so a job that was
 * enqueued with a delay and a key is a timer, which this stops); tenant_id without unique_key:
 * NULL means all tenants'.
 * Result: how many were cancelled, or asked to stop.
 * Errors: EQ003/EQ004 tenant, EQ009 nothing is given but the queue, EQ010 no such queue.
 * Isolation: waits for a transaction that has the job with the key; else it skips jobs that
 * another transaction is claiming or changing.
 * Example:
 *	SELECT event_queue.enqueue('mail', 'reminder', '{"to": "ana@example.org"}', delay => '48 hours', unique_key => 'reminder L1');
 *	SELECT event_queue.cancel_jobs('mail', unique_key => 'reminder L1');
 */
CREATE FUNCTION cancel_jobs(queue text, unique_key text DEFAULT NULL, job_name text DEFAULT NULL,
	group_key text DEFAULT NULL, tenant_id text DEFAULT NULL) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.cancel_jobs($1, $2, $3, $4, $5)
$$;
COMMENT ON FUNCTION cancel_jobs(text, text, text, text, text) IS
'Cancels the jobs of a queue with a unique key, name, group or tenant; returns how many.';

/*
 * change_priority: changes the priority of a waiting job.
 * Errors: EQ015 priority, EQ032 no such waiting job.
 * Example:
 *	SELECT event_queue.enqueue('mail', 'digest', delay => '1 day') AS job \gset
 *	SELECT event_queue.change_priority(:job, 1);
 */
CREATE FUNCTION change_priority(job_id bigint, priority int) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_change_priority';
COMMENT ON FUNCTION change_priority(bigint, int) IS 'Changes the priority of a waiting job.';

/*
 * change_payload: changes the payload of a waiting job, or of a leased one for its next attempt.
 * Arguments: lease_token: of a leased job, whose worker alone may change it; NULL: the job waits.
 * (retry_dead takes a new payload for a dead letter.)
 * Errors: EQ005 payload too large, EQ009 payload NULL, EQ016 lease lost, EQ032 no such waiting
 * job, EQ033 the job was cancelled, EQ035 it is of an internal queue.
 * Example:
 *	SELECT event_queue.enqueue('mail', 'digest', '{"to": "ana@example.org"}', delay => '1 day') AS job \gset
 *	SELECT event_queue.change_payload(:job, '{"to": "ana@example.com"}');
 */
CREATE FUNCTION change_payload(job_id bigint, payload jsonb, lease_token uuid DEFAULT NULL) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_change_payload';
COMMENT ON FUNCTION change_payload(bigint, jsonb, uuid) IS
'Changes the payload of a waiting job, or of the one whose lease the caller has.';

/*
 * promote_job: makes a job due now that is delayed, or waits for its next attempt.  It still waits
 * for earlier jobs of its group and for those that it depends on.
 * Errors: EQ032 no such job, or it does not wait for its time (it is due, leased, or suspended).
 * Example:
 *	SELECT event_queue.enqueue('mail', 'digest', delay => '1 day') AS job \gset
 *	SELECT event_queue.promote_job(:job);
 */
CREATE FUNCTION promote_job(job_id bigint) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_promote_job';
COMMENT ON FUNCTION promote_job(bigint) IS 'Makes a job that is delayed, or waits for its next attempt, due now.';

/*
 * purge_queue: deletes the queue's jobs that are not leased; jobs elsewhere that
 * depend on them become dead letters.
 * Result: how many. Errors: EQ010. Isolation: skips jobs that another
 * transaction is claiming or changing. Row security: a session that is confined to
 * a tenant deletes only that tenant's jobs.
 * Example:
 *	SELECT event_queue.create_queue('scratch', if_not_exists => true);
 *	SELECT event_queue.purge_queue('scratch');
 */
CREATE FUNCTION purge_queue(name text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp
SET plan_cache_mode = force_custom_plan AS $$	-- only then are arrays looked up by hash
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($1);	-- here: a query that meets no row might not ask
	deleted bigint;
	locked bigint[];
BEGIN
	-- Waits for no one: who holds one, a claim for example, may be about to take another.  A
	-- job that others depend on goes if they can be locked, too: the trigger deletes them.
	locked := ARRAY(SELECT j.job_id FROM event_queue.job j WHERE j.job_id = ANY (ARRAY(
		SELECT unnest(ARRAY[x.job_id, d.job_id]) FROM event_queue.job x
			LEFT JOIN event_queue.job_dependency d ON d.depends_on = x.job_id AND d.completed_at IS NULL
		WHERE x.queue_id = this_queue AND x.has_dependents AND event_queue.tenant_visible(x.tenant_id)))
		FOR UPDATE SKIP LOCKED);
	DELETE FROM event_queue.job WHERE job_id = ANY (ARRAY(
		SELECT j.job_id FROM event_queue.job j
		WHERE j.queue_id = this_queue
		  AND (j.leased_until IS NULL OR j.leased_until <= clock_timestamp())
		  AND event_queue.tenant_visible(j.tenant_id)
		  AND (NOT j.has_dependents OR j.job_id = ANY (locked) AND NOT EXISTS (
			SELECT FROM event_queue.job_dependency d JOIN event_queue.job x ON x.job_id = d.job_id
			WHERE d.depends_on = j.job_id AND d.completed_at IS NULL AND x.job_id <> ALL (locked)))
		FOR UPDATE SKIP LOCKED));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	DELETE FROM event_queue_internal.timer_start WHERE ctid = ANY (ARRAY(	-- as in cancel_jobs
		SELECT s.ctid FROM event_queue_internal.timer_start s
		WHERE s.queue_id = this_queue AND event_queue.tenant_visible(s.tenant_id) FOR UPDATE SKIP LOCKED));
	PERFORM event_queue_internal.audit('purge_queue', 'queue', $1, "after" => jsonb_build_object('jobs', deleted)) WHERE deleted > 0;
	RETURN deleted;
END
$$;
COMMENT ON FUNCTION purge_queue(text) IS 'Deletes all jobs of a queue that are not leased; returns how many.';

/*
 * retry_waiting: makes all waiting jobs of a queue due now, those that wait for their
 * next attempt or were delayed.
 * Arguments: failed_only leaves out jobs that never failed.
 * Result: how many.  Errors: EQ010.
 * Example:
 *	SELECT event_queue.retry_waiting('mail');
 */
CREATE FUNCTION retry_waiting(queue text, failed_only boolean DEFAULT true) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($1);	-- as in purge_queue
	n bigint;
BEGIN
	UPDATE event_queue.job j SET run_at = clock_timestamp() WHERE j.job_id = ANY (ARRAY(
		SELECT x.job_id FROM event_queue.job x
		WHERE x.queue_id = this_queue AND x.run_at > clock_timestamp() AND x.leased_until IS NULL
		  AND (x.failures > 0 OR NOT $2) AND event_queue.tenant_visible(x.tenant_id)
		ORDER BY x.job_id FOR UPDATE));
	GET DIAGNOSTICS n = ROW_COUNT;
	PERFORM event_queue_internal.audit('retry_waiting', 'queue', $1,
		"after" => jsonb_build_object('failed_only', $2, 'jobs', n)) WHERE n > 0;
	RETURN n;
END
$$;
COMMENT ON FUNCTION retry_waiting(text, boolean) IS 'Makes the jobs of a queue that wait for their next attempt due now; returns how many.';
