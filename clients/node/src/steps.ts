/*
 * steps.ts: durable steps of a job in hand: what step, sleep, awaitSignal and awaitEvent of
 * a Job do.
 *
 * What a step has given is kept in the database, so that a later run of the job (a retry, or
 * after a wait) gets it instead of doing it again.  A wait gives the job back: it has no
 * lease and no connection until what it waits for comes, and then runs anew from its
 * beginning.  The run that waits ends by JobSuspendedError; whatever the processor makes of
 * that, its worker settles nothing.
 *
 * The calls of one job are made one after the other, so that two waits at once are the same
 * as two in turn.  A call whose connection broke is made again: if the one before had been
 * carried out, the server says that the name was used in this run (EQ062), and what it has
 * given is read from the view job_steps; or the job is out of our hands, and was suspended.
 */
import { backoffAfter, sleep, textOrNull } from './database';
import { EventQueueError, InvalidTransactionError, isConnectionError, JobCancelledError, JobSuspendedError, LeaseLostError, StepTwiceError,
	UnsupportedOptionError } from './errors';
import type { StoredEvent } from './event-queue';
import { fromJson, toJson } from './json';
import { encodeJobOptions, integer, interval, type JobOptions } from './options';
import { toExecutor, type Executor, type Row, type TransactionLike, type TxOption, type Value } from './tx';

/** The job that undoes a step, if the job that has done it dies or is cancelled. */
export interface StepUndo {
	/** Default: that of the job. */
	queue?: string;
	name: string;
	/** Default: { job_id, step, result }. */
	data?: unknown;
	/** As of add, but dependsOn, tenantId and tx. */
	opts?: JobOptions;
}

/** { tx }: the step is kept with what that transaction changes, both or none. */
export interface StepOptions extends TxOption {
	undo?: StepUndo;
}

export interface AwaitSignalOptions {
	/** Which signal of this name; default: the job's id. */
	key?: string | number | bigint;
	/** ms, from the first time that it is waited for; default: none. */
	timeout?: number;
}

export interface AwaitEventOptions {
	aggregateType?: string;
	aggregateId?: string;
	/** ms, from the first time that it is waited for; default: none. */
	timeout?: number;
	/** Also events that are there already, after this position. */
	afterPosition?: string | number | bigint;
}

export type SignalOutcome<Payload = any> = { state: 'received'; payload: Payload } | { state: 'timed out' };
export type EventOutcome<Data = any> = { state: 'received'; event: StoredEvent<Data> } | { state: 'timed out' };

/** A step of a job, as the view job_steps has it. */
export interface JobStep {
	name: string;
	kind: 'step' | 'sleep' | 'signal' | 'event';
	state: 'done' | 'waiting' | 'timed out' | 'undone' | 'undo failed';
	at: Date;
	/** When a sleep is over, or a wait times out. */
	until?: Date;
	/** Of a signal. */
	key?: string;
	result: any;
}

/** What a job in hand can do that lasts longer than its run. */
export interface DurableSteps {
	step<T>(name: string, work: (tx: any) => Promise<T> | T, options?: StepOptions): Promise<T>;
	sleep(name: string, time: number | Date): Promise<void>;
	awaitSignal<Payload = any>(name: string, options?: AwaitSignalOptions): Promise<SignalOutcome<Payload>>;
	awaitEvent<Data = any>(name: string, eventPattern: string, options?: AwaitEventOptions): Promise<EventOutcome<Data>>;
}

/** Where the calls go, and who is told. */
export interface StepCalls {
	/** A call in a transaction of its own. */
	run: Executor;
	/** The transaction that the caller is part of. */
	currentTransaction(): TransactionLike | undefined;
	/** Aborted when the job is out of hand. */
	signal: AbortSignal;
	/** A wait is about to be asked for (true), or was not necessary (false). */
	waiting?(begins: boolean): void;
	suspended?(): void;
	cancelled?(error: JobCancelledError): void;
	/** For tests: sleeps are over at once. */
	skipSleeps?(): boolean;
}

