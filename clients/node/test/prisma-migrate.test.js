// Prisma's own "migrate deploy" with migrations that "pg-event-queue sync --print" has written.
const { test, before } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { freshDatabase, query, open } = require('./helpers');

// Large, so test/run.sh installs it beside (test/prisma-migrate).
const folder = process.env.EQ_PRISMA_MIGRATE;
const skip = folder === undefined ? 'Prisma is not installed here' : false;
let connection, dir;
before(async () => {
	connection = await freshDatabase('eq_node_migrate', { extension: false });
	dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eq-migrate-'));
});

const cli = path.join(__dirname, '..', 'dist', 'cli.js');
const declared = (name, declaration) => {
	const file = path.join(dir, `${name}.json`);
	fs.writeFileSync(file, JSON.stringify(declaration));
	return execFileSync(process.execPath, [cli, 'sync', '--print', file], { encoding: 'utf8' });
};
const migration = (name, sql) => {
	fs.mkdirSync(path.join(dir, 'migrations', name), { recursive: true });
	fs.writeFileSync(path.join(dir, 'migrations', name, 'migration.sql'), sql);
};
/** prisma migrate; its exit status and what it said. */
const migrate = command => {
	// It wants to see the engines that are binaries, but starts neither of them.
	const { status, stdout, stderr } = spawnSync('npx', ['prisma', 'migrate', command], { cwd: folder, encoding: 'utf8', env: { ...process.env,
		EQ_PRISMA_URL: `postgresql://postgres@localhost:${connection.port}/${connection.database}?host=${encodeURIComponent(connection.host)}`,
		EQ_PRISMA_MIGRATIONS: path.join(dir, 'migrations'), PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, PRISMA_QUERY_ENGINE_LIBRARY: process.execPath,
		CHECKPOINT_DISABLE: '1', PRISMA_HIDE_UPDATE_MESSAGE: '1' } });
	return { status, said: stdout + stderr };
};

test('migrations with queues and rules: applied once by deploy; one that failed may be applied again', { skip }, async () => {
	const declaration = { queues: { mail: { sla: 1000, defaultJobOptions: { backoff: { type: 'list', delays: [1000, 2000] } } } },
		rules: { 'wel;come': { eventPattern: 'lead.created', queue: 'mail', jobName: 'welcome', payload: { text: "it's; \\ $1 $$ -- é" } } } };
	fs.mkdirSync(path.join(dir, 'migrations'));
	fs.writeFileSync(path.join(dir, 'migrations', 'migration_lock.toml'), 'provider = "postgresql"\n');
	migration('1_note', 'CREATE TABLE note (id text PRIMARY KEY);\n');
	migration('2_queues', `CREATE EXTENSION IF NOT EXISTS event_queue;\n${declared('two', declaration)}`);
	const first = migrate('deploy');
	assert.equal(first.status, 0, first.said);
	assert.match(first.said, /2_queues/);
	const eq = open(connection);
	assert.deepEqual(await eq.sync(declaration), { created: [], altered: [], dropped: [] }, 'nothing is left to do');
	await eq.append('lead', 'L1', 'lead.created', {});

	migration('3_letters', `${declared('three', { queues: { letters: {} }, drop: { rules: ['wel;come'] } })}CREATE TABLE note (id text);\n`);
	const failed = migrate('deploy');
	assert.notEqual(failed.status, 0);
	assert.match(failed.said, /already exists/);
	// What of it was carried out does no harm when the mended one is.
	migration('3_letters', declared('three', { queues: { letters: {} }, drop: { rules: ['wel;come'] } }));
	// As "prisma migrate resolve --rolled-back" does, which needs the binary
	await query(connection, `UPDATE _prisma_migrations SET rolled_back_at = now() WHERE migration_name = '3_letters'`);
	const again = migrate('deploy');
	assert.equal(again.status, 0, again.said);
	assert.deepEqual(await query(connection, `SELECT (SELECT count(*) FROM event_queue.queue WHERE name = 'letters')::int AS queues, (SELECT count(*) FROM event_queue.rules)::int AS rules`), [{ queues: 1, rules: 0 }]);
	assert.doesNotMatch(again.said, /1_note|2_queues/);
	await eq.close();
	fs.rmSync(dir, { recursive: true });
});
