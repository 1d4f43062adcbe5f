/* The types of Bull 4 that its users name, with the members that have a meaning here. */
import type { Job } from './job';

export type JobId = number | string;
export type DoneCallback = (error?: Error | null, value?: any) => void;
export type ProcessCallbackFunction<T> = (job: Job<T>, done: DoneCallback) => void;
export type ProcessPromiseFunction<T> = (job: Job<T>) => Promise<void>;
export type EventCallback = () => void;
export type ErrorEventCallback = (error: Error) => void;
export type WaitingEventCallback = (jobId: JobId) => void;
export type ActiveEventCallback<T = any> = (job: Job<T>) => void;
export type StalledEventCallback<T = any> = (job: Job<T>) => void;
export type ProgressEventCallback<T = any> = (job: Job<T>, progress: any) => void;
export type CompletedEventCallback<T = any> = (job: Job<T>, result: any) => void;
export type FailedEventCallback<T = any> = (job: Job<T>, error: Error) => void;
export type CleanedEventCallback<T = any> = (jobs: Array<Job<T>>, status: JobStatusClean) => void;
export type RemovedEventCallback<T = any> = (job: Job<T>) => void;
export type JobStatus = 'completed' | 'waiting' | 'active' | 'delayed' | 'failed' | 'paused';
export type JobStatusClean = 'completed' | 'wait' | 'active' | 'delayed' | 'failed' | 'paused';

export interface KeepJobsOptions {
	/** Seconds. */
	age?: number | undefined;
	count?: number | undefined;
}

export interface BackoffOptions {
	type: string;
	/** Milliseconds. */
	delay?: number | undefined;
	options?: any;
}

export interface RepeatOptions {
	tz?: string | undefined;
	/** Not after. */
	endDate?: Date | string | number | undefined;
	/** It ends with this run, counted from when it was first added; those that the server was down for count. */
	limit?: number | undefined;
	/** So many of the limit are done. */
	count?: number | undefined;
}

export interface CronRepeatOptions extends RepeatOptions {
	cron: string;
	/** Not before. */
	startDate?: Date | string | number | undefined;
}

export interface EveryRepeatOptions extends RepeatOptions {
	/** Milliseconds: whole seconds, at most 366 days. */
	every: number;
}

export interface DebounceOptions {
	id: string;
	/** Milliseconds. */
	ttl?: number | undefined;
}

export interface JobOptions {
	priority?: number | undefined;
	/** Milliseconds. */
	delay?: number | undefined;
	attempts?: number | undefined;
	backoff?: number | BackoffOptions | undefined;
	/** Milliseconds; an attempt that takes longer has failed. */
	timeout?: number | undefined;
	jobId?: JobId | undefined;
	removeOnComplete?: boolean | number | KeepJobsOptions | undefined;
	removeOnFail?: boolean | number | KeepJobsOptions | undefined;
	repeat?: ((CronRepeatOptions | EveryRepeatOptions) & { readonly key?: string }) | undefined;
	debounce?: DebounceOptions | undefined;
	/** false only: jobs run in the order of priority and time. */
	lifo?: boolean | undefined;
	/** Taken and without effect: the server keeps the last 50 errors of a job. */
	stackTraceLimit?: number | undefined;
	preventParsingData?: boolean | undefined;

	/** Jobs of one key run in their order, one at a time. */
	groupKey?: string | undefined;
	/** While a job of the key lives there is no second one. */
	uniqueKey?: string | undefined;
	/** Jobs that must be finished first. */
	dependsOn?: (Job | JobId)[] | undefined;
	/** Seen by processors beside the data. */
	metadata?: Record<string, unknown> | undefined;
}

export interface RateLimiter {
	max: number;
	/** Milliseconds. */
	duration: number;
	/** Taken and without effect: jobs that wait for the rate keep their place. */
	bounceBack?: boolean | undefined;
	/** A path into the data, as "contact.phone": the limit counts for each value by itself. */
	groupKey?: string | undefined;
}

export interface AdvancedSettings {
	lockDuration?: number | undefined;
	stalledInterval?: number | undefined;
	maxStalledCount?: number | undefined;
	/** Strategies of your own: called when an attempt fails, with the milliseconds to wait as result. */
	backoffStrategies?: { [key: string]: (attemptsMade: number, error: Error, options?: any) => number } | undefined;
	/** Taken and without effect: nothing is polled, heartbeats come by themselves. */
	lockRenewTime?: number | undefined;
	guardInterval?: number | undefined;
	retryProcessDelay?: number | undefined;
	drainDelay?: number | undefined;
}

export interface JobCounts {
	active: number;
	completed: number;
	failed: number;
	delayed: number;
	waiting: number;
	/** Those that would wait, if the queue were not paused. */
	paused?: number;
}

export interface JobInformation {
	key: string;
	name: string;
	id?: string | undefined;
	endDate?: number | undefined;
	tz?: string | undefined;
	cron: string;
	every: number;
	next: number;
}
