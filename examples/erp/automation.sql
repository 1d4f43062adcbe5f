/*
 * automation.sql: what follows from a lead: queues, rules and handlers.
 *
 *   lead.created, lead.movedToStep -> task-automation: lead-moved-to-step -> tasks
 *   task.completed                 -> task-automation: task-completed     -> next task
 *   lead.created with a phone      -> whatsapp-sync:   send-welcome       -> message
 *   lead.created                   -> notifications:   lead-created       -> notifications
 *
 * Handlers take an event_queue.claimed_job; each runs once, in the transaction
 * that also takes its job out of the queue.  Run by demo.sh after schema.sql.
 */
SET ROLE ianara_app;

SELECT event_queue.create_queue('task-automation', sla => '5 seconds',
	lease => '30 seconds', stalled_interval => '5 seconds', max_stalled => 2,
	max_attempts => 3, backoff => 'exponential', backoff_delay => '2 seconds');
SELECT event_queue.create_queue('whatsapp-sync', sla => '10 seconds',
	lease => '30 seconds', stalled_interval => '5 seconds', max_stalled => 2,
	max_attempts => 3, backoff => 'exponential', backoff_delay => '2 seconds');
SELECT event_queue.create_queue('notifications', sla => '30 seconds',
	lease => '30 seconds', stalled_interval => '5 seconds', max_stalled => 2,
	max_attempts => 3, backoff => 'exponential', backoff_delay => '2 seconds');

CREATE FUNCTION ianara.on_lead_moved_to_step(job event_queue.claimed_job) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT jsonb_build_object('tasks', ianara.create_step_tasks(job.payload ->> 'leadId', (job.payload ->> 'stepId')::int))
$$;

CREATE FUNCTION ianara.on_task_completed(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	UPDATE ianara.task SET status = 'open'
	WHERE status = 'waiting' AND task_id = (
		SELECT n.task_id
		FROM ianara.task_template done
		JOIN ianara.task_template next ON next.step_id = done.step_id AND next.sort_order = done.sort_order + 1
		JOIN ianara.task n ON n.template_id = next.template_id AND n.lead_id = job.payload ->> 'leadId'
		WHERE done.template_id = (job.payload ->> 'templateId')::int)
$$;

CREATE FUNCTION ianara.on_send_welcome(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT ianara.send_welcome(job.payload ->> 'leadId')
$$;

CREATE FUNCTION ianara.on_lead_created(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT ianara.notify_users(job.tenant_id, format('New lead %s', job.payload ->> 'name'))
$$;

SELECT event_queue.create_handler('task-automation', 'lead-moved-to-step', 'ianara.on_lead_moved_to_step');
SELECT event_queue.create_handler('task-automation', 'task-completed', 'ianara.on_task_completed');
SELECT event_queue.create_handler('whatsapp-sync', 'send-welcome', 'ianara.on_send_welcome');
SELECT event_queue.create_handler('notifications', 'lead-created', 'ianara.on_lead_created');

SELECT event_queue.create_rule('tasks of the first step', 'lead.created',
	queue => 'task-automation', job_name => 'lead-moved-to-step',
	payload => '{"leadId": "$.aggregate_id", "stepId": "$.data.stepId"}');
SELECT event_queue.create_rule('tasks of the next step', 'lead.movedToStep',
	queue => 'task-automation', job_name => 'lead-moved-to-step',
	payload => '{"leadId": "$.aggregate_id", "stepId": "$.data.stepId"}');
SELECT event_queue.create_rule('open the next task', 'task.completed',
	queue => 'task-automation', job_name => 'task-completed',
	payload => '{"leadId": "$.data.leadId", "templateId": "$.data.templateId"}');
SELECT event_queue.create_rule('welcome by WhatsApp', 'lead.created', $$event_data ->> 'phone' IS NOT NULL$$,
	queue => 'whatsapp-sync', job_name => 'send-welcome',
	payload => '{"leadId": "$.aggregate_id"}');
SELECT event_queue.create_rule('tell the users', 'lead.created',
	queue => 'notifications', job_name => 'lead-created',
	payload => '{"leadId": "$.aggregate_id", "name": "$.data.name"}');
RESET ROLE;
