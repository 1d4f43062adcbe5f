// Each call, event and type that the table of NESTJS.md has as there, as Bull's users write them; never run.
import Bull from 'bull';
import type { CompletedEventCallback, DoneCallback, FailedEventCallback, Job, JobCounts, JobId, JobInformation, JobStatus, ProcessPromiseFunction, Queue } from 'bull';
import { type BullModuleAsyncOptions, BullQueueEvents, BullQueueGlobalEvents, OnQueueEvent, type SharedBullAsyncConfiguration } from '@nestjs/bull';

interface X {
	to: string;
}

export async function use(q: Queue<X>, j: Job<X>): Promise<void> {
	const a: Job<X> = await q.add({ to: 'x' });
	await q.add({ to: 'x' }, { delay: 5, jobId: 7, removeOnComplete: { age: 5, count: 3 }, removeOnFail: 5, backoff: { type: 'x', options: {} }, repeat: { cron: '* * * * *', tz: 'x', endDate: 5, limit: 5, count: 2, startDate: 'x' }, stackTraceLimit: 5, timeout: 5, lifo: false, preventParsingData: false, debounce: { id: 'x', ttl: 5 }, priority: 5, attempts: 3 });
	await q.add('n', { to: 'x' }, { repeat: { every: 5, limit: 3, key: 'x' } });
	const bl: Job<X>[] = await q.addBulk([{ name: 'x', data: { to: 'x' }, opts: { delay: 5 } }, { data: { to: 'y' } }]);
	await q.pause();
	await q.pause(true);
	await q.pause(true, true);
	await q.resume(true);
	const p: boolean = await q.isPaused(true);
	const n: number = await q.count();
	await q.empty();
	await q.close(true);
	await q.close();
	const g: Job<X> | null = await q.getJob('5');
	await q.getJob(5);
	await q.getWaiting(0, 5);
	await q.getActive();
	await q.getDelayed();
	await q.getCompleted();
	await q.getFailed();
	const ji: JobInformation[] = await q.getRepeatableJobs(0, 5, true);
	await q.removeRepeatable({ cron: 'x' });
	await q.removeRepeatable('n', { every: 5, jobId: 5 });
	await q.removeRepeatableByKey('x');
	await q.getJobs(['waiting', 'paused'], 0, 5, true);
	const nj: Job<X> | undefined = await q.getNextJob();
	const l: { logs: string[]; count: number } = await q.getJobLogs(5, 0, 5);
	const jc: JobCounts = await q.getJobCounts();
	await q.getJobCountByTypes('waiting');
	await q.getJobCountByTypes(['waiting']);
	await q.getCompletedCount();
	await q.getFailedCount();
	await q.getDelayedCount();
	await q.getWaitingCount();
	await q.getPausedCount();
	await q.getActiveCount();
	await q.getRepeatableCount();
	const cl: Job<X>[] = await q.clean(5);
	await q.clean(5, 'wait', 5);
	await q.obliterate();
	await q.obliterate({ force: true });
	const r: Queue<X> = await q.isReady();
	const w: { [i: string]: string }[] = await q.getWorkers();
	await q.whenCurrentJobsFinished();
	await q.removeJobs('x*');
	const q2: Queue<X> = q.on('error', (e: Error) => e).on('waiting', (id: JobId) => id).on('active', (job: Job<X>) => job).on('stalled', (job: Job<X>) => job).on('progress', (job: Job<X>, v: number) => v).on('completed', (job: Job<X>, r: any) => r).on('failed', (job: Job<X>, e: Error) => e).on('paused', () => 0).on('cleaned', (jobs: Job<X>[], t: string) => t).on('drained', () => 0).on('removed', (job: Job<X>) => 0).once('completed', () => 0);
	const id: JobId = j.id;
	const d: X = j.data;
	j.opts.attempts;
	j.attemptsMade + 1;
	j.processedOn;
	j.finishedOn;
	const jq: Queue<X> = j.queue;
	j.timestamp + 1;
	j.name.length;
	j.stacktrace.length;
	j.returnvalue;
	j.failedReason;
	const pr = j.progress();
	await j.progress(5);
	await j.log('x');
	const b1: boolean = await j.isCompleted();
	await j.isFailed();
	await j.isDelayed();
	await j.isActive();
	await j.isWaiting();
	await j.isPaused();
	await j.isStuck();
	const st: JobStatus | 'stuck' = await j.getState();
	await j.update({ to: 'x' });
	await j.remove();
	await j.retry();
	await j.discard();
	await j.finished();
	const mc: [any, JobId | null] | null = await j.moveToCompleted('x', true, true);
	const mf: [any, JobId | null] | null = await j.moveToFailed({ message: 'x' }, true);
	await j.promote();
	j.lockKey();
	await j.releaseLock();
	const tl: number | false = await j.takeLock();
	const el: number = await j.extendLock(5);
	const js = j.toJSON(); js.delay + 1; js.progress;
}

export const asNamespace = (queue: Bull.Queue<X>, job: Bull.Job<X>, options: Bull.JobOptions): unknown[] => [queue.name, job.id, options.delay];
export const callbacks: [CompletedEventCallback<X>, FailedEventCallback<X>, ProcessPromiseFunction<X>, DoneCallback] = [
	(job, result) => [job.data.to, result],
	(job, error) => [job.data.to, error.message],
	async (job) => void job.data.to,
	() => undefined,
];

export class Listener {
	@OnQueueEvent(BullQueueEvents.COMPLETED) completed(job: Job<X>): JobId {
		return job.id;
	}

	@OnQueueEvent({ eventName: BullQueueEvents.FAILED, name: 'x' }) failed(): void {}

	@OnQueueEvent(BullQueueGlobalEvents.STALLED) stalled(): void {}
}

export const later: [SharedBullAsyncConfiguration, BullModuleAsyncOptions] = [
	{ useFactory: () => ({}), extraProviders: [] },
	{ name: 'x', useFactory: () => ({ limiter: { max: 5, duration: 5, bounceBack: false }, settings: { lockDuration: 5000 } }), inject: [] },
];
