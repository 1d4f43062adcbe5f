# The second phase of examples/erp: WhatsApp messages with a rate in all and for each contact,
# in order, through a provider that answers 429 and fails; timers, notifications by preferences,
# orders in steps; dead letters of each and their retry.  The server is stopped at once in the
# middle of the messages and in the middle of the rest.  Each count is exact.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use EventQueueCrash;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'event_queue'
max_worker_processes = 16
event_queue.executors = 3
log_line_prefix = '%m [%p] %b %e '
));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION event_queue');
$node->safe_psql('postgres', slurp_file("erp/$_.sql")) for qw(schema automation holidays_br outside whatsapp timers notifications orders);

sub sql { return $node->safe_psql('postgres', "SET ROLE ianara_app; $_[0]") }
# is_sql NAME, QUERY, ROWS: one row a line
sub is_sql
{
	my ($name, $query, $expected) = @_;
	$expected =~ s/^\s+|\s+$//g;
	$expected =~ s/\n\s+/\n/g;
	is(sql($query), $expected, $name);
}
sub stop_at_once
{
	$node->stop('immediate');
	start_again($node);
}
my $settled = 'SELECT (SELECT c.position >= (SELECT max(position) FROM event_queue.event_store) FROM event_queue_internal.rule_checkpoint c)'
	. q( AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE state <> 'suspended' AND run_at < clock_timestamp() + interval '1 hour'));
sub settled
{
	my ($name) = @_;
	ok(wait_for($node, $settled), $name)
	  or diag $node->safe_psql('postgres', 'SELECT queue, name, state, run_at, failures, last_error FROM event_queue.jobs LIMIT 20');
}
# Spans in which more jobs of a key were claimed than so many in so many seconds allow.
sub too_fast
{
	my ($limit, $seconds, $query) = @_;
	return "WITH s AS (SELECT part, at, row_number() OVER (PARTITION BY part ORDER BY at) AS n FROM ($query) q)
		SELECT part, a.at, b.at, b.n - a.n + 1 FROM s a JOIN s b USING (part)
		WHERE b.n >= a.n AND b.n - a.n + 1 > $limit * (1 + (0.25 + extract(epoch FROM b.at - a.at)) / $seconds) LIMIT 5";
}

# What is sent twice is to be seen; and nothing comes by the clock.
sql(q(ALTER TABLE outside.delivery DROP CONSTRAINT delivery_pkey;
SELECT event_queue.pause_schedule(name) FROM event_queue.schedules;
SELECT event_queue.alter_queue('orders', keep_completed => '1 day');
DELETE FROM ianara.preference WHERE user_id = 'aurora-2';
INSERT INTO ianara.preference VALUES ('aurora-1', 'lead.*', 'push'), ('aurora-2', 'task.*', 'sms'), ('boreal-1', 'task.*', 'push'), ('cerrado-1', 'payment.*', 'sms');
UPDATE ianara.address SET address = 'nobody-0404' WHERE (user_id, channel) = ('boreal-2', 'email');
DELETE FROM ianara.address WHERE (user_id, channel) = ('cerrado-2', 'email')));

# Leads, their welcomes and their timers.
sql(q(SELECT ianara.create_lead('aurora', 'Lead ' || n, '+55 11 90000-' || CASE n WHEN 7 THEN '0404' WHEN 8 THEN '0500' ELSE (1000 + n)::text END, 'web', 1)
	FROM generate_series(1, 8) n;
SELECT ianara.create_lead('boreal', 'Silent ' || n, NULL, 'web', 1) FROM generate_series(1, 3) n));
settled('leads are welcomed');
is_sql('but one, whose number does not exist', q(SELECT status, count(*) FROM ianara.whatsapp_message GROUP BY 1 ORDER BY 1), q(
	failed|1
	sent|7));
is_sql('a number at which the provider fails once was tried again', q(SELECT attempt.value ->> 'message' FROM event_queue.history h, jsonb_array_elements(h.errors) attempt
	WHERE queue = 'whatsapp'), 'whatsapp fails: 500');
