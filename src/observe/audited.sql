/*
 * audited.sql: triggers that write changes of tables of configuration to audit_log,
 * whichever function or manual statement makes them.
 */

/*
 * audit_row: row trigger.  Argument: the type of object.  The action is named as the
 * function that does such a thing.
 */
CREATE FUNCTION event_queue_internal.audit_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp SET timezone = 'UTC' SET intervalstyle = 'postgres' SET extra_float_digits = 1 SET quote_all_identifiers = off AS $$
DECLARE
	what CONSTANT text := TG_ARGV[0];
	old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
	new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
	this_row jsonb := coalesce(new_row, old_row);
	action text := CASE TG_OP WHEN 'INSERT' THEN 'create_' WHEN 'DELETE' THEN 'drop_' ELSE 'alter_' END || what;
	object text := this_row ->> 'name';
BEGIN
	IF new_row = old_row THEN
		RETURN NULL;
	END IF;
	-- Rows of a dump are no changes; the dump has the audit log of them.
	IF current_setting('check_function_bodies') = 'off' AND event_queue.activation_state() = 'restoring' THEN
		RETURN NULL;
	END IF;
	IF what = 'queue' AND TG_OP = 'UPDATE' THEN
		action := CASE
			WHEN NEW.draining AND NOT OLD.draining THEN 'drain_queue'
			WHEN NEW.paused AND NOT OLD.paused THEN 'pause_queue'
			WHEN OLD.paused AND NOT NEW.paused OR OLD.draining AND NOT NEW.draining THEN 'resume_queue'
			ELSE action END;
	ELSIF what IN ('rule', 'schedule', 'alert') AND TG_OP = 'UPDATE' AND old_row -> 'enabled' <> new_row -> 'enabled' THEN
		action := CASE WHEN NEW.enabled THEN 'resume_' ELSE 'pause_' END || what;
	ELSIF what = 'handler' THEN
		object := concat((SELECT q.name FROM event_queue.queue q WHERE q.queue_id = (this_row -> 'queue_id')::int), '/', this_row ->> 'job_name');
	ELSIF what = 'reducer' THEN
		action := CASE WHEN TG_OP = 'UPDATE' AND old_row -> 'revision' <> new_row -> 'revision' THEN 'refresh_reducer' ELSE action END;
		object := this_row ->> 'aggregate_type';
	ELSIF what = 'tenant_role' THEN
		action := CASE TG_OP WHEN 'DELETE' THEN 'unbind_role' ELSE 'bind_role' END;
		object := this_row ->> 'role';
	ELSIF what = 'event_index' THEN
		object := this_row ->> 'by';
	ELSIF what = 'event_partition' THEN
		-- The name is set after the number; unchanged rows are written to invalidate caches.
		IF TG_OP <> 'UPDATE' AND this_row ->> 'name' = '' THEN
			RETURN NULL;
		END IF;
		action := CASE
			WHEN TG_OP <> 'UPDATE' THEN action
			WHEN OLD.name = '' THEN CASE WHEN NEW.split_off THEN 'split_event_partition' ELSE 'create_event_partition' END
			WHEN OLD.archived_at IS DISTINCT FROM NEW.archived_at THEN 'archive_event_partition'
			WHEN OLD.last_position IS DISTINCT FROM NEW.last_position THEN 'seal_event_partition'
			ELSE action END;
		old_row := CASE WHEN old_row ->> 'name' <> '' THEN old_row END;
	ELSIF what = 'partition_policy' THEN
		action := CASE WHEN old_row -> 'every' IS DISTINCT FROM new_row -> 'every' AND (old_row IS NOT NULL OR new_row ->> 'every' IS NOT NULL)
			THEN 'set_event_partitioning' ELSE 'set_event_retention' END;
		object := 'events';
	ELSIF what = 'activation' THEN
		action := 'activate';
		object := this_row ->> 'database';
	END IF;
	PERFORM event_queue_internal.audit(action, what, object, this_row ->> 'tenant_id', old_row, new_row);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.audit_row() IS 'Internal. Trigger: writes a changed row of configuration to audit_log.';

DO $$
DECLARE
	this record;
BEGIN
	FOR this IN SELECT * FROM (VALUES
		('event_queue.queue', 'queue', ''),
		('event_queue.rule', 'rule', ''),
		('event_queue.handler', 'handler', ''),
		('event_queue.reducer', 'reducer', ''),
		-- not when its next run moves on
		('event_queue.schedule', 'schedule', ' OF name, cron, time_zone, queue_id, job_name, payload, priority, tenant_id, enabled, options, overlap, catch_up, jitter, starts_at, ends_at, exclude, exclude_calendar'),
		('event_queue.calendar', 'calendar', ''),
		('event_queue.subscription', 'subscription', ''),
		('event_queue_internal.alert_definition', 'alert', ''),
		('event_queue_internal.tenant_role', 'tenant_role', ''),
		('event_queue_internal.event_index', 'event_index', ''),
		('event_queue_internal.event_partition', 'event_partition', ''),
		('event_queue_internal.partition_policy', 'partition_policy', '')) x (tab, object_type, columns)
	LOOP
		EXECUTE format('CREATE TRIGGER audit_row AFTER INSERT OR DELETE OR UPDATE%s ON %s
			FOR EACH ROW WHEN (NOT event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.audit_row(%L)', this.columns, this.tab, this.object_type);
	END LOOP;
END
$$;
CREATE TRIGGER audit_row AFTER INSERT ON event_queue_internal.activation
	FOR EACH ROW WHEN (NOT event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.audit_row('activation');
