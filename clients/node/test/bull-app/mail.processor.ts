import {
	InjectQueue,
	OnGlobalQueueCompleted,
	OnQueueActive,
	OnQueueCompleted,
	OnQueueDrained,
	OnQueueError,
	OnQueueEvent,
	OnQueueFailed,
	OnQueueProgress,
	OnQueueStalled,
	OnQueueWaiting,
	Process,
	Processor,
} from '@nestjs/bull';
import { DoneCallback, Job, JobId, Queue } from 'bull';
import { WelcomeMail } from './mail.types';
import { Outbox } from './outbox';

@Processor('mail')
export class MailProcessor {
	constructor(
		private readonly outbox: Outbox,
		@InjectQueue('reports') private readonly reports: Queue,
	) {}

	@Process('welcome')
	async welcome(job: Job<WelcomeMail>): Promise<{ answer: string; attempt: number }> {
		await job.progress(10);
		const answer = await this.outbox.send('welcome', job.data.to);
		await job.log(`attempt ${job.attemptsMade + 1}`);
		await job.progress(100);
		return { answer, attempt: job.attemptsMade + 1 };
	}

	@Process({ name: 'digest', concurrency: 3 })
	async digest(job: Job<WelcomeMail>): Promise<string> {
		return this.outbox.send('digest', job.data.to);
	}

	@Process('letter')
	letter(job: Job<WelcomeMail>, done: DoneCallback): void {
		this.outbox.send('letter', job.data.to).then(
			(answer) => done(null, answer),
			(error: Error) => done(error),
		);
	}

	@Process('*')
	async other(job: Job): Promise<void> {
		await this.outbox.send(job.name, String(job.data.to));
		await this.reports.add({ month: '2026-11', pages: 1 });
	}

	@OnQueueActive()
	onActive(job: Job): void {
		this.outbox.heard.push(`active ${job.name}`);
	}

	@OnQueueProgress()
	onProgress(job: Job, progress: number): void {
		this.outbox.heard.push(`progress ${job.name} ${progress}`);
	}

	@OnQueueCompleted()
	onCompleted(job: Job, result: unknown): void {
		this.outbox.heard.push(`completed ${job.name} ${JSON.stringify(result)}`);
	}

	@OnQueueCompleted({ name: 'digest' })
	onDigest(job: Job): void {
		this.outbox.heard.push(`digest of ${job.data.to} completed`);
	}

	@OnQueueFailed()
	onFailed(job: Job, error: Error): void {
		this.outbox.heard.push(`failed ${job.name} ${job.attemptsMade} of ${job.opts.attempts}: ${error.message}`);
	}

	@OnQueueStalled()
	onStalled(job: Job): void {
		this.outbox.heard.push(`stalled ${job.id}`);
	}

	@OnQueueError()
	onError(error: Error): void {
		this.outbox.heard.push(`error ${error.message}`);
	}

	@OnQueueWaiting()
	onWaiting(_id: JobId): void {
		this.outbox.heard.push('waiting');
	}

	@OnQueueDrained()
	onDrained(): void {
		this.outbox.heard.push('drained');
	}

	@OnQueueEvent('paused')
	onPaused(): void {
		this.outbox.heard.push('paused');
	}

	@OnGlobalQueueCompleted()
	onGlobalCompleted(id: JobId, result: string): void {
		this.outbox.heard.push(`global completed ${typeof id} ${typeof result}`);
	}
}
