// The primary is lost and its standby promoted, while jobs are added and done: the client finds
// the new primary by its list of hosts, and nothing that was confirmed is lost.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const eqlib = require('..');
const { query, open, until, sleep } = require('./helpers');

const dir = process.env.PGHOST;
const as = process.getuid() === 0 ? ['runuser', '-u', 'postgres', '--'] : [];
const run = (program, ...args) => {
	const [command, ...rest] = [...as, path.join(process.env.PG_BINDIR, program), ...args];
	execFileSync(command, rest, { stdio: 'ignore' });
};
const ports = { one: 6001, two: 6002 };
const data = name => path.join(dir, name);
const ctl = (name, ...args) => run('pg_ctl', '-D', data(name), '-w', '-l', path.join(dir, `${name}.log`), ...args);
const at = name => ({ host: dir, port: ports[name], user: 'postgres', database: 'postgres' });

before(async () => {
	run('initdb', '-D', data('one'), '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync');
	fs.appendFileSync(path.join(data('one'), 'postgresql.conf'), `
listen_addresses = ''
unix_socket_directories = '${dir}'
shared_preload_libraries = 'event_queue'
max_worker_processes = 32
fsync = off
`);
	ctl('one', '-o', `-p ${ports.one}`, 'start');
	run('pg_basebackup', '-h', dir, '-p', String(ports.one), '-U', 'postgres', '-D', data('two'), '-R', '-c', 'fast', '--no-sync');
	ctl('two', '-o', `-p ${ports.two}`, 'start');
	// What is confirmed is on both.
	await query(at('one'), `ALTER SYSTEM SET synchronous_standby_names = '*'`);
	await query(at('one'), 'SELECT pg_reload_conf()');
	await until(async () => (await query(at('one'), `SELECT count(*)::int AS n FROM pg_stat_replication WHERE sync_state = 'sync'`))[0].n === 1, 'the standby is in step');
	await query(at('one'), 'CREATE EXTENSION event_queue');
	await query(at('one'), `SELECT event_queue.create_queue('work', lease => '2 seconds', stalled_interval => '200 milliseconds', max_stalled => 20)`);
});
after(() => {
	for (const name of ['one', 'two'])
		try {
			ctl(name, '-m', 'immediate', 'stop');
		} catch {
			// it is down already
		}
});

test('a standby is promoted: jobs go on there, and what was confirmed is neither lost nor done again', async () => {
	const ends = [];
	// The standby first: it is passed over.
	const eq = open({ host: `${dir},${dir}`, port: `${ports.two},${ports.one}`, user: 'postgres', database: 'postgres' }, { connectWait: 60_000 });
	const uri = open(`postgresql://postgres@${encodeURIComponent(dir)}:${ports.two},${encodeURIComponent(dir)}:${ports.one}/postgres`, { connectWait: 60_000 });
	const queue = eq.queue('work');
	const confirmed = new Set(), again = [], events = [];
	const worker = eq.worker('work', async job => {
		if (confirmed.has(job.data.key))
			again.push(job.data.key);
		await sleep(5);
	}, { concurrency: 4 });
	worker.on('completed', job => confirmed.add(job.data.key));
	worker.on('error', error => assert.fail(error));
	const added = new Set();
	let adding = true;
	const repeated = async work => {
		for (;;)
			try {
				return await work();
			} catch (error) {
				assert.ok(error instanceof eqlib.ConnectionError, String(error));
			}
	};
	const producer = (async () => {
		for (let i = 0; adding || i < 300; i++) {
			const key = `k${i}`;
			await repeated(() => queue.add('step', { key }, { jobId: key }));
			added.add(key);
		}
	})();
	const appender = (async () => {
		for (let i = 0; adding; i++) {
			const id = `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`;
			await repeated(() => uri.append('thing', 'one', 'thing.seen', { i }, { id }));
			events.push(i);
			await sleep(5);
		}
	})();
	await until(() => confirmed.size > 50 && events.length > 5, 'work is done before');

	// Who knows the standby only: told once, and goes on when it is the primary.
	await query(at('one'), `SELECT event_queue.create_queue('lone')`);
	const lone = open(at('two'));
	const told = [], wentOn = [];
	const done = new Promise(resolve => lone.worker('lone', resolve)
		.on('error', error => told.push(['worker', error.name])).on('ready', () => wentOn.push('worker')));
	const seenThere = new Promise(resolve => lone.subscription('lone', resolve)
		.on('error', error => told.push(['subscription', error.name, /subscription "lone" is held up since \d+ s, .*standby/.test(error.message)])));
	await assert.rejects(lone.queue('lone').add('x', {}), error => error instanceof eqlib.ReadOnlyError && !error.outcomeUnknown && /connect to the primary/.test(error.message));
	await assert.rejects(lone.transaction(() => lone.append('a', 'b', 'c.d')), eqlib.ReadOnlyError);
	await until(() => told.length === 2, 'both have told');
	assert.deepEqual(told.sort(), [['subscription', 'ReadOnlyError', true], ['worker', 'ReadOnlyError']]);
	assert.deepEqual(wentOn, ['worker'], 'when it began');

	ctl('one', '-m', 'immediate', 'stop');
	ctl('two', 'promote');
	const [before, seen] = [confirmed.size, events.length];
	await until(() => confirmed.size > before + 50 && events.length > seen + 5, 'work is done after it');
	adding = false;
	await producer;
	await appender;
	await until(() => [...added].every(key => confirmed.has(key)), 'all are done');
	assert.deepEqual(again, []);
	const rows = await query(at('two'), `SELECT (event_data ->> 'i')::int AS i FROM event_queue.event_store ORDER BY position`);
	assert.deepEqual(rows.map(row => row.i), events, 'each event once, in order');
	await until(() => lone.queue('lone').add('x', {}).then(() => true, () => false), 'a job is added');
	await Promise.all([done, seenThere]);
	await until(() => wentOn.length === 2, 'the worker has told that it goes on');
	assert.equal(told.length, 2);
	ends.push(eq.close(), uri.close(), lone.close());
	await Promise.all(ends);
});

test('a list that does not fit is told', () => {
	assert.throws(() => open({ host: 'a,b,c', port: '1,2' }), /3 hosts, but 2 ports/);
});
