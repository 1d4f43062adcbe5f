# Durable steps while the server is killed with -9: each step ran to one recorded
# result, whether its transaction was a run of a handler or a step of a procedure; those
# that sleep, and wait for signals and events, go on.
#
# EQ_CRASH_ROUNDS: how often (2; 10 with EQ_LONG).
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use EventQueueCrash;

my $rounds = $ENV{EQ_CRASH_ROUNDS} || ($ENV{EQ_LONG} ? 10 : 2);
my $orders = 40;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 2
restart_after_crash = off
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]); }

# Not safe to repeat: a step that ran twice would show.
sql(q(
CREATE EXTENSION event_queue;
CREATE TABLE did (o text NOT NULL, step text NOT NULL);
SELECT event_queue.create_queue('handled', max_stalled => 100, lease => '2 seconds', stalled_interval => '1 second', keep_completed => '1 day');
SELECT event_queue.create_queue('outside', max_stalled => 100, lease => '2 seconds', stalled_interval => '1 second', keep_completed => '1 day');
CREATE FUNCTION reserve(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.did VALUES (job.payload ->> 'o', 'reserve');
	PERFORM pg_sleep(0.005);
	RETURN jsonb_build_object('by', pg_current_xact_id()::text);
END $$;
CREATE FUNCTION ship(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$
	INSERT INTO public.did VALUES (job.payload ->> 'o', 'ship'); SELECT '"shipped"'::jsonb $$;
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS jsonb LANGUAGE sql AS $$
	SELECT event_queue.run_step(job, 'reserve', 'public.reserve');
	SELECT event_queue.sleep_job(job, 'a moment', '20 ms');
	SELECT event_queue.await_signal(job, 'paid', job.payload ->> 'o');
	SELECT event_queue.await_event(job, 'packed', 'order.packed', 'order', job.payload ->> 'o', after_position => 0);
	SELECT event_queue.run_step(job, 'ship', 'public.ship') $$;
SELECT event_queue.create_handler('handled', '*', 'work');
CREATE PROCEDURE work_outside() LANGUAGE plpgsql AS $$
DECLARE
	job event_queue.claimed_job;
	w jsonb;
BEGIN
	FOR i IN 1 .. 100 LOOP
		SELECT * INTO job FROM event_queue.claim('outside');
		COMMIT;
		IF job.job_id IS NULL THEN
			PERFORM pg_sleep(0.02);
			CONTINUE;
		END IF;
		FOR n IN 1 .. 3 LOOP
			IF event_queue.step(job, 'reserve ' || n) IS NULL THEN
				INSERT INTO did VALUES (job.payload ->> 'o', 'reserve ' || n);
				PERFORM event_queue.step_done(job, 'reserve ' || n, to_jsonb(n));
				COMMIT;
			END IF;
		END LOOP;
		w := event_queue.await_signal(job, 'paid', job.payload ->> 'o');
		COMMIT;
		CONTINUE WHEN w IS NULL;
		IF event_queue.step(job, 'ship') IS NULL THEN
			INSERT INTO did VALUES (job.payload ->> 'o', 'ship');
			PERFORM event_queue.step_done(job, 'ship');
			COMMIT;
		END IF;
		PERFORM event_queue.complete(job.job_id, job.lease_token, w);
		COMMIT;
	END LOOP;
END $$;
));

sub client
{
	my ($name, $sql) = @_;
	my $file = $node->basedir . "/$name.sql";
	unlink $file;
	append_to_file($file, $sql);
	return IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-f', $file ], '>', \my $out, '2>', \my $err);
}

for my $round (1 .. $rounds)
{
	sql(qq(SELECT event_queue.enqueue(q, 'order', jsonb_build_object('o', left(q, 1) || '-$round-' || i)) FROM generate_series(1, $orders) i, unnest('{handled,outside}'::text[]) q));
	# Twice, some before and some after they are waited for.
	my @running = (
		client('signals', join('', map { my $o = $_; map { "SELECT event_queue.send_signal('paid', '$_-$round-$o', '$round');\n" x 2 } qw(h o) } 1 .. $orders)),
		client('events', join('', map { "SELECT event_queue.append('order', 'h-$round-$_', 'order.packed'); SELECT pg_sleep(0.002);\n" } 1 .. $orders)),
		map { client("outside$_", 'CALL work_outside();') } 1 .. 2);
	$node->poll_query_until('postgres', "SELECT count(*) >= 20 FROM did WHERE o LIKE '%-$round-%'") or die 'nothing was done';
	kill_server($node);
	$_->finish for @running;
	start_again($node);
}

# What the clients had not sent when the server was killed: those that were sent are not taken again.
sql(qq(SELECT event_queue.send_signal('paid', q || '-' || r || '-' || i, to_jsonb(r)) FROM generate_series(1, $rounds) r, generate_series(1, $orders) i, unnest('{h,o}'::text[]) q));
sql(qq(SELECT event_queue.append('order', 'h-' || r || '-' || i, 'order.packed', expected_version => 'no_stream') FROM generate_series(1, $rounds) r, generate_series(1, $orders) i
	WHERE NOT EXISTS (SELECT FROM event_queue.event_store e WHERE e.aggregate_id = 'h-' || r || '-' || i)));
my @running = map { client("outside$_", "CALL work_outside();\nCALL work_outside();\nCALL work_outside();\n") } 1 .. 2;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM event_queue.job)), 'all jobs end')
  or diag(sql('SELECT j.queue, j.state, s.name, s.state, j.payload FROM event_queue.jobs j LEFT JOIN event_queue.job_steps s USING (job_id) LIMIT 20'));
