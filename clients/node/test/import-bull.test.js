// Jobs of a real Bull 4 in a Redis of the test's own, into queues and dead letters.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const Redis = require('ioredis');
const Bull = require('bull');
const eqlib = require('..');
const { freshDatabase, query, open, until } = require('./helpers');

const skip = spawnSync('redis-server', ['--version']).status !== 0 && 'there is no redis-server';
let connection, eq, server, socket, redis;
const clients = [];
const connect = () => {
	const client = new Redis(socket, { maxRetriesPerRequest: null, enableReadyCheck: false });
	clients.push(client);
	return client;
};
const bull = name => new Bull(name, { createClient: connect });

before(async () => {
	if (skip)
		return;
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eq-redis-'));
	socket = path.join(dir, 'socket');
	server = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--dir', dir, '--save', '', '--appendonly', 'no'], { stdio: 'ignore' });
	await until(() => fs.existsSync(socket), 'Redis listens');
	redis = connect();
	connection = await freshDatabase('eq_node_import');
	// An admin's rights are enough.
	await query(connection, `DROP ROLE IF EXISTS eq_node_admin; CREATE ROLE eq_node_admin LOGIN; SELECT event_queue.grant_admin('eq_node_admin')`);
	eq = open({ ...connection, user: 'eq_node_admin' });
});
after(async () => {
	if (skip)
		return;
	await eq.close();
	clients.forEach(client => client.disconnect());
	server.kill();
	fs.rmSync(path.dirname(socket), { recursive: true, force: true });
});

const jobs = async queue => query(connection, `SELECT name, payload, priority, max_attempts, state, unique_key, metadata FROM event_queue.jobs WHERE queue = $1 ORDER BY job_id`, [queue]);

test('waiting, delayed and failed jobs, once each, and a report', { skip }, async () => {
	const mail = bull('mail');
	const due = Date.now() + 3600_000;
	await mail.pause();
	for (let n = 0; n < 250; n++)
		await mail.add('welcome', { n, text: 'é "?' }, n === 0 ? { priority: 2, attempts: 4, backoff: { type: 'exponential', delay: 500 }, jobId: 'my key', timeout: 5000, removeOnComplete: true } : {});
	await mail.add({ unnamed: true }, { delay: 3600_000 });
	await mail.add('bad', { text: 'nul \0' });
	await mail.add('news', {}, { repeat: { cron: '0 0 * * *' } });

	const reports = bull('reports');
	reports.process('sum', 1, async () => { throw new Error('no figures'); });
	const failing = await reports.add('sum', { month: 3 }, { attempts: 2, jobId: 'march' });
	await until(() => failing.isFailed(), 'it failed');
	await reports.close();
	await mail.close();

	await assert.rejects(eqlib.importBull(eq, redis), eqlib.QueueNotFoundError);
	await assert.rejects(eqlib.importBull(eq, redis, { queues: ['nothing'] }), /there are: mail, reports/);
	const first = await eqlib.importBull(eq, redis, { create: true, into: { reports: 'sums' } });
	const none = { waiting: 0, delayed: 0, failed: 0, already: 0, removed: 0, active: 0, repeatable: 0, paused: false, refused: [] };
	assert.equal(first[0].refused.length, 1);
	assert.match(first[0].refused[0].reason, /the data of job bad .*u0000/);
	const { refused } = first[0];
	assert.deepEqual(first, [{ ...none, queue: 'mail', into: 'mail', waiting: 250, delayed: 1, repeatable: 1, paused: true, refused },
		{ ...none, queue: 'reports', into: 'sums', failed: 1 }]);

	const made = await jobs('mail');
	assert.equal(made.length, 251);
	const welcome = made.filter(job => job.name === 'welcome' && job.unique_key === null);
	assert.deepEqual(welcome.map(job => job.payload.n), Array.from({ length: 249 }, (_, n) => n + 1), 'in the order of Bull');
	const [keyed] = made.filter(job => job.unique_key === 'my key');
	assert.deepEqual([keyed.priority, keyed.max_attempts, keyed.payload, keyed.metadata.bull.id], [1, 4, { n: 0, text: 'é "?' }, 'my key']);
	const [delayed] = await query(connection, `SELECT name, extract(epoch FROM run_at) * 1000 AS at FROM event_queue.jobs WHERE state = 'scheduled'`);
	assert.equal(delayed.name, '__default__');
	assert.ok(Math.abs(delayed.at - due) < 60_000);
	const [dead] = await query(connection, 'SELECT job_id::text AS id, name, reason, failures, last_error, payload, tenant_id FROM event_queue.dead_letters');
	assert.deepEqual({ ...dead, id: '' }, { id: '', name: 'sum', reason: 'attempts', failures: 2, last_error: 'no figures', payload: { month: 3 }, tenant_id: 'default' });

	// Some are done here; nothing comes twice.
	const seen = [];
	const worker = eq.worker('mail', job => { seen.push(job.data.n); }, { concurrency: 10 });
	await until(() => seen.length === 250, 'all that wait are done');
	await worker.close();
	const again = await eqlib.importBull(eq, redis, { into: { reports: 'sums' }, remove: true });
	assert.deepEqual(again, [{ ...none, queue: 'mail', into: 'mail', already: 251, removed: 251, repeatable: 1, paused: true, refused },
		{ ...none, queue: 'reports', into: 'sums', already: 1, removed: 1 }]);
	assert.equal((await jobs('mail')).length, 1);
	assert.equal(await redis.llen('bull:mail:paused'), 1, 'what was refused stays');
	assert.equal(await redis.exists(`bull:reports:march`), 0);

	// A dead letter as any other
	await eq.queue('sums').retryFailed();
	const results = [];
	const sums = eq.worker('sums', job => { results.push(job.data); });
	await until(() => results.length === 1, 'it is retried');
	await sums.close();
	assert.deepEqual(results, [{ month: 3 }]);
	assert.equal((await eq.queue('sums').getJobCounts()).failed, 0);
});

