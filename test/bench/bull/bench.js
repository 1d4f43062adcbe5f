// bench.js: the same work through pg-event-queue and through Bull; run by run.sh.
//
// One line a measure and setting of Redis: BENCH name event_queue=N yardstick=N ratio=R,
// where more is better for jobs/s and less for ms.  Each is the median of some rounds, in which
// the systems take turns, after a round that is not counted: a machine that is busy for a while
// is so for all of them.  lost: adds that were confirmed, and are not there after kill -9 of the
// server and its restart.
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const { createRequire } = require('node:module');
const os = require('node:os');
const path = require('node:path');

const from = createRequire(path.join(process.env.EQ_CLIENT, 'package.json'));
const { EventQueue } = from('./dist/index.js');
const { Client } = from('pg');
const Redis = from('ioredis');
const Bull = from('bull');

const jobs = Number(process.env.JOBS ?? 5000);
const rounds = Number(process.env.ROUNDS ?? 5);
const callers = 8;
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const quiet = () => {};

/* PostgreSQL */
function eventQueue() {
	let eq, n = 0;
	const data = path.join(process.env.PGHOST, 'data');
	const as = process.getuid() === 0 ? ['runuser', '-u', 'postgres', '--'] : [];
	const start = () => {
		const [command, ...rest] = [...as, path.join(process.env.PG_BINDIR, 'pg_ctl'), '-D', data, '-l', process.env.EQ_SERVER_LOG, '-w', 'start'];
		execFileSync(command, rest, { stdio: 'ignore' });
	};
	return {
		async open() {
			eq = new EventQueue({ handleSignals: false });
			eq.on('error', quiet);
			eq.on('connectionError', quiet);
		},
		async queue() {
			const name = `bench${++n}`;
			await eq.sync({ queues: { [name]: {} } });
			return eq.queue(name);
		},
		add: (queue, value) => queue.add('x', value),
		addBulk: (queue, list) => queue.addBulk(list),
		work(queue, process) {
			const worker = eq.worker(queue.name, process, { concurrency: callers });
			return () => worker.close();
		},
		idOf: job => job.id,
		ids: async queue => {
			const client = new Client();
			await client.connect();
			const { rows } = await client.query('SELECT job_id::text AS id FROM event_queue.jobs WHERE queue = $1', [queue.name]);
			await client.end();
			return rows.map(row => row.id);
		},
		async kill() {
			process.kill(Number(fs.readFileSync(path.join(data, 'postmaster.pid'), 'utf8').split('\n')[0]), 'SIGKILL');
			// Its processes must be gone first.
			for (let tries = 0; ; tries++) {
				await sleep(200);
				try {
					return start();
				} catch (error) {
					if (tries === 100)
						throw error;
				}
			}
		},
		close: () => eq.close(),
	};
}

/* Bull, on a Redis of its own */
function bull(fsync) {
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eq-bench-redis.'));
	const socket = path.join(dir, 'socket');
	let server, n = 0;
	const clients = [];
	const connect = () => {
		const client = new Redis(socket, { maxRetriesPerRequest: null, enableReadyCheck: false });
		client.on('error', quiet);
		clients.push(client);
		return client;
	};
	const start = async () => {
		server = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--dir', dir, '--save', '', '--appendonly', 'yes', '--appendfsync', fsync],
			{ stdio: 'ignore' });
		for (const probe = connect(); ;) {
			if (await probe.ping().catch(quiet) === 'PONG')
				return;
			await sleep(50);
		}
	};
	return {
		open: start,
		async queue() {
			const queue = new Bull(`bench${++n}`, { createClient: connect });
			queue.on('error', quiet);
			await queue.isReady();
			return queue;
		},
		add: (queue, value) => queue.add('x', value, { removeOnComplete: true }),
		addBulk: (queue, list) => queue.addBulk(list.map(job => ({ ...job, opts: { removeOnComplete: true } }))),
		work(queue, process) {
			queue.process('x', callers, async job => process(job));
			return () => queue.close();
		},
		idOf: job => String(job.id),
		ids: queue => connect().lrange(`bull:${queue.name}:wait`, 0, -1),
		async kill() {
			const ended = new Promise(resolve => server.once('exit', resolve));
			server.kill('SIGKILL');
			await ended;
			await start();
		},
		async close() {
			clients.forEach(client => client.disconnect());
			server.kill();
			fs.rmSync(dir, { recursive: true, force: true });
		},
	};
}

