# Random work on queues from many sessions, with kills in between, against a model:
# no committed job is lost, none is done twice, jobs of a group are leased one at a
# time, max_concurrency is never exceeded, and no job waits for ever.
#
# EQ_MODEL_JOBS: how many jobs a session and round enqueues (400; 3000 with EQ_LONG).
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use EventQueueCrash;

my $each = $ENV{EQ_MODEL_JOBS} || ($ENV{EQ_LONG} ? 3000 : 400);
my $kills = $ENV{EQ_LONG} ? 6 : 2;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
restart_after_crash = off
max_prepared_transactions = 20
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('free', lease => '2 s', stalled_interval => '500 ms', max_stalled => 1000, max_attempts => 1000),
	event_queue.create_queue('grouped', lease => '2 s', stalled_interval => '500 ms', max_stalled => 1000, max_attempts => 1000),
	event_queue.create_queue('limited', lease => '2 s', stalled_interval => '500 ms', max_stalled => 1000, max_attempts => 1000, max_concurrency => 3),
	event_queue.create_queue('fair', lease => '2 s', stalled_interval => '500 ms', max_stalled => 1000, max_attempts => 1000, fair => true);
CREATE TABLE asked (job_id bigint PRIMARY KEY, queue text);
CREATE TABLE done (n bigserial, job_id bigint PRIMARY KEY, queue text, group_key text);
CREATE TABLE broken (what text);
CREATE FUNCTION any_queue() RETURNS text LANGUAGE sql AS $$ SELECT ('{free,grouped,limited,fair}'::text[])[1 + floor(random() * 4)] $$;

-- Enqueues in all ways: late commits, savepoints, rollbacks, many at once, delays.
CREATE PROCEDURE produce(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	q text;
	ids bigint[];
BEGIN
	FOR i IN 1 .. rounds LOOP
		q := any_queue();
		IF random() < 0.1 THEN
			ids := event_queue.enqueue_many(q, 'm', ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 5)),
				group_keys => CASE q WHEN 'grouped' THEN ARRAY(SELECT 'g' || floor(random() * 20) FROM generate_series(1, 5)) END);
		ELSE
			ids := ARRAY[event_queue.enqueue(q, 'j', priority => floor(random() * 10)::int, tenant_id => 't' || floor(random() * 5),
				delay => CASE WHEN random() < 0.1 AND q <> 'grouped' THEN random() * interval '1 s' END,
				group_key => CASE q WHEN 'grouped' THEN 'g' || floor(random() * 20) END)];
		END IF;
		BEGIN
			PERFORM event_queue.enqueue(q, 'rolled back');
			RAISE EXCEPTION USING ERRCODE = 'ZZ001';
		EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
		END;
		INSERT INTO asked SELECT unnest(ids), q;
		IF random() < 0.1 THEN
			PERFORM pg_sleep(0.05);		-- so that it commits below the ready mark
		END IF;
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$;

CREATE PROCEDURE consume() LANGUAGE plpgsql AS $$
DECLARE
	q text;
	c record;
	kind float8;
BEGIN
	LOOP
		q := any_queue();
		FOR c IN SELECT * FROM event_queue.claim(q, 1 + floor(random() * 4)::int) LOOP
			EXIT;		-- (only to have the cursor read all of it)
		END LOOP;
		ROLLBACK;		-- a claim that is undone
		CREATE TEMP TABLE IF NOT EXISTS mine (job_id bigint, token uuid, group_key text);
		TRUNCATE mine;
		INSERT INTO mine SELECT job_id, lease_token, group_key FROM event_queue.claim(q, 1 + floor(random() * 4)::int);
		COMMIT;
		IF random() < 0.2 THEN
			PERFORM pg_sleep(random() * 0.01);
		END IF;
		FOR c IN SELECT * FROM mine LOOP
			kind := random();
			BEGIN
				IF kind < 0.1 THEN
					PERFORM event_queue.fail(c.job_id, c.token, 'no', retry_after => random() * interval '100 ms');
				ELSIF kind < 0.15 THEN
					PERFORM event_queue.release(c.job_id, c.token);
				ELSIF kind < 0.17 THEN
					NULL;		-- forgotten: its lease runs out
				ELSE
					IF kind < 0.3 THEN
						PERFORM event_queue.extend_lease(c.job_id, c.token);
						PERFORM event_queue.report_progress(c.job_id, c.token, '1');
					END IF;
					PERFORM event_queue.complete(c.job_id, c.token);
					INSERT INTO done (job_id, queue, group_key) VALUES (c.job_id, q, c.group_key);
				END IF;
			EXCEPTION WHEN SQLSTATE 'EQ016' THEN NULL;	-- the lease ran out
			END;
		END LOOP;
		COMMIT;
	END LOOP;
END $$;

-- By hand, between the sessions: limits hold at every moment.
CREATE PROCEDURE watch() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		INSERT INTO broken SELECT 'two of group ' || group_key FROM event_queue.job
		WHERE leased_until > clock_timestamp() AND group_key IS NOT NULL GROUP BY group_key, tenant_id HAVING count(*) > 1;
		INSERT INTO broken SELECT 'limit exceeded: ' || count(*) FROM event_queue.jobs
		WHERE queue = 'limited' AND leased_until > clock_timestamp() HAVING count(*) > 3;
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;
));

sub start_session
{
	my ($sql, $file) = @_;
	return IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'SET client_min_messages = warning', '-c', $sql ],
		'>', '/dev/null', '2>', $file);
}

my $errors = '';
for my $round (0 .. $kills)
{
	my (@files, @producers, @others);
	my $file = sub { push @files, $node->basedir . "/session-$round-" . @files; return $files[-1]; };
	push @producers, start_session("CALL produce($each)", $file->()) for 1 .. 4;
	push @others, start_session($_, $file->()) for (('CALL consume()') x 8, 'CALL watch()');
	if ($round < $kills)
	{
		my $half = ($round + 0.5) * $each * 4;
		$node->poll_query_until('postgres', "SELECT count(*) > $half * 0.6 FROM asked") or die;
		kill_server($node);
	}
	else
	{
		$_->finish for @producers;
		@producers = ();
		ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM event_queue.job)'), 'all queues run empty')
		  or diag($node->safe_psql('postgres', 'SELECT queue, state, count(*) FROM event_queue.jobs GROUP BY 1, 2'));
		$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL %'));
	}
	$_->finish for @producers, @others;
	for (@files)
	{
		$errors .= $_ . "\n" for grep { /ERROR/ && !/prepare/ } split /\n/, slurp_file($_);
	}
	start_again($node) if $round < $kills;
}
is($errors, '', 'no session met an error that it must not meet');
my $asked = $node->safe_psql('postgres', 'SELECT count(*) FROM asked');
cmp_ok($asked, '>', $each * 2, "$asked jobs were committed");
is($node->safe_psql('postgres', 'SELECT count(*) FROM asked a WHERE NOT EXISTS (SELECT FROM done d WHERE d.job_id = a.job_id)'), '0', 'each is done, once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM done d WHERE NOT EXISTS (SELECT FROM asked a WHERE d.job_id = a.job_id)'), '0', 'and nothing else');
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.dead_letter'), '0', 'no dead letters');
is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT what, $$, $$) FROM broken'), '', 'groups one at a time, limits held');
$node->stop;
done_testing();
