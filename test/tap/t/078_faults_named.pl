# Faults that no single table shows: who waits for a lock and so holds up all others, who has a
# row that the workers want, and of which job name all attempts fail while others of its queue
# succeed, over a back-off of hours and a restart.  Each is named, goes away by what health()
# says to type, and is told once.
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
event_queue.alert_interval = 100
autovacuum = off
));
$node->start;
watch_node($node);

sub sql { my ($query) = @_; return $node->safe_psql('postgres', $query) }

sub told
{
	my ($key) = @_;
	return sql("SELECT string_agg(substr(event_type, 7), ' ' ORDER BY version) FROM event_queue.event_store
		WHERE aggregate_type = 'alert' AND aggregate_id = '$key'");
}

sub workers_come_and_go
{
	my ($set, $n) = @_;
	sql("ALTER SYSTEM $set");
	sql("SELECT pg_reload_conf()");
	ok($node->poll_query_until('postgres', "SELECT count(*) $n FROM event_queue.workers()"), "workers: $n");
}

sql(q(
CREATE EXTENSION event_queue;
CREATE FUNCTION works(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS 'BEGIN END';
CREATE FUNCTION fails(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
SELECT event_queue.create_queue('q'), event_queue.create_handler('q', '*', 'works');
SELECT event_queue.create_rule('r', 'e.**', queue => 'q', job_name => 'fired');
SELECT event_queue.create_schedule('yearly', '0 0 1 1 *', 'q', 'tick');
SELECT event_queue.alter_alert('health', pending => '200 ms');
));
well('at first');

# A lock that is waited for: the reader has one that disturbs nobody, and who asks for more has none.
my ($reader, $reader_pid) = session('the reader');
$reader->query('BEGIN; SELECT count(*) FROM event_queue.jobs');
my ($asker, $asker_pid) = session('the asker');
$asker->query_until(qr/asks/, "\\echo asks\nBEGIN; LOCK TABLE event_queue.job;\n");
my $hint = fault('locks', "session $asker_pid waits for AccessExclusiveLock on job .application \"the asker\".*behind session $reader_pid .application \"the reader\"",
	qr/^SELECT pg_cancel_backend\($asker_pid\), and the others go on; SELECT pg_terminate_backend\($reader_pid\), and it does$/);
fault('queues', 'job is locked', qr/line "locks"/);
sql($hint =~ s/,.*//r);
well('a lock that is waited for');
$reader->query('ROLLBACK');
eval { $_->quit } for $reader, $asker;

# Rows: the rule runner waits for one, ...
my ($holder, $pid) = session('the holder');
$holder->query('BEGIN; UPDATE event_queue_internal.rule_checkpoint SET position = position');
sql(q(SELECT event_queue.append('e', '1', 'e.x')));
$hint = fault('locks', "session $pid holds up rule runner \\d+, its transaction is open since .*the holder", qr/^SELECT pg_terminate_backend\($pid\)$/);
my $horizon = sql(q(SET event_queue.stuck_after = '100 ms'; SELECT detail FROM event_queue.health() WHERE check_name = 'xmin horizon'));
like($horizon, qr/session $pid /, 'it holds the horizon, too');
unlike($horizon, qr/rule runner/, 'who only waits for it is not blamed');
sql($hint);
well('a row that the rule runner waits for');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.queue_stats WHERE queue = 'q' AND completed_total = 1"), 'the rule goes on');
eval { $holder->quit };

# ... a chore gives up soon and comes again, so that at no time anyone waits, ...
($holder, $pid) = session('the holder');
sql(q(SELECT event_queue.create_alert('deep', 'queue_depth', 'q', 0), event_queue.enqueue('q', 'later', delay => '1 day')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.alerts WHERE key = 'deep:q' AND state = 'raised')), 'an alert is raised');
$holder->query('BEGIN; UPDATE event_queue_internal.alert_state SET key = key');
sql(q(SELECT event_queue.pause_alert('deep')));
fault('scheduler alerts', 'lock timeout', qr/line "locks"/);
$hint = fault('locks', "session $pid, has written or locked rows of alert_state, its transaction is open since .*the holder", qr/^SELECT pg_terminate_backend\($pid\)$/);
sql($hint);
well('a row that a chore wants');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.alerts WHERE key = 'deep:q')), 'the alert ends');
is(told('deep:q'), 'raised resolved', 'once each');
eval { $holder->quit };

# ... likewise a prepared transaction, ...
sql(q(BEGIN; UPDATE event_queue_internal.rule_checkpoint SET position = position; PREPARE TRANSACTION 'left'));
sql(q(SELECT event_queue.append('e', '2', 'e.x')));
fault('locks', 'a prepared transaction holds up rule runner', qr/^SELECT \* FROM pg_prepared_xacts$/);
sql(q(ROLLBACK PREPARED 'left'));
well('a prepared transaction');

