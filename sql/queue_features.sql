-- What queues offer beyond enqueue, claim and complete: groups, dependencies,
-- unique modes, backoffs, cancelling, progress, fairness, history.
SET client_min_messages = warning;
CREATE FUNCTION try_it(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN EXECUTE sql; RETURN 'ok'; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE || ': ' || SQLERRM; END $$;
-- The scheduler decides whose turn it is: wait until it has looked.
CREATE PROCEDURE settled() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 500 LOOP
		COMMIT;
		EXIT WHEN NOT EXISTS (SELECT FROM event_queue.job_review);
		PERFORM pg_sleep(0.01);
	END LOOP;
END $$;
CREATE FUNCTION finish(q text, n int DEFAULT 1) RETURNS TABLE (name text) LANGUAGE sql AS $$
	SELECT c.name FROM event_queue.claim(q, n) c, LATERAL event_queue.complete(c.job_id, c.lease_token)
$$;

-- Groups: one at a time, in the order of their ids; other groups go on.
SELECT event_queue.create_queue('grouped') > 0 AS created;
SELECT count(event_queue.enqueue('grouped', g || n, group_key => g)) FROM generate_series(1, 3) n, unnest('{a,b}'::text[]) g;
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'grouped' ORDER BY name;
SELECT job_id AS a1, lease_token AS token FROM event_queue.claim('grouped') \gset
SELECT name FROM event_queue.claim('grouped', 10);
-- a failed one blocks its group until it is done
SELECT event_queue.fail(:a1, :'token', 'try again', retry_after => '0 s') IS NOT NULL AS again;
CALL settled();
SELECT name FROM finish('grouped', 10);
CALL settled();
SELECT name FROM finish('grouped', 10);
CALL settled();
SELECT name, state FROM event_queue.jobs WHERE queue = 'grouped' ORDER BY name;
SELECT event_queue.drop_queue('grouped', force => true);
-- two at a time; failed ones let the others pass; deleted by plain SQL, the next one comes
SELECT event_queue.create_queue('passing', group_concurrency => 2, group_retry => 'pass') > 0 AS created;
SELECT count(event_queue.enqueue_many('passing', 'g', ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, 5) n),
	group_keys => array_fill('g'::text, '{5}')));
CALL settled();
SELECT job_id AS one, lease_token AS token, payload FROM event_queue.claim('passing', 1) \gset
SELECT event_queue.fail(:one, :'token', 'later', retry_after => '1 hour') IS NOT NULL AS again;
CALL settled();
SELECT payload, state FROM event_queue.jobs WHERE queue = 'passing' ORDER BY job_id;
DELETE FROM event_queue.job WHERE payload = '{"n": 2}';
CALL settled();
SELECT payload, state FROM event_queue.jobs WHERE queue = 'passing' ORDER BY job_id;
SELECT event_queue.drop_queue('passing', force => true);

-- A rate for each key: the second of a key waits its time, another key does not.
SELECT event_queue.create_queue('contacts', group_rate_limit => 1, group_rate_interval => '1 hour') > 0 AS created;
SELECT count(event_queue.enqueue('contacts', 'hello ' || k, group_key => k)) FROM unnest('{ana,ana,rui}'::text[]) k;
CALL settled();
SELECT name FROM finish('contacts', 10) ORDER BY 1;
CALL settled();
SELECT name FROM finish('contacts', 10);
SELECT name, state, run_at > now() + '50 minutes' AS waits_its_time FROM event_queue.jobs WHERE queue = 'contacts';
SELECT event_queue.drop_queue('contacts', force => true);

-- Dependencies: a flow; the top sees the results of its children.
SELECT event_queue.create_queue('flow', keep_completed => '1 day') > 0 AS created;
SELECT event_queue.enqueue_flow('{"name": "report", "children": [{"name": "sales"}, {"name": "stock", "children": [{"name": "count"}]}]}', 'flow') AS top \gset
SELECT name, state FROM event_queue.jobs WHERE queue = 'flow' ORDER BY name;
SELECT count(event_queue.complete(c.job_id, c.lease_token, jsonb_build_object('of', c.name))) FROM event_queue.claim('flow', 10) c;
CALL settled();
SELECT count(event_queue.complete(c.job_id, c.lease_token, jsonb_build_object('of', c.name))) FROM event_queue.claim('flow', 10) c;
CALL settled();
SELECT name, result, completed_at IS NOT NULL AS completed FROM event_queue.dependency_results(:top) ORDER BY name;
SELECT name FROM finish('flow');
CALL event_queue.await_job(:top, '0 s');
-- of one that is finished already, of one that is not there, of one that is cancelled
SELECT event_queue.enqueue('flow', 'late', depends_on => ARRAY[:top]) > 0 AS enqueued;
SELECT try_it($$SELECT event_queue.enqueue('flow', 'x', depends_on => '{999999999}')$$);
SELECT event_queue.enqueue('flow', 'first', delay => '1 hour') AS first \gset
SELECT event_queue.enqueue('flow', 'second', depends_on => ARRAY[:first]) AS second \gset
SELECT reason, detail LIKE 'job % (first): scheduled' AS named FROM event_queue.explain_job(:second);
SELECT event_queue.cancel_job(:first);
SELECT name, reason FROM event_queue.dead_letters WHERE queue = 'flow';
SELECT event_queue.retry_dead(:second, '{"alone": true}');
SELECT name FROM finish('flow', 10) ORDER BY 1;
-- a batch, and what runs after it
SELECT event_queue.enqueue_batch('[{"name": "b1"}, {"name": "b2"}]', '{"name": "all done"}', 'flow') > 0 AS enqueued;
SELECT name FROM finish('flow', 10) ORDER BY 1;
CALL settled();
SELECT name FROM finish('flow', 10);
SELECT event_queue.drop_queue('flow', force => true);

