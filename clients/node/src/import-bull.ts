/*
 * import-bull.ts: moves waiting, delayed and failed jobs of Bull 4 from Redis into queues
 * and dead letters; the program's verb import-bull.
 *
 * Each job leaves an event of an id that is made from its queue, id and time, in the
 * transaction that adds it: another run finds the event and leaves the job out, however the
 * run before ended.  Redis is only written to, with remove, after that transaction.
 */
import { createHash } from 'node:crypto';
import { isConnectionError, NotFoundError, UnsupportedOptionError } from './errors';
import type { EventQueue } from './event-queue';
import { toJson } from './json';
import { encodeJobOptions, type JobOptions } from './options';
import { toExecutor, type Executor } from './tx';

/** What is used of ioredis. */
export interface RedisLike {
	scan(cursor: string, match: 'MATCH', pattern: string, count: 'COUNT', n: number): Promise<[string, string[]]>;
	lrange(key: string, from: number, to: number): Promise<string[]>;
	zrange(key: string, from: number, to: number, withScores: 'WITHSCORES'): Promise<string[]>;
	llen(key: string): Promise<number>;
	zcard(key: string): Promise<number>;
	exists(key: string): Promise<number>;
	hgetall(key: string): Promise<Record<string, string>>;
	multi(): any;
}

export interface ImportBullOptions {
	/** Bull's prefix; default bull. */
	prefix?: string;
	/** Default: all that there are. */
	queues?: string[];
	/** Bull's queue -> the queue here; default: of the same name. */
	into?: Record<string, string>;
	/** Makes queues that are missing, with the defaults. */
	create?: boolean;
	/** Removes from Redis what is imported; without it Redis stays as it is. */
	remove?: boolean;
	tenantId?: string;
}

export interface ImportedQueue {
	queue: string;
	into: string;
	/** Jobs that this run added. */
	waiting: number;
	delayed: number;
	failed: number;
	/** Jobs that a run before had added. */
	already: number;
	/** Jobs that were removed from Redis. */
	removed: number;
	/** Jobs that stay: a worker of Bull has them. */
	active: number;
	/** Repeatable jobs, which stay: make schedules of them. */
	repeatable: number;
	/** The queue was paused in Bull; it is not here. */
	paused: boolean;
	refused: Array<{ id: string; reason: string }>;
}

type State = 'waiting' | 'delayed' | 'failed';

interface BullJob {
	id: string;
	state: State;
	/** When a delayed job is due, ms. */
	due?: number;
	hash: Record<string, string>;
	eventId: string;
}

const batchSize = 200;

const parsed = (text: string | undefined, otherwise: any): any => text === undefined || text === '' ? otherwise : JSON.parse(text);

