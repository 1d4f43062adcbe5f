#!/usr/bin/env node
/*
 * cli.ts: the program pg-event-queue: sync.
 */
import { parseArgs } from 'node:util';
import { EventQueue } from './event-queue';

const usage = `pg-event-queue sync [--database URI] FILE
    holds queues and rules to the declaration in a JSON file

Without --database the PG... variables say where.
`;

async function main(): Promise<void> {
	const { values, positionals: [verb, ...rest] } = parseArgs({
		allowPositionals: true,
		options: { database: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
	});
	if (values.help === true) {
		process.stdout.write(usage);
		return;
	}
	if (verb !== 'sync' || rest.length !== 1)
		throw new Error(`usage:\n${usage}`);
	const eq = new EventQueue({ connection: values.database, applicationName: 'pg-event-queue', handleSignals: false });
	try {
		await eq.ready();
		const report = await eq.sync(rest[0]);
		for (const [did, what] of Object.entries(report))
			for (const name of what)
				process.stdout.write(`${did} ${name}\n`);
	} finally {
		await eq.close();
	}
}

main().catch(error => {
	process.stderr.write(`pg-event-queue: ${error.message}\n`);
	process.exitCode = 1;
});
