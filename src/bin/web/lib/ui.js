// ui.js: what pages are made of: tables, states, times, dialogs, notes.
import { h, s, replace, icon, uid } from './dom.js';
import { t, has, tell, relative, exact } from './i18n.js';
import { mayAct } from './api.js';

export function say(text) {
	document.getElementById('live').textContent = text;
}

export function toast(text, kind = 'ok') {
	const box = h('div', { class: `toast ${kind}` }, icon(kind), h('span', {}, text));
	document.getElementById('toasts').append(box);
	say(text);
	setTimeout(() => box.remove(), 6000);
}

export const explain = (error) => (error.message === 'offline' ? t('offline')
	: error.status === 403 && error.sqlstate ? t('forbidden', { why: error.message })
		: error.status === 504 ? t('tooSlow') : error.message);

export function failure(error) {
	return h('div', { class: 'failure' }, icon('warn'), h('div', {}, h('strong', {}, explain(error)),
		error.hint ? h('p', {}, error.hint) : null, error.sqlstate ? h('p', { class: 'muted' }, `SQLSTATE ${error.sqlstate}`) : null));
}

// time: relative, kept right by a clock; the exact time as its title
const times = new Set();
setInterval(() => {
	for (const element of times) {
		if (!element.isConnected && element.seen) times.delete(element);
		else if (element.isConnected) {
			element.seen = true;
			const text = relative(element.at);
			if (element.textContent !== text) element.textContent = text;
		}
	}
}, 1000);

export function time(value) {
	if (!value) return h('span', { class: 'muted' }, '–');
	if (value === 'infinity') return h('span', {}, t('forever'));
	const at = new Date(value);
	const element = h('time', { datetime: value, title: exact(at) }, relative(at));
	element.at = at;
	times.add(element);
	return element;
}

const STATE_KIND = {
	ready: 'info', leased: 'run', scheduled: 'calm', retrying: 'warn', blocked: 'calm', paused: 'warn', stalled: 'bad',
	dead: 'bad', completed: 'ok', done: 'ok', healthy: 'ok', degraded: 'warn', unhealthy: 'bad', waiting: 'info', schedule: 'calm',
	draining: 'warn', on: 'ok', off: 'calm', firing: 'bad', resolved: 'ok', acknowledged: 'info', snoozed: 'calm', raised: 'bad',
	'not kept': 'calm', failed: 'bad',
};
const KIND_SIGN = { ok: '✓', warn: '▲', bad: '✕', info: '●', run: '▶', calm: '○' };

// badge: a state: a sign, a word, and only then a colour
export function badge(state) {
	const kind = STATE_KIND[state] ?? 'info';
	return h('span', { class: `badge ${kind}` }, h('span', { 'aria-hidden': 'true' }, KIND_SIGN[kind]), ' ',
		has(`state.${state}`) ? t(`state.${state}`) : (state ?? '–'));
}

export const link = (href, ...text) => h('a', { href }, ...text);
export const jobLink = (id) => link(`#/job/${id}`, id);
export const queueLink = (name) => link(`#/queue/${encodeURIComponent(name)}`, name);
export const code = (text) => h('code', {}, text);

// told: what the database tells; what is there in English only says so to screen readers.
// An alert that is about several lines of health() joins them.
export function told(text) {
	if (text === null || text === undefined) return null;
	const whole = tell(text);
	if (whole !== null) return whole;
	const parts = text.split('; ').map((part) => [part, tell(part)]);
	if (parts.every(([, translated]) => translated === null)) return h('span', { lang: 'en' }, text);
	return parts.map(([part, translated], i) => [i ? '; ' : '', translated ?? h('span', { lang: 'en' }, part)]).flat();
}

// pre: long text that can be scrolled by keyboard
export function pre(text, label) {
	return h('pre', { tabindex: '0', role: 'group', 'aria-label': label }, text ?? '');
}
export const hidden = () => h('p', { class: 'muted' }, t('payloadHidden'));
export const empty = (text) => h('p', { class: 'empty' }, text ?? t('nothing'));

export function card(title, ...children) {
	const id = uid('card');
	return h('section', { class: 'card', 'aria-labelledby': id }, h('h2', { id }, title), ...children);
}
export function tile(label, value, extra, kind) {
	return h('div', { class: `tile ${kind ?? ''}` }, h('div', { class: 'label' }, label), h('div', { class: 'value' }, value), extra ?? null);
}
export function facts(pairs) {
	return h('dl', { class: 'facts' }, pairs.filter(([, v]) => v !== null && v !== undefined && v !== '')
		.map(([k, v]) => h('div', {}, h('dt', {}, k), h('dd', {}, v))));
}
export function button(text, onclick, options = {}) {
	return h('button', { type: 'button', class: options.class ?? '', onclick, 'aria-label': options.label, disabled: options.disabled ?? false },
		options.icon ? icon(options.icon) : null, text ? h('span', {}, text) : null);
}

const FOCUSABLE = 'a, button, input, summary, code[tabindex]';

/*
 * table: columns are {title, cell(row), class}; rows keep their elements as long as they
 * say the same, so that focus and selection outlive a refresh.
 */
