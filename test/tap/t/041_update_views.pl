# ALTER EXTENSION UPDATE makes users' views anew, and does so as their owners: what a view's
# text calls when it is read (the CHECK of a domain in a composite constant) doesn't run with
# the rights of who updates, at once or at commit.  Temporary views go; a view that would
# lose what belongs to it is named, and the update refused.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\nevent_queue.databases = 'none'");
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');

my $db;
sub sql { return $node->safe_psql($db, $_[0]) }
sub as_mallory { return $node->safe_psql($db, $_[0], extra_params => [ '-U', 'mallory' ]) }
sub error_of
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:  (\w+: .*)/s ? $1 : "none: $out";
}
my $updated = q(SELECT extversion = event_queue.version() FROM pg_extension WHERE extname = 'event_queue');
my $super = q(SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory');

sub old_store
{
	($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	sql(q(CREATE EXTENSION event_queue VERSION '0.1.0';
		GRANT USAGE ON SCHEMA event_queue TO mallory; GRANT SELECT ON event_queue.jobs TO mallory;
		CREATE SCHEMA mallory AUTHORIZATION mallory));
}

# A view whose text calls its owner's function.
my $trap = q(
CREATE TABLE mallory.log (who text, is_super boolean);
CREATE FUNCTION mallory.grab() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'ALTER ROLE mallory SUPERUSER';
EXCEPTION WHEN insufficient_privilege THEN
	NULL;
END$$;
CREATE FUNCTION mallory.spy(x int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM mallory.grab();
	INSERT INTO mallory.log VALUES (current_user, current_setting('is_superuser')::boolean);
	RETURN true;
END$$;
CREATE DOMAIN mallory.watched AS int CHECK (mallory.spy(VALUE));
CREATE TYPE mallory.pair AS (x mallory.watched);
CREATE VIEW mallory.jobs AS SELECT job_id, '(1)'::mallory.pair AS pair FROM event_queue.jobs);
old_store('at_once');
as_mallory($trap);
as_mallory('TRUNCATE mallory.log');
sql('ALTER EXTENSION event_queue UPDATE');
is(sql($updated), 't', 'updated, with a view that calls a function when it is read');
is(sql($super), 'f', 'its owner is no superuser');
is(sql('SELECT DISTINCT who FROM mallory.log'), 'mallory', 'his function ran as he');
is(sql(q(SELECT relowner::regrole FROM pg_class WHERE oid = 'mallory.jobs'::regclass)), 'mallory', 'the view is his, as before');
is(sql('SELECT count(*) FROM mallory.jobs'), '0', 'and can be read');

# The same, but with what happens at commit.
old_store('at_commit');
as_mallory("$trap;
CREATE FUNCTION mallory.grab_later() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN PERFORM mallory.grab(); RETURN NULL; END\$\$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON mallory.log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.grab_later()");
like(error_of('ALTER EXTENSION event_queue UPDATE'), qr/^42501: could not recreate view mallory\.jobs: cannot fire deferred trigger within security-restricted operation.*HINT:  Drop it/s,
	'what is left for the commit is refused');
is(sql($super), 'f', 'its owner is no superuser');
is(sql($updated), 'f', 'nothing is changed');
as_mallory('DROP VIEW mallory.jobs');
sql('ALTER EXTENSION event_queue UPDATE');
is(sql($updated), 't', 'without it, the update goes on');
is(sql($super), 'f', 'still');

# What belongs to a view, and would be lost.
old_store('kept');
my %things = (
	trigger => q(CREATE FUNCTION mallory.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END$$;
		CREATE TRIGGER t INSTEAD OF INSERT ON mallory.v FOR EACH ROW EXECUTE FUNCTION mallory.f()),
	rule => q(CREATE RULE r AS ON INSERT TO mallory.v DO INSTEAD NOTHING),
	default => q(ALTER VIEW mallory.v ALTER COLUMN name SET DEFAULT 'x'),
	'grant on a column' => q(GRANT SELECT (name) ON mallory.v TO PUBLIC));
for my $thing (sort keys %things)
{
	as_mallory("CREATE VIEW mallory.v AS SELECT job_id, name FROM event_queue.jobs; $things{$thing}");
	like(error_of('ALTER EXTENSION event_queue UPDATE'), qr/^2BP01: view mallory\.v has triggers, rules, defaults or rights on columns.*HINT:  Drop it, update/s, "a view with a $thing is in the way");
	is(sql("SELECT to_regclass('mallory.v')"), 'mallory.v', 'and stays');
	as_mallory('DROP VIEW mallory.v');
}
is(sql($updated), 'f', 'nothing is changed');

# Temporary ones, of the session itself and of another.
sql('GRANT TEMPORARY ON DATABASE kept TO mallory');
my $other = $node->background_psql($db, extra_params => [ '-U', 'mallory' ]);
$other->query_safe('CREATE TEMP VIEW theirs AS SELECT name FROM event_queue.jobs');
is(sql(q(CREATE TEMP VIEW mine AS SELECT name FROM event_queue.jobs; ALTER EXTENSION event_queue UPDATE;
	SELECT to_regclass('mine') IS NULL, (SELECT count(*) FROM pg_class WHERE relname IN ('mine', 'theirs')))), 't|0', 'temporary views go');
is(sql($updated), 't', 'and the update is done');
is($other->query_safe('SELECT 1'), '1', 'the other session goes on');
$other->quit;
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:|terminated by signal/, 'no crash');
$node->stop;
done_testing();
