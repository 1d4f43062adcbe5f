# second-phase.sh: the users' second phase in the demo: WhatsApp, timers, notifications and
# orders come to the running system, with a world outside that fails.  Sourced by demo.sh,
# for its functions; each count is checked as there.

# All jobs that are due within the hour are done.  (Timers and unpaid orders wait for days.)
SETTLED="(SELECT c.position >= (SELECT max(position) FROM event_queue.event_store) FROM event_queue_internal.rule_checkpoint c)
	AND NOT EXISTS (SELECT FROM event_queue.jobs WHERE state <> 'suspended' AND run_at < clock_timestamp() + interval '1 hour')"
progress() {
	step "$(sql -c "SELECT to_char(clock_timestamp(), 'HH24:MI:SS') || '  ' || string_agg(format('%s: %s waiting, %s done', queue, depth, completed_total), '   ' ORDER BY queue)
		FROM event_queue.queue_status WHERE queue IN ('whatsapp', 'notify', 'orders')")"
}
# list QUERY: its rows, one column each, in one line
list() { sql -c "SELECT string_agg(x::text, ', ') FROM ($1) q (x)"; }
# too_fast N SECONDS QUERY: spans of time in which there are more of QUERY's "at", of one "part",
# than N in SECONDS allow: a bucket gives N at once, and as many again in SECONDS.  A quarter of
# a second is for a busy machine.
too_fast() {
	sql -c "WITH s AS (SELECT part, at, row_number() OVER (PARTITION BY part ORDER BY at) AS n FROM ($3) q)
		SELECT count(*) FROM s a JOIN s b USING (part)
		WHERE b.n >= a.n AND b.n - a.n + 1 > $1 * (1 + (0.25 + extract(epoch FROM b.at - a.at)) / $2)"
}

say "Second phase: five files on the running system"
sql -f "$here/holidays_br.sql"
for file in outside whatsapp timers notifications orders; do
	sql -f "$here/$file.sql" >/dev/null
done
# The clock is pulled by hand here, so that all counts are the same each time.
as_app sql -c "SELECT event_queue.pause_schedule(name) FROM event_queue.schedules" >/dev/null
show -c "SELECT name, event_pattern, coalesce(queue || '/' || job_name, function, actions::text) AS does FROM event_queue.rules WHERE rule_id > 5 ORDER BY rule_id"

say "Eight leads, each with a phone; one number does not exist, at one the provider fails once"
as_app sql -c "SELECT ianara.create_lead('aurora', 'Lead ' || n, '+55 11 90000-' || CASE n WHEN 7 THEN '0404' WHEN 8 THEN '0500' ELSE (1000 + n)::text END, 'whatsapp', 100)
	FROM generate_series(1, 8) n" >/dev/null
wait_for "$SETTLED"
show -c "SELECT l.name, m.phone, m.body, m.status FROM ianara.whatsapp_message m JOIN ianara.lead l USING (lead_id) WHERE m.phone LIKE '+55 11 90000-%' ORDER BY message_id"
must_be "welcomes sent and failed" "$(sql -c "SELECT concat_ws(', ', count(*) FILTER (WHERE status = 'sent'), count(*) FILTER (WHERE status = 'failed'))
	FROM ianara.whatsapp_message WHERE phone LIKE '+55 11 90000-%'")" "7, 1"
must_be "timers that run" "$(sql -c "SELECT count(*) FROM event_queue.jobs WHERE queue = 'timers'")" 8
step "the first one goes off $(sql -c "SELECT to_char(min(run_at) AT TIME ZONE 'America/Sao_Paulo', 'Dy DD Mon HH24:MI') FROM event_queue.jobs WHERE queue = 'timers'") in Sao Paulo"
must_be "48 business hours after 17:00 on 23 December 2026, over Christmas and New Year" \
	"$(sql -c "SELECT event_queue.add_business_time('br', '2026-12-23 17:00-03', '48 hours') AT TIME ZONE 'America/Sao_Paulo'")" "2027-01-04 11:00:00"

