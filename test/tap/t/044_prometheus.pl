# prometheus() is read by promtool, by the roles that may; figures of the past come from
# samples: windows of minutes to a month, what is kept, and what is not.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 0
));
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue(E'odd "name"\\\\', sla => '1 minute', owner => E'two\nlines');
SELECT event_queue.enqueue(E'odd "name"\\\\', 'secret', tenant_id => 'a') FROM generate_series(1, 3);
SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim(E'odd "name"\\\\', 2);
CREATE ROLE seer LOGIN;
SELECT event_queue.grant_observer('seer');
CREATE ROLE tenant_b LOGIN;
SELECT event_queue.grant_observer('tenant_b', 'b');
CREATE ROLE nobody LOGIN;
));

sub prometheus
{
	return $node->safe_psql('postgres', 'SELECT event_queue.prometheus()', extra_params => [ '-U', $_[0] ]);
}
my $text = prometheus('seer');
like($text, qr/^event_queue_jobs_completed_total\{database="postgres",queue="odd \\"name\\"\\\\"\} 2$/m, 'an observer reads counters');
like($text, qr/^event_queue_job_run_seconds_bucket\{[^}]*job_name="secret",le="\+Inf"\} 2$/m, 'and histograms by job name');
like($text, qr/^event_queue_job_attempts_total\{[^}]*job_name="secret",outcome="completed"\} 2$/m, 'and outcomes');
like($text, qr/^event_queue_series_left_out\{database="postgres"\} 0$/m, 'of all job names');

# Job names beyond a size are left out, and said to be.
$node->safe_psql('postgres', "SELECT event_queue.create_queue('wide'); SELECT event_queue.enqueue('wide', 'w' || g, tenant_id => 'a') FROM generate_series(1, 30) g");
$node->append_conf('postgresql.conf', 'event_queue.max_prometheus_size = 64');
$node->reload;
ok($node->poll_query_until('postgres', "SELECT event_queue.prometheus() ~ 'series_left_out\\{[^}]*\\} [1-9]'"), 'some are left out');
my $short = prometheus('seer');
my %told = map { $_ => 1 } $short =~ /^event_queue_job_run_seconds_count\{[^}]*job_name="([^"]+)"/mg;
my ($left_out) = $short =~ /^event_queue_series_left_out\{[^}]*\} (\d+)$/m;
is($left_out + keys %told, 31, 'that many');
my $of_names = join '', grep { /job_name=/ } split /^/, $short;
cmp_ok(length $of_names, '<=', 65536, 'the others are no larger than that');
cmp_ok(length $of_names, '>', 16384, 'and there are some');
like($short, qr/^event_queue_jobs_enqueued_total\{database="postgres",queue="wide"\} 30$/m, 'and every queue');
$node->safe_psql('postgres', "SELECT event_queue.drop_queue('wide', force => true)");
$node->append_conf('postgresql.conf', 'event_queue.max_prometheus_size = 256MB');
$node->reload;
my $of_b = prometheus('tenant_b');
is($of_b, '', 'who is bound to a tenant is told nothing of all together');
my ($ret, $out, $err) = $node->psql('postgres', 'SELECT event_queue.prometheus()', extra_params => [ '-U', 'nobody' ]);
like($err, qr/permission denied/, 'and who may not, may not');
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.job_stats', extra_params => [ '-U', 'tenant_b' ]), '0', 'job_stats likewise');
is($node->safe_psql('postgres', 'SELECT count(*) FROM event_queue.tenant_stats', extra_params => [ '-U', 'tenant_b' ]), '0', 'tenant_stats are one\'s own');
is($node->safe_psql('postgres', 'SELECT string_agg(tenant, \',\') FROM event_queue.tenant_stats', extra_params => [ '-U', 'seer' ]), 'a', 'unless one is bound to none');

