import { Logger } from '@nestjs/common';
import { Job, type JobRow, type Lease, UnsupportedError } from './job';
import type { OnEventOptions, Resolvable } from './decorators';
import { currentTransaction, type DomainEvent, type EventSource, withTransaction } from './event-sourced';
import type { JobOptions } from './bull-types';
import { jobOptions, settingsOf } from './lenient';
import type { Port, Transaction } from './port';
import { Queue } from './queue';
import { ensureQueue, queueOptions, type QueueSettings, tellOfLimit } from './settings';
import { knownOptions, type JobOutcome, type SignalOptions } from '../event-queue';
import { isOver, outcomeOf } from '../outcomes';
import { checkKnown, optionsOf } from '../options';
import { JobSteps, type JobStep } from '../steps';
import { member, toJson } from '../json';
import { sessionExecutor } from '../tx';
import { type Core, type CoreOptions, type CoreSubscription, type CoreWorker, openCore } from './core';
import { GlobalEvents } from './global-events';

export interface EventQueueRootOptions extends CoreOptions, QueueSettings {
	/**
	 * How a transaction of the application is opened, for @EventSourced, @OnEvent and
	 * transaction(): `(work) => prisma.$transaction(work)`. Default: one of the pool's connections.
	 */
	transaction?: <R>(work: (tx: any) => Promise<R>) => Promise<R>;
	/** How long jobs may go on when the application ends, in milliseconds; what is left goes back, uncounted. */
	shutdownTimeout?: number;
	/** SIGTERM and SIGINT end the workers in order, also if nobody has called enableShutdownHooks(). Default: true. */
	handleSignals?: boolean;
	/** Taken and without effect, for applications that came from Bull. */
	redis?: unknown;
	prefix?: string;
	createClient?: unknown;
	metrics?: unknown;
	isSharedChildPool?: unknown;
}

/** What @Process says of a method. */
export interface Registration {
	name: string;
	concurrency: Resolvable<number>;
	/** Class and method, for messages. */
	where: string;
	run: (job: Job) => Promise<unknown>;
}

/** What @OnEvent says of a method. */
export interface SubscriptionRegistration extends OnEventOptions {
	pattern: string;
	subscription: string;
	where: string;
	handle: (event: any, tx: Transaction) => unknown;
}

/** How jobs are run when a test says so, instead of by workers. */
export interface TestHooks {
	/** What all statements go through, if it is set. */
	client?: Transaction;
	afterAdd(): Promise<void>;
	transaction?<R>(work: (tx: Transaction) => Promise<R>): Promise<R>;
	/** drain({ skipWaits }): jobs do not sleep. */
	skipsSleeps?: boolean;
}

interface LocalQueue {
	queue: Queue;
	settings: QueueSettings;
	processors: Map<string, Registration>;
	worker?: CoreWorker;
	/** Here, by pause(true) and close(), also before the worker is made. */
	isPaused?: boolean;
	isClosed?: boolean;
}

/** Of Bull: taken with a warning. */
export const WITHOUT_EFFECT = ['redis', 'prefix', 'createClient', 'metrics', 'isSharedChildPool'] as const;

/** Probes wait no longer; ms. */
const LOOK_WAITS = 2000;

const SIGNALS = ['SIGTERM', 'SIGINT'] as const;

/** The connection of a `forRoot`: its queues, workers and subscriptions, from start to shutdown. */
export class EventQueueService implements Port, EventSource {
	readonly logger = new Logger('EventQueueModule');
	private readonly queues = new Map<string, LocalQueue>();
	private readonly making = new Map<string, Promise<Queue>>();
	private readonly subscriptions: SubscriptionRegistration[] = [];
	private readonly consumers: CoreSubscription[] = [];
	private readonly global = new GlobalEvents(this);
	private connected?: Promise<void>;
	private started?: Promise<void>;
	private stopped?: Promise<void>;
	private closed?: Promise<void>;
	private endsReached = 0;
	private readonly onSignal = (signal: NodeJS.Signals) => void this.signalled(signal);
	/** Set by EventQueueTesting. */
	test?: TestHooks;

	constructor(
		readonly core: Core,
		readonly options: EventQueueRootOptions,
		readonly configKey: string,
	) {}

