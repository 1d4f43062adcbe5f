// dashboard.js: what a person does with the dashboard; run.sh has made the server.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { execFileSync } from 'node:child_process';
import { base, launch, ok, finish, signIn, visit, PAGES } from './lib.js';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const sql = (text) => execFileSync('psql', ['-XqAt', '-U', 'postgres', '-v', 'ON_ERROR_STOP=1', '-c', text], { encoding: 'utf8' }).trim();
const ids = { dead: sql("SELECT job_id FROM event_queue.dead_letters WHERE queue = 'mail' AND payload ? 'html'"), event: sql("SELECT id FROM event_queue.event_store ORDER BY position LIMIT 1"),
	flow: sql('SELECT max(job_id) FROM event_queue.job_dependency') };

const browser = await launch();
const open = async (options = {}) => {
	const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en-US', ...options });
	const page = await context.newPage();
	page.errors = [];
	page.on('pageerror', (e) => page.errors.push(e.message));
	page.on('console', (m) => { if (/Content Security Policy|Refused to/.test(m.text())) page.errors.push(m.text()); });
	page.on('dialog', (d) => { page.errors.push(`a dialog: ${d.message()}`); d.dismiss(); });
	return page;
};

/* ---------------------------------------------------------------- signing in */
const page = await open();
await page.goto(base);
await page.fill('input[name=user]', 'ana');
await page.fill('input[name=password]', 'wrong');
await page.click('button[type=submit]');
await page.waitForFunction(() => document.querySelector('[role=alert]')?.textContent !== '');
ok(/refuses/.test(await page.textContent('[role=alert]')), 'a wrong password is refused, and said so');
await signIn(page, 'ana', 'ana-pw');
ok(await page.textContent('h1').then((x) => x.includes('Overview')), 'the overview comes first');
ok(await page.evaluate(() => document.cookie) === '', 'no script sees the cookie');

/* ---------------------------------------------------------------- a job dies, is seen, is retried, and leaves the list */
await visit(page, 'overview');
await page.waitForSelector('.problems a[href="#/queue/mail"]');
ok(true, 'the overview names the queue in trouble');
await page.click('.problems a[href="#/queue/mail"]');
await page.waitForFunction(() => document.querySelector('h1')?.textContent.startsWith('mail'));
await page.click('.tile a[href^="#/dead"]');
const row = `tr[data-key="${ids.dead}"]`;
await page.waitForSelector(row);
ok(/mailbox/.test(await page.textContent(row)), 'the dead letter is listed with its error');
await page.click(`${row} a[href="#/job/${ids.dead}"]`);
await page.waitForSelector('.timeline li.bad');
ok((await page.textContent('.page')).includes('mailbox'), 'its page has the failed attempts');
ok((await page.textContent('.page')).includes('<script>'), 'a payload with <script> is text');
ok(await page.evaluate(() => document.querySelectorAll('.page script, .page img').length) === 0, 'and makes no element');
await page.goBack();
await page.waitForSelector(row);
// The fault is mended, then it is retried.
sql('UPDATE app.switch SET broken = false');
await page.click(`${row} button`);
await page.waitForSelector(row, { state: 'detached', timeout: 10000 });
ok(true, 'after Retry it leaves the list');
await page.waitForFunction(async (id) => (await (await fetch(`api/jobs/${id}`)).json()).state === 'completed', ids.dead, { timeout: 10000, polling: 300 });
await visit(page, `job/${ids.dead}`);
await page.waitForSelector('h1 .badge.ok');
ok((await page.textContent('h1')).includes('completed'), 'and is completed');