is_sql('a timer for each lead with a phone', q(SELECT count(*), count(DISTINCT payload ->> 'lead') FROM event_queue.jobs WHERE queue = 'timers'), '8|8');
# By another way than the extension's: what lies in the hours of each day.
is_sql('after 48 hours of working days', q(
	SELECT j.payload, j.run_at, sum(h) FROM event_queue.jobs j JOIN event_queue.event_store e ON e.aggregate_id = j.payload ->> 'lead' AND e.event_type = 'lead.created',
		LATERAL (SELECT extract(epoch FROM least(j.run_at, (d::date + time '18:00') AT TIME ZONE 'America/Sao_Paulo')
				- greatest(e.created_at, (d::date + time '9:00') AT TIME ZONE 'America/Sao_Paulo')) AS h
			FROM generate_series(e.created_at::date - 1, j.run_at::date + 1, interval '1 day') d
			WHERE extract(isodow FROM d::date) < 6 AND d::date NOT IN (SELECT day FROM public.holidays_br(extract(year FROM d::date)::int))) x
	WHERE j.queue = 'timers' AND h > 0 GROUP BY 1, 2 HAVING abs(sum(h) - 48 * 3600) > 0.001), '');

# Messages; the provider answers 429 for three seconds, and the server is stopped while they go out.
sql(q(UPDATE outside.service SET busy_until = clock_timestamp() + interval '3 seconds' WHERE name = 'whatsapp';
SELECT ianara.send_message(lead_id, n || ' of 8') FROM generate_series(1, 8) n, ianara.lead WHERE phone LIKE '%-1___' ORDER BY n, lead_id));
ok(wait_for($node, q(SELECT count(*) BETWEEN 12 AND 40 FROM outside.delivery WHERE body LIKE '% of 8')), 'messages go out');
is_sql('429 was answered once to each contact: what was behind that call waited, and the time was kept', 'SELECT last_value FROM outside.refused', '6');
stop_at_once();
settled('they have gone out');
my $sent = q(SELECT d.at, d.address, substr(d.key, 9)::bigint AS message_id FROM outside.delivery d WHERE d.body LIKE '% of 8');
is_sql('each once', "SELECT count(*), count(DISTINCT message_id), count(DISTINCT address) FROM ($sent) s", '48|48|6');
is_sql('none while the provider was busy', "SELECT count(*) FROM ($sent) s WHERE at < (SELECT busy_until FROM outside.service WHERE name = 'whatsapp')", '0');
is_sql('in order for each contact', "SELECT * FROM (SELECT *, lag(message_id) OVER (PARTITION BY address ORDER BY at) AS before FROM ($sent) s) x WHERE before > message_id", '');
my $claimed = q(SELECT h.claimed_at AS at, m.phone FROM event_queue.history h JOIN ianara.whatsapp_message m
	ON m.message_id = (h.payload ->> 'message')::bigint WHERE h.queue = 'whatsapp' AND m.body LIKE '% of 8');
is_sql('the jobs are kept', "SELECT count(*) FROM ($claimed) c", '48');
is_sql('never more than 10 a second in all', too_fast(10, 1, "SELECT at, 0 AS part FROM ($claimed) c"), '');
is_sql('nor more than 2 to one contact', too_fast(2, 1, "SELECT at, phone AS part FROM ($claimed) c"), '');

# Two contacts answer.
sql(q(INSERT INTO outside.inbox (phone, body) VALUES ('+55 11 90000-1001', 'a'), ('+55 11 90000-1002', 'b'), ('+55 11 90000-1001', 'c'), ('+55 11 90000-9999', 'unknown');
SELECT event_queue.trigger_schedule('sync messages of aurora')));
settled('messages are fetched');
sql(q(SELECT event_queue.trigger_schedule('sync messages of aurora')));
settled('and once more');
is_sql('each is there once', q(SELECT phone, body FROM ianara.whatsapp_message WHERE status = 'received' ORDER BY inbox_id), q(
	+55 11 90000-1001|a
	+55 11 90000-1002|b
	+55 11 90000-1001|c));
is_sql('each lead has answered once', q(SELECT l.phone FROM event_queue.event_store e JOIN ianara.lead l ON l.lead_id = e.aggregate_id WHERE event_type = 'lead.answered' ORDER BY 1), q(
	+55 11 90000-1001
	+55 11 90000-1002));
is_sql('and their timers are stopped', q(SELECT count(*) FROM event_queue.jobs WHERE queue = 'timers'), '6');

