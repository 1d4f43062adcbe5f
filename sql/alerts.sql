-- Alerts: raised once, resolved once, as events; hysteresis, pending, cool-down, snooze,
-- acknowledgement.  The scheduler looks at none here (alert_interval = 0): each look is a
-- call, and each round one transaction.
SET client_min_messages = warning;
SHOW event_queue.alert_interval;
SELECT event_queue.create_queue('al', max_attempts => 1, sla => '1 hour') > 0 AS created;
CREATE VIEW told AS SELECT event_type, aggregate_id, tenant_id, event_data ->> 'severity' AS severity, event_data ->> 'value' AS value,
	event_data ->> 'threshold' AS threshold, event_data ->> 'detail' AS detail, event_data ->> 'resolution' AS resolution
FROM event_queue.event_store WHERE aggregate_type = 'alert' AND aggregate_id !~ '^health:(?!queue al$)' ORDER BY position;
CREATE FUNCTION look(with_health boolean DEFAULT false) RETURNS SETOF told LANGUAGE plpgsql AS $$
DECLARE
	last bigint := coalesce((SELECT max(position) FROM event_queue.event_store), 0);
BEGIN
	PERFORM event_queue_internal.evaluate_alerts(with_health);
	RETURN QUERY SELECT t.* FROM (SELECT event_type, aggregate_id, tenant_id, event_data ->> 'severity', event_data ->> 'value',
		event_data ->> 'threshold', event_data ->> 'detail', event_data ->> 'resolution'
		FROM event_queue.event_store WHERE aggregate_type = 'alert' AND aggregate_id !~ '^health:(?!queue al$)' AND position > last ORDER BY position) t;
END
$$;
-- Dead letters that are there, made by commits of their own.
SELECT count(event_queue.enqueue('al', 'a')) FROM generate_series(1, 6);

-- What is refused.
SELECT event_queue.create_alert('x', 'weather');
SELECT event_queue.create_alert('x', 'queue_depth');
SELECT event_queue.create_alert('x', 'queue_depth', 'no such queue', 1);
SELECT event_queue.create_alert('x:y', 'queue_depth', 'al', 1);
SELECT event_queue.create_alert('x', 'queue_depth', 'al', 1, clear_threshold => 2);
SELECT event_queue.create_alert('x', 'failure_rate', threshold => 2);
SELECT event_queue.create_alert('x', 'queue_depth', 'al', 1, severity => 'red');
SELECT event_queue.create_alert('x', 'queue_depth', 'al', 1, pending => '-1 s');
SELECT event_queue.create_alert('health', 'queue_depth', 'al', 1);
SELECT event_queue.create_alert('x', 'queue_depth', 'al', 1, or_replace => true, if_not_exists => true);
SELECT event_queue.alter_alert('x', threshold => 1);
SELECT event_queue.alter_alert('health', threshold => 1);
SELECT event_queue.drop_alert('x');
SELECT event_queue.drop_alert('health');
SELECT event_queue.ack_alert('x');
SELECT event_queue.snooze_alert('x');
SELECT event_queue.snooze_alert('health', '178000000 years');
SELECT event_queue.snooze_alert('health:' || repeat('x', 1000));
-- Nobody else tells alerts.
CREATE ROLE al_producer;
SELECT event_queue.grant_producer('al_producer');
SET ROLE al_producer;
SELECT event_queue.append('alert', 'health:store', 'alert.raised');
SELECT event_queue.append_many('alert', 'health:store', '[{"event_type": "alert.seen"}, {"event_type": "alert.resolved"}]');
SELECT event_queue.append_batch('[{"aggregate_type": "alert", "aggregate_id": "a", "events": [{"event_type": "alert.raised"}]}]');
SELECT (event_queue.append('alert', 'of a device', 'alert.seen')).version, (event_queue.append('device', '1', 'alert.raised')).version;
RESET ROLE;

