-- Savepoints and each pair of the calls that settle or change a leased job: what is
-- left of them is what the same calls leave that were transactions of their own.
SET client_min_messages = warning;
SELECT event_queue.create_queue('sp', max_concurrency => 1, backoff_delay => '0', max_attempts => 2, stalled_interval => '1 hour') > 0 AS created;
CREATE TABLE act (name text PRIMARY KEY, call text);
INSERT INTO act VALUES
	('complete', 'SELECT event_queue.complete(%s, %L)'),
	('complete_many', 'SELECT complete_them(ARRAY[%s], ARRAY[%L]::uuid[])'),
	('fail', 'SELECT event_queue.fail(%s, %L, ''no'')'),
	('bury', 'SELECT event_queue.fail(%s, %L, ''no'', final => true)'),
	('release', 'SELECT event_queue.release(%s, %L)'),
	('extend', 'SELECT event_queue.extend_lease(%s, %L, ''2 hours'')'),
	('progress', 'SELECT event_queue.report_progress(%s, %L, ''1'')'),
	('cancel', 'SELECT event_queue.cancel_job(%s)');

CREATE FUNCTION complete_them(ids bigint[], tokens uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (SELECT FROM event_queue.complete_many(ids, tokens) WHERE state = 'lost') THEN
		RAISE 'lost' USING ERRCODE = 'EQ016';
	END IF;
END $$;
CREATE FUNCTION do_act(act text, job bigint, token uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE (SELECT format(call, job, token) FROM act a WHERE a.name = act);
END $$;
-- In a subtransaction that ends by RELEASE or ROLLBACK TO; the error, if there was one.
CREATE FUNCTION in_savepoint(act text, job bigint, token uuid, keep boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM do_act(act, job, token);
	IF NOT keep THEN
		RAISE 'back' USING ERRCODE = 'XXSP1';
	END IF;
	RETURN 'ok';
EXCEPTION WHEN SQLSTATE 'XXSP1' THEN RETURN 'back';
	WHEN OTHERS THEN RETURN SQLSTATE;
END $$;
-- One in a subtransaction of the other's.
CREATE FUNCTION nested(a text, b text, job bigint, token uuid, keep boolean, keep_b boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM do_act(a, job, token), in_savepoint(b, job, token, keep_b);
	IF NOT keep THEN
		RAISE 'back' USING ERRCODE = 'XXSP1';
	END IF;
	RETURN 'ok';
EXCEPTION WHEN SQLSTATE 'XXSP1' THEN RETURN 'back';
END $$;

CREATE FUNCTION counters() RETURNS bigint[] LANGUAGE sql AS $$
	SELECT ARRAY[completed, failed, released, stalled, c.dead, cancelled, depth, d.dead]
	FROM event_queue_internal.queue_id_of('sp') q, event_queue_internal.queue_counters() c, event_queue_internal.queue_depth(q) d WHERE c.queue_id = q
$$;
-- All that can be seen of the job, of the others, of limits and counters.
CREATE FUNCTION digest(job bigint, before bigint[]) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' | ',
		(SELECT string_agg(concat_ws(',', name, state, failures, stalled, progress, leased_until > now() + '90 min', (SELECT j.cancel FROM event_queue.job j WHERE j.job_id = jobs.job_id)), '; ' ORDER BY name)
		 FROM event_queue.jobs WHERE queue = 'sp'),
		(SELECT string_agg(concat_ws(',', name, reason, failures), '; ' ORDER BY name) FROM event_queue.dead_letters WHERE queue = 'sp'),
		(SELECT string_agg((c - b)::text, ' ' ORDER BY n) FROM unnest(counters(), before) WITH ORDINALITY AS x (c, b, n)),
		(SELECT active FROM event_queue.queue_limits('sp')))
$$;

CREATE PROCEDURE reviewed() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 10000 LOOP
		EXIT WHEN NOT EXISTS (SELECT FROM event_queue_internal.job_review);
		PERFORM pg_sleep(0.002);
		COMMIT;
	END LOOP;
END $$;

CREATE PROCEDURE run(a text, b text, how text, INOUT result text) LANGUAGE plpgsql AS $$
DECLARE
	before bigint[];
	held record;
	got text;
BEGIN
	PERFORM event_queue.enqueue('sp', 'next', group_key => 'g') FROM event_queue.enqueue('sp', 'first', group_key => 'g');
	PERFORM event_queue.enqueue('sp', 'dependent', depends_on => (SELECT array_agg(j.job_id) FROM event_queue.job j WHERE j.name = 'first'));
	PERFORM event_queue.enqueue('sp', 'other');
	COMMIT;
	CALL reviewed();
	SELECT job_id, lease_token INTO held FROM event_queue.claim('sp', job_names => '{first}', lease => '1 hour');
	COMMIT;
	before := counters();
	CASE how
		WHEN 'none' THEN
		WHEN 'a' THEN PERFORM do_act(a, held.job_id, held.lease_token);
		WHEN 'a, b' THEN
			PERFORM do_act(a, held.job_id, held.lease_token);
			COMMIT;
			PERFORM in_savepoint(b, held.job_id, held.lease_token, true);
		WHEN 'a (b) back' THEN
			PERFORM do_act(a, held.job_id, held.lease_token);
			PERFORM in_savepoint(b, held.job_id, held.lease_token, false);
		WHEN 'a (b)' THEN
			PERFORM do_act(a, held.job_id, held.lease_token);
			PERFORM in_savepoint(b, held.job_id, held.lease_token, true);
		WHEN '(a) (b)' THEN
			PERFORM in_savepoint(a, held.job_id, held.lease_token, true);
			PERFORM in_savepoint(b, held.job_id, held.lease_token, true);
		WHEN '(b) back a' THEN
			PERFORM in_savepoint(b, held.job_id, held.lease_token, false);
			PERFORM do_act(a, held.job_id, held.lease_token);
		WHEN '(a (b)) back' THEN
			PERFORM nested(a, b, held.job_id, held.lease_token, false, true);
		WHEN '(a (b) back)' THEN
			PERFORM nested(a, b, held.job_id, held.lease_token, true, false);
	END CASE;
	COMMIT;
	CALL reviewed();
	result := digest(held.job_id, before);
	COMMIT;
	-- The place under max_concurrency, and the job itself, if it waits again.
	SELECT string_agg(c.name, ',') INTO got FROM event_queue.claim('sp', 10, job_names => '{other}') c,
		LATERAL event_queue.complete(c.job_id, c.lease_token);
	COMMIT;
	result := concat_ws(' | ', result, coalesce(got, 'full'));
	SELECT string_agg(c.name, ',') INTO got FROM event_queue.claim('sp', 10, job_names => '{first}') c,
		LATERAL event_queue.complete(c.job_id, c.lease_token);
	COMMIT;
	result := concat_ws(' | ', result, coalesce(got, '-'));
	DELETE FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('sp');
	PERFORM event_queue.discard_all_dead('sp');
	COMMIT;
END $$;

CREATE TABLE seen (a text, b text, how text, result text);
DO $$
DECLARE
	this record;
	result text;
BEGIN
	CALL run(NULL, NULL, 'none', result);
	INSERT INTO seen VALUES ('', '', 'none', result);
	FOR this IN SELECT a.name FROM act a ORDER BY 1 LOOP
		CALL run(this.name, NULL, 'a', result);
		INSERT INTO seen VALUES (this.name, '', 'a', result);
	END LOOP;
	FOR this IN SELECT a.name AS a, b.name AS b, how FROM act a, act b,
		unnest('{"a, b","a (b) back","a (b)","(a) (b)","(b) back a","(a (b)) back","(a (b) back)"}'::text[]) WITH ORDINALITY AS h (how, n)
		ORDER BY 1, 2, n LOOP
		CALL run(this.a, this.b, this.how, result);
		INSERT INTO seen VALUES (this.a, this.b, this.how, result);
	END LOOP;
END $$;
-- What each call by itself leaves (job, dead letter; completed, failed, released, stalled,
-- dead, cancelled, depth, dead letters; places taken; what can be claimed).
SELECT a, result FROM seen WHERE how IN ('none', 'a') ORDER BY a;
SELECT count(*) FROM seen;
-- The others differ from none of those.
SELECT s.a, s.b, s.how, s.result, e.result AS expected FROM seen s JOIN seen e
	ON e.how = CASE WHEN s.how IN ('a (b)', '(a) (b)') THEN 'a, b' WHEN s.how = '(a (b)) back' THEN 'none' ELSE 'a' END
	AND e.a = CASE WHEN s.how = '(a (b)) back' THEN '' ELSE s.a END AND e.b = CASE WHEN s.how IN ('a (b)', '(a) (b)') THEN s.b ELSE '' END
WHERE s.how NOT IN ('none', 'a', 'a, b') AND s.result <> e.result
ORDER BY 1, 2, 3;
SELECT event_queue.drop_queue('sp', true);
DROP TABLE seen, act;
DROP PROCEDURE run, reviewed;
DROP FUNCTION complete_them, do_act, in_savepoint, nested, counters, digest;
