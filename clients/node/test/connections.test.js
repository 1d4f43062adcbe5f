// How one gets to the server: passwords, TLS and client certificates as pg has them, and through PgBouncer.
// The server is one of its own, which asks for them.
const { test, before, after, describe } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { EventQueue } = require('..');
const { query, until, sleep, Pool } = require('./helpers');

const as = process.getuid() === 0 ? ['runuser', '-u', 'postgres', '--'] : [];
const run = (program, args, options = {}) => {
	const [command, ...rest] = [...as, program, ...args];
	return execFileSync(command, rest, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
};
// In the directory of the tests' server, which is the server's own user's.
const dir = path.join(process.env.PGHOST, 'tls');
const file = name => path.join(dir, name);
const server = program => path.join(process.env.PG_BINDIR, program);
const freePort = () => new Promise(resolve => {
	const one = net.createServer().listen(0, '127.0.0.1', () => {
		const { port } = one.address();
		one.close(() => resolve(port));
	});
});
const write = (name, text) => run('tee', [file(name)], { input: text, stdio: ['pipe', 'ignore', 'inherit'] });
const read = name => run('cat', [file(name)]);

let port, direct, ca, cert, key;
before(async () => {
	port = await freePort();
	run('mkdir', [dir]);
	const openssl = (...args) => run('openssl', args, { cwd: dir });
	openssl('req', '-new', '-x509', '-days', '2', '-nodes', '-subj', '/CN=a CA', '-keyout', 'ca.key', '-out', 'ca.crt');
	for (const [name, subject, more] of [['server', '/CN=localhost', 'subjectAltName=DNS:localhost'], ['client', '/CN=by_cert', 'basicConstraints=CA:FALSE']]) {
		write('ext', more);
		openssl('req', '-new', '-nodes', '-subj', subject, '-keyout', `${name}.key`, '-out', `${name}.csr`);
		openssl('x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'ext', '-out', `${name}.crt`);
		run('chmod', ['600', file(`${name}.key`)]);
	}
	[ca, cert, key] = ['ca.crt', 'client.crt', 'client.key'].map(read);
	write('password', 'secret\n');
	run(server('initdb'), ['-D', file('data'), '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile', file('password'), '-E', 'UTF8', '--no-sync']);
	write('data/pg_hba.conf', 'local all all trust\nhostssl all by_cert all cert\nhostssl all all all scram-sha-256\n');
	fs.writeFileSync(file('conf'), `
listen_addresses = 'localhost'
port = ${port}
unix_socket_directories = '${dir}'
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
fsync = off
ssl = on
ssl_cert_file = '${file('server.crt')}'
ssl_key_file = '${file('server.key')}'
ssl_ca_file = '${file('ca.crt')}'
`);
	fs.appendFileSync(path.join(file('data'), 'postgresql.conf'), fs.readFileSync(file('conf')));
	run(server('pg_ctl'), ['-D', file('data'), '-w', '-l', file('log'), 'start'], { stdio: 'ignore' });
	direct = { host: dir, port, user: 'postgres', database: 'postgres' };
	await query(direct, `CREATE EXTENSION event_queue; CREATE ROLE by_cert LOGIN; SELECT event_queue.grant_admin('by_cert')`);
});
after(() => {
	try {
		run(server('pg_ctl'), ['-D', file('data'), '-m', 'immediate', 'stop'], { stdio: 'ignore' });
	} catch {
		// it did not start
	}
});

let queues = 0;

/** A job that waits until its lease is extended, one that another session adds, a transaction, and a group that hears of it. */
async function works(options, { isBlocked = true, group = true, wakes = true } = {}) {
	const name = `q${++queues}`;
	const eq = new EventQueue({ handleSignals: false, ...options });
	const errors = [], runs = [], heard = [], stalled = [];
	eq.on('connectionError', error => errors.push(error.message));
	try {
		await eq.sync({ queues: { [name]: { settings: { lockDuration: 6000 } } } });
		const queue = eq.queue(name);
		assert.equal(new Set((await Promise.all(Array.from({ length: 20 }, (_, n) => queue.add('short', { n })))).map(job => job.id)).size, 20);
		const worker = eq.worker(name, async job => {
			runs.push(job.name);
			if (job.name !== 'long')
				return;
			const leasedUntil = () => String(run(server('psql'), ['-XAt', '-h', dir, '-p', String(port), '-d', 'postgres', '-c', `SELECT leased_until FROM event_queue.job WHERE job_id = ${job.id}`]));
			// While it is blocked the event loop does nothing else.
			const begun = leasedUntil();
			for (const end = Date.now() + 60_000; leasedUntil() === begun && Date.now() < end;)
				if (!isBlocked)
					await sleep(50);
			assert.notEqual(leasedUntil(), begun, 'its lease is extended');
		}, { concurrency: 3 });
		worker.on('stalled', job => stalled.push(job.name));
		worker.on('lost', job => stalled.push(job.name));
		await until(() => runs.length === 20, 'all are done');
		await queue.add('long', {});
		await until(async () => (await queue.count()) === 0 && (await queue.getActive()).length === 0 && runs.includes('long'), 'the long one is done');
		assert.deepEqual([runs.length, stalled], [21, []], 'it ran once, and its lease was kept');
		if (group)
			eq.subscription(name, event => void heard.push(event.data.n), { filter: { event_type: `${name}.*` }, buckets: 4 });
		await eq.transaction(async () => {
			await eq.append('thing', name, `${name}.made`, { n: 1 });
			await queue.add('in it', {});
		});
		await until(() => runs.includes('in it'), 'the job of the transaction is done');
		if (group) {
			await until(() => heard.length > 0, 'the group hears of it');
			assert.deepEqual(heard, [1]);
		}
		if (wakes) {
			// Without a wake-up it would look after 30 s only.
			await query(direct, `SELECT event_queue.enqueue($1, 'by another', '{}')`, [name]);
			await until(() => runs.includes('by another'), 'the worker is woken', 25_000);
		}
	} finally {
		await eq.close();
	}
	return errors;
}

describe('passwords and TLS', () => {
	const tls = () => ({ host: 'localhost', port, user: 'postgres', database: 'postgres' });

	test('a URI that verifies the server', async () =>
		assert.deepEqual(await works({ connection: `postgresql://postgres:secret@localhost:${port}/postgres?sslmode=verify-full&sslrootcert=${file('ca.crt')}` }), []));

	test('an object: its password, as text or a function, and a list of hosts', async () => {
		assert.deepEqual(await works({ connection: { ...tls(), password: 'secret', ssl: { ca } } }), []);
		assert.deepEqual(await works({ connection: { ...tls(), password: async () => 'secret', ssl: { ca } } }), []);
		assert.deepEqual(await works({ connection: { ...tls(), host: 'localhost,localhost', password: 'secret', ssl: { ca } } }), []);
	});

	test('a certificate of the client: also the heartbeat of the thread has its key', async () => {
		assert.deepEqual(await works({ connection: { ...tls(), user: 'by_cert', ssl: { ca, cert, key } } }), []);
		const pool = new Pool({ ...tls(), user: 'by_cert', ssl: { ca: String(ca), cert: String(cert), key: String(key) } });
		assert.deepEqual(await works({ pool }), []);
		await pool.end();
	});

	test('a check of the certificate of one\'s own, which no thread can be given: leases are kept by the process', async () => {
		const hosts = [];
		const checkServerIdentity = host => void hosts.push(host);
		assert.deepEqual(await works({ connection: { ...tls(), host: '127.0.0.1', password: 'secret', ssl: { ca, checkServerIdentity } } }, { isBlocked: false }), []);
		assert.ok(hosts.length > 0);
	});

	test('a role that has no connection left for the heartbeat: leases are kept by the pool', async () => {
		await query(direct, `CREATE ROLE few LOGIN PASSWORD 'secret' CONNECTION LIMIT 3; SELECT event_queue.grant_admin('few')`);
		const errors = await works({ connection: { ...tls(), user: 'few', password: 'secret', ssl: { ca } }, maxConnections: 2 }, { isBlocked: false, group: false });
		assert.match(errors.join(), /heartbeat: too many connections for role "few"/);
	});

	test('what is wrong is told', async () => {
		const refused = async (connection, message) => {
			const eq = new EventQueue({ connection, handleSignals: false, connectWait: 100 });
			await assert.rejects(eq.ready(), message);
			await eq.close();
		};
		await refused({ ...tls(), password: 'wrong', ssl: { ca } }, /password authentication failed/);
		await refused({ ...tls(), host: '127.0.0.1', password: 'secret', ssl: { ca } }, /does not match certificate's altnames/);
		await refused({ ...tls(), password: 'secret', ssl: { ca: cert } }, /certificate/);
		await refused({ ...tls(), password: 'secret' }, /no pg_hba.conf entry .*no encryption/);
	});
});

const bouncer = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer'].find(one => fs.existsSync(one));
describe('through PgBouncer', { skip: bouncer === undefined && 'pgbouncer is not installed' }, () => {
	const running = [];
	const start = async (mode, size) => {
		const at = await freePort();
		write(`${mode}.ini`, `[databases]
postgres = host=${dir} port=${port} dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${at}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
default_pool_size = ${size}
`);
		const [command, ...rest] = [...as, bouncer, '-q', file(`${mode}.ini`)];
		running.push(spawn(command, rest, { stdio: 'ignore' }));
		const connection = { host: '127.0.0.1', port: at, user: 'postgres', database: 'postgres' };
		await until(() => query(connection, 'SELECT 1').then(() => true, () => false), 'pgbouncer answers');
		return connection;
	};
	const uri = connection => `postgresql://${connection.user}@${connection.host}:${connection.port}/${connection.database}`;
	after(() => running.forEach(one => one.kill()));

	test('in transaction mode, with listenConnection: a URI, or what differs', async () => {
		const connection = await start('transaction', 2);
		for (const through of [connection, uri(connection)])
			for (const listenConnection of [{ host: dir, port }, `postgresql://postgres@${encodeURIComponent(dir)}:${port}/postgres`])
				assert.deepEqual(await works({ connection: through, listenConnection }), []);
		// Named statements are of connections that are others' now: once refused, never named again.
		assert.deepEqual(await works({ connection, maxConnections: 8 }, { group: false, wakes: false }), []);
	});

	test('in session mode, without', async () => {
		assert.deepEqual(await works({ connection: await start('session', 20) }), []);
	});
});
