/*
 * scope.ts: a transaction of this package's own, as the application gets it.
 *
 * Statements that are asked for at the same time go one after the other, as pg wants them;
 * the end waits for all; and one that comes after it is refused, as the connection may be in
 * somebody else's transaction by then.
 */
import type { ClientBase } from 'pg';
import { InvalidTransactionError } from './errors';

export class Scope<Client extends ClientBase = ClientBase> {
	/** The client, for this transaction only. */
	readonly tx: Client;
	/** Settles when the last statement so far has ended. */
	private last?: Promise<void>;
	private isOver = false;

	constructor(private readonly client: Client) {
		this.tx = new Proxy(client, {
			get: (target: any, name) => {
				if (name === 'query')
					return this.query;
				const value = target[name];
				return typeof value === 'function' ? value.bind(target) : value;
			},
		});
	}

	private readonly query = (...args: any[]): any => {
		const [first] = args;
		const callback = args.find(arg => typeof arg === 'function') ?? first?.callback;
		if (this.isOver) {
			const error = new InvalidTransactionError('tx is a transaction that has ended: await what is done in it');
			return callback === undefined ? Promise.reject(error) : void process.nextTick(callback, error);
		}
		const send = () => (this.client.query as any)(...args);
		// With a callback, or of a cursor or stream, there is no promise to wait for.
		if (callback !== undefined || typeof first?.submit === 'function')
			return send();
		const made: Promise<unknown> = this.last === undefined ? send() : this.last.then(send);
		const ended = made.then(() => {}, () => {}).then(() => {
			if (this.last === ended)
				this.last = undefined;
		});
		this.last = ended;
		// Of its own, so that an error that nobody awaits is told as one.
		return made.then(result => result);
	};

	/** No more statements; when those that are on their way have ended. */
	async end(): Promise<void> {
		this.isOver = true;
		while (this.last !== undefined)
			await this.last;
	}
}
