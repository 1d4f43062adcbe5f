// Subscriptions: exactly once in the transaction, poison events, groups, waiting.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const eqlib = require('..');
const { freshDatabase, query, open, until, once } = require('./helpers');

let connection, eq;
before(async () => {
	connection = await freshDatabase('eq_node_subscription');
	await query(connection, 'CREATE TABLE seen (position bigint PRIMARY KEY, subscription text, aggregate_id text, version int, member int)');
	eq = open(connection);
});
after(() => eq.close());

const rows = (sql, values) => query(connection, sql, values);

test('events come in order, each once in the transaction that moves the checkpoint', async () => {
	for (let i = 1; i <= 5; i++)
		await eq.append('lead', 'A', 'lead.moved', { i });
	const got = [];
	const subscription = eq.subscription('once', async (event, { tx }) => {
		got.push(event.data.i);
		await tx.query(`INSERT INTO seen VALUES ($1, 'once', $2, $3)`, [event.position, event.aggregateId, event.version]);
	}, { filter: { event_type: 'lead.*' }, batchSize: 2 });
	await once(subscription, 'drained');
	assert.deepEqual(got, [1, 2, 3, 4, 5]);
	// woken by what comes; what the filter leaves out does not wake it forever
	const next = once(subscription, 'processed');
	await eq.append('task', 'T', 'task.created', {});
	await eq.append('lead', 'A', 'lead.moved', { i: 6 });
	await next;
	assert.deepEqual(got, [1, 2, 3, 4, 5, 6]);
	await subscription.close();
	// goes on where it stood
	await eq.append('lead', 'A', 'lead.moved', { i: 7 });
	const again = eq.subscription('once', event => { got.push(event.data.i); }, { create: false });
	await once(again, 'processed');
	await again.close();
	assert.deepEqual(got, [1, 2, 3, 4, 5, 6, 7]);
	assert.equal((await rows(`SELECT count(*)::int AS n FROM seen WHERE subscription = 'once'`))[0].n, 6);
});

test('an idle subscription sleeps, also when its filter lets nothing through', async () => {
	const subscription = eq.subscription('idle', () => {}, { filter: { event_type: 'nothing.ever' } });
	await once(subscription, 'drained');
	let drained = 0;
	subscription.on('drained', () => drained++);
	for (let i = 0; i < 3; i++)
		await eq.append('task', 'T', 'task.moved', {});
	await new Promise(resolve => setTimeout(resolve, 500));
	assert.ok(drained <= 4, `${drained} looks`);
	await subscription.close();
});

test('what the handler adds without tx is part of its transaction, and goes with it when it fails', async () => {
	await rows(`SELECT event_queue.create_queue('follow')`);
	await eq.append('order', 'O1', 'order.placed', {});
	let tries = 0;
	const subscription = eq.subscription('adds', async () => {
		await eq.queue('follow').add('pack', { try: ++tries });
		if (tries < 3)
			throw new Error('not yet');
	}, { filter: { event_type: 'order.placed' }, backoff: () => 5 });
	await once(subscription, 'processed');
	await subscription.close();
	const jobs = await rows(`SELECT payload->>'try' AS try FROM event_queue.jobs WHERE queue = 'follow'`);
	assert.deepEqual(jobs, [{ try: '3' }]);
});

test('a poison event is parked with its aggregate; others go on; it can be tried again', async () => {
	for (const id of ['P1', 'P2', 'P3'])
		for (let i = 1; i <= 2; i++)
			await eq.append('pay', id, 'pay.made', { id, i });
	let broken = true;
	const got = [];
	const subscription = eq.subscription('poison', async (event, { tx }) => {
		await tx.query('SELECT 1');
		if (broken && event.aggregateId === 'P2')
			throw new Error('no such account');
		got.push(`${event.aggregateId} ${event.version}`);
	}, { filter: { event_type: 'pay.made' }, maxAttempts: 2, backoff: () => 5 });
	const [event, error] = await once(subscription, 'parked');
	assert.deepEqual([event.aggregateId, event.version, error.message], ['P2', 1, 'no such account']);
	// P1's come again after a rollback: what counts is the last time
	await until(async () => got.includes('P3 2'), 'P3 goes on');
	assert.deepEqual([...new Set(got)], ['P1 1', 'P1 2', 'P3 1', 'P3 2']);
	assert.equal((await rows(`SELECT error FROM event_queue.parked_aggregates WHERE subscription = 'poison'`))[0].error, 'no such account');
	broken = false;
	assert.equal(await subscription.retryParked(), 1);
	await eq.append('pay', 'P9', 'pay.made', {});
	await until(() => got.includes('P2 2'), 'P2 is made up for');
	assert.deepEqual(got.filter(entry => entry.startsWith('P2')), ['P2 1', 'P2 2']);
	await until(async () => (await rows(`SELECT 1 FROM event_queue.parked_aggregates WHERE subscription = 'poison'`)).length === 0, 'no longer parked');
	await subscription.close();
});