/* ---------------------------------------------------------------- all by filter, with a preview; edited payload; discard */
await visit(page, 'dead');
await page.click('text=Retry all');
ok(await page.waitForSelector('.toast.bad').then(() => true), 'all of every queue at once is not offered');
await visit(page, 'dead?queue=mail');
const before = Number(sql("SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'mail'"));
await page.click('text=Retry all');
await page.waitForSelector('dialog[open]');
ok((await page.textContent('dialog')).includes(`${before} dead letter`), 'the preview says how many');
await page.click('dialog button[type=submit]');
await page.waitForSelector('dialog', { state: 'detached' });
await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 0, null, { timeout: 10000 });
ok(sql("SELECT count(*) FROM event_queue.dead_letters WHERE queue = 'mail'") === '0', 'all are retried');
const [edited, discarded] = sql("SELECT string_agg(job_id::text, ',' ORDER BY job_id) FROM (SELECT job_id FROM event_queue.dead_letters WHERE queue = 'invoices' LIMIT 2) x").split(',');
await visit(page, `job/${edited}`);
await page.click('text=Retry with edited payload');
await page.fill('dialog textarea', '{"no": ');
await page.click('dialog button[type=submit]');
await page.waitForFunction(() => document.querySelector('dialog .error')?.textContent !== '');
ok(/not JSON/.test(await page.textContent('dialog .error')), 'what is not JSON is not sent');
await page.fill('dialog textarea', '{"no": 12345678901234567890}');
await page.click('dialog button[type=submit]');
await page.waitForSelector('dialog', { state: 'detached' });
ok(sql(`SELECT payload ->> 'no' FROM event_queue.all_jobs WHERE job_id = ${edited}`) === '12345678901234567890', 'an edited payload keeps all digits');
await visit(page, `job/${discarded}`);
await page.click('button.danger');
await page.waitForSelector('dialog[open]');
ok(sql(`SELECT count(*) FROM event_queue.dead_letter WHERE job_id = ${discarded}`) === '1', 'Discard asks first');
await page.click('dialog button[type=submit]');
await page.waitForFunction(() => location.hash === '#/dead');
ok(sql(`SELECT count(*) FROM event_queue.dead_letter WHERE job_id = ${discarded}`) === '0', 'then it is gone');

/* ---------------------------------------------------------------- an alert is acknowledged */
await visit(page, 'alerts');
const alert = 'tr[data-key="deep-imports:imports"]';
await page.waitForSelector(`${alert} button`, { timeout: 15000 });
await page.click(`${alert} button`);
await page.fill('dialog input', 'on it');
await page.click('dialog button[type=submit]');
await page.waitForSelector(`${alert} .badge.info`);
ok((await page.textContent(alert)).includes('on it') && sql("SELECT acked_by FROM event_queue.alerts WHERE name = 'deep-imports'") === 'ana', 'an alert is acknowledged, by who is signed in');
ok(Number(sql("SELECT count(*) FROM event_queue.audit_log WHERE session_role = 'ana' AND application_name = 'eventq serve ana'")) >= 3, 'what was done is in the audit log');

