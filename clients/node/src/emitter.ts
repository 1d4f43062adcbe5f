/*
 * emitter.ts: an EventEmitter whose listeners can't break it.  What a listener throws, or
 * rejects with, is reported; the job or event in hand goes on.
 */
import { EventEmitter } from 'node:events';

export abstract class SafeEmitter extends EventEmitter {
	constructor() {
		super({ captureRejections: true });
	}

	/** @internal */
	abstract report(error: unknown): void;

	emit(event: string | symbol, ...args: any[]): boolean {
		try {
			return super.emit(event, ...args);
		} catch (error) {
			// What a listener for errors throws has nowhere else to go.
			if (event === 'error')
				warn(error);
			else
				this.report(error);
			return true;
		}
	}

	/* A listener's promise was rejected: node calls this instead of unhandledRejection. */
	[Symbol.for('nodejs.rejection')](error: unknown, event: string | symbol): void {
		if (event === 'error')
			warn(error);
		else
			this.report(error);
	}
}

/** Errors that nobody listens for. */
export const warn = (error: unknown): void =>
	process.emitWarning(error instanceof Error ? error : String(error), 'EventQueueWarning');
