/*
 * 0.1.0--0.2.0.sql: what happens to the tables and types of 0.1.0 (make-update.pl says
 * when this runs).
 */

/*
 * Roles that the grant functions gave rights to, by a function that each of them gave.
 * Their rights on tables and functions that are no longer given are taken away, and
 * those of bound roles and admins altogether; the end gives what the grant functions
 * give now.
 */
DO $$
DECLARE
	this record;
	grant_of text;
BEGIN
	FOR this IN
		SELECT a.grantee::pg_catalog.regrole AS role, a.grantee AS oid,
			(SELECT t.tenant_id FROM event_queue.tenant_role t JOIN pg_catalog.pg_roles r ON r.rolname = t.role_name
			 WHERE r.oid = a.grantee) AS tenant_id
		FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
		WHERE n.nspname = 'event_queue' AND a.grantee NOT IN (0, n.nspowner) AND a.privilege_type = 'USAGE'
		ORDER BY 1
	LOOP
		SELECT pg_catalog.string_agg(g.kind, ' ' ORDER BY g.kind) INTO grant_of
		FROM (VALUES ('append', 'producer'), ('claim', 'worker'), ('fetch_events', 'consumer'), ('health', 'observer'),
			('register_handler', 'admin')) g (gives, kind)
		WHERE EXISTS (SELECT FROM pg_catalog.pg_proc p, pg_catalog.aclexplode(p.proacl) a
			WHERE p.pronamespace = 'event_queue'::pg_catalog.regnamespace AND p.proname = g.gives AND a.grantee = this.oid);
		CONTINUE WHEN grant_of IS NULL;
		IF grant_of LIKE '%admin%' THEN
			grant_of := 'admin';
		END IF;
		IF this.tenant_id IS NOT NULL OR grant_of = 'admin' THEN
			DELETE FROM event_queue.update_keeps WHERE what = 'grant' AND role = this.role::text;
			EXECUTE pg_catalog.format('REVOKE ALL ON ALL ROUTINES IN SCHEMA event_queue FROM %s', this.role);
			EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA event_queue FROM %s', this.role);
		ELSE
			DELETE FROM event_queue.update_keeps
			WHERE what = 'grant' AND role = this.role::text AND command !~ '^GRANT (SELECT|EXECUTE) ';
			EXECUTE pg_catalog.format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON ALL TABLES IN SCHEMA event_queue FROM %s',
				this.role);
		END IF;
		INSERT INTO event_queue.update_keeps (what, role, command)
		SELECT 'role', this.role, pg_catalog.format(CASE kind WHEN 'admin' THEN 'SELECT event_queue.grant_%s(%L)'
			ELSE 'SELECT event_queue.grant_%s(%L, %L)' END, kind, this.role, this.tenant_id)
		FROM pg_catalog.string_to_table(grant_of, ' ') kind;
	END LOOP;
END
$$;

/* Roles are kept by OID.  A role that is gone is that of OID 0, whose things are out of service. */
ALTER TABLE rule ALTER COLUMN owner TYPE regrole USING coalesce(pg_catalog.to_regrole(pg_catalog.quote_ident(owner)), '-');
ALTER TABLE handler ADD COLUMN batch_size int, ADD COLUMN max_executors int, ADD COLUMN version int NOT NULL DEFAULT 1;
COMMENT ON COLUMN handler.version IS 'Goes up when create_handler changes it.';
COMMENT ON COLUMN handler.batch_size IS 'The function takes an array of up to so many jobs of one tenant; NULL: one job.';
COMMENT ON COLUMN handler.max_executors IS 'At most so many executors run it at the same time; NULL: all.';
ALTER TABLE handler ALTER COLUMN owner TYPE regrole USING coalesce(pg_catalog.to_regrole(pg_catalog.quote_ident(owner)), '-');
ALTER TABLE reducer ALTER COLUMN owner TYPE regrole USING coalesce(pg_catalog.to_regrole(pg_catalog.quote_ident(owner)), '-');
ALTER TABLE reducer ADD COLUMN revision int NOT NULL DEFAULT 0;
DELETE FROM tenant_role WHERE pg_catalog.to_regrole(pg_catalog.quote_ident(role_name)) IS NULL;
ALTER TABLE tenant_role RENAME COLUMN role_name TO role;
ALTER TABLE tenant_role ALTER COLUMN role TYPE regrole USING pg_catalog.to_regrole(pg_catalog.quote_ident(role));

ALTER TABLE queue ADD COLUMN sla_target float8 NOT NULL DEFAULT 0.99, ADD COLUMN owner text, ADD COLUMN docs_url text,
	ADD COLUMN job_events boolean NOT NULL DEFAULT false;
ALTER TABLE rule ALTER COLUMN priority DROP NOT NULL, ALTER COLUMN priority DROP DEFAULT, ADD COLUMN options jsonb,
	ADD COLUMN on_loop text NOT NULL DEFAULT 'skip', ADD COLUMN when_changed text[],
	ADD COLUMN version int NOT NULL DEFAULT 1, ADD COLUMN actions jsonb, ADD COLUMN stop boolean NOT NULL DEFAULT false,
	ADD COLUMN rule_order int NOT NULL DEFAULT 0, ADD COLUMN on_table text, ADD COLUMN on_change text[], ADD COLUMN tenant_column text;
