/*
 * errors.ts: errors of the extension as classes with their SQLSTATE and DETAIL, and
 * what a processor throws to say what becomes of its job.
 */

import { inspect } from 'node:util';
import { isNativeError } from 'node:util/types';

/** What the server said beside the message. */
export interface ServerFields {
	sqlstate?: string;
	detail?: string;
	hint?: string;
	cause?: unknown;
}

/** Every error of this package, and those of the extension (SQLSTATE EQ...). */
export class EventQueueError extends Error {
	/** The SQLSTATE, if the server raised it. */
	readonly sqlstate?: string;
	/** DETAIL as the server sent it; JSON for those errors that say so in the reference. */
	readonly detail?: string;
	readonly hint?: string;

	constructor(message: string, fields: ServerFields = {}) {
		super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
		this.name = new.target.name;
		this.sqlstate = fields.sqlstate;
		this.detail = fields.detail;
		this.hint = fields.hint;
	}

	/** DETAIL as an object if it is JSON, else undefined. */
	get detailObject(): Record<string, unknown> | undefined {
		if (this.detail === undefined || !this.detail.startsWith('{'))
			return undefined;
		try {
			return JSON.parse(this.detail);
		} catch {
			return undefined;
		}
	}
}

/* Errors of the extension */

/** EQ001: the aggregate is not at the expected version. */
export class WrongVersionError extends EventQueueError {
	/** The version that the aggregate has. */
	get currentVersion(): number | undefined {
		const version = this.detailObject?.current_version;
		return version === undefined ? undefined : Number(version);
	}
}
/** EQ002: the event id was used with other content. */
export class EventIdReusedError extends EventQueueError {}
/** EQ003, EQ004, EQ047: not the session's tenant, none given where one is required, or two. */
export class TenantError extends EventQueueError {}
/** EQ005, and 54000 of jsonb */
export class PayloadTooLargeError extends EventQueueError {}
/** EQ006 */
export class InvalidNameError extends EventQueueError {}
/** EQ009, EQ014, EQ015, EQ023, and 22021 of a text with \u0000 */
export class InvalidArgumentError extends EventQueueError {}
/** EQ010 */
export class QueueNotFoundError extends EventQueueError {}
/** EQ011, EQ018 */
export class AlreadyExistsError extends EventQueueError {}
/** EQ012 */
export class InvalidSettingError extends EventQueueError {}
/** EQ016: the lease is lost; nothing was changed. */
export class LeaseLostError extends EventQueueError {}
/** EQ017, EQ032 */
export class JobNotFoundError extends EventQueueError {}
/** EQ025: no such subscription, event, rule, ... */
export class NotFoundError extends EventQueueError {}
/** EQ027: some of the events were written before, others were not. */
export class PartlyWrittenError extends EventQueueError {}
/** EQ028: the position is ahead of the store, which was restored to an earlier point. */
export class PositionLostError extends EventQueueError {
	/** The position to go on from. */
	get goOnAfter(): string | undefined {
		const position = this.detailObject?.go_on_after;
		return position === undefined ? undefined : String(position);
	}
}
/** EQ029: acknowledged is a position that was not fetched. */
export class NotFetchedError extends EventQueueError {}
/** EQ033: the job was cancelled; also the reason of a job's signal. */
export class JobCancelledError extends EventQueueError {}
/** EQ034 */
export class QueueDrainingError extends EventQueueError {}
/** EQ036: the store is a restored copy that is not in service. */
export class NotInServiceError extends EventQueueError {}

/** EQ062: a step's name was used in this run already, or for another kind of step. */
export class StepTwiceError extends EventQueueError {}
/**
 * EQ063, and what a wait of a job throws to end its run: the job is called again when what it
 * waits for has come.  Let it pass: whatever the processor does with it, the run is over.
 */
export class JobSuspendedError extends EventQueueError {}

/* Errors of this package */

/** The database has no event_queue, or it is not preloaded (EQ000). */
export class ExtensionMissingError extends EventQueueError {}
/** The extension is older than this package needs, or another version than its library (EQ045). */
export class ExtensionVersionError extends EventQueueError {}
/** 42501: the role has not been granted what the call needs. */
export class AccessDeniedError extends EventQueueError {}
/** The server can't be reached, or went away during a call. */
export class ConnectionError extends EventQueueError {
	/** False: the call never reached the server.  True: it may have been carried out. */
	readonly outcomeUnknown: boolean;

