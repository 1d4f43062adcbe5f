/* What Bull takes though its types don't say so: numbers that came as text from the environment, null and false for none. */
import type { JobOptions } from './bull-types';

const NUMBERS = new Set(['priority', 'delay', 'attempts', 'backoff', 'timeout', 'removeOnComplete', 'removeOnFail', 'stackTraceLimit']);
/** false says something of these. */
const BOOLEANS = new Set(['removeOnComplete', 'removeOnFail', 'lifo', 'preventParsingData']);

const isNone = (name: string, value: unknown): boolean =>
	value === null || value === undefined || (value === false && !BOOLEANS.has(name)) || (value === '' && name === 'jobId');

export function numberOf<V>(value: V): V | number {
	return typeof value === 'string' && /^\s*-?\d+(\.\d+)?\s*$/.test(value) ? Number(value) : value;
}

function numbersIn<O>(object: O, names: string[]): O {
	if (typeof object !== 'object' || object === null) {
		return object;
	}
	const to = { ...object } as Record<string, unknown>;
	for (const name of names) {
		if (typeof to[name] === 'string') {
			to[name] = numberOf(to[name]);
		}
	}
	return to as O;
}

/** Options of a job as Bull understands them: what is none is left out, and the defaults hold. */
export function jobOptions(given: JobOptions): JobOptions {
	const to: Record<string, unknown> = {};
	for (const [name, value] of Object.entries(given)) {
		if (!isNone(name, value)) {
			to[name] = NUMBERS.has(name) ? numberOf(value) : value;
		}
	}
	if (to.attempts === 0) {
		to.attempts = 1;
	}
	if (to.backoff !== undefined) {
		to.backoff = numbersIn(to.backoff, ['delay']);
	}
	for (const name of ['removeOnComplete', 'removeOnFail']) {
		if (to[name] !== undefined) {
			to[name] = numbersIn(to[name], ['age', 'count']);
		}
	}
	return to as JobOptions;
}

/** Settings and limiter of a queue. */
export const settingsOf = <O>(settings: O): O =>
	numbersIn(settings, ['max', 'duration', 'lockDuration', 'lockRenewTime', 'stalledInterval', 'maxStalledCount']);

/** Redis' pattern as a regular expression of PostgreSQL: *, ?, [a-z], [^a], and \\ before what stands for itself. */
export function regexOfGlob(glob: string): string {
	const plain = (text: string): string => text.replace(/[!-/:-@[-`{-~]/g, '\\$&');
	const parts = glob.match(/\\[^]|\[\^?(?:\\[^]|[^\]\\])*\]|[^]/gu) ?? [];
	const body = parts.map((part) => {
		if (part === '*') {
			return '.*';
		}
		if (part === '?') {
			return '.';
		}
		if (part.length > 1 && part.startsWith('[')) {
			const not = part[1] === '^';
			const members = part.slice(not ? 2 : 1, -1);
			return members === '' ? (not ? '.' : '(?!)') : `[${not ? '^' : ''}${members.replace(/\\([^])/g, '$1').replace(/[\\\[\]]/g, '\\$&')}]`;
		}
		return plain(part.length > 1 && part.startsWith('\\') ? part.slice(1) : part);
	});
	return `^(?:${body.join('')})$`;
}
