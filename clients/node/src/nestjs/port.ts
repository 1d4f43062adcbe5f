import type { JobOptions } from './bull-types';
import type { JobOutcome } from '../event-queue';
import type { JobStep } from '../steps';
import type { JobRow, Lease } from './job';
import type { Queue } from './queue';

/** A pg client, a Prisma or Knex transaction, ...: what the core knows to query by. */
export type Transaction = any;

/** What the classes of Bull need of the connection. */
export interface Port {
	ready(): Promise<void>;
	query<R = Record<string, unknown>>(text: string, values?: unknown[], tx?: Transaction): Promise<R[]>;
	/** One row, for those who ask whether the server is there: they are told soon if it is not. */
	look<R>(text: string): Promise<R | undefined>;
	/** The ids of the jobs, in their order. */
	add(queue: string, jobs: { name: string; data: unknown; opts: JobOptions }[], tx?: Transaction): Promise<string[]>;
	schedule(schedule: {
		schedule: string;
		cron: string;
		tz: string;
		startsAt?: Date | undefined;
		endsAt?: Date | undefined;
		/** It ends with the run of this number. */
		times?: number | undefined;
		/** As the jobs have it in their options. */
		repeat: object;
		queue: string;
		name: string;
		data: unknown;
		opts: JobOptions;
	}): Promise<void>;
	claim(queue: string): Promise<{ row: JobRow; lease: Lease } | undefined>;
	pauseWorkers(queue: string, doNotWaitActive: boolean): Promise<void>;
	resumeWorkers(queue: string): void;
	closeWorkers(queue: string, doNotWaitJobs: boolean): Promise<void>;
	whenIdle(queue: string): Promise<void>;
	/** Without its jobs, what it keeps and its schedules. */
	remakeQueue(queue: string): Promise<void>;
	/** A listener of the application's threw. */
	reportListener(queue: string, error: unknown): void;
	/** How a job ended, when it has. */
	outcome(jobId: string): Promise<JobOutcome>;
	/** Someone listens to its global: events. */
	watch(queue: Queue): void;
	jobSteps(jobId: string): Promise<JobStep[]>;
}
