# The queue through pgbouncer in transaction mode: what works, and what must not be
# used: LISTEN, leases of the session, settings of the session.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;

my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
plan skip_all => 'pgbouncer is not installed (package pgbouncer)' if !$program;
plan skip_all => 'pgbouncer does not run as root' if $> == 0;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 0
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q', lease => '1 hour', stalled_interval => '500 ms');
));

# A pool of two server connections, on a unix socket only.
my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = getpwuid($>);
my ($server_host, $server_port) = ($node->host, $node->port);
append_to_file("$dir/pgbouncer.ini", qq(
[databases]
postgres = host=$server_host port=$server_port dbname=postgres user=$user
[pgbouncer]
listen_addr =
listen_port = $port
unix_socket_dir = $dir
logfile = $dir/log
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = options
));
my ($in, $out, $err) = ('', '', '');
my $pooler = IPC::Run::start([ $program, '-q', "$dir/pgbouncer.ini" ], '<', \$in, '>', \$out, '2>', \$err);
END { $pooler->kill_kill if $pooler }

my $pooled = "host=$dir port=$port dbname=postgres user=$user";
# once(SQL) as a client of its own through the pooler; what it prints, and errors
sub once
{
	my ($sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XqAt', '-d', $pooled, '-c', $sql ], '>', \$out, '2>', \$err);
	chomp $out;
	return wantarray ? ($out, $err) : $out;
}
# client(): one that stays, with a client's method to ask
sub client
{
	my ($in, $out, $err) = ('', '', '');
	my $client = { in => \$in, out => \$out, err => \$err };
	$client->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $pooled ], '<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return $client;
}
sub ask
{
	my ($client, $sql) = @_;
	${ $client->{out} } = '';
	${ $client->{in} } .= "$sql;\n\\echo end\n";
	$client->{run}->pump until ${ $client->{out} } =~ /^end$/m;
	my ($answer) = ${ $client->{out} } =~ /\A(.*?)\n?end\n/s;
	return $answer;
}
# waiting(SQL): a client in the middle of it, as seen by the server
sub waiting
{
	my ($call, $out) = (shift, '');
	my $client = { out => \$out };
	$client->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $pooled, '-c', $call ], '>', \$out, '2>', \my $err);
	return $client;
}
my $asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL event_queue.%' AND state = 'active'
	AND wait_event = 'Extension' AND backend_xmin IS NULL AND backend_xid IS NULL";
sub state_of { $node->safe_psql('postgres', "SELECT coalesce(string_agg(state, ','), 'gone') FROM event_queue.jobs WHERE name = '$_[0]'") }

my $up = 0;
for (1 .. 100)
{
	last if $up = (scalar once('SELECT 1')) eq '1';
	last if !$pooler->pumpable;
	select(undef, undef, undef, 0.1);
}
if (!$up)
{
	$node->stop;
	plan skip_all => 'pgbouncer does not start: ' . (-f "$dir/log" ? slurp_file("$dir/log") : '') . $err;
}

# A client's transactions go to any server connection: the second client's open
# transaction takes the one that the first has just used.
my ($a, $b) = (client(), client());
my $first = ask($a, 'SELECT pg_backend_pid()');
is(ask($b, 'BEGIN; SELECT pg_backend_pid()'), $first, 'another transaction takes the server connection');
isnt(ask($a, 'SELECT pg_backend_pid()'), $first, 'and the client gets another');

# Leases belong to their token, not to a session.
ask($b, 'COMMIT');
is(ask($a, "SELECT event_queue.enqueue('q', 'one') > 0"), 't', 'enqueue');
my $receipt = ask($a, "SELECT pg_backend_pid() || '|' || job_id || '|' || lease_token FROM event_queue.claim('q')");
my ($pid, $job, $token) = split /\|/, $receipt;
is(ask($b, 'BEGIN; SELECT pg_backend_pid()'), $pid, 'the session of the claim is now in use by another');
isnt(ask($a, "SELECT pg_backend_pid() FROM event_queue.extend_lease($job, '$token')"), $pid, 'a heartbeat through another session');
is(ask($a, "SELECT event_queue.complete($job, '$token')"), 't', 'and complete');
is(state_of('one'), 'gone', 'are as good');
ask($b, 'COMMIT');
ask($b, "BEGIN; SELECT event_queue.enqueue('q', 'undone'); ROLLBACK");
is(state_of('undone'), 'gone', 'a rollback takes its jobs back');

# Drivers that prepare without a name need nothing special; 8 clients, 2 servers.
append_to_file("$dir/work.sql", q(SELECT event_queue.enqueue('q', 'bench', '{"n": 1}');
SELECT event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('q', 10) c;
));
for my $protocol ('simple', 'extended')
{
	command_ok([ 'pgbench', '-n', '-M', $protocol, '-c', 8, '-t', 25, '-f', "$dir/work.sql", $pooled ], "the $protocol protocol");
}
$node->safe_psql('postgres', q(SELECT event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('q', 1000) c));
is(state_of('bench'), 'gone', 'no job is left over');

