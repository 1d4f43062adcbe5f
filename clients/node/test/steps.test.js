// Durable steps: what a job has done stays done, a job that waits holds nothing, and what a
// processor makes of it changes none of that.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const eqlib = require('..');
const { freshDatabase, query, restartServer, open, until, sleep, once } = require('./helpers');

let connection, eq;
before(async () => {
	connection = await freshDatabase('eq_node_steps');
	await query(connection, 'CREATE TABLE stock (item text PRIMARY KEY, free int NOT NULL)');
	await query(connection, `INSERT INTO stock VALUES ('book', 10)`);
	eq = open(connection);
});
after(() => eq.close());

let n = 0;
async function newQueue(settings = "backoff => 'fixed', backoff_delay => '10 milliseconds'") {
	const name = `steps${++n}`;
	await query(connection, `SELECT event_queue.create_queue('${name}', keep_completed => '1 hour'${settings && `, ${settings}`})`);
	return eq.queue(name);
}
const free = async () => (await query(connection, `SELECT free FROM stock WHERE item = 'book'`))[0].free;

test('a step is done once, whatever comes after it; a retry gets what it gave, as JSON has it', async () => {
	const queue = await newQueue();
	const did = [], got = [];
	const worker = eq.worker(queue.name, async job => {
		got.push(await job.step('reserve', () => { did.push('reserve'); return { at: new Date(0), n: 1, left: undefined }; }));
		got.push(await job.step('nothing', () => { did.push('nothing'); }));
		if (job.attemptsMade === 0)
			throw new Error('the bank is closed');
		return job.step('pay', async () => { did.push('pay'); return job.attemptsMade; });
	});
	const job = await queue.add('order', {});
	assert.equal(await job.finished(), 1);
	assert.deepEqual(did, ['reserve', 'nothing', 'pay']);
	assert.deepEqual(got, [{ at: '1970-01-01T00:00:00.000Z', n: 1 }, null, { at: '1970-01-01T00:00:00.000Z', n: 1 }, null]);
	await worker.close();
});

test('a step with tx: its result and what it changed are both kept or both not', async () => {
	const queue = await newQueue();
	let breaks = true, did = 0;
	const take = tx => tx.query(`UPDATE stock SET free = free - 1 WHERE item = 'book'`);
	const worker = eq.worker(queue.name, async job => {
		await eq.transaction(async () => {
			await job.step('take', async tx => { did++; await take(tx); return 'taken'; });
			if (breaks) {
				breaks = false;
				throw new Error('rolled back on purpose');
			}
		});
		// The transaction of an ORM, given by tx
		const knex = require('knex')({ client: 'pg', connection, pool: { min: 0, max: 1 } });
		try {
			return await knex.transaction(trx => job.step('take another', async tx => { assert.equal(tx, trx); return (await trx.raw(`UPDATE stock SET free = free - 1 RETURNING free`)).rows[0]; }, { tx: trx }));
		} finally {
			await knex.destroy();
		}
	});
	const job = await queue.add('order', {});
	assert.deepEqual(await job.finished(), { free: 8 });
	assert.deepEqual([did, await free()], [2, 8]);
	await worker.close();
});

