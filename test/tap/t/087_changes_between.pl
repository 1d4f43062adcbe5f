# Changes that commit between two looks of a background worker: none may cost an event its
# rule, or let a rule fire twice.
use strict;
use warnings;
use IPC::Run qw(start);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_prepared_transactions = 5
event_queue.executors = 1
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }
sub soon { return ok($node->poll_query_until('postgres', "SELECT $_[0]"), $_[1]) }
my $runner = q(FROM pg_stat_activity WHERE backend_type = 'event_queue rule runner');
sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q');
SELECT event_queue.create_rule('last', '**', rule_order => 10, queue => 'q', job_name => 'last', payload => '{"n": "$.data.n"}');
CREATE FUNCTION public.handle(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
));
my $n = 0;

# Appends an event, which all rules have met when this returns.
sub append
{
	my ($type) = @_;
	$n++;
	sql("SELECT event_queue.append('a', '1', '$type', '{\"n\": $n}')");
	return $node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.job WHERE name = 'last' AND payload ->> 'n' = '$n'");
}

# ------------------------------------------------------------ COMMIT PREPARED
# It calls nothing of what an ordinary commit does.
sub prepared
{
	my ($call) = @_;
	sql("BEGIN; SELECT event_queue.$call; PREPARE TRANSACTION 'change'");
	sql("COMMIT PREPARED 'change'");
}
append('before.made');
prepared(q(create_rule('two', 'two.made', queue => 'q', job_name => 'two')));
ok(append('two.made'), 'an event after COMMIT PREPARED of create_rule');
my $two = q(SELECT count(*) FROM event_queue.job WHERE name LIKE 'two%');
is(sql($two), '1', 'meets the rule');
prepared(q(pause_rule('two')));
append('two.made');
is(sql($two), '1', 'no event after that of pause_rule does');
prepared(q(resume_rule('two', 'catch_up')));
soon("($two) = 2", 'after that of resume_rule it does');
prepared(q(create_rule('two', 'two.made', queue => 'q', job_name => 'two, new', or_replace => true)));
append('two.made');
is(sql("$two AND name = 'two, new'"), '1', 'a rule that was replaced is the new one');
prepared(q(drop_rule('two')));
append('two.made');
is(sql($two), '3', 'a rule that was dropped fires no more');
sql(q(SELECT event_queue.enqueue('q', 'handled')));
prepared(q(create_handler('q', 'handled', 'public.handle')));
soon(q((SELECT count(*) = 0 FROM event_queue.job WHERE name = 'handled')), 'a handler that comes so runs the jobs that wait');
$node->restart;
sql(q(BEGIN; SELECT event_queue.create_rule('three', 'three.made', queue => 'q', job_name => 'three'); PREPARE TRANSACTION 'change'));
$node->restart;
append('before.made');
sql(q(COMMIT PREPARED 'change'));
append('three.made');
is(sql(q(SELECT count(*) FROM event_queue.job WHERE name = 'three')), '1', 'also one that was prepared before a restart');

# An extension that was dropped comes again so.
sql('CREATE DATABASE again');
$node->safe_psql('again', 'CREATE EXTENSION event_queue');
my $scheduler = q(SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'again' AND backend_type = 'event_queue scheduler');
ok($node->poll_query_until('postgres', $scheduler), 'a database has its workers');
$node->safe_psql('again', 'DROP EXTENSION event_queue');
ok($node->poll_query_until('postgres', "SELECT NOT ($scheduler)"), 'and has none without the extension');
$node->safe_psql('again', q(BEGIN; CREATE EXTENSION event_queue; PREPARE TRANSACTION 'change'));
$node->safe_psql('again', q(COMMIT PREPARED 'change'));
ok($node->poll_query_until('postgres', $scheduler), 'they are back after COMMIT PREPARED of CREATE EXTENSION');

# ------------------------------------------------------------ a backfill, and what is no longer known
# Firings come of age, and are deleted, after the runner has read the backfill and before it
# reads what has fired.
my $old = sql(q(SELECT event_queue.watermark()));
sql(q(SELECT event_queue.create_rule('filled', 'fill.*', queue => 'q', job_name => 'filled')));
append('fill.made') for 1 .. 3;
my $filled = q(SELECT count(*) FROM event_queue.job WHERE name = 'filled');
is(sql($filled), '3', 'a rule has fired');
sql(q(UPDATE event_queue_internal.rule_run SET at = at - interval '1 year'));
my $trim = $node->background_psql('postgres');
$trim->query_safe('BEGIN; LOCK TABLE event_queue_internal.rule_run IN ACCESS EXCLUSIVE MODE');
sql("SELECT event_queue.backfill_rule('filled', from_position => $old)");
soon("(SELECT wait_event_type = 'Lock' $runner)", 'the runner has read the backfill');
$trim->query_safe('SELECT event_queue_internal.trim_rule_runs()');
$trim->query_safe('COMMIT');
$trim->quit;
soon(q((SELECT state = 'done' FROM event_queue.rule_backfills)), 'the backfill ends');
is(sql($filled), '3', 'and fires for none again');
is(sql(q(SELECT fired || ' ' || not_known FROM event_queue.rule_backfills)), '0 3', 'since it is not known');

