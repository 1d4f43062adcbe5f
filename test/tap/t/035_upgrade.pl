# ALTER EXTENSION event_queue UPDATE of a database full of everything (made by version
# 0.1.0, test/upgrade/everything.sql), with workers there and callers that call: every row
# stays, and all goes on where it was.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
));
$node->start;

sub sql
{
	my ($sql, $db) = @_;
	return $node->safe_psql($db // 'erp', $sql);
}

sub error_of
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('erp', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:  (\w+): (.*)/ ? "$1 $2" : "none: $out";
}

sub becomes
{
	my ($sql, $expected, $name) = @_;
	ok($node->poll_query_until('erp', $sql, $expected // 't'), $name);
}

my $superuser = sql('SELECT current_user', 'postgres');
my $dump = slurp_file("$ENV{TESTDIR}/everything-0.1.0.sql");
$dump =~ s/\bpostgres\b/$superuser/g;
append_to_file($node->basedir . '/everything.sql', $dump);
sql('CREATE DATABASE erp', 'postgres');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('erp'), '-f', $node->basedir . '/everything.sql' ],
	'the database of 0.1.0');
# As if the leases had been taken just now.
sql(q(SET session_replication_role = replica; UPDATE event_queue.job SET leased_until = now() + '1 hour' WHERE leased_until IS NOT NULL));
my $leased = sql('SELECT count(*) FROM event_queue.job WHERE leased_until IS NOT NULL');
cmp_ok($leased, '>=', 9, 'with leases');

# The scheduler has found the extension, and waits.
becomes(q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'erp' AND backend_type = 'event_queue scheduler'), '1', 'the scheduler is there');
is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'erp' AND backend_type IN ('event_queue executor', 'event_queue rule runner'))), '0',
	'and nothing else');

# Two callers that call on and on: one until it succeeds, one that reads what the
# update locks.
my @callers;
my @said;
for my $sql (
	q(DO $$
DECLARE refused int := 0;
BEGIN
	LOOP
		BEGIN
			PERFORM event_queue.enqueue('paused', 'by caller');
			EXIT;
		EXCEPTION WHEN SQLSTATE 'EQ045' THEN refused := refused + 1;
		END;
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RAISE NOTICE 'refused: %', refused > 0;
END $$),
	q(DO $$
BEGIN
	FOR i IN 1 .. 2000 LOOP
		PERFORM count(*) FROM event_queue.dead_letter JOIN event_queue.job USING (job_id);
		PERFORM count(*) FROM event_queue.rule JOIN event_queue.queue USING (queue_id);
		COMMIT;
		PERFORM pg_sleep(0.002);
	END LOOP;
	RAISE NOTICE 'read on';
END $$))
{
	push @said, '';
	my $in = $sql;
	push @callers, IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('erp'), '-c', $sql ], '>', \my $out, '2>', \$said[-1],
		IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default));
}
becomes(q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'erp' AND query ~ '^DO'), '2', 'callers call');

# Every row of every table, without what has another form now.
sql(q(CREATE TABLE public.old_columns AS SELECT c.relname, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND a.attname NOT IN ('owner', 'role_name');
CREATE FUNCTION public.rows_of(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE format('SELECT count(*) || '' '' || coalesce(md5(string_agg(r, '','' ORDER BY r)), ''-'') FROM (
		SELECT (SELECT jsonb_object_agg(e.key, e.value)::text FROM jsonb_each(to_jsonb(t)) e WHERE e.key = ANY (%L)) AS r FROM ONLY %s t) x',
		(SELECT array_agg(o.attname) FROM public.old_columns o WHERE o.relname = name),
		(SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relname = name AND n.nspname ~ '^event_queue(_internal)?$')) INTO result;
	RETURN result;
END
$$));
my @tables = split /\n/, sql(q(SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind = 'r' ORDER BY 1));
cmp_ok(scalar(@tables), '>=', 30, 'tables');
my $rows = join("\n", map { "SELECT '$_', public.rows_of('$_');" } @tables);
my $sequences = q(SELECT sequencename, last_value FROM pg_sequences WHERE schemaname ~ '^event_queue' ORDER BY 1;);
my $others = q(SELECT (SELECT json_agg(x ORDER BY job_id) FROM crm.job_ids x), (SELECT count(*) FROM crm.my_ready_jobs), (SELECT json_agg(x ORDER BY name) FROM crm.owners x));
my $before = sql("$rows $sequences $others");
like($before, qr/^job\|[3-9]\d /m, 'rows are counted');
like($before, qr/^event_position\|\d+$/m, 'and positions');

