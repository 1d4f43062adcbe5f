// { tx }: a job and an event that are in the application's transaction commit and roll
// back with it, in each library.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const eqlib = require('..');
const { freshDatabase, query, open, Client, Pool, where } = require('./helpers');

let connection, eq, queue;
before(async () => {
	connection = await freshDatabase('eq_node_adapters');
	await query(connection, 'CREATE TABLE note (id text PRIMARY KEY)');
	await query(connection, `SELECT event_queue.create_queue('mail')`);
	eq = open(connection);
	queue = eq.queue('mail');
});
after(() => eq.close());

const rollback = new Error('rolled back on purpose');

/** transact(work): runs work(tx, insert) in a transaction of the library. */
async function check(library, transact) {
	const work = async (tx, insert, tag) => {
		await insert(tag);
		const job = await queue.add('hello', { tag, text: 'what? $1 ?? é "' }, { jobId: tag, delay: 1000, dependsOn: [], groupKey: 'g' }, { tx });
		assert.match(job.id, /^\d+$/);
		const [bulk] = await queue.addBulk([{ name: 'bulk', data: { tag } }], { tx });
		assert.match(bulk.id, /^\d+$/);
		const event = await eq.append('note', tag, 'note.written', { tag }, { tx, expectedVersion: 'no_stream' });
		assert.equal(event.version, 1);
		assert.equal((await eq.appendMany('note', tag, [{ eventType: 'note.read' }], { tx, expectedVersion: 1 }))[0].version, 2);
		assert.deepEqual((await eq.readAggregate('note', tag, { tx })).map(e => [e.eventType, e.version]), [['note.written', 1], ['note.read', 2]]);
		assert.deepEqual(await eq.state('note', tag, { tx }), { tag });
	};
	const found = async tag => (await query(connection, `SELECT (SELECT count(*) FROM note WHERE id = $1)::int AS notes,
		(SELECT count(*) FROM event_queue.jobs WHERE payload->>'tag' = $1)::int AS jobs,
		(SELECT count(*) FROM event_queue.event_store WHERE aggregate_id = $1)::int AS events`, [tag]))[0];
	await transact((tx, insert) => work(tx, insert, `${library} commits`));
	assert.deepEqual(await found(`${library} commits`), { notes: 1, jobs: 2, events: 2 });
	await assert.rejects(transact(async (tx, insert) => {
		await work(tx, insert, `${library} rolls back`);
		throw rollback;
	}), rollback);
	assert.deepEqual(await found(`${library} rolls back`), { notes: 0, jobs: 0, events: 0 });
	// Errors come as our classes through the library's own.
	await assert.rejects(transact(tx => eq.append('note', `${library} commits`, 'note.lost', {}, { tx, expectedVersion: 0 })), error => {
		assert.ok(error instanceof eqlib.WrongVersionError, `${library}: ${error}`);
		assert.equal(error.sqlstate, 'EQ001');
		assert.equal(error.currentVersion, 2, library);
		return true;
	});
	await assert.rejects(transact(tx => eq.queue('none').add('x', {}, { tx })), eqlib.QueueNotFoundError);
}

test('pg', async () => {
	const client = new Client(connection);
	await client.connect();
	await check('pg', async work => {
		await client.query('BEGIN');
		try {
			await work(client, tag => client.query('INSERT INTO note VALUES ($1)', [tag]));
			await client.query('COMMIT');
		} catch (error) {
			await client.query('ROLLBACK');
			throw error;
		}
	});
	await client.end();
});

test('EventQueue.transaction, joined without tx', async () => {
	await check('own', work => eq.transaction(tx => work(undefined, tag => tx.query('INSERT INTO note VALUES ($1)', [tag]))));
	const bound = queue.withTransaction;
	assert.equal(typeof bound, 'function');
});

test('the option currentTransaction', async () => {
	let current;
	const client = new Client(connection);
	await client.connect();
	const joined = open(connection, { currentTransaction: () => current });
	await client.query('BEGIN');
	current = client;
	const job = await joined.queue('mail').add('current', {});
	current = undefined;
	assert.equal(await joined.queue('mail').getJob(job.id), null);
	await client.query('COMMIT');
	assert.equal((await joined.queue('mail').getJob(job.id)).name, 'current');
	await joined.close();
	await client.end();
});

test('Knex', async () => {
	const knex = require('knex')({ client: 'pg', connection, pool: { min: 0, max: 2 } });
	await check('knex', work => knex.transaction(trx => work(trx, tag => trx('note').insert({ id: tag }))));
	await assert.rejects(queue.add('x', {}, { tx: knex }), eqlib.InvalidTransactionError);
	await knex.destroy();
});

test('TypeORM: EntityManager and QueryRunner', async () => {
	require('reflect-metadata');
	const { DataSource } = require('typeorm');
	const source = new DataSource({ type: 'postgres', host: where.host, port: where.port, username: 'postgres', database: connection.database });
	await source.initialize();
	await check('typeorm manager', work => source.transaction(manager => work(manager, tag => manager.query('INSERT INTO note VALUES ($1)', [tag]))));
	await check('typeorm runner', async work => {
		const runner = source.createQueryRunner();
		await runner.startTransaction();
		try {
			await work(runner, tag => runner.query('INSERT INTO note VALUES ($1)', [tag]));
			await runner.commitTransaction();
		} catch (error) {
			await runner.rollbackTransaction();
			throw error;
		} finally {
			await runner.release();
		}
	});
	await assert.rejects(queue.add('x', {}, { tx: source }), eqlib.InvalidTransactionError);
	await source.destroy();
});

