# Figures of queues, job names and tenants: nothing that was rolled back counts, restarts
# and crashes keep samples, and where there is no room, the rest is "other".
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
restart_after_crash = on
event_queue.executors = 0
event_queue.max_job_stats = 16
event_queue.max_tenant_stats = 16
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', max_attempts => 2, backoff_delay => '0', sla => '1 hour');
));

my $totals = "SELECT enqueued_total, claimed_total, completed_total, failed_total, retried_total, dead_total FROM event_queue";
my $of_queue = "$totals.queue_stats WHERE queue = 'q'";
my $of_name = "$totals.job_stats WHERE queue = 'q' AND job_name = 'a'";
my $of_tenant = "$totals.tenant_stats WHERE tenant = 't'";

sub is_all
{
	my ($expected, $name) = @_;
	is($node->safe_psql('postgres', $of_queue), $expected, "$name: of the queue");
	is($node->safe_psql('postgres', $of_name), $expected, "$name: of the job name");
	is($node->safe_psql('postgres', $of_tenant), $expected, "$name: of the tenant");
}

# A sample is taken when the scheduler begins.
sub sample
{
	my $before = $node->safe_psql('postgres', "SELECT clock_timestamp()");
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM event_queue.workers() WHERE kind = 'scheduler'");
	ok($node->poll_query_until('postgres', "SELECT event_queue_internal.sampled_at() > '$before' AND EXISTS
		(SELECT FROM event_queue.workers() w JOIN pg_stat_activity a USING (pid) WHERE w.kind = 'scheduler' AND a.backend_start > '$before')"),
		'a sample was taken');
}

$node->safe_psql('postgres', q(
BEGIN;
SELECT event_queue.enqueue('q', 'a', tenant_id => 't');
ROLLBACK;
BEGIN;
SELECT event_queue.enqueue('q', 'a', tenant_id => 't');
SAVEPOINT s;
SELECT event_queue.enqueue('q', 'a', tenant_id => 't') FROM generate_series(1, 5);
ROLLBACK TO s;
SELECT event_queue.enqueue('q', 'a', tenant_id => 't');
SAVEPOINT s;
SELECT event_queue.enqueue('q', 'a', tenant_id => 't');
RELEASE s;
DO $$ BEGIN
	PERFORM event_queue.enqueue('q', 'a', tenant_id => 't');
	RAISE EXCEPTION 'no';
EXCEPTION WHEN OTHERS THEN
	PERFORM event_queue.enqueue('q', 'a', tenant_id => 't');
END $$;
COMMIT;
));
is_all('4|0|0|0|0|0', 'only what was committed');
$node->safe_psql('postgres', q(
BEGIN;
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('q', 3);
ROLLBACK;
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('q', 2);
));
is_all('4|2|2|0|0|0', 'claimed and completed');
is($node->safe_psql('postgres', q(SELECT h -> 'activeCount', h -> 'pendingCount', h -> 'completedCount', h -> 'slaCompliance', h -> 'status'
	FROM (SELECT event_queue.queue_health() -> 'q') x (h))), '0|2|2|100.00|"healthy"', 'queue_health says so');
$node->safe_psql('postgres', "SELECT event_queue.fail(job_id, lease_token, 'no') FROM event_queue.claim('q', 1)") for 1 .. 2;
is_all('4|4|2|2|2|0', 'failed, retried');
$node->safe_psql('postgres', "SELECT event_queue.fail(job_id, lease_token, 'no') FROM event_queue.claim('q', 1)") for 1 .. 2;
is_all('4|6|2|4|2|2', 'dead');
my $now = $node->safe_psql('postgres', $of_queue);
my $run = "SELECT event_queue_internal.histogram_count(wait_1h), event_queue_internal.histogram_count(run_1h), event_queue_internal.histogram_count(attempt_wait_1h)
	FROM event_queue_internal.metrics('q', (SELECT queue_id FROM event_queue.queue WHERE name = 'q'))";
my $histograms = $node->safe_psql('postgres', $run);
like($histograms, qr/^4\|2\|6$/, 'histograms have as many');

# Sampled, over and over: the same.
sample();
is_all($now, 'after a sample');
is($node->safe_psql('postgres', $run), $histograms, 'histograms, too');
$node->restart;
ok($node->poll_query_until('postgres', 'SELECT event_queue_internal.sampled_at() IS NOT NULL'), 'samples go on');
is_all($now, 'after a restart');
is($node->safe_psql('postgres', $run), $histograms, 'histograms, too');
my $complete = $node->safe_psql('postgres', 'SELECT complete_since FROM event_queue_internal.metric_state');

# A planned end loses nothing, a crash what came since the last sample.
$node->safe_psql('postgres', "SELECT event_queue.enqueue('q', 'a', tenant_id => 't')");
(my $more = $now) =~ s/^4/5/;
$node->restart;
is_all($more, 'what was not sampled before a planned end');
ok($node->poll_query_until('postgres', 'SELECT event_queue_internal.sampled_at() IS NOT NULL'), 'samples go on');
is($node->safe_psql('postgres', 'SELECT complete_since FROM event_queue_internal.metric_state'), $complete, 'nothing is missing');
$node->safe_psql('postgres', "SELECT event_queue.enqueue('q', 'a', tenant_id => 't'); CHECKPOINT");
$node->stop('immediate');
$node->start;
is_all($more, 'after a crash, the last sample');
ok($node->poll_query_until('postgres', "SELECT complete_since > '$complete' FROM event_queue_internal.metric_state"), 'and that something is missing is said');
$node->safe_psql('postgres', "SELECT event_queue.enqueue('q', 'a', tenant_id => 't')");
$more =~ s/^5/6/;
is_all($more, 'it goes on from there');
my $pid = $node->safe_psql('postgres', "SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'");
sample();
$pid = $node->safe_psql('postgres', "SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'");
kill 9, $pid;
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.workers() WHERE kind = 'scheduler' AND pid <> $pid"), 'the scheduler was killed');
is_all($more, 'after kill -9');

# No room: the queue's figures are exact, names and tenants go together.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue('r');
SELECT event_queue.enqueue('r', 'n' || n, tenant_id => 'x' || n) FROM generate_series(1, 40) n;
SELECT event_queue.enqueue('r', 'n' || n, tenant_id => 'x' || n) FROM generate_series(1, 40) n;
));
is($node->safe_psql('postgres', "SELECT enqueued_total FROM event_queue.queue_stats WHERE queue = 'r'"), '80', 'all of the queue');
is($node->safe_psql('postgres', "SELECT sum(enqueued_total), count(*) < 16, count(*) FILTER (WHERE job_name = 'other' AND enqueued_total > 40) FROM event_queue.job_stats WHERE queue = 'r'"),
	'80|t|1', 'most names are "other"');
is($node->safe_psql('postgres', "SELECT sum(enqueued_total), count(*) <= 16, count(*) FILTER (WHERE tenant = 'other' AND enqueued_total > 40) FROM event_queue.tenant_stats WHERE tenant <> 't'"),
	'80|t|1', 'most tenants are "other"');
like($node->safe_psql('postgres', "SELECT NOT ok, hint FROM event_queue.health() WHERE check_name = 'metrics'"), qr/^t\|.*event_queue\.max_(job|tenant)_stats/, 'health() names the setting');

# What is gone leaves room, and no rows.
$node->safe_psql('postgres', "SELECT event_queue.drop_queue('r', force => true)");
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.job_stats WHERE queue = 'r'"), '0', 'the queue is dropped');
is($node->safe_psql('postgres', 'SELECT jobs FROM event_queue_internal.series_use()'), '0', 'its places are free');
$node->safe_psql('postgres', 'DROP EXTENSION event_queue');
$node->safe_psql('postgres', 'CREATE EXTENSION event_queue');
is($node->safe_psql('postgres', 'SELECT jobs, tenants FROM event_queue_internal.series_use()'), '0|0', 'and those of an extension that is dropped');

$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|samples of metrics/, 'nothing failed');
done_testing();
