// nestjs-bull.test.js: a Bull 4 application goes on with other import lines, and nothing else.
require('reflect-metadata');
const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const path = require('node:path');
const { ownDatabase, compile, until } = require('./nestjs-lib');

let db, app, url, outbox, mails;

before(async () => {
	db = await ownDatabase('nestjs_bull');
	const { out, changed } = compile('bull-app', { as: 'bull-app-ours', imports: 'ours' });
	assert.ok(changed >= 6);
	const { NestFactory } = require('@nestjs/core');
	const { AppModule } = require(path.join(out, 'app.module.js'));
	app = await NestFactory.create(AppModule, { logger: ['error'] });
	await app.listen(0, '127.0.0.1');
	url = await app.getUrl();
	outbox = app.get(require(path.join(out, 'outbox.js')).Outbox);
	mails = app.get(require(path.join(out, 'mail.service.js')).MailService);
});

after(async () => {
	await app?.close();
	await db?.end();
});

const call = async (method, at, body) => {
	const response = await fetch(url + at, {
		method, headers: { 'content-type': 'application/json' }, body: body && JSON.stringify(body),
	});
	assert.ok(response.ok, `${method} ${at}: ${response.status}`);
	return response.json();
};
const sent = what => until(`${what} is sent`, () => outbox.sent.includes(what));
const heard = what => until(`${what} is heard, of ${JSON.stringify(outbox.heard)}`, () => outbox.heard.includes(what));

test('the application compiles with its own imports, against the types of Bull', () => {
	compile('bull-app', { as: 'bull-app-bull', imports: 'bull', emit: false });
});

test('a job that is added over HTTP is done, with its events, progress and result', async () => {
	const { id } = await call('POST', '/mails', { to: 'ana' });
	assert.match(id, /^[1-9][0-9]*$/);
	await sent('welcome ana');
	await heard('completed welcome {"answer":"sent to ana","attempt":1}');
	for (const one of ['waiting', 'active welcome', 'progress welcome 10', 'progress welcome 100', 'global completed string string'])
		await heard(one);
	await heard('drained');
});

test('attempts and backoff: failed twice, then done', async () => {
	outbox.failNext('bia', 2);
	await call('POST', '/mails', { to: 'bia' });
	await heard('failed welcome 1 of 3: no answer for bia');
	await heard('failed welcome 2 of 3: no answer for bia');
	await heard('completed welcome {"answer":"sent to bia","attempt":3}');
});

test('the last attempt: in the list of failed ones, retried over HTTP, gone', async () => {
	outbox.failNext('caio', 3);
	const { id } = await call('POST', '/mails', { to: 'caio' });
	const failed = await until('caio is failed', async () => {
		const list = await call('GET', '/admin/failed');
		return list.length > 0 && list;
	});
	assert.deepEqual(failed, [{ id, reason: 'no answer for caio', attempts: 3 }]);
	assert.equal((await mails.counts()).failed, 1);
	assert.deepEqual(await call('POST', `/admin/failed/${id}/retry`), { retried: true });
	await sent('welcome caio');
	assert.deepEqual(await call('GET', '/admin/failed'), []);
	assert.deepEqual(await call('POST', `/admin/failed/${id}/retry`), { retried: false });
});

test('addBulk, and listeners for one name', async () => {
	const jobs = await mails.digests(['d1', 'd2', 'd3']);
	assert.equal(new Set(jobs.map(job => job.id)).size, 3);
	for (const to of ['d1', 'd2', 'd3'])
		await heard(`digest of ${to} completed`);
});

test('a processor with a done callback; finished() has its result', async () => {
	assert.equal(await mails.letter('dora'), 'sent to dora');
	outbox.failNext('eva', 1);
	await assert.rejects(mails.letter('eva'), /no answer for eva/);
});

test("the processor of '*', which adds to another queue without a name; queue.on", async () => {
	await mails.other('sms', 'fabio');
	await sent('sms fabio');
	await sent('report 2026-11');
	await heard('report 2026-11 has 1 pages');
});

test('jobId: one job, found by it, removed', async () => {
	const [first, second] = await mails.once('gil');
	assert.equal(first.id, 'welcome:gil');
	assert.equal(second.jobId, first.jobId);
	assert.equal(await first.getState(), 'delayed');
	assert.equal((await mails.counts()).delayed, 1);
	assert.equal(await mails.remove('welcome:gil'), true);
	assert.equal(await mails.remove('welcome:gil'), false);
	assert.equal(await first.getState(), 'stuck');
});

test('repeat is a schedule, and one, however often it is added', async () => {
	await mails.nightly();
	await mails.nightly();
	const { rows } = await db.query('SELECT cron, time_zone, queue, job_name FROM event_queue.schedules');
	assert.deepEqual(rows, [{ cron: '0 3 * * *', time_zone: 'America/Sao_Paulo', queue: 'reports', job_name: '__default__' }]);
});

test('pause and resume', async () => {
	assert.equal(await mails.pause(), true);
	await heard('paused');
	const job = await mails.welcome('helo');
	assert.equal(await job.getState(), 'paused');
	assert.deepEqual([(await mails.counts()).waiting, (await mails.counts()).paused], [0, 1]);
	assert.equal(await mails.resume(), false);
	await sent('welcome helo');
});

test('what registerQueue says of the queues is on the server', async () => {
	const { rows } = await db.query(`SELECT name, lease::text, max_stalled, max_attempts, backoff, backoff_delay::text AS delay,
		rate_limit, keep_completed_count AS kept, keep_failed::text FROM event_queue.queue WHERE name IN ('mail', 'reports') ORDER BY 1`);
	assert.deepEqual(rows, [
		{ name: 'mail', lease: '00:00:30', max_stalled: 2, max_attempts: 2, backoff: 'fixed', delay: '00:00:00.05', rate_limit: null, kept: 1000, keep_failed: null },
		{ name: 'reports', lease: '00:00:30', max_stalled: 2, max_attempts: 1, backoff: 'fixed', delay: '00:00:00', rate_limit: 100, kept: 100, keep_failed: '01:00:00' },
	]);
});