	static async create(options: EventQueueRootOptions, configKey: string): Promise<EventQueueService> {
		if (typeof options !== 'object' || options === null) {
			throw new TypeError(`forRootAsync: the factory gave ${options}: return the options, or {} where the PG variables say all`);
		}
		checkKnown('forRoot', options, [...knownOptions, 'url', ...queueOptions, 'transaction', ...WITHOUT_EFFECT]);
		const service = new EventQueueService(openCore(options, options.shutdownTimeout), options, configKey);
		for (const option of WITHOUT_EFFECT) {
			if (options[option] !== undefined) {
				service.logger.warn(`forRoot: ${option} is without effect, there is no Redis any more; the database is that of ${service.core.describe()}`);
			}
		}
		return service;
	}

	/** Checks the connection, once; nothing stays open if it will not do.  An application whose queues a test has replaced needs none. */
	connect(): Promise<void> {
		this.connected ??= this.ready().catch(async (error) => {
			await this.core.close();
			throw error;
		});
		return this.connected;
	}

	/* ---- for the application ---- */

	/**
	 * One transaction for what `work` does: `add`, `append` and `@EventSourced` inside of it
	 * take part by themselves. Inside of another one of the same connection it is that one.
	 */
	async transaction<R>(work: (tx: any) => Promise<R>): Promise<R> {
		const present = currentTransaction(this);
		if (present !== undefined) {
			return work(present);
		}
		// What eq.withTransaction() or the option currentTransaction says.
		const theirs = this.core.store.currentTransaction();
		if (theirs !== undefined) {
			return withTransaction(this, theirs, () => work(theirs));
		}
		const inScope = (tx: Transaction) => this.core.store.withTransaction(tx, () => withTransaction(this, tx, () => work(tx)));
		if (this.test?.transaction !== undefined) {
			return this.test.transaction(inScope);
		}
		return this.options.transaction === undefined ? this.core.transaction(inScope) : this.options.transaction(inScope);
	}

	async appendEvents(
		aggregateType: string,
		aggregateId: string,
		events: DomainEvent[],
		expectedVersion: number | string = 'any',
		tx?: Transaction,
	): Promise<void> {
		const withIds = events.filter((one) => one.options.id !== undefined).length;
		if (withIds !== 0 && withIds !== events.length) {
			throw new TypeError(`events for ${aggregateType} ${aggregateId}: all of them have an id or none has`);
		}
		await this.query(
			'SELECT version FROM event_queue.append_many($1::text, $2::text, $3::text::jsonb, $4::text)',
			[
				aggregateType,
				aggregateId,
				toJson(
					events.map((one) => ({
						event_type: one.eventType,
						event_data: member(one.data ?? {}, `the data of event ${one.eventType}`),
						...(one.options.id === undefined ? {} : { id: one.options.id }),
						...(one.options.metadata === undefined ? {} : { metadata: one.options.metadata }),
					})),
					`the data of events for ${aggregateType} ${aggregateId}`,
				),
				String(expectedVersion),
			],
			tx,
		);
	}

	/**
	 * Wakes the jobs that wait for the signal (`job.awaitSignal`), or keeps it for the first that will; false if it is not
	 * the first of this name and key. Default key of a job: its `jobId`.
	 */
	async sendSignal(name: string, key: string | number | bigint, payload?: unknown, options: SignalOptions = {}): Promise<boolean> {
		const first = await this.core.store.sendSignal(name, key, payload, { ...options, tx: this.within(options.tx) });
		if (currentTransaction(this) === undefined) {
			await this.test?.afterAdd();
		}
		return first;
	}

	/** What a living or dead job has done, and what it waits for, in order. */
	jobSteps(jobId: string | number | bigint, tx?: Transaction): Promise<JobStep[]> {
		return this.core.store.jobSteps(jobId, { tx: this.within(tx) });
	}

	/** A new job like this one, which has the results of the steps before one and goes on with that; its id. */
	async forkJob(jobId: string | number | bigint, fromStep: string, tx?: Transaction): Promise<string> {
		const id = await this.core.store.forkJob(jobId, fromStep, { tx: this.within(tx) });
		if (currentTransaction(this) === undefined) {
			await this.test?.afterAdd();
		}
		return id;
	}

	/** A SELECT, in the transaction given, the present one, or its own; parameters are text, and cast in it. */
	query<R = Record<string, unknown>>(text: string, values: unknown[] = [], tx?: Transaction): Promise<R[]> {
		return this.core.query<R>(text, values, this.within(tx));
	}

	async look<R>(text: string): Promise<R | undefined> {
		return (await this.core.query<R>(text, [], this.test?.client, LOOK_WAITS))[0];
	}

