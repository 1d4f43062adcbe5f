import type { Client } from 'pg';
import { asError } from '../errors';
import { HostsClient } from '../hosts';
import { messageOf } from '../verdict';
import { eventColumns, eventOf } from '../event-queue';
import { Job } from './job';
import { withTransaction } from './event-sourced';
import type { Transaction } from './port';
import { EventQueueService, type EventQueueRootOptions } from './service';
import { DEFAULT_KEY, getEventQueueToken } from './tokens';

export interface EventQueueTestingOptions extends EventQueueRootOptions {
	/**
	 * `inline`: everything is in one transaction, which `rollback()` undoes, and `add` runs
	 * the jobs that are due before it returns. `drain`: commits; jobs run when `drain()` says.
	 */
	mode: 'inline' | 'drain';
	configKey?: string;
}

export interface DrainOptions {
	/** Jobs that wait for a delay or their next attempt are due at once, and `job.sleep` does not wait. */
	skipWaits?: boolean;
	/** More than so many runs are taken for a loop: 10000. */
	maxJobs?: number;
}

export interface Ran {
	queue: string;
	name: string;
	data: unknown;
	attempt: number;
	/** suspended: it sleeps, or waits for a signal or event. */
	outcome: 'completed' | 'failed' | 'dead' | 'suspended';
	result?: unknown;
	error?: string;
}

/** What `Test.createTestingModule()` returns, as far as it is needed. */
interface ModuleBuilder {
	overrideProvider(token: unknown): { useValue(value: unknown): any };
}

/**
 * For tests of an application: no workers, no timers, no connections but those that
 * `close()` ends, also when the test module was never closed.
 *
 *	const queues = await EventQueueTesting.create({ mode: 'inline' });
 *	const module = await queues.override(Test.createTestingModule({ imports: [AppModule] })).compile();
 */
export class EventQueueTesting {
	/** Every run of a job, in order. */
	readonly ran: Ran[] = [];
	private running = false;
	private savepoints = 0;
	private last: Promise<unknown> = Promise.resolve();

	private constructor(
		readonly service: EventQueueService,
		private readonly client: Client,
		private readonly options: EventQueueTestingOptions,
	) {}

	static async create(options: EventQueueTestingOptions): Promise<EventQueueTesting> {
		const { mode: _mode, configKey = DEFAULT_KEY, ...root } = options;
		const service = await EventQueueService.create({ ...root, handleSignals: false }, configKey);
		await service.connect();
		const client = new HostsClient(service.core.store.database.clientConfig());
		try {
			await client.connect();
			const testing = new EventQueueTesting(service, client, options);
			if (options.mode === 'inline') {
				await client.query('BEGIN');
				service.test = {
					client,
					afterAdd: async () => {
						await testing.runDue();
					},
					transaction: (work) => testing.inSavepoint(work),
				};
			} else {
				service.test = { afterAdd: async () => undefined };
			}
			return testing;
		} catch (error) {
			await client.end().catch(() => undefined);
			await service.close();
			throw error;
		}
	}

	/** Puts it in the place of the application's `forRoot`. */
	override<B extends ModuleBuilder>(builder: B): B {
		return builder.overrideProvider(getEventQueueToken(this.options.configKey)).useValue(this.service);
	}

	/** The connection that everything goes through in inline mode. */
	get tx(): Client {
		return this.client;
	}

	/** Runs jobs of all queues, and gives subscriptions their events, until there is nothing left that is due. */
	async drain(options: DrainOptions = {}): Promise<Ran[]> {
		const before = this.ran.length;
		// One that only finds that it still has to wait is no progress.
		const ended = () => this.ran.filter((run) => run.outcome !== 'suspended').length;
		const { test } = this.service;
		test!.skipsSleeps = options.skipWaits;
		try {
			for (;;) {
				const runs = ended();
				if (options.skipWaits === true) {
					for (const queue of this.service.allQueues) {
						await queue.retryWaiting(false);
					}
				}
				await this.runDue(options.maxJobs);
				const events = await this.deliverEvents();
				if (ended() === runs && events === 0) {
					return this.ran.slice(before);
				}
			}
		} finally {
			test!.skipsSleeps = false;
		}
	}

	/** Inline: all that was done since the last call is undone, and the next test begins. */
	async rollback(): Promise<void> {
		if (this.options.mode !== 'inline') {
			throw new Error('rollback() is of the mode inline');
		}
		await this.client.query('ROLLBACK');
		await this.client.query('BEGIN');
		this.ran.length = 0;
		// The queues and subscriptions were made in the transaction.
		await this.service.createAgain();
	}