test('a job that sleeps has no lease, no connection and no place of its worker, and counts no attempt', async () => {
	const queue = await newQueue();
	const seen = [];
	const worker = eq.worker(queue.name, async job => {
		if (job.name === 'sleeps') {
			seen.push(job.attemptsMade);
			try {
				await job.sleep('a second', 1000);
			} catch (error) {
				assert.ok(error instanceof eqlib.JobSuspendedError);
				// As a catch that knows nothing of it: the run is over all the same.
				return 'swallowed';
			}
			await job.sleep('until then', new Date(Date.now() - 1000)).catch(error => { throw error; });
		}
		return 'done';
	});
	const suspended = once(worker, 'suspended');
	const job = await queue.add('sleeps', {});
	const [one] = await suspended;
	assert.deepEqual([one.id, one.isSuspended, worker.activeCount], [job.id, true, 0]);
	assert.deepEqual([await job.getQueueState(), await job.getState(), (await queue.getJobCounts()).delayed, (await queue.getDelayed())[0].id], ['suspended', 'delayed', 1, job.id]);
	assert.deepEqual((await query(connection, 'SELECT lease_token, leased_until FROM event_queue.job WHERE job_id = $1', [job.id])), [{ lease_token: null, leased_until: null }]);
	assert.deepEqual((await eq.jobSteps(job.id)).map(step => [step.name, step.kind, step.state, step.until instanceof Date]), [['a second', 'sleep', 'waiting', true]]);
	assert.equal(await (await queue.add('other', {})).finished(), 'done');
	assert.equal(await job.finished(), 'done');
	assert.deepEqual(seen, [0, 0, 0]);
	await worker.close();
});

test('signals: one that waits is woken, one that was sent before is kept, the first wins; a timeout', async () => {
	const queue = await newQueue();
	const worker = eq.worker(queue.name, async job => ({ outcome: await job.awaitSignal('paid', job.data) }), { concurrency: 5 });
	const suspended = once(worker, 'suspended');
	const mine = await queue.add('mine', {});
	await suspended;
	assert.equal(await eq.sendSignal('paid', mine.id, { amount: 30 }), true);
	assert.equal(await eq.sendSignal('paid', mine.id, { amount: 31 }), false);
	assert.deepEqual(await mine.finished(), { outcome: { state: 'received', payload: { amount: 30 } } });
	assert.equal(await eq.sendSignal('paid', 'O2'), true);
	assert.deepEqual(await (await queue.add('before', { key: 'O2' })).finished(), { outcome: { state: 'received', payload: null } });
	assert.deepEqual(await (await queue.add('late', { key: 'O3', timeout: 100 })).finished(), { outcome: { state: 'timed out' } });
	// In a transaction that is rolled back nothing was sent.
	const again = once(worker, 'suspended');
	const waits = await queue.add('waits', { key: 'O4', timeout: 60_000 });
	await again;
	await assert.rejects(eq.transaction(async () => {
		assert.equal(await eq.sendSignal('paid', 'O4', 1), true);
		throw new Error('rolled back on purpose');
	}), /on purpose/);
	assert.equal(await eq.sendSignal('paid', 'O4', 2), true);
	assert.deepEqual(await waits.finished(), { outcome: { state: 'received', payload: 2 } });
	await worker.close();
});

test('events: the first that matches, of the aggregate; those from a position on', async () => {
	const queue = await newQueue();
	const worker = eq.worker(queue.name, async job => {
		const outcome = await job.awaitEvent('answer', 'lead.answered', { aggregateType: 'lead', aggregateId: job.data.lead, ...job.data.options });
		return outcome.state === 'received' ? { version: outcome.event.version, data: outcome.event.data, isDate: outcome.event.createdAt instanceof Date && !Number.isNaN(outcome.event.createdAt.getTime()) } : outcome;
	});
	const suspended = once(worker, 'suspended');
	const job = await queue.add('nurse', { lead: 'L1' });
	await suspended;
	await eq.append('lead', 'L2', 'lead.answered', { no: 1 });
	await eq.append('lead', 'L1', 'lead.called', {});
	await eq.append('lead', 'L1', 'lead.answered', { yes: 1 });
	assert.deepEqual(await job.finished(), { version: 2, data: { yes: 1 }, isDate: true });
	assert.deepEqual(await (await queue.add('nurse', { lead: 'L2', options: { afterPosition: 0 } })).finished(), { version: 1, data: { no: 1 }, isDate: true });
	assert.deepEqual(await (await queue.add('nurse', { lead: 'L3', options: { timeout: 50 } })).finished(), { state: 'timed out' });
	await worker.close();
});

