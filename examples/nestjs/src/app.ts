/* Ianara's API on the SQL of examples/erp: what a lead causes is done by rules and handlers in
 * the database, what speaks to others by processors here, and notifications follow a subscription. */
import { Body, Controller, Get, HttpCode, Injectable, Module, NotFoundException, OnApplicationShutdown, Param, Patch, Post } from '@nestjs/common';
import { Pool } from 'pg';
import { toPrimary } from 'pg-event-queue';
import {
	EventQueueHealthModule,
	EventQueueMetricsModule,
	EventQueueModule,
	InjectQueue,
	Job,
	OnEvent,
	Process,
	Processor,
	Queue,
	RateLimitError,
	StoredEvent,
} from 'pg-event-queue/nestjs';

@Injectable()
export class Database extends Pool implements OnApplicationShutdown {
	constructor() {
		// Connections stay: the first calls of a new one, which has to load and compile all, take ten times as long.
		// Of several servers in DATABASE_URL they go to the primary.
		super(toPrimary({ connectionString: process.env.DATABASE_URL, idleTimeoutMillis: 0 }));
		// An idle connection that breaks, as when the server restarts, must not end the process.
		this.on('error', (error) => console.error(`database: ${error.message}`));
	}

	onApplicationShutdown(): Promise<void> {
		return this.end();
	}
}

/* A call writes the lead and its event in one transaction; the rest follows by rules. */

@Controller('crm')
export class CrmController {
	constructor(private readonly database: Database) {}

	@Post('leads')
	async create(@Body() lead: { companyId: string; name: string; phone?: string; source: string; value: number }) {
		const { rows } = await this.database.query('SELECT ianara.create_lead($1, $2, $3, $4, $5) AS id', [
			lead.companyId, lead.name, lead.phone ?? null, lead.source, lead.value]);
		return { id: rows[0].id };
	}

	@Patch('leads/:id')
	patch(@Param('id') id: string, @Body() body: { stepId: number }) {
		return this.move(id, body);
	}

	@Post('leads/:id/move')
	@HttpCode(200)
	async move(@Param('id') id: string, @Body() body: { stepId: number }) {
		await this.database.query('SELECT ianara.move_lead($1, $2)', [id, body.stepId]);
		return { id, stepId: body.stepId };
	}

	@Post('tasks/:id/complete')
	@HttpCode(200)
	async complete(@Param('id') id: string, @Body() body: { userId: string }) {
		await this.database.query('SELECT ianara.complete_task($1, $2)', [id, body.userId]);
		return { id };
	}
}

export interface Message {
	phone: string;
	body: string;
}

/** The provider at PROVIDER_URL; without that, one that fails, and answers 429, when it is told to. */
@Injectable()
export class Provider {
	readonly sent: string[] = [];
	readonly answers = new Map<string, ('fail' | '429')[]>();

	async send(message: Message): Promise<string> {
		if (process.env.PROVIDER_URL !== undefined) {
			const response = await fetch(process.env.PROVIDER_URL, { method: 'POST', body: JSON.stringify(message) });
			if (response.status === 429) {
				throw new RateLimitError(1000 * Number(response.headers.get('retry-after') ?? 1), 'job');
			}
			if (!response.ok) {
				throw new Error(`the provider answers ${response.status}`);
			}
			return response.text();
		}
		const answer = this.answers.get(message.phone)?.shift();
		if (answer === '429') {
			throw new RateLimitError(200, 'job');
		}
		if (answer === 'fail') {
			throw new Error('the provider does not answer');
		}
		this.sent.push(`${message.phone}: ${message.body}`);
		return `wa-${this.sent.length}`;
	}
}

@Controller('whatsapp')
export class WhatsappController {
	constructor(@InjectQueue('whatsapp') private readonly whatsapp: Queue<Message>) {}

	/** Ordered for each contact; the answer does not wait for the provider. */
	@Post('send-message')
	@HttpCode(202)
	async send(@Body() message: Message) {
		const job = await this.whatsapp.add('send', message, { groupKey: message.phone });
		return { id: job.jobId, status: 'queued' };
	}
}

@Processor('whatsapp')
export class WhatsappProcessor {
	constructor(private readonly provider: Provider) {}

	@Process({ name: 'send', concurrency: 5 })
	async send(job: Job<Message>): Promise<{ providerId: string }> {
		return { providerId: await this.provider.send(job.data) };
	}
}

export type Channel = 'email' | 'push' | 'sms';

