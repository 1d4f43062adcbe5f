/*
 * heartbeat.ts: extends the leases of this process's jobs, by a thread with a connection
 * of its own, so that it goes on while a processor blocks the event loop.
 */
import * as path from 'node:path';
import { Worker as Thread } from 'node:worker_threads';
import { backoffAfter, type Database } from './database';
import { asError, EventQueueError } from './errors';
import type { ThreadData } from './heartbeat-thread';
import { extendLeases, type LeasedJob } from './leases';

/** What the thread says of a job. */
export type LeaseNews = { state: 'leased'; until: number } | { state: 'cancelled' } | { state: 'lost' };

interface Held {
	news: (news: LeaseNews) => void;
}

/**
 * Settings of a connection as another thread can be given them; cannotConnect where it takes what no thread can have:
 * a stream, or a check or context of ssl.
 */
export function forThread(config: Record<string, any>): ThreadData {
	// Of types and the rest of functions it needs none.
	const { password, types: _types, ssl, ...rest } = config;
	const result: any = {};
	for (const [name, value] of Object.entries(rest))
		if (isCloneable(value))
			result[name] = structuredClone(value);
	if (typeof password === 'function')
		result.askPassword = true;
	else if (password !== undefined)
		result.password = password;
	if (isCloneable(ssl))
		result.ssl = structuredClone(ssl);
	if (!isCloneable(ssl) || config.stream !== undefined)
		result.cannotConnect = true;
	return result;
}

function isCloneable(value: unknown): boolean {
	try {
		structuredClone(value);
		return true;
	} catch {
		return false;
	}
}

export class Heartbeat {
	private thread?: Thread;
	private closed = false;
	private readonly held = new Map<string, Held>();

	/** How often the thread ended by itself since it last did its work, and what was told of it. */
	private ends = 0;
	private restarting?: NodeJS.Timeout;
	private told?: string;

	constructor(private readonly database: Database, private readonly report: (error: Error) => void) {}

	/* Jobs that outlast their lease are done twice: not only for who listens to connectionError. */
	private failed(error: Error): void {
		this.database.emit('connectionError', error);
		if (this.told === error.message)
			return;
		this.told = error.message;
		this.report(new EventQueueError(`the leases of jobs in hand are not extended, so that other workers get them when they end: ${error.message}`, { cause: error }));
	}

	private start(): Thread {
		if (this.thread !== undefined)
			return this.thread;
		const options = (this.database.pool as any).options ?? {};
		const givePassword = () => void (async () => options.password())().then(password => thread.postMessage({ type: 'password', password }),
			error => thread.postMessage({ type: 'password', error: asError(error).message }));
		const thread = new Thread(path.join(__dirname, 'heartbeat-thread.js'), { workerData: forThread(this.database.clientConfig()) });
		thread.unref();
		if (typeof options.password === 'function')
			givePassword();
		thread.on('message', message => {
			if (message.type === 'password')
				givePassword();
			else if (message.type === 'beat')
				void this.beatHere();
			else if (message.type === 'error') {
				void this.stepIn(new Error(message.message), message.isOfConnection);
			} else {
				this.ends = 0;
				this.told = undefined;
				this.held.get(message.token)?.news(message.news);
			}
		});
		thread.on('error', (error: any) => this.failed(error?.code === 'MODULE_NOT_FOUND'
			? new Error(`${error.message.split('\n')[0]}: a bundler must leave this package outside of what it makes (external)`, { cause: error }) : asError(error)));
		thread.on('exit', () => {
			if (this.thread !== thread)
				return;
			// It ended by itself: begin anew with what is held, later each time.
			this.thread = undefined;
			this.restarting = setTimeout(() => {
				this.restarting = undefined;
				if (!this.closed && this.held.size > 0)
					this.restart();
			}, backoffAfter(this.ends++));
			this.restarting.unref();
		});
		this.thread = thread;
		return thread;
	}

	private restart(): void {
		const thread = this.start();
		for (const message of this.messages.values())
			thread.postMessage(message);
	}

	/* The thread has failed: its connection is one too many, perhaps, or is refused; those of the pool may do. */
	private async stepIn(error: Error, isOfConnection: boolean): Promise<void> {
		const extended = await this.beatHere();
		// Of a server that can't be reached the workers tell.
		if (extended || isOfConnection)
			this.database.emit('connectionError', error);
		else
			this.failed(error);
	}

	/* Extends all leases by a connection of the pool; false if that fails. */
	private async beatHere(): Promise<boolean> {
		if (this.beating || this.held.size === 0)
			return true;
		this.beating = true;
		try {
			for (const { token, state, until } of await extendLeases(this.database.run, [...this.messages.values()])) {
				this.held.get(token)?.news(state === 'leased' ? { state, until } : { state });
				if (state === 'lost')
					this.drop(token);
			}
			return true;
		} catch (error) {
			this.database.emit('connectionError', error);
			return false;
		} finally {
			this.beating = false;
		}
	}

	private beating = false;
	private readonly messages = new Map<string, LeasedJob>();

	/** Extends the lease from now on; lease in ms, null: the queue's; every in ms. */
	hold(id: string, token: string, lease: number | null, every: number, news: (news: LeaseNews) => void): void {
		const message = { type: 'hold', id, token, lease, every };
		this.held.set(token, { news });
		this.messages.set(token, message);
		if (this.restarting === undefined)
			this.start().postMessage(message);
	}

	/** The job is settled. */
	drop(token: string): void {
		if (!this.held.delete(token))
			return;
		this.messages.delete(token);
		this.thread?.postMessage({ type: 'drop', token });
	}

	async close(): Promise<void> {
		this.closed = true;
		clearTimeout(this.restarting);
		const thread = this.thread;
		if (thread === undefined)
			return;
		this.thread = undefined;
		const ended = new Promise<void>(resolve => thread.once('exit', () => resolve()));
		thread.ref();
		thread.postMessage({ type: 'close' });
		const timer = setTimeout(() => void thread.terminate(), 2000);
		await ended;
		clearTimeout(timer);
	}
}
