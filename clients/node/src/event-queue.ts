/*
 * event-queue.ts: the entry of the package: events, states, queues, workers and
 * subscriptions over one pool of connections, and how all of it ends.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import type { PoolClient } from 'pg';
import { Database, textOrNull, type ConnectionOptions } from './database';
import { AccessDeniedError, ClosedError, ExtensionMissingError, ExtensionVersionError, JobFailedError, QueueNotFoundError, UnsupportedOptionError } from './errors';
import { SafeEmitter, warn } from './emitter';
import { Heartbeat } from './heartbeat';
import type { JobState } from './job';
import { fromJson, member, toJson } from './json';
import { checkJobId, checkKnown, encodeQueueSettings, integer, interval, knownSettings } from './options';
import { outcomeOf, Outcomes } from './outcomes';
import { Coalescer, Queue, type QueueOptions } from './queue';
import { Subscription, type SubscriptionHandler, type SubscriptionOptions } from './subscription';
import { readDeclaration, sync, type Declaration, type SyncReport } from './sync';
import { withTrace } from './telemetry';
import { stepColumns, stepOf, type JobStep } from './steps';
import { isInTransaction, toExecutor, type Executor, type Row, type TransactionLike, type TxOption } from './tx';
import { Worker } from './worker';
import type { Processors, WorkerOptions } from './worker-types';

/** The oldest version of the extension that has all that this package calls. */
export const minimumVersion = '0.2.0';

export interface EventQueueOptions extends ConnectionOptions {
	/** The tenant of calls that name none. */
	tenantId?: string;
	/** The transaction that calls without tx join, if it is one: of typeorm-transactional, @nestjs-cls/transactional, ... */
	currentTransaction?: () => TransactionLike | undefined | null;
	/** Ends in order at SIGTERM and SIGINT once there is a worker or subscription; default true. */
	handleSignals?: boolean;
	/** How long jobs may go on when it closes, in ms; default 25000. */
	shutdownTimeout?: number;
}

export const knownOptions = ['connection', 'pool', 'listenConnection', 'maxConnections', 'connectWait', 'applicationName', 'tenantId', 'currentTransaction',
	'handleSignals', 'shutdownTimeout'] as const;

/** Queue -> job -> data. */
export type QueueTypes = Record<string, Record<string, any>>;

export interface TypedQueue<Jobs extends Record<string, any>> extends Omit<Queue<any, any, any>, 'add' | 'addBulk'> {
	add<N extends keyof Jobs & string>(name: N, data: Jobs[N], options?: import('./options').JobOptions, context?: TxOption):
		Promise<import('./job').Job<Jobs[N], any, N>>;
	addBulk<N extends keyof Jobs & string>(jobs: Array<{ name: N; data: Jobs[N]; opts?: import('./options').JobOptions }>, context?: TxOption):
		Promise<Array<import('./job').Job<Jobs[N], any, N>>>;
}

/** A version that the aggregate must have, any, no_stream (no event yet) or exists. */
export type ExpectedVersion = number | 'any' | 'no_stream' | 'exists';

export interface AppendOptions extends TxOption {
	expectedVersion?: ExpectedVersion;
	/** Makes the call safe to repeat. */
	id?: string;
	metadata?: Record<string, unknown>;
	tenantId?: string;
}
export interface AppendManyOptions extends TxOption {
	expectedVersion?: ExpectedVersion;
	tenantId?: string;
}
export interface NewEvent {
	eventType: string;
	data?: unknown;
	id?: string;
	metadata?: Record<string, unknown>;
}
export interface AppendedEvent {
	/** A bigint, as a string. */
	position: string;
	version: number;
	id: string;
	/** It was there already: a retry with the same id. */
	duplicate: boolean;
}
export interface StoredEvent<Data = any> {
	position: string;
	id: string;
	tenantId: string;
	aggregateType: string;
	aggregateId: string;
	version: number;
	eventType: string;
	data: Data;
	metadata: Record<string, any>;
	/** When it was appended. */
	createdAt: Date;
}
export interface ReadAggregateOptions extends TxOption {
	fromVersion?: number;
	toVersion?: number;
	maxEvents?: number;
	newestFirst?: boolean;
	tenantId?: string;
}
export interface ReadAllOptions extends TxOption {
	afterPosition?: string | number | bigint;
	maxEvents?: number;
	filter?: EventFilter;
	tenantId?: string;
}
export interface StateOptions extends TxOption {
	atVersion?: number;
	atTime?: Date;
	tenantId?: string;
}
export interface SignalOptions extends TxOption {
	/** How long it is kept if no job waits for it, in ms; default 7 days. */
	keep?: number;
	/** Jobs of this tenant get it. */
	tenantId?: string;
}
export interface EventFilter {
	/** A pattern: lead.created, lead.*, lead.** */
	event_type?: string;
	aggregate_type?: string;
	tenant_id?: string;
	/** What the data must contain. */
	data?: unknown;
}
export interface JobOutcome {
	state: JobState;
	result?: any;
	error?: string;
}

