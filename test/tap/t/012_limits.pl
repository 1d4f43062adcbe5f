# rate_limit and max_concurrency, which are in shared memory: after a restart and a
# crash, with prepared transactions, with leases that run out, with little room, and
# who is woken when a claim is rolled back.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 0
event_queue.max_limited_leases = 64
event_queue.max_queues = 16
max_prepared_transactions = 5
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('most', max_concurrency => 3), event_queue.create_queue('rate', rate_limit => 5, rate_interval => '1 hour'),
	event_queue.create_queue('wide', max_concurrency => 1000, lease => '1 hour'), event_queue.create_queue('other', max_concurrency => 1000);
SELECT cardinality(event_queue.enqueue_many(q, to_jsonb(array_fill('{}'::jsonb, '{200}')), options => '{"name": "j"}')) FROM unnest('{most,rate,wide,other}'::text[]) q;
CREATE FUNCTION take(q text, n int DEFAULT 100, lease interval DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
	'SELECT count(*) FROM event_queue.claim(q, n, lease => $3)';
CREATE FUNCTION age_bucket(queue_id int, by interval) RETURNS void LANGUAGE c AS 'event_queue', 'eq_age_bucket';
));

sub sql { return $node->safe_psql('postgres', $_[0]); }

my $active = q(SELECT active FROM event_queue.queue_limits('most'));
my $leased = q(SELECT count(*) FROM event_queue.jobs WHERE queue = 'most' AND leased_until > clock_timestamp());
my $one = q(FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('most') AND lease_token IS NOT NULL ORDER BY job_id LIMIT 1);

# A restart and a crash: leases are read from the table, the bucket begins empty.
is(sql(q(SELECT take('most', 2), take('rate', 2))), '2|2', 'claimed');
for my $how ('fast', 'immediate')
{
	sql('CHECKPOINT');
	$node->stop($how);
	$node->start;
	is(sql(q(SELECT take('most', 0 + 3))), $how eq 'fast' ? '1' : '0', "stop $how: leases from before count");
	is(sql($leased), '3', 'and those of now');
	is(sql(q(SELECT take('rate'))), '0', 'the bucket begins empty');
	is(sql(q(SELECT age_bucket(event_queue_internal.queue_id_of('rate'), '12 minutes'); SELECT take('rate'))), "\n1", 'and fills at its rate');
}
# complete_and_claim is the first: the job that it completes leaves it its place
$node->restart;
is(sql("SELECT count(*) FROM (SELECT job_id, lease_token $one) j, LATERAL event_queue.complete_and_claim(j.job_id, j.lease_token, 'most')"),
	'1', 'complete_and_claim after a restart');
is(sql($active), '3', 'takes one place for another');