test('undo: a job that dies, or is cancelled while it waits, has its steps undone, the last one first', async () => {
	const queue = await newQueue("max_attempts => 1");
	const undone = [];
	const worker = eq.worker(queue.name, {
		order: async job => {
			await job.step('one', () => 1, { undo: { name: 'undo', data: { n: 1 }, opts: { attempts: 5 } } });
			await job.step('two', () => ({ deep: 2 }), { undo: { name: 'undo' } });
			if (job.data.waits)
				await job.awaitSignal('never');
			throw new Error('dies');
		},
		undo: job => { undone.push(job.data); },
	});
	const dies = await queue.add('order', {});
	await until(() => undone.length === 2, 'both are undone');
	assert.deepEqual(undone.splice(0), [{ job_id: Number(dies.id), step: 'two', result: { deep: 2 } }, { n: 1 }]);
	assert.deepEqual((await eq.jobSteps(dies.id)).map(step => [step.name, step.state]), [['one', 'undone'], ['two', 'undone']]);
	const suspended = once(worker, 'suspended');
	const waits = await queue.add('order', { waits: true });
	await suspended;
	assert.equal(await eq.cancelJob(waits.id), 'cancelled');
	await until(() => undone.length === 2, 'both are undone');
	await worker.close();
});

test('forkJob: a new job that goes on from a step of a dead one', async () => {
	const queue = await newQueue("max_attempts => 1");
	const did = [];
	const worker = eq.worker(queue.name, async job => {
		const reserved = await job.step('reserve', () => { did.push('reserve'); return 'r1'; });
		const paid = await job.step('pay', () => { did.push('pay'); return did.length; });
		if (did.length < 3)
			throw new Error('dies');
		return [reserved, paid];
	});
	const job = await queue.add('order', {});
	await assert.rejects(job.finished(), eqlib.JobFailedError);
	const fork = await eq.forkJob(job.id, 'pay');
	assert.deepEqual(await eq.awaitJob(fork), ['r1', 3]);
	assert.deepEqual(did, ['reserve', 'pay', 'pay']);
	await assert.rejects(eq.forkJob(job.id, 'nothing'), eqlib.NotFoundError);
	await worker.close();
});

test('what can not be meant is told, and nothing is done', async () => {
	const queue = await newQueue("max_attempts => 1");
	const told = {};
	let work = 0;
	const worker = eq.worker(queue.name, async job => {
		const refused = async (name, call) => { told[name] = await call().then(() => 'not refused', error => `${error.constructor.name}: ${error.message}`); };
		await job.step('a', () => { work++; });
		await refused('twice', () => job.step('a', () => { work++; }));
		await refused('kind', () => job.sleep('a', 1));
		await refused('function', () => job.step('b', 7));
		await refused('result', () => job.step('c', () => 1n));
		await refused('undo', () => job.step('d', () => { work++; }, { undo: { queue: 'none', name: 'x' } }));
		await refused('undo depends', () => job.step('e', () => { work++; }, { undo: { name: 'x', opts: { dependsOn: [1] } } }));
		await refused('undo name', () => job.step('f', () => { work++; }, { undo: {} }));
		await refused('time', () => job.sleep('g', NaN));
		await refused('date', () => job.sleep('h', new Date('no')));
		await refused('in a transaction', () => eq.transaction(() => job.sleep('i', 10)));
		await refused('pattern', () => job.awaitEvent('j', ''));
		return 'done';
	});
	const job = await queue.add('order', {});
	assert.equal(await job.finished(), 'done');
	// The queue of an undo is looked up when the step is kept.
	assert.equal(work, 2);
	assert.match(told.twice, /^StepTwiceError: step "a" .* was already used in this run\. Give each step/);
	assert.match(told.kind, /^StepTwiceError: .*another kind/);
	assert.match(told.function, /^UnsupportedOptionError: .*number, not the function/);
	assert.match(told.result, /^InvalidPayloadError: the result of step c .*as a string/);
	assert.match(told.undo, /^QueueNotFoundError/);
	assert.match(told['undo depends'], /^UnsupportedOptionError: undo of step "e": option dependsOn/);
	assert.match(told['undo name'], /^UnsupportedOptionError: .*no name/);
	assert.match(told.time, /^UnsupportedOptionError: .*NaN/);
	assert.match(told.date, /^UnsupportedOptionError: .*not valid/);
	assert.match(told['in a transaction'], /^InvalidTransactionError: .*outside/);
	assert.match(told.pattern, /^InvalidNameError/);
	await assert.rejects(job.step('x', () => {}), eqlib.LeaseLostError);
	await worker.close();
});

