# The ready mark (src/queue/mark.c) hides no job: each way in which a job can become
# claimable below a raised mark, first one by one, then all at once under load.
#
# What goes through the functions is found at once.  The first two parts show it
# without a scheduler, whose sweep would find a hidden job after a while.  The rest
# has one: it finds what plain SQL writes when it commits, and what no one tells of
# within stalled_interval.
#
# EQ_LONG: the loads last 60 s each, and not 6.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;

my $seconds = $ENV{EQ_LONG} ? 60 : 6;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_prepared_transactions = 20
event_queue.databases = 'nowhere'
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', stalled_interval => '1 hour', lease => '1 hour', max_attempts => 1000, max_stalled => 1000),
	event_queue.create_queue('rated', stalled_interval => '1 hour', lease => '1 hour', group_rate_limit => 1000),
	event_queue.create_queue('plain', stalled_interval => '1 hour', lease => '1 hour', max_attempts => 1000, max_stalled => 1000),
	event_queue.create_queue('fair', stalled_interval => '1 hour', lease => '1 hour', max_attempts => 1000, max_stalled => 1000, fair => true);

-- Raises the mark of each priority that the queue has had, as far as it goes.
CREATE PROCEDURE raise_mark(q text DEFAULT 'q') LANGUAGE plpgsql AS $$
BEGIN
	PERFORM event_queue.enqueue_many(q, to_jsonb(array_fill('{}'::jsonb, ARRAY[30])), options => jsonb_build_object('name', 'passes by', 'priority', p)) FROM generate_series(0, 9) p;
	COMMIT;
	PERFORM event_queue.complete(job_id, lease_token) FROM event_queue.claim(q, 1000);
	COMMIT;
	PERFORM pg_sleep(0.03);
	IF EXISTS (SELECT FROM event_queue.claim(q, 1000)) THEN
		RAISE EXCEPTION 'there was another job';
	END IF;
	COMMIT;
END $$;

-- How long until a job of this name can be claimed; NULL if not in time.
CREATE PROCEDURE find_job(wanted text, timeout interval, q text DEFAULT 'q', INOUT waited interval DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	found_name text;
BEGIN
	LOOP
		FOR found_name IN SELECT c.name FROM event_queue.claim(q, 10) c, event_queue.complete(c.job_id, c.lease_token) LOOP
			IF found_name = wanted THEN
				waited := clock_timestamp() - begun;
			END IF;
		END LOOP;
		COMMIT;
		EXIT WHEN waited IS NOT NULL OR clock_timestamp() > begun + timeout;
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;

-- What plain SQL writes into the table.
CREATE PROCEDURE write_job(name text, q text DEFAULT 'q', group_key text DEFAULT NULL, run_at timestamptz DEFAULT now() - interval '1 hour',
	priority int DEFAULT 5, job_id bigint DEFAULT nextval('event_queue.job_job_id_seq')) LANGUAGE sql AS $$
	INSERT INTO event_queue.job (job_id, queue_id, tenant_id, name, priority, run_at, created_at, group_key, payload)
	VALUES (job_id, event_queue_internal.queue_id_of(q), 'default', name, priority, run_at, now(), group_key, '{}')
$$;
));

my ($one, $two) = map { $node->background_psql('postgres') } 1, 2;
my $unheeded = "SET session_replication_role = replica";	# no trigger tells of it

# Jobs that a transaction makes claimable are found as soon as it has committed, or
# was rolled back.
sub found_at_once
{
	my ($what, $before, $after) = @_;
	$one->query_safe("BEGIN; $before") if $before;
	$node->safe_psql('postgres', 'CALL raise_mark()');
	$one->query_safe($after);
	is($node->safe_psql('postgres', q(SELECT c.name FROM event_queue.claim('q', 10) c, event_queue.complete(c.job_id, c.lease_token))),
		'below', "$what: found at once");
}
my $below = q(event_queue.enqueue('q', 'below'));
$one->query_safe('CREATE TEMP TABLE mine (job_id bigint, lease_token uuid)');