/* ---------------------------------------------------------------- an aggregate, the keyboard, languages, themes */
await visit(page, 'aggregate/lead/L-1');
await page.waitForSelector('.diff tbody tr');
ok((await page.textContent('.diff')).includes('lead.won'), 'the difference between two versions');
await page.evaluate(() => { const r = document.querySelector('input[type=range]'); r.value = 1; r.dispatchEvent(new Event('input')); });
await page.waitForFunction(() => /"last": "lead.created"/.test(document.querySelector('pre')?.textContent ?? ''));
ok(true, 'the state at another version');
await visit(page, 'queues');
await page.waitForSelector('tbody tr');
await page.keyboard.press('j');
await page.keyboard.press('j');
const second = await page.evaluate(() => [...document.querySelectorAll('tbody tr')].findIndex((r) => r.contains(document.activeElement)));
await page.keyboard.press('k');
const first = await page.evaluate(() => [...document.querySelectorAll('tbody tr')].findIndex((r) => r.contains(document.activeElement)));
ok(second === 1 && first === 0, 'j and k go through the rows', `${second} ${first}`);
await page.waitForTimeout(3500);
ok(await page.evaluate(() => document.activeElement.closest('tr') !== null), 'a refresh does not take the focus');
await page.keyboard.press('/');
ok(await page.evaluate(() => document.activeElement.type === 'search'), '/ goes to the search');
await page.keyboard.press('Escape');
await page.keyboard.press('?');
ok(await page.waitForSelector('dialog[open]').then(() => true), '? shows the keys');
await page.keyboard.press('Escape');
await page.waitForSelector('dialog', { state: 'detached' });
await page.keyboard.press('g');
await page.keyboard.press('d');
await page.waitForFunction(() => location.hash === '#/dead');
ok(true, 'g d goes to the dead letters');
await page.selectOption('select.language', 'pt-BR');
await page.waitForFunction(() => document.documentElement.lang === 'pt-BR');
ok((await page.textContent('h1')).includes('Jobs mortos'), 'Portuguese');
// What the database tells is in Portuguese, too; names, errors and SQL stay, and no text is made HTML or calls itself for ever.
const untold = await page.evaluate(async (texts) => {
	const { tell } = await import('/lib/i18n.js');
	return texts.map(([text, told]) => [tell(text), told]).filter(([a, b]) => a !== b).map((x) => x.join(' <> '));
}, [
	['8 jobs, 2 dead, oldest ready 00:01:53.9, paused, all attempts of bad, "b b" fail, nobody works on it', '8 jobs, 2 mortos, o mais antigo está pronto há 00:01:53.9, pausada, todas as tentativas de bad, "b b" falham, ninguém trabalha nela'],
	['8 jobs, 0 dead, oldest ready none, all attempts fail', '8 jobs, 0 mortos, nenhum pronto, todas as tentativas falham'],
	['session 5 waits for AccessExclusiveLock on job (application "a b", role r), behind session 6 (application c, role r), and 3 behind it',
		'a sessão 5 espera por AccessExclusiveLock em job (aplicação "a b", usuário r); quem a impede é a sessão 6 (aplicação c, usuário r), e mais 3 esperam atrás dela'],
	['session 5', 'a sessão 5'],
	['has been due for 00:01:11, its row is held by session 5', 'deveria ter rodado há 00:01:11, sua linha está com a sessão 5'],
	['oldest open for 00:02:00, the watermark is held by session 12 (application x, role y)', 'a mais antiga está aberta há 00:02:00, quem segura a marca d\'água é a sessão 12 (aplicação x, usuário y)'],
	['2 of 2 running, 1 busy, no sign of life of 1 for 00:00:09, 2 for 00:00:10', '2 de 2 em execução, 1 ocupados, sem sinal de vida de 1 há 00:00:09, 2 há 00:00:10'],
	['division by zero (22012), 3 times since 2026-11-27 17:59:41+00', 'division by zero (22012), 3 vezes desde 2026-11-27 17:59:41+00'],
	['after failure 1: ready, <b>running</b>', 'após a falha 1: ready, <b>running</b>'],
	['attempts, died at 2026-11-27 17:44:40+00: boom: x', 'sem mais tentativas, morreu em 2026-11-27 17:44:40+00: boom: x'],
	['no format of ours', null],
	['', ''],
]);
ok(untold.length === 0, 'told in Portuguese', untold.join('\n#   '));
for (const where of ['overview', 'alerts', `job/${sql("SELECT max(job_id) FROM event_queue.dead_letter")}`]) {
	await visit(page, where);
	await page.waitForFunction(() => document.querySelector('.problems li, tbody tr, .empty'));
	const english = await page.evaluate(() => [...document.querySelectorAll('.page [lang=en]')].filter((e) => !e.closest('code')).map((e) => e.textContent));
	ok(english.length === 0, `nothing is told in English: ${where.replace(/\d+/, 'ID')}`, english.join('\n#   '));
}
await page.selectOption('select.language', 'en');