/** The event of event_as_json. */
const eventOfJson = (event: any): StoredEvent => ({
	position: String(event.position),
	id: event.id,
	tenantId: event.tenant_id,
	aggregateType: event.aggregate_type,
	aggregateId: event.aggregate_id,
	version: event.version,
	eventType: event.event_type,
	data: event.data,
	metadata: event.metadata ?? {},
	createdAt: new Date(event.created_at),
});

export const stepOf = (row: Row): JobStep => ({
	name: row.name!,
	kind: row.kind as JobStep['kind'],
	state: row.state as JobStep['state'],
	at: new Date(Number(row.at)),
	until: row.until === null ? undefined : new Date(Number(row.until)),
	key: row.key ?? undefined,
	result: fromJson(row.result),
});

export const stepColumns = `s.name::text AS name, s.kind, s.state, (extract(epoch FROM s.at) * 1000)::text AS at,
	(extract(epoch FROM s.until) * 1000)::text AS until, s.key::text AS key, s.result::text AS result`;

function encodeUndo(undo: StepUndo, queue: string, step: string): string {
	const { name, data, opts = {}, queue: to = queue, ...others } = undo;
	for (const other of Object.keys(others))
		throw new UnsupportedOptionError(`undo of step "${step}" has ${other}, which is not known; known are queue, name, data, opts`);
	if (typeof name !== 'string')
		throw new UnsupportedOptionError(`undo of step "${step}" has no name: it is { queue, name, data, opts } of a job`);
	for (const option of ['dependsOn', 'tenantId', 'tx'] as const)
		if (opts[option] !== undefined)
			throw new UnsupportedOptionError(`undo of step "${step}": option ${option} has no meaning there; it is a job of the same tenant, after those of later steps`);
	return toJson({ ...encodeJobOptions(opts), queue: to, name, payload: data }, `undo of step ${step}`);
}

export class JobSteps implements DurableSteps {
	/** The run is over: the job waits. */
	isSuspended = false;
	private last: Promise<unknown> = Promise.resolve();

	constructor(private readonly job: { id: string; token: string; name: string; queue: string }, private readonly calls: StepCalls) {}

	/** Does it, unless an earlier run has; what it gave, as JSON has it. */
	async step<T>(name: string, work: (tx: any) => Promise<T> | T, options: StepOptions = {}): Promise<T> {
		if (typeof work !== 'function')
			throw new UnsupportedOptionError(`step "${name}" of job ${this.job.name} is given a ${typeof work}, not the function that does it`);
		// Said before anything is done
		const undo = options.undo === undefined ? null : encodeUndo(options.undo, this.job.queue, name);
		const tx = options.tx === undefined ? this.calls.currentTransaction() : options.tx;
		const kept = await this.call(name, 'event_queue.step($1::text::bigint, $2::text::uuid, $3::text)', [], tx);
		if (kept !== null)
			return fromJson(kept);
		const result = await work(tx);
		return fromJson(await this.call(name, 'event_queue.step_done($1::text::bigint, $2::text::uuid, $3::text, $4::text::jsonb, $5::text::jsonb)',
			[result === undefined ? null : toJson(result, `the result of step ${name} of job ${this.job.name}`), undo], tx));
	}

	/** The job goes on so many ms later, or at the time; this run ends. */
	async sleep(name: string, time: number | Date): Promise<void> {
		if (this.calls.skipSleeps?.() === true)
			return;
		const isDate = time instanceof Date;
		if (isDate && Number.isNaN(time.getTime()))
			throw new UnsupportedOptionError(`sleep "${name}" of job ${this.job.name}: the date is not valid`);
		await this.wait(name, 'event_queue.sleep_job($1::text::bigint, $2::text::uuid, $3::text, $4::text::interval, $5::text::timestamptz)',
			isDate ? [null, time.toISOString()] : [interval(integer(`the time of sleep "${name}"`, time, 0)), null]);
	}

	/** Waits for a signal (EventQueue.sendSignal); this run ends, unless one is kept already. */
	async awaitSignal<Payload = any>(name: string, options: AwaitSignalOptions = {}): Promise<SignalOutcome<Payload>> {
		const { key, timeout } = options;
		return fromJson(await this.wait(name, 'event_queue.await_signal($1::text::bigint, $2::text::uuid, $3::text, $4::text, $5::text::interval)',
			[textOrNull(key), this.timeout(name, timeout)]));
	}

