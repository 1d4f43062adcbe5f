// queues.js: all queues, and one.
import { h, replace, card, tile, table, list, badge, queueLink, jobLink, link, facts, action, field, select, time, code, empty } from '../lib/ui.js';
import { t, compact, rate, duration, ms, number, has } from '../lib/i18n.js';
import { get, post, seg } from '../lib/api.js';
import { chart, spark, pastHour } from '../lib/charts.js';
import { stateOf, notes } from './overview.js';

function severity(q) {
	if (q.depth === null || q.sla_missed || (q.failed_per_s > 0 && q.completed_per_s === 0 && Number(q.depth) > 0)) return 2;
	return Number(q.dead) > 0 || q.paused || q.draining || q.oldest_ready_seconds > 300 ? 1 : 0;
}

export function queues(page) {
	page.title(t('page.queues'));
	const search = h('input', { type: 'search', value: page.query.search ?? '', autocomplete: 'off' });
	const order = select([['', t('sort.name')], ['depth', t('sort.depth')], ['age', t('sort.age')], ['failed', t('sort.failed')], ['dead', t('sort.dead')], ['rate', t('sort.rate')]],
		page.query.sort ?? '', () => apply());
	const view = list(t('page.queues'), [
		{ title: t('queue'), cell: (q) => queueLink(q.queue) },
		{ title: t('health'), cell: (q) => badge(stateOf({ ...q, severity: severity(q) })) },
		{ title: t('waiting'), class: 'num', cell: (q) => compact(q.depth) },
		{ title: t('oldest'), class: 'num', cell: (q) => duration(q.oldest_ready_seconds) },
		{ title: t('enqueuedRate'), class: 'num', cell: (q) => rate(q.enqueued_per_s) },
		{ title: t('completedRate'), class: 'num', cell: (q) => rate(q.completed_per_s) },
		{ title: t('failedRate'), class: 'num', cell: (q) => rate(q.failed_per_s) },
		{ title: t('dead'), class: 'num', cell: (q) => (Number(q.dead) ? link(`#/dead?queue=${seg(q.queue)}`, compact(q.dead)) : '0') },
		{ title: t('avgWait'), class: 'num', cell: (q) => ms(q.avg_wait_ms) },
		{ title: t('avgRun'), class: 'num', cell: (q) => ms(q.avg_run_ms) },
		{ title: t('notes'), class: 'wide', cell: (q) => notes(q) },
	], (q) => q.queue, (after) => get('api/queues', { search: search.value, sort: order.value, after }));
	const apply = () => {
		page.keep({ search: search.value, sort: order.value });
		return view.reset();
	};
	let wait;
	search.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(apply, 250); });
	page.body.append(h('div', { class: 'filters' }, field(t('search'), search), field(t('sortBy'), order)), card(t('page.queues'), view));
	page.load = view.load;
}

const past = new Map();	// queue -> what was seen of it since the page was opened

