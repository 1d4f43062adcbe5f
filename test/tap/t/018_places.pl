# Places in shared memory: who takes them, who gives them back, and what is said when there are none.
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
event_queue.executors = 1
event_queue.max_databases = 2
event_queue.max_queues = 64
fsync = off
));
$node->start;
sub sql { my ($db, $sql) = @_; return $node->safe_psql($db, $sql); }
sub err { my ($db, $sql) = @_; my ($status, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]); return $err; }

# Databases: one without the extension takes nothing, and DROP EXTENSION of another one asks for nothing.
sql('postgres', "CREATE DATABASE d$_") for 1 .. 3;
sql("d$_", 'CREATE EXTENSION event_queue') for 1 .. 2;
is(err('d3', 'DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql; DROP EXTENSION plpgsql'), '', 'DROP EXTENSION of others costs nothing');
like(err('d3', 'CREATE EXTENSION plpgsql; CREATE EXTENSION event_queue'), qr/53400: too many databases use event_queue\n.*Raise event_queue.max_databases/,
	'no room for one more database');
sql('d2', 'DROP EXTENSION event_queue');
$node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'd2')) or die 'workers of d2 stay';
is(err('d3', 'CREATE EXTENSION event_queue'), '', 'DROP EXTENSION gives the place of a database back');
like(err('d2', 'CREATE EXTENSION event_queue'), qr/Raise event_queue.max_databases/, 'and then it is taken');
sql('postgres', 'DROP DATABASE d3');
ok($node->poll_query_until('d2', q(SELECT true)) && (grep { err('d2', 'CREATE EXTENSION IF NOT EXISTS event_queue') eq '' || !sleep 1 } 1 .. 30),
	'DROP DATABASE, too');

# CREATE and DROP EXTENSION a hundred times in one session; workers come back, and counters count their own.
sql('d1', 'DROP EXTENSION event_queue');
sql('d1', join('', map { qq(
	CREATE EXTENSION event_queue;
	SELECT event_queue.create_queue('q', rate_limit => 100, max_concurrency => 5), event_queue.create_queue('fair', fair => true);
	SELECT event_queue.enqueue('q', 'j'), event_queue.enqueue('fair', 'j'), event_queue.append('a', '1', 'x');
	SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('q', 10);
	SELECT event_queue.aggregate_version('a', '1');
	DROP EXTENSION event_queue;) } 1 .. 100));
sql('d1', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('q');
	CREATE TABLE seen (job_id bigint);
	CREATE FUNCTION h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (job.job_id)';
	SELECT event_queue.create_handler('q', '*', 'h')));
sql('d1', q(SELECT event_queue.enqueue('q', 'j')));
ok($node->poll_query_until('d1', 'SELECT count(*) = 1 FROM seen'), 'after a hundred CREATE and DROP EXTENSION handlers run');
ok($node->poll_query_until('d1', q(SELECT (enqueued, completed) = (1, 1) FROM event_queue_internal.queue_counters() WHERE queue_id = event_queue_internal.queue_id_of('q'))),
	'and counters begin again');
# workers notice it, too, when they look away
sql('d1', q(DROP EXTENSION event_queue CASCADE; CREATE EXTENSION event_queue; SELECT event_queue.create_queue('q')));
sql('d1', q(CREATE OR REPLACE FUNCTION h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (-1)';
	SELECT event_queue.create_handler('q', '*', 'h')));
sql('d1', q(SELECT event_queue.enqueue('q', 'j')));
ok($node->poll_query_until('d1', 'SELECT count(*) = 2 FROM seen'), 'dropped and created again at once');

# Queues: a dropped one gives its place back, with its limits, marks and leases.
for my $workers ('with', 'without')
{
	$node->append_conf('postgresql.conf', q(event_queue.databases = 'none')) if $workers eq 'without';
	$node->restart if $workers eq 'without';
	sql('d1', q(DO $$
		DECLARE
			n bigint;
		BEGIN
			FOR i IN 1 .. 200 LOOP
				PERFORM event_queue.create_queue('t' || i, rate_limit => 5, max_concurrency => 7);
				PERFORM event_queue.enqueue_many('t' || i, to_jsonb(array_fill('{}'::jsonb, '{6}')), options => '{"name": "j"}');
				COMMIT;
				SELECT count(*) INTO STRICT n FROM event_queue.claim('t' || i, 10);
				ASSERT n = 5, format('queue %s: %s claimed', i, n);
				COMMIT;
				PERFORM event_queue.drop_queue('t' || i, true);
				COMMIT;
				BEGIN
					PERFORM event_queue.create_queue('u' || i);
					PERFORM 1 / 0;
				EXCEPTION WHEN division_by_zero THEN
					NULL;
				END;
			END LOOP;
		END $$));
	pass("200 queues created, used, dropped, and rolled back, $workers workers");
	my $left = $workers eq 'with' ? 1 : 0;
	ok($node->poll_query_until('d1', "SELECT count(*) = $left FROM event_queue_internal.queue_counters() WHERE queue_id > 2"), 'their counters are gone');
}
is(sql('d1', q(SELECT count(d.depth) FROM generate_series(1000, 3000) n, event_queue_internal.queue_depth(n) d)), '0', 'who asks for what is not there takes nothing');
$node->append_conf('postgresql.conf', q(event_queue.databases = ''));
$node->restart;

