/*
 * options.ts: Bull's options and ours, and what they are for the extension.
 */
import { inspect } from 'node:util';
import { UnsupportedOptionError } from './errors';
import type { TxOption } from './tx';

export type BackoffType = 'fixed' | 'exponential' | 'linear' | 'list';

/** { type, delay in ms }; another type is one of the worker's backoffStrategies. */
export interface BackoffOptions {
	type: BackoffType | (string & {});
	/** milliseconds */
	delay?: number;
	/** The longest wait, in ms. */
	max?: number;
	/** The share of the wait that is drawn at random, 0 to 1. */
	jitter?: number;
	/** With type list: the waits, in ms. */
	delays?: number[];
	/** For a strategy of the worker's. */
	options?: unknown;
}

/** How many, or for how long, finished jobs are kept. */
export type KeepJobs = boolean | number | { age?: number; count?: number };

/** Options of a job: Bull's, and ours. */
export interface JobOptions extends TxOption {
	/* Bull's */

	/** Tries in all; without it the queue's. */
	attempts?: number;
	/** Number: fixed, ms.  exponential is Bull 4's, (2^n - 1) x delay. */
	backoff?: number | BackoffOptions;
	/** Not before so many milliseconds. */
	delay?: number;
	/** 1 is first, as in Bull; see priorityLevel. */
	priority?: number;
	/** A job of this queue, tenant and key is not added while there is one that is not finished. */
	jobId?: string | number;
	/** true: not kept, false: forever, a number: the last so many of the queue; without it as the queue does. */
	removeOnComplete?: KeepJobs;
	/** The same of dead letters. */
	removeOnFail?: KeepJobs;
	/** How long an attempt may take, in ms. */
	timeout?: number;
	/** Lines of the stack that a failure keeps; default 20. */
	stackTraceLimit?: number;

	/* Ours */

	/** The extension's own priority, 0 (first) to 9, instead of priority; default 5. */
	priorityLevel?: number;
	/** Not before this time, instead of delay. */
	runAt?: Date;
	/** Jobs of one key run in order, as many at a time as the queue's groupConcurrency. */
	groupKey?: string;
	/** As jobId. */
	uniqueKey?: string;
	uniqueMode?: 'reject' | 'replace' | 'debounce' | 'throttle';
	uniqueUntil?: 'finished' | 'claimed';
	/** Of throttle, ms. */
	uniqueWindow?: number;
	/** Ids of jobs that must be finished first. */
	dependsOn?: Array<string | number | bigint | { id: string }>;
	tenantId?: string;
	/** An object that workers see beside the data. */
	metadata?: Record<string, unknown>;
}

/** Bull's limiter: max jobs in duration ms, of all workers together. */
export interface LimiterOptions {
	max: number;
	duration: number;
	/** Each value of this property of the data has a limit of its own. */
	groupKey?: string;
	/** Accepted; jobs beyond the limit wait in the queue either way. */
	bounceBack?: boolean;
}

/** Bull's settings of a queue, and of a worker. */
export interface AdvancedSettings {
	/** ms; the lease. */
	lockDuration?: number;
	/** ms; default a third of the lease. */
	lockRenewTime?: number;
	stalledInterval?: number;
	maxStalledCount?: number;
	/** type -> (failures so far, error, options) -> ms */
	backoffStrategies?: Record<string, (attemptsMade: number, error: Error, options?: any) => number>;
	/** Accepted without effect: nothing is polled. */
	guardInterval?: number;
	retryProcessDelay?: number;
	drainDelay?: number;
	isSharedChildPool?: boolean;
}

/** What a queue is made with, and held to by sync.  null: the extension's default, which for limits is none. */
export interface QueueSettings {
	defaultJobOptions?: JobOptions;
	limiter?: LimiterOptions | null;
	settings?: AdvancedSettings;
	/** Most jobs at a time, of all workers. */
	maxConcurrency?: number | null;
	groupConcurrency?: number | null;
	groupRetry?: 'block' | 'pass' | null;
	/** Tenants take turns. */
	fair?: boolean | null;
	/** False: settling does not wait for the disk. */
	durable?: boolean | null;
	/** ms */
	sla?: number | null;
}

export const interval = (ms: number): string => `${ms} milliseconds`;

