// cron.js: a cron expression in words; the expression itself where words would be longer.
import { language } from './i18n.js';

const WORDS = {
	en: {
		days: ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'],
		months: ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December'],
		and: ' and ', minute: 'every minute', minutes: (n) => `every ${n} minutes`, hour: (m) => (m ? `every hour at minute ${m}` : 'every hour'),
		hours: (n, m) => `every ${n} hours${m ? ` at minute ${m}` : ''}`, at: (x) => `at ${x}`, daily: 'every day', weekdays: 'on weekdays', weekend: 'on weekends',
		on: (d) => `on ${d}`, range: (a, b) => `from ${a} to ${b}`, dom: (d) => `on day ${d} of the month`, in: (m) => `in ${m}`, hoursRange: (a, b) => `between ${a} and ${b}`,
	},
	'pt-BR': {
		days: ['domingo', 'segunda', 'terça', 'quarta', 'quinta', 'sexta', 'sábado'],
		months: ['janeiro', 'fevereiro', 'março', 'abril', 'maio', 'junho', 'julho', 'agosto', 'setembro', 'outubro', 'novembro', 'dezembro'],
		and: ' e ', minute: 'a cada minuto', minutes: (n) => `a cada ${n} minutos`, hour: (m) => (m ? `a cada hora, no minuto ${m}` : 'a cada hora'),
		hours: (n, m) => `a cada ${n} horas${m ? `, no minuto ${m}` : ''}`, at: (x) => `às ${x}`, daily: 'todos os dias', weekdays: 'de segunda a sexta', weekend: 'nos fins de semana',
		on: (d) => `(${d})`, range: (a, b) => `de ${a} a ${b}`, dom: (d) => `no dia ${d} do mês`, in: (m) => `em ${m}`, hoursRange: (a, b) => `entre ${a} e ${b}`,
	},
};
const NAMED = { '@hourly': '0 * * * *', '@daily': '0 0 * * *', '@midnight': '0 0 * * *', '@weekly': '0 0 * * 0', '@monthly': '0 0 1 * *', '@yearly': '0 0 1 1 *', '@annually': '0 0 1 1 *' };
const NAMES = { sun: 0, mon: 1, tue: 2, wed: 3, thu: 4, fri: 5, sat: 6, jan: 1, feb: 2, mar: 3, apr: 4, may: 5, jun: 6, jul: 7, aug: 8, sep: 9, oct: 10, nov: 11, dec: 12 };
const two = (n) => String(n).padStart(2, '0');
const list = (w, items) => (items.length > 1 ? items.slice(0, -1).join(', ') + w.and + items.at(-1) : items[0]);

export function cronWords(expression) {
	const w = WORDS[language] ?? WORDS.en;
	const text = NAMED[expression.trim()] ?? expression.trim();
	const fields = text.toLowerCase().replace(/\b[a-z]{3}\b/g, (name) => NAMES[name] ?? name).split(/\s+/);
	if (fields.length !== 5) return expression;
	const [minute, hour, dom, month, dow] = fields;
	const plain = (f) => /^\d+(,\d+)*$/.test(f);
	const step = (f) => /^\*\/(\d+)$/.exec(f)?.[1];
	let when;
	if (minute === '*' && hour === '*') when = w.minute;
	else if (step(minute) && hour === '*') when = w.minutes(step(minute));
	else if (/^\d+$/.test(minute) && hour === '*') when = w.hour(Number(minute));
	else if (/^\d+$/.test(minute) && step(hour)) when = w.hours(step(hour), Number(minute));
	else if (/^\d+$/.test(minute) && plain(hour)) when = w.at(list(w, hour.split(',').map((x) => `${two(x)}:${two(minute)}`)));
	else if (step(minute) && /^\d+-\d+$/.test(hour)) when = `${w.minutes(step(minute))}, ${w.hoursRange(...hour.split('-').map((x) => `${two(x)}:00`))}`;
	else return expression;
	const parts = [when];
	if (plain(dom)) parts.push(w.dom(list(w, dom.split(','))));
	else if (dom !== '*') return expression;
	if (dow === '1-5') parts.push(w.weekdays);
	else if (dow === '0,6' || dow === '6,0' || dow === '6-7') parts.push(w.weekend);
	else if (plain(dow)) parts.push(w.on(list(w, dow.split(',').map((d) => w.days[d % 7]))));
	else if (/^\d-\d$/.test(dow)) parts.push(w.range(w.days[dow[0] % 7], w.days[dow[2] % 7]));
	else if (dow !== '*') return expression;
	if (plain(month)) parts.push(w.in(list(w, month.split(',').map((m) => w.months[m - 1]))));
	else if (month !== '*') return expression;
	if (parts.length === 1 && hour !== '*' && !step(hour)) parts.push(w.daily);
	return parts.join(', ');
}