# ------------------------------------------------------------ a commit that is seen before it is told
# Has gdb hold a session there, and says when it does and when it is to go on.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $n_held = 0;
sub hold
{
	my ($pid, $where) = @_;
	my $at = "$dir/held" . $n_held++;
	my $out = '';
	PostgreSQL::Test::Utils::append_to_file("$at.gdb", qq(
set pagination off
handle SIGUSR1 nostop noprint pass
handle SIGALRM nostop noprint pass
$where->[0]
shell touch $at.ready
continue
$where->[1]
shell touch $at; while [ -e $at ]; do sleep 0.1; done
delete
continue
));
	my $gdb = eval { start([ 'gdb', '-q', '-batch', '-p', $pid, '-x', "$at.gdb" ], '<', \undef, '>&', \$out) };
	my $is_made = sub {
		for (1 .. 1800)
		{
			return 1 if -e $_[0];
			last unless $gdb && $gdb->pumpable;
			select undef, undef, undef, 0.1;
		}
		return -e $_[0];
	};
	return unless $is_made->("$at.ready");
	return { is_held => sub { $is_made->($at) }, go_on => sub { unlink $at }, end => sub { $gdb->finish } };
}

# Of a split the invalidations are not sent yet.
SKIP:
{
	my $split = $node->background_psql('postgres');
	my $held = hold($split->query_safe('SELECT pg_backend_pid()'), [ 'break AtEOXact_Inval', '' ]);
	skip 'no gdb that can attach', 4 unless $held;
	my $reader = $node->background_psql('postgres');
	my $events = sql('SELECT count(*) FROM event_queue.event_store');
	sql(q(SELECT event_queue.create_subscription('reader')));
	$reader->query_safe(q(SELECT count(*) FROM event_queue.fetch_events('reader', 1)));
	$split->query_until(qr/begun/, "\\echo begun\nSELECT event_queue.split_event_partition(up_to => now());\n");
	ok($held->{is_held}->(), 'a split is held in its commit');
	$reader->query_until(qr/begun/, q(\echo begun
		BEGIN; CREATE TABLE public.got AS SELECT position FROM event_queue.fetch_events('reader', 1000); SELECT event_queue.ack('reader'); COMMIT;
	));
	soon(q((SELECT to_regclass('public.got') IS NOT NULL OR EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'public.got'))), 'a reader has begun');
	$held->{go_on}->();
	soon("(SELECT to_regclass('public.got') IS NOT NULL)", 'and ends');
	is(sql('SELECT count(*) FROM public.got'), $events, 'it has read what was moved');
	$split->quit;
	$reader->quit;
	$held->{end}->();
}

# Of a rule the workers are not told yet.
sub seen_early
{
	my ($name, $statement, $visible) = @_;
	my $creator = $node->background_psql('postgres');
	my $held = hold($creator->query_safe('SELECT pg_backend_pid()'), [ "break $visible", 'finish' ]);
	skip 'no gdb that can attach', 4 unless $held;
	$creator->query_until(qr/begun/, "\\echo begun\n$statement;\n");
	ok($held->{is_held}->(), "$statement is held in its commit");
	is(sql("SELECT count(*) FROM event_queue.rules WHERE name = '$name'"), '1', 'the rule is seen');
	ok(append("$name.made"), 'an event that is appended then');
	$held->{go_on}->();
	soon("(SELECT count(*) = 1 FROM event_queue.job WHERE name = '$name')", 'meets it');
	$creator->quit;
	$held->{end}->();
}
sub create { return "SELECT event_queue.create_rule('$_[0]', '$_[0].made', queue => 'q', job_name => '$_[0]')" }
SKIP: { seen_early('seen', create('seen'), 'ProcArrayEndTransaction') }
sql('BEGIN; ' . create('seen_too') . q(; PREPARE TRANSACTION 'seen'));
SKIP: { seen_early('seen_too', q(COMMIT PREPARED 'seen'), 'ProcArrayRemove') }

# A commit that may change anything, and changes no rule, costs the rules no plan: an immutable function is called by the planner.
SKIP:
{
	sql(q(CREATE TABLE public.other (a int);
	CREATE FUNCTION public.planned() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE LOG 'planned'; RETURN true; END $$;
	SELECT event_queue.create_rule('planned', 'other.*', condition => 'public.planned()', queue => 'q', job_name => 'planned')));
	append('other.made') for 1 .. 2;
	sql(q(BEGIN; INSERT INTO public.other VALUES (1); PREPARE TRANSACTION 'other'));
	my $other = $node->background_psql('postgres');
	my $held = hold($other->query_safe('SELECT pg_backend_pid()'), [ 'break ProcArrayRemove', 'finish' ]);
	skip 'no gdb that can attach', 3 unless $held;
	$other->query_until(qr/begun/, "\\echo begun\nCOMMIT PREPARED 'other';\n");
	ok($held->{is_held}->(), 'COMMIT PREPARED of something else is held');
	my $said = -s $node->logfile;
	append('other.made') for 1 .. 3;
	is(sql(q(SELECT count(*) FROM event_queue.job WHERE name = 'planned')), '5', 'rules fire');
	unlike(slurp_file($node->logfile, $said), qr/LOG:  planned/, 'by the plans that they had');
	$held->{go_on}->();
	$other->quit;
	$held->{end}->();
}

$node->stop;
done_testing();
