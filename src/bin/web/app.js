// app.js: sign-in, the frame around all pages, the way from one to another, the keyboard.
import { h, replace, icon, button, dialog, failure, field, say, explain } from './lib/ui.js';
import { t, language, setLanguage, LANGUAGES } from './lib/i18n.js';
import { get, resume, session, signIn, signOut, mayAct } from './lib/api.js';
import overview from './pages/overview.js';
import { queues, queue } from './pages/queues.js';
import { jobs, job } from './pages/jobs.js';
import dead from './pages/dead.js';
import { events, aggregate, event } from './pages/events.js';
import { rules, rule, schedules, flows, flow, subscriptions, workers, tenants } from './pages/others.js';
import { slo, alerts, audit } from './pages/alerts.js';

// hash, page, icon, key
const PAGES = [
	['overview', overview, 'o'], ['queues', queues, 'q'], ['jobs', jobs, 'b'], ['dead', dead, 'd'], ['events', events, 'e'],
	['rules', rules, 'u'], ['schedules', schedules, 'c'], ['flows', flows, 'f'], ['subscriptions', subscriptions, 's'],
	['workers', workers, 'w'], ['tenants', tenants, 'n'], ['slo', slo, 'l'], ['alerts', alerts, 'a'], ['audit', audit, 'i'],
];
const DETAILS = { queue: [queue, 'queues'], job: [job, 'jobs'], event: [event, 'events'], aggregate: [aggregate, 'events'], rule: [rule, 'rules'], flow: [flow, 'flows'] };
const REFRESH = 3000;

const app = document.getElementById('app');
let frame = null;
let current = null; // the page that is shown
let live = localStorage.getItem('eventq.live') !== 'off';

// Tabs share the cookie: one that signs in as another role has all others show that role, and
// have its token; what was being asked in a dialog was another one's to answer.
const tabs = new BroadcastChannel('eventq');
tabs.onmessage = () => {
	for (const open of document.querySelectorAll('dialog[open]')) open.close();
	resume().then(showFrame, () => { session.csrf = null; showSignIn(t('signedOut')); });
};

/* ---------------------------------------------------------------- theme, language */

function theme(to) {
	if (to) localStorage.setItem('eventq.theme', to);
	const chosen = localStorage.getItem('eventq.theme');
	if (chosen) document.documentElement.dataset.theme = chosen;
	const dark = chosen ? chosen === 'dark' : window.matchMedia('(prefers-color-scheme: dark)').matches;
	return dark ? 'dark' : 'light';
}

function languagePicker(again) {
	return h('select', { 'aria-label': t('language'), class: 'language', onchange: (e) => { setLanguage(e.target.value); again(); } },
		Object.entries(LANGUAGES).map(([key, [name]]) => h('option', { value: key, selected: key === language, lang: key }, name)));
}

/* ---------------------------------------------------------------- signing in */

async function showSignIn(message) {
	current?.leave();
	current = null;
	frame = null;
	const server = await get('api/server').catch(() => ({}));
	const user = h('input', { name: 'user', autocomplete: 'username', required: true, autocapitalize: 'none', spellcheck: 'false' });
	const password = h('input', { name: 'password', type: 'password', autocomplete: 'current-password', required: true });
	const token = h('input', { name: 'token', type: 'password', autocomplete: 'off', required: true });
	const error = h('p', { class: 'error', role: 'alert' }, message ?? '');
	const go = h('button', { type: 'submit', class: 'primary' }, t('signIn'));
	const submit = (fields) => async (e) => {
		e.preventDefault();
		go.disabled = true;
		error.textContent = '';
		try {
			await signIn(fields());
			tabs.postMessage('signed in');
			showFrame();
		} catch (problem) {
			error.textContent = problem.status === 401 ? t('refused') : explain(problem);
			password.value = '';
			(user.value ? password : user).focus();
		} finally {
			go.disabled = false;
		}
	};
	replace(app, h('main', { id: 'main', class: 'sign-in', tabindex: '-1' }, h('div', { class: 'card' },
		h('div', { class: 'brand big' }, h('img', { src: 'icon.svg', alt: '', width: 40, height: 40 }), h('h1', {}, 'event_queue')),
		h('p', { class: 'muted' }, t('signInText')),
		h('form', { onsubmit: submit(() => ({ user: user.value, password: password.value })) }, field(t('role'), user), field(t('password'), password), error, go),
		server.tokens ? h('details', {}, h('summary', {}, t('byToken')),
			h('form', { onsubmit: submit(() => ({ token: token.value })) }, field(t('token'), token), h('button', { type: 'submit' }, t('signIn')))) : null,
		languagePicker(() => showSignIn()))));
	document.title = `${t('signIn')} · event_queue`;
	user.focus();
}

