-- Jobs that say themselves how long they are kept when they are finished or dead.
SELECT event_queue.create_queue('keep_none') > 0, event_queue.create_queue('keep_day', keep_completed => '1 day', keep_completed_count => 2, keep_failed => '1 day', keep_failed_count => 1) > 0;
CREATE FUNCTION keep_add(q text, name text, options text DEFAULT NULL) RETURNS void LANGUAGE sql AS
	$$SELECT event_queue.enqueue($1, $2, options => $3::jsonb)$$;
CREATE FUNCTION keep_do(q text) RETURNS bigint LANGUAGE sql AS
	$$SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim($1, 100)$$;
CREATE FUNCTION keep_die(q text) RETURNS bigint LANGUAGE sql AS
	$$SELECT count(*) FILTER (WHERE event_queue.fail(job_id, lease_token, 'no', final => true) IS NULL) FROM event_queue.claim($1, 100)$$;
CREATE VIEW keep_kept AS SELECT h.queue, h.name, isfinite(h.expires_at) AS expires, h.expires_at - h.completed_at AS age, t.keep_count, t.span
	FROM event_queue.history h JOIN event_queue.job_history t USING (job_id) WHERE h.queue ~ '^keep_';

-- By time: what the job says, or the queue
SELECT keep_add(q, 'queue''s'), keep_add(q, 'not', '{"keep_completed": "0"}'), keep_add(q, 'hour', '{"keep_completed": "1 hour"}'),
	keep_add(q, 'forever', '{"keep_completed": "1000 years"}'), keep_add(q, 'failed only', '{"keep_failed": "1 hour"}')
FROM unnest('{keep_none,keep_day}'::text[]) q;
SELECT j.name, keep FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'keep_none' ORDER BY job_id;
SELECT keep_do('keep_none'), keep_do('keep_day');
SELECT queue, name, expires, CASE WHEN expires THEN age END AS age, keep_count FROM keep_kept ORDER BY queue, name;
-- The queue's count is not for those that say it themselves.
SELECT event_queue_internal.maintain_history();
SELECT queue, name FROM keep_kept ORDER BY queue, name;

-- By count: among the last so many of the queue
SELECT keep_add('keep_none', 'two ' || n, '{"keep_completed_count": 2}'), keep_do('keep_none') FROM generate_series(1, 4) n;
SELECT keep_add('keep_none', 'both', '{"keep_completed_count": 3, "keep_completed": "1 hour"}');
SELECT keep_do('keep_none');
SELECT event_queue_internal.maintain_history();
SELECT name, expires, keep_count FROM keep_kept WHERE queue = 'keep_none' ORDER BY name;
SELECT keep_add('keep_none', 'later', '{"keep_completed": "1 hour"}') FROM generate_series(1, 3);
SELECT keep_do('keep_none');
SELECT event_queue_internal.maintain_history();
SELECT name FROM keep_kept WHERE queue = 'keep_none' ORDER BY name;

-- Dead letters
SELECT keep_add(q, 'queue''s'), keep_add(q, 'not', '{"keep_failed": "0"}'), keep_add(q, 'hour', '{"keep_failed": "1 hour"}'), keep_die(q)
FROM unnest('{keep_none,keep_day}'::text[]) q;
SELECT keep_add('keep_day', 'last two', '{"keep_failed_count": 2}') FROM generate_series(1, 4);
SELECT keep_die('keep_day');
SELECT event_queue_internal.maintain_history();
SELECT queue, name FROM event_queue.dead_letters WHERE queue ~ '^keep_' ORDER BY 1, 2;
UPDATE event_queue.dead_letter SET died_at = died_at - interval '2 hours' WHERE name = 'hour' AND queue_id IN (SELECT queue_id FROM event_queue.queue WHERE name ~ '^keep_');
SELECT event_queue_internal.maintain_history();
SELECT queue, name FROM event_queue.dead_letters WHERE queue ~ '^keep_' ORDER BY 1, 2;
-- What is retried says it still.
SELECT event_queue.retry_all_dead('keep_day', job_name => 'last two');
SELECT j.name, keep FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'keep_day' ORDER BY job_id;
SELECT event_queue.import_dead('keep_none', 'imported', options => '{"keep_failed_count": 7}') > 0;
SELECT name, keep FROM event_queue.dead_letter WHERE name = 'imported';

