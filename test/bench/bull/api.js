// api.js: the same NestJS API over HTTP with @nestjs/bull on Redis and with pg-event-queue/nestjs:
// milliseconds of a call, and from the call to the last task, at 1,000 leads a minute.  Run by
// run.sh after bench.js; as "api.js serve DIRECTORY" the process of one of them.
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const { createRequire } = require('node:module');
const os = require('node:os');
const path = require('node:path');

const client = process.env.EQ_CLIENT;
const from = createRequire(path.join(client, 'package.json'));
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const seconds = Number(process.env.API_SECONDS ?? 30);
const perMinute = 1000;

async function serve(directory) {
	from('reflect-metadata');
	const { NestFactory } = from('@nestjs/core');
	const { AppModule } = require(path.join(directory, 'app.js'));
	const app = await NestFactory.create(AppModule, { logger: ['error'] });
	await app.listen(0, '127.0.0.1');
	console.log(await app.getUrl());
}

const percentile = (values, p) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.ceil(values.length * p) - 1)];

async function measure(imports, env) {
	const { compile } = require(path.join(client, 'test', 'nestjs-lib.js'));
	const { out } = compile(path.join(__dirname, 'api'), { as: `bench-api-${imports}`, imports });
	const child = spawn(process.execPath, [__filename, 'serve', out], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env, NODE_NO_WARNINGS: '1' } });
	const url = await new Promise((resolve, reject) => {
		child.stdout.on('data', data => resolve(String(data).trim()));
		child.on('exit', code => reject(new Error(`the API with ${imports} imports ended: ${code}`)));
	});
	const post = async n => {
		const begin = performance.now();
		const response = await fetch(`${url}/leads`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ n }) });
		if (response.status !== 201)
			throw new Error(`${response.status}: ${await response.text()}`);
		await response.json();
		return performance.now() - begin;
	};
	const lags = async wanted => {
		for (;;) {
			const all = await (await fetch(`${url}/lags`)).json();
			if (all.length >= wanted)
				return all;
			await sleep(50);
		}
	};
	// warm
	const warm = 50;
	for (let n = 0; n < warm; n++)
		await post(n);
	await lags(warm);
	const total = Math.round(seconds * perMinute / 60);
	const begin = Date.now();
	const calls = [];
	for (let n = 0; n < total; n++) {
		await sleep(begin + n * 60_000 / perMinute - Date.now());
		calls.push(post(warm + n));
	}
	const api = await Promise.all(calls);
	const lag = (await lags(warm + total)).slice(warm);
	child.removeAllListeners('exit');
	const ended = new Promise(resolve => child.once('exit', resolve));
	child.kill();
	await ended;
	return { api_p50: percentile(api, 0.5), api_p99: percentile(api, 0.99), lag_p50: percentile(lag, 0.5), lag_p99: percentile(lag, 0.99) };
}

async function withRedis(fsync, work) {
	const Redis = from('ioredis');
	const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eq-bench-redis.'));
	const socket = path.join(dir, 'socket');
	const server = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--dir', dir, '--save', '', '--appendonly', 'yes', '--appendfsync', fsync], { stdio: 'ignore' });
	const probe = new Redis(socket, { maxRetriesPerRequest: null });
	probe.on('error', () => {});
	try {
		await probe.ping();
		return await work({ REDIS_SOCKET: socket });
	} finally {
		probe.disconnect();
		server.kill();
		fs.rmSync(dir, { recursive: true, force: true });
	}
}

async function run() {
	const { Client } = from('pg');
	const admin = new Client({ database: 'postgres' });
	await admin.connect();
	await admin.query('CREATE DATABASE bench_api');
	await admin.end();
	process.env.PGDATABASE = 'bench_api';
	const db = new Client();
	await db.connect();
	await db.query('CREATE EXTENSION event_queue');
	await db.end();
	const ours = await measure('ours', {});
	for (const fsync of ['everysec', 'always']) {
		const theirs = await withRedis(fsync, env => measure('bull', env));
		for (const field of Object.keys(ours))
			console.log(`BENCH nestjs_${fsync}_${field}_ms event_queue=${ours[field].toFixed(2)} yardstick=${theirs[field].toFixed(2)} ratio=${(ours[field] / theirs[field]).toFixed(2)}`);
	}
}

(process.argv[2] === 'serve' ? serve(process.argv[3]) : run().then(() => process.exit(0))).catch(error => {
	console.error(error);
	process.exit(1);
});
