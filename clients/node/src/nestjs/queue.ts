import { SafeEmitter } from '../emitter';
import { toJson } from '../json';
import { UnsupportedOptionError } from '../errors';
import { checkBulk, checkKnown, integer, optionsOf, ownValue } from '../options';
import type {
	CronRepeatOptions,
	EveryRepeatOptions,
	JobCounts,
	JobId,
	JobInformation,
	JobOptions,
	JobStatus,
	JobStatusClean,
} from './bull-types';
import { Job, type JobRow, type Lease, statesOf, UnsupportedError } from './job';
import { jobOptions, regexOfGlob } from './lenient';
import type { Port, Transaction } from './port';

/** Bull's name of jobs that were added without one. */
export const DEFAULT_JOB_NAME = '__default__';

/** In whose transaction a call is done; without it that of `@EventSourced` and `transaction()`, or one of its own. */
export interface CallOptions {
	tx?: Transaction;
}

const STATUSES: readonly JobStatus[] = ['waiting', 'active', 'completed', 'failed', 'delayed', 'paused'];

/** Every job that there is, as JobRow; narrowed by the callers. */
const SELECT_JOBS = `SELECT * FROM (
	SELECT j.job_id::text, j.queue, j.name, j.state, j.payload, j.metadata, j.failures, j.stalled, j.max_attempts,
		j.priority, j.created_at, j.run_at, j.claimed_at, NULL::timestamptz AS finished_at, j.errors,
		NULL::jsonb AS result, j.progress, j.unique_key, j.job_id AS number
	FROM event_queue.jobs j
	UNION ALL
	SELECT d.job_id::text, d.queue, d.name, 'dead', d.payload, d.metadata, d.failures, d.stalled, NULL,
		d.priority, d.created_at, NULL, NULL, d.died_at, d.errors, NULL, NULL,
		(SELECT x.unique_key FROM event_queue.dead_letter x WHERE x.job_id = d.job_id), d.job_id
	FROM event_queue.dead_letters d
	UNION ALL
	SELECT h.job_id::text, h.queue, h.name, 'completed', h.payload, h.metadata, h.failures, h.stalled, NULL,
		h.priority, h.created_at, h.run_at, h.claimed_at, h.completed_at, h.errors, h.result, NULL, NULL, h.job_id
	FROM event_queue.history h) x`;

/** What is asked for by getJobs and its like: words, lists of them, or words between commas. */
function statusesOf(...given: (string | readonly string[] | undefined)[]): JobStatus[] {
	const words = given.flat().join(',').split(/\s*,\s*/).filter((word) => word !== '');
	if (words.length === 0) {
		return [...STATUSES];
	}
	return words.map((word) => {
		const status = word === 'wait' ? 'waiting' : (word as JobStatus);
		if (!STATUSES.includes(status)) {
			throw new UnsupportedOptionError(`no job is ever "${word}": give ${STATUSES.join(', ')}`);
		}
		return status;
	});
}

/** A queue of Bull 4, on a queue of the extension. */
export class Queue<T = any> extends SafeEmitter {
	private readonly locallyPaused: { paused: boolean } = { paused: false };
	private readonly ended = new Map<string, Set<(outcome: { error?: Error; result?: unknown }) => void>>();
	private closed = false;

	constructor(
		readonly name: string,
		readonly port: Port,
		private readonly defaults: JobOptions = {},
		/** The path into the data of the limiter's groupKey. */
		private readonly groupPath?: string,
	) {
		super();
		this.setMaxListeners(0);
		// Without a listener an 'error' would be thrown, and end the process: Nest's users rarely have one.
		this.on('error', () => undefined);
		this.on('newListener', (event) => {
			if (String(event).startsWith('global:')) {
				port.watch(this);
			}
		});
		this.on('completed', (job: Job, result: unknown) => this.tell(job.jobId, { result }));
		this.on('failed', (job: Job, error: Error, final?: boolean) => final && this.tell(job.jobId, { error }));
	}

	/** @internal What a listener throws, or rejects with. */
	report(error: unknown): void {
		this.port.reportListener(this.name, error);
	}

