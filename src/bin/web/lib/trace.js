// trace.js: event -> rule -> job -> event, as a tree.
import { h, link, jobLink, badge, time, empty } from './ui.js';
import { t } from './i18n.js';
import { seg } from './api.js';

export function trace(items, here) {
	if (!items.length) return empty();
	const known = new Map(items.map((one) => [`${one.kind} ${one.id}`, one]));
	const children = new Map();
	const roots = [];
	for (const one of items) {
		// a rule stands between its event and the jobs that it made of this event
		const parent = one.caused_by && known.has(one.caused_by) && known.get(one.caused_by) !== one ? one.caused_by : null;
		if (parent) children.set(parent, [...(children.get(parent) ?? []), one]);
		else roots.push(one);
	}
	const shown = new Set();
	const line = (one) => {
		const key = `${one.kind} ${one.id}`;
		if (shown.has(one)) return null;
		shown.add(one);
		const d = one.detail ?? {};
		const text = one.kind === 'job' ? [jobLink(one.id), ` ${one.name ?? ''} `, d.state ? badge(d.state === 'done' ? 'completed' : d.state) : null]
			: one.kind === 'rule' ? link(`#/rule/${seg(one.name)}`, one.name)
				: [link(`#/event/${seg(one.id)}`, one.name), d.aggregate_id ? [' ', link(`#/aggregate/${seg(d.aggregate_type)}/${seg(d.aggregate_id)}`, `${d.aggregate_type} ${d.aggregate_id}`)] : null];
		return h('li', {}, h('div', { class: one.kind !== 'rule' && one.id === here ? 'here' : '' }, h('span', { class: 'kind' }, t(`kind.${one.kind}`)), text, ' ', h('span', { class: 'muted' }, time(one.at))),
			d.last_error ? h('p', { class: 'error' }, d.last_error.message) : null,
			children.has(key) ? h('ul', {}, children.get(key).map(line)) : null);
	};
	return h('ul', { class: 'trace' }, roots.map(line));
}
