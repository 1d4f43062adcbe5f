# A new library over the SQL of an older version: nothing runs, every function and the log
# say what to type, and what stands in the way of the update is named.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub error_of
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:  (\w+: .*)/s ? $1 : "none: $out";
}
my $due = qr/^EQ045: extension event_queue is of version 0\.1\.0, .*HINT:  ALTER EXTENSION event_queue UPDATE/s;

sql(q(CREATE EXTENSION event_queue VERSION '0.1.0'));
is(sql(q(SELECT extversion <> event_queue.version() FROM pg_extension WHERE extname = 'event_queue')), 't', 'two versions');

# Each C function of the old version, however it is called: the server asks for it as
# CREATE FUNCTION does.
my @symbols = split /\n/, sql(q(SELECT DISTINCT p.prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE l.lanname = 'c' AND p.probin = '$libdir/event_queue' AND p.prosrc <> 'eq_version' ORDER BY 1));
cmp_ok(scalar(@symbols), '>=', 60, 'C functions');
my @let = grep { error_of("CREATE FUNCTION public.f() RETURNS int LANGUAGE C AS '\$libdir/event_queue', '$_'") !~ $due } @symbols;
is("@let", '', 'none can be called');
for my $call (q(SELECT event_queue.enqueue('q', 'n')), q(SELECT event_queue.append('a', '1', 'x')), q(SELECT * FROM event_queue.claim('q')),
	q(SELECT * FROM event_queue.health()), q(SELECT event_queue.create_queue('q')), q(INSERT INTO event_queue.queue (name) VALUES ('q')),
	q(CALL event_queue.wait_for_events(0, '1 second')))
{
	like(error_of($call), $due, $call);
}
sql(q(CREATE ROLE reader; GRANT USAGE ON SCHEMA event_queue TO reader; GRANT SELECT ON event_queue.event_store TO reader));
is(sql(q(SELECT count(*) FROM event_queue.event_store)), '0', 'tables can be read');
like(error_of(q(SET ROLE reader; SELECT count(*) FROM event_queue.event_store)), $due, 'but not by who sees a part of them');
sql(q(CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ADD COLUMN x int DEFAULT 1; CREATE SUBSCRIPTION s CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false);
	ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s; CREATE DATABASE other));
pass('other statements work');

# Workers
ok($node->poll_query_until('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_queue scheduler'), '1'), 'the scheduler is there');
sleep 6;
is(sql(q(SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^event_queue (executor|rule|keeper)')), '0', 'no other worker runs');
my $log = slurp_file($node->logfile);
like($log, qr/LOG:  extension event_queue of database \d+ is of version 0\.1\.0, and the library of [0-9.]+: nothing runs\n.*HINT:  ALTER EXTENSION event_queue UPDATE/,
	'the log says it');
is(scalar(() = $log =~ /nothing runs/g), 1, 'once');

# What stands in the way is named, and nothing is changed.
sql(q(CREATE MATERIALIZED VIEW kept AS SELECT job_id, queue FROM event_queue.jobs));
like(error_of('ALTER EXTENSION event_queue UPDATE'), qr/^2BP01: cannot drop view event_queue\.jobs.*materialized view public\.kept depends on/s, 'a materialized view is in the way');
sql('DROP MATERIALIZED VIEW kept');
sql(q(CREATE FUNCTION mine() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT "check" FROM event_queue.health() LIMIT 1; END));
like(error_of('ALTER EXTENSION event_queue UPDATE'), qr/^2BP01: cannot drop function health\(\).*function public\.mine\(\) depends on/s, 'so is a function that stands on one of ours');
sql('DROP FUNCTION mine()');
sql(q(CREATE VIEW mine AS SELECT stalled_interval FROM event_queue.queue; CREATE VIEW gone AS SELECT time_limit FROM event_queue.claim('q')));
like(error_of('ALTER EXTENSION event_queue UPDATE'), qr/gone/, 'and a view on what is gone');
sql('DROP VIEW gone');
like(error_of(q(SELECT event_queue.enqueue('q', 'n'))), $due, 'it is still the old version');
is(sql(q(SELECT count(*) FROM pg_class WHERE relname = 'update_keeps')), '0', 'nothing is left of the attempts');

# An update that is rolled back; a session whose functions were looked up in it.
is(error_of(q(BEGIN; ALTER EXTENSION event_queue UPDATE; SELECT event_queue.create_queue('q') > 0; ROLLBACK; SELECT event_queue.create_queue('q'))) =~ $due ? 't' : 'f', 't',
	'rolled back, it is the old version again');
sql('ALTER EXTENSION event_queue UPDATE');
is(sql(q(SELECT extversion = event_queue.version() FROM pg_extension WHERE extname = 'event_queue')), 't', 'the update');
ok($node->poll_query_until('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_queue executor'), '2'), 'the executors run');
is(sql(q(SELECT event_queue.create_queue('q') > 0, event_queue.enqueue('q', 'n') > 0)), 't|t', 'functions work');
like(sql(q(SELECT count(*) FROM mine)), qr/^\d+$/, 'a view on a table of ours stays');

# With workers running, an update that is none.
like(error_of(q(ALTER EXTENSION event_queue UPDATE TO '9.9')), qr/^22023: extension "event_queue" has no update path/, 'no other version');
$node->restart;
ok($node->poll_query_until('postgres', q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'event_queue executor'), '2'), 'after a restart, too');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:|terminated by signal|deadlock detected/, 'no crash and no deadlock');
$node->stop;
done_testing();
