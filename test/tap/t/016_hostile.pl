# Code of users that does not end, or writes where it must not: it costs its own
# rule, reducer or job, and other tenants' jobs start at once.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 2
event_queue.condition_timeout = 300
));
$node->start;

$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE ran (name text, tenant_id text, enqueued timestamptz, started timestamptz);
CREATE FUNCTION stubborn() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			PERFORM pg_sleep(1000);
		EXCEPTION WHEN query_canceled THEN NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION endless(j event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS
	$$ BEGIN PERFORM public.stubborn(); END $$;
CREATE FUNCTION slow_reducer(state jsonb, e event_queue.event_store) RETURNS jsonb LANGUAGE plpgsql STABLE AS
	$$ BEGIN PERFORM public.stubborn(); RETURN state; END $$;
CREATE FUNCTION note(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.ran VALUES (j.name, j.tenant_id, (j.payload ->> 'at')::timestamptz, clock_timestamp()) $$;
SELECT event_queue.create_queue('good'), event_queue.create_queue('bad', lease => '10 s', max_attempts => 2, backoff_delay => '100 ms');
SELECT event_queue.create_handler('good', '*', 'note');
SELECT event_queue.create_handler('bad', '*', 'endless', time_limit => '1 s');
));

# A handler that catches its cancel: failed with a reason, and the process goes on.
my $job = $node->safe_psql('postgres', q(SELECT event_queue.enqueue('bad', 'x')));
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.dead_letters WHERE job_id = $job"),
	'an endless handler becomes a dead letter');
is($node->safe_psql('postgres', "SELECT reason, failures, stalled, last_sqlstate FROM event_queue.dead_letter d JOIN event_queue.dead_letters USING (job_id, reason, failures, stalled) WHERE job_id = $job"),
	'attempts|2|0|EQ040', 'after its attempts, and says why');
like($node->safe_psql('postgres', "SELECT last_error FROM event_queue.dead_letters WHERE job_id = $job"),
	qr/did not end at its time limit/, 'in words, too');

# Likewise when the job is cancelled by hand.
$node->safe_psql('postgres', q(SELECT event_queue.create_handler('bad', '*', 'endless', time_limit => '9 s', or_replace => true)));
$job = $node->safe_psql('postgres', q(SELECT event_queue.enqueue('bad', 'x')));
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.workers() WHERE current_job = $job"), 'an endless job runs');
my $start = time;
$node->safe_psql('postgres', "SELECT event_queue.cancel_job($job)");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.dead_letters WHERE job_id = $job AND last_sqlstate = 'EQ033'"),
	'cancelled, it is a dead letter');
cmp_ok(time - $start, '<', 7, 'before its time limit');

# A condition that catches its cancel: its rule rests, other rules go on.
$node->safe_psql('postgres', q(
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '100 ms');
SELECT event_queue.create_rule('a stubborn', 'x.*', condition => 'public.stubborn()', queue => 'good', job_name => 'stub');
SELECT event_queue.create_rule('b good', 'x.*', queue => 'good', job_name => 'went', payload => '{"at": "$.created_at"}');
SELECT event_queue.append('x', '1', 'x.y');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM ran WHERE name = 'went')), 'another rule goes on');
is($node->safe_psql('postgres', q(SELECT what, item, failures > 0 FROM event_queue.faults() WHERE what = 'rule')),
	'rule|a stubborn (rule 1)|t', 'the rule is named');
$node->safe_psql('postgres', q(SELECT event_queue.append('x', '1', 'x.y') FROM generate_series(1, 20)));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 21 FROM ran WHERE name = 'went')), 'also for many events');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 21 FROM event_queue.dead_letters WHERE queue = 'rule-calls')),
	'each firing of the endless one is a dead letter');
