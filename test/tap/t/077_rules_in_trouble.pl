# Rules in trouble: the owner of one is dropped, or loses a right, in the middle of a batch; what
# one user's code opens by dblink is closed before the next; executors are ended gracefully; a
# restore into the store is cut off by the end of the server, before and after its commit.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueHealth;
use EventQueueCrash;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 1
));
$node->start;
watch_node($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q');
CREATE ROLE leaver;
SELECT event_queue.grant_admin('leaver');
CREATE TABLE readable (yes boolean);
INSERT INTO readable VALUES (true);
GRANT SELECT ON readable TO leaver;
-- a hundred events are several batches
CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN (SELECT yes FROM public.readable); END $$;
SET ROLE leaver;
SELECT event_queue.create_rule('leaves', 'left.*', 'public.slowly()', queue => 'q', job_name => 'left');
SELECT event_queue.create_rule('loses', 'lost.*', 'public.slowly()', queue => 'q', job_name => 'lost');
RESET ROLE;
-- each event of these has led to one job, by the rule or by the job that tries it again
CREATE VIEW made AS SELECT name, count(*) AS n, count(DISTINCT metadata ->> 'event_id') AS events FROM event_queue.job WHERE queue_id > 2 GROUP BY 1;
));

# A right is taken away: events that come then are tried again, and are dead letters at worst.
sql(q(SELECT count(event_queue.append('lost', n::text, 'lost.x')) FROM generate_series(1, 100) n));
soon(q(EXISTS (SELECT FROM made WHERE name = 'lost')), 'a batch has begun');
sql('REVOKE SELECT ON readable FROM leaver');
soon(q(EXISTS (SELECT FROM event_queue.rule_stats WHERE rule = 'loses' AND failed > 0)), 'the rest fails');
soon(q((SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)), 'the rule runner goes on');
is(sql(q(SELECT (SELECT n FROM made WHERE name = 'lost') + (SELECT count(*) FROM event_queue.job WHERE queue_id = 1)
	+ (SELECT count(*) FROM event_queue.dead_letter WHERE queue_id = 1))), '100', 'no event is lost');
sql('GRANT SELECT ON readable TO leaver');
soon(q(NOT EXISTS (SELECT FROM event_queue.job WHERE queue_id = 1)), 'it may read again');
sql(q(SELECT event_queue.retry_all_dead('rule-calls')));
soon(q((SELECT n = 100 FROM made WHERE name = 'lost')), 'all is done');
is(sql(q(SELECT n, events FROM made WHERE name = 'lost')), '100|100', 'once each');

# The owner is dropped.  What was his waits, keeps its attempts, and goes on when someone has the rule again.
sql(q(SELECT count(event_queue.append('left', n::text, 'left.x')) FROM generate_series(1, 100) n));
soon(q(EXISTS (SELECT FROM made WHERE name = 'left')), 'a batch has begun');
sql(q(SELECT event_queue.revoke_access('leaver'); DROP OWNED BY leaver; DROP ROLE leaver));
soon(q((SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)), 'the rule runner goes on');
soon(q(EXISTS (SELECT FROM event_queue.faults() WHERE what = 'rule function' AND item LIKE 'leaves%' AND sqlstate = 'EQ041')), 'the rule without its owner is a fault');
is(sql(q(SELECT (SELECT n FROM made WHERE name = 'left') + (SELECT count(*) FROM event_queue.job WHERE queue_id = 1 AND failures = 0))), '100', 'no event is lost, no attempt counted');
sql(q(SELECT event_queue.create_rule('leaves', 'left.*', queue => 'q', job_name => 'left', or_replace => true)));
sql(q(SELECT event_queue.retry_waiting('rule-calls', failed_only => false)));	# within a minute they would, too
soon(q(NOT EXISTS (SELECT FROM event_queue.job WHERE queue_id = 1)), 'someone has it');
is(sql(q(SELECT n, events FROM made WHERE name = 'left')), '100|100', 'each event once');
sql(q(SELECT event_queue.drop_rule('leaves'), event_queue.drop_rule('loses'), event_queue.purge_queue('q')));

