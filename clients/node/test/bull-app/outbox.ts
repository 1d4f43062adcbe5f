import { Injectable } from '@nestjs/common';

/** Stands for the mail provider: remembers what was sent, and fails as often as it is told. */
@Injectable()
export class Outbox {
	readonly sent: string[] = [];
	readonly heard: string[] = [];
	private readonly failures = new Map<string, number>();

	failNext(to: string, times: number): void {
		this.failures.set(to, times);
	}

	async send(what: string, to: string): Promise<string> {
		const left = this.failures.get(to) ?? 0;
		if (left > 0) {
			this.failures.set(to, left - 1);
			throw new Error(`no answer for ${to}`);
		}
		this.sent.push(`${what} ${to}`);
		return `sent to ${to}`;
	}
}
