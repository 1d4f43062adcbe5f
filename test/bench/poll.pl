#!/usr/bin/perl
# poll.pl SECONDS: the yardstick of the latencies: a worker that asks for a job of
# yardstick.job with SKIP LOCKED every millisecond, which is quicker than LISTEN
# would wake it.  Speaks to psql by pipes, for which it needs nothing but perl.  Prints one line "yardstick<TAB>ms" for each job.
use strict;
use warnings;
use IPC::Open2;
use Time::HiRes qw(time);

my $end = time + $ARGV[0];
$SIG{PIPE} = 'IGNORE';
my $pid = open2(my $out, my $in, 'psql', '-XqAt');
$in->autoflush;
while (time < $end)
{
	print $in "UPDATE yardstick.job SET state = 'done' WHERE id = (SELECT id FROM yardstick.job WHERE queue = 'bench'"
		. " AND state = 'ready' AND run_at <= clock_timestamp() ORDER BY priority, run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)"
		. " RETURNING 'ms ' || extract(epoch FROM clock_timestamp() - run_at) * 1000;\n\\echo end\n";
	my $found = 0;
	while (my $line = <$out>)
	{
		last if $line =~ /^end/;
		if ($line =~ /^ms (.*)/) { $found = 1; print "yardstick\t$1\n"; }
	}
	select(undef, undef, undef, 0.001) if !$found;
}
close $in;
waitpid $pid, 0;
