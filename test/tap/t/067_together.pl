# Several jobs in one transaction: none of them waits for what another one has met, or pays
# for it more often than it must.
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
event_queue.handler_batch_time = 200
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (name text, n int);
CREATE SEQUENCE calls;
CREATE FUNCTION handle(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('public.calls');
	INSERT INTO public.done VALUES (job.name, (job.payload ->> 'n')::int);
	PERFORM pg_sleep((job.payload ->> 's')::float8) WHERE job.payload ? 's';
END $$;
SELECT event_queue.create_queue('q', lease => '10 s'), event_queue.create_handler('q', '*', 'handle');
));

# The executor has to know how long the handler takes.
sub learn
{
	$node->safe_psql('postgres', q(TRUNCATE done; SELECT event_queue.enqueue('q', 'quick', '{"n": 0}') FROM generate_series(1, 200)));
	ok(wait_for($node, 'SELECT count(*) = 200 FROM done'), 'the executor knows the handler');
	$node->safe_psql('postgres', q(TRUNCATE done));
}
sub enqueue
{
	my ($payload) = @_;

	$node->safe_psql('postgres', qq(SELECT event_queue.enqueue('q', 'job', jsonb_build_object('n', g) || $payload) FROM generate_series(1, 30) g));
}

# A session has the row of a job that waits in hand, and the one before it takes long: what
# was done before that is committed, and the session is not waited for.
learn();
my $holder = $node->background_psql('postgres');
$holder->query_safe(q(CREATE PROCEDURE hold() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		PERFORM FROM event_queue.job WHERE payload ->> 'n' = '20' AND leased_until IS NOT NULL FOR UPDATE;
		EXIT WHEN FOUND;
		PERFORM pg_sleep(0.001);
	END LOOP;
END $$));
$holder->query_until(qr/begun/, "\\echo begun\nBEGIN; CALL hold();\n");
enqueue(q(CASE g WHEN 3 THEN '{"s": 0.15}'::jsonb WHEN 4 THEN '{"s": 1}' ELSE '{}' END));
ok(wait_for($node, 'SELECT count(*) = 29 FROM done'), 'all others are done while a row is held');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'event_queue executor%' AND wait_event_type = 'Lock'"), '0', 'no executor waits');
$holder->query_safe('COMMIT');
$holder->quit;
ok(wait_for($node, 'SELECT count(*) = 30 FROM done'), 'and that one when it is free');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT n) FROM done'), '30', 'each once');

# What is deferred finds what its function's search_path finds, as when a job is alone.
$node->safe_psql('postgres', q(
CREATE SCHEMA app;
CREATE TABLE app.mark (n int);
CREATE FUNCTION app.mark_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO mark VALUES (NEW.n);
	RETURN NULL;
END $$;
CREATE TABLE app.item (n int);
CREATE CONSTRAINT TRIGGER mark_it AFTER INSERT ON app.item DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.mark_it();
CREATE FUNCTION app.handle(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval('public.calls');
	INSERT INTO public.done VALUES (job.name, (job.payload ->> 'n')::int);
	INSERT INTO item VALUES ((job.payload ->> 'n')::int);
END $$;
SELECT event_queue.create_handler('q', '*', 'app.handle', or_replace => true)));
learn();
$node->safe_psql('postgres', q(SELECT setval('calls', 1)));
enqueue(q('{}'));
ok(wait_for($node, 'SELECT count(*) = 30 FROM done'), 'all are done');
is($node->safe_psql('postgres', q(SELECT nextval('calls') - 2)), '30', 'by one call each');

# The deferred trigger of the last of them fails.
$node->safe_psql('postgres', q(
TRUNCATE done;
SELECT event_queue.alter_queue('q', max_attempts => 1);
CREATE OR REPLACE FUNCTION app.mark_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.n = 30 THEN
		RAISE 'refused';
	END IF;
	RETURN NULL;
END $$));
$node->safe_psql('postgres', q(SELECT setval('calls', 1)));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'job', jsonb_build_object('n', g)) FROM generate_series(1, 30) g));
ok(wait_for($node, 'SELECT count(*) = 1 FROM event_queue.dead_letters'), 'the one that fails is a dead letter');
is($node->safe_psql('postgres', 'SELECT count(DISTINCT n) FROM done WHERE n <> 0'), '29', 'the others are done');
cmp_ok($node->safe_psql('postgres', q(SELECT nextval('calls') - 2)), '<=', 61, 'by two calls each at most');

# A handler that is never called, beside it, changes nothing.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue('two'), event_queue.create_handler('two', 'used', 'handle'), event_queue.create_handler('two', 'never', 'handle');
ALTER TABLE done ADD xid xid8 DEFAULT pg_current_xact_id();
TRUNCATE done;
SELECT event_queue.enqueue('two', 'used', '{"n": 0}') FROM generate_series(1, 500)));
ok(wait_for($node, 'SELECT count(*) = 500 FROM done'), 'all are done');
cmp_ok($node->safe_psql('postgres', 'SELECT count(DISTINCT xid) FROM done'), '<', 250, 'several in one transaction');

# Of an array that waits in hand one is deleted: the others are called for together.
$node->safe_psql('postgres', q(
CREATE FUNCTION many(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.done SELECT cardinality(jobs)::text, (j.payload ->> 'n')::int FROM unnest(jobs) j;
	IF EXISTS (SELECT FROM unnest(jobs) j WHERE j.payload ->> 'n' = '1') THEN
		DELETE FROM event_queue.job WHERE payload ->> 'n' = '15';
	END IF;
END $$;
TRUNCATE done;
SELECT event_queue.create_queue('many', lease => '10 s'), event_queue.create_handler('many', '*', 'many', batch_size => 100);
SELECT event_queue.enqueue('many', 'job', jsonb_build_object('n', g), tenant_id => CASE WHEN g <= 10 THEN 'a' ELSE 'b' END) FROM generate_series(1, 30) g));
ok(wait_for($node, 'SELECT NOT EXISTS (SELECT FROM event_queue.job)'), 'all are gone');
is($node->safe_psql('postgres', 'SELECT name, min(n), max(n), count(*) FROM done GROUP BY 1 ORDER BY 2'), "10|1|10|10\n4|11|14|4\n15|16|30|15", 'by three calls');

# More functions than an executor keeps plans of, called within each other.
$node->safe_psql('postgres', q(
CREATE FUNCTION app.outer(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..250 LOOP
		PERFORM event_queue.run_step(job, 'step ' || i, 'app.step_' || i);
	END LOOP;
	INSERT INTO public.done VALUES (job.name, (job.payload ->> 'n')::int);
END $$;
DO $do$
BEGIN
	FOR i IN 1..250 LOOP
		EXECUTE format('CREATE FUNCTION app.%I(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(%s) $$', 'step_' || i, i);
	END LOOP;
END $do$;
TRUNCATE done;
SELECT event_queue.alter_queue('q', lease => '30 s');
SELECT event_queue.create_handler('q', 'outer', 'app.outer');
SELECT event_queue.enqueue('q', 'outer', jsonb_build_object('n', g)) FROM generate_series(1, 3) g));
ok(wait_for($node, 'SELECT count(*) = 3 FROM done'), 'all steps were done');
unlike(slurp_file($node->logfile), qr/was terminated by signal|TRAP/, 'nothing has crashed');
$node->stop;
done_testing();
