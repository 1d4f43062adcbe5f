// nestjs-calls.test.js: what teams do with Bull 4 and @nestjs/bull that its types don't say: values from the
// environment, null for none, words for states, queues that a test replaces, names that a factory gives.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { Injectable, Module, Scope } = require('@nestjs/common');
const { Test } = require('@nestjs/testing');
const { ownDatabase, until } = require('./nestjs-lib');
const nest = require('pg-event-queue/nestjs');

const { EventQueueModule } = nest;
const open = [];
let db;
before(async () => {
	db = await ownDatabase('nestjs_calls');
});
after(async () => {
	await Promise.all(open.map(module => module.close()));
	await db?.end();
});

/** A processor class: { method: [what it does, ...decorators] }. */
function makeProcessor(queue, methods) {
	class Doer {}
	for (const [name, [work, ...decorators]] of Object.entries(methods)) {
		Object.defineProperty(Doer.prototype, name, { value: work, writable: true, configurable: true });
		for (const decorator of decorators)
			decorator(Doer.prototype, name, Object.getOwnPropertyDescriptor(Doer.prototype, name));
	}
	nest.Processor(queue)(Doer);
	return Doer;
}
async function started(imports, providers = [], root = {}) {
	const module = await Test.createTestingModule({ imports: [EventQueueModule.forRoot({ handleSignals: false, ...root }), ...imports], providers }).compile();
	module.useLogger(false);
	open.push(module);
	await module.init();
	return module;
}
async function withQueue(name, options, methods = {}) {
	const module = await started([EventQueueModule.registerQueue({ name, ...options })], Object.keys(methods).length === 0 ? [] : [makeProcessor(name, methods)]);
	return module.get(nest.getQueueToken(name));
}
const settingsOf = async (name, columns) => (await db.query(`SELECT ${columns} FROM event_queue.queue WHERE name = $1`, [name])).rows[0];

test('options as they come from the environment, or as none', async () => {
	const queue = await withQueue('loose', { defaultJobOptions: { attempts: '4', backoff: { type: 'fixed', delay: '700' } }, limiter: { max: '9', duration: '60000' },
		settings: { lockDuration: '45000' } });
	assert.deepEqual(await settingsOf('loose', 'max_attempts, backoff_delay::text AS delay, rate_limit, lease::text'), { max_attempts: 4, delay: '00:00:00.7', rate_limit: 9, lease: '00:00:45' });
	const stateOf = async options => (await queue.add('a', {}, options)).getState();
	for (const option of ['delay', 'attempts', 'backoff', 'priority', 'jobId', 'removeOnComplete', 'removeOnFail', 'timeout', 'repeat', 'lifo', 'stackTraceLimit', 'debounce'])
		for (const none of [null, undefined, .../^(removeOn|lifo)/.test(option) ? [] : [false]])
			assert.equal(await stateOf({ [option]: none }), 'waiting', `${option} ${none}`);
	assert.equal(await stateOf({ delay: Date.now() - 60_000 - Date.now() }), 'waiting', 'a time that has passed');
	assert.equal(await stateOf({ delay: '60000', timeout: '5000', priority: '2', jobId: '' }), 'delayed');
	const job = await queue.getJob((await queue.add('a', {}, { attempts: null })).id);
	assert.equal(job.opts.attempts, 4, 'null is no value, so the default holds');
	assert.equal((await queue.getJob((await queue.add('a', {}, { attempts: 0 })).id)).opts.attempts, 1);
	assert.deepEqual((await queue.getJob((await queue.add('a', null)).id)).data, {}, 'a processor gets an object');
	await assert.rejects(queue.add('a', {}, { attempts: Number.MAX_SAFE_INTEGER }), /attempts is 9007199254740991, not a number from 1 to 1000/);
	await assert.rejects(queue.add('a', {}, { delay: 'soon' }), /delay is 'soon'/);
	await assert.rejects(queue.add('a', {}, { delay: NaN }), /delay is NaN/);
});

test("a jobId that is a number is not another job's number", async () => {
	const queue = await withQueue('numbers');
	const other = await queue.add('other', {}, { jobId: 'theirs' });
	assert.equal(await queue.getJob(other.jobId), null, 'its id is "theirs"');
	const mine = await queue.add('mine', {}, { jobId: Number(other.jobId) });
	assert.deepEqual([mine.id, (await queue.getJob(Number(other.jobId))).name], [other.jobId, 'mine']);
	const plain = await queue.add('plain', {});
	assert.equal((await queue.getJob(plain.id)).name, 'plain');
	await (await queue.getJob(other.jobId)).remove();
	assert.deepEqual((await queue.getWaiting()).map(job => job.name).sort(), ['other', 'plain']);
});

