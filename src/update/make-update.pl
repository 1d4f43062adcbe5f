#!/usr/bin/perl
# make-update.pl OLD-VERSION NEW-VERSION PART...: prints the update script.
#
# It is made from three things:
#  - src/update/event_queue--OLD.sql, the install script of the old version;
#  - src/update/OLD--NEW.sql, by hand: what happens to tables that both versions have.
#    It runs when triggers, policies and views are dropped, with the old functions; what
#    stands below its line "-- after" runs at the end, with the new functions;
#  - PART..., of which the install script of the new version is joined.
#
# Functions, views, triggers, policies, comments and grants come from the parts, as they
# stand there.  So do tables, indexes, types and sequences that the old version did not
# have, and what the parts do to them.  Of tables that it had (by name; an ALTER ... SET
# SCHEMA or RENAME TO by hand, one plain statement each, is followed) nothing is taken
# from the parts but row security and ENABLE ALWAYS TRIGGER: the rest is for the hand.
#
# A function is replaced if its arguments and result are the same.  It is moved if the
# same one is in the other schema now, so that users' triggers stay.  Else it is dropped,
# in its place; a user's object that needs it makes the update fail then, by name.
#
# test/tap/t/037_upgrade_catalog.pl says what an upgraded database lacks.
use strict;
use warnings;
use FindBin;

my ($from, $to, @parts) = @ARGV;
die "usage: make-update.pl OLD-VERSION NEW-VERSION PART...\n" unless @parts;

sub slurp
{
	my ($file) = @_;
	local $/;
	open my $in, '<', $file or die "$file: $!\n";
	return scalar <$in>;
}

# What a statement is made of, as far as a semicolon or a comma may be hidden in it.
my $quoted = qr{ '(?:[^']|'')*' | "[^"]*" | (\$\w*\$) .*? \g{-1} | \bBEGIN \s+ ATOMIC\b .*? \nEND\b }xs;
my $comment = qr{ --[^\n]* | /\* .*? \*/ }xs;

# The statements of a script, without the comments before them.
sub statements
{
	my ($text) = @_;
	my @statements;
	my $this = '';
	$text =~ s/^\\echo.*$//m;
	while ($text =~ /\G(?:(?<comment>$comment)|(?<end>;)|(?<other>$quoted|.))/gsc)
	{
		my ($comment, $end, $other) = @+{qw(comment end other)};
		my $begun = $this =~ /\S/;
		if (defined $end)
		{
			push @statements, $this if $begun;
			$this = '';
		}
		elsif ($begun || defined $other && $other =~ /\S/)
		{
			$this .= $comment // $other;
		}
	}
	die "the script ends within a statement: $this\n" if $this =~ /\S/;
	return @statements;
}

sub bare								# without comments, with single blanks
{
	my ($text) = @_;
	$text =~ s/($quoted)|$comment/defined $1 ? $1 : ' '/ges;
	$text =~ s/\s+/ /g;
	return $text =~ s/^ | $//gr;
}

