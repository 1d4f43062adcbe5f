/*
 * options.ts: Bull's options and ours, and what they are for the extension.
 */
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
	/** The queue keeps jobs, or not: what is given here must be what the queue does. */
	removeOnComplete?: KeepJobs;
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

const unsupported: Record<string, string> = {
	lifo: 'a queue is first in, first out within a priority; give the job a priority instead',
	repeat: 'use schedules: event_queue.create_schedule',
	preventParsingData: 'data is always parsed',
	parent: 'use dependsOn, or event_queue.enqueue_flow',
	keepLogs: 'lines of job.log are kept by the setting of the server',
	sizeLimit: 'the limit is the setting event_queue.max_payload of the server',
	deduplication: 'use uniqueKey, uniqueMode and uniqueWindow',
	group: 'use groupKey',
};

export const knownSettings = ['defaultJobOptions', 'limiter', 'settings', 'maxConcurrency', 'groupConcurrency', 'groupRetry', 'fair', 'durable', 'sla'];

const known = new Set(['tx', 'attempts', 'backoff', 'delay', 'priority', 'jobId', 'removeOnComplete', 'removeOnFail', 'timeout',
	'stackTraceLimit', 'priorityLevel', 'runAt', 'groupKey', 'uniqueKey', 'uniqueMode', 'uniqueUntil', 'uniqueWindow', 'dependsOn',
	'tenantId', 'metadata']);

function integer(name: string, value: unknown, least: number): number {
	if (typeof value !== 'number' || !Number.isFinite(value) || value < least)
		throw new UnsupportedOptionError(`${name} is ${JSON.stringify(value)}, not a number from ${least} on`);
	return Math.round(value);
}

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
		throw new UnsupportedOptionError(`backoff is ${JSON.stringify(backoff)}, neither a number nor { type, delay }`);
	const encoded: EncodedBackoff = {};
	const types: Record<string, string> = { fixed: 'fixed', exponential: 'bull', linear: 'linear', list: 'list' };
	const custom = types[backoff.type] === undefined;
	if (!custom)
		encoded.backoff = types[backoff.type];
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
		throw new UnsupportedOptionError(unsupported[name] === undefined
			? `option ${name} of a job is not known; known are ${[...known].sort().join(', ')}`
			: `option ${name} of a job has no meaning here: ${unsupported[name]}`);
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
		encoded.max_attempts = integer('attempts', options.attempts, 1);
	if (options.backoff !== undefined) {
		const backoff = encodeBackoff(options.backoff);
		Object.assign(encoded, backoff.encoded);
		if (backoff.custom)
			kept.backoff = options.backoff;
	}
	if (options.delay)
		encoded.delay = interval(integer('delay', options.delay, 0));
	if (options.runAt !== undefined)
		encoded.run_at = options.runAt.toISOString();
	const level = options.priorityLevel ?? priorityLevelOf(options.priority);
	if (level !== undefined)
		encoded.priority = level;
	if (options.priority)
		kept.priority = options.priority;
	const key = options.uniqueKey ?? options.jobId;
	if (key !== undefined) {
		encoded.unique_key = String(key);
		if (options.jobId !== undefined)
			kept.jobId = options.jobId;
	}
	if (options.uniqueMode !== undefined)
		encoded.unique_mode = options.uniqueMode;
	if (options.uniqueUntil !== undefined)
		encoded.unique_until = options.uniqueUntil;
	if (options.uniqueWindow !== undefined)
		encoded.unique_window = interval(integer('uniqueWindow', options.uniqueWindow, 0));
	if (options.groupKey !== undefined)
		encoded.group_key = options.groupKey;
	if (options.dependsOn !== undefined && options.dependsOn.length > 0)
		// Numbers of jobs are exact in JSON as long as they are below 2^53.
		encoded.depends_on = options.dependsOn.map(job => Number(typeof job === 'object' ? job.id : job));
	if (options.timeout)
		encoded.time_limit = interval(integer('timeout', options.timeout, 1));
	if (options.stackTraceLimit !== undefined)
		kept.stackTraceLimit = options.stackTraceLimit;
	const metadata = { ...options.metadata, ...(Object.keys(kept).length === 0 ? {} : { opts: kept }) };
	if (Object.keys(metadata).length > 0)
		encoded.metadata = metadata;
	return encoded;
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
	const job = queue.defaultJobOptions ?? {};
	const settings = queue.settings ?? {};

	checkJobOptions(job);
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
		encoded[`${group}rate_limit`] = integer('limiter.max', queue.limiter.max, 1);
		encoded[`${group}rate_interval`] = interval(integer('limiter.duration', queue.limiter.duration, 1));
		// Bull limits how many of a group begin, not how many run.
		if (group !== '' && queue.groupConcurrency === undefined)
			encoded.group_concurrency = 1000;
	}
	if (settings.lockDuration !== undefined)
		encoded.lease = interval(integer('lockDuration', settings.lockDuration, 1));
	if (settings.stalledInterval !== undefined)
		encoded.stalled_interval = interval(integer('stalledInterval', settings.stalledInterval, 1));
	if (settings.maxStalledCount !== undefined)
		encoded.max_stalled = integer('maxStalledCount', settings.maxStalledCount, 0);
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