-- Raised above the threshold, not twice; resolved at clear_threshold, not before.
BEGIN;
SELECT event_queue.create_alert('deep', 'queue_depth', 'al', 5, clear_threshold => 2, severity => 'critical');
SELECT * FROM look();
SELECT * FROM look();
SELECT key, name, kind, object, state, severity, value, threshold, detail, hint FROM event_queue.alerts;
SELECT event_queue.ack_alert('deep', 'I am at it');
SELECT state, acked_by = session_user AS by_me, ack_note FROM event_queue.alerts;
SELECT event_queue.alter_alert('deep', threshold => 7, clear_threshold => 5);
SELECT * FROM look();
SELECT event_queue.alter_alert('deep', clear_threshold => 6);
SELECT * FROM look();
SELECT * FROM look();
SELECT * FROM event_queue.alerts;
SELECT key, resolution, value, peak, resolved_at >= raised_at AS in_order, ack_note FROM event_queue.alert_history;
-- and again
SELECT event_queue.alter_alert('deep', threshold => 5);
SELECT threshold, clear_threshold FROM event_queue.alert_definitions;
SELECT * FROM look();
-- paused, resumed, dropped: over
SELECT event_queue.pause_alert('deep'), event_queue.pause_alert('deep') AS again;
SELECT * FROM look();
SELECT event_queue.resume_alert('deep'), event_queue.resume_alert('deep') AS again;
SELECT * FROM look();
SELECT event_queue.drop_alert('deep');
SELECT * FROM look();
SELECT count(*), count(DISTINCT alert_id), bool_and(resolved_at IS NOT NULL) AS all_over FROM event_queue.alert_history;
-- Each that was raised was resolved, and by turns.
SELECT version, event_type FROM event_queue.read_aggregate('alert', 'deep:al', tenant_id => 'event_queue');
ROLLBACK;

-- Pending: not raised before it is over; forgotten if the condition ends.
BEGIN;
SELECT event_queue.create_alert('p', 'queue_depth', 'al', 5, pending => '1 hour');
SELECT * FROM look();
SELECT key, state, raised_at FROM event_queue.alerts;
SELECT event_queue.alter_alert('p', threshold => 10);
SELECT * FROM look();
SELECT key, state FROM event_queue.alerts;
SELECT event_queue.alter_alert('p', threshold => 5);
SELECT * FROM look();
UPDATE event_queue_internal.alert_state SET since = since - interval '1 hour';
SELECT * FROM look();
ROLLBACK;

-- Cool-down: what was resolved is not raised again before it is over.
BEGIN;
SELECT event_queue.create_alert('c', 'queue_depth', 'al', 5, cool_down => '1 hour');
SELECT * FROM look();
SELECT event_queue.alter_alert('c', threshold => 10);
SELECT * FROM look();
SELECT event_queue.alter_alert('c', threshold => 5);
SELECT * FROM look();
SELECT key, state FROM event_queue.alerts;
UPDATE event_queue_internal.alert_state SET since = since - interval '1 hour';
SELECT * FROM look();
-- A clock that was set back holds nothing up.
UPDATE event_queue_internal.alert_state SET since = since + interval '1 year';
SELECT event_queue.alter_alert('c', threshold => 10);
SELECT * FROM look();
UPDATE event_queue_internal.alert_state SET since = since + interval '1 year';
SELECT event_queue.alter_alert('c', threshold => 5);
SELECT * FROM look();
ROLLBACK;

-- Snoozed: not raised; raised when the time is over and it still holds; what is raised is
-- resolved all the same.
BEGIN;
SELECT event_queue.create_alert('s', 'queue_depth', 'al', 5);
SELECT event_queue.snooze_alert('s:al', '1 hour', note => 'deployment') > now() + interval '59 minutes' AS snoozed;
SELECT * FROM look();
SELECT key, state, snoozed_until > now() AS snoozed FROM event_queue.alerts;
SELECT event_queue.snooze_alert('s:al', '0') <= clock_timestamp() AS ended;
SELECT * FROM look();
SELECT event_queue.snooze_alert('s', until => 'tomorrow') = 'tomorrow' AS snoozed;
SELECT event_queue.alter_alert('s', threshold => 10);
SELECT * FROM look();
SELECT event_queue.alter_alert('s', threshold => 5);
SELECT * FROM look();
SELECT name, snoozed_until = 'tomorrow' AS snoozed FROM event_queue.alert_definitions;
ROLLBACK;

