-- Subscriptions: fetch, ack, groups, parking.
SELECT event_queue_internal.last_position() AS start \gset
SELECT count(event_queue.append('lead', 's' || n % 3, CASE WHEN n % 2 = 0 THEN 'lead.moved' ELSE 'lead.noted' END,
	jsonb_build_object('n', n))) FROM generate_series(1, 12) n;
CREATE FUNCTION n_of(e event_queue.event_store) RETURNS int LANGUAGE sql AS $$ SELECT (e.event_data ->> 'n')::int $$;
SELECT event_queue.create_subscription('mail', '{"event_type": "lead.moved"}', :start) IS NOT NULL;
SELECT n_of(e) FROM event_queue.fetch_events('mail', 3) e;
SELECT n_of(e) FROM event_queue.fetch_events('mail', 3) e;	-- not acknowledged: again
SELECT event_queue.ack('mail', max(position)) FROM event_queue.fetch_events('mail', 3);
SELECT n_of(e) FROM event_queue.fetch_events('mail') e;
SELECT name, members, lag_events, lag_seconds > 0 AS lags, parked FROM event_queue.subscription_status;
-- The checkpoint is the consumer's transaction's: it goes back with it.
BEGIN;
SELECT event_queue.ack('mail', event_queue.watermark());
SELECT count(*) FROM event_queue.fetch_events('mail');
ROLLBACK;
SELECT count(*) FROM event_queue.fetch_events('mail');
SELECT event_queue.ack('mail', event_queue.watermark());
SELECT event_queue.ack('mail', 1); -- below the checkpoint: nothing happens
SELECT count(*) FROM event_queue.fetch_events('mail');
SELECT lag_events, lag_seconds FROM event_queue.subscription_status;
SELECT event_queue.reset_subscription('mail', :start);
SELECT count(*) FROM event_queue.fetch_events('mail');
SELECT try(format('SELECT event_queue.ack(''mail'', %s)', event_queue.watermark() + 1)) LIKE 'EQ029: position % was not fetched%';

-- A poison event: its aggregate waits, the others go on.
SELECT n_of(e), aggregate_id FROM event_queue.fetch_events('mail') e;
SELECT event_queue.park_event('mail', (SELECT position FROM event_queue.fetch_events('mail') e WHERE n_of(e) = 4), 'no address');
SELECT n_of(e), aggregate_id FROM event_queue.fetch_events('mail') e;	-- s1 (4, 10) is missing
SELECT event_queue.ack('mail', max(position)) FROM event_queue.fetch_events('mail');
SELECT aggregate_id, error, retry FROM event_queue_internal.subscription_parked;
SELECT version FROM event_queue.append('lead', 's1', 'lead.moved', '{"n": 13}');
SELECT version FROM event_queue.append('lead', 's2', 'lead.moved', '{"n": 14}');
SELECT n_of(e) FROM event_queue.fetch_events('mail') e;
SELECT count(*) FROM event_queue.fetch_parked('mail');	-- not before someone says so
SELECT event_queue.retry_parked('mail');
SELECT n_of(e) FROM event_queue.fetch_parked('mail') e;
SELECT event_queue.ack_parked('mail', (SELECT min(position) FROM event_queue.fetch_parked('mail')));
SELECT n_of(e) FROM event_queue.fetch_parked('mail') e;
SELECT event_queue.ack_parked('mail', (SELECT max(position) FROM event_queue.fetch_parked('mail')));
-- 13 was passed over while the aggregate was parked, by a fetch that is not acknowledged yet.
SELECT n_of(e) FROM event_queue.fetch_events('mail') e;
SELECT event_queue.ack('mail', max(position)) FROM event_queue.fetch_events('mail');
SELECT n_of(e) FROM event_queue.fetch_parked('mail') e;
SELECT event_queue.ack_parked('mail', (SELECT max(position) FROM event_queue.fetch_parked('mail')));
SELECT version FROM event_queue.append('lead', 's1', 'lead.moved', '{"n": 15}');
SELECT n_of(e) FROM event_queue.fetch_events('mail') e;
SELECT count(*) FROM event_queue_internal.subscription_parked;
SELECT event_queue.ack('mail', max(position)) FROM event_queue.fetch_events('mail');
-- An aggregate that is given up.
SELECT version FROM event_queue.append('lead', 's1', 'lead.moved', '{"n": 16}');
SELECT event_queue.park_event('mail', (SELECT max(position) FROM event_queue.fetch_events('mail')), 'never');
SELECT event_queue.discard_parked('mail', 'lead', 's1'), event_queue.discard_parked('mail', 'lead', 's0');
SELECT version FROM event_queue.append('lead', 's1', 'lead.moved', '{"n": 17}');
SELECT n_of(e) FROM event_queue.fetch_events('mail') e;
SELECT try('SELECT event_queue.ack_parked(''mail'', ' || (SELECT max(position) FROM event_queue.event_store) || ')') LIKE 'EQ025%',
	try($$SELECT event_queue.park_event('mail', -5)$$);

-- A group of one member has all buckets.
SELECT event_queue.create_subscription('group', NULL, :start, buckets => 8) IS NOT NULL;
SELECT count(*), count(DISTINCT aggregate_id) FROM event_queue.fetch_events('group');
SELECT buckets FROM event_queue_internal.subscription_members() WHERE pid = pg_backend_pid();
SELECT event_queue.ack('group', max(position)) FROM event_queue.fetch_events('group', 5);
SELECT n_of(e) FROM event_queue.fetch_events('group', 2) e;
SELECT event_queue.leave_subscription('group');
SELECT count(*) FROM event_queue_internal.subscription_members() WHERE pid = pg_backend_pid();
SELECT try(format('SELECT event_queue.ack(''group'', %s)', :start + 1)) LIKE 'EQ029%';

-- From now on; names, filters, buckets.
SELECT event_queue.create_subscription('late', from_position => NULL) IS NOT NULL;
SELECT count(*) FROM event_queue.fetch_events('late');
SELECT try(format('SELECT event_queue.%s', c)) FROM (VALUES ('create_subscription(''mail'')'), ('create_subscription('''')'),
	('create_subscription(''x'', ''{"a": 1}'')'), ('create_subscription(''x'', buckets => 65)'), ('create_subscription(''x'', from_position => -1)'),
	('fetch_events(''x'')'), ('ack(''x'', 1)'), ('fetch_events(''mail'', 0)'), ('drop_subscription(''x'')'), ('reset_subscription(''mail'', -1)')) x (c);

-- A tenant's subscription is that tenant's.
SELECT event_queue.create_subscription('theirs', NULL, :start, tenant_id => 'acme') IS NOT NULL;
SELECT version FROM event_queue.append('lead', 's1', 'lead.moved', '{"n": 99}', tenant_id => 'acme');
SELECT n_of(e) FROM event_queue.fetch_events('theirs') e;
SET event_queue.tenant = 'acme';
SELECT n_of(e) FROM event_queue.fetch_events('theirs') e;
SELECT try($$SELECT event_queue.fetch_events('mail')$$), try($$SELECT event_queue.drop_subscription('mail')$$);
SELECT event_queue.create_subscription('mine') IS NOT NULL;
SET event_queue.tenant = 'other';
SELECT try($$SELECT event_queue.fetch_events('mine')$$), try($$SELECT event_queue.ack('theirs', 1)$$);
RESET event_queue.tenant;
SELECT event_queue.drop_subscription(name) FROM event_queue.subscription;
SELECT count(*) FROM event_queue_internal.subscription_bucket;
