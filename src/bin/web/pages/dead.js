// dead.js: dead letters: retry, retry all by filter with a preview, edit, discard.
import { h, card, list, queueLink, jobLink, field, time, dialog, toast, button, explain, facts } from '../lib/ui.js';
import { t, number } from '../lib/i18n.js';
import { get, post, seg, session, mayAct } from '../lib/api.js';
import { retryEdited } from './jobs.js';

const BATCH = 2000;

export default function dead(page) {
	page.title(t('page.dead'));
	const chosen = new Set();
	const inputs = Object.fromEntries(['search', 'queue', 'name', 'sqlstate', 'tenant'].map((one) => [one,
		h('input', { type: one === 'search' ? 'search' : 'text', value: page.query[one] ?? '', autocomplete: 'off', spellcheck: 'false' })]));
	const filter = () => Object.fromEntries(Object.entries(inputs).map(([k, v]) => [k, v.value.trim()]));
	const box = (j) => h('input', { type: 'checkbox', 'aria-label': t('choose', { id: j.job_id }), checked: chosen.has(j.job_id),
		onchange: (e) => { if (e.target.checked) chosen.add(j.job_id); else chosen.delete(j.job_id); show(); } });
	const act = (run, text) => async (e) => {
		e.currentTarget.disabled = true;
		try {
			await run();
			toast(text());
			await view.load();
		} catch (error) {
			toast(explain(error), 'bad');
		}
		if (e.currentTarget) e.currentTarget.disabled = false;
	};
	const columns = [
		{ title: t('job'), cell: (j) => jobLink(j.job_id) }, { title: t('name'), cell: (j) => j.name }, { title: t('queue'), cell: (j) => queueLink(j.queue) },
		{ title: t('died'), class: 'nowrap', cell: (j) => time(j.died_at) }, { title: t('failures'), class: 'num', cell: (j) => number(j.failures) },
		{ title: t('lastError'), class: 'wide', cell: (j) => [j.last_error ?? t(`reason.${j.reason}`), j.last_sqlstate ? [' ', h('code', { class: 'muted' }, j.last_sqlstate)] : null] },
		{ title: t('payload'), class: 'wide', cell: (j) => (j.payload_text ? h('code', { class: 'payload' }, j.payload_text) : '') },
	];
	if (mayAct()) {
		columns.push({ title: t('chosen'), cell: box });
		columns.push({ title: t('actions'), cell: (j) => h('div', { class: 'tools' },
			h('button', { type: 'button', class: 'small', 'aria-label': t('retryOne', { id: j.job_id }), onclick: act(() => post(`api/dead/${seg(j.job_id)}/retry`), () => t('retried', { id: j.job_id })) }, t('retry'))) });
	}
	const view = list(t('page.dead'), columns, (j) => j.job_id, (after) => get('api/dead', { ...filter(), after }));
	const retryChosen = button(t('retryChosen', { n: 0 }), () => many('retry'), { class: 'primary', icon: 'retry' });
	const editChosen = button(t('retryEdited'), async () => {
		const [id] = chosen;
		const j = await get(`api/jobs/${seg(id)}`);
		await retryEdited(id, j.payload_text, () => { chosen.clear(); show(); view.load(); });
	});
	const discardChosen = button(t('discardChosen', { n: 0 }), () => many('discard'), { class: 'danger' });
	const retryAll = button(t('retryAll'), () => bulk('retry-all'), { icon: 'retry' });
	const discardAll = button(t('discardAll'), () => bulk('discard-all'), { class: 'danger' });

	function show() {
		for (const one of [retryChosen, discardChosen]) one.hidden = chosen.size === 0;
		editChosen.hidden = chosen.size !== 1 || !session.payloads;
		retryChosen.lastChild.textContent = t('retryChosen', { n: chosen.size });
		discardChosen.lastChild.textContent = t('discardChosen', { n: chosen.size });
	}

	async function many(what) {
		const ids = [...chosen];
		if (what === 'discard' && !await dialog({ title: t('discardChosen', { n: ids.length }), body: h('p', {}, t('discardForGood')), yes: t('discard'), danger: true })) return;
		try {
			const { count } = await post(`api/dead/${what}`, { ids });
			toast(t(what === 'retry' ? 'retriedCount' : 'discardedCount', { n: count }));
			chosen.clear();
			show();
			await view.load();
		} catch (error) {
			toast(explain(error), 'bad');
		}
	}

	// By filter: first what would be done, then in batches, so that no statement takes long.
	async function bulk(path) {
		const { queue, name, sqlstate, tenant, search } = filter();
		if (!queue) {
			toast(t('chooseQueue'), 'bad');
			inputs.queue.focus();
			return;
		}
		if (search) {
			toast(t('noSearchInBulk'), 'bad');
			return;
		}
		let preview;
		try {
			preview = await get('api/dead/preview', { queue, name, sqlstate, tenant });
		} catch (error) {
			toast(explain(error), 'bad');
			return;
		}
		const total = h('strong', {}, t(preview.more ? 'previewMore' : 'preview', { n: preview.count }));
		const state = h('p', { role: 'status' });
		let sum = 0;
		const discard = path === 'discard-all';
		const done = await dialog({
			title: t(discard ? 'discardAll' : 'retryAll'), yes: preview.count ? t(discard ? 'discard' : 'retry') : null, danger: discard,
			body: [h('p', {}, total), discard ? h('p', {}, t('discardForGood')) : null, facts([[t('queue'), queue], [t('name'), name], [t('sqlstate'), sqlstate], [t('tenant'), tenant],
				[t('oldestOne'), preview.oldest ? time(preview.oldest) : null], [t('newestOne'), preview.newest ? time(preview.newest) : null]]),
			h('ul', {}, preview.kinds.map((k) => h('li', {}, `${number(k.count)} × ${k.name}: ${k.message ?? ''} `, k.sqlstate ? h('code', {}, k.sqlstate) : null))), state],
			check: async () => {
				// Not more than were shown, so that those that die meanwhile are left alone.
				for (let left = preview.more ? Infinity : preview.count; left > 0;) {
					const { count } = await post(`api/dead/${path}`, { queue, name: name || null, sqlstate: sqlstate || null, tenant: tenant || null, max: Math.min(BATCH, left) });
					sum += Number(count);
					left -= Number(count);
					state.textContent = t(discard ? 'discardedCount' : 'retriedCount', { n: sum });
					if (Number(count) === 0) break;
				}
			},
		});
		if (done) {
			toast(t(discard ? 'discardedCount' : 'retriedCount', { n: sum }));
			await view.reset();
		}
	}

	let wait;
	for (const one of Object.values(inputs)) {
		one.addEventListener('input', () => {
			clearTimeout(wait);
			wait = setTimeout(() => { page.keep(filter()); view.reset().catch((error) => toast(explain(error), 'bad')); }, 300);
		});
	}
	if (mayAct()) page.tools.append(retryChosen, editChosen, discardChosen, retryAll, discardAll);
	show();
	page.body.append(h('div', { class: 'filters' }, field(t('searchJobs'), inputs.search), field(t('queue'), inputs.queue), field(t('name'), inputs.name), field(t('sqlstate'), inputs.sqlstate), field(t('tenant'), inputs.tenant)),
		card(t('page.dead'), view));
	page.load = view.load;
}