# Leases a job, whose end is yet to come.
sub leased
{
	my ($how) = @_;
	$one->query_safe("TRUNCATE mine; SELECT $below; INSERT INTO mine SELECT job_id, lease_token FROM event_queue.claim('q')");
	return "SELECT event_queue.$how FROM mine";
}

$node->safe_psql('postgres', 'CALL raise_mark()');
$node->safe_psql('postgres', "$unheeded; CALL write_job('unseen')");
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.claim('q'))), '0', 'there is a mark: it hides what nothing tells of');
$node->safe_psql('postgres', "$unheeded; DELETE FROM event_queue.job");

found_at_once('late commit', "SELECT $below", 'COMMIT');
found_at_once('late commit of many', q(SELECT event_queue.enqueue_many('q', '[{}]', options => '{"name": "below"}')), 'COMMIT');
found_at_once('savepoint', "SAVEPOINT s; SELECT $below; RELEASE s; SAVEPOINT t; SELECT event_queue.enqueue('q', 'undone'); ROLLBACK TO t", 'COMMIT');
found_at_once('savepoint rolled back after another', "SELECT $below; SAVEPOINT s; SELECT event_queue.enqueue('q', 'undone', run_at => '2001-01-01'); ROLLBACK TO s", 'COMMIT');
found_at_once('second of a transaction', "SELECT event_queue.enqueue('q', 'later', delay => '1 hour'); SELECT $below",
	q(COMMIT; SELECT event_queue.cancel_job(job_id) FROM event_queue.job WHERE name = 'later'));
found_at_once('time in the past', '', q(SELECT event_queue.enqueue('q', 'below', run_at => '2001-01-01')));
found_at_once('replaced by one that is due', q(SELECT event_queue.enqueue('q', 'below', delay => '1 hour', unique_key => 'k'); COMMIT),
	q(SELECT event_queue.enqueue('q', 'below', run_at => '2001-01-01', unique_key => 'k', options => '{"unique_mode": "replace"}')));
found_at_once('failed, retried', leased(q[fail(job_id, lease_token, 'no', retry_after => '0')]), 'COMMIT');
found_at_once('released', '', leased('release(job_id, lease_token)'));
found_at_once('released late', leased('release(job_id, lease_token)'), 'COMMIT');
found_at_once('failing and a release undone', leased(q[fail(job_id, lease_token, 'no', retry_after => '1 hour')]), 'ROLLBACK; SELECT event_queue.release(job_id, lease_token) FROM mine');
found_at_once('claim rolled back', "SELECT $below; COMMIT; BEGIN; SELECT count(*) FROM event_queue.claim('q', 10)", 'ROLLBACK');
found_at_once('claim rolled back to a savepoint', "SELECT $below; COMMIT; BEGIN; SAVEPOINT s; SELECT count(*) FROM event_queue.claim('q', 10); ROLLBACK TO s", 'COMMIT');
found_at_once('claim prepared, and rolled back', "SELECT $below; COMMIT; BEGIN; SELECT count(*) FROM event_queue.claim('q', 10); PREPARE TRANSACTION 'x'", q(ROLLBACK PREPARED 'x'));
found_at_once('cancelling undone', "SELECT $below; COMMIT; BEGIN; SELECT event_queue.cancel_job(job_id) FROM event_queue.job WHERE name = 'below'", 'ROLLBACK');
found_at_once('another priority', "SELECT $below; COMMIT; BEGIN; SELECT event_queue.change_priority(job_id, 0) FROM event_queue.job WHERE name = 'below'", 'COMMIT');
found_at_once('locked by someone', "SELECT $below; COMMIT; BEGIN; SELECT FROM event_queue.job WHERE name = 'below' FOR UPDATE", 'COMMIT');
found_at_once('not wanted by others', '', "SELECT $below; SELECT pg_sleep(0.03); SELECT count(*) FROM event_queue.claim('q', job_names => '{x}')");

