-- A settle call acts on the job that its id names, if the token is of that job's present
-- lease; else it is EQ016 and changes nothing.
SET client_min_messages = warning;
SELECT event_queue.create_queue('st', lease => '1 hour', max_concurrency => 3) > 0 AS created;
SELECT event_queue.enqueue('st', 'one') AS one, event_queue.enqueue('st', 'two') AS two, event_queue.enqueue('st', 'waits') AS waits,
	event_queue.enqueue('st', 'done') AS done \gset
SELECT event_queue.enqueue('st', 'dependent', depends_on => ARRAY[:one]) > 0 AS enqueued;
SELECT c.lease_token AS one_token FROM event_queue.claim('st', job_names => '{one}') c \gset
SELECT c.lease_token AS two_token FROM event_queue.claim('st', job_names => '{two}') c \gset
SELECT c.lease_token AS done_token, event_queue.complete(c.job_id, c.lease_token) FROM event_queue.claim('st', job_names => '{done}') c \gset
-- a lease of before
SELECT event_queue.enqueue('st', 'again') AS again \gset
SELECT c.lease_token AS old_token, event_queue.release(c.job_id, c.lease_token) FROM event_queue.claim('st', job_names => '{again}') c \gset
SELECT c.lease_token AS again_token FROM event_queue.claim('st', job_names => '{again}') c \gset

CREATE TABLE settle (call text);
INSERT INTO settle VALUES ('complete(%s, %L)'),
	('complete_and_claim(%s, %L, ''st'')'), ('complete_many_and_claim(ARRAY[%s], ARRAY[%L]::uuid[], ''st'', 10)'),
	('complete_many_and_claim(ARRAY[%3$s, %1$s], ARRAY[%4$L, %2$L]::uuid[], ''st'', 10)'),
	('fail(%s, %L, ''no'')'), ('fail(%s, %L, ''no'', final => true)'), ('release(%s, %L)'), ('extend_lease(%s, %L)'),
	('report_progress(%s, %L, ''1'')'), ('log_job(%s, %L, ''line'')');
CREATE TABLE wrong (what text, job_id bigint, token uuid);
INSERT INTO wrong VALUES ('no such job, a good token', 987654321, :'one_token'), ('another''s token', :one, :'two_token'),
	('a waiting job, a good token', :waits, :'one_token'), ('a finished job, its token', :done, :'done_token'),
	('a finished job, a good token', :done, :'one_token'), ('a good job, the token of a finished one', :one, :'done_token'),
	('the lease of before', :again, :'old_token'), ('a random token', :one, gen_random_uuid()),
	('a token of no place', :one, 'ffffffff-ffff-8fff-bfff-ffffffffffff'), ('0', 0, '00000000-0000-0000-0000-000000000000');
CREATE FUNCTION all_there_is() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat_ws('|', (SELECT string_agg(j::text, ';' ORDER BY job_id) FROM event_queue.job j),
		(SELECT string_agg(d::text, ';' ORDER BY job_id) FROM event_queue.dead_letter d),
		(SELECT string_agg(d::text, ';' ORDER BY job_id, depends_on) FROM event_queue.job_dependency d),
		(SELECT string_agg(l::text, ';' ORDER BY l) FROM event_queue.job_log l),
		(SELECT (l.active, (SELECT array_agg(j ORDER BY j) FROM unnest(l.jobs) j))::text FROM event_queue.queue_limits('st') l),
		(SELECT (c.completed, c.failed, c.released, c.claimed, c.dead)::text FROM event_queue_internal.queue_counters() c
		 WHERE c.queue_id = event_queue_internal.queue_id_of('st'))))
$$;
SELECT all_there_is() AS before \gset
-- what it says, how often; %3 and %4 are a good pair beside the wrong one
SELECT split_part(try(format('SELECT event_queue.' || call, w.job_id, w.token, :two, :'two_token')), ':', 1) AS error, count(*)
FROM settle, wrong w GROUP BY 1;
-- a batch says it for each, and completes the others
SELECT m.state, count(*) FROM wrong w, event_queue.complete_many(ARRAY[w.job_id], ARRAY[w.token]) m GROUP BY 1;
BEGIN;
SELECT m.job_id = :two AS good, m.state, count(*) FROM (SELECT array_agg(job_id) || :two::bigint AS ids, array_agg(token) || :'two_token'::uuid AS tokens FROM wrong) w,
	event_queue.complete_many(ids, tokens) m GROUP BY 1, 2;
