# The program eventq: all verbs, their formats and exit codes; eventq work: what a child's
# end means, SIGTERM, a lost lease, a cancelled job, a time limit, a restart of the server,
# session-bound leases; eventq doctor.
use strict;
use warnings;
use IPC::Run qw(run start timeout);
use JSON::PP;
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
delete $ENV{PGUSER};
my $dir = PostgreSQL::Test::Utils::tempdir();

sub eventq
{
	my ($out, $err) = ('', '');
	run([ 'eventq', @_ ], '<', \'', '>', \$out, '2>', \$err, timeout(60));
	return ($? >> 8, $out, $err);
}

# One call: exit code and what its output must look like.
sub says
{
	my ($what, $code, $like, @words) = @_;
	my ($status, $out, $err) = eventq(@words);
	my $all = "$out$err";
	my $ok = $status == $code && $all =~ $like;
	ok($ok, $what) or diag("eventq @words: status $status, said: $all");
	return $out;
}

sub json_of
{
	my ($status, $out, $err) = eventq(@_, '-o', 'json');
	my $json = eval { decode_json($out) };
	diag("eventq @_: status $status: $out$err") unless $json;
	return $json // [];
}

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub wait_until
{
	my ($test, $seconds) = @_;
	my $end = time + ($seconds // 20);
	while (time < $end)
	{
		return 1 if $test->();
		sleep 0.05;
	}
	return 0;
}

# before there is an extension
says('without the extension the hint says what to do', 1, qr/HINT:.*CREATE EXTENSION/, qw(queue ls));
says('doctor says so, too', 3, qr/CREATE EXTENSION event_queue;/, 'doctor');
sql('CREATE EXTENSION event_queue');
$node->poll_query_until('postgres', "SELECT bool_and(ok) FROM event_queue.health()");
says('health', 0, qr/scheduler/, 'health');

# usage
says('help', 0, qr/work QUEUE -- COMMAND/, '--help');
says('help of a verb', 0, qr/--dry-run/, qw(dead discard --help));
says('version', 0, qr/^eventq \d/, '--version');
says('no command', 2, qr/Try/);
says('unknown noun', 2, qr/unknown command "nouns"/, 'nouns');
says('unknown verb', 2, qr/It has: ls/, qw(queue nope));
says('unknown option', 2, qr/unrecognized option/, qw(queue ls --nope));
says('an option of another verb', 2, qr/unrecognized option/, qw(queue ls --yes));
says('too many arguments', 2, qr/usage/, qw(queue ls x));
says('too few arguments', 2, qr/usage/, qw(queue show));
says('unknown format', 2, qr/table, json, jsonl or csv/, qw(queue ls -o xml));
says('no server', 1, qr/failed/, qw(queue ls -h /nowhere));
says('no database', 1, qr/does not exist/, qw(queue ls -d nowhere));
says('a connection string', 0, qr/snapshots/, qw(queue ls -d), $node->connstr('postgres'));

# queues
says('create', 0, qr/mail: created/, qw(queue create mail max_attempts=1), 'keep_completed=1 day');
says('create with a bad setting', 1, qr/22P02/, qw(queue create bad max_attempts=many));
says('a bad setting creates nothing', 1, qr/no queue "bad"/, qw(queue show bad));
says('set', 0, qr/2 changed/, qw(queue set mail rate_limit=50), 'lease=45 seconds');
is(sql("SELECT rate_limit, lease FROM event_queue.queue WHERE name = 'mail'"), '50|00:00:45', 'as it was set');
says('set to null', 0, qr/1 changed/, qw(queue set mail rate_limit=null));
says('unknown setting', 2, qr/no setting "leas".*lease/s, qw(queue set mail leas=1));
says('no setting', 2, qr/SETTING=VALUE/, qw(queue set mail x));
says('show', 0, qr/^lease +00:00:45$/m, qw(queue show mail));
is(json_of(qw(queue show mail))->[0]{max_attempts}, 1, 'show as JSON');
says('pause', 0, qr/mail: paused/, qw(queue pause mail));
says('pause again', 0, qr/already/, qw(queue pause mail));
is((grep { $_->{queue} eq 'mail' } @{ json_of(qw(queue ls)) })[0]{state}, 'paused', 'ls says so');
says('one of two is not there', 1, qr/mail: resumed.*nope/s, qw(queue resume mail nope));
says('drain', 0, qr/jobs left: 0/, qw(queue drain mail));
says('resume', 0, qr/mail: resumed/, qw(queue resume mail));
says('CSV', 0, qr/\Aqueue,state,depth,/, qw(queue ls -o csv));
says('CSV, quiet', 0, qr/\Amail,/, qw(queue ls -q -o csv));
says('JSON lines', 0, qr/\A\{"queue": "mail".*\}\n\{/, qw(queue ls -o jsonl));
unlike((eventq(qw(queue ls)))[1], qr/\e/, 'no colour in a pipe');

# jobs
is(says('add', 0, qr/job_id/, qw(job add mail hello), '{"n": 12345678901234567890}', '-o', 'csv'), "job_id\n1\n", 'its number');
says('JSON numbers are exact', 0, qr/"n": 12345678901234567890/, qw(job show 1 -o json));
says('bad JSON', 1, qr/22P02/, qw(job add mail hello {));
says('unknown queue', 1, qr/EQ010/, qw(job add nope hello));
says('add with a delay', 0, qr/2/, qw(job add mail later --delay), '1 hour', '--priority', '1');
is(scalar(@{ json_of(qw(job ls mail)) }), 2, 'ls of a queue');
is(json_of(qw(job ls --state scheduled))->[0]{job_id}, 2, 'ls by state');
is(scalar(@{ json_of(qw(job ls mail --name hello --tenant default)) }), 1, 'ls by name and tenant');
says('why', 0, qr/delayed/, qw(job why 2));
says('no such job', 1, qr/no job 99/, qw(job show 99));
says('no job id', 2, qr/is not a job id/, qw(job show x));
says('cancel', 1, qr/2: cancelled.*99/s, qw(job cancel 2 99));
sql(q(SELECT event_queue.log_job(job_id, lease_token, 'half of it') FROM event_queue.claim('mail', worker => 'me')));
says('log', 0, qr/half of it/, qw(job log 1));
is(json_of(qw(worker ls))->[-1]{worker}, 'me', 'worker ls shows who has jobs');

# dead letters
sql(q(SELECT event_queue.fail(job_id, lease_token, E'bro\033[2Jken', 'XX001') FROM event_queue.job WHERE job_id = 1));
says('dead ls; what an error says does nothing to the terminal', 0, qr/bro\\x1b\[2Jken/, qw(dead ls mail));
is(json_of(qw(dead ls --sqlstate XX001))->[0]{job_id}, 1, 'by SQLSTATE');
is(scalar(@{ json_of(qw(dead ls --sqlstate XX002)) }), 0, 'none of another');
says('dead show', 0, qr/XX001/, qw(dead show 1));
says('retry needs a filter', 2, qr/--all/, qw(dead retry));
is(json_of(qw(dead retry --queue mail --since), '1 hour', '--dry-run')->[0]{jobs}, 1, 'dry run');
says('which changed nothing', 0, qr/^mail +1/m, qw(dead retry --all --dry-run));
says('retry of an unknown queue', 1, qr/EQ010/, qw(dead retry --queue nope));
says('retry by filter', 0, qr/^1 jobs/m, qw(dead retry --queue mail --sqlstate XX001));
sql(q(SELECT event_queue.fail(job_id, lease_token, 'again') FROM event_queue.claim('mail')));
says('retry by number, with a payload', 0, qr/1: is tried again/, qw(job retry 1 --payload {"new":1}));
is(sql('SELECT payload FROM event_queue.job WHERE job_id = 1'), '{"new": 1}', 'the new payload');
sql(q(SELECT event_queue.fail(job_id, lease_token, 'again') FROM event_queue.claim('mail')));
says('discard wants --yes', 2, qr/--yes/, qw(dead discard --all));
says('also by number', 2, qr/--yes/, qw(dead discard 1));
is(json_of(qw(dead discard --all --dry-run))->[0]{jobs}, 1, 'or a dry run');
says('discard', 0, qr/^1 dead letters are gone/m, qw(dead discard --all --yes));
says('it is gone', 1, qr/EQ017/, qw(dead discard 1 --yes));

# events
says('append', 0, qr/^ +1 +1 /m, qw(event append lead L1 lead.created {"step":1} --expect no_stream));
says('wrong version', 1, qr/EQ001/, qw(event append lead L1 lead.created --expect no_stream));
eventq(qw(event append lead L1 lead.changed {"step":2} --tenant default));
eventq(qw(event append note N1 note.created));
is(join(',', map { $_->{event_type} } @{ json_of(qw(event tail --count 2)) }), 'lead.changed,note.created', 'tail');
is(join(',', map { $_->{event_type} } @{ json_of(qw(event tail --type lead.*)) }), 'lead.created,lead.changed', 'by pattern');
is(scalar(@{ json_of(qw(event tail --after 1 --aggregate lead)) }), 1, 'after a position');
is(json_of(qw(event ls lead L1))->[1]{version}, 2, 'ls of an aggregate');
is(json_of(qw(event state lead L1 --at-version 1))->[0]{state}{step}, 1, 'state at a version');
my $id = json_of(qw(event show 1))->[0]{id};
says('show by id', 0, qr/lead\.created/, qw(event show), $id);
says('trace', 0, qr/lead\.created/, qw(event trace), $id);
{
	my ($out, $err) = ('', '');
	my $tail = start([ qw(eventq event tail --count 1 --follow -o json) ], '<', \'', '>', \$out, '2>', \$err, timeout(60));
	wait_until(sub { $tail->pump_nb; $out =~ /note\.created/ });
	eventq(qw(event append note N2 note.created));
	eventq(qw(event append note N2 note.changed));
	ok(wait_until(sub { $tail->pump_nb; $out =~ /note\.changed/ }), 'tail --follow prints what comes');
	$tail->kill_kill;
	is(scalar(() = $out =~ /"position"/g), 3, 'each once') or diag("$out$err");
}

# rules, schedules, subscriptions
sql(q(SELECT event_queue.create_rule('greet', 'lead.*', queue => 'mail', job_name => 'hi')));
sql(q(SELECT event_queue.create_schedule('nightly', '0 3 * * *', 'mail', 'x', time_zone => 'America/Sao_Paulo')));
sql(q(SELECT event_queue.create_subscription('reader')));
says('rule ls', 0, qr{greet +on +lead\.\*.*mail/hi}, qw(rule ls));
says('rule show', 0, qr/^event_pattern +lead/m, qw(rule show greet));
says('rule pause', 0, qr/greet: off/, qw(rule pause greet));
says('rule resume', 0, qr/greet: on/, qw(rule resume greet));
says('no such rule', 1, qr/EQ025/, qw(rule pause nope));
eventq(qw(event append lead L2 lead.created));
ok(wait_until(sub { @{ json_of(qw(rule why greet)) } == 1 }), 'rule why');
says('schedule ls', 0, qr{nightly +on +0 3}, qw(schedule ls));
is(scalar(grep { $_->{local_time} =~ /03:00:00/ } @{ json_of(qw(schedule next nightly --limit 5)) }), 5, 'schedule next');
is(scalar(@{ json_of(qw(schedule next)) }), 1, 'of all');
says('schedule pause', 0, qr/off/, qw(schedule pause nightly));
says('schedule resume', 0, qr/on/, qw(schedule resume nightly));
says('no such schedule', 1, qr/no schedule/, qw(schedule next nope));
says('sub ls', 0, qr/^reader/m, qw(sub ls));
sql(q(SELECT count(*) FROM event_queue.fetch_events('reader'); SELECT event_queue.park_event('reader', 1, 'bad egg')));
says('sub parked', 0, qr/bad egg/, qw(sub parked reader));
sql(q(CREATE ROLE reading LOGIN; SELECT event_queue.grant_consumer('reading'); CREATE ROLE looking LOGIN; SELECT event_queue.grant_observer('looking')));
says("sub parked as $_", 0, qr/bad egg/, qw(sub parked reader -U), $_) for qw(reading looking);
says('sub retry needs a filter', 2, qr/--all/, qw(sub retry reader));
says('sub retry', 0, qr/^1 aggregates/m, qw(sub retry reader lead L1));
says('sub reset wants --yes', 2, qr/--yes/, qw(sub reset reader --to 1));
says('sub reset', 0, qr/after position 1/, qw(sub reset reader --to 1 --yes));

# health
says('fault ls', 0, qr/no rows/, qw(fault ls));
sql(q(SELECT event_queue.create_queue('late', sla => '1 ms'); SELECT event_queue.enqueue('late', 'x'); SELECT pg_sleep(0.1)));
says('health says what is not well, and ends with 3', 3, qr/queue late/, qw(health --problems));
says('drop wants --yes', 2, qr/--yes/, qw(queue drop late));
is(json_of(qw(queue drop late --dry-run))->[0]{jobs}, 1, 'or a dry run');
says('a queue with jobs', 1, qr/EQ013/, qw(queue drop late --yes));
says('drop', 0, qr/dropped/, qw(queue drop late --yes --force));
# What this database may not have yet is an error that says so.
for my $of ([ 'metrics', 'prometheus' ], [ 'slo', 'slo_status' ], [ 'alert ls', 'alerts' ], [ 'alert history', 'alert_history' ],
	[ 'audit ls', 'audit_log' ], [ 'queue health mail', 'queue_health' ], map { [ "stats $_", "${_}_stats" ] } qw(queue job tenant rule schedule worker event))
{
	my ($words, $name) = @$of;
	my $is_there = sql("SELECT to_regclass('event_queue.$name') IS NOT NULL OR to_regproc('event_queue.$name') IS NOT NULL") eq 't';
	if ($is_there) { says($words, 0, qr/./, split / /, $words) }
	else { says("$words: is not there", 1, qr/HINT:.*ALTER EXTENSION event_queue UPDATE/, split / /, $words) }
}
my $watched = '';
{
	my $watch = start([ qw(eventq queue ls --watch 0.2 -o jsonl) ], '<', \'', '>', \$watched, timeout(60));
	ok(wait_until(sub { $watch->pump_nb; (() = $watched =~ /"mail"/g) >= 3 }), '--watch looks again');
	$watch->kill_kill;
}
says('completion', 0, qr/complete -F _eventq eventq/, 'completion');
is((eventq('completion'))[1] =~ /\S/ && system("eventq completion | bash -n"), 0, 'which bash can read');

# rights are those of the role
sql(q(CREATE ROLE watcher LOGIN; SELECT event_queue.grant_observer('watcher'); CREATE ROLE stranger LOGIN));
says('an observer sees', 0, qr/mail/, qw(queue ls -U watcher));
says('and changes nothing', 1, qr/42501/, qw(queue pause mail -U watcher));
says('a stranger does not see', 1, qr/42501/, qw(queue ls -U stranger));

# work
my $handler = "$dir/handler";
append_to_file($handler, <<'SH');
#!/bin/bash
dir=$(dirname "$0")
echo "start $EVENTQ_JOB_ID $EVENTQ_ATTEMPT $$" >>"$dir/log"
[ "$EVENTQ_NAME" = deaf ] || payload=$(cat)
case $EVENTQ_NAME in
json) echo "{\"got\": $payload, \"attempt\": $EVENTQ_ATTEMPT, \"queue\": \"$EVENTQ_QUEUE\", \"tenant\": \"$EVENTQ_TENANT\"}" ;;
text) echo 'no "JSON"' ;;
binary) printf 'a\0b\xff' ;;
size) printf '%s' "${#payload}" ;;
deaf | ok) ;;
later) [ -e "$dir/later" ] || { touch "$dir/later"; exit 75; } ;;
dead) echo "never again" >&2; exit 100 ;;
fail) echo "first line" >&2; echo "it broke" >&2; exit 3 ;;
silent) exit 4 ;;
steers) printf '\a\033[31mred' >&2; exit 100 ;;
signal) kill -9 $$ ;;
short) sleep 0.3 ;;
slow) sleep "$(tr -dc 0-9. <<<"$payload")" ;;
graceful) trap 'exit 0' TERM; sleep 60 & wait ;;
stubborn) trap '' TERM; sleep 60 ;;
esac
echo "end $EVENTQ_JOB_ID $EVENTQ_ATTEMPT $$" >>"$dir/log"
SH
chmod 0755, $handler;