-- Whoever makes jobs can say it: many at once, rules, schedules, flows
SELECT cardinality(event_queue.enqueue_many('keep_none', '[{"name": "many", "keep_completed": "1 hour"}, {"name": "many"}]', options => '{"keep_completed_count": 9}'));
SELECT event_queue.enqueue_flow('keep_none', '{"name": "flow", "keep_failed": "2 hours"}') > 0;
SELECT event_queue.create_schedule('keep', '@yearly', 'keep_none', 'scheduled', options => '{"keep_completed_count": 3}') > 0;
SELECT event_queue.trigger_schedule('keep') > 0;
SELECT j.name, keep FROM event_queue.job j JOIN event_queue.queue q USING (queue_id) WHERE q.name = 'keep_none' ORDER BY job_id;
SELECT event_queue.drop_schedule('keep');

-- By hand, before its time: what the session may see, once; the audit log says how many of which queue
SELECT keep_add('keep_day', 'by hand') FROM generate_series(1, 2);
SELECT event_queue.enqueue('keep_day', 'of acme', tenant_id => 'acme', options => '{"keep_completed": "1000 years"}') > 0;
SELECT keep_add('keep_none', 'alive', '{"keep_completed_count": 5}'), keep_do('keep_day');
CREATE FUNCTION keep_ids(names text[]) RETURNS bigint[] LANGUAGE sql AS
	$$SELECT array_agg(job_id) FROM event_queue.all_jobs WHERE name = ANY (names) AND queue ~ '^keep_'$$;
SELECT keep_ids('{by hand,of acme,alive}') AS ids \gset
CREATE ROLE keep_admin;
SELECT event_queue.grant_admin('keep_admin');
SET ROLE keep_admin;
SET event_queue.tenant = 'globex';
SELECT event_queue.discard_completed(:'ids');
SET event_queue.tenant = 'acme';
SELECT event_queue.discard_completed(:'ids');
RESET event_queue.tenant;
SELECT event_queue.discard_completed((:'ids')::bigint[] || (:'ids')::bigint[] || NULL), event_queue.discard_completed(:'ids'),
	event_queue.discard_completed(NULL), event_queue.discard_completed('{}');
RESET ROLE;
SELECT name, state FROM event_queue.all_jobs WHERE job_id = ANY (:'ids');
SELECT object, after FROM event_queue.audit_log WHERE action = 'discard_completed' AND object ~ '^keep_' ORDER BY audit_id;
-- producers and workers may not
SELECT event_queue.revoke_access('keep_admin'), event_queue.grant_producer('keep_admin'), event_queue.grant_worker('keep_admin');
SET ROLE keep_admin;
SELECT event_queue.discard_completed(:'ids');
RESET ROLE;
SELECT event_queue.revoke_access('keep_admin');
DROP ROLE keep_admin;
DROP FUNCTION keep_ids;

-- Bad ones
CREATE FUNCTION keep_try(options text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM keep_add('keep_none', 'x', options);
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT o, keep_try(o) FROM unnest(ARRAY['{"keep_completed": "-1 s"}', '{"keep_failed": "1001 years"}', '{"keep_completed_count": 0}', '{"keep_failed_count": -1}',
	'{"keep_completed": 5}', '{"keep_failed_count": "x"}', '{"keep_completed": "1000000000 years"}']) o;
SELECT event_queue.drop_queue(q, force => true) FROM unnest('{keep_none,keep_day}'::text[]) q;
DROP VIEW keep_kept;
DROP FUNCTION keep_add, keep_do, keep_die, keep_try;
