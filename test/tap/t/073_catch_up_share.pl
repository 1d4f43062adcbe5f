# A rule that catches up gets its turn while events that come fill every batch of the rule runner.
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
# A condition that takes a while, but not so long that its rule is put aside: a batch has ten events.
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.06); RETURN true; END $$;
SELECT event_queue.create_queue('q'), event_queue.pause_queue('q');
SELECT event_queue.append('old', n::text, 'old.made') FROM generate_series(1, 20) n;
SELECT event_queue.create_rule('slow', 'new.made', 'public.slow()', queue => 'q', job_name => 'slow');
SELECT event_queue.append('new', n::text, 'new.made') FROM generate_series(1, 150) n;
SELECT event_queue.create_rule('behind', 'old.made', queue => 'q', job_name => 'behind', start => 'beginning');
));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 20 FROM event_queue.job WHERE name = 'behind')), 'the rule that was behind has met its events');
cmp_ok($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.job WHERE name = 'slow')), '<', 120, 'before the others had met all of theirs');
ok($node->poll_query_until('postgres', q(SELECT count(*) = 150 FROM event_queue.job WHERE name = 'slow')), 'which they do');
$node->stop;
done_testing();
