// Values, names, errors, clocks and transactions that nobody meant: a clear error or the right
// result, and nothing is lost, stuck or done twice.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const vm = require('node:vm');
const eqlib = require('..');
const { freshDatabase, query, open, until, sleep, once, Client, Pool, where } = require('./helpers');

let connection, eq, n = 0;
before(async () => {
	connection = await freshDatabase('eq_node_hostile');
	eq = open(connection);
});
after(() => eq.close());

const newQueue = async (settings = '') => {
	const name = `hostile${++n}`;
	await query(connection, `SELECT event_queue.create_queue('${name}', keep_completed => '1 hour'${settings === '' ? '' : `, ${settings}`})`);
	return eq.queue(name);
};
const refused = (call, error, text) => assert.rejects(call, thrown => {
	assert.ok(thrown instanceof error, `${thrown?.stack} is no ${error.name}`);
	assert.match(thrown.message, text);
	return true;
});

test('payloads come as they went: __proto__, numbers, dates, texts; what JSON can not say is refused by name', async () => {
	const queue = await newQueue();
	const seen = [];
	const worker = eq.worker(queue.name, job => { seen.push(job.data); return job.data; });
	const given = [
		JSON.parse('{"__proto__": {"admin": true}, "constructor": {"prototype": {"x": 1}}, "toString": "text"}'),
		{ big: Number.MAX_SAFE_INTEGER, small: -Number.MAX_SAFE_INTEGER, tiny: 5e-324, huge: 1.7976931348623157e308, zero: 0, part: 0.1 },
		'', 'text', 0, false, null, [], [[[]]], { '': { ' ': '\u2028 \uffff é 🎉 \\u0000 \\ud800' } },
	];
	for (const data of given)
		await queue.add('x', data);
	await until(async () => (await queue.getJobCounts()).completed === given.length, 'all are done');
	// jsonb has its own order of keys.
	const canonical = data => JSON.stringify(data, (_, value) => value !== null && typeof value === 'object' && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort()) : value);
	assert.deepEqual(seen.map(canonical).sort(), given.map(canonical).sort());
	const proto = seen.find(data => data?.toString === 'text');
	assert.deepEqual([Object.hasOwn(proto, '__proto__'), proto.admin, {}.admin, {}.x], [true, undefined, undefined, undefined]);
	const dated = await queue.add('x', { at: new Date(0), none: undefined, list: [undefined, () => {}], nan: NaN });
	assert.deepEqual(await dated.finished(), { at: '1970-01-01T00:00:00.000Z', list: [null, null], nan: null });
	await worker.close();

	const circle = { in: [] };
	circle.in.push(circle);
	await refused(queue.add('x', circle), eqlib.InvalidPayloadError, /the data of job x is no JSON: .*circular/);
	await refused(queue.add('x', { id: 2n ** 64n }), eqlib.InvalidPayloadError, /the data of job x .*BigInt: give it as a string/);
	await refused(queue.add('x', { text: 'nul \0' }), eqlib.InvalidPayloadError, /the data of job x .*u0000.*remove it/);
	await refused(queue.add('x', { 'half \ud83c': 1 }), eqlib.InvalidPayloadError, /the data of job x .*half a surrogate/);
	await refused(queue.add('x', () => {}), eqlib.InvalidPayloadError, /a function/);
	for (const add of [data => queue.addBulk([{ name: 'x', data }]), data => eq.transaction(() => queue.add('x', data))]) {
		await refused(add(circle), eqlib.InvalidPayloadError, /circular/);
		await refused(add({ id: 1n }), eqlib.InvalidPayloadError, /BigInt/);
		await refused(add(Symbol('x')), eqlib.InvalidPayloadError, /it is a symbol/);
	}
	await refused(queue.add('x', {}, { metadata: { id: 1n } }), eqlib.InvalidPayloadError, /the options of job x/);
	await refused(eq.append('a', 'b', 'c.d', { text: '\0' }), eqlib.InvalidPayloadError, /the data of event c\.d/);
	await refused(queue.addBulk([{ name: 'good' }, { name: 'bad', data: 1n }]), eqlib.InvalidPayloadError, /job bad/);
	assert.equal(await queue.count(), 0);
});