/* An id that is the same in each run; the time, since Bull counts from 1 again after a flush. */
function eventIdOf(prefix: string, queue: string, id: string, timestamp: string): string {
	const hex = createHash('sha256').update(JSON.stringify(['bull', prefix, queue, id, timestamp])).digest('hex');
	return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

async function queuesOf(redis: RedisLike, prefix: string): Promise<string[]> {
	const found = new Set<string>();
	const literal = prefix.replace(/[\\*?[\]]/g, '\\$&');
	for (let cursor = '0'; ;) {
		const [next, keys] = await redis.scan(cursor, 'MATCH', `${literal}:*:id`, 'COUNT', 1000);
		for (const key of keys)
			found.add(key.slice(prefix.length + 1, -':id'.length));
		if (next === '0')
			return [...found].sort();
		cursor = next;
	}
}

/** Imports, and tells what became of each queue's jobs.  Stop Bull's workers and producers before. */
export async function importBull(eq: EventQueue<any>, redis: RedisLike, options: ImportBullOptions = {}): Promise<ImportedQueue[]> {
	const prefix = options.prefix ?? 'bull';
	const reports: ImportedQueue[] = [];
	const there = await queuesOf(redis, prefix);
	const names = options.queues ?? there;
	for (const name of names)
		if (!there.includes(name))
			throw new NotFoundError(`there is no queue "${name}" of Bull with the prefix "${prefix}" in this Redis; there are: ${there.join(', ') || 'none'}`);
	for (const name of Object.keys(options.into ?? {}))
		if (!names.includes(name))
			throw new UnsupportedOptionError(`into names queue "${name}", which is not imported`);

	const target = (name: string) => options.into?.[name] ?? name;
	await eq.ready();
	if (options.create === true)
		await eq.sync({ queues: Object.fromEntries(names.map(name => [target(name), {}])) });
	// All of them before the first job
	for (const name of names)
		await eq.queueSettings(target(name));
	for (const name of names)
		reports.push(await importQueue(eq, redis, prefix, name, target(name), options));
	return reports;
}

async function importQueue(eq: EventQueue<any>, redis: RedisLike, prefix: string, name: string, into: string, options: ImportBullOptions): Promise<ImportedQueue> {
	const key = (part: string) => `${prefix}:${name}:${part}`;
	const report: ImportedQueue = {
		queue: name, into, waiting: 0, delayed: 0, failed: 0, already: 0, removed: 0, active: await redis.llen(key('active')),
		repeatable: await redis.zcard(key('repeat')), paused: await redis.exists(key('meta-paused')) === 1, refused: [],
	};

	const found: Array<Pick<BullJob, 'id' | 'state' | 'due'>> = [];
	// Bull takes from the end of its lists.
	for (const list of ['paused', 'wait'])
		for (const id of (await redis.lrange(key(list), 0, -1)).reverse())
			found.push({ id, state: 'waiting' });
	for (const [set, state] of [['delayed', 'delayed'], ['failed', 'failed']] as const) {
		const scored = await redis.zrange(key(set), 0, -1, 'WITHSCORES');
		for (let i = 0; i < scored.length; i += 2)
			// A delayed job's score is its time times 4096, plus bits of its number.
			found.push({ id: scored[i], state, due: state === 'delayed' ? Math.floor(Number(scored[i + 1]) / 4096) : undefined });
	}

	for (let i = 0; i < found.length; i += batchSize) {
		const jobs: BullJob[] = [];
		for (const job of found.slice(i, i + batchSize)) {
			// The next run of a repeatable job, which Bull makes anew by itself.
			if (job.id.startsWith('repeat:'))
				continue;
			const hash = await redis.hgetall(key(job.id));
			if (hash.data === undefined)
				report.refused.push({ id: job.id, reason: 'Redis has its id, but not the job' });
			else
				jobs.push({ ...job, hash, eventId: eventIdOf(prefix, name, job.id, hash.timestamp) });
		}
		const imported = await importJobs(eq, jobs, report, options.tenantId ?? eq.options.tenantId ?? null);
		if (options.remove === true)
			for (const { id } of imported) {
				await redis.multi().lrem(key('wait'), 0, id).lrem(key('paused'), 0, id).zrem(key('delayed'), id).zrem(key('failed'), id)
					.zrem(key('priority'), id).del(key(id), key(`${id}:logs`)).exec();
				report.removed++;
			}
	}
	return report;
}

/* All of them in one transaction; if one is refused, each in its own.  Which of them are here now. */
async function importJobs(eq: EventQueue<any>, jobs: BullJob[], report: ImportedQueue, tenant: string | null): Promise<BullJob[]> {
	if (jobs.length === 0)
		return [];
	try {
		const fresh = await eq.database.transaction(client => importBatch(eq, toExecutor(client), client, jobs, report, tenant));
		for (const job of fresh)
			report[job.state]++;
		report.already += jobs.length - fresh.length;
		return jobs;
	} catch (error) {
		if (isConnectionError(error))
			throw error;
		if (jobs.length === 1) {
			report.refused.push({ id: jobs[0].id, reason: (error as Error).message });
			return [];
		}
		const imported: BullJob[] = [];
		for (const job of jobs)
			imported.push(...await importJobs(eq, [job], report, tenant));
		return imported;
	}
}

async function importBatch(eq: EventQueue<any>, run: Executor, tx: any, jobs: BullJob[], report: ImportedQueue, tenant: string | null): Promise<BullJob[]> {
	const marks = jobs.map(job => ({ id: job.eventId, data: { queue: report.queue, id: job.id, timestamp: Number(job.hash.timestamp) } }));
	const rows = await run(
		`SELECT a.duplicate::text AS duplicate
		FROM pg_catalog.jsonb_array_elements($1::text::jsonb) WITH ORDINALITY e(mark, n),
			LATERAL event_queue.append('bull_import', $2::text, 'bull.job_imported', e.mark -> 'data', id => (e.mark ->> 'id')::uuid, tenant_id => $3::text) a
		ORDER BY e.n`, [toJson(marks, 'marks'), report.into, tenant]);
	const fresh = jobs.filter((_, i) => rows[i].duplicate !== 'true' && rows[i].duplicate !== 't');

	const living = fresh.filter(job => job.state !== 'failed');
	await eq.queue(report.into).addBulk(living.map(job => ({ name: job.hash.name, data: parsed(job.hash.data, {}), opts: { ...jobOptions(job), tenantId: tenant ?? undefined } })), { tx });
	for (const job of fresh)
		if (job.state === 'failed')
			await importFailed(run, job, report.into, tenant);
	return fresh;
}

const bullMetadata = (job: BullJob) => ({ id: job.id, attemptsMade: Number(job.hash.attemptsMade ?? 0), timestamp: Number(job.hash.timestamp) });

function jobOptions(job: BullJob): JobOptions {
	const opts = parsed(job.hash.opts, {});
	const options: JobOptions = { metadata: { bull: bullMetadata(job) } };
	// The attempts that are left
	if (opts.attempts !== undefined)
		options.attempts = Math.max(1, opts.attempts - Number(job.hash.attemptsMade ?? 0));
	if (opts.backoff !== undefined && opts.backoff !== null)
		options.backoff = opts.backoff;
	if (opts.priority)
		options.priority = opts.priority;
	if (opts.timeout)
		options.timeout = opts.timeout;
	for (const name of ['removeOnComplete', 'removeOnFail'] as const)
		if (typeof opts[name] === 'boolean' || typeof opts[name] === 'number' || typeof opts[name]?.age === 'number' || typeof opts[name]?.count === 'number')
			options[name] = opts[name];
	// Bull's own ids are not keys.
	if (opts.jobId !== undefined && opts.jobId !== null)
		options.jobId = opts.jobId;
	if (job.due !== undefined)
		options.runAt = new Date(job.due);
	return options;
}

async function importFailed(run: Executor, job: BullJob, into: string, tenant: string | null): Promise<void> {
	const { hash } = job;
	const opts = parsed(hash.opts, {});
	// The attempts begin anew when it is retried.
	const { attempts, runAt: _, ...others } = jobOptions(job);
	const options = encodeJobOptions({ ...others, attempts: opts.attempts === undefined ? attempts : Math.max(1, opts.attempts) });
	await run(
		`SELECT event_queue.import_dead($1::text, $2::text, $3::text::jsonb, error => $4::text, failures => $5::text::int, options => $6::text::jsonb,
			died_at => least(pg_catalog.to_timestamp($7::text::float8 / 1000), pg_catalog.clock_timestamp()),
			created_at => least(pg_catalog.to_timestamp($8::text::float8 / 1000), pg_catalog.to_timestamp($7::text::float8 / 1000), pg_catalog.clock_timestamp()),
			context => $9::text, tenant_id => $10::text)::text`,
		[into, hash.name, toJson(parsed(hash.data, {}), 'the data'), hash.failedReason ?? 'failed', String(Math.max(1, Number(hash.attemptsMade ?? 1))),
			toJson(options, 'the options'), hash.finishedOn ?? hash.timestamp, hash.timestamp,
			String(parsed(hash.stacktrace, [])[0] ?? '').split('\n').slice(1).join('\n') || null, tenant]);
}

/** The report as lines of text. */
export function formatImport(reports: ImportedQueue[]): string {
	return reports.map(({ queue, into, waiting, delayed, failed, already, removed, active, repeatable, paused, refused }) => [
		`queue ${queue}${into === queue ? '' : ` into ${into}`}: ${waiting} waiting, ${delayed} delayed, ${failed} failed imported; ${already} imported before; ${removed} removed from Redis`,
		...active > 0 ? [`  ${active} active stay: let Bull's workers end them, then run this again`] : [],
		...repeatable > 0 ? [`  ${repeatable} repeatable stay: make schedules of them with event_queue.create_schedule`] : [],
		...paused ? ['  it was paused in Bull, and is not here: event_queue.pause_queue'] : [],
		...refused.map(({ id, reason }) => `  refused: job ${id}: ${reason}`),
	].join('\n') + '\n').join('');
}
