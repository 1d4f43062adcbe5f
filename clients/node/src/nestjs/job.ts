import { asError } from '../errors';
import type { JobId, JobOptions, JobStatus } from './bull-types';
import type { AwaitEventOptions, AwaitSignalOptions, DurableSteps, EventOutcome, JobStep, SignalOutcome, StepOptions } from '../steps';
import type { Queue } from './queue';

/** A call of Bull's that this package cannot keep the meaning of. */
export class UnsupportedError extends Error {
	constructor(what: string, instead: string) {
		super(`${what} has no counterpart in event_queue: ${instead}`);
		this.name = 'UnsupportedError';
	}
}

/** A job as SELECT_JOBS reads it. */
export interface JobRow {
	job_id: string;
	name: string;
	state: string;
	payload: unknown;
	metadata: Record<string, unknown> | null;
	failures: number;
	stalled: number;
	max_attempts: number | null;
	priority: number;
	created_at: Date | string;
	run_at: Date | string | null;
	claimed_at: Date | string | null;
	finished_at: Date | string | null;
	errors: { message: string; context?: string | null }[] | null;
	result: unknown;
	progress: unknown;
	unique_key: string | null;
}

/** What a processor may do with its job while it has the lease. */
export interface Lease {
	readonly token: string;
	readonly signal: AbortSignal;
	progress(value: unknown): Promise<void>;
	log(line: string): Promise<void>;
	extend(milliseconds: number): Promise<void>;
	/** Steps and waits of the job. */
	readonly durable: DurableSteps & { readonly isSuspended: boolean };
}

/** The states of the extension in Bull's words. */
const STATES: Record<string, JobStatus> = {
	ready: 'waiting',
	blocked: 'waiting',
	scheduled: 'delayed',
	retrying: 'delayed',
	suspended: 'delayed',
	leased: 'active',
	stalled: 'waiting',
	paused: 'paused',
	dead: 'failed',
	completed: 'completed',
};

export function statesOf(status: JobStatus): string[] {
	return Object.keys(STATES).filter((state) => STATES[state] === status);
}

const milliseconds = (at: Date | string | null): number | undefined => (at === null ? undefined : new Date(at).getTime());

/** Of one that was added with a delay, while that lasts. */
const delayOf = ({ state, run_at, created_at }: JobRow): number =>
	state === 'scheduled' ? Math.max(0, (milliseconds(run_at) ?? 0) - (milliseconds(created_at) ?? 0)) : 0;

/** A job of Bull 4. */
export class Job<T = any> implements DurableSteps {
	id: JobId;
	name: string;
	data: T;
	opts: JobOptions;
	attemptsMade: number;
	timestamp: number;
	processedOn?: number | undefined;
	finishedOn?: number | undefined;
	stacktrace: string[];
	returnvalue: any;
	failedReason?: string | undefined;
	/** What `metadata` the job was added with. */
	metadata: Record<string, unknown>;
	/** The number that the server knows the job by; `id` is the `jobId` it was added with, if it was. */
	readonly jobId: string;
	/** Set while a processor has the job. */
	lease?: Lease;
	/** `discard()` was called: a failure is final. */
	discarded = false;
	private reached: unknown;

	constructor(
		readonly queue: Queue<T>,
		row: JobRow,
		opts: JobOptions = {},
	) {
		// The core keeps there what the server has no column for.
		const { opts: kept, ...metadata } = (row.metadata ?? {}) as { opts?: JobOptions };
		opts = { ...kept, ...opts };
		this.jobId = row.job_id;
		this.id = String(opts.jobId ?? row.unique_key ?? row.job_id);
		this.name = row.name;
		this.data = row.payload as T;
		this.opts = { attempts: row.max_attempts ?? undefined, priority: row.priority, delay: delayOf(row), ...opts };
		this.attemptsMade = row.failures;
		this.timestamp = milliseconds(row.created_at) ?? 0;
		this.processedOn = milliseconds(row.claimed_at);
		this.finishedOn = milliseconds(row.finished_at);
		const errors = row.errors ?? [];
		// The server has the message by itself, a worker of Node's the lines of the stack.
		this.stacktrace = errors.map(({ message, context }) => (/^\s+at /.test(context ?? '') ? `Error: ${message}\n${context}` : context || message));
		this.failedReason = errors.at(-1)?.message;
		this.returnvalue = row.result ?? undefined;
		this.reached = row.progress ?? 0;
		this.metadata = metadata;
	}

	/** Aborted when the job is cancelled or its lease is lost; never, outside of a processor. */
	get signal(): AbortSignal {
		return this.lease?.signal ?? new AbortController().signal;
	}

	progress(): any;
	progress(value: any): Promise<void>;
	progress(value?: unknown): unknown {
		if (value === undefined) {
			return this.reached;
		}
		return this.report(value);
	}

	/** As in BullMQ. */
	updateProgress(value: unknown): Promise<void> {
		return this.report(value);
	}