	async close(): Promise<void> {
		if (this.options.mode === 'inline') {
			await this.client.query('ROLLBACK').catch(() => undefined);
		}
		await this.client.end();
		await this.service.close();
	}

	/** A job that a processor adds is run by the loop that runs that processor. */
	private async runDue(maxJobs = 10000): Promise<void> {
		if (this.running) {
			return;
		}
		this.running = true;
		try {
			for (let found = true, runs = 0; found; ) {
				found = false;
				for (const queue of this.service.allQueues) {
					for (;;) {
						if (!(await this.runOne(queue.name))) {
							break;
						}
						found = true;
						if (++runs >= maxJobs) {
							throw new Error(`${runs} jobs were run, the last of queue "${queue.name}", and there are more: do they add each other?`);
						}
					}
				}
			}
		} finally {
			this.running = false;
		}
	}

	private async runOne(queueName: string): Promise<boolean> {
		const processors = this.service.processorsOf(queueName);
		if (processors.size === 0) {
			return false;
		}
		const names = processors.has('*') ? null : [...processors.keys()];
		const claimed = await this.service.claim(queueName, names);
		if (claimed === undefined) {
			return false;
		}
		const queue = this.service.allQueues.find((one) => one.name === queueName)!;
		const job = new Job(queue, claimed.row);
		job.lease = claimed.lease;
		const processor = processors.get(job.name) ?? processors.get('*');
		const run: Ran = { queue: queueName, name: job.name, data: job.data, attempt: job.attemptsMade + 1, outcome: 'completed' };
		queue.emit('active', job);
		try {
			run.result = await this.guarded(() => processor!.run(job));
			if (!job.lease.durable.isSuspended) {
				await queue.settle(job, undefined, run.result);
				job.returnvalue = run.result;
				queue.emit('completed', job, run.result);
			}
		} catch (thrown) {
			if (!job.lease.durable.isSuspended) {
				const error = asError(thrown);
				run.error = messageOf(error);
				const again = await queue.fail(job, error);
				job.attemptsMade++;
				job.failedReason = run.error;
				run.outcome = again ? 'failed' : 'dead';
				queue.emit('failed', job, error, !again);
			}
		}
		if (job.lease.durable.isSuspended) {
			run.outcome = 'suspended';
			queue.emit('suspended', job);
		}
		job.lease = undefined;
		this.ran.push(run);
		return true;
	}

	/**
	 * As in production, what a processor wrote before it failed stays, unless it opened a
	 * transaction; but a statement that failed must not end the test's.
	 */
	private async guarded<R>(work: () => Promise<R>): Promise<R> {
		if (this.options.mode !== 'inline') {
			return work();
		}
		const name = `event_queue_test_${++this.savepoints}`;
		await this.client.query(`SAVEPOINT ${name}`);
		try {
			return await work();
		} finally {
			await this.client
				.query(`RELEASE SAVEPOINT ${name}`)
				.catch(() => this.client.query(`ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`));
		}
	}

	private async inSavepoint<R>(work: (tx: Transaction) => Promise<R>): Promise<R> {
		// Two transactions of the application at once take turns: they share one connection.
		const turn = this.running ? Promise.resolve() : this.last;
		const done = turn.catch(() => undefined).then(() => this.savepoint(() => work(this.client)));
		if (!this.running) {
			this.last = done.catch(() => undefined);
		}
		const result = await done;
		await this.runDue();
		return result;
	}

	private async savepoint<R>(work: () => Promise<R>): Promise<R> {
		const name = `event_queue_test_${++this.savepoints}`;
		await this.client.query(`SAVEPOINT ${name}`);
		try {
			const result = await work();
			await this.client.query(`RELEASE SAVEPOINT ${name}`);
			return result;
		} catch (error) {
			await this.client.query(`ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`);
			throw error;
		}
	}

	/** Subscriptions read what is committed: in inline mode there is nothing for them. */
	private async deliverEvents(): Promise<number> {
		if (this.options.mode === 'inline') {
			return 0;
		}
		let delivered = 0;
		for (const one of this.service.registeredSubscriptions) {
			await this.client.query('BEGIN');
			try {
				const { rows } = await this.client.query(
					`SELECT ${eventColumns} FROM event_queue.fetch_events($1, 100) e`,
					[one.subscription],
				);
				for (const row of rows) {
					await withTransaction(this.service, this.client, async () => one.handle(eventOf(row), this.client));
				}
				if (rows.length > 0) {
					await this.client.query('SELECT event_queue.ack($1)', [one.subscription]);
				}
				await this.client.query('COMMIT');
				delivered += rows.length;
			} catch (error) {
				await this.client.query('ROLLBACK');
				throw error;
			}
		}
		return delivered;
	}
}