# A claim does not see what its own transaction took before; if that is undone, it
# must not lie below the mark.
for (['two claims undone', q(SELECT count(*) FROM event_queue.claim('q'))],
	['job done and undone', q(SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('q'))],
	['cancelling undone after a claim', q(SELECT event_queue.cancel_job(job_id) FROM event_queue.job)],
	['another priority undone after a claim', q(SELECT event_queue.change_priority(job_id, 0) FROM event_queue.job)],
	['another priority undone after a claim of more', q(SELECT event_queue.change_priority(job_id, 0) FROM event_queue.job; SELECT count(*) FROM event_queue.claim('q', 10))],
	['another time undone after a claim', q(SELECT event_queue.enqueue('q', 'below', delay => '1 hour', unique_key => 'moved', options => '{"unique_mode": "replace"}'))],
	['purging undone after a claim', q(SELECT event_queue.purge_queue('q'))],
	['plain SQL undone after a claim', q(UPDATE event_queue.job SET run_at = now() + interval '1 hour')])
{
	my $moved = $_->[0] =~ /time/ ? q(event_queue.enqueue('q', 'below', unique_key => 'moved')) : $below;
	found_at_once($_->[0], "SELECT $moved; COMMIT; SELECT pg_sleep(0.03); BEGIN; $_->[1]; SELECT count(*) FROM event_queue.claim('q')", 'ROLLBACK');
}

# Raising that races lowering: a claimer that is stopped after it took its snapshot,
# by someone who has the row of a key's rate, must not raise a mark over jobs that
# came meanwhile.
$node->safe_psql('postgres', "$unheeded; CALL write_job('k', q => 'rated', group_key => 'k', run_at => now())");
$node->safe_psql('postgres', q(SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('rated')));
sub race
{
	my ($what, $before, $meanwhile) = @_;
	$node->safe_psql('postgres', "$unheeded; CALL write_job('k', q => 'rated', group_key => 'k', run_at => now())");
	$two->query_safe("BEGIN; $before") if $before;
	$one->query_safe("BEGIN; SELECT next_at FROM event_queue_internal.group_rate WHERE group_key = 'k' FOR UPDATE");
	my $claimer = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', "SELECT name FROM event_queue.claim('rated', 5)" ], '>', \my $out, '2>', \my $err);
	$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%claim(''rated'', 5)')) or die;
	$two->query_safe($meanwhile);
	select(undef, undef, undef, 0.03);
	$one->query_safe('COMMIT');
	$claimer->finish;
	is($out, "k\n", "$what: the claimer does not see it");
	is($node->safe_psql('postgres', q(SELECT name FROM event_queue.claim('rated', 5))), 'below', 'the next one does');
}
race('late commit in the same priority', q(SELECT event_queue.enqueue('rated', 'below', run_at => '2001-01-01')), 'COMMIT');
race('late commit in a priority to come', q(SELECT event_queue.enqueue('rated', 'below', run_at => '2001-01-01', priority => 9)), 'COMMIT');
race('enqueue in a priority to come', '', q(SELECT event_queue.enqueue('rated', 'below', priority => 9)));
$node->safe_psql('postgres', q(SELECT event_queue.complete(job_id, lease_token) FROM event_queue.job WHERE lease_token IS NOT NULL));
$_->quit for $one, $two;

