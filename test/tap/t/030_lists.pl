# The lists of observe/lists.sql: that each is right, and that each walks an index: no
# sequential scan and no more rows read than an answer needs, whatever stands beside it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
autovacuum = off
));
$node->start;

# 60,000 rows: a third waits (a tenth of it for tomorrow), a third is dead, a third is
# completed and kept; each is caused by an event through a rule.  In front of the queue
# "fair" and of "big" stand another tenant's jobs.
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('big', keep_completed => '7 days', lease => '1 day'), event_queue.create_queue('small', max_attempts => 1),
	event_queue.create_queue('fair', fair => true, lease => '1 day');
SELECT event_queue.create_rule('calls', 'lead.moved', queue => 'small', job_name => 'call', payload => '{}');
SELECT event_queue.pause_rule('calls');
SET session_replication_role = replica;
INSERT INTO event_queue.event_store (position, id, tenant_id, aggregate_type, aggregate_id, version, event_type, event_data, metadata, created_at)
SELECT n, gen_random_uuid(), 'default', 'lead', 'L' || n / 10, n % 10 + 1, CASE n % 2 WHEN 0 THEN 'lead.moved' ELSE 'lead.called' END, '{"step": 1}', '{"actor": "ana"}', now() - n * interval '1 ms'
FROM generate_series(1, 60000) n;
INSERT INTO event_queue.job (job_id, queue_id, run_at, created_at, priority, tenant_id, name, payload, metadata)
SELECT e.position, 3, now() + CASE WHEN e.position % 10 = 0 THEN interval '1 day' ELSE '0' END, now(), 5, 'default', 'call', '{}',
	jsonb_build_object('event_id', e.id, 'rule', 'calls') FROM event_queue.event_store e WHERE e.position % 3 = 0;
INSERT INTO event_queue.dead_letter (job_id, queue_id, tenant_id, name, priority, created_at, died_at, reason, failures, stalled, has_dependents, payload, metadata, errors)
SELECT e.position, 3, 'default', 'call', 5, now(), now() - e.position * interval '10 s', 'attempts', 3, 0, false, '{}',
	jsonb_build_object('event_id', e.id, 'rule', 'calls'), '[{"message": "why", "worker": "w"}]' FROM event_queue.event_store e WHERE e.position % 3 = 1;
INSERT INTO event_queue.job_history (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at, expires_at, span, failures, stalled, payload, metadata, errors)
SELECT e.position, 3, 'default', 'call', 5, now(), now(), now() - e.position * interval '100 ms', now() + interval '7 days', 4, 0, 0, '{}',
	jsonb_build_object('event_id', e.id, 'rule', 'calls'), '[]' FROM event_queue.event_store e WHERE e.position % 3 = 2;
SELECT setval('event_queue.job_job_id_seq', 100000);
));

# read_by QUERY: rows that the query returned, sequential scans, rows read
sub read_by
{
	my ($query) = @_;
	my $out = $node->safe_psql('postgres', qq(
BEGIN;
SELECT count(*) FROM ($query) l;
SELECT sum(seq_scan), sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
WHERE schemaname = 'event_queue' AND relname IN ('job', 'dead_letter', 'job_history_early', 'event_store');
COMMIT;));
	return split /[\n|]/, $out;
}

