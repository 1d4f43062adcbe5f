#!/usr/bin/env node
/*
 * cli.ts: the program pg-event-queue, with the verbs sync and import-bull.
 */
import { parseArgs } from 'node:util';
import { EventQueue } from './event-queue';
import { readDeclaration, syncSql } from './sync';
import { formatImport, importBull, type RedisLike } from './import-bull';

const usage = `pg-event-queue sync [--database URI] [--print] FILE
    holds queues and rules to the declaration in a JSON file
    --print     asks no database; prints the SQL that does it, for a migration

pg-event-queue import-bull [--database URI] [--redis URI] [--prefix bull] [--queue NAME]...
        [--into NAME=NAME]... [--tenant NAME] [--create] [--remove] [--json]
    adds waiting, delayed and failed jobs of Bull 4 to queues and dead letters; once
    each, however often it is run.  Stop Bull's workers before.
    --queue     only these; default all that there are
    --into      Bull's queue=the queue here; default of the same name
    --create    makes queues that are missing
    --remove    removes from Redis what is imported

Without --database the PG... variables say where; --redis is redis://127.0.0.1:6379 without it.
`;

const options = {
	database: { type: 'string' }, help: { type: 'boolean', short: 'h' }, print: { type: 'boolean' },
	redis: { type: 'string' }, prefix: { type: 'string' }, queue: { type: 'string', multiple: true }, into: { type: 'string', multiple: true },
	tenant: { type: 'string' }, create: { type: 'boolean' }, remove: { type: 'boolean' }, json: { type: 'boolean' },
} as const;
type Values = ReturnType<typeof parseArgs<{ allowPositionals: true; options: typeof options }>>['values'];

const common = ['database', 'help'];
const onlyImport = Object.keys(options).filter(name => !common.includes(name) && name !== 'print');

async function syncFile(eq: EventQueue, file: string): Promise<void> {
	for (const [did, what] of Object.entries(await eq.sync(file)))
		for (const name of what)
			process.stdout.write(`${did} ${name}\n`);
}

/* The application's ioredis, which it has with Bull. */
async function connectRedis(uri: string): Promise<RedisLike & { disconnect(): void }> {
	let file: string;
	try {
		file = require.resolve('ioredis', { paths: [process.cwd(), __dirname] });
	} catch {
		throw new Error('import-bull needs ioredis, which comes with Bull: run it in the application\'s directory, or npm install ioredis');
	}
	const library = require(file);
	const redis = new (library.Redis ?? library.default ?? library)(uri, { lazyConnect: true, retryStrategy: () => null });
	let failure: Error | undefined;
	redis.on('error', (error: Error) => { failure = error; });
	try {
		await redis.connect();
	} catch (error) {
		throw new Error(`Redis at ${uri.replace(/\/\/.*@/, '//')} can't be reached: ${(failure ?? error as Error).message}`);
	}
	return redis;
}

async function importJobs(eq: EventQueue, values: Values): Promise<void> {
	const into = Object.fromEntries((values.into ?? []).map(pair => {
		const at = pair.indexOf('=');
		if (at < 1 || at === pair.length - 1)
			throw new Error(`--into is ${pair}, not NAME=NAME`);
		return [pair.slice(0, at), pair.slice(at + 1)];
	}));
	const redis = await connectRedis(values.redis ?? 'redis://127.0.0.1:6379');
	try {
		const { prefix, queue: queues, create, remove, tenant: tenantId } = values;
		const reports = await importBull(eq, redis, { prefix, queues, into, create, remove, tenantId });
		process.stdout.write(values.json === true ? `${JSON.stringify(reports, null, '\t')}\n` : formatImport(reports));
		if (reports.some(report => report.refused.length > 0))
			process.exitCode = 2;
	} finally {
		redis.disconnect();
	}
}

async function main(): Promise<void> {
	const { values, positionals: [verb, ...rest] } = parseArgs({ allowPositionals: true, options });
	if (values.help === true) {
		process.stdout.write(usage);
		return;
	}
	if (!(verb === 'sync' && rest.length === 1 && onlyImport.every(name => values[name as keyof Values] === undefined)) &&
		!(verb === 'import-bull' && rest.length === 0 && values.print === undefined))
		throw new Error(`usage:\n${usage}`);
	if (values.print === true) {
		process.stdout.write(syncSql(await readDeclaration(rest[0])));
		return;
	}
	const eq = new EventQueue({ connection: values.database, applicationName: 'pg-event-queue', handleSignals: false });
	try {
		await eq.ready();
		await (verb === 'sync' ? syncFile(eq, rest[0]) : importJobs(eq, values));
	} finally {
		await eq.close();
	}
}

main().catch(error => {
	process.stderr.write(`pg-event-queue: ${error.message}\n`);
	process.exitCode = 1;
});