	private within(tx?: Transaction): Transaction | undefined {
		return tx !== undefined ? tx : (currentTransaction(this) ?? this.core.store.currentTransaction() ?? this.test?.client);
	}

	/* ---- for queues ---- */

	ready(): Promise<void> {
		return this.core.ready();
	}

	/** The queue of this name: the same object for all modules that register it. */
	queue(name: string, settings: QueueSettings): Promise<Queue> {
		let made = this.making.get(name);
		if (made === undefined) {
			made = this.makeQueue(name, settings);
			this.making.set(name, made);
		}
		return made;
	}

	private async makeQueue(name: string, own: QueueSettings): Promise<Queue> {
		await this.connect();
		const settings: QueueSettings = {
			limiter: settingsOf(own.limiter === undefined ? this.options.limiter : own.limiter),
			settings: settingsOf({ ...this.options.settings, ...own.settings }),
			defaultJobOptions: jobOptions({ ...optionsOf('forRoot', this.options.defaultJobOptions), ...optionsOf(`queue ${name}`, own.defaultJobOptions) }),
			server: { ...this.options.server, ...own.server },
		};
		this.core.sqlOptions(settings.defaultJobOptions ?? {}); // throws if one has no meaning
		await ensureQueue(this, name, settings, (message) => this.logger.warn(message));
		// Whether jobs are kept is a setting of the queue, as long as add does not say it.
		const { removeOnComplete: _complete, removeOnFail: _fail, ...defaults } = settings.defaultJobOptions ?? {};
		const queue = new Queue(name, this, defaults, settings.limiter?.groupKey);
		this.queues.set(name, { queue, settings, processors: new Map() });
		return queue;
	}

	async remakeQueue(name: string): Promise<void> {
		await this.transaction(async () => {
			await this.query(
				`SELECT event_queue.drop_queue($1::text, force => true)
				 FROM (SELECT count(event_queue.drop_schedule(s.name)) FROM event_queue.schedules s WHERE s.queue = $1::text) schedules`,
				[name],
			);
			await ensureQueue(this, name, this.local(name).settings, (message) => this.logger.warn(message));
		});
	}

	reportListener(queue: string, error: unknown): void {
		this.logger.error(`a listener of queue "${queue}": ${(error as Error)?.stack ?? error}`);
	}

	async outcome(jobId: string): Promise<JobOutcome> {
		while (this.test !== undefined) {
			const [row] = await this.query<{ outcome: string }>('SELECT event_queue.job_outcome($1::text::bigint)::text AS outcome', [jobId]);
			const outcome = outcomeOf(row as { outcome: string });
			if (isOver(outcome)) {
				return outcome;
			}
			await new Promise((resolve) => setTimeout(resolve, 500));
		}
		return this.core.store.outcomes.of(jobId);
	}

	/** For tests that roll back what made the queues. */
	async createAgain(): Promise<void> {
		for (const [name, local] of this.queues) {
			await ensureQueue(this, name, local.settings, (message) => this.logger.warn(message));
		}
		await this.createSubscriptions();
	}

	/** All that registerQueue has made. */
	get allQueues(): Queue[] {
		return [...this.queues.values()].map((local) => local.queue);
	}

	processorsOf(queue: string): ReadonlyMap<string, Registration> {
		return this.local(queue).processors;
	}

	private local(name: string): LocalQueue {
		const local = this.queues.get(name);
		if (local === undefined) {
			throw new Error(`queue "${name}" is not registered`);
		}
		return local;
	}

	async add(queue: string, jobs: { name: string; data: unknown; opts: JobOptions }[], tx?: Transaction): Promise<string[]> {
		// The server lets in jobs of groups, and those that depend on others, after a commit: there is none.
		const alone = (job: (typeof jobs)[0]) => ({ ...job, opts: { ...job.opts, groupKey: undefined, dependsOn: undefined } });
		const ids = await this.core.add(queue, this.test?.client === undefined ? jobs : jobs.map(alone), this.within(tx));
		// In a transaction of the application's they are due when that has ended.
		if (currentTransaction(this) === undefined) {
			await this.test?.afterAdd();
		}
		return ids;
	}

