/* json.ts: JSON of what the application gives, with an error that says whose it is. */
import { InvalidPayloadError } from './errors';

/* Escapes that jsonb refuses, of NUL and, as JSON.stringify writes no others, of half a pair; not \\u0000, which is text. */
const notOfJsonb = /(?<!\\)(?:\\\\)*\\(u0000|ud[89a-f][0-9a-f]{2})/;

/** JSON text; undefined is JSON's null where it is allowed, else an error. */
export function toJson(value: unknown, what: string): string {
	let text: string | undefined;
	try {
		text = JSON.stringify(value);
	} catch (error) {
		const hint = /BigInt/.test((error as Error).message) ? ': give it as a string' : '';
		throw new InvalidPayloadError(`${what} is no JSON: ${(error as Error).message}${hint}`, { cause: error });
	}
	if (text === undefined)
		throw new InvalidPayloadError(`${what} is no JSON: it is ${value === undefined ? 'undefined' : typeof value === 'object' ? 'an object whose toJSON gives nothing' : `a ${typeof value}`}`);
	const bad = text.includes('\\u0000') || text.includes('\\ud') ? notOfJsonb.exec(text)?.[1] : undefined;
	if (bad !== undefined)
		throw new InvalidPayloadError(bad === 'u0000'
			? `${what} has the character \\u0000, which PostgreSQL's JSON can't hold: remove it, or encode the text`
			: `${what} has half a surrogate pair, \\${bad}, which PostgreSQL's JSON can't hold: was a text cut in the middle of a character?`);
	return text;
}

/** A member of an object, of which JSON would leave out what is none. */
export function member<T>(value: T, what: string): T {
	if (typeof value === 'function' || typeof value === 'symbol')
		toJson(value, what);
	return value;
}

/** A text of the server has no NUL. */
export const withoutNul = (text: string): string => text.replaceAll('\0', '');

export const fromJson = (text: string | null | undefined): any =>
	text === null || text === undefined ? null : JSON.parse(text);
