# eventq serve over HTTP: signing in as a role of the database, what a role may see and do,
# CSRF, bad requests, and that it goes on after all of them.
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
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
CREATE ROLE metrics LOGIN;
CREATE ROLE ana LOGIN PASSWORD 'ana-pw';
CREATE ROLE bob LOGIN PASSWORD 'bob-pw';
CREATE ROLE acme LOGIN PASSWORD 'acme-pw';
CREATE ROLE nobody LOGIN PASSWORD 'no-pw';
CREATE ROLE free LOGIN PASSWORD 'free-pw';
SELECT event_queue.grant_observer('metrics'), event_queue.grant_admin('ana'), event_queue.grant_observer('bob'),
	event_queue.grant_observer('acme', 'acme'), event_queue.grant_admin('free');
SELECT event_queue.create_queue('mail', max_attempts => 1, keep_completed => '1 day'), event_queue.create_queue('a/b c%d');
SELECT event_queue.enqueue('mail', 'send', '{"html": "<script>alert(1)</script>", "big": 12345678901234567890}');
SELECT event_queue.enqueue('mail', 'send', '{}', tenant_id => 'acme') FROM generate_series(1, 3);
SELECT event_queue.enqueue('a/b c%d', 'x') FROM generate_series(1, 7);
SELECT event_queue.fail(job_id, lease_token, '<img src=x onerror=alert(1)> "quoted"', 'XX001') FROM event_queue.claim('mail', 2);
SELECT event_queue.append('lead', 'a/1', 'lead.created', '{"name": "<b>Ana</b>"}');
SELECT event_queue.append('lead', 'a/1', 'lead.named', '{"name": "Eva"}');
));
# Password for those that have one; "free" is let in by anybody who says so.
open my $hba, '>', $node->data_dir . '/pg_hba.conf' or die $!;
print $hba "local all ana,bob,acme,nobody scram-sha-256\nlocal all all trust\n";
close $hba;
$node->reload;
delete @ENV{qw(PGPASSWORD PGUSER)};

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/tokens", "# tokens\ntoken-of-free-0123456789 free\n");
chmod 0600, "$dir/tokens";
my @base = ('eventq', 'serve', '-d', 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres', '-U', 'metrics', '--listen', '127.0.0.1:0');
sub serve { return start_serve(@base, @_); }

my ($port, $log, $pid) = serve('--allow-actions', '--token-file', "$dir/tokens");
my $no = { port => $port };

# ------------------------------------------------------------ without signing in
is_status(ask($no, 'GET', '/healthz'), 200, '/healthz');
is_status(ask($no, 'GET', '/readyz'), 200, '/readyz');
my $page = ask($no, 'GET', '/');
is_status($page, 200, 'the page');
like($page->{headers}{'content-security-policy'}, qr/default-src 'none'; script-src 'self'; style-src 'self'/, 'content security policy');
unlike($page->{content}, qr/<script(?![^>]*src=)|<style|\son\w+=|style=/, 'no script and no style in the page itself');
is($page->{headers}{'x-frame-options'}, 'DENY', 'not in frames');
my $etag = $page->{headers}{etag};
is_status(ask($no, 'GET', '/', undef, 'If-None-Match' => $etag), 304, 'not sent again');
my $zipped = ask($no, 'GET', '/app.js', undef, 'Accept-Encoding' => 'gzip');
is($zipped->{headers}{'content-encoding'}, 'gzip', 'compressed');
is_status(ask($no, 'GET', $_), 404, "nothing at $_") for '/nothing', '/../../etc/passwd', '/%2e%2e/x', '/app.js/';
for my $path (qw(/api/overview /api/queues /api/dead /api/session))
{
	is_status(ask($no, 'GET', $path), 401, "$path needs a sign-in");
}
is_status(ask({ port => $port, cookie => 'eventq=' . 'a' x 64 }, 'GET', '/api/queues'), 401, 'made-up cookie');
is(ask($no, 'GET', '/api/queues')->{headers}{'content-type'}, 'application/problem+json', 'problem details');

# ------------------------------------------------------------ signing in
is_status(sign_in($port, 'ana', 'wrong')->{answer}, 401, 'wrong password');
is_status(sign_in($port, 'no-such-role', 'x')->{answer}, 401, 'no such role');
is_status(sign_in($port, 'ana', '')->{answer}, 400, 'no password');
is_status(sign_in($port, 'free', 'free-pw')->{answer}, 401, 'a role that the database does not ask for its password is refused');
is_status(sign_in($port, 'postgres', 'x')->{answer}, 401, 'so is the superuser');
is_status(sign_in($port, 'nobody', 'no-pw')->{answer}, 403, 'a role without access');
is_status(sign_in($port, 'ana', 'ana-pw', 'X-CSRF-Token' => undef)->{answer}, 403, 'sign-in by another page');
is_status(sign_in($port, 'ana', 'ana-pw', 'Sec-Fetch-Site' => 'cross-site')->{answer}, 403, 'sign-in from another site');
is_status(sign_in($port, 'ana%00', 'ana-pw')->{answer}, 400, 'a NUL in the name');
is_status(sign_in($port, 'dbname=x user=ana', 'ana-pw')->{answer}, 401, 'the name is not a connection string');
my $ana = sign_in($port, 'ana', 'ana-pw');
is_status($ana->{answer}, 200, 'an admin signs in');
like($ana->{answer}{headers}{'set-cookie'}, qr/; HttpOnly; SameSite=Strict/, 'cookie');
is($ana->{answer}{json}{about}{user}, 'ana', 'who');
my $bob = sign_in($port, 'bob', 'bob-pw');
my $acme = sign_in($port, 'acme', 'acme-pw');
is($acme->{answer}{json}{about}{tenant}, 'acme', 'bound to a tenant');
unlike(slurp_file($log), qr/ana-pw/, 'no password in the log');

# ------------------------------------------------------------ reading
my $queues = ask($ana, 'GET', '/api/queues');
is_deeply([ map { $_->{queue} } grep { $_->{queue} =~ m{^(mail|a/b)} } @{ $queues->{json}{items} } ], [ 'a/b c%d', 'mail' ], 'queues');
is(ask($ana, 'GET', '/api/queues/a%2Fb%20c%25d')->{json}{status}{depth}, '7', 'a name with a slash; bigint as text');
is_status(ask($ana, 'GET', '/api/queues/none'), 404, 'no such queue');
my $seen = ask($ana, 'GET', '/api/jobs?queue=a%2Fb+c%25d&limit=3');
my @ids = map { $_->{job_id} } @{ $seen->{json}{items} };
while ($seen->{json}{next})
{
	$seen = ask($ana, 'GET', '/api/jobs?queue=a%2Fb+c%25d&limit=3&after=' . ($seen->{json}{next} =~ s/([^\w.-])/sprintf '%%%02X', ord $1/ger));
	push @ids, map { $_->{job_id} } @{ $seen->{json}{items} };
}
is(scalar @ids, 7, 'all pages');
is_deeply([ sort { $a <=> $b } @ids ], \@ids, 'in order, none twice');
for my $path ('/api/overview', '/api/health', '/api/queues?sort=depth', '/api/queues/mail/jobs', '/api/queues/mail/limits', '/api/queues/mail/handlers', '/api/jobs',
	'/api/jobs?state=leased', '/api/jobs?state=blocked&queue=mail', '/api/jobs?state=completed', '/api/jobs?state=completed&queue=mail', '/api/next', '/api/dead', '/api/dead?queue=mail',
	'/api/dead/preview?queue=mail', '/api/events', '/api/aggregates/lead/a%2F1', '/api/aggregates/lead/a%2F1/state?version=1', '/api/aggregates/lead/a%2F1/diff?from=1&to=2',
	'/api/aggregates/lead/a%2F1/activity', '/api/rules', '/api/schedules', '/api/flows', '/api/flows/1', '/api/subscriptions', '/api/workers', '/api/store',
	'/api/queues/mail/stats', '/api/queues/mail/names', '/api/tenants', '/api/slo', '/api/stats/timeseries', '/api/stats/timeseries?queue=mail&since=2+hours&step=5+minutes', '/api/alerts', '/api/alerts/history', '/api/audit')
{
	is_status(ask($ana, 'GET', $path), 200, $path);
	is_status(ask($bob, 'GET', $path), 200, "$path, an observer");
	like(ask($acme, 'GET', $path)->{status}, qr/^(200|40\d|422)$/, "$path, bound to a tenant");
}
is(ask($ana, 'GET', '/api/jobs')->{headers}{'content-type'}, 'application/json', 'JSON is sent as JSON');
my $hour = ask($ana, 'GET', '/api/stats/timeseries')->{json};
cmp_ok(scalar(@{ $hour->{items} }), '>=', 59, 'a time series has each minute of an hour');
cmp_ok(scalar(@{ ask($ana, 'GET', '/api/stats/timeseries?queue=mail&since=2+hours&step=5+minutes')->{json}{items} }), '<=', 25, 'or of another time');
is(ask($ana, 'GET', '/api/stats/timeseries?queue=mail&since=9999+hours')->{json}{sqlstate}, 'EQ009', 'not of any');
is_status(ask($ana, 'GET', '/api/stats/timeseries?queue=none'), 404, 'nor of a queue that is none');
is_deeply(ask($acme, 'GET', '/api/stats/timeseries')->{json}{items}, [], 'a bound role sees none of all tenants');
my $dead = ask($ana, 'GET', '/api/dead?queue=mail&search=quoted')->{json}{items};
is(scalar @$dead, 2, 'dead letters by search');
is($dead->[0]{last_error}, '<img src=x onerror=alert(1)> "quoted"', 'HTML in an error stays text');
my $first = (sort { $a->{job_id} <=> $b->{job_id} } @$dead)[0]{job_id};
my $job = ask($ana, 'GET', "/api/jobs/$first")->{json};
like($job->{payload_text}, qr/<script>alert\(1\)<\/script>/, 'and in a payload');
like($job->{payload_text}, qr/12345678901234567890/, 'large numbers keep all digits');
is_status(ask($ana, 'GET', '/api/jobs/abc'), 400, 'not a number');
is(ask($ana, 'GET', '/api/jobs/abc')->{json}{sqlstate}, '22P02', 'with its SQLSTATE');
is_status(ask($ana, 'GET', "/api/queues/x'%3B%20DROP%20TABLE%20event_queue.job%3B--"), 404, 'a value is not SQL');
is_status(ask($ana, 'GET', '/api/jobs?after=x'), 400, 'a bad cursor');
is_status(ask($ana, 'GET', '/api/queues/%zz'), 404, 'a broken name');

# ------------------------------------------------------------ what a role may see
my $theirs = ask($acme, 'GET', '/api/jobs')->{json}{items};
is_deeply([ map { $_->{tenant_id} } @$theirs ], [ ('acme') x 2 ], 'a bound role sees jobs of its tenant only');
is(ask($bob, 'GET', "/api/jobs/$first")->{json}{payload_text}, undef, 'an observer sees no payloads');
is(ask($bob, 'GET', '/api/events')->{json}{items}[0]{data_text}, undef, 'nor data of events');
$node->safe_psql('postgres', q(
CREATE TABLE public.one (id int PRIMARY KEY);
INSERT INTO public.one VALUES (1);
CREATE FUNCTION public.twice(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.one VALUES (1)';
SELECT event_queue.create_queue('twice', max_attempts => 1), event_queue.create_handler('twice', 'twice', 'public.twice');
));
my $twice = $node->safe_psql('postgres', q(SELECT event_queue.enqueue('twice', 'twice')));
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM event_queue.dead_letters WHERE job_id = $twice") or die 'no dead letter';
is(ask($ana, 'GET', "/api/jobs/$twice")->{json}{errors}[0]{detail}, 'Key (id)=(1) already exists.', 'an admin sees the detail of an error');
my ($error) = @{ ask($bob, 'GET', "/api/jobs/$twice")->{json}{errors} };
like($error->{message}, qr/duplicate key/, 'an observer its message');
ok(!exists $error->{detail}, 'and not its detail, in which a row may stand');
$node->safe_psql('postgres', q(SELECT event_queue.drop_handler('twice', 'twice'); SELECT event_queue.drop_queue('twice', force => true)));
is(ask($bob, 'GET', '/api/aggregates/lead/a%2F1/state')->{json}{state_text}, undef, 'nor states');
is_deeply(ask($bob, 'GET', '/api/dead?search=script')->{json}{items}, [], 'nor finds by them');
is_status(ask($acme, 'GET', "/api/jobs/$first"), 404, 'nor does a bound role see another tenant\'s job');

# ------------------------------------------------------------ acting
is_status(ask($ana, 'POST', "/api/dead/$first/retry", '{}', 'X-CSRF-Token' => undef), 403, 'no CSRF token');
is_status(ask($ana, 'POST', "/api/dead/$first/retry", '{}', 'X-CSRF-Token' => 'a' x 64), 403, 'a wrong one');
is_status(ask($ana, 'POST', "/api/dead/$first/retry", '{}', 'X-CSRF-Token' => $bob->{csrf}), 403, 'that of another session');
is_status(ask($ana, 'POST', "/api/dead/$first/retry", '{}', 'Sec-Fetch-Site' => 'cross-site'), 403, 'from another site');
is_status(ask($ana, 'GET', "/api/dead/$first/retry"), 405, 'GET does nothing');
is_status(ask($bob, 'POST', "/api/dead/$first/retry", '{}'), 403, 'an observer may not retry, whatever the page shows');
is(ask($bob, 'POST', "/api/dead/$first/retry", '{}')->{json}{sqlstate}, '42501', 'since the database says so');
is_status(ask($acme, 'POST', '/api/queues/mail/pause', '{}'), 403, 'nor a bound role pause a queue');
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.dead_letter"), '2', 'nothing has happened');
is_status(ask($ana, 'POST', "/api/dead/$first/retry", '{"payload": {"n": 98765432109876543210}}'), 200, 'an admin retries with another payload');
is($node->safe_psql('postgres', "SELECT payload ->> 'n' FROM event_queue.job WHERE job_id = $first"), '98765432109876543210', 'exactly this one');
is_status(ask($ana, 'POST', "/api/dead/$first/retry", '{}'), 404, 'not again');
is(ask($ana, 'POST', "/api/dead/$first/retry", '{}')->{json}{sqlstate}, 'EQ017', 'EQ017');
is_status(ask($ana, 'POST', '/api/dead/retry', '{"ids": "x"'), 400, 'a body that is not JSON');
is_status(ask($ana, 'POST', '/api/queues/mail/pause'), 200, 'pause');
is(ask($ana, 'GET', '/api/queues/mail')->{json}{settings}{paused}, JSON::PP::true, 'it is paused');
is_status(ask($ana, 'POST', '/api/queues/mail/resume'), 200, 'resume');
is(ask($ana, 'POST', '/api/dead/retry-all', '{"queue": "mail", "max": 1}')->{json}{count}, 1, 'retry all');
is(ask($ana, 'POST', "/api/jobs/$ids[0]/cancel")->{json}{result}, 'cancelled', 'cancel');
like(slurp_file($log), qr{action role=ana path=/api/queues/mail/pause outcome=done}, 'actions are logged');
like(slurp_file($log), qr{action role=bob path=/api/dead/$first/retry outcome=42501}, 'refused ones, too');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'eventq serve ana' AND usename = 'ana'") > 0, 1, 'the session is the role\'s own');
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue.job WHERE queue_id > 2"), '10', 'what there should be');

is($node->safe_psql('postgres', "SELECT count(*) > 0 FROM event_queue.audit_log WHERE session_role = 'ana' AND application_name = 'eventq serve ana' AND action = 'pause_queue'"), 't', 'and audited, with who it was');
my $audit = ask($ana, 'GET', '/api/audit?limit=1')->{json};
is(scalar @{ $audit->{items} }, 1, 'the audit log, page by page');
ok($audit->{next}, 'with a next one');

# ------------------------------------------------------------ tokens
my $token = { port => $port };
is(ask($token, 'GET', '/api/session', undef, Authorization => 'Bearer token-of-free-0123456789')->{json}{about}{user}, 'free', 'a token is a role');
is_status(ask($token, 'GET', '/api/queues', undef, Authorization => 'Bearer token-of-free-0123456780'), 401, 'another token is not');
is_status(ask($token, 'POST', '/api/queues/mail/resume', '{}', Authorization => 'Bearer token-of-free-0123456789'), 200, 'a token needs no CSRF token');
my $by_token = ask($token, 'POST', '/api/session', 'token=token-of-free-0123456789', 'X-CSRF-Token' => 'sign-in');
is_status($by_token, 200, 'signing in by token');
append_to_file("$dir/tokens", "token-of-bob-00123456789 bob\n");
chmod 0644, "$dir/tokens";
my ($out, $err) = run_command([ @base, '--token-file', "$dir/tokens" ]);
like($err, qr/only its owner can read/, 'a token file that others can read is refused');
command_fails([ @base, '--payloads', 'some' ], 'wrong option');

# ------------------------------------------------------------ the end of a session
is_status(ask($bob, 'POST', '/api/session/end', '{}'), 200, 'sign out');
is_status(ask($bob, 'GET', '/api/queues'), 401, 'the cookie is worth nothing then');

# ------------------------------------------------------------ read-only, and time limits
my ($quiet, $quiet_log) = serve('--payloads', 'none', '--statement-timeout', '300', '--session-idle', '2', '--max-clients', '20', '--max-connections', '2');
my $ana2 = sign_in($quiet, 'ana', 'ana-pw');
is_status(ask($ana2, 'POST', "/api/queues/mail/pause", '{}'), 403, 'no actions without --allow-actions, for an admin neither');
is(ask($ana2, 'GET', '/api/events')->{json}{items}[0]{data_text}, undef, '--payloads none');
my $lock = $node->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE event_queue.dead_letter IN ACCESS EXCLUSIVE MODE');
my $began = time;
like(ask($ana2, 'GET', '/api/dead')->{status}, qr/^50[34]$/, 'what takes too long is given up');
cmp_ok(time - $began, '<', 5, 'soon');
is_status(ask({ port => $quiet }, 'GET', '/healthz'), 200, 'others are served meanwhile');
$lock->query_safe('ROLLBACK');
$lock->quit;
is_status(ask($ana2, 'GET', '/api/dead'), 200, 'and it is well again');
sleep 4;
is_status(ask($ana2, 'GET', '/api/dead'), 401, 'an idle session ends');

# ------------------------------------------------------------ bad requests
my $end = "Host: x\r\nConnection: close\r\n\r\n";
like(raw($port, "GET /healthz HTTP/1.1\r\n$end"), qr{^HTTP/1\.1 200 }, 'a good one');
like(raw($port, "GET /healthz HTTP/1.0\r\n\r\n"), qr{^HTTP/1\.1 200 }, 'HTTP/1.0');
like(raw($port, "\r\n\r\nGET /healthz HTTP/1.1\r\n$end"), qr{^HTTP/1\.1 200 }, 'empty lines before it');
my $two = raw($port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\n$end");
is(() = $two =~ /HTTP\/1\.1 200 /g, 2, 'two in one go') or diag($two);
like(raw($port, "HEAD / HTTP/1.1\r\n$end"), qr{^HTTP/1\.1 200 .*\r\n\r\n$}s, 'HEAD has no body');
for (
	[ "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400, 'without Host, and the end' ], [ "GARBAGE\r\n\r\n", 400 ], [ "GET / HTTP/9.9\r\n$end", 505 ], [ "GET / HTTP/1.1\r\n\r\n", 400, 'without Host' ], [ "GET x HTTP/1.1\r\n$end", 400 ],
	[ "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, 'two hosts' ], [ "GET / HTTP/1.1\r\nA b: c\r\n$end", 400 ], [ "GET / HTTP/1.1\r\n folded: x\r\n$end", 400 ],
	[ "GET /\0 HTTP/1.1\r\n$end", 400, 'a NUL' ], [ "GET /\x01 HTTP/1.1\r\n$end", 400 ], [ "DELETE / HTTP/1.1\r\n$end", 405 ],
	[ "POST /api/session HTTP/1.1\r\nTransfer-Encoding: chunked\r\n$end", 411 ], [ "POST / HTTP/1.1\r\nContent-Length: -1\r\n$end", 400 ],
	[ "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n$end", 400, 'two lengths' ], [ "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n$end", 413 ],
	[ "POST / HTTP/1.1\r\nContent-Length: 3000000\r\n$end", 413 ], [ 'GET /' . 'x' x 20000 . " HTTP/1.1\r\n$end", 431 ],
	[ "GET / HTTP/1.1\r\n" . "X: y\r\n" x 200 . $end, 431, 'too many headers' ])
{
	my ($request, $status, $what) = @$_;
	like(raw($port, $request), qr{^HTTP/1\.1 $status }, $what // substr($request, 0, 40) =~ s/[^ -~]+/./gr);
}
$began = time;
like(raw($port, "GET /healthz HTT", \3), qr{^HTTP/1\.1 408 }, 'a request that does not end');
cmp_ok(time - $began, '<', 15, 'is not waited for long');
like(raw($port, "POST /api/session HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nuser=", \1), qr{^HTTP/1\.1 408 }, 'nor a body that does not come');
# Who hangs up in the middle, and many who say nothing
for (1 .. 50)
{
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or next;
	$socket->syswrite("GET /api/overview HTTP/1.1\r\nHost: x\r\nCookie: $ana->{cookie}\r\n\r\n");
	close $socket;
}
my @silent = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $quiet) } 1 .. 30;
sleep 0.5;
like(raw($quiet, "GET /healthz HTTP/1.1\r\n$end"), qr{^HTTP/1\.1 200 }, 'those that say nothing are ended for one that asks');
close $_ for grep { $_ } @silent;
@silent = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $quiet) } 1 .. 30;
for (grep { $_ } @silent) { local $SIG{PIPE} = 'IGNORE'; $_->syswrite('GET /he'); }
sleep 0.5;
like(raw($quiet, "GET /healthz HTTP/1.1\r\n$end"), qr{^HTTP/1\.1 200 }, 'so are requests that do not come to their end');
close $_ for grep { $_ } @silent;
sleep 0.5;
like(raw($quiet, "GET /healthz HTTP/1.1\r\n$end"), qr{^HTTP/1\.1 200 }, 'and then as before');
is_status(ask($ana, 'GET', '/api/overview'), 200, 'after all of that it goes on');

# ------------------------------------------------------------ from this machine, or not
for ('127.0.0.1:8077', 'localhost', 'LOCALHOST:1', '[::1]:8077')
{
	like(raw($port, "GET /metrics HTTP/1.1\r\nHost: $_\r\nConnection: close\r\n\r\n"), qr{^HTTP/1\.1 200 }, "/metrics of $_");
}
# what a browser here sends for a page whose name leads to 127.0.0.1
for ('evil.example:8077', '127.0.0.1.evil.example', '127.evil', 'localhost.evil', '[::1', '')
{
	like(raw($port, "GET /$_->[0] HTTP/1.1\r\nHost: $_->[1]\r\nConnection: close\r\n\r\n"), qr{^HTTP/1\.1 401 }, "/$_->[0] of \"$_->[1]\"")
		for [ 'metrics', $_ ], [ 'health/queues', $_ ];
}
like(raw($port, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n$_: 203.0.113.9\r\nConnection: close\r\n\r\n"), qr{^HTTP/1\.1 401 }, "/metrics for whom a proxy says $_")
	for qw(X-Forwarded-For forwarded X-Real-IP Via);
like(raw($port, "GET /metrics HTTP/1.0\r\nHost: 127.0.0.1:$port\r\nConnection: close\r\n\r\n"), qr{^HTTP/1\.1 401 }, '/metrics for a proxy that says nothing: nginx asks by HTTP/1.0');
like(raw($port, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer token-of-free-0123456789\r\nConnection: close\r\n\r\n"), qr{^HTTP/1\.1 200 }, 'a token is enough');

# ------------------------------------------------------------ one role and another
is_status(ask($ana, 'GET', '/api/overview', undef, Cookie => "x$ana->{cookie}; eventq2=1; $ana->{cookie}"), 200, 'a cookie of another name does not hide ours');
is_status(ask($ana, 'GET', '/api/overview', undef, Cookie => "x$ana->{cookie}; eventq2=1"), 401, 'nor is it taken for ours');
my $first_bob = sign_in($port, 'bob', 'bob-pw');
sleep 1.1;
is(scalar(grep { !sign_in($port, 'bob', 'bob-pw')->{csrf} } 1 .. 260), 0, 'a role signs in very often');
is_status(ask($ana, 'GET', '/api/overview'), 200, 'others stay');
is_status(ask($first_bob, 'GET', '/api/overview'), 401, 'its own oldest session has gone');

# ------------------------------------------------------------ the database goes and comes back
$node->stop('fast');
is_status(ask($ana, 'GET', '/api/overview'), 503, 'without the database: 503');
is_status(ask($no, 'GET', '/readyz'), 503, 'not ready');
is_status(ask($no, 'GET', '/healthz'), 200, 'but alive');
like(ask($no, 'GET', '/metrics')->{content}, qr/^eventq_serve_up 0$/m, '/metrics says so');
$node->start;
is_status(ask($ana, 'GET', '/api/overview'), 200, 'and with it again, without a new sign-in');
is_status(ask($no, 'GET', '/readyz'), 200, 'ready');

my $metrics = ask($no, 'GET', '/metrics');
is_status($metrics, 200, '/metrics');
like($metrics->{content}, qr/^eventq_serve_requests_total \d+$/m, 'its own metrics');
SKIP:
{
	skip 'no prometheus() here', 3 if $node->safe_psql('postgres', "SELECT to_regprocedure('event_queue.prometheus()') IS NULL") eq 't';
	like($metrics->{content}, qr/^event_queue_jobs_enqueued_total\{[^}]*queue="mail"/m, 'metrics of queues');
	my $health = ask($no, 'GET', '/health/queues');
	like($health->{status}, qr/^(200|503)$/, '/health/queues');
	ok(exists $health->{json}{mail}{status}, 'says how a queue is');
}

kill 'TERM', $pid;
is(waitpid($pid, 0), $pid, 'SIGTERM');
is($? >> 8, 0, 'ends well');
serve_ended($pid);
done_testing();
