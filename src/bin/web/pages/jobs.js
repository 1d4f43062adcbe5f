// jobs.js: jobs by state with search, and one job.
import { h, replace, card, list, badge, queueLink, jobLink, link, facts, action, field, time, pre, hidden, empty, dialog, toast, button, explain, failure, told } from '../lib/ui.js';
import { t, number, duration } from '../lib/i18n.js';
import { get, post, seg, session, mayAct } from '../lib/api.js';
import { trace } from '../lib/trace.js';

const STATES = ['', 'leased', 'ready', 'scheduled', 'retrying', 'suspended', 'blocked', 'paused', 'stalled', 'completed', 'dead'];

export function jobs(page) {
	page.title(t('page.jobs'));
	let state = page.query.state ?? '';
	const input = (name) => h('input', { type: name === 'search' ? 'search' : 'text', value: page.query[name] ?? '', autocomplete: 'off', spellcheck: 'false' });
	const search = input('search');
	const queue = input('queue');
	const name = input('name');
	const tenant = input('tenant');
	const chips = h('div', { class: 'chips', role: 'group', 'aria-label': t('stateWord') }, STATES.map((one) => h('button', { type: 'button', 'aria-pressed': String(one === state), 'data-state': one,
		onclick: () => { state = one; apply(); } }, one ? t(`state.${one}`) : t('allStates'))));
	const view = list(t('page.jobs'), [
		{ title: t('job'), cell: (j) => jobLink(j.job_id) }, { title: t('name'), cell: (j) => j.name }, { title: t('queue'), cell: (j) => queueLink(j.queue) },
		{ title: t('stateWord'), cell: (j) => badge(j.state) },
		{ title: t('at'), class: 'nowrap', cell: (j) => time(j.died_at ?? j.completed_at ?? (j.state === 'leased' ? j.claimed_at : j.run_at)) },
		{ title: t('tenant'), cell: (j) => j.tenant_id }, { title: t('failures'), class: 'num', cell: (j) => number(j.failures) },
		{ title: t('lastError'), class: 'wide', cell: (j) => j.last_error ?? (j.worker ? h('span', { class: 'muted' }, j.worker) : '') },
		{ title: t('payload'), class: 'wide', cell: (j) => (j.payload_text ? h('code', { class: 'payload' }, j.payload_text) : '') },
	], (j) => j.job_id, (after) => get(state === 'dead' ? 'api/dead' : 'api/jobs', {
		state: state === 'dead' ? '' : state, search: search.value.trim(), queue: queue.value.trim(), name: name.value.trim(), tenant: tenant.value.trim(), after }));
	function apply() {
		for (const chip of chips.children) chip.setAttribute('aria-pressed', String(chip.dataset.state === state));
		page.keep({ state, search: search.value, queue: queue.value, name: name.value, tenant: tenant.value });
		return view.reset().catch((error) => toast(explain(error), 'bad'));
	}
	let wait;
	for (const one of [search, queue, name, tenant]) one.addEventListener('input', () => { clearTimeout(wait); wait = setTimeout(apply, 300); });
	page.body.append(chips, h('div', { class: 'filters' }, field(t('searchJobs'), search), field(t('queue'), queue), field(t('name'), name), field(t('tenant'), tenant)), card(t('page.jobs'), view));
	page.load = view.load;
}

/* What happened to a job, in the order of time. */
function timeline(j) {
	const steps = [{ at: j.created_at, title: t('step.created'), kind: '' }];
	if (j.run_at && j.run_at > j.created_at && !(j.errors ?? []).length) steps.push({ at: j.run_at, title: t('step.due'), kind: 'calm' });
	for (const e of j.errors ?? []) {
		steps.push({ at: (e.at ?? '').replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00'), kind: 'bad', title: t('step.failed', { n: e.attempt ?? '' }), text: [e.message, e.detail].filter(Boolean).join('\n'),
			more: [e.worker, e.sqlstate ? `SQLSTATE ${e.sqlstate}` : null].filter(Boolean).join(' · '), context: e.context });
	}
	if (j.state === 'retrying') steps.push({ at: j.run_at, title: t('step.next'), kind: 'calm' });
	if (j.claimed_at) steps.push({ at: j.claimed_at, title: t('step.claimed'), text: j.leased_by ?? j.worker, kind: '' });
	if (j.leased_until && j.state === 'leased') steps.push({ at: j.leased_until, title: t('step.leaseEnds'), kind: 'calm' });
	if (j.completed_at) steps.push({ at: j.completed_at, title: t('step.completed'), text: j.claimed_at ? t('took', { d: duration((new Date(j.completed_at) - new Date(j.claimed_at)) / 1000) }) : null, kind: 'ok' });
	if (j.died_at) steps.push({ at: j.died_at, title: t('step.died'), text: t(`reason.${j.reason}`), kind: 'bad' });
	steps.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
	return h('ol', { class: 'timeline' }, steps.map((one) => h('li', { class: one.kind }, h('strong', {}, one.title), ' ', h('span', { class: 'when' }, time(one.at)),
		one.text ? h('p', {}, one.text) : null, one.more ? h('p', { class: 'muted' }, one.more) : null,
		one.context ? h('details', {}, h('summary', {}, t('context')), pre(one.context, t('context'))) : null)));
}