/** Events as columns that are text in every driver. */
export const eventColumns = `e.position::text AS position, e.id::text AS id, e.tenant_id::text AS tenant_id, e.aggregate_type::text AS aggregate_type,
	e.aggregate_id::text AS aggregate_id, e.version::text AS version, e.event_type::text AS event_type, e.event_data::text AS event_data,
	e.metadata::text AS metadata, (extract(epoch FROM e.created_at) * 1000)::text AS created_at`;

export const eventOf = (row: Row): StoredEvent => ({
	position: row.position!,
	id: row.id!,
	tenantId: row.tenant_id!,
	aggregateType: row.aggregate_type!,
	aggregateId: row.aggregate_id!,
	version: Number(row.version),
	eventType: row.event_type!,
	data: fromJson(row.event_data),
	metadata: fromJson(row.metadata) ?? {},
	createdAt: new Date(Number(row.created_at)),
});

const appendedOf = (row: Row): AppendedEvent => ({
	position: row.position!,
	version: Number(row.version),
	id: row.id!,
	duplicate: row.duplicate === 'true' || row.duplicate === 't',
});

const appendedColumns = 'a.position::text AS position, a.version::text AS version, a.id::text AS id, a.duplicate::text AS duplicate';

const olderThan = (version: string, minimum: string): boolean => {
	const [a, b] = [version, minimum].map(text => text.split('.').map(Number));
	for (let i = 0; i < b.length; i++)
		if ((a[i] ?? 0) !== b[i])
			return (a[i] ?? 0) < b[i];
	return false;
};

/** Those of this process that a signal ends, and how many are being closed by one. */
const endedBySignals = new Set<EventQueue<any>>();
let endingBySignal = 0;

/* However many there are: one listener. */
const onSignal = (signal: NodeJS.Signals): void => endedBySignals.forEach(one => one.endBySignal(signal));

export class EventQueue<Queues extends QueueTypes = any> extends SafeEmitter {
	readonly options: EventQueueOptions;
	/** @internal */ readonly database: Database;
	/** @internal */ readonly coalescer: Coalescer;
	/** @internal */ readonly heartbeat: Heartbeat;
	/** @internal */ readonly outcomes: Outcomes;
	private readonly storage = new AsyncLocalStorage<TransactionLike>();
	private readonly queues = new Map<string, Queue>();
	private readonly declared = new Set<string>();
	private readonly runners = new Set<Worker<any, any> | Subscription>();
	private readying?: Promise<void>;
	private closing?: Promise<void>;

	constructor(options: EventQueueOptions = {}) {
		super();
		checkKnown('the EventQueue', options, knownOptions);
		this.options = options;
		this.database = new Database(options);
		this.database.on('connectionError', error => this.emit('connectionError', error));
		this.coalescer = new Coalescer(this.database.run);
		this.heartbeat = new Heartbeat(this.database, error => this.report(error));
		this.outcomes = new Outcomes(this.database.run, id => [...this.runners].some(runner => runner instanceof Worker && runner.hasInHand(id)));
	}

	/** @internal */
	endBySignal(signal: NodeJS.Signals): void {
		endingBySignal++;
		this.close().catch(error => this.report(error)).then(() => {
			endingBySignal--;
			// Another one of this process may have jobs to end, and where the application has
			// its own handler it says when the process ends.
			if (endingBySignal === 0 && process.listenerCount(signal) === 0)
				process.kill(process.pid, signal);
		});
	}

	/** @internal Errors that no call can give back. */
	report(error: unknown): void {
		if (this.listenerCount('error') > 0)
			this.emit('error', error);
		else
			warn(error);
	}

	/** Checks once that the database has the extension, in a version that will do, and that the role may use it. */
	ready(): Promise<void> {
		this.readying ??= this.check().catch(error => {
			this.readying = undefined;
			throw error;
		});
		return this.readying;
	}

