# Every snippet of README.md and doc/*.md runs as it stands there: the sql blocks of
# a file one after the other in a database of its own, as a newcomer would type
# them; the js blocks as a worker, if there are node and its package pg.
#
# A comment "... error SQLSTATE ..." says that the next statement fails with it.
# Nothing else may be an ERROR or FATAL, be it in the output or in the server's log.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;
use Time::HiRes qw(sleep time);

my @files = sort glob('docs/*.md');
ok((grep { /README/ } @files) && @files >= 3, 'there are the files: ' . join(', ', @files));

# blocks FILE, LANGUAGE: the fenced blocks of a language
sub blocks
{
	my ($file, $language) = @_;
	my $text = slurp_file($file);
	my @blocks;
	push @blocks, $1 while $text =~ /^```\Q$language\E\n(.*?)^```$/msg;
	return @blocks;
}

# script BLOCKS: what psql runs; a statement ends at a line that ends with ; or \gset
sub script
{
	my $script = "\\set ON_ERROR_STOP 1\n";
	my ($expected, $n);
	foreach my $line (map { split /^/ } @_)
	{
		if ($line =~ /^\s*--.*\berror ([0-9A-Z]{5})\b/)
		{
			$expected = $1;
			$script .= "\\set ON_ERROR_STOP 0\n";
		}
		$script .= $line;
		next if $line =~ /^\s*--/ || $line !~ /(;|\\gset)\s*(--.*)?$/;
		next if !defined $expected;
		$script .= "\\set ON_ERROR_STOP 1\n"
		  . "SELECT :'LAST_ERROR_SQLSTATE' = '$expected' AND :'ERROR' AS as_expected \\gset\n"
		  . "\\if :as_expected\n\\echo as expected: $expected\n\\else\n\\echo must fail with $expected\nSELECT 1/0;\n\\endif\n";
		undef $expected;
	}
	return $script;
}

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
log_line_prefix = '%e '
));
$node->start;

# complaints EXPECTED...: the log's lines since the last call that are not expected
my $seen = 0;
sub complaints
{
	my %expected = map { $_ => 1 } @_;
	my $log = slurp_file($node->logfile, $seen);
	$seen = -s $node->logfile;
	return join("\n", grep { !/^(\w{5}) / || !$expected{$1} } grep { /^\S* *(ERROR|FATAL|PANIC):|terminated by signal/ } split /\n/, $log);
}

# psql SCRIPT, DATABASE: status, output and what it complained of
sub psql
{
	my ($script, $database) = @_;
	my ($stdout, $stderr) = ('', '');
	IPC::Run::run([ 'psql', '-XqAt', '-d', $node->connstr($database) ], '<', \$script, '>', \$stdout, '2>', \$stderr,
		IPC::Run::timeout(120));
	return ($? >> 8, $stdout, $stderr);
}

# The test itself would see a snippet that fails, and one that does not fail.
is((psql(script("SELECT 1;\n-- error 22012\nSELECT 1/0;\nSELECT 2;\n"), 'postgres'))[0], 0, 'an error that is expected');
isnt((psql(script("SELECT 1/0;\nSELECT 2;\n"), 'postgres'))[0], 0, 'one that is not');
isnt((psql(script("-- error EQ001\nSELECT 1/0;\n"), 'postgres'))[0], 0, 'another one');
isnt((psql(script("-- error EQ001\nSELECT 1;\n"), 'postgres'))[0], 0, 'none where one is expected');
isnt(complaints('EQ001'), '', 'and the log is read');

my $n_blocks = 0;
foreach my $file (@files)
{
	my @blocks = blocks($file, 'sql') or next;
	my $script = script(@blocks);
	my @expected = $script =~ /^SELECT :'LAST_ERROR_SQLSTATE' = '(.....)'/mg;
	my ($name) = $file =~ m{([^/]+)\.md$};
	$n_blocks += @blocks;
	$node->safe_psql('postgres', qq(CREATE DATABASE "$name"));
	# The README begins with it; what explains it further takes it as there.
	$node->safe_psql($name, 'CREATE EXTENSION event_queue') unless $script =~ /CREATE EXTENSION event_queue/;
	my ($status, $stdout, $stderr) = psql($script, $name);
	is($status, 0, "$file: " . scalar(@blocks) . ' sql blocks') or diag($stderr);
	my @errors = $stderr =~ /^.*(?:ERROR|FATAL):.*$/mg;
	is(scalar(@errors), scalar(@expected), "$file: no error but those that it names") or diag($stderr);
	is(scalar(() = $stdout =~ /^as expected/mg), scalar(@expected), "$file: and each of these");
	is(complaints(@expected), '', "$file: nothing more in the log");
}
cmp_ok($n_blocks, '>=', 8, 'README has its blocks');

# What README promises of its own objects, a moment later.
ok($node->poll_query_until('README', q(SELECT count(*) >= 1 FROM task)), 'the rule made a task');
is($node->safe_psql('README', q(SELECT count(*) FROM event_queue.fetch_events('projector') WHERE event_type = 'lead.created')), '0',
	'the consumer is done with what it fetched');

