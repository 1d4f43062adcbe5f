// What an application does wrong, or what comes at a bad moment: nothing is lost or stuck.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const eqlib = require('..');
const { Socket } = require('node:net');
const { forThread } = require('../dist/heartbeat');
const { freshDatabase, query, open, until, sleep, once } = require('./helpers');

let connection, eq, n = 0;
before(async () => {
	connection = await freshDatabase('eq_node_faults');
	eq = open(connection);
});
after(() => eq.close());

const newQueue = async (settings = '') => {
	const name = `faults${++n}`;
	await query(connection, `SELECT event_queue.create_queue('${name}'${settings === '' ? '' : `, ${settings}`})`);
	return eq.queue(name);
};

test('listeners that throw or reject are reported, and jobs go on', async () => {
	const queue = await newQueue();
	const errors = [];
	const done = [];
	const worker = eq.worker(queue.name, job => { done.push(job.data.n); }, { concurrency: 2 });
	worker.on('error', error => errors.push(error.message));
	worker.on('active', () => { throw new Error('active breaks'); });
	worker.on('completed', () => { throw new Error('completed breaks'); });
	worker.on('completed', async () => { throw new Error('never called'); });
	await queue.addBulk(Array.from({ length: 20 }, (_, n) => ({ name: 'x', data: { n } })));
	await until(() => done.length === 20, 'all are done');
	await until(async () => await queue.count() === 0 && worker.activeCount === 0, 'all are completed');
	await worker.close();
	assert.equal(new Set(done).size, 20);
	assert.equal(errors.filter(message => message === 'active breaks').length, 20);
	assert.equal(errors.filter(message => message === 'completed breaks').length, 20);

	const later = [];
	const other = eq.worker(queue.name, () => {});
	other.on('error', error => later.push(error.message));
	other.on('completed', async () => { throw new Error('rejected'); });
	await queue.add('x', {});
	await until(() => later.length === 1, 'a rejection of a listener is reported');
	assert.deepEqual(later, ['rejected']);
	await other.close();
});

test('a backoff strategy that throws, or gives no number, leaves no job behind', async () => {
	const queue = await newQueue("max_attempts => 2, backoff => 'fixed', backoff_delay => '10 milliseconds'");
	const errors = [];
	const failures = [];
	const worker = eq.worker(queue.name, () => { throw new Error('no\0good'); },
		{ settings: { backoffStrategies: { breaks: () => { throw new Error('strategy breaks'); }, nothing: () => NaN } } });
	worker.on('error', error => errors.push(error.message));
	worker.on('failed', (job, error, dead) => failures.push(dead));
	await queue.add('a', {}, { backoff: { type: 'breaks' } });
	await until(() => failures.includes(true), 'it is dead');
	await queue.add('b', {}, { backoff: { type: 'nothing' } });
	await until(() => failures.filter(dead => dead).length === 2, 'both are dead');
	await worker.close();
	assert.ok(errors.includes('strategy breaks'));
	assert.ok(errors.some(message => /gives NaN/.test(message)));
	const rows = await query(connection, 'SELECT DISTINCT last_error FROM event_queue.dead_letters WHERE queue = $1', [queue.name]);
	assert.deepEqual(rows, [{ last_error: 'nogood' }]);
});

