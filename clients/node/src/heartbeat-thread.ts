/*
 * heartbeat-thread.ts: the thread of heartbeat.ts.  Every beat it extends the leases that
 * are due for it by one call, and tells what became of each.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { maxTimer, now } from './clock';
import { isConnectionError } from './errors';
import { HostsClient, type HostsConfig } from './hosts';
import { extendLeases, type LeasedJob } from './leases';

/** Settings of its connection. */
export interface ThreadData extends HostsConfig {
	/** The process knows the password. */
	askPassword?: boolean;
	/** No thread can be given what it takes to connect: the process extends the leases itself, when it is told that they are due. */
	cannotConnect?: boolean;
}

interface Held extends LeasedJob {
	every: number;
	nextBeat: number;
}

const port = parentPort!;
const held = new Map<string, Held>();
let client: HostsClient | undefined;
let timer: NodeJS.Timeout | undefined;
let beating = false;
let closed = false;
let failures = 0;
/** Given at the start: later the process may be too busy to answer. */
let firstPassword: string | undefined;
let answerPassword: ((answer: { password?: string; error?: string }) => void) | undefined;

port.on('message', message => {
	if (message.type === 'hold') {
		const { id, token, lease, every } = message;
		held.set(token, { id, token, lease, every, nextBeat: now() + every });
		schedule();
	} else if (message.type === 'drop')
		held.delete(message.token);
	else if (message.type === 'password')
		if (answerPassword === undefined)
			firstPassword = message.password;
		else
			answerPassword(message);
	else if (message.type === 'close') {
		closed = true;
		clearTimeout(timer);
		(client?.end() ?? Promise.resolve()).catch(() => {}).then(() => port.close());
	}
});

function schedule(): void {
	clearTimeout(timer);
	if (closed || beating || held.size === 0)
		return;
	let next = Infinity;
	for (const lease of held.values())
		next = Math.min(next, lease.nextBeat);
	timer = setTimeout(() => void beat(), Math.max(0, Math.min(next - now(), maxTimer)));
}

async function connected(): Promise<HostsClient> {
	if (client !== undefined)
		return client;
	const { askPassword, cannotConnect: _cannot, ...config } = workerData as ThreadData;
	if (firstPassword !== undefined) {
		config.password = firstPassword;
		firstPassword = undefined;
	} else if (askPassword) {
		const { password, error } = await new Promise<{ password?: string; error?: string }>(resolve => {
			answerPassword = answer => {
				answerPassword = undefined;
				resolve(answer);
			};
			port.postMessage({ type: 'password' });
		});
		if (error !== undefined)
			throw new Error(`the password function failed: ${error}`);
		config.password = password;
	}
	// A call that gets no answer (the network is cut) is made again on another connection.
	const made = new HostsClient({ keepAlive: true, ...config, connectionTimeoutMillis: 5000, query_timeout: 10_000, application_name: `${config.application_name} heartbeat` });
	const forget = () => {
		if (client === made)
			client = undefined;
	};
	made.on('error', forget);
	made.on('end', forget);
	await made.connect();
	client = made;
	return made;
}

async function beat(): Promise<void> {
	beating = true;
	try {
		// Those that are due soon go along.
		const due = () => [...held.values()].filter(lease => lease.nextBeat <= now() + lease.every / 4);
		if ((workerData as ThreadData).cannotConnect) {
			for (const lease of due())
				lease.nextBeat = now() + lease.every;
			port.postMessage({ type: 'beat' });
			return;
		}
		const database = await connected();
		const items = due();
		const extended = new Map((await extendLeases(async (sql, values) => (await database.query(sql, values)).rows, items)).map(row => [row.token, row]));
		for (const item of items) {
			const row = extended.get(item.token);
			item.nextBeat = now() + (row === undefined ? Math.min(300, item.every) : item.every);
			if (row === undefined || !held.has(item.token))
				continue;
			if (row.state === 'lost')
				held.delete(item.token);
			port.postMessage({ type: 'news', token: item.token, news: row.state === 'leased' ? { state: 'leased', until: row.until } : { state: row.state } });
		}
		failures = 0;
	} catch (error) {
		failures++;
		port.postMessage({ type: 'error', message: `heartbeat: ${(error as Error).message}`, isOfConnection: isConnectionError(error) });
		const again = now() + Math.min(2000, 50 * 2 ** Math.min(failures, 6));
		for (const lease of held.values())
			lease.nextBeat = Math.max(lease.nextBeat, again);
		const broken = client;
		client = undefined;
		broken?.end().catch(() => {});
	} finally {
		beating = false;
		schedule();
	}
}
