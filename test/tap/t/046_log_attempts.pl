# event_queue.log_attempts: one line of the log for each run of a job and each event that
# met a rule, in all three formats of the log, whatever users put into names and messages.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 1
log_destination = 'stderr,csvlog,jsonlog'
logging_collector = on
log_directory = 'log'
log_filename = 'server.log'
log_rotation_age = 0
log_rotation_size = 0
event_queue.log_attempts = all
));
$node->start;
my $log = $node->data_dir . '/log/server';

# The message of a job's error has all that could break a line.
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE FUNCTION works(event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$SELECT$$;
CREATE FUNCTION breaks(event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = 'ZZ123', MESSAGE = E'no\n"quote", \\\\ and ''\t= é' || E'\n2026-01-01 LOG:  [processor] queue=forged'; END$$;
SELECT event_queue.create_queue('q', max_attempts => 2, backoff => 'fixed', backoff_delay => '1 ms');
SELECT event_queue.create_queue('outside', max_attempts => 1);
SELECT event_queue.create_handler('q', 'works', 'works'), event_queue.create_handler('q', 'breaks', 'breaks');
SELECT event_queue.create_rule('a rule', 'lead.*', condition => '1 / (event_data ->> ''n'')::int > 0', queue => 'q', job_name => 'works');
));

