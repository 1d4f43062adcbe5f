-- Delays that are working time, and schedules that rest on holidays.
SET client_min_messages = warning;
SET timezone = 'UTC';
\set VERBOSITY sqlstate
SELECT event_queue.create_calendar('cd', 'America/Sao_Paulo', holidays => '{2026-12-25}') > 0 AS created;
SELECT event_queue.create_queue('cd') > 0 AS created;
CREATE FUNCTION cd_hours(job bigint, since timestamptz DEFAULT NULL) RETURNS numeric LANGUAGE sql AS $$
	SELECT round((event_queue.business_seconds('cd', coalesce(since, j.created_at), j.run_at) / 3600)::numeric, 2) FROM event_queue.job j WHERE j.job_id = job $$;

-- a job of its own: by working hours, and by working days
SELECT event_queue.enqueue('cd', 'a', delay => '48 hours', options => '{"calendar": "cd"}') AS job \gset
SELECT cd_hours(:job) AS hours, run_at > created_at + interval '5 days' AS later FROM event_queue.job WHERE job_id = :job;
SELECT event_queue.enqueue('cd', 'b', options => '{"delay": "3 days", "calendar": "cd"}') AS job \gset
SELECT run_at = event_queue.add_business_time('cd', created_at, '3 days') OR abs(extract(epoch FROM run_at - event_queue.add_business_time('cd', created_at, '3 days'))) < 1 AS three_days
FROM event_queue.job WHERE job_id = :job;
-- many: the one's own time in the place of what holds for all
SELECT count(*) FROM event_queue.enqueue_many('cd', '[{"name": "c"}, {"name": "c", "delay": "8 hours"}, {"name": "c", "run_at": "2100-01-01"}]',
	options => '{"delay": "16 hours", "calendar": "cd"}');
SELECT cd_hours(job_id) AS hours FROM event_queue.job WHERE name = 'c' AND run_at < '2099-01-01' ORDER BY job_id;
SELECT run_at FROM event_queue.job WHERE name = 'c' ORDER BY job_id DESC LIMIT 1;
-- wrong ones
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": "cd"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": "cd", "run_at": "2100-01-01"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": "none", "delay": "1 day"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": "", "delay": "1 day"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": 5.5, "delay": "1 day"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": ["cd"], "delay": "1 day"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": "cd", "delay": "1 month"}');
SELECT event_queue.enqueue('cd', 'x', options => '{"calendar": "cd", "delay": "-1 day"}');
SELECT event_queue.enqueue_many('cd', '[{"name": "x", "calendar": "cd"}]');
-- a tenant's producer reckons with it, and sees none of it
CREATE ROLE cd_a;
SELECT event_queue.grant_producer('cd_a', 'cd a');
SET ROLE cd_a;
SELECT event_queue.enqueue('cd', 'd', delay => '1 hour', options => '{"calendar": "cd"}') > 0 AS enqueued;
SELECT count(*) FROM event_queue.calendar;
RESET ROLE;

-- "No answer within 48 working hours" is one rule: from the event's time, or from now.
SELECT event_queue.create_rule('cd timer', 'cd.asked', queue => 'cd', job_name => 'remind', delay => '48 hours',
	options => '{"calendar": "cd", "unique_key": "$.aggregate_id"}') > 0 AS created;
SELECT event_queue.create_rule('cd actions', 'cd.asked', actions => '[
	{"enqueue": {"queue": "cd", "name": "from the event", "delay": "{{data.hours}} hours", "calendar": "cd", "delay_from": "event", "unique_key": "cd {{aggregate_id}}"}},
	{"call": {"function": "cd_told", "delay": "2 days", "calendar": "cd"}}]');
CREATE FUNCTION cd_told(event event_queue.event_store) RETURNS void LANGUAGE sql AS '';
SELECT event_queue.create_rule('cd actions', 'cd.asked', actions => '[
	{"enqueue": {"queue": "cd", "name": "from the event", "delay": "{{data.hours}} hours", "calendar": "cd", "delay_from": "event", "unique_key": "cd {{aggregate_id}}"}},
	{"call": {"function": "cd_told", "delay": "2 days", "calendar": "cd"}}]') > 0 AS created;
SELECT event_queue.create_rule('cd stop', 'cd.answered', actions => '[{"cancel": {"queue": "cd", "unique_key": "{{aggregate_id}}"}},
	{"cancel": {"queue": "cd", "unique_key": "cd {{aggregate_id}}"}}]') > 0 AS created;
