/*
 * job.ts: a job, as add returns it and as a processor gets it.
 */
import { toJson } from './json';
import { LeaseLostError, UnsupportedOptionError } from './errors';
import type { JobOptions } from './options';
import type { Queue } from './queue';

export type JobState = 'ready' | 'scheduled' | 'retrying' | 'blocked' | 'leased' | 'stalled' | 'paused' | 'dead' | 'completed' | 'gone';
/** Bull's names of states. */
export type BullJobState = 'waiting' | 'delayed' | 'active' | 'paused' | 'failed' | 'completed' | 'stuck';

const bullStates: Record<JobState, BullJobState> = {
	ready: 'waiting',
	scheduled: 'delayed',
	retrying: 'delayed',
	blocked: 'waiting',
	leased: 'active',
	stalled: 'active',
	paused: 'paused',
	dead: 'failed',
	completed: 'completed',
	gone: 'stuck',
};

/** What a job is made of; those after data are known of claimed and of looked up ones. */
export interface JobFields<Data> {
	id: string;
	name: string;
	data: Data;
	opts?: JobOptions;
	attemptsMade?: number;
	stalledCounter?: number;
	timestamp?: number;
	processedOn?: number;
	finishedOn?: number;
	tenantId?: string;
	groupKey?: string;
	metadata?: Record<string, unknown>;
	progress?: any;
	returnvalue?: any;
	failedReason?: string;
	state?: JobState;
	/** Of a claimed job. */
	token?: string;
	leasedUntil?: Date;
	signal?: AbortSignal;
}

const never = new AbortController().signal;

export class Job<Data = any, Result = any, Name extends string = string> {
	/** The number that the extension gave it, as a string. */
	readonly id: string;
	readonly name: Name;
	readonly data: Data;
	readonly queue: Queue<any, any, any>;
	/** As given to add; in a worker, what can be told of them. */
	readonly opts: JobOptions;
	/** Failed attempts; 0 in the first. */
	attemptsMade: number;
	/** How often its lease ran out. */
	readonly stalledCounter: number;
	/** Made at, ms since 1970. */
	readonly timestamp: number;
	/** This attempt began at. */
	processedOn?: number;
	finishedOn?: number;
	returnvalue?: Result;
	failedReason?: string;
	stacktrace: string[] = [];
	readonly tenantId?: string;
	readonly groupKey?: string;
	readonly metadata: Record<string, unknown>;
	/** Proof of the lease; only in a worker. */
	readonly token?: string;
	leasedUntil?: Date;
	/** Aborted when the job is cancelled, its lease is lost, its timeout is over, or the worker ends before it. */
	readonly signal: AbortSignal;

	private currentProgress: any;
	/** @internal */ discarded = false;
	/** @internal */ delayedUntil?: number;
	/** @internal */ onProgress?: (value: any) => void;

	/** @internal */
	constructor(queue: Queue<any, any, any>, fields: JobFields<Data>) {
		this.queue = queue;
		this.id = fields.id;
		this.name = fields.name as Name;
		this.data = fields.data;
		this.opts = fields.opts ?? {};
		this.attemptsMade = fields.attemptsMade ?? 0;
		this.stalledCounter = fields.stalledCounter ?? 0;
		this.timestamp = fields.timestamp ?? Date.now();
		this.processedOn = fields.processedOn;
		this.finishedOn = fields.finishedOn;
		this.tenantId = fields.tenantId;
		this.groupKey = fields.groupKey;
		this.metadata = fields.metadata ?? {};
		this.token = fields.token;
		this.leasedUntil = fields.leasedUntil;
		this.signal = fields.signal ?? never;
		this.currentProgress = fields.progress ?? 0;
		this.returnvalue = fields.returnvalue;
		this.failedReason = fields.failedReason;
	}

	private lease(what: string): [string, string] {
		if (this.token === undefined)
			throw new LeaseLostError(`${what} of job ${this.id}: only its worker may, while it has the lease`);
		return [this.id, this.token];
	}