	private tell(jobId: string, outcome: { error?: Error; result?: unknown }): void {
		for (const listen of this.ended.get(jobId) ?? []) {
			listen(outcome);
		}
	}

	async isReady(): Promise<this> {
		await this.port.ready();
		return this;
	}

	/* ---- adding ---- */

	add(data: T, opts?: JobOptions): Promise<Job<T>>;
	add(name: string, data: T, opts?: JobOptions, call?: CallOptions): Promise<Job<T>>;
	async add(first: unknown, second?: unknown, third?: JobOptions, call?: CallOptions): Promise<Job<T>> {
		const named = typeof first === 'string';
		const name = named ? first : DEFAULT_JOB_NAME;
		const data = (named ? second : first) as T;
		const opts = { ...this.defaults, ...jobOptions(optionsOf(`job ${name}`, (named ? third : second) as JobOptions | undefined)) };
		if (opts.repeat !== undefined) {
			return this.repeat(name, data, opts);
		}
		const [job] = await this.addAll([{ name, data, opts }], call);
		return job as Job<T>;
	}

	async addBulk(
		jobs: { name?: string | undefined; data: T; opts?: Omit<JobOptions, 'repeat'> | undefined }[],
		call?: CallOptions,
	): Promise<Job<T>[]> {
		checkBulk(jobs);
		if (jobs.length === 0) {
			return [];
		}
		const all = jobs.map((job) => ({
			name: job.name ?? DEFAULT_JOB_NAME, data: job.data, opts: { ...this.defaults, ...jobOptions(optionsOf<JobOptions>(`job ${job.name}`, job.opts)) },
		}));
		if (all.some((job) => job.opts.repeat !== undefined)) {
			throw new UnsupportedError('repeat of addBulk', 'add such a job by add()');
		}
		return this.addAll(all, call);
	}

	private async addAll(jobs: { name: string; data: T; opts: JobOptions }[], call?: CallOptions): Promise<Job<T>[]> {
		// Bull's processors see an object where none was given.
		const complete = jobs.map((job) => ({ ...job, data: job.data ?? ({} as T), opts: this.withGroup(job.data, job.opts) }));
		const ids = await this.port.add(this.name, complete, call?.tx);
		return complete.map((job, index) => {
			const made = new Job<T>(this, this.rowOf(ids[index] as string, { ...job, data: jobs[index]!.data }), job.opts);
			this.emit('waiting', made.id);
			return made;
		});
	}

	private withGroup(data: T, opts: JobOptions): JobOptions {
		if (this.groupPath === undefined || opts.groupKey !== undefined) {
			return opts;
		}
		const value = ownValue(data, this.groupPath);
		return value === undefined || value === null ? opts : { ...opts, groupKey: String(value) };
	}

	private rowOf(jobId: string, job: { name: string; data: T; opts: JobOptions }): JobRow {
		return {
			job_id: jobId,
			name: job.name,
			state: 'ready',
			payload: job.data,
			metadata: job.opts.metadata ?? null,
			failures: 0,
			stalled: 0,
			max_attempts: job.opts.attempts ?? null,
			priority: job.opts.priority ?? 0,
			created_at: new Date(),
			run_at: null,
			claimed_at: null,
			finished_at: null,
			errors: null,
			result: null,
			progress: null,
			unique_key: null,
		};
	}

	/* ---- repeating: schedules of the server ---- */

	private async repeat(name: string, data: T, opts: JobOptions): Promise<Job<T>> {
		const repeat = opts.repeat as CronRepeatOptions | EveryRepeatOptions;
		checkKnown('repeat', repeat, ['cron', 'every', 'tz', 'startDate', 'endDate', 'limit', 'count', 'key', 'jobId'], { pattern: 'that is cron' });
		const { repeat: _repeat, ...rest } = opts;
		const { schedule, cron, tz } = this.scheduleOf(name, repeat, opts.jobId);
		if (Number(repeat.limit) > 100_000) {
			throw new UnsupportedOptionError(`repeat.limit is ${repeat.limit}, above 100000: give endDate, as the time of the last run has to be counted`);
		}
		const times = repeat.limit === undefined ? undefined : integer('repeat.limit', repeat.limit, 1) - (repeat.count ?? 0);
		if (times === undefined || times > 0) {
			await this.port.schedule({
				schedule, cron, tz, queue: this.name, name, data, opts: rest,
				repeat, times,
				startsAt: 'cron' in repeat ? dateOf('startDate', repeat.startDate) : undefined,
				endsAt: dateOf('endDate', repeat.endDate),
			});
		}
		return new Job<T>(this, this.rowOf(schedule, { name, data, opts: rest }), { ...rest, jobId: `repeat:${schedule}` });
	}

