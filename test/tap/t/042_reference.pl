# What is public stands in doc/reference.md, with a comment and an example (which
# 020_snippets runs); asked of the catalogs.  The server's settings stand in README, with
# their defaults.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $reference = slurp_file('docs/reference.md');
my ($functions, $tables) = $reference =~ /<!-- functions -->(.*)<!-- end of functions -->.*?^## Views and tables\n(.*?)^## /ms
  or die 'reference.md has no list of functions, or none of views and tables';
my $examples = join '', $reference =~ /^```sql\n(.*?)^```$/msg;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION event_queue');

# rows QUERY: arrays of its columns
sub rows
{
	return map { [ split /\t/, $_, -1 ] } split /\n/, $node->safe_psql('postgres', $_[0], extra_params => [ '-F', "\t" ]);
}

# A function of a trigger is not called; it is in the example of what makes the trigger.
my @functions = rows(q(
	SELECT p.proname, p.prorettype = 'trigger'::regtype, coalesce(obj_description(p.oid, 'pg_proc'), '')
	FROM pg_proc p WHERE p.pronamespace = 'event_queue'::regnamespace ORDER BY 1));
cmp_ok(scalar(@functions), '>', 100, 'there are functions');
my @relations = rows(q(
	SELECT c.relname, c.relkind IN ('r', 'p', 'v'), coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type'), '')
	FROM pg_class c WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c') AND NOT c.relispartition
	ORDER BY 1));
cmp_ok(scalar(@relations), '>', 20, 'there are tables and views');

is(join(' ', map { $_->[0] } grep { $_->[2] eq '' || $_->[2] =~ /^Internal/ } @functions, @relations), '', 'all have a comment, and none is internal');
is(join(' ', map { $_->[0] } grep { $functions !~ /^\*\*$_->[0]\*\* `/m } @functions), '', 'all functions are in the reference');
is(join(' ', map { $_->[0] } grep { $_->[1] eq 'f' && $examples !~ /\bevent_queue\.$_->[0]\(/ } @functions), '', 'with an example');
is(join(' ', map { $_->[0] } grep { $tables !~ /`$_->[0]`/ } @relations), '', 'so are all tables, views and types');
is(join(' ', map { $_->[0] } grep { $_->[1] eq 't' && $examples !~ /\bevent_queue\.$_->[0]\b(?!\()/ } @relations), '', 'with an example');

# And nothing else is there.
my %is_there = map { $_->[0] => 1 } @functions, @relations;
is(join(' ', grep { !$is_there{$_} } $functions =~ /^\*\*(\w+)\*\* `/mg), '', 'each function of the reference is there');
is(join(' ', grep { !$is_there{$_} } map { /`(\w+)`/g } $tables =~ /^\|((?: `\w+`,?)+) \|/mg), '', 'each table, too');

# Settings of queues and options of jobs: in their tables, and in an example of README or doc/.
my $all_examples = join '', map { slurp_file($_) =~ /^```sql\n(.*?)^```$/msg } glob('docs/*.md');
my %section = map { /^(.*?)\n(.*)/s } split /^## /m, $reference;
# first_column SECTION: the names there
sub first_column
{
	return map { $_ => 1 } map { /`(\w+)`/g } $section{ $_[0] } =~ /^\|((?:[ ,or]|`\w+`)+)\|/mg;
}
my %setting = first_column('Settings of a queue');
my @settings = map { $_->[0] } rows(q(
	SELECT a.name FROM pg_proc p, unnest(p.proargnames) a (name)
	WHERE p.oid = 'event_queue.create_queue'::regproc AND a.name NOT IN ('name', 'or_replace', 'if_not_exists')));
is(join(' ', sort keys %setting), join(' ', sort @settings), 'the settings of a queue are in their table');
is(join(' ', grep { $all_examples !~ /(?:create|alter)_queue\((?:[^;]*\W)?$_ => / } @settings), '', 'each with an example');
my %option = first_column('Options of a job');
my (undef, undef, $complaint) = $node->psql('postgres', q(SELECT event_queue.enqueue('x', 'x', options => '{"no such option": 1}')));
my @options = ($complaint =~ /Valid options are (.*)\./)[0] =~ /\w+/g;
cmp_ok(scalar(@options), '>', 10, 'there are options');
is(join(' ', sort keys %option), join(' ', sort @options), 'the options of a job are in their table');
is(join(' ', grep { $all_examples !~ /"$_": |\b$_ => / } @options), '', 'each with an example');

# Settings of the server: a description, and README's default, or an example where that is empty.
my %factor = (ms => 1, s => 1000, min => 60_000, d => 86_400_000, kB => 1, MB => 1024, '' => 1);
my $base = sub { my ($number, $unit) = $_[0] =~ /^(\d+) ?(\w*)$/ or return $_[0]; return $number * $factor{$unit} };
my %readme;
foreach my $row (slurp_file('docs/README.md') =~ /^\| (`event_queue\..*)$/mg)
{
	my ($names, $default, $what) = $row =~ /^(.*?) \| (.*?) \| (.*) \|$/ or die $row;
	$readme{$_} = $default eq 'empty' ? $what =~ /`[^`]+`/ ? '' : 'no example' : $base->($default =~ s/`//gr) foreach $names =~ /`([\w.]+)`/g;
}
is_deeply(
	\%readme,
	{ map { $_->[0] => $base->($_->[1] . $_->[2]) } rows(q(SELECT name, boot_val, unit FROM pg_settings WHERE name LIKE 'event_queue.%')) },
	'README has each setting with its default');
is($node->safe_psql('postgres', q(SELECT string_agg(name, ' ') FROM pg_settings WHERE name LIKE 'event_queue.%' AND coalesce(short_desc, '') = '')),
	'', 'and the server its description');

done_testing();
