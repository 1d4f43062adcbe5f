-- Templates reach into nested objects and arrays, and into text.
SELECT jsonb_pretty(event_queue.map_payload($${
	"lead": "$.aggregate_id", "sku": "$.data.items[0].sku", "text": "Lead {{data.name}} of {{aggregate_id}}, {{ data.items.1.sku }}",
	"deep": {"list": ["$.version", "v{{version}}", 7, {"$.x": "$.data.items[1]"}], "none": {}, "empty": []},
	"types": "{{version}} {{data.yes}} {{data.items}} {{data.items.0}}", "{{name}}": true}$$,
	'{"aggregate_id": "L1", "version": 3, "data": {"name": "Ann", "yes": true, "items": [{"sku": "A"}, {"sku": "B"}]}}')) AS filled;
-- What is not there is null, and in a text nothing.
SELECT event_queue.map_payload('{"path": "$.data.a.b", "text": "<{{data.a.b}}{{data.items.2}}{{data.items.x}}{{data.name.0}}{{data.null}}{{metadata.a}}>", "whole": "{{data.a}}"}',
	'{"data": {"name": "Ann", "null": null, "items": [1, 2]}}') AS filled;
SELECT event_queue.map_payload('{"a": "$.data", "b": "<{{data}}>"}', NULL) AS no_event, event_queue.map_payload(NULL, '{"a": 1}') AS no_template,
	event_queue.map_payload(NULL, NULL) IS NULL AS none, event_queue.map_payload('{}', '{"a": 1}') AS empty;
-- Names of digits are members of objects, and numbers in arrays; braces are written twice.
SELECT event_queue.map_payload('{"a": "{{data.0}}/{{data.list.00}}/{{data.list.99999999999}}", "b": "{{{{data}} } {x} }} {", "c": "{{{{{{data.0}}}}"}', '{"data": {"0": "zero", "list": ["first"]}}') AS filled;
-- What comes from the event is not read again: not as a template, not as a path, not as SQL.
SELECT event_queue.map_payload('{"a": "$.data.x", "b": "{{data.x}}", "c": "{{data.y}}", "d": "{{data.z}}"}',
	$${"aggregate_id": "secret", "data": {"x": "{{aggregate_id}}", "y": "$.aggregate_id", "z": "'); DROP TABLE x; --"}}$$) AS filled;

-- A bad template is refused when the rule is made.
SELECT event_queue.create_queue('templates') IS NOT NULL AS created;
SELECT template, try(format($$SELECT event_queue.create_rule('tp bad', 'tp.*', queue => 'templates', job_name => 'x', payload => %L)$$, template)) AS refused
FROM unnest(ARRAY['{"a": "Lead {{data.name"}', '{"a": "{{}}"}', '{"a": "{{ }}"}', '{"a": "{{data..x}}"}', '{"a": "{{.data}}"}', '{"a": "{{data.}}"}',
	'{"a": "{{aggregateId}}"}', '{"a": "{{datax}}"}', '{"a": {"b": ["{{x}}"]}}', '{"a": {"b": ["$.data["]}}', '["{{data}}"]', '{"a": "{{$.data}}"}', '{"a": "{{data.x} }"}']) template;
SELECT try($$SELECT event_queue.create_rule('tp bad', 'tp.*', queue => 'templates', job_name => 'x', options => '{"unique_key": "lead {{id"}')$$),
	try($$SELECT event_queue.map_payload('[1]', '{}')$$), try($$SELECT event_queue.map_payload('{"a": "{{x}}"}', '{}')$$);
SELECT count(*) FROM event_queue.rules WHERE name LIKE 'tp%';

-- By the rule runner; options, too.
SELECT event_queue.create_rule('tp', 'tp.*', queue => 'templates', job_name => 'x', options => '{"unique_key": "lead {{aggregate_id}}/{{data.n}}", "group_key": "{{tenant_id}}"}',
	payload => '{"title": "Lead {{data.name}} of {{aggregate_id}}", "skus": ["$.data.items[0].sku", "{{data.items.1.sku}}"]}') IS NOT NULL AS created;
SELECT version FROM event_queue.append('tp', 'TP1', 'tp.a', '{"name": "{{id}}", "n": 1, "items": [{"sku": "A"}, {"sku": "B"}]}');
SELECT version FROM event_queue.append('tp', 'TP2', 'tp.a', '{"name": null}');
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.jobs WHERE queue = 'templates')$$);
SELECT j.payload, j.unique_key, j.group_key FROM event_queue.job j WHERE queue_id = event_queue_internal.queue_id_of('templates') ORDER BY j.unique_key;
SELECT payload FROM event_queue.test_rule('tp') ORDER BY position;
SELECT event_queue.drop_rule('tp');
