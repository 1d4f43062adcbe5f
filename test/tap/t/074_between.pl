# What happens between two steps of another process: a session that is stopped while it sleeps, a savepoint that is rolled
# back and not yet undone in shared memory, a sweep that is held up at one queue, a worker that is ended while it backs off.
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
max_worker_processes = 8
max_connections = 12
superuser_reserved_connections = 0
autovacuum = off
event_queue.executors = 1
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE EXTENSION event_queue');

# A session that was cancelled in wait_for_events, and one that has the place of one that was terminated there, sleep on
# when events come.  What tells is how often the kernel has let them sleep.
sub sleeps_of
{
	my ($pid) = @_;
	my ($n) = slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
	return $n;
}
my $asleep = q(FROM pg_stat_activity WHERE query LIKE 'CALL %' AND state = 'active' AND wait_event_type IN ('Extension', 'Client'));
sub begin_to_wait
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/begun/, "\\echo begun\nCALL event_queue.wait_for_events(1000000, '1 hour');\n");
	$node->poll_query_until('postgres', "SELECT count(*) = 1 $asleep AND pid = $pid") or die 'it does not sleep';
	return ($session, $pid);
}
SKIP:
{
	skip 'no /proc: how often a process slept is not known', 2 unless -r "/proc/$$/status";
	my ($cancelled, $pid) = begin_to_wait();
	sql("SELECT pg_cancel_backend($pid)");
	my (undef, $gone) = begin_to_wait();
	sql("SELECT pg_terminate_backend($gone, 60000)");
	my @others = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 8;
	my @pids = ($pid, map { scalar $_->query_safe('SELECT pg_backend_pid()') } @others);
	$node->poll_query_until('postgres', "SELECT count(*) = 9 FROM pg_stat_activity WHERE state = 'idle' AND pid IN (" . join(',', @pids) . ')') or die;
	my %before = map { $_ => sleeps_of($_) } @pids;
	# Who appends looks at flags only if someone waits.
	for my $round (1 .. 20)
	{
		my $watermark = sql('SELECT event_queue.watermark()');
		my $waits = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', "CALL event_queue.wait_for_events($watermark, '1 minute')" ], '>', \my $out);
		$node->poll_query_until('postgres', "SELECT count(*) = 1 $asleep") or die;
		sql(q(SELECT event_queue.append('a', '1', 'x')));
		$waits->finish;
	}
	my @woken = grep { sleeps_of($_) - $before{$_} >= 20 } @pids;
	is(scalar(grep { $_ == $pid } @woken), 0, 'a session that was cancelled in wait_for_events is woken no more');
	is(scalar(grep { $_ != $pid } @woken), 0, 'nor the next one in the place of one that was terminated there');
	$_->quit for $cancelled, @others;
}

