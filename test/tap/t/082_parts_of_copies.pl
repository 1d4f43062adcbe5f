# What becomes of leases, timers, webhooks and ids in a restored store; dumps that lack
# checkpoints or bring jobs alone; a subscriber of all tables; names in a collation that
# ignores case.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 48
));
$node->start;
my $dir = $node->data_dir . '/..';

sub sql
{
	my ($db, $sql) = @_;
	return $node->safe_psql($db, $sql);
}

# What psql says of a statement, warnings too.
sub said
{
	my ($db, $sql) = @_;
	my ($status, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ s/^psql:<stdin>:\d+: //mgr;
}
sub restored
{
	my ($db, @dump) = @_;
	$node->command_ok([ 'pg_dump', '-f', "$dir/$db.sql", @dump, $node->connstr('erp') ], "pg_dump for $db");
	sql('postgres', "CREATE DATABASE $db");
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', "$dir/$db.sql" ], 'is restored');
}

sql('postgres', 'CREATE DATABASE erp');
sql('erp', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (name text);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES (job.name)';
SELECT event_queue.create_queue('tasks'), event_queue.create_queue('outside', lease => '1 hour'), event_queue.create_queue('once', max_stalled => 0);
SELECT event_queue.create_handler('tasks', '*', 'public.work');
SELECT event_queue.create_subscription('reader', buckets => 3, from_position => 0);
SELECT count(event_queue.append('e', (i % 10)::text, 'e.x')) FROM generate_series(1, 40) i;
BEGIN; SELECT count(*) FROM event_queue.fetch_events('reader', 30); SELECT event_queue.ack('reader'); COMMIT;
SELECT event_queue.create_schedule('yearly', '0 0 1 1 *', 'tasks', 'scheduled');
SELECT event_queue.enqueue('outside', 'held'), event_queue.enqueue('outside', 'ran out'), event_queue.enqueue('once', 'ran out');
));
my ($held, $token) = split /\|/, sql('erp', q(SELECT job_id, lease_token FROM event_queue.claim('outside')));
sql('erp', q(SELECT event_queue.claim('outside', lease => '1 second'), event_queue.claim('once', lease => '1 second')));
# Due when it is restored, and not before it is dumped.
sql('postgres', q(ALTER SYSTEM SET event_queue.databases = 'none'));
$node->reload;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'erp' AND backend_type ~ '^event_queue')), 'workers sent away');
sql('erp', q(SELECT event_queue.enqueue('tasks', 'timer', delay => '10 ms'); UPDATE event_queue.schedule SET next_run = now() - interval '3 years'));

restored('copy');
my $lost = sql('erp', q(SELECT event_queue.enqueue('outside', 'lost')));
sql('postgres', 'ALTER SYSTEM RESET event_queue.databases');
$node->reload;
ok($node->poll_query_until('copy', q(SELECT count(*) FILTER (WHERE leased_until < now()) = 2 AND count(leased_until) = 3 FROM event_queue.jobs WHERE queue <> 'tasks')), 'the copy has the leases of the original, two of which have run out');
sql('copy', 'SELECT event_queue.activate()');
ok($node->poll_query_until('copy', q(SELECT string_agg(name, ', ' ORDER BY name) = 'scheduled, timer' FROM done)), 'what is overdue runs at once, a schedule one time');
cmp_ok(sql('copy', q(SELECT event_queue.enqueue('outside', 'new', priority => 9))), '>', 1 << 40, 'a new job does not get the id of a lost one');
is(sql('copy', q(SELECT name, stalled FROM event_queue.claim('outside'))), 'ran out|1', 'a lease that has run out counts as stalled');
is(sql('copy', qq(SELECT event_queue.complete($held, '$token'))), 't', 'one that has not is still its worker\'s');
is(sql('copy', q(SELECT count(*) FROM event_queue.claim('once'))), '0', 'what may not stall is not run again');
is(sql('copy', q(SELECT name, reason FROM event_queue.dead_letters)), 'ran out|stalled', 'but dead');
is(sql('copy', q(SELECT count(DISTINCT position), min(position) FROM event_queue.fetch_events('reader', 100))), '10|31', 'a consumer goes on after what it has acknowledged');
my $first = sql('copy', q(SELECT event_queue.enqueue('tasks', 'x')));
sql('copy', 'SELECT event_queue.new_generation()');
cmp_ok(sql('copy', q(SELECT event_queue.enqueue('tasks', 'x'))), '>', $first + (1 << 39), 'nor after any other start of a generation');
sql('postgres', 'DROP DATABASE copy');

