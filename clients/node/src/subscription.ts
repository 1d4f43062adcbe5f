/*
 * subscription.ts: consumes events in order.
 *
 * One transaction a batch: fetch_events, what the handler does in it, ack.  So with one
 * bucket each event is worked on exactly once, as far as the work is in the transaction.
 * A group (buckets > 1) shares the aggregates between its members; the membership is the
 * session's, so the transaction is on the subscription's own connection.
 *
 * When the handler fails the batch is rolled back and comes again only up to the event
 * that failed; that one is then tried by itself, and parked with its aggregate after
 * maxAttempts, while all others go on.  Where the transaction tells only at its end (a
 * failed statement whose error the handler caught, a deferred constraint), whose fault it
 * was shows by halves.
 */
import type { Client } from 'pg';
import { backoffAfter, isConflict, sleep } from './database';
import { SafeEmitter } from './emitter';
import { asError, ClosedError, InvalidTransactionError, isAborted, isCancelled, isConnectionError, NotFoundError, toEventQueueError, UnsupportedOptionError } from './errors';
import { eventColumns, eventOf, type EventFilter, type EventQueue, type StoredEvent } from './event-queue';
import { checkKnown, integer } from './options';
import { Outage } from './outage';
import { Scope } from './scope';
import { inSpan } from './telemetry';
import { sessionExecutor, toExecutor, type Executor, type TransactionLike } from './tx';

export interface SubscriptionContext {
	/** The transaction in which the checkpoint moves: of pg, or what the option transaction gave. */
	tx: any;
	/** Aborted when the subscription closes. */
	signal: AbortSignal;
}

/** Called for one event; with the option batch, for several. */
export type SubscriptionHandler<E = any> = (event: E, context: SubscriptionContext) => Promise<unknown> | unknown;

export interface SubscriptionOptions {
	/** Creates it if it is not there, and gives it this filter; default true. */
	create?: boolean;
	filter?: EventFilter;
	/** Where a new one begins: after this position, 0 at the first event (the default), null with what comes from now on. */
	fromPosition?: string | number | bigint | null;
	/** More than 1: a group, whose members share the aggregates. */
	buckets?: number;
	tenantId?: string;
	/** Events in a transaction; default 100. */
	batchSize?: number;
	/** The handler takes an array of events. */
	batch?: boolean;
	/** Runs each batch in a transaction of the application's: work => prisma.$transaction(work).  Not with buckets > 1. */
	transaction?: (work: (tx: any) => Promise<any>) => Promise<any>;
	/** Tries of an event before its aggregate is parked, not counting one within a larger batch; default 5. */
	maxAttempts?: number;
	/** The wait before the next try, in ms; default 100 doubled each time, at most 10 s. */
	backoff?: (failures: number) => number;
	autorun?: boolean;
}

export interface SubscriptionEvents {
	/** It fetches; also again after each outage. */
	ready: [];
	processed: [events: StoredEvent[]];
	/** The handler failed; it is tried again. */
	failed: [event: StoredEvent, error: Error, failures: number];
	parked: [event: StoredEvent, error: Error];
	/** All events are consumed. */
	drained: [];
	error: [error: Error];
	closed: [];
}

class HandlerError extends Error {
	/** isOneOf: this event, or one after it in the batch. */
	constructor(readonly event: StoredEvent, readonly index: number, readonly error: Error, readonly isOneOf = false) {
		super(error.message);
	}
}

/** The handler said nothing, but what it did in the transaction is refused at the end. */
class EndError extends Error {
	constructor(readonly error: Error) {
		super(error.message, { cause: error });
	}
}

/** The error as one of the handler's, if it is. */
const blamed = (error: unknown, events: StoredEvent[]): HandlerError | undefined =>
	error instanceof HandlerError ? error : error instanceof EndError && events.length > 0 ? new HandlerError(events[0], 0, error.error, true) : undefined;

/** The call that moves the checkpoint. */
const acknowledge = (run: Executor, sql: string, values: string[]): Promise<unknown> =>
	run(sql, values).catch(error => {
		throw isAborted(error) ? new EndError(new InvalidTransactionError(
			'a statement of the handler failed, and its error was caught, so nothing of the transaction is kept: let it pass, or use a SAVEPOINT', { cause: error })) : error;
	});

const knownOptions = ['create', 'filter', 'fromPosition', 'buckets', 'tenantId', 'batchSize', 'batch', 'transaction', 'maxAttempts', 'backoff', 'autorun'];

const waitAtMost = 30_000;

