/* What registerQueue says of a queue, in the settings of the server. */
import type { AdvancedSettings, JobOptions, KeepJobsOptions, RateLimiter } from './bull-types';
import { checkBullSettings } from '../options';
import type { Port } from './port';

type SettingValue = string | number | boolean | string[] | null;

/** Settings of `create_queue` that Bull does not know, by their own names: "Settings of a queue" in the reference. */
export interface ServerSettings {
	backoff_max?: string;
	backoff_jitter?: number;
	max_concurrency?: number;
	sla?: string;
	sla_target?: number;
	fair?: boolean;
	group_concurrency?: number;
	group_rate_limit?: number;
	group_rate_interval?: string;
	group_retry?: 'block' | 'pass';
	durable?: boolean;
	owner?: string;
	docs_url?: string;
	job_events?: boolean;
	keep_completed?: string;
	keep_failed?: string;
	keep_completed_count?: number;
	keep_failed_count?: number;
}

export interface QueueSettings {
	/** null: none, also where there was one before. */
	limiter?: RateLimiter | null | undefined;
	settings?: AdvancedSettings | undefined;
	defaultJobOptions?: JobOptions | undefined;
	server?: ServerSettings | undefined;
}

export const queueOptions = ['limiter', 'settings', 'defaultJobOptions', 'server'] as const;

/** Of what finishes: Bull keeps all of it forever unless it is told otherwise. */
const KEPT_WITHOUT_A_WORD = 1000;

const interval = (milliseconds: number): string => `${milliseconds} milliseconds`;

/** null: none, whatever was set before. */
export function toServerSettings(options: QueueSettings): Record<string, SettingValue> {
	const { limiter, settings, defaultJobOptions: job = {}, server } = options;
	checkBullSettings('registerQueue', settings, limiter);
	const to: Record<string, SettingValue> = {
		max_attempts: job.attempts ?? 1,
		...keep('completed', job.removeOnComplete),
		...keep('failed', job.removeOnFail),
	};
	if (job.backoff === undefined) {
		to.backoff = 'fixed';
		to.backoff_delay = interval(0);
	} else {
		const backoff = typeof job.backoff === 'number' ? { type: 'fixed', delay: job.backoff } : job.backoff;
		// Bull's exponential is (2^n - 1) x delay; a strategy of one's own is asked when an attempt fails.
		to.backoff = backoff.type === 'exponential' ? 'bull' : 'fixed';
		to.backoff_delay = interval(backoff.delay ?? 0);
	}
	if (settings?.lockDuration !== undefined) {
		to.lease = interval(settings.lockDuration);
	}
	if (settings?.stalledInterval) {
		to.stalled_interval = interval(settings.stalledInterval);
	}
	if (settings?.maxStalledCount !== undefined) {
		to.max_stalled = settings.maxStalledCount;
	}
	if (limiter !== undefined) {
		to.rate_limit = to.rate_interval = to.group_rate_limit = to.group_rate_interval = null;
	}
	if (limiter) {
		const of = limiter.groupKey === undefined ? '' : 'group_';
		to[`${of}rate_limit`] = limiter.max;
		to[`${of}rate_interval`] = interval(limiter.duration);
	}
	return { ...to, ...(server as Record<string, SettingValue> | undefined) };
}

function keep(what: 'completed' | 'failed', remove: boolean | number | KeepJobsOptions | undefined): Record<string, SettingValue> {
	const age = `keep_${what}`;
	const count = `keep_${what}_count`;
	if (remove === undefined) {
		return {};
	}
	// What is not said now was perhaps said before.
	const kept: Record<string, SettingValue> = { [age]: null, [count]: null };
	if (remove === true || remove === 0) {
		return what === 'completed' ? kept : { ...kept, [age]: '1 second' };
	}
	if (remove === false) {
		return what === 'completed' ? { ...kept, [age]: '1000 years' } : kept;
	}
	if (typeof remove === 'number') {
		return { ...kept, [count]: remove };
	}
	return {
		...kept,
		...(remove.age === undefined ? {} : { [age]: `${remove.age} seconds` }),
		...(remove.count === undefined ? {} : { [count]: remove.count }),
	};
}

/** What the server calls its settings, and of which type they are. */
const TYPES: Record<string, string> = {
	lease: 'interval', stalled_interval: 'interval', max_stalled: 'int', max_attempts: 'int',
	backoff: 'text', backoff_delay: 'interval', backoff_max: 'interval', backoff_jitter: 'float8', backoff_intervals: 'interval[]',
	keep_completed: 'interval', keep_failed: 'interval', keep_completed_count: 'int', keep_failed_count: 'int',
	rate_limit: 'int', rate_interval: 'interval', max_concurrency: 'int',
	sla: 'interval', sla_target: 'float8', fair: 'boolean', durable: 'boolean', owner: 'text', docs_url: 'text', job_events: 'boolean',
	group_concurrency: 'int', group_rate_limit: 'int', group_rate_interval: 'interval', group_retry: 'text',
};