	async schedule(one: Parameters<Port['schedule']>[0]): Promise<void> {
		const options = this.core.sqlOptions(one.opts);
		delete options.unique_key; // Bull's jobId tells apart schedules, not the jobs that they make
		const { priority, metadata = {}, ...rest } = options as { priority?: number; metadata?: { opts?: object } };
		const all = { ...rest, metadata: { ...metadata, opts: { ...metadata.opts, repeat: one.repeat } } };
		await this.query(
			`SELECT event_queue.create_schedule($1::text, $2::text, $3::text, $4::text, $5::text::jsonb, time_zone => $6::text,
				priority => $7::text::int, options => $8::text::jsonb, or_replace => true, starts_at => $9::text::timestamptz, ends_at => $10::text::timestamptz)`,
			[one.schedule, one.cron, one.queue, one.name, toJson(one.data ?? {}, `the data of job ${one.name}`), one.tz, priority ?? null,
				toJson(all, `the options of job ${one.name}`), one.startsAt?.toISOString() ?? null, await this.endOf(one)],
		);
	}

	/* Of a limit: the time of its last run, which stays when it is added again, as each start of the application does. */
	private async endOf({ schedule, cron, tz, startsAt, endsAt, times, repeat }: Parameters<Port['schedule']>[0]): Promise<string | null> {
		const end = endsAt?.toISOString() ?? null;
		if (times === undefined) {
			return end;
		}
		const [row] = await this.query<{ at: string | null }>(
			`WITH RECURSIVE run (n, at) AS (
				SELECT 1, event_queue.cron_next($2::text, $3::text, greatest(now(), $4::text::timestamptz - interval '1 microsecond'))
				UNION ALL SELECT n + 1, event_queue.cron_next($2::text, $3::text, at) FROM run WHERE n < $5::text::int AND at IS NOT NULL)
			SELECT coalesce((SELECT s.ends_at FROM event_queue.schedules s WHERE s.name = $1::text
					AND s.options #> '{metadata,opts,repeat}' @> jsonb_build_object('limit', $6::text::int)),
				least((SELECT max(at) FROM run), $7::text::timestamptz)) AS at`,
			[schedule, cron, tz, startsAt?.toISOString() ?? null, times, (repeat as { limit?: number }).limit, end],
		);
		return row?.at ?? end;
	}

	async claim(queue: string, names: string[] | null = null): Promise<{ row: JobRow; lease: Lease } | undefined> {
		const [row] = await this.query<JobRow & { lease_token: string; attempt: number; max_attempts: number }>(
			`SELECT c.job_id::text, c.lease_token::text, c.name, 'leased' AS state, c.payload, c.metadata, c.attempt - 1 AS failures,
				c.stalled, c.max_attempts, c.priority, c.created_at, c.run_at, clock_timestamp() AS claimed_at, NULL AS finished_at,
				NULL AS errors, NULL AS result, NULL AS progress, NULL AS unique_key
			 FROM event_queue.claim($1::text, 1, job_names => $2::text::text[]) c`,
			[queue, names],
		);
		return row === undefined ? undefined : { row, lease: this.leaseOf(row.job_id, row.lease_token, row.name, queue) };
	}

	/** A lease that is kept by hand: `extendLock` renews it. */
	leaseOf(jobId: string, token: string, name: string, queue: string): Lease {
		const { signal } = new AbortController();
		const { client } = this.test ?? {};
		return {
			token,
			signal,
			durable: new JobSteps({ id: jobId, token, name, queue }, {
				run: client === undefined ? this.core.store.database.run : sessionExecutor(client),
				currentTransaction: () => currentTransaction(this) ?? this.core.store.currentTransaction(),
				signal,
				skipSleeps: () => this.test?.skipsSleeps === true,
			}),
			progress: async (value) => {
				await this.query('SELECT event_queue.report_progress($1::text::bigint, $2::text::uuid, $3::text::jsonb)', [jobId, token, toJson(value, 'progress')]);
			},
			log: async (line) => {
				await this.query('SELECT event_queue.log_job($1::text::bigint, $2::text::uuid, $3::text)', [jobId, token, line]);
			},
			extend: async (milliseconds) => {
				await this.query(`SELECT event_queue.extend_lease($1::text::bigint, $2::text::uuid, $3::text::float8 * interval '1 ms')`, [jobId, token, milliseconds]);
			},
		};
	}

	async pauseWorkers(queue: string, doNotWaitActive: boolean): Promise<void> {
		const local = this.local(queue);
		local.isPaused = true;
		await local.worker?.pause(doNotWaitActive);
	}

	resumeWorkers(queue: string): void {
		const local = this.local(queue);
		local.isPaused = false;
		local.worker?.resume();
	}

