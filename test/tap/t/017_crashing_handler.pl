# What ends a worker counts if the job did it, and does not if someone asked for it:
# a handler that takes the server down is a dead letter after max_stalled + 1 crashes,
# and a job that is interrupted by a planned end is given back as it was.
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
restart_after_crash = on
));
$node->start;

$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE z (t text);
CREATE TABLE done (t text);
CREATE FUNCTION kills(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN COPY public.z TO PROGRAM 'kill -9 $PPID'; PERFORM pg_sleep(5); END $$;
CREATE FUNCTION ends_itself(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); END $$;
CREATE FUNCTION ends_by_shell(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN COPY public.z TO PROGRAM 'kill -TERM $PPID'; PERFORM pg_sleep(5); END $$;
CREATE FUNCTION sleeps(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_sleep((j.payload ->> 's')::float8); INSERT INTO public.done VALUES (j.name); END $$;
SELECT event_queue.create_queue('q', lease => '5 min', max_stalled => 2);
SELECT event_queue.create_handler('q', 'kill', 'kills'), event_queue.create_handler('q', 'end', 'ends_itself'),
	event_queue.create_handler('q', 'shell', 'ends_by_shell'), event_queue.create_handler('q', 'sleep', 'sleeps');
));

# poll_query_until dies of a server that is in recovery.
sub wait_for
{
	my ($query) = @_;
	for (1 .. 300)
	{
		my ($status, $out) = $node->psql('postgres', $query);
		return 1 if defined $status && $status == 0 && ($out // '') eq 't';
		select(undef, undef, undef, 0.1);
	}
	return 0;
}

sub counts
{
	my ($job) = @_;
	return $node->safe_psql('postgres', "SELECT failures, stalled FROM event_queue.job WHERE job_id = $job");
}

for my $name (qw(kill end shell))
{
	my $offset = -s $node->logfile;
	my $job = $node->safe_psql('postgres', "SELECT event_queue.enqueue('q', '$name')");
	ok(wait_for("SELECT count(*) = 1 FROM event_queue.dead_letter WHERE job_id = $job"), "$name: the job is a dead letter");
	is($node->safe_psql('postgres', "SELECT reason, failures, stalled FROM event_queue.dead_letter WHERE job_id = $job"),
		'stalled|0|3', "$name: it stalled three times");
	my $log = substr(slurp_file($node->logfile), $offset);
	my $end = $name eq 'kill'
		? qr/background worker "event_queue executor" \(PID \d+\) was terminated by signal 9/
		: qr/FATAL:  terminating background worker "event_queue executor"/;
	my $ends = () = $log =~ /$end/g;
	is($ends, 3, "$name: after exactly max_stalled + 1 ends");
}

# Planned ends.
my $job = $node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'sleep', '{"s": 2}')));
my $running = "SELECT count(*) = 1 FROM event_queue.workers() WHERE current_job = $job";
for my $round (1 .. 4)
{
	ok(wait_for($running), 'the job runs');
	$node->restart;
	is(counts($job), '0|0', "a restart counts nothing ($round)");
}
for my $round (1 .. 4)
{
	ok(wait_for($running), 'the job runs');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM event_queue.workers() WHERE current_job = $job");
	is(counts($job), '0|0', "pg_terminate_backend by another session counts nothing ($round)");
}
ok(wait_for($running), 'the job runs');
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
ok(wait_for("SELECT count(*) = 1 FROM done"), 'the job is done in the end');
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.dead_letter WHERE job_id = $job"), '0', 'and no dead letter');

# Fewer executors: the jobs in hand are finished, and none is held back.  (There may be one
# that stands in yet, and takes one at the same time as the other.)
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'sleep', '{"s": 2}') FROM generate_series(1, 3)));
ok(wait_for('SELECT count(*) >= 1 FROM event_queue.workers() WHERE current_job IS NOT NULL'), 'a job runs');
$node->append_conf('postgresql.conf', 'event_queue.executors = 0');
$node->reload;
ok(wait_for("SELECT count(*) = 0 FROM event_queue.workers() WHERE kind IN ('executor', 'stand-in')"), 'the executor ends');
like($node->safe_psql('postgres', q(SELECT count(*), sum(failures), sum(stalled), count(leased_until) FROM event_queue.job)), qr/^[12]\|0\|0\|0$/,
	'the others wait as they were');
$node->append_conf('postgresql.conf', 'event_queue.executors = 1');
$node->reload;
ok(wait_for('SELECT count(*) = 4 FROM done'), 'and are done later');

# A session that ends by itself gives back what is bound to it, however often.
$node->safe_psql('postgres', q(SELECT event_queue.create_queue('outside', max_stalled => 2), event_queue.enqueue('outside', 'x')));
for my $round (1 .. 4)
{
	is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.claim('outside', session_bound => true))), '1', "claimed ($round)");
	ok(wait_for(q(SELECT leased_until IS NULL OR leased_until <= clock_timestamp() FROM event_queue.job WHERE name = 'x')), 'given back');
}
is($node->safe_psql('postgres', q(SELECT failures, stalled FROM event_queue.job WHERE name = 'x')), '0|0', 'nothing is counted');

# From a shell, by an operator.
my $long = $node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'sleep', '{"s": 600}')));
ok(wait_for("SELECT count(*) = 1 FROM event_queue.workers() WHERE current_job = $long"), 'the job runs');
my $executor = $node->safe_psql('postgres', "SELECT pid FROM event_queue.workers() WHERE current_job = $long");
kill 'TERM', $executor;
ok(wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $executor)"), 'the executor ends');
is(counts($long), '0|0', "an operator's kill counts nothing");
ok(wait_for("SELECT count(*) = 1 FROM event_queue.workers() WHERE current_job = $long"), 'the job runs again');
$node->safe_psql('postgres', "SELECT event_queue.cancel_job($long)");
ok(wait_for("SELECT count(*) = 0 FROM event_queue.workers() WHERE current_job = $long"), 'it is cancelled');

$node->stop;
done_testing();
