/*
 * job.ts: a job, as add returns it and as a processor gets it.
 */
import { inspect } from 'node:util';
import { toJson, withoutNul } from './json';
import type { AwaitEventOptions, AwaitSignalOptions, DurableSteps, EventOutcome, JobStep, JobSteps, SignalOutcome, StepOptions } from './steps';
import { JobNotFoundError, LeaseLostError } from './errors';
import { integer, interval, type JobOptions } from './options';
import type { TxOption } from './tx';
import type { Queue } from './queue';

export type JobState = 'ready' | 'scheduled' | 'retrying' | 'suspended' | 'blocked' | 'leased' | 'stalled' | 'paused' | 'dead' | 'completed' | 'gone';
/** Bull's names of states. */
export type BullJobState = 'waiting' | 'delayed' | 'active' | 'paused' | 'failed' | 'completed' | 'stuck';

const bullStates: Record<JobState, BullJobState> = {
	ready: 'waiting',
	scheduled: 'delayed',
	retrying: 'delayed',
	suspended: 'delayed',
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

/* What the server takes, in bytes. */
const longestLine = 8192;

/** A line of the log: what is too long is cut, as that is no reason for a job to fail. */
function lineOf(message: unknown): string {
	const line = withoutNul(typeof message === 'string' ? message : inspect(message, { breakLength: Infinity }));
	const bytes = Buffer.from(line);
	if (bytes.length <= longestLine)
		return line;
	const end = ` ... (${bytes.length} bytes)`;
	return bytes.subarray(0, longestLine - end.length - 3).toString().replace(/\ufffd+$/, '') + end;
}

export class Job<Data = any, Result = any, Name extends string = string> implements DurableSteps {
	/** The number that the extension gave it, as a string. */
	readonly id: string;
	readonly name: Name;
	data: Data;
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
	/** @internal Of a job in hand. */ steps?: JobSteps;

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

	/** Writes a line to job_log, of 8 kB at most. */
	async log(message: string, level = 'info'): Promise<void> {
		await this.queue.client.database.run('SELECT event_queue.log_job($1::text::bigint, $2::text::uuid, $3::text, $4::text)::text',
			[...this.lease('log'), lineOf(message), level]);
	}

	/** The lease lasts so long from now, in ms.  The worker extends it by itself. */
	async extendLock(duration: number): Promise<Date> {
		const [row] = await this.queue.client.database.run(
			`SELECT (extract(epoch FROM event_queue.extend_lease($1::text::bigint, $2::text::uuid, $3::text::interval)) * 1000)::text AS at`,
			[...this.lease('extendLock'), interval(integer('the duration of extendLock', duration, 1))]);
		this.leasedUntil = new Date(Number(row.at));
		return this.leasedUntil;
	}

	/* Durable steps: what the job has done stays done, and it may wait for days. */

	private get durable(): JobSteps {
		if (this.steps === undefined)
			throw new LeaseLostError(`a step of job ${this.id}: only its worker may do it, while it has the lease`);
		return this.steps;
	}

	/** It waits: this run of its processor is over. */
	get isSuspended(): boolean {
		return this.steps?.isSuspended ?? false;
	}

	/**
	 * Does the work, unless an earlier run of the job has; what it gave, as JSON has it.  With { tx } the step is kept with
	 * what that transaction changes, both or none; without, what the work does elsewhere may happen twice.
	 * undo: a job that is added if this one dies or is cancelled.
	 */
	async step<T>(name: string, work: (tx: any) => Promise<T> | T, options?: StepOptions): Promise<T> {
		return this.durable.step(name, work, options);
	}

	/** The job goes on so many ms later, or at the time, from the beginning of its processor.  This run ends here, by a JobSuspendedError. */
	async sleep(name: string, time: number | Date): Promise<void> {
		return this.durable.sleep(name, time);
	}

	/** The job goes on when a signal comes (eq.sendSignal; default key: the job's id), or the time is over.  As sleep. */
	async awaitSignal<Payload = any>(name: string, options?: AwaitSignalOptions): Promise<SignalOutcome<Payload>> {
		return this.durable.awaitSignal(name, options);
	}

	/** The job goes on when an event comes that matches, or the time is over.  As sleep. */
	async awaitEvent<EventData = any>(name: string, eventPattern: string, options?: AwaitEventOptions): Promise<EventOutcome<EventData>> {
		return this.durable.awaitEvent(name, eventPattern, options);
	}

	/** What it has done, and what it waits for. */
	getSteps(): Promise<JobStep[]> {
		return this.queue.client.jobSteps(this.id);
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
	async getQueueState(context?: TxOption): Promise<JobState> {
		return (await this.queue.client.jobOutcome(this.id, context)).state;
	}

	/** The state as Bull names it. */
	async getState(context?: TxOption): Promise<BullJobState> {
		return bullStates[await this.getQueueState(context)];
	}

	async isCompleted(): Promise<boolean> { return await this.getState() === 'completed'; }
	async isFailed(): Promise<boolean> { return await this.getState() === 'failed'; }
	async isDelayed(): Promise<boolean> { return await this.getState() === 'delayed'; }
	async isActive(): Promise<boolean> { return await this.getState() === 'active'; }
	async isWaiting(): Promise<boolean> { return await this.getState() === 'waiting'; }
	async isPaused(): Promise<boolean> { return await this.getState() === 'paused'; }

	/** Waits until the job is done; its result, or JobFailedError.  A result is there if the queue keeps completed jobs, or a worker of this process did it. */
	finished(timeout?: number): Promise<Result> {
		return this.queue.client.awaitJob(this.id, { timeout });
	}

	/**
	 * A waiting job is removed, the worker of a running one told to stop; a dead letter is deleted, and so is, as an
	 * admin, what is kept of a completed job.  Of one that is gone nothing is left to remove.
	 */
	async remove(context?: TxOption): Promise<void> {
		const { client } = this.queue;
		const run = client.executor(context);
		for (let tries = 0; ; tries++)
			try {
				switch (await this.getQueueState(context)) {
					case 'gone':
						return;
					case 'completed':
						await run('SELECT event_queue.discard_completed(ARRAY[$1::text::bigint])::text', [this.id]);
						return;
					case 'dead':
						await run('SELECT event_queue.discard_dead($1::text::bigint)::text', [this.id]);
						return;
					default:
						await client.cancelJob(this.id, context);
						return;
				}
			} catch (error) {
				// It came into another state meanwhile.
				if (!(error instanceof JobNotFoundError) || tries === 3 || client.transactionOf(context?.tx) !== undefined)
					throw error;
			}
	}

	/** A dead letter goes back into its queue, with other data if they are given. */
	async retry(options?: { data?: Data } & TxOption): Promise<void> {
		const data = options?.data;
		await this.queue.client.executor(options)('SELECT event_queue.retry_dead($1::text::bigint, $2::text::jsonb)::text',
			[this.id, data === undefined ? null : toJson(data, `the data of job ${this.name}`)]);
		if (data !== undefined)
			this.data = data;
	}

	/** Other data, of a job that waits, or in its processor, whose next attempt has them. */
	async update(data: Data, context?: TxOption): Promise<void> {
		await this.queue.client.executor(context)('SELECT event_queue.change_payload($1::text::bigint, $2::text::jsonb, $3::text::uuid)::text',
			[this.id, toJson(data, `the data of job ${this.name}`), this.token ?? null]);
		this.data = data;
	}

	/** A job that is delayed, or waits for its next attempt, is due now. */
	async promote(context?: TxOption): Promise<void> {
		await this.queue.client.executor(context)('SELECT event_queue.promote_job($1::text::bigint)::text', [this.id]);
	}

	toJSON(): Record<string, unknown> {
		const { id, name, data, attemptsMade, timestamp, processedOn, finishedOn, failedReason, stacktrace, returnvalue } = this;
		return { id, name, data, opts: { ...this.opts, tx: undefined }, progress: this.currentProgress, attemptsMade, timestamp, processedOn,
			finishedOn, failedReason, stacktrace, returnvalue };
	}
}
