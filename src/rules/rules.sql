/*
 * rules.sql: rules (event -> job or function) and handlers (job -> function).
 *
 * The rule runner reads events in order of position, tests each against the
 * rules, and enqueues what follows in the transaction that moves the
 * checkpoint: each event meets each rule exactly once.  A rule that calls a
 * function, and one whose condition raised an error or is slow, become jobs of
 * the queue "rule-calls", with its retries and dead letters.
 */

/* are_actions: may this be the list of actions of a rule? */
CREATE FUNCTION event_queue_internal.are_actions(actions jsonb) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_are_actions';
COMMENT ON FUNCTION event_queue_internal.are_actions(jsonb) IS 'Internal. Constraint: a list of actions of a rule.';

CREATE TABLE rule (
	rule_id			int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name			text NOT NULL CONSTRAINT rule_name_key UNIQUE,
	owner			regrole NOT NULL,
	tenant_id		text,
	event_pattern	text NOT NULL,
	condition		text,
	queue_id		int REFERENCES queue,
	job_name		text,
	payload			jsonb,
	delay			interval,
	priority		int,
	function		text,
	enabled			boolean NOT NULL DEFAULT true,
	start_position	bigint NOT NULL,
	created_at		timestamptz NOT NULL DEFAULT now(),
	options			jsonb,
	on_loop			text NOT NULL DEFAULT 'skip',
	when_changed	text[],
	version			int NOT NULL DEFAULT 1,
	actions			jsonb,
	stop			boolean NOT NULL DEFAULT false,
	rule_order		int NOT NULL DEFAULT 0,
	on_table		text,
	on_change		text[],
	tenant_column	text
);
COMMENT ON TABLE rule IS 'Automation rules; written by create_rule and its kin.';
COMMENT ON COLUMN rule.owner IS 'The role that created the rule; its condition and function run as this role.';
COMMENT ON COLUMN rule.priority IS 'NULL: that of options.';
COMMENT ON COLUMN rule.options IS 'Options of its jobs, as enqueue takes them; strings that start with "$." are JSON paths into the event.';
COMMENT ON COLUMN rule.on_loop IS 'For an event that this rule led to: skip, or allow to fire again.';
COMMENT ON COLUMN rule.when_changed IS 'Fields of events'' data of which one must differ from before; NULL: it does not matter.';
COMMENT ON COLUMN rule.version IS 'Goes up with each change of what the rule is; the view rule_versions has them all.';
COMMENT ON COLUMN rule.actions IS 'Actions of the rule, in order; NULL: the one action of the other columns.';
COMMENT ON COLUMN rule.stop IS 'If it fires for an event, rules that come later do not meet this event.';
COMMENT ON COLUMN rule.on_table IS 'The table whose rows it is on, as it was named; its triggers say which it is. NULL: it is on events.';
COMMENT ON COLUMN rule.on_change IS 'Of a rule on a table: insert, update, delete.';
COMMENT ON COLUMN rule.tenant_column IS 'Of a rule on a table: the column that names the tenant.';
COMMENT ON COLUMN rule.rule_order IS 'Rules meet an event in this order, then in that of their numbers.';
COMMENT ON COLUMN rule.start_position IS 'The rule applies to events above this position.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON rule
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
ALTER TABLE rule ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON rule USING (tenant_visible(tenant_id));
-- Without what dropped roles left: its OID may be another role's where the dump is restored.
SELECT pg_catalog.pg_extension_config_dump('rule', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner)');
SELECT pg_catalog.pg_extension_config_dump('rule_rule_id_seq', '');

CREATE TABLE event_queue_internal.rule_checkpoint (
	one_row		boolean PRIMARY KEY DEFAULT true CHECK (one_row),
	position	bigint NOT NULL
);
COMMENT ON TABLE event_queue_internal.rule_checkpoint IS 'Internal. The last event that the rules have seen.';
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_checkpoint', '');