# The same under load.  Table ready says when a job became claimable, and how; table
# got when it was claimed.
$node->safe_psql('postgres', q(
CREATE TABLE ready (job_id bigint, how text, at timestamptz);
CREATE INDEX ON ready (job_id);
CREATE TABLE got (job_id bigint, at timestamptz);
CREATE FUNCTION any_queue() RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN random() < 0.7 THEN 'plain' ELSE 'fair' END $$;
CREATE FUNCTION any_priority() RETURNS int LANGUAGE sql AS $$ SELECT floor(random() * 10)::int $$;
CREATE FUNCTION any_tenant() RETURNS text LANGUAGE sql AS $$ SELECT 't' || floor(random() * 5) $$;

-- all: also what passes the functions by.
CREATE PROCEDURE produce(seconds int, "all" boolean) LANGUAGE plpgsql AS $$
DECLARE
	ends timestamptz := clock_timestamp() + seconds * interval '1 s';
	kinds text[] := '{plain,plain,plain,late,late,savepoint,many,past,delayed,rolled back,replaced}';
	how text;
	ids bigint[];
	due timestamptz;
	q text;
	pause float8;
BEGIN
	IF "all" THEN
		kinds := kinds || '{copied,copied,unheeded,rescheduled,priority,reprioritised,group,dependent}'::text[];
	END IF;
	WHILE clock_timestamp() < ends LOOP
		how := kinds[1 + floor(random() * cardinality(kinds))];
		q := any_queue();
		pause := CASE WHEN random() < 0.5 THEN 0.01 + random() * 0.05 ELSE random() * 0.006 END;
		due := '-infinity';
		ids := '{}';
		CASE how
		WHEN 'plain' THEN
			ids := ARRAY[event_queue.enqueue(q, how, priority => any_priority(), tenant_id => any_tenant())];
			pause := 0;
		WHEN 'late' THEN
			ids := ARRAY[event_queue.enqueue(q, how, priority => any_priority(), tenant_id => any_tenant())];
		WHEN 'savepoint' THEN
			BEGIN
				ids := ARRAY[event_queue.enqueue(q, how, priority => any_priority(), tenant_id => any_tenant())];
			EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
			END;
			BEGIN
				PERFORM event_queue.enqueue(q, how, priority => any_priority(), tenant_id => any_tenant());
				RAISE EXCEPTION USING ERRCODE = 'ZZ001';
			EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
			END;
		WHEN 'many' THEN
			ids := event_queue.enqueue_many(q, to_jsonb(array_fill('{}'::jsonb, ARRAY[5])), tenant_id => any_tenant(), options => jsonb_build_object('name', how, 'priority', any_priority()));
		WHEN 'past' THEN
			ids := ARRAY[event_queue.enqueue(q, how, run_at => now() - random() * interval '1 hour', priority => any_priority(), tenant_id => any_tenant())];
			pause := 0;
		WHEN 'delayed' THEN
			due := clock_timestamp() + random() * interval '50 ms';
			ids := ARRAY[event_queue.enqueue(q, how, run_at => due, priority => any_priority(), tenant_id => any_tenant())];
			pause := random() * 0.05;
		WHEN 'rolled back' THEN
			PERFORM event_queue.enqueue(q, how, priority => any_priority(), tenant_id => any_tenant());
		WHEN 'replaced' THEN	-- with a key of its own: one that a running job has makes a job that follows that
			PERFORM event_queue.enqueue(q, how, delay => '1 hour', unique_key => 'k ' || pg_backend_pid() || ' ' || pause, priority => 9);
			COMMIT;
			ids := ARRAY[event_queue.enqueue(q, how, run_at => now() - random() * interval '1 s', unique_key => 'k ' || pg_backend_pid() || ' ' || pause, priority => any_priority(), options => '{"unique_mode": "replace"}')];
		WHEN 'copied' THEN
			ids := ARRAY[nextval('event_queue.job_job_id_seq')];
			EXECUTE format('COPY event_queue.job (job_id, queue_id, tenant_id, name, priority, run_at, created_at, payload) FROM PROGRAM %L',
				format('printf "%s\t%s\tdefault\tcopied\t%s\t%s\t2001-01-01\t{}\n"', ids[1], event_queue_internal.queue_id_of('plain'), any_priority(), now() - random() * interval '1 hour'));
			pause := pause * (random() < 0.5)::int;
		WHEN 'unheeded' THEN		-- as logical replication writes
			ids := ARRAY[nextval('event_queue.job_job_id_seq')];
			SET LOCAL session_replication_role = replica;
			CALL write_job(how, q => 'plain', run_at => now() - random() * interval '1 s', priority => any_priority(), job_id => ids[1]);
		WHEN 'rescheduled' THEN
			ids := ARRAY[event_queue.enqueue(q, how, delay => '1 hour', priority => any_priority(), tenant_id => any_tenant())];
			COMMIT;
			UPDATE event_queue.job SET run_at = now() - random() * interval '1 s' WHERE job_id = ids[1];
		WHEN 'priority' THEN
			ids := ARRAY[event_queue.enqueue(q, how, priority => 9, tenant_id => any_tenant())];
			PERFORM event_queue.change_priority(ids[1], floor(random() * 9)::int);
		WHEN 'reprioritised' THEN
			due := clock_timestamp() + interval '50 ms';
			ids := ARRAY[event_queue.enqueue(q, how, run_at => due, priority => 9, tenant_id => any_tenant())];
			COMMIT;
			PERFORM event_queue.change_priority(ids[1], floor(random() * 9)::int);
			pause := random() * 0.04;
		WHEN 'group' THEN		-- when its turn came, its run_at says
			PERFORM event_queue.enqueue(q, how, priority => any_priority(), tenant_id => any_tenant(), group_key => 'g' || floor(random() * 3));
			pause := 0;
		WHEN 'dependent' THEN
			ids := ARRAY[event_queue.enqueue(q, 'plain', priority => any_priority(), tenant_id => 't1')];
			PERFORM event_queue.enqueue(q, how, priority => any_priority(), tenant_id => 't1', depends_on => ids);
			how := 'plain';
			pause := 0;
		END CASE;
		PERFORM pg_sleep(pause);
		IF how = 'rolled back' THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
		INSERT INTO ready SELECT id, how, greatest(due, clock_timestamp()) FROM unnest(ids) id;
		COMMIT;
		PERFORM pg_sleep(0.002);
	END LOOP;
END $$;

CREATE PROCEDURE consume("all" boolean) LANGUAGE plpgsql AS $$
DECLARE
	jobs event_queue.claimed_job[];
	more event_queue.claimed_job[];
	j event_queue.claimed_job;
	claim_lease interval := CASE WHEN "all" THEN '400 ms' ELSE '1 hour' END;
	kind float8;
	due timestamptz;
	again boolean;
	at timestamptz;
BEGIN
	LOOP
		again := random() < 0.05;
		IF again THEN
			BEGIN
				SELECT array_agg(c) INTO jobs FROM event_queue.claim(any_queue(), 2) c;
				RAISE EXCEPTION USING ERRCODE = 'ZZ001';
			EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
			END;
		ELSE
			SELECT array_agg(c) INTO jobs FROM event_queue.claim(any_queue(), 1 + floor(random() * 3)::int, lease => claim_lease) c;
		END IF;
		at := clock_timestamp();
		kind := CASE WHEN again THEN 1 ELSE random() END;
		IF jobs IS NULL THEN
			COMMIT;
			PERFORM pg_sleep(0.002);
			CONTINUE;
		END IF;
		IF kind < 0.05 THEN
			PERFORM pg_sleep(random() * 0.02);
		END IF;
		IF kind < 0.1 THEN
			ROLLBACK;
			again := true;
		ELSE
			COMMIT;
		END IF;
		INSERT INTO got SELECT c.job_id, at FROM unnest(jobs) c;
		INSERT INTO ready SELECT c.job_id, c.name, c.run_at FROM unnest(jobs) c WHERE c.name IN ('group', 'dependent') AND c.attempt = 1 AND c.stalled = 0;
		IF again THEN
			INSERT INTO ready SELECT c.job_id, 'claim undone', clock_timestamp() FROM unnest(jobs) c;
			COMMIT;
			CONTINUE;
		END IF;
		COMMIT;
		FOREACH j IN ARRAY jobs LOOP
			kind := CASE WHEN "all" THEN random() ELSE random() * 0.95 END;
			due := '-infinity';
			BEGIN
				IF kind < 0.7 THEN
					PERFORM event_queue.complete(j.job_id, j.lease_token);
				ELSIF kind < 0.77 THEN
					PERFORM event_queue.fail(j.job_id, j.lease_token, 'no', retry_after => '0');
				ELSIF kind < 0.85 THEN
					due := event_queue.fail(j.job_id, j.lease_token, 'no', retry_after => random() * interval '40 ms');
				ELSIF kind < 0.92 THEN
					PERFORM event_queue.release(j.job_id, j.lease_token);
				ELSIF kind < 0.95 THEN
					due := clock_timestamp() + interval '20 ms';
					PERFORM event_queue.release(j.job_id, j.lease_token, delay => '20 ms');
				ELSIF kind < 0.97 THEN
					PERFORM event_queue.fail(j.job_id, j.lease_token, 'no', final => true);
					PERFORM event_queue.retry_dead(j.job_id);
				ELSE
					due := j.leased_until;		-- forgotten
				END IF;
				IF random() < 0.3 THEN
					PERFORM pg_sleep(random() * 0.03);
				END IF;
			EXCEPTION WHEN SQLSTATE 'EQ016' THEN
				kind := 1;
				due := j.leased_until;
			END;
			COMMIT;
			IF kind >= 0.7 AND (j.group_key IS NULL OR kind NOT BETWEEN 0.95 AND 0.97) THEN
				INSERT INTO ready VALUES (j.job_id, CASE WHEN kind < 0.85 THEN 'failed' WHEN kind < 0.95 THEN 'released'
					WHEN kind < 0.97 THEN 'retried when dead' ELSE 'lease ran out' END, greatest(due, clock_timestamp() - (kind >= 0.97)::int * interval '1 hour'));
				COMMIT;
			END IF;
		END LOOP;
	END LOOP;
END $$;

-- From when a job could be claimed, or was claimed before, to its claim.
CREATE VIEW waits AS
SELECT how, count(*) AS n, max(waited) AS longest FROM (
	SELECT r.how, g.at - greatest(r.at, g.before) AS waited
	FROM (SELECT job_id, at, lag(at) OVER (PARTITION BY job_id ORDER BY at) AS before FROM got) g,
		LATERAL (SELECT * FROM ready r WHERE r.job_id = g.job_id AND r.at <= g.at ORDER BY r.at DESC LIMIT 1) r) w
GROUP BY how;
));

