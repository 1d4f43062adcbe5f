#!/usr/bin/perl
# arrows.pl: the rooms of src/ ask each other only what the table in doc/architecture.md
# says.  "make check" runs it.
#
# A room asks another one if a file of it includes a header of the other, or names in
# SQL (a .sql part, or a string in C) a table, view, function, type or sequence that the
# other's SQL parts create.  "all" in the column "asks" stands for all rooms above it in
# the table; "room (SQL)" allows what SQL names, but no header, "room (file.h)" that
# header, but no SQL, and "room (file.h and SQL)" both.  A room may ask those above it
# only, except for what such parentheses name: so the rest has no cycle.
#
# doc/internals.md lists all files, and names no file or function that is not there.
#
#   arrows.pl                    check the tree
#   arrows.pl --list             print who asks whom, by what
#   arrows.pl --self-test        see that wrong arrows are found, in a copy
use strict;
use warnings;
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Find qw(find);
use File::Path qw(make_path);
use File::Temp qw(tempdir);

my $top = dirname(__FILE__) . '/..';

sub slurp
{
	my ($path) = @_;
	open my $in, '<', $path or die "$path: $!\n";
	local $/;
	return <$in>;
}

sub files_of
{
	my ($dir) = @_;
	my @files;
	find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.(c|h|sql)$/ } }, "$dir/src");
	return map { s{^\Q$dir\E/}{}r } sort @files;
}

# What the map lists: the sources, the dashboard and the Node client.
sub files_of_map
{
	my ($dir) = @_;
	my @files = grep { /\.(?:c|sql)$/ } files_of($dir);
	find({ no_chdir => 1, wanted => sub { push @files, s{^\Q$dir\E/}{}r if /\.[jt]s$/ } }, "$dir/src/bin/web", "$dir/clients/node/src");
	return @files;
}

# A room is named by its directory, or by the name of its first file.  Files that the
# table names stand for themselves, whatever directory they are in.
my %room_of_path;

sub room_of
{
	my ($file) = @_;
	return $room_of_path{$file} // ($file =~ m{^src/(\w+)/} ? $1 : $file);
}

# The table below "## Rooms": ({room => {other => what is allowed}}, rooms in order)
sub read_table
{
	my ($dir) = @_;
	my ($section) = slurp("$dir/doc/architecture.md") =~ /^## Rooms\n(.*?)^## /ms
		or die "doc/architecture.md has no section \"Rooms\"\n";
	my (%asks, @order);
	%room_of_path = ();
	for my $line (split /\n/, $section)
	{
		my ($names, $asks) = $line =~ /^\| (`src\/.*?) \|.*\| *(.*?) *\|$/ or next;
		my @paths = $names =~ /`(src\/[^`]+)`/g;
		my ($room) = $paths[0] =~ /(\w+)(?:\/|\.\w+)$/;
		$room_of_path{$_} = $room for @paths;
		$asks{$room} = {};
		for my $item (split /, */, $asks)
		{
			if ($item eq 'all')
			{
				$asks{$room}{$_} = 'all' for @order;
				next;
			}
			$item =~ /^(\w+)(?: \((.+)\))?$/ or die "doc/architecture.md: what is \"$item\"?\n";
			$asks{$room}{$1} = $2 // 'any';
		}
		push @order, $room;
	}
	die "doc/architecture.md: no rooms found\n" unless @order;
	return (\%asks, \@order);
}

# Without comments; of C only what strings say.
sub sql_in
{
	my ($file, $text) = @_;
	if ($file =~ /\.sql$/)
	{
		$text =~ s{--[^\n]*}{}g;
		$text =~ s{^(?:COMMENT ON|GRANT|REVOKE)\b.*?;$}{}msg;
		return $text;
	}
	$text =~ s{/\*.*?\*/}{}gs;
	return join "\n", $text =~ /"((?:[^"\\]|\\.)*)"/g;
}

