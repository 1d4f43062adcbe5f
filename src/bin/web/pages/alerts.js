// alerts.js: SLA, alerts with acknowledge and snooze, and who did what.
import { h, card, list, table, badge, queueLink, link, time, dialog, toast, field, select, explain, told } from '../lib/ui.js';
import { t, number, compact, duration } from '../lib/i18n.js';
import { get, post, mayAct } from '../lib/api.js';
import { percent } from './queues.js';

const budget = (v) => [h('progress', { max: 1, value: Math.max(0, Math.min(1, v ?? 0)), 'aria-label': t('budgetLeft') }), h('span', { class: 'muted' }, percent(v))];
const burn = (v) => [v > 1 ? h('span', { 'aria-hidden': 'true' }, '▲ ') : null, `${number(v, 1)}×`];

export function slo(page) {
	page.title(t('page.slo'));
	const view = list(t('page.slo'), [
		{ title: t('queue'), cell: (r) => queueLink(r.queue) }, { title: t('health'), cell: (r) => badge(r.budget_left < 0 || r.burn_1h > 14.4 ? 'unhealthy' : r.burn_6h > 1 || r.burn_1h > 1 ? 'degraded' : 'healthy') },
		{ title: t('sla'), class: 'num', cell: (r) => duration(r.sla_seconds) }, { title: t('target'), class: 'num', cell: (r) => percent(r.target) }, { title: t('inTimeWord'), class: 'num', cell: (r) => (Number(r.total) ? percent(r.good / r.total) : '–') },
		{ title: t('jobs30d'), class: 'num', cell: (r) => compact(r.total) }, { title: t('budgetLeft'), cell: (r) => budget(r.budget_left) },
		{ title: t('burn', { d: '5 min' }), class: 'num', cell: (r) => burn(r.burn_5m) }, { title: t('burn', { d: '1 h' }), class: 'num', cell: (r) => burn(r.burn_1h) }, { title: t('burn', { d: '6 h' }), class: 'num', cell: (r) => burn(r.burn_6h) }],
	(r) => r.queue, () => get('api/slo', { limit: 200 }));
	page.body.append(h('p', { class: 'muted' }, t('sloText')), card(t('page.slo'), view));
	page.load = view.load;
	page.every = 10000;
}

export function alerts(page) {
	page.title(t('page.alerts'));
	async function act(what, a) {
		const note = h('input', { autocomplete: 'off' });
		const length = select([['1 hour', t('hours', { n: 1 })], ['4 hours', t('hours', { n: 4 })], ['1 day', t('days', { n: 1 })], ['7 days', t('days', { n: 7 })]], '1 hour');
		const done = await dialog({ title: t(what, { name: a.key }), yes: t(`${what}Word`), body: [h('p', {}, told(a.detail) ?? ''), what === 'snooze' ? field(t('howLong'), length) : null, field(t('note'), note)],
			check: () => post(`api/alerts/${what}`, { key: a.key, note: note.value || null, duration: length.value }) });
		if (done) {
			toast(t('done', { what: t(`${what}Word`) }));
			page.refresh();
		}
	}
	const columns = [
		{ title: t('alert'), cell: (a) => (a.object && (a.kind !== 'health' || /^queue /.test(a.object)) ? link(`#/queue/${encodeURIComponent((a.object ?? '').replace(/^queue /, ''))}`, a.key) : a.key) },
		{ title: t('stateWord'), cell: (a) => badge(a.state) }, { title: t('severity'), cell: (a) => a.severity ?? '' }, { title: t('sinceWord'), class: 'nowrap', cell: (a) => time(a.raised_at ?? a.since) },
		{ title: t('detail'), class: 'wide', cell: (a) => [told(a.detail) ?? '', a.hint ? h('div', {}, h('code', { class: 'muted' }, told(a.hint))) : null] },
		{ title: t('lookedAfter'), cell: (a) => [a.acked_by ? [a.acked_by, ' · ', time(a.acked_at), a.ack_note ? h('div', { class: 'muted' }, a.ack_note) : null] : null, a.snoozed_until ? h('div', {}, t('snoozedUntil'), ' ', time(a.snoozed_until)) : null] }];
	if (mayAct()) {
		columns.push({ title: t('actions'), cell: (a) => h('div', { class: 'tools' }, a.state === 'raised' ? h('button', { type: 'button', class: 'small', onclick: () => act('ack', a) }, t('ackWord')) : null,
			h('button', { type: 'button', class: 'small', onclick: () => act('snooze', a) }, t('snoozeWord'))) });
	}
	const now = table(t('alertsNow'), columns, (a) => a.key);
	const past = list(t('alertHistory'), [
		{ title: t('alert'), cell: (a) => a.key }, { title: t('stateWord'), cell: (a) => badge(a.resolved_at ? 'resolved' : 'raised') }, { title: t('severity'), cell: (a) => a.severity }, { title: t('raised'), class: 'nowrap', cell: (a) => time(a.raised_at) },
		{ title: t('lasted'), class: 'num', cell: (a) => (a.resolved_at ? duration((new Date(a.resolved_at) - new Date(a.raised_at)) / 1000) : '') }, { title: t('detail'), class: 'wide', cell: (a) => told(a.detail) ?? '' }, { title: t('lookedAfter'), cell: (a) => a.acked_by ?? '' }],
	(a) => a.alert_id, (after) => get('api/alerts/history', { after }));
	page.body.append(card(t('alertsNow'), now), card(t('alertHistory'), past));
	page.load = async () => {
		now.update((await get('api/alerts', { limit: 200 })).items);
		await past.load();
	};
	page.every = 5000;
}

export function audit(page) {
	page.title(t('page.audit'));
	const object = h('input', { type: 'search', value: page.query.object ?? '', autocomplete: 'off' });
	const view = list(t('page.audit'), [
		{ title: t('what'), cell: (a) => a.action }, { title: t('object'), cell: (a) => `${a.object_type} ${a.object}` }, { title: t('at'), class: 'nowrap', cell: (a) => time(a.at) },
		{ title: t('who'), cell: (a) => [a.session_role, a.role !== a.session_role ? ` → ${a.role}` : '', a.actor ? ` (${a.actor})` : ''] }, { title: t('by'), cell: (a) => a.application_name }, { title: t('tenant'), cell: (a) => a.tenant_id ?? '' },
		{ title: t('change'), class: 'wide', cell: (a) => (a.before || a.after ? h('details', {}, h('summary', {}, t('beforeAfter')), a.before ? h('p', {}, h('code', {}, `− ${a.before}`)) : null, a.after ? h('p', {}, h('code', {}, `+ ${a.after}`)) : null) : '') }],
	(a) => a.audit_id, (after) => get('api/audit', { object: object.value.trim(), after }));
	let wait;
	object.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(() => { page.keep({ object: object.value }); view.reset().catch((error) => toast(explain(error), 'bad')); }, 300); });
	page.body.append(h('div', { class: 'filters' }, field(t('object'), object)), card(t('page.audit'), view));
	page.load = view.load;
	page.every = 10000;
}

