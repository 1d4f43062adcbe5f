import { InjectQueue } from '@nestjs/bull';
import { Injectable, OnModuleInit } from '@nestjs/common';
import { Job, JobCounts, JobOptions, Queue } from 'bull';
import { ReportOrder, WelcomeMail } from './mail.types';
import { Outbox } from './outbox';

const patient: JobOptions = {
	attempts: 3,
	backoff: { type: 'fixed', delay: 50 },
	removeOnComplete: true,
};

@Injectable()
export class MailService implements OnModuleInit {
	constructor(
		@InjectQueue('mail') private readonly mail: Queue<WelcomeMail>,
		@InjectQueue('reports') private readonly reports: Queue<ReportOrder>,
		private readonly outbox: Outbox,
	) {}

	onModuleInit(): void {
		this.reports.on('completed', (job: Job<ReportOrder>, pages: number) => {
			this.outbox.heard.push(`report ${job.data.month} has ${pages} pages`);
		});
		this.reports.on('failed', (_job: Job<ReportOrder>, error: Error) => {
			this.outbox.heard.push(`report failed: ${error.message}`);
		});
	}

	async welcome(to: string, options: JobOptions = {}): Promise<Job<WelcomeMail>> {
		return this.mail.add('welcome', { to }, { ...patient, ...options });
	}

	async digests(to: string[]): Promise<Job<WelcomeMail>[]> {
		return this.mail.addBulk(to.map((each) => ({ name: 'digest', data: { to: each }, opts: { priority: 1 } })));
	}

	async letter(to: string): Promise<string> {
		const job = await this.mail.add('letter', { to }, { attempts: 1, delay: 10 });
		return job.finished();
	}

	async other(name: string, to: string): Promise<Job<WelcomeMail>> {
		return this.mail.add(name, { to }, { lifo: false, timeout: 5000 });
	}

	async once(to: string): Promise<Job<WelcomeMail>[]> {
		const options: JobOptions = { jobId: `welcome:${to}`, delay: 60000 };
		return [await this.mail.add('welcome', { to }, options), await this.mail.add('welcome', { to }, options)];
	}

	async nightly(): Promise<void> {
		await this.reports.add({ month: 'last', pages: 10 }, { repeat: { cron: '0 3 * * *', tz: 'America/Sao_Paulo' } });
	}

	async counts(): Promise<JobCounts> {
		return this.mail.getJobCounts();
	}

	async failed(): Promise<{ id: string; reason: string | undefined; attempts: number }[]> {
		const jobs = await this.mail.getFailed(0, 99);
		return jobs.map((job) => ({ id: String(job.id), reason: job.failedReason, attempts: job.attemptsMade }));
	}

	async retry(id: string): Promise<boolean> {
		const job = await this.mail.getJob(id);
		if (job === null || !(await job.isFailed())) {
			return false;
		}
		await job.retry();
		return true;
	}

	async remove(id: string): Promise<boolean> {
		const job = await this.mail.getJob(id);
		await job?.remove();
		return job !== null;
	}

	async pause(): Promise<boolean> {
		await this.mail.pause();
		return this.mail.isPaused();
	}

	async resume(): Promise<boolean> {
		await this.mail.resume();
		return this.mail.isPaused();
	}
}