my $set = q(UPDATE event_queue.rule SET payload = %s WHERE name = 'off';);
# before the update, the trigger of this table refuses the new library
my $braces = 'SET LOCAL session_replication_role = replica;' . sprintf($set, q('{"a": "$.data.a", "b": ["{{b"]}'))
	. 'SET LOCAL session_replication_role = origin;';
my $filled = q(SELECT 'braces of templates stay text', payload, event_queue.map_payload(payload, '{"data": {"a": 1}}') FROM event_queue.rule WHERE name = 'off';)
	. sprintf($set, 'NULL');
my $both = sql("BEGIN; $braces ALTER EXTENSION event_queue UPDATE; $filled $rows $sequences $others; COMMIT");
my %was = map { split /\|/, $_, 2 } split /\n/, $before;
my %is = map { split /\|/, $_, 2 } split /\n/, $both;
is($is{$_}, $was{$_}, "the same: $_") for sort keys %was;
$_->finish for @callers;
like($said[0], qr/refused: t/, 'a caller was refused, and goes on in the same session');
like($said[1], qr/read on/, 'one that reads was not disturbed') or diag($said[1]);

is(sql(q(SELECT extversion = event_queue.version() FROM pg_extension WHERE extname = 'event_queue')), 't', 'the extension is of the library\'s version');
becomes(q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'erp' AND backend_type = 'event_queue executor'), '2', 'the executors come');
becomes(q(SELECT count(*) FROM pg_stat_activity WHERE datname = 'erp' AND backend_type = 'event_queue rule runner'), '1', 'and the rule runner');
is(sql(q{SELECT count(*) FROM event_queue.health() h WHERE h::text LIKE '(store,t,%'}), '1', 'the store is in service');

# Roles
is($is{'braces of templates stay text'}, '{"a": "$.data.a", "b": ["{{{{b"]}|{"a": 1, "b": ["{{b"]}', 'braces of templates stay text');
is(sql(q(SELECT name, owner::regrole FROM event_queue.rule UNION ALL SELECT job_name, owner FROM event_queue.handler
	UNION ALL SELECT aggregate_type, owner FROM event_queue.reducer ORDER BY 1)), join("\n", 'account|' . $superuser, 'do|"Up Owner"',
	"of-nobody|-", "off|$superuser", 'to function|' . $superuser, 'to queue|"Up Owner"'), 'owners are kept, one that is gone is none');
is(sql(q(SELECT role, tenant_id FROM event_queue_internal.tenant_role ORDER BY role::text)), "up_consumer|acme\nup_producer|acme", 'bindings are kept');
sql('CREATE DATABASE fresh', 'postgres');
sql(q(CREATE EXTENSION event_queue; SELECT event_queue.grant_producer('up_producer', 'acme'), event_queue.grant_consumer('up_consumer', 'acme'),
	event_queue.grant_admin('up_admin'), event_queue.grant_worker('up_worker'), event_queue.grant_observer('up_observer')), 'fresh');
my $rights = q(SELECT a.grantee::regrole, 'on', x.name, a.privilege_type FROM (
	SELECT c.oid::regclass::text, c.relacl FROM pg_class c WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	UNION ALL SELECT p.oid::regprocedure::text, p.proacl FROM pg_proc p WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	UNION ALL SELECT n.nspname, n.nspacl FROM pg_namespace n) x (name, acl), aclexplode(x.acl) a
	WHERE a.grantee::regrole::text IN (%s) AND x.name !~ '_p\d+$' ORDER BY 1, 3, 4);
for my $role (qw(up_producer up_consumer up_admin))
{
	my $query = sprintf($rights, "'$role'") =~ s/%%/%/gr;
	is(sql($query), sql($query, 'fresh'), "$role has what it would be given now, and nothing else");
}
for my $role (qw(up_worker up_observer))
{
	my $query = sprintf($rights, "'$role'");
	my %has = map { $_ => 1 } split /\n/, sql($query);
	my @lacks = grep { !$has{$_} } split /\n/, sql($query, 'fresh');
	is("@lacks", '', "$role has all that it would be given now");
	is(join(' ', grep { !/\|(SELECT|EXECUTE|USAGE)$/ } keys %has), '', "$role can't write to tables");
}
is(sql(q(SELECT has_function_privilege('up_by_hand', 'event_queue.watermark()', 'EXECUTE WITH GRANT OPTION'),
	has_table_privilege('up_by_hand', 'event_queue.jobs', 'SELECT'), has_table_privilege('up_by_hand', 'event_queue.rules', 'SELECT'))), 't|t|t', 'grants by hand');
