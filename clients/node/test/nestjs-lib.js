// nestjs-lib.js: a database of one's own, and TypeScript applications compiled for the tests.
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { Client } = require('pg');

const root = path.join(__dirname, '..');
const scratch = path.join(root, 'test', 'build');
const tsc = require.resolve('typescript/bin/tsc');

/** A database with the extension; this process's connections go to it from now on. */
async function ownDatabase(name) {
	const admin = new Client({ database: 'postgres' });
	await admin.connect();
	await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
	await admin.query(`CREATE DATABASE ${name}`);
	await admin.end();
	process.env.PGDATABASE = name;
	const db = new Client({ database: name });
	await db.connect();
	await db.query('CREATE EXTENSION event_queue');
	return db;
}

const OURS = { "'@nestjs/bull'": "'pg-event-queue/nestjs'", "'bull'": "'pg-event-queue/nestjs'" };

/**
 * The sources of a folder, checked and compiled; with imports: ours, what is imported
 * from Bull and @nestjs/bull is imported from this package, and nothing else is changed.
 */
function compile(folder, { as, imports, emit = true }) {
	const to = path.join(scratch, as);
	fs.rmSync(to, { recursive: true, force: true });
	fs.mkdirSync(path.join(to, 'src'), { recursive: true });
	let changed = 0;
	for (const file of fs.readdirSync(path.resolve(__dirname, folder))) {
		let text = fs.readFileSync(path.resolve(__dirname, folder, file), 'utf8');
		if (imports === 'ours')
			text = text.replace(/(\bfrom )('@nestjs\/bull'|'bull')(;)$/gm, (_, from, of, end) => {
				changed++;
				return from + OURS[of] + end;
			});
		fs.writeFileSync(path.join(to, 'src', file), text);
	}
	fs.writeFileSync(path.join(to, 'tsconfig.json'), JSON.stringify({
		compilerOptions: {
			target: 'ES2022', module: 'Node16', moduleResolution: 'Node16', strict: true, types: ['node'],
			experimentalDecorators: true, emitDecoratorMetadata: true, esModuleInterop: true, skipLibCheck: true,
			rootDir: 'src', outDir: 'out', noEmit: !emit,
		},
		include: ['src'],
	}));
	try {
		execFileSync(process.execPath, [tsc, '-p', to], { encoding: 'utf8' });
	} catch (error) {
		throw new Error(`${folder} as ${as} does not compile:\n${error.stdout}`);
	}
	return { out: path.join(to, 'out'), changed };
}

/** Waits for what comes by itself: no test depends on how long it takes, but for a limit. */
async function until(what, condition, limit = 60_000) {
	const end = Date.now() + limit;
	for (;;) {
		const value = await condition();
		if (value)
			return value;
		if (Date.now() > end)
			throw new Error(`waited ${limit / 1000} s for: ${what}`);
		await new Promise(resolve => setTimeout(resolve, 20));
	}
}

module.exports = { ownDatabase, compile, until };
