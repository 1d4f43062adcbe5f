/*
 * worker.ts: processes jobs of one queue.
 *
 * Each named processor has a lane: its own slots, its own claims by name, its own list of
 * jobs to settle.  A lane makes one call at a time, which completes what is done and
 * claims as many as there are slots (complete_many_and_claim).  When a claim got less than
 * it asked for, the lane sleeps until a NOTIFY says that there is work.  A job that is
 * done stays on the lane's list until the server has confirmed it, however often the
 * connection breaks meanwhile; its lease is extended until then.
 */
import { AsyncResource } from 'node:async_hooks';
import { setMaxListeners } from 'node:events';
import { maxTimer, now } from './clock';
import { backoffAfter, sleep } from './database';
import { asError, ClosedError, isConnectionError, JobCancelledError, JobTimeoutError, LeaseLostError, ProcessorExistsError, RateLimitError,
	UnsupportedOptionError } from './errors';
import { SafeEmitter } from './emitter';
import type { EventQueue } from './event-queue';
import { Job } from './job';
import { fromJson, toJson } from './json';
import { checkBullSettings, checkKnown, integer, interval, type JobOptions } from './options';
import type { Queue } from './queue';
import { JobSteps } from './steps';
import { inSpan } from './telemetry';
import type { Row } from './tx';
import { judge, messageOf, recordOf } from './verdict';
import { WorkerCalls } from './worker-calls';
import type { Lane, Processor, Processors, Running, Settle, WorkerEvents, WorkerOptions } from './worker-types';

function checkConcurrency(what: string, concurrency: number): void {
	if (!Number.isInteger(concurrency) || concurrency < 1)
		throw new UnsupportedOptionError(`${what} is ${concurrency}, not a whole number from 1 on`);
}

const knownOptions = ['concurrency', 'prefetch', 'name', 'lockDuration', 'settings', 'tenantId', 'autorun', 'shutdownTimeout'];
const instead = { limiter: 'a limit is the queue\'s, over all its workers: eq.queue(name, { limiter }), and sync()' };

/** If nothing says that there is work, a lane looks all the same so often. */
const lookEvery = 30_000;

export class Worker<Data = any, Result = any> extends SafeEmitter {
	readonly client: EventQueue<any>;
	readonly queue: Queue<Data, Result>;
	readonly name: string;
	readonly options: WorkerOptions;

	private readonly lanes = new Map<string | null, Lane>();
	private readonly active = new Map<string, Running>();
	private leaseMs = 30_000;
	private rateMs?: number;
	private started?: Promise<void>;
	private unlisten?: () => void;
	private isPausedHere = false;
	private closing?: Promise<void>;
	private closeNow = false;
	/** Cuts the waits of what is still to be told to the server. */
	private readonly over = new AbortController();
	/** Cuts the waits for the next claim. */
	private readonly stopping = new AbortController();
	private readonly calls: WorkerCalls;
	private idle: Array<() => void> = [];
	private lookTimer?: NodeJS.Timeout;
	private hadWork = false;
	/** In which processors run, whoever caused them to: none of them is part of a transaction of the caller's. */
	private readonly scope: AsyncResource;

	constructor(client: EventQueue<any>, queue: string, processors?: Processors<Data, Result>, options: WorkerOptions = {}) {
		super();
		setMaxListeners(0, this.over.signal, this.stopping.signal);
		checkKnown(`the worker of queue "${queue}"`, options, knownOptions, instead);
		checkBullSettings(`the worker of queue "${queue}"`, options.settings);
		if (options.lockDuration !== undefined)
			integer('lockDuration', options.lockDuration, 1);
		this.client = client;
		this.scope = client.outside(() => new AsyncResource('EventQueueWorker'));
		this.queue = client.queue(queue) as any;
		this.options = options;
		this.name = options.name ?? `${client.options.applicationName ?? 'node'} ${process.pid}`;
		this.calls = new WorkerCalls(client, queue, {
			claimValues: (lane, max) => [queue, max, this.name, this.lease, lane.name === null ? null : [lane.name],
				options.tenantId ?? client.options.tenantId ?? null],
			isActive: running => this.active.has(running.token),
			settled: settle => this.settled(settle),
			lost: running => this.lost(running),
			refused: (running, error) => this.fail(running, error),
			report: error => this.report(error),
			reachable: () => this.emit('ready'),
		}, () => this.closeNow, this.over.signal);
		for (const [name, value] of [['concurrency', options.concurrency], ['prefetch', options.prefetch]] as const)
			if (value !== undefined && !(Number.isInteger(value) && value >= (name === 'prefetch' ? 0 : 1)))
				throw new UnsupportedOptionError(`${name} of the worker of queue "${queue}" is ${value}, not a whole number from ${name === 'prefetch' ? 0 : 1} on`);
		if (typeof processors === 'function')
			this.process('*', processors);
		else
			for (const [name, processor] of Object.entries(processors ?? {}))
				if (typeof processor === 'function')
					this.process(name, processor);
				else
					this.process(name, processor.process, processor.concurrency);
		client.register(this);
		if (options.autorun !== false)
			setImmediate(() => void this.keepTrying());
	}