my ($program) = grep { -x } map { "$_/node" } split(/:/, $ENV{PATH});
my @js = map { blocks($_, 'js') } @files;
SKIP:
{
	skip 'node is not installed: js blocks are not looked at', 1 if !$program;
	for my $i (0 .. $#js)
	{
		append_to_file("block$i.js", $js[$i]);
		command_ok([ $program, '--check', "block$i.js" ], "js block $i: syntax");
	}

	# The package pg: where NODE_PATH says, or from npm if that can be reached.
	my $has_pg = sub { IPC::Run::run([ $program, '-e', q(require('pg')) ], '>', \my $out, '2>', \my $err) };
	if (!$has_pg->())
	{
		eval {
			IPC::Run::run([ 'npm', 'install', '--no-save', '--no-audit', '--no-fund', '--silent', 'pg@8' ], '>', \my $out, '2>', \my $err,
				IPC::Run::timeout(60));
		};
	}
	skip 'package pg of node can\'t be had: js blocks are not run', 1 if !$has_pg->();

	# A lease that can be lost soon; jobs that a worker does slowly.
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGUSER} = getpwuid($>);
	local $ENV{PGDATABASE} = 'README';
	local $ENV{QUEUE} = 'worked';
	$node->safe_psql('README', q(SELECT event_queue.create_queue('worked', lease => '3 seconds', stalled_interval => '200 ms', keep_completed => '1 hour')));
	my $worker = $js[0];
	# The work of the test: seconds as the payload says, or an error; a line in a file.
	my $work = q(async function send(job) {
  require('fs').appendFileSync('sent', job.payload.n + '\n');
  if (job.payload.error) throw new Error('can not');
  await new Promise((resolve) => setTimeout(resolve, job.payload.ms || 0));
});
	ok($worker =~ s/async function send\(job\) \{.*?^\}/$work/ms, 'the worker has a function send');
	ok($worker =~ s/10000\)/1000)/, 'and a heartbeat, for a lease of 30 s');
	append_to_file('worker.js', $worker);
	my @workers;
	my $start = sub {
		my %w = (out => '', err => '');
		$w{run} = IPC::Run::start([ $program, 'worker.js' ], '>', \$w{out}, '2>', \$w{err});
		push @workers, \%w;
		return \%w;
	};
	my $enqueue = sub {
		my ($n, $first, $more) = @_;
		$node->safe_psql('README', qq(SELECT count(event_queue.enqueue('worked', 'send', jsonb_build_object('n', n) || '$more')) FROM generate_series($first, $first + $n - 1) n));
	};
	my $done = sub { $node->poll_query_until('README', qq(SELECT count(*) = $_[0] FROM event_queue.history WHERE queue = 'worked')) };
	my $sent = sub { my %n; $n{$_}++ foreach split /\n/, slurp_file('sent'); return \%n };

	# Two workers, jobs that take longer than the lease: each is sent once.
	$start->() for 1 .. 2;
	$enqueue->(20, 1, '{"ms": 4000}');
	ok($done->(20), 'twenty slow jobs are done');
	is_deeply([ grep { $_ != 1 } values %{ $sent->() } ], [], 'each was sent once');
	is($node->safe_psql('README', q(SELECT max(stalled) FROM event_queue.history WHERE queue = 'worked')), '0', 'and none stalled');

	# A worker that sleeps is woken, every time.
	my $slowest = 0;
	for my $i (21 .. 40)
	{
		my $begin = time;
		$enqueue->(1, $i, '{}');
		$done->($i);
		$slowest = time - $begin if time - $begin > $slowest;
		sleep(0.01 * ($i % 7));
	}
	cmp_ok($slowest, '<', 3, 'no wake is lost');

	# A job that fails becomes a dead letter with its message.
	$enqueue->(1, 1000, '{"error": true}');
	ok($node->poll_query_until('README', q(SELECT count(*) = 1 FROM event_queue.jobs WHERE queue = 'worked' AND errors -> 0 ->> 'message' = 'can not')),
		'a failure is told');
	$node->safe_psql('README', q(SELECT event_queue.cancel_job(job_id) FROM event_queue.jobs WHERE queue = 'worked'));

	# A worker that loses its lease (it stands still, and another one does its job)
	# goes on, and says nothing of a job that is not its own.
	$enqueue->(1, 2000, '{"ms": 1500}');
	my $holder = q(FROM event_queue.jobs WHERE queue = 'worked' AND payload ->> 'n' = '2000' AND state = 'leased');
	ok($node->poll_query_until('README', qq(SELECT count(*) = 1 $holder)), 'a job is in hand');
	my ($pid) = $node->safe_psql('README', qq(SELECT leased_by $holder)) =~ /(\d+)/;
	kill 'STOP', $pid;
	ok($done->(41), 'another one does it');
	kill 'CONT', $pid;
	is($sent->()->{2000}, 2, 'it was sent twice');
	sleep(1);

	# The server restarts; both workers come back.
	$node->restart;
	$enqueue->(2, 3000, '{"ms": 200}');
	ok($done->(43), 'workers survive a restart of the server');

	# SIGTERM: what is in hand is finished, and nothing stalls.
	$enqueue->(2, 4000, '{"ms": 1500}');
	ok($node->poll_query_until('README', q(SELECT count(*) = 2 FROM event_queue.jobs WHERE queue = 'worked' AND state = 'leased')), 'two jobs in hand');
	$_->{run}->signal('TERM') foreach @workers;
	my @status = map { $_->{run}->finish; $? >> 8 } @workers;
	is_deeply(\@status, [ 0, 0 ], 'workers end well') or diag(map { $_->{err} } @workers);
	ok($done->(45), 'and have finished what they had');
	is(join('', map { grep { !/terminat|ECONN|Connection|shut|starting up/i } split /^/, $_->{err} } @workers), '', 'they complained of the restart only');
	# EQ016: the lost lease; 57P01 to 57P03: the restart.
	is(complaints('EQ016', '57P01', '57P02', '57P03'), '', 'nothing more in the log');
}
done_testing();