/* Braces were text.  Names of members still are. */
UPDATE rule SET payload = (SELECT jsonb_object_agg(m.key, replace(m.value::text, '{{', '{{{{')::jsonb) FROM jsonb_each(payload) m)
WHERE jsonb_typeof(payload) = 'object' AND payload::text LIKE '%{{%';
ALTER TABLE schedule ALTER COLUMN priority DROP NOT NULL, ADD COLUMN options jsonb,
	ADD COLUMN runs bigint NOT NULL DEFAULT 0, ADD COLUMN missed bigint NOT NULL DEFAULT 0,
	ADD COLUMN last_error text, ADD COLUMN last_error_at timestamptz,
	ADD COLUMN overlap text NOT NULL DEFAULT 'allow', ADD COLUMN catch_up interval, ADD COLUMN jitter interval,
	ADD COLUMN starts_at timestamptz, ADD COLUMN ends_at timestamptz, ADD COLUMN exclude date[],
	ADD COLUMN skipped bigint NOT NULL DEFAULT 0, ADD COLUMN exclude_calendar text;
ALTER TABLE job_history ADD COLUMN claimed_at timestamptz, ADD COLUMN keep_count int, ADD COLUMN handler jsonb, ADD COLUMN steps jsonb;
ALTER TABLE job ADD COLUMN has_steps boolean NOT NULL DEFAULT false, ADD COLUMN suspended boolean NOT NULL DEFAULT false;
ALTER TABLE dead_letter ADD COLUMN has_steps boolean NOT NULL DEFAULT false;
ALTER TABLE job_dependency ADD COLUMN any_end boolean NOT NULL DEFAULT false;
ALTER TABLE subscription DROP CONSTRAINT subscription_name_key;
ALTER TABLE subscription ADD CONSTRAINT subscription_name_key UNIQUE NULLS NOT DISTINCT (name, tenant_id);
ALTER TYPE claimed_job RENAME ATTRIBUTE time_limit TO time_limit_ms;
ALTER TYPE claimed_job ALTER ATTRIBUTE time_limit_ms TYPE int;

/* What is nobody's to use. */
ALTER TABLE tenant_role SET SCHEMA event_queue_internal;
ALTER TABLE dropped_queue SET SCHEMA event_queue_internal;
ALTER TABLE job_review DROP CONSTRAINT job_review_pkey;
CREATE INDEX job_review_turn ON job_review (tenant_id, review_id);
ALTER TABLE job_review SET SCHEMA event_queue_internal;
ALTER TABLE group_review_at SET SCHEMA event_queue_internal;
ALTER TABLE group_rate SET SCHEMA event_queue_internal;
ALTER TABLE job_throttle ADD COLUMN began_at timestamptz;
ALTER TABLE job_throttle SET SCHEMA event_queue_internal;
ALTER TABLE rule_checkpoint SET SCHEMA event_queue_internal;
ALTER TABLE subscription_bucket ADD COLUMN resets int NOT NULL DEFAULT 0;
ALTER TABLE subscription_bucket SET SCHEMA event_queue_internal;
ALTER TABLE subscription_parked SET SCHEMA event_queue_internal;
ALTER TABLE event_partition SET SCHEMA event_queue_internal;
ALTER TABLE partition_policy SET SCHEMA event_queue_internal;
ALTER TABLE snapshot_checkpoint SET SCHEMA event_queue_internal;
ALTER TABLE channel SET SCHEMA event_queue_internal;
ALTER SEQUENCE event_position SET SCHEMA event_queue_internal;
ALTER SEQUENCE event_generation SET SCHEMA event_queue_internal;

-- after: the functions are those of 0.2.0

/* The type keep_options is there now. */
ALTER TABLE job ADD COLUMN keep keep_options;
ALTER TABLE dead_letter ADD COLUMN keep keep_options;
CREATE INDEX dead_letter_keep ON dead_letter (queue_id) WHERE NOT (keep IS NULL);
CREATE INDEX job_history_early_keep_count ON job_history_early (queue_id, keep_count, completed_at, job_id) WHERE keep_count > 0;
CREATE INDEX job_history_early_steps ON job_history_early (job_id) WHERE steps IS NOT NULL;
/* Each partition has what new ones get from job_history_early. */
DO $$
DECLARE
	part pg_catalog.regclass;
BEGIN
	FOR part IN SELECT i.inhrelid FROM pg_catalog.pg_inherits i
		WHERE i.inhparent = 'event_queue.job_history'::pg_catalog.regclass AND i.inhrelid <> 'event_queue.job_history_early'::pg_catalog.regclass LOOP
		EXECUTE pg_catalog.format('CREATE INDEX ON %s (queue_id, keep_count, completed_at, job_id) WHERE keep_count > 0', part);
		EXECUTE pg_catalog.format('CREATE INDEX ON %s (job_id) WHERE steps IS NOT NULL', part);
	END LOOP;
END
$$;

