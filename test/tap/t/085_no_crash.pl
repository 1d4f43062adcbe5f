# What has crashed the server, or could: a call by the protocol's function call (PQfn), which
# has no parsed expression; a session whose role was dropped while another one is SET; indexes
# of users whose methods keep something from row to row.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 0
));
$node->start;
sub sql { return $node->safe_psql('postgres', $_[0]) }
sql(q(CREATE EXTENSION event_queue));
my $began = sql(q(SELECT pg_postmaster_start_time()));
my $user = sql(q(SELECT current_user));

# Reads messages up to the next ReadyForQuery; those of this type.
sub answers
{
	my ($socket, $wanted) = @_;
	my @found;
	for (;;)
	{
		my ($head, $body) = ('', '');
		return 'connection lost' if (read($socket, $head, 5) // 0) < 5;
		my ($type, $length) = unpack 'aN', $head;
		read($socket, $body, $length - 4) if $length > 4;
		push @found, $body if index($wanted, $type) >= 0;
		return join '; ', @found if $type eq 'Z';
	}
}

# Calls a function with arguments as text, by the message FunctionCall.
sub call_function
{
	my ($signature, @arguments) = @_;
	my $oid = sql("SELECT '$signature'::regprocedure::oid");
	my $socket = $node->raw_connect;
	my $start = pack('N', 196608) . "user\0$user\0database\0postgres\0\0";
	print $socket pack('N', length($start) + 4) . $start;
	$socket->flush;
	answers($socket, 'E');
	my $body = pack('Nnnn', $oid, 1, 0, scalar @arguments)
	  . join('', map { defined $_ ? pack('N', length $_) . $_ : pack('N', 0xffffffff) } @arguments) . pack('n', 0);
	print $socket 'F' . pack('N', length($body) + 4) . $body;
	$socket->flush;
	my $answer = answers($socket, 'VE');
	close $socket;
	return $answer;
}

SKIP:
{
	skip 'no raw connections', 3 unless $node->raw_connect_works;
	like(call_function('event_queue.append(text,text,text,jsonb,int,uuid,jsonb,text)', 'lead', 'F1', 'lead.made', '{}', '0', undef, '{}', undef),
		qr/\(\d+,1,/, 'append with a number, by PQfn');
	like(call_function('event_queue.append(text,text,text,jsonb,text,uuid,jsonb,text)', 'lead', 'F1', 'lead.moved', '{}', 'exists', undef, '{}', undef),
		qr/\(\d+,2,/, 'and with a word');
	like(call_function('event_queue.append(text,text,text,jsonb,int,uuid,jsonb,text)', 'lead', 'F1', 'lead.moved', '{}', '7', undef, '{}', undef),
		qr/EQ001/, 'and its errors');
}

# The role that signed in is dropped; what it has SET goes on.
sql(q(SELECT event_queue.create_queue('q');
CREATE ROLE app; SELECT event_queue.grant_producer('app'); CREATE ROLE for_an_hour SUPERUSER LOGIN; GRANT app TO for_an_hour));
my $session = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'for_an_hour' ]);
$session->query('SET ROLE app');
is($session->query(q(SELECT version FROM event_queue.append('lead', 'D1', 'lead.made'))), '1', 'before its role is dropped');
sql(q(DROP ROLE for_an_hour));
is($session->query(q(SELECT version FROM event_queue.append('lead', 'D1', 'lead.moved'))), '2', 'a session whose role was dropped appends');
is($session->query(q(SELECT version FROM event_queue.append('lead', 'D1', 'lead.moved', metadata => '{"a": 1}'))), '3', 'also with metadata');
like($session->query(q(SELECT event_queue.enqueue('q', 'by app'))), qr/^\d+$/, 'and enqueues');
$session->quit;
is(sql(q(SELECT string_agg(metadata ->> 'actor', ' ' ORDER BY position) FROM event_queue.event_store WHERE aggregate_id = 'D1')), 'for_an_hour app app',
	'the role that it has SET is the actor');

# GIN and BRIN keep what they have read of the index until the last row: many rows of one
# table are written by the scheduler, which reviews groups, and by bulk calls.
sql(q(CREATE INDEX mine1 ON event_queue.job USING gin (payload);
CREATE INDEX mine2 ON event_queue.job USING brin (created_at) WITH (autosummarize);
CREATE INDEX mine3 ON event_queue.dead_letter USING gin (payload);
CREATE INDEX mine4 ON event_queue.event_store USING brin (created_at);
SELECT event_queue.create_event_index('event_data'), event_queue.create_queue('grouped')));
sql(q(SELECT event_queue.enqueue_many('grouped', (SELECT jsonb_agg(jsonb_build_object('name', 'g', 'group_key', 'k' || n % 100,
	'payload', jsonb_build_object('n', n, 'text', repeat('x', n)))) FROM generate_series(1, 700) n))));
ok($node->poll_query_until('postgres', q(SELECT count(*) = 100 FROM event_queue.jobs WHERE queue = 'grouped' AND state = 'ready')),
	'the scheduler reviews groups of a table that has a GIN index');
sql(q(SELECT count(*) FROM event_queue.append_many('lead', 'B1', (SELECT jsonb_agg(jsonb_build_object('event_type', 'lead.moved',
	'event_data', jsonb_build_object('n', n))) FROM generate_series(1, 500) n))));
is(sql(q(WITH c AS MATERIALIZED (SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('grouped', 50))
	SELECT f.state, count(*) FROM c, event_queue.fail_many(c.ids, c.tokens, 'no', final => true) f GROUP BY 1)), 'dead|50', 'dead letters are indexed');
is(sql(q(SET enable_seqscan = off; SELECT count(*) FROM event_queue.job WHERE payload @> '{"n": 650}')), '1', 'the index has the rows');

# An infinite interval, which PostgreSQL has since 17, is refused as one that is too long.
my $ever = $node->pg_version >= 17 ? 'infinity' : '170000000 years';
like(($node->psql('postgres', "SELECT event_queue.create_queue('slow', sla => '$ever')"))[2], qr/sla must be above 0 and at most 1000 years/, 'no sla without end');
sql(q(SELECT event_queue.create_calendar('office', 'UTC')));
like(($node->psql('postgres', "SELECT event_queue.add_business_time('office', now(), '$ever')"))[2], qr/amount must be working days and hours/, 'nor working time');

my $log = slurp_file($node->logfile);
unlike($log, qr/terminated by signal|refcount leak|was not closed|leak:/, 'nothing crashed, nothing leaked');
is(sql(q(SELECT pg_postmaster_start_time())), $began, 'the server is the same');
$node->stop;
done_testing();