sub split_list							# at commas that no parenthesis hides
{
	my ($text) = @_;
	my ($depth, @items) = (0, '');
	while ($text =~ /\G($quoted|.)/gs)
	{
		my $this = $1;
		$depth += $this eq '(' ? 1 : $this eq ')' ? -1 : 0;
		if ($this eq ',' && $depth == 0) { push @items, '' }
		else { $items[-1] .= $this }
	}
	return grep { /\S/ } map { s/^\s+|\s+$//gr } @items;
}

sub qualified { my ($name) = @_; return $name =~ /\./ ? $name : "event_queue.$name"; }

# The kind of a function, its name, the types of its arguments, and the rest of what may
# not change if it is to be replaced.
sub parse_function
{
	my $text = bare($_[0]);
	$text =~ /^CREATE (?:OR REPLACE )?(FUNCTION|PROCEDURE) ([\w.]+) ?\(/ or die "no function: $text\n";
	my ($kind, $name, $start) = ($1, qualified($2), $+[0]);
	my ($depth, $end) = (1, $start);
	pos($text) = $start;
	while ($depth > 0 && $text =~ /\G($quoted|.)/gs)
	{
		$depth += $1 eq '(' ? 1 : $1 eq ')' ? -1 : 0;
		$end = pos($text) - 1;
	}
	my ($result) = substr($text, $end + 1) =~ /^ ?(?:RETURNS (.*?) )?(?:LANGUAGE|AS|STABLE|IMMUTABLE|SET)\b/;
	my (@types, @header);
	for my $argument (split_list(substr($text, $start, $end - $start)))
	{
		my $mode = $argument =~ s/^(IN|OUT|INOUT|VARIADIC) //i ? uc $1 : 'IN';
		my $optional = $argument =~ s/ ?(?:DEFAULT|=) .*//s ? '?' : '';
		my ($argument_name, $type) = $argument =~ /^(\S+) (.+)$/ ? ($1, $2) : ('', $argument);
		push @types, $type unless $mode eq 'OUT';
		push @header, "$mode $argument_name $type$optional";
	}
	return ($kind, $name, join(', ', @types), join(', ', @header) . ' -> ' . ($result // ''));
}

# What a structural statement makes or changes: kind and name.
my $word = qr/[\w."]+/;
sub object_of
{
	my ($text) = @_;
	return (lc $1, qualified($2), undef) if $text =~ /^CREATE (?:UNLOGGED )?(TABLE|SEQUENCE|TYPE) ($word)/;
	return ('schema', $1, undef) if $text =~ /^CREATE SCHEMA (\w+)/;
	return ('index', $1, qualified($2)) if $text =~ /^CREATE (?:UNIQUE )?INDEX (\w+) ON (?:ONLY )?($word)/;
	return ('change', '', qualified($1)) if $text =~ /^ALTER (?:TABLE|SEQUENCE|TYPE) (?:ONLY )?($word)/;
	return ('change', '', qualified($1)) if $text =~ /^INSERT INTO ($word)/;
	return;
}

# What the old version had.
my (%functions, %tables, %types, %indexes, %schemas, %policies);
for my $statement (statements(slurp("$FindBin::Bin/event_queue--$from.sql")))
{
	my $text = bare($statement);
	if ($text =~ /^CREATE (?:FUNCTION|PROCEDURE)/)
	{
		my ($kind, $name, $types, $header) = parse_function($statement);
		$functions{"$name($types)"} = {kind => $kind, header => $header};
	}
	elsif ($text =~ /^CREATE POLICY (\w+) ON ($word)/) { $policies{"$1 ON " . qualified($2)} = 1 }
	elsif (my ($kind, $name) = object_of($text))
	{
		if ($kind eq 'index') { $indexes{$name} = 1 }
		elsif ($kind eq 'schema') { $schemas{$name} = 1 }
		elsif ($kind eq 'type') { $types{$name} = 1 }
		elsif ($kind ne 'change') { $tables{$name} = 1 }
	}
}

# What is done by hand, and the new names that it gives.
my ($before, $after) = split /^-- after\b.*\n/m, slurp("$FindBin::Bin/$from--$to.sql"), 2;
my $rewritten = '';						# tables whose users' views can't stay
for my $statement (statements($before))
{
	my $text = bare($statement);
	next unless $text =~ /^ALTER (TABLE|SEQUENCE|TYPE|FUNCTION|PROCEDURE|INDEX) (?:ONLY )?($word)(?: ?\(([^)]*)\))? (.*)$/;
	my ($kind, $name, $types, $change) = ($1, qualified($2), $3, $4);
	my $list = $kind =~ /FUNCTION|PROCEDURE/ ? \%functions : $kind eq 'TYPE' ? \%types : $kind eq 'INDEX' ? \%indexes : \%tables;
	my $key = defined $types ? "$name($types)" : $kind eq 'INDEX' ? $name =~ s/.*\.//r : $name;
	my ($schema, $rest) = $key =~ /^(\w+\.)?(.*)$/;
	my $new = $change =~ /^SET SCHEMA (\w+)$/ ? "$1.$rest"
		: $change =~ /^RENAME TO (\w+)$/ ? ($schema // '') . $rest =~ s/^\w+/$1/r : undef;
	if (defined $new)
	{
		die "$from--$to.sql names what $from does not have: $key\n" unless exists $list->{$key};
		$list->{$new} = delete $list->{$key};
	}
	$rewritten .= ", '$name'" if $change =~ /\b(?:TYPE|DROP COLUMN)\b/ && $kind eq 'TABLE';
}

# What of the new version is to be done.
my (%new_functions, %new_tables, @schemas, @rest);
for my $statement (map { statements(slurp($_)) } @parts)
{
	my $text = bare($statement);
	if ($text =~ /^CREATE (?:FUNCTION|PROCEDURE)/)
	{
		my ($kind, $name, $types, $header) = parse_function($statement);
		$new_functions{"$name($types)"} = {kind => $kind, header => $header};
		push @rest, $statement =~ s/^CREATE /CREATE OR REPLACE /r;
	}
	elsif ($text =~ /\bcreated\(\)/ && $text =~ /^DO /)
	{
		# the end of the install script: whether a new store is in service
	}
	elsif (my ($kind, $name, $table) = object_of($text))
	{
		if ($kind eq 'schema')
		{
			push @schemas, $statement unless $schemas{$name};
			next;
		}
		my $is_new = $kind eq 'index' ? !$indexes{$name} && $new_tables{$table}
			: $kind eq 'change' ? $new_tables{$table}
			: $kind eq 'type' ? !$types{$name} : !$tables{$name};
		$new_tables{$name} = 1 if $is_new && $kind ne 'change' && $kind ne 'index';
		push @rest, $statement
			if $is_new || $text =~ /^ALTER TABLE $word (?:ENABLE ROW LEVEL SECURITY|FORCE ROW LEVEL SECURITY|ENABLE ALWAYS TRIGGER \w+)$/;
	}
	elsif ($text =~ /^(?:CREATE (?:TRIGGER|POLICY|VIEW)|COMMENT|GRANT|REVOKE|DO|ALTER (?:VIEW|FUNCTION|PROCEDURE))\b|^SELECT pg_catalog\.pg_extension_config_dump/)
	{
		push @rest, $statement;
	}
	else
	{
		die "make-update.pl does not know what to do with this statement: " . substr($text, 0, 200) . "\n";
	}
}

# What becomes of the old functions.
my (@moves, @drops);
for my $key (sort keys %functions)
{
	my $old = $functions{$key};
	my $new = $new_functions{$key};
	my $other = $key =~ s/^(event_queue)(_internal)?\./$2 ? "$1." : "$1_internal."/er;
	next if $new && $new->{header} eq $old->{header};
	if (!$new && $new_functions{$other} && !$functions{$other} && $new_functions{$other}{header} eq $old->{header})
	{
		push @moves, "ALTER $old->{kind} $key SET SCHEMA " . $other =~ s/\..*//sr;
	}
	else
	{
		push @drops, "DROP $old->{kind} $key";
	}
}

sub lines { return join('', map { "$_;\n" } @_); }

my $drop_policies = join '', map { "DROP POLICY $_;\n" } sort keys %policies;
my %template;
for my $section (split /^-- section /m, slurp("$FindBin::Bin/update.sql"))
{
	$template{$1} = $section if $section =~ s/^(\w+)\n//;
}
for (values %template)
{
	s/'\@old\@'/'$from'/g;
	s/'\@new\@'/'$to'/g;
	s/, '\@rewritten\@'/$rewritten/g;
}

print "\\echo Use \"ALTER EXTENSION event_queue UPDATE\" to load this file. \\quit\n",
	"-- Made by make-update.pl from update.sql, $from--$to.sql and the install script's parts.\n",
	$template{begin}, lines(@schemas), $drop_policies, $before, lines(@moves), lines(@drops), $template{middle},
	map({ "\n$_;\n" } @rest), "\n", $after // '', $template{end};
