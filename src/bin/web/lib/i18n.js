// i18n.js: texts of the page in the language of the user; one dictionary each.
import en from '../i18n/en.js';
import ptBR from '../i18n/pt-BR.js';
import toldPtBR from '../i18n/told.pt-BR.js';

export const LANGUAGES = { en: ['English', en], 'pt-BR': ['Português', ptBR] };

function choose() {
	const wanted = localStorage.getItem('eventq.language');
	if (wanted && LANGUAGES[wanted]) return wanted;
	return (navigator.languages ?? []).some((l) => l.toLowerCase().startsWith('pt')) ? 'pt-BR' : 'en';
}

export let language = choose();
export function setLanguage(to) {
	language = LANGUAGES[to] ? to : 'en';
	localStorage.setItem('eventq.language', language);
	document.documentElement.lang = language;
}

// t: the text of a key; {name} stands for values; with n, "one|many".
export function t(key, values = {}) {
	let text = LANGUAGES[language][1][key] ?? en[key] ?? key;
	if (text.includes('|') && 'n' in values) {
		const [one, many] = text.split('|');
		text = Number(values.n) === 1 ? one : many;
	}
	return text.replace(/\{(\w+)\}/g, (_, name) => (name === 'n' ? number(values.n) : String(values[name] ?? '')));
}

export const has = (key) => key in en;

const TOLD = { 'pt-BR': toldPtBR.map(([pattern, to]) => [new RegExp(`^(?:${pattern})$`, 's'), to]) };

// tell: what the database has told in English, in the language of the user; null: there is no such text.
export function tell(text) {
	if (!TOLD[language] || text === '') return text;
	for (const [pattern, to] of TOLD[language]) {
		const found = pattern.exec(text);
		if (found) return to.replace(/([$%])(\d)/g, (_, kind, i) => (kind === '%' && found[i] && found[i].length < text.length ? tell(found[i]) ?? found[i] : found[i] ?? ''));
	}
	return null;
}

// number: of any size; ids stay text and don't come here
export function number(value, digits = 0) {
	if (value === null || value === undefined) return '–';
	if (typeof value === 'string' && /^-?\d+$/.test(value) && value.length > 15) return BigInt(value).toLocaleString(language);
	return Number(value).toLocaleString(language, { maximumFractionDigits: digits });
}

// compact: 12.3k
export const compact = (value) => (value === null || value === undefined ? '–'
	: Number(value).toLocaleString(language, { notation: 'compact', maximumFractionDigits: 1 }));

export function rate(value) {
	if (value === null || value === undefined) return '–';
	const n = Number(value);
	if (n > 0 && n < 0.1) return t('perMinute', { v: (n * 60).toLocaleString(language, { maximumFractionDigits: 1 }) });
	return t('perSecond', { v: n.toLocaleString(language, { maximumFractionDigits: n < 10 ? 1 : 0 }) });
}

// duration: of seconds, in at most two units
export function duration(seconds) {
	if (seconds === null || seconds === undefined || Number.isNaN(Number(seconds))) return '–';
	const v = Math.max(0, Number(seconds));
	const f = (n, digits) => n.toLocaleString(language, { maximumFractionDigits: digits });
	if (v < 0.001) return v === 0 ? '0 s' : '<1 ms';
	if (v < 1) return `${f(v * 1000, v < 0.01 ? 1 : 0)} ms`;
	if (v < 10) return `${f(v, 1)} s`;
	if (v < 60) return `${f(Math.round(v), 0)} s`;
	const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
	const first = units.findIndex(([size]) => v >= size);
	const [size, unit] = units[first];
	const rest = units[first + 1] ? Math.floor((v % size) / units[first + 1][0]) : 0;
	return `${f(Math.floor(v / size), 0)} ${unit}${rest ? ` ${rest} ${units[first + 1][1]}` : ''}`;
}
export const ms = (value) => (value === null || value === undefined ? '–' : duration(Number(value) / 1000));

export function relative(date) {
	const seconds = (date.getTime() - Date.now()) / 1000;
	if (Math.abs(seconds) < 1.5) return t('now');
	return t(seconds < 0 ? 'ago' : 'in', { d: duration(Math.abs(Math.round(seconds))) });
}
export const exact = (date) => date.toLocaleString(language, { dateStyle: 'medium', timeStyle: 'medium' });
export const clock = (date) => date.toLocaleTimeString(language, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