-- Each queue has its own; and the kinds.
SELECT event_queue.create_queue('al2', max_attempts => 1) > 0 AS created;
SELECT event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL AS no_retry FROM event_queue.claim('al', 2);
SELECT count(event_queue.enqueue('al2', 'a', delay => '1 hour')) FROM generate_series(1, 2);
BEGIN;
SELECT event_queue.create_alert('each', 'queue_depth', threshold => 1), event_queue.create_alert('dead', 'dead_letters', 'al'),
	event_queue.create_alert('new', 'new_dead_letters', 'al'), event_queue.create_alert('old', 'oldest_waiting', 'al', 0),
	event_queue.create_alert('sla', 'sla', 'al', 0);
SELECT event_type, aggregate_id, value ~ '^[0-9]+$' AS whole, severity, regexp_replace(detail, '\d+\.\d+', '#') AS detail FROM look()
WHERE aggregate_id ~ ':al2?$' ORDER BY 2;
SELECT event_queue.create_alert('dead', 'dead_letters', 'al', if_not_exists => true), event_queue.create_alert('dead', 'dead_letters', 'al', 9, or_replace => true);
SELECT event_queue.create_alert('none', 'dead_letters', 'al2'), event_queue.create_alert('none2', 'oldest_waiting', 'al2', 0);
SELECT event_type, aggregate_id FROM look();
SELECT event_queue.discard_all_dead('al') AS discarded;
ROLLBACK;
SELECT event_queue.create_alert('dead', 'dead_letters', 'al');
SELECT event_queue.create_alert('dead', 'dead_letters', 'al');
SELECT event_type, aggregate_id, value, detail FROM look();
SELECT event_queue.discard_all_dead('al') AS discarded;
SELECT event_type, aggregate_id, value, detail, resolution FROM look();

-- Built in: what health() says is not ok.
SELECT event_queue.alter_alert('health', pending => '0');
SELECT count(event_queue.enqueue('al', 'dies')) FROM generate_series(1, 1);
SELECT event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL AS no_retry FROM event_queue.claim('al', 1);
SELECT check_name, ok FROM event_queue.health() WHERE check_name = 'queue al';
SELECT event_type, aggregate_id, severity FROM look(true) WHERE aggregate_id ~ 'health';
SELECT event_type, aggregate_id, severity FROM look(false) WHERE aggregate_id ~ 'health';
SELECT key, name, kind, object, state FROM event_queue.alerts WHERE key ~ 'queue al$';
-- What can't be looked at is not over.
BEGIN;
CREATE EXTENSION dblink;
LOCK TABLE event_queue.dead_letter IN ACCESS EXCLUSIVE MODE;
SELECT dblink_exec('host=' || split_part(current_setting('unix_socket_directories'), ',', 1) || ' port=' || current_setting('port') || ' dbname=' || current_database(),
	'DO $d$ BEGIN SET LOCAL lock_timeout = 1000; PERFORM event_queue_internal.evaluate_alerts(true); END $d$');
SELECT key, state FROM event_queue.alerts WHERE key ~ 'queue al$';
ROLLBACK;
SELECT event_queue.discard_all_dead('al') AS discarded;
SELECT event_queue.purge_queue('al') AS purged;
SELECT event_type, aggregate_id FROM look(false) WHERE aggregate_id ~ 'health|dead';
SELECT event_type, aggregate_id, resolution FROM look(true) WHERE aggregate_id ~ 'health';
SELECT event_queue.pause_alert('health');
SELECT name, kind, pending_seconds, enabled FROM event_queue.alert_definitions WHERE name = 'health';

-- One that can't be told hurts no other, and is told in faults().
SELECT count(event_queue.enqueue('al', 'a')) FROM generate_series(1, 3);
BEGIN;
SELECT event_queue.create_alert('deep', 'queue_depth', 'al', 0), event_queue.create_alert('a', 'queue_depth', 'al', 0);
INSERT INTO event_queue_internal.alert_record (key, name, kind, object, severity, raised_at) VALUES ('x', 'x', 'x', 'x', 'x', now());
ALTER TABLE event_queue_internal.alert_record ADD CONSTRAINT no_deep CHECK (name <> 'deep');
SELECT event_type, aggregate_id FROM look();
SELECT what, item, sqlstate FROM event_queue.faults() WHERE what = 'alert';
ALTER TABLE event_queue_internal.alert_record DROP CONSTRAINT no_deep;
SELECT event_type, aggregate_id FROM look();
SELECT what, item, sqlstate FROM event_queue.faults() WHERE what = 'alert';
ROLLBACK;