is($node->safe_psql('postgres', q(SELECT count(*) FROM ran WHERE name = 'stub')), '0', 'and did nothing');
# its function alone is mended: it rests for minutes by now
my $rests = $node->safe_psql('postgres', q(SELECT extract(epoch FROM retry_at - clock_timestamp()) FROM event_queue.faults() WHERE what = 'rule'));
$node->safe_psql('postgres', q(
CREATE FUNCTION another() RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT event_queue.append('x', '1', 'x.y')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 22 FROM ran WHERE name = 'went')), 'one more event, after a function that it does not name');
is($node->safe_psql('postgres', q(SELECT retry_at > clock_timestamp() FROM event_queue.faults() WHERE what = 'rule')), 't', "it rests on ($rests s)");
my $stubborn = $node->safe_psql('postgres', q(SELECT pg_get_functiondef('stubborn()'::regprocedure)));
$node->safe_psql('postgres', q(
CREATE OR REPLACE FUNCTION stubborn() RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT event_queue.append('x', '1', 'x.y')));
ok($node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM ran WHERE name = 'stub')), 'with a mended function it rests no longer');
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.faults() WHERE what = 'rule')), '0', 'and has no fault');
$node->safe_psql('postgres', $stubborn);
$node->safe_psql('postgres', q(
SELECT event_queue.create_rule('a stubborn', 'x.*', condition => 'event_type = $$x.mended$$', queue => 'good', job_name => 'mended', or_replace => true);
SELECT event_queue.append('x', '1', 'x.mended');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM ran WHERE name = 'mended')), 'with another condition it rests no longer');

# A condition that writes is refused.
$node->safe_psql('postgres', q(
CREATE TABLE written (t text);
CREATE FUNCTION writes() RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.written VALUES ('x'); RETURN true; END $$;
CREATE FUNCTION enqueues() RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN PERFORM event_queue.enqueue('good', 'by condition'); RETURN true; END $$;
CREATE FUNCTION unlocks() RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN PERFORM set_config('transaction_read_only', 'off', false); INSERT INTO public.written VALUES ('y'); RETURN true; END $$;
SELECT event_queue.create_rule('writes', 'w.*', condition => 'public.writes()', queue => 'good', job_name => 'never');
SELECT event_queue.create_rule('enqueues', 'w.*', condition => 'public.enqueues()', queue => 'good', job_name => 'never');
SELECT event_queue.create_rule('unlocks', 'w.*', condition => 'public.unlocks()', queue => 'good', job_name => 'never');
SELECT event_queue.create_rule('makes a large object', 'w.*', condition => 'lo_create(0) > 0', queue => 'good', job_name => 'never');
SELECT event_queue.create_rule('writes a large object', 'w.*', condition => $$lo_put(lo_create(0), 0, 'x') IS NOT NULL$$, queue => 'good', job_name => 'never');
SELECT event_queue.create_rule('asks for its transaction', 'w.*', condition => 'pg_current_xact_id() IS NULL', queue => 'good', job_name => 'never');
SELECT event_queue.create_rule('sets', 'w.*', condition => $$set_config('default_transaction_read_only', 'on', false) IS NOT NULL$$, queue => 'good', job_name => 'set');
SELECT event_queue.create_rule('locks', 'w.*', condition => $$pg_advisory_lock(4711) IS NOT NULL$$, queue => 'good', job_name => 'locked');
SELECT event_queue.append('w', '1', 'w.y');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 5 FROM event_queue.dead_letters WHERE queue = 'rule-calls' AND last_sqlstate IN ('25006', '25001'))),
	'conditions that write are refused')
	or diag $node->safe_psql('postgres', q(SELECT last_sqlstate, last_error, payload FROM event_queue.dead_letters));
is($node->safe_psql('postgres', q(SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM pg_largeobject_metadata))), '0|0', 'and wrote nothing');
is($node->safe_psql('postgres', q(SELECT count(*) FROM ran WHERE name IN ('never', 'by condition'))), '0', 'nor enqueued anything');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM ran WHERE name IN ('set', 'locked'))), 'one that sets a setting stops nothing');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711)), 'one that takes a lock does not keep it');

