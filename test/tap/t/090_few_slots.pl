# Too few background workers for the databases: said once, seen in health(), and over when some
# are free, without a restart.  And workers that are just being started do not stand in the way
# of statements that need their database empty.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The server's own launcher and ours, and three more.
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 5
event_queue.executors = 2
fsync = off
));
$node->start;

sub comes { my ($db, $sql, $what) = @_; ok($node->poll_query_until($db, $sql), $what); }
sub configure { $node->append_conf('postgresql.conf', $_[0]); $node->reload; }

$node->safe_psql('postgres', 'CREATE EXTENSION event_queue');
comes('postgres', 'SELECT count(*) = 3 FROM event_queue.workers()', 'the first database has its workers');
$node->safe_psql('postgres', 'CREATE DATABASE later');
$node->safe_psql('later', q(CREATE EXTENSION event_queue;
	CREATE TABLE seen (job_id bigint);
	CREATE FUNCTION h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (job.job_id)';
	SELECT event_queue.create_queue('q'), event_queue.create_handler('q', '*', 'h'), event_queue.enqueue('q', 'j')));
my $warning = qr/no free background worker for the scheduler of database/;
$node->wait_for_log($warning);
comes('later', q(SELECT count(*) = 1 FROM event_queue.health() WHERE NOT ok AND check_name = 'scheduler' AND hint LIKE '%max_worker_processes%'), 'health() of the second one says it');

configure('event_queue.executors = 1');
comes('later', q(SELECT count(*) = 1 FROM event_queue.faults() WHERE sqlstate = '53400' AND item = 'start of executor 0'), 'its scheduler has the place that came free, and none for an executor');
is(scalar(() = slurp_file($node->logfile) =~ /$warning/g), 1, 'the log has it once');
$node->safe_psql('postgres', 'DROP EXTENSION event_queue CASCADE');
comes('later', 'SELECT count(*) = 1 FROM seen', 'when the first one gives its places back, the job runs');
comes('later', 'SELECT count(*) = 0 FROM event_queue.faults()', 'and the fault is over');

configure('event_queue.executors = 20');
comes('later', q(SELECT count(*) >= 17 FROM event_queue.faults() WHERE item LIKE 'start of executor %'), 'more executors are wanted than there is room for');
configure('event_queue.executors = 1');
comes('later', 'SELECT count(*) = 0 FROM event_queue.faults()', 'who is not wanted any more is not missing');

# at moments when the launcher starts the scheduler, or that its executors
my @names = ('later', 'latest');
my $renames = '';
for my $i (0 .. 39)
{
	$renames .= sprintf("ALTER DATABASE %s RENAME TO %s;\nSELECT pg_sleep(%.3f);\n", @names, $i * 3 % 40 / 1000);
	@names = reverse @names;
}
my ($status, $out, $err) = $node->psql('postgres', $renames, on_error_stop => 1);
is($err, '', 'a database is renamed again and again, while its workers come back');
comes('later', 'SELECT count(*) = 2 FROM event_queue.workers()', 'and they are there in the end');
$node->stop;
done_testing();