/* Maps, not objects: an option may be called constructor. */
const unsupported = new Map(Object.entries({
	lifo: 'a queue is first in, first out within a priority; give the job a priority instead',
	repeat: 'use schedules: event_queue.create_schedule',
	preventParsingData: 'data is always parsed',
	parent: 'use dependsOn, or event_queue.enqueue_flow',
	keepLogs: 'lines of job.log are kept by the setting of the server',
	sizeLimit: 'the limit is the setting event_queue.max_payload of the server',
	deduplication: 'use uniqueKey, uniqueMode and uniqueWindow',
	group: 'use groupKey',
}));

/** The options, none for undefined and null; throws if they are something else. */
export function optionsOf<Options extends object>(whose: string, given: Options | undefined | null): Options {
	if (given !== undefined && given !== null && (typeof given !== 'object' || Array.isArray(given)))
		throw new UnsupportedOptionError(`the options of ${whose} are ${shown(given)}, not an object`);
	return given ?? {} as Options;
}

/** Throws if there is an option that is not known; instead: what to use in its place. */
export function checkKnown(whose: string, given: object | undefined | null, known: readonly string[], instead: Record<string, string> = {}): void {
	for (const [name, value] of Object.entries(optionsOf(whose, given)))
		if (value !== undefined && !known.includes(name))
			throw new UnsupportedOptionError(Object.hasOwn(instead, name)
				? `option ${name} of ${whose} has no meaning here: ${instead[name]}`
				: `option ${name} of ${whose} is not known; known are ${[...known].sort().join(', ')}`);
}

/** Throws if it is not what addBulk takes. */
export function checkBulk(jobs: unknown): void {
	if (!Array.isArray(jobs))
		throw new UnsupportedOptionError(`addBulk is given ${shown(jobs)}, not an array of { name, data, opts }`);
	for (const [i, job] of jobs.entries()) {
		if (job === null || typeof job !== 'object')
			throw new UnsupportedOptionError(`job ${i} of addBulk is ${shown(job)}, not { name, data, opts }`);
		checkKnown(`job ${i} of addBulk`, job, ['name', 'data', 'opts']);
	}
}

const knownAdvanced = ['lockDuration', 'lockRenewTime', 'stalledInterval', 'maxStalledCount', 'backoffStrategies', 'guardInterval', 'retryProcessDelay', 'drainDelay',
	'isSharedChildPool'];

/** Bull's settings, and limiter; throws if one is not known, or no number. */
export function checkBullSettings(whose: string, settings: AdvancedSettings | undefined, limiter?: LimiterOptions | null): void {
	checkKnown(`settings of ${whose}`, settings, knownAdvanced);
	checkKnown(`limiter of ${whose}`, limiter, ['max', 'duration', 'groupKey', 'bounceBack']);
	for (const name of ['lockDuration', 'lockRenewTime', 'stalledInterval', 'maxStalledCount'] as const)
		if (settings?.[name] !== undefined)
			integer(name, settings[name], name === 'lockDuration' || name === 'lockRenewTime' ? 1 : 0);
	if (limiter) {
		integer('limiter.max', limiter.max, 1);
		integer('limiter.duration', limiter.duration, 1);
	}
}

export const knownSettings = ['defaultJobOptions', 'limiter', 'settings', 'maxConcurrency', 'groupConcurrency', 'groupRetry', 'fair', 'durable', 'sla'];

const known = new Set(['tx', 'attempts', 'backoff', 'delay', 'priority', 'jobId', 'removeOnComplete', 'removeOnFail', 'timeout',
	'stackTraceLimit', 'priorityLevel', 'runAt', 'groupKey', 'uniqueKey', 'uniqueMode', 'uniqueUntil', 'uniqueWindow', 'dependsOn',
	'tenantId', 'metadata']);

const shown = (value: unknown): string => inspect(value, { breakLength: Infinity, depth: 1 });

export function integer(name: string, value: unknown, least: number, most = Infinity): number {
	if (typeof value !== 'number' || !Number.isFinite(value) || value < least || value > most)
		throw new UnsupportedOptionError(`${name} is ${shown(value)}, not a number from ${least} ${most === Infinity ? 'on' : `to ${most}`}`);
	return Math.round(value);
}