/*
 * What 0.1.0 let in and no function would have made stays, and is told: such a
 * constraint holds for what comes.
 */
DO $$
DECLARE
	this record;
BEGIN
	FOR this IN SELECT * FROM (VALUES
		('event_queue.job', 'job_priority', 'priority BETWEEN 0 AND 9'),
		('event_queue.job', 'job_lane', 'lane >= 0'),
		('event_queue.dead_letter', 'dead_letter_priority_check', 'priority BETWEEN 0 AND 9'),
		('event_queue_internal.job_review', 'job_review_what', 'job_id IS NOT NULL OR num_nulls(queue_id, tenant_id, group_key) = 0'),
		('event_queue.rule', 'rule_one_action', 'num_nonnulls(queue_id, function, actions) = 1 AND (queue_id IS NULL) = (job_name IS NULL)'),
		('event_queue.rule', 'rule_own_queue', 'queue_id > 2'),
		('event_queue.rule', 'rule_actions', 'event_queue_internal.are_actions(actions)'),
		('event_queue.rule', 'rule_payload', 'jsonb_typeof(payload) = ''object'''),
		('event_queue.rule', 'rule_priority', 'priority BETWEEN 0 AND 9'),
		('event_queue.rule', 'rule_delay', 'delay BETWEEN ''0'' AND ''100 years'''),
		('event_queue.rule', 'rule_on_loop', 'on_loop IN (''skip'', ''allow'')'),
		('event_queue.rule', 'rule_on_table', '(on_table IS NULL) = (on_change IS NULL) AND (tenant_column IS NULL OR on_table IS NOT NULL)'),
		('event_queue.rule', 'rule_when_changed', 'cardinality(when_changed) > 0 AND array_position(when_changed, NULL) IS NULL'),
		('event_queue.handler', 'handler_own_queue', 'queue_id > 2'),
		('event_queue.handler', 'handler_time_limit', 'time_limit > ''0'''),
		('event_queue.handler', 'handler_batch_size', 'batch_size BETWEEN 1 AND 1000'),
		('event_queue.handler', 'handler_max_executors', 'max_executors BETWEEN 1 AND 128'),
		('event_queue.schedule', 'schedule_own_queue', 'queue_id > 2'),
		('event_queue.schedule', 'schedule_priority', 'priority BETWEEN 0 AND 9'),
		('event_queue.schedule', 'schedule_overlap', 'overlap IN (''allow'', ''skip'', ''queue_one'', ''queue_all'', ''cancel'')'),
		('event_queue.subscription', 'subscription_filter', 'jsonb_typeof(filter) = ''object'''),
		('event_queue_internal.subscription_bucket', 'subscription_bucket_range', 'bucket BETWEEN 0 AND 63 AND position >= 0'),
		('event_queue_internal.partition_policy', 'partition_policy_every', 'every BETWEEN ''1 hour'' AND ''100 years'''),
		('event_queue_internal.partition_policy', 'partition_policy_keep', 'keep BETWEEN ''1 day'' AND ''100 years''')) x (tab, name, expression)
	LOOP
		EXECUTE pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%s) NOT VALID', this.tab, this.name, this.expression);
		BEGIN
			EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', this.tab, this.name);
		EXCEPTION WHEN check_violation THEN
			RAISE WARNING USING MESSAGE = pg_catalog.format('table %s has rows that violate new constraint %s', this.tab, this.name),
				HINT = pg_catalog.format('Correct them, then: ALTER TABLE %s VALIDATE CONSTRAINT %I', this.tab, this.name);
		END;
	END LOOP;
END
$$;

/* What a dump has to carry of indexes of events and of the built-in queues. */
INSERT INTO event_queue_internal.event_index
SELECT DISTINCT "by" FROM unnest(ARRAY['event_type', 'aggregate_type', 'tenant_id', 'event_data']) "by"
WHERE pg_catalog.to_regclass('event_queue.event_store_by_' || "by") IS NOT NULL;
INSERT INTO event_queue_internal.builtin_queue_settings
SELECT q.name, to_jsonb(q) - '{queue_id,name,created_at}'::text[] FROM queue q WHERE q.queue_id <= 2;

/* What rules are is their first version. */
INSERT INTO event_queue_internal.rule_version (rule_id, version, rule, tenant_id, made_by, made_at, definition, owner)
SELECT r.rule_id, r.version, r.name, r.tenant_id, pg_catalog.pg_get_userbyid(r.owner), r.created_at, event_queue_internal.rule_definition(r), r.owner FROM rule r;

/* For which events they have fired was not noted. */
INSERT INTO event_queue_internal.rule_memory (rule_id, known_from)
SELECT r.rule_id, event_queue_internal.last_position() FROM rule r;

/* The store was in service here, and is. */
DO $$
BEGIN
	PERFORM event_queue_internal.created();
END
$$;

/* What the grant functions gave, as they give it now. */
DO $$
DECLARE
	this record;
BEGIN
	FOR this IN SELECT k.command FROM event_queue.update_keeps k WHERE k.what = 'role' ORDER BY k.id LOOP
		EXECUTE this.command;
	END LOOP;
END
$$;
