# Where default_transaction_read_only is on, jobs, rules and schedules wait: no attempt is
# counted, the workers stay, health() says why, and the log is not flooded.  Switched off,
# all goes on.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 2
));
$node->start;
$node->safe_psql('postgres', q(CREATE DATABASE app));
$node->safe_psql('app', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (name text);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.done VALUES (job.name) $$;
SELECT event_queue.create_queue('q'), event_queue.create_handler('q', '*', 'work');
SELECT event_queue.create_rule('r', 'made', queue => 'q', job_name => 'by rule');
));
$node->safe_psql('postgres', q(ALTER DATABASE app SET default_transaction_read_only = on));
$node->restart;

my $write = 'SET default_transaction_read_only = off;';
$node->safe_psql('app', "$write SELECT event_queue.enqueue('q', 'by hand'), event_queue.append('t', '1', 'made')");
ok($node->poll_query_until('app', q(SELECT count(*) >= 2 FROM event_queue.faults() WHERE sqlstate = '25006')), 'what can not be done is a fault');
my $pids = q(SELECT string_agg(pid::text, ',' ORDER BY pid) FROM event_queue.workers() WHERE kind = 'executor');
my $before = $node->safe_psql('app', $pids);
my $log = -s $node->logfile;
sleep 5;
is($node->safe_psql('app', $pids), $before, 'the executors stay');
my @errors = grep { /ERROR|FATAL/ } split /\n/, slurp_file($node->logfile, $log);
cmp_ok(scalar(@errors), '<', 12, 'and say it seldom') or diag(join "\n", @errors);
is($node->safe_psql('app', q(SELECT name, failures, stalled FROM event_queue.jobs)), 'by hand|0|0', 'no attempt is counted');
like($node->safe_psql('app', q(SELECT hint FROM event_queue.faults() WHERE what = 'rule runner')), qr/default_transaction_read_only/, 'with a hint');

$node->safe_psql('postgres', q(ALTER DATABASE app RESET default_transaction_read_only));
$node->restart;
ok($node->poll_query_until('app', q(SELECT count(*) = 2 FROM done)), 'it goes on');
unlike(slurp_file($node->logfile), qr/scheduler.*FATAL: +cannot execute/, 'no worker ends by it');
$node->stop;
done_testing();
