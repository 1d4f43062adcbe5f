/*
 * grants.sql: one function for each kind of role.  Last in the script, since
 * it names what all other parts made.
 *
 * No role gets more on a table than SELECT, which row security narrows to the rows
 * of its tenant: who could write to a table could lock it for all tenants, and write
 * rows that no function would have made.  What changes rows are functions:
 *  - those in C check the tenant themselves and work beneath row security;
 *  - those in the list below act with the rights of the extension's owner (SECURITY
 *    DEFINER).  Row security does not bind the owner, so each of them names the
 *    tenant in its statements (tenant_visible, resolve_tenant), which is that of the
 *    session's user and of the role that it has set, whoever the present user is
 *    (tenant.c).  All pin their search_path;
 *  - notify_on and record_changes, which make triggers for the caller, act with the
 *    caller's rights.
 * What all tenants share is not changed by who is bound to one (refuse_bound).
 */
DO $$
DECLARE
	as_owner CONSTANT text[] := ARRAY[
		-- consumers
		'create_subscription', 'drop_subscription', 'reset_subscription', 'park_event', 'retry_parked', 'fetch_parked',
		'ack_parked', 'discard_parked', 'subscription_members',
		-- workers and observers
		'log_job', 'queue_limits', 'health', 'metrics', 'queue_health', 'queue_history', 'test_alert', 'explain_job',
		'running_jobs', 'next_jobs', 'queue_jobs', 'failed_jobs', 'rule_activity', 'aggregate_activity',
		'rule_runs',
		-- whoever reckons with a calendar
		'add_business_time', 'business_seconds',
		-- admins
		'create_calendar', 'drop_calendar', 'add_holidays', 'remove_holidays',
		'create_queue', 'alter_queue', 'drop_queue', 'pause_queue', 'resume_queue', 'drain_queue', 'purge_queue', 'cancel_jobs', 'retry_waiting',
		'retry_dead', 'retry_all_dead', 'retry_failed', 'fork_job', 'discard_dead', 'discard_all_dead', 'discard_completed', 'import_dead', 'pause_rule', 'resume_rule', 'drop_rule', 'kept_definition', 'discard_draft',
		'backfill_rule', 'cancel_backfill',
		'drop_handler', 'drop_reducer', 'create_schedule', 'pause_schedule', 'resume_schedule', 'drop_schedule', 'trigger_schedule', 'backfill_schedule',
		'channel_id_of', 'create_event_index', 'drop_event_index', 'create_event_partition', 'set_event_partitioning',
		'split_event_partition', 'seal_event_partition',
		'create_alert', 'alter_alert', 'drop_alert', 'pause_alert', 'resume_alert', 'ack_alert', 'snooze_alert', 'try_alert'];
	shared CONSTANT text[] := ARRAY['queue', 'rule', 'handler', 'reducer', 'schedule', 'calendar',
		'event_queue_internal.channel', 'event_queue_internal.event_partition', 'event_queue_internal.partition_policy',
		'event_queue_internal.alert_definition'];
	this text;
