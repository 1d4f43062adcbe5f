/* A small API as @nestjs/bull's users write it: a lead is a job, which makes two tasks of it by two
 * more.  api.js runs it with these imports, and with ours. */
import { BullModule, InjectQueue, Process, Processor } from '@nestjs/bull';
import { Body, Controller, Get, HttpCode, Module, Post } from '@nestjs/common';
import type { Job, Queue } from 'bull';

const begun = new Map<number, number>();
const open = new Map<number, number>();
const lags: number[] = [];

@Controller()
export class LeadsController {
	constructor(@InjectQueue('leads') private readonly leads: Queue) {}

	@Post('leads')
	@HttpCode(201)
	async create(@Body() lead: { n: number }): Promise<{ id: string }> {
		begun.set(lead.n, performance.now());
		open.set(lead.n, 2);
		const job = await this.leads.add('created', lead, { attempts: 3, backoff: 1000, removeOnComplete: true });
		return { id: String(job.id) };
	}

	/** From a lead's call to its last task, in ms. */
	@Get('lags')
	all(): number[] {
		return lags;
	}
}

@Processor('leads')
export class LeadsProcessor {
	constructor(@InjectQueue('tasks') private readonly tasks: Queue) {}

	@Process({ name: 'created', concurrency: 5 })
	async created(job: Job<{ n: number }>): Promise<void> {
		await Promise.all(['call', 'write'].map((title) => this.tasks.add('make', { n: job.data.n, title }, { removeOnComplete: true })));
	}
}

@Processor('tasks')
export class TasksProcessor {
	@Process({ name: 'make', concurrency: 5 })
	async make(job: Job<{ n: number }>): Promise<void> {
		const { n } = job.data;
		const left = (open.get(n) ?? 1) - 1;
		open.set(n, left);
		if (left === 0) {
			lags.push(performance.now() - (begun.get(n) ?? 0));
		}
	}
}

@Module({
	imports: [
		BullModule.forRootAsync({ useFactory: () => ({ redis: { path: process.env.REDIS_SOCKET } }) }),
		BullModule.registerQueue(
			{ name: 'leads', defaultJobOptions: { removeOnComplete: true } },
			{ name: 'tasks', defaultJobOptions: { removeOnComplete: true } },
		),
	],
	controllers: [LeadsController],
	providers: [LeadsProcessor, TasksProcessor],
})
export class AppModule {}
