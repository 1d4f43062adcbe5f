# One scenario, once with default settings and once with each group of settings that change how values are written, how
# statements are read, planned and run: the same rows must be stored, and the same JSON returned.  The settings are those of the
# database, so that sessions and background workers have them.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.alert_interval = 0
max_worker_processes = 32
max_prepared_transactions = 10
));
$node->start;
my %hostile = (
	values => {
		DateStyle => 'German', IntervalStyle => 'sql_standard', TimeZone => 'Asia/Kolkata', bytea_output => 'escape', extra_float_digits => -15,
		quote_all_identifiers => 'on', lc_monetary => 'C.UTF-8', lc_numeric => 'C.UTF-8', lc_time => 'C.UTF-8',
		search_path => 'other, public'},
	more_values => {DateStyle => 'SQL, DMY', IntervalStyle => 'iso_8601', TimeZone => 'America/St_Johns', extra_float_digits => 3, search_path => ''},
	reading => {
		standard_conforming_strings => 'off', backslash_quote => 'off', escape_string_warning => 'on', array_nulls => 'off', transform_null_equals => 'on',
		row_security => 'off', client_min_messages => 'error', client_encoding => 'SQL_ASCII',
		default_toast_compression => 'pglz', gin_fuzzy_search_limit => 1, search_path => 'tricks, pg_catalog'},
	plpgsql => {'plpgsql.variable_conflict' => 'use_variable', 'plpgsql.extra_errors' => 'all', 'plpgsql.check_asserts' => 'off', 'plpgsql.print_strict_params' => 'on'},
	plans => {
		(map { ("enable_$_" => 'off') } qw(indexscan indexonlyscan bitmapscan hashagg sort material nestloop tidscan memoize)),
		jit => 'on', jit_above_cost => 0, jit_inline_above_cost => 0, jit_optimize_above_cost => 0, from_collapse_limit => 1, join_collapse_limit => 1,
		geqo_threshold => 2, plan_cache_mode => 'force_generic_plan', constraint_exclusion => 'on', work_mem => '64kB', random_page_cost => 1000,
		cursor_tuple_fraction => 0, debug_parallel_query => 'regress', parallel_setup_cost => 0, parallel_tuple_cost => 0, min_parallel_table_scan_size => 0},
	others => {
		(map { ("enable_$_" => 'off') } qw(seqscan hashjoin mergejoin)), plan_cache_mode => 'force_custom_plan',
		synchronous_commit => 'off', default_statistics_target => 1,
		idle_in_transaction_session_timeout => '60s'},
);


