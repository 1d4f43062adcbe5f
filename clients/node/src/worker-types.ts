/* worker-types.ts: what a worker is given and tells, and what it keeps of lanes and jobs (worker.ts). */
import type { Job } from './job';
import type { AdvancedSettings } from './options';

export type Processor<Data = any, Result = any> = (job: Job<Data, Result>, signal: AbortSignal) => Promise<Result> | Result;

export interface NamedProcessor<Data = any, Result = any> {
	process: Processor<Data, Result>;
	/** Jobs at a time; default the worker's. */
	concurrency?: number;
}

/** One for all jobs of the queue, or one for each name; '*' takes those that have none. */
export type Processors<Data = any, Result = any> =
	| Processor<Data, Result>
	| Record<string, Processor<Data, Result> | NamedProcessor<Data, Result>>;

export interface WorkerOptions {
	/** Jobs at a time of each processor; default 1. */
	concurrency?: number;
	/**
	 * Jobs that each processor claims beyond that, to have them at hand.  Default: as many as
	 * it does in 20 ms, if its jobs take less than 10 ms and the queue has no limits; those
	 * that it has not begun after 250 ms go back to the queue.
	 */
	prefetch?: number;
	/** Name in leased_by; default application name, host and process. */
	name?: string;
	/** The lease, in ms; default the queue's. */
	lockDuration?: number;
	/** Bull's: lockDuration, lockRenewTime, backoffStrategies are the worker's; the rest is the queue's. */
	settings?: AdvancedSettings;
	tenantId?: string;
	/** Default true. */
	autorun?: boolean;
	/** How long jobs may go on when it closes, in ms; default the EventQueue's. */
	shutdownTimeout?: number;
}

/** Events, and what listeners get. */
export interface WorkerEvents<Data = any, Result = any> {
	/** It claims; also again after an outage that error told of. */
	ready: [];
	active: [job: Job<Data, Result>];
	completed: [job: Job<Data, Result>, result: Result];
	/** dead: it is not tried again. */
	failed: [job: Job<Data, Result>, error: Error, dead: boolean];
	/** A claimed job whose lease had run out before. */
	stalled: [job: Job<Data, Result>];
	progress: [job: Job<Data, Result>, progress: any];
	/** The lease is lost; what the processor returns is not recorded. */
	lost: [job: Job<Data, Result>];
	released: [job: Job<Data, Result>];
	/** It waits (job.sleep, awaitSignal, awaitEvent), and comes again. */
	suspended: [job: Job<Data, Result>];
	/** Also, once, that for some seconds no server could be reached that does what it asks (ConnectionError, ReadOnlyError). */
	error: [error: Error];
	/** Nothing is left to claim and no job is running. */
	drained: [];
	paused: [];
	resumed: [];
	closing: [];
	closed: [];
}

export interface Running {
	job: Job;
	/** Where it runs. */
	lane: Lane;
	/** Which claimed it. */
	claimedBy: Lane;
	token: string;
	claimedAt: number;
	abort: AbortController;
	/** A wait is being asked for: the lease may end by it. */
	isWaiting: boolean;
	lostMeanwhile: boolean;
	/** Its end is not recorded any more: it was given back, or its lease is lost. */
	gone: boolean;
}

export interface Settle {
	running: Running;
	/** JSON, or NULL */
	result: string | null;
	value: any;
	/** A call that had it in broke: it may have been carried out. */
	uncertain: boolean;
	confirmed: () => void;
}

export interface Lane {
	/** NULL: any name. */
	name: string | null;
	process: Processor;
	concurrency: number;
	running: number;
	/** Claimed, but not begun. */
	backlog: Running[];
	/** Jobs that it claimed and that wait in the backlog of another lane. */
	lent: number;
	/** How long its jobs take, in ms. */
	runMs?: number;
	giveBackTimer?: NodeJS.Timeout;
	settles: Settle[];
	/** There may be work. */
	hungry: boolean;
	/** A NOTIFY came during the call. */
	woken: boolean;
	calling: boolean;
	/** No claims before (ms). */
	restUntil: number;
	failures: number;
	emptyClaims: number;
	timer?: NodeJS.Timeout;
}