say "Seven messages to each of six contacts, while the provider answers 429 for three seconds"
step "at most 10 a second in all, 2 a second to one contact, in order for each"
as_app sql -c "UPDATE outside.service SET busy_until = clock_timestamp() + interval '3 seconds' WHERE name = 'whatsapp'" \
	-c "SELECT ianara.send_message(lead_id, format('%s of 7', n)) FROM generate_series(1, 7) n, ianara.lead
		WHERE phone LIKE '+55 11 90000-1%' ORDER BY n, lead_id" >/dev/null
wait_for "$SETTLED"
SENT="SELECT d.at, d.address, m.message_id, h.claimed_at FROM outside.delivery d JOIN ianara.whatsapp_message m ON d.key = 'message ' || m.message_id
	JOIN event_queue.history h ON h.queue = 'whatsapp' AND h.payload ->> 'message' = m.message_id::text WHERE d.body LIKE '% of 7'"
must_be "sent" "$(sql -c "SELECT count(*) FROM ($SENT) s")" 42
must_be "calls answered by 429: one for each contact, the others waited behind it" "$(sql -c "SELECT last_value FROM outside.refused")" 6
must_be "of them before the provider was there again" "$(sql -c "SELECT count(*) FROM ($SENT) s WHERE at < (SELECT busy_until FROM outside.service WHERE name = 'whatsapp')")" 0
must_be "out of order" "$(sql -c "SELECT count(*) FROM (SELECT message_id, lag(message_id) OVER (PARTITION BY address ORDER BY at) AS before FROM ($SENT) s) x WHERE before > message_id")" 0
must_be "spans of time with more than 10 a second in all" "$(too_fast 10 1 "SELECT claimed_at AS at, 0 AS part FROM ($SENT) s")" 0
must_be "and with more than 2 a second to one contact" "$(too_fast 2 1 "SELECT claimed_at AS at, address AS part FROM ($SENT) s")" 0
step "the last one left $(sql -c "SELECT round(extract(epoch FROM max(at) - min(at)), 1) FROM ($SENT) s") s after the first: (42 - 10) / 10 is 3.2"

say "Two contacts answer; sync-messages fetches it, and stops their timers"
as_app sql -c "INSERT INTO outside.inbox (phone, body) VALUES ('+55 11 90000-1001', 'Oi!'), ('+55 11 90000-1002', 'Quero saber mais'), ('+55 11 90000-1001', 'Alô?')" \
	-c "SELECT event_queue.trigger_schedule('sync messages of aurora')" >/dev/null
wait_for "$SETTLED"
must_be "messages received, leads answered, timers left" "$(sql -c "SELECT concat_ws(', ', (SELECT count(*) FROM ianara.whatsapp_message WHERE status = 'received'),
	(SELECT count(*) FROM event_queue.event_store WHERE event_type = 'lead.answered'), (SELECT count(*) FROM event_queue.jobs WHERE queue = 'timers'))")" "3, 2, 6"

say "Preferences; and then what lies outside breaks"
as_app sql -c "INSERT INTO ianara.preference VALUES ('aurora-1', 'lead.*', 'push'), ('boreal-1', 'task.*', 'push'), ('cerrado-1', 'payment.*', 'sms')" \
	-c "DELETE FROM ianara.preference WHERE user_id = 'aurora-2'" \
	-c "UPDATE ianara.address SET address = 'nobody-0404' WHERE (user_id, channel) = ('boreal-2', 'email')" \
	-c "DELETE FROM ianara.address WHERE (user_id, channel) = ('cerrado-2', 'email')" \
	-c "UPDATE outside.service SET broken = true WHERE name IN ('whatsapp', 'sms')"
show -c "SELECT p.user_id, p.kind, p.channel, coalesce(a.address, '(none)') AS address FROM ianara.preference p LEFT JOIN ianara.address a USING (user_id, channel) ORDER BY 1, 2, 3"

