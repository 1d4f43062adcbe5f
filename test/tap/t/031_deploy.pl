# Deploying as doc/cookbook.md tells: migrations, run again, rolled back, by psql, as one
# simple query and by Knex; and blue/green: handlers and rules replaced while jobs and
# events come, each done once and none lost.
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
max_worker_processes = 32
log_line_prefix = '%e '
));
$node->start;
sub one { return $node->safe_psql($_[1] // 'postgres', $_[0]) }

# What the migration makes, in one line.
my $made = q(SELECT concat_ws(', ',
	(SELECT string_agg(name || ' ' || max_attempts, ' ') FROM event_queue.queue WHERE queue_id > 2),
	(SELECT string_agg(job_name || ' ' || function, ' ') FROM event_queue.handlers),
	(SELECT string_agg(name, ' ') FROM event_queue.rules), (SELECT string_agg(name, ' ') FROM event_queue.schedules)));
my $all = 'mail 5, welcome public.send_welcome, welcome, digest';

my ($book) = grep { -e } 'docs/cookbook.md';
SKIP:
{
	skip 'docs/cookbook.md is not here', 1 if !$book;
	my $text = slurp_file($book);
	my ($migration) = $text =~ /^```sql\n(-- V2__jobs.*?)^```/ms;
	my ($down) = $text =~ /^```sql\n(SELECT event_queue\.drop_schedule.*?)^```/ms;
	my ($knex) = $text =~ /^```js\n(exports\.up.*?)^```/ms;
	ok($migration && $down && $knex, 'the cookbook has its migrations');
	append_to_file('up.sql', $migration);
	append_to_file('down.sql', $down);
	append_to_file('fails.sql', "$migration SELECT 1/0;\n");

	$node->safe_psql('postgres', 'CREATE DATABASE migrated');
	one('CREATE EXTENSION event_queue; CREATE TABLE call (lead_id text, job_id bigint);', 'migrated');
	my @psql = ('psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('migrated'));
	command_fails([ @psql, '-1', '-f', 'fails.sql' ], 'a migration that fails');
	is(one($made, 'migrated'), '', 'leaves nothing');
	command_ok([ @psql, '-1', '-f', 'up.sql' ], 'in one transaction, as psql and Flyway do');
	is(one($made, 'migrated'), $all, 'all is there');
	command_ok([ @psql, '-1', '-f', 'up.sql' ], 'a second time');
	command_ok([ @psql, '-c', $migration ], 'as one simple query, as Prisma does');
	is(one($made, 'migrated'), $all, 'it is the same');
	one(q(SELECT event_queue.append('lead', 'L1', 'lead.created')), 'migrated');
	ok($node->poll_query_until('migrated', q(SELECT count(*) = 1 FROM call)), 'and works');
	command_ok([ @psql, '-1', '-f', 'down.sql' ], 'back');
	is(one($made, 'migrated'), '', 'all is gone');

	# Not by the superuser: by a role that may.
	one(q(CREATE ROLE migrator LOGIN; SELECT event_queue.grant_admin('migrator'); GRANT CREATE ON SCHEMA public TO migrator;
		DROP FUNCTION send_welcome;), 'migrated');
	command_ok([ @psql, '-U', 'migrator', '-1', '-f', 'up.sql' ], 'by a role with grant_admin');
	is(one(q(SELECT owner FROM event_queue.handlers), 'migrated'), 'migrator', 'whose handlers they are');
	command_ok([ @psql, '-U', 'migrator', '-1', '-f', 'down.sql' ], 'and back');

	my ($program) = grep { -x } map { "$_/node" } split(/:/, $ENV{PATH});
	skip 'node is not installed', 1 if !$program;
	my $has_knex = sub { IPC::Run::run([ $program, '-e', q(require('knex'); require('pg')) ], '>', \my $out, '2>', \my $err) };
	eval {
		IPC::Run::run([ 'npm', 'install', '--no-save', '--no-audit', '--no-fund', '--silent', 'knex@3', 'pg@8' ], '>', \my $out, '2>', \my $err,
			IPC::Run::timeout(90));
	} if !$has_knex->();
	skip 'packages knex and pg of node can\'t be had', 1 if !$has_knex->();
	mkdir 'migrations';
	append_to_file('migrations/2_jobs.js', $knex);
	append_to_file('migrate.js', q(
const knex = require('knex')({ client: 'pg', connection: { host: process.env.PGHOST, port: process.env.PGPORT, database: 'migrated', user: process.env.PGUSER } });
(async () => { await knex.migrate[process.argv[2]](); await knex.destroy(); })().catch((e) => { console.error(e); process.exit(1); });
));
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGUSER} = getpwuid($>);
	command_ok([ $program, 'migrate.js', 'latest' ], 'knex migrate:latest');
	is(one($made, 'migrated'), 'mail 5, welcome', 'queue and rule are there');
	command_ok([ $program, 'migrate.js', 'rollback' ], 'knex migrate:rollback');
	is(one($made, 'migrated'), '', 'and gone');
}

# Blue and green.
one(q(
CREATE EXTENSION event_queue;
CREATE TABLE done (job_id bigint, version text);
SELECT event_queue.create_queue('crm', keep_completed => '1 day');
CREATE SCHEMA blue;
CREATE SCHEMA green;
CREATE FUNCTION blue.call(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.done VALUES (job.job_id, 'blue') $$;
CREATE FUNCTION green.call(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.done VALUES (job.job_id, 'green') $$;
SELECT event_queue.create_handler('crm', 'call', 'blue.call');
SELECT event_queue.create_handler('crm', 'call-v2', 'green.call');
SELECT event_queue.create_rule('new leads', 'lead.created', queue => 'crm', job_name => 'call', payload => '{"lead": "$.aggregate_id"}');
CREATE PROCEDURE load(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM event_queue.enqueue('crm', 'call', jsonb_build_object('n', i));
		PERFORM event_queue.append('lead', 'L' || i, 'lead.created');
		COMMIT;
	END LOOP;
END
$$;
));
my $load = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'CALL load(2000)' ], '>', \my $out, '2>', \my $err);
sub deploy
{
	my ($round) = @_;
	my ($version, $job) = $round % 2 ? ('green', 'call-v2') : ('blue', 'call');
	one(qq(SELECT event_queue.create_handler('crm', 'call', '$version.call', or_replace => true)));
	one(qq(SELECT event_queue.create_rule('new leads', 'lead.created', queue => 'crm', job_name => '$job', payload => '{"lead": "\$.aggregate_id"}', or_replace => true)));
}
foreach my $round (1 .. 20)
{
	deploy($round);
	select(undef, undef, undef, 0.05);
}
ok($load->finish, 'jobs and events came meanwhile') or diag($err);
ok($node->poll_query_until('postgres', q(SELECT count(*) = 4000 FROM done)), 'and were done');
# However late the workers were until now, each version is at work for some.
foreach my $round (1, 2)
{
	deploy($round);
	one(q(SELECT event_queue.enqueue('crm', 'call')));
	one(q(SELECT event_queue.append('lead', 'L0', 'lead.created')));
	ok($node->poll_query_until('postgres', "SELECT count(*) = 4000 + 2 * $round FROM done"), "round $round");
}
ok($node->poll_query_until('postgres', q(SELECT count(*) >= 4004 FROM done)), 'all jobs are done');
is(one(q(SELECT count(*) || ' ' || count(DISTINCT job_id) FROM done)), '4004 4004', 'each once');
is(one(q(SELECT string_agg(DISTINCT version, ' ' ORDER BY version) FROM done)), 'blue green', 'by both versions');
is(one(q(SELECT count(*) || ' ' || sum(failures) FROM event_queue.history)), '4004 0', 'without a failure');
is(one(q(SELECT count(*) || ' ' || count(DISTINCT metadata ->> 'event_id') FROM event_queue.history WHERE metadata ->> 'rule' = 'new leads')), '2002 2002',
	'each event had one job');
is(one(q(SELECT count(DISTINCT name) FROM event_queue.history WHERE metadata ->> 'rule' = 'new leads')), '2', 'by the rule as it was or as it is');

# The old version goes when nothing is left of it; the new one works.
one(q(SELECT event_queue.create_handler('crm', 'call', 'green.call', or_replace => true); DROP SCHEMA blue CASCADE; SELECT event_queue.enqueue('crm', 'call');));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 4005 FROM done)), 'the old version is dropped');
# Jobs rest while tables change; enqueuing goes on.
one(q(SELECT event_queue.pause_queue('crm'); SELECT event_queue.enqueue('crm', 'call');));
is(one(q(SELECT state FROM event_queue.queue_jobs('crm', 1) WHERE state <> 'completed')), 'paused', 'a paused queue rests');
one(q(ALTER TABLE done ADD at timestamptz DEFAULT now(); SELECT event_queue.resume_queue('crm');));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 4006 FROM done)), 'and goes on');
is(join("\n", grep { !/^22012/ } slurp_file($node->logfile) =~ /^(\S{5} (?:ERROR|FATAL|PANIC):.*)$/mg), '', 'no error but the one of the migration that fails');
done_testing();