/* ---------------------------------------------------------------- the frame */

function showFrame() {
	const about = session.about;
	const nav = h('ul', {}, PAGES.map(([name]) => h('li', {}, h('a', { href: `#/${name}`, 'data-page': name }, icon(name), h('span', {}, t(`page.${name}`))))));
	const liveButton = h('button', { type: 'button', class: 'quiet live', 'aria-label': t('live'), 'aria-pressed': String(live), onclick: () => toggleLive() }, icon('live'), h('span', {}, t('live')));
	const main = h('main', { id: 'main', tabindex: '-1' });
	const menu = button(t('menu'), () => {
		const open = frame.root.classList.toggle('open');
		menu.setAttribute('aria-expanded', String(open));
	}, { class: 'quiet menu', icon: 'queues' });
	menu.setAttribute('aria-expanded', 'false');
	frame = {
		main, liveButton,
		root: h('div', { class: 'frame' },
			h('header', {}, h('a', { class: 'brand', href: '#/overview' }, h('img', { src: 'icon.svg', alt: '', width: 26, height: 26 }), h('span', {}, 'event_queue')),
				h('span', { class: 'where muted', title: t('server', { v: about.server }) }, about.database, about.tenant ? ` · ${about.tenant}` : ''),
				about.standby ? h('span', { class: 'badge warn' }, t('standby')) : null,
				mayAct() ? null : h('span', { class: 'badge calm' }, t('readOnly')),
				h('span', { class: 'space' }),
				h('form', { role: 'search', class: 'find', onsubmit: (e) => { e.preventDefault(); find(e.target.elements.q.value.trim()); } },
					icon('search'), h('input', { name: 'q', type: 'search', 'aria-label': t('find'), placeholder: t('find'), autocomplete: 'off' })),
				liveButton,
				button('', () => { theme(theme() === 'dark' ? 'light' : 'dark'); go(); }, { class: 'quiet', icon: 'sun', label: t('theme') }),
				button('', help, { class: 'quiet keys', icon: 'keys', label: t('keys') }),
				languagePicker(() => { showFrame(); }),
				h('span', { class: 'who' }, about.user),
				button('', async () => { await signOut(); tabs.postMessage('signed out'); showSignIn(); }, { class: 'quiet', icon: 'out', label: t('signOut') }), menu),
			h('nav', { 'aria-label': t('pages') }, nav), main),
	};
	replace(app, frame.root);
	document.getElementById('skip').textContent = t('skip');
	if (!location.hash.startsWith('#/')) location.replace('#/overview');
	go();
}

function find(text) {
	if (!text) return;
	if (/^\d+$/.test(text)) location.hash = `#/job/${text}`;
	else if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(text)) location.hash = `#/event/${text}`;
	else location.hash = `#/queues?search=${encodeURIComponent(text)}`;
}

function toggleLive() {
	live = !live;
	localStorage.setItem('eventq.live', live ? 'on' : 'off');
	frame.liveButton.setAttribute('aria-pressed', String(live));
	say(t(live ? 'liveOn' : 'liveOff'));
	if (live) current?.refresh();
}

/* ---------------------------------------------------------------- pages */

