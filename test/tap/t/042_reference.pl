# What is public stands in doc/reference.md, with a comment and an example (which
# 020_snippets runs); asked of the catalogs.
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

done_testing();
