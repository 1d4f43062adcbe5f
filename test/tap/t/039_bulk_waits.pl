# enqueue_many and retry_all_dead come to their end although others use its keys all the time; a deadlock
# with what its transaction holds from before is told at once.
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
event_queue.executors = 0
deadlock_timeout = '500ms'
fsync = off
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub start
{
	my ($out, @sql) = @_;
	return IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), map { ('-c', $_) } @sql ], '>', $out, '2>&1');
}
sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', max_attempts => 1);
CREATE TABLE business (i int PRIMARY KEY, v int);
INSERT INTO business VALUES (1, 0);
));

# Sessions that each hold one of the keys for 20 ms, one after the other.
my $script = $node->basedir . '/hold.sql';
append_to_file($script, q(
\set k random(1, 500)
BEGIN;
SELECT event_queue.enqueue('q', 'n', unique_key => :k::text);
SELECT pg_sleep(0.02);
ROLLBACK;
));
my ($log, $out) = ('', '');
my $holders = IPC::Run::start([ 'pgbench', '-n', '-c', '12', '-T', '60', '-f', $script, $node->connstr('postgres') . ' application_name=pgbench' ], '>', \$log, '2>&1');
$node->poll_query_until('postgres', q(SELECT count(*) >= 12 FROM pg_stat_activity WHERE application_name = 'pgbench'))
	or die 'nobody holds keys';
my ($status, undef, $err) = $node->psql('postgres', q(
SET statement_timeout = '20s';
SELECT cardinality(event_queue.enqueue_many('q', (SELECT jsonb_agg(jsonb_build_object('name', 'n', 'unique_key', k)) FROM generate_series(1, 500) k)))),
	on_error_stop => 1);
is($err, '', 'enqueue_many comes to its end while others hold its keys');
# A retry of dead letters with such keys, too.
sql(q(
SELECT count(event_queue.fail(job_id, lease_token, 'no')) FROM event_queue.claim('q', 500);
));
is(sql(q(SELECT count(*) FROM event_queue.dead_letter)), '500', 'all are dead');
($status, undef, $err) = $node->psql('postgres', q(SET statement_timeout = '20s'; SELECT event_queue.retry_all_dead('q')));
is($err, '', 'retry_all_dead comes to its end while others hold its keys');
is(sql(q(SELECT count(*) >= 12 FROM pg_stat_activity WHERE application_name = 'pgbench')), 't', 'they still do');
sql(q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'));
$holders->finish;
is(sql(q(SELECT count(*) FROM event_queue.job)), '500', 'each job is there');

# One waits for the other's row, and has a key that the other wants.
for my $call (q(event_queue.enqueue_many('q', '[{"name": "n", "unique_key": "k"}]')),
	q(event_queue.enqueue_flow('q', '{"name": "f", "children": [{"name": "n", "unique_key": "k"}]}')))
{
	my ($first, $second) = ('', '');
	my $started = time;
	my $this = start(\$first, 'BEGIN', 'UPDATE business SET v = 2', q(SELECT pg_sleep(1.5)), "SELECT $call IS NOT NULL", 'COMMIT');
	my $other = start(\$second, 'BEGIN', q(SELECT event_queue.enqueue('q', 'n', unique_key => 'k') > 0), q(SELECT pg_sleep(0.5)),
		'UPDATE business SET v = 1', 'COMMIT');
	$_->finish for $this, $other;
	my $seconds = time - $started;
	like($first, qr/deadlock detected/, "a deadlock is told: $call");
	cmp_ok($seconds, '<', 6, 'and at once');
	unlike($second, qr/ERROR/, 'the other goes on');
	sql('DELETE FROM event_queue.job');
}
$node->stop;
done_testing();