sub start_session
{
	my ($errors, @args) = @_;
	return IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), @args ], '>', '/dev/null', '2>', $errors);
}

sub under_load
{
	my ($all) = @_;
	my $errors = '';
	my $bool = $all ? 'true' : 'false';
	my @files = map { $node->basedir . "/$bool-$_" } 1 .. 12;
	my @consumers = map { start_session($files[$_], '-c', "CALL consume($bool)") } 0 .. 5;
	my @producers = map { start_session($files[$_], '-c', "CALL produce($seconds, $bool)") } 6 .. 10;
	if ($all)
	{
		my $script = $node->basedir . '/prepared.sql';
		append_to_file($script, join '', map { qq(BEGIN;
			SELECT event_queue.enqueue('plain', 'prepared', priority => any_priority()) AS id \\gset
			PREPARE TRANSACTION 'p';
			SELECT pg_sleep(random() * 0.05);
			COMMIT PREPARED 'p';
			INSERT INTO ready VALUES (:id, 'prepared', clock_timestamp());
		) } 1 .. $seconds * 15);
		push @producers, start_session($files[11], '-f', $script);
	}
	$_->finish for @producers;
	ok($node->poll_query_until('postgres', q(SELECT NOT EXISTS (SELECT FROM event_queue.job))), 'no job stays')
	  or diag($node->safe_psql('postgres', q(SELECT queue, name, state, priority, run_at FROM event_queue.jobs LIMIT 20)));
	$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL consume%'));
	$_->finish for @consumers;
	for (grep { -e } @files)
	{
		$errors .= "$_\n" for grep { /ERROR/ } split /\n/, slurp_file($_);
	}
	is($errors, '', 'and no session met an error');
	diag($_) for split /\n/, $node->safe_psql('postgres', q(SELECT format('%-18s %5s claims, longest wait %s ms', how, n, round(1000 * extract(epoch FROM longest))) FROM waits ORDER BY how));
}

