import {
	type DynamicModule,
	type FactoryProvider,
	type ModuleMetadata,
	Module,
	type OnApplicationShutdown,
	type OnModuleDestroy,
	type Provider,
	type Type,
} from '@nestjs/common';
import { DiscoveryModule, ModulesContainer } from '@nestjs/core';
import { EventQueueExplorer } from './explorer';
import { EventQueueHealthIndicator } from './health';
import { Queue } from './queue';
import { checkKnown } from '../options';
import { EventQueueService, type EventQueueRootOptions, WITHOUT_EFFECT } from './service';
import { queueOptions, type QueueSettings } from './settings';
import { DEFAULT_KEY, getEventQueueToken, getQueueOptionsToken, getQueueToken, getSharedConfigToken } from './tokens';

export interface RegisterQueueOptions extends QueueSettings {
	name?: string;
	/** Which `forRoot`, if there are several. */
	configKey?: string;
	/** Taken and without effect, for applications that came from Bull: Redis is gone. */
	redis?: unknown;
	url?: string;
	prefix?: string;
	createClient?: unknown;
	metrics?: unknown;
	isSharedChildPool?: unknown;
}

export interface SharedConfigurationFactory {
	createSharedConfiguration(): Promise<EventQueueRootOptions> | EventQueueRootOptions;
}

export interface SharedAsyncConfiguration extends Pick<ModuleMetadata, 'imports'> {
	useExisting?: Type<SharedConfigurationFactory>;
	useClass?: Type<SharedConfigurationFactory>;
	useFactory?: (...args: any[]) => Promise<EventQueueRootOptions> | EventQueueRootOptions;
	inject?: FactoryProvider['inject'];
	extraProviders?: Provider[];
}

export interface QueueOptionsFactory {
	createBullOptions(): Promise<RegisterQueueOptions> | RegisterQueueOptions;
}

export interface RegisterQueueAsyncOptions extends Pick<ModuleMetadata, 'imports'> {
	name?: string;
	configKey?: string;
	useExisting?: Type<QueueOptionsFactory>;
	useClass?: Type<QueueOptionsFactory>;
	useFactory?: (...args: any[]) => Promise<RegisterQueueOptions> | RegisterQueueOptions;
	inject?: FactoryProvider['inject'];
	extraProviders?: Provider[];
}

/**
 * The two ends of Nest's order of hooks: it ends modules from the root on since version
 * 11, and the other way round before. Workers stop in whichever comes first, before any
 * provider of the application closes what its processors need; the pool closes in
 * whichever comes last, so that `add` works as long as a processor or a request runs.
 */
class End implements OnModuleDestroy, OnApplicationShutdown {
	constructor(private readonly services: EventQueueService[]) {}

	async onModuleDestroy(): Promise<void> {
		await Promise.all(this.services.map((service) => service.stop()));
	}

	async onApplicationShutdown(): Promise<void> {
		await Promise.all(this.services.map((service) => service.oneEndIsReached()));
	}
}

@Module({})
export class FirstEnd {}

@Module({})
export class LastEnd {}

@Module({})
export class EventQueueModule {
	static forRoot(options?: EventQueueRootOptions): DynamicModule;
	static forRoot(configKey: string, options: EventQueueRootOptions): DynamicModule;
	static forRoot(first?: string | EventQueueRootOptions, second?: EventQueueRootOptions): DynamicModule {
		const [configKey, options] = typeof first === 'string' ? [first, second ?? {}] : [undefined, first ?? {}];
		return this.root(configKey, { provide: getSharedConfigToken(configKey), useValue: options }, [], []);
	}

	static forRootAsync(options: SharedAsyncConfiguration): DynamicModule;
	static forRootAsync(configKey: string, options: SharedAsyncConfiguration): DynamicModule;
	static forRootAsync(first: string | SharedAsyncConfiguration, second?: SharedAsyncConfiguration): DynamicModule {
		const [configKey, options] = typeof first === 'string' ? [first, second as SharedAsyncConfiguration] : [undefined, first];
		const provide = getSharedConfigToken(configKey);
		const extra: Provider[] = [...(options.useClass === undefined ? [] : [options.useClass]), ...(options.extraProviders ?? [])];
		const factory = options.useClass ?? options.useExisting;
		const config: Provider =
			factory === undefined
				? { provide, useFactory: options.useFactory ?? (() => ({})), inject: options.inject ?? [] }
				: {
						provide,
						useFactory: (made: SharedConfigurationFactory) => made.createSharedConfiguration(),
						inject: [factory],
					};
		return this.root(configKey, config, extra, options.imports ?? []);
	}