	/* The queue may not be there yet, as another instance is about to make it, or the grant. */
	private async keepTrying(): Promise<void> {
		for (let failures = 0; this.closing === undefined; failures++)
			try {
				return await this.run();
			} catch (error) {
				if (error instanceof ClosedError)
					return;
				this.calls.refused(error);
				await sleep(backoffAfter(failures), this.stopping.signal);
			}
	}

	/** Adds a processor for jobs of a name; '*': for those that have none of their own. */
	process(name: string, processor: Processor<Data, Result>, concurrency = this.options.concurrency ?? 1): this {
		const key = name === '*' ? null : name;
		if (typeof processor !== 'function')
			throw new UnsupportedOptionError(`the processor of job "${name}" of queue "${this.queue.name}" is no function`);
		checkConcurrency(`the concurrency of job "${name}" of queue "${this.queue.name}"`, concurrency);
		if (this.lanes.has(key))
			throw new ProcessorExistsError(`queue "${this.queue.name}" has a processor for ${key === null ? 'all jobs' : `job "${name}"`} already`);
		const lane: Lane = { name: key, process: processor as Processor, concurrency, running: 0, backlog: [], lent: 0, settles: [], hungry: true, woken: false,
			calling: false, restUntil: 0, failures: 0, emptyClaims: 0 };
		this.lanes.set(key, lane);
		if (this.unlisten !== undefined)
			this.pump(lane);
		return this;
	}

	/** Begins to claim; done when the queue is known to be there, and rejects if it is not, or may not be used. */
	run(): Promise<void> {
		this.started ??= this.start().catch(error => {
			this.started = undefined;
			throw error;
		});
		return this.started;
	}

	private async start(): Promise<void> {
		for (let failures = 0; ; failures++) {
			if (this.closing !== undefined)
				throw new ClosedError('the worker is closed');
			try {
				await this.client.ready();
				const settings = await this.client.queueSettings(this.queue.name);
				this.leaseMs = settings.leaseMs;
				this.rateMs = settings.rateMs;
				break;
			} catch (error) {
				if (!isConnectionError(error))
					throw error;
				this.calls.heldUp(error);
				await sleep(backoffAfter(failures), this.stopping.signal);
			}
		}
		if (this.closing !== undefined)
			return;
		this.unlisten = this.client.database.listen(`event_queue.${this.queue.name}`, () => this.wake());
		this.lookTimer = setInterval(() => this.wake(), lookEvery);
		this.lookTimer.unref();
		this.calls.begins();
		this.emit('ready');
		for (const lane of this.lanes.values())
			this.pump(lane);
	}

	private wake(lanes: Iterable<Lane> = this.lanes.values()): void {
		for (const lane of lanes) {
			lane.hungry = true;
			lane.woken = true;
			lane.emptyClaims = 0;
			this.pump(lane);
		}
	}

	/** @internal There may be a job of this name. */
	look(job: string): void {
		const lane = this.lanes.get(job) ?? this.lanes.get(null);
		if (lane !== undefined)
			this.wake([lane]);
	}

	/** @internal */
	report(error: unknown): void {
		if (this.listenerCount('error') > 0)
			this.emit('error', error as Error);
		else
			this.client.report(error);
	}

	private get lease(): string | null {
		const ms = this.options.lockDuration ?? this.options.settings?.lockDuration;
		return ms === undefined ? null : `${ms} milliseconds`;
	}

	/* Claiming and completing */

