/*
 * versions.sql: what a rule was, who made it so and when, and the way back.
 *
 * By triggers, so that what is written by hand is a version, too.  A version is what the
 * rule does and for whom; not whether it is paused.
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
	PRIMARY KEY (rule_id, version)
);
COMMENT ON TABLE event_queue_internal.rule_version IS 'Internal. The versions of rules; the view rule_versions shows them.';
CREATE INDEX rule_version_ended ON event_queue_internal.rule_version (ended_at) WHERE ended_at IS NOT NULL;
ALTER TABLE event_queue_internal.rule_version ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_version USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_version', '');

/* rule_definition: what create_rule takes, and the owner. */
CREATE FUNCTION event_queue_internal.rule_definition(r rule) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp SET intervalstyle = 'postgres' AS $$
	SELECT jsonb_build_object('owner', pg_get_userbyid(r.owner), 'tenant_id', r.tenant_id, 'event_pattern', r.event_pattern,
		'condition', r.condition, 'queue', (SELECT q.name FROM event_queue.queue q WHERE q.queue_id = r.queue_id), 'job_name', r.job_name,
		'payload', r.payload, 'delay', r.delay, 'priority', r.priority, 'function', r.function, 'options', r.options,
		'on_loop', r.on_loop, 'when_changed', r.when_changed, 'actions', r.actions, 'stop', r.stop, 'rule_order', r.rule_order)
$$;
COMMENT ON FUNCTION event_queue_internal.rule_definition(rule) IS 'Internal. A rule''s version as JSON.';

CREATE FUNCTION event_queue_internal.number_rule_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	NEW.version := OLD.version + ((NEW.owner, NEW.tenant_id, NEW.event_pattern, NEW.condition, NEW.queue_id, NEW.job_name, NEW.payload,
		NEW.delay, NEW.priority, NEW.function, NEW.options, NEW.on_loop, NEW.when_changed, NEW.actions, NEW.stop, NEW.rule_order)
		IS DISTINCT FROM (OLD.owner, OLD.tenant_id, OLD.event_pattern, OLD.condition, OLD.queue_id, OLD.job_name, OLD.payload,
		OLD.delay, OLD.priority, OLD.function, OLD.options, OLD.on_loop, OLD.when_changed, OLD.actions, OLD.stop, OLD.rule_order))::int;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION event_queue_internal.number_rule_version() IS 'Internal. Trigger: another definition is another version.';

CREATE FUNCTION event_queue_internal.keep_rule_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF TG_OP = 'UPDATE' AND NEW.version = OLD.version THEN
		RETURN NULL;
	END IF;
	IF TG_OP <> 'INSERT' THEN
		UPDATE event_queue_internal.rule_version v SET ended_at = clock_timestamp()
		WHERE v.rule_id = OLD.rule_id AND v.version = OLD.version;
	END IF;
	IF TG_OP <> 'DELETE' THEN
		INSERT INTO event_queue_internal.rule_version (rule_id, version, rule, tenant_id, made_by, made_at, definition)
		VALUES (NEW.rule_id, NEW.version, NEW.name, NEW.tenant_id, coalesce(nullif(current_setting('role'), 'none'), session_user),
			clock_timestamp(), event_queue_internal.rule_definition(NEW));
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.keep_rule_version() IS 'Internal. Trigger: keeps each version of a rule.';
CREATE TRIGGER number_rule_version BEFORE UPDATE ON rule
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.number_rule_version();
CREATE TRIGGER keep_rule_version AFTER INSERT OR UPDATE OR DELETE ON rule
	FOR EACH ROW WHEN (NOT event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.keep_rule_version();

/* trim_rule_versions: removes what ended longer than event_queue.keep_audit ago. */
CREATE FUNCTION event_queue_internal.trim_rule_versions() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	DELETE FROM event_queue_internal.rule_version v
	USING (SELECT make_interval(mins => s.setting::int) FROM pg_settings s WHERE s.name = 'event_queue.keep_audit') x (keep)
	WHERE x.keep > '0' AND v.ended_at < clock_timestamp() - x.keep
$$;
COMMENT ON FUNCTION event_queue_internal.trim_rule_versions() IS 'Internal. Removes versions of rules that ended longer than event_queue.keep_audit ago.';

CREATE VIEW rule_versions WITH (security_invoker = true) AS
	SELECT v.rule, v.version, r.rule_id IS NOT NULL AS present, v.made_by, v.made_at, v.ended_at, v.definition, v.tenant_id, v.rule_id
	FROM event_queue_internal.rule_version v LEFT JOIN event_queue.rule r ON r.rule_id = v.rule_id AND r.version = v.version;
COMMENT ON VIEW rule_versions IS
'What rules are (present) and were: by whom (the role of the session) and when; those that were replaced or dropped are kept for event_queue.keep_audit.';

/*
 * rollback_rule: gives a rule the definition of an earlier version, as a new version.
 *
 * As create_rule with or_replace: the caller becomes the owner, no event is lost or met
 * twice, and a rule that is paused stays so.
 * Arguments: version as in rule_versions, of this rule; that of a rule of this name that
 * was dropped is no version of it.
 * Result: the version that the rule has now: a new one, unless its definition is that already.
 * Errors: EQ025 no such rule or version (it may be older than event_queue.keep_audit); and
 * what create_rule says of a definition that has become wrong: EQ010 the queue was dropped,
 * EQ020 the function was, EQ022 the condition does not compile any more.
 * Isolation: if the rule is dropped meanwhile, EQ025.
 * Example:
 *	SELECT event_queue.create_rule('letter', 'lead.won', queue => 'mail', job_name => 'letter', or_replace => true);
 *	SELECT event_queue.create_rule('letter', 'lead.lost', queue => 'mail', job_name => 'letter', or_replace => true);
 *	SELECT event_queue.rollback_rule('letter', 1);
 */
CREATE FUNCTION rollback_rule(name text, version int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_rule int := (SELECT r.rule_id FROM event_queue.rule r WHERE r.name = $1 AND event_queue.tenant_visible(r.tenant_id));
	d jsonb;
BEGIN
	IF this_rule IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	SELECT v.definition INTO d FROM event_queue.rule_versions v
	WHERE v.rule_id = this_rule AND v.version = $2 AND event_queue.tenant_visible(v.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" has no version %s', $1, coalesce($2::text, 'NULL')),
			HINT = 'The view event_queue.rule_versions shows those that are kept.';
	END IF;
	IF this_rule <> event_queue.create_rule($1, d ->> 'event_pattern', d ->> 'condition', d ->> 'queue', d ->> 'job_name', nullif(d -> 'payload', 'null'),
		(d ->> 'delay')::interval, (d ->> 'priority')::int, d ->> 'function', d ->> 'tenant_id', nullif(d -> 'options', 'null'), or_replace => true,
		on_loop => d ->> 'on_loop', when_changed => CASE jsonb_typeof(d -> 'when_changed')
			WHEN 'array' THEN ARRAY(SELECT f.* FROM jsonb_array_elements_text(d -> 'when_changed') f) END,
		actions => nullif(d -> 'actions', 'null'), stop => (d ->> 'stop')::boolean, rule_order => (d ->> 'rule_order')::int) THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" was dropped meanwhile', $1);
	END IF;
	RETURN (SELECT r.version FROM event_queue.rule r WHERE r.rule_id = this_rule);
END
$$;
COMMENT ON FUNCTION rollback_rule(text, int) IS 'Gives a rule the definition of an earlier version, as a new version.';
