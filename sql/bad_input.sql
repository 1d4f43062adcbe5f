-- Bad input: a clear error with its own code at the call, and nothing half done.
SELECT event_queue.create_queue('q') IS NOT NULL AS created;
CREATE FUNCTION public.good_handler(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION public.bad_handler(job jsonb) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION public.good_rule_function(event event_queue.event_store) RETURNS void LANGUAGE sql AS 'SELECT';

SELECT s, try('SELECT event_queue.' || s) FROM unnest(ARRAY[
	-- names
	$$append('', '1', 'x')$$,
	$$append(NULL, '1', 'x')$$,
	$$append('lead', repeat('x', 256), 'x')$$,
	$$append('lead', '1', E'a\nb')$$,
	$$append('lead', '1', ' x')$$,
	$$create_queue('')$$,
	$$create_queue(repeat('x', 51))$$,
	$$enqueue('q', '')$$,
	$$enqueue('q', 'x', tenant_id => '')$$,
	-- sizes
	$$append('lead', '1', 'x', jsonb_build_object('a', repeat('x', 1100000)))$$,
	$$enqueue('q', 'x', jsonb_build_object('a', repeat('x', 1100000)))$$,
	-- queues and their settings
	$$enqueue('none', 'x')$$,
	$$claim('none')$$,
	$$alter_queue('none')$$,
	$$drop_queue('none')$$,
	$$create_queue('q')$$,
	$$create_queue('r', lease => '0 s')$$,
	$$create_queue('r', backoff => 'sometimes')$$,
	$$create_queue('r', max_attempts => 0)$$,
	$$create_queue('r', rate_limit => 0)$$,
	$$alter_queue('q', reset => '{speed}')$$,
	$$alter_queue('q', lease => '0')$$,
	$$alter_queue('q', lease => '1 minute', reset => '{sla, lease}')$$,
	$$drop_queue('rule-calls')$$,
	-- jobs
	$$enqueue('q', 'x', delay => '-1 s')$$,
	$$enqueue('q', 'x', delay => '1 s', run_at => now())$$,
	$$enqueue('q', 'x', run_at => 'infinity')$$,
	$$enqueue('q', 'x', priority => 10)$$,
	$$enqueue('q', 'x', priority => -1)$$,
	$$enqueue('q', 'x', options => '{"max_attempts": 0}')$$,
	$$enqueue('q', 'x', options => '{"backoff": "sometimes"}')$$,
	$$enqueue('q', 'x', options => '{"metadata": []}')$$,
	$$claim('q', 0)$$,
	$$claim('q', lease => '-1 s')$$,
	$$complete(NULL, NULL)$$,
	$$complete(0, gen_random_uuid())$$,
	$$extend_lease(0, gen_random_uuid(), '0 s')$$,
	$$fail(0, gen_random_uuid(), 'x', retry_after => '-1 s')$$,
	$$discard_dead(0)$$,
	-- handlers
	$$create_handler('q', 'x', 'public.no_such_function')$$,
	$$create_handler('q', 'x', 'no_such_schema.f')$$,
	$$create_handler('q', 'x', 'f(x)')$$,
	$$create_handler('q', 'x', NULL)$$,
	$$create_handler('q', 'x', 'public.bad_handler')$$,
	$$create_handler('q', 'x', 'public.good_handler', '1 hour')$$,
	$$create_handler('none', 'x', 'public.good_handler')$$,
	$$create_handler('rule-calls', 'x', 'public.good_handler')$$,
	$$drop_handler('q', 'x')$$,
	-- rules
	$$create_rule('', 'a.*', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', '', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a..b', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a.b*', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a.*')$$,
	$$create_rule('r', 'a.*', queue => 'q', job_name => 'x', function => 'public.good_rule_function')$$,
	$$create_rule('r', 'a.*', queue => 'q')$$,
	$$create_rule('r', 'a.*', queue => 'none', job_name => 'x')$$,
	$$create_rule('r', 'a.*', function => 'public.good_handler')$$,
	$$create_rule('r', 'a.*', function => 'nothing')$$,
	$$create_rule('r', 'a.*', queue => 'q', job_name => 'x', priority => 10)$$,
	$$create_rule('r', 'a.*', queue => 'q', job_name => 'x', delay => '-1 s')$$,
	$$create_rule('r', 'a.*', queue => 'q', job_name => 'x', payload => '[]')$$,
	$$create_rule('r', 'a.*', queue => 'q', job_name => 'x', payload => '{"a": "$.["}')$$,
	$$create_rule('r', 'a.*', 'event_data', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a.*', 'no_such_column = 1', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a.*', 'true true', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a.*', 'true) FROM pg_class WHERE (true', queue => 'q', job_name => 'x')$$,
	$$create_rule('r', 'a.*', 'true); DROP TABLE event_queue.job; SELECT (true', queue => 'q', job_name => 'x')$$,
	$$resume_rule('none')$$,
	$$drop_rule('none')$$
]) AS s;

-- Nothing of that left a trace.
SELECT count(*) FROM event_queue.jobs WHERE queue = 'q';
SELECT count(*) FROM event_queue.rules;
SELECT count(*) FROM event_queue.handlers;
SELECT count(*) FROM event_queue.event_store WHERE aggregate_id = '1' AND aggregate_type = 'lead';
SELECT name FROM event_queue.queue ORDER BY 1;
SELECT event_queue.drop_queue('q');
DROP FUNCTION public.good_handler, public.bad_handler, public.good_rule_function;
