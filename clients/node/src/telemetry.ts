/*
 * telemetry.ts: OpenTelemetry, where the application has @opentelemetry/api.  The
 * context travels as traceparent and tracestate in the metadata of jobs and events.
 */
let api: typeof import('@opentelemetry/api') | undefined;
try {
	api = require('@opentelemetry/api');
} catch {
	api = undefined;
}

/* Without an SDK the API does nothing, at some cost for each job. */
const noProvider = api?.ProxyTracerProvider && new api.ProxyTracerProvider().getDelegate();
const isOff = (): boolean =>
	api === undefined || noProvider !== undefined && (api.trace.getTracerProvider() as any).getDelegate?.() === noProvider && api.propagation.fields().length === 0;

type Metadata = Record<string, unknown>;

/** Metadata with the present trace's context, if there is one and the caller gave none. */
export function withTrace(metadata: Metadata | undefined): Metadata | undefined {
	if (api === undefined || isOff() || metadata?.traceparent !== undefined)
		return metadata;
	const carrier: Record<string, string> = {};
	api.propagation.inject(api.context.active(), carrier);
	return carrier.traceparent === undefined ? metadata : { ...metadata, ...carrier };
}

/** Runs it in a span whose parent is the context of the metadata, or the present one. */
export async function inSpan<T>(
	name: string,
	kind: 'producer' | 'consumer',
	attributes: Record<string, string | number>,
	metadata: Metadata | undefined,
	work: () => Promise<T>,
): Promise<T> {
	if (api === undefined || isOff())
		return work();
	const { trace, context, propagation, SpanKind, SpanStatusCode } = api;
	const parent = metadata?.traceparent === undefined ? context.active() : propagation.extract(context.active(), metadata);
	const span = trace.getTracer('pg-event-queue').startSpan(name,
		{ kind: kind === 'consumer' ? SpanKind.CONSUMER : SpanKind.PRODUCER, attributes: { 'messaging.system': 'event_queue', ...attributes } },
		parent);
	try {
		return await context.with(trace.setSpan(parent, span), work);
	} catch (error) {
		span.recordException(error as Error);
		span.setStatus({ code: SpanStatusCode.ERROR, message: (error as Error)?.message });
		throw error;
	} finally {
		span.end();
	}
}
