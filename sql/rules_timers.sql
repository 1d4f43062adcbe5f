-- Timers whose start or end comes late: tried again, caught up, backfilled.
SET client_min_messages = warning;
CREATE SCHEMA tm;
SELECT event_queue.create_queue('tm') > 0 AS created;
-- conditions that fail until they are told to work
CREATE TABLE tm.works (what text PRIMARY KEY);
CREATE FUNCTION tm.check_works(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM tm.works w WHERE w.what = check_works.what) THEN
		RAISE EXCEPTION '% does not work', what;
	END IF;
	RETURN true;
END $$;
INSERT INTO tm.works VALUES ('start'), ('end');
SELECT event_queue.create_rule('tm start', 'tm.asked', $$tm.check_works('start')$$, actions => '[{"enqueue": {"queue": "tm", "name": "remind",
	"payload": {"n": "$.data.n"}, "delay": "2 days", "unique_key": "tm {{aggregate_id}}", "unique_mode": "replace"}}]') > 0 AS created;
SELECT event_queue.create_rule('tm plain', 'tm.asked', $$tm.check_works('start')$$, queue => 'tm', job_name => 'plain', payload => '{"n": "$.data.n"}',
	options => '{"delay": "2 days", "unique_key": "$.aggregate_id"}') > 0 AS created;
SELECT event_queue.create_rule('tm end', 'tm.answered', $$tm.check_works('end')$$, actions => '[{"cancel": {"queue": "tm", "unique_key": "tm {{aggregate_id}}"}},
	{"cancel": {"queue": "tm", "unique_key": "{{aggregate_id}}"}}]') > 0 AS created;
CREATE VIEW tm.open AS SELECT unique_key, payload -> 'n' AS n FROM event_queue.job WHERE queue_id = event_queue_internal.queue_id_of('tm');
-- all events have met the rules, and nothing is tried again
CREATE PROCEDURE tm.settled() LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_until($c$(SELECT position FROM event_queue_internal.rule_checkpoint) >= (SELECT max(position) FROM event_queue.event_store)
		AND NOT EXISTS (SELECT FROM event_queue.rule_stats WHERE rule LIKE 'tm %' AND state = 'catching up')
		AND NOT EXISTS (SELECT FROM event_queue.job WHERE queue_id = 1 AND metadata ->> 'rule' LIKE 'tm %')$c$);
END $$;
-- in order, as it always was
SELECT count(event_queue.append('tm', a, 'tm.asked', '{"n": 1}')) FROM unnest('{A,B}'::text[]) a;
SELECT count(event_queue.append('tm', 'A', 'tm.answered'));
CALL tm.settled();
SELECT * FROM tm.open ORDER BY 1;

-- The start is tried again, after its end: it starts nothing.  What was not answered starts.
DELETE FROM tm.works WHERE what = 'start';
SELECT count(event_queue.append('tm', a, 'tm.asked', '{"n": 2}')) FROM unnest('{C,D}'::text[]) a;
CALL wait_until($$(SELECT count(*) FROM event_queue.job WHERE queue_id = 1 AND metadata ->> 'rule' LIKE 'tm %') = 4$$);
SELECT count(event_queue.append('tm', 'C', 'tm.answered'));
CALL wait_until($$EXISTS (SELECT FROM event_queue_internal.timer_end WHERE unique_key = 'tm C')$$);
INSERT INTO tm.works VALUES ('start');
CALL tm.settled();
SELECT * FROM tm.open ORDER BY 1;
-- asked again, later than that: it starts
SELECT count(event_queue.append('tm', 'C', 'tm.asked', '{"n": 3}'));
CALL tm.settled();
SELECT * FROM tm.open WHERE unique_key ~ 'C' ORDER BY 1;

-- A rule that catches up.
SELECT event_queue.pause_rule('tm start'), event_queue.pause_rule('tm plain');
SELECT count(event_queue.append('tm', a, 'tm.asked', '{"n": 4}')) FROM unnest('{E,F}'::text[]) a;
SELECT count(event_queue.append('tm', 'E', 'tm.answered'));
CALL wait_until($$EXISTS (SELECT FROM event_queue_internal.timer_end WHERE unique_key = 'tm E')$$);
SELECT event_queue.resume_rule('tm start', resume => 'catch_up'), event_queue.resume_rule('tm plain', resume => 'catch_up');
CALL tm.settled();
SELECT * FROM tm.open WHERE unique_key ~ '[EF]' ORDER BY 1;