export function queue(page) {
	const [name] = page.parts;
	page.title(name);
	const path = `api/queues/${seg(name)}`;
	const tiles = h('div', { class: 'tiles' });
	const flow = chart(t('flow'), 'rate');
	const latency = chart(t('latency'), 'seconds');
	const latencyCard = card(t('latency'), latency);
	const hour = pastHour(name);
	const hourCard = card(t('pastHour'), hour);
	const settings = h('div', {});
	const handlers = h('div', {});
	const stats = h('div', { class: 'page' });
	const jobs = table(t('page.jobs'), [
		{ title: t('job'), cell: (j) => jobLink(j.job_id) }, { title: t('name'), cell: (j) => j.name },
		{ title: t('stateWord'), cell: (j) => badge(j.state) }, { title: t('at'), class: 'nowrap', cell: (j) => time(j.at) },
		{ title: t('tenant'), cell: (j) => j.tenant_id }, { title: t('worker'), cell: (j) => j.worker ?? '' },
		{ title: t('failures'), class: 'num', cell: (j) => number(j.failures) }, { title: t('lastError'), class: 'wide', cell: (j) => j.last_error ?? '' },
	], (j) => j.job_id);
	const tools = h('div', { class: 'tools' });
	page.tools.append(tools);
	page.body.append(tiles, h('div', { class: 'columns' }, card(t('flow'), flow), latencyCard), hourCard, stats,
		card(t('queueJobs'), jobs, h('div', { class: 'foot' }, link(`#/jobs?queue=${seg(name)}`, t('allJobs')), link(`#/dead?queue=${seg(name)}`, t('page.dead')))),
		h('div', { class: 'columns' }, card(t('settings'), settings), card(t('handlers'), handlers)));
	if (!past.has(name)) past.set(name, []);
	const seen = past.get(name);
	const percentileCard = percentiles();
	const names = table(t('byName'), [{ title: t('name'), cell: (r) => r.job_name }, { title: t('completedRate'), class: 'num', cell: (r) => rate(r.completed_per_s_5m) }, { title: t('failedRate'), class: 'num', cell: (r) => rate(r.failed_per_s_5m) },
		...[50, 95].map((n) => ({ title: t('waitP', { p: n }), class: 'num', cell: (r) => duration(r[`wait_p${n}_1h`]) })), ...[50, 95].map((n) => ({ title: t('runP', { p: n }), class: 'num', cell: (r) => duration(r[`run_p${n}_1h`]) })),
		{ title: t('completed'), class: 'num', cell: (r) => compact(r.completed_total) }, { title: t('failed'), class: 'num', cell: (r) => compact(r.failed_total) }, { title: t('dead'), class: 'num', cell: (r) => compact(r.dead_total) }], (r) => r.job_name);
	const namesCard = card(t('byName'), names);
	let turn = 0;
	let known = '';
	page.load = async () => {
		const [{ settings: set, status: x }, rows] = await Promise.all([get(path), get(`${path}/jobs`, { limit: 8 })]);
		const health = stateOf({ severity: severity(x) });
		page.title(name, badge(x.paused ? 'paused' : x.draining ? 'draining' : health));
		let p = null;
		if (turn % 3 === 0) p = await get(`${path}/stats`).catch(() => null);
		seen.push({ at: Date.now(), ...x, stats: p ?? seen.at(-1)?.stats ?? null });
		if (seen.length > 200) seen.shift();
		const of = (key) => seen.map((one) => Number(one[key] ?? 0));
		p = seen.at(-1).stats;
		replace(tiles, tile(t('waiting'), compact(x.depth), x.due !== undefined ? h('small', {}, t('dueAndScheduled', { due: compact(x.due), later: compact(x.scheduled) })) : spark(of('depth'))),
			tile(t('oldest'), duration(x.oldest_ready_seconds), x.sla_seconds ? h('small', {}, t('slaOf', { d: duration(x.sla_seconds) })) : null, x.sla_missed ? 'bad' : ''),
			tile(t('enqueuedRate'), rate(x.enqueued_per_s), spark(of('enqueued_per_s'))), tile(t('completedRate'), rate(x.completed_per_s), spark(of('completed_per_s'), 'ok')),
			tile(t('failedRate'), rate(x.failed_per_s), spark(of('failed_per_s'), 'bad'), x.failed_per_s > 0 ? 'warn' : ''),
			tile(t('page.dead'), Number(x.dead) ? link(`#/dead?queue=${seg(name)}`, compact(x.dead)) : '0', null, Number(x.dead) ? 'warn' : ''));
		flow.update(seen.map((one) => one.at), [{ label: t('enqueued'), colour: 'accent', values: of('enqueued_per_s'), dashed: true },
			{ label: t('completed'), colour: 'ok', values: of('completed_per_s') }, { label: t('failed'), colour: 'bad', values: of('failed_per_s') }]);
		latencyCard.hidden = !p;
		if (p) {
			const q = (key) => seen.map((one) => one.stats?.[key] ?? null);
			latency.update(seen.map((one) => one.at), [
				{ label: t('waitP', { p: 50 }), colour: 'accent', values: q('wait_p50_5m') }, { label: t('waitP', { p: 95 }), colour: 'warn', values: q('wait_p95_5m') },
				{ label: t('waitP', { p: 99 }), colour: 'bad', values: q('wait_p99_5m') },
				{ label: t('runP', { p: 50 }), colour: 'accent', values: q('run_p50_5m'), dashed: true }, { label: t('runP', { p: 95 }), colour: 'warn', values: q('run_p95_5m'), dashed: true },
				{ label: t('runP', { p: 99 }), colour: 'bad', values: q('run_p99_5m'), dashed: true }]);
			if (!stats.firstChild) replace(stats, percentileCard, namesCard);
			percentileCard.update(p);
			if (turn % 3 === 0) {
				const found = await get(`${path}/names`).catch(() => ({ items: [] }));
				names.update(found.items);
				namesCard.hidden = found.items.length === 0;
			}
		} else if (!stats.firstChild) {
			replace(stats, h('div', { class: 'tiles' }, tile(t('avgWait'), ms(x.avg_wait_ms)), tile(t('avgRun'), ms(x.avg_run_ms))));
		}
		jobs.update(rows.items);
		const text = JSON.stringify(set);
		if (text !== known) {
			known = text;
			replace(tools, actions(page, name, set));
			replace(settings, facts(Object.entries(set).filter(([k, v]) => v !== null && !['name', 'paused', 'draining'].includes(k)).map(([k, v]) => [has(`set.${k}`) ? t(`set.${k}`) : k,
				k === 'docs_url' && /^https?:/.test(v) ? h('a', { href: v, rel: 'noopener noreferrer' }, v) : k === 'created_at' ? time(v) : typeof v === 'boolean' ? t(v ? 'yes' : 'no') : String(Array.isArray(v) ? v.join(', ') : v)])));
			const all = await get(`${path}/handlers`).catch(() => ({ items: [] }));
			replace(handlers, all.items.length ? facts(all.items.map((one) => [one.job_name === '*' ? t('anyJob') : one.job_name, [code(one.function), ` ${t('asRole', { role: one.owner })}, ${duration(one.time_limit_seconds)}`]])) : empty(t('noHandlers')));
		}
		await hour.load();
		hourCard.hidden = hour.hidden;
		turn++;
	};
}

