/*
 * outside.sql: the world outside, simulated: WhatsApp's provider, the gateways of email,
 * push and SMS, and the carrier.
 *
 * They fail by rules, so that a demo and a test know what must come: see each function.  In
 * production none of this exists.  A handler inside the database can't make a call over the
 * network, and should not hold a transaction open for one; the jobs of queues that speak to
 * others are then done by a worker (examples/nestjs, eventq work, eventq webhook), with the
 * same queues, limits, order and dead letters.  Run by demo.sh after automation.sql.
 */
CREATE SCHEMA outside AUTHORIZATION ianara_app;
SET ROLE ianara_app;

CREATE TABLE outside.service (
	name		text PRIMARY KEY,
	busy_until	timestamptz,				-- until then it answers 429
	broken		boolean NOT NULL DEFAULT false	-- it answers 503
);
INSERT INTO outside.service VALUES ('whatsapp'), ('email'), ('push'), ('sms'), ('carrier');

/* What each of them was given.  The key makes a repeated call harmless, as that of real ones does. */
CREATE TABLE outside.delivery (
	key			text PRIMARY KEY,
	service		text NOT NULL REFERENCES outside.service,
	address		text NOT NULL,
	body		text NOT NULL,
	at			timestamptz NOT NULL DEFAULT clock_timestamp()
);
/* What contacts have sent to us, for WhatsApp's provider to hand out. */
CREATE TABLE outside.inbox (
	id			bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	phone		text NOT NULL,
	body		text NOT NULL
);
-- A refused call is rolled back with its handler; a sequence counts it all the same.
CREATE SEQUENCE outside.refused;

/*
 * A call of a service; its answer, as HTTP has it.  429 and 503 by the table service; for good
 * 404 for an address that ends in 0404; 500 for one that ends in 0500 the first time, which the
 * caller tells, since a call that failed left no trace here.
 */
CREATE FUNCTION outside.call(service text, key text, address text, body text, attempt int, OUT status int, OUT retry_after numeric)
LANGUAGE plpgsql SET search_path = pg_catalog, outside, pg_temp AS $$
DECLARE
	s outside.service;
BEGIN
	SELECT * INTO STRICT s FROM outside.service x WHERE x.name = $1;
	IF s.busy_until > clock_timestamp() THEN
		PERFORM nextval('outside.refused');
		status := 429;
		retry_after := extract(epoch FROM s.busy_until - clock_timestamp());
	ELSIF s.broken THEN
		status := 503;
	ELSIF address LIKE '%0404' THEN
		status := 404;
	ELSIF address LIKE '%0500' AND attempt = 1 THEN
		status := 500;
	ELSE
		INSERT INTO delivery VALUES (key, service, address, body) ON CONFLICT DO NOTHING;
		status := 200;
	END IF;
END
$$;

/*
 * What such an answer means for the job whose handler got it: nothing, not now (no attempt is
 * counted), give up (a dead letter at once), or failed (again after the queue's backoff).
 */
CREATE FUNCTION ianara.heed(service text, status int, retry_after numeric) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF status = 429 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ061', MESSAGE = format('%s is busy', service), DETAIL = retry_after::text;
	ELSIF status BETWEEN 400 AND 499 THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ060', MESSAGE = format('%s refuses: %s', service, status);
	ELSIF status >= 500 THEN
		RAISE EXCEPTION USING ERRCODE = 'IA503', MESSAGE = format('%s fails: %s', service, status);
	END IF;
END
$$;
RESET ROLE;
