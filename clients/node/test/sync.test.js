// Queues and rules held to a declaration.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const eqlib = require('..');
const { freshDatabase, query, open, until, Client } = require('./helpers');

let connection, eq;
before(async () => {
	connection = await freshDatabase('eq_node_sync');
	eq = open(connection);
});
after(() => eq.close());

const nothing = { created: [], altered: [], dropped: [] };
const settingsOf = async (name, columns) => (await query(connection, `SELECT ${columns} FROM event_queue.queue WHERE name = $1`, [name]))[0];

test('makes what is missing, alters what differs, and nothing else', async () => {
	const mail = eq.queue('mail', { defaultJobOptions: { attempts: 5, backoff: { type: 'exponential', delay: 1000 }, removeOnComplete: { age: 3600 } },
		limiter: { max: 100, duration: 1000 }, settings: { lockDuration: 20000, maxStalledCount: 1 } });
	assert.deepEqual(await eq.sync(), { ...nothing, created: ['queue mail'] });
	assert.deepEqual(await eq.sync(), nothing);
	assert.deepEqual(await settingsOf('mail', `max_attempts, backoff, backoff_delay::text, keep_completed::text, rate_limit, rate_interval::text, lease::text, max_stalled`),
		{ max_attempts: 5, backoff: 'bull', backoff_delay: '00:00:01', keep_completed: '01:00:00', rate_limit: 100, rate_interval: '00:00:01', lease: '00:00:20', max_stalled: 1 });
	mail.options.limiter = { max: 50, duration: 1000 };
	assert.deepEqual(await eq.sync(), { ...nothing, altered: ['queue mail'] });
});

test('null resets a setting to none, exact all that are not named', async () => {
	const columns = 'rate_limit, group_rate_limit, max_concurrency, sla::text, keep_completed::text, fair, max_attempts';
	await eq.sync({ queues: { reset: { limiter: { max: 5, duration: 500 }, maxConcurrency: 3, sla: 1000, fair: true,
		defaultJobOptions: { attempts: 9, removeOnComplete: false } } } });
	assert.deepEqual(await settingsOf('reset', columns),
		{ rate_limit: 5, group_rate_limit: null, max_concurrency: 3, sla: '00:00:01', keep_completed: '1000 years', fair: true, max_attempts: 9 });
	const less = { queues: { reset: { limiter: null, sla: null, fair: null, defaultJobOptions: { removeOnComplete: true } } } };
	assert.deepEqual(await eq.sync(less), { ...nothing, altered: ['queue reset'] });
	assert.deepEqual(await settingsOf('reset', columns),
		{ rate_limit: null, group_rate_limit: null, max_concurrency: 3, sla: null, keep_completed: null, fair: false, max_attempts: 9 });
	assert.deepEqual(await eq.sync(less), nothing);
	const exact = { exact: true, queues: { reset: { limiter: { max: 2, duration: 1000, groupKey: 'to' } } } };
	assert.deepEqual(await eq.sync(exact), { ...nothing, altered: ['queue reset'] });
	assert.deepEqual(await settingsOf('reset', columns),
		{ rate_limit: null, group_rate_limit: 2, max_concurrency: null, sla: null, keep_completed: null, fair: false, max_attempts: 3 });
	assert.deepEqual(await eq.sync(exact), nothing);
});

const rules = { 'welcome "one"': { eventPattern: 'lead.created', condition: `event_data ->> 'name' <> '?'`, whenChanged: ['na"me', 'x,y'], queue: 'letters', jobName: 'welcome',
	payload: { to: '$.aggregate_id', text: 'what?' }, delay: 1500, options: { unique_key: '$.aggregate_id' }, onLoop: 'allow' } };

test('rules on tables: made, left alone, altered; their triggers do not block who writes at each start', async () => {
	await query(connection, 'CREATE TABLE deal (deal_id int PRIMARY KEY, stage text, tenant text)');
	const onTable = { eventPattern: undefined, onTable: 'public.deal', onChange: ['update'], whenChanged: ['stage'], condition: `new ->> 'stage' = 'won'`, tenantColumn: 'tenant',
		queue: 'deals', jobName: 'won', payload: { deal: '$.data.new.deal_id' } };
	const declared = { queues: { deals: {} }, rules: { 'deal won': onTable } };
	assert.deepEqual(await eq.sync(declared), { ...nothing, created: ['queue deals', 'rule deal won'] });
	const [rule] = await query(connection, `SELECT event_pattern, on_table, on_change, when_changed, tenant_column FROM event_queue.rules WHERE name = 'deal won'`);
	assert.deepEqual([rule.on_table.replace('public.', ''), rule.on_change, rule.when_changed, rule.tenant_column], ['deal', ['update'], ['stage'], 'tenant']);
	// Someone is writing to the table.
	const writer = new Client(connection);
	await writer.connect();
	await writer.query(`BEGIN; INSERT INTO deal VALUES (1, 'new', 'acme')`);
	assert.deepEqual(await eq.sync(declared), nothing);
	await writer.query(`COMMIT; UPDATE deal SET stage = 'won'`);
	await writer.end();
	await until(async () => (await query(connection, `SELECT FROM event_queue.jobs WHERE queue = 'deals' AND payload = '{"deal": 1}' AND tenant_id = 'acme'`)).length === 1, 'its job');
	assert.deepEqual(await eq.sync({ rules: { 'deal won': { ...onTable, onChange: ['insert', 'update'] } } }), { ...nothing, altered: ['rule deal won'] });
	await query(connection, eqlib.syncSql({ rules: { 'deal won': onTable } }));
	assert.deepEqual(await eq.sync(declared), nothing);
	await assert.rejects(eq.sync({ rules: { x: { queue: 'deals' } } }), /has no eventPattern, nor onTable/);
	await assert.rejects(eq.sync({ rules: { x: { eventPattern: 'a.b', onTable: 'deal', queue: 'deals' } } }), /has both eventPattern and onTable/);
	await assert.rejects(eq.sync({ rules: { x: { onTable: 'no_such_table', queue: 'deals', jobName: 'x' } } }), /no_such_table/);
	assert.deepEqual(await eq.sync({ drop: { rules: ['deal won'] } }), { ...nothing, dropped: ['rule deal won'] });
});

