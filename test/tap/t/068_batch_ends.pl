# Jobs that an executor has in hand with others: one that is cancelled, deleted or slow costs
# the others nothing; each finds the session as new; and an interrupt loses no claim.
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
# launcher, scheduler, executor: none can stand in for it while a call takes long
max_worker_processes = 3
max_logical_replication_workers = 0
event_queue.handler_batch_time = 100
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (n int, cardinality int, note text, xid xid8 DEFAULT pg_current_xact_id());
CREATE SEQUENCE calls;
CREATE VIEW dead AS SELECT (payload ->> 'n')::int AS n, reason, errors -> -1 ->> 'sqlstate' AS sqlstate FROM event_queue.dead_letters;
CREATE FUNCTION many(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	job event_queue.claimed_job;
BEGIN
	PERFORM nextval('public.calls');
	INSERT INTO public.done SELECT (j.payload ->> 'n')::int, cardinality(jobs) FROM unnest(jobs) j;
	FOREACH job IN ARRAY jobs LOOP
		IF job.payload ? 'sleep' THEN
			PERFORM pg_sleep(60);
		ELSIF job.payload ? 'catch' THEN
			BEGIN
				PERFORM pg_sleep(60);
			EXCEPTION WHEN query_canceled THEN
			END;
		END IF;
	END LOOP;
END $$;
CREATE FUNCTION one(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('public.calls');
	INSERT INTO public.done VALUES ((job.payload ->> 'n')::int, 1);
	PERFORM pg_sleep((job.payload ->> 's')::float8) WHERE job.payload ? 's';
END $$;
SELECT event_queue.create_queue('many', lease => '2 min', max_attempts => 1), event_queue.create_handler('many', '*', 'many', batch_size => 100);
SELECT event_queue.create_queue('one', lease => '2 min', max_attempts => 1), event_queue.create_handler('one', '*', 'one');
));
my $nothing_is_left = 'SELECT NOT EXISTS (SELECT FROM event_queue.job)';

# Enqueues 20 jobs, for the 7th one what is given, and waits until their call sleeps.
sub start_call
{
	my ($queue, $what) = @_;

	$node->safe_psql('postgres', qq(
		TRUNCATE done;
		SELECT event_queue.enqueue('$queue', 'job', jsonb_build_object('n', g) || CASE g WHEN 7 THEN '$what' ELSE '{}' END::jsonb)
		FROM generate_series(1, 20) g));
	ok(wait_for($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type LIKE 'event_queue exec%')),
		'the call sleeps');
}

# One of an array is cancelled: the call ends; that one is a dead letter, the others are
# called for again, together, though the handler would catch it.
for my $what ('sleep', 'catch')
{
	start_call('many', qq({"$what": 1}));
	$node->safe_psql('postgres', q(SELECT event_queue.cancel_job(job_id) FROM event_queue.jobs WHERE payload ->> 'n' = '7'));
	ok(wait_for($node, $nothing_is_left), "$what: the call ends when one of its jobs is cancelled");
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT n), count(*) FILTER (WHERE n = 7) FROM done'), '19|19|0', 'the others are done once');
	is($node->safe_psql('postgres', 'SELECT count(*), min(n), min(sqlstate) FROM dead'), '1|7|EQ033', 'and it is a dead letter');
	$node->safe_psql('postgres', q(SELECT event_queue.discard_all_dead('many')));
}

# Another one of it is deleted: the others end once, in few calls.
$node->safe_psql('postgres', q(SELECT setval('calls', 1)));
start_call('many', '{"catch": 1}');
$node->safe_psql('postgres', q(DELETE FROM event_queue.job WHERE payload ->> 'n' = '9';
	SELECT pg_cancel_backend(pid) FROM event_queue.workers() WHERE kind = 'executor'));
ok(wait_for($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type LIKE 'event_queue exec%' AND (SELECT last_value > 2 FROM calls))), 'the call is made again');
$node->safe_psql('postgres', q(SELECT pg_cancel_backend(pid) FROM event_queue.workers() WHERE kind = 'executor'));
ok(wait_for($node, $nothing_is_left), 'it ends');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT n), count(*) FILTER (WHERE n = 9) FROM done'), '19|19|0', 'a deleted one is not done, the others are once');
is($node->safe_psql('postgres', q(SELECT count(*) FROM dead)), '0', 'nothing failed');
cmp_ok($node->safe_psql('postgres', q(SELECT last_value - 1 FROM calls)), '<=', 4, 'they were not called for one by one');

