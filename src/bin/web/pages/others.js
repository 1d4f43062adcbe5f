// others.js: rules, schedules, flows, subscriptions, workers, tenants.
import { h, s, replace, card, list, table, badge, queueLink, jobLink, link, facts, field, time, pre, hidden, action, code, toast, explain } from '../lib/ui.js';
import { t, number, compact, duration, rate } from '../lib/i18n.js';
import { get, post, seg, session } from '../lib/api.js';
import { cronWords } from '../lib/cron.js';
import { percent } from './queues.js';

function searchable(page, title, columns, key, path) {
	page.title(title);
	const search = h('input', { type: 'search', value: page.query.search ?? '', autocomplete: 'off' });
	const view = list(title, columns, key, (after) => get(path, { search: search.value.trim(), after }));
	let wait;
	search.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(() => { page.keep({ search: search.value }); view.reset().catch((error) => toast(explain(error), 'bad')); }, 250); });
	page.body.append(h('div', { class: 'filters' }, field(t('search'), search)), card(title, view));
	page.load = view.load;
	return view;
}

const onOff = (page, path, enabled) => (enabled ? action(t('pause'), () => post(`${path}/pause`), { class: 'small', after: () => page.refresh() })
	: action(t('resume'), () => post(`${path}/resume`), { class: 'small', after: () => page.refresh() }));
const stateBadge = (r) => badge(!r.enabled ? 'paused' : r.state && r.state !== 'active' ? r.state : 'on');

/* ---------------------------------------------------------------- rules */

export function rules(page) {
	searchable(page, t('page.rules'), [
		{ title: t('rule'), cell: (r) => link(`#/rule/${seg(r.name)}`, r.name) }, { title: t('stateWord'), cell: stateBadge },
		{ title: t('pattern'), cell: (r) => code(r.event_pattern) }, { title: t('makes'), cell: (r) => (r.queue ? [queueLink(r.queue), ` ${r.job_name ?? ''}`] : r.function ? code(r.function) : '') },
		{ title: t('matched'), class: 'num', cell: (r) => compact(r.matched) }, { title: t('seen'), class: 'num', cell: (r) => compact(r.seen) }, { title: t('failed'), class: 'num', cell: (r) => compact(r.failed) },
		{ title: t('lastFired'), class: 'nowrap', cell: (r) => time(r.last_fired_at) }, { title: t('lastError'), class: 'wide', cell: (r) => r.last_error ?? '' },
		{ title: t('tenant'), cell: (r) => r.tenant_id ?? t('all') }, { title: t('actions'), cell: (r) => onOff(page, `api/rules/${seg(r.name)}`, r.enabled) ?? '' },
	], (r) => r.name, 'api/rules');
}

export function rule(page) {
	const [name] = page.parts;
	page.title(name);
	const about = h('div', {});
	const fired = table(t('lastFirings'), [
		{ title: t('at'), class: 'nowrap', cell: (a) => time(a.at) }, { title: t('event'), cell: (a) => link(`#/event/${seg(a.event_id)}`, a.event_type) },
		{ title: t('aggregate'), cell: (a) => link(`#/aggregate/${seg(a.aggregate_type)}/${seg(a.aggregate_id)}${a.tenant_id === 'default' ? '' : `?tenant=${seg(a.tenant_id)}`}`, `${a.aggregate_type} ${a.aggregate_id}`) },
		{ title: t('cameOf'), cell: (a) => (a.kind === 'job' ? [jobLink(a.id), ` ${a.name ?? ''}`] : a.kind ? link(`#/event/${seg(a.id)}`, a.name) : '') },
		{ title: t('stateWord'), cell: (a) => (a.state ? badge(a.state === 'done' ? 'completed' : a.state) : '') }, { title: t('lastError'), class: 'wide', cell: (a) => a.last_error ?? '' }],
	(a) => `${a.event_id} ${a.kind} ${a.id}`);
	page.body.append(card(t('about'), about), card(t('lastFirings'), fired));
	page.load = async () => {
		const [r, done] = await Promise.all([get(`api/rules/${seg(name)}`), get(`api/rules/${seg(name)}/activity`, { limit: 50 })]);
		const text = JSON.stringify(r);
		if (about.dataset.text !== text) {
			about.dataset.text = text;
			page.title(name, stateBadge(r));
			replace(page.tools, onOff(page, `api/rules/${seg(name)}`, r.enabled));
			replace(about, facts([[t('pattern'), code(r.event_pattern)], [t('condition'), r.condition ? code(r.condition) : null], [t('makes'), r.queue ? [queueLink(r.queue), ` ${r.job_name ?? ''}`] : code(r.function)],
				[t('delay'), r.delay_seconds ? duration(r.delay_seconds) : null], [t('priority'), r.priority], [t('owner'), r.owner], [t('tenant'), r.tenant_id ?? t('all')], [t('seen'), r.seen === undefined ? null : number(r.seen)], [t('matched'), r.matched === undefined ? null : number(r.matched)],
				[t('failed'), r.failed === undefined ? null : number(r.failed)], [t('behind'), r.lag_events === undefined ? null : number(r.lag_events)], [t('lastFired'), r.last_fired_at ? time(r.last_fired_at) : null], [t('lastError'), r.last_error], [t('since'), r.created_at ? time(r.created_at) : null]]),
			r.payload ? [h('h3', {}, t('payloadTemplate')), session.payloads ? pre(r.payload_text ?? JSON.stringify(r.payload, null, 2), t('payloadTemplate')) : hidden()] : null);
		}
		fired.update(done.items);
	};
}