test('rules: made, left alone, altered as a new version; dropped only when told', async () => {
	assert.deepEqual(await eq.sync({ queues: { letters: {} }, rules }), { ...nothing, created: ['queue letters', 'rule welcome "one"'] });
	assert.deepEqual(await eq.sync({ queues: { letters: {} }, rules }), nothing);
	const [rule] = await query(connection, 'SELECT event_pattern, condition, queue, job_name, payload, delay_seconds, options, on_loop, when_changed, version FROM event_queue.rules');
	assert.deepEqual(rule, { event_pattern: 'lead.created', condition: `event_data ->> 'name' <> '?'`, queue: 'letters', job_name: 'welcome',
		payload: { to: '$.aggregate_id', text: 'what?' }, delay_seconds: 1.5, options: { unique_key: '$.aggregate_id' }, on_loop: 'allow',
		when_changed: ['na"me', 'x,y'], version: 1 });
	const other = { 'welcome "one"': { ...rules['welcome "one"'], delay: 1 } };
	assert.deepEqual(await eq.sync({ rules: other }), { ...nothing, altered: ['rule welcome "one"'] });
	assert.deepEqual(await eq.sync({ queues: {}, rules: {} }), nothing);
	const job = await eq.queue('letters').add('x', {});
	await assert.rejects(eq.sync({ drop: { queues: ['letters'], rules: ['welcome "one"'] } }), { sqlstate: 'EQ013' });
	assert.equal((await query(connection, 'SELECT FROM event_queue.rules')).length, 1, 'all or none');
	await job.remove();
	const drop = { drop: { queues: ['letters', 'never there'], rules: ['welcome "one"'] } };
	assert.deepEqual(await eq.sync(drop), { ...nothing, dropped: ['rule welcome "one"', 'queue letters'] });
	assert.deepEqual(await eq.sync(drop), nothing);
});

test('a wrong declaration is refused before anything is done', async () => {
	const refused = (declaration, text) => assert.rejects(eq.sync({ queues: { 'not made': {} }, ...declaration }),
		error => error instanceof eqlib.UnsupportedOptionError && text.test(error.message));
	await refused({ queus: {} }, /has queus.*known are queues/);
	await refused({ rules: { r: { eventPatern: 'a.b' } } }, /eventPatern/);
	await refused({ rules: { r: { queue: 'mail' } } }, /no eventPattern/);
	await refused({ drop: { queues: ['not made'] } }, /both/);
	await assert.rejects(eq.sync({ queues: { a: { maxConcurency: 1 } } }), /maxConcurency/);
	await assert.rejects(eq.sync({ queues: { a: 7 } }), /not an object/);
	await assert.rejects(eq.sync({ queues: { 'not made': {} }, rules: { r: { eventPattern: 'a.b', queue: 'nowhere', jobName: 'x' } } }), eqlib.QueueNotFoundError);
	assert.equal(await settingsOf('not made', 'name'), undefined);
});

test('several instances at once', async () => {
	const others = [1, 2, 3, 4].map(() => open(connection));
	const declaration = { queues: { news: {}, letters: { sla: 1000 } }, rules };
	const done = await Promise.all(others.map(other => other.sync(declaration)));
	assert.deepEqual(done.map(report => report.created.length).sort(), [0, 0, 0, 3]);
	assert.ok(done.every(report => report.altered.length === 0));
	await Promise.all(others.map(other => other.close()));
});