const sqlstateOf = (error: unknown): string | undefined =>
	(error as { sqlstate?: string }).sqlstate ?? (error as { code?: string }).code;

/**
 * Creates the queue if it is missing, and gives it the settings that differ. Several
 * instances may start at once. A role that may not is told only if the queue is missing.
 */
export async function ensureQueue(
	port: Port,
	name: string,
	options: QueueSettings,
	warn: (message: string) => void,
): Promise<void> {
	const wanted = toServerSettings(options);
	const names = Object.keys(wanted).filter((setting) => wanted[setting] !== null);
	const reset = Object.keys(wanted).filter((setting) => wanted[setting] === null);
	for (const setting of names) {
		if (TYPES[setting] === undefined) {
			throw new TypeError(
				`registerQueue "${name}": "${setting}" is no setting of a queue; there are ${Object.keys(TYPES).sort().join(', ')}`,
			);
		}
	}
	const args = (some: string[]) => some.map((setting, index) => `, ${setting} => $${index + 2}::text::${TYPES[setting]}`).join('');
	const values = (some: string[]) => some.map((setting) => wanted[setting]);
	const there = async (): Promise<boolean> =>
		(await port.query('SELECT 1 AS one FROM event_queue.queue WHERE name = $1::text', [name])).length > 0;
	if (!(await there())) {
		try {
			// Of an application that says nothing: one that says it is not to be overruled by another one's silence.
			const silent = options.defaultJobOptions?.removeOnComplete === undefined && !names.some((setting) => setting.startsWith('keep_completed'));
			await port.query(
				`SELECT event_queue.create_queue($1::text${args(names)}${silent ? `, keep_completed_count => ${KEPT_WITHOUT_A_WORD}` : ''})`,
				[name, ...values(names)],
			);
			return;
		} catch (error) {
			if (sqlstateOf(error) === '42501') {
				throw new Error(
					`queue "${name}" does not exist, and this role may not create it: ` +
						`an admin calls event_queue.create_queue('${name}'), or event_queue.grant_admin() for this role`,
					{ cause: error },
				);
			}
			if (sqlstateOf(error) !== 'EQ011') {
				throw error; // EQ011: another instance was quicker
			}
		}
	}
	const [row] = await port.query<{ differ: Record<string, boolean> }>(
		`SELECT jsonb_build_object(${[
			...names.map((s, index) => `'${s}', q.${s} IS DISTINCT FROM $${index + 2}::text::${TYPES[s]}`),
			...reset.map((s) => `'${s}', q.${s} IS NOT NULL`),
		].join(', ')}) AS differ
		FROM event_queue.queue q WHERE q.name = $1::text`,
		[name, ...values(names)],
	);
	const changed = names.filter((setting) => row?.differ[setting]);
	const cleared = reset.filter((setting) => row?.differ[setting]);
	if (changed.length + cleared.length === 0) {
		return;
	}
	try {
		await port.query(
			`SELECT event_queue.alter_queue($1::text${args(changed)}, reset => $${changed.length + 2}::text::text[])`,
			[name, ...values(changed), cleared.length === 0 ? null : cleared],
		);
	} catch (error) {
		if (sqlstateOf(error) !== '42501') {
			throw error;
		}
		warn(`queue "${name}" has another ${[...changed, ...cleared].join(', ')} than registerQueue says, and this role may not change it`);
	}
}

/**
 * A limiter that is no longer said holds on: another instance, or an admin, may mean it, and what it protects is
 * not ours. In Bull it is that of the process that works, so this one is told.
 */
export async function tellOfLimit(port: Port, name: string, { limiter, server }: QueueSettings, warn: (message: string) => void): Promise<void> {
	if (limiter !== undefined || server?.group_rate_limit !== undefined) {
		return;
	}
	const [row] = await port.query<{ max: number; duration: number; of: string }>(
		`SELECT coalesce(q.rate_limit, q.group_rate_limit) AS max, (extract(epoch FROM coalesce(q.rate_interval, q.group_rate_interval)) * 1000)::float8 AS duration,
			CASE WHEN q.rate_limit IS NULL THEN ' of each group' ELSE '' END AS of
		FROM event_queue.queue q WHERE q.name = $1::text AND (q.rate_limit IS NOT NULL OR q.group_rate_limit IS NOT NULL)`,
		[name],
	);
	if (row !== undefined) {
		warn(`queue "${name}" begins at most ${row.max} jobs${row.of} in ${row.duration} ms, by a limiter that registerQueue does not name: ` +
			'give limiter: null to end it, or name it');
	}
}