-- Who may see and do what.
CREATE ROLE al_bound;
CREATE ROLE al_observer;
CREATE ROLE al_operator;
CREATE ROLE al_admin;
SELECT event_queue.grant_observer('al_bound', 'tenant of al'), event_queue.grant_observer('al_observer'), event_queue.grant_admin('al_admin'),
	event_queue.grant_observer('al_operator', 'event_queue');
SET ROLE al_bound;
SELECT count(*) FROM event_queue.alert_history UNION ALL SELECT count(*) FROM event_queue.alerts UNION ALL SELECT count(*) FROM event_queue.alert_definitions;
SELECT event_queue.create_alert('mine', 'dead_letters');
SET ROLE al_observer;
SELECT count(*) > 0 AS sees FROM event_queue.alert_history;
SELECT event_queue.ack_alert('dead');
SET ROLE al_operator;
SELECT count(*) > 0 AS sees FROM event_queue.alert_history;
SELECT DISTINCT event_type FROM event_queue.event_store ORDER BY 1;
SET ROLE al_admin;
SELECT event_queue.create_alert('mine', 'dead_letters'), event_queue.drop_alert('mine');
RESET ROLE;

-- The error budget burns: all jobs of an hour, and of five minutes, came late.
SELECT event_queue.create_queue('al3', sla => '1 ms', sla_target => 0.99) > 0 AND event_queue.create_alert('burns', 'slo_burn')
	AND event_queue.create_alert('burns slowly', 'slo_burn_slow', 'al3') AS created;
SELECT count(event_queue.enqueue('al3', 'x')) FROM generate_series(1, 12);
SELECT pg_sleep(0.01);
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('al3', 9);
SELECT count(*) AS of_a_few_jobs FROM event_queue_internal.alert_conditions(true, false) WHERE name LIKE 'burns%' AND object = 'al3';
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('al3', 2);
SELECT key, round(value::numeric, 1) AS value, threshold, breached, detail, hint FROM event_queue_internal.alert_conditions(true, false) WHERE name LIKE 'burns%' ORDER BY key COLLATE "C";
SELECT event_queue.drop_alert('burns'), event_queue.drop_alert('burns slowly'), event_queue.drop_queue('al3', force => true);

-- The way to whoever is told is tried without a fault.
SET ROLE al_admin;
SELECT event_queue.try_alert('health') AS tried \gset
SELECT event_queue.try_alert('dead') > :tried AS later;
SELECT event_queue.try_alert('none');
RESET ROLE;
SELECT event_type, aggregate_id, event_data - '{raised_at,resolved_at,seconds}'::text[] AS data, event_data ? 'resolved_at' AS resolved
FROM event_queue.event_store WHERE position >= :tried AND aggregate_type = 'alert' ORDER BY position;
SELECT count(*) FROM event_queue.alert_history WHERE detail ~ 'test by';
SET ROLE al_observer;
SELECT event_queue.try_alert('health');
RESET ROLE;

-- What is snoozed of an alert goes with it: the next one of its name is told.
SELECT event_queue.create_alert('s', 'queue_depth', 'al', 0, if_not_exists => true) AS made;
SELECT event_queue.snooze_alert('s', '1 hour') > now() AND event_queue.snooze_alert('s:al', '1 hour') > now() AND event_queue.snooze_alert('health', '1 hour') > now() AS snoozed;
SELECT event_queue.drop_alert('s');
SELECT name FROM event_queue_internal.alert_snooze ORDER BY 1;
SELECT event_queue.snooze_alert('health', '0') <= clock_timestamp() AS ended;

-- Old ones go.
SELECT count(*) > 0 AS there FROM event_queue.alert_history;
BEGIN;
UPDATE event_queue_internal.alert_record SET resolved_at = resolved_at - interval '2 years';
SELECT event_queue_internal.maintain_alerts();
SELECT count(*) FROM event_queue.alert_history WHERE resolved_at IS NOT NULL;
ROLLBACK;
SELECT event_queue.revoke_access(r::regrole) FROM unnest('{al_bound,al_observer,al_operator,al_admin,al_producer}'::text[]) r;
DROP ROLE al_bound, al_observer, al_operator, al_admin, al_producer;
SELECT event_queue.drop_alert('dead'), event_queue.drop_queue('al', force => true), event_queue.drop_queue('al2', force => true);
