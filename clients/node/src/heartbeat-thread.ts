/*
 * heartbeat-thread.ts: the thread of heartbeat.ts.  Every beat it extends the leases that
 * are due for it by one call, and tells what became of each.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Client, type ClientConfig } from 'pg';

interface Held {
	id: string;
	token: string;
	lease: number | null;
	every: number;
	nextBeat: number;
}

const port = parentPort!;
const held = new Map<string, Held>();
let client: Client | undefined;
let timer: NodeJS.Timeout | undefined;
let beating = false;
let closed = false;
let failures = 0;
let answerPassword: ((password: string) => void) | undefined;

port.on('message', message => {
	if (message.type === 'hold') {
		const { id, token, lease, every } = message;
		held.set(token, { id, token, lease, every, nextBeat: Date.now() + every });
		schedule();
	} else if (message.type === 'drop')
		held.delete(message.token);
	else if (message.type === 'password')
		answerPassword?.(message.password);
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
	timer = setTimeout(() => void beat(), Math.max(0, next - Date.now()));
}

async function connected(): Promise<Client> {
	if (client !== undefined)
		return client;
	const { askPassword, ...config } = workerData as ClientConfig & { askPassword?: boolean };
	if (askPassword)
		config.password = await new Promise<string>(resolve => {
			answerPassword = resolve;
			port.postMessage({ type: 'password' });
		});
	// A call that gets no answer (the network is cut) is made again on another connection.
	const made = new Client({ keepAlive: true, ...config, connectionTimeoutMillis: 5000, query_timeout: 10_000, application_name: `${config.application_name} heartbeat` });
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
		const database = await connected();
		// Those that are due soon go along.
		const due = [...held.values()].filter(lease => lease.nextBeat <= Date.now() + lease.every / 4);
		for (const lease of new Set(due.map(item => item.lease))) {
			const items = due.filter(item => item.lease === lease);
			const result = await database.query(
				`SELECT t.token::text AS token, r.state, (extract(epoch FROM r.leased_until) * 1000)::float8 AS until
				FROM unnest($1::bigint[], $2::uuid[]) WITH ORDINALITY t(id, token, n)
				JOIN event_queue.extend_leases($1::bigint[], $2::uuid[], $3::interval) WITH ORDINALITY r(job_id, state, leased_until, n) USING (n)`,
				[items.map(item => item.id), items.map(item => item.token), lease === null ? null : `${lease} milliseconds`]);
			for (const row of result.rows) {
				const item = held.get(row.token);
				if (item === undefined)
					continue;
				item.nextBeat = Date.now() + item.every;
				if (row.state === 'lost')
					held.delete(row.token);
				port.postMessage({ type: 'news', token: row.token,
					news: row.state === 'leased' ? { state: 'leased', until: Number(row.until) } : { state: row.state } });
			}
		}
		failures = 0;
	} catch (error) {
		failures++;
		port.postMessage({ type: 'error', message: `heartbeat: ${(error as Error).message}` });
		const again = Date.now() + Math.min(2000, 50 * 2 ** Math.min(failures, 6));
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