-- twice in one call
SELECT state FROM event_queue.complete_many(ARRAY[:one, :one], ARRAY[:'one_token', :'one_token']::uuid[], ARRAY[NULL, '1']::jsonb[]);
ROLLBACK;
SELECT all_there_is() = :'before' AS nothing_changed;
-- in one transaction, after what ended it
BEGIN;
SELECT event_queue.release(:again, :'again_token');
SELECT split_part(try(format('SELECT event_queue.' || call, :again, :'again_token', :two, :'two_token')), ':', 1) AS error, count(*) FROM settle GROUP BY 1;
SELECT state FROM event_queue.complete_many(ARRAY[:again, :two], ARRAY[:'again_token', :'two_token']::uuid[]);
ROLLBACK;
BEGIN;
SELECT event_queue.complete(:again, :'again_token');
SELECT split_part(try(format('SELECT event_queue.' || call, :again, :'again_token', :two, :'two_token')), ':', 1) AS error, count(*) FROM settle GROUP BY 1;
SELECT state FROM event_queue.complete_many(ARRAY[:again, :two], ARRAY[:'again_token', :'two_token']::uuid[]);
ROLLBACK;
SELECT all_there_is() = :'before' AS nothing_changed;
-- and the right ones are still good
SELECT state FROM event_queue.complete_many(ARRAY[:again, :two, :one], ARRAY[:'again_token', :'two_token', :'one_token']::uuid[]);
SELECT event_queue.drop_queue('st', true);
DROP TABLE settle, wrong;
DROP FUNCTION all_there_is;

-- One review for each group of many jobs.
SELECT event_queue.create_queue('reviews') > 0 AS created;
BEGIN;
SELECT cardinality(event_queue.enqueue_many('reviews', (SELECT jsonb_agg(jsonb_build_object('group_key', CASE WHEN g % 3 > 0 THEN 'key ' || g % 3 END)) FROM generate_series(1, 300) g),
	options => '{"name": "x"}'));
SELECT group_key, count(*) FROM event_queue_internal.job_review WHERE queue_id = event_queue_internal.queue_id_of('reviews') GROUP BY 1 ORDER BY 1;
COMMIT;
CALL settled();
SELECT group_key, count(*) FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('reviews') AND blocked = 0 GROUP BY 1 ORDER BY 1;
SELECT event_queue.drop_queue('reviews', true);

-- A job that was cancelled while it was leased does not run again, whatever becomes of its lease.
SELECT event_queue.create_queue('called off', lease => '1 hour', max_attempts => 5) > 0 AS created;
SELECT count(event_queue.enqueue('called off', n)) FROM unnest('{completed,failed,many,released,stalled}'::text[]) n;
CREATE TEMP TABLE called_off AS SELECT name, job_id, lease_token FROM event_queue.claim('called off', 5);
SELECT name, event_queue.cancel_job(job_id) FROM called_off ORDER BY name;
SELECT event_queue.complete(job_id, lease_token) FROM called_off WHERE name = 'completed';
SELECT event_queue.fail(job_id, lease_token, 'no') FROM called_off WHERE name = 'failed';
SELECT m.state FROM called_off c, event_queue.fail_many(ARRAY[c.job_id], ARRAY[c.lease_token], 'no', retry_after => '0') m WHERE c.name = 'many';
SELECT event_queue.release(job_id, lease_token) FROM called_off WHERE name = 'released';
UPDATE event_queue.job SET leased_until = now() - interval '1 second' WHERE job_id = (SELECT job_id FROM called_off WHERE name = 'stalled');
SELECT name FROM event_queue.claim('called off', 5);
SELECT name, reason, last_error FROM event_queue.dead_letters WHERE queue = 'called off' ORDER BY name;
SELECT name, state FROM event_queue.jobs WHERE queue = 'called off';
DROP TABLE called_off;
SELECT event_queue.drop_queue('called off', true);