# A job that is deleted while it runs is no error of the executor's.
my $log = -s $node->logfile;
$node->safe_psql('postgres', q(TRUNCATE done; SELECT event_queue.enqueue('one', 'job', '{"n": 1, "s": 1}')));
ok(wait_for($node, q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type LIKE 'event_queue exec%')), 'it runs');
$node->safe_psql('postgres', q(DELETE FROM event_queue.job; SELECT event_queue.enqueue('one', 'job', '{"n": 2}')));
ok(wait_for($node, 'SELECT count(*) = 1 FROM done WHERE n = 2'), 'the next one runs');
is($node->safe_psql('postgres', 'SELECT count(*) FROM done WHERE n = 1'), '0', 'what it did is undone');
unlike(slurp_file($node->logfile, $log), qr/ERROR:  lease of job/, 'the executor has met no error');

# The executor knows the handler then.
sub learn
{
	my ($queue, $name) = @_;

	$node->safe_psql('postgres', qq(TRUNCATE done; SELECT event_queue.enqueue('$queue', '$name', '{"n": 0}') FROM generate_series(1, 200)));
	ok(wait_for($node, 'SELECT count(*) = 200 FROM done'), "the executor knows handler $name");
	$node->safe_psql('postgres', 'TRUNCATE done');
}

# A transaction fails; of those that then run alone one is cancelled, one deleted by the first.
$log = -s $node->logfile;
$node->safe_psql('postgres', q(
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.note = ''refuse'' THEN RAISE ''no''; END IF; RETURN NULL; END';
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON done DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE FUNCTION stopper(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done VALUES ((job.payload ->> 'n')::int, 1, job.payload ->> 'note');
	IF job.payload ->> 'n' = '1' THEN
		PERFORM event_queue.cancel_job(j.job_id) FROM event_queue.jobs j WHERE j.payload ->> 'n' = '2';
		DELETE FROM event_queue.job WHERE payload ->> 'n' = '3';
	END IF;
END $$;
SELECT event_queue.create_handler('one', 'stopper', 'stopper')));
learn('one', 'stopper');
$node->safe_psql('postgres', q(
	SELECT event_queue.enqueue('one', 'stopper', jsonb_build_object('n', g, 'note', CASE g WHEN 4 THEN 'refuse' END)) FROM generate_series(1, 6) g));
ok(wait_for($node, $nothing_is_left), 'they are settled');
is($node->safe_psql('postgres', q(SELECT string_agg(n::text, ' ' ORDER BY n) FROM done)), '1 5 6', 'those that were cancelled or deleted did not run alone');
is($node->safe_psql('postgres', q(SELECT string_agg(n || ' ' || sqlstate, ',' ORDER BY n) FROM dead)), '2 EQ033,4 P0001', 'and these are dead letters');
unlike(slurp_file($node->logfile, $log), qr/ERROR:  lease of job/, 'the executor has met no error');

# What a job leaves in the session is gone before the next one in the same transaction.
$node->safe_psql('postgres', q(
CREATE FUNCTION leave(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	found text := concat_ws(' ',
		(SELECT 'cursor' FROM pg_cursors WHERE name = 'held'),
		CASE WHEN current_setting('search_path') = 'public' THEN 'path' END,
		CASE WHEN current_setting('work_mem') = '123kB' THEN 'setting' END,
		CASE WHEN current_setting('statement_timeout') = '1h' THEN 'timeout' END,
		CASE WHEN current_setting('application_name') = 'mine' THEN 'name' END);
BEGIN
	BEGIN
		PERFORM loread(0, 1);
		found := concat_ws(' ', found, 'large object');
	EXCEPTION WHEN undefined_object THEN
	END;
	INSERT INTO public.done VALUES ((job.payload ->> 'n')::int, 1, found);
	EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT 1';
	PERFORM lo_open((SELECT oid FROM pg_largeobject_metadata LIMIT 1), 262144);
	SET search_path = public;
	SET work_mem = '123kB';
	SET statement_timeout = '1h';
	SET application_name = 'mine';
END $$;
SELECT lo_create(0) > 0, event_queue.create_handler('one', 'leave', 'leave')));
learn('one', 'leave');
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('one', 'leave', jsonb_build_object('n', g)) FROM generate_series(1, 60) g));
ok(wait_for($node, $nothing_is_left), 'they are settled');
is($node->safe_psql('postgres', q(SELECT note, count(*), count(DISTINCT xid) < 60 FROM done GROUP BY note)), '|60|t', 'each finds the session as new');

