/*
 * timers.sql: what happens if nothing happens.
 *
 *   lead.created -> a timer of 48 business hours: unanswered -> lead.lost
 *   lead.answered stops it
 *   each minute -> timers: expire-tasks -> task.expired of each open task that is past its time
 *
 * Business time is that of the calendar "br", with Brazil's holidays.  A timer is a job with a
 * time and a key; open ones cost nothing.  Tasks have their time in their row, so that one
 * schedule looks for those that are late, whoever may have changed it, of all companies.
 * Run by demo.sh after holidays_br.sql and whatsapp.sql.
 */
SET ROLE ianara_app;

SELECT event_queue.create_calendar('br', 'America/Sao_Paulo', if_not_exists => true);
SELECT event_queue.add_holidays('br', ARRAY(SELECT h.day FROM generate_series(2026, 2030) year, public.holidays_br(year) h));

ALTER TABLE ianara.lead ADD COLUMN lost_at timestamptz;
ALTER TABLE ianara.task
	ADD COLUMN due_at timestamptz NOT NULL DEFAULT event_queue.add_business_time('br', now(), '2 days'),
	ADD COLUMN expired_at timestamptz;
CREATE INDEX ON ianara.task (due_at) WHERE status = 'open' AND expired_at IS NULL;

SELECT event_queue.create_queue('timers', max_attempts => 3, backoff => 'exponential', backoff_delay => '2 seconds');

/* False if the lead is lost already. */
CREATE FUNCTION ianara.lose_lead(lead_id text, reason text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	this_lead lead;
BEGIN
	UPDATE lead l SET lost_at = now() WHERE l.lead_id = $1 AND l.lost_at IS NULL RETURNING * INTO this_lead;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM event_queue.append('lead', $1, 'lead.lost', jsonb_build_object('name', this_lead.name, 'reason', $2),
		tenant_id => this_lead.company_id);
	RETURN true;
END
$$;

/* It looks whether it still matters: the answer may have been committed just as the time was over. */
CREATE FUNCTION ianara.on_unanswered(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT ianara.lose_lead(lead_id, 'no answer within 48 business hours')
	FROM lead WHERE lead_id = job.payload ->> 'lead' AND answered_at IS NULL
$$;

/* A handler acts for its job's tenant only, unless it says that it acts for all. */
CREATE FUNCTION ianara.on_expire_tasks(job event_queue.claimed_job) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp SET event_queue.tenant = '' AS $$
	WITH late AS (
		UPDATE task t SET expired_at = now() FROM lead l
		WHERE l.lead_id = t.lead_id AND t.status = 'open' AND t.due_at <= now() AND t.expired_at IS NULL
		RETURNING t.task_id, t.title, l.name, l.company_id)
	SELECT jsonb_build_object('expired', count(event_queue.append('task', task_id::text, 'task.expired',
		jsonb_build_object('title', title, 'lead', name), tenant_id => company_id)))
	FROM late
$$;

SELECT event_queue.create_handler('timers', 'unanswered', 'ianara.on_unanswered');
SELECT event_queue.create_handler('timers', 'expire-tasks', 'ianara.on_expire_tasks');
SELECT event_queue.create_rule('wait for an answer', 'lead.created', $$event_data ->> 'phone' IS NOT NULL$$,
	actions => '[{"enqueue": {"queue": "timers", "name": "unanswered", "payload": {"lead": "$.aggregate_id"},
		"delay": "48 hours", "calendar": "br", "delay_from": "event", "unique_key": "answer {{aggregate_id}}"}}]');
SELECT event_queue.create_rule('answered', 'lead.answered',
	actions => '[{"cancel": {"queue": "timers", "unique_key": "answer {{aggregate_id}}"}}]');
SELECT event_queue.create_schedule('expire tasks', '* * * * *', 'timers', 'expire-tasks', overlap => 'skip');
RESET ROLE;
