/* What the module needs of the core of this package. */
import type { Logger } from '@nestjs/common';
import { UnsupportedOptionError } from '../errors';
import { HostsClient } from '../hosts';
import { type Executor, toExecutor } from '../tx';
import { EventQueue, knownOptions, type EventQueueOptions, type StoredEvent } from '../event-queue';
import { encodeJobOptions, type JobOptions as CoreJobOptions } from '../options';
import { Job as CoreJob } from '../job';
import type { JobOptions } from './bull-types';
import { Job, type JobRow, type Lease } from './job';
import { numberOf } from './lenient';
import type { Transaction } from './port';
import type { Queue } from './queue';
import type { Registration, SubscriptionRegistration } from './service';
import type { QueueSettings } from './settings';

export interface CoreOptions extends Omit<EventQueueOptions, 'handleSignals' | 'shutdownTimeout'> {
	/** As connection: a URI. */
	url?: string;
}

export interface CoreWorker {
	pause(doNotWaitActive: boolean): Promise<void>;
	resume(): void;
	close(timeout?: number): Promise<void>;
	whenIdle(): Promise<void>;
}

export interface CoreSubscription {
	close(): Promise<void>;
}

type Value = string | null;

/** As text: what statements cast themselves, whichever library runs them. */
function toText(value: unknown): Value {
	if (value === undefined || value === null) {
		return null;
	}
	if (Array.isArray(value)) {
		return `{${value.map((one) => `"${String(one).replace(/["\\]/g, '\\$&')}"`).join(',')}}`;
	}
	return String(value);
}

export class Core {
	readonly store: EventQueue;

	constructor(options: CoreOptions, shutdownTimeout: number | undefined) {
		const { url } = options;
		const rest: EventQueueOptions = Object.fromEntries(Object.entries(options).filter(([name]) => (knownOptions as readonly string[]).includes(name)));
		// The order of the end is Nest's: EventQueueService listens to the signals.
		this.store = new EventQueue({ ...rest, connection: rest.connection ?? url, shutdownTimeout, handleSignals: false });
		this.store.on('connectionError', () => undefined);
	}

	/** Where it is connected to, without a password. */
	describe(): string {
		const { host, port, database } = new HostsClient(this.store.database.clientConfig());
		return `${host}:${port}/${database ?? ''}`;
	}

	ready(): Promise<void> {
		return this.store.ready();
	}

	/** One statement; what it returns as JSON has it: times are ISO strings. */
	async query<R>(text: string, values: unknown[], tx?: Transaction, wait?: number): Promise<R[]> {
		const { database } = this.store;
		const run: Executor = tx !== undefined ? toExecutor(tx)
			: wait === undefined ? database.run : (sql, params) => database.runWaiting(sql, params, wait);
		const [row] = await run(
			`SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(r)), '[]')::text AS rows FROM (${text}) r`,
			values.map(toText),
		);
		return JSON.parse(row?.rows ?? '[]');
	}

	transaction<R>(work: (tx: Transaction) => Promise<R>): Promise<R> {
		return this.store.transaction(work);
	}

	async add(queue: string, jobs: { name: string; data: unknown; opts: JobOptions }[], tx?: Transaction): Promise<string[]> {
		const core = this.store.queue(queue) as any;
		const context = tx === undefined ? undefined : { tx };
		const [first, ...others] = jobs;
		if (first !== undefined && others.length === 0) {
			return [(await core.add(first.name, first.data, coreOptions(first.opts), context)).id];
		}
		const made = await core.addBulk(
			jobs.map((job) => ({ name: job.name, data: job.data, opts: coreOptions(job.opts) })),
			context,
		);
		return made.map((job: CoreJob) => job.id);
	}

	sqlOptions(opts: JobOptions): Record<string, unknown> {
		return encodeJobOptions(coreOptions(opts));
	}

