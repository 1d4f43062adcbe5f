/*
 * wake.sql: triggers for users' own tables.
 *
 * A NOTIFY inside a writing transaction takes a lock that all databases of the
 * server share, until its commit is done.  So the trigger only marks its
 * channel in shared memory; after commit the scheduler is woken, and sends one
 * NOTIFY for as many writes as came in the meantime.
 */

CREATE TABLE event_queue_internal.channel (
	channel_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name		text NOT NULL CONSTRAINT channel_name_key UNIQUE
);
COMMENT ON TABLE event_queue_internal.channel IS 'Channels that notify_on serves.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON event_queue_internal.channel
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
CREATE TRIGGER slot_changed AFTER INSERT OR DELETE ON event_queue_internal.channel
	FOR EACH ROW EXECUTE FUNCTION event_queue_internal.slot_changed('-1');
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.channel', '');
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.channel_channel_id_seq', '');

/*
 * notify_change: the trigger that notify_on makes.  Argument: the number of its channel;
 * nobody else makes it.
 * Example:
 *	SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE tgfoid = 'event_queue.notify_change()'::regprocedure;
 */
CREATE FUNCTION notify_change() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_notify_change';
COMMENT ON FUNCTION notify_change() IS
'Trigger of notify_on: after commit, has the scheduler send one NOTIFY on the channel whose number is the argument.';

CREATE FUNCTION event_queue_internal.channel_id_of(channel text) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.check_name('channel name', channel, 63);
	INSERT INTO event_queue_internal.channel (name) VALUES (channel) ON CONFLICT DO NOTHING;
	RETURN (SELECT c.channel_id FROM event_queue_internal.channel c WHERE c.name = $1);
END
$$;
COMMENT ON FUNCTION event_queue_internal.channel_id_of(text) IS 'Internal. A channel''s number for notify_on, which gives it one.';

