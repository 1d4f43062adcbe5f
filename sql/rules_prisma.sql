-- What clients that don't know every type get: no interval in the result of a
-- function (Prisma fails at it, when the jobs are leased), but milliseconds.
SELECT p.proname, a.attname FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
WHERE p.pronamespace = 'event_queue'::regnamespace AND p.proretset AND a.atttypid = 'interval'::regtype;
SELECT event_queue.create_queue('prisma') > 0 AS made;
SELECT event_queue.enqueue('prisma', 'limited', options => '{"time_limit": "1.5 s"}') > 0, event_queue.enqueue('prisma', 'short', options => '{"time_limit": "1 us"}') > 0,
	event_queue.enqueue('prisma', 'long', options => '{"time_limit": "7 days"}') > 0, event_queue.enqueue('prisma', 'free') > 0;
SELECT name, time_limit_ms, leased_until - clock_timestamp() < '2 s' AS soon FROM event_queue.claim('prisma', 10) ORDER BY name;
SELECT event_queue.drop_queue('prisma', force => true);
