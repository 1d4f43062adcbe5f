import { Process, Processor } from '@nestjs/bull';
import { Job } from 'bull';
import { ReportOrder } from './mail.types';
import { Outbox } from './outbox';

@Processor({ name: 'reports' })
export class ReportsProcessor {
	constructor(private readonly outbox: Outbox) {}

	@Process({ concurrency: 2 })
	async report(job: Job<ReportOrder>): Promise<number> {
		await this.outbox.send('report', job.data.month);
		return job.data.pages;
	}
}
