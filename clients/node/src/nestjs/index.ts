export { DelayedError, EventQueueError, JobSuspendedError, RateLimitError, RetryAfterError, UnrecoverableError } from '../errors';
export type { SignalOptions, StoredEvent } from '../event-queue';
export type { AwaitEventOptions, AwaitSignalOptions, EventOutcome, JobStep, SignalOutcome, StepOptions, StepUndo } from '../steps';
/** For `import Bull from`: Bull.Queue, Bull.Job, ... */
export * as default from './bull';
export * from './bull-types';
export * from './decorators';
export { currentTransaction, DomainEvent, emit, event, EventSourced } from './event-sourced';
export type { DomainEventOptions, EventSourcedOptions } from './event-sourced';
export {
	EventQueueHealthIndicator,
	EventQueueHealthModule,
	EventQueueMetricsModule,
} from './health';
export type { HealthIndicatorOptions, HttpOptions, QueueHealth } from './health';
export { Job, UnsupportedError } from './job';
export { EventQueueModule, EventQueueModule as BullModule } from './module';
export type {
	QueueOptionsFactory,
	QueueOptionsFactory as BullOptionsFactory,
	RegisterQueueAsyncOptions,
	RegisterQueueAsyncOptions as BullModuleAsyncOptions,
	RegisterQueueOptions,
	RegisterQueueOptions as BullModuleOptions,
	RegisterQueueOptions as QueueOptions,
	SharedAsyncConfiguration,
	SharedAsyncConfiguration as SharedBullAsyncConfiguration,
	SharedConfigurationFactory,
	SharedConfigurationFactory as SharedBullConfigurationFactory,
} from './module';
export { DEFAULT_JOB_NAME, Queue } from './queue';
export type { CallOptions } from './queue';
export { EventQueueService } from './service';
export type { EventQueueRootOptions, EventQueueRootOptions as BullRootModuleOptions } from './service';
export type { QueueSettings, ServerSettings } from './settings';
export { EventQueueTesting } from './testing';
export type { DrainOptions, EventQueueTestingOptions, Ran } from './testing';
export { getEventQueueToken, getQueueOptionsToken, getQueueToken, getSharedConfigToken, JOB_REF } from './tokens';
