/*
 * subscription.sql: named consumers of events, with checkpoints.
 */

CREATE TABLE subscription (
	subscription_id	int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name			text NOT NULL,
	tenant_id		text,
	filter			jsonb,
	buckets			int NOT NULL CHECK (buckets BETWEEN 1 AND 64),
	created_at		timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT subscription_name_key UNIQUE NULLS NOT DISTINCT (name, tenant_id)
);
COMMENT ON TABLE subscription IS 'Named consumers of events; written by create_subscription.';
COMMENT ON COLUMN subscription.tenant_id IS 'The tenant whose events it reads, and that may use it; NULL: all tenants. Each tenant has names of its own.';
COMMENT ON COLUMN subscription.buckets IS '1: one consumer at a time; more: a group whose members share so many buckets of aggregates.';
ALTER TABLE subscription ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON subscription USING (tenant_visible(tenant_id));
SELECT pg_catalog.pg_extension_config_dump('subscription', '');
SELECT pg_catalog.pg_extension_config_dump('subscription_subscription_id_seq', '');

CREATE TABLE event_queue_internal.subscription_bucket (
	subscription_id	int NOT NULL REFERENCES subscription ON DELETE CASCADE,
	bucket			int NOT NULL,
	position		bigint NOT NULL,
	moved_at		timestamptz NOT NULL DEFAULT now(),
	resets			int NOT NULL DEFAULT 0,
	PRIMARY KEY (subscription_id, bucket)
) WITH (fillfactor = 50);
COMMENT ON TABLE event_queue_internal.subscription_bucket IS 'Checkpoints: the consumer is done with all events up to position.';
COMMENT ON COLUMN event_queue_internal.subscription_bucket.resets IS 'How often reset_subscription has moved it: what was fetched before is not acknowledged.';
ALTER TABLE event_queue_internal.subscription_bucket ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.subscription_bucket USING (EXISTS (
	SELECT FROM subscription s WHERE s.subscription_id = subscription_bucket.subscription_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.subscription_bucket', '');

CREATE TABLE event_queue_internal.subscription_parked (
	subscription_id	int NOT NULL REFERENCES subscription ON DELETE CASCADE,
	tenant_id		text COLLATE "C" NOT NULL,
	aggregate_type	text COLLATE "C" NOT NULL,
	aggregate_id	text COLLATE "C" NOT NULL,
	position		bigint NOT NULL,
	resume_after	bigint,
	error			text,
	retry			boolean NOT NULL DEFAULT false,
	parked_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (subscription_id, aggregate_id, aggregate_type, tenant_id)
);
COMMENT ON TABLE event_queue_internal.subscription_parked IS
'Aggregates whose events a consumer could not process: from position on they wait until retry_parked.';
ALTER TABLE event_queue_internal.subscription_parked ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON event_queue_internal.subscription_parked USING (tenant_visible(tenant_id) AND EXISTS (
	SELECT FROM subscription s WHERE s.subscription_id = subscription_parked.subscription_id));
SELECT pg_catalog.pg_extension_config_dump('event_queue_internal.subscription_parked', '');

/*
 * create_subscription: creates a subscription: a named consumer of events whose position the
 * store keeps.
 *
 * Arguments:
 * - filter: as in read_all.
 * - from_position: after which position it begins (0: with the first event; NULL: with what
 *   comes from now on).
 * - buckets: 1 for one consumer, up to 64 for a group.  Members share the buckets; each
 *   aggregate belongs to one bucket, and the order of its events is kept.
 * - tenant_id: only this tenant's events.  Names are each tenant's own: one name may stand for
 *   a subscription of each tenant, and for one that reads all.
 * - or_replace: a subscription of this name and tenant gets the new filter and goes on where it
 *   stands; from_position is ignored, another number of buckets is refused.
 * - if_not_exists: the subscription stays as it is, with a NOTICE if filter or buckets differ.
 *
 * Result: the subscription's number.
 * Errors: EQ003 tenant, EQ006 name, EQ009 filter, from_position, buckets, or both or_replace and
 * if_not_exists, EQ018 it exists.
 * Example:
 *	SELECT event_queue.create_subscription('projector', filter => '{"event_type": "lead.**"}', or_replace => true);
 */
CREATE FUNCTION create_subscription(
	name text, filter jsonb DEFAULT NULL, from_position bigint DEFAULT 0, buckets int DEFAULT 1, tenant_id text DEFAULT NULL,
	or_replace boolean DEFAULT false, if_not_exists boolean DEFAULT false)
RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	tenant text COLLATE "C" := CASE WHEN $5 IS NULL THEN event_queue.current_tenant() ELSE event_queue.resolve_tenant($5) END;
	new_id int;
	old event_queue.subscription;
BEGIN
	PERFORM event_queue_internal.check_create_mode($6, $7);
	PERFORM event_queue_internal.check_name('subscription name', $1);
	PERFORM event_queue_internal.check_filter($2);
	IF $4 IS NULL OR $4 NOT BETWEEN 1 AND 64 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'buckets must be between 1 and 64';
	END IF;
	IF $3 < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'from_position must not be negative';
	END IF;
	INSERT INTO event_queue.subscription (name, tenant_id, filter, buckets) VALUES ($1, tenant, $2, $4)
	ON CONFLICT DO NOTHING RETURNING subscription_id INTO new_id;
	IF new_id IS NULL THEN
		SELECT s.* INTO old FROM event_queue.subscription s
		WHERE s.name = $1 AND s.tenant_id IS NOT DISTINCT FROM tenant;
		IF NOT FOUND OR ($6 OR $7) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ018', MESSAGE = format('subscription "%s" already exists', $1),
				HINT = 'or_replace => true gives it the new filter; if_not_exists => true leaves it.';
		END IF;
		IF $6 AND old.buckets <> $4 THEN
			RAISE EXCEPTION USING ERRCODE = 'EQ009',
				MESSAGE = format('subscription "%s" has %s buckets, which can''t be changed', $1, old.buckets),
				HINT = 'Drop it and create it with from_position => its lowest position.';
		END IF;
		IF $6 AND old.filter IS DISTINCT FROM $2 THEN
			UPDATE event_queue.subscription s SET filter = $2 WHERE s.subscription_id = old.subscription_id;
		ELSIF (old.filter, old.buckets) IS DISTINCT FROM ($2, $4) THEN
			PERFORM event_queue_internal.notice_other_definition('subscription', $1);
		END IF;
		RETURN old.subscription_id;
	END IF;
	INSERT INTO event_queue_internal.subscription_bucket (subscription_id, bucket, position)
	SELECT new_id, b, coalesce($3, event_queue.watermark()) FROM generate_series(0, $4 - 1) b;
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION create_subscription(text, jsonb, bigint, int, text, boolean, boolean) IS
'Creates a consumer of events with a checkpoint; buckets > 1 makes it a group whose members share the aggregates.';

CREATE FUNCTION event_queue_internal.subscription_id_of(name text) RETURNS int
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	-- Of several, a session that is confined to no tenant means the one that reads all.
	found event_queue.subscription[] := ARRAY(SELECT s FROM event_queue.subscription s
		WHERE s.name = $1 AND event_queue.tenant_visible(s.tenant_id) ORDER BY s.tenant_id NULLS FIRST LIMIT 2);
BEGIN
	IF found = '{}' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('subscription "%s" does not exist', $1),
			HINT = format('Create it with event_queue.create_subscription(%L).', $1);
	END IF;
	IF cardinality(found) = 2 AND found[1].tenant_id IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ039', MESSAGE = format('several tenants have a subscription "%s"', $1),
			HINT = 'Use SET event_queue.tenant to say which one is meant.';
	END IF;
	RETURN found[1].subscription_id;
END
$$;
COMMENT ON FUNCTION event_queue_internal.subscription_id_of(text) IS 'Internal. A subscription''s number; EQ025 if there is none, EQ039 if the name is several tenants''.';

/*
 * drop_subscription: removes a subscription and its position.
 * Errors: EQ025.
 * Example:
 *	SELECT event_queue.create_subscription('old projector');
 *	SELECT event_queue.drop_subscription('old projector');
 */
CREATE FUNCTION drop_subscription(name text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
BEGIN
	DELETE FROM event_queue.subscription s WHERE s.subscription_id = this_id;
	RETURN true;
END
$$;
COMMENT ON FUNCTION drop_subscription(text) IS 'Removes a subscription and its checkpoints. EQ025 if there is none.';

/*
 * reset_subscription: has a subscription go on after a position, back or ahead (0: with the
 * first event); its parked aggregates are no longer parked.
 * Errors: EQ009, EQ025, EQ059 as fetch_events.
 * Isolation: waits for the transactions of consumers that have fetched, and until the caller's ends
 * none fetches: in the same transaction the caller can delete what they had made.  What a member of a
 * group has fetched before, in another transaction, it can't acknowledge any more (EQ029).
 * Example:
 *	SELECT event_queue.reset_subscription('projector', to_position => 0);
 */
CREATE FUNCTION reset_subscription(name text, to_position bigint DEFAULT 0) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
	was jsonb;
BEGIN
	IF $2 IS NULL OR $2 < 0 OR $2 > event_queue.watermark() THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ009', MESSAGE = 'position must be from 0 to the watermark';
	END IF;
	PERFORM event_queue_internal.lock_subscription_bucket(this_id, n)
	FROM event_queue.subscription s, generate_series(0, s.buckets - 1) n WHERE s.subscription_id = this_id ORDER BY n;
	SELECT jsonb_build_object('position', min(b.position)) INTO was FROM event_queue_internal.subscription_bucket b WHERE b.subscription_id = this_id;
	-- Also where a restore has left them out.
	INSERT INTO event_queue_internal.subscription_bucket AS b (subscription_id, bucket, position)
	SELECT this_id, n, $2 FROM event_queue.subscription s, generate_series(0, s.buckets - 1) n WHERE s.subscription_id = this_id
	ON CONFLICT (subscription_id, bucket) DO UPDATE SET position = $2, moved_at = clock_timestamp(), resets = b.resets + 1;
	DELETE FROM event_queue_internal.subscription_parked p WHERE p.subscription_id = this_id;
	PERFORM event_queue_internal.audit('reset_subscription', 'subscription', $1, s.tenant_id, was, jsonb_build_object('position', $2))
	FROM event_queue.subscription s WHERE s.subscription_id = this_id;
	RETURN true;
END
$$;
COMMENT ON FUNCTION reset_subscription(text, bigint) IS
'Moves a subscription to a position, back or ahead; its aggregates are no longer parked.';

/*
 * fetch_events: the next events for a consumer, in order of position.
 *
 * Without ack they come again.  With one bucket, whoever fetches holds the
 * subscription until its transaction ends, and others wait: fetch, work and ack
 * in one transaction and each event is worked on exactly once.  With more
 * buckets, the session becomes a member of the group until it ends (or
 * leave_subscription): it gets the events of its share of the aggregates, and
 * may ack in a later transaction.  Members need sessions of their own: not
 * through a pooler in transaction mode.
 * Arguments: max_events is 1 to 100000.
 * Errors: EQ009 max_events, EQ025 no such subscription, EQ059 the transaction holds too many
 * buckets: a 16th of the locks that the server has room for.
 * Isolation: as read_all.
 * Example:
 *	BEGIN;
 *	SELECT position, event_type, event_data FROM event_queue.fetch_events('projector', 2);
 *	SELECT event_queue.ack('projector');
 *	COMMIT;
 */
CREATE FUNCTION fetch_events(name text, max_events int DEFAULT 100) RETURNS SETOF event_store
LANGUAGE C VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'eq_fetch_events';
COMMENT ON FUNCTION fetch_events(text, int) IS
'The next events of a subscription; they come again until ack.';

/*
 * ack: done with all events up to a position, in the caller's transaction.
 * Positions below the checkpoint change nothing.
 * Errors: EQ025 no such subscription, EQ029 the position was not fetched, 40001
 * above READ COMMITTED if another transaction moved the checkpoint.
 * Example:
 *	BEGIN;
 *	SELECT position FROM event_queue.fetch_events('projector', 1) \gset
 *	SELECT event_queue.ack('projector', up_to_position => :position);
 *	COMMIT;
 */
CREATE FUNCTION ack(name text, up_to_position bigint) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_ack';
COMMENT ON FUNCTION ack(text, bigint) IS
'Moves a subscription''s checkpoint: its consumer is done with all events up to the position.';

/*
 * Without a position: acknowledges the events that the last fetch_events returned, and no
 * others, whatever has come since.  A fetch that was rolled back, as its work was, can't be
 * acknowledged.
 * Errors: EQ025 no such subscription; EQ029 nothing was fetched: with one bucket
 * in this transaction, with more in this session; 40001 as above.
 * Example:
 *	BEGIN;
 *	SELECT position, event_type FROM event_queue.fetch_events('projector', 1);
 *	SELECT event_queue.ack('projector');
 *	COMMIT;
 */
CREATE FUNCTION ack(name text) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_ack_fetched';
COMMENT ON FUNCTION ack(text) IS
'Moves a subscription''s checkpoint behind what the last fetch_events returned.';

/*
 * leave_subscription: takes the session out of the group of a subscription; its share goes to
 * the other members at once.
 * Example:
 *	SELECT event_queue.leave_subscription('projector');
 */
CREATE FUNCTION leave_subscription(name text) RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_leave_subscription';
COMMENT ON FUNCTION leave_subscription(text) IS
'Takes the session out of a subscription''s group; the end of the session does it, too.';

CREATE FUNCTION event_queue_internal.all_subscription_members(OUT subscription_id int, OUT pid int, OUT buckets int) RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_subscription_members';
COMMENT ON FUNCTION event_queue_internal.all_subscription_members() IS 'Internal. subscription_members of all tenants.';

CREATE FUNCTION event_queue_internal.member_use(OUT used int, OUT max_members int)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'eq_member_use';
COMMENT ON FUNCTION event_queue_internal.member_use() IS 'Internal. How many sessions are members of subscriptions, in all databases.';

CREATE FUNCTION event_queue_internal.subscription_members(OUT subscription_id int, OUT pid int, OUT buckets int) RETURNS SETOF record
LANGUAGE sql VOLATILE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT m.* FROM event_queue_internal.all_subscription_members() m
	WHERE event_queue.current_tenant() IS NULL OR EXISTS (SELECT FROM event_queue.subscription s
		WHERE s.subscription_id = m.subscription_id AND event_queue.tenant_visible(s.tenant_id))
$$;
COMMENT ON FUNCTION event_queue_internal.subscription_members() IS 'For views. Sessions that are members of groups, with how many buckets each has.';

CREATE FUNCTION event_queue_internal.event_bucket(tenant_id text, aggregate_type text, aggregate_id text, buckets int) RETURNS int
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'eq_event_bucket';
COMMENT ON FUNCTION event_queue_internal.event_bucket(text, text, text, int) IS
'Internal. The bucket that an aggregate belongs to, in a subscription with so many.';

/*
 * park_event: sets the aggregate of an event aside for a subscription, and
 * acknowledges all before it.  Its later events are kept from the consumer and
 * wait; all other aggregates go on.  Drop what is left of the batch and fetch
 * again.
 * Arguments: event_position: of the event that could not be digested; error: why.
 * Errors: EQ025 no such subscription or event; EQ029 as ack.
 * Example:
 *	BEGIN;
 *	SELECT position FROM event_queue.fetch_events('projector', 1) \gset
 *	SELECT event_queue.park_event('projector', :position, 'no such team');
 *	COMMIT;
 */
CREATE FUNCTION park_event(name text, event_position bigint, error text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
	event event_queue.event_store;
BEGIN
	SELECT e.* INTO event FROM event_queue.event_store e, event_queue.subscription s
	WHERE e.position = $2 AND s.subscription_id = this_id AND e.tenant_id = coalesce(s.tenant_id, e.tenant_id);
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025', MESSAGE = format('event at position %s does not exist', $2);
	END IF;
	INSERT INTO event_queue_internal.subscription_parked
		(subscription_id, tenant_id, aggregate_type, aggregate_id, position, error)
	VALUES (this_id, event.tenant_id, event.aggregate_type, event.aggregate_id, $2, $3)
	ON CONFLICT (subscription_id, aggregate_id, aggregate_type, tenant_id) DO UPDATE
	SET error = excluded.error, retry = false, resume_after = NULL, parked_at = now();
	PERFORM event_queue.ack($1, $2);
	RETURN true;
END
$$;
COMMENT ON FUNCTION park_event(text, bigint, text) IS
'Sets the aggregate of a poison event aside for a subscription; all others go on.';

/*
 * retry_parked: lets fetch_parked return the events of parked aggregates again.
 * Arguments: aggregate_type, aggregate_id: NULL: of all parked ones.
 * Result: how many aggregates.  Errors: EQ025.
 * Example:
 *	SELECT event_queue.retry_parked('projector', 'lead', 'L1');
 */
CREATE FUNCTION retry_parked(name text, aggregate_type text DEFAULT NULL, aggregate_id text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
	n bigint;
BEGIN
	UPDATE event_queue_internal.subscription_parked p SET retry = true
	WHERE p.subscription_id = this_id
	  AND p.aggregate_type = coalesce($2 COLLATE "C", p.aggregate_type) AND p.aggregate_id = coalesce($3 COLLATE "C", p.aggregate_id);
	GET DIAGNOSTICS n = ROW_COUNT;
	PERFORM event_queue_internal.audit('retry_parked', 'subscription', $1, "after" =>
		jsonb_strip_nulls(jsonb_build_object('aggregate_type', $2, 'aggregate_id', $3, 'aggregates', n))) WHERE n > 0;
	RETURN n;
END
$$;
COMMENT ON FUNCTION retry_parked(text, text, text) IS 'Lets parked aggregates of a subscription be fetched by fetch_parked.';

CREATE FUNCTION event_queue_internal.parked_events(subscription_id int, aggregate_type text, aggregate_id text, tenant_id text) RETURNS SETOF event_store
LANGUAGE sql STABLE SET search_path = pg_catalog, event_queue, pg_temp AS $$
	SELECT e.*
	FROM event_queue.subscription s
	JOIN event_queue_internal.subscription_parked p ON p.subscription_id = s.subscription_id
	JOIN event_queue_internal.subscription_bucket b ON b.subscription_id = s.subscription_id
		AND b.bucket = event_queue_internal.event_bucket(p.tenant_id, p.aggregate_type, p.aggregate_id, s.buckets)
	JOIN event_queue.event_store e ON e.aggregate_id = p.aggregate_id AND e.aggregate_type = p.aggregate_type
		AND e.tenant_id = p.tenant_id AND e.position >= p.position AND e.position <= b.position
	WHERE s.subscription_id = $1 AND p.aggregate_type = $2 AND p.aggregate_id = $3 AND p.tenant_id = $4
	  AND event_queue_internal.matches_filter(e, s.filter)
	ORDER BY e.position
$$;
COMMENT ON FUNCTION event_queue_internal.parked_events(int, text, text, text) IS
'Internal. Events of a parked aggregate that the checkpoint has passed.';

/*
 * fetch_parked: the waiting events, in order, of one parked aggregate that retry_parked let go;
 * other sessions get other aggregates until the transaction ends.  Acknowledge them by
 * ack_parked.
 * Errors: EQ025.
 * Example:
 *	SELECT position, event_type FROM event_queue.fetch_parked('projector');
 */
CREATE FUNCTION fetch_parked(name text, max_events int DEFAULT 100) RETURNS SETOF event_store
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
	parked event_queue_internal.subscription_parked;
BEGIN
	SELECT p.* INTO parked FROM event_queue_internal.subscription_parked p
	WHERE p.subscription_id = this_id AND p.retry
	  -- one that is done, and waits for the checkpoint to come back, keeps no other from its turn
	  AND EXISTS (SELECT FROM event_queue_internal.parked_events(this_id, p.aggregate_type, p.aggregate_id, p.tenant_id))
	ORDER BY p.parked_at, p.position LIMIT 1 FOR UPDATE SKIP LOCKED;
	IF FOUND THEN
		RETURN QUERY SELECT e.* FROM event_queue_internal.parked_events(this_id, parked.aggregate_type, parked.aggregate_id,
			parked.tenant_id) e ORDER BY e.position LIMIT $2;
	END IF;
END
$$;
COMMENT ON FUNCTION fetch_parked(text, int) IS 'Waiting events of one parked aggregate that may be tried again.';

CREATE FUNCTION event_queue_internal.lock_subscription_bucket(subscription_id int, bucket int) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'eq_lock_bucket';
COMMENT ON FUNCTION event_queue_internal.lock_subscription_bucket(int, int) IS
'Internal. Holds a bucket until the transaction ends, as fetch_events does.';

CREATE FUNCTION event_queue_internal.unpark_if_done(subscription_id int, tenant_id text, aggregate_type text, aggregate_id text)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	bucket_position bigint;
	resume bigint;
BEGIN
	SELECT b.position, p.resume_after INTO bucket_position, resume
	FROM event_queue.subscription s
	JOIN event_queue_internal.subscription_parked p ON p.subscription_id = s.subscription_id
		AND p.tenant_id = $2 AND p.aggregate_type = $3 AND p.aggregate_id = $4
	JOIN event_queue_internal.subscription_bucket b ON b.subscription_id = s.subscription_id
		AND b.bucket = event_queue_internal.event_bucket($2, $3, $4, s.buckets)
	WHERE s.subscription_id = $1;
	IF EXISTS (SELECT FROM event_queue_internal.parked_events($1, $3, $4, $2)) THEN
		RETURN false;
	END IF;
	IF resume IS NULL THEN
		UPDATE event_queue_internal.subscription_parked p SET resume_after = event_queue.watermark()
		WHERE p.subscription_id = $1 AND p.tenant_id = $2 AND p.aggregate_type = $3 AND p.aggregate_id = $4
		RETURNING p.resume_after INTO resume;
	END IF;
	IF bucket_position < resume THEN
		RETURN false;
	END IF;
	DELETE FROM event_queue_internal.subscription_parked p
	WHERE p.subscription_id = $1 AND p.tenant_id = $2 AND p.aggregate_type = $3 AND p.aggregate_id = $4;
	RETURN true;
END
$$;
COMMENT ON FUNCTION event_queue_internal.unpark_if_done(int, text, text, text) IS
'Internal. With the bucket locked: is none of a parked aggregate''s events waiting any more? Then it comes as before.';

/*
 * ack_parked: acknowledges a parked aggregate's events up to this one.  When none is waiting,
 * the aggregate comes with the others again as soon as the checkpoint is where the watermark is
 * now.
 * Result: true when it is no longer parked.  Errors: EQ025 nothing parked there.
 * Example:
 *	BEGIN;
 *	SELECT position FROM event_queue.fetch_parked('projector', 1) \gset
 *	SELECT event_queue.ack_parked('projector', :position);
 *	COMMIT;
 */
CREATE FUNCTION ack_parked(name text, event_position bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
	event event_queue.event_store;
BEGIN
	SELECT e.* INTO event FROM event_queue.event_store e, event_queue.subscription s
	WHERE e.position = $2 AND s.subscription_id = this_id AND e.tenant_id = coalesce(s.tenant_id, e.tenant_id);
	-- First the bucket, then the row: as fetch_events does.
	PERFORM event_queue_internal.lock_subscription_bucket(this_id, event_queue_internal.event_bucket(event.tenant_id,
		event.aggregate_type, event.aggregate_id, s.buckets))
	FROM event_queue.subscription s WHERE s.subscription_id = this_id;
	UPDATE event_queue_internal.subscription_parked p SET position = greatest(p.position, $2 + 1)
	WHERE p.subscription_id = this_id AND p.tenant_id = event.tenant_id
	  AND p.aggregate_type = event.aggregate_type AND p.aggregate_id = event.aggregate_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ025',
			MESSAGE = format('the aggregate of the event at position %s is not parked', $2);
	END IF;
	RETURN event_queue_internal.unpark_if_done(this_id, event.tenant_id, event.aggregate_type, event.aggregate_id);
END
$$;
COMMENT ON FUNCTION ack_parked(text, bigint) IS
'Moves a parked aggregate on; true when all its waiting events are done and it is no longer parked.';

/*
 * discard_parked: gives up the events that the checkpoint has passed; later ones
 * come as before.  Result: false if it was not parked.  Errors: EQ025.
 * Example:
 *	SELECT event_queue.discard_parked('projector', 'lead', 'L1');
 */
CREATE FUNCTION discard_parked(name text, aggregate_type text, aggregate_id text, tenant_id text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, event_queue, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this_id int := event_queue_internal.subscription_id_of($1);
	tenant text COLLATE "C" := event_queue.resolve_tenant($4);
BEGIN
	PERFORM event_queue_internal.lock_subscription_bucket(this_id, event_queue_internal.event_bucket(tenant, $2, $3, s.buckets))
	FROM event_queue.subscription s WHERE s.subscription_id = this_id;
	UPDATE event_queue_internal.subscription_parked p SET position = (
		SELECT b.position + 1 FROM event_queue.subscription s JOIN event_queue_internal.subscription_bucket b
			ON b.subscription_id = this_id AND b.bucket = event_queue_internal.event_bucket(tenant, $2, $3, s.buckets)
		WHERE s.subscription_id = this_id)
	WHERE p.subscription_id = this_id AND p.aggregate_type = $2 COLLATE "C" AND p.aggregate_id = $3 COLLATE "C" AND p.tenant_id = tenant;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM event_queue_internal.unpark_if_done(this_id, tenant, $2, $3);
	PERFORM event_queue_internal.audit('discard_parked', 'subscription', $1, tenant, "after" =>
		jsonb_build_object('aggregate_type', $2, 'aggregate_id', $3));
	RETURN true;
END
$$;
COMMENT ON FUNCTION discard_parked(text, text, text, text) IS
'Gives up the waiting events of a parked aggregate; what comes from now on is fetched as before.';

/*
 * subscription_status: how far each consumer is.  lag_events counts the events
 * that its filter lets pass, to 100000 at most; lag_seconds is the age of the
 * oldest of them.
 */
CREATE VIEW subscription_status AS
	SELECT s.name, s.tenant_id, s.filter, s.buckets,
		coalesce(m.members, 0) AS members, c.checkpoint, c.moved_at, w.watermark,
		coalesce(l.lag_events, 0) AS lag_events,
		coalesce(extract(epoch FROM clock_timestamp() - l.oldest), 0)::double precision AS lag_seconds,
		(SELECT count(*) FROM event_queue_internal.subscription_parked p WHERE p.subscription_id = s.subscription_id) AS parked
	FROM event_queue.subscription s
	CROSS JOIN (SELECT event_queue.watermark()) w (watermark)
	CROSS JOIN LATERAL (SELECT min(b.position), max(b.moved_at), array_agg(b.position ORDER BY b.bucket) FROM event_queue_internal.subscription_bucket b
		WHERE b.subscription_id = s.subscription_id) c (checkpoint, moved_at, positions)
	LEFT JOIN (SELECT subscription_id, count(*) FROM event_queue_internal.subscription_members() GROUP BY 1) m (subscription_id, members)
		USING (subscription_id)
	CROSS JOIN LATERAL (SELECT count(*), min(created_at) FROM (
		-- Not by a join with the buckets: that tries all of them for each event.
		SELECT e.created_at FROM event_queue.event_store e
		WHERE e.position > c.checkpoint AND e.position <= w.watermark
		  AND (s.tenant_id IS NULL OR e.tenant_id = s.tenant_id)
		  AND (s.buckets = 1 OR e.position > c.positions[1 + event_queue_internal.event_bucket(e.tenant_id, e.aggregate_type, e.aggregate_id, s.buckets)])
		  AND (s.filter IS NULL OR event_queue_internal.matches_filter(e, s.filter))
		LIMIT 100000) waiting) l (lag_events, oldest);
ALTER VIEW subscription_status SET (security_invoker = true);
COMMENT ON VIEW subscription_status IS
'Each subscription: members, checkpoint, lag in events (to 100000) and seconds, parked aggregates.';

CREATE VIEW parked_aggregates WITH (security_invoker = true) AS
	SELECT s.name AS subscription, p.tenant_id, p.aggregate_type, p.aggregate_id, p.position, p.parked_at, p.retry, p.error
	FROM event_queue_internal.subscription_parked p JOIN event_queue.subscription s USING (subscription_id);
COMMENT ON VIEW parked_aggregates IS
'Aggregates that a consumer has set aside by park_event: from which position on, since when, why; retry: retry_parked let it go.';