# A condition that is only slow: other rules and jobs do not wait for it.
$node->safe_psql('postgres', q(
SELECT event_queue.create_rule('a slow', 's.*', condition => 'pg_sleep(0.2) IS NOT NULL', queue => 'good', job_name => 'slow');
SELECT event_queue.create_rule('b quick', 'q.*', queue => 'good', job_name => 'quick');
SELECT event_queue.append('s', '1', 's.y') FROM generate_series(1, 40);
SELECT event_queue.append('q', '1', 'q.y');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM ran WHERE name = 'quick')), 'a rule behind a slow one acts');
cmp_ok($node->safe_psql('postgres', q(SELECT count(*) FROM ran WHERE name = 'slow')), '<', 30, 'before the slow one is through');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 40 FROM ran WHERE name = 'slow')), 'the slow one acts for each event, once');

# All of them at once, again and again, while another tenant works.
$node->safe_psql('postgres', q(
SELECT event_queue.alter_queue('bad', max_attempts => 1000);
SELECT event_queue.create_handler('bad', '*', 'endless', time_limit => '9 s', or_replace => true);
SELECT event_queue.create_reducer('r', 'slow_reducer', snapshot_every => 1);
SELECT event_queue.append('r', '1', 'r.y');
SELECT event_queue.enqueue('bad', 'x') FROM generate_series(1, 5);
SELECT event_queue.append('x', '2', 'x.y');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) >= 2 FROM event_queue.workers() WHERE current_job IS NOT NULL)), 'executors are kept');
sleep 1;
$node->safe_psql('postgres', q(TRUNCATE ran));
for my $round (1 .. 10)
{
	$node->safe_psql('postgres', qq(
	SET event_queue.tenant = 'other';
	SELECT event_queue.enqueue('good', 'plain', jsonb_build_object('at', clock_timestamp()));
	SELECT event_queue.enqueue('good', 'delayed', jsonb_build_object('at', clock_timestamp() + '200 ms'), delay => '200 ms');
	SELECT event_queue.enqueue('good', 'grouped', jsonb_build_object('at', clock_timestamp()), group_key => 'g$round');
	SELECT pg_sleep(0.3);));
}
$node->safe_psql('postgres', q(
BEGIN;
SELECT event_queue.create_schedule('each', '0 0 1 1 *', 'good', 'scheduled', tenant_id => 'other');
UPDATE event_queue.schedule SET next_run = clock_timestamp() + '500 ms';
CREATE TABLE due AS SELECT next_run FROM event_queue.schedule;
COMMIT;
));
ok($node->poll_query_until('postgres', q(SELECT count(*) >= 31 FROM ran)), 'the other tenant\'s jobs run')
	or diag $node->safe_psql('postgres', q(TABLE ran)) . $node->safe_psql('postgres', q(SELECT * FROM event_queue.workers()));
for my $name (qw(plain delayed grouped))
{
	my ($most, $mean) = split /\|/, $node->safe_psql('postgres', qq(
		SELECT round(max(extract(epoch FROM started - enqueued)) * 1000), round(avg(extract(epoch FROM started - enqueued)) * 1000)
		FROM ran WHERE name = '$name'));
	diag("$name jobs started after $mean ms on average, $most ms at most");
	cmp_ok($most, '<', 1000, "$name jobs start at once");
}
my $late = $node->safe_psql('postgres', q(SELECT round(extract(epoch FROM started - next_run) * 1000) FROM ran, due WHERE name = 'scheduled'));
diag("the scheduled job started after $late ms");
cmp_ok($late, '<', 1000, 'scheduled jobs start at once');
my $kept = $node->safe_psql('postgres', q(SELECT string_agg(kind || ' ' || coalesce(current_job::text, '-'), ', ') FROM event_queue.workers()));
diag("workers: $kept");
# A table that someone has locked holds up the step that needs it, and no other.
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE event_queue.schedule, event_queue_internal.partition_policy IN ACCESS EXCLUSIVE MODE');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.faults() WHERE what = 'scheduler' AND item = 'schedules' AND sqlstate = '55P03')),
	'a locked table: the step is named');