/* ---------------------------------------------------------------- schedules */

export function schedules(page) {
	searchable(page, t('page.schedules'), [
		{ title: t('schedule'), cell: (r) => r.name }, { title: t('stateWord'), cell: stateBadge },
		{ title: t('when'), class: 'wide', cell: (r) => [cronWords(r.cron), h('br'), h('code', { class: 'muted' }, r.cron), h('span', { class: 'muted' }, ` ${r.time_zone}`)] },
		{ title: t('makes'), cell: (r) => [queueLink(r.queue), ` ${r.job_name}`] }, { title: t('nextRun'), class: 'nowrap', cell: (r) => (r.enabled ? time(r.next_run) : '–') },
		{ title: t('afterThat'), cell: (r) => (r.enabled && r.next_runs ? h('details', {}, h('summary', {}, t('nextRuns')), h('ol', {}, r.next_runs.map((x) => h('li', {}, time(x))))) : '') },
		{ title: t('lastRun'), class: 'nowrap', cell: (r) => time(r.last_run) }, { title: t('missed'), class: 'num', cell: (r) => compact(r.missed) }, { title: t('lastError'), class: 'wide', cell: (r) => r.last_error ?? '' },
		{ title: t('actions'), cell: (r) => onOff(page, `api/schedules/${seg(r.name)}`, r.enabled) ?? '' },
	], (r) => r.name, 'api/schedules');
}

/* ---------------------------------------------------------------- flows */

export function flows(page) {
	page.title(t('page.flows'));
	const view = list(t('page.flows'), [
		{ title: t('flow1'), cell: (f) => link(`#/flow/${f.job_id}`, f.job_id) }, { title: t('name'), cell: (f) => f.name ?? '' }, { title: t('queue'), cell: (f) => (f.queue ? queueLink(f.queue) : '') },
		{ title: t('stateWord'), cell: (f) => (f.state ? badge(f.state) : '') },
		{ title: t('partsDone'), cell: (f) => [h('progress', { max: f.waits_for, value: f.finished, 'aria-label': t('partsDone') }), h('span', { class: 'muted' }, t('ofMax', { n: number(f.finished), max: number(f.waits_for) }))] },
	], (f) => f.job_id, (after) => get('api/flows', { after }));
	page.body.append(h('p', { class: 'muted' }, t('flowsText')), card(t('page.flows'), view));
	page.load = view.load;
}

export function flow(page) {
	const [id] = page.parts;
	page.title(t('flowTitle', { id }));
	const tree = h('div', {});
	page.body.append(card(t('flowTree'), tree));
	page.load = async () => {
		const { nodes } = await get(`api/flows/${seg(id)}`);
		const text = JSON.stringify(nodes);
		if (tree.dataset.text === text) return;
		tree.dataset.text = text;
		const under = new Map();
		for (const n of nodes ?? []) under.set(n.parent, [...(under.get(n.parent) ?? []), n]);
		const line = (n) => h('li', {}, h('div', { class: n.job_id === id ? 'here' : '' }, jobLink(n.job_id), ` ${n.name ?? ''} `, n.queue ? [queueLink(n.queue), ' '] : null, n.state ? badge(n.state) : badge('not kept'), n.completed_at ? [' ', h('span', { class: 'muted' }, time(n.completed_at))] : null),
			under.has(n.job_id) ? h('ul', {}, under.get(n.job_id).map(line)) : null);
		replace(tree, graph(nodes ?? []), h('ul', { class: 'trace' }, (under.get(null) ?? []).map(line)));
	};
}

