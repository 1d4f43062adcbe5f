import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnModuleInit, Optional } from '@nestjs/common';
import { ContextIdFactory, DiscoveryService, MetadataScanner, ModuleRef } from '@nestjs/core';
import {
	type BullQueueEventOptions,
	type OnEventOptions,
	type ProcessOptions,
	type ProcessorOptions,
	WorkerHost,
} from './decorators';
import { checkKnown } from '../options';
import type { Job } from './job';
import { DEFAULT_JOB_NAME, Queue } from './queue';
import { EventQueueService } from './service';
import {
	DEFAULT_KEY,
	getEventQueueToken,
	getQueueToken,
	isQueueToken,
	LISTENER_METADATA,
	ON_EVENT_METADATA,
	PROCESS_METADATA,
	PROCESSOR_METADATA,
} from './tokens';

type Method = (...args: any[]) => any;

/** As DiscoveryService gives them; the type itself is no public one of Nest's. */
interface Provider {
	name: string;
	token: unknown;
	instance: Record<string, Method> | undefined;
	metatype: Function | null;
	inject?: unknown;
	isTransient: boolean;
	isDependencyTreeStatic(): boolean;
}

/** Finds what is decorated, and starts workers and subscriptions when all modules are there. */
@Injectable()
export class EventQueueExplorer implements OnModuleInit, OnApplicationBootstrap {
	private readonly logger = new Logger('EventQueueModule');
	private readonly services = new Set<EventQueueService>();
	private readonly instances = new Map<Provider, Promise<Record<string, Method>>>();

	constructor(
		@Inject(ModuleRef) private readonly moduleRef: ModuleRef,
		@Inject(DiscoveryService) private readonly discovery: DiscoveryService,
		@Inject(MetadataScanner) private readonly scanner: MetadataScanner,
		@Optional() @Inject('EVENT_QUEUE_NO_WORKERS') private readonly noWorkers?: boolean,
	) {}

	async onModuleInit(): Promise<void> {
		const seen = new Set<unknown>();
		const wrappers = [...this.discovery.getProviders(), ...this.discovery.getControllers()] as unknown as Provider[];
		// A test whose own objects stand for the queues needs no server.
		if (!wrappers.some((one) => isQueueToken(one.token) && !(one.instance instanceof Queue))) {
			for (const { instance } of wrappers) {
				if (instance instanceof EventQueueService) {
					await instance.connect();
				}
			}
		}
		for (const provider of wrappers) {
			const type = !provider.metatype || provider.inject ? provider.instance?.constructor : provider.metatype;
			if (typeof type !== 'function' || seen.has(provider.instance ?? type)) {
				continue;
			}
			seen.add(provider.instance ?? type);
			const processor = Reflect.getMetadata(PROCESSOR_METADATA, type) as ProcessorOptions | undefined;
			if (processor !== undefined) {
				this.exploreProcessor(provider, type, processor);
			}
			this.exploreSubscriptions(provider, type);
		}
	}

	async onApplicationBootstrap(): Promise<void> {
		if (this.noWorkers) {
			return;
		}
		for (const service of this.services) {
			await service.start();
		}
	}

	/** Of a transient provider Nest makes none for us: it gets one, for all its jobs and events. */
	private instanceOf(provider: Provider): Promise<Record<string, Method>> {
		let made = this.instances.get(provider);
		if (made === undefined) {
			made = provider.isTransient
				? this.moduleRef.resolve<Record<string, Method>>(provider.token as any, undefined, { strict: false })
				: Promise.resolve(provider.instance as Record<string, Method>);
			this.instances.set(provider, made);
		}
		return made;
	}

	private methodsOf(type: Function): string[] {
		return this.scanner.getAllMethodNames(type.prototype);
	}

	private exploreProcessor(provider: Provider, type: Function, options: ProcessorOptions): void {
		const queue = this.queueOf(options.name, type);
		if (!(queue instanceof Queue)) {
			return; // a test's stand-in, by overrideProvider(getQueueToken(...))
		}
		const service = queue.port as EventQueueService;
		this.services.add(service);
		checkKnown(`@Processor of ${type.name}`, options, ['name', 'scope', 'concurrency'],
			{ limiter: 'it is a setting of the queue: registerQueue({ limiter })', configKey: 'give it to registerQueue' });
		let does = 0;
		for (const key of this.methodsOf(type)) {
			const method = type.prototype[key] as Method;
			const process = Reflect.getMetadata(PROCESS_METADATA, method) as ProcessOptions | undefined;
			if (process !== undefined) {
				does++;
				checkKnown(`@Process of ${type.name}.${key}`, process, ['name', 'concurrency']);
				service.register(queue, {
					name: process.name ?? DEFAULT_JOB_NAME,
					concurrency: process.concurrency ?? options.concurrency ?? 1,
					where: `${type.name}.${key}`,
					run: this.runner(provider, type, key, method.length > 1),
				});
			}
			const listener = Reflect.getMetadata(LISTENER_METADATA, method) as BullQueueEventOptions | undefined;
			if (listener !== undefined) {
				does++;
				this.listen(provider, key, queue, listener);
			}
		}
		if (does === 0 && !(type.prototype instanceof WorkerHost)) {
			this.logger.warn(`${type.name} is a processor of queue "${queue.name}" and does nothing: no method has @Process, nor does it extend WorkerHost`);
		}
		if (type.prototype instanceof WorkerHost) {
			service.register(queue, {
				name: '*',
				concurrency: options.concurrency ?? 1,
				where: `${type.name}.process`,
				run: this.runner(provider, type, 'process', false),
			});
		}
	}