$node->safe_psql('postgres', q(
TRUNCATE ran;
SET event_queue.tenant = 'other';
SELECT event_queue.enqueue('good', 'plain', jsonb_build_object('at', clock_timestamp()));
SELECT event_queue.enqueue('good', 'grouped', jsonb_build_object('at', clock_timestamp()), group_key => 'h') FROM generate_series(1, 3);
SELECT event_queue.enqueue('good', 'delayed', jsonb_build_object('at', clock_timestamp() + '200 ms'), delay => '200 ms');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 5 FROM ran)), 'jobs go on');
my $longest = $node->safe_psql('postgres', q(SELECT round(max(extract(epoch FROM started - enqueued)) * 1000) FROM ran));
diag("with a table locked, jobs started after $longest ms at most");
cmp_ok($longest, '<', 2000, 'at once');
$locker->query_safe('ROLLBACK');
$locker->quit;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.faults() WHERE what = 'scheduler')), 'the step works again');

is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.faults() WHERE what IN ('scheduler', 'rule runner', 'worker'))), '0',
	'no chore of the scheduler or the rule runner fails');

$node->safe_psql('postgres', q(DELETE FROM event_queue.job));
$node->stop;

# Without a place for a worker, that is what is shown, and it comes when there is one.
# (One place is the logical replication launcher's.)
my $before = -s $node->logfile;
$node->append_conf('postgresql.conf', 'max_worker_processes = 4');
$node->start;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM event_queue.faults() WHERE item LIKE 'start of %' AND sqlstate = '53400')),
	'workers that can\'t be started are named')
	or diag $node->safe_psql('postgres', q(SELECT * FROM event_queue.faults()));
is(scalar(() = substr(slurp_file($node->logfile), $before) =~ /no free background worker/g), 2, 'once each in the log');
$node->safe_psql('postgres', q(TRUNCATE ran; SELECT event_queue.enqueue('good', 'plain', '{}')));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM ran WHERE name = 'plain')), 'the others work');
# A bound session that appends and sits there holds back the events of all, but not for
# longer than append_timeout; one that is not bound may.
$node->append_conf('postgresql.conf', 'event_queue.append_timeout = 2000');
$node->reload;
$node->safe_psql('postgres', q(CREATE ROLE bound_a LOGIN; SELECT event_queue.grant_producer('bound_a', 'A')));
my %session;
for my $role ('bound_a', $node->safe_psql('postgres', 'SELECT current_user'))
{
	my $psql = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', $role ]);
	$psql->query_safe(q(BEGIN; SELECT position > 0 FROM event_queue.append('hold', 'h', 'held')));
	$session{$role} = $psql;
	next if $role ne 'bound_a';
	$node->safe_psql('postgres', q(SELECT event_queue.append('seen', 's', 'seen', tenant_id => 'B')));
	is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.read_all() WHERE aggregate_type = 'seen')), '0',
		'an open append of tenant A holds back an event of tenant B');
	ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.read_all() WHERE aggregate_type = 'seen')),
		'but not for longer than append_timeout');
	is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE usename = 'bound_a')), '0', 'its session is terminated');
	like(slurp_file($node->logfile), qr/whose transaction has held back events since position/, 'and the log says why');
}
sleep 8;
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.watermark_blockers)), '1', 'a role that is bound to no tenant may hold on');
$node->safe_psql('postgres', q(CREATE ROLE bound_b LOGIN; SELECT event_queue.grant_observer('bound_b', 'B')));
is($node->safe_psql('postgres', q(SELECT (SELECT count(*) FROM event_queue.watermark_blockers), count(last_position), count(blocked_by), count(blocked_since) FROM event_queue.event_stats),
	extra_params => [ '-U', 'bound_b' ]), '0|0|0|0', 'and another tenant is not told who');
my ($owner) = grep { $_ ne 'bound_a' } keys %session;
$session{$owner}->quit;

$node->stop;
done_testing();
