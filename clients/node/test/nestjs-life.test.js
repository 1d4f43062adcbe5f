// nestjs-life.test.js: what an application has of providers, connections and probes, and what it is told of them.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, describe, test } = require('node:test');
const { Inject, Injectable, Scope } = require('@nestjs/common');
const { Test } = require('@nestjs/testing');
const { ownDatabase, until } = require('./nestjs-lib');
const nest = require('pg-event-queue/nestjs');
const { EventQueueModule, getQueueToken, getEventQueueToken } = nest;

let db, other;

before(async () => {
	other = await ownDatabase('nestjs_life_two');
	db = await ownDatabase('nestjs_life');
});
after(async () => {
	await db?.end();
	await other?.end();
});

const decorate = (decorator, type, method) => method === undefined
	? decorator(type)
	: decorator(type.prototype, method, Object.getOwnPropertyDescriptor(type.prototype, method));
const start = async (imports, providers = []) => {
	const module = await Test.createTestingModule({ imports, providers }).compile();
	try {
		await module.init();
	} catch (error) {
		await module.close();
		throw error;
	}
	return module;
};

test('transient providers: processors, listeners and subscriptions get an instance with what it needs', async () => {
	class Counter {
		constructor() {
			this.heard = [];
		}
	}
	Injectable()(Counter);
	class Doer {
		constructor(counter) {
			this.counter = counter;
		}
		async work() {
			return this.counter.heard.length;
		}
		done(job) {
			this.counter.heard.push(job.name);
		}
		event(event) {
			this.counter.heard.push(event.eventType);
		}
	}
	Inject(Counter)(Doer, undefined, 0);
	decorate(nest.Processor({ name: 'transient', scope: Scope.TRANSIENT }), Doer);
	decorate(nest.Process('work'), Doer, 'work');
	decorate(nest.OnQueueCompleted(), Doer, 'done');
	decorate(nest.OnEvent('transient.*', { subscription: 'transient', from: 'start' }), Doer, 'event');
	const module = await start([EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'transient' })], [Counter, Doer]);
	try {
		assert.equal(await (await module.get(getQueueToken('transient')).add('work', {})).finished(), 0);
		await module.get(getEventQueueToken()).core.store.append('thing', '1', 'transient.made', {});
		const { heard } = module.get(Counter);
		await until('both are heard', () => heard.length === 2);
		assert.deepEqual(heard.sort(), ['transient.made', 'work']);
	} finally {
		await module.close();
	}
});

test('a factory that returns nothing', async () => {
	for (const nothing of [undefined, null])
		await assert.rejects(start([EventQueueModule.forRootAsync({ useFactory: () => nothing })]), /forRootAsync: the factory gave (undefined|null): return the options/);
	await assert.rejects(start([EventQueueModule.forRootAsync({ useFactory: async () => { throw new Error('the vault is closed'); } })]), /the vault is closed/);
});

describe('one name of a queue for two connections', () => {
	const roots = () => [EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.forRoot('two', { handleSignals: false, connection: { database: 'nestjs_life_two' } })];
	class Doer {
		async work() {
			return 'done';
		}
	}
	decorate(nest.Processor('same'), Doer);
	decorate(nest.Process('work'), Doer, 'work');

	test('a processor of it is refused, which would have either one\'s jobs', () => assert.rejects(
		start([...roots(), EventQueueModule.registerQueue({ name: 'same' }), EventQueueModule.registerQueue({ name: 'same', configKey: 'two' })], [Doer]),
		/Doer is the processor of queue "same", which is registered for 2 connections \(default, two\): .*registerQueueAsync/));

	test('what the error says to do works', async () => {
		const module = await start([...roots(), EventQueueModule.registerQueue({ name: 'same' }),
			EventQueueModule.registerQueueAsync({ name: 'same of two', configKey: 'two', useFactory: () => ({ name: 'same' }) })], [Doer]);
		try {
			const [one, two] = ['same', 'same of two'].map(name => module.get(getQueueToken(name)));
			assert.deepEqual([one.name, two.name, one.port.configKey, two.port.configKey], ['same', 'same', 'default', 'two']);
			assert.equal(await (await one.add('work', {})).finished(), 'done');
			await two.add('work', {});
			assert.equal((await other.query(`SELECT state FROM event_queue.jobs WHERE queue = 'same'`)).rows[0].state, 'ready');
		} finally {
			await module.close();
		}
	});
});

