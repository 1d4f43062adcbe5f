DROP TRIGGER other_note ON event_queue.queue;
DROP INDEX event_queue.other_job_name;
CREATE INDEX other_job_name ON event_queue.job (other_upper(name), queue_id);
DROP POLICY other_policy ON event_queue.queue;
ALTER TABLE event_queue.job DROP COLUMN other_column;
ALTER TABLE event_queue.job ADD COLUMN other_column other_domain;
ALTER TABLE event_queue.queue DROP CONSTRAINT other_check;
