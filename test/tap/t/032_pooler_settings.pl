# The settings for PgBouncer that doc/operations.md gives, as they stand there but for
# where the server is: with the pool of the sleepers full, the others work.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;

my ($program) = grep { -x } map { "$_/pgbouncer" } split(/:/, $ENV{PATH}), '/usr/sbin';
plan skip_all => 'pgbouncer is not installed (package pgbouncer)' if !$program;
plan skip_all => 'pgbouncer does not run as root' if $> == 0;
plan skip_all => 'docs/operations.md is not here' if !-e 'docs/operations.md';

my ($ini) = slurp_file('docs/operations.md') =~ /^## PgBouncer\n.*?^```ini\n(.*?)^```/ms;
ok($ini, 'the settings are there');
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 0
max_connections = 60
));
$node->start;
$node->safe_psql('postgres', q(CREATE DATABASE app));
$node->safe_psql('app', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('q');));

my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $user = getpwuid($>);
my ($server_host, $server_port) = ($node->host, $node->port);
cmp_ok(($ini =~ s/host=127\.0\.0\.1 port=5432/host=$server_host port=$server_port user=$user/g), '==', 2, 'two pools');
append_to_file("$dir/pgbouncer.ini", "$ini
listen_addr =
listen_port = $port
unix_socket_dir = $dir
logfile = $dir/log
auth_type = any
");
my $pooler = IPC::Run::start([ $program, '-q', "$dir/pgbouncer.ini" ], '<', \my $in, '>', \my $out, '2>', \my $err);
END { $pooler->kill_kill if $pooler }
sub pooled { return "host=$dir port=$port dbname=$_[0] user=$user" }
sub once
{
	my ($database, $sql) = @_;
	IPC::Run::run([ 'psql', '-XqAt', '-d', pooled($database), '-c', $sql ], '>', \my $out, '2>', \my $err, IPC::Run::timeout(60));
	chomp $out;
	return $out;
}
my $up = 0;
for (1 .. 100)
{
	last if $up = once('app', 'SELECT 1') eq '1';
	select(undef, undef, undef, 0.1);
}
ok($up, 'pgbouncer takes them') or BAIL_OUT(-f "$dir/log" ? slurp_file("$dir/log") : '');

# More sleepers than the pool has connections.
my @sleepers = map {
	my $o = '';
	{ out => \$o, run => IPC::Run::start([ 'psql', '-XqAt', '-d', pooled('app_wait'), '-c', q(CALL event_queue.claim_wait('q', 1, '20 seconds')) ], '>', \$o, '2>', \my $e) }
} 1 .. 22;
ok($node->poll_query_until('app', q(SELECT count(*) = 20 FROM pg_stat_activity WHERE query LIKE 'CALL event_queue.claim_wait%' AND wait_event = 'Extension')),
	'twenty sleep in their pool');
is(once('app', q(SELECT event_queue.enqueue('q', 'job') > 0)), 't', 'the others work');
is(once('app', q(BEGIN; SET LOCAL event_queue.tenant = 't'; SELECT event_queue.enqueue('q', 'of a tenant') > 0; COMMIT)) =~ s/\s//gr, 't', 'with a tenant by SET LOCAL');
is(once('app', q(SELECT coalesce(event_queue.current_tenant(), 'none'))), 'none', 'which is gone with the transaction');
once('app', q(SELECT count(event_queue.enqueue('q', 'job')) FROM generate_series(1, 20)));
$_->{run}->finish foreach @sleepers;
is(scalar(grep { ${ $_->{out} } =~ /"job_id"/ } @sleepers), 22, 'each sleeper got a job, those that waited for a connection, too');
$pooler->kill_kill;
undef $pooler;
$node->stop;
done_testing();