test('in a migration of Knex: it commits and rolls back with it', async () => {
	const knex = require('knex')({ client: 'pg', connection });
	let fails = true;
	const declaration = { queues: { migrated: { maxConcurrency: 4 } }, rules: { migrated: { ...rules['welcome "one"'], queue: 'migrated' } } };
	const config = { migrationSource: {
		getMigrations: async () => ['first'],
		getMigrationName: name => name,
		getMigration: async () => ({
			async up(trx) {
				assert.deepEqual((await eq.sync(declaration, { tx: trx })).created, ['queue migrated', 'rule migrated']);
				await trx.raw('CREATE TABLE beside (id int)');
				if (fails)
					throw new Error('rolled back on purpose');
			},
			async down() {},
		}),
	}, log: { warn() {}, error() {}, info() {}, debug() {} } };
	try {
		await assert.rejects(knex.migrate.latest(config), /on purpose/);
		assert.equal(await settingsOf('migrated', 'name'), undefined);
		fails = false;
		await knex.migrate.latest(config);
		assert.deepEqual(await settingsOf('migrated', 'max_concurrency'), { max_concurrency: 4 });
	} finally {
		await knex.destroy();
	}
});

const prismaFolder = process.env.EQ_PRISMA;
test('in a transaction of Prisma: it commits and rolls back with it', { skip: prismaFolder === undefined ? 'Prisma is not installed here' : false }, async () => {
	const from = require('node:module').createRequire(`${prismaFolder}/package.json`);
	const { PrismaClient } = from('@prisma/client');
	const { PrismaPg } = from('@prisma/adapter-pg');
	const prisma = new PrismaClient({ adapter: new PrismaPg(connection) });
	const declaration = { queues: { 'of prisma': { maxConcurrency: 4 } }, rules: { 'of prisma': { ...rules['welcome "one"'], queue: 'of prisma' } } };
	const work = fails => prisma.$transaction(async tx => {
		assert.deepEqual((await eq.sync(declaration, { tx })).created, ['queue of prisma', 'rule of prisma']);
		if (fails)
			throw new Error('rolled back on purpose');
	});
	try {
		await assert.rejects(work(true), /on purpose/);
		assert.equal(await settingsOf('of prisma', 'name'), undefined);
		await work(false);
		assert.deepEqual(await settingsOf('of prisma', 'max_concurrency'), { max_concurrency: 4 });
	} finally {
		await prisma.$disconnect();
	}
});

test('a migration that is a file of SQL: it does what sync does, also a second time', async () => {
	const declaration = { queues: {
		"of 'SQL\\": { defaultJobOptions: { attempts: 9, backoff: { type: 'list', delays: [1000, 2000] }, removeOnComplete: { age: 60, count: 5 } }, limiter: null, sla: 1000, fair: true },
		plain: {} }, rules: { 'by SQL': { ...rules['welcome "one"'], queue: 'plain', payload: { text: "it's \\ $1" }, order: 3, stop: true },
		'two actions': { eventPattern: 'lead.*', actions: [{ enqueue: { queue: 'plain', name: 'a' } }, { notify: { channel: 'c', payload: 'p' } }] } } };
	const sql = eqlib.syncSql(declaration);
	// Each time one query of several statements, as a migration engine sends it
	for (const before of ['', 'SET LOCAL standard_conforming_strings = off; ', '']) {
		await query(connection, before + sql);
		assert.deepEqual(await eq.sync(declaration), nothing, 'nothing is left to do');
	}
	await query(connection, eqlib.syncSql({ exact: true, queues: { "of 'SQL\\": { sla: 2000 } }, drop: { rules: ['by SQL', 'two actions', 'none'], queues: ['plain', 'none'] } }));
	assert.deepEqual(await settingsOf("of 'SQL\\", 'max_attempts, fair, sla::text'), { max_attempts: 3, fair: false, sla: '00:00:02' });
	assert.equal(await settingsOf('plain', 'name'), undefined);
	assert.throws(() => eqlib.syncSql({ queues: { x: { nonsense: 1 } } }), /nonsense/);
});

test('a file, and the program', async () => {
	const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'eq-sync-')), 'queues.json');
	fs.writeFileSync(file, JSON.stringify({ queues: { 'of a file': { sla: 5000 } } }));
	const cli = path.join(__dirname, '..', 'dist', 'cli.js');
	const env = { ...process.env, PGDATABASE: connection.database, PGUSER: connection.user };
	assert.equal(execFileSync(process.execPath, [cli, 'sync', file], { env, encoding: 'utf8' }), 'created queue of a file\n');
	assert.deepEqual(await eq.sync(file), nothing);
	assert.match(execFileSync(process.execPath, [cli, 'sync', '--print', file], { env: { ...env, PGHOST: '/nowhere' }, encoding: 'utf8' }), /alter_queue\('of a file', sla => '5000 milliseconds'\)/);
	fs.writeFileSync(file, '{ no');
	const bad = spawnSync(process.execPath, [cli, 'sync', file], { env, encoding: 'utf8' });
	assert.equal(bad.status, 1);
	assert.match(bad.stderr, /is no JSON/);
	assert.equal(spawnSync(process.execPath, [cli], { env, encoding: 'utf8' }).status, 1);
	fs.rmSync(path.dirname(file), { recursive: true });
});
