// Events, queues, options, errors.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const eqlib = require('..');
const { freshDatabase, query, open, where, Pool } = require('./helpers');

let connection, eq;
before(async () => {
	connection = await freshDatabase('eq_node_core');
	eq = open(connection);
	await eq.sync({ queues: { news: {} } });
});
after(() => eq.close());

test('events: append, appendMany, readAggregate, readAll, state', async () => {
	const first = await eq.append('lead', 'L1', 'lead.created', { name: 'Ana' }, { expectedVersion: 'no_stream', metadata: { by: 'test' } });
	assert.equal(first.version, 1);
	assert.equal(typeof first.position, 'string');
	const more = await eq.appendMany('lead', 'L1', [{ eventType: 'lead.moved', data: { step: 2 } }, { eventType: 'lead.won' }], { expectedVersion: 1 });
	assert.deepEqual(more.map(event => event.version), [2, 3]);
	const events = await eq.readAggregate('lead', 'L1');
	assert.deepEqual(events.map(event => [event.version, event.eventType]), [[1, 'lead.created'], [2, 'lead.moved'], [3, 'lead.won']]);
	assert.equal(events[0].metadata.by, 'test');
	assert.ok(events[0].createdAt instanceof Date && !Number.isNaN(events[0].createdAt.getTime()));
	const last = await eq.readAggregate('lead', 'L1', { newestFirst: true, maxEvents: 1 });
	assert.equal(last[0].version, 3);
	assert.deepEqual((await eq.readAll({ filter: { event_type: 'lead.moved' } })).map(event => event.data), [{ step: 2 }]);
	assert.deepEqual(await eq.state('lead', 'L1'), { name: 'Ana', step: 2 });
	assert.deepEqual(await eq.state('lead', 'L1', { atVersion: 1 }), { name: 'Ana' });
	assert.equal(await eq.state('lead', 'none'), null);
});

test('an append with an id may be repeated', async () => {
	const id = '018f0000-0000-7000-8000-000000000001';
	const first = await eq.append('lead', 'L2', 'lead.created', { a: 1 }, { id });
	const again = await eq.append('lead', 'L2', 'lead.created', { a: 1 }, { id });
	assert.deepEqual([first.duplicate, again.duplicate, again.version], [false, true, 1]);
	await assert.rejects(eq.append('lead', 'L2', 'lead.created', { a: 2 }, { id }), eqlib.EventIdReusedError);
});

test('statements that are made often are prepared, and none is missed where a connection does not keep them', async () => {
	const one = { max: 1, ...connection };
	const names = async pool => (await pool.query("SELECT name FROM pg_prepared_statements WHERE name LIKE 'eq\\_%'")).rows.map(row => row.name);
	const pool = new Pool(one);
	const other = open(undefined, { pool });
	await other.queue('news').add('one', {});
	await other.queue('news').add('one', {});
	const [name] = await names(pool);
	assert.equal((await names(pool)).length, 1);

	// As behind a pooler, whose connection is another one now.
	await pool.query('DEALLOCATE ALL');
	const before = await other.queue('news').count();
	await other.queue('news').add('one', {});
	await other.queue('news').add('one', {});
	assert.equal(await other.queue('news').count(), before + 2);
	assert.deepEqual(await names(pool), [], 'and is asked for no more');
	await other.close();
	await pool.end();

	// Somebody else's pool has prepared it there.
	const taken = new Pool(one);
	await taken.query(`PREPARE ${name} AS SELECT 1`);
	const third = open(undefined, { pool: taken });
	await third.queue('news').add('one', {});
	assert.equal(await third.queue('news').count(), before + 3);
	await third.close();
	await taken.end();
	await eq.queue('news').empty();
});

test('errors of the extension are classes with SQLSTATE and DETAIL', async () => {
	await assert.rejects(eq.append('lead', 'L1', 'lead.lost', {}, { expectedVersion: 1 }), error => {
		assert.ok(error instanceof eqlib.WrongVersionError && error instanceof eqlib.EventQueueError);
		assert.equal(error.sqlstate, 'EQ001');
		assert.equal(error.currentVersion, 3);
		return true;
	});
	await assert.rejects(eq.queue('none').add('x', {}), eqlib.QueueNotFoundError);
	await assert.rejects(eq.cancelJob(999999), eqlib.JobNotFoundError);
});

