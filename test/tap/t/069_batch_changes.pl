# What changes while an executor has several jobs in hand: functions, rights, queues, the
# executor itself.  No job is lost, done twice, or counted as failed for it.
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
event_queue.handler_batch_time = 300
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE ROLE app;
SELECT event_queue.grant_admin('app');
CREATE SCHEMA app AUTHORIZATION app;
CREATE TABLE app.done (seq bigserial, n int, note text, xid xid8 DEFAULT pg_current_xact_id());
ALTER TABLE app.done OWNER TO app;
SELECT event_queue.create_queue('q', lease => '2 min', keep_completed => '1 day');
SET ROLE app;
CREATE FUNCTION app.handle(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO app.done (n, note) VALUES ((job.payload ->> 'n')::int, 'old');
	PERFORM pg_sleep((job.payload ->> 's')::float8) WHERE job.payload ? 's';
END $$;
SELECT event_queue.create_handler('q', '*', 'app.handle');
));
my $definition = $node->safe_psql('postgres', q(SELECT pg_get_functiondef('app.handle'::regproc)));
my $nothing_is_left = 'SELECT NOT EXISTS (SELECT FROM event_queue.job)';

# 40 jobs, of which the tenth takes some time, in which the statements are run.
sub change
{
	my ($statements) = @_;

	$node->safe_psql('postgres', q(TRUNCATE app.done; SELECT event_queue.enqueue('q', 'job', '{"n": 0}') FROM generate_series(1, 100)));
	ok(wait_for($node, $nothing_is_left), 'the executor knows the handler');
	$node->safe_psql('postgres', q(TRUNCATE app.done, event_queue.job_history));
	$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'job', jsonb_build_object('n', g) || CASE g WHEN 10 THEN '{"s": 0.4}' ELSE '{}' END::jsonb) FROM generate_series(1, 40) g));
	for (1 .. 200)
	{
		last if $node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type LIKE 'event_queue exec%')) eq '1';
	}
	$node->safe_psql('postgres', $statements);
}

sub are_done
{
	my ($what) = @_;

	ok(wait_for($node, $nothing_is_left), "$what: all are settled");
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT n) FROM app.done'), '40|40', 'each is done once');
	is($node->safe_psql('postgres', 'SELECT count(*), max(failures), max(stalled) FROM event_queue.job_history'), '40|0|0', 'and nothing is counted');
}

change('SELECT 1');
are_done('no change');

change($definition =~ s/'old'/'new'/r);
are_done('another function');
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q', 'job', '{"n": 41}')));
ok(wait_for($node, "SELECT note = 'new' FROM app.done WHERE n = 41"), 'it is used');

change('DROP FUNCTION app.handle');
ok(wait_for($node, 'SELECT count(*) > 0 FROM event_queue.faults()'), 'no function: jobs wait');
$node->safe_psql('postgres', "SET ROLE app; $definition");
are_done('no function');

change('REVOKE USAGE ON SCHEMA app FROM app; REVOKE EXECUTE ON FUNCTION app.handle FROM app, public; ALTER SCHEMA app OWNER TO postgres');
ok(wait_for($node, 'SELECT count(*) > 0 FROM event_queue.faults()'), 'no right: jobs wait');
$node->safe_psql('postgres', 'ALTER SCHEMA app OWNER TO app; GRANT USAGE ON SCHEMA app TO app; GRANT EXECUTE ON FUNCTION app.handle TO app');
are_done('no right');

change('ALTER ROLE app RENAME TO app_2');
are_done('another name of the owner');
$node->safe_psql('postgres', 'ALTER ROLE app_2 RENAME TO app');

change(q(SELECT event_queue.pause_queue('q')));
$node->safe_psql('postgres', q(SELECT event_queue.resume_queue('q')));
are_done('a pause');

change(q(SELECT pg_terminate_backend(pid) FROM event_queue.workers() WHERE kind = 'executor'));
are_done('another executor');

change(q(SELECT event_queue.alter_queue('q', lease => '3 min', max_concurrency => 2); SELECT event_queue.alter_queue('q', reset => '{max_concurrency}')));
are_done('other settings');

change(q(ALTER TABLE app.done ADD x int));
are_done('another table');

# Groups keep their order, a flow its own.
$node->safe_psql('postgres', q(TRUNCATE app.done, event_queue.job_history;
	SELECT event_queue.create_queue('g', group_concurrency => 1, keep_completed => '1 day'), event_queue.create_handler('g', '*', 'app.handle')));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('g', 'job', jsonb_build_object('n', g), group_key => (g % 3)::text) FROM generate_series(1, 90) g));
$node->safe_psql('postgres', q(DO $$
DECLARE
	before bigint;
BEGIN
	FOR i IN 101 .. 110 LOOP
		before := event_queue.enqueue('g', 'job', jsonb_build_object('n', i), depends_on => CASE WHEN before IS NOT NULL THEN ARRAY[before] END);
	END LOOP;
END $$));
ok(wait_for($node, $nothing_is_left), 'all are settled');
is($node->safe_psql('postgres', q(SELECT count(*), count(DISTINCT n) FROM app.done)), '100|100', 'each is done once');
is($node->safe_psql('postgres', q(SELECT count(*) FROM (SELECT n < lag(n) OVER (PARTITION BY CASE WHEN n > 100 THEN 3 ELSE n % 3 END ORDER BY seq) AS wrong FROM app.done) x WHERE wrong)), '0', 'in order');

# Handlers that use what is apart from their process.
$node->safe_psql('postgres', q(
CREATE FUNCTION outside(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true), set_config('min_parallel_table_scan_size', '0', true);
	INSERT INTO app.done (n, note) SELECT (job.payload ->> 'n')::int, count(*) FROM public.many WHERE a % 7 = 1;
	PERFORM pg_notify('outside', job.payload ->> 'n');
	COPY public.many (a) FROM PROGRAM 'echo 8';
	COPY public.many TO PROGRAM 'cat >/dev/null';
END $$;
CREATE TABLE many AS SELECT g AS a FROM generate_series(1, 20000) g;
ANALYZE many;
SELECT event_queue.create_queue('outside', keep_completed => '1 day'), event_queue.create_handler('outside', '*', 'outside');
TRUNCATE app.done, event_queue.job_history;
));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('outside', 'job', jsonb_build_object('n', g)) FROM generate_series(1, 40) g));
are_done('COPY, NOTIFY, parallel queries');
# (an executor that stands in may have had some, in transactions of its own)
is($node->safe_psql('postgres', q(SELECT count(*) FROM (SELECT note::int <= lag(note::int) OVER (PARTITION BY xid ORDER BY seq) AS wrong FROM app.done) x WHERE wrong)), '0',
	'each has seen the ones before it');

# A queue that is dropped while its jobs run.
change(q(SELECT event_queue.drop_handler('q', '*'); SELECT event_queue.drop_queue('q', force => true)));
ok(wait_for($node, $nothing_is_left), 'no queue: nothing is left');
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('outside', 'job', '{"n": 99}')));
ok(wait_for($node, 'SELECT count(*) = 1 FROM app.done WHERE n = 99'), 'and the executor goes on');
unlike(slurp_file($node->logfile), qr/was terminated by signal|TRAP/, 'nothing has crashed');
$node->stop;
done_testing();
