# Jobs of groups, and jobs that depend on others, in a restored store: what waits for the
# scheduler's look is in the dump once, purge_queue works before activate(), and each job
# runs afterwards.  Also ways to dump that 013_restore and 014_copies don't go: row
# security, two jobs, a role that is bound to a tenant, the table of jobs alone.
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

sub sql
{
	my ($db, $sql) = @_;
	return $node->safe_psql($db, $sql);
}

sql('postgres', 'CREATE DATABASE erp');
sql('erp', q(
CREATE EXTENSION event_queue;
CREATE TABLE done (name text, tenant text);
CREATE FUNCTION work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$
	INSERT INTO public.done VALUES (job.name, job.tenant_id) $$;
CREATE ROLE seer LOGIN;
SELECT event_queue.grant_observer('seer', 'B');
SELECT event_queue.create_queue('tasks'), event_queue.pause_queue('tasks'), event_queue.create_handler('tasks', '*', 'public.work');
SELECT count(event_queue.enqueue('tasks', 'grouped', group_key => 'k' || i % 5, tenant_id => CASE i % 2 WHEN 0 THEN 'A' ELSE 'B' END)) FROM generate_series(1, 100) i;
SELECT event_queue.enqueue('tasks', 'dependent', depends_on => array_agg(job_id), tenant_id => 'A') FROM event_queue.jobs WHERE tenant_id = 'A';
));
ok($node->poll_query_until('erp', q(SELECT count(*) = 0 FROM event_queue_internal.job_review)), 'the scheduler has looked');
# What it has not looked at yet, and numbers that a restore could come to give, too.
sql('postgres', q(ALTER SYSTEM SET event_queue.databases = 'none'));
$node->reload;
ok($node->poll_query_until('postgres', q(SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'erp' AND backend_type ~ '^event_queue')), 'workers sent away');
sql('erp', q(SELECT setval('event_queue_internal.job_review_review_id_seq', 10);
	SELECT event_queue.enqueue('tasks', 'late', group_key => 'late', tenant_id => 'A')));
my $reviews = sql('erp', 'SELECT review_id, group_key FROM event_queue_internal.job_review');
is($reviews, '11|late', 'one row is to be looked at');
my $blocked = sql('erp', 'SELECT blocked, count(*) FROM event_queue.job GROUP BY 1 ORDER BY 1');

# By roles that may not see all.
my $port = $node->port;
my $host = $node->host;
for my $option ([], [ '--enable-row-security' ])
{
	$node->command_fails([ 'pg_dump', @$option, '-d', "host=$host port=$port user=seer dbname=erp", '-f', "$dir/seer.sql" ],
		"a role that is bound to a tenant can't dump @$option");
}

$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/erp.custom", $node->connstr('erp') ], 'pg_dump');
$node->command_ok([ 'pg_dump', '-Fd', '-j', '2', '-f', "$dir/erp.dir", $node->connstr('erp') ], 'pg_dump -j');
$node->command_ok([ 'pg_dump', '--enable-row-security', '-f', "$dir/erp.sql", $node->connstr('erp') ], 'pg_dump --enable-row-security');
$node->command_ok([ 'pg_dump', '-f', "$dir/plain.sql", $node->connstr('erp') ], 'pg_dump plain');
# As one who takes the jobs alone out of it would have it.
my $jobs_only = slurp_file("$dir/plain.sql");
$jobs_only =~ s/^COPY event_queue_internal\.job_review .*?^\\\.$//ms or die 'no job_review in the dump';
$jobs_only =~ s/^SELECT pg_catalog\.setval\('event_queue_internal\.job_review_review_id_seq'.*?$//m or die 'no sequence in the dump';
append_to_file("$dir/jobs.sql", $jobs_only);
sql('postgres', 'ALTER SYSTEM RESET event_queue.databases');
$node->reload;

my @psql = ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1');
my %ways = (
	custom => sub { [ 'pg_restore', '-e', '-d', $_[0], "$dir/erp.custom" ] },
	directory => sub { [ 'pg_restore', '-e', '-j', '2', '-d', $_[0], "$dir/erp.dir" ] },
	security => sub { [ @psql, '-d', $_[0], '-f', "$dir/erp.sql" ] },
	plain => sub { [ @psql, '-d', $_[0], '-f', "$dir/plain.sql" ] },
	jobs => sub { [ @psql, '-d', $_[0], '-f', "$dir/jobs.sql" ] });
for my $way (sort keys %ways)
{
	sql('postgres', "CREATE DATABASE $way");
	$node->command_ok($ways{$way}->($node->connstr($way)), "$way: restored");
	is(sql($way, 'SELECT review_id, group_key FROM event_queue_internal.job_review'), $way eq 'jobs' ? '' : $reviews, "$way: the restore itself wrote no row of job_review");
	is(sql($way, 'SELECT blocked, count(*) FROM event_queue.job GROUP BY 1 ORDER BY 1'), $blocked, "$way: jobs wait as they did");
	is(sql($way, q(SELECT role, tenant_id FROM event_queue_internal.tenant_role)), 'seer|B', "$way: roles are bound");
	is(sql($way, q(BEGIN; SELECT event_queue.purge_queue('tasks'); ROLLBACK)), '102', "$way: purge_queue of a copy");
	# Some go before it is taken into service: the next of their groups run.
	is(sql($way, q(WITH gone AS (DELETE FROM event_queue.job WHERE name = 'grouped' AND blocked = 0 RETURNING 1) SELECT count(*) FROM gone)), '10', "$way: some are deleted");
	sql($way, q(SELECT event_queue.resume_queue('tasks'), event_queue.activate()));
	ok($node->poll_query_until($way, q(SELECT count(*) = 0 FROM event_queue.jobs)), "$way: all jobs run once it is in service");
	is(sql($way, q(SELECT name, count(*) FROM done GROUP BY 1 ORDER BY 1)), "grouped|90\nlate|1", "$way: each once");
	is(sql($way, q(SELECT name, reason FROM event_queue.dead_letters)), 'dependent|dependency', "$way: who depends on a deleted job is dead");
	sql('postgres', "DROP DATABASE $way");
}
$node->stop;
done_testing();