test('Kysely', async () => {
	const { Kysely, PostgresDialect } = require('kysely');
	const db = new Kysely({ dialect: new PostgresDialect({ pool: new Pool(connection) }) });
	await check('kysely', work => db.transaction().execute(trx => work(trx, tag => trx.insertInto('note').values({ id: tag }).execute())));
	await assert.rejects(queue.add('x', {}, { tx: db }), eqlib.InvalidTransactionError);
	await db.destroy();
});

test('Drizzle', async () => {
	const { drizzle } = require('drizzle-orm/node-postgres');
	const { sql } = require('drizzle-orm');
	const pool = new Pool(connection);
	const db = drizzle(pool);
	await check('drizzle', work => db.transaction(tx => work(tx, tag => tx.execute(sql`INSERT INTO note VALUES (${tag})`))));
	await pool.end();
});

// Prisma is large, so test/run.sh installs it beside the others (test/prisma).
const prismaFolder = process.env.EQ_PRISMA;
test('Prisma', { skip: prismaFolder === undefined ? 'Prisma is not installed here' : false }, async () => {
	const { createRequire } = require('node:module');
	const from = createRequire(`${prismaFolder}/package.json`);
	const { PrismaClient } = from('@prisma/client');
	const { PrismaPg } = from('@prisma/adapter-pg');
	const prisma = new PrismaClient({ adapter: new PrismaPg(connection) });
	await check('prisma', work => prisma.$transaction(tx => work(tx, tag => tx.note.create({ data: { id: tag } }))));

	// By $queryRaw, whose adapter refuses some types, only after the statement has committed.
	await prisma.$queryRaw`SELECT event_queue.create_queue('raw', backoff_delay => '1 hour')`;
	const [{ enqueued }] = await prisma.$queryRaw`SELECT event_queue.enqueue('raw', 'x', '{"n": 1}') AS enqueued`;
	await prisma.$queryRaw`SELECT event_queue.enqueue('raw', 'y'), event_queue.enqueue('raw', 'z')`;
	const claimed = await prisma.$queryRaw`SELECT * FROM event_queue.claim('raw', 3)`;
	assert.deepEqual(claimed.map(job => [job.name, job.attempt]), [['x', 1], ['y', 1], ['z', 1]]);
	assert.equal(claimed[0].job_id, enqueued);
	assert.deepEqual(claimed[0].payload, { n: 1 });
	const leases = claimed.map(job => [job.job_id, job.lease_token]);
	assert.deepEqual(await prisma.$queryRaw`SELECT event_queue.complete(${leases[0][0]}, ${leases[0][1]}::uuid, '{"done": true}') AS done`, [{ done: true }]);
	const [{ next }] = await prisma.$queryRaw`SELECT event_queue.fail(${leases[1][0]}, ${leases[1][1]}::uuid, 'busy', '53300') AS next`;
	assert.ok(next > new Date());
	assert.deepEqual(await prisma.$queryRaw`SELECT event_queue.release(${leases[2][0]}, ${leases[2][1]}::uuid) AS done`, [{ done: true }]);
	assert.deepEqual(await prisma.$queryRaw`SELECT name, state, last_error FROM event_queue.jobs WHERE queue = 'raw' ORDER BY name`,
		[{ name: 'y', state: 'retrying', last_error: 'busy' }, { name: 'z', state: 'ready', last_error: null }]);

	// All public functions and views: each type of their results, from the catalogs, and each view as it is.
	const types = await prisma.$queryRaw`
		WITH of_function AS (SELECT p.prorettype AS type FROM pg_proc p
			WHERE p.pronamespace = 'event_queue'::regnamespace AND p.prorettype NOT IN ('record'::regtype, 'trigger'::regtype)
			UNION SELECT a.type FROM pg_proc p, unnest(p.proallargtypes, p.proargmodes) AS a (type, mode)
			WHERE p.pronamespace = 'event_queue'::regnamespace AND a.mode IN ('o', 'b', 't'))
		SELECT format_type(f.type, NULL) AS type FROM of_function f
		UNION SELECT format_type(a.atttypid, NULL) FROM of_function f JOIN pg_type t ON t.oid = f.type JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
		ORDER BY 1`;
	assert.ok(types.length > 10);
	for (const { type } of types) assert.deepEqual(await prisma.$queryRawUnsafe(`SELECT NULL::${type} AS it`), [{ it: null }], type);
	const views = await prisma.$queryRaw`SELECT c.relname::text AS name FROM pg_class c WHERE c.relnamespace = 'event_queue'::regnamespace AND c.relkind = 'v'`;
	assert.ok(views.length > 10);
	for (const { name } of views) await prisma.$queryRawUnsafe(`SELECT * FROM event_queue.${name} LIMIT 3`);

	// A subscription whose checkpoint moves in Prisma's transaction
	const got = [];
	const subscription = eq.subscription('prisma', async (event, { tx }) => {
		got.push(event.aggregateId);
		await tx.note.upsert({ where: { id: `seen ${event.version}` }, create: { id: `seen ${event.version}` }, update: {} });
	}, { filter: { event_type: 'note.written', data: { tag: 'prisma commits' } }, transaction: work => prisma.$transaction(work) });
	await new Promise(resolve => subscription.once('drained', resolve));
	assert.deepEqual(got, ['prisma commits']);
	assert.equal(await prisma.note.count({ where: { id: 'seen 1' } }), 1);
	await subscription.close();
	await prisma.$disconnect();
});
