// screenshots.js: pictures for the README, into EQ_PICTURES (doc/pictures).
import { mkdirSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { launch, signIn, visit } from './lib.js';

const out = process.env.EQ_PICTURES ?? '../../doc/pictures';
mkdirSync(out, { recursive: true });
const sql = (text) => execFileSync('psql', ['-XqAt', '-U', 'postgres', '-c', text], { encoding: 'utf8' }).trim();
const browser = await launch();

async function shoot(name, hash, { scheme = 'light', width = 1280, height = 860, wait = 1500, locale = 'en-US', before } = {}) {
	const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, locale, deviceScaleFactor: width < 500 ? 2 : 1, reducedMotion: 'reduce' });
	const page = await context.newPage();
	await signIn(page, 'ana', 'ana-pw');
	await visit(page, hash);
	await page.waitForTimeout(wait);
	if (before) await before(page);
	await page.screenshot({ path: `${out}/${name}.png` });
	await context.close();
	console.log(`${name}.png`);
}

const seconds = Number(process.env.EQ_SECONDS ?? 45) * 1000; // so that the charts have something to show
await shoot('overview', 'overview', { wait: seconds });
await shoot('queue', 'queue/mail', { scheme: 'dark', wait: seconds });
await shoot('job', `job/${sql("SELECT max(job_id) FROM event_queue.dead_letters WHERE queue = 'mail' AND metadata ? 'event_id'")}`, { height: 980 });
await shoot('dead', 'dead?queue=mail', { before: async (page) => { await page.click('text=Retry all'); await page.waitForSelector('dialog[open]'); await page.waitForTimeout(300); } });
await shoot('aggregate', 'aggregate/lead/L-1');
await shoot('flow', `flow/${sql('SELECT max(job_id) FROM event_queue.job_dependency')}`, { scheme: 'dark', height: 620 });
await shoot('phone', 'overview', { width: 390, height: 844, locale: 'pt-BR', wait: 4000 });
await browser.close();
