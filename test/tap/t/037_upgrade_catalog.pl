# An upgraded database has what a new one has: columns, constraints, indexes, functions
# with all their attributes, views, triggers, policies, grants, comments, and what a dump
# carries.  Who changes a table in the install script's parts, and not in
# src/update/OLD--NEW.sql, sees here what is missing.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueCatalog;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\nevent_queue.databases = 'none'");
$node->start;
my $version = $node->safe_psql('postgres', "SELECT default_version FROM pg_available_extensions WHERE name = 'event_queue'");
my @old = grep { $_ ne $version } split /\n/,
	$node->safe_psql('postgres', "SELECT version FROM pg_available_extension_versions WHERE name = 'event_queue' ORDER BY version");
ok(@old > 0, 'there are older versions');

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION event_queue');
is($node->safe_psql('fresh', 'SELECT event_queue.version()'), $version, "the library is that of $version");
my @fresh = catalog($node, 'fresh');
cmp_ok(scalar(@fresh), '>', 1000, 'the catalogs were read');

for my $old (@old)
{
	my $db = "from $old";
	$node->safe_psql('postgres', qq(CREATE DATABASE "$db"));
	$node->safe_psql($db, "CREATE EXTENSION event_queue VERSION '$old'");
	my @before = differences(\@fresh, [catalog($node, $db)]);
	cmp_ok(scalar(@before), '>', 0, "$old is another version");
	# whatever the session has set, and with a view of a user on a table that is written anew
	$node->safe_psql($db, q(CREATE VIEW mine AS SELECT * FROM event_queue.dead_letter; CREATE VIEW jobs AS SELECT * FROM event_queue.job));
	$node->safe_psql($db, q(SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Kolkata'; SET standard_conforming_strings = off;
		SET escape_string_warning = off; SET search_path = ''; SET transform_null_equals = on; SET array_nulls = off; SET extra_float_digits = -15; ALTER EXTENSION event_queue UPDATE));
	is($node->safe_psql($db, q(SELECT count(*) FROM mine, jobs)), '0', 'views of users stand');
	my @differences = differences(\@fresh, [catalog($node, $db)]);
	is(scalar(@differences), 0, "upgraded from $old, a database has what a new one has (-: it lacks this, +: it should not have this)")
		or diag(join("\n", @differences));
	is($node->safe_psql($db, q(SELECT queue_id, name, sla FROM event_queue.queue ORDER BY 1)),
		$node->safe_psql('fresh', q(SELECT queue_id, name, sla FROM event_queue.queue ORDER BY 1)), 'and the same queues of its own');
	is($node->safe_psql($db, q(SELECT event_queue.activation_state())), 'active', 'and is in service');
}
# The list above sees what is wrong.
$node->safe_psql('fresh', q(ALTER TABLE event_queue.schedule ADD COLUMN x int));
like(join("\n", differences(\@fresh, [catalog($node, 'fresh')])), qr/^\+ column event_queue\.schedule \d+ x integer [^\n]*$/, 'a difference is seen');
$node->stop;
done_testing();
