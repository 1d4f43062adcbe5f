/*
 * queue.ts: adds jobs, looks at them, and sets the queue.
 *
 * Adds outside a transaction that come while one is on its way go together in the next
 * call, each with its own id or error; very many in two, so that the server writes one
 * while it flushes the other.  Those with a unique key or with dependencies go
 * alone, since they may have to wait for another transaction.  Of one group they are added
 * in the order of the calls of add and addBulk, as its jobs run in the order of their ids.
 */
import type { EventQueue } from './event-queue';
import { isConnectionError, UnsupportedOptionError } from './errors';
import { Job, type JobState } from './job';
import { fromJson, toJson } from './json';
import { checkBulk, encodeJobOptions, jobIdOf, optionsOf, ownValue, type JobOptions, type QueueSettings } from './options';
import { inSpan, withTrace } from './telemetry';
import { toExecutor, type Executor, type TransactionLike, type TxOption } from './tx';
import { prepared, textOrNull } from './database';

export interface QueueOptions extends QueueSettings {
	tenantId?: string;
}

export interface BulkJob<Data = any> {
	name?: string;
	data?: Data;
	opts?: JobOptions;
}

/** Bull's states as those of the extension. */
const statesOf = new Map([['waiting', ['ready', 'blocked']], ['delayed', ['scheduled', 'retrying', 'suspended']], ['active', ['leased', 'stalled']],
	['paused', ['paused']], ['failed', ['dead']], ['completed', ['completed']]]);

/** The name of jobs that are added without one, as in Bull. */
export const defaultJobName = '__default__';

interface WireJob {
	queue: string;
	name: string;
	payload: string;
	/** JSON of an object */
	options: string;
	tenantId?: string;
}

const enqueueSql = prepared('SELECT event_queue.enqueue($1::text, $2::text, $3::text::jsonb, options => $4::text::jsonb, tenant_id => $5::text)::text AS id');
const enqueueManySql = prepared('SELECT event_queue.enqueue_many(NULL, $1::text::jsonb)::text AS ids');

const enqueueOne = async (run: Executor, job: WireJob): Promise<string> => {
	const rows = await run(enqueueSql, [job.queue, job.name, job.payload, job.options, textOrNull(job.tenantId)]);
	return rows[0].id!;
};

const wireText = (job: WireJob): string => {
	const rest = JSON.stringify({ queue: job.queue, name: job.name, tenant_id: job.tenantId });
	return `{"payload":${job.payload},${job.options === '{}' ? '' : `${job.options.slice(1, -1)},`}${rest.slice(1)}`;
};

const enqueueMany = async (run: Executor, jobs: WireJob[]): Promise<string[]> => {
	const rows = await run(enqueueManySql, [`[${jobs.map(wireText).join(',')}]`]);
	const ids = rows[0].ids!.slice(1, -1);
	return ids === '' ? [] : ids.split(',');
};

/** A document of jsonb holds 256 MB, and may take six times its text, of numbers with one digit; in characters. */
const maxCall = 32 * 2 ** 20;

/** Jobs that are too much for one call go in several, one after the other; together is what has them all or none. */
async function enqueueParts(jobs: WireJob[], together: (work: (run: Executor) => Promise<string[]>) => Promise<string[]>, run: Executor): Promise<string[]> {
	const parts: WireJob[][] = [];
	let size = Infinity;
	for (const job of jobs) {
		size += job.payload.length + job.options.length;
		if (size > maxCall) {
			parts.push([]);
			size = job.payload.length + job.options.length;
		}
		parts[parts.length - 1].push(job);
	}
	if (parts.length === 1)
		return enqueueMany(run, jobs);
	return together(async one => {
		const ids: string[] = [];
		for (const part of parts)
			for (const id of await enqueueMany(one, part))
				ids.push(id);
		return ids;
	});
}

/** A call for half as many costs less than it gains. */
const worthTwoCalls = 64;

/** So long, in ms, others of its group wait for a call that waits for a transaction. */
const longestTurn = 1000;

/** An add that waits for its turn: a job that may share a call, or work that is a call of its own. */
interface Entry {
	job?: WireJob;
	work?: () => Promise<any>;
	/** Its groups: JSON of queue, tenant and group key. */
	keys: string[];
	done: (result: any) => void;
	failed: (error: unknown) => void;
}

