import type { Job } from './job';
import type { Queue } from './queue';
import type { EventQueueService } from './service';

const LOOK_EVERY = 1000;
/** Rows that commit late have an earlier time: so far back is looked again, and what was told is not told twice. */
const OVERLAP = "interval '30 seconds'";
const REMEMBERED = 20000;

/** Event and job, and when it was, where that is known. */
type Told = Map<string, string | null>;

/**
 * `global:` events: what workers of this process do is told at once; what others have
 * completed, or have failed for good, within a second, from the history and the dead letters.
 */
export class GlobalEvents {
	/** looked: what was there when it was first watched is no news. */
	private readonly queues = new Map<string, { queue: Queue; told: Told; looked: boolean }>();
	private timer?: NodeJS.Timeout | undefined;
	private since: Date | undefined;
	private started = false;
	private stopped = false;

	constructor(private readonly service: EventQueueService) {}

	watch(queue: Queue): void {
		if (this.queues.has(queue.name)) {
			return;
		}
		const told: Told = new Map();
		this.queues.set(queue.name, { queue, told, looked: false });
		queue.on('completed', (job: Job, result: unknown) => this.tell(queue, told, 'completed', job.jobId, job.id, result));
		queue.on('failed', (job: Job, error: Error, final?: boolean) => {
			// As in Bull: those that will be tried again are told by the queue's own event only.
			if (final === true) {
				this.tell(queue, told, 'failed', job.jobId, job.id, error.message);
			}
		});
		queue.on('progress', (job: Job, progress: unknown) => queue.emit('global:progress', job.id, progress));
		queue.on('removed', (job: Job) => queue.emit('global:removed', job));
		queue.on('active', (job: Job) => {
			told.delete(`failed ${job.jobId}`);
			queue.emit('global:active', job.id);
		});
		queue.on('stalled', (job: Job) => queue.emit('global:stalled', job.id));
		for (const event of ['waiting', 'paused', 'resumed', 'drained', 'error', 'cleaned']) {
			queue.on(event, (...args: unknown[]) => queue.emit(`global:${event}`, ...args));
		}
		if (this.started && !this.stopped && this.queues.size === 1) {
			this.plan(0);
		}
	}

	private tell(queue: Queue, told: Told, event: string, jobId: string, id: unknown, value: unknown, at: string | null = null): void {
		const key = `${event} ${jobId}`;
		const before = told.get(key);
		told.set(key, at ?? before ?? null);
		// One that was retried may fail once more, at another time.
		if (before !== undefined && (before === null || at === null || before === at)) {
			return;
		}
		if (told.size > REMEMBERED) {
			told.delete(told.keys().next().value as string);
		}
		// Bull tells what came through Redis: ids and results as text.
		queue.emit(`global:${event}`, String(id), event === 'completed' ? (JSON.stringify(value) ?? 'null') : value);
	}

	start(): void {
		this.started = true;
		if (this.queues.size > 0 && !this.stopped) {
			this.plan(0);
		}
	}

	stop(): void {
		this.stopped = true;
		clearTimeout(this.timer);
	}

	private plan(wait: number): void {
		this.timer = setTimeout(() => {
			this.look()
				.catch(() => undefined) // the server is away: later
				.finally(() => {
					if (!this.stopped) {
						this.plan(LOOK_EVERY);
					}
				});
		}, wait);
		this.timer.unref();
	}

	private async look(): Promise<void> {
		const watched = new Map(this.queues);
		const rows = await this.service.query<{
			event: string; queue: string; job_id: string; id: string | null; at: string | null; value: unknown; now: Date;
		}>(
			`WITH t AS (SELECT coalesce($2::text::timestamptz, now()) - ${OVERLAP} AS since)
			 SELECT 'completed' AS event, h.queue, h.job_id::text, h.metadata #>> '{opts,jobId}' AS id, h.completed_at::text AS at, h.result AS value, now() AS now
			 FROM event_queue.history h, t WHERE h.queue = ANY ($1::text::text[]) AND h.completed_at > t.since
			 UNION ALL
			 SELECT 'failed', d.queue, d.job_id::text, d.metadata #>> '{opts,jobId}', d.died_at::text, to_jsonb(d.last_error), now()
			 FROM event_queue.dead_letters d, t WHERE d.queue = ANY ($1::text::text[]) AND d.died_at > t.since
			 UNION ALL SELECT 'now', NULL, NULL, NULL, NULL, NULL, now()`,
			[[...watched.keys()], this.since?.toISOString() ?? null],
		);
		for (const row of rows) {
			this.since = new Date(row.now);
			const one = watched.get(row.queue);
			if (one === undefined) {
				continue;
			}
			if (!one.looked && !one.told.has(`${row.event} ${row.job_id}`)) {
				one.told.set(`${row.event} ${row.job_id}`, row.at);
			} else {
				this.tell(one.queue, one.told, row.event, row.job_id, row.id ?? row.job_id, row.value, row.at);
			}
		}
		for (const one of watched.values()) {
			one.looked = true;
		}
	}
}
