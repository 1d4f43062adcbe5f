// nestjs.test.js: the module's own: processors, subscriptions, @EventSourced, health, shutdown, tests.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, describe, test } = require('node:test');
const { spawn } = require('node:child_process');
const path = require('node:path');
const { ownDatabase, compile, until } = require('./nestjs-lib');
const nest = require('pg-event-queue/nestjs');

let db, out, types;

before(async () => {
	db = await ownDatabase('nestjs_own');
	await db.query('CREATE TABLE lead (lead_id text PRIMARY KEY, step int NOT NULL)');
	({ out } = compile('nest-app', { as: 'nest-app' }));
	types = require(path.join(out, 'app.js'));
});

after(() => db?.end());

const eventsOf = async id => (await db.query(
	'SELECT version, event_type, event_data FROM event_queue.event_store WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY 1',
	['Lead', id])).rows;
const jobsOf = async (queue, name) => Number((await db.query(
	'SELECT count(*) FROM event_queue.all_jobs WHERE queue = $1 AND name = $2', [queue, name])).rows[0].count);

describe('an application', () => {
	let app, settings, url, queue;

	before(async () => {
		const { NestFactory } = require('@nestjs/core');
		app = await NestFactory.create(types.AppModule, { logger: ['error'] });
		await app.listen(0, '127.0.0.1');
		url = await app.getUrl();
		settings = app.get(types.Settings);
		queue = name => app.get(nest.getQueueToken(name));
	});

	after(() => app?.close());

	const line = what => until(`"${what}" of ${JSON.stringify(settings.lines)}`, () => settings.lines.includes(what));

	test('concurrency of a named processor, resolved when it starts, is exact', async () => {
		let warning;
		process.once('warning', one => { warning = one; });
		await queue('work').addBulk(Array.from({ length: 40 }, () => ({ name: 'counted', data: {} })));
		await until('some run', async () => (await queue('work').getJobCounts()).active > 0);
		await queue('work').whenCurrentJobsFinished();
		await until('all are done', async () => (await queue('work').getJobCounts()).completed === 40);
		assert.equal(settings.most, 2);
		assert.equal(warning, undefined, 'who waits for the end of the jobs leaves no listeners behind');
	});

	test('WorkerHost and OnWorkerEvent, the shape of @nestjs/bullmq', async () => {
		await queue('follow').add('greet', {});
		await line('greet is processed');
		await line('greet is followed');
	});

	test('a global event tells of what others have done, in the database or elsewhere', async () => {
		await queue('elsewhere').add('one', { to: 'ana' });
		await queue('elsewhere').add('two', { to: 'rui' }, { attempts: 1 });
		await db.query(`SELECT event_queue.complete(c.job_id, c.lease_token, '{"by": "psql"}') FROM event_queue.claim('elsewhere', job_names => '{one}') c`);
		await db.query(`SELECT event_queue.fail(c.job_id, c.lease_token, 'not by psql') FROM event_queue.claim('elsewhere', job_names => '{two}') c`);
		await line('elsewhere completed string {"by":"psql"}');
		await line('elsewhere failed string not by psql');
		await db.query(`SELECT pg_sleep(1.5)`);		// it looks again, and tells nothing twice
		assert.equal(settings.lines.filter(one => one.startsWith('elsewhere ')).length, 2);
	});

	test('a backoff strategy of the application is asked', async () => {
		await queue('work').add('broken', {}, { attempts: 2, backoff: { type: 'patient', options: { hours: 3 } } });
		const { rows } = await until('it has failed', async () => {
			const result = await db.query(`SELECT round(extract(epoch FROM run_at - now()) / 3600)::int AS hours, failures
				FROM event_queue.jobs WHERE queue = 'work' AND state = 'retrying'`);
			return result.rows.length > 0 && result;
		});
		assert.deepEqual(rows, [{ hours: 3, failures: 1 }]);
		await queue('work').empty();
	});

	test('a request-scoped processor is made for each job', async () => {
		const [one, two] = [await queue('scoped').add({ n: 1 }), await queue('scoped').add({ n: 2 })];
		assert.notEqual(one.id, two.id);
		await until('both', () => settings.lines.filter(one => one === 'request of its own job').length === 2);
		assert.ok(!settings.lines.includes('request of another job'));
	});

	test('the limiter of a group takes its key from a path into the data', async () => {
		await queue('follow').pause();
		const job = await queue('follow').add('send', { contact: { phone: '+55 11' } });
		const { rows } = await db.query('SELECT group_key FROM event_queue.jobs WHERE job_id = $1', [job.jobId]);
		assert.equal(rows[0].group_key, '+55 11');
		const [setting] = (await db.query(`SELECT group_rate_limit, rate_limit FROM event_queue.queue WHERE name = 'follow'`)).rows;
		assert.deepEqual(setting, { group_rate_limit: 1000, rate_limit: null });
		await queue('follow').resume();
	});

	test('@EventSourced: rows, jobs and events of a method commit together; @OnEvent gets them', async () => {
		const leads = app.get(types.Leads);
		await leads.create('L1', 1);
		assert.deepEqual(await eventsOf('L1'), [
			{ version: 1, event_type: 'lead.called', event_data: { by: 'phone' } },
			{ version: 2, event_type: 'lead.created', event_data: { step: 1 } },
		]);
		await line('lead is followed');
		await line('event lead.called of L1 {"by":"phone"}');
		await line('event lead.created of L1 {"step":1}');
	});

	test('@EventSourced: the id by option, a wrong version, and nothing of what failed', async () => {
		const leads = app.get(types.Leads);
		await leads.move({ code: 'L2', step: 4 }, 0);
		assert.deepEqual(await eventsOf('L2'), [{ version: 1, event_type: 'lead.moved', event_data: { step: 4 } }]);
		await assert.rejects(leads.move({ code: 'L3', step: 4 }, 7), error => error.sqlstate === 'EQ001');
		await assert.rejects(leads.fail('L4'), /in a transaction: true/);
		await assert.rejects(leads.create({}, 1), /null value|first argument/);
		const { rows } = await db.query(`SELECT lead_id FROM lead WHERE lead_id IN ('L3', 'L4')`);
		assert.deepEqual(rows, []);
		assert.deepEqual(await eventsOf('L4'), []);
		assert.equal(await jobsOf('follow', 'never'), 0);
	});

	test('two methods in one transaction: both or none', async () => {
		await assert.rejects(app.get(types.Leads).both('L5', 'L6'), /in a transaction: true/);
		assert.deepEqual(await eventsOf('L5'), []);
		assert.deepEqual((await db.query(`SELECT lead_id FROM lead WHERE lead_id IN ('L5', 'L6')`)).rows, []);
	});

	test('emit() outside of such a method says so', () => {
		assert.throws(() => nest.emit('lead.lost'), /outside of a method with @EventSourced/);
	});

	test('/metrics is Prometheus\' text', async () => {
		const response = await fetch(`${url}/metrics`);
		assert.equal(response.status, 200);
		assert.match(response.headers.get('content-type'), /^text\/plain;.*version=0\.0\.4/);
		assert.match(await response.text(), /^event_queue_[a-z_]+\{.*queue="work"/m);
	});

	test('/health/queues, and terminus: up; down with the reason when jobs fail', async () => {
		let response = await fetch(`${url}/health/queues`);
		assert.equal(response.status, 200);
		assert.equal((await response.json()).work.status, 'healthy');
		response = await fetch(`${url}/ready`);
		assert.equal(response.status, 200);
		assert.deepEqual((await response.json()).info.queues, { status: 'up', queues: { work: { status: 'healthy', reasons: [] } } });
		await queue('work').addBulk(Array.from({ length: 60 }, () => ({ name: 'broken', data: {} })));
		response = await until('the queue is unhealthy', async () => {
			const answer = await fetch(`${url}/health/queues`);
			return answer.status === 503 && answer;
		});
		assert.equal((await response.json()).work.status, 'unhealthy');
		response = await fetch(`${url}/ready`);
		assert.equal(response.status, 503);
		const { error } = await response.json();
		assert.equal(error.queues.status, 'down');
		assert.ok(error.queues.queues.work.reasons.length > 0);
	});
});

describe('the end of an application', () => {
	test('close(): jobs end, may still add, and find their providers open', async () => {
		const { NestFactory } = require('@nestjs/core');
		const app = await NestFactory.createApplicationContext(types.AppModule, { logger: ['error'] });
		const settings = app.get(types.Settings);
		const work = app.get(nest.getQueueToken('work'));
		const before = await jobsOf('follow', 'from slow');
		await work.add('slow', {});
		await until('it runs', () => settings.lines.includes('slow begins'));
		const closed = app.close();
		await work.add('slow', {});				// is for another process
		settings.open = false;
		await closed;
		assert.ok(settings.lines.includes('slow ends, database open'));
		assert.equal(await jobsOf('follow', 'from slow'), before + 1);
		const { rows } = await db.query(`SELECT state, failures, stalled FROM event_queue.jobs WHERE queue = 'work' AND name = 'slow'`);
		assert.deepEqual(rows, [{ state: 'ready', failures: 0, stalled: 0 }]);
		await db.query(`SELECT event_queue.purge_queue('work')`);
	});

	test('SIGTERM does so, too, in an application without enableShutdownHooks()', async () => {
		const child = spawn(process.execPath, [path.join(out, 'main.js')], { stdio: ['pipe', 'pipe', 'inherit'] });
		let said = '';
		child.stdout.on('data', data => { said += data; });
		const ended = new Promise(resolve => child.on('exit', (code, signal) => resolve({ code, signal })));
		await until('it is up', () => said.includes('ready'));
		await db.query(`SELECT event_queue.enqueue('work', 'slow')`);
		await until('the job runs', () => said.includes('slow begins'));
		const before = await jobsOf('follow', 'from slow');
		child.kill('SIGTERM');
		child.stdin.write('go\n');
		assert.deepEqual(await ended, { code: null, signal: 'SIGTERM' });
		assert.match(said, /slow ends, database open/);
		assert.equal(await jobsOf('follow', 'from slow'), before + 1);
		assert.equal(await jobsOf('work', 'slow') > 0, true);
		assert.deepEqual((await db.query(`SELECT 1 FROM event_queue.jobs WHERE queue = 'work' AND name = 'slow'`)).rows, []);
	});
});

describe('tests of an application', () => {
	const testing = async options => {
		const { Test } = require('@nestjs/testing');
		const queues = await nest.EventQueueTesting.create(options);
		const module = await queues.override(Test.createTestingModule({ imports: [types.AppModule] })).compile();
		module.useLogger(false);
		await module.init();
		return { queues, module, settings: module.get(types.Settings), of: name => module.get(nest.getQueueToken(name)) };
	};

	test('inline: add runs the job in the test\'s transaction; rollback leaves nothing', async () => {
		const { queues, module, settings, of } = await testing({ mode: 'inline' });
		try {
			await db.query(`SELECT event_queue.purge_queue(q.name) FROM event_queue.queue q`);
			for (const round of [1, 2]) {
				await of('follow').add('inline', { contact: { phone: '1' } });
				assert.ok(settings.lines.includes('inline is processed'));
				await module.get(types.Leads).create('inline', round);
				assert.equal((await queues.tx.query(`SELECT step FROM lead WHERE lead_id = 'inline'`)).rows[0].step, round);
				await assert.rejects(module.get(types.Leads).fail('inline 2'), /in a transaction/);
				await assert.rejects(module.get(types.Leads).create('inline', 3), /duplicate key/);
				assert.deepEqual(queues.ran.map(run => [run.name, run.outcome, run.result]), [
					['inline', 'completed', 'followed'], ['lead', 'completed', 'followed']]);
				await of('work').add('broken', {}, { attempts: 2, backoff: 3600000 });
				assert.equal(queues.ran.at(-1).outcome, 'failed');
				await queues.drain({ skipWaits: true });
				assert.deepEqual(queues.ran.slice(-2).map(run => [run.attempt, run.outcome, run.error]),
					[[1, 'failed', 'broken'], [2, 'dead', 'broken']]);
				await queues.rollback();
			}
			assert.equal(await jobsOf('follow', 'inline'), 0);
			assert.deepEqual(await eventsOf('inline'), []);
		} finally {
			await module.close();
			await queues.close();
		}
	});

	test('drain: commits, and works until there is nothing left, events too', async () => {
		const { queues, module, settings, of } = await testing({ mode: 'drain' });
		try {
			await queues.drain({ skipWaits: true });
			settings.open = false;
			const { jobId } = await of('work').add('slow', {}, { delay: 3600000 });
			assert.deepEqual(await queues.drain(), []);
			await module.get(types.Leads).create('drained', 1);
			const ran = await queues.drain({ skipWaits: true });
			assert.deepEqual(ran.map(run => run.name).sort(), ['from slow', 'lead', 'slow']);
			assert.deepEqual(ran.find(run => run.name === 'from slow').data, { of: jobId });
			assert.ok(settings.lines.includes('event lead.created of drained {"step":1}'));
		} finally {
			await module.close();
			await queues.close();
		}
	});

	test('no open handles: a process that only closes ends', async () => {
		const child = spawn(process.execPath, ['-e', `
			require('reflect-metadata');
			const { EventQueueTesting } = require('pg-event-queue/nestjs');
			const { Test } = require('@nestjs/testing');
			const { AppModule } = require(${JSON.stringify(path.join(out, 'app.js'))});
			(async () => {
				const queues = await EventQueueTesting.create({ mode: 'drain' });
				const module = await queues.override(Test.createTestingModule({ imports: [AppModule] })).compile();
				module.useLogger(false);
				await module.init();
				await queues.drain();
				await queues.close();
				console.log('closed');
			})();`], { cwd: path.join(__dirname, '..'), stdio: ['ignore', 'pipe', 'inherit'] });
		let said = '';
		child.stdout.on('data', data => { said += data; });
		const code = await new Promise(resolve => child.on('exit', resolve));
		assert.deepEqual({ code, said }, { code: 0, said: 'closed\n' });
	});
});

describe('transactions of another library', () => {
	test('forRoot({ transaction }): rows, jobs and events in a transaction of Knex; events handed out in one, too', async () => {
		const { Test } = require('@nestjs/testing');
		const knex = require('knex')({ client: 'pg', connection: { host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE } });
		const { EventQueueModule } = nest;
		const heard = [];
		class Clients {
			async create(id, fails) {
				await nest.currentTransaction()('lead').insert({ lead_id: id, step: 1 });
				await queue.add('client', { id });
				nest.emit('client.created', { id });
				if (fails)
					throw new Error('no');
			}

			async onClient(event, tx) {
				heard.push([event.aggregateId, tx.isTransaction]);
				await tx('lead').where({ lead_id: event.aggregateId }).increment('step');
				await queue.add('heard', {});
			}
		}
		const decorate = (decorator, name) => {
			const descriptor = Object.getOwnPropertyDescriptor(Clients.prototype, name);
			decorator(Clients.prototype, name, descriptor);
			Object.defineProperty(Clients.prototype, name, descriptor);
		};
		decorate(nest.EventSourced('Client'), 'create');
		decorate(nest.OnEvent('client.*', { from: 'start' }), 'onClient');
		const module = await Test.createTestingModule({
			imports: [
				EventQueueModule.forRoot({ handleSignals: false, transaction: work => knex.transaction(work) }),
				EventQueueModule.registerQueue({ name: 'clients' }),
			],
			providers: [Clients],
		}).compile();
		const queue = module.get(nest.getQueueToken('clients'));
		try {
			await module.init();
			await module.get(Clients).create('C1');
			await assert.rejects(module.get(Clients).create('C2', true), /^Error: no$/);
			await until('the event is handed out', async () => (await db.query(`SELECT FROM lead WHERE lead_id = 'C1' AND step = 2`)).rows.length);
			assert.deepEqual(heard, [['C1', true]]);
			assert.deepEqual((await db.query(`SELECT lead_id FROM lead WHERE lead_id LIKE 'C_'`)).rows, [{ lead_id: 'C1' }]);
			assert.deepEqual((await queue.getWaiting()).map(job => [job.name, job.data]), [['client', { id: 'C1' }], ['heard', {}]]);
			const status = (await db.query(`SELECT name FROM event_queue.subscription_status`)).rows.map(row => row.name);
			assert.ok(status.includes('Clients.onClient'));
		} finally {
			await module.close();
			await knex.destroy();
		}
	});
});

describe('bad input', () => {
	const start = async (imports, providers = [], options = {}) => {
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [nest.EventQueueModule.forRoot({ handleSignals: false, ...options }), ...imports], providers,
		}).compile();
		module.useLogger(false);
		try {
			await module.init();
		} finally {
			await module.close();
		}
	};
	const processor = (queue, ...names) => {
		class Doer {}
		for (const [index, name] of names.entries()) {
			const method = `method${index}`;
			Doer.prototype[method] = async job => { if (job.data?.fails) throw new Error('it fails'); };
			nest.Process(name)(Doer.prototype, method, Object.getOwnPropertyDescriptor(Doer.prototype, method));
		}
		nest.Processor(queue)(Doer);
		return Doer;
	};
	const { EventQueueModule } = nest;

	test('a processor registered twice', () => assert.rejects(
		start([EventQueueModule.registerQueue({ name: 'bad' })], [processor('bad', 'a', 'a')]),
		/queue "bad": both Doer\.method0 and Doer\.method1 process jobs named "a"/));

	test('a processor of a queue that nobody registers', () => assert.rejects(
		start([], [processor('nowhere', 'a')]), /Doer is the processor of queue "nowhere", which no .*registerQueue/));

	test('a queue without a connection', async () => {
		const { Test } = require('@nestjs/testing');
		await assert.rejects(Test.createTestingModule({ imports: [EventQueueModule.registerQueue({ name: 'bad' })] }).compile(),
			/queue "bad" has no connection: import EventQueueModule\.forRoot/);
	});

	test('options that mean nothing are refused at start', async () => {
		await assert.rejects(start([EventQueueModule.registerQueue({ name: 'bad', processors: ['x.js'] })]), /processors of registerQueue "bad" has no meaning here: .*@Processor/);
		await assert.rejects(start([EventQueueModule.registerQueue({ name: 'bad', defaultJobOption: {} })]), /defaultJobOption of registerQueue "bad" is not known/);
		await assert.rejects(start([EventQueueModule.registerQueue({ name: 'bad', defaultJobOptions: { lifo: true } })]), /option lifo of a job has no meaning/);
		await assert.rejects(start([EventQueueModule.registerQueue({ name: 'bad', settings: { lockduration: 5 } })]), /lockduration of settings of registerQueue is not known/);
		await assert.rejects(start([EventQueueModule.registerQueue({ name: 'bad', limiter: { max: 5 } })]), /limiter\.duration is undefined/);
		const bad = EventQueueModule.registerQueue({ name: 'bad' });
		await assert.rejects(start([bad], [processor('bad', { name: 'a', concurency: 5 })]), /option concurency of @Process of Doer\.method0 is not known/);
		await assert.rejects(start([bad], [processor({ name: 'bad', limiter: { max: 1, duration: 1 } }, 'a')]), /option limiter of @Processor of Doer has no meaning here: .*registerQueue/);
		await start([EventQueueModule.registerQueueAsync({ name: 'bad', useFactory: () => undefined })]);
		await assert.rejects(start([], [], { conection: {} }), /option conection of forRoot is not known/);
		await assert.rejects(start([], [], { url: 'redis://localhost:6379' }), /a URI of Redis/);
	});

	test('a setting that the server does not know', () => assert.rejects(
		start([EventQueueModule.registerQueue({ name: 'other bad', server: { colour: 'red' } })]), /colour/));

	test('a database without the extension', () => assert.rejects(
		start([], [], { connection: { database: 'template1' } }), /event_queue/));

	test('a role that may not create the queue, and one that may not use it', async () => {
		await db.query(`CREATE ROLE nest_api LOGIN; SELECT event_queue.grant_producer('nest_api')`);
		await assert.rejects(start([EventQueueModule.registerQueue({ name: 'not there' })], [], { connection: { user: 'nest_api' } }),
			/queue "not there" does not exist, and this role may not create it: .*create_queue/);
		await start([EventQueueModule.registerQueue({ name: 'bad', defaultJobOptions: { attempts: 9 } })], [], { connection: { user: 'nest_api' } });
	});

	test('a read-only server: the health indicator and /health/queues are down, and say so', async () => {
		await db.query(`DROP ROLE IF EXISTS nest_ro; CREATE ROLE nest_ro LOGIN SUPERUSER; ALTER ROLE nest_ro SET default_transaction_read_only = on`);
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [EventQueueModule.forRoot({ handleSignals: false, connection: { user: 'nest_ro' } }), nest.EventQueueHealthModule.register()],
		}).compile();
		const ro = module.createNestApplication({ logger: false });
		await ro.listen(0, '127.0.0.1');
		try {
			const told = await module.get(nest.EventQueueHealthIndicator).isHealthy('queues');
			assert.equal(told.queues.status, 'down');
			assert.match(told.queues.message, /read-only/);
			const response = await fetch(`${await ro.getUrl()}/health/queues`);
			assert.equal(response.status, 503);
			assert.match((await response.json()).message, /read-only/);
		} finally {
			await ro.close();
		}
	});

	test('what has no counterpart says what to do instead', async () => {
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'bad' })],
		}).compile();
		await module.init();
		const queue = module.get(nest.getQueueToken('bad'));
		try {
			await assert.rejects(queue.add('a', {}, { repeat: { every: 1500 } }), /repeat\.every 1500 has no counterpart/);
			await assert.rejects(queue.add('a', {}, { repeat: { every: 1000, limit: 0 } }), /repeat\.limit is 0/);
			await assert.rejects(queue.add('a', {}, { repeat: { every: 1000, limit: 1e9 } }), /repeat\.limit is 1000000000, above 100000/);
			await assert.rejects(queue.add('a', {}, { repeat: { cron: '* * * * *', endDate: 'soon' } }), /repeat\.endDate soon/);
			await assert.rejects(queue.add('a', {}, { repeat: { cron: '* * * * *', every: 1000 } }), /either cron or every/);
			await assert.rejects(queue.add('a', {}, { repeat: {} }), /either cron or every/);
			await assert.rejects(queue.add('a', {}, { repeat: { cron: '1 2 3' } }), /invalid cron/);
			await assert.rejects(queue.add('a', {}, { lifo: true }), /lifo/);
			await assert.rejects(queue.add('a', {}, 5000), /options of job a are 5000, not an object/);
			await assert.rejects(queue.addBulk([{ name: 'a', data: {}, opts: 5000 }]), /options of job a are 5000/);
			await assert.rejects(queue.addBulk([{ name: 'a', data: {}, options: { delay: 5 } }]), /option options of job 0 of addBulk is not known/);
			await assert.rejects(queue.addBulk([{ name: 'a', data: {}, opts: { repeat: { every: 1000 } } }]), /add such a job by add/);
			await assert.rejects(queue.addBulk(), /addBulk is given undefined/);
			await assert.rejects(queue.add('a', {}, { debounce: 'x' }), /debounce is given without an id/);
			await assert.rejects(queue.add('a', {}, { dependsOn: 5 }), /dependsOn is 5/);
			await assert.rejects(queue.add('a', {}, { repeat: { pattern: '* * * * *' } }), /option pattern of repeat has no meaning here: that is cron/);
			await assert.rejects(queue.port.appendEvents('a', 'b', [{ eventType: 'x.y', data: () => {}, options: {} }]), /the data of event x\.y is no JSON/);
			const job = await queue.add('a', { n: 1 });
			await assert.rejects(job.promote(), /does not wait for its time/);
			await assert.rejects(job.update({ n: 1n }), /the data of job a .*BigInt/);
			await assert.rejects(job.progress(1), /for who has leased the job/);
			assert.throws(() => queue.client, /there is no Redis/);
		} finally {
			await module.close();
		}
	});

	test('job.update, of one that waits and in its processor; promote; retry with other data', async () => {
		const seen = [];
		class Updates {
			async work(job) {
				seen.push([job.data, job.attemptsMade, job.opts.repeat]);
				if (job.data.step < 3)
					await job.update({ step: job.data.step + 1 });
				if (job.data.step < 4)
					throw new Error(`at step ${job.data.step}`);
				return job.data.step;
			}
		}
		nest.Processor('updates')(Updates);
		nest.Process('a')(Updates.prototype, 'work', Object.getOwnPropertyDescriptor(Updates.prototype, 'work'));
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'updates' })],
			providers: [Updates],
		}).compile();
		await module.init();
		const queue = module.get(nest.getQueueToken('updates'));
		try {
			const job = await queue.add('a', { step: 0 }, { delay: 3_600_000, attempts: 2, backoff: 3_600_000 });
			await job.update({ step: 1 });
			assert.deepEqual([job.data, (await queue.getJob(job.id)).data], [{ step: 1 }, { step: 1 }]);
			await job.promote();
			await until('it failed once', async () => (await queue.getJob(job.id)).attemptsMade === 1);
			assert.deepEqual((await queue.getJob(job.id)).data, { step: 2 }, 'what its processor made of it');
			assert.equal(await queue.promoteJobs(), 1);
			await until('it is dead', () => job.isFailed());
			await assert.rejects(job.update({ step: 9 }), /is not waiting.*retry_dead/);
			await job.retry({ step: 4 });
			await until('it is done', () => job.isCompleted());
			assert.deepEqual(seen.map(([data]) => data.step), [1, 2, 4]);
			await queue.add('a', { step: 4 }, { repeat: { every: 1000, limit: 2 } });
			await until('its last time is over', async () => await queue.getRepeatableCount() === 0);
			// Added again, as the next start of the application does: it is over all the same.
			await queue.add('a', { step: 4 }, { repeat: { every: 1000, limit: 2 } });
			await until('both are done', () => seen.length === 5);
			await new Promise(resolve => setTimeout(resolve, 1500));
			assert.deepEqual(seen.slice(3), [[{ step: 4 }, 0, { every: 1000, limit: 2 }], [{ step: 4 }, 0, { every: 1000, limit: 2 }]]);
			await queue.add('b', {}, { repeat: { cron: '0 3 * * *', tz: 'UTC', limit: 3, count: 1, startDate: '2100-01-01T00:00:00Z' } });
			assert.equal((await queue.getRepeatableJobs()).find(one => one.name === 'b').endDate, Date.UTC(2100, 0, 2, 3));
			await queue.add('c', {}, { repeat: { cron: '0 3 * * *', limit: 3, count: 3 } });
			assert.equal(await queue.getRepeatableCount(), 1, 'all times of c are over');
		} finally {
			await module.close();
		}
	});

	test('as in Bull: queue.on of global events, counts of a paused queue, stacks', async () => {
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'as bull' })],
			providers: [processor('as bull', 'ok', 'bad')],
		}).compile();
		await module.init();
		const queue = module.get(nest.getQueueToken('as bull'));
		try {
			await queue.pause();
			const ok = await queue.add('ok', {});
			assert.deepEqual(await queue.getJobCounts(), { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, paused: 1 });
			assert.deepEqual([await queue.getWaitingCount(), await queue.getPausedCount(), await queue.count(), (await queue.getWaiting()).length], [1, 1, 1, 1]);
			// Nobody has a decorator for it, and it is done elsewhere.
			const heard = [];
			queue.on('global:completed', (id, result) => heard.push([id, result]));
			await queue.pause(true);
			await queue.resume();
			// What is there when the queue is first looked at is no news.
			await until('it was looked at', async () => queue.port.global.queues.get('as bull').looked);
			await db.query(`SELECT event_queue.complete(job_id, lease_token, '{"by": "another"}') FROM event_queue.claim('as bull')`);
			await until('it is heard', () => heard.length === 1);
			assert.deepEqual(heard, [[String(ok.jobId), '{"by":"another"}']]);
			const failed = new Promise(resolve => queue.once('failed', resolve));
			const bad = await queue.add('bad', { fails: true });
			await queue.resume(true);
			for (const job of [await failed, await queue.getJob(bad.id)])
				assert.match(job.stacktrace[0], /^Error: it fails\n +at /);
		} finally {
			await module.close();
		}
	});

	test('repeat: every so many seconds, with seconds in the expression, from and until a date', async () => {
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'again' })],
		}).compile();
		await module.init();
		const queue = module.get(nest.getQueueToken('again'));
		try {
			await queue.add('a', { n: 1 }, { repeat: { every: 1000 } });
			await until('it comes twice', async () => await queue.count() >= 2);
			await queue.removeRepeatable('a', { every: 1000 });
			assert.equal(await queue.getRepeatableCount(), 0);
			await queue.add('b', {}, { repeat: { every: 7000, endDate: '2100-01-01T00:00:00Z' } });
			await queue.add('c', {}, { repeat: { cron: '*/10 0 3 * * *', startDate: new Date('2099-12-31T00:00:00Z'), endDate: Date.UTC(2100, 0, 1) } });
			await queue.add('d', {}, { repeat: { cron: '0  0 3 * * *', tz: 'America/Sao_Paulo' } });
			await queue.add('e', {}, { repeat: { every: 120_000 } });
			const jobs = (await queue.getRepeatableJobs()).sort((x, y) => x.name < y.name ? -1 : 1);
			assert.deepEqual(jobs.map(job => [job.name, job.cron, job.every, job.tz, job.endDate]), [
				['b', '@every 7s', 7000, 'UTC', Date.UTC(2100, 0, 1)],
				['c', '*/10 0 3 * * *', 0, 'UTC', Date.UTC(2100, 0, 1)],
				['d', '0  0 3 * * *', 0, 'America/Sao_Paulo', undefined],
				['e', '*/2 * * * *', 120_000, 'UTC', undefined],
			]);
			assert.equal(jobs[0].next % 7000, 0, 'as in Bull: counted from 1970');
			assert.equal(jobs[1].next, Date.UTC(2099, 11, 31, 3));
			// Over: it comes no more, and that is no error.
			await queue.add('f', {}, { repeat: { every: 1000, endDate: 1000 } });
			await queue.removeRepeatableByKey(jobs[0].key);
			assert.deepEqual((await queue.getRepeatableJobs()).map(job => job.name).filter(name => name === 'b'), []);
			await queue.add('g', {});
			const active = await queue.getNextJob();
			await assert.rejects(queue.obliterate(), /with active jobs/);
			await active.moveToCompleted();
			await queue.obliterate();
			assert.deepEqual((await db.query(`SELECT 1 FROM event_queue.schedules WHERE queue = 'again'`)).rows, []);
			assert.deepEqual([await queue.count(), await queue.isPaused()], [0, false]);
			// As in Bull, whose tests do so before each: it is there, with its settings, and empty.
			await queue.add('h', {});
			assert.equal(await queue.count(), 1);
		} finally {
			await module.close();
		}
	});

	test('jobs by hand: getNextJob, logs, clean, empty', async () => {
		const { Test } = require('@nestjs/testing');
		const module = await Test.createTestingModule({
			imports: [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'hand' })],
		}).compile();
		await module.init();
		const queue = module.get(nest.getQueueToken('hand'));
		try {
			const added = await queue.add('a', { n: 1 }, { attempts: 1 });
			const job = await queue.getNextJob();
			assert.equal(job.jobId, added.jobId);
			assert.equal(await job.isActive(), true);
			await job.log('looked at');
			await job.progress({ half: true });
			assert.equal(await job.extendLock(60000), 1);
			await job.moveToFailed({ message: 'no use' });
			assert.deepEqual(await queue.getJobLogs(job.id), { logs: ['looked at'], count: 1 });
			const [failed] = await queue.getFailed();
			assert.equal(failed.failedReason, 'no use');
			await assert.rejects(failed.finished(), /no use/);
			await assert.rejects(module.get(nest.getEventQueueToken()).core.store.awaitJob(failed.jobId), /^JobFailedError: no use$/);
			assert.deepEqual((await queue.clean(0, 'failed')).map(one => one.id), [added.id]);
			await queue.add('b', {});
			const next = await queue.getNextJob();
			await next.moveToCompleted({ ok: 1 });
			assert.deepEqual(await next.finished(), { ok: 1 });
			assert.equal((await queue.getCompleted())[0].returnvalue.ok, 1);
			assert.equal(await queue.getNextJob(), undefined);
			await queue.add('c', {}, { jobId: 'mine' });
			await (await queue.getNextJob()).moveToCompleted();
			assert.equal(await (await queue.getJob('mine')).getState(), 'completed');
			await queue.addBulk([{ data: {} }, { data: {}, opts: { delay: 100000 } }]);
			assert.equal(await queue.count(), 2);
			const [delayed] = await queue.getDelayed();
			assert.deepEqual([delayed.opts.delay, delayed.toJSON().delay], [100000, 100000]);
			await queue.empty();
			assert.equal(await queue.count(), 0);
			await queue.obliterate();
			assert.deepEqual(await queue.getJobCounts(), { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, paused: 0 });
		} finally {
			await module.close();
		}
	});
});