	private async check(): Promise<void> {
		const [row] = await this.database.run(
			`SELECT (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'event_queue') AS version,
				coalesce(pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('event_queue')::oid, 'USAGE'), false)::text AS granted,
				pg_catalog.current_database()::text AS db, current_user::text AS role`, []);
		if (row.version === null)
			throw new ExtensionMissingError(`database "${row.db}" has no event_queue: CREATE EXTENSION event_queue`);
		if (olderThan(row.version, minimumVersion))
			throw new ExtensionVersionError(
				`event_queue of database "${row.db}" is of version ${row.version}, this package needs ${minimumVersion}: install it and ALTER EXTENSION event_queue UPDATE`);
		if (row.granted !== 'true')
			throw new AccessDeniedError(`role "${row.role}" has no access to event_queue of database "${row.db}": ` +
				'grant it by event_queue.grant_producer, grant_worker, grant_consumer or grant_admin');
		// EQ000 and EQ045: loaded, and of one version with its SQL
		await this.database.run('SELECT event_queue.current_tenant()', []);
	}

	/** @internal A job is there: workers of this process need not wait to be told by the server. */
	added(queue: string, job: string): void {
		for (const runner of this.runners)
			if (runner instanceof Worker && runner.queue.name === queue)
				runner.look(job);
	}

	/** @internal The transaction that a call without tx joins. */
	currentTransaction(): TransactionLike | undefined {
		const present = this.storage.getStore();
		if (present !== undefined)
			return present;
		// Outside of a transaction such libraries give the client itself.
		const tx = this.options.currentTransaction?.() ?? undefined;
		return tx !== undefined && isInTransaction(tx) ? tx : undefined;
	}

	/** @internal The transaction given; null is refused later, as it is none and was meant to be one. */
	transactionOf(...given: Array<TransactionLike | undefined>): TransactionLike | undefined {
		const tx = given.find(one => one !== undefined);
		return tx === undefined ? this.currentTransaction() : tx;
	}

	/** @internal Of the transaction given, the present one, or one of its own. */
	executor(context?: TxOption): Executor {
		const tx = this.transactionOf(context?.tx);
		return tx === undefined ? this.database.run : toExecutor(tx);
	}

	private tenant(tenantId: string | undefined): string | null {
		return textOrNull(tenantId ?? this.options.tenantId);
	}

	/** Runs it in a transaction; calls without tx that it makes are part of that. */
	transaction<T>(work: (tx: PoolClient) => Promise<T>): Promise<T> {
		return this.database.transaction(client => this.storage.run(client, () => work(client)));
	}

	/** @internal Whoever caused it: no transaction of theirs. */
	outside<T>(work: () => T): T {
		return this.storage.exit(work);
	}

	/** Calls without tx that it makes are part of this transaction. */
	withTransaction<T>(tx: TransactionLike, work: () => Promise<T>): Promise<T> {
		return this.storage.run(tx, work);
	}

	/* Events */

	async append(aggregateType: string, aggregateId: string, eventType: string, data: unknown = {}, options: AppendOptions = {}): Promise<AppendedEvent> {
		const [row] = await this.executor(options)(
			`SELECT ${appendedColumns} FROM event_queue.append($1::text, $2::text, $3::text, $4::text::jsonb, $5::text, $6::text::uuid, $7::text::jsonb, $8::text) a`,
			[aggregateType, aggregateId, eventType, toJson(data, `the data of event ${eventType}`), String(options.expectedVersion ?? 'any'),
				textOrNull(options.id), toJson(withTrace(options.metadata) ?? {}, 'metadata'), this.tenant(options.tenantId)]);
		return appendedOf(row);
	}

	/** Events to one aggregate, all or none. */
	async appendMany(aggregateType: string, aggregateId: string, events: NewEvent[], options: AppendManyOptions = {}): Promise<AppendedEvent[]> {
		const batch = events.map(event => ({ event_type: event.eventType, event_data: member(event.data ?? {}, `the data of event ${event.eventType}`), id: event.id, metadata: withTrace(event.metadata) }));
		const rows = await this.executor(options)(
			`SELECT ${appendedColumns} FROM event_queue.append_many($1::text, $2::text, $3::text::jsonb, $4::text, $5::text) a`,
			[aggregateType, aggregateId, toJson(batch, 'events'), String(options.expectedVersion ?? 'any'), this.tenant(options.tenantId)]);
		return rows.map(appendedOf);
	}