	private scheduleOf(name: string, repeat: CronRepeatOptions | EveryRepeatOptions, jobId?: JobId) {
		const tz = repeat.tz ?? 'UTC';
		if (('cron' in repeat) === ('every' in repeat)) {
			throw new UnsupportedError('repeat', 'give either cron or every');
		}
		const cron = 'cron' in repeat ? fieldsOf(repeat.cron) : cronOfEvery(repeat.every);
		return { schedule: [this.name, name, ...(jobId === undefined ? [] : [jobId]), cron, tz].join(':'), cron, tz };
	}

	async getRepeatableJobs(start = 0, end = -1, asc = false): Promise<JobInformation[]> {
		const rows = await this.port.query<{
			name: string; job_name: string; cron: string; time_zone: string; next_run: Date; ends_at: Date | null;
			given: { repeat?: { cron?: string; every?: number }; jobId?: JobId } | null;
		}>(
			`SELECT name, job_name, cron, time_zone, next_run, ends_at, options #> '{metadata,opts}' AS given FROM event_queue.schedules WHERE queue = $1::text AND enabled AND next_run IS NOT NULL
			 ORDER BY next_run ${asc ? 'ASC' : 'DESC'} OFFSET $2::text::int LIMIT $3::text::int`,
			[this.name, start, end < 0 ? null : end - start + 1],
		);
		return rows.map((row) => ({
			key: row.name,
			name: row.job_name,
			id: row.given?.jobId === undefined ? undefined : String(row.given.jobId),
			cron: row.given?.repeat?.cron ?? row.cron,
			tz: row.time_zone,
			every: Number(row.given?.repeat?.every ?? Number(/^@every (\d+)s$/.exec(row.cron)?.[1] ?? 0) * 1000),
			endDate: row.ends_at === null ? undefined : new Date(row.ends_at).getTime(),
			next: new Date(row.next_run).getTime(),
		}));
	}

	async getRepeatableCount(): Promise<number> {
		return (await this.getRepeatableJobs()).length;
	}

	removeRepeatable(repeat: (CronRepeatOptions | EveryRepeatOptions) & { jobId?: JobId }): Promise<void>;
	removeRepeatable(name: string, repeat: (CronRepeatOptions | EveryRepeatOptions) & { jobId?: JobId }): Promise<void>;
	async removeRepeatable(first: any, second?: any): Promise<void> {
		const [name, repeat] = typeof first === 'string' ? [first, second] : [DEFAULT_JOB_NAME, first];
		await this.removeRepeatableByKey(this.scheduleOf(name, repeat, repeat.jobId).schedule);
	}

	async removeRepeatableByKey(key: string): Promise<void> {
		await this.port.query(
			'SELECT event_queue.drop_schedule(s.name) FROM event_queue.schedules s WHERE s.name = $1::text AND s.queue = $2::text',
			[key, this.name],
		);
	}

	/* ---- looking ---- */

	private async select(condition: string, values: unknown[]): Promise<Job<T>[]> {
		const rows = await this.port.query<JobRow>(`${SELECT_JOBS} WHERE x.queue = $1::text AND ${condition}`, [this.name, ...values]);
		return rows.map((row) => new Job<T>(this, row));
	}

