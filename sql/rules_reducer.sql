-- State follows the reducer's code: its own, what it calls, and what it is told of.
CREATE SCHEMA refreshed;
CREATE FUNCTION refreshed.weight(event event_queue.event_store) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE FUNCTION refreshed."Twice Removed"(event event_queue.event_store) RETURNS int LANGUAGE plpgsql IMMUTABLE
	AS $$ BEGIN RETURN refreshed.weight(event); END $$;
CREATE FUNCTION refreshed.reducer(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
	AS $$ BEGIN RETURN jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + refreshed."Twice Removed"(event)); END $$;
SELECT event_queue.create_reducer('refreshed', 'refreshed.reducer', NULL);
SELECT event_queue.append('refreshed', '1', 'refreshed.made') IS NOT NULL FROM generate_series(1, 3);
SELECT event_queue.take_snapshot('refreshed', '1'), event_queue.aggregate_state('refreshed', '1');
CREATE VIEW used AS SELECT s.version, s.reducer = event_queue_internal.reducer_fingerprint('refreshed') AS used
FROM event_queue.aggregate_snapshot s WHERE s.aggregate_type = 'refreshed' ORDER BY version;
TABLE used;
-- What it calls at second hand; and back, and the snapshot is good again.
CREATE OR REPLACE FUNCTION refreshed.weight(event event_queue.event_store) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 10';
TABLE used;
SELECT event_queue.aggregate_state('refreshed', '1');
CREATE OR REPLACE FUNCTION refreshed.weight(event event_queue.event_store) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
TABLE used;
-- A function that is not called changes nothing.
CREATE FUNCTION refreshed.other() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
TABLE used;
-- A parsed body, which shows no names.
CREATE FUNCTION refreshed.parsed(state jsonb, event event_queue.event_store) RETURNS jsonb IMMUTABLE
	BEGIN ATOMIC SELECT jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + refreshed."Twice Removed"(event)); END;
SELECT event_queue.create_reducer('refreshed', 'refreshed.parsed', NULL, or_replace => true);
SELECT event_queue.take_snapshot('refreshed', '1');
TABLE used;
CREATE OR REPLACE FUNCTION refreshed.weight(event event_queue.event_store) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 100';
TABLE used;
SELECT event_queue.aggregate_state('refreshed', '1');
-- What no source shows: the state stays as it was, until refresh_reducer.
CREATE TABLE refreshed.weights (w int);
INSERT INTO refreshed.weights VALUES (1);
CREATE FUNCTION refreshed.reading(state jsonb, event event_queue.event_store) RETURNS jsonb LANGUAGE plpgsql STABLE
	AS $$ BEGIN RETURN jsonb_build_object('n', coalesce((state ->> 'n')::int, 0) + (SELECT w FROM refreshed.weights)); END $$;
SELECT event_queue.create_reducer('refreshed', 'refreshed.reading', NULL, or_replace => true);
SELECT event_queue.take_snapshot('refreshed', '1');
UPDATE refreshed.weights SET w = 1000;
SELECT event_queue.aggregate_state('refreshed', '1');
SELECT event_queue.refresh_reducer('refreshed');
SELECT event_queue.aggregate_state('refreshed', '1');
TABLE used;
-- One that old code makes meanwhile is not used; one of after is.
SELECT event_queue.take_snapshot('refreshed', '1');
TABLE used;
UPDATE event_queue.reducer SET revision = revision + 1 WHERE aggregate_type = 'refreshed';
TABLE used;
-- What is archived can't be made again, and it says so.
UPDATE event_queue.aggregate_snapshot SET is_base = true WHERE aggregate_type = 'refreshed';
SELECT event_queue.refresh_reducer('refreshed');
DELETE FROM event_queue.aggregate_snapshot WHERE aggregate_type = 'refreshed';
SELECT try($$SELECT event_queue.refresh_reducer('no such type')$$), try($$SELECT event_queue.refresh_reducer('')$$);
SELECT event_queue.drop_reducer('refreshed');
DROP VIEW used;
DROP SCHEMA refreshed CASCADE;