BEGIN
	FOREACH this IN ARRAY as_owner LOOP
		FOR this IN SELECT p.oid::regprocedure FROM pg_catalog.pg_proc p
			WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND p.proname = this LOOP
			EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', this);
		END LOOP;
	END LOOP;
	FOREACH this IN ARRAY shared LOOP
		EXECUTE format('CREATE TRIGGER refuse_bound BEFORE INSERT OR UPDATE OR DELETE ON %s
			FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_bound()', this::regclass);
	END LOOP;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA event_queue FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA event_queue FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA event_queue_internal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION event_queue.version(), event_queue_internal.check_name(text, text, int),
	event_queue_internal.check_create_mode(boolean, boolean), event_queue_internal.notice_other_definition(text, text), current_tenant(), resolve_tenant(text),
	tenant_visible(text), uuid_v7(), event_matches(text, text), map_payload(jsonb, jsonb),
	event_as_json(event_store), event_queue_internal.check_filter(jsonb), event_queue_internal.matches_filter(event_store, jsonb), event_queue_internal.merge_patch(jsonb, jsonb),
	event_queue_internal.json_diff(jsonb, jsonb), event_queue_internal.event_bucket(text, text, text, int),
	event_queue_internal.job_lane(boolean, text),
	event_queue_internal.job_state(timestamptz, smallint, timestamptz, int, boolean), event_queue_internal.check_payload(jsonb),
	give_up_job(text), retry_job_after(interval, text), postpone_job(interval, text), postpone_queue(interval, text),
	event_queue_internal.session_restores(), event_queue_internal.is_unbound(), activation_state() TO PUBLIC;

/*
 * grant_access: what the four grant functions share: use of the schema, and
 * the binding to a tenant.
 */
CREATE FUNCTION event_queue_internal.grant_access(role regrole, tenant_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_role text := (SELECT rolname FROM pg_roles WHERE oid = $1);
	bound_to text;
	had_access boolean;
BEGIN
	IF this_role IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = format('role %s does not exist', coalesce($1::text, 'NULL'));
	END IF;
	-- two at once, or one and a new partition, would fail at each other's rows in the catalogs
	LOCK TABLE event_queue_internal.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	had_access := EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'event_queue' AND a.grantee = $1);
	EXECUTE format('GRANT USAGE ON SCHEMA event_queue TO %I', this_role);
	-- What dropped roles have left.
	DELETE FROM event_queue_internal.tenant_role t WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = t.role);
	SELECT t.tenant_id INTO bound_to FROM event_queue_internal.tenant_role t WHERE t.role = $1;
	IF $2 IS NOT NULL THEN
		PERFORM event_queue_internal.check_name('tenant', $2);
		IF has_function_privilege($1, 'event_queue.create_handler(text, text, text, interval, boolean, boolean, int, int)', 'EXECUTE') THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ049',
				MESSAGE = format('role "%s" is an admin, who acts for all tenants', this_role),
				HINT = 'Revoke its rights with event_queue.revoke_access first.';
		END IF;
		IF bound_to IS NOT NULL AND bound_to <> $2 THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ049',
				MESSAGE = format('role "%s" is bound to another tenant', this_role),
				HINT = 'Revoke its rights with event_queue.revoke_access first.';
		END IF;
		INSERT INTO event_queue_internal.tenant_role VALUES ($1, $2) ON CONFLICT DO NOTHING;
		IF had_access AND bound_to IS NULL THEN
			RAISE NOTICE USING MESSAGE = format('role "%s" had access that was not bound to a tenant: all of it is bound to "%s" now', this_role, $2),
				HINT = 'event_queue.revoke_access undoes it. To act for one tenant and for all takes two roles.';
		END IF;
	ELSIF bound_to IS NOT NULL THEN
		RAISE NOTICE USING MESSAGE = format('role "%s" stays bound to tenant "%s"', this_role, bound_to),
			HINT = 'For all tenants, revoke its rights with event_queue.revoke_access first.';
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.grant_access(regrole, text) IS 'Internal. What the grant functions share.';

