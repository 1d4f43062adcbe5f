/*
 * sync.ts: holds the database to a declaration of queues and rules; behind
 * EventQueue.sync and the program's verb sync.
 */
import { readFile } from 'node:fs/promises';
import { UnsupportedOptionError } from './errors';
import { toJson } from './json';
import { encodeQueueSettings, interval, knownSettings, type QueueSettings } from './options';
import { textOrNull } from './database';
import type { Executor, Value } from './tx';

/** A rule, as the arguments of event_queue.create_rule. */
export interface RuleDeclaration {
	/** A pattern: lead.created, lead.* */
	eventPattern?: string;
	/** Instead of eventPattern: a table, whose changed rows are the events. */
	onTable?: string;
	/** Which changes of the table; default all. */
	onChange?: Array<'insert' | 'update' | 'delete'>;
	/** The column of the table that names the tenant. */
	tenantColumn?: string;
	/** A SQL expression over the event's columns; of a table also over old and new, the rows as jsonb. */
	condition?: string;
	/** Fields of the event's data, or columns of the table, of which one must have changed. */
	whenChanged?: string[];
	/** Action: a job, or a function. */
	queue?: string;
	jobName?: string;
	/** A template. */
	payload?: unknown;
	function?: string;
	/** ms */
	delay?: number;
	/** 0 (first) to 9 */
	priorityLevel?: number;
	/** Options of its jobs as event_queue.enqueue takes them, with JSON paths: { unique_key: '$.aggregate_id' }. */
	options?: Record<string, unknown>;
	tenantId?: string;
	onLoop?: 'skip' | 'allow';
	/** Several actions, as event_queue.create_rule has them, instead of queue or function. */
	actions?: Array<Record<string, unknown>>;
	/** No rule after this one sees the event. */
	stop?: boolean;
	/** Lower ones are first; default 0. */
	order?: number;
}

export interface Declaration {
	/** Settings that a queue does not name stay as they are; null gives the default, which for limits is none. */
	queues?: Record<string, QueueSettings>;
	/** True: settings that a queue does not name get their defaults, too. */
	exact?: boolean;
	/** A rule that is there gets the whole definition, as a new version; paused, it stays so. */
	rules?: Record<string, RuleDeclaration>;
	/** What is to be gone.  A queue that has jobs is only dropped with force. */
	drop?: { rules?: string[]; queues?: string[]; force?: boolean };
}

/** What was done: 'queue mail', 'rule welcome'. */
export interface SyncReport {
	created: string[];
	altered: string[];
	dropped: string[];
}

const ruleArguments = ['eventPattern', 'condition', 'whenChanged', 'queue', 'jobName', 'payload', 'function', 'delay', 'priorityLevel',
	'options', 'tenantId', 'onLoop', 'actions', 'stop', 'order', 'onTable', 'onChange', 'tenantColumn'];

function check(what: string, given: unknown, known: string[]): void {
	if (given === null || typeof given !== 'object' || Array.isArray(given))
		throw new UnsupportedOptionError(`${what} of the declaration is ${JSON.stringify(given)}, not an object`);
	for (const [name, value] of Object.entries(given))
		if (value !== undefined && !known.includes(name))
			throw new UnsupportedOptionError(`${what} of the declaration has ${name}, which is not known; known are ${known.join(', ')}`);
}

/** Throws before anything is done. */
function checkDeclaration(wanted: Declaration): void {
	check('the whole', wanted, ['queues', 'exact', 'rules', 'drop']);
	for (const [name, settings] of Object.entries(wanted.queues ?? {}))
		check(`queue "${name}"`, settings, [...knownSettings, 'tenantId']);
	for (const [name, rule] of Object.entries(wanted.rules ?? {})) {
		check(`rule "${name}"`, rule, ruleArguments);
		if (typeof rule.eventPattern === 'string' === (typeof rule.onTable === 'string'))
			throw new UnsupportedOptionError(`rule "${name}" of the declaration has ${rule.onTable === undefined ? 'no eventPattern, nor onTable' : 'both eventPattern and onTable'}`);
	}
	check('drop', wanted.drop ?? {}, ['rules', 'queues', 'force']);
	for (const kind of ['queues', 'rules'] as const)
		for (const name of wanted.drop?.[kind] ?? [])
			if (wanted[kind]?.[name] !== undefined)
				throw new UnsupportedOptionError(`the declaration has "${name}" both in ${kind} and in drop.${kind}`);
}

