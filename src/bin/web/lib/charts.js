// charts.js: lines over time.  Chart.js if it was there when the program was built;
// else, and for small ones, plain SVG.
import { h, s, replace } from './dom.js';
import { table } from './ui.js';
import { t, clock, number, duration } from './i18n.js';
import { get } from './api.js';

const probe = h('span', { hidden: true });
function colour(name) {
	if (!probe.isConnected) document.body.append(probe);
	probe.className = `c-${name}`;
	return getComputedStyle(probe).color;
}

const quiet = () => window.matchMedia('(prefers-reduced-motion: reduce)').matches;

// spark: a small line with its last value; for the eye only, its numbers stand beside it
export function spark(values, kind = 'accent') {
	const w = 96;
	const height = 26;
	const v = values.filter((x) => x !== null && x !== undefined);
	const max = Math.max(...v, 0.001);
	const points = v.map((x, i) => `${((i / Math.max(1, v.length - 1)) * (w - 4) + 2).toFixed(1)},${(height - 3 - (x / max) * (height - 6)).toFixed(1)}`);
	return s('svg', { class: `spark ${kind}`, viewBox: `0 0 ${w} ${height}`, 'aria-hidden': 'true', focusable: 'false', preserveAspectRatio: 'none' },
		v.length > 1 ? [s('polygon', { points: `2,${height - 2} ${points.join(' ')} ${w - 2},${height - 2}` }), s('polyline', { points: points.join(' ') })] : null);
}

/*
 * chart: series are {label, colour, values, dashed}, times are milliseconds; unit is
 * 'rate' or 'seconds' (logarithmic).  The summary is what a screen reader is told.
 */
export function chart(label, unit) {
	const summary = h('p', { class: 'sr-only' });
	const canvas = h('canvas', { role: 'img', 'aria-label': label });
	const box = h('div', { class: 'chart' });
	const element = h('figure', { class: 'chart-box' }, box, summary);
	const show = (v) => (v === null || v === undefined ? '–' : unit === 'seconds' ? duration(v) : number(v, 1));
	let drawn = null;
	element.update = (times, series) => {
		summary.textContent = `${label}: ${series.map((x) => `${x.label} ${show(x.values.at(-1))}`).join(', ')}`;
		if (!window.Chart) {
			svg(box, label, unit, times, series, show);
			return;
		}
		const grid = colour('border');
		const text = colour('muted');
		const sets = series.map((x) => ({
			label: x.label, data: times.map((at, i) => ({ x: at, y: unit === 'seconds' && !(x.values[i] > 0) ? null : x.values[i] })),
			borderColor: colour(x.colour), backgroundColor: colour(x.colour), borderWidth: 2, pointRadius: 0, pointHitRadius: 8, tension: 0.25,
			borderDash: x.dashed ? [5, 4] : [], spanGaps: true,
			// the newest one is not complete yet
			segment: { borderDash: (c) => (c.p1DataIndex === times.length - 1 ? [3, 3] : undefined) },
		}));
		if (drawn) {
			drawn.data.datasets.forEach((set, i) => Object.assign(set, sets[i]));
			if (drawn.data.datasets.length !== sets.length) drawn.data.datasets = sets;
			drawn.update('none');
			return;
		}
		replace(box, canvas);
		drawn = new window.Chart(canvas, {
			type: 'line', data: { datasets: sets },
			options: {
				animation: quiet() ? false : { duration: 200 }, responsive: true, maintainAspectRatio: false, interaction: { mode: 'index', intersect: false },
				scales: {
					x: { type: 'linear', min: times[0], ticks: { color: text, maxRotation: 0, autoSkip: true, maxTicksLimit: 5, callback: (v) => clock(new Date(v)) }, grid: { display: false }, border: { color: grid }, bounds: 'data' },
					y: { type: unit === 'seconds' ? 'logarithmic' : 'linear', beginAtZero: unit !== 'seconds', ticks: { color: text, maxTicksLimit: 6, callback: show }, grid: { color: grid } },
				},
				plugins: {
					legend: { position: 'bottom', labels: { color: text, usePointStyle: true, pointStyle: 'line', boxWidth: 24 } },
					tooltip: { callbacks: { title: (items) => clock(new Date(items[0].parsed.x)), label: (item) => `${item.dataset.label}: ${show(item.parsed.y)}` } },
				},
			},
		});
		element.destroy = () => drawn.destroy();
	};
	const update = element.update;
	element.update = (times, series) => {
		update(times, series);
		if (drawn) {
			drawn.options.scales.x.min = times[0];
			drawn.options.scales.x.max = times.at(-1);
			drawn.update('none');
		}
	};
	return element;
}