test('a group: members share the aggregates, each event once, in order within its aggregate', async () => {
	const aggregates = Array.from({ length: 20 }, (_, i) => `G${i}`);
	const handler = member => async (event, { tx }) => {
		await tx.query(`INSERT INTO seen VALUES ($1, 'group', $2, $3, $4)`, [event.position, event.aggregateId, event.version, member]);
	};
	const other = open(connection);
	const options = { filter: { event_type: 'group.step' }, buckets: 8, batchSize: 5 };
	const members = [eq.subscription('group', handler(1), options), other.subscription('group', handler(2), options)];
	await Promise.all(members.map(member => once(member, 'drained')));
	for (let version = 1; version <= 5; version++)
		await Promise.all(aggregates.map(id => eq.append('group', id, 'group.step', {})));
	const count = async () => (await rows(`SELECT count(*)::int AS n FROM seen WHERE subscription = 'group'`))[0].n;
	await until(async () => await count() === 100, '100 events');
	const shares = await rows(`SELECT member, count(DISTINCT aggregate_id)::int AS n FROM seen WHERE subscription = 'group' GROUP BY 1 ORDER BY 1`);
	assert.equal(shares.length, 2);
	assert.equal(shares[0].n + shares[1].n, 20);
	// one leaves, the other has them all
	await members[1].close();
	await Promise.all(aggregates.map(id => eq.append('group', id, 'group.step', {})));
	await until(async () => await count() === 120, '120 events');
	await members[0].close();
	await other.close();
});

test('a batch handler, and bad input', async () => {
	const sizes = [];
	const subscription = eq.subscription('batches', events => { sizes.push(events.length); }, { filter: { event_type: 'group.step' }, batch: true, batchSize: 50 });
	await once(subscription, 'drained');
	assert.deepEqual(sizes, [50, 50, 20]);
	await subscription.close();
	assert.throws(() => eq.subscription('x', null), eqlib.UnsupportedOptionError);
	assert.throws(() => eq.subscription('x', () => {}, { buckets: 2, transaction: work => work() }), eqlib.UnsupportedOptionError);
	const missing = eq.subscription('missing', () => {}, { create: false });
	const [error] = await once(missing, 'error');
	assert.ok(error instanceof eqlib.NotFoundError, String(error));
	await missing.close();
});

test('what a transaction tells only at its end is a failure of the event: a failed statement that the handler caught, a deferred constraint', async () => {
	await query(connection, `CREATE TABLE once (id text UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO once VALUES ('E3')`);
	for (const id of ['E1', 'E2', 'E3', 'E4'])
		await eq.append('end', id, 'end.met', {});
	let broken = true;
	const order = [];
	const handler = async (event, { tx }) => {
		order.push(event.aggregateId);
		if (broken && event.aggregateId === 'E2')
			await tx.query('SELECT 1 / 0').catch(() => {});
		else
			await tx.query('INSERT INTO once VALUES ($1)', [event.aggregateId]);
	};
	const parked = {}, errors = [];
	const options = { filter: { event_type: 'end.met' }, maxAttempts: 2, backoff: () => 5 };
	const subscription = eq.subscription('end', handler, options);
	subscription.on('error', error => errors.push(error));
	subscription.on('parked', (event, error) => { parked[event.aggregateId] = error.message; });
	subscription.on('drained', () => order.push('drained'));
	await until(async () => (await rows('SELECT id FROM once')).length === 3, 'E1 and E4 go on');
	assert.deepEqual(Object.keys(parked), ['E2', 'E3']);
	assert.match(parked.E2, /a statement of the handler failed, and its error was caught/);
	assert.match(parked.E3, /duplicate key/);
	await query(connection, `DELETE FROM once WHERE id = 'E3'`);
	await subscription.retryParked();
	await eq.append('end', 'E5', 'end.met', {});
	const now = async ids => until(async () => JSON.stringify((await rows('SELECT id FROM once ORDER BY id')).map(({ id }) => id)) === JSON.stringify(ids), `there are ${ids}`);
	await now(['E1', 'E3', 'E4', 'E5']);
	assert.match(order.join(' '), /E2 E3(?! .*E3)/, 'one that is parked again does not keep others waiting');
	broken = false;
	await until(async () => (await rows(`SELECT 1 FROM event_queue.parked_aggregates WHERE subscription = 'end'`)).length === 1, 'E2 is parked again');
	await subscription.retryParked();
	await eq.append('end', 'E6', 'end.met', {});
	await now(['E1', 'E2', 'E3', 'E4', 'E5', 'E6']);
	assert.deepEqual(errors, []);
	await subscription.close();
});