test('options that are no such thing are refused by name and value', async () => {
	const queue = await newQueue();
	for (const [opts, text] of [
		[{ delay: NaN }, /delay is NaN/], [{ delay: '5' }, /delay is '5'/], [{ delay: Infinity }, /delay is Infinity/], [{ timeout: NaN }, /timeout is NaN/],
		[{ runAt: new Date('no') }, /runAt is Invalid Date, not a valid Date/], [{ runAt: Date.now() }, /runAt is \d+, not/], [{ jobId: {} }, /jobId is {}, neither/],
		[{ uniqueKey: ['a'] }, /uniqueKey is \[ 'a' \], neither/], [{ groupKey: { a: 1 } }, /groupKey is { a: 1 }, neither/], [{ metadata: 'text' }, /metadata is 'text', not an object/],
		[{ metadata: [1] }, /metadata/], [{ dependsOn: [{}] }, /dependsOn has {}/], [{ dependsOn: ['x'] }, /dependsOn has 'x'/], [{ dependsOn: [2 ** 60] }, /dependsOn/],
		[{ constructor: 1 }, /option constructor of a job is not known/], [{ toString: 1 }, /option toString of a job is not known/], [{ backoff: { type: 1 } }, /backoff is { type: 1 }/],
		[{ attempts: 10n }, /attempts is 10n/], [{ backoff: Symbol('x') }, /backoff is Symbol\(x\)/], [{ dependsOn: '7' }, /dependsOn is '7', not an array/],
		[{ dependsOn: 7 }, /dependsOn is 7, not an array/], [5000, /options of job x are 5000, not an object/], ['high', /options of job x are 'high'/], [[1], /options of job x are \[ 1 \]/],
	])
		for (const add of [() => queue.add('x', {}, opts), () => queue.addBulk([{ name: 'x', data: {}, opts }]), () => eq.transaction(() => queue.add('x', {}, opts))])
			await refused(add(), eqlib.UnsupportedOptionError, text);
	await refused(queue.addBulk(), eqlib.UnsupportedOptionError, /addBulk is given undefined, not an array/);
	await refused(queue.addBulk([null]), eqlib.UnsupportedOptionError, /job 0 of addBulk is null/);
	// Else the delay would be nobody's.
	await refused(queue.addBulk([{ name: 'x', data: {}, options: { delay: 5 } }]), eqlib.UnsupportedOptionError, /option options of job 0 of addBulk is not known; known are data, name, opts/);
	await refused(queue.add('x', { toJSON() {} }), eqlib.InvalidPayloadError, /an object whose toJSON gives nothing/);
	await refused(queue.getJobs(['constructor']), eqlib.UnsupportedOptionError, /constructor; it knows waiting/);
	assert.equal(await queue.count(), 0);
	// No own property of the data: no group
	const grouped = eq.queue(queue.name, { limiter: { max: 1, duration: 1, groupKey: 'constructor.name' } });
	assert.equal((await grouped.add('x', { a: 1 })).groupKey, undefined);
	assert.equal((await grouped.add('x', { constructor: { name: 7 } })).groupKey, '7');
});