sub all_quick
{
	my ($when) = @_;
	my %expected = (
		# rows, most rows read
		'SELECT * FROM event_queue.running_jobs()' => [ 50, 2500 ],
		q(SELECT * FROM event_queue.next_jobs('big')) => [ 20, 500 ],
		'SELECT * FROM event_queue.next_jobs(NULL, 50)' => [ 50, 1500 ],
		q(SELECT * FROM event_queue.queue_jobs('big')) => [ 100, 4000 ],
		'SELECT * FROM event_queue.failed_jobs()' => [ 100, 300 ],
		q(SELECT * FROM event_queue.failed_jobs('big', now() - interval '1 hour', 10)) => [ 10, 100 ],
		q(SELECT * FROM event_queue.rule_activity('calls')) => [ 100, 1000 ],
		q(SELECT * FROM event_queue.aggregate_activity('lead', 'L777')) => [ 20, 100 ],
		'SELECT * FROM event_queue.all_jobs WHERE job_id = ANY (\'{1001,1002,1003}\')' => [ 3, 20 ],
		q(SELECT * FROM event_queue.all_jobs WHERE metadata ? 'event_id' AND metadata ->> 'event_id' = (SELECT id::text FROM event_queue.event_store WHERE position = 77)) => [ 1, 20 ],
	);
	foreach my $query (sort keys %expected)
	{
		my ($rows, $scans, $read) = read_by($query);
		my ($wanted, $most) = @{ $expected{$query} };
		is($rows, $wanted, "$when: $query: rows");
		is($scans, 0, "$when: $query: no sequential scan");
		cmp_ok($read, '<=', $most, "$when: $query: rows read");
	}
}
$node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.claim('big', 50)));
# The check sees a list that reads a table.
my (undef, $scans, $read) = read_by(q(SELECT * FROM event_queue.job WHERE name = 'x'));
cmp_ok($scans + $read, '>', 1000, 'a query without an index is seen');
all_quick('not analyzed');
$node->safe_psql('postgres', 'VACUUM ANALYZE');
all_quick('analyzed');

# What they say.
my $one = sub { $node->safe_psql('postgres', $_[0]) };
is($one->(q(SELECT count(*) FROM (SELECT job_id FROM event_queue.running_jobs('big') EXCEPT SELECT job_id FROM event_queue.jobs WHERE state = 'leased') d)),
	'0', 'what runs is leased');
like($one->(q(SELECT worker FROM event_queue.running_jobs('big') LIMIT 1)), qr/^\S+ \d+$/, 'and by whom');
my $next = $one->(q(SELECT string_agg(job_id::text, ',' ORDER BY nth) FROM event_queue.next_jobs('big', 30) WHERE state = 'ready'));
is($next, $one->(q(BEGIN; SELECT string_agg(job_id::text, ',') FROM event_queue.claim('big', 30); ROLLBACK;)), 'what will run next is what is claimed next');
is($one->(q(SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM event_queue.queue_jobs('big', 7) GROUP BY 1) s)),
	'completed 7, dead 7, leased 7, ready 7, scheduled 7', 'so many of each state');
is($one->(q(SELECT bool_and(died_at > now() - interval '1 hour') FROM event_queue.failed_jobs(since => now() - interval '1 hour', max_jobs => 100000))), 't', 'what has failed since');
is($one->(q(SELECT kind || ' ' || who FROM event_queue.aggregate_activity('lead', 'L777') GROUP BY 1 ORDER BY 1)), "event ana\njob rule calls", 'who did what to a lead');
is($one->(q(SELECT string_agg(DISTINCT event_type || ' ' || state, ', ') FROM event_queue.rule_activity('calls'))), 'lead.moved completed, lead.moved dead, lead.moved ready, lead.moved scheduled',
	'what a rule did');

# An executor's job is found behind more others than are looked at.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue('handled');
CREATE FUNCTION slow(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(20)';
SELECT cardinality(event_queue.enqueue_many('handled', (SELECT jsonb_agg('{"name": "no handler"}'::jsonb) FROM generate_series(1, 2000))));
SELECT event_queue.create_handler('handled', 'slow', 'slow');
SELECT event_queue.enqueue('handled', 'slow');
));
ok($node->poll_query_until('postgres', q(SELECT string_agg(name || ' ' || (worker ~ 'executor'), ',') = 'slow true' FROM event_queue.running_jobs('handled'))),
	'what an executor runs is found wherever it stands');
$node->safe_psql('postgres', q(SELECT event_queue.cancel_job(job_id) FROM event_queue.running_jobs('handled')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.running_jobs('handled'))), 'and when it has ended, no more');

# Retried in one call.
my $died = $one->(q(SELECT count(*) FROM event_queue.dead_letters WHERE died_at > now() - interval '1 hour'));
is($one->(q(SELECT event_queue.retry_failed(since => now() - interval '1 hour'))), $died, 'all that failed since then is retried');
is($one->(q(SELECT count(*) FROM event_queue.failed_jobs(since => now() - interval '1 hour'))), '0', 'and nothing of it is left');
is($one->(q(SELECT event_queue.retry_failed(queue => 'small'))), '0', 'of another queue, nothing');

