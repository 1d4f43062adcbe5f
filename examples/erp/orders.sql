/*
 * orders.sql: an order reserves, is paid, and ships, in one job of several steps.
 *
 *   order.placed -> orders: order: reserve, wait for payment.received, book it, ship -> order.shipped
 *
 * The job waits for the payment as a row, for two days at most.  If it dies or is cancelled,
 * what was done is undone, the last first: refund, then unreserve.
 * Run by demo.sh after notifications.sql.
 */
SET ROLE ianara_app;

CREATE TABLE ianara.product (
	product_id	text PRIMARY KEY,
	free		int NOT NULL CHECK (free >= 0)
);
CREATE TABLE ianara.sales_order (
	order_id	text PRIMARY KEY,
	company_id	text NOT NULL REFERENCES ianara.company,
	product_id	text NOT NULL REFERENCES ianara.product,
	amount		numeric NOT NULL,
	address		text NOT NULL,
	status		text NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'paid', 'shipped', 'undone'))
);
CREATE TABLE ianara.payment (
	payment_id	text PRIMARY KEY,			-- the bank's
	order_id	text NOT NULL REFERENCES ianara.sales_order,
	amount		numeric NOT NULL,
	refunded_at	timestamptz
);

SELECT event_queue.create_queue('orders', max_attempts => 3, backoff => 'exponential', backoff_delay => '1 second');

/* The calls of the API: of the shop, and of the bank's web hook, which may come twice. */
CREATE FUNCTION ianara.place_order(order_id text, company_id text, product_id text, amount numeric, address text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	INSERT INTO sales_order VALUES ($1, $2, $3, $4, $5);
	SELECT event_queue.append('order', $1, 'order.placed', expected_version => 'no_stream', tenant_id => $2)
$$;

CREATE FUNCTION ianara.receive_payment(payment_id text, order_id text, amount numeric) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
BEGIN
	INSERT INTO payment VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM event_queue.append('order', o.order_id, 'payment.received', jsonb_build_object('paymentId', $1, 'amount', $3), tenant_id => o.company_id)
	FROM sales_order o WHERE o.order_id = $2;
	RETURN true;
END
$$;

/* Stops an order that is under way; how many (0 or 1). */
CREATE FUNCTION ianara.cancel_order(order_id text) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	SELECT event_queue.cancel_jobs('orders', unique_key => 'order ' || $1, tenant_id => o.company_id) FROM sales_order o WHERE o.order_id = $1
$$;

/* The steps, and what undoes them. */
CREATE FUNCTION ianara.reserve(job event_queue.claimed_job) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
BEGIN
	UPDATE product p SET free = p.free - 1 FROM sales_order o
	WHERE o.order_id = job.payload ->> 'order' AND p.product_id = o.product_id AND p.free > 0;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ060', MESSAGE = 'sold out';
	END IF;
END
$$;
CREATE FUNCTION ianara.unreserve(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	UPDATE product p SET free = p.free + 1 FROM sales_order o
	WHERE o.order_id = job.payload ->> 'order' AND p.product_id = o.product_id;
	UPDATE sales_order SET status = 'undone' WHERE order_id = job.payload ->> 'order'
$$;
CREATE FUNCTION ianara.book(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	UPDATE sales_order SET status = 'paid' WHERE order_id = job.payload ->> 'order'
$$;
CREATE FUNCTION ianara.refund(job event_queue.claimed_job) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, ianara, pg_temp AS $$
	UPDATE payment SET refunded_at = clock_timestamp() WHERE order_id = job.payload ->> 'order'
$$;
CREATE FUNCTION ianara.ship(job event_queue.claimed_job) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	this_order sales_order;
BEGIN
	UPDATE sales_order SET status = 'shipped' WHERE order_id = job.payload ->> 'order' RETURNING * INTO this_order;
	PERFORM ianara.heed('carrier', a.status, a.retry_after)
	FROM outside.call('carrier', 'order ' || this_order.order_id, this_order.address, this_order.product_id, job.attempt) a;
	PERFORM event_queue.append('order', this_order.order_id, 'order.shipped');
END
$$;

CREATE FUNCTION ianara.on_order(job event_queue.claimed_job) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, ianara, pg_temp AS $$
DECLARE
	undo jsonb := jsonb_build_object('queue', 'orders', 'payload', job.payload);
	paid jsonb;
BEGIN
	PERFORM event_queue.run_step(job, 'reserve', 'ianara.reserve', undo || '{"name": "unreserve"}');
	-- after_position: also a payment that came before the job was here
	paid := event_queue.await_event(job, 'paid', 'payment.received', 'order', job.payload ->> 'order', timeout => '2 days',
		after_position => (job.metadata ->> 'event_position')::bigint);
	IF paid IS NULL THEN
		RETURN NULL;		-- suspended; called again when it is paid, or after two days
	ELSIF paid ->> 'state' = 'timed out' THEN
		RAISE EXCEPTION USING ERRCODE = 'EQ060', MESSAGE = 'not paid within two days';
	END IF;
	PERFORM event_queue.run_step(job, 'book', 'ianara.book', undo || '{"name": "refund"}');
	IF NOT event_queue.sleep_job(job, 'booked', '0') THEN
		RETURN NULL;		-- a checkpoint: if the carrier fails, the booking stays
	END IF;
	PERFORM event_queue.run_step(job, 'ship', 'ianara.ship');
	RETURN paid #> '{event,data}';
END
$$;

SELECT event_queue.create_handler('orders', 'order', 'ianara.on_order');
SELECT event_queue.create_handler('orders', 'unreserve', 'ianara.unreserve');
SELECT event_queue.create_handler('orders', 'refund', 'ianara.refund');
SELECT event_queue.create_rule('work on the order', 'order.placed', queue => 'orders', job_name => 'order',
	payload => '{"order": "$.aggregate_id"}', options => '{"unique_key": "order {{aggregate_id}}"}');
RESET ROLE;