test('options of an EventQueue, a queue, a worker and a subscription that mean nothing are refused, before anything is done', async () => {
	const queue = await newQueue();
	const { EventQueue, UnsupportedOptionError } = eqlib;
	const thrown = (call, text) => assert.throws(call, error => error instanceof UnsupportedOptionError && text.test(error.message) || assert.fail(error));
	thrown(() => new EventQueue({ redis: {} }), /option redis of the EventQueue is not known; known are applicationName, connectWait, connection,/);
	thrown(() => new EventQueue('postgresql://localhost/app'), /options of the EventQueue are 'postgresql/);
	thrown(() => new EventQueue({ connection: 'redis://localhost:6379' }), /a URI of Redis/);
	thrown(() => new EventQueue({ connection: { connectionString: 'rediss://localhost' } }), /a URI of Redis/);
	thrown(() => eq.queue('new', { redis: {} }), /option redis of queue "new" is not known/);
	thrown(() => eq.queue('new', { defaultJobOptions: { lifo: true } }), /lifo .*has no meaning here/);
	thrown(() => eq.queue('new', { limiter: { max: 5 } }), /limiter\.duration is undefined/);
	thrown(() => eq.queue('new', { settings: { lockduration: 5 } }), /option lockduration of settings of a queue is not known/);
	thrown(() => eq.queue({ name: 'new' }), /the name of a queue is a object/);
	const worker = (options, text) => thrown(() => eq.worker(queue.name, () => {}, { autorun: false, ...options }), text);
	worker({ limiter: { max: 1, duration: 1000 } }, /option limiter of the worker of queue "hostile\d+" has no meaning here: .*sync\(\)/);
	worker({ concurency: 5 }, /option concurency of the worker .*known are autorun, concurrency/);
	worker({ lockDuration: -5 }, /lockDuration is -5/);
	worker({ settings: { backoffStrategy: () => 5 } }, /backoffStrategy/);
	thrown(() => eq.subscription('none', () => {}, { filters: {} }), /option filters of subscription "none" is not known/);
});

test('jobs that are called constructor, __proto__ and so on each have their processor', async () => {
	const queue = await newQueue('max_attempts => 1');
	const names = ['constructor', '__proto__', 'toString', 'hasOwnProperty', '__default__', 'valueOf', "o'brien \"; --", '*x'];
	const did = [];
	const worker = eq.worker(queue.name, {}, { autorun: false });
	for (const name of names)
		worker.process(name, job => { did.push([name, job.name]); });
	await worker.run();
	await queue.addBulk(names.map(name => ({ name, data: {} })));
	await until(() => did.length === names.length, 'all are done');
	assert.deepEqual(did.map(([mine, job]) => mine === job), names.map(() => true));
	const errors = [];
	worker.on('error', error => errors.push(error.message));
	worker.process('fails', () => { throw new Error('x'); });
	const failed = once(worker, 'failed');
	await queue.add('fails', {}, { backoff: { type: 'constructor', delay: 1 } });
	await failed;
	assert.match(errors[0], /there is no backoff strategy "constructor"/);
	await worker.close();
});

test('whatever a processor throws is a failed attempt with a message', async () => {
	const queue = await newQueue('max_attempts => 1');
	const broken = new Proxy({}, { get() { throw new Error('no'); }, ownKeys() { throw new Error('no'); }, getPrototypeOf() { throw new Error('no'); } });
	const withMessage = message => Object.assign(new Error('x'), { message });
	const things = {
		undefined, null: null, symbol: Symbol('s'), number: 7, bare: Object.create(null), object: { code: 'E1', status: 400 }, like: { message: 'as an error', name: 'X' },
		realm: vm.runInNewContext(`new TypeError('of another realm')`), proxy: broken, 'odd message': withMessage({ a: 1 }), 'no message': withMessage(''),
		'nul': new Error('nul \0 inside'), half: new Error('half \ud83c'), frozen: Object.freeze(new Error('frozen')), promise: Promise.resolve(1),
		'odd stack': Object.assign(new Error('odd stack'), { stack: 7 }), 'no stack': Object.assign(new Error('no stack'), { stack: undefined }), aggregate: new AggregateError([new Error('a')], 'both'),
	};
	const worker = eq.worker(queue.name, job => { throw things[job.name]; }, { concurrency: 5 });
	const failed = {};
	worker.on('failed', (job, error, dead) => { failed[job.name] = [error instanceof Error || typeof error.message === 'string', job.failedReason, dead]; });
	worker.on('error', error => assert.fail(error));
	for (const name of Object.keys(things))
		await queue.add(name, {});
	await until(async () => (await queue.getJobCounts()).failed === Object.keys(things).length, 'all are dead');
	assert.deepEqual(Object.keys(failed).sort(), Object.keys(things).sort());
	assert.ok(Object.values(failed).every(([is, reason, dead]) => is && typeof reason === 'string' && reason !== '' && dead), JSON.stringify(failed));
	assert.deepEqual(['undefined', 'null', 'number', 'like', 'realm', 'odd message'].map(name => failed[name][1]), ['undefined', 'null', '7', 'as an error', 'of another realm', '{ a: 1 }']);
	assert.match(failed.object[1], /status: 400/);
	const kept = await query(connection, `SELECT errors -> -1 ->> 'message' AS message FROM event_queue.dead_letters WHERE queue = $1 AND name = 'nul'`, [queue.name]);
	assert.equal(kept[0].message, 'nul  inside');
	await worker.close();
});

test('waits that are no time, or longer than a timer: told, and no loop', async () => {
	const queue = await newQueue("backoff => 'fixed', backoff_delay => '1 hour'");
	const { RateLimitError, DelayedError, RetryAfterError } = eqlib;
	const errors = [];
	const thrown = { nan: new RateLimitError(NaN, 'job'), late: new DelayedError('soon'), text: new RetryAfterError('busy', 'x'), for_ever: new DelayedError(Infinity), ago: new DelayedError(-5000), long: new RateLimitError(2 ** 40, 'worker') };
	const done = new Set();
	let calls = 0;
	const { runWaiting } = eq.database;
	const worker = eq.worker(queue.name, job => { if (job.stalledCounter === 0 && !done.has(job.id)) { done.add(job.id); throw thrown[job.name]; } }, { concurrency: 3 });
	worker.on('error', error => errors.push(error.message));
	for (const name of ['nan', 'late', 'text', 'for_ever', 'ago'])
		await queue.add(name, {});
	await until(async () => (await queue.getJobCounts()).completed === 4, 'those that come again are done');
	assert.deepEqual(errors.map(message => /wait of its (\w+) is (\S+),/.exec(message).slice(1).join(' ')).sort(), ['DelayedError soon', 'RateLimitError NaN', 'RetryAfterError x']);
	const [forEver] = await query(connection, `SELECT run_at > now() + '90 years' AS late, failures FROM event_queue.job j WHERE name = 'for_ever'`);
	assert.deepEqual(forEver, { late: true, failures: 0 });
	await queue.add('long', {});
	await until(() => done.size === 6, 'it is limited');
	await sleep(200);
	eq.database.runWaiting = function (sql, ...rest) { calls += /claim/.test(sql); return runWaiting.call(this, sql, ...rest); };
	await sleep(500);
	eq.database.runWaiting = runWaiting;
	assert.equal(calls, 0, 'no claims meanwhile');
	// The longest wait for an end is not the shortest.
	await worker.close({ timeout: Infinity });
});

test('a clock that is a day ahead, and jumps back in the middle of a job: its lease is kept', async () => {
	const queue = await newQueue("lease => '2 seconds', stalled_interval => '100 milliseconds'");
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eq-clock-'));
	const skew = path.join(dir, 'skew.js');
	// In the thread of the heartbeat, too
	fs.writeFileSync(skew, `const real = Date.now; let by = 86400000; Date.now = () => real() + by; setTimeout(() => { by = -3 * 86400000; }, 1500).unref();`);
	const child = spawn(process.execPath, ['--require', skew, '-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		const eq = new EventQueue({ connection: ${JSON.stringify(connection)}, handleSignals: false });
		const worker = eq.worker('${queue.name}', async job => { console.log('begins'); await new Promise(done => setTimeout(done, 6000)); return job.stalledCounter; });
		worker.on('completed', (job, result) => { console.log('stalled ' + result); eq.close(); });
		worker.on('lost', () => { console.log('lost'); eq.close(); });`], { stdio: ['ignore', 'pipe', 'inherit'] });
	let said = '';
	child.stdout.on('data', data => { said += data; });
	await queue.add('x', {});
	await until(() => said.includes('begins'), 'it has begun');
	const rival = eq.worker(queue.name, () => 'stolen');
	await once(child, 'close');
	assert.equal(said, 'begins\nstalled 0\n');
	await rival.close();
	fs.rmSync(dir, { recursive: true });
	// Times are those of the server: a delay counts from its now.
	const { id } = await queue.add('x', {}, { delay: 60_000 });
	const [{ s }] = await query(connection, 'SELECT round(extract(epoch FROM run_at - created_at))::int AS s FROM event_queue.job WHERE job_id = $1', [id]);
	assert.equal(s, 60);
});

test('a pool that is used up: the call says so, and goes on when there is one', async () => {
	const queue = await newQueue();
	const pool = new Pool({ ...connection, max: 1 });
	const own = open(undefined, { pool, connectWait: 300 });
	const held = await pool.connect();
	await held.query('BEGIN');
	await refused(own.queue(queue.name).add('x', {}), eqlib.ConnectionError, /none of the pool's 1 connections became free: pass \{ tx \}/);
	const inside = await own.queue(queue.name).add('inside', {}, { tx: held });
	// Workers wait for it.
	const worker = own.worker(queue.name, () => 'done');
	await sleep(500);
	await held.query('COMMIT');
	held.release();
	assert.equal(await eq.awaitJob(inside.id), 'done');
	assert.equal(await (await own.queue(queue.name).add('x', {})).getQueueState() !== undefined, true);
	await worker.close();
	await own.close();
	assert.equal(pool.idleCount, pool.totalCount, 'all were given back');
	await pool.end();

	const one = open(connection, { maxConnections: 1, connectWait: 300 });
	const id = await one.transaction(async () => (await one.queue(queue.name).add('ambient', {})).id);
	assert.equal((await one.queue(queue.name).getJob(id)).name, 'ambient');
	const warnings = [];
	const warned = warning => warnings.push(warning.message);
	process.on('warning', warned);
	const busy = one.transaction(() => sleep(1000));
	await sleep(50);
	// Those with a key go alone: each of them waits.
	const waiting = await Promise.allSettled(Array.from({ length: 50 }, (_, n) => one.queue(queue.name).add('x', {}, { jobId: n })));
	assert.ok(waiting.every(one => one.reason instanceof eqlib.ConnectionError && /none of the pool's 1 connections/.test(one.reason.message) && !one.reason.outcomeUnknown));
	await busy;
	await one.queue(queue.name).add('x', {}, { jobId: 1 });
	await one.close();
	process.removeListener('warning', warned);
	assert.deepEqual(warnings, []);
});

test('a job gets other data while it waits and from its processor; delayed, it is due when it is told to', async () => {
	const queue = await newQueue("max_attempts => 3, backoff => 'fixed', backoff_delay => '1 hour'");
	const job = await queue.add('x', { n: 0 }, { delay: 3600_000 });
	await assert.rejects(eq.transaction(async () => { await job.update({ n: 9 }); throw new Error('rolled back on purpose'); }), /on purpose/);
	await job.update({ n: 1 });
	await refused(job.update(undefined), eqlib.InvalidPayloadError, /the data of job x/);
	await refused(job.update({ n: 1n }), eqlib.InvalidPayloadError, /BigInt/);
	assert.deepEqual((await queue.getJob(job.id)).data, { n: 1 });
	const seen = [];
	const worker = eq.worker(queue.name, async one => {
		seen.push(one.data.n);
		await one.update({ n: one.data.n + 1 });
		if (one.data.n < 4)
			throw new Error(`now ${one.data.n}`);
		return one.data;
	});
	const failed = once(worker, 'failed');
	await job.promote();
	await failed;
	await job.promote();
	await until(() => seen.length === 2, 'its second attempt');
	await until(async () => await job.isDelayed(), 'it waits for the third');
	assert.equal(await queue.promoteJobs(), 1);
	assert.deepEqual(await job.finished(), { n: 4 });
	assert.deepEqual(seen, [1, 2, 3]);
	const dead = await queue.add('y', { n: 0 }, { attempts: 1 });
	await until(() => dead.isFailed(), 'it is dead');
	await refused(dead.update({ n: 3 }), eqlib.JobNotFoundError, /is not waiting.*retry_dead/);
	await dead.retry({ data: { n: 3 } });
	assert.deepEqual(await dead.finished(), { n: 4 });
	await worker.close();
});

test('a job of a transaction that was rolled back never was', async () => {
	const queue = await newQueue();
	let job;
	await assert.rejects(eq.transaction(async () => {
		job = await queue.add('x', {}, { jobId: 'k' });
		throw new Error('rolled back on purpose');
	}), /on purpose/);
	assert.deepEqual([await queue.getJob(job.id), await job.getQueueState(), await job.getState(), await job.finished()], [null, 'gone', 'stuck', undefined]);
	assert.notEqual((await queue.add('x', {}, { jobId: 'k' })).id, job.id);
});

test('looking, pausing and removing are part of the transaction, given or present; processors are part of none', async () => {
	const queue = await newQueue();
	const there = await queue.add('there', {});
	const worker = eq.worker(queue.name, async job => { await queue.add('by a processor', { of: job.id }, { delay: 3600_000 }); return eq.currentTransaction() === undefined; });
	worker.pause();
	await assert.rejects(eq.transaction(async () => {
		const { id } = await queue.add('mine', {});
		assert.equal((await queue.getJob(id)).name, 'mine');
		assert.deepEqual([await queue.count(), (await queue.getWaiting()).length, (await queue.getJobCounts()).waiting], [2, 2, 2]);
		await there.remove();
		await queue.pause();
		assert.deepEqual([await queue.isPaused(), await there.getQueueState(), await queue.count()], [true, 'gone', 1]);
		throw new Error('rolled back on purpose');
	}), /on purpose/);
	assert.deepEqual([await queue.isPaused(), await there.getQueueState(), await queue.count()], [false, 'ready', 1]);
	const client = new Client(connection);
	await client.connect();
	await client.query('BEGIN');
	await queue.pause({ tx: client });
	assert.deepEqual([await queue.isPaused({ tx: client }), await queue.isPaused()], [true, false]);
	await client.query('ROLLBACK');
	await client.end();
	// What begins to work because of a call in a transaction is not part of that.
	await assert.rejects(eq.transaction(async () => {
		worker.resume();
		await until(async () => (await eq.outside(() => there.getQueueState())) === 'completed', 'it is done');
		throw new Error('rolled back on purpose');
	}), /on purpose/);
	assert.equal(await there.finished(), true);
	assert.equal(await queue.count(), 1);
	await worker.close();
});

test('tx that is no transaction any more, or never was, in each library', async () => {
	const queue = await newQueue();
	const add = tx => queue.add('never', {}, { tx });
	const ended = /has ended|has none open/;

	const pool = new Pool(connection);
	const client = await pool.connect();
	await refused(add(client), eqlib.InvalidTransactionError, /after BEGIN/);
	// Not awaited: the BEGIN is before it.
	void client.query('BEGIN');
	await add(client);
	await client.query('ROLLBACK');
	await refused(add(client), eqlib.InvalidTransactionError, ended);
	await refused(eq.append('a', 'b', 'c.d', {}, { tx: client }), eqlib.InvalidTransactionError, ended);
	client.release();
	await refused(add(client), eqlib.InvalidTransactionError, ended);
	await pool.end();
	const single = new Client(connection);
	await single.connect();
	await single.query('BEGIN');
	await single.end();
	await refused(add(single), eqlib.InvalidTransactionError, ended);

	const knex = require('knex')({ client: 'pg', connection, pool: { min: 0, max: 2 } });
	let old = await knex.transaction(async trx => trx);
	await refused(add(old), eqlib.InvalidTransactionError, ended);
	await knex.destroy();

	require('reflect-metadata');
	const { DataSource } = require('typeorm');
	const source = new DataSource({ type: 'postgres', host: where.host, port: where.port, username: 'postgres', database: connection.database });
	await source.initialize();
	await refused(add(source.manager), eqlib.InvalidTransactionError, /outside of a transaction/);
	old = await source.transaction(async manager => manager);
	await refused(add(old), eqlib.InvalidTransactionError, /outside of a transaction|has ended/);
	const runner = source.createQueryRunner();
	await refused(add(runner), eqlib.InvalidTransactionError, /startTransaction/);
	await runner.startTransaction();
	await runner.rollbackTransaction();
	await runner.release();
	await refused(add(runner), eqlib.InvalidTransactionError, /startTransaction|has ended/);
	await source.destroy();

	const { drizzle } = require('drizzle-orm/node-postgres');
	const drizzlePool = new Pool(connection);
	const orm = drizzle(drizzlePool);
	await refused(add(orm), eqlib.InvalidTransactionError, /Drizzle itself/);
	old = await orm.transaction(async tx => tx);
	await refused(add(old), eqlib.InvalidTransactionError, ended);
	await drizzlePool.end();
	for (const nothing of [null, 7, 'tx', {}, () => {}])
		await refused(add(nothing), eqlib.InvalidTransactionError, /tx is/);
	assert.equal(await queue.count(), 0, 'none was added outside of its transaction');
});

test('currentTransaction that gives the client itself outside of a transaction is none', async () => {
	const queue = await newQueue();
	const client = new Client(connection);
	await client.connect();
	const own = open(connection, { currentTransaction: () => client });
	await own.queue(queue.name).add('x', {});
	assert.equal(await queue.count(), 1);
	await own.close();
	await client.end();
});

test('two workers of one name: each job once, and each settles its own', async () => {
	const queue = await newQueue();
	const runs = new Map();
	const other = open(connection);
	const process = async job => { runs.set(job.id, (runs.get(job.id) ?? 0) + 1); await sleep(1); };
	const workers = [eq, eq, other].map(one => one.worker(queue.name, process, { name: 'the same', concurrency: 4 }));
	for (const worker of workers)
		worker.on('lost', job => assert.fail(`lost ${job.id}`)).on('error', error => assert.fail(error));
	const jobs = await queue.addBulk(Array.from({ length: 600 }, () => ({ name: 'x' })));
	await until(async () => (await queue.getJobCounts()).completed === 600, 'all are done');
	assert.deepEqual([runs.size, [...runs.values()].every(times => times === 1), jobs.length], [600, true, 600]);
	await Promise.all(workers.map(worker => worker.close()));
	await other.close();
});

test('the concurrency of a processor is changed while it works', async () => {
	const queue = await newQueue();
	let now = 0, most = 0, done = 0;
	const worker = eq.worker(queue.name, async () => { most = Math.max(most, ++now); await sleep(10); now--; done++; }, { concurrency: 1 });
	await queue.addBulk(Array.from({ length: 400 }, () => ({ name: 'x' })));
	await until(() => done > 5, 'some are done one by one');
	assert.equal(most, 1);
	worker.setConcurrency(20);
	await until(() => most === 20, 'twenty at a time');
	worker.setConcurrency(2);
	await until(() => now <= 2, 'those that were more have ended');
	most = 0;
	await until(() => done === 400, 'all are done');
	assert.equal(most, 2);
	for (const wrong of [0, 1.5, NaN, Infinity, '3'])
		assert.throws(() => worker.setConcurrency(wrong), eqlib.UnsupportedOptionError);
	assert.throws(() => worker.setConcurrency(1, 'none'), /no processor for job "none"/);
	await worker.close();
});

test('timeouts of the role make waits shorter, and nothing else', async () => {
	const queue = await newQueue();
	await query(connection, `DROP ROLE IF EXISTS eq_node_hasty; CREATE ROLE eq_node_hasty LOGIN SUPERUSER;
		ALTER ROLE eq_node_hasty SET statement_timeout = '200ms'; ALTER ROLE eq_node_hasty SET default_transaction_isolation = serializable`);
	const own = open({ ...connection, user: 'eq_node_hasty' });
	own.on('error', error => errors.push(error));
	const errors = [], heard = [];
	own.subscription('hasty', event => { heard.push(event.eventType); }, { filter: { event_type: 'hasty.*' } });
	const job = await own.queue(queue.name).add('x', {});
	const finished = job.finished();
	await sleep(600);
	const worker = own.worker(queue.name, async () => { await own.append('hasty', '1', 'hasty.done'); return 'done'; });
	assert.equal(await finished, 'done');
	await until(() => heard.length === 1, 'the event is heard');
	assert.deepEqual(errors.map(String), []);
	await worker.close();
	await own.close();
});

test('where transactions are serializable, calls that conflict are made again', async () => {
	const queue = await newQueue('max_attempts => 1');
	await query(connection, `DROP ROLE IF EXISTS eq_node_strict; CREATE ROLE eq_node_strict LOGIN SUPERUSER;
		ALTER ROLE eq_node_strict SET default_transaction_isolation = serializable;
		CREATE SEQUENCE tries;
		CREATE FUNCTION conflict(times int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('tries') <= times THEN RAISE 'of this test' USING ERRCODE = CASE WHEN currval('tries') = 1 THEN '40001' ELSE '40P01' END; END IF;
			RETURN currval('tries');
		END $$`);
	const own = open({ ...connection, user: 'eq_node_strict' });
	assert.deepEqual(await own.database.run('SELECT public.conflict(2) AS tries', []), [{ tries: '3' }]);
	await query(connection, 'ALTER SEQUENCE tries RESTART');
	// Who has a transaction of his own does it again himself.
	await assert.rejects(own.transaction(tx => tx.query('SELECT public.conflict(1)')), error => error.code === '40001');
	const mine = own.queue(queue.name);
	const worker = own.worker(queue.name, async job => { await job.log('a line'); await job.update({ done: true }); }, { concurrency: 5 });
	worker.on('failed', (_, error) => assert.fail(error));
	await Promise.all(Array.from({ length: 40 }, (_, i) => mine.add('x', { i }, { jobId: i })));
	await until(async () => (await mine.getJobCounts()).completed === 40, 'all are done');
	await worker.close();
	await own.close();
});

test('closed is closed: nothing is open, waited for or claimed, also where a processor never ends', async () => {
	const queue = await newQueue();
	const child = spawn(process.execPath, ['-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		(async () => {
			const eq = new EventQueue({ connection: ${JSON.stringify(connection)} });
			const queue = eq.queue('${queue.name}');
			let begun = 0;
			const worker = eq.worker('${queue.name}', () => { begun++; return new Promise(() => {}); }, { concurrency: 2, prefetch: 2 });
			const subscription = eq.subscription('handles', () => {});
			const drained = new Promise(resolve => subscription.once('drained', resolve));
			const unused = eq.worker('${queue.name}', () => {}, { autorun: false });
			await queue.addBulk(Array.from({ length: 6 }, () => ({ name: 'x' })));
			while (begun < 2)
				await new Promise(resolve => setTimeout(resolve, 10));
			await drained;
			await eq.close({ timeout: 100 });
			await eq.close();
			const after = await Promise.allSettled([queue.add('late', {}), eq.append('a', 'b', 'c.d'), eq.ready().then(() => eq.state('a', 'b')), worker.run()]);
			const late = (() => { try { eq.worker('${queue.name}', () => {}); } catch (error) { return error.name; } })();
			await new Promise(setImmediate);
			console.log(JSON.stringify({ begun, late, after: after.map(one => one.reason?.name ?? 'done'),
				open: process.getActiveResourcesInfo().filter(one => !/^(TTY|Pipe)Wrap$/.test(one)), signals: process.listenerCount('SIGTERM') + process.listenerCount('SIGINT') }));
		})();`], { stdio: ['ignore', 'pipe', 'inherit'] });
	let said = '';
	child.stdout.on('data', data => { said += data; });
	const [code] = await once(child, 'close');
	assert.deepEqual([code, JSON.parse(said)], [0, { begun: 2, late: 'ClosedError', after: ['ClosedError', 'ClosedError', 'ClosedError', 'done'], open: [], signals: 0 }]);
	assert.deepEqual(await query(connection, 'SELECT state, failures, stalled, count(*)::int AS n FROM event_queue.jobs WHERE queue = $1 GROUP BY 1, 2, 3', [queue.name]), [{ state: 'ready', failures: 0, stalled: 0, n: 6 }]);
	const sessions = await query(connection, `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'event_queue_node%'`);
	assert.ok(sessions.every(session => !/subscribes/.test(session.application_name)));
});

test('closed while the server is away: it ends, and so does the process', async () => {
	const child = spawn(process.execPath, ['-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		const eq = new EventQueue({ connection: { host: '127.0.0.1', port: 1, database: 'x', user: 'x' }, connectWait: 100 });
		eq.on('error', () => {});
		eq.worker('x', () => {});
		eq.subscription('x', () => {});
		setTimeout(() => eq.close({ timeout: 100 }).then(() => console.log('closed')), 300);`], { stdio: ['ignore', 'pipe', 'inherit'] });
	let said = '';
	child.stdout.on('data', data => { said += data; });
	const [code] = await once(child, 'close');
	assert.deepEqual([code, said], [0, 'closed\n']);
});

test('addBulk of more than one document of jsonb holds goes in several calls, all or none, in order', async () => {
	const queue = await newQueue();
	const jobs = Array.from({ length: 40 }, (_, n) => ({ name: 'x', data: { n, text: 'x'.repeat(900 * 1024) } }));
	let transactions = 0;
	const { transaction } = eq.database;
	eq.database.transaction = function (work) { transactions++; return transaction.call(this, work); };
	try {
		await refused(queue.addBulk([...jobs, { name: 'bad', opts: { priorityLevel: 55 } }]), eqlib.InvalidArgumentError, /priority 55/);
		assert.equal(await queue.count(), 0);
		const added = await queue.addBulk(jobs);
		assert.deepEqual(await query(connection, `SELECT job_id::text AS id FROM event_queue.jobs WHERE queue = $1 ORDER BY (payload ->> 'n')::int`, [queue.name]), added.map(({ id }) => ({ id })));
		await queue.addBulk(jobs.slice(0, 2));
		assert.equal(transactions, 2, 'what one call holds needs no transaction');
	} finally {
		eq.database.transaction = transaction;
	}
	await eq.transaction(async tx => {
		await queue.addBulk(jobs, { tx });
		await tx.query('ROLLBACK; BEGIN');
	});
	assert.equal(await queue.count(), 42);
	await queue.empty();
	// Of one job of more than 256 MB, which takes long.
	const known = require('../dist/errors').toEventQueueError(Object.assign(new Error('string too long to represent as jsonb string'), { code: '54000' }));
	assert.ok(known instanceof eqlib.PayloadTooLargeError && /holds 256 MB/.test(known.message));
});

test('however many wait for jobs: no connection is held, results of this process are told though nothing is kept, and close() does not wait', async () => {
	await query(connection, `SELECT event_queue.create_queue('awaited', max_attempts => 1)`);
	const own = open({ ...connection, max: 2 });
	const queue = own.queue('awaited');
	const jobs = await queue.addBulk(Array.from({ length: 60 }, (_, n) => ({ name: n % 10 === 9 ? 'bad' : 'good', data: { n } })));
	const all = Promise.allSettled(jobs.map(job => job.finished()));
	await refused(own.awaitJob(jobs[0].id, { timeout: 50 }), eqlib.JobFailedError, /is not finished after 50 ms: it is ready/);
	own.worker('awaited', async job => {
		await sleep(5);
		if (job.name === 'bad')
			throw new Error(`bad ${job.data.n}`);
		return job.data;
	}, { concurrency: 3 });
	assert.deepEqual((await all).map(({ value, reason }) => value ?? `${reason}`), jobs.map(({ data: { n } }) => n % 10 === 9 ? `JobFailedError: bad ${n}` : { n }));
	// On a busy machine the job may be done before its add returns.
	const asksLate = await queue.add('good', { n: 60 });
	await until(async () => (await asksLate.getQueueState()) === 'gone', 'it is done, and gone');
	await until(async () => (await asksLate.finished())?.n === 60, 'its result is told all the same');
	const others = await queue.add('late', {}, { delay: 3_600_000 });
	const elsewhere = (await queue.add('elsewhere', {}, { delay: 3_600_000 })).finished();
	await query(connection, `SELECT event_queue.cancel_job(job_id) FROM event_queue.jobs WHERE queue = 'awaited' AND name = 'elsewhere'`);
	assert.equal(await elsewhere, undefined);
	const waits = refused(others.finished(), eqlib.ClosedError, /closed/);
	const { pool } = own.database;
	await until(() => pool.totalCount > 0 && pool.idleCount === pool.totalCount, 'it holds no connection, for which close() would wait');
	await own.close();
	await waits;
	await refused(others.finished(), eqlib.ClosedError, /closed/);
});

test('a transaction in which a failed statement was caught is told: nothing of it is kept', async () => {
	const queue = await newQueue();
	await refused(eq.transaction(async tx => {
		await queue.add('lost', {});
		await tx.query('SELECT 1 / 0').catch(() => {});
	}), eqlib.InvalidTransactionError, /nothing of the transaction is kept/);
	assert.equal(await queue.count(), 0);
	await eq.transaction(async tx => {
		await tx.query('SAVEPOINT a');
		await tx.query('SELECT 1 / 0').catch(() => tx.query('ROLLBACK TO a'));
		await queue.add('kept', {});
	});
	assert.equal(await queue.count(), 1);
});