test('jobs of a claim that was on its way when the worker was closed are not begun', async () => {
	const queue = await newQueue();
	const own = open(connection);
	const run = own.database.runWaiting;
	let answered, reached;
	const atServer = new Promise(resolve => { reached = resolve; });
	const hold = new Promise(resolve => { answered = resolve; });
	own.database.runWaiting = async function (sql, ...rest) {
		const rows = await run.call(this, sql, ...rest);
		if (/event_queue\.claim\(/.test(sql)) {
			reached();
			await hold;
		}
		return rows;
	};
	const job = await queue.add('x', {});
	let begun = 0;
	const worker = own.worker(queue.name, () => { begun++; });
	await atServer;
	const closed = worker.close();
	await sleep(0);
	answered();
	await closed;
	assert.equal(begun, 0);
	assert.equal(await job.getQueueState(), 'ready');
	await own.close();
});

test('close ends while the listening connection is being made, and leaves none', async () => {
	for (let i = 0; i < 20; i++) {
		const own = open(connection, { applicationName: 'eq closing' });
		const connecting = own.database.listen('event_queue.x', () => {});
		await sleep(i);
		connecting();
		await own.close();
	}
	await until(async () => (await query(connection, `SELECT FROM pg_stat_activity WHERE application_name LIKE 'eq closing%'`)).length === 0, 'all sessions are gone');
});

test('many channels at once: one statement after the other on the listening connection', async () => {
	const child = spawn(process.execPath, ['-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		const eq = new EventQueue({ connection: ${JSON.stringify(connection)}, handleSignals: false });
		let looked = 0;
		const first = eq.database.listen('first', () => {
			if (looked++ === 0)
				for (let n = 0; n < 20; n++)
					eq.database.listen('channel ' + n, () => { if (++looked === 21) eq.close(); })
		});`], { stdio: ['ignore', 'inherit', 'pipe'] });
	let errors = '';
	child.stderr.on('data', data => { errors += data; });
	const [code] = await once(child, 'close');
	assert.deepEqual([code, errors], [0, '']);
});

test('SIGTERM with two EventQueues: the process ends when the jobs of both have', async () => {
	const queues = [await newQueue(), await newQueue()];
	const child = spawn(process.execPath, ['-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		const where = ${JSON.stringify(connection)};
		new EventQueue({ connection: where }).worker('${queues[0].name}', () => {});
		new EventQueue({ connection: where }).worker('${queues[1].name}', async () => {
			console.log('begun');
			await new Promise(done => setTimeout(done, 1500));
		});`], { stdio: ['ignore', 'pipe', 'inherit'] });
	await queues[1].add('long', {});
	await once(child.stdout, 'data');
	child.kill('SIGTERM');
	const [code, signal] = await once(child, 'exit');
	assert.deepEqual([code, signal], [null, 'SIGTERM']);
	assert.equal(await queues[1].count() + (await queues[1].getActive()).length, 0);
});

test('a handler or transaction that fails to reach something else: no error of this connection', async () => {
	const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
	await assert.rejects(eq.transaction(async () => { throw refused; }), error => error === refused);
	await eq.append('thing', 'F1', 'thing.made');
	const subscription = eq.subscription('faults', () => { throw refused; }, { filter: { event_type: 'thing.*' }, maxAttempts: 3, backoff: () => 1 });
	subscription.on('failed', () => { throw new Error('a listener breaks'); });
	subscription.on('error', () => {});
	const [event, error] = await once(subscription, 'parked');
	assert.deepEqual([event.aggregateId, error], ['F1', refused]);
	await subscription.close();
});

test('settings of a connection that no thread can be given', () => {
	const ca = Buffer.from('x'), types = { getTypeParser: () => String };
	const config = forThread({ host: 'h', port: 1, types, ssl: { ca }, password: () => 'x', stream: undefined });
	assert.deepEqual(config, { host: 'h', port: 1, stream: undefined, ssl: { ca: new Uint8Array(ca) }, askPassword: true });
	for (const more of [{ ssl: { ca, checkServerIdentity: () => undefined } }, { stream: () => new Socket() }])
		assert.equal(forThread({ host: 'h', ...more }).cannotConnect, true);
});

test('removeOnComplete and removeOnFail of one job override the queue', async () => {
	const queue = await newQueue();
	const keepOf = async opts => {
		const { id } = await queue.add('x', {}, opts);
		const [{ keep }] = await query(connection, 'SELECT to_jsonb(keep) AS keep FROM event_queue.job WHERE job_id = $1', [id]);
		return keep && Object.fromEntries(Object.entries(keep).filter(([, value]) => value !== null));
	};
	assert.equal(await keepOf({}), null);
	assert.deepEqual(await keepOf({ removeOnComplete: true, removeOnFail: false }), { keep_completed: '00:00:00', keep_failed: '1000 years' });
	assert.deepEqual(await keepOf({ removeOnComplete: 100, removeOnFail: true }), { keep_completed_count: 100, keep_failed: '00:00:00' });
	assert.deepEqual(await keepOf({ removeOnComplete: { age: 60, count: 5 }, removeOnFail: { age: 3600 } }),
		{ keep_completed: '00:01:00', keep_completed_count: 5, keep_failed: '01:00:00' });
	assert.deepEqual(await keepOf({ removeOnComplete: 0 }), { keep_completed: '00:00:00' });
	for (const removeOnComplete of [-1, 'yes', {}, { count: -1 }, { age: 'x' }])
		await assert.rejects(queue.add('x', {}, { removeOnComplete }), eqlib.UnsupportedOptionError, JSON.stringify(removeOnComplete));
	await queue.obliterate({ force: true });

	const other = await newQueue();
	const kept = await other.add('kept', {}, { removeOnComplete: false });
	const gone = await other.add('gone', {}, { removeOnComplete: true });
	const worker = eq.worker(other.name, async () => {});
	await until(async () => (await other.count()) === 0 && (await other.getActive()).length === 0, 'both are done');
	await worker.close();
	assert.equal(await kept.isCompleted(), true);
	assert.equal(await other.getJob(gone.id), null);
});

test('tx of a job of addBulk: refused', async () => {
	const queue = await newQueue();
	await assert.rejects(queue.addBulk([{ name: 'x', opts: { tx: {} } }]), eqlib.UnsupportedOptionError);
});