export function job(page) {
	const [id] = page.parts;
	page.title(t('jobTitle', { id }));
	const line = h('div', {});
	const why = h('ul', { class: 'problems' });
	const about = h('div', {});
	const payload = h('div', {});
	const log = h('div', {});
	const causes = h('div', {});
	const depends = h('div', {});
	const progress = h('div', {});
	const whyCard = card(t('why'), why);
	const dependsCard = card(t('dependsOn'), depends);
	const traceCard = card(t('trace'), causes);
	const logCard = card(t('log'), log);
	page.body.append(whyCard, h('div', { class: 'columns' }, h('div', { class: 'page' }, card(t('timeline'), progress, line), traceCard, logCard),
		h('div', { class: 'page' }, card(t('about'), about), card(t('payload'), payload), dependsCard)));
	let known = '';
	let traced = '';
	page.load = async () => {
		const j = await get(`api/jobs/${seg(id)}`);
		const reasons = await get(`api/jobs/${seg(id)}/why`).catch((error) => ({ error }));
		if (reasons.error) replace(why, h('li', {}, failure(reasons.error)));
		else {
			replace(why, reasons.items.map((r) => h('li', { class: /^(running|completed)/.test(r.reason) ? 'ok' : '' }, h('div', {}, h('p', { class: 'what' }, told(r.reason), r.until ? [' · ', time(r.until)] : null), r.detail ? h('p', {}, told(r.detail)) : null))));
		}
		const text = JSON.stringify(j);
		if (text === known && j.state !== 'leased') return;
		known = text;
		page.title(t('jobTitle', { id }), badge(j.state));
		replace(page.tools, tools(page, id, j));
		replace(progress, j.progress === null || j.progress === undefined ? null : bar(j));
		replace(line, timeline(j));
		const meta = j.metadata ?? {};
		replace(about, facts([[t('name'), j.name], [t('queue'), queueLink(j.queue)], [t('tenant'), j.tenant_id], [t('priority'), number(j.priority)],
			[t('failures'), j.max_attempts ? t('ofMax', { n: number(j.failures), max: number(j.max_attempts) }) : number(j.failures)], [t('stalled'), j.stalled ? number(j.stalled) : null],
			[t('worker'), j.leased_by ?? j.worker], [t('group'), j.group_key], [t('uniqueKey'), j.unique_key],
			[t('byRule'), meta.rule ? link(`#/rule/${seg(meta.rule)}`, meta.rule) : null], [t('byJob'), meta.parent_job ? jobLink(meta.parent_job) : null],
			[t('bySchedule'), meta.schedule], [t('causedBy'), meta.event_id ? link(`#/event/${seg(meta.event_id)}`, t('theEvent')) : null],
			[t('correlation'), meta.correlation_id], [t('actor'), meta.actor]]));
		replace(payload, session.payloads ? pre(j.payload_text, t('payload')) : hidden(), j.result_text ? [h('h3', {}, t('result')), pre(j.result_text, t('result'))] : null);
		const [lines, needs] = await Promise.all([get(`api/jobs/${seg(id)}/log`, { limit: 200 }).catch(() => ({ items: [] })), get(`api/jobs/${seg(id)}/depends`).catch(() => ({ items: [] }))]);
		replace(log, lines.items.length ? h('ol', { class: 'timeline' }, lines.items.map((one) => h('li', { class: /err|fatal/i.test(one.level) ? 'bad' : 'calm' }, h('span', { class: 'when' }, time(one.at), ' · ', one.level), h('p', {}, one.message)))) : empty(t('noLog')));
		dependsCard.hidden = needs.items.length === 0;
		replace(depends, h('ul', { class: 'trace' }, needs.items.map((d) => h('li', {}, jobLink(d.depends_on), ` ${d.name ?? ''} `, badge(d.completed_at ? 'completed' : 'waiting')))), link(`#/flow/${seg(id)}`, t('showFlow')));
		if (meta.event_id !== traced) {
			traced = meta.event_id;
			traceCard.hidden = !meta.event_id;
			if (meta.event_id) {
				const found = await get(`api/trace/${seg(meta.event_id)}`, { tenant: j.tenant_id }).catch((error) => ({ error }));
				replace(causes, found.error ? failure(found.error) : trace(found.items, id));
			}
		}
	};
}

function bar(j) {
	const p = typeof j.progress === 'number' ? j.progress : j.progress?.percent ?? j.progress?.progress;
	return h('div', {}, h('h3', {}, t('progress')), Number.isFinite(Number(p)) && p !== null ? h('progress', { max: 100, value: Number(p), 'aria-label': t('progress') }) : null, h('p', {}, h('code', {}, j.progress_text)));
}

export async function retryEdited(id, text, after) {
	const area = h('textarea', { spellcheck: 'false', value: text ?? '{}' });
	const done = await dialog({
		title: t('retryEdited'), yes: t('retry'), body: [h('p', { class: 'muted' }, t('retryEditedText')), field(t('payload'), area)],
		// As it was typed: numbers keep all their digits.
		check: async () => {
			try { JSON.parse(area.value); } catch (e) { throw new Error(t('notJson', { why: e.message })); }
			await post(`api/dead/${seg(id)}/retry`, `{"payload": ${area.value}}`);
		},
	});
	if (done) {
		toast(t('retried', { id }));
		after();
	}
}

function tools(page, id, j) {
	const after = () => page.refresh();
	if (!mayAct()) return null;
	if (j.state === 'dead') {
		return [action(t('retry'), async () => { await post(`api/dead/${seg(id)}/retry`); return t('retried', { id }); }, { icon: 'retry', class: 'primary', after }),
			session.payloads ? button(t('retryEdited'), () => retryEdited(id, j.payload_text, after)) : null,
			action(t('discard'), async () => { await post(`api/dead/${seg(id)}/discard`); return t('discarded', { id }); }, { danger: true, ask: t('discardAsk', { id }), after: () => { location.hash = '#/dead'; } })];
	}
	if (j.state === 'completed') return null;
	return [action(t('cancelJob'), async () => t(`cancel.${(await post(`api/jobs/${seg(id)}/cancel`)).result}`), { danger: true, ask: t('cancelAsk', { id }), after })];
}
