// What a caller or a server should not do, and does: ids that are none, results that can't be recorded now,
// a thread that does not start, many of everything in one process.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { execFileSync } = require('node:child_process');
const eqlib = require('..');
const { freshDatabase, query, open: openOne, sleep, until, Client, Pool } = require('./helpers');

let connection, eq;
let queues = 0;
const opened = [];
const open = (...args) => {
	opened.push(openOne(...args));
	return opened.at(-1);
};
before(async () => {
	connection = await freshDatabase('eq_node_core_hostile');
	eq = open(connection);
});
after(() => Promise.all(opened.map(one => one.close({ timeout: 0 }))));

async function newQueue(settings = {}) {
	const name = `core${++queues}`;
	await eq.sync({ queues: { [name]: settings } });
	return eq.queue(name);
}
const kept = { defaultJobOptions: { removeOnComplete: false } };
const refused = (call, ErrorClass, message) => assert.rejects(async () => call(), error => {
	assert.ok(error instanceof ErrorClass, `${error?.stack}`);
	assert.match(error.message, message);
	return true;
});

test('what is no id of a job, or a number that is not exact, is refused by each call; times that are none too', async () => {
	for (const id of [' 5', '05', '1,2', '', 'abc', undefined, null, {}, 1.5, NaN, 0, -1, 2 ** 53, '9223372036854775808', '5\0'])
		for (const call of ['awaitJob', 'jobOutcome', 'cancelJob', 'jobSteps', 'forkJob'])
			await refused(() => eq[call](id), eqlib.UnsupportedOptionError, /is not the id of a job/);
	for (const id of ['1,2', '9223372036854775808', '', undefined])
		assert.equal(await eq.queue('any').getJob(id), null);
	for (const id of [7, 7n, '9007199254740993', 2n ** 63n - 1n])
		assert.deepEqual(await eq.jobOutcome(id), { state: 'gone' });
	for (const timeout of [NaN, '5000', -1])
		await refused(() => eq.awaitJob(7, { timeout }), eqlib.UnsupportedOptionError, /^timeout is /);
	for (const options of [{ batchSize: NaN }, { maxAttempts: 0 }, { buckets: -1 }])
		await refused(() => eq.subscription('none', () => {}, options), eqlib.UnsupportedOptionError, /of subscription "none" is/);
	const queue = await newQueue();
	for (const call of [() => queue.add('a\0', {}), () => eq.append('a\0', 'b', 'c.d')])
		await refused(call, eqlib.InvalidArgumentError, /has the character \\u0000/);
});

test('ids above 2^53: found, waited for, depended on', async () => {
	const queue = await newQueue();
	await query(connection, `SELECT setval(pg_get_serial_sequence('event_queue.job', 'job_id'), 9007199254740992)`).catch(() =>
		query(connection, `SELECT setval(c.oid::regclass, 9007199254740992) FROM pg_class c WHERE c.relkind = 'S' AND c.relname ~ '^job.*id' AND c.relnamespace = 'event_queue'::regnamespace`));
	const [first, second] = await queue.addBulk([{ name: 'a' }, { name: 'a' }]);
	assert.ok(BigInt(first.id) > 2n ** 53n && second.id === String(BigInt(first.id) + 1n), first.id);
	const last = await queue.add('b', {}, { dependsOn: [second] });
	assert.deepEqual((await query(connection, 'SELECT depends_on::text AS id FROM event_queue.job_dependency WHERE job_id = $1', [last.id])), [{ id: second.id }]);
	assert.equal((await queue.getJob(BigInt(second.id))).id, second.id);
	const worker = eq.worker(queue.name, job => job.id);
	assert.deepEqual(await Promise.all([first, second, last].map(job => job.finished())), [first.id, second.id, last.id]);
	await worker.close();
});

test('a job that is done stays done while the server can not record it: its row is locked, the wait for locks has an end', async () => {
	const queue = await newQueue(kept);
	const impatient = open({ ...connection, options: '-c lock_timeout=100ms' });
	const errors = [], runs = [], lost = [];
	const locker = new Client(connection);
	await locker.connect();
	const worker = impatient.worker(queue.name, {
		done: async job => {
			runs.push(job.name);
			await locker.query('BEGIN');
			await locker.query('SELECT 1 FROM event_queue.job WHERE job_id = $1 FOR UPDATE', [job.id]);
			return 'result';
		},
		fails: async job => {
			runs.push(job.name);
			await locker.query('BEGIN');
			await locker.query('SELECT 1 FROM event_queue.job WHERE job_id = $1 FOR UPDATE', [job.id]);
			throw new eqlib.UnrecoverableError('as it should');
		},
	});
	worker.on('error', error => errors.push(error.message));
	worker.on('lost', job => lost.push(job.name));
	const done = await queue.add('done', {});
	await until(() => errors.length === 1, 'the first refusal is told');
	await sleep(300);
	assert.equal(await done.getQueueState(), 'leased');
	await locker.query('COMMIT');
	assert.equal(await done.finished(), 'result');
	const fails = await queue.add('fails', {});
	await until(() => errors.length === 2, 'this one too');
	await locker.query('COMMIT');
	await assert.rejects(fails.finished(), /as it should/);
	assert.deepEqual([runs, lost], [['done', 'fails'], []]);
	for (const message of errors)
		assert.match(message, /lock timeout/);
	await impatient.close();
	await locker.end();
});

