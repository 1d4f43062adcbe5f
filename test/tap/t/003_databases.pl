# Workers come and go with the extension and the database; dumps carry all.
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
max_prepared_transactions = 5
));
$node->start;
my $workers = sub {
	my ($db, $all) = @_;
	return "SELECT count(*) FROM pg_stat_activity WHERE datname = '$db' AND backend_type " .
		($all ? "LIKE 'event_queue%'" : "IN ('event_queue scheduler', 'event_queue executor')");
};
my $comes_to = sub {
	my ($sql, $result, $name) = @_;
	ok($node->poll_query_until('postgres', $sql, $result), $name);
};
my $comes_to_in = sub {
	my ($db, $sql, $name) = @_;
	ok($node->poll_query_until($db, $sql), $name);
};

$node->safe_psql('postgres', 'CREATE DATABASE erp');
$node->safe_psql('erp', 'CREATE EXTENSION event_queue');
$comes_to->($workers->('erp'), '3', 'a scheduler and two executors come by themselves');
is($node->safe_psql('postgres', $workers->('postgres', 1)), '0', 'and only where the extension is');

# NOTIFY: sent by the worker, after commit.
{
	my ($in, $out, $err) = ('', '', '');
	my $session = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('erp') ], '<', \$in, '>', \$out, '2>', \$err);
	$in .= qq(LISTEN "event_queue.mail"; LISTEN customers; SELECT 'listening';\n);
	IPC::Run::pump($session) until $out =~ /listening/;
	$node->safe_psql('erp', qq(SELECT event_queue.create_queue('mail'); CREATE TABLE customer (id int);
		SELECT event_queue.notify_on('customer', 'customers')));
	sleep 1;
	$node->safe_psql('erp', q(BEGIN; SELECT event_queue.enqueue('mail', 'x'); INSERT INTO customer VALUES (1); COMMIT));
	for (1 .. 100)
	{
		$in .= "SELECT 1;\n";
		IPC::Run::pump($session);
		last if $out =~ /notification "event_queue.mail"/ && $out =~ /notification "customers"/;
		select(undef, undef, undef, 0.05);
	}
	like($out, qr/notification "event_queue.mail"/, 'listeners of the queue are notified');
	like($out, qr/notification "customers"/, 'and those of a table with notify_on');
	$in .= "\\q\n";
	$session->finish;
}

my ($status, $out, $err) = $node->psql('erp', q(BEGIN; SELECT event_queue.append('a', '1', 'x'); PREPARE TRANSACTION 'p'),
	extra_params => ['-v', 'VERBOSITY=verbose']);
