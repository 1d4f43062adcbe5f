# What the code of one role, and the doings of one tenant, leave to others: in the session of an
# executor and of the rule runner, by a prepared transaction, by many patterns that are waited for,
# by a handler that holds a queue; and what health() says of functions that are there.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueHealth;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
event_queue.executors = 1
event_queue.databases = 'postgres'
max_prepared_transactions = 5
));
$node->start;
watch_node($node);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q(
CREATE EXTENSION event_queue;
CREATE ROLE one; CREATE ROLE two;
CREATE SCHEMA one AUTHORIZATION one; CREATE SCHEMA two AUTHORIZATION two;
SELECT event_queue.grant_admin('one'), event_queue.grant_admin('two');
SELECT event_queue.create_queue('q'), event_queue.create_queue('made');
));
# what random() gives after setseed(0.42)
my $guess = sql('SELECT setseed(0.42); SELECT random()');
$guess =~ s/.*\n//s;

# An executor: the seed of random().
sql(q(
SET ROLE one;
CREATE FUNCTION one.seed(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT setseed(0.42)';
SELECT event_queue.create_handler('q', 'seed', 'one.seed');
RESET ROLE; SET ROLE two;
CREATE TABLE two.drawn (number float8);
CREATE FUNCTION two.draw(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'INSERT INTO two.drawn VALUES (random())';
SELECT event_queue.create_handler('q', 'draw', 'two.draw');
));
for my $n (1 .. 3)
{
	sql(q(SELECT event_queue.enqueue('q', 'seed')));
	soon(q(NOT EXISTS (SELECT FROM event_queue.job)), 'one has called setseed');
	sql(q(SELECT event_queue.enqueue('q', 'draw')));
	soon("(SELECT count(*) = $n FROM two.drawn)", 'two has drawn a number');
}
is(sql("SELECT count(*) FROM two.drawn WHERE abs(number - $guess) < 1e-12"), '0', 'a handler does not know what random() gives to the next one');

# The rule runner: likewise, and cursors that a condition leaves open.
sql(qq(
SET ROLE one;
CREATE FUNCTION one.leave() RETURNS boolean LANGUAGE plpgsql AS \$\$
	DECLARE left_open CURSOR FOR SELECT 'secret'; BEGIN OPEN left_open; PERFORM setseed(0.42); RETURN true; END \$\$;
SELECT event_queue.create_rule('leaves', 'left.x', 'one.leave()', queue => 'made', job_name => 'left', rule_order => 1);
RESET ROLE; SET ROLE two;
CREATE FUNCTION two.read() RETURNS boolean LANGUAGE plpgsql AS \$\$
	DECLARE left_open refcursor := 'left_open'; what text; BEGIN FETCH left_open INTO what; RETURN what IS NOT NULL;
	EXCEPTION WHEN invalid_cursor_name THEN RETURN false; END \$\$;
SELECT event_queue.create_rule('guesses', 'left.x', 'abs(random() - $guess) < 1e-12', queue => 'made', job_name => 'guessed', rule_order => 2),
	event_queue.create_rule('reads', 'left.x', 'two.read()', queue => 'made', job_name => 'read', rule_order => 3);
RESET ROLE;
SELECT count(event_queue.append('left', n::text, 'left.x')) FROM generate_series(1, 5) n;
));
soon(q((SELECT count(*) = 5 FROM event_queue.job WHERE name = 'left') AND (SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)),
	'the events have met the rules');
is(sql(q(SELECT DISTINCT name FROM event_queue.jobs)), 'left', 'a condition neither reads the cursor of another one nor knows what random() gives');

# A prepared transaction that is rolled back: its leases are those of no job.
sql(q(SELECT event_queue.create_queue('limited', max_concurrency => 2); SELECT event_queue.enqueue('limited', 'x') FROM generate_series(1, 2)));
sql(q(BEGIN; SELECT count(*) FROM event_queue.claim('limited', 2, lease => '1 day'); PREPARE TRANSACTION 'claims'));
is(sql(q(SELECT count(*) FROM event_queue.claim('limited', 2))), '0', 'a prepared transaction has what it has claimed');
sql(q(ROLLBACK PREPARED 'claims'));
soon(q((SELECT count(*) = 2 FROM event_queue.claim('limited', 2))), 'and not when it is rolled back, whatever its lease');

# health(): an array's handler, and states that are merged, have no function of the usual signature.
sql(q(
CREATE FUNCTION one.all_of(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION one.gone(jobs event_queue.claimed_job[]) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT event_queue.create_handler('made', 'array', 'one.all_of', batch_size => 5), event_queue.create_handler('made', 'gone', 'one.gone', batch_size => 5), event_queue.create_reducer('merged', NULL);
DROP FUNCTION one.gone;
));
is(sql(q(SELECT string_agg(check_name, '; ') FROM event_queue.health() WHERE detail LIKE '%does not exist%')), 'handler of made, gone', 'health() misses the function that is not there, and no other');

# A queue is for all tenants: who is confined to one holds its own job only.
sql(q(SELECT event_queue.create_queue('held');
CREATE FUNCTION public.hold(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ SELECT event_queue.postpone_queue('1 hour') $$;
SELECT event_queue.create_handler('held', 'hold', 'hold');));
is(sql(q(BEGIN; SELECT event_queue.enqueue('held', 'hold', tenant_id => 'acme') > 0; SET LOCAL event_queue.tenant = 'acme'; SELECT outcome FROM event_queue.run_jobs('held'); COMMIT)), "t\npostponed", 'run_jobs for a tenant');
is(sql(q(SELECT event_queue.enqueue('held', 'other', tenant_id => 'other') > 0; SELECT name FROM event_queue.claim('held'))), "t\nother", 'holds no job of others');
is(sql(q(BEGIN; SELECT event_queue.enqueue('held', 'hold', tenant_id => 'acme') > 0; SELECT outcome FROM event_queue.run_jobs('held'); COMMIT)), "t\npostponed", 'for all tenants');
is(sql(q(SELECT event_queue.enqueue('held', 'other', tenant_id => 'other') > 0; SELECT count(*) FROM event_queue.claim('held'))), "t\n0", 'it does');

# A handler, and a function of another role that a superuser calls, whose settings are those of pg_restore: what they change is
# written down all the same.
sql(q(SELECT event_queue.create_queue('config');
CREATE FUNCTION one.change(what text) RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('check_function_bodies', 'off', true), set_config('row_security', 'off', true), set_config('event_queue.tenant', '', true);
	PERFORM event_queue.create_queue(what), event_queue.create_rule(what, 'never.x', queue => 'config', job_name => 'x');
END $$;
ALTER FUNCTION one.change OWNER TO one;
SET ROLE one;
CREATE FUNCTION one.configure(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$ SELECT one.change('by handler') $$;
SELECT event_queue.create_handler('config', 'configure', 'one.configure'); RESET ROLE;
SELECT one.change('by superuser'), event_queue.enqueue('config', 'configure');
));
soon(q((SELECT count(*) = 2 FROM event_queue.rule WHERE name LIKE 'by %')), 'both have made a rule');
is(sql(q(SELECT string_agg(action || ' ' || object, ', ' ORDER BY object, action) FROM event_queue.audit_log WHERE object LIKE 'by %er')),
	'create_queue by handler, create_rule by handler, create_queue by superuser, create_rule by superuser', 'audit_log has what they did');
is(sql(q(SELECT string_agg(DISTINCT concat_ws(' ', object, nullif(role, current_user)), ', ') FROM event_queue.audit_log WHERE object LIKE 'by %er')), 'by handler one, by superuser', 'and whose handler it was');
is(sql(q(SELECT string_agg(concat_ws(' ', rule, nullif(made_by, current_user)), ', ' ORDER BY rule) FROM event_queue.rule_versions WHERE rule LIKE 'by %')), 'by handler one, by superuser', 'and rule_versions has the rules and who made them');

# Many groups that a tenant makes at once: what the scheduler does for them leaves other chores their turn.  Rows are
# written in the order of their transactions' numbers.
sql(q(SELECT event_queue.create_queue('groups'), event_queue.create_queue('by schedule')));
sql(q(BEGIN; SELECT count(event_queue.enqueue('groups', 'x', group_key => n::text)) FROM generate_series(1, 20000) n;
	SELECT event_queue.create_schedule('between', '0 0 1 1 *', 'by schedule', 'between');
	UPDATE event_queue.schedule SET next_run = now() - interval '1 second' WHERE name = 'between'; COMMIT));
soon(q(NOT EXISTS (SELECT FROM event_queue_internal.job_review) AND EXISTS (SELECT FROM event_queue.job WHERE name = 'between')), 'all groups go on, and the schedule has run');
is(sql(q(SELECT count(*) FROM event_queue.job WHERE blocked > 0)), '0', 'none is forgotten');
is(sql(q(SELECT (SELECT min(age(xmin)) FROM event_queue.job WHERE name = 'x') < (SELECT min(age(xmin)) FROM event_queue.job WHERE name = 'between'))), 't', 'a schedule that is due does not wait for all groups');

# Many patterns that a tenant waits for: no look of the scheduler, which there is none of in this database, takes all of it.
$node->safe_psql('postgres', 'CREATE DATABASE quiet');
sub quiet { return $node->safe_psql('quiet', $_[0]); }
quiet(q(
CREATE EXTENSION event_queue;
SELECT event_queue.create_queue('q');
SELECT count(event_queue.enqueue('q', 'x')) FROM generate_series(1, 2001);
SELECT count(event_queue.await_event(job_id, lease_token, 'wait', CASE n WHEN 2001 THEN '*.100' ELSE 'never.' || n END)) FROM (
	SELECT c.*, row_number() OVER () AS n FROM event_queue.claim('q', 2001) c) c;
));
for my $n (1 .. 10) { last if quiet('SELECT event_queue_internal.match_events()') eq 'f'; }
is(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE fresh)), '0', 'the scheduler knows of the waits');
quiet(q(SELECT count(*) FROM event_queue.append_many('many', '1', (SELECT jsonb_agg(jsonb_build_object('event_type', 'type.' || n)) FROM generate_series(1, 100) n))));
is(quiet('SELECT event_queue_internal.match_events()'), 't', 'a look leaves something to the next');
my $seen = quiet(q(SELECT count(*) FROM event_queue.event_store, event_queue_internal.step_checkpoint c
	WHERE event_store.position <= coalesce((SELECT position FROM event_queue_internal.step_behind), c.position)));
cmp_ok($seen, '>', 0, 'it has met some events');
cmp_ok($seen, '<=', 60, 'and no more than so many');
is(quiet(q(SELECT count(*) FROM event_queue.job_step WHERE state = 0)), '0', 'the last one has not come');
my $looks = 1;
$looks++ while quiet('SELECT event_queue_internal.match_events()') eq 't' && $looks < 100;
is(quiet(q(SELECT pattern FROM event_queue.job_step WHERE state = 0)), '*.100', "now it has, after $looks more");
# of one type there are few comparisons
quiet(q(SELECT count(*) FROM event_queue.append_many('many', '2', (SELECT jsonb_agg(jsonb_build_object('event_type', 'same')) FROM generate_series(1, 900) n))));
is(quiet('SELECT event_queue_internal.match_events()'), 'f', 'events of one type are met at once');

# Jobs that say how many of them are to be kept, each another number: one pass over the history and the dead letters.
quiet(q(
SELECT count(event_queue.enqueue('q', 'kept', options => jsonb_build_object('max_attempts', 1, 'keep_completed_count', 900 + n, 'keep_failed_count', 900 + n))) FROM generate_series(1, 2000) n;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('q', 1000, job_names => '{kept}');
SELECT count(event_queue.fail(job_id, lease_token, 'no')) FROM event_queue.claim('q', 1000, job_names => '{kept}');
));
my $reads = q(SELECT sum(idx_tup_fetch + coalesce(seq_tup_read, 0)) + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname ~ '^(job_history|dead_letter)')
	FROM pg_stat_user_tables WHERE relname ~ '^(job_history|dead_letter)');
my $before = quiet($reads);
quiet('SELECT event_queue_internal.maintain_history()');
cmp_ok(quiet($reads) - $before, '<', 100_000, 'a look at what is to be kept reads each row some times, not each for each other');
# of those of 901 to 1900 there are 1000: the oldest, which say the least, go
is(quiet(q(SELECT min(h.keep_count), (SELECT count(*) FROM event_queue.job_history) FROM event_queue.job_history h)), '951|950', 'the oldest finished jobs went');
is(quiet(q(SELECT min((d.keep).keep_failed_count), count(*) FROM event_queue.dead_letter d)), '1901|1000', 'no dead letter: more of them are to be kept than there are');

# Firings that are to be tried again, of which a backfill forgets those whose jobs were discarded: each looks for its job by the index.
quiet(q(
SELECT event_queue.create_rule('retried', 'same', queue => 'q', job_name => 'x');
INSERT INTO event_queue_internal.rule_run (rule_id, position, version, fired, backfilled)
	SELECT r.rule_id, e.position, 1, false, false FROM event_queue.rule r, event_queue.event_store e WHERE e.event_type = 'same';
SELECT count(event_queue.enqueue('q', 'again', jsonb_build_object('rule_id', r.rule_id), options => jsonb_build_object('metadata', jsonb_build_object('event_id', e.id))))
	FROM event_queue.rule r, event_queue.event_store e WHERE e.event_type = 'same' AND e.version % 3 > 0;
UPDATE event_queue.job SET queue_id = 1 WHERE name = 'again';
));
$reads = q(SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname ~ '^(job|dead_letter|event_store)');
$before = quiet($reads);
quiet(q(SELECT event_queue_internal.forget_given_up((SELECT rule_id FROM event_queue.rule), 0, (SELECT max(position) FROM event_queue.event_store))));
cmp_ok(quiet($reads) - $before, '<', 10_000, 'no firing reads all jobs');
is(quiet('SELECT count(*) FROM event_queue_internal.rule_run'), '600', 'and those that have a job stay');

$node->stop;
done_testing();
