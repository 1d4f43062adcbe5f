// lib.js: Chromium, the page, and what tests of it share.
import { chromium } from 'playwright-core';

export const base = process.env.EQ_URL;
export const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(Boolean);
export const launch = () => chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });

let passed = 0;
let failed = 0;
export function ok(what, name, detail = '') {
	if (what) passed++;
	else failed++;
	console.log(`${what ? 'ok' : 'not ok'} - ${name}${what || !detail ? '' : `\n#   ${detail}`}`);
}
export function finish() {
	console.log(`${passed} passed, ${failed} failed`);
	process.exitCode = failed || !passed ? 1 : 0;
}

export async function signIn(page, user, password) {
	await page.goto(base);
	await page.fill('input[name=user]', user);
	await page.fill('input[name=password]', password);
	await page.click('button[type=submit]');
	await page.waitForSelector('.frame');
}

// Goes to a page and waits until it has its rows.
export async function visit(page, hash) {
	await page.evaluate((to) => { location.hash = to; }, `#/${hash}`);
	await page.waitForFunction((to) => location.hash === to && document.querySelector('.page') && !document.querySelector('.page[aria-busy]'), `#/${hash}`);
	await page.waitForTimeout(150);
}

// All pages that there are, with something on them.
export const PAGES = (ids) => ['overview', 'queues', 'queue/mail', 'jobs', 'jobs?state=completed', 'dead', `job/${ids.dead}`, 'events', `event/${ids.event}`, 'aggregate/lead/L-1',
	'rules', 'rule/welcome-mail', 'schedules', 'flows', `flow/${ids.flow}`, 'subscriptions', 'workers', 'tenants', 'slo', 'alerts', 'audit'];
