# Whatever fails, all else goes on: with each fault installed on purpose, plain,
# delayed, grouped and scheduled jobs and rules of another queue are done, health()
# names the fault without waiting, and the log has one line when it begins and one
# when it is over.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
log_min_messages = log
wal_level = replica
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql(q(
CREATE EXTENSION event_queue;
CREATE TABLE done (tag text, what text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION do_it(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.done (tag, what) VALUES (job.payload ->> 'tag', job.name) $$;
SELECT event_queue.create_queue('well');
SELECT event_queue.create_handler('well', '*', 'do_it');
SELECT event_queue.create_schedule('tick', '0 0 1 1 *', 'well', 'scheduled');
SELECT event_queue.create_rule('follow', 'well.event', queue => 'well', job_name => 'followed', payload => '{"tag": "$.data.tag"}');
));

# A job of each kind; afterwards they are counted by their tag.
my $flows = 0;
sub start_flow
{
	my $tag = 'flow ' . ++$flows;
	sql(qq(
		SET lock_timeout = '10s';
		UPDATE event_queue.schedule SET payload = '{"tag": "$tag"}', next_run = now(), cron = cron WHERE name = 'tick';
		SELECT event_queue.enqueue('well', 'plain', '{"tag": "$tag"}');
		SELECT event_queue.enqueue('well', 'delayed', '{"tag": "$tag"}', delay => '200 ms');
		SELECT event_queue.enqueue('well', 'grouped ' || n, '{"tag": "$tag"}', group_key => '$tag') FROM generate_series(1, 2) n;
		SELECT event_queue.append('well', '$tag', 'well.event', '{"tag": "$tag"}')));
	return $tag;
}
sub flow_ends
{
	my ($tag, $name) = @_;
	my $ok = $node->poll_query_until('postgres', "SELECT count(*) = 6 FROM done WHERE tag = '$tag'");
	diag(sql("SELECT string_agg(what, ', ') FROM done WHERE tag = '$tag'")) unless $ok;
	ok($ok, $name);
	return;
}
sub flow_goes_on { flow_ends(start_flow(), "$_[0]: all else goes on"); return; }

# health() has a line of this check that is not ok and says that.
sub health_names
{
	my ($check, $detail, $hint) = @_;
	my $found = "SELECT EXISTS (SELECT FROM event_queue.health() WHERE check_name ~ '$check' AND NOT ok AND detail ~ '$detail' AND coalesce(hint, '') ~ '$hint')";
	my $ok = $node->poll_query_until('postgres', $found);
	diag(sql('SELECT * FROM event_queue.health() WHERE NOT ok')) unless $ok;
	ok($ok, "health() names: $check");
	return;
}
sub health_is_well
{
	my ($name) = @_;
	my $ok = $node->poll_query_until('postgres', 'SELECT bool_and(ok) FROM event_queue.health()');
	diag(sql('SELECT * FROM event_queue.health() WHERE NOT ok')) unless $ok;
	ok($ok, "$name: health() is well again");
	return;
}

my $log_from = -s $node->logfile;
sub said
{
	my ($pattern) = @_;
	my $log = slurp_file($node->logfile, $log_from);
	my $n = () = $log =~ /$pattern/g;
	return $n;
}
sub said_once
{
	my ($what) = @_;
	is(said(qr/event_queue: $what fails/), 1, "$what: said once that it fails");
	is(said(qr/event_queue: $what works again/), 1, 'and once that it works again');
	return;
}

flow_goes_on('nothing is wrong');
health_is_well('nothing is wrong');

# The queue of a schedule and of a rule is drained; a cron and a zone are garbage.
sql(q(
SELECT event_queue.create_queue('drained');
SELECT event_queue.create_schedule('to drained', '0 0 1 1 *', 'drained', 'late');
SELECT event_queue.create_schedule('bad cron', '0 0 1 1 *', 'well', 'x', '{"tag": "none"}');
SELECT event_queue.create_schedule('bad zone', '0 0 1 1 *', 'well', 'x', '{"tag": "none"}');
SELECT event_queue.drain_queue('drained');
UPDATE event_queue.schedule SET cron = 'garbage' WHERE name = 'bad cron';
UPDATE event_queue.schedule SET time_zone = 'Nowhere/Atlantis' WHERE name = 'bad zone';
));
health_names('schedule bad cron', 'cron', 'drop_schedule\\(.bad cron');
health_names('schedule bad zone', 'Atlantis', 'drop_schedule\\(.bad zone');
health_names('schedule to drained', 'is being drained', 'resume_queue\\(.drained');
sql(q(UPDATE event_queue.schedule SET next_run = now() - interval '2 hours' WHERE name IN ('to drained', 'bad cron', 'bad zone');
	UPDATE event_queue.schedule SET cron = cron WHERE name = 'tick'));
health_names('schedule to drained', 'is being drained .EQ034., [3-9] times', 'resume_queue\\(.drained');
flow_goes_on('schedules fail');
sql(q(SELECT event_queue.resume_queue('drained')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.jobs WHERE name = 'late')),
	'what the schedule had to wait with comes, as one job');
is(said(qr/event_queue: schedule "bad (cron|zone)" fails/), 2, 'each bad schedule is said once');
said_once('schedule "to drained"');
sql(q(SELECT event_queue.drop_schedule(n) FROM unnest('{to drained,bad cron,bad zone}'::text[]) n));
is(sql(q(SELECT count(*) FROM done WHERE what = 'x')), '0', 'a schedule that fails makes no job');

# The queue of a rule is gone.
sql(q(
SELECT event_queue.create_queue('gone');
SELECT event_queue.create_rule('to gone', 'well.event', queue => 'gone', job_name => 'x');
SET session_replication_role = replica;
DELETE FROM event_queue.queue WHERE name = 'gone';
RESET session_replication_role;
UPDATE event_queue.queue SET sla = sla;
));
health_names('rule to gone', 'queue does not exist', 'drop_rule\\(.to gone');
flow_goes_on('the queue of a rule is gone');
sql(q(SELECT event_queue.drop_rule('to gone'); SELECT event_queue.purge_queue('drained')));
sql(q(UPDATE event_queue.job SET run_at = now() WHERE queue_id = 1));
$node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.job WHERE queue_id = 1));
sql(q(DELETE FROM event_queue.dead_letter WHERE queue_id = 1));

