/* Names under which things are kept in Nest's container and in metadata of classes and methods. */

export const DEFAULT_KEY = 'default';

export const PROCESSOR_METADATA = 'event_queue:processor';
export const PROCESS_METADATA = 'event_queue:process';
export const LISTENER_METADATA = 'event_queue:listener';
export const ON_EVENT_METADATA = 'event_queue:on_event';

/** What `request`-scoped processors inject the job by, as in @nestjs/bull. */
export const JOB_REF = 'REQUEST';

const QUEUE = 'EventQueueQueue_';

export function getQueueToken(name = DEFAULT_KEY): string {
	return `${QUEUE}${name}`;
}

export const isQueueToken = (token: unknown): boolean => typeof token === 'string' && token.startsWith(QUEUE);

export function getQueueOptionsToken(name = DEFAULT_KEY): string {
	return `EventQueueQueueOptions_${name}`;
}

export function getSharedConfigToken(configKey = DEFAULT_KEY): string {
	return `EVENT_QUEUE_CONFIG(${configKey})`;
}

export function getEventQueueToken(configKey = DEFAULT_KEY): string {
	return `EVENT_QUEUE(${configKey})`;
}
