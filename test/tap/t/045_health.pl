# health() names each fault, who causes it, and what to type; it waits for no lock; and a
# role that is bound to a tenant is told of no other's.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueHealth;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_prepared_transactions = 5
max_wal_senders = 10
event_queue.executors = 1
autovacuum = off
));
$node->start;

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

my $stuck = "SET event_queue.stuck_after = '200 ms';";
watch_node($node, $stuck);

sql(q(
CREATE EXTENSION event_queue;
CREATE ROLE obs LOGIN;
CREATE ROLE obs_b LOGIN;
SELECT event_queue.grant_observer('obs'), event_queue.grant_observer('obs_b', 'tenant b');
CREATE FUNCTION waits(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(77)';
CREATE FUNCTION fails(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
));
well('at first');

# Queues.
sql(q(SELECT event_queue.create_queue('idle'), event_queue.enqueue('idle', 'j')));
like(fault('queue idle', 'nobody works on it', qr/create_handler\('idle', '\*', 'FUNCTION'\)/), qr/^Start its worker/, 'or a worker');
fault('queue idle', 'nobody works on it', qr/create_handler/, 'obs');
sql(q(SELECT count(*) FROM event_queue.claim('idle', 1, worker => 'outside')));
sql(q(SELECT event_queue.enqueue('idle', 'j')));
is(sql("$stuck SELECT pg_sleep(0.5) IS NOT NULL; $stuck SELECT ok FROM event_queue.health() WHERE check_name = 'queue idle'"), "t\nt", 'a worker outside has a job: it is not idle');
sql(q(SELECT event_queue.drop_queue('idle', force => true)));
sql(q(SELECT event_queue.create_queue('other names'), event_queue.create_handler('other names', 'a', 'waits'), event_queue.enqueue('other names', 'b')));
my $hint = fault('queue other names', 'nobody works on it', qr/explain_job/);
like(sql($hint), qr/\|b\|no handler\|/, 'and what it says to type tells why');
sql(q(SELECT event_queue.drop_handler('other names', 'a'), event_queue.purge_queue('other names')));
sql(q(SELECT event_queue.drop_queue('other names', force => true)));

sql(q(SELECT event_queue.create_queue('p'), event_queue.enqueue('p', 'j'), event_queue.pause_queue('p')));
$hint = fault('queue p', 'paused', qr/^SELECT event_queue.resume_queue\('p'\)$/);
is(sql($hint), 't', 'typed');
sql(q(SELECT event_queue.drop_queue('p', force => true)));

sql(q(SELECT event_queue.create_queue('f', max_attempts => 1000, backoff => 'fixed', backoff_delay => '50 ms'), event_queue.create_handler('f', '*', 'fails'), event_queue.enqueue('f', 'j')));
$hint = fault('queue f', 'all attempts fail', qr/explain_job/);
# between two attempts: due, it is only ready
my $why;
for (1 .. 50)
{
	last if ($why = sql($hint)) =~ /no/;
}
like($why, qr/no/, 'and what it says to type tells why');
sql(q(SELECT event_queue.drop_handler('f', '*'), event_queue.purge_queue('f')));
sql(q(SELECT event_queue.drop_queue('f', force => true)));

sql(q(SELECT event_queue.create_queue('d', max_attempts => 1), event_queue.enqueue('d', 'j')));
sql(q(SELECT event_queue.fail(job_id, lease_token, 'no') FROM event_queue.claim('d')));
fault('queue d', '1 dead', qr/dead_letters WHERE queue = 'd'; then retry_all_dead/);
sql(q(SELECT event_queue.discard_all_dead('d')));

# All executors are busy.
my ($advisory) = session('holds advisory');
$advisory->query('BEGIN; SELECT pg_advisory_xact_lock(77)');
sql(q(SELECT event_queue.create_queue('busy', lease => '5 minutes'), event_queue.create_handler('busy', '*', 'waits')));
sql(q(SELECT count(event_queue.enqueue('busy', 'j')) FROM generate_series(1, 10)));
fault('queue busy', 'no executor is free', qr/worker_stats.*ALTER SYSTEM SET event_queue.executors = \d+/);
$advisory->query('COMMIT');
ok($node->poll_query_until('postgres', "SELECT count(*) FROM event_queue.jobs WHERE queue = 'busy'", '0'), 'they go on');
well('queues');

# Who holds a lock, without waiting for it.
my ($locker, $locker_pid) = session('the locker');
$locker->query('BEGIN; LOCK TABLE event_queue.job');
sql("SET statement_timeout = '20 s'; SELECT count(*) FROM event_queue.health()");
$hint = fault('locks', "session $locker_pid holds AccessExclusiveLock on job .*application \"the locker\"", qr/^SELECT pg_terminate_backend\($locker_pid\)$/);
fault('queues', 'locked', qr/locks/);
is(sql("SET ROLE obs_b; SELECT count(*) FROM event_queue.health() WHERE detail ~ 'the locker'"), 0, 'a bound role is told of no application');
sql($hint);
well('locks');
eval { $locker->quit };

($locker, $locker_pid) = session('the locker');
$locker->query('BEGIN; LOCK TABLE event_queue_internal.tenant_role');
is(sql("SET statement_timeout = '20 s'; SELECT count(*) > 0 FROM event_queue.health() WHERE check_name = 'locks' AND detail ~ 'session $locker_pid holds'"), 't', 'nor for the table of tenants');
$locker->query('ROLLBACK');
$locker->quit;

# Who holds the watermark, and the horizon of what vacuum removes.
my ($appender, $appender_pid) = session('the appender');
$appender->query("BEGIN; SELECT event_queue.append('t', '1', 'e', '{}')");
like(sql(q(SELECT detail FROM event_queue.health() WHERE check_name = 'open appends')), qr/the watermark is held by session $appender_pid \(application "the appender"/, 'open appends: who');
fault('xmin horizon', "session $appender_pid .application \"the appender\".* has its transaction open since", qr/^SELECT pg_terminate_backend\($appender_pid\)$/);
is(sql("SET ROLE obs_b; $stuck SELECT count(*) FROM event_queue.health() WHERE detail ~ 'appender'"), 0, 'a bound role is told of no application');
$appender->query('COMMIT');
$appender->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$hint = fault('xmin horizon', "session $appender_pid", qr/pg_terminate_backend\($appender_pid\)/);
is(sql("SELECT count(*) FROM event_queue.health() WHERE check_name = 'xmin horizon' AND ok"), 1, 'by default not for so short a time');
sql($hint);
eval { $appender->quit };
well('a snapshot');
sql(q(BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'left over'));
$hint = fault('xmin horizon', 'prepared transaction "left over"', qr/^COMMIT PREPARED 'left over', or ROLLBACK PREPARED 'left over'$/);
fault('xmin horizon', 'prepared transaction is open', qr/pg_prepared_xacts/, 'obs_b');
sql((split /, or /, $hint)[1]);
well('a prepared transaction');
sql(q(SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')));
well('a slot that was just made');
sql(q(CREATE PROCEDURE burn() LANGUAGE plpgsql AS 'BEGIN FOR i IN 1 .. 11000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END'));
sql('SET synchronous_commit = off; CALL burn()');
$hint = fault('xmin horizon', 'replication slot "forgotten" stands \d+ transactions behind, and no one reads it', qr/pg_drop_replication_slot\('forgotten'\)/);
sql(($hint =~ /(SELECT .*)/)[0]);
well('a slot');

# Schedules, rules, subscriptions.
sql(q(SELECT event_queue.create_queue('drained')));
sql(q(SELECT event_queue.create_schedule('s', '* * * * *', 'drained', 'j'), event_queue.drain_queue('drained')));
$hint = fault('schedule s', 'is being drained', qr/^SELECT event_queue.resume_queue\('drained'\)$/);
sql($hint);
well('a schedule');
sql(q(SELECT event_queue.drop_schedule('s')));
sql(q(SELECT event_queue.create_rule('r', 'x', queue => 'drained', job_name => 'j', tenant_id => 'tenant a'), event_queue.drain_queue('drained')));
fault('rule r', 'is being drained', qr/resume_queue/);
is(sql("SET ROLE obs_b; SELECT count(*) FROM event_queue.health() WHERE check_name = 'rule r'"), 0, 'a bound role is told of its own rules only');
sql(q(SELECT event_queue.resume_queue('drained')));
well('a rule');
sql(q(SELECT event_queue.create_subscription('sub', tenant_id => 'tenant a'), event_queue.append('t', 'p', 'e', '{}', tenant_id => 'tenant a')));
sql(q(SELECT event_queue.park_event('sub', position, 'bad') FROM event_queue.fetch_events('sub', 10)));
fault('subscription sub', '1 events parked', qr/fetch_parked\('sub'\)/);
is(sql("SET ROLE obs_b; SELECT count(*) FROM event_queue.health() WHERE check_name = 'subscription sub'"), 0, 'likewise of subscriptions');
sql(q(SELECT event_queue.drop_subscription('sub')));
sql('CREATE SCHEMA no_such_schema');
sql(q(SELECT event_queue.set_event_retention('1 day', 'no_such_schema')));
sql('DROP SCHEMA no_such_schema');
like(fault('retention', 'does not exist', qr/CREATE SCHEMA no_such_schema/), qr/CREATE/, 'archive');
sql('CREATE SCHEMA no_such_schema');
well('archive');

# Fewer executors are wanted than run: those that have a job end with it, and that is well.
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('SELECT pg_advisory_lock(77)');
sql(q(SELECT event_queue.create_queue('outlives'), event_queue.create_handler('outlives', '*', 'waits'), event_queue.enqueue('outlives', 'j')));
my $line = q(SELECT ok, detail FROM event_queue.health() WHERE check_name = 'executors');
ok($node->poll_query_until('postgres', $line, 't|1 of 1 running, 1 busy'), 'an executor is busy');
$node->append_conf('postgresql.conf', 'event_queue.executors = 0');
$node->reload;
ok($node->poll_query_until('postgres', $line, 't|0 of 0 running, 0 busy'), 'it is wanted no more: health() finds no fault');
is(sql(q(SELECT kind FROM event_queue.workers() WHERE current_job IS NOT NULL)), 'stand-in', 'while it goes on');
$blocker->quit;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.workers() WHERE kind = 'stand-in')), 'it ends with its job');
$node->append_conf('postgresql.conf', 'event_queue.executors = 1');
$node->reload;
ok($node->poll_query_until('postgres', $line, 't|1 of 1 running, 0 busy'), 'one is wanted again');
sql(q(SELECT event_queue.drop_handler('outlives', '*'); SELECT event_queue.drop_queue('outlives')));

# Without a scheduler.
$node->append_conf('postgresql.conf', "event_queue.databases = 'none'");
$node->restart;
fault('scheduler', '^0 running', qr/event_queue.databases/);

# Rules and a subscription that have been behind for long, be it by one event.
sql(q(SELECT event_queue.create_subscription('slow', tenant_id => 'tenant a'), event_queue.append('t', 'old', 'e', '{}', tenant_id => 'tenant a')));
is(sql(q(SELECT count(*) FROM event_queue.health() WHERE check_name IN ('rules', 'subscription slow') AND NOT ok)), '0', 'just appended: no one is late');
sql(q(SET allow_system_table_mods = on; ALTER TABLE event_queue.event_store DISABLE TRIGGER USER;
	UPDATE event_queue.event_store SET created_at = created_at - '2 hours'::interval;
	UPDATE event_queue_internal.subscription_bucket SET moved_at = moved_at - '2 hours'::interval));
fault('rules', '1 events behind, the first came 02:00', qr/rule_stats.*"locks"/);
fault('subscription slow', 'nothing fetched since .*, an event has waited for 02:00', qr/^Start its consumer, or SELECT event_queue.drop_subscription\('slow'\)$/);
is(sql("SET ROLE obs_b; SELECT count(*) FROM event_queue.health() WHERE check_name = 'subscription slow' OR check_name = 'rules' AND NOT ok"), 0, 'of another tenant');
sql('DELETE FROM event_queue_internal.rule_checkpoint');
fault('rules', 'their checkpoint is missing', qr/insert the position/);

$node->stop;
done_testing();
