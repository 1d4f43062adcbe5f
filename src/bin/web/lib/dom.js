// dom.js: elements, made of text only.  No string ever becomes HTML.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
	for (const [name, value] of Object.entries(attributes ?? {})) {
		if (value === null || value === undefined || value === false) continue;
		if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
		else if (name === 'value' || name === 'checked' || name === 'disabled') element[name] = value;
		else element.setAttribute(name, value === true ? '' : String(value));
	}
	add(element, children);
	return element;
}

function add(element, children) {
	for (const child of children.flat(Infinity)) {
		if (child === null || child === undefined || child === false) continue;
		element.append(child instanceof Node ? child : document.createTextNode(String(child)));
	}
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function replace(element, ...children) {
	element.textContent = '';
	add(element, children);
	return element;
}

const ICONS = {
	overview: 'M3 12h4l3-8 4 16 3-8h4', queues: 'M4 6h16M4 12h16M4 18h10', jobs: 'M5 5h14v14H5zM9 12l2 2 4-5',
	dead: 'M12 4l9 16H3zM12 10v4M12 17v.5', events: 'M13 3L5 14h6l-1 7 8-11h-6z', rules: 'M5 6h6M5 12h14M5 18h9M17 4l3 2-3 2',
	schedules: 'M12 4a8 8 0 100 16 8 8 0 000-16zM12 8v4l3 2', flows: 'M6 4h5v5H6zM13 15h5v5h-5zM8.500 9v8.500h4.500',
	subscriptions: 'M5 19a14 14 0 0114-14M5 19a8 8 0 018-8M6 18l.5.5', workers: 'M6 10h12v9H6zM9 10V6h6v4M10 14v1M14 14v1',
	tenants: 'M4 20V8l6-4 6 4v12M16 20h4v-8l-4-2M8 11v1M12 11v1M8 15v1M12 15v1', slo: 'M4 18a8 8 0 1116 0M12 18l4-6',
	alerts: 'M6 17V11a6 6 0 1112 0v6l2 2H4zM10 21h4', audit: 'M7 4h10v16H7zM10 8h4M10 12h4M10 16h2',
	search: 'M11 5a6 6 0 100 12 6 6 0 000-12zM16 16l4 4', sun: 'M12 8a4 4 0 100 8 4 4 0 000-8zM12 2v2M12 20v2M2 12h2M20 12h2',
	out: 'M10 5H5v14h5M14 8l4 4-4 4M18 12H9', ok: 'M5 12l5 5 9-10', warn: 'M12 4l9 16H3zM12 10v4M12 17v.5', bad: 'M6 6l12 12M18 6L6 18',
	pause: 'M8 5v14M16 5v14', play: 'M7 5l12 7-12 7z', live: 'M12 9a3 3 0 100 6 3 3 0 000-6zM6 6a8 8 0 000 12M18 6a8 8 0 010 12',
	keys: 'M4 7h16v10H4zM8 14h8M8 10.500h.5M12 10.500h.5M16 10.500h.5', retry: 'M5 12a7 7 0 117 7M5 12l-2-3M5 12l3-2', more: 'M12 5v14M6 13l6 6 6-6',
};

export const icon = (name) => s('svg', { viewBox: '0 0 24 24', class: 'icon', 'aria-hidden': 'true', focusable: 'false' },
	s('path', { d: ICONS[name] ?? ICONS.ok }));

let seq = 0;
export const uid = (prefix) => `${prefix}-${++seq}`;
