/*
 * worker-calls.ts: the calls by which a worker claims and settles jobs (worker.ts).
 *
 * A call whose connection breaks may have been carried out.  Jobs that it was to complete
 * are marked uncertain and go back on their lane's list; what became of them is asked for
 * by the job's id, if the server says that the lease is not held.  What the server refuses for a
 * reason that passes (a lock, a full disk) also goes back on the list: the job is done, and
 * its lease goes on.  A call for a single job (insist) is repeated until the server has answered.
 */
import { backoffAfter, sleep } from './database';
import { isConnectionError, isPassing } from './errors';
import type { EventQueue } from './event-queue';
import { Outage } from './outage';
import type { Row } from './tx';
import { claimSql, completeAndClaimSql, completeSql } from './worker-sql';
import type { Lane, Running, Settle } from './worker-types';

/** What the calls need of the worker, and what they tell it. */
export interface CallsOwner {
	/** The arguments of claim() for a lane. */
	claimValues(lane: Lane, max: number): readonly unknown[];
	isActive(running: Running): boolean;
	settled(settle: Settle): void;
	lost(running: Running): void;
	/** The server does not accept the result of a job. */
	refused(running: Running, error: Error): Promise<void>;
	report(error: unknown): void;
	/** Calls go through again, after an outage that was reported. */
	reachable(): void;
}

export class WorkerCalls {
	private readonly outage: Outage;

	/** Nothing is repeated once isOver() is true or the signal is aborted. */
	constructor(private readonly client: EventQueue<any>, queue: string, private readonly owner: CallsOwner,
		private readonly isOver: () => boolean, private readonly over: AbortSignal) {
		this.outage = new Outage(`the worker of queue "${queue}"`);
	}

	private run(sql: string, values: readonly unknown[]): Promise<Row[]> {
		return this.client.database.runWaiting(sql, values, 0);
	}

	/** A call did not reach a server that would do it. */
	heldUp(error: unknown): void {
		const told = this.outage.failed(error);
		if (told !== undefined)
			this.owner.report(told);
	}

	/** The server refused to claim. */
	refused(error: unknown): void {
		if (this.outage.refused(error))
			this.owner.report(error);
	}

	/** It is told that calls go through. */
	begins(): void {
		this.outage.over();
	}

	wentThrough(): void {
		if (this.outage.over())
			this.owner.reachable();
	}

	/** One call: completes, claims (max > 0), or both.  What it could not settle goes back on the lane's list. */
	async settleAndClaim(lane: Lane, settles: Settle[], max: number): Promise<Row[]> {
		const values = this.owner.claimValues(lane, max);
		try {
			if (settles.length > 0 && (max === 0 || settles.some(settle => settle.uncertain))) {
				await this.completeMany(settles);
				settles = [];
			} else if (settles.length > 0) {
				try {
					const rows = await this.run(completeAndClaimSql, [settles.map(settle => settle.running.job.id),
						settles.map(settle => settle.running.token), ...values, settles.map(settle => settle.result)]);
					for (const settle of settles)
						this.owner.settled(settle);
					return rows;
				} catch (error) {
					// A lease was lost, or a result is refused: find out whose, then claim.
					if (isConnectionError(error))
						throw error;
					await this.completeMany(settles);
					settles = [];
				}
			}
			return max > 0 ? await this.run(claimSql, values) : [];
		} catch (error) {
			const unknown = isConnectionError(error) && (error as any).outcomeUnknown !== false;
			for (const settle of settles)
				settle.uncertain ||= unknown;
			lane.settles.unshift(...settles.filter(settle => this.owner.isActive(settle.running)));
			throw error;
		}
	}

	private async completeMany(settles: Settle[]): Promise<void> {
		let rows: Row[];
		try {
			rows = await this.run(completeSql,
				[settles.map(settle => settle.running.job.id), settles.map(settle => settle.running.token), settles.map(settle => settle.result)]);
		} catch (error) {
			if (isConnectionError(error))
				throw error;
			// One of them is refused, as a result that is too large, or locked: each by itself.
			if (settles.length > 1) {
				let passing: unknown;
				for (const settle of settles)
					await this.completeMany([settle]).catch(refusal => {
						if (!isPassing(refusal))
							throw refusal;
						passing = refusal;
					});
				if (passing !== undefined)
					throw passing;
				return;
			}
			if (isPassing(error))
				throw error;
			const [settle] = settles;
			settle.running.gone = false;
			await this.owner.refused(settle.running, error as Error);
			settle.confirmed();
			return;
		}
		for (const [i, settle] of settles.entries()) {
			if (rows[i].state === 'completed') {
				this.owner.settled(settle);
				continue;
			}
			// A call before, that broke, may have completed it.
			const outcome = settle.uncertain ? await this.client.outside(() => this.client.jobOutcome(settle.running.job.id)) : undefined;
			if (outcome?.state === 'completed' || outcome?.state === 'gone')
				this.owner.settled(settle);
			else {
				this.owner.lost(settle.running);
				settle.confirmed();
			}
		}
	}

	/** A call that is repeated until the server has answered. */
	async insist(sql: string, values: readonly unknown[]): Promise<{ rows: Row[]; uncertain: boolean } | { error: any; uncertain: boolean }> {
		let uncertain = false;
		for (let failures = 0; ; failures++) {
			try {
				const rows = await this.run(sql, values);
				this.wentThrough();
				return { rows, uncertain };
			} catch (error) {
				const isOfConnection = isConnectionError(error);
				if (!isOfConnection && !isPassing(error) || this.isOver() || this.over.aborted)
					return { error, uncertain };
				if (isOfConnection) {
					this.heldUp(error);
					uncertain ||= (error as any).outcomeUnknown !== false;
				} else
					this.refused(error);
				await sleep(backoffAfter(failures), this.over);
			}
		}
	}
}