	/** Begins to process jobs of a queue; its events come at the queue, as in Bull. */
	async worker(queue: Queue, settings: QueueSettings, registrations: Registration[], logger: Logger, isPaused: () => boolean): Promise<CoreWorker> {
		const jobs = new WeakMap<CoreJob, Job>();
		const toJob = (one: CoreJob): Job => {
			let job = jobs.get(one);
			if (job === undefined) {
				job = new Job(queue, rowOf(one), one.opts as JobOptions);
				job.lease = leaseOf(one);
				jobs.set(one, job);
			}
			return job;
		};
		const worker = this.store.worker(queue.name, {}, { autorun: false, settings: settings.settings as object });
		for (const { name, concurrency, run } of registrations) {
			worker.process(
				name,
				async (one) => {
					const job = toJob(one);
					try {
						return await run(job);
					} finally {
						if (job.discarded) {
							one.discard();
						}
					}
				},
				numberOf(typeof concurrency === 'function' ? await concurrency() : concurrency) as number,
			);
		}
		worker.on('active', (one) => queue.emit('active', toJob(one)));
		worker.on('stalled', (one) => queue.emit('stalled', toJob(one)));
		worker.on('completed', (one, result) => {
			const job = toJob(one);
			job.returnvalue = result;
			job.finishedOn = one.finishedOn;
			delete job.lease;
			queue.emit('completed', job, result);
		});
		worker.on('failed', (one, error, dead) => {
			const job = toJob(one);
			job.attemptsMade = one.attemptsMade;
			job.failedReason = one.failedReason;
			job.stacktrace = [...job.stacktrace, one.stacktrace.join('\n')];
			job.finishedOn = one.finishedOn;
			delete job.lease;
			queue.emit('failed', job, error, dead);
		});
		worker.on('lost', (one) => logger.warn(`job ${one.id} of queue "${queue.name}" lost its lease: another worker may have it`));
		worker.on('error', (error) => {
			logger.error(`queue "${queue.name}": ${error.stack ?? error}`);
			queue.emit('error', error);
		});
		worker.on('suspended', (one) => {
			const job = toJob(one);
			delete job.lease;
			queue.emit('suspended', job);
		});
		worker.on('drained', () => queue.emit('drained'));
		if (isPaused()) {
			worker.pause();
		}
		await worker.run();
		worker.on('ready', () => logger.log(`queue "${queue.name}": goes on`));

		const whenIdle = async (): Promise<void> => {
			while (worker.activeCount > 0) {
				const ends = ['completed', 'failed', 'released', 'lost', 'suspended'] as const;
				await new Promise<void>((resolve) => {
					const done = (): void => {
						clearTimeout(timer);
						ends.forEach((event) => worker.off(event, done));
						resolve();
					};
					const timer = setTimeout(done, 1000);
					ends.forEach((event) => worker.on(event, done));
				});
			}
		};
		return {
			async pause(doNotWaitActive) {
				worker.pause();
				if (!doNotWaitActive) {
					await whenIdle();
				}
			},
			resume: () => worker.resume(),
			close: (timeout) => worker.close(timeout === undefined ? {} : { timeout }),
			whenIdle,
		};
	}

	/** Begins to hand events to a method. */
	consume(
		one: SubscriptionRegistration,
		transaction: ((work: (tx: any) => Promise<any>) => Promise<any>) | undefined,
		within: (tx: Transaction, work: () => Promise<unknown>) => Promise<unknown>,
		logger: Logger,
	): CoreSubscription {
		const subscription = this.store.subscription(
			one.subscription,
			(event: StoredEvent, { tx }) => within(tx, async () => one.handle(event, tx)),
			{
				create: false,
				...(one.batchSize === undefined ? {} : { batchSize: one.batchSize }),
				...(transaction === undefined ? {} : { transaction }),
			},
		);
		subscription.on('failed', (event, error, failures) =>
			logger.warn(`${one.where}: event ${event.position}, ${event.eventType}, failed (${failures}): ${error.message}`));
		subscription.on('parked', (event, error) =>
			logger.error(`${one.where}: ${event.aggregateType} ${event.aggregateId} is parked at event ${event.position}: ${error.stack ?? error}`));
		subscription.on('error', (error) => logger.error(`${one.where}: ${error.stack ?? error}`));
		return subscription;
	}

	close(): Promise<void> {
		return this.store.close();
	}
}

function rowOf(one: CoreJob): JobRow {
	return {
		job_id: one.id,
		name: one.name,
		state: 'leased',
		payload: one.data,
		metadata: one.metadata,
		failures: one.attemptsMade,
		stalled: one.stalledCounter,
		max_attempts: one.opts.attempts ?? null,
		priority: one.opts.priority ?? 0,
		created_at: new Date(one.timestamp),
		run_at: null,
		claimed_at: one.processedOn === undefined ? null : new Date(one.processedOn),
		finished_at: null,
		errors: null,
		result: null,
		progress: one.progress(),
		unique_key: null,
	};
}

const leaseOf = (one: CoreJob): Lease => ({
	token: one.token ?? '',
	signal: one.signal,
	progress: (value) => one.updateProgress(value),
	log: (line) => one.log(line),
	extend: async (milliseconds) => {
		await one.extendLock(milliseconds);
	},
	durable: one,
});

/** What add itself has done already is left out. */
function coreOptions(opts: JobOptions): CoreJobOptions {
	const { repeat: _repeat, debounce, dependsOn, priority, ...rest } = opts;
	const to: CoreJobOptions & Record<string, unknown> = { ...rest };
	if (priority) {
		to.priority = priority;
	}
	if (debounce !== undefined) {
		if (typeof debounce?.id !== 'string') {
			throw new UnsupportedOptionError('debounce is given without an id: { id, ttl }');
		}
		to.uniqueKey = debounce.id;
		if (debounce.ttl !== undefined) {
			to.uniqueMode = 'throttle';
			to.uniqueWindow = debounce.ttl;
		}
	}
	if (dependsOn !== undefined) {
		to.dependsOn = Array.isArray(dependsOn) ? dependsOn.map((job) => (job instanceof Job ? job.jobId : job)) : dependsOn;
	}
	return to;
}

export function openCore(options: CoreOptions, shutdownTimeout?: number): Core {
	return new Core(options, shutdownTimeout);
}