test('options of Bull in their meaning', async () => {
	const queue = eq.queue('news');
	const parent = await queue.add('first', {});
	const job = await queue.add('second', { n: 1 }, { attempts: 7, backoff: 500, delay: 60000, priority: 2, jobId: 'only one', dependsOn: [parent],
		timeout: 3000, groupKey: 'g', metadata: { a: 1 } });
	const [row] = await query(connection, `SELECT j.priority, j.max_attempts, extract(epoch FROM j.run_at - j.created_at)::numeric(9,2)::text AS delay, j.unique_key, j.group_key, j.state, j.metadata
		FROM event_queue.jobs j WHERE job_id = $1`, [job.id]);
	assert.deepEqual({ ...row, metadata: row.metadata.a }, { priority: 1, max_attempts: 7, delay: '60.00', unique_key: 'only one', group_key: 'g', state: 'blocked', metadata: 1 });
	assert.equal((await queue.add('second', { n: 2 }, { jobId: 'only one' })).id, job.id);
	assert.deepEqual([1, 2, 4, 5, 1000, 0, undefined].map(eqlib.priorityLevelOf), [0, 1, 3, 4, 4, undefined, undefined]);
	assert.equal((await queue.add({ only: 'data' }, { delay: 1000 })).name, '__default__');
	const looked = await queue.getJob(job.id);
	assert.deepEqual([looked.data, looked.opts.jobId, await looked.getState()], [{ n: 1 }, 'only one', 'waiting']);
	assert.equal(await queue.getJob('no number'), null);
	const counts = await queue.getJobCounts();
	assert.deepEqual([counts.waiting, counts.delayed], [2, 1]);
	await looked.remove();
	assert.equal(await queue.getJob(job.id), null);
	await looked.remove();
	const [kept] = await query(connection, `SELECT event_queue.enqueue('news', 'kept', priority => 0, options => '{"keep_completed": "1 day"}')::text AS id`);
	await query(connection, `SELECT event_queue.complete(job_id, lease_token) FROM event_queue.claim('news', job_names => '{kept}')`);
	const completed = await queue.getJob(kept.id);
	assert.equal(await completed.getState(), 'completed');
	await completed.remove();
	assert.equal(await completed.getQueueState(), 'gone');
	await queue.pause();
	assert.equal(await queue.isPaused(), true);
	await queue.resume();
	await queue.empty();
});

test('bad input is a clear error and nothing is done', async () => {
	const queue = eq.queue('news');
	const none = async (call, error, text) => {
		await assert.rejects(call, thrown => {
			assert.ok(thrown instanceof error, `${thrown} is no ${error.name}`);
			assert.match(thrown.message, text);
			return true;
		});
	};
	await none(queue.add('x', {}, { lifo: true }), eqlib.UnsupportedOptionError, /lifo/);
	await none(queue.add('x', {}, { repeat: { cron: '* * * * *' } }), eqlib.UnsupportedOptionError, /create_schedule/);
	await none(queue.add('x', {}, { attemps: 3 }), eqlib.UnsupportedOptionError, /attemps.*known are/);
	await none(queue.add('x', {}, { attempts: 0 }), eqlib.UnsupportedOptionError, /attempts/);
	await none(queue.add('x', {}, { delay: '-1' }), eqlib.UnsupportedOptionError, /delay/);
	await none(queue.add('x', {}, { attempts: Number.MAX_SAFE_INTEGER }), eqlib.UnsupportedOptionError, /attempts is 9007199254740991, not a number from 1 to 1000/);
	await none(queue.add('x', {}, { jobId: 'a', uniqueKey: 'b' }), eqlib.UnsupportedOptionError, /same thing/);
	const circle = {};
	circle.circle = circle;
	await none(queue.add('x', circle), eqlib.InvalidPayloadError, /data of job x/);
	await none(queue.add('x', 10n), eqlib.InvalidPayloadError, /BigInt/);
	await none(queue.add('x', {}, { tx: {} }), eqlib.InvalidTransactionError, /none of/);
	await none(queue.add('x', {}, { tx: eq.database.pool }), eqlib.InvalidTransactionError, /Pool/);
	await none(queue.add('x', {}, { priorityLevel: 11 }), eqlib.InvalidArgumentError, /priority/);
	assert.equal(await queue.count(), 0);
	assert.throws(() => eq.worker('news', () => {}, { concurrency: 0, autorun: false }), eqlib.UnsupportedOptionError);
	const worker = eq.worker('news', { a: () => {} }, { autorun: false });
	assert.throws(() => worker.process('a', () => {}), error => error instanceof eqlib.ProcessorExistsError && /queue "news" has a processor for job "a" already/.test(error.message));
	assert.throws(() => worker.process('b', {}), error => error instanceof eqlib.UnsupportedOptionError && /no function/.test(error.message));
	await worker.close();
	const lost = eq.worker('nowhere', () => {}, { autorun: false });
	await none(lost.run(), eqlib.QueueNotFoundError, /create_queue/);
	// What to do is in the message, not only in the hint that few logs show.
	await none(eq.queue('nowhere').add('x', {}), eqlib.QueueNotFoundError, /queue "nowhere" does not exist\. .*create_queue/);
	await lost.close();
});

