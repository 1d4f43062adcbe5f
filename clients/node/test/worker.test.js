// Workers: concurrency, waiting, ends of jobs, heartbeat, cancellation, shutdown.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const eqlib = require('..');
const { freshDatabase, query, open, until, sleep, once } = require('./helpers');

let connection, eq;
before(async () => {
	connection = await freshDatabase('eq_node_worker');
	eq = open(connection);
});
after(() => eq.close());

let n = 0;
async function newQueue(settings = '') {
	const name = `q${++n}`;
	await query(connection, `SELECT event_queue.create_queue('${name}'${settings && `, ${settings}`})`);
	return eq.queue(name);
}
const stateOf = async job => (await eq.jobOutcome(job.id)).state;
const row = async (sql, values) => (await query(connection, sql, values))[0];

test('jobs are done, with result, progress, log and events', async () => {
	const queue = await newQueue("keep_completed => '1 hour'");
	const events = [];
	const worker = eq.worker(queue.name, async job => {
		await job.progress(50);
		await job.log('half way');
		assert.equal(job.progress(), 50);
		return { doubled: job.data.n * 2 };
	}, { concurrency: 3 });
	for (const event of ['active', 'progress', 'completed', 'drained'])
		worker.on(event, (job, value) => events.push([event, job?.data?.n, value]));
	const jobs = await Promise.all([1, 2, 3, 4].map(i => queue.add('double', { n: i }, { attempts: 4, metadata: { k: i } })));
	assert.deepEqual(await jobs[0].finished(), { doubled: 2 });
	await until(() => events.filter(e => e[0] === 'completed').length === 4, 'four completed');
	await until(() => events.some(e => e[0] === 'drained'), 'drained');
	assert.deepEqual(events.filter(e => e[0] === 'completed').map(e => e[2].doubled).sort(), [2, 4, 6, 8]);
	assert.equal(events.filter(e => e[0] === 'progress').length, 4);
	const looked = await queue.getJob(jobs[3].id);
	assert.deepEqual([await looked.getState(), looked.returnvalue, looked.metadata.k], ['completed', { doubled: 8 }, 4]);
	assert.equal((await row('SELECT count(*)::int AS n FROM event_queue.job_log WHERE message = $1', ['half way'])).n, 4);
	await worker.close();
});

test('a job that this process has added begins though the server can not tell of it', async () => {
	const deaf = open(connection, { listenConnection: { ...connection, port: 1 } });
	deaf.on('connectionError', () => {});
	const queue = await newQueue();
	const done = [];
	const worker = deaf.worker(queue.name, { a: job => { done.push(`a${job.data}`); }, '*': job => { done.push(`*${job.data}`); } });
	await worker.run();
	const next = async (add, ...wanted) => {
		await add();
		await until(() => done.length >= wanted.length, wanted, 15000);
		assert.deepEqual(done.splice(0).sort(), wanted);
	};
	const own = deaf.queue(queue.name);
	await next(() => own.add('a', 1), 'a1');
	await next(() => own.add('b', 2), '*2');
	await next(() => own.addBulk([{ name: 'a', data: 3 }, { name: 'b', data: 4 }]), '*4', 'a3');
	await next(() => own.add('a', 5, { jobId: 'five' }), 'a5');
	await deaf.close();
});

test('RateLimitError of the queue: no worker claims of it before its time', async () => {
	const queue = await newQueue();
	const done = [];
	const worker = eq.worker(queue.name, async job => {
		if (job.attemptsMade === 0 && done.length === 0 && !worker.wasTold) {
			worker.wasTold = true;
			throw new eqlib.RateLimitError(3600_000, 'queue');
		}
		done.push(job.data.n);
	});
	await queue.add('send', { n: 1 });
	await until(async () => (await row('SELECT held_until > now() + interval $$59 minutes$$ AS held FROM event_queue.queue_limits($1)', [queue.name])).held, 'held');
	await queue.add('send', { n: 2 });
	assert.deepEqual(await query(connection, 'SELECT job_id FROM event_queue.claim($1)', [queue.name]), []);
	assert.deepEqual(done, []);
	await worker.close();
	assert.equal((await row('SELECT event_queue.resume_queue($1) AS ended', [queue.name])).ended, true);
	const other = eq.worker(queue.name, async job => { done.push(job.data.n); });
	await until(() => done.includes(2), 'the other job');
	await other.close();
});

