/*
 * versions.sql: versions of rules: what a rule was, who changed it and when, and rollback.
 *
 * Written by triggers, so that manual changes are versions, too; drafts by create_rule
 * (keep_draft in define.c).  A version is what the
 * rule does and for which tenant; not whether it is paused.
 */
CREATE TABLE event_queue_internal.rule_version (
	rule_id		int NOT NULL,
	version		int NOT NULL,
	rule		text NOT NULL,
	tenant_id	text,
	made_by		text NOT NULL,
	made_at		timestamptz NOT NULL,
	ended_at	timestamptz,
	definition	jsonb NOT NULL,
	draft		boolean NOT NULL DEFAULT false,
	owner		regrole,
	PRIMARY KEY (rule_id, version)
);
COMMENT ON TABLE event_queue_internal.rule_version IS 'Internal. The versions of rules; the view rule_versions shows them.';
COMMENT ON COLUMN event_queue_internal.rule_version.owner IS 'The role that made the version, with whose rights it is evaluated; NULL: the role was dropped. (In definition its name is as it was then.)';
CREATE INDEX rule_version_ended ON event_queue_internal.rule_version (ended_at) WHERE ended_at IS NOT NULL;
ALTER TABLE event_queue_internal.rule_version ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_version USING (tenant_visible(tenant_id));
-- As of rules: the OID of a dropped role may be another one's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_version', 'WHERE owner IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner)');

/* rule_definition: what create_rule takes, and the owner. */
CREATE FUNCTION event_queue_internal.rule_definition(r rule) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp SET intervalstyle = 'postgres' AS $$
	SELECT jsonb_build_object('owner', pg_get_userbyid(r.owner), 'tenant_id', r.tenant_id, 'event_pattern', r.event_pattern,
		'condition', r.condition, 'queue', (SELECT q.name FROM event_queue.queue q WHERE q.queue_id = r.queue_id), 'job_name', r.job_name,
		'payload', r.payload, 'delay', r.delay, 'priority', r.priority, 'function', r.function, 'options', r.options,
		'on_loop', r.on_loop, 'when_changed', r.when_changed, 'actions', r.actions, 'stop', r.stop, 'rule_order', r.rule_order,
		'on_table', r.on_table, 'on_change', r.on_change, 'tenant_column', r.tenant_column)
$$;
COMMENT ON FUNCTION event_queue_internal.rule_definition(rule) IS 'Internal. A rule''s version as JSON.';

CREATE FUNCTION event_queue_internal.number_rule_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	-- on_table.c: what its triggers append, and nothing else
	IF NEW.on_table IS NOT NULL THEN
		NEW.event_pattern := format('table.%s.*', NEW.rule_id);
	END IF;
	-- no new version for a change of other columns
	IF TG_OP = 'UPDATE' THEN
		NEW.version := OLD.version;
	END IF;
	IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - '{enabled,start_position,created_at,version,name}'::text[]
		IS DISTINCT FROM to_jsonb(OLD) - '{enabled,start_position,created_at,version,name}'::text[] THEN
		NEW.version := 1 + greatest(OLD.version, (SELECT max(v.version) FROM event_queue_internal.rule_version v WHERE v.rule_id = OLD.rule_id));
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION event_queue_internal.number_rule_version() IS 'Internal. Trigger: another definition is another version; the pattern of a rule on a table.';

CREATE FUNCTION event_queue_internal.keep_rule_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' THEN
		-- Its condition did not end: it has another one now, or the same function is mended.
		PERFORM event_queue_internal.clear_fault('rule', format('%s (rule %s)', NEW.name, NEW.rule_id), gone => true);
	END IF;
	IF TG_OP = 'UPDATE' AND NEW.version = OLD.version THEN
		RETURN NULL;
	END IF;
	IF TG_OP <> 'INSERT' THEN
		UPDATE event_queue_internal.rule_version v SET ended_at = clock_timestamp()
		WHERE v.rule_id = OLD.rule_id AND v.ended_at IS NULL AND (NOT v.draft OR TG_OP = 'DELETE');
	END IF;
	IF TG_OP <> 'DELETE' THEN
		INSERT INTO event_queue_internal.rule_version (rule_id, version, rule, tenant_id, made_by, made_at, definition, owner)
		VALUES (NEW.rule_id, NEW.version, NEW.name, NEW.tenant_id, event_queue_internal.acting_role(),
			clock_timestamp(), event_queue_internal.rule_definition(NEW), NEW.owner);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.keep_rule_version() IS 'Internal. Trigger: keeps each version of a rule; one that is replaced or switched rests no longer.';
