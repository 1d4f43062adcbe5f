# No transaction takes the server's table of locks by the buckets of subscriptions; what is rolled back leaves no member behind.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
max_connections = 100
max_locks_per_transaction = 64
));
$node->start;
$node->safe_psql('postgres', q(CREATE EXTENSION event_queue; CREATE ROLE acme;
	SELECT event_queue.grant_consumer('acme', 'acme'), event_queue.grant_producer('acme', 'acme');
	SET ROLE acme; SELECT event_queue.create_subscription('s' || n, buckets => 64) FROM generate_series(1, 40) n));

my $mine = q(SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'object' AND objsubid = 5);
my ($status, $out, $err) = $node->psql('postgres', qq(SET ROLE acme; BEGIN;
	SELECT count(*) FROM generate_series(1, 7) n, LATERAL event_queue.fetch_events('s' || n);
	$mine;
	SAVEPOINT a;
	SELECT count(*) FROM generate_series(8, 40) n, LATERAL event_queue.fetch_events('s' || n);
	ROLLBACK TO a;
	$mine;
	-- What a savepoint gave back does not count, and what is held counts once.
	SELECT count(*) FROM generate_series(1, 100) n, LATERAL event_queue.fetch_events('s' || n % 7 + 1);
	$mine;
	COMMIT;
	$mine;
	SELECT count(*) FROM generate_series(8, 14) n, LATERAL event_queue.fetch_events('s' || n)), extra_params => [ '-v', 'VERBOSITY=verbose' ], on_error_stop => 0);
like($err, qr/ERROR:  EQ059: the transaction holds too many buckets of subscriptions\nDETAIL:  It may hold \d+, each of which is a lock.\nHINT:  Commit between/,
	'a transaction has a part of the locks');
is(scalar(() = $err =~ /ERROR/g), 1, 'and others are none the worse');
is($out, "0\n448\n448\n0\n448\n0\n0", 'each bucket once; none after a savepoint that is rolled back, or after the commit');

# A hundred subscriptions, each given back by a savepoint, are one at a time.
is($node->safe_psql('postgres', q(
	DO $$ BEGIN
		FOR n IN 1 .. 200 LOOP
			BEGIN
				PERFORM event_queue.create_subscription('gone' || n, buckets => 64);
				PERFORM event_queue.fetch_events('gone' || n);
				PERFORM event_queue.leave_subscription('gone' || n);
				RAISE 'gone';
			EXCEPTION WHEN raise_exception THEN
			END;
		END LOOP;
	END $$;
	SELECT count(*) FROM event_queue.subscription WHERE name LIKE 'gone%')), '0', 'savepoints give back what counts');

# A subscription that was rolled back has no member, while the session that fetched from it lives on.
my $members = q(SELECT count(*) FROM event_queue_internal.all_subscription_members());
for my $how ('ROLLBACK', 'ROLLBACK TO a; COMMIT')
{
	is($node->safe_psql('postgres', qq(
		BEGIN; SAVEPOINT a;
		SELECT event_queue.create_subscription('rolled back', buckets => 8) > 0;
		SELECT count(*) FROM event_queue.fetch_events('rolled back');
		$members;
		$how;
		SELECT count(*) FROM event_queue.subscription WHERE name = 'rolled back';
		DO \$\$ BEGIN
			FOR i IN 1 .. 600 LOOP
				EXIT WHEN NOT EXISTS (SELECT FROM event_queue_internal.all_subscription_members());
				PERFORM pg_sleep(0.05);
			END LOOP;
		END \$\$;
		$members)), "t\n0\n1\n0\n0", "$how: member of nothing");
}
# And of one that is there it stays a member, with what it had, and nothing is acknowledged.
$node->safe_psql('postgres', q(SELECT event_queue.append('x', '1', 'x.y', tenant_id => 'acme')));
$node->safe_psql('postgres', q(CALL event_queue.wait_for_events(0, '10 s')));
(undef, $out, $err) = $node->psql('postgres', q(
	SET event_queue.tenant = 'acme';
	BEGIN; SAVEPOINT a;
	SELECT count(*) FROM event_queue.fetch_events('s2');
	ROLLBACK TO a;
	COMMIT;
	SELECT event_queue.ack('s2')), on_error_stop => 0, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
is($out, '1', 'fetched in a savepoint');
like($err, qr/EQ029/, 'what was fetched and rolled back is not acknowledged');
$node->stop;
done_testing();
