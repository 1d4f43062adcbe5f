// helpers.js: what the tests share.  The server is that of PGHOST and PGPORT, made by
// test/lib/with-cluster.sh for these tests only.
const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { Client, Pool } = require('pg');
const { EventQueue } = require('..');

const where = { host: process.env.PGHOST, port: Number(process.env.PGPORT), user: 'postgres' };

if (process.env.EQ_SERVER_LOG === undefined)
	throw new Error('run these tests by "make check-node": they need a server of their own');

/** A database of its own with the extension; its settings for pg. */
async function freshDatabase(name, { extension = true } = {}) {
	const admin = new Client({ ...where, database: 'postgres' });
	await admin.connect();
	await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
	await admin.query(`CREATE DATABASE ${name}`);
	await admin.end();
	const connection = { ...where, database: name };
	if (extension)
		await query(connection, 'CREATE EXTENSION event_queue');
	return connection;
}

async function query(connection, sql, values) {
	const client = new Client(connection);
	await client.connect();
	try {
		return (await client.query(sql, values)).rows;
	} finally {
		await client.end();
	}
}

const asServer = process.getuid() === 0 ? ['runuser', '-u', 'postgres', '--'] : [];

/** Stops the server at once, as a crash does, and starts it. */
function restartServer(mode = 'immediate') {
	stopServer(mode);
	startServer();
}
const ctl = (...args) => {
	const [command, ...rest] = [...asServer, path.join(process.env.PG_BINDIR, 'pg_ctl'), '-D', path.join(process.env.PGHOST, 'data'), ...args];
	execFileSync(command, rest, { stdio: 'ignore' });
};
const stopServer = mode => ctl('-m', mode, '-w', 'stop');
const startServer = () => ctl('-l', process.env.EQ_SERVER_LOG, '-w', 'start');

/** Waits until the condition holds; the limit is only there so that a failure ends. */
async function until(condition, what, limit = 60000) {
	const end = Date.now() + limit;
	for (;;) {
		const value = await condition();
		if (value)
			return value;
		if (Date.now() > end)
			throw new Error(`not within ${limit} ms: ${what}`);
		await new Promise(resolve => setTimeout(resolve, 10));
	}
}

const open = (connection, options) => new EventQueue({ connection, handleSignals: false, ...options });
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const once = (emitter, event) => new Promise(resolve => emitter.once(event, (...args) => resolve(args)));

module.exports = { freshDatabase, query, restartServer, stopServer, startServer, until, open, sleep, once, Client, Pool, where };
