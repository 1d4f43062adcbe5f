# Wake-ups of queues while the scheduler is at its other chores.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
# auto_explain, where it is installed, tells of each plan that was compiled.
my $explain = -e $node->config_data('--pkglibdir') . '/auto_explain.so';
my $libraries = $explain ? 'event_queue,auto_explain' : 'event_queue';
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = '$libraries'
event_queue.executors = 0
jit = on
jit_above_cost = 0
log_line_prefix = '[%b] '
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_nested_statements = on
));
$node->start;
$node->safe_psql('postgres', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('q')));
my $scheduler = q(FROM pg_stat_activity WHERE backend_type LIKE 'event_queue scheduler%');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $scheduler"), 'there is a scheduler');

# Each of two chores of a sweep, both before the look at queues, waits at a gate.
$node->safe_psql('postgres', q(
CREATE FUNCTION gate(name text, key int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('application_name', name, false);
	WHILE NOT pg_try_advisory_lock(key) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	PERFORM pg_advisory_unlock(key);
END $$;
));
my $gates = $node->background_psql('postgres');
$gates->query_safe('SELECT pg_advisory_lock(1), pg_advisory_lock(2)');
$node->safe_psql('postgres', q(SET allow_system_table_mods = on;
CREATE OR REPLACE FUNCTION event_queue_internal.run_due_schedules() RETURNS timestamptz LANGUAGE plpgsql
AS $$ BEGIN PERFORM public.gate('first', 1); RETURN NULL; END $$;
));
ok($node->poll_query_until('postgres', "SELECT application_name = 'first' $scheduler"), 'a chore takes its time');
$node->safe_psql('postgres', q(SET allow_system_table_mods = on;
CREATE OR REPLACE FUNCTION event_queue_internal.move_lanes() RETURNS void LANGUAGE plpgsql
AS $$ BEGIN PERFORM public.gate('second', 2); END $$;
));

my $listener = $node->background_psql('postgres');
$listener->query_safe(q(LISTEN "event_queue.q"));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'x')));
$gates->query_safe('SELECT pg_advisory_unlock(1)');
ok($node->poll_query_until('postgres', "SELECT application_name = 'second' $scheduler"), 'then the next one');
my $told = '';
for (1 .. 1800)
{
	$told .= $listener->query('SELECT pg_sleep(0.1)');
	last if $told =~ /event_queue\.q/;
}
like($told, qr/notification "event_queue\.q"/, 'who listens is told of a job meanwhile');
is($node->safe_psql('postgres', "SELECT application_name $scheduler"), 'second', 'before the next one is done');
$gates->query_safe('SELECT pg_advisory_unlock(2)');

# It looks at many queues by several transactions: a snapshot of all would be held for long.
$node->safe_psql('postgres', q(
CREATE TABLE moved (xid xid8);
CREATE FUNCTION note() RETURNS void LANGUAGE sql AS 'INSERT INTO public.moved VALUES (pg_current_xact_id())';
CREATE FUNCTION note_move(lane int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF lane > 0 AND (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()) LIKE 'event_queue scheduler%' THEN
		PERFORM public.note();
	END IF;
	RETURN lane;
END $$;
CREATE INDEX moves ON event_queue.job (note_move(lane));
SELECT count(event_queue.create_queue('fair ' || n, fair => true)) FROM generate_series(1, 250) n;
));
$gates->query_safe('SELECT pg_advisory_lock(1)');
ok($node->poll_query_until('postgres', "SELECT application_name = 'first' $scheduler"), 'it is busy');
$node->safe_psql('postgres', q(SELECT count(event_queue.enqueue('fair ' || n, 'x', delay => '1 second')) FROM generate_series(1, 250) n));
ok($node->poll_query_until('postgres', q(SELECT bool_and(run_at < now()) FROM event_queue.jobs WHERE queue LIKE 'fair %')), 'jobs of all queues are due');
$gates->query_safe('SELECT pg_advisory_unlock(1)');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 250 FROM moved)), 'it has moved them');
is($node->safe_psql('postgres', q(SELECT count(DISTINCT xid) >= 3 FROM moved)), 't', 'not all in one transaction');
$_->quit foreach ($gates, $listener);
$node->stop;

SKIP:
{
	skip 'there is no auto_explain', 2 unless $explain;
	my $log = slurp_file($node->logfile);
	like($log, qr/\[event_queue scheduler[^\]]*\] LOG: .*duration:/, 'the log has plans of the scheduler');
	unlike($log, qr/\[event_queue scheduler[^\]]*\] LOG: [^\[]*JIT:/, 'none of which was compiled');
}
done_testing();