/* A key as text.  What has no text of its own would be the same key for all. */
function key(name: string, value: unknown): string {
	if (typeof value !== 'string' && typeof value !== 'bigint' && !(typeof value === 'number' && Number.isFinite(value)))
		throw new UnsupportedOptionError(`${name} is ${shown(value)}, neither a string nor a number`);
	return String(value);
}

/** The id of a job as text, if it is one; a number only while it is exact. */
export function jobIdOf(value: unknown): string | undefined {
	if (typeof value === 'number' ? !Number.isSafeInteger(value) : typeof value !== 'string' && typeof value !== 'bigint')
		return undefined;
	const id = String(value);
	return /^[1-9][0-9]{0,18}$/.test(id) && BigInt(id) < 2n ** 63n ? id : undefined;
}

/** The same of what is asked for; throws if it is none. */
export function checkJobId(value: unknown): string {
	const id = jobIdOf(value);
	if (id === undefined)
		throw new UnsupportedOptionError(`${shown(value)} is not the id of a job${typeof value === 'number' && value > Number.MAX_SAFE_INTEGER ? ': give one above 2^53 as a string' : ''}`);
	return id;
}

function dependency(value: unknown): string {
	const id = jobIdOf(typeof value === 'object' && value !== null ? (value as { id?: unknown }).id : value);
	if (id === undefined)
		throw new UnsupportedOptionError(`dependsOn has ${shown(value)}, neither a job nor the id of one`);
	return id;
}

/** What is at the path a.b.c of the data, among its own properties. */
export const ownValue = (data: unknown, path: string): unknown =>
	path.split('.').reduce<any>((object, part) =>
		object !== null && object !== undefined && Object.hasOwn(Object(object), part) ? object[part] : undefined, data);

/**
 * Bull's priority as one of the extension's ten.  In Bull 1 is first, there is no last
 * number, and jobs with a priority go before those without.  Those without are 5 here;
 * so 1 to 4 have a level each, and all beyond share the last one before 5.
 */
export function priorityLevelOf(priority: number | undefined): number | undefined {
	if (priority === undefined || priority === 0)
		return undefined;
	return Math.min(integer('priority', priority, 1) - 1, 4);
}

const backoffTypes = new Map([['fixed', 'fixed'], ['exponential', 'bull'], ['linear', 'linear'], ['list', 'list']]);

export interface EncodedBackoff {
	backoff?: string;
	backoff_delay?: string;
	backoff_max?: string;
	backoff_jitter?: number;
	backoff_intervals?: string[];
}

/** A backoff for enqueue and create_queue; custom: a strategy of the worker's. */
export function encodeBackoff(backoff: number | BackoffOptions): { encoded: EncodedBackoff; custom: boolean } {
	if (typeof backoff === 'number')
		return { encoded: { backoff: 'fixed', backoff_delay: interval(integer('backoff', backoff, 0)) }, custom: false };
	if (backoff === null || typeof backoff !== 'object' || typeof backoff.type !== 'string')
		throw new UnsupportedOptionError(`backoff is ${shown(backoff)}, neither a number nor { type, delay }`);
	const encoded: EncodedBackoff = {};
	encoded.backoff = backoffTypes.get(backoff.type);
	const custom = encoded.backoff === undefined;
	if (backoff.type === 'list')
		encoded.backoff_intervals = (backoff.delays ?? []).map(ms => interval(integer('backoff.delays', ms, 0)));
	else if (backoff.delay !== undefined)
		encoded.backoff_delay = interval(integer('backoff.delay', backoff.delay, 0));
	if (backoff.max !== undefined)
		encoded.backoff_max = interval(integer('backoff.max', backoff.max, 0));
	if (backoff.jitter !== undefined)
		encoded.backoff_jitter = backoff.jitter;
	return { encoded, custom };
}

