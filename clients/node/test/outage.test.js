// The server or the application goes in the middle: nothing is lost, and nothing is done
// again after its completion was confirmed.
const { test, before } = require('node:test');
const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { freshDatabase, query, restartServer, stopServer, startServer, open, until, sleep, once } = require('./helpers');

let connection;
before(async () => {
	connection = await freshDatabase('eq_node_outage');
	await query(connection, `CREATE TABLE did (job bigint, what text, at timestamptz DEFAULT clock_timestamp())`);
});

test('the server is stopped at once and started, three times, while jobs are added and done', async () => {
	await query(connection, `SELECT event_queue.create_queue('work', lease => '2 seconds', stalled_interval => '200 milliseconds', max_stalled => 20)`);
	const eq = open(connection, { connectWait: 30000 });
	const queue = eq.queue('work');
	const confirmed = new Set(), again = [], runs = new Map();
	const worker = eq.worker('work', async job => {
		if (confirmed.has(job.data.key))
			again.push(job.data.key);
		runs.set(job.data.key, (runs.get(job.data.key) ?? 0) + 1);
		await sleep(5);
	}, { concurrency: 8 });
	worker.on('completed', job => confirmed.add(job.data.key));
	worker.on('error', error => assert.fail(error));
	const added = new Set();
	let adding = true;
	const producer = (async () => {
		for (let i = 0; adding || i < 600; i++) {
			const key = `k${i}`;
			// A key makes an add safe to repeat when its outcome is not known.
			for (;;) {
				try {
					await queue.add('step', { key }, { jobId: key });
					break;
				} catch (error) {
					assert.equal(error.name, 'ConnectionError', String(error));
				}
			}
			added.add(key);
		}
	})();
	for (let i = 0; i < 3; i++) {
		await until(() => confirmed.size > 100 * i, 'jobs are done before the outage');
		restartServer('immediate');
	}
	adding = false;
	await producer;
	await until(() => [...added].every(key => confirmed.has(key)), 'all are done');
	assert.deepEqual(again, []);
	await until(async () => await queue.count() === 0, 'the queue is empty');
	assert.equal((await queue.getJobCounts()).failed, 0);
	await eq.close();
});

test('a completion whose connection breaks is made up for when the server is back', async () => {
	await query(connection, `SELECT event_queue.create_queue('late', lease => '1 hour')`);
	const eq = open(connection);
	let finish;
	const worker = eq.worker('late', () => new Promise(resolve => { finish = resolve; }));
	const active = once(worker, 'active');
	const job = await eq.queue('late').add('x', {});
	await active;
	stopServer('fast');
	const completed = once(worker, 'completed');
	finish('ok');
	await sleep(300);
	startServer();
	const [done, result] = await completed;
	assert.deepEqual([done.id, result], [job.id, 'ok']);
	assert.equal((await eq.jobOutcome(job.id)).state, 'gone');
	await eq.close();
});

