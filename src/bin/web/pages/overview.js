// overview.js: what is wrong, before all else; then how things go.
import { h, replace, card, tile, table, badge, queueLink, icon, link, failure, told } from '../lib/ui.js';
import { t, compact, rate, duration, ms, number } from '../lib/i18n.js';
import { get } from '../lib/api.js';
import { chart, spark, pastHour } from '../lib/charts.js';

// What was seen since the page was opened; outlives going to another page and back.
const seen = [];
const KEEP = 200;

export const stateOf = (q) => (q.severity === 2 ? 'unhealthy' : q.severity === 1 ? 'degraded' : 'healthy');
export function notes(q) {
	return [q.sla_missed ? t('why.sla', { d: duration(q.sla_seconds) }) : null, q.paused ? t('state.paused') : null, q.draining ? t('state.draining') : null,
		q.depth === null ? t('why.noPlace') : null, q.failed_per_s > 0 && q.completed_per_s === 0 && Number(q.depth) > 0 ? t('why.allFail') : null,
		Number(q.dead) > 0 ? t('why.dead', { n: q.dead }) : null, q.oldest_ready_seconds > 300 ? t('why.old', { d: duration(q.oldest_ready_seconds) }) : null].filter(Boolean).join(', ');
}

// "queue mail" of health() becomes a link
function what(check) {
	const [, kind, name] = /^(queue|rule|schedule|subscription) (.+)$/.exec(check) ?? [];
	if (kind === 'queue') return link(`#/queue/${encodeURIComponent(name)}`, t('problem.queue', { name }));
	if (kind === 'rule') return link(`#/rule/${encodeURIComponent(name)}`, t('problem.rule', { name }));
	return check;
}

export default function overview(page) {
	page.title(t('page.overview'));
	const problems = h('ul', { class: 'problems' });
	const tiles = h('div', { class: 'tiles' });
	const flow = chart(t('flow'), 'rate');
	const past = pastHour();
	const pastCard = card(t('pastHour'), past);
	const queues = table(t('worst'), [
		{ title: t('queue'), cell: (q) => queueLink(q.queue) },
		{ title: t('health'), cell: (q) => badge(stateOf(q)) },
		{ title: t('waiting'), class: 'num', cell: (q) => compact(q.depth) },
		{ title: t('oldest'), class: 'num', cell: (q) => duration(q.oldest_ready_seconds) },
		{ title: t('completedRate'), class: 'num', cell: (q) => rate(q.completed_per_s) },
		{ title: t('failedRate'), class: 'num', cell: (q) => rate(q.failed_per_s) },
		{ title: t('dead'), class: 'num', cell: (q) => (Number(q.dead) ? link(`#/dead?queue=${encodeURIComponent(q.queue)}`, compact(q.dead)) : '0') },
		{ title: t('avgWait'), class: 'num', cell: (q) => ms(q.avg_wait_ms) },
		{ title: t('avgRun'), class: 'num', cell: (q) => ms(q.avg_run_ms) },
		{ title: t('notes'), class: 'wide', cell: (q) => notes(q) },
	], (q) => q.queue);
	const problemCard = card(t('problems'), problems);
	page.body.append(problemCard, tiles, card(t('flow'), flow), pastCard, card(t('worst'), queues, h('div', { class: 'foot' }, link('#/queues', t('allQueues')))));

	let turn = 0;
	async function health() {
		let items;
		try {
			items = (await get('api/health', { limit: 100 })).items.filter((x) => !x.ok);
		} catch (error) {
			replace(problems, h('li', {}, failure(error)));
			return;
		}
		const text = JSON.stringify(items);
		if (problems.dataset.text === text) return;
		problems.dataset.text = text;
		const serious = (x) => !/^(queue|subscription)/.test(x.check);
		items.sort((a, b) => serious(b) - serious(a));
		replace(problems, items.length ? items.slice(0, 8).map((x) => h('li', { class: serious(x) ? 'bad' : '' }, icon(serious(x) ? 'bad' : 'warn'),
			h('div', {}, h('p', {}, h('span', { class: 'what' }, what(x.check)), ' — ', told(x.detail)), x.hint ? h('p', { class: 'hint' }, h('code', {}, told(x.hint))) : null)))
			: h('li', { class: 'ok' }, icon('ok'), h('p', {}, t('allWell'))),
		items.length > 8 ? h('li', {}, icon('warn'), h('p', {}, t('moreProblems', { n: items.length - 8 }))) : null);
	}

	page.load = async () => {
		const answer = get('api/overview');
		if (turn++ % 3 === 0) await health();
		const { totals: x, queues: rows } = await answer;
		seen.push({ at: Date.now(), ...x });
		if (seen.length > KEEP) seen.shift();
		const of = (key) => seen.map((one) => Number(one[key] ?? 0));
		replace(tiles,
			tile(t('waiting'), compact(x.depth), spark(of('depth'))),
			tile(t('enqueuedRate'), rate(x.enqueued_per_s), spark(of('enqueued_per_s'))),
			tile(t('completedRate'), rate(x.completed_per_s), spark(of('completed_per_s'), 'ok')),
			tile(t('failedRate'), rate(x.failed_per_s), spark(of('failed_per_s'), 'bad'), x.failed_per_s > 0 ? 'warn' : ''),
			tile(t('page.dead'), h('a', { href: '#/dead' }, compact(x.dead)), spark(of('dead'), 'bad'), Number(x.dead) ? 'warn' : ''),
			tile(t('page.queues'), number(x.queues), h('small', {}, t('unhealthyCount', { bad: number(x.unhealthy), warn: number(x.degraded) })), x.unhealthy ? 'bad' : ''));
		flow.update(seen.map((one) => one.at), [
			{ label: t('enqueued'), colour: 'accent', values: of('enqueued_per_s'), dashed: true },
			{ label: t('completed'), colour: 'ok', values: of('completed_per_s') },
			{ label: t('failed'), colour: 'bad', values: of('failed_per_s') }]);
		queues.update(rows);
		await past.load();
		pastCard.hidden = past.hidden;
	};
}