# Without a scheduler a hidden job would stay where it is.
under_load(0);
is($node->safe_psql('postgres', q(SELECT string_agg(how, ', ') FROM waits
	WHERE longest > (SELECT longest FROM waits WHERE how = 'plain') + interval '2 s')), '', 'nothing waits longer than what is just enqueued');
$node->safe_psql('postgres', 'TRUNCATE ready, got');

# With a scheduler.
$node->append_conf('postgresql.conf', q(event_queue.databases = ''));
$node->reload;
$node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'event_queue scheduler')) or die;
($one, $two) = map { $node->background_psql('postgres') } 1, 2;
$one->query_safe('CREATE TEMP TABLE mine (job_id bigint, lease_token uuid)');

sub found_in_time
{
	my ($what, $before, $after) = @_;
	$one->query_safe("BEGIN; $before") if $before;
	$node->safe_psql('postgres', 'CALL raise_mark()');
	ref $after ? $after->() : $one->query_safe($after) if $after;
	isnt($node->safe_psql('postgres', q(CALL find_job('below', '1500 ms'))), '', "$what: found in time");
}

# The next sweep is up to 5 s away.
found_in_time('copied', '', q(COPY event_queue.job (queue_id, tenant_id, name, priority, run_at, created_at, payload)
	FROM PROGRAM 'printf "3\tdefault\tbelow\t5\t2001-01-01\t2001-01-01\t{}\n"'));