-- A backfill: of the events that are there, only those that were not answered.
SELECT event_queue.create_rule('tm third', 'tm.asked', queue => 'tm', job_name => 'third', payload => '{"n": "$.data.n"}',
	options => '{"delay": "2 days", "unique_key": "tm {{aggregate_id}}", "unique_mode": "replace"}') > 0 AS created;
SELECT event_queue.backfill_rule('tm third') > 0 AS begun;
CALL wait_until($$(SELECT bool_and(state = 'done') FROM event_queue.rule_backfills WHERE rule = 'tm third')$$);
SELECT o.unique_key FROM tm.open o JOIN event_queue.job j USING (unique_key) WHERE j.name = 'third' OR o.unique_key LIKE 'tm %' ORDER BY 1;
SELECT event_queue.drop_rule('tm third');

-- The end comes late: it leaves alone what was started after it.
DELETE FROM tm.works WHERE what = 'end';
SELECT count(event_queue.append('tm', a, 'tm.asked', '{"n": 5}')) FROM unnest('{G,H}'::text[]) a;
SELECT count(event_queue.append('tm', a, 'tm.answered')) FROM unnest('{G,H}'::text[]) a;
CALL wait_until($$(SELECT count(*) FROM event_queue.job WHERE queue_id = 1 AND metadata ->> 'rule' = 'tm end') = 2$$);
SELECT count(event_queue.append('tm', 'G', 'tm.asked', '{"n": 6}'));
CALL wait_until($$EXISTS (SELECT FROM tm.open WHERE unique_key = 'tm G' AND n = '6')$$);
INSERT INTO tm.works VALUES ('end');
CALL tm.settled();
-- (plain G: its second start met the job of the first question, and was refused; the end came late, and let it be done after all.)
SELECT * FROM tm.open WHERE unique_key ~ '[GH]' ORDER BY 1;
-- and once only; a second start that nothing came before stays refused
SELECT count(*) FROM event_queue_internal.timer_start WHERE unique_key = 'G';
SELECT count(event_queue.append('tm', 'J', 'tm.asked', jsonb_build_object('n', n))) FROM generate_series(7, 8) n;
CALL tm.settled();
SELECT * FROM tm.open WHERE unique_key = 'J';
-- an end that comes in its turn ends both
SELECT count(event_queue.append('tm', 'J', 'tm.answered'));
CALL tm.settled();
SELECT count(*) FROM tm.open WHERE unique_key = 'J';
SELECT count(*) FROM event_queue_internal.timer_start WHERE unique_key = 'J';
-- The first timer has come to its time before the end that was to stop it (K): the second start is done all the
-- same, as it would have been.  So is one that the rule would do otherwise by now (N), unless it would not any more (O).
-- What stood in the way was later than the end (L), or was stopped by hand (M): nothing starts again.
DELETE FROM tm.works WHERE what = 'end';
SELECT count(event_queue.append('tm', a, 'tm.asked', '{"n": 1}')) FROM unnest('{K,L,M,N,O}'::text[]) a;
SELECT count(event_queue.append('tm', a, 'tm.answered')) FROM unnest('{K,L,M,N,O}'::text[]) a;
CALL wait_until($$(SELECT count(*) FROM event_queue.job WHERE queue_id = 1 AND metadata ->> 'rule' = 'tm end') = 5$$);
UPDATE event_queue.job SET run_at = now() WHERE unique_key = 'L';
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('tm', 10);
SELECT count(event_queue.append('tm', a, 'tm.asked', '{"n": 2}')) FROM unnest('{K,L,M,N,O}'::text[]) a;
SELECT count(event_queue.append('tm', 'L', 'tm.asked', '{"n": 3}'));
CALL wait_until($$(SELECT count(*) FROM event_queue_internal.timer_start WHERE unique_key IN ('K', 'L', 'M', 'N', 'O')) = 5$$);
UPDATE event_queue.job SET run_at = now() WHERE unique_key IN ('K', 'L');
SELECT count(event_queue.complete(job_id, lease_token)) FROM event_queue.claim('tm', 10);
SELECT event_queue.cancel_jobs('tm', unique_key => 'M');
SELECT event_queue.create_rule('tm plain', 'tm.asked', $$tm.check_works('start') AND aggregate_id <> 'O'$$, actions => '[
	{"enqueue": {"queue": "tm", "name": "other", "delay": "1 day", "unique_key": "other {{aggregate_id}}"}},
	{"enqueue": {"queue": "tm", "name": "plain", "payload": {"n": "and {{data.n}}"}, "delay": "2 days", "unique_key": "{{aggregate_id}}"}}]', or_replace => true) > 0 AS replaced;
