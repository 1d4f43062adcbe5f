# The server is killed with -9 in the middle of the flow and started again:
# every committed lead ends with exactly its tasks.
#
# EQ_CRASH_ROUNDS: how often (2; 10 with EQ_LONG); EQ_CRASH_LEADS: leads a
# client and round (60).
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use EventQueueCrash;

my $rounds = $ENV{EQ_CRASH_ROUNDS} || ($ENV{EQ_LONG} ? 10 : 2);
my $leads = $ENV{EQ_CRASH_LEADS} || 60;
my $clients = 4;
my $tasks = 3;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
# Test::Cluster switches fsync off: a killed server loses nothing by that, as
# the machine goes on.
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 3
restart_after_crash = off
));
$node->start;
$node->safe_psql('postgres', qq(
CREATE EXTENSION event_queue;
CREATE TABLE lead (lead_id text PRIMARY KEY);
CREATE TABLE task (lead_id text REFERENCES lead, n int);
CREATE FUNCTION create_lead(id text) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO lead VALUES (id);
	PERFORM event_queue.append('lead', id, 'lead.created', expected_version => 'no_stream');
END \$\$;
-- Not safe to repeat: a job that ran twice would show.
CREATE FUNCTION make_tasks(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	INSERT INTO public.task SELECT job.payload ->> 'lead', n FROM generate_series(1, $tasks) n;
	PERFORM pg_sleep(0.002);
END \$\$;
SELECT event_queue.create_queue('tasks', max_stalled => 100);
SELECT event_queue.create_handler('tasks', 'make', 'make_tasks');
SELECT event_queue.create_rule('tasks', 'lead.created', queue => 'tasks', job_name => 'make',
	payload => '{"lead": "\$.aggregate_id"}');
));

my $highest = 0;
for my $round (1 .. $rounds)
{
	my @running;
	for my $client (1 .. $clients)
	{
		unlink $node->basedir . "/leads-$client.sql";
		my $sql = join('', map { "SELECT create_lead('$round-$client-$_');\n" } 1 .. $leads);
		my $file = $node->basedir . "/leads-$client.sql";
		append_to_file($file, $sql);
		push @running, IPC::Run::start(
			[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $file ],
			'>', \my $out, '2>', \my $err);
	}
	# Some are in, jobs are running, more are coming.
	$node->poll_query_until('postgres',
		"SELECT count(*) >= $leads FROM lead WHERE lead_id LIKE '$round-%'")
	  or die 'no leads came';
	kill_server($node);
	$_->finish for @running;
	start_again($node);
	is($node->safe_psql('postgres', "SELECT a.position > $highest FROM event_queue.append('mark', '$round', 'mark') a"),
		't', "round $round: positions go on above those given before");
	$highest = $node->safe_psql('postgres', 'SELECT event_queue_internal.last_position()');
}

ok($node->poll_query_until('postgres',
	'SELECT (SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)'
	. ' AND NOT EXISTS (SELECT FROM event_queue.job)'), 'the queue runs empty');
my $committed = $node->safe_psql('postgres', 'SELECT count(*) FROM lead');
cmp_ok($committed, '>', $leads, "$committed leads were committed");
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.event_store WHERE event_type = 'lead.created'"),
	$committed, 'each with its event');
is($node->safe_psql('postgres', "SELECT count(*) FROM lead l WHERE (SELECT count(*) FROM task t WHERE t.lead_id = l.lead_id) <> $tasks"),
	'0', 'and exactly its tasks');
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.dead_letter'), '0', 'no dead letters');
is($node->safe_psql('postgres', 'SELECT count(*) = count(DISTINCT position) FROM event_queue.event_store'),
	't', 'no position twice');
$node->stop;
done_testing();
