-- Many in one call; settled in one call; the token of one is not the token of another.
SELECT event_queue.create_queue('many', keep_completed_count => 2) > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('many', to_jsonb(ARRAY(SELECT jsonb_build_object('payload', jsonb_build_object('n', n)) FROM generate_series(1, 1500) n)), options => '{"name": "m"}')) AS enqueued;
SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('many', 3) \gset
SELECT try(format('SELECT event_queue.complete_many_and_claim(%L, %L, ''many'')', :'ids', (:'tokens'::uuid[])[3:3] || (:'tokens'::uuid[])[2:3])) ~ '^EQ016' AS wrong_tokens;
SELECT count(*) FROM event_queue.jobs WHERE queue = 'many' AND state = 'leased';
SELECT count(*) FROM event_queue.complete_many_and_claim(:'ids', :'tokens', 'many', 10, results => ARRAY['1', '2', '3']::jsonb[]);
SELECT result FROM event_queue.job_history JOIN event_queue.queue USING (queue_id) WHERE queue.name = 'many' ORDER BY job_id;
SELECT depth > 0 AS has_jobs FROM event_queue.queue_status WHERE queue = 'many';
SELECT array_agg(e) IS NOT NULL AS enqueued FROM event_queue.enqueue_many('many', '[{"name": "j1", "priority": 1}, {"name": "j2", "delay": "1 hour"}]') e;
SELECT name, state, priority FROM event_queue.jobs WHERE queue = 'many' AND name LIKE 'j_' ORDER BY 1;
SELECT try($$SELECT event_queue.enqueue_many('many', '[{"name": "j", "speed": 1}]')$$), try($$SELECT event_queue.enqueue_many('many', '{}')$$),
	try($$SELECT event_queue.enqueue_many('many', '[{"name": "j", "delay": "soon"}]')$$);
SELECT event_queue.drop_queue('many', force => true);