	private static root(
		configKey: string | undefined,
		config: Provider,
		extra: Provider[],
		imports: NonNullable<ModuleMetadata['imports']>,
	): DynamicModule {
		const token = getEventQueueToken(configKey);
		const service: Provider = {
			provide: token,
			useFactory: (options: EventQueueRootOptions) => EventQueueService.create(options, configKey ?? DEFAULT_KEY),
			inject: [getSharedConfigToken(configKey)],
		};
		const end = (name: string): Provider => ({
			provide: `EVENT_QUEUE_${name}(${configKey ?? DEFAULT_KEY})`,
			useFactory: (one: EventQueueService, modules: ModulesContainer) => {
				for (const module of modules.values()) {
					if (module.metatype === FirstEnd) {
						module.distance = -1;
					}
				}
				return new End([one]);
			},
			inject: [token, ModulesContainer],
		});
		const first: DynamicModule = { module: FirstEnd, providers: [end('FIRST_END')] };
		const last: DynamicModule = { module: LastEnd, global: true, providers: [end('LAST_END')] };
		const health: Provider[] =
			configKey === undefined ? [EventQueueHealthIndicator, { provide: EventQueueService, useExisting: token }] : [];
		return {
			module: EventQueueModule,
			global: true,
			imports: [...imports, first, last, this.core()],
			providers: [config, ...extra, service, ...health],
			exports: [config, token, ...health],
		};
	}

	static registerQueue(...queues: RegisterQueueOptions[]): DynamicModule {
		return this.queues(
			queues.map((queue) => ({
				name: queue.name,
				configKey: queue.configKey,
				providers: [{ provide: getQueueOptionsToken(queue.name), useValue: queue }],
			})),
			[],
		);
	}

	static registerQueueAsync(...queues: RegisterQueueAsyncOptions[]): DynamicModule {
		return this.queues(
			queues.map((queue) => {
				const provide = getQueueOptionsToken(queue.name);
				const factory = queue.useClass ?? queue.useExisting;
				const options: Provider =
					factory === undefined
						? queue.useFactory === undefined
							? { provide, useValue: plainOptions(queue) }
							: { provide, useFactory: queue.useFactory, inject: queue.inject ?? [] }
						: { provide, useFactory: (made: QueueOptionsFactory) => made.createBullOptions(), inject: [factory] };
				return {
					name: queue.name,
					configKey: queue.configKey,
					providers: [...(queue.useClass ? [queue.useClass] : []), options, ...(queue.extraProviders ?? [])],
				};
			}),
			[...new Set(queues.flatMap((queue) => queue.imports ?? []))],
		);
	}

	private static queues(
		queues: { name: string | undefined; configKey: string | undefined; providers: Provider[] }[],
		imports: NonNullable<ModuleMetadata['imports']>,
	): DynamicModule {
		const tokens = queues.map((queue) => getQueueToken(queue.name));
		return {
			module: EventQueueModule,
			imports: [...imports, this.core()],
			providers: queues.flatMap((queue) => [
				...queue.providers,
				{
					provide: getQueueToken(queue.name),
					useFactory: (options: RegisterQueueOptions, service?: EventQueueService) =>
						// A factory may say the name on the server, as of an environment: it stays injected by the one of registerQueueAsync.
						makeQueue(options?.name ?? queue.name ?? DEFAULT_KEY, options, queue.configKey, service),
					inject: [
						getQueueOptionsToken(queue.name),
						{ token: getEventQueueToken(queue.configKey), optional: true },
					],
				},
			]),
			exports: tokens,
		};
	}

	private static core(): DynamicModule {
		return CORE;
	}
}

/** registerQueueAsync without a factory is registerQueue, as in Bull. */
function plainOptions(given: RegisterQueueAsyncOptions): RegisterQueueOptions {
	const { imports: _imports, inject: _inject, extraProviders: _extra, useFactory: _factory, useClass: _class, useExisting: _existing, ...options } = given;
	return options;
}

@Module({})
export class EventQueueCoreModule {}

/** One object, so that Nest makes one module of it, however many register queues. */
const CORE: DynamicModule = {
	module: EventQueueCoreModule,
	global: true,
	imports: [DiscoveryModule],
	providers: [EventQueueExplorer],
};

async function makeQueue(
	name: string,
	options: RegisterQueueOptions,
	configKey: string | undefined,
	service: EventQueueService | undefined,
): Promise<Queue> {
	if (service === undefined) {
		throw new Error(
			`queue "${name}" has no connection: import EventQueueModule.forRoot(${configKey ? `'${configKey}', ` : ''}{ ... }) in the root module`,
		);
	}
	checkKnown(`registerQueue "${name}"`, options, ['name', 'configKey', 'url', ...queueOptions, ...WITHOUT_EFFECT],
		{ processors: 'mark a class with @Processor; a process of its own for them is the program eventq work' });
	return service.queue(name, options ?? {});
}
