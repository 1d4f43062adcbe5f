# What once held up the scheduler, or was tried again too often: rows of groups that someone has
# locked, functions in indexes and triggers that do not end, millions of rows that have come of
# age, and leases of a prepared transaction that was rolled back.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueHealth;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_prepared_transactions = 5
event_queue.executors = 1
));
$node->start;
watch_node($node);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sql(q(CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('well'), event_queue.create_queue('pass', group_retry => 'pass');
CREATE FUNCTION in_scheduler() RETURNS boolean LANGUAGE sql AS
	$$ SELECT backend_type LIKE 'event_queue scheduler%' FROM pg_stat_activity WHERE pid = pg_backend_pid() $$;
));

# A job of a group of the queue "well" comes to be claimed, after another one.
my $groups = 0;
sub groups_go_on
{
	my ($name) = @_;
	my $key = 'g' . ++$groups;
	sql("SELECT event_queue.enqueue('well', 'w', group_key => '$key') FROM generate_series(1, 2)");
	for (1 .. 2)
	{
		ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM (SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('well')) done"),
			"$name: other groups go on ($_)");
	}
	return;
}
groups_go_on('at first');

# Plain SQL moves the first job of a group: the others go on, and it waits for its turn where it is now.
sql(q(SELECT event_queue.create_queue('from'), event_queue.create_queue('to', group_concurrency => 2)));
my $ready = q(coalesce(string_agg(name, ' ' ORDER BY name), '') FROM event_queue.jobs WHERE queue IN ('from', 'to') AND state = 'ready');
my $depth = q(SELECT string_agg(depth::text, ' ' ORDER BY queue) FROM event_queue.queue_status WHERE queue IN ('from', 'to'));
sql(q(SELECT event_queue.enqueue('from', name, group_key => 'k') FROM unnest('{a,b,c,d,e}'::text[]) name));
soon("(SELECT $ready) = 'a'", 'a group begins');
for my $move ([ "group_key = 'other'", 'a', 'a b' ], [ 'group_key = NULL', 'b', 'a b c' ], [ q(tenant_id = 'other'), 'c', 'a b c d' ],
	[ q(queue_id = (SELECT queue_id FROM event_queue.queue WHERE name = 'to')), 'd', 'a b c d e' ])
{
	my ($set, $job, $then) = @$move;
	sql("UPDATE event_queue.job SET $set WHERE name = '$job'");
	soon("(SELECT $ready) = '$then'", "$set: its group goes on");
}
sql(q(SELECT event_queue.enqueue('to', 'f', group_key => 'k'), event_queue.enqueue('from', 'g'), event_queue.enqueue('from', 'h')));
soon("(SELECT $ready) = 'a b c d e f g h'", 'there is room for another in the group');
sql(q(UPDATE event_queue.job SET queue_id = (SELECT queue_id FROM event_queue.queue WHERE name = 'to'), group_key = 'k' WHERE name IN ('g', 'h')));
is(sql("SELECT $ready"), 'a b c d e f', 'but not for more, of jobs that had no group');
is(sql($depth), '4 4', 'the depth of both is right');
sql(q(SELECT event_queue.drop_queue(q, force => true) FROM unnest('{from,to}'::text[]) q));

# The row that says when a group is reviewed again is locked by someone.
sql(q(SELECT event_queue.enqueue('pass', 'p', group_key => 'k', delay => '1 day')));
soon(q(count(*) = 1 FROM event_queue_internal.group_review_at), 'a group waits for its time');
my ($holder) = session('the holder');
for my $lock ('SELECT count(*) FROM (SELECT FROM event_queue_internal.group_review_at FOR UPDATE) x', q(SELECT event_queue.drop_queue('pass', force => true)))
{
	$holder->query("BEGIN; $lock");
	sql(q(SELECT event_queue.enqueue('pass', 'p', group_key => 'k', delay => '1 hour')));
	soon(q(count(*) = 0 FROM event_queue_internal.job_review WHERE group_key <> 'k'), 'reviews were done');
	groups_go_on('a row of group_review_at is locked');
	is(sql(q(SELECT count(*) FROM event_queue.faults())), '0', 'and nothing fails');
	$holder->query('ROLLBACK');
}
soon(q(review_at < now() + interval '2 hours' FROM event_queue_internal.group_review_at), 'when it is free, it has the new time');
eval { $holder->quit };
sql(q(SELECT event_queue.drop_queue('pass', force => true)));

