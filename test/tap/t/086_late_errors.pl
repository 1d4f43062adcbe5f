# Errors that come late or between: at the commit of what "eventq serve" and "eventq work"
# asked for, and in the middle of the rule runner's reading; names that are hostile to a
# shell, or longer than most; settings of the database that every session gets, and workers
# must not mind.
use strict;
use warnings;
use IPC::Run qw(run start timeout);
use Time::HiRes qw(sleep time);
use EventqServe;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 1
event_queue.rule_batch = 1
));
$node->start;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;
$ENV{PGDATABASE} = 'postgres';
delete @ENV{qw(PGUSER PGPASSWORD)};
my $dir = PostgreSQL::Test::Utils::tempdir();

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub soon { return ok($node->poll_query_until('postgres', "SELECT $_[0]"), $_[1]) }

# What fails at commit fails after the answer of the statement itself.
sql(q(
CREATE EXTENSION event_queue;
CREATE TABLE public.late (n bigserial);
CREATE FUNCTION public.late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.n % 2 = 1 THEN RAISE 'not this time' USING ERRCODE = '40001'; END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON public.late DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION public.late();
SELECT event_queue.create_queue('mail'), event_queue.create_queue('work', keep_completed => '1 day');
));

# ------------------------------------------------------------ eventq work
# The first call of each fails at its commit, the second does not.
sql(q(
SET allow_system_table_mods = on;
ALTER FUNCTION event_queue.complete(bigint, uuid, jsonb) RENAME TO complete_0;
CREATE FUNCTION event_queue.complete(job_id bigint, lease_token uuid, result jsonb) RETURNS boolean LANGUAGE sql AS
	$$ INSERT INTO public.late DEFAULT VALUES; SELECT event_queue.complete_0(job_id, lease_token, result) $$;
));
my $job = sql(q(SELECT event_queue.enqueue('work', 'once')));
my $err = '';
run([ 'eventq', 'work', 'work', '--max-jobs', 1, '--lease', '1 hour', '--', 'sh', '-c', "echo ran >>$dir/ran" ], '<', \'', '2>', \$err, timeout(60));
is(sql("SELECT event_queue.job_outcome($job) ->> 'state'"), 'completed', 'eventq work: a completion whose commit failed is sent again');
like($err, qr/not this time/, 'and the error told') or diag($err);
is(slurp_file("$dir/ran"), "ran\n", 'the job ran once');
sql(q(
SET allow_system_table_mods = on;
DROP FUNCTION event_queue.complete(bigint, uuid, jsonb);
ALTER FUNCTION event_queue.complete_0(bigint, uuid, jsonb) RENAME TO complete;
));

SKIP:
{
	my ($help) = run_command([ 'eventq', 'serve', '--help' ]);
	skip 'eventq was built without libevent', 2 if $help !~ /--allow-actions/;
	# -------------------------------------------------------- eventq serve
	sql(q(
CREATE ROLE ana LOGIN PASSWORD 'ana-pw';
SELECT event_queue.grant_admin('ana');
GRANT INSERT ON public.late TO PUBLIC;
GRANT USAGE ON SEQUENCE public.late_n_seq TO PUBLIC;
CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.late DEFAULT VALUES; RETURN NULL; END $$;
CREATE TRIGGER late AFTER UPDATE ON event_queue.queue FOR EACH ROW EXECUTE FUNCTION public.note();
));
	open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die $!;
	print $hba "local all ana scram-sha-256\nlocal all all trust\n";
	close $hba;
	$node->reload;
	my ($port) = start_serve('eventq', 'serve', '--listen', '127.0.0.1:0', '--allow-actions');
	my $ana = sign_in($port, 'ana', 'ana-pw');
	my $answer = ask($ana, 'POST', '/api/queues/mail/pause', '{}');
	is($answer->{json}{sqlstate}, '40001', 'eventq serve: an action whose commit failed is not said to be done') or diag($answer->{content});
	is(sql(q(SELECT paused FROM event_queue.queue WHERE name = 'mail')), 'f', 'nor is it');
	is_status(ask($ana, 'POST', '/api/queues/mail/pause', '{}'), 200, 'the next one is');
	is(sql(q(SELECT paused FROM event_queue.queue WHERE name = 'mail')), 't', 'done');
	sql('DROP TRIGGER late ON event_queue.queue');
}