# Without checkpoints nobody begins at the first event.
restored('unchecked', '--exclude-table-data=event_queue_internal.subscription_bucket');
like(said('unchecked', 'SELECT event_queue.activate()'), qr/^WARNING:  01000: subscriptions without checkpoint: reader$/m, 'activate tells of a subscription without checkpoint');
like(said('unchecked', q(SELECT event_queue.fetch_events('reader'))), qr/^ERROR:  EQ025: the checkpoint of subscription "reader" is missing$/m, 'whose events do not come again');
is(sql('unchecked', q(SELECT event_queue.reset_subscription('reader', 30); SELECT min(position) FROM event_queue.fetch_events('reader'))), "t\n31", 'but from where reset_subscription says');
sql('postgres', 'DROP DATABASE unchecked');

# Jobs alone come to the queues that have their numbers.
sql('postgres', 'CREATE DATABASE alone');
sql('alone', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('mine'), event_queue.create_queue('other')));
$node->command_ok([ 'pg_dump', '--data-only', '-t', 'event_queue.job', '-f', "$dir/jobs.sql", $node->connstr('erp') ], 'jobs alone');
my ($out, $err);
IPC::Run::run([ 'psql', '-Xq', '-d', $node->connstr('alone'), '-f', "$dir/jobs.sql" ], '>', \$out, '2>', \$err);
like($err, qr/WARNING:  the event store is out of service until event_queue\.activate\(\)\n/, 'a store in service tells that it is put out of it');
like(said('alone', 'BEGIN; SELECT event_queue.activate(); ROLLBACK'), qr/^WARNING:  01000: only parts of a dump were loaded: .*\nDETAIL:  Jobs and dead letters: other \(\d+\)\.$/m, 'and whose the jobs would be');
is(sql('alone', 'SELECT event_queue.activation_state()'), 'not loaded', 'before they run');
sql('postgres', 'DROP DATABASE alone');