# A group whose jobs can't be written, and a fair queue whose jobs can't be moved.
sql(q(
CREATE FUNCTION refuse(q int, key text, blocked smallint, lane int, run_at timestamptz) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF key = 'bad' AND blocked = 0 OR lane > 0 THEN
		RAISE EXCEPTION 'refused by an index';
	END IF;
	RETURN 1;
END $$;
SELECT event_queue.create_queue('fair', fair => true);
SELECT event_queue.enqueue('fair', 'x', delay => '1 second');
SELECT event_queue.create_queue('groups');
CREATE INDEX refusing ON event_queue.job (refuse(queue_id, group_key, blocked, lane, run_at));
SELECT event_queue.enqueue('groups', 'x', group_key => 'bad');
));
health_names('group bad of queue groups', 'refused by an index', '');
health_names('wake-ups of queue fair', 'refused by an index', '');
flow_goes_on('a group and a queue fail');
sql(q(SELECT event_queue.enqueue('groups', 'x', group_key => 'good')));
ok($node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE group_key = 'good')),
	'another group of the same queue goes on');
sql('DROP INDEX event_queue.refusing');
ok($node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE group_key = 'bad')), 'the group goes on');
health_is_well('groups');
said_once('group "bad of queue groups, tenant default"');
said_once('wake-ups of queue "fair"');
sql(q(SELECT event_queue.drop_queue(n, force => true) FROM unnest('{fair,groups,drained}'::text[]) n));

# Events are to be archived into a schema that is not there.
sql(q(
SELECT event_queue.create_event_partition();
SELECT event_queue.create_event_partition();
CREATE SCHEMA nowhere;
SELECT event_queue.set_event_retention('1 day', 'nowhere');
DROP SCHEMA nowhere;
));
health_names('retention', 'schema "nowhere" of archived events does not exist', 'CREATE SCHEMA nowhere');
health_names('archiving of event_store_p1', 'does not exist .3F000.', 'CREATE SCHEMA nowhere');
flow_goes_on('a schema of archived events is missing');
sql('CREATE SCHEMA nowhere; UPDATE event_queue_internal.partition_policy SET keep = keep');
ok($node->poll_query_until('postgres', q(SELECT to_regclass('nowhere.event_store_p1') IS NOT NULL)), 'it is archived when the schema is there');
said_once('archiving of "event_store_p1"');
sql(q(SELECT event_queue.set_event_retention(NULL)));
health_is_well('retention');