/* What whoever reads events needs, of the tenant that the role is bound to. */
CREATE FUNCTION event_queue_internal.grant_reader(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	LOCK TABLE event_queue_internal.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('GRANT SELECT ON event_queue.event_store, event_queue.aggregate_snapshot TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.aggregate_version(text, text, text),
		event_queue.read_aggregate(text, text, int, int, text, int),
		event_queue.read_aggregate_backward(text, text, int, int, text, int),
		event_queue.read_all(bigint, int, text, jsonb), event_queue.read_plan(jsonb),
		event_queue.watermark(), event_queue.generation(),
		event_queue.aggregate_state(text, text, int, timestamptz, text),
		event_queue.aggregate_diff(text, text, int, int, text),
		event_queue.replay(jsonb, text, bigint, bigint, boolean, int) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE event_queue.wait_for_events(bigint, interval, bigint) TO %s', role);
END
$$;
COMMENT ON FUNCTION event_queue_internal.grant_reader(regrole) IS 'Internal. The grants of all roles that read events.';

/*
 * grant_producer: the role may append events, enqueue jobs, and read events.
 * Arguments: tenant_id binds the role, and the members of the role, to one
 * tenant; NULL trusts it with all.  One that is bound stays so, and one that had access
 * is bound in all that it may do: a NOTICE says so.
 * Errors: EQ049 the role is bound to another tenant or an admin, EQ006 tenant, 42704 no
 * such role, 42501 unless the caller owns the extension or is a superuser.
 * Example:
 *	CREATE ROLE acme_web;
 *	SELECT event_queue.grant_producer('acme_web', 'acme');
 */
CREATE FUNCTION grant_producer(role regrole, tenant_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.grant_access(role, tenant_id);
	PERFORM event_queue_internal.grant_reader(role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.append(text, text, text, jsonb, text, uuid, jsonb, text),
		event_queue.append(text, text, text, jsonb, int, uuid, jsonb, text),
		event_queue.add_business_time(text, timestamptz, interval), event_queue.business_seconds(text, timestamptz, timestamptz),
		event_queue.append_many(text, text, jsonb, text, text),
		event_queue.append_many(text, text, jsonb, int, text),
		event_queue.append_batch(jsonb, text),
		event_queue.revert_aggregate(text, text, int, int, text),
		event_queue.take_snapshot(text, text, text),
		event_queue.enqueue(text, text, jsonb, interval, timestamptz, int, text, text, bigint[], text, jsonb),
		event_queue.enqueue_many(text, jsonb, text, jsonb), event_queue.enqueue_flow(text, jsonb, text, jsonb),
		event_queue.cancel_job(bigint), event_queue.cancel_jobs(text, text, text, text, text),
		event_queue.change_payload(bigint, jsonb, uuid), event_queue.promote_job(bigint),
		event_queue.send_signal(text, text, jsonb, interval, text),
		event_queue.aggregate_activity(text, text, int, text)
		TO %s', role);
	PERFORM event_queue_internal.grant_outcomes(role);
	PERFORM event_queue_internal.audit('grant_producer', 'role', role::text, tenant_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION grant_producer(regrole, text) IS
'Lets a role append events, enqueue jobs and read events; with a tenant, of this tenant only.';

/* grant_outcomes: what became of jobs, for those who made them and those who do them. */
CREATE FUNCTION event_queue_internal.grant_outcomes(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	LOCK TABLE event_queue_internal.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('GRANT SELECT ON event_queue.queue, event_queue.job, event_queue.jobs, event_queue.dead_letter,
		event_queue.job_history, event_queue.history, event_queue.all_jobs, event_queue.job_dependency, event_queue.job_log,
		event_queue.job_step, event_queue.job_steps, event_queue.signal TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION event_queue.queue_jobs(text, int), event_queue.job_outcome(bigint), event_queue.dependency_results(bigint) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE event_queue.await_job(bigint, interval, jsonb) TO %s', role);
END
$$;
COMMENT ON FUNCTION event_queue_internal.grant_outcomes(regrole) IS 'Internal. Lets a role see what became of jobs.';

/*
 * grant_consumer: the role may create subscriptions, fetch events and
 * acknowledge them; with a tenant, of this tenant only.  Arguments and errors
 * as grant_producer.
 * Example:
 *	SELECT event_queue.grant_consumer('acme_web', 'acme');
 */
CREATE FUNCTION grant_consumer(role regrole, tenant_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.grant_access(role, tenant_id);
	PERFORM event_queue_internal.grant_reader(role);
	EXECUTE format('GRANT SELECT ON event_queue.subscription, event_queue_internal.subscription_bucket,
		event_queue_internal.subscription_parked, event_queue.subscription_status, event_queue.parked_aggregates TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.create_subscription(text, jsonb, bigint, int, text, boolean, boolean), event_queue.drop_subscription(text),
		event_queue.reset_subscription(text, bigint),
		event_queue.fetch_events(text, int), event_queue.ack(text), event_queue.ack(text, bigint), event_queue.leave_subscription(text),
		event_queue.park_event(text, bigint, text), event_queue.retry_parked(text, text, text),
		event_queue.discard_parked(text, text, text, text), event_queue.fetch_parked(text, int),
		event_queue.ack_parked(text, bigint), event_queue_internal.subscription_members() TO %s', role);
	PERFORM event_queue_internal.audit('grant_consumer', 'role', role::text, tenant_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION grant_consumer(regrole, text) IS
'Lets a role create subscriptions, fetch events and acknowledge them; with a tenant, of this tenant only.';

/*
 * grant_worker: the role may claim and settle jobs.  Arguments and errors as
 * grant_producer.
 * Example:
 *	SELECT event_queue.grant_worker('acme_web', 'acme');
 */
CREATE FUNCTION grant_worker(role regrole, tenant_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.grant_access(role, tenant_id);
	PERFORM event_queue_internal.grant_outcomes(role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE
		event_queue.claim_wait(text, int, interval, text, interval, text, jsonb) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.add_business_time(text, timestamptz, interval), event_queue.business_seconds(text, timestamptz, timestamptz),
		event_queue.claim(text, int, text, interval, text[], text, boolean),
		event_queue.complete(bigint, uuid, jsonb), event_queue.complete_many(bigint[], uuid[], jsonb[]),
		event_queue.fail_many(bigint[], uuid[], text, text, text, interval, boolean), event_queue.extend_leases(bigint[], uuid[], interval),
		event_queue.complete_and_claim(bigint, uuid, text, int, text, interval, text[], text, boolean, jsonb),
		event_queue.complete_many_and_claim(bigint[], uuid[], text, int, text, interval, text[], text, boolean, jsonb[]),
		event_queue.report_progress(bigint, uuid, jsonb), event_queue.log_job(bigint, uuid, text, text),
		event_queue.change_payload(bigint, jsonb, uuid),
		event_queue.fail(bigint, uuid, text, text, text, interval, boolean),
		event_queue.release(bigint, uuid, interval), event_queue.postpone_queue(bigint, uuid, interval),
		event_queue.extend_lease(bigint, uuid, interval), event_queue.run_jobs(text, int),
		event_queue.step(bigint, uuid, text), event_queue.step(event_queue.claimed_job, text),
		event_queue.step_done(bigint, uuid, text, jsonb, jsonb), event_queue.step_done(event_queue.claimed_job, text, jsonb, jsonb),
		event_queue.run_step(event_queue.claimed_job, text, text, jsonb),
		event_queue.sleep_job(bigint, uuid, text, interval, timestamptz), event_queue.sleep_job(event_queue.claimed_job, text, interval, timestamptz),
		event_queue.await_signal(bigint, uuid, text, text, interval), event_queue.await_signal(event_queue.claimed_job, text, text, interval),
		event_queue.await_event(bigint, uuid, text, text, text, text, interval, bigint),
		event_queue.await_event(event_queue.claimed_job, text, text, text, text, interval, bigint),
		event_queue.send_signal(text, text, jsonb, interval, text)
		TO %s', role);
	PERFORM event_queue_internal.audit('grant_worker', 'role', role::text, tenant_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION grant_worker(regrole, text) IS
'Lets a role claim, complete, fail and release jobs; with a tenant, of this tenant only.';

/*
 * grant_observer: the role may read everything of the extension and change
 * nothing.  Arguments and errors as grant_producer.
 * Example:
 *	SELECT event_queue.grant_observer('acme_web', 'acme');
 */
CREATE FUNCTION grant_observer(role regrole, tenant_id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.grant_access(role, tenant_id);
	EXECUTE format('GRANT SELECT ON event_queue.event_store, event_queue.queue, event_queue.job,
		event_queue.dead_letter, event_queue.job_history, event_queue.history, event_queue.all_jobs, event_queue.job_log, event_queue.job_dependency,
		event_queue.job_step, event_queue.job_steps, event_queue.signal,
		event_queue_internal.group_rate, event_queue.queue_depths, event_queue.rule, event_queue.handler,
		event_queue.schedule, event_queue.calendar, event_queue_internal.channel, event_queue_internal.rule_checkpoint,
		event_queue.jobs, event_queue.dead_letters, event_queue.queue_status, event_queue.queue_stats, event_queue.job_stats, event_queue.tenant_stats, event_queue.slo_status,
		event_queue.rules, event_queue.handlers, event_queue.schedules, event_queue.watermark_blockers,
		event_queue.subscription, event_queue_internal.subscription_bucket, event_queue_internal.subscription_parked,
		event_queue.subscription_status, event_queue.parked_aggregates, event_queue.reducer, event_queue_internal.event_partition,
		event_queue.job_trace, event_queue.rule_stats, event_queue_internal.rule_count, event_queue_internal.rule_catch_up, event_queue_internal.rule_count_change, event_queue_internal.rule_version, event_queue.rule_versions, event_queue_internal.rule_backfill, event_queue.rule_backfills, event_queue.schedule_stats, event_queue.schedule_runs, event_queue_internal.schedule_run,
		event_queue.worker_stats, event_queue.event_stats, event_queue.event_partitions, event_queue.event_indexes, event_queue_internal.event_index,
		event_queue_internal.partition_policy, event_queue.audit_log, event_queue_internal.alert_definition,
		event_queue_internal.alert_record, event_queue_internal.alert_state, event_queue_internal.alert_snooze,
		event_queue.alerts, event_queue.alert_history, event_queue.alert_definitions TO %s', role);
	PERFORM event_queue_internal.grant_reader(role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		-- what views ask for
		event_queue_internal.subscription_members(), event_queue_internal.open_appends(), event_queue_internal.queue_counters(),
		event_queue_internal.rule_lag(bigint), event_queue_internal.session_began(int), event_queue_internal.last_position(),
		event_queue_internal.queue_depth(int), event_queue_internal.count_due(int, int), event_queue_internal.count_scheduled(int, int),
		event_queue_internal.metrics("char", int), event_queue_internal.queue_now(int),
		event_queue_internal.per_second(bigint[], int, float8), event_queue_internal.compliance(bigint[]),
		event_queue_internal.histogram_quantile(bytea, float8), event_queue_internal.sampled_at(), event_queue_internal.series_use(), event_queue_internal.handler_code(text, boolean),
		event_queue.trace(uuid, text), event_queue.queue_limits(text), event_queue.explain_job(bigint), event_queue.dependency_results(bigint), event_queue.workers(),
		event_queue.running_jobs(text, int), event_queue.next_jobs(text, int), event_queue.queue_jobs(text, int),
		event_queue.failed_jobs(text, timestamptz, int), event_queue.rule_activity(text, int, int), event_queue.rule_runs(text, int), event_queue.rule_facts(text, int, uuid, text), event_queue_internal.table_of_rule(int), event_queue_internal.table_triggers(int), event_queue_internal.table_is_watched(int, text[]),
		event_queue.aggregate_activity(text, text, int, text),
		event_queue.health(), event_queue.queue_health(), event_queue.queue_history(text, interval, interval), event_queue.test_alert(text, interval), event_queue.prometheus(), event_queue.activation_state(), event_queue.faults(),
		event_queue.add_business_time(text, timestamptz, interval), event_queue.business_seconds(text, timestamptz, timestamptz),
		event_queue.cron_next(text, text, timestamptz), event_queue.preview_schedule(text, text, int, timestamptz) TO %s', role);
	PERFORM event_queue_internal.audit('grant_observer', 'role', role::text, tenant_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION grant_observer(regrole, text) IS
'Lets a role read events, jobs, dead letters, status and health; with a tenant, rows of this tenant only.';

/*
 * grant_admin: the role may call every function and change the configuration.
 * An admin is trusted with all tenants.  It still can't change events, and changes
 * all else by the functions, not by writing to tables.
 * Errors: as grant_producer; EQ049 the role is bound to a tenant, by itself or as a
 * member of a role that is.
 * Example:
 *	CREATE ROLE mail_admin;
 *	SELECT event_queue.grant_admin('mail_admin');
 */
CREATE FUNCTION grant_admin(role regrole) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	bound_to text := (SELECT string_agg(DISTINCT t.tenant_id, ', ') FROM event_queue_internal.tenant_role t, pg_roles r
		-- since 16 a member may have nothing of the role (compat.h)
		WHERE r.oid = $1 AND NOT r.rolsuper AND pg_has_role($1, t.role::oid,
			CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'USAGE, SET' ELSE 'MEMBER' END));
	this text;
BEGIN
	IF bound_to IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ049', MESSAGE = format('role %s is bound to tenant %s', $1, bound_to),
			HINT = 'An admin acts for all tenants: remove the binding with event_queue.revoke_access first.';
	END IF;
	PERFORM event_queue.grant_producer(role);
	PERFORM event_queue.grant_worker(role);
	PERFORM event_queue.grant_consumer(role);
	PERFORM event_queue.grant_observer(role);
	EXECUTE format('GRANT SELECT ON event_queue_internal.job_throttle, event_queue_internal.group_rate, event_queue_internal.group_review_at,
		event_queue_internal.job_review TO %s', role);
	-- All that is offered.  Not what is internal, what only the owner may do with his tables
	-- (new_generation), and who may do what.
	FOR this IN SELECT p.oid::regprocedure FROM pg_proc p
		WHERE p.pronamespace = 'event_queue'::regnamespace
		  AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
		  AND NOT starts_with(p.proname, 'grant_') AND p.proname NOT IN ('revoke_access', 'new_generation')
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', this, role);
	END LOOP;
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue_internal.make_recording(regclass, text, name, name, text, boolean),
		event_queue_internal.make_notifying(regclass, int, boolean), event_queue_internal.channel_id_of(text),
		event_queue_internal.kept_definition(text, int, boolean), event_queue_internal.define_rule(text, jsonb), event_queue_internal.check_adopts(text),
		event_queue_internal.audit(text, text, text, text, jsonb, jsonb) TO %s', role);
	PERFORM event_queue_internal.audit('grant_admin', 'role', role::text);
	RETURN true;
END
$$;
COMMENT ON FUNCTION grant_admin(regrole) IS
'Lets a role do all that the functions offer: queues, rules, handlers, schedules, dead letters, of every tenant.';

/*
 * revoke_access: takes away all that the grant functions gave, and the binding
 * to a tenant.  Rules, handlers and reducers of the role stay, but are out of service
 * (EQ038) until it gets access again or another role creates them; a
 * notice names them.  Errors: 42704 no such role.
 * Example:
 *	SELECT event_queue.revoke_access('acme_web');
 */
CREATE FUNCTION revoke_access(role regrole) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	left_behind text;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = role) THEN
		RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = format('role %s does not exist', coalesce(role::text, 'NULL'));
	END IF;
	LOCK TABLE event_queue_internal.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA event_queue, event_queue_internal FROM %s', role);
	EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA event_queue, event_queue_internal FROM %s', role);
	EXECUTE format('REVOKE ALL ON SCHEMA event_queue, event_queue_internal FROM %s', role);
	DELETE FROM event_queue_internal.tenant_role t
	WHERE t.role = $1;
	PERFORM event_queue_internal.audit('revoke_access', 'role', role::text);
	SELECT string_agg(x.what, ', ' ORDER BY x.what) INTO left_behind FROM (
		SELECT format('rule "%s"', r.name) FROM event_queue.rule r WHERE r.owner = $1
		UNION ALL
		SELECT format('handler for job "%s" of queue "%s"', h.job_name, q.name)
		FROM event_queue.handler h JOIN event_queue.queue q USING (queue_id) WHERE h.owner = $1
		UNION ALL
		SELECT format('reducer of "%s"', d.aggregate_type) FROM event_queue.reducer d
		WHERE d.owner = $1 AND d.function IS NOT NULL) x (what);
	IF left_behind IS NOT NULL AND NOT has_schema_privilege($1, 'event_queue', 'USAGE') THEN
		RAISE NOTICE 'out of service from now on: %', left_behind
			USING HINT = 'Have another role create them again, or drop them.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION revoke_access(regrole) IS
'Takes away all that the grant functions gave to a role, and its binding to a tenant.';

REVOKE ALL ON FUNCTION event_queue_internal.grant_access(regrole, text), grant_producer(regrole, text), grant_worker(regrole, text),
	grant_observer(regrole, text), grant_admin(regrole), revoke_access(regrole), event_queue_internal.grant_reader(regrole),
	grant_consumer(regrole, text), event_queue_internal.grant_outcomes(regrole) FROM PUBLIC;

/* Whatever the collation of what a function is called with (common/collation.c). */
DO $$
DECLARE
	this regprocedure;
BEGIN
	FOR this IN SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
		WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND l.lanname IN ('sql', 'plpgsql') AND p.prokind = 'f'
		  AND EXISTS (SELECT FROM unnest(p.proargtypes) a (type) JOIN pg_type t ON t.oid = a.type
			WHERE t.typcollation <> 0)
		ORDER BY 1
	LOOP
		EXECUTE format('ALTER FUNCTION %s SUPPORT event_queue_internal.call_without_collation', this);
	END LOOP;
END
$$;

/*
 * Data of a dump put the store out of service, whichever table they come into
 * (store/activation.sql); always, as a restore may run as session_replication_role replica.
 */
DO $$
DECLARE
	this record;
BEGIN
	FOR this IN SELECT c.oid::regclass AS "table" FROM pg_extension e, unnest(e.extconfig) x (oid), pg_class c
		WHERE e.extname = 'event_queue' AND c.oid = x.oid AND c.relkind = 'r' AND c.oid <> 'event_queue_internal.activation'::regclass ORDER BY 1
	LOOP
		EXECUTE format('CREATE TRIGGER end_service_while_loaded BEFORE INSERT ON %s FOR EACH STATEMENT
			WHEN (event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.end_service_while_loaded()', this."table");
		EXECUTE format('CREATE TRIGGER loaded AFTER INSERT ON %s FOR EACH STATEMENT
			WHEN (event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.end_service_while_loaded()', this."table");
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER end_service_while_loaded', this."table");
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER loaded', this."table");
	END LOOP;
END
$$;

/* With a publication FOR ALL TABLES, rows of tables without a key could not be changed. */
DO $$
DECLARE
	this record;
BEGIN
	FOR this IN SELECT c.oid::regclass AS "table" FROM pg_class c
		WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind = 'r'
		  AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) ORDER BY 1
	LOOP
		EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', this."table");
	END LOOP;
END
$$;

/* All is there. */
DO $$
DECLARE
	reference record;
BEGIN
	IF NOT event_queue_internal.created() THEN
		FOR reference IN SELECT * FROM event_queue_internal.own_references() LOOP
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', reference.table_name, reference.constraint_name);
		END LOOP;
	END IF;
END
$$;
