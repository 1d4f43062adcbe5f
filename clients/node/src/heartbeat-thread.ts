/*
 * heartbeat-thread.ts: the thread of heartbeat.ts.  Every beat it extends the leases that
 * are due for it by one call, and tells what became of each.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { maxTimer, now } from './clock';
import { isConnectionError } from './errors';
import { HostsClient, type HostsConfig } from './hosts';

interface Held {
	id: string;
	token: string;
	lease: number | null;
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
let answerPassword: ((answer: { password?: string; error?: string }) => void) | undefined;

port.on('message', message => {
	if (message.type === 'hold') {
		const { id, token, lease, every } = message;
		held.set(token, { id, token, lease, every, nextBeat: now() + every });
		schedule();
	} else if (message.type === 'drop')
		held.delete(message.token);
	else if (message.type === 'password')
		answerPassword?.(message);
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
	const { askPassword, ...config } = workerData as HostsConfig & { askPassword?: boolean };
	if (askPassword) {
		const { password, error } = await new Promise<{ password?: string; error?: string }>(resolve => {
			answerPassword = resolve;
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

/*
 * A job whose row is locked (its step is part of a transaction that is open) is nobody else's
 * meanwhile; it must not hold up the leases of the others.
 */
async function extend(database: HostsClient, items: Held[], lease: number | null): Promise<void> {
	let rows: Array<{ token: string; state: string; until: number }>;
	try {
		({ rows } = await database.query(
			`SELECT t.token::text AS token, r.state, (extract(epoch FROM r.leased_until) * 1000)::float8 AS until
			FROM unnest($1::bigint[], $2::uuid[]) WITH ORDINALITY t(id, token, n)
			JOIN event_queue.extend_leases($1::bigint[], $2::uuid[],
				CASE WHEN pg_catalog.set_config('lock_timeout', '300ms', true) IS NOT NULL THEN $3::interval END)
				WITH ORDINALITY r(job_id, state, leased_until, n) USING (n)`,
			[items.map(item => item.id), items.map(item => item.token), lease === null ? null : `${lease} milliseconds`]));
	} catch (error) {
		if ((error as { code?: string }).code !== '55P03')
			throw error;
		if (items.length > 1)
			for (const item of items)
				await extend(database, [item], lease);
		else
			items[0].nextBeat = now() + Math.min(300, items[0].every);
		return;
	}
	for (const row of rows) {
		const item = held.get(row.token);
		if (item === undefined)
			continue;
		item.nextBeat = now() + item.every;
		if (row.state === 'lost')
			held.delete(row.token);
		port.postMessage({ type: 'news', token: row.token,
			news: row.state === 'leased' ? { state: 'leased', until: Number(row.until) } : { state: row.state } });
	}
}

async function beat(): Promise<void> {
	beating = true;
	try {
		const database = await connected();
		// Those that are due soon go along.
		const due = [...held.values()].filter(lease => lease.nextBeat <= now() + lease.every / 4);
		for (const lease of new Set(due.map(item => item.lease)))
			await extend(database, due.filter(item => item.lease === lease), lease);
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
