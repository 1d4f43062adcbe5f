// nestjs-options.test.js: the other ways to give options, two connections, a stalled job, an extension that is too old.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { Module } = require('@nestjs/common');
const { Test } = require('@nestjs/testing');
const { Client } = require('pg');
const { ownDatabase, until } = require('./nestjs-lib');
const nest = require('pg-event-queue/nestjs');

const { EventQueueModule } = nest;
let db, other;
before(async () => {
	other = await ownDatabase('nestjs_options_other');
	db = await ownDatabase('nestjs_options');
});
after(async () => {
	await db?.end();
	await other?.end();
});

/** A processor class: { method: decorators }. */
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
async function started(imports, providers = []) {
	const module = await Test.createTestingModule({ imports, providers }).compile();
	module.useLogger(false);
	await module.init();
	return module;
}

test('useClass, useExisting, extraProviders and two connections, each with its queues and processors', async () => {
	class RootOptions {
		createSharedConfiguration() {
			return { handleSignals: false };
		}
	}
	class OtherOptions {
		createSharedConfiguration() {
			return { handleSignals: false, connection: { database: 'nestjs_options_other' } };
		}
	}
	class QueueOptions {
		async createBullOptions() {
			return { defaultJobOptions: { attempts: 7 } };
		}
	}
	class Given {}
	Module({ providers: [OtherOptions], exports: [OtherOptions] })(Given);
	const did = [];
	const module = await started([
		EventQueueModule.forRootAsync({ useClass: RootOptions }),
		EventQueueModule.forRootAsync('other', { imports: [Given], useExisting: OtherOptions }),
		EventQueueModule.registerQueueAsync({ name: 'mine', useClass: QueueOptions }),
		EventQueueModule.registerQueueAsync({ name: 'theirs', configKey: 'other', useExisting: QueueOptions, extraProviders: [QueueOptions] }),
	], [
		makeProcessor('mine', { work: [job => { did.push(`mine ${job.name}`); }, nest.Process('a')] }),
		makeProcessor('theirs', { work: [job => { did.push(`theirs ${job.name}`); }, nest.Process('b')] }),
	]);
	try {
		await module.get(nest.getQueueToken('mine')).add('a', {});
		await module.get(nest.getQueueToken('theirs')).add('b', {});
		await until('both are done', () => did.length === 2);
		assert.deepEqual(did.sort(), ['mine a', 'theirs b']);
		const queues = client => client.query(`SELECT name, max_attempts FROM event_queue.queue WHERE name IN ('mine', 'theirs')`).then(result => result.rows);
		assert.deepEqual([await queues(db), await queues(other)], [[{ name: 'mine', max_attempts: 7 }], [{ name: 'theirs', max_attempts: 7 }]]);
		await module.get(nest.getEventQueueToken('other')).core.store.append('a', 'A', 'a.b');
		assert.equal((await other.query('SELECT FROM event_queue.event_store')).rowCount, 1);
		assert.equal((await db.query('SELECT FROM event_queue.event_store')).rowCount, 0);
	} finally {
		await module.close();
	}
});

test('@OnQueueStalled: a job whose worker went away', async () => {
	await db.query(`SELECT event_queue.create_queue('stalls', lease => '1 second', stalled_interval => '100 milliseconds')`);
	await db.query(`SELECT event_queue.enqueue('stalls', 'a', '{"n": 1}')`);
	await db.query(`SELECT FROM event_queue.claim('stalls', 1, 'went away')`);
	const told = [];
	const module = await started([EventQueueModule.forRoot({ handleSignals: false }), EventQueueModule.registerQueue({ name: 'stalls' })], [
		makeProcessor('stalls', { work: [() => 'done', nest.Process('a')], stalled: [job => { told.push(['stalled', job.data.n]); }, nest.OnQueueStalled()],
			completed: [(job, result) => { told.push(['completed', result]); }, nest.OnQueueCompleted()] }),
	]);
	try {
		await until('it is done', () => told.length === 2);
		assert.deepEqual(told, [['stalled', 1], ['completed', 'done']]);
	} finally {
		await module.close();
	}
});

test('an extension that is too old is told at the start, and nothing stays open', async () => {
	const admin = new Client({ database: 'nestjs_options_other' });
	await admin.connect();
	const [{ extversion }] = (await admin.query(`SELECT extversion FROM pg_extension WHERE extname = 'event_queue'`)).rows;
	await admin.query(`UPDATE pg_extension SET extversion = '0.1.0' WHERE extname = 'event_queue'`);
	await assert.rejects(started([EventQueueModule.forRoot({ handleSignals: false, connection: { database: 'nestjs_options_other' } })]),
		/is of version 0\.1\.0, this package needs 0\.2\.0: install it and ALTER EXTENSION event_queue UPDATE/);
	await until('its sessions are gone', async () => (await admin.query(`SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'event_queue_node%'`)).rowCount === 0);
	await admin.query('UPDATE pg_extension SET extversion = $1 WHERE extname = $2', [extversion, 'event_queue']);
	await admin.end();
});