INSERT INTO tm.works VALUES ('end');
CALL tm.settled();
SELECT * FROM tm.open WHERE unique_key ~ '^(other )?[KLMNO]$' ORDER BY 1;
SELECT unique_key FROM event_queue_internal.timer_start WHERE unique_key IN ('K', 'L', 'M', 'N', 'O');

-- Refused starts are noted only where a rule, as it is, was, or would be by a draft, ends timers of the queue.
SELECT event_queue.create_queue('tm free') > 0 AS created;
SELECT event_queue.create_rule('tm free', 'tm.free', queue => 'tm free', job_name => 'free',
	options => '{"delay": "2 days", "unique_key": "$.aggregate_id"}') > 0 AS created;
SELECT count(event_queue.append('tm', 'P', 'tm.free')) FROM generate_series(1, 2);
CALL tm.settled();
SELECT count(*) AS open, (SELECT count(*) FROM event_queue_internal.timer_start WHERE unique_key = 'P') AS noted FROM event_queue.job WHERE unique_key = 'P';
SELECT event_queue.create_rule('tm free', 'tm.free', actions => '[{"cancel": {"queue": "tm free", "unique_key": "x"}}]', draft => true) > 0 AS drafted;
SELECT event_queue.pause_rule('tm free'), event_queue.resume_rule('tm free', resume => 'catch_up');
SELECT count(event_queue.append('tm', 'P', 'tm.free'));
CALL tm.settled();
SELECT count(*) AS noted FROM event_queue_internal.timer_start WHERE unique_key = 'P';
SELECT event_queue.purge_queue('tm free');
SELECT count(*) AS noted FROM event_queue_internal.timer_start WHERE unique_key = 'P';
SELECT event_queue.drop_rule('tm free'), event_queue.drop_queue('tm free');

-- what no rule has started is stopped whenever it is
SELECT event_queue.enqueue('tm', 'own', delay => '1 day', unique_key => 'tm I', options => '{"metadata": {"event_position": 4611686018427387904}}') > 0 AS enqueued;
SELECT count(event_queue.append('tm', 'I', 'tm.answered'));
CALL tm.settled();
SELECT count(*) FROM tm.open WHERE unique_key = 'tm I';
-- whatever number stands in the metadata of the job that is in a start's way
SELECT event_queue.enqueue('tm', 'own', delay => '1 day', unique_key => 'J', options => '{"metadata": {"rule": "own", "event_position": -1e30}}') > 0 AS enqueued;
SELECT count(event_queue.append('tm', 'J', 'tm.asked'));
CALL tm.settled();
SELECT opened FROM event_queue_internal.timer_start WHERE unique_key = 'J';

-- Ends are remembered as long as firings; a dropped queue has none.
SELECT count(*) > 0 AS remembered, bool_and(position > 0) AS positions FROM event_queue_internal.timer_end;
UPDATE event_queue_internal.timer_end SET at = now() - interval '8 days' WHERE unique_key = 'tm A';
SELECT event_queue_internal.trim_rule_runs();
SELECT count(*) FROM event_queue_internal.timer_end WHERE unique_key = 'tm A';
SELECT event_queue.drop_rule('tm start'), event_queue.drop_rule('tm plain'), event_queue.drop_rule('tm end');
SELECT event_queue.drop_queue('tm', force => true);
SELECT count(*) FROM event_queue_internal.timer_end t WHERE NOT EXISTS (SELECT FROM event_queue.queue q WHERE q.queue_id = t.queue_id);