/* No foreign key, as in counts.sql. */
CREATE TABLE event_queue_internal.rule_catch_up (
	rule_id		int PRIMARY KEY,
	position	bigint NOT NULL
);
COMMENT ON TABLE event_queue_internal.rule_catch_up IS 'Internal. Rules that stand behind the checkpoint, as they started in the past or are or were off: the last event that each has seen.';
ALTER TABLE event_queue_internal.rule_catch_up ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.rule_catch_up USING (EXISTS (
	SELECT FROM rule r WHERE r.rule_id = rule_catch_up.rule_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.rule_catch_up', '');

CREATE TABLE handler (
	handler_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	queue_id	int NOT NULL REFERENCES queue,
	job_name	text NOT NULL,
	owner		regrole NOT NULL,
	function	text NOT NULL,
	time_limit	interval NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT now(),
	batch_size	int,
	max_executors int,
	version		int NOT NULL DEFAULT 1,
	CONSTRAINT handler_job_key UNIQUE (queue_id, job_name)
);
COMMENT ON TABLE handler IS 'Functions that run jobs inside the database; written by create_handler.';
COMMENT ON COLUMN handler.owner IS 'The role that created the handler; the function runs as this role.';
COMMENT ON COLUMN handler.time_limit IS 'A run that takes longer is cancelled and counts as failed.';
COMMENT ON COLUMN handler.batch_size IS 'The function takes an array of up to so many jobs of one tenant; NULL: one job.';
COMMENT ON COLUMN handler.version IS 'Goes up when create_handler changes it.';
COMMENT ON COLUMN handler.max_executors IS 'At most so many executors run it at the same time; NULL: all.';
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE ON handler
	FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.config_changed();
SELECT pg_catalog.pg_extension_config_dump('handler', 'WHERE EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = owner)');
SELECT pg_catalog.pg_extension_config_dump('handler_handler_id_seq', '');

/*
 * Not by nextval: with wal_level = minimal a sequence that is used in the transaction
 * that made it gives the same numbers again after a crash.
 */
INSERT INTO queue (queue_id, name, sla) OVERRIDING SYSTEM VALUE
VALUES (1, 'rule-calls', '10 seconds'), (2, 'snapshots', '1 minute');
ALTER TABLE queue ALTER COLUMN queue_id RESTART WITH 3;

/*
 * event_matches: does an event type match a pattern, by EventEmitter2's rules:
 * segments split at dots, * is one segment, ** any number of them, also none.
 * Example:
 *	SELECT event_queue.event_matches('lead.step.won', 'lead.**');
 */
CREATE FUNCTION event_matches(event_type text, pattern text) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_event_matches';
COMMENT ON FUNCTION event_matches(text, text) IS
'True if the event type matches the pattern: segments split at dots, * is one segment, ** any number.';

/*
 * map_payload: fills a template.  A string that starts with "$." is a JSON path into
 * the event: the value that it finds first takes its place, whatever its type (nothing
 * found: null).  In any other string {{data.items.0.sku}} stands for the text of that
 * member of the event, by names and, in arrays, numbers from 0: strings as they are,
 * numbers, booleans, objects and arrays as JSON, null and what is not there as nothing;
 * {{{{ is two braces.  Strings are filled in nested objects and arrays, too; all other
 * values, and the names of members, stand as they are.  Values are not templates: braces
 * and "$." that come from the event are text.  A NULL mapping gives the whole event.
 * Errors: EQ024 the template is no object, or has braces that are no reference.
 * Example:
 *	SELECT event_queue.map_payload('{"lead": "$.aggregate_id", "title": "Lead {{data.name}}", "tags": ["won", "$.data.step"]}',
 *		'{"aggregate_id": "L1", "data": {"name": "Ann", "step": 2}}');
 */
CREATE FUNCTION map_payload(mapping jsonb, event jsonb) RETURNS jsonb
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_map_payload';
COMMENT ON FUNCTION map_payload(jsonb, jsonb) IS
'Fills a template: strings that start with "$." are JSON paths into the event, {{data.name}} in a string is that member as text.';

/*
 * event_as_json: what payload templates see of an event.  created_at is in UTC,
 * whatever the session's TimeZone.
 * Example:
 *	SELECT event_queue.event_as_json(e) FROM event_queue.event_store e WHERE e.aggregate_id = 'L1';
 */
CREATE FUNCTION event_as_json(event event_store) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT jsonb_build_object('position', ($1).position, 'id', ($1).id, 'tenant_id', ($1).tenant_id,
		'aggregate_type', ($1).aggregate_type, 'aggregate_id', ($1).aggregate_id, 'version', ($1).version,
		'event_type', ($1).event_type, 'data', ($1).event_data, 'metadata', ($1).metadata,
		'created_at', (to_jsonb(($1).created_at AT TIME ZONE 'UTC') #>> '{}') || '+00:00')
$$;
COMMENT ON FUNCTION event_as_json(event_store) IS
'An event as JSON: position, id, tenant_id, aggregate_type, aggregate_id, version, event_type, data, metadata, created_at.';

/*
 * create_rule: creates a rule; from then on each event that matches fires it.
 *
 * Arguments:
 * - event_pattern: which types of event, as in event_matches.
 * - on_table: in place of event_pattern, the changes of this table's rows (see below).
 * - condition: a boolean SQL expression over the event's columns (event_data ->> 'step' =
 *   'won'), evaluated with the rights of the rule's owner, read-only; NULL: always true.
 * - tenant_id: only events of this tenant.
 * - queue and job_name: the rule enqueues a job, with payload (a template of map_payload),
 *   delay, priority and the options of enqueue; unique_key, group_key, delay, run_at and
 *   priority may be JSON paths into the event, as in the template.
 * - function, in place of queue and job_name: takes one argument of type
 *   event_queue.event_store; a job of its own calls it, with delay and priority.
 * - actions, in place of both: a list of actions (see below).
 * - or_replace: a rule of this name gets the new definition, as a new version if it differs
 *   (rule_versions, rollback_rule).  It continues where it stands, also while the scheduler
 *   runs: each event meets it once, by the old definition or by the new one.  A paused rule
 *   stays paused.  (drop_rule and create_rule instead lose the events that the old rule had not
 *   met.)
 * - if_not_exists: a rule of this name stays as it is, with a NOTICE if its definition differs.
 * - on_loop: what happens at an event that this rule itself led to, through any number of rules
 *   and jobs: skip, or allow (it may fire again, up to event_queue.rule_depth firings in a
 *   chain).  rule_stats counts what was skipped.
 * - when_changed: top-level fields of event_data.  The rule fires only if the event has one of
 *   them, with another value than the last earlier event of the aggregate that had it.  A field
 *   that no earlier event had is a change, also if it is null now.  Values are compared as
 *   jsonb, archived events are not read.  Checked before the condition.
 * - rule_order: rules meet an event in this order; those of the same order by their numbers.
 * - stop: if the rule fires, later rules do not meet the event.  A rule with tenant_id stops
 *   only rules with one.  A rule whose condition failed, or that rests, so that a job tries it
 *   again, stops none.
 * - start: the first event that a new rule meets: now (those that come), beginning (all that
 *   are stored and not archived), or a position (those above it).  It meets stored events in
 *   order, apart from the other rules until it has caught up; until then, their stop does not
 *   count for it.
 * - draft: keeps the definition as a version of the rule of this name, which itself stays as it
 *   is.  compare_rule and test_rule show what the draft would do, activate_rule puts it in
 *   force.  A draft is forgotten event_queue.keep_audit after it was made.
 *
 * actions is a JSON array of up to 16 objects, performed in this order, in one transaction, all
 * or none:
 * - {"enqueue": {"queue": "mail", "name": "welcome", "payload": {...}, ...}}: with all that
 *   enqueue_many takes for a job but tenant_id; without payload, the whole event.
 * - {"call": {"function": "crm.score", "delay": ..., "calendar": ..., "priority": ...}}.
 * - {"append": {"event_type": "lead.scored", "aggregate_type": ..., "aggregate_id": ...,
 *   "event_data": {...}, "metadata": {...}}}: an event of the same tenant, by default of the
 *   same aggregate, with the event as its cause and the rule in its chain (on_loop).
 * - {"notify": {"channel": "leads", "payload": ...}}: NOTIFY, with a text or a JSON object of
 *   less than 8000 bytes; PostgreSQL sends equal ones of one transaction once.
 * - {"cancel": {"queue": "crm", "unique_key": "answer {{aggregate_id}}"}}: cancel_jobs, which
 *   stops the timer that another rule started by enqueue with delay and unique_key.
 *
 * Strings in actions are templates of map_payload, but for names of queues, functions and
 * channels.  Delays count from the time when the rule meets the event or, with "delay_from":
 * "event", from the event's created_at.  With "calendar": "br" they are working time of that
 * calendar: "48 hours" are 48 working hours, "2 days" two working days (options has it, too).
 *
 * on_table has the rule create triggers on the table.  They append an event for each changed
 * row, in the transaction of the change, with data {"table", "operation", "key", "old", "new",
 * "changed"}; only this rule meets it.
 * - on_change: the operations: insert, update, delete; NULL: all of them.
 * - when_changed: columns, one of which an update must change.
 * - condition: also sees old and new, the rows as jsonb: old ->> 'status'.
 * - tenant_column: the column that holds the tenant; NULL: the tenant is the session's.
 * - An update that changes nothing appends no event.  Rows too large for
 *   event_queue.max_payload, and columns that jsonb can't represent, are left out ("left_out"
 *   names one), and the write succeeds.  Of a row that moves to another tenant, old is left
 *   out.  Virtual generated columns are no part of a row, and can't be named.
 * - Roles that write to the table need no rights on the extension.  The caller needs the
 *   privileges TRIGGER and SELECT on the table, and waits once for transactions that write to
 *   it; no change is missed from the commit on.
 * - TRUNCATE fires no rule, nor does what logical replication or a session with
 *   session_replication_role = replica writes, unless the table's owner has the rule's triggers
 *   fire for it (ALTER TABLE ... ENABLE ALWAYS TRIGGER).
 * - An event that came under an earlier definition and meets the rule late (catch_up,
 *   backfill_rule) is checked against on_change and when_changed as they are then; an event of
 *   another table, on which the rule was before, is met like those of its table (a condition
 *   may test event_data ->> 'table').
 * - The triggers survive renames of the table and its columns; event data has the new names.  A
 *   rule whose table was dropped is out of service.
 * - A transaction that writes to the table cannot be prepared (PREPARE TRANSACTION), as one
 *   that appends cannot.
 *
 * Result: the rule's number.
 * Errors: EQ003 tenant, EQ006 name, or name in when_changed, EQ009 options, on_loop,
 * when_changed, or both or_replace and if_not_exists, EQ010 no such queue, EQ014 delay, EQ015
 * priority, EQ018 the rule exists, EQ019 no action or two, or bad actions, EQ020 no such
 * function, EQ021 wrong signature, EQ022 condition, EQ023 pattern, EQ024 template, EQ025 no such
 * calendar, or draft of no rule, EQ054 start, EQ055 no rule can be created on the table, EQ058
 * delay that is no working time, 42501 no right to the table or function, 42703 no such column.
 * Example:
 *	SELECT event_queue.create_rule('welcome', 'lead.created', condition => $$event_data ->> 'name' IS NOT NULL$$,
 *		queue => 'mail', job_name => 'welcome', payload => '{"lead": "$.aggregate_id"}', or_replace => true);
 *	SELECT event_queue.create_rule('new owner', 'lead.*', when_changed => '{owner,team}',
 *		queue => 'mail', job_name => 'greet', payload => '{"subject": "Lead {{data.name}} is yours"}', or_replace => true);
 *	SELECT event_queue.create_rule('won', 'lead.won', actions => '[
 *		{"enqueue": {"queue": "mail", "name": "congratulate", "payload": {"lead": "$.aggregate_id"}, "group_key": "$.aggregate_id"}},
 *		{"append": {"event_type": "customer.created", "aggregate_type": "customer", "aggregate_id": "{{aggregate_id}}"}},
 *		{"notify": {"channel": "sales", "payload": "{{data.name}} is won"}}]', or_replace => true);
 *	CREATE TABLE IF NOT EXISTS deal (deal_id int PRIMARY KEY, stage text);
 *	SELECT event_queue.create_rule('deal won', on_table => 'deal', on_change => '{update}', when_changed => '{stage}',
 *		condition => $$new ->> 'stage' = 'won'$$, queue => 'mail', job_name => 'won', payload => '{"deal": "$.data.new.deal_id"}', or_replace => true);
 */
CREATE FUNCTION create_rule(
	name text, event_pattern text DEFAULT NULL, condition text DEFAULT NULL,
	queue text DEFAULT NULL, job_name text DEFAULT NULL, payload jsonb DEFAULT NULL,
	delay interval DEFAULT NULL, priority int DEFAULT NULL,
	function text DEFAULT NULL, tenant_id text DEFAULT NULL, options jsonb DEFAULT NULL,
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false, on_loop text DEFAULT 'skip',
	when_changed text[] DEFAULT NULL, actions jsonb DEFAULT NULL, stop boolean DEFAULT false, rule_order int DEFAULT 0,
	start text DEFAULT 'now', on_table regclass DEFAULT NULL, on_change text[] DEFAULT NULL, tenant_column name DEFAULT NULL,
	draft boolean DEFAULT false)
RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_create_rule';
COMMENT ON FUNCTION create_rule(text, text, text, text, text, jsonb, interval, int, text, text, jsonb, boolean, boolean, text, text[], jsonb, boolean, int, text, regclass, text[], name, boolean) IS
'Creates an automation rule: events that match the pattern and the condition, or changes of a table''s rows, enqueue jobs, call functions, append events or notify.';

CREATE FUNCTION event_queue_internal.get_rule(name text) RETURNS rule
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	r event_queue.rule;
BEGIN
	SELECT x.* INTO r FROM event_queue.rule x WHERE x.name = $1 AND event_queue.tenant_visible(x.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	RETURN r;
END
$$;
COMMENT ON FUNCTION event_queue_internal.get_rule(text) IS 'Internal. A rule by its name; EQ025 if there is none that the caller may see.';

CREATE FUNCTION event_queue_internal.switch_rule(name text, enabled boolean, catch_up boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	was boolean;
BEGIN
	SELECT r.enabled INTO was FROM event_queue.rule r
	WHERE r.name = $1 AND event_queue.tenant_visible(r.tenant_id) FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	UPDATE event_queue.rule r
	SET enabled = $2, start_position = CASE WHEN $2 AND NOT $3 THEN event_queue_internal.last_position() ELSE r.start_position END
	WHERE r.name = $1 AND r.enabled <> $2;
	RETURN was <> $2;
END
$$;
COMMENT ON FUNCTION event_queue_internal.switch_rule(text, boolean, boolean) IS 'Internal. What pause_rule and resume_rule share.';

/*
 * pause_rule: switches a rule off; what it misses, resume_rule can catch up.
 * Result: false if it was off already.  Errors: EQ025 no such rule.
 * Example:
 *	SELECT event_queue.pause_rule('welcome');
 */
CREATE FUNCTION pause_rule(name text) RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT event_queue_internal.switch_rule($1, false)
$$;
COMMENT ON FUNCTION pause_rule(text) IS
'Switches a rule off; resume_rule says whether it catches up the events that come meanwhile.';

/*
 * resume_rule: switches a rule on.
 * Arguments: resume: now, for the events that come from now on; catch_up, also for those
 * that it missed while it was off, each once and in order (what was archived is not there).
 * Result: false if it was on already.  Errors: EQ025 no such rule, EQ054 resume.
 * Example:
 *	SELECT event_queue.pause_rule('welcome');
 *	SELECT event_queue.resume_rule('welcome', resume => 'catch_up');
 */
CREATE FUNCTION resume_rule(name text, resume text DEFAULT 'now') RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
BEGIN
	IF ($2 IN ('now', 'catch_up')) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ054', MESSAGE = 'resume must be now or catch_up';
	END IF;
	RETURN event_queue_internal.switch_rule($1, true, $2 = 'catch_up');
END
$$;
COMMENT ON FUNCTION resume_rule(text, text) IS 'Switches a rule on again, for events that come from now on, or also for those that it missed.';

/*
 * drop_rule: removes a rule. Errors: EQ025 no such rule.
 * Example:
 *	SELECT event_queue.create_rule('old rule', 'lead.lost', queue => 'mail', job_name => 'sorry');
 *	SELECT event_queue.drop_rule('old rule');
 */
CREATE FUNCTION drop_rule(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM event_queue.rule r WHERE r.name = $1 AND event_queue.tenant_visible(r.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('rule "%s" does not exist', $1);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_rule(text) IS 'Removes a rule; jobs that it made stay. EQ025 if there is no such rule.';

CREATE FUNCTION event_queue_internal.last_position() RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_last_position_sql';
COMMENT ON FUNCTION event_queue_internal.last_position() IS 'For views. The highest position that any append has taken, committed or not.';

/*
 * create_handler: has the executors run a queue's jobs by a function in the database.
 *
 * Arguments:
 * - job_name: '*' is every job of the queue that has no handler of its own.
 * - function: takes one argument of type event_queue.claimed_job and returns void or jsonb, the
 *   job's result.  It is found by the caller's search_path and runs as the caller, with
 *   search_path pg_catalog and its own schema.
 * - time_limit: of an attempt; NULL: nine tenths of the queue's lease.
 * - batch_size: the function takes one argument of type event_queue.claimed_job[] instead, up to so
 *   many jobs (1 to 1000) of one tenant, and returns void or a jsonb array with a result for
 *   each job in its order.  If it fails, it is called for each half of them, and so on, so that
 *   a bad job fails alone.  Jobs that failed or stalled before come alone.  What it appends and
 *   enqueues has the chain of rules, which is the same for all its jobs, but no job as its
 *   cause and no correlation except those that it sets.
 * - max_executors: at most so many executors (1 to 128) run jobs of this handler at the same
 *   time, those that stand in among them; NULL: no such limit, but executors that stand in
 *   leave jobs of a handler that takes long alone.  (max_concurrency of the queue limits all
 *   workers, also those outside.)
 * - or_replace: a handler for the same queue and job name gets the new function, owner, time
 *   limit, batch_size and max_executors; running jobs finish with the old one.  If one of these
 *   differs, the handler's version increases by one.  The version, and a hash of the source of
 *   the function and of what it calls, are kept with each finished job and failed attempt
 *   (history, dead_letters, job_steps, trace).
 * - if_not_exists: the handler stays as it is, with a NOTICE if its function, time limit, batch_size
 *   or max_executors differs.
 *
 * An error in a handler undoes its effects, and the job is tried again after the queue's
 * backoff.  Some SQLSTATEs mean something else; with a DETAIL that is no number of seconds they
 * are errors like all others:
 * - EQ060 without DETAIL: no further attempt, the job is a dead letter at once; with DETAIL,
 *   the next attempt comes after so many seconds.  See give_up_job and retry_job_after.
 * - EQ061: not now; no attempt is counted, and the job is due again after the seconds in DETAIL
 *   (at least 1).  See postpone_job, and postpone_queue for EQ064.
 *
 * Several jobs that run quickly share one transaction and its flush.  Each is a subtransaction,
 * which completes or fails by itself; now() is the same for all.  A job that takes longer than
 * twice event_queue.handler_batch_time is undone and runs again alone; so what a handler does
 * outside the database may happen twice, as after a crash.  Equal NOTIFYs of one transaction are
 * sent once, also those of several jobs.  What an extension keeps in the session (GD of
 * PL/Python; not connections of dblink) is there for the next job.  Where
 * default_transaction_isolation is repeatable read or serializable, each job or array has a
 * transaction of its own; what workers do besides is
 * read committed.
 *
 * Result: the handler's number.
 * Errors: EQ006 name, EQ009 batch_size or max_executors out of range, or both or_replace and
 * if_not_exists, EQ010 no such queue, EQ018 the handler exists, EQ020 no such function, EQ021
 * wrong signature, EQ026 time_limit not positive, 42501 no right to call it.
 * Example:
 *	CREATE FUNCTION send_letter(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS
 *		$$ SELECT jsonb_build_object('sent_to', job.payload ->> 'to') $$;
 *	SELECT event_queue.create_queue('letters', if_not_exists => true);
 *	SELECT event_queue.create_handler('letters', '*', 'send_letter', time_limit => '10 seconds', or_replace => true);
 */
CREATE FUNCTION create_handler(
	queue text, job_name text, function text, time_limit interval DEFAULT NULL,
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false, batch_size int DEFAULT NULL,
	max_executors int DEFAULT NULL)
RETURNS int
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_create_handler';
COMMENT ON FUNCTION create_handler(text, text, text, interval, boolean, boolean, int, int) IS
'Has the background workers run jobs of a queue by a SQL function that takes an event_queue.claimed_job.';

/*
 * drop_handler: undoes create_handler. Errors: EQ010, EQ025.
 * Example:
 *	SELECT event_queue.drop_handler('letters', '*');
 */
CREATE FUNCTION drop_handler(queue text, job_name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_queue int := event_queue_internal.queue_id_of($1);
BEGIN
	DELETE FROM event_queue.handler h WHERE h.queue_id = this_queue AND h.job_name = $2;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025',
			MESSAGE = format('queue "%s" has no handler for job "%s"', $1, $2);
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_handler(text, text) IS
'Removes a handler; its jobs wait for another one or for outside workers.';

/* handler_code: a hash of a stored function's source and of what it calls; NULL: it is not there. */
CREATE FUNCTION event_queue_internal.handler_code(function text, as_array boolean) RETURNS text
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'eq_handler_code';
COMMENT ON FUNCTION event_queue_internal.handler_code(text, boolean) IS 'For views. Which code a handler''s function is, as a hash.';

CREATE VIEW rules WITH (security_invoker = true) AS
	SELECT r.rule_id, r.name, pg_catalog.pg_get_userbyid(r.owner)::text AS owner, r.tenant_id, r.event_pattern, r.condition,
		q.name AS queue, r.job_name, r.payload, extract(epoch FROM r.delay)::double precision AS delay_seconds, r.priority,
		r.function, r.enabled, r.start_position, r.created_at,
		r.options, r.on_loop, r.when_changed, r.version, r.actions, r.stop, r.rule_order, r.on_table, r.on_change, r.tenant_column
	FROM event_queue.rule r LEFT JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW rules IS 'Automation rules.';

CREATE VIEW handlers WITH (security_invoker = true) AS
	SELECT h.handler_id, q.name AS queue, h.job_name, pg_catalog.pg_get_userbyid(h.owner)::text AS owner, h.function,
		extract(epoch FROM h.time_limit)::double precision AS time_limit_seconds, h.created_at, h.batch_size, h.max_executors,
		h.version, event_queue_internal.handler_code(h.function, h.batch_size IS NOT NULL) AS code
	FROM event_queue.handler h JOIN event_queue.queue q USING (queue_id);
COMMENT ON VIEW handlers IS 'Functions that run jobs inside the database; code is a hash of the function''s source and of what it calls, as it is now.';
