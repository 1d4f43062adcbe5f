/*
 * outage.ts: of a server that can't be reached, or is read-only, workers and subscriptions
 * tell once, when it has lasted for some seconds, and once more when it is over.  What the
 * server refuses they try again, too, and tell once as long as it says the same.
 */
import { now } from './clock';
import { ConnectionError, ReadOnlyError } from './errors';

/** Shorter ones (a restart, a failover) are nobody's business; ms. */
const toldAfter = 5000;

export class Outage {
	private since?: number;
	private told = false;
	private refusal?: string;

	/** What: who can't go on.  */
	constructor(private readonly what: string) {}

	/** A call failed; what is to be reported, if it is time to. */
	failed(error: unknown): ConnectionError | undefined {
		this.since ??= now();
		const ms = now() - this.since;
		if (this.told || ms < toldAfter)
			return undefined;
		this.told = true;
		const message = `${this.what} is held up since ${Math.round(ms / 1000)} s, and tries again: ${(error as Error).message}`;
		return error instanceof ReadOnlyError ? new ReadOnlyError(message, { cause: error }) : new ConnectionError(message, false, error);
	}

	/** The server refused a call, as it will the next one (a grant is missing, the queue is gone): true if that is news. */
	refused(error: unknown): boolean {
		const refusal = String((error as Error)?.message ?? error);
		const isNews = refusal !== this.refusal;
		this.refusal = refusal;
		this.told = true;
		return isNews;
	}

	/** A call went through; true if it was told that they don't. */
	over(): boolean {
		const { told } = this;
		this.since = this.refusal = undefined;
		this.told = false;
		return told;
	}
}