# ------------------------------------------------------------ completion
my @hostile = ('$(touch run)', '`touch run`', 'a, "b" c', "it's", '*');
sql(join '', map { "SELECT event_queue.create_queue(\$q\$$_\$q\$);" } @hostile);
sub complete
{
	my ($current) = @_;
	my ($out, $complaint) = ('', '');
	run([ 'bash', '--norc', '-c', q(eval "$(eventq completion bash)"; compopt() { :; }; COMP_WORDS=(eventq queue show "$1"); COMP_CWORD=3; _eventq; printf '%s\n' "${COMPREPLY[@]}"),
		'bash', $current ], '<', \'', '>', \$out, '2>', \$complaint, timeout(60));
	return $out . $complaint;
}
my $offered = complete('');
ok(!-e 'run', 'completion runs nothing that stands in the name of a queue');
like($offered, qr/^mail$/m, 'it offers queues') or diag($offered);
is(complete('ma'), "mail\n", 'that begin so');
for my $name (@hostile)
{
	my ($line) = grep { my $word = $_; my $out = ''; run([ 'bash', '-c', 'eval "set -- $1"; [ $# = 1 ] && printf %s "$1"', 'bash', $word ], '>', \$out); $out eq $name } split /\n/, complete('');
	ok($line, "$name is offered as one word, quoted");
}
ok(!-e 'run', 'and still nothing was run');

# ------------------------------------------------------------ rules that catch up
sql(q(
SELECT event_queue.create_queue('q'), event_queue.pause_queue('q');
SELECT event_queue.append('old', n::text, 'old.made') FROM generate_series(1, 300) n;
CREATE FUNCTION public.slow() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN true; END $$;
));
sql(q(SELECT event_queue.create_rule('behind', 'old.made', 'public.slow()', queue => 'q', job_name => 'behind', start => 'beginning')));
soon(q((SELECT count(*) > 5 FROM event_queue.job WHERE name = 'behind')), 'a rule catches up');
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE event_queue_internal.rule_catch_up');
my $runner = q(FROM pg_stat_activity WHERE backend_type = 'event_queue rule runner');
soon("(SELECT wait_event_type = 'Lock' $runner)", 'its row is locked');
sql("SELECT pg_cancel_backend(pid) $runner");
sleep 0.5;
$lock->query_safe('ROLLBACK');
$lock->quit;
soon(q((SELECT count(*) = 300 FROM event_queue.job WHERE name = 'behind')), 'it goes on afterwards');

# A rule is resumed, and another one created, between the moment when a new runner read the
# rules and the one when it notes where those that were off stopped.
sql(q(SELECT event_queue.create_rule('resumed', 'resumed.made', queue => 'q', job_name => 'resumed')));
sql(q(SELECT event_queue.create_rule('stopped', 'new.made', queue => 'q', job_name => 'stopped')));
my $noting = $node->background_psql('postgres');
$noting->query_safe('BEGIN; LOCK TABLE event_queue_internal.rule_catch_up IN SHARE ROW EXCLUSIVE MODE');
my $was = sql("SELECT pid $runner");
sql(q(SELECT event_queue.pause_rule('resumed')));
sql(q(SELECT event_queue.append('resumed', '1', 'resumed.made')));
sql("SELECT pg_terminate_backend(pid) $runner");
soon("(SELECT wait_event_type = 'Lock' AND pid <> $was $runner)", 'a new runner has read that the rule is off');
sql(q(SELECT event_queue.resume_rule('resumed', 'catch_up')));
sql(q(SELECT event_queue.create_rule('stops', 'new.made', queue => 'q', job_name => 'stops', stop => true, rule_order => -1)));
sql(q(SELECT event_queue.append('new', '1', 'new.made')));
$noting->query_safe('COMMIT');
$noting->quit;
soon(q((SELECT count(*) = 1 FROM event_queue.job WHERE name = 'resumed')), 'the event that came while it was off is met');
soon(q((SELECT count(*) = 1 FROM event_queue.job WHERE name = 'stops')), 'the new rule meets what came after it');
is(sql(q(SELECT count(*) FROM event_queue.job WHERE name = 'stopped')), '0', 'with the others, whom it stops');

# ------------------------------------------------------------ two drafts at once
my $draft = q(SELECT event_queue.create_rule('behind', 'old.made', queue => 'q', job_name => 'x', draft => true));
my $first = $node->background_psql('postgres');
$first->query_safe("BEGIN; $draft");
my ($drafted, $complaint) = ('', '');
my $second = start([ 'psql', '-XAtqc', $draft ], '<', \'', '>', \$drafted, '2>', \$complaint, timeout(60));
soon(q(EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'draft')), 'a second draft waits for the first');
$first->query_safe('COMMIT');
$first->quit;
$second->finish;
is($complaint, '', 'and is the next version');

# ------------------------------------------------------------ long names
my $long = 'long ' . 'n' x 250;
sql(qq(
SELECT event_queue.create_schedule(left('$long', 254) || 1, '0 0 1 1 *', 'q', 'x'), event_queue.create_schedule(left('$long', 254) || 2, '0 0 1 1 *', 'q', 'x');
UPDATE event_queue.schedule SET time_zone = 'Nowhere/Land', next_run = now() WHERE name LIKE 'long%2';
));
soon(q((SELECT string_agg(right(schedule, 1) || ' ' || state, ', ' ORDER BY 1) = '1 active, 2 failing' FROM event_queue.schedule_stats)),
	'schedules are told apart by the end of a long name');
