#!/usr/bin/perl
# make-reference.pl [--check] SQL-FILE...: writes the functions in reference.md,
# between its two marks, from the install script's parts: signature, COMMENT,
# header comment with its Example, and who may call (from grants.sql).  Called by "make reference";
# with --check, by "make format-check", it only says whether it would change.
use strict;
use warnings;
use FindBin;

my $check = @ARGV && $ARGV[0] eq '--check' && shift @ARGV;
my $reference = "$FindBin::Bin/reference.md";
my $functions = '';

my %title = (
	'event_queue.sql' => 'The extension', 'tenant.sql' => 'Tenants', 'store.sql' => 'Event store: append and read',
	'state.sql' => 'State', 'lineage.sql' => 'Chains of causes', 'subscription.sql' => 'Subscriptions',
	'partition.sql' => 'Partitions, retention, indexes', 'queue.sql' => 'Queues',
	'job.sql' => 'Jobs', 'enqueue.sql' => 'Enqueue', 'claim.sql' => 'Claim', 'settle.sql' => 'Complete, fail, release',
	'lease.sql' => 'While a job is leased', 'admin.sql' => 'Changing jobs', 'dead.sql' => 'Dead letters',
	'history.sql' => 'History', 'maintain.sql' => 'Clearing up', 'group.sql' => 'Groups',
	'flow.sql' => 'Dependencies and flows', 'waiting.sql' => 'Waiting for jobs',
	'rules.sql' => 'Rules and handlers', 'on_table.sql' => 'Rules on tables', 'versions.sql' => 'Versions of rules',
	'backfill.sql' => 'Backfills of rules', 'explain.sql' => 'What rules do with events',
	'schedule.sql' => 'Schedules', 'run.sql' => 'Runs of schedules', 'calendar.sql' => 'Calendars', 'wake.sql' => 'Triggers for your tables', 'activation.sql' => 'Restored and copied stores',
	'steps.sql' => 'Durable steps', 'clock.sql' => 'Clocks', 'checks.sql' => 'Checks',
	'faults.sql' => 'What fails', 'observe.sql' => 'Seeing', 'metrics.sql' => 'Figures', 'queue_health.sql' => 'Health of queues', 'lists.sql' => 'Lists', 'handler.sql' => 'Running jobs in your own session', 'health.sql' => 'Health', 'alerts.sql' => 'Alerts', 'queue_history.sql' => 'Queues over time', 'alert_test.sql' => 'Alerts, tried on the past', 'grants.sql' => 'Roles');
my %text;
for my $file (@ARGV)
{
	local $/;
	open my $in, '<', $file or die "$file: $!";
	$text{$file} = <$in>;
}

# name(types), as COMMENT and GRANT write it
sub signature
{
	my ($name, $types) = @_;
	return "$name(" . ($types =~ s/event_queue\.//gr =~ s/\s+/ /gr) . ')';
}

# Who may call, by signature.
my %who;
my ($grants) = grep { /grants\.sql$/ } @ARGV;
while ($text{$grants} =~ /CREATE FUNCTION (?:event_queue_internal\.)?grant_(reader|outcomes|producer|consumer|worker|observer)\b(.*?)\$\$;/gs)
{
	my ($kind, $body) = ($1, $2);
	for my $kind ($kind eq 'reader' ? qw(producer consumer observer) : $kind eq 'outcomes' ? qw(producer worker) : $kind)
	{
		$who{signature($1, $2)}{$kind} = 1 while $body =~ /event_queue\.(\w+)\(([^)]*)\)/g;
	}
}
my %public;
my ($public) = $text{$grants} =~ /^GRANT EXECUTE ON FUNCTION (.*?) TO PUBLIC;/ms;
$public{signature($1, $2)} = 1 while $public =~ /(\w+)\(([^)]*)\)/g;
# What grant_admin leaves out.
my %owner = map { $_ => 1 } $text{$grants} =~ /p\.proname NOT IN \(([^)]*)\)/ ? $1 =~ /(\w+)/g : ();

