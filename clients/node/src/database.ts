/*
 * database.ts: connections.  A pool for calls; back-off while the server can't be
 * reached; and one connection that listens, for all queues of this EventQueue.
 */
import { createHash } from 'node:crypto';
import { EventEmitter, setMaxListeners } from 'node:events';
import * as pg from 'pg';
import { maxTimer, now } from './clock';
import { ClosedError, ConnectionError, InvalidTransactionError, isConnectionError, ReadOnlyError, toEventQueueError, UnsupportedOptionError } from './errors';
import { copyOf, HostsClient, overlaid, toPrimary } from './hosts';
import { Scope } from './scope';
import type { Executor, Row, Value } from './tx';

export interface ConnectionOptions {
	/** A URI or pg's settings; without it the PG... variables say where.  Of several hosts, the primary is found. */
	connection?: string | pg.PoolConfig;
	/** A pool of the application's, which it ends itself.  Its settings are used for the other connections, too. */
	pool?: pg.Pool;
	/** What differs for connections that wait, that which listens and those of subscriptions, where the pool goes through a pooler in transaction mode. */
	listenConnection?: string | pg.ClientConfig;
	/** Most connections of the pool; default 10. */
	maxConnections?: number;
	/** How long a call outside a transaction waits for a server that can't be reached, in ms; default 10000. */
	connectWait?: number;
	/** Shown in pg_stat_activity; default event_queue_node. */
	applicationName?: string;
}

/** Every value as the text that the server sent. */
const asText: any = { getTypeParser: () => (value: any) => value };

const statementNames = new Map<string, string>();

/**
 * A statement that is made often: each connection of the pool parses and plans it once.
 * Its name says its text, so that behind a pooler nobody else's has the same.
 */
export function prepared(sql: string): string {
	statementNames.set(sql, `eq_${createHash('sha256').update(sql).digest('hex').slice(0, 24)}`);
	return sql;
}

/* invalid_sql_statement_name and duplicate_prepared_statement: a pooler in between, or DEALLOCATE */
const isOfStatementName = (error: any, name: string | undefined): boolean =>
	name !== undefined && (error?.code === '26000' || error?.code === '42P05') && String(error.message).includes(name);

/* serialization_failure and deadlock_detected: the statement, a transaction of its own, was rolled back */
export const isConflict = (error: any): boolean => error?.code === '40001' || error?.code === '40P01';

/** At most maxTimer. */
export const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
	new Promise(resolve => {
		if (signal?.aborted)
			return resolve();
		const done = () => {
			clearTimeout(timer);
			signal?.removeEventListener('abort', done);
			resolve();
		};
		const timer = setTimeout(done, Math.min(ms, maxTimer));
		signal?.addEventListener('abort', done);
	});

/** Waits that grow from 50 ms to 5 s; up to a quarter of each is drawn at random. */
export const backoffAfter = (failures: number): number =>
	Math.min(5000, 50 * 2 ** Math.min(failures, 10)) * (0.75 + Math.random() / 4);

const configOf = (connection: string | pg.ClientConfig | undefined): pg.ClientConfig =>
	typeof connection === 'string' ? { connectionString: connection } : copyOf(connection ?? {});

/* As pg says to who comes later. */
const poolEnded = 'Cannot use a pool after calling end on the pool';

/** Connections that have a listener for errors while they are in use, and the first error that it heard. */
const guarded = new WeakMap<pg.PoolClient, Error | undefined>();

/** An error of a connection in use ends the call that is on its way: no need to end the process. */
function guard(client: pg.PoolClient): void {
	if (!guarded.has(client)) {
		guarded.set(client, undefined);
		client.on('error', error => guarded.set(client, guarded.get(client) ?? error));
	}
}

const rootOf = (error: any): Error => error instanceof ConnectionError && error.cause instanceof Error ? error.cause : error;

