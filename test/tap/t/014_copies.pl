# Copies other than by a dump into an empty database: TEMPLATE, pg_restore --clean into
# the database itself, pg_dumpall, pg_upgrade, a logical subscriber, a data directory's
# copy; activate_copies; who may activate.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
wal_level = logical
max_wal_senders = 5
max_replication_slots = 10
);
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', $conf);
$node->start;
my $dir = $node->data_dir . '/..';

sub error_of
{
	my ($on, $db, $sql) = @_;
	my ($status, $out, $err) = $on->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:  (\w+): (.*)/ ? "$1 $2" : "none: $out";
}
my $executors = sub { "SELECT count(*) FROM pg_stat_activity WHERE datname = '$_[0]' AND backend_type = 'event_queue executor'" };
my $state = 'SELECT event_queue.activation_state()';

# A store with a job that is done as soon as someone may.
$node->safe_psql('postgres', 'CREATE DATABASE erp');
$node->safe_psql('erp', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (n int);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES (1)';
SELECT event_queue.create_queue('tasks');
SELECT event_queue.create_handler('tasks', '*', 'public.work');
SELECT event_queue.append('a', '1', 'x');
CREATE ROLE admin LOGIN; SELECT event_queue.grant_admin('admin');
CREATE ROLE worker LOGIN; SELECT event_queue.grant_worker('worker')));
is($node->safe_psql('erp', $state), 'active', 'a new store is in service at once');
ok($node->poll_query_until('postgres', $executors->('erp'), '2'), 'with its workers');
is($node->safe_psql('erp', q(SELECT ok, detail FROM event_queue.health() LIMIT 1)), 't|in service', 'as health says');

# TEMPLATE: with a job in it that the original did not run.
$node->safe_psql('postgres', q(ALTER SYSTEM SET event_queue.executors = 0));
$node->reload;
ok($node->poll_query_until('postgres', $executors->('erp'), '0'), 'no executor');
my $job = $node->safe_psql('erp', q(SELECT event_queue.enqueue('tasks', 'waits')));
$node->safe_psql('postgres', 'CREATE DATABASE template_copy TEMPLATE erp');
$node->safe_psql('postgres', q(ALTER SYSTEM RESET event_queue.executors));
$node->reload;
ok($node->poll_query_until('erp', 'SELECT count(*) = 1 FROM done'), 'the original goes on');
is($node->safe_psql('template_copy', $state), 'copy', 'a copy by TEMPLATE holds');
like(error_of($node, 'template_copy', q(SELECT event_queue.append('a', '1', 'x'))), qr/^EQ036 /, 'append says so');
is($node->safe_psql('template_copy', 'SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM event_queue.jobs)'), '0|1', 'its job is not run');
like(error_of($node, 'template_copy', 'SET ROLE worker; SELECT event_queue.activate()'), qr/^42501 /, 'a worker may not activate');
$node->safe_psql('template_copy', 'BEGIN; SELECT event_queue.activate(); ROLLBACK');
is($node->safe_psql('template_copy', $state), 'copy', 'an activation that is rolled back is none');
like(error_of($node, 'template_copy', q(BEGIN; SAVEPOINT s; SELECT event_queue.activate(); SELECT event_queue.append('a', '1', 'x');
	ROLLBACK TO s; SELECT event_queue.append('a', '1', 'x'); COMMIT)), qr/^EQ036 /, 'nor is one to a savepoint for what follows it');
like(error_of($node, 'template_copy', q(BEGIN; SAVEPOINT s; SELECT event_queue.activate(); RELEASE s; SELECT event_queue.append('a', '1', 'x');
	SAVEPOINT t; SELECT event_queue.append('a', '1', 'x'); ROLLBACK TO t; SELECT event_queue.append('a', '1', 'x'); ROLLBACK)), qr/^none: /, 'one that is kept is one');
is($node->safe_psql('template_copy', q(BEGIN; SET ROLE admin; SELECT event_queue.activate() ~ '^4-'; SELECT event_queue.enqueue('tasks', 'now') > 0; COMMIT)), "t\nt", 'an admin may');
ok($node->poll_query_until('template_copy', 'SELECT count(*) = 2 FROM done'), 'then its jobs run');
$node->safe_psql('postgres', 'DROP DATABASE template_copy');

