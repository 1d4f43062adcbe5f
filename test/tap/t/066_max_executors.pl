# max_executors of a handler: so many executors run its jobs and no more, the others do
# the rest; and those that stand in may be among them.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 3
max_worker_processes = 20
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE run (name text, began timestamptz, ended timestamptz);
CREATE FUNCTION handle(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
BEGIN
	PERFORM pg_sleep((job.payload ->> 's')::float8);
	INSERT INTO public.run VALUES (job.name, began, clock_timestamp());
END
$$;
SELECT event_queue.create_queue('q');
));
my $overlap = q(SELECT max(n) FROM (SELECT (SELECT count(*) FROM run b WHERE b.name = a.name AND b.began <= a.began AND b.ended > a.began) AS n
	FROM run a WHERE name LIKE 'slow%') x);

# Beside a handler for all other jobs, and as that one.
for my $case (['slow', '*', 1], ['slow', '*', 2], ['*', 'quick', 1])
{
	my ($limited, $other, $most) = @$case;

	$node->safe_psql('postgres', qq(
		TRUNCATE run;
		SELECT event_queue.create_handler('q', '$limited', 'handle', max_executors => $most),
			event_queue.create_handler('q', '$other', 'handle');
		SELECT event_queue.enqueue('q', CASE WHEN g <= 6 THEN 'slow' ELSE 'quick' END, jsonb_build_object('s', CASE WHEN g <= 6 THEN 0.5 ELSE 0 END))
		FROM generate_series(1, 60) g;));
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 60 FROM run'), "$limited, $other: all are done");
	is($node->safe_psql('postgres', $overlap), $most, "by $most at once");
	is($node->safe_psql('postgres', q(SELECT count(*) > 50 FROM run WHERE name = 'quick' AND began < (SELECT max(ended) FROM run WHERE name = 'slow'))), 't',
		'the others do not wait for these');
	$node->safe_psql('postgres', "SELECT event_queue.drop_handler('q', '*'), event_queue.drop_handler('q', '$_')")
		for grep { $_ ne '*' } ($limited, $other);
}

# One executor, and one that stands in: the handler says that it may.
$node->append_conf('postgresql.conf', 'event_queue.executors = 1');
$node->restart;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 1 FROM event_queue.workers() WHERE kind IN ('executor', 'stand-in'))), 'one executor is left');
for my $case (['', 1], [', max_executors => 2', 2])
{
	my ($argument, $most) = @$case;

	$node->safe_psql('postgres', qq(
		TRUNCATE run;
		SELECT event_queue.create_handler('q', 'slow', 'handle'$argument);
		SELECT event_queue.enqueue('q', 'slow', '{"s": 2}') FROM generate_series(1, 4);));
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 4 FROM run'), 'all are done');
	is($node->safe_psql('postgres', $overlap), $most, "by $most at once");
	$node->safe_psql('postgres', "SELECT event_queue.drop_handler('q', 'slow')");
}
done_testing();
