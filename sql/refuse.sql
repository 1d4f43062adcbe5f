-- What our writes would pass by is refused when it is made.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE FUNCTION refuse_fn() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE OR REPLACE FUNCTION refuse_try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	hint text;
BEGIN
	EXECUTE sql;
	RETURN 'allowed';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(': ', SQLSTATE, message, nullif(hint, ''));
END
$$;
CREATE TABLE refuse_mine (id bigint PRIMARY KEY, job_id bigint);
SELECT s AS statement, refuse_try(s) AS result FROM unnest(ARRAY[
	'CREATE TRIGGER t AFTER INSERT ON event_queue.job FOR EACH ROW EXECUTE FUNCTION refuse_fn()',
	'CREATE TRIGGER t BEFORE INSERT ON event_queue.event_store FOR EACH ROW EXECUTE FUNCTION refuse_fn()',
	'CREATE TRIGGER t AFTER INSERT ON event_queue.job_history_forever FOR EACH ROW EXECUTE FUNCTION refuse_fn()',
	$$SELECT event_queue.notify_on('event_queue.job', 'c')$$,
	'CREATE RULE r AS ON INSERT TO event_queue.dead_letter DO ALSO NOTIFY x',
	'ALTER TABLE event_queue.job ADD COLUMN c int NOT NULL',
	'ALTER TABLE event_queue.job ADD COLUMN c int DEFAULT 9',
	$$ALTER TABLE event_queue.job ADD CONSTRAINT ck CHECK (name <> 'forbidden')$$,
	'ALTER TABLE event_queue.job ALTER payload SET NOT NULL',
	'ALTER TABLE event_queue.job ALTER priority SET DEFAULT 3',
	'ALTER TABLE event_queue.event_store ADD FOREIGN KEY (position) REFERENCES refuse_mine',
	'ALTER TABLE refuse_mine ADD FOREIGN KEY (job_id) REFERENCES event_queue.job',
	'CREATE TABLE refuse_other (job_id bigint REFERENCES event_queue.job)',
	'CREATE TABLE refuse_other (p bigint, FOREIGN KEY (p) REFERENCES event_queue.event_store)',
	-- what holds is allowed
	'ALTER TABLE event_queue.job ADD COLUMN c int',
	'CREATE INDEX refuse_index ON event_queue.job (c)',
	'CREATE TRIGGER t AFTER INSERT ON event_queue_internal.channel FOR EACH ROW EXECUTE FUNCTION refuse_fn()',
	'CREATE TABLE refuse_other (id bigint REFERENCES refuse_mine, n int NOT NULL DEFAULT 1 CHECK (n > 0))']) s;
DROP TRIGGER t ON event_queue_internal.channel;
ALTER TABLE event_queue.job DROP COLUMN c;
DROP TABLE refuse_other, refuse_mine;
DROP FUNCTION refuse_fn, refuse_try;