# A dump into the database it came from.
$node->safe_psql('erp', q(SELECT event_queue.append('a', '1', 'x')));
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/erp.custom", $node->connstr('erp') ], 'pg_dump');
my $lost = $node->safe_psql('erp', q(SELECT position FROM event_queue.append('a', '1', 'lost')));
$node->command_ok([ 'pg_restore', '-e', '--clean', '--if-exists', '-d', $node->connstr('erp'), "$dir/erp.custom" ], 'pg_restore --clean');
is($node->safe_psql('erp', $state), 'copy', 'a store that was put back holds');
is($node->safe_psql('erp', q(SELECT event_queue.activate() ~ '^1-')), 't', 'and goes on in a new generation');
is($node->safe_psql('erp', qq(SELECT position > $lost FROM event_queue.append('a', '1', 'x'))), 't', 'above what was lost');
ok($node->poll_query_until('postgres', $executors->('erp'), '2'), 'with its workers');
$lost = $node->safe_psql('erp', q(SELECT position FROM event_queue.append('a', '1', 'lost again')));
$node->command_ok([ 'pg_restore', '-e', '--clean', '--if-exists', '-d', $node->connstr('erp'), "$dir/erp.custom" ], 'the same dump once more');
is($node->safe_psql('erp', q(SELECT event_queue.activate() ~ '^2-')), 't', 'begins another generation');
is($node->safe_psql('erp', qq(SELECT position > $lost FROM event_queue.append('a', '1', 'x'))), 't', 'above what was lost since the first time');

# Data into a store that is in service: from the first table on it holds.
$node->safe_psql('postgres', 'CREATE DATABASE by_hand');
$node->safe_psql('by_hand', 'CREATE EXTENSION event_queue; CREATE TABLE done (n int);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$INSERT INTO public.done VALUES (1)$$');
ok($node->poll_query_until('postgres', $executors->('by_hand'), '2'), 'a store with workers');
$node->safe_psql('by_hand', 'SELECT event_queue.watermark()');
# Data alone need the tables that the dump has, of this month and the next. The
# other may get its next ones while this waits.
my $tables = q(SELECT array_agg(relname::text) FROM pg_class WHERE relnamespace = 'event_queue'::regnamespace AND relkind = 'r');
sub has_tables_of
{
	my ($name, $other) = @_;
	my $theirs = $node->safe_psql($other, $tables);
	return $node->poll_query_until($name, "SELECT ($tables) @> '$theirs'");
}
ok(has_tables_of('by_hand', 'erp'), 'with the tables of the other');
$node->command_ok([ 'pg_restore', '-e', '--section=data', '-d', $node->connstr('by_hand'), "$dir/erp.custom" ], 'data are put into it');
is($node->safe_psql('by_hand', $state), 'copy', 'it holds');
ok($node->poll_query_until('postgres', $executors->('by_hand'), '0'), 'the workers leave');
is($node->safe_psql('by_hand', q(SELECT event_queue.activate() ~ '^1-')), 't', 'until it is activated');
ok($node->poll_query_until('postgres', $executors->('by_hand'), '2'), 'and come back');

# One table alone, whichever it is: a schedule would make jobs here, too.
is($node->safe_psql('by_hand', q(SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY 1) FROM pg_extension e, unnest(e.extconfig) x (oid), pg_class c
	WHERE e.extname = 'event_queue' AND c.oid = x.oid AND c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'end_service_while_loaded'))),
	'event_queue_internal.activation', 'each table that a dump has puts the store on hold');
for my $table ('schedule', 'subscription', 'job')
{
	$node->safe_psql('postgres', 'CREATE DATABASE scheduled');
	$node->safe_psql('scheduled', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('tasks'), event_queue.create_subscription('s'), event_queue.create_schedule('s', '* * * * * *', 'tasks', 'x')));
	ok($node->poll_query_until('scheduled', 'SELECT count(*) > 0 FROM event_queue.jobs'), "$table: a schedule makes jobs");
	$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/scheduled.custom", $node->connstr('scheduled') ], 'pg_dump');
	$node->safe_psql('postgres', 'CREATE DATABASE target');
	$node->safe_psql('target', q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('tasks')));
	$node->command_ok([ 'pg_restore', '-e', '--data-only', '-n', 'event_queue', '-t', $table, '-d', $node->connstr('target'), "$dir/scheduled.custom" ], 'it alone is loaded elsewhere');
	is($node->safe_psql('target', "SELECT (SELECT count(*) > 0 FROM event_queue.$table), event_queue.activation_state()"), 't|not loaded', 'which holds the store there');
	like(error_of($node, 'target', q(SELECT event_queue.enqueue('tasks', 'x'))), qr/^EQ036 /, 'and nothing is done');
	$node->safe_psql('target', 'SELECT event_queue.activate()');
	is($node->safe_psql('target', 'SELECT event_queue.activation_state()'), 'active', 'until it is activated');
	is($node->safe_psql('target', q(SELECT count(event_queue.enqueue('tasks', 'x')), count(event_queue.create_subscription('t')), count(event_queue.create_schedule('t', '@daily', 'tasks', 'x')))), '1|1|1', 'then its sequences are above what was loaded');
	$node->safe_psql('postgres', "DROP DATABASE $_") for qw(target scheduled);
}