sql(q(SELECT event_queue.drop_schedule(name) FROM event_queue.schedule));
soon(q(NOT EXISTS (SELECT FROM event_queue.faults() WHERE what = 'schedule')), 'and a fault is over when its schedule is gone');

# ------------------------------------------------------------ times of a clock that was ahead
sql(q(
SELECT event_queue.create_queue('slow'), event_queue.enqueue('slow', 'well');
SELECT event_queue.enqueue('slow', 'ahead');
SELECT event_queue.fail(job_id, lease_token, 'later', retry_after => '1 hour') FROM event_queue.claim('slow', 2);
UPDATE event_queue.job SET run_at = run_at + interval '1 day', errors = jsonb_set(errors, '{-1,at}', to_jsonb(now() + interval '1 day')) WHERE name = 'ahead';
CREATE TABLE public.before AS SELECT xmax::text AS x FROM event_queue.job WHERE name = 'well';
SELECT event_queue_internal.correct_times();
));
is(sql(q(SELECT count(*) FROM event_queue.job WHERE failures = 1 AND run_at BETWEEN now() AND now() + interval '2 hours')), '2',
	'a job that failed while the clock was ahead runs in time');
is(sql(q(SELECT count(*) FROM event_queue.job j, public.before WHERE name = 'well' AND j.xmax::text = x)), '1', 'and others are not touched');

# ------------------------------------------------------------ columns that no row has
SKIP:
{
	skip 'no virtual generated columns before 18', 2 if $node->pg_version < 18;
	sql(q(
CREATE TABLE public.t (id int PRIMARY KEY, a text, v text GENERATED ALWAYS AS (a || '!') VIRTUAL, s text GENERATED ALWAYS AS (a || '?') STORED);
SELECT event_queue.create_rule('rows', queue => 'q', job_name => 'x', on_table => 'public.t', tenant_column => 's');
INSERT INTO public.t VALUES (1, 'x');
));
	is(sql(q(SELECT event_data -> 'new' FROM event_queue.event_store WHERE aggregate_type = 'event_queue.table')), '{"a": "x", "s": "x?", "id": 1}',
		'a virtual generated column is left out of events of a rule on a table, and not said to be null');
	my ($status, $out, $refused) = $node->psql('postgres', q(SELECT event_queue.create_rule('virtual', queue => 'q', job_name => 'x', on_table => 'public.t', tenant_column => 'v')));
	like($refused, qr/column "v" of table public.t is a virtual generated column/, 'it names no tenant');
}

# ------------------------------------------------------------ settings of the database
sql(q(
ALTER DATABASE postgres SET event_queue.tenant = 'acme';
ALTER DATABASE postgres SET event_queue.correlation_id = 'all';
ALTER DATABASE postgres SET idle_session_timeout = '300ms';
CREATE FUNCTION public.take(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(1.5);
	RETURN to_jsonb(concat_ws(' ', job.tenant_id, current_setting('event_queue.tenant'), job.metadata ->> 'correlation_id'));
END $$;
SELECT event_queue.create_queue('taken', keep_completed => '1 day'), event_queue.create_handler('taken', '*', 'public.take'),
	event_queue.create_schedule('each', '* * * * * *', 'taken', 'x', tenant_id => 'beta');
));
sql(q(ALTER DATABASE postgres SET transaction_timeout = '1s')) if $node->pg_version >= 17;
$node->restart;
$ENV{PGOPTIONS} = '-c event_queue.tenant=';
ok($node->poll_query_until('postgres', "SELECT count(*) > 0 FROM event_queue.history WHERE result = '\"beta beta\"'"),
	'workers serve all tenants, in transactions as long as they need, whatever the database says of sessions')
  or diag(sql("SELECT * FROM event_queue.health() WHERE NOT ok; SELECT job_id, state, stalled, last_error FROM event_queue.all_jobs WHERE queue = 'taken'; SELECT result FROM event_queue.history"));
sql("SELECT event_queue.drop_schedule('each')");

# eventq work does nothing while its child works
my $long_job = sql("SELECT event_queue.enqueue('work', 'once')");
run([ 'eventq', 'work', 'work', '--session', '--max-jobs', 1, '--', 'sleep', 1 ], '<', \'', '2>', \$err, timeout(60));
is(sql("SELECT event_queue.job_outcome($long_job) ->> 'state'"), 'completed', 'eventq work: no time-out ends its session');
unlike($err, qr/lost the connection/, 'nor is it made anew') or diag($err);

$node->stop;
done_testing();
