# Workers live for months: nothing that they do again and again keeps memory.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 1
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE SEQUENCE done;
CREATE FUNCTION work(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ SELECT nextval('public.done'), pg_sleep(0.001) $$;
SELECT event_queue.create_queue('q');
SELECT event_queue.create_handler('q', '*', 'work');
));

sub pid_of
{
	my $type = shift;
	# the first one: others may stand in for an executor
	my $query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_queue $type' ORDER BY backend_start LIMIT 1";
	ok($node->poll_query_until('postgres', "SELECT ($query) IS NOT NULL"), "the $type is there");
	return $node->safe_psql('postgres', $query);
}

# what a process uses, in a context or in all
sub memory_of
{
	my ($pid, $context) = @_;
	my $begin = -s $node->logfile;
	my $line = $context ? qr/\[$pid\].*level: \d+; $context: .*; (\d+) used/ : qr/\[$pid\].*Grand total: .*; (\d+) used/;
	$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($pid)");
	$node->wait_for_log(qr/\[$pid\].*Grand total/, $begin);
	return slurp_file($node->logfile, $begin) =~ $line ? $1 : undef;
}

# An executor at work reads the handlers again whenever the configuration changes.
$node->safe_psql('postgres', q(SELECT count(event_queue.enqueue('q', 'j')) FROM generate_series(1, 50000)));
my $executor = pid_of('executor');

sub change_configuration
{
	for my $i (1 .. shift)
	{
		my $done = $node->safe_psql('postgres', qq(SELECT event_queue.alter_queue('q', max_attempts => 3 + $i % 2); SELECT last_value FROM done));
		$done =~ s/.*\n//s;
		# one hand is at most 50 jobs
		$node->poll_query_until('postgres', "SELECT last_value > $done + 60 FROM done") or die 'no job was done';
	}
}
change_configuration(5);
my $before = memory_of($executor, 'TopMemoryContext');
change_configuration(40);
my $kept = memory_of($executor, 'TopMemoryContext') - $before;
note("$kept bytes");
cmp_ok($kept, '<', 16 * 1024, 'an executor keeps nothing of a change of the configuration');
is($node->safe_psql('postgres', q(SELECT count(*) > 0 FROM event_queue.job)), 't', 'it was at work all the time');
is(pid_of('executor'), $executor, 'and is the same');
$node->safe_psql('postgres', q(SELECT event_queue.purge_queue('q')));

# A scheduler that can't write its samples tries again, at once when the configuration changes.
# A new one takes them first of all.
$node->safe_psql('postgres', q(ALTER TABLE event_queue_internal.metric_hour ADD CONSTRAINT refused CHECK (kind IS NULL) NOT VALID));
$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid, 180000) FROM pg_stat_activity WHERE backend_type = 'event_queue scheduler'));
my $failures = q(SELECT coalesce(max(failures), 0) FROM event_queue.faults() WHERE item = 'samples of metrics');

sub fail_again
{
	for my $i (1 .. shift)
	{
		my $n = $node->safe_psql('postgres', $failures);
		$node->safe_psql('postgres', "SELECT event_queue.alter_queue('q', max_attempts => 3 + $i % 2)");
		$node->poll_query_until('postgres', "SELECT ($failures) > $n") or die 'it did not try again';
	}
}
ok($node->poll_query_until('postgres', "SELECT ($failures) > 0"), 'samples fail');
my $scheduler = pid_of('scheduler');
fail_again(10);
$before = memory_of($scheduler);
fail_again(20);
cmp_ok(memory_of($scheduler) - $before, '<', 20 * 20 * 1024, 'a scheduler keeps nothing of a chore that fails');
is(pid_of('scheduler'), $scheduler, 'and is the same');
$node->stop;
done_testing();
