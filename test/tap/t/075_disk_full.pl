# A full disk: users get the server's error, the scheduler goes on and tries what it can't do again, each fault is said once and
# has a line in health(); when there is room again, all goes on and nothing is lost.
#
# The database's tablespace is a small file system of memory, which is mounted in a namespace of the server's own: that
# needs no rights.
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
log_min_messages = log
autovacuum = off
log_statement = none
));
my $small = $node->basedir . '/small';
mkdir $small or die $!;
my $mount = "mount -t tmpfs -o size=64m tmpfs '$small' && exec unshare -U --map-user=$< --map-group=" . ($( + 0);
plan skip_all => 'a file system of a size can not be mounted here: ' . (`unshare -rm true 2>&1` || 'mount fails')
  if system("unshare -rm sh -c \"$mount true\" >/dev/null 2>&1") != 0;
PostgreSQL::Test::Utils::system_log('unshare', '-rm', 'sh', '-c', "$mount pg_ctl -w -D '" . $node->data_dir . "' -l '" . $node->logfile . "' start") == 0 or die 'the server does not start';
$node->_update_pid(1);
sub sql { return $node->safe_psql('erp', $_[0]); }
sub soon
{
	my ($sql, $name) = @_;
	my $ok;
	for (1 .. 5)	# of a minute each
	{
		last if $ok = $node->poll_query_until('erp', "SELECT $sql");
	}
	return ok($ok, $name);
}

# All that the database writes is on it, but for the write-ahead log.
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$small'");
$node->safe_psql('postgres', 'CREATE DATABASE erp TABLESPACE small');
sub let_workers
{
	my ($databases, $there) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET event_queue.databases = '$databases'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT (count(*) > 0) = $there FROM pg_stat_activity WHERE datname = 'erp' AND backend_type LIKE 'event_queue%'") or die;
	return;
}
sql(q(
CREATE EXTENSION event_queue;
CREATE TABLE done (name text, n int, pad text);
ALTER TABLE done ALTER pad SET STORAGE PLAIN;
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.done VALUES (job.name, (job.payload ->> 'n')::int, repeat('x', 2000)) $$;
CREATE FUNCTION nothing(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT event_queue.create_queue('q', max_attempts => 1000, lease => '5 seconds'), event_queue.create_queue('light');
SELECT event_queue.create_handler('q', '*', 'work'), event_queue.create_handler('light', '*', 'nothing');
SELECT event_queue.create_rule('r', 'e.**', queue => 'q', job_name => 'ruled', payload => '{"n": "$.data.n", "pad": "$.data.pad"}');
SELECT event_queue.create_schedule('s', '* * * * * *', 'q', 'scheduled', (SELECT jsonb_build_object('pad', string_agg(md5(n::text), '')) FROM generate_series(1, 2000) n));
));
soon('count(*) > 0 FROM done', 'it works');

# What waits when the disk is full: jobs and events.  (Jobs that do nothing need room, too: their claims are written.)
let_workers('none', 'false');
sql(q(
SELECT event_queue.enqueue('q', 'own', jsonb_build_object('n', n)), event_queue.enqueue('light', 'x') FROM generate_series(1, 300) n;
SELECT event_queue.append('e', n::text, 'e.x', jsonb_build_object('n', n, 'pad', repeat('y', 1500))) FROM generate_series(1, 300) n));
$node->safe_psql('postgres', "COPY (SELECT 1) TO PROGRAM 'dd if=/dev/zero of=$small/filler bs=8k 2>&1; true'");
my ($status, undef, $err) = $node->psql('erp', q(SELECT event_queue.append('e', 'huge', 'e.x', (SELECT jsonb_build_object('n', 0, 'pad', string_agg(md5(n::text), '')) FROM generate_series(1, 10000) n))),
	extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  53100: /, 'who appends is told');
my $log_from = -s $node->logfile;
let_workers('', 'true');

my $scheduler = sql(q(SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler'));
for my $fault ('schedule s', 'rule runner rules')
{
	soon(qq(EXISTS (SELECT FROM event_queue.faults() WHERE what || ' ' || item = '$fault' AND sqlstate = '53100' AND failures >= 3)), "$fault is tried again and again");
	soon(qq(EXISTS (SELECT FROM event_queue.health() WHERE check_name = '$fault' AND NOT ok AND detail ~ 'No space left on device' AND hint ~ 'disk')), 'health() names it, and what to do');
}
is(sql(q(SELECT ok FROM event_queue.health() WHERE check_name = 'scheduler')), 't', 'the scheduler goes on');

# Clients that go on trying, each a bit at a time.
my @acknowledged = grep { ($node->psql('erp', "SELECT event_queue.enqueue('q', 'client', '{\"n\": $_}')"))[0] == 0 } 1 .. 60;
note(scalar(@acknowledged) . ' of 60 had room');

$node->safe_psql('postgres', "COPY (SELECT 1) TO PROGRAM 'rm $small/filler; true'");
soon(q(count(*) = 0 FROM event_queue.faults() WHERE what IN ('schedule', 'rule runner', 'scheduler')), 'there is room: what failed works again');
sql(q(SELECT event_queue.retry_waiting('q')));	# those that were put off
soon(q((SELECT count(*) FROM done WHERE name = 'ruled') = 300 AND (SELECT count(*) FROM done WHERE name = 'own') = 300), 'all that waited is done');
soon(q(NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'light')), 'in each queue');
is(sql(q(SELECT string_agg(DISTINCT name, ' ') FROM (SELECT name FROM done WHERE name <> 'scheduled' GROUP BY name, n HAVING count(*) > 1) x)), '', 'once');
soon(q(NOT EXISTS (SELECT FROM event_queue.jobs WHERE name = 'client')), 'and what clients enqueued meanwhile');
is(sql(q(SELECT coalesce(string_agg(n::text, ',' ORDER BY n), '') FROM done WHERE name = 'client')), join(',', @acknowledged), 'all of it that was acknowledged, and nothing else');
is(sql(q(SELECT count(*) FROM event_queue.dead_letters)), '0', 'no job is dead');
is(sql(q(SELECT count(*), min(version), max(version) FROM event_queue.read_all(max_events => 1000) WHERE event_type = 'e.x')), '300|1|1', 'events are all there');
my $runs = sql('SELECT runs FROM event_queue.schedule');
soon("runs > $runs FROM event_queue.schedule", 'the schedule goes on');
soon('bool_and(ok) FROM event_queue.health()', 'and all is well');
is(sql(q(SELECT pid FROM event_queue.workers() WHERE kind = 'scheduler')), $scheduler, 'it was the same scheduler all the time');

# Once for each change.
my (%fails, %works);
my $log = slurp_file($node->logfile, $log_from);
$fails{$1}{$2}++ while $log =~ /event_queue: (.*?) fails: .*\((\w{5})\)$/mg;
$works{$1}++ while $log =~ /event_queue: (.*) works again$/mg;
cmp_ok(scalar(keys %fails), '>=', 2, 'the log has what fails');
is(join(', ', grep { my $item = $_; grep { $_ > ($works{$item} // 0) } values %{ $fails{$item} } } sort keys %fails), '', 'and once for each time that it works again');
cmp_ok(scalar(() = $log =~ /could not be recorded/g), '<', 100, 'of jobs whose failure could not be recorded, not each');
unlike($log, qr/PANIC|TRAP/, 'nothing worse');
$node->stop;
done_testing();
