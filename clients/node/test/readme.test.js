// The README's first job, followed literally in an empty folder with the packed package: the
// commands in their order, the file as it stands, the same in CommonJS, and TypeScript that is strict.
const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { execFileSync, spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { query, until, once, where } = require('./helpers');

const root = path.join(__dirname, '..');
const section = /^## The first job$([^]*?)^SIGTERM/m.exec(fs.readFileSync(path.join(root, 'README.md'), 'utf8'))[1];
const blocks = [...section.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].map(([, language, text]) => ({ language, text }));
const block = language => blocks.find(one => one.language === language).text;
const connection = { ...where, database: 'app' };
const uri = `postgresql://postgres@${encodeURIComponent(where.host)}:${where.port}/app`;
const here = text => text.replaceAll('postgresql://localhost/app', uri);
const env = { ...process.env, PATH: `${process.env.PG_BINDIR}:${process.env.PATH}`, PGUSER: 'postgres', PGDATABASE: 'postgres' };
let dir, tarball;

before(async () => {
	await query({ ...where, database: 'postgres' }, 'DROP DATABASE IF EXISTS app WITH (FORCE)');
	dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eq-readme-'));
	const packed = execFileSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', dir], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
	tarball = path.join(dir, JSON.parse(packed)[0].filename);
});
after(() => fs.rmSync(dir, { recursive: true, force: true }));

/** Runs the file until its job was done, then ends it by Ctrl-C. */
async function run(file) {
	const child = spawn(process.execPath, [file], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
	let said = '', complained = '';
	child.stdout.on('data', data => { said += data; });
	child.stderr.on('data', data => { complained += data; });
	const ended = once(child, 'close');
	await until(() => said.includes('\n') || child.exitCode !== null, 'the job is done');
	child.kill('SIGINT');
	await ended;
	assert.deepEqual([said, complained], ['welcome to ana@example.org\n', '']);
	assert.deepEqual(await query(connection, 'SELECT state FROM event_queue.jobs'), []);
}

test('from npm install to the first job', async () => {
	const [install, start] = blocks.filter(one => one.language === 'sh').map(one => one.text);
	assert.equal(install.match(/^npm install pg-event-queue$/m)?.length, 1);
	execFileSync('bash', ['-euc', install.replace('npm install pg-event-queue', `npm install --no-audit --no-fund "${tarball}"`)], { cwd: dir, env, stdio: ['ignore', 'ignore', 'inherit'] });
	assert.match(start, /^node first\.mjs$/m);
	fs.writeFileSync(path.join(dir, 'first.mjs'), here(block('js')));
	await run('first.mjs');
});

test('the same in CommonJS', async () => {
	const [imports, rest] = [/^import (\{.*\}) from ('.*');$/m, here(block('js'))];
	fs.writeFileSync(path.join(dir, 'first.cjs'), `${rest.replace(imports, 'const $1 = require($2);\n(async () => {')}})();\n`);
	await run('first.cjs');
});

test('TypeScript, strict, with the checks of libraries: as an ES module and as CommonJS; what has another type does not compile', () => {
	const typed = here(block('ts'));
	/** What the compiler says of the files. */
	const compile = (files, options = {}) => {
		for (const [name, text] of Object.entries(files))
			fs.writeFileSync(path.join(dir, name), text);
		fs.writeFileSync(path.join(dir, 'tsconfig.json'), JSON.stringify({
			compilerOptions: { target: 'ES2022', module: 'Node16', strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, skipLibCheck: false, types: ['node'], ...options },
			files: Object.keys(files),
		}));
		try {
			return execFileSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', '.'], { cwd: dir, encoding: 'utf8' });
		} catch (error) {
			return error.stdout;
		}
	};
	assert.equal(compile({ 'typed.mts': typed, 'whole.mts': block('js'), 'steps.cts': `
		import { EventQueue, type SignalOutcome, type Job, UnrecoverableError } from 'pg-event-queue';
		const eq = new EventQueue();
		eq.worker<{ order: string }, number>('orders', async (job: Job<{ order: string }, number>, signal: AbortSignal) => {
			const n: number = await job.step('n', async () => 1, { undo: { name: 'undo', data: job.data } });
			const paid: SignalOutcome<{ amount: number }> = await job.awaitSignal<{ amount: number }>('paid', { key: job.data.order, timeout: 1000 });
			if (paid.state === 'timed out' || signal.aborted)
				throw new UnrecoverableError('not paid');
			await job.sleep('a while', new Date());
			const { state } = await job.awaitEvent<{ box: number }>('packed', 'order.packed', { aggregateType: 'order', aggregateId: '1' });
			return state === 'received' ? n + paid.payload.amount : 0;
		}).on('suspended', job => console.log(job.id));
		void eq.sendSignal('paid', 'O1', { amount: 1 }).then((first: boolean) => first);` }), '');
	assert.match(execFileSync(process.execPath, ['typed.mjs'], { cwd: dir, encoding: 'utf8' }), /^job \d+ to ana@example\.org\n$/);
	const said = compile({ 'data.mts': typed.replace("to: 'ana", "too: 'ana"), 'name.mts': typed.replace("'welcome', {", "'goodbye', {"), 'queue.mts': typed.replace("'mail'", "'post'") });
	assert.match(said, /^data\.mts.*'too' does not exist/m);
	assert.match(said, /^name\.mts.*"goodbye"/m);
	assert.match(said, /^queue\.mts.*"post"/m);

	// As projects of Nest are made: CommonJS, where TypeScript does not read "exports".
	fs.symlinkSync(path.join(root, 'node_modules', '@nestjs'), path.join(dir, 'node_modules', '@nestjs'));
	const nest = `
		import { Module } from '@nestjs/common';
		import { EventQueue } from 'pg-event-queue';
		import { BullModule, InjectQueue, Process, Processor, type Job, type Queue } from 'pg-event-queue/nestjs';
		@Processor('mail') class Mail { @Process('welcome') async welcome(job: Job<{ to: string }>): Promise<string> { await job.update({ to: 'x' }); return job.data.to; } }
		class Service { constructor(@InjectQueue('mail') private readonly mail: Queue<{ to: string }>) {} add() { return this.mail.add('welcome', { to: 'ana' }, { repeat: { every: 1000, limit: 2 } }); } }
		@Module({ imports: [BullModule.forRoot({}), BullModule.registerQueue({ name: 'mail' })], providers: [Mail, Service] }) export class App { store = EventQueue; }`;
	assert.equal(compile({ 'nest.ts': nest }, { experimentalDecorators: true, emitDecoratorMetadata: true, noEmit: true, skipLibCheck: true, module: 'CommonJS' }), '');
});
