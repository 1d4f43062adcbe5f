# Roles are kept by OID and dumped by name; open sessions follow what is bound.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

sub server
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
log_statement = 'none'
));
	$node->start;
	return $node;
}

my $node = server('main');
$node->safe_psql('postgres', q(CREATE DATABASE erp; CREATE ROLE keeper; CREATE ROLE leaver; CREATE ROLE acme LOGIN; CREATE ROLE gone));
$node->safe_psql('erp', q(CREATE EXTENSION event_queue;
	CREATE FUNCTION public.h(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
	CREATE FUNCTION public.f(e event_queue.event_store) RETURNS void LANGUAGE sql AS 'SELECT';
	CREATE FUNCTION public.r(state jsonb, e event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS 'SELECT $1';
	SELECT event_queue.grant_admin('keeper'), event_queue.grant_admin('leaver'),
		event_queue.grant_producer('acme', 'acme'), event_queue.grant_producer('gone', 'gone')));
for my $role (qw(keeper leaver))
{
	$node->safe_psql('erp', qq(SET ROLE $role; SELECT event_queue.create_queue('$role'), event_queue.create_handler('$role', '*', 'h'),
		event_queue.create_rule('$role', 'never.**', function => 'f'), event_queue.create_reducer('$role', 'r')));
}
my $dropped = $node->safe_psql('erp', q(SELECT 'leaver'::regrole::oid));
$node->safe_psql('erp', q(SELECT event_queue.revoke_access('leaver'); DROP OWNED BY gone));
$node->safe_psql('postgres', q(DROP ROLE leaver; DROP ROLE gone; ALTER ROLE keeper RENAME TO kept));
is($node->safe_psql('erp', q(SELECT string_agg(name || ' ' || owner, ', ' ORDER BY name) FROM event_queue.rules)),
	"keeper kept, leaver unknown (OID=$dropped)", 'a view says who owns, also if the owner is no more');

# The other server's roles have other numbers: what the dropped roles left would be another's.
my $other = server('other');
$other->safe_psql('postgres', q(CREATE DATABASE erp; CREATE ROLE stranger; CREATE ROLE another; CREATE ROLE acme LOGIN; CREATE ROLE kept));
my $dump = $node->data_dir . '/../erp.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('erp') ], 'pg_dump');
$other->command_ok([ 'pg_restore', '--exit-on-error', '-d', $other->connstr('erp'), $dump ], 'pg_restore');
is($other->safe_psql('erp', q(SELECT string_agg(name || ' ' || owner, ', ') FROM event_queue.rules)), 'keeper kept', 'rules have their owner by name');
is($other->safe_psql('erp', q(SELECT string_agg(queue || ' ' || owner, ', ') FROM event_queue.handlers)), 'keeper kept', 'so have handlers');
is($other->safe_psql('erp', q(SELECT string_agg(aggregate_type || ' ' || owner, ', ') FROM event_queue.reducer)), 'keeper kept', 'and reducers');
is($other->safe_psql('erp', q(SELECT string_agg(role || ' ' || tenant_id, ', ') FROM event_queue_internal.tenant_role)), 'acme acme', 'and bindings; what dropped roles left is not there');
is($other->safe_psql('erp', q(SELECT event_queue.current_tenant()), extra_params => [ '-U', 'acme' ]), 'acme', 'which bind');

# An open session follows.
my ($in, $out, $err) = ('', '', '');
my $session = IPC::Run::start([ 'psql', '-XqAt', '-U', 'acme', '-d', $node->connstr('erp') ], '<', \$in, '>', \$out, '2>', \$err);
my $says = sub {
	my ($expected, $name) = @_;
	$out = $err = '';
	$in .= "SELECT 'tenant ' || coalesce(event_queue.current_tenant(), 'none') || '.';\n";
	IPC::Run::pump($session) until $out =~ /\.\n/ || $err =~ /\n/;
	is("$out$err", $expected, $name);
};
$says->("tenant acme.\n", 'a session is bound by its role');
$node->safe_psql('erp', q(ALTER ROLE acme RENAME TO acme_renamed));
$says->("tenant acme.\n", 'also when the role is renamed meanwhile');
$node->safe_psql('erp', q(SELECT event_queue.revoke_access('acme_renamed')));
$out = $err = '';
$node->safe_psql('erp', q(SELECT event_queue.grant_producer('acme_renamed', 'umbrella')));
$says->("tenant umbrella.\n", 'it follows a new binding');
$node->safe_psql('erp', q(CREATE ROLE third; SELECT event_queue.grant_producer('third', 'third'); GRANT third TO acme_renamed));
$out = $err = '';
$in .= "SELECT event_queue.current_tenant();\n";
IPC::Run::pump($session) until $err =~ /HINT/;
like($err, qr/bound to more than one tenant/, 'and a membership that makes it two');
$node->safe_psql('erp', q(REVOKE third FROM acme_renamed));
$says->("tenant umbrella.\n", 'until that is taken back');
$in .= "\\q\n";
$session->finish;

$node->stop;
$other->stop;
done_testing();