export function table(caption, columns, keyOf) {
	const body = h('tbody', {});
	const element = h('div', { class: 'table', role: 'group', 'aria-label': caption, tabindex: '0' }, h('table', {},
		h('caption', { class: 'sr-only' }, caption),
		h('thead', {}, h('tr', {}, columns.map((c) => h('th', { scope: 'col', class: c.class }, c.title)))), body));
	const none = empty();
	none.hidden = true;
	element.append(none);
	let shown = new Map();
	element.update = (rows) => {
		const next = new Map();
		// where the focus is: which row, which of its links and buttons
		const held = body.contains(document.activeElement) ? document.activeElement.closest('tr') : null;
		const nth = held ? [...held.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement) : -1;
		rows.forEach((row, i) => {
			const key = `${keyOf ? keyOf(row) : i}`;
			const text = JSON.stringify(row);
			let line = shown.get(key);
			if (!line || line.text !== text) {
				const cells = columns.map((c, n) => (n === 0
					? h('th', { scope: 'row', class: c.class, 'data-label': c.title }, c.cell(row))
					: h('td', { class: c.class, 'data-label': c.title }, c.cell(row))));
				line = { text, tr: h('tr', { 'data-key': key }, cells) };
			}
			next.set(key, line);
		});
		let at = body.firstElementChild;
		for (const { tr } of next.values()) {
			if (tr === at) at = at.nextElementSibling;
			else body.insertBefore(tr, at);
		}
		while (at) {
			const gone = at;
			at = at.nextElementSibling;
			gone.remove();
		}
		shown = next;
		if (held && !held.isConnected && nth >= 0) next.get(held.dataset.key)?.tr.querySelectorAll(FOCUSABLE)[nth]?.focus({ preventScroll: true });
		none.hidden = rows.length > 0;
		element.firstChild.hidden = rows.length === 0;
	};
	return element;
}

/* list: a table that is read page by page; a refresh reads as many rows as are shown. */
export function list(caption, columns, keyOf, fetchPage) {
	const view = table(caption, columns, keyOf);
	const more = button(t('more'), async () => {
		more.disabled = true;
		pages += 1;
		await load().finally(() => { more.disabled = false; });
	}, { icon: 'more', class: 'quiet' });
	const note = h('p', { class: 'muted note' });
	const foot = h('div', { class: 'foot' }, more, note);
	const element = h('div', {}, view, foot);
	let pages = 1;
	let run = 0;
	more.hidden = true;
	async function load() {
		const mine = ++run;
		let rows = [];
		let after = null;
		let looked = 0;
		for (let page = 0; page < pages; page++) {
			const answer = await fetchPage(after);
			rows = rows.concat(answer.items);
			looked += answer.looked ?? 0;
			after = answer.next;
			if (!after) break;
		}
		if (mine !== run) return rows;
		view.update(rows);
		more.hidden = !after;
		note.textContent = looked > rows.length + 1 ? t('looked', { n: looked }) : '';
		return rows;
	}
	element.load = load;
	element.reset = () => { pages = 1; return load(); };
	return element;
}

// dialog: resolves to true, or to what read() gives; false: cancelled
export function dialog({ title, body, yes, danger, read, check }) {
	return new Promise((resolve) => {
		const id = uid('dialog');
		const error = h('p', { class: 'error', role: 'alert' });
		const confirm = h('button', { type: 'submit', class: danger ? 'danger' : 'primary' }, yes ?? t('ok'));
		const box = h('dialog', { 'aria-labelledby': id }, h('form', { method: 'dialog', onsubmit: async (event) => {
			event.preventDefault();
			confirm.disabled = true;
			try {
				if (check) await check();
				const value = read ? read() : true;
				box.close();
				resolve(value);
			} catch (e) {
				error.textContent = explain(e);
			} finally {
				confirm.disabled = false;
			}
		} }, h('h2', { id }, title), ...[body].flat(), error,
		h('div', { class: 'buttons' }, yes === null ? null : confirm,
			button(yes === null ? t('close') : t('cancel'), () => { box.close(); resolve(false); }))));
		box.addEventListener('close', () => { box.remove(); resolve(false); });
		document.body.append(box);
		box.showModal();
	});
}

// act: a button for what changes something: asks first if it says so, tells how it ended
export function action(text, run, options = {}) {
	if (!mayAct()) return null;
	const b = button(text, async () => {
		if (options.ask && !await dialog({ title: text, body: h('p', {}, options.ask), yes: text, danger: options.danger })) return;
		b.disabled = true;
		try {
			const done = await run();
			if (done !== false) toast(typeof done === 'string' ? done : t('done', { what: text }));
			options.after?.();
		} catch (error) {
			toast(explain(error), 'bad');
		} finally {
			b.disabled = false;
		}
	}, { class: options.class ?? (options.danger ? 'danger' : ''), icon: options.icon, label: options.label });
	return b;
}

// field: a labelled input
export function field(label, input) {
	input.id ||= uid('field');
	return h('label', { class: 'field', for: input.id }, h('span', {}, label), input);
}
export function select(options, value, onchange) {
	return h('select', { onchange }, options.map(([v, text]) => h('option', { value: v, selected: v === value }, text)));
}

export { h, s, replace, icon };
