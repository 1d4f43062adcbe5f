# A backfill beside live events: killed in the middle, it goes on where it was, and each
# event lets the rule fire once; triggers of rules on tables are dumped and restored.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
wal_writer_delay = 10s
event_queue.rule_batch = 5
event_queue.activate_copies = on
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q');
SELECT count(event_queue.append('back', 'a' || n % 7, 'back.x', jsonb_build_object('n', n))) FROM generate_series(1, 1000) n;
SELECT event_queue.create_rule('back', 'back.*', queue => 'q', job_name => 'met', payload => '{"n": "$.data.n"}');
SELECT event_queue.create_rule('tell', 'back.*', actions => '[{"append": {"event_type": "told", "aggregate_type": "told", "event_data": {"n": "$.data.n"}}}]');
SELECT event_queue.backfill_rule('back', rate => 400), event_queue.backfill_rule('tell', rate => 400);
));
my $more = 0;
for my $round (1 .. 3)
{
	ok($node->poll_query_until('postgres', "SELECT count(*) = 2 FROM event_queue.rule_backfills WHERE fired >= 200 * $round"), "round $round: on its way");
	sql("SELECT count(event_queue.append('back', 'live', 'back.x', jsonb_build_object('n', 1000 + $more + n))) FROM generate_series(1, 10) n");
	$more += 10;
	$node->stop($round == 3 ? 'fast' : 'immediate');
	$node->start;
}
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 AND bool_and(state = 'done') FROM event_queue.rule_backfills)), 'both end');
# An unflushed append of a client that has its answer is lost by none: it was synchronous.
ok($node->poll_query_until('postgres', q(SELECT (count(*), count(DISTINCT payload)) = (1030, 1030) FROM event_queue.job WHERE name = 'met')), 'each event once')
	or diag(sql(q(SELECT count(*), count(DISTINCT payload) FROM event_queue.job WHERE name = 'met')));
ok($node->poll_query_until('postgres', q(SELECT (count(*), count(DISTINCT event_data)) = (1030, 1030) FROM event_queue.event_store WHERE event_type = 'told')), 'and each event of an action')
	or diag(sql(q(SELECT count(*), count(DISTINCT event_data) FROM event_queue.event_store WHERE event_type = 'told')));
is(sql(q(SELECT string_agg(concat_ws(' ', seen, fired + fired_before), ', ') FROM event_queue.rule_backfills)), '1000 1000, 1000 1000', 'as it is shown');
sql(q(SELECT event_queue.backfill_rule('back')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 3 AND bool_and(state = 'done') FROM event_queue.rule_backfills)), 'another one ends');
is(sql(q(SELECT fired || ' ' || fired_before FROM event_queue.rule_backfills ORDER BY made_at DESC LIMIT 1)), '0 1030', 'and does nothing');

# Restored: rules on tables with their triggers, what has fired, and no event for the rows that are loaded.
sql(q(
CREATE TABLE deal (id int PRIMARY KEY, stage text, firm text);
SELECT event_queue.create_rule('deal', on_table => 'deal', on_change => '{insert,update}', when_changed => '{stage}', tenant_column => 'firm', queue => 'q', job_name => 'deal');
INSERT INTO deal VALUES (1, 'a', 'acme'), (2, 'a', 'acme');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM event_queue.job WHERE name = 'deal')), 'a rule on a table');
my $dump = $node->basedir . '/dump.sql';
for my $how ('plain', 'custom')
{
	$node->command_ok([ 'pg_dump', '-F', $how, '-f', $dump, $node->connstr('postgres') ], "pg_dump $how");
	sql('CREATE DATABASE copy');
	if ($how eq 'plain') { $node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'restored'); }
	else { $node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('copy'), $dump ], 'restored'); }
	my $copy = sub { return $node->safe_psql('copy', $_[0]); };
	is($copy->(q(SELECT count(*) FROM event_queue.event_store WHERE aggregate_type = 'event_queue.table')), '2', 'rows that are loaded are no changes');
	$copy->(q(SELECT event_queue.activate()));
	$copy->(q(UPDATE deal SET firm = 'other'; UPDATE deal SET stage = 'b' WHERE id = 1));
	ok($node->poll_query_until('copy', q(SELECT count(*) = 3 FROM event_queue.job WHERE name = 'deal')), 'the rule goes on');
	is($copy->(q(SELECT tenant_id FROM event_queue.job WHERE name = 'deal' ORDER BY job_id DESC LIMIT 1)), 'other', 'for the tenant of the row');
	$copy->(q(SELECT event_queue.backfill_rule('back')));
	ok($node->poll_query_until('copy', q(SELECT bool_and(state = 'done') FROM event_queue.rule_backfills)), 'a backfill there');
	is($copy->(q(SELECT count(*) FROM event_queue.job WHERE name = 'met')), '1030', 'knows what has fired');
	$copy->(q(SELECT event_queue.drop_rule('deal')));
	is($copy->(q(SELECT count(*) FROM pg_trigger WHERE tgname ~ 'event_queue_rule')), '0', 'and its triggers go');
	sql('DROP DATABASE copy WITH (FORCE)');
}

$node->stop;
done_testing();