	private wanted(lane: Lane): number {
		if (!lane.hungry || this.isPausedHere || this.closing !== undefined || this.unlisten === undefined)
			return 0;
		const rest = lane.restUntil - now();
		if (rest > 0) {
			this.pumpLater(lane, rest);
			return 0;
		}
		return Math.max(0, Math.min(1000, lane.concurrency + this.prefetchOf(lane) - lane.running - lane.backlog.length - lane.lent));
	}

	private prefetchOf(lane: Lane): number {
		if (this.options.prefetch !== undefined)
			return this.options.prefetch;
		if (this.rateMs !== undefined || lane.runMs === undefined || lane.runMs >= 10)
			return 0;
		return Math.min(200, Math.ceil(lane.concurrency * 20 / Math.max(0.1, lane.runMs)));
	}

	/* A job took longer than those before it: others may have what waits behind it. */
	private giveBackLater(lane: Lane): void {
		if (this.options.prefetch !== undefined || lane.giveBackTimer !== undefined)
			return;
		lane.giveBackTimer = setTimeout(() => {
			lane.giveBackTimer = undefined;
			const old = lane.backlog.filter(running => now() - running.claimedAt >= 250);
			if (old.length > 0)
				lane.runMs = 1000;
			lane.backlog = lane.backlog.filter(running => !old.includes(running));
			for (const running of old) {
				this.leaveBacklog(running);
				void this.release(running, 0);
			}
			if (lane.backlog.length > 0)
				this.giveBackLater(lane);
		}, 250);
	}

	private leaveBacklog(running: Running): void {
		if (running.claimedBy !== running.lane)
			running.claimedBy.lent--;
	}

	private pumpLater(lane: Lane, ms: number): void {
		clearTimeout(lane.timer);
		lane.timer = setTimeout(() => this.pump(lane), Math.min(ms, maxTimer));
	}

	private pump(lane: Lane): void {
		if (lane.calling)
			return;
		const max = this.wanted(lane);
		if (lane.settles.length === 0 && max === 0) {
			this.checkDrained(lane);
			return this.checkIdle();
		}
		lane.calling = true;
		lane.woken = false;
		const settles = lane.settles.splice(0, 1000);
		this.calls.settleAndClaim(lane, settles, max).then(rows => rows.map(row => this.claimed(row, lane))).then(
			claimed => {
				lane.failures = 0;
				this.calls.wentThrough();
				this.afterCall(lane, max, claimed);
			},
			async error => {
				if (isConnectionError(error))
					this.calls.heldUp(error);
				else
					this.calls.refused(error);
				// At the end there is nothing to claim, but what is done is to be told.
				await sleep(backoffAfter(lane.failures++), lane.settles.length === 0 ? this.stopping.signal : this.over.signal);
			},
		).finally(() => {
			lane.calling = false;
			this.pump(lane);
		});
	}

	private afterCall(lane: Lane, max: number, claimed: Running[]): void {
		if (max > 0) {
			lane.hungry = claimed.length === max || lane.woken;
			lane.emptyClaims = claimed.length > 0 ? 0 : lane.emptyClaims + 1;
			// A limit, whose end no NOTIFY tells, may be what held jobs back.
			if (!lane.hungry && this.rateMs !== undefined && lane.emptyClaims < 8) {
				lane.hungry = true;
				lane.restUntil = now() + Math.min(1000, Math.max(5, this.rateMs) * 2 ** lane.emptyClaims);
			}
		}
		for (const running of claimed)
			if (this.closing === undefined)
				this.begin(running);
			else
				// The claim was on its way when the worker was closed.
				void this.release(running, 0);
		this.checkDrained(lane);
	}

	/* The last job may have ended in whichever way: completed, failed, or given back. */
	private checkDrained(lane: Lane): void {
		if (!lane.hungry && this.active.size === 0 && this.hadWork) {
			this.hadWork = false;
			this.emit('drained');
		}
	}

	private settled(settle: Settle): void {
		const { job } = settle.running;
		this.forget(settle.running);
		job.returnvalue = settle.value;
		job.finishedOn = Date.now();
		settle.confirmed();
		this.client.outcomes.told(job.id, () => ({ state: 'completed', result: fromJson(settle.result) }), true);
		this.emit('completed', job, settle.value);
	}

	private forget(running: Running): void {
		this.client.heartbeat.drop(running.token);
		this.active.delete(running.token);
	}

