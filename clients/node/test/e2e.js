// e2e.js: examples/nestjs as a process of its own, over HTTP, against a real server and a
// provider of messages that fails and answers 429; "make e2e".  E2E=short: less load.
//
// It prints figures and asserts none of them: what must hold is what each lead and
// message ends with, also when the server and the process are killed meanwhile, and when
// the server is lost and its standby promoted.
const assert = require('node:assert/strict');
const { execFile, spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const path = require('node:path');
const { promisify } = require('node:util');
const { Client } = require('pg');
const lib = require('./nestjs-lib');

const { ownDatabase, compile } = lib;
// A lease of a killed process must end before its jobs come again.
const until = (what, condition) => lib.until(what, condition, 180_000);

const short = process.env.E2E === 'short';
const perMinute = 1000;
const calmSeconds = short ? 5 : 60;
const faultSeconds = short ? 9 : 30;
const examples = path.join(__dirname, '..', '..', '..', 'examples');
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

/* The provider: what it was sent, and the statuses that it answers a phone with before 200 */
const received = [];
const statuses = new Map();
const provider = http.createServer(async (request, response) => {
	let text = '';
	for await (const part of request)
		text += part;
	const message = JSON.parse(text);
	const status = statuses.get(message.phone)?.shift() ?? 200;
	received.push({ ...message, status, at: Date.now() });
	response.writeHead(status, status === 429 ? { 'retry-after': '1' } : {}).end('wa');
});

const freePort = () => new Promise(resolve => {
	const server = net.createServer().listen(0, '127.0.0.1', () => {
		const { port } = server.address();
		server.close(() => resolve(port));
	});
});

let main, port, app, databaseUrl;
/** What the application said on stderr: a failed call in a fault is no news, unless the test fails. */
let errors = '';
async function startApp() {
	const child = spawn(process.execPath, [main], { stdio: ['ignore', 'ignore', 'pipe'],
		env: { ...process.env, PORT: String(port), PROVIDER_URL: `http://127.0.0.1:${provider.address().port}`, NODE_NO_WARNINGS: '1',
			NODE_ENV: 'production', ...databaseUrl && { DATABASE_URL: databaseUrl } } });
	app = child;
	child.stderr.on('data', data => { errors += data; });
	child.on('exit', (code, signal) => {
		if (!child.expected)
			console.error(`the application ended by itself: ${code ?? signal}`);
		child.ended = true;
	});
	await until('the application answers', async () => {
		assert.ok(!child.ended, 'the application has ended');
		return fetch(`http://127.0.0.1:${port}/health/queues`).then(response => response.status === 200, () => false);
	});
}
async function endApp(signal) {
	app.expected = true;
	const ended = new Promise(resolve => app.once('exit', resolve));
	app.kill(signal);
	await ended;
}

const dir = process.env.PGHOST;
const asServer = (program, ...args) => {
	const all = [...process.getuid() === 0 ? ['runuser', '-u', 'postgres', '--'] : [], path.join(process.env.PG_BINDIR, program), ...args];
	return promisify(execFile)(all[0], all.slice(1));
};
const ctl = (...args) => asServer('pg_ctl', '-D', path.join(dir, 'data'), '-w', ...args);

async function call(method, at, body, status) {
	const response = await fetch(`http://127.0.0.1:${port}${at}`, { method, headers: { 'content-type': 'application/json' }, body: body && JSON.stringify(body) });
	const text = await response.text();
	if (status !== undefined)
		assert.equal(response.status, status, `${method} ${at}: ${text}`);
	else if (!response.ok)
		throw new Error(`${response.status}`);
	return JSON.parse(text);
}

let client;
/** The test's own connection, made anew after a kill. */
async function query(sql, values) {
	for (;;) {
		try {
			if (client === undefined) {
				const made = new Client();
				made.on('error', () => { client = undefined; });
				await made.connect();
				client = made;
			}
			return (await client.query(sql, values)).rows;
		} catch (error) {
			if (client !== undefined && error.severity === 'ERROR')
				throw error;
			client?.end().catch(() => {});
			client = undefined;
			await sleep(50);
		}
	}
}
const tasks = lead => query('SELECT task_id, title, status FROM ianara.task WHERE lead_id = $1 ORDER BY template_id', [lead]);

const percentile = (values, p) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.ceil(values.length * p) - 1)];
const figures = values => `p50=${percentile(values, 0.5).toFixed(1)} p99=${percentile(values, 0.99).toFixed(1)} max=${Math.max(...values).toFixed(1)}`;

const newLead = n => ({ companyId: 'mine', name: `Lead ${n}`, source: 'site', value: 10 });

/** Calls at their times, whether those before were answered or not. */
async function load(seconds, each) {
	const total = Math.round(perMinute / 60 * seconds);
	const begin = Date.now();
	const calls = [];
	for (let n = 0; n < total; n++) {
		await sleep(begin + n * 60_000 / perMinute - Date.now());
		calls.push(each(n));
	}
	return Promise.all(calls);
}