is(sql(q(SELECT has_table_privilege('up_observer', 'crm.my_ready_jobs', 'SELECT'), obj_description('crm.my_ready_jobs'::regclass),
	(SELECT reloptions FROM pg_class WHERE oid = 'crm.my_ready_jobs'::regclass),
	(SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid IN ('crm.my_jobs'::regclass, 'crm.my_ready_jobs'::regclass, 'crm.owners'::regclass)))),
	't|A view on a view on a view of ours.|{security_barrier=true}|0', 'users\' views are as they were, and not ours');
is(sql(q(SET ROLE up_producer; SELECT event_queue.current_tenant(), (SELECT count(*) > 0 AND bool_and(tenant_id = 'acme') FROM event_queue.event_store))), 'acme|t',
	'a bound role sees its tenant');

# Events: positions go on, and nothing twice.
my $last = sql('SELECT max(position) FROM event_queue.event_store');
my $big = sql(q(SELECT count(*) FROM event_queue.jobs WHERE queue = 'ruled'));
my $seen = sql('SELECT count(*) FROM crm.seen');
cmp_ok(sql(q(SELECT position FROM event_queue.append('account', 'A1', 'account.added', '{"n": 4}', tenant_id => 'acme'))), '>', $last, 'positions go on');
sql(q(UPDATE crm.lead SET score = 7 WHERE lead_id = 'L2'));
becomes(q(SELECT count(*) FROM event_queue.jobs WHERE queue = 'ruled'), $big + 1, 'a rule fires for the new event');
becomes(q(SELECT count(*) FROM crm.seen), $seen + 1, 'and one with a function, for a recorded change');
sleep 1;
is(sql(q(SELECT (SELECT count(*) FROM event_queue.jobs WHERE queue = 'ruled'), (SELECT count(*) FROM crm.seen))), ($big + 1) . '|' . ($seen + 1), 'and for no other');
is(sql(q(SELECT event_queue.aggregate_state('account', 'A1', tenant_id => 'acme') ->> 'sum')),
	sql(q(SELECT sum((event_data ->> 'n')::int) FROM (SELECT * FROM event_queue.event_store UNION ALL SELECT * FROM archive.event_store_old3) e
		WHERE aggregate_type = 'account' AND aggregate_id = 'A1' AND tenant_id = 'acme')), 'states');
is(sql(q(SELECT count(*) FROM event_queue.read_all(0, 10000))), sql(q(SELECT count(*) FROM event_queue.event_store)), 'events of all partitions are read');

# Subscriptions: what was not acknowledged, once.
my $bucket_of = sql(q(SELECT oid::regproc FROM pg_proc WHERE proname = 'event_bucket'));
my $rest = sql(qq(SELECT count(*) FROM event_queue.event_store e, event_queue.subscription s JOIN event_queue_internal.subscription_bucket b USING (subscription_id)
	WHERE s.name = 'reader' AND b.bucket = $bucket_of(e.tenant_id, e.aggregate_type, e.aggregate_id, s.buckets) AND e.position > b.position));
cmp_ok($rest, '>', 10, 'a subscription has more to read');
like(sql(q(BEGIN; SELECT count(*), count(DISTINCT position) FROM event_queue.fetch_events('reader', 1000); SELECT event_queue.ack('reader'); COMMIT)), qr/^$rest\|$rest\n/,
	'it gets what it has not read, once');
is(sql(q(SELECT count(*) FROM event_queue.fetch_events('reader', 1000))), '0', 'and then nothing');
sql(q(BEGIN; SELECT count(*) FROM event_queue.fetch_events('acme', 1000); SELECT event_queue.ack('acme'); COMMIT));
is(sql(q(SELECT event_queue.retry_parked('acme'))), '1', 'the parked aggregate is retried');
cmp_ok(sql(q(SELECT count(*) FROM event_queue.fetch_parked('acme', 1000))), '>=', 1, 'and its events come');

# Jobs
is(sql(q(SELECT count(*) FROM event_queue.claim('limited', 5))), '0', 'the leases count against the limit of the queue');
my $in_groups = sql(q(SELECT count(*) FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'grouped' AND blocked = 0));
is(sql(q(SELECT event_queue.extend_lease(job_id, lease_token, '2 hours') > now() + '1 hour' FROM event_queue.job WHERE leased_until IS NOT NULL LIMIT 1)), 't', 'a lease is extended');
is(sql(q(WITH held AS MATERIALIZED (SELECT job_id, lease_token FROM event_queue.job WHERE leased_until IS NOT NULL ORDER BY job_id)
	SELECT count(*) FROM (SELECT event_queue.complete(job_id, lease_token) FROM held OFFSET 0) x)), $leased, 'leases of before settle');