test('the thread that extends leases does not start, or its password does not come: told once, no storm, and jobs go on', async () => {
	const queue = await newQueue(kept);
	// A bundle has not the thread's file.
	const bundled = fs.mkdtempSync(path.join(os.tmpdir(), 'eq_bundled_'));
	fs.cpSync(path.join(__dirname, '..', 'dist'), bundled, { recursive: true });
	fs.rmSync(path.join(bundled, 'heartbeat-thread.js'));
	fs.symlinkSync(path.join(__dirname, '..', 'node_modules'), path.join(bundled, 'node_modules'));
	const { EventQueue } = require(bundled);
	const other = new EventQueue({ connection, handleSignals: false });
	opened.push(other);
	const errors = [];
	let failures = 0;
	other.on('error', error => errors.push(error.message));
	other.on('connectionError', () => failures++);
	other.worker(queue.name, async () => {
		await until(() => failures >= 2, 'it is tried again');
		return 'done';
	});
	assert.equal(await (await queue.add('a', {})).finished(), 'done');
	await other.close();
	assert.equal(errors.length, 1, errors.join('\n'));
	assert.match(errors[0], /^the leases of jobs in hand are not extended, .*a bundler must leave this package outside/);
	fs.rmSync(bundled, { recursive: true });

	let threw = 0;
	const secret = open({ ...connection, password: () => 'any' });
	const heard = [];
	secret.on('error', error => heard.push(error.message));
	secret.worker(queue.name, async job => {
		const extended = () => {
			const was = job.leasedUntil.getTime();
			return until(() => job.leasedUntil.getTime() > was, 'the lease is extended');
		};
		await extended();
		secret.database.pool.options.password = () => {
			if (threw++ < 3)
				throw new Error('no token today');
			return 'any';
		};
		await query(connection, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% heartbeat' AND datname = current_database()`);
		await until(() => threw > 3, 'the password is asked for until it comes');
		await extended();
		return 'extended';
	}, { settings: { lockRenewTime: 100 } });
	assert.equal(await (await queue.add('a', {})).finished(), 'extended');
	assert.deepEqual(heard, [], 'the pool has connections, which do it meanwhile');
	await secret.close();
});

test('many in one process, and one after the other on the application\'s pool, leave no listeners', async () => {
	const warnings = [];
	const warned = warning => warnings.push(warning.message);
	process.on('warning', warned);
	const pool = new Pool({ ...connection, max: 1 });
	for (let i = 0; i < 15; i++) {
		const one = open(undefined, { pool });
		await one.ready();
		await one.close();
	}
	assert.deepEqual([pool.listenerCount('error'), pool.listenerCount('connect')], [0, 0]);
	const client = await pool.connect();
	assert.ok(client.listenerCount('error') <= 2, 'one of ours');
	client.release();
	await pool.end();
	const before = ['SIGTERM', 'SIGINT'].map(signal => process.listenerCount(signal));
	const many = [...Array(12)].map(() => open(connection, { handleSignals: true }));
	for (const one of many)
		one.worker('any', () => {}, { autorun: false });
	assert.deepEqual(['SIGTERM', 'SIGINT'].map(signal => process.listenerCount(signal)), before.map(n => n + 1));
	await Promise.all(many.map(one => one.close()));
	assert.deepEqual(['SIGTERM', 'SIGINT'].map(signal => process.listenerCount(signal)), before);
	await sleep(20);
	process.removeListener('warning', warned);
	assert.deepEqual(warnings, []);
});

test('adds at the same time that are together more than one call should be go in several', async () => {
	const queue = await newQueue();
	const calls = [];
	const { coalescer } = eq;
	const run = coalescer.run;
	coalescer.run = (sql, values) => {
		calls.push(values.reduce((sum, value) => sum + (value?.length ?? 0), 0));
		return run(sql, values);
	};
	const text = 'x'.repeat(1_000_000);
	const jobs = await Promise.all([...Array(100)].map((_, n) => queue.add('large', { n, text })));
	coalescer.run = run;
	assert.equal(new Set(jobs.map(job => job.id)).size, 100);
	assert.ok(Math.max(...calls) < 40 * 2 ** 20, calls.join());
	await queue.empty();
});

test('adds of one group at the same time keep their order, with and without a key of their own, in bulk, and around one that is refused', async () => {
	const queue = await newQueue();
	const add = (n, opts) => queue.add('x', { n }, { groupKey: `g${n % 2}`, ...opts });
	const inOrder = ids => ids.every((id, i) => i === 0 || BigInt(id) > BigInt(ids[i - 1]));
	for (let round = 0; round < 5; round++) {
		const jobs = await Promise.all([...Array(1000).keys()].map(n => add(n, n % 7 === 0 ? { jobId: `key ${round} ${n}` } : {})));
		for (const group of [0, 1])
			assert.ok(inOrder(jobs.filter(job => job.data.n % 2 === group).map(job => job.id)), `group ${group}`);
	}
	const mixed = await Promise.allSettled([add(0), queue.addBulk([{ name: 'x', data: {}, opts: { groupKey: 'g0' } }]), add(2, { jobId: 'two' }), add(4, { attempts: 1001 }),
		add(6, { dependsOn: ['9000000000000000000'] }), add(8), eq.queue('no such queue').add('x', {}, { groupKey: 'g0' }), add(10)]);
	assert.deepEqual(mixed.map(({ status }) => status), ['fulfilled', 'fulfilled', 'fulfilled', 'rejected', 'rejected', 'fulfilled', 'rejected', 'fulfilled']);
	assert.ok(inOrder(mixed.flatMap(({ value }) => value ?? []).map(job => job.id)));
	await queue.empty();
});

test('an add that waits for a transaction holds up its group for a moment only', async () => {
	const queue = await newQueue();
	let waits;
	await eq.transaction(async tx => {
		await queue.add('first', {}, { jobId: 'same', groupKey: 'g' });
		waits = eq.outside(() => queue.add('waits', {}, { jobId: 'same', groupKey: 'g' }));
		// Of the same group, awaited in the transaction, but no part of it: no deadlock that nobody sees.
		await eq.outside(() => queue.add('other', {}, { groupKey: 'g' }));
		await tx.query('SELECT 1');
	});
	await waits;
	assert.equal(await queue.count(), 2);
	await queue.empty();
});

test('very many adds at once', async () => {
	const queue = await newQueue();
	const jobs = await Promise.all([...Array(30_000).keys()].map(n => queue.add('x', undefined, n < 500 ? { groupKey: 'g' } : undefined)));
	assert.equal(new Set(jobs.map(job => job.id)).size, 30_000);
	await queue.empty();
});

test('the application ends its pool first: calls that are on their way end, and so does close()', async () => {
	const queue = await newQueue();
	for (let i = 0; i < 3; i++) {
		const pool = new Pool(connection);
		const given = open(undefined, { pool, connectWait: 300 });
		await given.ready();
		const worker = given.worker(queue.name, { none: () => {} });
		worker.on('error', () => {});
		await new Promise(resolve => worker.once('ready', resolve));
		// All in the moment in which it begins to claim.
		const added = given.queue(queue.name).add('x', {}, { jobId: 'y' });
		const ended = pool.end();
		await assert.rejects(added, /Cannot use a pool after calling end on the pool/);
		await ended;
		await given.close({ timeout: 600_000 });
	}
});

test('what a processor throws or logs may be anything: an error that can not be read, a line that is too long', async () => {
	const queue = await newQueue();
	class Unreadable extends Error {
		get message() {
			throw new Error('no');
		}
	}
	const worker = eq.worker(queue.name, {
		throws: () => {
			throw new Unreadable();
		},
		logs: async job => {
			await job.log('\u00e9'.repeat(10_000));
			await job.log({ a: 1, nul: 'b\0' });
			await job.log('a\0b');
		},
	});
	await assert.rejects((await queue.add('throws', {}, { attempts: 1 })).finished(), /something was thrown that can't be shown/);
	const job = await queue.add('logs', {});
	await job.finished();
	const lines = (await query(connection, 'SELECT message FROM event_queue.job_log WHERE job_id = $1 ORDER BY at', [job.id])).map(row => row.message);
	assert.match(lines[0], /^\u00e9{4000,} \.\.\. \(20000 bytes\)$/);
	assert.deepEqual(lines.slice(1), ["{ a: 1, nul: 'b\\x00' }", 'ab']);
	await worker.close();
});