# So are queues, and old runs of a schedule.
sql(q(
SELECT event_queue.create_schedule('yearly', '0 0 1 1 *', 'well', 'w');
INSERT INTO event_queue_internal.schedule_run (schedule_id, tenant_id, scheduled_for) SELECT schedule_id, tenant_id, now() FROM event_queue.schedule, generate_series(1, 300);
));
($holder) = session('the holder');
for my $table ('event_queue.queue', 'event_queue_internal.schedule_run')
{
	$holder->query("BEGIN; SELECT count(*) FROM (SELECT FROM $table FOR UPDATE) x");
	sql(q(UPDATE event_queue.schedule SET next_run = now(), cron = cron));
	soon(q(next_run > now() FROM event_queue.schedule), "a row of $table is locked: the schedule runs");
	groups_go_on("a row of $table is locked");
	is(sql(q(SELECT count(*) FROM event_queue.faults())), '0', 'and nothing fails');
	$holder->query('ROLLBACK');
}
eval { $holder->quit };
is(sql(q(SELECT runs, skipped, last_run IS NOT NULL FROM event_queue.schedule)), '2|0|t', 'its runs are counted');
sql(q(SELECT event_queue.drop_schedule('yearly'), event_queue.purge_queue('well')));

# A function in an index does not end, for jobs of one group.
sql(q(
CREATE TABLE stuck ();
CREATE SEQUENCE tries;
CREATE FUNCTION stick(group_key text, blocked smallint) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF group_key = 'stuck' AND blocked = 0 AND public.in_scheduler() THEN
		PERFORM nextval('public.tries');
		WHILE to_regclass('public.stuck') IS NOT NULL LOOP
			PERFORM pg_sleep(0.05);
		END LOOP;
	END IF;
	RETURN group_key;
END $$;
SELECT event_queue.create_queue('stuck');
CREATE INDEX stick ON event_queue.job (stick(group_key, blocked));
SELECT event_queue.enqueue('stuck', 's', group_key => 'stuck');
));
fault('group stuck of queue stuck, tenant default', 'a function in an index', qr/DROP INDEX/);
my $later = q(SELECT count(*) FROM event_queue.faults(), event_queue_internal.group_review_at g
	WHERE what = 'group' AND failures = 1 AND g.group_key = 'stuck' AND review_at > last_at + interval '15 seconds');
is(sql($later), '1', 'it is tried again after ten times as long as it took');
for (1 .. 4)
{
	my $tries = sql(q(SELECT last_value FROM tries));
	sql(q(SELECT event_queue.enqueue('stuck', 's', group_key => 'stuck')));
	groups_go_on('a group is stuck');
	my $again = sql(q(SELECT last_value FROM tries));
	my $early = sql("$later AND review_at > clock_timestamp()");
	ok($again == $tries || !$early, 'and not before, whoever enqueues into it');
}
is(sql(q(SELECT count(*) FROM event_queue.job WHERE group_key = 'stuck' AND blocked = 0)), '0', 'it waits');

sql(q(DROP TABLE stuck; SELECT event_queue.alter_queue('stuck', sla => '1 day')));
soon(q(count(*) = 1 FROM event_queue.job WHERE group_key = 'stuck' AND blocked = 0), 'the group goes on');
soon(q(count(*) = 0 FROM event_queue.faults() WHERE what = 'group'), 'its fault is gone');
sql(q(DROP INDEX event_queue.stick; SELECT event_queue.drop_queue('stuck', force => true)));

# A trigger on a table of configuration does not end, in the scheduler.
sql(q(
CREATE FUNCTION endless() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	WHILE public.in_scheduler() LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN NEW;
END $$;
SELECT event_queue.create_schedule('yearly', '0 0 1 1 *', 'well', 'w');
CREATE TRIGGER endless BEFORE UPDATE ON event_queue.schedule FOR EACH ROW WHEN (OLD.name = 'yearly') EXECUTE FUNCTION endless();
SELECT event_queue.create_schedule('other', '0 0 1 1 *', 'well', 'o');
UPDATE event_queue.schedule SET next_run = now() - CASE name WHEN 'yearly' THEN interval '1 second' ELSE '0' END;
));
soon(q(count(*) = 1 FROM event_queue.faults() WHERE what = 'schedule' AND item = 'yearly' AND sqlstate = '57014' AND hint ~ 'DROP TRIGGER'), 'a trigger does not end, of a schedule');
soon(q(count(*) = 1 FROM event_queue.jobs WHERE queue = 'well' AND name = 'o'), 'others run');
sql(q(SELECT event_queue.drop_schedule('other'), event_queue.purge_queue('well')));
groups_go_on('a trigger does not end');
sql(q(DROP TRIGGER endless ON event_queue.schedule));
soon(q(count(*) = 1 FROM event_queue.jobs WHERE queue = 'well'), 'without it the schedule runs');
well('the trigger is gone');
sql(q(SELECT event_queue.drop_schedule('yearly'), event_queue.purge_queue('well')));