export class Database extends EventEmitter {
	readonly pool: pg.Pool;
	private readonly ownsPool: boolean;
	private readonly connectWait: number;
	private readonly listenConfig?: string | pg.ClientConfig;
	private readonly applicationName: string;
	private readonly ending = new AbortController();
	private sessionTo?: pg.ClientConfig;
	private listener?: Listener;
	/** A connection has the statements that were prepared on it. */
	private keepsStatements = true;

	constructor(options: ConnectionOptions) {
		super();
		for (const given of [options.connection, options.listenConnection])
			if (/^rediss?:/i.test(String(typeof given === 'object' ? given.connectionString : given)))
				throw new UnsupportedOptionError('the connection is a URI of Redis: give that of the database, postgresql://...');
		// Every call that waits listens to it.
		setMaxListeners(0, this.ending.signal);
		this.applicationName = options.applicationName ?? 'event_queue_node';
		this.connectWait = options.connectWait ?? 10_000;
		this.listenConfig = options.listenConnection;
		this.ownsPool = options.pool === undefined;
		this.pool = options.pool ?? new pg.Pool({
			application_name: this.applicationName,
			connectionTimeoutMillis: 5000,
			keepAlive: true,
			// The first calls of a new one take ten times as long; they keep no process that has nothing else to do.
			idleTimeoutMillis: 300_000,
			allowExitOnIdle: true,
			...toPrimary(configOf(options.connection)),
			...(options.maxConnections === undefined ? {} : { max: options.maxConnections }),
		});
		// An idle connection that breaks is replaced when the next one is needed.
		this.pool.on('error', this.idleBroke);
		this.pool.on('connect', guard);
	}

	/** Settings for a connection of its own: of the thread, a subscription, the listener. */
	clientConfig(): pg.ClientConfig {
		const config: any = copyOf((this.pool as any).options ?? {});
		for (const name of ['max', 'min', 'idleTimeoutMillis', 'maxUses', 'allowExitOnIdle', 'maxLifetimeSeconds', 'Client', 'Promise', 'log', 'verify', 'onConnect'])
			delete config[name];
		config.application_name ??= this.applicationName;
		return config;
	}

	/** For a connection that is a session of the server: past the pooler, if there is one. */
	sessionConfig(): pg.ClientConfig {
		if (this.listenConfig === undefined)
			return this.clientConfig();
		return this.sessionTo ??= overlaid(this.clientConfig(), configOf(this.listenConfig));
	}

	/** A connection of its own, tried until it is there or the signal aborts; failed hears of each attempt that failed. */
	async connect(purpose: string, signal: AbortSignal, config: pg.ClientConfig = this.clientConfig(), failed: (error: unknown) => void = () => {}): Promise<pg.Client> {
		for (let failures = 0; ; failures++) {
			if (signal.aborted)
				throw new ClosedError('closed');
			const client = new HostsClient({ ...config, application_name: `${config.application_name ?? this.applicationName} ${purpose}` });
			client.on('error', () => {});
			try {
				await client.connect();
				if (!signal.aborted)
					return client;
				client.end().catch(() => {});
			} catch (error) {
				client.end().catch(() => {});
				if (!isConnectionError(error))
					throw toEventQueueError(error);
				this.emit('connectionError', error);
				failed(error);
				await sleep(backoffAfter(failures), signal);
			}
		}
	}

	private readonly idleBroke = (error: Error): void => void this.emit('connectionError', error);

	/* A pool may wait without end for a connection that is in use, and forgets who waits when it ends. */
	private fromPool(wait: number): Promise<pg.PoolClient> {
		// Else there is nothing to wait for, unless the application ends the pool in this moment.
		const isFree = this.pool.idleCount > 0 && this.pool.waitingCount === 0;
		const connecting = this.pool.connect();
		return new Promise((resolve, reject) => {
			let left = false;
			if (isFree) {
				setImmediate(() => this.isEnded() && reject(new Error(poolEnded)));
				connecting.then(resolve, reject);
				return;
			}
			const leave = (error: Error) => {
				left = true;
				end();
				reject(error);
			};
			const closed = () => leave(new ClosedError('the EventQueue is closed'));
			const timer = setTimeout(() => leave(this.isEnded() ? new Error(poolEnded) : new ConnectionError('timeout exceeded when trying to connect', false)), Math.min(wait, maxTimer));
			const end = () => {
				clearTimeout(timer);
				this.ending.signal.removeEventListener('abort', closed);
			};
			this.ending.signal.addEventListener('abort', closed);
			connecting.then(client => {
				end();
				if (left)
					client.release();
				else
					resolve(client);
			}, error => {
				end();
				reject(error);
			});
		});
	}

