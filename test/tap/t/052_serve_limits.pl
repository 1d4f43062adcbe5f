# eventq serve against those who guess, flood, dawdle and smuggle: others go on meanwhile, memory
# does not grow, and what is under way when it is told to stop comes to its end.
use strict;
use warnings;
use IO::Socket::INET;
use Time::HiRes qw(sleep time);
use EventqServe;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($help) = run_command([ 'eventq', 'serve', '--help' ]);
plan skip_all => 'eventq was built without libevent' if $help !~ /--allow-actions/;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\n");
$node->start;
my @roles = qw(ana bob r1 r2 r3 r4);
$node->safe_psql('postgres', join ";\n", 'CREATE EXTENSION event_queue', 'CREATE ROLE metrics LOGIN', 'CREATE ROLE free LOGIN',
	"SELECT event_queue.grant_observer('metrics'), event_queue.grant_admin('free')",
	(map { "CREATE ROLE $_ LOGIN PASSWORD '$_-pw'; SELECT event_queue.grant_admin('$_')" } @roles),
	"SELECT event_queue.create_queue('mail'), event_queue.enqueue('mail', 'x')");
open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die $!;
print $hba 'local all ' . join(',', @roles) . " scram-sha-256\nlocal all all trust\n";
close $hba;
$node->reload;
delete @ENV{qw(PGPASSWORD PGUSER)};
my $dir = PostgreSQL::Test::Utils::tempdir();
my @base = ('eventq', 'serve', '-d', 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres', '-U', 'metrics', '--listen', '127.0.0.1:0');

# Sends a request and does not wait for what comes.
sub begin_request
{
	my ($port, $text) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "no connection: $!";
	local $SIG{PIPE} = 'IGNORE';
	$socket->syswrite($text);
	return $socket;
}
# The status of what then comes.
sub status_of
{
	my ($socket) = @_;
	my $all = '';
	local $SIG{ALRM} = sub { die "timeout\n" };
	alarm 60;
	eval { while ($all !~ /\r\n\r\n/) { last if !$socket->sysread(my $some, 65536); $all .= $some; } };
	alarm 0;
	return $all =~ m{^HTTP/1\.1 (\d+) } ? $1 : 'none';
}
sub a_sign_in
{
	my ($user, $password, $from) = @_;
	my $body = "user=$user&password=$password";
	return "POST /api/session HTTP/1.1\r\nHost: localhost\r\nX-CSRF-Token: sign-in\r\nX-Forwarded-For: 198.51.100.1, $from\r\nContent-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
}
# Guesses, all at once, while something else is done; gives how many of each status came.
sub guess
{
	my ($port, $who_from, $meanwhile) = @_;
	my @sockets = map { begin_request($port, a_sign_in($_->[0], 'wrong', $_->[1])) } @$who_from;
	my %of = (401 => 0, 429 => 0);
	$meanwhile->() if $meanwhile;
	$of{ status_of($_) }++ for @sockets;
	return \%of;
}
sub from { return 'X-Forwarded-For' => $_[0]; }
sub connections_of { return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'eventq serve $_[0]'"); }
# Signing in where many try at the same time: 429 says when to come again.
sub sign_in_again
{
	my $who;
	for (1 .. 10)
	{
		$who = sign_in(@_);
		last if $who->{answer}{status} != 429;
		sleep 0.5;
	}
	return $who;
}

# ------------------------------------------------------------ guessing
my ($port, undef, $pid) = start_serve(@base, '--allow-actions');
my $ana = sign_in($port, 'ana', 'ana-pw', from('203.0.113.1'));
is_status($ana->{answer}, 200, 'ana signs in at her place');
my $of = guess($port, [ map { [ 'ana', '203.0.113.66' ] } 1 .. 12 ], sub {
	is_status(sign_in($port, 'ana', 'ana-pw', from('203.0.113.1'))->{answer}, 200, 'while someone guesses, ana may sign in from her place');
	is_status(sign_in($port, 'bob', 'bob-pw', from('203.0.113.2'))->{answer}, 200, 'and bob, who comes the first time');
});
is($of->{401} + $of->{429}, 12, 'guesses get 401, then 429') or diag(explain($of));
cmp_ok($of->{401}, '<=', 8, 'after some');
# What the client says of itself comes before what the proxy adds
guess($port, [ map { [ 'ana', '203.0.113.1, 203.0.113.67' ] } 1 .. 12 ]);
is_status(sign_in($port, 'ana', 'ana-pw', from('203.0.113.1'))->{answer}, 200, 'who names her place does not count as her');

my @names = map { "name$_" } 1 .. 100;
$of = guess($port, [ map { [ $_, '203.0.113.3' ] } @names ], sub {
	is_status(sign_in($port, 'r1', 'r1-pw', from('203.0.113.4'))->{answer}, 200, 'many names from one address: others do not wait for it');
});
cmp_ok($of->{401}, '<=', 30, 'most are not even tried') or diag(explain($of));
guess($port, [ map { [ $_, '203.0.113.2' ] } @names ], sub {
	is_status(sign_in($port, 'bob', 'bob-pw', from('203.0.113.2'))->{answer}, 200, 'who has been there before has not, even if they come from there');
});

$of = guess($port, [ map { [ 'ana', "192.0.2.$_" ] } 1 .. 100, 1 .. 100 ], sub {
	is_status(sign_in($port, 'ana', 'ana-pw', from('203.0.113.1'))->{answer}, 200, 'one name from a hundred addresses: it may sign in from where it works');
});
cmp_ok($of->{401}, '<=', 80, 'most are not even tried') or diag(explain($of));
is_status(ask($ana, 'GET', '/api/overview'), 200, 'and who is signed in notices nothing');

# Who is turned away for want of room has not guessed wrong
$node->safe_psql('postgres', 'ALTER ROLE r3 CONNECTION LIMIT 0');
is_status(sign_in($port, 'r3', 'r3-pw', from('203.0.113.9'))->{answer}, 503, 'no room is not a refusal') for 1 .. 8;
$node->safe_psql('postgres', 'ALTER ROLE r3 CONNECTION LIMIT -1');
is_status(sign_in($port, 'r3', 'r3-pw', from('203.0.113.9'))->{answer}, 200, 'and is not counted as one');

# Places: the database answers slowly, and many ask it at once
$node->append_conf('postgresql.conf', "pre_auth_delay = 1\n");
$node->reload;
sleep 1;
my @flood = map { begin_request($port, a_sign_in("other$_", 'wrong', '203.0.113.77')) } 1 .. 30;
sleep 0.2;
is_status(sign_in($port, 'ana', 'ana-pw', from('203.0.113.1'))->{answer}, 200, 'who has been here has a place beside 30 wrong sign-ins');
is_status(sign_in_again($port, 'r2', 'r2-pw', from('203.0.113.5'))->{answer}, 200, 'and who comes from elsewhere');
status_of($_) for @flood;
$node->append_conf('postgresql.conf', "pre_auth_delay = 0\n");
$node->reload;
my @team = map { begin_request($port, a_sign_in($_, "$_-pw", '203.0.113.88')) } @roles, @roles;
is_deeply([ map { status_of($_) } @team ], [ (200) x 12 ], 'twelve who sign in at once by one proxy wait for each other');

kill 'TERM', $pid;
waitpid($pid, 0);
serve_ended($pid);

# ------------------------------------------------------------ connections to the database
my ($few) = start_serve(@base, '--allow-actions', '--max-connections', '8', '--statement-timeout', '60000');
my @bobs = map { sign_in_again($few, 'bob', 'bob-pw') } 1 .. 11;
my @others = map { sign_in_again($few, $_, "$_-pw") } (qw(r1 r2 r3 r4)) x 3;
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE event_queue.dead_letter IN ACCESS EXCLUSIVE MODE');
sub slow { my ($who) = @_; return begin_request($few, "GET /api/dead HTTP/1.1\r\nHost: localhost\r\nCookie: $who->{cookie}\r\nConnection: close\r\n\r\n"); }
my @slow = map { my $bob = $_; map { slow($bob) } 1 .. 2 } @bobs;
$node->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'eventq serve bob' AND wait_event_type = 'Lock'");
my $new = sign_in_again($few, 'ana', 'ana-pw');
is_status($new->{answer}, 200, 'eleven busy sessions of one role leave room for another to sign in');
is_status(ask($new, 'POST', '/api/queues/mail/pause', '{}'), 200, 'to act');
is_status(ask($new, 'GET', '/api/queues'), 200, 'and to read');
is(connections_of('bob'), 2, 'the role has a quarter of all');
push @slow, map { slow($_) } @others;
$node->poll_query_until('postgres', "SELECT count(*) >= 5 FROM pg_stat_activity WHERE application_name LIKE 'eventq serve %' AND wait_event_type = 'Lock'");
is_status(sign_in_again($few, 'ana', 'ana-pw')->{answer}, 200, 'five busy roles leave room to sign in');
is_status(ask($new, 'POST', '/api/queues/mail/resume', '{}'), 200, 'and to act');
cmp_ok(connections_of('%'), '<=', 8, 'there are not more than allowed');
$lock->query_safe('ROLLBACK');
$lock->quit;
is_deeply([ map { status_of($_) } @slow ], [ (200) x 34 ], 'who waited for a connection gets it: all are answered');
is_status(ask($_, 'GET', '/api/queues'), 200, 'a session of many') for @bobs;
cmp_ok(connections_of('bob'), '<=', 2, 'sessions of a role share its connections');
# A new password proves nothing by a connection that an older one has opened
is_status(sign_in($few, 'bob', 'wrong')->{answer}, 401, 'but not with who only says that it is his');

# ------------------------------------------------------------ bodies
($port) = start_serve(@base, '--allow-actions');
$ana = sign_in($port, 'ana', 'ana-pw');
my $head = "Host: localhost\r\nConnection: close\r\n";
for ([ '/api/session', '' ], [ '/api/dead/retry', '' ], [ '/api/dead/retry', 'Cookie: eventq=' . 'a' x 64 . "\r\n" ], [ '/api/dead/retry', "Authorization: Bearer none\r\n" ], [ '/healthz', '' ])
{
	my ($path, $more) = @$_;
	like(raw($port, "POST $path HTTP/1.1\r\n$head${more}Content-Length: 4097\r\n\r\n"), qr{^HTTP/1\.1 413 }, "a large body of nobody for $path");
	unlike(raw($port, "POST $path HTTP/1.1\r\n$head${more}Content-Length: 4096\r\n\r\n" . 'x' x 4096), qr{^HTTP/1\.1 413 }, 'a small one may come');
}
my $signed = "POST /api/dead/retry HTTP/1.1\r\n${head}Cookie: $ana->{cookie}\r\nX-CSRF-Token: $ana->{csrf}\r\nContent-Length: 2097152\r\n\r\n";
unlike(raw($port, $signed . '{"ids": [1]' . ' ' x (2097152 - 12) . '}'), qr{^HTTP/1\.1 4(13|08) }, 'a large one of who is signed in');
my @large = map { begin_request($port, $signed) } 1 .. 16;
sleep 0.5;
like(raw($port, $signed), qr{^HTTP/1\.1 503 }, 'not too many of them at once');
close $_ for @large;
sleep 0.5;
unlike(raw($port, $signed . '{"ids": [1]' . ' ' x (2097152 - 12) . '}'), qr{^HTTP/1\.1 503 }, 'then again');

# ------------------------------------------------------------ connections of strangers
my ($narrow) = start_serve(@base, '--max-clients', '20');
my $kept = begin_request($narrow, '');
my $mine = sign_in($narrow, 'ana', 'ana-pw');
my $again = "GET /api/session HTTP/1.1\r\nHost: localhost\r\nCookie: $mine->{cookie}\r\n\r\n";
$kept->syswrite($again);
is(status_of($kept), 200, 'a connection of who is signed in');
my @strangers = map { begin_request($narrow, $_ % 2 ? 'GET /he' : '') } 1 .. 100;
is_status(ask({ port => $narrow }, 'GET', '/healthz'), 200, 'a hundred strangers hold nobody off');
is_status(sign_in($narrow, 'bob', 'bob-pw')->{answer}, 200, 'nor from signing in');
$kept->syswrite($again);
is(status_of($kept), 200, 'nor end the connection of who is signed in');
# Those that ask for much and read none of it
my @deaf = map { begin_request($narrow, "GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" x 200) } 1 .. 40;
is_status(ask({ port => $narrow }, 'GET', '/healthz'), 200, 'nor do those that read no answer');
close $_ for @strangers, @deaf;

# ------------------------------------------------------------ slowly, and never to the end
my @drip = (begin_request($port, 'GET /healthz HTTP/1.1'), begin_request($port, "POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n"));
my $began = time;
while (time - $began < 14)
{
	local $SIG{PIPE} = 'IGNORE';
	$_->syswrite('x') for @drip;
	sleep 0.5;
}
is(status_of($_), '408', 'a byte now and then does not keep a request open') for @drip;

# ------------------------------------------------------------ where a request ends
for ("Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5", 'Transfer-Encoding: identity', "Transfer-Encoding: \x0bchunked",
	'Transfer-Encoding : chunked', "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\ncontent-length: 6", 'Content-Length: 5, 5', 'Content-Length: +5', 'Content-Length: 0x5',
	'Content-Length: 5 5', 'Content-Length : 5', 'Content-Length:', "Content-Length: 5\r\n\t6", "X: y\nContent-Length: 5", "X: y\rContent-Length: 5")
{
	my $answer = raw($port, "POST /api/session HTTP/1.1\r\nHost: x\r\n$_\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
	my $name = s/[^ -~]+/./gr;
	like($answer, qr{^HTTP/1\.1 4\d\d .*^Connection: close\r$}sm, "refused, and the end: $name");
	is(() = $answer =~ /HTTP\/1\.1 \d\d\d /g, 1, 'what follows is not another request');
}
my $split = raw($port, "GET /api/queues/x%0d%0aSet-Cookie:%20evil=1%0d%0a%0d%0a<b> HTTP/1.1\r\n${head}Cookie: $ana->{cookie}\r\n\r\n");
my ($split_head) = split /\r\n\r\n/, $split;
like($split, qr{^HTTP/1\.1 404 }, 'line ends in a name');
unlike($split_head, qr/evil/, 'do not get into the head of the answer');

# ------------------------------------------------------------ each POST needs the CSRF token
my @posts = map { s/\{id\}/1/r =~ s/\{\w+\}/mail/r } qw(/api/session/end /api/queues/{queue}/pause /api/queues/{queue}/resume /api/queues/{queue}/drain /api/queues/{queue}/retry-waiting
	/api/jobs/{id}/cancel /api/jobs/{id}/priority /api/dead/retry-all /api/dead/discard-all /api/dead/retry /api/dead/discard /api/dead/{id}/retry /api/dead/{id}/discard
	/api/rules/{name}/pause /api/rules/{name}/resume /api/schedules/{name}/pause /api/schedules/{name}/resume /api/alerts/ack /api/alerts/snooze /api/not-there);
for my $path (@posts)
{
	my @got = map { ask($ana, 'POST', $path, '{}', @$_)->{status} } [ 'X-CSRF-Token' => undef ], [ 'X-CSRF-Token' => 'sign-in' ], [ 'X-CSRF-Token' => '' ], [ 'Sec-Fetch-Site' => 'same-site' ];
	is_deeply(\@got, [ (403) x 4 ], "$path without the CSRF token, or from another site");
	isnt(ask($ana, 'GET', $path)->{status}, 200, 'nor by GET');
}
is_status(ask($ana, 'GET', '/api/overview'), 200, 'and the session is still there');

# ------------------------------------------------------------ the token file
for (
	[ 'a token too long', "good-token-of-free-0 free\n" . 't' x 500 . " free\n", qr/line 2, has a token that is not of 16 to 499/ ],
	[ 'longer than any buffer', '# ' . 'c' x 5000 . "\n" . 't' x 70000 . " free\n", qr/line 2, has a token that is not of 16 to 499/ ],
	[ 'a role too long', "good-token-of-free-0 " . 'r' x 64 . "\n", qr/line 1, has a role whose name is longer than 63 bytes/ ],
	[ 'three words', "\n\ngood-token-of-free-0 free bob\n", qr/line 3, has more than a token and a role/ ],
	[ 'no role', "good-token-of-free-0\n", qr/line 1, has a token and no role/ ],
	[ 'a short one', "short free\n", qr/line 1, has a token that is not of 16/ ],
	[ 'a NUL', "good-token-of-free-0 fr\0ee\n", qr/line 1, has a byte of value 0/ ])
{
	my ($what, $text, $expected) = @$_;
	open my $file, '>', "$dir/bad" or die $!;
	print $file $text;
	close $file;
	chmod 0600, "$dir/bad";
	my ($out, $err) = run_command([ @base, '--token-file', "$dir/bad" ]);
	like($err, $expected, "token file: $what");
	unlike($err, qr/good-token/, 'which is not told');
}
append_to_file("$dir/tokens", 't' x 499 . " free\nshorter-of-free-0123 free # a comment");
chmod 0600, "$dir/tokens";
my ($by_token, $token_log, $token_pid) = start_serve(@base, '--token-file', "$dir/tokens");
is_status(ask({ port => $by_token }, 'GET', '/api/queues', undef, Authorization => "Bearer $_"), 200, 'a token of ' . length) for 't' x 499, 'shorter-of-free-0123';
append_to_file("$dir/tokens", "\nshort free\n");
kill 'HUP', $token_pid;
for (1 .. 100) { last if slurp_file($token_log) =~ /line 3, /; sleep 0.1; }
like(slurp_file($token_log), qr/line 3, has a token/, 'read again, with an error');
is_status(ask({ port => $by_token }, 'GET', '/api/queues', undef, Authorization => 'Bearer shorter-of-free-0123'), 200, 'the tokens from before stay');

# ------------------------------------------------------------ memory
my ($busy, undef, $busy_pid) = start_serve(@base);
my $user = sign_in($busy, 'ana', 'ana-pw');
my $cookie = "Cookie: $user->{cookie}\r\n";
my @kinds = ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /app.css HTTP/1.1\r\nHost: localhost\r\n\r\n",
	"POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\na=b", "GET /api/session HTTP/1.1\r\nHost: localhost\r\n$cookie\r\n",
	"GET /api/queues/none HTTP/1.1\r\nHost: localhost\r\n$cookie\r\n", "GET /api/overview HTTP/1.1\r\nHost: localhost\r\n$cookie\r\n");
sub requests
{
	my ($rounds) = @_;
	my $sent = 0;
	for (1 .. $rounds)
	{
		my $text = join '', (@kinds[ 0 .. 4 ]) x 30, @kinds;
		my $got = raw($busy, $text . "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
		$sent += () = $got =~ /HTTP\/1\.1 \d\d\d /g;
	}
	return $sent;
}
sub rss { return slurp_file("/proc/$busy_pid/status") =~ /^VmRSS:\s+(\d+) kB/m ? $1 : 0; }
SKIP:
{
	skip 'no /proc here', 2 if !-e "/proc/$busy_pid/status";
	my $rounds = ($ENV{EQ_SERVE_REQUESTS} // 16000) / 160;
	requests($rounds / 4);
	my $before = rss();
	my $n = requests($rounds);
	my $after = rss();
	is($n, int($rounds) * 158, 'all are answered');
	cmp_ok($after - $before, '<', 1024, "memory does not grow with requests") or diag("from $before to $after kB in $n requests");
	note("$n requests: RSS from $before to $after kB");
}

# ------------------------------------------------------------ told to stop in the middle
my ($last, undef, $last_pid) = start_serve(@base, '--allow-actions', '--statement-timeout', '60000');
my $who = sign_in($last, 'ana', 'ana-pw');
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; SELECT FROM event_queue.job FOR UPDATE');
my $action = begin_request($last, "POST /api/jobs/1/cancel HTTP/1.1\r\nHost: localhost\r\nCookie: $who->{cookie}\r\nX-CSRF-Token: $who->{csrf}\r\nContent-Length: 2\r\n\r\n{}");
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'eventq serve ana' AND wait_event_type = 'Lock'");
kill 'TERM', $last_pid;
sleep 6;
is(raw($last, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), 'no connection', 'after SIGTERM nobody new is served');
$holder->query_safe('ROLLBACK');
$holder->quit;
is(status_of($action), 200, 'what was under way comes to its end');
is(waitpid($last_pid, 0), $last_pid, 'then it ends');
is($? >> 8, 0, 'well');
serve_ended($last_pid);
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.job'), '0', 'and the action was done');
done_testing();
