-- Owners of rules, handlers and reducers are kept by OID: a rename changes nothing,
-- and what belongs to a role that is gone, shut out, or a tenant's, is out of service.
CREATE ROLE eq_owner;
SELECT event_queue.grant_admin('eq_owner');
CREATE TABLE owned (by name, what text);
GRANT INSERT, SELECT ON owned TO PUBLIC;
GRANT EXECUTE ON FUNCTION try TO PUBLIC;
CREATE FUNCTION owned_handler(job event_queue.claimed_job) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.owned VALUES (current_user, job.name) $$;
CREATE FUNCTION owned_function(event event_queue.event_store) RETURNS void LANGUAGE sql AS
	$$ INSERT INTO public.owned VALUES (current_user, event.event_type) $$;
CREATE FUNCTION owned_reducer(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	$$ SELECT state || '{"reduced": true}' $$;
SET ROLE eq_owner;
SELECT event_queue.create_queue('owned', max_attempts => 1) > 0 AND
	event_queue.create_handler('owned', '*', 'owned_handler') > 0 AND
	event_queue.create_rule('owned call', 'owned.call', function => 'owned_function') > 0 AND
	event_queue.create_rule('owned condition', 'owned.condition', condition => 'aggregate_id = ''1''', queue => 'owned', job_name => 'by rule') > 0
	AS made;
SELECT event_queue.create_reducer('owned', 'owned_reducer');
RESET ROLE;
-- what other tests' rules have left to be retried
SELECT event_queue.purge_queue('rule-calls') >= 0 AS purged;
SELECT event_queue.alter_queue('rule-calls', backoff_delay => '10 ms');

-- renamed
ALTER ROLE eq_owner RENAME TO eq_renamed;
CREATE ROLE eq_owner;	-- who gets the old name gets nothing
SELECT name, owner FROM event_queue.rules WHERE name LIKE 'owned%' ORDER BY 1;
SELECT owner FROM event_queue.handlers WHERE queue = 'owned';
SELECT event_queue.enqueue('owned', 'plain') > 0 AS enqueued;
SELECT version FROM event_queue.append('owned', '1', 'owned.call');
SELECT version FROM event_queue.append('owned', '1', 'owned.condition');
CALL wait_until('(SELECT count(*) = 3 FROM owned)');
SELECT * FROM owned ORDER BY what;
SELECT event_queue.aggregate_state('owned', '1');

-- all of its grants revoked
SELECT event_queue.revoke_access('eq_renamed');
SELECT event_queue.enqueue('owned', 'plain') > 0 AS enqueued;
SELECT version FROM event_queue.append('owned', '1', 'owned.call');
-- a fault of the deployment: jobs wait and keep their attempts
CALL wait_until($$(SELECT count(*) = 2 FROM event_queue.faults() WHERE what IN ('handler', 'rule function'))$$);
SELECT what, regexp_replace(item, '\d+', 'n'), sqlstate, message FROM event_queue.faults() WHERE what IN ('handler', 'rule function') ORDER BY 1;
SELECT queue, name, failures FROM event_queue.jobs WHERE queue IN ('owned', 'rule-calls') ORDER BY 1;
SELECT event_queue.purge_queue('owned'), event_queue.purge_queue('rule-calls');
SELECT try($$SELECT event_queue.aggregate_state('owned', '1')$$);

-- bound to a tenant: an admin is not bound, and who is bound owns nothing that runs for all
SELECT event_queue.grant_producer('eq_renamed', 'owners');
SELECT try($$SELECT event_queue.grant_admin('eq_renamed')$$);
SELECT event_queue.enqueue('owned', 'plain', tenant_id => 'owners') > 0 AS enqueued;
CALL wait_until($$EXISTS (SELECT FROM event_queue.faults() WHERE what = 'handler' AND message ~ 'bound')$$);
SELECT message FROM event_queue.faults() WHERE what = 'handler';
SELECT event_queue.purge_queue('owned');
SELECT try($$SELECT event_queue.aggregate_state('owned', '1')$$);
SELECT event_queue.grant_admin('eq_owner');
SELECT try($$SELECT event_queue.grant_worker('eq_owner', 'owners')$$);

-- dropped
SELECT event_queue.revoke_access('eq_renamed'), event_queue.revoke_access('eq_owner');
SELECT 'eq_renamed'::regrole::oid AS owner \gset
DROP ROLE eq_renamed, eq_owner;
SELECT event_queue.enqueue('owned', 'plain') > 0 AS enqueued;
SELECT version FROM event_queue.append('owned', '1', 'owned.condition');
SELECT version FROM event_queue.append('owned', '1', 'owned.call');
CALL wait_until($$(SELECT count(*) = 3 FROM event_queue.faults() WHERE what IN ('handler', 'rule function') AND message ~ 'dropped')$$);
SELECT split_part(try($$SELECT event_queue.aggregate_state('owned', '1')$$), ' | ', 1);
-- what it left is not in a dump: its OID may be another role's there
SELECT extcondition[array_position(extconfig, 'event_queue.rule'::regclass)] AS dumped FROM pg_extension WHERE extname = 'event_queue' \gset
SELECT count(*) FROM event_queue.rule :dumped AND name LIKE 'owned%';
-- whoever creates it again takes it over
SELECT event_queue.create_handler('owned', '*', 'owned_handler', or_replace => true) > 0 AS taken;
SELECT event_queue.create_reducer('owned', 'owned_reducer', or_replace => true);
SELECT event_queue.aggregate_state('owned', '1');
CALL wait_until('(SELECT count(*) = 4 FROM owned)');
SELECT event_queue.create_rule('owned condition', 'owned.condition', condition => 'aggregate_id = ''1''', queue => 'owned', job_name => 'by rule', or_replace => true) > 0 AS taken;
CALL wait_until('(SELECT count(*) = 5 FROM owned)');

SELECT event_queue.purge_queue('rule-calls') > 0 AS purged, event_queue.drop_rule('owned call'), event_queue.drop_rule('owned condition'),
	event_queue.drop_handler('owned', '*'), event_queue.drop_reducer('owned'), event_queue.drop_queue('owned', force => true),
	event_queue.alter_queue('rule-calls', backoff_delay => '2 s');
DROP FUNCTION owned_handler, owned_function, owned_reducer;
DROP TABLE owned;