// Wait and run of the last 5 minutes and hour; p: a row of queue_stats
function percentiles() {
	let p = {};
	const view = table(t('percentileTable'), [{ title: t('span'), cell: (r) => r.span },
		...[50, 95, 99].map((n) => ({ title: t('waitP', { p: n }), class: 'num', cell: (r) => duration(r.p[`wait_p${n}_${r.key}`]) })),
		...[50, 95, 99].map((n) => ({ title: t('runP', { p: n }), class: 'num', cell: (r) => duration(r.p[`run_p${n}_${r.key}`]) })),
		{ title: t('completedRate'), class: 'num', cell: (r) => rate(r.p[`completed_per_s_${r.key}`]) }, { title: t('failedRate'), class: 'num', cell: (r) => rate(r.p[`failed_per_s_${r.key}`]) }], (r) => r.key);
	const note = h('p', { class: 'note' });
	const element = card(t('percentiles'), view, note);
	element.update = (now) => {
		p = now;
		view.update([{ key: '5m', span: t('last5m'), p }, { key: '1h', span: t('last1h'), p }]);
		note.textContent = p.sla_seconds ? t('inTime', { hour: percent(p.sla_compliance_1h), day: percent(p.sla_compliance_24h), target: percent(p.sla_target) }) : '';
	};
	return element;
}
export const percent = (v) => (v === null || v === undefined ? '–' : `${number(v * 100, 2)} %`);

function actions(page, name, set) {
	const path = `api/queues/${seg(name)}`;
	const after = () => page.refresh();
	return [
		set.paused || set.draining ? action(t('resume'), () => post(`${path}/resume`), { icon: 'play', after, class: 'primary' })
			: action(t('pause'), () => post(`${path}/pause`), { icon: 'pause', after }),
		set.draining ? null : action(t('drain'), async () => t('drainLeft', { n: (await post(`${path}/drain`)).left }), { ask: t('drainAsk', { name }), after }),
		action(t('retryWaiting'), async () => t('retriedCount', { n: (await post(`${path}/retry-waiting`)).retried }), { icon: 'retry', ask: t('retryWaitingAsk', { name }), after }),
	];
}