	async readAggregate<Data = any>(aggregateType: string, aggregateId: string, options: ReadAggregateOptions = {}): Promise<Array<StoredEvent<Data>>> {
		const rows = await this.executor(options)(
			`SELECT ${eventColumns} FROM event_queue.${options.newestFirst ? 'read_aggregate_backward' : 'read_aggregate'}($1::text, $2::text, $3::text::int, $4::text::int, $5::text, $6::text::int) e
			ORDER BY e.version ${options.newestFirst === true ? 'DESC' : ''}`,
			[aggregateType, aggregateId, String(options.fromVersion ?? 1), textOrNull(options.toVersion), this.tenant(options.tenantId), textOrNull(options.maxEvents)]);
		return rows.map(eventOf);
	}

	/** Events after a position, in order, never past the watermark. */
	async readAll<Data = any>(options: ReadAllOptions = {}): Promise<Array<StoredEvent<Data>>> {
		const rows = await this.executor(options)(
			`SELECT ${eventColumns} FROM event_queue.read_all($1::text::bigint, $2::text::int, $3::text, $4::text::jsonb) e`,
			[String(options.afterPosition ?? 0), String(options.maxEvents ?? 1000), this.tenant(options.tenantId),
				options.filter === undefined ? null : toJson(options.filter, 'filter')]);
		return rows.map(eventOf);
	}

	/** The state of an aggregate; null if it had no event. */
	async state<State = any>(aggregateType: string, aggregateId: string, options: StateOptions = {}): Promise<State | null> {
		const [row] = await this.executor(options)(
			'SELECT event_queue.aggregate_state($1::text, $2::text, $3::text::int, $4::text::timestamptz, $5::text)::text AS state',
			[aggregateType, aggregateId, textOrNull(options.atVersion), options.atTime?.toISOString() ?? null, this.tenant(options.tenantId)]);
		return fromJson(row.state);
	}

	/* Queues */

	/** The queue of this name, one object a name; its settings take effect by sync. */
	queue<Name extends keyof Queues & string>(name: Name, options?: QueueOptions): QueueTypes extends Queues ? Queue : TypedQueue<Queues[Name]>;
	queue(name: string, options?: QueueOptions): any {
		if (typeof name !== 'string')
			throw new UnsupportedOptionError(`the name of a queue is a ${typeof name}, not a string`);
		checkKnown(`queue "${name}"`, options, [...knownSettings, 'tenantId']);
		if (options !== undefined) {
			encodeQueueSettings(options);	// throws what sync would
			this.declared.add(name);
		}
		let queue = this.queues.get(name);
		if (queue === undefined) {
			queue = new Queue(this, name, options);
			this.queues.set(name, queue);
		} else if (options !== undefined)
			Object.assign(queue.options, options);
		return queue;
	}

	/**
	 * Makes the queues and rules that are missing and alters those that differ, as an admin;
	 * drops only what is named in drop.  Safe from several instances at once.  A string is
	 * the path of a JSON file; without an argument: the queues that queue() was given
	 * options for.  With { tx } part of a migration.
	 */
	async sync(declaration?: Declaration | string, context?: TxOption): Promise<SyncReport> {
		const wanted = declaration === undefined
			? { queues: Object.fromEntries([...this.declared].map(name => [name, this.queues.get(name)!.options])) }
			: typeof declaration === 'string' ? await readDeclaration(declaration) : declaration;
		const tx = this.transactionOf(context?.tx);
		return tx !== undefined ? sync(toExecutor(tx), wanted) : this.database.transaction(client => sync(toExecutor(client), wanted));
	}

	/** @internal */
	async queueSettings(name: string): Promise<{ leaseMs: number; rateMs?: number }> {
		const [row] = await this.database.run(
			`SELECT (extract(epoch FROM lease) * 1000)::text AS lease, (extract(epoch FROM rate_interval) * 1000 / rate_limit)::text AS rate,
				(max_concurrency IS NOT NULL OR group_rate_limit IS NOT NULL)::text AS limited
			FROM event_queue.queue WHERE name = $1::text`, [name]);
		if (row === undefined)
			throw new QueueNotFoundError(`queue "${name}" does not exist: create it with event_queue.create_queue('${name}'), or by sync()`, { sqlstate: 'EQ010' });
		return { leaseMs: Number(row.lease), rateMs: row.rate !== null ? Number(row.rate) : row.limited === 'true' ? 50 : undefined };
	}

	/** Begins to process jobs of a queue: a function for all of them, or one for each name. */
	worker<Data = any, Result = any>(queue: string, processors?: Processors<Data, Result>, options?: WorkerOptions): Worker<Data, Result> {
		return new Worker<Data, Result>(this, queue, processors, options);
	}

	/** Begins to consume events, in order, from where this subscription stands. */
	subscription(name: string, handler: SubscriptionHandler, options?: SubscriptionOptions): Subscription {
		return new Subscription(this, name, handler, options);
	}

