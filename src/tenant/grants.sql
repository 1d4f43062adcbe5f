/*
 * grants.sql: one function for each kind of role.  Last in the script, since
 * it names what all other parts made.
 */

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA event_queue FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA event_queue FROM PUBLIC;
GRANT EXECUTE ON FUNCTION event_queue.version(), check_name(text, text, int), current_tenant(), resolve_tenant(text),
	tenant_visible(text), uuid_v7(), event_matches(text, text), map_payload(jsonb, jsonb),
	event_as_json(event_store), check_filter(jsonb), matches_filter(event_store, jsonb), merge_patch(jsonb, jsonb),
	json_diff(jsonb, jsonb), event_bucket(text, text, text, int),
	job_lane(boolean, text), check_payload(jsonb) TO PUBLIC;

/*
 * grant_access: what the four grant functions share: use of the schema, and
 * the binding to a tenant.
 */
CREATE FUNCTION grant_access(role regrole, tenant_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_role text := (SELECT rolname FROM pg_roles WHERE oid = $1);
	bound_to text;
BEGIN
	-- two at once, or one and a new partition, would fail at each other's rows in the catalogs
	LOCK TABLE event_queue.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('GRANT USAGE ON SCHEMA event_queue TO %I', this_role);
	SELECT t.tenant_id INTO bound_to FROM event_queue.tenant_role t WHERE t.role = $1;
	IF $2 IS NOT NULL THEN
		PERFORM event_queue.check_name('tenant', $2);
		IF bound_to IS NOT NULL AND bound_to <> $2 THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ003',
				MESSAGE = format('role "%s" is bound to another tenant', this_role),
				HINT = 'Take its rights away with event_queue.revoke_access first.';
		END IF;
		INSERT INTO event_queue.tenant_role VALUES ($1, $2) ON CONFLICT DO NOTHING;
	END IF;
END
$$;
COMMENT ON FUNCTION grant_access(regrole, text) IS 'Internal. What the grant functions share.';

/* What whoever reads events needs, of the tenant that the role is bound to. */
CREATE FUNCTION grant_reader(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	LOCK TABLE event_queue.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('GRANT SELECT ON event_queue.event_store, event_queue.aggregate_snapshot TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.aggregate_version(text, text, text),
		event_queue.read_aggregate(text, text, int, int, text, bigint),
		event_queue.read_aggregate_backward(text, text, int, int, text, bigint),
		event_queue.read_all(bigint, int, text, jsonb), event_queue.read_plan(jsonb),
		event_queue.watermark(), event_queue.generation(), event_queue.last_position(),
		event_queue.aggregate_state(text, text, int, timestamptz, text),
		event_queue.aggregate_diff(text, text, int, int, text),
		event_queue.replay(jsonb, text, bigint, bigint, boolean, int) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE event_queue.wait_for_events(bigint, interval, bigint) TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_reader(regrole) IS 'Internal. What the grant functions give to whoever reads events.';

/*
 * grant_producer: the role may append events, enqueue jobs, and read events.
 * Arguments: tenant_id binds the role, and the members of the role, to one
 * tenant; NULL trusts it with all.
 * Errors: EQ003 the role is bound to another tenant, EQ006 tenant, 42704 no
 * such role, 42501 unless the caller owns the extension or is a superuser.
 */
CREATE FUNCTION grant_producer(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	PERFORM event_queue.grant_reader(role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.append(text, text, text, jsonb, text, uuid, jsonb, text),
		event_queue.append(text, text, text, jsonb, int, uuid, jsonb, text),
		event_queue.append_many(text, text, jsonb, text, text),
		event_queue.append_many(text, text, jsonb, int, text),
		event_queue.append_batch(jsonb, text),
		event_queue.revert_aggregate(text, text, int, int, text),
		event_queue.take_snapshot(text, text, text),
		event_queue.enqueue(text, text, jsonb, interval, timestamptz, int, int, text, interval, text, jsonb, text, text,
			interval, text, text, interval, bigint[], interval, float8, interval[]),
		event_queue.enqueue_many(text, text, jsonb[], interval, timestamptz, int, text[], jsonb, text),
		event_queue.enqueue_jobs(jsonb, text, text), event_queue.enqueue_flow(jsonb, text, text, int),
		event_queue.enqueue_batch(jsonb, jsonb, text, text), event_queue.cancel_job(bigint)
		TO %s', role);
	PERFORM event_queue.grant_outcomes(role);
END
$$;
COMMENT ON FUNCTION grant_producer(regrole, text) IS
'Lets a role append events, enqueue jobs and read events; with a tenant, of this tenant only.';

/* grant_outcomes: what became of jobs, for those who made them and those who do them. */
CREATE FUNCTION grant_outcomes(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	LOCK TABLE event_queue.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('GRANT SELECT ON event_queue.queue, event_queue.job, event_queue.jobs, event_queue.dead_letter,
		event_queue.job_history, event_queue.history, event_queue.job_dependency, event_queue.job_log TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION event_queue.job_outcome(bigint), event_queue.dependency_results(bigint) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE event_queue.await_job(bigint, interval, jsonb) TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_outcomes(regrole) IS 'Internal. Lets a role see what became of jobs.';

/*
 * grant_consumer: the role may create subscriptions, fetch events and
 * acknowledge them; with a tenant, of this tenant only.  Arguments and errors
 * as grant_producer.
 */
CREATE FUNCTION grant_consumer(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	PERFORM event_queue.grant_reader(role);
	EXECUTE format('GRANT SELECT, INSERT, DELETE ON event_queue.subscription TO %s', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE ON event_queue.subscription_bucket TO %s', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON event_queue.subscription_parked TO %s', role);
	EXECUTE format('GRANT SELECT ON event_queue.subscription_status TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.create_subscription(text, jsonb, bigint, int, text), event_queue.drop_subscription(text),
		event_queue.reset_subscription(text, bigint), event_queue.subscription_id_of(text),
		event_queue.fetch_events(text, int), event_queue.ack(text, bigint), event_queue.leave_subscription(text),
		event_queue.park_event(text, bigint, text), event_queue.retry_parked(text, text, text),
		event_queue.discard_parked(text, text, text, text), event_queue.parked_events(text, text, text, text),
		event_queue.fetch_parked(text, int), event_queue.ack_parked(text, bigint),
		event_queue.lock_subscription_bucket(int, int), event_queue.unpark_if_done(int, text, text, text),
		event_queue.subscription_members() TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_consumer(regrole, text) IS
'Lets a role create subscriptions, fetch events and acknowledge them; with a tenant, of this tenant only.';

/*
 * grant_worker: the role may claim and settle jobs.  Arguments and errors as
 * grant_producer.
 */
CREATE FUNCTION grant_worker(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	PERFORM event_queue.grant_outcomes(role);
	EXECUTE format('GRANT INSERT ON event_queue.job_log TO %s', role);
	EXECUTE format('GRANT EXECUTE ON PROCEDURE
		event_queue.claim_wait(text, int, interval, jsonb, text, interval, text) TO %s', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.claim(text, int, text, interval, text[], text, boolean),
		event_queue.complete(bigint, uuid, jsonb), event_queue.complete_many(bigint[], uuid[], jsonb[]),
		event_queue.complete_and_claim(bigint, uuid, text, int, text, interval, text[], text, boolean, jsonb),
		event_queue.complete_many_and_claim(bigint[], uuid[], text, int, text, interval, text[], text, boolean, jsonb[]),
		event_queue.report_progress(bigint, uuid, jsonb), event_queue.log_job(bigint, uuid, text, text),
		event_queue.fail(bigint, uuid, text, text, text, interval, boolean),
		event_queue.release(bigint, uuid, interval),
		event_queue.extend_lease(bigint, uuid, interval)
		TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_worker(regrole, text) IS
'Lets a role claim, complete, fail and release jobs; with a tenant, of this tenant only.';

/*
 * grant_observer: the role may read everything of the extension and change
 * nothing.  Arguments and errors as grant_producer.
 */
CREATE FUNCTION grant_observer(role regrole, tenant_id text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_access(role, tenant_id);
	EXECUTE format('GRANT SELECT ON event_queue.event_store, event_queue.queue, event_queue.job,
		event_queue.dead_letter, event_queue.job_history, event_queue.history, event_queue.job_log, event_queue.job_dependency,
		event_queue.group_rate, event_queue.queue_depths, event_queue.rule, event_queue.handler,
		event_queue.schedule, event_queue.channel, event_queue.rule_checkpoint,
		event_queue.jobs, event_queue.dead_letters, event_queue.queue_status,
		event_queue.rules, event_queue.handlers, event_queue.schedules, event_queue.watermark_blockers,
		event_queue.subscription, event_queue.subscription_bucket, event_queue.subscription_parked,
		event_queue.subscription_status, event_queue.reducer, event_queue.event_partition,
		event_queue.partition_policy TO %s', role);
	PERFORM event_queue.grant_reader(role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		event_queue.trace(uuid, text), event_queue.subscription_members(), event_queue.open_appends(), event_queue.queue_counters(),
		event_queue.queue_depth(int), event_queue.queue_limits(int), event_queue.explain_job(bigint), event_queue.dependency_results(bigint), event_queue.workers(),
		event_queue.health(), event_queue.queue_id_of(text) TO %s', role);
END
$$;
COMMENT ON FUNCTION grant_observer(regrole, text) IS
'Lets a role read events, jobs, dead letters, status and health; with a tenant, rows of this tenant only.';

/*
 * grant_admin: the role may call every function and change the configuration.
 * An admin is trusted with all tenants.  It still can't change events.
 * Errors: as grant_producer.
 */
CREATE FUNCTION grant_admin(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue.grant_producer(role);
	PERFORM event_queue.grant_worker(role);
	PERFORM event_queue.grant_consumer(role);
	PERFORM event_queue.grant_observer(role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON event_queue.queue, event_queue.job,
		event_queue.dead_letter, event_queue.job_history,
		event_queue.job_dependency, event_queue.job_log, event_queue.job_throttle, event_queue.group_rate,
		event_queue.job_review,
		event_queue.schedule, event_queue.channel, event_queue.subscription, event_queue.subscription_bucket,
		event_queue.subscription_parked, event_queue.aggregate_snapshot TO %s', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE ON event_queue.partition_policy TO %s', role);
	EXECUTE format('GRANT SELECT, DELETE ON event_queue.reducer TO %s', role);
	-- Not INSERT: who could name the owner of a rule or handler could run code as that role.
	EXECUTE format('GRANT SELECT, DELETE ON event_queue.rule, event_queue.handler TO %s', role);
	EXECUTE format('GRANT UPDATE (enabled, start_position) ON event_queue.rule TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA event_queue TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA event_queue TO %s', role);
	-- What needs the owner of the tables anyway, or would let history be bent.
	EXECUTE format('REVOKE EXECUTE ON FUNCTION event_queue.skip_positions(bigint), event_queue.open_guard(boolean),
		event_queue.store_reducer(text, text, int, text), event_queue.new_generation(),
		event_queue.grant_reader(regrole), event_queue.grant_outcomes(regrole), event_queue.grant_consumer(regrole, text),
		event_queue.grant_access(regrole, text), event_queue.grant_producer(regrole, text),
		event_queue.grant_worker(regrole, text), event_queue.grant_observer(regrole, text),
		event_queue.grant_admin(regrole), event_queue.revoke_access(regrole) FROM %s', role);
END
$$;
COMMENT ON FUNCTION grant_admin(regrole) IS
'Lets a role do all that the functions offer: queues, rules, handlers, schedules, dead letters, of every tenant.';

/*
 * revoke_access: takes away all that the grant functions gave, and the binding
 * to a tenant.  Errors: 42704 no such role.
 */
CREATE FUNCTION revoke_access(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	LOCK TABLE event_queue.tenant_role IN SHARE ROW EXCLUSIVE MODE;
	LOCK TABLE ONLY event_queue.event_store IN ROW EXCLUSIVE MODE;
	EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA event_queue FROM %s', role);
	EXECUTE format('REVOKE ALL ON ALL PROCEDURES IN SCHEMA event_queue FROM %s', role);
	EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA event_queue FROM %s', role);
	EXECUTE format('REVOKE ALL ON SCHEMA event_queue FROM %s', role);
	DELETE FROM event_queue.tenant_role t
	WHERE t.role = $1;
END
$$;
COMMENT ON FUNCTION revoke_access(regrole) IS
'Takes away all that the grant functions gave to a role, and its binding to a tenant.';

REVOKE ALL ON FUNCTION grant_access(regrole, text), grant_producer(regrole, text), grant_worker(regrole, text),
	grant_observer(regrole, text), grant_admin(regrole), revoke_access(regrole), grant_reader(regrole),
	grant_consumer(regrole, text), grant_outcomes(regrole) FROM PUBLIC;