# Turns of tenants, priorities, groups, dependencies, schedules, a paused queue.
$node->safe_psql('postgres', q(
SELECT count(event_queue.enqueue('fair', 'of ' || t, tenant_id => t, priority => 9 - n)) FROM unnest('{a,b}'::text[]) t, generate_series(1, 3) n;
SELECT count(event_queue.enqueue('small', 'grouped', group_key => 'k')) FROM generate_series(1, 2);
SELECT event_queue.enqueue('small', 'after', depends_on => ARRAY(SELECT max(job_id) FROM event_queue.job));
SELECT event_queue.create_schedule('yearly', '0 0 1 1 *', 'small', 'report', options => '{"priority": 2}');
));
is($one->(q(SELECT string_agg(name || ' ' || priority, ', ' ORDER BY nth) FROM event_queue.next_jobs('fair', 4) t)) =~ s/of [ab] /x /gr, 'x 6, x 6, x 7, x 7', 'tenants take turns');
is($one->(q(SELECT count(DISTINCT tenant_id) FROM event_queue.next_jobs('fair', 2))), '2', 'each has one');
ok($node->poll_query_until('postgres', q(SELECT string_agg(name || ' ' || state, ', ' ORDER BY job_id) = 'grouped ready, grouped blocked, after blocked' FROM event_queue.queue_jobs('small'))),
	'what waits for others is told');
is($one->(q(SELECT string_agg(state, ', ' ORDER BY nth) FROM event_queue.next_jobs('small'))), 'ready, schedule', 'and what comes by a schedule');
is($one->(q(SELECT priority FROM event_queue.next_jobs('small') WHERE state = 'schedule')), '2', 'with the priority of its options');
is($one->(q(SELECT event_queue.pause_queue('small'); SELECT state FROM event_queue.next_jobs('small') LIMIT 1)) =~ s/^t\n//r, 'paused', 'of a paused queue nothing will run');

# Tenants: each sees its own, also behind another's jobs.
$node->safe_psql('postgres', q(
CREATE ROLE observer_a;
CREATE ROLE observer_c;
SELECT event_queue.grant_observer('observer_a', 'a'), event_queue.grant_observer('observer_c', 'c');
SELECT event_queue.enqueue('fair', 'of c', tenant_id => 'c', priority => 0);
SELECT event_queue.claim('fair', 1, tenant_id => 'c');
));
is($one->(q(SET ROLE observer_a; SELECT string_agg(name, ',') FROM event_queue.next_jobs())), 'of a,of a,of a', q(a tenant's next jobs));
is($one->(q(SET ROLE observer_a; SELECT count(*) FROM event_queue.running_jobs())), '0', q(none of its jobs run));
is($one->(q(SET ROLE observer_c; SELECT string_agg(name, ',') FROM event_queue.running_jobs())), 'of c', q(another one's does));
is($one->(q(SET ROLE observer_c; SELECT count(*) FROM event_queue.queue_jobs('big'))), '0', q(nothing of others' states));
is($one->(q(SET ROLE observer_c; SELECT count(*) FROM event_queue.failed_jobs(), event_queue.all_jobs)), '0', q(nor of their failures));
is($one->(q(SET ROLE observer_c; SELECT count(*) FROM event_queue.aggregate_activity('lead', 'L777'))), '0', q(nor of their leads));
isnt($node->psql('postgres', q(SET ROLE observer_c; SELECT event_queue.retry_failed())), 0, 'and may not retry');

# Arguments.
foreach my $call (q(running_jobs(look_at => 0)), q(next_jobs(max_jobs => 0)), q(failed_jobs(max_jobs => NULL)), q(failed_jobs(max_jobs => -1)), q(next_jobs(max_jobs => -1)), q(queue_jobs('big', -1)), q(rule_activity('calls', 0)), q(aggregate_activity('lead', 'L1', 0)))
{
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM event_queue.$call");
	like($err, qr/ERROR:  EQ009/, "$call: EQ009");
}
foreach my $call (q(running_jobs('absent')), q(next_jobs('absent')), q(queue_jobs('absent')), q(failed_jobs(queue => 'absent')), q(retry_failed(queue => 'absent')))
{
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM event_queue.$call");
	like($err, qr/ERROR:  EQ010/, "$call: EQ010");
}
done_testing();
