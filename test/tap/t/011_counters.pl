# Counters of a queue are what is there: after a restart, a crash, two-phase
# commits; and jobs that an open transaction hides from alter_queue come to the
# lanes that it wants.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 0
max_prepared_transactions = 5
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', stalled_interval => '200 ms');
));
my $counters = "SELECT depth, dead FROM event_queue.queue_status WHERE queue = 'q'";

# Enqueues some, fails some for good.
sub jobs_and_dead
{
	my ($jobs, $dead) = @_;
	$node->safe_psql('postgres', "SELECT count(event_queue.enqueue('q', 'j')) FROM generate_series(1, $jobs + $dead)");
	$node->safe_psql('postgres', "SELECT event_queue.fail(job_id, lease_token, 'no', final => true) FROM event_queue.claim('q', $dead)");
}

jobs_and_dead(6, 4);
is($node->safe_psql('postgres', $counters), '6|4', 'counted at commit');
$node->restart;
ok($node->poll_query_until('postgres', $counters, '6|4'), 'counted again after a restart');
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', $counters, '6|4'), 'and after a crash');
jobs_and_dead(1, 1);
is($node->safe_psql('postgres', $counters), '7|5', 'and goes on from there');
is($node->safe_psql('postgres', "SELECT enqueued_total, enqueued_per_s > 0 AND enqueued_per_s <= 2 FROM event_queue.queue_status WHERE queue = 'q'"),
	'2|t', 'totals and rates begin anew');

# What a prepared transaction did is known when it is committed, by whomever.
$node->safe_psql('postgres', q(
BEGIN;
SELECT event_queue.enqueue('q', 'prepared');
SELECT event_queue.discard_dead(min(job_id)) FROM event_queue.dead_letter;
PREPARE TRANSACTION 'p';
));
is($node->safe_psql('postgres', $counters), '7|5', 'prepared: not there yet');
$node->safe_psql('postgres', "COMMIT PREPARED 'p'");
ok($node->poll_query_until('postgres', $counters, '8|4'), 'committed: counted');

# A transaction that began before alter_queue knows only the old setting.
my $before = $node->background_psql('postgres');
$before->query_safe('BEGIN');
$before->query_safe("SELECT event_queue.enqueue('q', 'hidden', tenant_id => 't')");
$node->safe_psql('postgres', q(SELECT event_queue.alter_queue('q', fair => true)));
my $lanes = "SELECT count(*), bool_and(lane = event_queue_internal.job_lane(true, tenant_id)) FROM event_queue.job";
is($node->safe_psql('postgres', $lanes), '8|t', 'those that can be seen are moved at once');
$before->query_safe('COMMIT');
$before->quit;
ok($node->poll_query_until('postgres', $lanes, '9|t'), 'the other one by the scheduler');

$node->stop;
done_testing();