# One database does not take all.
like(err('d1', q(SELECT event_queue.create_queue('v' || n) FROM generate_series(1, 100) n)),
	qr/53400: no room in shared memory for one more queue or channel\n.*\n.*Raise event_queue.max_queues/s, 'a database that wants all is refused');
sql('d1', q(SELECT event_queue.create_queue('v' || n) FROM generate_series(1, 40) n));
sql('d1', q(SELECT event_queue.create_queue('last', rate_limit => 5)));
sql('d2', q(SELECT event_queue.create_queue('w' || n) FROM generate_series(1, 5) n));
pass('and another one has room');
like(err('d1', q(CREATE TABLE t(); SELECT event_queue.notify_on('t', 'c'); DO $$ BEGIN FOR i IN 1 .. 30 LOOP
	EXECUTE format('CREATE TABLE t%s ()', i); PERFORM event_queue.notify_on(('t' || i)::regclass, 'c' || i); END LOOP; END $$)),
	qr/53400: no room in shared memory for one more queue or channel/, 'channels likewise');

# A server that was started with less says so, and what has room works.
sql('d1', q(SELECT event_queue.create_handler('last', '*', 'h'), event_queue.create_handler('v40', '*', 'h')));
$node->append_conf('postgresql.conf', 'event_queue.max_queues = 16');
$node->restart;
my $seen = sql('d1', 'SELECT count(*) FROM seen');
like(err('d1', q(SELECT event_queue.create_queue('one more'))), qr/Raise event_queue.max_queues/, 'no room after a restart with less');
sql('d1', q(SELECT event_queue.enqueue('q', 'j'), event_queue.enqueue('v40', 'j'), event_queue.enqueue('last', 'j')));
ok($node->poll_query_until('d1', "SELECT count(*) >= $seen + 2 FROM seen"), 'handlers of other queues run');
like(err('d1', q(SELECT count(*) FROM event_queue.claim('last'))), qr/53400: no room in shared memory for the limits of queue "last"/, 'who claims from it is told');
ok($node->poll_query_until('d1', q(SELECT NOT ok AND hint LIKE '%event_queue.max_queues%' FROM event_queue.health() WHERE check_name = 'shared memory')),
	'health says what is missing');
like(slurp_file($node->logfile), qr/queues and channels of this database have no room in shared memory/, 'the log, too');
$node->append_conf('postgresql.conf', 'event_queue.max_queues = 64');
$node->restart;
ok($node->poll_query_until('d1', "SELECT count(*) >= $seen + 3 FROM seen"), 'with room again, the queue with limits goes on');
is(sql('d1', q(SELECT ok FROM event_queue.health() WHERE check_name = 'shared memory')), 't', 'and health is content');
$node->stop;

# Members of subscriptions: one session does not take the room of all, and what is rolled back has none.
$node->start;
sql('d1', q(SELECT event_queue.create_subscription('s' || n, buckets => 2) FROM generate_series(1, 600) n));
my $greedy = $node->background_psql('d1', on_error_stop => 0);
$greedy->query(q(DO $$ BEGIN FOR i IN 1 .. 600 LOOP PERFORM event_queue.fetch_events('s' || i); COMMIT; END LOOP; END $$));
cmp_ok(sql('d1', q(SELECT count(*) FROM event_queue_internal.subscription_members())), '==', 512, 'a session has half of the room');
is(err('d1', q(SELECT * FROM event_queue.fetch_events('s1'))), '', 'and others the rest');
$greedy->query(q(SELECT event_queue.drop_subscription('s' || n) FROM generate_series(1, 600) n));
ok($node->poll_query_until('d1', q(SELECT count(*) = 0 FROM event_queue_internal.subscription_members())), 'members of dropped subscriptions are none');
$greedy->quit;
$node->stop;

