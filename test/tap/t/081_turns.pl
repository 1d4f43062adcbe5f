# Tenants have turns in what the scheduler does for jobs that wait: for groups, for jobs that depend on
# others, and for steps that wait for events.  And code of users that waits for a connection ends with its job.
use strict;
use warnings;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueHealth;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 2
event_queue.databases = 'postgres'
));
$node->start;
watch_node($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('groups'), event_queue.create_queue('flow')));

# How many jobs of this name were unblocked before the first of another: by the order of the scheduler's transactions.
sub before
{
	my ($name, $other) = @_;
	return sql("SELECT count(*) FROM event_queue.job WHERE name = '$name' AND age(xmin) > (SELECT max(age(xmin)) FROM event_queue.job WHERE name = '$other')");
}
my $reviewed = q(NOT EXISTS (SELECT FROM event_queue_internal.job_review) AND NOT EXISTS (SELECT FROM event_queue.job WHERE blocked > 0));

# Groups: one tenant's 20,000, and then one of each of 150 others.
sql(q(BEGIN; SELECT count(event_queue.enqueue('groups', 'many', group_key => n::text, tenant_id => 'busy')) FROM generate_series(1, 20000) n;
	SELECT count(event_queue.enqueue('groups', 'few', group_key => 'a', tenant_id => 'tenant ' || n)) FROM generate_series(1, 150) n; COMMIT));
soon($reviewed, 'all groups go on');
cmp_ok(before('many', 'few'), '<=', 2000, 'no tenant waits for all groups of another');
is(sql(q(SELECT count(*) FROM event_queue.job j, event_queue.job k WHERE j.tenant_id = 'tenant 99' AND k.tenant_id = 'tenant 1'
	AND age(j.xmin) < age(k.xmin) - 5)), '0', 'nor does the last of the tenants wait for long');
sql('DELETE FROM event_queue.job');
soon($reviewed, 'what was deleted is looked at');

# Jobs that depend on others.
sql(q(DO $$
DECLARE
	busy bigint := event_queue.enqueue('flow', 'first', tenant_id => 'busy');
	other bigint := event_queue.enqueue('flow', 'first', tenant_id => 'other');
BEGIN
	PERFORM event_queue.enqueue('flow', 'many', depends_on => ARRAY[busy], tenant_id => 'busy') FROM generate_series(1, 5000);
	PERFORM event_queue.enqueue('flow', 'few', depends_on => ARRAY[other], tenant_id => 'other');
END $$;
BEGIN; SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('flow', 2, job_names => '{first}'); COMMIT;
));
soon($reviewed, 'all jobs go on that depended on others');
cmp_ok(before('many', 'few'), '<=', 2000, 'and no tenant waits for all of another');
sql('DELETE FROM event_queue.job');

# A review of no tenant, as plain SQL or an earlier version has written it.
sql(q(SELECT event_queue.enqueue('flow', 'second', depends_on => ARRAY[event_queue.enqueue('flow', 'first')]);
	DELETE FROM event_queue.job_dependency; INSERT INTO event_queue_internal.job_review (job_id) SELECT job_id FROM event_queue.job WHERE name = 'second'));
soon($reviewed, 'a review without tenant is done, too');
sql('DELETE FROM event_queue.job');

# Steps that wait for events, in a database without a scheduler: each look is a call.
$node->safe_psql('postgres', 'CREATE DATABASE quiet');
sub quiet { return $node->safe_psql('quiet', $_[0]); }
sub look { return quiet('SELECT event_queue_internal.match_events()'); }