/** Every lead has the two tasks of its step, the first open, and no more. */
async function allHaveTheirTasks() {
	await until('all leads have their tasks', async () => (await query(`SELECT count(*)::int AS n FROM ianara.lead l
		WHERE (SELECT count(*) FROM ianara.task t WHERE t.lead_id = l.lead_id) < 2`))[0].n === 0);
	await until('no job is left', async () => (await query(`SELECT count(*)::int AS n FROM event_queue.jobs WHERE queue IN ('task-automation', 'whatsapp')`))[0].n === 0);
	const wrong = await query(`SELECT l.lead_id, array_agg(t.title || ' ' || t.status ORDER BY t.template_id) AS tasks
		FROM ianara.lead l LEFT JOIN ianara.task t USING (lead_id) WHERE l.name LIKE 'Lead %' GROUP BY 1
		HAVING array_agg(t.title || ' ' || t.status ORDER BY t.template_id) <> '{Call open,Write waiting}'`);
	assert.deepEqual(wrong, [], 'leads with other tasks than theirs');
}

async function oneByOne() {
	const { id } = await call('POST', '/crm/leads', { ...newLead(0), name: 'Bia' }, 201);
	const [first] = await until('lead -> tasks', async () => { const rows = await tasks(id); return rows.length === 2 && rows; });
	await call('POST', `/crm/tasks/${first.task_id}/complete`, { userId: 'ana of mine' }, 200);
	await until('complete -> next task', async () => (await tasks(id))[1].status === 'open');
	console.log('ok - lead -> tasks; complete -> next task');

	const answer = await call('POST', '/whatsapp/send-message', { phone: '+1', body: 'one' }, 202);
	assert.equal(answer.status, 'queued');
	await until('send -> sent', () => received.some(message => message.phone === '+1'));
	console.log('ok - send -> queued -> sent');

	statuses.set('+2', [500]);
	await call('POST', '/whatsapp/send-message', { phone: '+2', body: 'two' }, 202);
	const tries = await until('failed -> retried -> done', () => { const all = received.filter(message => message.phone === '+2'); return all.length === 2 && all; });
	assert.deepEqual(tries.map(message => message.status), [500, 200]);
	assert.ok(tries[1].at - tries[0].at >= 1900, 'not before 2 s');
	statuses.set('+4', [429]);
	await call('POST', '/whatsapp/send-message', { phone: '+4', body: 'four' }, 202);
	await until('429 -> later', () => received.some(message => message.phone === '+4' && message.status === 200));
	console.log('ok - failed -> retried after 2 s -> done; 429 -> done later');

	statuses.set('+3', [500, 500, 500]);
	const { id: job } = await call('POST', '/whatsapp/send-message', { phone: '+3', body: 'three' }, 202);
	const dead = await until('it is dead', async () => { const list = await call('GET', '/admin/dead-letters/whatsapp', undefined, 200); return list.length > 0 && list; });
	assert.deepEqual(dead.map(letter => [letter.id, letter.attempts, letter.reason]), [[job, 3, 'the provider answers 500']]);
	await call('POST', `/admin/dead-letters/whatsapp/${job}/retry`, undefined, 200);
	await until('dead -> sent', () => received.some(message => message.phone === '+3' && message.status === 200));
	await until('the dead letter is gone', async () => (await call('GET', '/admin/dead-letters/whatsapp', undefined, 200)).length === 0);
	console.log('ok - failed three times -> dead -> retried from /admin -> gone');
}

async function underLoad() {
	const latencies = [], messages = [];
	// So many connections as calls may meet; what each costs at first is not what is measured.
	await Promise.all(Array.from({ length: 10 }, (_, n) => call('POST', '/crm/leads', newLead(`w${n}`), 201)));
	await allHaveTheirTasks();
	const timed = async (list, ...what) => {
		const begin = performance.now();
		await call(...what);
		list.push(performance.now() - begin);
	};
	await load(calmSeconds, async n => {
		await timed(latencies, 'POST', '/crm/leads', newLead(n), 201);
		if (n % 3 === 0)
			await timed(messages, 'POST', '/whatsapp/send-message', { phone: `+6${n % 12}`, body: `calm ${n}` }, 202);
	});
	await allHaveTheirTasks();
	const lags = (await query(`SELECT extract(epoch FROM max(t.created_at) - l.created_at)::float8 * 1000 AS lag
		FROM ianara.lead l JOIN ianara.task t USING (lead_id) WHERE l.name LIKE 'Lead %' GROUP BY l.lead_id, l.created_at`)).map(row => row.lag);
	console.log(`ok - ${latencies.length} leads in ${calmSeconds} s, each with its tasks`);
	console.log(`BENCH e2e leads_per_min=${perMinute} seconds=${calmSeconds} api_ms: ${figures(latencies)}`);
	console.log(`BENCH e2e send_message_ms: ${figures(messages)}`);
	console.log(`BENCH e2e lag_to_last_task_ms: ${figures(lags)}`);
}

