# A rule that is replaced again and again while events come: each event gets one
# job, and none gets two; the same over a restart of the scheduler, and for a rule
# that calls a function, whose calls wait when it is replaced by one that enqueues.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 1
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q');
SELECT event_queue.create_rule('r', 'made', queue => 'q', job_name => 'j0');
));
append_to_file('append.sql', "SELECT event_queue.append('a', gen_random_uuid()::text, 'made');\n");
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '4', '-T', '5', '-f', 'append.sql', '-d', $node->connstr('postgres') ],
	'>', 'pgbench.out', '2>', 'pgbench.err');
my $n = 0;
my $killed = 0;
for (my $end = time + 4.5; time < $end; $n++)
{
	my $replace = "SELECT event_queue.create_rule('r', '*', '$n >= 0', 'q', 'j$n', or_replace => true);";
	$replace = "SELECT event_queue.create_rule('r', 'made', queue => 'q', job_name => 'j$n', or_replace => true);" if $n % 2;
	$replace = "BEGIN; $replace SELECT pg_sleep(0.1); COMMIT;" if $n % 3 == 0;
	$replace = "BEGIN; $replace ROLLBACK;" if $n % 5 == 4;
	$node->safe_psql('postgres', $replace);
	$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM event_queue.workers() WHERE kind = 'scheduler')) if time > $end - 1 && !$killed++;
}
$load->finish;
cmp_ok($n, '>', 15, "the rule was replaced $n times");
my $events = $node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.event_store));
cmp_ok($events, '>', 100, "while $events events came");
# One more event that the scheduler sees after all others.
$node->safe_psql('postgres', q(SELECT event_queue.append('a', 'last', 'made')));
$events++;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.job j JOIN event_queue.event_store e
	ON j.metadata ->> 'event_id' = e.id::text WHERE e.aggregate_id = 'last')), 'the rules have seen all events');
is($node->safe_psql('postgres', q(SELECT count(*), count(DISTINCT metadata ->> 'event_id') FROM event_queue.job)),
	"$events|$events", 'each event has one job');
my $names = $node->safe_psql('postgres', q(SELECT string_agg(DISTINCT name, ' ') FROM event_queue.job));
cmp_ok(scalar(split / /, $names), '>', 3, "of many definitions: $names");

# Calls of a function that wait (its queue is paused) follow the rule as it is then.
$node->safe_psql('postgres', q(
SELECT event_queue.drop_rule('r');
SELECT event_queue.purge_queue('q');
CREATE TABLE called (position bigint);
CREATE FUNCTION call(event event_queue.event_store) RETURNS void LANGUAGE sql AS 'INSERT INTO public.called VALUES ($1.position)';
SELECT event_queue.pause_queue('rule-calls');
SELECT event_queue.create_rule('f', 'called', function => 'call');
));
$node->safe_psql('postgres', q(SELECT event_queue.append('c', n::text, 'called') FROM generate_series(1, 5) n));
# (a purge passes over jobs that others hold)
ok($node->poll_query_until('postgres', q(SELECT count(*) = 5 FROM event_queue.jobs WHERE queue = 'rule-calls')), 'five calls wait');
$node->safe_psql('postgres', q(
SELECT event_queue.create_rule('f', 'called', queue => 'q', job_name => 'instead', or_replace => true);
SELECT event_queue.resume_queue('rule-calls');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 5 AND count(DISTINCT metadata ->> 'event_id') = 5 FROM event_queue.job WHERE name = 'instead')),
	'each is a job now');
is($node->safe_psql('postgres', q(SELECT count(*) FROM called)), '0', 'and the function is not called');
done_testing();