	private async report(value: unknown): Promise<void> {
		await this.leased('progress').progress(value);
		this.reached = value;
		this.queue.emit('progress', this, value);
	}

	async log(row: string): Promise<void> {
		await this.leased('log').log(row);
	}

	/* Not of Bull's: what the job has done stays done, and it may wait for days. As in the main entry. */

	/** Does the work, unless an earlier run of the job has; what it gave, as JSON has it. In `transaction()` it is kept with it. */
	async step<R>(name: string, work: (tx: any) => Promise<R> | R, options?: StepOptions): Promise<R> {
		return this.leased('step').durable.step(name, work, options);
	}

	/** The job goes on so many milliseconds later, or at the time, from the beginning of its method; this run ends here. */
	async sleep(name: string, time: number | Date): Promise<void> {
		return this.leased('sleep').durable.sleep(name, time);
	}

	/** The job goes on when a signal comes (EventQueueService.sendSignal), or the time is over. As sleep. */
	async awaitSignal<Payload = any>(name: string, options?: AwaitSignalOptions): Promise<SignalOutcome<Payload>> {
		return this.leased('awaitSignal').durable.awaitSignal(name, options);
	}

	/** The job goes on when an event comes that matches, or the time is over. As sleep. */
	async awaitEvent<Data = any>(name: string, eventPattern: string, options?: AwaitEventOptions): Promise<EventOutcome<Data>> {
		return this.leased('awaitEvent').durable.awaitEvent(name, eventPattern, options);
	}

	/** What it has done, and what it waits for. */
	getSteps(): Promise<JobStep[]> {
		return this.queue.port.jobSteps(this.jobId);
	}

	async getState(): Promise<JobStatus | 'stuck'> {
		const state = await this.queue.stateOf(this.jobId);
		return state === undefined ? 'stuck' : (STATES[state] ?? 'stuck');
	}

	private async is(status: JobStatus): Promise<boolean> {
		return (await this.getState()) === status;
	}

	isCompleted(): Promise<boolean> {
		return this.is('completed');
	}

	isFailed(): Promise<boolean> {
		return this.is('failed');
	}

	isDelayed(): Promise<boolean> {
		return this.is('delayed');
	}

	isActive(): Promise<boolean> {
		return this.is('active');
	}

	isWaiting(): Promise<boolean> {
		return this.is('waiting');
	}

	isPaused(): Promise<boolean> {
		return this.is('paused');
	}

	async isStuck(): Promise<boolean> {
		return (await this.getState()) === 'stuck';
	}

	/** A dead letter back into its queue, with other data if they are given; a job that waits is refused. */
	async retry(data?: T): Promise<void> {
		await this.queue.retryDead(this, data);
		this.data = data ?? this.data;
	}

	async remove(): Promise<void> {
		await this.queue.removeJob(this);
	}

	async discard(): Promise<void> {
		this.discarded = true;
	}

	/** Resolves with the result, rejects with the last error. */
	finished(): Promise<any> {
		return this.queue.outcomeOf(this.jobId);
	}

	/** For a job of `getNextJob`. */
	async moveToCompleted(result?: unknown, _ignoreLock?: boolean, _notFetch?: boolean): Promise<null> {
		await this.queue.settle(this, undefined, result);
		return null;
	}

	/** For a job of `getNextJob`. */
	async moveToFailed(error: { message: string }, _ignoreLock?: boolean): Promise<null> {
		await this.queue.settle(this, asError(error ?? 'Unknown reason'));
		return null;
	}

	async extendLock(milliseconds: number): Promise<number> {
		await this.leased('extendLock').extend(milliseconds);
		return 1;
	}

	/** Of a job that waits, or in its processor, whose next attempt has the new data. */
	async update(data: T): Promise<void> {
		await this.queue.changeData(this, data);
		this.data = data;
	}

	/** A job that is delayed, or waits for its next attempt, is due now. */
	async promote(): Promise<void> {
		await this.queue.promote(this);
	}

	lockKey(): string {
		return this.lease?.token ?? '';
	}

	async takeLock(): Promise<false> {
		throw new UnsupportedError('job.takeLock()', 'queue.getNextJob() leases a job');
	}

	async releaseLock(): Promise<void> {
		await this.queue.release(this);
	}

	toJSON() {
		return {
			id: this.id,
			name: this.name,
			data: this.data,
			opts: this.opts,
			progress: this.reached as any,
			delay: this.opts.delay ?? 0,
			timestamp: this.timestamp,
			attemptsMade: this.attemptsMade,
			failedReason: this.failedReason as any,
			stacktrace: this.stacktrace,
			returnvalue: this.returnvalue ?? null,
			finishedOn: this.finishedOn ?? null,
			processedOn: this.processedOn ?? null,
		};
	}

	private leased(what: string): Lease {
		if (this.lease === undefined) {
			throw new Error(`job.${what}() is for who has leased the job: a processor, or who got it from getNextJob()`);
		}
		return this.lease;
	}
}