/**
 * Puts adds that come at the same time into one call.  Those of one group keep their order: none is
 * sent before all earlier ones of its group have ended, or one has waited for a transaction for long.
 */
export class Coalescer {
	private waiting: Entry[] = [];
	private calls = 0;
	/** Work that waits, and that is on its way. */
	private works = 0;
	private working = 0;
	/** Groups of what is on its way. */
	private readonly busy = new Set<string>();
	private scheduled = false;
	private idle: Array<() => void> = [];

	constructor(private readonly run: Executor, private readonly maxCalls = 2, private readonly maxJobs = 1000) {}

	add(job: WireJob, keys: string[]): Promise<string> {
		return new Promise((done, failed) => {
			this.waiting.push({ job, keys, done, failed });
			this.schedule();
		});
	}

	/** A call of its own, which comes in the turn of its groups. */
	alone<T>(work: () => Promise<T>, keys: string[]): Promise<T> {
		if (keys.length === 0)
			return work();
		return new Promise((done, failed) => {
			this.waiting.push({ work, keys, done, failed });
			this.works++;
			this.schedule();
		});
	}

	private schedule(): void {
		if (this.scheduled || this.waiting.length === 0 || this.calls >= this.maxCalls && this.works === 0)
			return;
		this.scheduled = true;
		setImmediate(() => {
			this.scheduled = false;
			if (this.next())
				this.schedule();
		});
	}

	/* Sends what may go; true if there was a batch.  What it leaves waits for the end of what is on its way. */
	private next(): boolean {
		const { waiting } = this;
		const most = this.calls >= this.maxCalls ? 0
			: Math.min(this.maxJobs, this.calls === 0 && waiting.length >= worthTwoCalls ? Math.ceil(waiting.length / 2) : waiting.length);
		const batch: Entry[] = [];
		const inBatch = new Set<string>();
		const blocked = new Set(this.busy);
		let left: Entry[] = [];
		let size = 0;
		let isFull = most === 0;

		for (let i = 0; i < waiting.length; i++) {
			if (isFull && this.works === 0) {
				left = left.concat(waiting.slice(i));
				break;
			}
			const entry = waiting[i];
			const { job, keys } = entry;
			if (!isFull && job !== undefined && batch.length > 0 && size + job.payload.length > maxCall)
				isFull = true;
			if (isFull && job !== undefined || keys.length > 0 && keys.some(key => blocked.has(key) || job === undefined && inBatch.has(key))) {
				keys.forEach(key => blocked.add(key));
				left.push(entry);
			} else if (job === undefined) {
				keys.forEach(key => blocked.add(key));
				void this.work(entry);
			} else {
				if (keys.length > 0)
					keys.forEach(key => inBatch.add(key));
				batch.push(entry);
				size += job.payload.length;
				isFull = batch.length === most;
			}
		}
		this.waiting = left;
		if (batch.length > 0)
			void this.send(batch, inBatch);
		return batch.length > 0;
	}

	private async work({ work, keys, done, failed }: Entry): Promise<void> {
		this.works--;
		this.working++;
		keys.forEach(key => this.busy.add(key));
		// It may wait for a transaction whose owner waits for an add of the group.
		let held = keys;
		const timer = setTimeout(() => {
			held = [];
			this.ended(keys);
		}, longestTurn);
		await work!().then(done, failed);
		clearTimeout(timer);
		this.working--;
		this.ended(held);
	}

	private async send(batch: Entry[], keys: Set<string>): Promise<void> {
		this.calls++;
		keys.forEach(key => this.busy.add(key));
		try {
			await this.sendPart(batch);
		} finally {
			this.calls--;
			this.ended(keys);
		}
	}

	private ended(keys: Iterable<string>): void {
		for (const key of keys)
			this.busy.delete(key);
		this.schedule();
		if (this.isIdle())
			this.idle.splice(0).forEach(done => done());
	}