# Rules, schedules, subscriptions and the watermark.
$node->safe_psql('postgres', q(
SELECT event_queue.create_rule('to the queue', 'lead.*', queue => E'odd "name"\\\\', job_name => 'secret');
SELECT event_queue.create_rule('of b', 'lead.*', queue => E'odd "name"\\\\', job_name => 'secret', tenant_id => 'b');
SELECT event_queue.create_schedule('nightly', '0 3 * * *', E'odd "name"\\\\', 'secret');
SELECT event_queue.create_subscription('mirror'), event_queue.create_subscription('of a', tenant_id => 'a');
SELECT event_queue.append('lead', '1', 'lead.created', '{}'), event_queue.append('note', '1', 'note.created', '{}');
));
ok($node->poll_query_until('postgres', q(SELECT event_queue.prometheus() ~ 'event_queue_rule_lag_events\{database="postgres"\} 0\n'
	AND event_queue.prometheus() ~ 'rule_matches_total\{database="postgres",rule="to the queue"\} 1\n')), 'a rule that matched, and no lag');
$text = prometheus('seer');
like($text, qr/^event_queue_rule_errors_total\{database="postgres",rule="to the queue"\} 0$/m, 'without errors');
like($text, qr/^event_queue_schedule_next_run_timestamp_seconds\{database="postgres",schedule="nightly",queue="odd \\"name\\"\\\\"\} 1\d{9}/m, 'when a schedule is due');
unlike($text, qr/^event_queue_schedule_last_run_timestamp_seconds\{/m, 'not when it was, as it never was');
like($text, qr/^event_queue_subscription_lag_events\{database="postgres",subscription="mirror",tenant=""\} 2$/m, 'a subscription lags');
like($text, qr/^event_queue_subscription_lag_events\{database="postgres",subscription="of a",tenant="a"\} 0$/m, 'one of another tenant does not');
like($text, qr/^event_queue_event_positions_total\{database="postgres"\} [1-9]/m, 'positions of events');
cmp_ok(($text =~ /^event_queue_last_tick_timestamp_seconds\S* (\S+)$/m)[0], '>', time - 120, 'the scheduler ticks');

# An open append holds the watermark; a locked table is left out, and nothing waits.
my $appender = $node->background_psql('postgres');
$appender->query_safe("BEGIN; SELECT event_queue.append('lead', '2', 'lead.created', '{}')");
$node->safe_psql('postgres', "SELECT event_queue.append('lead', '3', 'lead.created', '{}')");
$text = prometheus('seer');
like($text, qr/^event_queue_watermark_lag_positions\{database="postgres"\} [1-9]/m, 'the watermark is behind');
like($text, qr/^event_queue_watermark_blocked_seconds\{database="postgres"\} \d*[.]?\d*[1-9]/m, 'and for how long');
$appender->query_safe('COMMIT');
$appender->query_safe('BEGIN; LOCK TABLE event_queue.rule');
$text = prometheus('seer');
like($text, qr/^event_queue_figures_unavailable\{database="postgres",of="rules"\} 1$/m, 'a locked table is told');
unlike($text, qr/^event_queue_rule_matches_total\{/m, 'and left out');
like($text, qr/^event_queue_schedule_runs_total\{/m, 'others are there');
$appender->query_safe('COMMIT');
$appender->quit;
like(prometheus('seer'), qr/^event_queue_watermark_blocked_seconds\{database="postgres"\} 0$/m, 'no longer blocked');

SKIP:
{
	skip 'promtool (of package prometheus) is not there', 2 unless grep { -x "$_/promtool" } split /:/, $ENV{PATH};
	for my $who (qw(seer tenant_b))
	{
		my $in = prometheus($who) . "\n";
		my $said = '';
		IPC::Run::run([ 'promtool', 'check', 'metrics' ], '<', \$in, '>&', \$said);
		is("$? $said", '0 ', "promtool check metrics: as $who");
	}
}

# The past, written as the scheduler does.
$node->safe_psql('postgres', q(
SELECT event_queue.create_queue('past', sla => '1 minute', sla_target => 0.9);
SELECT event_queue_internal.write_sample('q', q.queue_id, '', clock_timestamp() - ago, counters, event_queue_internal.histogram_of(waits),
	event_queue_internal.histogram_of(waits), event_queue_internal.histogram_of(waits))
FROM event_queue.queue q, (VALUES
	('50 days'::interval, '{1000,1000,1000,0,0,0,0,0,500}'::bigint[], '{9000000}'::bigint[]),
	('20 days', '{100,100,100,0,0,0,0,0,10}', '{8000000}'),
	('23 hours', '{70,70,70,0,0,0,0,0,7}', '{7000000}'),
	('3 hours', '{30,30,30,0,0,0,0,0,3}', '{6000000}'),
	('30 minutes', '{20,20,20,0,0,0,0,0,2}', '{5000000}'),
	('2 minutes', '{10,10,10,0,0,0,0,0,5}', '{1000000}')) x (ago, counters, waits) WHERE q.name = 'past';
));
my $windows = q(SELECT m.total[1], m.last_1m[1], m.last_5m[1], m.last_1h[1], m.last_6h[1], m.last_24h[1], m.last_30d[1]
	FROM event_queue_internal.metrics('q', (SELECT queue_id FROM event_queue.queue WHERE name = 'past')) m);
is($node->safe_psql('postgres', $windows), '1230|0|10|30|60|130|230', 'what happened in a minute to a month');
$node->safe_psql('postgres', "SELECT event_queue.enqueue('past', 'x') FROM generate_series(1, 4)");
is($node->safe_psql('postgres', $windows), '1234|4|14|34|64|134|234', 'and now');
is($node->safe_psql('postgres', "SELECT round(wait_p50_5m), round(wait_p99_5m), round(wait_p50_1h), round(wait_p99_1h) FROM event_queue.queue_stats WHERE queue = 'past'"),
	'1|1|1|5', 'percentiles of five minutes and an hour');
is($node->safe_psql('postgres', "SELECT good, total, round(budget_left::numeric, 3), round(burn_5m::numeric, 2), round(burn_1h::numeric, 2), round(burn_6h::numeric, 2) FROM event_queue.slo_status WHERE queue = 'past'"),
	'203|230|-0.174|5.00|2.33|1.67', 'what is left of the budget');

# What is too old goes, but for the last one before: totals and windows stay.
$node->safe_psql('postgres', q(
UPDATE event_queue_internal.metric_hour SET at = at - interval '10 days' WHERE at < clock_timestamp() - interval '40 days';
INSERT INTO event_queue_internal.metric_hour SELECT kind, queue_id, name, at + interval '5 days', counters, wait, attempt_wait, run
	FROM event_queue_internal.metric_hour WHERE at < clock_timestamp() - interval '40 days';
));
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue_internal.metric_hour WHERE at < clock_timestamp() - interval '30 days'"), '2', 'two are older than a month');
my $kept = $node->safe_psql('postgres', "SELECT count(*) FROM event_queue_internal.metric_sample WHERE at > clock_timestamp() - interval '1 day' AND name = ''");
$node->safe_psql('postgres', q(
UPDATE event_queue_internal.metric_sample SET day = event_queue_internal.metric_day(clock_timestamp() + interval '1 day') WHERE at < clock_timestamp() - interval '2 days';
SELECT event_queue_internal.make_room_for_samples();
));
is($node->safe_psql('postgres', "SELECT count(*) FROM event_queue_internal.metric_hour WHERE at < clock_timestamp() - interval '30 days'"), '1', 'one is left');
is($node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE at < clock_timestamp() - interval '2 days'), count(*) FILTER (WHERE at > clock_timestamp() - interval '1 day' AND name = '') >= $kept FROM event_queue_internal.metric_sample"),
	'0|t', 'minutes of a day stay');
is($node->safe_psql('postgres', $windows), '1234|4|14|34|64|134|234', 'all the same as before');

# A dump has none of it, and can be restored.
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'pg_dump');
unlike(slurp_file($dump), qr/metric_(sample|hour|series)/, 'samples are not dumped');

$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|samples of metrics/, 'nothing failed');
# A queue named "other" beside the series of all other queues: no series is there twice.
my $small = PostgreSQL::Test::Cluster->new('small');
$small->init;
$small->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 0
event_queue.max_job_stats = 16
));
$small->start;
$small->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('other');
SELECT event_queue.create_queue('q' || n) FROM generate_series(1, 20) n;
SELECT event_queue.enqueue('other', 'other');
SELECT event_queue.enqueue('q' || n, 'x') FROM generate_series(1, 20) n;
));
my %seen;
$seen{$_}++ for map { s/ \S+$//r } grep { !/^#/ } split /\n/, $small->safe_psql('postgres', 'SELECT event_queue.prometheus()');
ok($seen{'event_queue_job_wait_seconds_count{database="postgres",queue="other",job_name="other"}'}, 'names without room are counted together');
is(scalar(grep { $_ > 1 } values %seen), 0, 'no series is there twice');
$small->stop;

done_testing();
