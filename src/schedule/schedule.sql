CREATE TABLE schedule (schedule_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, queue_id int);
CREATE FUNCTION run_due_schedules() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