	private lost(running: Running): void {
		if (!this.active.has(running.token))
			return;
		this.forget(running);
		running.gone = true;
		running.abort.abort(new LeaseLostError(`the lease of job ${running.job.id} is lost`, { sqlstate: 'EQ016' }));
		this.emit('lost', running.job);
	}

	/* A job */

	private claimed(row: Row, lane: Lane): Running {
		const metadata = fromJson(row.metadata) ?? {};
		const kept = typeof metadata.opts === 'object' ? metadata.opts : {};
		const opts: JobOptions = { ...kept, timeout: undefined, attempts: Number(row.max_attempts), priorityLevel: Number(row.priority) };
		if (row.time_limit !== null)
			opts.timeout = Number(row.time_limit);
		const abort = new AbortController();
		const job = new Job<Data, Result>(this.queue as any, {
			id: row.id!, name: row.name!, data: fromJson(row.payload), opts, metadata, attemptsMade: Number(row.attempt) - 1,
			stalledCounter: Number(row.stalled), timestamp: Math.round(Number(row.created)), processedOn: Date.now(), tenantId: row.tenant_id ?? undefined,
			groupKey: row.group_key ?? undefined, token: row.token!, leasedUntil: new Date(Number(row.until)), signal: abort.signal,
		});
		// A job whose name has a lane of its own runs there, and while it waits for that counts in this one.
		const running: Running = { job, lane: this.lanes.get(job.name) ?? lane, claimedBy: lane, token: row.token!, claimedAt: now(), abort, isWaiting: false,
			lostMeanwhile: false, gone: false };
		job.steps = this.stepsOf(running);
		const leaseMs = this.options.lockDuration ?? this.options.settings?.lockDuration;
		const every = this.options.settings?.lockRenewTime ?? Math.min(10_000, (leaseMs ?? this.leaseMs) / 3);
		this.active.set(running.token, running);
		this.hadWork = true;
		this.client.heartbeat.hold(job.id, running.token, leaseMs ?? null, every, news => {
			if (news.state === 'leased')
				job.leasedUntil = new Date(news.until);
			else if (news.state === 'lost' && running.isWaiting)
				running.lostMeanwhile = true;
			else if (news.state === 'lost')
				this.lost(running);
			else if (!abort.signal.aborted)
				abort.abort(new JobCancelledError(`job ${job.id} was cancelled`, { sqlstate: 'EQ033' }));
		});
		return running;
	}

	private stepsOf(running: Running): JobSteps {
		const { job, abort } = running;
		return new JobSteps({ id: job.id, token: running.token, name: job.name, queue: this.queue.name }, {
			run: this.client.database.run,
			currentTransaction: () => this.client.currentTransaction(),
			signal: abort.signal,
			waiting: begins => {
				running.isWaiting = begins;
				if (!begins && running.lostMeanwhile)
					this.lost(running);
			},
			suspended: () => this.client.heartbeat.drop(running.token),
			cancelled: error => abort.abort(error),
		});
	}

	private begin(running: Running): void {
		const { lane } = running;
		if (lane.running >= lane.concurrency) {
			lane.backlog.push(running);
			if (running.claimedBy !== lane)
				running.claimedBy.lent++;
			this.giveBackLater(lane);
			return;
		}
		lane.running++;
		const begun = now();
		this.scope.runInAsyncScope(() => this.perform(running)).catch(error => {
			// Not foreseen: without the heartbeat the job comes again when its lease ends.
			this.lost(running);
			this.report(error);
		}).finally(() => {
			const took = now() - begun;
			lane.runMs = Math.max(took, 0.9 * (lane.runMs ?? took) + 0.1 * took);
			lane.running--;
			const next = lane.backlog.shift();
			if (next !== undefined) {
				this.leaveBacklog(next);
				this.begin(next);
			}
			this.pump(lane);
			// Its place in the lane that claimed it
			const any = this.lanes.get(null);
			if (any !== undefined && any !== lane)
				this.pump(any);
		});
	}

