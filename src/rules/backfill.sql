/*
 * backfill.sql: requests for backfills of rules, and their progress.
 *
 * The rule runner does them (backfill.c), some events in each of its transactions, which
 * also moves the backfill's position: so they continue after a restart.
 */
CREATE TABLE event_queue_internal.rule_backfill (
	backfill_id		bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	rule_id			int NOT NULL,
	rule			text NOT NULL,
	tenant_id		text,
	from_position	bigint NOT NULL,
	to_position		bigint NOT NULL,
	position		bigint NOT NULL,
	rate			float8,
	state			text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'cancelled')),
	seen			bigint NOT NULL DEFAULT 0,
	fired			bigint NOT NULL DEFAULT 0,
	fired_before	bigint NOT NULL DEFAULT 0,
	not_known		bigint NOT NULL DEFAULT 0,
	made_by			text NOT NULL,
	made_at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	ended_at		timestamptz
);
COMMENT ON TABLE event_queue_internal.rule_backfill IS 'Internal. Backfills of rules; the view rule_backfills shows them.';
CREATE UNIQUE INDEX rule_backfill_running ON event_queue_internal.rule_backfill (rule_id) WHERE state = 'running';
CREATE TRIGGER config_changed AFTER INSERT ON event_queue_internal.rule_backfill
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
ALTER TABLE event_queue_internal.rule_backfill ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_backfill USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_backfill', '');
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_backfill_backfill_id_seq', '');

CREATE VIEW rule_backfills WITH (security_invoker = true) AS
	SELECT b.rule, b.tenant_id,
		CASE WHEN b.state = 'running' AND r.enabled IS FALSE THEN 'paused' ELSE b.state END AS state,
		b.from_position, b.to_position, b.position,
		CASE WHEN b.to_position > b.from_position
			THEN (b.position - b.from_position)::float8 / (b.to_position - b.from_position) ELSE 1 END AS progress,
		b.rate, b.seen, b.fired, b.fired_before, b.not_known, b.made_by, b.made_at, b.ended_at
	FROM event_queue_internal.rule_backfill b LEFT JOIN event_queue.rule r ON r.rule_id = b.rule_id;
COMMENT ON VIEW rule_backfills IS
'Backfills of rules: how far each is, events that pattern and tenant let through (seen), for which the rule fired, had fired before, or may have (not_known: older than event_queue.keep_rule_runs; it does not fire).';

/*
 * forget_given_up: deletes the firings of a rule, for events after a position and up to another,
 * that a job of queue "rule-calls" was to try again, if the job was discarded or cancelled.
 */