# A role that is not there: COPY of the tables that name it fails as a whole, of all roles.
sql('erp', q(CREATE ROLE gone; CREATE ROLE gone_too; CREATE ROLE acme_web;
	SELECT event_queue.grant_producer('acme_web', 'acme'), event_queue.grant_producer('gone_too', 'acme'), event_queue.grant_admin('gone');
	GRANT CREATE ON SCHEMA public TO gone; SET ROLE gone;
	CREATE FUNCTION theirs(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
	SELECT event_queue.create_handler('once', '*', 'theirs')));
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/roles.custom", $node->connstr('erp') ], 'pg_dump with roles');
sql('postgres', 'ALTER ROLE gone RENAME TO other_name; ALTER ROLE gone_too RENAME TO other_name_too; CREATE DATABASE roles');
IPC::Run::run([ 'pg_restore', '-d', $node->connstr('roles'), "$dir/roles.custom" ], '>', \$out, '2>', \$err);
like($err, qr/role "gone" does not exist/, 'a restore where two roles are missing');
is(sql('roles', 'SELECT (SELECT count(*) FROM event_queue.handler), (SELECT count(*) FROM event_queue_internal.tenant_role)'), '0|0', 'brings no handler, and no tenant of a role');
like(said('roles', 'SELECT event_queue.activate()'), qr/^ERROR:  EQ036: cannot activate: tables were not loaded\nDETAIL:  COPY has failed for: event_queue\.handler, event_queue_internal\.tenant_role\.\nHINT: /m, 'which activate refuses');
# Also where no trigger is fired.
sql('postgres', 'CREATE DATABASE disabled');
IPC::Run::run([ 'pg_restore', '--section=pre-data', '-d', $node->connstr('disabled'), "$dir/roles.custom" ], '>', \$out, '2>', \$err);
IPC::Run::run([ 'pg_restore', '--data-only', '--disable-triggers', '-d', $node->connstr('disabled'), "$dir/roles.custom" ], '>', \$out, '2>', \$err);
like($err, qr/role "gone" does not exist/, 'a restore with disabled triggers');
IPC::Run::run([ 'pg_restore', '--section=post-data', '-d', $node->connstr('disabled'), "$dir/roles.custom" ], '>', \$out, '2>', \$err);
like(said('disabled', 'SELECT event_queue.activate()'), qr/^ERROR:  EQ036: cannot activate: tables were not loaded\nDETAIL:  COPY has failed for: event_queue\.handler, event_queue_internal\.tenant_role\.\nHINT: /m, 'is refused, too');
sql('postgres', 'DROP DATABASE disabled');
sql('postgres', 'ALTER ROLE other_name RENAME TO gone; ALTER ROLE other_name_too RENAME TO gone_too');
$node->command_ok([ 'pg_restore', '-e', '--data-only', '-n', 'event_queue', '-t', 'handler', '-d', $node->connstr('roles'), "$dir/roles.custom" ], 'handlers again');
like(said('roles', 'SELECT event_queue.activate()'), qr/COPY has failed for: event_queue_internal\.tenant_role\.$/m, 'is not all');
$node->command_ok([ 'pg_restore', '-e', '--data-only', '-n', 'event_queue_internal', '-t', 'tenant_role', '-d', $node->connstr('roles'), "$dir/roles.custom" ], 'roles of tenants again');
like(sql('roles', 'SELECT event_queue.activate()'), qr/^1-/, 'then it activates');
is(sql('roles', 'SELECT count(*) FROM event_queue_internal.tenant_role'), '2', 'with the tenants of the roles');
is(sql('roles', 'SELECT last_value FROM event_queue_internal.failed_loads'), '0', 'and no load is left that failed');
sql('postgres', 'DROP DATABASE roles');

# A subscriber of all tables, from the first copy to the day when it takes over.
$node->command_ok([ 'pg_dump', '--schema-only', '-f', "$dir/schema.sql", $node->connstr('erp') ], 'pg_dump --schema-only');
sql('erp', q(CREATE PUBLICATION everything FOR ALL TABLES; SELECT pg_create_logical_replication_slot('replica', 'pgoutput')));
sql('postgres', 'CREATE DATABASE replica');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('replica'), '-f', "$dir/schema.sql" ], 'a subscriber has the tables of the publisher');
my $publisher = $node->connstr('erp');
sql('replica', "CREATE SUBSCRIPTION replica CONNECTION \$\$$publisher\$\$ PUBLICATION everything WITH (create_slot = false)");
ok($node->poll_query_until('replica', q(SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel)), 'all tables are copied');
sql('erp', q(SELECT event_queue.create_queue('later'), event_queue.enqueue('later', 'x'), event_queue.append('e', '1', 'e.later')));
ok($node->poll_query_until('replica', q(SELECT (SELECT count(*) FROM event_queue.job WHERE name = 'x') + (SELECT count(*) FROM event_queue.event_store WHERE event_type = 'e.later') = 2)), 'what is done later arrives, too');
my $sums = q(SELECT (SELECT count(*) FROM event_queue.event_store), (SELECT string_agg(queue_id || name, ' ' ORDER BY queue_id) FROM event_queue.queue), (SELECT count(*) FROM event_queue.job), (SELECT max(audit_id) FROM event_queue.audit_log));
is(sql('replica', $sums), sql('erp', $sums), 'as it is in the original');
is(sql('replica', 'SELECT count(*) FROM done'), sql('erp', 'SELECT count(*) FROM done'), 'nothing runs here');
sql('replica', 'DROP SUBSCRIPTION replica');
sql('replica', 'SELECT event_queue.activate()');
is(sql('replica', q(SELECT count(*) FROM event_queue.claim('later'))), '1', 'taken over, it works');
my $last = sql('replica', 'SELECT max(audit_id) FROM event_queue.audit_log');
cmp_ok(sql('replica', q(SELECT event_queue.create_queue('here') - (SELECT queue_id FROM event_queue.queue WHERE name = 'later'))), '>', 0, 'ids go on');
is(sql('replica', qq(SELECT count(*) > 0 FROM event_queue.audit_log WHERE object = 'here' AND audit_id > $last)), 't', 'also those of the audit log');
sql('postgres', 'DROP DATABASE replica');
sql('erp', 'DROP PUBLICATION everything');