SELECT version FROM event_queue.append('cd', 'CD1', 'cd.asked', '{"hours": 90}');
CALL wait_until($$(SELECT count(*) FROM event_queue.job WHERE metadata ->> 'rule' IN ('cd timer', 'cd actions')) = 3$$);
SELECT j.name, CASE j.name WHEN 'from the event' THEN cd_hours(j.job_id, e.created_at) WHEN 'remind' THEN cd_hours(j.job_id) END AS hours,
	abs(extract(epoch FROM j.run_at - event_queue.add_business_time('cd', j.created_at, '2 days'))) < 1 AS two_days
FROM event_queue.job j, event_queue.event_store e WHERE j.metadata ->> 'rule' LIKE 'cd %' AND e.event_type = 'cd.asked' ORDER BY j.name COLLATE "C";
SELECT version FROM event_queue.append('cd', 'CD1', 'cd.answered');
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'cd' AND j.metadata ->> 'rule' LIKE 'cd %')$$);
-- a rule is refused as a job is; what the event says is known later only: a job that names rule, version and event
SELECT event_queue.create_rule('cd bad', 'cd.bad', queue => 'cd', job_name => 'x', options => '{"calendar": "cd"}');
SELECT event_queue.create_rule('cd bad', 'cd.bad', queue => 'cd', job_name => 'x', delay => '1 day', options => '{"calendar": "none"}');
SELECT event_queue.create_rule('cd bad', 'cd.bad', queue => 'cd', job_name => 'x', delay => '2 months', options => '{"calendar": "cd"}');
SELECT event_queue.create_rule('cd bad', 'cd.bad', actions => '[{"enqueue": {"queue": "cd", "name": "x", "delay": "{{data.d}}", "calendar": "none"}}]');
SELECT event_queue.create_rule('cd bad', 'cd.bad', actions => '[{"call": {"function": "cd_told", "calendar": "cd"}}]');
SELECT event_queue.create_rule('cd bad', 'cd.bad', actions => '[{"call": {"function": "cd_told", "delay": "1 day", "calendar": "none"}}]');
SELECT event_queue.create_rule('cd bad', 'cd.bad', actions => '[{"enqueue": {"queue": "cd", "name": "x", "delay": "{{data.d}}", "calendar": "cd"}}]') > 0 AS created;
SELECT version FROM event_queue.append('cd', 'CD2', 'cd.bad', '{"d": "1 month"}');
CALL wait_until($$EXISTS (SELECT FROM event_queue.job WHERE metadata ->> 'rule' = 'cd bad' AND failures > 0)$$);
SELECT name, metadata -> 'rule_version' AS version, metadata ? 'event_id' AS event, errors -> -1 ->> 'sqlstate' AS sqlstate FROM event_queue.job WHERE metadata ->> 'rule' = 'cd bad';
SELECT event_queue.drop_rule('cd bad');
DELETE FROM event_queue.job WHERE metadata ->> 'rule' = 'cd bad';
DELETE FROM event_queue.dead_letter WHERE metadata ->> 'rule' = 'cd bad';