/* ---------------------------------------------------------------- no barrier on any page */
async function barriers(target, name) {
	if (!await target.evaluate(() => !!window.axe)) {
		// as the browser's own tools do, not as the page: its policy stays
		await target.evaluate(axe).catch(() => {});
	}
	const found = await target.evaluate(async () => (await window.axe.run(document, { resultTypes: ['violations'] })).violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target.join(' ') + ' ' + (n.any[0]?.message ?? '')).join('; ')}`));
	ok(found.length === 0, `axe-core: ${name}`, found.join('\n#   '));
}
for (const theme of ['light', 'dark']) {
	await page.evaluate((to) => { document.documentElement.dataset.theme = to; localStorage.setItem('eventq.theme', to); }, theme);
	for (const one of PAGES(ids)) {
		await visit(page, one);
		await page.waitForTimeout(200);
		await barriers(page, `${one}, ${theme}`);
	}
}
await visit(page, 'queue/mail');
await page.click('text=Drain');
await page.waitForSelector('dialog[open]');
await barriers(page, 'a dialog');
await page.keyboard.press('Escape');
const out = await open();
await out.goto(base);
await out.waitForSelector('input[name=user]');
await barriers(out, 'sign-in');

/* ---------------------------------------------------------------- a phone */
const phone = await open({ viewport: { width: 390, height: 800 }, isMobile: true, hasTouch: true });
await signIn(phone, 'ana', 'ana-pw');
for (const one of ['overview', 'queues', 'jobs', 'dead', 'queue/mail', 'events', 'rules', 'schedules', 'aggregate/lead/L-1']) {
	await visit(phone, one);
	const width = await phone.evaluate(() => document.documentElement.scrollWidth);
	ok(width <= 390, `no sideways scrolling on a phone: ${one}`, `${width}`);
}
await phone.click('button.menu');
ok(await phone.isVisible('nav a[href="#/dead"]'), 'the menu opens');
await barriers(phone, 'a phone');

/* ---------------------------------------------------------------- two tabs of one browser */
const tab = await open();
await signIn(tab, 'ana', 'ana-pw');
const other = await tab.context().newPage();
await other.goto(base);
await other.waitForSelector('.who');
await visit(tab, 'queue/mail');
await tab.click('text=Drain');
await tab.waitForSelector('dialog[open]');
await other.click('button[aria-label="Sign out"]');
await tab.waitForSelector('input[name=user]');
ok(await tab.locator('dialog[open]').count() === 0, 'signed out in another tab: no dialog stays');
await signIn(other, 'bob', 'bob-pw');
await tab.waitForFunction(() => document.querySelector('.who')?.textContent === 'bob');
await tab.waitForFunction(() => document.querySelector('.page') && !document.querySelector('.page[aria-busy]'));
await tab.locator('text=Drain').first().waitFor({ state: 'detached' });
ok(true, 'signed in there as another role: it is shown, and what it may do');
await other.click('button[aria-label="Sign out"]');
await other.waitForSelector('input[name=user]');
await signIn(other, 'ana', 'ana-pw');
await tab.waitForFunction(() => document.querySelector('.who')?.textContent === 'ana');
await visit(tab, 'alerts');
await visit(tab, 'queue/mail');
await tab.click('button:has(span:text-is("Pause"))');
await tab.waitForSelector('button:has(span:text-is("Resume"))');
ok(sql("SELECT paused FROM event_queue.queue WHERE name = 'mail'") === 't', 'it acts with the token of that session');
sql("SELECT event_queue.resume_queue('mail')");
await tab.context().close();

/* ---------------------------------------------------------------- who may only look */
const bob = await open();
await signIn(bob, 'bob', 'bob-pw');
await visit(bob, 'dead');
ok(await bob.locator('text=Retry all').count() === 0, 'an observer is shown no actions');
await visit(bob, `job/${edited}`);
ok((await bob.textContent('.page')).includes('Hidden'), 'and no payloads');
const refused = await bob.evaluate(async (id) => {
	const { csrf } = await (await fetch('api/session')).json();
	return (await fetch(`api/jobs/${id}/cancel`, { method: 'POST', headers: { 'X-CSRF-Token': csrf }, body: '{}' })).status;
}, ids.flow);
ok(refused === 403, 'the API refuses what the page does not show', String(refused));
await bob.click('button[aria-label="Sign out"]');
await bob.waitForSelector('input[name=user]');
ok(true, 'sign out');

const errors = [...page.errors, ...phone.errors, ...bob.errors, ...out.errors].filter((e) => !/axe/.test(e));
ok(errors.length === 0, 'no error of a script, nothing against the policy', errors.join('\n#   '));
await browser.close();
finish();