CREATE FUNCTION event_queue_internal.forget_given_up(rule_id int, after_position bigint, up_to bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp SET enable_seqscan = off AS $$
	DELETE FROM event_queue_internal.rule_run r
	WHERE r.rule_id = $1 AND r.position > $2 AND r.position <= $3 AND NOT r.fired
	  AND NOT EXISTS (SELECT FROM event_queue.event_store e, event_queue.job j
		WHERE e.position = r.position AND j.metadata ? 'event_id' AND j.metadata ->> 'event_id' = e.id::text
		  AND j.queue_id = 1 AND j.payload ->> 'rule_id' = r.rule_id::text)
	  AND NOT EXISTS (SELECT FROM event_queue.event_store e, event_queue.dead_letter d
		WHERE e.position = r.position AND d.metadata ? 'event_id' AND d.metadata ->> 'event_id' = e.id::text
		  AND d.queue_id = 1 AND d.payload ->> 'rule_id' = r.rule_id::text)
$$;
COMMENT ON FUNCTION event_queue_internal.forget_given_up(int, bigint, bigint) IS
'Internal. Deletes firings of a rule that are not tried again, as their jobs were discarded or cancelled.';

/*
 * backfill_rule: lets a rule fire for events that are there and for which it has not fired.
 *
 * The rule runner does it beside the events that come, in order, as the rule is then; an
 * event for which the rule has fired, live or by a backfill, whatever its version was, does
 * not let it fire again, nor does one that a job of queue "rule-calls" is to try again (or a
 * dead letter, until it is discarded).  It goes on after a restart, and stands while the rule is
 * paused.
 * Arguments: from_position and to_position: events after the first and up to the second
 * (NULL: from the first one that is there; up to the newest); rate: at most so many
 * firings a second (NULL: as fast as it goes).
 * Result: the position up to which it goes.
 * Errors: EQ025 no such rule, EQ009 positions or rate, EQ056 the rule has a backfill that
 * is not over; see the view rule_backfills.
 * Isolation: of two at once, one waits for the other, and fails.
 * Example:
 *	SELECT event_queue.backfill_rule('welcome', rate => 100) > 0 AS begun;
 *	SELECT rule, state, progress, fired FROM event_queue.rule_backfills;
 */
CREATE FUNCTION backfill_rule(name text, from_position bigint DEFAULT NULL, to_position bigint DEFAULT NULL, rate float8 DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
	first bigint := coalesce($2, 0);
	last bigint := coalesce($3, event_queue_internal.last_position());
BEGIN
	PERFORM event_queue_internal.require_unbound();
	SELECT x.* INTO r FROM event_queue.rule x WHERE x.name = $1 AND event_queue.tenant_visible(x.tenant_id) FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	IF first < 0 OR last < first OR last > event_queue_internal.last_position() THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'from_position and to_position must be a range of existing positions',
			DETAIL = format('The newest one is %s.', event_queue_internal.last_position());
	END IF;
	IF $4 IS NOT NULL AND ($4 > 0 AND $4 <= 1000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'rate must be above 0 and at most 1000000 firings a second';
	END IF;
	BEGIN
		INSERT INTO event_queue_internal.rule_backfill (rule_id, rule, tenant_id, from_position, to_position, position, rate, made_by)
		VALUES (r.rule_id, r.name, r.tenant_id, first, last, first, $4, event_queue_internal.who());
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ056', MESSAGE = format('rule "%s" has an unfinished backfill', $1),
			HINT = format('The view event_queue.rule_backfills shows it; SELECT event_queue.cancel_backfill(%L) ends it.', $1);
	END;
	PERFORM event_queue_internal.audit('backfill_rule', 'rule', $1, r.tenant_id,
		"after" => jsonb_build_object('from_position', first, 'to_position', last, 'rate', $4));
	RETURN last;
END
$$;
COMMENT ON FUNCTION backfill_rule(text, bigint, bigint, float8) IS
'Lets a rule fire for events that are there and for which it has not fired; the rule runner does it, rule_backfills shows how far it is.';

/*
 * cancel_backfill: ends the rule's backfill where it is; what it did stays.
 * Result: false if there is none that is not over.  Errors: EQ025 no such rule.
 * Isolation: waits for the rule runner's transaction, half a second at most.
 * Example:
 *	SELECT event_queue.cancel_backfill('welcome');
 */
CREATE FUNCTION cancel_backfill(rule text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
BEGIN
	PERFORM event_queue_internal.require_unbound();
	r := event_queue_internal.get_rule($1);
	UPDATE event_queue_internal.rule_backfill b SET state = 'cancelled', ended_at = clock_timestamp()
	WHERE b.rule_id = r.rule_id AND b.state = 'running';
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM event_queue_internal.audit('cancel_backfill', 'rule', $1, r.tenant_id);
	RETURN true;
END
$$;
COMMENT ON FUNCTION cancel_backfill(text) IS 'Ends a rule''s backfill where it is; what it did stays.';

CREATE FUNCTION event_queue_internal.end_backfill() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	UPDATE event_queue_internal.rule_backfill b SET state = 'cancelled', ended_at = clock_timestamp()
	WHERE b.rule_id = OLD.rule_id AND b.state = 'running';
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION event_queue_internal.end_backfill() IS 'Internal. Trigger: a rule that is dropped has no backfill.';
CREATE TRIGGER end_backfill AFTER DELETE ON rule FOR EACH ROW EXECUTE FUNCTION event_queue_internal.end_backfill();

/* trim_backfills: removes those that ended longer than event_queue.keep_audit ago. */
CREATE FUNCTION event_queue_internal.trim_backfills() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	DELETE FROM event_queue_internal.rule_backfill b
	USING (SELECT make_interval(mins => s.setting::int) FROM pg_settings s WHERE s.name = 'event_queue.keep_audit') x (keep)
	WHERE x.keep > '0' AND b.ended_at < clock_timestamp() - x.keep
$$;
COMMENT ON FUNCTION event_queue_internal.trim_backfills() IS 'Internal. Removes backfills that ended longer than event_queue.keep_audit ago.';
