# Borders that need a server of their own: a database without schema public, hostile names of workers, and that each role has
# what the reference says.
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

# A database without schema public: made, worked in, and left again; and one that loses it later.
for my $when ('before', 'after')
{
	$node->safe_psql('postgres', "CREATE DATABASE $when");
	$node->safe_psql($when, 'DROP SCHEMA public') if $when eq 'before';
	$node->safe_psql($when, q(CREATE EXTENSION event_queue; CREATE SCHEMA app;
		CREATE TABLE app.done (name text);
		CREATE FUNCTION app.work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO app.done VALUES (job.name)';
		SELECT event_queue.create_queue('q'), event_queue.create_handler('q', '*', 'app.work'),
			event_queue.create_rule('r', 'lead.*', $$(event_data ->> 'n')::int > 0$$, 'q', 'by rule'),
			event_queue.create_schedule('s', '* * * * * *', 'q', 'by schedule')));
	$node->safe_psql($when, 'DROP SCHEMA public CASCADE') if $when eq 'after';
	$node->safe_psql($when, q(SELECT event_queue.enqueue('q', 'enqueued'), event_queue.append('lead', '1', 'lead.made', '{"n": 1}')));
	ok($node->poll_query_until($when, q(SELECT count(DISTINCT name) = 3 FROM app.done)), "without schema public, dropped $when CREATE EXTENSION: handler, rule, schedule");
	is($node->safe_psql($when, q(SELECT count(*) FROM event_queue.faults())), '0', 'no fault');
	is($node->safe_psql($when, q(SELECT event_queue.drop_schedule('s'); DROP EXTENSION event_queue CASCADE; SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text LIKE 'event_queue%')),
		"t\n0", 'and DROP EXTENSION');
}

# Names of workers: whatever they are, they claim no more than what is theirs, and say nothing in other places.
$node->safe_psql('postgres', q(CREATE EXTENSION event_queue;
	CREATE ROLE acme; CREATE ROLE other;
	SELECT event_queue.create_queue('q', max_stalled => 5), event_queue.grant_worker('acme', 'acme'), event_queue.grant_observer('acme', 'acme'),
		event_queue.grant_worker('other', 'other'), event_queue.grant_observer('other', 'other'), event_queue.grant_producer('acme', 'acme'), event_queue.grant_producer('other', 'other')));
my $secret = $node->safe_psql('postgres', q(SET ROLE acme; SELECT event_queue.enqueue('q', 'secret'); SELECT lease_token FROM event_queue.claim('q', 1, 'the worker')));
$secret =~ s/.*\n//;
for my $name ("E'new\\nline'", "E'bell\\007'", "E'esc\\033[2J'", "repeat('x', 256)", "repeat('x', 1000000)", "''", "' '", "'the worker'", "'executor 1'",
	"repeat('ã', 200)", q('"; DROP TABLE event_queue.job; --'), q('%s%n$1'))
{
	my ($status, $out, $err) = $node->psql('postgres', qq(SET ROLE other; SELECT event_queue.enqueue('q', 'open') > 0;
		SELECT count(*) AS claimed FROM event_queue.claim('q', 5, $name) \\gset
		SELECT :claimed, tenant_id, leased_by = coalesce(nullif($name, ''), leased_by) FROM event_queue.jobs ORDER BY job_id DESC LIMIT 1;
		RESET ROLE; DELETE FROM event_queue.job WHERE tenant_id = 'other'), extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_stop => 0);
	like("$out\n$err", $err =~ /ERROR/ ? qr/ERROR:  EQ006: worker/ : qr/^1\|other\|t$/m, 'worker ' . substr($name, 0, 30) . ': is its name, or refused');
	unlike($out, qr/acme/, 'and has nothing of the other tenant');
}
is($node->safe_psql('postgres', q(SELECT string_agg(DISTINCT leased_by, ',') FROM event_queue.job WHERE tenant_id = 'acme')), 'the worker', 'the job of the worker whose name another one took is still its own');
my ($job) = $node->safe_psql('postgres', q(SELECT job_id FROM event_queue.job WHERE tenant_id = 'acme'));
my (undef, undef, $err) = $node->psql('postgres', "SET ROLE other; SELECT event_queue.complete($job, '$secret')", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/EQ016/, 'and no token is good for another tenant');
is($node->safe_psql('postgres', "SET ROLE acme; SELECT event_queue.complete($job, '$secret')"), 't', 'it completes it');

# Who may call: what the reference says, and what the catalog has, for each role and function.
my $reference = slurp_file('docs/reference.md');
my ($functions) = $reference =~ /<!-- functions -->(.*)<!-- end of functions -->/s or die 'no list of functions';
my %says;
while ($functions =~ /^\*\*(\w+)\*\* `.*?^Who: ([^\n]*)\.$/msg)
{
	my ($name, $who) = ($1, $2);
	push @{$says{$name}}, $who eq 'everyone' ? 'admin consumer observer producer worker' : $who =~ /owner/ ? '' : join ' ', sort split /, /, $who;
}
cmp_ok(scalar(keys %says), '>', 100, 'the reference says it of functions');
$node->safe_psql('postgres', join '', map { "CREATE ROLE ref_$_; SELECT event_queue.grant_$_('ref_$_'); " } qw(producer consumer worker observer admin));
# each form of an overloaded one
my %has;
for (split /\n/, $node->safe_psql('postgres', q(
	SELECT p.proname, coalesce(string_agg(substr(r.rolname, 5), ' ' ORDER BY substr(r.rolname, 5)), '')
	FROM pg_proc p LEFT JOIN pg_roles r ON r.rolname LIKE 'ref\_%' AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
	WHERE p.pronamespace = 'event_queue'::regnamespace GROUP BY p.oid)))
{
	my ($name, $roles) = split /\|/, $_, 2;
	push @{$has{$name}}, $roles;
}
my %reference = map { $_ => join ' | ', sort @{$says{$_}} } keys %says;
my %catalog = map { $_ => join ' | ', sort @{$has{$_}} } keys %has;
is(join("\n", map { "$_: reference '$reference{$_}', catalog '$catalog{$_}'" } grep { ($catalog{$_} // 'none') ne $reference{$_} } sort keys %reference), '', 'each role may call what the reference says, and nothing else');
is(join(' ', grep { !defined $reference{$_} } sort keys %catalog), '', 'and it says it of each function');

$node->stop;
done_testing();
