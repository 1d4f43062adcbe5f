/*
 * verdict.ts: what the error of a processor means for its job: whether and when it is tried
 * again, and what is kept of it.  For worker.ts.
 */
import { inspect } from 'node:util';
import { DelayedError, JobCancelledError, RateLimitError, RetryAfterError, UnrecoverableError, UnsupportedOptionError } from './errors';
import type { Job } from './job';
import { withoutNul } from './json';
import type { AdvancedSettings, BackoffOptions } from './options';

/** 100 years, in ms: the server takes no longer one. */
const longestWait = 100 * 365 * 86_400_000;

/* An Error's message may be anything, too. */
export const messageOf = (error: Error): string => {
	const message: unknown = error.message || error.name || 'failed';
	return typeof message === 'string' ? message : inspect(message, { breakLength: Infinity });
};

/** given back, uncounted, for a time; or failed, and for how long if not as the queue says. */
export type Verdict = { release: number } | { final: boolean; retryAfter?: number };

/** report: for what the error or the application's settings say that can't be meant. */
export function judge(job: Job, error: Error, strategies: AdvancedSettings['backoffStrategies'], report: (error: unknown) => void): Verdict {
	const waitOf = (ms: unknown): number => {
		const wait = Number(ms);
		if (!Number.isNaN(wait))
			return Math.min(Math.max(0, wait), longestWait);
		report(new UnsupportedOptionError(`job ${job.id}: the wait of its ${error.name} is ${String(ms)}, not a number of ms; 1000 holds`));
		return 1000;
	};

	if (error instanceof RateLimitError)
		return { release: waitOf(error.retryAfter) };
	if (error instanceof DelayedError)
		return { release: waitOf(error.delay ?? (job.delayedUntil ?? Date.now()) - Date.now()) };
	return {
		final: error instanceof UnrecoverableError || job.discarded || job.signal.reason instanceof JobCancelledError,
		retryAfter: error instanceof RetryAfterError ? waitOf(error.retryAfter) : customBackoff(job, error, strategies ?? {}, report),
	};
}

function customBackoff(job: Job, error: Error, strategies: NonNullable<AdvancedSettings['backoffStrategies']>, report: (error: unknown) => void): number | undefined {
	const backoff = job.opts.backoff as BackoffOptions | undefined;
	if (typeof backoff !== 'object' || backoff === null)
		return undefined;
	const strategy = Object.hasOwn(strategies, backoff.type) ? strategies[backoff.type] : undefined;
	if (typeof strategy !== 'function') {
		report(new UnsupportedOptionError(`job ${job.id}: there is no backoff strategy "${backoff.type}"; the queue's backoff holds`));
		return undefined;
	}
	try {
		const wait = strategy(job.attemptsMade + 1, error, backoff.options);
		if (Number.isFinite(wait))
			return Math.min(Math.max(0, wait), longestWait);
		throw new UnsupportedOptionError(`backoff strategy "${backoff.type}" gives ${wait}, not a number of ms`);
	} catch (thrown) {
		report(thrown);
		return undefined;
	}
}

/** What the failure keeps: message, SQLSTATE, lines of the stack. */
export function recordOf(job: Job, error: Error): [message: string, sqlstate: string | null, context: string | null] {
	const stack = String(error.stack ?? '').split('\n').slice(1, 1 + (job.opts.stackTraceLimit ?? 20)).join('\n');
	const code = (error as any).sqlstate ?? (error as any).code;
	return [withoutNul(messageOf(error)), typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : null, withoutNul(stack) || null];
}