/** Throws if an option has no meaning here. */
export function checkJobOptions(options: JobOptions): void {
	for (const [name, value] of Object.entries(options)) {
		if (value === undefined || known.has(name))
			continue;
		// Nothing is asked for by these values.
		if ((name === 'lifo' || name === 'preventParsingData') && value === false)
			continue;
		const instead = unsupported.get(name);
		throw new UnsupportedOptionError(instead === undefined
			? `option ${name} of a job is not known; known are ${[...known].sort().join(', ')}`
			: `option ${name} of a job has no meaning here: ${instead}`);
	}
	if (options.jobId !== undefined && options.uniqueKey !== undefined)
		throw new UnsupportedOptionError('jobId and uniqueKey are the same thing: give one of them');
	if (options.priority && options.priorityLevel !== undefined)
		throw new UnsupportedOptionError('priority and priorityLevel: give one of them');
	if (options.delay && options.runAt !== undefined)
		throw new UnsupportedOptionError('delay and runAt: give one of them');
}

/** The job's options as the argument options of enqueue. */
export function encodeJobOptions(options: JobOptions): Record<string, unknown> {
	const encoded: Record<string, unknown> = {};
	// What can't be read off the job again, for job.opts in the worker.
	const kept: Record<string, unknown> = {};

	checkJobOptions(options);
	if (options.attempts !== undefined)
		encoded.max_attempts = integer('attempts', options.attempts, 1, 1000);
	if (options.backoff !== undefined) {
		const backoff = encodeBackoff(options.backoff);
		Object.assign(encoded, backoff.encoded);
		if (backoff.custom)
			kept.backoff = options.backoff;
	}
	// Of a time that has passed, as the difference of two, it is negative: due now, as in Bull.
	if (options.delay !== undefined && options.delay !== null && !(typeof options.delay === 'number' && options.delay <= 0))
		encoded.delay = interval(integer('delay', options.delay, 0));
	if (options.runAt !== undefined) {
		if (!(options.runAt instanceof Date) || Number.isNaN(options.runAt.getTime()))
			throw new UnsupportedOptionError(`runAt is ${shown(options.runAt)}, not a valid Date`);
		encoded.run_at = options.runAt.toISOString();
	}
	const level = options.priorityLevel ?? priorityLevelOf(options.priority);
	if (level !== undefined)
		encoded.priority = level;
	if (options.priority)
		kept.priority = options.priority;
	const unique = options.uniqueKey ?? options.jobId;
	if (unique !== undefined && unique !== null) {
		encoded.unique_key = key(options.jobId === undefined ? 'uniqueKey' : 'jobId', unique);
		if (options.jobId !== undefined)
			kept.jobId = typeof options.jobId === 'bigint' ? encoded.unique_key : options.jobId;
	}
	if (options.uniqueMode !== undefined)
		encoded.unique_mode = options.uniqueMode;
	if (options.uniqueUntil !== undefined)
		encoded.unique_until = options.uniqueUntil;
	if (options.uniqueWindow !== undefined)
		encoded.unique_window = interval(integer('uniqueWindow', options.uniqueWindow, 0));
	if (options.groupKey !== undefined && options.groupKey !== null)
		encoded.group_key = key('groupKey', options.groupKey);
	if (options.dependsOn !== undefined && options.dependsOn !== null && !Array.isArray(options.dependsOn))
		throw new UnsupportedOptionError(`dependsOn is ${shown(options.dependsOn)}, not an array of jobs or ids`);
	if (options.dependsOn?.length)
		encoded.depends_on = options.dependsOn.map(dependency);
	if (options.timeout !== undefined && options.timeout !== null && options.timeout !== 0)
		encoded.time_limit = interval(integer('timeout', options.timeout, 1));
	encodeKeepOfJob(options.removeOnComplete, 'completed', encoded);
	encodeKeepOfJob(options.removeOnFail, 'failed', encoded);
	if (options.stackTraceLimit !== undefined)
		kept.stackTraceLimit = options.stackTraceLimit;
	if (options.metadata !== undefined && (options.metadata === null || typeof options.metadata !== 'object' || Array.isArray(options.metadata)))
		throw new UnsupportedOptionError(`metadata is ${shown(options.metadata)}, not an object`);
	const metadata = { ...options.metadata, ...(Object.keys(kept).length === 0 ? {} : { opts: kept }) };
	if (Object.keys(metadata).length > 0)
		encoded.metadata = metadata;
	return encoded;
}

/** What the server's integers can say. */
const mostKept = 2 ** 31 - 1;

