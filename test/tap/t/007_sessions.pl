# What the end of a session gives back, who is woken, and what is written to the
# log.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
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
SELECT event_queue.create_subscription('team', buckets => 8);
SELECT count(event_queue.append('a', n::text, 'x')) FROM generate_series(1, 100) n;
));

# Members of a group share its buckets; those of one that dies go to the other,
# with what it had fetched and not acknowledged.
my @member = map { $node->background_psql('postgres') } 1, 2;
for (1 .. 3)
{
	$_->query_safe("SELECT count(*) FROM event_queue.fetch_events('team')") for @member;
}
is($node->safe_psql('postgres', 'SELECT array_agg(buckets) FROM event_queue_internal.subscription_members()'), '{4,4}', 'two members share');
my $pid = $member[0]->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
is($node->safe_psql('postgres', 'SELECT members FROM event_queue.subscription_status'), '1', 'one is left');
is($member[1]->query_safe("SELECT count(*) FROM event_queue.fetch_events('team', 1000)"), '100', 'and has all that was not acknowledged');
is($node->safe_psql('postgres', 'SELECT array_agg(buckets) FROM event_queue_internal.subscription_members()'), '{8}', 'and all buckets');
$member[1]->quit;
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue_internal.subscription_members()'), '0', 'until it ends, too');

# Attempts on history are refused, and leave a line in the log.
for my $sql ('UPDATE event_queue.event_store SET version = 2', 'DELETE FROM event_queue.event_store', 'TRUNCATE event_queue.event_store')
{
	my $offset = -s $node->logfile;
	my ($verb) = split / /, $sql;
	like(($node->psql('postgres', $sql))[2], qr/ERROR/, "$verb is refused");
	like(slurp_file($node->logfile, $offset), qr/LOG:  refused $verb of event_queue.event_store by role/, 'and logged');
}

# Jobs that a session claimed for itself go back when it ends; timed ones do not.
$node->safe_psql('postgres', q(SELECT event_queue.create_queue('q', lease => '1 hour', stalled_interval => '500 ms');
	SELECT event_queue.enqueue('q', 'job') FROM generate_series(1, 3)));
my $worker = $node->background_psql('postgres');
$worker->query_safe(q(SELECT job_id FROM event_queue.claim('q', session_bound => true)));
$worker->query_safe(q(SELECT job_id FROM event_queue.claim('q')));
$pid = $worker->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
is($node->safe_psql('postgres', q(SELECT state FROM event_queue.jobs ORDER BY job_id)), "stalled\nleased\nready", 'a session that ends gives its jobs back at once');
is($node->safe_psql('postgres', q(SELECT count(event_queue.complete(c.job_id, c.lease_token)) FROM event_queue.claim('q', 10) c)), '2', 'for others to claim');

# In a queue with max_concurrency its place is free again.
$node->safe_psql('postgres', q(SELECT event_queue.create_queue('narrow', lease => '1 hour', max_concurrency => 1);
	SELECT event_queue.enqueue('narrow', 'job') FROM generate_series(1, 2)));
$worker = $node->background_psql('postgres');
$worker->query_safe(q(SELECT job_id FROM event_queue.claim('narrow', session_bound => true)));
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.claim('narrow'))), '0', 'the only place is taken');
$pid = $worker->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
is($node->safe_psql('postgres', q(SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('narrow'))), '1', 'until its session ends');

# A session that waits for a job holds nothing, and is woken by what comes: a
# commit, a prepared transaction, plain SQL, a time.
my $claim = sub {
	my ($what, $sql) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c',
		"CALL event_queue.claim_wait('q', 1, '20 s')" ], '>', \$out, '2>', \$err);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL event_queue.claim_wait%'
		AND wait_event = 'Extension' AND backend_xmin IS NULL AND backend_xid IS NULL"), "$what: it sleeps, without snapshot or transaction id");
	my $begin = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	$node->safe_psql('postgres', $sql);
	$run->finish;
	like($out, qr/"name": "$what"/, 'and gets the job');
	is($node->safe_psql('postgres', "SELECT clock_timestamp() - '$begin'::timestamptz < '3 s'"), 't', 'soon');
};
$claim->('commit', q(SELECT event_queue.enqueue('q', 'commit')));
$claim->('delay', q(SELECT event_queue.enqueue('q', 'delay', delay => '300 ms')));
$claim->('prepared', q(BEGIN; SELECT event_queue.enqueue('q', 'prepared'); PREPARE TRANSACTION 'x'; SELECT pg_sleep(0.1); COMMIT PREPARED 'x'));
# far below the ready mark
$claim->('copied', q(COPY event_queue.job (queue_id, tenant_id, name, priority, run_at, created_at, payload)
	FROM PROGRAM 'printf "3\tdefault\tcopied\t5\t2001-01-01\t2001-01-01\t{}\n"'));
my $late = $node->background_psql('postgres');
$late->query_safe(q(BEGIN; SELECT event_queue.enqueue('q', 'late')));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'x') FROM generate_series(1, 100)));
$node->safe_psql('postgres', q(SELECT count(event_queue.complete(c.job_id, c.lease_token)) FROM event_queue.claim('q', 100) c));
select(undef, undef, undef, 0.1);
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.claim('q', 100))), '0', 'the mark is above a job that has not committed');
$late->query_safe('COMMIT');
is($node->safe_psql('postgres', q(SELECT name FROM event_queue.claim('q', 100))), 'late', 'which is found as soon as it has');
$late->quit;

# A blocked job that someone holds locked stops its own group, and no one else's.
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'held ' || n, group_key => 'held') FROM generate_series(1, 2) n));
$node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE name = 'held 1')) or die;
my $holder = $node->background_psql('postgres');
$holder->query_safe(q(BEGIN; SELECT job_id FROM event_queue.job WHERE name = 'held 2' FOR UPDATE));
$node->safe_psql('postgres', q(SELECT event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('q') c));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'other', group_key => 'other')));
ok($node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE name = 'other')), 'a locked job does not hold up other groups');
is($node->safe_psql('postgres', q(SELECT state FROM event_queue.jobs WHERE name = 'held 2')), 'blocked', 'its own waits');
$holder->query_safe('COMMIT');
ok($node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE name = 'held 2')), 'until it is free');
$holder->quit;
$node->safe_psql('postgres', q(SELECT event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('q', 10) c));

# await_job is woken by the end of the job.
my $job = $node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'awaited')));
my $outcome = '';
my $awaiting = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', "CALL event_queue.await_job($job, '20 s')" ], '>', \$outcome, '2>', \my $err);
$node->safe_psql('postgres', q(SELECT pg_sleep(0.2); SELECT event_queue.fail(job_id, lease_token, 'broken', final => true) FROM event_queue.claim('q')));
$awaiting->finish;
like($outcome, qr/"state": "dead".*|"broken".*"dead"/, 'await_job says how it ended');
$node->stop;
done_testing();