test('states as words, lists, and the last ones counted from the end', async () => {
	const queue = await withQueue('words');
	for (let n = 0; n < 5; n++)
		await queue.add('a', { n });
	await queue.add('a', { n: 5 }, { delay: 3_600_000 });
	const numbers = jobs => jobs.map(job => job.data.n);
	assert.deepEqual(numbers(await queue.getJobs('waiting', 0, 1, true)), [0, 1]);
	assert.deepEqual(numbers(await queue.getJobs(['wait', 'delayed'], 0, -1, true)), [0, 1, 2, 3, 4, 5]);
	assert.deepEqual(numbers(await queue.getJobs(undefined, 0, -1, true)), [0, 1, 2, 3, 4, 5]);
	assert.deepEqual(numbers(await queue.getWaiting(-2, -1)), [3, 4]);
	assert.deepEqual(numbers(await queue.getWaiting(1, -3)), [1, 2]);
	assert.deepEqual([await queue.getJobCountByTypes('waiting', 'delayed'), await queue.getJobCountByTypes('waiting,delayed'), await queue.getJobCountByTypes(['wait'])], [6, 6, 5]);
	await assert.rejects(queue.getJobs(['bogus']), /no job is ever "bogus"/);
	await assert.rejects(queue.clean(), /define a grace period/);
	await assert.rejects(queue.clean(0, 'bogus'), /no job is ever "bogus"/);
});

test("removeJobs takes Redis' patterns", async () => {
	const queue = await withQueue('globs');
	for (const jobId of ['a1', 'a2', 'b1', 'a%', 'a_x', 'a[1]', 'a*', 'é.1'])
		await queue.add('a', {}, { jobId });
	const left = async pattern => {
		await queue.removeJobs(pattern);
		return (await queue.getWaiting()).map(job => job.id).join(' ');
	};
	assert.equal(await left('a[1-2]'), 'b1 a% a_x a[1] a* é.1');
	assert.equal(await left('a_?'), 'b1 a% a[1] a* é.1');
	assert.equal(await left('a\\*'), 'b1 a% a[1] é.1');
	assert.equal(await left('[^a]1'), 'a% a[1] é.1');
	assert.equal(await left('é.?'), 'a% a[1]');
	assert.equal(await left('*'), '');
});

test('jobs by hand: what moveToCompleted and moveToFailed leave in the job; logs; retryJobs', async () => {
	const queue = await withQueue('by hand');
	await queue.addBulk([{ name: 'a' }, { name: 'b' }]);
	const done = await queue.getNextJob();
	for (const line of ['1', '2', '3'])
		await done.log(line);
	assert.deepEqual(await queue.getJobLogs(done.id, 0, -1, false), { logs: ['3', '2', '1'], count: 3 });
	assert.deepEqual(await queue.getJobLogs('none'), { logs: [], count: 0 });
	await done.moveToCompleted('result', true, true);
	assert.deepEqual([done.returnvalue, typeof done.finishedOn], ['result', 'number']);
	const failed = await queue.getNextJob();
	await failed.moveToFailed(undefined);
	assert.deepEqual([failed.failedReason, (await queue.getFailed())[0].failedReason, await queue.getFailedCount()], ['Unknown reason', 'Unknown reason', 1]);
	await queue.retryJobs();
	assert.deepEqual([await queue.getFailedCount(), await queue.getWaitingCount()], [0, 1]);
});

test('getRepeatableJobs gives what add was given', async () => {
	const queue = await withQueue('repeats');
	await queue.add('a', {}, { repeat: { cron: '0 0 3 * * *' }, jobId: 'nightly' });
	await queue.add('b', {}, { repeat: { every: 60_000 } });
	assert.deepEqual((await queue.getRepeatableJobs()).map(({ name, id, cron, every }) => [name, id, name === 'a' ? cron : '', every]).sort(),
		[['a', 'nightly', '0 0 3 * * *', 0], ['b', undefined, '', 60_000]]);
});

