/*
 * outcomes.ts: who waits for the end of jobs (job.finished()).  What workers of this process
 * do is told at once; of all others one call asks from time to time, for all that wait
 * together, so that however many wait no connection is held and none is lacking to those
 * that do the jobs.
 */
import { now } from './clock';
import { ClosedError, ConnectionError } from './errors';
import type { JobOutcome } from './event-queue';
import { fromJson } from './json';
import { integer } from './options';
import type { Executor, Row } from './tx';

/* ms; each wait for a job is longer than the one before. */
const firstPause = 25;
const longestPause = 500;
const mostAtOnce = 1000;
const rememberedAtMost = 500;

const sql = 'SELECT i.id::text AS id, event_queue.job_outcome(i.id)::text AS outcome FROM pg_catalog.unnest($1::text::bigint[]) AS i (id)';

interface Waiting {
	due: number;
	pause: number;
	/** The time is over. */
	until: number;
	done(outcome: JobOutcome): void;
	failed(error: unknown): void;
}

/* The server's error is an object: attempt, at, worker, sqlstate, message, detail, context. */
export const outcomeOf = (row: Row): JobOutcome => {
	const outcome = fromJson(row.outcome);
	return outcome.error ? { ...outcome, error: outcome.error.message } : outcome;
};

export const isOver = (outcome: JobOutcome): boolean => outcome.state === 'completed' || outcome.state === 'dead' || outcome.state === 'gone';

export class Outcomes {
	private readonly waiting = new Map<string, Set<Waiting>>();
	/** The last that this process has completed: such a job may be done before its add has returned, and gone when one asks. */
	private readonly recent = new Map<string, () => JobOutcome>();
	private timer?: NodeJS.Timeout;
	private isLooking = false;
	private isClosed = false;

	/** isInHand: a worker of this process has the job. */
	constructor(private readonly run: Executor, private readonly isInHand: (id: string) => boolean) {}

	/** How the job ended, or how it stands after so many ms. */
	of(id: string, timeout = Infinity): Promise<JobOutcome> {
		return new Promise((done, failed) => {
			if (timeout !== Infinity)
				integer('timeout', timeout, 0);
			if (this.isClosed)
				return failed(new ClosedError('the EventQueue is closed'));
			const all = this.waiting.get(id) ?? new Set();
			this.waiting.set(id, all.add({ due: now(), pause: firstPause, until: now() + timeout, done, failed }));
			this.plan();
		});
	}

	/** A worker of this process has ended it. */
	told(id: string, outcome: () => JobOutcome, isGone: boolean): void {
		if (isGone) {
			this.recent.set(id, outcome);
			if (this.recent.size > rememberedAtMost)
				this.recent.delete(this.recent.keys().next().value!);
		}
		if (this.waiting.has(id))
			this.end(id, one => one.done(outcome()));
	}

	private end(id: string, how: (one: Waiting) => void): void {
		const all = this.waiting.get(id) ?? [];
		this.waiting.delete(id);
		for (const one of all)
			how(one);
	}

	private plan(): void {
		if (this.isLooking || this.waiting.size === 0)
			return;
		let due = Infinity;
		for (const all of this.waiting.values())
			for (const one of all)
				due = Math.min(due, one.due);
		clearTimeout(this.timer);
		this.timer = setTimeout(() => void this.look(), Math.max(0, due - now()));
	}

	private async look(): Promise<void> {
		const ids: string[] = [];
		for (const [id, all] of this.waiting)
			if (ids.length < mostAtOnce && [...all].some(one => one.due <= now()))
				ids.push(id);
		this.isLooking = true;
		await this.ask(ids);
		this.isLooking = false;
		this.plan();
	}

	private async ask(ids: string[]): Promise<void> {
		try {
			for (const row of ids.length === 0 ? [] : await this.run(sql, [`{${ids.join(',')}}`]))
				this.looked(row.id!, outcomeOf(row));
		} catch (error) {
			// To ask once more is safe; if there is no server, that tells.
			if (error instanceof ConnectionError && error.outcomeUnknown)
				ids.forEach(id => this.later(id));
			// One of them may be refused: each by itself.
			else if (ids.length > 1)
				for (const id of ids)
					await this.ask([id]);
			else
				this.end(ids[0], one => one.failed(error));
		}
	}

	private looked(id: string, outcome: JobOutcome): void {
		// One that the queue does not keep is gone before its worker has heard that it is done, and has told its result.
		if (isOver(outcome) && !(outcome.state === 'gone' && this.isInHand(id)))
			return this.end(id, one => one.done(outcome.state === 'gone' ? this.recent.get(id)?.() ?? outcome : outcome));
		for (const one of this.waiting.get(id) ?? [])
			if (now() >= one.until) {
				this.waiting.get(id)!.delete(one);
				one.done(outcome);
			}
		if (this.waiting.get(id)?.size === 0)
			this.waiting.delete(id);
		this.later(id);
	}

	private later(id: string): void {
		for (const one of this.waiting.get(id) ?? []) {
			one.due = Math.max(now(), Math.min(now() + one.pause, one.until));
			one.pause = Math.min(longestPause, one.pause * 1.5);
		}
	}

	close(): void {
		this.isClosed = true;
		clearTimeout(this.timer);
		for (const id of [...this.waiting.keys()])
			this.end(id, one => one.failed(new ClosedError('the EventQueue is closed')));
	}
}
