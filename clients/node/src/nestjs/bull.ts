/* What the namespace of Bull has, for those who import that. */
export * from './bull-types';
export { Job } from './job';
export { Queue } from './queue';
export type { RegisterQueueOptions as QueueOptions } from './module';
