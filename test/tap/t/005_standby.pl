# A hot standby reads what the primary has published: nothing skipped, nothing
# early; waiting works there.  After a promotion positions go on in a new
# generation, and a consumer that saw events which the new primary never got is
# told.  The same after a restore to an earlier point.  Waiting readers on the
# primary are woken by commits and rollbacks and hold nothing meanwhile.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, has_archiving => 1);
$primary->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.publish_interval = 100ms
));
$primary->start;
$primary->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.append('a', '1', 'x') FROM generate_series(1, 10);
));

# Waiting.  background_psql would read until a prompt; here the answer counts.
sub waiter
{
	my ($node, $after, $seconds, $out) = @_;
	return IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'),
		'-c', "CALL event_queue.wait_for_events($after, '$seconds s')" ], '>', $out, '2>', \my $err);
}
my $sleeping = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL event_queue.wait%' AND wait_event = 'Extension'
	AND backend_xmin IS NULL AND backend_xid IS NULL";
my $last = $primary->safe_psql('postgres', 'SELECT event_queue.watermark()');
my $woken = '';
my $waiting = waiter($primary, $last, 60, \$woken);
ok($primary->poll_query_until('postgres', $sleeping), 'a waiting reader holds neither snapshot nor transaction id');
$primary->safe_psql('postgres', q(SELECT event_queue.append('a', '1', 'x')));
$waiting->finish;
is($woken, $last + 1 . "\n", 'and is woken by a commit');

# A position above a rolled back one is committed and can be read only after.
my $open = $primary->background_psql('postgres');
$open->query_safe(q(BEGIN; SELECT event_queue.append('a', '2', 'x')));
$primary->safe_psql('postgres', q(SELECT event_queue.append('a', '3', 'x')));
$waiting = waiter($primary, $last + 1, 60, \$woken);
ok($primary->poll_query_until('postgres', $sleeping), 'it sleeps while an older append is open');
is($primary->safe_psql('postgres', q(SELECT application_name <> '' AND query LIKE '%append%' AND lowest_position = ) . ($last + 2)
	. q( FROM event_queue.watermark_blockers)), 't', 'watermark_blockers names who it is');
$open->query_safe('ROLLBACK');
$waiting->finish;
is($woken, $last + 3 . "\n", 'and is woken by its rollback');
$waiting = waiter($primary, $last + 3, 60, \$woken);
$primary->poll_query_until('postgres', $sleeping) or die;
$open->query_safe(q(BEGIN; SELECT event_queue.append('a', '2', 'x')));
$primary->safe_psql('postgres', q(SELECT event_queue.append('a', '3', 'x')));
$primary->safe_psql('postgres', q(SELECT pg_terminate_backend(pid, 10000) FROM event_queue.watermark_blockers));
$waiting->finish;
is($woken, $last + 5 . "\n", 'and by the end of a session that had appended');

$waiting = waiter($primary, $last + 5, 1, \$woken);
$waiting->finish;
is($woken, $last + 5 . "\n", 'and by the end of its time');

# The standby.
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
my $read = "SELECT string_agg(position::text, ' ') FROM event_queue.read_all(%d)";
my $caught_up = sub {
	my $watermark = $primary->safe_psql('postgres', 'SELECT event_queue.watermark()');
	$standby->poll_query_until('postgres', "SELECT event_queue.watermark() >= $watermark") or die 'the standby does not come';
};
$caught_up->();
is($standby->safe_psql('postgres', sprintf($read, 0)), $primary->safe_psql('postgres', sprintf($read, 0)), 'a standby reads what the primary reads');
like(($standby->psql('postgres', q(SELECT event_queue.append('a', '1', 'x'))))[2], qr/read-only|recovery/, 'and appends nothing');
is($standby->safe_psql('postgres', q(SELECT ok, detail FROM event_queue.health() WHERE check_name = 'scheduler')), 't|none on a standby',
	'health() answers there');
is($standby->safe_psql('postgres', 'SELECT watermark = event_queue.watermark(), last_position IS NULL, blocked_by IS NULL, total_bytes > 0 FROM event_queue.event_stats'),
	't|t|t|t', 'as does event_stats, but for what only the primary knows');
is($standby->safe_psql('postgres', join(';', map { "SELECT count(*) >= 0 FROM event_queue.$_" } qw(queue_status queue_stats job_stats tenant_stats slo_status rule_stats
	schedule_stats subscription_status worker_stats event_partitions))), join("\n", ('t') x 10), 'and all other views of figures');

