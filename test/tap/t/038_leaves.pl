# What a session has in its memory of tables and their indexes: the list of partitions,
# indexes that another session made anew or left invalid, and the plans by which rows are
# written, when an error came while they were made or used.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 1
event_queue.executors = 0
client_min_messages = error
));
$node->start;
sub sql { return $node->safe_psql($_[1] || 'postgres', $_[0]); }

# In one session, which may fail or die; what it printed.
sub session
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0);
	return join("\n", grep { $_ ne '' } $out, $err);
}

sub other { return qq(\\! psql -Xq -d postgres -c "$_[0]"\n); }

# Another session's transaction that did something and stays open; its lock says that it did.
sub hold
{
	my ($db, $lock, $sql) = @_;
	my $open = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($db),
			map { ('-c', $_) } 'BEGIN', $sql, "SELECT pg_advisory_lock($lock)", 'SELECT pg_sleep(600)' ],
		'>', '/dev/null', '2>&1');
	$node->poll_query_until($db, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $lock")
		or die 'the other session did nothing';
	return $open;
}

# As many partitions as there is room for, then those that were split off (one of them,
# and many): none is written behind the end of the list.
my $most = 20;
my $names = "SELECT string_agg(tenant_id, ' ' ORDER BY position) FROM event_queue.read_all()";
for my $n (1, 2, $most)
{
	my $db = "split$n";
	sql("CREATE DATABASE $db");
	sql(qq(
CREATE EXTENSION event_queue;
DO \$\$ BEGIN FOR i IN 1..$most LOOP PERFORM event_queue.append('t', 'a' || i, 'e.x', tenant_id => 'old' || i); END LOOP; END \$\$;
DO \$\$ BEGIN FOR i IN 1..15 LOOP PERFORM event_queue.create_event_partition('tenant' || i); END LOOP; END \$\$;
DO \$\$ BEGIN FOR i IN 1..$n LOOP PERFORM event_queue.split_event_partition(tenant_id => 'old' || i); END LOOP; END \$\$;
), $db);
	is(sql($names, $db), join(' ', map { "old$_" } 1 .. $most), "15 partitions, and $n that were split off: all events are read");
	is(sql(qq(
SELECT version FROM event_queue.append('t', 'b', 'e.x', tenant_id => 'tenant3');
SELECT version FROM event_queue.append('t', 'a$n', 'e.y', tenant_id => 'old$n');
SELECT count(*) FROM event_queue.read_all(0, 1000, 'old$n');
SELECT count(*) FROM event_queue.read_all();
), $db), "1\n2\n2\n" . ($most + 2), 'and appended to');
}

# REINDEX CONCURRENTLY of a partition, and of event_store, by another session: this one,
# which has read and appended by the indexes of before, goes on by the new ones.
sql(q(
CREATE EXTENSION event_queue;
SELECT event_queue.append('t', 'a', 'e.x', '{"n": 1}', tenant_id => 'x');
SELECT event_queue.create_event_partition('x');
SELECT event_queue.append('t', 'a', 'e.x', '{"n": 2}', tenant_id => 'x');
));
my $use = q(
SELECT count(*) FROM event_queue.read_all();
SELECT version FROM event_queue.append('t', 'a', 'e.x', '{"n": 3}', tenant_id => 'x');
SELECT event_queue.aggregate_state('t', 'a', tenant_id => 'x') ->> 'n';
SELECT count(*) FROM event_queue.read_aggregate('t', 'a', tenant_id => 'x');
SELECT string_agg(p.table_name || ' ' || p.index_name, ' ' ORDER BY p.table_name) FROM event_queue.read_plan('{}') p;
);
my $plan = 'event_store event_store_pkey event_store_t1 event_store_t1_pkey';
is(session(join('', $use, map { other("REINDEX TABLE CONCURRENTLY event_queue.$_") . $use } 'event_store_t1', 'event_store', 'event_store_t1')),
	join("\n", map { $_ + 1, $_ + 2, 3, $_ + 2, $plan } 1 .. 4), 'REINDEX CONCURRENTLY by another session is noticed');
# also where nothing but the plan is asked for
my $reindex = other('REINDEX TABLE CONCURRENTLY event_queue.event_store_t1');
is(session("SELECT count(*) FROM event_queue.read_all();\n$reindex" . "SELECT string_agg(index_name, ' ' ORDER BY index_name) FROM event_queue.read_plan('{}');\n"),
	"6\nevent_store_pkey event_store_t1_pkey", 'and by read_plan');
# and in the midst of a transaction, which has locked nothing meanwhile
for my $call (q(event_queue.aggregate_state('t', 'a', tenant_id => 'x')->> 'n'),
	q((SELECT max(version) FROM event_queue.read_aggregate('t', 'a', tenant_id => 'x')) / 2),
	q((SELECT count(*) FROM event_queue.read_all()) / 2))
{
	is(session("SELECT $call;\nBEGIN;\nSELECT 3;\n${reindex}SELECT $call;\nCOMMIT;\n"),
		"3\n3\n3", "in a transaction: $call");
}