// What waits for what, from left to right; the same as the list below it, for the eye.
function graph(nodes) {
	const columns = [];
	for (const n of nodes) (columns[n.depth] ??= []).push(n);
	if (columns.length < 2 || nodes.length > 60) return null;
	const w = 170;
	const gap = 44;
	const deep = columns.length - 1;
	const place = new Map();
	columns.forEach((column, depth) => column.forEach((n, i) => { if (!place.has(n.job_id)) place.set(n.job_id, { x: (deep - depth) * (w + gap) + 4, y: i * gap + 6, n }); }));
	const height = Math.max(...columns.map((c) => c.length)) * gap + 8;
	const width = columns.length * (w + gap);
	return h('div', { class: 'table', tabindex: '0', role: 'group', 'aria-label': t('flowTree') }, s('svg', { class: 'graph', viewBox: `0 0 ${width} ${height}`, width, height, 'aria-hidden': 'true' },
		nodes.filter((n) => n.parent && place.has(n.parent)).map((n) => {
			const a = place.get(n.job_id);
			const b = place.get(n.parent);
			return s('path', { d: `M${a.x + w} ${a.y + 16}C${a.x + w + 22} ${a.y + 16} ${b.x - 22} ${b.y + 16} ${b.x} ${b.y + 16}` });
		}),
		[...place.values()].map(({ x, y, n }) => s('g', { class: `node ${n.state ?? ''}` }, s('rect', { x, y, width: w, height: 32, rx: 8 }), s('text', { x: x + 12, y: y + 21 }, `${n.state === 'completed' ? '✓' : n.state === 'dead' ? '✕' : n.state === 'leased' ? '▶' : '○'} ${(n.name ?? n.job_id).slice(0, 18)}`)))));
}

/* ---------------------------------------------------------------- subscriptions, workers, tenants */

export function subscriptions(page) {
	page.title(t('page.subscriptions'));
	const view = list(t('page.subscriptions'), [
		{ title: t('subscription'), cell: (r) => r.name }, { title: t('health'), cell: (r) => badge(Number(r.parked) > 0 || r.lag_seconds > 3600 ? 'degraded' : 'healthy') },
		{ title: t('members'), class: 'num', cell: (r) => number(r.members) }, { title: t('behind'), class: 'num', cell: (r) => t('events', { n: Number(r.lag_events) }) }, { title: t('lag'), class: 'num', cell: (r) => duration(r.lag_seconds) },
		{ title: t('parked'), class: 'num', cell: (r) => number(r.parked) }, { title: t('checkpoint'), class: 'num', cell: (r) => r.checkpoint }, { title: t('moved'), class: 'nowrap', cell: (r) => time(r.moved_at) },
		{ title: t('tenant'), cell: (r) => r.tenant_id ?? t('all') }], (r) => r.name, (after) => get('api/subscriptions', { after }));
	page.body.append(card(t('page.subscriptions'), view));
	page.load = view.load;
	page.every = 5000;
}

export function workers(page) {
	page.title(t('page.workers'));
	const view = list(t('page.workers'), [
		{ title: t('worker'), cell: (w) => w.worker ?? `${w.kind} ${w.pid}` }, { title: t('kind'), cell: (w) => (w.kind === 'outside' ? t('outside') : w.kind) }, { title: t('pid'), class: 'num', cell: (w) => w.pid ?? '' },
		{ title: t('does'), cell: (w) => (w.current_job ? [jobLink(w.current_job), ` ${w.job_name ?? ''}`, w.queue ? [' · ', queueLink(w.queue)] : null] : h('span', { class: 'muted' }, t('idle'))) },
		{ title: t('sinceWord'), class: 'nowrap', cell: (w) => (w.since ? time(w.since) : '') }, { title: t('leases'), class: 'num', cell: (w) => compact(w.leases) }, { title: t('jobsDone'), class: 'num', cell: (w) => compact(w.jobs_done) }],
	(w) => `${w.kind} ${w.pid} ${w.worker} ${w.queue}`, () => get('api/workers', { limit: 200 }));
	page.body.append(card(t('page.workers'), view));
	page.load = view.load;
}

export function tenants(page) {
	page.title(t('page.tenants'));
	const view = list(t('page.tenants'), [
		{ title: t('tenant'), cell: (r) => link(`#/jobs?tenant=${seg(r.tenant)}`, r.tenant) }, { title: t('completedRate'), class: 'num', cell: (r) => rate(r.completed_per_s_5m) }, { title: t('enqueuedRate'), class: 'num', cell: (r) => rate(r.enqueued_per_s_5m) },
		{ title: t('failedRate'), class: 'num', cell: (r) => rate(r.failed_per_s_5m) }, { title: t('waitP', { p: 95 }), class: 'num', cell: (r) => duration(r.wait_p95_1h) }, { title: t('runP', { p: 95 }), class: 'num', cell: (r) => duration(r.run_p95_1h) },
		{ title: t('completed'), class: 'num', cell: (r) => compact(r.completed_total) }, { title: t('failed'), class: 'num', cell: (r) => compact(r.failed_total) }, { title: t('dead'), class: 'num', cell: (r) => compact(r.dead_total) },
		{ title: t('inTimeDay'), class: 'num', cell: (r) => percent(r.in_time_24h) }], (r) => r.tenant, () => get('api/tenants', { limit: 200 }));
	page.body.append(h('p', { class: 'muted' }, t('tenantsText')), card(t('page.tenants'), view));
	page.load = view.load;
	page.every = 10000;
}