test('two waits at once are two in turn; a cancelled job does no further step, and dies', async () => {
	const queue = await newQueue("max_attempts => 3");
	let runs = 0;
	const worker = eq.worker(queue.name, {
		both: async job => { runs++; return Promise.all([job.awaitSignal('one'), job.awaitSignal('two')]); },
		cancelled: async job => {
			await eq.cancelJob(job.id);
			return job.step('too late', () => 'done');
		},
	});
	const both = await queue.add('both', {});
	await eq.sendSignal('two', both.id, 2);
	await until(async () => (await both.getQueueState()) === 'suspended', 'it waits');
	await eq.sendSignal('one', both.id, 1);
	assert.deepEqual((await both.finished()).map(outcome => outcome.payload), [1, 2]);
	assert.equal(runs, 2);
	const failed = once(worker, 'failed');
	await queue.add('cancelled', {});
	const [, error, dead] = await failed;
	assert.ok(error instanceof eqlib.JobCancelledError && dead, `${error}`);
	await worker.close();
});

test('a step whose transaction stays open does not hold up the leases of other jobs', async () => {
	const queue = await newQueue("lease => '2 seconds', stalled_interval => '100 milliseconds'");
	let finish, holding = 0;
	const hold = new Promise(resolve => { finish = resolve; });
	const own = open(connection);
	const runs = [];
	const worker = own.worker(queue.name, async job => {
		runs.push([job.name, job.stalledCounter]);
		if (job.name === 'in a transaction')
			return own.transaction(async () => {
				await job.step('slow', () => 1);
				holding++;
				await hold;
			});
		await hold;
	}, { concurrency: 20 });
	await queue.addBulk([...Array.from({ length: 5 }, () => ({ name: 'beside' })), { name: 'in a transaction' }, ...Array.from({ length: 5 }, () => ({ name: 'beside' }))]);
	await until(() => runs.length === 11 && holding === 1, 'all run');
	await sleep(5000);
	// The one itself can't be extended, nor be taken by anyone.
	const states = await query(connection, `SELECT name = 'beside' AS beside, state, stalled, count(*)::int AS n FROM event_queue.jobs WHERE queue = $1 GROUP BY 1, 2, 3 ORDER BY 1 DESC`, [queue.name]);
	finish();
	await until(async () => (await queue.getJobCounts()).completed === 11, 'all are completed');
	await own.close();
	assert.deepEqual(states[0], { beside: true, state: 'leased', stalled: 0, n: 10 });
	assert.equal(states[1].stalled, 0);
	assert.equal(runs.filter(([name]) => name === 'beside').length, 10);
});