CREATE TRIGGER number_rule_version BEFORE INSERT OR UPDATE ON rule
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.number_rule_version();
CREATE TRIGGER keep_rule_version AFTER INSERT OR UPDATE OR DELETE ON rule
	FOR EACH ROW WHEN (NOT event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.keep_rule_version();

/* trim_rule_versions: removes what ended, and drafts that were made, longer than event_queue.keep_audit ago, and forgets roles that were dropped. */
CREATE FUNCTION event_queue_internal.trim_rule_versions() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	UPDATE event_queue_internal.rule_version v SET owner = NULL
	WHERE v.owner IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = v.owner);
	DELETE FROM event_queue_internal.rule_version v
	USING (SELECT make_interval(mins => s.setting::int) FROM pg_settings s WHERE s.name = 'event_queue.keep_audit') x (keep)
	WHERE x.keep > '0' AND (v.ended_at < clock_timestamp() - x.keep OR v.draft AND v.made_at < clock_timestamp() - x.keep)
$$;
COMMENT ON FUNCTION event_queue_internal.trim_rule_versions() IS 'Internal. Removes versions of rules that ended, and drafts that were made, longer than event_queue.keep_audit ago.';

CREATE VIEW rule_versions WITH (security_invoker = true) AS
	SELECT v.rule, v.version, r.rule_id IS NOT NULL AS present, v.made_by, v.made_at, v.ended_at, v.definition, v.tenant_id, v.rule_id, v.draft
	FROM event_queue_internal.rule_version v LEFT JOIN event_queue.rule r ON r.rule_id = v.rule_id AND r.version = v.version;
COMMENT ON VIEW rule_versions IS
'What rules are (present), were, and may become (draft): by whom (the role of the session) and when; those that were replaced or dropped are kept for event_queue.keep_audit.';

/* rule_of: the row of a rule with this owner (NULL: a dropped role) and with the members of a definition. */
CREATE FUNCTION event_queue_internal.rule_of(r rule, definition jsonb, owner regrole) RETURNS rule
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	d jsonb := event_queue_internal.rule_definition($1);
	unknown text;
BEGIN
	SELECT min(k) INTO unknown FROM jsonb_object_keys($2) k WHERE NOT d ? k;
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = format('a rule''s definition has no "%s"', unknown),
			HINT = 'It has what event_queue.rule_versions shows in definition.';
	END IF;
	-- one action takes the place of another
	IF $2 ?| '{queue,function,actions}' THEN
		d := d || '{"queue": null, "job_name": null, "payload": null, "options": null, "delay": null, "priority": null, "function": null, "actions": null}';
	END IF;
	d := d || $2;
	IF num_nonnulls(d ->> 'queue', d ->> 'function', d ->> 'actions') <> 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ019', MESSAGE = 'a rule has exactly one action, or a list of them';
	END IF;
	-- rule_definition has names as they are, not as identifiers
	RETURN jsonb_populate_record($1, d - 'queue' - 'owner' || jsonb_build_object(
		'owner', coalesce($3, '-'),
		'queue_id', CASE WHEN d ->> 'queue' IS NOT NULL THEN event_queue_internal.queue_id_of(d ->> 'queue') END));
END
$$;
COMMENT ON FUNCTION event_queue_internal.rule_of(rule, jsonb, regrole) IS 'Internal. A rule''s row with another definition.';

/*
 * kept_definition: a version of a rule, of a draft (the newest for NULL) with its end: for
 * rollback_rule, activate_rule and discard_draft.  The rule stays there until the transaction ends.
 * Its owner is an OID, as names change.
 */
