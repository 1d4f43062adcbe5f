# A clock that was three hours ahead is set right while the server runs: schedules, retries,
# leases, keys with a rate and the scheduler's own sleeps go on.
use strict;
use warnings;
use Config;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# A library between the server and gettimeofday, which is ahead by what a file says.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $shim = "$dir/clock.so";
append_to_file("$dir/clock.c", q(
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead;
__attribute__((constructor)) static void begin(void)
{
	int fd = getenv("EQ_CLOCK") ? open(getenv("EQ_CLOCK"), O_RDONLY) : -1;
	void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
	ahead = at == MAP_FAILED ? NULL : at;
	if (fd >= 0)
		close(fd);
}
int gettimeofday(struct timeval *tv, void *tz)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec + (ahead ? *ahead : 0);
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}
));
my $cc = $ENV{CC} || $Config{cc} || 'cc';
plan skip_all => 'needs a C compiler' if system("$cc -shared -fPIC -o $shim $dir/clock.c >/dev/null 2>&1") != 0;

sub set_clock
{
	open(my $file, '+>', "$dir/ahead.new") or die;
	close $file;
	open($file, -e "$dir/ahead" ? '+<' : '+>', "$dir/ahead") or die;
	syswrite($file, pack('q', $_[0])) or die;
	close $file;
}
my $hours = 3 * 3600;
set_clock($hours);

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 1
event_queue.condition_timeout = 5s
fsync = off
));
{
	local $ENV{LD_PRELOAD} = $shim;
	local $ENV{EQ_CLOCK} = "$dir/ahead";
	$node->start;
}
sub sql { return $node->safe_psql('postgres', $_[0]); }
cmp_ok(sql('SELECT extract(epoch FROM clock_timestamp())'), '>', time + $hours - 60, 'the server is three hours ahead');
sql(q(CREATE EXTENSION event_queue;
	CREATE TABLE seen (name text);
	CREATE FUNCTION h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (job.name)';
	SELECT event_queue.create_queue('ran'), event_queue.create_queue('q', backoff => 'fixed', backoff_delay => '2 seconds'),
		event_queue.create_queue('leased', max_concurrency => 1, lease => '3 seconds'),
		event_queue.create_queue('keys', group_rate_limit => 1, group_rate_interval => '2 seconds');
	SELECT event_queue.create_handler('ran', '*', 'h'),
		event_queue.create_schedule('minutely', '* * * * *', 'ran', 'schedule')));
# a retry, a lease that no one gives back, a key's token, a delay; a job that sleeps
sql(q(SELECT event_queue.create_queue('steps'), event_queue.enqueue('steps', 'sleeps')));
is(sql(q(SELECT event_queue.sleep_job(c, 'a while', '4 seconds') FROM event_queue.claim('steps') c)), 'f', 'a job sleeps');
sql(q(SELECT event_queue.enqueue('q', 'retry'), event_queue.enqueue('leased', 'first'), event_queue.enqueue('leased', 'second'),
	event_queue.enqueue('keys', 'k', group_key => 'k'), event_queue.enqueue('ran', 'later', delay => '4 seconds')));
sql(q(SELECT event_queue.fail(job_id, lease_token, 'no') FROM event_queue.claim('q')));
is(sql(q(SELECT count(*) FROM event_queue.claim('leased'))), '1', 'leased');
$node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE queue = 'keys')) or die;	# its turn has come
is(sql(q(SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('keys'))), '1', 'a token is used');
is(sql(q(SELECT count(*) FROM event_queue.schedule WHERE next_run > clock_timestamp())), '1', 'the schedule waits for its minute');
# a queue is held for some minutes
sql(q(CREATE FUNCTION holds(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ SELECT event_queue.postpone_queue('5 minutes') $$;
	SELECT event_queue.create_queue('held'), event_queue.create_handler('held', 'holds', 'holds'),
		event_queue.enqueue('held', 'holds'), event_queue.enqueue('held', 'waits')));
$node->poll_query_until('postgres', q(SELECT held_until IS NOT NULL FROM event_queue.queue_limits('held'))) or die;
# who waits when the clock is set back waits no longer than it said
my ($out, $err) = ('', '');
my $waiting = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', q(CALL event_queue.claim_wait('q', 1, '3 s', worker => 'w', jobs => NULL)) ],
	'>', \$out, '2>', \$err, IPC::Run::timeout(60));
