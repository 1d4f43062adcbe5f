# Random work on queues from many sessions, with kills in between, against a model:
# no committed job is lost, none is done twice, jobs of a group are done in their
# order and leased no more than group_concurrency at a time, max_concurrency and
# rates are never exceeded, unique keys are unique, no job comes before those that
# it depends on, and none waits forever.
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
CREATE FUNCTION make(name text) RETURNS void LANGUAGE sql AS $$
	SELECT event_queue.create_queue(name, lease => '2 s', stalled_interval => '500 ms', max_stalled => 1000, max_attempts => 1000);
$$;
SELECT make('free'), make('grouped'), make('ordered'), make('unique'), make('flow'),
	make('limited'), make('fair'), make('three'), make('mortal'), make('rated'), make('keyrated');
SELECT event_queue.alter_queue('limited', max_concurrency => 3),
	event_queue.alter_queue('fair', fair => true),
	event_queue.alter_queue('three', group_concurrency => 3),
	event_queue.alter_queue('mortal', max_attempts => 2, backoff_delay => '10 ms'),
	event_queue.alter_queue('rated', rate_limit => 10, rate_interval => '500 ms'),
	event_queue.alter_queue('keyrated', group_rate_limit => 5, group_rate_interval => '500 ms', group_concurrency => 4);
CREATE TABLE asked (job_id bigint PRIMARY KEY, queue text);
CREATE TABLE done (n bigserial, job_id bigint PRIMARY KEY, queue text, group_key text);
CREATE TABLE cancelled (job_id bigint PRIMARY KEY);
CREATE TABLE depends (job_id bigint, depends_on bigint);
CREATE INDEX ON depends (job_id);
CREATE TABLE rated (queue text, group_key text, began timestamptz, ended timestamptz);	-- claims that were committed
CREATE TABLE broken (what text);
CREATE FUNCTION any_queue() RETURNS text LANGUAGE sql AS $$
	SELECT ('{free,free,free,grouped,grouped,grouped,limited,limited,fair,fair,ordered,ordered,ordered,three,three,mortal,unique,flow,rated,keyrated}'::text[])[1 + floor(random() * 20)]
$$;

-- Groups of queue ordered belong to one producer: so the order of their ids is that of their commits.
CREATE FUNCTION any_group(queue text, producer int) RETURNS text LANGUAGE sql AS $$
	SELECT CASE queue WHEN 'grouped' THEN 'g' || floor(random() * 20) WHEN 'ordered' THEN format('p%s-%s', producer, floor(random() * 3))
		WHEN 'three' THEN 'g' || floor(random() * 3) WHEN 'keyrated' THEN 'k' || floor(random() * 2) END
$$;

-- Enqueues in all ways: late commits, savepoints, rollbacks, many at once, delays.
CREATE PROCEDURE produce(producer int, rounds int) LANGUAGE plpgsql AS $$
DECLARE
	q text;
	ids bigint[];
	unwanted bigint;
