# Handlers in trouble: one says that its whole queue has to wait; the failure of one can't be
# recorded; the owner of one is dropped in the middle of a batch; the server stops there; one
# writes by dblink; transactions of a batch conflict.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 2
event_queue.handler_batch_time = '1s'
));
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub soon {
	my ($condition, $name) = @_;
	ok($node->poll_query_until('postgres', "SELECT $condition"), $name)
	  or diag(sql(q(SELECT job_id, queue, name, state, failures, last_error FROM event_queue.all_jobs)), sql('SELECT * FROM event_queue.faults()'));
}

sql(q(
CREATE EXTENSION event_queue;
CREATE TABLE did (n int, at timestamptz DEFAULT clock_timestamp());
));

# A provider says 429 once: of jobs that wait, and of those that executors have in hand, none
# runs before its time; no attempt is counted, and other queues go on.
sql(q(
CREATE TABLE open_again (at timestamptz);
CREATE FUNCTION provider(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF job.payload ->> 'n' = '5' AND NOT EXISTS (SELECT FROM public.open_again WHERE clock_timestamp() > at) THEN
		PERFORM event_queue.postpone_queue('3 seconds', 'too many requests');
	END IF;
	INSERT INTO public.did VALUES ((job.payload ->> 'n')::int);
END $$;
SELECT event_queue.create_queue(q, keep_completed => '1 hour'), event_queue.create_handler(q, '*', 'provider') FROM unnest('{provider,other}'::text[]) q;
SELECT event_queue.pause_queue('provider');
SELECT event_queue.enqueue('provider', 'send', jsonb_build_object('n', n)) FROM generate_series(1, 200) n;
INSERT INTO open_again VALUES (clock_timestamp() + '2 seconds');
SELECT event_queue.resume_queue('provider');
));
soon(q(held_until IS NOT NULL FROM event_queue.queue_limits('provider')), 'the queue is held');
sql(q(SELECT event_queue.enqueue('other', 'send', '{"n": 1000}')));
soon('EXISTS (SELECT FROM did WHERE n = 1000)', 'another queue is not');
soon('(SELECT count(DISTINCT n) = 200 FROM did WHERE n <= 200)', 'all is done at last');
is(sql('SELECT count(*) FROM did WHERE n <= 200'), '200', 'once each');
is(sql(q(SELECT max(gap) > '2 s' FROM (SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM did WHERE n <= 200) x)), 't', 'nothing was done for a while');
is(sql(q(SELECT count(*), max(failures) FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'provider')), '200|0', 'and that is no failure');

# The failure of a job can't be recorded, as someone has locked the dead letters: it is not left to its lease.
sql(q(
CREATE FUNCTION gives_up(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ SELECT event_queue.give_up_job('never') $$;
SELECT event_queue.create_queue('long', lease => '1 hour'), event_queue.create_handler('long', '*', 'gives_up');
));
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE event_queue.dead_letter IN ACCESS EXCLUSIVE MODE');
sql(q(SELECT event_queue.enqueue('long', 'x')));
soon(q(EXISTS (SELECT FROM event_queue.faults() WHERE what = 'failures of handler')), 'that the failure can not be recorded is a fault');
$locker->query_safe('COMMIT');
$locker->quit;
soon(q(EXISTS (SELECT FROM event_queue.dead_letters WHERE queue = 'long' AND last_error = 'never')), 'it is, when that can be done, long before the lease is over');
soon(q(NOT EXISTS (SELECT FROM event_queue.faults() WHERE what = 'failures of handler')), 'and the fault is over');

# The owner of a handler is dropped while a batch runs; it can't be called any more: its jobs wait, and go
# on when someone has it again.  (What runs ends: DROP ROLE does not wait for it.)
sql(q(
CREATE ROLE leaver;
SELECT event_queue.grant_admin('leaver');
CREATE SCHEMA leaver AUTHORIZATION leaver;
GRANT ALL ON SCHEMA leaver TO PUBLIC;
GRANT ALL ON did TO PUBLIC;
SET ROLE leaver;
CREATE FUNCTION leaver.work(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
	PERFORM pg_sleep(0.05);
	INSERT INTO public.did VALUES (2000 + (job.payload ->> 'n')::int);
END $$;
RESET ROLE;
SELECT event_queue.create_queue('leaver');
SET ROLE leaver;
SELECT event_queue.create_handler('leaver', '*', 'leaver.work');
RESET ROLE;
SELECT event_queue.enqueue('leaver', 'x', jsonb_build_object('n', n)) FROM generate_series(1, 100) n;
));
soon('EXISTS (SELECT FROM did WHERE n > 2000)', 'a batch has begun');
sql(q(
ALTER FUNCTION leaver.work(event_queue.claimed_job) OWNER TO postgres; ALTER SCHEMA leaver OWNER TO postgres;
SELECT event_queue.revoke_access('leaver');
DROP OWNED BY leaver;
DROP ROLE leaver;
)) if sql('SELECT current_user') eq 'postgres';
soon(q(EXISTS (SELECT FROM event_queue.faults() WHERE what = 'handler' AND item LIKE '%leaver%')), 'the handler without its owner is a fault');
is(sql(q(SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'leaver')), '0', 'no job is dead of it');
sql(q(SELECT event_queue.create_handler('leaver', '*', 'leaver.work', or_replace => true)));
soon('(SELECT count(DISTINCT n) = 100 FROM did WHERE n > 2000 AND n < 3000)', 'all is done when someone has it');
is(sql('SELECT count(*) FROM did WHERE n > 2000 AND n < 3000'), '100', 'once each');

# The server is stopped in the middle of a batch: what was not committed is done once, after the start, and nothing counted.
sql(q(
CREATE FUNCTION slowly(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.did VALUES (3000 + (job.payload ->> 'n')::int);
	PERFORM pg_sleep(0.02);
END $$;
SELECT event_queue.create_queue('slowly', keep_completed => '1 hour', lease => '1 hour'), event_queue.create_handler('slowly', '*', 'slowly');
SELECT event_queue.enqueue('slowly', 'x', jsonb_build_object('n', n)) FROM generate_series(1, 200) n;
));
soon('(SELECT count(*) > 20 FROM did WHERE n > 3000)', 'batches run');
$node->stop('fast');
$node->start;
soon('(SELECT count(DISTINCT n) = 200 FROM did WHERE n > 3000 AND n < 4000)', 'after the stop all is done');
is(sql(q(SELECT count(*), max(failures), max(stalled) FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'slowly')), '200|0|0', 'once each, and nothing is counted');

# dblink in a handler: what it does there stays, whatever becomes of the job (give it a key of its own).
SKIP: {
	skip 'dblink is not installed', 2 unless sql(q(SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'));
	my $port = $node->port;
	my $host = $node->host;

	sql(qq(
CREATE EXTENSION dblink;
CREATE TABLE elsewhere (n int, attempt int);
CREATE FUNCTION by_dblink(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM public.dblink_exec('host=$host port=$port dbname=postgres', format('INSERT INTO public.elsewhere VALUES (%s, %s)', job.payload ->> 'n', job.attempt));
	INSERT INTO public.did VALUES (4000 + (job.payload ->> 'n')::int);
	IF job.payload ->> 'n' = '3' AND job.attempt = 1 THEN
		RAISE EXCEPTION 'not this time';
	END IF;
END \$\$;
SELECT event_queue.create_queue('dblink', keep_completed => '1 hour', backoff => 'fixed', backoff_delay => '10 ms'), event_queue.create_handler('dblink', '*', 'by_dblink');
SELECT event_queue.enqueue('dblink', 'x', jsonb_build_object('n', n)) FROM generate_series(1, 5) n;
));
	soon('(SELECT count(*) = 5 FROM did WHERE n > 4000)', 'handlers write by dblink');
	is(sql('SELECT n, count(*) FROM elsewhere GROUP BY 1 HAVING count(*) > 1'), '3|2', 'what failed has written twice there');
}

# Transactions that read what others write, serializable: conflicts are real, and no sum is wrong.
$node->append_conf('postgresql.conf', qq(
default_transaction_isolation = 'serializable'
event_queue.executors = 4
));
$node->restart;
sql(q(
CREATE TABLE total (n int PRIMARY KEY, seen bigint);
CREATE FUNCTION counts(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	seen bigint := (SELECT count(*) FROM public.total);
BEGIN
	PERFORM pg_sleep(0.005);
	INSERT INTO public.total VALUES ((job.payload ->> 'n')::int, seen);
END $$;
SELECT event_queue.create_queue('counts', max_attempts => 100, backoff => 'fixed', backoff_delay => '10 ms', keep_completed => '1 hour'), event_queue.create_handler('counts', '*', 'counts');
SELECT event_queue.enqueue('counts', 'x', jsonb_build_object('n', n)) FROM generate_series(1, 60) n;
));
soon(q((SELECT count(*) = 60 FROM total) AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'counts')), 'all is done');
# As if one after the other: each saw another number of those before it.
is(sql('SELECT count(DISTINCT seen), min(seen), max(seen) FROM total'), '60|0|59', 'as one after the other');
cmp_ok(sql(q(SELECT sum(failures) FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'counts')), '>', 0, 'there were conflicts');

# The workers' own transactions are not: they read and write what all others do, and would fail.
sql(q(
CREATE TABLE sent (n int);
CREATE FUNCTION nothing(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT event_queue.create_queue('keyed', keep_completed => '1 hour'), event_queue.create_handler('keyed', '*', 'nothing'),
	event_queue.create_rule('keyed', 'keyed.*', queue => 'keyed', job_name => 'by rule');
));
my $script = PostgreSQL::Test::Utils::tempdir() . '/keyed.sql';
append_to_file($script, q(BEGIN;
INSERT INTO sent SELECT 1 FROM event_queue.enqueue('keyed', 'k', group_key => (random() * 5)::int::text), event_queue.append('keyed', (random() * 100000)::int::text, 'keyed.x');
END;
));
my $said = -s $node->logfile;
PostgreSQL::Test::Utils::run_log([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 4, '-t', 150, '-f', $script, 'postgres' ]);
soon(q((SELECT count(*) FROM event_queue.history WHERE queue = 'keyed' AND name = 'k') = (SELECT count(*) FROM sent)
	AND (SELECT count(*) FROM event_queue.history WHERE queue = 'keyed' AND name = 'by rule') = (SELECT count(*) FROM sent)), 'groups and rules go on');
cmp_ok(sql('SELECT count(*) FROM sent'), '>', 0, 'as there were some');
unlike(slurp_file($node->logfile, $said), qr/fails: could not serialize/, 'no chore, group or queue has failed');

$node->stop;
done_testing();
