# eventq in hostile surroundings: text that would steer a terminal, no locale, an interrupt
# while a statement runs or a connection is made, limits of the role, a program that is gone.
use strict;
use warnings;
use IO::Socket::INET;
use IPC::Run qw(run start timeout);
use JSON::PP;
use POSIX qw(WNOHANG);
use Time::HiRes qw(sleep time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\n");
$node->start;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;
$ENV{PGDATABASE} = 'postgres';
delete @ENV{qw(PGUSER LC_CTYPE LANG)};
$ENV{LC_ALL} = 'C.UTF-8';
my $dir = PostgreSQL::Test::Utils::tempdir();

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub soon { return ok($node->poll_query_until('postgres', "SELECT $_[0]"), $_[1]) }

sub shell
{
	my ($out, $err) = ('', '');
	run([ 'sh', '-c', $_[0] ], '<', '/dev/null', '>', \$out, '2>', \$err, timeout(180));
	return ($? >> 8, $out, $err);
}

# A program of its own; a signal that the test itself may ignore is not ignored there.
sub begin
{
	my $pid = fork // die "no process: $!";
	return $pid if $pid;
	$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
	open STDIN, '<', '/dev/null';
	open STDOUT, '>', "$dir/out";
	open STDERR, '>', "$dir/err";
	exec @_;
}

# Sends a signal, and says by which one the program ended.
sub ended_by
{
	my ($pid, $signal) = @_;
	kill $signal, $pid;
	for (1 .. 600)
	{
		return $? & 127 if waitpid($pid, WNOHANG) == $pid;
		sleep 0.1;
	}
	kill 'KILL', $pid;
	waitpid $pid, 0;
	return 'went on';
}

sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('mail', max_attempts => 1), event_queue.create_queue('work', keep_completed => '1 day'),
	event_queue.create_queue('cobrança');
SELECT event_queue.enqueue('mail', U&'a\009b31mred\202Eevil', '{}');
));

