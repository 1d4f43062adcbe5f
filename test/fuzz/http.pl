#!/usr/bin/perl
# http.pl: bad HTTP for eventq serve: mutated, cut, slow, huge, pipelined requests, clients
# that go away; at HOST:PORT, for SECONDS, from SEED.  Ends with status 1 if the server does
# not answer well afterwards.  Run by http.sh, which has the server built with
# AddressSanitizer.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);

my ($port, $seconds, $seed, $cookie, $csrf) = @ARGV;
srand $seed;
$SIG{PIPE} = 'IGNORE';
my @paths = ('/', '/app.js', '/healthz', '/readyz', '/metrics', '/health/queues', '/api/overview', '/api/queues', '/api/queues/mail', '/api/jobs?queue=mail&limit=3', '/api/jobs/1', '/api/dead',
	'/api/events', '/api/session', '/api/aggregates/lead/L-1/state?version=1', '/api/trace/x', '/api/queues/%61%2F%zz', '/api/jobs?after=%00', '/api/dead/1/retry', '/api/session/end2', '//', '/api/', '/api/queues/');
my @heads = ("Host: x", "Host:", "Content-Length: 3", "Content-Length: 0", "Content-Length: 18446744073709551616", "Content-Length: +1", "Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive",
	"Cookie: eventq=" . ('f' x 64), "Cookie: $cookie", "Cookie: eventq=", "Cookie: x=1; $cookie", "Authorization: Bearer ", "Authorization: Bearer token-of-ana-0123456789", "Authorization: Basic eA==", "X-CSRF-Token: $csrf", "X-CSRF-Token: sign-in",
	"Accept-Encoding: gzip", "If-None-Match: \"x\"", "Expect: 100-continue", ": x", "X", "\tX: y", "Sec-Fetch-Site: same-origin", "X-Forwarded-For: 203.0.113.9, 192.0.2.7", "X-Forwarded-For: ,", "X-Forwarded-For: 2001:db8::1");
my @bodies = ('', '{}', 'abc', 'user=ana&password=ana-pw', 'user=%&password=%zz', 'user=' . 'u' x 5000 . '&password=x', '{"ids":[' . '1,' x 2000 . '1]}', '[' x 20000, "\0" x 100, '{"ids":["\ud800"]}');
my @methods = ('GET', 'GET', 'GET', 'HEAD', 'POST', 'POST', 'PUT', 'OPTIONS', '', 'G' x 300);
my @open;
my $sent = 0;
my $answers = 0;
my %status;

sub one { return $_[rand @_]; }
sub request
{
	my $body = one(@bodies);
	# a good one of who is signed in, whose client may go away
	return join '', one('GET ', 'HEAD '), one(@paths), " HTTP/1.1\r\nHost: x\r\nCookie: $cookie\r\n", one("Connection: close\r\n", ''), "\r\n" if rand() < 0.3;
	return "POST " . one(@paths) . " HTTP/1.1\r\nHost: x\r\nCookie: $cookie\r\nX-CSRF-Token: $csrf\r\nContent-Length: " . length($body) . "\r\n\r\n$body" if rand() < 0.15;
	my $head = one(@methods) . ' ' . one(@paths) . ' ' . one('HTTP/1.1', 'HTTP/1.1', 'HTTP/1.1', 'HTTP/1.0', 'HTTP/2.0', 'X', '') . "\r\n";
	$head .= "Host: x\r\n" if rand() < 0.8;
	$head .= one(@heads) . one("\r\n", "\r\n", "\r\n", "\n") for 1 .. rand 6;
	$head .= "Content-Length: " . length($body) . "\r\n" if rand() < 0.7;
	$head .= 'X-Long: ' . 'y' x rand(20000) . "\r\n" if rand() < 0.03;
	my $all = "$head\r\n$body";
	# some bytes are others, gone, or twice
	if (rand() < 0.4)
	{
		for (1 .. 1 + rand 4)
		{
			my $at = int rand length $all;
			substr($all, $at, int rand 3) = join '', map { chr int rand 256 } 1 .. rand 4;
		}
	}
	$all = substr $all, 0, int rand length $all if rand() < 0.1;
	$all x= 1 + int rand 5 if rand() < 0.1;
	return $all;
}

my $end = time + $seconds;
while (time < $end)
{
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 2);
	if (!$socket) { sleep 0.05; shift @open; next; }
	$socket->blocking(0);
	my $all = request();
	if (rand() < 0.2)
	{
		# in two parts, the second later or never
		my $at = int rand length $all;
		syswrite $socket, substr $all, 0, $at;
		push @open, [ $socket, substr $all, $at ];
	}
	else
	{
		syswrite $socket, $all;
		push @open, [ $socket, '' ];
	}
	$sent++;
	while (@open > 40)
	{
		my ($old, $rest) = @{ splice @open, int rand @open, 1 };
		syswrite $old, $rest if length $rest;
		if (rand() < 0.7 && IO::Select->new($old)->can_read(0.05) && sysread $old, my $got, 65536)
		{
			$answers++;
			$status{$1}++ if $got =~ m{^HTTP/1\.1 (\d+) };
			print "not ok - not HTTP: $got\n" if $got !~ m{^HTTP/1\.1 \d+ };
		}
		setsockopt $old, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if rand() < 0.2;	# a reset
		close $old;
	}
}
@open = ();
sleep 1;
my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5);
my $answer = '';
if ($socket)
{
	print $socket "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	local $/;
	$answer = <$socket> // '';
}
print "fuzz-http: $sent requests, $answers answers looked at: ", join(', ', map { "$_: $status{$_}" } sort keys %status), "\n";
my $fine = $answer =~ m{^HTTP/1\.1 200 };
print $fine ? "ok - the server answers after it\n" : "not ok - the server does not answer\n";
exit !$fine;
