/*
 * schema.sql: Ianara's leads, steps and tasks, and the calls of its API.
 *
 * Each call writes the business row and appends the event in one transaction,
 * and returns at once; what follows (tasks, WhatsApp, notifications) is in
 * automation.sql.  The company is the tenant.  Run by demo.sh as a superuser;
 * everything here belongs to the role ianara_app, and demo.sh calls it as that role.
 */
CREATE ROLE ianara_app NOLOGIN;
CREATE SCHEMA ianara AUTHORIZATION ianara_app;
-- Handlers and rules run as ianara_app, so it creates them itself.
SELECT event_queue.grant_admin('ianara_app');
SET ROLE ianara_app;

CREATE TABLE ianara.company (
	company_id	text PRIMARY KEY,
	name		text NOT NULL
);
CREATE TABLE ianara.app_user (
	user_id		text PRIMARY KEY,
	company_id	text NOT NULL REFERENCES ianara.company,
	name		text NOT NULL
);
CREATE TABLE ianara.step (
	step_id		int PRIMARY KEY,
	company_id	text NOT NULL REFERENCES ianara.company,
	name		text NOT NULL,
	sort_order	int NOT NULL,
	UNIQUE (company_id, sort_order)
);
CREATE TABLE ianara.task_template (
	template_id	int PRIMARY KEY,
	step_id		int NOT NULL REFERENCES ianara.step,
	title		text NOT NULL,
	sort_order	int NOT NULL,
	UNIQUE (step_id, sort_order)
);
CREATE TABLE ianara.lead (
	lead_id		text PRIMARY KEY DEFAULT event_queue.uuid_v7()::text,
	company_id	text NOT NULL REFERENCES ianara.company,
	step_id		int NOT NULL REFERENCES ianara.step,
	name		text NOT NULL,
	phone		text,
	source		text NOT NULL,
	value		numeric NOT NULL,
	created_at	timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE ianara.task (
	task_id		bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	lead_id		text NOT NULL REFERENCES ianara.lead,
	template_id	int NOT NULL REFERENCES ianara.task_template,
	title		text NOT NULL,
	-- the first task of a step is open, the others wait for the one before
	status		text NOT NULL CHECK (status IN ('waiting', 'open', 'done')),
	done_by		text REFERENCES ianara.app_user,
	UNIQUE (lead_id, template_id)
);
CREATE TABLE ianara.whatsapp_message (
	message_id	bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	lead_id		text NOT NULL REFERENCES ianara.lead,
	phone		text NOT NULL,
	body		text NOT NULL
);
CREATE TABLE ianara.notification (
	notification_id	bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	user_id		text NOT NULL REFERENCES ianara.app_user,
	body		text NOT NULL
);

/* A new lead on the first step of its company; returns its id. */
CREATE FUNCTION ianara.create_lead(company_id text, name text, phone text, source text, value numeric)
RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	new_lead lead;
BEGIN
	INSERT INTO lead (company_id, step_id, name, phone, source, value)
	SELECT $1, s.step_id, $2, nullif($3, ''), $4, $5 FROM step s
	WHERE s.company_id = $1 ORDER BY s.sort_order LIMIT 1
	RETURNING * INTO new_lead;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'company "%" does not exist or has no step', $1;
	END IF;
	PERFORM event_queue.append('lead', new_lead.lead_id, 'lead.created',
		jsonb_build_object('name', $2, 'phone', new_lead.phone, 'source', $4, 'value', $5, 'stepId', new_lead.step_id),
		expected_version => 'no_stream', tenant_id => $1);
	RETURN new_lead.lead_id;
END
$$;

/*
 * Moves a lead to another step of its company.  The lead's row is locked, so
 * the version read after that is the one to append at; anyone who appends to
 * the lead without the lock makes this fail with EQ001 instead of going unseen.
 */
CREATE FUNCTION ianara.move_lead(lead_id text, to_step int) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	this_lead lead;
BEGIN
	SELECT * INTO this_lead FROM lead l WHERE l.lead_id = $1 FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'lead "%" does not exist', $1;
	ELSIF this_lead.step_id = $2 THEN
		RAISE EXCEPTION 'lead "%" is on step % already', $1, $2;
	ELSIF NOT EXISTS (SELECT FROM step s WHERE s.step_id = $2 AND s.company_id = this_lead.company_id) THEN
		RAISE EXCEPTION 'step % is not a step of company "%"', $2, this_lead.company_id;
	END IF;
	UPDATE lead l SET step_id = $2 WHERE l.lead_id = $1;
	PERFORM event_queue.append('lead', $1, 'lead.movedToStep',
		jsonb_build_object('fromStepId', this_lead.step_id, 'stepId', $2),
		expected_version => event_queue.aggregate_version('lead', $1, this_lead.company_id),
		tenant_id => this_lead.company_id);
END
$$;

/* A user of the lead's company has done a task. */
CREATE FUNCTION ianara.complete_task(task_id bigint, user_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	this_task task;
	company text;
BEGIN
	UPDATE task t SET status = 'done', done_by = $2
	WHERE t.task_id = $1 AND t.status = 'open' RETURNING * INTO this_task;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'task % is not open', $1;
	END IF;
	SELECT l.company_id INTO company FROM lead l WHERE l.lead_id = this_task.lead_id;
	IF NOT EXISTS (SELECT FROM app_user u WHERE u.user_id = $2 AND u.company_id = company) THEN
		RAISE EXCEPTION 'user "%" is not a user of company "%"', $2, company;
	END IF;
	PERFORM event_queue.append('task', $1::text, 'task.completed',
		jsonb_build_object('leadId', this_task.lead_id, 'templateId', this_task.template_id, 'userId', $2),
		tenant_id => company);
END
$$;

/* Creates what is missing of a step's tasks for a lead; safe to repeat. */
CREATE FUNCTION ianara.create_step_tasks(lead_id text, step_id int) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	created int;
BEGIN
	INSERT INTO task (lead_id, template_id, title, status)
	SELECT $1, t.template_id, t.title,
		CASE WHEN row_number() OVER (ORDER BY t.sort_order) = 1 THEN 'open' ELSE 'waiting' END
	FROM task_template t WHERE t.step_id = $2
	ON CONFLICT DO NOTHING;
	GET DIAGNOSTICS created = ROW_COUNT;
	RETURN created;
END
$$;

CREATE FUNCTION ianara.send_welcome(lead_id text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	INSERT INTO ianara.whatsapp_message (lead_id, phone, body)
	SELECT l.lead_id, l.phone, format('Olá %s, obrigado pelo contato!', l.name)
	FROM ianara.lead l WHERE l.lead_id = $1
$$;

CREATE FUNCTION ianara.notify_users(company_id text, body text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	INSERT INTO ianara.notification (user_id, body)
	SELECT u.user_id, $2 FROM ianara.app_user u WHERE u.company_id = $1
$$;

/* As it was before: all that follows from a lead is done inside the call. */
CREATE FUNCTION ianara.create_lead_blocking(company_id text, name text, phone text, source text, value numeric)
RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	new_lead lead;
BEGIN
	INSERT INTO lead (company_id, step_id, name, phone, source, value)
	SELECT $1, s.step_id, $2, nullif($3, ''), $4, $5 FROM step s
	WHERE s.company_id = $1 ORDER BY s.sort_order LIMIT 1
	RETURNING * INTO new_lead;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'company "%" does not exist or has no step', $1;
	END IF;
	PERFORM ianara.create_step_tasks(new_lead.lead_id, new_lead.step_id);
	IF new_lead.phone IS NOT NULL THEN
		PERFORM ianara.send_welcome(new_lead.lead_id);
	END IF;
	PERFORM ianara.notify_users($1, format('New lead %s', $2));
	RETURN new_lead.lead_id;
END
$$;

INSERT INTO ianara.company VALUES ('aurora', 'Aurora Imóveis'), ('boreal', 'Boreal Seguros'), ('cerrado', 'Cerrado Agro');
INSERT INTO ianara.app_user
SELECT company_id || '-' || n, company_id, 'User ' || n FROM ianara.company, generate_series(1, 2) n;
INSERT INTO ianara.step
SELECT row_number() OVER (ORDER BY c.company_id, s.sort_order), c.company_id, s.name, s.sort_order
FROM ianara.company c, (VALUES ('New', 1), ('Contacted', 2), ('Won', 3)) AS s (name, sort_order);
-- 3 tasks on the first step, 2 on the second, 1 on the third
INSERT INTO ianara.task_template
SELECT row_number() OVER (ORDER BY s.step_id, n), s.step_id, format('%s: task %s', s.name, n), n
FROM ianara.step s, generate_series(1, 3) n WHERE n <= 4 - s.sort_order;
RESET ROLE;