// What a page is given: its parameters, where it stands, and how it is refreshed.
function go() {
	if (!frame) return;
	current?.leave();
	const [path, query] = location.hash.slice(2).split('?');
	const parts = path.split('/').map((p) => {
		try { return decodeURIComponent(p); } catch { return p; }
	});
	const detail = DETAILS[parts[0]];
	const entry = PAGES.find(([name]) => name === parts[0]);
	const make = detail?.[0] ?? entry?.[1];
	frame.root.classList.remove('open');
	for (const a of frame.root.querySelectorAll('nav a')) {
		if (a.dataset.page === (detail?.[1] ?? parts[0])) a.setAttribute('aria-current', 'page');
		else a.removeAttribute('aria-current');
	}
	const title = h('h1', { tabindex: '-1' });
	const tools = h('div', { class: 'tools' });
	const body = h('div', { class: 'page' });
	const trouble = h('div', {});
	replace(frame.main, h('div', { class: 'head' }, title, tools), trouble, body);
	if (!make) {
		title.textContent = t('notFound');
		return;
	}
	let timer = null;
	let gone = false;
	let busy = false;
	const page = {
		parts: parts.slice(1), query: Object.fromEntries(new URLSearchParams(query ?? '')), body, tools,
		title(text, ...more) {
			replace(title, text, ...more);
			document.title = `${text} · event_queue`;
		},
		// Changes what the address says without going anywhere.
		keep(values) {
			const next = new URLSearchParams(Object.entries({ ...page.query, ...values }).filter(([, v]) => v));
			page.query = Object.fromEntries(next);
			history.replaceState(null, '', `#/${path}${next.size ? `?${next}` : ''}`);
		},
		load: async () => {},
		every: REFRESH,
		async refresh() {
			if (busy || gone) return;
			busy = true;
			clearTimeout(timer);
			const began = performance.now();
			try {
				await page.load();
				if (!gone) replace(trouble);
			} catch (error) {
				if (!gone && error.status !== 401) replace(trouble, failure(error));
			} finally {
				busy = false;
				body.removeAttribute('aria-busy');
				// What the database needs long for is asked for less often.
				if (!gone) timer = setTimeout(tick, Math.max(page.every, 4 * (performance.now() - began)));
			}
		},
		leave() { gone = true; clearTimeout(timer); },
		go,
	};
	const tick = () => {
		if (live && !document.hidden) page.refresh();
		else timer = setTimeout(tick, page.every);
	};
	current = page;
	body.setAttribute('aria-busy', 'true');
	make(page);
	page.refresh();
	window.scrollTo(0, 0);
	title.focus({ preventScroll: true });
}

/* ---------------------------------------------------------------- keyboard */

function help() {
	const keys = [['/', 'keyFind'], ['j  k', 'keyRows'], ['Enter', 'keyOpen'], ['r', 'keyRefresh'], ['p', 'keyLive'], ['t', 'theme'], ['?', 'keys'],
		...PAGES.map(([name, , key]) => [`g ${key}`, `page.${name}`])];
	dialog({ title: t('keys'), yes: null, body: h('dl', { class: 'keys' }, keys.map(([key, text]) => h('div', {}, h('dt', {}, h('kbd', {}, key)), h('dd', {}, t(text))))) });
}

function moveRow(step) {
	const rows = [...frame.main.querySelectorAll('tbody tr')].filter((row) => row.querySelector('a, button'));
	if (!rows.length) return;
	const at = rows.findIndex((row) => row.contains(document.activeElement));
	const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + step))];
	next.querySelector('a, button').focus();
	next.scrollIntoView({ block: 'nearest' });
}

let leader = 0;
document.addEventListener('keydown', (e) => {
	if (!frame || e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]')) return;
	if (/^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName)) {
		if (e.key === 'Escape') e.target.blur();
		return;
	}
	if (leader && Date.now() - leader < 1500) {
		leader = 0;
		const to = PAGES.find(([, , key]) => key === e.key);
		if (to) location.hash = `#/${to[0]}`;
		return;
	}
	const of = {
		'/': () => (frame.main.querySelector('input[type=search]') ?? frame.root.querySelector('input[type=search]')).focus(),
		'?': help, j: () => moveRow(1), k: () => moveRow(-1), p: toggleLive, g: () => { leader = Date.now(); },
		r: () => { say(t('refreshed')); current?.refresh(); },
		t: () => { theme(theme() === 'dark' ? 'light' : 'dark'); go(); },
	}[e.key];
	if (of) {
		e.preventDefault();
		of();
	}
});

window.addEventListener('hashchange', go);
window.addEventListener('signed-out', () => { if (frame) { session.csrf = null; showSignIn(t('signedOut')); } });
document.addEventListener('visibilitychange', () => { if (!document.hidden && live) current?.refresh(); });

theme();
setLanguage(language);
resume().then(showFrame, () => showSignIn());