sub flow
{
	my ($comment) = @_;
	$comment =~ s/^\s*\/\*+\s?|\s*\*\/\s*$//g;
	$comment =~ s/^\s*\*[ \t]?//mg;
	my @parts;
	for my $paragraph (split /\n\s*\n/, $comment)
	{
		my ($part, $in_list) = ('', 0);
		for my $line (split /\n/, $paragraph)
		{
			# "- " begins an item of a list; indented further, of a list in that item
			if ($line =~ /^( *)- (.*)/)
			{
				$part .= ($part eq '' ? '' : "\n") . (length $1 > 1 ? '  ' : '') . "- $2";
				$in_list = 1;
			}
			# each of Arguments:, Result:, Errors:, Isolation: begins a line
			elsif ($line =~ /^(?:Arguments|Result|Errors|Isolation)[a-z ]*:/)
			{
				$part .= $part eq '' ? $line : ($in_list ? "\n\n" : "  \n") . $line;
				$in_list = 0;
			}
			else
			{
				$part .= ($part eq '' ? '' : ' ') . ($line =~ s/^[ \t]+//r);
			}
		}
		push @parts, $part;
	}
	return join("\n\n", @parts);
}

for my $file (@ARGV)
{
	my ($base) = $file =~ /([^\/]+)$/;
	my @out;
	my $sql = $text{$file};
	while ($sql =~ /(?:^(\/\*(?:(?!\*\/).)*?\*\/)\n)?^CREATE (FUNCTION|PROCEDURE|VIEW|AGGREGATE)\s+(\w+)(.*?)(?=^LANGUAGE|\nAS |\bAS\s*\n|^\tSELECT)/gsm)
	{
		my ($comment, $what, $name, $rest) = ($1, $2, $3, $4);
		next if $what eq 'VIEW';
		my ($types, $its) = $sql =~ /^COMMENT ON $what (?:event_queue\.)?$name\(([^;]*?)\) IS\s*'((?:[^']|'')*)';/m;
		($types, $its) = ($1, $2) if $sql =~ /\G[^;]*?;?.*?^COMMENT ON $what (?:event_queue\.)?\Q$name\E\(([^;]*?)\) IS\s*'((?:[^']|'')*)';/smgc;
		next if !defined $its || $its =~ /^Internal/;
		$its =~ s/''/'/g;
		$rest =~ s/\s+/ /g;
		$rest =~ s/^\s*\(\s*/(/;
		$rest =~ s/ RETURNS / → /;
		$rest =~ s/\s+$//;
		my $form = signature($name, $types);
		my $by = $public{$form} ? 'everyone' : $owner{$name} || $name =~ /^grant_/ ? "the extension's owner"
			: join(', ', sort(keys %{ $who{$form} // {} }), 'admin');
		my $line = "**$name** `$rest`  \n$its  \nWho: $by.";
		if (defined $comment)
		{
			my $example = $comment =~ s/^ \* Example:\n((?: \*\t.*\n)+)//m ? $1 =~ s/^ \*\t//mgr : '';
			my $flow = flow($comment);
			$flow =~ s/^$name(?: and [\w, ]+)?:\s*//;
			$line .= "\n\n> " . join("\n> ", split /\n/, ucfirst $flow) if $flow ne '';
			$line .= "\n\n```sql\n$example```" if $example ne '';
		}
		push @out, $line;
	}
	next if !@out;
	die "$base has no title in make-reference.pl\n" if !$title{$base};
	$functions .= "### $title{$base}" . "\n\n" . join("\n\n", @out) . "\n\n";
}

my $old = do { local (@ARGV, $/) = $reference; <> };
(my $new = $old) =~ s/(<!-- functions -->\n).*(?=<!-- end of functions -->)/$1\n$functions/s;
if ($check)
{
	die "doc/reference.md is not what the SQL files say: run \"make reference\"\n" if $new ne $old;
	exit;
}
open my $out, '>', $reference or die "$reference: $!";
print $out $new;