# Each way in which such data come, each statement slowly: no job is run, no rule fires.
sub slowly
{
	my ($name, @arguments) = @_;
	my $file = "$dir/$name.sql";
	$node->command_ok([ 'pg_dump', '--data-only', @arguments, '-T', 'done', '-f', $file, $node->connstr('loaded_from') ], "pg_dump --data-only @arguments");
	my $script = slurp_file($file);
	$script =~ s/^((?:COPY|INSERT INTO|ALTER TABLE) event_queue)/SELECT pg_sleep(0.2);\n$1/mg;
	append_to_file("$file.slow", $script);
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION event_queue; CREATE TABLE done (n int);
		CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$INSERT INTO public.done VALUES (1)$$');
	ok($node->poll_query_until('postgres', $executors->($name), '2'), "$name: a store with workers");
	ok(has_tables_of($name, 'loaded_from'), 'with the tables of the other');
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($name), '-f', "$file.slow" ], "$name: loaded");
	is($node->safe_psql($name, 'SELECT (SELECT count(*) FROM done), (SELECT count(*) FROM event_queue.jobs), event_queue.activation_state()'), '0|3|copy', "$name: nothing was run, it holds");
	$node->safe_psql($name, 'SELECT event_queue.activate()');
	ok($node->poll_query_until($name, 'SELECT count(*) = 3 FROM done'), "$name: until it is activated");
	is($node->safe_psql($name, q(SELECT count(*) FROM event_queue.jobs WHERE name = 'by rule')), '0', "$name: the rule does not meet old events");
	$node->safe_psql('postgres', "DROP DATABASE $name");
}
$node->safe_psql('postgres', 'CREATE DATABASE loaded_from');
$node->safe_psql('loaded_from', q(CREATE EXTENSION event_queue; CREATE TABLE done (n int);
	CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$INSERT INTO public.done VALUES (1)$$;
	SELECT event_queue.create_queue('tasks'), event_queue.create_queue('ruled');
	SELECT event_queue.create_rule('r', 'e.**', queue => 'ruled', job_name => 'by rule');
	SELECT event_queue.append('e', '1', 'e.x')));
ok($node->poll_query_until('loaded_from', q(SELECT count(*) = 1 FROM event_queue.jobs)), 'a rule has fired');
$node->safe_psql('loaded_from', q(SELECT event_queue.purge_queue('ruled')));
$node->safe_psql('postgres', q(ALTER SYSTEM SET event_queue.databases = 'by_copy,by_inserts,by_conflict,by_quiet'));
$node->reload;
ok($node->poll_query_until('postgres', $executors->('loaded_from'), '0'), 'no executor');
$node->safe_psql('loaded_from', q(SELECT event_queue.create_handler('tasks', '*', 'public.work'); SELECT event_queue.enqueue('tasks', 'waits') FROM generate_series(1, 3)));
slowly('by_copy');
slowly('by_inserts', '--inserts');
slowly('by_conflict', '--inserts', '--on-conflict-do-nothing');
slowly('by_quiet', '--disable-triggers');
$node->safe_psql('postgres', 'DROP DATABASE loaded_from');
$node->safe_psql('postgres', q(ALTER SYSTEM RESET event_queue.databases));
$node->reload;
ok($node->poll_query_until('postgres', $executors->('erp'), '2'), 'workers again');

# The schema alone.
$node->safe_psql('postgres', 'CREATE DATABASE empty');
$node->command_ok([ 'pg_restore', '-e', '--schema-only', '-d', $node->connstr('empty'), "$dir/erp.custom" ], 'the schema alone');
is($node->safe_psql('empty', $state), 'not loaded', 'waits for its data');
is($node->safe_psql('empty', q(SELECT event_queue.activate() ~ '^0-')), 't', 'or is taken as it is');
is($node->safe_psql('empty', q(SELECT position FROM event_queue.append('a', '1', 'x'))), '1', 'and begins at 1');

# activate_copies: not while a restore may be at work.
$node->append_conf('postgresql.conf', 'event_queue.activate_copies = on');
$node->reload;
$node->safe_psql('postgres', 'CREATE DATABASE auto TEMPLATE erp');
$node->safe_psql('postgres', 'CREATE DATABASE later');
$node->command_ok([ 'pg_restore', '-e', '-d', $node->connstr('later'), "$dir/erp.custom" ], 'pg_restore with activate_copies');
ok($node->poll_query_until('auto', "$state = 'active'"), 'activate_copies takes a copy into service');
is($node->safe_psql('later', $state), 'copy', 'but not right after a restore');
$node->append_conf('postgresql.conf', 'event_queue.activate_copies = off');
$node->reload;