# More jobs wait for one event than get it before the scheduler's time is over: it goes on where it
# was, and other tenants have their turn.
sql(q(
CREATE FUNCTION slow(state smallint, tenant text) RETURNS smallint IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	IF state = 0 AND tenant = 'many' AND public.in_scheduler() THEN
		PERFORM pg_sleep(0.3);
	END IF;
	RETURN state;
END $$;
CREATE INDEX slow ON event_queue.job_step (slow(state, tenant_id));
SELECT event_queue.create_queue('wait');
SELECT count(event_queue.enqueue('wait', 'w', tenant_id => CASE n WHEN 1 THEN 'few' ELSE 'many' END)) FROM generate_series(1, 41) n;
SELECT count(event_queue.await_event(c, 'news', 'news.*')) FROM event_queue.claim('wait', 41) c;
));
soon(q(count(*) = 0 FROM event_queue.job_step WHERE fresh), 'jobs wait for an event');
sql(q(SELECT event_queue.append('n', '1', 'news.first', tenant_id => 'many'), event_queue.append('n', '1', 'news.first', tenant_id => 'few')));
soon(q(count(*) = 1 FROM event_queue.job_step WHERE tenant_id = 'few' AND state = 0), 'that of another tenant gets it');
soon(q(count(*) = 41 FROM event_queue.job_step WHERE state = 0), 'all get it, however long it takes');
soon(q(count(*) = 0 FROM event_queue_internal.step_behind), 'and nobody is behind');
sql(q(DROP INDEX event_queue.slow; SELECT event_queue.drop_queue('wait', force => true)));
well('all have their event');

# A trigger does not end where rows that have come of age are deleted: the rest goes on.
sql(q(
CREATE TRIGGER endless BEFORE DELETE ON event_queue.signal FOR EACH ROW EXECUTE FUNCTION endless();
INSERT INTO event_queue.signal (tenant_id, name, key, expires_at) VALUES ('default', 's', 'k', now() - interval '1 day');
SELECT event_queue.create_queue('brief', keep_failed => '1 second');
SELECT event_queue.import_dead('brief', 'dead', created_at => now() - interval '1 hour');
));
$node->restart;	# its scheduler begins at once
soon(q(count(*) = 1 FROM event_queue.faults() WHERE what = 'old rows of' AND item = 'signal' AND sqlstate = '57014'), 'a trigger does not end: it is a fault of that table');
soon(q(count(*) = 0 FROM event_queue.dead_letters WHERE queue = 'brief'), 'and other tables are trimmed');
sql(q(DROP TRIGGER endless ON event_queue.signal; SELECT event_queue.drop_queue('brief')));
$node->restart;
soon(q(count(*) = 0 FROM event_queue.signal), 'without it this one is, too');
well('the trigger of signals is gone');

# Much has come of age at once: some is deleted at a time.
sql(q(
SELECT event_queue.create_queue('old', keep_completed_count => 10, keep_failed => '1 hour', keep_completed => '1 day');
SELECT count(event_queue.import_dead('old', 'dead', died_at => now() - interval '30 minutes', created_at => now() - interval '1 hour')) FROM generate_series(1, 45);
SELECT count(event_queue.import_dead('old', 'own', options => '{"keep_failed_count": 5}')) FROM generate_series(1, 45);
SELECT count(event_queue.enqueue('old', 'j', options => CASE WHEN n > 60 THEN '{"keep_completed_count": 3}'::jsonb END)) FROM generate_series(1, 100) n;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('old', 100);
UPDATE event_queue.dead_letter SET died_at = died_at - interval '1 hour';
INSERT INTO event_queue.job_log (job_id, tenant_id, message, level, at) SELECT 0, 'default', 'x', 'info', now() - interval '1 year' FROM generate_series(1, 45);
INSERT INTO event_queue_internal.job_throttle SELECT queue_id, 'default', 'k' || n, 1, now() - interval '1 hour' FROM event_queue.queue, generate_series(1, 45) n WHERE name = 'old';
));
my $old = sql(q(SELECT 1000 + queue_id FROM event_queue.queue WHERE name = 'old'));
my $left = q(SELECT (SELECT count(*) FROM event_queue.job_history), (SELECT count(*) FROM event_queue.dead_letter), (SELECT count(*) FROM event_queue.job_log), (SELECT count(*) FROM event_queue_internal.job_throttle));
is(sql($left), '100|90|45|45', 'there is much');
is(sql("SELECT event_queue_internal.maintain_history($old, 10)"), $old, 'there is more of the queue');
is(sql($left), '80|70|45|45', 'of each kind a batch is gone');
is(sql('SELECT event_queue_internal.maintain_history(-1, 1), event_queue_internal.maintain_history(2, 10)'), '-1|2', 'there is more of other tables');
is(sql($left), '80|70|35|35', 'likewise');
$node->restart;	# its scheduler begins at once
soon(q((SELECT count(*) FROM event_queue_internal.job_throttle) = 0 AND (SELECT count(*) FROM event_queue.job_log) = 0
	AND (SELECT count(*) FROM event_queue.dead_letter) = 5 AND (SELECT count(*) FROM event_queue.job_history) = 3), 'the scheduler goes on to the end')
  or diag(sql($left));