# ------------------------------------------------------------ terminals
my $steers = qr/\e|\xc2[\x80-\x9f]|\xe2\x80\xae/;
my ($status, $out, $err) = shell('eventq job ls mail');
like($out, qr/a\\x9b31mred\\u202eevil/, 'a table shows what would steer a terminal');
unlike($out, $steers, 'and has none of it');
(undef, $out) = shell('eventq job ls mail -o json');
unlike($out, qr/\xc2[\x80-\x9f]/, 'JSON has no control characters');
is(decode_json($out)->[0]{name}, "a\x{9b}31mred\x{202e}evil", 'and is what was written');
sql(q(SELECT event_queue.append('lead', 'L1', 'lead.made', U&'{"name": "a\009b31m \007f"}')));
(undef, $out) = shell('eventq event tail -o jsonl');
unlike($out, qr/\xc2[\x80-\x9f]|\x7f/, 'nor has JSON of the server');
is(decode_json($out)->{event_data}{name}, "a\x{9b}31m \x7f", 'which is the same');
(undef, undef, $err) = shell(q(eventq work mail --until-empty -- false));
like($err, qr/failed for the last time/, 'the job has failed');
unlike($err, $steers, 'the log of eventq work has none');
sql(q(
SELECT event_queue.enqueue('mail', 'second');
SELECT event_queue.fail(job_id, lease_token, E'box\033[2Jfull') FROM event_queue.claim('mail');
));
sql(q(
SET allow_system_table_mods = on;
CREATE FUNCTION public.nasty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE WARNING '%', U&'beware\009b31m';
	RAISE EXCEPTION '%', U&'no\001b[2Jway\009b' USING DETAIL = U&'one\000atwo\202E', HINT = U&'three\009b';
END $$;
CREATE TRIGGER nasty BEFORE INSERT ON event_queue.queue FOR EACH ROW EXECUTE FUNCTION public.nasty();
));
($status, undef, $err) = shell('eventq queue create other');
like($err, qr/beware\\x9b31m\neventq: no\\x1b\[2Jway\\x9b \(P0001\)\nDETAIL:  one\ntwo\\u202e\nHINT:  three\\x9b\n/, 'an error of the server');
unlike($err, $steers, 'has none either');
sql('SET allow_system_table_mods = on; DROP TRIGGER nasty ON event_queue.queue');
SKIP:
{
	skip 'no program script', 2 if system('command -v script >/dev/null 2>&1') != 0;
	(undef, $out) = shell("script -qec 'eventq job ls -o csv; eventq dead ls -o csv' /dev/null");
	like($out, qr/box\\x1b/, 'CSV on a terminal is shown likewise');
	unlike($out, $steers, 'and does nothing there');
}
(undef, $out) = shell('eventq dead ls -o csv');
like($out, qr/box\e\[2Jfull/, 'elsewhere it is as it was written');
sql(q(SELECT event_queue.create_rule('\.', 'never', queue => 'work', job_name => 'x')));
(undef, $out) = shell('eventq rule ls -o csv');
like($out, qr/^"\\\.",on,/m, 'and COPY does not take a name for the end of its data');

# ------------------------------------------------------------ no locale
(undef, $out) = shell('LC_ALL=C eventq queue ls');
like($out, qr/^cobran\xc3\xa7a +ok /m, 'without a locale data are not made question marks');
(undef, $out) = shell('LC_ALL=C eventq dead ls');
unlike($out, $steers, 'and do not steer a terminal either');

# ------------------------------------------------------------ interrupts
my $dead = sql('SELECT count(*) FROM event_queue.dead_letter');
my $holder = $node->background_psql('postgres');
my %number = (INT => 2, TERM => 15, HUP => 1);
for my $signal (sort keys %number)
{
	$holder->query_safe('BEGIN; SELECT job_id FROM event_queue.dead_letter FOR UPDATE');
	my $discard = begin(qw(eventq dead discard --all --yes));
	soon(q(EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%discard_all_dead%' AND wait_event_type = 'Lock')), "$signal: a statement waits");
	is(ended_by($discard, $signal), $number{$signal}, 'the program ends');
	soon(q(NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'eventq')), 'and its statement with it');
	$holder->query_safe('COMMIT');
	is(sql('SELECT count(*) FROM event_queue.dead_letter'), $dead, 'nothing was discarded');
}
$holder->quit;
my $silent = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die 'cannot listen';
my $connects = begin(qw(eventq work work -h 127.0.0.1 -p), $silent->sockport, qw(-- true));
my $server = $silent->accept;    # and says nothing
is(ended_by($connects, 'INT'), 2, 'eventq work: an interrupt while it connects');


# An interrupt while a password is typed: the terminal shows again what is typed.
SKIP:
{
	skip 'no program script', 1 if system('command -v script >/dev/null 2>&1') != 0;
	sql(q(CREATE ROLE locked LOGIN PASSWORD 'x'));
	my $hba = $node->data_dir . '/pg_hba.conf';
	my $rules = slurp_file($hba);
	unlink $hba;
	append_to_file($hba, "local all locked scram-sha-256\n$rules");
	$node->reload;
	append_to_file("$dir/typing", "trap : INT\neventq queue ls -U locked\necho ended by \$?\nstty -a\n");
	(undef, $out) = shell(qq(
		cd $dir && mkfifo keys && { TERM=vt100 perl -e '\$SIG{INT} = q(DEFAULT); exec \@ARGV' script -qec 'sh $dir/typing' /dev/null <keys >shown & exec 9>keys
		for i in \$(seq 600); do grep -q Password shown && break; sleep 0.1; done
		printf '\\003' >&9; for i in \$(seq 600); do grep -q echonl shown && break; sleep 0.1; done
		exec 9>&-; cat shown; }));
	like($out, qr/ended by 130.* echo\b/s, 'the terminal shows again what is typed') or diag($out);
}

# ------------------------------------------------------------ eventq work
($status, undef, $err) = shell("eventq work work --later=foo -- true");
is("$status|" . ($err =~ /invalid input syntax for type interval/ ? 1 : $err), '1|1', '--later that is no interval');
($status, undef, $err) = shell("eventq work work --later=-5s -- true");
is($err, "eventq: --later must not be negative\n", 'or is negative');
($status, undef, $err) = shell("eventq work work --worker " . ("\xc3\xa7" x 64) . " -- true");
is("$status|$err", "2|eventq: --worker takes at most 127 bytes\n", 'a long name would be cut in the middle of a letter');
mkdir "$dir/directory";
like((shell("eventq work work -- $dir/directory"))[2], qr/no program/, 'a directory is no program');

# In the middle of a deployment the program may be away: that is no failure of the job.
append_to_file("$dir/program", "#!/bin/sh\necho 1\n");
chmod 0755, "$dir/program";
my $job = sql(q(SELECT event_queue.enqueue('work', 'away', delay => '1 s')));
my $said = '';
my $worker = start([ qw(eventq work work --max-jobs 2 --later 100ms --), "$dir/program" ], '<', '/dev/null', '2>', \$said, timeout(180));
$worker->pump until $said =~ /works on queue/;
unlink "$dir/program";
$worker->pump until $said =~ /is tried later/;
append_to_file("$dir/program", "#!/bin/sh\necho 2\n");
chmod 0755, "$dir/program";
$worker->finish;
like($said, qr/could not run ".*": No such file/, 'a program that is away is told');
is(sql("SELECT failures FROM event_queue.jobs WHERE job_id = $job UNION ALL SELECT failures FROM event_queue.history WHERE job_id = $job"), 0, 'the job has not failed');

is((shell('eventq job ls mail --state redy'))[2], qq(eventq: no state "redy": it is one of ready, scheduled, retrying, suspended, blocked, leased, stalled, paused, dead, completed\n),
	'a misspelt state is an error, and not no row');
is((shell("eventq job ls mail --state $_"))[0], 0, "state $_") for qw(ready completed blocked);

# A database whose encoding lacks what a child says: the job held its place for ever.
$node->safe_psql('postgres', q(CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0));
$node->safe_psql('narrow', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('work', max_attempts => 1);
SELECT event_queue.enqueue('work', 'first'), event_queue.enqueue('work', 'second')));
($status, undef, $err) = shell(q(eventq -d narrow work work --until-empty -- sh -c 'if [ $EVENTQ_NAME = first ]; then printf "a \346\274\242" >&2; exit 1; else printf "\346\274\242"; fi'));
is($status, 0, 'characters that the database has not: it goes on') or diag($err);
is($node->safe_psql('narrow', q(SELECT string_agg(name || ': ' || left(last_error, 14), ', ' ORDER BY job_id) FROM event_queue.dead_letters)),
	'first: a ???, second: result refused', 'and the jobs have failed');

# ------------------------------------------------------------ limits of the role
$ENV{PGOPTIONS} = '-c statement_timeout=1s';
my $seen = '';
my $tail = start([qw(eventq event tail --follow --count 0)], '<', '/dev/null', '>', \$seen, '2>', \$said, timeout(180));
soon(q(EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%wait_for_events%' AND state = 'active' AND query_start < clock_timestamp() - interval '2 s')),
	'event tail --follow waits longer than statement_timeout');
sql(q(SELECT event_queue.append('lead', 'L1', 'lead.late')));
$tail->pump until $seen =~ /lead\.late/ || !$tail->pumpable;
like($seen, qr/lead\.late/, 'and shows what comes');
$tail->kill_kill;

done_testing();
