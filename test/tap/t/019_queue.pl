# What plain SQL makes claimable is found at its commit, without the scheduler; order
# after a queue ceased to be fair; leases of sessions that were set read only; bulk
# calls of many sessions in any order.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 1
event_queue.executors = 0
deadlock_timeout = '20ms'
client_min_messages = error
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub start
{
	my ($sql, $out) = @_;
	return IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', $sql ], '>', $out, '2>&1');
}
sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', max_attempts => 1);
SELECT event_queue.enqueue('q', 'held'), event_queue.enqueue('q', 'dies'), event_queue.enqueue('q', 'later', delay => '1 hour');
SELECT count(*) FROM event_queue.claim('q', job_names => '{held}', lease => '1 hour');
SELECT event_queue.fail(job_id, lease_token, 'no') FROM event_queue.claim('q', job_names => '{dies}');
));

# A claim goes past where the job will be before it is committed.  There is no
# scheduler, which would find it with its next sweep: no worker is left for it.
is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_queue scheduler')), '0', 'there is no scheduler');
my $out;
for my $how (q(SELECT event_queue.retry_all_dead('q')),
	q(SELECT event_queue.retry_waiting('q', false)),
	q(UPDATE event_queue.job SET priority = 5, run_at = clock_timestamp() WHERE name = 'low'))
{
	my $open = start("BEGIN; $how; SELECT pg_sleep(0.6); COMMIT", \$out);
	select(undef, undef, undef, 0.3);
	is(sql(q(SELECT count(*) FROM event_queue.claim('q', 10))), '0', 'not yet there');
	$open->finish;
	is(sql(q(SELECT count(*) FROM event_queue.claim('q', 10, lease => '1 hour'))), '1', "found at the commit of $how");
	sql(q(SELECT event_queue.enqueue('q', 'low', priority => 9, delay => '1 hour'))) if $how =~ /retry_waiting\(/;
}
$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
$node->restart;

# A queue ceases to be fair: the scheduler puts no job back into its lane.
sql(q(
CREATE TABLE came (names text);
CREATE PROCEDURE ceases() LANGUAGE plpgsql AS $$
DECLARE
	got text;
BEGIN
	PERFORM event_queue.create_queue('lanes', fair => true, stalled_interval => '100 ms');
	COMMIT;
	PERFORM event_queue.enqueue('lanes', t, tenant_id => left(t, 1)) FROM unnest('{a1,a2,b1}'::text[]) t;
	COMMIT;
	PERFORM event_queue.alter_queue('lanes', fair => false);
	COMMIT;
	PERFORM event_queue.enqueue('lanes', 'c1', tenant_id => 'c');
	COMMIT;
	PERFORM pg_sleep(random() * 0.01);
	SELECT string_agg(name, ' ') INTO got FROM event_queue.claim('lanes', 10);
	INSERT INTO came VALUES (got);
	PERFORM event_queue.drop_queue('lanes', true);
	COMMIT;
END $$;
));
sql('CALL ceases()') for 1 .. 40;
is(sql('SELECT DISTINCT names FROM came'), 'a1 a2 b1 c1', 'first come, first served, the old ones before the new one');

# A lease that is bound to a session ends with it, whatever the session was set to.
sql(q(SELECT event_queue.create_queue('bound'), event_queue.enqueue('bound', 'x')));
for my $set (q(SET default_transaction_read_only = on), q(SET default_transaction_isolation = 'serializable'),
	q(SET default_transaction_deferrable = on; SET default_transaction_read_only = on))
{
	sql("SELECT job_id FROM event_queue.claim('bound', session_bound => true, lease => '1 hour'); $set");
	ok($node->poll_query_until('postgres', q(SELECT leased_until IS NULL AND stalled = 0 FROM event_queue.job WHERE name = 'x')),
		"the lease ends with the session: $set");
}

# Bulk calls of many sessions in any order.  Each is a transaction of its own, and may
# find that a job is not his any more, never that there is a deadlock.
sql(q(
SELECT event_queue.create_queue('bulk', max_attempts => 1, max_stalled => 1000), event_queue.create_queue('other', max_attempts => 1);
CREATE TABLE failed (code text, message text, detail text, call text);
CREATE TABLE calls (n bigint);
CREATE PROCEDURE storm(seconds float8) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	cmd text;
	n bigint := 0;
	detail text;
BEGIN
	WHILE clock_timestamp() < until LOOP
		cmd := (ARRAY[
			$c$SELECT cardinality(ids) FROM event_queue.enqueue_many(NULL, (SELECT jsonb_agg(jsonb_build_object('queue', 'bulk', 'name', 'k', 'unique_key', k) ORDER BY random()) FROM generate_series(1, 20) k)) ids$c$,
			$c$SELECT cardinality(ids) FROM event_queue.enqueue_many('bulk', (SELECT jsonb_agg(jsonb_build_object('name', 'k', 'unique_key', k, 'unique_mode', 'replace', 'payload', r) ORDER BY r) FROM (SELECT k, random() AS r FROM generate_series(1, 20) k) k)) ids$c$,
			$c$SELECT cardinality(ids) FROM event_queue.enqueue_many('bulk', (SELECT jsonb_agg(jsonb_build_object('name', 'k', 'unique_key', k, 'unique_mode', CASE WHEN k % 2 = 0 THEN 'debounce' ELSE 'replace' END) ORDER BY random()) FROM generate_series(1, 10) k)) ids$c$,
			$c$SELECT cardinality(ids) FROM event_queue.enqueue_many(NULL, (SELECT coalesce(jsonb_agg(jsonb_build_object('queue', CASE WHEN random() < 0.5 THEN 'bulk' ELSE 'other' END, 'name', 'd', 'depends_on', jsonb_build_array(job_id))), '[]') FROM (SELECT job_id FROM event_queue.job WHERE name <> 'd' ORDER BY random() LIMIT 5) j)) ids$c$,
			$c$SELECT event_queue.enqueue_flow('bulk', jsonb_build_object('name', 'k', 'unique_key', 3, 'unique_mode', 'replace', 'children', (SELECT jsonb_agg(jsonb_build_object('name', 'k', 'unique_key', k, 'unique_mode', 'replace') ORDER BY random()) FROM generate_series(4, 9) k)))$c$,
			$c$SELECT event_queue.enqueue('bulk', 'k', unique_key => (1 + floor(random() * 20))::text, options => CASE WHEN random() < 0.5 THEN '{"unique_mode": "replace"}' ELSE '{}' END::jsonb,
				depends_on => ARRAY(SELECT job_id FROM event_queue.job WHERE name <> 'd' ORDER BY random() LIMIT 2))$c$,
			$c$SELECT event_queue.cancel_job((SELECT job_id FROM event_queue.job ORDER BY random() LIMIT 1))$c$,
			$c$SELECT event_queue.change_priority((SELECT job_id FROM event_queue.job ORDER BY random() LIMIT 1), 3)$c$,
			$c$SELECT event_queue.retry_dead((SELECT job_id FROM event_queue.dead_letter ORDER BY random() LIMIT 1))$c$,
			$c$SELECT event_queue.discard_dead((SELECT job_id FROM event_queue.dead_letter ORDER BY random() LIMIT 1))$c$,
			$c$SELECT event_queue.purge_queue('other')$c$,
			$c$SELECT event_queue.complete_many(array_agg(job_id ORDER BY r), array_agg(lease_token ORDER BY r)) FROM (SELECT job_id, lease_token, random() AS r FROM event_queue.claim('bulk', 15, lease => '50 ms')) c$c$,
			$c$SELECT event_queue.complete_many(array_agg(job_id ORDER BY r), array_agg(lease_token ORDER BY r)) FROM (SELECT job_id, lease_token, random() AS r FROM event_queue.job WHERE lease_token IS NOT NULL) c$c$,
			$c$SELECT count(*) FROM (SELECT array_agg(job_id ORDER BY r) AS ids, array_agg(lease_token ORDER BY r) AS tokens FROM (SELECT job_id, lease_token, random() AS r FROM event_queue.job WHERE lease_token IS NOT NULL) j) a, event_queue.extend_leases(ids, tokens, '50 ms')$c$,
			$c$SELECT count(*) FROM (SELECT array_agg(job_id ORDER BY r) AS ids, array_agg(lease_token ORDER BY r) AS tokens FROM (SELECT job_id, lease_token, random() AS r FROM event_queue.job WHERE lease_token IS NOT NULL) j) a, event_queue.fail_many(ids, tokens, 'no')$c$,
			$c$SELECT count(event_queue.fail(job_id, lease_token, 'no')) FROM event_queue.claim('bulk', 5)$c$,
			$c$SELECT count(*) FROM event_queue.claim('bulk', 10, lease => '50 ms')$c$,
			$c$SELECT event_queue.retry_all_dead('bulk')$c$,
			$c$SELECT event_queue.discard_all_dead('bulk', max_jobs => 3)$c$,
			$c$SELECT event_queue.purge_queue('bulk')$c$,
			$c$SELECT event_queue.cancel_jobs('bulk', job_name => 'd')$c$,
			$c$SELECT event_queue.cancel_jobs('bulk', unique_key => (1 + floor(random() * 20))::text)$c$,
			$c$SELECT event_queue.retry_waiting('bulk', false)$c$,
			$c$SELECT cardinality(event_queue.enqueue_many('bulk', (SELECT jsonb_agg(jsonb_build_object('name', 'g', 'group_key', (random() * 3)::int)) FROM generate_series(1, 20))))$c$
			])[1 + floor(random() * 24)];
		BEGIN
			EXECUTE cmd;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
			INSERT INTO failed VALUES (SQLSTATE, SQLERRM, detail, cmd);
		END;
		COMMIT;
		n := n + 1;
	END LOOP;
	INSERT INTO calls VALUES (n);
END $$;
));
my @outs = ('') x 5;
my @storms = map { start('CALL storm(8)', \$outs[$_]) } 0 .. 4;
$_->finish for @storms;
is(join('', @outs), '', 'the sessions ended well');
is(sql(q(SELECT DISTINCT code, left(message, 60), detail, left(call, 200) FROM failed WHERE code NOT IN ('EQ016', 'EQ017', 'EQ032'))), '', 'nobody was told of a deadlock, or anything else');
cmp_ok(sql('SELECT sum(n) FROM calls'), '>', 100, 'they did something');
# and the queue is whole: the counter is right, each group goes on, all can be worked off
is(sql(q(SELECT d.depth - (SELECT count(*) FROM event_queue.job WHERE queue_id = q) || ' ' || d.dead - (SELECT count(*) FROM event_queue.dead_letter WHERE queue_id = q)
	FROM event_queue_internal.queue_id_of('bulk') q, event_queue_internal.queue_depth(q) d)), '0 0', 'depth is right');
# What depends on a dead letter waits until that is retried or discarded, and is then one itself.
sql(q(DO $$ BEGIN WHILE event_queue.discard_all_dead('bulk') + event_queue.discard_all_dead('other') > 0 LOOP COMMIT; END LOOP; END $$));
ok($node->poll_query_until('postgres', q(
	WITH c AS MATERIALIZED (SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('bulk', 1000)), n AS (SELECT count(*) FROM c)
	SELECT count(*) = 0 FROM n, event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('bulk'))), 'all jobs can be worked off')
	or diag(sql(q(SELECT j, (SELECT json_agg(d) FROM event_queue.job_dependency d WHERE d.job_id = j.job_id), (SELECT count(*) FROM event_queue_internal.job_review) FROM event_queue.job j LIMIT 5)));
$node->stop;
done_testing();