	constructor(message: string, outcomeUnknown: boolean, cause?: unknown, sqlstate?: string) {
		super(message, { cause, sqlstate });
		this.outcomeUnknown = outcomeUnknown;
	}
}
/** 25006: the server is a standby, or its transactions are read-only by a setting.  Nothing was carried out. */
export class ReadOnlyError extends ConnectionError {
	constructor(message: string, fields: ServerFields = {}) {
		super(message, false, fields.cause, '25006');
	}
}
/** An option of Bull, or an unknown one, that has no meaning here. */
export class UnsupportedOptionError extends EventQueueError {}
/** A payload, event or result that is no JSON. */
export class InvalidPayloadError extends EventQueueError {}
/** A processor for this name was given before. */
export class ProcessorExistsError extends EventQueueError {}
/** What was given as tx is no transaction that this package knows, or nothing of the transaction is kept. */
export class InvalidTransactionError extends EventQueueError {}
/** The EventQueue or Worker is closed; also the reason of a job's signal at the end of a shutdown's time. */
export class ClosedError extends EventQueueError {}
/** An attempt took longer than its timeout. */
export class JobTimeoutError extends EventQueueError {}
/** awaitJob: the job is dead. */
export class JobFailedError extends EventQueueError {}

/* What a processor throws */

/** The job is not tried again. */
export class UnrecoverableError extends Error {
	constructor(message = 'unrecoverable') {
		super(message);
		this.name = 'UnrecoverableError';
	}
}

/**
 * The other side is busy (429): the job goes back into the queue for so long, which does
 * not count as an attempt, and this worker, or nobody, claims more of the queue meanwhile.
 */
export class RateLimitError extends Error {
	/** milliseconds */
	readonly retryAfter: number;
	/** worker: this worker claims nothing meanwhile; queue: nobody does; job: only this job (and its group) waits. */
	readonly scope: 'worker' | 'queue' | 'job';

	constructor(retryAfter = 1000, scope: 'worker' | 'queue' | 'job' = 'worker') {
		super(`rate limited, again after ${retryAfter} ms`);
		this.name = 'RateLimitError';
		this.retryAfter = retryAfter;
		this.scope = scope;
	}
}

/** The attempt failed and counts; the next one is after so many milliseconds, whatever the backoff says. */
export class RetryAfterError extends Error {
	/** milliseconds */
	readonly retryAfter: number;

	constructor(message: string, retryAfter: number) {
		super(message);
		this.name = 'RetryAfterError';
		this.retryAfter = retryAfter;
	}
}

/** The job waits for so many milliseconds, or as job.moveToDelayed said; no attempt is counted. */
export class DelayedError extends Error {
	readonly delay?: number;

	constructor(delay?: number) {
		super('delayed');
		this.name = 'DelayedError';
		this.delay = delay;
	}
}

type ErrorClass = new (message: string, fields?: ServerFields) => EventQueueError;

const classes: Record<string, ErrorClass> = {
	EQ000: ExtensionMissingError,
	EQ001: WrongVersionError,
	EQ002: EventIdReusedError,
	EQ003: TenantError,
	EQ004: TenantError,
	EQ005: PayloadTooLargeError,
	EQ006: InvalidNameError,
	EQ009: InvalidArgumentError,
	EQ010: QueueNotFoundError,
	EQ011: AlreadyExistsError,
	EQ012: InvalidSettingError,
	EQ014: InvalidArgumentError,
	EQ015: InvalidArgumentError,
	EQ016: LeaseLostError,
	EQ017: JobNotFoundError,
	EQ018: AlreadyExistsError,
	EQ023: InvalidArgumentError,
	EQ025: NotFoundError,
	EQ027: PartlyWrittenError,
	EQ028: PositionLostError,
	EQ029: NotFetchedError,
	EQ032: JobNotFoundError,
	EQ033: JobCancelledError,
	EQ034: QueueDrainingError,
	EQ036: NotInServiceError,
	EQ045: ExtensionVersionError,
	EQ047: TenantError,
	EQ062: StepTwiceError,
	EQ063: JobSuspendedError,
};

/* Also the server's timeouts that end a session, and what Prisma calls it. */
const connectionCodes = new Set(['57P01', '57P02', '57P03', '57P04', '57P05', '25P03', '25P04', '53300', '25006', 'P1001', 'P1002', 'P1017', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ENOENT',
	'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH']);

/** Each place where drivers and ORMs keep the server's error: pg, TypeORM, Prisma, Drizzle. */
function* sourcesOf(error: any): Generator<any> {
	const seen = new Set();
	const open = [error];
	while (open.length > 0) {
		const next = open.shift();
		if (next === null || typeof next !== 'object' || seen.has(next))
			continue;
		seen.add(next);
		yield next;
		open.push(next.driverError, next.meta, next.driverAdapterError, next.cause);
	}
}