	/* A call is all or none; which of them was refused shows by halves. */
	private async sendPart(batch: Entry[]): Promise<void> {
		if (batch.length === 1)
			return enqueueOne(this.run, batch[0].job!).then(batch[0].done, batch[0].failed);
		try {
			const ids = await enqueueMany(this.run, batch.map(entry => entry.job!));
			batch.forEach((entry, i) => entry.done(ids[i]));
		} catch (error) {
			// It may have been carried out: nobody must get the job twice.
			if (isConnectionError(error))
				return batch.forEach(entry => entry.failed(error));
			const half = batch.length >> 1;
			await this.sendPart(batch.slice(0, half));
			await this.sendPart(batch.slice(half));
		}
	}

	private isIdle(): boolean {
		return this.calls === 0 && this.working === 0 && this.waiting.length === 0;
	}

	/** When all that was added is sent. */
	flush(): Promise<void> {
		return this.isIdle() ? Promise.resolve() : new Promise(done => this.idle.push(done));
	}
}

export class Queue<Data = any, Result = any, Name extends string = string> {
	readonly client: EventQueue<any>;
	readonly name: string;
	readonly options: QueueOptions;

	/** @internal Use eventQueue.queue(name, options). */
	constructor(client: EventQueue<any>, name: string, options: QueueOptions = {}) {
		this.client = client;
		this.name = name;
		this.options = options;
	}

	private encode(name: string, data: unknown, given: JobOptions): { wire: WireJob; opts: JobOptions; alone: boolean; keys: string[] } {
		// Those of the queue are its settings, by sync.
		const { removeOnComplete: _c, removeOnFail: _f, ...defaults } = this.options.defaultJobOptions ?? {};
		const opts: JobOptions = { ...defaults, ...given };
		const group = this.options.limiter?.groupKey;
		if (group !== undefined && opts.groupKey === undefined) {
			const value = ownValue(data, group);
			if (value !== undefined && value !== null)
				opts.groupKey = String(value);
		}
		opts.metadata = withTrace(opts.metadata);
		const options = encodeJobOptions(opts);
		const tenantId = opts.tenantId ?? this.options.tenantId ?? this.client.options.tenantId;
		return {
			opts,
			alone: options.unique_key !== undefined || options.depends_on !== undefined,
			keys: options.group_key === undefined ? [] : [JSON.stringify([this.name, tenantId, options.group_key])],
			wire: {
				queue: this.name,
				name,
				payload: data === undefined ? '{}' : toJson(data, `the data of job ${name}`),
				options: toJson(options, `the options of job ${name}`),
				tenantId,
			},
		};
	}

	private jobOf(id: string, name: string, data: unknown, opts: JobOptions): Job<Data, Result, Name> {
		return new Job<Data, Result, Name>(this, { id, name, data: data as Data, opts, tenantId: opts.tenantId, groupKey: opts.groupKey, metadata: opts.metadata });
	}

	/** Adds a job: add(name, data, options, { tx }) or, as Bull 4, add(data, options).  tx may be among the options, too. */
	add(name: Name, data?: Data, options?: JobOptions, context?: TxOption): Promise<Job<Data, Result, Name>>;
	add(data: Data, options?: JobOptions, context?: TxOption): Promise<Job<Data, Result, Name>>;
	async add(...args: any[]): Promise<Job<Data, Result, Name>> {
		const [name, data, options, context]: [string, any, JobOptions | undefined, TxOption | undefined] =
			typeof args[0] === 'string' ? (args as any) : [defaultJobName, ...args];
		const { tx: among, ...given } = optionsOf(`job ${name}`, options);
		const tx = this.client.transactionOf(context?.tx, among);
		return inSpan(`${this.name} enqueue`, 'producer', { 'messaging.destination.name': this.name, 'event_queue.job.name': name }, undefined,
			async () => {
				const { wire, opts, alone, keys } = this.encode(name, data, given);
				const id = tx !== undefined ? await enqueueOne(toExecutor(tx), wire)
					: alone ? await this.client.coalescer.alone(() => enqueueOne(this.client.database.run, wire), keys)
						: await this.client.coalescer.add(wire, keys);
				if (tx === undefined)
					this.client.added(this.name, name);
				return this.jobOf(id, name, data, opts);
			});
	}

