# A session's statement_timeout holds also while test_rule or explain_rule evaluates a
# condition, which has a time limit of its own: the one that ends first counts.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.condition_timeout = '1 h'
));
$node->start;
my $id = $node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
-- says so if nothing has stopped it
CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(4); RAISE WARNING 'nothing has stopped it'; RETURN true; END $$;
CREATE FUNCTION bad() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'bad'; END $$;
SELECT event_queue.create_queue('q') > 0;
SELECT event_queue.create_rule(c, 'x', 'public.' || c || '()', queue => 'q', job_name => 'j', payload => '{}') > 0
FROM unnest('{slow,bad}'::text[]) c;
SELECT event_queue.pause_rule(c) FROM unnest('{slow,bad}'::text[]) c;
SELECT (event_queue.append('a', '1', 'x')).id;
)) =~ /([0-9a-f-]{36})\s*\z/ ? $1 : die;

sub told
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0);
	return "$out$err";
}

for my $call ("test_rule('slow', from_position => 0)", "explain_rule('slow', '$id')", q(compare_rule('slow', '{"condition": "public.slow()"}', from_position => 0)))
{
	my $told = told("SET statement_timeout = '300 ms'; SELECT * FROM event_queue.$call");
	like($told, qr/ERROR:  canceling statement due to statement timeout/, "$call is cancelled");
	unlike($told, qr/nothing has stopped it/, 'when the timeout ends');
}

# A condition that fails, or ends, leaves the timeout as it was.
for my $rule ('bad', 'slow')
{
	my $told = told("SET statement_timeout = '60 s'; SELECT outcome FROM event_queue.test_rule('$rule', from_position => 0); SHOW statement_timeout;
		SET statement_timeout = '6 s'; SELECT outcome, pg_sleep(100) FROM event_queue.test_rule('$rule', from_position => 0)");
	like($told, qr/(error|failed|matched|bad).*1min/s, "$rule is evaluated");
	like($told, qr/ERROR:  canceling statement due to statement timeout/, 'and the timeout ends what comes after it');
}
$node->stop;
done_testing();
