-- What the dashboard is shown with: roles, queues that work, fail, wait, and are paused.
CREATE EXTENSION event_queue;
CREATE ROLE metrics LOGIN;
CREATE ROLE ana LOGIN PASSWORD 'ana-pw';
CREATE ROLE bob LOGIN PASSWORD 'bob-pw';
CREATE ROLE acme LOGIN PASSWORD 'acme-pw';
SELECT event_queue.grant_admin('ana'), event_queue.grant_observer('bob'), event_queue.grant_observer('acme','acme'), event_queue.grant_observer('metrics');
SELECT event_queue.create_queue('mail', max_attempts => 2, backoff => 'fixed', backoff_delay => '1 second', sla => '30 seconds', keep_completed => '1 day');
SELECT event_queue.create_queue('invoices', max_attempts => 1, keep_completed => '1 day', sla => '1 minute');
SELECT event_queue.create_queue('reports', keep_completed => '1 day');
SELECT event_queue.create_queue('webhooks/outbound', rate_limit => 50, max_concurrency => 5);
SELECT event_queue.create_queue('imports');
SELECT event_queue.create_queue('search-index', keep_completed => '1 day');
SELECT event_queue.create_queue('thumbnails', keep_completed => '1 day');
CREATE SCHEMA app;
CREATE TABLE app.switch (broken boolean);
INSERT INTO app.switch VALUES (true);
CREATE FUNCTION app.send_mail(j event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(random() * 0.05);
	IF j.payload ->> 'to' LIKE '%bad%' AND (SELECT broken FROM app.switch) THEN
		RAISE EXCEPTION 'mailbox "%" unavailable', j.payload ->> 'to' USING ERRCODE = '22023', HINT = 'Ask the recipient.';
	END IF;
	RETURN jsonb_build_object('sent', true);
END $$;
CREATE FUNCTION app.invoice(j event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(random() * 0.1);
	IF j.payload ? 'zero' AND (SELECT broken FROM app.switch) THEN
		PERFORM 1 / 0;
	END IF;
	RETURN '{"ok": true}';
END $$;
CREATE FUNCTION app.index(j event_queue.claimed_job) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(random() * 0.01);
	RETURN '{"ok": true}';
END $$;
SELECT event_queue.create_handler('mail','send','app.send_mail'), event_queue.create_handler('invoices','issue','app.invoice'), event_queue.create_handler('search-index','index','app.index'), event_queue.create_handler('thumbnails','*','app.index');
CREATE FUNCTION app.lead(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT coalesce($1,'{}') || ($2).event_data || jsonb_build_object('last', ($2).event_type) $$;
SELECT event_queue.create_reducer('lead', 'app.lead');
SELECT event_queue.create_rule('welcome-mail', 'lead.created', queue => 'mail', job_name => 'send', payload => '{"to":"$.data.email","template":"welcome"}');
SELECT event_queue.create_rule('invoice-on-win', 'lead.won', condition => '(event.event_data->>''value'')::int > 1000', queue => 'invoices', job_name => 'issue');
SELECT event_queue.create_rule('index-all', '*', queue => 'search-index', job_name => 'index');
SELECT event_queue.create_schedule('nightly-report', '30 2 * * 1-5', 'reports', 'nightly', time_zone => 'America/Sao_Paulo');
SELECT event_queue.create_schedule('every-5-min', '*/5 * * * *', 'thumbnails', 'sweep');
SELECT event_queue.create_schedule('monthly-close', '0 6 1 * *', 'reports', 'close', time_zone => 'Europe/Berlin');
SELECT event_queue.create_subscription('crm-projection');
SELECT event_queue.append('lead', 'L-'||i, 'lead.created', jsonb_build_object('name','Lead '||i,'email', CASE WHEN i%25=0 THEN 'bad'||i||'@example.com' ELSE 'lead'||i||'@example.com' END,'value', (i*37)%5000), metadata => '{"actor":"maria"}', tenant_id => CASE WHEN i%3=0 THEN 'acme' ELSE 'default' END) FROM generate_series(1,300) i;
SELECT event_queue.append('lead', 'L-'||i, 'lead.contacted', jsonb_build_object('channel','phone','notes','<script>alert(1)</script>'), metadata => '{"actor":"joao"}', tenant_id => CASE WHEN i%3=0 THEN 'acme' ELSE 'default' END) FROM generate_series(1,100) i;
SELECT event_queue.append('lead', 'L-'||i, 'lead.won', jsonb_build_object('value', (i*77)%9000), metadata => '{"actor":"maria"}', tenant_id => CASE WHEN i%3=0 THEN 'acme' ELSE 'default' END) FROM generate_series(1,100) i;
SELECT event_queue.enqueue('imports','import', jsonb_build_object('file','contacts-'||i||'.csv','html','<script>alert("x")</script><img src=x onerror=alert(1)>')) FROM generate_series(1,40) i;
SELECT event_queue.enqueue('invoices', 'issue', jsonb_build_object('no', i, 'zero', 0)) FROM generate_series(1, 6) i;
SELECT event_queue.enqueue('mail', 'send', '{"to": "bad@example.com", "html": "<script>alert(1)</script><img src=x onerror=alert(1)>"}');
SELECT event_queue.enqueue('reports','monthly', '{"month":"2026-11"}', delay => '2 hours');
SELECT event_queue.enqueue('webhooks/outbound','deliver', jsonb_build_object('url','https://example.com/hook/'||i), group_key => 'customer-'||(i%4)) FROM generate_series(1,30) i;
SELECT event_queue.enqueue_flow('reports', '{"name":"merge","children":[{"name":"part-1","children":[{"name":"fetch-a"},{"name":"fetch-b"}]},{"name":"part-2"},{"name":"part-3"}]}');
SELECT event_queue.pause_queue('imports');
SELECT event_queue.create_alert('deep-imports', kind => 'queue_depth', queue => 'imports', threshold => 10);