found_in_time('copied late', "CALL write_job('below')", 'COMMIT');
found_in_time('made due by UPDATE', q(SELECT event_queue.enqueue('q', 'below', delay => '1 hour'); COMMIT), q(UPDATE event_queue.job SET run_at = '2001-01-01' WHERE name = 'below'));
found_in_time('retry_waiting', q(SELECT event_queue.enqueue('q', 'below', delay => '1 hour'); COMMIT; BEGIN; SELECT event_queue.retry_waiting('q', false)), 'COMMIT');
found_in_time('change_priority', "SELECT event_queue.change_priority($below, 3)", 'COMMIT');
found_in_time('promote_job', q(SELECT event_queue.enqueue('q', 'below', delay => '1 hour'); COMMIT; BEGIN; SELECT event_queue.promote_job(job_id) FROM event_queue.job WHERE name = 'below'), 'COMMIT');
leased('');
found_in_time('retry_dead', q(SELECT event_queue.fail(job_id, lease_token, 'no', final => true) FROM mine; SELECT event_queue.retry_dead(job_id) FROM mine), 'COMMIT');
my $claim_first = q(INSERT INTO mine SELECT job_id, lease_token FROM event_queue.claim('q'); COMMIT);
my $complete = 'SELECT event_queue.complete(job_id, lease_token) FROM mine';
$one->query_safe(q(TRUNCATE mine; SELECT event_queue.enqueue('q', n, group_key => 'g') FROM unnest('{first,below}'::text[]) n));
$node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE name = 'first')) or die;
found_in_time('next of its group', $claim_first, $complete);
$one->query_safe('TRUNCATE mine');
found_in_time('dependent', "SELECT event_queue.enqueue('q', 'below', depends_on => ARRAY[event_queue.enqueue('q', 'first')]); $claim_first", $complete);
$two->query_safe("SELECT $below; SELECT count(*) FROM event_queue.claim('q', session_bound => true)");
found_in_time('session that ended', '', sub { $two->quit });

$node->safe_psql('postgres', q(SELECT event_queue.alter_queue(name, stalled_interval => '500 ms') FROM event_queue.queue));
found_in_time('written by replication', '', "SET session_replication_role = replica; CALL write_job('below'); SET session_replication_role = origin");
found_in_time('prepared', "SELECT $below; PREPARE TRANSACTION 'x'", q(COMMIT PREPARED 'x'));
found_in_time('lease that runs out', "SELECT $below; COMMIT; BEGIN; SELECT count(*) FROM event_queue.claim('q', lease => '200 ms'); COMMIT", '');
$one->quit;

under_load(1);
is($node->safe_psql('postgres', q(SELECT string_agg(how, ', ') FROM waits
	WHERE longest > (SELECT longest FROM waits WHERE how = 'plain') + interval '500 ms' + interval '2 s')), '', 'nothing waits longer than stalled_interval');
$node->stop;
done_testing();
