-- Unique keys: reject, replace, debounce, throttle; until claimed.
SELECT event_queue.create_queue('unique2') > 0 AS created;
SELECT event_queue.enqueue('unique2', 'u', '{"n": 1}', unique_key => 'k') AS first \gset
SELECT event_queue.enqueue('unique2', 'u', '{"n": 2}', unique_key => 'k') = :first AS rejected;
SELECT event_queue.enqueue('unique2', 'u', '{"n": 3}', unique_key => 'k', priority => 2, options => '{"unique_mode": "replace"}') = :first AS replaced;
SELECT payload, priority, state FROM event_queue.jobs WHERE job_id = :first;
SELECT event_queue.enqueue('unique2', 'u', '{"n": 4}', delay => '1 hour', unique_key => 'k', options => '{"unique_mode": "debounce"}') = :first AS pushed_back;
SELECT payload, state FROM event_queue.jobs WHERE job_id = :first;
SELECT event_queue.enqueue('unique2', 'w', unique_key => 'w', options => '{"unique_until": "claimed"}') AS waiting \gset
SELECT event_queue.enqueue('unique2', 'w', unique_key => 'w') = :waiting AS same;
SELECT name FROM event_queue.claim('unique2');
SELECT event_queue.enqueue('unique2', 'w', unique_key => 'w') = :waiting AS same;
SELECT event_queue.enqueue('unique2', 't', unique_key => 't', options => '{"unique_mode": "throttle", "unique_window": "1 hour"}') AS t \gset
SELECT count(*) >= 1 AS finished FROM finish('unique2', 10);
SELECT event_queue.enqueue('unique2', 't', unique_key => 't', options => '{"unique_mode": "throttle", "unique_window": "1 hour"}') = :t AS throttled;
SELECT try($$SELECT event_queue.enqueue('unique2', 'x', unique_key => 'k', options => '{"unique_mode": "throttle"}')$$),
	try($$SELECT event_queue.enqueue('unique2', 'x', options => '{"unique_mode": "replace"}')$$),
	try($$SELECT event_queue.enqueue('unique2', 'x', unique_key => 'k', options => '{"unique_mode": "perhaps"}')$$);
SELECT event_queue.drop_queue('unique2', force => true);