/* make_notifying: the trigger of notify_on. */
CREATE FUNCTION event_queue_internal.make_notifying(table_name regclass, channel_id int, if_not_exists boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	-- The name says what it does: one that is there is the same.
	EXECUTE format('CREATE %s TRIGGER %I AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
				   'FOR EACH STATEMENT EXECUTE FUNCTION event_queue.notify_change(%s)',
				   CASE WHEN if_not_exists THEN 'OR REPLACE' END,
				   'event_queue_notify_' || channel_id, table_name, channel_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION event_queue_internal.make_notifying(regclass, int, boolean) IS 'Internal. Makes the trigger of notify_on, with the caller''s rights.';

/*
 * notify_on: after every committed change of the table, listeners of the
 * channel are notified; changes that come close together share one NOTIFY.
 * Arguments: channel at most 63 bytes; if_not_exists: no error if the table has
 * the trigger already.
 * Errors: EQ006 channel name; 42501 if the caller does not own the table;
 * 42710 if the table has the trigger already; 53400 no room in shared memory for one
 * more channel (event_queue.max_queues).
 * Example:
 *	CREATE TABLE customer (customer_id int PRIMARY KEY, name text);
 *	SELECT event_queue.notify_on('customer', 'customer_changed', if_not_exists => true);
 */
CREATE FUNCTION notify_on(table_name regclass, channel text, if_not_exists boolean DEFAULT false) RETURNS boolean
LANGUAGE sql SET quote_all_identifiers = off
BEGIN ATOMIC
	SELECT event_queue_internal.audit('notify_on', 'table',
		(SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = table_name), "after" => jsonb_build_object('channel', channel));
	SELECT event_queue_internal.make_notifying(table_name, event_queue_internal.channel_id_of(channel), if_not_exists);
END;
COMMENT ON FUNCTION notify_on(regclass, text, boolean) IS
'Notifies listeners of the channel after every committed change of the table, without NOTIFY''s commit lock.';

/*
 * record_change: trigger of record_changes.  Arguments: aggregate type, id
 * column, tenant column or '', event prefix.  Settings as in rules/row_json.c (pin_output).
 * Example:
 *	SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE tgfoid = 'event_queue.record_change()'::regprocedure;
 */
CREATE FUNCTION record_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp
SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET timezone = 'UTC' SET bytea_output = 'hex' SET extra_float_digits = 1
SET quote_all_identifiers = off AS $$
DECLARE
	new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
	old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
	this_row jsonb := coalesce(new_row, old_row);
	data jsonb;
BEGIN
	IF TG_OP = 'UPDATE' AND new_row = old_row THEN
		RETURN NULL;
	END IF;
	-- Rows that a restore loads are no changes: their events are in the dump.
	IF current_setting('check_function_bodies') = 'off' AND event_queue.activation_state() = 'restoring' THEN
		RETURN NULL;
	END IF;
	data := CASE TG_OP
		WHEN 'INSERT' THEN jsonb_build_object('new', new_row)
		WHEN 'DELETE' THEN jsonb_build_object('old', old_row)
		ELSE jsonb_build_object('new', new_row, 'old', old_row, 'changed',
			(SELECT jsonb_agg(n.key ORDER BY n.key) FROM jsonb_each(new_row) n
			 WHERE n.value IS DISTINCT FROM old_row -> n.key)) END;
	PERFORM event_queue.append(TG_ARGV[0], this_row ->> TG_ARGV[1],
		TG_ARGV[3] || CASE TG_OP WHEN 'INSERT' THEN '.inserted' WHEN 'UPDATE' THEN '.updated' ELSE '.deleted' END,
		data, metadata => jsonb_build_object('table', TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME),
		tenant_id => CASE WHEN TG_ARGV[2] <> '' THEN this_row ->> TG_ARGV[2] END);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION record_change() IS
'Trigger of record_changes: appends an event for the changed row, with the rights of whoever changes it.';

/* make_recording: the trigger of record_changes, whose name checks are done. */
CREATE FUNCTION event_queue_internal.make_recording(
	table_name regclass, aggregate_type text, id_column name,
	tenant_column name, event_prefix text, or_replace boolean)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	missing name;
BEGIN
	SELECT c INTO missing FROM unnest(ARRAY[id_column, tenant_column]) c
	WHERE (c IS NOT NULL OR id_column IS NULL) AND NOT EXISTS (SELECT FROM pg_attribute a
		WHERE a.attrelid = table_name AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped);
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('column "%s" of table %s does not exist', missing, table_name);
	END IF;
	EXECUTE format('CREATE %s TRIGGER event_queue_record_changes AFTER INSERT OR UPDATE OR DELETE ON %s '
				   'FOR EACH ROW EXECUTE FUNCTION event_queue.record_change(%L, %L, %L, %L)',
				   CASE WHEN or_replace THEN 'OR REPLACE' END, table_name, aggregate_type, id_column, coalesce(tenant_column, ''),
				   coalesce(event_prefix, aggregate_type));
	RETURN true;
END
$$;
COMMENT ON FUNCTION event_queue_internal.make_recording(regclass, text, name, name, text, boolean) IS 'Internal. Makes the trigger of record_changes, with the caller''s rights.';

/*
 * record_changes: from now on every row change of the table appends an event
 * PREFIX.inserted, PREFIX.updated or PREFIX.deleted with data {new, old,
 * changed}, in the writer's transaction.  An UPDATE that changes nothing
 * appends nothing, nor does TRUNCATE.  Times are in UTC, and values of other types, too, are written
 * the same whatever the writer's settings.  Whoever writes to the table needs grant_producer.
 * Arguments: id_column holds the aggregate's id; tenant_column the tenant
 * (default: the session's); event_prefix defaults to aggregate_type; or_replace:
 * if the table records already, from now on it does so as given here.
 * Errors: EQ006 name, 42703 no such column, 42501 not the table's owner, 42710
 * the table records already.
 * Example:
 *	SELECT event_queue.record_changes('customer', 'customer', 'customer_id', or_replace => true);
 *	INSERT INTO customer VALUES (1, 'Bia');
 */
CREATE FUNCTION record_changes(
	table_name regclass, aggregate_type text, id_column name,
	tenant_column name DEFAULT NULL, event_prefix text DEFAULT NULL, or_replace boolean DEFAULT false)
RETURNS boolean
LANGUAGE sql SET quote_all_identifiers = off
BEGIN ATOMIC
	SELECT event_queue_internal.check_name('aggregate type', aggregate_type),
		event_queue_internal.check_name('event prefix', coalesce(event_prefix, aggregate_type), 240);
	SELECT event_queue_internal.audit('record_changes', 'table',
		(SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = table_name), "after" => jsonb_build_object(
		'aggregate_type', aggregate_type, 'id_column', id_column, 'tenant_column', tenant_column, 'event_prefix', event_prefix));
	SELECT event_queue_internal.make_recording(table_name, aggregate_type, id_column, tenant_column, event_prefix, or_replace);
END;
COMMENT ON FUNCTION record_changes(regclass, text, name, name, text, boolean) IS
'Appends an event for every row change of a table: PREFIX.inserted, .updated, .deleted.';