BEGIN
	FOR i IN 1 .. rounds LOOP
		q := any_queue();
		IF q = 'flow' THEN
			ids := ARRAY(SELECT event_queue.enqueue(q, 'child') FROM generate_series(1, 1 + floor(random() * 3)::int));
			ids := ids || event_queue.enqueue(q, 'parent', depends_on => ids);
			ids := ids || event_queue.enqueue(q, 'grandparent', depends_on => ids[cardinality(ids):]);
			INSERT INTO depends SELECT ids[cardinality(ids) - 1], unnest(ids[:cardinality(ids) - 2]);
			INSERT INTO depends VALUES (ids[cardinality(ids)], ids[cardinality(ids) - 1]);
		ELSIF q = 'unique' THEN
			ids := ARRAY[event_queue.enqueue(q, 'u', unique_key => 'u' || floor(random() * 20), delay => random() * interval '100 ms')];
		ELSIF random() < 0.1 THEN
			ids := event_queue.enqueue_many(q, (SELECT jsonb_agg(jsonb_build_object('group_key', any_group(q, producer))) FROM generate_series(1, 5)),
				options => '{"name": "m"}');
		ELSE
			ids := ARRAY[event_queue.enqueue(q, 'j', priority => floor(random() * 10)::int,
				tenant_id => CASE WHEN any_group(q, producer) IS NULL THEN 't' || floor(random() * 5) END,
				delay => CASE WHEN random() < 0.1 AND any_group(q, producer) IS NULL THEN random() * interval '1 s' END,
				group_key => any_group(q, producer))];
		END IF;
		BEGIN
			PERFORM event_queue.enqueue(q, 'rolled back');
			RAISE EXCEPTION USING ERRCODE = 'ZZ001';
		EXCEPTION WHEN SQLSTATE 'ZZ001' THEN NULL;
		END;
		INSERT INTO asked SELECT unnest(ids), q ON CONFLICT DO NOTHING;	-- a unique key's job may be there
		IF random() < 0.1 THEN
			PERFORM pg_sleep(0.05);		-- so that it commits below the ready mark
		END IF;
		IF random() < 0.1 THEN
			ROLLBACK;
		ELSE
			COMMIT;
			unwanted := CASE WHEN random() < 0.2 AND q IN ('free', 'fair', 'grouped') THEN ids[1] END;
		END IF;
		IF unwanted IS NOT NULL AND random() < 0.5 THEN
			BEGIN
				IF event_queue.cancel_job(unwanted) = 'cancelled' THEN
					INSERT INTO cancelled VALUES (unwanted);
				END IF;
			EXCEPTION WHEN SQLSTATE 'EQ032' THEN NULL;	-- done
			END;
			unwanted := NULL;
			IF random() < 0.1 THEN
				ROLLBACK;
			ELSE
				COMMIT;
			END IF;
		END IF;
	END LOOP;
END $$;

CREATE PROCEDURE consume() LANGUAGE plpgsql AS $$
DECLARE
	q text;
	c record;
	kind float8;
	began timestamptz;
	ended timestamptz;
BEGIN
	LOOP
		q := any_queue();
		FOR c IN SELECT * FROM event_queue.claim(q, 1 + floor(random() * 4)::int) LOOP
			EXIT;		-- (only to have the cursor read all of it)
		END LOOP;
		ROLLBACK;		-- a claim that is undone
		CREATE TEMP TABLE IF NOT EXISTS mine (job_id bigint, token uuid, group_key text);
		TRUNCATE mine;
		began := clock_timestamp();
		INSERT INTO mine SELECT job_id, lease_token, group_key FROM event_queue.claim(q, 1 + floor(random() * 4)::int);
		ended := clock_timestamp();
		COMMIT;
		IF q IN ('rated', 'keyrated') THEN
			INSERT INTO rated SELECT q, group_key, began, ended FROM mine;
		ELSIF q = 'flow' THEN
			INSERT INTO broken SELECT 'claimed before what it depends on' FROM mine JOIN depends d USING (job_id)
			WHERE NOT EXISTS (SELECT FROM done WHERE done.job_id = d.depends_on);
		END IF;
		COMMIT;
		IF random() < 0.2 THEN
			PERFORM pg_sleep(random() * 0.01);
		END IF;
		FOR c IN SELECT * FROM mine LOOP
			kind := random();
			BEGIN
				IF kind < 0.1 THEN
					PERFORM event_queue.fail(c.job_id, c.token, 'no', retry_after => random() * interval '100 ms');
				ELSIF kind < 0.5 AND q = 'mortal' THEN
					PERFORM event_queue.fail(c.job_id, c.token, 'no');
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
			EXCEPTION
				WHEN SQLSTATE 'EQ016' THEN NULL;	-- the lease ran out
				WHEN SQLSTATE 'EQ033' THEN
					PERFORM event_queue.fail(c.job_id, c.token, 'cancelled', final => true);
					PERFORM event_queue.discard_dead(c.job_id);
					INSERT INTO cancelled VALUES (c.job_id);
			END;
		END LOOP;
		COMMIT;
	END LOOP;
END $$;