/** True if the transaction's connection is there, whatever the state of the transaction. */
const answers = (tx: TransactionLike): Promise<boolean> =>
	toExecutor(tx)('SELECT 1::text AS one', []).then(() => true, error => !isConnectionError(error));

export class Subscription extends SafeEmitter {
	readonly client: EventQueue<any>;
	readonly name: string;
	readonly options: SubscriptionOptions;

	private readonly handler: SubscriptionHandler;
	private readonly ending = new AbortController();
	private session?: Client;
	private running?: Promise<void>;
	private working = false;
	private readonly outage: Outage;
	/** The event that fails, and how often it did. */
	private trouble?: { position: string; failures: number; batch: number };
	/** Of parked events: one by one, when it is not known which of them fails. */
	private parkedBatch?: number;

	constructor(client: EventQueue<any>, name: string, handler: SubscriptionHandler, options: SubscriptionOptions = {}) {
		super();
		if (typeof handler !== 'function')
			throw new UnsupportedOptionError(`the handler of subscription "${name}" is no function`);
		checkKnown(`subscription "${name}"`, options, knownOptions);
		for (const option of ['buckets', 'batchSize', 'maxAttempts'] as const)
			if (options[option] !== undefined)
				integer(`${option} of subscription "${name}"`, options[option], 1);
		if (options.transaction !== undefined && (options.buckets ?? 1) > 1)
			throw new UnsupportedOptionError(`subscription "${name}": a group's membership is of its session, so the option transaction needs buckets: 1`);
		this.outage = new Outage(`subscription "${name}"`);
		this.client = client;
		this.name = name;
		this.handler = handler;
		this.options = options;
		client.register(this);
		if (options.autorun !== false)
			setImmediate(() => void this.run());
	}

	/** Begins; done when it is closed. */
	run(): Promise<void> {
		this.running ??= this.keepUp();
		return this.running;
	}

	/** @internal */
	report(error: unknown): void {
		if (this.listenerCount('error') > 0)
			this.emit('error', error as Error);
		else
			this.client.report(error);
	}

	/* No server could be reached that does what it asks. */
	private heldUp(error: unknown): void {
		const told = this.outage.failed(error);
		if (told !== undefined)
			this.report(told);
	}

	private async keepUp(): Promise<void> {
		let failures = 0;
		let created = false;
		while (!this.ending.signal.aborted) {
			try {
				await this.client.ready();
				const { database } = this.client;
				// The membership of a group is of a session, and who waits would keep one of a pooler's from all others.
				this.session = await database.connect('subscribes', this.ending.signal, database.sessionConfig(), error => this.heldUp(error));
				const tenant = this.options.tenantId ?? this.client.options.tenantId;
				if (tenant !== undefined)
					await this.session.query(`SELECT pg_catalog.set_config('event_queue.tenant', $1, false)`, [tenant]);
				if (!created && this.options.create !== false)
					await this.create(sessionExecutor(this.session), tenant);
				created = true;
				this.emit('ready');
				await this.consume(this.session, () => {
					failures = 0;
					this.outage.over();
				});
			} catch (error) {
				const known = toEventQueueError(error);
				if (this.ending.signal.aborted || known instanceof ClosedError)
					break;
				if (isConnectionError(error))
					this.heldUp(known);
				else if (this.outage.refused(known))
					this.report(known);
				await sleep(backoffAfter(failures++), this.ending.signal);
			} finally {
				await this.session?.end().catch(() => {});
				this.session = undefined;
			}
		}
	}

	private async create(run: Executor, tenant: string | undefined): Promise<void> {
		const { filter, fromPosition, buckets } = this.options;
		await run(`SELECT event_queue.create_subscription($1::text, filter => $2::text::jsonb, from_position => $3::text::bigint, buckets => $4::text::int,
				tenant_id => $5::text, or_replace => $6::text::boolean, if_not_exists => $7::text::boolean)::text`,
			[this.name, filter === undefined ? null : JSON.stringify(filter), fromPosition === null ? null : String(fromPosition ?? 0),
				String(buckets ?? 1), tenant ?? null, String(filter !== undefined), String(filter === undefined)]);
	}

	private async consume(session: Client, succeeded: () => void): Promise<void> {
		const run = sessionExecutor(session);
		while (!this.ending.signal.aborted) {
			// Read before the fetch: what it does not find is above.
			const [{ watermark, parked }] = await run(
				'SELECT event_queue.watermark()::text AS watermark, EXISTS (SELECT FROM event_queue.fetch_parked($1::text, 1))::text AS parked', [this.name]);
			this.working = true;
			let more: boolean;
			try {
				more = await this.batch(session);
			} finally {
				this.working = false;
			}
			succeeded();
			if (more || this.ending.signal.aborted)
				continue;
			if (parked === 'true' && await this.workParked(session) > 0)
				continue;
			this.emit('drained');
			try {
				await run(`CALL event_queue.wait_for_events($1::text::bigint, '${waitAtMost} milliseconds')`, [watermark]);
			} catch (error) {
				// A statement_timeout of the role's only makes the wait shorter.
				if (!this.ending.signal.aborted && !isCancelled(error))
					throw error;
			}
		}
	}