	/** By its `id`: the `jobId` that it was added with, or else its number. */
	async getJob(id: JobId): Promise<Job<T> | null> {
		const text = String(id);
		// The key is there as long as the job is; of one that was completed the option is.
		const conditions = ['x.unique_key = $2::text', "x.metadata -> 'opts' ->> 'jobId' = $2::text"];
		if (/^[1-9][0-9]{0,17}$/.test(text)) {
			// A number of the application's own may also be the server's for another job, which has its own jobId.
			conditions.splice(1, 0, "x.number = $2::text::bigint AND x.metadata -> 'opts' -> 'jobId' IS NULL");
		}
		for (const condition of conditions) {
			const [job] = await this.select(`${condition} ORDER BY x.number DESC LIMIT 1`, [text]);
			if (job !== undefined) {
				return job;
			}
		}
		return null;
	}

	/** In the order in which they were added, newest first without asc. */
	async getJobs(types: JobStatus[] | JobStatus, start = 0, end = -1, asc = false): Promise<Job<T>[]> {
		const statuses = statusesOf(types);
		// As in Redis, -1 is the last one.
		const count = start < 0 || end < -1 ? await this.getJobCountByTypes(statuses) : 0;
		const first = start < 0 ? Math.max(count + start, 0) : start;
		const last = end < -1 ? count + end : end;
		return this.select(
			`x.state = ANY ($2::text::text[]) ORDER BY x.number ${asc ? 'ASC' : 'DESC'} OFFSET $3::text::int LIMIT $4::text::int`,
			[statuses.flatMap(statesOf), first, last === -1 && end >= -1 ? null : Math.max(last - first + 1, 0)],
		);
	}

	getWaiting(start?: number, end?: number): Promise<Job<T>[]> {
		return this.getJobs(['waiting', 'paused'], start, end, true);
	}

	getActive(start?: number, end?: number): Promise<Job<T>[]> {
		return this.getJobs(['active'], start, end, true);
	}

	getDelayed(start?: number, end?: number): Promise<Job<T>[]> {
		return this.getJobs(['delayed'], start, end, true);
	}

	getCompleted(start?: number, end?: number): Promise<Job<T>[]> {
		return this.getJobs(['completed'], start, end);
	}

	getFailed(start?: number, end?: number): Promise<Job<T>[]> {
		return this.getJobs(['failed'], start, end);
	}

	async getJobCounts(): Promise<JobCounts> {
		const counts = { waiting: 0, active: 0, completed: 0, failed: 0, delayed: 0, paused: 0 };
		for (const [status, jobs] of await this.counts()) {
			counts[status] += jobs;
		}
		return counts;
	}

	private async counts(): Promise<[JobStatus, number][]> {
		const rows = await this.port.query<{ state: string; jobs: string }>(
			`SELECT d.state, d.jobs FROM event_queue.queue_depths d WHERE d.queue = $1::text
			 UNION ALL SELECT 'dead', count(*) FROM event_queue.dead_letters d WHERE d.queue = $1::text
			 UNION ALL SELECT 'completed', count(*) FROM event_queue.history h WHERE h.queue = $1::text`,
			[this.name],
		);
		const of = (state: string) => STATUSES.find((s) => statesOf(s).includes(state));
		return rows.map((row) => [of(row.state) ?? 'waiting', Number(row.jobs)]);
	}

	async getJobCountByTypes(...types: (JobStatus[] | JobStatus)[]): Promise<number> {
		const wanted = statusesOf(...types);
		return (await this.counts()).reduce((sum, [status, jobs]) => sum + (wanted.includes(status) ? jobs : 0), 0);
	}

	getCompletedCount(): Promise<number> {
		return this.getJobCountByTypes('completed');
	}

	getFailedCount(): Promise<number> {
		return this.getJobCountByTypes('failed');
	}

	getDelayedCount(): Promise<number> {
		return this.getJobCountByTypes('delayed');
	}

	getWaitingCount(): Promise<number> {
		return this.getJobCountByTypes(['waiting', 'paused']);
	}

	getPausedCount(): Promise<number> {
		return this.getJobCountByTypes('paused');
	}

	getActiveCount(): Promise<number> {
		return this.getJobCountByTypes('active');
	}

	/** Jobs that wait, or are paused. */
	count(): Promise<number> {
		return this.getJobCountByTypes(['waiting', 'paused', 'delayed']);
	}