# Looks until there is nothing more; how many.
sub look_at_all
{
	for my $n (1 .. 500) { return $n if look() eq 'f'; }
	return 'too many';
}
my $wait = q(SELECT count(event_queue.await_event(job_id, lease_token, 'wait', tenant_id || '.come', 'thing', job_id::text)) FROM event_queue.claim('q', 1000));
quiet(qq(CREATE EXTENSION event_queue; SELECT event_queue.create_queue('q');
SELECT count(event_queue.enqueue('q', 'x', tenant_id => 'busy')) FROM generate_series(1, 3000); $wait; $wait; $wait;
SELECT count(event_queue.enqueue('q', 'x', tenant_id => 'tenant ' || n)) FROM generate_series(1, 150) n; $wait));
look() for 1 .. 2;
is(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE fresh AND tenant_id <> 'busy')), '0', 'two looks know of the waits of 150 tenants');
cmp_ok(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE fresh AND tenant_id = 'busy')), '>', '2000', 'before those of the one that has many');
isnt(look_at_all(), 'too many', 'there comes an end of it');
is(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE fresh)), '0', 'all are known');

# Two events for each of 2,900 of the busy tenant's, then one for each of the others.
sub append_come
{
	my ($tenant, $where) = @_;
	quiet(qq(SELECT count(event_queue.append('thing', job_id::text, tenant_id || '.come', tenant_id => tenant_id)) FROM event_queue.job WHERE tenant_id $tenant AND $where));
}
my $skipped = quiet(q(SELECT string_agg(job_id::text, ',') FROM (SELECT job_id FROM event_queue.job WHERE tenant_id = 'busy' ORDER BY job_id LIMIT 100) x));
append_come(q(= 'busy'), "job_id NOT IN ($skipped)") for 1 .. 2;
append_come(q(<> 'busy'), 'true');
my $looks = 0;
my $reads = q(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'job_step');
my $read = quiet($reads);
while ($looks < 20 && quiet(q(SELECT EXISTS (SELECT FROM event_queue.job_step WHERE state = 1 AND tenant_id <> 'busy'))) eq 't')
{
	look();
	$looks++;
}
cmp_ok($looks, '<', 20, "after $looks looks the other tenants have their events");
cmp_ok(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE state = 1 AND tenant_id = 'busy')), '>', 100, 'before the busy one has all');
is(quiet(q(SELECT tenant_id FROM event_queue_internal.step_behind)), 'busy', 'which is behind the others');

# Meanwhile: a wait that begins, for an event that is stored; and one for an event that comes.
quiet(qq(SELECT event_queue.enqueue('q', 'late', tenant_id => 'busy');
	SELECT event_queue.await_event(job_id, lease_token, 'wait', 'busy.come', 'thing', '@{[ $skipped =~ /,(\d+)$/ ]}', after_position => 0) FROM event_queue.claim('q', 1000)));
append_come(q(= 'busy'), "job_id IN ($skipped)");
isnt(look_at_all(), 'too many', 'the busy tenant catches up');
cmp_ok(quiet($reads) - $read, '<', 1_000_000, 'no event reads all steps that wait');
is(quiet(q(SELECT count(*) FROM event_queue_internal.step_behind)), '0', 'and is one of all again');
is(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE state = 1)), '0', 'each wait is over');
is(quiet(q(SELECT count(*) FROM event_queue.job_step s WHERE (s.result ->> 'version')::int <> 1)), '0', 'by the first event of its aggregate');
is(quiet(q(SELECT count(*) FROM event_queue.job_step s WHERE s.tenant_id <> s.result ->> 'tenant_id')), '0', 'and of its tenant');
append_come(q(= 'busy'), 'true');
is(look(), 'f', 'events that nobody awaits are met at once');