$_->finish for @running;
my $n = $rounds * $orders;
is(sql('SELECT step, count(*), count(DISTINCT o) FROM did GROUP BY 1 ORDER BY 1'), join("\n", map { my $k = $_ eq 'ship' ? 2 * $n : $n; "$_|$k|$k" } 'reserve', 'reserve 1', 'reserve 2', 'reserve 3', 'ship'),
	'each step of each order was done once');
is(sql('SELECT count(*) FROM event_queue.dead_letters'), '0', 'no job died');
is(sql(q(SELECT count(*), count(DISTINCT job_id) FROM event_queue.history)), 2 * $n . '|' . 2 * $n, 'each ended once');
is(sql(q(SELECT count(*) FROM event_queue.history WHERE queue = 'outside' AND result ->> 'state' = 'received' AND result -> 'payload' = to_jsonb(split_part(payload ->> 'o', '-', 2)::int))), $n, 'with its signal');
is(sql('SELECT count(*) FROM event_queue.job_step'), '0', 'their steps have gone');

# One that sleeps has no lease and goes on after a crash; what was undone is so, too.
sql(q(SELECT event_queue.create_queue('undo')));
my $job = sql(q(SELECT event_queue.enqueue('outside', 'x')));
sql(q(SELECT event_queue.step_done(c, 'a', '1', undo => '{"queue": "undo", "name": "undo a"}'), event_queue.sleep_job(c, 's', '1 hour') FROM event_queue.claim('outside') c));
kill_server($node);
start_again($node);
is(sql("SELECT j.state, j.leased_by, string_agg(s.name || ' ' || s.state, ', ' ORDER BY step_no) FROM event_queue.jobs j JOIN event_queue.job_steps s USING (job_id) WHERE job_id = $job GROUP BY 1, 2"),
	'suspended||a done, s waiting', 'it sleeps on');
sql("SELECT event_queue.cancel_job($job)");
$node->stop('immediate');
$node->start;
is(sql(q(SELECT name, payload ->> 'result' FROM event_queue.jobs WHERE queue = 'undo')), 'undo a|1', 'cancelled, it is undone');
done_testing();