	/** Adds jobs, all or none. */
	async addBulk(jobs: Array<BulkJob<Data>>, context?: TxOption): Promise<Array<Job<Data, Result, Name>>> {
		checkBulk(jobs);
		if (jobs.length === 0)
			return [];
		const tx = this.client.transactionOf(context?.tx);
		return inSpan(`${this.name} enqueue`, 'producer', { 'messaging.destination.name': this.name, 'messaging.batch.message_count': jobs.length },
			undefined, async () => {
				if (jobs.some(job => job.opts?.tx !== undefined && job.opts.tx !== tx))
					throw new UnsupportedOptionError('addBulk adds all jobs in one transaction: give tx as addBulk(jobs, { tx })');
				const encoded = jobs.map(job => this.encode(job.name ?? defaultJobName, job.data, optionsOf(`job ${job.name}`, job.opts)));
				const run = tx === undefined ? this.client.database.run : toExecutor(tx);
				const add = () => enqueueParts(encoded.map(job => job.wire), work => tx === undefined
					? this.client.database.transaction(client => work(toExecutor(client))) : work(run), run);
				const ids = await (tx === undefined ? this.client.coalescer.alone(add, [...new Set(encoded.flatMap(job => job.keys))]) : add());
				if (tx === undefined)
					for (const name of new Set(encoded.map(job => job.wire.name)))
						this.client.added(this.name, name);
				return ids.map((id, i) => this.jobOf(id, jobs[i].name ?? defaultJobName, jobs[i].data, encoded[i].opts));
			});
	}

	/** Looks a job up by its id: waiting, running, dead, or completed if the queue keeps those. */
	async getJob(id: string | number | bigint, context?: TxOption): Promise<Job<Data, Result, Name> | null> {
		const known = jobIdOf(id);
		return known === undefined ? null : (await this.jobsWhere('j.job_id = $2::text::bigint', [known], 1, context))[0] ?? null;
	}

	private async jobsWhere(condition: string, values: string[], limit: number, context?: TxOption): Promise<Array<Job<Data, Result, Name>>> {
		const rows = await this.client.executor(context)(
			`SELECT j.job_id::text AS id, j.name, j.tenant_id, j.state, j.failures::text AS failures, j.stalled::text AS stalled, j.last_error,
				j.result::text AS result, j.progress::text AS progress, j.payload::text AS payload, j.metadata::text AS metadata,
				(extract(epoch FROM j.created_at) * 1000)::text AS created, (extract(epoch FROM j.at) * 1000)::text AS at
			FROM event_queue.all_jobs j WHERE j.queue = $1::text AND ${condition} LIMIT ${limit}`,
			[this.name, ...values]);
		return rows.map(row => {
			const metadata = fromJson(row.metadata) ?? {};
			const at = Number(row.at);
			return new Job<Data, Result, Name>(this, {
				id: row.id!, name: row.name!, data: fromJson(row.payload), opts: metadata.opts, metadata,
				tenantId: row.tenant_id ?? undefined, state: row.state as JobState, attemptsMade: Number(row.failures),
				stalledCounter: Number(row.stalled), timestamp: Math.round(Number(row.created)), failedReason: row.last_error ?? undefined,
				returnvalue: fromJson(row.result) ?? undefined, progress: fromJson(row.progress) ?? undefined,
				processedOn: row.state === 'leased' ? at : undefined,
				finishedOn: row.state === 'dead' || row.state === 'completed' ? at : undefined,
			});
		});
	}

	/** Jobs of Bull's states, the oldest first. */
	async getJobs(types: Array<'waiting' | 'delayed' | 'active' | 'paused' | 'failed' | 'completed'>, start = 0, end = 99, context?: TxOption): Promise<Array<Job<Data, Result, Name>>> {
		const wanted = types.flatMap(type => {
			const states = statesOf.get(type);
			if (states === undefined)
				throw new UnsupportedOptionError(`getJobs knows no jobs that are ${String(type)}; it knows ${[...statesOf.keys()].join(', ')}`);
			return states;
		});
		return this.jobsWhere(`j.state = ANY ($2::text::text[]) ORDER BY j.job_id OFFSET ${Math.max(0, Math.trunc(start))}`,
			[`{${wanted.join(',')}}`], Math.max(0, Math.trunc(end) - Math.trunc(start) + 1), context);
	}