function serverFieldsOf(error: unknown): ServerFields & { message?: string } {
	for (const source of sourcesOf(error)) {
		const code = source.originalCode ?? source.code;
		// P2010 and its like are Prisma's own
		if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^P[0-9]{4}$/.test(code))
			return {
				sqlstate: code,
				detail: source.detail ?? undefined,
				hint: source.hint ?? undefined,
				message: source.originalMessage ?? source.message,
			};
	}
	return {};
}

/** True if the connection, not the statement, is what failed. */
export function isConnectionError(error: unknown): boolean {
	if (error instanceof ConnectionError)
		return true;
	for (const source of sourcesOf(error)) {
		const code = source.code;
		if (typeof code === 'string' && (connectionCodes.has(code) || /^08/.test(code)))
			return true;
		if (Array.isArray(source.errors) && source.errors.some(isConnectionError))
			return true;
		if (typeof source.message === 'string' &&
			/Connection terminated|timeout exceeded when trying to connect|not queryable|connection is closed|Client was closed/i.test(source.message))
			return true;
	}
	return false;
}

/**
 * True if the statement was rolled back for a reason that passes by itself: a conflict, a lock or a time that
 * was not to be had, no room, a disk that fails.
 */
export const isPassing = (error: unknown): boolean => /^(40001|40P01|55P03|57014|53...|58...)$/.test(serverFieldsOf(error).sqlstate ?? '');

/** True if an earlier statement of the transaction failed. */
export const isAborted = (error: unknown): boolean => serverFieldsOf(error).sqlstate === '25P02';

/** True if the statement took longer than statement_timeout, or was cancelled by hand. */
export const isCancelled = (error: unknown): boolean => serverFieldsOf(error).sqlstate === '57014';

/** True if a library says that the transaction is over, or its connection was given back. */
export function hasEnded(error: unknown): boolean {
	for (const source of sourcesOf(error)) {
		if (source.code === 'P2028')
			return true;
		if (source.code === undefined && typeof source.message === 'string' &&
			/transaction.* already |already (been )?(released|committed|rolled back)|Client was closed and is not queryable/i.test(source.message))
			return true;
	}
	return false;
}

/** What was thrown, as an Error: it may be anything, also of another realm (vm, Jest). */
export function asError(thrown: unknown): Error {
	let text: string;
	try {
		if (thrown instanceof Error || isNativeError(thrown)) {
			// They are read later, where nothing may throw.
			const { name: _n, message: _m, stack: _s } = thrown as Error;
			return thrown as Error;
		}
		const message = (thrown as any)?.message;
		text = typeof thrown === 'string' ? thrown : typeof message === 'string' ? message : inspect(thrown, { breakLength: Infinity });
	} catch {
		text = 'something was thrown that can\'t be shown';
	}
	return new Error(text, { cause: thrown });
}

/** The error as one of ours where it is one; any other as it is. */
export function toEventQueueError(error: unknown): unknown {
	if (error instanceof EventQueueError)
		return error;
	const { message, ...fields } = serverFieldsOf(error);
	let text = message ?? (error instanceof Error ? error.message : String(error));
	const state = fields.sqlstate;
	// What to do belongs to what is read in a log.
	if (state !== undefined && /^EQ/.test(state) && fields.hint !== undefined)
		text = `${text}. ${fields.hint}`;
	const all = { ...fields, cause: error };
	if (state === undefined)
		return error;
	if (state === '25006')
		return new ReadOnlyError(`${text}: a standby, and default_transaction_read_only, allow no writing; connect to the primary`, all);
	if (classes[state] !== undefined)
		return new classes[state](text, all);
	if (/^EQ/.test(state))
		return new EventQueueError(text, all);
	if (state === '22021' && /0x00/.test(text))
		return new InvalidArgumentError(`a name or text has the character \\u0000, which PostgreSQL can't hold: ${text}`, all);
	if (state === '54000' && /jsonb/.test(text))
		return new PayloadTooLargeError(`${text}: a document of jsonb holds 256 MB`, all);
	if (state === '3F000' || ((state === '42883' || state === '42P01') && /event_queue\./.test(text)))
		return new ExtensionMissingError(
			`${text}: the database has no event_queue, or an older one; CREATE EXTENSION event_queue, or ALTER EXTENSION event_queue UPDATE`, all);
	if (state === '42501' && /event_queue|claim|enqueue|append|complete|fetch_events|function|table|schema/.test(text))
		return new AccessDeniedError(
			`${text}: grant it by event_queue.grant_producer, grant_worker, grant_consumer or grant_admin`, all);
	return error;
}