-- Unique keys: reject, replace, debounce, throttle; until claimed.
SELECT event_queue.create_queue('unique2') > 0 AS created;
SELECT event_queue.enqueue('unique2', 'u', '{"n": 1}', unique_key => 'k') AS first \gset
SELECT event_queue.enqueue('unique2', 'u', '{"n": 2}', unique_key => 'k') = :first AS rejected;
SELECT event_queue.enqueue('unique2', 'u', '{"n": 3}', unique_key => 'k', unique_mode => 'replace', priority => 2) = :first AS replaced;
SELECT payload, priority, state FROM event_queue.jobs WHERE job_id = :first;
SELECT event_queue.enqueue('unique2', 'u', '{"n": 4}', delay => '1 hour', unique_key => 'k', unique_mode => 'debounce') = :first AS pushed_back;
SELECT payload, state FROM event_queue.jobs WHERE job_id = :first;
SELECT event_queue.enqueue('unique2', 'w', unique_key => 'w', unique_until => 'claimed') AS waiting \gset
SELECT event_queue.enqueue('unique2', 'w', unique_key => 'w') = :waiting AS same;
SELECT name FROM event_queue.claim('unique2');
SELECT event_queue.enqueue('unique2', 'w', unique_key => 'w') = :waiting AS same;
SELECT event_queue.enqueue('unique2', 't', unique_key => 't', unique_mode => 'throttle', unique_window => '1 hour') AS t \gset
SELECT count(*) >= 1 AS finished FROM finish('unique2', 10);
SELECT event_queue.enqueue('unique2', 't', unique_key => 't', unique_mode => 'throttle', unique_window => '1 hour') = :t AS throttled;
SELECT try_it($$SELECT event_queue.enqueue('unique2', 'x', unique_key => 'k', unique_mode => 'throttle')$$),
	try_it($$SELECT event_queue.enqueue('unique2', 'x', unique_mode => 'replace')$$),
	try_it($$SELECT event_queue.enqueue('unique2', 'x', unique_key => 'k', unique_mode => 'perhaps')$$);
SELECT event_queue.drop_queue('unique2', force => true);

-- Backoff after the n-th failure, in seconds.
SELECT event_queue.create_queue('again', max_attempts => 5, backoff_intervals => '{1 s,10 s}') > 0 AS created;
CREATE FUNCTION waits(kind text) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
	seconds int[] := '{}';
	c record;
BEGIN
	PERFORM event_queue.enqueue('again', kind, backoff => kind);
	FOR i IN 1 .. 4 LOOP
		SELECT * INTO c FROM event_queue.claim('again');
		seconds := seconds || round(extract(epoch FROM event_queue.fail(c.job_id, c.lease_token, 'no') - clock_timestamp()))::int;
		UPDATE event_queue.job SET run_at = clock_timestamp() WHERE job_id = c.job_id;
	END LOOP;
	PERFORM event_queue.cancel_job(c.job_id);
	RETURN seconds;
END $$;
SELECT k AS backoff, waits(k) FROM unnest('{exponential,bull,linear,fixed,list}'::text[]) k;