interface Notice {
	userId: string;
	text: string;
}

/** Who wants to be told how; a table in a real application. */
@Injectable()
export class Preferences {
	private readonly channels = new Map<string, Channel[]>();

	set(userId: string, channels: Channel[]): void {
		this.channels.set(userId, channels);
	}

	of(userId: string): Channel[] {
		return this.channels.get(userId) ?? ['email'];
	}
}

const templates = new Map<string, (event: StoredEvent) => string>(Object.entries({
	'task.completed': (event: StoredEvent) => `Task ${event.aggregateId} is done`,
	'task.expired': (event: StoredEvent) => `Task ${event.aggregateId} has expired`,
	'lead.lost': (event: StoredEvent) => `Lead ${event.aggregateId} is lost`,
	'payment.received': (event: StoredEvent) => `Payment of ${event.data.amount} received`,
}));

/** A subscription: no event is missed, also while no process of this API is up. */
@Injectable()
export class Notifications {
	constructor(
		@InjectQueue('notify') private readonly queue: Queue<Notice>,
		private readonly database: Database,
		private readonly preferences: Preferences,
	) {}

	@OnEvent('**', { subscription: 'notifications' })
	async onEvent(event: StoredEvent): Promise<void> {
		const text = templates.get(event.eventType)?.(event);
		if (text === undefined) {
			return;
		}
		const { rows } = await this.database.query('SELECT user_id FROM ianara.app_user WHERE company_id = $1', [event.tenantId]);
		const jobs = rows.flatMap(({ user_id: userId }: { user_id: string }) =>
			this.preferences.of(userId).map((channel) => ({ name: channel, data: { userId, text } })));
		// In the transaction that moves the checkpoint: once, whatever fails.
		await this.queue.addBulk(jobs);
	}
}

@Processor('notify')
export class NotifyProcessor {
	readonly told: string[] = [];

	@Process('email')
	async email(job: Job<Notice>): Promise<void> {
		this.told.push(`email to ${job.data.userId}: ${job.data.text}`);
	}

	@Process('push')
	async push(job: Job<Notice>): Promise<void> {
		this.told.push(`push to ${job.data.userId}: ${job.data.text}`);
	}

	@Process('sms')
	async sms(job: Job<Notice>): Promise<void> {
		this.told.push(`sms to ${job.data.userId}: ${job.data.text}`);
	}
}

/** To be put behind a guard. */
@Controller('admin/dead-letters')
export class AdminController {
	private readonly queues: Map<string, Queue>;

	constructor(@InjectQueue('whatsapp') whatsapp: Queue, @InjectQueue('notify') notify: Queue) {
		this.queues = new Map(Object.entries({ whatsapp, notify }));
	}

	private queue(name: string): Queue {
		const queue = this.queues.get(name);
		if (queue === undefined) {
			throw new NotFoundException(`no queue ${name}`);
		}
		return queue;
	}

	@Get(':queue')
	async list(@Param('queue') name: string) {
		const jobs = await this.queue(name).getFailed(0, 99);
		return jobs.map((job) => ({ id: job.jobId, name: job.name, data: job.data, attempts: job.attemptsMade, reason: job.failedReason }));
	}

	@Post(':queue/:id/retry')
	@HttpCode(200)
	async retry(@Param('queue') name: string, @Param('id') id: string) {
		const job = await this.queue(name).getJob(id);
		if (job === null || !(await job.isFailed())) {
			throw new NotFoundException(`no dead letter ${id} in ${name}`);
		}
		await job.retry();
		return { id, retried: true };
	}
}

@Module({
	imports: [
		EventQueueModule.forRoot({ connection: process.env.DATABASE_URL }),
		EventQueueModule.registerQueue(
			{
				name: 'whatsapp',
				limiter: { max: 20, duration: 1000 },
				defaultJobOptions: { attempts: 3, backoff: { type: 'exponential', delay: Number(process.env.BACKOFF ?? 2000) } },
			},
			{
				// At most ten a minute to each user.
				name: 'notify',
				limiter: { max: 10, duration: 60000, groupKey: 'userId' },
				defaultJobOptions: { attempts: 3, backoff: { type: 'exponential', delay: 2000 } },
			},
		),
		EventQueueHealthModule.register(),
		EventQueueMetricsModule.register(),
	],
	controllers: [CrmController, WhatsappController, AdminController],
	providers: [
		Database, Provider, WhatsappProcessor, Preferences, Notifications, NotifyProcessor,
	],
})
export class AppModule {}