/** One by one, by callers that each wait for their answer: few, and as many as an API may have at a time. */
async function enqueue(system) {
	const result = {};
	for (const [name, n] of [['enqueue', callers], ['many', 64]]) {
		const queue = await system.queue();
		const begin = performance.now();
		await Promise.all(Array.from({ length: n }, async () => {
			for (let i = 0; i < jobs / n; i++)
				await system.add(queue, { i });
		}));
		result[name] = jobs / (performance.now() - begin) * 1000;
	}
	return result;
}

/** A worker on jobs that do nothing. */
async function work(system) {
	const queue = await system.queue();
	for (let i = 0; i < jobs; i += 1000)
		await system.addBulk(queue, Array.from({ length: Math.min(1000, jobs - i) }, (_, k) => ({ name: 'x', data: { k } })));
	let done = 0;
	const begin = performance.now();
	let all;
	const ended = new Promise(resolve => { all = resolve; });
	const close = system.work(queue, () => {
		if (++done === jobs)
			all();
	});
	await ended;
	await close();
	return { worker: jobs / (performance.now() - begin) * 1000 };
}

/** From add to start, at 100 jobs/s. */
async function begin(system) {
	const queue = await system.queue();
	const lags = [];
	const close = system.work(queue, job => { lags.push(performance.now() - job.data.at); });
	await sleep(500);
	for (let i = 0; i < 500; i++) {
		system.add(queue, { at: performance.now() }).catch(quiet);
		await sleep(10);
	}
	while (lags.length < 500)
		await sleep(10);
	await close();
	lags.sort((a, b) => a - b);
	return { p50: lags[249], p99: lags[494] };
}

/** The server is killed while jobs are added. */
async function lose(system) {
	const queue = await system.queue();
	const confirmed = [];
	let adding = true;
	const add = async () => {
		while (adding)
			await system.add(queue, {}).then(job => confirmed.push(system.idOf(job)), () => sleep(20));
	};
	const adders = Array.from({ length: callers }, add);
	await sleep(2000);
	const killed = system.kill();
	adding = false;
	await killed;
	await Promise.race([Promise.all(adders), sleep(10_000)]);
	const there = new Set(await system.ids(queue));
	return { lost: confirmed.filter(id => !there.has(id)).length, confirmed: confirmed.length };
}

/** The median of each figure, for each system. */
async function medians(systems, measure) {
	const all = systems.map(() => []);
	for (let round = 0; round <= rounds; round++)
		for (const [i, system] of systems.entries()) {
			const figures = await measure(system);
			if (round > 0)
				all[i].push(figures);
		}
	return all.map(list => Object.fromEntries(Object.keys(list[0]).map(name =>
		[name, list.map(figures => figures[name]).sort((a, b) => a - b)[list.length >> 1]])));
}

(async () => {
	const admin = new Client({ database: 'postgres' });
	await admin.connect();
	await admin.query('CREATE DATABASE bench_bull');
	await admin.end();
	process.env.PGDATABASE = 'bench_bull';
	const client = new Client();
	await client.connect();
	await client.query('CREATE EXTENSION event_queue');
	await client.end();

	const systems = [eventQueue(), bull('everysec'), bull('always')];
	for (const system of systems)
		await system.open();
	const results = systems.map(() => ({}));
	for (const measure of [enqueue, work, begin])
		for (const [i, figures] of (await medians(systems, measure)).entries())
			Object.assign(results[i], figures);
	for (const [i, system] of systems.entries()) {
		Object.assign(results[i], await lose(system));
		await system.close();
	}
	const [ours, ...others] = results;
	for (const [i, fsync] of ['everysec', 'always'].entries()) {
		const theirs = others[i];
		const line = (name, field, digits) => console.log(
			`BENCH bull_${fsync}_${name} event_queue=${ours[field].toFixed(digits)} yardstick=${theirs[field].toFixed(digits)} ratio=${(ours[field] / theirs[field]).toFixed(2)}`);
		line('enqueue_jobs_per_s', 'enqueue', 0);
		line('enqueue_64_callers_jobs_per_s', 'many', 0);
		line('worker_jobs_per_s', 'worker', 0);
		line('start_p50_ms', 'p50', 2);
		line('start_p99_ms', 'p99', 2);
		console.log(`# ${fsync}: lost after kill -9: event_queue ${ours.lost} of ${ours.confirmed}, Bull ${theirs.lost} of ${theirs.confirmed}`);
	}
	process.exit(0);
})().catch(error => {
	console.error(error);
	process.exit(1);
});
