-- The schema's contract: what users may rely on, by name.
BEGIN;
SELECT no_plan();

SELECT has_extension('event_queue');
SELECT has_schema('event_queue');
SELECT columns_are('event_queue', 'event_store', ARRAY['position', 'id', 'tenant_id', 'aggregate_type',
	'aggregate_id', 'version', 'event_type', 'event_data', 'metadata', 'created_at']);
SELECT col_type_is('event_queue', 'event_store', c, t, c || ' is ' || t) FROM (VALUES
	('position'::name, 'bigint'), ('id', 'uuid'), ('tenant_id', 'text'), ('aggregate_id', 'text'), ('version', 'integer'),
	('event_data', 'jsonb'), ('metadata', 'jsonb'), ('created_at', 'timestamp with time zone')) AS x (c, t);
SELECT col_is_pk('event_queue', 'event_store', 'position'::name, 'position is the key');
SELECT col_is_unique('event_queue', 'event_store', ARRAY['aggregate_id', 'aggregate_type', 'tenant_id', 'version']);
SELECT col_is_unique('event_queue', 'event_store', ARRAY['id', 'tenant_id']);
SELECT has_table('event_queue', t, t) FROM unnest(ARRAY['queue', 'job', 'dead_letter', 'job_history', 'job_log', 'job_dependency', 'job_trace', 'job_step', 'signal', 'rule',
	'handler', 'schedule', 'reducer', 'aggregate_snapshot', 'subscription']::name[]) t;
SELECT has_table('event_queue_internal', t, t) FROM unnest(ARRAY['channel', 'tenant_role', 'event_partition']::name[]) t;
SELECT has_view('event_queue', v, v) FROM unnest(ARRAY['jobs', 'dead_letters', 'history', 'all_jobs', 'queue_status', 'rules', 'handlers',
	'schedules', 'watermark_blockers', 'subscription_status', 'parked_aggregates', 'rule_stats', 'schedule_stats',
	'worker_stats', 'event_stats', 'event_partitions', 'event_indexes']::name[]) v;
SELECT columns_are('event_queue', 'history', ARRAY['job_id', 'queue', 'tenant_id', 'name', 'completed_at', 'result', 'leased_by',
	'failures', 'stalled', 'priority', 'created_at', 'run_at', 'expires_at', 'payload', 'metadata', 'errors',
	'claimed_at', 'wait_ms', 'run_ms', 'handler']);
SELECT has_column('event_queue', 'queue_status', c, c) FROM unnest(ARRAY['queue', 'depth', 'dead', 'oldest_ready_seconds', 'sla_missed',
	'enqueued_total', 'completed_total', 'failed_total', 'enqueued_per_s', 'completed_per_s', 'failed_per_s', 'due', 'scheduled']::name[]) c;
