# Actions of rules that reach beyond the rule runner: NOTIFY, and events that must be as
# durable as the jobs, though the rule runner commits asynchronously.
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
event_queue.rule_batch = 2
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_rule('tell', 'lead.*', actions => '[
	{"append": {"event_type": "told", "aggregate_type": "tale"}},
	{"notify": {"channel": "Leads", "payload": "Lead {{data.name}}"}},
	{"notify": {"channel": "Leads", "payload": {"id": "$.aggregate_id"}}}, {"notify": {"channel": "Leads"}}]');
));

# psql shows what it has heard after its next statement.
my ($in, $out) = ('LISTEN "Leads"; SELECT \'listens\';', '');
my $listener = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres') ],
	'<', \$in, '>', \$out, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 3));
$in .= "\n";
$listener->pump until $out =~ /listens/;
$node->safe_psql('postgres', q(SELECT event_queue.append('lead', 'L1', 'lead.new', '{"name": "Ann"}')));
while ($out !~ /with payload "\{"id": "L1"\}"/ || $out !~ /with payload "Lead Ann"/ || $out !~ /notification "Leads" received/)
{
	$in .= "SELECT pg_sleep(0.1);\n";
	$listener->pump;
}
$in .= "\\q\n";
$listener->finish;
like($out, qr/notification "Leads" with payload "Lead Ann" received/, 'a text');
like($out, qr/notification "Leads" with payload "\{"id": "L1"\}" received/, 'an object');
like($out, qr/notification "Leads" received/, 'nothing');

# What others have seen is there after a crash.
my $id = $node->safe_psql('postgres', q(SELECT id FROM event_queue.event_store WHERE event_type = 'told'));
ok($id, 'the event is there');
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', q(SELECT id FROM event_queue.event_store WHERE event_type = 'told')), $id, 'and the same after a crash');
$node->safe_psql('postgres', q(SELECT event_queue.append('lead', 'L2', 'lead.new', '{"name": "Bo"}')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM event_queue.event_store WHERE event_type = 'told')), 'it goes on');

# Catching up takes several transactions, while others go on; each event is met once.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue('q');
SELECT count(event_queue.append('old', 'O', 'old.x')) FROM generate_series(1, 60);
SELECT event_queue.create_rule('late', 'old.*', queue => 'q', job_name => 'late', start => 'beginning');
SELECT event_queue.create_rule('other', 'old.*', queue => 'q', job_name => 'other');
SELECT count(event_queue.append('old', 'O', 'old.x')) FROM generate_series(1, 60)));
my $met = sub
{
	my ($rule, $events) = @_;
	return $node->poll_query_until('postgres', qq(SELECT (count(*), count(DISTINCT metadata ->> 'event_id')) = ($events, $events)
		AND NOT EXISTS (SELECT FROM event_queue.rule_stats WHERE state = 'catching up')
		FROM event_queue.job WHERE name = '$rule'));
};
ok($met->('late', 120), 'a rule that starts at the beginning meets each event once');
ok($met->('other', 60), 'and one that starts now those that come');
$node->safe_psql('postgres', q(SELECT event_queue.pause_rule('late')));
$node->safe_psql('postgres', q(SELECT count(event_queue.append('old', 'O', 'old.x')) FROM generate_series(1, 60)));
ok($met->('other', 120), 'others go on');
$node->safe_psql('postgres', q(SELECT event_queue.resume_rule('late', 'catch_up')));
$node->stop('immediate');
$node->start;
ok($met->('late', 180), 'what was missed is caught up once, also with a crash');
is($node->safe_psql('postgres', q(SELECT bool_and(o) FROM (SELECT (metadata ->> 'event_position')::bigint > lag((metadata ->> 'event_position')::bigint, 1, 0::bigint) OVER (ORDER BY job_id) AS o
	FROM event_queue.job WHERE name = 'late') x)), 't', 'in order');
# An aggregate that an open transaction has: the action is tried again, and executors
# do other work meanwhile.
$node->safe_psql('postgres', q(
CREATE FUNCTION nothing(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT event_queue.create_queue('plain'); SELECT event_queue.create_handler('plain', '*', 'public.nothing');
SELECT event_queue.create_rule('echo', 'hot.*', actions => '[{"append": {"event_type": "echoed"}}]');
SELECT event_queue.pause_rule('echo');
SELECT count(event_queue.append('hot', 'H', 'hot.x')) FROM generate_series(1, 5)));
my $holder = $node->background_psql('postgres');
$holder->query_safe(q(BEGIN; SELECT event_queue.append('hot', 'H', 'held.x')));
$node->safe_psql('postgres', q(SELECT event_queue.resume_rule('echo', resume => 'catch_up')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 5 FROM event_queue.job WHERE name = 'rule-call')), 'the actions have to wait');
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('plain', 'x')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.jobs WHERE queue = 'plain')), 'other jobs are done meanwhile');
$holder->query_safe('COMMIT');
$holder->quit;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 5 FROM event_queue.event_store WHERE event_type = 'echoed')), 'and they are done afterwards');
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.dead_letter)), '0', 'no attempt was counted too much');

# A NOTIFY queue that nobody empties would fail the commit of all rules' firings: the action
# waits as a job before that, and others go on.
$node->append_conf('postgresql.conf', 'event_queue.rule_notify_limit = 0');
$node->reload;
my $deaf = $node->background_psql('postgres');
$deaf->query_safe('LISTEN deaf; BEGIN; SELECT 1;');
# Its usage counts pages, of 8 kB.
$node->safe_psql('postgres', q(SELECT pg_notify('deaf', repeat('x', 7000) || g) FROM generate_series(1, 3) g));
ok($node->safe_psql('postgres', 'SELECT pg_notification_queue_usage() > 0') eq 't', 'somebody does not listen');
$node->safe_psql('postgres', q(
SELECT event_queue.create_rule('full', 'full.*', actions => '[{"enqueue": {"queue": "q", "name": "before"}}, {"notify": {"channel": "deaf"}}]');
SELECT event_queue.create_rule('beside', 'full.*', queue => 'q', job_name => 'beside');
SELECT event_queue.append('full', 'F', 'full.x')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.job WHERE name = 'rule-call' AND metadata ->> 'rule' = 'full')), 'the action waits');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.job WHERE name = 'beside')), 'others do not');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.job WHERE name = 'rule-call' AND metadata ->> 'rule' = 'full'
	AND errors -> 0 ->> 'message' = 'the NOTIFY queue is nearly full' AND errors -> 0 ->> 'sqlstate' = '54000')), 'and says why');
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.job WHERE name = 'before')), '0', 'all of the rule or none');
$deaf->query_safe('COMMIT');
$deaf->quit;
$node->safe_psql('postgres', 'SELECT count(event_queue.retry_dead(job_id)) FROM event_queue.dead_letter');	# on a slow machine
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.job WHERE name = 'before')), 'it is done when there is room');

$node->stop;
done_testing();
