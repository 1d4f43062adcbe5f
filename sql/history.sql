-- Finished jobs: kept not at all, for a time, forever, or the newest of them;
-- in partitions that are dropped when what they hold has expired.
SET client_min_messages = warning;
-- Enqueues a job and finishes it; its result is its name.
CREATE FUNCTION done(q text, job text) RETURNS bigint LANGUAGE sql AS $$
	SELECT event_queue.enqueue(q, job);
	SELECT c.job_id FROM event_queue.claim(q) c, LATERAL event_queue.complete(c.job_id, c.lease_token, to_jsonb(c.name))
$$;
-- Other tests have finished jobs, too.
CREATE VIEW kept AS SELECT * FROM event_queue.history WHERE queue = ANY ('{not_kept,not_kept_either,for_hours,for_days,for_years,for_ever,newest,early,short}');
-- The partitions that hold finished jobs of the queues, with their time left out.
CREATE VIEW places AS
	SELECT q.name AS queue, h.name, regexp_replace(h.tableoid::regclass::text, '\d+', 'TIME') AS partition,
		CASE WHEN isfinite(h.expires_at) THEN extract(epoch FROM h.expires_at - h.completed_at) / 86400 END::float8 AS kept_days
	FROM event_queue.job_history h JOIN event_queue.queue q USING (queue_id) WHERE q.name = ANY ('{not_kept,not_kept_either,for_hours,for_days,for_years,for_ever,newest,early,short}');

-- Not kept.
SELECT event_queue.create_queue('not_kept') > 0 AND event_queue.create_queue('not_kept_either', keep_completed => '0') > 0 AS created;
SELECT done('not_kept', 'a') AS a, done('not_kept_either', 'b') AS b \gset
SELECT count(*) FROM kept;
SELECT event_queue.job_outcome(:a), event_queue.job_outcome(:b);

-- A queue that comes has its partitions made at once; the longer it keeps, the
-- longer the time that shares a partition.
SELECT event_queue.create_queue('for_hours', keep_completed => '1 day') > 0 AND event_queue.create_queue('for_days', keep_completed => '60 days') > 0
	AND event_queue.create_queue('for_years', keep_completed => '7 years') > 0 AND event_queue.create_queue('for_ever', keep_completed => '1000 years') > 0
	AND event_queue.create_queue('newest', keep_completed_count => 3) > 0 AS created;
CALL wait_until($$(SELECT count(DISTINCT substr(inhrelid::regclass::text, 1, 25)) = 3 FROM pg_inherits
	WHERE inhparent = 'event_queue.job_history'::regclass AND inhrelid::regclass::text ~ '_[hdm]_\d+$')$$);
SELECT count(done(q, q)) FROM unnest('{for_hours,for_days,for_years,for_ever,newest}'::text[]) q;
SELECT * FROM places ORDER BY kept_days, queue;
SELECT count(*) AS not_where_they_belong FROM event_queue.job_history h
WHERE h.tableoid::regclass::text <> 'event_queue.job_history_' || CASE span
	WHEN 0 THEN to_char(h.expires_at AT TIME ZONE 'UTC', '"h_"YYYYMMDDHH24') WHEN 1 THEN to_char(h.expires_at AT TIME ZONE 'UTC', '"d_"YYYYMMDD')
	WHEN 2 THEN to_char(h.expires_at AT TIME ZONE 'UTC', '"m_"YYYYMM') ELSE 'forever' END;
SELECT queue, name, result, failures FROM kept ORDER BY job_id;
-- the next one is there too, each with the indexes and the row security of all
SELECT count(*) >= 6 AS made, bool_and(c.relrowsecurity) AS guarded,
	bool_and((SELECT count(*) = 1 FROM pg_policy p WHERE p.polrelid = c.oid)) AS by_one_policy,
	bool_and((SELECT count(*) = 5 FROM pg_index x WHERE x.indrelid = c.oid)) AS indexed
FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE i.inhparent = 'event_queue.job_history'::regclass;
-- what is forever in years
SELECT try($$SELECT event_queue.create_queue('bad', keep_completed => '1001 years')$$);
SELECT try($$SELECT event_queue.alter_queue('for_days', keep_completed => '-1 day')$$);
SELECT try($$SELECT event_queue.alter_queue('for_days', keep_failed => '5000 years')$$);

-- By count: the newest, also of those that finished in the same moment; the
-- others keep theirs.
SELECT count(event_queue.enqueue('newest', 'n' || n)) FROM generate_series(1, 6) n;
SELECT m.state, count(*) FROM (SELECT array_agg(job_id ORDER BY job_id) AS ids, array_agg(lease_token ORDER BY job_id) AS tokens FROM event_queue.claim('newest', 6)) c,
	event_queue.complete_many(ids, tokens) m GROUP BY 1;
SELECT event_queue_internal.maintain_history();
SELECT queue, name FROM kept ORDER BY job_id;

