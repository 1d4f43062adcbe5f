// nestjs-steps.test.js: durable steps in processors of the module, and in tests of an application.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { ownDatabase, until } = require('./nestjs-lib');
const nest = require('pg-event-queue/nestjs');

let db;
before(async () => {
	db = await ownDatabase('nestjs_steps');
	await db.query('CREATE TABLE stock (item text PRIMARY KEY, free int NOT NULL)');
	await db.query(`INSERT INTO stock VALUES ('book', 10)`);
});
after(() => db?.end());

const decorate = (type, method, ...decorators) => {
	const descriptor = Object.getOwnPropertyDescriptor(type.prototype, method);
	for (const decorator of decorators)
		decorator(type.prototype, method, descriptor);
	Object.defineProperty(type.prototype, method, descriptor);
};

/** An order that reserves, waits to be paid, sleeps and ships. */
function makeOrders() {
	const seen = { did: [], suspended: 0, completed: [], service: undefined };
	class Orders {
		async order(job) {
			await seen.service.transaction(async () => {
				await job.step('reserve', tx => tx.query('UPDATE stock SET free = free - 1 WHERE item = $1', [job.data.item]).then(() => 'reserved'),
					{ undo: { name: 'unreserve', data: job.data } });
			});
			await job.step('ask', () => { seen.did.push('ask'); });
			const paid = await job.awaitSignal('paid', { key: job.data.order, timeout: 3600_000 });
			await job.sleep('grace', job.data.grace ?? 20);
			const event = job.data.event && await job.awaitEvent('packed', 'order.packed', { aggregateType: 'order', aggregateId: job.data.order });
			return job.step('ship', () => { seen.did.push('ship'); return { paid: paid.payload, packed: event?.event.data }; });
		}

		async unreserve(job) {
			await db.query('UPDATE stock SET free = free + 1 WHERE item = $1', [job.data.item]);
		}

		suspended() {
			seen.suspended++;
		}

		completed(job, result) {
			seen.completed.push([job.name, result]);
		}
	}
	decorate(Orders, 'order', nest.Process('order'));
	decorate(Orders, 'unreserve', nest.Process('unreserve'));
	decorate(Orders, 'suspended', nest.OnQueueEvent('suspended'));
	decorate(Orders, 'completed', nest.OnQueueCompleted());
	nest.Processor('orders')(Orders);
	return { Orders, seen };
}
const imports = [
	nest.EventQueueModule.forRoot({ handleSignals: false }),
	nest.EventQueueModule.registerQueue({ name: 'orders', defaultJobOptions: { attempts: 2, backoff: 10 } }),
];
const free = async () => (await db.query(`SELECT free FROM stock WHERE item = 'book'`)).rows[0].free;

test('in an application: steps, a signal, a sleep, an event; undone when it is cancelled', async () => {
	const { Test } = require('@nestjs/testing');
	const { Orders, seen } = makeOrders();
	const module = await Test.createTestingModule({ imports, providers: [Orders] }).compile();
	module.useLogger(false);
	const queue = module.get(nest.getQueueToken('orders'));
	const service = seen.service = module.get(nest.getEventQueueToken());
	try {
		await module.init();
		const job = await queue.add('order', { order: 'O1', item: 'book', event: true });
		await until('it waits to be paid', async () => (await service.jobSteps(job.jobId)).some(step => step.name === 'paid'));
		assert.deepEqual((await db.query('SELECT lease_token FROM event_queue.job WHERE job_id = $1', [job.jobId])).rows, [{ lease_token: null }]);
		assert.equal(await job.getState(), 'delayed');
		assert.equal(await service.sendSignal('paid', 'O1', 30), true);
		assert.equal(await service.sendSignal('paid', 'O1', 31), false);
		await until('it waits to be packed', async () => (await job.getSteps()).some(step => step.name === 'packed'));
		await service.core.store.append('order', 'O1', 'order.packed', { box: 3 });
		assert.deepEqual(await job.finished(), { paid: 30, packed: { box: 3 } });
		assert.deepEqual([seen.did, await free()], [['ask', 'ship'], 9]);
		await until('it is told', () => seen.completed.length === 1);
		assert.ok(seen.suspended >= 2);
		await assert.rejects(job.step('x', () => {}), /for who has leased the job/);

		const other = await queue.add('order', { order: 'O2', item: 'book' });
		await until('it waits to be paid', async () => (await other.getSteps()).some(step => step.name === 'paid'));
		assert.equal(await free(), 8);
		await other.remove();
		await until('it is undone', async () => await free() === 9);
	} finally {
		await module.close();
	}
});

for (const mode of ['inline', 'drain'])
	test(`in a test of an application, ${mode}`, async () => {
		const { Test } = require('@nestjs/testing');
		const { Orders, seen } = makeOrders();
		const queues = await nest.EventQueueTesting.create({ mode });
		const module = await queues.override(Test.createTestingModule({ imports, providers: [Orders] })).compile();
		module.useLogger(false);
		await module.init();
		const queue = module.get(nest.getQueueToken('orders'));
		const service = seen.service = queues.service;
		try {
			const outcomes = () => queues.ran.filter(run => run.name === 'order').map(run => run.outcome);
			const { jobId } = await queue.add('order', { order: `T ${mode}`, item: 'book', grace: 86_400_000 });
			await queues.drain();
			assert.deepEqual(outcomes(), ['suspended']);
			assert.deepEqual((await service.jobSteps(jobId)).map(step => [step.name, step.state]), [['reserve', 'done'], ['ask', 'done'], ['paid', 'waiting']]);
			await queues.drain({ skipWaits: true });
			assert.ok(outcomes().every(outcome => outcome === 'suspended'), 'a signal is not skipped');
			assert.equal(await service.sendSignal('paid', `T ${mode}`, 7), true);
			await queues.drain();
			assert.equal(outcomes().at(-1), 'suspended', 'it sleeps for a day');
			await queues.drain({ skipWaits: true });
			assert.deepEqual(queues.ran.at(-1).result, { paid: 7 });
			assert.deepEqual(seen.did, ['ask', 'ship']);
		} finally {
			await module.close();
			await queues.close();
		}
	});
