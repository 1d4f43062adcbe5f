// events.js: the last events, an event, and an aggregate at any version.
import { h, replace, card, list, table, link, facts, field, time, pre, hidden, badge, failure, empty, toast, explain } from '../lib/ui.js';
import { t, number } from '../lib/i18n.js';
import { get, seg, session } from '../lib/api.js';
import { trace } from '../lib/trace.js';

const aggregateLink = (e) => link(`#/aggregate/${seg(e.aggregate_type)}/${seg(e.aggregate_id)}${e.tenant_id === 'default' ? '' : `?tenant=${seg(e.tenant_id)}`}`, `${e.aggregate_type} ${e.aggregate_id}`);
const eventColumns = () => [
	{ title: t('event'), cell: (e) => link(`#/event/${seg(e.id)}`, e.event_type) }, { title: t('position'), class: 'num', cell: (e) => e.position },
	{ title: t('aggregate'), cell: (e) => [aggregateLink(e), h('span', { class: 'muted' }, ` v${e.version}`)] }, { title: t('at'), class: 'nowrap', cell: (e) => time(e.created_at) },
	{ title: t('actor'), cell: (e) => e.actor ?? '' }, { title: t('tenant'), cell: (e) => e.tenant_id },
	{ title: t('data'), class: 'wide', cell: (e) => (e.data_text ? h('code', { class: 'payload' }, e.data_text) : '') }];

export function events(page) {
	page.title(t('page.events'));
	const inputs = Object.fromEntries(['search', 'type', 'aggregate', 'tenant'].map((one) => [one, h('input', { type: one === 'search' ? 'search' : 'text', value: page.query[one] ?? '', autocomplete: 'off', spellcheck: 'false' })]));
	const filter = () => Object.fromEntries(Object.entries(inputs).map(([k, v]) => [k, v.value.trim()]));
	const view = list(t('page.events'), eventColumns(), (e) => e.position, (after) => get('api/events', { ...filter(), after }));
	let wait;
	for (const one of Object.values(inputs)) one.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(() => { page.keep(filter()); view.reset().catch((error) => toast(explain(error), 'bad')); }, 300); });
	page.body.append(h('div', { class: 'filters' }, field(t('search'), inputs.search), field(t('eventType'), inputs.type), field(t('aggregateType'), inputs.aggregate), field(t('tenant'), inputs.tenant)), card(t('page.events'), view));
	page.load = view.load;
}

export function event(page) {
	const [id] = page.parts;
	page.title(t('event'));
	const about = h('div', {});
	const data = h('div', {});
	const causes = h('div', {});
	page.body.append(h('div', { class: 'columns' }, card(t('about'), about), card(t('data'), data)), card(t('trace'), causes));
	let shown = false;
	page.load = async () => {
		const e = await get(`api/events/${seg(id)}`);
		if (!shown) {
			page.title(e.event_type);
			replace(about, facts([[t('aggregate'), aggregateLink(e)], [t('version'), number(e.version)], [t('position'), e.position], [t('at'), time(e.created_at)], [t('tenant'), e.tenant_id], [t('id'), h('code', {}, e.id)],
				...Object.entries(e.metadata ?? {}).filter(([, v]) => typeof v !== 'object').map(([k, v]) => [k, k === 'job_id' ? link(`#/job/${v}`, v) : k === 'causation_id' ? link(`#/event/${v}`, v) : String(v)])]));
			replace(data, session.payloads ? pre(e.data_text, t('data')) : hidden());
			shown = true;
		}
		const found = await get(`api/trace/${seg(id)}`, { tenant: e.tenant_id }).catch((error) => ({ error }));
		const text = JSON.stringify(found.items ?? found.error?.message);
		if (causes.dataset.text !== text) {
			causes.dataset.text = text;
			replace(causes, found.error ? failure(found.error) : trace(found.items, id));
		}
	};
}

export function aggregate(page) {
	const [type, id] = page.parts;
	const tenant = page.query.tenant;
	const path = `api/aggregates/${seg(type)}/${seg(id)}`;
	page.title(`${type} ${id}`);
	const version = h('input', { type: 'range', min: 1, max: 1, value: 1, step: 1 });
	const from = h('input', { type: 'number', min: 0, value: '0' });
	const to = h('input', { type: 'number', min: 1, value: '1' });
	const state = h('div', {});
	const diff = h('div', { class: 'diff' });
	const which = h('output', {}, '');
	const changes = table(t('differences'), [{ title: t('path'), cell: (d) => h('code', {}, (d.path ?? []).join(' › ') || '·') },
		{ title: t('before'), class: 'wide', cell: (d) => (d.old_value === null ? '' : h('code', { class: 'old' }, `− ${d.old_value}`)) },
		{ title: t('after'), class: 'wide', cell: (d) => (d.new_value === null ? '' : h('code', { class: 'new' }, `+ ${d.new_value}`)) }], (d) => (d.path ?? []).join('/'));
	const view = list(t('page.events'), eventColumns(), (e) => e.position, (after) => get(path, { tenant, after }));
	const activity = table(t('activity'), [{ title: t('at'), class: 'nowrap', cell: (a) => time(a.at) }, { title: t('kind'), cell: (a) => t(`kind.${a.kind}`) }, { title: t('what'), cell: (a) => (a.kind === 'job' ? link(`#/job/${a.id}`, a.what) : link(`#/event/${seg(a.id)}`, a.what)) },
		{ title: t('who'), cell: (a) => a.who ?? '' }, { title: t('stateWord'), cell: (a) => (a.state ? badge(a.state) : '') }, { title: t('lastError'), class: 'wide', cell: (a) => a.last_error ?? '' }], (a) => `${a.kind} ${a.id}`);
	replace(diff, changes);
	let newest = 0;
	let run = 0;
	async function showState() {
		const mine = ++run;
		which.textContent = t('versionOf', { n: number(version.value), max: number(newest) });
		if (!session.payloads) return replace(state, hidden());
		try {
			const answer = await get(`${path}/state`, { version: version.value, tenant });
			if (mine === run) replace(state, answer.state_text === null ? empty() : pre(answer.state_text, t('stateAt')));
		} catch (error) {
			if (mine === run) replace(state, failure(error));
		}
		return null;
	}
	async function showDiff() {
		if (!session.payloads) return replace(diff, hidden());
		try {
			changes.update((await get(`${path}/diff`, { from: from.value, to: to.value, tenant })).items);
			replace(diff, changes);
		} catch (error) {
			replace(diff, failure(error));
		}
		return null;
	}
	version.addEventListener('input', showState);
	for (const one of [from, to]) one.addEventListener('change', showDiff);
	page.body.append(h('div', { class: 'columns' }, card(t('stateAt'), field(t('version'), version), h('p', { class: 'muted' }, which), state),
		card(t('differences'), h('div', { class: 'filters' }, field(t('fromVersion'), from), field(t('toVersion'), to)), diff)), card(t('page.events'), view), card(t('activity'), activity));
	page.load = async () => {
		const rows = await view.load();
		if (!rows.length) return replace(state, empty());
		if (rows[0].version !== newest) {
			const follow = Number(version.value) === newest || newest === 0;
			newest = rows[0].version;
			version.max = newest;
			from.max = to.max = newest;
			if (follow) {
				version.value = newest;
				to.value = newest;
				from.value = Math.max(0, newest - 1);
				showDiff();
			}
			showState();
		}
		const done = await get(`${path}/activity`, { tenant, limit: 30 }).catch(() => null);
		if (done) activity.update(done.items);
		return null;
	};
}