export async function readDeclaration(path: string): Promise<Declaration> {
	const text = await readFile(path, 'utf8');
	try {
		return JSON.parse(text);
	} catch (error) {
		throw new UnsupportedOptionError(`${path} is no JSON: ${(error as Error).message}`);
	}
}

const arrayLiteral = (items: unknown[]): string =>
	`{${items.map(item => `"${String(item).replace(/["\\]/g, '\\$&')}"`).join(',')}}`;

/** In the transaction of the executor. */
export async function sync(run: Executor, wanted: Declaration): Promise<SyncReport> {
	const report: SyncReport = { created: [], altered: [], dropped: [] };

	checkDeclaration(wanted);
	// Two instances that start at once: the second finds what the first made.
	await run(`SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('event_queue sync', 0))::text`, []);
	for (const name of [...wanted.drop?.rules ?? []].sort())
		if ((await run('SELECT name FROM event_queue.rules WHERE name = $1::text', [name])).length > 0) {
			await run('SELECT event_queue.drop_rule($1::text)::text', [name]);
			report.dropped.push(`rule ${name}`);
		}
	for (const name of Object.keys(wanted.queues ?? {}).sort())
		await syncQueue(run, name, wanted.queues![name], wanted.exact === true, report);
	for (const name of Object.keys(wanted.rules ?? {}).sort())
		await syncRule(run, name, wanted.rules![name], report);
	// A rule may have gone to another queue.
	for (const name of [...wanted.drop?.queues ?? []].sort())
		if ((await run('SELECT name FROM event_queue.queue WHERE name = $1::text', [name])).length > 0) {
			await run('SELECT event_queue.drop_queue($1::text, force => $2::text::boolean)::text', [name, String(wanted.drop?.force ?? false)]);
			report.dropped.push(`queue ${name}`);
		}
	return report;
}

/* The settings that a queue has, their types and defaults (SQL expressions, or NULL). */
const settingsSql = `SELECT a.attname::text AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
		coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'NULL') AS "default"
	FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE a.attrelid = 'event_queue.queue'::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
		AND a.attname <> ALL ('{queue_id,name,paused,draining,created_at}')`;

async function syncQueue(run: Executor, name: string, settings: QueueSettings, exact: boolean, report: SyncReport): Promise<void> {
	const columns = new Map((await run(settingsSql, [])).map(row => [row.name!, row]));
	const encoded = encodeQueueSettings(settings);
	if (exact)
		for (const column of columns.keys())
			encoded[column] ??= null;
	const given = Object.entries(encoded).filter(([, value]) => value !== null);
	const reset = Object.keys(encoded).filter(setting => encoded[setting] === null);
	const values: Value[] = [name, ...given.map(([, value]) => Array.isArray(value) ? arrayLiteral(value) : String(value))];
	const cast = (setting: string, i: number) => `$${i + 2}::text::${columns.get(setting)!.type}`;
	const args = given.map(([setting], i) => `, ${setting} => ${cast(setting, i)}`).join('');

	const differs = [
		...given.map(([setting], i) => `q.${setting} IS DISTINCT FROM ${cast(setting, i)}`),
		...reset.map(setting => `q.${setting} IS DISTINCT FROM ${columns.get(setting)!.default}`),
		'false',
	].join(' OR ');
	const [there] = await run(`SELECT (${differs})::text AS differs FROM event_queue.queue q WHERE q.name = $1::text`, values);
	if (there === undefined) {
		await run(`SELECT event_queue.create_queue($1::text${args})::text`, values);
		report.created.push(`queue ${name}`);
	} else if (there.differs === 'true') {
		await run(`SELECT event_queue.alter_queue($1::text${args}, reset => $${values.length + 1}::text::text[])::text`,
			[...values, reset.length === 0 ? null : arrayLiteral(reset)]);
		report.altered.push(`queue ${name}`);
	}
}

/* The arguments of create_rule after its name, all of them, in the order of the call in syncRule. */
function encodeRule(name: string, rule: RuleDeclaration): Record<string, string | null> {
	const json = (value: unknown, what: string) => value === undefined ? null : toJson(value, `${what} of rule ${name}`);
	return {
		event_pattern: textOrNull(rule.eventPattern), condition: textOrNull(rule.condition), queue: textOrNull(rule.queue), job_name: textOrNull(rule.jobName),
		payload: json(rule.payload, 'the payload'), delay: rule.delay === undefined ? null : interval(rule.delay),
		priority: textOrNull(rule.priorityLevel), function: textOrNull(rule.function), tenant_id: textOrNull(rule.tenantId),
		options: json(rule.options, 'the options'), on_loop: rule.onLoop ?? 'skip',
		when_changed: rule.whenChanged === undefined ? null : arrayLiteral(rule.whenChanged), actions: json(rule.actions, 'the actions'),
		stop: String(rule.stop ?? false), rule_order: String(rule.order ?? 0), on_table: textOrNull(rule.onTable),
		on_change: rule.onChange === undefined ? null : arrayLiteral(rule.onChange), tenant_column: textOrNull(rule.tenantColumn),
	};
}