CREATE FUNCTION event_queue_internal.kept_definition(name text, version int, draft boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_rule int;
	d jsonb;
	maker regrole;
BEGIN
	SELECT r.rule_id INTO this_rule FROM event_queue.rule r WHERE r.name = $1 AND event_queue.tenant_visible(r.tenant_id) FOR UPDATE;
	IF this_rule IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	SELECT v.definition, v.owner INTO d, maker FROM event_queue_internal.rule_version v
	WHERE v.rule_id = this_rule AND v.draft = $3 AND event_queue.tenant_visible(v.tenant_id)
	  AND v.version = CASE WHEN $3 AND $2 IS NULL THEN (SELECT max(x.version) FROM event_queue_internal.rule_version x
		WHERE x.rule_id = this_rule AND x.draft) ELSE $2 END;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025',
			MESSAGE = format('rule "%s" has no %s', $1, CASE WHEN $3 THEN concat_ws(' ', 'draft', $2) ELSE 'version ' || coalesce($2::text, 'NULL') END),
			HINT = 'The view event_queue.rule_versions shows those that are kept.';
	END IF;
	DELETE FROM event_queue_internal.rule_version v
	WHERE $3 AND v.rule_id = this_rule AND v.draft AND v.version = coalesce($2, (
		SELECT max(x.version) FROM event_queue_internal.rule_version x WHERE x.rule_id = this_rule AND x.draft));
	RETURN d || jsonb_build_object('owner', maker::oid::text);
END
$$;
COMMENT ON FUNCTION event_queue_internal.kept_definition(text, int, boolean) IS 'Internal. A version or draft of a rule; the draft is removed.';

/* check_adopts: 42501 if a superuser would own what another role (NULL: a dropped one) wrote. */
CREATE FUNCTION event_queue_internal.check_adopts(maker text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)
	   AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = maker::oid AND r.rolsuper) THEN
		RAISE EXCEPTION USING ERRCODE = '42501',
			MESSAGE = format('what %s wrote would run with the rights of a superuser',
				coalesce(format('role "%s"', (SELECT r.rolname FROM pg_roles r WHERE r.oid = maker::oid)), 'a role that was dropped')),
			HINT = 'SET ROLE to that role first, or read the definition in event_queue.rule_versions and call create_rule yourself.';
	END IF;
END
$$;
COMMENT ON FUNCTION event_queue_internal.check_adopts(text) IS 'Internal. Refuses superusers the definitions of other roles.';

/* define_rule: create_rule with a definition as kept_definition gives it, with the caller's rights. */
CREATE FUNCTION event_queue_internal.define_rule(name text, d jsonb) RETURNS int
LANGUAGE sql
BEGIN ATOMIC
	SELECT event_queue_internal.check_adopts(d ->> 'owner');
	SELECT event_queue.create_rule(define_rule.name, CASE WHEN d ->> 'on_table' IS NULL THEN d ->> 'event_pattern' END, d ->> 'condition', d ->> 'queue', d ->> 'job_name',
		nullif(d -> 'payload', 'null'), (d ->> 'delay')::interval, (d ->> 'priority')::int, d ->> 'function', d ->> 'tenant_id',
		nullif(d -> 'options', 'null'), or_replace => true, on_loop => d ->> 'on_loop', when_changed => CASE jsonb_typeof(d -> 'when_changed')
			WHEN 'array' THEN ARRAY(SELECT f.* FROM jsonb_array_elements_text(d -> 'when_changed') f) END,
		actions => nullif(d -> 'actions', 'null'), stop => (d ->> 'stop')::boolean, rule_order => (d ->> 'rule_order')::int,
		-- the table may have been renamed since
		on_table => CASE WHEN d ->> 'on_table' IS NOT NULL THEN coalesce(to_regclass(d ->> 'on_table'),
			(SELECT event_queue_internal.table_of_rule(r.rule_id) FROM event_queue.rule r WHERE r.name = define_rule.name), (d ->> 'on_table')::regclass) END,
		on_change => CASE jsonb_typeof(d -> 'on_change')
			WHEN 'array' THEN ARRAY(SELECT f.* FROM jsonb_array_elements_text(d -> 'on_change') f) END,
		tenant_column => (d ->> 'tenant_column')::name);
