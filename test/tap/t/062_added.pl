# What users and other extensions add to our tables: it works, can be changed and dropped
# again, and nothing else suffers.  What a restore makes of it; restores that are not complete are not
# taken into service.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
));
$node->start;
my $dir = $node->data_dir . '/..';

sub sql { return $node->safe_psql(@_) }

sub error_of
{
	my ($db, $sql) = @_;
	my ($status, $out, $err) = $node->psql($db, $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /((?:ERROR|WARNING):  .*)/s ? $1 : "none: $out";
}

# pg_restore of what may fail in parts.
sub restore
{
	my ($db, @arguments) = @_;
	my ($out, $err);
	IPC::Run::run([ 'pg_restore', '-d', $node->connstr($db), @arguments ], '>', \$out, '2>', \$err);
	return $err;
}

# Plain, delayed and grouped jobs are done.
my $n = 0;
sub goes_on
{
	my ($db, $what) = @_;
	$n += 4;
	sql($db, q(SELECT event_queue.enqueue('tasks', 'plain'), event_queue.enqueue('tasks', 'delayed', delay => '10 ms'),
		event_queue.enqueue('tasks', 'first', group_key => 'k'), event_queue.enqueue('tasks', 'second', group_key => 'k'), event_queue.append('a', '1', 'e.x')));
	ok($node->poll_query_until($db, "SELECT count(*) = $n FROM done"), "$what: jobs are done");
}
my $base = q(
CREATE EXTENSION event_queue;
CREATE TABLE done (n int);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.done VALUES (1)';
SELECT event_queue.create_queue('tasks');
SELECT event_queue.create_handler('tasks', '*', 'public.work');
);

# Another extension (run.sh has put it beside ours, if it may).
SKIP:
{
	skip 'the extension of this test is not installed', 1
		unless sql('postgres', q(SELECT count(*) FROM pg_available_extensions WHERE name = 'eq_test_other'));
	sql('postgres', 'CREATE DATABASE other');
	sql('other', $base);
	goes_on('other', 'without it');
	sql('other', 'BEGIN; CREATE EXTENSION eq_test_other; ROLLBACK');
	goes_on('other', 'rolled back');
	sql('other', 'CREATE EXTENSION eq_test_other');
	ok($node->poll_query_until('other', q(SELECT count(*) = 1 FROM other_log WHERE what = 'worked')), 'its handler works');
	sql('other', q(SELECT event_queue.create_queue('seen')));
	is(sql('other', q(SELECT string_agg(what, ', ' ORDER BY what) FROM other_log WHERE what <> 'worked')), 'INSERT other, INSERT seen', 'so does its trigger');
	like(error_of('other', q(SELECT event_queue.create_queue('forbidden'))), qr/^ERROR:  23514:/, 'and its check');
	goes_on('other', 'with it');
	is(sql('other', q(SET enable_seqscan = off; SELECT count(*) FROM event_queue.job WHERE other_upper(name) = 'PLAIN')), '0', 'its index is kept');
	sql('other', q(ALTER EXTENSION eq_test_other UPDATE TO '1.1'));
	is(sql('other', q(SELECT event_queue.create_queue('unseen') > 0, (SELECT count(*) FROM other_log WHERE what = 'INSERT unseen'), event_queue.create_queue('forbidden') > 0)), 't|0|t', 'its update takes away what it made');
	goes_on('other', 'updated');
	like(error_of('other', q(ALTER EXTENSION eq_test_other UPDATE TO 'bad')), qr/^ERROR:  EQ057: /, 'it may not change what is ours');
	like(error_of('other', q(ALTER EXTENSION eq_test_other UPDATE TO 'worse')), qr/^ERROR:  EQ037: /, 'nor make what would have no effect');
	is(sql('other', q(SELECT extversion, to_regclass('other_bad') IS NULL FROM pg_extension WHERE extname = 'eq_test_other')), '1.1|t', 'nothing of that is left');
	like(error_of('other', 'DROP EXTENSION event_queue'), qr/^ERROR:  2BP01: .*extension eq_test_other depends/s, 'ours is not dropped without it');
	like(error_of('other', 'DROP EXTENSION eq_test_other'), qr/^ERROR:  2BP01: .*other_job_name depends/s, 'what it added holds it, as it does with any table');
	sql('other', 'BEGIN; DROP EXTENSION eq_test_other CASCADE; ROLLBACK');
	goes_on('other', 'not dropped');
	sql('other', 'DROP EXTENSION eq_test_other CASCADE');
	is(sql('other', q(SELECT count(*) FROM pg_attribute WHERE attrelid = 'event_queue.job'::regclass AND attname = 'other_column')), '0', 'a column of its type goes with it');
	goes_on('other', 'dropped');
	sql('other', q(SELECT event_queue.enqueue('other', 'y')));
	ok($node->poll_query_until('other', q(SELECT count(*) = 1 FROM event_queue.health() WHERE NOT ok AND check_name = 'handler other/*' AND detail ~ 'other_work.* does not exist')),
		'its queue stays, and health says that the handler has no function');
	sql('other', q(SELECT event_queue.drop_handler('other', '*'), event_queue.drop_queue('other', true)));
	is(sql('other', q(SELECT string_agg(check_name || ': ' || detail, '; ') FROM event_queue.health() WHERE NOT ok AND check_name ~ '^scheduler')), '', 'the scheduler has no fault');
	sql('other', q(DROP INDEX event_queue.other_event_data; SELECT event_queue.drop_queue('forbidden')));
	sql('other', 'CREATE EXTENSION eq_test_other; DROP EXTENSION event_queue CASCADE');
	is(sql('other', q(SELECT count(*) FROM pg_extension WHERE extname ~ '^(event_queue|eq_test)')), '0', 'both are dropped at once');
	sql('postgres', 'DROP DATABASE other');
}

# A database with a column, an index, a trigger, a partition of its own.
$n = 0;
sql('postgres', 'CREATE DATABASE erp');
my ($status, $out, $warning) = $node->psql('erp', $base . q(
ALTER TABLE event_queue.queue ADD COLUMN cost int NOT NULL DEFAULT 3;
CREATE INDEX mine ON event_queue.job (name);
CREATE TRIGGER mine AFTER INSERT ON event_queue.queue EXECUTE FUNCTION event_queue_internal.config_changed();
SELECT event_queue.create_event_partition();
SELECT event_queue.create_rule('r', 'ruled.**', queue => 'tasks', job_name => 'by rule');
SELECT event_queue.append('a', '1', 'x');
));
like($warning, qr/WARNING:  a restore does not make column "cost" of table "event_queue\.queue"/, 'ADD COLUMN says what a restore will lack');
goes_on('erp', 'the original');
sql('erp', q(SELECT event_queue.drop_handler('tasks', '*'), event_queue.enqueue('tasks', 'waits')));
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/erp.custom", $node->connstr('erp') ], 'pg_dump');

# Not complete: a table that could not be loaded.
sql('postgres', 'CREATE DATABASE lacks_queue');
like(restore('lacks_queue', "$dir/erp.custom"), qr/column "cost" of relation "queue" does not exist/, 'a column of the dump that is not there');
like(error_of('lacks_queue', 'SELECT event_queue.activate()'),
	qr/^ERROR:  EQ036: cannot activate: tables were not loaded\nDETAIL:  COPY has failed for: event_queue\.queue\.\nHINT:  The output of the restore says why: .* load these tables again/,
	'activate says what is missing, and what to do');
is(sql('lacks_queue', 'SELECT event_queue.activation_state()'), 'copy', 'and leaves the store as it is');
sql('lacks_queue', 'ALTER TABLE event_queue.queue ADD COLUMN cost int NOT NULL DEFAULT 3');
is(restore('lacks_queue', qw(--data-only -n event_queue -t queue), "$dir/erp.custom"), '', 'the rows of that table');
like(sql('lacks_queue', 'SELECT event_queue.activate()'), qr/^1-/, 'then it activates');
is(sql('lacks_queue', q(SELECT count(*) FROM event_queue.jobs WHERE queue = 'tasks' AND state = 'ready')), '1', 'with all jobs');

# In steps, with the column.
sql('postgres', 'CREATE DATABASE steps');
is(restore('steps', '--section=pre-data', "$dir/erp.custom"), '', 'restored in steps');
sql('steps', 'ALTER TABLE event_queue.queue ADD COLUMN cost int NOT NULL DEFAULT 3');
is(restore('steps', '--section=data', "$dir/erp.custom"), '', 'the data fit');
like(error_of('steps', 'SELECT event_queue.activate()'),
	qr/^ERROR:  EQ036: cannot activate: tables of events lack indexes\nDETAIL:  Missing: event_store_p\d+_aggregate_key, .*\nHINT:/, 'not activated before the last step');
is(restore('steps', '--section=post-data', "$dir/erp.custom"), '', 'the last step');
like(sql('steps', 'SELECT event_queue.activate()'), qr/^1-/, 'then it activates');
is(sql('steps', q(SELECT position > 1::bigint << 40 FROM event_queue.append('a', '1', 'x'))), 't', 'and takes events');

# The extension alone, in its schemas.
$node->command_ok([ 'pg_dump', '-Fc', '-e', 'event_queue', '-n', 'event_queue*', '-f', "$dir/alone.custom", $node->connstr('lacks_queue') ], 'pg_dump -e event_queue -n event_queue*');
sql('postgres', 'CREATE DATABASE alone');
is(restore('alone', '--section=pre-data', "$dir/alone.custom"), '', 'it makes the extension');
sql('alone', 'ALTER TABLE event_queue.queue ADD COLUMN cost int NOT NULL DEFAULT 3');
is(restore('alone', '--section=data', '--section=post-data', "$dir/alone.custom"), '', 'and has its data');
is(sql('alone', q(SELECT event_queue.activation_state(), (SELECT count(*) FROM event_queue.jobs), event_queue.activate() ~ '^2-')), 'copy|1|t', 'as in a dump of the database');

# The same dump twice over.
sql('postgres', 'CREATE DATABASE twice');
restore('twice', '--section=pre-data', '--section=data', "$dir/erp.custom");
restore('twice', "$dir/erp.custom");
like(error_of('twice', 'SELECT event_queue.activate()'), qr/^ERROR:  EQ036: cannot activate/, 'a dump that was loaded twice is not activated');

# Jobs without their queue.
sql('postgres', 'CREATE DATABASE strays');
sql('strays', 'CREATE EXTENSION event_queue');
is(restore('strays', qw(--data-only -n event_queue -t job), "$dir/erp.custom"), '', 'jobs alone');
like(error_of('strays', 'SELECT event_queue.activate()'), qr/^WARNING:  01000: 1 jobs and dead letters are of queues that are not here\n/, 'activate warns of them');
is(sql('strays', 'SELECT event_queue.activation_state()'), 'active', 'and activates');

# A restore that fires no triggers.
sql('postgres', 'CREATE DATABASE quiet');
sql('quiet', 'CREATE EXTENSION event_queue; ALTER TABLE event_queue.queue ADD COLUMN cost int');
is(sql('quiet', 'SELECT event_queue.activation_state()'), 'active', 'a store in service');
{
	local $ENV{PGOPTIONS} = '-c session_replication_role=replica';
	is(restore('quiet', qw(--data-only -n event_queue -t queue), "$dir/erp.custom"), '', 'gets rows with session_replication_role = replica');
}
is(sql('quiet', 'SELECT event_queue.activation_state()'), 'not loaded', 'and is out of service');
sql('quiet', 'SET allow_system_table_mods = on; ALTER TABLE event_queue.queue ENABLE TRIGGER end_service_while_loaded; SELECT event_queue.activate()');
is(sql('quiet', q(SELECT count(*) FROM pg_trigger WHERE tgname = 'end_service_while_loaded' AND tgenabled <> 'A')), '0', 'activate sees to it that the next one is noticed');

# All of it belongs to a role that is no superuser, whose functions the workers don't make one.
sql('postgres', 'CREATE ROLE boss SUPERUSER; CREATE ROLE app; CREATE DATABASE owned');
sql('owned', 'SET ROLE boss; CREATE EXTENSION event_queue; RESET ROLE; REASSIGN OWNED BY boss TO app');
$n = 0;
sql('owned', $base =~ s/CREATE EXTENSION event_queue;//r);
sql('owned', q(
CREATE TABLE entered (name text, rights text);
GRANT ALL ON entered TO PUBLIC;
CREATE FUNCTION note(name text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.entered VALUES (name, current_user)';
CREATE FUNCTION enter(name text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.note(name);
	RETURN name;
END
$$;
ALTER TABLE entered OWNER TO app;
ALTER FUNCTION enter OWNER TO app;
SELECT event_queue.create_queue('moved', fair => true);
SET ROLE app;
CREATE INDEX entered ON event_queue.job (enter(name));
));
sql('owned', q(SELECT event_queue.enqueue('moved', 'moved', delay => '1 second')));
ok($node->poll_query_until('owned', q(SELECT count(*) = 2 FROM entered WHERE name = 'moved')), 'an index calls its function, also when the scheduler moves a job');
is(sql('owned', q(SELECT string_agg(rights, ' ' ORDER BY ctid) FROM entered WHERE name = 'moved')), 'postgres app', 'there as the owner');
goes_on('owned', 'of another owner');

# A function in an index that the owner has added does not end, for some rows.
sql('postgres', 'CREATE DATABASE stuck');
$n = 0;
sql('stuck', 'SET ROLE boss;' . $base . q(
CREATE TABLE stuck (n int);
CREATE FUNCTION stick(name text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
	WHILE name LIKE 'stuck%' AND EXISTS (SELECT FROM public.stuck) LOOP
		PERFORM pg_sleep(0.1);
	END LOOP;
	RETURN name;
END
$$;
CREATE INDEX stick ON event_queue.job (stick(name));
SELECT event_queue.create_queue('stuck', fair => true), event_queue.create_queue('stuck too');
SELECT event_queue.create_schedule('stuck', '0 0 1 1 *', 'stuck', 'stuck scheduled');
SELECT event_queue.enqueue('stuck', 'stuck delayed', delay => '3 seconds');
SELECT event_queue.enqueue('stuck too', 'first', group_key => 'stuck'), event_queue.enqueue('stuck too', 'stuck second', group_key => 'stuck');
));
ok($node->poll_query_until('stuck', q(SELECT state = 'ready' FROM event_queue.jobs WHERE name = 'first')), 'a group begins');
sql('stuck', q(INSERT INTO stuck VALUES (1);
	SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('stuck too');
	UPDATE event_queue.schedule SET next_run = now() WHERE name = 'stuck'));
for my $fault ('wake-ups of queue stuck', 'group stuck of queue stuck too, tenant default', 'schedule stuck')
{
	ok($node->poll_query_until('stuck', qq(SELECT count(*) = 1 FROM event_queue.health() WHERE check_name = '$fault' AND detail ~ 'a function in an index of table .job. did not end .* .EQ040.')), "$fault: health says why it waits");
}
goes_on('stuck', 'a function in an index does not end');
sql('stuck', q(DELETE FROM stuck; UPDATE event_queue.queue SET sla = sla));
ok($node->poll_query_until('stuck', q(SELECT count(*) = 3 FROM event_queue.jobs WHERE name LIKE 'stuck%' AND state = 'ready')), 'when it ends, all comes');
ok($node->poll_query_until('stuck', q(SELECT count(*) = 0 FROM event_queue.faults())), 'and no fault is left');
# the function is called by the CHECK of a domain
sql('stuck', q(DROP INDEX event_queue.stick;
	CREATE DOMAIN sticky AS text CHECK (stick(VALUE) IS NOT NULL);
	CREATE INDEX stick ON event_queue.job ((name::sticky));
	SELECT event_queue.enqueue('stuck', 'stuck again', delay => '2 seconds');
	INSERT INTO stuck VALUES (1)));
ok($node->poll_query_until('stuck', q(SELECT count(*) = 1 FROM event_queue.health() WHERE check_name = 'wake-ups of queue stuck' AND detail ~ 'EQ040')), 'likewise of a domain');

# A publication of all tables: those without a key can be changed, too, and a copy be activated.
$n = 0;
sql('postgres', "DROP DATABASE $_") for qw(erp lacks_queue steps alone twice strays quiet owned stuck);	# their workers have places
sql('postgres', 'CREATE DATABASE published');
sql('published', $base . 'CREATE PUBLICATION everything FOR ALL TABLES');
goes_on('published', 'all is published');
is(sql('published', q(SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c WHERE c.relnamespace IN ('event_queue'::regnamespace, 'event_queue_internal'::regnamespace)
	AND c.relkind = 'r' AND c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
	AND c.relname !~ '^audit_log_[0-9]')), '', 'no table of ours lacks an identity, but those of which no row is changed');
sql('postgres', 'CREATE DATABASE published_copy TEMPLATE published');
like(sql('published_copy', 'SELECT event_queue.activate()'), qr/^1-/, 'a copy with it is activated');
is(sql('published', 'SELECT count(*) FROM event_queue.faults()'), '0', 'and nothing has failed');

# The tablespace of the database, by name.
sql('postgres', 'CREATE DATABASE named');
sql('named', 'SET default_tablespace = pg_default; CREATE EXTENSION event_queue');
is(sql('named', 'SELECT event_queue.activation_state()'), 'active', 'default_tablespace may be that of the database');
$node->stop;
done_testing();
