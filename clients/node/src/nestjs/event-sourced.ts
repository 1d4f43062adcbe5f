import { AsyncLocalStorage } from 'node:async_hooks';
import { Inject } from '@nestjs/common';
import { asError, InvalidTransactionError } from '../errors';
import { getEventQueueToken } from './tokens';
import type { Transaction } from './port';

/** An event that a method marked by `@EventSourced` returns or emits. */
export class DomainEvent<D = unknown> {
	constructor(
		readonly eventType: string,
		readonly data: D,
		readonly options: DomainEventOptions = {},
	) {}
}

export interface DomainEventOptions {
	/** Makes the append safe to repeat. */
	id?: string;
	metadata?: Record<string, unknown>;
}

export function event<D>(eventType: string, data: D, options?: DomainEventOptions): DomainEvent<D> {
	return new DomainEvent(eventType, data, options);
}

/** What the present code is part of: a transaction, and the events that its method has emitted so far. */
interface Scope {
	owner: object;
	tx: Transaction;
	/** Undefined outside of @EventSourced, and when its method has ended. */
	emitted: DomainEvent[] | undefined;
	/** That of the whole transaction. */
	whole?: Scope;
	/** What a method in the transaction failed by: its writes are there and its events are not, so nothing may be kept. */
	failed?: unknown;
}

const scopes = new AsyncLocalStorage<Scope>();

/** The transaction that `@EventSourced`, `@OnEvent` or `transaction()` has opened around the caller. */
export function currentTransaction<X = Transaction>(owner?: object): X | undefined {
	const scope = scopes.getStore();
	return scope !== undefined && (owner === undefined || scope.owner === owner) ? (scope.tx as X) : undefined;
}

/** Appends an event when the method marked by `@EventSourced` that the caller is part of ends. */
export function emit(eventType: string, data: unknown = {}, options?: DomainEventOptions): void {
	const emitted = scopes.getStore()?.emitted;
	if (emitted === undefined) {
		throw new Error(`emit('${eventType}') outside of a method with @EventSourced, or after its end: nothing would append it`);
	}
	emitted.push(new DomainEvent(eventType, data, options));
}

export function withTransaction<R>(owner: object, tx: Transaction, work: () => Promise<R>): Promise<R> {
	const scope: Scope = { owner, tx, emitted: undefined };
	return scopes.run(scope, async () => {
		const result = await work();
		if (scope.failed !== undefined) {
			throw new InvalidTransactionError(
				`nothing of the transaction is kept: a method with @EventSourced in it failed, and its error was caught: ${asError(scope.failed).message}`,
				{ cause: scope.failed },
			);
		}
		return result;
	});
}

/** What the decorator needs of the connection; EventQueueService is one. */
export interface EventSource {
	transaction<R>(work: (tx: any) => Promise<R>): Promise<R>;
	appendEvents(
		aggregateType: string,
		aggregateId: string,
		events: DomainEvent[],
		expectedVersion: number | string | undefined,
		tx: Transaction,
	): Promise<void>;
}

export interface EventSourcedOptions {
	/** The aggregate's id, of the method's arguments; default: the first argument, or its `id`. */
	id?: (...args: any[]) => string;
	/** The version before the append, or `any`, `no_stream`, `exists`. Default: `any`. */
	expectedVersion?: (...args: any[]) => number | string | undefined;
	configKey?: string;
}

/**
 * The method runs in a transaction (`currentTransaction()`), that of its caller if there
 * is one; the events that it emits, then those that it returns, are appended to the
 * aggregate in it. If anything fails, neither its writes nor its events are there, nor
 * anything else of the transaction, even if the caller catches the error.
 */
export function EventSourced(aggregateType: string, options: EventSourcedOptions = {}): MethodDecorator {
	const source = Symbol(`event_queue of @EventSourced('${aggregateType}')`);
	return (target: object, _key, descriptor: PropertyDescriptor) => {
		Inject(getEventQueueToken(options.configKey))(target, source);
		const method = descriptor.value as (...args: unknown[]) => unknown;
		const wrapped = function (this: Record<symbol, EventSource>, ...args: unknown[]): Promise<unknown> {
			const store = this[source];
			if (store === undefined) {
				throw new Error(`@EventSourced('${aggregateType}') needs a provider that Nest has made`);
			}
			return store.transaction(async (tx) => {
				const emitted: DomainEvent[] = [];
				const around = scopes.getStore();
				const scope: Scope = { owner: store, tx, emitted, whole: around?.whole ?? around };
				try {
					const result = await scopes.run(scope, async () => method.apply(this, args));
					const events = [...emitted, ...eventsOf(result)];
					if (events.length > 0) {
						const id = options.id === undefined ? idOf(args[0]) : options.id(...args);
						if (typeof id !== 'string' || id === '') {
							throw new TypeError(
								`@EventSourced('${aggregateType}'): the first argument is no id and has none; name it by the option id`,
							);
						}
						await store.appendEvents(aggregateType, id, events, options.expectedVersion?.(...args), tx);
					}
					return result;
				} catch (error) {
					if (scope.whole !== undefined) {
						scope.whole.failed ??= error ?? new Error('undefined');
					}
					throw error;
				} finally {
					scope.emitted = undefined;
				}
			});
		};
		// What other decorators have said of the method holds for what stands in its place.
		for (const key of Reflect.getMetadataKeys(method)) {
			Reflect.defineMetadata(key, Reflect.getMetadata(key, method), wrapped);
		}
		Object.defineProperty(wrapped, 'name', { value: method.name });
		descriptor.value = wrapped;
	};
}

function eventsOf(result: unknown): DomainEvent[] {
	if (result instanceof DomainEvent) {
		return [result];
	}
	return Array.isArray(result) ? result.filter((one): one is DomainEvent => one instanceof DomainEvent) : [];
}

function idOf(argument: unknown): string | undefined {
	const id = typeof argument === 'object' && argument !== null ? (argument as { id?: unknown }).id : argument;
	return typeof id === 'string' || typeof id === 'number' || typeof id === 'bigint' ? String(id) : undefined;
}
