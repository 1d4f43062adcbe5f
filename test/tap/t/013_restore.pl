# A restored or copied store holds until activate(): nothing runs while a restore is
# under way or in a copy, no position is given twice, and what a dump can't carry comes
# back.  Each way of restoring, with a pause between any two tables where a slow link
# would have one.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
));
$node->start;
my $dir = $node->data_dir . '/..';

sub sql
{
	my ($db, $sql) = @_;
	return $node->safe_psql($db, $sql);
}

# The SQLSTATE and message of a statement that fails.
sub error_of
{
	my ($db, $sql) = @_;
	my ($status, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:  (\w+): (.*)/ ? "$1 $2" : "none: $out";
}

my $executors = sub { "SELECT count(*) FROM pg_stat_activity WHERE datname = '$_[0]' AND backend_type = 'event_queue executor'" };

# The original: a table that jobs and record_changes work on, in a schema whose name sorts
# before ours, so that it is loaded first, rules whose events are all seen, jobs that wait, and what dumps left out.
sql('postgres', 'CREATE DATABASE erp');
sql('erp', q(
CREATE EXTENSION event_queue;
CREATE SCHEMA crm;
CREATE TABLE crm.lead (lead_id text PRIMARY KEY, score int DEFAULT 0, pad text);
INSERT INTO crm.lead SELECT 'L' || i, 0, repeat('x', 300) FROM generate_series(1, 20000) i;
CREATE TABLE crm.task (lead_id text, title text, PRIMARY KEY (lead_id, title));
INSERT INTO crm.task SELECT 'L' || i, 'call' FROM generate_series(1, 50) i;
CREATE FUNCTION make_task(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE crm.lead SET score = score + 1 WHERE lead_id = job.payload ->> 'lead';
	INSERT INTO crm.task VALUES (job.payload ->> 'lead', 'call') ON CONFLICT (lead_id, title) DO NOTHING;
END$$;
SELECT event_queue.create_queue('tasks'), event_queue.create_queue('ruled'), event_queue.create_queue('outside');
SELECT event_queue.record_changes('crm.lead', 'lead', 'lead_id');
UPDATE crm.lead SET score = 0, pad = 'y' WHERE lead_id IN ('L1', 'L2', 'L3');
SELECT event_queue.create_rule('r', 'e.**', queue => 'ruled', job_name => 'by rule');
SELECT count(*) FROM generate_series(1, 10) g, LATERAL event_queue.append_many('e', g::text,
	(SELECT jsonb_agg('{"event_type": "e.x"}'::jsonb) FROM generate_series(1, 100)));
SELECT event_queue.create_event_index('event_type');
SELECT event_queue.create_event_partition();
SELECT event_queue.append('e', '11', 'e.x');
SELECT event_queue.alter_queue('rule-calls', max_attempts => 7, keep_completed => '1 day');
SELECT event_queue.create_subscription('reader', buckets => 3);
SELECT event_queue.enqueue('outside', 'once', unique_key => 'k', options => '{"unique_mode": "throttle", "unique_window": "1 day"}');
));
ok($node->poll_query_until('erp', q(SELECT count(*) = 1001 FROM event_queue.jobs WHERE queue = 'ruled')), 'the rules have seen all');
sql('erp', q(SELECT event_queue.purge_queue('ruled')));
sql('erp', q(SELECT event_queue.pause_queue('tasks'); SELECT event_queue.create_handler('tasks', 'make', 'public.make_task');
	SELECT event_queue.enqueue_many('tasks', to_jsonb(array(SELECT jsonb_build_object('payload', jsonb_build_object('lead', 'L' || i)) FROM generate_series(1, 200) i)), options => '{"name": "make"}') IS NOT NULL));
# Not paused in the dump, and not run before it is taken.
sql('postgres', q(ALTER SYSTEM SET event_queue.databases = 'none'));
$node->reload;
ok($node->poll_query_until('postgres', $executors->('erp'), '0'), 'workers sent away');
sql('erp', q(SELECT event_queue.resume_queue('tasks')));
my $events = sql('erp', 'SELECT count(*), max(position) FROM event_queue.event_store');
my ($n_events, $last) = split /\|/, $events;

my %dump = (plain => "$dir/erp.sql", custom => "$dir/erp.custom", directory => "$dir/erp.dir");
$node->command_ok([ 'pg_dump', '-f', $dump{plain}, $node->connstr('erp') ], 'pg_dump plain');
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump{custom}, $node->connstr('erp') ], 'pg_dump custom');
$node->command_ok([ 'pg_dump', '-Fd', '-f', $dump{directory}, $node->connstr('erp') ], 'pg_dump directory');
$node->command_ok([ 'pg_dump', '--rows-per-insert=500', '-f', "$dir/inserts.sql", $node->connstr('erp') ], 'pg_dump as INSERTs');
$node->command_ok([ 'pg_dump', '--schema-only', '-f', "$dir/schema.sql", $node->connstr('erp') ], 'pg_dump of the schema');
$node->command_ok([ 'pg_dump', '--data-only', '-f', "$dir/data.sql", $node->connstr('erp') ], 'pg_dump of the data');
$node->command_ok([ 'pg_dump', '--data-only', '--disable-triggers', '-f', "$dir/data2.sql", $node->connstr('erp') ], 'without triggers');
# The same over a link so slow that the workers could come between any two tables.
my $slow = slurp_file($dump{plain});
$slow =~ s/^(COPY event_queue\.)/SELECT pg_sleep(0.3);\n$1/mg;
append_to_file("$dir/slow.sql", $slow);
sql('postgres', 'ALTER SYSTEM RESET event_queue.databases');
$node->reload;
# The original goes on after the dump was taken.
ok($node->poll_query_until('erp', q(SELECT count(*) = 0 FROM event_queue.jobs WHERE queue = 'tasks')), 'the original works');
is(sql('erp', q(SELECT count(*) FROM event_queue.append_many('e', 'later', (SELECT jsonb_agg('{"event_type": "e.y"}'::jsonb) FROM generate_series(1, 2000))))), '2000', 'and appends');
my $seen = sql('erp', 'SELECT max(position) FROM event_queue.event_store');

