# Alerts are raised once and resolved once, whatever stops in between: a restart, kill -9 of
# the scheduler, a crash of the server; not in a copy that is not activated.  And a rule
# makes a job of one.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueCrash;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 20
event_queue.alert_interval = 100
restart_after_crash = on
));
$node->start;

sub sql { return $node->safe_psql('postgres', @_); }
sub comes { my ($query, $what) = @_; return ok($node->poll_query_until('postgres', $query), $what); }

# What was told of an alert, in order.
sub told
{
	my ($key) = @_;
	return sql("SELECT string_agg(substr(event_type, 7), ' ' ORDER BY version) FROM event_queue.event_store
		WHERE aggregate_type = 'alert' AND aggregate_id = '$key'");
}

# A full second is ten looks, and more than three at health().
sub settled { sleep 2; return told(@_); }

sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', max_attempts => 1), event_queue.create_queue('mails');
SELECT event_queue.create_rule('tell', 'alert.*', queue => 'mails', job_name => 'mail',
	payload => '{"what": "$.event_type", "key": "$.data.key", "detail": "$.data.detail"}');
SELECT event_queue.create_alert('deep', 'queue_depth', 'q', 5, clear_threshold => 2);
SELECT event_queue.alter_alert('health', pending => '200 ms');
));

# One session listens meanwhile; any role can, also one of another tenant.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN event_queue_alerts');

sql("SELECT count(event_queue.enqueue('q', 'j')) FROM generate_series(1, 10)");
comes("SELECT count(*) = 1 FROM event_queue.alerts WHERE key = 'deep:q' AND state = 'raised'", 'raised by the scheduler');
is(settled('deep:q'), 'raised', 'once');
my $heard = $listener->query('SELECT 1');
like($heard, qr/Asynchronous notification "event_queue_alerts" with payload "\{"state" : "raised", "alert_id" : \d+, "severity" : "warning"\}"/, 'and by NOTIFY');
unlike($heard, qr/deep|jobs/, 'which tells nothing of queues');
$listener->quit;
comes("SELECT count(*) = 1 FROM event_queue.jobs WHERE queue = 'mails' AND payload ->> 'key' = 'deep:q' AND payload ->> 'what' = 'alert.raised' AND payload ->> 'detail' = '10 jobs'",
	'a rule makes a job of it');

# Restarts and crashes while it is raised.
$node->restart;
is(settled('deep:q'), 'raised', 'not again after a restart');
$node->stop('immediate');
$node->start;
is(settled('deep:q'), 'raised', 'nor after a crash');
for my $round (1 .. 3)
{
	my $pid = sql("SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'");
	next unless $pid =~ /^\d+$/;
	kill 'KILL', $pid;
	wait_for($node, "SELECT count(*) = 1 FROM event_queue.workers() WHERE kind = 'scheduler' AND pid <> $pid");
}
is(settled('deep:q'), 'raised', 'nor after kill -9 of the scheduler');
is(sql("SELECT count(*) FROM event_queue.alert_history WHERE key = 'deep:q'"), 1, 'and stands once in the history');

# It ends while the server is down.
sql(q(
ALTER SYSTEM SET event_queue.alert_interval = 0;
SELECT pg_reload_conf();
));
sleep 1;
sql("SELECT event_queue.purge_queue('q')");
is(told('deep:q'), 'raised', 'nobody looks');
sql('ALTER SYSTEM RESET event_queue.alert_interval');
$node->stop('immediate');
$node->start;
comes("SELECT NOT EXISTS (SELECT FROM event_queue.alerts WHERE key = 'deep:q')", 'resolved after the crash');
is(settled('deep:q'), 'raised resolved', 'once');