	/** The pool forgets who waits when it is ended. */
	private isEnded(): boolean {
		return (this.pool as any).ending === true;
	}

	/** All connections of the pool are in use. */
	private isExhausted(): boolean {
		const max = (this.pool as any).options?.max ?? 10;
		return this.pool.totalCount >= max && this.pool.idleCount === 0;
	}

	private async take(wait: number): Promise<pg.PoolClient> {
		const until = now() + wait;
		let reason: Error | undefined;
		for (let failures = 0; ; failures++) {
			if (this.ending.signal.aborted)
				throw new ClosedError('the EventQueue is closed');
			try {
				const client = await this.fromPool(wait === 0 ? 5000 : Math.max(1, until - now()));
				guard(client);
				return client;
			} catch (error) {
				if (!isConnectionError(error))
					throw toEventQueueError(error);
				// The last attempt has little time; what those before it have met says more.
				if (reason === undefined || !(error instanceof ConnectionError))
					reason = error as Error;
				if (now() >= until)
					throw new ConnectionError(this.isExhausted()
						? `none of the pool's ${this.pool.totalCount} connections became free: pass { tx } to calls inside of a transaction, which else wait for another connection, or raise maxConnections (the max of the pool)`
						: `the server can't be reached: ${reason.message}`, false, reason);
				await sleep(Math.min(backoffAfter(failures), Math.max(1, until - now())), this.ending.signal);
			}
		}
	}

	/** One statement on a connection of the pool. */
	readonly run: Executor = (sql, values) => this.runWaiting(sql, values, this.connectWait);

	async runWaiting(sql: string, values: readonly unknown[], wait: number): Promise<Row[]> {
		for (let conflicts = 0; ;) {
			const client = await this.take(wait);
			const name = this.keepsStatements ? statementNames.get(sql) : undefined;
			try {
				const result = await client.query({ name, text: sql, values: values as any[], types: asText });
				client.release();
				return result.rows ?? [];
			} catch (error) {
				if (!isConnectionError(error)) {
					client.release();
					// It was not carried out.
					if (isOfStatementName(error, name)) {
						this.keepsStatements = false;
						continue;
					}
					// Nor was this: where the role's transactions are serializable, or of two calls that wait for each other.
					if (isConflict(error) && conflicts++ < 20) {
						await sleep(Math.random() * 10 * conflicts, this.ending.signal);
						continue;
					}
					throw toEventQueueError(error);
				}
				client.release(true);
				const known = toEventQueueError(error);
				if (known instanceof ReadOnlyError)
					throw known;
				// The pool's connection was of a server that is gone: the statement did not
				// leave this process as a whole, so it was not carried out.
				if ((error as any).code === 'EPIPE' && (error as any).syscall === 'write')
					continue;
				throw new ConnectionError(`the connection broke during the call: ${(error as Error).message}`, true, error);
			}
		}
	}