# CREATE INDEX CONCURRENTLY that was cancelled leaves an index that has not all rows.
sql(q(CREATE DATABASE cancelled));
sql(q(
CREATE EXTENSION event_queue;
DO $$ BEGIN FOR i IN 1..10 LOOP PERFORM event_queue.append('t', 'a' || i, 'e.x'); END LOOP; END $$;
), 'cancelled');
my $open = hold('cancelled', 1, q(SELECT event_queue.append('t', 'z', 'e.y')));
my (undef, undef, $err) = $node->psql('cancelled',
	q(SET statement_timeout = '500ms'; CREATE INDEX CONCURRENTLY event_store_by_event_type ON event_queue.event_store (event_type, position)));
like($err, qr/statement timeout/, 'the index is not finished');
sql(q(SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1), 'cancelled');
$open->finish;
is(sql(q(
SELECT indisvalid FROM pg_index WHERE indexrelid = 'event_queue.event_store_by_event_type'::regclass;
SELECT count(*) FROM event_queue.read_all(filter => '{"event_type": "e.x"}');
SELECT index_name FROM event_queue.read_plan('{"event_type": "e.x"}');
), 'cancelled'), "f\n10\nevent_store_pkey", 'an invalid index is not read by');

# A statement that is cancelled while it waits for an index leaves a plan half made.
sql(q(SELECT event_queue.create_queue('q')));
$open = hold('postgres', 2, 'ALTER INDEX event_queue.job_order SET TABLESPACE pg_default');
is(session(q(
SET statement_timeout = '300ms';
SELECT event_queue.enqueue('q', 'cancelled');
SELECT event_queue.enqueue('q', 'cancelled');
SET statement_timeout = 0;
SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2;
SELECT event_queue.enqueue('q', 'n') > 0;
SET enable_seqscan = off;
SELECT string_agg(name, ' ') FROM event_queue.job WHERE job_id > 0;
SET enable_indexscan = off;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('q', 10);
)), "t\nt\nn\n1\n" . join("\n", map { "psql:<stdin>:$_: ERROR:  canceling statement due to statement timeout" } 3, 4),
	'a call that was cancelled while it waited for an index leaves nothing half made');
$open->finish;

# An error in a subtransaction leaves a plan that is in use; later calls of the transaction
# use it again, instead of making one for each row.  An index's expression sees how many
# there are while a call is at work.
sql(q(
CREATE FUNCTION look(id bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF id % 500 = 0 THEN
		PERFORM set_config('my.looks', current_setting('my.looks')::int + 1 || '', true),
			set_config('my.plans', greatest(current_setting('my.plans')::int, count(*)) || '', true)
		FROM pg_catalog.pg_backend_memory_contexts WHERE name = 'event_queue table';
	END IF;
	RETURN id;
END $$;
CREATE INDEX looks ON event_queue.job (public.look(job_id));
));
for my $errors (1, 100)
{
	is(sql(qq(
BEGIN;
SET LOCAL my.plans = 0;
SET LOCAL my.looks = 0;
DO \$\$
BEGIN
	FOR i IN 1..$errors LOOP
		BEGIN
			PERFORM event_queue.complete(1, gen_random_uuid());
		EXCEPTION WHEN SQLSTATE 'EQ016' THEN
			NULL;
		END;
		PERFORM event_queue.enqueue('q', 'after');
	END LOOP;
END \$\$;
SELECT cardinality(event_queue.enqueue_many('q', (SELECT jsonb_agg(jsonb_build_object('name', 'n', 'unique_key', k)) FROM generate_series(1, 3000) k)));
SELECT current_setting('my.looks')::int >= 6, current_setting('my.plans')::int BETWEEN 1 AND 20;
ROLLBACK)), "3000\nt|t", "$errors errors in subtransactions: plans are used again");
}
# A consumer that stands in an archived table of an older generation has lost nothing.
sql('CREATE DATABASE generations');
my $one = sub { return sql($_[0], 'generations') };
$one->(q(CREATE EXTENSION event_queue; SELECT event_queue.create_event_partition()));
$one->(q(SELECT event_queue.append('a', '1', 'x')));
my ($position) = $one->(q(SELECT position FROM event_queue.append('a', '2', 'x')));
$one->(q(SELECT event_queue.new_generation(); SELECT event_queue.create_event_partition(); SELECT event_queue.append('a', '3', 'x')));
my $ahead = sub { return ($node->psql('generations', "SELECT count(*) FROM event_queue.read_all($_[0])", extra_params => [ '-v', 'VERBOSITY=verbose' ]))[2] };
like($ahead->($position + 1), qr/EQ028: .*"go_on_after": $position\D/s, 'a lost position of the older generation');
$one->(q(SELECT event_queue.archive_event_partition('event_store_p1')));
is($one->("SELECT count(*) FROM event_queue.read_all($position)"), '1', 'one whose events were archived is none');
is($one->("SELECT count(*) FROM event_queue.read_all($position - 1)"), '1', 'nor is one before it');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP:|terminated by signal/, 'the server is well');
$node->stop;
done_testing();
