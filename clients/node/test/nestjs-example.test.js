// nestjs-example.test.js: examples/nestjs over HTTP, from the call to what follows from it.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const fs = require('node:fs');
const path = require('node:path');
const { ownDatabase, compile, until } = require('./nestjs-lib');

const examples = path.join(__dirname, '..', '..', '..', 'examples');
let db, app, url, types;

before(async () => {
	db = await ownDatabase('nestjs_example');
	for (const file of ['schema.sql', 'automation.sql'])
		await db.query(fs.readFileSync(path.join(examples, 'erp', file), 'utf8'));
	await db.query(`
		INSERT INTO ianara.company VALUES ('mine', 'Mine');
		INSERT INTO ianara.app_user VALUES ('ana of mine', 'mine', 'Ana'), ('rui of mine', 'mine', 'Rui');
		INSERT INTO ianara.step VALUES (101, 'mine', 'New', 1), (102, 'mine', 'Visit', 2);
		INSERT INTO ianara.task_template VALUES (1001, 101, 'Call', 1), (1002, 101, 'Write', 2), (1003, 102, 'Go', 1)`);
	process.env.BACKOFF = '20';
	const { out } = compile(path.join(examples, 'nestjs', 'src'), { as: 'example' });
	types = require(path.join(out, 'app.js'));
	const { NestFactory } = require('@nestjs/core');
	app = await NestFactory.create(types.AppModule, { logger: ['error'] });
	await app.listen(0, '127.0.0.1');
	url = await app.getUrl();
});

after(async () => {
	await app?.close();
	await db?.end();
});

const call = async (method, at, body, status) => {
	const response = await fetch(url + at, {
		method, headers: { 'content-type': 'application/json' }, body: body && JSON.stringify(body),
	});
	assert.equal(response.status, status, `${method} ${at}`);
	return response.json();
};
const tasks = async lead => (await db.query('SELECT task_id, title, status FROM ianara.task WHERE lead_id = $1 ORDER BY template_id', [lead])).rows;

test('lead -> tasks; complete -> next task; move -> tasks of the step; users are told as they like', async () => {
	app.get(types.Preferences).set('rui of mine', ['push', 'sms']);
	const { id } = await call('POST', '/crm/leads', { companyId: 'mine', name: 'Bia', phone: '+55 11 9', source: 'site', value: 10 }, 201);
	const first = await until('two tasks', async () => {
		const rows = await tasks(id);
		return rows.length === 2 && rows;
	});
	assert.deepEqual(first.map(task => [task.title, task.status]), [['Call', 'open'], ['Write', 'waiting']]);
	await call('POST', `/crm/tasks/${first[0].task_id}/complete`, { userId: 'ana of mine' }, 200);
	await until('the next one is open', async () => (await tasks(id))[1].status === 'open');
	const { told } = app.get(types.NotifyProcessor);
	await until('three notices', () => told.length === 3);
	assert.deepEqual([...told].sort(), ['email to ana of mine', 'push to rui of mine', 'sms to rui of mine'].map(who => `${who}: Task ${first[0].task_id} is done`));
	await call('PATCH', `/crm/leads/${id}`, { stepId: 102 }, 200);
	await until('the task of the second step', async () => (await tasks(id)).length === 3);
	await until('the welcome', async () => (await db.query('SELECT FROM ianara.whatsapp_message WHERE lead_id = $1', [id])).rows.length === 1);
});

test('messages: queued, sent in order for a contact, after a failure and a 429', async () => {
	const provider = app.get(types.Provider);
	provider.answers.set('+1', ['fail', '429']);
	for (const body of ['one', 'two', 'three']) {
		const answer = await call('POST', '/whatsapp/send-message', { phone: '+1', body }, 202);
		assert.equal(answer.status, 'queued');
	}
	await until('all are sent', () => provider.sent.length === 3);
	assert.deepEqual(provider.sent, ['+1: one', '+1: two', '+1: three']);
});

test('failed three times: a dead letter, in the list; retried from /admin, sent, gone', async () => {
	app.get(types.Provider).answers.set('+2', ['fail', 'fail', 'fail']);
	const { id } = await call('POST', '/whatsapp/send-message', { phone: '+2', body: 'late' }, 202);
	const dead = await until('it is dead', async () => {
		const list = await call('GET', '/admin/dead-letters/whatsapp', undefined, 200);
		return list.length > 0 && list;
	});
	assert.deepEqual(dead, [{ id, name: 'send', data: { phone: '+2', body: 'late' }, attempts: 3, reason: 'the provider does not answer' }]);
	await call('POST', `/admin/dead-letters/whatsapp/${id}/retry`, undefined, 200);
	await until('it is sent', () => app.get(types.Provider).sent.includes('+2: late'));
	assert.deepEqual(await call('GET', '/admin/dead-letters/whatsapp', undefined, 200), []);
	await call('POST', `/admin/dead-letters/whatsapp/${id}/retry`, undefined, 404);
	await call('GET', '/admin/dead-letters/nothing', undefined, 404);
	await call('GET', '/admin/dead-letters/constructor', undefined, 404);
});

test('task.expired, lead.lost, payment.received are told to each user, at most ten a minute', async () => {
	const { told } = app.get(types.NotifyProcessor);
	app.get(types.Preferences).set('rui of mine', ['sms']);
	const before = told.length;
	const append = (type, id, event, data = '{}') => db.query(`SELECT event_queue.append($1, $2, $3, $4, tenant_id => 'mine')`, [type, id, event, data]);
	await append('task', 'T1', 'task.expired');
	await append('lead', 'L1', 'lead.lost');
	await append('payment', 'P0', 'payment.received', '{"amount": 30}');
	// Its type is the name of what every object has.
	await append('payment', 'P0', 'constructor');
	const texts = ['Task T1 has expired', 'Lead L1 is lost', 'Payment of 30 received'];
	await until('six notices', () => told.length === before + 6);
	assert.deepEqual(told.slice(before).sort(), [...texts.map(text => `email to ana of mine: ${text}`), ...texts.map(text => `sms to rui of mine: ${text}`)].sort());
	for (let n = 1; n <= 20; n++)
		await append('payment', `P${n}`, 'payment.received', JSON.stringify({ amount: n }));
	const jobs = await until('all are queued', async () => (await db.query(`SELECT count(*)::int AS n FROM event_queue.jobs WHERE queue = 'notify'`)).rows[0].n >= 20);
	assert.ok(jobs, 'and most of them wait');
	await db.query(`SELECT event_queue.purge_queue('notify')`);
});

test('health and metrics', async () => {
	assert.equal((await call('GET', '/health/queues', undefined, 200)).whatsapp.status !== 'unhealthy', true);
	const response = await fetch(`${url}/metrics`);
	assert.match(await response.text(), /queue="whatsapp"/);
});