$open = $primary->background_psql('postgres');
$open->query_safe(q(BEGIN; SELECT event_queue.append('a', '2', 'older')));
my $older = $primary->safe_psql('postgres', 'SELECT event_queue_internal.last_position()');
$primary->safe_psql('postgres', q(SELECT event_queue.append('a', '3', 'younger')));
my $mark = $primary->safe_psql('postgres', q(SELECT event_queue.watermark()));
$waiting = waiter($standby, $older - 1, 60, \$woken);
$primary->wait_for_catchup($standby);
# more than a few turns of the publisher
select(undef, undef, undef, 0.5);
is($standby->safe_psql('postgres', q(SELECT count(*) FROM event_queue.event_store WHERE event_type = 'younger')), '1', 'the younger event is there');
is($standby->safe_psql('postgres', sprintf($read, $older - 1)), '', 'but is not read before the older');
$open->query_safe('COMMIT');
$waiting->finish;
cmp_ok($woken, '>=', $older, 'a reader that waits on the standby is woken');
$caught_up->();
is($standby->safe_psql('postgres', sprintf($read, $older - 1)), $older . ' ' . ($older + 1), 'then both are, in order');
$open->quit;

$primary->safe_psql('postgres', q(SELECT event_queue.create_subscription('on the primary')));
$primary->wait_for_catchup($standby);
like(($standby->psql('postgres', q(SELECT * FROM event_queue.fetch_events('on the primary'))))[2], qr/on a standby\nHINT:.*read_all/,
	'a subscription is not read on a standby, and says why');

# A consumer follows the standby while appends are under way: it meets each
# event once, in order.
my $bench = $primary->basedir . '/append.sql';
append_to_file($bench, "\\set n random(1, 20)\nBEGIN;\nSELECT event_queue.append('b', :n::text, 'x');\n\\sleep 2 ms\nEND;\n");
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '8', '-T', '4', '-f', $bench, $primary->connstr('postgres') ],
	'>', '/dev/null', '2>', '/dev/null');
my ($place, @followed) = ($older + 1);
my $until = time + 5;
for (1 .. 1000)
{
	my $more = $standby->safe_psql('postgres', sprintf($read, $place));
	push @followed, split / /, $more;
	$place = $followed[-1] if @followed;
	last if time > $until && $more eq '';
}
$load->finish;
$caught_up->();
push @followed, split / /, $standby->safe_psql('postgres', sprintf($read, $place));
cmp_ok(scalar(@followed), '>', 100, 'a consumer follows the standby, by ' . scalar(@followed) . ' events');
is(join(' ', @followed), $primary->safe_psql('postgres', "SELECT string_agg(position::text, ' ' ORDER BY position)
	FROM event_queue.event_store WHERE position > $older + 1"), 'and skipped none');

# A restore to an earlier point forgets what consumers saw.
my $generation = $primary->safe_psql('postgres', 'SELECT event_queue.generation()');
my $kept = $primary->safe_psql('postgres', q(SELECT position FROM event_queue.append('a', '1', 'kept')));
my $point = $primary->safe_psql('postgres', 'SELECT pg_current_wal_lsn()');
my $lost = $primary->safe_psql('postgres', q(SELECT max(a.position) FROM generate_series(1, 5), event_queue.append('a', '1', 'lost') a));
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
$primary->poll_query_until('postgres', 'SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) FROM pg_stat_archiver');
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($primary, 'backup', has_restoring => 1, standby => 0);
$restored->append_conf('postgresql.conf', "recovery_target_lsn = '$point'\nrecovery_target_action = 'promote'\n");
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die;
my ($status, $out, $err) = $restored->psql('postgres', "SELECT count(*) FROM event_queue.read_all($lost)",
	extra_params => ['-v', 'VERBOSITY=verbose']);
like($err, qr/EQ028: position $lost is ahead of the event store/, 'a consumer that is ahead of the restored store is told');
like($err, qr/"go_on_after": $kept\b/, 'and from where to go on');
is($restored->safe_psql('postgres', sprintf($read, $kept)), '', 'there is nothing after it');
my $next = $restored->safe_psql('postgres', q(SELECT position FROM event_queue.append('a', '1', 'after')));
is($next >> 40, 1, 'positions go on in a new generation');
isnt($restored->safe_psql('postgres', 'SELECT event_queue.generation()'), $generation, 'which generation() tells');
is($restored->safe_psql('postgres', sprintf($read, $kept)), $next, 'from where it is told to, the consumer reads what is new');
like(($restored->psql('postgres', sprintf($read, $lost)))[2], qr/is ahead of the event store/, 'and is still told when newer events are there');
is($restored->safe_psql('postgres', q(SELECT version FROM event_queue.append('a', '1', 'more')))
	- $restored->safe_psql('postgres', "SELECT version FROM event_queue.event_store WHERE position = $kept"), 2, 'versions go on at the point restored to');
$restored->stop;

# A promotion that loses nothing: consumers just go on.
$caught_up->();
$primary->wait_for_catchup($standby);
$primary->stop('immediate');
$standby->promote;
$next = $standby->safe_psql('postgres', q(SELECT position FROM event_queue.append('a', '1', 'promoted')));
is($next >> 40, 1, 'a promoted standby goes on in a new generation');
is($standby->safe_psql('postgres', sprintf($read, $lost)), $next, 'and a consumer that had seen all reads on');
$standby->stop;
done_testing();
