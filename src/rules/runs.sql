/*
 * runs.sql: the firings of rules, for rule_runs, and so that a backfill does not repeat them.
 *
 * The rule runner writes a row for each event for which a rule has fired, or is to be
 * retried by a job of queue "rule-calls" (state deferred), in the transaction that moves the
 * checkpoint.  Rows are deleted after event_queue.keep_rule_runs; up to known_from of
 * rule_memory it is then unknown for which events a rule has fired.
 *
 * No foreign keys, as in counts.sql.
 */
CREATE TABLE event_queue_internal.rule_run (
	rule_id		int NOT NULL,
	position	bigint NOT NULL,
	version		int NOT NULL,
	fired		boolean NOT NULL,
	backfilled	boolean NOT NULL,
	at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (rule_id, position)
);
COMMENT ON TABLE event_queue_internal.rule_run IS 'Internal. For which events rules have fired, or are tried again by a job; rule_runs() shows them.';
CREATE INDEX rule_run_at ON event_queue_internal.rule_run USING brin (at);
ALTER TABLE event_queue_internal.rule_run ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_run USING (EXISTS (
	SELECT FROM rule r WHERE r.rule_id = rule_run.rule_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_run', '');

CREATE TABLE event_queue_internal.rule_memory (
	rule_id		int PRIMARY KEY,
	known_from	bigint NOT NULL
);
COMMENT ON TABLE event_queue_internal.rule_memory IS 'Internal. Up to which position rule_run no longer knows whether a rule has fired.';
ALTER TABLE event_queue_internal.rule_memory ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_memory USING (EXISTS (
	SELECT FROM rule r WHERE r.rule_id = rule_memory.rule_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_memory', '');

/* Written by timer.c. */
CREATE TABLE event_queue_internal.timer_end (
	queue_id	int NOT NULL,
	tenant_id	text COLLATE "C" NOT NULL,
	unique_key	text COLLATE "C" NOT NULL,
	position	bigint NOT NULL,
	at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (queue_id, tenant_id, unique_key)
) WITH (fillfactor = 70);
COMMENT ON TABLE event_queue_internal.timer_end IS 'Internal. The last event by which a rule has cancelled a timer, for rules that would start it by an earlier event, late.';
CREATE INDEX timer_end_at ON event_queue_internal.timer_end USING brin (at);
ALTER TABLE event_queue_internal.timer_end ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.timer_end USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.timer_end', '');

/* Written by timer.c. */
CREATE TABLE event_queue_internal.timer_start (
	queue_id	int NOT NULL,
	tenant_id	text COLLATE "C" NOT NULL,
	unique_key	text COLLATE "C" NOT NULL,
	position	bigint NOT NULL,
	rule_id		int NOT NULL,
	opened		bigint NOT NULL,
	at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (queue_id, tenant_id, unique_key, position)
);
COMMENT ON COLUMN event_queue_internal.timer_start.opened IS 'The event that had started the timer that was open; 0: no rule had.';
COMMENT ON TABLE event_queue_internal.timer_start IS 'Internal. Events by which a rule would have started a timer that was open, for rules that end it by an event in between, late.';
CREATE INDEX timer_start_at ON event_queue_internal.timer_start USING brin (at);
ALTER TABLE event_queue_internal.timer_start ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.timer_start USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.timer_start', '');

/*
 * trim_rule_runs: removes what is older than event_queue.keep_rule_runs, and remembers that; batch
 * rows at most of each kind.  Result: there may be more.
 */
CREATE FUNCTION event_queue_internal.trim_rule_runs(batch int DEFAULT 1000) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	began CONSTANT timestamptz := clock_timestamp();
	n bigint;
	n_ends bigint;
	n_starts bigint;
BEGIN
	DELETE FROM event_queue_internal.timer_end x WHERE x.ctid = ANY (ARRAY(
		SELECT y.ctid FROM event_queue_internal.timer_end y
		WHERE y.at < began - current_setting('event_queue.keep_rule_runs')::interval LIMIT $1));
	GET DIAGNOSTICS n_ends = ROW_COUNT;
	DELETE FROM event_queue_internal.timer_start x WHERE x.ctid = ANY (ARRAY(
		SELECT y.ctid FROM event_queue_internal.timer_start y
		WHERE y.at < began - current_setting('event_queue.keep_rule_runs')::interval LIMIT $1));
	GET DIAGNOSTICS n_starts = ROW_COUNT;
	WITH gone AS (
		DELETE FROM event_queue_internal.rule_run x WHERE x.ctid = ANY (ARRAY(
			SELECT y.ctid FROM event_queue_internal.rule_run y
			WHERE y.at < began - current_setting('event_queue.keep_rule_runs')::interval LIMIT $1))
		RETURNING x.rule_id, x.position
	), noted AS (
		INSERT INTO event_queue_internal.rule_memory AS m (rule_id, known_from)
		SELECT g.rule_id, max(g.position) FROM gone g JOIN event_queue.rule r USING (rule_id) GROUP BY 1
		ON CONFLICT (rule_id) DO UPDATE SET known_from = greatest(m.known_from, excluded.known_from))
	SELECT count(*) INTO n FROM gone;
	RETURN greatest(n, n_ends, n_starts) >= $1;
END
$$;
COMMENT ON FUNCTION event_queue_internal.trim_rule_runs(int) IS 'Internal. Removes firings of rules that are older than event_queue.keep_rule_runs.';

/* Written by fan_out.c; not dumped: what an event leads to is over soon. */
CREATE TABLE event_queue_internal.rule_root (
	tenant_id	text COLLATE "C" NOT NULL,
	root		text COLLATE "C" NOT NULL,
	actions		bigint NOT NULL,
	at			timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (tenant_id, root)
);
COMMENT ON TABLE event_queue_internal.rule_root IS 'Internal. How many actions of rules an event has led to, beyond those for itself (event_queue.rule_fan_out).';
ALTER TABLE event_queue_internal.rule_root ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_root USING (tenant_visible(tenant_id));

/* trim_rule_roots: removes those that have led to nothing for a day, batch at most; result: there may be more. */
CREATE FUNCTION event_queue_internal.trim_rule_roots(batch int) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	WITH gone AS (DELETE FROM event_queue_internal.rule_root WHERE ctid = ANY (ARRAY(
		SELECT r.ctid FROM event_queue_internal.rule_root r WHERE r.at < clock_timestamp() - interval '1 day' LIMIT $1)) RETURNING 1)
	SELECT count(*) >= $1 FROM gone
$$;
COMMENT ON FUNCTION event_queue_internal.trim_rule_roots(int) IS 'Internal. Removes counts of what events have led to that are a day old.';