-- A job that finishes before its partition is made has a place of its own.
BEGIN;
SELECT event_queue.create_queue('early', keep_completed => '20 days') > 0 AS created;
SELECT done('early', 'bird') > 0 AS done;
SELECT name, partition FROM places WHERE queue = 'early';
COMMIT;
CALL wait_until($$EXISTS (SELECT FROM pg_class WHERE relname = to_char(now() AT TIME ZONE 'UTC' + '20 days', '"job_history_d_"YYYYMMDD'))$$);
SELECT done('early', 'second bird') > 0 AS done;
SELECT name, partition FROM places WHERE queue = 'early' ORDER BY 1;
SELECT name, result FROM kept WHERE queue = 'early' ORDER BY 1;

-- Expired: not shown from that moment on, whatever table it is in.
SELECT event_queue.create_queue('short', keep_completed => '10 milliseconds') > 0 AS created;
SELECT done('short', 'gone soon') AS gone \gset
SELECT pg_sleep(0.02);
SELECT count(*) FROM kept WHERE queue = 'short';
SELECT event_queue.job_outcome(:gone), (SELECT reason FROM event_queue.explain_job(:gone));
SELECT event_queue.enqueue('short', 'after it', depends_on => ARRAY[:gone]) AS after \gset
SELECT name, completed_at IS NOT NULL AS completed, result FROM event_queue.dependency_results(:after);
-- The partition goes with all that is in it, while other queues keep theirs forever
-- and by count; a row that came early is deleted; one that is being restored (it
-- has no primary key yet) stays.
BEGIN;
CREATE TABLE event_queue.job_history_d_20200101 (LIKE event_queue.job_history_early INCLUDING ALL);
ALTER TABLE event_queue.job_history ATTACH PARTITION event_queue.job_history_d_20200101
	FOR VALUES FROM (1, '2020-01-01 00:00+00') TO (1, '2020-01-02 00:00+00');
CREATE TABLE event_queue.job_history_m_201912 (LIKE event_queue.job_history_early);
ALTER TABLE event_queue.job_history ATTACH PARTITION event_queue.job_history_m_201912
	FOR VALUES FROM (2, '2019-12-01 00:00+00') TO (2, '2020-01-01 00:00+00');
INSERT INTO event_queue.job_history (job_id, queue_id, tenant_id, name, priority, created_at, run_at, completed_at,
	expires_at, span, failures, stalled, payload, metadata, errors)
SELECT -n, event_queue_internal.queue_id_of('for_days'), 'default', 'old', 5, t, t, t, t, CASE n WHEN 1 THEN 1 ELSE 4 END, 0, 0, '{}', '{}', '[]'
FROM generate_series(1, 2) n, LATERAL (SELECT timestamptz '2020-01-01 12:00+00' + (n - 1) * interval '1 day' AS t) x;
SELECT name, partition FROM places WHERE name = 'old' ORDER BY partition;
SELECT count(*) FROM kept WHERE name = 'old';
COMMIT;
SELECT event_queue_internal.maintain_history_partitions(), event_queue_internal.maintain_history();
SELECT count(*) FROM places WHERE name = 'old';
SELECT to_regclass('event_queue.job_history_d_20200101') AS dropped, to_regclass('event_queue.job_history_m_201912') AS being_restored;
ALTER TABLE event_queue.job_history_m_201912 ADD PRIMARY KEY (job_id, completed_at);
SELECT event_queue_internal.maintain_history_partitions();
SELECT to_regclass('event_queue.job_history_m_201912') AS restored_and_dropped;
SELECT queue, name FROM kept ORDER BY job_id;

-- A keep that changes is that of the jobs that finish from then on.
SELECT event_queue.alter_queue('for_hours', keep_completed => '1000 years');
SELECT done('for_hours', 'forever') > 0 AS done;
SELECT name, partition, kept_days FROM places WHERE queue = 'for_hours' ORDER BY 1;
SELECT event_queue.alter_queue('for_hours', reset => '{keep_completed}');
SELECT done('for_hours', 'no more') > 0 AS done;
SELECT name FROM kept WHERE queue = 'for_hours' ORDER BY 1;

-- Tenants see their own.
CREATE ROLE history_reader;
SELECT event_queue.grant_observer('history_reader', 'acme');
SELECT event_queue.enqueue('for_days', 'of acme', tenant_id => 'acme') > 0 AS enqueued;
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('for_days');
SET ROLE history_reader;
SELECT name, tenant_id FROM event_queue.history WHERE queue = 'for_days';
RESET ROLE;
SELECT event_queue.revoke_access('history_reader');
DROP ROLE history_reader;

-- A queue takes its history with it.
SELECT event_queue.drop_queue(name, force => true) FROM unnest('{not_kept,not_kept_either,for_hours,for_days,for_years,for_ever,newest,early,short}'::text[]) name;
SELECT count(*) FROM event_queue.job_history h WHERE NOT EXISTS (SELECT FROM event_queue.queue q WHERE q.queue_id = h.queue_id);
DROP VIEW places, kept;
DROP FUNCTION done;
