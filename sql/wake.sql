-- Triggers for users' own tables.
CREATE TABLE customer (customer_id text PRIMARY KEY, company text, name text);
SELECT event_queue.record_changes('customer', 'customer', 'customer_id', 'company');
INSERT INTO customer VALUES ('c1', 'acme', 'Ana');
UPDATE customer SET name = 'Bia';
UPDATE customer SET name = 'Bia'; -- changes nothing: no event
DELETE FROM customer;
SELECT tenant_id, version, event_type, event_data, metadata FROM event_queue.read_aggregate('customer', 'c1', tenant_id => 'acme');
SELECT try($$SELECT event_queue.record_changes('customer', 'customer', 'customer_id')$$);
SELECT try($$SELECT event_queue.record_changes('customer', 'customer', 'none')$$);
SELECT try($$SELECT event_queue.record_changes('customer', '', 'customer_id')$$);

-- notify_on: the worker sends the NOTIFY after commit (test/tap shows it arrive).
SELECT event_queue.notify_on('customer', 'customers');
SELECT try($$SELECT event_queue.notify_on('customer', repeat('x', 64))$$);
SELECT name FROM event_queue_internal.channel;
DROP TABLE customer;