sub check
{
	my ($dir, $list) = @_;
	my ($asks, $order) = read_table($dir);
	my @files = files_of($dir);
	my (%text, %owner, %seen, @wrong);

	for my $file (@files)
	{
		$text{$file} = slurp("$dir/$file");
		my $room = room_of($file);
		push @wrong, "$file: room $room is not in the table" unless $asks->{$room};
		# Update scripts make what other rooms own.
		next if $file !~ /\.sql$/ || $room eq 'update';
		$owner{$1} //= $room
			while $text{$file} =~ /^CREATE (?:OR REPLACE )?(?:UNLOGGED )?(?:TABLE|VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE|DOMAIN|SEQUENCE) (?:event_queue(?:_internal)?\.)?(\w+)/mg;
	}
	my $ask = sub {
		my ($file, $other, $what, $is_sql) = @_;
		my $room = room_of($file);
		return if $other eq $room || !$asks->{$room};
		$seen{"$room -> $other " . ($is_sql ? '(SQL)' : '(C)')}{$what}{$file} = 1;
		my $allowed = $asks->{$room}{$other};
		for my $part (split / and /, $allowed // '')
		{
			return if $part =~ /^(?:any|all)$/ || ($is_sql ? $part eq 'SQL' : $what =~ m{/\Q$part\E$});
		}
		push @wrong, "$file: room $room may not ask $other: $what";
	};
	for my $file (@files)
	{
		if ($file =~ /\.[ch]$/)
		{
			for my $header ($text{$file} =~ /^#include "([^"]+)"/mg)
			{
				$ask->($file, room_of("src/$header"), $header, 0) if $header =~ m{/} && -e "$dir/src/$header";
			}
		}
		my %names;
		$names{$_} = 1 for sql_in($file, $text{$file}) =~ /\bevent_queue(?:_internal)?\.(\w+)/g;
		if ($file =~ /\.sql$/)
		{
			# Outside of functions the install script needs no schema.
			$names{$_} = 1 for sql_in($file, $text{$file}) =~ /\b(?:ON|REFERENCES|FROM|JOIN|INTO|UPDATE|TABLE|LIKE|INHERITS \() ?(\w+)/g;
		}
		$ask->($file, $owner{$_}, $_, 1) for grep { $owner{$_} } sort keys %names;
	}

	# In the order of the table, what a header may be taken from stands above.
	my %place = map { $order->[$_] => $_ } 0 .. $#$order;
	for my $room (@$order)
	{
		for my $other (sort keys %{ $asks->{$room} })
		{
			push @wrong, "doc/architecture.md: $room asks $other, which is no room" unless defined $place{$other};
			push @wrong, "doc/architecture.md: $room asks $other, which stands below it"
				if $asks->{$room}{$other} eq 'any' && ($place{$other} // -1) > $place{$room};
		}
	}
	# What nobody asks is not to be allowed.
	for my $room (@$order)
	{
		for my $other (sort grep { $asks->{$room}{$_} !~ /^all$/ } keys %{ $asks->{$room} })
		{
			my ($c, $sql) = map { $seen{"$room -> $other $_"} } '(C)', '(SQL)';
			my $allowed = $asks->{$room}{$other};
			push @wrong, "doc/architecture.md: $room may ask $other ($allowed), and does not"
				unless ($allowed eq 'any' && ($c || $sql)) || ($allowed =~ /SQL/ && $sql) || ($allowed =~ /\.h/ && $allowed !~ /SQL/ && $c);
		}
	}
	if ($list)
	{
		for my $arrow (sort keys %seen)
		{
			print "$arrow\n";
			printf "    %s: %s\n", $_, join(', ', sort keys %{ $seen{$arrow}{$_} }) for sort keys %{ $seen{$arrow} };
		}
	}
	return @wrong;
}

# What doc/internals.md says of files and functions.
sub check_map
{
	my ($dir) = @_;
	my $map = slurp("$dir/doc/internals.md");
	my @files = files_of($dir);
	my (%listed, @wrong);

	my $prefix = '';
	for my $line (split /\n/, $map)
	{
		$prefix = $1 if $line =~ /^\*\*`((?:src|clients)\/\S*)`\*\*$/;
		$prefix .= '/' if $prefix && $prefix !~ m{/$};
		$listed{"$prefix$1"} = 1 if $prefix && $line =~ /^\| `([\w.\/-]+\.(?:c|sql|js|ts))` \|/;
		$prefix = '' if $line =~ /^## / && $line ne '## Files';
	}
	my $code = join '', map { slurp("$dir/$_") } @files;
	push @wrong, "doc/internals.md: $_ is not listed" for grep { !$listed{$_} } files_of_map($dir);
	push @wrong, "doc/internals.md: $_ is not there" for grep { !-e "$dir/$_" } sort keys %listed;
	my %functions = map { $_ => 1 } $map =~ /`(eq_\w+)`/g;
	push @wrong, "doc/internals.md: $_ is not there" for grep { $code !~ /^\Q$_\E\(/m } sort keys %functions;
	# `function` in `file`, in both texts
	(my $both = $map . slurp("$dir/doc/architecture.md")) =~ s/\s+/ /g;
	my %defines = (
		c => sub { qr/^\Q$_[0]\E\(|^static const char \Q$_[0]\E\[\]/m },
		h => sub { qr/\b\Q$_[0]\E\b/ },
		sql => sub { qr/^CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE|TABLE|VIEW) (?:event_queue(?:_internal)?\.)?\Q$_[0]\E\b|^\t\Q$_[0]\E (?:CONSTANT )?\w+\[\]/m },
		ts => sub { qr/\b(?:function|const|class|interface)\s+\Q$_[0]\E\b|^\t(?:(?:private|async|readonly|static)\s+)*\Q$_[0]\E(?:[(<]| =)/m });
	while ($both =~ /`(\w+)` in `((?:\w+\/)+[\w-]+\.(\w+))`/g)
	{
		my ($function, $path, $kind) = ($1, $2, $3);
		$path = "src/$path" unless $path =~ /^clients/;
		push @wrong, "$function is not in " . ($path =~ s{^src/}{}r) unless -e "$dir/$path" && $defines{$kind} && slurp("$dir/$path") =~ $defines{$kind}->($function);
	}
	my %paths = map { $_ => 1 } map { s{^src/}{}r } $map =~ /`(\w+(?:\/\w+)+\.(?:c|h|sql))`/g;
	push @wrong, "doc/internals.md: $_ is not there" for grep { !-e "$dir/src/$_" } sort keys %paths;
	return @wrong;
}

# Each of these must be found, and nothing in the tree as it is.
sub self_test
{
	my @cases = (
		[ 'an include', 'src/table/table.c', sub { "#include \"queue/queue.h\"\n" . $_[0] }, 'table may not ask queue: queue/queue.h' ],
		[ 'SQL in a part', 'src/tenant/tenant.sql', sub { $_[0] . "\nSELECT * FROM event_queue.job;\n" }, 'tenant may not ask queue: job' ],
		[ 'SQL in a string', 'src/tenant/tenant.c', sub { $_[0] . "\nconst char *sql = \"SELECT FROM event_queue.event_store\";\n" }, 'tenant may not ask store: event_store' ],
		[ 'a cycle in the table', 'doc/architecture.md', sub { $_[0] =~ s{^(\| `src/table/` \|.*\|)[^|]*\|$}{$1 queue |}mr }, 'table asks queue, which stands below it' ],
		[ 'a room that is not in the table', 'src/attic/attic.c', sub { "int x;\n" }, 'room attic is not in the table' ],
		[ 'a file that is not listed', 'src/queue/attic.c', sub { "int x;\n" }, 'src/queue/attic.c is not listed' ],
		[ 'a file of the client that is not listed', 'clients/node/src/attic.ts', sub { "let x;\n" }, 'clients/node/src/attic.ts is not listed' ],
		[ 'a function that is not there', 'doc/internals.md', sub { $_[0] . "\n`eq_no_such_thing`\n" }, 'eq_no_such_thing is not there' ],
		[ 'a function that is elsewhere', 'doc/architecture.md', sub { $_[0] . "\n`eq_claim`\nin `queue/settle.c`\n" }, 'eq_claim is not in queue/settle.c' ],
		[ 'a function of SQL that is elsewhere', 'doc/internals.md', sub { $_[0] . "\n`drop_queue` in `queue/dead.sql`\n" }, 'drop_queue is not in queue/dead.sql' ],
		[ 'a function of the client that is elsewhere', 'doc/internals.md', sub { $_[0] . "\n`judge` in `clients/node/src/worker.ts`\n" }, 'judge is not in clients/node/src/worker.ts' ],
		[ 'a name in a comment', 'src/tenant/tenant.c', sub { $_[0] . "\n/* \"event_queue.job\" */\n" }, undef ],
	);
	my $failed = 0;
	for my $case (@cases)
	{
		my ($what, $file, $change, $expected) = @$case;
		my $dir = tempdir(CLEANUP => 1);
		for my $copied (files_of($top), (grep { /\.[jt]s$/ } files_of_map($top)), 'doc/architecture.md', 'doc/internals.md')
		{
			make_path(dirname("$dir/$copied"));
			copy("$top/$copied", "$dir/$copied") or die "$copied: $!\n";
		}
		my $new = $change->(-e "$dir/$file" ? slurp("$dir/$file") : '');
		make_path(dirname("$dir/$file"));
		open my $out, '>', "$dir/$file" or die "$file: $!\n";
		print $out $new;
		close $out;
		my @wrong = (check($dir), check_map($dir));
		my $ok = defined $expected ? scalar(grep { index($_, $expected) >= 0 } @wrong) : !@wrong;
		next if $ok;
		$failed = 1;
		print "arrows: self-test: $what: " . (defined $expected ? "not found\n" : "found, but is right: @wrong\n");
	}
	return $failed;
}

my $argument = $ARGV[0] // '';
exit self_test() if $argument eq '--self-test';
my @wrong = (check($top, $argument eq '--list'), check_map($top));
print "arrows: $_\n" for @wrong;
exit(@wrong ? 1 : 0);
