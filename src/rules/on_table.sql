/*
 * on_table.sql: the trigger function of rules on plain tables, and what removes triggers.
 */

/*
 * table_change: the trigger that create_rule makes on the table of its on_table, and drop_rule
 * drops.  Arguments: the rule's id, and others of create_rule's; nobody else makes it.
 * Example:
 *	SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE tgfoid = 'event_queue.table_change()'::regprocedure;
 */
CREATE FUNCTION table_change() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'eq_table_change';
COMMENT ON FUNCTION table_change() IS
'Trigger of rules with on_table: appends an event for the changed row, which lets the rule fire.';

/* table_triggers: the triggers of a rule, by their first argument: the table's owner may rename them. */
CREATE FUNCTION event_queue_internal.table_triggers(rule_id int) RETURNS SETOF pg_catalog.pg_trigger
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT t.* FROM pg_trigger t
	WHERE t.tgfoid = 'event_queue.table_change()'::regprocedure AND t.tgparentid = 0
	  AND substring(t.tgargs FROM 1 FOR length($1::text) + 1) = convert_to($1::text, 'UTF8') || decode('00', 'hex')
$$;
COMMENT ON FUNCTION event_queue_internal.table_triggers(int) IS 'For views. The triggers of a rule with on_table.';

/* table_of_rule: the table that has the rule's triggers; NULL: none has. */
CREATE FUNCTION event_queue_internal.table_of_rule(rule_id int) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT min(t.tgrelid)::regclass FROM event_queue_internal.table_triggers($1) t
$$;
COMMENT ON FUNCTION event_queue_internal.table_of_rule(int) IS 'For views. The table that has the triggers of a rule with on_table; NULL: none, it was dropped.';

/* drop_table_triggers: removes a rule's triggers, but those of this table of these names. */
CREATE FUNCTION event_queue_internal.drop_table_triggers(rule_id int, keep_on oid DEFAULT 0, keep text[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this record;
BEGIN
	FOR this IN
		SELECT t.tgname, t.tgrelid::regclass AS tab FROM event_queue_internal.table_triggers($1) t
		WHERE NOT (t.tgrelid = keep_on AND t.tgname = ANY (keep))
	LOOP
		BEGIN
			EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', this.tgname, this.tab);
		EXCEPTION WHEN insufficient_privilege THEN
			RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('trigger "%s" of table %s cannot be dropped', this.tgname, this.tab),
				DETAIL = 'The owner of the extension does not own the table.',
				HINT = format('Have the owner of the table run: DROP TRIGGER %I ON %s', this.tgname, this.tab);
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION event_queue_internal.drop_table_triggers(int, oid, text[]) IS 'Internal. Removes the triggers of a rule with on_table.';

/* table_is_watched: has the table all triggers of a rule, enabled?  DROP COLUMN ... CASCADE drops one. */
CREATE FUNCTION event_queue_internal.table_is_watched(rule_id int, on_change text[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT count(*) = cardinality($2) FROM event_queue_internal.table_triggers($1) t WHERE t.tgenabled IN ('O', 'A')
$$;
COMMENT ON FUNCTION event_queue_internal.table_is_watched(int, text[]) IS 'For views. Whether the triggers of a rule with on_table are all there.';

CREATE FUNCTION event_queue_internal.forget_table_rule() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	PERFORM event_queue_internal.drop_table_triggers(OLD.rule_id);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.forget_table_rule() IS 'Internal. Trigger: a rule that is dropped takes its triggers with it.';
CREATE TRIGGER forget_table_rule AFTER DELETE ON rule
	FOR EACH ROW WHEN (OLD.on_table IS NOT NULL) EXECUTE FUNCTION event_queue_internal.forget_table_rule();