-- By hand, between the sessions: limits hold at every moment.
CREATE PROCEDURE watch() LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		INSERT INTO broken SELECT format('%s of group %s of queue %s', count(*), group_key, queue) FROM event_queue.jobs
		WHERE leased_until > clock_timestamp() AND group_key IS NOT NULL GROUP BY queue, group_key, tenant_id
		HAVING count(*) > CASE queue WHEN 'three' THEN 3 WHEN 'keyrated' THEN 4 ELSE 1 END;
		INSERT INTO broken SELECT format('%s with unique key %s', count(*), unique_key) FROM event_queue.jobs
		WHERE unique_key IS NOT NULL GROUP BY queue, tenant_id, unique_key HAVING count(*) > 1;
		INSERT INTO broken SELECT 'limit exceeded: ' || count(*) FROM event_queue.jobs
		WHERE queue = 'limited' AND leased_until > clock_timestamp() HAVING count(*) > 3;
		PERFORM event_queue.retry_all_dead('mortal', max_jobs => 10);
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
	push @producers, start_session("CALL produce($_, $each)", $file->()) for 1 .. 4;
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
		ok($node->poll_query_until('postgres', 'SELECT NOT EXISTS (SELECT FROM event_queue.job) AND NOT EXISTS (SELECT FROM event_queue.dead_letter)'), 'all queues run empty')
		  or diag($node->safe_psql('postgres', 'SELECT queue, state, count(*) FROM event_queue.jobs GROUP BY 1, 2'));
		$node->safe_psql('postgres', q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL %'));
	}
	$_->finish for @producers, @others;
	for (@files)
	{
		my $said = slurp_file($_);
		$errors .= $said if $said =~ /ERROR/;
	}
	start_again($node) if $round < $kills;
}
is($errors, '', 'no session met an error that it must not meet');
my $asked = $node->safe_psql('postgres', 'SELECT count(*) FROM asked');
cmp_ok($asked, '>', $each * 2, "$asked jobs were committed");
is($node->safe_psql('postgres', 'SELECT count(*) FROM asked a WHERE NOT EXISTS (SELECT FROM done d WHERE d.job_id = a.job_id) AND NOT EXISTS (SELECT FROM cancelled c WHERE c.job_id = a.job_id)'),
	'0', 'each is done, once, or cancelled');
is($node->safe_psql('postgres', 'SELECT count(*) FROM done d WHERE NOT EXISTS (SELECT FROM asked a WHERE d.job_id = a.job_id)'), '0', 'and nothing else');
is($node->safe_psql('postgres', 'SELECT count(*) FROM done JOIN cancelled USING (job_id)'), '0', 'none is both');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM cancelled'), '>', 0, 'some were cancelled');
is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT what, $$, $$) FROM broken'), '', 'groups, limits, unique keys and dependencies held');
is($node->safe_psql('postgres', q(SELECT count(*) FROM (SELECT n, max(n) OVER (PARTITION BY group_key ORDER BY job_id) AS latest FROM done WHERE queue = 'ordered') d
	WHERE n < latest)), '0', 'each group was done in its order');

# A bucket may have been full when a claim began; no span from there on may have more
# than it held and what flowed in until then.
$node->safe_psql('postgres', q(
CREATE VIEW spans AS
	SELECT a.queue, b.ended - a.began AS span, row_number() OVER (PARTITION BY a.id ORDER BY b.ended) AS n,
		CASE a.queue WHEN 'rated' THEN 10 ELSE 5 END * (1 + extract(epoch FROM b.ended - a.began) / 0.5) AS allowed
	FROM (SELECT *, row_number() OVER () AS id FROM rated) a
	JOIN rated b ON a.queue = b.queue AND (a.queue = 'rated' OR a.group_key = b.group_key) AND b.began >= a.began));
is($node->safe_psql('postgres', q(SELECT string_agg(format('%s: %s in %s', queue, n, span), ', ') FROM spans WHERE n > allowed + 0.001)), '', 'no rate was exceeded');
for my $queue ('rated', 'keyrated')
{
	my $n = $node->safe_psql('postgres', "SELECT count(*) FROM rated WHERE queue = '$queue'");
	cmp_ok($node->safe_psql('postgres', "SELECT max(n / allowed) FROM spans WHERE queue = '$queue' AND n > 15"), '>', 0.8, "but in $n claims from queue $queue nearly reached");
}
$node->stop;
done_testing();