sub logged { return -e "$dir/log" ? slurp_file("$dir/log") : ''; }
sub enqueue { return sql("SELECT event_queue.enqueue('work', '$_[0]', '" . ($_[1] // '{}') . "'" . ($_[2] // '') . ')'); }
sub worker
{
	my ($err, @options) = @_;
	return start([ qw(eventq work work), @options, '--', $handler ], '<', \'', '2>', $err, timeout(120));
}
sub outcome { return sql("SELECT event_queue.job_outcome($_[0]) ->> 'state'"); }
sub ended
{
	my ($worker) = @_;
	$worker->finish;
	return $worker->full_result(0) >> 8;
}
sub signal { my ($worker, $signal) = @_; kill $signal, $worker->{KIDS}[0]{PID}; }

sql(q(SELECT event_queue.create_queue('work', keep_completed => '1 day', max_attempts => 1, lease => '3 seconds')));
says('no such program', 1, qr/no program/, qw(work work -- /nowhere/nothing));
says('no such queue', 1, qr/EQ010/, qw(work nope -- true));
says('no command', 2, qr/usage/, qw(work work));
says('bad concurrency', 2, qr/--concurrency/, qw(work work --concurrency 0 -- true));
my %job;
$job{$_} = enqueue($_) for qw(text binary deaf dead fail silent signal later);
$job{json} = enqueue('json', '{"a": [1, "ü"]}');
$job{size} = enqueue('size', '"' . 'x' x 700000 . '"');
my $err = '';
is(ended(worker(\$err, '--concurrency', 3, '--max-jobs', 11, '--later', '100 ms')), 0, 'it ends after --max-jobs') or diag($err);
is(sql("SELECT result FROM event_queue.history WHERE job_id = $job{json}"),
	'{"got": {"a": [1, "ü"]}, "queue": "work", "tenant": "default", "attempt": 1}', 'payload on stdin, job in the environment, JSON as the result');
is(sql("SELECT result FROM event_queue.history WHERE job_id = $job{text}"), '"no \"JSON\""', 'other output is a string');
is(sql("SELECT result FROM event_queue.history WHERE job_id = $job{binary}"), '"a?b?"', 'whatever its bytes are');
is(sql("SELECT result FROM event_queue.history WHERE job_id = $job{size}"), 700002, 'a large payload');
is(outcome($job{deaf}), 'completed', 'who does not read it may as well succeed');
is(sql("SELECT failures FROM event_queue.history WHERE job_id = $job{later}"), 0, '75: tried later, which is no failure');
is(sql("SELECT reason, last_error FROM event_queue.dead_letters WHERE job_id = $job{dead}"), 'final|never again', '100: dead');
is(sql("SELECT reason, last_error, errors -> 0 ->> 'context' FROM event_queue.dead_letters WHERE job_id = $job{fail}"),
	"attempts|it broke|first line\nit broke\n(exit status 3)", 'any other: failed, with the end of stderr');
is(sql("SELECT last_error FROM event_queue.dead_letters WHERE job_id = $job{silent}"), 'exit status 4', 'or the status');
is(sql("SELECT last_error FROM event_queue.dead_letters WHERE job_id = $job{signal}"), 'killed by signal 9', 'or the signal');
like($err, qr/^\[$job{fail}\] it broke$/m, 'stderr goes to ours');

# waking: nothing is polled within these 60 s
unlink "$dir/log";
my $worker = worker(\$err, '--look', 60, '--grace', 30);
sleep 1;
my $began = time;
my $ok = enqueue('ok');
ok(wait_until(sub { outcome($ok) eq 'completed' }), 'a job that comes wakes it');
my $delayed = enqueue('ok', '{}', q(, delay => '1 second'));
ok(wait_until(sub { outcome($delayed) eq 'completed' }), 'and one that comes due');
cmp_ok(time - $began, '<', 30, 'long before it would look');

# SIGTERM: what is at hand ends, nothing more is begun
my $slow = enqueue('slow', '2');
ok(wait_until(sub { logged() =~ /start $slow / }), 'a slow job runs');
my $next = enqueue('ok');
signal($worker, 'TERM');
is(ended($worker), 0, 'SIGTERM: it ends well');
is(outcome($slow), 'completed', 'the job at hand was finished');
is(outcome($next), 'ready', 'and the next one not begun');
sql("SELECT event_queue.cancel_job($next)");

# beyond the grace children are stopped, and their jobs given back uncounted
my @given = map { enqueue($_, '60') } qw(slow graceful stubborn);
$worker = worker(\$err, '--concurrency', 3, '--grace', 0.5);
ok(wait_until(sub { my $log = logged(); !grep { $log !~ /start $_ / } @given }), 'three run');
signal($worker, 'TERM');
is(ended($worker), 0, 'it ends though one does not want to');
is(sql("SELECT count(*) FROM event_queue.jobs WHERE state = 'ready' AND failures = 0 AND stalled = 0 AND job_id IN ("
	. join(',', @given) . ')'), 3, 'all are given back, none counts, also the one that ended with 0');
my %pid = logged() =~ /^start (\d+) \d+ (\d+)$/mg;
ok(!(grep { kill 0, $pid{$_} } @given), 'no child is left');
sql("SELECT event_queue.cancel_job(j) FROM unnest('{" . join(',', @given) . "}'::bigint[]) j");

# leases are renewed; one that is lost, cancelled or at its limit ends the child
$worker = worker(\$err, '--concurrency', 4, '--grace', 0.2);
my $long = enqueue('slow', '7');
my $lost = enqueue('slow', '60');
my $cancelled = enqueue('slow', '60');
my $limited = enqueue('stubborn', '60', q(, options => '{"time_limit": "2 seconds"}'));
ok(wait_until(sub { my $log = logged(); !grep { $log !~ /start $_ / } $long, $lost, $cancelled, $limited }), 'four run');
%pid = logged() =~ /^start (\d+) \d+ (\d+)$/mg;
sql("SELECT event_queue.cancel_job($cancelled)");
sql("UPDATE event_queue.job SET lease_token = gen_random_uuid(), leased_by = 'thief', leased_until = now() + interval '1 minute' WHERE job_id = $lost");
ok(wait_until(sub { !kill 0, $pid{$lost} }, 5), 'the child of a lost lease is killed');
is(sql("SELECT leased_by FROM event_queue.job WHERE job_id = $lost"), 'thief', 'and nothing is said about the job');
ok(wait_until(sub { outcome($cancelled) eq 'dead' }, 8), 'a cancelled job is dead');
ok(!kill(0, $pid{$cancelled}), 'and its child is gone');
ok(wait_until(sub { outcome($limited) eq 'dead' }, 12), 'so is one that goes on beyond its time limit') or diag(outcome($limited), $err);
ok(!kill(0, $pid{$limited}), 'and its child') or diag($err);
ok(wait_until(sub { outcome($long) eq 'completed' }, 15), 'the others are not concerned, well beyond one lease');
is(sql("SELECT stalled FROM event_queue.history WHERE job_id = $long"), 0, 'which was renewed');

# killed without a word: its children die with it
my $orphan = enqueue('slow', '60');
ok(wait_until(sub { logged() =~ /start $orphan / }), 'a job runs');
%pid = logged() =~ /^start (\d+) \d+ (\d+)$/mg;
signal($worker, 'KILL');
eval { $worker->finish };
ok(wait_until(sub { !kill 0, $pid{$orphan} }, 5), 'kill -9: the child dies, too');
sql("SELECT event_queue.cancel_job(j) FROM unnest('{$lost,$orphan}'::bigint[]) j");
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM event_queue.jobs WHERE state = 'leased' AND leased_by <> 'thief'");
sql("SELECT event_queue.purge_queue('work'); SELECT event_queue.discard_all_dead('work')");

# restarts of the server: nothing is lost, nothing is run again once it was confirmed
sql("SELECT event_queue.alter_queue('work', max_attempts => 9, max_stalled => 9)");
unlink "$dir/log";
$err = '';
my @many = split /\n/, sql("SELECT event_queue.enqueue('work', 'short') FROM generate_series(1, 60)");
$worker = worker(\$err, '--concurrency', 4, '--grace', 5);
for my $mode (qw(fast immediate))
{
	my $seen = () = logged() =~ /^end/mg;
	wait_until(sub { $worker->pump_nb; (() = logged() =~ /^end/mg) >= $seen + 8 });
	$node->stop($mode);
	sleep 1;
	$node->start;
}
ok(wait_until(sub { $worker->pump_nb; sql("SELECT count(*) FROM event_queue.history WHERE queue = 'work' AND job_id >= $many[0]") == @many }, 60),
	'all jobs are done over two restarts') or diag($err);
signal($worker, 'TERM');
is(ended($worker), 0, 'and the worker is well');
like($err, qr/connected again/, 'it connected again');
is(sql("SELECT count(DISTINCT job_id) = count(*) FROM event_queue.history WHERE queue = 'work'"), 't', 'each was completed once');
my $twice = 0;
for my $job (@many)
{
	my ($confirmed) = $err =~ /(job $job \(short\) completed.*)/s or next;
	$twice++ if $confirmed =~ /job $job \(short\) (?:completed|failed).*job $job \(short\) (?:completed|failed)/s;
}
is($twice, 0, 'none was run again after it was confirmed');
my $runs = () = logged() =~ /^start/mg;
cmp_ok($runs, '<=', @many + 8, "only what was at hand at a restart may have been run twice ($runs runs of " . @many . ')');

# session-bound leases go with the connection
my $bound = enqueue('slow', '6');
$err = '';
$worker = worker(\$err, '--session', '--lease', '1 hour', '--grace', 0.2);
ok(wait_until(sub { logged() =~ /start $bound / }), 'a job runs');
%pid = logged() =~ /^start (\d+) \d+ (\d+)$/mg;
is(sql("SELECT pg_terminate_backend(lease_pid) FROM event_queue.job WHERE job_id = $bound"), 't', 'its connection is ended');
ok(wait_until(sub { $worker->pump_nb; !kill 0, $pid{$bound} }, 3), 'the child is killed at once');
unlike(logged(), qr/end $bound /, 'before it has ended');
ok(wait_until(sub { $worker->pump_nb; outcome($bound) eq 'completed' }, 20), 'and the job is done anew, without waiting for an hour') or diag($err);
signal($worker, 'TERM');
is(ended($worker), 0, 'it ends well');

# a server that goes for good does not keep it
$worker = worker(\$err, '--grace', 0.2);
my $last = enqueue('short');
ok(wait_until(sub { outcome($last) eq 'completed' }), 'it works');
sleep 0.3;
$node->stop;
signal($worker, 'TERM');
is(ended($worker), 0, 'SIGTERM without a server, and nothing at hand: it ends');
$node->start;
$node->poll_query_until('postgres', "SELECT bool_and(ok) FROM event_queue.health()");

# what a child says last can't steer the terminal by our line of it
my $steers = enqueue('steers');
my $said = '';
is(ended(worker(\$said, '--until-empty')), 0, 'a job that fails with control characters');
my ($line) = $said =~ /^([^\n]*job $steers \(steers\) failed[^\n]*)$/m;
like($line // $said, qr/ s:   \[31mred$/, 'they are not in our line');
sql("SELECT event_queue.discard_dead($steers)");

# until the queue is empty
enqueue('ok') for 1 .. 5;
is(ended(worker(\$err, '--until-empty', '-q')), 0, '--until-empty ends by itself');
is(sql("SELECT count(*) FROM event_queue.jobs WHERE queue = 'work' AND state <> 'leased'"), 0, 'when the queue is');

# doctor
says('the doctor finds nothing wrong', 0, qr/^0 errors/m, 'doctor') or diag('expected.pl reads the install script wrong, or the test left something');
sql(q(
SELECT event_queue.create_event_partition();
SET allow_system_table_mods = on;
DROP INDEX event_queue.job_group;
ALTER TABLE event_queue.job DISABLE TRIGGER count_row;
DROP TRIGGER config_changed ON event_queue.rule;
DROP TRIGGER jobs_loaded ON event_queue.job;
DROP POLICY tenant_isolation ON event_queue.dead_letter;
ALTER TABLE event_queue.schedule DISABLE ROW LEVEL SECURITY;
ALTER TABLE event_queue.event_store ENABLE TRIGGER refuse_change;
ALTER FUNCTION event_queue.pause_queue SECURITY INVOKER;
ALTER FUNCTION event_queue.resume_queue RESET search_path;
ALTER TABLE event_queue.queue DROP CONSTRAINT queue_name_key;
UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'event_queue.job_log_at'::regclass;
));
is(join("\n", sort map { "$_->{area} $_->{detail}" } grep { $_->{level} eq 'error' } @{ json_of('doctor') }), join("\n",
	'catalog constraint queue_name_key is missing', 'catalog index job_group is missing', 'catalog policy tenant_isolation is missing',
	'catalog row security is off', 'catalog trigger config_changed is missing', 'catalog trigger jobs_loaded is missing', 'catalog trigger refuse_change does not fire always',
	"functions the function does not act with its owner's rights", 'functions the function has no search_path of its own',
	'indexes index event_queue.job_log_at is invalid', 'triggers trigger count_row is disabled'), 'it finds what was broken, each once');
my ($status, $repairs) = eventq(qw(doctor --sql));
is($status, 3, 'exit status 3');
$node->safe_psql('postgres', $repairs);
says('its SQL repairs all of it', 0, qr/^0 errors/m, 'doctor');
sql(q(SET allow_system_table_mods = on; CREATE OR REPLACE FUNCTION event_queue.current_tenant() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'));
says('a function that was replaced', 3, qr/event_queue\.current_tenant: the function has another body/, 'doctor');
# Output that can't be written is told; a pipe that is closed is not; and what is printed to a
# stream that is closed does not get into the connection.
sub shell
{
	my ($command) = @_;
	my ($out, $err) = ('', '');
	run([ 'bash', '-c', $command ], '<', \'', '>', \$out, '2>', \$err, timeout(60));
	return ($? >> 8) . "|$out|$err";
}
SKIP:
{
	skip 'there is no /dev/full', 7 unless -c '/dev/full';
	like(shell("eventq $_ > /dev/full"), qr/^1\|\|eventq: could not write all of the output/, "a full disk: $_")
	  for 'queue ls', '-o json queue ls', 'event tail', 'metrics', '--help', 'queue ls --help', '--version';
}
is(shell('exec 3> >(exec true); wait $!; eventq metrics >&3; echo $?'), "0|1\n|", 'a closed pipe');
like(shell("eventq queue ls >&-"), qr/^1\|\|eventq: could not write all of the output: Bad file descriptor/, 'stdout is closed');
is(shell("eventq queue ls <&- >&- 2>&-"), '1||', 'all are');
is(shell("eventq job add </dev/null >&- 2>&-"), '2||', 'a usage error');

$node->stop;
done_testing();