	async closeWorkers(queue: string, doNotWaitJobs: boolean): Promise<void> {
		const local = this.local(queue);
		local.isClosed = true;
		await local.worker?.close(doNotWaitJobs ? 0 : this.options.shutdownTimeout);
	}

	async whenIdle(queue: string): Promise<void> {
		await this.local(queue).worker?.whenIdle();
	}

	/* ---- for the explorer ---- */

	register(queue: Queue, registration: Registration): void {
		const { processors } = this.local(queue.name);
		const other = processors.get(registration.name);
		if (other !== undefined) {
			throw new Error(
				`queue "${queue.name}": both ${other.where} and ${registration.where} process jobs ` +
					(registration.name === '*' ? 'of every name' : `named "${registration.name}"`),
			);
		}
		processors.set(registration.name, registration);
	}

	subscribe(registration: SubscriptionRegistration): void {
		const other = this.subscriptions.find((one) => one.subscription === registration.subscription);
		if (other !== undefined) {
			throw new Error(
				`both ${other.where} and ${registration.where} use the subscription "${registration.subscription}": name one of them otherwise`,
			);
		}
		this.subscriptions.push(registration);
	}

	get registeredSubscriptions(): readonly SubscriptionRegistration[] {
		return this.subscriptions;
	}

	watch(queue: Queue): void {
		this.global.watch(queue);
	}

	/** Makes the subscriptions that are missing, and gives those that are there their patterns. */
	async createSubscriptions(): Promise<void> {
		for (const one of this.subscriptions) {
			const from = one.from === 'start' ? 0 : typeof one.from === 'number' ? one.from : null;
			await this.query(
				'SELECT event_queue.create_subscription($1::text, $2::text::jsonb, from_position => $3::text::bigint, or_replace => true)',
				[
					one.subscription,
					JSON.stringify({
						event_type: one.pattern,
						...(one.aggregateType === undefined ? {} : { aggregate_type: one.aggregateType }),
					}),
					from,
				],
			);
		}
	}

	start(): Promise<void> {
		this.started ??= this.startAll();
		return this.started;
	}

	private async startAll(): Promise<void> {
		await this.createSubscriptions();
		if (this.test !== undefined) {
			return;
		}
		for (const [name, local] of this.queues) {
			if (local.processors.size > 0 && !local.isClosed) {
				await tellOfLimit(this, name, local.settings, (message) => this.logger.warn(message));
				local.worker = await this.core.worker(local.queue, local.settings, [...local.processors.values()], this.logger, () => local.isPaused === true);
			}
		}
		for (const one of this.subscriptions) {
			this.consumers.push(this.core.consume(one, this.options.transaction, (tx, work) => withTransaction(this, tx, work), this.logger));
		}
		this.global.start();
		if (this.options.handleSignals !== false) {
			for (const signal of SIGNALS) {
				process.on(signal, this.onSignal);
			}
		}
	}

	/** Claims nothing more, lets jobs end, gives the rest back. The connection stays. */
	stop(): Promise<void> {
		this.stopped ??= this.stopAll();
		return this.stopped;
	}

	private async stopAll(): Promise<void> {
		await this.started?.catch(() => undefined);
		this.global.stop();
		await Promise.all([
			...[...this.queues.values()].map((local) => local.worker?.close(this.options.shutdownTimeout)),
			...this.consumers.map((consumer) => consumer.close()),
		]);
	}

	async oneEndIsReached(): Promise<void> {
		this.endsReached++;
		if (this.endsReached === 2) {
			await this.close();
		}
	}

	/** Stops, and ends the connection. */
	close(): Promise<void> {
		this.closed ??= this.closeAll();
		return this.closed;
	}

	private async closeAll(): Promise<void> {
		for (const signal of SIGNALS) {
			process.removeListener(signal, this.onSignal);
		}
		await this.stop();
		for (const queue of this.allQueues) {
			await queue.close();
		}
		await this.core.close();
	}

	/** Whoever else listens ends the process, as Nest does with enableShutdownHooks(); else it ends here. */
	private async signalled(signal: NodeJS.Signals): Promise<void> {
		const alone = process.listeners(signal).every((listener) => listener === this.onSignal);
		try {
			await this.stop();
			if (alone) {
				await this.close();
			}
		} catch (error) {
			this.logger.error(`at ${signal}: ${(error as Error).stack}`);
		}
		if (alone) {
			process.removeListener(signal, this.onSignal);
			process.kill(process.pid, signal);
		}
	}
}

export { UnsupportedError };