SELECT col_type_is('event_queue', t, 'retry', 'event_queue', 'retry_options', t || '.retry') FROM unnest(ARRAY['job', 'dead_letter']::name[]) t;
SELECT has_function('event_queue', f, f) FROM unnest(ARRAY['append', 'append_many', 'append_batch', 'read_aggregate', 'read_aggregate_backward',
	'read_all', 'read_plan', 'wait_for_events', 'trace', 'generation', 'new_generation',
	'create_subscription', 'drop_subscription', 'reset_subscription', 'fetch_events', 'ack', 'leave_subscription',
	'park_event', 'retry_parked', 'fetch_parked', 'ack_parked', 'discard_parked',
	'create_reducer', 'drop_reducer', 'aggregate_state', 'take_snapshot', 'aggregate_diff', 'revert_aggregate',
	'replay', 'create_event_partition', 'set_event_partitioning', 'split_event_partition', 'seal_event_partition', 'archive_event_partition',
	'set_event_retention', 'create_event_index', 'drop_event_index', 'grant_consumer', 'aggregate_version',
	'watermark', 'uuid_v7', 'create_queue', 'alter_queue', 'drop_queue', 'pause_queue',
	'resume_queue', 'drain_queue', 'purge_queue', 'cancel_jobs', 'retry_waiting', 'enqueue', 'enqueue_many', 'enqueue_flow',
	'claim', 'claim_wait', 'complete', 'complete_many', 'fail_many', 'extend_leases', 'complete_and_claim', 'complete_many_and_claim',
	'report_progress', 'log_job', 'cancel_job', 'cancel_jobs', 'change_priority', 'change_payload', 'promote_job', 'await_job', 'job_outcome', 'dependency_results',
	'explain_job', 'queue_limits', 'fail', 'release', 'extend_lease', 'retry_dead',
	'retry_all_dead', 'discard_dead', 'discard_all_dead', 'discard_completed', 'import_dead', 'create_rule', 'drop_rule', 'pause_rule', 'resume_rule', 'create_handler',
	'drop_handler', 'event_matches', 'create_schedule', 'drop_schedule', 'notify_on', 'record_changes',
	'health', 'workers', 'current_tenant', 'grant_producer', 'grant_worker', 'grant_observer',
	'grant_admin', 'revoke_access', 'running_jobs', 'next_jobs', 'queue_jobs', 'failed_jobs', 'retry_failed', 'rule_activity',
	'aggregate_activity', 'run_jobs', 'explain_rule', 'test_rule', 'compare_rule', 'rule_runs', 'rule_facts', 'backfill_rule', 'cancel_backfill',
	'activate_rule', 'discard_draft', 'table_change', 'step', 'step_done', 'run_step', 'sleep_job',
	'await_signal', 'send_signal', 'await_event', 'fork_job']::name[]) f;

-- Rules of the house.
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND obj_description(p.oid, 'pg_proc') IS NULL
$$, 'every function has a comment');
-- pg_restore -j loads tables in any order, so a restore does without them (activation.sql)
SELECT set_eq($$SELECT conrelid::regclass::text, conname FROM pg_constraint c JOIN pg_depend d ON d.objid = c.conrelid AND d.deptype = 'e'
	WHERE c.contype = 'f' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'event_queue')$$,
	$$SELECT table_name, constraint_name FROM event_queue_internal.own_references()$$, 'own_references has all foreign keys between our tables');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
$$, 'every table and view has a comment');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND l.lanname IN ('sql', 'plpgsql')
	  AND p.prosqlbody IS NULL		-- names in BEGIN ATOMIC are bound when it is made
	  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=pg_catalog%')
$$, 'every SQL function pins its search_path');
-- Who waits for such a lock holds up all who come after, as long as one open transaction lasts.
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prosrc ~ 'IN SHARE ROW EXCLUSIVE MODE|DROP INDEX|ALTER TABLE'
	  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'lock_timeout=%') AND p.proname NOT LIKE 'grant\_%' AND p.proname <> 'revoke_access'
$$, 'every function that waits for the locks of all writers has a limit');
-- Those that are SECURITY DEFINER: a new one is added to both lists after it was read for its tenant checks.
SELECT set_eq($$
	SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND p.prosecdef
$$, ARRAY['create_subscription', 'drop_subscription', 'reset_subscription', 'park_event', 'retry_parked', 'fetch_parked',
	'ack_parked', 'discard_parked', 'subscription_members', 'log_job', 'queue_limits', 'health', 'metrics', 'queue_health', 'queue_history', 'test_alert', 'explain_job', 'add_business_time', 'business_seconds',
	'create_calendar', 'drop_calendar', 'add_holidays', 'remove_holidays', 'create_queue', 'alter_queue', 'drop_queue',
	'pause_queue', 'resume_queue', 'drain_queue', 'purge_queue', 'cancel_jobs', 'retry_waiting', 'retry_dead', 'retry_all_dead', 'fork_job', 'discard_dead',
	'discard_all_dead', 'discard_completed', 'import_dead', 'pause_rule', 'resume_rule', 'drop_rule', 'drop_handler', 'drop_reducer', 'create_schedule',
	'pause_schedule', 'resume_schedule', 'drop_schedule', 'trigger_schedule', 'backfill_schedule', 'channel_id_of', 'create_event_index', 'drop_event_index',
	'create_event_partition', 'set_event_partitioning', 'split_event_partition', 'seal_event_partition', 'running_jobs', 'next_jobs', 'queue_jobs', 'failed_jobs', 'retry_failed', 'rule_activity',
	'aggregate_activity', 'rule_runs', 'backfill_rule', 'cancel_backfill', 'kept_definition', 'discard_draft', 'create_alert', 'alter_alert', 'drop_alert', 'pause_alert', 'resume_alert', 'ack_alert', 'snooze_alert', 'try_alert'],
	'as the owner act only functions that are known to');
