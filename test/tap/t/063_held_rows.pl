# A tenant's open transaction that holds the rows of running jobs (cancel_job, a job that
# depends on them) holds up none of the executors for long: other tenants' jobs go on, and
# the held ones are done once when the transaction has ended.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 1
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE ROLE holder LOGIN; CREATE ROLE other LOGIN;
SELECT event_queue.grant_producer('holder', 'a'), event_queue.grant_producer('other', 'b');
CREATE TABLE done (job_id bigint, name text);
CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (false);
-- runs until the gate is open, or for as long as it may
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE job.name = 'slow' AND NOT (SELECT open FROM public.gate) LOOP
		PERFORM pg_sleep(0.02);
	END LOOP;
	INSERT INTO public.done VALUES (job.job_id, job.name);
END $$;
SELECT event_queue.create_queue(q, lease => '10 s', stalled_interval => '1 s', max_stalled => 10), event_queue.create_handler(q, '*', 'work')
FROM unnest('{q1,q2,q3}'::text[]) q;
));

# As many as there are executors, and those that stand in for them.
$node->safe_psql('postgres', q(SELECT event_queue.enqueue(q, 'slow') FROM unnest('{q1,q2}'::text[]) q), extra_params => [ '-U', 'holder' ]);
ok($node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM event_queue.jobs WHERE state = 'leased')), 'all executors are busy');

my $holder = $node->background_psql('postgres', extra_params => [ '-U', 'holder' ]);
$holder->query_safe(q(BEGIN; SELECT event_queue.enqueue('q1', 'behind', depends_on => array_agg(job_id)) FROM event_queue.jobs WHERE state = 'leased'));
$node->safe_psql('postgres', q(UPDATE gate SET open = true));
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('q3', 'quick')), extra_params => [ '-U', 'other' ]);
ok($node->poll_query_until('postgres', q(SELECT EXISTS (SELECT FROM done WHERE name = 'quick'))), 'the other tenant\'s job is done while the transaction is open');
is($node->safe_psql('postgres', q(SELECT count(*) FROM done WHERE name = 'slow')), '0', 'what could not be settled is undone');
is($node->safe_psql('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE usename = 'holder' AND state = 'idle in transaction')), '1', 'it is open yet');

$holder->query_safe('COMMIT');
$holder->quit;
ok($node->poll_query_until('postgres', q(SELECT NOT EXISTS (SELECT FROM event_queue.jobs))), 'all is done at last');
is($node->safe_psql('postgres', q(SELECT name, count(*), count(DISTINCT job_id) FROM done GROUP BY 1 ORDER BY 1)), "behind|1|1\nquick|1|1\nslow|2|2", 'each once');
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.dead_letters)), '0', 'and nothing is dead');
$node->stop;
done_testing();