# A reducer that raises for an aggregate of what is to be archived.
sql(q(
SELECT event_queue.append('bad', '1', 'x');
SELECT event_queue.create_event_partition();
SET allow_system_table_mods = on; ALTER TABLE event_queue.event_store_p2 DISABLE TRIGGER USER;
UPDATE event_queue.event_store_p2 SET created_at = created_at - '3 days'::interval;
CREATE FUNCTION raises(state jsonb, e event_queue.event_store) RETURNS jsonb IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE 'no state today'; END $$;
SELECT event_queue.create_reducer('bad', 'raises');
SELECT event_queue.set_event_retention('1 day', 'nowhere');
));
health_names('archiving of event_store_p2', 'no state today', '');
flow_goes_on('a reducer raises at archiving');
sql(q(SELECT event_queue.drop_reducer('bad'); UPDATE event_queue_internal.partition_policy SET keep = keep));
ok($node->poll_query_until('postgres', q(SELECT to_regclass('nowhere.event_store_p2') IS NOT NULL)), 'it is archived when the reducer is gone');
said_once('archiving of "event_store_p2"');
sql(q(SELECT event_queue.set_event_retention(NULL)));
health_is_well('a reducer at archiving');

# Rows that an open drop_queue has locked: the reviews of all other groups go on.
sql(q(SELECT event_queue.create_queue('dropping'); SELECT event_queue.pause_queue('dropping')));
my $dropper = $node->background_psql('postgres');
sql(q(INSERT INTO event_queue_internal.group_review_at SELECT queue_id, 'default', 'k', now() + interval '1 second' FROM event_queue.queue WHERE name = 'dropping'));
$dropper->query_safe(q(BEGIN; SELECT event_queue.drop_queue('dropping')));
sleep(1.5);
flow_goes_on('rows are locked by an open drop_queue');
$dropper->query_safe('COMMIT');
$dropper->quit;