test('a local pause before the workers are there holds, and close() too', async () => {
	const did = [];
	class Pauses {
		constructor(one, two) {
			Object.assign(this, { one, two });
		}
		async onModuleInit() {
			await this.one.pause(true);
			await this.two.close();
		}
	}
	const module = await started([EventQueueModule.registerQueue({ name: 'one' }, { name: 'two' })], [
		{ provide: Pauses, useFactory: (one, two) => new Pauses(one, two), inject: [nest.getQueueToken('one'), nest.getQueueToken('two')] },
		makeProcessor('one', { work: [() => { did.push('one'); }, nest.Process('a')] }),
		makeProcessor('two', { work: [() => { did.push('two'); }, nest.Process('a')] }),
	]);
	const [one, two] = ['one', 'two'].map(name => module.get(nest.getQueueToken(name)));
	await two.add('a', {});
	const job = await one.add('a', {});
	assert.deepEqual([await one.isPaused(true), await one.isPaused(), await job.getState()], [true, false, 'waiting']);
	await one.resume(true);
	await until('it is done', () => did.length > 0);
	assert.deepEqual([did, await two.getWaitingCount()], [['one'], 1]);
});

test('what removeOn... said before does not stay beside what it says now; silence overrules nobody; limiter: null', async () => {
	const kept = () => settingsOf('kept', `keep_completed::text AS c, keep_completed_count AS cc, keep_failed::text AS f, keep_failed_count AS fc, rate_limit AS r, group_rate_limit AS g`);
	const say = options => withQueue('kept', options);
	const none = { c: null, cc: null, f: null, fc: null, r: null, g: null };
	await say({});
	assert.deepEqual(await kept(), { ...none, cc: 1000 });
	await say({ defaultJobOptions: { removeOnComplete: { age: 3600, count: 5 }, removeOnFail: 7 }, limiter: { max: 5, duration: 1000, groupKey: 'to' } });
	assert.deepEqual(await kept(), { ...none, c: '01:00:00', cc: 5, fc: 7, g: 5 });
	await say({ defaultJobOptions: { removeOnComplete: 100, removeOnFail: { age: 60 } }, limiter: { max: 6, duration: 1000 } });
	assert.deepEqual(await kept(), { ...none, cc: 100, f: '00:01:00', r: 6 });
	await say({});	// another application, which only adds
	assert.deepEqual(await kept(), { ...none, cc: 100, f: '00:01:00', r: 6 });
	await say({ defaultJobOptions: { removeOnComplete: true, removeOnFail: false }, limiter: null });
	assert.deepEqual(await kept(), none);
	await say({ defaultJobOptions: { removeOnComplete: false } });
	assert.deepEqual(await kept(), { ...none, c: '1000 years' });
});

test('Bull\'s idioms: completed jobs that a listener removes, clean and removeJobs take them, once', async () => {
	const queue = await withQueue('tidy', { defaultJobOptions: { removeOnComplete: false } }, { work: [job => job.data.n, nest.Process('a')] });
	const removed = [];
	const stateOf = async job => job.getState();
	const done = async (...opts) => {
		const jobs = await queue.addBulk(opts.map((one, n) => ({ name: 'a', data: { n }, opts: one })));
		await Promise.all(jobs.map(job => job.finished()));
		return jobs;
	};
	const jobs = await done({}, {}, { jobId: 'mine' }, { removeOnComplete: true });
	assert.deepEqual(await Promise.all(jobs.map(stateOf)), ['completed', 'completed', 'completed', 'stuck']);
	assert.deepEqual(await queue.clean(3600_000), [], 'not so old');
	await queue.removeJobs('min*');
	assert.equal(await queue.getJob('mine'), null);
	assert.equal((await queue.clean(0, 'completed', 1)).length, 1);
	assert.deepEqual([(await queue.clean(0)).length, (await queue.clean(0)).length, await queue.getCompletedCount()], [1, 0, 0]);
	const errors = [];
	queue.on('completed', job => job.remove().then(() => job.remove()).then(() => removed.push(job.id), error => errors.push(error)));
	const [one, two] = await done({}, { removeOnComplete: true });
	await until('both are removed', () => removed.length + errors.length === 2);
	assert.deepEqual([removed.sort(), errors, await stateOf(one), await stateOf(two)], [[one.id, two.id].sort(), [], 'stuck', 'stuck']);
});

test('a limiter that is taken out of the code holds on, and who works is told; null ends it', async () => {
	await withQueue('limited', { limiter: { max: 5, duration: 60_000 } });
	const told = [];
	const start = async (options, processors) => {
		const module = await Test.createTestingModule({ imports: [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'limited', ...options })],
			providers: processors }).compile();
		open.push(module);
		module.useLogger({ log: () => {}, error: () => {}, warn: message => told.push(message) });
		await module.init();
	};
	const works = [makeProcessor('limited', { work: [() => 1, nest.Process('a')] })];
	await start({}, []);
	await start({ limiter: { max: 5, duration: 60_000 } }, works);
	assert.deepEqual(told, [], 'who only adds says nothing of it in Bull either');
	await start({}, works);
	assert.match(told.join(), /^queue "limited" begins at most 5 jobs in 60000 ms, by a limiter that registerQueue does not name: give limiter: null/);
	await start({ limiter: null }, works);
	assert.equal((await settingsOf('limited', 'rate_limit')).rate_limit, null);
	await start({}, works);
	assert.equal(told.length, 1);
});