# claim_wait sleeps in a server connection and is woken by a commit.
my $waiter = waiting("CALL event_queue.claim_wait('q', 1, '60 s')");
ok($node->poll_query_until('postgres', "$asleep", '1'), 'claim_wait sleeps, without snapshot or transaction id');
once("SELECT event_queue.enqueue('q', 'waited')");
$waiter->{run}->finish;
like(${ $waiter->{out} }, qr/"name": "waited"/, 'and gets the job');
($job, $token) = map { ${ $waiter->{out} } =~ /"$_": "?([0-9a-f-]+)/ } 'job_id', 'lease_token';
is(scalar once("SELECT event_queue.complete($job, '$token')"), 't', 'which another client may complete');
is(state_of('waited'), 'gone', 'as with any lease');
is(scalar once("CALL event_queue.claim_wait('q', 1, '100 ms')"), '[]', 'it ends when its time is over');
$job = once("SELECT event_queue.enqueue('q', 'awaited', delay => '1 hour')");
like(scalar once("CALL event_queue.await_job($job, '100 ms')"), qr/scheduled|waiting/, 'await_job works likewise');
$node->safe_psql('postgres', "SELECT event_queue.cancel_job($job)");
like((once("BEGIN; CALL event_queue.claim_wait('q', 1, '1 s'); COMMIT"))[1], qr/cannot wait for jobs inside a transaction/, 'and not inside a transaction');

# As many sleepers as the pool has connections keep all others out.
my @waiter = map { waiting("CALL event_queue.claim_wait('q', 1, '60 s')") } 1, 2;
ok($node->poll_query_until('postgres', "$asleep", '2'), 'two sleep, and the pool is used up');
my $third = waiting("SELECT 'at last'");
my $queued;
for (1 .. 100)
{
	my $pools = '';
	IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$dir port=$port dbname=pgbouncer user=pgbouncer", '-c', 'SHOW POOLS' ], '>', \$pools, '2>&1');
	last if $queued = $pools =~ /^postgres\|[^|]*\|\d+\|1\|/m;    # clients that wait: 1
	select(undef, undef, undef, 0.1);
}
ok($queued, 'a third client waits for a server connection');

# A client that goes while it sleeps takes no job with it, and frees its server
# connection at once.
my $begin = time;
$waiter[0]{run}->kill_kill;
$third->{run}->finish;
is(${ $third->{out} }, "at last\n", 'a client that goes makes room');
ok(time - $begin < 30, 'at once');
ok($node->poll_query_until('postgres', "$asleep", '1'), 'its session does not sleep on');
$node->safe_psql('postgres', "SELECT event_queue.enqueue('q', 'for the other')");
$waiter[1]{run}->finish;
like(${ $waiter[1]{out} }, qr/"name": "for the other"/, 'the job goes to who is left');
my $direct = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', "CALL event_queue.claim_wait('q', 1, '60 s')" ], '>', \my $none);
ok($node->poll_query_until('postgres', "$asleep", '1'), 'without a pooler');
$direct->kill_kill;
ok($node->poll_query_until('postgres', "$asleep", '0'), 'it is the same');
$node->safe_psql('postgres', "SELECT event_queue.enqueue('q', 'free')");
is(state_of('free'), 'ready', 'and a job that comes is free');
$node->safe_psql('postgres', q(SELECT event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('q', 10) c));

# LISTEN stays with the server connection: the client hears nothing.
ask($a, 'LISTEN "event_queue.q"');
ask($b, 'BEGIN; SELECT 1');
is(ask($a, 'SELECT count(*) FROM pg_listening_channels()'), '0', 'LISTEN is lost with the next transaction');
ask($b, 'ROLLBACK');

# So do leases of the session: the worker's end does not give the jobs back, but
# the end of a server connection does, when its worker is still at it.
once("SELECT event_queue.enqueue('q', 'bound')");
$receipt = once("SELECT job_id || '|' || lease_token FROM event_queue.claim('q', session_bound => true)");
is(state_of('bound'), 'leased', 'session_bound: the worker has gone, and its job is still leased');
IPC::Run::run([ 'psql', '-XqAt', '-d', "host=$dir port=$port dbname=pgbouncer user=pgbouncer", '-c', 'RECONNECT' ]);
ok($node->poll_query_until('postgres', q(SELECT state = 'ready' FROM event_queue.jobs WHERE name = 'bound')), 'and goes back when the pooler closes the connection');

# A tenant is named by the call, or by SET LOCAL in the same transaction.
is(ask($a, "BEGIN; SET LOCAL event_queue.tenant = 'acme'; SELECT event_queue.enqueue('q', 'of acme') > 0; COMMIT"), 't', 'SET LOCAL');
is($node->safe_psql('postgres', q(SELECT tenant_id FROM event_queue.jobs WHERE name = 'of acme')), 'acme', 'names the tenant');
is(scalar once("SELECT current_setting('event_queue.tenant')"), '', 'and leaves nothing for the next client');

$_->{run}->kill_kill for $a, $b;
$pooler->kill_kill;
undef $pooler;
$node->stop;
done_testing();