	private queueOf(name: string | undefined, type: Function): unknown {
		const same = this.discovery.getProviders().filter((one) => one.token === getQueueToken(name)).map((one) => one.instance as Queue);
		const keys = new Set(same.map((one) => (one instanceof Queue ? (one.port as EventQueueService).configKey : '')));
		if (keys.size > 1) {
			throw new Error(
				`${type.name} is the processor of queue "${name ?? DEFAULT_KEY}", which is registered for ${keys.size} connections (${[...keys].join(', ')}): ` +
					`processors find a queue by its name, so name one of them otherwise, by registerQueueAsync({ name: 'other', useFactory: () => ({ name: '${name ?? DEFAULT_KEY}' }) })`,
			);
		}
		try {
			return this.moduleRef.get<unknown>(getQueueToken(name), { strict: false });
		} catch (error) {
			throw new Error(
				`${type.name} is the processor of queue "${name ?? DEFAULT_KEY}", which no ` +
					`EventQueueModule.registerQueue({ name: '${name ?? DEFAULT_KEY}' }) names`,
				{ cause: error },
			);
		}
	}

	private runner(provider: Provider, type: Function, key: string, callsBack: boolean): (job: Job) => Promise<unknown> {
		const call = async (instance: Record<string, Method>, job: Job): Promise<unknown> => {
			const method = instance[key] as Method;
			if (!callsBack) {
				return method.call(instance, job);
			}
			return new Promise((resolve, reject) => {
				const done = (error?: Error | null, value?: unknown) => (error ? reject(error) : resolve(value));
				Promise.resolve(method.call(instance, job, done)).catch(reject);
			});
		};
		if (provider.isDependencyTreeStatic()) {
			return async (job) => call(await this.instanceOf(provider), job);
		}
		return async (job) => {
			const context = ContextIdFactory.create();
			this.moduleRef.registerRequestByContextId(job, context);
			return call(await this.moduleRef.resolve((provider.token ?? type) as any, context, { strict: false }), job);
		};
	}

	private listen(provider: Provider, key: string, queue: Queue, options: BullQueueEventOptions): void {
		if (!provider.isDependencyTreeStatic()) {
			this.logger.warn(`${provider.name}.${key} is not called: listeners of request-scoped processors have no request`);
			return;
		}
		const failed = (error: unknown) => this.logger.error(`${provider.name}.${key}: ${(error as Error)?.stack ?? error}`);
		const call = async (...args: unknown[]): Promise<void> => {
			const instance = await this.instanceOf(provider);
			if (options.name !== undefined || options.id !== undefined) {
				const job = args[0] instanceof Object ? (args[0] as Job) : await queue.getJob(args[0] as string);
				if (job === null || (job.name !== options.name && String(job.id) !== options.id)) {
					return;
				}
				await (instance[key] as Method).call(instance, job, ...args.slice(1));
				return;
			}
			await (instance[key] as Method).call(instance, ...args);
		};
		queue.on(options.eventName, (...args: unknown[]) => {
			call(...args).catch(failed);
		});
	}

	private exploreSubscriptions(provider: Provider, type: Function): void {
		for (const key of this.methodsOf(type)) {
			const options = Reflect.getMetadata(ON_EVENT_METADATA, type.prototype[key]) as
				| (OnEventOptions & { pattern: string })
				| undefined;
			if (options === undefined) {
				continue;
			}
			if (!provider.isDependencyTreeStatic()) {
				throw new Error(`@OnEvent('${options.pattern}') on ${type.name}.${key}: a request-scoped provider has no request`);
			}
			const service = this.moduleRef.get<EventQueueService>(getEventQueueToken(options.configKey), { strict: false });
			this.services.add(service);
			service.subscribe({
				...options,
				subscription: options.subscription ?? `${type.name}.${key}`,
				where: `${type.name}.${key}`,
				handle: async (event, tx) => {
					const instance = await this.instanceOf(provider);
					return instance[key]!.call(instance, event, tx);
				},
			});
		}
	}
}