test('registerQueueAsync: without a factory it is registerQueue; a factory may say the name on the server', async () => {
	const did = [];
	const module = await started([
		EventQueueModule.registerQueueAsync({ name: 'plain', defaultJobOptions: { attempts: 6 } }),
		EventQueueModule.registerQueueAsync({ name: 'audio', useFactory: () => ({ name: 'staging:audio' }) }),
	], [makeProcessor('audio', { work: [job => { did.push(job.queue.name); }, nest.Process('a')] })]);
	assert.equal((await settingsOf('plain', 'max_attempts')).max_attempts, 6);
	await module.get(nest.getQueueToken('audio')).add('a', {});
	await until('it is done', () => did.length > 0);
	assert.deepEqual([did, await settingsOf('audio', 'name')], [['staging:audio'], undefined]);
});

test('a test that replaces the queues needs no server, and starts no worker', async () => {
	const added = [];
	const module = await Test.createTestingModule({
		imports: [EventQueueModule.forRoot({ connection: { host: '/nowhere', port: 1 }, connectWait: 100 }), EventQueueModule.registerQueue({ name: 'mail' })],
		providers: [makeProcessor('mail', { work: [() => 1, nest.Process('a')], heard: [() => {}, nest.OnQueueCompleted()] })],
	}).overrideProvider(nest.getQueueToken('mail')).useValue({ add: (...args) => added.push(args) }).compile();
	module.useLogger(false);
	await module.init();
	module.get(nest.getQueueToken('mail')).add('a', { n: 1 });
	assert.deepEqual(added, [['a', { n: 1 }]]);
	await module.close();
});

test('global:failed: once, when it is final; again after a retry; by the jobId, also of what others did', async () => {
	const heard = [];
	const queue = await withQueue('told', {}, { work: [() => { throw new Error('no'); }, nest.Process('a')] });
	for (const event of ['failed', 'completed'])
		queue.on(`global:${event}`, (id, value) => heard.push(`${event} ${id} ${value}`));
	await until('it was looked at', () => queue.port.global.queues.get('told').looked);
	const job = await queue.add('a', {}, { attempts: 2, jobId: 'mine' });
	await until('it is dead', () => job.isFailed());
	await until('it is told', () => heard.length > 0);
	await job.retry();
	await until('it is told again', () => heard.length > 1);
	await queue.pause(true);
	const other = await queue.add('a', {}, { jobId: 'theirs' });
	await db.query(`SELECT event_queue.complete(job_id, lease_token, '1') FROM event_queue.claim('told')`);
	await until('it is told', () => heard.length > 2);
	assert.deepEqual(heard, ['failed mine no', 'failed mine no', 'completed theirs 1']);
	assert.equal(other.id, 'theirs');
});

test('a listener that throws or rejects does not end the process, nor the add that told it', async () => {
	const errors = [];
	const queue = await withQueue('listens', {}, { work: [() => 5, nest.Process('a')] });
	queue.port.logger.error = message => errors.push(message);
	queue.on('waiting', () => { throw new Error('thrown'); });
	queue.on('completed', async () => { throw new Error('rejected'); });
	const job = await queue.add('a', {});
	assert.equal(await job.finished(), 5);
	await until('both are logged', () => errors.length === 2);
	assert.match(errors.join('\n'), /a listener of queue "listens": Error: thrown[^]*a listener of queue "listens": Error: rejected/);
});

test('a request-scoped processor that is provided by another token', async () => {
	const did = [];
	const One = makeProcessor({ name: 'scoped', scope: Scope.REQUEST }, { work: [job => { did.push(job.data.n); }, nest.Process('a')] });
	Injectable({ scope: Scope.REQUEST })(One);
	class Inner {}
	Module({ imports: [EventQueueModule.registerQueue({ name: 'scoped' })], providers: [{ provide: 'ONE', useClass: One, scope: Scope.REQUEST }], exports: [EventQueueModule] })(Inner);
	const module = await started([Inner]);
	await module.get(nest.getQueueToken('scoped'), { strict: false }).add('a', { n: 1 });
	await until('it is done', () => did.length > 0);
	assert.deepEqual(did, [1]);
});