# A subscription that ends before the queues have come.
sql('postgres', 'CREATE DATABASE halfway');
sql('halfway', 'CREATE EXTENSION event_queue');
sql('erp', q(CREATE PUBLICATION queues FOR TABLE event_queue.queue; SELECT pg_create_logical_replication_slot('halfway', 'pgoutput')));
sql('halfway', "CREATE SUBSCRIPTION halfway CONNECTION \$\$$publisher\$\$ PUBLICATION queues WITH (create_slot = false, enabled = false)");
sql('halfway', 'ALTER SUBSCRIPTION halfway SET (slot_name = NONE); DROP SUBSCRIPTION halfway; SELECT event_queue.activate()');
is(sql('halfway', 'SELECT count(*) FROM event_queue.queue WHERE queue_id IN (1, 2)'), '2', 'activate brings the built-in queues back');

# Names with a collation that ignores case are those of one object.
SKIP:
{
	skip 'this server has no ICU', 1
		unless $node->psql('halfway', q(CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false))) == 0;
	sql('halfway', q(CREATE TABLE names (name text COLLATE no_case); INSERT INTO names VALUES ('mail');
		SELECT event_queue.create_queue('mail'), event_queue.create_queue('MAIL'), event_queue.create_calendar('mail', 'UTC', if_not_exists => true)));
	is(sql('halfway', q(SELECT event_queue.pause_queue(name) FROM names)), 't', 'pause_queue');
	is(sql('halfway', q(SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM event_queue.queue WHERE paused)), 'mail', 'pauses one queue');
	is(sql('halfway', q(SELECT event_queue.enqueue(name, name, unique_key => upper(name)) > 0, event_queue.cancel_jobs(name, name), event_queue.cancel_jobs(name, upper(name)) FROM names)), 't|0|1', 'keys differ by case');
	is(sql('halfway', q(SELECT event_queue.create_subscription(name) > 0, event_queue.create_subscription(upper(name)) > 0 FROM names)), 't|t', 'two subscriptions');
	is(sql('halfway', q(SELECT event_queue.drop_subscription(name) FROM names; SELECT name FROM event_queue.subscription)), "t\nMAIL", 'one of which is dropped');
	is(sql('halfway', q(SELECT event_queue.create_rule(name, 'a.**', queue => name, job_name => name) > 0 FROM names; SELECT count(*) FROM names, event_queue.test_rule(name))), "t\n0", 'and patterns may be compared');
}
is(sql('halfway', q(SELECT string_agg(p.oid::regprocedure::text, ' ') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace) AND l.lanname IN ('sql', 'plpgsql') AND p.prokind = 'f' AND p.prosupport = 0
	  AND EXISTS (SELECT FROM unnest(p.proargtypes) a (type) JOIN pg_type t ON t.oid = a.type WHERE t.typcollation <> 0))), '', 'no function compares names by the collation of its caller');
$node->stop;
done_testing();