my $scenario = <<'SQL';
CREATE SCHEMA tricks;
CREATE SCHEMA other;
CREATE TABLE public.result (n int GENERATED ALWAYS AS IDENTITY, what text, is_what text);
CREATE FUNCTION public.note(what text, query text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	EXECUTE 'INSERT INTO public.result (what, is_what) SELECT ' || quote_literal(what) || ', (x)::text FROM (' || query || ') AS y (x)';
END
$$;
CREATE PROCEDURE public.wait_for(condition text) LANGUAGE plpgsql AS $$
DECLARE
	met boolean;
BEGIN
	FOR i IN 1 OPERATOR(pg_catalog.*) 1 .. 3000 LOOP
		PERFORM pg_catalog.set_config('search_path', 'pg_catalog', true);
		EXECUTE 'SELECT ' || condition INTO met;
		EXIT WHEN met;
		COMMIT;
		PERFORM pg_catalog.pg_sleep(0.02);
	END LOOP;
	IF met IS NOT TRUE THEN
		RAISE EXCEPTION 'waited in vain for %', condition;
	END IF;
END
$$;
-- functions and operators that are found before the server's own, where search_path says so
DO $$
DECLARE
	f text;
BEGIN
	FOREACH f IN ARRAY '{now(),clock_timestamp(),to_jsonb(anyelement),current_setting(text),"left(text,int)",btrim(text),jsonb_each(jsonb),cardinality(anyarray),lower(text),jsonb_typeof(jsonb),unnest(anyarray),random(),md5(text)}'::text[] LOOP
		EXECUTE 'CREATE FUNCTION tricks.' || f || ' RETURNS text LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''tricked''''; END''';
	END LOOP;
	FOREACH f IN ARRAY '{"(text,text)","(jsonb,jsonb)","(jsonb,text)","(bigint,bigint)","(int,int)","(timestamptz,timestamptz)"}'::text[] LOOP
		EXECUTE 'CREATE FUNCTION tricks.op' || f || ' RETURNS boolean LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''tricked''''; END''';
		EXECUTE 'CREATE OPERATOR tricks.= (FUNCTION = tricks.op, LEFTARG = ' || split_part(btrim(f, '()'), ',', 1) || ', RIGHTARG = ' || split_part(btrim(f, '()'), ',', 2) || ')';
	END LOOP;
	EXECUTE 'CREATE OPERATOR tricks.-> (FUNCTION = tricks.op, LEFTARG = jsonb, RIGHTARG = text)';
	EXECUTE 'CREATE OPERATOR tricks.|| (FUNCTION = tricks.op, LEFTARG = jsonb, RIGHTARG = jsonb)';
	EXECUTE 'CREATE OPERATOR tricks.|| (FUNCTION = tricks.op, LEFTARG = text, RIGHTARG = text)';
	EXECUTE 'CREATE OPERATOR tricks.< (FUNCTION = tricks.op, LEFTARG = timestamptz, RIGHTARG = timestamptz)';
END
$$;
CREATE EXTENSION event_queue;
\c
SET client_min_messages = warning;
-- queues, and jobs with each kind of option
SELECT event_queue.create_queue('q', lease => '90 minutes', keep_completed => '36 hours', keep_failed => '1 month 2 days', sla => '0.5 s', rate_limit => 1000000,
	backoff_intervals => '{1 day 02:03:04,2 days}', stalled_interval => '5 s', max_attempts => 2);
SELECT event_queue.create_queue('h', keep_completed => '36 hours', job_events => true);
SELECT event_queue.enqueue('q', 'plain', '{"a": 1.50, "d": "x"}', options => '{"backoff_intervals": ["1 day 02:00:00"], "time_limit": "1 hour", "metadata": {"x": "y"}}');
SELECT event_queue.enqueue('q', 'later', delay => '1 day 1 hour', unique_key => 'k', options => '{"keep_completed": "2 days", "keep_failed": "3 days"}');
SELECT event_queue.enqueue('q', 'at', run_at => '2999-01-02 03:04:05+00');
SELECT event_queue.enqueue_many('q', '[{"name": "m", "run_at": "2999-02-03 04:05:06+00"}, {"name": "m", "delay": "1 day"}]');
SELECT event_queue.create_calendar('c', 'America/Sao_Paulo', holidays => '{2026-12-25,2999-01-01}');
SELECT event_queue.enqueue('q', 'cal', options => '{"delay": "2 days 03:00:00", "calendar": "c"}');
SELECT event_queue.import_dead('q', 'dead', error => 'no', died_at => '2020-01-02 03:04:05+00', created_at => '2020-01-01 00:00:00+00', options => '{"keep_failed": "100 years"}');
SELECT event_queue.fail(job_id, lease_token, 'broken', 'P0001') FROM event_queue.claim('q', 1, job_names => ARRAY['plain']);
SELECT public.note('outcome', $$SELECT to_jsonb(o) FROM event_queue.job j, event_queue.job_outcome(j.job_id) o WHERE j.name = 'plain'$$);
-- schedules
SELECT event_queue.create_schedule('s', '0 12 25 12 *', 'q', 'x', '{"p": 1}', 'Europe/Lisbon', catch_up => '1 day 06:00:00', jitter => '1 second', starts_at => '2999-01-01 00:00:00+00',
	ends_at => '2999-12-31 00:00:00+00', exclude => '{2999-12-24}', options => '{"delay": "1 day", "calendar": "c"}', exclude_calendar => 'c');
SELECT event_queue.create_schedule('t', '@every 900h', 'q', 'x');
SELECT event_queue.trigger_schedule('s');
SELECT event_queue.backfill_schedule('t', '2026-01-01 00:00:00+00', '2026-03-01 03:00:00+00');
SELECT public.note('next', $$SELECT event_queue.cron_next('0 12 25 12 *', 'Europe/Lisbon', '2026-01-01 00:00:00+00') = '2026-12-25 12:00:00+00'$$);
SELECT public.note('business', $$SELECT event_queue.add_business_time('c', '2026-11-27 17:00:00-03', '1 day 02:00:00') = '2026-12-01 10:00:00-03'$$);
-- events, rules, reducers
CREATE FUNCTION public.folds(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS
	$$ SELECT coalesce($1, '{}') || jsonb_build_object('n', coalesce(($1 ->> 'n')::int, 0) + 1) $$;
CREATE FUNCTION public.handles(j event_queue.claimed_job) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS
	$$ SELECT event_queue.step_done($1, 'done', ($1).payload) $$;
CREATE FUNCTION public.told(e event_queue.event_store) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS
	$$ INSERT INTO public.result (what, is_what) SELECT 'told', ($1).event_data::text $$;
SELECT event_queue.create_handler('h', '*', 'public.handles', time_limit => '5.5 s');
SELECT event_queue.create_reducer('thing', 'public.folds', snapshot_every => 2);
SELECT event_queue.create_rule('r', 'thing.*', condition => $$(event_data ->> 'd')::date = '2026-11-27' AND interval '1 day' = (event_data ->> 'i')::interval AND metadata ->> 'm' = '1'$$, queue => 'h', job_name => 'made',
	payload => '{"t": "{{data.t}}", "i": "{{data.i}}", "f": "{{data.f}}", "at": "{{event_type}} {{aggregate_id}}", "when": "{{created_at}}"}', options => '{"delay": "0.01 s", "unique_key": "$.aggregate_id"}');
SELECT event_queue.create_rule('w', 'thing.*', when_changed => '{d}', function => 'public.told');
SELECT event_queue.append('thing', '1', 'thing.come', '{"d": "2026-11-27", "i": "1 day", "t": "2026-01-02T03:04:05+00:00", "f": 0.10}', metadata => '{"m": 1}');
SELECT event_queue.append_many('thing', '1', '[{"event_type": "thing.came", "event_data": {"d": "2026-11-28", "i": "1 day"}}, {"event_type": "thing.went"}]');
-- rows of a table, of each type whose output a setting changes
CREATE TYPE other.kind AS ENUM ('a', 'select');
CREATE TYPE other.pair AS (a int, "user" other.kind, c regclass);
CREATE TABLE other."user" (id interval PRIMARY KEY, ts timestamptz, t timestamp, d date, b bytea, f8 float8, f4 float4, c regclass, y regtype, p regprocedure, r regrole, ns regnamespace,
	e other.kind, n numeric, tz timetz, m daterange, a timestamptz[], z other.kind[], j json, k other.pair, ra regclass[], co regcollation, op regoperator);
SELECT event_queue.create_rule('o', on_table => 'other."user"', queue => 'h', job_name => 'row');
SELECT event_queue.record_changes('other."user"', 'recorded', 'id');
SELECT event_queue.create_rule('k', on_table => 'other."user"', on_change => ARRAY['update'], when_changed => ARRAY['f8'], queue => 'h', job_name => 'key');
INSERT INTO other."user" SELECT '1 month 2 days 03:04:05.6', '2026-01-02 03:04:05.678+00', '2026-01-02 03:04:05', '2026-01-02', decode('deadbeef', 'hex'), 0.3::float8, 1.1::float4, 'other."user"', 'other.kind',
	'public.told(event_queue.event_store)', 'pg_monitor', 'other', 'select', 1.50, '03:04:05+00', '[2026-01-02,2026-02-03)', ARRAY['2026-01-02 03:04:05+00'::timestamptz], '{a,select}', '{"a": 1}',
	ROW(1, 'select', 'other."user"')::other.pair, ARRAY['other."user"'::regclass], 'pg_catalog."C"', 'pg_catalog.+(int4,int4)';
UPDATE other."user" SET f8 = 0.30000000000000004;
UPDATE other."user" SET d = d, b = b, c = 'public.result';
UPDATE other."user" SET k = k;
CALL public.wait_for($$NOT EXISTS (SELECT FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name IN ('h', 'rule-calls', 'snapshots')) AND (SELECT count(*) FROM public.result WHERE what = 'told') = 2
	AND (SELECT count(*) FROM event_queue.job_history WHERE name = 'row') = 3 AND EXISTS (SELECT FROM event_queue.aggregate_snapshot)$$);
SELECT public.note('state', $$SELECT event_queue.aggregate_state('thing', '1')$$);
-- what was seen is shown as the session writes it
SELECT public.note('rule', $$SELECT to_jsonb(x) - '{seen,compared}'::text[] FROM event_queue.explain_rule('r', (SELECT id FROM event_queue.event_store ORDER BY position LIMIT 1)) x$$);
SELECT public.note('tested', $$SELECT to_jsonb(x) - 'created_at' FROM event_queue.test_rule('r') x$$);
SELECT public.note('compared', $$SELECT to_jsonb(x) - 'created_at' FROM event_queue.compare_rule('r', jsonb_build_object('condition', 'true')) x$$);
SELECT public.note('versions', $$SELECT definition FROM event_queue_internal.rule_version ORDER BY rule, version$$);
SELECT public.note('traced', $$SELECT to_jsonb(x) - 'at' #- '{detail,facts}' FROM event_queue.event_store e, event_queue.trace(e.id) x WHERE e.position = (SELECT min(position) FROM event_queue.event_store)$$);
-- consumers, alerts, retention
SELECT event_queue.create_subscription('sub');
BEGIN;
SELECT public.note('fetched', $$SELECT count(*) FROM event_queue.fetch_events('sub')$$);
SELECT event_queue.ack('sub');
COMMIT;
SELECT event_queue.create_alert('al', 'queue_depth', threshold => 9, pending => '1 minute 30 s', cool_down => '1 day 1 hour');
SELECT event_queue.set_event_retention('5 years 6 months');
SQL

# The same deployment again, by a session with other settings: nothing is another definition, and nothing is written.
my @made = grep { /event_queue\.create_(?!subscription)/ } split /;\n/, $scenario;
sub again
{
	my ($mode) = @_;
	return join ";\n", 'SET client_min_messages = notice', map { s/\)\s*\z/, $mode => true)/r } map { s/^--.*\n//gmr } @made;
}

# All rows, in one form: places, numbers, times and ids of the run have none.
my $dump = q(
SELECT format($$SELECT %L || ': ' || x FROM (SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(to_jsonb(t)::text,
	'\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?', 'TIME', 'g'), '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'UUID', 'g'),
	'[\\\\]*"(n|id|pid|\w*job_id|\w*position|xmin|start_position|rule_id|aggregate_id|run_id|audit_id|session_role|role|fingerprint|application_name|worker|leased_by|caused_by)[\\\\]*": ([\\\\]*"[^"]*"|\d+|\[\d+\])', 'X', 'g'),
	'stand at \d+|job \d+|\d{10,}', 'X', 'g') AS x FROM %s t) y ORDER BY 1$$, c.oid::regclass, c.oid::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('event_queue', 'event_queue_internal', 'public', 'other') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
	AND c.relname !~ 'sample|metric|minute|hour|activation|checkpoint|depth|published|series|member|gauge|bucket|event_head' ORDER BY c.oid::regclass::text COLLATE "C");
sub rows_of
{
	my ($db) = @_;
	my $plain = "SET datestyle = 'ISO, MDY'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'; SET search_path = pg_catalog;"
		. "SET quote_all_identifiers = off; SET client_encoding = 'UTF8'; SET standard_conforming_strings = on;";
	return $node->safe_psql($db, "$plain " . join ';', split /\n(?=SELECT '|SELECT E')/, $node->safe_psql($db, "$plain $dump"));
}

sub play
{
	my ($name, %settings) = @_;
	my $db = "db_$name";
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	for my $setting (sort keys %settings)
	{
		my $value = $settings{$setting};
		$value = "'$value'" unless $setting eq 'search_path' && $value ne '';
		my (undef, undef, $err) = $node->psql('postgres', "LOAD 'plpgsql'; ALTER DATABASE $db SET \"$setting\" = $value");
	}
	my ($status, $out, $err) = $node->psql($db, $scenario, on_error_stop => 1);
	is($err, '', "$name: the scenario passes") or return '';
	my $rows = rows_of($db);
	for my $mode ('if_not_exists', 'or_replace')
	{
		($status, $out, $err) = $node->psql($db, "SET datestyle = 'SQL, DMY'; SET intervalstyle = 'iso_8601'; SET timezone = 'America/St_Johns'; SET quote_all_identifiers = on; @{[ again($mode) ]}", on_error_stop => 0);
		is(join('', $err =~ /^.*(?:ERROR|another definition|differs|other settings).*$/mg), '', "$name: $mode finds what is there");
	}
	my $rows_after = rows_of($db);
	is_deeply([split /\n/, $rows_after], [split /\n/, $rows], "$name: and writes nothing");
	$node->safe_psql('postgres', "DROP DATABASE $db WITH (FORCE)");
	return $rows;
}

my $rows = play('default');
cmp_ok(length($rows), '>', 20_000, 'there is much to compare');
for my $name (sort keys %hostile)
{
	my @got = split /\n/, play($name, %{ $hostile{$name} });
	my %expected = map { $_ => 1 } split /\n/, $rows;
	my %got = map { $_ => 1 } @got;
	my $difference = join "\n", (map { "- $_" } grep { !$got{$_} } split /\n/, $rows), (map { "+ $_" } grep { !$expected{$_} } @got);
	is($difference, '', "$name: the same rows");
}

$node->stop;
done_testing();