test('a run that is cut off between the two stores: the next one completes it', { skip }, async () => {
	const cut = bull('cut');
	for (let n = 0; n < 5; n++)
		await cut.add('x', { n });
	await cut.close();
	await eq.sync({ queues: { cut: {} } });
	let calls = 0;
	const breaks = new Proxy(redis, { get(target, name) {
		if (name === 'multi' && ++calls === 3)
			throw new Error('cut off');
		const value = target[name];
		return typeof value === 'function' ? value.bind(target) : value;
	} });
	await assert.rejects(eqlib.importBull(eq, breaks, { queues: ['cut'], remove: true }), /cut off/);
	assert.equal((await jobs('cut')).length, 5);
	const [report] = await eqlib.importBull(eq, redis, { queues: ['cut'], remove: true });
	assert.deepEqual([report.waiting, report.already, report.removed], [0, 3, 3]);
	assert.equal((await jobs('cut')).length, 5);
});

test('the program', { skip }, async () => {
	const last = bull('last');
	await last.add('x', {});
	await last.close();
	const cli = path.join(__dirname, '..', 'dist', 'cli.js');
	const env = { ...process.env, PGDATABASE: connection.database, PGUSER: 'eq_node_admin' };
	const run = (...args) => spawnSync(process.execPath, [cli, 'import-bull', ...args], { env, encoding: 'utf8' });
	const done = run('--redis', socket, '--queue', 'last', '--into', 'last=first', '--create', '--remove');
	assert.equal(done.stdout, 'queue last into first: 1 waiting, 0 delayed, 0 failed imported; 0 imported before; 1 removed from Redis\n');
	assert.equal(done.status, 0);
	assert.equal(JSON.parse(run('--redis', socket, '--queue', 'last', '--into', 'last=first', '--json').stdout)[0].already, 0);
	const lost = run('--redis', `${socket}.none`);
	assert.equal(lost.status, 1);
	assert.match(lost.stderr, /can't be reached/);
});