	/** BEGIN and COMMIT on the session, or the application's transaction. */
	private async inTransaction<T>(session: Client, work: (tx: any, run: Executor) => Promise<T>): Promise<T> {
		let isAtEnd = false;
		const failed = (error: any): never => {
			throw isAtEnd && !isConnectionError(error) && !isConflict(toEventQueueError(error)) ? new EndError(asError(toEventQueueError(error))) : error;
		};
		if (this.options.transaction !== undefined) {
			let result: T;
			await this.options.transaction(async tx => {
				isAtEnd = false;
				const run = toExecutor(tx as TransactionLike);
				const tenant = this.options.tenantId ?? this.client.options.tenantId;
				if (tenant !== undefined)
					await run(`SELECT pg_catalog.set_config('event_queue.tenant', $1::text, true)`, [tenant]);
				result = await work(tx, run);
				isAtEnd = true;
			}).catch(failed);
			return result!;
		}
		const scope = new Scope(session);
		await session.query('BEGIN');
		try {
			const result = await work(scope.tx, sessionExecutor(scope.tx));
			await scope.end();
			isAtEnd = true;
			await session.query('COMMIT');
			return result;
		} catch (error) {
			await scope.end();
			await session.query('ROLLBACK').catch(() => {});
			return failed(error);
		}
	}

	/** Hands the events to the handler, in calls without tx as part of the transaction. */
	private async handle(events: StoredEvent[], tx: any): Promise<void> {
		const context: SubscriptionContext = { tx, signal: this.ending.signal };
		const one = async (given: any, event: StoredEvent, index: number) => {
			try {
				await inSpan(`${this.name} consume`, 'consumer', { 'messaging.destination.name': this.name, 'event_queue.event.type': event.eventType },
					event.metadata, () => this.client.withTransaction(tx, async () => this.handler(given, context)));
			} catch (error) {
				// Unless it is this transaction's connection that broke, the handler failed to reach something else.
				if (isConnectionError(error) && !await answers(tx))
					throw error;
				throw new HandlerError(event, index, asError(error));
			}
		};
		if (this.options.batch)
			await one(events, events[0], 0);
		else
			for (const [index, event] of events.entries())
				await one(event, event, index);
	}

	/* True if there may be more: it was full, or failed; or a bucket that was another's is to be looked at. */
	private async batch(session: Client): Promise<boolean> {
		const max = this.trouble?.batch ?? this.options.batchSize ?? 100;
		let events: StoredEvent[] = [];
		try {
			await this.inTransaction(session, async (tx, run) => {
				events = (await run(`SELECT ${eventColumns} FROM event_queue.fetch_events($1::text, $2::text::int) e ORDER BY e.position`, [this.name, String(max)])).map(eventOf);
				if (events.length === 0)
					return;
				await this.handle(events, tx);
				await acknowledge(run, 'SELECT event_queue.ack($1::text)::text', [this.name]);
			});
		} catch (error) {
			const failure = blamed(error, events);
			if (failure === undefined)
				throw error;
			await this.troubled(session, events, failure);
			return true;
		}
		if (events.length === 0)
			return false;
		const some = this.trouble !== undefined;
		this.trouble = undefined;
		this.emit('processed', events);
		return some || events.length === max || (this.options.buckets ?? 1) > 1;
	}

	/** The handler failed at an event of the batch, which was rolled back. */
	private async troubled(session: Client, events: StoredEvent[], failure: HandlerError): Promise<void> {
		const { event, index, error } = failure;
		if ((this.options.batch || failure.isOneOf) && events.length > 1) {
			// Which of them it is shows by halves.
			this.trouble = { position: event.position, failures: 0, batch: Math.ceil(events.length / 2) };
			this.emit('failed', event, error, 1);
			return;
		}
		if (index > 0) {
			// Those before it first, by themselves.
			this.trouble = { position: event.position, failures: 1, batch: index };
			this.emit('failed', event, error, 1);
			return;
		}
		const failures = this.trouble?.position === event.position ? this.trouble.failures + 1 : 1;
		this.trouble = { position: event.position, failures, batch: 1 };
		this.emit('failed', event, error, failures);
		if (failures < (this.options.maxAttempts ?? 5)) {
			await sleep(this.options.backoff?.(failures) ?? Math.min(10_000, 100 * 2 ** (failures - 1)), this.ending.signal);
			return;
		}
		await this.inTransaction(session, async (_tx, run) => {
			const rows = await run('SELECT e.position::text AS position FROM event_queue.fetch_events($1::text, 1) e', [this.name]);
			if (rows[0]?.position === event.position)
				await run('SELECT event_queue.park_event($1::text, $2::text::bigint, $3::text)::text', [this.name, event.position, error.message]);
		});
		this.trouble = undefined;
		this.emit('parked', event, error);
	}