# The services break, the timers go off, tasks are late, orders come, and the server is stopped.
sql(q(UPDATE outside.service SET broken = true WHERE name IN ('whatsapp', 'sms');
INSERT INTO ianara.product VALUES ('tractor', 10), ('plough', 0);
SELECT ianara.place_order('O1', 'cerrado', 'tractor', 10.50, 'Rua A 0500'), ianara.place_order('O2', 'cerrado', 'tractor', 20, 'Rua B'),
	ianara.place_order('O3', 'cerrado', 'tractor', 30, 'Rua C 0404'), ianara.place_order('O4', 'cerrado', 'tractor', 40, 'Rua D'),
	ianara.place_order('O5', 'cerrado', 'plough', 50, 'Rua E')));
ok(wait_for($node, q(SELECT count(*) = 4 FROM event_queue.jobs WHERE queue = 'orders' AND state = 'suspended')), 'orders wait for their payment');
is_sql('the web hook may come twice, a payment is received once', q(
UPDATE ianara.task SET due_at = now() - interval '1 second' WHERE task_id IN (SELECT task_id FROM ianara.task JOIN ianara.lead USING (lead_id)
	WHERE name LIKE 'Silent%' AND title = 'New: task 1');
SELECT ianara.receive_payment('P1', 'O1', 10.50), ianara.receive_payment('P1', 'O1', 10.50), ianara.receive_payment('P3', 'O3', 30), ianara.cancel_order('O2'),
	count(ianara.send_message(lead_id, 'anyone?')) FROM ianara.lead WHERE phone IN ('+55 11 90000-1001', '+55 11 90000-1002')), 't|f|t|1|2');
sql(q(SELECT event_queue.trigger_schedule('sync messages of aurora'), event_queue.trigger_schedule('expire tasks'), event_queue.retry_waiting('timers', failed_only => false)));
ok(wait_for($node, q(SELECT count(*) BETWEEN 2 AND 19 FROM outside.delivery WHERE service IN ('email', 'push', 'sms'))), 'notices go out');
stop_at_once();
# settled() may meet an order between its payment and its resumption.
ok(wait_for($node, q(SELECT count(*) = 4 FROM (SELECT FROM ianara.sales_order WHERE status IN ('shipped', 'undone')
	UNION ALL SELECT FROM event_queue.dead_letters WHERE payload ->> 'order' = 'O5') x)), 'orders come to their end');
settled('all has gone as far as it can');

is_sql('what happened', q(SELECT event_type, count(*), count(DISTINCT (aggregate_type, aggregate_id)) FROM event_queue.event_store
	WHERE event_type IN ('task.expired', 'lead.lost', 'payment.received', 'order.shipped') GROUP BY 1 ORDER BY 1), q(
	lead.lost|6|6
	order.shipped|1|1
	payment.received|2|2
	task.expired|3|3));
is_sql('who has answered is not lost', q(SELECT count(*) FROM ianara.lead WHERE answered_at IS NOT NULL AND lost_at IS NOT NULL), '0');
is_sql('orders', q(SELECT o.order_id, o.status, p.payment_id, p.refunded_at IS NOT NULL FROM ianara.sales_order o LEFT JOIN ianara.payment p USING (order_id) ORDER BY 1), q(
	O1|shipped|P1|f
	O2|undone||f
	O3|undone|P3|t
	O4|placed||f
	O5|placed||f));
is_sql('the last step is undone first', q(SELECT payload ->> 'order', string_agg(name, ', ' ORDER BY completed_at) FROM event_queue.history
	WHERE queue = 'orders' AND name <> 'order' GROUP BY 1 ORDER BY 1), q(
	O2|unreserve
	O3|refund, unreserve));
is_sql('of what was reserved, that which was not sold is back', q(SELECT product_id, free FROM ianara.product ORDER BY 1), q(
	plough|0
	tractor|8));
is_sql('dead letters', q(SELECT queue, name, reason, failures, last_error, count(*) FROM event_queue.dead_letters GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 5), q(
	notify|email|final|1|email refuses: 404|3
	notify|email|final|1|user cerrado-2 has no address for email|2
	notify|sms|attempts|3|sms fails: 503|2
	orders|order|final|1|carrier refuses: 404|1
	orders|order|final|1|sold out|1
	whatsapp|send-message|attempts|3|whatsapp fails: 503|2
	whatsapp|send-message|final|1|whatsapp refuses: 404|1
	whatsapp-sync|sync-messages|attempts|3|whatsapp fails: 503|1));