like($err, qr/EQ008: cannot prepare a transaction that has appended events/, 'no two-phase commit after an append');
$node->safe_psql('erp', q(BEGIN; SELECT event_queue.enqueue('mail', 'prepared'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'));
is($node->safe_psql('erp', q(SELECT count(*) FROM event_queue.jobs WHERE name = 'prepared')), '1', 'a job may be prepared');

# A clean restart: positions go on.
my $before = $node->safe_psql('erp', q(SELECT position FROM event_queue.append('a', '1', 'before')));
$node->restart;
cmp_ok($node->safe_psql('erp', q(SELECT position FROM event_queue.append('a', '1', 'after'))), '>', $before, 'positions go on after a restart');
$comes_to->($workers->('erp'), '3', 'and the workers are back');

# Dump and restore.
$node->safe_psql('erp', q(CREATE FUNCTION h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
	SELECT event_queue.create_queue('inside'); SELECT event_queue.create_handler('inside', '*', 'h');
	SELECT event_queue.create_rule('r', 'never.**', queue => 'inside', job_name => 'x');
	SELECT event_queue.enqueue('mail', 'later', delay => '1 day', tenant_id => 'acme')));
# With a partition, a subscription with a parked event, a reducer and snapshots.
$node->safe_psql('erp', q(SELECT event_queue.create_subscription('s'); SELECT event_queue.append('a', '9', 'old');
	SELECT event_queue.create_event_partition(); SELECT event_queue.append('a', '9', 'new', '{"n": 1}');
	SELECT event_queue.park_event('s', position, 'poison') FROM event_queue.fetch_events('s') WHERE aggregate_id = '9' ORDER BY position LIMIT 1;
	SELECT event_queue.set_event_partitioning('1 day');
	SELECT event_queue.create_reducer('a', snapshot_every => 1)));
# With finished jobs: kept for days, forever, and one that came before its partition.
$node->safe_psql('erp', q(SELECT event_queue.create_queue('days', keep_completed => '30 days'); SELECT event_queue.create_queue('ever', keep_completed => '1000 years')));
ok($node->poll_query_until('erp', q(SELECT count(*) >= 2 FROM pg_class WHERE relname ~ '^job_history_d_')), 'a queue that keeps jobs has partitions');
$node->safe_psql('erp', qq(SELECT event_queue.enqueue('$_', 'kept'); SELECT event_queue.complete(job_id, lease_token, '{"n": 1}') FROM event_queue.claim('$_'))) for qw(days ever);
$node->safe_psql('erp', q(INSERT INTO event_queue.job_history SELECT (jsonb_populate_record(h, '{"job_id": 0, "span": 4}')).* FROM event_queue.job_history_forever h));
$node->safe_psql('erp', q(UPDATE event_queue.job_history SET expires_at = now() + interval '5 years' WHERE job_id = 0));
# and a partition whose time is over: the restored database must not drop it while it is being filled.
$node->safe_psql('erp', q(CREATE TABLE event_queue.job_history_m_202001 (LIKE event_queue.job_history_early INCLUDING ALL);
	ALTER TABLE event_queue.job_history ATTACH PARTITION event_queue.job_history_m_202001 FOR VALUES FROM (2, '2020-01-01 00:00+00') TO (2, '2020-02-01 00:00+00')));
$node->safe_psql('erp', q(INSERT INTO event_queue_internal.group_rate SELECT queue_id, 'acme', 'k', now() + interval '1 day' FROM event_queue.queue WHERE name = 'days'));
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my $dump = $node->data_dir . '/../erp.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('erp') ], 'pg_dump');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'restore');
for my $table (qw(event_store queue job rule handler channel subscription subscription_bucket
	subscription_parked event_partition partition_policy reducer job_history job_history_early job_history_forever group_rate))
{
	my $where = $table eq 'queue' ? 'WHERE queue_id > 2' : '';	# made by CREATE EXTENSION
	my $sql = "SET search_path = event_queue, event_queue_internal; SELECT count(*), md5(string_agg(t::text, ',' ORDER BY t::text)) FROM $table t $where";
	is($node->safe_psql('copy', $sql), $node->safe_psql('erp', $sql), "$table is in the dump");
}
$node->safe_psql('copy', 'SELECT event_queue.activate()');
is($node->safe_psql('copy', q(SELECT queue, result FROM event_queue.history WHERE expires_at < now() + interval '31 days')), 'days|{"n": 1}', 'finished jobs are seen');
is($node->safe_psql('copy', q(SELECT count(*) >= 4 AND bool_and(c.relrowsecurity AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
	AND (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) = (SELECT count(*) FROM pg_index WHERE indrelid = 'event_queue.job_history_early'::regclass)) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
	WHERE inhparent = 'event_queue.job_history'::regclass AND relname !~ '202001')), 't', 'in partitions with their indexes and policies');
$node->safe_psql('copy', q(SELECT event_queue.enqueue('days', 'kept'); SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('days')));
is($node->safe_psql('copy', q(SELECT count(DISTINCT tableoid) FROM event_queue.job_history WHERE span = 1)), '1', 'and the next ones join them');
$comes_to_in->('copy', q(SELECT to_regclass('event_queue.job_history_m_202001') IS NULL), 'those whose time is over are dropped in the copy, too');
is($node->safe_psql('copy', q(SELECT event_queue.aggregate_version('a', '9'), event_queue.aggregate_state('a', '9'),
	(SELECT version FROM event_queue.append('a', '9', 'copied', '{}', 2)))), '2|{"n": 1}|3', 'aggregates go on in the copy, across its partitions');
is($node->safe_psql('copy', q(SELECT tableoid::regclass FROM event_queue.event_store WHERE event_type = 'copied')),
	$node->safe_psql('erp', q(SELECT tableoid::regclass FROM event_queue.event_store WHERE event_type = 'new')), 'in the newest one');
is($node->safe_psql('copy', q(SELECT event_type FROM event_queue.fetch_events('s') WHERE aggregate_id = '9')), '', 'what was parked is parked');
is($node->safe_psql('copy', q(SELECT a.position > (SELECT max(position) FROM event_queue.event_store WHERE position <> a.position)
	FROM event_queue.append('a', '2', 'x') a)), 't', 'positions go on above the restored ones');
$comes_to->($workers->('copy'), '3', 'workers come to the restored database');

# Leaving.
$node->safe_psql('copy', 'DROP EXTENSION event_queue CASCADE');
$comes_to->($workers->('copy', 1), '0', 'workers leave when the extension is dropped');
$node->safe_psql('copy', 'CREATE EXTENSION event_queue');
$comes_to->($workers->('copy'), '3', 'and come back with it');
is($node->safe_psql('copy', q(SELECT position < 100 FROM event_queue.append('a', '1', 'x'))), 't', 'a new store begins anew');
$node->safe_psql('postgres', 'CREATE DATABASE copy2 TEMPLATE copy');
$node->safe_psql('copy2', 'SELECT event_queue.activate()');
$comes_to->($workers->('copy2'), '3', 'a copied database has workers of its own');
$comes_to->($workers->('copy'), '3', 'and the template has them back');
my $renames = $node->background_psql('postgres');
$renames->query_safe('BEGIN; ALTER DATABASE copy2 RENAME TO copy3');
sleep 1;
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_locks WHERE NOT granted'), '0', 'they do not come before the transaction ends');
$renames->query_safe('COMMIT');
$renames->quit;
$comes_to->($workers->('copy3'), '3', 'but then');
$node->safe_psql('postgres', 'DROP DATABASE copy3');
$node->safe_psql('postgres', 'DROP DATABASE copy');
pass('DROP DATABASE does not wait for the workers');

# What takes the extension with it does not wait for the workers either.
$node->safe_psql('postgres', 'CREATE ROLE boss SUPERUSER LOGIN');
$node->safe_psql('postgres', 'CREATE DATABASE other_ways');
for my $drop ('DROP SCHEMA event_queue CASCADE', 'DROP OWNED BY boss CASCADE', 'DROP EXTENSION plpgsql CASCADE')
{
	$node->safe_psql('other_ways', q(
		SET ROLE boss;
		CREATE SCHEMA event_queue;
		CREATE EXTENSION event_queue;
		CREATE FUNCTION look(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
			'SELECT count(*) FROM event_queue.job; SELECT pg_sleep(600)';
		SELECT event_queue.create_queue('q', lease => '1 hour');
		SELECT event_queue.create_handler('q', '*', 'look');
		SELECT event_queue.enqueue('q', 'j')));
	$comes_to_in->('other_ways', q(SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type = 'event_queue executor'), 'a handler runs');
	my ($status, $out, $err) = $node->psql('other_ways', "SET lock_timeout = '60s'; $drop");
	is($status, 0, $drop) or diag($err);
	is($node->safe_psql('other_ways', q(SELECT count(*) FROM pg_extension WHERE extname = 'event_queue')), '0', 'drops it');
	$comes_to->($workers->('other_ways', 1), '0', 'and the workers have left');
	$node->safe_psql('other_ways', 'DROP SCHEMA IF EXISTS event_queue; CREATE EXTENSION IF NOT EXISTS plpgsql');
}
$node->safe_psql('other_ways', 'CREATE EXTENSION event_queue');
$comes_to->($workers->('other_ways'), '3', 'they come back with it');
$node->safe_psql('postgres', 'DROP DATABASE other_ways');

# Restricting.
$node->append_conf('postgresql.conf', "event_queue.databases = 'other'");
$node->reload;
$comes_to->($workers->('erp', 1), '0', 'event_queue.databases keeps workers out');
$node->append_conf('postgresql.conf', "event_queue.databases = 'erp, other'\nevent_queue.executors = 1");
$node->reload;
$comes_to->($workers->('erp'), '2', 'and lets them in; executors can be changed live');
# a list that can't be read: while the server runs, what held holds
my $bad = "event_queue.databases = 'erp,, other'";
$node->append_conf('postgresql.conf', "$bad\nevent_queue.executors = 3");
$node->reload;
$comes_to->($workers->('erp'), '4', 'a bad list is refused, and the workers stay');
like(slurp_file($node->logfile), qr/invalid value for parameter "event_queue.databases"/, 'the log says it');
my $said = () = slurp_file($node->logfile) =~ /invalid list in setting/g;
$node->restart;
$node->safe_psql('erp', 'SELECT pg_reload_conf()') for 1 .. 3;
$node->poll_query_until('erp', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_queue launcher')) or die;
$node->wait_for_log(qr/invalid list in setting/);
is($node->safe_psql('erp', 'SELECT count(*) FROM event_queue.workers()'), '0', 'when the server starts, it names no database');
my $parallel = $node->pg_version >= 16 ? 'debug_parallel_query' : 'force_parallel_mode';
is($node->safe_psql('erp', "SET $parallel = on; SELECT count(*) > 0 FROM event_queue.queue"), 't', 'and parallel workers start all the same');
$node->append_conf('postgresql.conf', "event_queue.databases = 'erp'");
$node->reload;
$comes_to->($workers->('erp'), '4', 'until it is corrected');
is(scalar(() = slurp_file($node->logfile) =~ /invalid list in setting/g), $said + 1, 'which is said once');
$node->stop;
done_testing();
