import { BullModule } from '@nestjs/bull';
import { Module } from '@nestjs/common';
import { MailController } from './mail.controller';
import { MailProcessor } from './mail.processor';
import { MailService } from './mail.service';
import { Outbox } from './outbox';
import { ReportsProcessor } from './reports.processor';

@Module({
	imports: [
		BullModule.forRootAsync({
			useFactory: () => ({
				redis: { host: process.env.REDIS_HOST ?? 'localhost', port: 6379 },
			}),
		}),
		BullModule.registerQueue({
			name: 'mail',
			defaultJobOptions: { attempts: 2, backoff: 50 },
			settings: { lockDuration: 30000, stalledInterval: 5000, maxStalledCount: 2 },
		}),
		BullModule.registerQueueAsync({
			name: 'reports',
			useFactory: async () => ({
				limiter: { max: 100, duration: 1000 },
				defaultJobOptions: { removeOnComplete: 100, removeOnFail: { age: 3600 } },
			}),
		}),
	],
	controllers: [MailController],
	providers: [MailService, MailProcessor, ReportsProcessor, Outbox],
})
export class AppModule {}