# pg_dumpall into another server.
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', $conf);
$other->start;
$node->command_ok([ 'pg_dumpall', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ], 'pg_dumpall');
$other->command_ok([ 'psql', '-Xq', '-d', $other->connstr('postgres'), '-f', "$dir/all.sql" ], 'into another server');
is($other->safe_psql($_, $state), 'copy', "$_ holds there") for qw(erp by_hand empty);

# A logical subscriber.
$other->safe_psql('postgres', 'CREATE DATABASE replica');
$other->safe_psql('replica', 'CREATE EXTENSION event_queue; SELECT event_queue.watermark()');
my $subscribe = sub {
	return sprintf(q(CREATE SUBSCRIPTION %s CONNECTION $c$%s$c$ PUBLICATION %s), $_[0], $node->connstr('erp'), $_[1]);
};
$node->safe_psql('erp', 'CREATE PUBLICATION events FOR TABLE event_queue.event_store, event_queue.event_watermark;
	CREATE PUBLICATION blind FOR TABLE event_queue.event_store');
$other->safe_psql('replica', $subscribe->('s', 'events'));
is($other->safe_psql('replica', $state), 'not loaded', 'a subscriber is not in service');
my $count = sub { $node->safe_psql('erp', 'SELECT count(*) FROM event_queue.event_store') };
$node->safe_psql('erp', q(SELECT event_queue.append('a', '1', 'sent')));
ok($other->poll_query_until('replica', 'SELECT count(*) FROM event_queue.read_all()', $count->()), 'its events can be read');
like(error_of($other, 'replica', q(SELECT event_queue.append('b', '1', 'x'))), qr/^EQ036 /, 'and not appended to');
like(error_of($other, 'replica', q(SELECT event_queue.activate())), qr/^EQ036 cannot activate a store that receives a subscription/, 'nor activated');
$other->safe_psql('replica', 'DROP SUBSCRIPTION s');
is($other->safe_psql('replica', $state), 'not loaded', 'without its subscription it still holds');
is($other->safe_psql('replica', 'SELECT count(*) FROM event_queue.read_all()'), $count->(), 'with all its events');
is($other->safe_psql('replica', q(SELECT event_queue.activate() ~ '^3-')), 't', 'activate takes it over');
is($other->safe_psql('replica', q(SELECT position > 2::bigint << 40, version > 3 FROM event_queue.append('a', '1', 'x'))), 't|t', 'positions and versions go on');
ok($other->poll_query_until('postgres', $executors->('replica'), '2'), 'with workers');
$other->safe_psql('postgres', 'CREATE DATABASE blind');
$other->safe_psql('blind', 'CREATE EXTENSION event_queue');
$other->safe_psql('blind', $subscribe->('s2', 'blind'));
like(error_of($other, 'blind', 'SELECT event_queue.watermark()'), qr/^EQ036 the publisher's watermark is not known/, 'no watermark, no reading');
$other->safe_psql('blind', 'DROP SUBSCRIPTION s2');

# A physical copy that is promoted goes on by itself.
$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
$standby->promote;
is($standby->safe_psql('erp', q(SELECT event_queue.activation_state(), position > 2::bigint << 40 FROM event_queue.append('a', '1', 'promoted'))),
	'active|t', 'a promoted standby is in service, in a generation of its own');
$standby->stop;

# pg_upgrade.
$other->stop;
$node->safe_psql('postgres', "DROP DATABASE $_") for qw(auto later empty by_hand);
$node->safe_psql('erp', 'DROP PUBLICATION events; DROP PUBLICATION blind');
$node->stop;
my $new = PostgreSQL::Test::Cluster->new('new');
$new->init;
$new->append_conf('postgresql.conf', $conf);
my $bin = $node->config_data('--bindir');
my $cwd = `pwd`;
chomp $cwd;
chdir $new->data_dir . '/..';
$node->command_ok([ 'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir, '-b', $bin, '-B', $bin,
	'-s', $new->host, '-p', $node->port, '-P', $new->port ], 'pg_upgrade');
chdir $cwd;
$new->start;
is($new->safe_psql('erp', $state), 'copy', 'an upgraded server holds');
is($new->safe_psql('erp', q(SELECT event_queue.activate() ~ '^3-')), 't', 'until it is activated');
ok($new->poll_query_until('postgres', $executors->('erp'), '2'), 'with workers');
$new->stop;
done_testing();
