/* json.ts: JSON of what the application gives, with an error that says whose it is. */
import { InvalidPayloadError } from './errors';

/** JSON text; undefined is JSON's null where it is allowed, else an error. */
export function toJson(value: unknown, what: string): string {
	let text: string | undefined;
	try {
		text = JSON.stringify(value);
	} catch (error) {
		throw new InvalidPayloadError(`${what} is no JSON: ${(error as Error).message}`, { cause: error });
	}
	if (text === undefined)
		throw new InvalidPayloadError(`${what} is no JSON: it is ${value === undefined ? 'undefined' : `a ${typeof value}`}`);
	return text;
}

export const fromJson = (text: string | null | undefined): any =>
	text === null || text === undefined ? null : JSON.parse(text);