# Killed at any moment: told by turns, and the last word is how it stands.
my $rounds = 8;
for my $round (1 .. $rounds)
{
	if ($round % 2)
	{
		sql("SELECT count(event_queue.enqueue('q', 'j')) FROM generate_series(1, 10)");
	}
	else
	{
		sql("SELECT event_queue.purge_queue('q')");
	}
	select(undef, undef, undef, rand(0.25));
	my $pid = sql("SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'");
	kill 'KILL', $pid if $pid =~ /^\d+$/ && $round % 4;
	ok(wait_for($node, 'SELECT true'), "up again in round $round");
	wait_for($node, "SELECT count(*) = " . ($round % 2) . " FROM event_queue.alerts WHERE key = 'deep:q' AND state = 'raised'");
}
my $told = settled('deep:q');
like($told, qr/^(raised resolved ?)+$/, 'told by turns');
is(scalar(() = $told =~ /raised/g), 1 + $rounds / 2, 'each time once');
comes(q(SELECT count(*) = count(DISTINCT event_id) AND count(*) = (SELECT count(*) FROM event_queue.event_store WHERE aggregate_type = 'alert')
	FROM (SELECT metadata ->> 'event_id' AS event_id FROM event_queue.jobs WHERE queue = 'mails') x), 'and a job was made of each');

# Built in: a queue with a dead letter, mended.
sql("SELECT event_queue.enqueue('q', 'dies')");
sql("SELECT event_queue.fail(job_id, lease_token, 'no', final => true) FROM event_queue.claim('q')");
comes("SELECT count(*) = 1 FROM event_queue.alerts WHERE key = 'health:queue q' AND state = 'raised'", 'what health() finds is raised');
$node->restart;
is(settled('health:queue q'), 'raised', 'once, over a restart');
sql("SELECT event_queue.discard_all_dead('q')");
comes("SELECT NOT EXISTS (SELECT FROM event_queue.alerts WHERE key = 'health:queue q')", 'and resolved');
is(settled('health:queue q'), 'raised resolved', 'once');

# A lock that holds up the workers is an alert too, and one's figures are not taken for over.
sql("SELECT count(event_queue.enqueue('q', 'j')) FROM generate_series(1, 10)");
comes("SELECT count(*) = 1 FROM event_queue.alerts WHERE key = 'deep:q' AND state = 'raised'", 'raised');
my $before = told('deep:q');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE event_queue.dead_letter IN ACCESS EXCLUSIVE MODE');
comes("SELECT count(*) = 1 FROM event_queue.alerts WHERE key = 'health:locks' AND state = 'raised'", 'a lock is told');
is(told('deep:q'), $before, 'what can not be looked at is not over');
$locker->query_safe('COMMIT');
$locker->quit;
comes("SELECT NOT EXISTS (SELECT FROM event_queue.alerts WHERE key = 'health:locks')", 'and its end');

# A copy holds: nothing is told in it.
sql("SELECT event_queue.purge_queue('q')");
comes("SELECT NOT EXISTS (SELECT FROM event_queue.alerts WHERE key = 'deep:q')", 'resolved');
command_ok([ 'pg_dump', '-Fc', '-f', $node->basedir . '/dump', $node->connstr('postgres') ], 'dumped');
$node->safe_psql('template1', 'CREATE DATABASE copy');
command_ok([ 'pg_restore', '-d', $node->connstr('copy'), $node->basedir . '/dump' ], 'restored');
my $state = q(SELECT (SELECT count(*) FROM event_queue.event_store) || ' ' || (SELECT count(*) FROM event_queue.alert_history) || ' '
	|| (SELECT count(*) FROM event_queue.alert_definitions) || ' ' || (SELECT count(*) FROM event_queue.audit_log));
my $there = $node->safe_psql('copy', $state);
like($there, qr/^\d\d \d+ 2 \d+$/, 'the dump carries alerts and the audit log');
is($node->safe_psql('copy', 'SELECT count(*) FROM event_queue.audit_log'), sql('SELECT count(*) FROM event_queue.audit_log'),
	'and the restore writes no line of its own');
sleep 2;
is($node->safe_psql('copy', $state), $there, 'and nothing is told in a copy that is not in service');
is($node->safe_psql('copy', q(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'event_queue.audit_log_default'::regclass AND tgname LIKE 'refuse%')), 2,
	'its audit log is guarded');
$node->safe_psql('copy', 'SELECT event_queue.activate()');
is($node->safe_psql('copy', "SELECT action FROM event_queue.audit_log ORDER BY audit_id DESC LIMIT 1"), 'activate', 'activate() is written');
$node->stop;
done_testing();