	async getJobLogs(jobId: JobId, start = 0, end = -1, asc = true): Promise<{ logs: string[]; count: number }> {
		const number = (await this.getJob(jobId))?.jobId ?? String(jobId);
		const rows = /^\d{1,18}$/.test(number)
			? await this.port.query<{ message: string }>('SELECT message FROM event_queue.job_log WHERE job_id = $1::text::bigint ORDER BY at', [number])
			: [];
		const logs = rows.map((row) => row.message);
		if (!asc) {
			logs.reverse();
		}
		return { logs: logs.slice(start, end === -1 ? undefined : end + 1), count: logs.length };
	}

	/** Those that have a job in hand. */
	async getWorkers(): Promise<{ [index: string]: string }[]> {
		return this.port.query(
			'SELECT DISTINCT r.worker AS name FROM event_queue.running_jobs($1::text) r WHERE r.worker IS NOT NULL',
			[this.name],
		);
	}

	async stateOf(jobId: string): Promise<string | undefined> {
		const rows = await this.port.query<{ state: string }>(
			'SELECT state FROM event_queue.all_jobs WHERE job_id = $1::text::bigint LIMIT 1',
			[jobId],
		);
		return rows[0]?.state;
	}

	/** The outcome of a job: at once if it is done in this process, else within half a second. */
	async outcomeOf(jobId: string): Promise<unknown> {
		let listen: (outcome: { error?: Error; result?: unknown }) => void = () => undefined;
		const heard = new Promise<{ error?: Error; result?: unknown }>((resolve) => (listen = resolve));
		const listeners = this.ended.get(jobId) ?? new Set();
		this.ended.set(jobId, listeners.add(listen));
		try {
			if (this.closed) {
				throw this.closedMeanwhile();
			}
			const read = this.port.outcome(jobId).then(({ state, error, result }) =>
				// Gone: finished and not kept, or cancelled.
				state === 'dead' ? { error: new Error(error ?? 'the job failed') } : { result });
			const outcome: { error?: Error; result?: unknown } = await Promise.race([heard, read]);
			if (outcome.error !== undefined) {
				throw outcome.error;
			}
			return outcome.result ?? undefined;
		} finally {
			listeners.delete(listen);
			if (listeners.size === 0) {
				this.ended.delete(jobId);
			}
		}
	}

	private closedMeanwhile(): Error {
		return new Error(`queue "${this.name}" was closed while a job was waited for`);
	}

	/* ---- changing ---- */

	/** All workers, or with `isLocal` those of this process. */
	async pause(isLocal = false, doNotWaitActive = false): Promise<void> {
		if (isLocal) {
			this.locallyPaused.paused = true;
			await this.port.pauseWorkers(this.name, doNotWaitActive);
		} else {
			await this.port.query('SELECT event_queue.pause_queue($1::text)', [this.name]);
		}
		this.emit('paused');
	}

	async resume(isLocal = false): Promise<void> {
		if (isLocal) {
			this.locallyPaused.paused = false;
			this.port.resumeWorkers(this.name);
		} else {
			await this.port.query('SELECT event_queue.resume_queue($1::text)', [this.name]);
		}
		this.emit('resumed');
	}

	async isPaused(isLocal = false): Promise<boolean> {
		if (isLocal) {
			return this.locallyPaused.paused;
		}
		const [row] = await this.port.query<{ paused: boolean }>('SELECT paused FROM event_queue.queue WHERE name = $1::text', [
			this.name,
		]);
		return row?.paused ?? false;
	}

	/** Deletes what is not leased. */
	async empty(): Promise<void> {
		await this.port.query('SELECT event_queue.purge_queue($1::text)', [this.name]);
	}

	/** Removes the queue's jobs of all states, what it keeps and its schedules; without force not while jobs are active. */
	async obliterate(options?: { force: boolean }): Promise<void> {
		if (options?.force !== true && (await this.getActiveCount()) > 0) {
			throw new Error(`Cannot obliterate queue "${this.name}" with active jobs: give { force: true }`);
		}
		await this.port.remakeQueue(this.name);
	}

	/** All dead letters back into the queue. */
	async retryJobs(_options?: { count?: number }): Promise<void> {
		await this.port.query('SELECT event_queue.retry_all_dead($1::text)', [this.name]);
	}