	getWaiting(start?: number, end?: number, context?: TxOption) { return this.getJobs(['waiting'], start, end, context); }
	getDelayed(start?: number, end?: number, context?: TxOption) { return this.getJobs(['delayed'], start, end, context); }
	getActive(start?: number, end?: number, context?: TxOption) { return this.getJobs(['active'], start, end, context); }
	getFailed(start?: number, end?: number, context?: TxOption) { return this.getJobs(['failed'], start, end, context); }
	getCompleted(start?: number, end?: number, context?: TxOption) { return this.getJobs(['completed'], start, end, context); }

	async getJobCounts(context?: TxOption): Promise<{ waiting: number; active: number; completed: number; failed: number; delayed: number; paused: number }> {
		const rows = await this.client.executor(context)(
			`SELECT j.state, count(*)::text AS n FROM event_queue.all_jobs j WHERE j.queue = $1::text GROUP BY 1`, [this.name]);
		const n = (...states: string[]) => rows.filter(row => states.includes(row.state!)).reduce((sum, row) => sum + Number(row.n), 0);
		return { waiting: n('ready', 'blocked'), active: n('leased', 'stalled'), completed: n('completed'), failed: n('dead'),
			delayed: n('scheduled', 'retrying', 'suspended'), paused: n('paused') };
	}

	/** Jobs that wait, also those with a delay. */
	async count(context?: TxOption): Promise<number> {
		const counts = await this.getJobCounts(context);
		return counts.waiting + counts.paused + counts.delayed;
	}

	private async set(sql: string, values: string[] = [], context?: TxOption): Promise<string | null> {
		const [row] = await this.client.executor(context)(`SELECT (event_queue.${sql})::text AS result`, [this.name, ...values]);
		return row.result;
	}

	/** Nothing more is claimed, by any worker (Bull's global pause). */
	async pause(context?: TxOption): Promise<void> { await this.set('pause_queue($1::text)', [], context); }
	async resume(context?: TxOption): Promise<void> { await this.set('resume_queue($1::text)', [], context); }
	async isPaused(context?: TxOption): Promise<boolean> {
		const [row] = await this.client.executor(context)('SELECT paused::text AS paused FROM event_queue.queue WHERE name = $1::text', [this.name]);
		return row?.paused === 'true';
	}
	/** Deletes the jobs that wait; how many. */
	async empty(context?: TxOption): Promise<number> { return Number(await this.set('purge_queue($1::text)', [], context)); }
	/** Puts all dead letters back into the queue; how many. */
	async retryFailed(context?: TxOption): Promise<number> { return Number(await this.set('retry_all_dead($1::text)', [], context)); }
	/** Deletes all dead letters; how many. */
	async discardFailed(context?: TxOption): Promise<number> { return Number(await this.set('discard_all_dead($1::text)', [], context)); }
	/** Makes jobs due that wait for their next attempt; how many. */
	async retryWaiting(context?: TxOption): Promise<number> { return Number(await this.set('retry_waiting($1::text)', [], context)); }
	/** Makes all jobs due that are delayed, or wait for their next attempt; how many. */
	async promoteJobs(context?: TxOption): Promise<number> { return Number(await this.set('retry_waiting($1::text, failed_only => false)', [], context)); }
	/** Drops the queue with all that is in it. */
	async obliterate(options: { force?: boolean } & TxOption = {}): Promise<void> {
		await this.set('drop_queue($1::text, force => $2::text::boolean)', [String(options.force ?? false)], options);
	}

	/** Nothing of a queue is open: the EventQueue is closed, not its queues. */
	async close(): Promise<void> {
		await this.client.coalescer.flush();
	}

	/** The same queue, whose calls are all part of the transaction. */
	withTransaction(tx: TransactionLike): Queue<Data, Result, Name> {
		const queue = Object.create(this) as Queue<Data, Result, Name>;
		queue.add = ((...args: any[]) => {
			const named = typeof args[0] === 'string';
			args.length = named ? 3 : 2;
			return (Queue.prototype.add as any).call(this, ...args, { tx });
		}) as any;
		queue.addBulk = jobs => this.addBulk(jobs, { tx });
		return queue;
	}
}
