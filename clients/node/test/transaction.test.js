// Transactions: calls at the same time, calls that come too late, connections that die in the middle.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const eqlib = require('..');
const { freshDatabase, query, open, once, sleep, until, Client, Pool } = require('./helpers');

let connection, eq, queue;
before(async () => {
	connection = await freshDatabase('eq_node_transaction');
	eq = open(connection, { maxConnections: 2 });
	await eq.sync({ queues: { mail: {} } });
	queue = eq.queue('mail');
});
after(() => eq.close());

const refused = (promise, ErrorClass, message) => assert.rejects(promise, error => {
	assert.ok(error instanceof ErrorClass, `${error?.stack}`);
	assert.match(error.message, message);
	return true;
});
const numbers = [...Array(20).keys()];
const names = async () => (await query(connection, `SELECT name FROM event_queue.jobs WHERE queue = 'mail' ORDER BY job_id`)).map(row => row.name);

test('calls at the same time go one after the other, in their order, and pg has nothing to warn of', async () => {
	const warnings = [];
	const warned = warning => warnings.push(warning.message);
	process.on('warning', warned);
	const subscription = eq.subscription('parallel', async (events, { tx }) => {
		await Promise.all([...events.map(event => queue.add(`of ${event.aggregateId}`, {})), tx.query('SELECT 1'), tx.query('SELECT 2')]);
	}, { batch: true });
	await eq.transaction(async tx => {
		const jobs = numbers.map(n => queue.add(`job ${n}`, { n }));
		const events = numbers.slice(0, 3).map(n => eq.append('a', String(n), 'a.b'));
		const rows = await Promise.all([tx.query('SELECT 1 AS one'), ...jobs, ...events, tx.query({ text: 'SELECT $1::int AS two', values: [2] })]);
		assert.deepEqual([rows[0].rows, rows.at(-1).rows], [[{ one: 1 }], [{ two: 2 }]]);
		const [{ three }] = await new Promise((done, failed) => tx.query('SELECT 3 AS three', (error, result) => error ? failed(error) : done(result.rows)));
		assert.equal(three, 3);
	});
	await once(subscription, 'processed');
	await subscription.close();
	assert.deepEqual(await names(), [...numbers.map(n => `job ${n}`), 'of 0', 'of 1', 'of 2']);
	await sleep(20);
	process.removeListener('warning', warned);
	assert.deepEqual(warnings, []);
	await queue.empty();
});

test('one of several that fails: none of them is kept, also of those that nobody waited for', async () => {
	await refused(eq.transaction(() => Promise.all([queue.add('a', {}), queue.add('b', {}, { attempts: -1 }), queue.add('c', {}), queue.add('d', {})])),
		eqlib.UnsupportedOptionError, /attempts/);
	await refused(eq.transaction(tx => Promise.all([queue.add('a', {}), tx.query('SELECT 1 / 0'), queue.add('b', {}).catch(() => {}), queue.add('c', {}).catch(() => {})])),
		Error, /division by zero/);
	assert.deepEqual(await names(), []);
});

test('what is not waited for is part of the transaction if it began in it; what comes later is refused, whoever has the connection then', async () => {
	const one = open(connection, { maxConnections: 1 });
	const late = [];
	let stale;
	let go;
	const gate = new Promise(resolve => { go = resolve; });
	await one.transaction(async tx => {
		stale = tx;
		for (const n of numbers.slice(0, 5))
			void one.queue('mail').add(`not waited for ${n}`, {});
		late.push(gate.then(() => one.queue('mail').add('late', {})).catch(error => error));
	});
	assert.equal((await names()).length, 5);
	await assert.rejects(one.transaction(async () => {
		go();
		const errors = [...await Promise.all(late), await one.queue('mail').add('stale', {}, {}, { tx: stale }).catch(error => error), await stale.query('SELECT 1').catch(error => error)];
		for (const error of errors)
			assert.match(`${error}`, /^InvalidTransactionError: tx is a transaction that has ended: await what is done in it/);
		throw new Error('rolled back');
	}), /rolled back/);
	assert.equal((await names()).length, 5);
	await one.close();
	await queue.empty();
});

const terminate = pid => query(connection, 'SELECT pg_terminate_backend($1, 10000)', [pid]);

test('the connection of a transaction dies: a class of ours says so, in a transaction of ours and in the application\'s', async () => {
	const client = new Client(connection);
	client.on('error', () => {});
	await client.connect();
	const { rows: [{ pid }] } = await client.query('SELECT pg_backend_pid() AS pid');
	await client.query('BEGIN');
	await queue.add('lost', {}, {}, { tx: client });
	await terminate(pid);
	for (let i = 0; i < 2; i++)
		await refused(queue.add('lost', {}, {}, { tx: client }).then(() => undefined, error => {
			assert.equal(error.outcomeUnknown, false);
			throw error;
		}), eqlib.ConnectionError, /^the connection of tx is gone, and with it all that was done in the transaction/);
	await client.end().catch(() => {});

	const pool = new Pool({ ...connection, max: 1 });
	pool.on('error', () => {});
	const given = open(undefined, { pool });
	await refused(given.transaction(async tx => {
		await given.queue('mail').add('lost', {});
		await terminate((await tx.query('SELECT pg_backend_pid() AS pid')).rows[0].pid);
		await given.queue('mail').add('lost', {});
	}), eqlib.ConnectionError, /^the connection broke during the transaction: terminating connection due to administrator command/);
	// The pool goes on.
	await given.queue('mail').add('kept', {});
	await refused(given.transaction(async tx => {
		await tx.query(`SET LOCAL idle_in_transaction_session_timeout = '50ms'`);
		await given.queue('mail').add('lost', {});
		const [gone] = await Promise.all([once(tx, 'end'), sleep(1)]);
		assert.deepEqual(gone, []);
		await given.queue('mail').add('lost', {});
	}), eqlib.ConnectionError, /^the connection broke during the transaction: terminating connection due to idle-in-transaction timeout/);
	assert.deepEqual(await names(), ['kept']);
	await given.close();
	await pool.end();
	await queue.empty();
});
