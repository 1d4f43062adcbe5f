# eventq webhook: what a request looks like, how it is signed, what each answer means for
# the job, which addresses and headers are refused; "retry-after" of eventq work.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_base64);
use IO::Socket::INET;
use IPC::Run qw(run timeout);
use JSON::PP;
use MIME::Base64;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($help) = run_command([ 'eventq', 'webhook', '--help' ]);
plan skip_all => 'eventq was built without libcurl' if $help !~ /--allow-private/;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\n");
$node->start;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;
$ENV{PGDATABASE} = 'postgres';
delete $ENV{PGUSER};
# a proxy would connect for us
$ENV{http_proxy} = 'http://127.0.0.1:9';
my $dir = PostgreSQL::Test::Utils::tempdir();

# A server that answers by the path, and keeps each request as a line of JSON.
my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', ReuseAddr => 1) or die;
my $port = $listener->sockport;
my %answers = (
	'/ok' => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
	'/ok?a=1' => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
	'/empty' => "HTTP/1.1 204 No Content\r\n\r\n",
	'/gone' => "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
	'/broken' => "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
	'/later' => "HTTP/1.1 429 Slow Down\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n",
	'/moved' => "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:$port/ok\r\nContent-Length: 0\r\n\r\n",
	'/nothing' => '',
	'/binary' => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\x00\xff\x01");
my $server = fork;
if (!$server)
{
	$SIG{CHLD} = 'DEFAULT'; # with a handler, as later versions of Utils.pm set it, accept is interrupted
	while (my $socket = $listener->accept)
	{
		next if fork;
		my ($head, %headers) = ('');
		while (defined(my $line = <$socket>)) { $head .= $line; last if $line eq "\r\n"; }
		my ($method, $path) = $head =~ /^(\S+) (\S+)/;
		$headers{lc $1} = $2 while $head =~ /^([\w-]+): ?(.*)\r$/mg;
		read $socket, my $body, $headers{'content-length'} // 0;
		open my $log, '>>', "$dir/requests";
		syswrite $log, encode_json({ method => $method, path => $path, headers => \%headers, body => $body }) . "\n";
		if ($path eq '/slow') { sleep 60 }
		elsif ($path eq '/huge')
		{
			local $SIG{PIPE} = 'IGNORE';
			print $socket "HTTP/1.1 200 OK\r\n\r\n" or 1;
			for (1 .. 64) { last unless print $socket 'x' x 65536 }
		}
		else { print $socket $answers{$path} }
		close $socket;
		POSIX::_exit(0);
	}
	POSIX::_exit(0);
}
END { kill 'KILL', $server if $server }

sub sql { return $node->safe_psql('postgres', $_[0]); }
sub enqueue
{
	my ($payload, $tenant) = @_;
	return sql(sprintf q(SELECT event_queue.enqueue('hooks', 'call', $p$%s$p$, tenant_id => '%s')), encode_json($payload), $tenant // 'acme');
}
sub webhook
{
	my ($out, $err) = ('', '');
	run([ qw(eventq webhook hooks --until-empty), @_ ], '<', \'', '>', \$out, '2>', \$err, timeout(120));
	return wantarray ? ($? >> 8, $err) : $err;
}
sub requests
{
	return [] unless -e "$dir/requests";
	my $all = [ map { decode_json($_) } split /\n/, slurp_file("$dir/requests") ];
	unlink "$dir/requests";
	return $all;
}
sub state_of { return sql("SELECT event_queue.job_outcome($_[0]) ->> 'state'"); }
sub error_of
{
	return sql("SELECT coalesce((SELECT errors -> -1 ->> 'message' FROM event_queue.dead_letter WHERE job_id = $_[0]),
		(SELECT errors -> -1 ->> 'message' FROM event_queue.job WHERE job_id = $_[0]))");
}
my $base = "http://127.0.0.1:$port";

sql(q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('hooks', keep_completed => '1 day', max_attempts => 3, backoff_delay => '1 hour')));

# A plain request
my $job = enqueue({ url => "$base/ok?a=1", body => { text => "\x{fc}", n => 1 }, headers => { 'X-Kind' => 'lead' } });
is((webhook('--allow-private'))[0], 0, 'it ends well');
my $requests = requests();
SKIP: {
	is(scalar @$requests, 1, 'one request') or skip 'none', 6;
	my $request = $requests->[0];
	is("$request->{method} $request->{path}", 'POST /ok?a=1', 'by POST');
	utf8::downgrade($request->{body});
	is_deeply(decode_json($request->{body}), { text => "\x{fc}", n => 1 }, 'the body');
	is($request->{headers}{'x-kind'}, 'lead', 'a header of the payload');
	is($request->{headers}{'content-type'}, 'application/json', 'it is JSON');
	is($request->{headers}{'webhook-id'}, "job_$job", 'an id that stays the same');
	ok(!exists $request->{headers}{'webhook-signature'}, 'no secret, no signature');
}
is(sql("SELECT result - 'ms' FROM event_queue.history WHERE job_id = $job"), '{"answer": "fine", "status": 200}', 'the result');

# What answers mean
sql(q(SELECT event_queue.alter_queue('hooks', max_attempts => 3)));
my %of = map { $_ => enqueue({ url => "$base/$_" }) } qw(empty gone broken later moved nothing huge binary);
webhook('--allow-private', '--concurrency', 3);
is(@{ requests() }, 8, 'a redirect is not followed, nothing is sent twice');
is(state_of($of{empty}), 'completed', 'status 204');
is(state_of($of{huge}), 'completed', 'an answer without end');
is(sql("SELECT length(result ->> 'answer') FROM event_queue.history WHERE job_id = $of{huge}"), 4096, 'whose beginning is kept');
is(state_of($of{binary}), 'completed', 'an answer that is no text');
is(state_of($of{gone}), 'dead', '410 is final');
for my $failed ([ broken => qr/status 500/ ], [ moved => qr/status 302/ ], [ nothing => qr/no answer/ ], [ later => qr/status 429/ ])
{
	my ($name, $like) = @$failed;
	is(sql("SELECT failures FROM event_queue.job WHERE job_id = $of{$name}"), 1, "$name: a failed attempt");
	like(error_of($of{$name}), $like, "$name: its error");
}
is(sql("SELECT run_at - clock_timestamp() BETWEEN '50 min' AND '60 min' FROM event_queue.job WHERE job_id = $of{later}"), 't', 'Retry-After decides when it is tried again');
sql("SELECT event_queue.alter_queue('hooks', backoff_delay => '1 day')");
$job = enqueue({ url => "$base/later" });
webhook('--allow-private');
is(sql("SELECT run_at < clock_timestamp() + '2 hours' FROM event_queue.job WHERE job_id = $job"), 't', 'also where the queue would wait longer');
$job = enqueue({ url => "$base/slow" });
webhook('--allow-private', '--timeout', '300ms');
like(error_of($job), qr/no answer from host "127.0.0.1": .*tim/i, 'too slow');
requests();

# Signed by tenant and host, with each secret of the line
my $key = 'abcdefghijklmnopqrstuvwxyz012345';
open my $secrets, '>', "$dir/secrets";
print $secrets "# tenant host secrets\nother * wrong\nacme example.org wrong\nacme 127.0.0.1 whsec_", encode_base64($key, ''), " old-secret-of-16-bytes\n* 127.0.0.2 whsec_A===\n";
close $secrets;
chmod 0644, "$dir/secrets";
my ($status, $err) = webhook('--secrets', "$dir/secrets");
is($status, 1, 'secrets that others may read');
like($err, qr/0600/, 'are refused');
chmod 0600, "$dir/secrets";
$job = enqueue({ url => "$base/ok", body => [ 1, 'x' ] });
my $unsigned = enqueue({ url => "$base/ok" }, 'nobody');
webhook('--allow-private', '--secrets', "$dir/secrets", '--later', '1 hour');
$requests = requests();
is(scalar @$requests, 1, 'nothing goes out unsigned where secrets are wanted');
my $h = $requests->[0]{headers};
my $signed = join '.', @{$h}{qw(webhook-id webhook-timestamp)}, $requests->[0]{body};
sub padded { my $text = shift; $text .= '=' while length($text) % 4; return $text; }
is($h->{'webhook-signature'}, join(' ', map { 'v1,' . padded(hmac_sha256_base64($signed, $_)) } $key, 'old-secret-of-16-bytes'), 'the signatures');
cmp_ok(abs($h->{'webhook-timestamp'} - time), '<', 300, 'its time');
is(sql("SELECT failures FROM event_queue.job WHERE job_id = $unsigned"), 1, 'and the attempt has failed');
$job = enqueue({ url => "http://127.0.0.2:$port/ok" }, 'nobody');
webhook('--allow-private', '--secrets', "$dir/secrets");
like(error_of($job), qr/not valid/, 'a secret without bytes signs nothing');
sql("SELECT event_queue.cancel_job($unsigned)");

# A host is the same however it is written
$job = enqueue({ url => $_ }) for "http://LOCALHOST:$port/ok", "http://loc%61lhost:$port/ok", "http://2130706433:$port/ok";
append_to_file("$dir/secrets", "acme LocalHost. whsec_" . encode_base64($key, '') . "\n");
webhook('--allow-private', '--secrets', "$dir/secrets");
is_deeply([ map { exists $_->{headers}{'webhook-signature'} ? 'signed' : '' } @{ requests() } ], [ ('signed') x 3 ], 'names that stand for one host are that host');
# Who has a dot at the end may not be found by this machine, but is not without a secret.
$job = enqueue({ url => "http://localhost.:$port/ok" });
webhook('--allow-private', '--secrets', "$dir/secrets");
ok(@{ requests() } == 1 || error_of($job) =~ /no answer from host "localhost"/, 'nor does a dot at the end make another one') or diag(error_of($job));
{
	# Letters beyond ASCII, whatever the locale: full-width ones stand for those of "localhost".
	local $ENV{LC_ALL} = 'C';
	my $wide = join '', map { chr(ord($_) - 0x21 + 0xff01) } split //, 'localhost';
	$job = enqueue({ url => "http://$wide:$port/ok" });
	webhook('--allow-private', '--secrets', "$dir/secrets");
	is_deeply([ map { exists $_->{headers}{'webhook-signature'} ? 'signed' : '' } @{ requests() } ], [ 'signed' ], 'a name in full-width letters is that host')
		or diag(error_of($job));
	$job = enqueue({ url => "http://b\x{fc}cher.invalid/" });
	webhook();
	like(error_of($job), qr/^no answer from host "xn--bcher-kva\.invalid"/, 'an international name is looked up in ASCII');
	$job = enqueue({ url => 'http://' . "\x{fc}" x 70 . '.invalid/' });
	webhook();
	is(state_of($job), 'dead', 'one that has no such form is refused for good');
	like(error_of($job), qr/xn--/, 'with what to do');
	$job = enqueue({ url => "http://127\x{3002}0\x{3002}0\x{3002}1:$port/ok" });
	webhook();
	like(error_of($job), qr/private address/, 'an address with other dots is judged as what it is');
	is(scalar @{ requests() }, 0, 'and not asked');
}
POSIX::mkfifo("$dir/fifo", 0600) or die;
($status, $err) = webhook('--secrets', "$dir/fifo");
is($status, 1, 'a FIFO is no file of secrets');
like($err, qr/not a regular file/, 'and holds nobody up');

# This machine's, also where they are public
sub own_addresses { my ($out) = qx(hostname -I 2>/dev/null) =~ /(.*)/; return map { /:/ ? "[$_]" : $_ } grep { !/^fe80/ } split ' ', $out // '' }

# Addresses inside, by whatever name
my @inside = map { enqueue({ url => $_ }) } "$base/ok", "http://localhost:$port/ok", "http://[::1]:$port/ok", "http://[::ffff:127.0.0.1]:$port/ok",
	"http://2130706433:$port/ok", "http://0x7f.1:$port/ok", "http://0:$port/ok", 'http://169.254.169.254/latest', 'http://10.0.0.1/', 'http://100.64.1.1/', 'http://172.31.0.1/',
	'http://192.168.1.1/', 'http://[fd00::1]/', 'http://[fe80::1]/', 'http://[64:ff9b::7f00:1]/', 'http://[2002:7f00:1::]/', 'http://[2002:808:808::1]/',
	'http://[::127.0.0.1]/', 'http://[::ffff:0:127.0.0.1]/', 'http://[2001::5ef5:79fb]/', 'http://[2a00::5efe:7f00:1]/', 'http://[2a00::200:5efe:808:808]/', 'http://[3fff:fff::1]/',
	'http://[5f00::1]/', 'http://[100::1]/', 'http://[ff02::1]/', 'http://[2001:db8::1]/', 'http://[2001:1ff::1]/', 'http://[2620:4f:8000::1]/', 'http://[64:ff9b:1::1]/', 'http://[64:ff9b:1:ffff::808:808]/', 'http://[::ffff:a9fe:a9fe]/', 'http://[2001:0:808:808::f7f7:f7f7]/',
	map("http://$_/", '192.0.0.192', '192.0.2.1', '192.31.196.1', '192.52.193.1', '192.88.99.1', '192.175.48.1', '198.18.0.1', '198.51.100.1', '203.0.113.1', '224.0.0.1',
		'240.0.0.1', '255.255.255.255', '168.63.129.16'), map("http://$_/", own_addresses());
webhook();
is(sql('SELECT count(*) FROM event_queue.dead_letter WHERE job_id IN (' . join(',', @inside) . ") AND errors -> -1 ->> 'message' LIKE '%private address%'"),
	scalar @inside, 'private addresses are refused, for good')
	or diag(sql('SELECT payload, errors FROM event_queue.dead_letter'), sql('SELECT payload, errors FROM event_queue.job'));
is(scalar @{ requests() }, 0, 'and not asked');

# One that IANA has given to nobody is public by its form.
$job = enqueue({ url => 'http://[2d00::1]/' });
webhook('--timeout', '300ms');
like(error_of($job), qr/^no answer/, 'others are not refused');

# Payloads that are none
my @bad = map { enqueue($_) } {}, { url => 1 }, { url => "file:///etc/passwd" }, { url => "gopher://127.0.0.1:$port/" }, { url => "$base/ok\n\nX: y" }, { url => "ftp://$base" },
	{ url => { a => 1 } }, map { +{ url => "$base/ok", headers => $_ } } { Host => 'x' }, { 'Content-Length' => '1' }, { 'webhook-id' => 'x' }, { 'X-A' => "b\r\nX-C: d" },
	{ "X-A: b\nX-C" => 'd' }, { 'X A' => 'b' }, { '' => 'b' };
enqueue($_) for { url => "$base/ok", headers => [ 1, 2 ] };
webhook('--allow-private');
is(sql('SELECT count(*) FROM event_queue.dead_letter WHERE job_id IN (' . join(',', @bad) . ')'), scalar @bad, 'a payload that is no request is a dead letter at once');
is(scalar @{ requests() }, 1, 'without a request; headers that are no object are none');
enqueue({ url => "$base/ok", headers => { 'X-Empty' => '', 'Content-Type' => ' ' } });
webhook('--allow-private');
is_deeply([ map { exists $_->{headers}{'x-empty'} } @{ requests() } ], [ 1 ], 'a header may be empty');

# The same word of any program under eventq work
$job = enqueue({});
run([ qw(eventq work hooks --until-empty -- sh -c), 'echo busy >&2; echo "Retry-After: 90" >&2; exit 1' ], '<', \'', '>', \my $out, '2>', \$err, timeout(60));
is(sql("SELECT run_at - clock_timestamp() BETWEEN '80 s' AND '90 s' FROM event_queue.job WHERE job_id = $job"), 't', 'eventq work: a line retry-after');
is(error_of($job), 'busy', 'which is not the error');

$node->stop;
done_testing();
