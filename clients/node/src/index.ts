export * from './errors';
export { EventQueue, minimumVersion } from './event-queue';
export type { AppendedEvent, AppendManyOptions, AppendOptions, EventFilter, EventQueueOptions, ExpectedVersion, JobOutcome, NewEvent, QueueTypes,
	ReadAggregateOptions, ReadAllOptions, StateOptions, StoredEvent, TypedQueue } from './event-queue';
export type { ConnectionOptions } from './database';
export { Queue, defaultJobName } from './queue';
export type { BulkJob, QueueOptions } from './queue';
export { Job } from './job';
export type { BullJobState, JobFields, JobState } from './job';
export { Worker } from './worker';
export type { NamedProcessor, Processor, Processors, WorkerEvents, WorkerOptions } from './worker';
export { Subscription } from './subscription';
export type { SubscriptionContext, SubscriptionEvents, SubscriptionHandler, SubscriptionOptions } from './subscription';
export { priorityLevelOf } from './options';
export type { AdvancedSettings, BackoffOptions, BackoffType, JobOptions, KeepJobs, LimiterOptions, QueueSettings } from './options';
export type { Declaration, RuleDeclaration, SyncReport } from './sync';
export { toExecutor } from './tx';
export type { DrizzleTransaction, Executor, KnexTransaction, KyselyTransaction, PrismaTransaction, QueryTransaction, TransactionLike, TxOption } from './tx';
