# An executor that keeps more memory than event_queue.executor_memory is replaced, and no
# job is lost, run twice or counted as failed by that.
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
event_queue.executor_memory = 0
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (job bigint, pid int);
CREATE FUNCTION note(j event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.done VALUES (j.job_id, pg_backend_pid()) $$;
SELECT event_queue.create_queue('q', keep_completed => '1 day');
SELECT event_queue.create_handler('q', '*', 'note');
));

# run 350 jobs; how many processes they had
sub processes
{
	$node->safe_psql('postgres', q(TRUNCATE done; SELECT count(event_queue.enqueue('q', 'j')) FROM generate_series(1, 350)));
	ok($node->poll_query_until('postgres', q(SELECT count(*) >= 350 FROM done)), 'all jobs are done');
	is($node->safe_psql('postgres', q(SELECT count(*), count(DISTINCT job) FROM done)), '350|350', 'each once');
	return $node->safe_psql('postgres', q(SELECT count(DISTINCT pid) FROM done));
}

is(processes(), '1', 'without a limit one process does all');
# any process keeps more than this
$node->safe_psql('postgres', q(ALTER SYSTEM SET event_queue.executor_memory = '1 kB'));
$node->reload;
ok($node->poll_query_until('postgres', q(SHOW event_queue.executor_memory), '1kB'), 'the limit is set');
cmp_ok(processes(), '>=', 2, 'with one others take its place');
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.history WHERE queue = 'q' AND failures + stalled > 0)), '0', 'and no attempt is counted');
$node->stop;
done_testing();