is(sql(q(SELECT count(*) FROM event_queue.claim('limited', 5))), '2', 'and make room');
becomes(qq(SELECT count(*) = $in_groups FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'grouped' AND j.blocked = 0), 't', 'and their groups go on');
for my $family ([ 'leaf 1', 'leaf 2', 'top' ], [ 'of batch', 'of batch', 'end of batch' ])
{
	my ($first, $second, $end) = @$family;
	sql(qq(SELECT event_queue.complete(job_id, lease_token, '{}') FROM event_queue.claim('plain', 2, job_names => ARRAY['$first', '$second'])));
	becomes(qq(SELECT state FROM event_queue.jobs WHERE name = '$end'), 'ready', "$end comes after what it depends on");
}
sql(q(SELECT event_queue.retry_dead(job_id) FROM event_queue.dead_letters WHERE name = 'to fail'));
sql(q(SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('plain', 1, job_names => ARRAY['to fail'])));
becomes(q(SELECT state FROM event_queue.jobs WHERE name = 'after the dead one'), 'ready', 'a dead letter is retried, and what depends on it comes');
is(sql(q(SELECT event_queue.enqueue('once', 'throttled', options => '{"unique_key": "t", "unique_mode": "throttle", "unique_window": "30000 days"}')
	= (SELECT job_id FROM event_queue.jobs WHERE name = 'throttled'))), 't', 'windows of unique keys hold');
is(sql(q(SELECT event_queue.enqueue('once', 'rejecting', options => '{"unique_key": "r"}') IS DISTINCT FROM (SELECT max(job_id) FROM event_queue.job))), 't', 'and unique keys');
is(sql(q(SELECT count(*) FROM event_queue.jobs WHERE name = 'rejecting')), '1', 'one job of the key');
sql(q(SELECT event_queue.enqueue('handled', 'do', '{"by": "new"}')));
becomes(q(SELECT count(*) FROM crm.task WHERE payload ->> 'by' = 'new'), '1', 'handlers run');
is(sql(q(SELECT count(*) FROM event_queue.history WHERE name = 'to complete')), '1', 'history');
is(sql(q(SELECT count(DISTINCT tenant_id) FROM (SELECT tenant_id FROM event_queue.claim('fair', 3)) x)), '3', 'a fair queue is fair');
sql(q(UPDATE event_queue.schedule SET next_run = now() WHERE name = 'nightly'));
becomes(q(SELECT count(*) FROM crm.task WHERE payload ->> 'by' = 'schedule'), '1', 'schedules run');
is(sql(q(SELECT string_agg(message, ',') FROM event_queue.job_log)), 'half done,half done', 'log lines');

# Partitions, and the way out
like(sql(q(SELECT event_queue.create_event_partition())), qr/^event_store_p\d+$/, 'a new partition');
like(error_of(q(SET session_replication_role = replica; DELETE FROM event_queue.event_store)), qr/^EQ007/, 'events are guarded');
is(sql(q(SELECT count(*) FROM event_queue.faults())), '0', 'nothing fails');
# What is compared stands still.
sql('SELECT event_queue.pause_queue(name) FROM event_queue.queue WHERE queue_id > 2');
becomes(q(SELECT count(*) FROM event_queue.job WHERE leased_by LIKE 'event_queue executor%' AND leased_until > now()), '0', 'no handler runs');
my $path = $node->basedir . '/upgraded.sql';
$node->command_ok([ 'pg_dump', '-f', $path, $node->connstr('erp') ], 'pg_dump of the upgraded database');
sql('CREATE DATABASE copy', 'postgres');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $path ], 'is restored');
my $content = q(SELECT (SELECT count(*) FROM event_queue.event_store), (SELECT count(*) FROM event_queue.job), (SELECT count(*) FROM event_queue.rule),
	(SELECT max_attempts FROM event_queue.queue WHERE name = 'rule-calls'), (SELECT count(*) FROM event_queue_internal.event_index));
sql('SELECT event_queue.activate()', 'copy');
is(sql($content, 'copy'), sql($content), 'with all');
sql('DROP EXTENSION event_queue CASCADE');
is(sql(q(SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname ~ '^event_queue')), '0', 'DROP EXTENSION leaves nothing');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:|terminated by signal|deadlock detected/, 'no crash and no deadlock');
$node->stop;
done_testing();