# What a handler defers to the commit, by a trigger that defers itself again, fails as the handler's, whatever the error: also
# if it is that of a row which others hold.
sql(q(
CREATE TABLE first (i int); CREATE TABLE second (i int);
CREATE FUNCTION defers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_TABLE_NAME = 'second' THEN
		RAISE EXCEPTION USING ERRCODE = '55P03', MESSAGE = 'late';
	END IF;
	SET CONSTRAINTS ALL DEFERRED;
	INSERT INTO public.second VALUES (1);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER defers AFTER INSERT ON first DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION defers();
CREATE CONSTRAINT TRIGGER defers AFTER INSERT ON second DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION defers();
CREATE FUNCTION late(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO public.first VALUES (1)';
SELECT event_queue.create_queue('late', max_attempts => 1, lease => '1 hour'), event_queue.create_handler('late', '*', 'late', time_limit => '1 minute'), event_queue.enqueue('late', 'x');
));
soon(q(EXISTS (SELECT FROM event_queue.dead_letters WHERE queue = 'late' AND last_sqlstate = '55P03' AND reason = 'attempts')), 'a job that fails in its commit has failed');

# A reducer that is declared to change nothing, and calls what does.
sql(q(
CREATE FUNCTION writes(state jsonb, event event_queue.event_store) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$
BEGIN
	PERFORM event_queue.enqueue('late', 'by reducer');
	RETURN state;
END $$;
SELECT event_queue.create_reducer('writes', 'writes'), event_queue.append('writes', '1', 'x');
));
my ($status, $out, $err) = $node->psql('postgres', q(SELECT event_queue.aggregate_state('writes', '1')), extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/ERROR:  25006/, 'a reducer that writes fails');
is(sql(q(BEGIN; DO $$ BEGIN PERFORM event_queue.aggregate_state('writes', '1'); EXCEPTION WHEN read_only_sql_transaction THEN NULL; END $$;
	SELECT event_queue.enqueue('late', 'afterwards') > 0; ROLLBACK)), 't', 'and leaves the transaction as it was');
is(sql(q(SELECT count(*) FROM event_queue.job WHERE name = 'by reducer')), '0', 'it has done nothing');

# A connection that is never answered: libpq waits for it without looking at interrupts.
SKIP: {
	skip 'dblink is not installed', 5 unless sql(q(SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'));
	my $deaf = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 100) or die "no socket: $!";
	my $port = $deaf->sockport;
	sql(qq(CREATE EXTENSION dblink;
CREATE FUNCTION hangs(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM public.dblink_connect('c', 'host=127.0.0.1 port=$port dbname=x');
END \$\$;
CREATE FUNCTION hangs_again(job event_queue.claimed_job) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
	LOOP
		BEGIN
			PERFORM public.dblink_connect('c', 'host=127.0.0.1,127.0.0.1 port=$port dbname=x');
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
END \$\$;
CREATE FUNCTION works(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT event_queue.create_queue('hangs', lease => '5 s', max_attempts => 1), event_queue.create_queue('good'), event_queue.create_queue('long', lease => '1 hour');
SELECT event_queue.create_handler('hangs', 'once', 'hangs', time_limit => '1 s'), event_queue.create_handler('hangs', 'again', 'hangs_again', time_limit => '1 s'),
	event_queue.create_handler('long', '*', 'hangs', time_limit => '30 minutes'), event_queue.create_handler('good', '*', 'works');
SELECT event_queue.enqueue('hangs', n) FROM unnest('{once,once,again,again}'::text[]) n;
));
	soon(q((SELECT count(*) = 4 FROM event_queue.dead_letters WHERE queue = 'hangs' AND reason = 'attempts' AND failures = 1 AND last_sqlstate IN ('EQ040', '57014'))),
		'jobs that wait for a connection end by their limit');
	sql(q(SELECT event_queue.enqueue('good', 'x')));
	soon(q(NOT EXISTS (SELECT FROM event_queue.jobs WHERE queue = 'good')), 'and the executors work');
	# With the server's end such a job goes back, and nothing is counted.
	my $job = sql(q(SELECT event_queue.enqueue('long', 'x')));
	soon("EXISTS (SELECT FROM event_queue.workers() WHERE current_job = $job)", 'one runs that may take long');
	sql(q(ALTER SYSTEM SET event_queue.executors = 0));
	$node->stop('fast');
	$node->start;
	is(sql("SELECT state, failures, stalled FROM event_queue.jobs WHERE job_id = $job"), 'ready|0|0', 'the server stops, and the job is given back');
	is(sql(q(SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'long')), '0', 'it is no dead letter');
}

$node->stop;
is(join("\n", grep { / XX\d{3} |PANIC: |TRAP: |terminated by signal/ } split /\n/, slurp_file($node->logfile)), '', 'nothing broke down');
done_testing();
