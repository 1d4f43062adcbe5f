CREATE TABLE other_log (what text);
CREATE FUNCTION other_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.other_log VALUES (TG_OP || ' ' || NEW.name);
	RETURN NULL;
END
$$;
CREATE FUNCTION other_upper(name text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT pg_catalog.upper($1)';
CREATE DOMAIN other_domain AS int;
CREATE TRIGGER other_note AFTER INSERT OR UPDATE ON event_queue.queue FOR EACH ROW EXECUTE FUNCTION other_note();
CREATE INDEX other_job_name ON event_queue.job (other_upper(name));
CREATE INDEX other_event_data ON event_queue.event_store ((event_data ->> 'other'));
CREATE POLICY other_policy ON event_queue.queue FOR SELECT USING (true);
ALTER TABLE event_queue.job ADD COLUMN other_column other_domain;
ALTER TABLE event_queue.queue ADD CONSTRAINT other_check CHECK (name <> 'forbidden');
CREATE TABLE other_queue (name text REFERENCES event_queue.queue (name));
CREATE VIEW other_jobs AS SELECT * FROM event_queue.jobs;
CREATE FUNCTION other_work(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS $$INSERT INTO public.other_log VALUES ('worked')$$;
SELECT event_queue.create_queue('other');
SELECT event_queue.create_handler('other', '*', 'public.other_work');
SELECT event_queue.enqueue('other', 'x');
