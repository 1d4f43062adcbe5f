# The last transactions of workers, and of sessions with leases bound to them, wait for a
# lock no longer than some seconds: neither a shutdown nor pg_terminate_backend() hangs
# while someone holds one.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_prepared_transactions = 2
event_queue.executors = 1
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE FUNCTION sleeps(j event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$SELECT to_jsonb(pg_sleep(60)::text)$$;
SELECT event_queue.create_queue('q');
SELECT event_queue.create_handler('q', 'x', 'sleeps');
SELECT event_queue.enqueue('q', 'x');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.workers() WHERE current_job IS NOT NULL)), 'an executor has a job in hand');
$node->safe_psql('postgres', q(SELECT event_queue.create_queue('outside'); SELECT event_queue.enqueue('outside', 'y')));
my $outside = $node->background_psql('postgres');
my $session = $outside->query_safe('SELECT pg_backend_pid()');
$outside->query_safe(q(SELECT job_id FROM event_queue.claim('outside', session_bound => true)));
$node->safe_psql('postgres', q(BEGIN; LOCK TABLE event_queue_internal.metric_series, event_queue_internal.metric_state, event_queue.job; PREPARE TRANSACTION 'holds'));

my $scheduler = $node->safe_psql('postgres', q(SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'));
$node->safe_psql('postgres', "SELECT pg_terminate_backend($scheduler)");
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $scheduler)"), 'a scheduler that can not write its last samples ends');

$node->safe_psql('postgres', "SELECT pg_terminate_backend($session)");
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $session)"), 'a session that can not give its leases back ends');

my $began = time;
$node->stop('fast');
cmp_ok(time - $began, '<', 20, 'nor does a shutdown wait for who has locked tables');
like(slurp_file($node->logfile), qr/FATAL:  canceling statement due to/, 'as the log says');

$node->start;
$node->safe_psql('postgres', q(COMMIT PREPARED 'holds'));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.workers() WHERE kind = 'scheduler')), 'and all goes on');
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.job)), '2', 'the jobs are there');
$node->stop('fast');
done_testing();