/* What one job asks for; of a pair that enqueue is given one, the queue's settings do not count. */
function encodeKeepOfJob(remove: KeepJobs | undefined, suffix: 'completed' | 'failed', encoded: Record<string, unknown>): void {
	const name = suffix === 'completed' ? 'removeOnComplete' : 'removeOnFail';
	if (remove === undefined || remove === null)
		return;
	if (typeof remove === 'boolean' || remove === 0)
		encoded[`keep_${suffix}`] = remove === false ? '1000 years' : '0';
	else if (typeof remove === 'number')
		encoded[`keep_${suffix}_count`] = Math.min(integer(name, remove, 1), mostKept);
	else if (typeof remove === 'object' && (remove.age !== undefined || remove.count !== undefined)) {
		if (remove.count === 0)
			encoded[`keep_${suffix}`] = '0';
		else {
			if (remove.age !== undefined)
				encoded[`keep_${suffix}`] = interval(integer(`${name}.age`, remove.age * 1000, 0));
			if (remove.count !== undefined)
				encoded[`keep_${suffix}_count`] = Math.min(integer(`${name}.count`, remove.count, 1), mostKept);
		}
	} else
		throw new UnsupportedOptionError(`${name} is ${shown(remove)}, neither true, false, a number nor { age, count }`);
}

/* keep_completed and keep_failed with their counts, from removeOnComplete and removeOnFail */
function encodeKeep(remove: KeepJobs | undefined, suffix: 'completed' | 'failed', encoded: Record<string, unknown>): void {
	const age = `keep_${suffix}`;
	const count = `keep_${suffix}_count`;
	if (remove === undefined)
		return;
	encoded[age] = encoded[count] = null;
	if (typeof remove === 'object') {
		if (remove.age !== undefined)
			encoded[age] = interval(remove.age * 1000);
		if (remove.count !== undefined)
			encoded[count] = remove.count;
	} else if (typeof remove === 'number')
		encoded[count] = remove;
	else if (remove === false && suffix === 'completed')
		encoded[age] = '1000 years';
	else if (remove === true && suffix === 'failed')
		encoded[age] = interval(1);
}

/** The settings as arguments of create_queue and alter_queue; null: to be reset. */
export function encodeQueueSettings(queue: QueueSettings): Record<string, unknown> {
	const encoded: Record<string, unknown> = {};
	const job = optionsOf('the jobs of a queue', queue.defaultJobOptions);
	const settings = queue.settings ?? {};

	checkJobOptions(job);
	checkBullSettings('a queue', queue.settings, queue.limiter);
	if (job.attempts !== undefined)
		encoded.max_attempts = integer('attempts', job.attempts, 1);
	if (job.backoff !== undefined)
		Object.assign(encoded, encodeBackoff(job.backoff).encoded);
	encodeKeep(job.removeOnComplete, 'completed', encoded);
	encodeKeep(job.removeOnFail, 'failed', encoded);
	if (queue.limiter !== undefined)
		encoded.rate_limit = encoded.rate_interval = encoded.group_rate_limit = encoded.group_rate_interval = null;
	if (queue.limiter) {
		const group = queue.limiter.groupKey === undefined ? '' : 'group_';
		encoded[`${group}rate_limit`] = queue.limiter.max;
		encoded[`${group}rate_interval`] = interval(queue.limiter.duration);
		// Bull limits how many of a group begin, not how many run.
		if (group !== '' && queue.groupConcurrency === undefined)
			encoded.group_concurrency = 1000;
	}
	if (settings.lockDuration !== undefined)
		encoded.lease = interval(settings.lockDuration);
	// In Bull 0 is never
	if (settings.stalledInterval)
		encoded.stalled_interval = interval(settings.stalledInterval);
	if (settings.maxStalledCount !== undefined)
		encoded.max_stalled = settings.maxStalledCount;
	if (queue.maxConcurrency !== undefined)
		encoded.max_concurrency = queue.maxConcurrency;
	if (queue.groupConcurrency !== undefined)
		encoded.group_concurrency = queue.groupConcurrency;
	if (queue.groupRetry !== undefined)
		encoded.group_retry = queue.groupRetry;
	if (queue.fair !== undefined)
		encoded.fair = queue.fair;
	if (queue.durable !== undefined)
		encoded.durable = queue.durable;
	if (queue.sla !== undefined)
		encoded.sla = queue.sla === null ? null : interval(queue.sla);
	return encoded;
}