SKIP: {
	skip 'dblink is not installed', 6 unless sql(q(SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'));
	my $connstr = $node->connstr('postgres') =~ s/'/''/gr;

	# Jobs of one transaction, and of one after the other: the last one fails.
	sql(qq(
CREATE EXTENSION dblink;
CREATE TABLE seen (job bigint, name text, names text[], unnamed text);
CREATE FUNCTION opens(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	unnamed text := 'open';
BEGIN
	BEGIN
		PERFORM public.dblink_exec('SELECT 1');
	EXCEPTION WHEN SQLSTATE '08003' THEN
		unnamed := 'none';
	END;
	INSERT INTO public.seen VALUES (job.job_id, job.name, public.dblink_get_connections(), unnamed);
	PERFORM public.dblink_connect('mine', '$connstr application_name=opened'), public.dblink_connect('$connstr application_name=opened');
	PERFORM public.dblink_exec('mine', 'BEGIN');
	IF job.name = 'fails' THEN
		RAISE EXCEPTION 'after all';
	END IF;
END \$\$;
SELECT event_queue.create_queue('opens', keep_completed => '1 hour', max_attempts => 2, backoff => 'fixed', backoff_delay => '10 ms'), event_queue.create_handler('opens', '*', 'opens');
SELECT event_queue.pause_queue('opens');
SELECT event_queue.enqueue('opens', CASE n WHEN 20 THEN 'fails' ELSE 'goes well' END) FROM generate_series(1, 20) n;
SELECT event_queue.resume_queue('opens');
));
	soon(q(EXISTS (SELECT FROM event_queue.dead_letter WHERE name = 'fails') AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'opens')), 'all have run');
	is(sql(q(SELECT count(*) FROM event_queue.history WHERE queue = 'opens' AND failures = 0)), '19', 'each of them');
	is(sql(q(SELECT DISTINCT names, unnamed FROM seen)), '|none', 'and found no connection that another one had left');
	soon(q(NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'opened')), 'none is left');
	# Conditions, of which a second one could not open the same connection.
	sql(qq(SELECT event_queue.create_rule('opens', 'opened.x', format('public.dblink_connect(%L, %L) = %L', 'mine', '$connstr', 'OK'), queue => 'q', job_name => 'opened')));
	sql(q(SELECT count(event_queue.append('opened', n::text, 'opened.x')) FROM generate_series(1, 5) n));
	soon(q((SELECT n = 5 FROM made WHERE name = 'opened')), 'so it is with conditions');
	is(sql(q(SELECT matched, failed FROM event_queue.rule_stats WHERE rule = 'opens')), '5|0', 'the first time');
	sql(q(SELECT event_queue.drop_rule('opens'), event_queue.purge_queue('q')));
}

# A graceful end: without executors what runs comes to its end, and the rest waits.
sql(q(
CREATE TABLE may_end (yes boolean);
CREATE FUNCTION takes_long(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM public.may_end) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
SELECT event_queue.create_queue('long', keep_completed => '1 hour', lease => '10 minutes'), event_queue.create_handler('long', '*', 'takes_long');
SELECT event_queue.enqueue('long', 'x') FROM generate_series(1, 3);
));
soon(q(EXISTS (SELECT FROM event_queue.worker_stats WHERE job_name = 'x')), 'a job runs');
sql('ALTER SYSTEM SET event_queue.executors = 0');
$node->reload;
sql('INSERT INTO may_end VALUES (true)');
soon(q(NOT EXISTS (SELECT FROM event_queue.workers() WHERE kind = 'executor')), 'the executors end');
is(sql(q(SELECT (SELECT count(*) >= 1 FROM event_queue.history WHERE queue = 'long'), count(*) FROM (SELECT failures + stalled AS n FROM event_queue.history WHERE queue = 'long'
	UNION ALL SELECT failures + stalled FROM event_queue.job j JOIN event_queue.queue USING (queue_id) WHERE queue.name = 'long' AND leased_until IS NULL) x WHERE n = 0)), 't|3', 'the job is done, the others wait, nothing is counted');
sql('ALTER SYSTEM RESET event_queue.executors');
$node->reload;
soon(q((SELECT count(*) = 3 FROM event_queue.history WHERE queue = 'long')), 'and go on');

# A dump is loaded into a store that is in service, which holds from then on; or not, if nothing of it is kept.
my $restore = q(SET client_min_messages = error; SET check_function_bodies = off; SET row_security = off;
	BEGIN; INSERT INTO event_queue.queue (queue_id, name) OVERRIDING SYSTEM VALUE VALUES (1000, 'restored'););
my $session = $node->background_psql('postgres');
$session->query_safe($restore);
$node->stop('immediate');
eval { $session->quit };
start_again($node);
is(sql(q(SELECT count(*) FROM event_queue.queue WHERE name = 'restored')), '0', 'a restore that was cut off has left nothing');
is(sql(q(SELECT event_queue.enqueue('q', 'goes on') > 0)), 't', 'and the store is in service');
$session = $node->background_psql('postgres');
$session->query_safe("$restore COMMIT;");
$node->stop('immediate');
eval { $session->quit };
start_again($node);
is(sql(q(SELECT count(*) FROM event_queue.queue WHERE name = 'restored')), '1', 'after its commit its rows are there');
my ($status, $out, $err) = $node->psql('postgres', "SELECT event_queue.enqueue('q', 'too early')");
like($err, qr/this event store is a copy that is not in service/, 'and the store holds');
sql('SELECT event_queue.activate()');
is(sql(q(SELECT count(*) FROM event_queue.claim('q', 100))), '1', 'until it is taken into service');

$node->stop;
is(join("\n", grep { / XX\d{3} |PANIC: |TRAP: |terminated by signal/ } split /\n/, slurp_file($node->logfile)), '', 'nothing broke down');
done_testing();
