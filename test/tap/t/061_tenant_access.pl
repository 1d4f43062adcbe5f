# event_queue.log_tenant_access: which sessions act for which tenants, in the log.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'\n");
$node->start;
$node->safe_psql('postgres', q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q');
SELECT event_queue.append('t', '1', 'x', tenant_id => t), event_queue.enqueue('q', 'x', tenant_id => t) FROM unnest('{acme,other}'::text[]) t;
CREATE ROLE support LOGIN; CREATE ROLE web LOGIN; CREATE ROLE auditor LOGIN;
SELECT event_queue.grant_observer('support'), event_queue.grant_producer('support'), event_queue.grant_worker('support'),
	event_queue.grant_observer('web', 'acme'), event_queue.grant_producer('web', 'acme');
ALTER ROLE support SET event_queue.log_tenant_access = on;
ALTER ROLE web SET event_queue.log_tenant_access = on;
));

# What a session of this role says; lines without what the log puts before them.
sub said
{
	my ($role, $sql) = @_;
	my $from = -s $node->logfile;
	my ($code, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-U', $role ]);
	is($err, '', "$role: $sql") or diag($code);
	my @said = slurp_file($node->logfile, $from) =~ /LOG:  (\[tenant\] .*)/g;
	return [ sort @said ];
}
sub line { return "[tenant] tenant=$_[0] role=support session_role=support"; }

is_deeply(said('support', 'SELECT count(*) FROM event_queue.event_store; SELECT count(*) FROM event_queue.event_store'), [ line('acme'), line('other') ], 'rows that it reads, each tenant once');
is_deeply(said('support', "BEGIN READ ONLY; SELECT count(*) FROM event_queue.jobs; ROLLBACK"), [ line('acme'), line('other') ], 'also when it is rolled back');
is_deeply(said('support', "SELECT event_queue.enqueue('q', 'y', tenant_id => 'acme')"), [ line('acme') ], 'a call for a tenant');
is_deeply(said('support', "SET event_queue.tenant = 'acme'; SELECT count(*) FROM event_queue.event_store"), [ line('acme') ], 'a session that has narrowed itself');
is_deeply(said('support', 'SELECT count(*) FROM event_queue.read_all(0)'), [ line('*') ], 'all at once');
is_deeply(said('support', q(SET event_queue.actor = 'ana b'; SELECT event_queue.enqueue('q', 'y', tenant_id => 'a"=b'))),
	[ '[tenant] tenant="a\\"=b" role=support session_role=support actor="ana b"' ], 'with the actor; one line whatever the name');
is_deeply(said('web', "SELECT count(*) FROM event_queue.event_store; SELECT event_queue.enqueue('q', 'z')"), [], 'a role that is bound says nothing');
isnt($node->psql('postgres', 'SET event_queue.log_tenant_access = off', extra_params => [ '-U', 'support' ]), 0, 'who is asked to say it can\'t switch it off');
$node->safe_psql('postgres', 'ALTER ROLE support RESET event_queue.log_tenant_access');
is_deeply(said('support', 'SELECT count(*) FROM event_queue.event_store'), [], 'off by default');

# More tenants than a session remembers: all are said.
$node->safe_psql('postgres', q(ALTER ROLE support SET event_queue.log_tenant_access = on;
	SELECT event_queue.append('t', '2', 'x', tenant_id => 'tenant ' || n) FROM generate_series(1, 1500) n));
is(scalar @{ said('support', 'SELECT count(*) FROM event_queue.event_store') }, 1502, 'many tenants');
$node->stop;
done_testing();