test('the concurrency of each named processor is exact, and * takes the rest', async () => {
	const queue = await newQueue();
	const now = {}, most = {}, done = {};
	const processor = async job => {
		const lane = ['a', 'b'].includes(job.name) ? job.name : '*';
		now[lane] = (now[lane] ?? 0) + 1;
		most[lane] = Math.max(most[lane] ?? 0, now[lane]);
		await sleep(2);
		now[lane]--;
		done[job.name] = (done[job.name] ?? 0) + 1;
	};
	await queue.addBulk(Array.from({ length: 120 }, (_, i) => ({ name: ['a', 'b', 'c', 'd'][i % 4], data: i })));
	const worker = eq.worker(queue.name, { a: { process: processor, concurrency: 2 }, b: processor, '*': { process: processor, concurrency: 4 } });
	await until(() => Object.values(done).reduce((x, y) => x + y, 0) === 120, '120 jobs');
	assert.deepEqual(most, { a: 2, b: 1, '*': 4 });
	assert.deepEqual(done, { a: 30, b: 30, c: 30, d: 30 });
	await worker.close();
	assert.equal(await queue.count(), 0);
});

test('short jobs are claimed ahead; what waits behind a long one goes back, uncounted', async () => {
	const queue = await newQueue();
	let short = 0, most = 0;
	await queue.addBulk(Array.from({ length: 300 }, () => ({ name: 'short' })));
	const long = await queue.add('long', {});
	const after = await queue.addBulk(Array.from({ length: 20 }, () => ({ name: 'after' })));
	let finish;
	const worker = eq.worker(queue.name, job => {
		most = Math.max(most, worker.activeCount);
		if (job.name === 'long')
			return new Promise(resolve => { finish = resolve; });
		short++;
	});
	await until(() => finish !== undefined, 'the long one has begun');
	assert.ok(most > 10, `${most} at hand`);
	const other = eq.worker(queue.name, () => {}, { prefetch: 0 });
	await until(async () => (await Promise.all(after.map(stateOf))).every(state => state === 'gone'), 'another worker does the rest');
	assert.equal(short, 300);
	finish();
	await other.close();
	await worker.close();
	assert.equal(await stateOf(long), 'gone');
});

test('without * jobs of other names stay for other workers', async () => {
	const queue = await newQueue();
	const [mine, other] = await queue.addBulk([{ name: 'mine' }, { name: 'other' }]);
	const worker = eq.worker(queue.name, { mine: () => {} });
	await once(worker, 'completed');
	await worker.close();
	assert.deepEqual([await stateOf(mine), await stateOf(other)], ['gone', 'ready']);
});