-- A schedule rests on the holidays of a calendar: those there are, those that come, and those that go.
SELECT event_queue.create_calendar('cd rest', 'UTC', holidays => ARRAY(SELECT current_date + g FROM generate_series(0, 8) g)) > 0 AS created;
SELECT event_queue.create_schedule('cd', '0 12 * * *', 'cd', 'daily', exclude_calendar => 'cd rest') > 0 AS created;
CREATE VIEW cd_next AS SELECT (next_run AT TIME ZONE 'UTC')::date - current_date AS days FROM event_queue.schedules WHERE name = 'cd';
SELECT days FROM cd_next;
SELECT event_queue.add_holidays('cd rest', ARRAY[current_date + 9, current_date + 10]);
SELECT days FROM cd_next;
SELECT event_queue.remove_holidays('cd rest', ARRAY[current_date + 5]);
SELECT days FROM cd_next;
SELECT event_queue.create_calendar('cd rest', 'UTC', holidays => ARRAY[current_date, current_date + 1, current_date + 2], or_replace => true) > 0 AS replaced;
SELECT days FROM cd_next;
-- beside dates of its own
SELECT event_queue.create_schedule('cd', '0 12 * * *', 'cd', 'daily', exclude => ARRAY[current_date + 3], exclude_calendar => 'cd rest', or_replace => true) > 0 AS replaced;
SELECT days, exclude_calendar FROM cd_next, event_queue.schedules WHERE name = 'cd';
SELECT event_queue.create_schedule('cd', '0 12 * * *', 'cd', 'daily', exclude => ARRAY[current_date + 3], if_not_exists => true) > 0 AS left_as_it_is;
SELECT event_queue.create_schedule('cd bad', '0 12 * * *', 'cd', 'daily', exclude_calendar => 'none');
SELECT event_queue.create_schedule('cd bad', '0 12 * * *', 'cd', 'daily', options => '{"calendar": "none", "delay": "1 day"}');
-- another schedule, whose zone is gone, is no reason to refuse a holiday; it keeps its time
SELECT event_queue.create_schedule('cd gone', '0 13 * * *', 'cd', 'daily', exclude_calendar => 'cd rest') > 0 AS created;
UPDATE event_queue.schedule SET time_zone = 'No/Where' WHERE name = 'cd gone';
SELECT event_queue.add_holidays('cd rest', ARRAY[current_date + 4]);
SELECT (next_run AT TIME ZONE 'UTC')::date - current_date AS days, name FROM event_queue.schedules WHERE exclude_calendar = 'cd rest' ORDER BY name;
SELECT event_queue.remove_holidays('cd rest', ARRAY[current_date + 4]), event_queue.drop_schedule('cd gone');
-- a delay by working time, and jitter by the clock: not in the next working hour
SELECT event_queue.create_calendar('cd short', 'UTC', '{"mon": ["03:00-03:01"], "tue": ["03:00-03:01"], "wed": ["03:00-03:01"], "thu": ["03:00-03:01"], "fri": ["03:00-03:01"]}') > 0 AS created;
SELECT event_queue.create_schedule('cd jitter', '0 12 * * *', 'cd', 'jitter', jitter => '1 second', options => '{"delay": "2 days", "calendar": "cd short"}') > 0 AS created;
SELECT event_queue.trigger_schedule('cd jitter') AS job \gset
SELECT run_at BETWEEN event_queue.add_business_time('cd short', created_at - interval '10 seconds', '2 days') AND event_queue.add_business_time('cd short', created_at, '2 days') + interval '1 second' AS two_days
FROM event_queue.job WHERE job_id = :job;
SELECT event_queue.drop_schedule('cd jitter'), event_queue.drop_calendar('cd short');
-- a calendar in use stays
SELECT event_queue.drop_calendar('cd rest');
SELECT event_queue.drop_calendar('cd');
\set VERBOSITY default
SELECT event_queue.drop_calendar('cd');
\set VERBOSITY sqlstate
-- whoever deletes it all the same stops no scheduler: the schedule says why it does not run, and goes on when it is there again
DELETE FROM event_queue.calendar WHERE name = 'cd rest';
UPDATE event_queue.schedule SET next_run = now() - interval '1 s', cron = cron WHERE name = 'cd';
CALL wait_until($$EXISTS (SELECT FROM event_queue.faults() WHERE what = 'schedule' AND item = 'cd' AND sqlstate = 'EQ025')$$);
SELECT event_queue.create_calendar('cd rest', 'UTC') > 0 AS created;
CALL wait_until($$NOT EXISTS (SELECT FROM event_queue.faults() WHERE what = 'schedule' AND item = 'cd') AND EXISTS (SELECT FROM event_queue.schedules WHERE name = 'cd' AND next_run > now())$$);
SELECT event_queue.drop_schedule('cd'), event_queue.drop_calendar('cd rest');
SELECT event_queue.drop_rule('cd timer');
SELECT event_queue.drop_calendar('cd');
SELECT event_queue.drop_rule('cd actions'), event_queue.drop_rule('cd stop');
-- nor one that a draft names; a version that is gone is no reason, and rollback_rule says that the calendar is
SELECT event_queue.create_rule('cd draft', 'cd.asked', queue => 'cd', job_name => 'x', options => '{"delay": "1 day", "calendar": "cd", "unique_key": "k"}') > 0 AS created;
SELECT event_queue.create_rule('cd draft', 'cd.asked', queue => 'cd', job_name => 'x', or_replace => true) > 0 AS replaced;
SELECT event_queue.create_rule('cd draft', 'cd.asked', queue => 'cd', job_name => 'x', options => '{"delay": "1 day", "calendar": "cd"}', draft => true) > 0 AS drafted;
SELECT event_queue.drop_calendar('cd');
SELECT event_queue.discard_draft('cd draft');
SELECT event_queue.create_rule('cd draft', 'cd.asked', actions => '[{"enqueue": {"queue": "cd", "name": "x", "delay": "1 day", "calendar": "cd"}}]', draft => true) > 0 AS drafted;
\set VERBOSITY default
SELECT event_queue.drop_calendar('cd');
\set VERBOSITY sqlstate
SELECT event_queue.discard_draft('cd draft');
SELECT event_queue.drop_calendar('cd');
SELECT event_queue.rollback_rule('cd draft', 1);
SELECT event_queue.drop_rule('cd draft');
SELECT event_queue.drop_queue('cd', force => true);
SELECT event_queue.revoke_access('cd_a');