SELECT is_empty($$
	SELECT c.oid::regclass FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
	WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND c.relkind = 'r' AND NOT c.relrowsecurity
$$, 'every table of tenants has row security');
SELECT set_eq($$
	SELECT p.proname::text FROM pg_proc p
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND has_function_privilege('public', p.oid, 'EXECUTE')
	  AND p.proname NOT LIKE '\_%'
$$, ARRAY['version', 'check_name', 'current_tenant', 'resolve_tenant', 'tenant_visible', 'uuid_v7', 'event_matches',
	'map_payload', 'event_as_json', 'check_create_mode', 'notice_other_definition', 'check_filter', 'matches_filter', 'merge_patch', 'json_diff', 'event_bucket', 'job_lane', 'job_state', 'check_payload', 'session_restores', 'is_unbound', 'activation_state',
	'give_up_job', 'retry_job_after', 'postpone_job', 'postpone_queue'],
	'PUBLIC may call what touches no data');
SELECT ok(has_table_privilege('public', 'event_queue.event_store', 'SELECT') = false, 'PUBLIC reads no events');

-- Statements that a user expects to fail do, with their code.
SELECT event_queue.append('pgtap', '1', 'x');
SELECT throws_ok('UPDATE event_queue.event_store SET version = 1', 'EQ007');
SELECT throws_ok('DELETE FROM event_queue.event_store', 'EQ007');
SELECT throws_ok('TRUNCATE event_queue.event_store', 'EQ007');
SELECT throws_ok($$SELECT event_queue.append('pgtap', '1', 'x', '{}', 5)$$, 'EQ001');
SELECT lives_ok($$SELECT event_queue.append('pgtap', '1', 'x', '{}', 1)$$);
-- Many jobs are handed on as an array: of a set that is joined the planner may think that it is
-- small, and read it again for each of them.
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	  AND p.prosrc ~ '(job_id|\)) IN \(\s*SELECT[^;]*FOR UPDATE'
$$, 'jobs that are locked are handed on as an array');
-- Sessions read the bodies of functions by their own settings.
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	  AND l.lanname IN ('sql', 'plpgsql') AND p.prosrc LIKE '%\\%'
$$, 'no function has a backslash, which standard_conforming_strings = off would take away');
SET standard_conforming_strings = off;
SET escape_string_warning = off;
SELECT lives_ok($$SELECT event_queue.create_calendar('pgtap', 'America/Sao_Paulo')$$, 'calendars whatever standard_conforming_strings is');
RESET standard_conforming_strings;
RESET escape_string_warning;
-- What is not there is told whatever the plan: also by one that looks at the name for each row.
SET plan_cache_mode = force_generic_plan;
SET enable_indexscan = off;
SET enable_bitmapscan = off;
SELECT throws_ok(format('SELECT event_queue.%s(''nowhere'')', f), 'EQ010')
FROM unnest(ARRAY['purge_queue', 'retry_waiting', 'pause_queue', 'resume_queue', 'drain_queue']) f;
SELECT throws_ok($$SELECT event_queue.drop_handler('nowhere', 'x')$$, 'EQ010');
SELECT throws_ok(format('SELECT event_queue.%s(''nowhere'')', f), 'EQ025')
FROM unnest(ARRAY['drop_subscription', 'retry_parked', 'fetch_parked']) f;
RESET plan_cache_mode;
RESET enable_indexscan;
RESET enable_bitmapscan;
SELECT throws_ok(format('SELECT event_queue.%s(%s)', f, r), '42704')
FROM unnest(ARRAY['grant_producer', 'grant_consumer', 'grant_worker', 'grant_observer', 'grant_admin', 'revoke_access']) f, unnest(ARRAY['NULL', '4294967295::oid::regrole']) r;

SELECT * FROM finish();
ROLLBACK;
