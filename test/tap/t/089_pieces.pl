# What the scheduler does at large stores in pieces, and what is over when its cause is gone.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueHealth;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 2
event_queue.databases = 'postgres'
));
$node->start;
watch_node($node);
sub sql { return $node->safe_psql('postgres', $_[0]); }

# In a database without a scheduler each look is a call.
$node->safe_psql('postgres', 'CREATE DATABASE quiet');
sub quiet { return $node->safe_psql('quiet', $_[0]); }

# New waits of 250 tenants, all locked: looks come to an end, and begin again when someone has let them go.
quiet(q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('q');
SELECT count(event_queue.enqueue('q', 'x', tenant_id => 'tenant ' || n)) FROM generate_series(1, 250) n;
SELECT count(event_queue.await_event(job_id, lease_token, 'wait', 'come', 'thing', job_id::text)) FROM event_queue.claim('q', 1000)));
my $holder = $node->background_psql('quiet');
$holder->query('BEGIN; SELECT count(*) FROM (SELECT FROM event_queue.job_step FOR UPDATE) x');
sub looks
{
	for my $n (1 .. 30) { return $n if quiet('SELECT event_queue_internal.match_events()') eq 'f'; }
	return 'too many';
}
is(looks(), 3, 'each tenant is looked at once while all new waits are locked');
is(looks(), 3, 'and once more by the next look');
$holder->query('COMMIT');
$holder->quit;
isnt(looks(), 'too many', 'when they are free there is an end');
is(quiet('SELECT count(*) FROM event_queue.job_step WHERE fresh'), '0', 'with all of them met');
quiet(q(DELETE FROM event_queue.job; DELETE FROM event_queue.job_step));

# Rows of job_log and job_dependency whose jobs are gone, among those of jobs that are there: a piece reads no more than it is for.
quiet(q(
SELECT count(event_queue.enqueue('q', 'there')) FROM generate_series(1, 4000) n;
INSERT INTO event_queue.job_log (job_id, tenant_id, message, level, at)
	SELECT j.job_id + g, 'default', 'x', 'info', now() - interval '1 year' + (j.job_id + g) % 5000 * interval '1 second' FROM event_queue.job j, unnest('{0,1000000}'::int[]) g;
INSERT INTO event_queue.job_log (job_id, tenant_id, message, level, at)
	SELECT 2000000 + n, 'default', 'x', 'info', CASE WHEN n < 300 THEN '4000-01-01 BC' ELSE '2001-01-01'::timestamptz END FROM generate_series(1, 1000) n;
INSERT INTO event_queue.job_log (job_id, tenant_id, message, level) VALUES (3000000, 'default', 'new', 'info');
INSERT INTO event_queue.job_dependency (job_id, depends_on, tenant_id)
	SELECT j.job_id + g, 1, 'default' FROM event_queue.job j, unnest('{0,1000000}'::int[]) g;
INSERT INTO event_queue.job_dependency (job_id, depends_on, tenant_id) SELECT 3000000, n, 'default' FROM generate_series(1, 1000) n;
ANALYZE event_queue.job, event_queue.job_log, event_queue.job_dependency));
my ($pieces, $read, $of_log) = split /\|/, quiet(q(
BEGIN;
CREATE TEMP TABLE piece (task bigint);
DO $$
DECLARE
	task bigint := 0;
BEGIN
	LOOP
		task := event_queue_internal.maintain_history(task, 10);
		EXIT WHEN task >= 1000;
		INSERT INTO piece VALUES (task);
	END LOOP;
END $$;
SELECT (SELECT count(*) FROM piece), (SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'event_queue.job'::regclass),
	(SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'event_queue.job_log'::regclass);
COMMIT));
cmp_ok($pieces, '>', 150, "there were $pieces pieces");
cmp_ok($read, '<', 20_000, 'they read each job some times');
cmp_ok($of_log, '<', 50_000, 'and each row of the log');
is(quiet(q(SELECT count(*) FROM event_queue.job_log l WHERE l.job_id IN (SELECT j.job_id FROM event_queue.job j))), '4000', 'lines of jobs stay');
is(quiet(q(SELECT string_agg(message, ',') FROM event_queue.job_log l WHERE l.job_id NOT IN (SELECT j.job_id FROM event_queue.job j))), 'new', 'and young ones, others go');
is(quiet(q(SELECT count(*), count(*) FILTER (WHERE j.job_id IS NULL) FROM event_queue.job_dependency LEFT JOIN event_queue.job j USING (job_id))), '4000|0', 'and what jobs wait for stays');
quiet(q(DELETE FROM event_queue.job; DELETE FROM event_queue.job_dependency));

# Dead letters that stay by their number, or by options of their own, are not walked over for each small piece of those that go.
quiet(q(
SELECT event_queue.create_queue('kept', keep_failed_count => 10000);
SELECT count(event_queue.import_dead('kept', 'own', options => '{"keep_failed": "10 years"}')) FROM generate_series(1, 6000);
SELECT count(event_queue.import_dead('kept', 'x')) FROM generate_series(1, 15000);
ANALYZE event_queue.dead_letter));
my $letters = quiet(q(
BEGIN;
DO $$
DECLARE
	kept CONSTANT bigint := (SELECT 1000 + queue_id FROM event_queue.queue WHERE name = 'kept');
	task bigint := kept;
BEGIN
	WHILE task = kept LOOP
		task := event_queue_internal.maintain_history(task, 10);
	END LOOP;
END $$;
SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'event_queue.dead_letter'::regclass;
COMMIT));
cmp_ok($letters, '<', 1_500_000, "$letters reads of 21,000 dead letters");
is(quiet(q(SELECT count(*) FILTER (WHERE name = 'own'), count(*) FILTER (WHERE name = 'x') FROM event_queue.dead_letter)), '6000|10000', 'so many stay as are to be kept');

# A time in the distant past is one to run at once: the sum of waits stays one.
sql(q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('past');
SELECT count(event_queue.enqueue('past', 'x', run_at => '4713-01-01 BC')) FROM generate_series(1, 100);
SELECT count(*) FROM event_queue.claim('past', 100)));
is(sql(q(SELECT wait_ms BETWEEN 1 AND 366 * 86400000.0 * 100 FROM event_queue_internal.queue_counters() c JOIN event_queue.queue q USING (queue_id) WHERE name = 'past')), 't', 'a sum of waits');

# The fault of a handler that did not end goes with the handler, of which it was the last; and not by one whose name begins so.
sql(q(SELECT event_queue.drop_queue('past', force => true), event_queue.create_queue('q');
CREATE FUNCTION ends(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION never_ends(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(100); END $$;
SELECT event_queue.create_handler('q', 'end', 'never_ends', time_limit => '100 ms'), event_queue.create_handler('q', 'ending', 'ends'),
	event_queue.enqueue('q', 'end', options => '{"max_attempts": 1}')));
soon(q(EXISTS (SELECT FROM event_queue.faults() WHERE what = 'time limit' AND item = 'q/end')), 'there is a fault');
sql(q(SELECT event_queue_internal.note_fault('time limit', 'snapshots/*', NULL, '57014', 'of ours'); SELECT event_queue.drop_handler('q', 'end')));
soon(q(NOT EXISTS (SELECT FROM event_queue.faults() WHERE what = 'time limit' AND item = 'q/end')), 'which goes with the handler');
is(sql(q(SELECT item FROM event_queue.faults() WHERE what = 'time limit')), 'snapshots/*', 'but not that of a queue of ours, whose handler is in no table');

$node->stop;
done_testing();