is(sql(q(SELECT count(*) FROM event_queue.faults())), '0', 'and nothing has failed');
sql(q(SELECT event_queue.drop_queue('old', force => true)));

# More tenants than have a turn in one batch have reviews that someone has locked: others go on.
my ($writer) = session('who writes reviews');
my ($barrier) = session('who keeps the scheduler from them');
($holder) = session('the holder');
$writer->query(q(BEGIN; INSERT INTO event_queue_internal.job_review (queue_id, tenant_id, group_key) SELECT 1000000, 'a' || n, 'k' FROM generate_series(100, 350) n));
$barrier->query_until(qr/begins/, "\\echo begins\nBEGIN; LOCK TABLE event_queue_internal.job_review IN SHARE ROW EXCLUSIVE MODE;\n");
soon(q(count(*) = 1 FROM pg_locks WHERE relation = 'event_queue_internal.job_review'::regclass AND mode = 'ShareRowExclusiveLock' AND NOT granted), 'it waits');
$writer->query('COMMIT');
$holder->query('BEGIN; SELECT count(*) FROM (SELECT FROM event_queue_internal.job_review FOR UPDATE) x');
$barrier->query('ROLLBACK');
is(sql(q(SELECT count(*) FROM event_queue_internal.job_review WHERE queue_id = 1000000)), '251', 'reviews of many tenants are locked');
groups_go_on('reviews of many tenants are locked');
$holder->query('ROLLBACK');
soon(q(count(*) = 0 FROM event_queue_internal.job_review), 'when they are free, they are done');
eval { $_->quit } for $writer, $barrier, $holder;

# The lease of a prepared transaction that is rolled back, while another one is open.
sql(q(SELECT event_queue.create_queue('one', max_concurrency => 1, lease => '1 day'), event_queue.enqueue('one', 'j')));
sql(q(BEGIN; SELECT event_queue.enqueue('well', 'w'); PREPARE TRANSACTION 'stays'));
sql(q(BEGIN; SELECT count(*) FROM event_queue.claim('one'); PREPARE TRANSACTION 'goes'));
is(sql(q(SELECT count(*) FROM event_queue.claim('one'))), '0', 'a prepared transaction has the only seat');
sql(q(ROLLBACK PREPARED 'goes'));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.claim('one'))), 'rolled back, it has it no more');
sql(q(COMMIT PREPARED 'stays'));

# A session that is cancelled or terminated in its sleep leaves no flag for the next one in its
# place: an assertion would stop the server.
my $asleep = sql(q(SELECT event_queue.enqueue('well', 'w')));
for my $sleep (q(CALL event_queue.wait_for_events(1000000000, '1 minute')), "CALL event_queue.await_job($asleep, '1 minute')")
{
	my ($sleeper, $pid) = session('the sleeper');
	for my $end ('pg_cancel_backend', 'pg_cancel_backend', 'pg_terminate_backend')
	{
		$sleeper->query_until(qr/sleeps/, "\\echo sleeps\n$sleep;\n");
		soon("wait_event IS NOT NULL AND state = 'active' AND query ~ '^CALL' FROM pg_stat_activity WHERE pid = $pid", 'a session sleeps');
		sql("SELECT $end($pid)");
		soon("count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND state = 'active'", "$end ends it");
	}
	eval { $sleeper->quit };
	like(($node->psql('postgres', "SET statement_timeout = '100 ms'; $sleep"))[2], qr/statement timeout/, 'the next session');
}
sql(q(SELECT event_queue.purge_queue('well')));

# A handler of the extension's owner has a limit that ends sooner than that of the index.
sql(q(
CREATE FUNCTION stick_too(name text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	WHILE name = 'endless' LOOP
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN name;
END $$;
CREATE FUNCTION enqueues(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ SELECT event_queue.enqueue('stuck too', 'endless') $$;
CREATE INDEX stick_too ON event_queue.job (stick_too(name)) WHERE name = 'endless';
SELECT event_queue.create_queue('stuck too');
SELECT event_queue.create_handler('stuck too', 'enqueues', 'enqueues');
SELECT event_queue.enqueue('stuck too', 'enqueues', options => '{"max_attempts": 1, "time_limit": "1 second"}');
));
soon(q(count(*) = 1 FROM event_queue.dead_letters WHERE queue = 'stuck too'), 'a handler meets such an index');
like(sql(q(SELECT last_error FROM event_queue.dead_letters WHERE queue = 'stuck too')), qr/statement timeout/, 'it was its own limit that ended it');


$node->stop;
done_testing();