# What a line says, from each of the three.
sub fields
{
	my ($message) = @_;
	my %f;
	$message =~ /^\[(processor|listener)\]/ or return undef;
	my $rest = substr($message, $+[0]);
	while ($rest =~ /\G (\w+)=("(?:[^"\\]|\\.)*"|[^ "]+)/gc)
	{
		my ($key, $value) = ($1, $2);
		$value = JSON::PP->new->allow_nonref->decode($value) if $value =~ /^"/;
		$f{$key} = $value;
	}
	return { tag => ($message =~ /^\[(\w+)/)[0], whole => (pos($rest) // 0) == length $rest, %f };
}

sub lines
{
	my %lines;
	my $text = slurp_file("$log.log");
	$lines{stderr} = [grep { $_ } map { /LOG:  (\[.*)/ ? fields($1) : undef } split /\n/, $text];
	# Of csvlog a field may have quotes in it; each record here is one line.
	$lines{csv} = [];
	for my $record (split /\n/, slurp_file("$log.csv"))
	{
		my @cells;
		push @cells, defined $1 ? $1 =~ s/""/"/gr : $2 while $record =~ /\G(?:"((?:[^"]|"")*)"|([^,]*))(?:,|$)/gc && @cells < 30 && pos($record) < length $record;
		my $f = defined $cells[13] ? fields($cells[13]) : undef;
		push @{ $lines{csv} }, $f if $f;
	}
	$lines{json} = [grep { $_ } map { my $r = decode_json($_); fields($r->{message} =~ s/([^\x00-\x7f])/my $c = $1; utf8::encode($c); $c/ger) }
			split /\n/, slurp_file("$log.json")];
	return %lines;
}

# Waits for so many lines that the filter lets through, in each format; those of the first.
sub wait_for
{
	my ($n, $name, %want) = @_;
	my %found;
	for (1 .. 200)
	{
		my %lines = lines();
		%found = map {
			my $format = $_;
			$format => [grep { my $f = $_; !grep { ($f->{$_} // '') ne $want{$_} } keys %want } @{ $lines{$format} }]
		} keys %lines;
		last unless grep { @{ $found{$_} } < $n } keys %found;
		select undef, undef, undef, 0.1;
	}
	is(scalar @{ $found{$_} }, $n, "$name: lines in $_") for qw(stderr csv json);
	is_deeply($found{csv}, $found{stderr}, "$name: csvlog says the same");
	is_deeply($found{json}, $found{stderr}, "$name: jsonlog says the same");
	return @{ $found{stderr} };
}

my ($good, $bad) = split /\|/, $node->safe_psql('postgres',
	"SELECT event_queue.enqueue('q', 'works', tenant_id => 'a b'), event_queue.enqueue('q', 'breaks', options => '{\"metadata\": {\"correlation_id\": \"chain 7\"}}')");
my ($line) = wait_for(1, 'a job that is done', id => $good, tag => 'processor');
is_deeply([@$line{qw(queue job tenant attempt outcome whole)}], ['q', 'works', 'a b', 1, 'completed', 1], 'what it says');
like($line->{ms}, qr/^\d+\.\d{3}$/, 'how long it took');
like($line->{worker}, qr/^event_queue executor 0$/, 'who did it');
ok(!exists $line->{sqlstate} && !exists $line->{error}, 'no error');

my @lines = wait_for(2, 'a job that fails', id => $bad, tag => 'processor');
is_deeply([map { "$_->{attempt} $_->{outcome} $_->{sqlstate} $_->{correlation_id}" } @lines],
	['1 failed ZZ123 chain 7', '2 dead ZZ123 chain 7'], 'each attempt, what became of it, and the chain');
like($lines[0]{error}, qr/^no\n"quote", \\ and '\t= .*\n2026-01-01 LOG:  \[processor\] queue=forged$/, 'its message is whole, and on one line');
my %all = lines();
ok(!grep({ ($_->{queue} // '') eq 'forged' } map { @$_ } values %all), 'no message can forge a line');

$node->safe_psql('postgres', q(SELECT event_queue.append('lead', 'x', 'lead.new', '{"n": 1}'), event_queue.append('lead', 'y', 'lead.new', '{"n": 0}'),
	event_queue.append('lead', 'z', 'other', '{"n": 0}')));
@lines = wait_for(2, 'events that met a rule', tag => 'listener');
is_deeply([map { join ' ', @$_{qw(rule event tenant outcome)}, $_->{sqlstate} // '-' } sort { $a->{position} <=> $b->{position} } @lines],
	['a rule lead.new default matched -', 'a rule lead.new default failed 22012'], 'what they say');
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.event_store WHERE id = '$lines[0]{id}' AND position = $lines[0]{position}"), 1, 'and of which event');
is($lines[0]{correlation_id}, $lines[0]{id}, 'the first event of a chain names it');

# Workers outside: when they settle.
$node->safe_psql('postgres', q(
SELECT event_queue.enqueue('outside', 'o') FROM generate_series(1, 3);
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('outside', 1, worker => 'robot');
SELECT event_queue.fail(job_id, lease_token, E'two\nlines', 'ZZ001') FROM event_queue.claim('outside', 1, worker => 'robot');
));
my $silent = $node->safe_psql('postgres', q(
SET client_min_messages = debug1;
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('outside', 1, worker => 'robot');
), extra_params => ['-q']);
@lines = wait_for(3, 'a worker outside', queue => 'outside', tag => 'processor');
is_deeply([map { join ' ', @$_{qw(worker outcome)}, $_->{sqlstate} // '-', $_->{error} // '-' } @lines],
	['robot completed - -', "robot dead ZZ001 two\nlines", 'robot completed - -'], 'what they say');

# In the session of run_jobs.
$node->safe_psql('postgres', q(
SELECT event_queue.pause_queue('q');
SELECT event_queue.create_queue('own');
BEGIN;
SELECT event_queue.create_handler('own', '*', 'breaks');
SELECT event_queue.enqueue('own', 'mine');
SELECT * FROM event_queue.run_jobs('own', 10);
ROLLBACK;
));
($line) = wait_for(1, 'run_jobs', queue => 'own');
is($line->{outcome}, 'failed', 'once');

# By default failures only, and none of workers outside.
$node->append_conf('postgresql.conf', "event_queue.log_attempts = failures");
$node->reload;
$node->safe_psql('postgres', q(
SELECT event_queue.resume_queue('q');
SELECT event_queue.create_queue('quiet', max_attempts => 1), event_queue.create_queue('quiet outside', max_attempts => 1);
SELECT event_queue.create_handler('quiet', 'works', 'works'), event_queue.create_handler('quiet', 'breaks', 'breaks');
SELECT event_queue.enqueue('quiet outside', 'o');
));
ok($node->poll_query_until('postgres', "SHOW event_queue.log_attempts", 'failures'), 'changed without a restart');
$node->safe_psql('postgres', q(
SELECT event_queue.fail(job_id, lease_token, 'no') FROM event_queue.claim('quiet outside');
SELECT event_queue.enqueue('quiet', 'works');
));
ok($node->poll_query_until('postgres', "SELECT count(*) FROM event_queue.jobs WHERE queue = 'quiet'", '0'), 'one is done');
$node->safe_psql('postgres', "SELECT event_queue.enqueue('quiet', 'breaks')");
($line) = wait_for(1, 'failures', queue => 'quiet');
is($line->{job}, 'breaks', 'the one that failed');
%all = lines();
is(scalar(grep { ($_->{queue} // '') eq 'quiet outside' } @{ $all{json} }), 0, 'what a worker outside reports is its own to log');

$node->append_conf('postgresql.conf', "event_queue.log_attempts = off");
$node->reload;
ok($node->poll_query_until('postgres', "SHOW event_queue.log_attempts", 'off'), 'off');
$node->safe_psql('postgres', "SELECT pg_sleep(0.2), event_queue.enqueue('quiet', 'breaks')");
ok($node->poll_query_until('postgres', "SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'quiet'", '2'), 'one fails');
wait_for(1, 'off', queue => 'quiet');

$node->stop;
done_testing();
