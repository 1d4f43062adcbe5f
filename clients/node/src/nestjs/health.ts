import { Controller, Get, HttpException, Inject, Injectable, StreamableFile, type DynamicModule, type Type } from '@nestjs/common';
import { getEventQueueToken } from './tokens';
import { AccessDeniedError, ConnectionError, ReadOnlyError } from '../errors';
import type { Port } from './port';

/** A queue in the document of `queue_health()`. */
export interface QueueHealth {
	status: 'healthy' | 'degraded' | 'unhealthy';
	pendingCount: number;
	activeCount: number;
	dead: number;
	reasons: { reason: string; level: string; detail: string }[];
	[figure: string]: unknown;
}

export interface HealthIndicatorOptions {
	/** Only these queues. */
	queues?: string[];
	/** Also a degraded queue is down. Default: only an unhealthy one. */
	degradedIsDown?: boolean;
}

/** For terminus: `() => this.eventQueue.isHealthy('queues')`. */
@Injectable()
export class EventQueueHealthIndicator {
	constructor(@Inject(getEventQueueToken()) private readonly store: Port) {}

	async isHealthy(key = 'event_queue', options: HealthIndicatorOptions = {}): Promise<Told> {
		let queues: Record<string, QueueHealth>;
		try {
			queues = await readHealth(this.store);
		} catch (error) {
			return told({ [key]: { status: 'down', message: (error as Error).message } }, true);
		}
		const shown: Record<string, { status: string; reasons: string[] }> = {};
		let down = false;
		for (const name of options.queues ?? Object.keys(queues)) {
			const queue = queues[name];
			shown[name] = {
				status: queue?.status ?? 'unhealthy',
				reasons: queue?.reasons.map((one) => one.detail) ?? ['there is no such queue'],
			};
			down ||= shown[name].status === 'unhealthy' || (options.degradedIsDown === true && shown[name].status === 'degraded');
		}
		return told({ [key]: { status: down ? 'down' : 'up', queues: shown } }, down);
	}
}

type Told = Record<string, { status: 'up' | 'down'; [figure: string]: any }>;

/** Terminus before 11 takes only what is thrown as down, by this mark; from 12 on only what is returned. */
function told(result: Told, down: boolean): Told {
	if (down && terminusBefore11()) {
		throw Object.assign(new Error('event_queue is unhealthy'), { isHealthCheckError: true, causes: result });
	}
	return result;
}

function terminusBefore11(): boolean {
	try {
		return Number.parseInt(require('@nestjs/terminus/package.json').version, 10) < 11;
	} catch {
		return false; // newer ones don't show it
	}
}

async function readHealth(store: Port): Promise<Record<string, QueueHealth>> {
	const row = await store.look<{ health: Record<string, QueueHealth>; read_only: boolean }>(
		`SELECT event_queue.queue_health() AS health, pg_catalog.current_setting('transaction_read_only')::boolean AS read_only`,
	);
	// What a standby shows is no news, and nothing can be added or done there.
	if (row?.read_only === true) {
		throw new ReadOnlyError('the server is read-only: it is a standby, or default_transaction_read_only is on');
	}
	const health = row?.health ?? {};
	if (Object.keys(health).length === 0) {
		await readMetrics(store); // which tells why, if it is not that there are no queues
	}
	return health;
}

async function readMetrics(store: Port): Promise<string> {
	const row = await store.look<{ text: string }>('SELECT event_queue.prometheus() AS text');
	if (!row?.text) {
		throw new AccessDeniedError('there are no figures for a role that is bound to a tenant, as they are those of all tenants: ' +
			'give { configKey } of a forRoot whose role is not, and has event_queue.grant_observer()');
	}
	return row.text;
}

function unavailable(error: unknown): never {
	throw error instanceof ConnectionError || error instanceof AccessDeniedError ? new HttpException({ message: error.message }, 503) : error;
}

export interface HttpOptions {
	path?: string;
	configKey?: string;
}

/** GET /health/queues: the document of `queue_health()`; 503 if a queue is unhealthy. */
export class EventQueueHealthModule {
	static register(options: HttpOptions = {}): DynamicModule {
		@Controller(options.path ?? 'health/queues')
		class QueueHealthController {
			constructor(@Inject(getEventQueueToken(options.configKey)) private readonly store: Port) {}

			@Get()
			async queues(): Promise<Record<string, QueueHealth>> {
				const queues = await readHealth(this.store).catch(unavailable);
				if (Object.values(queues).some((queue) => queue.status === 'unhealthy')) {
					throw new HttpException(queues, 503);
				}
				return queues;
			}
		}
		return withController(EventQueueHealthModule, QueueHealthController);
	}
}

/** GET /metrics: `prometheus()`, in Prometheus' text format; 503 if there is no server, or the role may not see it. */
export class EventQueueMetricsModule {
	static register(options: HttpOptions = {}): DynamicModule {
		@Controller(options.path ?? 'metrics')
		class MetricsController {
			constructor(@Inject(getEventQueueToken(options.configKey)) private readonly store: Port) {}

			@Get()
			async metrics(): Promise<StreamableFile> {
				const text = await readMetrics(this.store).catch(unavailable);
				// Its type is not that of an error.
				return new StreamableFile(Buffer.from(text), { type: 'text/plain; version=0.0.4; charset=utf-8' });
			}
		}
		return withController(EventQueueMetricsModule, MetricsController);
	}
}

function withController(module: Type<unknown>, controller: Type<unknown>): DynamicModule {
	return { module, controllers: [controller] };
}