	/** Makes all jobs that wait for their next attempt due now, or all that wait. */
	async retryWaiting(failedOnly = true): Promise<number> {
		const [row] = await this.port.query<{ n: string }>('SELECT event_queue.retry_waiting($1::text, $2::text::boolean) AS n', [
			this.name,
			failedOnly,
		]);
		return Number(row?.n ?? 0);
	}

	/** For Job. */
	async retryDead(job: Job<T>, data?: T): Promise<void> {
		await this.port.query('SELECT event_queue.retry_dead($1::text::bigint, $2::text::jsonb)',
			[job.jobId, data === undefined ? null : toJson(data, `the data of job ${job.name}`)]);
		this.emit('waiting', job.id);
	}

	/** For Job. */
	async changeData(job: Job<T>, data: T): Promise<void> {
		await this.port.query('SELECT event_queue.change_payload($1::text::bigint, $2::text::jsonb, $3::text::uuid)',
			[job.jobId, toJson(data, `the data of job ${job.name}`), job.lease?.token]);
	}

	/** For Job. */
	async promote(job: Job<T>): Promise<void> {
		await this.port.query('SELECT event_queue.promote_job($1::text::bigint)', [job.jobId]);
		this.emit('waiting', job.id);
	}

	/** Makes all jobs due that are delayed, or wait for their next attempt. */
	async promoteJobs(): Promise<number> {
		return this.retryWaiting(false);
	}

	async removeJob(job: Job<T>): Promise<void> {
		const state = await this.stateOf(job.jobId);
		if (state === undefined) {
			return;
		}
		if (state === 'leased') {
			throw new Error(`Could not remove job ${job.id}: it is being processed`);
		}
		if (state === 'completed') {
			await this.discardCompleted([job]);
		} else {
			await this.port.query(
				state === 'dead' ? 'SELECT event_queue.discard_dead($1::text::bigint)' : 'SELECT event_queue.cancel_job($1::text::bigint)',
				[job.jobId],
			);
		}
		this.emit('removed', job);
	}

	private async discardCompleted(jobs: Job<T>[]): Promise<void> {
		for (let i = 0; i < jobs.length; i += 1000) {
			await this.port.query('SELECT event_queue.discard_completed($1::text::bigint[])', [
				`{${jobs.slice(i, i + 1000).map((job) => job.jobId).join(',')}}`,
			]);
		}
	}

	/** Jobs whose id matches a pattern with `*`, `?` and `[abc]`. */
	async removeJobs(pattern: string): Promise<void> {
		for (const job of await this.select(`coalesce(x.unique_key, x.metadata #>> '{opts,jobId}', x.job_id) ~ $2::text AND x.state <> 'leased'`, [regexOfGlob(pattern)])) {
			await this.removeJob(job);
		}
	}

	/** Removes what has been in that state for longer than `grace` milliseconds. What is completed also goes by itself: removeOnComplete says when. */
	async clean(grace: number, status: JobStatusClean = 'completed', limit?: number): Promise<Job<T>[]> {
		if (grace === undefined || grace === null) {
			throw new UnsupportedOptionError('You must define a grace period.');
		}
		const [known] = statusesOf(status);
		if (known === 'active') {
			return [];
		}
		const jobs = await this.select(
			`x.state = ANY ($2::text::text[]) AND coalesce(x.finished_at, x.created_at) <= now() - $3::text::float8 * interval '1 ms'
			 ORDER BY x.number LIMIT $4::text::int`,
			[statesOf(known!).filter((state) => state !== 'stalled'), grace, limit || null],
		);
		if (known === 'completed') {
			await this.discardCompleted(jobs);
		} else {
			for (const job of jobs) {
				await this.removeJob(job);
			}
		}
		this.emit('cleaned', jobs, status);
		return jobs;
	}

	/* ---- by hand ---- */

	/** Leases a job: `moveToCompleted` or `moveToFailed` ends it. */
	async getNextJob(): Promise<Job<T> | undefined> {
		const claimed = await this.port.claim(this.name);
		if (claimed === undefined) {
			return undefined;
		}
		const job = new Job<T>(this, claimed.row);
		job.lease = claimed.lease;
		return job;
	}