-- Cancelling, progress, log lines, time limits, priorities.
SELECT event_queue.enqueue('again', 'long', time_limit => '2 s') AS long \gset
SELECT lease_token AS token, leased_until - now() < '3 s' AS short_lease FROM event_queue.claim('again') \gset
SELECT event_queue.report_progress(:long, :'token', '{"done": 0.5}');
SELECT event_queue.log_job(:long, :'token', 'half way');
SELECT progress FROM event_queue.jobs WHERE job_id = :long;
SELECT level, message FROM event_queue.job_log WHERE job_id = :long;
SELECT event_queue.extend_lease(:long, :'token', '1 hour') - now() < '3 s' AS never_past_its_limit;
SELECT event_queue.cancel_job(:long);
SELECT reason FROM event_queue.explain_job(:long);
SELECT try_it(format('SELECT event_queue.extend_lease(%s, %L)', :long, :'token')) ~ '^EQ033' AS told;
SELECT try_it(format('SELECT event_queue.report_progress(%s, %L, NULL)', :long, :'token')) ~ '^EQ033' AS told;
SELECT event_queue.fail(:long, :'token', 'cancelled', final => true);
SELECT reason FROM event_queue.explain_job(:long);
SELECT try_it('SELECT event_queue.cancel_job(0)');
SELECT event_queue.enqueue('again', 'low', priority => 9) AS low \gset
SELECT event_queue.enqueue('again', 'normal') > 0 AS enqueued;
SELECT event_queue.change_priority(:low, 0);
SELECT name FROM finish('again', 2);
-- a queue that is drained takes no more, and gives what it has
SELECT event_queue.enqueue('again', 'last') > 0 AS enqueued;
SELECT event_queue.drain_queue('again');
SELECT try_it($$SELECT event_queue.enqueue('again', 'x')$$);
SELECT name FROM finish('again');
SELECT event_queue.resume_queue('again');
-- reasons
SELECT event_queue.enqueue('again', 'later', delay => '1 hour') AS later \gset
SELECT event_queue.pause_queue('again');
SELECT reason, until > now() AS until FROM event_queue.explain_job(:later);
SELECT event_queue.resume_queue('again');
SELECT event_queue.retry_all('again', failed_only => false);
SELECT reason FROM event_queue.explain_job(:later);
SELECT reason FROM event_queue.explain_job(0);
SELECT event_queue.drop_queue('again', force => true);

-- Many in one call; settled in one call; the token of one is not the token of another.
SELECT event_queue.create_queue('many', keep_completed_count => 2) > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('many', 'm', ARRAY(SELECT jsonb_build_object('n', n) FROM generate_series(1, 1500) n))) AS enqueued;
SELECT array_agg(job_id) AS ids, array_agg(lease_token) AS tokens FROM event_queue.claim('many', 3) \gset
SELECT try_it(format('SELECT event_queue.complete_many(%L, %L)', :'ids', (:'tokens'::uuid[])[3:3] || (:'tokens'::uuid[])[2:3])) ~ '^EQ016' AS wrong_tokens;
SELECT count(*) FROM event_queue.jobs WHERE queue = 'many' AND state = 'leased';
SELECT count(*) FROM event_queue.complete_many_and_claim(:'ids', :'tokens', 'many', 10, results => ARRAY['1', '2', '3']::jsonb[]);
SELECT result FROM event_queue.job_history JOIN event_queue.queue USING (queue_id) WHERE queue.name = 'many' ORDER BY job_id;
SELECT depth > 0 AS has_jobs FROM event_queue.queue_status WHERE queue = 'many';
SELECT array_agg(e) IS NOT NULL AS enqueued FROM event_queue.enqueue_jobs('[{"name": "j1", "priority": 1}, {"name": "j2", "delay": "1 hour"}]', 'many') e;
SELECT name, state, priority FROM event_queue.jobs WHERE queue = 'many' AND name LIKE 'j_' ORDER BY 1;
SELECT try_it($$SELECT event_queue.enqueue_jobs('[{"name": "j", "speed": 1}]', 'many')$$), try_it($$SELECT event_queue.enqueue_jobs('{}', 'many')$$),
	try_it($$SELECT event_queue.enqueue_jobs('[{"name": "j", "delay": "soon"}]', 'many')$$);
SELECT event_queue.drop_queue('many', force => true);

-- A fair queue: one tenant's thousand jobs do not keep another's waiting.
SELECT event_queue.create_queue('fair', fair => true) > 0 AS created;
SELECT cardinality(event_queue.enqueue_many('fair', 'f', ARRAY(SELECT '{}'::jsonb FROM generate_series(1, 1000)), tenant_id => 'busy')) AS enqueued;
SELECT event_queue.enqueue('fair', 'f', tenant_id => 'small') > 0 AS enqueued;
CREATE TEMP TABLE first_claims AS SELECT tenant_id FROM event_queue.claim('fair');
INSERT INTO first_claims SELECT tenant_id FROM event_queue.claim('fair');
SELECT tenant_id, count(*) FROM first_claims GROUP BY 1 ORDER BY 1;
SELECT tenant_id, count(*) FROM event_queue.claim('fair', 100) GROUP BY 1;
SELECT event_queue.drop_queue('fair', force => true);

-- What is kept beside jobs goes with them.
SELECT event_queue.maintain_history();
SELECT count(*) FROM event_queue.job_dependency;
DROP FUNCTION try_it, finish, waits;
DROP PROCEDURE settled;