	private async perform(running: Running): Promise<void> {
		const { job, lane } = running;
		if (running.gone || this.closeNow)
			return;
		job.processedOn = Date.now();
		job.onProgress = value => this.emit('progress', job, value);
		if (job.stalledCounter > 0)
			this.emit('stalled', job);
		this.emit('active', job);
		let value: any;
		let result: string | null = null;
		try {
			value = await inSpan(`${this.queue.name} process`, 'consumer',
				{ 'messaging.destination.name': this.queue.name, 'messaging.message.id': job.id, 'event_queue.job.name': job.name },
				job.metadata, () => this.withTimeout(running, async () => {
					try {
						return await lane.process(job, job.signal);
					} catch (error) {
						if (job.isSuspended)
							return undefined;
						throw error;
					}
				}));
			result = value === undefined ? null : toJson(value, `the result of job ${job.name}`);
		} catch (error) {
			if (!running.gone && !job.isSuspended)
				return this.fail(running, asError(error));
		}
		if (running.gone)
			return;
		if (job.isSuspended)
			return this.suspended(running);
		// The slot is free, the next claim can go along with the completion.
		lane.settles.push({ running, result, value, uncertain: false, confirmed: () => this.checkIdle() });
	}

	private async withTimeout<T>(running: Running, work: () => Promise<T>): Promise<T> {
		const ms = running.job.opts.timeout;
		if (ms === undefined)
			return work();
		let timer: NodeJS.Timeout;
		const over = new Promise<never>((_, reject) => {
			timer = setTimeout(() => {
				const error = new JobTimeoutError(`job ${running.job.id} took longer than its timeout of ${ms} ms`);
				running.abort.abort(error);
				reject(error);
			// A little before the lease ends, so that the failure is recorded as what it is
			}, Math.max(1, ms - Math.min(200, ms / 10)));
		});
		try {
			return await Promise.race([work(), over]);
		} finally {
			clearTimeout(timer!);
		}
	}

	private suspended(running: Running): void {
		running.gone = true;
		this.forget(running);
		this.emit('suspended', running.job);
		this.checkIdle();
	}

	private async fail(running: Running, error: Error): Promise<void> {
		const { job } = running;
		const reason = job.signal.reason;
		if (reason instanceof ClosedError)
			return this.release(running, 0);
		const verdict = judge(job, error, this.options.settings?.backoffStrategies, thrown => this.report(thrown));
		if ('release' in verdict) {
			const scope = error instanceof RateLimitError ? error.scope : 'job';
			if (scope !== 'job') {
				for (const lane of this.lanes.values())
					lane.restUntil = Math.max(lane.restUntil, now() + verdict.release);
				running.lane.hungry = true;
			}
			return this.release(running, verdict.release, scope === 'queue');
		}
		const outcome = await this.calls.insist(
			'SELECT (extract(epoch FROM event_queue.fail($1::bigint, $2::uuid, $3, $4, $5, $6::interval, $7)) * 1000)::text AS again',
			[job.id, running.token, ...recordOf(job, error), verdict.retryAfter === undefined ? null : interval(Math.round(verdict.retryAfter)), verdict.final]);
		if ('error' in outcome) {
			if (outcome.uncertain && outcome.error instanceof LeaseLostError)
				// The call that broke was carried out, or another worker has the job now.
				this.ended(running, error, (await this.client.outside(() => this.client.jobOutcome(job.id)).catch(() => undefined))?.state === 'dead');
			else {
				this.lost(running);
				if (!(outcome.error instanceof LeaseLostError))
					this.report(outcome.error);
			}
			return;
		}
		this.ended(running, error, outcome.rows[0].again === null);
	}

	private ended(running: Running, error: Error, dead: boolean): void {
		const { job } = running;
		this.forget(running);
		running.gone = true;
		job.attemptsMade++;
		job.failedReason = messageOf(error);
		job.stacktrace = String(error.stack ?? '').split('\n');
		if (dead) {
			job.finishedOn = Date.now();
			this.client.outcomes.told(job.id, () => ({ state: 'dead', error: job.failedReason }), false);
		}
		this.emit('failed', job, error, dead);
	}

	private async release(running: Running, delay: number, queueWaits = false): Promise<void> {
		running.gone = true;
		const outcome = await this.calls.insist(`SELECT event_queue.${queueWaits ? 'postpone_queue' : 'release'}($1::bigint, $2::uuid, $3::interval)::text`,
			[running.job.id, running.token, interval(Math.round(delay))]);
		this.forget(running);
		if ('error' in outcome && !(outcome.error instanceof LeaseLostError))
			this.report(outcome.error);
		else
			this.emit('released', running.job);
		this.checkIdle();
	}