say "48 business hours pass, three tasks are late, orders come and are paid, WhatsApp is down"
as_app sql -c "SELECT ianara.send_message(lead_id, 'until when?') FROM ianara.lead WHERE phone IN ('+55 11 90000-1001', '+55 11 90000-1002')" \
	-c "SELECT event_queue.trigger_schedule('sync messages of aurora')" \
	-c "SELECT event_queue.retry_waiting('timers', failed_only => false)" \
	-c "UPDATE ianara.task SET due_at = now() WHERE task_id IN (SELECT task_id FROM ianara.task JOIN ianara.lead USING (lead_id)
		WHERE company_id = 'boreal' AND status = 'open' ORDER BY task_id LIMIT 3)" \
	-c "SELECT event_queue.trigger_schedule('expire tasks')" \
	-c "INSERT INTO ianara.product VALUES ('tractor', 10)" \
	-c "SELECT ianara.place_order('O1', 'cerrado', 'tractor', 1000, 'Rua A 0500'), ianara.place_order('O2', 'cerrado', 'tractor', 2000, 'Rua B'),
		ianara.place_order('O3', 'cerrado', 'tractor', 3000, 'Rua C 0404'), ianara.place_order('O4', 'cerrado', 'tractor', 4000, 'Rua D')" >/dev/null
wait_for "(SELECT count(*) = 4 FROM event_queue.jobs WHERE queue = 'orders' AND state = 'suspended')"
must_be "four orders wait for their payment; tractors free" "$(sql -c 'SELECT free FROM ianara.product')" 6
must_be "O1 is paid, the web hook comes twice; O3 is paid; O2 is cancelled" "$(as_app sql -c "SELECT concat_ws(', ', ianara.receive_payment('P1', 'O1', 1000),
	ianara.receive_payment('P1', 'O1', 1000), ianara.receive_payment('P3', 'O3', 3000), ianara.cancel_order('O2'))")" "t, f, t, 1"
wait_for "(SELECT count(*) = 3 FROM ianara.sales_order WHERE status IN ('shipped', 'undone'))"
wait_for "$SETTLED"
show -c "SELECT o.order_id, o.address, o.status, p.payment_id, p.refunded_at IS NOT NULL AS refunded FROM ianara.sales_order o LEFT JOIN ianara.payment p USING (order_id) ORDER BY 1"
step "O1: the carrier failed once; O2 and O3 were undone, the last step first; O4 still waits, as a row"
must_be "orders shipped, undone, waiting; payments refunded; tractors free" "$(sql -c "SELECT concat_ws(', ', count(*) FILTER (WHERE status = 'shipped'), count(*) FILTER (WHERE status = 'undone'),
	count(*) FILTER (WHERE status = 'placed'), (SELECT count(*) FROM ianara.payment WHERE refunded_at IS NOT NULL), (SELECT free FROM ianara.product)) FROM ianara.sales_order")" "1, 2, 1, 1, 8"
must_be "task.expired, lead.lost, payment.received" "$(list "SELECT count(*) FROM event_queue.event_store WHERE event_type IN ('task.expired', 'lead.lost', 'payment.received')
	GROUP BY event_type ORDER BY event_type = 'payment.received', event_type DESC")" "3, 6, 2"

say "The dead letters of each queue"
show -c "SELECT queue, name, reason, failures, last_error, count(*) FROM event_queue.dead_letters GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 5"
must_be "whatsapp: no such number, and provider down" "$(list "SELECT concat_ws(' ', reason, count(*)) FROM event_queue.dead_letters WHERE queue = 'whatsapp' GROUP BY reason ORDER BY 1")" "attempts 2, final 1"
must_be "whatsapp-sync" "$(list "SELECT concat_ws(' ', reason, count(*)) FROM event_queue.dead_letters WHERE queue = 'whatsapp-sync' GROUP BY reason")" "attempts 1"
must_be "notify: email refused or without address, SMS down" "$(list "SELECT concat_ws(' ', name, reason, count(*)) FROM event_queue.dead_letters WHERE queue = 'notify' GROUP BY name, reason ORDER BY 1")" "email final 5, sms attempts 2"
must_be "orders: the carrier refuses" "$(list "SELECT concat_ws(' ', reason, payload ->> 'order') FROM event_queue.dead_letters WHERE queue = 'orders'")" "final O3"
must_be "notices that went out meanwhile" "$(list "SELECT concat_ws(' ', event_data ->> 'kind', event_data ->> 'channel', count(*)) FROM event_queue.event_store
	WHERE event_type = 'notification.sent' GROUP BY event_data ->> 'kind', event_data ->> 'channel' ORDER BY 1")" "lead.lost email 6, lead.lost push 6, payment.received email 2, task.expired email 3, task.expired push 3"

