# At a million events no read walks over the table: the counters of sequential
# scans stay as they are, and the plans say by which index.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 0
max_wal_size = 4GB
maintenance_work_mem = 256MB
shared_buffers = 256MB
));
$node->start;
# Indexes after the rows: loading is not what is tested.
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
BEGIN;
SET LOCAL allow_system_table_mods = on;
ALTER TABLE event_queue.event_store DISABLE TRIGGER events_loaded, DROP CONSTRAINT event_store_pkey,
	DROP CONSTRAINT event_store_aggregate_key, DROP CONSTRAINT event_store_id_key;
INSERT INTO event_queue.event_store
SELECT n, gen_random_uuid(), CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'default' END, CASE WHEN n % 1000 = 1 THEN 'odd' ELSE 'lead' END,
	'l' || n / 100, n % 100 + 1, CASE WHEN n % 5000 = 0 THEN 'lead.lost' ELSE 'lead.moved' END,
	jsonb_build_object('n', n), '{}', now()
FROM generate_series(1, 1000000) n;
ALTER TABLE event_queue.event_store ADD CONSTRAINT event_store_pkey PRIMARY KEY (position),
	ADD CONSTRAINT event_store_aggregate_key UNIQUE (aggregate_id, aggregate_type, tenant_id, version),
	ADD CONSTRAINT event_store_id_key UNIQUE (id, tenant_id), ENABLE TRIGGER events_loaded;
SELECT event_queue_internal.skip_positions(1000000);
COMMIT;
VACUUM ANALYZE event_queue.event_store;
SELECT event_queue.create_event_index(i) FROM unnest(ARRAY['event_type', 'aggregate_type', 'tenant_id', 'event_data']) i;
ANALYZE event_queue.event_store;
SELECT event_queue.create_subscription('s', '{"event_type": "lead.lost"}');
SELECT event_queue.create_reducer('lead', snapshot_every => 10);
));
my $scans = q(SELECT seq_scan || ' ' || seq_tup_read FROM pg_stat_user_tables WHERE relname = 'event_store');
my $reads = sub {
	my ($sql, $rows, $name) = @_;
	# in a session of its own, whose counters are there when it has ended
	my $before = $node->safe_psql('postgres', $scans);
	is($node->safe_psql('postgres', "SELECT count(*) FROM ($sql) x"), $rows, $name);
	is($node->safe_psql('postgres', $scans), $before, '... without a sequential scan');
};

like($node->safe_psql('postgres', "EXPLAIN SELECT * FROM event_queue.read_aggregate('lead', 'l500')"),
	qr/Index Scan using event_store_aggregate_key/, 'read_aggregate is planned as an index scan');
like($node->safe_psql('postgres', "EXPLAIN SELECT * FROM event_queue.read_aggregate_backward('lead', 'l500', to_version => 50, max_events => 10)"),
	qr/Index Scan Backward using event_store_aggregate_key/, 'and backward too');
$reads->(q(SELECT * FROM event_queue.read_aggregate('lead', 'l501')), 100, 'an aggregate');
$reads->(q(SELECT * FROM event_queue.read_aggregate('lead', 'l501', 11, 20)), 10, 'some of its versions');
$reads->(q(SELECT * FROM event_queue.read_aggregate_backward('lead', 'l501', max_events => 5)), 5, 'the last of them');
$reads->(q(SELECT event_queue.aggregate_version('lead', 'l501')), 1, 'a version');
$reads->(q(SELECT event_queue.aggregate_state('lead', 'l501', 50)), 1, 'a state');
$reads->(q(SELECT * FROM event_queue.aggregate_diff('lead', 'l501', 50, 60)), 1, 'a difference');
$reads->(q(SELECT * FROM event_queue.read_all(500000, 1000)), 1000, 'events after a position');
$reads->(q(SELECT event_queue.append('lead', 'l501', 'x') FROM generate_series(1, 10)), 10, 'appends');
$reads->(q(SELECT * FROM event_queue.trace((SELECT id FROM event_queue.event_store WHERE position = 500002))), 1, 'a chain');
for ([ '{"event_type": "lead.lost"}', 'event_type', 200 ], [ '{"event_type": "lead.**", "aggregate_type": "odd"}', 'aggregate_type', 1000 ],
	[ '{"tenant_id": "rare"}', 'tenant_id', 1000 ])
{
	my ($filter, $by, $rows) = @$_;
	is($node->safe_psql('postgres', "SELECT * FROM event_queue.read_plan('$filter')"),
		"event_store|event_store_by_$by|" . ($filter =~ /lost/ ? 'lead.lost' : $filter =~ /odd/ ? 'odd' : 'rare'), "$filter has its index");
	$reads->("SELECT * FROM event_queue.read_all(0, 2000, filter => '$filter')", $rows, 'which finds its events');
}
is($node->safe_psql('postgres', q(SELECT * FROM event_queue.read_plan('{"data": {"n": 77}}'))), 'event_store|event_store_pkey|', 'data alone is looked for in order of position');
$reads->(q(SELECT * FROM event_queue.read_all(0, 10, filter => '{"data": {"n": 77}}')), 1, 'and found');
$reads->(q(SELECT * FROM event_queue.fetch_events('s', 100)), 100, 'a subscription');
$node->stop;
done_testing();
