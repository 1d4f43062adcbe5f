# What the end of a session gives back, and what is written to the log.
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
is($node->safe_psql('postgres', 'SELECT array_agg(buckets) FROM event_queue.subscription_members()'), '{4,4}', 'two members share');
my $pid = $member[0]->query_safe('SELECT pg_backend_pid()');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 10000)");
is($node->safe_psql('postgres', 'SELECT members FROM event_queue.subscription_status'), '1', 'one is left');
is($member[1]->query_safe("SELECT count(*) FROM event_queue.fetch_events('team', 1000)"), '100', 'and has all that was not acknowledged');
is($node->safe_psql('postgres', 'SELECT array_agg(buckets) FROM event_queue.subscription_members()'), '{8}', 'and all buckets');
$member[1]->quit;
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.subscription_members()'), '0', 'until it ends, too');

# Attempts on history are refused, and leave a line in the log.
for my $sql ('UPDATE event_queue.event_store SET version = 2', 'DELETE FROM event_queue.event_store', 'TRUNCATE event_queue.event_store')
{
	my $offset = -s $node->logfile;
	my ($verb) = split / /, $sql;
	like(($node->psql('postgres', $sql))[2], qr/ERROR/, "$verb is refused");
	like(slurp_file($node->logfile, $offset), qr/LOG:  refused $verb of event_queue.event_store by role/, 'and logged');
}
$node->stop;
done_testing();
