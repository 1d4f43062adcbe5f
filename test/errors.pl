#!/usr/bin/perl
# errors.pl: the SQLSTATEs of class EQ in src/errors.h, in the code and in the table of
# doc/reference.md are the same ones; README's table has each setting, and that of
# doc/internals.md who reads it.  "make check"
# runs it.
#
#   errors.pl                    check the tree
#   errors.pl --self-test        see that what is wrong is found
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Find qw(find);

my $top = dirname(__FILE__) . '/..';

sub slurp
{
	my ($path) = @_;
	open my $in, '<', $path or die "$path: $!\n";
	local $/;
	return <$in>;
}

# complaints SOURCES: what is wrong with these texts, by path
sub complaints
{
	my (%text) = @_;
	my (@bad, %code, %raised, %listed);
	my %header = $text{'src/errors.h'} =~ /#define (ERRCODE_EQ_\w+)\s+(MAKE_SQLSTATE\([^)]*\))/g;
	foreach my $name (sort keys %header)
	{
		my $code = join '', $header{$name} =~ /'(.)'/g;
		push @bad, "src/errors.h: $name and $code{$code} are both $code" if $code{$code};
		$code{$code} = $name;
	}
	my %of_name = reverse %code;
	foreach my $path (sort grep { m{^src/} && $_ ne 'src/errors.h' } keys %text)
	{
		while ($text{$path} =~ /\b(ERRCODE_EQ_\w+)/g)
		{
			push @bad, "$path: src/errors.h has no $1" if !$of_name{$1};
			$raised{ $of_name{$1} // '' } = 1;
		}
		$raised{$1} = 1 while $text{$path} =~ /ERRCODE = '(EQ\d{3})'/g;
	}
	# whatever names one, in a comment or a text
	foreach my $path (sort grep { $_ ne 'src/errors.h' } keys %text)
	{
		my %seen;
		while ($text{$path} =~ /\b(EQ\d{3})\b/g)
		{
			push @bad, "$path: src/errors.h has no $1" if !$code{$1} && !$seen{$1}++;
		}
	}
	my ($table) = $text{'doc/reference.md'} =~ /^## Error codes\n(.*?)(?=^## |\z)/ms;
	my $last = '';
	while (($table // '') =~ /^\| (\w{5}) \| *(\S?)/mg)
	{
		push @bad, "doc/reference.md: $1 says no cause" if $2 eq '|' || $2 eq '';
		push @bad, "doc/reference.md: $1 stands after $last" if $1 le $last;
		$listed{ $last = $1 } = 1;
	}
	foreach my $code (sort keys %code)
	{
		push @bad, "src/errors.h: nothing raises $code ($code{$code})" if !$raised{$code};
		push @bad, "doc/reference.md: $code ($code{$code}) is not in the table of error codes" if !$listed{$code};
	}
	my ($used) = ($text{'doc/internals.md'} // '') =~ /^## Where a setting is used\n(.*?)(?=^## |\z)/ms;
	while (($text{'src/event_queue.c'} // '') =~ /"(event_queue\.\w+)",/g)
	{
		my $setting = $1;
		push @bad, "README.md: $setting is not in the table of settings" if $text{'README.md'} !~ /^\|[^|\n]*`\Q$setting\E`/m;
		my ($name) = $setting =~ /\.(\w+)/;
		push @bad, "doc/internals.md: nothing says who reads $setting" if ($used // '') !~ /^\|[^|\n]*`$name`/m;
	}
	push @bad, map { "doc/reference.md: $_ is in the table, and not in src/errors.h" } grep { !$code{$_} } sort keys %listed;
	return @bad;
}

sub tree
{
	my @paths;
	find({ no_chdir => 1, wanted => sub { push @paths, $_ if /\.(c|h|sql|md)$/ } }, map { "$top/$_" } qw(src doc examples));
	# What is released stays as it is.
	return map { s{^\Q$top\E/}{}r => slurp($_) } grep { !m{/event_queue--} } @paths, "$top/README.md";
}

if (@ARGV && $ARGV[0] eq '--self-test')
{
	my $define = sub { "#define ERRCODE_EQ_$_[0] MAKE_SQLSTATE('E', 'Q', '0', '0', '$_[1]')\n" };
	my %good = (
		'src/errors.h' => $define->(A => 1) . $define->(B => 2),
		'src/a.c' => 'ereport(ERROR, (errcode(ERRCODE_EQ_A)));',
		'src/b.sql' => "RAISE EXCEPTION USING ERRCODE = 'EQ002'",
		'doc/reference.md' => "## Error codes\n\n| EQ001 | one | |\n| EQ002 | two | |\n");
	my @cases = (
		[ 'nothing is wrong', qr/^$/ ],
		[ 'two names of one code', qr/are both EQ001/, 'src/errors.h' => $good{'src/errors.h'} . $define->(C => 1) ],
		[ 'a name that is not there', qr/has no ERRCODE_EQ_Z/, 'src/c.c' => 'ERRCODE_EQ_Z' ],
		[ 'a code that is not there', qr/README.md: src\/errors.h has no EQ009/, 'README.md' => 'fails with EQ009' ],
		[ 'one that nothing raises', qr/nothing raises EQ002/, 'src/b.sql' => '-- EQ002' ],
		[ 'one that is not listed', qr/EQ002 \(\w+\) is not in the table/, 'doc/reference.md' => "## Error codes\n| EQ001 | one | |\n" ],
		[ 'one that is only listed', qr/EQ003 is in the table/, 'doc/reference.md' => $good{'doc/reference.md'} . "| EQ003 | x | |\n" ],
		[ 'a setting', qr/event_queue.b is not in the table/, 'src/event_queue.c' => '"event_queue.a", "event_queue.b",', 'README.md' => '| `event_queue.a` | 1 | one |' ],
		[ 'who reads it', qr/nothing says who reads event_queue.a$/, 'src/event_queue.c' => '"event_queue.a",', 'README.md' => '| `event_queue.a` | 1 | one |' ],
		[ 'no cause', qr/EQ002 says no cause/, 'doc/reference.md' => "## Error codes\n| EQ001 | one | |\n| EQ002 |  | |\n" ],
		[ 'one listed twice', qr/EQ002 stands after EQ002/, 'doc/reference.md' => $good{'doc/reference.md'} . "| EQ002 | x | |\n" ]);
	foreach my $case (@cases)
	{
		my ($name, $wanted, %other) = @$case;
		my $got = join "\n", complaints(%good, %other);
		die "errors.pl --self-test: $name: \"$got\"\n" if $got !~ $wanted;
	}
	exit;
}
my @bad = complaints(tree());
print "$_\n" foreach @bad;
exit(@bad ? 1 : 0);
