# eventq top under a real terminal (tmux): what it shows, its keys, another size of the
# window, a restart of the server; without colour and without UTF-8.
use strict;
use warnings;
use Time::HiRes qw(sleep time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'tmux is not here' if system('command -v tmux >/dev/null 2>&1') != 0;
my ($help) = run_command([ 'eventq', 'top', '--help' ]);
plan skip_all => 'eventq was built without ncurses' if $help !~ /--interval/;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\n");
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('mail', max_attempts => 1), event_queue.create_queue('reports'), event_queue.create_queue('açaí');
SELECT event_queue.enqueue('mail', 'welcome', '{"to": "ana"}') FROM generate_series(1, 3);
SELECT event_queue.fail(job_id, lease_token, E'mail\033[2Jbox full', 'XX001') FROM event_queue.claim('mail', 2);
SELECT event_queue.enqueue('reports', 'monthly', delay => '1 hour');
));
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;
$ENV{PGDATABASE} = 'postgres';
$ENV{LC_ALL} = 'C.UTF-8';
my $socket = PostgreSQL::Test::Utils::tempdir_short() . '/tmux';
my @tmux = ('tmux', '-u', '-S', $socket, '-f', '/dev/null');

sub tmux { return system(@tmux, @_) == 0; }
sub screen { my ($out) = run_command([ @tmux, 'capture-pane', '-p', @_ ]); return $out; }
sub keys_of { tmux('send-keys', @_) or die 'tmux does not take keys'; }

# The screen comes to show this, or not to show it.
sub shows
{
	my ($like, $what, $not) = @_;
	my $screen;
	for (1 .. 100)
	{
		$screen = screen();
		last if ($screen =~ $like) xor $not;
		sleep 0.1;
	}
	ok(($screen =~ $like xor $not), $what) or diag($screen);
}
sub starts
{
	my ($command) = @_;
	tmux('new-session', '-d', '-x', 120, '-y', 24, "$command; echo \"ended with \$?\"; sleep 600") or die 'tmux does not start';
}
sub stops { tmux('kill-server'); sleep 0.3; }