say "All is mended, the order's dead letter is discarded, the others are retried"
as_app sql -c "UPDATE outside.service SET broken = false" \
	-c "UPDATE ianara.whatsapp_message SET phone = '+55 11 90000-1007' WHERE phone = '+55 11 90000-0404'" \
	-c "UPDATE ianara.address SET address = user_id || '@example.com' WHERE address = 'nobody-0404'" \
	-c "INSERT INTO ianara.address VALUES ('cerrado-2', 'email', 'cerrado-2@example.com')"
must_be "discarded" "$(as_app sql -c "SELECT event_queue.discard_all_dead('orders')")" 1
must_be "retried" "$(as_app sql -c 'SELECT event_queue.retry_failed()')" 11
wait_for "$SETTLED"
must_be "dead letters" "$(sql -c 'SELECT count(*) FROM event_queue.dead_letters')" 0

say "Count"
must_be "WhatsApp messages sent, received, failed" "$(sql -c "SELECT concat_ws(', ', (SELECT count(*) FROM outside.delivery WHERE service = 'whatsapp'),
	(SELECT count(*) FROM ianara.whatsapp_message WHERE status = 'received'), (SELECT count(*) FROM ianara.whatsapp_message WHERE status = 'failed'))")" "52, 3, 0"
# lead.lost x 6: aurora-1 by email and push.  task.expired x 3: boreal-1 by email and push, boreal-2
# by email.  payment.received x 2: cerrado-1 by email and SMS, cerrado-2 by email.
must_be "notification.sent" "$(list "SELECT concat_ws(' ', event_data ->> 'kind', event_data ->> 'userId', event_data ->> 'channel', count(*)) FROM event_queue.event_store
	WHERE event_type = 'notification.sent' GROUP BY event_data ->> 'kind', event_data ->> 'userId', event_data ->> 'channel' ORDER BY 1")" \
	"lead.lost aurora-1 email 6, lead.lost aurora-1 push 6, payment.received cerrado-1 email 2, payment.received cerrado-1 sms 2, payment.received cerrado-2 email 2, task.expired boreal-1 email 3, task.expired boreal-1 push 3, task.expired boreal-2 email 3"
must_be "spans of time with more than 10 in 10 seconds to one user" "$(too_fast 10 10 "SELECT claimed_at AS at, payload ->> 'user' AS part FROM event_queue.history WHERE queue = 'notify'")" 0
step "the last of the 12 to aurora-1 left $(sql -c "SELECT round(extract(epoch FROM max(claimed_at) - min(claimed_at)), 1) FROM event_queue.history
	WHERE queue = 'notify' AND payload ->> 'user' = 'aurora-1'") s after the first"
must_be "notices that the gateways were given" "$(sql -c "SELECT count(*) FROM outside.delivery WHERE service IN ('email', 'push', 'sms')")" 27
show -c "SELECT service, address, body, to_char(at, 'HH24:MI:SS.MS') AS at FROM outside.delivery WHERE service IN ('email', 'push', 'sms') ORDER BY delivery.at DESC LIMIT 6"
show -c "SELECT queue, completed_total AS completed, failed_total AS failed, late_total AS past_sla, dead FROM event_queue.queue_status
	WHERE queue NOT IN ('rule-calls', 'snapshots') ORDER BY queue"