test('a sleeping worker is woken by a job, also by one that comes due, and asks nothing meanwhile', async () => {
	const queue = await newQueue();
	const worker = eq.worker(queue.name, () => {});
	await once(worker, 'ready');
	await sleep(300);
	let claims = 0;
	const run = eq.database.runWaiting;
	eq.database.runWaiting = function (sql, ...rest) { claims += /claim\(/.test(sql); return run.call(this, sql, ...rest); };
	await sleep(1000);
	eq.database.runWaiting = run;
	assert.equal(claims, 0);
	const started = once(worker, 'completed');
	await queue.add('now', {});
	await started;
	const delayed = once(worker, 'completed');
	await queue.add('later', {}, { delay: 300 });
	await delayed;
	const listening = await query(connection, "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE '%listens' AND datname = current_database()");
	assert.equal(listening.length, 1);
	await worker.close();
});

test('ends of a job: retried, dead, unrecoverable, retry after, rate limited, delayed, released', async () => {
	const queue = await newQueue("backoff => 'fixed', backoff_delay => '10 milliseconds', max_attempts => 3");
	const tries = {};
	const worker = eq.worker(queue.name, {
		fails: job => { throw Object.assign(new Error(`attempt ${job.attemptsMade}`), { code: '23505' }); },
		hopeless: () => { throw new eqlib.UnrecoverableError('no such address'); },
		discards: job => { job.discard(); throw new Error('discarded'); },
		after: job => { if (job.attemptsMade === 0) throw new eqlib.RetryAfterError('busy', 150); },
		limited: job => { if ((tries[job.id] = (tries[job.id] ?? 0) + 1) === 1) throw new eqlib.RateLimitError(100, 'job'); return job.attemptsMade; },
		delayed: job => { if ((tries[job.id] = (tries[job.id] ?? 0) + 1) === 1) { job.moveToDelayed(Date.now() + 100); throw new eqlib.DelayedError(); } },
		weird: () => 10n,
		strings: () => { throw 'a string'; },
	});
	const failed = [];
	worker.on('failed', (job, error, dead) => failed.push([job.name, error.message, dead]));
	const ids = {};
	for (const name of ['fails', 'hopeless', 'discards', 'after', 'limited', 'delayed', 'weird', 'strings'])
		ids[name] = await queue.add(name, {});
	await until(async () => (await queue.getJobCounts()).failed === 5 && await queue.count() === 0, 'all at their end');
	assert.deepEqual(failed.filter(f => f[0] === 'fails'), [['fails', 'attempt 0', false], ['fails', 'attempt 1', false], ['fails', 'attempt 2', true]]);
	assert.deepEqual(failed.filter(f => f[0] === 'hopeless'), [['hopeless', 'no such address', true]]);
	assert.deepEqual(failed.filter(f => f[0] === 'discards'), [['discards', 'discarded', true]]);
	assert.deepEqual(failed.filter(f => f[0] === 'after'), [['after', 'busy', false]]);
	assert.equal(failed.filter(f => ['limited', 'delayed'].includes(f[0])).length, 0);
	assert.match(failed.find(f => f[0] === 'weird')[1], /result of job weird is no JSON/);
	const dead = await row(`SELECT errors -> -1 ->> 'sqlstate' AS state, errors -> -1 ->> 'context' AS context FROM event_queue.dead_letters WHERE job_id = $1`, [ids.fails.id]);
	assert.equal(dead.state, '23505');
	assert.match(dead.context, /worker\.test\.js/);
	assert.equal((await ids.fails.getState()), 'failed');
	await ids.hopeless.remove();
	assert.equal(await queue.discardFailed(), 4);
	await worker.close();
});

test("a worker's own backoff strategy, and a timeout", async () => {
	const queue = await newQueue("max_attempts => 2, backoff_delay => '1 hour'");
	const asked = [];
	const worker = eq.worker(queue.name, { custom: job => { if (job.attemptsMade === 0) throw new Error('x'); }, slow: (job, signal) => new Promise(() => { signal.onabort = () => asked.push('aborted'); }) },
		{ settings: { backoffStrategies: { mine: (attempts, error, options) => { asked.push([attempts, error.message, options]); return 20; } } } });
	const completed = once(worker, 'completed');
	await queue.add('custom', {}, { backoff: { type: 'mine', options: { a: 1 } } });
	await completed;
	assert.deepEqual(asked, [[1, 'x', { a: 1 }]]);
	const failed = once(worker, 'failed');
	await queue.add('slow', {}, { timeout: 500, attempts: 1 });
	const [job, error, dead] = await failed;
	assert.ok(error instanceof eqlib.JobTimeoutError && dead && job.signal.aborted);
	assert.deepEqual(asked[1], 'aborted');
	await worker.close();
});

test('the heartbeat goes on while a processor blocks the event loop', async () => {
	const queue = await newQueue("lease => '1 second', stalled_interval => '100 milliseconds'");
	// Another process wants the job as soon as its lease ends.
	const { spawn } = require('node:child_process');
	const rival = spawn(process.execPath, ['-e', `
		const { EventQueue } = require(${JSON.stringify(require.resolve('..'))});
		const eq = new EventQueue({ connection: ${JSON.stringify(connection)} });
		process.stdin.once('data', () => eq.worker('${queue.name}', () => console.log('stolen'), { name: 'rival' }).on('ready', () => console.log('ready')));
		process.stdin.on('end', () => eq.close());`], { stdio: ['pipe', 'pipe', 'inherit'] });
	let output = '';
	rival.stdout.on('data', data => { output += data; });
	let runs = 0;
	const worker = eq.worker(queue.name, async () => {
		runs++;
		rival.stdin.write('go');
		await until(() => output.includes('ready'), 'the rival is ready');
		for (const end = Date.now() + 4000; Date.now() < end;);
		return 'computed';
	});
	const completed = once(worker, 'completed');
	const job = await queue.add('block', {});
	const [done, result] = await completed;
	assert.deepEqual([done.id, result, done.stalledCounter, runs], [job.id, 'computed', 0, 1]);
	rival.stdin.end();
	await once(rival, 'exit');
	assert.doesNotMatch(output, /stolen/);
	await worker.close();
});

test('a cancelled job is told by its signal, and a lost lease too', async () => {
	const queue = await newQueue("lease => '1 second', max_stalled => 5");
	const reasons = [];
	const worker = eq.worker(queue.name, (job, signal) => new Promise((_, reject) => {
		signal.addEventListener('abort', () => {
			reasons.push(signal.reason);
			reject(signal.reason);
		});
	}));
	// Listened for before the add: the worker may be quicker than its answer.
	const active = once(worker, 'active');
	const cancelled = await queue.add('a', {});
	await active;
	const failed = once(worker, 'failed');
	assert.equal(await eq.cancelJob(cancelled.id), 'requested');
	const [, error, dead] = await failed;
	assert.ok(error instanceof eqlib.JobCancelledError && dead);

	const again = once(worker, 'active');
	await queue.add('b', {});
	const [job] = await again;
	const lost = once(worker, 'lost');
	worker.pause();
	// as if another worker had taken it
	await query(connection, 'SELECT event_queue.release($1, $2)', [job.id, job.token]);
	await lost;
	assert.ok(reasons[1] instanceof eqlib.LeaseLostError);
	await worker.close();
	assert.equal(await stateOf(job), 'ready');
});

test('close: jobs end within the time, the rest goes back without an attempt, add works until the end', async () => {
	const queue = await newQueue();
	const other = await newQueue();
	const own = open(connection);
	const follow = own.queue(other.name);
	let started = 0;
	const worker = own.worker(queue.name, async job => {
		started++;
		if (job.name === 'short') {
			await sleep(200);
			await follow.add('follow', {});
		} else
			await new Promise(() => {});
	}, { concurrency: 4, prefetch: 3, shutdownTimeout: 600 });
	const jobs = await queue.addBulk([{ name: 'short' }, { name: 'short' }, ...Array.from({ length: 7 }, () => ({ name: 'long' }))]);
	await until(() => started === 4, 'four are running');
	await own.close();
	assert.equal(started, 4);
	const states = await Promise.all(jobs.map(stateOf));
	assert.deepEqual(states, ['gone', 'gone', ...Array(7).fill('ready')]);
	assert.deepEqual((await query(connection, 'SELECT DISTINCT failures, stalled FROM event_queue.jobs WHERE queue = $1', [queue.name])), [{ failures: 0, stalled: 0 }]);
	assert.equal(await other.count(), 2);
	assert.equal(worker.activeCount, 0);
	await assert.rejects(follow.add('x', {}), eqlib.ClosedError);
	const left = await query(connection, `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'event_queue_node%'`);
	const mine = await query(connection, 'SELECT 1');
	assert.ok(mine.length === 1 && left.every(session => !/subscribes/.test(session.application_name)));
});

test("limits of the queue: all jobs are done, as fast as the limit lets them, without waiting for the next sweep", async () => {
	const queue = await newQueue("rate_limit => 20, rate_interval => '200 milliseconds', stalled_interval => '1 hour'");
	let done = 0;
	const worker = eq.worker(queue.name, () => { done++; }, { concurrency: 50 });
	await queue.addBulk(Array.from({ length: 100 }, () => ({ name: 'x' })));
	await until(() => done === 100, '100 jobs', 20000);
	await worker.close();
});

test('traceparent goes along, and spans are made, with OpenTelemetry', async () => {
	const api = require('@opentelemetry/api');
	const { AsyncLocalStorage } = require('node:async_hooks');
	const storage = new AsyncLocalStorage();
	api.context.setGlobalContextManager({ active: () => storage.getStore() ?? api.ROOT_CONTEXT, with: (context, fn, self, ...args) => storage.run(context, () => fn.apply(self, args)),
		bind: (_, fn) => fn, enable() { return this; }, disable() { return this; } });
	api.propagation.setGlobalPropagator({ fields: () => ['traceparent'],
		inject: (context, carrier) => { const span = api.trace.getSpanContext(context); if (span) carrier.traceparent = `00-${span.traceId}-${span.spanId}-01`; },
		extract: (context, carrier) => { const [, traceId, spanId] = carrier.traceparent.split('-'); return api.trace.setSpanContext(context, { traceId, spanId, traceFlags: 1, isRemote: true }); } });
	const spans = [];
	api.trace.setGlobalTracerProvider({ getTracer: () => ({ startSpan: (name, options, context) => {
		const parent = api.trace.getSpanContext(context);
		const span = { name, kind: options.kind, traceId: parent?.traceId ?? 'a'.repeat(32), parent: parent?.spanId, id: String(spans.length + 1).padStart(16, '0') };
		spans.push(span);
		return { spanContext: () => ({ traceId: span.traceId, spanId: span.id, traceFlags: 1 }), end: () => { span.ended = true; }, recordException() {}, setStatus() { span.failed = true; } };
	} }) });
	const queue = await newQueue();
	const worker = eq.worker(queue.name, job => { if (job.name === 'inner') return; return queue.add('inner', {}).then(() => undefined); });
	let completed = 0;
	worker.on('completed', () => completed++);
	await queue.add('outer', {});
	await until(() => completed === 2, 'both');
	await worker.close();
	api.trace.disable();
	api.propagation.disable();
	api.context.disable();
	const names = spans.map(span => span.name.replace(queue.name, 'q'));
	assert.deepEqual(names, ['q enqueue', 'q process', 'q enqueue', 'q process']);
	assert.ok(spans.every(span => span.traceId === spans[0].traceId && span.ended && !span.failed));
	assert.deepEqual(spans.map(span => span.parent), [undefined, spans[0].id, spans[1].id, spans[2].id]);
});

test('what the server refuses time and again is told once, and ready when it goes on; drained also when the last job failed', async () => {
	await query(connection, `SELECT event_queue.create_queue('denied', max_attempts => 1); DROP ROLE IF EXISTS eq_node_denied; CREATE ROLE eq_node_denied LOGIN;
		SELECT event_queue.grant_worker('eq_node_denied'); SELECT event_queue.grant_consumer('eq_node_denied')`);
	await query(connection, `SELECT event_queue.create_subscription('denied')`);
	const eq = open({ ...connection, user: 'eq_node_denied' });
	const told = [];
	const worker = eq.worker('denied', () => { throw new Error('no'); });
	const subscription = eq.subscription('denied', () => {}, { create: false });
	await Promise.all([once(worker, 'ready'), once(subscription, 'ready')]);
	for (const [name, one] of Object.entries({ worker, subscription }))
		one.on('error', error => told.push(`${name} ${error.name}`));
	await query(connection, `REVOKE ALL ON FUNCTION event_queue.claim, event_queue.fetch_events FROM eq_node_denied`);
	let calls = 0;
	const run = eq.database.runWaiting;
	eq.database.runWaiting = function (...args) { calls++; return run.apply(this, args); };
	const goesOn = once(worker, 'ready');
	await query(connection, `SELECT event_queue.enqueue('denied', 'a', '{}'); SELECT event_queue.append('a', 'b', 'c.d', '{}')`);
	await until(() => calls >= 5 && told.length >= 2, 'both have tried');
	assert.deepEqual(told.sort(), ['subscription AccessDeniedError', 'worker AccessDeniedError']);
	const drained = once(worker, 'drained');
	await query(connection, `SELECT event_queue.grant_worker('eq_node_denied'); SELECT event_queue.grant_consumer('eq_node_denied')`);
	await goesOn;
	await drained;
	assert.equal((await query(connection, `SELECT count(*)::int AS n FROM event_queue.dead_letters WHERE queue = 'denied'`))[0].n, 1);
	assert.equal(told.length, 2);
	await eq.close();
});

test('a worker whose queue is not there yet says so once, and begins when another instance has made it', async () => {
	const told = [], heard = [];
	const worker = eq.worker('not yet', job => { heard.push(job.data.n); });
	worker.on('error', error => told.push(error.name));
	let ready = 0;
	worker.on('ready', () => ready++);
	let looks = 0;
	const { queueSettings } = eq;
	eq.queueSettings = function (name) { looks++; return queueSettings.call(this, name); };
	await until(() => looks >= 3, 'it has tried');
	eq.queueSettings = queueSettings;
	await query(connection, `SELECT event_queue.create_queue('not yet')`);
	await eq.queue('not yet').add('a', { n: 1 });
	await until(() => heard.length === 1, 'the job is done');
	assert.deepEqual([told, ready], [['QueueNotFoundError'], 1]);
	await worker.close();
	const never = eq.worker('never', () => {}).on('error', () => {});
	await once(never, 'error');
	await never.close();
});