async function syncRule(run: Executor, name: string, rule: RuleDeclaration, report: SyncReport): Promise<void> {
	const version = async () => (await run('SELECT r.version::text AS version FROM event_queue.rules r WHERE r.name = $1::text', [name]))[0]?.version;
	const before = await version();
	// The same definition once more makes no version.
	await run(
		`SELECT event_queue.create_rule($1::text, $2::text, condition => $3::text, queue => $4::text, job_name => $5::text,
			payload => $6::text::jsonb, delay => $7::text::interval, priority => $8::text::int, function => $9::text, tenant_id => $10::text,
			options => $11::text::jsonb, on_loop => $12::text, when_changed => $13::text::text[], actions => $14::text::jsonb,
			stop => $15::text::boolean, rule_order => $16::text::int, on_table => $17::text::regclass, on_change => $18::text::text[],
			tenant_column => $19::text::name, or_replace => true)::text`,
		[name, ...Object.values(encodeRule(name, rule))]);
	if (before === undefined)
		report.created.push(`rule ${name}`);
	else if (await version() !== before)
		report.altered.push(`rule ${name}`);
}

const literal = (value: unknown): string => {
	const text = `'${String(value).replace(/'/g, "''")}'`;
	// Whatever the server's standard_conforming_strings is; and some run scripts that they split at each semicolon.
	return /[\\;]/.test(text) ? `E${text.replace(/\\/g, '\\\\').replace(/;/g, '\\x3b')}` : text;
};

/**
 * The declaration as a script of SQL, for a migration that is a file (Prisma's, Flyway's): it does
 * what sync does, also when it is run again, and needs the rights of an admin.
 */
export function syncSql(wanted: Declaration): string {
	const lines: string[] = [];
	const args = (given: Array<[string, unknown]>) => given.map(([name, value]) => `, ${name} => ${literal(Array.isArray(value) ? arrayLiteral(value) : value)}`).join('');

	checkDeclaration(wanted);
	lines.push(`SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('event_queue sync', 0));`);
	for (const name of [...wanted.drop?.rules ?? []].sort())
		lines.push(`SELECT event_queue.drop_rule(r.name) FROM event_queue.rules r WHERE r.name = ${literal(name)};`);
	for (const name of Object.keys(wanted.queues ?? {}).sort()) {
		const encoded = encodeQueueSettings(wanted.queues![name]);
		const given = Object.entries(encoded).filter(([, value]) => value !== null);
		const reset = Object.keys(encoded).filter(setting => encoded[setting] === null);
		lines.push(`SELECT event_queue.create_queue(${literal(name)}) WHERE NOT EXISTS (SELECT FROM event_queue.queue q WHERE q.name = ${literal(name)});`);
		if (wanted.exact === true)
			lines.push(`SELECT event_queue.alter_queue(${literal(name)}${args(given)}, reset => (SELECT pg_catalog.array_agg(s.name) FROM (${settingsSql}) s`
				+ ` WHERE s.name <> ALL (${literal(arrayLiteral(given.map(([setting]) => setting)))}::text[])));`);
		else if (given.length > 0 || reset.length > 0)
			lines.push(`SELECT event_queue.alter_queue(${literal(name)}${args(given)}${reset.length === 0 ? '' : args([['reset', reset]])});`);
	}
	for (const name of Object.keys(wanted.rules ?? {}).sort())
		lines.push(`SELECT event_queue.create_rule(${literal(name)}${args(Object.entries(encodeRule(name, wanted.rules![name])).filter(([, value]) => value !== null))}, or_replace => true);`);
	for (const name of [...wanted.drop?.queues ?? []].sort())
		lines.push(`SELECT event_queue.drop_queue(q.name, force => ${wanted.drop?.force === true}) FROM event_queue.queue q WHERE q.name = ${literal(name)};`);
	return `-- Queues and rules, by pg-event-queue sync --print\n${lines.join('\n')}\n`;
}