# ... and a schedule is passed over.
workers_come_and_go(q(SET event_queue.databases = 'none'), '= 0');
sql(q(UPDATE event_queue.schedule SET next_run = now() - interval '5 minutes'));
($holder, $pid) = session('the holder');
$holder->query(q(BEGIN; SELECT event_queue.pause_schedule('yearly')));
workers_come_and_go('RESET event_queue.databases', '> 3');
$hint = fault('schedule yearly', "has been due for 00:0.*, its row is held by session $pid .application \"the holder\"", qr/^SELECT pg_terminate_backend\($pid\)$/);
sql($hint);
well('a schedule');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.schedule WHERE last_run IS NOT NULL)), 'it runs');
eval { $holder->quit };

# A job that another session has in hand and has not committed.
sql(q(SELECT event_queue.create_queue('outside')));
my $job = sql(q(SELECT event_queue.enqueue('outside', 'j')));
($holder, $pid) = session('the holder');
$holder->query(q(BEGIN; SELECT count(*) FROM event_queue.claim('outside')));
like(sql("SELECT reason, detail FROM event_queue.explain_job($job)"), qr/^held by a session\|session $pid .application "the holder".*pg_terminate_backend\($pid\)$/m, 'explain_job: who has it');
$holder->query('ROLLBACK');
unlike(sql("SELECT reason FROM event_queue.explain_job($job)"), qr/held/, 'nobody');
sql("SELECT event_queue.cancel_job($job)");
eval { $holder->quit };

# One name of a queue fails, and others succeed.
sql(q(SELECT event_queue.create_queue('mixed', max_attempts => 20, backoff => 'fixed', backoff_delay => '1 hour'),
	event_queue.create_handler('mixed', '*', 'works'), event_queue.create_handler('mixed', 'bad "one"', 'fails')));
sql(q(SELECT count(event_queue.enqueue('mixed', 'good')) FROM generate_series(1, 40)));
my $bad = sql(q(SELECT event_queue.enqueue('mixed', 'bad "one"')));
my $done = q(SELECT completed_total = 40 AND failed_total = 1 FROM event_queue.queue_stats WHERE queue = 'mixed');
ok($node->poll_query_until('postgres', $done), 'one has failed');
$node->restart;
$hint = fault('queue mixed', 'all attempts of "bad ""one""" fail', qr/FROM event_queue.jobs/);
like(sql($hint), qr/^$bad\|waits for its next attempt\|.*no$/, 'what it says to type tells why');
is(sql(q(SELECT x ->> 'detail' FROM jsonb_array_elements(event_queue.queue_health() -> 'mixed' -> 'reasons') x WHERE x ->> 'reason' = 'job_fails')),
	'all attempts of "bad ""one""" fail', 'and in queue_health()');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.alerts WHERE key = 'health:queue mixed' AND state = 'raised')), 'an alert is raised');
sql(q(SELECT count(event_queue.enqueue('mixed', 'good')) FROM generate_series(1, 5)));
ok($node->poll_query_until('postgres', q(SELECT completed_total = 45 FROM event_queue.queue_stats WHERE queue = 'mixed')), 'others are completed');
$node->restart;
$node->stop('immediate');
$node->start;
ok($node->poll_query_until('postgres', q(SELECT count(*) > 3 FROM event_queue.workers())), 'the server was restarted, and has crashed');
sleep 2;
is(told('health:queue mixed'), 'raised', 'it stays raised while nothing is tried');
sql(q(SELECT event_queue.create_handler('mixed', 'bad "one"', 'works', or_replace => true), event_queue.retry_waiting('mixed')));
well('the handler was mended');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.alerts WHERE key = 'health:queue mixed')), 'the alert ends');
is(told('health:queue mixed'), 'raised resolved', 'once each');

# The whole queue; the job is cancelled.
sql(q(SELECT event_queue.create_handler('mixed', 'bad "one"', 'fails', or_replace => true)));
$node->restart;
$bad = sql(q(SELECT event_queue.enqueue('mixed', 'bad "one"')));
ok($node->poll_query_until('postgres', q(SELECT failed_total = 2 FROM event_queue.queue_stats WHERE queue = 'mixed')), 'it has failed');
$node->restart;
fault('queue mixed', 'all attempts fail', qr/explain_job/);
sql("SELECT event_queue.cancel_job($bad)");
well('the job was cancelled');

$node->stop;
done_testing();