# A handler that takes long, of the same queue, does not have the others come one by one.
$node->safe_psql('postgres', q(
CREATE FUNCTION slow(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done VALUES ((job.payload ->> 'n')::int, 1);
	PERFORM pg_sleep(0.15);
END $$;
SELECT event_queue.create_queue('mixed'), event_queue.create_handler('mixed', 'slow', 'slow'), event_queue.create_handler('mixed', '*', 'one');
SELECT event_queue.enqueue('mixed', 'slow', '{"n": 0}') FROM generate_series(1, 3);
));
ok(wait_for($node, $nothing_is_left), 'the executor knows the slow one');
learn('mixed', 'quick');
$node->safe_psql('postgres', q(SELECT setval('calls', 1);
	SELECT event_queue.enqueue('mixed', CASE WHEN g % 100 = 50 THEN 'slow' ELSE 'quick' END, jsonb_build_object('n', g)) FROM generate_series(1, 300) g));
ok(wait_for($node, $nothing_is_left), 'they are settled');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT n), count(DISTINCT xid) < 100 FROM done'), '300|t', 'several in one transaction');
is($node->safe_psql('postgres', q(SELECT nextval('calls') - 2)), '297', 'and none is called twice');

# Someone cancels whatever the executor does, all the time: what it has claimed runs.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue('cancelled', lease => '25 s', max_attempts => 1000, backoff => 'fixed', backoff_delay => '10 ms', keep_completed => '1 day');
SELECT event_queue.create_handler('cancelled', '*', 'one')));
$node->safe_psql('postgres', q(TRUNCATE done; SELECT event_queue.enqueue('cancelled', 'job', jsonb_build_object('n', g)) FROM generate_series(1, 600) g));
$node->safe_psql('postgres', q(
DO $$
BEGIN
	FOR i IN 1..20000 LOOP
		PERFORM pg_cancel_backend(pid) FROM event_queue.workers() WHERE kind = 'executor';
		PERFORM pg_sleep(0.0003);
		COMMIT;
		EXIT WHEN i % 50 = 0 AND (SELECT count(*) = 600 FROM public.done);
	END LOOP;
END $$));
ok(wait_for($node, $nothing_is_left), 'all are settled');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT n) FROM done'), '600|600', 'each is done once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.job_history WHERE stalled > 0'), '0', 'no lease has run out');

# With snapshots for transactions each job has its own, and a serialization failure is one job's.
$node->safe_psql('postgres', q(
CREATE SEQUENCE conflict; -- the transaction that meets one
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NOT (SELECT is_called FROM public.conflict) THEN
		PERFORM setval('public.conflict', pg_current_xact_id()::text::bigint);
	END IF;
	IF (SELECT last_value FROM public.conflict) = pg_current_xact_id()::text::bigint THEN
		RAISE 'could not serialize' USING ERRCODE = '40001';
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER conflict AFTER INSERT ON done FOR EACH STATEMENT EXECUTE FUNCTION conflict();
ALTER TABLE done DISABLE TRIGGER conflict;
SELECT event_queue.alter_queue('many', keep_completed => '1 day');
ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'));
$node->restart;
ok(wait_for($node, q(SELECT count(*) = 1 FROM event_queue.workers() WHERE kind = 'executor')), 'the executor is back');
learn('one', 'job');
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('one', 'job', jsonb_build_object('n', g)) FROM generate_series(1, 50) g));
ok(wait_for($node, $nothing_is_left), 'they are settled');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT xid) FROM done'), '50|50', 'each in its own transaction');
$node->safe_psql('postgres', q(TRUNCATE done; ALTER TABLE done ENABLE TRIGGER conflict; SELECT setval('conflict', 1, false);
	SELECT event_queue.enqueue('many', 'job', jsonb_build_object('n', g)) FROM generate_series(1, 20) g));
ok(wait_for($node, $nothing_is_left), 'they are settled');
is($node->safe_psql('postgres', q(SELECT (SELECT count(DISTINCT n) FROM done), (SELECT count(*) FROM event_queue.job_history WHERE failures > 0 AND queue_id = (SELECT queue_id FROM event_queue.queue WHERE name = 'many')))), '20|0', 'an array that could not be serialized runs one by one');
unlike(slurp_file($node->logfile), qr/was terminated by signal|TRAP/, 'nothing has crashed');
$node->stop;
done_testing();