is_sql('whose messages have failed', q(SELECT body, status FROM ianara.whatsapp_message WHERE status NOT IN ('sent', 'received') ORDER BY message_id), q(
	Olá Lead 7, obrigado pelo contato!|failed
	anyone?|failed
	anyone?|failed));

# All is mended.
sql(q(UPDATE outside.service SET broken = false;
UPDATE ianara.whatsapp_message SET phone = '+55 11 90000-1007' WHERE phone = '+55 11 90000-0404';
UPDATE ianara.address SET address = 'boreal-2@example.com' WHERE address = 'nobody-0404';
INSERT INTO ianara.address VALUES ('cerrado-2', 'email', 'cerrado-2@example.com')));
is_sql('what was undone is discarded, the rest retried', q(SELECT event_queue.discard_all_dead('orders'), event_queue.retry_failed()), '2|11');
settled('all is done');
is_sql('no dead letter is left', 'SELECT count(*) FROM event_queue.dead_letters', '0');
is_sql('no message is failed, and each was given to the provider once', q(
	SELECT m.message_id, m.status, count(d.key) FROM ianara.whatsapp_message m LEFT JOIN outside.delivery d ON d.service = 'whatsapp' AND d.key = 'message ' || m.message_id
	WHERE m.status <> 'received' GROUP BY 1, 2 HAVING m.status <> 'sent' OR count(d.key) <> 1), '');
is_sql('all of them', q(SELECT count(*) FROM outside.delivery WHERE service = 'whatsapp'), 8 + 48 + 2);
is_sql('who was told of what, and how', q(SELECT event_data ->> 'kind', event_data ->> 'userId', event_data ->> 'channel', count(*), count(DISTINCT aggregate_id)
	FROM event_queue.event_store WHERE event_type = 'notification.sent' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3), q(
	lead.lost|aurora-1|email|6|6
	lead.lost|aurora-1|push|6|6
	payment.received|cerrado-1|email|2|2
	payment.received|cerrado-1|sms|2|2
	payment.received|cerrado-2|email|2|2
	task.expired|boreal-1|email|3|3
	task.expired|boreal-1|push|3|3
	task.expired|boreal-2|email|3|3));
is_sql('each notice was given to its gateway once, and has its event', q(
	SELECT d.key, count(*) FROM outside.delivery d LEFT JOIN event_queue.event_store e ON e.event_type = 'notification.sent' AND 'notice ' || e.aggregate_id = d.key
	WHERE d.service IN ('email', 'push', 'sms') GROUP BY 1 HAVING count(*) <> 1 OR count(e.id) <> 1), '');
is_sql('27 in all', q(SELECT count(*) FROM outside.delivery WHERE service IN ('email', 'push', 'sms')), '27');
is_sql('in the words of the templates', q(SELECT DISTINCT body FROM outside.delivery WHERE service = 'email' AND body ~ 'Lead 3|Silent|O1' ORDER BY 1), q(
	Lead Lead 3 is lost: no answer within 48 business hours
	New: task 1 of Silent 1 has expired
	New: task 1 of Silent 2 has expired
	New: task 1 of Silent 3 has expired
	Order O1: R$ 10.50 received));
is_sql('the jobs are kept', q(SELECT count(*) FROM event_queue.history WHERE queue = 'notify'), '27');
is_sql('never more than 10 in 10 seconds to one user', too_fast(10, 10, q(SELECT claimed_at AS at, payload ->> 'user' AS part FROM event_queue.history WHERE queue = 'notify')), '');
is_sql('one order still waits', q(SELECT payload ->> 'order', state FROM event_queue.jobs), 'O4|suspended');

$node->stop;
my %errors;
my $log = slurp_file($node->logfile);
$errors{"$1 $2"}++ while $log =~ /(?<= )(\w{5}) ((?:ERROR|PANIC|WARNING): .{0,70})/g;
is(join("\n", sort keys %errors), '', 'nothing else went wrong');
done_testing();