	/** Events of parked aggregates that retry_parked let go. */
	private async workParked(session: Client): Promise<number> {
		let events: StoredEvent[] = [];
		try {
			await this.inTransaction(session, async (tx, run) => {
				events = (await run(`SELECT ${eventColumns} FROM event_queue.fetch_parked($1::text, $2::text::int) e ORDER BY e.position`,
					[this.name, String(this.parkedBatch ?? this.options.batchSize ?? 100)])).map(eventOf);
				if (events.length === 0)
					return;
				await this.handle(events, tx);
				await acknowledge(run, 'SELECT event_queue.ack_parked($1::text, $2::text::bigint)::text', [this.name, events[events.length - 1].position]);
			});
		} catch (error) {
			const failure = blamed(error, events);
			if (failure === undefined)
				throw error;
			const { event } = failure;
			this.emit('failed', event, failure.error, 1);
			if (failure.isOneOf && events.length > 1) {
				this.parkedBatch = 1;
				return events.length;
			}
			// Back to the parked ones, with the new error.
			await this.inTransaction(session, async (_tx, run) => {
				await run('SELECT event_queue.park_event($1::text, $2::text::bigint, $3::text)::text', [this.name, event.position, failure.message]);
			});
			this.emit('parked', event, failure.error);
			// Others may be let go, too.
			return events.length;
		}
		if (events.length === 0)
			this.parkedBatch = undefined;
		return events.length;
	}

	/** Lets parked aggregates be tried again; how many. */
	async retryParked(aggregateType?: string, aggregateId?: string): Promise<number> {
		const [row] = await this.client.database.run('SELECT event_queue.retry_parked($1::text, $2::text, $3::text)::text AS n',
			[this.name, aggregateType ?? null, aggregateId ?? null]);
		return Number(row.n);
	}

	/** Begins again after a position. */
	async reset(position: string | number | bigint = 0): Promise<void> {
		await this.client.database.run('SELECT event_queue.reset_subscription($1::text, $2::text::bigint)::text', [this.name, String(position)]);
	}

	/** Checkpoint and lag, as the view subscription_status has them. */
	async status(): Promise<any> {
		const [row] = await this.client.database.run(
			'SELECT pg_catalog.to_jsonb(s)::text AS status FROM event_queue.subscription_status s WHERE s.name = $1::text LIMIT 1', [this.name]);
		if (row === undefined)
			throw new NotFoundError(`subscription "${this.name}" does not exist`, { sqlstate: 'EQ025' });
		return JSON.parse(row.status!);
	}

	/** The batch in hand is ended (ms at most), then no more is fetched. */
	async close(options: { timeout?: number } = {}): Promise<void> {
		this.ending.abort();
		const cut = () => (this.session as any)?.connection?.stream?.destroy();
		const timeout = options.timeout ?? this.client.options.shutdownTimeout ?? 25_000;
		const timer = new AbortController();
		if (!this.working && this.session !== undefined) {
			// It sleeps in wait_for_events, in no transaction.
			const pid = (this.session as any).processID;
			void this.client.database.run('SELECT pg_catalog.pg_cancel_backend($1::text::int)::text', [String(pid)]).catch(() => {});
			void sleep(1000, timer.signal).then(() => this.working || timer.signal.aborted || cut());
		}
		await Promise.race([this.running, sleep(timeout, timer.signal)]);
		timer.abort();
		cut();
		this.client.unregister(this);
		this.emit('closed');
	}
}

export interface Subscription {
	on<E extends keyof SubscriptionEvents>(event: E, listener: (...args: SubscriptionEvents[E]) => void): this;
	on(event: string | symbol, listener: (...args: any[]) => void): this;
	once<E extends keyof SubscriptionEvents>(event: E, listener: (...args: SubscriptionEvents[E]) => void): this;
	once(event: string | symbol, listener: (...args: any[]) => void): this;
}