my $events = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', q(CALL event_queue.wait_for_events(1000000, '3 s', NULL)) ],
	'>', \$out, '2>', \$err, IPC::Run::timeout(60));
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'CALL %' AND wait_event = 'Extension')) or die;
# a window of a key; a handler and a condition that do not end before the clock is there again
my $throttled = q(SELECT event_queue.enqueue('window', 'w', unique_key => 'w', options => '{"unique_mode": "throttle", "unique_window": "1 minute"}'));
sql(q(CREATE FUNCTION sleeps(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(600)';
	SELECT event_queue.create_queue('window'), event_queue.create_queue('long', max_attempts => 1);
	SELECT event_queue.create_handler('long', '*', 'sleeps', time_limit => '5 seconds'),
		event_queue.create_rule('sleeps', 'clock.*', condition => 'pg_sleep(600) IS NULL', queue => 'window', job_name => 'never'),
		event_queue.create_rule('fires', 'clock.*', queue => 'ran', job_name => 'fired', rule_order => 1)));
my $first = sql($throttled);
is(sql(q(SELECT event_queue.cancel_job(job_id) FROM event_queue.jobs WHERE queue = 'window'; ) . $throttled), "cancelled\n$first", 'the window is taken');
sql(q(SELECT event_queue.enqueue('long', 'long'); SELECT event_queue.append('clock', '1', 'clock.set')));
$node->poll_query_until('postgres', q(SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type LIKE 'event_queue %')) or die;

set_clock(0);
cmp_ok(sql('SELECT abs(extract(epoch FROM clock_timestamp()) - ' . time . ')'), '<', 60, 'the clock is right again');
sub comes { my ($sql, $what) = @_; ok($node->poll_query_until('postgres', $sql), $what); }
comes(q(SELECT next_run <= clock_timestamp() + '1 minute' FROM event_queue.schedule), 'the schedule has its next minute');
comes(q(SELECT count(*) = 1 FROM seen WHERE name = 'later'), 'a delayed job runs');
comes(q(SELECT count(*) = 1 FROM event_queue.dead_letter WHERE name = 'long'), 'a handler is ended at its time limit');
comes(q(SELECT count(*) = 1 FROM seen WHERE name = 'fired'), 'a condition is ended, and the next rule fires');
isnt(sql($throttled), $first, 'the window of a key is over, which began at a time to come');
sql(q(SELECT event_queue.drop_rule('sleeps')));
comes(q(SELECT count(*) = 1 FROM event_queue.claim('steps') c WHERE event_queue.sleep_job(c, 'a while', '4 seconds')), 'a job has slept');
comes(q(SELECT count(*) = 1 FROM event_queue.claim('q')), 'a job that failed is tried again');
comes(q(SELECT count(*) = 1 FROM event_queue.claim('leased')), 'a lease runs out');
is(sql(q(SELECT held_until IS NULL FROM event_queue.queue_limits('held'))), 't', 'a queue is not held for three hours more');
is(sql(q(SELECT count(*) FROM event_queue.claim('held', job_names => '{waits}'))), '1', 'its jobs are claimed');
sql(q(SELECT event_queue.enqueue('keys', 'k2', group_key => 'k')));
comes(q(SELECT count(*) = 1 FROM event_queue.claim('keys')), 'a key has its token');
sql(q(SELECT event_queue.enqueue('ran', 'new')));
comes(q(SELECT count(*) = 1 FROM seen WHERE name = 'new'), 'new jobs run');
sql(q(UPDATE event_queue.schedule SET next_run = clock_timestamp() + '1 second'));
comes(q(SELECT count(*) >= 1 FROM seen WHERE name = 'schedule'), 'schedules run');
ok($waiting->finish && $events->finish, 'who waited came back');
like(slurp_file($node->logfile), qr/the clock was set back by 10[78]\d\d seconds/, 'the log says it');
# an executor and a scheduler that end are started again
sql(q(SELECT pg_terminate_backend(pid) FROM event_queue.workers()));
comes(q(SELECT count(*) = 2 FROM event_queue.workers() w JOIN pg_stat_activity a USING (pid)
	WHERE w.kind IN ('scheduler', 'executor') AND a.backend_start > now() - interval '1 minute'), 'workers are started again');

# The same, if the server was down when it was set right.
$node->stop;
set_clock($hours);
{
	local $ENV{LD_PRELOAD} = $shim;
	local $ENV{EQ_CLOCK} = "$dir/ahead";
	$node->start;
}
sql(q(UPDATE event_queue.schedule SET next_run = event_queue.cron_next(cron, time_zone, clock_timestamp());
	SELECT event_queue.enqueue('ran', 'down', delay => '3 seconds')));
$node->stop;
set_clock(0);
$node->start;
comes(q(SELECT next_run <= clock_timestamp() + '1 minute' FROM event_queue.schedule), 'after a restart the schedule has its next minute');
comes(q(SELECT count(*) = 1 FROM seen WHERE name = 'down'), 'and a delayed job runs');
$node->stop;
done_testing();
