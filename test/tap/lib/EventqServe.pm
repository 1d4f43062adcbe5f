# For tests of "eventq serve": starts it, asks it as a browser does, and sends it raw bytes.
package EventqServe;
use strict;
use warnings;
use Exporter 'import';
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

our @EXPORT = qw(start_serve serve_ended ask sign_in is_status raw);

my @running;
my $dir = PostgreSQL::Test::Utils::tempdir();

# Starts a server, which listens on a port of 127.0.0.1 that it chooses itself.  Gives the
# port, the file of its log, its process.
sub start_serve
{
	my (@command) = @_;
	my $log = "$dir/log" . scalar @running;
	my $pid = fork;
	if (!$pid)
	{
		open STDERR, '>', $log;
		exec @command or exit 1;
	}
	push @running, $pid;
	for (1 .. 100)
	{
		return ($1, $log, $pid) if -e $log && slurp_file($log) =~ m{listening on http://127.0.0.1:(\d+)/};
		sleep 0.1;
	}
	die 'eventq serve does not start: ' . slurp_file($log);
}

# It has ended, and is not to be ended any more.
sub serve_ended
{
	my ($pid) = @_;
	$_ = $_ == $pid ? 0 : $_ for @running;
}
END { my @left = grep { $_ } @running; kill 'KILL', @left if @left; }

# A browser, as far as it matters: a cookie and a CSRF token.
sub ask
{
	my ($who, $method, $path, $body, %headers) = @_;
	my $http = HTTP::Tiny->new(timeout => 20);
	$headers{Cookie} = $who->{cookie} if $who->{cookie} && !exists $headers{Cookie};
	$headers{'X-CSRF-Token'} = $who->{csrf} if $method eq 'POST' && $who->{csrf} && !exists $headers{'X-CSRF-Token'};
	delete @headers{ grep { !defined $headers{$_} } keys %headers };
	my $answer = $http->request($method, "http://127.0.0.1:$who->{port}$path", { headers => \%headers, defined $body ? (content => $body) : () });
	$answer->{json} = eval { decode_json($answer->{content}) };
	return $answer;
}

sub sign_in
{
	my ($port, $user, $password, %more) = @_;
	my $who = { port => $port };
	my $answer = ask($who, 'POST', '/api/session', "user=$user&password=$password", 'X-CSRF-Token' => 'sign-in',
		'Content-Type' => 'application/x-www-form-urlencoded', %more);
	$who->{answer} = $answer;
	($who->{cookie}) = ($answer->{headers}{'set-cookie'} // '') =~ /^(eventq=[0-9a-f]+)/;
	$who->{csrf} = $answer->{json}{csrf};
	return $who;
}

sub is_status
{
	my ($answer, $status, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($answer->{status}, $status, $what) || diag($answer->{content});
}

# Sends bytes, in parts; a reference to a number is a pause.  Gives what comes back until the end.
sub raw
{
	my ($port, @parts) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or return 'no connection';
	my $answer = '';
	local $SIG{PIPE} = 'IGNORE';
	for my $part (@parts)
	{
		if (ref $part) { sleep $$part; next; }
		$socket->syswrite($part) // last;
	}
	local $SIG{ALRM} = sub { die "timeout\n" };
	alarm 25;
	eval { while (1) { my $n = $socket->sysread(my $some, 65536); last if !$n; $answer .= $some; } };
	alarm 0;
	close $socket;
	return $answer;
}

1;