# Each of our tables in turn is locked by a session that does nothing more.
# (A new one each time: the time limit of a background session counts from its start.)
my ($locker, $pid);
sub lock_table
{
	my ($table) = @_;
	$locker = $node->background_psql('postgres');
	$pid = $locker->query_safe('SELECT pg_backend_pid()');
	$locker->query_safe("BEGIN; SET LOCAL search_path = event_queue, event_queue_internal; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	return;
}
# What the jobs themselves need: append and enqueue in a new session, rules, schedules; the
# log of audit, since start_flow changes the schedule.
my %needed = map { $_ => 1 } qw(job queue event_store event_partition aggregate_snapshot tenant_role rule_checkpoint rule_catch_up rule_run timer_end timer_start rule schedule schedule_run job_review audit_log audit_log_default);
my ($slowest, $named, $tables) = (0, 0, 0);
for my $table (split /\n/, sql(q(SELECT relname FROM pg_class WHERE relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	AND relkind IN ('r', 'p') AND relname !~ '^(job_history|event_store)_' ORDER BY 1)))
{
	$tables++;
	lock_table($table);
	my $from = time;
	my $line = sql(qq(SELECT count(*) FROM event_queue.health() WHERE check_name = 'locks' AND NOT ok
		AND detail ~ 'session $pid holds AccessExclusiveLock on $table' AND hint = 'SELECT pg_terminate_backend($pid)'));
	$slowest = time - $from if time - $from > $slowest;
	$named++ if $line eq '1';
	diag("not named: $table") if $line ne '1';
	flow_goes_on("$table is locked") unless $needed{$table};
	$locker->quit;
}
is($named, $tables, 'health() names who holds a lock, for each table');
cmp_ok($slowest, '<', 2, 'and never waits for it');

# What needs the table waits, and nothing else: events are published and read.
lock_table('job');
sql(q(SELECT event_queue.append('a', '1', 'x')));
ok($node->poll_query_until('postgres', 'SELECT position = event_queue.watermark() FROM event_queue.event_watermark'),
	'job is locked: the watermark is published');
health_names('scheduler queues', 'lock timeout', 'names the session');
my $said = said(qr/event_queue: scheduler "queues" fails/);
sleep(3);
is(said(qr/event_queue: scheduler "queues" fails/), $said, 'job is locked: it is not said again and again');
$locker->quit;
flow_goes_on('the lock is gone');
health_is_well('the lock is gone');
is(said(qr/event_queue: scheduler "queues" works again/), $said, 'it is said that it works again');

# A scheduler that hangs.
my $scheduler = sql(q(SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'));
kill 'STOP', $scheduler;
health_names('scheduler', 'no sign of life for', "pg_terminate_backend\\($scheduler");
kill 'CONT', $scheduler;
health_is_well('the scheduler goes on');

# Executors that hang: others stand in.
my @executors = split /\n/, sql(q(SELECT pid FROM event_queue.workers() WHERE kind = 'executor'));
kill 'STOP', @executors;
flow_goes_on('all executors hang');
health_names('executors', "no sign of life of .*\\m$executors[0] for", 'pg_terminate_backend');
kill 'CONT', @executors;
health_is_well('the executors go on');

# A reducer, a handler that lost their functions.
sql(q(
CREATE FUNCTION r(state jsonb, e event_queue.event_store) RETURNS jsonb IMMUTABLE LANGUAGE sql AS 'SELECT state';
CREATE FUNCTION h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT event_queue.create_reducer('thing', 'r'); SELECT event_queue.create_handler('well', 'lost', 'h');
));
health_is_well('functions');
sql('DROP FUNCTION r; DROP FUNCTION h');
health_names('reducer of thing', 'does not exist', 'drop_reducer\\(.thing');
health_names('handler of well, lost', 'does not exist', 'drop_handler\\(.well., .lost');
flow_goes_on('functions are missing');
sql(q(SELECT event_queue.drop_reducer('thing'); SELECT event_queue.drop_handler('well', 'lost')));

# A plain observer sees how long an append is open; one of a tenant sees no one's errors.
sql(q(CREATE ROLE obs; SELECT event_queue.grant_observer('obs'); CREATE ROLE obs_b; SELECT event_queue.grant_observer('obs_b', 'b');
	SELECT event_queue_internal.note_fault('schedule', 'of a', 'a', 'P0001', 'secret of a'); SELECT event_queue_internal.note_fault('step', 's', NULL, 'P0001', 'secret')));
my $appender = $node->background_psql('postgres');
$appender->query_safe(q(BEGIN; SELECT event_queue.append('a', '1', 'x')));
like(sql(q(SET ROLE obs; SELECT detail FROM event_queue.health() WHERE check_name = 'open appends')), qr/oldest open for 00:00/,
	'an observer sees how long an append is open');
$appender->query_safe('ROLLBACK');
is(sql(q(SET ROLE obs_b; SELECT what, coalesce(item, ''), message IS NULL FROM event_queue.faults() WHERE what IN ('schedule', 'step'))), 'step|s|t',
	'an observer of a tenant sees no errors of others');
sql(q(SELECT event_queue_internal.clear_fault('schedule', 'of a'); SELECT event_queue_internal.clear_fault('step', 's')));
health_is_well('at the end');
$appender->quit;
$node->stop;

# No place for workers.
my $small = PostgreSQL::Test::Cluster->new('small');
$small->init;
$small->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 4
event_queue.executors = 3
max_logical_replication_workers = 1
));
$small->start;
$small->safe_psql('postgres', q(CREATE EXTENSION event_queue));
ok($small->poll_query_until('postgres', q(SELECT count(*) >= 2 FROM event_queue.health()
	WHERE check_name ~ 'start of (executor [0-2]|the keeper)$' AND detail ~ 'no free background worker' AND hint ~ 'max_worker_processes'
	OR check_name = 'executors' AND detail ~ '^[12] of 3 running')), 'health() names max_worker_processes');
sleep(6);
my $n = () = slurp_file($small->logfile) =~ /event_queue: scheduler "start of .*" fails: no free background worker/g;
is($n, $small->safe_psql('postgres', q(SELECT count(*) FROM event_queue.faults() WHERE item ~ '^start of')), 'each is said once in the log');
$small->stop;

done_testing();