test('probes and metrics: told soon, and by their status, that there is no server', async () => {
	// A pool none of whose connections becomes free: what waits for one waits as for a server that is away.
	const module = await Test.createTestingModule({
		imports: [EventQueueModule.forRoot({ handleSignals: false, maxConnections: 1, connectWait: 3_600_000 }), nest.EventQueueHealthModule.register(), nest.EventQueueMetricsModule.register()],
	}).compile();
	const app = module.createNestApplication({ logger: false });
	await app.listen(0, '127.0.0.1');
	const ask = async path => {
		const response = await fetch(`${await app.getUrl()}/${path}`);
		return [response.status, response.headers.get('content-type'), await response.text()];
	};
	try {
		assert.deepEqual((await ask('metrics')).slice(0, 2), [200, 'text/plain; version=0.0.4; charset=utf-8']);
		const { pool } = module.get(getEventQueueToken()).core.store.database;
		const client = await pool.connect();
		for (const path of ['metrics', 'health/queues']) {
			const [status, type, text] = await ask(path);
			assert.deepEqual([status, type], [503, 'application/json; charset=utf-8']);
			assert.match(JSON.parse(text).message, /none of the pool's 1 connections became free/);
		}
		assert.equal((await module.get(nest.EventQueueHealthIndicator).isHealthy('queues')).queues.status, 'down');
		client.release();
		assert.equal((await ask('metrics'))[0], 200);
	} finally {
		await app.close();
	}
});

test('probes and metrics of a role that is bound to a tenant: no figures, which is not the same as nothing to do', async () => {
	await db.query(`DROP ROLE IF EXISTS nest_bound; CREATE ROLE nest_bound LOGIN; SELECT event_queue.grant_observer('nest_bound', 'acme')`);
	const module = await Test.createTestingModule({
		imports: [
			EventQueueModule.forRoot({ handleSignals: false, connection: { user: 'nest_bound' } }), EventQueueModule.forRoot('ops', { handleSignals: false }),
			nest.EventQueueHealthModule.register(), nest.EventQueueMetricsModule.register(), nest.EventQueueMetricsModule.register({ path: 'ops', configKey: 'ops' }),
		],
	}).compile();
	const app = module.createNestApplication({ logger: false });
	await app.listen(0, '127.0.0.1');
	try {
		for (const path of ['metrics', 'health/queues']) {
			const response = await fetch(`${await app.getUrl()}/${path}`);
			assert.equal(response.status, 503);
			assert.match((await response.json()).message, /bound to a tenant.*configKey/);
		}
		const { queues } = await module.get(nest.EventQueueHealthIndicator).isHealthy('queues');
		assert.deepEqual([queues.status, /bound to a tenant/.test(queues.message)], ['down', true]);
		assert.equal((await fetch(`${await app.getUrl()}/ops`)).status, 200);
	} finally {
		await app.close();
	}
});

describe('@EventSourced', () => {
	let module, lead, events, jobs;
	before(async () => {
		class Leads {
			constructor(queue) {
				this.queue = queue;
			}
			async outer(id, how) {
				nest.emit('outer.done');
				if (how === 'late')
					this.late = new Promise((resolve, reject) => setTimeout(() => {
						try {
							resolve(nest.emit('too.late'));
						} catch (error) {
							reject(error);
						}
					}, 50));
				if (how === 'caught')
					await this.inner(`${id} inner`).catch(() => {});
			}
			async inner(id) {
				await this.queue.add('of inner', { id });
				nest.emit('inner.done');
				throw new Error('inner fails');
			}
		}
		Injectable()(Leads);
		Inject(getQueueToken('sourced'))(Leads, undefined, 0);
		for (const method of ['outer', 'inner']) {
			const descriptor = Object.getOwnPropertyDescriptor(Leads.prototype, method);
			nest.EventSourced('Sourced')(Leads.prototype, method, descriptor);
			Object.defineProperty(Leads.prototype, method, descriptor);
		}
		let theirs;
		module = await start([EventQueueModule.forRoot({ handleSignals: false, currentTransaction: () => theirs }), EventQueueModule.registerQueue({ name: 'sourced' })], [Leads]);
		lead = module.get(Leads);
		lead.within = async (tx, work) => {
			theirs = tx;
			try {
				return await work();
			} finally {
				theirs = undefined;
			}
		};
		events = async id => (await db.query(`SELECT event_type FROM event_queue.event_store WHERE aggregate_type = 'Sourced' AND aggregate_id LIKE $1 || '%'`, [id])).rows.map(row => row.event_type);
		jobs = async () => (await db.query(`SELECT count(*)::int AS n FROM event_queue.jobs WHERE queue = 'sourced'`)).rows[0].n;
	});
	after(() => module?.close());

	test('one in another fails and its error is caught: what it wrote must not stay without its events', async () => {
		await assert.rejects(lead.outer('c', 'caught'), error => error.name === 'InvalidTransactionError' && /nothing of the transaction is kept: .*inner fails/.test(error.message));
		assert.deepEqual([await events('c'), await jobs()], [[], 0]);
		const service = module.get(getEventQueueToken());
		await assert.rejects(service.transaction(async () => lead.inner('d').catch(() => {})), /nothing of the transaction is kept/);
		assert.deepEqual([await events('d'), await jobs()], [[], 0]);
	});

	test('emit after the end of its method is an error, not a lost event', async () => {
		await lead.outer('l', 'late');
		await assert.rejects(lead.late, /emit\('too\.late'\) outside of a method with @EventSourced, or after its end/);
		assert.deepEqual(await events('l'), ['outer.done']);
	});

	test('it takes part in the transaction that the option currentTransaction tells', async () => {
		await db.query('BEGIN');
		await lead.within(db, () => lead.outer('t'));
		assert.deepEqual(await events('t'), ['outer.done']);
		await db.query('ROLLBACK');
		assert.deepEqual(await events('t'), []);
	});
});
