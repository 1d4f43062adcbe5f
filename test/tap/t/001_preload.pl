# Without preloading there is one clear error that names the setting.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
my ($status, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION event_queue',
	extra_params => ['-v', 'VERBOSITY=verbose']);
isnt($status, 0, 'CREATE EXTENSION fails without preloading');
like($err, qr/EQ000: event_queue must be loaded via shared_preload_libraries/, 'with one clear error');
like($err, qr/HINT:.*shared_preload_libraries = 'event_queue'/, 'and the line to add');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'event_queue'");
$node->restart;
$node->safe_psql('postgres', 'CREATE EXTENSION event_queue');
is($node->safe_psql('postgres', 'SELECT event_queue.version()'), '0.2.0', 'and works with it');
$node->stop;
done_testing();
