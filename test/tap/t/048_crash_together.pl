# A job that takes the server down is counted, and none of those that its executor had in
# hand with it, or had done in the same transaction; nor is any of them lost, or done twice.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueCrash;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 1
event_queue.handler_batch_time = 100
restart_after_crash = on
));
$node->start;

$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE z (t text);
CREATE TABLE done (job_id bigint, xid xid8 DEFAULT pg_current_xact_id());
CREATE FUNCTION end_it(how text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF how = 'kill' THEN
		COPY public.z TO PROGRAM 'kill -9 $PPID';
		PERFORM pg_sleep(5);
	ELSIF how = 'end' THEN
		PERFORM pg_terminate_backend(pg_backend_pid());
		PERFORM pg_sleep(5);
	END IF;
END $$;
CREATE FUNCTION handle(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done VALUES (j.job_id);
	PERFORM public.end_it(j.name);
END $$;
CREATE FUNCTION handle_many(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done SELECT job_id FROM unnest(jobs);
	PERFORM public.end_it(name) FROM unnest(jobs) WHERE name <> 'quick';
END $$;
SELECT event_queue.create_queue('q', lease => '5 min', max_stalled => 2, keep_completed => '1 day');
SELECT event_queue.create_queue('many', lease => '5 min', max_stalled => 2, keep_completed => '1 day');
SELECT event_queue.create_handler('q', '*', 'handle'), event_queue.create_handler('many', '*', 'handle_many', batch_size => 50);
));

# How long the handler takes is known then.
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'quick') FROM generate_series(1, 100)));
ok(wait_for($node, 'SELECT count(*) = 100 FROM done'), 'the executor knows the handler');

for my $case (['q', 'kill', 0], ['q', 'end', 0], ['many', 'kill', 1], ['many', 'end', 1])
{
	my ($queue, $how, $most) = @$case;
	my $offset = -s $node->logfile;

	$node->safe_psql('postgres', qq(
		BEGIN;
		TRUNCATE done;
		DELETE FROM event_queue.job_history;
		SELECT event_queue.enqueue('$queue', CASE WHEN g = 25 THEN '$how' ELSE 'quick' END) FROM generate_series(1, 60) g;
		COMMIT;));
	ok(wait_for($node, "SELECT count(*) = 59 FROM done"), "$queue, $how: the others are done");
	ok(wait_for($node, "SELECT count(*) = 1 FROM event_queue.dead_letters WHERE name = '$how' AND queue = '$queue'"), 'the job is a dead letter');
	is($node->safe_psql('postgres', "SELECT reason, failures, stalled FROM event_queue.dead_letters WHERE name = '$how' AND queue = '$queue'"),
		'stalled|0|3', 'it stalled three times');
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT job_id) FROM done'), '59|59', 'each of the others ran to its end once');
	is($node->safe_psql('postgres', "SELECT count(*), coalesce(max(stalled), -1) <= $most, max(failures) FROM event_queue.job_history"), '59|t|0',
		$most ? 'those of the same call stalled once at most' : 'none of them is counted');
	my $log = substr(slurp_file($node->logfile), $offset);
	my $end = $how eq 'kill'
		? qr/background worker "event_queue executor" \(PID \d+\) was terminated by signal 9/
		: qr/FATAL:  terminating background worker "event_queue executor"/;
	my $ends = () = $log =~ /$end/g;
	is($ends, 3, 'after exactly max_stalled + 1 ends');
}

# What a job cancels or deletes does not run, though its executor has it in hand.
$node->safe_psql('postgres', q(
CREATE FUNCTION cancel_others(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done VALUES ((job.payload ->> 'n')::bigint);
	IF job.payload ? 'cancel' THEN
		PERFORM event_queue.cancel_job(j.job_id) FROM event_queue.jobs j WHERE j.payload -> 'n' = job.payload -> 'cancel';
		PERFORM event_queue.drop_handler('other', 'other');
	END IF;
	IF job.payload ? 'delete' THEN
		DELETE FROM event_queue.job j WHERE j.payload -> 'n' = job.payload -> 'delete';
	END IF;
END
$$;
SELECT event_queue.create_queue('other'), event_queue.create_handler('other', 'other', 'handle'), event_queue.create_handler('q', 'cancel', 'cancel_others');
TRUNCATE done;
SELECT event_queue.enqueue('q', 'cancel', '{"n": 0}') FROM generate_series(1, 100);
));
ok(wait_for($node, 'SELECT count(*) = 100 FROM done'), 'the executor knows the handler');
$node->safe_psql('postgres', q(
TRUNCATE done;
SELECT event_queue.pause_queue('q');
SELECT event_queue.enqueue('q', 'cancel', jsonb_build_object('n', g)
	|| CASE g WHEN 35 THEN '{"cancel": 39}'::jsonb WHEN 36 THEN '{"delete": 40}' ELSE '{}' END) FROM generate_series(1, 60) g;
SELECT event_queue.resume_queue('q');
));
ok(wait_for($node, "SELECT NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'q')"), 'nothing is left');
is($node->safe_psql('postgres', 'SELECT count(*), count(*) FILTER (WHERE job_id IN (39, 40)) FROM done'), '58|0',
	'what was cancelled or deleted did not run');
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.dead_letters WHERE name = 'cancel' AND payload ->> 'n' <> '39'"), '0',
	'and nothing else failed');

# The server is away for longer than the lease: the leases have run out, and still only
# the job that ran is counted.
$node->safe_psql('postgres', q(SELECT event_queue.alter_queue('q', lease => '2 seconds')));
$node->append_conf('postgresql.conf', 'restart_after_crash = off');
$node->restart;
ok(wait_for($node, q(SELECT count(*) = 1 FROM event_queue.workers() WHERE kind = 'executor')), 'the executor is back');
$node->safe_psql('postgres', q(
	TRUNCATE done;
	SELECT event_queue.enqueue('q', 'quick') FROM generate_series(1, 100)));
ok(wait_for($node, 'SELECT count(*) = 100 FROM done'), 'it knows the handler');
$node->safe_psql('postgres', q(
	BEGIN;
	TRUNCATE done;
	DELETE FROM event_queue.job_history;
	SELECT event_queue.enqueue('q', CASE WHEN g = 25 THEN 'kill' ELSE 'quick' END) FROM generate_series(1, 60) g;
	COMMIT;));
for (1 .. 300)
{
	# It dies where psql ends before it has read the query (wait_for in EventQueueCrash.pm).
	last if slurp_file($node->logfile) =~ /restart_after_crash is off/ && (eval { $node->psql('postgres', 'SELECT 1') } // 1) != 0;
	select(undef, undef, undef, 0.1);
}
sleep 3;
unlink $node->data_dir . '/postmaster.pid';
$node->{_pid} = undef;
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
start_again($node);
ok(wait_for($node, 'SELECT count(*) = 59 FROM done'), 'after a longer time: the others are done');
is($node->safe_psql('postgres', 'SELECT count(*), max(stalled) FROM event_queue.job_history'), '59|0', 'and none of them is counted');

done_testing();
