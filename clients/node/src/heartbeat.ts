/*
 * heartbeat.ts: extends the leases of this process's jobs, by a thread with a connection
 * of its own, so that it goes on while a processor blocks the event loop.
 */
import * as path from 'node:path';
import { Worker as Thread } from 'node:worker_threads';
import type { Database } from './database';

/** What the thread says of a job. */
export type LeaseNews = { state: 'leased'; until: number } | { state: 'cancelled' } | { state: 'lost' };

interface Held {
	news: (news: LeaseNews) => void;
}

/* Some settings (a function for the password, streams, checks of ssl) can't go to another thread. */
export function cloneable(config: object): object {
	const result: any = {};
	for (const [name, value] of Object.entries(config)) {
		if (value === undefined || typeof value === 'function')
			continue;
		try {
			result[name] = structuredClone(value);
		} catch {
			result[name] = cloneable(value);
		}
	}
	return result;
}

export class Heartbeat {
	private thread?: Thread;
	private closed = false;
	private readonly held = new Map<string, Held>();

	constructor(private readonly database: Database) {}

	private start(): Thread {
		if (this.thread !== undefined)
			return this.thread;
		const config: any = cloneable(this.database.clientConfig());
		const options = (this.database.pool as any).options ?? {};
		if (typeof options.password === 'function')
			config.askPassword = true;
		else if (options.password !== undefined)
			config.password = options.password;
		const thread = new Thread(path.join(__dirname, 'heartbeat-thread.js'), { workerData: config });
		thread.unref();
		thread.on('message', message => {
			if (message.type === 'password')
				Promise.resolve(options.password()).then(password => thread.postMessage({ type: 'password', password }),
					error => this.database.emit('connectionError', error));
			else if (message.type === 'error')
				this.database.emit('connectionError', new Error(message.message));
			else
				this.held.get(message.token)?.news(message.news);
		});
		thread.on('error', error => {
			this.database.emit('connectionError', error);
		});
		thread.on('exit', () => {
			if (this.thread !== thread)
				return;
			// It ended by itself: begin anew with what is held.
			this.thread = undefined;
			if (!this.closed && this.held.size > 0)
				this.restart();
		});
		this.thread = thread;
		return thread;
	}

	private restart(): void {
		const thread = this.start();
		for (const message of this.messages.values())
			thread.postMessage(message);
	}

	private readonly messages = new Map<string, object>();

	/** Extends the lease from now on; lease in ms, null: the queue's; every in ms. */
	hold(id: string, token: string, lease: number | null, every: number, news: (news: LeaseNews) => void): void {
		const message = { type: 'hold', id, token, lease, every };
		this.held.set(token, { news });
		this.messages.set(token, message);
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
