/*
 * notifications.sql: who is told what, and how.
 *
 *   task.expired, lead.lost, payment.received -> notifications: tell -> a job for each user and channel
 *                                                notify: email, push, sms -> the gateway, notification.sent
 *
 * The text is the template of a rule.  A user's preferences say of which kinds (a pattern:
 * task.* or **) he is told by which channels.  A user is the group: he gets at most 10
 * notices in 10 seconds, by all channels together; one that has to be tried again lets the
 * others pass.  Run by demo.sh after timers.sql.
 */
SET ROLE ianara_app;

CREATE TABLE ianara.preference (
	user_id		text NOT NULL REFERENCES ianara.app_user,
	kind		text NOT NULL,
	channel		text NOT NULL CHECK (channel IN ('email', 'push', 'sms')),
	PRIMARY KEY (user_id, kind, channel)
);
CREATE TABLE ianara.address (
	user_id		text NOT NULL REFERENCES ianara.app_user,
	channel		text NOT NULL CHECK (channel IN ('email', 'push', 'sms')),
	address		text NOT NULL,
	PRIMARY KEY (user_id, channel)
);

SELECT event_queue.create_queue('notify', group_rate_limit => 10, group_rate_interval => '10 seconds', group_retry => 'pass',
	max_attempts => 3, backoff => 'exponential', backoff_delay => '1 second', keep_completed => '1 day', sla => '1 minute');

CREATE FUNCTION ianara.on_tell(job event_queue.claimed_job) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT to_jsonb(event_queue.enqueue_many('notify', jsonb_agg(jsonb_build_object('name', channel, 'group_key', user_id,
		'payload', job.payload || jsonb_build_object('user', user_id)))))
	FROM (SELECT DISTINCT p.user_id, p.channel FROM app_user u JOIN preference p USING (user_id)
		WHERE u.company_id = job.tenant_id AND event_queue.event_matches(job.payload ->> 'kind', p.kind)) who
	HAVING count(*) > 0
$$;

/* The name of the job is the channel. */
CREATE FUNCTION ianara.on_notify(job event_queue.claimed_job) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	told text := job.payload ->> 'user';
	goes_to text := (SELECT a.address FROM address a WHERE a.user_id = told AND a.channel = job.name);
BEGIN
	IF goes_to IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ060', MESSAGE = format('user %s has no address for %s', told, job.name);
	END IF;
	PERFORM ianara.heed(job.name, a.status, a.retry_after)
	FROM outside.call(job.name, 'notice ' || job.job_id, goes_to, job.payload ->> 'text', job.attempt) a;
	PERFORM event_queue.append('notification', job.job_id::text, 'notification.sent',
		jsonb_build_object('kind', job.payload ->> 'kind', 'channel', job.name, 'userId', told), expected_version => 'no_stream');
END
$$;

SELECT event_queue.create_handler('notifications', 'tell', 'ianara.on_tell');
SELECT event_queue.create_handler('notify', channel, 'ianara.on_notify') FROM unnest('{email,push,sms}'::text[]) channel;
SELECT event_queue.create_rule('tell: task.expired', 'task.expired', queue => 'notifications', job_name => 'tell',
	payload => '{"kind": "$.event_type", "text": "{{data.title}} of {{data.lead}} has expired"}');
SELECT event_queue.create_rule('tell: lead.lost', 'lead.lost', queue => 'notifications', job_name => 'tell',
	payload => '{"kind": "$.event_type", "text": "Lead {{data.name}} is lost: {{data.reason}}"}');
SELECT event_queue.create_rule('tell: payment.received', 'payment.received', queue => 'notifications', job_name => 'tell',
	payload => '{"kind": "$.event_type", "text": "Order {{aggregate_id}}: R$ {{data.amount}} received"}');

-- By email of everything, if a user does not say otherwise.
INSERT INTO ianara.preference SELECT user_id, '**', 'email' FROM ianara.app_user;
INSERT INTO ianara.address
SELECT user_id, channel, CASE channel WHEN 'email' THEN user_id || '@example.com' ELSE channel || ' ' || user_id END
FROM ianara.app_user, unnest('{email,push,sms}'::text[]) channel;
RESET ROLE;
