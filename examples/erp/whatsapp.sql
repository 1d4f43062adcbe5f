/*
 * whatsapp.sql: messages to and from a lead's contact.
 *
 *   ianara.send_message()          -> whatsapp:      send-message  -> the provider
 *   each 10 seconds, each company  -> whatsapp-sync: sync-messages -> message, lead.answered
 *   job.dead of send-message       -> the message's status is failed
 *
 * A queue of its own sends: 10 messages a second in all and 2 a second to one contact, which is
 * the group.  Jobs of a group run one at a time and in order; while one waits to be tried
 * again, those behind it wait, too.  The welcome of automation.sql goes this way from now on.
 * Run by demo.sh after outside.sql.
 */
SET ROLE ianara_app;

ALTER TABLE ianara.lead ADD COLUMN answered_at timestamptz;
ALTER TABLE ianara.whatsapp_message
	ADD COLUMN status text NOT NULL DEFAULT 'sent' CHECK (status IN ('queued', 'sent', 'failed', 'received')),
	ADD COLUMN inbox_id bigint,
	ADD UNIQUE (inbox_id, lead_id);

SELECT event_queue.create_queue('whatsapp', rate_limit => 10, group_rate_limit => 2, job_events => true, sla => '1 minute',
	max_attempts => 3, backoff => 'exponential', backoff_delay => '1 second', keep_completed => '1 day');

/* The call of the API: returns at once, the answer does not wait for the provider. */
CREATE FUNCTION ianara.send_message(lead_id text, body text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	company text;
	message whatsapp_message;
BEGIN
	INSERT INTO whatsapp_message (lead_id, phone, body, status)
	SELECT l.lead_id, l.phone, $2, 'queued' FROM lead l WHERE l.lead_id = $1 AND l.phone IS NOT NULL
	RETURNING * INTO message;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'lead "%" does not exist or has no phone', $1;
	END IF;
	SELECT l.company_id INTO company FROM lead l WHERE l.lead_id = $1;
	PERFORM event_queue.enqueue('whatsapp', 'send-message', jsonb_build_object('message', message.message_id),
		group_key => message.phone, tenant_id => company);
	RETURN message.message_id;
END
$$;

CREATE OR REPLACE FUNCTION ianara.send_welcome(lead_id text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT ianara.send_message(l.lead_id, format('Olá %s, obrigado pelo contato!', l.name))
	FROM ianara.lead l WHERE l.lead_id = $1
$$;

CREATE FUNCTION ianara.on_send_message(job event_queue.claimed_job) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	message whatsapp_message;
BEGIN
	UPDATE whatsapp_message SET status = 'sent' WHERE message_id = (job.payload ->> 'message')::bigint RETURNING * INTO message;
	PERFORM ianara.heed('whatsapp', a.status, a.retry_after)
	FROM outside.call('whatsapp', 'message ' || message.message_id, message.phone, message.body, job.attempt) a;
END
$$;

/* What the provider has for a company and we have not; safe to repeat. */
CREATE FUNCTION ianara.on_sync_messages(job event_queue.claimed_job) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT ianara.heed('whatsapp', 503, NULL) FROM outside.service WHERE name = 'whatsapp' AND broken;
	WITH come AS (
		INSERT INTO whatsapp_message (lead_id, phone, body, status, inbox_id)
		SELECT l.lead_id, i.phone, i.body, 'received', i.id FROM outside.inbox i JOIN lead l USING (phone)
		WHERE l.company_id = job.tenant_id AND NOT EXISTS (SELECT FROM whatsapp_message m WHERE m.inbox_id = i.id AND m.lead_id = l.lead_id)
		ORDER BY i.id RETURNING lead_id),
	first_answer AS (
		UPDATE lead SET answered_at = now()
		WHERE answered_at IS NULL AND lead_id IN (SELECT lead_id FROM come) RETURNING lead_id)
	SELECT jsonb_build_object('messages', (SELECT count(*) FROM come),
		'answered', (SELECT count(event_queue.append('lead', lead_id, 'lead.answered')) FROM first_answer))
$$;

CREATE FUNCTION ianara.on_message_dead(event event_queue.event_store) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	UPDATE whatsapp_message SET status = 'failed'
	WHERE message_id = (event.event_data #>> '{payload,message}')::bigint AND status = 'queued'
$$;

SELECT event_queue.create_handler('whatsapp', 'send-message', 'ianara.on_send_message');
SELECT event_queue.create_handler('whatsapp-sync', 'sync-messages', 'ianara.on_sync_messages');
-- Each company has its account with the provider, so it has its schedule: one that fails holds up no other.
SELECT event_queue.create_schedule('sync messages of ' || company_id, '@every 10s', 'whatsapp-sync', 'sync-messages',
	tenant_id => company_id, overlap => 'skip') FROM ianara.company;
SELECT event_queue.create_rule('message that is not sent', 'job.dead', $$event_data ->> 'queue' = 'whatsapp'$$,
	function => 'ianara.on_message_dead');
RESET ROLE;
