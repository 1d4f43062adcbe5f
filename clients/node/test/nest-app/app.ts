import { Controller, Get, Inject, Injectable, Module, OnModuleDestroy, Scope } from '@nestjs/common';
import type { ClientBase } from 'pg';
import { HealthCheck, HealthCheckService, TerminusModule } from '@nestjs/terminus';
import {
	currentTransaction,
	emit,
	event,
	EventQueueHealthIndicator,
	EventQueueHealthModule,
	EventQueueMetricsModule,
	EventQueueModule,
	EventQueueService,
	EventSourced,
	InjectEventQueue,
	InjectQueue,
	Job,
	JOB_REF,
	OnEvent,
	OnGlobalQueueCompleted,
	OnGlobalQueueFailed,
	OnWorkerEvent,
	Process,
	Processor,
	Queue,
	WorkerHost,
} from 'pg-event-queue/nestjs';

@Injectable()
export class Settings {
	concurrency = 2;
	lines: string[] = [];
	running = 0;
	most = 0;
	open = true;
}

@Module({ providers: [Settings], exports: [Settings] })
export class SettingsModule {}

@Injectable()
export class Database implements OnModuleDestroy {
	closed = false;

	onModuleDestroy(): void {
		this.closed = true;
	}
}

@Processor('work')
export class WorkProcessor {
	constructor(
		private readonly settings: Settings,
		private readonly database: Database,
		@InjectQueue('follow') private readonly follow: Queue,
	) {}

	@Process({ name: 'counted', concurrency: async () => 2 })
	async counted(): Promise<void> {
		this.settings.running++;
		this.settings.most = Math.max(this.settings.most, this.settings.running);
		await new Promise((resolve) => setTimeout(resolve, 20));
		this.settings.running--;
	}

	@Process('slow')
	async slow(job: Job): Promise<void> {
		this.settings.lines.push('slow begins');
		while (this.settings.open) {
			await new Promise((resolve) => setTimeout(resolve, 10));
		}
		await this.follow.add('from slow', { of: job.jobId });
		this.settings.lines.push(`slow ends, database ${this.database.closed ? 'closed' : 'open'}`);
	}

	@Process('broken')
	async broken(): Promise<void> {
		throw new Error('broken');
	}
}

/** The shape of @nestjs/bullmq. */
@Processor('follow', { concurrency: 3 })
export class FollowProcessor extends WorkerHost {
	constructor(private readonly settings: Settings) {
		super();
	}

	async process(job: Job): Promise<string> {
		this.settings.lines.push(`${job.name} is processed`);
		return 'followed';
	}

	@OnWorkerEvent('completed')
	completed(job: Job, result: string): void {
		this.settings.lines.push(`${job.name} is ${result}`);
	}
}

@Processor({ name: 'scoped', scope: Scope.REQUEST })
export class ScopedProcessor {
	constructor(
		@Inject(JOB_REF) private readonly job: Job,
		private readonly settings: Settings,
	) {}

	@Process()
	async run(job: Job): Promise<void> {
		this.settings.lines.push(`request of ${this.job.id === job.id ? 'its own job' : 'another job'}`);
	}
}

/** Its jobs are done elsewhere. */
@Processor('elsewhere')
export class Elsewhere {
	constructor(private readonly settings: Settings) {}

	@OnGlobalQueueCompleted()
	completed(id: string, result: string): void {
		this.settings.lines.push(`elsewhere completed ${typeof id} ${JSON.stringify(JSON.parse(result))}`);
	}

	@OnGlobalQueueFailed()
	failed(id: string, message: string): void {
		this.settings.lines.push(`elsewhere failed ${typeof id} ${message}`);
	}
}

@Injectable()
export class Leads {
	constructor(
		@InjectEventQueue() private readonly events: EventQueueService,
		@InjectQueue('follow') private readonly follow: Queue,
		private readonly settings: Settings,
	) {}

	private write(id: string, step: number): Promise<unknown> {
		return currentTransaction<ClientBase>()!.query('INSERT INTO lead VALUES ($1, $2)', [id, step]);
	}

	@EventSourced('Lead')
	async create(id: string, step: number) {
		await this.write(id, step);
		await this.follow.add('lead', { id });
		emit('lead.called', { by: 'phone' });
		return event('lead.created', { step });
	}

	@EventSourced('Lead', { id: (lead: { code: string }) => lead.code, expectedVersion: (_lead, version: number) => version })
	async move(lead: { code: string; step: number }, _version: number) {
		await this.write(lead.code, lead.step);
		return [event('lead.moved', { step: lead.step })];
	}

	@EventSourced('Lead')
	async fail(id: string) {
		await this.write(id, 0);
		await this.follow.add('never', {});
		emit('lead.failed');
		throw new Error(`in a transaction: ${currentTransaction() !== undefined}`);
	}

	/** Two aggregates, one transaction. */
	async both(first: string, second: string) {
		await this.events.transaction(async () => {
			await this.create(first, 1);
			await this.fail(second);
		});
	}

	@OnEvent('lead.**', { subscription: 'leads', from: 'start' })
	async onLead(one: { eventType: string; aggregateId: string; data: Record<string, unknown> }): Promise<void> {
		this.settings.lines.push(`event ${one.eventType} of ${one.aggregateId} ${JSON.stringify(one.data)}`);
	}
}

@Controller('ready')
export class ReadyController {
	constructor(
		private readonly health: HealthCheckService,
		private readonly queues: EventQueueHealthIndicator,
	) {}

	@Get()
	@HealthCheck()
	ready() {
		return this.health.check([() => this.queues.isHealthy('queues', { queues: ['work'] })]);
	}
}

@Module({
	imports: [
		EventQueueModule.forRootAsync({
			imports: [SettingsModule],
			inject: [Settings],
			useFactory: (_settings: Settings) => ({ shutdownTimeout: 60000 }),
		}),
		EventQueueModule.registerQueue(
			{
				name: 'work',
				server: { sla: '1 minute', owner: 'ana' },
				settings: { backoffStrategies: { patient: (_attempts, _error, options) => options.hours * 3600000 } },
			},
			{ name: 'elsewhere' },
			{ name: 'follow', limiter: { max: 1000, duration: 1000, groupKey: 'contact.phone' } },
			{ name: 'scoped' },
		),
		EventQueueMetricsModule.register(),
		EventQueueHealthModule.register(),
		TerminusModule.forRoot({ logger: false }),
		SettingsModule,
	],
	controllers: [ReadyController],
	providers: [WorkProcessor, FollowProcessor, ScopedProcessor, Elsewhere, Leads, Database],
})
export class AppModule {}