/*
 * pastHour: what was completed and failed, and the 95th percentile of the wait, minute by
 * minute, also of before the page was opened; of one queue, or of all together.  A screen
 * reader, and who opens it, gets the numbers as a table.
 */
export function pastHour(queue) {
	const done = chart(t('pastHourDone'), 'rate');
	const wait = chart(t('waitP', { p: 95 }), 'seconds');
	const rows = table(t('pastHour'), [{ title: t('at'), cell: (x) => clock(new Date(x.at)) }, { title: t('completed'), class: 'num', cell: (x) => number(x.completed) },
		{ title: t('failed'), class: 'num', cell: (x) => number(x.failed) }, { title: t('waitP', { p: 95 }), class: 'num', cell: (x) => duration(x.wait_p95) }], (x) => x.at);
	const element = h('div', {}, h('div', { class: 'columns' }, done, wait), h('details', {}, h('summary', {}, t('asTable')), rows));
	let asked = 0;
	// Figures of a minute: once in half of one is enough.
	element.load = async () => {
		if (Date.now() - asked < 30000) return;
		asked = Date.now();
		let items;
		try {
			({ items } = await get('api/stats/timeseries', { queue }));
		} catch {
			items = [];
		}
		element.hidden = items.length === 0;
		if (element.hidden) return;
		const times = items.map((x) => Date.parse(x.at));
		done.update(times, [{ label: t('completed'), colour: 'ok', values: items.map((x) => Number(x.completed)) },
			{ label: t('failed'), colour: 'bad', values: items.map((x) => Number(x.failed)), dashed: true }]);
		wait.update(times, [{ label: t('waitP', { p: 95 }), colour: 'warn', values: items.map((x) => x.wait_p95) }]);
		rows.update(items.reverse());
	};
	return element;
}

function svg(box, label, unit, times, series, show) {
	const w = 640;
	const height = 200;
	const all = series.flatMap((x) => x.values).filter((v) => v > 0);
	const max = Math.max(...all, unit === 'seconds' ? 0.01 : 1);
	const min = unit === 'seconds' ? Math.min(...all, max / 10) : 0;
	const y = (v) => height - 20 - (unit === 'seconds' ? Math.log(Math.max(v, min) / min) / Math.log(max / min) : v / max) * (height - 40);
	const x = (at) => ((at - times[0]) / Math.max(1, times.at(-1) - times[0])) * (w - 60) + 50;
	replace(box, s('svg', { viewBox: `0 0 ${w} ${height}`, role: 'img', 'aria-label': label, class: 'lines' },
		[min, max].map((v) => [s('line', { class: 'grid', x1: 50, x2: w - 10, y1: y(v), y2: y(v) }), s('text', { x: 44, y: y(v) + 4, 'text-anchor': 'end' }, show(v))]),
		series.map((one) => s('polyline', { class: `c-${one.colour}${one.dashed ? ' dashed' : ''}`, points: one.values.map((v, i) => (v === null || v === undefined || (unit === 'seconds' && !(v > 0)) ? null : `${x(times[i]).toFixed(1)},${y(v).toFixed(1)}`)).filter(Boolean).join(' ') }))),
	h('ul', { class: 'legend' }, series.map((one) => h('li', { class: `c-${one.colour}` }, one.label))));
}