starts('eventq top --interval 0.3');
shows(qr/^QUEUE +STATE +DEPTH +DEAD/m, 'queues');
shows(qr/^mail +ok +1 +2 /m, 'depth and dead letters');
shows(qr/^açaí +ok/m, 'UTF-8');
shows(qr/5 queues +2 jobs +2 dead/, 'totals');
shows(qr/! queue mail:/, 'what is not well');
shows(qr/sorted by oldest/, 'the sort');
like(screen('-e'), qr/\e\[\d*;?31m/, 'red, with colour');

$node->safe_psql('postgres', q(SELECT event_queue.enqueue('mail', 'more')));
shows(qr/^mail +ok +2 +2 /m, 'it goes on looking');
keys_of('Space');
shows(qr/STOPPED/, 'space stops it');
$node->safe_psql('postgres', q(SELECT event_queue.enqueue('mail', 'more')));
sleep 1;
like(screen(), qr/^mail +ok +2 +2 /m, 'the screen stays');
keys_of('Space');
shows(qr/^mail +ok +3 +2 /m, 'and goes on');

keys_of('s') for 1 .. 5;
shows(qr/sorted by name/, 's sorts');
shows(qr/^açaí.*^mail.*^reports/ms, 'by name');
keys_of('/');
keys_of('-l', 'REPO');
shows(qr/^\/REPO_/m, 'a filter is typed');
shows(qr/^mail/m, 'and holds at once', 1);
keys_of('Enter');
shows(qr/filter REPO/, 'it stays');
keys_of('Escape');
shows(qr/^mail/m, 'Escape ends it');

keys_of('/');
keys_of('-l', 'mail');
keys_of('Enter');
keys_of('p');
shows(qr/^mail +paused/m, 'p pauses the queue');
is($node->safe_psql('postgres', "SELECT paused FROM event_queue.queue WHERE name = 'mail'"), 't', 'it is');
keys_of('p');
shows(qr/^mail +ok/m, 'and resumes it');

keys_of('Enter');
shows(qr/^ +JOB +STATE +NAME/m, 'Enter: the jobs of the queue');
shows(qr/dead +welcome.*mail\\x1b\[2Jb/, 'what an error says can not move the cursor');
my ($dead) = screen() =~ /^ +(\d+) dead/m;
keys_of('/');
keys_of('-l', 'dead');
keys_of('Enter');
shows(qr/ready +more/, 'only dead ones', 1);
keys_of('Enter');
shows(qr/^state +dead/m, 'Enter: one job');
shows(qr/^attempt 1 .*XX001/m, 'with its errors');
keys_of('q');
shows(qr/^ +JOB +STATE/m, 'q goes back');
keys_of('/');
keys_of('-l', 'dead');
keys_of('Enter');
keys_of('r');
shows(qr/is tried again/, 'r retries the dead job');
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.dead_letter'), 1, 'that one');
keys_of('Escape');
keys_of('q');
shows(qr/^QUEUE +STATE/m, 'back at the queues');
keys_of('/');
keys_of('-l', 'mail');
keys_of('Enter');
keys_of('r');
shows(qr/Retry all dead letters of mail\? \(y\/n\)/, 'r asks before it retries all');
keys_of('n');
shows(qr/Retry all/, 'n: no', 1);
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.dead_letter'), 1, 'nothing happened');
keys_of('r');
shows(qr/Retry all/, 'asked again');
keys_of('y');
shows(qr/tried again: 1/, 'y: yes');
keys_of('Escape');

# The answer is about the queue that was asked about, whichever is selected by then.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue(q, max_attempts => 1), event_queue.enqueue(q, 'x') FROM unnest('{ask 1,ask 2}'::text[]) q;
SELECT event_queue.fail(job_id, lease_token, 'no') FROM unnest('{ask 1,ask 2}'::text[]) q, event_queue.claim(q);
));
keys_of('/');
keys_of('-l', 'ask');
keys_of('Enter');
shows(qr/^ask 1 .*\n+ask 2 |^ask 2 .*\n+ask 1 /m, 'two queues');
keys_of('g', 'r');
shows(qr/Retry all dead letters of ask \d/, 'a question about one');
my ($asked) = screen() =~ /dead letters of (ask \d)/;
$node->safe_psql('postgres', "SELECT event_queue.drop_queue('$asked', force => true)");
shows(qr/^$asked /m, 'which is gone', 1);
keys_of('y');
shows(qr/Retry all/, 'the answer is taken', 1);
is($node->safe_psql('postgres', q(SELECT count(*) FROM event_queue.dead_letters WHERE queue LIKE 'ask %')), 1, 'the dead letters of the other one stay')
  or diag(screen());
keys_of('Escape');

keys_of('?');
shows(qr/pause or resume the queue/, 'help');
keys_of('q');
shows(qr/^QUEUE +STATE/m, 'and back');
keys_of('j', 'j', 'k', 'G', 'g', 'PageDown', 'PageUp', 'Down', 'Up');
shows(qr/^QUEUE +STATE/m, 'moving about');

tmux('resize-window', '-x', 50, '-y', 8);
shows(qr/\A[^\n]{0,52}\n/, 'a small window');
shows(qr/^mail +ok/m, 'still has the rows');
tmux('resize-window', '-x', 20, '-y', 3);
sleep 0.5;
tmux('resize-window', '-x', 120, '-y', 24);
shows(qr/RUN ms/, 'and a large one again');

$node->stop('immediate');
shows(qr/connection|server/i, 'the server is gone: it says so');
$node->start;
shows(qr/^mail +ok/m, 'and goes on when it is back');
shows(qr/all is well|! /, 'with health');
keys_of('q');
shows(qr/ended with 0/, 'q ends it');
stops();

starts('NO_COLOR=1 eventq top --interval 0.3 --ascii');
shows(qr/^mail +ok/m, 'monochrome');
unlike(screen('-e'), qr/\e\[[\d;]*3[0-7]m/, 'has no colour');
keys_of('F10');
shows(qr/ended with 0/, 'F10 ends it');
stops();

starts('eventq top -d nowhere');
shows(qr/does not\s?exi\s?s\s?t.*ended with 1/s, 'no database: said on a screen that was never opened');
stops();

my ($out, $err) = run_command([ 'eventq', 'top' ]);
like($err, qr/needs a terminal/, 'no terminal: says so');
$node->stop;
done_testing();