	/** Waits for an event that matches; this run ends. */
	async awaitEvent<Data = any>(name: string, eventPattern: string, options: AwaitEventOptions = {}): Promise<EventOutcome<Data>> {
		const outcome = await this.wait(name,
			'event_queue.await_event($1::text::bigint, $2::text::uuid, $3::text, $4::text, $5::text, $6::text, $7::text::interval, $8::text::bigint)',
			[eventPattern, textOrNull(options.aggregateType), textOrNull(options.aggregateId), this.timeout(name, options.timeout), textOrNull(options.afterPosition)]);
		const { state, event } = fromJson(outcome);
		return state === 'received' ? { state, event: eventOfJson(event) } : { state };
	}

	private timeout(name: string, ms: number | undefined): Value {
		return ms === undefined ? null : interval(integer(`the timeout of "${name}"`, ms, 0));
	}

	private suspend(name: string): never {
		this.isSuspended = true;
		this.calls.suspended?.();
		throw new JobSuspendedError(`job ${this.job.id} waits for "${name}": this run of its processor ends here, and it is called again`);
	}

	/* What it has given; if it has to wait, this run ends. */
	private async wait(name: string, expression: string, values: Value[]): Promise<string> {
		if (this.calls.currentTransaction() !== undefined)
			throw new InvalidTransactionError(
				`"${name}" of job ${this.job.name} is waited for inside of a transaction, which would be rolled back as the run ends: wait outside of it`);
		let outcome: string | null = null;
		this.calls.waiting?.(true);
		try {
			outcome = await this.call(name, expression, values);
		} catch (error) {
			this.calls.waiting?.(false);
			throw error;
		}
		if (outcome === null || outcome === 'false')
			this.suspend(name);
		this.calls.waiting?.(false);
		return outcome;
	}

	/* One after the other; those of a transaction are in its order by themselves. */
	private async call(name: string, expression: string, values: Value[], tx?: TransactionLike): Promise<string | null> {
		const sql = `SELECT (${expression})::text AS result`;
		const all = [this.job.id, this.job.token, name, ...values];
		const turn = tx === undefined ? this.last : Promise.resolve();
		const made = turn.then(async () => {
			if (this.isSuspended)
				throw new JobSuspendedError(`job ${this.job.id} is suspended: its processor is to end`);
			return tx === undefined ? this.insist(name, sql, all) : (await toExecutor(tx)(sql, all))[0].result;
		});
		if (tx === undefined)
			this.last = made.catch(() => {});
		try {
			return await made;
		} catch (error) {
			if (error instanceof JobCancelledError)
				this.calls.cancelled?.(error);
			throw error;
		}
	}

	private async insist(name: string, sql: string, values: Value[]): Promise<string | null> {
		let uncertain = false;
		for (let failures = 0; ; failures++) {
			try {
				return (await this.calls.run(sql, values))[0].result;
			} catch (error) {
				if (uncertain && error instanceof StepTwiceError)
					return this.given(name, error);
				// A wait that was carried out leaves no lease; nor does one that was lost, and the run ends as well.
				if (uncertain && error instanceof LeaseLostError && /sleep_job|await_/.test(sql))
					return null;
				if (!isConnectionError(error) || this.calls.signal.aborted)
					throw error;
				uncertain ||= (error as any).outcomeUnknown !== false;
				await sleep(backoffAfter(failures), this.calls.signal);
			}
		}
	}

	/** What the call has given whose answer was lost. */
	private async given(name: string, otherwise: EventQueueError): Promise<string | null> {
		const [row] = await this.calls.run(
			`SELECT s.kind, s.state, s.result::text AS result FROM event_queue.job_steps s WHERE s.job_id = $1::text::bigint AND s.name = $2::text ORDER BY s.step_no DESC LIMIT 1`,
			[this.job.id, name]);
		if (row === undefined)
			throw otherwise;
		const result = row.result ?? 'null';
		switch (row.kind) {
			case 'sleep':
				return 'true';
			case 'step':
				return result;
			default:
				return row.state === 'timed out' ? '{"state":"timed out"}' : `{"state":"received","${row.kind === 'signal' ? 'payload' : 'event'}":${result}}`;
		}
	}
}