	/** Bull 4's: without a value what was reported last, with one reports it. */
	progress(): any;
	progress(value: any): Promise<void>;
	progress(value?: any): any {
		return arguments.length === 0 ? this.currentProgress : this.updateProgress(value);
	}

	/** Reports progress, for the view jobs and the worker's event. */
	async updateProgress(value: any): Promise<void> {
		await this.queue.client.database.run('SELECT event_queue.report_progress($1::text::bigint, $2::text::uuid, $3::text::jsonb)::text',
			[...this.lease('progress'), toJson(value, 'progress')]);
		this.currentProgress = value;
		this.onProgress?.(value);
	}

	/** Writes a line to job_log. */
	async log(message: string, level = 'info'): Promise<void> {
		await this.queue.client.database.run('SELECT event_queue.log_job($1::text::bigint, $2::text::uuid, $3::text, $4::text)::text',
			[...this.lease('log'), message, level]);
	}

	/** The lease lasts so long from now, in ms.  The worker extends it by itself. */
	async extendLock(duration: number): Promise<Date> {
		const [row] = await this.queue.client.database.run(
			`SELECT (extract(epoch FROM event_queue.extend_lease($1::text::bigint, $2::text::uuid, $3::text::interval)) * 1000)::text AS at`,
			[...this.lease('extendLock'), `${duration} milliseconds`]);
		this.leasedUntil = new Date(Number(row.at));
		return this.leasedUntil;
	}

	/** If this attempt fails, there is no other. */
	discard(): void {
		this.discarded = true;
	}

	/** Then throw a DelayedError: the job waits until the time (ms since 1970), and no attempt is counted. */
	moveToDelayed(timestamp: number): void {
		this.delayedUntil = timestamp;
	}

	/** The state as the extension names it. */
	async getQueueState(): Promise<JobState> {
		return (await this.queue.client.jobOutcome(this.id)).state;
	}

	/** The state as Bull names it. */
	async getState(): Promise<BullJobState> {
		return bullStates[await this.getQueueState()];
	}

	async isCompleted(): Promise<boolean> { return await this.getState() === 'completed'; }
	async isFailed(): Promise<boolean> { return await this.getState() === 'failed'; }
	async isDelayed(): Promise<boolean> { return await this.getState() === 'delayed'; }
	async isActive(): Promise<boolean> { return await this.getState() === 'active'; }
	async isWaiting(): Promise<boolean> { return await this.getState() === 'waiting'; }
	async isPaused(): Promise<boolean> { return await this.getState() === 'paused'; }

	/** Waits until the job is done; its result, or JobFailedError.  A result is there if the queue keeps completed jobs. */
	finished(timeout?: number): Promise<Result> {
		return this.queue.client.awaitJob(this.id, { timeout });
	}

	/** A waiting job is removed, the worker of a running one told to stop; a dead letter is deleted. */
	async remove(): Promise<void> {
		if (await this.getQueueState() === 'dead')
			await this.queue.client.database.run('SELECT event_queue.discard_dead($1::text::bigint)::text', [this.id]);
		else
			await this.queue.client.cancelJob(this.id);
	}

	/** A dead letter goes back into its queue. */
	async retry(): Promise<void> {
		await this.queue.client.database.run('SELECT event_queue.retry_dead($1::text::bigint)::text', [this.id]);
	}

	/** Not possible here. */
	update(_data: Data): Promise<void> {
		throw new UnsupportedOptionError("a job's data can't be changed; add it with uniqueKey and uniqueMode replace");
	}

	toJSON(): Record<string, unknown> {
		const { id, name, data, attemptsMade, timestamp, processedOn, finishedOn, failedReason, stacktrace, returnvalue } = this;
		return { id, name, data, opts: { ...this.opts, tx: undefined }, progress: this.currentProgress, attemptsMade, timestamp, processedOn,
			finishedOn, failedReason, stacktrace, returnvalue };
	}
}