	/** For Job. */
	async settle(job: Job<T>, error?: { message: string }, result?: unknown): Promise<void> {
		const token = this.tokenOf(job);
		if (error === undefined) {
			await this.port.query('SELECT event_queue.complete($1::text::bigint, $2::text::uuid, $3::text::jsonb)', [
				job.jobId,
				token,
				result === undefined ? null : toJson(result, `the result of job ${job.name}`),
			]);
			job.returnvalue = result;
			job.finishedOn = Date.now();
		} else {
			if (!(await this.fail(job, error as Error))) {
				job.finishedOn = Date.now();
			}
			job.failedReason = error.message;
		}
	}

	/** For Job and for tests: whether there will be another attempt. */
	async fail(job: Job<T>, error: Error & { code?: unknown; final?: boolean }): Promise<boolean> {
		const [row] = await this.port.query<{ again: boolean }>(
			'SELECT event_queue.fail($1::text::bigint, $2::text::uuid, $3::text, context => $4::text, final => $5::text::boolean) IS NOT NULL AS again',
			[
				job.jobId,
				this.tokenOf(job),
				error.message || error.name,
				error.stack ?? null,
				job.discarded || error.name === 'UnrecoverableError',
			],
		);
		return row?.again ?? false;
	}

	/** For Job. */
	async release(job: Job<T>): Promise<void> {
		await this.port.query('SELECT event_queue.release($1::text::bigint, $2::text::uuid)', [job.jobId, this.tokenOf(job)]);
	}

	private tokenOf(job: Job<T>): string {
		const lease: Lease | undefined = job.lease;
		if (lease === undefined) {
			throw new Error(`job ${job.id} is not leased by this process`);
		}
		return lease.token;
	}

	async whenCurrentJobsFinished(): Promise<void> {
		await this.port.whenIdle(this.name);
	}

	/** Stops this process's workers of the queue. */
	async close(doNotWaitJobs = false): Promise<void> {
		this.closed = true;
		await this.port.closeWorkers(this.name, doNotWaitJobs);
		for (const jobId of [...this.ended.keys()]) {
			this.tell(jobId, { error: this.closedMeanwhile() });
		}
	}

	process(): never {
		throw new UnsupportedError('queue.process() of an injected queue', 'mark the method with @Process, or use Worker');
	}

	get client(): never {
		throw new UnsupportedError('queue.client', 'there is no Redis; @InjectEventQueue() gives the connection');
	}
}

/** Of six fields the first is seconds, as in Bull. */
function fieldsOf(cron: string): string {
	if (typeof cron !== 'string') {
		throw new UnsupportedError(`repeat.cron ${String(cron)}`, 'give an expression, as a string');
	}
	return cron.trim().split(/\s+/).join(' ').replace(/^0 (?=(\S+ ){4}\S+$)/, '');
}

/** Counted from 1970, as in Bull.  What a plain expression says is one, whose job comes at the same times. */
function cronOfEvery(every: number): string {
	const minutes = every / 60000;
	const hours = minutes / 60;
	if (Number.isInteger(minutes) && minutes >= 1 && 60 % minutes === 0 && minutes < 60) {
		return minutes === 1 ? '* * * * *' : `*/${minutes} * * * *`;
	}
	if (Number.isInteger(hours) && hours >= 1 && 24 % hours === 0) {
		return hours === 24 ? '0 0 * * *' : hours === 1 ? '0 * * * *' : `0 */${hours} * * *`;
	}
	if (Number.isInteger(every / 1000) && every >= 1000 && hours <= 366 * 24) {
		return `@every ${every / 1000}s`;
	}
	throw new UnsupportedError(`repeat.every ${every}`, 'schedules run every so many whole seconds, at most 366 days');
}

function dateOf(option: string, value: Date | string | number | undefined): Date | undefined {
	if (value === undefined) {
		return undefined;
	}
	const date = new Date(value);
	if (Number.isNaN(date.getTime())) {
		throw new UnsupportedError(`repeat.${option} ${String(value)}`, 'give a date');
	}
	return date;
}