# A savepoint was rolled back, and what it did to the limits in shared memory is not undone yet: another session has the
# job meanwhile.  (postgres_fdw waits for the other server in between, which is stopped.)
SKIP:
{
	skip 'postgres_fdw is not installed', 4 unless sql(q(SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'));
	my ($host, $port) = ($node->host, $node->port);
	sql(qq(
		CREATE EXTENSION postgres_fdw;
		CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER self;
		CREATE TABLE here (n int); CREATE FOREIGN TABLE there (n int) SERVER self OPTIONS (table_name 'here');
		SELECT event_queue.create_queue('one', max_concurrency => 1, lease => '1 hour'), event_queue.enqueue('one', 'a'), event_queue.enqueue('one', 'b')));
	my ($job, $token) = split /\|/, sql(q(SELECT job_id, lease_token FROM event_queue.claim('one')));
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("BEGIN; SAVEPOINT s; SELECT event_queue.complete($job, '$token'); SELECT * FROM there");
	my $remote = sql(q(SELECT pid FROM pg_stat_activity WHERE application_name = 'postgres_fdw'));
	kill 'STOP', $remote;
	$session->query_until(qr/begun/, "\\echo begun\nROLLBACK TO s;\n");
	ok($node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' AND query LIKE 'ROLLBACK TO%' FROM pg_stat_activity WHERE pid = $pid"), 'it is held up in between');
	is(sql(qq(SELECT event_queue.release($job, '$token'); SELECT count(*) FROM event_queue.claim('one', 2))), "t\n1", 'another session releases the job and has the place');
	kill 'CONT', $remote;
	is($session->query_safe(q(SELECT count(*) FROM event_queue.claim('one', 2))), '0', 'who had completed it has no place more than there are');
	is($session->query_safe(q(SELECT active FROM event_queue.queue_limits('one'))), '1', 'one is taken');
	$session->query_safe('COMMIT');
	$session->quit;
}

# A sweep that is held up at one queue has committed what it did for those long before it.  (An index on a function of a
# user stops it: at the third queue, then at the last one.)
sql(q(
CREATE FUNCTION held_up(q int, lane int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	WHILE lane > 0 AND NOT pg_try_advisory_xact_lock(q) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN 1;
END $$;
SELECT event_queue.create_queue('sweep ' || n, fair => n IN (3, 250)) FROM generate_series(1, 250) n;
SELECT event_queue.enqueue('sweep ' || n, 'x', delay => '1 hour') FROM unnest('{3,250}'::int[]) n;
CREATE INDEX holding ON event_queue.job (held_up(queue_id, lane));
));
my @queues = split /\n/, sql(q(SELECT queue_id FROM event_queue.queue WHERE fair ORDER BY queue_id));
my @holders = map { my $h = $node->background_psql('postgres'); $h->query_safe("SELECT pg_advisory_lock($_)"); $h } @queues;
sql(q(UPDATE event_queue.job SET run_at = now() WHERE lane = 0));
my $scheduler = sql(q(SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'));
my $sleeps = "wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $scheduler";
ok($node->poll_query_until('postgres', "SELECT $sleeps"), 'the sweep is held up at the third queue');
$holders[0]->query_safe('SELECT pg_advisory_unlock_all()');
my $moved = "SELECT array_agg(queue_id ORDER BY queue_id) = ARRAY[%s] FROM event_queue.job WHERE lane > 0";
ok($node->poll_query_until('postgres', sprintf($moved, $queues[0])), 'what it did there is committed');
ok($node->poll_query_until('postgres', "SELECT $sleeps"), 'while it is held up at the last one');
$holders[1]->query_safe('SELECT pg_advisory_unlock_all()');
ok($node->poll_query_until('postgres', sprintf($moved, join ',', @queues)), 'and that, when it goes on');
$_->quit for @holders;
sql(q(DROP INDEX event_queue.holding));

# REINDEX comes while the rule runner is at work: it waits, and no one is the victim of a deadlock.
$node->append_conf('postgresql.conf', "event_queue.condition_timeout = '1 h'");
$node->reload;
sql(q(
CREATE FUNCTION waits() RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT pg_try_advisory_lock_shared(1) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	RETURN pg_advisory_unlock_shared(1);
END $$;
SELECT event_queue.create_queue('ruled'), event_queue.create_rule('waits', 'held', 'public.waits()', 'ruled', 'x')));
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
sql(q(SELECT event_queue.append('a', 'held', 'held')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_queue rule runner' AND wait_event = 'PgSleep')), 'the rule runner is at work');
my $reindex = $node->background_psql('postgres', on_error_stop => 0);
$reindex->query_until(qr/begun/, "\\echo begun\nREINDEX TABLE event_queue_internal.rule_checkpoint;\n");
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND wait_event_type = 'Lock')), 'REINDEX waits');
$holder->query_safe('SELECT pg_advisory_unlock(1)');
$holder->quit;
is($reindex->query('SELECT 1'), '1', 'and ends');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.jobs WHERE queue = 'ruled')), 'the rule fires');
is(sql(q(SELECT count(*) FROM event_queue.faults() WHERE sqlstate = '40P01')), '0', 'without a fault');
unlike($reindex->{stderr}, qr/deadlock/, 'or a deadlock');
$reindex->quit;

# And while executors, clients, consumers are busy.
sql(q(
SELECT event_queue.drop_rule('waits');
CREATE TABLE done (kind text, n int);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.done VALUES (job.name, (job.payload ->> 'n')::int) $$;
SELECT event_queue.create_queue('busy'), event_queue.create_queue('few', max_concurrency => 2, fair => true);
SELECT event_queue.create_handler('busy', '*', 'work'), event_queue.create_handler('few', '*', 'work'), event_queue.create_subscription('s');
SELECT event_queue.create_rule('busy', 'busy.**', queue => 'busy', job_name => 'ruled', payload => '{"n": "$.data.n"}');
CREATE PROCEDURE load() LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1 .. 400 LOOP
		PERFORM event_queue.enqueue('few', 'after', jsonb_build_object('n', n),
			depends_on => ARRAY[event_queue.enqueue('busy', 'plain', jsonb_build_object('n', n), unique_key => 'u' || n)]);
		PERFORM event_queue.enqueue('busy', 'grouped', jsonb_build_object('n', n), group_key => 'g' || n % 3);
		PERFORM event_queue.append('busy', (n % 7)::text, 'busy.x', jsonb_build_object('n', n));
		PERFORM event_queue.fetch_events('s');
		PERFORM event_queue.ack('s');
		COMMIT;
	END LOOP;
END $$));
my $load = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'CALL load()' ], '2>', \my $said);
my $all = q(SELECT kind, count(*), count(DISTINCT n) FROM done GROUP BY 1 ORDER BY 1);
my $errors = '';
for (1 .. 1000)
{
	for my $what ('TABLE event_queue.job', 'SCHEMA event_queue_internal', 'TABLE CONCURRENTLY event_queue.job', 'TABLE CONCURRENTLY event_queue.event_store', 'DATABASE postgres')
	{
		$errors .= ($node->psql('postgres', "REINDEX $what"))[2];
	}
	last if sql(q(SELECT count(*) FROM done)) >= 1600;
}
$load->finish;
is($said, '', 'clients go on beside REINDEX');
is($errors =~ s/^NOTICE.*$//mgr =~ s/\s//gr, '', 'and it ends');
is(sql($all), join("\n", map { "$_|400|400" } qw(after grouped plain ruled)), 'each job is done, once');
is(sql(q(SELECT count(*) FROM event_queue.dead_letters)), '0', 'none is dead');

# An executor that backs off after an error ends at once when it is told to.  Each back-off is of one second, so
# the quickest of ten is that much quicker.  (The index is partial, as CREATE INDEX reads dead rows of claims, too.)
sql(q(
CREATE FUNCTION fails(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
CREATE FUNCTION refuse(token uuid) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN IF token IS NOT NULL THEN RAISE ''refused by an index''; END IF; RETURN 1; END';
CREATE INDEX refusing ON event_queue.job (refuse(lease_token)) WHERE name = 'refused'));
my $quickest = 100;
for my $round (1 .. 10)
{
	my $executor;
	$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.workers() WHERE kind = 'executor')) or die;
	my $from = -s $node->logfile;
	my $pid = sql(q(SELECT pid FROM event_queue.workers() WHERE kind = 'executor'));
	sql("SELECT event_queue.create_queue('backs off $round'), event_queue.create_handler('backs off $round', '*', 'fails'); SELECT event_queue.enqueue('backs off $round', 'refused')");
	for (1 .. 6000)
	{
		last if slurp_file($node->logfile, $from) =~ /refused by an index/;
		sleep 0.01;
	}
	my $began = time;
	kill 'TERM', $pid;
	for (1 .. 6000)
	{
		last unless kill 0, $pid;
		sleep 0.01;
	}
	$quickest = time - $began if time - $began < $quickest;
	sql("SELECT event_queue.drop_handler('backs off $round', '*'); SELECT event_queue.drop_queue('backs off $round', true)");
}
cmp_ok($quickest, '<', 0.6, 'an executor that backs off ends at once');
$node->stop;
done_testing();
