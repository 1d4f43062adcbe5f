#!/usr/bin/perl
# worker.pl KIND SECONDS: an outside worker, for the latencies.  Prints a line
# "KIND<TAB>ms" for each job: from the begin of its enqueue to its arrival here.
#
#   session  waits in CALL claim_wait
#   listen   LISTENs to the queue's channel, and claims when notified
#   table    LISTENs, and takes jobs from yardstick.job with SKIP LOCKED
# The two that listen sleep on the socket; they poll nothing.
use strict;
use warnings;
use DBI;
use IO::Select;
use JSON::PP;
use Time::HiRes qw(time);

my ($kind, $seconds) = @ARGV;
my $end = time + $seconds;
my $db = DBI->connect('dbi:Pg:', '', '', { RaiseError => 1, PrintError => 0 });
my @lines;
sub arrived
{
	my ($begin, $now) = @_;
	push @lines, sprintf("%s\t%.3f\n", $kind, ($now - $begin) * 1000);
}

if ($kind eq 'session')
{
	my $claim = $db->prepare("CALL event_queue.claim_wait('session', 1, '500 ms')");
	my $begin = $db->prepare('SELECT extract(epoch FROM $1::timestamptz)');
	my $complete = $db->prepare('SELECT event_queue.complete($1, $2)');
	while (time < $end)
	{
		$claim->execute;
		my ($jobs) = $claim->fetchrow_array;
		my $now = time;
		for my $job (@{ JSON::PP->new->decode($jobs) })
		{
			$complete->execute($job->{job_id}, $job->{lease_token});
			$begin->execute($job->{created_at});
			arrived(($begin->fetchrow_array)[0], $now);
		}
	}
}
else
{
	my ($channel, $claim, $finish);
	if ($kind eq 'listen')
	{
		$channel = 'event_queue.listen';
		$claim = $db->prepare("SELECT job_id, lease_token, extract(epoch FROM created_at) FROM event_queue.claim('listen')");
		$finish = $db->prepare('SELECT event_queue.complete($1, $2)');
	}
	else
	{
		$channel = 'bench';
		$claim = $db->prepare("UPDATE yardstick.job SET state = 'active', attempts = attempts + 1, leased_until = now() + interval '30 s'"
			. " WHERE id = (SELECT id FROM yardstick.job WHERE queue = 'bench' AND state = 'ready' AND run_at <= now()"
			. ' ORDER BY priority, run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, NULL, extract(epoch FROM run_at)');
		$finish = $db->prepare('DELETE FROM yardstick.job WHERE id = $1 AND $2::text IS NULL');
	}
	$db->do('LISTEN ' . $db->quote_identifier($channel));
	my $socket = IO::Select->new($db->{pg_socket});
	while (time < $end)
	{
		while ($claim->execute and my ($id, $token, $begin) = $claim->fetchrow_array)
		{
			arrived($begin, time);
			$finish->execute($id, $token);
		}
		# A notification may have come with an answer.
		my $notified = 0;
		$notified = 1 while $db->pg_notifies;
		next if $notified;
		$socket->can_read($end - time) if time < $end;
		1 while $db->pg_notifies;
	}
}
$db->disconnect;
print @lines;
