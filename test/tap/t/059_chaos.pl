# The ERP of examples/erp, with timers, steps, orders and a schedule, is used without a pause, and one
# process after the other is killed: executors, the scheduler, the rule runner, the launcher
# (with the postmaster starting all others anew, or only that one), or all with the postmaster.
# At the end each lead has exactly its tasks, each task's timer came to its end or was
# stopped, once, each step of a job was done once and has one result, each order was shipped
# or undone, nobody was told anything twice, and each second has its job.  (The postmaster's end is an immediate stop at times.)
#
# EQ_CHAOS_ROUNDS: how many are killed (5; 100 with EQ_LONG, about five minutes, so give it
# EQ_TAP_SECONDS=1200); EQ_CHAOS_SEED: of the choice whom to kill, as a run has printed it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run;
use List::Util qw(shuffle);
use Test::More;
use Time::HiRes qw(sleep);
use EventQueueCrash;

my $rounds = $ENV{EQ_CHAOS_ROUNDS} || ($ENV{EQ_LONG} ? 100 : 5);
my $seed = $ENV{EQ_CHAOS_SEED} || time;
srand $seed;
note "EQ_CHAOS_SEED=$seed";

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 3
restart_after_crash = on
log_line_prefix = '%m [%p] %b %e '
));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION event_queue');
$node->safe_psql('postgres', slurp_file("erp/$_.sql")) for qw(schema automation outside orders);
$node->safe_psql('postgres', q(
SET ROLE ianara_app;
-- A kill may meet the same job several times; nothing else lets a job fail.
SELECT event_queue.alter_queue(name, max_stalled => 100, max_attempts => 1)
FROM unnest('{task-automation,whatsapp-sync,notifications,orders}'::text[]) name;
SELECT event_queue.create_queue(name, max_stalled => 100, max_attempts => 1) FROM unnest('{timers,clock}'::text[]) name;

SELECT event_queue.alter_queue(name, keep_completed => '1 day') FROM unnest('{timers,orders}'::text[]) name;
INSERT INTO ianara.product VALUES ('tractor', 1000000);

-- Not safe to repeat, unlike the example's: what runs twice is seen.
ALTER TABLE outside.delivery DROP CONSTRAINT delivery_pkey;
ALTER TABLE ianara.task DROP CONSTRAINT task_lead_id_template_id_key;
CREATE OR REPLACE FUNCTION ianara.create_step_tasks(lead_id text, step_id int) RETURNS int
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	WITH made AS (
		INSERT INTO task (lead_id, template_id, title, status)
		SELECT $1, t.template_id, t.title, CASE t.sort_order WHEN 1 THEN 'open' ELSE 'waiting' END
		FROM task_template t WHERE t.step_id = $2 RETURNING task.task_id)
	SELECT count(event_queue.append('task', made.task_id::text, 'task.created', tenant_id => l.company_id))
	FROM made, lead l WHERE l.lead_id = $1
$$;

-- A timer for each task; every second one is stopped by a function that says what it met.
CREATE TABLE ianara.expired (task_id bigint NOT NULL);
CREATE TABLE ianara.stopped (task_id bigint NOT NULL, outcome text NOT NULL);
CREATE INDEX ON ianara.expired (task_id);
CREATE INDEX ON ianara.stopped (task_id);
CREATE FUNCTION ianara.on_expire(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO ianara.expired VALUES ((job.payload ->> 'task')::bigint);
	SELECT event_queue.append('task', job.payload ->> 'task', 'task.expired', tenant_id => job.tenant_id)
$$;
CREATE FUNCTION ianara.stop_timer(event event_queue.event_store) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	timer bigint;
	outcome text := 'none';
BEGIN
	SELECT job_id INTO timer FROM event_queue.job j WHERE j.unique_key = 'expire ' || event.aggregate_id;
	IF FOUND THEN
		BEGIN
			outcome := event_queue.cancel_job(timer);
		EXCEPTION WHEN SQLSTATE 'EQ032' THEN
			NULL;	-- it has ended meanwhile
		END;
	END IF;
	INSERT INTO ianara.stopped VALUES (event.aggregate_id::bigint, outcome);
END
$$;
CREATE FUNCTION ianara.on_expired(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	SELECT ianara.notify_users(job.tenant_id, 'Expired ' || (job.payload ->> 'task'))
$$;
SELECT event_queue.create_handler('timers', 'expire', 'ianara.on_expire');
SELECT event_queue.create_handler('notifications', 'task-expired', 'ianara.on_expired');
SELECT event_queue.create_rule('start the timer', 'task.created', actions => '[
	{"enqueue": {"queue": "timers", "name": "expire", "payload": {"task": "{{aggregate_id}}"},
		"delay": "1500 ms", "delay_from": "event", "unique_key": "expire {{aggregate_id}}"}}]');
SELECT event_queue.create_rule('stop the timer', 'task.completed', 'aggregate_id::bigint % 2 = 1', actions => '[
	{"cancel": {"queue": "timers", "unique_key": "expire {{aggregate_id}}"}}]');
SELECT event_queue.create_rule('stop the timer and tell', 'task.completed', 'aggregate_id::bigint % 2 = 0',
	function => 'ianara.stop_timer');
SELECT event_queue.create_rule('tell that it is late', 'task.expired', queue => 'notifications', job_name => 'task-expired',
	payload => '{"task": "$.aggregate_id"}');

-- A job of several steps with a sleep and a signal between them, for each lead.
CREATE TABLE ianara.nursed (lead_id text NOT NULL, what text NOT NULL);
CREATE FUNCTION ianara.greet(job event_queue.claimed_job) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO ianara.nursed VALUES (job.payload ->> 'lead', 'greeted') $$;
CREATE FUNCTION ianara.nurse(job event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	moved jsonb;
BEGIN
	PERFORM event_queue.run_step(job, 'greet', 'ianara.greet');
	IF NOT event_queue.sleep_job(job, 'a while', '500 ms') THEN
		RETURN NULL;
	END IF;
	moved := event_queue.await_signal(job, 'moved', job.payload ->> 'lead', timeout => '2 seconds');
	IF moved IS NOT NULL THEN
		INSERT INTO ianara.nursed VALUES (job.payload ->> 'lead', moved ->> 'state');
	END IF;
	RETURN moved;
END
$$;
SELECT event_queue.create_handler('timers', 'nurse', 'ianara.nurse');
SELECT event_queue.create_rule('nurse', 'lead.created', queue => 'timers', job_name => 'nurse', payload => '{"lead": "$.aggregate_id"}');

CREATE TABLE ianara.tick (scheduled_for timestamptz NOT NULL);
CREATE FUNCTION ianara.on_tick(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO ianara.tick VALUES ((job.metadata ->> 'scheduled_for')::timestamptz)
$$;
SELECT event_queue.create_handler('clock', 'tick', 'ianara.on_tick');
SELECT event_queue.create_schedule('tick', '* * * * * *', 'clock', 'tick', catch_up => '10 minutes');

-- What a user does: a new lead, one a step further, a task done, an order placed, paid or cancelled.
CREATE SEQUENCE ianara.lead_number;
CREATE SEQUENCE ianara.order_number;
CREATE FUNCTION ianara.use_it() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	what float8 := random();
	n bigint;
BEGIN
	IF what < 0.3 THEN
		n := nextval('lead_number');
		PERFORM create_lead(('{aurora,boreal,cerrado}'::text[])[1 + n % 3], 'L' || n, CASE n % 2 WHEN 0 THEN '+55 11 5550100' END, 'web', 1);
	ELSIF what < 0.4 THEN
		n := nextval('order_number');
		PERFORM place_order('O' || n, ('{aurora,boreal,cerrado}'::text[])[1 + n % 3], 'tractor', n, 'Rua ' || n);
	ELSIF what < 0.49 THEN
		PERFORM receive_payment('P' || o.order_id, o.order_id, o.amount) FROM (SELECT * FROM sales_order x WHERE x.status = 'placed'
			AND NOT EXISTS (SELECT FROM payment p WHERE p.order_id = x.order_id) ORDER BY x.amount DESC OFFSET floor(random() * 3) LIMIT 1 FOR UPDATE SKIP LOCKED) o;
	ELSIF what < 0.52 THEN
		PERFORM cancel_order('O' || (last_value - floor(random() * 3)::bigint)) FROM order_number;
	ELSIF what < 0.65 THEN
		PERFORM move_lead(l.lead_id, l.step_id + 1), event_queue.send_signal('moved', l.lead_id, tenant_id => l.company_id) FROM (SELECT * FROM lead x WHERE x.step_id % 3 <> 0
			ORDER BY x.created_at DESC OFFSET floor(random() * 20) LIMIT 1 FOR UPDATE SKIP LOCKED) l;
	ELSE
		PERFORM complete_task(t.task_id, l.company_id || '-1') FROM (SELECT * FROM task x WHERE x.status = 'open'
			ORDER BY x.task_id DESC OFFSET floor(random() * 5) LIMIT 1 FOR UPDATE SKIP LOCKED) t JOIN lead l USING (lead_id);
	END IF;
END
$$;
));

my $stop = $node->basedir . '/stop';
END { append_to_file($stop, '') if $stop; }
append_to_file($node->basedir . '/use.sql', "SELECT ianara.use_it();\nSELECT pg_sleep(0.03);\n" x 200);
my @users = map {
	IPC::Run::start(
		[ 'sh', '-c', 'while [ ! -e "$1" ] && [ -e "$3" ]; do psql -XqAt -d "$2" -c "SET ROLE ianara_app" -f "$3"; sleep 0.1; done',
			'-', $stop, $node->connstr('postgres'), $node->basedir . '/use.sql' ],
		# a pipe that nobody reads would be full one day
		'>', '/dev/null', '2>', '/dev/null') } 1 .. 2;

my $started = 'SELECT (SELECT count(*) FILTER (WHERE kind = $$executor$$) >= 1 AND count(*) FILTER (WHERE kind = $$scheduler$$) = 1'
	. ' AND count(*) FILTER (WHERE kind = $$rule runner$$) = 1 FROM event_queue.workers())'
	. ' AND EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = $$event_queue launcher$$)';
# What is there then, and what the server said of it.
sub give_up
{
	my ($why) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT pid, backend_type, state, wait_event, left(query, 80) FROM pg_stat_activity");
	diag "$why\n", $out // '', $err // '';
	diag $node->safe_psql('postgres', 'SELECT * FROM event_queue.faults()') if !$status;
	diag join("\n", (grep { !/ LOG:  statement: / } split /\n/, slurp_file($node->logfile))[-60 .. -1]);
	die $why;
}
my @all = ('executor', 'scheduler', 'rule runner', 'launcher', 'postmaster');
my @next;
for my $round (1 .. $rounds)
{
	@next = shuffle(@all) if !@next;
	my $whom = shift @next;
	my $signal = rand() < 0.25 ? 'TERM' : 'KILL';
	# More leads have come and are being worked on, or the test would kill what is idle.
	wait_for($node, $started) or give_up("round $round: not all workers are there");
	my $before = $node->safe_psql('postgres', 'SELECT last_value FROM ianara.lead_number');
	wait_for($node, "SELECT last_value > $before + 5 FROM ianara.lead_number") or give_up("round $round: no leads came");
	sleep rand 1.5;
	if ($whom eq 'postmaster')
	{
		my $how = rand() < 0.3 ? 'immediate' : 'KILL';
		note "round $round: $how, all";
		$how eq 'KILL' ? kill_server($node) : $node->stop('immediate');
		start_again($node);
		next;
	}
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'event_queue $whom' ORDER BY random() LIMIT 1");
	note "round $round: $signal, $whom " . ($pid || 'is gone');
	kill $signal, $pid if $pid;
	# Sessions go on until the postmaster has seen it.
	sleep 0.5;
}
append_to_file($stop, '');
$_->finish for @users;

ok(wait_for($node, $started), 'all workers are there again');
# One more order is cancelled when it waits for its payment; who has not paid does.
$node->safe_psql('postgres', "SET ROLE ianara_app; SELECT ianara.place_order('last', 'aurora', 'tractor', 1, 'Rua Z')");
ok(wait_for($node, q(SELECT EXISTS (SELECT FROM event_queue.job_steps s JOIN event_queue.jobs j USING (job_id) WHERE j.payload ->> 'order' = 'last' AND s.name = 'paid'))), 'an order waits');
$node->safe_psql('postgres', "SET ROLE ianara_app; SELECT ianara.cancel_order('last')");
$node->safe_psql('postgres', q(SET ROLE ianara_app; SELECT ianara.receive_payment('P' || order_id, order_id, amount) FROM ianara.sales_order o
	WHERE status = 'placed' AND order_id <> 'last' AND NOT EXISTS (SELECT FROM ianara.payment p WHERE p.order_id = o.order_id)));
sleep 2;
$node->safe_psql('postgres', "SELECT event_queue.pause_schedule('tick')");
ok(wait_for($node,
	'SELECT (SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)'
	. ' AND NOT EXISTS (SELECT FROM event_queue.job)'), 'all is done')
  or diag $node->safe_psql('postgres', 'SELECT * FROM event_queue.jobs LIMIT 20');

# check NAME, QUERY: it finds no row
sub check
{
	my ($name, $query) = @_;
	is($node->safe_psql('postgres', "$query LIMIT 10"), '', $name);
}
my ($leads, $moved, $tasks, $done, $late, $stopped, $shipped, $undone) = split /\|/, $node->safe_psql('postgres', q(
	SELECT (SELECT count(*) FROM ianara.lead), (SELECT count(*) FROM ianara.lead WHERE step_id % 3 <> 1), count(*), count(*) FILTER (WHERE status = 'done'),
		(SELECT count(*) FROM ianara.expired), (SELECT count(*) FROM ianara.stopped WHERE outcome = 'cancelled'),
		(SELECT count(*) FROM ianara.sales_order WHERE status = 'shipped'), (SELECT count(*) FROM ianara.sales_order WHERE status = 'undone') FROM ianara.task));
note "$leads leads, $moved of them moved, $tasks tasks, $done done, $late late, $stopped of the timers of half of them stopped, $shipped orders shipped, $undone undone";
ok($leads > 5 * $rounds && $moved && $done && $late && $stopped && $shipped && $undone, 'enough was done');
check('each lead has its event', q(
	SELECT lead_id FROM ianara.lead l WHERE (SELECT count(*) FROM event_queue.event_store e
		WHERE e.aggregate_type = 'lead' AND e.aggregate_id = l.lead_id) <> 1 + (l.step_id - 1) % 3));
check('and exactly the tasks of the steps that it has reached', q(
	SELECT l.lead_id, l.step_id, array_agg(t.template_id ORDER BY t.template_id) FROM ianara.lead l LEFT JOIN ianara.task t USING (lead_id)
	GROUP BY l.lead_id HAVING coalesce(array_agg(t.template_id ORDER BY t.template_id), '{}') <> ARRAY(
		SELECT w.template_id FROM ianara.task_template w JOIN ianara.step s USING (step_id)
		WHERE s.company_id = l.company_id AND s.step_id <= l.step_id ORDER BY 1)));
check('of each step one is open, or all are done', q(
	SELECT t.lead_id, w.step_id FROM ianara.task t JOIN ianara.task_template w USING (template_id)
	GROUP BY 1, 2 HAVING count(*) FILTER (WHERE t.status = 'open') + bool_and(t.status = 'done')::int <> 1));
my $ends = q(WITH timer AS (SELECT t.task_id, t.status,
		(SELECT count(*) FROM ianara.expired x WHERE x.task_id = t.task_id) AS fired,
		(SELECT count(*) FROM event_queue.dead_letter d WHERE d.name = 'expire' AND d.payload ->> 'task' = t.task_id::text) AS interrupted,
		(SELECT array_agg(s.outcome) FROM ianara.stopped s WHERE s.task_id = t.task_id) AS outcome FROM ianara.task t));
check('the timer of a task that is not done has come to its time once', "$ends SELECT * FROM timer WHERE status <> 'done' AND (fired <> 1 OR interrupted <> 0)");
check('the timer of a task that is done did not twice', "$ends SELECT * FROM timer WHERE status = 'done' AND fired + interrupted > 1");
check('and if it is known whether it was stopped: either this or that', "$ends SELECT * FROM timer WHERE status = 'done' AND task_id % 2 = 0
	AND (cardinality(outcome) = 1 AND fired + interrupted = (outcome[1] <> 'cancelled')::int AND (interrupted = 0 OR outcome[1] = 'requested')) IS NOT TRUE");
check('each user was told of each lead and each late task once', q(
	WITH wanted AS (SELECT u.user_id, 'New lead ' || l.name AS body FROM ianara.lead l JOIN ianara.app_user u USING (company_id)
		UNION ALL SELECT u.user_id, 'Expired ' || x.task_id FROM ianara.expired x JOIN ianara.task USING (task_id) JOIN ianara.lead l USING (lead_id)
			JOIN ianara.app_user u USING (company_id)),
	found AS (SELECT user_id, body FROM ianara.notification)
	(SELECT 'missing', * FROM (TABLE wanted EXCEPT ALL TABLE found) x UNION ALL SELECT 'too many', * FROM (TABLE found EXCEPT ALL TABLE wanted) y)));
check('each lead was greeted, and has met its signal or its time limit, once', q(
	SELECT l.lead_id, array_agg(n.what ORDER BY n.what) FROM ianara.lead l LEFT JOIN ianara.nursed n USING (lead_id)
	GROUP BY l.lead_id HAVING NOT (count(*) = 2 AND min(n.what) = 'greeted' AND max(n.what) IN ('received', 'timed out'))));
check('each step has run to one recorded result, in its order', q(
	SELECT h.job_id, h.name, h.payload, array_agg(s.name ORDER BY s.step_no), array_agg(DISTINCT s.state)
	FROM event_queue.history h LEFT JOIN event_queue.job_steps s USING (job_id) WHERE h.name IN ('nurse', 'order') GROUP BY 1, 2, 3
	HAVING array_agg(s.name ORDER BY s.step_no) <> CASE h.name WHEN 'nurse' THEN '{greet,a while,moved}' ELSE '{reserve,paid,book,booked,ship}'::text[] END
		OR count(*) FILTER (WHERE s.state <> 'done' AND (s.name, s.state) <> ('moved', 'timed out')) <> 0
		OR count(*) FILTER (WHERE s.name = 'paid' AND s.result #>> '{data,paymentId}' = 'P' || (h.payload ->> 'order')) <> (h.name = 'order')::int));
check('each lead has been nursed, and each order that was shipped has been worked on, once', q(
	SELECT * FROM (SELECT 'nurse' AS name, lead_id AS id FROM ianara.lead UNION ALL SELECT 'order', order_id FROM ianara.sales_order WHERE status = 'shipped') x
	FULL JOIN (SELECT h.name, coalesce(h.payload ->> 'lead', h.payload ->> 'order') AS id, count(*) AS n FROM event_queue.history h WHERE h.name IN ('nurse', 'order') GROUP BY 1, 2) y
	USING (name, id) WHERE n = 1 IS NOT TRUE OR x.id IS NULL));
check('an order was shipped, once, or is undone, or was cancelled before it began', q(
	SELECT o.order_id, o.status, deliveries, events, unreserved, refunded, p.refunded_at FROM ianara.sales_order o LEFT JOIN ianara.payment p USING (order_id),
		LATERAL (SELECT count(*) AS deliveries FROM outside.delivery d WHERE d.key = 'order ' || o.order_id) d,
		LATERAL (SELECT count(*) AS events FROM event_queue.event_store e WHERE (e.aggregate_type, e.aggregate_id, e.event_type) = ('order', o.order_id, 'order.shipped')) e,
		LATERAL (SELECT count(*) FILTER (WHERE h.name = 'unreserve') AS unreserved, count(*) FILTER (WHERE h.name = 'refund') AS refunded
			FROM event_queue.history h WHERE h.queue = 'orders' AND h.payload ->> 'order' = o.order_id) h
	WHERE (o.status, deliveries, events, unreserved) NOT IN (('shipped', 1, 1, 0), ('undone', 0, 0, 1), ('placed', 0, 0, 0))
		OR refunded <> (p.refunded_at IS NOT NULL)::int OR refunded > unreserved));
check('stock is what was not sold', q(SELECT free FROM ianara.product WHERE free <> 1000000 - (SELECT count(*) FROM ianara.sales_order WHERE status = 'shipped')));
check('each lead with a phone was welcomed once', q(
	SELECT l.lead_id FROM ianara.lead l LEFT JOIN ianara.whatsapp_message USING (lead_id) GROUP BY l.lead_id HAVING count(message_id) <> count(DISTINCT l.phone)));
check('no second has two jobs', 'SELECT scheduled_for FROM ianara.tick GROUP BY 1 HAVING count(*) > 1');
check('and each has one', q(
	SELECT s FROM generate_series((SELECT min(scheduled_for) FROM ianara.tick), (SELECT max(scheduled_for) FROM ianara.tick), '1 second') s
	WHERE s NOT IN (SELECT scheduled_for FROM ianara.tick)));
check('no dead letters but of what was stopped when it ran', q(SELECT queue, name, reason, errors FROM event_queue.dead_letters WHERE ((name, last_sqlstate) IN (('expire', 'EQ033'), ('order', 'EQ033'))) IS NOT TRUE));
check('no position twice', 'SELECT position FROM event_queue.event_store GROUP BY 1 HAVING count(*) > 1');
$node->stop;

my $log = slurp_file($node->logfile);
is(join("\n", grep { / XX\d{3} |PANIC: |TRAP: /  || /terminated by signal (?!9\b)/ } split /\n/, $log), '', 'nothing but what was killed broke down');
my %errors;
$errors{"$1 $2"}++ while $log =~ /(?<= )(\w{5}) ((?:ERROR|FATAL|WARNING): .{0,70})/g;
note "$errors{$_} x $_" for sort keys %errors;
done_testing();
