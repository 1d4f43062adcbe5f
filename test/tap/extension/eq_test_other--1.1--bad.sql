CREATE TABLE other_bad (a int);
ALTER FUNCTION event_queue.pause_queue SECURITY INVOKER;