test('adds that come together go in one call, each with its own id or error', async () => {
	const queue = eq.queue('news');
	const before = await query(connection, 'SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()');
	const statements = [];
	const run = eq.database.runWaiting;
	eq.database.runWaiting = function (sql, ...rest) { statements.push(sql); return run.call(this, sql, ...rest); };
	try {
		const jobs = await Promise.all(Array.from({ length: 500 }, (_, n) => queue.add('many', { n })));
		assert.equal(new Set(jobs.map(job => job.id)).size, 500);
		assert.ok(statements.length < 50, `${statements.length} calls for 500 adds`);
		const data = await query(connection, `SELECT job_id::text AS id, (payload->>'n')::int AS n FROM event_queue.jobs WHERE name = 'many'`);
		assert.deepEqual(new Map(data.map(row => [row.id, row.n])), new Map(jobs.map((job, n) => [job.id, n])));
		const mixed = await Promise.allSettled([queue.add('good', {}), queue.add('bad\u0000name', {}), eq.queue('none').add('x', {}), queue.add('good', {})]);
		assert.deepEqual(mixed.map(result => result.status), ['fulfilled', 'rejected', 'rejected', 'fulfilled']);
		assert.ok(mixed[2].reason instanceof eqlib.QueueNotFoundError);
	} finally {
		eq.database.runWaiting = run;
	}
	assert.ok(before.length === 1);
	await queue.empty();
});

test('addBulk: all or none', async () => {
	const queue = eq.queue('news');
	const jobs = await queue.addBulk([{ name: 'a', data: 1 }, { name: 'b', data: { x: 'ä"\\' }, opts: { delay: 1000 } }]);
	assert.equal(jobs.length, 2);
	assert.deepEqual((await queue.getJob(jobs[1].id)).data, { x: 'ä"\\' });
	await assert.rejects(queue.addBulk([{ name: 'a', data: 1 }, { name: 'b', data: 1, opts: { priorityLevel: 77 } }]), eqlib.InvalidArgumentError);
	await queue.empty();
});

test('a database without the extension, and a role without a grant', async () => {
	const bare = open(await freshDatabase('eq_node_bare', { extension: false }));
	await assert.rejects(bare.ready(), error => error instanceof eqlib.ExtensionMissingError && /CREATE EXTENSION/.test(error.message));
	await assert.rejects(bare.append('a', 'b', 'c.d'), eqlib.ExtensionMissingError);
	await bare.close();
	await query(connection, 'DROP ROLE IF EXISTS eq_node_nobody');
	await query(connection, 'CREATE ROLE eq_node_nobody LOGIN');
	const nobody = open({ ...connection, user: 'eq_node_nobody' });
	await assert.rejects(nobody.ready(), error => error instanceof eqlib.AccessDeniedError && /grant_producer/.test(error.message));
	await nobody.close();
	const nowhere = open({ ...connection, port: 1 }, { connectWait: 100 });
	await assert.rejects(nowhere.ready(), error => error instanceof eqlib.ConnectionError && !error.outcomeUnknown);
	await nowhere.close();
	assert.ok(where.host);
});

test('an extension that is too old, or of another version than its library', async () => {
	const old = await freshDatabase('eq_node_old');
	const start = async () => {
		const own = open(old);
		try {
			await own.ready();
			await own.worker('x', () => {}, { autorun: false }).run();
		} finally {
			await own.close();
		}
	};
	const version = text => query(old, `UPDATE pg_extension SET extversion = '${text}' WHERE extname = 'event_queue'`);
	const [{ extversion }] = await query(old, `SELECT extversion FROM pg_extension WHERE extname = 'event_queue'`);
	for (const text of ['0.1.0', '0.1.9'])
		await version(text).then(() => assert.rejects(start(), error => error instanceof eqlib.ExtensionVersionError &&
			new RegExp(`event_queue of database "eq_node_old" is of version ${text.replaceAll('.', '\\.')}, this package needs .*ALTER EXTENSION event_queue UPDATE`).test(error.message)));
	await version(extversion);
	await assert.rejects(start(), eqlib.QueueNotFoundError);
});

test('ESM and CommonJS share their classes', async () => {
	const esm = await import('../dist/index.mjs');
	assert.equal(esm.EventQueue, eqlib.EventQueue);
	assert.equal(Object.keys(eqlib).every(name => esm[name] === eqlib[name]), true);
});
