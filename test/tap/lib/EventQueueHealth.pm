# EventQueueHealth.pm: waits for what health() says, and for a condition, and shows what
# there is if it does not come.  Used by the tests of faults and of hostile code.
package EventQueueHealth;
use strict;
use warnings;
use Test::More;
use Exporter 'import';
our @EXPORT = qw(watch_node fault well session soon);

my ($node, $settings);

# The node that the others ask; SETTINGS: statements before each look at health().
sub watch_node
{
	($node, $settings) = (@_, '');
}

sub sql { return $node->safe_psql('postgres', $_[0]) }

# health() comes to have a line of this check that is not ok, says that, and what to type.
sub fault
{
	my ($check, $detail, $hint, $role) = @_;
	my $as = $role ? "SET ROLE $role;" : '';
	my $found = '';
	for (1 .. 600)
	{
		$found = sql("$as $settings SELECT coalesce(hint, '') FROM event_queue.health() WHERE check_name ~ '^$check\$' AND NOT ok AND detail ~ '$detail'");
		last if $found =~ $hint && $found ne '';
		select undef, undef, undef, 0.1;
	}
	like($found, $hint, "$check: $detail");
	diag(sql("$settings SELECT * FROM event_queue.health() WHERE NOT ok")) if $found !~ $hint || $found eq '';
	return (split /\n/, $found)[0];
}

# All lines come to be ok.
sub well
{
	my ($name) = @_;
	my $bad = 'x';
	for (1 .. 600)
	{
		$bad = sql("$settings SELECT check_name, detail FROM event_queue.health() WHERE NOT ok");
		last if $bad eq '';
		select undef, undef, undef, 0.1;
	}
	is($bad, '', "$name: well again");
}

# A session of that application_name, and its pid.
sub session
{
	my ($name) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query("SET application_name = '$name'");
	my $pid = $session->query('SELECT pg_backend_pid()');
	return ($session, $pid =~ /(\d+)/);
}

# The condition comes to hold.
sub soon
{
	my ($condition, $name) = @_;
	ok($node->poll_query_until('postgres', "SELECT $condition"), $name)
	  or diag(sql(q(SELECT job_id, queue, name, state, failures, last_error FROM event_queue.all_jobs LIMIT 20)), sql('SELECT * FROM event_queue.faults()'),
		sql('SELECT rule, state, seen, matched, failed, last_error FROM event_queue.rule_stats'));
}

1;