sub psql_file
{
	my ($db, @files) = @_;
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', $_ ], "$db: psql -f") for @files;
}
sub restore
{
	my ($db, @arguments) = @_;
	$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr($db), @arguments ], "$db: pg_restore");
}

my %ways = (
	plain => sub { psql_file('plain', $dump{plain}) },
	slow => sub { psql_file('slow', "$dir/slow.sql") },
	inserts => sub { psql_file('inserts', "$dir/inserts.sql") },
	custom => sub { restore('custom', $dump{custom}) },
	jobs => sub { restore('jobs', '-j', '2', $dump{directory}) },
	single => sub { restore('single', '-1', $dump{custom}) },
	sections => sub { restore('sections', "--section=$_", $dump{custom}) for qw(pre-data data post-data) },
	halves => sub { psql_file('halves', "$dir/schema.sql", "$dir/data.sql") },
	quiet => sub { psql_file('quiet', "$dir/schema.sql", "$dir/data2.sql") });

for my $way (sort keys %ways)
{
	sql('postgres', "CREATE DATABASE $way");
	$ways{$way}->();
	sleep 3 if $way eq 'plain';		# workers would be there by now
	is(sql('postgres', $executors->($way)), '0', "$way: no executor");
	is(sql($way, q(SELECT queue, count(*) FROM event_queue.jobs GROUP BY 1 ORDER BY 1)), "outside|1\ntasks|200", "$way: no job was run, no rule fired");
	is(sql($way, q(SELECT sum(score) FROM crm.lead)), '0', "$way: no effect");
	is(sql($way, 'SELECT count(*), max(position) FROM event_queue.event_store'), $events, "$way: all events, none by the restore itself");
	is(sql($way, q(SELECT check_name, ok, hint ~ 'activate' FROM event_queue.health() LIMIT 1)), 'store|f|t', "$way: health says it first");
	is(sql($way, q(SELECT string_agg(check_name || ': ' || hint, '; ') FROM event_queue.health() WHERE NOT ok AND (hint ~ 'executors = 0' OR detail ~ '^,'))), '', "$way: and nothing that would not help");
	is(sql($way, 'SELECT count(*) FROM event_queue.read_all(0, 100000)'), $n_events, "$way: reading works");
	like(error_of($way, q(SELECT event_queue.append('a', '1', 'x'))), qr/^EQ036 /, "$way: append");
	like(error_of($way, q(SELECT event_queue.enqueue('outside', 'x'))), qr/^EQ036 /, "$way: enqueue");
	like(error_of($way, q(SELECT event_queue.enqueue_many('outside', '[{}]', options => '{"name": "x"}'))), qr/^EQ036 /, "$way: enqueue_many");
	like(error_of($way, q(SELECT event_queue.claim('outside'))), qr/^EQ036 /, "$way: claim");
	like(error_of($way, q(SELECT event_queue.fetch_events('reader'))), qr/^EQ036 /, "$way: fetch_events");
	like(error_of($way, q(CALL event_queue.claim_wait('outside', 1, '1 minute'))), qr/^EQ036 /, "$way: claim_wait");
	like(error_of($way, q(INSERT INTO crm.lead VALUES ('new'))), qr/^EQ036 /, "$way: a change that is to be recorded");

	like(sql($way, 'SELECT event_queue.activate()'), qr/^1-\d+$/, "$way: activate begins a generation");
	ok($node->poll_query_until($way, q(SELECT count(*) = 0 FROM event_queue.jobs WHERE queue = 'tasks')), "$way: then the jobs run");
	is(sql($way, q(SELECT sum(score), count(*) FILTER (WHERE score = 1), (SELECT count(*) FROM crm.task), (SELECT count(*) FROM event_queue.dead_letters) FROM crm.lead)),
		'200|200|200|0', "$way: each once, on complete tables");
	is(sql($way, q(SELECT count(*) FROM event_queue.jobs WHERE queue = 'ruled')), '0', "$way: the rules go on where they were");
	is(sql($way, q(SELECT position > 1::bigint << 40 FROM event_queue.append('a', '1', 'x'))), 't', "$way: positions lie above all");
	# A consumer that has seen what the original appended later.
	my ($status, $out, $err) = $node->psql($way, "SELECT event_queue.read_all($seen)", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/EQ028: .*"go_on_after": $last\D/s, "$way: EQ028 says where to go on");
	my $new = sql($way, 'SELECT count(*) FROM event_queue.event_store WHERE position > 1::bigint << 40');
	is(sql($way, "SELECT count(*) FROM event_queue.read_all($last, 100000)"), $new, "$way: who follows the hint skips none");
	is(sql($way, q(SELECT (SELECT count(*) FROM event_queue_internal.subscription_bucket), (SELECT count(*) FROM pg_constraint
		WHERE contype = 'f' AND connamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)))), '3|6', "$way: checkpoints, and foreign keys");
	is(sql($way, q(SELECT max_attempts, keep_completed FROM event_queue.queue WHERE name = 'rule-calls')), '7|1 day', "$way: settings of built-in queues");
	is(sql($way, q(SELECT to_regclass('event_queue.event_store_by_event_type') IS NOT NULL, to_regclass('event_queue.event_store_p1_by_event_type') IS NOT NULL,
		EXISTS (SELECT FROM pg_constraint WHERE conname = 'event_store_last'))), 't|t|t', "$way: indexes and bounds");
	is(sql($way, q(SELECT count(*) FILTER (WHERE tgrelid::regclass::text ~ 'event_store'), bool_and(tgenabled = 'A') FROM pg_trigger WHERE tgfoid = 'event_queue_internal.refuse_change'::regproc)), '4|t', "$way: the guard stands as it was");
	like(error_of($way, q(SET session_replication_role = replica; DELETE FROM event_queue.event_store)), qr/^EQ007 /, "$way: and holds");
	like(error_of($way, q(DELETE FROM event_queue.queue WHERE queue_id = 1)), qr/^EQ/, "$way: so do built-in queues");
	is(sql($way, q(SELECT event_queue.enqueue('outside', 'once', unique_key => 'k', options => '{"unique_mode": "throttle", "unique_window": "1 day"}')
		= (SELECT job_id FROM event_queue.jobs WHERE queue = 'outside' AND name = 'once'))), 't', "$way: windows of unique keys");
	is(sql($way, q(SELECT event_queue.activation_state(), event_queue.activate() = event_queue.generation())), 'active|t', "$way: a second activate changes nothing");
	sql('postgres', "DROP DATABASE $way");
}
$node->stop;
done_testing();