	/* Pause and end */

	/** This worker claims nothing more; jobs that run go on. */
	pause(): void {
		this.isPausedHere = true;
		this.emit('paused');
	}

	resume(): void {
		this.isPausedHere = false;
		this.emit('resumed');
		this.wake();
	}

	isPaused(): boolean {
		return this.isPausedHere;
	}

	/** Changes how many jobs at a time the processor of a name does ('*': that of all others); those that run go on. */
	setConcurrency(concurrency: number, name = '*'): void {
		const lane = this.lanes.get(name === '*' ? null : name);
		if (lane === undefined)
			throw new UnsupportedOptionError(`queue "${this.queue.name}" has no processor for ${name === '*' ? 'all jobs' : `job "${name}"`} here`);
		checkConcurrency(`the concurrency of job "${name}" of queue "${this.queue.name}"`, concurrency);
		lane.concurrency = concurrency;
		lane.hungry = true;
		while (lane.running < concurrency && lane.backlog.length > 0) {
			const next = lane.backlog.shift()!;
			this.leaveBacklog(next);
			this.begin(next);
		}
		this.pump(lane);
	}

	/** Jobs that it has in hand. */
	get activeCount(): number {
		return this.active.size;
	}

	/** @internal */
	hasInHand(id: string): boolean {
		return [...this.active.values()].some(running => running.job.id === id);
	}

	private isIdle(): boolean {
		return this.active.size === 0 && [...this.lanes.values()].every(lane => !lane.calling && lane.settles.length === 0 && lane.running === 0);
	}

	private checkIdle(): void {
		if (this.closing !== undefined && this.isIdle())
			this.idle.splice(0).forEach(done => done());
	}

	/** When no job is in hand; used at the end. */
	private whenIdle(ms: number): Promise<boolean> {
		if (this.isIdle())
			return Promise.resolve(true);
		return new Promise(resolve => {
			const timer = setTimeout(() => resolve(false), Math.min(ms, maxTimer));
			this.idle.push(() => {
				clearTimeout(timer);
				resolve(true);
			});
		});
	}

	/**
	 * Claims nothing more, lets jobs that run end within the time (ms), and gives the rest
	 * back without counting an attempt: their signal is aborted with a ClosedError.
	 */
	close(options: { timeout?: number } = {}): Promise<void> {
		this.closing ??= this.end(options.timeout ?? this.options.shutdownTimeout ?? this.client.options.shutdownTimeout ?? 25_000);
		return this.closing;
	}

	private async end(timeout: number): Promise<void> {
		// this.closing is not set before this function has given its promise
		await null;
		this.emit('closing');
		this.stopping.abort();
		clearInterval(this.lookTimer);
		this.unlisten?.();
		for (const lane of this.lanes.values()) {
			clearTimeout(lane.timer);
			clearTimeout(lane.giveBackTimer);
			lane.lent = 0;
			for (const running of lane.backlog.splice(0))
				void this.release(running, 0);
		}
		if (!await this.whenIdle(timeout)) {
			const left = [...this.active.values()];
			for (const running of left)
				running.abort.abort(new ClosedError(`the worker ends before job ${running.job.id}`));
			// Those that heed the signal end by themselves.
			if (!await this.whenIdle(500)) {
				const settling = new Set([...this.lanes.values()].flatMap(lane => lane.settles.map(settle => settle.running)));
				this.closeNow = true;
				await Promise.race([
					Promise.all([...this.active.values()].filter(running => !running.gone && !settling.has(running)).map(running => this.release(running, 0))),
					sleep(5000, this.over.signal),
				]);
			}
		}
		this.over.abort();
		for (const running of [...this.active.values()])
			this.forget(running);
		this.client.unregister(this);
		this.emit('closed');
	}
}

export interface Worker<Data = any, Result = any> {
	on<E extends keyof WorkerEvents>(event: E, listener: (...args: WorkerEvents<Data, Result>[E]) => void): this;
	on(event: string | symbol, listener: (...args: any[]) => void): this;
	once<E extends keyof WorkerEvents>(event: E, listener: (...args: WorkerEvents<Data, Result>[E]) => void): this;
	once(event: string | symbol, listener: (...args: any[]) => void): this;
}
