import { Inject, Scope, SetMetadata } from '@nestjs/common';
import {
	getEventQueueToken,
	getQueueToken,
	LISTENER_METADATA,
	ON_EVENT_METADATA,
	PROCESS_METADATA,
	PROCESSOR_METADATA,
} from './tokens';

/** Nest's own key for the scope of a provider. */
const SCOPE_OPTIONS_METADATA = 'scope:options';

/** Injects the queue of this name, which a `registerQueue` must have named. */
export const InjectQueue = (name?: string): ReturnType<typeof Inject> => Inject(getQueueToken(name));

/** Injects the connection: append, read, transactions. */
export const InjectEventQueue = (configKey?: string): ReturnType<typeof Inject> =>
	Inject(getEventQueueToken(configKey));

/** A number, or a function that is called when the worker starts: settings from a ConfigService. */
export type Resolvable<V> = V | (() => V | Promise<V>);

export interface WorkerSettings {
	/** How many jobs at a time, for what has none of its own. */
	concurrency?: Resolvable<number>;
}

export interface ProcessorOptions extends WorkerSettings {
	name?: string;
	scope?: Scope;
}

/** A class whose methods, marked by `@Process`, do the jobs of a queue; or one that extends `WorkerHost`. */
export function Processor(queue?: string | ProcessorOptions, worker?: WorkerSettings): ClassDecorator {
	const options: ProcessorOptions = { ...(typeof queue === 'object' ? queue : { name: queue }), ...worker };
	return (target) => {
		if (options.scope !== undefined) {
			SetMetadata(SCOPE_OPTIONS_METADATA, { scope: options.scope })(target);
		} else {
			SetMetadata(SCOPE_OPTIONS_METADATA, {})(target);
		}
		SetMetadata(PROCESSOR_METADATA, options)(target);
	};
}

export interface ProcessOptions {
	/** The name of the jobs; none: those that are added without a name; `*`: those that no other method takes. */
	name?: string;
	/** How many of these jobs at a time in this process: exactly, not added up over names as in Bull. */
	concurrency?: Resolvable<number>;
}

export function Process(nameOrOptions?: string | ProcessOptions): MethodDecorator {
	return SetMetadata(
		PROCESS_METADATA,
		typeof nameOrOptions === 'string' ? { name: nameOrOptions } : (nameOrOptions ?? {}),
	);
}

/** The shape of @nestjs/bullmq: `@Processor('mail') class Mail extends WorkerHost { async process(job) {} }`. */
export abstract class WorkerHost {
	abstract process(job: any, token?: string): Promise<any>;
}

export type QueueEventName =
	| 'error' | 'waiting' | 'active' | 'stalled' | 'progress' | 'completed' | 'failed'
	| 'paused' | 'resumed' | 'cleaned' | 'drained' | 'removed'
	/** Not of Bull's: the job sleeps, or waits for a signal or an event. */
	| 'suspended';
export type BullQueueEvent = QueueEventName | `global:${QueueEventName}`;

const names = ['error', 'waiting', 'active', 'stalled', 'progress', 'completed', 'failed', 'paused', 'resumed', 'cleaned', 'drained', 'removed'] as const;
type BullName = (typeof names)[number];

/** `BullQueueEvents.COMPLETED` is 'completed', and so on. */
export const BullQueueEvents = Object.fromEntries(names.map((name) => [name.toUpperCase(), name])) as { readonly [Name in BullName as Uppercase<Name>]: Name };
export type BullQueueEvents = BullName;
/** `BullQueueGlobalEvents.COMPLETED` is 'global:completed', and so on. */
export const BullQueueGlobalEvents = Object.fromEntries(names.map((name) => [name.toUpperCase(), `global:${name}`])) as {
	readonly [Name in BullName as Uppercase<Name>]: `global:${Name}`;
};
export type BullQueueGlobalEvents = `global:${BullName}`;

/** Only for jobs of this name, or for the job of this id. */
export interface QueueEventDecoratorOptions {
	id?: string;
	name?: string;
}

export interface BullQueueEventOptions extends QueueEventDecoratorOptions {
	eventName: BullQueueEvent;
}

export const OnQueueEvent = (event: BullQueueEvent | BullQueueEventOptions): MethodDecorator =>
	SetMetadata(LISTENER_METADATA, typeof event === 'string' ? { eventName: event } : event);

/** As in @nestjs/bullmq. */
export const OnWorkerEvent = (event: QueueEventName): MethodDecorator => OnQueueEvent(event);

type QueueEventDecorator = (options?: QueueEventDecoratorOptions) => MethodDecorator;
const listener =
	(eventName: BullQueueEvent): QueueEventDecorator =>
	(options) =>
		OnQueueEvent({ ...options, eventName });

export const OnQueueError = listener('error');
export const OnQueueWaiting = listener('waiting');
export const OnQueueActive = listener('active');
export const OnQueueStalled = listener('stalled');
export const OnQueueProgress = listener('progress');
export const OnQueueCompleted = listener('completed');
export const OnQueueFailed = listener('failed');
export const OnQueuePaused = listener('paused');
export const OnQueueResumed = listener('resumed');
export const OnQueueCleaned = listener('cleaned');
export const OnQueueDrained = listener('drained');
export const OnQueueRemoved = listener('removed');
export const OnGlobalQueueError = listener('global:error');
export const OnGlobalQueueWaiting = listener('global:waiting');
export const OnGlobalQueueActive = listener('global:active');
export const OnGlobalQueueStalled = listener('global:stalled');
export const OnGlobalQueueProgress = listener('global:progress');
export const OnGlobalQueueCompleted = listener('global:completed');
export const OnGlobalQueueFailed = listener('global:failed');
export const OnGlobalQueuePaused = listener('global:paused');
export const OnGlobalQueueResumed = listener('global:resumed');
export const OnGlobalQueueCleaned = listener('global:cleaned');
export const OnGlobalQueueDrained = listener('global:drained');
export const OnGlobalQueueRemoved = listener('global:removed');

export interface OnEventOptions {
	/** The subscription's name. By default Class.method: give one before you rename either. */
	subscription?: string;
	/** Which `forRoot`, if there are several. */
	configKey?: string;
	/** Where a new subscription begins: with what comes from now on (the default), or with the first event. */
	from?: 'now' | 'start' | number;
	aggregateType?: string;
	/** How many events a transaction takes at most: 100. */
	batchSize?: number;
}

/**
 * A durable subscription: the method gets each event of the pattern (`lead.*`: one more
 * word, `lead.**`: any) at least once, in order, also those that came while no process
 * was up; exactly once as far as it writes by the transaction that it is given.
 */
export function OnEvent(pattern: string, options: OnEventOptions = {}): MethodDecorator {
	return SetMetadata(ON_EVENT_METADATA, { ...options, pattern });
}