# Prepared: what is claimed or settled counts until its lease runs out.
sql("BEGIN; SELECT event_queue.complete(job_id, lease_token) $one; PREPARE TRANSACTION 'p'");
is(sql(q(SELECT take('most'))), '0', 'a prepared complete keeps its place');
sql("COMMIT PREPARED 'p'");
is(sql(q(SELECT take('most'))), '0', 'also when it is committed');
is(sql("$active; $leased"), "3\n2", 'until its lease runs out');
sql(q(SELECT event_queue.alter_queue('most', reset => '{max_concurrency}')));
sql(q(SELECT event_queue.alter_queue('most', max_concurrency => 3)));
is(sql("$active; $leased"), "2\n2", 'or the leases are read again');
sql(q(BEGIN; SELECT take('most', 1); PREPARE TRANSACTION 'p'));
is(sql(q(SELECT take('most'))), '0', 'a prepared claim has its place');
$node->restart;
is(sql(q(SELECT take('most'))), '0', 'also after a restart');
sql("ROLLBACK PREPARED 'p'");
sql(q(SELECT event_queue.alter_queue('most', reset => '{max_concurrency}')));
sql(q(BEGIN; SELECT event_queue.alter_queue('most', max_concurrency => 4); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'));
is(sql(q(SELECT take('most'))), '2', 'a limit that is set by a prepared transaction');

# A lease that ran out is no longer extended when its place is taken.
sql(q(SELECT event_queue.create_queue('short', max_concurrency => 1), event_queue.enqueue_many('short', to_jsonb(array_fill('{}'::jsonb, '{3}')), options => '{"name": "j"}')));
my ($job, $token) = split /\|/, sql(q(SELECT job_id, lease_token FROM event_queue.claim('short', lease => '1 second')));
sql('SELECT pg_sleep(1.1)');
is(sql("SELECT event_queue.extend_lease($job, '$token', '1 second') > now()"), 't', 'ran out, and its place is free: extended');
is(sql(q(SELECT take('short'))), '0', 'and has its place again');
sql('SELECT pg_sleep(1.1)');
sql(q(SELECT event_queue.create_queue('late', max_concurrency => 1), event_queue.enqueue('late', 'a', priority => 9)));
($job, $token) = split /\|/, sql(q(SELECT job_id, lease_token FROM event_queue.claim('late', lease => '1 second')));
sql(q(SELECT event_queue.enqueue('late', 'b', priority => 0); SELECT pg_sleep(1.1)));
is(sql(q(SELECT name FROM event_queue.claim('late'))), 'b', 'another job took the place');
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT event_queue.extend_lease($job, '$token')", on_error_stop => 0);
like($err, qr/EQ016/, 'then the lease is lost');
is(sql("SELECT event_queue.complete($job, '$token') IS NOT NULL"), 't', 'but the job may be completed');

# Who sleeps is woken by a rollback.
sql(q(SELECT event_queue.create_queue('wake', max_concurrency => 1, rate_limit => 1, rate_interval => '1 day', stalled_interval => '1 hour')));
sql(q(SELECT event_queue.enqueue('wake', 'one'), event_queue.enqueue('wake', 'two')));
my $holder = $node->background_psql('postgres');
my $longest = 0;
for (1 .. 4)
{
	$holder->query_safe('BEGIN');
	$holder->query_safe(q(SELECT take('wake')));
	my ($claimed, $said) = ('', '');
	my $sleeper = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', q(CALL event_queue.claim_wait('wake', 1, '50 s')) ],
		'>', \$claimed, '2>', \$said);
	$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL %' AND wait_event = 'Extension')) or die;
	my $began = time;
	$holder->query_safe('ROLLBACK');
	$sleeper->finish;
	like($claimed, qr/"name": "one"/, 'a rolled-back claim gives its place and its token to who waits');
	$longest = time - $began if time - $began > $longest;
	# once more, as if nothing had been claimed
	sql(q(SELECT event_queue.release(job_id, lease_token) FROM event_queue.job WHERE name = 'one' AND lease_token IS NOT NULL;
		SELECT age_bucket(event_queue_internal.queue_id_of('wake'), '1 day')));
}
cmp_ok($longest, '<', 2, 'at once');
$holder->quit;

# Little room: fewer are claimed, never more; what ran out makes room.
sql(q(SELECT event_queue.alter_queue('most', reset => '{max_concurrency}')));
is(sql(q(SELECT take('other', 40, '1 second') BETWEEN 28 AND 32)), 't', 'one queue has half of the table of leases at most');
is(sql(q(SELECT take('wide', 100, '2 seconds') BETWEEN 12 AND 18)), 't', 'the next one half of what is left');
($status, $out, $err) = $node->psql('postgres', q(SELECT take('wide', 10)));
is($out, '0', 'then none is claimed');
like($err, qr/Raise event_queue.max_limited_leases/, 'and a warning names the setting');
sql(q(SELECT event_queue.create_queue('narrow', max_concurrency => 5), event_queue.enqueue_many('narrow', to_jsonb(array_fill('{}'::jsonb, '{9}')), options => '{"name": "j"}')));
is(sql(q(SELECT take('narrow', 9))), '5', 'a narrow queue has its places');
sql('SELECT pg_sleep(2.1)');
cmp_ok(sql(q(SELECT take('wide', 30))), '>', 0, 'leases that ran out make room');
# Without room in shared memory no queue is created; what is rolled back or dropped gives its room back.
($status, $out, $err) = $node->psql('postgres', q(SELECT event_queue.create_queue('q' || n, max_concurrency => 1) FROM generate_series(1, 16) n));
like($err, qr/no room in shared memory for one more queue or channel\n.*\nHINT:  Raise event_queue.max_queues/, 'no room for a queue');
for my $round (1 .. 3)
{
	is(sql(q(SELECT count(event_queue.create_queue('q' || n, max_concurrency => 1)), count(event_queue.enqueue('q' || n, 'j')) FROM generate_series(1, 2) n)),
		'2|2', "round $round: two more have room");
	is(sql(q(SELECT take('q2'))), '1', 'and work');
	sql(q(SELECT event_queue.drop_queue('q' || n, true) FROM generate_series(1, 2) n));
}
$node->stop;
done_testing();