END;
COMMENT ON FUNCTION event_queue_internal.define_rule(text, jsonb) IS 'Internal. Gives a rule a definition, for rollback_rule and activate_rule.';

/*
 * rollback_rule: gives a rule the definition of an earlier version, as a new version.
 *
 * As create_rule with or_replace: the caller becomes the owner, no event is lost or met
 * twice, and a rule that is paused stays so.
 * Arguments: version as in rule_versions, of this rule; that of a rule of this name that
 * was dropped is no version of it.
 * Result: the version that the rule has now: a new one, unless its definition is that already.
 * Errors: EQ025 no such rule or version (it may be older than event_queue.keep_audit); 42501 a superuser
 * would become the owner of what another role wrote; and
 * what create_rule says of a definition that has become wrong: EQ010 the queue was dropped,
 * EQ020 the function was, EQ022 the condition does not compile any more.
 * Isolation: waits for who drops or replaces the rule; if it is gone then, EQ025.
 * Example:
 *	SELECT event_queue.create_rule('letter', 'lead.won', queue => 'mail', job_name => 'letter', or_replace => true);
 *	SELECT event_queue.create_rule('letter', 'lead.lost', queue => 'mail', job_name => 'letter', or_replace => true);
 *	SELECT event_queue.rollback_rule('letter', 1);
 */
CREATE FUNCTION rollback_rule(name text, version int) RETURNS int
LANGUAGE sql
BEGIN ATOMIC
	SELECT event_queue_internal.define_rule(rollback_rule.name, event_queue_internal.kept_definition(rollback_rule.name, version, false));
	SELECT r.version FROM event_queue.rule r WHERE r.name = rollback_rule.name;
END;
COMMENT ON FUNCTION rollback_rule(text, int) IS 'Gives a rule the definition of an earlier version, as a new version.';

/*
 * activate_rule: puts a draft in force: create_rule with or_replace, of the role that calls
 * it, which becomes the owner.  No event is lost or met twice; a rule that is paused stays so.
 * Arguments: version: which draft; NULL: the newest.
 * Result: the version that the rule has now: the draft's, unless it was changed or got
 * other drafts meanwhile.
 * Errors: EQ025 no such rule or draft; 42501 a superuser would become the owner of what another role
 * wrote; and what create_rule says of its definition.
 * Example:
 *	SELECT event_queue.create_rule('letter', 'lead.*', $$event_type <> 'lead.created'$$, queue => 'mail', job_name => 'letter', draft => true);
 *	SELECT event_queue.activate_rule('letter');
 */
CREATE FUNCTION activate_rule(name text, version int DEFAULT NULL) RETURNS int
LANGUAGE sql
BEGIN ATOMIC
	SELECT event_queue_internal.define_rule(activate_rule.name, event_queue_internal.kept_definition(activate_rule.name, version, true));
	SELECT r.version FROM event_queue.rule r WHERE r.name = activate_rule.name;
END;
COMMENT ON FUNCTION activate_rule(text, int) IS 'Puts a draft of a rule in force; create_rule(..., draft => true) made it.';

/*
 * discard_draft: removes a draft of a rule, the newest for NULL.
 * Result: true.  Errors: EQ025 no such rule or draft.
 * Example:
 *	SELECT event_queue.create_rule('letter', 'lead.*', queue => 'mail', job_name => 'letter', draft => true);
 *	SELECT event_queue.discard_draft('letter');
 */
CREATE FUNCTION discard_draft(name text, version int DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.require_unbound();
	PERFORM event_queue_internal.audit('discard_draft', 'rule', $1, before => event_queue_internal.kept_definition($1, $2, true));
	RETURN true;
END
$$;
COMMENT ON FUNCTION discard_draft(text, int) IS 'Removes a draft of a rule that was not put in force.';
