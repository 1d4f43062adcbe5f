#!/usr/bin/perl
# expected.pl SQL-PART...: what "eventq doctor" expects in a database, from the parts of
# the install script, as entries of a C array: kind, table, name, and the statement that
# makes it (of a function: the md5 of its body).  src/table/own_parts.inc is a part of it.
#
# Read are statements that begin a line.  What the install script makes inside DO blocks
# is named below.  What "eventq doctor" says of a new database (test/tap/t/049_eventq.pl)
# shows whether all that is read is so.
use strict;
use warnings;
use Digest::MD5 qw(md5_hex);

my $sql = '';
for my $part (@ARGV)
{
	open my $in, '<:raw', $part or die "$part: $!\n";
	local $/;
	$sql .= <$in>;
}

sub qualified
{
	my ($name) = @_;
	return $name =~ /\./ ? $name : "event_queue.$name";
}

sub entry
{
	my ($kind, $place, $name, $what) = map { s/\s+/ /gr =~ s/(["\\])/\\$1/gr } @_;
	print qq({"$kind", "$place", "$name", "$what"},\n);
}

# Statements are without comments, since a ; may stand there.  Functions first: their
# bodies are not statements of the script.
$sql =~ s{^/\*.*?\*/\n}{}msg;
while ($sql =~ s{^CREATE (?:OR REPLACE )?(FUNCTION|PROCEDURE) ([\w.]+)\s*\((.*?)(?:AS \$\$(.*?)\$\$;|AS 'MODULE_PATHNAME'(?:, '(\w+)')?[^;]*;|(?:RETURN |BEGIN ATOMIC).*?;\n(?:END;\n)?)}{}ms)
{
	my ($kind, $name, $body, $symbol) = ($1, $2, $4, $5);
	entry(lc $kind, '', qualified($name), defined $body ? md5_hex($body) : defined $symbol ? md5_hex($symbol) : '');
}
my $whole = $sql;
my %tables;
$sql =~ s{^DO \$\$.*?^\$\$;\n}{}msg;
$sql =~ s{--[^\n]*}{}g;

while ($sql =~ m{^CREATE (?:UNLOGGED )?(TABLE|VIEW) ([\w.]+)(.*?;)\n}msg)
{
	my ($kind, $table, $body) = (lc $1, qualified($2), $3);
	$tables{$table} = 1 if $kind eq 'table';
	entry($kind, $table, '', '');
	next if $kind ne 'table' || $body =~ /^ PARTITION OF/;
	my ($short) = $table =~ /(\w+)$/;
	my $column = '';
	for my $line (split /\n/, $body)
	{
		$column = $1 if $line =~ /^\t("?\w+"?)\s/ && $1 !~ /^(?:CONSTRAINT|PRIMARY|UNIQUE|CHECK)$/;
		entry('column', $table, $column =~ s/"//gr, '') if $line =~ /^\t"?\w/ && $line =~ /^\t\Q$column\E\s/;
		my $name = $line =~ /CONSTRAINT (\w+)/ ? $1 : undef;
		entry('check', $table, $name // "${short}_${column}_check", '') if $line =~ /\bCHECK \(/;
		entry('check', $table, "${short}_${column}_fkey", '') if $line =~ /\bREFERENCES\b/;
		# a key that stands on a line of its own after CONSTRAINT
		$body =~ /CONSTRAINT (\w+)\s+\Q$line\E/ and $name //= $1 if $line =~ /^\t\tUNIQUE/;
		if ($line =~ /PRIMARY KEY(?: (\(.*?\)))?/)
		{
			my $columns = $1 // "($column)";
			$name //= "${short}_pkey";
			entry('constraint', $table, $name, "ALTER TABLE $table ADD CONSTRAINT $name PRIMARY KEY $columns");
		}
		elsif ($line =~ /\bUNIQUE\b( NULLS NOT DISTINCT)?(?: (\(.*?\)))?/)
		{
			my ($nulls, $columns) = ($1 // '', $2 // "($column)");
			$name //= "${short}_" . ($columns =~ s/[()"]//gr) . '_key';
			entry('constraint', $table, $name, "ALTER TABLE $table ADD CONSTRAINT $name UNIQUE$nulls $columns");
		}
	}
}
while ($sql =~ m{^ALTER TABLE ([\w.]+)([^;]*?ADD CONSTRAINT[^;]*);\n}msg)
{
	my ($table, $rest) = (qualified($1), $2);
	entry('check', $table, $1, '') while $rest =~ /ADD CONSTRAINT (\w+) CHECK/g;
}
while ($sql =~ m{^CREATE (UNIQUE )?INDEX (\w+) ON ([\w.]+) (.*?);\n}msg)
{
	my ($unique, $name, $table, $rest) = ($1 // '', $2, qualified($3), $4);
	entry('index', $table, $name, "CREATE ${unique}INDEX $name ON $table $rest");
}
while ($sql =~ m{^CREATE (CONSTRAINT )?TRIGGER (\w+) (.*?) ON ([\w.]+)\s(.*?);\n}msg)
{
	my ($constraint, $name, $when, $table, $rest) = ($1 // '', $2, $3, qualified($4), $5);
	entry('trigger', $table, $name, "CREATE ${constraint}TRIGGER $name $when ON $table $rest");
}
while ($sql =~ m{^ALTER TABLE ([\w.]+) ENABLE ROW LEVEL SECURITY;\n}msg)
{
	my $table = qualified($1);
	entry('row security', $table, '', "ALTER TABLE $table ENABLE ROW LEVEL SECURITY");
}
while ($sql =~ m{^CREATE POLICY (\w+) ON ([\w.]+)\s(.*?);\n}msg)
{
	my ($name, $table, $rest) = ($1, qualified($2), $3);
	entry('policy', $table, $name, "CREATE POLICY $name ON $table $rest");
}
while ($sql =~ m{^ALTER TABLE ([\w.]+)((?:[^;]|\n)*?ENABLE ALWAYS TRIGGER(?:[^;]|\n)*?);\n}msg)
{
	my ($table, $rest) = (qualified($1), $2);
	entry('always', $table, $1, "ALTER TABLE $table ENABLE ALWAYS TRIGGER $1") while $rest =~ /ENABLE ALWAYS TRIGGER (\w+)/g;
}

# tenant/grants.sql
my ($as_owner) = $whole =~ /as_owner CONSTANT text\[\] := ARRAY\[(.*?)\];/s or die "no list as_owner\n";
$as_owner =~ s{--[^\n]*}{}g;
entry('definer', '', $1, '') while $as_owner =~ /'(\w+)'/g;
my ($shared) = $whole =~ /shared CONSTANT text\[\] := ARRAY\[(.*?)\];/s or die "no list shared\n";
while ($shared =~ /'([\w.]+)'/g)
{
	my $table = qualified($1);
	entry('trigger', $table, 'refuse_bound', "CREATE TRIGGER refuse_bound BEFORE INSERT OR UPDATE OR DELETE ON $table "
		. 'FOR EACH STATEMENT EXECUTE FUNCTION event_queue_internal.refuse_bound()');
}

# observe/audited.sql
my ($audited) = $whole =~ /\(VALUES((?:(?!VALUES).)*?)\) x \(tab, object_type, columns\)/s or die "no list of audited tables\n";
$audited =~ s{--[^\n]*}{}g;
while ($audited =~ /\('([\w.]+)', '(\w+)', '([^']*)'\)/g)
{
	entry('trigger', $1, 'audit_row', "CREATE TRIGGER audit_row AFTER INSERT OR DELETE OR UPDATE$3 ON $1 "
		. "FOR EACH ROW WHEN (NOT event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.audit_row('$2')");
}

# at the end of tenant/grants.sql
while ($whole =~ /pg_extension_config_dump\('([\w.]+)'/g)
{
	my $table = qualified($1);
	next if !$tables{$table} || $table eq 'event_queue_internal.activation';
	entry('trigger', $table, 'end_service_while_loaded', "CREATE TRIGGER end_service_while_loaded BEFORE INSERT ON $table FOR EACH STATEMENT "
		. 'WHEN (event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.end_service_while_loaded()');
	entry('always', $table, 'end_service_while_loaded', "ALTER TABLE $table ENABLE ALWAYS TRIGGER end_service_while_loaded");
	entry('trigger', $table, 'loaded', "CREATE TRIGGER loaded AFTER INSERT ON $table FOR EACH STATEMENT "
		. 'WHEN (event_queue_internal.session_restores()) EXECUTE FUNCTION event_queue_internal.end_service_while_loaded()');
	entry('always', $table, 'loaded', "ALTER TABLE $table ENABLE ALWAYS TRIGGER loaded");
}