# Nor does one tenant, with many sessions; and health names the setting when all is taken.
$node->append_conf('postgresql.conf', 'event_queue.max_subscription_members = 64');
$node->start;
my $health = q(SELECT ok, detail LIKE '%% %s of 64 for members %%', coalesce(hint, 'none') FROM event_queue.health() WHERE check_name = 'shared memory');
my $members_of = q(SELECT count(*) FROM event_queue_internal.all_subscription_members() JOIN event_queue.subscription USING (subscription_id) WHERE tenant_id = 't%s');
my @sessions;
sub fetch_all
{
	my ($tenant) = @_;
	my $session = $node->background_psql('d1', on_error_stop => 0, extra_params => [ '-U', "member$tenant" ]);
	push @sessions, $session;
	$session->query(q(DO $$ BEGIN FOR i IN 1 .. 60 LOOP PERFORM event_queue.fetch_events('s' || i); COMMIT; END LOOP; END $$));
}
for my $tenant (1 .. 6)
{
	sql('d1', qq(CREATE ROLE member$tenant LOGIN; SELECT event_queue.grant_consumer('member$tenant', 't$tenant');
		SELECT event_queue.create_subscription('s' || n, tenant_id => 't$tenant', buckets => 2) FROM generate_series(1, 60) n));
}
fetch_all(1) for 1 .. 3;
is(sql('d1', sprintf($members_of, 1)), '24', 'a tenant has half of what its database may have, however many its sessions');
is(sql('d1', sprintf($health, 24)), 't|t|none', 'which is no fault');
fetch_all($_) for 2 .. 6;
is(join(' ', map { sql('d1', sprintf($members_of, $_)) } 2 .. 6), '12 6 4 2 0', 'others have half of the rest, and at least some');
is(sql('d1', sprintf($health, 48)), 'f|t|Raise event_queue.max_subscription_members and restart the server', 'health says what is full');
my ($status, $out, $refused) = $node->psql('d1', q(SELECT * FROM event_queue.fetch_events('s1')), extra_params => [ '-U', 'member6', '-v', 'VERBOSITY=verbose' ]);
like($refused, qr/53400: too many sessions are members of subscriptions\n.*There may be 64.*\n.*event_queue.max_subscription_members/s, 'as does the error');
unlike($refused, qr/\bt[1-5]\b/, 'and no other tenant');
is($sessions[0]->query(q(SELECT count(*) FROM event_queue.fetch_events('s1'))), '0', 'who is a member stays one');
$sessions[$_]->quit for 0 .. 2;
$node->poll_query_until('d1', sprintf('SELECT (%s) = 0', sprintf($members_of, 1))) or die;
fetch_all(6);
cmp_ok(sql('d1', sprintf($members_of, 6)), '>=', 4, 'what ends leaves room');
$_->quit for @sessions[3 .. $#sessions];
ok($node->poll_query_until('d1', q(SELECT used = 0 FROM event_queue_internal.member_use())), 'all of it');
is(sql('d1', sprintf($health, 0)), 't|t|none', 'and health is content');
$node->stop;

# With default settings, ten thousand queues and twenty thousand tenants.
$node->append_conf('postgresql.conf', qq(
event_queue.max_queues = 16384
event_queue.max_databases = 64
event_queue.executors = 0
));
$node->start;
sql('d2', q(DO $$ BEGIN FOR i IN 1 .. 10000 LOOP PERFORM event_queue.create_queue('q' || i); END LOOP; END $$));
sql('d2', q(SELECT event_queue.enqueue('q' || n, 'j') FROM generate_series(1, 10000) n));
is(sql('d2', q(SELECT count(*) FROM event_queue.queue_status WHERE queue LIKE 'q%' AND depth = 1)), '10000', '10,000 queues have counters');
is(sql('d2', q(SELECT count(j.job_id) FROM generate_series(1, 10000) n, event_queue.claim('q' || n) j)), '10000', 'and jobs');
{
	my ($claimed, $said) = ('', '');
	my $sleeper = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('d2'), '-c', q(CALL event_queue.claim_wait('q10000', 1, '50 s')) ],
		'>', \$claimed, '2>', \$said);
	$node->poll_query_until('d2', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL %' AND wait_event = 'Extension')) or die;
	my $job = sql('d2', q(SELECT event_queue.enqueue('q10000', 'late')));
	my $late = sql('d2', qq(DO \$\$ BEGIN FOR i IN 1 .. 400 LOOP
		EXIT WHEN (SELECT j.leased_until IS NOT NULL FROM event_queue.job j WHERE j.job_id = $job); COMMIT; PERFORM pg_sleep(0.005); END LOOP; END \$\$;
		SELECT extract(epoch FROM claimed_at - created_at) FROM event_queue.job WHERE job_id = $job));
	cmp_ok($late, '<', 1, 'and wake who waits');
	$sleeper->finish;
}
sql('d2', q(SELECT event_queue.create_queue('fair', fair => true);
	SELECT event_queue.enqueue('fair', 'j', tenant_id => 't' || n) FROM generate_series(1, 20000) n, generate_series(1, 2)));
sql('d2', q(CREATE TABLE IF NOT EXISTS taken (tenant_id text); INSERT INTO taken SELECT tenant_id FROM event_queue.claim('fair', 10000))) for 1 .. 4;
is(sql('d2', q(SELECT count(*), count(DISTINCT tenant_id) FROM taken)), '40000|20000', '20,000 tenants in one fair queue');
is(sql('d2', q(SELECT enqueued, claimed FROM event_queue_internal.queue_counters() WHERE queue_id = event_queue_internal.queue_id_of('fair'))), '40000|40000', 'all counted');
$node->stop;
done_testing();
