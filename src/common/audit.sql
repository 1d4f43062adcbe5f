/*
 * audit.sql: audit_log, an append-only table in partitions by month.
 *
 * Triggers on tables of configuration write it (observe/audited.sql), so that no function
 * can be forgotten; functions that act on jobs, dead letters and rights call audit().
 * Events, enqueues, claims and what workers do with jobs are not audited.
 */
CREATE SEQUENCE event_queue_internal.audit_id;
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.audit_id', '');

CREATE TABLE audit_log (
	audit_id			bigint NOT NULL DEFAULT nextval('event_queue_internal.audit_id'),
	at					timestamptz NOT NULL DEFAULT clock_timestamp(),
	action				text NOT NULL,
	object_type			text NOT NULL,
	object				text NOT NULL,
	tenant_id			text COLLATE "C",
	session_role		text NOT NULL,
	role				text NOT NULL,
	actor				text,
	application_name	text NOT NULL,
	client_addr			text,
	pid					int NOT NULL,
	before				jsonb,
	after				jsonb
) PARTITION BY RANGE (at);
COMMENT ON TABLE audit_log IS
'Who changed what: configuration, rights, dead letters and jobs by hand. Rows are never changed, and are removed after event_queue.keep_audit.';
COMMENT ON COLUMN audit_log.action IS 'The function that makes such a change, also if a row was written by hand.';
COMMENT ON COLUMN audit_log.tenant_id IS 'The tenant of the thing, or to which the session was confined; NULL: the thing is shared by all tenants.';
COMMENT ON COLUMN audit_log.role IS 'The role that the session had set (of what a handler or a rule''s function does: its owner); else session_role.';
COMMENT ON COLUMN audit_log.actor IS 'The setting event_queue.actor.';
COMMENT ON COLUMN audit_log.before IS 'The row as it was; NULL: there was none, or the action has no such thing.';
COMMENT ON COLUMN audit_log.after IS 'The row as it is; of what was done to jobs: which, and how many.';
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON audit_log USING (tenant_visible(tenant_id));
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit_log
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.refuse_change('audit_log');
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_log
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_change('audit_log');

/*
 * What comes before its month has a table; also what others are made like.  (As in
 * job_history, indexes belong to the partitions.)
 */
CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
COMMENT ON TABLE audit_log_default IS 'Internal. Rows of audit_log of months that have no table of their own.';
-- Not unique: a restore of data into a store that has rows of its own must not fail for it.
CREATE INDEX audit_log_default_id ON audit_log_default (audit_id);
CREATE INDEX audit_log_default_object ON audit_log_default (object_type, object, audit_id);
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_log_default
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_change('audit_log');
ALTER TABLE audit_log_default ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON audit_log_default USING (tenant_visible(tenant_id));
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER refuse_change;
ALTER TABLE audit_log ENABLE ALWAYS TRIGGER refuse_truncate;
ALTER TABLE audit_log_default ENABLE ALWAYS TRIGGER refuse_truncate;
SELECT pg_catalog.pg_extension_config_dump('audit_log_default', '');

/*
 * audit: one row of audit_log.  Arguments: tenant_id NULL: that of the session, if it is
 * confined to one.
 */
CREATE FUNCTION event_queue_internal.audit(
	action text, object_type text, object text, tenant_id text DEFAULT NULL, before jsonb DEFAULT NULL, "after" jsonb DEFAULT NULL)
RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_audit_sql';
COMMENT ON FUNCTION event_queue_internal.audit(text, text, text, text, jsonb, jsonb) IS 'Internal. Writes one row of audit_log.';

/* acting_role: the role that the session has set; while a handler or a rule's function runs, its owner. */
CREATE FUNCTION event_queue_internal.acting_role() RETURNS text
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'eq_acting_role';
COMMENT ON FUNCTION event_queue_internal.acting_role() IS 'Internal. The role that the session has set, or whose handler it runs.';

/* who: the session's actor, or else the role that acts. */
CREATE FUNCTION event_queue_internal.who() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT coalesce(nullif(current_setting('event_queue.actor', true), ''), event_queue_internal.acting_role())
$$;
COMMENT ON FUNCTION event_queue_internal.who() IS 'Internal. Who acts: the session''s actor, or else its role.';

/*
 * maintain_audit: makes the table of the next month, and drops those whose time is over.
 * Never that of this month: a writer that is just being routed to the default partition
 * would fail.  So the month in which the extension is created stays in that one, as do
 * months that come while no scheduler runs; batch rows at most are deleted from there.
 * Result: there may be more.
 */
CREATE FUNCTION event_queue_internal.maintain_audit(batch int DEFAULT 1000) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET lock_timeout = '50ms' SET timezone = 'UTC' AS $$
#variable_conflict use_variable
DECLARE
	keep interval := make_interval(mins => (SELECT s.setting::int FROM pg_settings s WHERE s.name = 'event_queue.keep_audit'));
	part record;
	begins CONSTANT timestamptz := date_trunc('month', clock_timestamp()) + interval '1 month';
	this_name CONSTANT text := 'audit_log_' || to_char(begins, 'YYYYMM');
	n bigint := 0;
BEGIN
	IF keep > '0' THEN
		FOR part IN
			SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'event_queue.audit_log'::regclass AND c.relname ~ '^audit_log_[0-9]{6}$'
			  AND to_timestamp(substr(c.relname, 11), 'YYYYMM') + '1 month' <= clock_timestamp() - keep
		LOOP
			PERFORM event_queue_internal.drop_old_partition(part.name);
		END LOOP;
		IF EXISTS (SELECT FROM event_queue.audit_log_default d WHERE d.at < clock_timestamp() - keep) THEN
			PERFORM event_queue_internal.open_guard(true);
			DELETE FROM event_queue.audit_log_default WHERE ctid = ANY (ARRAY(
				SELECT d.ctid FROM event_queue.audit_log_default d WHERE d.at < clock_timestamp() - keep LIMIT $1));
			GET DIAGNOSTICS n = ROW_COUNT;
			PERFORM event_queue_internal.open_guard(false);
		END IF;
	END IF;
	IF to_regclass('event_queue.' || this_name) IS NOT NULL OR begins < clock_timestamp() + '1 minute'
		OR EXISTS (SELECT FROM event_queue.audit_log_default d WHERE d.at >= begins AND d.at < begins + '1 month') THEN
		RETURN n >= $1;
	END IF;
	EXECUTE format('CREATE TABLE event_queue.%I (LIKE event_queue.audit_log_default INCLUDING ALL)', this_name);
	EXECUTE format('COMMENT ON TABLE event_queue.%I IS %L', this_name, 'Rows of audit_log of the month from ' || begins || '.');
	EXECUTE format('ALTER TABLE event_queue.%I ENABLE ROW LEVEL SECURITY', this_name);
	EXECUTE format('CREATE POLICY tenant_isolation ON event_queue.%I USING (event_queue.tenant_visible(tenant_id))', this_name);
	EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON event_queue.%I
		FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_change(''audit_log'')', this_name);
	EXECUTE format('ALTER TABLE event_queue.%I ENABLE ALWAYS TRIGGER refuse_truncate', this_name);
	EXECUTE format('ALTER TABLE event_queue.audit_log ATTACH PARTITION event_queue.%I FOR VALUES FROM (%L) TO (%L)',
		this_name, begins, begins + '1 month');
	RETURN n >= $1;
END
$$;
COMMENT ON FUNCTION event_queue_internal.maintain_audit(int) IS 'Internal. Makes and drops partitions of audit_log.';