test('an add that finds no connection says why', async () => {
	await query(connection, `DROP ROLE IF EXISTS eq_node_none; CREATE ROLE eq_node_none LOGIN CONNECTION LIMIT 0`);
	const none = open({ ...connection, user: 'eq_node_none' }, { connectWait: 700 });
	await assert.rejects(none.queue('cut').add('x', {}), error => error.name === 'ConnectionError' && !error.outcomeUnknown && /can't be reached: too many connections for role/.test(error.message));
	await none.close();
});

test('who waits for a job waits on when the connection of a look breaks, and is told when there is no server', async () => {
	await query(connection, `SELECT event_queue.create_queue('waits on', keep_completed => '1 hour')`);
	const eq = open(connection);
	const { ConnectionError } = require('..');
	const run = eq.database.runWaiting;
	const breaks = [new ConnectionError('the connection broke during the call', true), new ConnectionError('the connection broke during the call', true)];
	eq.database.runWaiting = async function (sql, ...rest) {
		if (/job_outcome/.test(sql) && breaks.length > 0)
			throw breaks.shift();
		return run.call(this, sql, ...rest);
	};
	const finished = (await eq.queue('waits on').add('x', {})).finished();
	await until(() => breaks.length === 0, 'both have broken');
	await query(connection, `SELECT event_queue.complete(job_id, lease_token, '"done"') FROM event_queue.claim('waits on')`);
	assert.equal(await finished, 'done');
	const job = await eq.queue('waits on').add('x', {});
	breaks.push(new ConnectionError("the server can't be reached", false));
	await assert.rejects(job.finished(), /can't be reached/);
	await eq.close();
});

test('every session of the application is cut, again and again', async () => {
	await query(connection, `SELECT event_queue.create_queue('cut', lease => '2 seconds', stalled_interval => '200 milliseconds', max_stalled => 50)`);
	const eq = open(connection);
	const confirmed = new Set(), again = [];
	const worker = eq.worker('cut', job => { if (confirmed.has(job.id)) again.push(job.id); }, { concurrency: 4 });
	worker.on('completed', job => confirmed.add(job.id));
	worker.on('error', error => assert.fail(error));
	await eq.queue('cut').addBulk(Array.from({ length: 2000 }, () => ({ name: 'x' })));
	for (let i = 0; i < 10; i++) {
		await query(connection, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'event_queue_node%' AND datname = current_database()`);
		await sleep(50);
	}
	await until(async () => await eq.queue('cut').count().catch(() => 1) === 0 && worker.activeCount === 0, 'all are done');
	// A claim whose answer was lost is in nobody's hands until its lease ends.
	assert.ok(confirmed.size >= 1900 && confirmed.size <= 2000, `${confirmed.size}`);
	await until(async () => (await eq.queue('cut').getJobCounts()).active === 0, 'none is leased');
	assert.equal(confirmed.size, 2000);
	assert.deepEqual(again, []);
	await eq.close();
});

test('a subscription goes on after an outage, each event once', async () => {
	await query(connection, 'CREATE TABLE seen (position bigint PRIMARY KEY)');
	const eq = open(connection, { connectWait: 30000 });
	const subscription = eq.subscription('outage', async (event, { tx }) => { await tx.query('INSERT INTO seen VALUES ($1)', [event.position]); }, { batchSize: 3 });
	subscription.on('error', error => assert.fail(error));
	for (let i = 0; i < 20; i++)
		await eq.append('a', `A${i}`, 'a.b', {});
	restartServer('immediate');
	for (let i = 0; i < 20; i++)
		await eq.append('a', `A${i}`, 'a.b', {});
	await until(async () => (await query(connection, 'SELECT count(*)::int AS n FROM seen').catch(() => [{ n: 0 }]))[0].n === 40, '40 events');
	await eq.close();
});

function child(code) {
	const process_ = spawn(process.execPath, ['-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		const eq = new EventQueue({ connection: ${JSON.stringify(connection)}, shutdownTimeout: 1000 });
		${code}`], { stdio: ['ignore', 'pipe', 'inherit'] });
	process_.output = '';
	process_.stdout.on('data', data => { process_.output += data; });
	return process_;
}

test('SIGTERM with jobs in hand: the short one ends, the long one goes back without an attempt, the process ends', async () => {
	await query(connection, `SELECT event_queue.create_queue('term')`);
	const eq = open(connection);
	const [short, long] = await eq.queue('term').addBulk([{ name: 'short' }, { name: 'long' }]);
	const app = child(`eq.worker('term', async job => {
		console.log('begins ' + job.name);
		await new Promise(resolve => setTimeout(resolve, job.name === 'short' ? 400 : 3600000));
		console.log('ends ' + job.name);
	}, { concurrency: 2 });`);
	await until(() => /begins short/.test(app.output) && /begins long/.test(app.output), 'both have begun');
	app.kill('SIGTERM');
	const [code, signal] = await once(app, 'exit');
	assert.deepEqual([code, signal], [null, 'SIGTERM']);
	assert.match(app.output, /ends short/);
	assert.equal((await eq.jobOutcome(short.id)).state, 'gone');
	const [row] = await query(connection, 'SELECT state, failures, stalled FROM event_queue.jobs WHERE job_id = $1', [long.id]);
	assert.deepEqual(row, { state: 'ready', failures: 0, stalled: 0 });
	await eq.close();
});

test('the application is killed: another one does its jobs when their leases end', async () => {
	await query(connection, `SELECT event_queue.create_queue('kill', lease => '1 second', stalled_interval => '100 milliseconds')`);
	const eq = open(connection);
	const job = await eq.queue('kill').add('x', {});
	const app = child(`eq.worker('kill', () => { console.log('begins'); return new Promise(() => {}); });`);
	await until(() => /begins/.test(app.output), 'it has begun');
	app.kill('SIGKILL');
	await once(app, 'exit');
	const worker = eq.worker('kill', () => 'done');
	const stalled = once(worker, 'stalled');
	const [done] = await once(worker, 'completed');
	assert.deepEqual([done.id, (await stalled)[0].stalledCounter], [job.id, 1]);
	await eq.close();
});