test('calls whose answer is lost: nothing is done twice, and a wait stays one', async () => {
	const queue = await newQueue();
	const own = open(connection);
	const { run } = own.database;
	// The answer of each call of a step is lost once, after it was carried out.
	const lost = new Set();
	own.database.run = async (sql, values) => {
		const rows = await run(sql, values);
		const call = `${/event_queue\.(step|step_done|sleep_job|await_signal|await_event)\(/.exec(sql)?.[1]} ${values[2]}`;
		if (!call.startsWith('undefined') && !lost.has(call)) {
			lost.add(call);
			throw new eqlib.ConnectionError('the answer was lost', true);
		}
		return rows;
	};
	const did = [];
	let failed = 0, signalled = false;
	const worker = own.worker(queue.name, async job => {
		const first = await job.step('first', () => { did.push('first'); return { n: 1 }; });
		await job.sleep('short', 50);
		const signal = await job.awaitSignal('go', { timeout: 60_000 });
		const late = await job.awaitSignal('never', { timeout: 10 });
		const event = await job.awaitEvent('answer', 'order.answered', { afterPosition: 0, timeout: 60_000 });
		return [first, signal, late, event.event.data];
	});
	worker.on('failed', () => failed++);
	worker.on('suspended', async () => {
		if (!signalled) {
			signalled = true;
			await eq.append('order', 'O1', 'order.answered', { ok: true });
			await eq.sendSignal('go', job.id, 'now');
		}
	});
	const job = await queue.add('order', {});
	assert.deepEqual(await job.finished(), [{ n: 1 }, { state: 'received', payload: 'now' }, { state: 'timed out' }, { ok: true }]);
	assert.deepEqual([did, failed], [['first'], 0]);
	assert.ok(lost.size >= 6, [...lost].join());
	await own.close();
});

test('the server is stopped at once while jobs sleep and do steps: each step once, all come to their end', async () => {
	const queue = await newQueue("lease => '2 seconds', stalled_interval => '200 milliseconds', max_stalled => 20, max_attempts => 100");
	await query(connection, 'CREATE TABLE did (job bigint, step text)');
	const own = open(connection, { connectWait: 60_000 });
	const worker = own.worker(queue.name, async job => {
		for (const step of ['one', 'two', 'three']) {
			await own.transaction(() => job.step(step, tx => tx.query('INSERT INTO did VALUES ($1, $2)', [job.id, step])));
			await job.sleep(`after ${step}`, 200);
		}
	}, { concurrency: 10 });
	worker.on('error', () => {});
	const jobs = await own.queue(queue.name).addBulk(Array.from({ length: 30 }, () => ({ name: 'order' })));
	const count = async () => (await query(connection, 'SELECT count(*)::int AS n FROM did').catch(() => [{ n: -1 }]))[0].n;
	await until(async () => await count() >= 30, 'some steps are done');
	restartServer('immediate');
	await until(async () => (await queue.getJobCounts().catch(() => ({}))).completed === 30, 'all are done');
	const rows = await query(connection, 'SELECT job::text, step, count(*)::int AS n FROM did GROUP BY 1, 2');
	assert.deepEqual([rows.length, rows.every(row => row.n === 1)], [90, true]);
	assert.equal(jobs.length, 30);
	await own.close();
});

test('a worker\'s grant is enough for steps, a producer\'s for signals', async () => {
	const queue = await newQueue();
	await query(connection, `DROP ROLE IF EXISTS eq_node_steps_worker; CREATE ROLE eq_node_steps_worker LOGIN; SELECT event_queue.grant_worker('eq_node_steps_worker');
		DROP ROLE IF EXISTS eq_node_steps_api; CREATE ROLE eq_node_steps_api LOGIN; SELECT event_queue.grant_producer('eq_node_steps_api')`);
	const worker = open({ ...connection, user: 'eq_node_steps_worker' });
	const api = open({ ...connection, user: 'eq_node_steps_api' });
	worker.worker(queue.name, async job => {
		await job.step('one', () => 1, { undo: { name: 'undo' } });
		await job.sleep('short', 10);
		const { payload } = await job.awaitSignal('go');
		return [payload, (await job.getSteps()).map(step => [step.name, step.state])];
	});
	const job = await api.queue(queue.name).add('order', {});
	await until(async () => (await api.jobSteps(job.id)).some(step => step.name === 'go'), 'it waits');
	await api.sendSignal('go', job.id, 'x');
	assert.deepEqual(await job.finished(), ['x', [['one', 'done'], ['short', 'done'], ['go', 'done']]]);
	await worker.close();
	await api.close();
});