/** Calls go on while the server is lost in some way, and later the application is killed. */
async function underFaults(what, loseServer) {
	const leads = [];
	const messages = [];
	let broken = 0, before;
	const faults = (async () => {
		await sleep(faultSeconds * 1000 / 4);
		await loseServer();
		before = leads.length;
		console.log(`   ${what}`);
		await sleep(faultSeconds * 1000 / 4);
		await endApp('SIGKILL');
		await startApp();
		console.log('   the application was killed and started');
	})();
	await Promise.all([faults, load(faultSeconds, async n => {
		try {
			leads.push((await call('POST', '/crm/leads', newLead(`f${n}`))).id);
			if (n % 3 === 0) {
				await call('POST', '/whatsapp/send-message', { phone: `+5${n % 12}`, body: `${what} ${n}` });
				messages.push(`${what} ${n}`);
			}
		} catch {
			// Whoever calls knows that it may not have been done.
			broken++;
		}
	})]);
	assert.ok(!app.ended, 'the application outlives the server');
	assert.ok(leads.length > before, 'leads are answered again');
	await allHaveTheirTasks();
	const there = new Set((await query('SELECT lead_id::text AS id FROM ianara.lead')).map(row => row.id));
	assert.deepEqual(leads.filter(id => !there.has(String(id))), [], 'leads that were answered, and are lost');
	const sent = new Set(received.map(message => message.body));
	assert.deepEqual(messages.filter(body => !sent.has(body)), [], 'messages that were answered, and are lost');
	console.log(`ok - ${leads.length} leads and ${messages.length} messages answered, ${broken} calls broken off; each lead has exactly its tasks, each message was sent`);
}

async function restart() {
	await ctl('-m', 'immediate', 'stop');
	await sleep(500);
	await ctl('-l', process.env.EQ_SERVER_LOG, 'start');
}

const standby = path.join(dir, 'standby');
const standbyPort = '5433';

/** A standby on which everything is that was confirmed; the application knows both servers, the standby first. */
async function withStandby() {
	await asServer('pg_basebackup', '-h', dir, '-U', 'postgres', '-D', standby, '-R', '-c', 'fast', '--no-sync');
	await asServer('pg_ctl', '-D', standby, '-w', '-l', path.join(dir, 'standby.log'), '-o', `-p ${standbyPort}`, 'start');
	await query(`ALTER SYSTEM SET synchronous_standby_names = '*'`);
	await query('SELECT pg_reload_conf()');
	await until('the standby is in step', async () => (await query(`SELECT count(*)::int AS n FROM pg_stat_replication WHERE sync_state = 'sync'`))[0].n === 1);
	await endApp('SIGTERM');
	const host = encodeURIComponent(dir);
	databaseUrl = `postgresql://postgres@${host}:${standbyPort},${host}:${process.env.PGPORT}/${process.env.PGDATABASE}`;
	await startApp();
}

async function promote() {
	await ctl('-m', 'immediate', 'stop');
	await sleep(500);
	await asServer('pg_ctl', '-D', standby, '-w', 'promote');
	process.env.PGPORT = standbyPort;
}

async function run() {
	const db = await ownDatabase('e2e');
	for (const file of ['schema.sql', 'automation.sql'])
		await db.query(fs.readFileSync(path.join(examples, 'erp', file), 'utf8'));
	// When it was made, for the lag
	await db.query(`
		ALTER TABLE ianara.task ADD created_at timestamptz NOT NULL DEFAULT clock_timestamp();
		INSERT INTO ianara.company VALUES ('mine', 'Mine');
		INSERT INTO ianara.app_user VALUES ('ana of mine', 'mine', 'Ana');
		INSERT INTO ianara.step VALUES (101, 'mine', 'New', 1);
		INSERT INTO ianara.task_template VALUES (1001, 101, 'Call', 1), (1002, 101, 'Write', 2)`);
	await db.end();
	await new Promise(resolve => provider.listen(0, '127.0.0.1', resolve));
	main = path.join(compile(path.join(examples, 'nestjs', 'src'), { as: 'e2e' }).out, 'main.js');
	port = await freePort();
	await startApp();
	await oneByOne();
	await underLoad();
	await underFaults('the server was stopped at once and started', restart);
	await withStandby();
	await underFaults('the server was lost, its standby promoted', promote);
	await endApp('SIGTERM');
	console.log('ok - SIGTERM ends it');
}

run().then(() => 0, error => {
	console.error(errors.slice(-5000));
	console.error(error);
	return 1;
}).then(async code => {
	app?.kill('SIGKILL');
	if (fs.existsSync(standby))
		await asServer('pg_ctl', '-D', standby, '-m', 'immediate', 'stop').catch(() => {});
	process.exit(code);
});