	/** BEGIN, what the function does on the client, COMMIT; ROLLBACK if it fails. */
	async transaction<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
		const client = await this.take(this.connectWait);
		const scope = new Scope(client);
		let broken = false;
		let readOnly = false;
		let committing = false;
		try {
			await client.query('BEGIN');
			const result = await work(scope.tx);
			await scope.end();
			committing = true;
			// Of a transaction in which a statement failed COMMIT is ROLLBACK, and no error.
			if ((await client.query('COMMIT')).command === 'ROLLBACK')
				throw new InvalidTransactionError('nothing of the transaction is kept: a statement in it failed, and its error was caught; let it pass, or use a SAVEPOINT');
			return result;
		} catch (error) {
			await scope.end();
			// The work may have failed to reach something else: what counts is whether this connection answers.
			await client.query('ROLLBACK').catch(() => { broken = true; });
			if (broken && isConnectionError(error))
				// What the server said as it ended it (idle_in_transaction_session_timeout) tells more than that it is gone.
				throw new ConnectionError(`the connection broke during the transaction: ${(guarded.get(client) ?? rootOf(error)).message}`, committing, error);
			const known = toEventQueueError(error);
			readOnly = known instanceof ReadOnlyError;
			throw known;
		} finally {
			// Another connection may reach the primary.
			client.release(broken || readOnly);
		}
	}

	/** Calls back at each NOTIFY on the channel, and when the connection was made anew. */
	listen(channel: string, look: () => void): () => void {
		this.listener ??= new Listener(this, () => this.sessionConfig());
		return this.listener.add(channel, look);
	}

	async close(): Promise<void> {
		this.ending.abort();
		await this.listener?.close();
		this.pool.removeListener('connect', guard);
		if (!this.ownsPool)
			this.pool.removeListener('error', this.idleBroke);
		if (this.ownsPool && !this.pool.ended)
			await this.pool.end();
	}
}

/** The one connection for waiting. */
class Listener {
	private readonly looks = new Map<string, Set<() => void>>();
	private readonly ending = new AbortController();
	private client?: pg.Client;
	private ended: Promise<void>;
	/** The last statement: pg wants one at a time. */
	private last: Promise<unknown> = Promise.resolve();

	constructor(private readonly database: Database, private readonly config: () => pg.ClientConfig) {
		this.ended = this.keepUp();
	}

	add(channel: string, look: () => void): () => void {
		const looks = this.looks.get(channel) ?? new Set();
		looks.add(look);
		this.looks.set(channel, looks);
		if (looks.size === 1)
			this.say('LISTEN', channel, look);
		return () => {
			looks.delete(look);
			if (looks.size === 0 && this.looks.get(channel) === looks) {
				this.looks.delete(channel);
				this.say('UNLISTEN', channel);
			}
		};
	}

	/* A connection that breaks meanwhile is made anew, with the channels of then. */
	private say(command: string, channel: string, then: () => void = () => {}): void {
		const { client } = this;
		if (client !== undefined)
			this.last = this.last.then(() => client.query(`${command} ${pg.escapeIdentifier(channel)}`)).then(then).catch(() => {});
	}

	private async keepUp(): Promise<void> {
		while (!this.ending.signal.aborted) {
			let client: pg.Client | undefined;
			try {
				client = await this.database.connect('listens', this.ending.signal, this.config());
				const broken = new Promise<void>(resolve => {
					const ended = () => {
						this.ending.signal.removeEventListener('abort', ended);
						resolve();
					};
					client!.once('end', ended);
					client!.once('error', ended);
					this.ending.signal.addEventListener('abort', ended);
				});
				client.on('notification', message => {
					for (const look of this.looks.get(message.channel) ?? [])
						look();
				});
				for (const channel of this.looks.keys())
					await client.query(`LISTEN ${pg.escapeIdentifier(channel)}`);
				this.client = client;
				for (const looks of this.looks.values())
					for (const look of looks)
						look();
				await broken;
			} catch (error) {
				if (this.ending.signal.aborted)
					break;
				this.database.emit('connectionError', error);
				await sleep(backoffAfter(3), this.ending.signal);
			} finally {
				this.client = undefined;
				await client?.end().catch(() => {});
			}
		}
	}

	async close(): Promise<void> {
		this.ending.abort();
		await this.ended;
	}
}

/** A statement's parameters as text. */
export const textOrNull = (value: unknown): Value =>
	value === undefined || value === null ? null : String(value);