	async jobOutcome(jobId: string | number | bigint, context?: TxOption): Promise<JobOutcome> {
		const [row] = await this.executor(context)('SELECT event_queue.job_outcome($1::text::bigint)::text AS outcome', [checkJobId(jobId)]);
		return outcomeOf(row);
	}

	/** Waits until a job is finished; its result, if the queue keeps completed jobs or a worker of this process did it. */
	async awaitJob(jobId: string | number | bigint, options: { timeout?: number } = {}): Promise<any> {
		const outcome = await this.outcomes.of(checkJobId(jobId), options.timeout ?? Infinity);
		if (outcome.state === 'dead')
			throw new JobFailedError(outcome.error ?? `job ${jobId} is dead`);
		if (outcome.state === 'completed' || outcome.state === 'gone')
			return outcome.result ?? undefined;
		throw new JobFailedError(`job ${jobId} is not finished after ${options.timeout} ms: it is ${outcome.state}`);
	}

	/** Removes a waiting job, or tells the worker of a running one to stop. */
	async cancelJob(jobId: string | number | bigint, context?: TxOption): Promise<'cancelled' | 'requested'> {
		const [row] = await this.executor(context)('SELECT event_queue.cancel_job($1::text::bigint)::text AS state', [checkJobId(jobId)]);
		return row.state as 'cancelled' | 'requested';
	}

	/* Durable steps, of jobs in nobody's hands; those of a job in hand are methods of it. */

	/**
	 * Wakes the jobs that wait for the signal (job.awaitSignal), or keeps it for the first that will.  False if it
	 * is not the first of this name and key: sent twice, it takes effect once.
	 */
	async sendSignal(name: string, key: string | number | bigint, payload?: unknown, options: SignalOptions = {}): Promise<boolean> {
		const keep = options.keep === undefined ? '7 days' : interval(integer('keep', options.keep, 1));
		const [row] = await this.executor(options)(
			'SELECT event_queue.send_signal($1::text, $2::text, $3::text::jsonb, $4::text::interval, $5::text)::text AS first',
			[name, String(key), payload === undefined ? null : toJson(payload, `the payload of signal ${name}`), keep, this.tenant(options.tenantId)]);
		return row.first === 'true';
	}

	/** What a living or dead job has done, and what it waits for, in order. */
	async jobSteps(jobId: string | number | bigint, context?: TxOption): Promise<JobStep[]> {
		const rows = await this.executor(context)(
			`SELECT ${stepColumns} FROM event_queue.job_steps s WHERE s.job_id = $1::text::bigint ORDER BY s.step_no`, [checkJobId(jobId)]);
		return rows.map(stepOf);
	}

	/** A new job like this one, which has the results of the steps before one and goes on with that; its id.  As an admin. */
	async forkJob(jobId: string | number | bigint, fromStep: string, context?: TxOption): Promise<string> {
		const [row] = await this.executor(context)('SELECT event_queue.fork_job($1::text::bigint, $2::text)::text AS id', [checkJobId(jobId), fromStep]);
		return row.id!;
	}

	/** @internal */
	register(runner: Worker<any, any> | Subscription): void {
		if (this.closing !== undefined)
			throw new ClosedError('the EventQueue is closed');
		if (this.runners.size === 0 && this.options.handleSignals !== false) {
			if (endedBySignals.size === 0) {
				process.once('SIGTERM', onSignal);
				process.once('SIGINT', onSignal);
			}
			endedBySignals.add(this);
		}
		this.runners.add(runner);
	}

	/** @internal */
	unregister(runner: Worker<any, any> | Subscription): void {
		this.runners.delete(runner);
		if (this.runners.size === 0) {
			endedBySignals.delete(this);
			if (endedBySignals.size === 0) {
				process.removeListener('SIGTERM', onSignal);
				process.removeListener('SIGINT', onSignal);
			}
		}
	}

	/**
	 * Stops claiming, lets jobs end within the time, gives the others back without counting
	 * an attempt, and closes the connections.  add works until the last processor returned.
	 */
	close(options: { timeout?: number } = {}): Promise<void> {
		this.closing ??= (async () => {
			for (const ended of await Promise.allSettled([...this.runners].map(runner => runner.close(options))))
				if (ended.status === 'rejected')
					this.report(ended.reason);
			await this.coalescer.flush();
			this.outcomes.close();
			await this.heartbeat.close();
			await this.database.close();
			this.emit('closed');
		})();
		return this.closing;
	}
}
